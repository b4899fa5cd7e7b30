"""Fixtures that several test files share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from autograder import sandbox

# What a `make PYTHON=... test` hands down is for its own commands: a make that a test starts is a user's.
for name in ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "PYTHON"):
    os.environ.pop(name, None)

# A test that opens a gradebook itself needs alembic, which nbgrader calls by its bare name.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

# In CI the same examples every time: a red run then means a change, and new examples are tried at the desk.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(params=sandbox.LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    """Every sandbox level in turn; those that this machine cannot give are skipped."""
    if request.param not in sandbox.available():
        pytest.skip(f"no {request.param} on this machine")
    return request.param


@pytest.fixture(scope="session")
def ordinary_user() -> list[str]:
    """The start of a command line: a Python that can import autograder, run as a user without rights."""
    setpriv = shutil.which("setpriv")
    if os.getuid() != 0 or not setpriv:
        pytest.skip("this run is an ordinary user's already, or cannot become one")
    drop = [setpriv, "--reuid", "65534", "--regid", "65534", "--clear-groups", "env", "HOME=/tmp"]
    root = str(Path(__file__).parent.parent)
    probe = f"import sys; sys.path.insert(0, {root!r}); assert sys.version_info >= (3, 11)"
    probe += "; import autograder.sandbox"
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        command = [*drop, python, "-B"]
        if subprocess.run([*command, "-c", probe], capture_output=True).returncode == 0:
            return command
    pytest.skip("no Python that another user could start")
