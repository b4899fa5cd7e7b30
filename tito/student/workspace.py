"""A student's workspace: the notebooks, the package that grows from them, and what tito remembers in .tito/.

    01_tensor/01_tensor.ipynb ...   the student's notebooks, laid out as nbgrader fetches them
    tinytorch/                      the student's own package, written by `tito module complete`
    .tito/                          workspace.json (the mark), progress.json, released/ (copies), backups/

A notebook that is here is the student's: nothing but `reset`, which keeps a backup, ever writes over it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder import files, folders
from autograder.files import write_text
from autograder.paths import TITO, repository
from autograder.scratch import scratch_folder
from tito.errors import TitoError
from tito.package.exporter import tidy
from tito.package.init import package_init
from tito.package.names import MODULES, NAMES

SCHEMA = 1


@dataclass(frozen=True)
class Workspace:
    """The folders and files of one workspace; make it with `init`, find it with `find`."""

    root: Path

    @property
    def package(self) -> Path:
        return self.root / "tinytorch"

    @property
    def private(self) -> Path:
        return self.root / ".tito"

    def notebook(self, name: str) -> Path:
        """The student's notebook of an assignment, such as 05_autograd or vision."""
        return self.root / name / f"{name}.ipynb"

    def released(self, name: str) -> Path:
        """The untouched copy of the notebook as it was last released."""
        return self.private / "released" / f"{name}.ipynb"

    def modules(self) -> list[str]:
        """The lessons that are here, in order: 01_tensor, 02_activations, ..."""
        found = (
            folder.name for folder in self.root.glob("[0-9][0-9]_*") if self.notebook(folder.name).is_file()
        )
        return sorted(found)

    def module(self, wanted: str) -> str:
        """The full name of a lesson given as 5, 05, autograd or 05_autograd. Raises TitoError."""
        number = wanted.partition("_")[0]
        for name in self.modules():
            own, _, word = name.partition("_")
            if wanted == word or (number.isdigit() and int(own) == int(number)):
                return name
        here = ", ".join(name.partition("_")[0] for name in self.modules()) or "none yet, run `tito init`"
        raise TitoError(f"no module {wanted} in {self.root}: expected one of {here}")

    def assignment(self, wanted: str) -> str:
        """The full name of a lesson, or of a track such as vision. Raises TitoError."""
        return wanted if self.notebook(wanted).is_file() else self.module(wanted)

    def tracks(self) -> list[str]:
        """The tracks that are here, by name."""
        found = (folder.name for folder in self.root.iterdir() if self.notebook(folder.name).is_file())
        return sorted(name for name in found if not name[:2].isdigit())

    def progress(self) -> dict[str, Any]:
        """What is recorded of each module: {name: {"completed": date or null, "passed", "checks", ...}}."""
        path = self.private / "progress.json"
        if not path.is_file():
            return {}
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            modules = record["modules"]
        except (ValueError, KeyError, TypeError) as error:
            raise TitoError(
                f"{path} is damaged ({error!r}): delete it and complete the modules again"
            ) from error
        return dict(modules)

    def record(self, name: str, entry: dict[str, Any]) -> None:
        """Write what is known of one module into progress.json."""
        modules = {**self.progress(), name: entry}
        text = json.dumps({"schema": SCHEMA, "modules": dict(sorted(modules.items()))}, indent=1)
        write_text(self.private / "progress.json", text + "\n")

    def setting(self, name: str) -> str:
        """What `tito init` was told to keep, such as where the class's results are; empty where nothing."""
        return str(_settings(self).get(name) or "")

    def keep(self, name: str, value: str) -> None:
        """Keep a setting in workspace.json."""
        text = json.dumps({**_settings(self), name: value}, indent=1) + "\n"
        write_text(self.private / "workspace.json", text)

    def backup(self, path: Path) -> Path:
        """Copy a file to .tito/backups under a name that carries the time; returns the copy."""
        folder = self.private / "backups"
        folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        copy = folder / f"{path.stem}.{stamp}{path.suffix}"
        count = 1
        while copy.exists():
            count += 1
            copy = folder / f"{path.stem}.{stamp}-{count}{path.suffix}"
        draft = copy.with_suffix(".part")
        shutil.copy2(path, draft)
        os.replace(draft, copy)
        return copy


class NoWorkspace(TitoError):
    """There is no workspace here."""


class Damaged(TitoError):
    """A file that is there, but is no notebook."""


def around(start: Path | None = None) -> Workspace:
    """The workspace that `start` (or the current folder) lies in; else ./workspace, else the only one inside.

    The projects of tracks, which lie elsewhere, are no matter here: `places.find`.
    Raises NoWorkspace where there is none, TitoError where there is more than one to choose from.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents, start / "workspace"):
        if is_workspace(folder):
            return Workspace(folder)
    inside = within(start)
    if len(inside) == 1:
        return Workspace(inside[0])
    if inside:
        raise TitoError(f"{start} holds {len(inside)} workspaces, {names(inside)}: go to the one you mean")
    raise NoWorkspace(f"{start} is in no workspace: make one with `tito init`, or go to the one you have")


def within(folder: Path) -> list[Path]:
    """The workspaces that lie in a folder, by name."""
    try:
        return sorted(path for path in folder.iterdir() if is_workspace(path))
    except OSError:
        return []  # a folder that cannot be listed holds none for us


def names(folders: list[Path]) -> str:
    """The folders' names, as a sentence lists them."""
    return ", ".join(folder.name for folder in folders)


def is_workspace(folder: Path) -> bool:
    """Whether the folder carries the mark that `init` leaves."""
    return os.path.isfile(folder / ".tito" / "workspace.json")  # a folder closed to us is none, and no error


@contextmanager
def released_notebooks(given: Path | None = None) -> Iterator[Path]:
    """The folder of the released notebooks, for as long as the context lasts.

    It is the one given (or what a student bundle, a zip file, holds), else release/ of the repository, else
    what the installed wheel carries. Raises TitoError where no notebook is found.
    """
    if given is not None and given.is_file():
        with scratch_folder("release") as scratch:
            yield _unpack(given, scratch)
        return
    home = repository()
    places = [home / "release" if home else TITO / "release"]
    if given is not None:
        places = [given, given / "release"]
    for place in places:
        if any(place.glob("*/*.ipynb")):
            yield place.resolve()
            return
    if given is None:
        raise TitoError(
            "no released notebooks found: run `tito build` in the course, or name them with --release"
        )
    raise TitoError(
        f"{given} holds no released notebooks: expected folders such as 01_tensor/01_tensor.ipynb"
    )


def _unpack(archive: Path, scratch: Path) -> Path:
    """The notebooks of a student bundle in `scratch`, by the last two parts of their names."""
    try:
        with zipfile.ZipFile(archive) as bundle:
            for member in bundle.namelist():
                path = PurePosixPath(member)
                if path.suffix == ".ipynb" and path.parent.name == path.stem and path.stem != "..":
                    target = scratch / path.stem / path.name
                    target.parent.mkdir(exist_ok=True)
                    target.write_bytes(bundle.read(member))
    except (zipfile.BadZipFile, OSError) as error:
        raise TitoError(f"{archive} is neither a folder nor a whole zip file: {error}") from error
    if not any(scratch.iterdir()):
        raise TitoError(f"{archive} holds no notebooks such as release/01_tensor/01_tensor.ipynb")
    return scratch


def init(root: Path, release: Path | None = None) -> tuple[Workspace, list[str]]:
    """Make a workspace, or bring an older one up to date; returns it and the assignments that were added.

    Files that are already there stay as they are, whatever the course has released since. Raises TitoError
    where no release is found, and where `root` is a file or the course repository itself.
    """
    root = root.expanduser().resolve()
    folders.check(root)
    if root.exists() and not root.is_dir():
        raise TitoError(f"{root} is a file: name a folder for the workspace")
    if root == repository():
        raise TitoError(
            f"{root} is the course repository: name another folder, such as `tito init workspace`"
        )
    workspace = Workspace(root)
    with released_notebooks(release) as source:
        try:
            added = _fill(workspace, source)
        except OSError as error:
            raise TitoError(f"cannot write the workspace {root}: {error.strerror or error}") from error
    return workspace, added


def _settings(workspace: Workspace) -> dict[str, Any]:
    path = workspace.private / "workspace.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise TitoError(f"{path} is damaged ({error!r}): delete it, and `tito init` makes another") from error


def _fill(workspace: Workspace, source: Path) -> list[str]:
    """Copy what is missing of every assignment in `source`, and leave the mark of a workspace."""
    folders = sorted(path for path in source.iterdir() if (path / f"{path.name}.ipynb").is_file())
    added = [folder.name for folder in folders if _add(workspace, folder)]
    _mark(workspace)
    return added


def adopt(root: Path) -> Workspace:
    """Make a workspace of a folder into which nbgrader has fetched notebooks; no notebook is added."""
    workspace = Workspace(root.resolve())
    _mark(workspace)
    return workspace


def _mark(workspace: Workspace) -> None:
    ready_package(workspace.package)
    mark = workspace.private / "workspace.json"
    if not mark.exists():
        made = datetime.now(UTC).isoformat(timespec="seconds")
        write_text(mark, json.dumps({"schema": SCHEMA, "made": made}, indent=1) + "\n")


def _add(workspace: Workspace, folder: Path) -> bool:
    """Copy what is missing of one assignment; refresh the untouched copy that `reset` and `status` read."""
    name = folder.name
    new = not workspace.notebook(name).exists()
    for path in sorted(folder.rglob("*")):
        target = workspace.root / name / path.relative_to(folder)
        if path.is_file() and not path.is_symlink() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            files.copy(path, target)
    files.copy(folder / f"{name}.ipynb", workspace.released(name))
    return new


def ready_package(package: Path) -> None:
    """Give the package its __init__.py, so that a name not built yet says which module builds it."""
    if not (package / "__init__.py").exists():
        write_text(package / "__init__.py", tidy(package_init(MODULES, NAMES)))


def read_notebook(path: Path) -> NotebookNode:
    """A notebook as nbformat 4. Raises TitoError for a missing or damaged file."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError as error:
        raise TitoError(f"{path} is missing: `tito init` puts the released notebook there") from error
    except (OSError, ValueError) as error:
        what = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise Damaged(f"{path} is not a readable notebook: {what}") from error


def cells_digest(nb: NotebookNode) -> str:
    """A hash of the cells' sources: the same before and after a run, another after an edit."""
    text = json.dumps([[cell.cell_type, cell.source] for cell in nb.cells])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
