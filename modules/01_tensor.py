# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 Tensor
#
# > The tensor: an array that knows its shape, and one seam through which every operation runs.
#
# You build `Tensor`, the one data structure of your framework: images, weights, activations and gradients are
# all tensors. It has arithmetic with broadcasting, matrix products, reductions, reshaping, views and indexing.
#
# NumPy does the arithmetic. Your part is everything that turns arrays into a *system*: which inputs are refused
# and in what words, which number type is used, who shares memory with whom, and a single function, `apply`,
# through which every operation passes. In lesson 05 that function learns to record, and your tensors will
# compute gradients without one line of this lesson being changed.
#
# **You need** Python classes and special methods (`__add__`), NumPy arrays, matrix multiplication.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 01

# %% nbgrader={"grade_id": "imports", "locked": true}
#| export
import math
import operator

import numpy as np

# %% [markdown]
# Cells that start with `#| export` become the file `tinytorch/tensor.py` when you run `tito module complete 01`.
#
# ## 1. Data in
#
# A framework must decide what a number is. Python has one kind of float, with 64 bits. Networks are trained in
# 32 bits: half the memory, half the traffic between memory and processor, and about seven digits, which is more
# than noisy gradients can use. So everything becomes float32 unless someone asks for another type by name.
#
# Three things go wrong with data: rows of unequal length, entries that are no numbers, and an array that someone
# else changes later. NumPy notices the first in a long message, lets the second through as "object" arrays, and
# by default shares the third. By hand:
#
# | you pass | you get |
# |---|---|
# | `[[1, 2], [3, 4]]` | a float32 array of shape (2, 2) |
# | `np.array([1, 2])`, integers | float32, and a copy |
# | `[1, 2]`, `dtype=np.float64` | float64 |
# | `[[1, 2], [3]]` | `ValueError` |
# | `["a"]`, `[None]`, `[1j]` | `TypeError` |
#
# ### Exercise: `as_array`
# `np.asarray(data)` converts lists, arrays and (later) tensors, and raises `ValueError` for ragged lists. The
# letter `array.dtype.kind` is `b`, `i`, `u` or `f` for booleans, integers, unsigned integers and floats. A copy
# made by `np.array` stays in the memory order the data came in, which section 9 is about.
#
# Each error is one line: "nested lists of unequal length" for ragged lists, and the dtype that came for the rest.

# %% nbgrader={"grade_id": "as_array", "solution": true}
#| export
def as_array(data, dtype=None):
    """A numeric array with a copy of `data`: float32 unless `dtype` says otherwise.

    Takes numbers, nested lists, arrays and tensors. Raises ValueError for nested lists of unequal length,
    TypeError for anything that is not a real number.

    >>> as_array([1, 2]).dtype
    dtype('float32')
    """
    ### BEGIN SOLUTION
    try:
        array = np.asarray(data)
    except ValueError:
        raise ValueError(
            "Tensor: nested lists of unequal length; every row needs the same number of entries"
        ) from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"Tensor: expected numbers, got dtype {array.dtype}; convert the data first")
    return np.array(array, dtype=np.float32 if dtype is None else dtype)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(as_array([[1, 2], [3, 4]]))
print(as_array(True), as_array([1, 2], dtype=np.float64).dtype)

# %% tags=["nbval-check-output"]
try:
    as_array([[1, 2], [3]])
except ValueError as error:
    print(error)

# %% nbgrader={"grade_id": "test-as_array", "grade": true, "points": 3}
source = np.arange(6).reshape(2, 3)
array = as_array(source)
assert array.dtype == np.float32, (
    f"as_array(integers): expected float32, got {array.dtype}: see the table above"
)
assert np.array_equal(array, source), f"as_array: expected the values {source.tolist()}, got {array.tolist()}"
array = as_array([0.1], dtype=np.float64)
assert array.dtype == np.float64 and float(array[0]) == 0.1, (
    f"dtype=np.float64: expected 0.1 in float64, got {array!r}"
)
for bad, expected in [([[1, 2], [3]], ValueError), (["a"], TypeError), ([None, 1], TypeError)]:
    try:
        got = f"the value {as_array(bad)!r}"
    except (ValueError, TypeError) as error:
        got = type(error).__name__
    assert got == expected.__name__, f"as_array({bad}): expected {expected.__name__}, got {got}"
### BEGIN HIDDEN TESTS
source = np.ones((2, 2), np.float32)
array = as_array(source)
source[0, 0] = 7
assert array[0, 0] == 1, "as_array shares memory with its input: expected a copy, even of a float32 array"
assert as_array(np.zeros((2, 3, 4)).transpose(0, 2, 1)).strides == (48, 4, 16), (
    "as_array: expected the memory order of the input"
)
got = as_array(np.float64(0.5)).shape, as_array([[]]).shape
assert got == ((), (1, 0)), f"as_array of a number and of [[]]: expected shapes () and (1, 0), got {got}"
assert as_array([True, False]).tolist() == [1.0, 0.0], "as_array: expected True and False as 1 and 0"
for bad, word in [([[[1], [2, 3]]], "length"), ([1 + 2j], "complex"), ({"a": 1}, "object")]:
    try:
        got = f"the value {as_array(bad)!r}"
    except (ValueError, TypeError) as error:
        got = str(error)
    assert word in got and "\n" not in got, (
        f"as_array({bad}): expected a one-line error with {word!r}, got {got!r}"
    )
### END HIDDEN TESTS

# %% [markdown]
# ## 2. The class, and one seam
#
# The next cell is given. Read it as you would read a colleague's code: five fields, some properties, and two
# ways to make a tensor. `Tensor(data)` checks, converts and copies. `Tensor._wrap(array)` puts a tensor around
# an array that we made ourselves, so it does none of that.
#
# `version` counts changes made in place. It lives in a small list because several tensors can look at the same
# memory: a view and its source hold the *same* list, so a write through either is seen by both.
#
# The class grows over this notebook. A cell that begins with `class Tensor(Tensor):` continues it; the exported
# file will have one class with all the methods. (A tensor made by an earlier cell does not have the methods of
# later cells. Make a new one.)

# %% nbgrader={"grade_id": "tensor-class", "locked": true}
#| export
_recorder = None
_backward = None
_runner = None


def set_recorder(record, backward):
    """Lesson 05 plugs in here: `record(primitive, inputs, params, out, y)` runs after every operation."""
    global _recorder, _backward
    _recorder, _backward = record, backward


def set_runner(run):
    """Lesson 14 plugs in here: `run(primitive, arrays, params)` calls every primitive and returns its result.

    None, as at the start, calls primitives directly. Returns the runner before, to put it back.
    """
    global _runner
    before, _runner = _runner, run
    return before


class Tensor:
    """An n-dimensional array of numbers, float32 unless `dtype` says otherwise.

    `requires_grad=True` asks lesson 05 to keep a gradient in `.grad`. The data is copied. Raises what
    `as_array` raises.
    """

    __slots__ = ("_data", "_changes", "requires_grad", "grad", "node", "__weakref__")
    __array_ufunc__ = None  # array * tensor becomes Tensor.__rmul__, not an array of tensors

    def __init__(self, data, requires_grad=False, dtype=None):
        self._data = as_array(data, dtype)
        self._changes = [0]  # shared with every view of this tensor
        self.requires_grad = requires_grad
        self.grad = None  # a Tensor of the same shape once backward has run
        self.node = None  # how this tensor was computed; lesson 05 fills it in

    @classmethod
    def _wrap(cls, array):
        """A tensor around `array` itself: no copy and no conversion."""
        tensor = cls.__new__(cls)
        tensor._data, tensor._changes = np.asarray(array), [0]
        tensor.requires_grad, tensor.grad, tensor.node = False, None, None
        return tensor

    @property
    def data(self):
        """The NumPy array that holds the numbers. Assigning another array counts as a change in place."""
        return self._data

    @data.setter
    def data(self, array):
        self._data = array
        self._changes[0] += 1

    @property
    def version(self):
        """How often the data was changed in place, through this tensor or a view; lesson 05 checks it."""
        return self._changes[0]

    @property
    def shape(self):
        """The size of every dimension, a tuple of ints."""
        return self._data.shape

    @property
    def dtype(self):
        """The NumPy number type of the elements."""
        return self._data.dtype

    @property
    def ndim(self):
        """The number of dimensions."""
        return self._data.ndim

    def numel(self):
        """How many numbers the tensor holds."""
        return self._data.size

    def numpy(self):
        """The data as a NumPy array; it shares memory with the tensor."""
        return self._data

    def detach(self):
        """The same data, in the same memory, without its history."""
        tensor = Tensor._wrap(self._data)
        tensor._changes = self._changes
        return tensor

    def backward(self, gradient=None):
        """Compute the gradients of this tensor; lesson 05 builds it."""
        if _backward is None:
            raise RuntimeError("backward is built in module 05 (05_autograd): complete its notebook first")
        _backward(self, gradient)

    def __array__(self, dtype=None, copy=None):
        return np.array(self._data, dtype=dtype) if copy else np.asarray(self._data, dtype=dtype)

    def __len__(self):
        return len(self._data)


# %% tags=["nbval-check-output"]
x = Tensor([[1, 2, 3], [4, 5, 6]])
x.shape, x.ndim, x.numel(), x.dtype.name

# %% [markdown]
# Now the seam. A **primitive** is a function on arrays, most often one of NumPy's own. `apply` takes the arrays
# out of the tensors, calls the primitive, wraps the result, and tells a recorder if one is plugged in. Nothing
# is plugged in yet. Every operation you write below goes through `apply`, and that is all lesson 05 will need.
#
# `_owner` finds out whether the result is a view, an array on somebody else's memory: such an array names in
# `.base` the one that owns it.

# %% nbgrader={"grade_id": "apply", "locked": true}
#| export
def apply(primitive, *inputs, **params):
    """Run `primitive`, a function on arrays, on the data of `inputs` and wrap its result in a Tensor.

    Every operation of the package goes through this one seam. Inputs may be tensors or plain values; `params`
    are handed on. A primitive returns its result, or a tuple: first the result, then what its gradient rule
    wants to see again.
    """
    arrays = [x._data if isinstance(x, Tensor) else x for x in inputs]
    out = primitive(*arrays, **params) if _runner is None else _runner(primitive, arrays, params)
    y = Tensor._wrap(out[0] if isinstance(out, tuple) else out)
    for x in inputs:
        if isinstance(x, Tensor) and _owner(x._data) is _owner(y._data):
            y._changes = x._changes  # a view: what changes one changes the other
    if _recorder is not None:
        _recorder(primitive, inputs, params, out, y)
    return y


def _owner(array):
    """The array that owns the memory of `array`."""
    return array if array.base is None else array.base


# %%
apply(np.sqrt, Tensor([1, 4, 9])).numpy()

# %% [markdown]
# A recorder of one line shows what passes through the seam. Lesson 05 will plug in a better one.

# %% tags=["nbval-check-output"]
set_recorder(lambda primitive, inputs, params, out, y: print(primitive.__name__, params, y.shape), None)
apply(np.sum, Tensor([[1, 2], [3, 4]]), axis=0)
set_recorder(None, None)

# %% [markdown]
# ## 3. A tensor worth printing
#
# You will look at thousands of tensors, so the printed form matters: numbers rounded to four digits, the dtype
# only where it is not float32, `requires_grad` only where it is on. `item()` is the way out for a single number,
# such as a loss: it returns a Python float, and refuses a tensor that has none or more than one.
#
# | tensor | `repr` |
# |---|---|
# | `Tensor([1, 2.5])` | `Tensor([1. , 2.5])` |
# | `Tensor([1], dtype=np.float64)` | `Tensor([1.], dtype=float64)` |
# | `Tensor(3, requires_grad=True)` | `Tensor(3., requires_grad=True)` |
#
# ### Exercise: `item` and `__repr__`
# `np.array2string(array, precision=4, separator=", ", prefix="Tensor(")` writes the numbers; the prefix only
# tells it how far to indent the second row.

# %% nbgrader={"grade_id": "item-repr", "solution": true}
#| export
class Tensor(Tensor):
    def item(self):
        """The single number of a tensor with one element, as a Python number.

        Raises ValueError, naming the shape, if there is not exactly one element.
        """
        ### BEGIN SOLUTION
        if self.numel() != 1:
            raise ValueError(f"item: expected a tensor with one element, got shape {self.shape}")
        return self._data.item()
        ### END SOLUTION

    def __repr__(self):
        ### BEGIN SOLUTION
        numbers = np.array2string(self._data, precision=4, separator=", ", prefix="Tensor(")
        dtype = "" if self.dtype == np.float32 else f", dtype={self.dtype}"
        return f"Tensor({numbers}{dtype}{', requires_grad=True' if self.requires_grad else ''})"
        ### END SOLUTION


# %% tags=["nbval-check-output"]
print(Tensor([[1, 2], [3, 4]]))
print(Tensor(1 / 3), Tensor([[0.25]]).item())

# %% nbgrader={"grade_id": "test-item-repr", "grade": true, "points": 2}
for data in (2.5, [2.5], [[2.5]]):
    got = Tensor(data).item()
    assert type(got) is float and got == 2.5, (
        f"Tensor({data}).item(): expected the Python float 2.5, got {got!r}"
    )
try:
    got = f"the value {Tensor([1, 2]).item()!r}"
except ValueError as error:
    got = str(error)
assert "(2,)" in got, f"item() of two elements: expected a ValueError that names the shape (2,), got {got!r}"
for tensor, expected in [
    (Tensor([1, 2.5]), "Tensor([1. , 2.5])"),
    (Tensor([1], dtype=np.float64), "Tensor([1.], dtype=float64)"),
    (Tensor(3, requires_grad=True), "Tensor(3., requires_grad=True)"),
]:
    assert repr(tensor) == expected, f"repr: expected {expected}, got {repr(tensor)}"
### BEGIN HIDDEN TESTS
expected = "Tensor([[1.    , 0.3333],\n        [2.    , 3.    ]])"
got = repr(Tensor([[1, 1 / 3], [2, 3]]))
assert got == expected, f"repr of two rows: expected\n{expected}\ngot\n{got}"
expected = "Tensor([1.], dtype=float64, requires_grad=True)"
got = repr(Tensor([1], dtype=np.float64, requires_grad=True))
assert got == expected, f"repr: expected {expected}, got {got}"
for shape in ((0,), (2, 3)):
    try:
        got = f"the value {Tensor(np.zeros(shape)).item()!r}"
    except ValueError as error:
        got = str(error)
    assert str(shape) in got, (
        f"item() of shape {shape}: expected a ValueError that names the shape, got {got!r}"
    )
assert Tensor(0.1, dtype=np.float64).item() == 0.1, "item() of a float64 tensor: expected 0.1 exactly"
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Creation
#
# `zeros(2, 3)`, `ones(2, 3)`, `randn(2, 3)` and `rand(2, 3)` make tensors of a given shape. Random numbers come
# from one generator of the package, so that `manual_seed(0)` at the top of a program makes the whole run
# repeatable. `as_shape` is given: it accepts `zeros(2, 3)` and `zeros((2, 3))` and refuses sizes that make no
# sense.

# %% nbgrader={"grade_id": "as_shape", "locked": true}
#| export
_rng = np.random.default_rng()


def manual_seed(seed):
    """Restart the package's random generator, so that the same program draws the same numbers."""
    global _rng
    _rng = np.random.default_rng(seed)


def default_rng():
    """The package's random generator, a `numpy.random.Generator`."""
    return _rng


def as_shape(sizes, least=0):
    """The tuple of ints meant by `f(2, 3)` or `f((2, 3))`, where `sizes` are the arguments of `f`.

    Raises TypeError for sizes that are not integers, ValueError for sizes below `least`.
    """
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = sizes[0]
    if not all(isinstance(n, (int, np.integer)) for n in sizes):
        raise TypeError(f"shape: expected integers, got {tuple(sizes)}")
    shape = tuple(int(n) for n in sizes)
    if min(shape, default=least) < least:
        raise ValueError(f"shape: expected sizes of at least {least}, got {shape}")
    return shape


# %% [markdown]
# ### Exercise: `zeros`, `ones`, `rand`, `randn`
# `default_rng()` returns the package's generator, a `numpy.random.Generator`. Its methods are
# `random(shape, dtype)`, uniform from 0 to 1, and `standard_normal(shape, dtype)`. Drawing in float32 directly is faster than drawing in float64 and converting.

# %% nbgrader={"grade_id": "creation", "solution": true}
#| export
def zeros(*shape, requires_grad=False):
    """A tensor full of 0. Raises ValueError for negative sizes."""
    ### BEGIN SOLUTION
    return Tensor(np.zeros(as_shape(shape), np.float32), requires_grad)
    ### END SOLUTION


def ones(*shape, requires_grad=False):
    """A tensor full of 1. Raises ValueError for negative sizes."""
    ### BEGIN SOLUTION
    return Tensor(np.ones(as_shape(shape), np.float32), requires_grad)
    ### END SOLUTION


def rand(*shape, requires_grad=False):
    """Numbers drawn uniformly from [0, 1). Raises ValueError for negative sizes."""
    ### BEGIN SOLUTION
    return Tensor(default_rng().random(as_shape(shape), np.float32), requires_grad)
    ### END SOLUTION


def randn(*shape, requires_grad=False):
    """Numbers drawn from the standard normal distribution. Raises ValueError for negative sizes."""
    ### BEGIN SOLUTION
    return Tensor(default_rng().standard_normal(as_shape(shape), np.float32), requires_grad)
    ### END SOLUTION


# %% nbgrader={"grade_id": "arange", "locked": true}
#| export
def arange(*args):
    """Numbers in equal steps: `arange(stop)`, `arange(start, stop)` or `arange(start, stop, step)`."""
    return Tensor(np.arange(*args))


# %% tags=["nbval-check-output"]
print(zeros(2, 3))
print(ones(2), zeros().shape)
manual_seed(0)
first = randn(3).numpy()

# %% [markdown]
# One seed, one sequence: the same seed starts it again.

# %% tags=["nbval-check-output"]
manual_seed(0)
again = randn(3).numpy()
print(np.array_equal(first, again), np.array_equal(again, randn(3).numpy()))

# %% nbgrader={"grade_id": "test-creation", "grade": true, "points": 2}
for name, make, value in (("zeros", zeros, 0), ("ones", ones, 1)):
    got, expected = make(2, 3).numpy(), [[value] * 3] * 2
    assert got.dtype == np.float32 and got.tolist() == expected, (
        f"{name}(2, 3): expected {expected} in float32, got {got!r}"
    )
manual_seed(1)
uniform, normal = rand(1000).numpy(), randn(1000).numpy()
assert 0 <= uniform.min() and uniform.max() < 1, (
    f"rand: expected numbers in [0, 1), got {uniform.min()} to {uniform.max()}"
)
assert abs(uniform.mean() - 0.5) < 0.05, f"rand: expected a mean near 0.5, got {uniform.mean()}"
assert abs(normal.mean()) < 0.1 and abs(normal.std() - 1) < 0.1, (
    f"randn: expected mean 0 and deviation 1, got {normal.mean()}, {normal.std()}"
)
manual_seed(1)
assert np.array_equal(rand(1000).numpy(), uniform), (
    "the same seed gave other numbers: draw from default_rng()"
)
### BEGIN HIDDEN TESTS
manual_seed(5)
reference = np.random.default_rng(5)
got, expected = rand(4, 2).numpy(), reference.random((4, 2), np.float32)
assert np.array_equal(got, expected), (
    f"rand after manual_seed(5): expected {expected.tolist()}, got {got.tolist()}"
)
got, expected = randn(3).numpy(), reference.standard_normal(3, np.float32)
assert np.array_equal(got, expected), f"randn: expected {expected.tolist()}, got {got.tolist()}"
for name, make in (("zeros", zeros), ("ones", ones), ("rand", rand), ("randn", randn)):
    got = make((2, 3)).shape, make().shape
    assert got == ((2, 3), ()), (
        f"{name}((2, 3)), {name}(): expected shapes (2, 3), (), got {got}: use as_shape"
    )
    got = make(2, requires_grad=True).requires_grad
    assert got is True, f"{name}(2, requires_grad=True).requires_grad: expected True, got {got}: hand it on"
    try:
        got = f"the value {make(2, -1).numpy()!r}"
    except ValueError as error:
        got = str(error)
    assert "(2, -1)" in got, f"{name}(2, -1): expected a ValueError that names (2, -1), got {got!r}"
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Broadcasting
#
# A bias of shape `(4,)` is added to a batch of shape `(32, 4)`: the small one is stretched. The rule has two
# steps. Write the shapes under each other, aligned at the right, and fill the shorter with ones at the left.
# Then in every column the sizes must be equal, or one of them must be 1 and is stretched.
#
# ```
#   (32, 4)          (3, 1)         (2, 3)
#       (4)          (1, 4)            (2)
#   -------          ------         ------
#   (32, 4)          (3, 4)         3 against 2: refused
# ```
#
# Nothing is copied: a stretched dimension has a stride of 0, so the same number is read again and again.
#
# The rule is also the source of the most common silent mistake in this field, which "What breaks" shows. So the
# error has to help: it names both shapes and the pair of sizes that does not fit.
#
# ### Exercise: `broadcast_shape`
# Write the rule by hand (without `np.broadcast_shapes`). Careful with size 0: against 1 it stays 0.

# %% nbgrader={"grade_id": "broadcast_shape", "solution": true}
#| export
def broadcast_shape(a, b, name="broadcast"):
    """The shape that two arrays of the shapes `a` and `b`, tuples of ints, have together.

    Raises ValueError, starting with `name` and naming both shapes and the two sizes, where they do not fit.

    >>> broadcast_shape((3, 1), (4,))
    (3, 4)
    """
    ### BEGIN SOLUTION
    rank = max(len(a), len(b))
    sizes_a, sizes_b = (1,) * (rank - len(a)) + tuple(a), (1,) * (rank - len(b)) + tuple(b)
    for m, n in zip(sizes_a, sizes_b, strict=True):
        if m != n and m != 1 and n != 1:
            raise ValueError(
                f"{name}: shapes {a} and {b} do not broadcast; "
                f"aligned at the right, {m} and {n} must be equal or one of them 1"
            )
    return tuple(n if m == 1 else m for m, n in zip(sizes_a, sizes_b, strict=True))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(broadcast_shape((32, 4), (4,)), broadcast_shape((3, 1), (1, 4)), broadcast_shape((), (2,)))

# %% tags=["nbval-check-output"]
try:
    broadcast_shape((2, 3), (2,))
except ValueError as error:
    print(error)

# %% [markdown]
# Nothing is copied, as promised: look at the first stride.

# %% tags=["nbval-check-output"]
row = np.array([1, 2, 3, 4], np.float32)
stretched = np.broadcast_to(row, (32, 4))
stretched.shape, stretched.strides

# %% nbgrader={"grade_id": "test-broadcast_shape", "grade": true, "points": 3}
rng = np.random.default_rng(0)
for a, b in [((32, 4), (4,)), ((4,), (32, 4)), ((3, 1), (1, 4)), ((), (2, 3)), ((2, 1, 5), (7, 1)), ((), ())]:
    got, expected = tuple(broadcast_shape(a, b)), np.broadcast_shapes(a, b)
    assert got == expected, f"broadcast_shape({a}, {b}): expected {expected}, got {got}"
for a, b in [((2, 3), (2,)), ((4, 3), (3, 3))]:
    try:
        got = f"the shape {broadcast_shape(a, b)}"
    except ValueError as error:
        got = str(error)
    assert str(a) in got and str(b) in got, (
        f"broadcast_shape({a}, {b}): expected a ValueError naming both shapes, got {got!r}"
    )
### BEGIN HIDDEN TESTS
for _ in range(50):
    full = rng.integers(0, 4, rng.integers(1, 5))
    thinned = [np.where(rng.random(len(full)) < 0.4, 1, full)[rng.integers(0, 2) :] for _ in range(2)]
    a, b = (tuple(int(n) for n in sizes) for sizes in thinned)
    got, expected = tuple(broadcast_shape(a, b)), np.broadcast_shapes(a, b)
    assert got == expected, (
        f"broadcast_shape({a}, {b}): expected {expected}, got {got}: is size 0 against 1 still 0?"
    )
for a, b, m, n in [((5, 2), (3, 5, 3), "2", "3"), ((7, 4), (6, 1), "7", "6"), ((0,), (2,), "0", "2")]:
    try:
        got = f"the shape {broadcast_shape(a, b, 'add')}"
    except ValueError as error:
        got = str(error)
    assert got.startswith("add") and m in got and n in got, (
        f"broadcast_shape({a}, {b}, 'add'): expected an error that starts with add and names {m} and {n}, "
        f"got {got!r}"
    )
    assert str(a) in got and str(b) in got, (
        f"broadcast_shape: the error must name {a} and {b} as they were passed, got {got!r}"
    )
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Arithmetic
#
# Python calls `x.__add__(y)` for `x + y`; if the left side does not know what to do, as in `2 + x`, it calls
# `x.__radd__(2)`. Every operator has such a mirror image, and for subtraction and division the mirror has to keep
# the order: `2 - x` is not `x - 2`.
#
# `_elementwise` is given. It checks the shapes with your `broadcast_shape` and goes through `apply`. It also
# settles a question of types: `np.sqrt(2)` is a float64, and in NumPy a float32 array times a float64 is
# float64. One such constant would turn a whole network into 64 bits without a word. So what is not a tensor
# takes the dtype of the tensor beside it.

# %% nbgrader={"grade_id": "elementwise", "locked": true}
#| export
def _elementwise(primitive, a, b):
    """`primitive`, a function of two arrays, on tensors or plain numbers that broadcast together."""
    a, b = _beside(a, b), _beside(b, a)
    broadcast_shape(a.shape, b.shape, primitive.__name__)
    return apply(primitive, a, b)


def _beside(x, tensor):
    """`x` if it is a tensor, else its numbers as an array, in the dtype of `tensor` where that is a float."""
    if isinstance(x, Tensor):
        return x
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise TypeError(f"Tensor: expected a number, an array of numbers or a Tensor, got dtype {x.dtype}")
    return x.astype(tensor.dtype, copy=False) if tensor.dtype.kind == "f" else x


# %% [markdown]
# ### Exercise: the four operators and their mirrors
# Each body is one line; the primitives are `np.add`, `np.subtract`, `np.multiply` and `np.divide`. By hand:
# `6 / Tensor([2, 3])` is `[3, 2]`, and `Tensor([2, 3]) - 1` is `[1, 2]`.

# %% nbgrader={"grade_id": "arithmetic", "solution": true}
#| export
class Tensor(Tensor):
    def __add__(self, other):
        ### BEGIN SOLUTION
        return _elementwise(np.add, self, other)
        ### END SOLUTION

    def __radd__(self, other):
        ### BEGIN SOLUTION
        return _elementwise(np.add, other, self)
        ### END SOLUTION

    def __sub__(self, other):
        ### BEGIN SOLUTION
        return _elementwise(np.subtract, self, other)
        ### END SOLUTION

    def __rsub__(self, other):
        ### BEGIN SOLUTION
        return _elementwise(np.subtract, other, self)
        ### END SOLUTION

    def __mul__(self, other):
        ### BEGIN SOLUTION
        return _elementwise(np.multiply, self, other)
        ### END SOLUTION

    def __rmul__(self, other):
        ### BEGIN SOLUTION
        return _elementwise(np.multiply, other, self)
        ### END SOLUTION

    def __truediv__(self, other):
        ### BEGIN SOLUTION
        return _elementwise(np.divide, self, other)
        ### END SOLUTION

    def __rtruediv__(self, other):
        ### BEGIN SOLUTION
        return _elementwise(np.divide, other, self)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
x = Tensor([2, 3])
print(6 / x, x - 1, x * np.sqrt(4))
print(Tensor([[0], [10]]) + x)

# %% nbgrader={"grade_id": "test-arithmetic", "grade": true, "points": 3}
rng = np.random.default_rng(0)
a, b = rng.standard_normal((2, 3)).astype(np.float32), rng.uniform(1, 2, (3,)).astype(np.float32)
x, y = Tensor(a), Tensor(b)
for name, got, expected in [
    ("x + y", x + y, a + b), ("x - y", x - y, a - b), ("x * y", x * y, a * b), ("x / y", x / y, a / b),
    ("2 + x", 2 + x, 2 + a), ("2 - x", 2 - x, 2 - a), ("2 * x", 2 * x, 2 * a), ("2 / y", 2 / y, 2 / b),
]:
    got = np.asarray(got.numpy())
    assert got.shape == expected.shape, f"{name}: expected shape {expected.shape}, got {got.shape}"
    assert np.allclose(got, expected, atol=1e-6), f"{name}: expected {expected.tolist()}, got {got.tolist()}"
### BEGIN HIDDEN TESTS
other = rng.uniform(1, 2, (4, 1, 3))
for name, got, expected in [
    ("x - array", x - other, a - other), ("array - x", other - x, other - a),
    ("array / y", other / y, other / b), ("array + x", other + x, other + a),
    ("x + list", x + [1, 2, 3], a + [1, 2, 3]), ("x * 0-d", x * Tensor(3), 3 * a),
]:
    got = np.asarray(got.numpy())
    assert got.shape == expected.shape and np.allclose(got, expected, atol=1e-5), (
        f"{name}: expected {expected.tolist()}, got {got.tolist()}"
    )
    assert got.dtype == np.float32, (
        f"{name}: a float32 tensor beside plain numbers stays float32, got {got.dtype}"
    )
assert np.array_equal(x.numpy(), a), "an operator changed its input: go through _elementwise"
for name, run in [
    ("add", lambda: x + zeros(2)), ("subtract", lambda: zeros(2, 2) - x), ("divide", lambda: x / zeros(4))
]:
    try:
        got = f"shape {run().shape}"
    except ValueError as error:
        got = str(error)
    assert name in got and "(2, 3)" in got, (
        f"{name}: expected an error with the operation and the shape (2, 3), got {got!r}"
    )
### END HIDDEN TESTS

# %% [markdown]
# The rest of this family is more of the same, so it is given: powers, comparisons and element-wise functions.
# Three details are worth a look. A power takes a plain number as its exponent, because its gradient is only taken
# with respect to the base. `==` compares element by element, and a class that defines `__eq__` must say how it is
# hashed; a tensor is hashed by identity. And `if loss:` or `float(loss)` work for one element only.

# %% nbgrader={"grade_id": "more-elementwise", "locked": true}
#| export
class Tensor(Tensor):
    def __pow__(self, exponent):
        """Raise every element to a constant power. Raises TypeError unless `exponent` is a plain number."""
        if not isinstance(exponent, (int, float, np.number)):
            raise TypeError(f"pow: expected a number as exponent, got {type(exponent).__name__}")
        return apply(np.power, self, exponent if isinstance(exponent, int) else float(exponent))

    def __neg__(self):
        return apply(np.negative, self)

    def __eq__(self, other):
        return _elementwise(np.equal, self, other)

    def __lt__(self, other):
        return _elementwise(np.less, self, other)

    def __gt__(self, other):
        return _elementwise(np.greater, self, other)

    __hash__ = object.__hash__

    def __bool__(self):
        return bool(self.item())

    def __float__(self):
        return float(self.item())

    def exp(self):
        """e to the power of every element."""
        return apply(np.exp, self)

    def log(self):
        """The natural logarithm of every element."""
        return apply(np.log, self)

    def sqrt(self):
        """The square root of every element."""
        return apply(np.sqrt, self)

    def abs(self):
        """The absolute value of every element."""
        return apply(np.abs, self)


# %% tags=["nbval-check-output"]
x = Tensor([-2, 1, 3])
print(x**2, -x, x > 0)

# %% tags=["nbval-check-output"]
(x == x).numpy().all(), hash(x) == hash(x), float(Tensor([4]).sqrt())

# %% [markdown]
# ## 7. Matrix products
#
# Nearly all the time of a network goes here. By hand:
#
# ```
#   [1 2]   [5 6]   [1*5+2*7  1*6+2*8]   [19 22]
#   [3 4] @ [7 8] = [3*5+4*7  3*6+4*8] = [43 50]
# ```
#
# ### Exercise: three loops
# First by its definition, on arrays: entry (i, j) is the sum over k of `a[i, k] * b[k, j]`. This version is the
# oracle. It is not exported.

# %% nbgrader={"grade_id": "matmul_loops", "solution": true}
def matmul_loops(a, b):
    """The matrix product of two arrays by its definition. Shapes (n, k) and (k, m) give (n, m)."""
    ### BEGIN SOLUTION
    y = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            for k in range(a.shape[1]):
                y[i, j] += a[i, k] * b[k, j]
    return y
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(matmul_loops(np.array([[1, 2], [3, 4]]), np.array([[5, 6], [7, 8]])))

# %% nbgrader={"grade_id": "test-matmul_loops", "grade": true, "points": 1}
rng = np.random.default_rng(0)
for n, k, m in [(2, 2, 2), (2, 3, 4), (4, 1, 3), (1, 5, 1)]:
    a, b = rng.standard_normal((n, k)), rng.standard_normal((k, m))
    got, expected = np.asarray(matmul_loops(a, b)), np.einsum("ik,kj->ij", a, b)
    assert got.shape == (n, m), (
        f"matmul_loops: ({n}, {k}) @ ({k}, {m}): expected shape {(n, m)}, got {got.shape}"
    )
    assert np.allclose(got, expected), f"matmul_loops: expected {expected.tolist()}, got {got.tolist()}"

# %% [markdown]
# ### Exercise: `@`
# `np.matmul` does the work; the check is yours. Both sides need at least two dimensions, and the inner sizes must
# agree. Leading dimensions are batches and broadcast: `(8, 2, 3) @ (3, 4)` is `(8, 2, 4)`. Refuse what does not
# fit, in one line that names both shapes. `broadcast_shape` checks the leading dimensions; its third argument, the
# name at the start of its message, should say that this was a `matmul`.

# %% nbgrader={"grade_id": "matmul", "solution": true}
#| export
class Tensor(Tensor):
    def __matmul__(self, other):
        """Matrix product; leading dimensions broadcast. Shapes (..., n, k) @ (..., k, m) -> (..., n, m).

        Raises ValueError, naming both shapes, where they do not fit.
        """
        other = _beside(other, self)
        ### BEGIN SOLUTION
        if self.ndim < 2 or other.ndim < 2 or self.shape[-1] != other.shape[-2]:
            raise ValueError(
                f"matmul: cannot multiply {self.shape} by {other.shape}; expected (..., n, k) @ (..., k, m)"
            )
        broadcast_shape(self.shape[:-2], other.shape[:-2], f"matmul of {self.shape} and {other.shape}")
        return apply(np.matmul, self, other)
        ### END SOLUTION


# %% nbgrader={"grade_id": "rmatmul", "locked": true}
#| export
class Tensor(Tensor):
    def __rmatmul__(self, other):
        return Tensor._wrap(_beside(other, self)) @ self


# %% tags=["nbval-check-output"]
Tensor([[1, 2], [3, 4]]) @ Tensor([[5, 6], [7, 8]])

# %% tags=["nbval-check-output"]
batch, w = ones(32, 5, 3), ones(3, 4)
(batch @ w).shape

# %% nbgrader={"grade_id": "test-matmul", "grade": true, "points": 2}
rng = np.random.default_rng(1)
for shape_a, shape_b in [((2, 3), (3, 4)), ((8, 2, 3), (3, 4)), ((1, 3), (3, 1))]:
    a, b = rng.standard_normal(shape_a).astype(np.float32), rng.standard_normal(shape_b).astype(np.float32)
    got, expected = (Tensor(a) @ Tensor(b)).numpy(), np.einsum("...ik,...kj->...ij", a, b)
    assert got.shape == expected.shape, (
        f"{shape_a} @ {shape_b}: expected shape {expected.shape}, got {got.shape}"
    )
    assert np.allclose(got, expected, atol=1e-5), (
        f"{shape_a} @ {shape_b}: expected {expected.tolist()}, got {got.tolist()}"
    )
for shape_a, shape_b in [((2, 3), (2, 3)), ((3,), (3, 2)), ((2, 3), (3,))]:
    try:
        got = f"shape {(Tensor(np.ones(shape_a)) @ Tensor(np.ones(shape_b))).shape}"
    except ValueError as error:
        got = str(error)
    assert str(shape_a) in got and str(shape_b) in got, (
        f"{shape_a} @ {shape_b}: expected a ValueError naming both shapes, got {got!r}"
    )
### BEGIN HIDDEN TESTS
for shape_a, shape_b in [((2, 3), (5, 3, 4)), ((4, 1, 2, 3), (5, 3, 2)), ((2, 0), (0, 3))]:
    a, b = rng.standard_normal(shape_a), rng.standard_normal(shape_b)
    got, expected = (Tensor(a, dtype=np.float64) @ b).numpy(), np.einsum("...ik,...kj->...ij", a, b)
    assert got.shape == expected.shape and np.allclose(got, expected, atol=1e-12), (
        f"{shape_a} @ {shape_b}: expected {expected.tolist()}, got {got.tolist()}"
    )
got = (np.eye(2) @ Tensor([[1, 2], [3, 4]])).numpy()
assert got.tolist() == [[1, 2], [3, 4]], f"array @ tensor: expected the tensor, got {got.tolist()}"
try:
    got = f"shape {(ones(4, 2, 3) @ ones(5, 3, 2)).shape}"
except ValueError as error:
    got = str(error)
assert "matmul" in got and "(4,)" in got and "(5,)" in got, (
    f"batches of 4 and 5: expected an error from broadcast_shape, got {got!r}"
)
### END HIDDEN TESTS

# %% [markdown]
# The two versions agree; how far apart are they in time? Loops in Python pay for every single multiplication.
# NumPy hands the whole product to a library (BLAS) that cuts it into pieces which fit the processor's registers
# and caches. Look at the factor.

# %% tags=["measure"]
import time


def best_of(run, repeats=5):
    """The shortest of several timings, in milliseconds: the one with the least disturbance."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) * 1000


# %% tags=["measure"]
a = np.random.default_rng(0).standard_normal((32, 32))
loops, fast = best_of(lambda: matmul_loops(a, a), 2), best_of(lambda: Tensor(a) @ Tensor(a))
print(f"three loops {loops:.2f} ms, Tensor @ {fast:.3f} ms, factor {loops / fast:.0f}")

# %% [markdown]
# ## 8. Reductions
#
# A sum over all numbers is a loss; a sum along one dimension is a total for every row or column. `dim` is the
# dimension that disappears:
#
# ```
#   x = [[1 2 3]      x.sum(dim=0) = [5 7 9]      x.sum(dim=1) = [6 15]
#        [4 5 6]]     x.sum() = 21                x.sum(dim=1, keepdim=True) = [[6] [15]]
# ```
#
# `keepdim=True` leaves the dimension in place with size 1. That is what makes the result broadcast against `x`
# again: `(2, 1)` stretches over `(2, 3)`, while `(2,)` would not fit.
#
# ### Exercise: `sum`, `mean`, `max`
# The primitives `np.sum`, `np.mean` and `np.max` call the two options `axis` and `keepdims`. Pass both by name:
# gradient rules will look for them.

# %% nbgrader={"grade_id": "reductions", "solution": true}
#| export
class Tensor(Tensor):
    def sum(self, dim=None, keepdim=False):
        """The sum over `dim`, an int or a tuple of ints; over everything where it is None."""
        ### BEGIN SOLUTION
        return apply(np.sum, self, axis=dim, keepdims=keepdim)
        ### END SOLUTION

    def mean(self, dim=None, keepdim=False):
        """The mean over `dim`, an int or a tuple of ints; over everything where it is None."""
        ### BEGIN SOLUTION
        return apply(np.mean, self, axis=dim, keepdims=keepdim)
        ### END SOLUTION

    def max(self, dim=None, keepdim=False):
        """The largest number over `dim`, an int or a tuple of ints; over everything where it is None."""
        ### BEGIN SOLUTION
        return apply(np.max, self, axis=dim, keepdims=keepdim)
        ### END SOLUTION


# %% nbgrader={"grade_id": "argmax", "locked": true}
#| export
class Tensor(Tensor):
    def argmax(self, dim=None):
        """The position of the largest number along `dim`, or in the flattened tensor. It has no gradient."""
        return Tensor._wrap(np.argmax(self._data, axis=dim))


# %% tags=["nbval-check-output"]
x = Tensor([[1, 2, 3], [4, 5, 6]])
print(x.sum(), x.sum(dim=0), x.mean(dim=1), x.max(dim=1, keepdim=True).shape)

# %% tags=["nbval-check-output"]
shares = x / x.sum(dim=1, keepdim=True)
print(shares.sum(dim=1), x.argmax(dim=1))

# %% nbgrader={"grade_id": "test-reductions", "grade": true, "points": 2}
rng = np.random.default_rng(0)
a = rng.standard_normal((2, 3, 4)).astype(np.float32)
for dim in (None, 0, 1, 2, -1):
    total = sum(np.moveaxis(a, dim, 0)) if dim is not None else sum(a.reshape(-1).tolist())
    count = a.shape[dim] if dim is not None else a.size
    for name, got, expected in [
        ("sum", Tensor(a).sum(dim), total), ("mean", Tensor(a).mean(dim), total / count),
        ("max", Tensor(a).max(dim), np.sort(a, axis=dim).take(-1, axis=-1 if dim is None else dim)),
    ]:
        got = np.asarray(got.numpy())
        assert got.shape == np.shape(expected), (
            f"{name}(dim={dim}): expected shape {np.shape(expected)}, got {got.shape}"
        )
        assert np.allclose(got, expected, atol=1e-5), f"{name}(dim={dim}): expected {expected}, got {got}"
### BEGIN HIDDEN TESTS
for dim in (None, 1, (0, 2), (-1,)):
    for name, reference in [("sum", np.add.reduce), ("max", np.maximum.reduce)]:
        for keepdim in (False, True):
            got = getattr(Tensor(a), name)(dim=dim, keepdim=keepdim).numpy()
            expected = reference(a, axis=tuple(range(3)) if dim is None else dim, keepdims=keepdim)
            assert got.shape == expected.shape and np.allclose(got, expected, atol=1e-5), (
                f"{name}(dim={dim}, keepdim={keepdim}): expected {expected}, got {got}"
            )
for keepdim in (False, True):
    got = Tensor(a).mean(dim=(0, 2), keepdim=keepdim).numpy()
    expected = np.add.reduce(a, axis=(0, 2), keepdims=keepdim) / 8
    assert got.shape == expected.shape and np.allclose(got, expected, atol=1e-6), (
        f"mean(dim=(0, 2), keepdim={keepdim}): expected {expected}, got {got}"
    )
assert Tensor(a).mean().numpy().dtype == np.float32, "mean of float32: expected float32"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: standardize a batch
# Broadcasting, arithmetic and reductions together. From a batch `x` of shape (N, D), take away each column's mean and divide
# by its standard deviation, the square root of the mean squared distance from that mean. Use tensor operations
# only. By hand: the column `[1, 3]` has mean 2 and deviation 1, so it becomes `[-1, 1]`. This function is not
# exported; BatchNorm in lesson 09 is built around it.

# %% nbgrader={"grade_id": "standardize", "solution": true}
def standardize(x):
    """Every column of the tensor `x` (N, D) with mean 0 and standard deviation 1."""
    ### BEGIN SOLUTION
    centered = x - x.mean(dim=0, keepdim=True)
    return centered / (centered**2).mean(dim=0, keepdim=True).sqrt()
    ### END SOLUTION


# %% tags=["nbval-check-output"]
standardize(Tensor([[1, 10], [3, 30]]))

# %% nbgrader={"grade_id": "test-standardize", "grade": true, "points": 2}
rng = np.random.default_rng(3)
a = rng.normal(5, 2, (6, 3))
got = np.asarray(standardize(Tensor(a)).numpy())
assert got.shape == (6, 3), f"standardize: expected shape (6, 3), got {got.shape}"
assert np.allclose(got.sum(0), 0, atol=1e-4), f"standardize: expected columns that sum to 0, got {got.sum(0)}"
assert np.allclose((got * got).sum(0) / 6, 1, atol=1e-4), (
    f"standardize: expected mean squares of 1, got {(got * got).sum(0) / 6}: divide by N"
)
assert np.allclose(got * a.std(0) + a.mean(0), a, atol=1e-4), (
    "standardize: scaling and shifting back does not give x: which dimension is averaged?"
)
### BEGIN HIDDEN TESTS
a = rng.normal(-1, 3, (4, 4))
got = np.asarray(standardize(Tensor(a)).numpy())
expected = np.stack([(c - c.mean()) / c.std() for c in a.T], axis=1)
assert np.allclose(got, expected, atol=1e-4), (
    f"standardize of a square batch: expected {expected.tolist()}, got {got.tolist()}"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 9. Memory: strides and views
#
# Memory is one long row of numbers. A shape is a way to read it, and the reading is done with **strides**: how
# many bytes to go on for one step along each dimension. A float32 has 4 bytes, so the array below is read with
# strides (12, 4): 12 bytes to the next row, 4 to the next column.
#
# ```
#   shape (2, 3)   [[1 2 3]        memory   1 2 3 4 5 6
#                   [4 5 6]]                |     ^ next row: 3 numbers, 12 bytes on
# ```
#
# In this order (row-major, or C order) the last dimension moves fastest. The stride of a dimension is the size of
# everything behind it.
#
# ### Exercise: `row_major_strides`
# By hand: shape (2, 3, 4) with 4-byte numbers has strides (48, 16, 4). Not exported.

# %% nbgrader={"grade_id": "strides", "solution": true}
def row_major_strides(shape, itemsize=4):
    """The strides in bytes, a tuple of ints, of a C-ordered array with `itemsize` bytes a number."""
    ### BEGIN SOLUTION
    strides, step = [], itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(row_major_strides((2, 3)), row_major_strides((2, 3, 4)), row_major_strides((32, 3, 32, 32)))

# %% nbgrader={"grade_id": "test-strides", "grade": true, "points": 1}
for shape in [(5,), (2, 3), (2, 3, 4), (7, 2, 5, 3), ()]:
    got, expected = tuple(row_major_strides(shape)), np.empty(shape, np.float32).strides
    assert got == expected, f"row_major_strides({shape}): expected {expected}, got {got}"
### BEGIN HIDDEN TESTS
for shape, dtype in [((3, 5), np.float64), ((2, 9, 4), np.uint8), ((6, 2, 2, 3), np.int16)]:
    got, expected = tuple(row_major_strides(shape, np.dtype(dtype).itemsize)), np.empty(shape, dtype).strides
    assert got == expected, (
        f"row_major_strides({shape}, {np.dtype(dtype).itemsize}): expected {expected}, got {got}"
    )
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: `reshape`
# The same row of numbers, read with another shape. One size may be -1: it is whatever makes the count come out.
# By hand: 6 numbers as `(2, -1)` are `(2, 3)`; as `(4, -1)` they are nothing, because 4 does not divide 6.
#
# Fill in the -1, refuse what does not fit, and go through `np.reshape` with `shape=` by name. Refuse also what is
# not settled: two sizes of -1, and a -1 beside a 0, as in `(0, -1)`. `math.prod` multiplies.

# %% nbgrader={"grade_id": "reshape", "solution": true}
#| export
class Tensor(Tensor):
    def reshape(self, *shape):
        """The same numbers in another shape; one size may be -1. A view where the memory order allows it.

        Raises ValueError, naming both shapes, where the number of elements does not come out.
        """
        shape = as_shape(shape, least=-1)
        ### BEGIN SOLUTION
        known = math.prod(n for n in shape if n != -1)
        if shape.count(-1) == 1 and known > 0 and self.numel() % known == 0:
            shape = tuple(self.numel() // known if n == -1 else n for n in shape)
        elif -1 in shape or known != self.numel():
            raise ValueError(
                f"reshape: {self.numel()} elements of shape {self.shape} do not fit shape {shape}"
            )
        return apply(np.reshape, self, shape=shape)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
print(arange(6).reshape(2, -1))

# %% tags=["nbval-check-output"]
x = arange(6)
grid = x.reshape(2, 3)
np.shares_memory(x.numpy(), grid.numpy())

# %% nbgrader={"grade_id": "test-reshape", "grade": true, "points": 2}
x = Tensor(np.arange(24))
for shape, expected in [((2, 12), (2, 12)), ((2, -1), (2, 12)), ((-1,), (24,)), ((3, -1, 4), (3, 2, 4))]:
    got = x.reshape(*shape).numpy()
    assert got.shape == expected, f"reshape{shape}: expected shape {expected}, got {got.shape}"
    got = got.ravel().tolist()
    assert got == list(range(24)), f"reshape{shape}: expected 0 to 23 in their order, got {got}"
for shape in [(5, -1), (4, 5), (-1, -1, 24)]:
    try:
        got = f"shape {x.reshape(*shape).shape}"
    except ValueError as error:
        got = str(error)
    assert str(shape) in got and "24" in got, (
        f"reshape{shape} of 24 elements: expected a ValueError naming both, got {got!r}"
    )
### BEGIN HIDDEN TESTS
for tensor, shape, expected in [
    (x, ((4, 6),), (4, 6)), (Tensor(3), (1, 1), (1, 1)),
    (Tensor([[3]]), (), ()), (zeros(0, 3), (3, -1), (3, 0)),
]:
    got = tensor.reshape(*shape).shape
    assert got == expected, f"{tensor.shape} reshaped by {shape}: expected shape {expected}, got {got}"
assert np.shares_memory(x.reshape(2, 12).numpy(), x.numpy()), "reshape: expected a view, not a copy"
for tensor, shape in [(x, (-2, -12)), (zeros(0, 3), (0, -1)), (x, (48, -1)), (x, (0,))]:
    try:
        got = f"shape {tensor.reshape(*shape).shape}"
    except ValueError as error:
        got = str(error)
    assert str(shape) in got, (
        f"reshape{shape} of {tensor.shape}: expected a ValueError that names {shape}, got {got!r}"
    )
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: `permute` and `transpose`
# Reordering dimensions moves no number at all: only the strides change places. `permute(2, 0, 1)` makes dimension
# 2 the first. `transpose(a, b)` swaps two.
#
# `np.transpose(array, axes=...)` does it. What you must take care of: a negative dimension counts from the end,
# and `axes` has to hold plain numbers 0, 1, 2, ... by the time it reaches `apply`, since lesson 05 computes the
# way back from them. `normalize_dim` is given.

# %% nbgrader={"grade_id": "normalize_dim", "locked": true}
#| export
def normalize_dim(dim, ndim):
    """The dimension counted from the front: -1 becomes ndim - 1. Raises IndexError where there is no such."""
    if not -ndim <= dim < ndim:
        raise IndexError(f"dim: expected {-ndim} to {ndim - 1} for a tensor of {ndim} dimensions, got {dim}")
    return dim % ndim


# %% nbgrader={"grade_id": "permute", "solution": true}
#| export
class Tensor(Tensor):
    def permute(self, *axes):
        """Reorder all dimensions; a view, no copy. Shape (2, 3, 4) with axes (2, 0, 1) becomes (4, 2, 3).

        Raises ValueError, naming `axes`, unless every dimension is in it once, and IndexError for a dimension
        that is not there.
        """
        ### BEGIN SOLUTION
        axes = tuple(normalize_dim(axis, self.ndim) for axis in axes)
        if sorted(axes) != list(range(self.ndim)):
            raise ValueError(
                f"permute: expected each of the {self.ndim} dimensions of {self.shape} once, got {axes}"
            )
        return apply(np.transpose, self, axes=axes)
        ### END SOLUTION

    def transpose(self, dim0, dim1):
        """Swap two dimensions; a view, no copy. Raises IndexError for a dimension that is not there."""
        ### BEGIN SOLUTION
        axes = list(range(self.ndim))
        dim0, dim1 = normalize_dim(dim0, self.ndim), normalize_dim(dim1, self.ndim)
        axes[dim0], axes[dim1] = dim1, dim0
        return self.permute(*axes)
        ### END SOLUTION


# %% nbgrader={"grade_id": "matrix-transpose", "locked": true}
#| export
class Tensor(Tensor):
    @property
    def T(self):
        """The last two dimensions swapped; a view."""
        return self.transpose(-2, -1)


# %% tags=["nbval-check-output"]
x = Tensor([[1, 2, 3], [4, 5, 6]])
print(x.T)
print(x.numpy().strides, x.T.numpy().strides)

# %% nbgrader={"grade_id": "test-permute", "grade": true, "points": 2}
rng = np.random.default_rng(0)
a = rng.standard_normal((2, 3, 4)).astype(np.float32)
x = Tensor(a)
for axes in [(0, 1, 2), (2, 0, 1), (1, 2, 0), (0, -1, 1)]:
    got, expected = x.permute(*axes).numpy(), np.moveaxis(a, axes, (0, 1, 2))
    assert got.shape == expected.shape, f"permute{axes}: expected shape {expected.shape}, got {got.shape}"
    assert np.array_equal(got, expected), (
        f"permute{axes}: the shape is right, the places are not: expected {expected.ravel()[:3]}..., "
        f"got {got.ravel()[:3]}..."
    )
for dims in [(0, 1), (1, 2), (-1, 0), (1, 1)]:
    got, expected = x.transpose(*dims).numpy(), np.swapaxes(a, *dims)
    assert np.array_equal(got, expected), (
        f"transpose{dims}: expected what np.swapaxes gives, got shape {got.shape}"
    )
### BEGIN HIDDEN TESTS
for view in (x.permute(2, 0, 1), x.transpose(0, 2)):
    assert np.shares_memory(view.numpy(), x.numpy()), "permute and transpose: expected a view, not a copy"
for axes in [(0, 1), (0, 0, 1), (0, 1, 2, 2)]:
    try:
        got = f"shape {x.permute(*axes).shape}"
    except ValueError as error:
        got = str(error)
    assert str(axes) in got, (
        f"permute{axes} of 3 dimensions: expected a ValueError that names {axes}, got {got!r}"
    )
for name, run in [
    ("permute(0, 1, 3)", lambda: x.permute(0, 1, 3)), ("transpose(0, 3)", lambda: x.transpose(0, 3))
]:
    try:
        got = f"shape {run().shape}"
    except IndexError as error:
        got = str(error)
    assert "got 3" in got, f"{name}: expected the IndexError of normalize_dim, got {got!r}"
### END HIDDEN TESTS

# %% tags=["nbval-check-output"]
images = zeros(8, 3, 32, 32)
images.permute(0, 2, 3, 1).shape, images.permute(0, 2, 3, 1).numpy().strides

# %% [markdown]
# ### One figure: the same memory, read three ways
# Each square shows the position in memory of the number that stands there.

# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import show

base = np.arange(12, dtype=np.float32).reshape(3, 4)
pictures = [("x", base), ("x.T", base.T), ("row 0, broadcast to (3, 4)", np.broadcast_to(base[0], (3, 4)))]
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2))
for ax, (title, view) in zip(axes, pictures, strict=True):
    ax.imshow(view, cmap="cividis", vmin=0, vmax=11)
    for (i, j), position in np.ndenumerate(view):
        ax.text(j, i, int(position), ha="center", va="center", color="white" if position < 6 else "black")
    ax.set(title=f"{title}\nstrides {view.strides}", xticks=[], yticks=[])
show(
    figure,
    alt="Three grids of memory positions. In x, 0 to 11 grow along each row of four. In its transpose the same numbers "
    "grow down each column of four. In the broadcast row, all three rows show 0 to 3.",
)

# %% [markdown]
# No number was moved: the strides alone decide where a reader steps next, and a stride of 0 reads the same four
# numbers again.
#
# ### One measurement: what order costs
# A processor fetches memory in lines of usually 64 bytes, 16 float32 at a time. Reading along memory uses all of
# a line; reading across uses one number of it and throws the rest away.
#
# First, sums of single rows and single columns of the same array. Look at the factor between them. Then four
# additions of equal size. Before you run it, guess which are slow: NumPy may walk through its operands in any
# order it likes, as long as all of them agree.

# %% tags=["measure"]
n = 1024
a, b = (np.random.default_rng(k).random((n, n), np.float32) for k in (0, 1))
rows = best_of(lambda: [row.sum() for row in a], 3)
columns = best_of(lambda: [column.sum() for column in a.T], 3)
print(f"sum row by row {rows:.1f} ms, column by column {columns:.1f} ms")

# %% tags=["measure"]
x, y, out = Tensor(a), Tensor(b), np.empty((n, n), np.float32)
for name, p, q in [("x + y", x, y), ("x.T + y.T", x.T, y.T), ("x + y.T", x, y.T), ("x.T + y", x.T, y)]:
    print(f"{name:10} {best_of(lambda p=p, q=q: p + q):6.1f} ms")

# %% [markdown]
# A transposed tensor is not slow in itself: `x.T + y.T` is walked in the order of memory. Two operands in
# *different* orders are slow, because one of them has to be read across. That is why element-wise operations in
# this package keep the order in which they find their data, and why lesson 09 decides on one order for images.
#
# ## 10. Indexing, and changing in place
#
# `x[1]`, `x[:, 0]` and `x[1:3]` are views. `x[[0, 0, 2]]` and `x[x > 0]` pick numbers from anywhere, which no
# strides can describe, so they are copies.
#
# `x[0] = 5` changes memory that others may be looking at. Lesson 05 keeps tensors for the way back; if one of
# them is changed in between, the gradient would silently be wrong. So each change is counted, and `backward`
# compares the count with the one it wrote down.
#
# ### Exercise: `__getitem__` and `__setitem__`
# The primitive is `operator.getitem`: `operator.getitem(a, i)` is `a[i]`. Pass the index as the second input. To
# assign, write into `self._data` and count the change in `self._changes[0]`. An index or a value may be a tensor,
# as in `x[rows, 0]`: send both through `_plain`, which is given and puts arrays in the place of tensors.

# %% nbgrader={"grade_id": "plain", "locked": true}
#| export
def _plain(value):
    """`value` with arrays in place of tensors, also inside a tuple."""
    if isinstance(value, tuple):
        return tuple(_plain(v) for v in value)
    return value._data if isinstance(value, Tensor) else value


# %% nbgrader={"grade_id": "indexing", "solution": true}
#| export
class Tensor(Tensor):
    def __getitem__(self, index):
        """Elements by NumPy's rules: a view for ints and slices, a copy for lists, arrays and masks."""
        ### BEGIN SOLUTION
        return apply(operator.getitem, self, _plain(index))
        ### END SOLUTION

    def __setitem__(self, index, value):
        """Change elements in place and count the change, so that lesson 05 notices it."""
        ### BEGIN SOLUTION
        self._data[_plain(index)] = _plain(value)
        self._changes[0] += 1
        ### END SOLUTION


# %% tags=["nbval-check-output"]
x = Tensor([[1, 2, 3], [4, 5, 6]])
x[1] = 0
x[x > 2] = -1
print(x, x.version)
print(x[:, 0], x[[0, 0]].shape)

# %% [markdown]
# A view and its source share the count.

# %% tags=["nbval-check-output"]
row = x[0]
row[0] = 7
x[0, 0].item(), x.version, row.version

# %% nbgrader={"grade_id": "test-indexing", "grade": true, "points": 3}
rng = np.random.default_rng(0)
a = rng.standard_normal((4, 5)).astype(np.float32)
for name, index in [
    ("[1]", 1), ("[:, 2]", np.s_[:, 2]), ("[1:3, ::2]", np.s_[1:3, ::2]),
    ("[[0, 0, 3]]", [0, 0, 3]), ("[None, -1]", (None, -1)),
]:
    got, expected = Tensor(a)[index].numpy(), a[index]
    assert got.shape == expected.shape and np.array_equal(got, expected), (
        f"x{name}: expected {expected}, got {got}"
    )
x, expected = Tensor(a), a.copy()
before = x.version
x[1:3] = Tensor([1, 2, 3, 4, 5])
expected[1:3] = [1, 2, 3, 4, 5]
assert np.array_equal(x.numpy(), expected), f"x[1:3] = ...: expected {expected}, got {x.numpy()}"
assert x.version == before + 1, (
    f"x[1:3] = ...: expected version {before + 1}, got {x.version}: count every change"
)
### BEGIN HIDDEN TESTS
got = (x[0].version, x.version)
assert got == (before + 1, before + 1), (
    f"versions of x[0] and x after one change: expected {before + 1} for both, got {got}: read through apply"
)
for tensor, view in [(x, x[0]), (x, x[1:, 2:]), (x, x.T), (x, x.reshape(-1)), (x, x.detach())]:
    count = tensor.version
    assert np.shares_memory(view.numpy(), tensor.numpy()), "x[0], x[1:, 2:]: expected views that share memory"
    view[0] = 9
    assert tensor.version == count + 1, (
        f"a write through a view: expected version {count + 1} of its source, got {tensor.version}: "
        "add to self._changes[0]"
    )
copy = x[[0, 1]]
count = x.version
copy[0] = 5
assert x.version == count and not np.shares_memory(copy.numpy(), x.numpy()), (
    "x[[0, 1]] is a copy: writing to it must leave x alone"
)
x = Tensor(a)
x[x > 0] = 0
assert np.array_equal(x.numpy(), np.minimum(a, 0)), "x[x > 0] = 0: expected no positive number to be left"
positions = Tensor([[0, 7, 0, 0], [0, 0, 0, 7]]).argmax(dim=1)
x[0, positions] = 8
got = x.numpy()[0, [1, 3]].tolist()
assert got == [8, 8], f"x[0, positions] = 8: expected [8, 8] there, got {got}: pass the index through _plain"
row = Tensor([5, 6, 7, 8])[positions].numpy()
assert row.tolist() == [6, 8], f"x[tensor of positions]: expected [6, 8], got {row.tolist()}"
### END HIDDEN TESTS

# %% [markdown]
# The last piece is given: joining tensors. Its primitive is a function of ours, because `np.concatenate` takes
# one list of arrays, and `apply` only looks for tensors among the inputs themselves.

# %% nbgrader={"grade_id": "concatenate", "locked": true}
#| export
def concatenate(tensors, dim=0):
    """Join tensors along an existing dimension; all other sizes must agree. Raises ValueError where not."""
    return apply(concatenate_forward, *tensors, axis=dim)


def concatenate_forward(*arrays, axis):
    """The primitive of `concatenate`: arrays joined along `axis`."""
    return np.concatenate(arrays, axis=axis)


# %% tags=["nbval-check-output"]
concatenate([ones(2, 2), zeros(2, 1)], dim=1)

# %% [markdown]
# ## 11. What breaks
#
# **A shape that fits by accident.** Predictions of shape (3, 1) minus targets of shape (3,) broadcast to (3, 3):
# no error, a loss that looks plausible, and a network that learns nothing. Compare shapes before you subtract.

# %% tags=["nbval-check-output"]
predictions, targets = Tensor([[1], [2], [3]]), Tensor([1, 2, 3])
print((predictions - targets).shape, ((predictions - targets) ** 2).mean())
print((predictions.reshape(-1) - targets).shape, ((predictions.reshape(-1) - targets) ** 2).mean())

# %% [markdown]
# **Shapes that do not fit.** This one is friendly: it says so.

# %% tags=["nbval-check-output"]
for attempt in (lambda: ones(32, 10) + ones(32), lambda: ones(2, 3) @ ones(2, 3)):
    try:
        attempt()
    except ValueError as error:
        print(error)

# %% [markdown]
# **A view changed behind your back.** `row` was meant to be a scratch copy. PyTorch has the same trap.

# %% tags=["nbval-check-output"]
x = Tensor([[1, 2], [3, 4]])
row = x[0]
row[0] = 99
print(x, x.version)

# %% [markdown]
# **Seven digits.** float32 counts exactly up to 2^24 = 16,777,216. Adding 1 to that changes nothing, so a counter
# or a long sum belongs into float64.

# %% tags=["nbval-check-output"]
for dtype in (np.float32, np.float64):
    print((Tensor(2**24, dtype=dtype) + 1).item())

# %% [markdown]
# ## Exercises
# Ungraded; try them in cells of your own.
#
# 1. Without running it: what are the strides of `zeros(8, 32, 32, 3).permute(0, 3, 1, 2)`? Which dimension moves
#    fastest in memory? Lesson 09 keeps its images this way.
# 2. `x.T.reshape(-1)` cannot be a view. Explain why with strides, then check with `np.shares_memory`.
# 3. Write `outer(a, b)`, the table of all products of two vectors, with `reshape` and `*` alone.
# 4. Sum ten million random float32 numbers once with `Tensor.sum` and once in a Python loop over float32 values.
#    Compare both with float64. NumPy adds in pairs of halves; what does that do to the error?
# 5. In `best_of`, replace the minimum by the mean and measure five times. Which spreads more, and why?
#
# ## Elsewhere
#
# - PyTorch also routes every operation through one place, its *dispatcher*; it has many recorders plugged in:
#   autograd, mixed precision, tracing, other devices.
# - PyTorch keeps integers: `torch.tensor([1, 2])` is int64. Here everything becomes float32.
# - PyTorch counts versions as we do, one counter for a tensor and all its views. JAX has no in-place changes at
#   all: `x.at[0].set(5)` returns a new array, and there is nothing to count.
# - `torch.Tensor.max(dim=...)` returns values and positions together; here `max` and `argmax` are two calls.
# - PyTorch has `.contiguous()` for a copy in C order, and `memory_format=torch.channels_last` for the order
#   that lesson 09 uses. JAX leaves the memory order to its compiler.
#
# ## Summary
#
# - A tensor is an array plus decisions: float32, copies at the door, errors that name the shapes.
# - Broadcasting aligns shapes at the right and stretches ones; it is free in memory and silent in failure.
# - A view has its own strides over somebody else's memory. It costs nothing to make; writing through it changes
#   its source, and the shared version count says so.
# - Reading along memory is fast, reading across is slow, and mixing two orders in one operation means reading
#   across.
# - Every operation goes through `apply`. Nothing listens there yet.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/tensor.py`;
# `tito module complete 01` in a terminal does the same. Lesson 02 gives networks something that is not a straight
# line.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
