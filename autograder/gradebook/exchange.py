"""nbgrader's collect, made safe for an inbound folder into which every student can write.

nbgrader itself warns of a submission in another's name and collects it all the same, follows symbolic links
with the instructor's rights (to the solutions, say), and stops at the first folder that it cannot read.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange.default import Exchange, ExchangeCollect
from nbgrader.utils import parse_utc

from autograder.errors import GradingError
from autograder.files import copy as copy_whole
from autograder.scratch import scratch_folder

REFUSED = "not collected"
_LONG_AGO = parse_utc("1970-01-01 00:00:00 UTC")  # for what has no readable time


class Collect(ExchangeCollect):  # type: ignore[misc]
    """Collects the newest submission of each student that is the student's own and can be copied."""

    def init_src(self) -> None:
        super().init_src()
        self.src_records: list[dict[str, Any]] = [record for record in self.src_records if record["username"]]

    def _path_to_record(self, path: str) -> dict[str, Any]:
        """nbgrader's record of a submission; one without a name where it is not to be collected."""
        try:
            record: dict[str, Any] = super()._path_to_record(path)
            reason = self._refusal(Path(path), record["username"])
        except (OSError, ValueError, OverflowError, AttributeError, TypeError) as error:
            record, reason = {"timestamp": _LONG_AGO, "filename": os.path.basename(path)}, str(error)
        if reason:
            self.log.warning("%s: %r: %s", REFUSED, os.path.basename(path), reason)
            record["username"] = ""
        return record

    def _refusal(self, path: Path, student: str) -> str:
        """Why a submission is not collected; empty where it is."""
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            return "it is no folder"
        if self.check_owner:
            owner = _user(found.st_uid)
            if owner != student:
                return f"it is in the name of {student}, and {owner} has put it there"
        for folder, folders, files in os.walk(path, onerror=_raise):
            for name in (*folders, *files):
                inside = Path(folder, name)
                if not (stat.S_ISREG(mode := inside.lstat().st_mode) or stat.S_ISDIR(mode)):
                    return f"{name!r} in it is neither a file nor a folder"
                if not os.access(inside, os.R_OK):
                    return f"{name!r} in it cannot be read"
        size, most = self.get_size(str(path)), 1000 * self.coursedir.max_dir_size
        if size > most:
            return f"it has {size / 1e6:.0f} MB, and {most / 1e6:g} MB are allowed"
        return ""

    def do_copy(self, src: str, dest: str, log: Any = None) -> None:
        """nbgrader's copy of a copy without links: the student may change the folder meanwhile."""
        with scratch_folder("collect") as scratch:
            plain = os.path.join(scratch, "submission")
            shutil.copytree(src, plain, symlinks=True, copy_function=_copy_file)
            for folder, folders, files in os.walk(plain):
                for name in (*folders, *files):
                    if os.path.islink(inside := os.path.join(folder, name)):
                        os.unlink(inside)
            super().do_copy(plain, dest, log)


def publish(config: Any, results: Path) -> Path:
    """Put the course's results into the exchange, where every student may read them; returns the copy.

    Raises GradingError where the exchange is not there or cannot be written.
    """
    root, course = Path(Exchange(config=config).root), CourseDirectory(config=config).course_id
    if not course:
        raise GradingError(
            "the course has no course_id in nbgrader_config.py: its exchange has no folder for it"
        )
    if not root.is_dir():
        raise GradingError(
            f"the exchange {root} is not there: make it, or set c.Exchange.root to the right one"
        )
    target = root / course / "results.json"
    try:
        if not target.parent.is_dir():
            target.parent.mkdir()
            target.parent.chmod(0o755)  # as nbgrader makes it
        copy_whole(results, target)
        target.chmod(0o644)
    except OSError as error:
        raise GradingError(f"{target} cannot be written ({error.strerror}): nothing was published") from error
    return target


def _copy_file(source: str, target: str) -> None:
    """Copy a file's bytes; raises OSError for a symbolic link, and for what is no file."""
    number = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(f"{source} is no file")
        with open(target, "wb") as copy:
            shutil.copyfileobj(file, copy)


def _raise(error: OSError) -> None:
    raise error


def _user(uid: int) -> str:
    try:
        import pwd  # not on Windows, where there is no exchange

        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
