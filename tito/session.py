"""What runs in this kernel: the cells so far, whether a person works in it, and a `tito` beside it."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import subprocess
import sys
from typing import Any

from autograder import streams
from autograder.paths import with_library
from tito.errors import TitoError

ran: list[str] = []  # sources of all cells since `load`, also where a runner keeps no history
latest: dict[str, str] = {}  # cell id -> its source as it ran last; empty where no front-end names its cells
lessons: list[str] = []  # what `%tito lesson` was given, the last one counts
_running: list[str | None] = []  # the id of the cell that runs now


def remember(info: Any) -> None:
    """Note the cell that is about to run; an event of IPython's."""
    ran.append(info.raw_cell)
    cell_id = getattr(info, "cell_id", None)
    _running[:] = [cell_id]
    if cell_id:
        latest[cell_id] = info.raw_cell


def interactive() -> bool:
    """Whether a Jupyter server started this kernel for a notebook that someone has open, not a grader."""
    return bool(os.environ.get("JPY_SESSION_NAME")) and not os.environ.get("NBGRADER_EXECUTION")


def watched() -> bool:
    """Whether the cell that runs now was sent by a front-end: nbclient, nbval and graders name no cell."""
    return interactive() and bool(_running and _running[0])


def environment() -> dict[str, str]:
    """The environment of a `tito` that runs beside the notebook: this tito, no module hidden, no session."""
    hidden = ("TINYTORCH_BEFORE", "JPY_SESSION_NAME", "JPY_PARENT_PID")
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    env["PYTHONPATH"] = with_library(env.get("PYTHONPATH"))
    return {**env, **streams.CHILD, "PYTHONUNBUFFERED": "1"}


def stop(process: subprocess.Popen[Any], seconds: float = 10.0) -> None:
    """End a child's process group: an interrupt, so that it tidies up, and a kill if it does not."""
    if sys.platform == "win32":  # no process groups that take an interrupt
        process.kill()
        process.wait(2.0)
        return
    for number, wait in ((signal.SIGINT, seconds), (signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
            return


def command(arguments: list[str]) -> None:
    """Run `tito <arguments>` beside the notebook and print what it prints. Raises TitoError when it fails.

    A progress bar redraws its line, in a notebook too. An interrupt ends the command.
    """
    env = environment() | ({"TITO_PROGRESS": "bar"} if watched() else {})
    last = ""
    with subprocess.Popen(
        [sys.executable, "-m", "tito", *arguments],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            # newline="": a carriage return, with which a bar redraws itself, comes through as it is
            for piece in io.TextIOWrapper(process.stdout, "utf-8", errors="replace", newline=""):
                print(piece, end="", flush=True)
                last = piece.strip() or last
        except KeyboardInterrupt:
            stop(process)
            raise TitoError(f"tito {shlex.join(arguments)} was interrupted.") from None
    if process.returncode:
        raise TitoError(last or f"tito {shlex.join(arguments)} stopped with code {process.returncode}.")
