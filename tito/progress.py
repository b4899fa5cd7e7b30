"""Progress bars of the student's commands: on a terminal, and in a notebook, where one line is redrawn.

A command that `%tito` runs is told by TITO_PROGRESS: `bar` draws a bar all the same, `lines` prints a line of
JSON for every step on the error stream, which `%tito complete` turns into a bar of its own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

MARK = "tito-progress "


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
    off = quiet or not shown()
    with tqdm(total=total, desc=label, unit=unit, file=sys.stderr, disable=off, leave=False) as bar:
        yield lambda: bar.update() and None


@contextmanager
def waiting(label: str, quiet: bool = False) -> Iterator[None]:
    """A line that says what takes its time, where nothing can be counted; it goes when it is over."""
    if quiet or not shown():
        yield
        return
    print(f"\r{label} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r" + " " * (len(label) + 4) + "\r", end="", file=sys.stderr, flush=True)
