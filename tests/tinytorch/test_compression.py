"""Module 16: pruned, cut, factored models against dense ones with zeros; distillation against its formula."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.helpers import check_op
from tinytorch import (
    GELU,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    CrossEntropyLoss,
    DistillationLoss,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    Softmax,
    Tensor,
    load,
    low_rank,
    manual_seed,
    no_grad,
    prepare_qat,
    prune,
    prune_channels,
    quantize,
    save,
)
from tinytorch.compression import (
    LowRankLinear,
    SparseCodes,
    SparseLayer,
    factors,
    keep_inputs,
    keep_outputs,
    largest_mask,
    scatter_forward,
    soft_loss,
    sparsity_of,
)
from tinytorch.optimizers import AdamW
from tinytorch.quantization import QuantizedLayer
from tinytorch.tensor import apply


class Network(Module):
    """A class of its own, with a frozen stem."""

    def __init__(self):
        self.stem = Conv2d(2, 4, 2)
        self.stem.weight = Tensor(self.stem.weight.data)
        self.body = [Conv2d(4, 7, 3, padding=1, bias=False), BatchNorm2d(7)]
        self.head = Linear(7 * 9, 5)

    def forward(self, x):
        x = self.body[1](self.body[0](self.stem(x)))
        return self.head(x.reshape(x.shape[0], -1))


def pictures(n=3, size=4, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal((n, 2, size, size)))


def network():
    manual_seed(0)
    return Network().eval()


def answers(model, x):
    with no_grad():
        return model(x).numpy()


def matrices(model):
    return [model.stem.weight.data, model.body[0].weight.data, model.head.weight.data]


def with_zeros(model, sparsity, scope):
    """The model with its smallest weights set to zero: the oracle of prune."""
    ranked = np.sort(np.concatenate([np.abs(w).ravel() for w in matrices(model)]))
    for w in matrices(model):
        own = ranked if scope == "global" else np.sort(np.abs(w).ravel())
        drop = round(sparsity * len(own))
        w[np.abs(w) <= (own[drop - 1] if drop else -1)] = 0
    return model


# ---- magnitude pruning


@settings(max_examples=50, deadline=None, derandomize=True)
@given(arrays(np.float64, st.integers(1, 30), elements=st.integers(0, 5)), st.data())
def test_exactly_n_stay_and_they_are_the_largest(scores, data):
    n = data.draw(st.integers(0, len(scores)))
    mask = largest_mask(scores, n)
    assert mask.sum() == n
    np.testing.assert_array_equal(np.sort(scores[mask]), np.sort(scores)[len(scores) - n :])


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("sparsity", [0, 0.3, 0.5, 0.9])
def test_prune_is_setting_the_smallest_to_zero(sparsity, scope, tmp_path):
    x, small = pictures(), prune(network(), sparsity, scope)
    wanted = answers(with_zeros(network(), sparsity, scope), x)
    np.testing.assert_allclose(answers(small, x), wanted, atol=1e-5)
    assert abs(sparsity_of(small) - sparsity) < 0.01
    for dtype in (None, "float16"):
        save(small, tmp_path / "m.safetensors", dtype=dtype)
        again = load(tmp_path / "m.safetensors", classes=[Network]).eval()
        np.testing.assert_allclose(answers(again, x), wanted, atol=1e-5 if dtype is None else 1e-2)


def test_prune_leaves_its_model_alone_and_keeps_what_it_is_told():
    net = network()
    before = {name: a.copy() for name, a in net.state_dict().items()}
    small = prune(net, 0.5, keep=("head",))
    for name, a in net.state_dict().items():
        np.testing.assert_array_equal(a, before[name])
    assert type(small.head) is Linear and type(small.stem) is SparseLayer
    np.testing.assert_array_equal(small.head.weight.data, before["head.weight"])


def test_zeros_stay_through_training():
    x, y, small = pictures(6), np.arange(6) % 5, prune(network(), 0.7)
    zeros = [w == 0 for w in matrices(small)]
    assert "model.stem.values" not in dict(small.named_parameters()), "the stem is frozen"
    optimizer, losses = AdamW(small.train().parameters(), lr=0.01), []
    for _ in range(30):
        loss = CrossEntropyLoss()(small(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    for w, zero in zip(matrices(small), zeros, strict=True):
        np.testing.assert_array_equal(w == 0, zero)
    np.testing.assert_allclose(answers(small.eval(), x), answers(small.dense(), x), atol=1e-6)


def test_gradients_of_the_values():
    positions = np.array([1, 2, 5])
    check_op(
        lambda v: apply(scatter_forward, v, positions=positions, shape=(2, 3)),
        lambda v: np.array([[0, v[0], v[1]], [0, 0, v[2]]]),
        [(3,)],
    )


def test_pruning_again_starts_from_the_zeros():
    x, once = pictures(), prune(network(), 0.4)
    twice = prune(once, 0.8)
    np.testing.assert_allclose(answers(twice, x), answers(prune(network(), 0.8), x), atol=1e-6)


@pytest.mark.parametrize("bits", [8, 4])
def test_prune_a_quantized_model(bits, tmp_path):
    x, whole = pictures(), quantize(network(), bits=bits)
    small = prune(whole, sparsity=0.5)
    layers = [m for m in small.modules() if isinstance(m, SparseCodes)]
    assert len(layers) == 3 and sparsity_of(small) >= 0.5
    ranked = np.sort(np.concatenate([np.abs(w).ravel() for w in matrices(whole)]))
    limit = ranked[round(0.5 * len(ranked)) - 1]
    for new, old in zip(matrices(small), matrices(whole), strict=True):
        np.testing.assert_array_equal(new[np.abs(old) > limit], old[np.abs(old) > limit])
        assert (new[np.abs(old) < limit] == 0).all()
    got = answers(small, x)
    save(small, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors", classes=[Network]).eval()
    np.testing.assert_array_equal(answers(again, x), got)
    np.testing.assert_array_equal(answers(small.dense(), x), got)
    np.testing.assert_array_equal(answers(prune(small, 0.5), x), got)


def test_kept_layers_of_a_quantized_model_are_not_pruned():
    small = prune(quantize(network(), bits=4, keep=("stem",)), 0.5)
    np.testing.assert_array_equal(small.stem.weight.data, network().stem.weight.data)
    assert type(prune(quantize(network(), bits=4), 0.5, keep=("head",)).head) is QuantizedLayer


def test_a_pruned_model_can_be_quantized():
    x, half = pictures(), prune(network(), 0.5)
    small = quantize(half, bits=8)
    wanted = answers(half, x)
    assert np.abs(answers(small, x) - wanted).max() < 0.03 * np.abs(wanted).max()
    assert all((w[z == 0] == 0).all() for w, z in zip(matrices(small), matrices(half), strict=True))
    calibrated = prune(quantize(half, bits=8, calibration=x), 0.5)
    assert np.abs(answers(calibrated, x) - wanted).max() < 0.05 * np.abs(wanted).max()


def test_a_model_trained_for_few_bits_can_be_pruned():
    model = prepare_qat(network(), bits=4).eval()
    np.testing.assert_allclose(
        answers(prune(model, 0.5), pictures()), answers(prune(network(), 0.5), pictures())
    )


def test_file_bytes(tmp_path):
    n, header, sizes = 400 * 500, 700, {}
    net = Sequential(Linear(500, 400, bias=False))
    forms = {"16": net, "16 half": prune(net, 0.5), "4": quantize(net, bits=4)}
    forms["4 half"] = prune(forms["4"], 0.5)
    for name, model in forms.items():
        save(model, tmp_path / "m.safetensors", dtype="float16")
        sizes[name] = (tmp_path / "m.safetensors").stat().st_size
    assert n // 8 + n < sizes["16 half"] < n // 8 + n + header < sizes["16"]
    assert n // 8 + n // 4 + 800 < sizes["4 half"] < n // 8 + n // 4 + 800 + header < sizes["4"]


# ---- channels


def cnn():
    manual_seed(0)
    return Sequential(
        Sequential(Conv2d(2, 8, 3, padding=1), BatchNorm2d(8, eps=0.1), GELU(), MaxPool2d(2)),
        Conv2d(8, 6, 3, padding=1, bias=False), BatchNorm2d(6), ReLU(), AvgPool2d(2), Dropout(0.2), Flatten(),
        Linear(6 * 4, 10), GELU(), Linear(10, 3),
    )  # fmt: skip


def test_channels_that_do_nothing_can_go(tmp_path):
    net, x = cnn(), pictures(5, 8)
    for k in range(3):
        net(x * (k + 1))
    for conv, norm, dead in ((net[0][0], net[0][1], [0, 3, 4, 7]), (net[1], net[2], [1, 2, 5])):
        conv.weight.data[dead] = 0
        norm.weight.data[dead] = norm.bias.data[dead] = norm.running_mean.data[dead] = 0
    net[7].weight.data[::2] = net[7].bias.data[::2] = 0
    small, wanted = prune_channels(net.eval(), 0.5), answers(net, x)
    np.testing.assert_allclose(answers(small, x), wanted, atol=1e-5)
    shapes = [p.shape for name, p in small.named_parameters() if name.endswith("weight") and p.ndim > 1]
    assert shapes == [(4, 2, 3, 3), (3, 4, 3, 3), (5, 12), (3, 5)]
    assert net[1].weight.shape == (6, 8, 3, 3), "the model itself is left alone"
    save(small, tmp_path / "m.safetensors")
    np.testing.assert_array_equal(answers(load(tmp_path / "m.safetensors").eval(), x), answers(small, x))


def test_a_channel_is_scored_with_its_batch_norm():
    net = Sequential(Conv2d(1, 2, 1, bias=False), BatchNorm2d(2), ReLU(), Conv2d(2, 1, 1)).eval()
    net[0].weight.data[:] = np.array([1, 2]).reshape(2, 1, 1, 1)
    net[1].weight.data[:] = [1, -0.1]
    assert prune_channels(net, 0.5)[0].weight.data.item() == 1
    net[1].running_var.data[:] = [1e6, 1]
    assert prune_channels(net, 0.5)[0].weight.data.item() == 2


def test_half_of_the_channels_is_a_quarter_of_the_work_and_one_always_stays():
    net = Sequential(Conv2d(2, 32, 3), ReLU(), Conv2d(32, 32, 3), ReLU(), Conv2d(32, 4, 3))
    small = prune_channels(net, 0.5)
    assert small[2].weight.numel() * 4 == net[2].weight.numel()
    assert [small[i].weight.shape[0] for i in (0, 2, 4)] == [16, 16, 4]
    assert [prune_channels(net, 0.99)[i].weight.shape[0] for i in (0, 2, 4)] == [1, 1, 4]


@pytest.mark.parametrize("kept", [[0], [1, 4], [0, 1, 2, 3, 4]])
def test_cuts_are_zeros_before_the_next_layer(kept):
    manual_seed(0)
    x, kept = pictures(2, 6), np.array(kept)
    first, second = Conv2d(2, 5, 3, stride=2), Linear(5 * 4, 3)
    y = answers(first, x)
    y[:, np.setdiff1d(np.arange(5), kept)] = 0
    wanted = answers(second, Tensor(y.reshape(2, -1)))
    got = answers(Sequential(keep_outputs(first, kept), Flatten(), keep_inputs(second, kept, 5)), x)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


# ---- low rank


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 7), st.integers(1, 7), st.data())
def test_factors_are_the_best_of_their_rank(rows, columns, data):
    rank = data.draw(st.integers(1, min(rows, columns)))
    w = np.random.default_rng(rows * 10 + columns).standard_normal((rows, columns))
    a, b = factors(w, rank)
    assert a.shape == (rows, rank) and b.shape == (rank, columns)
    eigenvalues = np.sort(np.linalg.eigvalsh(w.T @ w))[::-1][rank:]
    np.testing.assert_allclose(((w - a @ b) ** 2).sum(), max(eigenvalues.sum(), 0), atol=1e-9)


def test_low_rank_of_a_matrix_that_has_it_changes_nothing(tmp_path):
    manual_seed(0)
    net, rng = Sequential(Linear(20, 16), ReLU(), Linear(16, 3)), np.random.default_rng(0)
    net[0].weight.data = (rng.standard_normal((16, 4)) @ rng.standard_normal((4, 20))).astype(np.float32)
    x, small = Tensor(rng.standard_normal((5, 20))), low_rank(net, rank=4)
    np.testing.assert_allclose(answers(small, x), answers(net, x), rtol=1e-3, atol=1e-4)
    assert isinstance(small.layers[0], LowRankLinear) and type(small.layers[2]) is Linear
    assert sum(p.numel() for p in small.layers[0].parameters()) == 4 * 36 + 16
    save(small, tmp_path / "m.safetensors")
    np.testing.assert_array_equal(answers(load(tmp_path / "m.safetensors"), x), answers(small, x))
    assert type(net[0]) is Linear


def test_low_rank_can_be_trained_quantized_and_pruned():
    manual_seed(0)
    small = low_rank(Sequential(Linear(30, 30, bias=False), ReLU(), Linear(30, 2)), rank=5)
    x = Tensor(np.random.default_rng(0).standard_normal((4, 30)))
    small(x).sum().backward()
    assert all(p.grad is not None for p in small.parameters()) and small.layers[0].second.bias is None
    wanted = answers(small, x)
    assert np.abs(answers(quantize(small, bits=8), x) - wanted).max() < 0.05 * np.abs(wanted).max()
    np.testing.assert_allclose(answers(prune(small, 0), x), wanted, atol=1e-5)


# ---- distillation


@pytest.mark.parametrize("T", [1.0, 3.0])
def test_soft_loss(T):
    teacher = 3 * np.random.default_rng(0).standard_normal((4, 5))

    def formula(x):
        p, q = (np.exp(z / T) / np.exp(z / T).sum(axis=1, keepdims=True) for z in (teacher, x))
        return T**2 * np.mean((p * np.log(p / q)).sum(axis=1))

    check_op(lambda x: soft_loss(x, teacher, T), formula, [(4, 5)])


def test_distillation_like_pytorch():
    torch = pytest.importorskip("torch")
    rng, T, alpha = np.random.default_rng(0), 2.5, 0.3
    logits, teacher = rng.standard_normal((2, 6, 4)).astype(np.float32)
    y = rng.integers(0, 4, 6)
    ours, theirs = Tensor(logits, requires_grad=True), torch.tensor(logits, requires_grad=True)
    loss = DistillationLoss(T, alpha, label_smoothing=0.1)(ours, y, Tensor(teacher))
    soft = torch.nn.functional.kl_div(
        torch.log_softmax(theirs / T, 1), torch.softmax(torch.tensor(teacher) / T, 1), reduction="batchmean"
    )
    hard = torch.nn.functional.cross_entropy(theirs, torch.tensor(y), label_smoothing=0.1)
    wanted = alpha * T**2 * soft + (1 - alpha) * hard
    loss.backward()
    wanted.backward()
    np.testing.assert_allclose(loss.item(), wanted.item(), rtol=1e-5)
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), atol=1e-6)


def test_the_teacher_gets_no_gradient():
    logits, teacher = (Tensor(np.ones((2, 3)) * k, requires_grad=True) for k in (1, 2))
    DistillationLoss()(logits, [0, 1], teacher).backward()
    assert teacher.grad is None and logits.grad is not None


# ---- errors, one line each


def test_refuses():
    net = Sequential(Linear(8, 8), ReLU(), Linear(8, 2))
    for sparsity in (1, -0.1, 50, "half", float("nan")):
        for name, function in (("prune", prune), ("prune_channels", prune_channels)):
            with pytest.raises(ValueError, match=rf"^{name}: expected a sparsity in \[0, 1\), got "):
                function(net, sparsity)
    with pytest.raises(ValueError, match="^prune: expected scope 'global' or 'layer', got 'all'$"):
        prune(net, 0.5, "all")
    with pytest.raises(ValueError, match="^prune: nothing to prune in Sequential: no layer has a weight"):
        prune(Sequential(ReLU()), 0.5)
    with pytest.raises(TypeError, match="^prune: expected a Module, got int$"):
        prune(3, 0.5)
    with pytest.raises(ValueError, match=r"^prune: keep names \['head'\]"):
        prune(net, 0.5, keep=("head",))
    with pytest.raises(
        TypeError, match="^prune_channels: expected a Sequential, got Network; see keep_outputs$"
    ):
        prune_channels(Network(), 0.5)
    with pytest.raises(
        TypeError, match="^prune_channels: expected layers that keep channels apart, got Softmax$"
    ):
        prune_channels(Sequential(Linear(2, 2), Softmax(), Linear(2, 2)), 0.5)
    with pytest.raises(ValueError, match="^prune_channels: nothing to remove, the model has 1 layers"):
        prune_channels(Sequential(Linear(2, 2)), 0.5)
    for rank in (0, -1, 2.5):
        with pytest.raises(
            ValueError, match=f"^low_rank: expected a rank of at least 1, a whole number, got {rank}$"
        ):
            low_rank(net, rank)
    with pytest.raises(
        ValueError, match="^low_rank: rank 4 is too large, no Linear gets smaller; expected at most 3$"
    ):
        low_rank(net, 4)
    assert isinstance(low_rank(net, 3).layers[0], LowRankLinear)
    with pytest.raises(ValueError, match="^low_rank: rank 1 is too large, no Linear .* at most 0$"):
        low_rank(Sequential(ReLU()), 1)
    for temperature, alpha in ((0, 0.5), (-1, 0.5), (1, 1.5)):
        with pytest.raises(ValueError, match="^DistillationLoss: expected temperature > 0 and alpha in"):
            DistillationLoss(temperature, alpha)
    with pytest.raises(
        ValueError, match=r"^DistillationLoss: expected logits of one shape, got \(2, 3\) and \(2, 4\)$"
    ):
        DistillationLoss()(Tensor(np.ones((2, 3))), [0, 1], np.ones((2, 4)))
