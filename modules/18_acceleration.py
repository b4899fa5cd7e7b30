# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 18 Acceleration
#
# > Faster inference and training: rooflines, blocks that fit the cache, fused layers, Winograd's convolution.
#
# Your network is right. In this lesson it becomes faster without becoming different: first you measure what this
# machine can do at all, then you bring the convolution closer to that, and at the end `accelerate(model)` does it
# for a whole model. Every fast path is held against the slow one of lesson 09 before anybody looks at a clock.
#
# **Why it matters to a system.** There are only three ways to be faster: move less, compute less, or wait less.
# Fused layers move less, Winograd's transform computes less, threads wait less. The roofline tells which of the
# three is worth your time.
#
# **You need** threads (02), `Module` (03), `no_grad` (05) and convolution (09).
#
# The words are those of lesson 09: `x` images (N, C, H, W), `w` filters (O, C, KH, KW), `b` a bias (O,), and OH, OW
# the size of the result. A *tile* is the 2×2 patch of the result that Winograd's transform computes at once.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 18

# %%
#| export
import time

import numpy as np

from tinytorch.activations import GELU, ReLU, gelu_block, num_threads, parallel_for
from tinytorch.autograd import is_grad_enabled
from tinytorch.layers import Module, Sequential
from tinytorch.spatial import (
    BatchNorm2d,
    Conv2d,
    MaxPool2d,
    channels_first,
    channels_last,
    filter_matrix,
    output_size,
    pad,
    pair,
    scratch,
    set_convolution,
    sliding_windows,
)
from tinytorch.tensor import apply

# %% nbgrader={"grade_id": "tools", "locked": true}
import tempfile
from pathlib import Path

from tinytorch.autograd import no_grad
from tinytorch.layers import Flatten, Linear, load, save
from tinytorch.spatial import conv2d_forward, conv2d_naive, max_pool2d_forward
from tinytorch.tensor import Tensor, manual_seed

rng = np.random.default_rng(0)


def images_of(*shape, seed=0):
    """Random images of this shape, in float64, so that rounding hides no mistake."""
    return np.random.default_rng(seed).standard_normal(shape)


# %% [markdown]
# ## 1. Two roofs
#
# A processor can do a certain number of operations a second, its *peak*, and memory can bring a certain number of
# bytes a second, its *bandwidth*. A piece of work needs both. How many operations it does for each byte it moves
# is its *intensity*. Adding two arrays of float32 reads 8 bytes, writes 4 and does one addition: 1/12.
#
# By hand: with a peak of 100 GFLOP/s and a bandwidth of 10 GB/s, work of intensity 2 can get at most 2 · 10 = 20
# GFLOP/s, since the bytes do not come any faster. With intensity 50 the bytes would allow 500, and the peak is the
# limit: 100. The lower of the two roofs counts.

# %% nbgrader={"grade_id": "attainable", "solution": true}
#| export
def attainable(intensity, peak, bandwidth):
    """The highest rate, in GFLOP/s, for work of `intensity` FLOP a byte: the lower of the two roofs.

    `peak` is in GFLOP/s, `bandwidth` in GB/s; numbers or arrays. Example: attainable(2, 100, 10) is 20.
    Source: Williams, Waterman and Patterson, "Roofline", 2009.
    """
    ### BEGIN SOLUTION
    return np.minimum(peak, intensity * bandwidth)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(float(attainable(2, 100, 10)), float(attainable(50, 100, 10)))

# %% nbgrader={"grade_id": "test-attainable", "grade": true, "points": 1}
for intensity, peak, bandwidth, wanted in [(2, 100, 10, 20), (50, 100, 10, 100), (10, 100, 10, 100)]:
    got = float(attainable(intensity, peak, bandwidth))
    assert np.isclose(got, wanted), (
        f"attainable({intensity}, {peak}, {bandwidth}): expected {wanted}, got {got}; the lower roof is the limit"
    )
### BEGIN HIDDEN TESTS
for intensity, peak, bandwidth, wanted in [(0.25, 64, 20, 5), (3, 7, 5, 7)]:
    got = float(attainable(intensity, peak, bandwidth))
    assert np.isclose(got, wanted), f"attainable({intensity}, {peak}, {bandwidth}): expected {wanted}, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# How much does a convolution do and move? Every output number takes C · KH · KW multiplications and as many
# additions. At the least it reads the images and the filters once and writes the result once. Count both, with
# `output_size(size, kernel, stride, padding)` of lesson 09.

# %% nbgrader={"grade_id": "conv2d-cost", "solution": true}
#| export
def conv2d_cost(shape, kernels, stride=1, padding=0, itemsize=4):
    """(operations, bytes) of a convolution: multiplications and additions, and each array moved once.

    `shape` is that of the images (N, C, H, W), `kernels` that of the filters (O, C, KH, KW); no bias.
    Example: conv2d_cost((1, 1, 1, 4), (1, 1, 1, 2)) is (12, 36): three outputs of two products each.
    """
    N, C, H, W = shape
    O, _, KH, KW = kernels
    ### BEGIN SOLUTION
    OH, OW = output_size(H, KH, stride, padding), output_size(W, KW, stride, padding)
    operations = 2 * N * O * OH * OW * C * KH * KW
    return operations, itemsize * (N * C * H * W + O * C * KH * KW + N * O * OH * OW)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(conv2d_cost((1, 1, 1, 4), (1, 1, 1, 2)))
for C, O, kernel in [(3, 24, 2), (64, 256, 3), (64, 256, 1)]:
    operations, moved = conv2d_cost((250, C, 15, 15), (O, C, kernel, kernel), padding=kernel // 2)
    print(f"{C:3} -> {O:3}, kernel {kernel}: {operations / moved:6.1f} FLOP a byte")

# %% nbgrader={"grade_id": "test-conv2d-cost", "grade": true, "points": 2}
def cost_agrees(shape, kernels, stride, padding, itemsize):
    y = conv2d_naive(np.zeros(shape), np.zeros(kernels), None, stride, padding)
    wanted = 2 * y.size * kernels[1] * kernels[2] * kernels[3]
    moved = itemsize * (np.zeros(shape).size + np.zeros(kernels).size + y.size)
    got = tuple(int(v) for v in conv2d_cost(shape, kernels, stride, padding, itemsize))
    assert got == (wanted, moved), (
        f"conv2d_cost({shape}, {kernels}, {stride}, {padding}, {itemsize}): expected {(wanted, moved)}, got {got}"
    )


cost_agrees((1, 1, 1, 4), (1, 1, 1, 2), 1, 0, 4)
cost_agrees((2, 3, 7, 6), (4, 3, 3, 2), 1, 1, 4)
### BEGIN HIDDEN TESTS
cost_agrees((2, 3, 7, 6), (4, 3, 3, 2), 2, 1, 8)
cost_agrees((3, 2, 9, 5), (5, 2, 1, 1), 3, 0, 2)
### END HIDDEN TESTS

# %% [markdown]
# ### Measured, not looked up
#
# The two numbers of a machine come from two pieces of work: a large matrix product moves little for what it
# computes, and copying a large array computes nothing. Each is timed several times. The first run is thrown away
# (memory is mapped, clocks speed up), and of the others the *shortest* counts: nothing makes a processor faster than
# it is, and all sorts of things make it slower.
#
# Write `best_rate`: call `work()` once without looking at the clock, then `repeats` times between two calls of
# `clock()`, and divide `amount` by the shortest time. The clock is a parameter, so that a test can bring its own.

# %% nbgrader={"grade_id": "best-rate", "solution": true}
#| export
def best_rate(work, amount, repeats=5, clock=time.perf_counter):
    """`amount` a second of the fastest of `repeats` runs of `work()`, after one that is not timed."""
    ### BEGIN SOLUTION
    work()
    times = []
    for _ in range(repeats):
        start = clock()
        work()
        times.append(clock() - start)
    return amount / min(times)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-best-rate", "grade": true, "points": 2}
def rate_of(durations, amount):
    """best_rate of a work that takes `durations` on a clock of our own, and how often the work was called."""
    now, calls = [100.0], [0]

    def work():
        now[0] += durations[min(calls[0], len(durations) - 1)]
        calls[0] += 1

    got = best_rate(work, amount, repeats=len(durations) - 1, clock=lambda: now[0])
    return float(got), calls[0]


for durations, amount, wanted in [([9, 2, 2, 2], 10, 5), ([1, 8, 4, 5], 12, 3)]:
    got, calls = rate_of(durations, amount)
    assert calls == len(durations), f"best_rate: expected {len(durations)} calls of work (one not timed), got {calls}"
    assert np.isclose(got, wanted), (
        f"best_rate: runs of {durations} s, the first not timed, amount {amount}: expected {wanted}, got {got}"
    )
### BEGIN HIDDEN TESTS
got, calls = rate_of([0.5, 3, 2.5, 7, 4, 6], 5)
assert calls == 6 and np.isclose(got, 2), f"best_rate: expected 6 calls and a rate of 2, got {calls} and {got}"
### END HIDDEN TESTS

# %% [markdown]
# The two measurements are given. Both use all threads. A copy reads and writes: two bytes move for each that is copied.

# %%
#| export
def measure_peak(size=1024, repeats=5):
    """GFLOP/s of a float32 matrix product size x size on all threads; one product for each thread."""
    a, b = np.ones((2, size, size), np.float32)
    results = [np.empty_like(a) for _ in range(num_threads())]

    def work():
        parallel_for(lambda k: np.matmul(a, b, out=results[k]), range(num_threads()))

    return best_rate(work, 2 * size**3 * num_threads() / 1e9, repeats)


# %%
#| export
def measure_bandwidth(megabytes=64, repeats=5):
    """GB/s that memory moves while an array of `megabytes` is copied by all threads."""
    source = np.ones((num_threads(), megabytes * 250_000 // num_threads()), np.float32)
    target = np.empty_like(source)

    def work():
        parallel_for(lambda k: np.copyto(target[k], source[k]), range(num_threads()))

    return best_rate(work, 2 * source.nbytes / 1e9, repeats)


# %% tags=["measure"]
peak, bandwidth = measure_peak(), measure_bandwidth()
print(f"peak {peak:.0f} GFLOP/s, bandwidth {bandwidth:.1f} GB/s, the roofs meet at {peak / bandwidth:.0f} FLOP a byte")

# %% [markdown]
# The figure puts a few pieces of work under the roofs: where each is, and how high it could be.

# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import show

a, c = rng.standard_normal((64, 64, 15, 15)).astype(np.float32), rng.standard_normal((256, 64, 3, 3)).astype(np.float32)
thin = rng.standard_normal((64, 64, 1, 1)).astype(np.float32)
points = {}
for name, filters, padding in [("conv 3×3, 64→256", c, 1), ("conv 1×1, 64→64", thin, 0)]:
    operations, moved = conv2d_cost(a.shape, filters.shape, 1, padding)
    rate = best_rate(lambda: conv2d_forward(a, filters, None, 1, padding), operations / 1e9, 3)
    points[name] = operations / moved, rate
long, total = np.ones((2, 16_000_000), np.float32), np.empty(16_000_000, np.float32)  # too long for any cache
points["addition"] = 1 / 12, best_rate(lambda: np.add(*long, out=total), total.size / 1e9, 3)

# %% tags=["measure"]
figure, axes = plt.subplots(figsize=(7, 3.8))
line = np.logspace(-2, 3, 100)
axes.loglog(line, attainable(line, peak, bandwidth), label="attainable")
for name, (intensity, rate) in points.items():
    axes.plot(intensity, rate, "o", color="#D55E00")
    aside, side = (4, "left") if intensity < 1 else (20 if intensity > 50 else 0, "center")  # clear of each other
    axes.annotate(name, (intensity, rate), xytext=(aside, -17), textcoords="offset points", ha=side)
axes.set(xlabel="FLOP a byte", ylabel="GFLOP/s", title="the roofline of this machine")
told = "; ".join(f"{name} at {x:.2g} FLOP a byte reaches {y:.3g} GFLOP/s of {attainable(x, peak, bandwidth):.3g}"
                 for name, (x, y) in points.items())  # fmt: skip
show(
    figure,
    alt="A rising line, the bandwidth, that bends into a level one, the peak; both axes logarithmic. Three points lie "
    f"near or below it: {told}.",
)

# %% [markdown]
# The addition, of two arrays that no cache holds, can only become faster by moving less. (It may touch its roof or pass
# it by a little: the roof was measured with a copy, which writes more of what it moves, and writing costs more.) The
# wide convolution stands under the level roof: only with less arithmetic could it go through. Sections 3 and 4 do one
# of these each.
#
# ## 2. Blocks and threads
#
# The cache beside a core holds one or two million bytes and answers many times as fast as memory does. Work in
# several steps should therefore do all steps on one *block* before it begins the next: between the steps the block
# is still there. How many images are in a block?
#
# - Their scratch memory, `bytes_per_image` each, should fit into `budget` bytes together.
# - No thread should be left without a block: at most N / threads images, rounded up.
# - At least one.
#
# By hand: 250 images of 300 KB, a budget of 1 MB, 2 threads: three fit. 4 images on 2 threads: two, so that both
# work. One image of 5 MB: one, it does not fit, but what else?

# %% nbgrader={"grade_id": "block-size", "solution": true}
#| export
def block_size(N, bytes_per_image, budget, threads):
    """How many of N images a block has. Example: block_size(250, 300_000, 1_000_000, 2) is 3."""
    ### BEGIN SOLUTION
    fair = -(-N // threads)  # rounded up
    return max(1, min(budget // bytes_per_image, fair))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(block_size(250, 300_000, 1_000_000, 2), block_size(4, 300_000, 1_000_000, 2), block_size(1, 5_000_000, 1_000_000, 2))

# %% nbgrader={"grade_id": "test-block-size", "grade": true, "points": 1}
for case, wanted in [((250, 300_000, 1_000_000, 2), 3), ((4, 300_000, 1_000_000, 2), 2), ((1, 5_000_000, 1_000_000, 2), 1)]:
    got = int(block_size(*case))
    assert got == wanted, f"block_size{case}: expected {wanted}, got {got}"
### BEGIN HIDDEN TESTS
for case, wanted in [((7, 10, 1000, 2), 4), ((7, 10, 1000, 3), 3), ((0, 10, 1000, 2), 1), ((90, 250, 1000, 4), 4)]:
    got = int(block_size(*case))
    assert got == wanted, f"block_size{case}: expected {wanted}, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# Now hand the blocks out. `parallel_for(work, starts)` calls `work(start)` for every start, shared out over the
# threads. Write `over_blocks`, which calls `work(block)` with a slice for each block of `step` images; the last one
# may be smaller, and its slice ends at N.

# %% nbgrader={"grade_id": "over-blocks", "solution": true}
#| export
def over_blocks(work, N, step):
    """Call `work(slice)` for blocks of `step` of N images, on all threads.

    Example: N = 5, step = 2 gives slice(0, 2), slice(2, 4) and slice(4, 5), in any order.
    """
    ### BEGIN SOLUTION
    parallel_for(lambda n: work(slice(n, min(n + step, N))), range(0, N, step))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
blocks = []
over_blocks(blocks.append, 5, 2)
print(sorted((block.start, block.stop) for block in blocks))

# %% nbgrader={"grade_id": "test-over-blocks", "grade": true, "points": 1}
def blocks_agree(N, step):
    seen = []
    over_blocks(lambda block: seen.append((int(block.start), int(block.stop))), N, step)
    wanted = [(n, min(n + step, N)) for n in range(0, N, step)]
    assert sorted(seen) == wanted, f"over_blocks of {N} by {step}: expected {wanted}, got {sorted(seen)}"


blocks_agree(5, 2)
blocks_agree(6, 3)
### BEGIN HIDDEN TESTS
blocks_agree(1, 4)
blocks_agree(0, 4)
blocks_agree(23, 1)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Fused layers: one pass instead of four
#
# A convolution, a pooling, a batch normalisation and a GELU make four results, and each goes out to memory and comes
# back. For inference nobody needs the ones between. So a block goes through all four while it is in the cache, and
# only the last result is written.
#
# First, the normalisation nearly disappears. In evaluation its mean and variance are fixed numbers, so that it is a
# straight line per channel, `y = scale * x + shift`. With gamma 6, beta 1, mean 2, variance 9 and eps 0, x = 5
# gives (5 - 2) / 3 · 6 + 1 = 7; the line is 2x - 3.

# %% nbgrader={"grade_id": "batch-norm-line", "solution": true}
#| export
def batch_norm_line(gamma, beta, mean, var, eps):
    """Batch normalisation in evaluation as (scale, shift), two arrays (C,): y = scale * x + shift."""
    ### BEGIN SOLUTION
    scale = gamma / np.sqrt(var + eps)
    return scale, beta - scale * mean
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(*batch_norm_line(*np.array([[6.0], [1], [2], [9]]), eps=0))

# %% [markdown]
# Second, a line after a convolution without pooling is a convolution: every output is a sum of products plus a
# bias, and `scale` can go into the factors. Which dimension of the filters (O, C, KH, KW) does it belong to?

# %% nbgrader={"grade_id": "fold-line", "solution": true}
#| export
def fold_line(w, b, scale, shift):
    """Filters and bias that do `scale * (convolution of w and b) + shift` at once; b may be None."""
    ### BEGIN SOLUTION
    folded = w * scale[:, None, None, None]
    return folded, shift if b is None else scale * b + shift
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-fold", "grade": true, "points": 2}
def fold_agrees(O, C, eps, bias):
    draw = np.random.default_rng(3)
    x, w, b = images_of(2, C, 5, 4), draw.standard_normal((O, C, 3, 2)), draw.standard_normal(O) if bias else None
    gamma, beta, mean, var = *draw.standard_normal((3, O)), draw.uniform(0.5, 2, O)
    column = (slice(None), None, None)
    y = conv2d_naive(x, w, b)
    wanted = (y - mean[column]) / np.sqrt(var[column] + eps) * gamma[column] + beta[column]
    scale, shift = (np.array(v) for v in batch_norm_line(gamma, beta, mean, var, eps))
    line = scale[column] * y + shift[column]
    assert np.allclose(line, wanted), (
        f"batch_norm_line: expected {wanted.ravel()[:3].round(4)}, the line gives {line.ravel()[:3].round(4)}"
    )
    got = conv2d_naive(x, *(np.array(v) for v in fold_line(w, b, scale, shift)))
    assert np.allclose(got, wanted), (
        f"fold_line, bias {bias}: expected {wanted.ravel()[:3].round(4)}, got {got.ravel()[:3].round(4)}; "
        "the old bias is scaled too"
    )


fold_agrees(3, 2, 1e-5, False)
### BEGIN HIDDEN TESTS
fold_agrees(2, 2, 0.5, True)
fold_agrees(4, 3, 0.1, True)
### END HIDDEN TESTS

# %% [markdown]
# A pooling between the two is in the way: the largest of four numbers is not the largest any more once a negative
# scale has turned them around. There the line stays, but after the pooling it meets a quarter of the numbers.
#
# Third, the end of the block. `z` (n, OH, OW, O) is the convolution's result in scratch memory, where it may be
# changed. In this order:
#
# 1. If `pool` is more than one, the largest of each pool × pool window. Windows do not overlap, and OH, OW are
#    multiples of `pool`: `z[:, i::pool, j::pool]` is entry i, j of every window.
# 2. Times `scale` (O,), if there is one; plus `b` (O,), if there is one. Both change the array in place.
# 3. The activation, `activate(z, out, memory)`, which fills `out` (n, OH / pool, OW / pool, O) from z. It is given.
#
# `np.maximum(a, b, out=c)` makes no new array. Step 3 is written; you write 1 and 2, so that after them `z` is the
# pooled, scaled and shifted array.

# %%
#| export
ACTIVATIONS = {  # (z, out, memory) fill `out`; all three of one shape
    None: lambda z, out, memory: np.copyto(out, z),
    "relu": lambda z, out, memory: np.maximum(z, 0, out=out),
    "gelu": gelu_block,
}


# %% nbgrader={"grade_id": "finish-block", "solution": true}
#| export
def finish_block(z, out, pool=1, scale=None, b=None, activation=None):
    """Fill `out` with the activation of scale * (max-pool of z) + b; z, in scratch memory, is used up.

    Shapes: z (n, OH, OW, O), out (n, OH / pool, OW / pool, O), scale and b (O,) or None.
    """
    ### BEGIN SOLUTION
    if pool > 1:
        largest = scratch("largest", out.shape, z.dtype)
        largest[...] = z[:, ::pool, ::pool]
        for k in range(1, pool * pool):
            np.maximum(largest, z[:, k // pool :: pool, k % pool :: pool], out=largest)
        z = largest
    if scale is not None:
        z *= scale
    if b is not None:
        z += b
    ### END SOLUTION
    ACTIVATIONS[activation](z, out, scratch("memory", out.shape, z.dtype))


# %% tags=["nbval-check-output"]
out = np.empty((1, 1, 2, 1))
finish_block(np.array([[1.0, 2, 5, 6], [4, 3, 8, 7]]).reshape(1, 2, 4, 1), out, 2, np.array([-1.0]), np.array([5.0]), "relu")
print(out.ravel())  # the largest are 4 and 8; 5 - 4 and 5 - 8; what is negative becomes 0

# %% nbgrader={"grade_id": "test-finish-block", "grade": true, "points": 2}
def end_agrees(shape, pool, with_scale, with_b, activation):
    draw = np.random.default_rng(4)
    z, (n, OH, OW, O) = draw.standard_normal(shape), shape
    scale, b = draw.standard_normal(O) if with_scale else None, draw.standard_normal(O) if with_b else None
    wanted = z.reshape(n, OH // pool, pool, OW // pool, pool, O).max(axis=(2, 4))
    wanted = wanted * (scale if with_scale else 1) + (b if with_b else 0)
    if activation == "relu":
        wanted = np.where(wanted > 0, wanted, 0)
    if activation == "gelu":
        wanted = wanted / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (wanted + 0.044715 * wanted**3)))
    got = np.full(wanted.shape, np.nan)
    finish_block(z.copy(), got, pool, scale, b, activation)
    at = np.unravel_index(np.nan_to_num(np.abs(got - wanted), nan=np.inf).argmax(), wanted.shape)
    assert np.allclose(got, wanted), (
        f"finish_block of {shape}, pool {pool}, scale {with_scale}, b {with_b}, {activation}: "
        f"at {[int(i) for i in at]} expected {wanted[at]:.4f}, got {got[at]:.4f}; pool first, then scale, then b"
    )


end_agrees((2, 4, 6, 3), 1, True, True, None)
end_agrees((2, 4, 6, 3), 2, True, True, "relu")
### BEGIN HIDDEN TESTS
end_agrees((1, 6, 3, 4), 3, False, True, "gelu")
end_agrees((3, 2, 2, 5), 2, True, False, None)
end_agrees((3, 2, 4, 2), 1, False, False, "gelu")
### END HIDDEN TESTS

# %% [markdown]
# The pass itself comes in section 5, once there are two ways to get `z`. Here is the first one, which you know:
# im2col and a product. One thing is new. A pooling of 2 over 15×15 numbers looks at 14×14 of them; the last row and
# column are used by nobody, and so they are not computed. Of 7×7 that saves more than a quarter.

# %%
#| export
def product_block(images, matrix, kernel, stride, padding, OH, OW):
    """The first OH x OW positions of a convolution of images (n, H, W, C): z (n, OH, OW, O) in scratch.

    `matrix` is the filter_matrix of the filters, `padding` a pair.
    """
    windows = sliding_windows(pad(images, *padding), *kernel, stride)[:, :OH, :OW]
    col = scratch("im2col", windows.shape, images.dtype)
    col[...] = windows
    z = scratch("z", (len(images), OH, OW, matrix.shape[1]), images.dtype)
    np.matmul(col.reshape(-1, len(matrix)), matrix, out=z.reshape(-1, matrix.shape[1]))
    return z


# %% [markdown]
# ## 4. Winograd: fewer multiplications
#
# A 3×3 filter at four neighbouring positions (a tile of 2×2 outputs) takes 4 · 9 = 36 multiplications a channel. They
# share most of their pixels: a patch of 4×4. Winograd's transform gets the same four numbers with 16.
#
# First in one dimension: pixels d0 d1 d2 d3, a filter g0 g1 g2, two outputs, six multiplications. Instead compute
#
# ```
# m0 = (d0 - d2) g0                     y0 = m0 + m1 + m2
# m1 = (d1 + d2) (g0 + g1 + g2) / 2     y1 = m1 - m2 - m3
# m2 = (d2 - d1) (g0 - g1 + g2) / 2
# m3 = (d1 - d3) g2
# ```
#
# By hand, with pixels 1 2 3 4 and filter 1 10 0: m0 = -2 · 1, m1 = 5 · 5.5, m2 = 1 · (-4.5), m3 = 0. So y0 = -2 + 27.5 -
# 4.5 = 21 and y1 = 27.5 + 4.5 - 0 = 32, as the window of lesson 09 said. Four multiplications; the halves of g are
# computed once for all pixels.
#
# Three matrices hold the signs: `BT` turns d into its four differences, `G` turns g into four factors, and `AT` adds the
# products up: y = AT ((G g) · (BT d)). In two dimensions each acts on rows and on columns:
#
# $$Y = A^T \left[ (G\, g\, G^T) \odot (B^T d\, B) \right] A$$

# %%
#| export
BT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32)
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
AT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)

# %% tags=["nbval-check-output"]
print(AT @ ((G @ [1, 10, 0]) * (BT @ [1, 2, 3, 4])))

# %% nbgrader={"grade_id": "winograd-tile", "solution": true}
#| export
def winograd_tile(d, g):
    """The 2x2 outputs of the patch d (4, 4) and the filter g (3, 3), with 16 multiplications of the two.

    Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016.
    """
    ### BEGIN SOLUTION
    return AT @ ((G @ g @ G.T) * (BT @ d @ BT.T)) @ AT.T
    ### END SOLUTION


# %% tags=["nbval-check-output"]
corner = np.zeros((3, 3))
corner[0, 0] = 1  # a filter that passes on the pixel in its upper left corner
print(winograd_tile(np.arange(16.0).reshape(4, 4), corner))

# %% nbgrader={"grade_id": "test-winograd-tile", "grade": true, "points": 2}
def tile_agrees(seed):
    draw = np.random.default_rng(seed)
    d, g = draw.standard_normal((4, 4)), draw.standard_normal((3, 3))
    wanted = conv2d_naive(d[None, None], g[None, None])[0, 0]
    got = np.asarray(winograd_tile(d, g))
    assert got.shape == (2, 2), f"winograd_tile: expected shape (2, 2), got {got.shape}"
    assert np.allclose(got, wanted), (
        f"winograd_tile: expected {wanted.round(3).tolist()}, got {got.round(3).tolist()}; try a filter with one 1"
    )


tile_agrees(0)
### BEGIN HIDDEN TESTS
for seed in range(1, 5):
    tile_agrees(seed)
### END HIDDEN TESTS

# %% [markdown]
# ### A layer of tiles
#
# With channels, the products are summed over C. At each of the 16 places that is a matrix product: (tiles × C) times
# (C × O). So a layer is three steps: transform the filters to `U` (16, C, O), the patches to `V` (16, tiles, C),
# multiply the 16 pairs, and transform back.
#
# The filters first: a row of U is `G g Gᵀ` of every pair of channels. Move the 3×3 to where `@` wants it, or use two
# `np.tensordot`. The 16 places go row after row.

# %% nbgrader={"grade_id": "winograd-filters", "solution": true}
#| export
def winograd_filters(w):
    """Filters (O, C, 3, 3) transformed for the products: U (16, C, O), contiguous, in the dtype of w."""
    O, C = w.shape[:2]
    ### BEGIN SOLUTION
    both = np.kron(G, G).astype(w.dtype)  # (16, 9): G g Gᵀ as one matrix that acts on g row after row
    return (both @ w.transpose(2, 3, 1, 0).reshape(9, C * O)).reshape(16, C, O)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-winograd-filters", "grade": true, "points": 2}
def filters_agree(O, C):
    w = images_of(O, C, 3, 3, seed=5)
    got = np.asarray(winograd_filters(w))
    assert got.shape == (16, C, O), f"winograd_filters of {w.shape}: expected shape {(16, C, O)}, got {got.shape}"
    assert got.dtype == w.dtype, f"winograd_filters: expected the dtype of w, {w.dtype}, got {got.dtype}"
    rows = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    wanted = np.einsum("ik,ockl,jl->ijco", rows, w, rows).reshape(16, C, O)
    place = int(np.abs(got - wanted).max(axis=(1, 2)).argmax())
    assert np.allclose(got, wanted), (
        f"winograd_filters of {w.shape}: at place {place} expected {wanted[place].ravel()[:2].round(3)}, "
        f"got {got[place].ravel()[:2].round(3)}; places go row after row, channels as (C, O)"
    )


filters_agree(1, 1)
filters_agree(4, 3)
### BEGIN HIDDEN TESTS
filters_agree(2, 5)
### END HIDDEN TESTS

# %% [markdown]
# The patches overlap: tile i begins at pixel 2i and looks at pixels 2i to 2i + 3. `patch_rows` puts the zeros around the
# images, as many as all tiles need. Then row k of all patches together is the slice `padded[:, k : k + 2 * th : 2]`:
# the transform of one direction is four differences of such slices, whole arrays at a time.

# %%
#| export
def patch_rows(images, padding, th, tw):
    """Images (n, H, W, C) with zeros around, for th x tw tiles: (n, 2 th + 2, 2 tw + 2, C) in scratch."""
    (PH, PW), (n, H, W, C) = padding, images.shape
    out = scratch("patches", (n, 2 * th + 2, 2 * tw + 2, C), images.dtype)
    H, W = min(H, out.shape[1] - PH), min(W, out.shape[2] - PW)
    out[:, :PH] = out[:, PH + H :] = 0
    out[:, :, :PW] = out[:, :, PW + W :] = 0
    out[:, PH : PH + H, PW : PW + W] = images[:, :H, :W]
    return out


# %% [markdown]
# `BT` in words: the four are 0 - 2, 1 + 2, 2 - 1, 1 - 3. `differences` does that; you use it twice, once for rows and
# once for columns. It takes a list of four arrays and a list of four to fill.

# %%
#| export
def differences(d, out):
    """Fill the four arrays `out` with BT times the four arrays `d`."""
    np.subtract(d[0], d[2], out=out[0])
    np.add(d[1], d[2], out=out[1])
    np.subtract(d[2], d[1], out=out[2])
    np.subtract(d[1], d[3], out=out[3])


# %% [markdown]
# Rows are done: `rows` (4, n, th, 2 tw + 2, C). Fill `V` (4, 4, n, th, tw, C), where V[i, j] is row i and column j of all
# transformed patches, from columns of `rows`.

# %% nbgrader={"grade_id": "winograd-patches", "solution": true}
#| export
def winograd_patches(padded, th, tw):
    """V (16, n * th * tw, C): every patch of padded images (n, 2 th + 2, 2 tw + 2, C) as BT d B."""
    n, _, width, C = padded.shape
    rows = scratch("rows", (4, n, th, width, C), padded.dtype)
    differences([padded[:, k : k + 2 * th : 2] for k in range(4)], rows)
    V = scratch("V", (4, 4, n, th, tw, C), padded.dtype)
    ### BEGIN SOLUTION
    columns = [rows[:, :, :, k : k + 2 * tw : 2] for k in range(4)]
    differences(columns, [V[:, j] for j in range(4)])
    ### END SOLUTION
    return V.reshape(16, n * th * tw, C)


# %% nbgrader={"grade_id": "test-winograd-patches", "grade": true, "points": 2}
def patches_agree(n, th, tw, C):
    padded = images_of(n, 2 * th + 2, 2 * tw + 2, C, seed=6)
    got = np.array(winograd_patches(padded, th, tw)).reshape(4, 4, n, th, tw, C)
    B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    for k, i, j in np.ndindex(n, th, tw):
        patch = padded[k, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
        wanted = np.einsum("ik,klc,jl->ijc", B, patch, B)
        assert np.allclose(got[:, :, k, i, j], wanted), (
            f"winograd_patches, {th}x{tw} tiles: tile {i, j} of image {k}: expected {wanted[..., 0].round(2).tolist()}, "
            f"got {got[:, :, k, i, j, 0].round(2).tolist()}"
        )


patches_agree(1, 1, 1, 1)
patches_agree(2, 2, 3, 2)
### BEGIN HIDDEN TESTS
patches_agree(1, 3, 1, 4)
### END HIDDEN TESTS

# %% [markdown]
# And back: `M` (4, 4, n, th, tw, O) are the products. `AT` in words: 0 + 1 + 2, then 1 - 2 - 3. The given half adds over
# the rows of the patches and leaves `half` (2, 4, n, th, tw, O): half[i, k] belongs to row i of the tile. You add over k
# and put the result into `z` (n, OH, OW, O): row i, column j of all tiles is `z[:, i::2, j::2]`. If OH or OW is odd,
# the tiles reach over the edge: cut off what does not fit.

# %%
#| export
def sums(m, out, j):
    """Fill `out` with row j of AT times the four arrays `m`."""
    if j == 0:
        np.add(m[0], m[1], out=out)
        out += m[2]
    else:
        np.subtract(m[1], m[2], out=out)
        out -= m[3]


# %% nbgrader={"grade_id": "winograd-outputs", "solution": true}
#| export
def winograd_outputs(M, z):
    """Fill z (n, OH, OW, O) with the tiles AT m A of the products M (4, 4, n, th, tw, O)."""
    half = scratch("half", (2, *M.shape[1:]), M.dtype)
    tile = scratch("tile", M.shape[2:], M.dtype)
    for i in (0, 1):
        sums(M, half[i], i)
        for j in (0, 1):
            ### BEGIN SOLUTION
            sums(half[i], tile, j)
            target = z[:, i::2, j::2]
            target[...] = tile[:, : target.shape[1], : target.shape[2]]
            ### END SOLUTION


# %% [markdown]
# All steps of a block, given: patches, 16 products in one call of `np.matmul`, tiles.

# %%
#| export
def winograd_block(images, U, padding, OH, OW):
    """As product_block, for 3x3 filters at stride 1: U are the winograd_filters, `padding` is a pair."""
    n, th, tw, O = len(images), (OH + 1) // 2, (OW + 1) // 2, U.shape[2]
    V = winograd_patches(patch_rows(images, padding, th, tw), th, tw)
    M = np.matmul(V, U, out=scratch("M", (16, n * th * tw, O), images.dtype))
    z = scratch("z", (n, OH, OW, O), images.dtype)
    winograd_outputs(M.reshape(4, 4, n, th, tw, O), z)
    return z


# %% nbgrader={"grade_id": "test-winograd-outputs", "grade": true, "points": 3}
def winograd_agrees(n, C, O, H, W, padding):
    x, w = images_of(n, C, H, W, seed=7), images_of(O, C, 3, 3, seed=8)
    wanted = conv2d_naive(x, w, None, 1, padding)
    images = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    z = np.array(winograd_block(images, winograd_filters(w), (padding, padding), *wanted.shape[2:]))
    got = z.transpose(0, 3, 1, 2)
    at = np.unravel_index(np.abs(got - wanted).argmax(), wanted.shape)
    assert np.allclose(got, wanted), (
        f"Winograd on x {x.shape}, w {w.shape}, padding {padding}: at {[int(i) for i in at]} "
        f"expected {wanted[at]:.4f}, got {got[at]:.4f}"
    )


winograd_agrees(1, 1, 1, 4, 4, 0)
winograd_agrees(2, 3, 4, 6, 8, 1)
### BEGIN HIDDEN TESTS
winograd_agrees(2, 2, 3, 7, 5, 1)
winograd_agrees(1, 2, 2, 3, 3, 0)
winograd_agrees(3, 2, 3, 5, 8, 2)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. The path is chosen by shape
#
# Winograd multiplies less but moves more: 16 numbers for each tile and channel are written and read again, going in and
# coming out. Per image, with th × tw tiles (half of OH and OW, rounded up),
#
# - it saves `(9 * OH * OW - 16 * th * tw) * C * O` multiplications, and
# - it moves `16 * th * tw * (C + O)` numbers more.
#
# The roofline said that a number moved costs as much as many multiplications: we take `MOVE_COST` of them. With 50,
# layers near the border lost on one of our machines what they won on another; with 100 a path that is chosen pays on
# all of them, and a cell below times both on yours. So for what shapes is the path "winograd"? Where the filters
# are 3×3, the stride is 1, no padding is negative, and what is saved is worth more than what is moved. Otherwise it is
# "im2col".

# %%
#| export
MOVE_COST = 100  # multiplications in the time of one number more to transform


# %% nbgrader={"grade_id": "choose-path", "solution": true}
#| export
def choose_path(kernels, stride, padding, OH, OW):
    """"winograd" or "im2col" for filters `kernels` (O, C, KH, KW), a padding pair, OH x OW outputs."""
    O, C, KH, KW = kernels
    ### BEGIN SOLUTION
    if (KH, KW) != (3, 3) or stride != 1 or min(padding) < 0:
        return "im2col"
    tiles = ((OH + 1) // 2) * ((OW + 1) // 2)
    saved = (9 * OH * OW - 16 * tiles) * C * O
    return "winograd" if saved > MOVE_COST * 16 * tiles * (C + O) else "im2col"
    ### END SOLUTION


# %% tags=["nbval-check-output"]
for C, O, size in [(24, 64, 30), (64, 64, 15), (64, 256, 14), (256, 256, 8), (256, 256, 7), (256, 256, 3)]:
    print(f"{C:3} -> {O:3} at {size}x{size}: {choose_path((O, C, 3, 3), 1, (1, 1), size, size)}")

# %% nbgrader={"grade_id": "test-choose-path", "grade": true, "points": 2}
def path_agrees(kernels, stride, padding, OH, OW, wanted):
    got = choose_path(kernels, stride, padding, OH, OW)
    assert got == wanted, (
        f"choose_path{kernels, stride, padding, OH, OW}: expected {wanted!r}, got {got!r}; "
        "weigh what is saved against what is moved"
    )


path_agrees((256, 256, 3, 3), 1, (1, 1), 14, 14, "winograd")
path_agrees((64, 24, 3, 3), 1, (1, 1), 30, 30, "im2col")
path_agrees((256, 256, 3, 3), 2, (1, 1), 14, 14, "im2col")
### BEGIN HIDDEN TESTS
path_agrees((256, 256, 3, 3), 1, (1, 1), 3, 3, "im2col")  # the tiles reach far over the edge
path_agrees((256, 256, 3, 3), 1, (1, 1), 7, 7, "im2col")  # 4 tiles for 3.5
path_agrees((256, 256, 3, 3), 1, (1, 1), 8, 8, "winograd")
path_agrees((256, 256, 5, 5), 1, (2, 2), 14, 14, "im2col")
path_agrees((256, 256, 3, 1), 1, (1, 0), 14, 14, "im2col")
path_agrees((256, 256, 3, 3), 1, (-1, 0), 14, 14, "im2col")
path_agrees((256, 256, 3, 3), 1, (1, 1), 1, 1, "im2col")  # it would multiply more often
### END HIDDEN TESTS

# %% [markdown]
# Everything meets in one function. A block goes through its convolution by one of the two ways, then through
# `finish_block`, and only then is the result written. What is given: the sizes, the path, and what one image needs in
# scratch memory. What you write is `work(block)`: make `z` from the images of the block, by the path, and finish it
# into the block of `y`.

# %%
#| export
BLOCK_BUDGET = {"im2col": 2_000_000, "winograd": 4_000_000}  # bytes of scratch memory in a block


def prepare_filters(w, path):
    """The filters as the path wants them: filter_matrix or winograd_filters."""
    return winograd_filters(w) if path == "winograd" else filter_matrix(w)


# %%
#| export
def check_fused(kernels, stride, padding, pool, activation, path):
    """Raise ValueError for what conv2d_fused cannot do."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"conv2d_fused: expected an activation of {list(ACTIVATIONS)}, got {activation!r}")
    if path not in (None, *BLOCK_BUDGET):
        raise ValueError(f"conv2d_fused: expected a path of {[None, *BLOCK_BUDGET]}, got {path!r}")
    if path == "winograd" and (kernels[2:] != (3, 3) or stride != 1 or min(padding) < 0):
        raise ValueError(
            f"conv2d_fused: winograd is for 3x3 filters, stride 1, padding 0 or more, "
            f"got filters {kernels}, stride {stride}, padding {padding}"
        )
    if pool < 1:
        raise ValueError(f"conv2d_fused: expected a pool of at least 1, got {pool}")


# %% nbgrader={"grade_id": "conv2d-fused", "solution": true}
#| export
def conv2d_fused(
    x, w, b=None, stride=1, padding=0, pool=1, scale=None, activation=None, path=None, filters=None
):  # fmt: skip
    """activation(scale * max_pool(convolution) + b) in one pass over blocks; for inference.

    Shapes: x (N, C, H, W), w (O, C, KH, KW), b and scale (O,) or None -> (N, O, OH // pool, OW // pool). The
    pool's windows do not overlap. `path` is "winograd" or "im2col", chosen by shape unless given;
    `filters` are the filters prepared for it. Raises ValueError for an unknown activation or path, or
    Winograd with filters that are not 3x3 at stride 1.
    """
    (O, C, KH, KW), padding = w.shape, pair(padding)
    check_fused(w.shape, stride, padding, pool, activation, path)
    OH, OW = (output_size(x.shape[2 + k], w.shape[2 + k], stride, padding[k]) // pool * pool for k in (0, 1))
    path = path or choose_path(w.shape, stride, padding, OH, OW)
    filters = prepare_filters(w, path) if filters is None else filters
    numbers = 4 * (OH + 1) * (OW + 1) * (C + O) if path == "winograd" else OH * OW * C * KH * KW
    step = block_size(len(x), max(1, numbers) * x.itemsize, BLOCK_BUDGET[path], num_threads())
    y, images = np.empty((len(x), OH // pool, OW // pool, O), x.dtype), channels_last(x)

    def work(block):
        ### BEGIN SOLUTION
        if path == "winograd":
            z = winograd_block(images[block], filters, padding, OH, OW)
        else:
            z = product_block(images[block], filters, (KH, KW), stride, padding, OH, OW)
        finish_block(z, y[block], pool, scale, b, activation)
        ### END SOLUTION

    over_blocks(work, len(x), step)
    return channels_first(y)


# %% tags=["nbval-check-output"]
x, w = images_of(2, 3, 9, 8), images_of(4, 3, 3, 3, seed=1)
wanted = np.maximum(max_pool2d_forward(conv2d_naive(x, w, None, 1, 1), 2, 2), 0)
for path in ("im2col", "winograd"):
    print(path, np.allclose(conv2d_fused(x, w, None, 1, 1, pool=2, activation="relu", path=path), wanted))

# %% nbgrader={"grade_id": "test-conv2d-fused", "grade": true, "points": 3}
def fused_agrees(shape, kernels, stride, padding, pool, activation, path):
    draw = np.random.default_rng(9)
    x, w = draw.standard_normal(shape), draw.standard_normal(kernels)
    scale, b = draw.standard_normal((2, kernels[0]))
    y = conv2d_naive(x, w, None, stride, padding)
    OH, OW = (size // pool * pool for size in y.shape[2:])
    y = y[:, :, :OH, :OW].reshape(*y.shape[:2], OH // pool, pool, OW // pool, pool).max(axis=(3, 5))
    wanted = scale[:, None, None] * y + b[:, None, None]
    if activation == "relu":
        wanted = np.where(wanted > 0, wanted, 0)
    if activation == "gelu":
        wanted = wanted / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (wanted + 0.044715 * wanted**3)))
    got = np.asarray(conv2d_fused(x, w, b, stride, padding, pool, scale, activation, path))
    case = f"conv2d_fused, x {shape}, w {kernels}, stride {stride}, padding {padding}, pool {pool}, {activation}, {path}"
    assert got.shape == wanted.shape, f"{case}: expected shape {wanted.shape}, got {got.shape}"
    at = np.unravel_index(np.abs(got - wanted).argmax(), wanted.shape)
    assert np.allclose(got, wanted), (
        f"{case}: at {[int(i) for i in at]} expected {wanted[at]:.4f}, got {got[at]:.4f}"
    )


fused_agrees((3, 2, 6, 5), (4, 2, 3, 3), 1, 1, 1, "relu", "im2col")
fused_agrees((3, 2, 7, 5), (4, 2, 3, 3), 1, 1, 2, "gelu", "winograd")
### BEGIN HIDDEN TESTS
fused_agrees((5, 3, 9, 8), (2, 3, 3, 2), 2, 1, 2, "gelu", None)
fused_agrees((2, 3, 8, 8), (2, 3, 3, 3), 1, 0, 3, None, "winograd")
fused_agrees((40, 3, 40, 40), (2, 3, 3, 3), 1, 1, 1, None, "im2col")  # several blocks
fused_agrees((40, 3, 40, 40), (2, 3, 3, 3), 1, 1, 2, "relu", "winograd")
### END HIDDEN TESTS

# %% [markdown]
# Equal, so now the clock, for one layer with all that follows it, and GFLOP/s counted as if every product of the
# definition were computed. Winograd may come out above the peak: it does not compute them all.

# %% tags=["measure"]
layer_x = channels_first(rng.standard_normal((64, 15, 15, 64)).astype(np.float32))
layer_w = rng.standard_normal((256, 64, 3, 3)).astype(np.float32)
operations = conv2d_cost(layer_x.shape, layer_w.shape, 1, 1)[0] / 1e9


def one_by_one():
    y = max_pool2d_forward(conv2d_forward(layer_x, layer_w, None, 1, 1), 2, 2)
    return np.maximum(y, 0)


print(f"one by one {best_rate(one_by_one, operations):6.0f} GFLOP/s")
for path in ("im2col", "winograd"):
    rate = best_rate(lambda: conv2d_fused(layer_x, layer_w, None, 1, 1, 2, None, "relu", path), operations)
    print(f"{path:10} {rate:6.0f} GFLOP/s, fused")

# %% [markdown]
# Does `choose_path` choose well here? Both paths for layers of several shapes, in turn, and how many times as fast
# Winograd's is.

# %% tags=["measure"]
def times_as_fast(C, O, size, N=100, turns=5):
    """The median of im2col's seconds over Winograd's, for N images."""
    images = channels_first(rng.standard_normal((N, size, size, C)).astype(np.float32))
    filters, ratios = rng.standard_normal((O, C, 3, 3)).astype(np.float32), []
    for _ in range(turns):
        start = time.perf_counter()
        conv2d_fused(images, filters, None, 1, 1, path="im2col")
        between = time.perf_counter()
        conv2d_fused(images, filters, None, 1, 1, path="winograd")
        ratios.append((between - start) / (time.perf_counter() - between))
    return np.median(ratios)


for C, O, size in [(24, 64, 15), (64, 64, 15), (64, 256, 8), (128, 128, 8), (192, 192, 8), (256, 256, 8), (256, 256, 7)]:
    print(f"{C:3} -> {O:3} at {size:2}x{size:2}: Winograd {times_as_fast(C, O, size):.2f} times as fast; "
          f"chosen: {choose_path((O, C, 3, 3), 1, (1, 1), size, size)}")

# %% [markdown]
# ### In training too
#
# Training needs every result between the layers, so nothing is fused there; but convolution alone can go Winograd's way,
# and the gradient of the images with it, since that is a convolution. Lesson 09 left a place for another path,
# `set_convolution`. `use_winograd()` fills it, and `use_winograd(False)` empties it.

# %%
#| export
def winograd_or_none(x, w, b, stride, padding):
    """The convolution by Winograd's transform, or None where the shape speaks for im2col."""
    OH, OW = (output_size(x.shape[2 + k], w.shape[2 + k], stride, pair(padding)[k]) for k in (0, 1))
    if choose_path(w.shape, stride, pair(padding), OH, OW) == "im2col":
        return None
    return conv2d_fused(x, w, b, stride, padding, path="winograd")


# %%
#| export
def use_winograd(on=True):
    """Let every convolution, in training and inference, take Winograd's path where its shape is worth it."""
    set_convolution(winograd_or_none if on else None)


# %% tags=["nbval-check-output"]
wide, wide_filters = images_of(2, 160, 8, 8), images_of(192, 160, 3, 3, seed=1)
before = conv2d_forward(wide, wide_filters, None, 1, 1)
use_winograd()
print("the same to ten digits:", np.allclose(conv2d_forward(wide, wide_filters, None, 1, 1), before, rtol=1e-10, atol=1e-10))
use_winograd(False)

# %% [markdown]
# ## 6. A whole model
#
# Which layers of a `Sequential` go together? From a convolution on: first a normalisation, then a pooling, another
# normalisation and an activation, each of them only if it is what comes next. `chain_end` gets the kinds of all layers, such as
# `["conv", "pool", "norm", "activation", "conv", "other"]`, and the place `i` of a convolution; it returns the place after
# the chain that starts there. Here it is 4 for i = 0, and 5 for i = 4.

# %% nbgrader={"grade_id": "chain-end", "solution": true}
#| export
def chain_end(kinds, i):
    """Where the chain that begins with kinds[i], a convolution, ends: norm, pool, norm, activation."""
    ### BEGIN SOLUTION
    i += 1
    for part in ("norm", "pool", "norm", "activation"):
        if i < len(kinds) and kinds[i] == part:
            i += 1
    return i
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-chain-end", "grade": true, "points": 1}
for kinds, i, wanted in [
    (["conv", "pool", "norm", "activation", "conv", "other"], 0, 4),
    (["conv", "pool", "norm", "activation", "conv", "other"], 4, 5),
    (["conv", "norm", "pool", "activation"], 0, 4),
    (["conv", "activation", "pool"], 0, 2),
]:
    got = int(chain_end(list(kinds), i))
    assert got == wanted, f"chain_end({kinds}, {i}): expected {wanted}, got {got}"
### BEGIN HIDDEN TESTS
for kinds, i, wanted in [
    (["other", "conv"], 1, 2),
    (["conv", "other", "norm"], 0, 1),
    (["conv", "norm", "activation", "norm"], 0, 3),
    (["conv", "pool", "pool"], 0, 2),
    (["conv", "norm", "pool", "norm", "activation", "activation"], 0, 5),
]:
    got = int(chain_end(list(kinds), i))
    assert got == wanted, f"chain_end({kinds}, {i}): expected {wanted}, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# The rest is bookkeeping and given. `Chain` does the layers of a chain in one pass. It prepares filters once, and again
# when a weight has changed, which a tensor's `version` tells. Where one pass would not be the same (a layer that still
# trains, images of a wrong shape) it calls the layers one after the other.

# %%
#| export
def kind_of(layer):
    """"conv", "norm", "pool", "activation", or "other" for what no chain holds; exactly these classes."""
    if type(layer) is MaxPool2d:
        return "pool" if isinstance(layer.kernel_size, int) and layer.kernel_size == layer.stride else "other"
    kinds = {Conv2d: "conv", FastConv2d: "conv", BatchNorm2d: "norm", GELU: "activation", ReLU: "activation"}
    return kinds.get(type(layer), "other")


# %%
#| export
class Chain:
    """A convolution and the layers that follow it, in one pass for inference. Call it with images."""

    def __init__(self, layers):
        self.conv, self.rest, self.version = layers[0], layers[1:], None
        norms = [layer for layer in self.rest if kind_of(layer) == "norm"]
        self.tensors = [t for layer in (self.conv, *norms) for _, t in layer.named_tensors()]
        sizes = [layer.weight.shape[0] for layer in norms]
        self.sound = all(size == self.conv.weight.shape[0] for size in sizes)
        self.pool = ([layer.kernel_size for layer in self.rest if kind_of(layer) == "pool"] or [1])[0]
        activation = [layer for layer in self.rest if kind_of(layer) == "activation"]
        self.activation = type(activation[0]).__name__.lower() if activation else None

    def prepare(self):
        """Fold the normalisations: before the pooling into the filters, after it into scale and bias."""
        w, b = (None if t is None else t.data for t in (self.conv.weight, self.conv.bias))
        scale, pooled = None, False
        for layer in self.rest:
            pooled = pooled or kind_of(layer) == "pool"
            if kind_of(layer) == "norm":
                numbers = (layer.weight.data, layer.bias.data, layer.running_mean.data, layer.running_var.data)
                line = batch_norm_line(*numbers, layer.eps)
                if pooled:
                    scale, b = line[0], line[1] if b is None else line[0] * b + line[1]
                else:
                    w, b = fold_line(w, b, *line)
        self.w, self.b, self.scale, self.filters = w, b, scale, {}

    def __call__(self, x):
        O, C, KH, KW = self.conv.weight.shape
        sizes = [output_size(n, K, self.conv.stride, self.conv.padding) for n, K in zip(x.shape[-2:], (KH, KW), strict=True)]
        training = any(getattr(layer, "training", False) for layer in (self.conv, *self.rest))
        wrong = x.ndim != 4 or x.shape[1] != C or min(sizes) < max(1, self.pool)
        if training or wrong or not self.sound or is_grad_enabled() or x.dtype != self.conv.weight.dtype:
            x = Conv2d.forward(self.conv, x)
            for layer in self.rest:
                x = layer(x)
            return x
        version = [(id(t.data), t.version) for t in self.tensors]
        if version != self.version:
            self.prepare()
            self.version = version
        OH, OW = (size // self.pool * self.pool for size in sizes)
        path = choose_path(self.w.shape, self.conv.stride, pair(self.conv.padding), OH, OW)
        if path not in self.filters:
            self.filters[path] = prepare_filters(self.w, path)
        return apply(
            conv2d_fused, x, w=self.w, b=self.b, stride=self.conv.stride, padding=self.conv.padding,
            pool=self.pool, scale=self.scale, activation=self.activation, path=path,
            filters=self.filters[path],
        )  # fmt: skip


# %% [markdown]
# Two layers that use chains. They share the tensors of the layers they stand for.

# %%
#| export
class FastConv2d(Conv2d):
    """A Conv2d that takes the faster path for its shape in inference."""

    def forward(self, x):
        if "chain" not in vars(self):
            self.chain = Chain([self])
        return self.chain(x)


# %%
#| export
class FusedSequential(Sequential):
    """A Sequential in which every chain of layers is one pass in inference."""

    def forward(self, x):
        if "steps" not in vars(self):
            self.steps = {"all": self.find_chains()}  # a dict: what is in it is not looked at as a child
        for step in self.steps["all"]:
            x = step(x)
        return x

    def find_chains(self):
        kinds, steps, i = [kind_of(layer) for layer in self.layers], [], 0
        while i < len(kinds):
            end = chain_end(kinds, i) if kinds[i] == "conv" else i + 1
            steps.append(Chain(self.layers[i:end]) if kinds[i] == "conv" else self.layers[i])
            i = end
        return steps


# %% [markdown]
# A class of your own has a `forward` that nobody else knows, and it must keep working. So `fast_twin` makes a
# twin of the same class with the same attributes, where each `Conv2d` is replaced by a fast one and each `Sequential`
# by a fused one. Only in a `Sequential` is it certain that nobody looks at the results between, and so only there is
# anything fused.

# %%
#| export
def fast_twin(module, made=None):
    """A copy of `module` that shares its tensors and has fast layers in place of Conv2d and Sequential."""
    made = {} if made is None else made
    if id(module) not in made:
        cls = {Conv2d: FastConv2d, Sequential: FusedSequential}.get(type(module), type(module))
        twin = made[id(module)] = cls.__new__(cls)
        vars(twin).update(vars(module))
        for name, value in vars(module).items():
            if isinstance(value, Module):
                vars(twin)[name] = fast_twin(value, made)
            elif type(value) in (list, tuple):
                parts = (fast_twin(part, made) if isinstance(part, Module) else part for part in value)
                vars(twin)[name] = type(value)(parts)
    return made[id(module)]


# %%
#| export
class Accelerated(Module):
    """`model`, faster in evaluation under no_grad and equal within rounding; otherwise the model itself.

    The weights stay those of `model`, and a file of tinytorch.save holds them as they are. Changed weights
    are noticed when they are assigned (`t.data = ...`), as optimizers and load_state_dict do. What a forward
    stores on the modules stays in the copy that computes. Raises TypeError for anything but a Module.
    """

    def __init__(self, model):
        if not isinstance(model, Module):
            raise TypeError(f"accelerate: expected a Module, got {type(model).__name__}")
        self.model = model
        self.fast = {}  # a dict, so that the twin is not taken for a child

    def forward(self, *args, **kwargs):
        if self.training or is_grad_enabled():
            return self.model(*args, **kwargs)
        modules = list(self.model.modules())
        state = [(module.training, [id(v) for v in vars(module).values()]) for module in modules]
        if self.fast.get("state") != state:
            self.fast.update(state=state, modules=modules, twin=fast_twin(self.model))
        return self.fast["twin"](*args, **kwargs)


# %%
#| export
def accelerate(model):
    """A Module that computes what `model` does, faster in evaluation under no_grad. See Accelerated."""
    return model if isinstance(model, Accelerated) else Accelerated(model)


# %% [markdown]
# Try it on a small network whose batch normalisations have seen some data.

# %% tags=["nbval-check-output"]
manual_seed(0)
parts = [Conv2d(3, 8, 3, padding=1), MaxPool2d(2), BatchNorm2d(8), GELU(), Conv2d(8, 6, 3, bias=False), BatchNorm2d(6), ReLU()]
model = Sequential(*parts, Flatten(), Linear(6 * 3 * 3, 4))
pictures = Tensor(rng.standard_normal((20, 3, 10, 10)))
model(pictures)  # in training, so that the running averages move
fast = accelerate(model.eval()).eval()
with no_grad():
    print("equal:", np.allclose(fast(pictures).numpy(), model(pictures).numpy(), atol=1e-5))

# %% [markdown]
# Networks are not always a `Sequential`. This one is a class of its own; the checkpoint takes it, too.

# %% nbgrader={"grade_id": "own-network", "locked": true}
class OwnNetwork(Module):
    """A student's own class: a layer of its own, a chain in a Sequential, and a sum that skips it."""

    def __init__(self, width):
        self.first = Conv2d(3, width, 3, padding=1)
        self.chain = Sequential(Conv2d(width, width, 3, padding=1), BatchNorm2d(width), ReLU())
        self.last = [MaxPool2d(2), Conv2d(width, 5, 2, stride=2)]

    def forward(self, x):
        x = self.first(x)
        x = x + self.chain(x)
        for layer in self.last:
            x = layer(x)
        return x


# %% nbgrader={"grade_id": "test-accelerate", "grade": true, "points": 3}
def accelerated_agrees(network, shape):
    draw = np.random.default_rng(10)
    network.train()
    for _ in range(3):  # running averages away from 0 and 1
        network(Tensor(2 * draw.standard_normal(shape) + 1))
    network.eval()
    x = Tensor(draw.standard_normal(shape))
    with no_grad():
        wanted = np.array(network(x))
        got = np.array(accelerate(network).eval()(x))
    assert got.shape == wanted.shape, f"accelerate: expected shape {wanted.shape}, got {got.shape}"
    off = float(np.abs(got - wanted).max())
    assert off < 1e-4, f"accelerate of {type(network).__name__}: results differ by up to {off:.3g} from the model's"


accelerated_agrees(Sequential(Conv2d(3, 4, 3), BatchNorm2d(4), GELU(), MaxPool2d(2)), (4, 3, 9, 8))
accelerated_agrees(OwnNetwork(4), (4, 3, 8, 8))
### BEGIN HIDDEN TESTS
accelerated_agrees(Sequential(Conv2d(2, 4, 3), BatchNorm2d(4), MaxPool2d(2), BatchNorm2d(4), ReLU()), (4, 2, 9, 8))
accelerated_agrees(Sequential(Conv2d(2, 128, 3, padding=1), ReLU(), Conv2d(128, 64, 3, padding=1), MaxPool2d(2), BatchNorm2d(64), GELU()), (3, 2, 9, 8))
accelerated_agrees(Sequential(OwnNetwork(6), Flatten(), Linear(20, 3)), (5, 3, 8, 8))
### END HIDDEN TESTS

# %% [markdown]
# A file keeps the model inside and the word `Accelerated` around it; loading builds both again. The twin and the folded
# filters are not in the file: they follow from the weights.

# %% tags=["nbval-check-output"]
with tempfile.TemporaryDirectory() as folder, no_grad():
    save(fast, Path(folder) / "fast.safetensors")
    again = load(Path(folder) / "fast.safetensors", classes=[Accelerated]).eval()
    print(type(again).__name__, np.allclose(again(pictures).numpy(), fast(pictures).numpy()))

# %% [markdown]
# And the clock, with 100 images of 30×30 and three chains:

# %% tags=["measure"]
larger = Sequential(Conv2d(3, 64, 3), GELU(), Conv2d(64, 128, 3, padding=1), MaxPool2d(2), BatchNorm2d(128), GELU(), Conv2d(128, 128, 3, padding=1), BatchNorm2d(128), GELU()).eval()
many, quick = Tensor(rng.standard_normal((100, 3, 30, 30))), accelerate(larger).eval()
with no_grad():
    rates = [best_rate(lambda: network(many), 100, 3) for network in (larger, quick)]
print(f"model {rates[0]:.0f} images/s, accelerated {rates[1]:.0f} images/s, {rates[1] / rates[0]:.2f} times as fast")

# %% [markdown]
# ## 7. What breaks
#
# **Rounding.** Winograd adds and subtracts before it multiplies, so that in float32 the last digits come out
# differently. For larger tiles, such as 4×4 outputs, the matrices hold numbers like 1/24 and the loss grows.

# %% tags=["nbval-check-output"]
single, filters = images_of(4, 64, 8, 8).astype(np.float32), images_of(64, 64, 3, 3, seed=1).astype(np.float32)
exact = conv2d_forward(single.astype(np.float64), filters.astype(np.float64), None, 1, 1)
off = [np.abs(conv2d_fused(single, filters, None, 1, 1, path=path) - exact).max() for path in ("im2col", "winograd")]
print("both within 1e-3 of sums near 100:", max(off) < 1e-3, " equal bit by bit:", bool(off[0] == off[1]))

# %% [markdown]
# **Folding too early.** Fold the normalisation of a model that still trains, and its running averages move away from
# the folded filters. `Chain` asks for evaluation first. **Folding across a pooling** with a negative scale:

# %% tags=["nbval-check-output"]
window, scale = np.array([1.0, 4, 2, 3]), -1.0
print("pool, then scale:", scale * window.max(), " scale, then pool:", (scale * window).max())

# %% [markdown]
# **The wrong path asked for:**

# %% tags=["nbval-check-output"]
try:
    conv2d_fused(np.zeros((1, 2, 8, 8)), np.zeros((3, 2, 5, 5)), path="winograd")
except ValueError as error:
    print(error)
try:
    accelerate([model])
except TypeError as error:
    print(error)

# %% [markdown]
# ## Exercises
#
# 1. Where do the roofs of your machine meet? Compute the intensity of a GELU over an array in memory, and of the
#    same GELU when its array is in the cache already. Which roof is it under?
# 2. A single image makes a single block, and a single thread. Cut blocks out of rows of an image instead. What do
#    two neighbouring blocks have to share?
# 3. Take `MOVE_COST` from measurements: time both paths for a dozen shapes and find the number that chooses best.
# 4. Winograd's weight gradient: for one tile, write down the gradient of `winograd_tile` with respect to g.
# 5. Fuse `Linear` and `GELU` as section 3 did for convolution. What is the intensity at batch size 1, and what do you
#    expect to gain?
#
# ## Elsewhere
#
# - PyTorch folds batch normalisation with `torch.ao.quantization.fuse_modules` and `torch.nn.utils.fusion`. Its
#   `torch.compile` finds chains by tracing the program, and so may fuse in any class, not only in a `Sequential`.
# - oneDNN and cuDNN choose between direct convolution, im2col, Winograd and FFT by shape; cuDNN can also time them.
# - XLA, the compiler behind JAX, fuses element-wise operations into what produces their input.
#
# ## Summary
#
# - The lower of two roofs limits work: peak, or intensity times bandwidth. Both are measured, the best run counts.
# - A block that stays in the cache between steps moves once; every thread works on blocks of its own.
# - In evaluation a batch normalisation is a line, and a line after a convolution goes into its filters.
# - Winograd's F(2×2, 3×3) takes 16 multiplications for 36, and pays with transforms: the shape decides.
# - Every fast path has a slow one that judges it, and falls back to it where it would not be the same.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/acceleration.py`;
# `tito module complete 18` in a terminal does the same.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
