"""Reading a folder that another account may change at any moment: opened once, checked and copied from there.

A name is asked for once. What it led to is a descriptor, and kind, owner, size and time are the kernel's
words about that descriptor, so that whatever is put in the name's place meanwhile changes nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autograder.hashes import DEEPEST

ENTRIES = 5000  # files and folders of one submission
_CHUNK = 1 << 20


class Refused(Exception):
    """What lies there is not taken; the message is the reason."""


@dataclass
class Budget:
    """What one submission may still take, and what is left out of it: `skips(name, size)`.

    size: of a file; None before its kind is known.
    """

    bytes: int
    skips: Callable[[str, int | None], bool] = lambda name, size: False
    entries: int = ENTRIES


@contextmanager
def opened(name: str | Path, within: int | None = None) -> Iterator[int]:
    """A folder's descriptor. Raises OSError for what is no folder, and in a folder (`within`) for a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | (0 if within is None else os.O_NOFOLLOW)
    number = os.open(name, flags, dir_fd=within)
    try:
        yield number
    finally:
        os.close(number)


def copy(source: int, target: Path, budget: Budget) -> int:
    """Copy an open folder's plain files into a new folder; returns when it last changed (ns, the kernel's).

    All of it has to belong to the folder's owner. Raises Refused; OSError where `target` cannot be written.
    """
    return _copy(source, target, budget, os.fstat(source).st_uid, 0)


def _copy(source: int, target: Path, budget: Budget, owner: int, depth: int) -> int:
    if depth > DEEPEST:
        raise Refused(f"its folders lie more than {DEEPEST} deep")
    target.mkdir()
    latest = 0
    with os.scandir(source) as found:
        for entry in found:
            budget.entries -= 1
            if budget.entries < 0:
                raise Refused(f"it has more than {ENTRIES} files and folders")
            if budget.skips(entry.name, None):
                continue
            with _inside(entry.name, source, owner) as inner:
                place = target / entry.name
                if stat.S_ISDIR(os.fstat(inner).st_mode):
                    latest = max(latest, _copy(inner, place, budget, owner, depth + 1))
                    continue
                size = os.fstat(inner).st_size
                _take(size, budget.bytes)
                if not budget.skips(entry.name, size):
                    latest = max(latest, _copy_file(inner, place, budget))
    # asked last: a change while it was read is a change after the time that is told
    return max(latest, os.fstat(source).st_ctime_ns)


@contextmanager
def _inside(name: str, within: int, owner: int) -> Iterator[int]:
    """The descriptor of a plain file or folder of this owner. Raises Refused for anything else."""
    try:
        # a pipe is opened without waiting, and let go: nothing is read of it
        number = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=within)
    except PermissionError as error:
        raise Refused(f"{name!r} in it cannot be read") from error
    except OSError as error:  # a link, a socket, or gone meanwhile
        raise Refused(f"{name!r} in it is neither a file nor a folder ({error.strerror})") from error
    try:
        about = os.fstat(number)
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
            raise Refused(f"{name!r} in it is neither a file nor a folder")
        if about.st_uid != owner:
            raise Refused(f"{name!r} in it belongs to {user(about.st_uid)}")
        yield number
    finally:
        os.close(number)


def _copy_file(source: int, place: Path, budget: Budget) -> int:
    with open(place, "xb") as copied:
        while chunk := os.read(source, _CHUNK):
            _take(len(chunk), budget.bytes)  # it may grow while it is read
            budget.bytes -= len(chunk)
            copied.write(chunk)
    return os.fstat(source).st_ctime_ns


def _take(size: int, left: int) -> None:
    if size > left:
        raise Refused("it has more bytes than are allowed")


def user(uid: int) -> str:
    """The name of an account, or its number where it has none."""
    try:
        import pwd  # not on Windows, where there is no exchange

        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
