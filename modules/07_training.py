# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 07 Training
#
# > The training loop: schedules, clipping, evaluation, and checkpoints that resume exactly.
#
# You have a model, a loss, gradients and an optimizer. Training is the loop around them: take a batch, compute
# the loss, go back through the graph, make a step, and again. In this lesson you build that loop and what it
# needs to run for hours without you: learning rates that change with time, gradients that are kept in bounds, a
# fair evaluation, and checkpoints from which a run goes on as if nothing had happened.
#
# **Why it matters to a system.** The loop is ten lines, and most of its mistakes raise no error. A forgotten
# `zero_grad`, a model left in evaluation mode, a schedule that counts the wrong thing: the loss still falls, only
# less. And long runs do get cut. If the second half of a run differs from what the whole run would have been,
# no experiment with it can be trusted.
#
# **You need** layers (03), losses (04), gradients (05) and optimizers (06). Data loaders come in lesson 08; here
# a *loader* is anything that gives pairs `(x, y)` in a `for` loop, for instance a list.
#
# The words of this lesson: a *batch* is what the model sees at once. A *step* is one change of the parameters. An
# *epoch* is one pass over the loader. `lr` is the learning rate.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 07

# %%
#| export
import json
import math
import os
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tinytorch.autograd import no_grad
from tinytorch.losses import CrossEntropyLoss
from tinytorch.tensor import Tensor, default_rng

# %% nbgrader={"grade_id": "tools", "locked": true}
import tempfile

from tinytorch.activations import ReLU
from tinytorch.autograd import is_grad_enabled
from tinytorch.layers import Dropout, Linear, Sequential
from tinytorch.losses import MSELoss
from tinytorch.optimizers import SGD, AdamW
from tinytorch.tensor import manual_seed

storage = tempfile.TemporaryDirectory()  # for the files of this notebook; goes when the kernel stops
folder = Path(storage.name)


def attempt(function, *args, **kwargs):
    """Call `function` and print the error that it raises, on one line."""
    try:
        function(*args, **kwargs)
        print("no error")
    except Exception as error:
        print(f"{type(error).__name__}: {error}".replace(f"{folder}{os.sep}", ""))


# %% [markdown]
# The problem of this lesson is small enough to train in a second and too hard for a straight line: points on two
# spirals that wind around each other, and the question is which spiral a point lies on.

# %% nbgrader={"grade_id": "spirals", "locked": true}
def spirals(n, seed=0):
    """Points x (n, 2) on two spirals, with a little noise, and the number of the spiral, y (n,)."""
    rng = np.random.default_rng(seed)
    y, turn = rng.integers(0, 2, n), rng.uniform(0.15, 1, n)
    angle = 2.5 * np.pi * turn + np.pi * y
    x = turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (2 * x + 0.05 * rng.standard_normal((n, 2))).astype(np.float32), y


# %% tags=["nbval-check-output"]
x, y = spirals(6)
print(x.round(2), y)

# %% [markdown]
# Two more tools: batches of such points in a random order, and a small network for them.


# %% nbgrader={"grade_id": "shuffled", "locked": true}
class Shuffled:
    """Batches in a random order that depends on the epoch alone; lesson 08 builds this properly."""

    def __init__(self, x, y, size):
        self.x, self.y, self.size, self.epoch = x, y, size, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        order = np.random.default_rng([7, self.epoch]).permutation(len(self.x))
        for k in range(0, len(order), self.size):
            rows = order[k : k + self.size]
            yield self.x[rows], self.y[rows]


# %% nbgrader={"grade_id": "small-model", "locked": true}
def small_model(hidden=16, dropout=0.0, seed=0):
    """A fresh network for points (B, 2) and two classes; the same numbers for the same seed."""
    manual_seed(seed)
    return Sequential(Linear(2, hidden), ReLU(), Dropout(dropout), Linear(hidden, 2))


# %% [markdown]
# ## 1. Schedules: the learning rate as a function of the step
#
# A schedule answers one question: which learning rate at step `step`? Steps count from 0. We write each as an
# object that is called with the step and remembers nothing. So there is no counter to save, none to restore, and
# none that can run twice.
#
# The simplest says the same every time.

# %% nbgrader={"grade_id": "constant-schedule", "solution": true}
#| export
class ConstantSchedule:
    """The same learning rate at every step. Example: ConstantSchedule(0.1)(500) is 0.1."""

    def __init__(self, lr):
        self.lr = lr

    def __call__(self, step):
        """The learning rate at `step`, counted from 0."""
        ### BEGIN SOLUTION
        return self.lr
        ### END SOLUTION


# %% nbgrader={"grade_id": "test-constant-schedule", "grade": true, "points": 1}
for lr in (0.3, 1e-4):
    got = [float(ConstantSchedule(lr)(step)) for step in (0, 1, 999)]
    assert got == [lr] * 3, f"ConstantSchedule({lr}): expected {lr} at steps 0, 1 and 999, got {got}"

# %% [markdown]
# At the start the parameters are random and the gradients large and contradictory; an optimizer such as Adam
# knows nothing yet about their size. A *warm-up* goes in with small steps. At the end the loss dances around a
# minimum in steps as large as `lr`; a *decay* lets it settle.
#
# By hand, with `lr=1, warmup=4, total=8`: the first step must already do something, so the warm-up gives
# 1/4, 2/4, 3/4, 4/4 at steps 0, 1, 2, 3. From there in a straight line to `final=0` at step 8: at steps 4, 5, 6, 7
# it gives 1, 3/4, 2/4, 1/4, and 0 at step 8. After `total` it stays at `final`. (Where `warmup` equals `total`
# there is no way down: mind the division by zero.)

# %% nbgrader={"grade_id": "linear-schedule", "solution": true}
#| export
class LinearSchedule:
    """Up to `lr` over the first `warmup` steps, then straight down to `final` at step `total`.

    Step k of the warm-up has lr * (k + 1) / warmup: the first is not zero, the last is `lr`. From step
    `total` on it stays at `final`. Raises ValueError unless total >= 1 and 0 <= warmup <= total.
    """

    def __init__(self, lr, total, warmup=0, final=0.0):
        if total < 1 or not 0 <= warmup <= total:
            raise ValueError(
                f"{type(self).__name__}: expected total >= 1 and warmup from 0 to total, "
                f"got total={total} and warmup={warmup}"
            )
        self.lr, self.total, self.warmup, self.final = lr, total, warmup, final

    def __call__(self, step):
        """The learning rate at `step`. Example: LinearSchedule(1, total=8, warmup=4)(6) is 0.5."""
        ### BEGIN SOLUTION
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if step >= self.total:
            return self.final
        done = (step - self.warmup) / (self.total - self.warmup)
        return self.lr + done * (self.final - self.lr)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
[LinearSchedule(1.0, total=8, warmup=4)(step) for step in range(10)]

# %% nbgrader={"grade_id": "test-linear-schedule", "grade": true, "points": 2}
got = [float(LinearSchedule(1.0, total=8, warmup=4)(step)) for step in range(10)]
wanted = [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25, 0, 0]
assert np.allclose(got, wanted), (
    f"LinearSchedule(1, 8, warmup=4), steps 0 to 9: expected {wanted}, got {got}; compare with the numbers by hand above"
)
got = [float(LinearSchedule(2.0, total=4)(step)) for step in range(6)]
assert np.allclose(got, [2, 1.5, 1, 0.5, 0, 0]), f"without warm-up: expected [2, 1.5, 1, 0.5, 0, 0], got {got}"
### BEGIN HIDDEN TESTS
for lr, total, warmup, final in ((0.3, 17, 5, 0.0), (0.1, 10, 0, 0.02), (1.0, 9, 1, 0.5), (0.2, 6, 6, 0.1)):
    steps = np.arange(total + 5)
    up = np.interp(steps, [-1, max(warmup - 1, 0)], [0, lr])
    down = np.interp(steps, [warmup, max(total, warmup + 1)], [lr, final])
    wanted = np.where(steps < warmup, up, np.where(steps < total, down, final))
    got = [float(LinearSchedule(lr, total, warmup, final)(int(step))) for step in steps]
    assert np.allclose(got, wanted), (
        f"LinearSchedule(lr={lr}, total={total}, warmup={warmup}, final={final}): expected {wanted.round(4)}, got {got}"
    )
### END HIDDEN TESTS

# %% [markdown]
# Half a cosine wave is the other common way down: slow at first, fast in the middle, slow again at the end. If
# `done` goes from 0 to 1 on the way from the end of the warm-up to `total`, then `(1 + cos(pi * done)) / 2` goes
# from 1 to 0. By hand, `lr=1, total=4`: at step 2 half the way is done, the cosine of pi/2 is 0, and the learning
# rate is 1/2. The warm-up is that of the class above: `super().__call__(step)` gives it.

# %% nbgrader={"grade_id": "cosine-schedule", "solution": true}
#| export
class CosineSchedule(LinearSchedule):
    """Warm-up as in LinearSchedule, then down half a cosine wave to `final` at step `total`.

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, here without
    the restarts.
    """

    def __call__(self, step):
        """The learning rate at `step`. Example: CosineSchedule(1, total=4)(2) is 0.5."""
        ### BEGIN SOLUTION
        if step < self.warmup:
            return super().__call__(step)
        if step >= self.total:
            return self.final
        done = (step - self.warmup) / (self.total - self.warmup)
        return self.final + (self.lr - self.final) * 0.5 * (1 + math.cos(math.pi * done))
        ### END SOLUTION


# %% tags=["nbval-check-output"]
[round(CosineSchedule(1.0, total=4)(step), 3) for step in range(6)]

# %% nbgrader={"grade_id": "test-cosine-schedule", "grade": true, "points": 2}
got = [float(CosineSchedule(1.0, total=4)(step)) for step in range(6)]
wanted = [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0, 0]
assert np.allclose(got, wanted), f"CosineSchedule(1, 4), steps 0 to 5: expected {wanted}, got {got}"
got = [float(CosineSchedule(3.0, total=9, warmup=3)(step)) for step in range(4)]
assert np.allclose(got, [1, 2, 3, 3]), f"warm-up over 3 steps to 3.0: expected [1, 2, 3, 3], got {got}"
### BEGIN HIDDEN TESTS
for lr, total, warmup, final in ((0.3, 17, 5, 0.0), (0.1, 10, 0, 0.02), (1.0, 9, 1, 0.5)):
    for step in range(warmup, total + 4):
        done = min(1, (step - warmup) / (total - warmup))
        wanted = lr * np.cos(np.pi * done / 2) ** 2 + final * np.sin(np.pi * done / 2) ** 2
        got = float(CosineSchedule(lr, total, warmup, final)(step))
        assert np.isclose(got, wanted), (
            f"CosineSchedule(lr={lr}, total={total}, warmup={warmup}, final={final}) at step {step}: "
            f"expected {wanted:.6f}, got {got:.6f}"
        )
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Clipping: no single batch may throw the model away
#
# Now and then a batch has a gradient a hundred times longer than usual. One such step can undo an hour.
# *Clipping* looks at all gradients as one long vector and, if that vector is longer than `max_norm`, shortens it
# to that length. Its direction stays.
#
# By hand: two parameters with one number each and gradients 3 and 4. The common norm is 5. With `max_norm=1` both
# are divided by 5 and become 0.6 and 0.8; with `max_norm=10` nothing happens. Returned is the norm before: it is
# worth plotting. A norm that is not finite cannot be repaired by scaling: raise a FloatingPointError, before
# anything is changed.
#
# Each gradient `p.grad` is a tensor, `p.grad.data` its array; to scale it, give it a new array. `parameters` may be
# a generator, which can be gone through only once: collect the gradients in a list first.

# %% nbgrader={"grade_id": "clip-grad-norm", "solution": true}
#| export
def clip_grad_norm(parameters, max_norm):
    """Scale all gradients so that their common Euclidean norm is at most `max_norm`; return the norm before.

    Parameters without a gradient are passed over. Raises ValueError for `max_norm` <= 0 and, with the
    gradients as they were, FloatingPointError if the norm is not finite. Source: Pascanu, Mikolov and Bengio,
    "On the difficulty of training recurrent neural networks", 2013.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm: expected max_norm > 0, got {max_norm}")
    ### BEGIN SOLUTION
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float(np.vdot(g.data, g.data)) for g in gradients))
    if not math.isfinite(norm):
        raise FloatingPointError(f"clip_grad_norm: the norm of the gradients is {norm}; lower the learning rate")
    if norm > max_norm:
        for g in gradients:
            g.data = g.data * (max_norm / norm)
    return norm
    ### END SOLUTION


# %% nbgrader={"grade_id": "with-gradients", "locked": true}
def with_gradients(*gradients):
    """Parameters that have these gradients; None stands for a parameter that has none."""
    parameters = [Tensor(np.zeros(np.shape(g)), requires_grad=True) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = None if g is None else Tensor(g)
    return parameters


# %% tags=["nbval-check-output"]
for max_norm in (10.0, 1.0):
    parameters = with_gradients([3.0], [4.0])
    print(clip_grad_norm(parameters, max_norm), [p.grad for p in parameters])

# %% nbgrader={"grade_id": "test-clip-grad-norm", "grade": true, "points": 2}
draw = np.random.default_rng(1)
drawn = [draw.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (5,), (2, 3, 2))]
whole = np.concatenate([g.ravel() for g in drawn])
length = float(np.linalg.norm(whole))
for max_norm, factor in ((0.5, 0.5 / length), (length / 2, 0.5), (length * 2, 1.0)):
    parameters = with_gradients(*drawn)
    got = float(clip_grad_norm(parameters, max_norm))
    assert np.isclose(got, length, rtol=1e-5), f"clip_grad_norm returns the norm before: expected {length:.5f}, got {got:.5f}"
    clipped = np.concatenate([np.asarray(p.grad).ravel() for p in parameters])
    assert np.allclose(clipped, factor * whole, rtol=1e-4, atol=1e-6), (
        f"norm {length:.3f}, max_norm {max_norm:.3f}: expected all gradients times {factor:.4f}, "
        f"the first became {clipped[0]:.4f} from {whole[0]:.4f}"
    )
### BEGIN HIDDEN TESTS
some = with_gradients(None, [6.0, 8.0], None)
got = float(clip_grad_norm((p for p in some), 5.0))
assert np.isclose(got, 10), f"one gradient [6, 8], two parameters without: expected the norm 10, got {got}"
assert np.allclose(np.asarray(some[1].grad), [3, 4]), f"expected [3, 4], got {np.asarray(some[1].grad)}"
assert some[0].grad is None, "a parameter without a gradient must stay without"
bad = with_gradients([np.inf, 1.0], [2.0])
try:
    clip_grad_norm(bad, 1.0)
    raised = False
except FloatingPointError:
    raised = True
assert raised, "a gradient with an infinite entry: expected FloatingPointError, got none"
assert np.asarray(bad[1].grad).tolist() == [2.0], "after the error the gradients must be as they were"
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Accuracy
#
# The model's answer is the class with the largest logit; accuracy is the share of right answers. By hand: logits
# `[[2, 1], [0, 3], [5, 4]]` say classes 0, 1, 0. With targets `[0, 1, 1]` two of three are right.

# %% nbgrader={"grade_id": "accuracy", "solution": true}
#| export
def accuracy(logits, targets):
    """The share of rows of logits (B, C) whose largest entry is at the target; targets (B,), whole numbers.

    Takes tensors or arrays, returns a Python float in 0..1. Raises ValueError if the shapes do not fit.
    """
    logits, targets = np.asarray(logits), np.asarray(targets)
    if logits.ndim < 2 or logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"accuracy: expected logits (B, C) and targets (B,), got {logits.shape} and {targets.shape}"
        )
    ### BEGIN SOLUTION
    return float(np.mean(logits.argmax(axis=-1) == targets))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
round(accuracy(Tensor([[2, 1], [0, 3], [5, 4]]), [0, 1, 1]), 4)

# %% nbgrader={"grade_id": "test-accuracy", "grade": true, "points": 1}
draw = np.random.default_rng(2)
for B, C in ((3, 2), (8, 8), (50, 4)):
    logits, targets = draw.standard_normal((B, C)), draw.integers(0, C, B)
    wanted = sum(max(range(C), key=lambda c: logits[b, c]) == targets[b] for b in range(B)) / B
    got = float(accuracy(Tensor(logits), Tensor(targets, dtype=np.int64)))
    assert np.isclose(got, wanted), (
        f"accuracy of logits ({B}, {C}): expected {wanted:.4f}, got {got:.4f}; the answer is the largest of each row"
    )

# %% [markdown]
# ## 4. Evaluation mode, and back
#
# Dropout must not drop anything while we measure, and batch normalisation (09) must use what it has learned, not
# the batch at hand. `model.eval()` says so to every part of the model. The second half is easily forgotten:
# afterwards the model must be as it was, or the rest of the training runs without dropout.
#
# As it was means part by part: a layer that was in evaluation mode before, frozen, must stay in it. And it means
# always: also when the evaluation ends with an error or with the stop button. `try: ... finally: ...` does that.
#
# Python's `contextmanager` makes a `with` block of a generator: what stands before `yield` runs on the way in,
# what stands after it on the way out. `modes`, given, holds each part with its mode before; a part's mode is its
# attribute `training`.

# %% nbgrader={"grade_id": "evaluation-mode", "solution": true}
#| export
@contextmanager
def evaluation_mode(model):
    """A `with` block in which every part of `model` is in evaluation mode; afterwards each is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    ### BEGIN SOLUTION
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
    ### END SOLUTION


# %% tags=["nbval-check-output"]
model = small_model(dropout=0.5)
with evaluation_mode(model):
    print("inside:", model.training, model[2].training)
print("after: ", model.training, model[2].training)

# %% nbgrader={"grade_id": "test-evaluation-mode", "grade": true, "points": 2}
model = Sequential(Dropout(0.5), Sequential(Linear(2, 2), Dropout(0.5)))
model[1][1].eval()  # frozen before
before = [module.training for module in model.modules()]
with evaluation_mode(model):
    inside = [module.training for module in model.modules()]
after = [module.training for module in model.modules()]
assert not any(inside), f"inside the block every part must be in evaluation mode; training is {inside}"
assert after == before, f"after the block each part must be as it was: expected {before}, got {after}"
### BEGIN HIDDEN TESTS
try:
    with evaluation_mode(model):
        raise KeyboardInterrupt
except KeyboardInterrupt:
    after = [module.training for module in model.modules()]
assert after == before, f"when the block ends with an error: expected {before} as before, got {after}; use finally"
model.eval()
with evaluation_mode(model):
    pass
assert not model.training, "a model that was in evaluation mode before must stay in it"
### END HIDDEN TESTS

# %% [markdown]
# ## 5. A fair evaluation
#
# The loss of a whole data set is the mean over its items. Batches give us means over batches, and the last batch
# is often smaller. By hand: three items with losses 1, 1 and 4, in batches of two. The batch means are 1 and 4,
# their mean is 2.5; the mean over the items is 2. So weigh each batch by its number of items.
#
# Nothing here needs gradients: under `no_grad()` no graph is recorded, and the memory of each batch is free at
# once. `x` may be an array; a model wants `Tensor(x)`. You write the loop that adds up `count`, `loss` and `right`,
# the number of right answers. A first check: a model with dropout must give the same figures twice.

# %% nbgrader={"grade_id": "evaluate", "solution": true}
#| export
def evaluate(model, loader, loss_fn=None):
    """Mean loss and accuracy of a classifier over all items of `loader`: {"loss": float, "accuracy": float}.

    Batches are pairs x (B, ...), y (B,), arrays or tensors. Runs in evaluation mode and without recording,
    and leaves the model in the mode it was in. `loss_fn` is CrossEntropyLoss by default and must be a mean
    over the batch. Raises ValueError if the loader gives no batch.
    """
    loss_fn = loss_fn or CrossEntropyLoss()
    count, loss, right = 0, 0.0, 0.0
    ### BEGIN SOLUTION
    with evaluation_mode(model), no_grad():
        for x, y in loader:
            logits = model(x if isinstance(x, Tensor) else Tensor(x))
            loss += float(loss_fn(logits, y)) * len(x)
            right += accuracy(logits, y) * len(x)
            count += len(x)
    ### END SOLUTION
    if count == 0:
        raise ValueError("evaluate: the loader gave no batch; a generator is used up after one pass, use a list")
    return {"loss": loss / count, "accuracy": right / count}


# %% tags=["nbval-check-output"]
x, y = spirals(200)
model = small_model(dropout=0.5)
for _ in range(2):
    print({name: round(value, 3) for name, value in evaluate(model, Shuffled(x, y, 64)).items()})

# %% nbgrader={"grade_id": "test-evaluate", "grade": true, "points": 3}
x, y = spirals(23, seed=3)
model = small_model(dropout=0.5, seed=3)
w1, b1, w2, b2 = (np.asarray(p).astype(np.float64) for p in model.parameters())
logits = np.maximum(x @ w1.T + b1, 0) @ w2.T + b2  # the network without dropout, in NumPy
items = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(23), y]
right = logits.argmax(axis=1) == y
for size in (23, 10, 4):
    got = evaluate(model, [(x[k : k + size], y[k : k + size]) for k in range(0, 23, size)])
    assert np.isclose(float(got["loss"]), items.mean(), rtol=1e-4), (
        f"23 items in batches of {size}: expected the mean loss of the items, {items.mean():.5f}, "
        f"got {got['loss']:.5f}; check the weights of the batches and the evaluation mode"
    )
    assert np.isclose(float(got["accuracy"]), right.mean()), (
        f"23 items in batches of {size}: expected accuracy {right.mean():.5f}, got {got['accuracy']:.5f}"
    )
assert model.training and model[2].training, "evaluate left the model in evaluation mode; it was in training mode"
### BEGIN HIDDEN TESTS
recording = []


def watched_loss(logits, y):
    recording.append(bool(is_grad_enabled()))
    return MSELoss()(logits, np.eye(2)[np.asarray(y)])


got = evaluate(model, [(Tensor(x[:20]), y[:20]), (Tensor(x[20:]), y[20:])], watched_loss)
wanted = np.mean((logits - np.eye(2)[y]) ** 2)
assert len(recording) == 2, f"expected loss_fn to be called once a batch, 2 times, got {len(recording)}"
assert not any(recording), "evaluate must run under no_grad(): gradients were being recorded"
assert np.isclose(float(got["loss"]), wanted, rtol=1e-4), f"with a loss of its own: expected {wanted:.5f}, got {got['loss']:.5f}"
model.eval()
evaluate(model, [(x, y)])
assert not model.training, "a model that was in evaluation mode before must stay in it"
### END HIDDEN TESTS

# %% [markdown]
# ## 6. One batch forward and back
#
# Forward, loss, backward: three lines, and two refinements.
#
# *Accumulation.* A batch that does not fit into memory can be cut into `accumulate` parts, one after the other:
# gradients add up in `.grad` anyway, and if each part's is divided by `accumulate` the sum is the gradient of the
# mean over the whole. By hand: items with gradients 2 and 6. As one batch the gradient of the mean is 4; as two
# parts it is 2/2 + 6/2 = 4. `backward` takes the incoming gradient g, and 1 / `accumulate` is that g.
#
# *Look before you leap.* If the loss is NaN or infinite, so will be the gradients, and after the step the
# parameters. So check it before `backward`: raise a FloatingPointError with one line that names the loss and the
# learning rate, `optimizer.lr`, for that is what one will want to change.

# %% nbgrader={"grade_id": "train-step", "solution": true}
#| export
def train_step(model, x, y, optimizer, loss_fn, accumulate=1):
    """Forward and backward of one batch: add its gradients, divided by `accumulate`; returns its loss.

    x (B, ...) is an array or a tensor, y what `loss_fn(logits, y)` wants. The optimizer makes no step here.
    Raises FloatingPointError, which names the loss and the learning rate, if the loss is not finite;
    gradients and parameters are then as they were.
    """
    ### BEGIN SOLUTION
    loss = loss_fn(model(x if isinstance(x, Tensor) else Tensor(x)), y)
    value = float(loss)
    if not math.isfinite(value):
        raise FloatingPointError(
            f"training: the loss is {value}; "
            f"lower the learning rate (now {optimizer.lr:g}) or clip the gradients"
        )
    loss.backward(1 / accumulate)
    return value
    ### END SOLUTION


# %% tags=["nbval-check-output"]
x, y = spirals(40)
model = small_model()
optimizer = SGD(model.parameters(), lr=0.1)
print(round(train_step(model, x, y, optimizer, CrossEntropyLoss()), 4), model[3].bias.grad.numpy().round(4))

# %% nbgrader={"grade_id": "test-train-step", "grade": true, "points": 3}
draw = np.random.default_rng(4)
model = Sequential(Linear(3, 1))
optimizer = SGD(model.parameters(), lr=0.25)
x, t = draw.standard_normal((12, 3)).astype(np.float32), draw.standard_normal((12, 1)).astype(np.float32)
w, b = (np.asarray(p).copy() for p in model.parameters())
error = x @ w.T + b - t
whole = [2 * error.T @ x / 12, 2 * error.sum(axis=0) / 12]  # the gradient of the mean squared error, by hand
for parts in (1, 2, 4):
    optimizer.zero_grad()
    rows = np.split(np.arange(12), parts)
    losses = [float(train_step(model, x[r], t[r], optimizer, MSELoss(), accumulate=parts)) for r in rows]
    wanted = [float(np.mean(error[r] ** 2)) for r in rows]
    assert np.allclose(losses, wanted, rtol=1e-4), (
        f"accumulate={parts}: expected the loss of each part as it is, {np.round(wanted, 4)}, got {np.round(losses, 4)}"
    )
    for p, g in zip(model.parameters(), whole, strict=True):
        got = np.asarray(p.grad)
        assert np.allclose(got, g, rtol=1e-3, atol=1e-5), (
            f"{parts} parts must add up to the gradient of the whole batch: expected {g.round(4)}, got {got.round(4)}"
        )
assert all(np.array_equal(np.asarray(p), a) for p, a in zip(model.parameters(), (w, b), strict=True)), (
    "train_step must not change the parameters: the optimizer's step comes later"
)
### BEGIN HIDDEN TESTS
grads = [np.asarray(p.grad).copy() for p in model.parameters()]
for bad in (np.nan, np.inf):
    try:
        train_step(model, x[:2], np.full((2, 1), bad, np.float32), optimizer, MSELoss())
        said = None
    except FloatingPointError as e:
        said = str(e)
    assert said is not None, f"targets of {bad}: expected FloatingPointError, got none"
    assert "\n" not in said and ("nan" in said or "inf" in said) and "0.25" in said, (
        f"the error must name the loss and the learning rate, 0.25, in one line; it says: {said}"
    )
    now = [np.asarray(p.grad) for p in model.parameters()]
    assert all(np.array_equal(a, g) for a, g in zip(now, grads, strict=True)), (
        "after the error the gradients must be as they were: check the loss before backward"
    )
### END HIDDEN TESTS

# %% [markdown]
# ## 7. An epoch
#
# One pass over the loader. After every `accumulate` batches comes one step of the optimizer, in this order: set
# the learning rate by the schedule, clip, step, forget the gradients. Batches and steps are counted apart, and the
# schedule goes by steps. By hand: 5 batches with `accumulate=2` are 2 steps, and the fifth batch only adds to the
# report.
#
# You write what happens with one batch: append its loss to `losses`, and make the step when it is due. The learning
# rate is `optimizer.lr`, the parameters are `optimizer.parameters`; without a schedule or a `clip_norm` (None) leave
# that part out.
#
# The progress bar is given. It is drawn on the error stream, so it never mixes with what the cell prints, and
# `progress=False` leaves it out. The bar is a widget in a notebook that can show one, and text elsewhere.

# %%
#| export
def _progress_bar(loader, title="", show=True):
    """`loader` with a progress bar on the error stream; `loader` itself unless `show`."""
    if not show:
        return loader
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets tqdm warns, and then draws text, as it should
        from tqdm.auto import tqdm
    return tqdm(loader, desc=title, leave=False)


# %% nbgrader={"grade_id": "train-epoch", "solution": true}
#| export
def train_epoch(
    model, loader, optimizer, loss_fn, step, schedule=None, clip_norm=None, accumulate=1, progress=True, title=""
):
    """One pass over `loader`, a step of the optimizer after every `accumulate` batches; returns the losses.

    `step` is the number of the first step, `schedule(step)` the learning rate of each, `clip_norm` the bound
    for the gradients' norm. It starts without gradients; batches left over at the end, fewer than
    `accumulate`, make no step. Raises FloatingPointError like `train_step`.
    """
    losses = []
    optimizer.zero_grad()
    for x, y in _progress_bar(loader, title, progress):
        ### BEGIN SOLUTION
        losses.append(train_step(model, x, y, optimizer, loss_fn, accumulate))
        if len(losses) % accumulate == 0:
            if schedule is not None:
                optimizer.lr = schedule(step)
            if clip_norm is not None:
                clip_grad_norm(optimizer.parameters, clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
        ### END SOLUTION
    return losses


# %%
x, y = spirals(400)
model = small_model()
optimizer = SGD(model.parameters(), lr=0.5)

# %% tags=["nbval-check-output"]
for epoch in range(3):
    losses = train_epoch(model, Shuffled(x, y, 50), optimizer, CrossEntropyLoss(), 0, progress=False)
    print(len(losses), round(float(np.mean(losses)), 3))


# %% [markdown]
# The test repeats the epoch in NumPy for a linear model, where the gradient is one line.

# %% nbgrader={"grade_id": "test-train-epoch", "grade": true, "points": 3}
def by_hand(batches, w, lrs, accumulate=1, clip_norm=np.inf):
    """Weights (1, 3) after gradient descent on the mean squared error of x @ w.T, in NumPy."""
    for k, lr in enumerate(lrs):
        part = batches[k * accumulate : (k + 1) * accumulate]
        g = sum(2 * (x @ w.T - t).T @ x / len(x) for x, t in part) / accumulate
        w = w - lr * g * min(1, clip_norm / np.linalg.norm(g))
    return w


def run_epoch(batches, seed, **options):
    """Weights before and after train_epoch, and the losses."""
    manual_seed(seed)
    model = Sequential(Linear(3, 1, bias=False))
    optimizer = SGD(model.parameters(), lr=0.1)
    before = np.asarray(model[0].weight).copy()
    model[0].weight.grad = Tensor(np.full((1, 3), 100.0))  # left over from something else
    losses = train_epoch(model, batches, optimizer, MSELoss(), progress=False, **options)
    return before, np.asarray(model[0].weight), [float(loss) for loss in losses]


draw = np.random.default_rng(5)
batches = [(draw.standard_normal((4, 3)).astype(np.float32), draw.standard_normal((4, 1))) for _ in range(5)]
before, after, losses = run_epoch(batches, 1, step=0)
wanted = by_hand(batches, before, [0.1] * 5)
assert len(losses) == 5, f"expected the losses of 5 batches, got {len(losses)}"
assert np.allclose(after, wanted, atol=1e-4), (
    f"5 batches, lr 0.1: expected the weights {wanted.round(4)}, got {after.round(4)}; "
    "are the gradients of the last step forgotten?"
)
called = []
before, after, _ = run_epoch(batches, 2, step=7, accumulate=2, schedule=lambda k: called.append(k) or 0.02 * k)
assert called == [7, 8], f"5 batches, accumulate=2, first step 7: the schedule is asked for steps [7, 8], got {called}"
wanted = by_hand(batches, before, [0.14, 0.16], accumulate=2)
assert np.allclose(after, wanted, atol=1e-4), f"two steps with lr 0.14, 0.16: expected {wanted.round(4)}, got {after.round(4)}"
### BEGIN HIDDEN TESTS
for clip_norm, accumulate in ((0.3, 1), (0.05, 2), (1e6, 1)):
    before, after, _ = run_epoch(batches, 3, step=0, clip_norm=clip_norm, accumulate=accumulate)
    wanted = by_hand(batches, before, [0.1] * (5 // accumulate), accumulate, clip_norm)
    assert np.allclose(after, wanted, atol=1e-4), (
        f"clip_norm={clip_norm}, accumulate={accumulate}: expected {wanted.round(4)}, got {after.round(4)}; "
        "clip once a step, before the step"
    )
_, _, losses = run_epoch(batches, 4, step=0, schedule=lambda k: 0.0)
before, _, alone = run_epoch(batches[4:], 4, step=0)
assert np.isclose(losses[4], alone[0]), (
    f"with a learning rate of 0 nothing may change: expected the fifth loss {alone[0]:.4f}, got {losses[4]:.4f}; "
    "set lr before the step"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 8. Checkpoints: to stop is not to start anew
#
# A checkpoint holds everything that the next epoch depends on. What is that? The parameters, and the buffers. What
# the optimizer remembers: momentum, running means, how many steps it has made. The history, for it says how many
# epochs and steps are done. And the state of the random generator, or dropout will drop other units than it
# would have: that state is `default_rng().bit_generator.state`, a dict.
#
# All of it goes into one safetensors file: the arrays of `model.state_dict()` and `optimizer.state_dict()` under
# the names `model.<name>` and `optimizer.<name>`, the rest as text in the file's metadata, `history` and `random`,
# each by `json.dumps`. JSON writes a Python float so that it comes back to the last bit. The call is
# `save_file(arrays, path, metadata)`, with two dicts. Pass every array through `np.asarray(a, order="C")`, for
# safetensors writes memory as it lies. (`np.ascontiguousarray` would do that too, but turns a single number into
# an array of shape (1,).)
#
# Writing takes time, and a run may be cut in just that time. So the file is first written under the name
# `temporary`, which is given, and then renamed with `os.replace(temporary, path)`. Renaming happens or does not
# happen; at every moment the old checkpoint or the new one is there, whole.

# %% nbgrader={"grade_id": "save-checkpoint", "solution": true}
#| export
def save_checkpoint(path, model, optimizer, history):
    """Write weights, optimizer state, history and random state to one safetensors file, whole or not at all.

    `history` is a list of dicts of numbers. The folder is made if it is missing; an older file is replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        ### BEGIN SOLUTION
        arrays = {f"model.{k}": np.asarray(v, order="C") for k, v in model.state_dict().items()}
        arrays |= {f"optimizer.{k}": np.asarray(v, order="C") for k, v in optimizer.state_dict().items()}
        notes = {"history": json.dumps(history), "random": json.dumps(default_rng().bit_generator.state)}
        save_file(arrays, temporary, notes)
        os.replace(temporary, path)
        ### END SOLUTION
    finally:
        temporary.unlink(missing_ok=True)


# %% [markdown]
# Here is what is in such a file:

# %% tags=["nbval-check-output"]
saved = small_model(hidden=3)
save_checkpoint(folder / "first", saved, SGD(saved.parameters(), lr=0.1), [{"epoch": 1, "loss": 0.5}])
with safe_open(folder / "first", framework="numpy") as f:
    print(sorted(f.keys()), f.metadata()["history"])


# %% nbgrader={"grade_id": "test-save-checkpoint", "grade": true, "points": 2}
def contents(path):
    """The arrays and the notes of a safetensors file."""
    with safe_open(path, framework="numpy") as f:
        return {k: f.get_tensor(k) for k in f.keys()}, f.metadata() or {}


place = Path(tempfile.mkdtemp(dir=folder))
model = small_model(hidden=4, seed=5)
optimizer = SGD(model.parameters(), lr=0.37, momentum=0.9)
for p in model.parameters():
    p.grad = Tensor(np.ones(p.shape))
optimizer.step()
history = [{"epoch": 1, "steps": 3, "loss": 0.1 + 0.2}]
state = json.loads(json.dumps(default_rng().bit_generator.state))
save_checkpoint(place / "run", model, optimizer, history)
arrays, notes = contents(place / "run")
for prefix, part in (("model.", model), ("optimizer.", optimizer)):
    for name, value in part.state_dict().items():
        assert prefix + name in arrays, f"expected an array {prefix + name} in the file, it has {sorted(arrays)}"
        got, value = np.asarray(arrays[prefix + name]), np.asarray(value)
        assert got.shape == value.shape and np.array_equal(got, value), (
            f"{prefix + name}: expected {value.shape} {value.ravel()[:3]}, got {got.shape} {got.ravel()[:3]}"
        )
assert json.loads(notes["history"]) == history, f"history: expected {history}, got {notes['history']}"
assert json.loads(notes["random"]) == state, "random: expected default_rng().bit_generator.state as JSON"
### BEGIN HIDDEN TESTS
os.link(place / "run", place / "old")  # a second name for the old file: it stays whole only if the new one is renamed
draw = float(default_rng().random())
save_checkpoint(place / "run", model, optimizer, history * 2)
assert len(json.loads(contents(place / "run")[1]["history"])) == 2, "a second save must replace the file"
assert json.loads(contents(place / "run")[1]["random"]) != state, "the random state must be the one at the time of saving"
assert len(json.loads(contents(place / "old")[1]["history"])) == 1, "write under the temporary name, then os.replace"
names = sorted(p.name for p in place.iterdir())
assert names == ["old", "run"], f"expected only the checkpoint in its folder, got {names}"
### END HIDDEN TESTS

# %% [markdown]
# Reading comes in two parts. The first is given: open the file, and if it is something else, say which file and
# what it is not, in one line. A model file written by `save` (03) is a safetensors file too, so the notes are
# looked at as well.
#
# The second part is yours: sort the arrays by what stands before the first point of their names
# (`"model.0.weight".partition(".")` gives `"model"`, `"."` and `"0.weight"`), hand each half to its
# `load_state_dict`, set the state of the generator from `notes["random"]`, and return the history. `json.loads`
# undoes `json.dumps`.

# %%
#| export
def _read_checkpoint(path):
    """The arrays and the notes (a dict of text) in a file that `save_checkpoint` wrote.

    Raises FileNotFoundError without such a file, ValueError for a file of another kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"load_checkpoint: no file {path}")
    try:
        with safe_open(path, framework="numpy") as f:
            arrays, notes = {k: f.get_tensor(k) for k in f.keys()}, f.metadata() or {}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(
            f"load_checkpoint: {path} is not a checkpoint ({error}); remove it to start anew"
        ) from None
    if not {"history", "random"} <= notes.keys():
        raise ValueError(f"load_checkpoint: {path} is not a checkpoint (it has no history); name another file")
    return arrays, notes


# %% nbgrader={"grade_id": "load-checkpoint", "solution": true}
#| export
def load_checkpoint(path, model, optimizer):
    """Put what `save_checkpoint` wrote back into model, optimizer and random generator; return the history.

    Raises FileNotFoundError or ValueError for a file that is not there or not a checkpoint, and what
    `model.load_state_dict` raises for a file of another model.
    """
    arrays, notes = _read_checkpoint(path)
    ### BEGIN SOLUTION
    states = {"model": {}, "optimizer": {}}
    for name, array in arrays.items():
        part, _, key = name.partition(".")
        states[part][key] = array
    model.load_state_dict(states["model"])
    optimizer.load_state_dict(states["optimizer"])
    default_rng().bit_generator.state = json.loads(notes["random"])
    return json.loads(notes["history"])
    ### END SOLUTION


# %% tags=["nbval-check-output"]
again = small_model(hidden=3, seed=99)
print(load_checkpoint(folder / "first", again, SGD(again.parameters(), lr=0.1)))
print(np.array_equal(saved[0].weight.numpy(), again[0].weight.numpy()))

# %% nbgrader={"grade_id": "test-load-checkpoint", "grade": true, "points": 2}
place = Path(tempfile.mkdtemp(dir=folder))
model = small_model(hidden=4, seed=6)
optimizer = SGD(model.parameters(), lr=0.5, momentum=0.9)
draw = np.random.default_rng(6)
weights = {name: draw.standard_normal(a.shape).astype(np.float32) for name, a in model.state_dict().items()}
memory = {f"{i}.momentum": draw.standard_normal(p.shape).astype(np.float32) for i, p in enumerate(model.parameters())}
history = [{"epoch": 1, "steps": 3, "loss": 0.1 + 0.2}, {"epoch": 2, "steps": 3, "loss": 1 / 3}]
manual_seed(123)
state = json.dumps(default_rng().bit_generator.state)
coming = default_rng().random(3)
arrays = {f"model.{k}": v for k, v in weights.items()} | {f"optimizer.{k}": v for k, v in memory.items()}
arrays["optimizer.lr"] = np.asarray(0.125)
save_file(arrays, place / "run", {"history": json.dumps(history), "random": state})
manual_seed(321)
got = load_checkpoint(place / "run", model, optimizer)
assert got == history, f"load_checkpoint returns the history: expected {history}, got {got}"
for name, a in model.state_dict().items():
    got, wanted = np.asarray(a).ravel()[:3], weights[name].ravel()[:3]
    assert np.array_equal(np.asarray(a), weights[name]), f"model, {name}: expected {wanted}... from the file, got {got}..."
assert float(optimizer.lr) == 0.125, f"the optimizer's lr: expected 0.125 from the file, got {optimizer.lr}"
kept = optimizer.state_dict()
for name, a in memory.items():
    assert name in kept, f"expected {name} in the optimizer's state, it has {sorted(kept)}"
    got = np.asarray(kept[name])
    assert np.array_equal(got, a), f"optimizer, {name}: expected {a.ravel()[:3]} from the file, got {got.ravel()[:3]}"
drawn = default_rng().random(3)
assert np.array_equal(drawn, coming), (
    f"after loading the generator must go on where it was saved: expected {coming.round(4)}, got {drawn.round(4)}"
)
### BEGIN HIDDEN TESTS
(place / "text").write_text("epoch,loss\n1,0.5\n")
(place / "cut").write_bytes((place / "run").read_bytes()[:-7])
save_file(weights, place / "weights")
for name, kind in (("none", FileNotFoundError), ("text", ValueError), ("cut", ValueError), ("weights", ValueError)):
    try:
        load_checkpoint(place / name, model, optimizer)
        said = None
    except kind as e:
        said = str(e)
    assert said is not None and name in said and "\n" not in said, f"file {name!r}: expected one line with its name, got {said}"
### END HIDDEN TESTS

# %% [markdown]
# ## 9. What is written down after an epoch
#
# One dict of plain numbers per epoch is all the history we need: `epoch` (counted from 1, for people), `steps`
# (how many steps this epoch made), `loss` (the mean of the losses of its batches), `lr` (the last learning rate)
# and `seconds`. By hand: 5 losses and `accumulate=2` are 2 steps.
#
# If there were fewer batches than `accumulate`, no step was made and nothing was learned. Better an error than an
# hour of that.

# %% nbgrader={"grade_id": "epoch-entry", "solution": true}
#| export
def epoch_entry(epoch, losses, accumulate, lr, seconds):
    """The record of epoch `epoch` (counted from 0): a dict of epoch (from 1), steps, loss, lr, seconds.

    Raises ValueError if there were fewer batches than `accumulate`, so that no step was made.
    """
    if len(losses) < accumulate:
        raise ValueError(
            f"train_loop: the loader gave {len(losses)} batches in epoch {epoch + 1}, fewer than "
            f"accumulate={accumulate}; a generator is used up after one pass, use a list or a DataLoader"
        )
    ### BEGIN SOLUTION
    steps, loss = len(losses) // accumulate, float(np.mean(losses))
    return {"epoch": epoch + 1, "steps": steps, "loss": loss, "lr": float(lr), "seconds": float(seconds)}
    ### END SOLUTION


# %% tags=["nbval-check-output"]
epoch_entry(0, [1.0, 0.5, 0.75, 0.25, 0.5], accumulate=2, lr=0.1, seconds=1.5)

# %% nbgrader={"grade_id": "test-epoch-entry", "grade": true, "points": 1}
got = epoch_entry(4, [3.0, 2.0, 1.0, 0.0, 1.5, 1.5, 2.5], 3, np.float64(0.25), 2.0)
wanted = {"epoch": 5, "steps": 2, "loss": 11.5 / 7, "lr": 0.25, "seconds": 2.0}
assert got.keys() == wanted.keys(), f"expected the entries {list(wanted)}, got {list(got)}"
for name, value in wanted.items():
    assert np.isclose(got[name], value), f"{name}: expected {value}, got {got[name]}"
text = json.dumps(got)  # the checkpoint needs plain Python numbers
assert "epoch" in text, f"expected the entry as JSON, got {text}"

# %% [markdown]
# ## 10. The loop
#
# Now put the pieces together. For each epoch that the history does not have yet:
#
# 1. tell the loader which epoch it is, if it can be told (given below);
# 2. train the epoch by `train_epoch`; its first step has the number of all steps so far, the sum of `steps` over
#    the history, and `title` is the text of its progress bar;
# 3. make the entry by `epoch_entry`; the seconds are those since `start`, by `time.perf_counter()`;
# 4. with a second loader `validate`, evaluate on it and add the results as `val_loss` and `val_accuracy`;
# 5. append the entry, write the checkpoint if a name is given, call every callback with the entry.
#
# The order of the last point matters. The checkpoint comes before the callbacks, so a callback that raises, or
# the stop button pressed in the middle of the next epoch, costs at most that epoch.
#
# Call the same cell again and it goes on: the number of entries in the checkpoint's history is the number of
# epochs that are done.

# %% nbgrader={"grade_id": "train-loop", "solution": true}
#| export
def train_loop(
    model,
    loader,
    optimizer,
    epochs=1,
    loss_fn=None,
    schedule=None,
    clip_norm=None,
    accumulate=1,
    validate=None,
    callbacks=(),
    checkpoint=None,
    progress=True,
):
    """Train for `epochs` passes over `loader` and return the history, a list with one dict an epoch.

    `loader` gives pairs (x, y); if it has a method `set_epoch`, that is called before each pass. The
    optimizer steps after every `accumulate` batches; `schedule(step)` gives the learning rate of each step,
    `clip_norm` the bound for the gradients' norm. `loss_fn` is CrossEntropyLoss by default. `validate` is a
    second loader, evaluated after each epoch. Each callback is called with the epoch's dict: epoch, steps,
    loss, lr, seconds (of training), val_loss and val_accuracy. With `checkpoint`, a file name, the state is
    written there after every epoch, and training goes on from it if it is there.

    Raises ValueError for `accumulate` < 1 or more than the loader has batches, FloatingPointError if the
    loss is not finite.
    """
    if accumulate < 1:
        raise ValueError(f"train_loop: expected accumulate >= 1, got {accumulate}")
    loss_fn = loss_fn or CrossEntropyLoss()
    history = load_checkpoint(checkpoint, model, optimizer) if checkpoint and Path(checkpoint).exists() else []
    model.train()
    for epoch in range(len(history), epochs):
        start, title = time.perf_counter(), f"epoch {epoch + 1}/{epochs}"
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        ### BEGIN SOLUTION
        step = sum(entry["steps"] for entry in history)
        losses = train_epoch(
            model, loader, optimizer, loss_fn, step, schedule, clip_norm, accumulate, progress, title
        )
        entry = epoch_entry(epoch, losses, accumulate, optimizer.lr, time.perf_counter() - start)
        if validate is not None:
            entry |= {f"val_{name}": value for name, value in evaluate(model, validate, loss_fn).items()}
        history.append(entry)
        if checkpoint:
            save_checkpoint(checkpoint, model, optimizer, history)
        for callback in callbacks:
            callback(entry)
        ### END SOLUTION
    return history


# %%
x, y = spirals(600)
model = small_model(hidden=64)
optimizer = AdamW(model.parameters(), lr=0.02)
history = train_loop(model, Shuffled(x, y, 50), optimizer, epochs=12, validate=[spirals(300, seed=1)], progress=False)

# %% tags=["nbval-check-output"]
for entry in (history[0], history[3], history[-1]):
    print(entry["epoch"], entry["steps"], round(entry["loss"], 1), round(entry["val_accuracy"], 1))

# %% nbgrader={"grade_id": "test-train-loop", "grade": true, "points": 3}
x, y = spirals(120, seed=8)
model = small_model(hidden=32, seed=8)
called, told = [], []
history = train_loop(
    model, Shuffled(x, y, 25), SGD(model.parameters(), lr=9.0, momentum=0.9), epochs=12, accumulate=2, clip_norm=5.0,
    schedule=lambda k: called.append(k) or 0.01 + 0.01 * k, validate=[(x, y)], callbacks=[told.append], progress=False,
)
assert [entry["epoch"] for entry in history] == list(range(1, 13)), "expected one entry an epoch, numbered from 1"
assert called == list(range(24)), f"5 batches, accumulate=2, 12 epochs are steps 0 to 23; the schedule was asked for {called}"
got = [round(float(entry["lr"]), 4) for entry in history[:3]]
assert got == [0.02, 0.04, 0.06], f"lr of the first three entries: expected [0.02, 0.04, 0.06], got {got}"
assert [entry["epoch"] for entry in told] == list(range(1, 13)), "each callback is called once an epoch, with its entry"
now = evaluate(model, [(x, y)])
for name in ("loss", "accuracy"):
    got = history[-1].get(f"val_{name}", np.nan)
    assert np.isclose(got, now[name]), f"val_{name} of the last entry: expected {now[name]:.4f} as evaluate says, got {got}"
first, last = history[0]["loss"], history[-1]["loss"]
assert last < first - 0.03, f"the loss must fall; it went from {first:.3f} to {last:.3f}"
### BEGIN HIDDEN TESTS
model = small_model(seed=9)
before = [np.asarray(p).copy() for p in model.parameters()]
try:
    train_loop(model, [(np.full((4, 2), np.nan), np.zeros(4, int))], SGD(model.parameters(), lr=0.1), progress=False)
    raised = False
except FloatingPointError:
    raised = True
assert raised, "a batch of NaN: expected FloatingPointError, got none"
assert all(np.array_equal(np.asarray(p), a) for p, a in zip(model.parameters(), before, strict=True)), (
    "after a loss that is NaN the parameters must be as they were"
)
batches = [(x[k : k + 40], np.eye(2)[y[k : k + 40]]) for k in range(0, 120, 40)]
model = small_model(seed=9)
train_loop(model, batches, SGD(model.parameters(), lr=1.0), 2, MSELoss(), clip_norm=0.001, progress=False)
moved = np.sqrt(sum(np.sum((np.asarray(p) - a) ** 2) for p, a in zip(model.parameters(), before, strict=True)))
assert 0 < moved < 0.00601, f"6 steps with lr 1 and clip_norm 0.001 move the parameters by at most 0.006, they moved {moved:.4f}"
### END HIDDEN TESTS


# %% [markdown]
# Now the promise of the first lines: a run that was cut and goes on gives the same numbers, to the last bit, as one
# that was left alone. The test has dropout, momentum, shuffled batches and a schedule. It stops the run by an
# interrupt, and goes on in a fresh model with another seed.

# %% nbgrader={"grade_id": "test-resume", "grade": true, "points": 3}
def run(path, epochs, seed, interrupt_after=None):
    """Train up to `epochs`, or until a KeyboardInterrupt after an epoch; all numbers that came out."""
    x, y = spirals(90, seed=10)
    model = small_model(hidden=8, dropout=0.3, seed=seed)

    def stop(entry):
        if entry["epoch"] == interrupt_after:
            raise KeyboardInterrupt

    options = {"schedule": CosineSchedule(0.2, total=20, warmup=4), "clip_norm": 2.0, "accumulate": 2}
    options |= {"validate": [(x, y)], "callbacks": [stop], "checkpoint": path, "progress": False}
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    try:
        history = train_loop(model, Shuffled(x, y, 20), optimizer, epochs, **options)
    except KeyboardInterrupt:
        return None
    plain = [{name: value for name, value in entry.items() if name != "seconds"} for entry in history]
    return plain, {name: np.asarray(a).copy() for name, a in model.state_dict().items()}


place = Path(tempfile.mkdtemp(dir=folder))
alone, weights = run(None, epochs=6, seed=0)
assert run(place / "cut", epochs=6, seed=0, interrupt_after=3) is None, "the interrupt of a callback must come through"
done = len(json.loads(contents(place / "cut")[1]["history"]))
assert done == 3, f"interrupted by the callback of epoch 3: expected 3 epochs in the checkpoint, it has {done}; save first"
resumed, again = run(place / "cut", epochs=6, seed=1)
assert len(resumed) == 6, f"3 epochs, an interrupt, and on to 6: expected a history of 6 entries, got {len(resumed)}"
for a, b in zip(alone, resumed, strict=True):
    assert a == b, f"epoch {a['epoch']}: the undisturbed run has {a}, the resumed one {b}"
for name, a in weights.items():
    assert np.array_equal(a, again[name]), (
        f"{name}: the resumed run differs from the undisturbed one by up to {np.abs(a - again[name]).max():.2g}; "
        "model, optimizer, history and random state must all come back"
    )

# %% [markdown]
# ## 11. How it looks
#
# Three schedules with the same peak, and what the loss on the spirals makes of them. One label in ten is made
# wrong, as in most real data, so that there is something to be thrown about by.

# %% tags=["measure"]
x, y = spirals(600)
y = np.where(np.random.default_rng(0).random(600) < 0.1, 1 - y, y)  # one label in ten is wrong
total = 40 * 12  # epochs times steps
plans = {"constant": ConstantSchedule(0.5)}
plans |= {"linear": LinearSchedule(0.5, total, total // 10), "cosine": CosineSchedule(0.5, total, total // 10)}


# %% tags=["measure"]
def losses_with(schedule):
    """The training loss of each of 40 epochs."""
    model = small_model(hidden=64)
    optimizer = SGD(model.parameters(), lr=0.5, momentum=0.9)
    history = train_loop(model, Shuffled(x, y, 50), optimizer, 40, schedule=schedule, progress=False)
    return [entry["loss"] for entry in history]


# %% tags=["measure"]
curves = {name: losses_with(schedule) for name, schedule in plans.items()}

# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import show

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6))
for name, losses in curves.items():
    left.plot([plans[name](step) for step in range(total + 1)], label=name)
    right.plot(range(1, len(losses) + 1), losses, label=name)
left.set(xlabel="step", ylabel="learning rate")
right.set(xlabel="epoch", ylabel="training loss")
right.legend(loc="upper right")
last = ", ".join(f"{min(losses[-10:]):.2f} to {max(losses[-10:]):.2f} with {name}" for name, losses in curves.items())
show(
    figure,
    alt="Left, the learning rate against the step: a flat line, a ramp up and straight down, a ramp up and half a wave "
    f"down. Right, the training loss against the epoch for each; in the last ten epochs it is {last}.",
)

# %% [markdown]
# Look at the right ends: with the constant rate the loss keeps jumping about, while the two that decay settle, and lower.

# %% [markdown]
# A long run is better watched than waited for. `LivePlot` is a callback: it draws loss and accuracy anew after every
# epoch, and `follow` counts the batches in between. Start the cell and interrupt it (the square in the toolbar), then
# run it again: it goes on from its checkpoint, as your `train_loop` promises.

# %% tags=["measure"]
from tito.live import LivePlot

checkpoint = folder / "watched.safetensors"
model = small_model(hidden=64)
optimizer = AdamW(model.parameters(), lr=0.01)
plot = LivePlot(60, checkpoint, unit="points")
loader = Shuffled(*spirals(4000), 20)
history = train_loop(
    model, plot.follow(loader), optimizer, 60, validate=[spirals(300, seed=1)],
    callbacks=[plot], checkpoint=checkpoint, progress=False,
)

# %% [markdown]
# ## 12. Where the time of a step goes
#
# A step has three parts: forward, backward, update. Forward and backward do work for every item of the batch. The
# update does work for every parameter, whatever the batch. So look at two things: how the share of the update
# changes from a small batch to a large one, and how backward compares with forward. (Each matrix product on the
# way out has two on the way back, one for the weights and one for the input.)

# %% tags=["measure"]
def parts_of_a_step(batch, repeats=9):
    """Median milliseconds of forward, backward and update of a small network, for one batch size."""
    manual_seed(0)
    model = Sequential(Linear(64, 256), ReLU(), Linear(256, 256), ReLU(), Linear(256, 10))
    optimizer, loss_fn = AdamW(model.parameters()), CrossEntropyLoss()
    x, y = Tensor(np.ones((batch, 64))), np.arange(batch) % 10
    times = []
    for _ in range(repeats):
        marks = [time.perf_counter()]
        loss = loss_fn(model(x), y)
        marks.append(time.perf_counter())
        loss.backward()
        marks.append(time.perf_counter())
        optimizer.step()
        marks.append(time.perf_counter())
        optimizer.zero_grad()
        times.append(np.diff(marks))
    return 1000 * np.median(times, axis=0)


# %% tags=["measure"]
for batch in (8, 64, 512):
    forward, backward, update = parts_of_a_step(batch)
    whole = forward + backward + update
    print(f"batch {batch:3}: {whole:5.1f} ms, forward {forward / whole:4.0%}, backward {backward / whole:4.0%}, "
          f"update {update / whole:4.0%}; {1000 * whole / batch:6.1f} microseconds an item")

# %% [markdown]
# Gradient accumulation, seen from here: it lets a small memory train with the steps of a large batch, and it saves
# updates. What it does not save are the fixed costs of forward and backward, which each part pays.

# %% [markdown]
# ## 13. What breaks
#
# **A loss that is not a number.** Here a single broken item in a batch of four. Without the check its NaN would
# be in the parameters one step later, and the run would go on.

# %% tags=["nbval-check-output"]
x, y = spirals(4)
x[2, 0] = np.nan
model = small_model()
attempt(train_loop, model, [(x, y)], SGD(model.parameters(), lr=0.1), progress=False)
print("parameters still finite:", all(np.isfinite(p.numpy()).all() for p in model.parameters()))

# %% [markdown]
# **A generator as a loader.** It is used up after the first epoch, and the second finds nothing.

# %% tags=["nbval-check-output"]
once = ((x, y) for x, y in [spirals(8)])
attempt(train_loop, model, once, SGD(model.parameters(), lr=0.1), epochs=2, progress=False)

# %% [markdown]
# **A checkpoint that is something else**: here a file of text under its name. `train_loop` does not quietly start
# anew and overwrite it after the first epoch; it says what it found.

# %% tags=["nbval-check-output"]
(folder / "notes.txt").write_text("learning rate 0.1 was better")
attempt(train_loop, model, [spirals(8)], SGD(model.parameters(), lr=0.1), checkpoint=folder / "notes.txt", progress=False)

# %% [markdown]
# **Gradients that are never forgotten** raise nothing at all. The gradient of step k is then the sum of all k
# gradients so far, as if by a momentum that never fades. On one and the same batch it is simply k times too large:

# %% tags=["nbval-check-output"]
x, y = spirals(8)
model = small_model()
for k in range(3):
    train_step(model, x, y, SGD(model.parameters(), lr=0.1), CrossEntropyLoss())
    print(k + 1, round(clip_grad_norm(model.parameters(), max_norm=1e9), 3))

# %% [markdown]
# ## Exercises
#
# 1. Write a schedule that goes down by a factor of ten at given steps, as an object without memory.
# 2. `train_loop` saves the last state. Write a callback that keeps the best model by `val_accuracy`. What must it
#    copy?
# 3. Early stopping: end the training when `val_loss` has not improved for five epochs. How can a callback tell
#    the loop, without the loop knowing about it?
# 4. `evaluate` is for classifiers. Give it a parameter for the measure, so that it can report the mean absolute
#    error of a regression.
# 5. Checkpoints after every epoch are too rare when an epoch takes a day. What would have to be in the file to
#    resume in the middle of one?
#
# ## Elsewhere
#
# PyTorch's schedulers are objects with a counter, `scheduler.step()`, that has to be called after
# `optimizer.step()` and saved with its own `state_dict`. Its `clip_grad_norm_` is ours; by default it lets a norm
# that is not finite pass. `torch.save` writes checkpoints as pickles, and the loop itself is yours to write, or
# comes from Lightning or Accelerate. In JAX a step is a pure function: parameters, optimizer state and a random
# key go in, new ones come out. Nothing has to be set to zero or put back into a mode, a checkpoint (Orbax) is
# just those values, and Optax schedules are functions of the step, as ours are.
#
# ## Summary
#
# - A schedule is a function of the step; warm-up starts above zero, decay ends at `final`.
# - Clipping changes the length of the whole gradient and never its direction.
# - Evaluation: each part in evaluation mode and back, no recording, the mean over items.
# - Check the loss before backward; one step after every `accumulate` batches.
# - A run resumes exactly if weights, optimizer, history and random state come back, and the order of the data
#   depends on the epoch alone. Write under another name, then rename.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/training.py`;
# `tito module complete 07` in a terminal does the same.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
