"""Module 15: codes against their definition, files by their bytes, quantized models against float ones."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinytorch import (
    GELU,
    BatchNorm2d,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    Tensor,
    load,
    manual_seed,
    no_grad,
    prepare_qat,
    prune,
    quantize,
    save,
)
from tinytorch.quantization import (
    Quantized,
    QuantizedLayer,
    activation_grid,
    best_scale,
    channel_scale,
    fake_quantize,
    fake_quantize_forward,
    float16_up,
    from_codes,
    integer_linear,
    integer_linear_naive,
    pack_int4,
    to_codes,
    unpack_int4,
)
from tinytorch.tensor import apply

END = {4: 7, 8: 127}


class Group(Module):
    """A class of its own: norms behind a pooling and behind a convolution, a list, a frozen scale."""

    def __init__(self, n_in, n_out):
        self.convs = [Conv2d(n_in, n_out, 3, padding=1), Conv2d(n_out, n_out, 3, padding=1, bias=False)]
        self.norm, self.last, self.pool = BatchNorm2d(n_out), BatchNorm2d(n_out), MaxPool2d(2)
        self.norm.weight = Tensor(self.norm.weight.data)

    def forward(self, x):
        return self.last(self.convs[1](self.norm(self.pool(self.convs[0](x)))))


class Table(Module):
    """A lookup, as an embedding is one: whole numbers in, rows of the weight out."""

    def __init__(self, rows, width):
        self.weight = Tensor(np.random.default_rng(0).standard_normal((rows, width)), requires_grad=True)

    def forward(self, ids, shift=0):
        return self.weight[np.asarray(ids, dtype=int) + shift]


class Network(Module):
    def __init__(self, width=6):
        self.stem = Conv2d(2, 4, 2)
        self.groups = Sequential(Group(4, width), GELU(), Group(width, 8))
        self.head = Linear(8, 5)

    def forward(self, x):
        x = self.groups(self.stem(x))
        return self.head(x.reshape(x.shape[0], -1))


def pictures(n=4, size=7, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal((n, 2, size, size)))


def trained(model, x):
    """The model after it has seen some batches, so that its running averages are not 0 and 1."""
    for k in range(4):
        model(x * (1 + k) + k)
    return model.eval()


def answers(model, x):
    with no_grad():
        return model(x).numpy()


# ---- codes


@pytest.mark.parametrize("bits", [4, 8])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_weight_moves_by_more_than_half_a_step(bits, data):
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 6)))
    values = st.floats(-(2.0**10), 2.0**10, width=32)
    w = data.draw(arrays(np.float32, shape, elements=values))
    for scale in (channel_scale(w, bits), best_scale(w, bits)):
        codes = to_codes(w, scale, bits)
        assert codes.dtype == np.int8 and np.abs(codes).max() <= END[bits]
        step = scale.astype(np.float64)[:, None]
        error, inside = np.abs(from_codes(codes, scale) - w), np.abs(w) <= END[bits] * step
        assert (error[inside] <= 0.501 * np.broadcast_to(step, shape)[inside]).all()
    assert (
        inside.shape == shape
        and (np.abs(w) <= END[bits] * channel_scale(w, bits).astype(float)[:, None]).all()
    )


def test_zero_stays_zero_and_signs_are_symmetric():
    w = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    w[:, ::3] = 0
    scale = channel_scale(w, 4)
    np.testing.assert_array_equal(from_codes(to_codes(w, scale, 4), scale)[:, ::3], 0)
    np.testing.assert_array_equal(to_codes(-w, channel_scale(-w, 4), 4), -to_codes(w, scale, 4))


def test_float16_up_never_rounds_down():
    numbers = np.random.default_rng(0).lognormal(-4, 4, 2000)
    up = float16_up(numbers[numbers < 65504])
    assert (up >= numbers[numbers < 65504]).all() and float16_up(np.zeros(1))[0] > 0
    normal = numbers[(numbers > 1e-4) & (numbers < 6e4)]
    np.testing.assert_allclose(float16_up(normal), normal, rtol=1e-3)


def test_best_scale_is_no_worse_than_the_whole_range():
    w = np.random.default_rng(0).standard_t(4, (6, 300)).astype(np.float32)

    def error(scale):
        return ((w - from_codes(to_codes(w, scale, 4), scale)) ** 4).sum(axis=1)

    whole, best = error(channel_scale(w, 4)), error(best_scale(w, 4))
    assert (best <= whole).all() and best.sum() < 0.9 * whole.sum()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(arrays(np.int8, st.integers(0, 33), elements=st.integers(-8, 7)))
def test_packing_is_lossless(codes):
    packed = pack_int4(codes)
    assert packed.dtype == np.uint8 and packed.size == (codes.size + 1) // 2
    np.testing.assert_array_equal(unpack_int4(packed, codes.size), codes)


def test_integer_products_are_exact():
    rng = np.random.default_rng(0)
    q, codes = rng.integers(0, 256, (3, 40)), rng.integers(-127, 128, (5, 40)).astype(np.int8)
    np.testing.assert_array_equal(integer_linear(q, codes), integer_linear_naive(q, codes))
    q, codes = np.full((1, 70_001), 255), np.full((1, 70_001), 127, np.int8)
    q[0, 0] = 254
    assert integer_linear(q, codes).tolist() == [[70_001 * 255 * 127 - 127]]


def test_simulated_arithmetic_is_that_of_whole_numbers():
    """A layer with rounded inputs gives what integer hardware would, up to the rounding of float32."""
    manual_seed(0)
    layer, x = Linear(30, 7), np.random.default_rng(1).standard_normal((4, 30)).astype(np.float32)
    new = quantize(layer, bits=8, calibration=x).model
    scale, zero = new.grid.data.astype(np.float64)
    q = np.clip(np.rint(x / np.float32(scale)) + zero, 0, 255)
    whole = integer_linear(q - zero, new.codes.data)
    wanted = whole * scale * new.scale.data.astype(np.float64) + new.bias.data
    np.testing.assert_allclose(answers(new, Tensor(x)), wanted, atol=1e-5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_activation_grid_holds_zero_and_both_ends(a, b):
    lo, hi = min(a, b), max(a, b)
    scale, zero = activation_grid(lo, hi)
    assert scale > 0 and 0 <= zero <= 255 and zero == int(zero)
    for value in (lo, hi, 0.0):
        (back,) = fake_quantize_forward(np.array([value]), scale, zero, 0, 255)
        assert abs(back - value) <= 1.01 * scale and (value != 0 or back == 0)


# ---- the straight-through estimator


def test_gradients_pass_where_nothing_is_clipped():
    x = Tensor(np.linspace(-2, 2, 41), requires_grad=True, dtype=np.float64)
    y = apply(fake_quantize_forward, x, scale=0.1, zero=0, low=-7, high=7)
    y.backward(np.arange(41.0))
    inside = np.abs(np.rint(x.numpy() / 0.1)) <= 7
    np.testing.assert_array_equal(x.grad.numpy(), np.arange(41.0) * inside)
    assert y.dtype == np.float64 and 10 < inside.sum() < 20


def test_straight_through_like_pytorch():
    torch = pytest.importorskip("torch")
    w = np.random.default_rng(0).standard_normal((5, 24)).astype(np.float32)
    scale = float16_up(0.7 * np.abs(w).max(axis=1) / 7).astype(np.float32)
    ours, theirs = Tensor(w, requires_grad=True), torch.tensor(w, requires_grad=True)
    y = apply(fake_quantize_forward, ours, scale=scale[:, None], zero=0, low=-7, high=7)
    zero = torch.zeros(5, dtype=torch.int32)
    z = torch.fake_quantize_per_channel_affine(theirs, torch.tensor(scale), zero, 0, -7, 7)
    g = np.random.default_rng(1).standard_normal(w.shape).astype(np.float32)
    y.backward(g)
    z.backward(torch.tensor(g))
    np.testing.assert_allclose(y, z.detach().numpy(), atol=1e-6)
    np.testing.assert_array_equal(ours.grad, theirs.grad.numpy())


@pytest.mark.parametrize("bits", [4, 8])
def test_fake_quantize_is_what_the_codes_read(bits):
    w = Tensor(np.random.default_rng(0).standard_normal((4, 3, 2, 2)), requires_grad=True)
    scale = channel_scale(w.data, bits)
    np.testing.assert_array_equal(fake_quantize(w, bits), from_codes(to_codes(w.data, scale, bits), scale))


# ---- whole models


@pytest.mark.parametrize("bits,error", [(8, 0.03), (4, 0.4)])
@pytest.mark.parametrize("keep", [(), ("stem", "groups.layers.2")])
def test_quantize_a_class_of_ones_own(bits, error, keep, tmp_path):
    manual_seed(0)
    x = pictures()
    net = trained(Network(width=7), x)
    before, wanted = {n: a.copy() for n, a in net.state_dict().items()}, answers(net, x)
    small = quantize(net, bits=bits, keep=keep)
    got = answers(small, x)
    assert 0 < np.abs(got - wanted).max() < error * np.abs(wanted).max()
    for name, a in net.state_dict().items():
        np.testing.assert_array_equal(a, before[name])
    layers = [m for m in small.modules() if isinstance(m, QuantizedLayer)]
    assert len(layers) == (3 if keep else 6)
    save(small, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors", classes=[Network]).eval()
    np.testing.assert_array_equal(answers(again, x), got)
    assert again.state_dict().keys() == small.state_dict().keys()


def test_every_weight_is_its_nearest_code():
    manual_seed(0)
    net = Network()
    small = quantize(net, bits=8)
    for mine, theirs in ((small.head, net.head), (small.groups[0].convs[1], net.groups[0].convs[1])):
        step = mine.scale.data.astype(np.float32).reshape(-1, *[1] * (theirs.weight.ndim - 1))
        codes = np.clip(np.rint(theirs.weight.data / step), -127, 127)
        np.testing.assert_array_equal(mine.weight.data, codes * step)


def test_file_bytes(tmp_path):
    net = Sequential(Linear(512, 400, bias=False))
    sizes = {}
    for bits, model in ((16, net), (8, quantize(net, bits=8)), (4, quantize(net, bits=4))):
        save(model, tmp_path / "m.safetensors", dtype="float16")
        sizes[bits] = (tmp_path / "m.safetensors").stat().st_size
    weights, scales, header = 512 * 400, 2 * 400, 600
    assert 2 * weights < sizes[16] < 2 * weights + header
    assert weights + scales < sizes[8] < weights + scales + header
    assert weights // 2 + scales < sizes[4] < weights // 2 + scales + header


def test_quantized_twice_through_a_file_is_the_same(tmp_path):
    manual_seed(0)
    x = pictures()
    small = quantize(trained(Network(), x), bits=4)
    for _ in range(2):
        save(small, tmp_path / "m.safetensors", dtype="float16")
        small = load(tmp_path / "m.safetensors", classes=[Network]).eval()
        first = answers(small, x)
    save(small, tmp_path / "m.safetensors", dtype="float16")
    np.testing.assert_array_equal(
        answers(load(tmp_path / "m.safetensors", classes=[Network]).eval(), x), first
    )


def test_embeddings_are_looked_up_and_never_rounded_at_the_door():
    net = Sequential(Table(1000, 8), Linear(8, 3))
    ids = np.array([[0, 999], [500, 3]])
    small = quantize(net, bits=8, calibration=ids)
    wanted = answers(net, ids)
    assert np.abs(answers(small, ids) - wanted).max() < 0.05 * np.abs(wanted).max()
    assert sum("grid" in name for name in small.state_dict()) == 1


def test_calibration():
    manual_seed(0)
    x = pictures(8)
    net = trained(Network(), x)
    exact, rounded = quantize(net, bits=8), quantize(net, bits=8, calibration=x)
    wanted = answers(net, x)
    assert not np.array_equal(answers(rounded, x), answers(exact, x))
    assert np.abs(answers(rounded, x) - wanted).max() < 0.06 * np.abs(wanted).max()
    halves = quantize(net, bits=8, calibration=[x.numpy()[:4], x.numpy()[4:]])
    np.testing.assert_allclose(answers(halves, x), answers(rounded, x), atol=1e-5)
    scale, zero = rounded.stem.grid.data
    lo, hi = x.numpy().min(), x.numpy().max()
    np.testing.assert_allclose([-zero * scale, (255 - zero) * scale], [lo, hi], atol=1.1 * scale)


def test_calibrated_model_through_a_file(tmp_path):
    x = pictures()
    net = trained(Network(), x)
    small = quantize(net, bits=8, calibration=x)
    save(small, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors", classes=[Network]).eval()
    np.testing.assert_array_equal(answers(again, x), answers(small, x))


def test_batch_norms_fold_where_that_is_exact():
    manual_seed(0)
    x = pictures()
    block = Sequential(
        Conv2d(2, 4, 3), BatchNorm2d(4), ReLU(), Sequential(Conv2d(4, 4, 1, bias=False), BatchNorm2d(4))
    )
    net = trained(Sequential(block, MaxPool2d(2), BatchNorm2d(4), Flatten(), Linear(16, 3)), x)
    everything = ("layers.0.layers.0", "layers.0.layers.3")
    small = quantize(net, bits=8, keep=everything)
    assert sum(isinstance(m, BatchNorm2d) for m in small.modules()) == 1
    wanted = answers(net[0], x)
    np.testing.assert_allclose(answers(small.layers[0], x), wanted, atol=1e-4)


def test_a_convolution_used_twice_is_not_folded():
    conv = Conv2d(2, 2, 1)
    net = trained(Sequential(conv, BatchNorm2d(2), conv), pictures())
    small = quantize(net, bits=8)
    assert sum(isinstance(m, BatchNorm2d) for m in small.modules()) == 1
    assert small.layers[0] is small.layers[2]
    wanted = answers(net, pictures())
    assert np.abs(answers(small, pictures()) - wanted).max() < 0.03 * np.abs(wanted).max()


def test_weights_are_decoded_once_and_again_after_a_change(monkeypatch):
    small, calls = quantize(Linear(3, 2), bits=4).model, []
    decode = type(small).decode
    monkeypatch.setattr(type(small), "decode", lambda self: calls.append(1) or decode(self))
    x = Tensor(np.ones((1, 3)))
    first = [answers(small, x) for _ in range(3)]
    assert len(calls) == 1 and "weight" not in small.state_dict()
    small.load_state_dict({n: np.zeros_like(a) if n == "scale" else a for n, a in small.state_dict().items()})
    assert not np.array_equal(answers(small, x), first[0]) and len(calls) == 2
    np.testing.assert_allclose(answers(small, x)[0], small.bias.data)


def test_dropout_rests_and_attributes_are_found():
    small = quantize(Sequential(Linear(4, 4), Dropout(0.5)), bits=8)
    x = Tensor(np.ones((1, 4)))
    np.testing.assert_array_equal(answers(small, x), answers(small, x))
    assert len(small.layers) == 2 and small.layers[0].bias.shape == (4,)
    assert quantize(Conv2d(2, 3, 2, stride=2)).stride == 2
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = small.nothing


# ---- training


def test_qat_then_quantize_is_exact(tmp_path):
    manual_seed(0)
    x, y = pictures(), np.array([0, 1, 2, 3])
    net = trained(Network(), x)
    model = prepare_qat(net, bits=4, keep=("stem",))
    names = [n for n, _ in model.named_parameters()]
    assert len(names) == len(net.parameters()) and "model.groups.layers.0.norm.weight" not in names
    for _ in range(3):
        loss = CrossEntropyLoss()(model(x), y)
        model.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        for p in model.parameters():
            p.data = p.data - 0.01 * p.grad.data
    wanted = answers(model.eval(), x)
    small = quantize(model, bits=4)
    np.testing.assert_allclose(answers(small, x), wanted, atol=1e-5)
    assert isinstance(small.stem, Conv2d) and isinstance(small.head, QuantizedLayer)
    save(model, tmp_path / "qat.safetensors")
    again = load(tmp_path / "qat.safetensors", classes=[Network]).eval()
    np.testing.assert_array_equal(answers(again, x), wanted)
    np.testing.assert_allclose(answers(quantize(again, bits=4), x), wanted, atol=1e-5)
    save(small, tmp_path / "small.safetensors")
    once_more = load(tmp_path / "small.safetensors", classes=[Network]).eval()
    np.testing.assert_array_equal(answers(once_more, x), answers(small, x))


def test_qat_with_norms_in_a_sequential_is_exact():
    manual_seed(0)
    x = pictures()
    model = prepare_qat(
        trained(Sequential(Conv2d(2, 3, 3), BatchNorm2d(3), ReLU(), Conv2d(3, 2, 3)), x), bits=4
    )
    np.testing.assert_allclose(answers(quantize(model, bits=4), x), answers(model.eval(), x), atol=1e-5)


def test_qat_copies_and_leaves_the_model_alone():
    net = Linear(3, 2)
    model = prepare_qat(net, bits=8)
    model(Tensor(np.ones((1, 3)))).sum().backward()
    assert net.weight.grad is None and type(net) is Linear
    np.testing.assert_array_equal(model.dense().weight.data, net.weight.data)


def test_layers_with_several_arguments():
    table, ids = Table(9, 4), np.arange(5)
    for model in (
        quantize(table, bits=8),
        prune(table, 0),
        prune(quantize(table, bits=8), 0),
        prepare_qat(table),
    ):
        wanted = answers(table, ids + 3)
        for got in (model(ids, 3).numpy(), model(ids, shift=3).numpy()):
            np.testing.assert_allclose(got, wanted, atol=0.02)


# ---- errors, one line each


def test_refuses():
    net = Sequential(Linear(2, 3), ReLU())
    for bits in (3, 16, None):
        with pytest.raises(ValueError, match=rf"^quantize: expected bits 8 or 4, got {bits}$"):
            quantize(net, bits=bits)
        with pytest.raises(ValueError, match=rf"^quantize: expected bits 8 or 4, got {bits}$"):
            prepare_qat(net, bits=bits)
    with pytest.raises(
        ValueError, match="^quantize: nothing to quantize in Sequential: no layer has a weight"
    ):
        quantize(Sequential(ReLU(), BatchNorm2d(2)))
    with pytest.raises(ValueError, match=r"^quantize: keep names \['head'\], but no layer is called so$"):
        quantize(net, keep=("head",))
    with pytest.raises(
        ValueError, match="^quantize: the model is quantized already; start from the float model$"
    ):
        quantize(Sequential(quantize(net)))
    with pytest.raises(ValueError, match="^quantize: the model was trained for 4 bits, got bits=8$"):
        quantize(prepare_qat(net, bits=4), bits=8)
    with pytest.raises(TypeError, match="^quantize: expected a Module, got ndarray$"):
        quantize(np.ones(3))
    with pytest.raises(ValueError, match="^quantize: expected at least one batch for the calibration"):
        quantize(net, calibration=[])
    with pytest.raises(ValueError, match="^quantize: the calibration met numbers that are not finite"):
        quantize(net, calibration=np.full((1, 2), np.nan))
    for bad in (np.nan, np.inf, 1e9):
        broken = copy.deepcopy(net)
        broken[0].weight.data[0, 0] = bad
        with pytest.raises(ValueError, match="^quantize: expected finite weights"):
            quantize(broken, bits=8)


def test_takes_over_what_it_is_given():
    net = Sequential(Linear(2, 3))
    assert isinstance(Quantized(net, bits=4).model[0], QuantizedLayer) and isinstance(net[0], QuantizedLayer)
