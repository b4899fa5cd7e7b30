"""Activation functions, computed without overflow and in cache-sized blocks on all cores.

Built by tito from lesson 02_activations: change the lesson, not this file.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import ThreadpoolController

from tinytorch.tensor import apply

__all__ = [
    "relu_forward",
    "sigmoid_forward",
    "softmax_forward",
    "BLOCK",
    "num_threads",
    "set_num_threads",
    "parallel_for",
    "blockwise",
    "gelu_block",
    "gelu_forward",
    "relu",
    "sigmoid",
    "tanh",
    "gelu",
    "softmax",
    "ReLU",
    "Sigmoid",
    "Tanh",
    "GELU",
    "Softmax",
]


def relu_forward(x):
    """max(x, 0), element by element, as a new array of the same shape, dtype and memory order."""
    return np.maximum(x, 0)


def sigmoid_forward(x):
    """1 / (1 + exp(-x)), element by element; it never overflows."""
    return 0.5 * (np.tanh(0.5 * x) + 1)


def softmax_forward(x, axis):
    """exp(x) / sum(exp(x)) along `axis`, a new array of the shape of x; it never overflows."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    e /= e.sum(axis=axis, keepdims=True)
    return e


BLOCK = 65536  # elements of a block: 256 KB of float32, so that a few arrays fit near a core

_inside = threading.local()  # .share is True in the threads of the pool
_blas = ThreadpoolController()


def _first_count():
    """TINYTORCH_THREADS, else the cores this process may use; macOS and Windows only know all cores."""
    wanted = os.environ.get("TINYTORCH_THREADS")
    if wanted is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not wanted.isdigit() or int(wanted) < 1:
        raise ValueError(f"TINYTORCH_THREADS: expected a number of at least 1, got {wanted!r}")
    return int(wanted)


def _new_pool(n):
    return ThreadPoolExecutor(n, initializer=lambda: setattr(_inside, "share", True))


_threads = _first_count()
_pool = _new_pool(_threads)


def num_threads():
    """How many threads the package computes with: TINYTORCH_THREADS, else one for each core, at the start."""
    return _threads


def set_num_threads(n):
    """Compute with `n` threads from now on. Raises ValueError for less than one."""
    global _threads, _pool
    if n < 1:
        raise ValueError(f"set_num_threads: expected at least 1, got {n}")
    _pool.shutdown(wait=False)
    _threads, _pool = n, _new_pool(n)


if hasattr(os, "register_at_fork"):  # a forked child has the pool, but not its threads: give it a new one
    os.register_at_fork(after_in_child=lambda: set_num_threads(_threads))


def parallel_for(work, starts):
    """Call `work(start)` for every entry of the sequence `starts`, shared out over the threads.

    What `work` raises is raised here. While the threads run, the matrix library keeps to one thread each.
    """
    if _threads == 1 or len(starts) <= 1 or getattr(_inside, "share", False):
        for start in starts:
            work(start)
        return

    def share(k):
        for start in starts[k::_threads]:
            work(start)

    with _blas.limit(limits=1, user_api="blas"):
        list(_pool.map(share, range(_threads)))  # list() raises here what a thread raised


def blockwise(function, *arrays, outputs=1):
    """Call `function(*blocks, *out_blocks)` on cache-sized blocks of arrays of one shape, over all threads.

    `function` fills the out blocks. Returns the output, or a tuple of `outputs` of them; shape, dtype and
    memory order are those of the first array. Raises ValueError for arrays of different shapes.

    A chain of five NumPy operations over a large array goes to main memory ten times; over a block that fits
    the cache it goes there twice.
    """
    x = arrays[0]
    if any(a.shape != x.shape for a in arrays):
        raise ValueError(f"blockwise: expected arrays of one shape, got {[a.shape for a in arrays]}")
    order = sorted(range(x.ndim), key=lambda i: -abs(x.strides[i]))
    flats = [a.transpose(order).reshape(-1) for a in arrays]
    flats += [np.empty(x.size, x.dtype) for _ in range(outputs)]
    parallel_for(lambda i: function(*(f[i : i + BLOCK] for f in flats)), range(0, x.size, BLOCK))
    shape, back = [x.shape[i] for i in order], np.argsort(order)
    outs = tuple(f.reshape(shape).transpose(back) for f in flats[len(arrays) :])
    return outs[0] if outputs == 1 else outs


def gelu_block(x, y, t):
    """Fill `t` with tanh(sqrt(2/pi) (x + 0.044715 x³)) and `y` with 0.5 x (1 + t); `x` stays as it is."""
    np.multiply(x, x, out=t)
    t *= 0.044715
    t += 1
    t *= x
    t *= 0.7978845608028654  # sqrt(2 / pi)
    np.tanh(t, out=t)
    np.add(t, 1, out=y)
    y *= x
    y *= 0.5


def gelu_forward(x):
    """GELU in its tanh form (Hendrycks and Gimpel, 2016), and the tanh, which the gradient needs again."""
    return blockwise(gelu_block, x, outputs=2)


def relu(x):
    """max(x, 0), element by element."""
    return apply(relu_forward, x)


def sigmoid(x):
    """1 / (1 + exp(-x)), element by element, without overflow."""
    return apply(sigmoid_forward, x)


def tanh(x):
    """The hyperbolic tangent, element by element."""
    return apply(np.tanh, x)


def gelu(x):
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x³))), the tanh form of GELU (Hendrycks and Gimpel, 2016)."""
    return apply(gelu_forward, x)


def softmax(x, dim=-1):
    """exp(x) / sum(exp(x)) along `dim`; the entries along it add up to 1."""
    return apply(softmax_forward, x, axis=dim)


class ReLU:
    """max(x, 0), element by element, as a layer."""

    def __call__(self, x):
        return relu(x)

    def __repr__(self):
        return "ReLU()"


class Sigmoid:
    """1 / (1 + exp(-x)), element by element, as a layer."""

    def __call__(self, x):
        return sigmoid(x)

    def __repr__(self):
        return "Sigmoid()"


class Tanh:
    """The hyperbolic tangent, element by element, as a layer."""

    def __call__(self, x):
        return tanh(x)

    def __repr__(self):
        return "Tanh()"


class GELU:
    """GELU in its tanh form, element by element, as a layer."""

    def __call__(self, x):
        return gelu(x)

    def __repr__(self):
        return "GELU()"


class Softmax:
    """Shares that add up to 1 along `dim`, as a layer. It prints as `Softmax(dim=-1)`."""

    def __init__(self, dim=-1):
        self.dim = dim

    def __call__(self, x):
        return softmax(x, self.dim)

    def __repr__(self):
        return f"Softmax(dim={self.dim})"
