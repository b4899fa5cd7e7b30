"""Copies of notebooks in .tito/backups: made before anything may be lost, thinned out slowly, put back.

A copy is named after the notebook and the time in UTC: 05_autograd.20261125T220301.ipynb.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nbformat import NotebookNode

from autograder import files
from tito.errors import TitoError
from tito.student import workspace
from tito.student.workspace import Workspace

KEEP = 20  # copies of one notebook that stay, however old
KEEP_DAYS = 14  # every younger copy stays, however many
_STAMP = re.compile(r"\.(\d{8}T\d{6})(?:-(\d+))?\.ipynb$")


@dataclass(frozen=True)
class Copy:
    """One backup of a notebook."""

    path: Path
    made: datetime
    count: int  # of several within one second

    @property
    def when(self) -> str:
        """The time of the copy on this machine's clock, to the second."""
        return self.made.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def copies(ws: Workspace, name: str) -> list[Copy]:
    """The backups of one notebook, the newest first."""
    found = []
    for path in (ws.private / "backups").glob(f"{name}.*.ipynb"):
        match = _STAMP.search(path.name)
        if match and path.name[: match.start()] == name:
            made = datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
            found.append(Copy(path, made, int(match[2] or 1)))
    return sorted(found, key=lambda copy: (copy.made, copy.count), reverse=True)


def snapshot(ws: Workspace, name: str) -> Path | None:
    """Keep a copy of a notebook as it is now; None where it is as released, or as in the newest backup.

    Older copies go where there are more than KEEP, but none that is younger than KEEP_DAYS.
    """
    notebook = ws.notebook(name)
    if not notebook.is_file():
        return None
    content = notebook.read_bytes()
    kept = copies(ws, name)
    others = [ws.released(name), *(copy.path for copy in kept[:1])]
    if any(path.is_file() and path.read_bytes() == content for path in others):
        return None
    made = ws.backup(notebook)
    _thin(kept)
    return made


def snapshot_all(ws: Workspace) -> list[Path]:
    """Keep a copy of every notebook that has changed since its newest backup."""
    made = [snapshot(ws, folder.name) for folder in sorted(ws.root.iterdir()) if folder.is_dir()]
    return [path for path in made if path is not None]


def _thin(kept: list[Copy]) -> None:
    oldest = datetime.now(UTC) - timedelta(days=KEEP_DAYS)
    for copy in kept[KEEP - 1 :]:
        if copy.made < oldest:
            copy.path.unlink(missing_ok=True)


def restore(ws: Workspace, name: str, wanted: str | None = None) -> tuple[Copy, Path | None]:
    """Put a backup in the notebook's place: the one `wanted` names, else the newest that differs from it.

    What stands there now, damaged or not, is kept first. Returns the backup and the copy of what was replaced
    (None where nothing was there). Raises TitoError.
    """
    notebook = ws.notebook(name)
    now = notebook.read_bytes() if notebook.is_file() else b""
    kept = copies(ws, name)
    if wanted is not None:
        chosen = next((copy for copy in kept if copy.path.name == Path(wanted).name), None)
        if chosen is None:
            raise TitoError(
                f"no backup {wanted} of {name}: `tito module restore {name[:2]} --list` shows what there is"
            )
    else:
        chosen = next((copy for copy in kept if copy.path.read_bytes() != now and readable(copy.path)), None)
        if chosen is None:
            raise TitoError(
                f"{name} has no backup that differs from the notebook as it is: nothing to restore"
            )
    replaced = ws.backup(notebook) if notebook.is_file() else None
    files.copy(chosen.path, notebook)
    return chosen, replaced


def read(ws: Workspace, name: str) -> NotebookNode:
    """An assignment's notebook. Raises TitoError, which names the newest backup of a damaged one."""
    try:
        return workspace.read_notebook(ws.notebook(name))
    except workspace.Damaged as error:
        raise TitoError(f"{error}; {rescue(ws, name)}") from error


def readable(path: Path) -> bool:
    """Whether a file is a notebook."""
    try:
        workspace.read_notebook(path)
    except TitoError:
        return False
    return True


def rescue(ws: Workspace, name: str) -> str:
    """What to do about a damaged notebook, in a few words."""
    newest = next((copy for copy in copies(ws, name) if readable(copy.path)), None)
    short = name.partition("_")[0] if name[:2].isdigit() else name
    if newest is None:
        return f"there is no backup of it; `tito module reset {short}` puts the released notebook back"
    return f"the newest backup is {newest.path}, of {newest.when}: `tito module restore {short}` puts it back"
