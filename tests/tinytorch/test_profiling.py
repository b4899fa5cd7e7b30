"""Module 14: counts against hand counts and PyTorch's counter, times on a clock moved by hand, the seams."""

import threading
from itertools import count

import numpy as np
import pytest

from benchmarks.vision import tinytorch_network, torch_network
from tinytorch import (
    GPT,
    VJP,
    CrossEntropyLoss,
    Linear,
    Module,
    Sequential,
    Tensor,
    no_grad,
    profiling,
)
from tinytorch.autograd import set_stepper
from tinytorch.layers import set_caller
from tinytorch.profiling import FLOPS, OUTSIDE, Profiler, Stopwatch
from tinytorch.tensor import apply, set_runner

VISION = [  # height and width of the result, input channels, output channels, kernel; by hand from the shapes
    (31, 3, 24, 2), (31, 24, 64, 3), (15, 64, 64, 3), (15, 64, 256, 3), (7, 256, 256, 3), (7, 256, 256, 3),
    (3, 256, 256, 3),
]  # fmt: skip

LESSONS = ["tensor", "activations", "losses", "spatial", "embeddings", "attention", "transformers"]


def ticking():
    """A clock that moves a millisecond at each look."""
    ticks = count()
    return lambda: next(ticks) / 1000


def seams_are_free():
    before = set_runner(None), set_caller(None), set_stepper(None)
    return before == (None, None, None)


def vision_by_hand(n):
    return 2 * n * (sum(size**2 * n_in * n_out * k * k for size, n_in, n_out, k in VISION) + 256 * 10)


def gpt_by_hand(B, T, d=128, layers=4, vocab=256):
    block = T * d * 3 * d + T * d * d + 2 * T * d * 4 * d + 2 * T * T * d
    return 2 * B * (layers * block + T * d * vocab)


def test_the_vision_anchor():
    net, x = tinytorch_network().eval(), np.zeros((2, 3, 32, 32), np.float32)
    with no_grad(), Profiler(net, clock=ticking()) as profile:
        net(Tensor(x))
    assert profile.flops == vision_by_hand(2)
    assert round(vision_by_hand(1) / 2e6) == 118  # "118 M multiply-adds an image forward"
    norms = 2 * 2 * (64 + 256 + 256)
    kernels = sum(n_in * n_out * k * k for _, n_in, n_out, k in VISION) + 24 + 256 * 10
    assert profile.parameters == kernels + norms == sum(row.parameters for row in profile.layers())
    assert profile.unknown == {}


def test_the_vision_anchor_layer_by_layer():
    net = tinytorch_network().eval()
    with no_grad(), Profiler(net, clock=ticking()) as profile:
        net(Tensor(np.zeros((1, 3, 32, 32))))
    products = [row.flops for row in profile.layers() if row.flops]
    assert products == [2 * s**2 * i * o * k * k for s, i, o, k in VISION] + [2 * 256 * 10]


def test_the_gpt_anchor():
    net, d = GPT(256), 128
    with no_grad(), Profiler(net, clock=ticking()) as profile:
        net(np.zeros((2, 48), int))
    assert profile.unknown == {}
    assert profile.flops == gpt_by_hand(2, 48)
    block = 2 * 2 * d + (d * 3 * d + 3 * d) + (d * d + d) + (d * 4 * d + 4 * d) + (4 * d * d + d)
    assert profile.parameters == 256 * d + 512 * d + 4 * block + 2 * d + d * 256
    assert profile.parameters == sum(row.parameters for row in profile.layers())


def test_counts_are_those_of_pytorchs_counter():
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    net, theirs = tinytorch_network().eval(), torch_network().eval()
    with no_grad(), Profiler(net, clock=ticking()) as profile:
        net(Tensor(np.zeros((2, 3, 32, 32))))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        theirs(torch.zeros(2, 3, 32, 32))
    assert counter.get_total_flops() == profile.flops

    q, k = torch.zeros(2, 4, 6, 8), torch.zeros(2, 4, 9, 8)
    with FlopCounterMode(display=False) as counter:  # on CPU it does not see the fused attention
        (q @ k.transpose(-1, -2)) @ k
    ours = profiling.attention_flops(None, q.numpy(), k.numpy(), k.numpy())
    assert counter.get_total_flops() == ours


def test_every_primitive_with_a_gradient_has_a_flop_rule():
    taught = ("numpy", "_operator", *(f"tinytorch.{name}" for name in LESSONS))
    assert [p.__name__ for p in VJP if p not in FLOPS and getattr(p, "__module__", "numpy") in taught] == []


# ---- time


def trained(clock=None):
    net = Sequential(Linear(6, 5), Sequential(Linear(5, 4), Linear(4, 3)))
    loss, x = CrossEntropyLoss(), Tensor(np.ones((7, 6)))
    with Profiler(net, clock=clock or ticking()) as profile:
        loss(net(x), [0] * 7).backward()
    return profile


@pytest.mark.parametrize("clock", [None, "real"])
def test_self_times_add_up_to_the_whole(clock):
    profile = trained(profiling.time.perf_counter if clock else None)
    layers, primitives = profile.layers(), profile.primitives()
    for rows in (layers, primitives):
        assert sum(row.forward + row.backward for row in rows) == pytest.approx(profile.seconds)
    assert layers[0].total_seconds + layers[-1].total_seconds == pytest.approx(profile.seconds)
    assert layers[-1].name == OUTSIDE and layers[-1].forward > 0
    assert layers[0].total_flops == profile.flops == sum(row.flops for row in primitives)
    inner = next(row for row in layers if row.name == "layers.1")
    assert inner.total_seconds == pytest.approx(
        sum(row.forward + row.backward for row in layers if row.name.startswith("layers.1"))
    )


def test_backward_is_booked_on_the_layer_that_ran_forward():
    rows = {row.name: row for row in trained().layers()}
    for name in ("layers.0", "layers.1.layers.0", "layers.1.layers.1"):
        assert rows[name].backward > 0
    assert rows[""].backward == 0  # a Sequential has no operation of its own
    assert rows[OUTSIDE].backward > 0  # the loss


def test_stopwatch_of_nested_keys():
    moments = iter([0, 1, 3, 6, 10, 15])
    watch = Stopwatch(lambda: next(moments))
    for key in "abc":
        watch.start(key)
    assert [watch.stop() for _ in range(3)] == [3, 9, 15]
    assert watch.selfs == {"c": 3, "b": 6, "a": 6}


# ---- the table


class Wave(Module):
    def forward(self, x):
        return apply(np.sin, x)


def test_a_primitive_without_a_rule_shows():
    net = Sequential(Linear(4, 4), Wave())
    with Profiler(net, clock=ticking()) as profile:
        net(Tensor(np.ones((2, 4))))
    assert profile.unknown == {"sin": 1}
    assert profile.flops == 2 * 2 * 4 * 4
    lines = profile.table().splitlines()
    assert lines[-1] == "?: no FLOP rule for sin (1 calls); the sum leaves them out"
    assert "0.000064?" not in lines[-2] and lines[-2].split()[2] == "0.000?"
    assert [line.split()[2] for line in lines if line.split()[0] == "1"] == ["?"]


def test_the_table_adds_up():
    lines = [line.split() for line in trained().table().splitlines()[1:]]
    for column in (-6, -5, -4, -3, -2):
        numbers = [float(line[column].replace(",", "")) for line in lines]
        assert sum(numbers[:-1]) == pytest.approx(numbers[-1], abs=1e-3 * len(lines))


def test_memory_counts_new_arrays_not_views():
    class Views(Module):
        def forward(self, x):
            return (x.reshape(4, 6).T + 1)[1]

    net = Views()
    with Profiler(net, clock=ticking()) as profile:
        net(Tensor(np.ones((2, 12))))
    assert sum(row.bytes for row in profile.layers()) == 24 * 4


# ---- the seams


def test_seams_are_put_back():
    net = Sequential(Linear(3, 3))
    with pytest.raises(ValueError), Profiler(net):
        net(Tensor(np.ones((2, 4))))
    assert seams_are_free()


def test_one_profiler_at_a_time():
    net = Sequential(Linear(3, 3))
    with Profiler(net, clock=ticking()) as outer:
        with pytest.raises(RuntimeError, match="^Profiler: another profiler is active"), Profiler(net):
            pass
        net(Tensor(np.ones((2, 3))))
    assert outer.flops == 2 * 2 * 3 * 3 and seams_are_free()


def test_other_threads_are_left_alone():
    net, results = Sequential(Linear(3, 3)), []
    x = Tensor(np.ones((2, 3)))
    with Profiler(net, clock=ticking()) as profile:
        thread = threading.Thread(target=lambda: results.append(net(x)))
        thread.start()
        thread.join()
    assert len(results) == 1 and profile.flops == 0


def test_profiling_changes_no_result():
    net, x = Sequential(Linear(6, 5), Linear(5, 2)), Tensor(np.arange(12.0).reshape(2, 6))
    net(x).sum().backward()
    plain = [net(x).numpy(), *(p.grad.numpy() for p in net.parameters())]
    net.zero_grad()
    with Profiler(net):
        net(x).sum().backward()
    for a, b in zip(plain, [net(x).numpy(), *(p.grad.numpy() for p in net.parameters())], strict=True):
        np.testing.assert_array_equal(a, b)
