"""Text without doing the work twice: key-value caches, and a decoder that writes one token after the
other.

Built by tito from lesson 17_memoization: change the lesson, not this file.
"""

from contextlib import contextmanager

import numpy as np
from threadpoolctl import ThreadpoolController

from tinytorch.activations import num_threads, parallel_for
from tinytorch.autograd import no_grad
from tinytorch.transformers import sample

__all__ = [
    "KVCache",
    "new_caches",
    "advance",
    "fold_norm",
    "attend",
    "one_blas_thread",
    "folded_linear",
    "centred",
    "centred_linear",
    "normalised_product",
    "gelu_in_place",
    "Decoder",
    "generate_cached",
]


class KVCache:
    """Keys and values of one attention layer: arrays (batch, n_heads, context, head_dim), filled by `append`.

    `length` tells how many positions are in use.
    """

    def __init__(self, batch, n_heads, context, head_dim, dtype=np.float32):
        if min(batch, n_heads, context, head_dim) < 1:
            raise ValueError(
                f"KVCache: expected sizes of at least 1, got batch {batch}, n_heads {n_heads}, "
                f"context {context}, head_dim {head_dim}"
            )
        self.keys = np.zeros((batch, n_heads, context, head_dim), dtype)
        self.values = np.zeros_like(self.keys)
        self.length = 0

    def reset(self):
        """Forget the text; the memory stays."""
        self.length = 0

    @property
    def nbytes(self):
        """The memory it takes, in bytes."""
        return self.keys.nbytes + self.values.nbytes

    def __repr__(self):
        batch, heads, context, dim = self.keys.shape
        return f"KVCache({batch}, {heads}, {context}, {dim}: {self.length} of {context} positions used)"

    def append(self, k, v):
        """Add keys and values (B, H, T, D); returns all so far, two views (B, H, length, D).

        Raises ValueError, and changes nothing, where the shapes do not fit or the context is full.
        """
        k, v = np.asarray(k), np.asarray(v)
        batch, heads, context, dim = self.keys.shape
        if k.shape != v.shape or k.ndim != 4 or k.shape[:2] + k.shape[3:] != (batch, heads, dim):
            raise ValueError(
                f"KVCache: expected keys and values ({batch}, {heads}, T, {dim}), got {k.shape} and {v.shape}"
            )
        if self.length + k.shape[2] > context:
            raise ValueError(
                f"KVCache: {self.length} of {context} positions are used, {k.shape[2]} more do not fit; "
                "reset it and read the last tokens anew"
            )
        start, end = self.length, self.length + k.shape[2]
        self.keys[:, :, start:end] = k
        self.values[:, :, start:end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


def new_caches(model, batch):
    """One empty KVCache for each block of a GPT, in the dtype of its weights."""
    weight = model.tok.weight
    n_heads, context = model.blocks[0].attention.n_heads, model.context
    sizes = (batch, n_heads, context, weight.shape[1] // n_heads)
    return [KVCache(*sizes, weight.dtype) for _ in model.blocks]


def advance(model, ids, caches):
    """Read new tokens `ids` (B, T) behind those in `caches`; the logits (B, V) after the last one."""
    model.eval()
    with no_grad():
        logits = model(np.asarray(ids), caches)
    return logits.numpy()[:, -1]


def fold_norm(gain, bias, w, b):
    """w2, b2 with n @ w2 + b2 equal to (n * gain + bias) @ w + b.

    Shapes: gain, bias (D,), w (D, O), b (O,).
    """
    return gain[:, None] * w, bias @ w + b


def attend(q, K, V, hidden=None):
    """Attention of one query q (B, H, D) to k and v (B, H, t, D) -> (B, H, D); `hidden` (B, 1, t) or None."""
    scores = (K @ q[..., None])[..., 0] * q.dtype.type(q.shape[-1] ** -0.5)
    if hidden is not None:
        scores = np.where(hidden, -np.inf, scores)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    mixed = (scores[:, :, None] @ V)[:, :, 0]
    return mixed / scores.sum(axis=-1, keepdims=True)


_blas = ThreadpoolController().select(user_api="blas").lib_controllers


@contextmanager
def one_blas_thread():
    """Keep the matrix library to one thread: for thin matrices a second one costs more than it brings."""
    before = [library.get_num_threads() for library in _blas]
    for library in _blas:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, n in zip(_blas, before, strict=True):
            library.set_num_threads(n)


def folded_linear(norm, linear):
    """The weight (in, out) and bias of a linear layer with the layer norm before it folded in, contiguous."""
    w = linear.weight.data.T
    b = np.zeros(w.shape[1], w.dtype) if linear.bias is None else linear.bias.data
    w, b = fold_norm(norm.weight.data, norm.bias.data, w, b)
    return np.ascontiguousarray(w), b, norm.eps


def centred(a):
    """A copy of `a` with the mean of its last dimension taken away, contiguous."""
    return np.ascontiguousarray(a - a.mean(axis=-1, keepdims=True))


def centred_linear(linear):
    """The weight (in, out) and bias of a linear layer whose results have mean 0."""
    return centred(linear.weight.data.T), centred(linear.bias.data)


def normalised_product(x, w, b, eps):
    """(x / sqrt(mean(x²) + eps)) @ w + b for x (B, D) of mean 0, w (D, O); the division comes last."""
    y = x @ w
    y /= np.sqrt(np.vecdot(x, x) / x.shape[1] + x.dtype.type(eps))[:, None]
    y += b
    return y


def gelu_in_place(u):
    """0.5 u (1 + tanh(sqrt(2/pi) (u + 0.044715 u³))) of an array, which is overwritten on the way."""
    t = u * u
    t *= 0.044715 * 0.7978845608028654
    t += 0.7978845608028654
    t *= u
    np.tanh(t, out=t)
    t += 1
    t *= u
    t *= 0.5
    return t


class Decoder:
    """Cached decoding of `batch_size` texts with a GPT's weights, copied into plain arrays at the start.

    `lengths` (B,) counts the tokens of each text that lie in the cache, at most the model's context.
    """

    def __init__(self, model, batch_size):
        self.model, self.caches = model, new_caches(model, batch_size)
        self.tok, self.pos = centred(model.tok.weight.data), centred(model.pos.weight.data)
        self.layers = [
            (folded_linear(b.norm1, b.attention.qkv), *centred_linear(b.attention.out),
             folded_linear(b.norm2, b.mlp.up), *centred_linear(b.mlp.down))
            for b in model.blocks
        ]  # fmt: skip
        self.head = folded_linear(model.norm, model.head)
        self.ids = np.zeros((batch_size, model.context), np.int64)
        self.lengths = np.zeros(batch_size, np.int64)

    def reset(self):
        """Forget all texts."""
        self.lengths[:] = 0

    def read(self, rows, ids):
        """Read ids (n, T) as the whole text of the rows `rows`, a list of n; their logits (n, V)."""
        caches = new_caches(self.model, len(rows))
        logits = advance(self.model, ids, caches)
        T = ids.shape[1]
        for mine, new in zip(self.caches, caches, strict=True):
            mine.keys[rows, :, :T], mine.values[rows, :, :T] = new.keys[:, :, :T], new.values[:, :, :T]
        self.ids[rows, :T], self.lengths[rows] = ids, T
        return logits

    def prefill(self, prompts):
        """Forget, and read prompts (B, T), or a list of B of unequal lengths; logits (B, V) after each.

        Of a longer prompt the last `context` tokens are read. Raises ValueError for another number of prompts
        or an empty one.
        """
        if len(prompts) != len(self.lengths) or min(len(p) for p in prompts) < 1:
            sizes = [len(p) for p in prompts]
            raise ValueError(
                f"prefill: expected {len(self.lengths)} prompts of at least 1 token, got {sizes}"
            )
        prompts = [np.asarray(p)[-self.ids.shape[1] :] for p in prompts]
        logits = np.empty((len(prompts), len(self.tok)), self.tok.dtype)
        for T in {len(p) for p in prompts}:
            rows = [i for i, p in enumerate(prompts) if len(p) == T]
            logits[rows] = self.read(rows, np.stack([prompts[i] for i in rows]))
        return logits

    def rows_step(self, rows, tokens, logits):
        """One step of the texts in the slice `rows`; fills their logits."""
        at = self.lengths[rows]
        t, B = int(at.max()) + 1, len(at)
        even = bool((at == t - 1).all())
        place = (slice(None), slice(None), t - 1) if even else (np.arange(B), slice(None), at)
        hidden = None if even else np.arange(t) > at[:, None, None]
        x = self.tok[tokens[rows]] + self.pos[at]
        for (qkv, out, out_b, up, down, down_b), cache in zip(self.layers, self.caches, strict=True):
            h = normalised_product(x, *qkv)
            K, V = cache.keys[rows], cache.values[rows]
            h = h.reshape(B, 3, K.shape[1], K.shape[3])
            K[place], V[place] = h[:, 1], h[:, 2]
            x += attend(h[:, 0], K[:, :, :t], V[:, :, :t], hidden).reshape(B, -1) @ out
            x += out_b
            x += gelu_in_place(normalised_product(x, *up)) @ down
            x += down_b
        logits[rows] = normalised_product(x, *self.head)

    def slide(self, rows, tokens):
        """Drop the oldest token of full texts, add a new one and read the window anew; logits (n, V)."""
        window = np.concatenate([self.ids[rows, 1:], tokens[rows, None]], axis=1)
        return self.read(rows, window)

    def step(self, tokens):
        """Read one token for each text, tokens (B,); the logits (B, V) after it.

        Raises ValueError for another shape and for a token that is not in the vocabulary.
        """
        tokens = np.asarray(tokens)
        B, V = len(self.lengths), len(self.tok)
        if tokens.shape != (B,) or tokens.dtype.kind not in "iu":
            raise ValueError(
                f"step: expected whole numbers of shape ({B},), got {tokens.dtype} {tokens.shape}"
            )
        listed = tokens.tolist()
        if min(listed) < 0 or max(listed) >= V:
            raise ValueError(f"step: expected tokens from 0 to {V - 1}, got {min(listed)} to {max(listed)}")
        full = self.lengths == self.ids.shape[1]
        if full.any():
            return self.mixed_step(tokens, full)
        logits = np.empty((B, V), self.tok.dtype)
        size = -(-B // max(1, min(num_threads(), B // 8)))
        with one_blas_thread():
            parallel_for(lambda i: self.rows_step(slice(i, i + size), tokens, logits), range(0, B, size))
        self.ids[np.arange(B), self.lengths] = tokens
        self.lengths += 1
        return logits

    def mixed_step(self, tokens, full):
        """A step in which the texts marked in `full` must slide and the others go on."""
        logits = np.empty((len(tokens), len(self.tok)), self.tok.dtype)
        for i in np.flatnonzero(~full):
            self.rows_step(slice(i, i + 1), tokens, logits)
            self.ids[i, self.lengths[i]] = tokens[i]
            self.lengths[i] += 1
        rows = np.flatnonzero(full).tolist()
        logits[rows] = self.slide(rows, tokens)
        return logits


def generate_cached(model, prompts, n, temperature=1.0, top_k=None, top_p=None, seed=0, stop=None):
    """As `generate`, token by token, with memory: a list of B lists, each a prompt and up to n tokens more.

    `prompts` is (B, T) or a list of B texts of unequal length.
    """
    texts, rng = [[int(i) for i in p] for p in prompts], np.random.default_rng(seed)
    decoder, stopped = Decoder(model, len(texts)), np.zeros(len(texts), bool)
    logits = decoder.prefill(texts)
    for k in range(n):
        new = sample(logits, rng, temperature, top_k, top_p)
        if stop is not None:
            new[stopped] = stop
            stopped |= new == stop
        for text, token in zip(texts, new.tolist(), strict=True):
            text.append(token)
        if stopped.all() or k == n - 1:
            break
        logits = decoder.step(new)
    return texts
