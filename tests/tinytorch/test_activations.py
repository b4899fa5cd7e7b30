"""Module 02: values against formulas in float64, gradients against differences, threads, PyTorch."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch
from tests.helpers import check_op
from tinytorch import GELU, ReLU, Sigmoid, Softmax, Tanh, Tensor, gelu, relu, sigmoid, softmax, tanh
from tinytorch.activations import (
    BLOCK,
    blockwise,
    gelu_block,
    gelu_forward,
    num_threads,
    parallel_for,
    set_num_threads,
    sigmoid_forward,
    softmax_forward,
)

quick = settings(max_examples=30, deadline=None, derandomize=True)


def gelu_formula(x):
    return x / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


REFERENCES = {
    "relu": (relu, lambda x: (x + np.abs(x)) / 2),
    "sigmoid": (sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "tanh": (tanh, lambda x: 1 - 2 / (1 + np.exp(2 * x))),
    "gelu": (gelu, gelu_formula),
}
LAYERS = {"relu": ReLU, "sigmoid": Sigmoid, "tanh": Tanh, "gelu": GELU}


@pytest.fixture
def threads():
    """Set the number of threads; put it back afterwards."""
    before = num_threads()
    yield set_num_threads
    set_num_threads(before)


# ---- the functions


@pytest.mark.parametrize("shape", [(), (7,), (0, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("name", REFERENCES)
def test_element_wise(name, shape):
    function, reference = REFERENCES[name]
    check_op(function, reference, [shape])
    check_op(LAYERS[name](), reference, [shape], gradients=False)
    assert repr(LAYERS[name]()) == LAYERS[name].__name__ + "()"


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2])
def test_softmax(dim):
    def reference(x):
        return np.exp(x) / np.exp(x).sum(axis=dim, keepdims=True)

    check_op(lambda x: softmax(x, dim), reference, [(2, 3, 4)])
    check_op(Softmax(dim), reference, [(2, 3, 4)], gradients=False)


def test_softmax_defaults_and_errors():
    assert repr(Softmax()) == "Softmax(dim=-1)" and Softmax(dim=0).dim == 0
    with pytest.raises(np.exceptions.AxisError, match="axis 2 is out of bounds"):
        softmax(Tensor([[1, 2]]), dim=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_overflows(dtype):
    far = np.array([-1e30, -1e4, -89, 0, 89, 1e4], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert np.allclose(sigmoid_forward(far), [0, 0, 0, 0.5, 1, 1])
        assert np.allclose(softmax_forward(far, axis=0), [0, 0, 0, 0, 0, 1])
        assert np.allclose(softmax_forward(far[:2], axis=0), [0, 1])
        assert np.allclose(gelu(Tensor(far[1:], dtype=dtype)).numpy(), np.maximum(far[1:], 0))


def test_inputs_are_left_alone():
    x = Tensor(np.linspace(-2, 2, 12).reshape(3, 4))
    before = x.numpy().copy()
    for function in (relu, sigmoid, tanh, gelu, softmax):
        y = function(x)
        assert np.array_equal(x.numpy(), before) and not np.shares_memory(x.numpy(), y.numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", REFERENCES)
def test_memory_order_and_dtype(name, dtype):
    # channels-last images keep their strides, so that convolution reads them as a matrix without a copy
    x = Tensor(np.ones((2, 6, 5, 3)).transpose(0, 3, 1, 2), dtype=dtype)
    y = REFERENCES[name][0](x).numpy()
    assert y.strides == x.numpy().strides and y.dtype == dtype
    assert softmax(x, dim=1).numpy().strides == x.numpy().strides


def test_against_pytorch():
    torch = pytest.importorskip("torch")
    from torch.nn import functional as F

    a = np.random.default_rng(0).normal(0, 3, (4, 5)).astype(np.float32)
    weights = np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32)
    for ours, theirs in [
        (relu, F.relu),
        (sigmoid, torch.sigmoid),
        (tanh, torch.tanh),
        (gelu, lambda t: F.gelu(t, approximate="tanh")),
        (softmax, lambda t: F.softmax(t, -1)),
        (lambda x: softmax(x, 0), lambda t: F.softmax(t, 0)),
    ]:
        x, t = Tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True)
        y, z = ours(x), theirs(t)
        np.testing.assert_allclose(y.numpy(), z.detach().numpy(), atol=1e-5)
        (y * weights).sum().backward()
        (z * torch.tensor(weights)).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), atol=1e-5)


# ---- blocks


def views():
    """Arrays in many memory orders, with gaps, stretched, reversed, with dimensions of size 1."""
    a = np.random.default_rng(0).standard_normal((4, 6, 5))
    return {
        "plain": a,
        "permuted": a.transpose(2, 0, 1),
        "gaps": a[:, ::2, 1:],
        "reversed": a[::-1, :, ::-1],
        "new dimension": a[None],
        "new dimension behind": a.transpose(1, 0, 2)[:, :, None, :],
        "column": a[:, :1, :1],
        "stretched": np.broadcast_to(a[0, 0], (3, 5)),
        "one number": a[1, 2, 3][...],
        "empty": a[:0],
    }


@pytest.mark.parametrize("name", views())
def test_blockwise_on_any_memory(name):
    # on a[None] the outputs were lost: the copy in the input's order was filled, not the array returned
    x = np.asarray(views()[name])
    y, t = gelu_forward(x)
    np.testing.assert_allclose(y, gelu_formula(x), rtol=1e-10, atol=1e-12)
    assert y.shape == t.shape == x.shape
    # a second array in another memory order
    other = np.array(x + 1, order="F")
    got = blockwise(lambda a, b, out: np.subtract(a, b, out=out), x, other)
    np.testing.assert_allclose(got, x - other)


@quick
@given(st.permutations(range(4)), st.lists(st.integers(1, 3), min_size=4, max_size=4))
def test_blockwise_keeps_order(axes, shape):
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape).transpose(axes)
    y = blockwise(lambda a, out: np.multiply(a, 2, out=out), x)
    assert np.array_equal(y, 2 * x)
    assert np.array_equal(y.ravel("K"), 2 * x.ravel("K"))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_many_blocks_and_threads(threads, n):
    threads(n)
    x = np.random.default_rng(0).standard_normal(2 * BLOCK + 17)
    sizes = []

    def block(a, out):
        sizes.append(a.size)
        np.negative(a, out=out)

    assert np.array_equal(blockwise(block, x), -x)
    assert sorted(sizes) == [17, BLOCK, BLOCK] and num_threads() == n


def test_blockwise_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"one shape, got \[\(2, 3\), \(3,\)\]"):
        blockwise(lambda a, b, out: None, np.zeros((2, 3)), np.zeros(3))


def test_gelu_block_makes_no_arrays():
    import tracemalloc

    x = np.random.default_rng(0).standard_normal(BLOCK)
    y, t = np.empty_like(x), np.empty_like(x)
    tracemalloc.start()
    gelu_block(x, y, t)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 10


# ---- threads


def test_parallel_for_runs_each_start_once(threads):
    threads(3)
    done, names = [], set()
    parallel_for(lambda i: (done.append(i), names.add(threading.get_ident())), range(20))
    assert sorted(done) == list(range(20)) and threading.get_ident() not in names
    parallel_for(done.append, [])


def test_parallel_for_raises_what_work_raises(threads):
    threads(2)

    def work(i):
        if i == 3:
            raise ZeroDivisionError("start 3")

    with pytest.raises(ZeroDivisionError, match="start 3"):
        parallel_for(work, range(5))
    parallel_for(lambda i: None, range(5))  # and the pool still works


def test_parallel_for_inside_parallel_for(threads):
    # waiting in the pool for the pool: this hung
    threads(2)
    done = []
    parallel_for(lambda i: parallel_for(lambda j: done.append((i, j)), range(4)), range(4))
    assert len(done) == 16


def test_set_num_threads_refuses():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        set_num_threads(0)


def run_python(code, **env):
    root = str(Path(tinytorch.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root, **env}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


def test_threads_from_the_environment():
    code = "import tinytorch.activations as a; print(a.num_threads())"
    assert run_python(code, TINYTORCH_THREADS="3").stdout == "3\n"
    bad = run_python(code, TINYTORCH_THREADS="many")
    assert "TINYTORCH_THREADS: expected a number of at least 1, got 'many'" in bad.stderr


def test_without_sched_getaffinity():
    # macOS has none: the import failed there
    code = (
        "import os; vars(os).pop('sched_getaffinity', None); os.environ.pop('TINYTORCH_THREADS', None);"
        "import tinytorch.activations as a; print(a.num_threads() == os.cpu_count())"
    )
    done = run_python(code)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_after_a_fork():
    # a forked child has the pool but not its threads: the first large array hung there
    code = (
        "import os, signal, warnings; warnings.simplefilter('ignore')\n"
        "from tinytorch.activations import parallel_for, set_num_threads\n"
        "set_num_threads(2); parallel_for(lambda i: None, range(4))\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    signal.alarm(10)\n"
        "    parallel_for(lambda i: None, range(4)); os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    done = run_python(code)
    assert done.stdout == "7\n", done.stderr
