"""What must be trusted: the files that decide a grade, and the hash that names them.

A result is new work when one of these files is another; term, leaderboard, exchange and command line may
change without touching a grade. tests/test_trusted.py holds that no file of the list imports one that is not
on it.
"""

from __future__ import annotations

import functools

from autograder.hashes import file_hash
from autograder.paths import AUTOGRADER

ROOMS = ("data", "notebooks", "sandbox", "scoring")
# the judging part of the gradebook, and what all of these import
FILES = (
    "gradebook/judgement.py", "gradebook/judging.py",
    "__init__.py", "course.py", "errors.py", "files.py", "frames.py", "hashes.py", "moved.py", "paths.py",
    "scratch.py", "trusted.py",
)  # fmt: skip
_KINDS = (".py", ".gz")  # code, and the digits


@functools.cache
def names() -> tuple[str, ...]:
    """The trusted files, as seen from autograder/."""
    rooms = [path for room in ROOMS for path in (AUTOGRADER / room).rglob("*") if path.suffix in _KINDS]
    return tuple(sorted([*FILES, *(path.relative_to(AUTOGRADER).as_posix() for path in rooms)]))


@functools.cache
def grader() -> str:
    """SHA-256 of the trusted files, by name and content."""
    return file_hash(AUTOGRADER, names())
