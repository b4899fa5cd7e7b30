"""What a command needs beside a student's packages: there, or one line that names the command that brings it.

A function that imports a package of an extra calls `need` first, so that nothing is half-made where it is
missing; tests/test_packaging.py looks for the call. A program is looked for beside this Python, then on PATH.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from pathlib import Path

from autograder.errors import Missing
from autograder.paths import LIBRARY

EXTRAS = {"instructor": ("dask", "distributed", "icalendar", "psycopg")}  # by the names that are imported


def need(*packages: str) -> None:
    """Raise Missing for the first of the packages that this Python has not, before anything is begun."""
    for name in packages:
        if importlib.util.find_spec(name) is None:
            extra = next((extra for extra, names in EXTRAS.items() if name in names), None)
            brings = installing(f"torch-olympics[{extra}]" if extra else name.replace("_", "-"))
            raise Missing(f"the Python package {name} is not installed here; this brings it: {brings}")


def program(name: str, package: str | None = None) -> str:
    """The path of a program that a Python package brings, of its own name where none is given.

    Raises Missing.
    """
    places = [os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        brings = installing(package or name)
        raise Missing(f"the program {name} is not installed here; this brings it: {brings}")
    return found


def installing(what: str) -> str:
    """The command that installs a package for this Python: make's in a clone, where its pins hold."""
    if what.startswith("torch-olympics") and Path(sys.prefix).resolve() == LIBRARY / ".venv":
        return f"make -C {shlex.quote(str(LIBRARY))} demo"
    if importlib.util.find_spec("pip") is None:
        return shlex.join(["uv", "pip", "install", "--python", sys.executable, what])
    return shlex.join([sys.executable, "-m", "pip", "install", what])
