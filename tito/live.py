"""`LivePlot`, a callback for train_loop: one output under the cell with loss, accuracy, speed and time left.

In JupyterLab the picture and a line of text are drawn anew in place; they stay in the saved notebook as they
are, for they are no widget. Elsewhere each epoch is a printed line, and the picture comes once, at the end.
"""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from tito import boxes, session

REDRAW_SECONDS = 1.0
# line, marker and colour tell the curves apart; the colours are Okabe and Ito's
TRAINING = {"color": "#0072B2", "linestyle": "-", "marker": "o"}
VALIDATION = {"color": "#D55E00", "linestyle": "--", "marker": "s"}


class LivePlot:
    """Loss and accuracy of a training run, drawn after every epoch, and how far it is within one.

    epochs: how many there will be. checkpoint: the file that train_loop goes on from, for the epochs that are
    done already. unit and per_item: what `follow` counts, such as images, or tokens with the length of a row.
    live: whether a front-end shows updates; None finds out.

    >>> plot = LivePlot(12, checkpoint=file)  # doctest: +SKIP
    >>> train_loop(model, plot.follow(loader), opt, 12, callbacks=[plot], checkpoint=file)  # doctest: +SKIP
    """

    def __init__(
        self,
        epochs: int,
        checkpoint: Path | str | None = None,
        unit: str = "images",
        per_item: int = 1,
        live: bool | None = None,
    ) -> None:
        self.epochs, self.unit, self.per_item = epochs, unit, per_item
        self.history = _done(checkpoint)
        self._live = session.watched() if live is None else live
        self._resumes = checkpoint is not None
        self._batches = self._items = 0  # of this run, in all its epochs
        self._pass_items = 0  # of the pass that runs, or ran last
        self._began = self._drawn = 0.0
        self._image, self._line, self._handle = "", "training begins", None
        if self._live:
            self._open()

    def __call__(self, entry: dict[str, Any]) -> None:
        """Take one epoch's record, as train_loop gives it to its callbacks."""
        self.history = [*self.history[: int(entry["epoch"]) - 1], dict(entry)]
        self._line = self.line(entry)
        if self._live:
            self._image = self._png()
            self._update()
        else:
            print(self._line, flush=True)
        if self.ended:
            self._close()

    @property
    def ended(self) -> bool:
        return len(self.history) >= self.epochs

    def follow(self, loader: Any) -> Any:
        """`loader`, watched: each pass shows how many batches are done, how fast, and what time is left."""
        return _Followed(loader, self)

    def line(self, entry: dict[str, Any]) -> str:
        """One epoch in words, with the time that the rest will take."""
        text = f"epoch {entry['epoch']}/{self.epochs}  loss {entry['loss']:.3f}"
        if "val_accuracy" in entry:
            text += f"  validation accuracy {100 * entry['val_accuracy']:.1f}%"
        left = (self.epochs - entry["epoch"]) * _mean([e["seconds"] for e in self.history])
        if self._pass_items and entry["seconds"] > 0:
            text += f"  {self._pass_items / entry['seconds']:,.0f} {self.unit}/s"
        return text + f"  {entry['seconds']:.1f} s" + _left(left)

    def alt(self) -> str:
        """What the picture shows, in words."""
        if not self.history:
            return "Empty axes for loss and validation accuracy; no epoch is done yet"
        first, last = self.history[0], self.history[-1]
        text = (
            f"Training loss {first['loss']:.3f} after epoch 1, {last['loss']:.3f} after epoch {last['epoch']}"
        )
        if "val_accuracy" in last:
            best = max(float(entry.get("val_accuracy", 0.0)) for entry in self.history)
            text += f"; validation loss {last['val_loss']:.3f}, validation accuracy "
            text += f"{100 * last['val_accuracy']:.1f}%, at best {100 * best:.1f}%"
        return text

    def step(self, items: int, batch: int, batches: int | None) -> None:
        """One batch is done: redraw the line, not more often than once a second."""
        now = time.monotonic()
        self._batches, self._items = self._batches + 1, self._items + items * self.per_item
        self._pass_items += items * self.per_item
        if not self._live or now - self._drawn < REDRAW_SECONDS:
            return
        spent, epoch = now - self._began, len(self.history) + 1
        left = spent / self._batches * (batches * (self.epochs - epoch + 1) - batch) if batches else 0.0
        of = f" of {batches}" if batches else ""
        last = f"  last loss {self.history[-1]['loss']:.3f}" if self.history else ""
        self._line = (
            f"epoch {epoch}/{self.epochs}  batch {batch}{of}{last}  "
            f"{self._items / spent:,.0f} {self.unit}/s{_left(left)}"
        )
        self._update()

    def begin(self) -> None:
        """A pass begins."""
        self._began, self._pass_items = self._began or time.monotonic(), 0

    # ---- the display

    def _open(self) -> None:
        from IPython import get_ipython  # type: ignore[attr-defined]
        from IPython.display import display

        if self.history:
            self._line = f"{len(self.history)} of {self.epochs} epochs are done"
            self._line += "" if self.ended else ", training goes on from there"
        self._image = self._png()
        self._handle = display(self._bundle(), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        shell = get_ipython()  # type: ignore[no-untyped-call]
        if shell is not None:
            shell.events.register("post_run_cell", self._cell_ended)

    def _cell_ended(self, result: Any) -> None:
        """Say what to do after an interrupt, and listen no longer."""
        from IPython import get_ipython  # type: ignore[attr-defined]

        get_ipython().events.unregister("post_run_cell", self._cell_ended)  # type: ignore[no-untyped-call]
        if not self.ended and isinstance(result.error_in_exec, KeyboardInterrupt):
            self._line = f"interrupted after epoch {len(self.history)} of {self.epochs}"
            if self._resumes:
                self._line += ": run this cell again, and training goes on from there"
            self._update()

    def _update(self) -> None:
        self._drawn = time.monotonic()
        if self._handle is not None:
            self._handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, str]:
        done = len(self.history)
        bar = (
            f'<progress max="{self.epochs}" value="{done}" style="width:14em;vertical-align:middle" '
            f'aria-label="{done} of {self.epochs} epochs"></progress>'
        )
        html = (
            '<figure class="tito-live" style="margin:4px 0">'
            f'<img alt="{escape(self.alt())}" style="max-width:100%;background:#fff" '
            f'src="data:image/png;base64,{self._image}">'
            f'<figcaption class="tito-live-line">{bar} {escape(self._line)}</figcaption></figure>'
        )
        return boxes.bundle(html, f"{self._line}\n{self.alt()}")

    def _close(self) -> None:
        if self._live:
            return
        from IPython import get_ipython  # type: ignore[attr-defined]
        from IPython.display import display

        if get_ipython() is not None:  # type: ignore[no-untyped-call]
            self._image = self._png()
            display(self._bundle(), raw=True)  # type: ignore[no-untyped-call]

    def _png(self) -> str:
        file = io.BytesIO()
        self._figure().savefig(file, format="png", dpi=100, facecolor="white")
        return base64.b64encode(file.getvalue()).decode()

    def _figure(self) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 2.8), layout="constrained")
        losses, rates = figure.subplots(1, 2)
        epochs = [entry["epoch"] for entry in self.history]
        losses.plot(epochs, [entry["loss"] for entry in self.history], label="training", **TRAINING)
        if any("val_loss" in entry for entry in self.history):
            losses.plot(epochs, [e.get("val_loss") for e in self.history], label="validation", **VALIDATION)
            rates.plot(epochs, [100 * e.get("val_accuracy", 0.0) for e in self.history], **VALIDATION)
            losses.legend()
        if not self.history:
            losses.set_yticks([])
        across = {"xlabel": "epoch", "xlim": (0.5, self.epochs + 0.5)}
        losses.set(ylabel="loss", **across)
        rates.set(ylabel="validation accuracy, %", ylim=(0, 100), **across)
        return figure


class _Followed:
    """A loader that tells a plot of each batch that was worked on; everything else is the loader's."""

    def __init__(self, loader: Any, plot: LivePlot) -> None:
        self._loader, self._plot = loader, plot
        self._total: int | None = len(loader) if hasattr(loader, "__len__") else None

    def __iter__(self) -> Iterator[Any]:
        self._plot.begin()
        number = 0
        for number, batch in enumerate(self._loader, start=1):
            yield batch
            self._plot.step(len(batch[0]), number, self._total)
        self._total = number

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _done(checkpoint: Path | str | None) -> list[dict[str, Any]]:
    """The history in a checkpoint as module 07 writes it; empty where there is none.

    What is wrong with a file that is no checkpoint is train_loop's to say.
    """
    if checkpoint is None or not Path(checkpoint).is_file():
        return []
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(checkpoint, framework="numpy") as file:
            return list(json.loads((file.metadata() or {}).get("history", "[]")))
    except (SafetensorError, ValueError, TypeError):
        return []


def _mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))


def _left(seconds: float) -> str:
    if seconds < 1:
        return ""
    if seconds < 120:
        return f", about {seconds:.0f} s left"
    return f", about {seconds / 60:.0f} min left"


def has_widgets() -> bool:
    """Whether widgets will be seen: in a kernel that a Jupyter server started, with ipywidgets."""
    from importlib.util import find_spec

    return session.interactive() and find_spec("ipywidgets") is not None
