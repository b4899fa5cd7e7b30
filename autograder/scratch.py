"""Folders for the moment: removed when they are done with, and after a process that was killed.

Who is killed removes nothing. So each folder is locked while its process lives, by flock on the folder
itself, and before a process makes its first one it removes what others have left there: what bears our name,
belongs to this user, was made on this machine and is locked by nobody. Links are not followed. Where folders
cannot be locked (Windows, some network drives) nothing of others is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX, SUFFIX = "olympics-", ".scratch"
_swept: set[str] = set()


class Folder:
    """A new folder `olympics-<purpose>-….scratch`, which exists until `close`."""

    def __init__(self, purpose: str, parent: Path | None = None) -> None:
        where = str(parent or tempfile.gettempdir())
        if where not in _swept:
            _swept.add(where)
            sweep(where)
        self.path, self._lock = _make(purpose, where)

    def close(self) -> None:
        """Remove it, even where student code closed a folder in it; what stays is tried again by `sweep`."""
        _remove(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@contextmanager
def scratch_folder(purpose: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder for as long as the context lasts; parent: in place of the folder for temporary files."""
    made = Folder(purpose, parent)
    try:
        yield made.path
    finally:
        made.close()


def sweep(parent: str | Path) -> list[str]:
    """Remove the folders in `parent` that a process of ours left when it was killed; returns their names."""
    name = re.compile(rf"{re.escape(PREFIX)}[a-z0-9]+-[a-z0-9_]{{8}}\.{_machine()}{re.escape(SUFFIX)}")
    removed = []
    with os.scandir(parent) as entries:
        found = [entry.path for entry in entries if name.fullmatch(entry.name)]
    for path in found:
        with contextlib.suppress(OSError):  # in use, another user's, or gone meanwhile
            made = os.lstat(path)
            if not stat.S_ISDIR(made.st_mode) or (hasattr(os, "geteuid") and made.st_uid != os.geteuid()):
                continue
            if (lock := _locked(path)) is not None:
                _remove(Path(path))
                os.close(lock)
                removed.append(os.path.basename(path))
    return removed


def _make(purpose: str, where: str) -> tuple[Path, int | None]:
    """A new folder and its lock; once more where another process has swept it away before it was locked."""
    while True:
        path = tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-", suffix=f".{_machine()}{SUFFIX}", dir=where)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            lock = _locked(path)
            if os.path.isdir(path):
                return Path(path), lock
            if lock is not None:
                os.close(lock)


def _locked(path: str) -> int | None:
    """The folder opened and locked; None where folders cannot be locked.

    Raises BlockingIOError where another process holds it, OSError where it is no folder, or gone.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return fd


def _machine() -> str:
    """Four characters for this machine: a folder on a network drive may be in use on another."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:4]


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if not os.path.lexists(path):
        return
    for folder, names, _ in os.walk(path):  # from the top, so each is opened before it is entered
        for inner in (os.path.join(folder, name) for name in names):
            if not os.path.islink(inner):
                with contextlib.suppress(OSError):
                    os.chmod(inner, 0o700)
    shutil.rmtree(path, ignore_errors=True)
