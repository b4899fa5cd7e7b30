"""Module 12: the blockwise attention against the naive one, gradients against differences and PyTorch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import check_op
from tinytorch import Attention, Tensor, attention_naive, causal_mask, no_grad, scaled_dot_product_attention
from tinytorch.activations import num_threads, set_num_threads
from tinytorch.attention import attention_forward, self_attention_forward, split_heads
from tinytorch.tensor import apply


def draw(*shapes, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("B,H,T,S,D", [(1, 1, 1, 1, 1), (2, 3, 4, 4, 5), (1, 2, 3, 9, 4), (2, 8, 70, 140, 3)])
def test_against_the_loop(B, H, T, S, D, causal):
    check_op(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, causal=causal),
        lambda q, k, v: attention_naive(q, k, v, causal),
        [(B, H, T, D), (B, H, S, D), (B, H, S, D)],
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 40), st.integers(0, 300), st.booleans())
def test_any_shape(B, H, T, more, causal):
    q, k, v = draw((B, H, T, 2), (B, H, T + more, 2), (B, H, T + more, 2))
    y = attention_forward(q, k, v, causal)[0]
    weights = q @ k.swapaxes(2, 3) / 2**0.5
    if causal:
        weights = np.where(causal_mask(T, T + more), weights, -np.inf)
    weights = np.exp(weights - weights.max(-1, keepdims=True))
    np.testing.assert_allclose(y, weights / weights.sum(-1, keepdims=True) @ v, atol=1e-10)


def test_threads_do_not_change_numbers():
    q, k, v = draw(*[(3, 4, 150, 8)] * 3, dtype=np.float32)
    before = num_threads()
    try:
        results = []
        for n in (1, 3):
            set_num_threads(n)
            results.append(attention_forward(q, k, v, True)[0])
    finally:
        set_num_threads(before)
    np.testing.assert_array_equal(*results)


def test_large_scores_stay_finite():
    q, k, v = draw(*[(1, 2, 5, 4)] * 3, dtype=np.float32)
    assert np.isfinite(
        scaled_dot_product_attention(Tensor(1e4 * q), Tensor(k), Tensor(v), causal=True).numpy()
    ).all()


def test_packed_attention_is_attention():
    check_op(
        lambda qkv: apply(self_attention_forward, qkv, n_heads=3, causal=True),
        lambda qkv: attention_naive(*split_heads(qkv, 3), True).transpose(0, 2, 1, 3).reshape(2, 5, 12),
        [(2, 5, 36)],
    )


def test_a_cache_gives_what_the_whole_gives():
    class Cache:
        k = v = None

        def append(self, k, v):
            self.k = k if self.k is None else np.concatenate([self.k, k], axis=2)
            self.v = v if self.v is None else np.concatenate([self.v, v], axis=2)
            return self.k, self.v

    attention, (x,) = Attention(12, 3), draw((2, 7, 12))
    cache = Cache()
    with no_grad():
        parts = [attention(Tensor(x[:, a:b]), cache).numpy() for a, b in [(0, 3), (3, 4), (4, 7)]]
        whole = attention(Tensor(x)).numpy()
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-6)


@pytest.mark.parametrize(
    "q,k,v,causal,words",
    [
        ((1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 5), False, "expected q"),
        ((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 2, 4), False, "expected q"),
        ((2, 3, 4), (2, 3, 4), (2, 3, 4), False, "expected q"),
        ((1, 2, 3, 4), (1, 2, 0, 4), (1, 2, 0, 4), False, "S >= 1"),
        ((1, 2, 3, 4), (1, 2, 2, 4), (1, 2, 2, 4), True, "3 queries"),
    ],
)
def test_bad_shapes(q, k, v, causal, words):
    with pytest.raises(ValueError, match=words):
        scaled_dot_product_attention(*(Tensor(np.zeros(s)) for s in (q, k, v)), causal=causal)


def test_bad_layers():
    with pytest.raises(ValueError, match="divide d_model"):
        Attention(10, 3)
    with pytest.raises(ValueError, match=r"expected an input of shape \(B, T, 8\)"):
        Attention(8, 2)(Tensor(np.zeros((3, 8))))


@pytest.mark.parametrize("causal", [False, True])
def test_pytorch(causal):
    torch = pytest.importorskip("torch")
    arrays = draw(*[(2, 4, 100, 16)] * 4, dtype=np.float32)
    ours = [Tensor(a, requires_grad=True) for a in arrays[:3]]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays[:3]]
    y = scaled_dot_product_attention(*ours, causal=causal)
    wanted = torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=causal)
    y.backward(arrays[3])
    wanted.backward(torch.tensor(arrays[3]))
    np.testing.assert_allclose(y.numpy(), wanted.detach().numpy(), atol=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=2e-5)
