"""The training loop: schedules, clipping, evaluation, and checkpoints that resume exactly.

Built by tito from lesson 07_training: change the lesson, not this file.
"""

import json
import math
import os
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tinytorch.autograd import no_grad
from tinytorch.losses import CrossEntropyLoss
from tinytorch.tensor import Tensor, default_rng

__all__ = [
    "ConstantSchedule",
    "LinearSchedule",
    "CosineSchedule",
    "clip_grad_norm",
    "accuracy",
    "evaluation_mode",
    "evaluate",
    "train_step",
    "train_epoch",
    "save_checkpoint",
    "load_checkpoint",
    "epoch_entry",
    "train_loop",
]


class ConstantSchedule:
    """The same learning rate at every step. Example: ConstantSchedule(0.1)(500) is 0.1."""

    def __init__(self, lr):
        self.lr = lr

    def __call__(self, step):
        """The learning rate at `step`, counted from 0."""
        return self.lr


class LinearSchedule:
    """Up to `lr` over the first `warmup` steps, then straight down to `final` at step `total`.

    Step k of the warm-up has lr * (k + 1) / warmup: the first is not zero, the last is `lr`. From step
    `total` on it stays at `final`. Raises ValueError unless total >= 1 and 0 <= warmup <= total.
    """

    def __init__(self, lr, total, warmup=0, final=0.0):
        if total < 1 or not 0 <= warmup <= total:
            raise ValueError(
                f"{type(self).__name__}: expected total >= 1 and warmup from 0 to total, "
                f"got total={total} and warmup={warmup}"
            )
        self.lr, self.total, self.warmup, self.final = lr, total, warmup, final

    def __call__(self, step):
        """The learning rate at `step`. Example: LinearSchedule(1, total=8, warmup=4)(6) is 0.5."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if step >= self.total:
            return self.final
        done = (step - self.warmup) / (self.total - self.warmup)
        return self.lr + done * (self.final - self.lr)


class CosineSchedule(LinearSchedule):
    """Warm-up as in LinearSchedule, then down half a cosine wave to `final` at step `total`.

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, here without
    the restarts.
    """

    def __call__(self, step):
        """The learning rate at `step`. Example: CosineSchedule(1, total=4)(2) is 0.5."""
        if step < self.warmup:
            return super().__call__(step)
        if step >= self.total:
            return self.final
        done = (step - self.warmup) / (self.total - self.warmup)
        return self.final + (self.lr - self.final) * 0.5 * (1 + math.cos(math.pi * done))


def clip_grad_norm(parameters, max_norm):
    """Scale all gradients so that their common Euclidean norm is at most `max_norm`; return the norm before.

    Parameters without a gradient are passed over. Raises ValueError for `max_norm` <= 0 and, with the
    gradients as they were, FloatingPointError if the norm is not finite. Source: Pascanu, Mikolov and Bengio,
    "On the difficulty of training recurrent neural networks", 2013.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm: expected max_norm > 0, got {max_norm}")
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float(np.vdot(g.data, g.data)) for g in gradients))
    if not math.isfinite(norm):
        raise FloatingPointError(
            f"clip_grad_norm: the norm of the gradients is {norm}; lower the learning rate"
        )
    if norm > max_norm:
        for g in gradients:
            g.data = g.data * (max_norm / norm)
    return norm


def accuracy(logits, targets):
    """The share of rows of logits (B, C) whose largest entry is at the target; targets (B,), whole numbers.

    Takes tensors or arrays, returns a Python float in 0..1. Raises ValueError if the shapes do not fit.
    """
    logits, targets = np.asarray(logits), np.asarray(targets)
    if logits.ndim < 2 or logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"accuracy: expected logits (B, C) and targets (B,), got {logits.shape} and {targets.shape}"
        )
    return float(np.mean(logits.argmax(axis=-1) == targets))


@contextmanager
def evaluation_mode(model):
    """A `with` block in which every part of `model` is in evaluation mode; afterwards each is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def evaluate(model, loader, loss_fn=None):
    """Mean loss and accuracy of a classifier over all items of `loader`: {"loss": float, "accuracy": float}.

    Batches are pairs x (B, ...), y (B,), arrays or tensors. Runs in evaluation mode and without recording,
    and leaves the model in the mode it was in. `loss_fn` is CrossEntropyLoss by default and must be a mean
    over the batch. Raises ValueError if the loader gives no batch.
    """
    loss_fn = loss_fn or CrossEntropyLoss()
    count, loss, right = 0, 0.0, 0.0
    with evaluation_mode(model), no_grad():
        for x, y in loader:
            logits = model(x if isinstance(x, Tensor) else Tensor(x))
            loss += float(loss_fn(logits, y)) * len(x)
            right += accuracy(logits, y) * len(x)
            count += len(x)
    if count == 0:
        raise ValueError(
            "evaluate: the loader gave no batch; a generator is used up after one pass, use a list"
        )
    return {"loss": loss / count, "accuracy": right / count}


def train_step(model, x, y, optimizer, loss_fn, accumulate=1):
    """Forward and backward of one batch: add its gradients, divided by `accumulate`; returns its loss.

    x (B, ...) is an array or a tensor, y what `loss_fn(logits, y)` wants. The optimizer makes no step here.
    Raises FloatingPointError, which names the loss and the learning rate, if the loss is not finite;
    gradients and parameters are then as they were.
    """
    loss = loss_fn(model(x if isinstance(x, Tensor) else Tensor(x)), y)
    value = float(loss)
    if not math.isfinite(value):
        raise FloatingPointError(
            f"training: the loss is {value}; "
            f"lower the learning rate (now {optimizer.lr:g}) or clip the gradients"
        )
    loss.backward(1 / accumulate)
    return value


def _progress_bar(loader, title="", show=True):
    """`loader` with a progress bar on the error stream; `loader` itself unless `show`."""
    if not show:
        return loader
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets tqdm warns, and then draws text, as it should
        from tqdm.auto import tqdm
    return tqdm(loader, desc=title, leave=False)


def train_epoch(
    model,
    loader,
    optimizer,
    loss_fn,
    step,
    schedule=None,
    clip_norm=None,
    accumulate=1,
    progress=True,
    title="",
):
    """One pass over `loader`, a step of the optimizer after every `accumulate` batches; returns the losses.

    `step` is the number of the first step, `schedule(step)` the learning rate of each, `clip_norm` the bound
    for the gradients' norm. It starts without gradients; batches left over at the end, fewer than
    `accumulate`, make no step. Raises FloatingPointError like `train_step`.
    """
    losses = []
    optimizer.zero_grad()
    for x, y in _progress_bar(loader, title, progress):
        losses.append(train_step(model, x, y, optimizer, loss_fn, accumulate))
        if len(losses) % accumulate == 0:
            if schedule is not None:
                optimizer.lr = schedule(step)
            if clip_norm is not None:
                clip_grad_norm(optimizer.parameters, clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    return losses


def save_checkpoint(path, model, optimizer, history):
    """Write weights, optimizer state, history and random state to one safetensors file, whole or not at all.

    `history` is a list of dicts of numbers. The folder is made if it is missing; an older file is replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        arrays = {f"model.{k}": np.asarray(v, order="C") for k, v in model.state_dict().items()}
        arrays |= {f"optimizer.{k}": np.asarray(v, order="C") for k, v in optimizer.state_dict().items()}
        notes = {"history": json.dumps(history), "random": json.dumps(default_rng().bit_generator.state)}
        save_file(arrays, temporary, notes)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_checkpoint(path):
    """The arrays and the notes (a dict of text) in a file that `save_checkpoint` wrote.

    Raises FileNotFoundError without such a file, ValueError for a file of another kind.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"load_checkpoint: no file {path}")
    try:
        with safe_open(path, framework="numpy") as f:
            arrays, notes = {k: f.get_tensor(k) for k in f.keys()}, f.metadata() or {}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(
            f"load_checkpoint: {path} is not a checkpoint ({error}); remove it to start anew"
        ) from None
    if not {"history", "random"} <= notes.keys():
        raise ValueError(
            f"load_checkpoint: {path} is not a checkpoint (it has no history); name another file"
        )
    return arrays, notes


def load_checkpoint(path, model, optimizer):
    """Put what `save_checkpoint` wrote back into model, optimizer and random generator; return the history.

    Raises FileNotFoundError or ValueError for a file that is not there or not a checkpoint, and what
    `model.load_state_dict` raises for a file of another model.
    """
    arrays, notes = _read_checkpoint(path)
    states = {"model": {}, "optimizer": {}}
    for name, array in arrays.items():
        part, _, key = name.partition(".")
        states[part][key] = array
    model.load_state_dict(states["model"])
    optimizer.load_state_dict(states["optimizer"])
    default_rng().bit_generator.state = json.loads(notes["random"])
    return json.loads(notes["history"])


def epoch_entry(epoch, losses, accumulate, lr, seconds):
    """The record of epoch `epoch` (counted from 0): a dict of epoch (from 1), steps, loss, lr, seconds.

    Raises ValueError if there were fewer batches than `accumulate`, so that no step was made.
    """
    if len(losses) < accumulate:
        raise ValueError(
            f"train_loop: the loader gave {len(losses)} batches in epoch {epoch + 1}, fewer than "
            f"accumulate={accumulate}; a generator is used up after one pass, use a list or a DataLoader"
        )
    steps, loss = len(losses) // accumulate, float(np.mean(losses))
    return {"epoch": epoch + 1, "steps": steps, "loss": loss, "lr": float(lr), "seconds": float(seconds)}


def train_loop(
    model,
    loader,
    optimizer,
    epochs=1,
    loss_fn=None,
    schedule=None,
    clip_norm=None,
    accumulate=1,
    validate=None,
    callbacks=(),
    checkpoint=None,
    progress=True,
):
    """Train for `epochs` passes over `loader` and return the history, a list with one dict an epoch.

    `loader` gives pairs (x, y); if it has a method `set_epoch`, that is called before each pass. The
    optimizer steps after every `accumulate` batches; `schedule(step)` gives the learning rate of each step,
    `clip_norm` the bound for the gradients' norm. `loss_fn` is CrossEntropyLoss by default. `validate` is a
    second loader, evaluated after each epoch. Each callback is called with the epoch's dict: epoch, steps,
    loss, lr, seconds (of training), val_loss and val_accuracy. With `checkpoint`, a file name, the state is
    written there after every epoch, and training goes on from it if it is there.

    Raises ValueError for `accumulate` < 1 or more than the loader has batches, FloatingPointError if the
    loss is not finite.
    """
    if accumulate < 1:
        raise ValueError(f"train_loop: expected accumulate >= 1, got {accumulate}")
    loss_fn = loss_fn or CrossEntropyLoss()
    history = (
        load_checkpoint(checkpoint, model, optimizer) if checkpoint and Path(checkpoint).exists() else []
    )
    model.train()
    for epoch in range(len(history), epochs):
        start, title = time.perf_counter(), f"epoch {epoch + 1}/{epochs}"
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        step = sum(entry["steps"] for entry in history)
        losses = train_epoch(
            model, loader, optimizer, loss_fn, step, schedule, clip_norm, accumulate, progress, title
        )
        entry = epoch_entry(epoch, losses, accumulate, optimizer.lr, time.perf_counter() - start)
        if validate is not None:
            entry |= {f"val_{name}": value for name, value in evaluate(model, validate, loss_fn).items()}
        history.append(entry)
        if checkpoint:
            save_checkpoint(checkpoint, model, optimizer, history)
        for callback in callbacks:
            callback(entry)
    return history
