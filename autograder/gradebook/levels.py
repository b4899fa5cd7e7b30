"""The folders of nbgrader's exchange: who owns them and who may write there; made so, and checked.

Whoever may write into a folder without the sticky bit may rename what lies in it, and put a course or a
release of their own in its place. So students write into two folders, both sticky: the root, because
nbgrader's submit wants it so, and the inbound folder. All others are the instructor's alone.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from autograder.errors import GradingError, command
from autograder.gradebook.untrusted import opened, user

ROOT = 0o1777  # what the whole exchange has
# inbound: all put submissions there, none but the owner lists them; new ones have the folder's group
# feedback: read by the name of one's own submission
COURSE = {"": 0o755, "outbound": 0o755, "inbound": 0o3733, "feedback": 0o711}
_SHARED = {"": 0o2020, "outbound": 0o2020, "inbound": 0o0040, "feedback": 0o2060}


@dataclass(frozen=True)
class Exchange:
    """Where a course's exchange is. owners: accounts that may own its folders beside root and ourselves.

    shared: whether several instructors work in one group (nbgrader's `CourseDirectory.groupshared`).
    """

    root: Path
    course: str
    owners: Collection[int] = ()
    shared: bool = False

    def mode(self, name: str) -> int:
        """The mode of a folder that we make; name: "" for the course's own."""
        return COURSE[name] | (_SHARED[name] if self.shared else 0)


def make_root(exchange: Exchange) -> None:
    """Make the folder that all courses share, or check it. Raises GradingError, OSError."""
    if not exchange.root.is_dir():
        exchange.root.mkdir(parents=True)
        exchange.root.chmod(ROOT)
    with _opened(exchange.root, exchange, None):
        pass


def make(exchange: Exchange, account: str | None = None) -> None:
    """Make what is missing, for an account or ourselves, and check all. Raises GradingError, OSError."""
    if sys.platform == "win32":
        return  # nbgrader has no exchange there
    import pwd

    make_root(exchange)
    for name in COURSE:
        place = exchange.root / exchange.course / name
        try:
            place.mkdir(mode=0o700)
        except FileExistsError:
            pass
        else:
            if account is not None:
                one = pwd.getpwnam(account)
                os.chown(place, one.pw_uid, one.pw_gid)
            place.chmod(exchange.mode(name))
        with folder(exchange, name):
            pass


@contextmanager
def folder(exchange: Exchange, name: str = "") -> Iterator[int]:
    """The descriptor of one of the course's folders, those above it checked, too. Raises GradingError."""
    with ExitStack() as stack:
        within = stack.enter_context(_opened(exchange.root, exchange, None))
        place = exchange.root / exchange.course
        within = stack.enter_context(_opened(place, exchange, "", within))
        if name:
            within = stack.enter_context(_opened(place / name, exchange, name, within))
        yield within


@contextmanager
def _opened(place: Path, exchange: Exchange, name: str | None, within: int | None = None) -> Iterator[int]:
    """A folder opened and checked; name: as in COURSE, None for the root, which alone may be a link."""
    with ExitStack() as stack:
        try:
            one = opened(place) if within is None else opened(place.name, within)
            found = stack.enter_context(one)
        except OSError as error:
            first = command("tito", "release", "01_tensor", "--publish")
            raise GradingError(
                f"{place} of the exchange is no folder that opens ({error.strerror}): {first} makes it"
            ) from error
        _check_owner(place, os.fstat(found), exchange)
        _check_mode(place, os.fstat(found).st_mode, exchange, name)
        if name is None:
            for above in place.resolve().parents:
                mode = above.stat().st_mode
                if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                    raise _loose(above, mode, stat.S_IMODE(mode) | stat.S_ISVTX)
        yield found


def _check_owner(place: Path, about: os.stat_result, exchange: Exchange) -> None:
    ours = exchange.shared and about.st_gid in {os.getegid(), *os.getgroups()}
    if about.st_uid not in {0, os.geteuid(), *exchange.owners} and not ours:
        me = user(os.geteuid())
        raise GradingError(
            f"{place} of the exchange belongs to {user(about.st_uid)}, who is no instructor of this course: "
            f"remove it, or where it is the course's own run {command('sudo', 'chown', me, place)}"
        )


def _check_mode(place: Path, mode: int, exchange: Exchange, name: str | None) -> None:
    others = mode & (stat.S_IWGRP | stat.S_IWOTH)
    if name in (None, "inbound"):
        if others and not mode & stat.S_ISVTX:
            raise _loose(place, mode, ROOT if name is None else exchange.mode(name))
    elif others & ~(stat.S_IWGRP if exchange.shared else 0):
        raise _loose(place, mode, exchange.mode(name))


def _loose(place: Path, mode: int, wanted: int) -> GradingError:
    return GradingError(
        f"{place} has mode {stat.S_IMODE(mode):o}: others could rename what lies in it and put their own in "
        f"its place. Run as its owner, or with sudo: {command('chmod', f'{wanted:o}', place)}"
    )
