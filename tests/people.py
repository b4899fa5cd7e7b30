"""People with accounts of their own, for tests of what is shared: real user ids, and no account is made.

Each process of a person runs as a user without rights, in a mount namespace with one more line in /etc/passwd
and with this environment's packages within a Python that everybody may start. That needs root; elsewhere the
tests skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from autograder.scratch import scratch_folder

ROOT = Path(__file__).resolve().parent.parent
FIRST_UID = 61000
_ENTER = 'while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 99; shift 2; done; shift; exec "$@"'


@dataclass(frozen=True)
class Person:
    """A user `name` with the id `uid` and the folder `home` in the shared folder `house`."""

    name: str
    uid: int
    home: Path
    house: Path

    def command(self, *words: str | Path, keep: bool = False, **env: str) -> list[str]:
        """A command line that runs `python words...` as this person; `keep` passes the environment on."""
        settings = [f"{key}={value}" for key, value in {**self.environment(), **env}.items()]
        return [*_enter(self.house), "setpriv",
                "--reuid", str(self.uid), "--regid", str(self.uid), "--clear-groups",
                "env", *([] if keep else ["-i"]), *settings,
                str(self.house / "env" / "bin" / "python"), *map(str, words)]  # fmt: skip

    def environment(self) -> dict[str, str]:
        own = {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name}
        return {**own, **_environment(self.house)}

    def run(self, *words: str | Path, cwd: Path | None = None, code: int = 0) -> str:
        """Run `python words...` and return what it prints; fails the test on another exit code."""
        done = subprocess.run(self.command(*words), cwd=cwd or self.home, capture_output=True, text=True,
                              check=False)  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == code, f"{self.name}: {' '.join(map(str, words))}: {said}"
        return said


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A temporary folder that everybody may enter, with a Python in env/; skips the test where it cannot be.

    pytest's own folders do not serve: they are closed to others whenever a session begins.
    """
    if os.getuid() != 0 or not shutil.which("setpriv") or not shutil.which("unshare"):
        pytest.skip("only root can act as several people")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make a mount namespace")
    with scratch_folder("people") as house:
        house.chmod(0o755)
        _make_python(house)
        yield house


def _make_python(house: Path) -> None:
    """An environment of a Python outside of /root, of this one's version, where packages can be mounted."""
    asked = ["setpriv", "--reuid", str(FIRST_UID), "--regid", str(FIRST_UID), "--clear-groups", "env"]
    for python in (sys.base_prefix + "/bin/python3", "/usr/bin/python3", "/usr/local/bin/python3"):
        probe = [*asked, python, "-c", "import sys; print(sys.version_info[:2])"]
        done = subprocess.run(probe, capture_output=True, text=True, check=False)
        if done.stdout.strip() == str(sys.version_info[:2]):
            break
    else:
        pytest.skip("no Python of this version that another user could start")
    made = subprocess.run(
        [python, "-m", "venv", "--without-pip", house / "env"], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"{python} makes no environment: {made.stderr.decode()[-200:]}")
    for name in ("share", "etc"):
        (house / "env" / name).mkdir(exist_ok=True)
    shutil.copy(Path(sys.prefix) / "bin" / "ruff", house / "env" / "bin")  # a program, not a package
    for name in ("alembic", "jupyter"):  # which nbgrader and JupyterLab start by their names
        module = {"alembic": "alembic", "jupyter": "jupyter_core"}[name]
        program = house / "env" / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {house}/env/bin/python -m {module} "$@"\n')
        program.chmod(0o755)


def root_command(house: Path, *words: str | Path, **env: str) -> list[str]:
    """A command line that runs `python words...` as root where these people have their accounts."""
    python = house / "env" / "bin" / "python"
    settings = [f"{key}={value}" for key, value in {**_environment(house), **env}.items()]
    return [*_enter(house), "env", "-i", *settings, str(python), *map(str, words)]


def _environment(house: Path) -> dict[str, str]:
    return {
        "LANG": "C.UTF-8", "PATH": f"{house / 'env' / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip


def _enter(house: Path) -> list[str]:
    return ["unshare", "--mount", "bash", "-c", _ENTER, "person", *_mounts(house), "--"]


def _mounts(house: Path) -> list[str]:
    """Pairs of what is mounted and where: the accounts, what they share, and this environment's packages."""
    ours, theirs = Path(sysconfig.get_paths()["purelib"]), house / "env" / "lib"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    over = {"passwd": "/etc/passwd", "shadow": "/etc/shadow", "group": "/etc/group", "srv": "/srv"}
    pairs = [(house / name, Path(place)) for name, place in over.items() if (house / name).exists()]
    pairs += [(ours, theirs / version / "site-packages")]
    pairs += [(Path(sys.prefix) / name, house / "env" / name) for name in ("share", "etc")]
    return [str(path) for pair in pairs for path in pair]


def people(house: Path, *names: str) -> list[Person]:
    """One person for each name, with a home in a shared folder."""
    passwd = house / "passwd"
    lines = [f"{name}:x:{uid}:{uid}::{house / name}:/bin/bash" for uid, name in enumerate(names, FIRST_UID)]
    known = Path("/etc/passwd").read_text(encoding="utf-8").rstrip("\n")
    passwd.write_text("\n".join([known, *lines]) + "\n")
    passwd.chmod(0o644)
    found = []
    for uid, name in enumerate(names, FIRST_UID):
        home = house / name
        home.mkdir(mode=0o700)
        os.chown(home, uid, uid)
        found.append(Person(name, uid, home, house))
    return found


def passwords(house: Path, password: str, group: str, members: list[Person], others: list[Person]) -> None:
    """Let people log in with a password, the members in a group, and give all an empty /srv of their own."""
    hashed = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=password, capture_output=True,
                            text=True, check=True).stdout.strip()  # fmt: skip
    (house / "shadow").write_text("".join(f"{one.name}:{hashed}:::::::\n" for one in [*members, *others]))
    (house / "shadow").chmod(0o600)
    own = "".join(f"{one.name}:x:{one.uid}:\n" for one in [*members, *others])
    own += f"{group}:x:{FIRST_UID - 1}:{','.join(one.name for one in members)}\n"
    (house / "group").write_text(Path("/etc/group").read_text(encoding="utf-8").rstrip("\n") + "\n" + own)
    (house / "group").chmod(0o644)
    (house / "srv").mkdir(mode=0o755)


def give(person: Person, *paths: Path) -> None:
    """Make the person the owner of files and folders."""
    for path in paths:
        for found in (path, *path.rglob("*")):
            os.chown(found, person.uid, person.uid)
