"""Where things lie beside the code, in a clone or in an installed wheel: every look for such a place is here.

In a clone the packages `autograder` and `tito` lie at its root, with modules/, release/ and course/ beside
them; a wheel carries what students are given inside the packages. Only the standard library is imported.
"""

from __future__ import annotations

import os
from pathlib import Path

AUTOGRADER = Path(__file__).resolve().parent
LIBRARY = AUTOGRADER.parent  # what holds autograder/ and tito/: a clone's root, or site-packages
TITO = LIBRARY / "tito"
TEMPLATES = TITO / "templates"  # what `tito course` and `tito olympics init` begin with
ENTRIES = (LIBRARY / "course" / "entries", AUTOGRADER / "entries")  # a clone's, a wheel's
SCHEDULES = (LIBRARY / "course" / "schedules", AUTOGRADER / "schedules")


def repository() -> Path | None:
    """The course repository that this code runs from, or None where it is installed on its own."""
    whole = (LIBRARY / "modules").is_dir() and (LIBRARY / "nbgrader_config.py").is_file()
    return LIBRARY if whole else None


def with_library(path: str | None) -> str:
    """A PYTHONPATH on which a program of ours is found, whatever its folder: `path` after what holds us."""
    return os.pathsep.join(filter(None, [str(LIBRARY), path]))
