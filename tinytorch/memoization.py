"""Text without doing the work twice: key-value caches, and a decoder that writes one token after the
other.

Built by tito from lesson 17_memoization: change the lesson, not this file.
"""

import numpy as np

from tinytorch.activations import num_threads, parallel_for
from tinytorch.attention import attention_forward, merge_heads, split_heads
from tinytorch.autograd import no_grad
from tinytorch.transformers import sample

__all__ = [
    "KVCache",
    "new_caches",
    "advance",
    "fold_norm",
    "attend",
    "READ_TOKENS",
    "STEP_ROWS",
    "centred",
    "folded_linear",
    "normalised_product",
    "scaled_gelu",
    "layer_constants",
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
    scores = np.matvec(K, q)  # (B, H, t)
    scores *= q.shape[-1] ** -0.5
    if hidden is not None:
        scores = np.where(hidden, -np.inf, scores)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    return np.vecmat(scores, V) / scores.sum(axis=-1, keepdims=True)


READ_TOKENS = 512  # of prompts that are read together: their activations stay near a core
STEP_ROWS = 24  # texts of a step for which another thread pays


def centred(a):
    """A copy of `a` with the mean of its last dimension taken away, contiguous."""
    return np.ascontiguousarray(a - a.mean(axis=-1, keepdims=True))


def folded_linear(norm, linear, scale=1.0):
    """Weight (in, out), bias and epsilon for `normalised_product`: `linear` after `norm`, times `scale`."""
    w = linear.weight.data.T
    b = np.zeros(w.shape[1], w.dtype) if linear.bias is None else linear.bias.data
    w, b = fold_norm(norm.weight.data, norm.bias.data, w, b)
    D = w.shape[0]
    return (
        np.ascontiguousarray(w * (scale * D**0.5), w.dtype),
        b * b.dtype.type(scale),
        w.dtype.type(D * norm.eps),
    )


def normalised_product(x, w, b, eps):
    """x / sqrt(sum(x²) + eps) @ w + b for x (N, D) of mean 0, w (D, O); the division comes last."""
    y = x @ w
    norms = np.vecdot(x, x)
    norms += eps
    y /= np.sqrt(norms, out=norms)[:, None]
    y += b
    return y


_CUBE = (0.044715 * 0.7978845608028654) ** (1 / 3)
_LINEAR = 0.7978845608028654 / _CUBE


def scaled_gelu(s):
    """s (1 + tanh(s (s² + _LINEAR))), which is 2 _CUBE gelu(u) for s = _CUBE u."""
    t = s * s
    t += _LINEAR
    t *= s
    np.tanh(t, out=t)
    t += 1
    t *= s
    return t


def layer_constants(block):
    """The arrays of a block that `Decoder` works with; what `out` and `down` give has mean 0."""
    out, down = block.attention.out, block.mlp.down
    return (
        folded_linear(block.norm1, block.attention.qkv),
        centred(out.weight.data.T),
        centred(out.bias.data),
        folded_linear(block.norm2, block.mlp.up, _CUBE),
        centred(down.weight.data.T) * down.weight.dtype.type(0.5 / _CUBE),
        centred(down.bias.data),
    )


class Decoder:
    """Cached decoding of `batch_size` texts with a GPT's weights, copied into plain arrays at the start.

    `lengths` (B,) counts the tokens of each text that lie in the cache, at most the model's context.
    """

    def __init__(self, model, batch_size):
        self.caches, self.n_heads = new_caches(model, batch_size), model.blocks[0].attention.n_heads
        self.tok, self.pos = centred(model.tok.weight.data), centred(model.pos.weight.data)
        self.layers = [layer_constants(block) for block in model.blocks]
        self.head = folded_linear(model.norm, model.head)
        self.ids = np.zeros((batch_size, model.context), np.int64)
        self.lengths = np.zeros(batch_size, np.int64)

    def reset(self):
        """Forget all texts."""
        self.lengths[:] = 0

    def read(self, rows, ids):
        """Read ids (n, T) as the whole text of the rows `rows`, a list of n; their logits (n, V)."""
        n, T = ids.shape
        logits = np.empty((n, len(self.tok)), self.tok.dtype)
        size = min(max(1, READ_TOKENS // T), -(-n // num_threads()))  # texts that one thread reads together
        parts = [slice(i, i + size) for i in range(0, n, size)]
        parallel_for(lambda part: self.read_part(rows[part], ids[part], logits[part]), parts)
        self.ids[rows, :T], self.lengths[rows] = ids, T
        return logits

    def read_part(self, rows, ids, logits):
        """As `read`, for texts that are read together; fills their logits (n, V)."""
        n, T = ids.shape
        x = (self.tok[ids] + self.pos[:T]).reshape(n * T, -1)
        for layer, cache in zip(self.layers, self.caches, strict=True):
            q, k, v = split_heads(normalised_product(x, *layer[0]).reshape(n, T, -1), self.n_heads)
            cache.keys[rows, :, :T], cache.values[rows, :, :T] = k, v
            if cache is self.caches[-1]:  # only the last token's logits are wanted, so only its query is
                x = x.reshape(n, T, -1)[:, -1].copy()
                mixed = attend(q[:, :, -1], k, v)
            else:
                mixed = merge_heads(attention_forward(q, k, v, causal=True)[0])
            self.add_results(x, mixed.reshape(x.shape), layer)
        logits[:] = normalised_product(x, *self.head)

    def add_results(self, x, mixed, layer):
        """Add to x (N, d) what a block finds, given the mixed values (N, d) of its attention."""
        _, out, out_b, up, down, down_b = layer
        x += mixed @ out
        x += out_b
        x += scaled_gelu(normalised_product(x, *up)) @ down
        x += down_b

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
        for layer, cache in zip(self.layers, self.caches, strict=True):
            K, V = cache.keys[rows], cache.values[rows]
            h = normalised_product(x, *layer[0]).reshape(B, 3, self.n_heads, -1)
            K[place], V[place] = h[:, 1], h[:, 2]
            mixed = attend(h[:, 0], K[:, :, :t], V[:, :, :t], hidden)
            self.add_results(x, mixed.reshape(B, -1), layer)
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
        size = -(-B // max(1, min(num_threads(), B // STEP_ROWS)))
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
