"""Module 18: the fast paths against naive ones, accelerated models against the models themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch
from tests.helpers import check_op
from tinytorch import (
    GELU,
    SGD,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    Tensor,
    manual_seed,
    no_grad,
)
from tinytorch.acceleration import Accelerated, accelerate, choose_path, conv2d_fused, use_winograd
from tinytorch.activations import num_threads, set_num_threads
from tinytorch.spatial import conv2d_forward, conv2d_naive
from tinytorch.tensor import apply


def data(*shapes, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.fixture
def winograd():
    use_winograd()
    yield
    use_winograd(False)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_winograd_of_any_shape(draw):
    N, C, out = (draw.draw(st.integers(1, 3)) for _ in range(3))
    padding = draw.draw(st.integers(0, 3))
    H, W = (draw.draw(st.integers(max(1, 3 - 2 * padding), 9)) for _ in range(2))
    x, w, b = data((N, C, H, W), (out, C, 3, 3), (out,))
    got = conv2d_fused(x, w, b, 1, padding, path="winograd")
    np.testing.assert_allclose(got, conv2d_naive(x, w, b, 1, padding), atol=1e-10)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("path", ["im2col", "winograd"])
def test_threads_change_nothing(threads, path):
    before = num_threads()
    x, w = data((7, 3, 6, 5), (4, 3, 3, 3))
    try:
        set_num_threads(threads)
        got = conv2d_fused(x, w, None, 1, 1, path=path)
    finally:
        set_num_threads(before)
    np.testing.assert_allclose(got, conv2d_naive(x, w, None, 1, 1), atol=1e-12)


def test_training_takes_winograds_path_with_the_same_gradients(winograd):
    shapes = [(2, 160, 6, 6), (192, 160, 3, 3)]
    assert choose_path(shapes[1], 1, (1, 1), 6, 6) == "winograd"
    x, w = data(*shapes)

    def gradients():
        tensors = [Tensor(a, requires_grad=True, dtype=np.float64) for a in (x, w)]
        y = apply(conv2d_forward, *tensors, stride=1, padding=1)
        (y * y).sum().backward()
        return [y.numpy(), *(t.grad.numpy() for t in tensors)]

    fast = gradients()
    use_winograd(False)
    plain = gradients()
    assert not np.array_equal(fast[0], plain[0]), "expected another path, with other rounding"
    for got, wanted in zip(fast, plain, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


def test_small_layers_keep_their_path(winograd):
    check_op(
        lambda *inputs: apply(conv2d_forward, *inputs, stride=1, padding=1),
        lambda *arrays: conv2d_naive(*arrays, stride=1, padding=1),
        [(2, 3, 5, 4), (4, 3, 3, 3), (4,)],
    )


# ---- whole models


class Skip(Module):
    """A class of a student's own."""

    def __init__(self, width):
        self.first = Conv2d(3, width, 3, padding=1)
        self.chain = Sequential(Conv2d(width, width, 3, padding=1), BatchNorm2d(width), GELU())
        self.head = [MaxPool2d(2), Flatten(), Linear(width * 16, 4)]

    def forward(self, x):
        x = self.first(x)
        x = x + self.chain(x) + self.chain[0](x)
        for layer in self.head:
            x = layer(x)
        return x


def sequential(width=8):
    first = [Conv2d(3, width, 3, padding=1), MaxPool2d(2), BatchNorm2d(width), GELU()]
    second = [Conv2d(width, 64, 3, padding=1, bias=False), BatchNorm2d(64), ReLU()]
    return Sequential(*first, *second, Flatten(), Linear(64 * 16, 4))


def trained(model):
    """`model` after a few steps, so that no running average and no gain is what it was at first."""
    optimizer = SGD(model.parameters(), 1e-3)
    (x,) = data((6, 3, 8, 8), seed=5)
    for _ in range(3):
        optimizer.zero_grad()
        (model(Tensor(x)) * model(Tensor(x))).mean().backward()
        optimizer.step()
    for module in model.modules():
        if isinstance(module, BatchNorm2d):  # negative gains too: they turn a pooling around
            module.weight.data = module.weight.data * np.resize([1.0, -1.0], module.weight.shape).astype("f4")
    return model.eval()


MODELS = [sequential, lambda: sequential(64), lambda: Skip(6), lambda: Skip(64)]


@pytest.mark.parametrize("make", MODELS)
def test_accelerated_equals_the_model_before_and_after_more_training(make):
    manual_seed(0)
    model = trained(make())
    fast = accelerate(model).eval()
    (x,) = data((5, 3, 8, 8))
    for _ in range(2):
        with no_grad():
            np.testing.assert_allclose(fast(Tensor(x)).numpy(), model(Tensor(x)).numpy(), atol=1e-4)
        trained(model.train())  # behind the wrapper's back: stale filters would now differ
    assert [n for n, _ in fast.named_tensors()] == [f"model.{n}" for n, _ in model.named_tensors()]


def test_gradients_and_training_are_the_models_own():
    manual_seed(0)
    fast = accelerate(sequential())
    (x,) = data((5, 3, 8, 8))
    for mode in (True, False):
        fast.train(mode).zero_grad()
        fast(Tensor(x)).sum().backward()
        assert all(p.grad is not None for p in fast.parameters())


def test_file_with_a_class_of_ones_own(tmp_path):
    manual_seed(0)
    fast = accelerate(trained(Skip(6))).eval()
    (x,) = data((3, 3, 8, 8))
    tinytorch.save(fast, tmp_path / "m.safetensors")
    again = tinytorch.load(tmp_path / "m.safetensors", classes=[Skip]).eval()
    assert isinstance(again, Accelerated)
    with no_grad():
        np.testing.assert_array_equal(again(Tensor(x)).numpy(), fast(Tensor(x)).numpy())


@pytest.mark.parametrize("shape", [(2, 5, 8, 8), (2, 3), (3, 8, 8), (2, 3, 0, 0)])
def test_wrong_images_get_the_models_own_error(shape):
    model = Sequential(Conv2d(3, 4, 3), MaxPool2d(2), GELU()).eval()
    messages = []
    for network in (model, accelerate(model).eval()):
        with pytest.raises(ValueError) as error, no_grad():
            network(Tensor(np.zeros(shape)))
        messages.append(str(error.value))
    assert messages[0] == messages[1] and "\n" not in messages[0]


def test_bad_input():
    x, w = data((1, 2, 8, 8), (3, 2, 5, 5))
    for options in ({"path": "winograd"}, {"path": "fft"}, {"activation": "swish"}, {"pool": 0}):
        with pytest.raises(ValueError, match="conv2d_fused: ") as error:
            conv2d_fused(x, w, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(TypeError, match="accelerate: expected a Module, got list"):
        accelerate([])
