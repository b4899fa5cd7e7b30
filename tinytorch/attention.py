"""Attention: every position of a sequence gathers from the positions that it finds relevant.

Built by tito from lesson 12_attention: change the lesson, not this file.
"""

import math

import numpy as np

from tinytorch.activations import BLOCK, parallel_for
from tinytorch.autograd import vjp
from tinytorch.layers import Linear, Module
from tinytorch.tensor import apply

__all__ = [
    "causal_mask",
    "attention_naive",
    "attention_blocks",
    "block_scores",
    "attention_forward",
    "attention_gradients",
    "attention_vjp",
    "check_attention",
    "scaled_dot_product_attention",
    "split_heads",
    "merge_heads",
    "self_attention_forward",
    "self_attention_vjp",
    "cached_attention_forward",
    "Attention",
]


def causal_mask(T, S):
    """Which of S keys each of T queries may see: a (T, S) array of True and False.

    The queries are the last T of the S positions: query i sits at position S - T + i, and sees the keys up to
    that position. causal_mask(2, 3) is [[True, True, False], [True, True, True]].
    """
    return np.arange(S) <= np.arange(S - T, S)[:, None]


def attention_naive(q, k, v, causal=False):
    """Attention by its definition, the oracle of the fast version.

    Shapes: q (B, H, T, D), k (B, H, S, D), v (B, H, S, D) -> (B, H, T, D).
    """
    B, H, T, D = q.shape
    S = k.shape[2]
    y = np.zeros(q.shape, q.dtype)
    for b, h, i in np.ndindex(B, H, T):
        seen = S - T + i + 1 if causal else S
        scores = k[b, h, :seen] @ q[b, h, i] / math.sqrt(D)
        shares = np.exp(scores - scores.max())
        y[b, h, i] = shares / shares.sum() @ v[b, h, :seen]
    return y


def attention_blocks(q, k, causal):
    """The work of attention in cache-sized pieces: a list of (b, rows, seen).

    `rows` is a slice of the queries of sequence b, `seen` how many keys the last of them may see.
    """
    B, H, T, _ = q.shape
    S = k.shape[2]
    n = max(16, BLOCK // max(1, H * S))  # queries of a block: its scores, H * n * S numbers, stay near a core
    rows = [slice(i, min(i + n, T)) for i in range(0, T, n)]
    return [(b, r, S - T + r.stop if causal else S) for b in range(B) for r in rows]


def block_scores(q, k, causal):
    """q·k / sqrt(D) for the queries q (H, n, D) of a block and the keys k (H, seen, D): (H, n, seen).

    Where `causal`, the queries are the last n of the `seen` positions, and keys after a query score -inf.
    """
    n, seen = q.shape[1], k.shape[1]
    scores = (q * q.dtype.type(1 / math.sqrt(q.shape[2]))) @ k.swapaxes(1, 2)
    if causal:
        np.copyto(scores[:, :, seen - n :], -np.inf, where=~causal_mask(n, n))
    return scores


def attention_forward(q, k, v, causal):
    """Attention a block at a time: y (B, H, T, D), and the log of each softmax's sum (B, H, T, 1).

    Shapes: q (B, H, T, D), k and v (B, H, S, D). The memory of y is (B, T, H, D), so that joining the heads
    needs no copy.
    """
    B, H, T, D = q.shape
    y = np.empty((B, T, H, D), q.dtype).transpose(0, 2, 1, 3)
    log_sum = np.empty((B, H, T, 1), q.dtype)

    def work(block):
        b, rows, seen = block
        p = block_scores(q[b, :, rows], k[b, :, :seen], causal)
        top = p.max(axis=2, keepdims=True)
        p -= top
        np.exp(p, out=p)
        total = p.sum(axis=2, keepdims=True)
        y[b, :, rows] = p @ v[b, :, :seen] / total
        log_sum[b, :, rows] = top + np.log(total)

    parallel_for(work, attention_blocks(q, k, causal))
    return y, log_sum


def attention_gradients(g, out, q, k, v, causal, dq, dk, dv):
    """Write the gradients of q, k and v into the arrays dq, dk and dv, one sequence at a time."""
    y, log_sum = out
    blocks = attention_blocks(q, k, causal)
    scale = q.dtype.type(1 / math.sqrt(q.shape[3]))

    def work(b):
        dk[b], dv[b] = 0, 0
        for _, rows, seen in (block for block in blocks if block[0] == b):
            gb, qb, kb, vb = g[b, :, rows], q[b, :, rows], k[b, :, :seen], v[b, :, :seen]
            p = block_scores(qb, kb, causal)
            p -= log_sum[b, :, rows]
            np.exp(p, out=p)
            dv[b, :, :seen] += p.swapaxes(1, 2) @ gb
            ds = gb @ vb.swapaxes(1, 2)
            ds -= (gb * y[b, :, rows]).sum(axis=2, keepdims=True)
            ds *= p
            ds *= scale
            dq[b, :, rows] = ds @ kb
            dk[b, :, :seen] += ds.swapaxes(1, 2) @ qb

    parallel_for(work, range(len(q)))


@vjp(attention_forward)
def attention_vjp(g, out, q, k, v, causal):
    """The gradients of q, k and v."""
    dq, dk, dv = np.empty_like(q), np.empty_like(k), np.empty_like(v)
    attention_gradients(g, out, q, k, v, causal, dq, dk, dv)
    return dq, dk, dv


def check_attention(q, k, v, causal):
    """Raise ValueError unless q is (B, H, T, D) and k, v are (B, H, S, D), S >= 1, with S >= T if causal."""
    fits = len(q.shape) == 4 and len(k.shape) == 4 and k.shape == v.shape and q.shape[:2] == k.shape[:2]
    if not fits or q.shape[3] != k.shape[3] or k.shape[2] < 1:
        raise ValueError(
            "attention: expected q (B, H, T, D) and k, v (B, H, S, D) with S >= 1, "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if causal and q.shape[2] > k.shape[2]:
        raise ValueError(
            f"attention: {q.shape[2]} queries cannot be the last of {k.shape[2]} positions; "
            "expected at least as many keys as queries, or causal=False"
        )


def scaled_dot_product_attention(q, k, v, causal=False):
    """softmax(q kᵀ / sqrt(D)) v for tensors q (B, H, T, D), k and v (B, H, S, D) -> (B, H, T, D).

    With `causal`, query i sits at position S - T + i and sees the keys up to there. Raises ValueError for
    other shapes. Source: Vaswani et al., "Attention is all you need", 2017.
    """
    check_attention(q, k, v, causal)
    return apply(attention_forward, q, k, v, causal=causal)


def split_heads(qkv, n_heads):
    """The views q, k, v, each (B, H, T, D), of an array qkv (B, T, 3 * H * D); nothing is copied."""
    B, T, width = qkv.shape
    parts = qkv.reshape(B, T, 3, n_heads, width // (3 * n_heads))
    return tuple(parts[:, :, i].transpose(0, 2, 1, 3) for i in range(3))


def merge_heads(y):
    """(B, H, T, D) -> (B, T, H * D): the heads of a position side by side."""
    B, H, T, D = y.shape
    return y.transpose(0, 2, 1, 3).reshape(B, T, H * D)


def self_attention_forward(qkv, n_heads, causal):
    """Attention of a sequence to itself: qkv (B, T, 3 d) -> (B, T, d), and what the gradient needs again."""
    y, log_sum = attention_forward(*split_heads(qkv, n_heads), causal)
    return merge_heads(y), y, log_sum


@vjp(self_attention_forward)
def self_attention_vjp(g, out, qkv, n_heads, causal):
    """The gradient of qkv: those of q, k and v are written into views of it."""
    dqkv = np.empty(qkv.shape, qkv.dtype)
    B, T, d = g.shape
    heads = g.reshape(B, T, n_heads, d // n_heads).transpose(0, 2, 1, 3)
    attention_gradients(heads, out[1:], *split_heads(qkv, n_heads), causal, *split_heads(dqkv, n_heads))
    return (dqkv,)


def cached_attention_forward(q, k, v, causal):
    """Attention of new positions to all: arrays q (B, H, T, D), k and v (B, H, S, D) -> (B, T, H * D)."""
    return merge_heads(attention_forward(q, k, v, causal)[0])


class Attention(Module):
    """Multi-head attention of a sequence to itself. Shapes: x and y (B, T, d_model).

    `qkv` computes queries, keys and values in one product, `out` mixes what the heads found. Raises
    ValueError unless n_heads divides d_model. Source: Vaswani et al., "Attention is all you need", 2017.
    """

    def __init__(self, d_model, n_heads, causal=True):
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"Attention: expected n_heads to divide d_model, got {d_model} and {n_heads}")
        self.n_heads, self.causal = n_heads, causal
        self.qkv, self.out = Linear(d_model, 3 * d_model), Linear(d_model, d_model)

    def forward(self, x, cache=None):
        """x (B, T, d_model) -> (B, T, d_model).

        With a `cache` (lesson 17), x are new positions after those that the cache holds:
        `k, v = cache.append(k, v)` takes their keys and values (B, H, T, D), returns those of all positions.
        """
        if x.ndim != 3:
            d_model = self.out.weight.shape[1]
            raise ValueError(f"Attention: expected an input of shape (B, T, {d_model}), got {x.shape}")
        qkv = self.qkv(x)
        if cache is None:
            y = apply(self_attention_forward, qkv, n_heads=self.n_heads, causal=self.causal)
        else:
            q, k, v = split_heads(qkv.data, self.n_heads)
            k, v = cache.append(k, v)
            y = apply(cached_attention_forward, q, k, v, causal=self.causal)
        return self.out(y)

    def __repr__(self):
        return f"Attention({self.out.weight.shape[1]}, {self.n_heads}, causal={self.causal})"
