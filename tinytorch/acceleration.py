"""Faster inference and training: rooflines, blocks that fit the cache, fused layers, Winograd's
convolution.

Built by tito from lesson 18_acceleration: change the lesson, not this file.
"""

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

__all__ = [
    "attainable",
    "conv2d_cost",
    "best_rate",
    "measure_peak",
    "measure_bandwidth",
    "block_size",
    "over_blocks",
    "batch_norm_line",
    "fold_line",
    "ACTIVATIONS",
    "finish_block",
    "product_block",
    "BT",
    "G",
    "AT",
    "winograd_tile",
    "winograd_filters",
    "patch_rows",
    "differences",
    "winograd_patches",
    "sums",
    "winograd_outputs",
    "winograd_block",
    "MOVE_COST",
    "choose_path",
    "BLOCK_BUDGET",
    "prepare_filters",
    "check_fused",
    "conv2d_fused",
    "winograd_or_none",
    "use_winograd",
    "chain_end",
    "kind_of",
    "Chain",
    "FastConv2d",
    "FusedSequential",
    "fast_twin",
    "Accelerated",
    "accelerate",
]


def attainable(intensity, peak, bandwidth):
    """The highest rate, in GFLOP/s, for work of `intensity` FLOP a byte: the lower of the two roofs.

    `peak` is in GFLOP/s, `bandwidth` in GB/s; numbers or arrays. Example: attainable(2, 100, 10) is 20.
    Source: Williams, Waterman and Patterson, "Roofline", 2009.
    """
    return np.minimum(peak, intensity * bandwidth)


def conv2d_cost(shape, kernels, stride=1, padding=0, itemsize=4):
    """(operations, bytes) of a convolution: multiplications and additions, and each array moved once.

    `shape` is that of the images (N, C, H, W), `kernels` that of the filters (O, C, KH, KW); no bias.
    Example: conv2d_cost((1, 1, 1, 4), (1, 1, 1, 2)) is (12, 36): three outputs of two products each.
    """
    N, C, H, W = shape
    O, _, KH, KW = kernels
    OH, OW = output_size(H, KH, stride, padding), output_size(W, KW, stride, padding)
    operations = 2 * N * O * OH * OW * C * KH * KW
    return operations, itemsize * (N * C * H * W + O * C * KH * KW + N * O * OH * OW)


def best_rate(work, amount, repeats=5, clock=time.perf_counter):
    """`amount` a second of the fastest of `repeats` runs of `work()`, after one that is not timed."""
    work()
    times = []
    for _ in range(repeats):
        start = clock()
        work()
        times.append(clock() - start)
    return amount / min(times)


def measure_peak(size=1024, repeats=5):
    """GFLOP/s of a float32 matrix product size x size on all threads; one product for each thread."""
    a, b = np.ones((2, size, size), np.float32)
    results = [np.empty_like(a) for _ in range(num_threads())]

    def work():
        parallel_for(lambda k: np.matmul(a, b, out=results[k]), range(num_threads()))

    return best_rate(work, 2 * size**3 * num_threads() / 1e9, repeats)


def measure_bandwidth(megabytes=64, repeats=5):
    """GB/s that memory moves while an array of `megabytes` is copied by all threads."""
    source = np.ones((num_threads(), megabytes * 250_000 // num_threads()), np.float32)
    target = np.empty_like(source)

    def work():
        parallel_for(lambda k: np.copyto(target[k], source[k]), range(num_threads()))

    return best_rate(work, 2 * source.nbytes / 1e9, repeats)


def block_size(N, bytes_per_image, budget, threads):
    """How many of N images a block has. Example: block_size(250, 300_000, 1_000_000, 2) is 3."""
    fair = -(-N // threads)  # rounded up
    return max(1, min(budget // bytes_per_image, fair))


def over_blocks(work, N, step):
    """Call `work(slice)` for blocks of `step` of N images, on all threads.

    Example: N = 5, step = 2 gives slice(0, 2), slice(2, 4) and slice(4, 5), in any order.
    """
    parallel_for(lambda n: work(slice(n, min(n + step, N))), range(0, N, step))


def batch_norm_line(gamma, beta, mean, var, eps):
    """Batch normalisation in evaluation as (scale, shift), two arrays (C,): y = scale * x + shift."""
    scale = gamma / np.sqrt(var + eps)
    return scale, beta - scale * mean


def fold_line(w, b, scale, shift):
    """Filters and bias that do `scale * (convolution of w and b) + shift` at once; b may be None."""
    folded = w * scale[:, None, None, None]
    return folded, shift if b is None else scale * b + shift


ACTIVATIONS = {  # (z, out, memory) fill `out`; all three of one shape
    None: lambda z, out, memory: np.copyto(out, z),
    "relu": lambda z, out, memory: np.maximum(z, 0, out=out),
    "gelu": gelu_block,
}


def finish_block(z, out, pool=1, scale=None, b=None, activation=None):
    """Fill `out` with the activation of scale * (max-pool of z) + b; z, in scratch memory, is used up.

    Shapes: z (n, OH, OW, O), out (n, OH / pool, OW / pool, O), scale and b (O,) or None.
    """
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
    ACTIVATIONS[activation](z, out, scratch("memory", out.shape, z.dtype))


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


BT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32)
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
AT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)


def winograd_tile(d, g):
    """The 2x2 outputs of the patch d (4, 4) and the filter g (3, 3), with 16 multiplications of the two.

    Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016.
    """
    return AT @ ((G @ g @ G.T) * (BT @ d @ BT.T)) @ AT.T


def winograd_filters(w):
    """Filters (O, C, 3, 3) transformed for the products: U (16, C, O), contiguous, in the dtype of w."""
    O, C = w.shape[:2]
    both = np.kron(G, G).astype(w.dtype)  # (16, 9): G g Gᵀ as one matrix that acts on g row after row
    return (both @ w.transpose(2, 3, 1, 0).reshape(9, C * O)).reshape(16, C, O)


def patch_rows(images, padding, th, tw):
    """Images (n, H, W, C) with zeros around, for th x tw tiles: (n, 2 th + 2, 2 tw + 2, C) in scratch."""
    (PH, PW), (n, H, W, C) = padding, images.shape
    out = scratch("patches", (n, 2 * th + 2, 2 * tw + 2, C), images.dtype)
    H, W = min(H, out.shape[1] - PH), min(W, out.shape[2] - PW)
    out[:, :PH] = out[:, PH + H :] = 0
    out[:, :, :PW] = out[:, :, PW + W :] = 0
    out[:, PH : PH + H, PW : PW + W] = images[:, :H, :W]
    return out


def differences(d, out):
    """Fill the four arrays `out` with BT times the four arrays `d`."""
    np.subtract(d[0], d[2], out=out[0])
    np.add(d[1], d[2], out=out[1])
    np.subtract(d[2], d[1], out=out[2])
    np.subtract(d[1], d[3], out=out[3])


def winograd_patches(padded, th, tw):
    """V (16, n * th * tw, C): every patch of padded images (n, 2 th + 2, 2 tw + 2, C) as BT d B."""
    n, _, width, C = padded.shape
    rows = scratch("rows", (4, n, th, width, C), padded.dtype)
    differences([padded[:, k : k + 2 * th : 2] for k in range(4)], rows)
    V = scratch("V", (4, 4, n, th, tw, C), padded.dtype)
    columns = [rows[:, :, :, k : k + 2 * tw : 2] for k in range(4)]
    differences(columns, [V[:, j] for j in range(4)])
    return V.reshape(16, n * th * tw, C)


def sums(m, out, j):
    """Fill `out` with row j of AT times the four arrays `m`."""
    if j == 0:
        np.add(m[0], m[1], out=out)
        out += m[2]
    else:
        np.subtract(m[1], m[2], out=out)
        out -= m[3]


def winograd_outputs(M, z):
    """Fill z (n, OH, OW, O) with the tiles AT m A of the products M (4, 4, n, th, tw, O)."""
    half = scratch("half", (2, *M.shape[1:]), M.dtype)
    tile = scratch("tile", M.shape[2:], M.dtype)
    for i in (0, 1):
        sums(M, half[i], i)
        for j in (0, 1):
            sums(half[i], tile, j)
            target = z[:, i::2, j::2]
            target[...] = tile[:, : target.shape[1], : target.shape[2]]


def winograd_block(images, U, padding, OH, OW):
    """As product_block, for 3x3 filters at stride 1: U are the winograd_filters, `padding` is a pair."""
    n, th, tw, O = len(images), (OH + 1) // 2, (OW + 1) // 2, U.shape[2]
    V = winograd_patches(patch_rows(images, padding, th, tw), th, tw)
    M = np.matmul(V, U, out=scratch("M", (16, n * th * tw, O), images.dtype))
    z = scratch("z", (n, OH, OW, O), images.dtype)
    winograd_outputs(M.reshape(4, 4, n, th, tw, O), z)
    return z


MOVE_COST = 100  # multiplications in the time of one number more to transform


def choose_path(kernels, stride, padding, OH, OW):
    """ "winograd" or "im2col" for filters `kernels` (O, C, KH, KW), a padding pair, OH x OW outputs."""
    O, C, KH, KW = kernels
    if (KH, KW) != (3, 3) or stride != 1 or min(padding) < 0:
        return "im2col"
    tiles = ((OH + 1) // 2) * ((OW + 1) // 2)
    saved = (9 * OH * OW - 16 * tiles) * C * O
    return "winograd" if saved > MOVE_COST * 16 * tiles * (C + O) else "im2col"


BLOCK_BUDGET = {"im2col": 2_000_000, "winograd": 4_000_000}  # bytes of scratch memory in a block


def prepare_filters(w, path):
    """The filters as the path wants them: filter_matrix or winograd_filters."""
    return winograd_filters(w) if path == "winograd" else filter_matrix(w)


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
        if path == "winograd":
            z = winograd_block(images[block], filters, padding, OH, OW)
        else:
            z = product_block(images[block], filters, (KH, KW), stride, padding, OH, OW)
        finish_block(z, y[block], pool, scale, b, activation)

    over_blocks(work, len(x), step)
    return channels_first(y)


def winograd_or_none(x, w, b, stride, padding):
    """The convolution by Winograd's transform, or None where the shape speaks for im2col."""
    OH, OW = (output_size(x.shape[2 + k], w.shape[2 + k], stride, pair(padding)[k]) for k in (0, 1))
    if choose_path(w.shape, stride, pair(padding), OH, OW) == "im2col":
        return None
    return conv2d_fused(x, w, b, stride, padding, path="winograd")


def use_winograd(on=True):
    """Let every convolution, in training and inference, take Winograd's path where its shape is worth it."""
    set_convolution(winograd_or_none if on else None)


def chain_end(kinds, i):
    """Where the chain that begins with kinds[i], a convolution, ends: norm, pool, norm, activation."""
    i += 1
    for part in ("norm", "pool", "norm", "activation"):
        if i < len(kinds) and kinds[i] == part:
            i += 1
    return i


def kind_of(layer):
    """ "conv", "norm", "pool", "activation", or "other" for what no chain holds; exactly these classes."""
    if type(layer) is MaxPool2d:
        return "pool" if isinstance(layer.kernel_size, int) and layer.kernel_size == layer.stride else "other"
    kinds = {Conv2d: "conv", FastConv2d: "conv", BatchNorm2d: "norm", GELU: "activation", ReLU: "activation"}
    return kinds.get(type(layer), "other")


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
                numbers = (
                    layer.weight.data,
                    layer.bias.data,
                    layer.running_mean.data,
                    layer.running_var.data,
                )
                line = batch_norm_line(*numbers, layer.eps)
                if pooled:
                    scale, b = line[0], line[1] if b is None else line[0] * b + line[1]
                else:
                    w, b = fold_line(w, b, *line)
        self.w, self.b, self.scale, self.filters = w, b, scale, {}

    def __call__(self, x):
        O, C, KH, KW = self.conv.weight.shape
        sizes = [
            output_size(n, K, self.conv.stride, self.conv.padding)
            for n, K in zip(x.shape[-2:], (KH, KW), strict=True)
        ]
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


class FastConv2d(Conv2d):
    """A Conv2d that takes the faster path for its shape in inference."""

    def forward(self, x):
        if "chain" not in vars(self):
            self.chain = Chain([self])
        return self.chain(x)


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


def accelerate(model):
    """A Module that computes what `model` does, faster in evaluation under no_grad. See Accelerated."""
    return model if isinstance(model, Accelerated) else Accelerated(model)
