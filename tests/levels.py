"""A short class at every sandbox level, without bubblewrap, and as an ordinary user: `make levels`.

The course is copied into a folder with an odd name and gets an environment of its own, as a new user's clone
does; there `tito demo --short` releases, trains, grades, scores and exports. What is not to be had on this
machine is left out, and a line says so. Started by root, the last class is an ordinary user's.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from autograder import sandbox
from autograder.scratch import scratch_folder

ROOT = Path(__file__).resolve().parent.parent
ODD = "Kurs #1 größe 100%"
NOBODY = "65534"  # the ordinary user's number
PYTHONS = (str(Path(sys.executable).resolve()), "/usr/bin/python3", "/usr/local/bin/python3")


def main() -> None:
    """Run them all; exits with 1 where a class does not end as it must."""
    begin = time.monotonic()
    there = sandbox.available()
    for level in sandbox.LEVELS:
        if level not in there:
            say(f"{level}: left out, {sandbox.why_not(level) or 'not to be had here'}")
    with workplace() as folder:
        clone = folder / ODD
        copy_course(clone)
        python = environment(clone, sys.executable)
        if "bubblewrap" in there:  # without it, the next level is taken by itself
            path = path_without("bwrap", folder / "without")
            short_class("bwrap hidden from PATH", python, clone, there[1], {"PATH": path})
        done = {there[1]} if "bubblewrap" in there else set()
        for level in [level for level in there[1:] if level not in done]:
            short_class(f"{sandbox.SETTING}={level}", python, clone, level, {sandbox.SETTING: level})
        if ordinary(folder, clone) != there[0]:
            if os.getuid() == 0:
                shutil.rmtree(clone)
                copy_course(clone)
                python = environment(clone, sys.executable)
            short_class("the strongest level here", python, clone, there[0], {})
    say(f"all of them passed, {time.monotonic() - begin:.0f} s")


def ordinary(folder: Path, clone: Path) -> str:
    """The strongest level as a user without rights, in a clone of that user; says at which it was, or ""."""
    setpriv = shutil.which("setpriv")
    if os.getuid() != 0:
        say(f"an ordinary user's class: each of these is, uid {os.getuid()}")
        return ""
    become = [str(setpriv), "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    become.append("env")  # what setpriv itself starts, it still finds as root
    base = next((python for python in PYTHONS if setpriv and starts([*become, python])), None)
    if base is None:
        say("an ordinary user's class: left out, no setpriv, or no Python of 3.11 or newer for other users")
        return ""
    shutil.rmtree(clone)
    copy_course(clone)
    python = [*become, *environment(clone, base)]
    home = folder / "home"
    home.mkdir()
    for path in (home, clone, *(path for path in clone.rglob("*") if ".venv" not in path.parts)):
        os.chown(path, int(NOBODY), int(NOBODY), follow_symlinks=False)
    probe = [*python, "-c", "from autograder import sandbox; print(sandbox.best_level())"]
    told = {"HOME": str(home)}
    done = subprocess.run(probe, cwd=clone, env=clean(told), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"levels: an ordinary user cannot start this environment: {done.stderr}")
    level = done.stdout.strip()
    short_class("an ordinary user", python, clone, level, told)
    return level


def short_class(what: str, python: Sequence[str], clone: Path, level: str, told: Mapping[str, str]) -> None:
    """One run of the demo; it must be at this level, and give what it gives everywhere."""
    begin = time.monotonic()
    command = [*python, "-m", "tito", "demo", "--short", "--no-build", "--json"]
    done = subprocess.run(
        command, cwd=clone, env=clean(told), capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode:
        raise SystemExit(f"levels: {what}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    found = json.loads(done.stdout)
    grades = {(grade["student"], grade["assignment"]): grade for grade in found["grades"]}
    said = []
    for student, assignment in sorted(grades):
        grade = grades[student, assignment]
        said.append(f"{student} {grade['points']:g} of {grade['max_points']:g} in {assignment}")
        expected = {"ada": grade["max_points"] if assignment != "vision" else 70, "vic": 0}[student]
        if grade["points"] < expected or (student == "vic" and grade["points"]) or grade["level"] != level:
            raise SystemExit(f"levels: {what}: expected level {level} and {expected} points: {grade}")
    if not Path(found["page"]).is_file():
        raise SystemExit(f"levels: {what}: there is no {found['page']}")
    say(f"{what}: level {level}, {', '.join(said)}; {time.monotonic() - begin:.0f} s")


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder that another user may enter."""
    with scratch_folder("levels") as made:
        folder = made.resolve()
        folder.chmod(0o755)
        yield folder


def copy_course(clone: Path) -> None:
    """What git knows or would add, as a clone of its own without git."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, names)):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)


def environment(clone: Path, base: str) -> list[str]:
    """The pinned packages in the clone's .venv, by uv; returns the start of a command line."""
    uv = [sys.executable, "-m", "uv"]
    python = str(clone / ".venv" / "bin" / "python")
    install = [*uv, "pip", "install", "-q", "-p", python, "--no-deps"]
    for command in (
        [*uv, "venv", "-q", "-p", base, str(clone / ".venv")],
        [*install, "--require-hashes", "-r", "requirements/build.txt", "-r", "requirements/run.txt"],
        [*install, "--no-build-isolation", "-e", "."],
    ):
        done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"levels: {' '.join(command[3:5])} failed: {done.stderr.strip()}")
    return [python]


def starts(python: Sequence[str]) -> bool:
    """Whether this command line starts a Python that is new enough."""
    probe = "import sys; assert sys.version_info >= (3, 11)"
    return subprocess.run([*python, "-c", probe], capture_output=True).returncode == 0


def path_without(program: str, folder: Path) -> str:
    """PATH with links to all that its folders hold, but for one program."""
    places = []
    for number, place in enumerate(filter(os.path.isdir, os.environ["PATH"].split(os.pathsep))):
        if program in os.listdir(place):
            links = folder / str(number)
            links.mkdir(parents=True)
            for name in os.listdir(place):
                if name != program:
                    (links / name).symlink_to(Path(place, name))
            place = str(links)
        places.append(place)
    return os.pathsep.join(places)


def clean(told: Mapping[str, str]) -> dict[str, str]:
    """This environment without a level of its own, and with what is told."""
    return {name: value for name, value in os.environ.items() if name != sandbox.SETTING} | dict(told)


def say(line: str) -> None:
    """One line, at once."""
    print(f"levels: {line}", flush=True)


if __name__ == "__main__":
    main()
