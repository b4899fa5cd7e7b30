"""`%load_ext tito`: then `%tito lesson NN` finds the package, `%tito <command>` runs the command line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class TitoError(Exception):
    """Something a student can mend. IPython shows it as one line instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"TitoError: {self}"]


ran: list[str] = []  # sources of all cells since `load`, also where a runner keeps no history


def load(shell: Any) -> None:
    """Register the magic `%tito` with an IPython shell, and remember what runs from here on."""
    shell.register_magic_function(_magic, "line", "tito")
    shell.events.register("pre_run_cell", lambda info: ran.append(info.raw_cell))


def home(start: Path | None = None) -> Path:
    """The folder that contains, or will contain, tinytorch/.

    TITO_TINYTORCH names it; otherwise it is the nearest folder, from `start` upwards, that is a student
    workspace (.tito/workspace.json) or the course repository (modules/ and nbgrader_config.py). Raises
    TitoError.
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
        if (folder / "modules").is_dir() and (folder / "nbgrader_config.py").is_file():
            return folder
    raise TitoError(f"{start} is in no workspace: make one with `tito init`, and open the notebook there.")


def lesson(name: str) -> Path:
    """Put the package first on the path, with module `name` and later ones hidden; returns its parent folder.

    `name` is a lesson number, "01" to "19", or the name of a track ("vision"), for which nothing is hidden.
    """
    parent = home()
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


def command(arguments: list[str]) -> None:
    """Run `tito <arguments>` beside the notebook and print what it prints. Raises TitoError when it fails."""
    env = {key: value for key, value in os.environ.items() if key != "TINYTORCH_BEFORE"}
    source = str(Path(__file__).resolve().parents[1])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [source, env.get("PYTHONPATH")]))
    env["PYTHONUNBUFFERED"] = "1"
    last = ""
    with subprocess.Popen(
        [sys.executable, "-m", "tito", *arguments],
        env=env, text=True, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    if process.returncode:
        raise TitoError(last or f"tito {shlex.join(arguments)} stopped with code {process.returncode}.")


def _magic(line: str) -> None:
    """%tito lesson 05 readies the notebook of lesson 05; any other line runs that tito command."""
    words = shlex.split(line)
    if words[:1] == ["lesson"]:
        if len(words) != 2:
            raise TitoError("expected one lesson number: %tito lesson 05")
        lesson(words[1])
    elif words:
        command(words)
    else:
        raise TitoError(
            "expected a command: %tito lesson 05, or what you would type after `tito` in a terminal."
        )


def has_widgets() -> bool:
    """Whether widgets will be seen: in a kernel that a Jupyter server started, with ipywidgets."""
    return bool(os.environ.get("JPY_SESSION_NAME")) and find_spec("ipywidgets") is not None
