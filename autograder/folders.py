"""Names of folders: which ones the programs that we call cannot bear, and a database's address in the others.

nbgrader takes a course's path for a pattern of file names, Jupyter and Python take lists of folders apart at
each colon, and a database's address is a URL. What cannot work is said before anything is made.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

from autograder.errors import OlympicsError


class BadName(OlympicsError):
    """A folder of this name cannot be used as asked; the message is one line and says what to do."""


def check(folder: Path, *, course: bool = False) -> None:
    """Raise BadName for a folder (an absolute path) that no workspace, or no course, can lie in."""
    path = str(folder)
    if not path.isprintable():  # a line break, an escape of terminals, bytes that are no UTF-8
        raise BadName(f"{ascii(path)} has letters that cannot be printed: choose another name")
    if os.pathsep in path:
        raise BadName(f"{path} has a {os.pathsep}, at which lists of folders are cut: choose another name")
    if os.path.expandvars(path) != path:
        raise BadName(f"{path} has the name of a variable, which Jupyter puts in: choose another name")
    if course and glob.has_magic(path):
        raise BadName(f"{path} has one of * ? [, which nbgrader takes for a pattern: choose another name")


def database_url(file: Path) -> str:
    """The address of an SQLite file as SQLAlchemy, and so nbgrader, reads it: plain wherever that will do."""
    plain = f"sqlite:///{file}"
    if "%" not in plain and "?" not in plain:
        return plain
    from sqlalchemy.engine import URL  # 2.0 takes % as it is, 2.1 as the start of an escape

    return URL.create("sqlite", database=str(file)).render_as_string(hide_password=False)
