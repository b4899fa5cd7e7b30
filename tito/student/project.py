"""A track's project: a folder of its own that finds the student's package from wherever it lies.

    vision.ipynb, network.py, train.py, report.md, .gitignore   the starter, the student's to change
    .tito/project.json                                          the track, and where the workspace lies

`tito olympics init --track T --output DIR` makes one, or adds what is missing to it; it writes over nothing.
The workspace is recorded as seen from the project, so that both may move together, and by its full path, so
that the project may move alone.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from autograder import files
from autograder.paths import TEMPLATES
from autograder.scoring import rules, staging
from tito.errors import TitoError
from tito.student import workspace
from tito.student.workspace import Workspace

MARK = Path(".tito", "project.json")
SCHEMA = 1
REPORT = "report.md"
IGNORED = "__pycache__/\n.ipynb_checkpoints/\ncheckpoint*.safetensors\n.tito/jupyter/\n"


@dataclass(frozen=True)
class Project:
    """One project. places: where its workspace was, first as seen from `root`; empty where none is known."""

    root: Path
    track: str
    places: tuple[str, ...]

    @property
    def notebook(self) -> Path:
        return self.root / f"{self.track}.ipynb"

    def home(self) -> Path:
        """The folder that holds tinytorch/: the workspace, or a clone of the course. Raises TitoError."""
        for place in self.places:
            folder = (self.root / place).resolve()
            if workspace.is_workspace(folder) or _is_clone(folder):
                return folder
        command = f"tito olympics init --track {self.track} --output {shlex.quote(str(self.root))}"
        lost = f"{self.places[-1]} is no workspace any more" if self.places else "no workspace is known to it"
        raise TitoError(f"the project {self.root}: {lost}; name yours with `{command} --workspace FOLDER`")

    def workspace(self) -> Workspace:
        """The student's workspace. Raises TitoError, for a project on a clone's reference package too."""
        home = self.home()
        if not workspace.is_workspace(home):
            command = f"tito olympics init --track {self.track} --output {shlex.quote(str(self.root))}"
            raise workspace.NoWorkspace(
                f"the project {self.root} runs on the course's own tinytorch, {home}: name your workspace "
                f"with `{command} --workspace FOLDER`"
            )
        return Workspace(home)


def is_project(folder: Path) -> bool:
    """Whether the folder carries the mark that `init` leaves."""
    return os.path.isfile(folder / MARK)  # a folder closed to us is none, and no error


def at(root: Path) -> Project:
    """The project whose root is this folder. Raises TitoError for a damaged mark."""
    try:
        found = json.loads((root / MARK).read_text(encoding="utf-8"))
        return Project(root, rules.track(found["track"]).name, tuple(str(p) for p in found["workspace"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TitoError(
            f"{root / MARK} is damaged ({error!r}): delete it, and run `tito olympics init` with --track and "
            f"--output {shlex.quote(str(root))} again"
        ) from error


def find(start: Path | None = None) -> Project | None:
    """The project that `start` (or the current folder) lies in, unless a workspace lies between."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if is_project(folder):
            return at(folder)
        if workspace.is_workspace(folder):
            return None
    return None


def init(
    root: Path, track: str, home: Path | None = None, release: Path | None = None
) -> tuple[Project, list[str]]:
    """Make a project, or add what is missing to one; returns it and the names of the files that were added.

    home: the workspace; default: the one that is recorded, else the one around or in the current folder, else
    the clone of the course. Raises TitoError where the folder is something else, and for no workspace.
    """
    root = root.expanduser().resolve()
    _check_place(root, track)
    known = at(root) if is_project(root) else None
    if home is not None and not workspace.is_workspace(home.expanduser()):
        raise TitoError(f"--workspace {home}: that is no workspace, `tito init` makes one")
    home = home.expanduser().resolve() if home is not None else _recorded(known) or _around()
    with workspace.released_notebooks(release) as source:
        if not (source / track / f"{track}.ipynb").is_file():
            raise TitoError(f"the course has not released {track} yet: nothing was made")
        released = {
            path.relative_to(source / track).as_posix(): path.read_bytes()
            for path in sorted((source / track).rglob("*")) if path.is_file() and not path.is_symlink()
        }  # fmt: skip
        starter = released | _starter(track)
        added = [name for name in starter if not os.path.lexists(root / name)]
        try:
            for name in added:
                files.write_bytes(root / name, starter[name])
            files.write_text(root / MARK, _mark(root, track, home))
        except OSError as error:
            raise TitoError(f"cannot write the project {root}: {error.strerror or error}") from error
    return at(root), added


def use_package(folder: Path) -> None:
    """For a training script: put the package of the project `folder` first on the path.

    Ends the program with one line where there is none.
    """
    try:
        found = find(folder)
        if found is None:
            raise TitoError(
                f"{folder} is no project: `tito olympics init` with --track and --output makes one"
            )
        home = found.home()
        if not (home / "tinytorch" / "__init__.py").is_file():
            raise TitoError(f"no tinytorch in {home} yet: complete the modules first")
        os.environ.setdefault("TINYTORCH_GIVEN", str(given_folder(found.track)))
    except TitoError as error:
        sys.exit(f"tito: {error}")
    sys.path.insert(0, str(home))


def given_folder(track: str) -> Path:
    """What the course gives for a track, in a folder; one that is not there where it gives nothing."""
    return staging.entry_folder(rules.track(track).given or track)


def unwritten(report: str) -> bool:
    """Whether a report says nothing yet: empty, or the starter's headings alone."""
    return report.split() in ([], _template(REPORT).split())


def _check_place(root: Path, track: str) -> None:
    if root.exists() and not root.is_dir():
        raise TitoError(f"{root} is a file: name a folder for the project with --output")
    if workspace.is_workspace(root) or _is_clone(root):
        what = "your workspace" if workspace.is_workspace(root) else "the course repository"
        raise TitoError(
            f"{root} is {what}: name another folder for the project, such as ./my_{track}_project"
        )
    if is_project(root) and (other := at(root).track) != track:
        raise TitoError(f"{root} is a project of {other}: name another folder with --output for {track}")


def _recorded(known: Project | None) -> Path | None:
    try:
        return known.home() if known is not None else None
    except TitoError:
        return None


def _around() -> Path | None:
    """The workspace of the current folder, else the clone that it lies in or that this tito runs from."""
    try:
        own = find()
        return own.home() if own is not None else workspace.around().root
    except workspace.NoWorkspace:
        here = Path.cwd().resolve()
        return next((f for f in (here, *here.parents) if _is_clone(f)), workspace.repository())
    except TitoError as error:
        raise TitoError(f"{error}, or name it with --workspace") from error


def _is_clone(folder: Path) -> bool:
    return (folder / "modules").is_dir() and (folder / "nbgrader_config.py").is_file()


def _mark(root: Path, track: str, home: Path | None) -> str:
    places: list[str] = []
    if home is not None:
        try:
            places.append(Path(os.path.relpath(home, root)).as_posix())
        except ValueError:  # another drive of Windows
            places.clear()
        places.append(str(home))
    return json.dumps({"schema": SCHEMA, "track": track, "workspace": places}, indent=1) + "\n"


def _starter(track: str) -> dict[str, bytes]:
    """Names and contents of the starter's files, without the notebook.

    The network is the given one where the course gives a network's code. A track that was added has no code.
    """
    starter = {
        "network.py": _template(f"{track}_network.py"),
        "train.py": _template(f"{track}_train.py"),
        REPORT: _template(REPORT),
        ".gitignore": IGNORED,
    }
    place = given_folder(track) / "network.py"
    if rules.track(track).given and place.is_file():
        starter["network.py"] = place.read_text(encoding="utf-8")
    return {name: text.encode() for name, text in starter.items() if text}


def _template(name: str) -> str:
    """A file of the starter; empty where the track has none."""
    path = TEMPLATES / f"{name}.txt"
    return path.read_text(encoding="utf-8") if path.is_file() else ""
