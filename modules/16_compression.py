# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 16 Compression
#
# > Fewer weights: magnitude pruning, removed channels, low rank, and a small network that learns from a large one.
#
# Lesson 15 made each weight smaller. This one makes them fewer, in four ways: weights near zero are struck out and
# not stored; whole channels are removed, so that there is less to compute; a matrix is replaced by two thin ones; and
# a small network is trained on what a large one has to say. The four combine, and each has its price.
#
# **Why it matters to a system.** Fewer bytes in the file, fewer operations in the machine, and the two are not the
# same: a network with half of its weights struck out takes just as long in NumPy. You will measure both.
#
# **You need** `Module` and files (03), losses (04), gradient rules (05), convolution (09), quantization (15).
#
# The words of this lesson: the *sparsity* is the share of weights that are zero, a number in [0, 1). A *mask* is True
# where a weight stays. *Magnitude* is the absolute value. The *teacher* is the large trained network, the *student*
# here the small one that learns from it.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 16

# %%
#| export
import copy
import math

import numpy as np

from tinytorch.activations import GELU, ReLU, Sigmoid, Tanh
from tinytorch.autograd import is_grad_enabled, vjp
from tinytorch.layers import Dropout, Flatten, Linear, Module, Sequential
from tinytorch.losses import CrossEntropyLoss, log_softmax
from tinytorch.quantization import (
    QuantizedLayer,
    StoredLayer,
    Wrapped,
    change_weights,
    has_matrix,
    named_modules,
    pack_int4,
    replace_layers,
    unpack_int4,
)
from tinytorch.spatial import AvgPool2d, BatchNorm2d, Conv2d, MaxPool2d
from tinytorch.tensor import Tensor, apply

# %% nbgrader={"grade_id": "tools", "locked": true}
import tempfile
import time
from pathlib import Path

from tinytorch.autograd import gradcheck, no_grad
from tinytorch.layers import load, save
from tinytorch.optimizers import Adam
from tinytorch.quantization import quantize
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
# ## 1. Which weights can go?
#
# The simplest answer is old and hard to beat: those with the smallest magnitude. Of the weights `0.5 -0.1 0.3 -2`
# at a sparsity of 0.5 the two with the largest magnitude stay, 0.5 and -2.
#
# Write `largest_mask`: True at the `n` entries with the largest scores. There must be `n` of them exactly, also
# among equal scores, where any choice is right, and for n = 0. `np.argpartition(scores, k)` gives an order in which
# the k smallest come first.


# %% nbgrader={"grade_id": "largest-mask", "solution": true}
#| export
def largest_mask(scores, n):
    """True for `n` largest of the scores (a flat array), exactly n of them. Shapes: (N,) -> bool (N,)."""
    mask = np.ones(len(scores), bool)
    ### BEGIN SOLUTION
    drop = len(scores) - n
    if drop:
        mask[np.argpartition(scores, drop - 1)[:drop]] = False
    return mask
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(largest_mask(np.abs([0.5, -0.1, 0.3, -2]), 2))

# %% nbgrader={"grade_id": "test-largest-mask", "grade": true, "points": 1}
def keeps_largest(scores, n):
    got = np.asarray(largest_mask(scores.copy(), n))
    assert got.dtype == bool and got.sum() == n, f"largest_mask, n={n} of {len(scores)}: expected {n} times True, got {got.sum()}"
    rest, kept = scores[~got], scores[got]
    assert n in (0, len(scores)) or kept.min() >= rest.max(), (
        f"largest_mask, n={n}: {rest.max():.3f} went and {kept.min():.3f} stayed; the largest stay"
    )


draw = np.random.default_rng(1)
keeps_largest(draw.random(20), 7)
keeps_largest(np.array([1.0, 1, 1, 1]), 2)
### BEGIN HIDDEN TESTS
for n in (0, 1, 29, 30):
    keeps_largest(draw.random(30), n)
keeps_largest(np.array([0.0, 0, 5, 0, 0, 5, 5]), 2)
### END HIDDEN TESTS

# %% [markdown]
# A model has several weights. *Per layer* each loses the same share. *Global* means that all of them are compared
# with each other, so a layer with many small weights loses more. Global usually costs less accuracy, but may empty a
# layer.
#
# Write `choose_masks` for a list of score arrays of any shape. How many stay? Of N scores, `N - round(sparsity * N)`.
# Per layer: one `largest_mask` for each. Global: one `largest_mask` for all of them joined, then cut into pieces
# again. Every mask has the shape of its array.


# %% nbgrader={"grade_id": "choose-masks", "solution": true}
#| export
def choose_masks(scores, sparsity, scope="global"):
    """A mask for each array of `scores`, True where a weight stays; `scope` is "global" or "layer".

    Raises ValueError for a sparsity outside [0, 1) and for another scope.
    """
    check_sparsity("prune", sparsity)
    if scope not in ("global", "layer"):
        raise ValueError(f"prune: expected scope 'global' or 'layer', got {scope!r}")

    def flat_mask(flat):
        return largest_mask(flat, len(flat) - round(sparsity * len(flat)))

    ### BEGIN SOLUTION
    if scope == "layer":
        return [flat_mask(s.reshape(-1)).reshape(s.shape) for s in scores]
    whole = flat_mask(np.concatenate([s.reshape(-1) for s in scores]))
    pieces = np.split(whole, np.cumsum([s.size for s in scores])[:-1])
    return [piece.reshape(s.shape) for piece, s in zip(pieces, scores, strict=True)]
    ### END SOLUTION


def check_sparsity(name, sparsity):
    """Raise ValueError, beginning with `name`, unless `sparsity` is a number in [0, 1)."""
    if not isinstance(sparsity, (int, float, np.number)) or not 0 <= sparsity < 1:
        raise ValueError(f"{name}: expected a sparsity in [0, 1), got {sparsity!r}")


# %% tags=["nbval-check-output"]
two_layers = [np.array([[0.5, 0.1], [0.3, 2]]), np.array([[4.0, 0.4]])]
for scope in ("layer", "global"):
    print(scope, [mask.astype(int).tolist() for mask in choose_masks(two_layers, 0.5, scope)])

# %% nbgrader={"grade_id": "test-choose-masks", "grade": true, "points": 2}
def masks_agree(shapes, sparsity):
    draw = np.random.default_rng(2)
    scores = [size * draw.random(shape) for size, shape in enumerate(shapes, 1)]
    everything = np.sort(np.concatenate([s.ravel() for s in scores]))
    for scope in ("global", "layer"):
        got = [np.asarray(m) for m in choose_masks([s.copy() for s in scores], sparsity, scope)]
        assert [m.shape for m in got] == shapes, f"choose_masks: expected the shapes {shapes}, got {[m.shape for m in got]}"
        for s, m in zip(scores, got, strict=True):
            ranked = everything if scope == "global" else np.sort(s.ravel())
            dropped = round(sparsity * len(ranked))
            wanted = s > (ranked[dropped - 1] if dropped else -1)
            assert np.array_equal(m, wanted), (
                f"choose_masks, sparsity {sparsity}, {scope}: of scores {s.shape} expected {wanted.sum()} to stay, "
                f"got {m.sum()}, or others"
            )


masks_agree([(3, 4), (2, 5)], 0.5)
masks_agree([(4, 2, 3), (5,), (2, 2)], 0.7)
### BEGIN HIDDEN TESTS
masks_agree([(6, 3), (3, 6)], 0)
masks_agree([(40, 3), (1, 1), (3, 16)], 0.9)
for wrong in (1, -0.1, 1.5):
    problem = ""
    try:
        choose_masks([np.ones(3)], wrong)
    except ValueError as error:
        problem = str(error)
    assert str(wrong) in problem, f"sparsity {wrong}: expected a ValueError that names it, got {problem!r}"
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Zeros must not be stored
#
# Setting weights to zero makes no file smaller: a zero takes four bytes like any other number. So we store only the
# weights that stay, one after the other, and a bit for each place that says whether there is one. By hand, for the
# row `0.5 0 0 -2`: the values `0.5 -2` and the bits `1 0 0 1`.
#
# What does it cost? One bit a place and `b` bits for each that stays: at a sparsity of one half, 1 + 16 bits instead
# of 32. With 4-bit codes it is 1 + 2 instead of 4. And below a sparsity of 1/b it is a loss.
#
# `np.packbits` puts eight booleans into a byte, `np.unpackbits(bytes, count=n)` takes n of them out again. You need
# the *positions*: the flat indices where there is a value, ascending.


# %% nbgrader={"grade_id": "positions", "solution": true}
#| export
def mask_positions(bits, n):
    """The flat positions at which a mask of `n` places is True, from its bytes by np.packbits (uint8)."""
    ### BEGIN SOLUTION
    return np.flatnonzero(np.unpackbits(bits, count=n))
    ### END SOLUTION


def scatter_forward(values, positions, shape):
    """An array of `shape`, zero but for `values` (n,) at the flat `positions` (n,)."""
    ### BEGIN SOLUTION
    y = np.zeros(math.prod(shape), values.dtype)
    y[positions] = values
    return y.reshape(shape)
    ### END SOLUTION


# %% [markdown]
# And the gradient rule: the gradient of a value is that of the place to which it went.


# %% nbgrader={"grade_id": "scatter-vjp", "solution": true}
#| export
@vjp(scatter_forward)
def scatter_vjp(g, y, values, positions, shape):
    """Each value gets the gradient of its place."""
    ### BEGIN SOLUTION
    return (g.reshape(-1)[positions],)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
row = np.array([[0.5, 0], [0, -2]])
positions = mask_positions(np.packbits(row != 0), row.size)
print(positions, scatter_forward(row.ravel()[positions], positions, row.shape).tolist())

# %% nbgrader={"grade_id": "test-scatter", "grade": true, "points": 2}
def scatters(shape, share):
    draw = np.random.default_rng(3)
    mask = draw.random(shape) < share
    n, values = mask.size, draw.standard_normal(int(mask.sum()))
    positions = np.asarray(mask_positions(np.packbits(mask), n))
    wanted = [i for i in range(n) if mask.ravel()[i]]
    assert positions.tolist() == wanted, f"mask_positions of {n} places: expected {wanted[:5]}..., got {positions[:5]}..."
    dense = np.zeros(shape)
    dense[mask] = values
    got = np.asarray(scatter_forward(values, positions, shape))
    assert np.array_equal(got, dense), f"scatter_forward to {shape}: expected {dense.ravel()[:4]}..., got {got.ravel()[:4]}..."
    g = draw.standard_normal(shape)
    (dv,) = scatter_vjp(g, got, values, positions, shape)
    assert np.array_equal(np.asarray(dv), g[mask]), f"scatter_vjp: expected {g[mask][:3]}..., got {np.asarray(dv)[:3]}..."


scatters((3, 5), 0.4)
scatters((2, 3, 2, 2), 0.7)
### BEGIN HIDDEN TESTS
scatters((1, 3), 1.1)
scatters((4, 4), 0)
scatters((13, 7), 0.1)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. prune
#
# `SparseLayer` holds a layer's weight in this form. The values are the parameter: what the optimizer never sees it
# cannot change, so a pruned weight stays zero through all further training, without any mask to apply. `SparseCodes`
# does the same with the codes of a quantized layer. Both are `StoredLayer`s, which decode once, at the first use.


# %%
#| export
class SparseLayer(StoredLayer):
    """A layer of whose weight only `count` entries are stored, the others are zero.

    Parameter: values (count,). Buffer: mask, a bit for each place of the weight, uint8.
    """

    def __init__(self, layer, count):
        w = layer.weight
        super().__init__(layer)
        self.mask = Tensor(0, dtype=np.uint8)
        self.values = Tensor(0, requires_grad=w.requires_grad, dtype=w.dtype)
        self.encode(w.data, np.arange(w.numel()) < count)

    def encode(self, w, mask):
        """Store the entries of `w` at which `mask` is True."""
        self.mask.data = np.packbits(mask)
        self.values.data = w.reshape(-1)[mask.reshape(-1)]

    def positions(self):
        """The flat positions of the values in the weight."""
        return mask_positions(self.mask.data, math.prod(self.shape))

    def decode(self):
        """The weight as a dense array."""
        return scatter_forward(self.values.data, self.positions(), self.shape)

    def forward(self, *args, **kwargs):
        """What the layer computes with the weight; gradients reach the values."""
        if not (is_grad_enabled() and self.values.requires_grad):
            return super().forward(*args, **kwargs)
        layer = copy.copy(self.layer)
        layer.weight = apply(scatter_forward, self.values, positions=self.positions(), shape=self.shape)
        return layer(*args, **kwargs)

    def dense(self):
        """The layer as it was, its weight dense again."""
        layer = copy.copy(self.layer)
        layer.weight = Tensor(self.decode(), self.values.requires_grad, self.values.dtype)
        return layer

    def __repr__(self):
        left, all_places = len(self.positions()), math.prod(self.shape)
        return f"{type(self).__name__}({type(self.layer).__name__} {self.shape}, {left} of {all_places})"


# %% [markdown]
# Codes of 4 bits lie two in a byte: they are unpacked, chosen, and packed again.


# %%
#| export
class SparseCodes(SparseLayer):
    """A quantized layer of whose codes only `count` are stored, the others are zero.

    Buffers: values, int8 or packed uint8; mask, a bit for each place of the weight, uint8.
    """

    part = "codes"

    def __init__(self, layer, count):
        codes = dense_codes(layer)
        StoredLayer.__init__(self, layer)
        self.bits = layer.bits
        self.mask = Tensor(0, dtype=np.uint8)
        self.values = Tensor(0, dtype=np.uint8 if self.bits == 4 else np.int8)
        self.encode(codes, np.arange(codes.size) < count)

    def encode(self, codes, mask):
        """Store the codes int8 at which `mask` is True."""
        super().encode(codes, mask)
        if self.bits == 4:
            self.values.data = pack_int4(self.values.data)

    def decode(self):
        """The codes as the quantized layer holds them."""
        positions, values = self.positions(), self.values.data
        if self.bits == 4:
            values = unpack_int4(values, len(positions))
        codes = scatter_forward(values, positions, self.shape)
        return pack_int4(codes) if self.bits == 4 else codes

    def ready(self):
        """The quantized layer with its codes; it decodes them in turn."""
        before = self._ready.get("layer")
        layer = super().ready()
        if layer is not before:
            layer._ready = {}  # of its own: the copied one belongs to the layer without codes
        return layer

    def dense(self):
        """The quantized layer as it was."""
        layer = copy.copy(self.layer)
        codes = self.decode()
        layer.codes, layer._ready = Tensor(codes, dtype=codes.dtype), {}
        return layer


def dense_codes(layer):
    """The codes int8 of a QuantizedLayer, in the shape of its weight."""
    codes = layer.codes.data
    return unpack_int4(codes, math.prod(layer.shape)).reshape(layer.shape) if layer.bits == 4 else codes


# %% [markdown]
# `Pruned` wraps a model, as `Quantized` does. Its file needs to say how many weights each layer has left, before it
# can read them: that is `counts`.


# %%
#| export
class Pruned(Wrapped):
    """`model`, taken over, with `counts[k]` weights left in its k-th layer; `prune` makes it.

    In a quantized model the quantized layers are meant, else all layers that have a weight matrix, but
    for those named in `keep`. Raises ValueError for counts that do not fit the model.
    """

    def __init__(self, model, counts, keep=()):
        layers = prunable_layers(model, keep)
        if len(layers) != len(counts):
            raise ValueError(f"prune: expected {len(layers)} counts, one a layer, got {len(counts)}")
        self.model, left = model, {id(layer): n for layer, n in zip(layers, counts, strict=True)}

        def make(layer):
            return (SparseCodes if isinstance(layer, QuantizedLayer) else SparseLayer)(layer, left[id(layer)])

        change_weights("prune", self, make, keep, lambda layer: id(layer) in left)

    def dense(self):
        """A copy of the model with dense weights, many of them zero."""
        new = copy.deepcopy(self)
        replace_layers(new, lambda name, m: m.dense() if isinstance(m, SparseLayer) else m)
        return new.model


def prunable_layers(model, keep=()):
    """The layers that `prune` changes, in order. Raises ValueError where there are none."""
    quantized = any(isinstance(m, QuantizedLayer) for m in model.modules())
    found, wanted = [], (lambda layer: isinstance(layer, QuantizedLayer)) if quantized else has_matrix
    look = Wrapped()
    look.model = copy.deepcopy(model)
    twins = dict(zip(map(id, look.model.modules()), model.modules(), strict=True))
    change_weights("prune", look, lambda layer: found.append(twins[id(layer)]) or layer, keep, wanted)
    return found


def prune(model, sparsity=0.5, scope="global", keep=()):
    """A copy of `model` without the share `sparsity` of its weights, those of the smallest magnitude.

    `scope` "global" compares all weights with each other, "layer" takes the same share from each layer;
    `keep` names what stays as it is. Works on float models, which may be trained further and keep their
    zeros, and on quantized ones. `save` writes only what is left, and a bit for each place. Pruning a
    pruned model starts from its zeros. Raises ValueError for a sparsity outside [0, 1), and where there
    is nothing to prune. Source: Han et al., "Learning both weights and connections for efficient neural
    networks", 2015.
    """
    check_sparsity("prune", sparsity)
    if not isinstance(model, Module):
        raise TypeError(f"prune: expected a Module, got {type(model).__name__}")
    model = model.dense() if hasattr(model, "dense") else copy.deepcopy(model)
    layers = prunable_layers(model, keep)
    masks = choose_masks([np.abs(layer.weight.data) for layer in layers], sparsity, scope)
    stored = [dense_codes(m) if isinstance(m, QuantizedLayer) else m.weight.data for m in layers]
    new = Pruned(model, [int(mask.sum()) for mask in masks], tuple(keep))
    for layer, part, mask in zip(sparse_layers(new), stored, masks, strict=True):
        layer.encode(part, mask)
    return new


def sparse_layers(model):
    """The sparse layers inside of `model`, each once, in order."""
    return list({id(m): m for m in model.modules() if isinstance(m, SparseLayer)}.values())


def sparsity_of(model):
    """The share of zeros among the weights of the sparse layers of `model`."""
    layers = sparse_layers(model)
    left = sum(np.count_nonzero(layer.weight.data) for layer in layers)
    return 1 - left / sum(math.prod(layer.shape) for layer in layers)


# %% [markdown]
# Half of the weights of this network go, before or after it is quantized. What a file has to hold is the sum of all
# arrays in the state dict.

# %% tags=["nbval-check-output"]
manual_seed(0)
net = Sequential(
    Conv2d(1, 16, 3, padding=1), BatchNorm2d(16), GELU(), Conv2d(16, 32, 3, bias=False), MaxPool2d(2), BatchNorm2d(32),
    GELU(), Flatten(), Linear(32 * 9, 10),
)  # fmt: skip
print(prune(net, sparsity=0.5))

# %% tags=["nbval-check-output"]
def array_bytes(model):
    """The bytes of all arrays that a file of `model` holds."""
    return sum(a.nbytes for a in model.state_dict().values())


half, small = prune(net, sparsity=0.5), quantize(net, bits=4)
for name, model in [("as it is", net), ("half pruned", half), ("4 bits", small), ("4 bits, half pruned", prune(small, 0.5))]:
    print(f"{name:20} {array_bytes(model):6,} bytes")

# %% nbgrader={"grade_id": "test-prune", "grade": true, "points": 2}
def prunes(make, x_shape, sparsity, scope):
    draw = np.random.default_rng(8)
    net = make()
    x, before = Tensor(draw.standard_normal(x_shape)), {n: np.asarray(a).copy() for n, a in net.state_dict().items()}
    small, twin = prune(net, sparsity, scope), make()
    names = [name for name, a in before.items() if name.endswith("weight")]
    scores = [np.abs(before[name]) for name in names]
    limit = np.sort(np.concatenate([s.ravel() for s in scores]))
    for name, s in zip(names, scores, strict=True):
        ranked = limit if scope == "global" else np.sort(s.ravel())
        before[name][s <= ranked[round(sparsity * len(ranked)) - 1]] = 0
    twin.load_state_dict(before)
    got, wanted = np.asarray(small.eval()(x)), np.asarray(twin.eval()(x))
    assert np.allclose(got, wanted, atol=1e-5), (
        f"prune, sparsity {sparsity}, {scope}: with the smallest weights set to zero expected {wanted.ravel()[:3]}..., "
        f"got {got.ravel()[:3]}..."
    )
    left = sum(np.asarray(t.data).size for name, t in small.named_parameters() if name.endswith("values"))
    total = sum(s.size for s in scores)
    assert abs(left - (1 - sparsity) * total) <= len(names), f"prune to {sparsity}: {left} of {total} values are stored"
    save(small, folder / "pruned.safetensors")
    again = np.asarray(load(folder / "pruned.safetensors").eval()(x))
    assert np.array_equal(again, got), f"prune: saved and loaded, the outputs moved by {np.abs(again - got).max():.2g}"


def two_linears():
    return Sequential(Linear(6, 20), ReLU(), Linear(20, 4))


prunes(two_linears, (5, 6), 0.5, "global")
### BEGIN HIDDEN TESTS
prunes(two_linears, (5, 6), 0.8, "layer")
prunes(lambda: Sequential(Conv2d(2, 6, 3), ReLU(), Flatten(), Linear(24, 3)), (2, 2, 4, 4), 0.6, "global")
### END HIDDEN TESTS

# %% [markdown]
# What was pruned stays pruned, whatever the optimizer does:

# %% nbgrader={"grade_id": "test-prune-train", "grade": true, "points": 2}
manual_seed(9)
draw = np.random.default_rng(9)
model, x, y = prune(two_linears(), sparsity=0.6), Tensor(draw.standard_normal((32, 6))), draw.integers(0, 4, 32)
zeros = [np.asarray(m.weight) == 0 for m in (model.model[0], model.model[2])]
optimizer, losses = Adam(model.parameters(), lr=0.02), []
for _ in range(100):
    loss = CrossEntropyLoss()(model(x), y)
    losses.append(float(loss))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
after = [np.asarray(m.weight) == 0 for m in (model.model[0], model.model[2])]
assert all(np.array_equal(a, b) for a, b in zip(zeros, after, strict=True)), "training a pruned model: other weights are zero than before"
assert losses[-1] < 0.6 * losses[0], f"training a pruned model: the loss began at {losses[0]:.3f} and ended at {losses[-1]:.3f}"
### BEGIN HIDDEN TESTS
small = prune(quantize(two_linears(), bits=4), sparsity=0.5)
share = np.mean([float((np.asarray(m.weight) == 0).mean()) * m.weight.numel() for m in (small.model.model[0], small.model.model[2])]) / 100
assert 0.49 < share < 0.7, f"a 4-bit model pruned to 0.5: expected at least half of the weights zero, got {share:.2f}"
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Remove whole channels
#
# A matrix library does not skip zeros. What does get faster is a smaller matrix. If a filter goes, its output
# channel goes, and with it the column of every later weight that read this channel. That is *structured* pruning:
# the result is an ordinary, smaller network.
#
# Two cuts are needed. `keep_outputs(layer, kept)` makes a layer that has only the output channels `kept`: those rows
# of the weight and entries of the bias. `keep_inputs(layer, kept, channels)` makes one that reads only these input
# channels. For a `Conv2d` that is the second dimension of the weight. For a `Linear` after `Flatten` each of the
# `channels` has a run of columns, one for each pixel: view the weight as (O, channels, pixels) to select them.
#
# `narrow(layer, w, b)` is given: it makes a new layer of the same kind around arrays.


# %%
#| export
def narrow(layer, w, b=None):
    """A new Linear, Conv2d or BatchNorm2d like `layer` around a weight `w` and a bias `b` or None."""
    if isinstance(layer, BatchNorm2d):
        new = BatchNorm2d(len(w), eps=layer.eps, momentum=layer.momentum)
    elif isinstance(layer, Conv2d):
        size = (w.shape[1], w.shape[0], tuple(w.shape[2:]), layer.stride, layer.padding)
        new = Conv2d(*size, bias=b is not None)
    else:
        new = Linear(w.shape[1], w.shape[0], bias=b is not None)
    new.weight = Tensor(w, layer.weight.requires_grad, w.dtype)
    if b is not None:
        new.bias = Tensor(b, layer.bias.requires_grad, b.dtype)
    new.training = layer.training
    return new


# %% nbgrader={"grade_id": "keep-channels", "solution": true}
#| export
def keep_outputs(layer, kept):
    """A Linear or Conv2d with the output channels `kept` (indices) of `layer` only."""
    w, b = layer.weight.data, None if layer.bias is None else layer.bias.data
    ### BEGIN SOLUTION
    return narrow(layer, w[kept], None if b is None else b[kept])
    ### END SOLUTION


def keep_inputs(layer, kept, channels):
    """A Linear or Conv2d that reads only `kept` (indices) of its `channels` input channels.

    A Linear may have several columns a channel, side by side, as `Flatten` orders them.
    """
    w, b = layer.weight.data, None if layer.bias is None else layer.bias.data
    ### BEGIN SOLUTION
    by_channel = w.reshape(len(w), channels, -1)[:, kept]
    shape = (len(w), len(kept), *w.shape[2:]) if w.ndim == 4 else (len(w), -1)
    return narrow(layer, by_channel.reshape(shape), b)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-keep-channels", "grade": true, "points": 2}
def cuts_agree(first, second, x_shape, kept, between=None):
    """Removing channels is the same as multiplying them by zero before the second layer."""
    draw = np.random.default_rng(4)
    x = Tensor(draw.standard_normal(x_shape))
    channels = first.weight.shape[0]
    h = np.asarray(first(x)).copy()
    h[:, [c for c in range(channels) if c not in kept]] = 0
    between = between or (lambda t: t)
    wanted = np.asarray(second(between(Tensor(h))))
    small, reads = keep_outputs(first, np.array(kept)), keep_inputs(second, np.array(kept), channels)
    assert small.weight.shape[0] == len(kept), f"keep_outputs: expected {len(kept)} outputs, weight {small.weight.shape}"
    got = np.asarray(reads(between(small(x))))
    assert got.shape == wanted.shape and np.allclose(got, wanted, atol=1e-4), (
        f"channels {kept} of {first}, then {second}: with the others zero it gives {wanted.ravel()[:3]}..., "
        f"without them {got.ravel()[:3]}..."
    )


cuts_agree(Conv2d(3, 5, 3), Conv2d(5, 2, 2), (2, 3, 6, 5), [0, 3])
cuts_agree(Linear(4, 6), Linear(6, 3), (2, 4), [1, 2, 5])
### BEGIN HIDDEN TESTS
cuts_agree(Conv2d(2, 4, 3, stride=2, padding=1, bias=False), Linear(4 * 6, 3), (2, 2, 4, 5), [1, 3], Flatten())
cuts_agree(Conv2d(2, 4, 1), Conv2d(4, 3, 3, stride=2, padding=1, bias=False), (1, 2, 5, 5), [2])
### END HIDDEN TESTS

# %% [markdown]
# Now for a whole `Sequential`. Between two layers with weights there may be what works on each channel by itself:
# batch normalisation, which loses the same channels, activations, pooling, dropout. Which channels are least missed?
# Those whose filters have the smallest norm, where a batch normalisation behind multiplies by its weight.
#
# For a class of your own nobody can tell from outside what reads what. There you know, and `keep_outputs` and
# `keep_inputs` do the cutting.


# %%
#| export
BETWEEN = (ReLU, GELU, Sigmoid, Tanh, MaxPool2d, AvgPool2d, Dropout, Flatten)  # each channel by itself


def flat_layers(model):
    """The layers of a Sequential, those of Sequentials inside of it in their place."""
    for layer in model.layers:
        if type(layer) is Sequential:
            yield from flat_layers(layer)
        else:
            yield layer


def channel_scores(layer, norm=None):
    """How much each output channel of `layer` matters, (O,): the norm of its filter.

    With a batch normalisation behind, in evaluation the filter times its factor |gamma| / sqrt(var + eps).
    """
    w = layer.weight.data.reshape(len(layer.weight), -1)
    score = np.sqrt((w * w).sum(axis=1))
    if norm is None:
        return score
    return score * np.abs(norm.weight.data) / np.sqrt(norm.running_var.data + norm.eps)


def keep_norm(norm, kept):
    """A BatchNorm2d with the channels `kept` of `norm`."""
    new = narrow(norm, norm.weight.data[kept], norm.bias.data[kept])
    new.running_mean.data, new.running_var.data = norm.running_mean.data[kept], norm.running_var.data[kept]
    return new


def prune_channels(model, sparsity=0.5):
    """A new, smaller Sequential: without the share `sparsity` of the channels between its layers.

    Of every Linear and Conv2d but the last the output channels of the smallest norm are removed, at least
    one stays; batch norms and the next layer shrink with them. Parameters are copied. Raises ValueError
    for a sparsity outside [0, 1) and fewer than two layers with weights, TypeError for a model that is no
    Sequential or has a layer in it that mixes channels in an unknown way.
    """
    check_sparsity("prune_channels", sparsity)
    if type(model) is not Sequential:
        raise TypeError(f"prune_channels: expected a Sequential, got {type(model).__name__}; see keep_outputs")
    layers = [copy.deepcopy(layer) for layer in flat_layers(model)]
    for layer in layers:
        if not isinstance(layer, (Linear, Conv2d, BatchNorm2d, *BETWEEN)):
            raise TypeError(
                f"prune_channels: expected layers that keep channels apart, got {type(layer).__name__}"
            )
    places = [i for i, layer in enumerate(layers) if isinstance(layer, (Linear, Conv2d))]
    if len(places) < 2:
        raise ValueError(f"prune_channels: nothing to remove, the model has {len(places)} layers with weights")
    for i, j in zip(places, places[1:], strict=False):
        norms = [k for k in range(i + 1, j) if isinstance(layers[k], BatchNorm2d)]
        scores = channel_scores(layers[i], layers[norms[0]] if norms else None)
        left = max(1, len(scores) - round(sparsity * len(scores)))
        kept = np.flatnonzero(largest_mask(scores, left))
        layers[i], layers[j] = keep_outputs(layers[i], kept), keep_inputs(layers[j], kept, len(scores))
        for k in norms:
            layers[k] = keep_norm(layers[k], kept)
    return Sequential(*layers)


# %% tags=["nbval-check-output"]
print(prune_channels(net, sparsity=0.5))

# %% nbgrader={"grade_id": "test-prune-channels", "grade": true, "points": 2}
def dead_channels_go(seed):
    """Channels that are zero for every input can be removed without any change."""
    manual_seed(seed)
    draw = np.random.default_rng(seed)
    net = Sequential(Conv2d(2, 6, 3), BatchNorm2d(6), ReLU(), Sequential(Conv2d(6, 4, 1), GELU()), Flatten(), Linear(16, 3))
    for i, dead in ((0, [1, 2, 5]), (3, [0, 3])):
        conv = net[i] if i == 0 else net[i][0]
        w, b = np.asarray(conv.weight.data).copy(), np.asarray(conv.bias.data).copy()
        w[dead], b[dead] = 0, 0
        conv.weight.data, conv.bias.data = w, b
    x = Tensor(draw.standard_normal((3, 2, 4, 4)))
    wanted = np.asarray(net.eval()(x))
    small = prune_channels(net, sparsity=0.5)
    got = np.asarray(small(x))
    assert np.allclose(got, wanted, atol=1e-5), (
        f"prune_channels, with half of the channels dead: expected no change, {wanted.ravel()[:3]}..., got {got.ravel()[:3]}..."
    )
    numbers = sum(np.asarray(p).size for p in small.parameters())
    assert numbers == 3 * 18 + 3 + 6 + 2 * 3 + 2 + 3 * 8 + 3, f"prune_channels: expected 98 parameters to be left, got {numbers}"


dead_channels_go(1)
### BEGIN HIDDEN TESTS
dead_channels_go(2)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Low rank
#
# A matrix w of O × I numbers can be written as a product a @ b of O × r and r × I, if its *rank* is r. Most are of
# full rank, but nearly of a smaller one: the singular value decomposition gives w = u · diag(s) · v with s falling,
# and cutting it after r terms is the best approximation of rank r that there is (Eckart and Young, 1936). The error,
# as a sum of squares, is the sum of the s² that were cut.
#
# Write `factors(w, rank)`. `np.linalg.svd(w, full_matrices=False)` returns u, s, v. Give each factor the root of s:
# then both are of the same size, and later training treats them alike.


# %% nbgrader={"grade_id": "factors", "solution": true}
#| export
def factors(w, rank):
    """(a, b) of shapes (O, rank) and (rank, I) whose product is the best approximation of w (O, I)."""
    ### BEGIN SOLUTION
    u, s, v = np.linalg.svd(w, full_matrices=False)
    root = np.sqrt(s[:rank])
    return u[:, :rank] * root, root[:, None] * v[:rank]
    ### END SOLUTION


# %% tags=["nbval-check-output"]
a, b = factors(np.outer([1.0, 2, 3], [4.0, 5]), 1)
print((a @ b).round(6).tolist())

# %% nbgrader={"grade_id": "test-factors", "grade": true, "points": 2}
def factors_agree(O, I, rank):
    w = np.random.default_rng(5).standard_normal((O, I))
    a, b = (np.asarray(f) for f in factors(w, rank))
    assert a.shape == (O, rank) and b.shape == (rank, I), f"factors of {w.shape}: expected {(O, rank)}, {(rank, I)}, got {a.shape}, {b.shape}"
    values = np.linalg.eigvalsh(w @ w.T)[::-1]  # the squares of the singular values
    wanted, got = values[rank:].sum(), ((w - a @ b) ** 2).sum()
    assert np.isclose(got, max(wanted, 0), atol=1e-9), (
        f"factors of {w.shape}, rank {rank}: the best squared error is {wanted:.6f}, yours {got:.6f}"
    )
    assert np.isclose(np.linalg.norm(a), np.linalg.norm(b)), (
        f"factors: expected both of one size, got norms {np.linalg.norm(a):.4f} and {np.linalg.norm(b):.4f}"
    )


factors_agree(5, 7, 2)
factors_agree(6, 3, 1)
### BEGIN HIDDEN TESTS
factors_agree(8, 8, 7)
factors_agree(4, 9, 4)
### END HIDDEN TESTS


# %%
#| export
class LowRankLinear(Module):
    """Two Linear layers for one: (..., B, in_features) -> (..., B, rank) -> (..., B, out_features)."""

    def __init__(self, in_features, out_features, rank, bias=True):
        self.first = Linear(in_features, rank, bias=False)
        self.second = Linear(rank, out_features, bias=bias)

    def forward(self, x):
        """x (..., B, in_features) -> (..., B, out_features)."""
        return self.second(self.first(x))


class LowRank(Wrapped):
    """`model`, taken over, with a LowRankLinear for each Linear that shrinks; `low_rank` makes it."""

    def __init__(self, model, rank, keep=()):
        self.model = model

        def make(layer):
            O, I = layer.weight.shape
            new = LowRankLinear(I, O, rank, bias=layer.bias is not None)
            new.second.bias = layer.bias
            new.training = layer.training
            return new

        change_weights("low_rank", self, make, keep, lambda layer: shrinks(layer, rank))


def shrinks(layer, rank):
    """Whether a Linear has fewer numbers as a product of `rank` columns and rows: rank * (O + I) < O * I."""
    return type(layer) is Linear and rank * sum(layer.weight.shape) < layer.weight.numel()


def low_rank(model, rank, keep=()):
    """A copy of `model` with a product of two for each Linear, `rank` numbers between, where that is smaller.

    `keep` names layers that stay. Raises ValueError for a rank below 1, and for one so large that no
    layer gets smaller.
    """
    if not isinstance(rank, (int, np.integer)) or rank < 1:
        raise ValueError(f"low_rank: expected a rank of at least 1, a whole number, got {rank!r}")
    model = copy.deepcopy(model)
    linears = [m for m in model.modules() if type(m) is Linear]
    bounds = [(m.weight.numel() - 1) // sum(m.weight.shape) for m in linears]
    most = max(bounds, default=0)
    if rank > most:
        raise ValueError(f"low_rank: rank {rank} is too large, no Linear gets smaller; expected at most {most}")
    weights = {name: m.weight.data for name, m in named_modules(model) if shrinks(m, rank)}
    new = LowRank(model, int(rank), tuple(keep))
    for name, layer in named_modules(new.model):
        if isinstance(layer, LowRankLinear):
            a, b = factors(weights[name], rank)
            layer.first.weight.data, layer.second.weight.data = b, a
    return new


# %% [markdown]
# ## 6. Learn from a larger network
#
# A trained teacher says more about a picture than its label: *this is a 3, it might be an 8, it is surely no 1*. A
# small student that learns to give the same probabilities learns that too. To make the small probabilities count,
# both logits are divided by a *temperature* T > 1 before the softmax: that flattens them.
#
# The loss compares the two distributions p (teacher) and q (student), both at temperature T, by the
# Kullback-Leibler divergence, the mean over the batch of
#
# $$\mathrm{KL} = \sum_c p_c\,(\log p_c - \log q_c)$$
#
# which is 0 where they agree and positive elsewhere. Its gradient shrinks like 1/T², so it is multiplied by T². With
# the ordinary cross-entropy of the labels it makes alpha · T² · KL + (1 - alpha) · CE.
#
# Write `soft_loss(logits, teacher, T)`: T² times the mean KL. `teacher` is an array (B, C) of logits; what comes from it
# are constants. `log_softmax` of module 04 takes a tensor and gives log-probabilities, finite also where the
# probability is tiny. Gradients must reach `logits`.


# %% nbgrader={"grade_id": "soft-loss", "solution": true}
#| export
def soft_loss(logits, teacher, T):
    """T² times the mean KL divergence of the student's softmax(logits / T) from the teacher's.

    Shapes: logits, a Tensor (B, C), teacher, an array (B, C) of the teacher's logits.
    """
    ### BEGIN SOLUTION
    log_p = log_softmax(Tensor(teacher / T, dtype=logits.dtype)).data
    log_q = log_softmax(logits * (1 / T))
    difference = (log_p - log_q) * np.exp(log_p)
    return difference.sum() * (T * T / len(log_p))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
logits = Tensor([[2.0, 0, 0], [0, 1, 0]], requires_grad=True)
print(soft_loss(logits, np.array([[2.0, 0, 0], [0, 1, 0]]), T=4))
print(round(soft_loss(logits, np.array([[0.0, 2, 0], [0, 1, 0]]), T=4).item(), 4))

# %% nbgrader={"grade_id": "test-soft-loss", "grade": true, "points": 3}
def soft_agrees(B, C, T, spread=2.0):
    draw = np.random.default_rng(6)
    ours, theirs = spread * draw.standard_normal((B, C)), spread * draw.standard_normal((B, C))

    def loss(a):
        p, q = (np.exp(z / T) / np.exp(z / T).sum(axis=1, keepdims=True) for z in (theirs, a))
        return T**2 * float((p * np.log(p / q)).sum(axis=1).mean())

    logits = Tensor(ours, requires_grad=True, dtype=np.float64)
    got = soft_loss(logits, theirs.copy(), T)
    assert np.isclose(float(got), loss(ours)), f"soft_loss of {B} x {C} logits, T={T}: expected {loss(ours):.5f}, got {float(got):.5f}"
    got.backward()
    for _ in range(3):
        direction = draw.standard_normal((B, C))
        wanted = (loss(ours + 1e-5 * direction) - loss(ours - 1e-5 * direction)) / 2e-5
        here = float((np.asarray(logits.grad) * direction).sum())
        assert np.isclose(here, wanted, rtol=1e-4, atol=1e-7), f"soft_loss, gradient along a direction: expected {wanted:.6f}, got {here:.6f}"


soft_agrees(3, 4, 1.0)
soft_agrees(5, 3, 4.0)
### BEGIN HIDDEN TESTS
soft_agrees(1, 10, 2.5)
far = float(soft_loss(Tensor([[0.0, 200]]), np.array([[200.0, 0]], np.float32), 1.0))
assert np.isclose(far, 200), f"logits 0 200 against 200 0: expected 200, got {far}; take the logarithm of the softmax in one"
### END HIDDEN TESTS

# %% [markdown]
# The loss for training has both parts.


# %% nbgrader={"grade_id": "distillation-loss", "solution": true}
#| export
class DistillationLoss:
    """alpha * T² * KL(teacher || student) + (1 - alpha) * cross-entropy, both means over the batch.

    T is the `temperature`. Called with logits (B, C), targets (B,) and the teacher's logits (B, C), a
    tensor or an array. Raises ValueError for a temperature that is not positive, an alpha outside [0, 1],
    and logits of different shapes. Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a
    neural network", 2015.
    """

    def __init__(self, temperature=4.0, alpha=0.9, label_smoothing=0.0):
        if not temperature > 0 or not 0 <= alpha <= 1:
            got = f"{temperature} and {alpha}"
            raise ValueError(f"DistillationLoss: expected temperature > 0 and alpha in [0, 1], got {got}")
        self.temperature, self.alpha = float(temperature), float(alpha)
        self.hard = CrossEntropyLoss(label_smoothing)

    def __call__(self, logits, targets, teacher):
        """Logits (B, C), targets (B,), the teacher's logits (B, C) -> a tensor with a single number."""
        teacher = teacher.data if isinstance(teacher, Tensor) else np.asarray(teacher)
        if teacher.shape != logits.shape:
            raise ValueError(
                f"DistillationLoss: expected logits of one shape, got {logits.shape} and {teacher.shape}"
            )
        ### BEGIN SOLUTION
        soft = soft_loss(logits, teacher, self.temperature)
        return soft * self.alpha + self.hard(logits, targets) * (1 - self.alpha)
        ### END SOLUTION

    def __repr__(self):
        return f"DistillationLoss(temperature={self.temperature}, alpha={self.alpha})"


# %% nbgrader={"grade_id": "test-distillation-loss", "grade": true, "points": 2}
draw = np.random.default_rng(7)
ours, theirs, labels = draw.standard_normal((6, 4)), draw.standard_normal((6, 4)), draw.integers(0, 4, 6)
for T, alpha in [(2.0, 0.0), (2.0, 1.0), (3.0, 0.25)]:
    p, q = (np.exp(z / T) / np.exp(z / T).sum(axis=1, keepdims=True) for z in (theirs, ours))
    kl = (p * np.log(p / q)).sum(axis=1).mean()
    hard = np.mean([np.log(np.exp(row).sum()) - row[k] for row, k in zip(ours, labels, strict=True)])
    wanted = alpha * T**2 * kl + (1 - alpha) * hard
    for teacher in (theirs, Tensor(theirs)):
        got = float(DistillationLoss(T, alpha)(Tensor(ours), labels, teacher))
        assert np.isclose(got, wanted, rtol=1e-4), f"DistillationLoss({T}, {alpha}): expected {wanted:.5f}, got {got:.5f}"


# %% [markdown]
# ## 7. Measure: bytes, time and accuracy
#
# Ten noisy patterns as in lesson 15, and a network to tell them apart. Each way of this lesson makes it smaller; all
# but the first train a little afterwards, since a network recovers much of what it lost.


# %% tags=["measure"]
def pictures(n, seed):
    """n noisy pictures (n, 1, 8, 8) of ten patterns, moved by up to a pixel, and which pattern it is, (n,)."""
    draw, patterns = np.random.default_rng(seed), np.random.default_rng(77).standard_normal((10, 8, 8))
    labels, moves = draw.integers(0, 10, n), draw.integers(-1, 2, (n, 2))
    x = np.stack([np.roll(patterns[k], move, (0, 1)) for k, move in zip(labels, moves, strict=True)])
    return (x + 1.2 * draw.standard_normal(x.shape)).astype(np.float32)[:, None], labels


def fit(model, x, y, epochs, lr, teacher=None):
    """Train `model` with Adam on batches of 100; with the logits of a `teacher`, on those alone."""
    optimizer, soft = Adam(model.train().parameters(), lr=lr), DistillationLoss(temperature=2, alpha=1)
    for k in range(epochs * len(x) // 100):
        rows = slice(k * 100 % len(x), k * 100 % len(x) + 100)
        logits = model(Tensor(x[rows]))
        optimizer.zero_grad()
        loss = CrossEntropyLoss()(logits, y[rows]) if teacher is None else soft(logits, y[rows], teacher[rows])
        loss.backward()
        optimizer.step()
    return model.eval()


def logits_of(model, x):
    """The logits of `model`, an array."""
    with no_grad():
        return np.asarray(model(Tensor(x)))


# %% tags=["measure"]
train_x, train_y = pictures(2000, seed=1)
test_x, test_y = pictures(2000, seed=2)
wide = Sequential(
    Conv2d(1, 24, 3, padding=1), BatchNorm2d(24), GELU(), Conv2d(24, 32, 3, padding=1), MaxPool2d(2), BatchNorm2d(32),
    GELU(), Flatten(), Linear(32 * 16, 64), GELU(), Linear(64, 10),
)  # fmt: skip
wide = fit(wide, train_x, train_y, epochs=4, lr=2e-3)
teacher = logits_of(wide, train_x)


# %% tags=["measure"]
def row(name, model):
    """Print bytes, share right and time of a model, and return the first two."""
    save(model, folder / "row.safetensors", dtype="float16")
    logits_of(model, test_x[:100])
    times = []
    for _ in range(3):
        start = time.perf_counter()
        right = float((logits_of(model, test_x).argmax(axis=1) == test_y).mean())
        times.append(time.perf_counter() - start)
    size = (folder / "row.safetensors").stat().st_size
    print(f"{name:30} {size:7,} bytes, {right:6.2%} right, {min(times) * 1e3:4.0f} ms")
    return size, right


row("float16", wide)
row("half pruned", prune(wide, 0.5))
row("half pruned, trained", fit(prune(wide, 0.5), train_x, train_y, 1, 5e-4))
row("4 bits", quantize(wide, bits=4))
row("4 bits, half pruned", prune(quantize(wide, bits=4), 0.5))
row("half of the channels, trained", fit(prune_channels(wide, 0.5), train_x, train_y, 2, 1e-3))
row("rank 8, trained", fit(low_rank(wide, 8), train_x, train_y, 1, 5e-4))

# %% [markdown]
# Compare the times: pruned weights cost as much as before, removed channels do not. Half of the channels means a
# quarter of the products in every layer between two cut ones.
#
# Does the teacher help? Suppose only 300 of the pictures have labels. The teacher can comment on the others, too. A
# network of a third of the width, trained for the same number of steps on the labels of 300, on the teacher's word
# on all 2,000 without a label (alpha = 1), and, to compare, on all labels:


# %% tags=["measure"]
def little(seed):
    """A fresh network with a third of the channels."""
    manual_seed(seed)
    return Sequential(
        Conv2d(1, 8, 3, padding=1), BatchNorm2d(8), GELU(), Conv2d(8, 16, 3), MaxPool2d(2), BatchNorm2d(16), GELU(),
        Flatten(), Linear(16 * 9, 10),
    )  # fmt: skip


row("small, 300 labels", fit(little(1), train_x[:300], train_y[:300], 40, 3e-3))
row("small, teacher, no labels", fit(little(1), train_x, np.zeros_like(train_y), 6, 3e-3, teacher))
row("small, 2,000 labels", fit(little(1), train_x, train_y, 6, 3e-3))

# %% [markdown]
# Where every picture has its label already, do not expect the teacher to add much: ours answers nearly all training
# pictures rightly and with certainty, so its word says little more than the label. And one run is one throw of the
# dice: repeat it with other seeds before you believe a difference of a percent.
#
# How far can pruning go?

# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import show

shares, accuracy = [0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95], {}
for scope in ("global", "layer"):
    found = [logits_of(prune(wide, s, scope), test_x).argmax(axis=1) for s in shares]
    accuracy[scope] = [float((f == test_y).mean()) for f in found]
figure, axes = plt.subplots()
axes.plot(shares, accuracy["global"], "o-", label="one threshold for all")
axes.plot(shares, accuracy["layer"], "s--", label="layer by layer")
axes.set(xlabel="share of weights set to 0", ylabel="share right", ylim=(0, 1.02))
axes.legend(loc="lower left")
ends = [f"{accuracy[scope][shares.index(s)]:.2f}" for s in (0.5, 0.9) for scope in ("global", "layer")]
show(
    figure,
    alt="Share of right answers against sparsity, without training afterwards: level at first, then falling. With one "
    f"threshold for all weights it is {ends[0]} at 50% and {ends[2]} at 90%, layer by layer {ends[1]} and {ends[3]}.",
)

# %% [markdown]
# Both lines are level at first; the one for layer by layer falls earlier.
#
# ## 8. What breaks
#
# A sparsity in percent, and one that leaves nothing:

# %% tags=["nbval-check-output"]
attempt(prune, net, sparsity=50)
attempt(prune_channels, net, sparsity=1.0)

# %% [markdown]
# Nothing to prune, nothing to cut, nothing to gain:

# %% tags=["nbval-check-output"]
attempt(prune, Sequential(ReLU()))
attempt(prune_channels, Sequential(Linear(3, 3)))
attempt(low_rank, Sequential(Linear(8, 8)), rank=5)

# %% [markdown]
# A sum around a block: its two ends must have the same channels, which `prune_channels` cannot know.


# %% tags=["nbval-check-output"]
class Around(Module):
    def __init__(self, block):
        self.block = block

    def forward(self, x):
        return x + self.block(x)


attempt(prune_channels, Sequential(Conv2d(3, 4, 1), Around(Conv2d(4, 4, 1)), Conv2d(4, 2, 1)))

# %% [markdown]
# Pruning a little makes the file larger: the bits of the mask cost more than the zeros save.

# %% tags=["nbval-check-output"]
print([array_bytes(prune(small_net, s)) for small_net in [quantize(net, bits=4)] for s in (0, 0.1, 0.25, 0.5)])
print(array_bytes(quantize(net, bits=4)))

# %% [markdown]
# ## Exercises
#
# Ungraded; try them in cells of your own.
#
# 1. At which sparsity does a mask of bits pay for 32, 16, 8 and 4 bits a weight? Check with `array_bytes`. What if one
#    stored the distance to the next value instead, in 4 bits?
# 2. Prune in five steps with a little training after each, against once to the same sparsity. Which is better at 0.9?
# 3. Write a class with two convolutions of your own and cut its channels with `keep_outputs` and `keep_inputs`. What
#    must its constructor take, so that `load` can build the smaller one?
# 4. A removed channel was not zero: behind a batch normalisation and a ReLU it had a mean. Add that mean, times the
#    columns which are cut, to the next bias. How much accuracy does this save before training?
# 5. Plot the singular values of `wide[8]`, trained and at its start. What rank would you choose?
# 6. Put pruning, 4 bits and a small student together for the compression track. Which order works best?
#
# ## Elsewhere
#
# - `torch.nn.utils.prune` keeps weight and mask side by side and multiplies them at each use: easy to undo, and larger
#   than before. Ours stores what is left.
# - Recent GPUs run matrices with two zeros in every group of four at up to twice the speed (*2:4 sparsity*): a pattern
#   between single weights and whole channels.
# - LoRA trains a low-rank *change* of a large matrix that stays fixed: the product of this lesson, added on.
# - DistilBERT and many small language models were trained on a teacher's probabilities.
#
# ## Summary
#
# - The weights of smallest magnitude go first; global pruning compares all layers with each other.
# - Zeros save nothing until they are left out of the file: a bit a place and the values.
# - Where the values are the parameters, what is pruned stays pruned through training.
# - Only what makes the matrices smaller makes NumPy faster: removed channels, or two thin factors.
# - A teacher's softened probabilities tell more than a label; T² keeps their gradient in size.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/compression.py`;
# `tito module complete 16` in a terminal does the same. Lesson 17 stops a transformer from computing the same thing
# twice.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
