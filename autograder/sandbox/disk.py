"""How much a sandboxed tree has added to the folders it may write.

The supervisor asks at every look; a count begins at most once a second and goes a few thousand files at a
time, so that a program with a million files cannot keep the supervisor from its other limits. Files that are
moved about during a count can escape it; files that are deleted but held open do not.
"""

import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence

_PAUSE_S = 1.0  # from the start of one count to the next
_STEP = 2000  # files and folders a look
_BLOCK = 512

_Identity = tuple[int, int]


class DiskWatch:
    """Counts what is under `folders` now, before the program starts; from then on tells what was added."""

    def __init__(self, folders: Sequence[str], limit: int, tree: Callable[[], list[int]]):
        self._folders, self._limit, self._tree = folders, limit, tree
        self._ours = {_identity(os.fstat(fd)) for fd in (0, 1, 2) if _is_open(fd)}
        self._bytes, self._closed = 0, set[str]()
        self._before, self._closed_before = 0, set[str]()
        for _ in self._count([]):
            pass
        self._before, self._closed_before = self._bytes, self._closed
        self._counting: Iterator[None] | None = None
        self._next = time.monotonic()

    def reason(self) -> str:
        """Why the program must end, in one line; empty while it keeps to its limit."""
        now = time.monotonic()
        if self._counting is None:
            if now < self._next:
                return ""
            self._next = now + _PAUSE_S
            self._counting = self._count(self._tree())
        if next(self._counting, self) is self:
            self._counting = None
        added = self._bytes - self._before
        if added > self._limit:
            return f"disk limit: {added / 1e6:.0f} MB written, {self._limit / 1e6:.0f} MB allowed"
        if self._closed - self._closed_before:
            return (
                "disk limit: it made a folder that cannot be looked into, so what it wrote cannot be counted"
            )
        return ""

    def _count(self, processes: list[int]) -> Iterator[None]:
        """Fill _bytes and _closed anew, a step at a time: named files, then deleted ones still held open."""
        self._bytes, self._closed = 0, set()
        counted = set(self._ours)
        for steps, found in enumerate(itertools.chain(self._named(), _deleted(processes)), 1):
            if steps % _STEP == 0:
                yield
            if found is not None:
                self._add(found, counted)

    def _named(self) -> Iterator[os.stat_result | None]:
        """What is in the folders, one after the other; None for what is gone or closed to us meanwhile."""
        folders = list(self._folders)
        while folders:
            folder = folders.pop()
            try:
                entries = os.scandir(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:  # closed to us, or its name is longer than the kernel takes
                self._closed.add(folder)
                continue
            with entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        yield None
                        continue
                    except OSError:
                        self._closed.add(folder)
                        yield None
                        continue
                    if stat.S_ISDIR(found.st_mode):
                        folders.append(entry.path)
                    yield found

    def _add(self, found: os.stat_result, counted: set[_Identity]) -> None:
        if found.st_nlink != 1 and not stat.S_ISDIR(found.st_mode):
            if _identity(found) in counted:
                return
            counted.add(_identity(found))
        self._bytes += (found.st_blocks + 1) * _BLOCK  # an empty file takes room too


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
        return True
    except OSError:
        return False


def _deleted(processes: list[int]) -> Iterator[os.stat_result | None]:
    """Files that have no name any more but are held open; None for each other open one."""
    for process in processes:
        for path in _open_files(process):
            try:
                found = os.stat(path)
            except OSError:  # closed meanwhile
                yield None
                continue
            yield found if found.st_nlink == 0 and stat.S_ISREG(found.st_mode) else None


def _open_files(process: int) -> list[str]:
    try:
        return [f"/proc/{process}/fd/{name}" for name in os.listdir(f"/proc/{process}/fd")]
    except OSError:  # it has ended, or is not ours to look at
        return []
