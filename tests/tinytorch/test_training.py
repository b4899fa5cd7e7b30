"""The training loop against NumPy and PyTorch; checkpoints against cuts, garbage and undisturbed runs."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tinytorch import (
    SGD,
    AdamW,
    ConstantSchedule,
    CosineSchedule,
    CrossEntropyLoss,
    Dropout,
    Linear,
    LinearSchedule,
    MSELoss,
    ReLU,
    Sequential,
    Tensor,
    accuracy,
    clip_grad_norm,
    default_rng,
    evaluate,
    evaluation_mode,
    load_checkpoint,
    manual_seed,
    save,
    save_checkpoint,
    train_epoch,
    train_loop,
    train_step,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def network(seed=0, dropout=0.0):
    manual_seed(seed)
    return Sequential(Linear(3, 8), ReLU(), Dropout(dropout), Linear(8, 2))


def pairs(n=40, size=8, seed=0):
    x, y = rng(seed).standard_normal((n, 3)).astype(np.float32), rng(seed + 1).integers(0, 2, n)
    return [(x[k : k + size], y[k : k + size]) for k in range(0, n, size)]


class Shuffled:
    """Batches in an order that depends on the epoch alone."""

    def __init__(self, batches):
        self.batches, self.epoch = batches, None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter([self.batches[k] for k in rng([5, self.epoch]).permutation(len(self.batches))])


def numbers(history):
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in history]


def arrays(model):
    return {name: np.array(a) for name, a in model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), f"{name} differs by {np.abs(a[name] - b[name]).max():.2g}"


# ---- schedules


@settings(max_examples=50, deadline=None)
@example(total=1, share=1.0, lr=1.0, final=0.0)  # regression: nothing but warm-up
@given(
    total=st.integers(1, 40),
    share=st.floats(0, 1),
    lr=st.floats(1e-3, 10),
    final=st.floats(0, 1e-3),
)
def test_schedules_rise_to_lr_and_fall_to_final(total, share, lr, final):
    warmup = int(share * total)
    for schedule in (LinearSchedule(lr, total, warmup, final), CosineSchedule(lr, total, warmup, final)):
        rates = [schedule(step) for step in range(total + 3)]
        assert rates[:warmup] == pytest.approx([lr * (k + 1) / warmup for k in range(warmup)])
        assert rates[warmup] == pytest.approx(lr if warmup < total else final)
        assert all(a >= b - 1e-12 for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))
        assert rates[total:] == pytest.approx([final] * 3)
    assert ConstantSchedule(lr)(total) == lr


def test_schedules_agree_with_pytorch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=0.01)
    for step in range(11):
        assert CosineSchedule(0.3, 10, final=0.01)(step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


# ---- clipping, evaluation, steps


def test_clipping_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    gradients = [rng(k).standard_normal(shape).astype(np.float32) for k, shape in enumerate([(4, 3), (4,)])]
    for max_norm in (0.1, 1.0, 100.0):
        ours = [Tensor(g, requires_grad=True) for g in gradients]
        theirs = [torch.tensor(g, requires_grad=True) for g in gradients]
        for p, q, g in zip(ours, theirs, gradients, strict=True):
            p.grad, q.grad = Tensor(g), torch.tensor(g)
        wanted = float(torch.nn.utils.clip_grad_norm_(theirs, max_norm))
        assert clip_grad_norm(ours, max_norm) == pytest.approx(wanted, rel=1e-5)
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5)


def test_clipping_without_gradients_and_in_float64():
    assert clip_grad_norm([Tensor([1.0], requires_grad=True)], 1.0) == 0
    p = Tensor([0.0, 0.0], requires_grad=True, dtype=np.float64)
    p.grad = Tensor([3.0, 4.0], dtype=np.float64)
    assert clip_grad_norm([p], 2.5) == 5
    assert p.grad.dtype == np.float64 and p.grad.numpy().tolist() == [1.5, 2]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gradients_that_are_not_finite_never_reach_the_parameters(bad):
    """Regression: a NaN norm is not greater than max_norm, so the gradients went through unclipped."""
    p = Tensor([1.0, 2.0], requires_grad=True)
    p.grad = Tensor([bad, 1.0])
    with pytest.raises(FloatingPointError, match="norm of the gradients is (nan|inf)"):
        clip_grad_norm([p], 1.0)
    assert p.grad.numpy()[1] == 1


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 30), size=st.integers(1, 31), seed=st.integers(0, 99))
def test_evaluation_does_not_depend_on_the_batches(n, size, seed):
    model = network(seed, dropout=0.5)
    (whole,) = pairs(n, n, seed)
    one, many = evaluate(model, [whole]), evaluate(model, pairs(n, size, seed))
    assert many["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert many["accuracy"] == pytest.approx(one["accuracy"])
    assert all(module.training for module in model.modules())


def test_evaluation_mode_brings_back_each_part_also_after_an_error():
    """Regression: a frozen layer was put into training mode; an error left evaluation mode on."""
    model = network(dropout=0.5)
    model[2].eval()
    with pytest.raises(KeyboardInterrupt), evaluation_mode(model):
        assert not any(module.training for module in model.modules())
        raise KeyboardInterrupt
    assert model.training and model[0].training and not model[2].training
    with pytest.raises(ValueError, match="logits"):
        evaluate(model, [(np.zeros((2, 3)), np.zeros((2, 1)))])
    assert model.training and not model[2].training


def test_accumulated_parts_make_the_step_of_the_whole_batch():
    (whole,), parts = pairs(24, 24), pairs(24, 6)
    models = network(), network()
    for model, batches, accumulate in zip(models, ([whole], parts), (1, 4), strict=True):
        optimizer = SGD(model.parameters(), lr=0.5)
        train_epoch(model, batches, optimizer, CrossEntropyLoss(), 0, accumulate=accumulate, progress=False)
    for a, b in zip(*(arrays(model).values() for model in models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_step_in_float64_stays_in_float64():
    p = Linear(3, 1)
    p.weight, p.bias = (Tensor(t.data, requires_grad=True, dtype=np.float64) for t in (p.weight, p.bias))
    x, t = Tensor(rng().standard_normal((4, 3)), dtype=np.float64), np.zeros((4, 1))
    train_step(p, x, t, SGD(p.parameters(), 0.1), lambda y, t: MSELoss()(y, Tensor(t, dtype=np.float64)), 2)
    assert p.weight.grad.dtype == np.float64


def test_a_run_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    model, batches = network(3), pairs(40, 7)
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    with torch.no_grad():
        for p, q in zip(theirs.parameters(), model.parameters(), strict=True):
            p.copy_(torch.tensor(q.numpy()))
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    schedule, losses = CosineSchedule(0.2, 9, warmup=3), []
    for k in range(3):
        for a in range(0, 6, 2):
            optimizer.zero_grad()
            for x, y in batches[a : a + 2]:
                loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(y))
                (loss / 2).backward()
                losses.append(float(loss.detach()))
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.3)
            optimizer.param_groups[0]["lr"] = schedule(3 * k + a // 2)
            optimizer.step()
    ours = SGD(model.parameters(), lr=0.1, momentum=0.9)
    history = train_loop(
        model, batches, ours, 3, schedule=schedule, clip_norm=0.3, accumulate=2, progress=False
    )
    wanted = np.mean(np.reshape(losses, (3, 6)), axis=1)
    assert [entry["loss"] for entry in history] == pytest.approx(wanted, abs=1e-5)
    for p, q in zip(theirs.parameters(), model.parameters(), strict=True):
        np.testing.assert_allclose(q.numpy(), p.detach().numpy(), atol=1e-5)


def test_a_loss_that_is_not_finite_changes_nothing():
    model = network()
    before, good = arrays(model), pairs(8, 8)
    with pytest.raises(FloatingPointError, match=r"^training: the loss is nan; .* \(now 0.1\)[^\n]*$"):
        train_loop(
            model,
            [*good, (np.full((2, 3), np.nan), np.zeros(2, int))],
            SGD(model.parameters(), lr=0.1),
            accumulate=2,
            progress=False,
        )
    assert_same(before, arrays(model))


# ---- checkpoints


def run(checkpoint, epochs, seed=0, make=SGD, stop_after=None, stop_in=None):
    """Train with all that could differ after a break; history and weights, or None if it was stopped."""
    batches = Shuffled(pairs(40, 8))
    model = network(seed, dropout=0.4)
    options = {"momentum": 0.9} if make is SGD else {"weight_decay": 0.1}
    seen = []

    def stop(entry):
        if entry["epoch"] == stop_after:
            raise KeyboardInterrupt

    def loss_fn(logits, y):
        seen.append(len(y))
        if model.training and len(seen) == stop_in:
            raise KeyboardInterrupt
        return CrossEntropyLoss()(logits, y)

    try:
        history = train_loop(
            model, batches, make(model.parameters(), lr=0.05, **options), epochs, loss_fn,
            schedule=LinearSchedule(0.1, 12, warmup=3), clip_norm=1.0, accumulate=2, validate=pairs(20, 6, 9),
            callbacks=[stop], checkpoint=checkpoint, progress=False,
        )  # fmt: skip
    except KeyboardInterrupt:
        return None
    return numbers(history), arrays(model)


@pytest.mark.parametrize("make", [SGD, AdamW])
def test_a_resumed_run_equals_an_undisturbed_one(tmp_path, make):
    """Regression: Adam's step count came back as an array, and made float64 of every update."""
    history, weights = run(None, 5, make=make)
    run(tmp_path / "c", 2, make=make)
    resumed, again = run(tmp_path / "c", 5, seed=1, make=make)
    assert history == resumed
    assert_same(weights, again)
    assert run(tmp_path / "c", 5, seed=2, make=make)[0] == history  # all done: nothing is trained


def test_an_interrupt_costs_at_most_one_epoch(tmp_path):
    history, weights = run(None, 4)
    assert run(tmp_path / "after", 4, stop_after=2) is None
    assert run(tmp_path / "within", 4, stop_in=22) is None  # the third epoch: 5 batches, 4 of validation each
    for name in ("after", "within"):
        model = network(dropout=0.4)
        assert len(load_checkpoint(tmp_path / name, model, SGD(model.parameters(), lr=1.0))) == 2
        resumed, again = run(tmp_path / name, 4, seed=1)
        assert resumed == history
        assert_same(weights, again)


def test_a_checkpoint_keeps_single_numbers_single(tmp_path):
    """Regression: np.ascontiguousarray gave them the shape (1,), of which float() makes an error."""
    model = network()
    optimizer = AdamW(model.parameters(), lr=0.1)
    for p in model.parameters():
        p.grad = Tensor(np.ones(p.shape))
    optimizer.step()
    save_checkpoint(tmp_path / "c", model, optimizer, [])
    fresh = AdamW(model.parameters(), lr=7.0)
    assert load_checkpoint(tmp_path / "c", model, fresh) == []
    assert fresh.lr == 0.1
    assert {k: np.shape(v) for k, v in fresh.state_dict().items()} == {
        k: np.shape(v) for k, v in optimizer.state_dict().items()
    }


def test_a_save_that_fails_leaves_the_old_checkpoint_and_no_litter(tmp_path):
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    save_checkpoint(tmp_path / "new" / "c", model, optimizer, [{"epoch": 1}])
    before = (tmp_path / "new" / "c").read_bytes()
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "new" / "c", model, optimizer, [{"epoch": object()}])
    assert (tmp_path / "new" / "c").read_bytes() == before
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["c"]


KILLED = """
import sys
from tinytorch import SGD, Linear, manual_seed, save_checkpoint
manual_seed(0)
model = Linear(500, 500)
optimizer = SGD(model.parameters(), lr=0.1)
for k in range(10**6):
    save_checkpoint(sys.argv[1], model, optimizer, [{"epoch": k}])
    if k == 0:
        print("ready", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_run_killed_while_writing_leaves_a_whole_checkpoint(tmp_path):
    model = Linear(500, 500)
    for k in range(2):
        program = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "c")],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            assert program.stdout.readline() == b"ready\n"
            time.sleep(0.02 + 0.013 * k)
        finally:
            program.send_signal(signal.SIGKILL)
            program.communicate()
        assert load_checkpoint(tmp_path / "c", model, SGD(model.parameters(), lr=0.1))[0]["epoch"] >= 0


def test_files_that_are_no_checkpoint_are_named_in_one_line(tmp_path):
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    save_checkpoint(tmp_path / "good", model, optimizer, [])
    good = (tmp_path / "good").read_bytes()
    (tmp_path / "text").write_text("loss 0.5\n")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "cut").write_bytes(good[:-1])
    (tmp_path / "pickle").write_bytes(b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.")
    save_file({"a": np.zeros(3)}, tmp_path / "arrays")
    save(model, tmp_path / "model")
    for name in ("text", "empty", "cut", "pickle", "arrays", "model"):
        with pytest.raises(ValueError, match=rf"^load_checkpoint: [^\n]*{name} is not a checkpoint [^\n]*$"):
            train_loop(model, pairs(), optimizer, checkpoint=tmp_path / name, progress=False)
    for name in ("nothing", "."):
        with pytest.raises(FileNotFoundError, match="no file"):
            load_checkpoint(tmp_path / name, model, optimizer)
    other = Sequential(Linear(3, 2))
    state = json.dumps(default_rng().bit_generator.state)
    with pytest.raises(KeyError, match="layers.3.weight"):
        load_checkpoint(tmp_path / "good", other, SGD(other.parameters(), lr=0.1))
    assert json.dumps(default_rng().bit_generator.state) == state


# ---- progress, bad input


def test_the_bar_goes_to_stderr_and_only_if_asked_for(capfd):
    model = network()
    train_loop(model, pairs(), SGD(model.parameters(), lr=0.1), progress=False)
    assert capfd.readouterr() == ("", "")
    train_loop(model, pairs(), SGD(model.parameters(), lr=0.1))
    out, err = capfd.readouterr()
    assert out == "" and "epoch 1/1" in err


BARE_NOTEBOOK = """
import sys, types
shell = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell)
sys.modules["ipywidgets"] = sys.modules["IPython.html.widgets"] = None
import tinytorch.training as training
bar = training._progress_bar(range(3), "epoch 1/1")
assert list(bar) == [0, 1, 2]
"""


def test_no_warning_in_a_notebook_without_widgets():
    """Regression: `from tqdm.auto import tqdm` warned there that ipywidgets is missing."""
    done = subprocess.run(
        [sys.executable, "-W", "always::Warning:tqdm", "-c", BARE_NOTEBOOK],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr and "epoch 1/1" in done.stderr


def test_no_warnings_in_training(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(tmp_path / "c", 2) is not None


def parameter():
    return Tensor([1.0], requires_grad=True)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LinearSchedule(0.1, total=0), "LinearSchedule: .* total=0"),
        (lambda: CosineSchedule(0.1, total=5, warmup=6), "CosineSchedule: .* total=5 and warmup=6"),
        (lambda: LinearSchedule(0.1, total=5, warmup=-1), "warmup=-1"),
        (lambda: clip_grad_norm([parameter()], 0), "max_norm > 0, got 0"),
        (lambda: clip_grad_norm([parameter()], math.nan), "max_norm > 0, got nan"),
        (lambda: accuracy(np.zeros((3, 2)), np.zeros(2)), r"got \(3, 2\) and \(2,\)"),
        (lambda: accuracy(np.zeros((3, 2)), np.zeros((3, 1))), r"got \(3, 2\) and \(3, 1\)"),
        (lambda: accuracy(np.zeros(3), np.zeros(())), r"got \(3,\) and \(\)"),
        (lambda: evaluate(network(), []), "gave no batch"),
        (lambda: train(pairs(8, 8), accumulate=0), "accumulate >= 1, got 0"),
        (lambda: train(pairs(8, 4), accumulate=3), "gave 2 batches in epoch 1, fewer than accumulate=3"),
        (lambda: train(iter(pairs(8, 4)), epochs=2), "gave 0 batches in epoch 2"),
        (lambda: train([(np.zeros((2, 4)), np.zeros(2, int))]), r"Linear: expected .* 3\), got \(2, 4\)"),
        (lambda: train([(np.zeros((2, 3)), np.array([0, 2]))]), "target 2 is not a class"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def train(loader, **options):
    model = network()
    return train_loop(model, loader, SGD(model.parameters(), lr=0.1), progress=False, **options)
