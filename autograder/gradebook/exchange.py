"""nbgrader's exchange, made safe for folders into which every student can write.

nbgrader itself warns of a submission in another's name and collects it all the same, follows symbolic links
with the instructor's rights (to the solutions, say), believes the time that a student's folder bears, and
stops at the first folder that it cannot read. Here a submission is opened once and copied from its
descriptors (`untrusted`), its account and time are the kernel's, and what fails is named while all else is
collected.
"""

from __future__ import annotations

import datetime
import fnmatch
import glob
import os
import stat
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook, MissingEntry
from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange.default import (
    Exchange,
    ExchangeCollect,
    ExchangeReleaseAssignment,
    ExchangeReleaseFeedback,
)
from nbgrader.utils import parse_utc

from autograder.course import STUDENT
from autograder.errors import GradingError
from autograder.files import copy as copy_whole
from autograder.gradebook import levels, untrusted
from autograder.hashes import digest
from autograder.scratch import scratch_folder

REFUSED = "not collected"
TIMED = "handed in"
UNPUBLISHED = "not published"
TRIES = 5  # of one student's submissions, from the newest on
MOST_LINES = 10  # about what one account has put there
APART_S = 60  # a folder's own time may differ from the kernel's by as much before it is told


@dataclass(frozen=True)
class _Handed:
    """A folder in the inbound folder as it was first seen. time: its last change, the kernel's (ns)."""

    name: str
    student: str
    uid: int
    time: int
    said: datetime.datetime


class Collect(ExchangeCollect):  # type: ignore[misc]
    """Collects the newest submission of each student that is the student's own and can be copied.

    Raises nbgrader's ExchangeError after all else is collected where something was not; `refused` says what.
    """

    def init_src(self) -> None:
        if not self.coursedir.course_id:
            self.fail("No course id specified. Re-run with --course flag.")
        self.refused: list[str] = []
        self.notes: list[str] = []
        self._lines: Counter[int] = Counter()

    def copy_files(self) -> None:
        try:
            with levels.folder(_levels(self), "inbound") as inbound:
                for student, handed in sorted(self._submissions(inbound).items()):
                    self._collect(inbound, student, handed)
        except GradingError as error:
            self.fail(str(error))
        for uid, lines in self._lines.items():
            if lines > MOST_LINES:
                self.refused.append(f"{REFUSED}: {lines - MOST_LINES} more of {untrusted.user(uid)}")
                self.log.warning(self.refused[-1])
        if self.refused:
            number = sum(self._lines.values())
            what = f"{number} submission{'' if number == 1 else 's'} could not be collected, all others are"
            self.fail(f"{self.coursedir.assignment_id}: {what}")

    def _submissions(self, inbound: int) -> dict[str, list[_Handed]]:
        """What each student has handed in, newest first; what is not the student's own is refused."""
        found: dict[str, list[_Handed]] = defaultdict(list)
        with os.scandir(inbound) as entries:
            for entry in entries:
                words = entry.name.rsplit("+", 3)
                if len(words) < 3 or words[1] != self.coursedir.assignment_id:
                    continue
                if not fnmatch.fnmatchcase(words[0], self.coursedir.student_id or "*"):
                    continue
                try:
                    handed = self._look(inbound, entry.name, words[0], words[2])
                    found[handed.student].append(handed)
                except (untrusted.Refused, OSError) as error:
                    self._refuse(inbound, entry.name, error)
        due = self._due()
        for those in found.values():
            those.sort(key=lambda one: (due is None or _utc(one.time) <= due, one.time), reverse=True)
        return found

    def _look(self, inbound: int, name: str, student: str, said: str) -> _Handed:
        if not STUDENT.match(student) or student in (".", ".."):
            raise untrusted.Refused("its name names no student")
        try:
            when = parse_utc(said)
        except (ValueError, OverflowError, AttributeError, TypeError) as error:
            raise untrusted.Refused(f"its name has no time that can be read ({error})") from error
        with untrusted.opened(name, inbound) as folder:
            about = os.fstat(folder)
        self._check_owner(student, about.st_uid)
        return _Handed(name, student, about.st_uid, about.st_ctime_ns, when)

    def _check_owner(self, student: str, uid: int) -> None:
        if self.check_owner and (owner := untrusted.user(uid)) != student:
            raise untrusted.Refused(f"it is in the name of {student}, and {owner} has put it there")

    def _due(self) -> datetime.datetime | None:
        """The assignment's due date where it decides what is collected."""
        if not self.before_duedate:
            return None
        with Gradebook(self.coursedir.db_url, self.coursedir.course_id) as gradebook:
            try:
                due: datetime.datetime | None = gradebook.find_assignment(
                    self.coursedir.assignment_id
                ).duedate
            except MissingEntry:
                due = None
        return due

    def _collect(self, inbound: int, student: str, handed: list[_Handed]) -> None:
        """The first of a student's submissions that can be copied, unless it is collected already."""
        place = Path(self.coursedir.format_path(
            self.coursedir.submitted_directory, student, self.coursedir.assignment_id
        ))  # fmt: skip
        for one in handed[:TRIES]:
            if place.is_dir() and not self._wanted(place, _utc(one.time)):
                self.log.info("no newer submission to collect: %s %s", student, place.name)
                return
            try:
                self._take(inbound, one, place)
                return
            except (untrusted.Refused, OSError) as error:
                self._refuse(inbound, one.name, error)

    def _wanted(self, place: Path, time: datetime.datetime) -> bool:
        try:
            known = self.coursedir.get_existing_timestamp(str(place))
        except (AttributeError, OSError, ValueError, OverflowError):
            known = None  # of a course that was collected by nbgrader: a student's own words
        return bool(
            (self.update and (known is None or time > known)) or (self.before_duedate and time != known)
        )

    def _take(self, inbound: int, handed: _Handed, place: Path) -> None:
        """Copy one submission beside its place, and put it there whole."""
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch_folder("collect", place.parent) as scratch:
                made = scratch / "made"
                with untrusted.opened(handed.name, inbound) as folder:
                    self._check_owner(handed.student, os.fstat(folder).st_uid)
                    time = _utc(untrusted.copy(folder, made, self._budget(handed.name)))
                (made / "timestamp.txt").write_text(f"{time:%Y-%m-%d %H:%M:%S.%f} UTC", encoding="utf-8")
                if self.coursedir.groupshared:
                    _share(made)
                self._place(made, place, scratch / "old")
        finally:
            if not any(place.parent.iterdir()):
                place.parent.rmdir()
        if abs((time - handed.said).total_seconds()) > APART_S:
            self.notes.append(
                f"{TIMED} {time:%Y-%m-%d %H:%M:%S} UTC by this machine's clock: {handed.name!r}"
            )
            self.log.warning(self.notes[-1])

    def _place(self, made: Path, place: Path, old: Path) -> None:
        if place.is_dir():
            if digest(made) == digest(place):  # an exchange that was moved has new times, and the same work
                self.log.info("collected already: %s", place)
                return
            place.rename(old)
        try:
            made.rename(place)
        except OSError:
            if old.is_dir():
                old.rename(place)
            raise
        self.log.info("collected: %s", place)

    def _budget(self, folder: str) -> untrusted.Budget:
        """What a submission may have: nbgrader's own settings for names and sizes."""
        settings = self.coursedir

        def skips(name: str, size: int | None) -> bool:
            if name == "timestamp.txt" or any(fnmatch.fnmatch(name, rule) for rule in settings.ignore):
                return True
            if size is None:
                return False
            if settings.max_file_size and size > 1000 * settings.max_file_size:
                self.notes.append(f"left out of {folder!r}: {name!r}, of {size / 1e6:.0f} MB")
                self.log.warning(self.notes[-1])
                return True
            return not any(fnmatch.fnmatch(name, rule) for rule in settings.include)

        return untrusted.Budget(bytes=1000 * settings.max_dir_size, skips=skips)

    def _refuse(self, inbound: int, name: str, error: Exception) -> None:
        """Say why a folder is not collected, in a few lines for each account that puts some there."""
        try:
            uid = os.stat(name, dir_fd=inbound, follow_symlinks=False).st_uid
        except OSError:
            uid = -1  # gone meanwhile
        self._lines[uid] += 1
        if self._lines[uid] <= MOST_LINES:
            self.refused.append(f"{REFUSED}: {name!r}: {_reason(error)}")
            self.log.warning(self.refused[-1])


class ReleaseAssignment(ExchangeReleaseAssignment):  # type: ignore[misc]
    """Puts a release into the exchange, whose folders are made, or found, so that nobody else can put one."""

    def ensure_root(self) -> None:
        """Nothing: `init_dest` makes and checks all folders, in a group of instructors, too."""

    def init_dest(self) -> None:
        _make(self)
        super().init_dest()


class ReleaseFeedback(ExchangeReleaseFeedback):  # type: ignore[misc]
    """Puts feedback into the exchange, a student at a time: what one lacks stops nobody else's."""

    def ensure_root(self) -> None:
        """Nothing: `init_dest` makes and checks all folders."""

    def init_dest(self) -> None:
        _make(self)
        super().init_dest()

    src_path: str

    def copy_files(self) -> None:
        failed = 0
        for folder in sorted(glob.glob(self.src_path)):
            self.src_path = folder
            try:
                super().copy_files()
            except (OSError, UnicodeError) as error:
                failed += 1
                self.log.warning("%s: %s: %s", UNPUBLISHED, folder, _reason(error))
        if failed:
            self.fail(f"the feedback of {failed} was not published, that of all others is")


def publish(config: Any, results: Path) -> Path:
    """Put the course's results into the exchange, where every student may read them; returns the copy.

    Raises GradingError where the exchange is not there, is not safe, or cannot be written.
    """
    root, course = Path(Exchange(config=config).root), CourseDirectory(config=config)
    if not course.course_id:
        raise GradingError(
            "the course has no course_id in nbgrader_config.py: its exchange has no folder for it"
        )
    if not root.is_dir():
        raise GradingError(
            f"the exchange {root} is not there: make it, or set c.Exchange.root to the right one"
        )
    target = root / course.course_id / "results.json"
    try:
        levels.make(_exchange(root, course))
        copy_whole(results, target)
        target.chmod(0o644)
    except OSError as error:
        raise GradingError(f"{target} cannot be written ({error.strerror}): nothing was published") from error
    return target


def _make(app: Any) -> None:
    if not app.coursedir.course_id:
        app.fail("No course id specified. Re-run with --course flag.")
    try:
        levels.make(_levels(app))
    except GradingError as error:
        app.fail(str(error))
    except OSError as error:
        app.fail(f"the exchange {app.root} cannot be written ({error}): nothing was published")


def _levels(app: Any) -> levels.Exchange:
    return _exchange(Path(app.root), app.coursedir)


def _exchange(root: Path, course: CourseDirectory) -> levels.Exchange:
    """The exchange of a course; who owns the course's folder may own those in the exchange."""
    owner = os.stat(course.root).st_uid
    return levels.Exchange(root, course.course_id, (owner,), bool(course.groupshared))


def _share(folder: Path) -> None:
    """Give the group of instructors what nbgrader gives it in a course with several."""
    folder.chmod(folder.stat().st_mode & 0o777 | 0o2770)
    for path in folder.rglob("*"):
        mode = path.stat().st_mode
        path.chmod(stat.S_IMODE(mode) | (0o2770 if stat.S_ISDIR(mode) else 0o660))


def _utc(nanoseconds: int) -> datetime.datetime:
    """A time of the kernel's as nbgrader keeps times: UTC, without a zone."""
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=nanoseconds // 1000)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
