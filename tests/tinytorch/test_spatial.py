"""Module 09: fast versions against naive ones, gradients against differences, PyTorch where installed."""

import platform

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import check_op
from tinytorch import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    MaxPool2d,
    Tensor,
    gradcheck,
    manual_seed,
    no_grad,
    spatial,
)
from tinytorch.activations import num_threads, set_num_threads
from tinytorch.spatial import (
    avg_pool2d_forward,
    batch_norm_forward,
    channel_statistics,
    conv2d_forward,
    conv2d_input_gradient,
    conv2d_naive,
    conv2d_naive_gradients,
    conv2d_weight_gradient,
    max_pool2d_forward,
    output_size,
    pad,
)
from tinytorch.tensor import apply

CASES = [  # images, filters, stride, padding
    ((2, 3, 7, 6), (4, 3, 3, 3), 1, 0),
    ((2, 3, 7, 6), (4, 3, 3, 3), 1, 1),
    ((2, 3, 7, 6), (4, 3, 3, 3), 2, 1),
    ((2, 3, 7, 6), (4, 3, 2, 2), 2, 0),
    ((1, 2, 8, 8), (3, 2, 3, 3), 3, 2),  # pixels that no window sees
    ((2, 2, 5, 4), (3, 2, 2, 3), 1, 3),  # padding >= kernel
    ((1, 2, 5, 4), (3, 2, 1, 1), 2, 2),
    ((3, 1, 1, 1), (2, 1, 3, 3), 1, 1),
    ((2, 2, 4, 9), (1, 2, 4, 9), 1, 0),  # one window
    ((1, 2, 4, 4), (3, 2, 3, 2), 5, 0),  # stride larger than the image
]


def conv2d(stride, padding):
    return lambda *inputs: apply(conv2d_forward, *inputs, stride=stride, padding=padding)


def data(*shapes, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def in_channels_last(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


# ---- convolution


@pytest.mark.parametrize("shape,kernels,stride,padding", CASES)
def test_conv2d(shape, kernels, stride, padding):
    def naive(*arrays):
        return conv2d_naive(*arrays, stride=stride, padding=padding)

    check_op(conv2d(stride, padding), naive, [shape, kernels, kernels[:1]])
    check_op(conv2d(stride, padding), naive, [shape, kernels])


@pytest.mark.parametrize("shape,kernels,stride,padding", CASES)
def test_conv2d_gradients_are_those_of_the_loops(shape, kernels, stride, padding):
    x, w = data(shape, kernels)
    (g,) = data(conv2d_naive(x, w, None, stride, padding).shape, seed=1)
    dx, dw = conv2d_naive_gradients(g, x, w, stride, padding)
    np.testing.assert_allclose(conv2d_input_gradient(g, shape, w, stride, padding), dx, atol=1e-12)
    np.testing.assert_allclose(conv2d_weight_gradient(g, x, kernels, stride, padding), dw, atol=1e-12)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_conv2d_of_any_shape(draw):
    N, C, out, KH, KW = (draw.draw(st.integers(1, 3)) for _ in range(5))
    stride, padding = draw.draw(st.integers(1, 3)), draw.draw(st.integers(0, 3))
    H, W = (draw.draw(st.integers(max(1, K - 2 * padding), 6)) for K in (KH, KW))
    x, w = data((N, C, H, W), (out, C, KH, KW))
    wanted = conv2d_naive(x, w, None, stride, padding)
    np.testing.assert_allclose(conv2d_forward(x, w, None, stride, padding), wanted, atol=1e-12)
    dx, dw = conv2d_naive_gradients(wanted, x, w, stride, padding)
    np.testing.assert_allclose(conv2d_input_gradient(wanted, x.shape, w, stride, padding), dx, atol=1e-12)
    np.testing.assert_allclose(conv2d_weight_gradient(wanted, x, w.shape, stride, padding), dw, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_blocks_and_threads_change_nothing(threads, monkeypatch):
    before = num_threads()
    x, w = data((7, 3, 6, 5), (4, 3, 3, 3))
    wanted = conv2d_naive(x, w, None, 1, 1)
    dw = conv2d_naive_gradients(wanted, x, w, 1, 1)[1]
    try:
        set_num_threads(threads)
        for size in (1, 15000, 10**9):
            monkeypatch.setattr(spatial, "BLOCK_BYTES", size)
            np.testing.assert_allclose(conv2d_forward(x, w, None, 1, 1), wanted, atol=1e-12)
            np.testing.assert_allclose(conv2d_weight_gradient(wanted, x, w.shape, 1, 1), dw, atol=1e-12)
    finally:
        set_num_threads(before)


def test_memory_order_does_not_matter_and_results_are_channels_last():
    x, w = data((2, 3, 6, 5), (4, 3, 3, 3))
    y = conv2d_forward(x, w, None, 1, 1)
    np.testing.assert_array_equal(conv2d_forward(in_channels_last(x), w, None, 1, 1), y)
    for result in (y, conv2d_input_gradient(y, x.shape, w, 1, 1), max_pool2d_forward(y, 2, 2)):
        assert result.transpose(0, 2, 3, 1).flags.c_contiguous


def test_results_are_not_scratch_memory():
    x, w = data((2, 3, 5, 5), (4, 3, 3, 3))
    first = conv2d_forward(x, w)
    copy = first.copy()
    conv2d_forward(x + 1, w)
    np.testing.assert_array_equal(first, copy)


def test_no_gradient_for_images_that_need_none(monkeypatch):
    def fail(*args):
        raise AssertionError("the images' gradient was computed")

    monkeypatch.setattr(spatial, "conv2d_input_gradient", fail)
    layer = Conv2d(2, 3, 3)
    layer(Tensor(np.ones((1, 2, 4, 4)))).sum().backward()
    assert layer.weight.grad.shape == (3, 2, 3, 3) and layer.bias.grad.numpy().tolist() == [4, 4, 4]


def test_empty_batch():
    x, w = np.zeros((0, 3, 8, 8), np.float32), np.zeros((4, 3, 3, 3), np.float32)
    assert conv2d_forward(x, w, None, 1, 1).shape == (0, 4, 8, 8)
    assert max_pool2d_forward(x, 2, 2).shape == (0, 3, 4, 4)
    assert BatchNorm2d(3).eval()(Tensor(x)).shape == (0, 3, 8, 8)


def test_pad_cuts_where_negative():
    (x,) = data((2, 5, 6, 3))
    np.testing.assert_array_equal(pad(x, -1, -2), x[:, 1:-1, 2:-2])
    np.testing.assert_array_equal(pad(x, 2, -1), np.pad(x, ((0, 0), (2, 2), (0, 0), (0, 0)))[:, :, 1:-1])


def test_output_size():
    cases = [(4, 2, 1, 0), (32, 3, 1, 1), (7, 2, 2, 0), (31, 3, 2, 1)]
    assert [output_size(*case) for case in cases] == [3, 32, 3, 16]


# ---- pooling


@pytest.mark.parametrize("kernel,stride", [(2, 2), (3, 3), (3, 2), (2, 1), (2, 3), (1, 1)])
def test_pooling(kernel, stride):
    def windows(x):
        all_windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(2, 3))
        return all_windows[:, :, ::stride, ::stride]

    for primitive, reduce in [(max_pool2d_forward, np.max), (avg_pool2d_forward, np.mean)]:
        check_op(
            lambda x, p=primitive: apply(p, x, kernel=kernel, stride=stride),
            lambda x, r=reduce: r(windows(x), axis=(-1, -2)),
            [(2, 3, 7, 8)],
        )


def test_a_tie_goes_to_the_first():
    x = Tensor(np.zeros((1, 1, 4, 4)), requires_grad=True)
    MaxPool2d(2)(x).sum().backward()
    wanted = np.zeros((4, 4))
    wanted[::2, ::2] = 1
    np.testing.assert_array_equal(x.grad.numpy()[0, 0], wanted)


# ---- batch normalisation


def norm(x, gamma, beta):
    mean, var = channel_statistics(x.data)
    return apply(batch_norm_forward, x, gamma, beta, mean=mean, var=var, eps=1e-5, batch=True)


def norm_reference(x, gamma, beta):
    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * gamma[:, None, None] + beta[:, None, None]


@pytest.mark.parametrize("block", [1, 30, 10**9])
@pytest.mark.parametrize("shape", [(3, 4, 5, 5), (2, 1, 3, 1)])
def test_batch_norm(shape, block, monkeypatch):
    monkeypatch.setattr(spatial, "ROW_BLOCK", block)
    check_op(norm, norm_reference, [shape, shape[1:2], shape[1:2]], tolerance=2e-5)


def test_batch_norm_in_evaluation():
    inputs = [Tensor(a, dtype=np.float64) for a in data((3, 4, 2, 5), (4,), (4,))]
    running = {"mean": np.arange(4.0), "var": np.arange(1.0, 5.0)}
    assert gradcheck(lambda *x: apply(batch_norm_forward, *x, **running, eps=1e-5, batch=False), inputs)


def test_statistics_far_from_zero():
    x = data((16, 32, 16, 16), dtype=np.float32)[0] + np.float32(1000)
    mean, var = channel_statistics(x)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(var, x.astype(np.float64).var((0, 2, 3)), rtol=1e-3)


def test_running_averages_are_unbiased_and_only_move_while_training():
    layer, x = BatchNorm2d(3), data((4, 3, 2, 2), dtype=np.float32)[0]
    layer(Tensor(x))
    np.testing.assert_allclose(layer.running_mean, 0.1 * x.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * x.var((0, 2, 3), ddof=1), rtol=1e-5)
    before = layer.running_mean.data
    layer.eval()(Tensor(x + 5))
    assert layer.running_mean.data is before


# ---- errors, one line each


@pytest.mark.parametrize(
    "arguments",
    [(0, 4, 3), (3, 0, 3), (3, 4, 0), (3, 4, (3, -1)), (3, 4, 3, 0), (3, 4, 3, 1, -1), (-3, 4, 3)],
)
def test_conv2d_refuses_sizes(arguments):
    with pytest.raises(ValueError, match=r"^Conv2d: expected positive sizes, got channels .*padding -?\d$"):
        Conv2d(*arguments)


@pytest.mark.parametrize("layer", [MaxPool2d, AvgPool2d])
def test_pooling_refuses_sizes(layer):
    for arguments in [(0,), (2, 0), (-1,)]:
        with pytest.raises(ValueError, match=f"^{layer.__name__}: expected positive sizes, got kernel"):
            layer(*arguments)
    with pytest.raises(ValueError, match=rf"^{layer.__name__}: kernel \(3, 3\) is larger .* \(2, 5\)$"):
        layer(3)(Tensor(np.zeros((1, 1, 2, 5))))
    with pytest.raises(ValueError, match=rf"^{layer.__name__}: expected images .* got \(2, 5\)$"):
        layer(3)(Tensor(np.zeros((2, 5))))


def test_conv2d_refuses_images():
    layer = Conv2d(3, 4, 5, padding=1)
    for shape in [(2, 4, 8, 8), (3, 8, 8), (2, 8, 8, 3)]:
        with pytest.raises(ValueError, match=rf"expected images \(N, 3, H, W\), got \({shape[0]}, "):
            layer(Tensor(np.zeros(shape)))
    with pytest.raises(ValueError, match=r"kernel \(5, 5\) is larger than the padded image \(4, 9\)"):
        layer(Tensor(np.zeros((1, 3, 2, 7))))


def test_batch_norm_refuses():
    with pytest.raises(ValueError, match="positive number of channels, got 0"):
        BatchNorm2d(0)
    with pytest.raises(ValueError, match=r"expected images \(N, 4, H, W\), got \(2, 3, 5, 5\)"):
        BatchNorm2d(4)(Tensor(np.zeros((2, 3, 5, 5))))
    with pytest.raises(ValueError, match=r"more than one value a channel while training, got \(1, 4, 1, 1\)"):
        BatchNorm2d(4)(Tensor(np.zeros((1, 4, 1, 1))))
    assert BatchNorm2d(4).eval()(Tensor(np.zeros((1, 4, 1, 1)))).shape == (1, 4, 1, 1)


def test_repr():
    assert repr(Conv2d(3, 8, (2, 3), padding=1)) == (
        "Conv2d(3, 8, kernel_size=(2, 3), stride=1, padding=1, bias=True)"
    )
    assert [repr(m) for m in (MaxPool2d(2), AvgPool2d(3, 1), BatchNorm2d(4))] == [
        "MaxPool2d(2, stride=2)", "AvgPool2d(3, stride=1)", "BatchNorm2d(4)"
    ]  # fmt: skip


# ---- PyTorch


@pytest.mark.parametrize("shape,kernels,stride,padding", CASES)
def test_conv2d_like_pytorch(shape, kernels, stride, padding):
    torch = pytest.importorskip("torch")
    layer = Conv2d(kernels[1], kernels[0], kernels[2:], stride, padding)
    x = data(shape, dtype=np.float32)[0]
    ours = Tensor(x, requires_grad=True)
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, layer.weight.numpy(), layer.bias.numpy())]
    y, z = layer(ours), torch.nn.functional.conv2d(*theirs, stride=stride, padding=padding)
    g = data(y.shape, seed=1, dtype=np.float32)[0]
    y.backward(g)
    z.backward(torch.tensor(g))
    np.testing.assert_allclose(y, z.detach().numpy(), atol=1e-5)
    for a, b in zip((ours, layer.weight, layer.bias), theirs, strict=True):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kernel,stride", [(2, 2), (3, 2), (3, 3), (2, 1)])
def test_pooling_like_pytorch(kernel, stride):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 3, (2, 3, 9, 8)).astype(np.float32)  # many ties
    for layer, function in [(MaxPool2d, torch.max_pool2d), (AvgPool2d, torch.nn.functional.avg_pool2d)]:
        ours, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = layer(kernel, stride)(ours), function(theirs, kernel, stride)
        g = data(y.shape, dtype=np.float32)[0]
        y.backward(g)
        z.backward(torch.tensor(g))
        np.testing.assert_allclose(y, z.detach().numpy(), atol=1e-6)
        np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), atol=1e-5)


def test_batch_norm_like_pytorch():
    torch = pytest.importorskip("torch")
    ours, theirs = BatchNorm2d(4), torch.nn.BatchNorm2d(4)
    for seed in range(3):
        x = 3 * data((5, 4, 3, 2), seed=seed, dtype=np.float32)[0] + 1
        a, b = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(a), theirs(b)
        g = data(y.shape, seed=9, dtype=np.float32)[0]
        y.backward(g)
        z.backward(torch.tensor(g))
        np.testing.assert_allclose(y, z.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(a.grad, b.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(ours.running_mean, theirs.running_mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(ours.running_var, theirs.running_var.numpy(), rtol=1e-5)
    np.testing.assert_allclose(ours.weight.grad, theirs.weight.grad.numpy(), atol=1e-4)
    with no_grad():
        y = ours.eval()(Tensor(x)).numpy()
    np.testing.assert_allclose(y, theirs.eval()(torch.tensor(x)).detach().numpy(), atol=1e-5)


def test_starts_like_pytorch():
    manual_seed(0)
    layer = Conv2d(16, 64, 3)
    bound = 1 / np.sqrt(16 * 9)
    assert np.abs(layer.weight.numpy()).max() <= bound
    assert np.isclose(layer.weight.numpy().std(), bound / np.sqrt(3), rtol=0.05)


def test_glibc_is_asked_to_keep_freed_memory():
    assert spatial.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
