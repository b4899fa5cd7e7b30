# %% [markdown]
# # 09 Spatial
#
# > Convolution, pooling and batch normalisation for images (N, C, H, W), kept channels-last in memory.
#
# In this lesson you build the layers that make a network see: `Conv2d`, `MaxPool2d`, `AvgPool2d` and
# `BatchNorm2d`. You write convolution twice: once as its definition says, in loops that anyone can read, and
# once as a matrix product that keeps the processor busy. The slow one stays, as the judge of the fast one.
#
# **Why it matters to a system.** A convolutional network spends most of its time in this one operation. The
# arithmetic is the same in both versions; what differs is how numbers travel between memory and processor.
#
# **You need** tensors (01), activations and `parallel_for` (02), `Module` (03) and gradient rules (05).
#
# The words of this lesson: `x` are images of shape (N, C, H, W): how many, channels, height, width. `w` are
# filters (O, C, KH, KW): output channels, input channels, kernel height and width. `b` is a bias (O,), `y` the
# result (N, O, OH, OW), and `g` the gradient of the loss with respect to `y`. A small n counts the images of a
# part of the batch.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 09

# %%
#| export
import ctypes
import math
import threading

import numpy as np

from tinytorch.activations import num_threads, parallel_for
from tinytorch.autograd import vjp
from tinytorch.layers import Module, uniform
from tinytorch.tensor import Tensor, apply

# %% nbgrader={"grade_id": "imports", "locked": true}
import time

from tinytorch.autograd import gradcheck

rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. A window slides over an image
#
# A filter is a small picture of what it looks for. Lay it over a part of the image, multiply each pixel by the
# filter entry that lies on it, add up: one number. Move the window by `stride` pixels and do it again. `padding`
# puts that many zeros around the image first, so that the window can also look at the border.
#
# By hand, with one row: the image `1 2 3 4` and the filter `1 10`. At the first position 1·1 + 2·10 = 21, then
# 2·1 + 3·10 = 32, then 3·1 + 4·10 = 43. Three positions: a window of 2 fits three times into 4.
#
# How often does it fit in general? With padding the row is `size + 2 * padding` long. The first window ends at
# `kernel`; every further step needs `stride` more pixels, and a step that does not fit is left out.

# %% nbgrader={"grade_id": "output-size", "solution": true}
#| export
def output_size(size, kernel, stride, padding):
    """How many positions a window has along one dimension of `size` pixels.

    `kernel`, `stride` and `padding` are counted in pixels. Examples: output_size(4, 2, 1, 0) is 3,
    output_size(5, 3, 2, 1) is 3.
    """
    ### BEGIN SOLUTION
    return (size + 2 * padding - kernel) // stride + 1
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(output_size(4, 2, 1, 0), output_size(32, 3, 1, 1), output_size(7, 2, 2, 0))

# %% [markdown]
# A kernel of 3 with padding 1 keeps the size of the image: that is why it is so common. Seven pixels hold three
# windows of 2 with stride 2; the last pixel is looked at by none.

# %% nbgrader={"grade_id": "test-output-size", "grade": true, "points": 1}
for size, kernel, stride, padding in [(4, 2, 1, 0), (5, 3, 2, 1), (32, 3, 1, 1), (7, 2, 2, 0), (3, 3, 1, 0)]:
    starts = [i for i in range(0, size + 2 * padding, stride) if i + kernel <= size + 2 * padding]
    got = int(output_size(size, kernel, stride, padding))
    assert got == len(starts), (
        f"output_size({size}, {kernel}, {stride}, {padding}): expected {len(starts)}, got {got}; "
        "count the windows that fit on paper"
    )
### BEGIN HIDDEN TESTS
for size in range(2, 12):
    for kernel in (1, 2, 5):
        for stride in (1, 2, 3, 4):
            for padding in (2, 3):
                length = size + 2 * padding
                wanted = len([i for i in range(0, length, stride) if i + kernel <= length])
                got = int(output_size(size, kernel, stride, padding))
                assert got == wanted, (
                    f"output_size({size}, {kernel}, {stride}, {padding}): expected {wanted}, got {got}; "
                    "round down after dividing by the stride"
                )
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Convolution by its definition
#
# Each output number belongs to an image `n`, an output channel `o` and a position `i, j`. Its window starts at
# pixel `i * stride, j * stride` and goes through all input channels:
#
# $$y_{n,o,i,j} = b_o + \sum_{c,k,l} x_{n,\,c,\,i \cdot s + k,\,j \cdot s + l} \; w_{o,c,k,l}$$
#
# That is seven loops: four around the output, three inside the window. The outer four are given, as one
# `np.ndindex`. You cut the window (C, KH, KW) out of the padded `x`, let NumPy do the inner three, and add the
# bias where there is one. The filter is not turned around; mathematicians call this cross-correlation, and everyone in
# deep learning calls it convolution.

# %% nbgrader={"grade_id": "conv2d-naive", "solution": true}
#| export
def conv2d_naive(x, w, b=None, stride=1, padding=0):
    """Convolution by its definition, the oracle of the fast version.

    Shapes: x (N, C, H, W), w (O, C, KH, KW), b (O,) or None -> (N, O, OH, OW).
    Example: the row 1 2 3 4 as x (1, 1, 1, 4) with the filter 1 10 as w (1, 1, 1, 2) gives 21 32 43.
    """
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    N, C, H, W = x.shape
    O, _, KH, KW = w.shape
    OH, OW = output_size(H, KH, stride, 0), output_size(W, KW, stride, 0)
    y = np.zeros((N, O, OH, OW), x.dtype)
    for n, o, i, j in np.ndindex(N, O, OH, OW):
        ### BEGIN SOLUTION
        window = x[n, :, i * stride : i * stride + KH, j * stride : j * stride + KW]
        y[n, o, i, j] = (window * w[o]).sum() + (0 if b is None else b[o])
        ### END SOLUTION
    return y


# %% tags=["nbval-check-output"]
row, pattern = np.array([1.0, 2, 3, 4]).reshape(1, 1, 1, 4), np.array([1.0, 10]).reshape(1, 1, 1, 2)
conv2d_naive(row, pattern).ravel()

# %% [markdown]
# A filter answers to what it resembles. This one has -1 on the left and +1 on the right, so it answers where an
# image gets brighter from left to right.

# %% tags=["nbval-check-output"]
step = np.array([[0.0, 0, 1, 1], [0, 0, 1, 1]]).reshape(1, 1, 2, 4)
print(conv2d_naive(step, np.array([-1.0, 1]).reshape(1, 1, 1, 2))[0, 0])

# %% [markdown]
# The same on a picture, a handwritten digit. Choose a filter, and say before you look where its answer will be large:
# positive where the picture is like the filter, negative where it is the opposite.

# %% tags=["measure"]
import matplotlib.pyplot as plt

from autograder import datasets
from tito.figures import explore, show

FILTERS = {
    "brighter to the right": [[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]],
    "brighter downwards": [[-1, -1, -1], [0, 0, 0], [1, 1, 1]],
    "unlike its neighbours": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
    "mean of nine": [[1 / 9] * 3] * 3,
}
digit = datasets.load("digits", "train").images[7, :1].astype(np.float32) / 255  # (1, H, W)


def look_for(filter="brighter to the right"):
    """The figure of a digit, a filter and its answer, and the text alternative."""
    w = np.array(FILTERS[filter], np.float32)
    y = conv2d_naive(digit[None], w[None, None], padding=1)[0, 0]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.1), width_ratios=[3, 2, 3.6])
    left.imshow(digit[0], cmap="gray")
    middle.imshow(w, cmap="gray", vmin=-2 * np.abs(w).max(), vmax=2 * np.abs(w).max())
    for (i, j), value in np.ndenumerate(w):
        middle.text(j, i, f"{value:.2g}", ha="center", va="center", color="black" if value > 0 else "white")
    figure.colorbar(right.imshow(y, cmap="PuOr", vmin=-np.abs(y).max(), vmax=np.abs(y).max()), ax=right)
    for axes, title in [(left, "picture"), (middle, "filter"), (right, "answer")]:
        axes.set(title=title, xticks=[], yticks=[])
    return figure, (
        f"A white handwritten digit on black, the filter '{filter}' with its nine numbers, and its answer, an image of "
        f"the same size from {y.min():.1f} to {y.max():.1f}; "
        + ("the digit with soft edges." if filter == "mean of nine" else "0 wherever the picture is even.")
    )


explore(look_for, filter=list(FILTERS))

# %% nbgrader={"grade_id": "test-conv2d-naive", "grade": true, "points": 2}
def by_numpy(x, w, b, stride, padding):
    """Convolution by another route: NumPy's own windows and one einsum."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwkl,ockl->nohw", windows, w) + (0 if b is None else b[:, None, None])


def same_as_numpy(shape, kernels, stride, padding, bias, seed=1):
    draw = np.random.default_rng(seed)
    x, w = draw.standard_normal(shape), draw.standard_normal(kernels)
    b = draw.standard_normal(kernels[0]) if bias else None
    got, wanted = np.asarray(conv2d_naive(x, w, b, stride, padding)), by_numpy(x, w, b, stride, padding)
    case = f"conv2d_naive, x {shape}, w {kernels}, stride {stride}, padding {padding}, bias {bias}"
    assert got.shape == wanted.shape, f"{case}: expected shape {wanted.shape}, got {got.shape}"
    n, o, i, j = np.unravel_index(np.abs(got - wanted).argmax(), wanted.shape)
    assert np.allclose(got, wanted), (
        f"{case}: y[{n}, {o}, {i}, {j}] should be {wanted[n, o, i, j]:.4f}, got {got[n, o, i, j]:.4f}; "
        "look at where its window begins and ends"
    )


same_as_numpy((1, 1, 4, 4), (1, 1, 2, 2), 1, 0, False)
same_as_numpy((2, 3, 5, 6), (4, 3, 3, 3), 1, 1, True)
### BEGIN HIDDEN TESTS
same_as_numpy((2, 2, 7, 6), (3, 2, 3, 2), 2, 0, True)
same_as_numpy((1, 3, 5, 5), (2, 3, 2, 3), 3, 2, True)
same_as_numpy((2, 1, 1, 4), (2, 1, 1, 1), 2, 0, False)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. How an image lies in memory
#
# Memory is one long row of numbers. NumPy's *strides* say how many bytes to walk for one step along each
# dimension. A float32 array of shape (2, 3) stored row after row has strides (12, 4): four bytes to the next
# column, twelve to the next row. A transposed view is the same memory with the strides swapped.
#
# Our images have PyTorch's shape (N, C, H, W), but their memory is *channels-last*: the C numbers of one pixel
# lie side by side, then comes the next pixel. A row of a window, KW pixels with C numbers each, is then one
# unbroken run of memory. These two views translate; neither copies.

# %%
#| export
def channels_last(x):
    """The view (N, H, W, C) of images (N, C, H, W); contiguous where the memory is channels-last."""
    return x.transpose(0, 2, 3, 1)


# %%
#| export
def channels_first(x):
    """The view (N, C, H, W) of images (N, H, W, C)."""
    return x.transpose(0, 3, 1, 2)


# %% tags=["nbval-check-output"]
images = np.zeros((10, 32, 32, 3), np.float32)  # memory: pixel after pixel, three channels each
print(images.strides, "as (N, C, H, W):", channels_first(images).strides)

# %% [markdown]
# The stride of a channel is 4 bytes, the smallest: channels are what lies closest together.
#
# ### Windows without copying
#
# `np.lib.stride_tricks.as_strided` takes any memory, a shape and strides, and believes you. Overlapping windows
# are only a matter of strides. By hand, for a row of five numbers with 4 bytes each and a window of three:
# shape (3, 3), strides (4, 4). One step down moves one number on, one step right too:
#
# ```
# memory 0 1 2 3 4     window 0:  0 1 2
#                      window 1:  1 2 3
#                      window 2:  2 3 4
# ```
#
# With stride 2 the step down is 8 bytes. For images (n, H, W, C), contiguous, with byte strides `s`, a window at
# output position (oh, ow) starts at pixel (oh * stride, ow * stride). Inside it, one kernel row further is one
# image row further, and the KW * C numbers of a kernel row are one run. That makes five dimensions:
# (n, OH, OW, KH, KW * C).
#
# You set `shape`, those five numbers, and `strides`, how many bytes each of the five walks. `as_strided` does not
# check: a wrong stride reads memory that is not yours. Use only the sizes and `s`, and count the positions with
# `output_size`, whose padding is 0 here.

# %% nbgrader={"grade_id": "sliding-windows", "solution": true}
#| export
def sliding_windows(x, KH, KW, stride):
    """Every window of contiguous images (n, H, W, C) as a view (n, OH, OW, KH, KW * C); nothing is copied.

    Example: for x of shape (1, 1, 5, 1) holding 0 1 2 3 4, sliding_windows(x, 1, 3, 1)[0, 0] holds the
    windows 0 1 2, 1 2 3 and 2 3 4.
    """
    n, H, W, C = x.shape
    s = x.strides
    ### BEGIN SOLUTION
    shape = (n, output_size(H, KH, stride, 0), output_size(W, KW, stride, 0), KH, KW * C)
    strides = (s[0], s[1] * stride, s[2] * stride, s[1], s[3])
    ### END SOLUTION
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)


# %% tags=["nbval-check-output"]
five = np.arange(5.0).reshape(1, 1, 5, 1)
print(sliding_windows(five, 1, 3, 1)[0, 0, :, 0])
print("same memory:", np.shares_memory(five, sliding_windows(five, 1, 3, 1)))

# %% nbgrader={"grade_id": "test-sliding-windows", "grade": true, "points": 2}
def windows_agree(shape, KH, KW, stride):
    x = np.random.default_rng(2).standard_normal(shape)
    got = np.asarray(sliding_windows(x, KH, KW, stride))
    n, H, W, C = shape
    rows, columns = range(0, H - KH + 1, stride), range(0, W - KW + 1, stride)
    wanted = np.array([[[x[k, i : i + KH, j : j + KW] for j in columns] for i in rows] for k in range(n)])
    wanted = wanted.reshape(n, len(rows), len(columns), KH, KW * C)
    case = f"sliding_windows of {shape}, kernel {KH, KW}, stride {stride}"
    assert got.shape == wanted.shape, f"{case}: expected shape {wanted.shape}, got {got.shape}"
    wrong = np.argwhere((got != wanted).any(axis=(3, 4)))
    assert len(wrong) == 0, (
        f"{case}: the window at (n, oh, ow) = {tuple(wrong[0].tolist())} should hold\n{wanted[tuple(wrong[0])].round(2)}\n"
        f"and holds\n{got[tuple(wrong[0])].round(2)}\ncheck each of the five strides"
    )


windows_agree((1, 1, 5, 1), 1, 3, 1)
windows_agree((2, 5, 6, 3), 3, 3, 1)
### BEGIN HIDDEN TESTS
windows_agree((2, 7, 6, 3), 3, 2, 2)
windows_agree((3, 4, 8, 2), 1, 3, 3)
windows_agree((1, 3, 3, 4), 3, 3, 2)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. im2col: convolution is a matrix product
#
# Write every window as one row of a matrix, and every filter as one column of another. Then the product of the
# two holds every output number: (positions × window) @ (window × filters). That is one call of a library that was
# written to keep the processor busy.
#
# The windows overlap in memory, and a matrix library does not accept overlapping rows. So here we do pay for a
# copy: with a 3×3 kernel every pixel is written nine times. That is the price of im2col.
#
# A few helpers are given; read them, you will use them. `scratch` hands out an array that the calling thread uses
# again and again, because fresh memory has a price: the operating system clears and maps every page of it on first
# touch.

# %%
#| export
_memory = threading.local()


def scratch(name, shape, dtype):
    """An uninitialised array of `shape` that this thread gets again at its next call with the same `name`.

    Whoever asks again overwrites what was there: use the array, or copy it, before that.
    """
    size = math.prod(shape)
    buffer = getattr(_memory, name, None)
    if buffer is None or buffer.size < size or buffer.dtype != dtype:
        buffer = np.empty(size, dtype)
        setattr(_memory, name, buffer)
    return buffer[:size].reshape(shape)


# %% [markdown]
# `scratch` serves the small arrays of a block. The large ones, a layer's result and its gradient, live longer and
# change their shape from layer to layer, so they come from `np.empty`, and go back when Python drops them. Back
# where? By default the C library returns a large block to the operating system at once, and the next layer pays for
# clearing the same pages again. glibc, the C library of most Linux systems, can be asked to keep what was freed.

# %%
#| export
def keep_freed_memory():
    """Ask glibc to keep freed memory for the next array; returns whether it does (only glibc can be asked).

    Blocks up to 32 MiB are then kept, 2 GiB in all. Source: mallopt(3) of the Linux manual pages.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # the numbers of malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    wanted = {trim_threshold: 2**31 - 1, top_pad: 2**26, mmap_threshold: 2**25}
    return all(mallopt(key, value) for key, value in wanted.items())


# %% tags=["measure"]
def layers_ms(layers=8, megabytes=16):
    """Milliseconds for filling one new array for each layer and then giving all of them back: the best of five."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        results = [np.full(megabytes * 250_000, 1, np.float32) for _ in range(layers)]
        del results
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


print(f"eight layers of 16 MB, given back to the system: {layers_ms():.1f} ms")

# %%
#| export
keep_freed_memory()

# %% tags=["measure"]
kept = keep_freed_memory()
print(f"eight layers of 16 MB, kept: {layers_ms():.1f} ms" if kept else "this C library cannot be asked")

# %% [markdown]
# `pair` lets a size be one number or two. And `pad` puts zeros around images, in scratch memory.

# %%
#| export
def pair(value):
    """(value, value), or `value` itself where it is a pair already."""
    return value if isinstance(value, tuple) else (value, value)


# %%
#| export
def pad(x, PH, PW):
    """Images (n, H, W, C) with PH rows and PW columns of zeros on each side, in scratch memory.

    A negative number cuts off as many rows or columns instead.
    """
    x = x[:, max(0, -PH) : x.shape[1] + min(0, PH), max(0, -PW) : x.shape[2] + min(0, PW)]
    PH, PW = max(0, PH), max(0, PW)
    n, H, W, C = x.shape
    out = scratch("padded", (n, H + 2 * PH, W + 2 * PW, C), x.dtype)
    out[:, :PH] = out[:, PH + H :] = 0
    out[:, :, :PW] = out[:, :, PW + W :] = 0
    out[:, PH : PH + H, PW : PW + W] = x
    return out


# %% tags=["nbval-check-output"]
print(pad(np.ones((1, 2, 2, 1)), 1, 1)[0, :, :, 0])

# %% [markdown]
# Now the matrix. Pad the images (`pad` wants rows and columns, `pair(padding)` gives both), take the windows, copy
# them into `scratch("im2col", ...)` of the windows' shape and the images' dtype (`matrix[...] = windows` copies),
# and return it reshaped to a matrix with one row a window.

# %% nbgrader={"grade_id": "im2col", "solution": true}
#| export
def im2col(x, KH, KW, stride=1, padding=0):
    """Every window of images (n, H, W, C) as a row of a matrix (n * OH * OW, KH * KW * C), in scratch memory.

    `padding` is a number or a pair (rows, columns).
    Example: 0 1 2 3 as x (1, 1, 4, 1) with KH, KW = 1, 2 gives the rows 0 1, 1 2 and 2 3.
    """
    ### BEGIN SOLUTION
    windows = sliding_windows(pad(x, *pair(padding)), KH, KW, stride)
    matrix = scratch("im2col", windows.shape, x.dtype)
    matrix[...] = windows
    return matrix.reshape(math.prod(windows.shape[:3]), KH * KW * x.shape[3])
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(im2col(np.arange(4.0).reshape(1, 1, 4, 1), 1, 2))

# %% nbgrader={"grade_id": "test-im2col", "grade": true, "points": 2}
def rows_agree(shape, KH, KW, stride, padding):
    x = np.random.default_rng(3).standard_normal(shape)
    got = np.array(im2col(x, KH, KW, stride, padding))
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    n, H, W, C = padded.shape
    wanted = [
        padded[k, i : i + KH, j : j + KW].ravel()
        for k in range(n)
        for i in range(0, H - KH + 1, stride)
        for j in range(0, W - KW + 1, stride)
    ]
    case = f"im2col of {shape}, kernel {KH, KW}, stride {stride}, padding {padding}"
    assert got.shape == (len(wanted), KH * KW * C), (
        f"{case}: expected {(len(wanted), KH * KW * C)}, got {got.shape}"
    )
    wrong = np.flatnonzero((got != wanted).any(axis=1))
    assert len(wrong) == 0, (
        f"{case}: row {wrong[0]} should begin {wanted[wrong[0]][:3].round(3)}, it begins {got[wrong[0], :3].round(3)}; "
        "rows go through n, OH, OW, a row through KH, KW, C"
    )


rows_agree((1, 1, 4, 1), 1, 2, 1, 0)
rows_agree((2, 4, 5, 3), 3, 3, 1, 1)
### BEGIN HIDDEN TESTS
rows_agree((3, 6, 5, 2), 2, 3, 2, 2)
rows_agree((2, 5, 5, 1), 3, 3, 3, 0)
rows_agree((2, 4, 5, 3), 3, 3, 1, 1)  # again: scratch memory keeps nothing of the last call
### END HIDDEN TESTS

# %% [markdown]
# The filters as a matrix: a row of `im2col` runs through (KH, KW, C), so a column has to do the same.

# %%
#| export
def filter_matrix(w):
    """Filters (O, C, KH, KW) as a contiguous matrix (KH * KW * C, O), rows as im2col's columns."""
    return w.transpose(2, 3, 1, 0).reshape(-1, w.shape[0])


# %% [markdown]
# Put it together: the matrix of windows times the matrix of filters, plus the bias. The result has one row for
# each (n, oh, ow) and one column for each output channel, which is already channels-last memory: reshape it to
# (N, OH, OW, O) and return the view (N, O, OH, OW).

# %% nbgrader={"grade_id": "conv2d-matmul", "solution": true}
def conv2d_matmul(x, w, b=None, stride=1, padding=0):
    """Convolution as one matrix product. Shapes as in conv2d_naive."""
    N, C, H, W = x.shape
    O, _, KH, KW = w.shape
    OH, OW = output_size(H, KH, stride, padding), output_size(W, KW, stride, padding)
    ### BEGIN SOLUTION
    y = im2col(channels_last(x), KH, KW, stride, padding) @ filter_matrix(w)
    if b is not None:
        y += b
    return channels_first(y.reshape(N, OH, OW, O))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
x, w, b = rng.standard_normal((2, 3, 8, 8)), rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
print("largest difference:", np.abs(conv2d_matmul(x, w, b, 2, 1) - conv2d_naive(x, w, b, 2, 1)).max().round(12))

# %% nbgrader={"grade_id": "test-conv2d-matmul", "grade": true, "points": 2}
def matmul_agrees(shape, kernels, stride, padding, bias):
    draw = np.random.default_rng(4)
    x, w = draw.standard_normal(shape), draw.standard_normal(kernels)
    b = draw.standard_normal(kernels[0]) if bias else None
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernels[2:], axis=(2, 3))
    wanted = np.einsum("nchwkl,ockl->nohw", windows[:, :, ::stride, ::stride], w)
    wanted = wanted if b is None else wanted + b[:, None, None]
    got = np.asarray(conv2d_matmul(x, w, b, stride, padding))
    case = f"conv2d_matmul, x {shape}, w {kernels}, stride {stride}, padding {padding}, bias {bias}"
    assert got.shape == wanted.shape, f"{case}: expected shape {wanted.shape}, got {got.shape}"
    n, o, i, j = np.unravel_index(np.abs(got - wanted).argmax(), wanted.shape)
    assert np.allclose(got, wanted), (
        f"{case}: y[{n}, {o}, {i}, {j}] should be {wanted[n, o, i, j]:.4f}, got {got[n, o, i, j]:.4f}; "
        "compare with conv2d_naive, without bias first"
    )


matmul_agrees((1, 1, 3, 3), (1, 1, 2, 2), 1, 0, False)
matmul_agrees((2, 3, 6, 6), (4, 3, 3, 3), 1, 1, True)
### BEGIN HIDDEN TESTS
matmul_agrees((2, 3, 6, 7), (4, 3, 3, 2), 2, 1, True)
matmul_agrees((3, 2, 5, 4), (5, 2, 1, 2), 3, 3, False)
### END HIDDEN TESTS

# %% [markdown]
# Same numbers, so now the clock. Look at how many times faster the product is, on the same processor with the
# same multiplications.

# %% tags=["measure"]
def best(function, *arguments, repeats=5):
    """The shortest of a few runs in milliseconds: the others were disturbed."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


# %% tags=["measure"]
small = channels_first(rng.standard_normal((2, 16, 16, 8)).astype(np.float32))
filters = rng.standard_normal((16, 8, 3, 3)).astype(np.float32)
naive_ms = best(conv2d_naive, small, filters, None, 1, 1, repeats=2)
matmul_ms = best(conv2d_matmul, small, filters, None, 1, 1)
print(f"naive {naive_ms:.1f} ms, matmul {matmul_ms:.2f} ms, {naive_ms / matmul_ms:.0f} times faster")

# %% [markdown]
# ## 5. Blocks that fit the cache, shared by threads
#
# The product is fast, but its matrix is large. For a batch of 250 images of 31×31 pixels with 64 channels:

# %% tags=["nbval-check-output"]
print("images ", 250 * 31 * 31 * 64 * 4 // 10**6, "MB")
print("im2col ", 250 * 31 * 31 * 9 * 64 * 4 // 10**6, "MB for the whole batch")
print("im2col ", round(31 * 31 * 9 * 64 * 4 / 10**6, 1), "MB for one image")

# %% [markdown]
# Nine times the images, written to main memory and read back. But no row of the matrix depends on another: take a
# few images at a time, multiply, and use the same scratch memory for the next few. Such a block can stay in the
# cache beside the core, and each thread works on blocks of its own. `parallel_for` from lesson 02 shares them out
# and keeps the matrix library to one thread in each.
#
# How large is a block? `image_blocks` takes whole images until the matrix reaches about `BLOCK_BYTES`. In small
# blocks the cost of each call counts for more; a large block no longer fits the cache. The code below is given.

# %%
#| export
BLOCK_BYTES = 2_000_000  # of one block's im2col matrix: it should stay in the cache near a core


def image_blocks(N, bytes_per_image):
    """Where blocks of whole images start, and how many images a block has, for about BLOCK_BYTES each."""
    step = max(1, min(BLOCK_BYTES // bytes_per_image, -(-N // num_threads())))
    return range(0, N, step), step


# %% [markdown]
# `set_convolution` is a place for later: it does nothing until lesson 18 hands in another way to convolve.

# %%
#| export
_other_path = None


def set_convolution(path):
    """Lesson 18 plugs in here: `path(x, w, b, stride, padding)` is asked first, and returns y or None.

    With None conv2d_forward goes its own way; `set_convolution(None)` takes the path out again.
    """
    global _other_path
    _other_path = path


# %%
#| export
def conv2d_forward(x, w, b=None, stride=1, padding=0):
    """Convolution as blocks of im2col and matrix product; the same numbers as conv2d_naive.

    Shapes: x (N, C, H, W), w (O, C, KH, KW), b (O,) or None -> (N, O, OH, OW) in channels-last memory.
    `padding` is a number or a pair (rows, columns).
    """
    faster = _other_path and _other_path(x, w, b, stride, padding)
    if faster is not None:
        return faster
    N, C, H, W = x.shape
    O, _, KH, KW = w.shape
    PH, PW = pair(padding)
    OH, OW = output_size(H, KH, stride, PH), output_size(W, KW, stride, PW)
    y = np.empty((N, OH, OW, O), x.dtype)
    images, matrix = channels_last(x), filter_matrix(w)
    starts, step = image_blocks(N, OH * OW * matrix.shape[0] * x.itemsize)

    def work(n):
        block = y[n : n + step].reshape(-1, O)
        np.matmul(im2col(images[n : n + step], KH, KW, stride, padding), matrix, out=block)
        if b is not None:
            block += b

    parallel_for(work, starts)
    return channels_first(y)


# %% [markdown]
# Checked against the first version before it is timed, as always:

# %% tags=["nbval-check-output"]
for stride, padding in [(1, 1), (2, 0), (3, 2)]:
    same = np.allclose(conv2d_forward(x, w, b, stride, padding), conv2d_naive(x, w, b, stride, padding))
    print(f"stride {stride}, padding {padding}: same numbers: {same}")

# %% [markdown]
# The figure varies the block size for one layer. Look for where the rate is highest, and whether it falls once a
# block no longer fits your processor's cache.

# %% tags=["measure"]
layer_x = channels_first(rng.standard_normal((64, 15, 15, 64)).astype(np.float32))
layer_w = rng.standard_normal((64, 64, 3, 3)).astype(np.float32)
operations = 2 * 64 * 15 * 15 * 9 * 64 * 64  # a multiplication and an addition for each output and filter entry

# %% tags=["measure"]
usual, megabytes, rates = BLOCK_BYTES, [0.5, 1, 2, 4, 8, 16], []
for size in megabytes:
    BLOCK_BYTES = int(size * 1e6)
    rates.append(operations / best(conv2d_forward, layer_x, layer_w, None, 1, 1) / 1e6)
BLOCK_BYTES = usual

# %% tags=["measure"]
figure, axes = plt.subplots()
axes.plot([str(size) for size in megabytes], rates, "o-")
axes.set(xlabel="MB of im2col matrix in a block", ylabel="GFLOP/s", ylim=(0, None))
show(
    figure,
    alt="Rate of one convolution against the size of its blocks, each twice the one before: "
    + ", ".join(f"{rate:.0f} GFLOP/s at {size:g} MB" for size, rate in zip(megabytes, rates, strict=True)) + ".",
)

# %% [markdown]
# ## 6. Gradients
#
# Training needs two gradients. Each follows from one sentence about the forward pass: *output (n, o, i, j) adds
# `x` at a pixel times `w` at a filter entry.* So, going back with the incoming gradient `g`,
#
# - that pixel of `x` receives `g` times the filter entry, and
# - that filter entry receives `g` times the pixel.
#
# The sentence as code, in loops again, as a judge of what follows:

# %%
#| export
def conv2d_naive_gradients(g, x, w, stride=1, padding=0):
    """The gradients of conv2d_naive for x and w by definition: each product hands `g` to both factors."""
    p, KH, KW = padding, *w.shape[2:]
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for n, o, i, j in np.ndindex(g.shape):
        window = n, slice(None), slice(i * stride, i * stride + KH), slice(j * stride, j * stride + KW)
        dx[window] += g[n, o, i, j] * w[o]
        dw[o] += g[n, o, i, j] * x[window]
    return dx[:, :, p : x.shape[2] - p, p : x.shape[3] - p], dw


# %% [markdown]
# ### The images: convolution backwards is convolution
#
# One row by hand. The image `a b c d`, the filter `1 10`, the outputs y0 = a + 10b, y1 = b + 10c, y2 = c + 10d.
# Pixel b stands in y0 with weight 10 and in y1 with weight 1: it receives 10·g0 + 1·g1. Pixel c receives
# 10·g1 + 1·g2. That is a window sliding over g with the filter **turned around**, `10 1`. Pixel a is only in y0,
# so the window reaches over the edge: g is padded with kernel - 1 zeros.
#
# In two dimensions the filter is turned around in height and in width, and input and output channels swap roles:
# the flipped filters have shape (C, O, KH, KW).
#
# A **stride** of 2 skips every other position. Put those positions back, with a gradient of zero (nothing was
# computed there), and what remains is a convolution with stride 1. Along a padded image of size H there are
# H + 2·padding - KH + 1 positions at stride 1; output i sits at position i · stride. The array of zeros, `wide`, is
# given; you put `g` into it.

# %% nbgrader={"grade_id": "spread", "solution": true}
#| export
def spread(g, stride, OH, OW):
    """The gradient g (N, O, h, w) of a convolution with `stride`, laid out on OH x OW positions at stride 1.

    Positions that the stride skipped hold zero. The result has channels-last memory.
    Example: g 5 7 as (1, 1, 1, 2) with stride 2, OH = 1, OW = 4 becomes 5 0 7 0.
    """
    N, O = g.shape[:2]
    wide = channels_first(np.zeros((N, OH, OW, O), g.dtype))
    ### BEGIN SOLUTION
    wide[:, :, ::stride, ::stride][:, :, : g.shape[2], : g.shape[3]] = g
    ### END SOLUTION
    return wide


# %% tags=["nbval-check-output"]
print(spread(np.array([5.0, 7.0]).reshape(1, 1, 1, 2), 2, 1, 4).ravel())

# %% nbgrader={"grade_id": "test-spread", "grade": true, "points": 1}
def spread_agrees(shape, stride, OH, OW):
    g = np.random.default_rng(5).standard_normal(shape)
    wanted = np.zeros((*shape[:2], OH, OW))
    for i in range(shape[2]):
        for j in range(shape[3]):
            wanted[:, :, i * stride, j * stride] = g[:, :, i, j]
    got = np.asarray(spread(g, stride, OH, OW))
    assert got.shape == wanted.shape, f"spread: expected shape {wanted.shape}, got {got.shape}"
    assert np.array_equal(got, wanted), (
        f"spread of {shape}, stride {stride}: expected first row {wanted[0, 0, 0].round(2)}, "
        f"got {got[0, 0, 0].round(2)}; output i belongs at position i * stride"
    )


spread_agrees((1, 1, 1, 2), 2, 1, 4)
spread_agrees((2, 3, 3, 2), 2, 5, 3)
### BEGIN HIDDEN TESTS
spread_agrees((2, 1, 2, 3), 3, 6, 9)
spread_agrees((1, 2, 3, 3), 1, 3, 3)
### END HIDDEN TESTS

# %% [markdown]
# Now the gradient of the images, from pieces that you have: flip, swap, and convolve with `conv2d_forward`,
# without bias, stride 1. How much padding? The forward pass padded with `padding`, so the gradient of the
# *padded* image would need kernel - 1, and the part inside the padding needs kernel - 1 - padding. That may be
# negative where the padding was wide: `pad` then cuts off what belongs to the zeros.

# %% nbgrader={"grade_id": "conv2d-input-gradient", "solution": true}
#| export
def conv2d_input_gradient(g, shape, w, stride=1, padding=0):
    """The gradient of the images: every output hands its gradient back through the flipped filter.

    Shapes: g (N, O, OH, OW), w (O, C, KH, KW); `shape` is that of the images and of the result, (N, C, H, W).
    """
    N, C, H, W = shape
    KH, KW = w.shape[2:]
    if stride > 1:
        g = spread(g, stride, H + 2 * padding - KH + 1, W + 2 * padding - KW + 1)
    ### BEGIN SOLUTION
    flipped = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return conv2d_forward(g, flipped, None, 1, (KH - 1 - padding, KW - 1 - padding))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
g = np.array([1.0, 100, 10000]).reshape(1, 1, 1, 3)
print(conv2d_input_gradient(g, (1, 1, 1, 4), pattern).ravel())  # a, b, c, d of the row above

# %% nbgrader={"grade_id": "test-conv2d-input-gradient", "grade": true, "points": 3}
def input_gradient_agrees(shape, kernels, stride, padding):
    draw, p = np.random.default_rng(6), padding
    w, (N, C, H, W), (O, _, KH, KW) = draw.standard_normal(kernels), shape, kernels
    OH, OW = (H + 2 * p - KH) // stride + 1, (W + 2 * p - KW) // stride + 1
    g = draw.standard_normal((N, O, OH, OW))
    padded = np.zeros((N, C, H + 2 * p, W + 2 * p))
    for i in range(KH):  # every filter entry hands g back to the pixels that it met
        for j in range(KW):
            rows, columns = slice(i, i + stride * OH, stride), slice(j, j + stride * OW, stride)
            part = np.einsum("nohw,oc->nchw", g, w[:, :, i, j])
            padded[:, :, rows, columns][:, :, :OH, :OW] += part
    wanted = padded[:, :, p : p + H, p : p + W]
    got = np.asarray(conv2d_input_gradient(g, shape, w, stride, padding))
    case = f"conv2d_input_gradient, x {shape}, w {kernels}, stride {stride}, padding {padding}"
    assert got.shape == wanted.shape, f"{case}: expected shape {wanted.shape}, got {got.shape}"
    n, c, i, j = np.unravel_index(np.abs(got - wanted).argmax(), wanted.shape)
    assert np.allclose(got, wanted), (
        f"{case}: at [{n}, {c}, {i}, {j}] expected {wanted[n, c, i, j]:.4f}, got {got[n, c, i, j]:.4f}; "
        "look at the flip in both directions, the swapped channels and the padding"
    )


input_gradient_agrees((1, 1, 4, 4), (1, 1, 2, 2), 1, 0)
input_gradient_agrees((2, 3, 6, 5), (4, 3, 3, 3), 1, 1)
### BEGIN HIDDEN TESTS
input_gradient_agrees((2, 3, 7, 6), (4, 3, 3, 3), 2, 1)
input_gradient_agrees((2, 2, 6, 7), (3, 2, 2, 3), 2, 0)
input_gradient_agrees((1, 2, 5, 4), (3, 2, 2, 3), 1, 3)  # padding larger than the kernel
input_gradient_agrees((2, 1, 8, 8), (2, 1, 3, 3), 3, 0)  # pixels that no window saw
### END HIDDEN TESTS

# %% [markdown]
# ### The filters: im2col once more
#
# In the forward pass `y = col @ matrix`. From lesson 05 you know the gradient of the second factor of a product:
# `col.T @ g`, here with g as a matrix (positions × O). Summed over blocks, because every image used the same
# filters. Each thread adds into a sum of its own, so that no two threads write to the same place.
#
# You fill in two things: what a block of images, those from n to n + step, adds to `sums[thread]`, and the way from
# the matrix `total` (KH * KW * C, O) back to filters (O, C, KH, KW). `product` is memory for the product:
# `np.matmul(a, b, out=product)` writes into it.

# %% nbgrader={"grade_id": "conv2d-weight-gradient", "solution": true}
#| export
def conv2d_weight_gradient(g, x, shape, stride=1, padding=0):
    """The gradient of the filters: im2col transposed times the output's gradient, summed over blocks.

    Shapes: g (N, O, OH, OW), x (N, C, H, W); `shape` is that of filters and result, (O, C, KH, KW).
    """
    O, C, KH, KW = shape
    images, gradient = channels_last(x), channels_last(g)
    starts, step = image_blocks(len(x), g.shape[2] * g.shape[3] * KH * KW * C * x.itemsize)
    sums = np.zeros((num_threads(), KH * KW * C, O), x.dtype)

    def work(thread):
        product = scratch("product", sums[thread].shape, x.dtype)
        for n in starts[thread :: num_threads()]:
            rows = gradient[n : n + step].reshape(-1, O)  # one row a position
            ### BEGIN SOLUTION
            col = im2col(images[n : n + step], KH, KW, stride, padding)
            sums[thread] += np.matmul(col.T, rows, out=product)
            ### END SOLUTION

    parallel_for(work, range(num_threads()))
    total = sums.sum(axis=0)
    ### BEGIN SOLUTION
    return total.reshape(KH, KW, C, O).transpose(3, 2, 0, 1)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(conv2d_weight_gradient(g, row, pattern.shape).ravel())  # 1 2 3 4 and its right neighbours, weighted by g

# %% nbgrader={"grade_id": "test-conv2d-weight-gradient", "grade": true, "points": 2}
def weight_gradient_agrees(shape, kernels, stride, padding):
    draw, p = np.random.default_rng(7), padding
    x = draw.standard_normal(shape)
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernels[2:], axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    g = draw.standard_normal((shape[0], kernels[0], *windows.shape[2:4]))
    wanted = np.einsum("nohw,nchwkl->ockl", g, windows)
    got = np.asarray(conv2d_weight_gradient(g, x, kernels, stride, padding))
    case = f"conv2d_weight_gradient, x {shape}, w {kernels}, stride {stride}, padding {padding}"
    assert got.shape == wanted.shape, f"{case}: expected shape {wanted.shape}, got {got.shape}"
    o, c, k, l = np.unravel_index(np.abs(got - wanted).argmax(), wanted.shape)
    assert np.allclose(got, wanted), (
        f"{case}: at [{o}, {c}, {k}, {l}] expected {wanted[o, c, k, l]:.4f}, got {got[o, c, k, l]:.4f}; "
        "every block adds to the sum, and the result goes from (KH, KW, C, O) to (O, C, KH, KW)"
    )


weight_gradient_agrees((1, 1, 4, 4), (1, 1, 2, 2), 1, 0)
weight_gradient_agrees((3, 3, 6, 5), (4, 3, 3, 3), 1, 1)
### BEGIN HIDDEN TESTS
weight_gradient_agrees((5, 2, 7, 6), (3, 2, 3, 2), 2, 1)
weight_gradient_agrees((40, 3, 100, 100), (2, 3, 3, 3), 1, 1)  # more blocks than threads
weight_gradient_agrees((2, 2, 3, 3), (3, 2, 2, 2), 1, 2)
### END HIDDEN TESTS

# %% [markdown]
# The bias stands at every position, so its gradient is the sum of g over images and positions. `column_sums` adds up
# the columns of a matrix in blocks of rows, on all threads, and adds the blocks in float64: long sums in float32
# lose digits.

# %%
#| export
ROW_BLOCK = 32768  # numbers in a block of rows: a few such blocks fit the cache


def pixel_matrix(x):
    """Images (N, C, H, W) as a matrix (N * H * W, C): a view where the memory is channels-last."""
    return channels_last(x).reshape(-1, x.shape[1])


# %%
#| export
def row_blocks(matrix):
    """Blocks of rows of a matrix that fit the cache, as slices."""
    step = max(1, ROW_BLOCK // matrix.shape[1])
    return [slice(i, i + step) for i in range(0, len(matrix), step)]


# %%
#| export
def column_sums(function, matrix):
    """The sum, in float64, of `function(rows)` over all blocks of rows; `rows` are slices of `matrix`."""
    blocks = row_blocks(matrix)
    parts = [None] * len(blocks)

    def work(k):
        parts[k] = function(blocks[k])

    parallel_for(work, range(len(blocks)))
    return np.sum(parts, axis=0, dtype=np.float64)


# %% [markdown]
# The three gradients become the rule of `conv2d_forward`. As in lesson 05, a rule may return functions instead of
# arrays: each is called only where its gradient is asked for, and the first layer needs none for its images.

# %%
#| export
@vjp(conv2d_forward)
def conv2d_vjp(g, y, x, w, b=None, stride=1, padding=0):
    """The gradients of images, filters and bias, as functions: computed only where they are asked for."""
    pixels = pixel_matrix(g)
    return (
        lambda: conv2d_input_gradient(g, x.shape, w, stride, padding),
        lambda: conv2d_weight_gradient(g, x, w.shape, stride, padding),
        lambda: column_sums(lambda rows: pixels[rows].sum(axis=0), pixels).astype(g.dtype),
    )


# %% [markdown]
# Two judges: the loops, and finite differences. `gradcheck` moves all inputs a little and compares.

# %% tags=["nbval-check-output"]
for stride, padding in [(1, 0), (1, 1), (2, 1), (3, 4)]:
    y = conv2d_naive(x, w, b, stride, padding)  # stands in for g
    judged = conv2d_naive_gradients(y, x, w, stride, padding)
    fast = [conv2d_input_gradient(y, x.shape, w, stride, padding), conv2d_weight_gradient(y, x, w.shape, stride, padding)]
    print(f"stride {stride}, padding {padding}: images and filters", [np.allclose(*two) for two in zip(judged, fast)])

# %% tags=["nbval-check-output"]
gradcheck(
    lambda x, w, b: apply(conv2d_forward, x, w, b, stride=2, padding=1),
    [Tensor(a, dtype=np.float64) for a in (x, w, b)],
)

# %% [markdown]
# ## 7. The layer
#
# `check_images` turns the usual mistakes into one line that names the shapes. It serves every layer below.

# %%
#| export
def check_images(name, x, kernel, padding, channels=None):
    """Raise ValueError unless x is (N, C, H, W), with `channels` channels, and holds at least one window."""
    if x.ndim != 4 or (channels is not None and x.shape[1] != channels):
        raise ValueError(f"{name}: expected images (N, {channels or 'C'}, H, W), got {x.shape}")
    padded = x.shape[2] + 2 * padding, x.shape[3] + 2 * padding
    if kernel[0] > padded[0] or kernel[1] > padded[1]:
        raise ValueError(f"{name}: kernel {tuple(kernel)} is larger than the padded image {padded}")


# %%
#| export
class Conv2d(Module):
    """Convolution. Shapes: x (N, in_channels, H, W) -> (N, out_channels, OH, OW).

    The weight is (out_channels, in_channels, KH, KW), the bias (out_channels,); both start uniform in
    ±1/sqrt(in_channels * KH * KW), as in PyTorch. `kernel_size` is a number or a pair; stride and padding
    count pixels. Raises ValueError for sizes that are not positive, for other than `in_channels` channels,
    and for a kernel larger than the padded image.
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, bias=True):
        KH, KW = pair(kernel_size)
        if min(in_channels, out_channels, KH, KW, stride) < 1 or padding < 0:
            raise ValueError(
                f"Conv2d: expected positive sizes, got channels {in_channels} and {out_channels}, "
                f"kernel {KH, KW}, stride {stride}, padding {padding}"
            )
        bound = 1 / math.sqrt(in_channels * KH * KW)
        self.weight = uniform(bound, out_channels, in_channels, KH, KW)
        self.bias = uniform(bound, out_channels) if bias else None
        self.stride, self.padding = stride, padding

    def __repr__(self):
        O, C, KH, KW = self.weight.shape
        return (
            f"Conv2d({C}, {O}, kernel_size={KH, KW}, stride={self.stride}, padding={self.padding}, "
            f"bias={self.bias is not None})"
        )


# %% [markdown]
# You write `forward`: check the images (the kernel's size and the number of channels stand in the shape of
# `self.weight`), then call `conv2d_forward` through `apply`, which records it for `backward`. Tensors are given in
# order, plain settings by name: `apply(primitive, x, ..., setting=...)`. A layer without bias has `self.bias` None
# and passes only two tensors.

# %% nbgrader={"grade_id": "conv2d", "solution": true}
#| export
class Conv2d(Conv2d):
    def forward(self, x):
        """x (N, in_channels, H, W) -> (N, out_channels, OH, OW)."""
        ### BEGIN SOLUTION
        check_images("Conv2d", x, self.weight.shape[2:], self.padding, self.weight.shape[1])
        inputs = (x, self.weight) if self.bias is None else (x, self.weight, self.bias)
        return apply(conv2d_forward, *inputs, stride=self.stride, padding=self.padding)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
layer = Conv2d(3, 8, 3, stride=2, padding=1)
print(layer, layer(Tensor(np.zeros((10, 3, 32, 32)))).shape, sum(p.numel() for p in layer.parameters()), "numbers")

# %% nbgrader={"grade_id": "test-conv2d", "grade": true, "points": 3}
def layer_agrees(C, O, kernel, stride, padding, bias, H, W):
    draw = np.random.default_rng(8)
    layer = Conv2d(C, O, kernel, stride=stride, padding=padding, bias=bias)
    x = draw.standard_normal((2, C, H, W)).astype(np.float32)
    images = Tensor(x, requires_grad=True)
    y = layer(images)
    w = np.asarray(layer.weight)
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    wanted = np.einsum("nchwkl,ockl->nohw", windows, w)
    if bias:
        wanted = wanted + np.asarray(layer.bias)[:, None, None]
    case = f"Conv2d({C}, {O}, {kernel}, stride={stride}, padding={padding}, bias={bias}) on {x.shape}"
    assert y.shape == wanted.shape, f"{case}: expected shape {wanted.shape}, got {y.shape}"
    assert np.allclose(np.asarray(y), wanted, atol=1e-5), (
        f"{case}: largest difference {np.abs(np.asarray(y) - wanted).max():.3g}; "
        "are stride, padding and bias passed on?"
    )
    g = draw.standard_normal(wanted.shape).astype(np.float32)
    y.backward(g)
    dw = np.einsum("nohw,nchwkl->ockl", g, windows)
    assert layer.weight.grad is not None, f"{case}: no gradient; call the primitive through apply"
    got = np.asarray(layer.weight.grad)
    assert np.allclose(got, dw, atol=1e-3), (
        f"{case}, the weight's gradient: expected {dw.ravel()[:3].round(3)}..., got {got.ravel()[:3].round(3)}..."
    )
    if bias:
        got, db = np.asarray(layer.bias.grad), g.sum(axis=(0, 2, 3))
        assert np.allclose(got, db, atol=1e-3), f"{case}, the bias's gradient: expected {db.round(3)}, got {got.round(3)}"
    # convolution without bias is linear: <dx, x> must equal <g, y - b>
    plain = wanted - (np.asarray(layer.bias)[:, None, None] if bias else 0)
    sides = float((np.asarray(images.grad) * x).sum()), float((g * plain).sum())
    assert np.isclose(*sides, rtol=1e-3, atol=1e-2), (
        f"{case}, the images' gradient dx: expected sum(dx * x) = sum(g * (y - b)) = {sides[1]:.4f}, got {sides[0]:.4f}"
    )


def error_of(layer, shape):
    try:
        layer(Tensor(np.zeros(shape)))
    except ValueError as error:
        return str(error)
    return "no ValueError"


layer_agrees(3, 4, 3, 1, 1, True, 6, 6)
layer_agrees(2, 5, 2, 2, 0, False, 6, 6)
message = error_of(Conv2d(3, 4, 3), (2, 5, 8, 8))
assert "(2, 5, 8, 8)" in message, f"5 channels instead of 3: expected check_images' error, got {message!r}"
### BEGIN HIDDEN TESTS
layer_agrees(3, 2, (2, 3), 2, 3, True, 5, 7)
layer_agrees(1, 3, 3, 3, 1, True, 8, 5)
message = error_of(Conv2d(3, 4, 5, padding=1), (2, 3, 2, 2))
assert "(5, 5)" in message and "(4, 4)" in message, f"kernel 5 on a padded 4: expected an error, got {message!r}"
message = error_of(Conv2d(3, 4, 3), (3, 8, 8))
assert "(3, 8, 8)" in message, f"images without a batch dimension: expected an error, got {message!r}"
### END HIDDEN TESTS

# %% [markdown]
# ## 8. Pooling
#
# Pooling makes an image smaller: of every window it keeps the largest value or the mean. It works on each channel
# alone and has nothing to learn.
#
# By hand: the row `3 1 | 4 1`, windows of two with stride two: the largest are `3 4`, the means `2 2.5`.
#
# No matrix is needed here. `window_entry(i, j, ...)` is the slice that holds entry (i, j) of *every* window at
# once; the maximum over windows is a running maximum over kernel × kernel such slices.

# %%
#| export
def window_entry(i, j, OH, OW, stride):
    """The slice of images (n, H, W, C) that holds entry (i, j) of all OH x OW windows."""
    rows = slice(i, i + stride * (OH - 1) + 1, stride)
    columns = slice(j, j + stride * (OW - 1) + 1, stride)
    return slice(None), rows, columns


# %% tags=["nbval-check-output"]
line = np.array([3.0, 1, 4, 1]).reshape(1, 1, 4, 1)
print([line[window_entry(0, j, 1, 2, 2)].ravel().tolist() for j in range(2)])

# %% [markdown]
# The left entries of both windows, then the right ones. Write the running maximum for a block of images, into
# `out`, the array given for the result (n, OH, OW, C): begin with entry (0, 0) of every window, since zero would be
# wrong for negative numbers. `np.maximum(a, b, out=a)` keeps the larger in `a`.

# %% nbgrader={"grade_id": "max-pool-block", "solution": true}
#| export
def max_pool_block(images, out, kernel, stride):
    """Write the largest value of every window of images (n, H, W, C) into `out` (n, OH, OW, C)."""
    OH, OW = out.shape[1:3]
    ### BEGIN SOLUTION
    out[...] = images[window_entry(0, 0, OH, OW, stride)]
    for k in range(1, kernel * kernel):
        np.maximum(out, images[window_entry(*divmod(k, kernel), OH, OW, stride)], out=out)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
square, largest = np.arange(16.0).reshape(1, 4, 4, 1), np.empty((1, 2, 2, 1))
max_pool_block(square, largest, 2, 2)
print(largest[0, :, :, 0])

# %% nbgrader={"grade_id": "test-max-pool-block", "grade": true, "points": 2}
def max_pool_agrees(shape, kernel, stride, shift=0.0):
    x = np.random.default_rng(9).standard_normal(shape) + shift
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))
    wanted = windows[:, ::stride, ::stride].max(axis=(-1, -2))
    out = np.full(wanted.shape, np.nan)
    max_pool_block(x, out, kernel, stride)
    n, i, j, c = np.unravel_index(np.abs(out - wanted).argmax(), wanted.shape)
    assert np.array_equal(out, wanted), (
        f"max_pool_block of {shape}, kernel {kernel}, stride {stride}: out[{n}, {i}, {j}, {c}] should be "
        f"{wanted[n, i, j, c]:.3f}, got {out[n, i, j, c]:.3f}; does every entry of the window take part?"
    )


max_pool_agrees((1, 4, 4, 1), 2, 2)
max_pool_agrees((2, 6, 6, 3), 3, 3)
### BEGIN HIDDEN TESTS
max_pool_agrees((2, 7, 5, 2), 2, 2, shift=-10)  # all negative: nothing may start at zero
max_pool_agrees((2, 7, 6, 3), 3, 2)
max_pool_agrees((1, 5, 5, 2), 2, 1)
### END HIDDEN TESTS

# %% [markdown]
# Whole batches go through it in blocks, like the convolution:

# %%
#| export
def max_pool2d_forward(x, kernel, stride):
    """The largest value of every window; x (N, C, H, W) -> (N, C, OH, OW)."""
    images = channels_last(x)
    N, H, W, C = images.shape
    y = np.empty((N, output_size(H, kernel, stride, 0), output_size(W, kernel, stride, 0), C), x.dtype)
    starts, step = image_blocks(N, H * W * C * x.itemsize)
    parallel_for(lambda n: max_pool_block(images[n : n + step], y[n : n + step], kernel, stride), starts)
    return channels_first(y)


# %% [markdown]
# ### Its gradient
#
# Only the largest value of a window mattered, so it alone receives the gradient. And with a tie? After a ReLU,
# windows full of equal zeros are common. Someone has to get the gradient exactly once: as in PyTorch, the *first*
# entry in reading order. Keep a mask `free` of the windows that have not handed out theirs yet.
#
# You write what happens for each entry (i, j), with `entry` its slice. A window whose entry equals the largest
# *and* is still free gives it `g`; then it is free no more. With a stride smaller than the kernel, windows overlap
# and a pixel may win several of them: add to `dx[entry]`, do not overwrite.

# %% nbgrader={"grade_id": "max-pool-block-gradient", "solution": true}
#| export
def max_pool_block_gradient(g, largest, images, dx, kernel, stride):
    """Add the gradient g (n, OH, OW, C) of every window to its first largest entry, in dx (n, H, W, C).

    `largest` is the result of the forward pass; dx comes filled with zeros and is changed in place.
    """
    free = np.ones(largest.shape, bool)
    for i in range(kernel):
        for j in range(kernel):
            entry = window_entry(i, j, *largest.shape[1:3], stride)
            ### BEGIN SOLUTION
            hit = images[entry] == largest
            hit &= free
            free ^= hit
            if stride < kernel:
                dx[entry] += g * hit
            else:  # no pixel is in two windows
                np.multiply(g, hit, out=dx[entry])
            ### END SOLUTION


# %% tags=["nbval-check-output"]
tie = np.array([5.0, 5, 2, 7]).reshape(1, 2, 2, 1)
dx = np.zeros_like(tie)
max_pool_block_gradient(np.array([[[[1.0]]]]), np.array([[[[7.0]]]]), tie, dx, 2, 2)
print(dx.ravel())

# %% nbgrader={"grade_id": "test-max-pool-block-gradient", "grade": true, "points": 2}
def max_gradient_agrees(x, kernel, stride):
    n, H, W, C = x.shape
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    largest = windows.max(axis=(-1, -2))
    g = np.random.default_rng(10).standard_normal(largest.shape)
    wanted = np.zeros_like(x)
    for k, i, j, c in np.ndindex(largest.shape):
        first = int(windows[k, i, j, c].argmax())
        wanted[k, i * stride + first // kernel, j * stride + first % kernel, c] += g[k, i, j, c]
    got = np.zeros_like(x)
    max_pool_block_gradient(g, largest, x, got, kernel, stride)
    k, i, j, c = np.unravel_index(np.abs(got - wanted).argmax(), wanted.shape)
    assert np.allclose(got, wanted), (
        f"max_pool_block_gradient of {x.shape}, kernel {kernel}, stride {stride}: dx[{k}, {i}, {j}, {c}] should be "
        f"{wanted[k, i, j, c]:.3f}, got {got[k, i, j, c]:.3f}; a window's gradient goes once, to the first of its "
        "largest entries"
    )


max_gradient_agrees(np.random.default_rng(11).standard_normal((2, 4, 4, 3)), 2, 2)
max_gradient_agrees(np.zeros((1, 4, 4, 1)), 2, 2)
### BEGIN HIDDEN TESTS
max_gradient_agrees(np.random.default_rng(12).integers(0, 3, (2, 7, 6, 2)).astype(float), 3, 3)
max_gradient_agrees(np.random.default_rng(13).integers(0, 3, (2, 7, 6, 2)).astype(float), 3, 2)
max_gradient_agrees(np.random.default_rng(14).standard_normal((1, 5, 5, 2)), 2, 1)
### END HIDDEN TESTS

# %%
#| export
@vjp(max_pool2d_forward)
def max_pool2d_vjp(g, y, x, kernel, stride):
    """Blocks of max_pool_block_gradient on all threads."""
    images, largest, gradient = channels_last(x), channels_last(y), channels_last(g)
    dx = np.empty(images.shape, x.dtype)
    starts, step = image_blocks(len(x), math.prod(images.shape[1:]) * x.itemsize)

    def work(n):
        block = slice(n, n + step)
        dx[block] = 0
        max_pool_block_gradient(gradient[block], largest[block], images[block], dx[block], kernel, stride)

    parallel_for(work, starts)
    return (channels_first(dx),)


# %% [markdown]
# ### The mean
#
# The mean of a window is a sum of the same slices, divided by kernel². Its gradient gives every entry the same
# share, g / kernel², and adds where windows overlap. Write both for whole arrays (N, H, W, C). By hand: the window
# `0 1 4 5` has the mean 2.5, and a gradient of 2.5 gives each of the four 0.625.

# %% nbgrader={"grade_id": "avg-pool", "solution": true}
#| export
def average_windows(images, OH, OW, kernel, stride):
    """The mean of every window of images (N, H, W, C) as a new array (N, OH, OW, C)."""
    ### BEGIN SOLUTION
    entries = (divmod(k, kernel) for k in range(kernel * kernel))
    return sum(images[window_entry(i, j, OH, OW, stride)] for i, j in entries) / kernel**2
    ### END SOLUTION


def average_windows_gradient(g, shape, kernel, stride):
    """The gradient, of `shape` (N, H, W, C), that g (N, OH, OW, C) gives to the images."""
    dx = np.zeros(shape, g.dtype)
    ### BEGIN SOLUTION
    for k in range(kernel * kernel):
        dx[window_entry(*divmod(k, kernel), *g.shape[1:3], stride)] += g / kernel**2
    ### END SOLUTION
    return dx


# %% tags=["nbval-check-output"]
means = average_windows(square, 2, 2, 2, 2)
print(means[0, :, :, 0], average_windows_gradient(means, square.shape, 2, 2)[0, :, :, 0], sep="\n")

# %% nbgrader={"grade_id": "test-avg-pool", "grade": true, "points": 2}
def average_agrees(shape, kernel, stride):
    draw = np.random.default_rng(15)
    x = draw.standard_normal(shape)
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    wanted = windows.mean(axis=(-1, -2))
    got = np.asarray(average_windows(x, *wanted.shape[1:3], kernel, stride))
    case = f"of {shape}, kernel {kernel}, stride {stride}"
    assert got.shape == wanted.shape, f"average_windows {case}: expected {wanted.shape}, got {got.shape}"
    at = np.unravel_index(np.abs(got - wanted).argmax(), wanted.shape)
    assert np.allclose(got, wanted), f"average_windows {case}: expected a mean of {wanted[at]:.4f}, got {got[at]:.4f}"
    g, dx = draw.standard_normal(wanted.shape), np.zeros(shape)
    for k, i, j, c in np.ndindex(wanted.shape):
        dx[k, i * stride : i * stride + kernel, j * stride : j * stride + kernel, c] += g[k, i, j, c] / kernel**2
    got = np.asarray(average_windows_gradient(g, shape, kernel, stride))
    k, i, j, c = np.unravel_index(np.abs(got - dx).argmax(), shape)
    assert np.allclose(got, dx), (
        f"average_windows_gradient {case}: dx[{k}, {i}, {j}, {c}] should be {dx[k, i, j, c]:.4f}, "
        f"got {got[k, i, j, c]:.4f}; add where windows overlap"
    )


average_agrees((1, 4, 4, 1), 2, 2)
average_agrees((2, 5, 6, 3), 3, 2)
### BEGIN HIDDEN TESTS
average_agrees((2, 7, 8, 2), 3, 3)
average_agrees((1, 4, 5, 2), 2, 1)
### END HIDDEN TESTS

# %%
#| export
def avg_pool2d_forward(x, kernel, stride):
    """The mean of every window; x (N, C, H, W) -> (N, C, OH, OW)."""
    OH, OW = (output_size(size, kernel, stride, 0) for size in x.shape[2:])
    return channels_first(average_windows(channels_last(x), OH, OW, kernel, stride))


# %%
#| export
@vjp(avg_pool2d_forward)
def avg_pool2d_vjp(g, y, x, kernel, stride):
    """Every entry of a window gets an equal share."""
    return (channels_first(average_windows_gradient(channels_last(g), channels_last(x).shape, kernel, stride)),)


# %% [markdown]
# Two layers, one frame: they differ in the primitive that they apply.

# %%
#| export
class Pool2d(Module):
    """What the two pooling layers share; `primitive` is the function on arrays that they apply.

    Shapes: x (N, C, H, W) -> (N, C, OH, OW). The stride is the kernel unless given. Raises ValueError for
    sizes that are not positive and for a kernel larger than the image.
    """

    primitive = None

    def __init__(self, kernel_size, stride=None):
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        if min(self.kernel_size, self.stride) < 1:
            raise ValueError(
                f"{type(self).__name__}: expected positive sizes, "
                f"got kernel {self.kernel_size}, stride {self.stride}"
            )

    def forward(self, x):
        check_images(type(self).__name__, x, pair(self.kernel_size), 0)
        return apply(self.primitive, x, kernel=self.kernel_size, stride=self.stride)

    def __repr__(self):
        return f"{type(self).__name__}({self.kernel_size}, stride={self.stride})"


# %%
#| export
class MaxPool2d(Pool2d):
    """The largest value of every kernel x kernel window: x (N, C, H, W) -> (N, C, OH, OW)."""

    primitive = staticmethod(max_pool2d_forward)


# %%
#| export
class AvgPool2d(Pool2d):
    """The mean of every kernel x kernel window: x (N, C, H, W) -> (N, C, OH, OW)."""

    primitive = staticmethod(avg_pool2d_forward)


# %% tags=["nbval-check-output"]
image = Tensor(np.arange(16).reshape(1, 1, 4, 4))
print(MaxPool2d(2)(image).numpy()[0, 0], AvgPool2d(2)(image).numpy()[0, 0], sep="\n")

# %% [markdown]
# ## 9. Batch normalisation
#
# While a deep network trains, the numbers between its layers drift, and every layer has to follow the ones before
# it. Batch normalisation (Ioffe and Szegedy, 2015) brings each channel to mean 0 and variance 1, over all images
# and positions, and then lets the network choose another scale `gamma` and shift `beta`:
#
# $$y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta$$
#
# By hand: a channel holds 1 and 3. Mean 2, variance 1, normalised -1 and 1.
#
# `channel_statistics` takes two passes, first the mean, then the squares of what is left. The one-pass formula
# mean(x²) - mean(x)² subtracts two large numbers, and in float32 little is left, as the second cell shows.

# %%
#| export
def channel_statistics(x):
    """Mean and variance (divided by the count, not count - 1) of every channel of images (N, C, H, W)."""
    matrix = pixel_matrix(x)
    mean = (column_sums(lambda rows: matrix[rows].sum(axis=0), matrix) / len(matrix)).astype(x.dtype)

    def squares(rows):
        centered = matrix[rows] - mean
        return np.einsum("nc,nc->c", centered, centered)

    return mean, (column_sums(squares, matrix) / len(matrix)).astype(x.dtype)


# %% tags=["nbval-check-output"]
print(*channel_statistics(np.array([1.0, 3]).reshape(2, 1, 1, 1)))

# %% tags=["measure"]
near = np.linspace(999.9, 1000.1, 1001, dtype=np.float32)  # around 1000, with a variance of 0.0033
print("two passes", channel_statistics(near.reshape(-1, 1, 1, 1))[1], "one pass", (near**2).mean() - near.mean() ** 2)

# %% [markdown]
# For the forward pass, y is one multiplication and one addition per pixel: `x * scale + shift`, with two numbers
# for each channel. Work out `scale` and `shift` from the formula.

# %% nbgrader={"grade_id": "batch-norm-forward", "solution": true}
#| export
def batch_norm_forward(x, gamma, beta, mean, var, eps, batch):
    """gamma (x - mean) / sqrt(var + eps) + beta, channel by channel.

    Shapes: x (N, C, H, W); gamma, beta, mean and var (C,). `batch` says that mean and var are those of x
    itself: then the gradient flows through them too.
    """
    matrix = pixel_matrix(x)
    y = np.empty_like(matrix)
    ### BEGIN SOLUTION
    scale = gamma / np.sqrt(var + eps)
    shift = beta - mean * scale
    ### END SOLUTION

    def work(rows):
        np.multiply(matrix[rows], scale, out=y[rows])
        y[rows] += shift

    parallel_for(work, row_blocks(matrix))
    return channels_first(y.reshape(channels_last(x).shape))


# %% tags=["nbval-check-output"]
two = np.array([1.0, 3]).reshape(2, 1, 1, 1)
one, zero = np.ones(1), np.zeros(1)
print(batch_norm_forward(two, one, zero, *channel_statistics(two), eps=0, batch=True).ravel())

# %% nbgrader={"grade_id": "test-batch-norm-forward", "grade": true, "points": 2}
def norm_agrees(shape, eps):
    draw = np.random.default_rng(16)
    x, C = 3 * draw.standard_normal(shape) + 5, shape[1]
    gamma, beta, mean = (draw.standard_normal(C) for _ in range(3))
    var = draw.uniform(0.5, 2, C)
    column = (slice(None), None, None)
    wanted = (x - mean[column]) / (var[column] + eps) ** 0.5 * gamma[column] + beta[column]
    got = np.asarray(batch_norm_forward(x, gamma, beta, mean, var, eps=eps, batch=False))
    assert got.shape == shape, f"batch_norm_forward: expected shape {shape}, got {got.shape}"
    at = np.unravel_index(np.abs(got - wanted).argmax(), shape)
    assert np.allclose(got, wanted), (
        f"batch_norm_forward of {shape}, eps {eps}: expected {wanted[at]:.6f}, got {got[at]:.6f} in channel {at[1]}; "
        "eps is added to the variance, before the root"
    )


norm_agrees((4, 3, 2, 2), 1e-5)
### BEGIN HIDDEN TESTS
norm_agrees((2, 5, 3, 4), 0.5)
norm_agrees((300, 2, 11, 9), 0.1)
### END HIDDEN TESTS

# %% [markdown]
# ### Its gradient
#
# Call xhat = (x - mean) / sqrt(var + eps), so that y = gamma · xhat + beta. Then, per channel,
#
# - dbeta is the sum of g, and dgamma the sum of g · xhat.
# - x reaches y directly, with slope gamma / sqrt(var + eps). But moving one x also moves the mean and the variance
#   of its channel, and so every y. Working that out leaves
#
# $$dx = \frac{\gamma}{\sqrt{\sigma^2+\epsilon}}\left(g - \overline{g} - \hat{x}\;\overline{g\,\hat{x}}\right)$$
#
# where the bars are means over the channel. So what is constant over a channel, and what is proportional to xhat,
# is taken out of the gradient: normalisation would have undone such a change anyway. In evaluation mean and
# variance are fixed numbers, and only the direct way is left.
#
# The sums are given, over the M values of each channel: `dbeta` is the sum of g, `g_centered` that of g · (x - mean),
# and `inverse` is 1 / sqrt(var + eps). In the first gap you work out `dgamma` and whatever else is one number a
# channel. In the second you write `dx[rows]` from `gradient[rows]` and `matrix[rows]`, the g and x of a block:
# the whole formula if `batch`, else only the direct way.

# %% nbgrader={"grade_id": "batch-norm-vjp", "solution": true}
#| export
@vjp(batch_norm_forward)
def batch_norm_vjp(g, y, x, gamma, beta, mean, var, eps, batch):
    """The gradients of x, gamma and beta."""
    matrix, gradient = pixel_matrix(x), pixel_matrix(g)
    M, inverse = len(matrix), 1 / np.sqrt(var + eps)  # inverse: xhat = (x - mean) * inverse

    def sums(rows):
        return np.stack(
            [gradient[rows].sum(axis=0), np.einsum("nc,nc->c", gradient[rows], matrix[rows] - mean)]
        )

    dbeta, g_centered = column_sums(sums, matrix).astype(x.dtype)  # the sums of g and of g * (x - mean)
    dx = np.empty_like(matrix)
    ### BEGIN SOLUTION
    dgamma = g_centered * inverse
    scale = gamma * inverse
    mean_g, slope = scale * dbeta / M, scale * inverse * dgamma / M
    ### END SOLUTION

    def work(rows):
        ### BEGIN SOLUTION
        np.multiply(gradient[rows], scale, out=dx[rows])
        if batch:
            centered = matrix[rows] - mean
            centered *= slope
            dx[rows] -= centered
            dx[rows] -= mean_g
        ### END SOLUTION

    parallel_for(work, row_blocks(matrix))
    return channels_first(dx.reshape(channels_last(x).shape)), dgamma, dbeta


# %% tags=["nbval-check-output"]
g_two = np.array([1.0, 0]).reshape(2, 1, 1, 1)  # by hand: nothing is left for two values, whatever g is
dx, dgamma, dbeta = batch_norm_vjp(g_two, None, two, one, zero, *channel_statistics(two), eps=0, batch=True)
print(dx.ravel(), dgamma, dbeta)

# %% nbgrader={"grade_id": "test-batch-norm-vjp", "grade": true, "points": 3}
def norm_gradient_agrees(shape, batch, eps=0.1):
    draw = np.random.default_rng(17)
    x, C = 2 * draw.standard_normal(shape) + 3, shape[1]
    gamma, beta, g = draw.standard_normal(C), draw.standard_normal(C), draw.standard_normal(shape)
    column, axes = (slice(None), None, None), (0, 2, 3)
    mean, var = (x.mean(axes), x.var(axes)) if batch else (draw.standard_normal(C), draw.uniform(0.5, 2, C))

    def loss(x, gamma, beta):
        m, v = (x.mean(axes), x.var(axes)) if batch else (mean, var)
        return float((((x - m[column]) / np.sqrt(v[column] + eps) * gamma[column] + beta[column]) * g).sum())

    got = batch_norm_vjp(g, None, x, gamma, beta, mean, var, eps=eps, batch=batch)
    for k, name in enumerate(["x", "gamma", "beta"]):
        for _ in range(3):
            inputs, direction = [x, gamma, beta], draw.standard_normal([x, gamma, beta][k].shape)
            ends = []
            for sign in (1e-5, -1e-5):
                moved = list(inputs)
                moved[k] = moved[k] + sign * direction
                ends.append(loss(*moved))
            wanted = (ends[0] - ends[1]) / 2e-5
            here = float((np.asarray(got[k]) * direction).sum())
            assert np.isclose(here, wanted, rtol=1e-4, atol=1e-5), (
                f"batch_norm_vjp of {shape}, batch={batch}: for the gradient of {name} along a direction finite "
                f"differences give {wanted:.6g}, got {here:.6g}"
            )


norm_gradient_agrees((3, 2, 2, 3), True)
### BEGIN HIDDEN TESTS
norm_gradient_agrees((3, 2, 2, 3), False)
norm_gradient_agrees((5, 3, 4, 1), True, eps=1e-5)
norm_gradient_agrees((200, 2, 11, 9), True)
### END HIDDEN TESTS

# %% [markdown]
# ### The layer, and what it remembers
#
# While training, the batch's own mean and variance are used. To classify a single image later there is no batch,
# so the layer keeps running averages: after each batch, `running += momentum * (batch - running)`.
#
# One subtle point: the variance of a sample, divided by the count M, is on average too small by a factor
# (M - 1) / M. For the running average we want the unbiased estimate, M / (M - 1) times as large; for normalising
# the batch itself the plain one. PyTorch does the same.

# %%
#| export
class BatchNorm2d(Module):
    """Normalise every channel over (N, H, W), then scale by weight and shift by bias.

    Shapes: x and y (N, num_features, H, W), weight and bias (num_features,). While training the batch's own
    mean and variance are used and running averages kept, with the unbiased variance; in evaluation the
    running ones are used. Raises ValueError for other shapes, and for a single value a channel in training.
    Source: Ioffe and Szegedy, "Batch normalization: accelerating deep network training", 2015.
    """

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        if num_features < 1:
            raise ValueError(f"BatchNorm2d: expected a positive number of channels, got {num_features}")
        self.eps, self.momentum = eps, momentum
        self.weight = Tensor(np.ones(num_features), requires_grad=True)
        self.bias = Tensor(np.zeros(num_features), requires_grad=True)
        self.running_mean = Tensor(np.zeros(num_features))
        self.running_var = Tensor(np.ones(num_features))

    def __repr__(self):
        return f"BatchNorm2d({self.weight.shape[0]})"


# %% [markdown]
# `forward` is given. It takes the statistics of the batch, has them remembered, and applies the primitive.

# %%
#| export
class BatchNorm2d(BatchNorm2d):
    def forward(self, x):
        check_images("BatchNorm2d", x, (1, 1), 0, self.weight.shape[0])
        if not self.training:
            mean, var = self.running_mean.data, self.running_var.data
        else:
            count = x.numel() // x.shape[1]
            if count < 2:
                raise ValueError(
                    f"BatchNorm2d: expected more than one value a channel while training, got {x.shape}"
                )
            mean, var = channel_statistics(x.data)
            self.remember(mean, var, count)
        return apply(
            batch_norm_forward, x, self.weight, self.bias, mean=mean, var=var, eps=self.eps, batch=self.training
        )


# %% [markdown]
# Write `remember`. Give `.data` a new array (`self.running_mean.data = ...`) rather than changing the old one in
# place: someone may hold it.

# %% nbgrader={"grade_id": "batch-norm-remember", "solution": true}
#| export
class BatchNorm2d(BatchNorm2d):
    def remember(self, mean, var, count):
        """Move the running averages towards a batch's mean and variance (C,); `count` values a channel."""
        ### BEGIN SOLUTION
        unbiased = var * (count / (count - 1))
        self.running_mean.data = self.running_mean.data + self.momentum * (mean - self.running_mean.data)
        self.running_var.data = self.running_var.data + self.momentum * (unbiased - self.running_var.data)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
norm = BatchNorm2d(1)
norm(Tensor(two))  # mean 2, unbiased variance 2
print(norm.running_mean, norm.running_var)

# %% nbgrader={"grade_id": "test-batch-norm-remember", "grade": true, "points": 2}
def running_agrees(shape, momentum, batches):
    draw, C = np.random.default_rng(18), shape[1]
    layer, mean, var = BatchNorm2d(C, momentum=momentum), np.zeros(C), np.ones(C)
    for _ in range(batches):
        x = (4 * draw.standard_normal(shape) + 2).astype(np.float32)
        y = np.asarray(layer(Tensor(x)))
        mean = (1 - momentum) * mean + momentum * x.mean(axis=(0, 2, 3))
        var = (1 - momentum) * var + momentum * x.var(axis=(0, 2, 3), ddof=1)
        wanted = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
        assert np.allclose(y, wanted, atol=1e-4), (
            f"BatchNorm2d, training: expected {wanted.ravel()[:3].round(4)}..., got {y.ravel()[:3].round(4)}...; "
            "while training the batch's own statistics are used"
        )
    for name, got, right in [("mean", layer.running_mean, mean), ("var", layer.running_var, var)]:
        got = np.asarray(got)
        assert np.allclose(got, right, rtol=1e-4), (
            f"BatchNorm2d, {batches} batches of {shape}: running_{name} expected {right.round(4)}, got {got.round(4)}"
        )
    x = draw.standard_normal((1, C, 1, 1)).astype(np.float32)
    got, column = np.asarray(layer.eval()(Tensor(x))), (slice(None), None, None)
    wanted = (x - mean[column]) / np.sqrt(var[column] + 1e-5)
    assert np.allclose(got, wanted, atol=1e-4), (
        f"BatchNorm2d, evaluation: expected {wanted.ravel().round(4)} by the running averages, got {got.ravel().round(4)}"
    )


running_agrees((3, 2, 2, 2), 0.1, 1)
### BEGIN HIDDEN TESTS
running_agrees((2, 3, 1, 2), 0.3, 4)
held = BatchNorm2d(2)
before = held.running_mean.data
held(Tensor(np.ones((2, 2, 2, 2))))
assert np.array_equal(np.asarray(before), np.zeros(2)), (
    "BatchNorm2d: expected the array held before the batch to stay zero; give .data a new array"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 10. What breaks
#
# Images with the channels in the last dimension, as most image files give them. The memory order is right, but the
# shape has to be (N, C, H, W): use `channels_first`.

# %% tags=["nbval-check-output"]
try:
    Conv2d(3, 8, 3)(Tensor(np.zeros((4, 32, 32, 3))))
except ValueError as error:
    print(error)

# %% [markdown]
# A network that is one pooling too deep for its images:

# %% tags=["nbval-check-output"]
try:
    MaxPool2d(3)(MaxPool2d(4)(Tensor(np.zeros((1, 8, 8, 8)))))
except ValueError as error:
    print(error)

# %% [markdown]
# Scratch memory that someone kept. The first matrix was fine until the second call wrote into the same place:

# %% tags=["nbval-check-output"]
first = im2col(np.zeros((1, 2, 2, 1)), 2, 2)
second = im2col(np.ones((1, 2, 2, 1)), 2, 2)
print("the windows of an image of zeros:", first.ravel())

# %% [markdown]
# A batch of one image in which each channel has one pixel left. Its variance is zero and tells nothing:

# %% tags=["nbval-check-output"]
try:
    BatchNorm2d(4)(Tensor(np.zeros((1, 4, 1, 1))))
except ValueError as error:
    print(error)

# %% [markdown]
# ## 11. A small network
#
# All of it together: the shapes on the way through two convolutions, and one gradient for every parameter.

# %% tags=["nbval-check-output"]
parts = [Conv2d(3, 8, 3, padding=1), BatchNorm2d(8), MaxPool2d(2), Conv2d(8, 4, 3), AvgPool2d(3)]
h = Tensor(rng.standard_normal((5, 3, 10, 10)))
for part in parts:
    h = part(h)
    print(f"{h.shape!s:16} {part}")

# %% tags=["nbval-check-output"]
(h * h).sum().backward()
print([p.grad.shape for part in parts for p in part.parameters()])

# %% [markdown]
# ## Exercises
#
# 1. How many multiplications does `Conv2d(64, 256, 3, padding=1)` do for one image of 15×15? How many numbers does
#    it read and write at least? What does the quotient say about the cache?
# 2. Replace a 5×5 convolution by two 3×3 ones. What area does an output number see in each case, and how many
#    weights are there?
# 3. `conv2d_weight_gradient` builds the same im2col matrix as the forward pass did. Why not keep it? Compute what
#    keeping it would cost for the batch in section 5.
# 4. A bias in front of a batch normalisation does nothing. Show it with two lines, and say why.
# 5. Sum `kernel * kernel` shifted products `x[entry] @ w[:, :, i, j].T` instead of building the matrix. Check it
#    against `conv2d_naive`. For which layers do you expect it to be faster?
#
# ## Elsewhere
#
# - PyTorch's CPU build compiles a kernel for each convolution's shape (oneDNN): blocks and vector instructions are
#   chosen for it, and no im2col matrix is ever written. Where filters are 3×3 a library may use Winograd's transform,
#   which multiplies less often. `memory_format=torch.channels_last` is the layout of this lesson.
# - PyTorch pads, strides and dilates per dimension, and splits channels into groups; ours does what this course
#   needs.
# - In JAX, `lax.conv_general_dilated` names its dimensions with a string such as `"NHWC"`. Its gradients are
#   convolutions with *dilation*: the zeros that you put between the entries in `spread`.
#
# ## Summary
#
# - Convolution is a sum over windows; (size + 2·padding - kernel) // stride + 1 windows fit along a dimension.
# - Strides describe overlapping windows without a copy; im2col copies them so that a matrix library can multiply.
# - The same arithmetic is faster when a block stays in the cache, in memory that is used again, one block a thread.
# - Back through a convolution is a convolution: flipped filters, swapped channels, zeros where the stride skipped.
# - Max pooling hands a gradient to one winner; batch normalisation takes out of it what normalising would undo.
# - Every fast version has a slow one that judges it.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/spatial.py`;
# `tito module complete 09` in a terminal does the same.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
