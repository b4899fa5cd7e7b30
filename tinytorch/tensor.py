"""The tensor: an array that knows its shape, and one seam through which every operation runs.

Built by tito from lesson 01_tensor: change the lesson, not this file.
"""

import math
import operator

import numpy as np

__all__ = [
    "as_array",
    "set_recorder",
    "set_runner",
    "Tensor",
    "apply",
    "manual_seed",
    "default_rng",
    "as_shape",
    "zeros",
    "ones",
    "rand",
    "randn",
    "arange",
    "broadcast_shape",
    "normalize_dim",
    "concatenate",
    "concatenate_forward",
]


def as_array(data, dtype=None):
    """A numeric array with a copy of `data`: float32 unless `dtype` says otherwise.

    Takes numbers, nested lists, arrays and tensors. Raises ValueError for nested lists of unequal length,
    TypeError for anything that is not a real number.

    >>> as_array([1, 2]).dtype
    dtype('float32')
    """
    try:
        array = np.asarray(data)
    except ValueError:
        raise ValueError(
            "Tensor: nested lists of unequal length; every row needs the same number of entries"
        ) from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"Tensor: expected numbers, got dtype {array.dtype}; convert the data first")
    return np.array(array, dtype=np.float32 if dtype is None else dtype)


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

    def item(self):
        """The single number of a tensor with one element, as a Python number.

        Raises ValueError, naming the shape, if there is not exactly one element.
        """
        if self.numel() != 1:
            raise ValueError(f"item: expected a tensor with one element, got shape {self.shape}")
        return self._data.item()

    def __repr__(self):
        numbers = np.array2string(self._data, precision=4, separator=", ", prefix="Tensor(")
        dtype = "" if self.dtype == np.float32 else f", dtype={self.dtype}"
        return f"Tensor({numbers}{dtype}{', requires_grad=True' if self.requires_grad else ''})"

    def __add__(self, other):
        return _elementwise(np.add, self, other)

    def __radd__(self, other):
        return _elementwise(np.add, other, self)

    def __sub__(self, other):
        return _elementwise(np.subtract, self, other)

    def __rsub__(self, other):
        return _elementwise(np.subtract, other, self)

    def __mul__(self, other):
        return _elementwise(np.multiply, self, other)

    def __rmul__(self, other):
        return _elementwise(np.multiply, other, self)

    def __truediv__(self, other):
        return _elementwise(np.divide, self, other)

    def __rtruediv__(self, other):
        return _elementwise(np.divide, other, self)

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

    def __matmul__(self, other):
        """Matrix product; leading dimensions broadcast. Shapes (..., n, k) @ (..., k, m) -> (..., n, m).

        Raises ValueError, naming both shapes, where they do not fit.
        """
        other = _beside(other, self)
        if self.ndim < 2 or other.ndim < 2 or self.shape[-1] != other.shape[-2]:
            raise ValueError(
                f"matmul: cannot multiply {self.shape} by {other.shape}; expected (..., n, k) @ (..., k, m)"
            )
        broadcast_shape(self.shape[:-2], other.shape[:-2], f"matmul of {self.shape} and {other.shape}")
        return apply(np.matmul, self, other)

    def __rmatmul__(self, other):
        return Tensor._wrap(_beside(other, self)) @ self

    def sum(self, dim=None, keepdim=False):
        """The sum over `dim`, an int or a tuple of ints; over everything where it is None."""
        return apply(np.sum, self, axis=dim, keepdims=keepdim)

    def mean(self, dim=None, keepdim=False):
        """The mean over `dim`, an int or a tuple of ints; over everything where it is None."""
        return apply(np.mean, self, axis=dim, keepdims=keepdim)

    def max(self, dim=None, keepdim=False):
        """The largest number over `dim`, an int or a tuple of ints; over everything where it is None."""
        return apply(np.max, self, axis=dim, keepdims=keepdim)

    def argmax(self, dim=None):
        """The position of the largest number along `dim`, or in the flattened tensor. It has no gradient."""
        return Tensor._wrap(np.argmax(self._data, axis=dim))

    def reshape(self, *shape):
        """The same numbers in another shape; one size may be -1. A view where the memory order allows it.

        Raises ValueError, naming both shapes, where the number of elements does not come out.
        """
        shape = as_shape(shape, least=-1)
        known = math.prod(n for n in shape if n != -1)
        if shape.count(-1) == 1 and known > 0 and self.numel() % known == 0:
            shape = tuple(self.numel() // known if n == -1 else n for n in shape)
        elif -1 in shape or known != self.numel():
            raise ValueError(
                f"reshape: {self.numel()} elements of shape {self.shape} do not fit shape {shape}"
            )
        return apply(np.reshape, self, shape=shape)

    def permute(self, *axes):
        """Reorder all dimensions; a view, no copy. Shape (2, 3, 4) with axes (2, 0, 1) becomes (4, 2, 3).

        Raises ValueError, naming `axes`, unless every dimension is in it once, and IndexError for a dimension
        that is not there.
        """
        axes = tuple(normalize_dim(axis, self.ndim) for axis in axes)
        if sorted(axes) != list(range(self.ndim)):
            raise ValueError(
                f"permute: expected each of the {self.ndim} dimensions of {self.shape} once, got {axes}"
            )
        return apply(np.transpose, self, axes=axes)

    def transpose(self, dim0, dim1):
        """Swap two dimensions; a view, no copy. Raises IndexError for a dimension that is not there."""
        axes = list(range(self.ndim))
        dim0, dim1 = normalize_dim(dim0, self.ndim), normalize_dim(dim1, self.ndim)
        axes[dim0], axes[dim1] = dim1, dim0
        return self.permute(*axes)

    @property
    def T(self):
        """The last two dimensions swapped; a view."""
        return self.transpose(-2, -1)

    def __getitem__(self, index):
        """Elements by NumPy's rules: a view for ints and slices, a copy for lists, arrays and masks."""
        return apply(operator.getitem, self, _plain(index))

    def __setitem__(self, index, value):
        """Change elements in place and count the change, so that lesson 05 notices it."""
        self._data[_plain(index)] = _plain(value)
        self._changes[0] += 1


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


def zeros(*shape, requires_grad=False):
    """A tensor full of 0. Raises ValueError for negative sizes."""
    return Tensor(np.zeros(as_shape(shape), np.float32), requires_grad)


def ones(*shape, requires_grad=False):
    """A tensor full of 1. Raises ValueError for negative sizes."""
    return Tensor(np.ones(as_shape(shape), np.float32), requires_grad)


def rand(*shape, requires_grad=False):
    """Numbers drawn uniformly from [0, 1). Raises ValueError for negative sizes."""
    return Tensor(default_rng().random(as_shape(shape), np.float32), requires_grad)


def randn(*shape, requires_grad=False):
    """Numbers drawn from the standard normal distribution. Raises ValueError for negative sizes."""
    return Tensor(default_rng().standard_normal(as_shape(shape), np.float32), requires_grad)


def arange(*args):
    """Numbers in equal steps: `arange(stop)`, `arange(start, stop)` or `arange(start, stop, step)`."""
    return Tensor(np.arange(*args))


def broadcast_shape(a, b, name="broadcast"):
    """The shape that two arrays of the shapes `a` and `b`, tuples of ints, have together.

    Raises ValueError, starting with `name` and naming both shapes and the two sizes, where they do not fit.

    >>> broadcast_shape((3, 1), (4,))
    (3, 4)
    """
    rank = max(len(a), len(b))
    sizes_a, sizes_b = (1,) * (rank - len(a)) + tuple(a), (1,) * (rank - len(b)) + tuple(b)
    for m, n in zip(sizes_a, sizes_b, strict=True):
        if m != n and m != 1 and n != 1:
            raise ValueError(
                f"{name}: shapes {a} and {b} do not broadcast; "
                f"aligned at the right, {m} and {n} must be equal or one of them 1"
            )
    return tuple(n if m == 1 else m for m, n in zip(sizes_a, sizes_b, strict=True))


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


def normalize_dim(dim, ndim):
    """The dimension counted from the front: -1 becomes ndim - 1. Raises IndexError where there is no such."""
    if not -ndim <= dim < ndim:
        raise IndexError(f"dim: expected {-ndim} to {ndim - 1} for a tensor of {ndim} dimensions, got {dim}")
    return dim % ndim


def _plain(value):
    """`value` with arrays in place of tensors, also inside a tuple."""
    if isinstance(value, tuple):
        return tuple(_plain(v) for v in value)
    return value._data if isinstance(value, Tensor) else value


def concatenate(tensors, dim=0):
    """Join tensors along an existing dimension; all other sizes must agree. Raises ValueError where not."""
    return apply(concatenate_forward, *tensors, axis=dim)


def concatenate_forward(*arrays, axis):
    """The primitive of `concatenate`: arrays joined along `axis`."""
    return np.concatenate(arrays, axis=axis)
