"""Weights as whole numbers of 8 or 4 bits: scales, packing, calibration, and training for it.

Built by tito from lesson 15_quantization: change the lesson, not this file.
"""

import copy
import math

import numpy as np

from tinytorch.autograd import no_grad, vjp
from tinytorch.layers import Linear, Module, Sequential
from tinytorch.spatial import BatchNorm2d, Conv2d
from tinytorch.tensor import Tensor, apply

__all__ = [
    "largest_code",
    "column",
    "float16_up",
    "channel_scale",
    "to_codes",
    "from_codes",
    "SHRINKS",
    "best_scale",
    "pack_int4",
    "unpack_int4",
    "StoredLayer",
    "QuantizedLayer",
    "replace_layers",
    "folded",
    "fold_batch_norms",
    "has_matrix",
    "change_weights",
    "Wrapped",
    "Quantized",
    "plain_copy",
    "quantize",
    "named_modules",
    "activation_grid",
    "integer_linear_naive",
    "EXACT",
    "integer_linear",
    "fake_quantize_forward",
    "Watched",
    "calibrate",
    "RoundedLayer",
    "fake_quantize_vjp",
    "fake_quantize",
    "FakeQuantized",
    "QAT",
    "prepare_qat",
]


def largest_code(bits):
    """The last mark of a symmetric ruler: 127 for 8 bits, 7 for 4. Raises ValueError for other numbers."""
    if bits not in (4, 8):
        raise ValueError(f"quantize: expected bits 8 or 4, got {bits!r}")
    return 2 ** (bits - 1) - 1


def column(scale, ndim):
    """Numbers per channel (O,) as (O, 1, ..., 1), so that they meet the first of `ndim` dimensions."""
    return scale.reshape(-1, *[1] * (ndim - 1))


def float16_up(scale):
    """The smallest float16 numbers above zero that are not below `scale`. Raises ValueError above 65504."""
    if not np.all(np.asarray(scale) <= 65504):
        raise ValueError("quantize: expected finite weights, and scales up to 65504 (the end of float16)")
    near = np.asarray(scale, np.float16)
    up = np.nextafter(near, np.float16(np.inf))
    return np.where((near < scale) | (near == 0), up, near).astype(np.float16)


def channel_scale(w, bits):
    """One scale a channel, float16 (O,), such that the largest weight of each channel lies on the last mark.

    Shapes: w (O, ...) -> (O,). Example: for [[0.6, -1.4], [0, 7]] and 4 bits it is [0.2, 1].
    """
    largest = np.abs(w).max(axis=tuple(range(1, w.ndim)))
    return float16_up(largest / largest_code(bits))


def to_codes(w, scale, bits):
    """The nearest codes int8 of weights w (O, ...), one scale a channel (O,); beyond the end: the end."""
    end = largest_code(bits)
    return np.clip(np.rint(w / column(scale, w.ndim).astype(w.dtype)), -end, end).astype(np.int8)


def from_codes(codes, scale):
    """The weights float32 that codes (O, ...) stand for, with one scale a channel (O,)."""
    return codes.astype(np.float32) * column(scale, codes.ndim).astype(np.float32)


SHRINKS = tuple(np.linspace(1, 0.5, 11).tolist())  # how much of the largest weight the ruler still reaches


def best_scale(w, bits):
    """The scales (O,) among SHRINKS * channel_scale; each with the smallest sum of (w - what is read)^4."""
    whole = channel_scale(w, bits)
    best, smallest = whole, np.full(len(w), np.inf)
    for shrink in SHRINKS:
        scale = float16_up(shrink * whole.astype(np.float64))
        error = (w - from_codes(to_codes(w, scale, bits), scale)) ** 4
        error = error.sum(axis=tuple(range(1, w.ndim)))
        best = np.where(error < smallest, scale, best)
        smallest = np.minimum(error, smallest)
    return best


def pack_int4(codes):
    """Codes from -8 to 7, of any shape, as bytes uint8: (n + 1) // 2 of them for n codes. 3, -1 -> 123."""
    nibbles = (codes.reshape(-1) + 8).astype(np.uint8)
    if len(nibbles) % 2:
        nibbles = np.append(nibbles, np.uint8(0))
    return nibbles[0::2] | (nibbles[1::2] << 4)


def unpack_int4(packed, n):
    """The first `n` codes, int8 (n,), of bytes that `pack_int4` made."""
    nibbles = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:n]
    return nibbles.astype(np.int8) - np.int8(8)


class StoredLayer(Module):
    """A layer whose weight is stored in another form: a subclass makes buffers and says how to `decode` them.

    `layer` is the module itself without its `part`, the weight unless a subclass says otherwise. The
    decoded weight is kept from the first use on, outside of the state dict, until a buffer changes.
    `weight` and the layer's other attributes can be read here as there.
    """

    part = "weight"

    def __init__(self, layer):
        self.layer, self.shape = layer, layer.weight.shape
        setattr(layer, self.part, None)
        self._ready = {}  # a dict hides what is in it from state_dict

    def decode(self):
        """The weight as an array; every subclass writes its own."""
        raise NotImplementedError(f"{type(self).__name__} has no decode method: write one")

    def ready(self):
        """The layer with its weight, decoded at the first use and after a change of the buffers."""
        versions = [t.version for t in vars(self).values() if isinstance(t, Tensor)]
        if self._ready.get("versions") != versions:
            layer, part = copy.copy(self.layer), self.decode()
            setattr(layer, self.part, Tensor(part, dtype=part.dtype))
            self._ready.update(layer=layer, versions=versions)
        return self._ready["layer"]

    @property
    def weight(self):
        """The decoded weight, a tensor without gradient; changing it changes nothing that is stored."""
        return self.ready().weight

    def __getattr__(self, name):  # whatever is not found here: bias, stride, ...
        if name.startswith("_") or "layer" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.layer, name)

    def forward(self, *args, **kwargs):
        """What the layer computes with the decoded weight."""
        return self.ready()(*args, **kwargs)


class QuantizedLayer(StoredLayer):
    """A layer whose weight is kept as codes of `bits` bits and one float16 scale a channel.

    Buffers: codes, int8 of the weight's shape or packed uint8; scale, float16 (O,).
    """

    def __init__(self, layer, bits):
        w = layer.weight.data
        super().__init__(layer)
        self.bits = bits
        self.codes = Tensor(0, dtype=np.uint8 if bits == 4 else np.int8)
        self.scale = Tensor(0, dtype=np.float16)
        self.encode(w, channel_scale(w, bits))

    def encode(self, w, scale):
        """Store weights w of the layer's shape, with one scale a channel (O,)."""
        codes = to_codes(w, scale, self.bits)
        self.scale.data = scale
        self.codes.data = pack_int4(codes) if self.bits == 4 else codes

    def decode(self):
        """The weight float32 of the layer's shape."""
        codes = self.codes.data
        if self.bits == 4:
            codes = unpack_int4(codes, math.prod(self.shape)).reshape(self.shape)
        return from_codes(codes, self.scale.data)

    def __repr__(self):
        return f"QuantizedLayer({self.layer_text()}, bits={self.bits})"

    def layer_text(self):
        """The layer's name and the shape of its weight."""
        return f"{type(self.layer).__name__} {self.shape}"


def replace_layers(module, change, prefix=""):
    """Put `change(name, child)` in the place of every module inside `module`, in place, parents first.

    Names are those of `named_tensors`: "groups.layers.0.conv1". Where `change` returns the child itself, the
    modules inside of it are asked next.
    """

    def swap(name, child):
        if not isinstance(child, Module):
            return child
        new = change(name, child)
        if new is child:
            replace_layers(child, change, name + ".")
        return new

    for name, value in list(vars(module).items()):
        if type(value) in (list, tuple) and name != "_arguments":
            entries = [swap(f"{prefix}{name}.{i}", entry) for i, entry in enumerate(value)]
            setattr(module, name, type(value)(entries))
        elif isinstance(value, Module):
            setattr(module, name, swap(prefix + name, value))


def folded(w, b, gamma, beta, mean, var, eps):
    """Filters and bias that do what convolution, then batch normalisation did, in evaluation.

    Shapes: w (O, C, KH, KW), b (O,) or None, the others (O,) -> (O, C, KH, KW), (O,).
    """
    s = gamma / np.sqrt(var + eps)
    b = (0 if b is None else b) - mean
    return w * column(s, w.ndim), b * s + beta


def fold_batch_norms(model):
    """Fold every BatchNorm2d that directly follows a Conv2d in a Sequential, in place.

    A layer that stands in several places stays as it is.
    """
    everyone = [id(m) for m in model.modules()]
    for part in model.modules():
        layers = part.layers if type(part) is Sequential else []
        for i in range(len(layers) - 1):
            conv, norm = layers[i], layers[i + 1]
            if type(conv) is not Conv2d or type(norm) is not BatchNorm2d:
                continue
            if everyone.count(id(conv)) == everyone.count(id(norm)) == 1:
                b = None if conv.bias is None else conv.bias.data
                numbers = [t.data for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)]
                w, b = folded(conv.weight.data, b, *numbers, norm.eps)
                conv.weight.data, conv.bias, layers[i + 1] = w, Tensor(b, requires_grad=True), Sequential()


def has_matrix(module):
    """Whether `module` has a float weight of two or more dimensions of its own."""
    w = vars(module).get("weight")
    return isinstance(w, Tensor) and w.ndim >= 2 and w.dtype.kind == "f"


def change_weights(name, model, make, keep=(), wanted=has_matrix):
    """Put `make(layer)` in the place of every layer inside of the Wrapped `model` that is `wanted`, in place.

    Those are the layers with a weight matrix, but for the layers under a name in `keep`. A layer that
    stands in several places is made once. Raises ValueError, beginning with `name`, where there is
    nothing to change or a name in `keep` is none of the network.
    """
    made, unused, network, prefix = {}, set(keep), model.model, "model"
    while isinstance(network, Wrapped):
        network, prefix = network.model, prefix + ".model"

    def change(path, layer):
        path = path.removeprefix(prefix).removeprefix(".")
        if path in keep:
            unused.discard(path)
            return copy.copy(layer)  # another object, so that nothing inside of it is asked
        if id(layer) not in made and wanted(layer):
            made[id(layer)] = (layer, make(layer))
        return made[id(layer)][1] if id(layer) in made else layer

    replace_layers(model, change)
    if unused:
        raise ValueError(f"{name}: keep names {sorted(unused)}, but no layer is called so")
    if not made:
        kind = type(network).__name__
        raise ValueError(f"{name}: nothing to {name} in {kind}: no layer has a weight matrix that may change")


class Wrapped(Module):
    """A model inside another form: it computes what `model` computes, and has its attributes."""

    def forward(self, *args, **kwargs):
        """What the wrapped model computes."""
        return self.model(*args, **kwargs)

    def __getattr__(self, name):
        if name.startswith("_") or "model" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.model, name)


class Quantized(Wrapped):
    """`model`, taken over, with its weights as codes of `bits` bits; `quantize` makes it.

    `keep` names what stays in float; `fold` folds batch norms; with `activations` the inputs of linear
    and convolution layers are rounded to 8 bits as well. Raises ValueError for other bits, names in
    `keep` that are none, and a model without a weight matrix.
    """

    def __init__(self, model, bits=8, keep=(), fold=True, activations=False):
        largest_code(bits)
        self.model = model
        if fold:
            fold_batch_norms(self)
        change_weights("quantize", self, lambda layer: self.make(layer, bits, activations), keep)

    @staticmethod
    def make(layer, bits, activations):
        """The quantized form of one layer."""
        rounded = activations and isinstance(layer, (Linear, Conv2d))
        return RoundedLayer(layer, bits) if rounded else QuantizedLayer(layer, bits)


def plain_copy(name, model):
    """A copy of a float model, out of its wrapping for training, in evaluation mode.

    Raises, beginning with `name`, TypeError for what is no Module, ValueError for a quantized model.
    """
    if not isinstance(model, Module):
        raise TypeError(f"{name}: expected a Module, got {type(model).__name__}")
    if any(isinstance(m, Quantized) for m in model.modules()):
        raise ValueError(f"{name}: the model is quantized already; start from the float model")
    model = model.dense() if hasattr(model, "dense") else copy.deepcopy(model)
    for p in model.parameters():
        p.grad = None
    return model.eval()


def quantize(model, bits=8, calibration=None, keep=()):
    """A copy of `model` whose weights are whole numbers of `bits` bits; `save` writes them as they are.

    Every layer with a weight matrix is changed, also inside classes of your own, except those named in
    `keep`, such as ("stem", "blocks.0"). Batch norms beside a convolution in a Sequential are folded into
    it. A model from `prepare_qat` keeps exactly the weights it was trained with. With `calibration`,
    inputs as the model takes them (one batch, or a list of batches), the inputs of linear and convolution
    layers are rounded to 8 bits too. The result is in evaluation mode. Raises ValueError for bits other
    than 8 and 4, a model that is quantized already or has no weight matrix, a name in `keep` that is
    none, and weights that are not finite.
    """
    largest_code(bits)
    trained = getattr(model, "qat_bits", None)  # what `prepare_qat` of section 9 leaves
    if trained not in (None, bits):
        raise ValueError(f"quantize: the model was trained for {trained} bits, got bits={bits}")
    keep = (*keep, *model.qat_keep) if trained else tuple(keep)
    model = plain_copy("quantize", model)
    if not trained:
        fold_batch_norms(model)
    grids = calibrate(model, calibration) if calibration is not None else {}
    weights = {name: t.data for name, t in model.named_tensors()}
    new = Quantized(model, bits, keep, fold=not trained, activations=calibration is not None).eval()
    for name, layer in named_modules(new.model):
        if isinstance(layer, QuantizedLayer):
            w = weights[f"{name}.weight".removeprefix(".")]
            layer.encode(w, channel_scale(w, bits) if trained else best_scale(w, bits))
            if name in grids:
                layer.set_grid(*grids[name])
    return new


def named_modules(module, prefix=""):
    """Yield (name, module) for the module itself, under the name "", and all modules inside of it."""
    yield prefix.removesuffix("."), module
    for name, child in module.named_children():
        yield from named_modules(child, f"{prefix}{name}.")


def activation_grid(lo, hi):
    """(scale, zero) such that the codes 0 to 255 reach from `lo` to `hi`, and 0 has the whole number `zero`.

    Examples: activation_grid(-1, 1.55) is (0.01, 100), activation_grid(1, 2.55) is (0.01, 0).
    """
    lo, hi = min(float(lo), 0.0), max(float(hi), 0.0)
    scale = (hi - lo) / 255 or 1.0
    return scale, round(-lo / scale)


def integer_linear_naive(q, codes):
    """The sums of q[b, i] * codes[o, i] in 64-bit integers, by loops. Shapes: (B, I), (O, I) -> (B, O)."""
    y = np.zeros((len(q), len(codes)), np.int64)
    for b, o in np.ndindex(y.shape):
        y[b, o] = sum(int(m) * int(n) for m, n in zip(q[b], codes[o], strict=True))
    return y


EXACT = 2**24 // (255 * 127)  # so many products of codes add up exactly in float32


def integer_linear(q, codes):
    """The sums of q[b, i] * codes[o, i], exact, by float32 products. Shapes: (B, I), (O, I) -> int64 (B, O).

    q are whole numbers from -255 to 255, codes from -127 to 127.
    """
    y = np.zeros((len(q), len(codes)), np.int64)
    for start in range(0, q.shape[1], EXACT):
        piece = slice(start, start + EXACT)
        y += (q[:, piece].astype(np.float32) @ codes[:, piece].astype(np.float32).T).astype(np.int64)
    return y


def fake_quantize_forward(x, scale, zero, low, high):
    """For every x the nearest of scale * (code - zero), codes `low` to `high`; same shape and dtype."""
    y = np.rint(x / scale)
    y += zero
    np.clip(y, low, high, out=y)
    y -= zero
    y *= scale
    return y


class Watched(Module):
    """A layer that notes the smallest and the largest input it has seen, in `lo` and `hi`."""

    def __init__(self, layer):
        self.layer, self.lo, self.hi = layer, 0.0, 0.0

    def forward(self, x):
        """What the layer computes."""
        self.lo, self.hi = (
            np.minimum(self.lo, x.data.min()),
            np.maximum(self.hi, x.data.max()),
        )  # nan stays nan
        return self.layer(x)

    def __getattr__(self, name):
        if name.startswith("_") or "layer" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.layer, name)


def calibrate(model, inputs):
    """{layer name: (scale, zero)} of the inputs of all linear and convolution layers of `model`.

    `inputs` is one batch as the model takes it, or a list of batches. Raises ValueError for an empty list
    and for inputs that are not finite.
    """
    watching, watched = Wrapped(), {}
    watching.model = copy.deepcopy(model)

    def watch(path, layer):
        if not isinstance(layer, (Linear, Conv2d)):
            return layer
        path = path.removeprefix("model").removeprefix(".")
        return watched.setdefault(path, Watched(layer))

    replace_layers(watching, watch)
    batches = inputs if isinstance(inputs, list) else [inputs]
    if not batches:
        raise ValueError("quantize: expected at least one batch for the calibration, got an empty list")
    with no_grad():
        for x in batches:
            floats = isinstance(x, np.ndarray) and x.dtype.kind == "f"
            watching(Tensor(x) if floats else x)
    if not all(math.isfinite(w.lo + w.hi) for w in watched.values()):
        raise ValueError("quantize: the calibration met numbers that are not finite; check the inputs")
    return {path: activation_grid(w.lo, w.hi) for path, w in watched.items()}


class RoundedLayer(QuantizedLayer):
    """A quantized layer that also rounds its input to 256 marks. Its buffer `grid` holds (scale, zero)."""

    def __init__(self, layer, bits):
        super().__init__(layer, bits)
        self.grid = Tensor([1.0, 0.0], dtype=np.float16)

    def set_grid(self, scale, zero):
        """The marks of the input: scale * (code - zero) for the codes 0 to 255."""
        self.grid.data = np.array([float16_up(scale), zero], np.float16)

    def forward(self, x):
        """What the layer computes with the decoded weight and the rounded input."""
        scale, zero = self.grid.data.astype(x.dtype)
        return super().forward(apply(fake_quantize_forward, x, scale=scale, zero=zero, low=0, high=255))


@vjp(fake_quantize_forward)
def fake_quantize_vjp(g, y, x, scale, zero, low, high):
    """The straight-through estimator: g where x was not clipped, 0 where it was."""
    code = np.rint(x / scale) + zero
    return (g * ((code >= low) & (code <= high)),)


def fake_quantize(w, bits):
    """The tensor `w` (O, ...) as its codes of `bits` bits read it back; gradients pass straight through.

    Raises ValueError for bits other than 8 and 4.
    """
    end = largest_code(bits)
    scale = column(channel_scale(w.data, bits), w.ndim).astype(w.dtype)
    return apply(fake_quantize_forward, w, scale=scale, zero=0, low=-end, high=end)


class FakeQuantized(Module):
    """A layer that computes with its weight as rounded to `bits` bits, and trains the weight itself."""

    def __init__(self, layer, bits):
        self.layer, self.bits = layer, bits

    def forward(self, *args, **kwargs):
        """What the layer computes with the rounded weight."""
        layer = copy.copy(self.layer)
        layer.weight = fake_quantize(self.layer.weight, self.bits)
        return layer(*args, **kwargs)

    def __getattr__(self, name):
        if name.startswith("_") or "layer" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.layer, name)


class QAT(Wrapped):
    """`model`, taken over, for quantization-aware training; `prepare_qat` makes it."""

    def __init__(self, model, bits=8, keep=()):
        largest_code(bits)
        self.model, self.qat_bits, self.qat_keep = model, bits, tuple(keep)
        change_weights("quantize", self, lambda layer: FakeQuantized(layer, bits), keep)

    def dense(self):
        """A copy of the float model inside, with the weights as trained."""
        new = copy.deepcopy(self)
        replace_layers(new, lambda name, m: m.layer if isinstance(m, FakeQuantized) else m)
        return new.model


def prepare_qat(model, bits=8, keep=()):
    """A copy of `model` to train at `bits` bits: the forward pass sees rounded weights, the float ones learn.

    Train it as any model, then `quantize(it, bits)` keeps exactly the weights that it computes with.
    `keep` names what stays in float. Raises what `quantize` raises. Source: Jacob et al., "Quantization
    and training of neural networks for efficient integer-arithmetic-only inference", 2018; the
    straight-through estimator: Bengio, Leonard and Courville, 2013.
    """
    largest_code(bits)
    return QAT(plain_copy("quantize", model), bits, tuple(keep)).train()
