# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 Activations
#
# > Activation functions, computed without overflow and in cache-sized blocks on all cores.
#
# A stack of matrix products is one matrix product. What makes a network more than a straight line is the function
# between the layers. You build five of them: ReLU, sigmoid, tanh, GELU and softmax.
#
# They look too simple to be interesting, and two things are. The textbook formulas of sigmoid and softmax
# overflow for quite ordinary inputs. And these functions do so little arithmetic for each number that the time
# goes into moving numbers to the processor and back. You will measure that, and cut it down by working in pieces
# that fit the cache, on all cores.
#
# **You need** `Tensor` and `apply` (01), NumPy's `out=` arguments and in-place operators.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 02

# %% nbgrader={"grade_id": "imports", "locked": true}
#| export
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import ThreadpoolController

from tinytorch.tensor import apply

# %% nbgrader={"grade_id": "tensor-names", "locked": true}
from tinytorch.tensor import Tensor, set_recorder

# %% [markdown]
# Everything in this lesson comes twice: as a *primitive* on arrays, called `..._forward`, and as a function on
# tensors that sends the primitive through `apply`. Sections 1 to 5 are about primitives.
#
# ## 1. ReLU
#
# max(x, 0): keep what is positive, cut off the rest. By hand: `[-2, 0, 3]` becomes `[0, 0, 3]`. It is the cheapest
# bend there is, and its slope is 1 wherever the input is positive, so gradients pass through many layers unshrunk.
#
# ### Exercise: `relu_forward`
# One NumPy function does it. Return a new array; the input must stay as it is, and so must dtype and memory order.

# %% nbgrader={"grade_id": "relu", "solution": true}
#| export
def relu_forward(x):
    """max(x, 0), element by element, as a new array of the same shape, dtype and memory order."""
    ### BEGIN SOLUTION
    return np.maximum(x, 0)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
relu_forward(np.array([-2.0, 0.0, 3.0]))

# %% nbgrader={"grade_id": "test-relu", "grade": true, "points": 2}
rng = np.random.default_rng(0)
for shape in ((7,), (3, 4), (2, 3, 4, 5)):
    x = rng.standard_normal(shape).astype(np.float32)
    before = x.copy()
    got, expected = np.asarray(relu_forward(x)), (x + np.abs(x)) / 2
    assert got.shape == shape, f"relu_forward: expected shape {shape}, got {got.shape}"
    assert np.allclose(got, expected), (
        f"relu_forward: expected {expected.ravel()[:4]}..., got {got.ravel()[:4]}...: see the example by hand"
    )
    assert np.array_equal(x, before), "relu_forward changed its input: expected a new array"
### BEGIN HIDDEN TESTS
for dtype in (np.float32, np.float64):
    x = rng.standard_normal((2, 5, 4, 3)).astype(dtype).transpose(0, 3, 1, 2)
    got = np.asarray(relu_forward(x))
    assert got.dtype == dtype, f"relu_forward of {np.dtype(dtype)}: expected the same dtype, got {got.dtype}"
    assert got.strides == x.strides, (
        f"relu_forward: expected strides {x.strides}, got {got.strides}: do not rearrange memory"
    )
    assert np.array_equal(got > 0, x > 0) and np.array_equal(got[got > 0], x[x > 0]), (
        "relu_forward: expected positive numbers to pass unchanged"
    )
got = np.asarray(relu_forward(np.array([np.inf, -np.inf, 0.0])))
assert got.tolist() == [np.inf, 0.0, 0.0], (
    f"relu_forward([inf, -inf, 0]): expected [inf, 0, 0], got {got.tolist()}"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Slopes
#
# During training a layer is judged by its slope: a gradient passes back through an activation multiplied by it. A
# slope near 0 stops learning in the layers below. You do not need calculus to see a slope: walk a little to both
# sides and divide,
#
# $$f'(x) \approx \frac{f(x + h) - f(x - h)}{2h}.$$
#
# By hand: for f(x) = x² at 3 with h = 1 that is (16 - 4) / 2 = 6, which is exact here. In float64 with h = 1e-5 it
# is good to about ten digits. This tool will check every gradient of lesson 05.
#
# ### Exercise: `slope`
# Not exported.

# %% nbgrader={"grade_id": "slope", "solution": true}
def slope(f, x, h=1e-5):
    """The slope of `f`, a function on arrays, at every element of a float64 array x: central differences."""
    ### BEGIN SOLUTION
    return (f(x + h) - f(x - h)) / (2 * h)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(slope(np.square, np.array([3.0]), h=1), slope(relu_forward, np.array([-2.0, 3.0])).round(6))

# %% nbgrader={"grade_id": "test-slope", "grade": true, "points": 2}
x = np.random.default_rng(0).uniform(-2, 2, 9)
for name, f, expected in [
    ("sin", np.sin, np.cos(x)), ("exp", np.exp, np.exp(x)), ("x³", lambda x: x**3, 3 * x**2)
]:
    got = np.asarray(slope(f, x))
    assert np.allclose(got, expected, atol=1e-8), (
        f"slope of {name}: expected {expected[:3]}..., got {got[:3]}...: both sides, and 2h?"
    )
### BEGIN HIDDEN TESTS
got = np.asarray(slope(np.square, x, h=0.5))
assert np.allclose(got, 2 * x), (
    f"slope of x² with h=0.5: central differences are exact for it, expected {2 * x}, got {got}"
)
got = float(slope(np.abs, np.zeros(1), h=0.1)[0])
assert got == 0, f"slope of |x| at 0: both sides cancel, expected 0, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Sigmoid, and a formula that overflows
#
# The sigmoid squeezes any number into 0 to 1: σ(x) = 1 / (1 + exp(-x)). So σ(0) = 1/2, and σ(-x) = 1 - σ(x).
#
# The largest float32 is about 3.4e38, which is exp(88.7). So exp(-x) overflows at x = -89, and nothing keeps a score
# from getting there. Here the result survives, because 1 / infinity is 0. Its slope, exp(-x) / (1 + exp(-x))², does
# not: infinity / infinity is NaN, and one NaN spreads to every weight. NumPy can be told to make overflow an error:

# %% tags=["nbval-check-output"]
try:
    with np.errstate(over="raise"):
        1 / (1 + np.exp(-np.array([-89.0], np.float32)))
except FloatingPointError as error:
    print(error)

# %% [markdown]
# The cure is another formula for the same function. The hyperbolic tangent is tanh(z) = (1 - e) / (1 + e) with
# e = exp(-2z), and libraries compute it without overflow. It runs from -1 to 1, the sigmoid from 0 to 1: moved up and
# halved, stretched sideways, one is the other.
#
# ### Exercise: `sigmoid_forward`
# Find a and b in σ(x) = a (tanh(b x) + 1): put e = exp(-2bx) into the right side and compare with 1 / (1 + exp(-x)).
# Write Python numbers, such as `0.25`, not NumPy constants: those are float64 and would widen a float32 array.

# %% nbgrader={"grade_id": "sigmoid", "solution": true}
#| export
def sigmoid_forward(x):
    """1 / (1 + exp(-x)), element by element; it never overflows."""
    ### BEGIN SOLUTION
    return 0.5 * (np.tanh(0.5 * x) + 1)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
sigmoid_forward(np.array([-1000, -1, 0, 1, 1000], np.float32)).round(4)

# %% nbgrader={"grade_id": "test-sigmoid", "grade": true, "points": 3}
x = np.linspace(-8, 8, 33)
got, expected = np.asarray(sigmoid_forward(x)), 1 / (1 + np.exp(-x))
assert np.allclose(got, expected, atol=1e-12), (
    f"sigmoid_forward: expected {expected[:3]}..., got {got[:3]}...: check σ(0) = 0.5 first"
)
try:
    with np.errstate(over="raise", invalid="raise"):
        got = np.asarray(sigmoid_forward(np.array([-1e4, 1e4], np.float32))).tolist()
except FloatingPointError as error:
    got = str(error)
assert got == [0, 1], f"sigmoid_forward([-10000, 10000]): expected [0, 1], got {got}: use the form with tanh"
### BEGIN HIDDEN TESTS
x = np.random.default_rng(1).normal(0, 3, (2, 4, 5, 3)).transpose(0, 3, 1, 2)
got = np.asarray(sigmoid_forward(x))
both = got + np.asarray(sigmoid_forward(-x))
assert np.allclose(both, 1, atol=1e-12), (
    f"σ(x) + σ(-x): expected 1 everywhere, got {both.min()} to {both.max()}"
)
back = np.log(got / (1 - got))
assert np.allclose(back, x, atol=1e-6), (
    f"log(s / (1 - s)) of s = σ(x): expected x, {x.flat[0]}, got {back.flat[0]}"
)
assert got.strides == x.strides, (
    f"sigmoid_forward: expected strides {x.strides}, got {got.strides}: do not rearrange memory"
)
for dtype in (np.float32, np.float64):
    got = np.asarray(sigmoid_forward(x.astype(dtype)))
    assert got.dtype == dtype, (
        f"sigmoid_forward of {np.dtype(dtype)}: expected the same dtype, got {got.dtype}"
    )
with np.errstate(over="raise", invalid="raise"):
    got = np.asarray(sigmoid_forward(np.array([-1e6, -800, 800, 1e6])))
assert np.allclose(got, [0, 0, 1, 1]), f"sigmoid_forward far out: expected [0, 0, 1, 1], got {got.tolist()}"
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Softmax
#
# Softmax turns scores into shares: softmax(x)ᵢ = exp(xᵢ) / Σⱼ exp(xⱼ). By hand, with scores `[log 1, log 2, log 5]`
# the exponentials are 1, 2, 5 and the shares 1/8, 2/8, 5/8.
#
# Here overflow destroys the result: a score of 1000 gives infinity / infinity. The way out is a property you can
# see in the formula. Add the same number c to all scores: every exponential is multiplied by exp(c), and the
# factor cancels. So subtract the largest score first. Then the largest exponent is 0 and nothing overflows; what
# underflows is a share so small that 0 is right.
#
# ### Exercise: `softmax_forward`
# Along any `axis`, each row (or column) with its own maximum. `x.max(axis=axis, keepdims=True)` keeps the dimension
# with size 1, so that it broadcasts; the sum needs the same.

# %% nbgrader={"grade_id": "softmax", "solution": true}
#| export
def softmax_forward(x, axis):
    """exp(x) / sum(exp(x)) along `axis`, a new array of the shape of x; it never overflows."""
    ### BEGIN SOLUTION
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    e /= e.sum(axis=axis, keepdims=True)
    return e
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(softmax_forward(np.log([1.0, 2.0, 5.0]), axis=0).round(4))
print(softmax_forward(np.array([1000.0, 1000.0, -1000.0]), axis=-1))

# %% nbgrader={"grade_id": "test-softmax", "grade": true, "points": 3}
rng = np.random.default_rng(0)
for shape, axis in [((5,), 0), ((3, 4), 1), ((4, 3), 0), ((2, 3, 4), -1)]:
    x = rng.standard_normal(shape)
    before = x.copy()
    got = np.asarray(softmax_forward(x, axis=axis))
    assert got.shape == shape, f"softmax_forward: expected shape {shape}, got {got.shape}"
    assert np.allclose(got.sum(axis=axis), 1), (
        f"softmax_forward, axis={axis}: expected sums of 1, got {got.sum(axis=axis)}"
    )
    rows, shares = (np.moveaxis(a, axis, -1).reshape(-1, shape[axis]) for a in (x, got))
    for row, share in zip(rows, shares, strict=True):
        expected = [np.exp(v) / sum(np.exp(row)) for v in row]
        assert np.allclose(share, expected), f"softmax of {row}: expected {expected}, got {share}"
    assert np.array_equal(x, before), "softmax_forward changed its input: subtract into a new array"
try:
    with np.errstate(all="raise", under="ignore"):
        got = np.asarray(softmax_forward(np.array([1000.0, 1001.0]), axis=0)).round(4).tolist()
except FloatingPointError as error:
    got = str(error)
assert got == [0.2689, 0.7311], (
    f"softmax of [1000, 1001]: expected that of [0, 1], [0.2689, 0.7311], got {got}: subtract the maximum"
)
### BEGIN HIDDEN TESTS
x = rng.normal(0, 5, (3, 4, 2))
for axis in (0, 1, 2, -2):
    got = np.asarray(softmax_forward(x, axis=axis))
    ratio = np.log(np.take(got, 0, axis=axis) / np.take(got, 1, axis=axis))
    assert np.allclose(ratio, np.take(x, 0, axis=axis) - np.take(x, 1, axis=axis)), (
        f"softmax, axis={axis}: log of a ratio of shares must be the difference of scores"
    )
    assert np.allclose(got.sum(axis=axis), 1), (
        f"softmax, axis={axis}: expected sums of 1, got {got.sum(axis=axis)}"
    )
try:
    with np.errstate(all="raise", under="ignore"):
        got = np.asarray(softmax_forward(np.array([[-1000.0, -1001.0], [5.0, 1e30]]), axis=1))
        got = got.round(4).tolist()
except FloatingPointError as error:
    got = str(error)
assert got == [[0.7311, 0.2689], [0, 1]], (
    f"softmax with one maximum a row: expected [[0.7311, 0.2689], [0, 1]], got {got}"
)
assert np.asarray(softmax_forward(x.astype(np.float32), axis=0)).dtype == np.float32, (
    "softmax_forward of float32: expected float32"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. GELU, as a chain
#
# ReLU has a corner at 0. GELU is its smooth relative: x times the probability that a standard normal number is
# below x. That probability has no simple formula, so its authors (Hendrycks and Gimpel, 2016) give one with tanh:
#
# $$\mathrm{gelu}(x) = 0.5\,x\,\bigl(1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715\,x^3))\bigr)$$
#
# Far right tanh is 1 and gelu(x) = x; far left tanh is -1 and gelu(x) = 0. In between, gelu(1) = 0.8412 and
# gelu(-1) = -0.1588. Their difference is 1, and gelu(x) - gelu(-x) = x for every x.
#
# ### Exercise: `gelu_chain`
# The formula as it stands, as a chain of NumPy operations over the whole array. This is the oracle for the fast
# version below, and its rival in the measurement. Not exported. Write sqrt(2/π) as the Python number
# `0.7978845608028654`, and x³ as `x * x * x`: NumPy's power function is made for any exponent, and slow.

# %% nbgrader={"grade_id": "gelu_chain", "solution": true}
def gelu_chain(x):
    """GELU in its tanh form, one operation after the other over the whole array."""
    ### BEGIN SOLUTION
    return 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
gelu_chain(np.array([-10.0, -1.0, 0.0, 1.0, 10.0])).round(4)

# %% nbgrader={"grade_id": "test-gelu_chain", "grade": true, "points": 2}
import math

x = np.linspace(-5, 5, 41)
got = np.asarray(gelu_chain(x))
exact = np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x])
assert np.allclose(got, exact, atol=1e-3), (
    f"gelu_chain: within 0.001 of the exact GELU, expected {exact[20:23]} at 0, 0.25, 0.5, got {got[20:23]}"
)
assert np.allclose(got - np.asarray(gelu_chain(-x)), x), "gelu_chain(x) - gelu_chain(-x): expected x"
### BEGIN HIDDEN TESTS
half = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
expected = x / (1 + np.exp(-2 * half))
assert np.allclose(got, expected, atol=1e-12), (
    f"gelu_chain: the tanh form exactly, expected {expected[20:23]}, got {got[20:23]}: "
    "check 0.044715 and sqrt(2/pi)"
)
assert np.asarray(gelu_chain(x.astype(np.float32))).dtype == np.float32, (
    "gelu_chain of float32: expected float32, use Python numbers"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Pieces that fit the cache
#
# Count what the chain does with an array of 100 MB. Each operation reads its input from main memory and writes its
# result there; with nine operations that is about 1.8 GB of traffic to produce 100 MB. Most of the time the processor
# waits for memory.
#
# Each core has a cache of its own, a few hundred kilobytes to a few megabytes, that answers many times faster. So
# take a piece of the array that fits, carry it through the *whole* chain, then take the next piece. The
# traffic to main memory drops to reading the input once and writing the result once.
#
# ### Exercise: `in_blocks`
# First for the simplest case: a one-dimensional array and one thread. By hand: seven elements in blocks of three
# are pieces of 3, 3 and 1. Not exported.

# %% nbgrader={"grade_id": "in_blocks", "solution": true}
def in_blocks(function, x, block):
    """`function(x)` on consecutive pieces, of at most `block` elements, of the one-dimensional array x."""
    ### BEGIN SOLUTION
    y = np.empty_like(x)
    for start in range(0, x.size, block):
        y[start : start + block] = function(x[start : start + block])
    return y
    ### END SOLUTION


# %% tags=["nbval-check-output"]
in_blocks(np.square, np.arange(7.0), block=3)

# %% nbgrader={"grade_id": "test-in_blocks", "grade": true, "points": 2}
for size, block in [(7, 3), (6, 3), (2, 5), (10, 1)]:
    x, sizes = np.random.default_rng(size).standard_normal(size), []
    got = np.asarray(in_blocks(lambda piece: sizes.append(piece.size) or np.exp(piece), x, block))
    assert got.shape == (size,) and np.allclose(got, np.exp(x)), (
        f"in_blocks, {size} elements by {block}: expected exp of each, got {got}"
    )
    expected = [min(block, size - start) for start in range(0, size, block)]
    assert sizes == expected, (
        f"in_blocks, {size} elements by {block}: expected pieces of {expected}, got {sizes}"
    )
### BEGIN HIDDEN TESTS
x = np.arange(5, dtype=np.float32)
got = np.asarray(in_blocks(lambda piece: piece - piece.sum(), x, 2))
assert got.tolist() == [-1, 0, -3, -2, 0], (
    f"in_blocks: each piece on its own, expected [-1, 0, -3, -2, 0], got {got.tolist()}"
)
assert got.dtype == np.float32 and x.tolist() == [0, 1, 2, 3, 4], (
    "in_blocks: expected the dtype of x, and x unchanged"
)
assert np.asarray(in_blocks(np.exp, np.zeros(0), 4)).shape == (0,), (
    "in_blocks of no elements: expected shape (0,)"
)
### END HIDDEN TESTS

# %% [markdown]
# ### The tools, given: threads and memory order
#
# Two things are missing. There is more than one core; and tensors have several dimensions, in whatever order their
# memory is in. Both are solved once, below, for all lessons to come. Read them slowly.
#
# `parallel_for(work, starts)` shares a list of starting points out over threads. Threads in Python normally take
# turns, because of the interpreter's lock, but NumPy lets go of the lock inside its loops, so pieces large enough
# really run side by side. Two traps are handled: BLAS has threads of its own, and two threads with two more inside
# each would only disturb one another; and a thread that waits for other threads of the same pool would wait
# forever, so a `parallel_for` inside a `parallel_for` runs in its own thread.

# %% nbgrader={"grade_id": "threads", "locked": true}
#| export
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


# %% tags=["nbval-check-output"]
squares = np.zeros(5)
parallel_for(lambda i: squares.__setitem__(i, i * i), range(5))
squares

# %% [markdown]
# `blockwise` brings arrays of any shape to this. It orders the dimensions by their strides, largest first, so that
# `reshape(-1)` is the row of numbers as it lies in memory: a view, no copy. (Only where an array has gaps, or another
# order than the first, does `reshape` copy.) The blocks of that row go to the threads, and the results are put
# back into the same order. So images keep their channels-last memory, as lesson 09 will want.
#
# The function that it calls gets blocks of the inputs and blocks of the outputs *to fill*.

# %% nbgrader={"grade_id": "blockwise", "locked": true}
#| export
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


# %% tags=["nbval-check-output"]
x = np.arange(6.0).reshape(2, 3).T
y = blockwise(lambda x, y: np.multiply(x, 10, out=y), x)
print(y, x.strides == y.strides)

# %% [markdown]
# ### Exercise: `gelu_block`
# GELU for `blockwise`, with two results: `y`, the GELU, and `t`, the tanh inside it, which the gradient will want
# again in lesson 05. Both are given as arrays to fill, and that is the point: a temporary array is memory that has
# to be fetched, so use `t` and `y` as your working space and make no other. `np.multiply(a, b, out=t)`, `t += 1`,
# `t *= x` and `np.tanh(t, out=t)` all work in place.
#
# A hint for the inside: x + 0.044715 x³ = x (1 + 0.044715 x²).

# %% nbgrader={"grade_id": "gelu_block", "solution": true}
#| export
def gelu_block(x, y, t):
    """Fill `t` with tanh(sqrt(2/pi) (x + 0.044715 x³)) and `y` with 0.5 x (1 + t); `x` stays as it is."""
    ### BEGIN SOLUTION
    np.multiply(x, x, out=t)
    t *= 0.044715
    t += 1
    t *= x
    t *= 0.7978845608028654  # sqrt(2 / pi)
    np.tanh(t, out=t)
    np.add(t, 1, out=y)
    y *= x
    y *= 0.5
    ### END SOLUTION


# %% nbgrader={"grade_id": "gelu_forward", "locked": true}
#| export
def gelu_forward(x):
    """GELU in its tanh form (Hendrycks and Gimpel, 2016), and the tanh, which the gradient needs again."""
    return blockwise(gelu_block, x, outputs=2)


# %% tags=["nbval-check-output"]
y, t = gelu_forward(np.array([-1.0, 0.0, 1.0]))
print(y.round(4), t.round(4))

# %% nbgrader={"grade_id": "test-gelu_block", "grade": true, "points": 4}
rng = np.random.default_rng(0)
x = rng.standard_normal(1000)
y, t = np.full(1000, 7.0), np.full(1000, 8.0)
before = x.copy()
gelu_block(x, y, t)
inside = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
assert np.array_equal(x, before), "gelu_block changed x: work in t and y"
expected = 1 - 2 / (1 + np.exp(2 * inside))
assert np.allclose(t, expected), f"t: expected the tanh, {expected[:3]}..., got {t[:3]}..."
expected = x / (1 + np.exp(-2 * inside))
assert np.allclose(y, expected), f"y: expected {expected[:3]}..., got {y[:3]}..."
### BEGIN HIDDEN TESTS
import tracemalloc

for shape, order in [((3, 4, 5), (0, 1, 2)), ((2, 50, 40, 30), (0, 3, 1, 2)), ((), ())]:
    x = rng.standard_normal(shape).astype(np.float32).transpose(order)
    got, t = (np.asarray(a) for a in gelu_forward(x))
    inside = np.sqrt(2 / np.pi) * (x.astype(np.float64) + 0.044715 * x.astype(np.float64) ** 3)
    expected = x / (1 + np.exp(-2 * inside))
    where = f"gelu_forward of shape {x.shape}"
    assert got.shape == x.shape, f"{where}: expected the same shape, got {got.shape}"
    assert np.allclose(got, expected, atol=1e-6), (
        f"{where}: expected {expected.flat[0]}..., got {got.flat[0]}..."
    )
    assert np.allclose(t, np.tanh(inside), atol=1e-6), (
        f"{where}: t, expected the tanh inside, got {t.flat[0]}..."
    )
    assert got.dtype == np.float32 and got.strides == x.strides, (
        f"{where}: expected float32 and strides {x.strides}, got {got.dtype} and {got.strides}"
    )
x = rng.standard_normal(100_000)
y, t = np.empty_like(x), np.empty_like(x)
tracemalloc.start()
gelu_block(x, y, t)
peak = tracemalloc.get_traced_memory()[1]
tracemalloc.stop()
assert peak < x.nbytes / 2, (
    f"gelu_block made arrays of {peak} bytes: expected none, use out= and in-place operators"
)
### END HIDDEN TESTS

# %% [markdown]
# ### One measurement: the chain against blocks
# Four million elements. All four ways compute the same function. Look at what blocks alone gain, with one thread
# and the same arithmetic, and what threads add. (On a busy machine times jump about; run it again.) `in_blocks` still
# makes temporaries, but small ones that stay in the cache.

# %% tags=["measure"]
import time


def best_of(run, repeats=9):
    """The shortest of several timings, in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) * 1000


# %% tags=["measure"]
x, cores = np.random.default_rng(0).standard_normal(4_000_000, dtype=np.float32), num_threads()
print(f"chain over the whole array    {best_of(lambda: gelu_chain(x)):7.1f} ms")
print(f"chain in blocks, one thread   {best_of(lambda: in_blocks(gelu_chain, x, BLOCK)):7.1f} ms")
for n in sorted({1, cores}):
    set_num_threads(n)
    print(f"gelu_forward, threads: {n:<6} {best_of(lambda: gelu_forward(x)):7.1f} ms")
set_num_threads(cores)

# %% [markdown]
# The last two do more than the first two: they also keep the tanh, a second array of the same size.
#
# ## 7. Activations on tensors
#
# Now the functions that networks call. Each sends its primitive through `apply`, so that lesson 05 can record it
# and find the gradient rule by the primitive's name.
#
# ### Exercise: `relu`, `sigmoid`, `tanh`, `gelu`, `softmax`
# One line each. The primitive of `tanh` is `np.tanh`. `softmax` passes its dimension on as `axis=`, by name.

# %% nbgrader={"grade_id": "functions", "solution": true}
#| export
def relu(x):
    """max(x, 0), element by element."""
    ### BEGIN SOLUTION
    return apply(relu_forward, x)
    ### END SOLUTION


def sigmoid(x):
    """1 / (1 + exp(-x)), element by element, without overflow."""
    ### BEGIN SOLUTION
    return apply(sigmoid_forward, x)
    ### END SOLUTION


def tanh(x):
    """The hyperbolic tangent, element by element."""
    ### BEGIN SOLUTION
    return apply(np.tanh, x)
    ### END SOLUTION


def gelu(x):
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x³))), the tanh form of GELU (Hendrycks and Gimpel, 2016)."""
    ### BEGIN SOLUTION
    return apply(gelu_forward, x)
    ### END SOLUTION


def softmax(x, dim=-1):
    """exp(x) / sum(exp(x)) along `dim`; the entries along it add up to 1."""
    ### BEGIN SOLUTION
    return apply(softmax_forward, x, axis=dim)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
x = Tensor([[-1, 0, 2]])
print(relu(x), sigmoid(x), tanh(x))
print(gelu(x), softmax(x))

# %% nbgrader={"grade_id": "test-functions", "grade": true, "points": 3}
rng = np.random.default_rng(0)
a = rng.standard_normal((3, 4))
x, e = Tensor(a), np.exp(a)
for name, got, expected in [
    ("relu", relu(x), (a + abs(a)) / 2),
    ("sigmoid", sigmoid(x), e / (1 + e)),
    ("tanh", tanh(x), (e - 1 / e) / (e + 1 / e)),
    ("softmax", softmax(x), e / e.sum(1, keepdims=True)),
    ("softmax(dim=0)", softmax(x, dim=0), e / e.sum(0, keepdims=True)),
    ("gelu", gelu(x), a / (1 + np.exp(-2 * 0.7978845608028654 * (a + 0.044715 * a**3)))),
]:
    got = np.asarray(got.numpy())
    assert got.shape == (3, 4) and np.allclose(got, expected, atol=1e-6), (
        f"{name}: expected {expected[0]} in row 0, got {got[0]}"
    )
### BEGIN HIDDEN TESTS
seen = []
set_recorder(lambda primitive, inputs, params, out, y: seen.append((primitive.__name__, dict(params))), None)
for function in (relu, sigmoid, tanh, gelu, softmax):
    function(x)
set_recorder(None, None)
expected = ["relu_forward", "sigmoid_forward", "tanh", "gelu_forward", "softmax_forward"]
assert [name for name, _ in seen] == expected, f"apply saw {[name for name, _ in seen]}: expected {expected}"
assert seen[-1][1] == {"axis": -1}, f"softmax: expected the parameters {{'axis': -1}}, got {seen[-1][1]}"
images = Tensor(rng.standard_normal((2, 5, 5, 3)).transpose(0, 3, 1, 2), dtype=np.float64)
for name, function in [("relu", relu), ("sigmoid", sigmoid), ("tanh", tanh), ("gelu", gelu)]:
    got = function(images).numpy()
    assert got.strides == images.numpy().strides and got.dtype == np.float64, (
        f"{name}: expected memory order and dtype of its input"
    )
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: as objects
# Networks are often lists of layers, so each function also comes as an object: `Sequential(Linear(4, 8), ReLU())`.
# The four without settings are given. Write `Softmax`, which keeps its dimension and shows it.

# %% nbgrader={"grade_id": "objects", "locked": true}
#| export
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


# %% nbgrader={"grade_id": "softmax-object", "solution": true}
#| export
class Softmax:
    """Shares that add up to 1 along `dim`, as a layer. It prints as `Softmax(dim=-1)`."""

    def __init__(self, dim=-1):
        ### BEGIN SOLUTION
        self.dim = dim
        ### END SOLUTION

    def __call__(self, x):
        ### BEGIN SOLUTION
        return softmax(x, self.dim)
        ### END SOLUTION

    def __repr__(self):
        ### BEGIN SOLUTION
        return f"Softmax(dim={self.dim})"
        ### END SOLUTION


# %% tags=["nbval-check-output"]
print([ReLU(), GELU(), Softmax(dim=1)])
print(Softmax()(Tensor([[0, 0], [5, 5]])))

# %% nbgrader={"grade_id": "test-softmax-object", "grade": true, "points": 2}
a = np.random.default_rng(0).standard_normal((3, 4))
for layer, axis in [(Softmax(), 1), (Softmax(dim=0), 0), (Softmax(1), 1)]:
    got, expected = np.asarray(layer(Tensor(a)).numpy()), np.exp(a) / np.exp(a).sum(axis, keepdims=True)
    assert np.allclose(got, expected, atol=1e-6), f"{layer}: expected {expected[0]} in row 0, got {got[0]}"
assert repr(Softmax(dim=0)) == "Softmax(dim=0)", f"repr: expected Softmax(dim=0), got {repr(Softmax(dim=0))}"

# %% [markdown]
# ### One figure: the functions and their slopes
# The slopes are computed with your `slope`.

# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import explore, show

x = np.linspace(-5, 5, 401)
lines = [
    ("ReLU", relu_forward), ("sigmoid", sigmoid_forward), ("tanh", np.tanh), ("GELU", gelu_chain)
]
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
for name, f in lines:
    for ax, y in zip(axes, (f(x), slope(f, x)), strict=True):
        ax.plot(x, y, label=name)
axes[0].set(title="the function", xlabel="x", ylabel="f(x)", ylim=(-1.2, 3))
axes[1].set(title="its slope", xlabel="x", ylabel="change of f(x) for each x")
axes[0].legend()
show(
    figure,
    alt="Two panels over x from -5 to 5. Left: ReLU and GELU are near 0 on the left and follow x on the right, GELU "
    "dipping slightly below 0 near -0.75; sigmoid rises from 0 to 1, tanh from -1 to 1. Right, their slopes: ReLU's "
    "jumps from 0 to 1, GELU's overshoots 1 a little; tanh's and sigmoid's are hills of height 1 and 1/4.",
)

# %% [markdown]
# GELU dips a little below 0, and its slope overshoots 1. The slopes of tanh and sigmoid are hills of height 1 and
# 1/4 that fall to 0 on both sides: far from 0 a change of x hardly arrives.
#
# The slope at one place is that of the straight line which touches the curve there. Move `x`: where do all four let
# hardly anything through, and which of them let nothing through?


# %% tags=["measure"]
def touching(function="GELU", x=1.0):
    """The figure of one function with the straight line that touches it at x, and its text alternative."""
    f = {"ReLU": relu_forward, "sigmoid": sigmoid_forward, "tanh": np.tanh, "GELU": gelu_chain}[function]
    places = np.linspace(-5, 5, 401)
    y, steep = float(f(np.array([x]))[0]), float(slope(f, np.array([x]))[0])
    figure, axes = plt.subplots()
    axes.plot(places, f(places), label=function)
    axes.plot(places, y + steep * (places - x), label=f"slope {steep:.3f}")
    axes.plot([x], [y], "ko")
    axes.set(xlabel="x", ylabel="f(x)", xlim=(-5, 5), ylim=(-1.5, 3))
    axes.legend(loc="upper left")
    return figure, f"{function} from -5 to 5. At x = {x:.1f} it is {y:.3f}, and the touching line has slope {steep:.3f}."


explore(touching, function=["ReLU", "sigmoid", "tanh", "GELU"], x=(-5.0, 5.0, 0.1))

# %% [markdown]
# ## 8. What breaks
#
# **Slopes that multiply to nothing.** The sigmoid's slope is never above 1/4. A gradient passing ten sigmoid layers is
# multiplied by at most (1/4)^10, about a millionth, before any weight is counted. GELU and ReLU let far more through.

# %% tags=["nbval-check-output"]
for name, f in (("sigmoid", sigmoid_forward), ("GELU", gelu_chain), ("ReLU", relu_forward)):
    print(f"{name:8} slope at 0.5, ten times over: {slope(f, np.array([0.5]))[0] ** 10:.7f}")

# %% [markdown]
# **Softmax along the wrong dimension.** No error, and every column adds up to 1 where every row should: each example's
# shares now depend on the other examples in the batch. Print the sums when in doubt.

# %% tags=["nbval-check-output"]
logits = Tensor([[1, 2, 3], [1, 2, 3]])
print(softmax(logits, dim=0)[0], softmax(logits, dim=0).sum(dim=1))
print(softmax(logits, dim=1)[0], softmax(logits, dim=1).sum(dim=1))

# %% [markdown]
# **The textbook softmax.** Infinity over infinity is not a number, and one NaN in the loss is a NaN in every weight
# after the next step.

# %% tags=["nbval-check-output"]
scores = np.array([1000.0, 1001.0])
with np.errstate(over="ignore", invalid="ignore"):
    print(np.exp(scores) / np.exp(scores).sum())
print(softmax_forward(scores, axis=0).round(4))

# %% [markdown]
# **A constant of the wrong type.** `np.sqrt(2 / np.pi)` is a float64 number, and times a float32 array it gives float64:
# twice the memory and slower, without a word. Python's own numbers adapt to the array.

# %% tags=["nbval-check-output"]
x = np.ones(3, np.float32)
print((x * np.sqrt(2 / np.pi)).dtype, (x * 0.7978845608028654).dtype)

# %% [markdown]
# ## Exercises
# Ungraded; try them in cells of your own.
#
# 1. Run the measurement with blocks of 1,000, 10,000, 100,000 and 1,000,000 elements in `in_blocks`. Where is the best
#    size, and what is lost at either end? Compare with the size of your processor's cache.
# 2. Add `silu(x) = x * sigmoid(x)` as a block function with `blockwise`. How far apart are SiLU and GELU?
# 3. `sigmoid_forward(np.float32(-20))` is 0, the true value 2e-9. Where does the tanh form lose it? Write a version that
#    keeps it, with `np.exp(-np.abs(x))`, and time both.
# 4. A ReLU whose input is negative for every example has slope 0 everywhere and never learns again. Draw 1,000 random
#    units with `np.random.default_rng(0)` and a bias of -3: how many of them are dead on a batch of 100?
# 5. Why does `parallel_for` hand out `starts[k::n]`, every n-th start, and not n equal stretches? Think of work that gets
#    slower towards the end.
#
# ## Elsewhere
#
# - PyTorch computes the exact GELU with erf by default; ours is `torch.nn.functional.gelu(x, approximate="tanh")`.
#   `jax.nn.gelu` uses the tanh form, as we do.
# - PyTorch's activations are loops in C++ with vector instructions, each passing over memory once; its compiler and
#   JAX's XLA go further and *fuse* neighbouring operations into one loop. `blockwise` gets part of that by hand.
# - PyTorch has `inplace=True` for ReLU, which saves an array and overwrites the input that others may need.
# - Both have `log_softmax`, which keeps small probabilities that softmax rounds to 0. You build it in lesson 04.
#
# ## Summary
#
# - An activation bends the line. Its slope decides how much of a gradient gets through: at most 1/4 for the sigmoid, 1
#   for an active ReLU.
# - The same function can have a formula that overflows and one that does not: tanh for the sigmoid, subtracting the
#   maximum for softmax.
# - An element-wise chain is bound by memory. In blocks that fit the cache it goes to memory twice instead of twice for
#   every operation.
# - Threads help NumPy because it releases the interpreter's lock in its loops; the pieces must be large enough.
# - Element-wise results keep the dtype and the memory order of their input.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/activations.py`;
# `tito module complete 02` in a terminal does the same. Lesson 03 gives them layers to stand between.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
