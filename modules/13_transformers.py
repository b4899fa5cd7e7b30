# %% [markdown]
# # 13 Transformers
#
# > Layer norm, transformer blocks, a GPT, and drawing text from it.
#
# In this lesson the parts become a language model: `LayerNorm`, `MLP`, `TransformerBlock` and `GPT`. Then you make it
# write, by drawing one token after the other.
#
# **Why it matters to a system.** A GPT is the same block over and over. What you make fast in a block is fast in the
# whole model; what wastes memory there wastes it in every layer.
#
# **You need** gradient rules (05), embeddings (11) and attention (12).
#
# The words of this lesson: `ids` are tokens (B, T), whole numbers; `x` is what the model makes of them, (B, T, d_model);
# `logits` (B, T, V) are scores for the next token, V the size of the vocabulary.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 13

# %%
#| export
import math

import numpy as np

from tinytorch.activations import gelu, parallel_for, softmax_forward
from tinytorch.attention import Attention
from tinytorch.autograd import no_grad, vjp
from tinytorch.embeddings import Embedding, PositionalEmbedding
from tinytorch.layers import Linear, Module
from tinytorch.losses import CrossEntropyLoss
from tinytorch.spatial import row_blocks
from tinytorch.tensor import Tensor, apply, default_rng
from tinytorch.training import evaluation_mode

# %% nbgrader={"grade_id": "imports", "locked": true}
from tinytorch.autograd import gradcheck
from tinytorch.optimizers import AdamW
from tinytorch.tensor import manual_seed


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)

# %% [markdown]
# ## 1. Layer norm
#
# Batch norm (lesson 09) normalises a channel over the batch. Layer norm normalises each position on its own, over its
# d_model numbers, so that a sentence does not depend on its neighbours in the batch and training and writing agree:
#
# $$y = w \cdot \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + b$$
#
# By hand: x = [1, 3] has mean 2 and variance 1, so it becomes [-1, 1]. Write the block: set `mean[at]` and
# `inverse[at]`, which is 1 / sqrt(var + eps), and fill `out` from `block` in place. `var` is the plain mean of squares.

# %% nbgrader={"grade_id": "layer-norm-forward", "solution": true}
#| export
def layer_norm_forward(x, weight, bias, eps):
    """weight * (x - mean) / sqrt(var + eps) + bias over the last dimension, in blocks of rows.

    Shapes: x (..., D), weight and bias (D,). Also returns mean and 1 / sqrt(var + eps), both
    (N, 1), which the gradient needs again.
    """
    rows = x.reshape(-1, x.shape[-1])
    y, mean, inverse = np.empty_like(rows), *np.empty((2, len(rows), 1), x.dtype)

    def work(at):
        block, out = rows[at], y[at]
        ### BEGIN SOLUTION
        mean[at] = block.mean(axis=1, keepdims=True)
        np.subtract(block, mean[at], out=out)
        var = np.einsum("nd,nd->n", out, out)[:, None] / x.shape[-1]
        inverse[at] = 1 / np.sqrt(var + eps)
        out *= inverse[at]
        out *= weight
        out += bias
        ### END SOLUTION

    parallel_for(work, row_blocks(rows))
    return y.reshape(x.shape), mean, inverse

# %% tags=["nbval-check-output"]
print(layer_norm_forward(np.array([[1.0, 3]]), np.ones(2), np.zeros(2), eps=0)[0])

# %% nbgrader={"grade_id": "test-layer-norm-forward", "grade": true, "points": 2}
def by_definition(x, weight, bias, eps):
    """Layer norm by another route: standard deviation and mean of NumPy, all at once."""
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def norm_agrees(shape, eps):
    x, weight, bias = 2 * normal(*shape) + 3, normal(shape[-1], seed=1), normal(shape[-1], seed=2)
    got, mean, inverse = (np.asarray(a) for a in layer_norm_forward(x, weight, bias, eps))
    wanted = by_definition(x, weight, bias, eps)
    assert np.allclose(got, wanted), (
        f"layer_norm_forward of {shape}, eps {eps}: expected {wanted.ravel()[:3].round(4)}..., "
        f"got {got.ravel()[:3].round(4)}..."
    )
    assert np.allclose(mean.ravel(), x.mean(-1).ravel()), "layer_norm_forward: expected the mean of each row in mean"
    assert np.allclose(inverse.ravel(), (x.var(-1) + eps).ravel() ** -0.5), (
        "layer_norm_forward: expected 1 / sqrt(var + eps) of each row in inverse"
    )


norm_agrees((3, 4), 1e-5)
### BEGIN HIDDEN TESTS
norm_agrees((2, 3, 5), 0.5)
norm_agrees((3000, 70), 1e-5)
### END HIDDEN TESTS

# %% [markdown]
# ### Its gradient
#
# As with batch norm, moving one x moves mean and variance of its row. With xhat the normalised row and d = g · w,
#
# $$dx = \frac{1}{\sqrt{\sigma^2 + \epsilon}} \left(d - \overline{d} - \hat x \; \overline{d \hat x}\right)$$
#
# where the bars are means over the row. The gradient of `weight` is the sum of g · xhat over all rows, that of `bias` the
# sum of g. Each block writes its own row of `dweight` and `dbias`, so that no two threads add to the same number. Write
# the gradient of x into `dx[at]`.

# %% nbgrader={"grade_id": "layer-norm-vjp", "solution": true}
#| export
@vjp(layer_norm_forward)
def layer_norm_vjp(g, out, x, weight, bias, eps):
    """The gradients of x, weight and bias."""
    _, mean, inverse = out
    rows, grads = x.reshape(-1, x.shape[-1]), g.reshape(-1, x.shape[-1])
    dx, blocks = np.empty_like(rows), row_blocks(rows)
    dweight, dbias = np.empty((2, len(blocks), x.shape[-1]), x.dtype)

    def work(i):
        at = blocks[i]
        gb, xhat = grads[at], (rows[at] - mean[at]) * inverse[at]
        ### BEGIN SOLUTION
        dweight[i], dbias[i] = np.einsum("nd,nd->d", gb, xhat), gb.sum(axis=0)
        d = np.multiply(gb, weight, out=dx[at])
        slope = np.einsum("nd,nd->n", d, xhat)[:, None] / x.shape[-1]
        d -= d.mean(axis=1, keepdims=True)
        xhat *= slope
        d -= xhat
        d *= inverse[at]
        ### END SOLUTION

    parallel_for(work, range(len(blocks)))
    return dx.reshape(x.shape), dweight.sum(axis=0), dbias.sum(axis=0)

# %% nbgrader={"grade_id": "test-layer-norm-vjp", "grade": true, "points": 3}
def norm_gradient_agrees(shape, eps=0.1):
    inputs = [2 * normal(*shape) + 3, normal(shape[-1], seed=1), normal(shape[-1], seed=2)]
    g = normal(*shape, seed=3)
    got = layer_norm_vjp(g, layer_norm_forward(*inputs, eps), *inputs, eps)
    for i, name in enumerate(["x", "weight", "bias"]):
        direction, ends = normal(*inputs[i].shape, seed=4 + i), []
        for sign in (1e-5, -1e-5):
            moved = list(inputs)
            moved[i] = moved[i] + sign * direction
            ends.append(float((by_definition(*moved, eps) * g).sum()))
        wanted, here = (ends[0] - ends[1]) / 2e-5, float((np.asarray(got[i]) * direction).sum())
        assert np.isclose(here, wanted, rtol=1e-5, atol=1e-5), (
            f"layer_norm_vjp of {shape}: for the gradient of {name} along a direction finite differences give "
            f"{wanted:.6g}, got {here:.6g}"
        )


norm_gradient_agrees((3, 4))
### BEGIN HIDDEN TESTS
norm_gradient_agrees((2, 3, 5), eps=1e-5)
norm_gradient_agrees((3000, 70))
### END HIDDEN TESTS

# %%
#| export
class LayerNorm(Module):
    """Normalise the last dimension, then scale by weight and shift by bias. Shapes: x and y (..., d_model).

    Raises ValueError for another last dimension. Source: Ba, Kiros and Hinton, "Layer normalization", 2016.
    """

    def __init__(self, d_model, eps=1e-5):
        if d_model < 1:
            raise ValueError(f"LayerNorm: expected a positive size, got {d_model}")
        self.eps = eps
        self.weight = Tensor(np.ones(d_model), requires_grad=True)
        self.bias = Tensor(np.zeros(d_model), requires_grad=True)

    def forward(self, x):
        """x (..., d_model) -> the same shape."""
        if x.ndim < 1 or x.shape[-1] != self.weight.shape[0]:
            size = self.weight.shape[0]
            raise ValueError(f"LayerNorm: expected an input of shape (..., {size}), got {x.shape}")
        return apply(layer_norm_forward, x, self.weight, self.bias, eps=self.eps)

    def __repr__(self):
        return f"LayerNorm({self.weight.shape[0]})"

# %% tags=["nbval-check-output"]
print(LayerNorm(2)(Tensor([[1.0, 3], [10, 30]])))

# %% [markdown]
# Both rows come out the same: layer norm forgets size and offset.
#
# ## 2. A block
#
# Attention lets positions speak; the MLP then thinks about each position alone, in a layer four times as wide. Around
# both goes an addition: x plus what the part found. Gradients flow through the addition unchanged, however deep the
# model. Each part reads a normalised x (*pre-norm*); the sum itself is never normalised.

# %% nbgrader={"grade_id": "mlp", "solution": true}
#| export
class MLP(Module):
    """Two layers with GELU between them: `up` to four times the width, `down` again."""

    def __init__(self, d_model):
        self.up, self.down = Linear(d_model, 4 * d_model), Linear(4 * d_model, d_model)

    def forward(self, x):
        """x (B, T, d_model) -> the same shape."""
        ### BEGIN SOLUTION
        return self.down(gelu(self.up(x)))
        ### END SOLUTION

# %% nbgrader={"grade_id": "transformer-block", "solution": true}
#| export
class TransformerBlock(Module):
    """Attention, then an MLP; each reads a normalised copy of x and adds its result to x (pre-norm)."""

    def __init__(self, d_model, n_heads):
        self.norm1, self.attention = LayerNorm(d_model), Attention(d_model, n_heads)
        self.norm2, self.mlp = LayerNorm(d_model), MLP(d_model)

    def forward(self, x, cache=None):
        """x (B, T, d_model) -> the same shape; `cache` is handed to the attention."""
        ### BEGIN SOLUTION
        x = x + self.attention(self.norm1(x), cache)
        return x + self.mlp(self.norm2(x))
        ### END SOLUTION

# %% tags=["nbval-check-output"]
block = TransformerBlock(8, 2)
print(block)

# %% nbgrader={"grade_id": "test-block", "grade": true, "points": 3}
def block_agrees(d_model, n_heads):
    block, x = TransformerBlock(d_model, n_heads), normal(2, 3, d_model).astype(np.float32)
    w = {name: np.asarray(t) for name, t in block.named_tensors()}
    w = {name: array + 0.1 * normal(*array.shape, seed=5).astype(np.float32) for name, array in w.items()}
    block.load_state_dict(w)
    up = by_definition(x, w["norm2.weight"], w["norm2.bias"], 1e-5) @ w["mlp.up.weight"].T + w["mlp.up.bias"]
    hidden = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
    thought = hidden @ w["mlp.down.weight"].T + w["mlp.down.bias"]
    got = np.asarray(block.mlp(block.norm2(Tensor(x))))
    assert np.allclose(got, thought, atol=1e-4), (
        f"MLP: expected {thought[0, 0, :3].round(4)}..., got {got[0, 0, :3].round(4)}...; up, GELU, down"
    )
    # without a part, its sum is x itself: silence one after the other
    for silent, rest in [("attention.out", lambda x: x + thought), ("mlp.down", None)]:
        quiet = {name: 0 * array if name.startswith(silent) else array for name, array in w.items()}
        block.load_state_dict(quiet)
        got = np.asarray(block(Tensor(x)))
        wanted = rest(x) if rest else x + np.asarray(block.attention(block.norm1(Tensor(x))))
        assert np.allclose(got, wanted, atol=1e-4), (
            f"TransformerBlock with {silent} at zero: expected {wanted[0, 0, :3].round(4)}..., "
            f"got {got[0, 0, :3].round(4)}...; x + part(norm(x)), twice"
        )
    block.load_state_dict(w)
    first = x + np.asarray(block.attention(block.norm1(Tensor(x))))
    wanted = first + np.asarray(block.mlp(block.norm2(Tensor(first))))
    got = np.asarray(block(Tensor(x)))
    assert np.allclose(got, wanted, atol=1e-4), (
        f"TransformerBlock: expected {wanted[0, 0, :3].round(4)}..., got {got[0, 0, :3].round(4)}...; "
        "the MLP reads what the attention left"
    )


block_agrees(8, 2)

# %% [markdown]
# ## 3. The model
#
# Tokens and positions become vectors and are added; blocks follow; a last norm and a `head` without bias turn each
# position into V scores. The weights start small, and those that write into the sum start smaller still, so that many
# blocks together do not make it grow: GPT-2's way. `forward` is given.

# %%
#| export
class GPT(Module):
    """A decoder-only transformer: ids (B, T) -> logits (B, T, vocab_size) for the token after each.

    Weights start normal with standard deviation 0.02, those of `attention.out` and `mlp.down` smaller by
    sqrt(2 n_layers), biases at 0. Raises ValueError for sizes below 1.
    Source: Radford et al., "Language models are unsupervised multitask learners", 2019.
    """

    def __init__(self, vocab_size, d_model=128, n_heads=4, n_layers=4, context=512):
        if min(vocab_size, d_model, n_heads, n_layers, context) < 1:
            sizes = (vocab_size, d_model, n_heads, n_layers, context)
            raise ValueError(f"GPT: expected positive sizes, got {sizes}")
        self.context = context
        self.tok, self.pos = Embedding(vocab_size, d_model), PositionalEmbedding(context, d_model)
        self.blocks = [TransformerBlock(d_model, n_heads) for _ in range(n_layers)]
        self.norm, self.head = LayerNorm(d_model), Linear(d_model, vocab_size, bias=False)
        self.initialise()

    def initialise(self):
        """Draw the weights as GPT-2 does."""
        for name, p in self.named_parameters():
            residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
            std = 0.02 / math.sqrt(2 * len(self.blocks)) if residual else 0.02
            if p.ndim == 2:
                p.data = default_rng().normal(0, std, p.shape).astype(p.dtype)
            elif name.endswith(("qkv.bias", "out.bias", "up.bias", "down.bias")):
                p.data = np.zeros_like(p.data)

    def forward(self, ids, caches=None):
        """ids (B, T), whole numbers -> logits (B, T, vocab_size).

        `caches` (lesson 17), one for each block, hold `caches[0].length` earlier positions; the ids follow
        them. Raises ValueError for another shape and for more positions than the context.
        """
        ids = np.asarray(ids)
        start = caches[0].length if caches else 0
        if ids.ndim != 2 or ids.shape[1] < 1 or start + ids.shape[1] > self.context:
            raise ValueError(
                f"GPT: expected ids of shape (B, T) with 1 <= T <= {self.context - start}, got {ids.shape}"
            )
        x = self.tok(ids) + self.pos(ids.shape[1], start)
        for i, block in enumerate(self.blocks):
            x = block(x, caches[i] if caches else None)
        return self.head(self.norm(x))

# %% tags=["nbval-check-output"]
manual_seed(0)
model = GPT(20, d_model=16, n_heads=2, n_layers=2, context=8)
print(model([[3, 1, 4]]).shape, sum(p.numel() for p in model.parameters()), "parameters")

# %% tags=["nbval-check-output"]
anchor = GPT(256)
print(sum(p.numel() for p in anchor.parameters()), "parameters in the course's usual size")

# %% [markdown]
# ## 4. What it learns from
#
# Every position predicts the token after it, so one sequence of T + 1 tokens gives T lessons. `language_loss` shifts
# the ids by one. Targets below 0 do not count: so padding, or a question that the model need not write, is left out.
#
# Give the logits the shape (B T, V); the targets are flat already. Drop the positions that do not count, and take
# the cross entropy of lesson 04.

# %% nbgrader={"grade_id": "language-loss", "solution": true}
#| export
def language_loss(model, ids, targets=None):
    """The mean cross entropy of predicting each id from those before it, a tensor with one number (nats).

    ids (B, T): the targets are the ids one position later. With `targets` (B, T), those are predicted at
    each position of ids instead; targets below 0 are left out of the mean.
    """
    ids = np.asarray(ids)
    if targets is None:
        ids, targets = ids[:, :-1], ids[:, 1:]
    targets = np.asarray(targets).reshape(-1)
    logits = model(ids)
    ### BEGIN SOLUTION
    logits = logits.reshape(-1, logits.shape[-1])
    counted = np.flatnonzero(targets >= 0)
    if len(counted) < len(targets):
        logits, targets = logits[counted], targets[counted]
    return CrossEntropyLoss()(logits, targets)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(f"{float(language_loss(model, [[3, 1, 4, 1, 5]])):.1f} nats at the start, ln 20 = {math.log(20):.1f}")

# %% nbgrader={"grade_id": "test-language-loss", "grade": true, "points": 2}
def loss_by_hand(ids, targets):
    logits = np.asarray(model(ids), dtype=np.float64)
    picked = [
        logits[b, t, targets[b, t]] - np.log(np.exp(logits[b, t]).sum())
        for b, t in np.ndindex(*targets.shape)
        if targets[b, t] >= 0
    ]
    return -np.mean(picked)


ids = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
wanted, got = loss_by_hand(ids[:, :-1], ids[:, 1:]), float(language_loss(model, ids))
assert np.isclose(got, wanted, rtol=1e-4), f"language_loss: expected {wanted:.5f}, got {got:.5f}; ids predict the next"
### BEGIN HIDDEN TESTS
masked = np.array([[7, -1, 2, 3], [-1, 2, -1, -1]])
wanted, got = loss_by_hand(ids[:, 1:], masked), float(language_loss(model, ids[:, 1:], masked))
assert np.isclose(got, wanted, rtol=1e-4), f"language_loss with targets: expected {wanted:.5f}, got {got:.5f}"
### END HIDDEN TESTS

# %% [markdown]
# A tiny model can learn a tiny text by heart. Forty steps on one sentence of counting:

# %% tags=["nbval-check-output"]
count = np.arange(9)[None] % 4
optimizer = AdamW(model.parameters(), lr=0.01)
for _ in range(40):
    optimizer.zero_grad()
    loss = language_loss(model, count)
    loss.backward()
    optimizer.step()
print("learnt:", float(loss) < 0.1)

# %% [markdown]
# ## 5. Drawing a token
#
# The model gives shares for the next token, and something must choose. *Temperature* divides the logits first: below 1
# the likely become likelier; at 0 the most likely is always taken. *Top-k* keeps the k most likely. *Top-p* keeps the
# smallest number of most likely tokens that together reach probability p, and so adapts to how sure the model is.
# What is dropped gets the logit -inf.
#
# By hand: shares 0.5, 0.3, 0.2. Top-p with 0.6 keeps the first two: 0.5 is not enough yet, 0.8 is.

# %% nbgrader={"grade_id": "keep-top-k", "solution": true}
#| export
def keep_top_k(logits, k):
    """A copy of logits (B, V) with all but the k largest of each row at -inf; equal ones at the edge stay."""
    ### BEGIN SOLUTION
    edge = np.sort(logits, axis=1)[:, -min(k, logits.shape[1]), None]
    return np.where(logits >= edge, logits, -np.inf)
    ### END SOLUTION

# %% nbgrader={"grade_id": "keep-top-p", "solution": true}
#| export
def keep_top_p(logits, p):
    """A copy of logits (B, V) with only the most likely ids left that together reach probability p."""
    ### BEGIN SOLUTION
    order = np.argsort(-logits, axis=1, kind="stable")
    shares = np.take_along_axis(softmax_forward(logits, axis=1), order, axis=1)
    before = np.cumsum(shares, axis=1) - shares  # what the more likely ones reach without this one
    kept = np.empty(logits.shape, bool)
    np.put_along_axis(kept, order, (before < p) | (np.arange(logits.shape[1]) == 0), axis=1)
    return np.where(kept, logits, -np.inf)
    ### END SOLUTION

# %% tags=["nbval-check-output"]
shares = np.log([[0.5, 0.3, 0.2]])
print(np.isfinite(keep_top_k(shares, 1)), np.isfinite(keep_top_p(shares, 0.6)))

# %% nbgrader={"grade_id": "test-keep", "grade": true, "points": 3}
def kept_agree(logits):
    rows, V = logits.shape
    for k in (1, 3, V, V + 2):
        got = np.asarray(keep_top_k(logits.copy(), k))
        for r in range(rows):
            best = set(sorted(range(V), key=lambda i: -logits[r, i])[:k])
            kept = {i for i in range(V) if np.isfinite(got[r, i])}
            assert kept == best, f"keep_top_k, k = {k}: expected the ids {sorted(best)} kept, got {sorted(kept)}"
            assert all(got[r, i] == logits[r, i] for i in kept), "keep_top_k: expected the kept logits unchanged"
    for p in (0.05, 0.5, 0.9, 1.0):
        got = np.asarray(keep_top_p(logits.copy(), p))
        for r in range(rows):
            e, best, total = np.exp(logits[r] - logits[r].max()), set(), 0.0
            for i in sorted(range(V), key=lambda i: -logits[r, i]):
                if total >= p - 1e-9:
                    break
                best.add(i)
                total += e[i] / e.sum()
            kept = {i for i in range(V) if np.isfinite(got[r, i])}
            assert kept == best, f"keep_top_p, p = {p}: expected the ids {sorted(best)} kept, got {sorted(kept)}"
            assert all(got[r, i] == logits[r, i] for i in kept), "keep_top_p: expected the kept logits unchanged"


kept_agree(normal(2, 6))
### BEGIN HIDDEN TESTS
kept_agree(3 * normal(4, 11, seed=7))
### END HIDDEN TESTS

# %% [markdown]
# Now draw. Add up the shares of a row: they climb from 0 to 1. A uniform number u between 0 and 1 falls into one step of
# this staircase, into a wide one more often: the id is how many steps lie wholly at or below u. Use one number of
# `rng.random((B, 1))` a row. The last step is not exactly 1 in floating point, so scale u by it.

# %%
#| export
def check_sampling(logits, temperature, top_k, top_p):
    """Raise ValueError for logits that are not (B, V) and for settings out of range."""
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise ValueError(f"sample: expected logits of shape (B, V), got {logits.shape}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"sample: expected a temperature >= 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"sample: expected top_k >= 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"sample: expected top_p in (0, 1], got {top_p}")

# %% nbgrader={"grade_id": "sample", "solution": true}
#| export
def sample(logits, rng, temperature=1.0, top_k=None, top_p=None):
    """Draw one id for each row of logits (B, V) -> (B,) int64; temperature 0 takes the most likely.

    `rng` is a NumPy Generator; one number a row is used. Raises ValueError for settings out of range.
    """
    logits = np.asarray(logits, dtype=np.float64)
    check_sampling(logits, temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(axis=1)
    logits = logits / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    ### BEGIN SOLUTION
    reached = np.cumsum(softmax_forward(logits, axis=1), axis=1)
    u = rng.random((len(logits), 1)) * reached[:, -1:]
    return (reached <= u).sum(axis=1)
    ### END SOLUTION

# %% tags=["nbval-check-output"]
draws = sample(np.log([[0.5, 0.3, 0.2]] * 10000), np.random.default_rng(0))
print((np.bincount(draws, minlength=3) / 10000).round(1))

# %% nbgrader={"grade_id": "test-sample", "grade": true, "points": 3}
def shares_agree(logits, wanted, **options):
    draws = np.asarray(sample(np.repeat(logits[None], 20000, axis=0), np.random.default_rng(1), **options))
    got = np.bincount(draws, minlength=len(logits)) / 20000
    assert np.abs(got - wanted).max() < 0.02, (
        f"sample with {options}: expected the shares {np.round(wanted, 3)}, got {got.round(3)}"
    )


logits = np.log(np.array([0.2, 0.5, 0.3]))
shares_agree(logits, [0.2, 0.5, 0.3])
shares_agree(logits, [0, 1, 0], temperature=0)
### BEGIN HIDDEN TESTS
shares_agree(logits, np.array([4, 25, 9]) / 38, temperature=0.5)
shares_agree(logits, [0, 0.625, 0.375], top_k=2)
shares_agree(logits, [0, 0.625, 0.375], top_p=0.7)
shares_agree(logits, [0, 1, 0], top_k=2, top_p=0.5)
rows = np.asarray(sample(np.array([[0.0, 50, 0], [50, 0, 0]]), np.random.default_rng(2)))
assert rows.tolist() == [1, 0], f"sample: expected each row its own id, [1, 0], got {rows.tolist()}"
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Writing
#
# Draw a token, append it, look again. The model sees at most `context` tokens, so of a longer text it gets the last
# ones. You write the two lines in the loop: the logits of the last position, an array (B, V), and the `new` ids.

# %% nbgrader={"grade_id": "generate", "solution": true}
#| export
def generate(model, ids, n, temperature=1.0, top_k=None, top_p=None, seed=0, stop=None):
    """Append n ids to the prompts ids (B, T) -> (B, T + n), or fewer where all rows have stopped.

    Each id is drawn by `sample` from the model's logits for the last `model.context` ids. With `stop`, an id,
    a row that has drawn it goes on with it only, and the work ends when all rows have.
    """
    ids, rng = np.array(ids, dtype=np.int64), np.random.default_rng(seed)
    if ids.ndim != 2 or ids.shape[1] < 1:
        raise ValueError(f"generate: expected prompts of shape (B, T), T at least 1, got {ids.shape}")
    stopped = np.zeros(len(ids), bool)
    with evaluation_mode(model), no_grad():
        for _ in range(n):
            ### BEGIN SOLUTION
            logits = model(ids[:, -model.context :]).numpy()[:, -1]
            new = sample(logits, rng, temperature, top_k, top_p)
            ### END SOLUTION
            if stop is not None:
                new[stopped] = stop
                stopped |= new == stop
            ids = np.concatenate([ids, new[:, None]], axis=1)
            if stop is not None and stopped.all():
                break
    return ids

# %% tags=["nbval-check-output"]
print(generate(model, [[0, 1]], 12, temperature=0))

# %% nbgrader={"grade_id": "test-generate", "grade": true, "points": 3}
def greedy(prompts, n):
    ids = np.array(prompts)
    for _ in range(n):
        logits = np.asarray(model.eval()(ids[:, -8:]))
        ids = np.concatenate([ids, logits[:, -1].argmax(-1)[:, None]], axis=1)
    return ids


for prompts, n in [([[0, 1]], 3), ([[2, 3, 0], [1, 1, 1]], 9)]:
    got, wanted = np.asarray(generate(model, prompts, n, temperature=0)), greedy(prompts, n)
    assert np.array_equal(got, wanted), f"generate, temperature 0: expected {wanted.tolist()}, got {got.tolist()}"
### BEGIN HIDDEN TESTS
got, again, other = (np.asarray(generate(model, [[0, 1]] * 4, 8, temperature=2.0, seed=s)) for s in (3, 3, 4))
assert np.array_equal(got, again), "generate: expected the same ids for the same seed"
assert not np.array_equal(got, other), "generate: expected other ids for another seed at temperature 2"
got = np.asarray(generate(model, [[0, 1]], 8, temperature=0, stop=3))
assert got.tolist() == [[0, 1, 2, 3]], f"generate with stop=3: expected [[0, 1, 2, 3]], got {got.tolist()}"
got = np.asarray(generate(model, [[0, 1]] * 3, 5, temperature=5.0, top_k=1))
assert np.array_equal(got, greedy([[0, 1]] * 3, 5)), "generate: expected top_k to be handed on to sample"
### END HIDDEN TESTS

# %% [markdown]
# Every new token computes all earlier positions again. Lesson 17 remembers them instead.
#
# ### A figure: temperature, top-k and top-p
#
# Twelve tokens, the likeliest first; the bars are what a token is drawn from. Which setting leaves the likeliest token
# alone? And which one drops more tokens the surer the model is?

# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import explore


def drawn_from(temperature=0.7, top_k=12, top_p=0.9):
    """The figure of what tokens are drawn from, and its text alternative."""
    logits = np.sort(2 * normal(1, 12))[:, ::-1]
    kept = keep_top_p(keep_top_k(logits / temperature, top_k), top_p)
    before, after = softmax_forward(logits, axis=1)[0], softmax_forward(kept, axis=1)[0]
    figure, axes = plt.subplots(figsize=(7, 3.4))
    axes.bar(range(1, 13), after, label=f"drawn from, {np.count_nonzero(after)} of 12 kept")
    axes.plot(range(1, 13), before, "o--", color="black", label="what the model said")
    axes.set(xlabel="token, by rank", ylabel="probability", xticks=range(1, 13), ylim=(0, 1))
    axes.legend()
    return figure, (
        f"Twelve tokens by rank: at temperature {temperature:.1f}, top-k {top_k} and top-p {top_p:.2f}, "
        f"{np.count_nonzero(after)} of them are kept, and the likeliest goes from {before[0]:.2f} to {after[0]:.2f}."
    )


explore(drawn_from, temperature=(0.1, 3.0, 0.1), top_k=(1, 12, 1), top_p=(0.05, 1.0, 0.05))

# %% [markdown]
# ## 7. What breaks
#
# A text that is longer than the positions that the model has learnt:

# %% tags=["nbval-check-output"]
try:
    model(np.zeros((1, 9), int))
except ValueError as error:
    print(error)

# %% [markdown]
# A share of nothing:

# %% tags=["nbval-check-output"]
try:
    sample(logits=np.zeros((1, 3)), rng=np.random.default_rng(0), top_p=0)
except ValueError as error:
    print(error)

# %% [markdown]
# ## Exercises
#
# 1. Count the parameters of a block by d_model alone. Which part has most of them?
# 2. Normalise after the addition instead (*post-norm*) and train twelve layers. What happens to the loss?
# 3. Share one matrix between `tok` and `head`. What must the gradient of it be?
# 4. Draw 1000 tokens with top-k 5 and with top-p 0.9. When do they differ most?
# 5. Replace layer norm by RMS norm, which only divides by the root mean square. Write its rule.
#
# ## Elsewhere
#
# - In PyTorch, `nn.TransformerEncoderLayer(norm_first=True)` with a causal mask is our block; nanoGPT and most
#   published models write it by hand, as we do.
# - Larger models today use RMS norm, rotary positions and gated MLPs; the shape of the block is the same.
# - `layer_norm` in PyTorch is a fused kernel like ours: one pass over a row for its statistics, one for the result.
#
# ## Summary
#
# - Layer norm works on each position alone; its gradient takes out what normalising would undo.
# - A block adds to x what attention and an MLP find in normalised copies of it.
# - Every position is a lesson: the loss shifts the ids by one.
# - Temperature, top-k and top-p change the shares; a uniform number on their staircase draws the token.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/transformers.py`;
# `tito module complete 13` in a terminal does the same.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
