"""Layer norm, transformer blocks, a GPT, and drawing text from it.

Built by tito from lesson 13_transformers: change the lesson, not this file.
"""

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

__all__ = [
    "layer_norm_forward",
    "layer_norm_vjp",
    "LayerNorm",
    "MLP",
    "TransformerBlock",
    "GPT",
    "language_loss",
    "keep_top_k",
    "keep_top_p",
    "check_sampling",
    "sample",
    "generate",
]


def layer_norm_forward(x, weight, bias, eps):
    """weight * (x - mean) / sqrt(var + eps) + bias over the last dimension, in blocks of rows.

    Shapes: x (..., D), weight and bias (D,). Also returns mean and 1 / sqrt(var + eps), both
    (N, 1), which the gradient needs again.
    """
    rows = x.reshape(-1, x.shape[-1])
    y, mean, inverse = np.empty_like(rows), *np.empty((2, len(rows), 1), x.dtype)

    def work(at):
        block, out = rows[at], y[at]
        mean[at] = block.mean(axis=1, keepdims=True)
        np.subtract(block, mean[at], out=out)
        var = np.einsum("nd,nd->n", out, out)[:, None] / x.shape[-1]
        inverse[at] = 1 / np.sqrt(var + eps)
        out *= inverse[at]
        out *= weight
        out += bias

    parallel_for(work, row_blocks(rows))
    return y.reshape(x.shape), mean, inverse


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
        dweight[i], dbias[i] = np.einsum("nd,nd->d", gb, xhat), gb.sum(axis=0)
        d = np.multiply(gb, weight, out=dx[at])
        slope = np.einsum("nd,nd->n", d, xhat)[:, None] / x.shape[-1]
        d -= d.mean(axis=1, keepdims=True)
        xhat *= slope
        d -= xhat
        d *= inverse[at]

    parallel_for(work, range(len(blocks)))
    return dx.reshape(x.shape), dweight.sum(axis=0), dbias.sum(axis=0)


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


class MLP(Module):
    """Two layers with GELU between them: `up` to four times the width, `down` again."""

    def __init__(self, d_model):
        self.up, self.down = Linear(d_model, 4 * d_model), Linear(4 * d_model, d_model)

    def forward(self, x):
        """x (B, T, d_model) -> the same shape."""
        return self.down(gelu(self.up(x)))


class TransformerBlock(Module):
    """Attention, then an MLP; each reads a normalised copy of x and adds its result to x (pre-norm)."""

    def __init__(self, d_model, n_heads):
        self.norm1, self.attention = LayerNorm(d_model), Attention(d_model, n_heads)
        self.norm2, self.mlp = LayerNorm(d_model), MLP(d_model)

    def forward(self, x, cache=None):
        """x (B, T, d_model) -> the same shape; `cache` is handed to the attention."""
        x = x + self.attention(self.norm1(x), cache)
        return x + self.mlp(self.norm2(x))


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
    logits = logits.reshape(-1, logits.shape[-1])
    counted = np.flatnonzero(targets >= 0)
    if len(counted) < len(targets):
        logits, targets = logits[counted], targets[counted]
    return CrossEntropyLoss()(logits, targets)


def keep_top_k(logits, k):
    """A copy of logits (B, V) with all but the k largest of each row at -inf; equal ones at the edge stay."""
    edge = np.sort(logits, axis=1)[:, -min(k, logits.shape[1]), None]
    return np.where(logits >= edge, logits, -np.inf)


def keep_top_p(logits, p):
    """A copy of logits (B, V) with only the most likely ids left that together reach probability p."""
    order = np.argsort(-logits, axis=1, kind="stable")
    shares = np.take_along_axis(softmax_forward(logits, axis=1), order, axis=1)
    before = np.cumsum(shares, axis=1) - shares  # what the more likely ones reach without this one
    kept = np.empty(logits.shape, bool)
    np.put_along_axis(kept, order, (before < p) | (np.arange(logits.shape[1]) == 0), axis=1)
    return np.where(kept, logits, -np.inf)


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
    reached = np.cumsum(softmax_forward(logits, axis=1), axis=1)
    u = rng.random((len(logits), 1)) * reached[:, -1:]
    return (reached <= u).sum(axis=1)


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
            logits = model(ids[:, -model.context :]).numpy()[:, -1]
            new = sample(logits, rng, temperature, top_k, top_p)
            if stop is not None:
                new[stopped] = stop
                stopped |= new == stop
            ids = np.concatenate([ids, new[:, None]], axis=1)
            if stop is not None and stopped.all():
                break
    return ids
