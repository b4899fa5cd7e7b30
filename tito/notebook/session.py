"""`%load_ext tito`: then `%tito lesson NN` finds the package, `%tito complete` tests and exports the lesson,
and `%tito <command>` runs the command line.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from autograder import streams
from autograder.errors import OlympicsError
from autograder.paths import with_library


class TitoError(OlympicsError):
    """Something a student can mend."""


ran: list[str] = []  # sources of all cells since `load`, also where a runner keeps no history
latest: dict[str, str] = {}  # cell id -> its source as it ran last; empty where no front-end names its cells
lessons: list[str] = []  # what `%tito lesson` was given, the last one counts
_running: list[str | None] = []  # the id of the cell that runs now


def load(shell: Any) -> None:
    """Register the magic `%tito` with an IPython shell, and remember what runs from here on.

    In a notebook that a person works in, each graded cell then says under it how it went.
    """
    shell.register_magic_function(_magic, "line", "tito")
    shell.events.register("pre_run_cell", _remember)
    if not interactive():
        return
    from tito.notebook import checkpoints

    checkpoints.watch(shell)


def _remember(info: Any) -> None:
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


def home(start: Path | None = None) -> Path:
    """The folder that contains, or will contain, tinytorch/.

    TITO_TINYTORCH names it; otherwise it is the nearest folder, from `start` upwards, that is a student
    workspace (.tito/workspace.json), the project of a track (.tito/project.json, which says where the
    workspace is) or the course repository (modules/ and nbgrader_config.py). Raises TitoError.
    """
    if given := os.environ.get("TITO_TINYTORCH"):
        folder = Path(given).resolve()
        if not folder.is_dir():
            raise TitoError(
                f"TITO_TINYTORCH={given} is no folder: it names the one that contains tinytorch/."
            )
        return folder
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / ".tito" / "workspace.json").is_file():
            return folder
        if (folder / ".tito" / "project.json").is_file():
            from tito.student import project  # it imports this module

            return project.at(folder).home()
        if (folder / "modules").is_dir() and (folder / "nbgrader_config.py").is_file():
            return folder
    raise TitoError(f"{start} is in no workspace: make one with `tito init`, and open the notebook there.")


def lesson(name: str) -> Path:
    """Put the package first on the path, with module `name` and later ones hidden; returns its parent folder.

    `name` is a lesson number, "01" to "19", or the name of a track ("vision"), for which nothing is hidden.
    """
    parent = _workspace()
    lessons.append(name)
    number = name.split("_")[0]
    if number.isdigit():
        os.environ["TINYTORCH_BEFORE"] = f"{int(number):02d}"
    elif name.isidentifier():
        os.environ.pop("TINYTORCH_BEFORE", None)
    else:
        raise TitoError(
            f"%tito lesson {name}: expected a lesson number such as 05, or a track such as vision."
        )
    first_lesson = number.isdigit() and int(number) <= 1
    if not first_lesson and not (parent / "tinytorch" / "__init__.py").is_file():
        raise TitoError(f"no tinytorch in {parent} yet: solve lesson 01, then run `tito module complete 01`.")
    entry = str(parent)
    sys.path[:] = [entry, *(path for path in sys.path if path != entry)]
    for module in [key for key in sys.modules if key == "tinytorch" or key.startswith("tinytorch.")]:
        del sys.modules[module]
    return parent


def _workspace() -> Path:
    """The folder of the package.

    A notebook that nbgrader's assignment list has fetched lies in a folder of its own in the student's home:
    the folder around it becomes a workspace, and a line says so.
    """
    try:
        return home()
    except TitoError:
        here = Path.cwd().resolve()
        if not interactive() or not (here / f"{here.name}.ipynb").is_file():
            raise
    from tito.student import workspace  # it imports this module

    made = workspace.adopt(here.parent)
    print(f"{made.root} is your workspace now: your package grows in {made.package}.")
    return made.root


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


def _magic(line: str) -> None:
    """%tito lesson 05 readies the notebook, %tito complete tests and exports it, or a tito command."""
    words = shlex.split(line)
    if words[:1] == ["lesson"]:
        if len(words) != 2:
            raise TitoError("expected one lesson number: %tito lesson 05")
        lesson(words[1])
    elif words[:1] == ["complete"]:
        if watched():
            from tito.notebook import complete

            complete.run(words[1:])
        elif words[1:]:
            command(["module", *words])
        # without a number it is the last cell of a lesson, which graders and builds run too: nothing to do
    elif words:
        command(words)
    else:
        raise TitoError(
            """%tito lesson 05 readies a notebook, %tito complete tests and exports it; else a command."""
        )
