"""The live plot: in words, in place in a notebook, and training that is interrupted and goes on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from kernels import REPO, kernel

from tito.live import LivePlot


def entries(n: int) -> list[dict[str, Any]]:
    return [
        {
            "epoch": e, "loss": 1 / e, "val_loss": 1.2 / e, "val_accuracy": 0.5, "seconds": 2.0, "lr": 0.1,
            "steps": 3,
        }
        for e in range(1, n + 1)
    ]  # fmt: skip


def test_in_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    plot = LivePlot(2)
    for entry in entries(2):
        plot(entry)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "epoch 1/2  loss 1.000  validation accuracy 50.0%  2.0 s, about 2 s left"
    assert second == "epoch 2/2  loss 0.500  validation accuracy 50.0%  2.0 s"
    losses, rates = plot._figure().axes
    assert [list(line.get_ydata()) for line in losses.lines] == [[1.0, 0.5], [1.2, 0.6]]
    assert list(rates.lines[0].get_ydata()) == [50.0, 50.0]
    assert losses.lines[0].get_linestyle() != losses.lines[1].get_linestyle()  # not by colour alone
    assert plot.alt().startswith(
        "Training loss 1.000 after epoch 1, 0.500 after epoch 2; validation loss 0.600"
    )


def test_a_followed_loader_is_the_loader() -> None:
    class Loader(list[Any]):
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    plain = Loader([([1, 2], [0, 1])] * 3)
    plot = LivePlot(1)
    followed = plot.follow(plain)
    followed.set_epoch(5)
    assert plain.epoch == 5 and len(followed) == 3 and list(followed) == list(plain)
    assert "loss 1.000  validation accuracy 50.0%  3 images/s  2.0 s" in plot.line(entries(1)[0])
    assert plot._items == 6 and not hasattr(plot.follow([]), "set_epoch")
    assert len(list(plot.follow(x for x in plain))) == 3  # no length: then "batch 3", not "of"


TRAIN = """
import numpy as np, time, tinytorch
from pathlib import Path
from tinytorch import AdamW, CosineSchedule, Dropout, Linear, ReLU, Sequential, save_checkpoint, train_loop
from tinytorch import DataLoader, TensorDataset
from tito.live import LivePlot

draw = np.random.default_rng(0)
data = draw.standard_normal((240, 4)).astype(np.float32)
marks = (data.sum(axis=1) > 0).astype(np.int64)

class Slow:  # a batch takes time, so that an interrupt comes in the middle of an epoch
    def __init__(self, loader, wait):
        self.loader, self.wait = loader, wait
    def __len__(self):
        return len(self.loader)
    def set_epoch(self, epoch):
        self.loader.set_epoch(epoch)
    def __iter__(self):
        for batch in self.loader:
            time.sleep(self.wait)
            yield batch

def train(checkpoint, wait=0.0):
    global model, optimizer
    loader = Slow(DataLoader(TensorDataset(data, marks), 20, shuffle=True, seed=1), wait)
    if not checkpoint.exists():
        save_checkpoint(checkpoint, model, optimizer, [])
    plot = LivePlot(3, checkpoint)
    return train_loop(model, plot.follow(loader), optimizer, 3, schedule=CosineSchedule(0.05, 36),
                      validate=[(data, marks)], callbacks=[plot], checkpoint=checkpoint, progress=False)

def fresh():
    global model, optimizer
    tinytorch.manual_seed(3)
    model = Sequential(Linear(4, 16), ReLU(), Dropout(0.3), Linear(16, 2))
    optimizer = AdamW(model.parameters(), lr=0.05)

def weights():
    return np.concatenate([np.asarray(p.numpy()).ravel() for p in model.parameters()])
"""


BEGIN = f"%load_ext tito\nimport sys; sys.path.insert(0, {str(REPO)!r})\n{TRAIN}"


def test_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """Interrupted by the kernel's interrupt, in the first epoch and in a later one, then run to its end."""
    with kernel(tmp_path, "lesson.ipynb") as at:
        assert not at.run(BEGIN)
        whole = at.run("fresh(); _ = train(Path('whole')); wanted = weights()")
        assert whole[0]["kind"] == "display_data" and whole[0]["data"]["text/html"].count("<img alt=") == 1
        assert {output["kind"] for output in whole[1:]} == {"update_display_data"}, "one display, drawn anew"
        assert "epoch 3/3" in whole[-1]["data"]["text/plain"]

        # in the first epoch, and after the first checkpoint
        for start, pattern in (("fresh(); ", r"epoch 1/3 +batch [2-9]"), ("", r"epoch 2/3 +batch")):
            asked = at.send(f"{start}_ = train(Path('cut'), wait=0.35)")
            at.outputs(asked, lambda o, pattern=pattern: bool(re.search(pattern, str(o.get("data", "")))))
            at.manager.interrupt_kernel()
            rest = at.outputs(asked)
            assert [o["ename"] for o in rest if o["kind"] == "error"] == ["KeyboardInterrupt"], rest
            assert "run this cell again, and training goes on" in rest[-1]["data"]["text/plain"]
        again = at.run("_ = train(Path('cut'))")
        assert "1 of 3 epochs are done, training goes on from there" in again[0]["data"]["text/plain"]
        said = at.run("print(np.array_equal(weights(), wanted), sorted(p.name for p in Path('.').iterdir()))")
        assert said[0]["text"] == "True ['cut', 'whole']\n"


def test_without_a_front_end_there_is_no_display_to_update(tmp_path: Path) -> None:
    """nbclient and graders name no cell: lines, and one picture at the end."""
    with kernel(tmp_path, "lesson.ipynb") as at:
        at.run(BEGIN, None)
        found = at.run("fresh(); _ = train(Path('whole'))", None)
        pictures = [output for output in found if output["kind"] != "stream"]
        assert [output["kind"] for output in pictures] == ["display_data"] and pictures == found[-1:]
        text = "".join(output["text"] for output in found if output["kind"] == "stream")
        assert len(text.splitlines()) == 3
