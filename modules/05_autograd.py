# %% [markdown]
# # 05 Autograd
#
# > Automatic differentiation: a recorder behind the seam, a table of gradient rules, and a walk back.
#
# Until now your package can say how wrong a network is, and nothing more. Training needs the next sentence: how
# the loss would change if each weight moved a little. A network may have millions of weights, and the formula for
# the loss changes with every idea you try, so nobody derives these gradients by hand. In this lesson you build
# the machine that does.
#
# It has three parts, and you write all of them:
#
# 1. a **recorder**, plugged into the seam of module 01, that notes every operation as it runs;
# 2. a **table** with one gradient rule for each primitive operation, a line or two each;
# 3. a **walk back** through what was recorded, which calls the rules and adds up what they return.
#
# Why this matters to a system: the walk costs about as much as the computation itself, whatever the number of
# weights. The price is memory, because everything that a rule will want to see again must be kept until then.
# You will measure that price.
#
# **Before this lesson:** 01 (the seam `apply`), 02 (activations), 04 (losses). From school: the derivative of a
# product and of a square.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 05

# %% nbgrader={"grade_id": "imports", "locked": true}
#| export
import operator
import threading
from contextlib import contextmanager

import numpy as np

from tinytorch.activations import blockwise, gelu_forward, relu_forward, sigmoid_forward, softmax_forward
from tinytorch.losses import bce_forward, cross_entropy_forward, log_softmax_forward, mse_forward
from tinytorch.tensor import Tensor, concatenate_forward, set_recorder

# %% [markdown]
# ## 1. The chain rule, with numbers
#
# Take `x = 2`, `y = 3` and compute `loss = (x·y + x)²` in small steps:
#
# | step | value |
# |---|---|
# | `p = x · y` | 6 |
# | `s = p + x` | 8 |
# | `loss = s · s` | 64 |
#
# Now walk back, and ask at each step: if this number grows by a tiny bit, how many times that bit does the loss
# grow? Call the answer `g`.
#
# - The loss itself: 1.
# - `s`: a square grows with twice its base, so `g = 2 · 8 = 16`.
# - `p`: `s = p + x` passes a change on as it is, so `g = 16`.
# - `y`: `p = x · y` multiplies a change of `y` by `x = 2`, so `g = 16 · 2 = 32`.
# - `x` is used **twice**. By way of `s` it gets 16. By way of `p` it gets 16 · y = 48. Both happen at once, so they
#   add: `g = 64`.
#
# That is all of automatic differentiation. Each step needs only the gradient `g` of its own result and the numbers
# it saw on the way forward, and what arrives at one place from several sides is added.
#
# There is an independent way to check such a claim: move `x` a little and look.

# %% tags=["nbval-check-output"]
def small(x, y):
    s = x * y + x
    return s * s


print("moving x:", round((small(2.001, 3) - small(1.999, 3)) / 0.002, 3))
print("moving y:", round((small(2, 3.001) - small(2, 2.999)) / 0.002, 3))

# %% [markdown]
# The next cell does the same for arrays, one entry at a time. It needs two evaluations for every number, which is
# hopeless for a network with a million weights and perfect for checking a rule. The tests of this lesson use it.

# %% nbgrader={"grade_id": "differences", "locked": true}
def slope(f, arrays, k, g, h=1e-6):
    """How the sum of g * f(*arrays) changes with every entry of arrays[k]: central differences in float64."""
    arrays = [np.array(a, np.float64) for a in arrays]
    total = np.zeros_like(arrays[k])
    for i in np.ndindex(total.shape):
        for step in (h, -h):
            moved = [a.copy() for a in arrays]
            moved[k][i] += step
            total[i] += np.sum(g * f(*moved)) / (2 * step)
    return total


def check_rule(rule, primitive, *arrays, inputs=None, seed=0, **params):
    """Compare every gradient that `rule` returns with differences of `primitive`; say where they part."""

    def result(*arrays):
        out = primitive(*arrays, **params)
        return out[0] if isinstance(out, tuple) else out

    arrays = [np.array(a, np.float64) for a in arrays]
    out = primitive(*arrays, **params)
    g = np.random.default_rng(seed).standard_normal(np.shape(result(*arrays)))
    found = rule(g, out, *arrays, **params)
    for k in range(len(arrays)) if inputs is None else inputs:
        got = np.asarray(found[k]() if callable(found[k]) else found[k])
        while got.ndim > arrays[k].ndim:
            got = got.sum(axis=0)
        expected = slope(result, arrays, k, g)
        where = f"{rule.__name__}, gradient of input {k}"
        assert got.shape == expected.shape, f"{where}: expected shape {expected.shape}, got {got.shape}"
        off = np.abs(got - expected)
        i = np.unravel_index(np.argmax(np.nan_to_num(off, nan=np.inf)), off.shape)
        assert off[i] <= 1e-5 * max(1, abs(expected[i])), (
            f"{where}, entry {tuple(map(int, i))}: expected {expected[i]:.6g}, got {got[i]:.6g}"
        )


# %% [markdown]
# ## 2. A table of rules
#
# A rule knows one primitive and nothing else. It is called as `rule(g, out, *arrays, **params)`:
#
# - `g`: the gradient of the primitive's result, an array of the same shape;
# - `out`: what the primitive returned on the way forward;
# - `arrays`, `params`: what it was called with.
#
# It returns a **tuple with one gradient for each array**. Mathematicians call that a vector-Jacobian product, or
# VJP: the vector is `g`, and the Jacobian, a table of all derivatives, is never written down.
#
# For `y = a · b` the rule returns `g · b` for `a` and `g · a` for `b`. Where only one of them needs a gradient, the
# other product is work for nothing. So a rule may return a *function* in place of an array, and the walk calls it
# only if it needs the answer: `return lambda: g * b, lambda: g * a`.
#
# The table is a dict, and `@vjp(primitive)` puts the function below it there.

# %% nbgrader={"grade_id": "table", "locked": true}
#| export
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


# %% [markdown]
# ### Exercise: arithmetic
#
# By hand, with `a = 6`, `b = 3`, and `g = 10`:
#
# | y | value | gradient of a | gradient of b |
# |---|---|---|---|
# | `a + b` | 9 | 10 | 10 |
# | `a - b` | 3 | 10 | -10 |
# | `a · b` | 18 | 10 · 3 = 30 | 10 · 6 = 60 |
# | `a / b` | 2 | 10 / 3 | -10 · 6 / 9 = -6.67 |
#
# In the last one you need not compute `a / b²`: the forward result `y = a / b` is there, so it is `y / b`.

# %% nbgrader={"grade_id": "arithmetic", "solution": true}
#| export
@vjp(np.add)
def add_vjp(g, y, a, b):
    """y = a + b passes the gradient on to both."""
    ### BEGIN SOLUTION
    return g, g
    ### END SOLUTION


@vjp(np.subtract)
def subtract_vjp(g, y, a, b):
    """y = a - b: b gets it with the other sign."""
    ### BEGIN SOLUTION
    return g, lambda: -g
    ### END SOLUTION


@vjp(np.multiply)
def multiply_vjp(g, y, a, b):
    """y = a * b: each gets the gradient times the other factor. With a = 6, b = 3, g = 10: 30 and 60."""
    ### BEGIN SOLUTION
    return lambda: g * b, lambda: g * a
    ### END SOLUTION


@vjp(np.divide)
def divide_vjp(g, y, a, b):
    """y = a / b: dy/da = 1 / b and dy/db = -y / b."""
    ### BEGIN SOLUTION
    return lambda: g / b, lambda: -g * y / b
    ### END SOLUTION


@vjp(np.negative)
def negative_vjp(g, y, a):
    """y = -a. One input, so a tuple of one: the comma matters."""
    ### BEGIN SOLUTION
    return (-g,)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
ga, gb = multiply_vjp(np.float64(10), np.float64(18), np.float64(6), np.float64(3))
print("multiply:", *(float(d() if callable(d) else d) for d in (ga, gb)))

# %% nbgrader={"grade_id": "test-arithmetic", "grade": true, "points": 2}
a = np.array([[6.0, -1.0, 0.5], [2.0, 4.0, -3.0]])
b = np.array([[3.0, 2.0, -1.5], [0.8, -4.0, 1.0]])
check_rule(add_vjp, np.add, a, b)
check_rule(subtract_vjp, np.subtract, a, b)
check_rule(multiply_vjp, np.multiply, a, b)
check_rule(divide_vjp, np.divide, a, b)
check_rule(negative_vjp, np.negative, a)
assert VJP[np.multiply] is multiply_vjp, "VJP[np.multiply] is not multiply_vjp: keep the line @vjp(np.multiply)"
### BEGIN HIDDEN TESTS
for seed in (1, 2):
    random = np.random.default_rng(seed)
    a, b = random.uniform(0.5, 2, (2, 3, 2)), random.uniform(-2, -0.5, (2, 3, 2))
    check_rule(add_vjp, np.add, a, b, seed=seed)
    check_rule(subtract_vjp, np.subtract, a, b, seed=seed)
    check_rule(multiply_vjp, np.multiply, a, b, seed=seed)
    check_rule(divide_vjp, np.divide, a, b, seed=seed)
    check_rule(negative_vjp, np.negative, b, seed=seed)
for primitive in (np.add, np.subtract, np.multiply, np.divide, np.negative):
    assert primitive in VJP, f"{primitive.__name__} has no rule in VJP: keep the @vjp lines"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: powers, exponentials, roots
#
# School knows these: the derivative of `aⁿ` is `n aⁿ⁻¹`, of `exp a` it is `exp a` itself, of `log a` it is `1 / a`, of
# `√a` it is `1 / (2 √a)`. Wherever the answer contains the forward result, take `y`, which is already there.
#
# One trap: for `n = 0` the result is 1 everywhere and the gradient is 0, but `0 · a⁻¹` is not a number at `a = 0`.
# `n - (n != 0)` is `n - 1` for every other `n` and stays 0 for that one.
#
# The exponent is a plain number and needs no gradient: its place in the tuple holds None.

# %% nbgrader={"grade_id": "powers", "solution": true}
#| export
@vjp(np.power)
def power_vjp(g, y, a, n):
    """y = a ** n. With a = 3, n = 2, g = 10: 60. For n = 0 it is 0, also where a is 0. None for n."""
    ### BEGIN SOLUTION
    return g * n * a ** (n - (n != 0)), None
    ### END SOLUTION


@vjp(np.exp)
def exp_vjp(g, y, a):
    """y = exp(a) is its own derivative."""
    ### BEGIN SOLUTION
    return (g * y,)
    ### END SOLUTION


@vjp(np.log)
def log_vjp(g, y, a):
    """y = log(a): 1 / a."""
    ### BEGIN SOLUTION
    return (g / a,)
    ### END SOLUTION


@vjp(np.sqrt)
def sqrt_vjp(g, y, a):
    """y = sqrt(a): 1 / (2 y). With a = 16, g = 8: 1."""
    ### BEGIN SOLUTION
    return (g * 0.5 / y,)
    ### END SOLUTION


@vjp(np.abs)
def abs_vjp(g, y, a):
    """y = |a|: the sign of a, and 0 at 0."""
    ### BEGIN SOLUTION
    return (g * np.sign(a),)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-powers", "grade": true, "points": 2}
a = np.array([[0.7, 1.0, 2.5], [3.0, 0.2, 16.0]])
for n in (2, 3, 0.5, -1):
    check_rule(power_vjp, np.power, a, n, inputs=[0])
check_rule(exp_vjp, np.exp, a / 4)
check_rule(log_vjp, np.log, a)
check_rule(sqrt_vjp, np.sqrt, a)
check_rule(abs_vjp, np.abs, a - 2)
### BEGIN HIDDEN TESTS
at_zero = power_vjp(np.ones(3), np.ones(3), np.array([0.0, 1.0, -2.0]), 0)[0]
at_zero = np.asarray(at_zero() if callable(at_zero) else at_zero)
assert np.all(at_zero == 0), f"power_vjp: the gradient of a ** 0 is 0 everywhere, also at a = 0; got {at_zero}"
a = np.random.default_rng(3).uniform(0.3, 3, (4, 2))
check_rule(power_vjp, np.power, a, 1.7, inputs=[0], seed=4)
check_rule(power_vjp, np.power, -a, 2, inputs=[0], seed=4)
check_rule(exp_vjp, np.exp, -a, seed=5)
check_rule(log_vjp, np.log, a, seed=6)
check_rule(sqrt_vjp, np.sqrt, a, seed=7)
check_rule(abs_vjp, np.abs, a - 1.5, seed=8)
sign = np.asarray(abs_vjp(np.array([5.0]), np.array([0.0]), np.array([0.0]))[0])
assert np.all(sign == 0), f"abs_vjp: the gradient at 0 is 0 by convention, got {sign}"
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Recording
#
# The rules wait for someone to call them in the right order. For that we must remember which operations ran.
# A `Node` is one such memory. It hangs on the tensor that came out, and points to the tensors that went in, so the
# nodes form a graph. `versions` notes how often each of these tensors had been changed in place so far; section 5
# needs that.

# %% nbgrader={"grade_id": "node", "locked": true}
#| export
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


# %% [markdown]
# ### Exercise: a switch
#
# Evaluating a trained network needs no gradients, so nothing should be recorded. `with no_grad():` switches the
# recorder off and, at the end, back to **what it was before**, also when the code inside fails, and also when one
# `no_grad` stands inside another. The switch is kept for each thread, so that one thread's evaluation does not
# stop another's training.
#
# `@contextmanager` turns a generator into something for `with`: what stands before `yield` runs first, what stands
# after it runs last. Use `try` and `finally`.

# %% nbgrader={"grade_id": "no-grad", "solution": true}
#| export
_state = threading.local()


def is_grad_enabled():
    """Whether operations are recorded now, in this thread."""
    return not getattr(_state, "off", False)


@contextmanager
def no_grad():
    """Inside `with no_grad():` nothing is recorded: operations keep no memory for gradients."""
    ### BEGIN SOLUTION
    before = is_grad_enabled()
    _state.off = True
    try:
        yield
    finally:
        _state.off = not before
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(is_grad_enabled())
with no_grad():
    print(is_grad_enabled())
print(is_grad_enabled())

# %% nbgrader={"grade_id": "test-no-grad", "grade": true, "points": 1}
with no_grad():
    inside = bool(is_grad_enabled())
    with no_grad():
        pass
    after_inner = bool(is_grad_enabled())
assert not inside, "inside no_grad: expected is_grad_enabled() to be False: set _state.off before the yield"
assert not after_inner, "an inner no_grad must give back what was before it, here: still off"
assert bool(is_grad_enabled()), "after no_grad: expected is_grad_enabled() to be True again: look after the yield"
### BEGIN HIDDEN TESTS
try:
    with no_grad():
        raise KeyError("planned")
except KeyError:
    pass
assert bool(is_grad_enabled()), "after an error inside no_grad recording must be on again: use try and finally"
import threading

seen = []
with no_grad():
    other = threading.Thread(target=lambda: seen.append(bool(is_grad_enabled())))
    other.start()
    other.join()
assert seen == [True], "no_grad in one thread must not switch another off: keep the switch in _state"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: the recorder
#
# The seam `apply` of module 01 calls `record` after every operation, with the primitive, its inputs (tensors, but
# also plain numbers and arrays), its parameters, what it returned (`out`), and the result tensor `y`.
#
# Record only if someone may ask: when recording is on, some input is a tensor with `requires_grad`, and the
# primitive is not in `NOT_DIFFERENTIABLE`. Then `y` needs gradients too, and gets a node.

# %% nbgrader={"grade_id": "record", "solution": true}
#| export
def record(primitive, inputs, params, out, y):
    """Remember how `y` was computed, if any of its inputs needs a gradient: y.requires_grad and y.node."""
    ### BEGIN SOLUTION
    wanted = any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
    if wanted and is_grad_enabled() and primitive not in NOT_DIFFERENTIABLE:
        y.requires_grad = True
        y.node = Node(primitive, inputs, params, out, y)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-record", "grade": true, "points": 2}
from tinytorch.tensor import Tensor

x, c = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0])
y = Tensor([3.0, 8.0])
record(np.multiply, (x, c), {}, y.data, y)
assert bool(y.requires_grad), "record: x needs a gradient, so y does: set y.requires_grad"
assert y.node is not None, "record: expected y.node to be a Node, got None"
assert y.node.primitive is np.multiply, f"record: expected the node of multiply, got {y.node}"
assert y.node.inputs[0] is x and y.node.inputs[1] is c, "record: the node keeps the very tensors that went in"
y = Tensor([9.0, 16.0])
record(np.multiply, (c, c), {}, y.data, y)
assert y.node is None and not y.requires_grad, "record: nothing here needs a gradient, so nothing is recorded"
### BEGIN HIDDEN TESTS
y = Tensor([2.0, 4.0])
record(np.multiply, (2.0, x), {"key": 1}, y.data, y)
assert y.node is not None, "record: the second input needs a gradient here: look at all inputs, numbers too"
assert y.node.params == {"key": 1} and y.node.out is y.data, "record: the node keeps params and out"
y = Tensor([1.0, 1.0])
record(np.less, (x, c), {}, y.data, y)
assert y.node is None and not y.requires_grad, "record: a comparison has no gradient: see NOT_DIFFERENTIABLE"
with no_grad():
    y = Tensor([3.0, 8.0])
    record(np.multiply, (x, c), {}, y.data, y)
assert y.node is None and not y.requires_grad, "record: inside no_grad nothing is recorded"
### END HIDDEN TESTS

# %% [markdown]
# Plug it in, and every operation you have written since module 01 leaves a trace, without a change to any of them.

# %% nbgrader={"grade_id": "plug-in", "locked": true}
set_recorder(record, None)

# %% tags=["nbval-check-output"]
x, y = Tensor(2.0, requires_grad=True), Tensor(3.0, requires_grad=True)
s = x * y + x
loss = s * s
print(loss.node, loss.node.inputs[0].node, x.node)

# %% [markdown]
# ## 4. The order of the walk
#
# In the example, `x` must not be finished before both messages have reached it: the one by way of `s` and the one
# by way of `p`. In general a tensor may hand its gradient on only when **all** its users are done. So list the
# tensors with inputs always before their users (a *topological order*) and walk the list from its end.
#
# The usual way to such a list is depth first: put a tensor into the list after everything it depends on. Written
# as a function that calls itself, it dies at a depth of about 1,000, Python's recursion limit, and a recurrent
# network over a long text is deeper than that. So keep a stack of your own. Each entry is a pair: a tensor, and
# whether its inputs are already done.
#
# - `(t, True)` comes off the stack: all its inputs are in the list. Append `t`.
# - `(t, False)` comes off, and `t` is new: remember it as seen, push `(t, True)`, and above it `(x, False)` for each
#   input `x` that is a tensor with `requires_grad`.
#
# By hand, for `p = x·y; s = p + x`: the list may be `x, y, p, s` or `y, x, p, s`, but never one with `p` before `y`.
# Tensors compare element by element, so remember them by `id(t)`.

# %% nbgrader={"grade_id": "topological-order", "solution": true}
#| export
def topological_order(root):
    """Every tensor that `root` depends on through recorded operations, inputs before users; `root` is last.

    Tensors without requires_grad are left out. Works without recursion, so a graph may be of any depth.
    """
    ### BEGIN SOLUTION
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
    ### END SOLUTION


# %% tags=["nbval-check-output"]
[float(t) for t in topological_order(loss)][2:]  # x and y come first, in either order

# %% nbgrader={"grade_id": "test-topological-order", "grade": true, "points": 2}
def computed_from(*inputs):
    t = Tensor([0.0], requires_grad=True)
    t.node = Node(np.add, inputs, {}, t.data, t)
    return t


def check_order(root, expected):
    order = list(topological_order(root))
    place = {id(t): i for i, t in enumerate(order)}
    assert len(place) == len(order), "topological_order: a tensor stands in the list twice"
    assert len(order) == expected, f"topological_order: expected {expected} tensors, got {len(order)}"
    assert order[-1] is root, "topological_order: the root comes last"
    for t in order:
        for x in t.node.inputs if t.node is not None else ():
            if isinstance(x, Tensor) and x.requires_grad:
                assert place[id(x)] < place[id(t)], "topological_order: an input stands after its user"


x, y, c = Tensor([1.0], requires_grad=True), Tensor([2.0], requires_grad=True), Tensor([3.0])
p = computed_from(x, y)
check_order(computed_from(p, x), 4)
check_order(computed_from(x, p), 4)
check_order(computed_from(c, p, 2.0), 4)
### BEGIN HIDDEN TESTS
random, tensors = np.random.default_rng(5), [x, y]
for _ in range(40):
    tensors.append(computed_from(*(tensors[i] for i in random.integers(0, len(tensors), 3))))
check_order(computed_from(*tensors), 43)
deep = x
for _ in range(4_000):
    deep = computed_from(deep, deep)
order = list(topological_order(deep))
assert len(order) == 4_001 and order[0] is x and order[-1] is deep, (
    f"topological_order of a chain of 4,000: expected 4001 tensors from x to the last one, got {len(order)}"
)
check_order(x, 1)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. The walk back
#
# ### Exercise: undo broadcasting
#
# When `x` of shape (2, 3) and `b` of shape (3,) are added, NumPy stretches `b` over the rows. Each entry of `b` was
# used twice, and uses add up. So its gradient is the sum over the rows:
#
# `g = [[1, 2, 3], [4, 5, 6]]` for `x + b` gives `b` the gradient `[5, 7, 9]`.
#
# Two things can have happened: dimensions were **added on the left** (sum them away), and dimensions of size 1 were
# **stretched** (sum, but keep them as size 1).

# %% nbgrader={"grade_id": "unbroadcast", "solution": true}
#| export
def unbroadcast(gradient, shape):
    """Sum `gradient` over the dimensions that broadcasting added or stretched, so that it has `shape`.

    unbroadcast([[1, 2, 3], [4, 5, 6]], (3,)) is [5, 7, 9]; to shape (2, 1) it is [[6], [15]].
    """
    if gradient.shape == shape:
        return gradient
    ### BEGIN SOLUTION
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1)
    return gradient.sum(axis=stretched, keepdims=True)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
g = np.array([[1, 2, 3], [4, 5, 6]])
print(unbroadcast(g, (3,)), unbroadcast(g, (2, 1)).tolist(), unbroadcast(g, ()))

# %% nbgrader={"grade_id": "test-unbroadcast", "grade": true, "points": 2}
def check_unbroadcast(shape, stretched_to, seed=0):
    random = np.random.default_rng(seed)
    g, x = random.standard_normal(stretched_to), random.standard_normal(shape)
    got = np.asarray(unbroadcast(g, shape))
    where = f"unbroadcast from {stretched_to} to {shape}"
    assert got.shape == shape, f"{where}: got shape {got.shape}"
    # moving every entry of x by d moves the sum of g * x by g * d: so these two must agree
    expected = float((g * np.broadcast_to(x, stretched_to)).sum())
    found = float((got * x).sum())
    assert np.isclose(found, expected), f"{where}: expected the products to add up to {expected:.6g}, got {found:.6g}"


for shape, to in [((3,), (2, 3)), ((2, 1), (2, 3)), ((2, 3), (2, 3)), ((), (2, 3)), ((1, 3), (4, 3))]:
    check_unbroadcast(shape, to)
### BEGIN HIDDEN TESTS
for seed, (shape, to) in enumerate([((4, 1, 3), (2, 4, 5, 3)), ((1,), (6,)), ((1, 1), (2, 3, 4)), ((5, 1), (5, 1)),
                                    ((1, 3), (1, 3)), ((3, 1, 1), (3, 2, 2)), ((1, 1, 1), (7, 1, 4))]):  # fmt: skip
    check_unbroadcast(shape, to, seed)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: where the walk starts
#
# The gradient of a loss with respect to itself is 1. That only has a meaning for a single number: for a whole array
# of results the caller must say how much each of them matters, and pass a gradient of the same shape.
#
# Both messages name the shape that came, so that whoever reads them can act.

# %% nbgrader={"grade_id": "first-gradient", "solution": true}
#| export
def first_gradient(root, gradient=None):
    """The gradient that the walk starts with, an array of root's shape and dtype; 1 for a single number.

    Raises RuntimeError where `root` has no history, and ValueError (naming the shapes) where `root` is not a
    single number and no gradient is given, or where the given one has another shape than `root`.
    """
    if not root.requires_grad:
        raise RuntimeError(
            "backward: this tensor depends on nothing with requires_grad=True; was it made inside no_grad?"
        )
    ### BEGIN SOLUTION
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
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-first-gradient", "grade": true, "points": 1}
def message(f, *args):
    try:
        f(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


single, three = Tensor([[5.0]], requires_grad=True), Tensor([1.0, 2.0, 3.0], requires_grad=True)
got = np.asarray(first_gradient(single))
assert got.shape == (1, 1) and got[0, 0] == 1, f"first_gradient of a single number: expected [[1.]], got {got}"
got = np.asarray(first_gradient(three, [1, 0, 2]))
assert got.tolist() == [1, 0, 2], f"first_gradient with a gradient given: expected [1, 0, 2], got {got}"
got = message(first_gradient, three)
assert got.startswith("ValueError") and "(3,)" in got, f"expected a ValueError that names shape (3,), got: {got}"
### BEGIN HIDDEN TESTS
got = message(first_gradient, three, [1.0, 2.0])
assert got.startswith("ValueError") and "(2,)" in got and "(3,)" in got, (
    f"a gradient of the wrong shape: expected a ValueError that names (2,) and (3,), got: {got}"
)
got = message(first_gradient, three, 1.0)
assert got.startswith("ValueError") and "()" in got, f"a number for 3 results: expected a ValueError, got: {got}"
double = Tensor([1.0, 2.0], requires_grad=True, dtype=np.float64)
for start in (np.asarray(first_gradient(double, [1, 2])), np.asarray(first_gradient(double, Tensor([1.0, 2.0])))):
    assert start.dtype == np.float64 and start.tolist() == [1, 2], f"expected [1. 2.] in the tensor's own dtype, got {start}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: refuse to lie
#
# The rules look again at the numbers of the forward pass. If someone has changed those in the meantime, the
# gradient would be wrong, and nothing would tell. Module 01 counts the in-place changes of each tensor in
# `version`, and the node noted the counts, `versions`: one for each input, and as the last one that of the result.
# So the misuse can be found.
#
# (A view, such as `x[0]`, shares the count of its source, so a write through it is seen as well.)
#
# Write the check of one tensor `t`, before any gradient is touched. Four things to refuse, each in one line:
#
# | what | error |
# |---|---|
# | the node was released, so `node.out is None` | RuntimeError with the words `already used` |
# | an input has another version than the node noted | RuntimeError, `changed in place`, naming its shape |
# | the result `t` has another version than the node noted | the same |
# | the primitive has no rule in `VJP` | NotImplementedError, `no gradient rule` |
#
# Every message names the primitive. A tensor without a node is always fine.

# %% nbgrader={"grade_id": "check-usable", "solution": true}
#| export
def check_usable(t):
    """Raise a one-line error where the operation that made the tensor `t` cannot be differentiated any more.

    RuntimeError: its graph was already used, or a tensor was changed in place since. NotImplementedError: its
    primitive has no rule.
    """
    node = t.node
    if node is None:
        return
    name = node.primitive.__name__
    ### BEGIN SOLUTION
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
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-check-usable", "grade": true, "points": 2}
def product(a, b):
    """A product, recorded by hand."""
    t = Tensor(a.data * b.data, requires_grad=True)
    t.node = Node(np.multiply, (a, b), {}, t.data, t)
    return t


def refusal(t):
    try:
        check_usable(t)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


VJP.setdefault(np.multiply, "a rule")
x, c = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0])
got = refusal(product(x, c))
assert got == "no error", f"check_usable: nothing is wrong with this product, got: {got}"
y = product(x, c)
c[0] = 5.0
got = refusal(y)
assert got.startswith("RuntimeError") and "changed in place" in got and "(2,)" in got and "multiply" in got, (
    f"check_usable: c[0] was set after the product: expected a RuntimeError naming multiply and (2,), got: {got}"
)
y = product(x, c)
y.node.release()
got = refusal(y)
assert got.startswith("RuntimeError") and "already used" in got, f"expected 'already used', got: {got}"
### BEGIN HIDDEN TESTS
assert refusal(x) == "no error", "check_usable: a tensor without a node is fine"
y = product(x, c)
x.data -= 0.1
got = refusal(y)
assert got.startswith("RuntimeError") and "changed in place" in got, f"after x.data -= 0.1: expected an error, got: {got}"
assert refusal(product(x, c)) == "no error", "check_usable: x was changed before this product, which is fine"
y = product(x, c)
y[1] = 0.0
got = refusal(y)
assert got.startswith("RuntimeError") and "changed in place" in got, f"the result was changed: expected an error, got: {got}"
y = product(x, c)
y.node.primitive = np.hypot
got = refusal(y)
assert got.startswith("NotImplementedError") and "hypot" in got and "no gradient rule" in got, (
    f"a primitive without a rule: expected a NotImplementedError that names hypot, got: {got}"
)
### END HIDDEN TESTS

# %% [markdown]
# Given is the step for one node: call its rule, take what is needed, undo broadcasting, keep the dtype. (A rule that
# forgets the tuple, or a gradient, is told so.) `set_stepper` is a seam like that in module 01, where lesson 14 will
# plug in a stopwatch.

# %% nbgrader={"grade_id": "input-gradients", "locked": true}
#| export
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
    return _input_gradients(node, g) if _stepper is None else _stepper(node, lambda: _input_gradients(node, g))


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


# %% [markdown]
# ### Exercise: backward
#
# All parts are there. Keep a dict `gradients` from `id(t)` to the array that has arrived at `t` so far.
#
# 1. Put the first gradient of `root` into it; get the order; check every tensor in it.
# 2. Take the tensors from the end of the order (`order.pop()`), with their gradients (`gradients.pop`).
# 3. A tensor without a node is a leaf, say a weight: **add** the gradient to `t.grad`, which starts as None and
#    holds a Tensor of t's dtype. `Tensor(array, dtype=t.dtype)` copies, so that no two leaves share memory.
# 4. Any other tensor: for each pair of `input_gradients(t.node, g)`, put `dx` into the dict, or **add** it to what is
#    there. Write `a + b`, not `a += b`: one array may be the gradient of two inputs. Then `t.node.release()`.
#
# Releasing on the way gives memory back before the walk is over, and it takes a deep graph apart piece by piece.

# %% nbgrader={"grade_id": "backward", "solution": true}
#| export
def backward(root, gradient=None):
    """Add d root / d x to `x.grad` of every leaf x that requires it, then let go of the graph.

    `gradient` has the shape of `root`; it may be left out for a single number, where it is 1. Nothing is
    added when an error is raised by a check: RuntimeError for a tensor without history, a graph already
    used, or a tensor changed in place; ValueError for a shape that does not fit; NotImplementedError for a
    missing rule.
    Source: reverse accumulation, Linnainmaa 1970; Griewank and Walther, Evaluating Derivatives, 2008.
    """
    ### BEGIN SOLUTION
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
    ### END SOLUTION


# %% [markdown]
# Plug both into module 01: from here on `loss.backward()` works.

# %% nbgrader={"grade_id": "plug-in-backward", "locked": true}
#| export
set_recorder(record, backward)

# %% tags=["nbval-check-output"]
x, y = Tensor(2.0, requires_grad=True), Tensor(3.0, requires_grad=True)
s = x * y + x
loss = s * s
loss.backward()
print(x.grad, y.grad)

# %% [markdown]
# 64 and 32, as by hand.

# %% nbgrader={"grade_id": "test-backward", "grade": true, "points": 4}
def tensor(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).uniform(0.5, 2, shape), requires_grad=True, dtype=np.float64)


def check_gradients(f, *inputs):
    """The gradients of the sum of f(*inputs) against differences."""
    for x in inputs:
        x.grad = None
    y = f(*inputs)
    backward(y, np.ones(y.shape))
    for k, x in enumerate(inputs):
        assert x.grad is not None, f"backward: input {k} got no gradient"
        got = np.asarray(x.grad.data)
        expected = slope(lambda *a: f(*(Tensor(b, dtype=np.float64) for b in a)).data, [t.data for t in inputs], k, 1)
        assert got.shape == expected.shape, f"backward: input {k}: expected shape {expected.shape}, got {got.shape}"
        assert np.allclose(got, expected, atol=1e-5), f"backward: input {k}: expected {expected}, got {got}"


check_gradients(lambda x, y: (x * y + x) * (x * y + x), tensor(seed=1), tensor(seed=2))
check_gradients(lambda x, b: x * b + b, tensor(2, 3), tensor(3, seed=1))
check_gradients(lambda x: x * x * x, tensor(3))


def braid(x):
    a = x * x
    b = a * a
    return a + b * a + x * b


check_gradients(braid, tensor(2))
x = tensor(2)
backward(x * x, np.ones(2))
backward(x * 3.0, np.ones(2))
expected = 2 * x.data + 3
assert np.allclose(x.grad.data, expected), f"two backwards must add up: expected {expected}, got {x.grad.data}"
### BEGIN HIDDEN TESTS
check_gradients(lambda x, y: x / y - y * x, tensor(4, 1), tensor(3, seed=3))
check_gradients(lambda x, y, z: (x + y) * (y - z) / (x * z), tensor(2, 3), tensor(1, 3, seed=1), tensor(seed=2))
x, c = tensor(3), Tensor([1.0, 2.0, 3.0])
deep = x
for _ in range(4_000):
    deep = deep + c
backward(deep, [1.0, 2.0, 3.0])
assert np.asarray(x.grad.data).tolist() == [1, 2, 3], f"a chain of 4,000 additions: expected [1, 2, 3], got {x.grad}"
assert c.grad is None, "a tensor without requires_grad gets no gradient"
x, y = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0], requires_grad=True)
z = x + y
backward(z, [1.0, 1.0])
assert x.grad.dtype == np.float32, f"the gradient of a float32 tensor is float32, got {x.grad.dtype}"
x.grad.data *= 5
assert np.asarray(y.grad.data).tolist() == [1, 1], "the gradients of x and y share memory: copy"


def caught(f, *args):
    try:
        f(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


assert "already used" in caught(backward, z, [1.0, 1.0]), "a second backward on a used graph must be refused"
p = x * y
q = p * p
y[0] = 0.0
x.grad = None
got = caught(backward, q, [1.0, 1.0])
assert "changed in place" in got and x.grad is None, f"y was changed after use: expected a refusal, got: {got}"
got = caught(backward, x * 2.0)
assert got.startswith("ValueError") and "(2,)" in got, f"backward on two numbers: expected a ValueError, got: {got}"
x = tensor(2, seed=4)
shared = x * x
backward(shared * 2.0 + shared * 3.0, np.ones(2))
assert np.allclose(x.grad.data, 10 * x.data), f"a shared node: expected {10 * x.data}, got {x.grad.data}"
### END HIDDEN TESTS

# %% [markdown]
# ### The graph, drawn
#
# `backward` keeps gradients for leaves alone. To see the ones in between, the next cell walks once more, by hand.

# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import show

x, y = Tensor(2.0, requires_grad=True), Tensor(3.0, requires_grad=True)
p = x * y
s = p + x
loss = s * s
gradient = {id(loss): 1.0}
for t in reversed(topological_order(loss)):
    for source, dx in input_gradients(t.node, np.asarray(gradient[id(t)])) if t.node else []:
        gradient[id(source)] = gradient.get(id(source), 0) + float(dx)

places = {"x": (x, 0, 0), "y": (y, 0, 1.6), "p = x·y": (p, 2, 1.2), "s = p + x": (s, 4, 0.4), "loss = s·s": (loss, 6, 0.4)}
figure, ax = plt.subplots(figsize=(9, 3.6))
for name, (t, left, top) in places.items():
    text = f"{name}\nvalue {float(t):g}\ngradient {gradient[id(t)]:g}"
    ax.text(left, top, text, ha="center", va="center", bbox={"boxstyle": "round", "fc": "white", "ec": "black"})
    for source in t.node.inputs if t.node else []:
        _, a, b = next(place for place in places.values() if place[0] is source)
        ax.annotate("", (left, top), (a, b), arrowprops={"arrowstyle": "->", "color": "0.4", "shrinkA": 46, "shrinkB": 46})
ax.set(xlim=(-0.8, 6.9), ylim=(-0.5, 2.1), title="values are computed from left to right, gradients from right to left")
ax.axis("off")
told = "; ".join(f"{name}: {float(t):g} and {gradient[id(t)]:g}" for name, (t, _, _) in places.items())
show(figure, alt=f"Five boxes joined by arrows: x and y lead to p, p and x to s, s to the loss. Value and gradient of {told}.")

# %% [markdown]
# ## 6. More rules
#
# The machine is complete; from here on it only learns more words.
#
# ### Exercise: matrix product
#
# With `y = a @ b` and shapes (n, k) @ (k, m) → (n, m), the shapes alone nearly tell the answer: the gradient of `a`
# must be (n, k), made from `g` (n, m) and `b` (k, m) turned around: `g @ bᵀ`. In the same way that of `b` is `aᵀ @ g`.
#
# By hand: `a = [[1, 2]]`, `b = [[3], [4]]`, `y = [[11]]`, `g = [[1]]`. Moving `a[0, 0]` by 1 changes `y` by 3, so the
# gradient of `a` is `[[3, 4]]`, which is `bᵀ`.
#
# There may be more dimensions in front (a batch), so turn only the last two: `np.swapaxes(b, -1, -2)`.
#
# One case is worth care: a batch `a` (B, n, k) times **one** matrix `b` (k, m). `aᵀ @ g` would make B matrices that
# are then added up. Put all B·n rows under each other instead, and it is a single product with no sum after it:
# `a.reshape(-1, k).T @ g.reshape(-1, m)`.

# %% nbgrader={"grade_id": "matmul", "solution": true}
#| export
@vjp(np.matmul)
def matmul_vjp(g, y, a, b):
    """y = a @ b: g bᵀ for a, aᵀ g for b, over the last two dimensions; two functions, as both cost much.

    A single matrix b under a batch of a's takes one product over all rows: nothing of size (B, k, m) is made.
    """
    ### BEGIN SOLUTION

    def b_gradient():
        if b.ndim == 2 and a.ndim > 2:
            return a.reshape(-1, a.shape[-1]).T @ g.reshape(-1, g.shape[-1])
        return np.swapaxes(a, -1, -2) @ g

    return lambda: g @ np.swapaxes(b, -1, -2), b_gradient
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-matmul", "grade": true, "points": 2}
random = np.random.default_rng(0)
check_rule(matmul_vjp, np.matmul, [[1.0, 2.0]], [[3.0], [4.0]])
check_rule(matmul_vjp, np.matmul, random.standard_normal((2, 3)), random.standard_normal((3, 4)))
check_rule(matmul_vjp, np.matmul, random.standard_normal((3, 3)), random.standard_normal((3, 3)))
### BEGIN HIDDEN TESTS
check_rule(matmul_vjp, np.matmul, random.standard_normal((2, 4, 3)), random.standard_normal((3, 2)), seed=1)
check_rule(matmul_vjp, np.matmul, random.standard_normal((2, 2, 3)), random.standard_normal((2, 3, 4)), seed=2)
check_rule(matmul_vjp, np.matmul, random.standard_normal((2, 3)), random.standard_normal((4, 3, 2)), seed=3)
one = matmul_vjp(random.standard_normal((5, 4, 2)), None, random.standard_normal((5, 4, 3)), np.ones((3, 2)))[1]
one = np.asarray(one() if callable(one) else one)
assert one.shape == (3, 2), f"matmul_vjp: one matrix under a batch: expected a gradient (3, 2) without a sum, got {one.shape}"
### END HIDDEN TESTS

# %% [markdown]
# Slow against fast: first the same numbers, then the shortest of some times, and what each way writes to memory. The
# slow way makes a whole stack of matrices, only to add them up. Both run on one core, to compare like with like.

# %% tags=["measure"]
import time

from threadpoolctl import threadpool_limits

random = np.random.default_rng(0)
a, g = random.standard_normal((250, 8, 128), np.float32), random.standard_normal((250, 8, 128), np.float32)
fast = matmul_vjp(g, None, a, np.zeros((128, 128), np.float32))[1]


def stack():
    return np.swapaxes(a, -1, -2) @ g


def shortest(f, repeats=10):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


assert np.allclose(stack().sum(axis=0), fast(), atol=1e-2)
with threadpool_limits(1):
    slow_ms, fast_ms = shortest(lambda: stack().sum(axis=0)), shortest(fast)
print(f"250 products, then a sum: {slow_ms:6.2f} ms, {stack().nbytes / 1e6:6.2f} MB")
print(f"one product:              {fast_ms:6.2f} ms, {fast().nbytes / 1e6:6.2f} MB")

# %% [markdown]
# ### Exercise: reductions
#
# `sum` hands `g` to everyone who took part: with `x = [1, 2, 3]` and `g = 10`, the gradient is `[10, 10, 10]`. `mean`
# divides it among them. `max` gives all of it to the winner, and where several entries share the maximum, they
# share the gradient: `[1, 5, 5]` with `g = 10` gives `[0, 5, 5]`.
#
# A reduction over an axis has removed that axis. `restore_axes` puts it back as size 1, so that the result
# broadcasts against `x`; `np.broadcast_to(..., x.shape)` then stretches it without using memory.
# How many entries went into each mean? `x.size / y.size`.

# %% nbgrader={"grade_id": "restore-axes", "locked": true}
#| export
def restore_axes(g, axis, keepdims):
    """`g`, the gradient or result of a reduction, with the reduced dimensions back as size 1."""
    return g if keepdims or axis is None else np.expand_dims(g, axis)


# %% nbgrader={"grade_id": "reductions", "solution": true}
#| export
@vjp(np.sum)
def sum_vjp(g, y, x, axis, keepdims):
    """Every entry of x took part once."""
    ### BEGIN SOLUTION
    return (np.broadcast_to(restore_axes(g, axis, keepdims), x.shape),)
    ### END SOLUTION


@vjp(np.mean)
def mean_vjp(g, y, x, axis, keepdims):
    """As sum, divided by how many entries went into each mean."""
    ### BEGIN SOLUTION
    return (np.broadcast_to(restore_axes(g, axis, keepdims) * (y.size / x.size), x.shape),)
    ### END SOLUTION


@vjp(np.max)
def max_vjp(g, y, x, axis, keepdims):
    """The largest entry gets the gradient; ties share it equally."""
    ### BEGIN SOLUTION
    largest = x == restore_axes(y, axis, keepdims)
    shares = largest.sum(axis=axis, keepdims=True, dtype=x.dtype)
    return (restore_axes(g, axis, keepdims) * largest / shares,)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
x = Tensor([1.0, 5.0, 5.0], requires_grad=True)
for reduced in (x.sum(), x.mean(), x.max()):
    x.grad = None
    (reduced * 10.0).backward()
    print(np.round(x.grad.data, 3))

# %% nbgrader={"grade_id": "test-reductions", "grade": true, "points": 2}
x = np.random.default_rng(0).permutation(24).reshape(2, 3, 4) / 4  # no two entries are equal
for rule, primitive in ((sum_vjp, np.sum), (mean_vjp, np.mean), (max_vjp, np.max)):
    for axis, keepdims in ((None, False), (1, False), (1, True), (-1, False)):
        check_rule(rule, primitive, x, axis=axis, keepdims=keepdims)
shared = np.asarray(max_vjp(np.array(10.0), np.array(5.0), np.array([1.0, 5.0, 5.0]), None, False)[0])
assert shared.tolist() == [0, 5, 5], f"max_vjp of [1, 5, 5] with g = 10: expected [0, 5, 5], got {shared}"
### BEGIN HIDDEN TESTS
for rule, primitive in ((sum_vjp, np.sum), (mean_vjp, np.mean), (max_vjp, np.max)):
    for axis, keepdims in (((0, 2), False), ((0, 2), True), (None, True), (0, False)):
        check_rule(rule, primitive, x, axis=axis, keepdims=keepdims, seed=1)
x = np.array([[2.0, 2.0, 1.0], [0.0, 3.0, 3.0]])
shared = np.asarray(max_vjp(np.array([4.0, 6.0]), np.array([2.0, 3.0]), x, 1, False)[0])
assert shared.tolist() == [[2, 2, 0], [0, 3, 3]], f"max_vjp with ties in rows: expected shares, got {shared.tolist()}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: shape and indexing
#
# These move numbers and compute nothing, so their gradients move them back: `reshape` to the old shape, `permute` by
# the inverse order, `concatenate` by cutting into the old pieces.
#
# - The inverse of an order of axes is `np.argsort(axes)`. Axes may be negative: `i % g.ndim` makes each positive.
# - `np.split(g, places, axis)` cuts *at* places, so for pieces of lengths 2, 3, 4 it wants `[2, 5]`: `np.cumsum` of the
#   lengths without the last. It returns a list, with one gradient for each piece, as wanted.
# - Indexing reads some entries. Its gradient is zero, but for these entries. `dx[index] += g` looks right and is
#   wrong: with `index = [0, 0, 2]`, NumPy adds to entry 0 **once**. `np.add.at(dx, index, g)` adds each time. It is
#   slow, so a plain slice, which cannot name an entry twice, takes `dx[index] = g`.
#
# By hand: `x` has three entries, `y = x[[0, 0, 2]]`, `g = [1, 10, 100]`: the gradient is `[11, 0, 100]`.

# %% nbgrader={"grade_id": "shapes", "solution": true}
#| export
@vjp(np.reshape)
def reshape_vjp(g, y, x, shape):
    """Back to the old shape."""
    ### BEGIN SOLUTION
    return (g.reshape(x.shape),)
    ### END SOLUTION


@vjp(np.transpose)
def transpose_vjp(g, y, x, axes):
    """Back to the old order of dimensions; `axes` may be negative."""
    ### BEGIN SOLUTION
    return (g.transpose(np.argsort([i % g.ndim for i in axes])),)
    ### END SOLUTION


@vjp(concatenate_forward)
def concatenate_vjp(g, y, *arrays, axis):
    """Each array gets its piece of g: a list with one entry for each array."""
    ### BEGIN SOLUTION
    return np.split(g, np.cumsum([a.shape[axis] for a in arrays])[:-1], axis=axis)
    ### END SOLUTION


@vjp(operator.getitem)
def getitem_vjp(g, y, x, index):
    """Zeros like x, with g added where `index` read; an index array may name an entry twice."""
    parts = index if isinstance(index, tuple) else (index,)
    plain = all(p is None or p is Ellipsis or isinstance(p, int | slice) for p in parts)
    dx = np.zeros_like(x)
    ### BEGIN SOLUTION
    if plain:
        dx[index] = g
    else:
        np.add.at(dx, index, g)
    return dx, None
    ### END SOLUTION


# %% tags=["nbval-check-output"]
x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
x[[0, 0, 2]].backward([1, 10, 100])
print(x.grad)

# %% nbgrader={"grade_id": "test-shapes", "grade": true, "points": 2}
x = np.random.default_rng(0).standard_normal((2, 3, 4))
check_rule(reshape_vjp, np.reshape, x, shape=(4, -1))
check_rule(transpose_vjp, np.transpose, x, axes=[1, 2, 0])
check_rule(concatenate_vjp, concatenate_forward, x, x[:, :1], x[:, :2], axis=1)
for index in (1, slice(1, None), (slice(None), 0), (0, 2, 3), (Ellipsis, slice(None, None, 2)), (1, None)):
    check_rule(lambda g, y, a: getitem_vjp(g, y, a, index), lambda a: a[index], x)
got = np.asarray(getitem_vjp(np.array([1.0, 10.0, 100.0]), None, np.zeros(3), [0, 0, 2])[0])
assert got.tolist() == [11, 0, 100], f"getitem_vjp of x[[0, 0, 2]]: expected [11, 0, 100], got {got}"
### BEGIN HIDDEN TESTS
check_rule(reshape_vjp, np.reshape, x, shape=(24,), seed=1)
for axes in ([2, 0, 1], [0, 2, 1], [-1, 0, 1], [1, -1, 0]):
    check_rule(transpose_vjp, np.transpose, x, axes=axes, seed=2)
check_rule(concatenate_vjp, concatenate_forward, x, x[:1], axis=0, seed=3)
check_rule(concatenate_vjp, concatenate_forward, x, x[..., :2], x, axis=-1, seed=4)
for index in (np.array([[0, 1], [1, 1]]), (slice(None), np.array([2, 2, 0])), x > 0, (np.array([1, 0, 1]), 2)):
    check_rule(lambda g, y, a: getitem_vjp(g, y, a, index), lambda a: a[index], x, seed=5)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: activations
#
# - `relu` lets the gradient through where `x > 0`, and stops it elsewhere.
# - `sigmoid`: `y (1 - y)`. At `x = 0`, `y = 0.5`, that is 0.25: its steepest place.
# - `tanh`: `1 - y²`.
# - `softmax`: every output depends on every input, because they share one sum. Raising `xⱼ` raises `yⱼ` and lowers all
#   the others, and it comes out as `y · (g - Σ g·y)`, with the sum along the axis.
#
# By hand: `y = [0.5, 0.5]`, `g = [1, 0]`: the sum is 0.5, and the gradient `[0.25, -0.25]`. The entries add up to
# 0: moving all logits together changes nothing.

# %% nbgrader={"grade_id": "activations", "solution": true}
#| export
@vjp(relu_forward)
def relu_vjp(g, y, x):
    """1 where x > 0, else 0 (at 0 too, by convention)."""
    ### BEGIN SOLUTION
    return (g * (x > 0),)
    ### END SOLUTION


@vjp(sigmoid_forward)
def sigmoid_vjp(g, y, x):
    """y (1 - y)."""
    ### BEGIN SOLUTION
    return (g * y * (1 - y),)
    ### END SOLUTION


@vjp(np.tanh)
def tanh_vjp(g, y, x):
    """1 - y²."""
    ### BEGIN SOLUTION
    return (g * (1 - y * y),)
    ### END SOLUTION


@vjp(softmax_forward)
def softmax_vjp(g, y, x, axis):
    """y (g - sum of g y along the axis). With y = [0.5, 0.5], g = [1, 0]: [0.25, -0.25]."""
    ### BEGIN SOLUTION
    return (y * (g - (g * y).sum(axis=axis, keepdims=True)),)
    ### END SOLUTION


# %% nbgrader={"grade_id": "test-activations", "grade": true, "points": 2}
x = np.random.default_rng(0).standard_normal((3, 4)) * 2
check_rule(relu_vjp, relu_forward, x)
check_rule(sigmoid_vjp, sigmoid_forward, x)
check_rule(tanh_vjp, np.tanh, x)
check_rule(softmax_vjp, softmax_forward, x, axis=-1)
### BEGIN HIDDEN TESTS
x = np.random.default_rng(1).standard_normal((2, 3, 4))
check_rule(relu_vjp, relu_forward, x, seed=1)
check_rule(sigmoid_vjp, sigmoid_forward, x, seed=2)
check_rule(tanh_vjp, np.tanh, x, seed=3)
for axis in (0, 1, 2):
    check_rule(softmax_vjp, softmax_forward, x, axis=axis, seed=4)
corner = np.asarray(relu_vjp(np.array([3.0]), np.array([0.0]), np.array([0.0]))[0])
assert corner.tolist() == [0], f"relu_vjp at x = 0: expected 0, got {corner}"
### END HIDDEN TESTS

# %% [markdown]
# GELU is given. With `t = tanh(c (x + a x³))`, `c = √(2/π)`, `a = 0.044715`, its forward pass returned `y` and also `t`,
# and the derivative of `0.5 x (1 + t)` is `0.5 (1 + t) + 0.5 x (1 - t²) c (1 + 3 a x²)`. It runs in cache-sized blocks like
# the forward pass, and writes into `dx` step by step, so that no temporary arrays go to main memory.

# %% nbgrader={"grade_id": "gelu", "locked": true}
#| export
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


# %% [markdown]
# ### Exercise: losses
#
# Here `g` is a single number, the gradient of the loss.
#
# - `mse` is the mean of `(x - t)²` over all `x.size` entries: `2 (x - t) / x.size` for `x`, and its negative for `t`.
# - `bce` is the mean of `-(t log p + (1 - t) log(1 - p))`: `(p - t) / (p (1 - p))`, divided by `p.size`. At `p = 0` or `1` the
#   bottom is 0, so keep it at least `1e-12`, as PyTorch does. Targets get None: nobody trains them.
# - `log_softmax`: `g - exp(y) · Σ g`, the sum along the axis. Here `exp(y)` is the softmax.
# - `cross_entropy` is beautiful: the logits' gradient is **softmax minus target**, divided by the batch size B.
#   Its forward pass returned the loss and the log-probabilities, `out[1]` (B, C). With label smoothing `s` the target is
#   `1 - s` on the right class plus `s / C` everywhere.
#
# By hand: two classes, equal logits, the target is class 0, B = 1. Softmax is `[0.5, 0.5]`, the gradient `[-0.5, 0.5]`:
# push the right logit up and the wrong one down.

# %% nbgrader={"grade_id": "losses", "solution": true}
#| export
@vjp(mse_forward)
def mse_vjp(g, y, x, targets):
    """2 (x - targets) / x.size for x; the negative of that for the targets."""
    ### BEGIN SOLUTION
    d = g * 2 / x.size * (x - targets)
    return d, lambda: -d
    ### END SOLUTION


@vjp(bce_forward)
def bce_vjp(g, y, p, targets):
    """(p - targets) / (p (1 - p)) / p.size, the product kept at least 1e-12; None for the targets."""
    ### BEGIN SOLUTION
    return g * (p - targets) / np.maximum(p * (1 - p), 1e-12) / p.size, None
    ### END SOLUTION


@vjp(log_softmax_forward)
def log_softmax_vjp(g, y, x, axis):
    """g - softmax(x) times the sum of g along the axis."""
    ### BEGIN SOLUTION
    return (g - np.exp(y) * g.sum(axis=axis, keepdims=True),)
    ### END SOLUTION


@vjp(cross_entropy_forward)
def cross_entropy_vjp(g, out, logits, targets, smoothing):
    """(softmax - smoothed target) / B. Shapes: logits and out[1] (log-probabilities) (B, C), targets (B,)."""
    B, C = logits.shape
    ### BEGIN SOLUTION
    d = np.exp(out[1]) - smoothing / C
    d[np.arange(B), targets] -= 1 - smoothing
    return (d * (g / B),)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
from tinytorch.losses import CrossEntropyLoss

logits = Tensor([[1.0, 1.0]], requires_grad=True)
CrossEntropyLoss()(logits, [0]).backward()
print(logits.grad)

# %% nbgrader={"grade_id": "test-losses", "grade": true, "points": 2}
random = np.random.default_rng(0)
x, t, p = random.standard_normal((3, 4)), random.standard_normal((3, 4)), random.uniform(0.1, 0.9, (3, 4))
check_rule(mse_vjp, mse_forward, x, t)
check_rule(bce_vjp, bce_forward, p, (t > 0) * 1.0, inputs=[0])
check_rule(log_softmax_vjp, log_softmax_forward, x, axis=-1)
labels = np.array([0, 3, 2])
for s in (0.0, 0.2):
    check_rule(cross_entropy_vjp, cross_entropy_forward, x, targets=labels, smoothing=s)
### BEGIN HIDDEN TESTS
x, t = random.standard_normal((5, 3)), random.standard_normal((5, 3))
check_rule(mse_vjp, mse_forward, x, t, seed=1)
check_rule(bce_vjp, bce_forward, random.uniform(0.05, 0.95, 7), random.uniform(0, 1, 7), inputs=[0], seed=2)
check_rule(log_softmax_vjp, log_softmax_forward, x, axis=0, seed=3)
for s in (0.0, 0.3, 1.0):
    check_rule(cross_entropy_vjp, cross_entropy_forward, x, targets=np.array([2, 0, 0, 1, 2]), smoothing=s, seed=4)
edge = np.asarray(bce_vjp(1.0, None, np.array([0.0, 1.0]), np.array([0.0, 1.0]))[0])
assert np.all(edge == 0), f"bce_vjp at p = t = 0 and 1: expected 0 (keep the product at least 1e-12), got {edge}"
### END HIDDEN TESTS

# %% [markdown]
# ## 7. Gradcheck
#
# `slope` moves one entry at a time. For a layer with a thousand weights that is two thousand evaluations. There is
# a cheaper question with almost the same power: move **all** entries of an input at once along one random direction
# `d`, and see whether the result moves as the gradient says it must.
#
# - what backward says: the sum of `gradient · d`;
# - what happens: `(f(x + εd) - f(x - εd)) / 2ε`, weighted at the other end by random `weights`, one for each result.
#
# A wrong gradient would have to be wrong exactly at right angles to a random direction to slip through. The numbers
# are float64: in float32 the differences would drown in rounding.
#
# `directional_difference` is given. Write the comparison: run `function` on the inputs, call `y.backward(weights)`,
# then compare the two numbers for each input. An input whose `.grad` is still None has gradient 0. Where they differ
# by more than `tolerance * max(1, |a|, |b|)`, raise an AssertionError that shows **both** and says which input it was.
# NaN on one side is a difference too: write the test so that it fails for NaN.

# %% nbgrader={"grade_id": "directional-difference", "locked": true}
#| export
def directional_difference(function, inputs, k, direction, weights, eps):
    """(f(x + eps d) - f(x - eps d)) / (2 eps), x = inputs[k], d = direction; f: the results' weighted sum."""
    ends = []
    with no_grad():
        for step in (eps, -eps):
            moved = list(inputs)
            moved[k] = Tensor(inputs[k].data + step * direction, dtype=np.float64)
            ends.append(float((function(*moved).data * weights).sum()))
    return (ends[0] - ends[1]) / (2 * eps)


# %% nbgrader={"grade_id": "gradcheck", "solution": true}
#| export
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
        ### BEGIN SOLUTION
        numeric = directional_difference(function, inputs, k, direction, weights, eps)
        analytic = 0.0 if x.grad is None else float((x.grad.data * direction).sum())
        if not abs(numeric - analytic) <= tolerance * max(1, abs(numeric), abs(analytic)):
            raise AssertionError(
                f"gradcheck: input {k}: backward gives {analytic:.8g}, differences give {numeric:.8g}"
            )
        ### END SOLUTION
    return True


# %% tags=["nbval-check-output"]
from tinytorch.activations import gelu
from tinytorch.tensor import apply

print(gradcheck(gelu, [np.linspace(-3, 3, 50)]))

# %% nbgrader={"grade_id": "test-gradcheck", "grade": true, "points": 2}
from tinytorch.tensor import apply


def twice(x, y):
    return 2 * x + y


def verdict(rule, *inputs):
    """What gradcheck says of a rule for `twice`."""
    VJP[twice] = rule
    try:
        return "True" if gradcheck(lambda x, y: apply(twice, x, y), inputs) is True else "not True"
    except AssertionError as error:
        return f"AssertionError: {error}"
    finally:
        del VJP[twice]


x, y = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
got = verdict(lambda g, out, x, y: (2 * g, g), x, y)
assert got == "True", f"gradcheck of a right rule: expected True, got: {got}"
got = verdict(lambda g, out, x, y: (3 * g, g), x, y)
assert got.startswith("AssertionError") and "0" in got, f"gradcheck of a wrong rule for input 0: got: {got}"
got = verdict(lambda g, out, x, y: (2 * g, 1.01 * g), x, y)
assert got.startswith("AssertionError") and "1" in got, f"gradcheck of a rule 1% off for input 1: got: {got}"
### BEGIN HIDDEN TESTS
import re

got = verdict(lambda g, out, x, y: (4 * g, g), x, y)
numbers = [float(n) for n in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", got)]
assert any(np.isclose(a, 2 * b, rtol=1e-4) for a in numbers for b in numbers if b), (
    f"the message must show what backward gives and what differences give, got: {got}"
)
got = verdict(lambda g, out, x, y: (2 * g, np.nan * g), x, y)
assert got.startswith("AssertionError"), f"a gradient that is NaN must not pass, got: {got}"
got = verdict(lambda g, out, x, y: (2 * g * (1 + 1e-4), g), x, y)
assert got.startswith("AssertionError"), f"a gradient that is off by 1e-4 of its size must not pass, got: {got}"
assert gradcheck(lambda x, y: x * x, [x, y]) is True, "an input that is not used has the gradient 0"
assert gradcheck(lambda x: (x * 1e6) ** 2, [x]) is True, "the tolerance is relative for large numbers"
### END HIDDEN TESTS

# %% [markdown]
# Now check a whole network in one line: a layer, an activation, a second layer, a loss.

# %% tags=["nbval-check-output"]
from tinytorch.activations import relu

random = np.random.default_rng(0)
x, W, b, V = (random.standard_normal(shape) for shape in ((5, 4), (6, 4), (6,), (3, 6)))


def network(x, W, b, V):
    return CrossEntropyLoss(0.1)(relu(x @ W.T + b) @ V.T, [0, 2, 1, 1, 0])


print(gradcheck(network, [x, W, b, V]))

# %% [markdown]
# ## 8. What a graph costs
#
# Every recorded operation keeps its inputs and its result until the walk has passed. The next cell runs eight
# layers, 512 rows of 256 numbers each, and asks Python how much memory is still held when the loss is there: with
# recording, after `backward`, and under `no_grad`. Before you run it: one activation is 512 · 256 · 4 bytes, half a
# megabyte. How many of them does a layer `relu(x @ W + b)` make? What remains after `backward` are the gradients of the
# weights, 8 · 256 · 256 · 4 bytes.

# %% tags=["measure"]
import tracemalloc

random = np.random.default_rng(0)
x = Tensor(random.standard_normal((512, 256), np.float32))
weights = [Tensor(random.standard_normal((256, 256), np.float32) / 16, requires_grad=True) for _ in range(8)]
b = Tensor(np.zeros(256), requires_grad=True)


def forward():
    h = x
    for W in weights:
        h = relu(h @ W + b)
    return (h * h).mean()


def held():
    return f"{tracemalloc.get_traced_memory()[0] / 1e6:5.1f} MB"


tracemalloc.start()
with no_grad():
    loss = forward()
print("held by the result under no_grad:", held())
loss = forward()
print("held by a recorded result:       ", held())
loss.backward()
print("held after backward:             ", held())
tracemalloc.stop()

# %% [markdown]
# This is why a training step needs so much more memory than an answer, why the batch size is what you lower when
# memory runs out, and why `no_grad` belongs around every evaluation.
#
# ## 9. What breaks
#
# **A weight changed between forward and backward.** The rule of `*` would read the new weight and return a wrong
# gradient. The version count finds it:

# %% tags=["nbval-check-output"]
w = Tensor([1.0, 2.0], requires_grad=True)
loss = (w * w).sum()
w.data -= 0.1
try:
    loss.backward()
except RuntimeError as error:
    print(error)

# %% [markdown]
# **The same graph twice.** Its memory is already given back. Compute the result again:

# %% tags=["nbval-check-output"]
loss = (w * w).sum()
loss.backward()
try:
    loss.backward()
except RuntimeError as error:
    print(error)

# %% [markdown]
# **A change that nobody counted.** A write through a view is counted, because a view shares its source's count. But
# `numpy()` hands out the memory itself. What is written there goes unseen, and the gradient is wrong without a word.
# The true gradient of `w·w` at 3 is 6:

# %% tags=["nbval-check-output"]
w = Tensor([3.0], requires_grad=True)
loss = (w * w).sum()
w.numpy()[0] = 100.0
loss.backward()
print(w.grad)

# %% [markdown]
# ## 10. Exercises
#
# 1. Run a chain of 10,000 multiplications by 1.01 and look at the gradient of its start. What if the factor is 0.99?
#    This is what recurrent networks fight with.
# 2. Write a primitive `cube` and its rule with `@vjp`, and let `gradcheck` judge it. Then break the rule slightly. How
#    small an error does it still find?
# 3. `backward` uses `gradients[id(x)] + dx`. Try `+=` there, and find a graph of three operations whose gradient becomes
#    wrong.
# 4. Time `backward` against the forward pass for the eight layers of section 8. How many matrix products does each of
#    them do?
# 5. *Checkpointing*: run the eight layers under `no_grad` in two halves and keep only what lies between them. Then
#    repeat each half with recording when its gradient is needed. How much memory does that save, and how much time does it take?
#
# ## Elsewhere
#
# - **PyTorch** records in the same way, in C++, while the program runs, and counts versions as we do. It keeps only
#   what each rule asks for, and with `create_graph=True` it records the walk itself, so that gradients have gradients.
# - **JAX** has no recorder that is always on. `jax.grad(f)` calls `f` once with stand-ins, writes down the operations,
#   and returns a new function, which a compiler can then rewrite as a whole. In-place changes do not exist there.
# - Both call the entries of the table VJPs, and both let you add your own (`torch.autograd.Function`, `jax.custom_vjp`).
#
# ## Summary
#
# - A gradient rule knows one primitive: `g` comes in, one gradient for each input goes out.
# - The recorder notes what ran; the walk visits users before inputs, adds where paths meet, and sums where
#   broadcasting stretched.
# - Time: about that of the forward pass, for any number of weights. Memory: everything the rules want to see again.
# - A gradient is a claim about small changes. `gradcheck` makes them.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/autograd.py`;
# `tito module complete 05` in a terminal does the same.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
