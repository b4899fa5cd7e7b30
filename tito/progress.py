"""Progress bars of the student's commands: on a terminal, and in a notebook, where one line is redrawn.

A command that `%tito` runs is told by TITO_PROGRESS: `bar` draws a bar all the same, `lines` prints a line of
JSON for every step on the error stream, which `%tito complete` turns into a bar of its own.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MARK = "tito-progress "
EVERY = 5.0  # seconds of silence before a heartbeat


class Heart:
    """What a heartbeat says between the lines of the work itself."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._lock = write, threading.Lock()
        self._label, self._begun, self._last = "", time.monotonic(), time.monotonic()

    def on(self, label: str) -> None:
        """From now on the work is this; "" for none."""
        with self._lock:
            self._label, self._begun = label, time.monotonic()

    def say(self, line: str) -> None:
        """A line of the work itself."""
        with self._lock:
            self._last = time.monotonic()
            self._write(line)

    def tick(self, now: float, every: float) -> None:
        """Say that the work goes on, where nothing was said for `every` seconds."""
        with self._lock:
            if self._label and now - self._last >= every:
                self._last = now
                self._write(f"... still {self._label}, {now - self._begun:.0f} s")


@contextmanager
def beating(heart: Heart, every: float = EVERY) -> Iterator[Heart]:
    """While this lasts, lines come at least every few seconds, on a terminal and in a log."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(every / 5):
            heart.tick(time.monotonic(), every)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield heart
    finally:
        over.set()
        thread.join()
        heart.on("")


def shown() -> bool:
    """Whether somebody sees a bar: a terminal, or a notebook that asked for one."""
    return sys.stderr.isatty() or os.environ.get("TITO_PROGRESS") == "bar"


@contextmanager
def steps(total: int, label: str, unit: str, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """A bar of `total` steps; call what it yields after each."""
    if os.environ.get("TITO_PROGRESS") == "lines":
        done = 0

        def tell() -> None:
            nonlocal done
            done += 1
            print(
                MARK + json.dumps({"done": done, "total": total, "unit": unit}), file=sys.stderr, flush=True
            )

        yield tell
        return
    from tqdm import tqdm

    off = quiet or not shown()
    with tqdm(total=total, desc=label, unit=unit, file=sys.stderr, disable=off, leave=False) as bar:
        yield lambda: bar.update() and None


@contextmanager
def waiting(label: str, quiet: bool = False) -> Iterator[None]:
    """A line that says what takes its time, and how long by now, where nothing can be counted."""
    if quiet or not shown():
        yield
        return
    from tqdm import tqdm

    form = "{desc}: {elapsed} passed"
    with tqdm(desc=label, bar_format=form, file=sys.stderr, leave=False) as line:
        over = threading.Event()

        def tick() -> None:
            while not over.wait(1.0):
                line.refresh()

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
