"""Automatic differentiation: a recorder behind the seam, a table of gradient rules, and a walk back.

Built by tito from lesson 05_autograd: change the lesson, not this file.
"""

import operator
import threading
from contextlib import contextmanager

import numpy as np

from tinytorch.activations import blockwise, gelu_forward, relu_forward, sigmoid_forward, softmax_forward
from tinytorch.losses import bce_forward, cross_entropy_forward, log_softmax_forward, mse_forward
from tinytorch.tensor import Tensor, concatenate_forward, set_recorder

__all__ = [
    "VJP",
    "NOT_DIFFERENTIABLE",
    "vjp",
    "add_vjp",
    "subtract_vjp",
    "multiply_vjp",
    "divide_vjp",
    "negative_vjp",
    "power_vjp",
    "exp_vjp",
    "log_vjp",
    "sqrt_vjp",
    "abs_vjp",
    "Node",
    "is_grad_enabled",
    "no_grad",
    "record",
    "topological_order",
    "unbroadcast",
    "first_gradient",
    "check_usable",
    "set_stepper",
    "input_gradients",
    "backward",
    "matmul_vjp",
    "restore_axes",
    "sum_vjp",
    "mean_vjp",
    "max_vjp",
    "reshape_vjp",
    "transpose_vjp",
    "concatenate_vjp",
    "getitem_vjp",
    "relu_vjp",
    "sigmoid_vjp",
    "tanh_vjp",
    "softmax_vjp",
    "gelu_vjp",
    "gelu_vjp_block",
    "mse_vjp",
    "bce_vjp",
    "log_softmax_vjp",
    "cross_entropy_vjp",
    "directional_difference",
    "gradcheck",
]

VJP = {}  # primitive -> its gradient rule
NOT_DIFFERENTIABLE = {np.equal, np.less, np.greater}  # their results are yes or no: nothing to record


def vjp(primitive):
    """Decorator: put a gradient rule for `primitive`, a function on arrays, into the table VJP.

    `rule(g, out, *arrays, **params)` gets the gradient of the result, what the primitive returned, and what
    it was called with. It returns a tuple with one gradient for each array, of the array's shape or of the
    shape that broadcasting gave it; None for an array that has none. A gradient that costs much may be a
    function without arguments: it is called only where it is needed.
    """

    def register(rule):
        VJP[primitive] = rule
        return rule

    return register


@vjp(np.add)
def add_vjp(g, y, a, b):
    """y = a + b passes the gradient on to both."""
    return g, g


@vjp(np.subtract)
def subtract_vjp(g, y, a, b):
    """y = a - b: b gets it with the other sign."""
    return g, lambda: -g


@vjp(np.multiply)
def multiply_vjp(g, y, a, b):
    """y = a * b: each gets the gradient times the other factor. With a = 6, b = 3, g = 10: 30 and 60."""
    return lambda: g * b, lambda: g * a


@vjp(np.divide)
def divide_vjp(g, y, a, b):
    """y = a / b: dy/da = 1 / b and dy/db = -y / b."""
    return lambda: g / b, lambda: -g * y / b


@vjp(np.negative)
def negative_vjp(g, y, a):
    """y = -a. One input, so a tuple of one: the comma matters."""
    return (-g,)


@vjp(np.power)
def power_vjp(g, y, a, n):
    """y = a ** n. With a = 3, n = 2, g = 10: 60. For n = 0 it is 0, also where a is 0. None for n."""
    return g * n * a ** (n - (n != 0)), None


@vjp(np.exp)
def exp_vjp(g, y, a):
    """y = exp(a) is its own derivative."""
    return (g * y,)


@vjp(np.log)
def log_vjp(g, y, a):
    """y = log(a): 1 / a."""
    return (g / a,)


@vjp(np.sqrt)
def sqrt_vjp(g, y, a):
    """y = sqrt(a): 1 / (2 y). With a = 16, g = 8: 1."""
    return (g * 0.5 / y,)


@vjp(np.abs)
def abs_vjp(g, y, a):
    """y = |a|: the sign of a, and 0 at 0."""
    return (g * np.sign(a),)


class Node:
    """One recorded operation: what was called, on which tensors, how, and what it returned."""

    __slots__ = ("primitive", "inputs", "params", "out", "versions")

    def __init__(self, primitive, inputs, params, out, y):
        self.primitive, self.inputs, self.params, self.out = primitive, inputs, params, out
        self.versions = [x.version if isinstance(x, Tensor) else 0 for x in (*inputs, y)]

    def release(self):
        """Forget everything, so that the memory is free again; a released node cannot be used any more."""
        self.inputs, self.params, self.out = (), {}, None

    def __repr__(self):
        return f"Node({self.primitive.__name__})"


_state = threading.local()


def is_grad_enabled():
    """Whether operations are recorded now, in this thread."""
    return not getattr(_state, "off", False)


@contextmanager
def no_grad():
    """Inside `with no_grad():` nothing is recorded: operations keep no memory for gradients."""
    before = is_grad_enabled()
    _state.off = True
    try:
        yield
    finally:
        _state.off = not before


def record(primitive, inputs, params, out, y):
    """Remember how `y` was computed, if any of its inputs needs a gradient: y.requires_grad and y.node."""
    wanted = any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
    if wanted and is_grad_enabled() and primitive not in NOT_DIFFERENTIABLE:
        y.requires_grad = True
        y.node = Node(primitive, inputs, params, out, y)


def topological_order(root):
    """Every tensor that `root` depends on through recorded operations, inputs before users; `root` is last.

    Tensors without requires_grad are left out. Works without recursion, so a graph may be of any depth.
    """
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        t, inputs_done = stack.pop()
        if inputs_done:
            order.append(t)
        elif id(t) not in seen:
            seen.add(id(t))
            stack.append((t, True))
            if t.node is not None:
                stack.extend((x, False) for x in t.node.inputs if isinstance(x, Tensor) and x.requires_grad)
    return order


def unbroadcast(gradient, shape):
    """Sum `gradient` over the dimensions that broadcasting added or stretched, so that it has `shape`.

    unbroadcast([[1, 2, 3], [4, 5, 6]], (3,)) is [5, 7, 9]; to shape (2, 1) it is [[6], [15]].
    """
    if gradient.shape == shape:
        return gradient
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1)
    return gradient.sum(axis=stretched, keepdims=True)


def first_gradient(root, gradient=None):
    """The gradient that the walk starts with, an array of root's shape and dtype; 1 for a single number.

    Raises RuntimeError where `root` has no history, and ValueError (naming the shapes) where `root` is not a
    single number and no gradient is given, or where the given one has another shape than `root`.
    """
    if not root.requires_grad:
        raise RuntimeError(
            "backward: this tensor depends on nothing with requires_grad=True; was it made inside no_grad?"
        )
    if gradient is None:
        if root.numel() != 1:
            raise ValueError(
                f"backward: expected a single number, got shape {root.shape}; sum first or pass a gradient"
            )
        return np.ones_like(root.data)
    gradient = np.asarray(gradient, dtype=root.dtype)
    if gradient.shape != root.shape:
        raise ValueError(f"backward: the gradient has shape {gradient.shape}, the tensor {root.shape}")
    return gradient


def check_usable(t):
    """Raise a one-line error where the operation that made the tensor `t` cannot be differentiated any more.

    RuntimeError: its graph was already used, or a tensor was changed in place since. NotImplementedError: its
    primitive has no rule.
    """
    node = t.node
    if node is None:
        return
    name = node.primitive.__name__
    if node.out is None:
        raise RuntimeError(f"backward: the graph through {name} was already used; compute the result again")
    for x, version in zip((*node.inputs, t), node.versions, strict=True):
        if isinstance(x, Tensor) and x.version != version:
            raise RuntimeError(
                f"backward: a tensor of shape {x.shape} was changed in place after {name} used it; "
                "change a copy"
            )
    if node.primitive not in VJP:
        raise NotImplementedError(f"backward: {name} has no gradient rule; write one with @vjp")


_stepper = None


def set_stepper(step):
    """Lesson 14 plugs in here: `step(node, run)` calls `run()`, one node of the walk, and returns its result.

    None, as at the start, runs it directly. Returns the stepper before, to put it back.
    """
    global _stepper
    before, _stepper = _stepper, step
    return before


def input_gradients(node, g):
    """Pairs (x, dx) for the inputs of `node` that need a gradient, by its rule; `g` is that of its result.

    dx is an array of x's shape and dtype. Raises TypeError for a rule that does not return a tuple,
    RuntimeError for one that has no gradient for an input that needs it.
    """
    return (
        _input_gradients(node, g) if _stepper is None else _stepper(node, lambda: _input_gradients(node, g))
    )


def _input_gradients(node, g):
    """The work of input_gradients."""
    name = node.primitive.__name__
    arrays = [x.data if isinstance(x, Tensor) else x for x in node.inputs]
    found = VJP[node.primitive](g, node.out, *arrays, **node.params)
    if not isinstance(found, tuple | list):
        raise TypeError(f"backward: the rule of {name} must return a tuple, one gradient for each input")
    pairs = []
    for k, x in enumerate(node.inputs):
        if isinstance(x, Tensor) and x.requires_grad:
            dx = found[k] if k < len(found) else None
            dx = dx() if callable(dx) else dx
            if dx is None:
                raise RuntimeError(f"backward: {name} has no gradient for its input {k}; detach it")
            pairs.append((x, unbroadcast(np.asarray(dx, dtype=x.dtype), x.shape)))
    return pairs


def backward(root, gradient=None):
    """Add d root / d x to `x.grad` of every leaf x that requires it, then let go of the graph.

    `gradient` has the shape of `root`; it may be left out for a single number, where it is 1. Nothing is
    added when an error is raised by a check: RuntimeError for a tensor without history, a graph already
    used, or a tensor changed in place; ValueError for a shape that does not fit; NotImplementedError for a
    missing rule.
    Source: reverse accumulation, Linnainmaa 1970; Griewank and Walther, Evaluating Derivatives, 2008.
    """
    gradients = {id(root): first_gradient(root, gradient)}
    order = topological_order(root)
    for t in order:
        check_usable(t)
    while order:
        t = order.pop()
        g = gradients.pop(id(t))
        if t.node is None:
            t.grad = Tensor(g if t.grad is None else t.grad.data + g, dtype=t.dtype)
            continue
        for x, dx in input_gradients(t.node, g):
            gradients[id(x)] = gradients[id(x)] + dx if id(x) in gradients else dx
        t.node.release()


set_recorder(record, backward)


@vjp(np.matmul)
def matmul_vjp(g, y, a, b):
    """y = a @ b: g bᵀ for a, aᵀ g for b, over the last two dimensions; two functions, as both cost much.

    A single matrix b under a batch of a's takes one product over all rows: nothing of size (B, k, m) is made.
    """

    def b_gradient():
        if b.ndim == 2 and a.ndim > 2:
            return a.reshape(-1, a.shape[-1]).T @ g.reshape(-1, g.shape[-1])
        return np.swapaxes(a, -1, -2) @ g

    return lambda: g @ np.swapaxes(b, -1, -2), b_gradient


def restore_axes(g, axis, keepdims):
    """`g`, the gradient or result of a reduction, with the reduced dimensions back as size 1."""
    return g if keepdims or axis is None else np.expand_dims(g, axis)


@vjp(np.sum)
def sum_vjp(g, y, x, axis, keepdims):
    """Every entry of x took part once."""
    return (np.broadcast_to(restore_axes(g, axis, keepdims), x.shape),)


@vjp(np.mean)
def mean_vjp(g, y, x, axis, keepdims):
    """As sum, divided by how many entries went into each mean."""
    return (np.broadcast_to(restore_axes(g, axis, keepdims) * (y.size / x.size), x.shape),)


@vjp(np.max)
def max_vjp(g, y, x, axis, keepdims):
    """The largest entry gets the gradient; ties share it equally."""
    largest = x == restore_axes(y, axis, keepdims)
    shares = largest.sum(axis=axis, keepdims=True, dtype=x.dtype)
    return (restore_axes(g, axis, keepdims) * largest / shares,)


@vjp(np.reshape)
def reshape_vjp(g, y, x, shape):
    """Back to the old shape."""
    return (g.reshape(x.shape),)


@vjp(np.transpose)
def transpose_vjp(g, y, x, axes):
    """Back to the old order of dimensions; `axes` may be negative."""
    return (g.transpose(np.argsort([i % g.ndim for i in axes])),)


@vjp(concatenate_forward)
def concatenate_vjp(g, y, *arrays, axis):
    """Each array gets its piece of g: a list with one entry for each array."""
    return np.split(g, np.cumsum([a.shape[axis] for a in arrays])[:-1], axis=axis)


@vjp(operator.getitem)
def getitem_vjp(g, y, x, index):
    """Zeros like x, with g added where `index` read; an index array may name an entry twice."""
    parts = index if isinstance(index, tuple) else (index,)
    plain = all(p is None or p is Ellipsis or isinstance(p, int | slice) for p in parts)
    dx = np.zeros_like(x)
    if plain:
        dx[index] = g
    else:
        np.add.at(dx, index, g)
    return dx, None


@vjp(relu_forward)
def relu_vjp(g, y, x):
    """1 where x > 0, else 0 (at 0 too, by convention)."""
    return (g * (x > 0),)


@vjp(sigmoid_forward)
def sigmoid_vjp(g, y, x):
    """y (1 - y)."""
    return (g * y * (1 - y),)


@vjp(np.tanh)
def tanh_vjp(g, y, x):
    """1 - y²."""
    return (g * (1 - y * y),)


@vjp(softmax_forward)
def softmax_vjp(g, y, x, axis):
    """y (g - sum of g y along the axis). With y = [0.5, 0.5], g = [1, 0]: [0.25, -0.25]."""
    return (y * (g - (g * y).sum(axis=axis, keepdims=True)),)


@vjp(gelu_forward)
def gelu_vjp(g, out, x):
    """GELU in its tanh form; out[1] is the tanh of the forward pass."""
    return (blockwise(gelu_vjp_block, x, out[1], g),)


def gelu_vjp_block(x, t, g, dx):
    """Write g (0.5 (1 + t) + 0.5 x (1 - t²) c (1 + 3 a x²)) into dx; t = tanh(c (x + a x³)), flat arrays."""
    np.multiply(x, x, out=dx)
    dx *= 3 * 0.044715
    dx += 1
    dx *= 0.7978845608028654  # sqrt(2 / pi)
    dx *= x
    dx *= 1 - t * t
    dx += t
    dx += 1
    dx *= 0.5
    dx *= g


@vjp(mse_forward)
def mse_vjp(g, y, x, targets):
    """2 (x - targets) / x.size for x; the negative of that for the targets."""
    d = g * 2 / x.size * (x - targets)
    return d, lambda: -d


@vjp(bce_forward)
def bce_vjp(g, y, p, targets):
    """(p - targets) / (p (1 - p)) / p.size, the product kept at least 1e-12; None for the targets."""
    return g * (p - targets) / np.maximum(p * (1 - p), 1e-12) / p.size, None


@vjp(log_softmax_forward)
def log_softmax_vjp(g, y, x, axis):
    """g - softmax(x) times the sum of g along the axis."""
    return (g - np.exp(y) * g.sum(axis=axis, keepdims=True),)


@vjp(cross_entropy_forward)
def cross_entropy_vjp(g, out, logits, targets, smoothing):
    """(softmax - smoothed target) / B. Shapes: logits and out[1] (log-probabilities) (B, C), targets (B,)."""
    B, C = logits.shape
    d = np.exp(out[1]) - smoothing / C
    d[np.arange(B), targets] -= 1 - smoothing
    return (d * (g / B),)


def directional_difference(function, inputs, k, direction, weights, eps):
    """(f(x + eps d) - f(x - eps d)) / (2 eps), x = inputs[k], d = direction; f: the results' weighted sum."""
    ends = []
    with no_grad():
        for step in (eps, -eps):
            moved = list(inputs)
            moved[k] = Tensor(inputs[k].data + step * direction, dtype=np.float64)
            ends.append(float((function(*moved).data * weights).sum()))
    return (ends[0] - ends[1]) / (2 * eps)


def gradcheck(function, inputs, eps=1e-6, tolerance=1e-6, seed=0):
    """Compare the gradients of `function(*inputs)` with central differences along random directions.

    `inputs` are tensors or arrays; they are copied as float64, and so must be whatever else the function
    uses. Returns True; raises AssertionError with both numbers for the first input where they differ by
    more than `tolerance`, relative to the larger one where that is above 1.
    """
    rng = np.random.default_rng(seed)
    inputs = [Tensor(x, requires_grad=True, dtype=np.float64) for x in inputs]
    y = function(*inputs)
    weights = rng.standard_normal(y.shape)
    y.backward(weights)
    for k, x in enumerate(inputs):
        direction = rng.standard_normal(x.shape)
        numeric = directional_difference(function, inputs, k, direction, weights, eps)
        analytic = 0.0 if x.grad is None else float((x.grad.data * direction).sum())
        if not abs(numeric - analytic) <= tolerance * max(1, abs(numeric), abs(analytic)):
            raise AssertionError(
                f"gradcheck: input {k}: backward gives {analytic:.8g}, differences give {numeric:.8g}"
            )
    return True
