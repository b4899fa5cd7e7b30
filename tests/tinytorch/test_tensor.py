"""Module 01: values against NumPy's other ways, gradients against differences, PyTorch where installed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from tests.helpers import check_op
from tinytorch import Tensor, arange, concatenate, manual_seed, ones, rand, randn, zeros
from tinytorch.tensor import apply, as_array, as_shape, broadcast_shape, default_rng, normalize_dim

quick = settings(max_examples=30, deadline=None, derandomize=True)


def positive(rng, shape):
    return rng.uniform(0.5, 2, shape)


# ---- data in


def test_float32_unless_told_otherwise():
    for data in (1, [1, 2], [[True]], np.arange(3), np.float64(2), Tensor([1.5])):
        assert Tensor(data).dtype == np.float32
    assert Tensor([0.1], dtype=np.float64).item() == 0.1


def test_data_is_copied():
    source = np.ones(3, np.float32)
    x = Tensor(source)
    y = Tensor(x)
    source[0], x[1] = 5, 7
    assert x.numpy().tolist() == [1, 7, 1] and y.numpy().tolist() == [1, 1, 1]


def test_copy_keeps_memory_order():
    channels_last = np.zeros((2, 5, 5, 3), np.float32).transpose(0, 3, 1, 2)
    assert Tensor(channels_last).numpy().strides == channels_last.strides


@pytest.mark.parametrize(
    "data, error, words",
    [
        ([[1, 2], [3]], ValueError, "unequal length"),
        ([[[1], [2, 3]]], ValueError, "unequal length"),
        (["a"], TypeError, "<U1"),
        ([None], TypeError, "object"),
        ([1j], TypeError, "complex"),
        ([2**70], TypeError, "object"),
        (np.array([1], dtype="datetime64[s]"), TypeError, "datetime64"),
    ],
)
def test_bad_data(data, error, words):
    with pytest.raises(error, match=words) as caught:
        as_array(data)
    assert "\n" not in str(caught.value)


def test_repr():
    assert repr(Tensor([[1, 1 / 3], [2, 3]])) == "Tensor([[1.    , 0.3333],\n        [2.    , 3.    ]])"
    assert (
        repr(Tensor(3, requires_grad=True, dtype=np.float64))
        == "Tensor(3., dtype=float64, requires_grad=True)"
    )


def test_item():
    assert Tensor([[2.5]]).item() == 2.5 and float(Tensor([2.5])) == 2.5 and not Tensor(0)
    for shape in ((2, 3), (0,)):
        with pytest.raises(ValueError, match=f"one element, got shape \\({shape[0]}"):
            zeros(*shape).item()


# ---- creation


def test_creation():
    assert zeros(2, 3).numpy().sum() == 0 and ones((2, 3)).numpy().sum() == 6
    assert arange(1, 7, 2).numpy().tolist() == [1, 3, 5]
    assert all(make(2, requires_grad=True).requires_grad for make in (zeros, ones, rand, randn))


def test_one_seed_one_sequence():
    manual_seed(3)
    first = [rand(2).numpy(), randn(2).numpy(), default_rng().random()]
    manual_seed(3)
    again = [rand(2).numpy(), randn(2).numpy(), default_rng().random()]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].dtype == first[1].dtype == np.float32


@pytest.mark.parametrize("make", [zeros, ones, rand, randn])
def test_bad_sizes(make):
    with pytest.raises(ValueError, match=r"at least 0, got \(2, -1\)"):
        make(2, -1)
    with pytest.raises(TypeError, match=r"integers, got \(2\.5,\)"):
        make(2.5)


def test_sizes_may_be_numpy_integers():
    assert as_shape((np.int64(2), 3)) == (2, 3) and as_shape(([2, 3],)) == (2, 3)
    assert zeros(2, 3).reshape(np.int64(3), -1).shape == (3, 2)  # was a TypeError: np.int64 is no int


# ---- broadcasting and arithmetic


@quick
@given(mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=4))
def test_broadcast_shape(shapes):
    a, b = shapes.input_shapes
    assert broadcast_shape(a, b) == broadcast_shape(b, a) == shapes.result_shape


def test_broadcast_shape_refuses():
    with pytest.raises(
        ValueError, match=r"^add: shapes \(2, 3\) and \(2,\) do not broadcast.* 3 and 2 must be equal"
    ):
        zeros(2, 3) + zeros(2)
    with pytest.raises(ValueError, match=r"^divide: shapes \(4, 1\) and \(3, 2\)"):
        zeros(4, 1) / np.ones((3, 2))
    with pytest.raises(ValueError, match="broadcast: .*0 and 2"):
        broadcast_shape((0,), (2,))


OPERATORS = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
}


@pytest.mark.parametrize("fn", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize(
    "shapes", [((3, 4), (4,)), ((3, 1), (1, 4)), ((), (2, 3)), ((2, 1, 3), (5, 1)), ((0, 2), (1,))]
)
def test_arithmetic(fn, shapes):
    check_op(fn, fn, shapes, draw=positive)


@pytest.mark.parametrize("fn", OPERATORS.values(), ids=OPERATORS)
def test_plain_numbers_on_either_side(fn):
    a = positive(np.random.default_rng(0), (2, 3))
    for other in (3, 2.5, np.float64(1.5), a, [1, 2, 3]):
        for got, expected in (
            (fn(Tensor(a), other), fn(a, other)),
            (fn(other, Tensor(a)), fn(np.asarray(other), a)),
        ):
            np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6)
            assert got.dtype == np.float32  # was float64: a NumPy constant widened everything after it


def test_types_meet():
    x32, x64 = Tensor([0.1]), Tensor([0.1], dtype=np.float64)
    assert (x32 + x64).dtype == np.float64 and (x64 * 0.1).item() == 0.1 * 0.1
    positions = Tensor([[1, 3, 2]]).argmax(dim=1)
    assert (positions * 0.5).item() == 0.5 and (positions == np.array([1])).numpy().all()


def test_operands_that_are_no_numbers():
    for other in ("a", None, [None]):
        with pytest.raises(TypeError, match="expected a number"):
            Tensor([1]) + other


def test_power():
    for n in (2, 3, 0.5, -1, 1):
        check_op(lambda a, n=n: a**n, lambda a, n=n: a**n, [(2, 3)], draw=positive)
    assert (Tensor([2]) ** np.float64(2)).dtype == np.float32
    for exponent in (Tensor(2), "2", [2]):
        with pytest.raises(TypeError, match="pow: expected a number"):
            Tensor([1]) ** exponent


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "abs"])
def test_functions(name):
    check_op(lambda a: getattr(a, name)(), getattr(np, name), [(3, 4)], draw=positive)


def test_negative_and_comparisons():
    check_op(lambda a: -a, lambda a: 0 - a, [(3,)])
    x = Tensor([-1, 0, 2])
    assert (x > 0).numpy().tolist() == [False, False, True] and (x < 0).numpy().tolist() == [
        True,
        False,
        False,
    ]
    assert (x == [-1, 5, 2]).numpy().tolist() == [True, False, True]
    assert len({x, x}) == 1 and len(x) == 3


# ---- matrices


@pytest.mark.parametrize(
    "a, b",
    [((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 1)), ((4, 1, 2, 3), (5, 3, 2)), ((2, 0), (0, 3))],
)
def test_matmul(a, b):
    check_op(lambda x, y: x @ y, lambda x, y: np.einsum("...ik,...kj->...ij", x, y), [a, b])


def test_matmul_with_arrays():
    a, b = np.random.default_rng(0).standard_normal((2, 3, 3))
    x = Tensor(b, dtype=np.float64)
    np.testing.assert_allclose((x @ a).numpy(), b @ a, rtol=1e-14)  # the array was cut to float32
    np.testing.assert_allclose((a @ x).numpy(), a @ b, rtol=1e-14)  # was a TypeError
    assert (Tensor(a) @ b).dtype == np.float32


@pytest.mark.parametrize("a, b", [((2, 3), (2, 3)), ((3,), (3, 2)), ((2, 3), (3,)), ((4, 2, 3), (5, 3, 2))])
def test_matmul_refuses(a, b):
    with pytest.raises(ValueError, match="matmul") as caught:
        zeros(*a) @ zeros(*b)
    assert str(a) in str(caught.value) and str(b) in str(caught.value)


# ---- reductions


@pytest.mark.parametrize("dim", [None, 0, -1, (0, 2), (-1, 1)])
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "max"])
def test_reductions(name, dim, keepdim):
    axes = tuple(range(3)) if dim is None else dim
    reference = {
        "sum": lambda a: np.add.reduce(a, axis=axes, keepdims=keepdim),
        "mean": lambda a: np.average(a, axis=axes, keepdims=keepdim),
        "max": lambda a: np.maximum.reduce(a, axis=axes, keepdims=keepdim),
    }[name]
    check_op(lambda a: getattr(a, name)(dim, keepdim), reference, [(2, 3, 4)])


def test_reduction_along_a_missing_dimension():
    with pytest.raises(np.exceptions.AxisError, match="axis 2 is out of bounds for array of dimension 2"):
        zeros(2, 3).sum(dim=2)


def test_argmax():
    x = Tensor([[1, 5, 2], [7, 0, 3]])
    assert x.argmax().item() == 3 and x.argmax(dim=1).numpy().tolist() == [1, 0]


# ---- shapes and views


@quick
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_reshape(shape, data):
    x = Tensor(np.arange(np.prod(shape)).reshape(shape))
    target = tuple(data.draw(st.permutations(shape)))
    hidden = data.draw(st.integers(0, len(shape) - 1))
    y = x.reshape(*(-1 if i == hidden else n for i, n in enumerate(target)))
    assert y.shape == target and np.array_equal(y.numpy().ravel(), x.numpy().ravel())


def test_reshape_edges():
    assert Tensor([[3]]).reshape().shape == () and zeros(0, 3).reshape(3, -1).shape == (3, 0)
    check_op(
        lambda a: a.transpose(0, 2).reshape(-1, 3), lambda a: np.swapaxes(a, 0, 2).reshape(8, 3), [(2, 3, 4)]
    )


@pytest.mark.parametrize("shape", [(4, -1), (5,), (-1, -1), (-2, -3), (0, -1), (12,)])
def test_reshape_refuses(shape):
    with pytest.raises(ValueError) as caught:  # (0, -1) was a ZeroDivisionError
        zeros(2, 3).reshape(*shape)
    assert str(shape) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("axes", [(2, 0, 1), (1, 2, 0), (-1, 0, 1), (0, -1, -2)])
def test_permute(axes):
    # negative axes reached the gradient rule as they were, and it inverted them wrongly
    check_op(lambda a: a.permute(*axes), lambda a: np.moveaxis(a, axes, (0, 1, 2)), [(2, 3, 4)])


@pytest.mark.parametrize("dims", [(0, 2), (-1, 0), (1, 1), (-2, -1)])
def test_transpose(dims):
    check_op(lambda a: a.transpose(*dims), lambda a: np.swapaxes(a, *dims), [(2, 3, 4)])


def test_matrix_transpose():
    check_op(lambda a: a.T, lambda a: np.einsum("...ij->...ji", a), [(2, 3, 4)])


@pytest.mark.parametrize("axes", [(0, 1), (0, 0, 1), (0, 1, 2, 0)])
def test_permute_refuses(axes):
    with pytest.raises(ValueError, match=r"each of the 3 dimensions of \(2, 3, 4\) once"):
        zeros(2, 3, 4).permute(*axes)


def test_missing_dimensions():
    for run in (
        lambda: zeros(2, 3).transpose(0, 2),
        lambda: zeros(2, 3).permute(0, 2),
        lambda: normalize_dim(2, 2),
    ):
        with pytest.raises(IndexError, match="expected -2 to 1 for a tensor of 2 dimensions, got 2"):
            run()
    with pytest.raises(IndexError, match="1 dimensions, got -2"):
        _ = zeros(3).T


# ---- indexing


INDICES = {
    "int": 1,
    "slice": slice(1, 3),
    "column": (slice(None), 2),
    "new": (None, Ellipsis, -1),
    "twice": [0, 0, 2],
    "pairs": ([0, 1], [2, 2]),
    "mask": np.arange(12).reshape(3, 4) % 5 == 0,
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_getitem(index):
    check_op(lambda a: a[index], lambda a: a[index], [(3, 4)])


def test_tensors_as_indices():
    a = np.arange(12).reshape(3, 4)
    x, rows = Tensor(a), Tensor([[0, 0, 9], [9, 0, 0]]).argmax(dim=1)
    assert x[rows].numpy().tolist() == a[[2, 0]].tolist() and x[rows, 1].numpy().tolist() == [9, 1]
    x[x > 5] = 0
    x[rows, 0] = Tensor([7, 8])
    assert x.numpy().max() == 8 and x[:, 0].numpy().tolist() == [8, 4, 7]


def test_bad_indices():
    with pytest.raises(IndexError, match="index 3 is out of bounds for axis 0 with size 3"):
        zeros(3)[3]
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        zeros(2)[:] = ones(3)


def test_version_counts_changes_through_views():
    x = Tensor(np.zeros((3, 4)))
    views = [
        x[0],
        x[1:, ::2],
        x.T,
        x.permute(1, 0),
        x.reshape(-1),
        x.reshape(3, 4),
        x.detach(),
        x[0].reshape(2, 2),
    ]
    for count, view in enumerate(views):
        assert np.shares_memory(view.numpy(), x.numpy()) and view.version == x.version == count
        view[0] = 1
    x.data = np.zeros(2)
    assert x.version == len(views) + 1
    copies = [x[[0]], x + 0, Tensor(x), x.sum()]
    x[0] = 1
    assert all(copy.version == 0 for copy in copies)


def test_writing_through_a_view_is_caught():
    # each tensor had a count of its own: a write through a view gave a wrong gradient without a word
    x = Tensor([[1, 2], [3, 4]], requires_grad=True)
    y = x * 1
    loss = (y * y).sum()
    y.T[0] = 9
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_concatenate():
    check_op(lambda a, b: concatenate([a, b], dim=-1), lambda a, b: np.dstack([a, b]), [(2, 3, 1), (2, 3, 4)])
    with pytest.raises(ValueError, match="size 2 and .* size 3"):
        concatenate([zeros(2, 2), zeros(2, 3)])


# ---- the seam


def test_apply_takes_the_first_of_a_tuple():
    y = apply(lambda a, n: (a * n, "for the gradient"), Tensor([1, 2]), 3)
    assert y.numpy().tolist() == [3, 6]


def test_elementwise_keeps_memory_order():
    x = Tensor(np.ones((2, 5, 5, 3), np.float32).transpose(0, 3, 1, 2))
    for y in (x + x, x * 2, 1 - x, x**2, -x, x.exp(), x > 0):
        assert np.argsort(y.numpy().strides).tolist() == np.argsort(x.numpy().strides).tolist()


def test_against_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 5, 3, 4)).astype(np.float32)

    def run(x, y):
        z = (x @ y.transpose(1, 2)).reshape(5, -1)[1:4]
        return ((z - z.mean(1, True)) / (z * z + 1)).exp().permute(1, 0).sum(0).log().sum() * 2 - x[
            0
        ].abs().sum()

    tensors = [Tensor(a, requires_grad=True), Tensor(b, requires_grad=True)]
    theirs = [torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)]
    y, z = run(*tensors), run(*theirs)
    y.backward()
    z.backward()
    assert abs(y.item() - z.item()) < 1e-4
    for x, t in zip(tensors, theirs, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), atol=1e-5)
