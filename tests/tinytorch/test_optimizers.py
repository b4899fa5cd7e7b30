"""tinytorch.optimizers: against PyTorch, against closed forms, resuming exactly, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import SGD, Adam, AdamW, Linear, Tensor
from tinytorch.optimizers import Optimizer

SETTINGS = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "weight_decay": 0.2}),
    (SGD, {"lr": 0.05, "momentum": 0.9}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}),
    (SGD, {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    (SGD, {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    (Adam, {}),
    (Adam, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}),
    (Adam, {"lr": 0.1, "weight_decay": 0.1}),
    (Adam, {"lr": 0.1, "betas": (0.0, 0.9)}),
    (AdamW, {}),
    (AdamW, {"lr": 0.1, "weight_decay": 0.3}),
]
IDS = [f"{make.__name__} {settings}" for make, settings in SETTINGS]
each_setting = pytest.mark.parametrize("make, settings", SETTINGS, ids=IDS)


def parameter(values, gradient=None, dtype=np.float32):
    p = Tensor(values, requires_grad=True, dtype=dtype)
    p.grad = None if gradient is None else Tensor(gradient, dtype=dtype)
    return p


def run(make, settings, start, gradients, dtype=np.float64):
    p = parameter(start, dtype=dtype)
    optimizer = make([p], **settings)
    for g in gradients:
        p.grad = Tensor(g, dtype=dtype)
        optimizer.step()
    return p.data


# ---- values


@each_setting
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_agrees_with_pytorch(make, settings, dtype, tolerance):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    starts = [rng.standard_normal(shape).astype(dtype) for shape in ((4, 3), (5,), ())]
    mine = [Tensor(a, requires_grad=True, dtype=dtype) for a in starts]
    theirs = [torch.tensor(a, requires_grad=True) for a in starts]
    ours, other = make(mine, **settings), getattr(torch.optim, make.__name__)(theirs, **settings)
    for step in range(12):
        ours.zero_grad()
        other.zero_grad()
        used = 2 if step % 4 == 3 else 3  # the last parameter misses some steps
        for x in mine[:used]:
            (0.3 * x * x + (x * x + 1).sqrt()).sum().backward()
        for x in theirs[:used]:
            (0.3 * x * x + (x * x + 1).sqrt()).sum().backward()
        ours.step()
        other.step()
    for a, b in zip(mine, theirs, strict=True):
        assert np.isfinite(a.data).all()
        np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=tolerance, atol=tolerance)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10), st.floats(0.001, 0.09), st.integers(1, 30))
def test_sgd_on_a_parabola(steepness, lr, steps):
    x = parameter([2.0], dtype=np.float64)
    optimizer = SGD([x], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * steepness * x * x).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(x.data, 2 * (1 - lr * steepness) ** steps, rtol=1e-9)


def test_momentum_adds_up_a_constant_gradient():
    moved = -run(SGD, {"lr": 1.0, "momentum": 0.9}, [0.0], [[1.0]] * 20)
    velocities = (1 - 0.9 ** np.arange(1, 21)) / (1 - 0.9)
    np.testing.assert_allclose(moved, [velocities.sum()])


def test_adam_steps_by_lr_for_a_constant_gradient():
    for size in (1e-3, 1.0, 1e4):
        moved = run(Adam, {"lr": 0.1}, [0.0, 0.0], [[size, -size]] * 15)
        np.testing.assert_allclose(moved, [-1.5, 1.5], rtol=1e-4)


def test_decay_without_gradient():
    for make in (AdamW, SGD):
        shrunk = run(make, {"lr": 0.1, "weight_decay": 0.5}, [2.0], [[0.0]] * 4)
        np.testing.assert_allclose(shrunk, [2 * 0.95**4])


def test_traces_by_hand():
    def trace(optimizer_of):
        x = parameter(1.0, dtype=np.float64)
        optimizer, places = optimizer_of([x]), []
        for _ in range(2):
            optimizer.zero_grad()
            (x * x).backward()
            optimizer.step()
            places.append(x.item())
        return places

    assert np.allclose(trace(lambda p: SGD(p, lr=0.1, momentum=0.5)), [0.8, 0.54])
    assert np.allclose(trace(lambda p: SGD(p, lr=0.1, momentum=0.5, nesterov=True)), [0.7, 0.44])
    assert np.allclose(trace(lambda p: Adam(p, lr=0.1)), [0.9, 0.8004122], atol=1e-7)


# ---- dtypes, memory, versions


@each_setting
def test_float32_stays_float32(make, settings):
    """Also where NumPy's float64 numbers come in, by the settings or by a schedule."""

    def numpy_number(value):
        if isinstance(value, tuple):
            return tuple(np.float64(v) for v in value)
        return value if isinstance(value, bool) else np.float64(value)

    p = parameter([1.0, 2.0], [3.0, 4.0])
    optimizer = make([p], **{"lr": 0.1} | {key: numpy_number(value) for key, value in settings.items()})
    for _ in range(2):
        optimizer.lr = np.cos(np.float64(0.1))
        optimizer.step()
    assert p.data.dtype == np.float32
    for state in optimizer.state:
        for name, value in state.items():
            assert isinstance(value, int) or value.dtype == np.float32, name


def test_float64_gradient_of_a_float32_parameter():
    p = parameter([1.0])
    optimizer = Adam([p])
    p.grad = Tensor([1.0], dtype=np.float64)
    optimizer.step()
    assert optimizer.state[0]["m"].dtype == np.float32 and p.data.dtype == np.float32


@each_setting
def test_steps_change_in_place_and_are_counted(make, settings):
    p = parameter([1.0, 2.0], [3.0, 4.0])
    array, version, g = p.data, p.version, p.grad.data
    make([p], **{"lr": 0.1} | settings).step()
    assert p.data is array and p.version == version + 1
    assert g.tolist() == [3, 4]


def test_a_graph_over_old_weights_is_refused():
    w = parameter([1.0, 2.0])
    loss = (w * w).sum()
    w.grad = Tensor([1.0, 1.0])
    SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_parameters_without_gradient_stay():
    p, q = parameter([1.0]), parameter([1.0], [1.0])
    optimizer = AdamW([p, q], lr=0.1)
    optimizer.step()
    assert p.data.tolist() == [1] and optimizer.state[0] == {}
    assert q.data.tolist() != [1]
    optimizer.zero_grad()
    assert q.grad is None


def test_shared_tensor_takes_one_step():
    p = parameter([1.0], [1.0])
    SGD([p, p], lr=0.25).step()
    assert p.data.tolist() == [0.75]


def test_momentum_does_not_hold_the_gradient_itself():  # clipping scales gradients in place
    p = parameter([0.0], [1.0])
    optimizer = SGD([p], lr=1.0, momentum=0.5)
    optimizer.step()
    p.grad.data *= 100
    p.grad = Tensor([0.0])
    optimizer.step()
    assert p.data.tolist() == [-1.5]


@pytest.mark.parametrize(
    "make, settings, size", [(SGD, {}, 0), (SGD, {"momentum": 0.9}, 4), (Adam, {}, 8), (AdamW, {}, 8)]
)
def test_bytes_of_state(make, settings, size):
    p = parameter(np.zeros(1000), np.ones(1000))
    optimizer = make([p], lr=0.1, **settings)
    optimizer.step()
    assert sum(a.nbytes for s in optimizer.state for a in s.values() if not isinstance(a, int)) == size * 1000


# ---- resuming


@each_setting
def test_resumes_exactly(make, settings):
    rng = np.random.default_rng(1)
    targets = [Tensor(rng.standard_normal(shape)) for shape in ((3, 4), (7,), ())]

    def train(steps, state=None, weights=None):
        tensors = [parameter(w) for w in weights or [np.zeros(t.shape) for t in targets]]
        optimizer = make(tensors, **{"lr": 0.1} | settings)
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            optimizer.zero_grad()
            for p, target in zip(tensors, targets, strict=True):
                ((p - target) ** 2).mean().backward()
            optimizer.step()
            optimizer.lr *= 0.97
        return optimizer.state_dict(), [p.data.copy() for p in tensors]

    whole = train(11)
    resumed = train(6, *train(5))
    assert whole[0].keys() == resumed[0].keys()
    for key, value in whole[0].items():
        assert value.dtype == resumed[0][key].dtype and np.array_equal(value, resumed[0][key]), key
    for a, b in zip(whole[1], resumed[1], strict=True):
        assert np.array_equal(a, b)


def test_state_dict_is_a_copy():
    p = parameter([1.0, 2.0], [3.0, 4.0])
    optimizer = Adam([p])
    optimizer.step()
    saved = optimizer.state_dict()
    assert sorted(saved) == ["0.m", "0.t", "0.v", "lr"]
    assert all(isinstance(v, np.ndarray) for v in saved.values())
    m = saved["0.m"].copy()
    optimizer.state[0]["m"] *= 2
    assert np.array_equal(saved["0.m"], m)
    optimizer.load_state_dict(saved)
    saved["0.m"] *= 2
    assert np.array_equal(optimizer.state[0]["m"], m)


@pytest.mark.parametrize(
    "state, match",
    [
        ({}, "with 'lr'; got the keys"),
        ({"lr": 9.0, "2.m": np.zeros(2)}, "'2.m' fits none of the 2 parameters"),
        ({"lr": 9.0, "m": np.zeros(2)}, "'m' fits none"),
        ({"lr": 9.0, "0.t": 4, "1.m": np.zeros(3)}, r"'1.m' has shape \(3,\), its parameter \(2,\)"),
    ],
)
def test_state_that_does_not_fit(state, match):
    optimizer = Adam([parameter([1.0, 2.0]), parameter([3.0, 4.0])], lr=0.5)
    with pytest.raises(ValueError, match=match):
        optimizer.load_state_dict(state)
    assert optimizer.lr == 0.5 and optimizer.state == [{}, {}]


# ---- refusals


@pytest.mark.parametrize("make", [SGD, Adam, AdamW])
def test_wrong_parameters(make):
    p = parameter([1.0])
    name = make.__name__
    for wrong, kind in ((p, "Tensor"), (Linear(2, 3), "Linear"), (0.1, "float")):
        with pytest.raises(TypeError, match=f"{name}: expected a list of tensors, got a {kind}; pass"):
            make(wrong, lr=0.1)
    with pytest.raises(TypeError, match=f"{name}: expected tensors, got a tuple; pass model.parameters"):
        make(Linear(2, 3).named_parameters(), lr=0.1)
    with pytest.raises(ValueError, match=f"{name}: no parameters to optimise"):
        make([], lr=0.1)


@pytest.mark.parametrize(
    "make, settings, match",
    [
        (SGD, {"lr": -0.1}, "SGD: expected lr >= 0 and finite, got -0.1"),
        (SGD, {"lr": float("nan")}, "SGD: expected lr >= 0 and finite, got nan"),
        (Adam, {"lr": float("inf")}, "Adam: expected lr"),
        (AdamW, {"weight_decay": -1}, "AdamW: expected weight_decay >= 0 and finite, got -1"),
        (SGD, {"lr": 0.1, "momentum": -0.9}, "SGD: expected momentum"),
        (SGD, {"lr": 0.1, "nesterov": True}, "SGD: nesterov needs momentum > 0"),
        (Adam, {"betas": (0.9, 1.0)}, r"Adam: expected two betas in \[0, 1\), got \(0.9, 1.0\)"),
        (AdamW, {"betas": (-0.1, 0.9)}, "AdamW: expected two betas"),
        (Adam, {"betas": (0.9,)}, "Adam: expected two betas"),
        (Adam, {"eps": -1e-8}, "Adam: expected eps"),
    ],
)
def test_wrong_settings(make, settings, match):
    with pytest.raises(ValueError, match=match):
        make([parameter([1.0])], **settings)


def test_rule_that_is_not_written():
    optimizer = Optimizer([parameter([1.0], [1.0])], lr=0.1)
    with pytest.raises(NotImplementedError, match="Optimizer: write its update method"):
        optimizer.step()
