"""`%load_ext tito`: then `%tito lesson NN` finds the package, `%tito complete` tests and exports the lesson,
and `%tito <command>` runs the command line.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from tito import session
from tito.errors import TitoError
from tito.student import places


def load(shell: Any) -> None:
    """Register the magic `%tito` with an IPython shell, and remember what runs from here on.

    In a notebook that a person works in, each graded cell then says under it how it went.
    """
    shell.register_magic_function(_magic, "line", "tito")
    shell.events.register("pre_run_cell", session.remember)
    if not session.interactive():
        return
    from tito.notebook import checkpoints

    checkpoints.watch(shell)


def lesson(name: str) -> Path:
    """Put the package first on the path, with module `name` and later ones hidden; returns its parent folder.

    `name` is a lesson number, "01" to "19", or the name of a track ("vision"), for which nothing is hidden.
    """
    parent = _workspace()
    session.lessons.append(name)
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
        return places.home()
    except TitoError:
        here = Path.cwd().resolve()
        if not session.interactive() or not (here / f"{here.name}.ipynb").is_file():
            raise
    from tito.student import workspace

    made = workspace.adopt(here.parent)
    print(f"{made.root} is your workspace now: your package grows in {made.package}.")
    return made.root


def _magic(line: str) -> None:
    """%tito lesson 05 readies the notebook, %tito complete tests and exports it, or a tito command."""
    words = shlex.split(line)
    if words[:1] == ["lesson"]:
        if len(words) != 2:
            raise TitoError("expected one lesson number: %tito lesson 05")
        lesson(words[1])
    elif words[:1] == ["complete"]:
        if session.watched():
            from tito.notebook import complete

            complete.run(words[1:])
        elif words[1:]:
            session.command(["module", *words])
        # without a number it is the last cell of a lesson, which graders and builds run too: nothing to do
    elif words:
        session.command(words)
    else:
        raise TitoError(
            """%tito lesson 05 readies a notebook, %tito complete tests and exports it; else a command."""
        )
