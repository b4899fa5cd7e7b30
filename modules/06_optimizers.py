# %% [markdown]
# # 06 Optimizers
#
# > Optimizers: rules that turn gradients into steps.
#
# Module 05 tells how the loss changes when a weight moves a little. It does not tell how far to move. That is an
# optimizer's job, and a good one makes the difference between an hour and a day of training.
#
# You will build the three that train nearly everything today: **SGD** with momentum, **Adam** and **AdamW**, exactly as
# PyTorch defines them, so that learning rates from papers work with your package too.
#
# Why this matters to a system: an optimizer keeps numbers of its own for every weight. For Adam that is twice the
# size of the model. They must be saved with the weights, or a training run that was cut off does not continue but
# starts anew with a jolt. You will count these bytes, and you will make a run resume so that not one bit differs.
#
# **Before this lesson:** 05 (gradients), 01 (what `x.data -= …` does to a tensor's version count).

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 06

# %% nbgrader={"grade_id": "imports", "locked": true}
#| export
import math

import numpy as np

from tinytorch.tensor import Tensor

# %% [markdown]
# ## 1. Two steps by hand
#
# Take `loss = x²`. Its gradient is `2x`. Start at `x = 1` with the learning rate `lr = 0.1`, and go against the gradient:
#
# | step | x | gradient | new x = x - lr · gradient |
# |---|---|---|---|
# | 1 | 1 | 2 | 0.8 |
# | 2 | 0.8 | 1.6 | 0.64 |
#
# Each step multiplies `x` by `1 - 0.2 = 0.8`. With `lr = 1` the factor would be `-1`: the ball jumps from one side of the
# valley to the other for ever. With more than 1 it flies out.
#
# Here it is without an optimizer. `x.data -= …` changes the weight in place and counts the change, so that module 05
# notices if anyone still holds a graph over the old value.

# %% tags=["nbval-check-output"]
x = Tensor(1.0, requires_grad=True)
for _ in range(2):
    x.grad = None
    (x * x).backward()
    x.data -= 0.1 * x.grad.data
    print(round(float(x), 4), "changed in place", x.version, "times")

# %% [markdown]
# ## 2. What all optimizers share
#
# An `Optimizer` holds a list of parameters, a learning rate, and for every parameter a dict, its **state**: what the
# rule remembers from step to step. The rule itself is one method: `update(p, g, state)` gets the array of a parameter
# and that of its gradient, and returns what to take off `p`. Each subclass writes its own.
#
# The beginning is given. It refuses what people really pass by mistake: a model in place of its parameters, one
# tensor in place of a list (it would fall apart into rows), a negative or NaN learning rate. A tensor that two
# layers share comes twice in `model.parameters()`, and still must take one step at a time, not two.

# %% nbgrader={"grade_id": "optimizer-class", "locked": true}
#| export
class Optimizer:
    """A rule that changes parameters by their gradients. Subclasses write `update(p, g, state)`.

    `parameters` is a list of tensors, such as model.parameters(); a tensor that comes twice counts once.
    `lr` is the learning rate and may be set at any time; `weight_decay` pulls weights towards 0. Raises
    TypeError for anything but tensors, ValueError for an empty list and for negative or non-finite numbers.
    """

    def __init__(self, parameters, lr, weight_decay=0.0):
        name = type(self).__name__
        if isinstance(parameters, Tensor) or not hasattr(parameters, "__iter__"):
            kind = type(parameters).__name__
            raise TypeError(f"{name}: expected a list of tensors, got a {kind}; pass model.parameters() or [tensor]")
        self.parameters = list({id(p): p for p in parameters}.values())
        for p in self.parameters:
            if not isinstance(p, Tensor):
                raise TypeError(f"{name}: expected tensors, got a {type(p).__name__}; pass model.parameters()")
        if not self.parameters:
            raise ValueError(f"{name}: no parameters to optimise; pass model.parameters()")
        self.lr = check_setting(name, "lr", lr)
        self.weight_decay = check_setting(name, "weight_decay", weight_decay)
        self.state = [{} for _ in self.parameters]  # what the rule remembers for each parameter

    def update(self, p, g, state):
        """How much to take off the parameter array `p` with gradient `g`; may keep arrays in `state`."""
        raise NotImplementedError(f"{type(self).__name__}: write its update method")


def check_setting(owner, name, value):
    """`value` as a Python float, or ValueError unless it is a finite number >= 0.

    A float of Python keeps float32 arrays float32; a float64 number of NumPy would turn them into float64.
    """
    if not 0 <= value < math.inf:
        raise ValueError(f"{owner}: expected {name} >= 0 and finite, got {value}")
    return float(value)


# %% [markdown]
# To try the base class we need some rule. This one takes `lr` times the gradient, counts its calls, and remembers the
# last gradient. (It is a function, so that it always builds on the newest `Optimizer`, which grows over the next cells.)

# %% nbgrader={"grade_id": "downhill", "locked": true}
def downhill(parameters, lr=0.1, weight_decay=0.0):
    """An optimizer with the simplest rule there is, and a memory."""

    class Downhill(Optimizer):
        def update(self, p, g, state):
            state["calls"] = state.get("calls", 0) + 1
            state["last"] = np.array(g)
            return self.lr * g

    return Downhill(parameters, lr, weight_decay)


def parameter(values, gradient=None, dtype=np.float32):
    """A tensor with a gradient, as if backward had just run."""
    p = Tensor(values, requires_grad=True, dtype=dtype)
    p.grad = None if gradient is None else Tensor(gradient, dtype=dtype)
    return p


# %% [markdown]
# ### Exercise: step
#
# `zero_grad` sets every gradient to None. Without it the next `backward` would **add** to the old gradient: useful to
# gather several batches before a step, a bug everywhere else.
#
# `step` goes over parameters and their states together (`zip`). A parameter without a gradient is left alone: it took
# no part in this loss. For the others: `p.data -= self.update(p.data, p.grad.data, state)`. In place, so that whoever
# holds this tensor sees the new value, and counted.
#
# The first two lines of `step` are given. A schedule may have put a NumPy number into `lr`, and a gradient may come in
# another dtype; both would quietly turn float32 into float64.

# %% nbgrader={"grade_id": "step", "solution": true}
#| export
class Optimizer(Optimizer):
    def zero_grad(self):
        """Forget all gradients; the next backward starts from nothing."""
        ### BEGIN SOLUTION
        for p in self.parameters:
            p.grad = None
        ### END SOLUTION

    def step(self):
        """Change every parameter that has a gradient, in place, by its rule."""
        self.lr = float(self.lr)
        gradients = [None if p.grad is None else np.asarray(p.grad.data, p.dtype) for p in self.parameters]
        ### BEGIN SOLUTION
        for p, g, state in zip(self.parameters, gradients, self.state, strict=True):
            if g is not None:
                p.data -= self.update(p.data, g, state)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
p = parameter([1.0, 2.0], gradient=[10.0, -10.0])
optimizer = downhill([p])
optimizer.step()
optimizer.zero_grad()
print(p, p.grad)

# %% nbgrader={"grade_id": "test-step", "grade": true, "points": 3}
p, q, r = parameter([1.0, 2.0], [10.0, -10.0]), parameter([[3.0]], [[1.0]]), parameter([5.0])
optimizer = downhill([p, q, r], lr=0.5)
optimizer.step()
for t, expected in ((p, [-4.0, 7.0]), (q, [[2.5]]), (r, [5.0])):
    got = np.asarray(t.data).tolist()
    assert got == expected, f"step with lr = 0.5: expected {expected}, got {got} (no gradient means no change)"
optimizer.zero_grad()
assert all(t.grad is None for t in (p, q, r)), "zero_grad: expected every .grad to be None"
optimizer.step()
assert np.asarray(p.data).tolist() == [-4.0, 7.0], f"step after zero_grad must change nothing, got {p.data}"
### BEGIN HIDDEN TESTS
p = parameter([1.0, 2.0], [1.0, 1.0])
array, before = p.data, p.version
optimizer = downhill([p], lr=np.float64(0.25))
optimizer.step()
assert p.data is array and array.tolist() == [0.75, 1.75], "step must change the array in place: p.data -= ..."
assert p.version > before, f"step must count the change: expected a version above {before}, got {p.version}"
p.grad = Tensor([4.0, 0.0])
optimizer.lr = np.float64(0.5)
optimizer.step()
assert np.asarray(p.data).tolist() == [-1.25, 1.75], f"a second step with lr = 0.5: expected [-1.25, 1.75], got {p.data}"
assert p.data.dtype == np.float32, f"a float32 parameter stays float32, got {p.data.dtype}"
p, r = parameter([1.0], [1.0]), parameter([1.0])
optimizer = downhill([r, p])
optimizer.step()
memory = [sorted(state) for state in optimizer.state]
assert memory == [[], ["calls", "last"]], f"each parameter has a state of its own: expected one empty, got {memory}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: weight decay
#
# A network with smaller weights tends to be smoother and to generalise better. So one adds `½ · weight_decay · p²` to
# the loss. There is no need to compute that: its gradient is `weight_decay · p`, and it is enough to add this to `g`.
#
# By hand: `p = 2`, `g = 1`, `weight_decay = 0.1` gives 1.2. Give back `g` itself when there is no decay, which saves an
# addition, and never change `g` in place: it belongs to the tensor.

# %% nbgrader={"grade_id": "decayed", "solution": true}
#| export
class Optimizer(Optimizer):
    def decayed(self, p, g):
        """The gradient `g` of the array `p` with that of ½ weight_decay p² added (L2 regularisation)."""
        ### BEGIN SOLUTION
        return g + self.weight_decay * p if self.weight_decay else g
        ### END SOLUTION


# %% nbgrader={"grade_id": "test-decayed", "grade": true, "points": 1}
p, g = np.array([2.0, -4.0]), np.array([1.0, 1.0])
got = np.asarray(downhill([parameter(p)], weight_decay=0.1).decayed(p, g))
assert np.allclose(got, [1.2, 0.6]), f"decayed with weight_decay 0.1: expected [1.2 0.6], got {got}"
assert g.tolist() == [1, 1], f"decayed must not change the gradient itself, it is now {g}"
### BEGIN HIDDEN TESTS
got = np.asarray(downhill([parameter(p)]).decayed(p, g))
assert got.tolist() == [1, 1], f"decayed without weight_decay: expected the gradient as it is, got {got}"
single = np.array([3.0], np.float32)
got = np.asarray(downhill([parameter(p)], weight_decay=np.float64(2.0)).decayed(single, single))
assert got.dtype == np.float32 and got.tolist() == [9], f"decayed: expected [9.] in float32, got {got} in {got.dtype}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: save the memory
#
# A run of an hour is cut off after forty minutes. To go on as if nothing had happened, the weights are not enough: the
# state is needed too. `state_dict` gives it as one flat dict of arrays, which module 07 can write to a file: the
# learning rate as `"lr"`, and what parameter number `i` remembers under `name` as `"i.name"`.
#
# For one parameter after one call, downhill gives the keys `lr`, `0.calls`, `0.last`. Copy (`np.array(...)` does), so
# that the next step does not change what was saved.

# %% nbgrader={"grade_id": "state-dict", "solution": true}
#| export
class Optimizer(Optimizer):
    def state_dict(self):
        """What the rule remembers, as a flat dict of arrays: "lr", and "<number of the parameter>.<name>"."""
        ### BEGIN SOLUTION
        arrays = {f"{i}.{name}": np.array(v) for i, s in enumerate(self.state) for name, v in s.items()}
        return {"lr": np.array(self.lr), **arrays}
        ### END SOLUTION


# %% tags=["nbval-check-output"]
optimizer = downhill([parameter([1.0, 2.0], gradient=[3.0, 4.0]), parameter([5.0])])
optimizer.step()
for key, value in optimizer.state_dict().items():
    print(key, value)

# %% nbgrader={"grade_id": "test-state-dict", "grade": true, "points": 2}
p, q = parameter([1.0, 2.0], [3.0, 4.0]), parameter([[5.0]], [[6.0]])
optimizer = downhill([p, q], lr=0.25)
optimizer.step()
saved = {key: np.asarray(value) for key, value in optimizer.state_dict().items()}
assert sorted(saved) == ["0.calls", "0.last", "1.calls", "1.last", "lr"], f"state_dict: got the keys {sorted(saved)}"
assert float(saved["lr"]) == 0.25, f"state_dict: expected lr 0.25, got {saved['lr']}"
assert saved["0.last"].tolist() == [3, 4] and saved["1.last"].tolist() == [[6]], "state_dict: wrong arrays"
### BEGIN HIDDEN TESTS
assert all(isinstance(value, np.ndarray) for value in optimizer.state_dict().values()), "state_dict: expected arrays"
kept = optimizer.state_dict()
optimizer.state[0]["last"] *= 100
assert np.asarray(kept["0.last"]).tolist() == [3, 4], "state_dict must copy: what was saved has changed since"
assert int(kept["1.calls"]) == 1, f"state_dict: expected 1 call of parameter 1, got {kept['1.calls']}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: remember again
#
# The way back. Two details decide whether a run resumes **exactly**:
#
# - Counters were whole numbers of Python and must be so again. Left as NumPy arrays they would pull float32 formulas up
#   to float64, and the resumed run would drift away in the last digit. `read_state` does this for one entry, and
#   refuses what does not fit. It is given.
# - First read everything into new dicts, then put them in place, so that an error leaves the optimizer as it was.

# %% nbgrader={"grade_id": "read-state", "locked": true}
#| export
def read_state(key, value, parameters):
    """(i, name, value) of one entry "i.name" of a state dict: a whole number as int, an array as a copy.

    Raises ValueError, with the key, for a parameter that is not there and for an array of another shape
    than its.
    """
    number, _, name = key.partition(".")
    if not number.isdigit() or int(number) >= len(parameters):
        raise ValueError(f"load_state_dict: {key!r} fits none of the {len(parameters)} parameters of this optimizer")
    value, shape = np.array(value), parameters[int(number)].shape
    if value.dtype.kind in "iu" and value.ndim == 0:
        return int(number), name, int(value)
    if value.shape != shape:
        raise ValueError(f"load_state_dict: {key!r} has shape {value.shape}, its parameter {shape}")
    return int(number), name, value


# %% nbgrader={"grade_id": "load-state-dict", "solution": true}
#| export
class Optimizer(Optimizer):
    def load_state_dict(self, state):
        """Remember again what `state_dict` gave; the rule then goes on exactly where it was.

        Raises ValueError, and changes nothing, where `state` lacks "lr" or does not fit these parameters.
        """
        if "lr" not in state:
            raise ValueError(f"load_state_dict: expected what state_dict gave, with 'lr'; got the keys {sorted(state)}")
        ### BEGIN SOLUTION
        remembered = [{} for _ in self.parameters]
        for key, value in state.items():
            if key != "lr":
                i, name, value = read_state(key, value, self.parameters)
                remembered[i][name] = value
        self.lr, self.state = float(state["lr"]), remembered
        ### END SOLUTION


# %% nbgrader={"grade_id": "test-load-state-dict", "grade": true, "points": 3}
saved = {"lr": np.array(0.5), "1.calls": np.array(7), "1.last": np.array([[1.0, 2.0]], np.float32)}
p, q = parameter([1.0, 2.0], [3.0, 4.0]), parameter([[5.0, 6.0]], [[2.0, 2.0]])
optimizer = downhill([p, q], lr=0.1)
optimizer.step()
optimizer.load_state_dict(saved)
assert float(optimizer.lr) == 0.5, f"load_state_dict: expected lr 0.5, got {optimizer.lr}"
assert optimizer.state[0] == {}, f"load_state_dict must forget what was there before, got {optimizer.state[0]}"
got = optimizer.state[1]
assert sorted(got) == ["calls", "last"] and np.asarray(got["last"]).tolist() == [[1, 2]], f"load_state_dict: got {got}"
optimizer.step()
calls = int(optimizer.state[1]["calls"])
assert calls == 8, f"after 7 saved calls and one step: expected 8, got {calls}"
### BEGIN HIDDEN TESTS
optimizer.load_state_dict(saved)
assert type(optimizer.state[1]["calls"]) is int, "load_state_dict: a counter must be an int again: see read_state"
saved["1.last"] *= 0
assert np.asarray(optimizer.state[1]["last"]).tolist() == [[1, 2]], "load_state_dict must copy the arrays"
for wrong, word in (({"lr": 9.0, "1.calls": 1, "2.last": [1.0]}, "2.last"), ({"lr": 9.0, "0.last": [[1.0, 2.0]]}, "0.last")):
    try:
        optimizer.load_state_dict(wrong)
        got = "no error"
    except ValueError as error:
        got = str(error)
    assert word in got, f"load_state_dict: expected a ValueError that names {word}, got: {got}"
    assert float(optimizer.lr) == 0.5 and optimizer.state[1]["calls"] == 7, "a failed load must change nothing"
### END HIDDEN TESTS

# %% [markdown]
# ## 3. SGD
#
# Plain gradient descent has a weakness. In a long narrow valley the gradient points mostly across it, and hardly along
# it. The steps bounce from wall to wall, and the learning rate must be small enough for the steep direction, which is
# far too small for the flat one.
#
# **Momentum** helps, as with a heavy ball: it keeps a velocity, a sum of past gradients in which the old ones fade.
#
# `v = momentum · v + g`, then `x = x - lr · v`. Across the valley the gradients alternate and cancel in `v`; along it they
# add up, to `1 / (1 - momentum)` times the gradient: 10 times for 0.9.
#
# By hand, `loss = x²`, `x = 1`, `lr = 0.1`, `momentum = 0.5`:
#
# | step | x | g | v | new x |
# |---|---|---|---|---|
# | 1 | 1 | 2 | 2 | 0.8 |
# | 2 | 0.8 | 1.6 | 0.5 · 2 + 1.6 = 2.6 | 0.54 |
#
# **Nesterov's** variant looks ahead: it steps by `g + momentum · v`, with the `v` just computed, as if the next gradient
# were already known to be like this one. The same two steps: `2 + 0.5 · 2 = 3` gives `x = 0.7`; then `g = 1.4`, `v = 2.4`,
# the step is `1.4 + 1.2 = 2.6`, and `x = 0.44`.
#
# These are PyTorch's definitions. (Some books put `1 - momentum` before `g`, or `lr` into `v`; then other learning rates
# are right.)
#
# ### Exercise: velocity
#
# The first velocity is the first gradient, as a **copy**: the gradient's own array may be scaled by someone later.

# %% nbgrader={"grade_id": "velocity", "solution": true}
#| export
class SGD(Optimizer):
    """Gradient descent with momentum, Nesterov's variant and weight decay, as PyTorch defines them.

    Keeps one array for each parameter with momentum, none without. Raises ValueError for nesterov without
    momentum.
    Source: Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.
    """

    def __init__(self, parameters, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        super().__init__(parameters, lr, weight_decay)
        self.momentum, self.nesterov = check_setting("SGD", "momentum", momentum), nesterov
        if nesterov and not momentum:
            raise ValueError("SGD: nesterov needs momentum > 0, such as 0.9")

    def velocity(self, g, state):
        """momentum times the old velocity, plus g; kept as state["momentum"] for the next time."""
        ### BEGIN SOLUTION
        old = state.get("momentum")
        state["momentum"] = np.array(g) if old is None else self.momentum * old + g
        return state["momentum"]
        ### END SOLUTION


# %% nbgrader={"grade_id": "test-velocity", "grade": true, "points": 2}
optimizer, memory = SGD([parameter([1.0])], lr=0.1, momentum=0.5), {}
first = np.asarray(optimizer.velocity(np.array([2.0]), memory)).tolist()
second = np.asarray(optimizer.velocity(np.array([1.6]), memory)).tolist()
assert first == [2.0], f"velocity: the first is the gradient: expected [2.0], got {first}"
assert np.allclose(second, [2.6]), f"velocity: expected 0.5 * 2 + 1.6 = 2.6, got {second}"
### BEGIN HIDDEN TESTS
gradients = np.random.default_rng(0).standard_normal((6, 3))
optimizer, memory = SGD([parameter([1.0])], lr=7.0, momentum=0.8), {}
for g in gradients:
    got = np.asarray(optimizer.velocity(g, memory))
expected = sum(0.8 ** (5 - k) * g for k, g in enumerate(gradients))
assert np.allclose(got, expected), f"velocity after 6 gradients: expected {expected}, got {got}"
memory, g = {}, np.array([1.0, 2.0])
optimizer.velocity(g, memory)
g *= 100
got = np.asarray(optimizer.velocity(np.zeros(2), memory)).tolist()
assert np.allclose(got, [0.8, 1.6]), f"velocity must copy the first gradient: expected [0.8, 1.6], got {got}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: the rule of SGD
#
# Put it together: decay first, then velocity (only if there is momentum: plain SGD remembers nothing), then perhaps
# Nesterov's look ahead. Return `lr` times what results.

# %% nbgrader={"grade_id": "sgd-update", "solution": true}
#| export
class SGD(SGD):
    def update(self, p, g, state):
        """lr times: the decayed gradient, or its velocity v, or with Nesterov g + momentum v."""
        ### BEGIN SOLUTION
        g = self.decayed(p, g)
        if not self.momentum:
            return self.lr * g
        v = self.velocity(g, state)
        return self.lr * (g + self.momentum * v if self.nesterov else v)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
for settings in ({}, {"momentum": 0.5}, {"momentum": 0.5, "nesterov": True}):
    x = Tensor(1.0, requires_grad=True)
    optimizer, trace = SGD([x], lr=0.1, **settings), []
    for _ in range(2):
        optimizer.zero_grad()
        (x * x).backward()
        optimizer.step()
        trace.append(round(float(x), 4))
    print(trace, settings)

# %% nbgrader={"grade_id": "test-sgd-update", "grade": true, "points": 4}
def sgd_by_sums(p, gradients, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    """SGD by its definition as a sum over all past gradients, without a velocity."""
    seen = []
    for g in gradients:
        seen.append(g + weight_decay * p)
        v = sum(momentum ** (len(seen) - 1 - k) * s for k, s in enumerate(seen))
        p = p - lr * (seen[-1] + momentum * v if nesterov else v)
    return p


def check_sgd(seed=0, **settings):
    random = np.random.default_rng(seed)
    start, gradients = random.standard_normal((2, 3)), random.standard_normal((4, 2, 3))
    optimizer, memory, p = SGD([parameter(start)], **settings), {}, start.copy()
    for g in gradients:
        p = p - np.asarray(optimizer.update(p, g.copy(), memory))
    expected = sgd_by_sums(start, gradients, **settings)
    assert np.allclose(p, expected), f"SGD {settings}, 4 steps: expected {expected.ravel()}, got {p.ravel()}"


check_sgd(lr=0.1)
check_sgd(lr=0.1, weight_decay=0.3)
check_sgd(lr=0.1, momentum=0.9)
check_sgd(lr=0.1, momentum=0.5, nesterov=True)
### BEGIN HIDDEN TESTS
check_sgd(1, lr=0.05, momentum=0.9, weight_decay=0.1)
check_sgd(2, lr=0.2, momentum=0.7, nesterov=True, weight_decay=0.05)
memory, g, p = {}, np.array([1.0, 2.0]), np.array([3.0, 4.0])
SGD([parameter([1.0])], lr=0.1).update(p, g, memory)
assert memory == {}, f"SGD without momentum needs no memory, got {sorted(memory)}"
SGD([parameter([1.0])], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1).update(p, g, memory)
assert g.tolist() == [1, 2] and p.tolist() == [3, 4], "SGD.update must not change p or g, it returns what to take off"
memory, one = {}, np.ones(2, np.float32)
optimizer = SGD([parameter([1.0])], lr=0.1, momentum=np.float64(0.9), nesterov=True, weight_decay=np.float64(0.1))
for _ in range(2):
    got = np.asarray(optimizer.update(one, one, memory))
assert got.dtype == np.float32, f"SGD.update of float32 arrays: expected float32, got {got.dtype}"
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Adam
#
# SGD gives all weights one learning rate. But gradients differ in size by orders of magnitude: between layers, and
# between a weight that is used always and one that is used rarely. Adam gives each weight a step of about `lr`,
# whatever the size of its gradients, by dividing the gradient by its own usual size.
#
# It keeps two running means for each weight, both starting at 0:
#
# - `m = β₁ m + (1 - β₁) g`, the mean of the gradient, with `β₁ = 0.9`;
# - `v = β₂ v + (1 - β₂) g²`, the mean of its square, with `β₂ = 0.999`.
#
# Starting at 0 makes them too small at first: after one step `m` is only `0.1 g`. After `t` steps the weights in the mean
# add up to `1 - β₁ᵗ`, so dividing by that puts it right. The step is then
#
# `lr · m̂ / (√v̂ + ε)`, with `m̂ = m / (1 - β₁ᵗ)` and `v̂ = v / (1 - β₂ᵗ)`; `ε = 1e-8` only keeps 0 / 0 away.
#
# By hand, `loss = x²`, `x = 1`, `lr = 0.1`:
#
# | t | x | g | m | v | m̂ | √v̂ | new x |
# |---|---|---|---|---|---|---|---|
# | 1 | 1 | 2 | 0.2 | 0.004 | 0.2 / 0.1 = 2 | √(0.004 / 0.001) = 2 | 1 - 0.1 · 2 / 2 = 0.9 |
# | 2 | 0.9 | 1.8 | 0.36 | 0.007236 | 0.36 / 0.19 = 1.8947 | 1.9026 | 0.9 - 0.1 · 0.9959 = 0.8004 |
#
# The very first step is always `lr`, up or down, for every weight. That is why Adam's learning rates are so much smaller
# than SGD's, and why 0.001 so often works.
#
# ### Exercise: the running means
#
# Keep them as `state["m"]` and `state["v"]`, and the number of steps as `state["t"]`. `state.get("m", 0)` is 0 the first time.

# %% nbgrader={"grade_id": "moments", "solution": true}
#| export
class Adam(Optimizer):
    """Adam: steps scaled by running means of the gradient and of its square, as PyTorch defines it.

    Keeps two arrays for each parameter. `weight_decay` is added to the gradient; AdamW keeps it apart.
    Raises ValueError for betas outside [0, 1). Source: Kingma and Ba, Adam: a method for stochastic
    optimization, 2015.
    """

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(parameters, lr, weight_decay)
        name = type(self).__name__
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{name}: expected two betas in [0, 1), got {betas}")
        self.betas, self.eps = tuple(float(beta) for beta in betas), check_setting(name, "eps", eps)

    def moments(self, g, state):
        """(t, m, v) after one more gradient g: how many there were, their mean, the mean of their squares.

        All three are kept in `state` under these names; the means start at 0 and are not yet corrected for
        that. With g = 2 and the usual betas, the first are 1, 0.2, 0.004.
        """
        beta1, beta2 = self.betas
        ### BEGIN SOLUTION
        state["t"] = state.get("t", 0) + 1
        state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * g
        state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g * g
        return state["t"], state["m"], state["v"]
        ### END SOLUTION


# %% tags=["nbval-check-output"]
optimizer, memory = Adam([parameter([1.0])]), {}
for g in (2.0, 1.8):
    t, m, v = optimizer.moments(np.array([g]), memory)
    print(t, m.round(4), v.round(6))

# %% nbgrader={"grade_id": "test-moments", "grade": true, "points": 3}
gradients = np.random.default_rng(0).standard_normal((5, 3))
optimizer, memory = Adam([parameter([1.0])], betas=(0.8, 0.95)), {}
for g in gradients:
    t, m, v = optimizer.moments(g, memory)
expected_m = sum(0.2 * 0.8 ** (4 - k) * g for k, g in enumerate(gradients))
expected_v = sum(0.05 * 0.95 ** (4 - k) * g**2 for k, g in enumerate(gradients))
assert int(t) == 5, f"moments: expected t = 5 after 5 gradients, got {t}"
assert np.allclose(m, expected_m), f"moments: expected m = {expected_m}, got {m}"
assert np.allclose(v, expected_v), f"moments: expected v = {expected_v}, got {v}"
### BEGIN HIDDEN TESTS
assert sorted(memory) == ["m", "t", "v"], f"moments: expected t, m and v in the state, got {sorted(memory)}"
memory, g = {}, np.array([2.0, -3.0], np.float32)
optimizer = Adam([parameter([1.0])], betas=(np.float64(0.9), np.float64(0.999)))
for _ in range(2):
    t, m, v = optimizer.moments(g, memory)
for name, value in (("m", m), ("v", v)):
    assert np.asarray(value).dtype == np.float32, f"moments: expected float32 for {name}, got {np.asarray(value).dtype}"
assert g.tolist() == [2, -3], "moments must not change the gradient"
assert np.allclose(m, 0.19 * g), f"moments after the same gradient twice: expected m = {0.19 * g}, got {m}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: Adam's step
#
# `adam_step` calls `moments`, corrects both means and returns `lr · m̂ / (√v̂ + ε)`. Note where ε stands: outside the root.
#
# `update` is that, for the decayed gradient.

# %% nbgrader={"grade_id": "adam-step", "solution": true}
#| export
class Adam(Adam):
    def adam_step(self, g, state):
        """lr * m / (sqrt(v) + eps), with both means corrected for their start at zero."""
        ### BEGIN SOLUTION
        beta1, beta2 = self.betas
        t, m, v = self.moments(g, state)
        return self.lr / (1 - beta1**t) * m / (np.sqrt(v / (1 - beta2**t)) + self.eps)
        ### END SOLUTION

    def update(self, p, g, state):
        """Adam's step for the decayed gradient."""
        ### BEGIN SOLUTION
        return self.adam_step(self.decayed(p, g), state)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
x = Tensor(1.0, requires_grad=True)
optimizer = Adam([x], lr=0.1)
for _ in range(2):
    optimizer.zero_grad()
    (x * x).backward()
    optimizer.step()
    print(round(float(x), 4))

# %% nbgrader={"grade_id": "test-adam-step", "grade": true, "points": 4}
def adam_by_sums(p, gradients, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Adam with both means written as weighted averages over all past gradients."""
    seen = []
    for g in gradients:
        seen.append(g + weight_decay * p)
        age = np.arange(len(seen))[::-1]
        m = np.average(seen, axis=0, weights=betas[0] ** age)
        v = np.average(np.square(seen), axis=0, weights=betas[1] ** age)
        p = p - lr * m / (np.sqrt(v) + eps)
    return p


def check_adam(seed=0, steps=4, **settings):
    random = np.random.default_rng(seed)
    start, gradients = random.standard_normal((2, 3)), random.standard_normal((steps, 2, 3))
    optimizer, memory, p = Adam([parameter(start)], **settings), {}, start.copy()
    for g in gradients:
        p = p - np.asarray(optimizer.update(p, g.copy(), memory))
    expected = adam_by_sums(start, gradients, **settings)
    assert np.allclose(p, expected), f"Adam {settings}, {steps} steps: expected {expected.ravel()}, got {p.ravel()}"


check_adam(steps=1, lr=0.1)
check_adam(lr=0.1)
check_adam(lr=0.01, weight_decay=0.5)
### BEGIN HIDDEN TESTS
check_adam(1, lr=0.3, betas=(0.5, 0.9), eps=0.1)
check_adam(2, steps=12, lr=0.02, betas=(0.0, 0.99), weight_decay=0.1)
g = np.array([1e-3, -50.0, 0.0])
got = np.asarray(Adam([parameter([1.0])], lr=0.1).adam_step(g, {}))
assert np.allclose(got, [0.1, -0.1, 0], atol=1e-5), f"Adam's first step is lr, whatever the gradient's size: got {got}"
memory, one = {}, np.ones(2, np.float32)
optimizer = Adam([parameter([1.0])], lr=0.1, weight_decay=np.float64(0.1))
for _ in range(2):
    got = np.asarray(optimizer.update(one, one, memory))
assert got.dtype == np.float32, f"Adam.update of float32 arrays: expected float32, got {got.dtype}"


def adam_run(steps, saved=None, weights=None):
    """Some steps downhill from where `saved` and `weights` left off."""
    random = np.random.default_rng(7)
    target = random.standard_normal(50).astype(np.float32)
    p = Tensor(np.zeros(50) if weights is None else weights, requires_grad=True)
    optimizer = Adam([p], lr=0.05)
    if saved is not None:
        optimizer.load_state_dict(saved)
    for _ in range(steps):
        p.grad = Tensor(p.data - target)
        optimizer.step()
    return optimizer.state_dict(), p.data.copy()


whole, resumed = adam_run(9)[1], adam_run(5, *adam_run(4))[1]
assert np.array_equal(whole, resumed), "4 steps, save, load, 5 steps must equal 9 steps to the last bit"
### END HIDDEN TESTS

# %% [markdown]
# ## 5. AdamW
#
# With Adam, weight decay does something strange. What is added to the gradient is divided by the gradient's usual size
# like everything else, so weights with large gradients hardly decay, and weights with small ones decay a lot. AdamW
# keeps the two apart: Adam's step for the gradient alone, and **beside it** every weight shrinks by `lr · weight_decay · p`.
#
# By hand: `p = 2`, `g = 0`, `lr = 0.1`, `weight_decay = 0.5`. Adam's step is 0. The weight shrinks by 0.1 · 0.5 · 2 = 0.1, to 1.9.

# %% nbgrader={"grade_id": "adamw", "solution": true}
#| export
class AdamW(Adam):
    """Adam whose weight decay shrinks the weights themselves, apart from the gradient.

    Keeps two arrays for each parameter. Source: Loshchilov and Hutter, Decoupled weight decay
    regularization, 2019.
    """

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def update(self, p, g, state):
        """Adam's step for the gradient alone, plus lr * weight_decay * p."""
        ### BEGIN SOLUTION
        return self.adam_step(g, state) + self.lr * self.weight_decay * p
        ### END SOLUTION


# %% nbgrader={"grade_id": "test-adamw", "grade": true, "points": 3}
p, memory = np.array([2.0, -4.0]), {}
optimizer = AdamW([parameter([1.0])], lr=0.1, weight_decay=0.5)
for _ in range(3):
    p = p - np.asarray(optimizer.update(p, np.zeros(2), memory))
expected = np.array([2.0, -4.0]) * (1 - 0.1 * 0.5) ** 3
assert np.allclose(p, expected), f"AdamW without a gradient: every step shrinks by 1 - 0.05: expected {expected}, got {p}"
got = np.asarray(AdamW([parameter([1.0])], lr=0.1, weight_decay=0.5).update(np.array([2.0]), np.array([7.0]), {}))
assert np.allclose(got, 0.1 + 0.1), f"AdamW, first step: expected lr + lr * 0.5 * 2 = 0.2, got {got}"
### BEGIN HIDDEN TESTS
random = np.random.default_rng(3)
p, gradients, memory, alone = random.standard_normal(4), random.standard_normal((5, 4)), {}, {}
optimizer = AdamW([parameter([1.0])], lr=0.02, weight_decay=0.3)
for t, g in enumerate(gradients, start=1):
    m = sum(0.1 * 0.9 ** (t - 1 - k) * s for k, s in enumerate(gradients[:t])) / (1 - 0.9**t)
    v = sum(0.001 * 0.999 ** (t - 1 - k) * s**2 for k, s in enumerate(gradients[:t])) / (1 - 0.999**t)
    expected = 0.02 * m / (np.sqrt(v) + 1e-8) + 0.02 * 0.3 * p
    got = np.asarray(optimizer.update(p, g, memory))
    assert np.allclose(got, expected), f"AdamW, step {t}: expected {expected}, got {got}"
    p = p - got
default = AdamW([parameter([1.0])], lr=1.0).update(np.array([1.0]), np.array([0.0]), {})
assert np.allclose(default, 0.01), f"AdamW decays by 0.01 by default: expected 0.01, got {default}"
one = np.ones(1, np.float32)
got = np.asarray(AdamW([parameter([1.0])], weight_decay=np.float64(0.1)).update(one, one, {}))
assert got.dtype == np.float32, f"AdamW.update of float32 arrays: expected float32, got {got.dtype}"
### END HIDDEN TESTS

# %% [markdown]
# ## 6. A narrow valley
#
# `loss = ½ (x² + 25 y²)` is 25 times steeper across than along. Along the steep direction plain SGD multiplies `y` by
# `1 - 25 lr` at each step, so it needs `lr < 2 / 25 = 0.08`. Watch the three paths from the same start.

# %%
def path(make, steps=40, start=(-4.0, 1.2)):
    """The places that an optimizer visits in the valley. Shape (steps + 1, 2)."""
    p, steepness = Tensor(start, requires_grad=True), Tensor([1.0, 25.0])
    optimizer, places = make([p]), [p.data.copy()]
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * p * p * steepness).sum().backward()
        optimizer.step()
        places.append(p.data.copy())
    return np.array(places)


# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import explore, show



def valley(axes, places):
    """Draw the contour lines of the loss, and the path through `places` (steps + 1, 2)."""
    x, y = np.meshgrid(np.linspace(-4.6, 1.2, 120), np.linspace(-1.6, 1.6, 80))
    axes.contour(x, y, 0.5 * (x**2 + 25 * y**2), levels=[0.1, 0.5, 1.5, 4, 8, 16], colors="0.7", linewidths=1)
    axes.plot(*places.T, "o-", markersize=4, linewidth=1)
    axes.plot(0, 0, "k+", markersize=14, markeredgewidth=2)
    axes.set(ylabel="y", xlim=(-4.6, 1.2), ylim=(-1.6, 1.6))


# %% tags=["measure"]
shown = {
    "SGD, lr 0.07": lambda p: SGD(p, lr=0.07),
    "SGD, lr 0.02, momentum 0.8": lambda p: SGD(p, lr=0.02, momentum=0.8),
    "Adam, lr 0.3": lambda p: Adam(p, lr=0.3),
}
figure, axes = plt.subplots(3, 1, figsize=(7.5, 7), sharex=True)
for ax, (name, make) in zip(axes, shown.items(), strict=True):
    valley(ax, path(make))
    ax.set_title(name, loc="left")
axes[-1].set_xlabel("x")
show(
    figure,
    alt="Three panels with the contour lines of the same valley, long in x and narrow in y; each path starts at the upper "
    "left, and a cross at (0, 0) is the goal. Plain SGD zigzags between the walls and then creeps, without arriving; "
    "with momentum the path swings in wide waves and arrives; Adam sets off diagonally, runs past the goal and curls back.",
)

# %% [markdown]
# Now try for yourself, SGD with momentum in the same valley. With momentum 0, at which learning rate does the path
# leave the picture? And which pair arrives soonest?


# %% tags=["measure"]
def descend(lr=0.07, momentum=0.0):
    """The figure of SGD's path in the valley, and its text alternative."""
    places = path(lambda p: SGD(p, lr=lr, momentum=momentum))
    away = np.hypot(*places.T)  # distance from the goal after each step
    near = np.flatnonzero(away > 0.1)[-1] + 1  # from this step on it stays within 0.1
    end = f"within 0.1 of the goal after {near} steps" if near < len(away) else f"{away[-1]:.2g} from the goal in the end"
    figure, axes = plt.subplots(figsize=(7.5, 3.2))
    valley(axes, places)
    axes.set(xlabel="x", title=end)
    return figure, f"The path of SGD with learning rate {lr:g} and momentum {momentum:g}: {end}."


explore(descend, lr=(0.01, 0.1, 0.005), momentum=(0.0, 0.95, 0.05))

# %% [markdown]
# ## 7. What an optimizer remembers
#
# Bytes of state for each parameter, counted from what `state_dict` gives for a million parameters after one step. A
# float32 weight takes 4 bytes, its gradient 4 more. So training with Adam holds 16 bytes for each weight, before the
# first activation. For a model of a billion weights that is 16 GB.

# %% tags=["nbval-check-output"]
rules = {
    "SGD": lambda p: SGD(p, lr=0.1),
    "SGD with momentum": lambda p: SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: Adam(p),
    "AdamW": lambda p: AdamW(p),
}
for name, make in rules.items():
    optimizer = make([parameter(np.zeros(1_000_000), gradient=np.ones(1_000_000))])
    optimizer.step()
    print(f"{name:18} {sum(a.nbytes for a in optimizer.state_dict().values()) / 1e6:.0f} bytes for each parameter")

# %% [markdown]
# The time of a step is bound by the same numbers: it computes little, and reads and writes all of this once. The
# next cell times a step for a million parameters. Compare the ratio of the times with that of the arrays touched.

# %% tags=["measure"]
import time

for name, make in rules.items():
    optimizer, times = make([parameter(np.zeros(1_000_000), gradient=np.ones(1_000_000))]), []
    for _ in range(7):
        start = time.perf_counter()
        optimizer.step()
        times.append(time.perf_counter() - start)
    print(f"{name:18} {1000 * np.median(times):6.1f} ms a step")

# %% [markdown]
# ## 8. What breaks
#
# **A learning rate that is too large.** In the valley of section 6 the limit for plain SGD is 0.08. Just above it every
# step makes `y` larger:

# %% tags=["nbval-check-output"]
for lr in (0.075, 0.085):
    print(lr, "|y| after 0, 20, 40 steps:", np.abs(path(lambda p: SGD(p, lr=lr))[::20, 1]).round(2))

# %% [markdown]
# **Forgetting `zero_grad`.** Gradients add up, so every step uses the sum of all that came before. It looks like a
# learning rate that is too large:

# %% tags=["nbval-check-output"]
x = Tensor(1.0, requires_grad=True)
optimizer, trace = SGD([x], lr=0.4), []
for _ in range(5):
    (x * x).backward()
    optimizer.step()
    trace.append(round(float(x), 2))
print(trace)

# %% [markdown]
# **The wrong things to optimise.** A network in place of its parameters, or one tensor in place of a list:

# %% tags=["nbval-check-output"]
for wrong in (x, 0.1, [], ["weight"]):
    try:
        SGD(wrong, lr=0.1)
    except (TypeError, ValueError) as error:
        print(error)

# %% [markdown]
# ## 9. Exercises
#
# 1. For `loss = ½ a x²`, plain SGD makes `x` smaller by the factor `1 - lr · a` a step. Which `lr` is best for a valley with
#    `a = 1` and `a = 25` at once, and how many steps does it need for a thousandth? Check with `path`.
# 2. Set `betas=(0, 0)` in Adam and write down what is left of the rule. Its name is sign descent.
# 3. Take the correction for the start at zero out of a copy of Adam. What do the first steps look like? Which of the
#    two betas matters more?
# 4. Write `Lion` (Chen et al., 2023): the step is `lr · sign(β₁ m + (1 - β₁) g)`, and `m` is updated after it with `β₂`. How
#    many bytes does it keep for each parameter?
# 5. Adam's `v` needs a range more than digits. Keep it as float16 and see on a small problem what happens, and why.
#
# ## Elsewhere
#
# - **PyTorch** has the same rules under the same names. It also keeps settings by groups of parameters (often no weight
#   decay for biases), and updates all tensors in one fused kernel, since a step is bound by memory.
# - **JAX** has no in-place changes. In its library Optax an optimizer is a pair of pure functions, `init` and `update`, and
#   the state travels through the training loop as a value.
# - Very large models spread the optimizer's state over machines (ZeRO) or keep it in 8 bits, because it is what fills
#   the memory first.
#
# ## Summary
#
# - An optimizer turns `(p, g, state)` into what to take off `p`. Everything else is bookkeeping that all share.
# - Momentum adds up what agrees and cancels what alternates. Adam divides each gradient by its usual size.
# - AdamW keeps weight decay out of that division.
# - State is part of training: 0, 4 or 8 bytes for each weight here. Saved and loaded exactly, a run goes on to the same bit.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/optimizers.py`;
# `tito module complete 06` in a terminal does the same.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
