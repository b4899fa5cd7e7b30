"""Fewer weights: magnitude pruning, removed channels, low rank, and a small network that learns from a
large one.

Built by tito from lesson 16_compression: change the lesson, not this file.
"""

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

__all__ = [
    "largest_mask",
    "choose_masks",
    "check_sparsity",
    "mask_positions",
    "scatter_forward",
    "scatter_vjp",
    "SparseLayer",
    "SparseCodes",
    "dense_codes",
    "Pruned",
    "prunable_layers",
    "prune",
    "sparse_layers",
    "sparsity_of",
    "narrow",
    "keep_outputs",
    "keep_inputs",
    "BETWEEN",
    "flat_layers",
    "channel_scores",
    "keep_norm",
    "prune_channels",
    "factors",
    "LowRankLinear",
    "LowRank",
    "shrinks",
    "low_rank",
    "soft_loss",
    "DistillationLoss",
]


def largest_mask(scores, n):
    """True for `n` largest of the scores (a flat array), exactly n of them. Shapes: (N,) -> bool (N,)."""
    mask = np.ones(len(scores), bool)
    drop = len(scores) - n
    if drop:
        mask[np.argpartition(scores, drop - 1)[:drop]] = False
    return mask


def choose_masks(scores, sparsity, scope="global"):
    """A mask for each array of `scores`, True where a weight stays; `scope` is "global" or "layer".

    Raises ValueError for a sparsity outside [0, 1) and for another scope.
    """
    check_sparsity("prune", sparsity)
    if scope not in ("global", "layer"):
        raise ValueError(f"prune: expected scope 'global' or 'layer', got {scope!r}")

    def flat_mask(flat):
        return largest_mask(flat, len(flat) - round(sparsity * len(flat)))

    if scope == "layer":
        return [flat_mask(s.reshape(-1)).reshape(s.shape) for s in scores]
    whole = flat_mask(np.concatenate([s.reshape(-1) for s in scores]))
    pieces = np.split(whole, np.cumsum([s.size for s in scores])[:-1])
    return [piece.reshape(s.shape) for piece, s in zip(pieces, scores, strict=True)]


def check_sparsity(name, sparsity):
    """Raise ValueError, beginning with `name`, unless `sparsity` is a number in [0, 1)."""
    if not isinstance(sparsity, (int, float, np.number)) or not 0 <= sparsity < 1:
        raise ValueError(f"{name}: expected a sparsity in [0, 1), got {sparsity!r}")


def mask_positions(bits, n):
    """The flat positions at which a mask of `n` places is True, from its bytes by np.packbits (uint8)."""
    return np.flatnonzero(np.unpackbits(bits, count=n))


def scatter_forward(values, positions, shape):
    """An array of `shape`, zero but for `values` (n,) at the flat `positions` (n,)."""
    y = np.zeros(math.prod(shape), values.dtype)
    y[positions] = values
    return y.reshape(shape)


@vjp(scatter_forward)
def scatter_vjp(g, y, values, positions, shape):
    """Each value gets the gradient of its place."""
    return (g.reshape(-1)[positions],)


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


def keep_outputs(layer, kept):
    """A Linear or Conv2d with the output channels `kept` (indices) of `layer` only."""
    w, b = layer.weight.data, None if layer.bias is None else layer.bias.data
    return narrow(layer, w[kept], None if b is None else b[kept])


def keep_inputs(layer, kept, channels):
    """A Linear or Conv2d that reads only `kept` (indices) of its `channels` input channels.

    A Linear may have several columns a channel, side by side, as `Flatten` orders them.
    """
    w, b = layer.weight.data, None if layer.bias is None else layer.bias.data
    by_channel = w.reshape(len(w), channels, -1)[:, kept]
    shape = (len(w), len(kept), *w.shape[2:]) if w.ndim == 4 else (len(w), -1)
    return narrow(layer, by_channel.reshape(shape), b)


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
        raise TypeError(
            f"prune_channels: expected a Sequential, got {type(model).__name__}; see keep_outputs"
        )
    layers = [copy.deepcopy(layer) for layer in flat_layers(model)]
    for layer in layers:
        if not isinstance(layer, (Linear, Conv2d, BatchNorm2d, *BETWEEN)):
            raise TypeError(
                f"prune_channels: expected layers that keep channels apart, got {type(layer).__name__}"
            )
    places = [i for i, layer in enumerate(layers) if isinstance(layer, (Linear, Conv2d))]
    if len(places) < 2:
        raise ValueError(
            f"prune_channels: nothing to remove, the model has {len(places)} layers with weights"
        )
    for i, j in zip(places, places[1:], strict=False):
        norms = [k for k in range(i + 1, j) if isinstance(layers[k], BatchNorm2d)]
        scores = channel_scores(layers[i], layers[norms[0]] if norms else None)
        left = max(1, len(scores) - round(sparsity * len(scores)))
        kept = np.flatnonzero(largest_mask(scores, left))
        layers[i], layers[j] = keep_outputs(layers[i], kept), keep_inputs(layers[j], kept, len(scores))
        for k in norms:
            layers[k] = keep_norm(layers[k], kept)
    return Sequential(*layers)


def factors(w, rank):
    """(a, b) of shapes (O, rank) and (rank, I) whose product is the best approximation of w (O, I)."""
    u, s, v = np.linalg.svd(w, full_matrices=False)
    root = np.sqrt(s[:rank])
    return u[:, :rank] * root, root[:, None] * v[:rank]


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
        raise ValueError(
            f"low_rank: rank {rank} is too large, no Linear gets smaller; expected at most {most}"
        )
    weights = {name: m.weight.data for name, m in named_modules(model) if shrinks(m, rank)}
    new = LowRank(model, int(rank), tuple(keep))
    for name, layer in named_modules(new.model):
        if isinstance(layer, LowRankLinear):
            a, b = factors(weights[name], rank)
            layer.first.weight.data, layer.second.weight.data = b, a
    return new


def soft_loss(logits, teacher, T):
    """T² times the mean KL divergence of the student's softmax(logits / T) from the teacher's.

    Shapes: logits, a Tensor (B, C), teacher, an array (B, C) of the teacher's logits.
    """
    log_p = log_softmax(Tensor(teacher / T, dtype=logits.dtype)).data
    log_q = log_softmax(logits * (1 / T))
    difference = (log_p - log_q) * np.exp(log_p)
    return difference.sum() * (T * T / len(log_p))


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
        soft = soft_loss(logits, teacher, self.temperature)
        return soft * self.alpha + self.hard(logits, targets) * (1 - self.alpha)

    def __repr__(self):
        return f"DistillationLoss(temperature={self.temperature}, alpha={self.alpha})"
