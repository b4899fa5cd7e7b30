# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 04 Losses
#
# > Losses: one number that says how wrong a batch of predictions is.
#
# Training makes one number small. This lesson builds the three that most of deep learning uses: the mean
# squared error for quantities, cross entropy for one class out of many, and binary cross entropy for yes or
# no. Each is a line of algebra, and each, written down as in the textbook, fails on a computer: exponentials
# overflow, logarithms meet zero, wrong labels pick the wrong number and say nothing.
#
# **Why it matters to a system.** The loss is where a mistake becomes invisible. A shape that broadcasts or a
# label of -1 still gives a number, and training goes on towards it. So half of this lesson is arithmetic that
# does not overflow, the other half checks that name what is wrong.
#
# **You need** `Tensor` and `apply` (01) and softmax (02). The losses go through `apply`, so that lesson 05
# can find their gradients.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 04

# %%
#| export
import numpy as np

from tinytorch.tensor import Tensor, apply

# %% nbgrader={"grade_id": "tools", "locked": true}
from tinytorch.activations import softmax
from tinytorch.tensor import set_recorder


def attempt(function, *args, **kwargs):
    """Print what `function` returns, or the error that it raises, on one line."""
    try:
        print(function(*args, **kwargs))
    except Exception as error:
        print(f"{type(error).__name__}: {error}")


# %% nbgrader={"grade_id": "listen", "locked": true}
def primitives_of(function, *args):
    """The names of the primitives that `function(*args)` sends through `apply`, in order."""
    names = []
    set_recorder(lambda primitive, inputs, params, out, y: names.append(primitive.__name__), None)
    try:
        function(*args)
    finally:
        set_recorder(None, None)
    return names


# %% [markdown]
# Every loss here has two parts. A function on arrays, `mse_forward`, computes; a class, `MSELoss`, checks
# its input and sends the function through `apply`. `primitives_of` listens at `apply`. What is not heard
# there will have no gradient in lesson 05.

# %% tags=["nbval-check-output"]
x = Tensor([1.0, 2.0])
primitives_of(lambda: (x * x).sum())

# %% [markdown]
# ## 1. Mean squared error
#
# For quantities: a temperature, a price, a pixel. With predictions [1, 2, 3] and targets [1, 4, 0] the
# differences are 0, -2 and 3, their squares 0, 4 and 9, and the mean is 13/3, about 4.33.
#
# ### Exercise: mse_forward
#
# The mean is taken over all elements, whatever the shape. Leave both inputs as they are.


# %% nbgrader={"grade_id": "mse-forward", "solution": true}
#| export
def mse_forward(x, targets):
    """The mean of (x - targets)² over all elements; arrays of one shape, the result a number."""
    ### BEGIN SOLUTION
    d = x - targets
    return np.mean(d * d)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(round(float(mse_forward(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 0.0]))), 4))

# %% nbgrader={"grade_id": "test-mse-forward", "grade": true, "points": 2}
rng = np.random.default_rng(1)
for shape in ((3,), (4, 5), (2, 3, 4)):
    x, t = rng.standard_normal(shape), rng.standard_normal(shape)
    naive = sum((a - b) ** 2 for a, b in zip(x.ravel(), t.ravel(), strict=True)) / x.size
    got = float(mse_forward(x, t))
    assert abs(got - naive) < 1e-9, (
        f"shape {shape}: expected {naive:.6f}, got {got:.6f}: mean over all elements"
    )
### BEGIN HIDDEN TESTS
x, t = np.full((7, 2), 3.0, np.float32), np.full((7, 2), -1.0, np.float32)
got = mse_forward(x, t)
assert float(got) == 16, f"expected 16 for 3 against -1, got {float(got)}"
assert str(np.asarray(got).dtype) == "float32", (
    f"expected float32 in, float32 out, got {np.asarray(got).dtype}"
)
assert float(x[0, 0]) == 3, "expected the input unchanged: do not work in place"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: a check for the shapes
#
# NumPy broadcasts: (3,) against (3, 1) gives all nine differences, and their mean is a number, too. It is
# the most common silent mistake in regression. `check_same_shape` refuses it, and an empty batch as well,
# whose mean would be 0/0. The message begins with the name of the loss and names both shapes. The function
# gets arrays here and tensors from the losses; what both have is `shape`.

# %% tags=["nbval-check-output"]
x, t = np.array([1.0, 2.0, 3.0]), np.array([[1.0], [2.0], [3.0]])
print((x - t).shape, round(float(mse_forward(x, t)), 4), "although every prediction is right")


# %% nbgrader={"grade_id": "check-same-shape", "solution": true}
#| export
def check_same_shape(name, x, targets):
    """Raise ValueError, with `name` in front, unless both have one shape and hold at least one number."""
    ### BEGIN SOLUTION
    if x.shape != targets.shape:
        raise ValueError(
            f"{name}: predictions {x.shape} and targets {targets.shape} must have the same shape"
        )
    if 0 in x.shape:
        raise ValueError(f"{name}: expected at least one number, got shape {x.shape}")
    ### END SOLUTION


# %% tags=["nbval-check-output"]
attempt(check_same_shape, "MSELoss", x, t)
attempt(check_same_shape, "MSELoss", x[:0], x[:0])
attempt(check_same_shape, "MSELoss", x, x)  # None: nothing is wrong

# %% nbgrader={"grade_id": "test-check-same-shape", "grade": true, "points": 2}
check_same_shape("MSELoss", np.zeros((2, 3)), np.ones((2, 3)))
check_same_shape("MSELoss", np.zeros(()), np.ones(()))
for a, b in (((3,), (3, 1)), ((2, 3), (3, 2)), ((4,), ())):
    problem = ""
    try:
        check_same_shape("SomeLoss", np.zeros(a), np.zeros(b))
    except ValueError as error:
        problem = str(error)
    told = "SomeLoss" in problem and str(a) in problem and str(b) in problem
    assert told, f"expected a ValueError that names SomeLoss, {a} and {b}, got {problem!r}"
### BEGIN HIDDEN TESTS
problem = ""
try:
    check_same_shape("SomeLoss", np.zeros((0, 4)), np.zeros((0, 4)))
except ValueError as error:
    problem = str(error)
assert "(0, 4)" in problem, f"expected a ValueError that names the empty shape (0, 4), got {problem!r}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: MSELoss
#
# Turn targets that are no tensor into one, check the shapes, then `apply(mse_forward, x, targets)`. Through
# `apply`, or lesson 05 never hears of it.


# %% nbgrader={"grade_id": "mse-loss", "solution": true}
#| export
class MSELoss:
    """Mean of the squared differences; predictions and targets (a tensor or array) of one shape.

    Raises ValueError for different shapes or an empty batch.
    """

    def __call__(self, x, targets):
        """x and targets of any one shape -> a tensor with a single number."""
        ### BEGIN SOLUTION
        targets = targets if isinstance(targets, Tensor) else Tensor(targets)
        check_same_shape("MSELoss", x, targets)
        return apply(mse_forward, x, targets)
        ### END SOLUTION

    def __repr__(self):
        return "MSELoss()"


# %% tags=["nbval-check-output"]
MSELoss()(Tensor([1.0, 2.0, 3.0]), [1, 4, 0])

# %% nbgrader={"grade_id": "test-mse-loss", "grade": true, "points": 2}
x, t = np.random.default_rng(2).standard_normal((2, 6, 3))
expected = float(np.linalg.norm(x - t) ** 2 / 18)
for targets in (Tensor(t), t, t.tolist()):
    loss = np.asarray(MSELoss()(Tensor(x), targets))
    assert loss.shape == () and abs(float(loss) - expected) < 1e-5, f"expected {expected:.5f}, got {loss}"
heard = primitives_of(MSELoss(), Tensor(x), Tensor(t))
assert heard == ["mse_forward"], (
    f"expected mse_forward through apply, heard {heard}: there would be no gradient"
)
### BEGIN HIDDEN TESTS
problem = ""
try:
    MSELoss()(Tensor(x), Tensor(t[:1]))
except ValueError as error:
    problem = str(error)
assert "MSELoss" in problem and "(1, 3)" in problem, (
    f"expected a ValueError that names (1, 3), got {problem!r}"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. The logarithm of softmax
#
# A classifier gives one number for each class, the logits. Softmax turns them into probabilities, and the
# loss is minus the logarithm of one of them. Taken one after the other, the two steps break. In float32
# `exp(89)` is infinite, and a probability below 1e-45 is zero, whose logarithm is minus infinity.


# %%
def log_softmax_naive(x):
    """As the textbook has it."""
    with np.errstate(all="ignore"):
        return np.log(np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True))


# %% tags=["nbval-check-output"]
print(log_softmax_naive(np.array([0.0, 1.0, 2.0], np.float32)).round(4))
print(log_softmax_naive(np.array([0.0, 100.0, 200.0], np.float32)))
print(log_softmax_naive(np.array([-1000.0, -1001.0, -1002.0], np.float32)))

# %% [markdown]
# ### Exercise: log_softmax_forward
#
# Divide above and below by exp(m), where m is the largest logit, and take the logarithm on paper first:
#
#     log softmax(x)_i = (x_i - m) - log(sum_j exp(x_j - m))
#
# Now the largest exponent is exp(0) = 1, so nothing overflows, and the sum is at least 1, so its logarithm
# is safe. For [0, 100, 200] the answer is [-200, -100, 0]. Use `keepdims=True`, or the shapes will not line
# up. (`log_softmax`, on tensors, is given.)


# %% nbgrader={"grade_id": "log-softmax-forward", "solution": true}
#| export
def log_softmax_forward(x, axis):
    """log(softmax(x)) along `axis`, same shape as x; finite for all finite x."""
    ### BEGIN SOLUTION
    z = x - x.max(axis=axis, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))
    ### END SOLUTION


# %%
#| export
def log_softmax(x, dim=-1):
    """log(softmax(x)) along `dim`, without ever taking the logarithm of a rounded zero."""
    return apply(log_softmax_forward, x, axis=dim)


# %% tags=["nbval-check-output"]
log_softmax(Tensor([[0.0, 100.0, 200.0], [0.0, 0.0, 0.0]]))

# %% tags=["nbval-check-output"]
print(log_softmax_forward(np.array([0.0, 1.0, 2.0]), axis=-1).round(4))
print(log_softmax_forward(np.array([0.0, 100.0, 200.0]), axis=-1))
print(log_softmax_forward(np.array([-1000.0, -1001.0, -1002.0]), axis=-1).round(4))

# %% nbgrader={"grade_id": "test-log-softmax-forward", "grade": true, "points": 3}
rng = np.random.default_rng(3)
for shape, axis in (((5,), 0), ((4, 6), -1), ((4, 6), 0), ((2, 3, 4), 1)):
    x = rng.standard_normal(shape)
    expected = np.log(np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True))
    got = np.asarray(log_softmax_forward(x, axis=axis))
    assert got.shape == shape, f"expected shape {shape}, got {got.shape}: look at keepdims"
    assert np.allclose(got, expected), (
        f"shape {shape}, axis {axis}: expected {expected.ravel()[:3]}, got {got.ravel()[:3]}"
    )
got = np.asarray(log_softmax_forward(np.array([0, 100, 200], np.float32), axis=-1))
assert np.allclose(got, [-200, -100, 0]), f"expected [-200, -100, 0], got {got}: subtract the maximum first"
### BEGIN HIDDEN TESTS
rows = np.array([[1000.0, 1000.0], [-1000.0, -1003.0]], np.float32)
got = np.asarray(log_softmax_forward(rows, axis=-1))
expected = [[-np.log(2), -np.log(2)], [-np.log1p(np.exp(-3)), -3 - np.log1p(np.exp(-3))]]
assert np.allclose(got, expected, atol=1e-5), (
    f"expected {np.round(expected, 4)}, got {got}: each row its own maximum"
)
assert str(got.dtype) == "float32", f"expected float32 in, float32 out, got {got.dtype}"
assert float(rows[0, 0]) == 1000, "expected the input unchanged: do not work in place"
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Cross entropy, slowly
#
# The target is a distribution q over the classes, the prediction another, p = softmax(logits). Cross entropy
# is the sum of -q log p: how surprised one is, on average, if one expects p and q is the truth. If the truth
# is one class, q is 1 there and 0 elsewhere, and the loss is -log of the probability that the right class
# got. Half right costs log 2 = 0.693; ten classes and no idea cost log 10 = 2.303: the loss of every fresh
# ten-class network.
#
# **Label smoothing** (Szegedy et al., 2016) takes a share s from the right class and spreads it evenly over
# all C classes. A network can then no longer win by pushing one logit to infinity. With C = 4, s = 0.2 and
# class 1:
#
#     q = [0.05, 0.85, 0.05, 0.05]        0.2 / 4 everywhere, 0.8 more on the right class
#
# ### Exercise: the target distribution


# %% nbgrader={"grade_id": "smoothed-targets", "solution": true}
def smoothed_targets(targets, classes, smoothing):
    """Targets (B,), whole numbers -> (B, classes): 1 - s on the right class plus s / classes on all."""
    ### BEGIN SOLUTION
    q = np.full((len(targets), classes), smoothing / classes)
    q[np.arange(len(targets)), targets] += 1 - smoothing
    return q
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(smoothed_targets(np.array([1, 3]), 4, 0.2))

# %% nbgrader={"grade_id": "test-smoothed-targets", "grade": true, "points": 2}
got = np.asarray(smoothed_targets(np.array([2, 0, 2]), 5, 0.1))
expected = 0.9 * np.eye(5)[[2, 0, 2]] + 0.02
assert got.shape == (3, 5), f"expected a row for each target, (3, 5), got {got.shape}"
assert np.allclose(got, expected), f"expected {expected[0]}, got {got[0]}: look at smoothed_targets"
assert np.allclose(got.sum(axis=1), 1), f"expected rows that add up to 1, got {got.sum(axis=1)}"
### BEGIN HIDDEN TESTS
got = np.asarray(smoothed_targets(np.array([1]), 3, 0.0)).tolist()
assert got == [[0, 1, 0]], f"expected [[0, 1, 0]] for s = 0, got {got}"
got = np.asarray(smoothed_targets(np.array([1, 0]), 4, 1.0))
assert np.allclose(got, 0.25), f"expected 1/4 everywhere for s = 1, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: the definition
#
# `-sum(q log p)` for every row, then the mean over the batch. This is the slow version: easy to read, and the
# oracle for the fast one.


# %% nbgrader={"grade_id": "cross-entropy-slow", "solution": true}
def cross_entropy_slow(logits, targets, smoothing=0.0):
    """Logits (B, C), targets (B,) -> the mean over the batch of -sum over the classes of q log p."""
    ### BEGIN SOLUTION
    q = smoothed_targets(targets, logits.shape[1], smoothing)
    return -np.mean((q * log_softmax_forward(logits, axis=-1)).sum(axis=1))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(round(float(cross_entropy_slow(np.zeros((2, 10)), np.array([3, 7]))), 4))

# %% nbgrader={"grade_id": "test-cross-entropy-slow", "grade": true, "points": 2}
rng = np.random.default_rng(4)
x, t = rng.standard_normal((6, 4)), np.array([0, 3, 1, 1, 2, 0])
p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
expected = float(np.mean([-np.log(p[i, t[i]]) for i in range(6)]))
got = float(cross_entropy_slow(x, t))
assert abs(got - expected) < 1e-9, (
    f"expected {expected:.6f}, got {got:.6f}: sum over classes, mean over the batch"
)
half = -(0.5 * np.log(p[:, 0]) + 0.5 * np.log(p).mean(axis=1)).mean()
got = float(cross_entropy_slow(x, np.zeros(6, np.int64), 0.5))
assert abs(got - half) < 1e-9, f"expected {half:.6f} with smoothing 0.5, got {got:.6f}"

# %% [markdown]
# ## 4. Cross entropy, fast
#
# Multiplying by zeros is work for nothing. Without smoothing only one entry of each row counts, and an index
# picks it: `log_p[np.arange(B), targets]`. The smoothed part is the mean of *all* entries of `log_p`:
#
#     loss = -(1 - s) mean(picked) - s mean(log_p)
#
# ### Exercise: cross_entropy_forward
#
# Return the loss and `log_p`: the gradient (lesson 05) is softmax minus q, and softmax is exp(log_p). Leave
# the second term out when `smoothing` is 0: an entry of minus infinity (a class that was ruled out) times
# zero is nan.


# %% nbgrader={"grade_id": "cross-entropy-forward", "solution": true}
#| export
def cross_entropy_forward(logits, targets, smoothing):
    """Logits (B, C), targets (B,) whole numbers -> the mean loss, and the log-probabilities (B, C).

    The gradient needs the latter again. `smoothing` is the share of the target spread over all classes.
    """
    ### BEGIN SOLUTION
    log_p = log_softmax_forward(logits, axis=-1)
    loss = -np.mean(log_p[np.arange(len(targets)), targets])
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * np.mean(log_p)
    return loss, log_p
    ### END SOLUTION


# %% tags=["nbval-check-output"]
logits, targets = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 5.0]]), np.array([0, 2])
for s in (0.0, 0.1):
    print(s, round(float(cross_entropy_forward(logits, targets, s)[0]), 6))
    print(s, round(float(cross_entropy_slow(logits, targets, s)), 6))

# %% nbgrader={"grade_id": "test-cross-entropy-forward", "grade": true, "points": 4}
rng = np.random.default_rng(5)
for B, C, s in ((1, 2, 0.0), (7, 5, 0.0), (7, 5, 0.3), (20, 3, 1.0)):
    x, t = 3 * rng.standard_normal((B, C)), rng.integers(0, C, B)
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    q = (1 - s) * np.eye(C)[t] + s / C
    expected = float(-(q * np.log(p)).sum() / B)
    loss, log_p = cross_entropy_forward(x, t, s)
    assert abs(float(loss) - expected) < 1e-9, (
        f"B {B}, C {C}, s {s}: expected {expected:.6f}, got {float(loss):.6f}"
    )
    log_p = np.asarray(log_p)
    assert np.allclose(log_p, np.log(p)), (
        f"expected the log-probabilities (B, C), {np.log(p)[0]} first, as second result, got {log_p.flat[:C]}"
    )
### BEGIN HIDDEN TESTS
x = np.array([[1e4, 0, -1e4], [-1e4, 0, 1e4]], np.float32)
loss = cross_entropy_forward(x, np.array([1, 1]), 0.0)[0]
assert abs(float(loss) - 1e4) < 1, (
    f"expected 10000 for logits 10000 off, got {float(loss)}: use log_softmax_forward"
)
assert str(np.asarray(loss).dtype) == "float32", (
    f"expected float32 in, float32 out, got {np.asarray(loss).dtype}"
)
x = np.array([[0.0, -np.inf, 0.0]])
loss = float(cross_entropy_forward(x, np.array([0]), 0.0)[0])
assert abs(loss - np.log(2)) < 1e-9, f"expected log 2 with one class ruled out (-inf), got {loss}"
### END HIDDEN TESTS

# %% [markdown]
# A look ahead: move one logit a little, and see how the loss moves. The slope is what lesson 05 will call the
# gradient.


# %%
def slope_at(i, h=1e-5):
    """How fast the loss moves with entry `i` of the logits, by central differences."""
    step = np.zeros_like(logits)
    step[i] = h
    up, down = (cross_entropy_forward(logits + s, targets, 0.0)[0] for s in (step, -step))
    return (up - down) / (2 * h)


# %% tags=["nbval-check-output"]
print(np.array([[slope_at((i, j)) for j in range(3)] for i in range(2)]).round(4))

# %% [markdown]
# It is softmax minus target, over B = 2.

# %% tags=["nbval-check-output"]
print(((softmax(Tensor(logits)).numpy() - np.eye(3)[targets]) / 2).round(4))

# %% [markdown]
# ### Exercise: labels that are no classes
#
# `log_p[np.arange(B), targets]` takes -1 without complaint: it is the last class. So labels are checked
# first. The shapes are checked for you. For the first label that is not a whole number from 0 to C - 1 raise
# a ValueError that says `target -1 is not a class`, with the label in place of -1; return the labels as
# int64. Labels may come as floats, from a tensor: 2.0 is a class, 2.5 and nan are not. (`labels ==
# np.floor(labels)` is true for whole numbers, and every comparison with nan is false.)


# %% nbgrader={"grade_id": "check-targets", "solution": true}
#| export
def check_targets(logits, targets):
    """Class indices as an int64 array (B,), for logits (B, C).

    Raises ValueError for wrong shapes, an empty batch, or a label that is not a whole number from 0 to C - 1
    (the message names it), TypeError for labels that are not numbers.
    """
    labels = np.asarray(targets)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(
            "CrossEntropyLoss: expected logits (B, C) and targets (B,), B at least 1, "
            f"got {logits.shape} and {labels.shape}"
        )
    if labels.dtype.kind not in "biuf":
        raise TypeError(f"CrossEntropyLoss: expected class numbers as targets, got {labels.dtype}")
    classes = logits.shape[1]
    ### BEGIN SOLUTION
    right = (labels == np.floor(labels)) & (labels >= 0) & (labels < classes)
    if not right.all():
        raise ValueError(
            f"CrossEntropyLoss: target {labels[~right][0]} is not a class; "
            f"expected whole numbers from 0 to {classes - 1}"
        )
    return labels.astype(np.int64)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(check_targets(np.zeros((3, 4)), [0, 3.0, 2]))

# %% tags=["nbval-check-output"]
for labels in ([0, 4], [-1, 0], [0.5, 1], [float("nan"), 0], [1, 2, 3], ["cat", "dog"]):
    attempt(check_targets, np.zeros((2, 4)), labels)

# %% nbgrader={"grade_id": "test-check-targets", "grade": true, "points": 3}
logits = Tensor(np.zeros((3, 5)))
for labels in ([0, 4, 2], Tensor([0.0, 4.0, 2.0]), np.array([0, 4, 2], np.uint8)):
    got = np.asarray(check_targets(logits, labels))
    assert got.tolist() == [0, 4, 2] and got.dtype.kind == "i", (
        f"expected whole numbers [0, 4, 2], got {got!r}"
    )
for labels, name in (([0, 5, 1], "5"), ([0, 1, -1], "-1"), ([2.5, 0, 1], "2.5")):
    problem = ""
    try:
        check_targets(logits, labels)
    except ValueError as error:
        problem = str(error)
    assert f"target {name} " in problem, (
        f"{labels}: expected a ValueError that says 'target {name} is ...', got {problem!r}"
    )
### BEGIN HIDDEN TESTS
for labels, name in (
    ([0, float("nan"), 1], "nan"),
    ([7, 0, 9], "7"),
    ([0, float("inf"), 1], "inf"),
    ([0, 0, -3], "-3"),
):
    problem = ""
    try:
        check_targets(logits, labels)
    except ValueError as error:
        problem = str(error)
    assert f"target {name}" in problem, f"{labels}: expected a ValueError that names {name}, got {problem!r}"
got = np.asarray(check_targets(np.zeros((1, 1)), [0])).tolist()
assert got == [0], f"expected [0] for class 0 of one class, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: CrossEntropyLoss
#
# Check the targets, then send `cross_entropy_forward` through `apply`. Only the logits are an input that
# gets a gradient; labels and smoothing are parameters: `apply(cross_entropy_forward, logits, targets=...,
# smoothing=...)`.


# %% nbgrader={"grade_id": "cross-entropy-loss", "solution": true}
#| export
class CrossEntropyLoss:
    """Mean of -log softmax(logits)[target]. Shapes: logits (B, C), targets (B,) whole numbers.

    With `label_smoothing` s the target is 1 - s on the right class plus s / C on every class (Szegedy et al.,
    2016). Raises ValueError for a smoothing outside [0, 1], wrong shapes, or a target that is not a class.
    """

    def __init__(self, label_smoothing=0.0):
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"CrossEntropyLoss: expected label_smoothing in [0, 1], got {label_smoothing}")
        self.label_smoothing = float(label_smoothing)

    def __call__(self, logits, targets):
        """Logits (B, C) and targets (B,) -> a tensor with a single number."""
        ### BEGIN SOLUTION
        targets = check_targets(logits, targets)
        return apply(cross_entropy_forward, logits, targets=targets, smoothing=self.label_smoothing)
        ### END SOLUTION

    def __repr__(self):
        return f"CrossEntropyLoss(label_smoothing={self.label_smoothing})"


# %% tags=["nbval-check-output"]
CrossEntropyLoss()(Tensor(np.zeros((4, 10))), [0, 1, 2, 3])

# %% tags=["nbval-check-output"]
attempt(CrossEntropyLoss, label_smoothing=1.5)

# %% nbgrader={"grade_id": "test-cross-entropy-loss", "grade": true, "points": 2}
x, t = np.random.default_rng(6).standard_normal((5, 3)), [2, 0, 1, 1, 2]
for s in (0.0, 0.25):
    loss = np.asarray(CrossEntropyLoss(label_smoothing=s)(Tensor(x, dtype=np.float64), t))
    log_p = np.log(np.exp(x) / np.exp(x).sum(axis=1, keepdims=True))
    expected = -sum((1 - s) * log_p[i, t[i]] + s / 3 * log_p[i].sum() for i in range(5)) / 5
    assert loss.shape == () and abs(float(loss) - expected) < 1e-9, (
        f"s {s}: expected {expected:.6f}, got {loss}"
    )
heard = primitives_of(CrossEntropyLoss(), Tensor(x), t)
assert heard == ["cross_entropy_forward"], f"expected cross_entropy_forward through apply, heard {heard}"
### BEGIN HIDDEN TESTS
for labels in ([0, 1, 2, 1, 3], [0, 1, 2, 1, -1]):
    problem = ""
    try:
        CrossEntropyLoss()(Tensor(x), labels)
    except ValueError as error:
        problem = str(error)
    assert str(labels[-1]) in problem, (
        f"expected a ValueError that names {labels[-1]}, got {problem!r}: check_targets"
    )
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Binary cross entropy
#
# For yes or no: p is the probability of yes, t is 1 for yes and 0 for no (or something between, for a doubt).
#
#     loss = -(t log p + (1 - t) log(1 - p))
#
# With p = 0.8 and t = 1 it is -log 0.8 = 0.223; with t = 0 it is -log 0.2 = 1.609. A sigmoid in float32
# gives exactly 0 or 1 for large logits, and then one logarithm is minus infinity, even if the answer is
# right: 0 times minus infinity is nan.

# %% tags=["nbval-check-output"]
p, t = np.array([0.8, 1.0, 0.0]), np.array([1.0, 1.0, 1.0])
with np.errstate(all="ignore"):
    print((-(t * np.log(p) + (1 - t) * np.log(1 - p))).round(4))

# %% [markdown]
# ### Exercise: bce_forward
#
# PyTorch cuts both logarithms at -100: a wrong certainty costs 100, not infinity, and 0 times -100 is 0. Do
# the same with `np.maximum(..., -100)`, on the logarithm and not on p, so that float32 and float64 agree.
# For log(1 - p) use `np.log1p(-p)`: 1 - 1e-9 rounds to 1 in float32, log1p keeps it. `with
# np.errstate(divide="ignore"):` silences the warning of log(0), which is expected here.


# %% nbgrader={"grade_id": "bce-forward", "solution": true}
#| export
def bce_forward(p, targets):
    """The mean of -(t log p + (1 - t) log(1 - p)) over arrays of one shape; logarithms are cut at -100."""
    ### BEGIN SOLUTION
    with np.errstate(divide="ignore"):
        log_p, log_q = np.maximum(np.log(p), -100), np.maximum(np.log1p(-p), -100)
    return -np.mean(targets * log_p + (1 - targets) * log_q)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
for value in (0.8, 0.5, 0.0):
    print(value, round(float(bce_forward(np.array([value]), np.array([1.0]))), 4))

# %% nbgrader={"grade_id": "test-bce-forward", "grade": true, "points": 3}
rng = np.random.default_rng(7)
for shape in ((4,), (3, 5)):
    p, t = rng.uniform(0.05, 0.95, shape), rng.integers(0, 2, shape).astype(float)
    expected = float(np.mean(-np.log(np.where(t == 1, p, 1 - p))))
    got = float(bce_forward(p, t))
    assert abs(got - expected) < 1e-9, f"shape {shape}: expected {expected:.6f}, got {got:.6f}"
got = float(bce_forward(np.array([0.3]), np.array([0.25])))
expected = -0.25 * np.log(0.3) - 0.75 * np.log(0.7)
assert abs(got - expected) < 1e-9, f"expected {expected:.6f} for p 0.3 and target 0.25, got {got:.6f}"
for dtype in (np.float32, np.float64):
    got = float(bce_forward(np.array([0, 1, 0, 1], dtype), np.array([0, 1, 1, 0], dtype)))
    assert abs(got - 50) < 1e-4, (
        f"{dtype.__name__}: expected (0 + 0 + 100 + 100) / 4 = 50 at p = 0 and 1, got {got}"
    )
### BEGIN HIDDEN TESTS
got = float(bce_forward(np.array([1e-9], np.float32), np.array([0.0], np.float32)))
assert 0.9e-9 < got < 1.1e-9, f"expected 1e-9 for p = 1e-9 and target 0 in float32, got {got}: use log1p"
got = float(bce_forward(np.array([1e-60]), np.array([1.0])))
assert abs(got - 100) < 1e-9, f"expected 100 for p = 1e-60, got {got}: cut the logarithm at -100"
got = float(bce_forward(np.array([1e-30]), np.array([1.0])))
assert abs(got - 30 * np.log(10)) < 1e-6, f"expected 69.08 for p = 1e-30, got {got}: cut the logarithm, not p"
got = np.asarray(bce_forward(np.array([0.5], np.float32), np.array([1.0], np.float32))).dtype
assert str(got) == "float32", f"expected float32 in, float32 out, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: BCELoss
#
# As before: targets become a tensor (given), then the shapes are checked, then the values of p and of the
# targets (`check_probabilities` is given), then `apply` with p and the targets as inputs.


# %%
#| export
def check_probabilities(name, what, values, advice=""):
    """Raise ValueError, naming the first of `values` that is not in [0, 1] (or is nan).

    `name` is the loss, `what` the values are, such as "targets"; `advice` ends the message.
    """
    values = np.asarray(values)
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        raise ValueError(f"{name}: expected {what} in [0, 1], got {values[wrong].flat[0]:.4g}{advice}")


# %% nbgrader={"grade_id": "bce-loss", "solution": true}
#| export
class BCELoss:
    """Mean of -(t log p + (1 - t) log(1 - p)); probabilities p and targets t of one shape, both in [0, 1].

    Logarithms are cut at -100, as in PyTorch. Raises ValueError for different shapes, an empty batch, or a
    value outside [0, 1], which it names.
    """

    def __call__(self, p, targets):
        """p and targets of any one shape -> a tensor with a single number."""
        targets = targets if isinstance(targets, Tensor) else Tensor(targets)
        ### BEGIN SOLUTION
        check_same_shape("BCELoss", p, targets)
        check_probabilities("BCELoss", "probabilities", p, "; apply sigmoid first")
        check_probabilities("BCELoss", "targets", targets)
        return apply(bce_forward, p, targets)
        ### END SOLUTION

    def __repr__(self):
        return "BCELoss()"


# %% tags=["nbval-check-output"]
BCELoss()(Tensor([0.8, 0.8]), [1, 0])

# %% tags=["nbval-check-output"]
attempt(BCELoss(), Tensor([0.8, 3.5]), [1, 0])
attempt(BCELoss(), Tensor([0.8, 0.5]), [1, 2])
attempt(BCELoss(), Tensor([[0.8, 0.5]]), [1, 0])

# %% nbgrader={"grade_id": "test-bce-loss", "grade": true, "points": 2}
p, t = np.array([[0.1, 0.9], [0.4, 0.25]]), np.array([[0, 1], [1, 0]])
expected = -np.log([0.9, 0.9, 0.4, 0.75]).mean()
for targets in (Tensor(t), t, t.tolist()):
    loss = np.asarray(BCELoss()(Tensor(p), targets))
    assert loss.shape == () and abs(float(loss) - expected) < 1e-6, f"expected {expected:.6f}, got {loss}"
heard = primitives_of(BCELoss(), Tensor(p), t)
assert heard == ["bce_forward"], (
    f"expected bce_forward through apply, heard {heard}: there would be no gradient"
)
### BEGIN HIDDEN TESTS
cases = ((p * 4, t, "3.6"), (p - 0.5, t, "-0.4"), (p, t * 2, "2"), (p[0], t, "(2,)"), (p * np.nan, t, "nan"))
for values, targets, name in cases:
    problem = ""
    try:
        BCELoss()(Tensor(values), Tensor(targets))
    except ValueError as error:
        problem = str(error)
    assert "BCELoss" in problem and name in problem, (
        f"expected a ValueError that names {name}, got {problem!r}"
    )
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Measure: one-hot or index?
#
# A language model has C in the tens of thousands. The slow version builds q and q * log_p, both (B, C), in
# float64; the fast one reads B numbers out of `log_p`. `tracemalloc` knows what NumPy has allocated. What to
# look for: how many float32 arrays of (B, C) is each version's peak, where one in float64 counts as two?
# Both take the exponential of every logit; how much of the time is that?

# %% tags=["measure"]
import time
import tracemalloc


def cost(function, *args):
    """Milliseconds of one call (after a first), and the peak of its memory in bytes."""
    function(*args)
    start = time.perf_counter()
    function(*args)
    elapsed = time.perf_counter() - start
    tracemalloc.start()
    function(*args)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return 1e3 * elapsed, peak


# %% tags=["measure"]
B, C = 128, 10_000
x = np.random.default_rng(0).standard_normal((B, C)).astype(np.float32)
t = np.random.default_rng(1).integers(0, C, B)

# %% tags=["measure"]
for name, function in (("one-hot", cross_entropy_slow), ("index", cross_entropy_forward)):
    elapsed, peak = cost(function, x, t, 0.0)
    arrays = peak / x.nbytes
    print(f"{name:8} {elapsed:6.1f} ms, peak {peak / 1e6:5.1f} MB = {arrays:.1f} arrays of (B, C) float32")

# %% [markdown]
# ## 7. A figure: what smoothing does to the loss
#
# Ten classes; the right one has probability p, the other nine share the rest evenly. Without smoothing the
# loss falls all the way to p = 1: there is always more to win. With smoothing it has its lowest point where
# p equals the target, 1 - s + s/10, and then rises: certainty costs. Find the three lowest points.


# %% tags=["measure"]
def curve(p, s, C=10):
    """The loss for probability p on the right class, the rest spread evenly."""
    q = 1 - s + s / C
    return -q * np.log(p) - (1 - q) * np.log((1 - p) / (C - 1))


# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import show

p = np.linspace(0.01, 0.9999, 500)
figure, axes = plt.subplots()
for s in (0.0, 0.1, 0.3):
    axes.plot(p, curve(p, s), label=f"smoothing {s}")
axes.set(xlabel="probability of the right class", ylabel="loss", xlim=(0, 1), ylim=(0, 5))
axes.legend(loc="upper center")
lowest = [p[curve(p, s).argmin()] for s in (0.1, 0.3)]
show(
    figure,
    alt="Loss against the probability of the right class. Without smoothing it falls all the way to 0 at probability 1. "
    f"With smoothing 0.1 and 0.3 it is lowest at {lowest[0]:.2f} and {lowest[1]:.2f}, and turns up sharply just before 1.",
)

# %% [markdown]
# The lowest points are at 0.91 and 0.73, as the formula says; beyond them the loss turns up, sharply just before 1.

# %% [markdown]
# ## 8. What breaks
#
# **Softmax twice.** `CrossEntropyLoss` takes logits. Fed with probabilities it applies softmax again: the
# best possible answer, nearly all on the right class, now costs about 1.46, and nothing tells you. If
# your loss never falls below that number with ten classes, look here.

# %% tags=["nbval-check-output"]
sure = np.eye(10)[[3]] * 15
print(round(float(CrossEntropyLoss()(Tensor(sure), [3])), 4))
print(round(float(CrossEntropyLoss()(softmax(Tensor(sure)), [3])), 4))

# %% [markdown]
# **Labels that count from 1.** Ten classes, numbered 1 to 10 in the file: without a check, labels 1 to 9
# teach the network the class next door, and only 10 stops it. So a loss must look at all labels, and say
# which one.

# %% tags=["nbval-check-output"]
attempt(CrossEntropyLoss(), Tensor(np.zeros((3, 10))), [1, 10, 4])

# %% [markdown]
# **A column against a row.** The mistake from section 1, now caught.

# %% tags=["nbval-check-output"]
attempt(MSELoss(), Tensor(np.zeros((3, 1))), np.zeros(3))

# %% [markdown]
# ## Exercises
#
# Ungraded; try them in cells of your own.
#
# 1. Write `HuberLoss(delta)`: half the square for differences up to delta, straight lines beyond. What does
#    one wild target do to the mean squared error, and what to this?
# 2. Binary cross entropy from logits z: show on paper that it is max(z, 0) - z t + log(1 + exp(-|z|)), write
#    it, and compare it with `bce_forward(sigmoid(z), t)` at z = 40 and z = -200.
# 3. Give every class a weight in cross entropy. What do you divide by, B or the sum of the weights? PyTorch
#    chose.
# 4. For which s does the lowest point of the smoothed loss lie at p = 0.5 with ten classes? And what is the
#    loss there?
# 5. The mean of a float16 array of a million ones: compute it with `dtype=np.float16` and without. Why do
#    losses add up in a wider type?
#
# ## Elsewhere
#
# - **PyTorch** has the same three, with `reduction="mean" | "sum" | "none"`, class weights, and
#   `ignore_index=-100` for labels that should not count: there a label of -100 is not an error. On a GPU a
#   label out of range stops the program with a device assertion that names no value. `BCEWithLogitsLoss`
#   joins sigmoid and loss, as `CrossEntropyLoss` does with softmax; use it where you can.
# - **JAX** has no loss classes. Optax offers functions, such as `softmax_cross_entropy_with_integer_labels`,
#   that return one loss for each example; the mean is yours to take. Labels out of range are clamped or wrap,
#   without error.
# - Large language models compute cross entropy in blocks of the vocabulary, so that `log_p` never exists as
#   a whole.
#
# ## Summary
#
# - Subtract the maximum before exp, and take the logarithm on paper: log softmax is finite for all finite
#   logits.
# - Cross entropy is -log of what the right class got; log C is the loss of knowing nothing.
# - Label smoothing moves the lowest point from certainty to 1 - s + s/C.
# - An index picks what a one-hot product would compute.
# - Shapes, labels and probabilities are checked before the arithmetic, and the message names the value.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/losses.py`;
# `tito module complete 04` in a terminal does the same. Lesson 05 finds out how to make them smaller.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
