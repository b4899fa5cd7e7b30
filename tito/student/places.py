"""Where we are: the workspace, the project of a track or the course that a folder lies in."""

from __future__ import annotations

import os
from pathlib import Path

from tito.errors import TitoError
from tito.student import project, workspace
from tito.student.workspace import Workspace


def find(start: Path | None = None) -> Workspace:
    """The workspace that `start` (or the current folder) lies in, or that of the project that it lies in.

    Else ./workspace, else the only one inside. Raises NoWorkspace where there is none, TitoError where
    there is more than one to choose from.
    """
    here = project.find(start)
    return here.workspace() if here is not None else workspace.around(start)


def here_or_new() -> Path:
    """The root of the workspace that `find` finds; where there is none ./workspace, still to be made."""
    try:
        return find().root
    except workspace.NoWorkspace:
        return Path("workspace")


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
            return project.at(folder).home()
        if (folder / "modules").is_dir() and (folder / "nbgrader_config.py").is_file():
            return folder
    raise TitoError(f"{start} is in no workspace: make one with `tito init`, and open the notebook there.")
