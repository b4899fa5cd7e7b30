# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 15 Quantization
#
# > Weights as whole numbers of 8 or 4 bits: scales, packing, calibration, and training for it.
#
# A weight in float32 takes 32 bits. Most of them say nothing that the network needs. In this lesson you store
# weights as whole numbers of 8 or 4 bits and one scale a channel, pack two of the small ones into a byte, and see
# that the file really shrinks. You round what flows between layers too, and train a network that knows it will be
# rounded.
#
# **Why it matters to a system.** A model must be sent, loaded and kept in memory, and a processor often waits for
# weights longer than it computes with them. A quarter or an eighth of the bytes is the cheapest speed there is,
# where the hardware can use it. Our NumPy cannot multiply nibbles, so here the gain is the file; you will measure
# what it costs in accuracy and in time.
#
# **You need** `Module`, `save` and `load` (03), gradient rules (05), convolution and batch normalisation (09).
#
# The words of this lesson: `w` are weights whose first dimension is the *output channel* (a row of `Linear`, a
# filter of `Conv2d`, a token of an embedding). A *code* is a whole number, a *scale* the step between two
# neighbouring codes; `scale * code` is the weight that the network sees.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 15

# %%
#| export
import copy
import math

import numpy as np

from tinytorch.activations import blockwise
from tinytorch.autograd import no_grad, vjp
from tinytorch.layers import Linear, Module, Sequential
from tinytorch.spatial import BatchNorm2d, Conv2d
from tinytorch.tensor import Tensor, apply

# %% nbgrader={"grade_id": "tools", "locked": true}
import tempfile
import time
from pathlib import Path

from tinytorch.activations import GELU, ReLU
from tinytorch.layers import Flatten, load, save
from tinytorch.losses import CrossEntropyLoss
from tinytorch.optimizers import Adam
from tinytorch.spatial import MaxPool2d
from tinytorch.tensor import manual_seed

storage = tempfile.TemporaryDirectory()  # for the files of this notebook; goes when the kernel stops
folder = Path(storage.name)


def attempt(function, *args, **kwargs):
    """Call `function` and print the error that it raises, on one line."""
    try:
        function(*args, **kwargs)
        print("no error")
    except Exception as error:
        print(f"{type(error).__name__}: {error}")


# %% [markdown]
# ## 1. A ruler with few marks
#
# Take the weights `0.6 -0.2 0.05 1.4` and a ruler whose marks are the whole numbers from -7 to 7: fifteen of them,
# which four bits can tell apart. Let the largest weight, 1.4, lie on the mark 7. Then the marks are 0.2 apart: that
# is the *scale*. The weights become the codes `3 -1 0 7`, and read back `0.6 -0.2 0 1.4`. Three of the four came
# through unharmed; 0.05 lay between two marks, and no weight moves by more than half a step, 0.1.
#
# The ruler is *symmetric*: zero is always a mark, so a weight of zero stays zero. Eight bits have the marks from
# -127 to 127. (Bytes also hold -128; leaving it out keeps the ruler symmetric.)


# %%
#| export
def largest_code(bits):
    """The last mark of a symmetric ruler: 127 for 8 bits, 7 for 4. Raises ValueError for other numbers."""
    if bits not in (4, 8):
        raise ValueError(f"quantize: expected bits 8 or 4, got {bits!r}")
    return 2 ** (bits - 1) - 1


def column(scale, ndim):
    """Numbers per channel (O,) as (O, 1, ..., 1), so that they meet the first of `ndim` dimensions."""
    return scale.reshape(-1, *[1] * (ndim - 1))


# %% [markdown]
# Every output channel gets a ruler of its own, since channels differ in size, and one large weight would spoil the
# ruler of all others. It costs one number a channel. We store scales in two bytes, as float16, which rounds; so we
# round *up*, lest the largest weight fall off the end. This helper does it, and gives a channel of zeros a scale
# above zero.


# %%
#| export
def float16_up(scale):
    """The smallest float16 numbers above zero that are not below `scale`. Raises ValueError above 65504."""
    if not np.all(np.asarray(scale) <= 65504):
        raise ValueError("quantize: expected finite weights, and scales up to 65504 (the end of float16)")
    near = np.asarray(scale, np.float16)
    up = np.nextafter(near, np.float16(np.inf))
    return np.where((near < scale) | (near == 0), up, near).astype(np.float16)


# %% [markdown]
# Write `channel_scale`: the largest absolute value of each channel over all dimensions but the first, divided by
# the largest code, given to `float16_up`.


# %% nbgrader={"grade_id": "channel-scale", "solution": true}
#| export
def channel_scale(w, bits):
    """One scale a channel, float16 (O,), such that the largest weight of each channel lies on the last mark.

    Shapes: w (O, ...) -> (O,). Example: for [[0.6, -1.4], [0, 7]] and 4 bits it is [0.2, 1].
    """
    ### BEGIN SOLUTION
    largest = np.abs(w).max(axis=tuple(range(1, w.ndim)))
    return float16_up(largest / largest_code(bits))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
w = np.array([[0.6, -0.2, 0.05, 1.4], [70, -35, 5, 0]])
channel_scale(w, bits=4)

# %% nbgrader={"grade_id": "test-channel-scale", "grade": true, "points": 1}
def scales_agree(shape, bits, spread):
    draw = np.random.default_rng(1)
    w = draw.standard_normal(shape) * np.logspace(0, spread, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    got = np.asarray(channel_scale(w, bits), np.float64)
    wanted = np.array([max(abs(v) for v in w[o].ravel()) for o in range(shape[0])]) / {4: 7, 8: 127}[bits]
    assert got.shape == wanted.shape, f"channel_scale of {shape}: expected one scale a channel, {wanted.shape}, got {got.shape}"
    assert np.allclose(got, wanted, rtol=2e-3), (
        f"channel_scale of {shape}, {bits} bits: expected {wanted[:3].round(5)}..., got {got[:3].round(5)}...; "
        "the largest absolute value of each channel, over the largest code"
    )


scales_agree((3, 5), 4, 1)
scales_agree((4, 2, 3, 3), 8, 2)
### BEGIN HIDDEN TESTS
scales_agree((2, 1), 4, -1)
scales_agree((1, 6, 2, 2), 8, 0)
got = np.asarray(channel_scale(np.array([[0.0, 0.0], [-7.0, 1.0]]), 4), np.float64)
assert got[0] > 0 and got[1] == 1, f"channels 0 0 and -7 1, 4 bits: expected a scale above 0 and 1, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# ### There and back
#
# A code is the nearest mark: divide by the scale, round (`np.rint`), and clip to the ruler's ends, for a scale may
# be smaller than the largest weight asks for. Codes are stored as `np.int8`. The way back is a product, in float32.


# %% nbgrader={"grade_id": "codes", "solution": true}
#| export
def to_codes(w, scale, bits):
    """The nearest codes int8 of weights w (O, ...), one scale a channel (O,); beyond the end: the end."""
    ### BEGIN SOLUTION
    end = largest_code(bits)
    return np.clip(np.rint(w / column(scale, w.ndim).astype(w.dtype)), -end, end).astype(np.int8)
    ### END SOLUTION


def from_codes(codes, scale):
    """The weights float32 that codes (O, ...) stand for, with one scale a channel (O,)."""
    ### BEGIN SOLUTION
    return codes.astype(np.float32) * column(scale, codes.ndim).astype(np.float32)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
scale = channel_scale(w, bits=4)
print(to_codes(w, scale, bits=4))
print(from_codes(to_codes(w, scale, bits=4), scale).round(3))

# %% nbgrader={"grade_id": "test-codes", "grade": true, "points": 3}
def codes_agree(shape, bits, shrink=1.0):
    draw = np.random.default_rng(2)
    w, end = draw.standard_normal(shape), {4: 7, 8: 127}[bits]
    scale = (shrink * np.abs(w).reshape(shape[0], -1).max(1) / end * draw.uniform(1, 1.5, shape[0])).astype(np.float16)
    codes = np.asarray(to_codes(w, scale, bits))
    assert codes.dtype == np.int8, f"to_codes: expected int8, got {codes.dtype}"
    marks = np.arange(-end, end + 1)
    for o in range(shape[0]):
        distance = np.abs(w[o].reshape(-1, 1) - marks * float(scale[o]))
        wanted = marks[distance.argmin(axis=1)].reshape(shape[1:])
        assert np.array_equal(codes[o], wanted), (
            f"to_codes, {bits} bits, channel {o} with scale {float(scale[o]):.4f}: the nearest marks are "
            f"{wanted.ravel()[:5]}..., got {codes[o].ravel()[:5]}..."
        )
        back = np.asarray(from_codes(codes, scale))[o]
        assert np.allclose(back, wanted * float(scale[o]), rtol=1e-6), (
            f"from_codes, channel {o}: expected codes times {float(scale[o]):.4f}, got {back.ravel()[:3]}..."
        )


codes_agree((3, 20), 4)
codes_agree((4, 3, 2, 2), 8)
### BEGIN HIDDEN TESTS
codes_agree((3, 40), 4, shrink=0.4)
codes_agree((3, 40), 8, shrink=0.4)
got = np.asarray(from_codes(np.array([[127, -127]], np.int8), np.array([2.0], np.float16)))
assert got.tolist() == [[254, -254]], f"codes 127 -127 at scale 2: expected 254 -254, got {got}; leave int8 before multiplying"
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Cut off the tips
#
# With 15 marks it hurts to spend the outer ones on a single large weight. A shorter ruler cuts that weight off, but
# all others lie on finer marks. Which length is best? Try some: for each `shrink` among 1, 0.95, ... 0.5 compute the
# scales `shrink * channel_scale`, and per channel the sum of the errors between the weights and what is read back,
# each to the fourth power. Each channel keeps the scale with the smallest sum.
#
# Why not squares? In a long sum many small errors cancel, but one large weight that is cut off changes what the
# filter looks for, and always in the same direction: it gets weaker. The fourth power minds large errors more.
# Section 10 lets you compare the two.


# %% nbgrader={"grade_id": "best-scale", "solution": true}
#| export
SHRINKS = tuple(np.linspace(1, 0.5, 11).tolist())  # how much of the largest weight the ruler still reaches


def best_scale(w, bits):
    """The scales (O,) among SHRINKS * channel_scale; each with the smallest sum of (w - what is read)^4."""
    whole = channel_scale(w, bits)
    best, smallest = whole, np.full(len(w), np.inf)
    for shrink in SHRINKS:
        scale = float16_up(shrink * whole.astype(np.float64))
        ### BEGIN SOLUTION
        error = (w - from_codes(to_codes(w, scale, bits), scale)) ** 4
        error = error.sum(axis=tuple(range(1, w.ndim)))
        best = np.where(error < smallest, scale, best)
        smallest = np.minimum(error, smallest)
        ### END SOLUTION
    return best


# %% tags=["nbval-check-output"]
bell = np.random.default_rng(0).standard_normal((3, 500))
for name, scale in [("whole", channel_scale(bell, 4)), ("best", best_scale(bell, 4))]:
    error = bell - from_codes(to_codes(bell, scale, 4), scale)
    mean, worst = np.abs(error).mean(), np.abs(error).max()
    print(f"{name:5} ends at {7 * scale.astype(float).mean():.1f}, errors: mean {mean:.3f}, largest {worst:.2f}")

# %% [markdown]
# The stairs are what a weight is read back as. Move `shrink` down from 1 and watch the mean error fall and the
# largest rise; then take 8 bits. Is there anything left to gain?


# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import explore, show


def stairs(shrink=1.0, bits=4):
    """The figure of 500 weights against what is read back, and its text alternative."""
    weights = np.sort(np.random.default_rng(0).standard_normal((1, 500)))
    scale = float16_up(shrink * channel_scale(weights, bits).astype(np.float64))
    read = from_codes(to_codes(weights, scale, bits), scale)
    mean, worst = np.abs(weights - read).mean(), np.abs(weights - read).max()
    figure, axes = plt.subplots()
    axes.plot(weights[0], read[0], ".", label="read back")
    axes.plot(weights[0], weights[0], color="black", linestyle="--", linewidth=1, label="without error")
    axes.set(xlabel="weight", ylabel="read back as", title=f"errors: mean {mean:.3f}, largest {worst:.2f}")
    axes.legend()
    return figure, (
        f"500 weights against what {bits} bits read back, on a ruler of {shrink:.2f} times the largest weight: "
        f"{len(np.unique(read))} steps along the diagonal, {'cut off at both ends, ' if shrink < 1 else ''}"
        f"with a mean error of {mean:.3f} and a largest of {worst:.2f}."
    )


explore(stairs, shrink=(0.3, 1.0, 0.05), bits=[4, 8])

# %% nbgrader={"grade_id": "test-best-scale", "grade": true, "points": 2}
def best_agrees(w, bits):
    got = np.asarray(best_scale(w, bits), np.float64)
    end = {4: 7, 8: 127}[bits]
    for o, channel in enumerate(w):
        scales = np.linspace(1, 0.5, 11) * np.abs(channel).max() / end
        errors = [((channel - s * np.clip(np.round(channel / s), -end, end)) ** 4).sum() for s in scales]
        here = ((channel - got[o] * np.clip(np.round(channel / got[o]), -end, end)) ** 4).sum()
        assert here <= 1.04 * min(errors), (
            f"best_scale, {bits} bits, channel {o}: with the scale {scales[np.argmin(errors)]:.4f} the errors add up to "
            f"{min(errors):.3g}, with yours, {got[o]:.4f}, to {here:.3g}; every channel chooses for itself"
        )


draw = np.random.default_rng(3)
best_agrees(draw.standard_normal((4, 300)), 4)
### BEGIN HIDDEN TESTS
best_agrees(draw.uniform(-1, 1, (3, 2, 5, 5)), 4)
best_agrees(np.concatenate([draw.standard_normal((2, 400)), draw.uniform(-1, 1, (2, 400))]), 4)
best_agrees(draw.standard_t(3, (3, 300)), 8)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Two codes in one byte
#
# NumPy has no 4-bit numbers: an int8 code from -7 to 7 wastes half of its byte. So we pack. Add 8, and the codes
# become 1 to 15, which fit four bits, a *nibble*. Two nibbles `a` and `b` make one byte `a + 16 * b`. By hand: the
# codes 3 and -1 become 11 and 7, the byte is 11 + 16 · 7 = 123. Back: `123 & 15` is 11, `123 >> 4` is 7.
#
# An odd number of codes gets a zero nibble at the end. The first code of a pair is the low nibble. Work on the
# flat array in the dtype uint8, where the result is to fit.


# %% nbgrader={"grade_id": "pack", "solution": true}
#| export
def pack_int4(codes):
    """Codes from -8 to 7, of any shape, as bytes uint8: (n + 1) // 2 of them for n codes. 3, -1 -> 123."""
    nibbles = (codes.reshape(-1) + 8).astype(np.uint8)
    ### BEGIN SOLUTION
    if len(nibbles) % 2:
        nibbles = np.append(nibbles, np.uint8(0))
    return nibbles[0::2] | (nibbles[1::2] << 4)
    ### END SOLUTION


def unpack_int4(packed, n):
    """The first `n` codes, int8 (n,), of bytes that `pack_int4` made."""
    ### BEGIN SOLUTION
    nibbles = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:n]
    return nibbles.astype(np.int8) - np.int8(8)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
packed = pack_int4(np.array([3, -1, 7], np.int8))
print(packed, unpack_int4(packed, 3))

# %% nbgrader={"grade_id": "test-pack", "grade": true, "points": 2}
def packs(shape, seed=4):
    codes = np.random.default_rng(seed).integers(-8, 8, shape).astype(np.int8)
    flat = [int(c) + 8 for c in codes.ravel()] + [0]
    wanted = [flat[i] + 16 * flat[i + 1] for i in range(0, codes.size, 2)]
    packed = np.asarray(pack_int4(codes))
    assert packed.dtype == np.uint8 and packed.tolist() == wanted, (
        f"pack_int4 of {codes.ravel()[:4]}...: expected bytes {wanted[:2]}..., got {packed.dtype} {packed[:2]}..."
    )
    back = np.asarray(unpack_int4(packed, codes.size))
    assert back.dtype == np.int8 and np.array_equal(back, codes.ravel()), (
        f"unpack_int4: expected {codes.ravel()[:4]}..., got {back.dtype} {back[:4]}..."
    )


packs((4,))
packs((3, 2, 2))
### BEGIN HIDDEN TESTS
packs((5,))
packs((1,))
packs((7, 3, 3))
### END HIDDEN TESTS

# %% [markdown]
# ## 4. A layer that holds codes
#
# `QuantizedLayer` takes over any layer that has a weight with two or more dimensions: `Linear`, `Conv2d`, an
# embedding. The layer keeps its bias and all else; its weight is taken out and kept as codes and scales, two
# buffers that `save` writes to the file as they are.
#
# When the layer is used, it needs its weight in float32. Decoding at every call would cost more than many layers
# themselves, so the first call decodes and the result is kept. Where? In a dict. Lesson 03 warned that a dict hides
# what is in it from `state_dict`: here that is just what we want. And when the codes change, as `load` does it,
# `Tensor.version` tells.
#
# (The base class leaves open how a weight is stored; lesson 16 stores it in yet another way.)


# %%
#| export
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


# %% [markdown]
# Your part is to fill the buffers. `encode(w, scale)` makes the codes of `w` and gives `self.scale.data` the scales
# and `self.codes.data` the codes: packed if there are 4 bits, else the int8 array as it is. `decode` is the way
# back, to an array of shape `self.shape`; `math.prod(self.shape)` is the number of codes.


# %% nbgrader={"grade_id": "quantized-layer", "solution": true}
#| export
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
        ### BEGIN SOLUTION
        codes = to_codes(w, scale, self.bits)
        self.scale.data = scale
        self.codes.data = pack_int4(codes) if self.bits == 4 else codes
        ### END SOLUTION

    def decode(self):
        """The weight float32 of the layer's shape."""
        ### BEGIN SOLUTION
        codes = self.codes.data
        if self.bits == 4:
            codes = unpack_int4(codes, math.prod(self.shape)).reshape(self.shape)
        return from_codes(codes, self.scale.data)
        ### END SOLUTION

    def __repr__(self):
        return f"QuantizedLayer({self.layer_text()}, bits={self.bits})"

    def layer_text(self):
        """The layer's name and the shape of its weight."""
        return f"{type(self.layer).__name__} {self.shape}"


# %% tags=["nbval-check-output"]
layer = Linear(4, 2)
layer.weight.data = w.astype(np.float32)
small = QuantizedLayer(layer, bits=4)
print(small)
print({name: (a.dtype.name, a.shape) for name, a in small.state_dict().items()})
print(small.weight)

# %% nbgrader={"grade_id": "test-quantized-layer", "grade": true, "points": 2}
def stored_layer_agrees(make, x_shape, bits):
    layer, draw = make(), np.random.default_rng(5)
    w = draw.standard_normal(layer.weight.shape).astype(np.float32)
    layer.weight.data = w
    twin, end = make(), {4: 7, 8: 127}[bits]
    twin.bias.data = np.asarray(layer.bias.data).copy()
    stored = QuantizedLayer(layer, bits)
    for factor in (1, 3):
        scale = (factor * np.abs(w).reshape(len(w), -1).max(1) / end).astype(np.float16)
        stored.encode(factor * w, scale)
        step = scale.astype(np.float32).reshape(-1, *[1] * (w.ndim - 1))
        twin.weight.data = step * np.clip(np.round(factor * w / step), -end, end)
        x = Tensor(draw.standard_normal(x_shape))
        got, wanted = np.asarray(stored(x)), np.asarray(twin(x))
        assert np.allclose(got, wanted, atol=1e-4), (
            f"QuantizedLayer, {bits} bits, weights {w.shape} times {factor}: with rounded weights expected "
            f"{wanted.ravel()[:3]}..., got {got.ravel()[:3]}...; look at encode and decode"
        )
    held = {name: (str(np.asarray(a).dtype), np.asarray(a).size) for name, a in stored.state_dict().items()}
    wanted = {"codes": ("uint8", (w.size + 1) // 2) if bits == 4 else ("int8", w.size), "scale": ("float16", len(w))}
    assert {k: held.get(k) for k in wanted} == wanted, f"expected the buffers {wanted}, got {held}"


stored_layer_agrees(lambda: Linear(5, 3), (2, 5), 4)
stored_layer_agrees(lambda: Linear(4, 3), (2, 4), 8)
### BEGIN HIDDEN TESTS
stored_layer_agrees(lambda: Conv2d(3, 5, 3, padding=1), (2, 3, 5, 4), 4)
stored_layer_agrees(lambda: Conv2d(2, 3, 2, stride=2), (1, 2, 6, 4), 8)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Layers anywhere in a model
#
# A model is a tree of modules, and the layers to change may hang anywhere: as an attribute, or in a list or tuple of
# one. `replace_layers` walks through it. For every module inside, `change(name, child)` says what shall stand in its
# place. Where that is the child itself, the walk goes on inside of it.
#
# The walk over attributes is given; it uses `swap(name, child)` for every module that it meets. Write `swap`: ask
# `change`; if it returns the same object, go on with `replace_layers(child, change, name + ".")`; return what shall
# stand there.


# %% nbgrader={"grade_id": "replace-layers", "solution": true}
#| export
def replace_layers(module, change, prefix=""):
    """Put `change(name, child)` in the place of every module inside `module`, in place, parents first.

    Names are those of `named_tensors`: "groups.layers.0.conv1". Where `change` returns the child itself, the
    modules inside of it are asked next.
    """

    def swap(name, child):
        if not isinstance(child, Module):
            return child
        ### BEGIN SOLUTION
        new = change(name, child)
        if new is child:
            replace_layers(child, change, name + ".")
        return new
        ### END SOLUTION

    for name, value in list(vars(module).items()):
        if type(value) in (list, tuple) and name != "_arguments":
            entries = [swap(f"{prefix}{name}.{i}", entry) for i, entry in enumerate(value)]
            setattr(module, name, type(value)(entries))
        elif isinstance(value, Module):
            setattr(module, name, swap(prefix + name, value))


# %% tags=["nbval-check-output"]
class Residual(Module):
    def __init__(self, size):
        self.block = Sequential(Linear(size, size), ReLU())
        self.out = Linear(size, 2)

    def forward(self, x):
        return self.out(x + self.block(x))


replace_layers(Residual(3), lambda name, child: print(name, type(child).__name__) or child)

# %% nbgrader={"grade_id": "test-replace-layers", "grade": true, "points": 2}
net = Sequential(Linear(2, 3), Sequential(Linear(3, 3), ReLU()), Residual(3))
met = []
replace_layers(net, lambda name, child: met.append(name) or child)
wanted = ["layers.0", "layers.1", "layers.1.layers.0", "layers.2", "layers.2.block", "layers.2.block.layers.0", "layers.2.out"]
assert [str(name) for name in met] == wanted, f"expected the names {wanted}, got {met}; parents come before children"
replace_layers(net, lambda name, child: Flatten() if isinstance(child, Linear) else child)
got = [name for name, _ in net.named_parameters()]
assert got == [], f"every Linear was replaced by Flatten: expected no parameters, got {got}"
### BEGIN HIDDEN TESTS
met = []
replace_layers(Sequential(Residual(2), Linear(2, 2)), lambda name, child: met.append(name) or Flatten())
assert [str(name) for name in met] == ["layers.0", "layers.1"], f"expected no look inside a module that was replaced, asked for {met}"
net = Residual(2)
replace_layers(net, lambda name, child: Flatten() if name == "out" else child)
assert type(net.out).__name__ == "Flatten" and type(net.block).__name__ == "Sequential", (
    f"expected out replaced and block as it was, got {type(net.out).__name__} and {type(net.block).__name__}"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Fold batch normalisation away
#
# In evaluation a batch normalisation is a factor and a shift per channel, the same for all images. A convolution
# before it can do both itself. With s = gamma / sqrt(var + eps),
#
# $$s\,(w * x + b - \text{mean}) + \text{beta} = (s\,w) * x + \big((b - \text{mean})\,s + \text{beta}\big)$$
#
# so the filters are multiplied by s and the bias is what stands in brackets. Nothing is lost, one layer is gone.


# %% nbgrader={"grade_id": "folded", "solution": true}
#| export
def folded(w, b, gamma, beta, mean, var, eps):
    """Filters and bias that do what convolution, then batch normalisation did, in evaluation.

    Shapes: w (O, C, KH, KW), b (O,) or None, the others (O,) -> (O, C, KH, KW), (O,).
    """
    ### BEGIN SOLUTION
    s = gamma / np.sqrt(var + eps)
    b = (0 if b is None else b) - mean
    return w * column(s, w.ndim), b * s + beta
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-folded", "grade": true, "points": 2}
def folds(bias, eps):
    draw = np.random.default_rng(6)
    x, conv, norm = Tensor(draw.standard_normal((2, 3, 5, 5))), Conv2d(3, 4, 3, bias=bias), BatchNorm2d(4, eps=eps)
    numbers = [draw.standard_normal(4), draw.standard_normal(4), draw.standard_normal(4), draw.uniform(0.1, 2, 4)]
    for t, a in zip([norm.weight, norm.bias, norm.running_mean, norm.running_var], numbers, strict=True):
        t.data = a.astype(np.float32)
    wanted = np.asarray(norm.eval()(conv(x)))
    b = np.asarray(conv.bias.data) if bias else None
    w, b = folded(np.asarray(conv.weight.data), b, *numbers, eps)
    one = Conv2d(3, 4, 3)
    one.weight.data, one.bias.data = np.asarray(w, np.float32), np.asarray(b, np.float32)
    got = np.asarray(one(x))
    assert np.allclose(got, wanted, atol=1e-4), (
        f"folded, bias {bias}, eps {eps}: both layers give {wanted.ravel()[:3]}..., the folded one {got.ravel()[:3]}..."
    )


folds(True, 1e-5)
### BEGIN HIDDEN TESTS
folds(False, 1e-5)
folds(True, 0.5)
### END HIDDEN TESTS

# %% [markdown]
# Where is this exact? Where the normalisation sees just what the convolution gives, and nobody else does. In a
# `Sequential` with the two side by side we know that. In a class of your own, `forward` decides, and nobody can
# tell from outside; there the normalisation stays. An empty `Sequential` takes the place of what was folded away.


# %%
#| export
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


# %% [markdown]
# ## 7. quantize
#
# Now put it together. `Quantized` wraps a model and takes it over: batch norms are folded, every layer with a
# weight matrix becomes a `QuantizedLayer`. Its constructor's arguments, the model among them, go into the file, so
# `load` builds the float model, wraps it, and reads the codes into the buffers.
#
# `quantize` is what you call. It works on a copy, and looks for the best scales, which `Quantized` alone does not.
# `keep` names layers, or whole parts, that stay in float: often the first and the last layer, which are small and
# sensitive.


# %%
#| export
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


# %%
#| export
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


# %% [markdown]
# `RoundedLayer` comes in section 8. Until then there are no activations to round. Before `quantize` a helper: a
# model that lesson 15 or 16 has wrapped for training gives its plain form with `dense()`.


# %%
#| export
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


# %% [markdown]
# The network below has three matrices and two batch norms. One of these stands behind a convolution and is folded;
# the other stands behind a pooling, and stays.

# %% tags=["nbval-check-output"]
manual_seed(0)
net = Sequential(
    Conv2d(1, 16, 3, padding=1), BatchNorm2d(16), GELU(), Conv2d(16, 32, 3, bias=False), MaxPool2d(2), BatchNorm2d(32),
    GELU(), Flatten(), Linear(32 * 9, 10),
)  # fmt: skip
print(quantize(net, bits=4))

# %% [markdown]
# What does the file weigh? `dtype="float16"` is for what stays in float: biases and batch norms.

# %% tags=["nbval-check-output"]
for bits, model in [(32, net), (8, quantize(net, bits=8)), (4, quantize(net, bits=4))]:
    save(model, folder / "net.safetensors", dtype=None if bits == 32 else "float16")
    weights = sum(a.nbytes for name, a in model.state_dict().items() if name.endswith(("weight", "codes")))
    print(f"{bits:2} bits: {weights:6,} bytes of weights and codes")

# %% nbgrader={"grade_id": "test-quantize", "grade": true, "points": 2}
def quantizes(bits, keep, worst):
    draw = np.random.default_rng(11)
    net = Sequential(Sequential(Conv2d(2, 6, 3, bias=False), BatchNorm2d(6), ReLU()), Flatten(), Linear(24, 5))
    for _ in range(3):
        net(Tensor(3 * draw.standard_normal((8, 2, 4, 4)) + 1))
    x = Tensor(draw.standard_normal((6, 2, 4, 4)))
    before = {name: np.asarray(a).copy() for name, a in net.state_dict().items()}
    wanted, small = np.asarray(net.eval()(x)), quantize(net, bits=bits, keep=keep)
    got = np.asarray(small(x))
    error = np.abs(got - wanted).max() / np.abs(wanted).max()
    assert 0 < error < worst, f"quantize, {bits} bits, keep={keep}: outputs off by {error:.4f}, expected above 0 and below {worst}"
    changed = [name for name, a in net.state_dict().items() if not np.array_equal(np.asarray(a), before[name])]
    assert changed == [], f"quantize changed {changed} of the model it was given; it works on a copy"
    file = folder / f"quantized{bits}.safetensors"
    save(small, file)
    again = np.asarray(load(file).eval()(x))
    assert np.array_equal(again, got), f"quantize, {bits} bits: saved and loaded, the outputs moved by {np.abs(again - got).max():.2g}"
    codes = sum(np.asarray(a).nbytes for name, a in small.state_dict().items() if np.asarray(a).dtype.kind in "iu")
    numbers = 108 + (0 if keep else 120)
    assert codes == numbers * bits // 8, f"{numbers} weights of {bits} bits: expected {numbers * bits // 8} bytes, got {codes}"


quantizes(8, (), 0.03)
quantizes(4, (), 0.4)
### BEGIN HIDDEN TESTS
quantizes(4, ("layers.2",), 0.4)
quantizes(8, ("layers.2",), 0.03)
### END HIDDEN TESTS

# %% [markdown]
# ## 8. What flows between the layers
#
# Hardware with integer units wants both factors of a product as whole numbers. Unlike weights, inputs are not
# centred: after a ReLU nothing is negative, and half of a symmetric ruler would lie idle. So the ruler for inputs
# goes from the smallest to the largest value seen: 256 marks, the codes 0 to 255, and a *zero point*, the code that
# means 0. `scale * (code - zero)` is the value. Zero stays exact: convolution pads with it.
#
# By hand: values from -1 to 1.55. The range is 2.55, 255 steps, the scale 0.01. The value -1 is to have the code 0,
# so zero has the code 100.
#
# `lo` and `hi` first make room for 0 (`lo` at most 0, `hi` at least). The scale is the range over 255; where the
# range is 0, take the scale 1. The zero point is `-lo / scale`, rounded to a whole number.


# %% nbgrader={"grade_id": "activation-grid", "solution": true}
#| export
def activation_grid(lo, hi):
    """(scale, zero) such that the codes 0 to 255 reach from `lo` to `hi`, and 0 has the whole number `zero`.

    Examples: activation_grid(-1, 1.55) is (0.01, 100), activation_grid(1, 2.55) is (0.01, 0).
    """
    ### BEGIN SOLUTION
    lo, hi = min(float(lo), 0.0), max(float(hi), 0.0)
    scale = (hi - lo) / 255 or 1.0
    return scale, round(-lo / scale)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print([(round(scale, 6), zero) for scale, zero in (activation_grid(-1, 1.55), activation_grid(1, 2.55))])

# %% nbgrader={"grade_id": "test-activation-grid", "grade": true, "points": 1}
for lo, hi, scale, zero in [(-1, 1.55, 0.01, 100), (1, 2.55, 0.01, 0), (-5.1, -2, 0.02, 255)]:
    got = activation_grid(lo, hi)
    assert np.isclose(float(got[0]), scale) and int(got[1]) == zero, (
        f"activation_grid({lo}, {hi}): expected scale {scale} and zero point {zero}, got {got}"
    )
### BEGIN HIDDEN TESTS
got = activation_grid(0, 0)
assert float(got[0]) > 0 and int(got[1]) == 0, f"activation_grid(0, 0): expected a scale above 0 and zero point 0, got {got}"
got = activation_grid(-0.17, 6.2)
assert float(got[1]) == 7 and np.isclose(float(got[0]), 6.37 / 255), f"activation_grid(-0.17, 6.2): expected ({6.37 / 255:.5f}, 7), got {got}"
### END HIDDEN TESTS

# %% [markdown]
# ### The product in whole numbers
#
# With codes on both sides the product needs no floats until its very end:
#
# $$y_{o} = \sum_i s_x (q_{i} - z) \; s_{w,o}\, c_{o,i} + b_o = s_x s_{w,o} \sum_i (q_i - z)\, c_{o,i} + b_o$$
#
# The sum has whole numbers only. Here is a version with loops and 64-bit integers.


# %%
#| export
def integer_linear_naive(q, codes):
    """The sums of q[b, i] * codes[o, i] in 64-bit integers, by loops. Shapes: (B, I), (O, I) -> (B, O)."""
    y = np.zeros((len(q), len(codes)), np.int64)
    for b, o in np.ndindex(y.shape):
        y[b, o] = sum(int(m) * int(n) for m, n in zip(q[b], codes[o], strict=True))
    return y


# %% [markdown]
# NumPy multiplies integer matrices without the fast library, many times slower than floats. But a float32 holds
# every whole number up to 2^24 = 16,777,216 exactly! A product of our codes is at most 255 · 127, so up to
# 2^24 // (255 · 127) = 518 of them add up without any rounding. Write `integer_linear`: cut the I columns into pieces
# of at most `EXACT` columns, multiply each piece in float32, and add the results as int64.


# %% nbgrader={"grade_id": "integer-linear", "solution": true}
#| export
EXACT = 2**24 // (255 * 127)  # so many products of codes add up exactly in float32


def integer_linear(q, codes):
    """The sums of q[b, i] * codes[o, i], exact, by float32 products. Shapes: (B, I), (O, I) -> int64 (B, O).

    q are whole numbers from -255 to 255, codes from -127 to 127.
    """
    y = np.zeros((len(q), len(codes)), np.int64)
    for start in range(0, q.shape[1], EXACT):
        ### BEGIN SOLUTION
        piece = slice(start, start + EXACT)
        y += (q[:, piece].astype(np.float32) @ codes[:, piece].astype(np.float32).T).astype(np.int64)
        ### END SOLUTION
    return y


# %% tags=["nbval-check-output"]
print(integer_linear(np.array([[100, -3]]), np.array([[7, 2], [-1, 0]])))

# %% nbgrader={"grade_id": "test-integer-linear", "grade": true, "points": 1}
draw = np.random.default_rng(7)
q, c = draw.integers(-255, 256, (3, 20)), draw.integers(-127, 128, (4, 20)).astype(np.int8)
got, wanted = np.asarray(integer_linear(q, c)), integer_linear_naive(q, c)
assert np.array_equal(got, wanted), f"integer_linear: the loops give {wanted[0]}, got {got[0]}"
### BEGIN HIDDEN TESTS
q, c = np.full((2, 3000), 255), np.full((2, 3000), 127, np.int8)
q[1, ::7], c[1, 1] = 254, 126
got, wanted = np.asarray(integer_linear(q, c)), q.astype(object) @ c.astype(object).T
assert np.array_equal(got.astype(object), wanted), (
    f"integer_linear of 3,000 columns: expected {wanted[1].tolist()}, got {got[1].tolist()}; sum in pieces of EXACT columns"
)
### END HIDDEN TESTS

# %% [markdown]
# So integers and rounded floats agree, and we may go on in floats: round the input to its grid, then use the layer as
# it is. This is called *simulated* quantization: the numbers are those of the integer hardware, the speed is not.
#
# ### One primitive for both rulers
#
# `fake_quantize_forward` rounds a value to the nearest mark and gives the value of that mark. Weights have zero point
# 0 and marks from `low` = -7 to `high` = 7 or so; inputs 0 to 255. Write it with `np.rint` and `np.clip`:
# divide by the scale, add the zero point, round, clip; subtract the zero point, multiply by the scale. `scale` has
# the dtype of `x`, and is a number or broadcasts against `x`.


# %% nbgrader={"grade_id": "fake-quantize", "solution": true}
#| export
def fake_quantize_forward(x, scale, zero, low, high):
    """For every x the nearest of scale * (code - zero), codes `low` to `high`; same shape and dtype."""
    ### BEGIN SOLUTION
    y = np.rint(x / scale)
    y += zero
    np.clip(y, low, high, out=y)
    y -= zero
    y *= scale
    return y
    ### END SOLUTION


# %% tags=["nbval-check-output"]
fake_quantize_forward(np.array([-2, -0.33, 0.04, 0.456, 2]), 0.1, 3, 0, 10).round(2)

# %% nbgrader={"grade_id": "test-fake-quantize", "grade": true, "points": 2}
def marks_agree(shape, scale, zero, low, high):
    x = np.random.default_rng(8).standard_normal(shape) * scale * (high - low) / 2
    got = np.asarray(fake_quantize_forward(x.copy(), scale, zero, low, high))
    marks = scale * (np.arange(low, high + 1) - zero)
    wanted = marks[np.abs(x[..., None] - marks).argmin(axis=-1)]
    assert got.shape == shape and np.allclose(got, wanted), (
        f"fake_quantize_forward, scale {scale}, zero {zero}, codes {low} to {high}: for {x.ravel()[:3].round(3)} expected "
        f"{wanted.ravel()[:3].round(3)}, got {got.ravel()[:3].round(3)}"
    )


marks_agree((50,), 0.1, 0, -7, 7)
marks_agree((4, 30), 0.02, 100, 0, 255)
### BEGIN HIDDEN TESTS
marks_agree((60,), 0.5, 3, 0, 10)
x = np.array([[0.4, 1.6], [4.0, 16.0]])
got = np.asarray(fake_quantize_forward(x, np.array([[1.0], [10.0]]), 0, -7, 7))
assert got.tolist() == [[0, 2], [0, 20]], f"scales 1 and 10 for two rows: expected [[0, 2], [0, 20]], got {got.tolist()}"
assert x.tolist() == [[0.4, 1.6], [4.0, 16.0]], f"fake_quantize_forward changed its input to {x.tolist()}"
### END HIDDEN TESTS

# %% [markdown]
# ### Calibration
#
# Which values will flow? Nobody knows before some have: *calibration* sends example inputs through the float model
# and notes the smallest and the largest value at each layer's door. `Watched` stands in front of a layer and takes
# notes.


# %%
#| export
class Watched(Module):
    """A layer that notes the smallest and the largest input it has seen, in `lo` and `hi`."""

    def __init__(self, layer):
        self.layer, self.lo, self.hi = layer, 0.0, 0.0

    def forward(self, x):
        """What the layer computes."""
        self.lo, self.hi = np.minimum(self.lo, x.data.min()), np.maximum(self.hi, x.data.max())  # nan stays nan
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


# %% [markdown]
# The quantized layer that rounds its input first. Values beyond what the calibration saw go to the end of the ruler.


# %%
#| export
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


# %% [markdown]
# ## 9. Train for it
#
# At 8 bits a network hardly notices. At 4 bits it does, and then it helps to train a little while the rounding is
# there: the weights learn to sit well *after* rounding. But rounding is a staircase, its slope is zero nearly
# everywhere, and no gradient passes. The trick is bold: in the backward pass pretend that rounding did nothing. Where
# the value was not clipped, the gradient goes through unchanged; where it was, it is 0. This is the *straight-through
# estimator*. It is no true gradient, so `gradcheck` would object, and yet it trains.
#
# Write the rule. A value is clipped where `x / scale + zero`, rounded, lies outside of `low` to `high`.


# %% nbgrader={"grade_id": "straight-through", "solution": true}
#| export
@vjp(fake_quantize_forward)
def fake_quantize_vjp(g, y, x, scale, zero, low, high):
    """The straight-through estimator: g where x was not clipped, 0 where it was."""
    ### BEGIN SOLUTION
    code = np.rint(x / scale) + zero
    return (g * ((code >= low) & (code <= high)),)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
x = Tensor([-2.0, -0.33, 0.04, 0.456, 2], requires_grad=True)
apply(fake_quantize_forward, x, scale=0.1, zero=3, low=0, high=10).sum().backward()
print(x.grad)

# %% nbgrader={"grade_id": "test-straight-through", "grade": true, "points": 2}
def passes(shape, scale, zero, low, high):
    draw = np.random.default_rng(9)
    x = draw.standard_normal(shape) * scale * (high - low)
    g = draw.standard_normal(shape)
    (got,) = fake_quantize_vjp(g, fake_quantize_forward(x, scale, zero, low, high), x, scale, zero, low, high)
    ends = scale * (low - zero - 0.5), scale * (high - zero + 0.5)
    wanted = np.where((x > ends[0]) & (x < ends[1]), g, 0)
    assert np.allclose(np.asarray(got), wanted), (
        f"fake_quantize_vjp, marks from {ends[0]:.3f} to {ends[1]:.3f}: for x {x.ravel()[:3].round(3)} and g "
        f"{g.ravel()[:3].round(3)} expected {wanted.ravel()[:3].round(3)}, got {np.asarray(got).ravel()[:3].round(3)}"
    )


passes((40,), 0.1, 0, -7, 7)
passes((5, 20), 0.5, 3, 0, 10)
### BEGIN HIDDEN TESTS
passes((3, 50), 2.0, 100, 0, 255)
w = Tensor(np.array([[0.5, -3.0], [0.2, 0.1]]), requires_grad=True)
(apply(fake_quantize_forward, w, scale=np.array([[0.25], [0.01]], np.float32), zero=0, low=-7, high=7) * Tensor([[1.0, 2], [3, 4]])).sum().backward()
got = np.asarray(w.grad)
assert got.tolist() == [[1, 0], [0, 0]], f"scales 0.25 and 0.01 by row: expected [[1, 0], [0, 0]], got {got.tolist()}"
### END HIDDEN TESTS

# %% [markdown]
# `fake_quantize(w, bits)` rounds a weight tensor with the scales of `channel_scale`. They are computed from the
# data and take no part in the gradient.


# %% nbgrader={"grade_id": "fake-quantize-weight", "solution": true}
#| export
def fake_quantize(w, bits):
    """The tensor `w` (O, ...) as its codes of `bits` bits read it back; gradients pass straight through.

    Raises ValueError for bits other than 8 and 4.
    """
    end = largest_code(bits)
    ### BEGIN SOLUTION
    scale = column(channel_scale(w.data, bits), w.ndim).astype(w.dtype)
    return apply(fake_quantize_forward, w, scale=scale, zero=0, low=-end, high=end)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-fake-quantize-weight", "grade": true, "points": 1}
for shape, bits in [((3, 8), 4), ((4, 2, 3, 3), 8)]:
    w = Tensor(np.random.default_rng(10).standard_normal(shape), requires_grad=True)
    got = fake_quantize(w, bits)
    scale = channel_scale(w.data, bits)
    wanted = np.asarray(from_codes(to_codes(w.data, scale, bits), scale))
    assert np.allclose(np.asarray(got), wanted, atol=1e-6), (
        f"fake_quantize of {shape}, {bits} bits: expected what the codes read back, {wanted.ravel()[:3]}..., "
        f"got {np.asarray(got).ravel()[:3]}..."
    )
    got.sum().backward()
    assert np.array_equal(np.asarray(w.grad), np.ones(shape)), "fake_quantize: with channel_scale no weight is clipped, so all gradients pass"

# %% [markdown]
# Now a layer and a model that do this at each forward pass. The float weight stays where it was: it is what the
# optimizer changes, in steps far smaller than the marks are apart.


# %%
#| export
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


# %% [markdown]
# Trained or not, a QAT model and the quantized model made of it compute the same, up to the rounding of float32.

# %% tags=["nbval-check-output"]
practice = prepare_qat(net, bits=4)
x = Tensor(np.random.default_rng(0).standard_normal((5, 1, 8, 8)))
loss = CrossEntropyLoss()(practice(x), np.arange(5))
loss.backward()
print(sum(p.grad is not None for p in practice.parameters()), "of", len(practice.parameters()), "have a gradient")
print(bool(np.allclose(practice.eval()(x), quantize(practice, bits=4)(x), atol=1e-5)))

# %% nbgrader={"grade_id": "test-qat", "grade": true, "points": 2}
def qat_learns(bits):
    manual_seed(12)
    draw = np.random.default_rng(12)
    x, teacher = Tensor(draw.standard_normal((64, 6))), draw.standard_normal((6, 4))
    y, model = Tensor(np.asarray(x) @ teacher), prepare_qat(Sequential(Linear(6, 32), ReLU(), Linear(32, 4)), bits)
    optimizer, losses = Adam(model.parameters(), lr=0.02), []
    for _ in range(150):
        loss = ((model(x) - y) ** 2).mean()
        losses.append(float(loss))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    end = float(((model.eval()(x) - y) ** 2).mean())
    assert end < 0.2 * losses[0], f"training at {bits} bits: the loss began at {losses[0]:.3f} and ended at {end:.3f}, expected below a fifth"
    after = float(((quantize(model, bits=bits)(x) - y) ** 2).mean())
    assert np.isclose(after, end, rtol=1e-3), f"{bits} bits: trained to a loss of {end:.5f}, quantized it has {after:.5f}"


qat_learns(4)
### BEGIN HIDDEN TESTS
qat_learns(8)
### END HIDDEN TESTS

# %% [markdown]
# ## 10. Measure: bits against accuracy
#
# Ten patterns of 8×8 pixels, moved about and covered with noise, and a small network that learns to tell them apart.
# Then the same network at 8 and 4 bits, with rounded inputs, and after a little training at 4 bits.


# %% tags=["measure"]
def pictures(n, seed):
    """n noisy pictures (n, 1, 8, 8) of ten patterns, moved by up to a pixel, and which pattern it is, (n,)."""
    draw, patterns = np.random.default_rng(seed), np.random.default_rng(77).standard_normal((10, 8, 8))
    labels, moves = draw.integers(0, 10, n), draw.integers(-1, 2, (n, 2))
    x = np.stack([np.roll(patterns[k], move, (0, 1)) for k, move in zip(labels, moves, strict=True)])
    return (x + 1.2 * draw.standard_normal(x.shape)).astype(np.float32)[:, None], labels


def fit(model, x, y, epochs, lr):
    """Train `model` with Adam on batches of 100."""
    optimizer = Adam(model.train().parameters(), lr=lr)
    for k in range(epochs * len(x) // 100):
        rows = slice(k * 100 % len(x), k * 100 % len(x) + 100)
        optimizer.zero_grad()
        CrossEntropyLoss()(model(Tensor(x[rows])), y[rows]).backward()
        optimizer.step()
    return model.eval()


def share_right(model, x, y):
    """The share of pictures of which `model` says the right pattern."""
    with no_grad():
        return float((np.asarray(model(Tensor(x))).argmax(axis=1) == y).mean())


# %% tags=["measure"]
train_x, train_y = pictures(3000, seed=1)
test_x, test_y = pictures(2000, seed=2)
net = fit(net, train_x, train_y, epochs=6, lr=2e-3)
rough = fit(prepare_qat(net, bits=4), train_x, train_y, epochs=2, lr=5e-4)

# %% tags=["measure"]
forms = {
    "float32": net,
    "8 bits": quantize(net, bits=8),
    "8 bits, inputs too": quantize(net, bits=8, calibration=train_x[:500]),
    "4 bits": quantize(net, bits=4),
    "4 bits, trained": quantize(rough, bits=4),
}
results = {}
for name, model in forms.items():
    save(model, folder / "form.safetensors", dtype=None if name == "float32" else "float16")
    share_right(model, test_x[:100], test_y[:100])  # decodes
    start = time.perf_counter()
    right = share_right(model, test_x, test_y)
    seconds, size = time.perf_counter() - start, (folder / "form.safetensors").stat().st_size
    results[name] = size, right
    print(f"{name:18} {size:7,} bytes, {right:6.2%} right, {seconds * 1e3:5.0f} ms")

# %% [markdown]
# A small file is mostly header: names, shapes and the architecture. In a large one the codes are what counts.
# The time is that of the float network, as it multiplies floats; rounding the inputs costs extra. On hardware with
# integer units it would be the other way round.
#
# How many bits does this network need? The figure rounds its weights to 2 to 8 bits, with `channel_scale`'s rule.

# %% tags=["measure"]
def rounded(model, end):
    """A copy whose matrices are rounded to whole numbers from -end to end, times a scale a channel."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if has_matrix(module):
            w = module.weight.data
            scale = np.abs(w).max(axis=tuple(range(1, w.ndim)), keepdims=True) / end
            module.weight.data = (np.rint(w / scale) * scale).astype(np.float32)
    return model


bits = range(2, 9)
shares = [share_right(rounded(net, 2 ** (b - 1) - 1), test_x, test_y) for b in bits]
trained, whole = results["4 bits, trained"][1], results["float32"][1]
figure, axes = plt.subplots()
axes.plot(bits, shares, "o-", label="rounded after training")
axes.plot([4], [trained], "s", markersize=9, label="trained at 4 bits")
axes.axhline(whole, color="black", linestyle="--", linewidth=1, label="float32")
axes.set(xlabel="bits a weight", ylabel="share right")
axes.legend(loc="lower right")
show(
    figure,
    alt=f"Share of right answers against the bits a weight has; float32 has {whole:.3f}. Rounded after training: "
    + ", ".join(f"{share:.3f} with {b}" for b, share in zip(bits, shares))
    + f". Trained at 4 bits: {trained:.3f}.",
)

# %% [markdown]
# From eight bits down to five or so the line lies on that of float32, then it falls, steeply at the end. The network
# trained at 4 bits lies at or above the line.
#
# Compare the two rules of section 2 here: change the 4 in `best_scale` to a 2, run `quantize(net, bits=4)` again, and
# look at the largest error and at the accuracy.
#
# ## 11. What breaks
#
# Bits that have no packing here, and a model without a matrix:

# %% tags=["nbval-check-output"]
attempt(quantize, Linear(2, 2), bits=3)
attempt(quantize, Sequential(ReLU(), BatchNorm2d(3)))

# %% [markdown]
# Codes of codes. What was rounded away does not come back by quantizing again:

# %% tags=["nbval-check-output"]
attempt(quantize, quantize(Linear(2, 2)), bits=4)

# %% [markdown]
# A weight that is not a number has no place on a ruler:

# %% tags=["nbval-check-output"]
broken = Linear(2, 2)
broken.weight.data[0, 0] = np.nan
attempt(quantize, broken)

# %% [markdown]
# One ruler for all channels, as a scale per matrix would be. A large channel takes the marks from a small one:

# %% tags=["nbval-check-output"]
w = np.array([[0.01, -0.02], [5, 7]], np.float32)
one = np.full(2, channel_scale(w, 4).max())
print(from_codes(to_codes(w, one, 4), one).tolist())

# %% [markdown]
# Calibration with inputs that are unlike those of real use. The ruler ends at 1, and everything beyond becomes 1:

# %% tags=["nbval-check-output"]
plain = Linear(1, 1, bias=False)
plain.weight.data = np.ones((1, 1), np.float32)
narrow = quantize(plain, calibration=np.linspace(0, 1, 9, dtype=np.float32)[:, None])
print(np.asarray(narrow(Tensor([[0.5], [1.0], [20.0]]))).ravel().round(2))

# %% [markdown]
# ## Exercises
#
# Ungraded; try them in cells of your own.
#
# 1. How many bytes has a matrix of 256 × 2304 at 4 bits with one scale a row? With one scale for each 32 weights of a
#    row? Which error does the second have on weights drawn from a normal distribution?
# 2. A code of 3 bits: how would you pack eight of them into three bytes?
# 3. After calibration a single picture may have one huge pixel. Let `Watched` note the 0.1% and 99.9% quantiles
#    instead of the ends. When does this help, when does it hurt?
# 4. Quantize the vision network of your track entry, with and without `keep=("stem", "head")`. Which layer is the
#    most sensitive? Quantize one at a time to find out.
# 5. Give `fake_quantize_vjp` no mask: let all gradients pass. With `channel_scale` nothing changes. Why?
# 6. Rounding makes the mean of a filter's output move. Measure the shift per channel on calibration inputs, and
#    correct the bias by it.
#
# ## Elsewhere
#
# - PyTorch's quantization has the same three ways: weights only, weights and inputs after calibration, and training
#   with fake quantization. Its observers are our `Watched`.
# - Files for large language models (GGUF and others) use groups of 32 or so weights with a scale each, at 2 to 8 bits.
#   GPTQ and AWQ choose codes with the help of calibration inputs, so that the *outputs* of a layer change least.
# - ONNX Runtime and TensorRT run int8 products in hardware. There the speed is real: several products in the time of
#   one float.
#
# ## Summary
#
# - A weight becomes a whole number times a scale; one scale for each output channel costs little and saves much.
# - Two 4-bit codes share a byte; buffers of the dtypes uint8 and float16 go to the file as they are.
# - Batch normalisation beside a convolution folds into it exactly. In a class of your own it stays.
# - Inputs get a ruler with a zero point, from calibration. Products of codes are exact in float32, up to 2^24.
# - Training through rounding needs a made-up gradient, the straight-through estimator, and works.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/quantization.py`;
# `tito module complete 15` in a terminal does the same. Lesson 16 leaves weights out altogether.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
