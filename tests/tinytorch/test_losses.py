"""tinytorch.losses: values and gradients against other routes, stability, and checks that name the value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import check_op
from tinytorch.activations import sigmoid
from tinytorch.autograd import gradcheck
from tinytorch.losses import (
    BCELoss,
    CrossEntropyLoss,
    MSELoss,
    bce_forward,
    cross_entropy_forward,
    log_softmax,
)
from tinytorch.tensor import Tensor


def log_softmax_reference(x, axis=-1):
    return x - np.logaddexp.reduce(x, axis=axis, keepdims=True)


def cross_entropy_reference(x, targets, s):
    q = (1 - s) * np.eye(x.shape[1])[targets] + s / x.shape[1]
    return -(q * log_softmax_reference(x)).sum() / len(x)


# ---- mean squared error


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=3).map(tuple))
def test_mse(shape):
    check_op(MSELoss(), lambda x, t: np.square(x - t).sum() / x.size, [shape, shape])


def test_targets_may_be_arrays_or_lists():
    for targets in ([[1, 2]], np.array([[1, 2]]), Tensor([[1, 2]])):
        assert MSELoss()(Tensor([[3.0, 5.0]]), targets).item() == 6.5
        assert BCELoss()(Tensor([[0.5, 0.5]]), np.asarray(targets) - 1).item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("loss", [MSELoss(), BCELoss()])
@pytest.mark.parametrize("shapes", [((3,), (3, 1)), ((2, 3), (3, 2)), ((4,), ()), ((1, 4), (4,))])
def test_shapes_do_not_broadcast(loss, shapes):
    with pytest.raises(ValueError) as error:
        loss(Tensor(np.zeros(shapes[0])), Tensor(np.zeros(shapes[1])))
    message = str(error.value)
    assert type(loss).__name__ in message and all(str(shape) in message for shape in shapes)


@pytest.mark.parametrize("loss", [MSELoss(), BCELoss()])
def test_empty_batches_are_refused(loss):
    with pytest.raises(ValueError, match=r"expected at least one number, got shape \(0, 3\)"):
        loss(Tensor(np.zeros((0, 3))), np.zeros((0, 3)))


# ---- log softmax


@pytest.mark.parametrize("shape, axis", [((5,), 0), ((3, 4), -1), ((3, 4), 0), ((2, 3, 4), 1), ((2, 1), 1)])
def test_log_softmax(shape, axis):
    check_op(lambda x: log_softmax(x, dim=axis), lambda x: log_softmax_reference(x, axis), [shape])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_softmax_of_far_apart_logits_is_finite(dtype):
    x = Tensor([[0, 1e4, -1e4], [-1e4, -1e4, -1e4]], dtype=dtype, requires_grad=True)
    y = log_softmax(x)
    np.testing.assert_allclose(y.numpy(), [[-1e4, 0, -2e4], [-np.log(3)] * 3], rtol=1e-6)
    y.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


# ---- cross entropy


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.0, 0.1, 1.0]), st.integers(0, 99))
def test_cross_entropy(B, C, s, seed):
    targets = np.random.default_rng(seed).integers(0, C, B)
    loss = CrossEntropyLoss(label_smoothing=s)
    check_op(lambda x: loss(x, targets), lambda x: cross_entropy_reference(x, targets, s), [(B, C)])


def test_cross_entropy_does_not_change_when_all_logits_move():
    x, targets = np.random.default_rng(0).standard_normal((4, 3)), [0, 2, 1, 1]
    one, two = (CrossEntropyLoss(0.1)(Tensor(x + c, dtype=np.float64), targets).item() for c in (0, 500))
    assert one == pytest.approx(two, abs=1e-10)
    assert CrossEntropyLoss()(Tensor(np.zeros((2, 10))), [1, 9]).item() == pytest.approx(np.log(10))


def test_a_class_ruled_out_by_minus_infinity():
    """0 * -inf is nan: without smoothing only the right class counts."""
    x = Tensor([[0.0, -np.inf, 0.0]], requires_grad=True)
    loss = CrossEntropyLoss()(x, [2])
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2))
    np.testing.assert_allclose(x.grad.numpy(), [[0.5, 0, -0.5]], atol=1e-6)


def test_cross_entropy_keeps_float32_with_a_numpy_smoothing():
    logits = Tensor(np.ones((2, 3)))
    assert CrossEntropyLoss(np.float64(0.1))(logits, [0, 1]).dtype == np.float32
    loss, log_p = cross_entropy_forward(logits.numpy(), np.array([0, 1]), 0.1)
    assert loss.dtype == log_p.dtype == np.float32


@pytest.mark.parametrize("targets", [[0.0, 2.0], Tensor([0, 2]), np.array([0, 2], np.uint8), (False, 2)])
def test_targets_of_every_kind(targets):
    x = np.random.default_rng(0).standard_normal((2, 3))
    got = CrossEntropyLoss()(Tensor(x), targets).item()
    assert got == pytest.approx(cross_entropy_reference(x, [0, 2], 0), abs=1e-5)


@pytest.mark.parametrize("label", [-1, 3, 0.5, float("nan"), float("inf"), 1000])
def test_labels_that_are_no_class(label):
    with pytest.raises(ValueError, match=f"target {label}(.0)? is not a class; expected whole .* 0 to 2"):
        CrossEntropyLoss()(Tensor(np.zeros((4, 3))), [0, 1, label, -7])


@pytest.mark.parametrize(
    "logits, targets", [((2, 3), (3,)), ((2, 3), (2, 3)), ((3,), (3,)), ((0, 3), (0,)), ((2, 3), ())]
)
def test_wrong_shapes(logits, targets):
    with pytest.raises(ValueError) as error:
        CrossEntropyLoss()(Tensor(np.zeros(logits)), np.zeros(targets))
    assert f"got {logits} and {targets}" in str(error.value)


def test_labels_that_are_no_numbers():
    with pytest.raises(TypeError, match="expected class numbers as targets, got <U3"):
        CrossEntropyLoss()(Tensor(np.zeros((2, 3))), ["cat", "dog"])


@pytest.mark.parametrize("s", [-0.1, 1.1, float("nan")])
def test_smoothing_outside_its_range(s):
    with pytest.raises(ValueError, match=rf"label_smoothing in \[0, 1\], got {s}"):
        CrossEntropyLoss(label_smoothing=s)


# ---- binary cross entropy


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_bce(shape):
    targets = np.random.default_rng(1).uniform(0, 1, shape)

    def reference(z):  # max(z, 0) - z t + log(1 + exp(-|z|)), from the logits
        return np.mean(np.maximum(z, 0) - z * targets + np.log1p(np.exp(-np.abs(z))))

    def loss(z):
        return BCELoss()(sigmoid(z), Tensor(targets, dtype=z.dtype))

    check_op(loss, reference, [shape])


def test_bce_gradcheck_of_probabilities():
    p = Tensor(np.random.default_rng(2).uniform(0.1, 0.9, (3, 2)), dtype=np.float64)
    assert gradcheck(lambda p: BCELoss()(p, Tensor([[0, 1], [1, 0.5], [0, 0]], dtype=np.float64)), [p])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bce_cuts_logarithms_at_100_without_a_warning(dtype, recwarn):
    p = np.array([0, 1, 0, 1, 1e-30], dtype)
    t = np.array([0, 1, 1, 0, 1], dtype)
    got = [float(bce_forward(p[i : i + 1], t[i : i + 1])) for i in range(5)]
    np.testing.assert_allclose(got, [0, 0, 100, 100, 30 * np.log(10)], rtol=1e-6)
    assert not len(recwarn)


def test_bce_of_tiny_probabilities():
    assert bce_forward(np.array([1e-9], np.float32), np.zeros(1, np.float32)) == pytest.approx(1e-9, rel=1e-4)
    assert bce_forward(np.array([1e-60]), np.ones(1)) == 100


@pytest.mark.parametrize(
    "p, t, value", [(3.5, 0, "3.5"), (-0.5, 1, "-0.5"), (0.5, 2, "2"), (float("nan"), 1, "nan")]
)
def test_bce_refuses_what_is_no_probability(p, t, value):
    with pytest.raises(ValueError, match=rf"BCELoss: expected .* in \[0, 1\], got {value}"):
        BCELoss()(Tensor([0.5, p]), Tensor([0, t]))


# ---- PyTorch


def test_agreement_with_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 6, 5)).astype(np.float32)
    labels = rng.integers(0, 5, 6)
    edge = np.array([[0, 1, 0, 1, 0.3]], np.float32)
    yes = np.array([[0, 1, 1, 0, 1]], np.float32)
    cases = [
        (MSELoss(), torch.nn.MSELoss(), x, y),
        (CrossEntropyLoss(), torch.nn.CrossEntropyLoss(), x, labels),
        (CrossEntropyLoss(0.2), torch.nn.CrossEntropyLoss(label_smoothing=0.2), x * 30, labels),
        (BCELoss(), torch.nn.BCELoss(), 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-y))),
        (BCELoss(), torch.nn.BCELoss(), edge, yes),
        (BCELoss(), torch.nn.BCELoss(), edge.astype(np.float64), yes.astype(np.float64)),
    ]
    for ours, theirs, values, targets in cases:
        a = Tensor(values, dtype=values.dtype, requires_grad=True)
        b = torch.tensor(values, requires_grad=True)
        given = Tensor(targets, dtype=targets.dtype) if targets.dtype.kind == "f" else targets
        one, two = ours(a, given), theirs(b, torch.tensor(targets))
        one.backward()
        two.backward()
        np.testing.assert_allclose(one.item(), two.item(), rtol=1e-5, err_msg=repr(ours))
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-5, atol=1e-6, err_msg=repr(ours))
