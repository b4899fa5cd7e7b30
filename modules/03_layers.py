# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 03 Layers
#
# > Modules: functions with parameters, and the files that keep them.
#
# A network is a function with numbers inside that training changes. Everything around it has to find those
# numbers: the optimizer to change them, the file to keep them, the report to count them. In this lesson you
# build the class that finds them by itself, `Module`; the layers `Linear`, `Dropout`, `Flatten` and
# `Sequential`; and `save` and `load`, for files that hold a whole model and can do no harm.
#
# **Why it matters to a system.** A parameter that is not found is not trained and not saved, and nothing
# complains. A model file that is a program in disguise gives its author your machine. "What breaks" shows
# both.
#
# **You need** lessons 01 (`Tensor`) and 02 (activations). Gradients do not exist yet: they come in lesson 05.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 03

# %%
#| export
import ast
import importlib.util
import json
import math
import os
import pickletools
import sys
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import tinytorch
from tinytorch.tensor import Tensor, default_rng

# %% nbgrader={"grade_id": "tools", "locked": true}
import pickle
import tempfile

from tinytorch.activations import ReLU, Softmax, relu
from tinytorch.tensor import manual_seed

manual_seed(0)

# %% nbgrader={"grade_id": "attempt", "locked": true}
storage = tempfile.TemporaryDirectory()  # for the files of this notebook; goes when the kernel stops
folder = Path(storage.name)


def attempt(function, *args, **kwargs):
    """Call `function` and print the error that it raises, on one line and without the name of the folder."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        print(f"{type(error).__name__}: {str(error).replace(str(folder), 'folder')}")
    else:
        print("no error")


# %% [markdown]
# ## 1. Module: what a class knows about its attributes
#
# A layer keeps its numbers in ordinary attributes. What each one is can be read off its value:
#
# | the attribute is | it is called | example |
# |---|---|---|
# | a `Tensor` with `requires_grad=True` | parameter: the optimizer changes it | a weight |
# | any other `Tensor` | buffer: saved, but not trained | a running mean |
# | a `Module` | child: has parameters of its own | a layer in a network |
# | a list or tuple | looked into, entry by entry | a list of layers |
# | anything else | left alone | a probability, a name |
#
# Python keeps the attributes of an object in a dict, `vars(object)`, in the order in which they were
# assigned. So no registration is needed: to find the parameters is to read that dict.
#
# `__new__` runs before `__init__`. Here it notes the arguments, so that a file can say later how to build the
# same module again. `training` is a class attribute: every module starts with it and may get its own.
#
# `module(x)` goes through `__call__`, which only calls `forward`. The detour is a seam: lesson 14 plugs a stopwatch in
# there.


# %%
#| export
_caller = None


def set_caller(call):
    """Lesson 14 plugs in here: `call(module, args, kwargs)` runs every module and returns its result.

    None, as at the start, calls `forward` directly. Returns the caller before, to put it back.
    """
    global _caller
    before, _caller = _caller, call
    return before


class Module:
    """A function with parameters: a subclass makes its parts in `__init__` and computes in `forward`.

    Among the attributes, tensors with `requires_grad` are parameters, other tensors are buffers, modules are
    children; lists and tuples of them are looked into. All are found by name, in the order of assignment.
    `training` says whether the module is being trained; `train` and `eval` set it.
    """

    training = True

    def __new__(cls, *args, **kwargs):
        module = super().__new__(cls)
        module._arguments = (args, kwargs)  # how to build it again: `save` writes this to the file
        return module

    def forward(self, x):
        """Compute the result; every subclass writes its own. Raises NotImplementedError here."""
        raise NotImplementedError(f"{type(self).__name__} has no forward method: write one")

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs) if _caller is None else _caller(self, args, kwargs)

    def _attributes(self):
        """Names and values of all attributes; an entry i of a list `name` is called `name.i`."""
        for name, value in vars(self).items():
            if name == "_arguments":
                continue
            if isinstance(value, (list, tuple)):
                yield from ((f"{name}.{i}", entry) for i, entry in enumerate(value))
            else:
                yield name, value

    def __repr__(self):
        parts = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        return "\n".join([f"{type(self).__name__}(", *parts, ")"]) if parts else f"{type(self).__name__}()"


# %% [markdown]
# `_attributes` is the one place that reads `vars`. A small module by hand shows what comes out of it.

# %% tags=["nbval-check-output"]
m = Module()
m.weight = Tensor([1.0, 2.0], requires_grad=True)
m.scale = 3
m.parts = [Module(), Module()]
[name for name, _ in m._attributes()]

# %% [markdown]
# ### Exercise: the children
#
# Write `named_children`: of all attributes, only those whose value is a `Module`. For `m` above the names are
# `parts.0` and `parts.1`. (`class Module(Module):` goes on with the class above; the package gets one class.)


# %% nbgrader={"grade_id": "named-children", "solution": true}
#| export
class Module(Module):
    def named_children(self):
        """Yield (name, module) for every module directly inside this one, in the order of assignment."""
        ### BEGIN SOLUTION
        for name, value in self._attributes():
            if isinstance(value, Module):
                yield name, value
        ### END SOLUTION


# %% tags=["nbval-check-output"]
m = Module()  # a new one: the old m is of the class without this method
m.parts = [Module(), Module()]
[name for name, _ in m.named_children()]

# %% nbgrader={"grade_id": "test-named-children", "grade": true, "points": 2}
outer, first, second = Module(), Module(), Module()
outer.body, outer.width, outer.heads = first, 3, [second, "text", Module()]
outer.weight = Tensor([1.0], requires_grad=True)
got = [name for name, _ in outer.named_children()]
assert got == ["body", "heads.0", "heads.2"], (
    f"expected body, heads.0, heads.2, got {got}: look at named_children"
)
assert dict(outer.named_children())["body"] is first, "expected the module itself: yield name, value"
### BEGIN HIDDEN TESTS
alone = Module()
assert list(alone.named_children()) == [], "expected no children in an empty module: look at named_children"
alone.inner = (first,)
first.deep = second
got = [name for name, _ in alone.named_children()]
assert got == ["inner.0"], f"expected inner.0 only (children, not grandchildren), got {got}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: all modules
#
# A network is a tree of modules. `modules` walks it: first this module, then, for each child, everything that
# `child.modules()` yields. Two lines and a loop; `yield from` hands on what another generator yields.


# %% nbgrader={"grade_id": "modules", "solution": true}
#| export
class Module(Module):
    def modules(self):
        """Yield this module and all modules inside it, parents before children."""
        ### BEGIN SOLUTION
        yield self
        for _, child in self.named_children():
            yield from child.modules()
        ### END SOLUTION


# %% tags=["nbval-check-output"]
net = Module()
net.body, net.head = Module(), Module()
len(list(net.modules()))

# %% nbgrader={"grade_id": "test-modules", "grade": true, "points": 1}
root, left, right, leaf = Module(), Module(), Module(), Module()
left.leaf = leaf
root.left, root.right = left, right
got = [id(module) for module in root.modules()]
expected = [id(module) for module in (root, left, leaf, right)]
names = {id(root): "root", id(left): "left", id(right): "right", id(leaf): "leaf"}
assert got == expected, (
    f"expected root, left, leaf, right in this order, got {[names.get(i, i) for i in got]}: "
    "yield self first, then go into each child"
)

# %% [markdown]
# ### Exercise: all tensors, with dotted names
#
# A name tells where a tensor lives: `body.0.weight` is the `weight` of entry 0 of `body`. Own tensors come
# first, then those of the children with the child's name and a dot in front:
#
#     root                      scale
#      └─ body[0]               body.0.weight
#                               body.0.bias


# %% nbgrader={"grade_id": "named-tensors", "solution": true}
#| export
class Module(Module):
    def named_tensors(self, prefix=""):
        """Yield (name, tensor) for every parameter and buffer: own ones first, then those of the children.

        `prefix` is put before every name; a child's names get the child's name and a dot.
        """
        ### BEGIN SOLUTION
        for name, value in self._attributes():
            if isinstance(value, Tensor):
                yield prefix + name, value
        for name, child in self.named_children():
            yield from child.named_tensors(f"{prefix}{name}.")
        ### END SOLUTION


# %% tags=["nbval-check-output"]
net = Module()
net.body, net.scale = [Module()], Tensor([2.0])
net.body[0].weight = Tensor([[3.0, 4.0]], requires_grad=True)
[name for name, _ in net.named_tensors()]

# %% nbgrader={"grade_id": "test-named-tensors", "grade": true, "points": 2}
root, body = Module(), Module()
body.weight, body.mean = Tensor([[1.0, 2.0]], requires_grad=True), Tensor([5.0])
root.body, root.scale = [body], Tensor([3.0], requires_grad=True)
got = {name: np.asarray(t).tolist() for name, t in root.named_tensors()}
expected = {"scale": [3.0], "body.0.weight": [[1.0, 2.0]], "body.0.mean": [5.0]}
assert got == expected, f"expected {expected}, got {got}: look at named_tensors"
assert list(got) == list(expected), f"expected own tensors first, then the children's, got {list(got)}"
### BEGIN HIDDEN TESTS
top = Module()
top.net = root
got = [name for name, _ in top.named_tensors()]
expected = ["net.scale", "net.body.0.weight", "net.body.0.mean"]
assert got == expected, f"expected {expected}, got {got}: hand the prefix on to the children"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: the parameters
#
# Of those, the parameters are the tensors with `requires_grad`. One more thing counts: a network may use the
# same tensor in two places (language models share one table between input and output). It has two names, but
# it must be listed once, or the optimizer would step it twice.


# %% nbgrader={"grade_id": "parameters", "solution": true}
#| export
class Module(Module):
    def named_parameters(self):
        """Yield (name, parameter); a tensor that has several names comes once, under its first."""
        ### BEGIN SOLUTION
        seen = set()
        for name, t in self.named_tensors():
            if t.requires_grad and id(t) not in seen:
                seen.add(id(t))
                yield name, t
        ### END SOLUTION

    def parameters(self):
        """The list of tensors that an optimizer changes."""
        ### BEGIN SOLUTION
        return [t for _, t in self.named_parameters()]
        ### END SOLUTION

    def zero_grad(self):
        """Forget all gradients, before the next ones are computed."""
        for p in self.parameters():
            p.grad = None


# %% tags=["nbval-check-output"]
net = Module()
net.weight, net.mean = Tensor([[3.0, 4.0]], requires_grad=True), Tensor([0.0])
net.tied = net.weight
[name for name, _ in net.named_parameters()]

# %% nbgrader={"grade_id": "test-parameters", "grade": true, "points": 2}
root, body = Module(), Module()
body.weight, body.mean = Tensor([[1.0, 2.0]], requires_grad=True), Tensor([5.0])
root.body, root.scale = body, Tensor([3.0], requires_grad=True)
got = [name for name, _ in root.named_parameters()]
assert got == ["scale", "body.weight"], f"expected scale and body.weight (mean is a buffer), got {got}"
got = sum(np.asarray(p).size for p in root.parameters())
assert got == 3, f"expected 3 numbers to train, got {got}: look at parameters"
root.again = root.scale
got = len(root.parameters())
assert got == 2, f"expected a shared tensor once, 2 parameters in all, got {got}"
### BEGIN HIDDEN TESTS
twins = Module()
twins.a, twins.b = Tensor([1.0], requires_grad=True), Tensor([1.0], requires_grad=True)
got = len(twins.parameters())
assert got == 2, (
    f"expected 2: equal numbers in two tensors are still two parameters, got {got}; compare with `is` or id"
)
other = Module()
other.twins, other.c = [twins, twins], twins.a
got = [name for name, _ in other.named_parameters()]
assert got == ["c", "twins.0.b"], (
    f"expected c and twins.0.b, got {got}: each tensor once, under its first name"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. State: out to arrays and back
#
# `state_dict` is the module's memory as plain arrays by name: parameters and buffers. It is what goes into a
# file. `load_state_dict` puts such a dict back. Names and shapes must agree *exactly*, and all are checked
# before the first array is copied: a module is never left half old, half new.
#
# ### Exercise: state_dict
#
# A dict with an entry for every name of `named_tensors`. A tensor `t` keeps its array in `t.data`.


# %% nbgrader={"grade_id": "state-dict", "solution": true}
#| export
class Module(Module):
    def state_dict(self):
        """Every parameter and buffer as an array, by name. The arrays are the module's own, not copies."""
        ### BEGIN SOLUTION
        return {name: t.data for name, t in self.named_tensors()}
        ### END SOLUTION


# %% tags=["nbval-check-output"]
net = Module()
net.weight, net.mean = Tensor([[3.0, 4.0]], requires_grad=True), Tensor([0.0])
net.state_dict()

# %% nbgrader={"grade_id": "test-state-dict", "grade": true, "points": 1}
root = Module()
root.weight, root.mean, root.width = Tensor([[1.0, 2.0]], requires_grad=True), Tensor([5.0]), 7
got = {name: np.asarray(a).tolist() for name, a in root.state_dict().items()}
assert got == {"weight": [[1.0, 2.0]], "mean": [5.0]}, (
    f"expected weight and mean, got {got}: look at state_dict"
)
kinds = {type(a).__name__ for a in root.state_dict().values()}
assert kinds == {"ndarray"}, f"expected NumPy arrays, got {kinds}: a tensor keeps its array in .data"

# %% [markdown]
# ### Exercise: load_state_dict
#
# The order of work: compare the names (`own.keys() - state.keys()` are missing, the other way round not
# expected); compare all shapes; then copy. Setting `t.data` keeps the tensor itself, so that an optimizer
# that holds it still holds the right one. Copy with the tensor's own dtype: `np.array(a, dtype=t.dtype)`.


# %% nbgrader={"grade_id": "load-state-dict", "solution": true}
#| export
class Module(Module):
    def load_state_dict(self, state):
        """Copy the arrays of `state`, by name, into this module's parameters and buffers.

        Raises KeyError where the names differ, with the lists of missing and unexpected ones, and ValueError
        where a shape differs; the module is then unchanged.
        """
        own = dict(self.named_tensors())
        ### BEGIN SOLUTION
        missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unknown:
            raise KeyError(f"load_state_dict: missing {missing}, not expected {unknown}")
        for name, t in own.items():
            if t.shape != np.shape(state[name]):
                raise ValueError(f"load_state_dict: {name} has shape {t.shape}, got {np.shape(state[name])}")
        for name, t in own.items():
            t.data = np.array(state[name], dtype=t.dtype)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
net = Module()
net.weight = Tensor([3.0, 4.0], requires_grad=True)
net.load_state_dict({"weight": np.array([5, 6])})
net.weight

# %% tags=["nbval-check-output"]
attempt(net.load_state_dict, {"wait": np.array([5, 6])})
attempt(net.load_state_dict, {"weight": np.array([5, 6, 7])})

# %% nbgrader={"grade_id": "test-load-state-dict", "grade": true, "points": 3}
root = Module()
root.a, root.b = Tensor([1.0, 2.0], requires_grad=True), Tensor([[0.0]])
kept, state = root.a, {"a": np.array([3.0, 4.0]), "b": np.array([[9.0]])}
root.load_state_dict(state)
got = np.asarray(root.a).tolist() + np.asarray(root.b).ravel().tolist()
assert got == [3.0, 4.0, 9.0], f"expected 3, 4, 9 in the module, got {got}"
assert root.a is kept, "expected the same tensor with new data: set t.data, do not make a new Tensor"
problem = ""
try:
    root.load_state_dict({"a": state["a"], "c": state["b"]})
except KeyError as error:
    problem = str(error)
assert "b" in problem and "c" in problem, f"expected a KeyError that names b (missing) and c, got {problem!r}"
### BEGIN HIDDEN TESTS
state["a"][0] = 100
got = float(np.asarray(root.a)[0])
assert got == 3, f"expected 3: the module must hold a copy, but it changed with the dict, to {got}"
dtype = str(np.asarray(root.a).dtype)
assert dtype == "float32", f"expected the tensor's own float32 after loading float64, got {dtype}"
problem = ""
try:
    root.load_state_dict({"a": np.array([7.0, 7.0]), "b": np.array([1.0])})
except ValueError as error:
    problem = str(error)
assert "b" in problem and "(1, 1)" in problem and "(1,)" in problem, (
    f"expected a ValueError with the name b and the shapes (1, 1) and (1,), got {problem!r}"
)
got = np.asarray(root.a).tolist()
assert got == [3.0, 4.0], (
    f"expected nothing changed after an error, got {got}: check all shapes before copying"
)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: train and eval
#
# Some layers behave differently while training; dropout is one, below. `train(mode)` sets `training` on this
# module and on every module inside it, and returns the module, so that `model = Net().eval()` works.


# %% nbgrader={"grade_id": "train", "solution": true}
#| export
class Module(Module):
    def train(self, mode=True):
        """Set `training` to `mode` on this module and all modules inside it; returns this module."""
        ### BEGIN SOLUTION
        for module in self.modules():
            module.training = mode
        return self
        ### END SOLUTION

    def eval(self):
        """Switch to evaluation: the same as `train(False)`."""
        return self.train(False)


# %% tags=["nbval-check-output"]
net = Module()
net.body = Module()
net.eval()
print(net.training, net.body.training)

# %% nbgrader={"grade_id": "test-train", "grade": true, "points": 2}
root, middle, leaf = Module(), Module(), Module()
middle.inner, root.parts = leaf, [middle]
assert root.eval() is root, "expected train and eval to return the module itself"
got = [bool(module.training) for module in (root, middle, leaf)]
assert got == [False, False, False], f"expected all three in evaluation, got {got}: go through self.modules()"
got = bool(Module().training)
assert got, "expected a new module to be in training mode: set the attribute of the module, not of the class"
root.train()
got = [bool(module.training) for module in (root, middle, leaf)]
assert got == [True, True, True], f"expected all three in training again, got {got}"

# %% [markdown]
# ## 3. Linear
#
# The layer that does most of the arithmetic: every output is a weighted sum of all inputs, plus a bias.
# With one row `x = [1, 2]`, and two outputs:
#
#     weight = [[1, 0],      y = [1*1 + 2*0, 1*3 + 2*1] + [10, 20]
#               [3, 1]]        = [1, 5] + [10, 20] = [11, 25]
#     bias   = [10, 20]
#
# A row of `weight` belongs to one output: its shape is (out_features, in_features), as in PyTorch, and
# `y = x @ weight.T + bias`.
#
# ### Exercise: how it starts
#
# All weights equal would make all outputs equal, for ever; too large, and the numbers grow from layer to
# layer. Draw both uniformly from ±1/sqrt(in_features), as PyTorch does: the sum over `in_features` terms
# then stays of the size of one term. `uniform` draws a parameter.


# %%
#| export
def uniform(bound, *shape):
    """A parameter of this shape, drawn uniformly from ±bound with the package's generator."""
    return Tensor(default_rng().uniform(-bound, bound, shape), requires_grad=True)


# %% tags=["nbval-check-output"]
w = uniform(0.5, 1000, 10)
print(w.shape, w.requires_grad, round(float(np.abs(w.numpy()).max()), 2))


# %% nbgrader={"grade_id": "linear-init", "solution": true}
#| export
class Linear(Module):
    """y = x Wᵀ + b.

    Shapes: x (..., B, in_features), weight (out_features, in_features), y (..., B, out_features).
    Weight and bias start uniform in ±1/sqrt(in_features), as in PyTorch. Raises ValueError for sizes that are
    not whole numbers above zero.
    """

    def __init__(self, in_features, out_features, bias=True):
        """Make `self.weight` and `self.bias`, in this order; `self.bias` is None without one."""
        for size in (in_features, out_features):
            if not isinstance(size, (int, np.integer)) or size < 1:
                raise ValueError(
                    f"Linear: expected whole numbers above 0 as sizes, got {in_features}, {out_features}"
                )
        ### BEGIN SOLUTION
        bound = 1 / math.sqrt(in_features)
        self.weight = uniform(bound, out_features, in_features)
        self.bias = uniform(bound, out_features) if bias else None
        ### END SOLUTION

    def __repr__(self):
        return f"Linear({self.weight.shape[1]}, {self.weight.shape[0]}, bias={self.bias is not None})"


# %% tags=["nbval-check-output"]
manual_seed(0)
layer = Linear(3, 2)
print(layer, layer.weight.shape, layer.bias.shape)

# %% tags=["nbval-check-output"]
attempt(Linear, 0, 2)
attempt(Linear, 3, 2.5)

# %% nbgrader={"grade_id": "test-linear-init", "grade": true, "points": 3}
layer = Linear(400, 100)
got = {name: np.asarray(a) for name, a in layer.state_dict().items()}
shapes = {name: a.shape for name, a in got.items()}
assert shapes == {"weight": (100, 400), "bias": (100,)}, (
    f"expected weight (100, 400) and bias (100,), got {shapes}"
)
largest = float(np.abs(got["weight"]).max())
assert 0.049 < largest <= 0.05001, f"expected weights up to 1/sqrt(400) = 0.05, the largest is {largest:.4f}"
spread = float(got["weight"].std())
assert abs(spread - 0.05 / 3**0.5) < 5e-4, (
    f"expected a uniform spread of 0.05/sqrt(3) = 0.0289, got {spread:.4f}"
)
names = [name for name, _ in Linear(3, 2, bias=False).named_parameters()]
assert names == ["weight"], f"expected only a weight with bias=False, got {names}"
### BEGIN HIDDEN TESTS
largest = float(np.abs(got["bias"]).max())
assert 0.04 < largest <= 0.05001, (
    f"expected the bias in ±0.05 too (in_features counts), the largest is {largest:.4f}"
)
assert abs(float(got["weight"].mean())) < 1e-3, "expected weights around 0, half of them negative"
wide = Linear(4, 900)
largest = float(np.abs(np.asarray(wide.weight)).max())
assert 0.49 < largest <= 0.5001, f"expected weights up to 1/sqrt(4) = 0.5, the largest is {largest:.4f}"
again = np.asarray(Linear(4, 900).weight)
assert not np.array_equal(again, np.asarray(wide.weight)), "expected other numbers in another layer"
names = [name for name, _ in wide.named_parameters()]
assert names == ["weight", "bias"], f"expected weight and bias as parameters, got {names}: use uniform"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: how it computes
#
# First the check: the last size of `x` must be `in_features`, and there must be at least two dimensions. The
# message of the ValueError names the shape expected and the shape that came. Then `x @ self.weight.T`, and
# the bias if there is one. For the example above the answer is [[11, 25]].
#
# Where x has more than two dimensions, NumPy multiplies one small matrix after the other. Give `x` the shape
# (all rows, in_features) first and the result its leading dimensions back: one large product is faster.


# %% nbgrader={"grade_id": "linear-forward", "solution": true}
#| export
class Linear(Linear):
    def forward(self, x):
        """x (..., B, in_features) -> (..., B, out_features). Raises ValueError for any other shape of x."""
        in_features = self.weight.shape[1]
        ### BEGIN SOLUTION
        if x.ndim < 2 or x.shape[-1] != in_features:
            raise ValueError(f"Linear: expected an input of shape (..., B, {in_features}), got {x.shape}")
        lead, x = x.shape[:-1], x.reshape(-1, in_features)  # one large product, not one for each matrix
        y = x @ self.weight.T
        y = y if self.bias is None else y + self.bias
        return y.reshape(*lead, self.weight.shape[0])
        ### END SOLUTION


# %% tags=["nbval-check-output"]
layer = Linear(2, 2)
layer.load_state_dict({"weight": np.array([[1, 0], [3, 1]]), "bias": np.array([10, 20])})
print(layer, layer(Tensor([[1, 2]])))

# %% tags=["nbval-check-output"]
attempt(layer, Tensor(np.zeros((5, 4))))
attempt(layer, Tensor([1, 2]))

# %% nbgrader={"grade_id": "test-linear-forward", "grade": true, "points": 3}
rng = np.random.default_rng(1)
for B, n, m in ((1, 3, 2), (5, 4, 6)):
    x, w, b = rng.standard_normal((B, n)), rng.standard_normal((m, n)), rng.standard_normal(m)
    layer = Linear(n, m)
    layer.load_state_dict({"weight": w, "bias": b})
    naive = [[float(sum(x[i, k] * w[j, k] for k in range(n)) + b[j]) for j in range(m)] for i in range(B)]
    got = np.asarray(layer(Tensor(x)))
    assert got.shape == (B, m), f"expected shape {(B, m)}, got {got.shape}: look at Linear.forward"
    assert np.allclose(got, naive, atol=1e-5), (
        f"expected x Wᵀ + b = {naive[0]}, got {got[0]}: look at Linear.forward"
    )
problem = ""
try:
    Linear(3, 2)(Tensor(np.zeros((5, 4))))
except ValueError as error:
    problem = str(error)
assert "3" in problem and "(5, 4)" in problem, (
    f"expected a ValueError with 3 and (5, 4) in it, got {problem!r}"
)
### BEGIN HIDDEN TESTS
layer = Linear(3, 3, bias=False)
w, x = rng.standard_normal((3, 3)), rng.standard_normal((2, 4, 3))
layer.load_state_dict({"weight": w})
got = np.asarray(layer(Tensor(x)))
expected = np.einsum("bti,oi->bto", x, w)
assert np.allclose(got, expected, atol=1e-5), (
    f"x (2, 4, 3), weight (3, 3): expected {expected[0, 0]} first, got {got[0, 0]}: is the weight transposed?"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Dropout, Flatten, Sequential
#
# **Dropout** (Srivastava et al., 2014) sets each number to zero with probability `p` while training, so that
# no output can lean on a single input. The rest is multiplied by 1 / (1 - p): with p = 0.5, half of the
# numbers stay and count double, and the average is the same as without. In evaluation nothing happens at
# all.
#
# ### Exercise: Dropout
#
# Draw one random number in [0, 1) for each element: `default_rng().random(x.shape, np.float32)`; those that
# are at least `p` keep their element. Make the mask an array of the dtype of `x`; a tensor times an array is
# a tensor.


# %% nbgrader={"grade_id": "dropout", "solution": true}
#| export
class Dropout(Module):
    """While training, zero each element with probability `p` and scale the rest by 1 / (1 - p).

    Raises ValueError for a `p` outside [0, 1).
    """

    def __init__(self, p=0.5):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: expected a probability in [0, 1), got {p}")
        self.p = p

    def forward(self, x):
        """x of any shape -> the same shape; x itself in evaluation mode or with p = 0."""
        ### BEGIN SOLUTION
        if not self.training or self.p == 0:
            return x
        keep = default_rng().random(x.shape, np.float32) >= self.p
        return x * (keep.astype(x.dtype) / (1 - self.p))
        ### END SOLUTION

    def __repr__(self):
        return f"Dropout({self.p})"


# %% tags=["nbval-check-output"]
manual_seed(0)
x = Tensor([[1, 2, 3, 4, 5, 6]])
Dropout(0.5)(x)

# %% [markdown]
# Zeros and doubles; on average a one stays a one. In evaluation everything passes.

# %% tags=["nbval-check-output"]
round(float(Dropout(0.5)(Tensor(np.ones((1000, 1000)))).mean()), 2)

# %% tags=["nbval-check-output"]
Dropout(0.5).eval()(x)

# %% tags=["nbval-check-output"]
attempt(Dropout, 1.5)

# %% nbgrader={"grade_id": "test-dropout", "grade": true, "points": 3}
x = np.random.default_rng(2).uniform(1, 2, (200, 300)).astype(np.float32)
for p in (0.2, 0.7):
    layer = Dropout(p)
    y = np.asarray(layer(Tensor(x)))
    share = float(np.mean(y == 0))
    assert abs(share - p) < 0.02, f"expected a share of {p} zeros, got {share:.3f}: look at the comparison"
    kept = y != 0
    factor = float(np.mean(y[kept] / x[kept]))
    assert np.allclose(y[kept], x[kept] / (1 - p), rtol=1e-5), (
        f"p = {p}: expected the rest times 1 / (1 - p) = {1 / (1 - p):.4f}, got times {factor:.4f} on average"
    )
    assert np.array_equal(np.asarray(layer.eval()(Tensor(x))), x), "expected x unchanged in evaluation"
### BEGIN HIDDEN TESTS
layer = Dropout(0.5)
one, two = np.asarray(layer(Tensor(x))), np.asarray(layer(Tensor(x)))
assert not np.array_equal(one == 0, two == 0), "expected another mask at every call"
for axis in (0, 1):
    assert not (one == 0).all(axis=axis).any(), (
        "expected a random number for each element, not for a row or column"
    )
assert np.array_equal(np.asarray(Dropout(0.0)(Tensor(x))), x), "expected x unchanged for p = 0"
dtype = str(np.asarray(layer(Tensor(x, dtype=np.float64))).dtype)
assert dtype == "float64", f"expected float64 in, float64 out, got {dtype}: give the mask the dtype of x"
### END HIDDEN TESTS

# %% [markdown]
# **Flatten** turns a batch of images (N, C, H, W) into a batch of rows (N, C*H*W), for a `Linear` to read.
#
# ### Exercise: Flatten
#
# Keep N, and join the rest with `x.reshape`. Compute the product (`math.prod`): for an empty batch, N = 0, a
# -1 cannot be worked out.


# %% nbgrader={"grade_id": "flatten", "solution": true}
#| export
class Flatten(Module):
    """(N, ...) -> (N, product of the rest)."""

    def forward(self, x):
        """Keep the first dimension and join all others; N may be 0."""
        ### BEGIN SOLUTION
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))
        ### END SOLUTION


# %% tags=["nbval-check-output"]
Flatten()(Tensor(np.zeros((2, 3, 4, 4)))).shape

# %% nbgrader={"grade_id": "test-flatten", "grade": true, "points": 1}
for shape in ((2, 3, 4, 5), (3, 7), (1, 2, 2)):
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    got = np.asarray(Flatten()(Tensor(x)))
    expected = np.stack([row.ravel() for row in x])
    assert np.array_equal(got, expected), (
        f"{shape}: expected shape {expected.shape}, got {got.shape}; one row for each example"
    )
### BEGIN HIDDEN TESTS
got = np.asarray(Flatten()(Tensor(np.zeros((0, 3, 2))))).shape
assert got == (0, 6), (
    f"expected (0, 6) for an empty batch (0, 3, 2), got {got}: compute the product, -1 cannot know"
)
### END HIDDEN TESTS

# %% [markdown]
# **Sequential** calls its layers one after the other. A layer may be a module or anything that takes a tensor
# and returns one, such as the activations of lesson 02.
#
# ### Exercise: Sequential


# %% nbgrader={"grade_id": "sequential", "solution": true}
#| export
class Sequential(Module):
    """Modules and activations, one after the other: `Sequential(Linear(4, 8), ReLU(), Linear(8, 2))`."""

    def __init__(self, *layers):
        self.layers = list(layers)

    def forward(self, x):
        """What the last layer returns, when each gets the result of the one before."""
        ### BEGIN SOLUTION
        for layer in self.layers:
            x = layer(x)
        return x
        ### END SOLUTION

    def __len__(self):
        return len(self.layers)

    def __getitem__(self, i):
        return self.layers[i]

    def __repr__(self):
        rows = [f"  ({i}): " + repr(layer).replace("\n", "\n  ") for i, layer in enumerate(self.layers)]
        return "\n".join(["Sequential(", *rows, ")"])


# %% tags=["nbval-check-output"]
double_twice = Sequential(lambda x: x * 2, lambda x: x * 2)
double_twice(Tensor([[1.0, 5.0]]))

# %% nbgrader={"grade_id": "test-sequential", "grade": true, "points": 1}
steps = [lambda t: t + 1, lambda t: t * 2, lambda t: t - 3]
x = np.array([[1.0, -2.0]])
got = np.asarray(Sequential(*steps)(Tensor(x)))
assert np.allclose(got, (x + 1) * 2 - 3), (
    f"expected {(x + 1) * 2 - 3}, got {got}: each layer in turn, first to last"
)
got = np.asarray(Sequential()(Tensor(x)))
assert np.allclose(got, x), f"expected x itself without layers, got {got}"

# %% [markdown]
# ### A network
#
# Now the parts come together, and nothing had to be registered anywhere.

# %% tags=["nbval-check-output"]
manual_seed(0)
net = Sequential(Flatten(), Linear(48, 16), ReLU(), Dropout(0.1), Linear(16, 10)).eval()
net

# %% tags=["nbval-check-output"]
print(net(Tensor(np.ones((2, 3, 4, 4)))).shape)
for name, p in net.named_parameters():
    print(name, p.shape, p.numel())
print("in all", sum(p.numel() for p in net.parameters()))

# %% [markdown]
# ## 5. Slow against fast
#
# `Linear` is one matrix product. The same sum as Python loops is easier to read and gives the same numbers;
# look at what the loops cost.


# %%
def linear_slow(x, w, b):
    """x (B, n), w (m, n), b (m,) -> (B, m), one multiplication at a time."""
    y = np.zeros((len(x), len(w)), np.float32)
    for i, row in enumerate(x):
        for j, weights in enumerate(w):
            y[i, j] = sum(r * v for r, v in zip(row, weights, strict=True)) + b[j]
    return y


# %%
x = np.random.default_rng(0).standard_normal((20, 64)).astype(np.float32)
layer = Linear(64, 32)
slow = linear_slow(x, layer.weight.numpy(), layer.bias.numpy())
assert np.allclose(slow, layer(Tensor(x)).numpy(), atol=1e-5)

# %% tags=["measure"]
import time


def milliseconds(function, repeats=5):
    """The median time of a few calls, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[1:]))


# %% tags=["measure"]
slow = milliseconds(lambda: linear_slow(x, layer.weight.numpy(), layer.bias.numpy()))
fast = milliseconds(lambda: layer(Tensor(x)))
print(f"loops {slow:.2f} ms, one matrix product {fast:.4f} ms: {slow / fast:.0f} times")

# %% [markdown]
# ## 6. A figure: why 1/sqrt(n)
#
# Send random numbers through twenty `Linear` layers of width 256, with weights drawn from three bounds, and
# watch the spread of the numbers. Uniform numbers in ±a have variance a²/3, and a sum of n products adds n
# such variances. So the spread is multiplied by a·sqrt(n/3) in each layer: with a = 1/sqrt(n) that is
# 1/sqrt(3), with a = sqrt(3/n) it is 1. Check the slopes against that.


# %% tags=["measure"]
def spreads(bound, depth=20, n=256):
    """The standard deviation after each of `depth` layers of width n without bias."""
    x, found = np.random.default_rng(0).standard_normal((64, n)).astype(np.float32), []
    for _ in range(depth):
        x = x @ uniform(bound, n, n).numpy().T
        found.append(x.std())
    return found


# %% tags=["measure"]
bounds = {"2/sqrt(n)": 2 / 16, "sqrt(3/n)": 3**0.5 / 16, "1/sqrt(n)": 1 / 16}
found = {name: spreads(bound) for name, bound in bounds.items()}

# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import show

figure, axes = plt.subplots()
for name, spread in found.items():
    axes.semilogy(range(1, 21), spread, label=f"bound {name}")
axes.set(xlabel="layer", ylabel="standard deviation", xticks=[1, 5, 10, 15, 20])
axes.legend(loc="lower left")
ends = ", ".join(f"{spread[-1]:.2g} with {name}" for name, spread in found.items())
show(
    figure,
    alt="Spread of the numbers, on a logarithmic axis, against the layer: one straight line rises, one stays level, one "
    f"falls. After twenty layers the standard deviation is {ends}.",
)

# %% [markdown]
# A straight line on a logarithmic axis: each layer multiplies by the same factor. Only with sqrt(3/n) is it 1.
#
# PyTorch's start shrinks a deep network of bare linear layers. Normalization (lesson 09) and shortcuts
# between layers are the usual cure; without them deep networks use larger bounds.

# %% [markdown]
# ## 7. Files
#
# A file has to hold two things: the weights, and how to build the module that they belong to. For the
# weights there is the *safetensors* format: the length of a header (8 bytes), the header as JSON with name,
# dtype, shape and place of every array, then the bare numbers. Reading it computes nothing. The header has
# room for notes, and one of ours is the architecture, as JSON too:
#
#     Linear(2, 3)   ->   {"class": "Linear", "args": [2, 3], "kwargs": {}}
#
# ### Exercise: describe a model
#
# `describe_model` turns a value into what JSON can hold: a layer into such a dict, with its arguments
# described in the same way (they may be layers, too); a list into the list of its described entries; a
# tuple, which JSON does not have, into `{"tuple": [...]}`; a number of NumPy into a Python number; `None`,
# `bool`, `int`, `float` and `str` stay. Anything else is a TypeError that names its type. Two helpers are
# given: `_is_layer(cls)`, and `_arguments_of(layer)`, which returns the pair args (a tuple) and kwargs (a
# dict). So is the TypeError, at the end: whatever you have not returned by then is refused.


# %%
#| export
def _is_layer(found):
    """Whether `found` is a class that a model file may name: a Module or an activation of the package."""
    return isinstance(found, type) and (
        issubclass(found, Module) or found.__module__ == "tinytorch.activations"
    )


def _arguments_of(layer):
    """The (args, kwargs) that build `layer` again; an activation keeps its arguments as attributes."""
    return layer._arguments if isinstance(layer, Module) else ((), vars(layer))


# %% nbgrader={"grade_id": "describe-model", "solution": true}
#| export
def describe_model(value):
    """`value` as JSON can hold it: a layer as its class, args and kwargs, the same for all that is inside.

    A tuple becomes {"tuple": [...]}. Raises TypeError for anything but layers, numbers, text, None, lists and
    tuples.
    """
    ### BEGIN SOLUTION
    if _is_layer(type(value)):
        args, kwargs = _arguments_of(value)
        kwargs = {name: describe_model(v) for name, v in kwargs.items()}
        return {"class": type(value).__name__, "args": [describe_model(a) for a in args], "kwargs": kwargs}
    if isinstance(value, tuple):
        return {"tuple": [describe_model(v) for v in value]}
    if isinstance(value, list):
        return [describe_model(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    ### END SOLUTION
    raise TypeError(
        f"save: {type(value).__name__} is an argument of a layer, but a file holds only numbers, text, lists "
        "and layers; write a Module, or use one such as ReLU()"
    )


# %% tags=["nbval-check-output"]
print(json.dumps(describe_model(Sequential(Linear(2, 3, bias=False), Softmax(dim=1))), indent=1))

# %% nbgrader={"grade_id": "test-describe-model", "grade": true, "points": 2}
got = describe_model(Sequential(Linear(2, 3), Dropout(p=0.25)))
linear = {"class": "Linear", "args": [2, 3], "kwargs": {}}
expected = {
    "class": "Sequential",
    "args": [linear, {"class": "Dropout", "args": [], "kwargs": {"p": 0.25}}],
    "kwargs": {},
}
assert got == expected, f"expected {expected}, got {got}: look at describe_model"
got = describe_model([1, (2.5, "same"), None, True])
assert got == [1, {"tuple": [2.5, "same"]}, None, True], f"expected plain values and one tuple, got {got}"
problem = ""
try:
    describe_model(Sequential(Linear(2, 3), np.sin))
except TypeError as error:
    problem = str(error)
assert "ufunc" in problem, f"expected a TypeError that names the type ufunc, got {problem!r}"
### BEGIN HIDDEN TESTS
got = describe_model(np.int64(5))
assert got == 5 and type(got) is int, (
    f"expected the Python number 5 for np.int64(5), got {got!r}: use .item()"
)
got = describe_model(Sequential(Softmax(dim=1), ReLU()))["args"]
expected = [
    {"class": "Softmax", "args": [], "kwargs": {"dim": 1}},
    {"class": "ReLU", "args": [], "kwargs": {}},
]
assert got == expected, f"expected {expected}, got {got}: activations are layers too"
got = describe_model(Linear(3, np.int32(4), bias=False))
assert got == {"class": "Linear", "args": [3, 4], "kwargs": {"bias": False}}, (
    f"expected args [3, 4] and kwargs bias=False, got {got}: describe every argument"
)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: build it again
#
# The way back. `build_model(description, find_class)`: a list becomes the list of what its entries build;
# a dict with the key "tuple" the tuple of what the entries build; any other dict an object of the class that
# `find_class(name)` returns, called with the args and kwargs, built first; anything else is itself.


# %% nbgrader={"grade_id": "build-model", "solution": true}
#| export
def build_model(description, find_class):
    """What `describe_model` described, built again; `find_class` turns the name of a class into the class."""
    ### BEGIN SOLUTION
    if isinstance(description, list):
        return [build_model(entry, find_class) for entry in description]
    if not isinstance(description, dict):
        return description
    if "tuple" in description:
        return tuple(build_model(description["tuple"], find_class))
    args = [build_model(entry, find_class) for entry in description["args"]]
    kwargs = {name: build_model(entry, find_class) for name, entry in description["kwargs"].items()}
    return find_class(description["class"])(*args, **kwargs)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
description = {"class": "Linear", "args": [2, 3], "kwargs": {"bias": False}}
build_model(description, {"Linear": Linear}.get)

# %% nbgrader={"grade_id": "test-build-model", "grade": true, "points": 2}
classes = {"complex": complex, "dict": dict, "slice": slice}
inner = {"class": "complex", "args": [1, 2], "kwargs": {}}
got = build_model({"class": "dict", "args": [], "kwargs": {"z": inner, "l": [inner, 3]}}, classes.__getitem__)
assert got == {"z": 1 + 2j, "l": [1 + 2j, 3]}, f"expected z and l built from the inside out, got {got}"
got = build_model([1, None, ["same"]], classes.__getitem__)
assert got == [1, None, ["same"]], f"expected plain values as they are, got {got}"
got = build_model({"tuple": [inner, 2]}, classes.__getitem__)
assert got == (1 + 2j, 2), f"expected the tuple (1+2j, 2), got {got!r}"
### BEGIN HIDDEN TESTS
got = build_model({"class": "slice", "args": [inner, 7], "kwargs": {}}, classes.__getitem__)
assert got == slice(1 + 2j, 7), f"expected args in their order, built first, got {got}"
asked = []
build_model(
    {"class": "slice", "args": [1, [inner]], "kwargs": {}}, lambda name: asked.append(name) or classes[name]
)
assert sorted(asked) == ["complex", "slice"], (
    f"expected every class from find_class, it was asked for {asked}"
)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: whole or not at all
#
# A program can stop in the middle of writing: no space, a power cut, Ctrl-C. Then the file of yesterday's
# best model is gone and half of today's is there. The cure is old: write to another name *in the same
# folder*, then rename. `os.replace` is one step for the file system: whoever opens the path sees the old
# file or the new one. If writing fails, the other file must go: `finally`, and
# `Path.unlink(missing_ok=True)`.


# %% nbgrader={"grade_id": "write-atomically", "solution": true}
#| export
def write_atomically(path, write):
    """Call `write(temporary)` with a name beside `path`, then rename that file to `path` (both are Paths).

    If `write` raises, the error goes on, `path` is as it was, and no other file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    ### BEGIN SOLUTION
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
write_atomically(folder / "note", lambda file: file.write_text("whole"))
(folder / "note").read_text()

# %% nbgrader={"grade_id": "test-write-atomically", "grade": true, "points": 2}
place = Path(tempfile.mkdtemp(dir=folder))
write_atomically(place / "a", lambda file: file.write_text("old") and None)
got = {file.name: file.read_text() for file in place.iterdir()}
assert got == {"a": "old"}, f"expected one file a with the text old, got {got}"


def stop_halfway(file):
    file.write_text("half")
    raise OSError("disk full")


problem = ""
try:
    write_atomically(place / "a", stop_halfway)
except OSError as error:
    problem = str(error)
assert problem == "disk full", (
    f"expected the OSError disk full to go on, got {problem!r}: finally, not except"
)
got = {file.name: file.read_text() for file in place.iterdir()}
assert got == {"a": "old"}, f"expected only the old file after an error, got {got}: look at finally"
### BEGIN HIDDEN TESTS
write_atomically(place / "a", lambda file: file.write_text("new") and None)
got = {file.name: file.read_text() for file in place.iterdir()}
assert got == {"a": "new"}, f"expected the new text over the old, got {got}: os.replace(temporary, path)"
seen = []
write_atomically(
    place / "a", lambda file: seen.append((place / "a").read_text()) or file.write_text("3") and None
)
assert seen == ["new"], f"expected the old file in place while the new one is written, saw {seen}"
### END HIDDEN TESTS

# %% [markdown]
# ### save
#
# `save` puts the three together. `dtype="float16"` stores every number in two bytes instead of four; `load`
# turns them back. A number beyond 65504 has no place in float16, and `save` refuses it instead of storing
# infinity.


# %%
#| export
def save(model, path, dtype=None):
    """Write `model` to one safetensors file: its weights, and how to build it as JSON in the metadata.

    `dtype` ("float16", "float32", "float64") is how floats are stored; `load` turns them back. The file is
    written beside `path` and renamed, so that a crash leaves the old one whole. Its name may end in .pt;
    nothing is ever pickled. A layer that is an argument twice becomes two layers. Raises TypeError for a
    model that a file cannot describe, ValueError for numbers that do not fit `dtype`, FileNotFoundError
    without the folder.
    """
    path = Path(path)
    if not isinstance(model, Module):
        raise TypeError(f"save: expected a Module, got {type(model).__name__}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: no folder {path.parent}; make it first")
    notes = {"tinytorch": json.dumps({"format": 1, "architecture": describe_model(model)})}
    arrays = {name: _for_file(name, a, dtype) for name, a in model.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(arrays, temporary, notes))


def _for_file(name, array, dtype):
    """`array` in one piece, floats as `dtype`."""
    if dtype is None or array.dtype.kind != "f":
        return np.asarray(array, order="C")
    if np.dtype(dtype).name not in ("float16", "float32", "float64"):
        raise ValueError(f"save: expected dtype float16, float32 or float64, got {dtype}")
    with np.errstate(over="ignore"):
        stored = np.asarray(array, dtype=dtype, order="C")
    if np.isfinite(array).all() and not np.isfinite(stored).all():
        raise ValueError(f"save: {name} holds {np.abs(array).max():g}, more than {dtype} can; use float32")
    return stored


# %% [markdown]
# ### load
#
# `load` reads the notes, builds the module, gives it its weights. The question is where classes come from.
# Your own ones are not in the package, so it looks in four places: the `classes` that you hand in, the
# running notebook, `network.py` beside the file, the package. And whatever is found under a name in a file,
# it is used only if it is a `Module` or an activation. Without this check a file could name any class that
# happens to be imported, with any arguments.


# %%
#| export
def load(path, classes=()):
    """Build the model that `save` wrote to `path` and give it its weights; it comes back in training mode.

    A class of your own is looked for in `classes`, in the running notebook, and in network.py beside the
    file, which is run only if it defines a class that the model needs. Nothing else in a file can make code
    run. Raises FileNotFoundError, and ValueError for a pickle, a damaged or foreign file, or a class that is
    no layer; KeyError where the weights are not those of the model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"load: no file {path}; expected one that tinytorch.save wrote")
    description, state = _read(path)
    model = build_model(description, _ClassFinder(path, classes))
    if not isinstance(model, Module):
        raise ValueError(
            f"load: {path} describes a {type(model).__name__}, no Module; save the whole model again"
        )
    model.load_state_dict(state)
    return model


def _read(path):
    """The architecture and the arrays of a file."""
    try:
        with safe_open(path, framework="numpy") as file:
            note = (file.metadata() or {}).get("tinytorch")
            if note is None:
                raise ValueError(
                    f"load: {path} holds weights but no architecture; write it with tinytorch.save"
                )
            description = _parse_note(path, note)
            names = file.keys()
            return description, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, TypeError) as error:  # TypeError: a number format that NumPy does not have
        if _is_pickle(path.read_bytes()):
            raise ValueError(
                f"load: {path} is a pickle, which can run any code when read; write it with tinytorch.save"
            ) from None
        raise ValueError(f"load: {path} is damaged or not a safetensors file ({error})") from None


def _is_pickle(data):
    """Whether `data` is a torch.save archive or a pickle of any protocol; reads the opcodes and runs none."""
    if data[:4] == b"PK\x03\x04" or (data[:1] == b"\x80" and data[1:2] <= b"\x05"):
        return True
    try:
        return bool(list(pickletools.genops(data)))
    except (ValueError, OverflowError, IndexError):
        return False


# %%
#| export
def _parse_note(path, note):
    """The architecture in the file's note, checked to be of the form that `describe_model` gives."""
    try:
        content = json.loads(note)
        version, description = content["format"], content["architecture"]
        sound = _is_description(description)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(f"load: the architecture in {path} is damaged; save the model again") from None
    if version != 1:
        raise ValueError(f"load: {path} has format {version}, this tinytorch reads 1; use a newer one")
    if not sound:
        raise ValueError(
            f"load: the architecture in {path} is not one of tinytorch.save; save the model again"
        )
    return description


def _is_description(value):
    if isinstance(value, list):
        return all(_is_description(v) for v in value)
    if not isinstance(value, dict):
        return True
    types = {name: type(v) for name, v in value.items()}
    if types == {"tuple": list}:
        return _is_description(value["tuple"])
    if types != {"class": str, "args": list, "kwargs": dict}:
        return False
    return _is_description(value["args"]) and all(_is_description(v) for v in value["kwargs"].values())


# %%
#| export
class _ClassFinder:
    """Finds the layer classes that a file names; runs the network.py beside it at most once."""

    def __init__(self, path, classes):
        self.path, self.classes, self.network = path, {cls.__name__: cls for cls in classes}, None
        self.file = path.parent / "network.py"

    def __call__(self, name):
        for place in (self._given, self._in_notebook, self._in_file, self._in_package):
            found = place(name)
            if _is_layer(found):
                return found
        raise ValueError(
            f"load: {self.path} names a class {name!r}, but no layer of this name is in tinytorch, the "
            f"running program or {self.file}; define it there as a Module, or hand it in as classes=[...]"
        )

    def _given(self, name):
        return self.classes.get(name)

    def _in_notebook(self, name):
        return vars(sys.modules["__main__"]).get(name)

    def _in_file(self, name):
        if self.network is None:
            if not self.file.is_file() or not _defines(self.file, name):
                return None
            spec = importlib.util.spec_from_file_location("network", self.file)
            self.network = importlib.util.module_from_spec(spec)
            sys.modules["network"] = self.network
            spec.loader.exec_module(self.network)
        return vars(self.network).get(name)

    def _in_package(self, name):
        return getattr(tinytorch, name, None)


def _defines(file, name):
    """Whether the Python file defines a class of this name; the file is read, not run."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file)))
    return any(isinstance(node, ast.ClassDef) and node.name == name for node in nodes)


# %% [markdown]
# Out and back: the same network, the same answers, to the last bit.

# %% tags=["nbval-check-output"]
save(net, folder / "net.safetensors")
copy = load(folder / "net.safetensors").eval()
x = Tensor(np.random.default_rng(0).standard_normal((5, 3, 4, 4)))
print(type(copy).__name__, bool(np.array_equal(net(x).numpy(), copy(x).numpy())))

# %% [markdown]
# The start of the file is text that a person can read.

# %% tags=["nbval-check-output"]
data = (folder / "net.safetensors").read_bytes()
length = int.from_bytes(data[:8], "little")
header = json.loads(data[8 : 8 + length])
header["layers.1.bias"]

# %% tags=["nbval-check-output"]
print(header["__metadata__"]["tinytorch"][:90])

# %% [markdown]
# ## 8. Measure: two bytes or four?
#
# A track counts the bytes of your file. Store the same model in float32 and in float16, and compare the
# sizes, the largest rounding error of a weight, and how far the outputs move, both against the largest
# value. Float16 keeps eleven binary digits: rounding moves a weight by at most 2^-11 of itself, about 0.0005.
# (Below 0.00006 digits are lost, but such a weight adds next to nothing.) What to look for: is the size
# exactly half? The header is text and stays. Do the outputs move by more than you would accept?

# %% tags=["measure"]
big = Sequential(Linear(512, 512), ReLU(), Linear(512, 10))
x = Tensor(np.random.default_rng(0).standard_normal((100, 512)))
y, w = big(x).numpy(), big[0].weight.numpy()

# %% tags=["measure"]
for dtype in ("float32", "float16"):
    file = folder / f"{dtype}.safetensors"
    save(big, file, dtype=dtype)
    back = load(file)
    error = np.abs(back(x).numpy() - y).max() / np.abs(y).max()
    rounding = np.abs(back[0].weight.numpy() - w).max() / np.abs(w).max()
    print(f"{dtype}: {file.stat().st_size:,} bytes, weights off by {rounding:.1e}, outputs by {error:.1e}")

# %% [markdown]
# ## 9. What breaks
#
# **A dict hides its modules.** Lists are looked into, dicts are not. Nothing complains; the layer is not
# trained and not saved. Count the parameters of every new class once.


# %% tags=["nbval-check-output"]
class Heads(Module):
    def __init__(self):
        self.body = Linear(4, 4)
        self.heads = {"left": Linear(4, 2)}  # never found


[name for name, _ in Heads().named_parameters()]

# %% [markdown]
# **A forgotten `eval()`.** With dropout on, the same input gets another answer at every call. The scorer of
# the track calls `eval()`, your own test may not.

# %% tags=["nbval-check-output"]
noisy = Sequential(Linear(8, 8), Dropout(0.5)).train()
x = Tensor(np.ones((1, 8)))
print(bool(np.array_equal(noisy(x).numpy(), noisy(x).numpy())))
print(bool(np.array_equal(noisy.eval()(x).numpy(), noisy(x).numpy())))

# %% [markdown]
# **A pickle is a program.** Python's `pickle`, and the usual `.pt` files, store objects as instructions, and
# one of them is "call this function". These few bytes call `print`; they could as well call anything that
# deletes files.

# %% tags=["nbval-check-output"]
harmless = b"cbuiltins\nprint\n(S'this ran because a file was read'\ntR."
pickle.loads(harmless)

# %% tags=["nbval-check-output"]
(folder / "model.pt").write_bytes(harmless)
attempt(load, folder / "model.pt")

# %% [markdown]
# **A class that is none of a model's business.** `Path` is imported in this notebook, but it is no layer.

# %% tags=["nbval-check-output"]
note = json.dumps({"format": 1, "architecture": {"class": "Path", "args": ["/tmp"], "kwargs": {}}})
save_file({}, folder / "strange.safetensors", {"tinytorch": note})
attempt(load, folder / "strange.safetensors")

# %% [markdown]
# **A file cut short**, and **an argument that no file can hold**: a function has no description, an object
# such as `ReLU()` has one.

# %% tags=["nbval-check-output"]
(folder / "short.safetensors").write_bytes(data[:200])
attempt(load, folder / "short.safetensors")

# %% tags=["nbval-check-output"]
attempt(save, Sequential(Linear(2, 2), relu), folder / "relu.safetensors")

# %% [markdown]
# ## Exercises
#
# Ungraded; try them in cells of your own.
#
# 1. Write `count(model)`, which prints a line for every module with its number of parameters, and the total.
# 2. Write a module `Residual(block)` whose forward is `x + block(x)`. Save a network with two of them and
#    load it. Which of the four places did the class come from?
# 3. With 1/sqrt(n) the spread falls by 1/sqrt(3) in each layer. Put a `ReLU` after each layer, which halves
#    the mean square: what bound keeps the numbers level now? Kaiming He et al. (2015) found it.
# 4. Change one byte in the middle of a model file. Does `load` notice? What would you add to the notes so
#    that it does?
# 5. Store weights as whole numbers from -127 to 127 and one scale a layer. How many bytes, and how far do the
#    outputs move?
#
# ## Elsewhere
#
# - **PyTorch** registers: `nn.Parameter` and `Module.__setattr__` sort attributes into three dicts as they
#   are set. Plain lists are not looked into; one needs `nn.ModuleList`. Buffers are registered by name.
# - Its files were pickles for many years. `torch.load` now reads them with `weights_only=True` by default,
#   an unpickler that knows only a short list of functions, and the Hugging Face hub moved to safetensors.
#   Neither keeps the architecture: the code of the class has to be there. Ours needs it only for your own
#   classes.
# - **JAX** has no modules: parameters are a nested dict (a *pytree*) that is handed to a pure function. Flax
#   and Equinox add classes on top. The random generator is an argument, too, so dropout shows in the
#   signature.
#
# ## Summary
#
# - A module finds parameters, buffers and children by reading its attributes; names are paths through the
#   tree.
# - Loading checks all names and shapes first, then copies. A tensor stays the same object.
# - `Linear` is x Wᵀ + b, started in ±1/sqrt(in_features); dropout scales what it keeps, and rests in
#   evaluation.
# - A model file is weights and a description. Data is read, only named layer classes are built, nothing is
#   run.
# - Write beside, then rename: a file is the old one or the new one.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/layers.py`;
# `tito module complete 03` in a terminal does the same. Lesson 04 tells a network how wrong it is.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
