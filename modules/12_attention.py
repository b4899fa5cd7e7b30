# %% [markdown]
# # 12 Attention
#
# > Attention: every position of a sequence gathers from the positions that it finds relevant.
#
# In this lesson you build `scaled_dot_product_attention` and `Attention`, the part of a transformer in which
# positions speak to each other. You write it as its definition says, in a loop that anyone can read, and then a
# block at a time, with a gradient that never stores the large matrix between.
#
# **Why it matters to a system.** T positions have T² pairs. At 512 positions, 4 heads and 16 sequences that is
# a matrix of 16.8 million numbers in every layer, 67 MB, which a careless version writes and reads many times over.
#
# **You need** softmax and `parallel_for` (02), `Linear` (03) and gradient rules (05).
#
# The words of this lesson: `B` sequences, `H` heads, `T` queries, `S` keys, `D` numbers a head; `d_model = H * D`.
# `q, k, v` are queries, keys and values, `y` the result, `g` its gradient.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 12

# %%
#| export
import math

import numpy as np

from tinytorch.activations import BLOCK, parallel_for
from tinytorch.autograd import vjp
from tinytorch.layers import Linear, Module
from tinytorch.tensor import apply

# %% nbgrader={"grade_id": "imports", "locked": true}
import time

from tinytorch.autograd import gradcheck
from tinytorch.tensor import Tensor, manual_seed


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)

# %% [markdown]
# ## 1. A soft look-up
#
# A dictionary finds the one key that equals the query and returns its value. Attention compares the query with
# every key, by a dot product, turns the scores into shares by softmax, and returns the values mixed in these shares.
#
# $$y_i = \sum_j p_{ij} v_j, \qquad p_i = \mathrm{softmax}_j\left(\frac{q_i \cdot k_j}{\sqrt{D}}\right)$$
#
# By hand: two keys with scores 0 and ln 3. Softmax gives the shares 1/4 and 3/4. The values 10 and 20 then mix to
# 17.5. Why divide by the root of D? A dot product of D independent standard normal pairs has variance D; without
# the root a long vector would make nearly every softmax a hard choice, and its gradient nearly zero.
#
# ## 2. Who may look where
#
# A language model predicts the next word, so no position may see a later one: the mask is *causal*. When text is
# written word by word, there are fewer queries than keys: the T queries are then the last T of the S positions, and
# query i sits at position S - T + i.

# %% nbgrader={"grade_id": "causal-mask", "solution": true}
#| export
def causal_mask(T, S):
    """Which of S keys each of T queries may see: a (T, S) array of True and False.

    The queries are the last T of the S positions: query i sits at position S - T + i, and sees the keys up to
    that position. causal_mask(2, 3) is [[True, True, False], [True, True, True]].
    """
    ### BEGIN SOLUTION
    return np.arange(S) <= np.arange(S - T, S)[:, None]
    ### END SOLUTION

# %% tags=["nbval-check-output"]
print(causal_mask(2, 3))

# %% nbgrader={"grade_id": "test-causal-mask", "grade": true, "points": 1}
def mask_agrees(T, S):
    got = np.asarray(causal_mask(T, S))
    wanted = np.array([[j <= S - T + i for j in range(S)] for i in range(T)])
    assert got.shape == (T, S), f"causal_mask({T}, {S}): expected shape {(T, S)}, got {got.shape}"
    assert np.array_equal(got, wanted), f"causal_mask({T}, {S}): expected\n{wanted}\ngot\n{got}"


mask_agrees(3, 3)
mask_agrees(2, 3)
### BEGIN HIDDEN TESTS
mask_agrees(1, 5)
mask_agrees(4, 7)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Attention by its definition
#
# The loop goes over sequences, heads and queries. For one query, `q[b, h, i]`, write: how many keys it may see, its
# scores with those, their shares, and the mix of the values. Subtract the largest score before the exponential, as
# in lesson 02.

# %% nbgrader={"grade_id": "attention-naive", "solution": true}
#| export
def attention_naive(q, k, v, causal=False):
    """Attention by its definition, the oracle of the fast version.

    Shapes: q (B, H, T, D), k (B, H, S, D), v (B, H, S, D) -> (B, H, T, D).
    """
    B, H, T, D = q.shape
    S = k.shape[2]
    y = np.zeros(q.shape, q.dtype)
    for b, h, i in np.ndindex(B, H, T):
        ### BEGIN SOLUTION
        seen = S - T + i + 1 if causal else S
        scores = k[b, h, :seen] @ q[b, h, i] / math.sqrt(D)
        shares = np.exp(scores - scores.max())
        y[b, h, i] = shares / shares.sum() @ v[b, h, :seen]
        ### END SOLUTION
    return y

# %% tags=["nbval-check-output"]
keys, values = np.array([0.0, np.log(3)]).reshape(1, 1, 2, 1), np.array([10.0, 20]).reshape(1, 1, 2, 1)
print(attention_naive(np.ones((1, 1, 1, 1)), keys, values).ravel().round(4))

# %% nbgrader={"grade_id": "test-attention-naive", "grade": true, "points": 2}
def by_einsum(q, k, v, causal):
    """Attention by another route: one einsum for all scores, a mask of -inf, a softmax."""
    T, S = q.shape[2], k.shape[2]
    scores = np.einsum("bhtd,bhsd->bhts", q, k) / q.shape[3] ** 0.5
    if causal:
        scores[:, :, np.triu(np.ones((T, S)), S - T + 1) > 0] = -np.inf
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhts,bhsd->bhtd", e / e.sum(-1, keepdims=True), v)


def naive_agrees(B, H, T, S, D, causal, size=1):
    q, k, v = size * normal(B, H, T, D), normal(B, H, S, D, seed=1), normal(B, H, S, D, seed=2)
    got, wanted = np.asarray(attention_naive(q, k, v, causal)), by_einsum(q, k, v, causal)
    assert np.allclose(got, wanted), (
        f"attention_naive, q {q.shape}, k {k.shape}, causal {causal}: expected {wanted.ravel()[:3].round(4)}..., "
        f"got {got.ravel()[:3].round(4)}..."
    )


naive_agrees(1, 1, 3, 3, 4, False)
naive_agrees(2, 2, 3, 3, 4, True)
### BEGIN HIDDEN TESTS
naive_agrees(2, 3, 2, 5, 4, True)
naive_agrees(1, 2, 4, 2, 3, False)
naive_agrees(1, 1, 2, 4, 4, True, size=1e4)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. A block at a time
#
# The matrix of all scores is too large for the cache. So we cut the work: a block is a slice of the queries of one
# sequence, with all its heads, just large enough that its scores stay near a core. A causal block need not look at
# keys after its last query at all, which saves nearly half of the work of a long sequence.
#
# Two helpers are given. `attention_blocks` cuts, `block_scores` computes the scaled, masked scores of a block.

# %%
#| export
def attention_blocks(q, k, causal):
    """The work of attention in cache-sized pieces: a list of (b, rows, seen).

    `rows` is a slice of the queries of sequence b, `seen` how many keys the last of them may see.
    """
    B, H, T, _ = q.shape
    S = k.shape[2]
    n = max(16, BLOCK // max(1, H * S))  # queries of a block: its scores, H * n * S numbers, stay near a core
    rows = [slice(i, min(i + n, T)) for i in range(0, T, n)]
    return [(b, r, S - T + r.stop if causal else S) for b in range(B) for r in rows]

# %%
#| export
def block_scores(q, k, causal):
    """q·k / sqrt(D) for the queries q (H, n, D) of a block and the keys k (H, seen, D): (H, n, seen).

    Where `causal`, the queries are the last n of the `seen` positions, and keys after a query score -inf.
    """
    n, seen = q.shape[1], k.shape[1]
    scores = (q * q.dtype.type(1 / math.sqrt(q.shape[2]))) @ k.swapaxes(1, 2)
    if causal:
        np.copyto(scores[:, :, seen - n :], -np.inf, where=~causal_mask(n, n))
    return scores

# %% tags=["nbval-check-output"]
queries = np.zeros((1, 4, 256, 32))
print([(rows.start, rows.stop, seen) for _, rows, seen in attention_blocks(queries, queries, causal=True)])

# %% [markdown]
# You write what happens to a block of scores `p` (H, n, seen): the softmax, in place, and the product with the values
# into `y[b, :, rows]`. Also keep, for each query, the logarithm of the sum of exp(score): the largest score plus the
# log of what you divide by. With this one number a query the gradient can compute the shares again, so that the
# large matrix is never stored. (This is the idea of FlashAttention.)

# %% nbgrader={"grade_id": "attention-forward", "solution": true}
#| export
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
        ### BEGIN SOLUTION
        top = p.max(axis=2, keepdims=True)
        p -= top
        np.exp(p, out=p)
        total = p.sum(axis=2, keepdims=True)
        y[b, :, rows] = p @ v[b, :, :seen] / total
        log_sum[b, :, rows] = top + np.log(total)
        ### END SOLUTION

    parallel_for(work, attention_blocks(q, k, causal))
    return y, log_sum

# %% nbgrader={"grade_id": "test-attention-forward", "grade": true, "points": 3}
def forward_agrees(B, H, T, S, D, causal, size=1):
    q, k, v = size * normal(B, H, T, D), normal(B, H, S, D, seed=1), normal(B, H, S, D, seed=2)
    y, log_sum = attention_forward(q, k, v, causal)
    y, log_sum, wanted = np.asarray(y), np.asarray(log_sum), by_einsum(q, k, v, causal)
    case = f"attention_forward, q {q.shape}, k {k.shape}, causal {causal}"
    assert np.allclose(y, wanted), (
        f"{case}: expected {wanted.ravel()[:3].round(4)}..., got {y.ravel()[:3].round(4)}..."
    )
    scores = np.einsum("bhd,bhsd->bhs", q[:, :, -1], k) / D**0.5  # the last query sees every key
    wanted = np.logaddexp.reduce(scores, axis=2)
    assert np.allclose(log_sum[:, :, -1, 0], wanted), (
        f"{case}: for the last query expected log_sum {wanted.ravel()[:3].round(4)}, "
        f"got {log_sum[:, :, -1, 0].ravel()[:3].round(4)}"
    )


forward_agrees(2, 2, 5, 5, 3, False)
forward_agrees(2, 2, 5, 5, 3, True)
### BEGIN HIDDEN TESTS
forward_agrees(1, 4, 200, 200, 8, True)
forward_agrees(2, 8, 120, 150, 4, True)
forward_agrees(1, 1, 3, 70, 5, False, size=1e4)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Back through attention
#
# Call the shares P, so that y = P v. Then dv = Pᵀ g, and the gradient of the shares is dP = g vᵀ. Softmax (lesson 05)
# takes out of a row its mean under the shares: dS = P ∘ (dP - row sum of P ∘ dP). That row sum is the same number as
# the row sum of g ∘ y, which is much cheaper. At last the scores S = q kᵀ / sqrt(D) give dq = dS k / sqrt(D) and
# dk = dSᵀ q / sqrt(D).
#
# A block has its own queries, so `dq` is set. Keys and values serve several blocks: add to `dk` and `dv`. The shares
# come back as exp(score - log_sum). `block_scores` gives the scores; `log_sum[b, :, rows]` and `y[b, :, rows]` belong to
# the block.

# %% nbgrader={"grade_id": "attention-gradients", "solution": true}
#| export
def attention_gradients(g, out, q, k, v, causal, dq, dk, dv):
    """Write the gradients of q, k and v into the arrays dq, dk and dv, one sequence at a time."""
    y, log_sum = out
    blocks = attention_blocks(q, k, causal)
    scale = q.dtype.type(1 / math.sqrt(q.shape[3]))

    def work(b):
        dk[b], dv[b] = 0, 0
        for _, rows, seen in (block for block in blocks if block[0] == b):
            gb, qb, kb, vb = g[b, :, rows], q[b, :, rows], k[b, :, :seen], v[b, :, :seen]
            ### BEGIN SOLUTION
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
            ### END SOLUTION

    parallel_for(work, range(len(q)))

# %%
#| export
@vjp(attention_forward)
def attention_vjp(g, out, q, k, v, causal):
    """The gradients of q, k and v."""
    dq, dk, dv = np.empty_like(q), np.empty_like(k), np.empty_like(v)
    attention_gradients(g, out, q, k, v, causal, dq, dk, dv)
    return dq, dk, dv

# %% nbgrader={"grade_id": "test-attention-gradients", "grade": true, "points": 3}
def gradients_agree(B, H, T, S, D, causal):
    inputs = [normal(B, H, T, D), normal(B, H, S, D, seed=1), normal(B, H, S, D, seed=2)]
    g, eps = normal(B, H, T, D, seed=3), 1e-5
    got = attention_vjp(g, attention_forward(*inputs, causal), *inputs, causal)
    for i, name in enumerate("qkv"):
        direction = normal(*inputs[i].shape, seed=4 + i)
        ends = []
        for sign in (eps, -eps):
            moved = list(inputs)
            moved[i] = moved[i] + sign * direction
            ends.append(float((by_einsum(*moved, causal) * g).sum()))
        wanted, here = (ends[0] - ends[1]) / (2 * eps), float((np.asarray(got[i]) * direction).sum())
        assert np.isclose(here, wanted, rtol=1e-5, atol=1e-6), (
            f"attention gradient of {name}, q {inputs[0].shape}, k {inputs[1].shape}, causal {causal}: "
            f"finite differences give {wanted:.6g}, got {here:.6g}"
        )


gradients_agree(1, 2, 3, 3, 4, False)
gradients_agree(2, 2, 4, 4, 3, True)
### BEGIN HIDDEN TESTS
gradients_agree(1, 2, 3, 6, 4, True)
gradients_agree(2, 8, 150, 150, 4, True)
### END HIDDEN TESTS

# %% [markdown]
# The function for tensors checks the shapes and goes through the seam.

# %%
#| export
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

# %%
#| export
def scaled_dot_product_attention(q, k, v, causal=False):
    """softmax(q kᵀ / sqrt(D)) v for tensors q (B, H, T, D), k and v (B, H, S, D) -> (B, H, T, D).

    With `causal`, query i sits at position S - T + i and sees the keys up to there. Raises ValueError for
    other shapes. Source: Vaswani et al., "Attention is all you need", 2017.
    """
    check_attention(q, k, v, causal)
    return apply(attention_forward, q, k, v, causal=causal)

# %% tags=["nbval-check-output"]
print(gradcheck(lambda q, k, v: scaled_dot_product_attention(q, k, v, causal=True), [normal(2, 2, 3, 4)] * 3))

# %% [markdown]
# ### Fast against naive
#
# One sequence of 256 positions with four heads, and what each version needs at its largest moment.

# %% tags=["measure"]
q = normal(1, 4, 256, 32).astype(np.float32)
for name, function in [("naive", attention_naive), ("einsum", by_einsum), ("blocks", attention_forward)]:
    start = time.perf_counter()
    function(q, q, q, True)
    print(f"{name:7} {1000 * (time.perf_counter() - start):7.1f} ms")
print(f"all scores: {4 * 256 * 256 * 4 / 1e6:.1f} MB; the largest block: {4 * 64 * 256 * 4 / 1e6:.2f} MB")

# %% [markdown]
# ## 6. Several heads
#
# One softmax mixes in one way only. So the d_model numbers of a position are cut into H heads of D numbers, and each
# head attends on its own. One `Linear` makes queries, keys and values together: qkv (B, T, 3 d_model), first all
# queries, then all keys, then all values, each head after head.
#
# Cut it into three views (B, H, T, D), without a copy: a reshape to (B, T, 3, H, D), and a transpose.

# %% nbgrader={"grade_id": "split-heads", "solution": true}
#| export
def split_heads(qkv, n_heads):
    """The views q, k, v, each (B, H, T, D), of an array qkv (B, T, 3 * H * D); nothing is copied."""
    B, T, width = qkv.shape
    ### BEGIN SOLUTION
    parts = qkv.reshape(B, T, 3, n_heads, width // (3 * n_heads))
    return tuple(parts[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    ### END SOLUTION

# %% nbgrader={"grade_id": "merge-heads", "solution": true}
#| export
def merge_heads(y):
    """(B, H, T, D) -> (B, T, H * D): the heads of a position side by side."""
    B, H, T, D = y.shape
    ### BEGIN SOLUTION
    return y.transpose(0, 2, 1, 3).reshape(B, T, H * D)
    ### END SOLUTION

# %% tags=["nbval-check-output"]
q, k, v = split_heads(np.arange(12).reshape(1, 1, 12), 2)
print(q.ravel(), k.ravel(), v.ravel(), merge_heads(v).ravel())

# %% nbgrader={"grade_id": "test-heads", "grade": true, "points": 2}
for B, T, H, D in [(1, 2, 2, 3), (2, 3, 4, 2)]:
    x = normal(B, T, 3 * H * D)
    parts = [np.asarray(part) for part in split_heads(x, H)]
    for i, part in enumerate(parts):
        assert part.shape == (B, H, T, D), f"split_heads: expected {(B, H, T, D)}, got {part.shape}"
        assert np.shares_memory(part, x), "split_heads: expected views of qkv, got a copy"
        for h in range(H):
            at = (i * H + h) * D
            assert np.array_equal(part[:, h], x[:, :, at : at + D]), (
                f"split_heads, {'qkv'[i]}, head {h}: expected the numbers {at} to {at + D - 1} of every position"
            )
    merged = np.asarray(merge_heads(parts[1]))
    assert np.array_equal(merged, x[:, :, H * D : 2 * H * D]), "merge_heads: expected the heads side by side again"

# %% [markdown]
# Inside the layer queries, keys and values come from one array, and so their three gradients may be written into one
# array too. This primitive saves three copies; its rule uses yours.

# %%
#| export
def self_attention_forward(qkv, n_heads, causal):
    """Attention of a sequence to itself: qkv (B, T, 3 d) -> (B, T, d), and what the gradient needs again."""
    y, log_sum = attention_forward(*split_heads(qkv, n_heads), causal)
    return merge_heads(y), y, log_sum

# %%
#| export
@vjp(self_attention_forward)
def self_attention_vjp(g, out, qkv, n_heads, causal):
    """The gradient of qkv: those of q, k and v are written into views of it."""
    dqkv = np.empty(qkv.shape, qkv.dtype)
    B, T, d = g.shape
    heads = g.reshape(B, T, n_heads, d // n_heads).transpose(0, 2, 1, 3)
    attention_gradients(heads, out[1:], *split_heads(qkv, n_heads), causal, *split_heads(dqkv, n_heads))
    return (dqkv,)

# %%
#| export
def cached_attention_forward(q, k, v, causal):
    """Attention of new positions to all: arrays q (B, H, T, D), k and v (B, H, S, D) -> (B, T, H * D)."""
    return merge_heads(attention_forward(q, k, v, causal)[0])

# %% [markdown]
# ## 7. The layer
#
# `forward` is given: one product, attention, one product that mixes the heads. With a `cache`, which you build in lesson
# 17, the keys and values of earlier positions are handed in instead of being computed again.

# %%
#| export
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

# %% tags=["nbval-check-output"]
manual_seed(0)
layer = Attention(8, 2)
x = normal(1, 4, 8)
later = x.copy()
later[0, 3] += 100  # change the last position
print(layer, np.abs(layer(Tensor(x)).numpy() - layer(Tensor(later)).numpy()).max(axis=(0, 2)) > 0)

# %% [markdown]
# Only the last position noticed the change: no one looks ahead.

# %% nbgrader={"grade_id": "test-attention", "grade": true, "points": 2}
def layer_agrees(causal):
    attention, x = Attention(12, 3, causal=causal), normal(2, 5, 12)
    got = np.asarray(attention(Tensor(x)))
    weights = [np.asarray(t, dtype=np.float64) for t in attention.parameters()]
    qkv = x @ weights[0].T + weights[1]
    heads = [qkv[:, :, 12 * i : 12 * i + 12].reshape(2, 5, 3, 4).transpose(0, 2, 1, 3) for i in range(3)]
    wanted = by_einsum(*heads, causal).transpose(0, 2, 1, 3).reshape(2, 5, 12) @ weights[2].T + weights[3]
    assert np.allclose(got, wanted, atol=1e-4), (
        f"Attention, causal {causal}: expected {wanted[0, 0, :3].round(4)}..., got {got[0, 0, :3].round(4)}..."
    )


layer_agrees(True)
### BEGIN HIDDEN TESTS
layer_agrees(False)
### END HIDDEN TESTS

# %% [markdown]
# ### A figure: where three heads look
#
# Before any training, the shares of a random layer: each row is a query, and adds up to 1. Move `size`, by which the
# input is multiplied: products of small numbers are all alike, and the shares even; of large ones the largest takes
# all. That is what the division by √D guards against.

# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import explore


def three_heads(size=3.0):
    """The figure of the shares of three heads for an input of this size, and its text alternative."""
    manual_seed(1)
    layer = Attention(24, 3)
    q, k, v = split_heads(layer.qkv(Tensor(size * normal(1, 16, 24))).numpy(), 3)
    scores = block_scores(q[0], k[0], True)
    shares = np.exp(scores - scores.max(axis=2, keepdims=True))
    shares /= shares.sum(axis=2, keepdims=True)
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), sharey=True)
    for h, axis in enumerate(axes):
        picture = axis.imshow(shares[h], vmin=0, vmax=1)
        axis.set(title=f"head {h}", xlabel="key", xticks=range(0, 16, 5), yticks=range(0, 16, 5))
    axes[0].set(ylabel="query")
    figure.colorbar(picture, ax=axes, label="share", shrink=0.8)
    largest = shares[:, -1].max(axis=1)
    return figure, (
        "Three squares, query by row and key by column; above the diagonal all is 0, for nobody looks ahead. "
        f"In the last row the largest shares of the three heads are {largest[0]:.2f}, {largest[1]:.2f} and {largest[2]:.2f}."
    )


explore(three_heads, size=(0.0, 10.0, 0.5))

# %% [markdown]
# ## 8. What breaks
#
# More queries than keys have no causal order:

# %% tags=["nbval-check-output"]
try:
    scaled_dot_product_attention(Tensor(normal(1, 1, 3, 2)), *[Tensor(normal(1, 1, 2, 2))] * 2, causal=True)
except ValueError as error:
    print(error)

# %% [markdown]
# Attention does not know order. Without a mask, positions that change places change places in the result, and nothing
# else happens. That is why embeddings carry positions (lesson 11).

# %% tags=["nbval-check-output"]
free, order = Attention(8, 2, causal=False), [2, 0, 3, 1]
print(np.allclose(free(Tensor(x)).numpy()[:, order], free(Tensor(x[:, order])).numpy(), atol=1e-6))

# %% [markdown]
# ## Exercises
#
# 1. How many multiplications does attention take for T positions, and how many do the two `Linear` of the layer? At what
#    length do they cost the same?
# 2. Leave out the root of D for D = 256, and plot the largest share of each row.
# 3. A window: let a query see only the last 64 keys. What changes in `attention_blocks`?
# 4. Compute the softmax when the *keys* come in blocks too, keeping a running maximum and a running sum.
# 5. Let several query heads share one key head. What does that save when text is written?
#
# ## Elsewhere
#
# - PyTorch's `scaled_dot_product_attention` picks one of several kernels; its CPU and GPU kernels cut both queries and
#   keys into blocks (Dao et al., "FlashAttention", 2022).
# - PyTorch's `is_causal` puts the first query at the first key. Ours puts the last query at the last key, which is
#   what writing with a cache needs; both agree where T = S.
#
# ## Summary
#
# - Attention is a look-up in shares: softmax of scaled dot products, then a mix of the values.
# - A causal mask keeps the future out; with fewer queries than keys, the queries are the last positions.
# - In blocks, no large matrix is ever written; one number a query is enough to compute the shares again.
# - Heads are views: shapes and strides, no copies.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/attention.py`;
# `tito module complete 12` in a terminal does the same.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
