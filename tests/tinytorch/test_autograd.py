"""tinytorch.autograd: every rule against differences and PyTorch, the walk, and what must be refused."""

import gc
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch
from tests.helpers import check_op
from tinytorch import (
    BCELoss,
    CrossEntropyLoss,
    MSELoss,
    Tensor,
    concatenate,
    gelu,
    gradcheck,
    log_softmax,
    no_grad,
    relu,
    sigmoid,
    softmax,
    tanh,
)
from tinytorch.autograd import VJP, backward, is_grad_enabled, topological_order, unbroadcast, vjp
from tinytorch.tensor import apply


def positive(rng, shape):
    return rng.uniform(0.5, 2, shape)


def leaf(*shape, seed=0, dtype=np.float64):
    return Tensor(np.random.default_rng(seed).uniform(0.5, 2, shape), requires_grad=True, dtype=dtype)


ELEMENTWISE = {
    "add": (lambda x, y: x + y, np.add),
    "subtract": (lambda x, y: x - y, np.subtract),
    "multiply": (lambda x, y: x * y, np.multiply),
    "divide": (lambda x, y: x / y, np.divide),
}
SHAPES = [[(3, 4), (3, 4)], [(3, 4), (4,)], [(3, 1), (1, 4)], [(2, 3), ()], [(), (2, 1)], [(2, 1, 3), (4, 1)]]


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_arithmetic_broadcasts(name, shapes):
    fn, reference = ELEMENTWISE[name]
    check_op(fn, reference, shapes, draw=positive)


UNARY = {
    "negative": (lambda x: -x, np.negative),
    "square": (lambda x: x**2, np.square),
    "power": (lambda x: x**-1.5, lambda x: x**-1.5),
    "power 0": (lambda x: x**0, np.ones_like),
    "exp": (lambda x: x.exp(), np.exp),
    "log": (lambda x: x.log(), np.log),
    "sqrt": (lambda x: x.sqrt(), np.sqrt),
    "abs": (lambda x: (x - 1.2).abs(), lambda x: np.abs(x - 1.2)),
    "tanh": (tanh, np.tanh),
    "sigmoid": (sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "relu": (lambda x: relu(x - 1.2), lambda x: np.maximum(x - 1.2, 0)),
    "gelu": (gelu, lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
    "rsub": (lambda x: 1 - x, lambda x: 1 - x),
    "rdiv": (lambda x: 2 / x, lambda x: 2 / x),
}


@pytest.mark.parametrize("name", UNARY)
def test_elementwise(name):
    fn, reference = UNARY[name]
    for shape in ((3, 4), (), (0, 2), (1, 5, 1)):
        check_op(fn, reference, [shape], draw=positive)


@pytest.mark.parametrize(
    "a, b",
    [
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((5, 2, 3), (5, 3, 4)),
        ((2, 3), (5, 3, 4)),
        ((2, 1, 2, 3), (4, 3, 2)),
    ],
)
def test_matmul(a, b):
    check_op(lambda x, y: x @ y, np.matmul, [a, b])


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (-1, 0)])
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "max"])
def test_reductions(name, axis, keepdim):
    def reference(x):
        return getattr(x, name)(axis, keepdims=keepdim)

    check_op(lambda x: getattr(x, name)(axis, keepdim), reference, [(2, 3, 4)])


INDICES = [1, -1, slice(1, None), (slice(None), 0), (Ellipsis, slice(None, None, 2)), (0, None, 2), [0, 0, 1],
           (slice(None), [2, 2, 0]), np.array([[0, 1], [1, 1]]), np.arange(24).reshape(2, 3, 4) % 5 == 0,
           (np.array([1, 0, 1]), 2)]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=lambda i: str(i).replace("\n", ""))
def test_indexing(index):
    check_op(lambda x: x[index], lambda x: x[index], [(2, 3, 4)])


def test_shapes():
    check_op(lambda x: x.reshape(4, -1), lambda x: x.reshape(4, -1), [(2, 3, 4)])
    check_op(lambda x: x.T, lambda x: x.swapaxes(-1, -2), [(2, 3, 4)])
    check_op(lambda x: x.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1), [(2, 3, 4)])
    for dim in (1, -1):
        check_op(
            lambda x, y, dim=dim: concatenate([x, y, x], dim),
            lambda x, y, dim=dim: np.concatenate([x, y, x], dim),
            [(2, 3), (2, 1)],
        )


def test_permute_by_negative_axes():  # the inverse of an order needs the axes made positive first
    check_op(lambda x: x.permute(-1, 0, 1), lambda x: x.transpose(-1, 0, 1), [(2, 3, 4)])
    g = np.random.default_rng(0).standard_normal((4, 2, 3))
    (dx,) = VJP[np.transpose](g, g, np.zeros((2, 3, 4)), axes=(-1, 0, 1))
    np.testing.assert_array_equal(dx, g.transpose(1, 2, 0))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax(dim):
    check_op(lambda x: softmax(x, dim), lambda x: np.exp(x) / np.exp(x).sum(dim, keepdims=True), [(3, 4)])
    check_op(lambda x: log_softmax(x, dim), lambda x: x - np.log(np.exp(x).sum(dim, keepdims=True)), [(3, 4)])


def test_losses():
    check_op(MSELoss(), lambda x, t: np.mean((x - t) ** 2), [(3, 4), (3, 4)])
    for smoothing in (0.0, 0.2, 1.0):
        assert gradcheck(lambda x, s=smoothing: CrossEntropyLoss(s)(x, [0, 3, 1]), [leaf(3, 4)])
    target = Tensor([[0.0, 1.0, 0.3]], dtype=np.float64)
    assert gradcheck(lambda x: BCELoss()(sigmoid(x), target), [leaf(1, 3)])


def test_ties_share_the_gradient_of_max():
    x = Tensor([[1, 5, 5], [2, 2, 2]], requires_grad=True)
    x.max(1).backward([1, 3])
    np.testing.assert_allclose(x.grad.data, [[0, 0.5, 0.5], [1, 1, 1]])


def test_power_zero_at_zero():
    x = Tensor([0.0, 2.0], requires_grad=True)
    (x**0).sum().backward()
    assert x.grad.data.tolist() == [0, 0]


# ---- the walk


def test_shared_nodes_add_up():
    x = Tensor(2.0, requires_grad=True)
    y = Tensor(3.0, requires_grad=True)
    s = x * y + x
    (s * s).backward()
    assert (x.grad.item(), y.grad.item()) == (64, 32)


def test_gradients_of_two_backwards_add_up():
    x = leaf(3)
    (x * x).sum().backward()
    (x * 3).sum().backward()
    np.testing.assert_allclose(x.grad.data, 2 * x.data + 3)


STEP = st.tuples(st.sampled_from("+*-/"), st.integers(0, 99), st.integers(0, 99))


@settings(max_examples=25, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=12))
def test_any_graph(steps):
    """Random graphs with shared nodes, against the same program in dual numbers."""

    def program(values, apply_step):
        for op, i, j in steps:
            values.append(apply_step(op, values[i % len(values)], values[j % len(values)]))
        return values[-1]

    def dual(op, a, b):
        (x, dx), (y, dy) = a, b
        match op:
            case "+":
                return x + y, dx + dy
            case "-":
                return x - y, dx - dy
            case "*":
                return np.tanh(x * y), (1 - np.tanh(x * y) ** 2) * (dx * y + x * dy)
        return x / (y * y + 1), dx / (y * y + 1) - x * 2 * y * dy / (y * y + 1) ** 2

    def tensors(op, x, y):
        match op:
            case "+":
                return x + y
            case "-":
                return x - y
            case "*":
                return tanh(x * y)
        return x / (y * y + 1)

    x, y = (Tensor(v, requires_grad=True, dtype=np.float64) for v in (0.7, -1.3))
    program([x, y], tensors).backward()
    for k, t in enumerate((x, y)):
        _, expected = program([(0.7, 1.0 - k), (-1.3, float(k))], dual)
        assert np.isclose(0.0 if t.grad is None else t.grad.item(), expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3]), max_size=4), st.data())
def test_unbroadcast_is_the_adjoint_of_broadcasting(shape, data):
    small = tuple(data.draw(st.sampled_from([1, n])) for n in shape[data.draw(st.integers(0, len(shape))) :])
    rng = np.random.default_rng(0)
    g, x = rng.standard_normal(shape), rng.standard_normal(small)
    got = unbroadcast(g, small)
    assert got.shape == small
    assert np.isclose((got * x).sum(), (g * x).sum())


@pytest.mark.parametrize("depth", [10_000, 30_000])
def test_deep_graphs(depth):
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x
    for _ in range(depth):
        y = y + 1
    assert len(topological_order(y)) == depth + 1
    y.backward([1, 3])
    assert x.grad.data.tolist() == [1, 3]


def test_deep_graph_is_garbage_collected():
    x = Tensor([1.0], requires_grad=True)
    y = x
    for _ in range(30_000):
        y = y * 1.0
    middle = weakref.ref(y)
    del y
    gc.collect()
    assert middle() is None and x.grad is None


def test_wide_use_of_one_tensor():
    x = leaf(2)
    parts = [x * float(i) for i in range(200)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    total.sum().backward()
    np.testing.assert_allclose(x.grad.data, sum(range(200)))


def test_leaves_do_not_share_memory():
    x, y = leaf(2), leaf(2)
    (x + y).backward(np.ones(2))
    x.grad.data *= 7
    assert y.grad.data.tolist() == [1, 1]


def test_gradients_can_be_written():  # that of a sum is a read-only view until it is copied
    x = leaf(2, 3)
    x.sum().backward()
    x.grad.data *= 2
    assert x.grad.data.tolist() == [[2, 2, 2], [2, 2, 2]]


def test_gradients_keep_the_dtype_of_their_tensor():
    """Also where a float64 number came in, and for the rules that count (max, mean)."""
    for f in (
        lambda x: (x * np.float64(2)).sum(),
        lambda x: x.max(),
        lambda x: x.mean(0).sum(),
        lambda x: (x / np.arange(1.0, 4.0)).sum(),
        lambda x: x[[0, 0, 1]].sum(),
        lambda x: gelu(x).sum() ** 0.5,
    ):
        x = leaf(2, 3, dtype=np.float32)
        f(x).backward()
        assert x.grad.dtype == np.float32
        f(x).backward()
        assert x.grad.dtype == np.float32


def test_memory_comes_back_during_backward():
    x = Tensor(np.ones((256, 256)), requires_grad=True)
    tracemalloc.start()
    y = x
    for _ in range(40):
        y = y * 1.01
    loss = y.sum()
    del y
    recorded = tracemalloc.get_traced_memory()[0]
    loss.backward()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = x.data.nbytes
    assert recorded > 39 * size
    assert held < 2 * size  # the gradient of x, though the loss is still there
    assert peak < recorded + 4 * size


# ---- switches


def test_no_grad_records_nothing():
    x = leaf(2)
    with no_grad():
        y = x * 2
    assert y.node is None and not y.requires_grad
    with pytest.raises(RuntimeError, match="inside no_grad"):
        y.backward([1, 1])


def test_no_grad_nests_and_survives_errors():
    with pytest.raises(KeyError), no_grad():
        with no_grad():
            pass
        assert not is_grad_enabled()
        raise KeyError("planned")
    assert is_grad_enabled()


def test_no_grad_is_per_thread():
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_comparisons_are_not_recorded():
    x = leaf(3)
    for y in (x > 1, x < 1, x == 1, x.argmax()):
        assert y.node is None and not y.requires_grad


def test_detach_stops_gradients():
    x = leaf(2)
    (x * x.detach()).sum().backward()
    np.testing.assert_allclose(x.grad.data, x.data)


# ---- refusals


def test_backward_on_a_non_scalar():
    with pytest.raises(ValueError, match=r"single number, got shape \(2, 3\)"):
        (leaf(2, 3) * 2).backward()


@pytest.mark.parametrize("gradient", [1.0, [1, 1, 1], np.ones((1, 2))])
def test_gradient_of_another_shape(gradient):
    with pytest.raises(ValueError, match=r"gradient has shape .* the tensor \(2,\)"):
        (leaf(2) * 2).backward(gradient)


def test_backward_without_history():
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        Tensor([1.0]).backward()


def test_second_backward():
    x = leaf(2)
    shared = x * x
    loss, other = shared.sum(), shared.mean()
    loss.backward()
    for used in (loss, other):
        with pytest.raises(RuntimeError, match="was already used; compute the result again"):
            used.backward()
    np.testing.assert_allclose(x.grad.data, 2 * x.data)


def in_place_setitem(x):
    x[0] = 9.0


def in_place_data(x):
    x.data -= 0.5


def in_place_view(x):
    x[1:][0] = 9.0


def in_place_detached(x):
    x.detach()[0] = 9.0


@pytest.mark.parametrize("change", [in_place_setitem, in_place_data, in_place_view, in_place_detached])
@pytest.mark.parametrize("which", ["leaf", "constant", "between", "result"])
def test_in_place_changes_are_refused(change, which):
    x, c = leaf(3), Tensor([1.0, 2.0, 3.0], dtype=np.float64)
    between = x * c
    result = between.exp()
    loss = (result * between).sum()
    change({"leaf": x, "constant": c, "between": between, "result": result}[which])
    with pytest.raises(RuntimeError, match=r"of shape \(3,\) was changed in place after .*; change a copy"):
        loss.backward()
    assert x.grad is None


def test_result_of_exp_changed_in_place():  # its rule reads the result, which no other node may have noted
    x = leaf(2)
    y = x.exp()
    y[0] = 0.0
    with pytest.raises(RuntimeError, match="changed in place after exp"):
        y.sum().backward()


def test_a_step_between_two_graphs_is_fine():
    x = leaf(2)
    for _ in range(3):
        x.grad = None
        (x * x).sum().backward()
        x.data -= 0.1 * x.grad.data


def twice(x):
    return 2 * x


def test_primitive_without_a_rule():
    with pytest.raises(NotImplementedError, match="twice has no gradient rule; write one with @vjp"):
        apply(twice, leaf(2)).backward([1, 1])


def test_rules_that_return_too_little():
    try:
        vjp(twice)(lambda g, y, x: 2 * g)
        with pytest.raises(TypeError, match="the rule of twice must return a tuple"):
            apply(twice, leaf(2)).backward([1, 1])
        vjp(twice)(lambda g, y, x: (None,))
        with pytest.raises(RuntimeError, match="twice has no gradient for its input 0"):
            apply(twice, leaf(2)).backward([1, 1])
    finally:
        VJP.pop(twice)
    p, t = leaf(2), leaf(2)
    with pytest.raises(RuntimeError, match="bce_forward has no gradient for its input 1; detach it"):
        BCELoss()(p / 3, t / 3).backward()


def test_expensive_gradients_are_computed_only_where_needed():
    called = []

    def rule(g, y, a, b):
        return lambda: called.append("a") or g * b, lambda: called.append("b") or g * a

    before = VJP[np.multiply]
    try:
        vjp(np.multiply)(rule)
        (leaf(2) * Tensor([1.0, 2.0])).sum().backward()
    finally:
        VJP[np.multiply] = before
    assert called == ["a"]


# ---- gradcheck


@pytest.mark.parametrize("factor", [3, 2.0002, -2, np.nan])
def test_gradcheck_finds_wrong_rules(factor):
    try:
        vjp(twice)(lambda g, y, x: (factor * g,))
        with pytest.raises(AssertionError, match="input 0: backward gives .* differences give"):
            gradcheck(lambda x: apply(twice, x), [leaf(4)])
    finally:
        VJP.pop(twice)


def test_gradcheck_leaves_its_inputs_alone():
    x = leaf(3, dtype=np.float32)
    before = x.data.copy()
    assert gradcheck(lambda x: x * x, [x]) is True
    assert x.grad is None and np.array_equal(x.data, before)
    assert gradcheck(lambda x, y: x * 2, [x, np.ones(2)]) is True


# ---- PyTorch


def test_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((6, 5), (8, 5), (8,), (4, 8))]
    labels = rng.integers(0, 4, 6)

    def ours(x, w, b, v):
        h = gelu(x @ w.T + b)
        h = h * sigmoid(h) + softmax(h, 1) - tanh(h).mean(1, keepdim=True)
        return CrossEntropyLoss(0.1)(relu(h)[:, ::2] @ v[:, ::2].T + h.max(1, keepdim=True), labels)

    def theirs(x, w, b, v):
        h = F.gelu(x @ w.T + b, approximate="tanh")
        h = h * torch.sigmoid(h) + torch.softmax(h, 1) - torch.tanh(h).mean(1, keepdim=True)
        logits = torch.relu(h)[:, ::2] @ v[:, ::2].T + h.amax(1, keepdim=True)
        return F.cross_entropy(logits, torch.tensor(labels), label_smoothing=0.1)

    mine = [Tensor(a, requires_grad=True) for a in arrays]
    other = [torch.tensor(a, requires_grad=True) for a in arrays]
    loss, expected = ours(*mine), theirs(*other)
    loss.backward()
    expected.backward()
    assert abs(loss.item() - expected.item()) < 1e-5
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(a.grad.data, b.grad.numpy(), atol=1e-5)


def test_bce_and_mse_agree_with_pytorch():
    torch = pytest.importorskip("torch")
    p = np.array([0.0, 1.0, 0.3, 0.9, 1e-7], np.float32)
    t = np.array([0.0, 1.0, 1.0, 0.2, 1.0], np.float32)
    for loss, other in ((BCELoss(), torch.nn.BCELoss()), (MSELoss(), torch.nn.MSELoss())):
        x, y = Tensor(p, requires_grad=True), torch.tensor(p, requires_grad=True)
        loss(x, Tensor(t)).backward()
        other(y, torch.tensor(t)).backward()
        np.testing.assert_allclose(x.grad.data, y.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_the_package_turns_gradients_on():
    x = tinytorch.Tensor([3.0], requires_grad=True)
    (x * x).backward()
    assert x.grad.item() == 6
    y = x * x
    backward(y)
    assert x.grad.item() == 12
