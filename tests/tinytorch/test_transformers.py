"""Module 13: layer norm and GPT against PyTorch, drawing against counted shares, files, bad input."""

import numpy as np
import pytest

from tests.helpers import check_op
from tinytorch import (
    GPT,
    MLP,
    LayerNorm,
    Tensor,
    TransformerBlock,
    generate,
    gradcheck,
    language_loss,
    load,
    manual_seed,
    no_grad,
    sample,
    save,
)
from tinytorch.tensor import apply
from tinytorch.transformers import layer_norm_forward


def small():
    manual_seed(0)
    return GPT(11, d_model=12, n_heads=3, n_layers=2, context=8)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (2, 3, 4), (700, 130)])
def test_layer_norm(shape):
    check_op(
        lambda x, w, b: apply(layer_norm_forward, x, w, b, eps=0.1),
        lambda x, w, b: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.1) * w + b,
        [shape, shape[-1:], shape[-1:]],
    )


def test_a_large_offset_does_not_hurt_layer_norm():
    x = np.random.default_rng(0).standard_normal((3, 64))
    shifted = LayerNorm(64)(Tensor(x + 1000)).numpy()
    np.testing.assert_allclose(shifted, LayerNorm(64)(Tensor(x)).numpy(), atol=2e-3)


def test_block_has_a_gradient():
    manual_seed(1)
    block = TransformerBlock(6, 2)
    for p in block.parameters():
        p.data = p.data.astype(np.float64)
    assert gradcheck(block, [np.random.default_rng(0).standard_normal((2, 4, 6))])


def torch_gpt(torch, vocab, d, heads, layers, context):
    """The anchor of the benchmarks, in PyTorch's own layers."""
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
            self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
            self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

        def forward(self, x):
            B, T, _ = x.shape
            q, k, v = (z.view(B, T, heads, -1).transpose(1, 2) for z in self.qkv(self.norm1(x)).chunk(3, -1))
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(a.transpose(1, 2).reshape(B, T, d))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tok, self.pos = nn.Embedding(vocab, d), nn.Embedding(context, d)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, vocab, bias=False)

        def forward(self, ids):
            x = self.tok(ids) + self.pos.weight[: ids.shape[1]]
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    torch.manual_seed(0)
    return Model()


def plain(name):
    """The anchor's name of one of our parameters."""
    return name.replace("attention.", "").replace("mlp.", "")


def test_pytorch():
    torch = pytest.importorskip("torch")
    theirs, ours = torch_gpt(torch, 256, 128, 4, 4, 512), GPT(256)
    weights = {name: w.detach().numpy() for name, w in theirs.state_dict().items()}
    assert sorted(weights) == sorted(plain(name) for name in ours.state_dict())
    ours.load_state_dict({name: weights[plain(name)] for name in ours.state_dict()})
    ids = np.random.default_rng(0).integers(0, 256, (2, 101))
    tensor = torch.tensor(ids)
    with no_grad():
        np.testing.assert_allclose(ours(ids).numpy(), theirs(tensor).detach().numpy(), atol=1e-5)
    loss = language_loss(ours, ids)
    wanted = torch.nn.functional.cross_entropy(theirs(tensor[:, :-1]).flatten(0, 1), tensor[:, 1:].flatten())
    loss.backward()
    wanted.backward()
    assert float(loss) == pytest.approx(wanted.item(), rel=1e-5)
    gradients = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        right = gradients[plain(name)]
        np.testing.assert_allclose(
            p.grad.numpy(), right, atol=1e-5 * np.abs(right).max() + 1e-8, err_msg=name
        )


def test_initial_weights():
    manual_seed(0)
    state = GPT(256).state_dict()
    assert state["blocks.1.mlp.up.weight"].std() == pytest.approx(0.02, rel=0.03)
    assert state["blocks.1.mlp.down.weight"].std() == pytest.approx(0.02 / 8**0.5, rel=0.03)
    assert state["blocks.3.attention.out.weight"].std() == pytest.approx(0.02 / 8**0.5, rel=0.03)
    assert state["tok.weight"].std() == pytest.approx(0.02, rel=0.03)
    assert not any(state[name].any() for name in state if name.endswith("bias"))


def test_later_tokens_change_nothing_before():
    model, ids = small(), np.array([[1, 2, 3, 4, 5]])
    other = ids.copy()
    other[0, 3] = 9
    np.testing.assert_array_equal(model(ids).numpy()[:, :3], model(other).numpy()[:, :3])


def test_saved_and_loaded(tmp_path):
    model = small()
    save(model, tmp_path / "m.safetensors")
    ids = np.array([[1, 2, 3]])
    np.testing.assert_array_equal(load(tmp_path / "m.safetensors")(ids).numpy(), model(ids).numpy())


def test_targets_below_zero_are_left_out():
    model, ids = small(), np.array([[1, 2, 3, 4]])
    targets = np.array([[2, -1, 4, -1]])
    logits = model(ids).numpy()[0].astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert float(language_loss(model, ids, targets)) == pytest.approx(
        -(log_p[0, 2] + log_p[2, 4]) / 2, rel=1e-5
    )
    with pytest.raises(ValueError):
        language_loss(model, ids, np.full((1, 4), -1))


@pytest.mark.parametrize("options", [{"top_k": 2}, {"top_p": 0.7}, {"temperature": 1e-4}, {"temperature": 0}])
def test_sample_leaves_the_unlikely_out(options):
    logits = np.log(np.tile([0.1, 0.6, 0.3], (4000, 1)))
    ids = sample(logits, np.random.default_rng(0), **options)
    share = np.mean(ids == 1)
    assert not (ids == 0).any()
    assert share == 1 if "temperature" in options else share == pytest.approx(2 / 3, abs=0.03)


def test_generate_is_repeatable_and_stops():
    model = small()
    prompts = np.array([[1, 2], [3, 4]])
    first = generate(model, prompts, 20, temperature=5.0, seed=1)
    np.testing.assert_array_equal(first, generate(model, prompts, 20, temperature=5.0, seed=1))
    assert first.shape == (2, 22) and (first[:, :2] == prompts).all() and model.training
    stop = int(first[0, 2])
    stopped = generate(model, prompts, 20, temperature=5.0, seed=1, stop=stop)
    for row, free in zip(stopped, first, strict=True):
        at = int(np.argmax(row[2:] == stop)) + 2
        np.testing.assert_array_equal(row[:at], free[:at])
        assert (row[at:] == stop).all()


@pytest.mark.parametrize(
    "options,words",
    [
        ({"temperature": -1}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 2}, "top_p"),
    ],
)
def test_bad_settings(options, words):
    with pytest.raises(ValueError, match=words):
        sample(np.zeros((1, 3)), np.random.default_rng(0), **options)


def test_bad_shapes():
    model = small()
    for ids in ([1, 2], [[]], np.zeros((1, 9), int)):
        with pytest.raises(ValueError, match=r"GPT: expected ids of shape \(B, T\)"):
            model(ids)
    with pytest.raises(ValueError, match="11"):
        model([[11]])
    with pytest.raises(ValueError, match="LayerNorm: expected an input"):
        LayerNorm(3)(Tensor(np.zeros((2, 4))))
    with pytest.raises(ValueError, match="sample: expected logits"):
        sample(np.zeros(3), np.random.default_rng(0))
    with pytest.raises(ValueError, match="generate: expected prompts"):
        generate(model, [1, 2], 3)
    with pytest.raises(ValueError, match="positive sizes"):
        GPT(0)
    assert MLP(3)(Tensor(np.zeros((2, 3)))).shape == (2, 3)
