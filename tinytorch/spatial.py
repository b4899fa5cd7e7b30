"""Convolution, pooling and batch normalisation for images (N, C, H, W), kept channels-last in memory.

Built by tito from lesson 09_spatial: change the lesson, not this file.
"""

import ctypes
import math
import threading

import numpy as np

from tinytorch.activations import num_threads, parallel_for
from tinytorch.autograd import vjp
from tinytorch.layers import Module, uniform
from tinytorch.tensor import Tensor, apply

__all__ = [
    "output_size",
    "conv2d_naive",
    "channels_last",
    "channels_first",
    "sliding_windows",
    "scratch",
    "keep_freed_memory",
    "pair",
    "pad",
    "im2col",
    "filter_matrix",
    "BLOCK_BYTES",
    "image_blocks",
    "set_convolution",
    "conv2d_forward",
    "conv2d_naive_gradients",
    "spread",
    "conv2d_input_gradient",
    "conv2d_weight_gradient",
    "ROW_BLOCK",
    "pixel_matrix",
    "row_blocks",
    "column_sums",
    "conv2d_vjp",
    "check_images",
    "Conv2d",
    "window_entry",
    "max_pool_block",
    "max_pool2d_forward",
    "max_pool_block_gradient",
    "max_pool2d_vjp",
    "average_windows",
    "average_windows_gradient",
    "avg_pool2d_forward",
    "avg_pool2d_vjp",
    "Pool2d",
    "MaxPool2d",
    "AvgPool2d",
    "channel_statistics",
    "batch_norm_forward",
    "batch_norm_vjp",
    "BatchNorm2d",
]


def output_size(size, kernel, stride, padding):
    """How many positions a window has along one dimension of `size` pixels.

    `kernel`, `stride` and `padding` are counted in pixels. Examples: output_size(4, 2, 1, 0) is 3,
    output_size(5, 3, 2, 1) is 3.
    """
    return (size + 2 * padding - kernel) // stride + 1


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
        window = x[n, :, i * stride : i * stride + KH, j * stride : j * stride + KW]
        y[n, o, i, j] = (window * w[o]).sum() + (0 if b is None else b[o])
    return y


def channels_last(x):
    """The view (N, H, W, C) of images (N, C, H, W); contiguous where the memory is channels-last."""
    return x.transpose(0, 2, 3, 1)


def channels_first(x):
    """The view (N, C, H, W) of images (N, H, W, C)."""
    return x.transpose(0, 3, 1, 2)


def sliding_windows(x, KH, KW, stride):
    """Every window of contiguous images (n, H, W, C) as a view (n, OH, OW, KH, KW * C); nothing is copied.

    Example: for x of shape (1, 1, 5, 1) holding 0 1 2 3 4, sliding_windows(x, 1, 3, 1)[0, 0] holds the
    windows 0 1 2, 1 2 3 and 2 3 4.
    """
    n, H, W, C = x.shape
    s = x.strides
    shape = (n, output_size(H, KH, stride, 0), output_size(W, KW, stride, 0), KH, KW * C)
    strides = (s[0], s[1] * stride, s[2] * stride, s[1], s[3])
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)


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


keep_freed_memory()


def pair(value):
    """(value, value), or `value` itself where it is a pair already."""
    return value if isinstance(value, tuple) else (value, value)


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


def im2col(x, KH, KW, stride=1, padding=0):
    """Every window of images (n, H, W, C) as a row of a matrix (n * OH * OW, KH * KW * C), in scratch memory.

    `padding` is a number or a pair (rows, columns).
    Example: 0 1 2 3 as x (1, 1, 4, 1) with KH, KW = 1, 2 gives the rows 0 1, 1 2 and 2 3.
    """
    windows = sliding_windows(pad(x, *pair(padding)), KH, KW, stride)
    matrix = scratch("im2col", windows.shape, x.dtype)
    matrix[...] = windows
    return matrix.reshape(math.prod(windows.shape[:3]), KH * KW * x.shape[3])


def filter_matrix(w):
    """Filters (O, C, KH, KW) as a contiguous matrix (KH * KW * C, O), rows as im2col's columns."""
    return w.transpose(2, 3, 1, 0).reshape(-1, w.shape[0])


BLOCK_BYTES = 2_000_000  # of one block's im2col matrix: it should stay in the cache near a core


def image_blocks(N, bytes_per_image):
    """Where blocks of whole images start, and how many images a block has, for about BLOCK_BYTES each."""
    step = max(1, min(BLOCK_BYTES // bytes_per_image, -(-N // num_threads())))
    return range(0, N, step), step


_other_path = None


def set_convolution(path):
    """Lesson 18 plugs in here: `path(x, w, b, stride, padding)` is asked first, and returns y or None.

    With None conv2d_forward goes its own way; `set_convolution(None)` takes the path out again.
    """
    global _other_path
    _other_path = path


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


def spread(g, stride, OH, OW):
    """The gradient g (N, O, h, w) of a convolution with `stride`, laid out on OH x OW positions at stride 1.

    Positions that the stride skipped hold zero. The result has channels-last memory.
    Example: g 5 7 as (1, 1, 1, 2) with stride 2, OH = 1, OW = 4 becomes 5 0 7 0.
    """
    N, O = g.shape[:2]
    wide = channels_first(np.zeros((N, OH, OW, O), g.dtype))
    wide[:, :, ::stride, ::stride][:, :, : g.shape[2], : g.shape[3]] = g
    return wide


def conv2d_input_gradient(g, shape, w, stride=1, padding=0):
    """The gradient of the images: every output hands its gradient back through the flipped filter.

    Shapes: g (N, O, OH, OW), w (O, C, KH, KW); `shape` is that of the images and of the result, (N, C, H, W).
    """
    N, C, H, W = shape
    KH, KW = w.shape[2:]
    if stride > 1:
        g = spread(g, stride, H + 2 * padding - KH + 1, W + 2 * padding - KW + 1)
    flipped = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    return conv2d_forward(g, flipped, None, 1, (KH - 1 - padding, KW - 1 - padding))


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
            col = im2col(images[n : n + step], KH, KW, stride, padding)
            sums[thread] += np.matmul(col.T, rows, out=product)

    parallel_for(work, range(num_threads()))
    total = sums.sum(axis=0)
    return total.reshape(KH, KW, C, O).transpose(3, 2, 0, 1)


ROW_BLOCK = 32768  # numbers in a block of rows: a few such blocks fit the cache


def pixel_matrix(x):
    """Images (N, C, H, W) as a matrix (N * H * W, C): a view where the memory is channels-last."""
    return channels_last(x).reshape(-1, x.shape[1])


def row_blocks(matrix):
    """Blocks of rows of a matrix that fit the cache, as slices."""
    step = max(1, ROW_BLOCK // matrix.shape[1])
    return [slice(i, i + step) for i in range(0, len(matrix), step)]


def column_sums(function, matrix):
    """The sum, in float64, of `function(rows)` over all blocks of rows; `rows` are slices of `matrix`."""
    blocks = row_blocks(matrix)
    parts = [None] * len(blocks)

    def work(k):
        parts[k] = function(blocks[k])

    parallel_for(work, range(len(blocks)))
    return np.sum(parts, axis=0, dtype=np.float64)


@vjp(conv2d_forward)
def conv2d_vjp(g, y, x, w, b=None, stride=1, padding=0):
    """The gradients of images, filters and bias, as functions: computed only where they are asked for."""
    pixels = pixel_matrix(g)
    return (
        lambda: conv2d_input_gradient(g, x.shape, w, stride, padding),
        lambda: conv2d_weight_gradient(g, x, w.shape, stride, padding),
        lambda: column_sums(lambda rows: pixels[rows].sum(axis=0), pixels).astype(g.dtype),
    )


def check_images(name, x, kernel, padding, channels=None):
    """Raise ValueError unless x is (N, C, H, W), with `channels` channels, and holds at least one window."""
    if x.ndim != 4 or (channels is not None and x.shape[1] != channels):
        raise ValueError(f"{name}: expected images (N, {channels or 'C'}, H, W), got {x.shape}")
    padded = x.shape[2] + 2 * padding, x.shape[3] + 2 * padding
    if kernel[0] > padded[0] or kernel[1] > padded[1]:
        raise ValueError(f"{name}: kernel {tuple(kernel)} is larger than the padded image {padded}")


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

    def forward(self, x):
        """x (N, in_channels, H, W) -> (N, out_channels, OH, OW)."""
        check_images("Conv2d", x, self.weight.shape[2:], self.padding, self.weight.shape[1])
        inputs = (x, self.weight) if self.bias is None else (x, self.weight, self.bias)
        return apply(conv2d_forward, *inputs, stride=self.stride, padding=self.padding)


def window_entry(i, j, OH, OW, stride):
    """The slice of images (n, H, W, C) that holds entry (i, j) of all OH x OW windows."""
    rows = slice(i, i + stride * (OH - 1) + 1, stride)
    columns = slice(j, j + stride * (OW - 1) + 1, stride)
    return slice(None), rows, columns


def max_pool_block(images, out, kernel, stride):
    """Write the largest value of every window of images (n, H, W, C) into `out` (n, OH, OW, C)."""
    OH, OW = out.shape[1:3]
    out[...] = images[window_entry(0, 0, OH, OW, stride)]
    for k in range(1, kernel * kernel):
        np.maximum(out, images[window_entry(*divmod(k, kernel), OH, OW, stride)], out=out)


def max_pool2d_forward(x, kernel, stride):
    """The largest value of every window; x (N, C, H, W) -> (N, C, OH, OW)."""
    images = channels_last(x)
    N, H, W, C = images.shape
    y = np.empty((N, output_size(H, kernel, stride, 0), output_size(W, kernel, stride, 0), C), x.dtype)
    starts, step = image_blocks(N, H * W * C * x.itemsize)
    parallel_for(lambda n: max_pool_block(images[n : n + step], y[n : n + step], kernel, stride), starts)
    return channels_first(y)


def max_pool_block_gradient(g, largest, images, dx, kernel, stride):
    """Add the gradient g (n, OH, OW, C) of every window to its first largest entry, in dx (n, H, W, C).

    `largest` is the result of the forward pass; dx comes filled with zeros and is changed in place.
    """
    free = np.ones(largest.shape, bool)
    for i in range(kernel):
        for j in range(kernel):
            entry = window_entry(i, j, *largest.shape[1:3], stride)
            hit = images[entry] == largest
            hit &= free
            free ^= hit
            if stride < kernel:
                dx[entry] += g * hit
            else:  # no pixel is in two windows
                np.multiply(g, hit, out=dx[entry])


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


def average_windows(images, OH, OW, kernel, stride):
    """The mean of every window of images (N, H, W, C) as a new array (N, OH, OW, C)."""
    entries = (divmod(k, kernel) for k in range(kernel * kernel))
    return sum(images[window_entry(i, j, OH, OW, stride)] for i, j in entries) / kernel**2


def average_windows_gradient(g, shape, kernel, stride):
    """The gradient, of `shape` (N, H, W, C), that g (N, OH, OW, C) gives to the images."""
    dx = np.zeros(shape, g.dtype)
    for k in range(kernel * kernel):
        dx[window_entry(*divmod(k, kernel), *g.shape[1:3], stride)] += g / kernel**2
    return dx


def avg_pool2d_forward(x, kernel, stride):
    """The mean of every window; x (N, C, H, W) -> (N, C, OH, OW)."""
    OH, OW = (output_size(size, kernel, stride, 0) for size in x.shape[2:])
    return channels_first(average_windows(channels_last(x), OH, OW, kernel, stride))


@vjp(avg_pool2d_forward)
def avg_pool2d_vjp(g, y, x, kernel, stride):
    """Every entry of a window gets an equal share."""
    return (
        channels_first(average_windows_gradient(channels_last(g), channels_last(x).shape, kernel, stride)),
    )


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


class MaxPool2d(Pool2d):
    """The largest value of every kernel x kernel window: x (N, C, H, W) -> (N, C, OH, OW)."""

    primitive = staticmethod(max_pool2d_forward)


class AvgPool2d(Pool2d):
    """The mean of every kernel x kernel window: x (N, C, H, W) -> (N, C, OH, OW)."""

    primitive = staticmethod(avg_pool2d_forward)


def channel_statistics(x):
    """Mean and variance (divided by the count, not count - 1) of every channel of images (N, C, H, W)."""
    matrix = pixel_matrix(x)
    mean = (column_sums(lambda rows: matrix[rows].sum(axis=0), matrix) / len(matrix)).astype(x.dtype)

    def squares(rows):
        centered = matrix[rows] - mean
        return np.einsum("nc,nc->c", centered, centered)

    return mean, (column_sums(squares, matrix) / len(matrix)).astype(x.dtype)


def batch_norm_forward(x, gamma, beta, mean, var, eps, batch):
    """gamma (x - mean) / sqrt(var + eps) + beta, channel by channel.

    Shapes: x (N, C, H, W); gamma, beta, mean and var (C,). `batch` says that mean and var are those of x
    itself: then the gradient flows through them too.
    """
    matrix = pixel_matrix(x)
    y = np.empty_like(matrix)
    scale = gamma / np.sqrt(var + eps)
    shift = beta - mean * scale

    def work(rows):
        np.multiply(matrix[rows], scale, out=y[rows])
        y[rows] += shift

    parallel_for(work, row_blocks(matrix))
    return channels_first(y.reshape(channels_last(x).shape))


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
    dgamma = g_centered * inverse
    scale = gamma * inverse
    mean_g, slope = scale * dbeta / M, scale * inverse * dgamma / M

    def work(rows):
        np.multiply(gradient[rows], scale, out=dx[rows])
        if batch:
            centered = matrix[rows] - mean
            centered *= slope
            dx[rows] -= centered
            dx[rows] -= mean_g

    parallel_for(work, row_blocks(matrix))
    return channels_first(dx.reshape(channels_last(x).shape)), dgamma, dbeta


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
            batch_norm_forward,
            x,
            self.weight,
            self.bias,
            mean=mean,
            var=var,
            eps=self.eps,
            batch=self.training,
        )

    def remember(self, mean, var, count):
        """Move the running averages towards a batch's mean and variance (C,); `count` values a channel."""
        unbiased = var * (count / (count - 1))
        self.running_mean.data = self.running_mean.data + self.momentum * (mean - self.running_mean.data)
        self.running_var.data = self.running_var.data + self.momentum * (unbiased - self.running_var.data)
