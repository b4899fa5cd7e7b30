"""The Makefile's hand: bring .venv to what requirements/GROUP.txt pins, hashes and all, and stamp it.

    python3 requirements/install.py GROUP [--asked]

uv comes first and does the rest; where it is not to be had, pip does, and one line says so. A stamp,
.venv/GROUP.stamp, names what was installed (digest, folder) and is written last, so that a run that failed or
was ended is done again and one with nothing to do touches no network. --asked: the Python that runs this was
asked for by name, and an environment of another one is made anew; the old one comes back where that fails.
Must parse on old Pythons: that they are too old is the first thing it says.
"""

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

OLDEST = (3, 11)
HERE = "{}.{}".format(*sys.version_info[:2])
VENV = Path(".venv")
OLD = Path(".venv.old")
PYTHON = VENV / "bin" / "python"
PINS = Path("requirements")
EVERY = 5  # seconds between two lines while a step is under way
FAULT = re.compile(r"(?i)(uv: )?error|.*(refused|no space|denied)")  # the line that says why
NO_DEPS = ["--no-deps", "--require-hashes"]  # the pins are whole: a test holds them so
# how uv is told what pip's settings say; its own settings go first
MIRRORS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
}
UV_SETTINGS = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX")


class Failed(Exception):
    """What could not be done, in one line."""


def main():
    """Exit 0 when .venv holds the group; 2, after one line, when it cannot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("group", help="run, dev, book, browser or hub")
    parser.add_argument("--asked", action="store_true", help="this Python was asked for by name")
    chosen = parser.parse_args()
    try:
        bring(chosen.group, chosen.asked)
    except (Failed, OSError) as error:
        print(f"make: {error}", file=sys.stderr)
        sys.exit(2)


def bring(group, asked):
    """Make the environment where there is none of use, install the group, stamp it."""
    stamp = VENV / f"{group}.stamp"
    if OLD.exists():  # of a run that was ended while it made a new one
        back()
    reason = why_anew(asked)
    if not reason and PYTHON.exists() and text_of(stamp) == wanted(group):
        return
    if reason or not PYTHON.exists():
        make(reason)
    try:
        install(group)
    except BaseException:
        if OLD.exists():
            back()
        raise
    stamp.write_text(wanted(group), encoding="utf-8")
    shutil.rmtree(str(OLD), ignore_errors=True)


def wanted(group):
    """A stamp's text: the digest of what is pinned and how it is installed, and the folder it is for."""
    digest = hashlib.sha256()
    for path in (*pins(group), Path("pyproject.toml"), Path(__file__)):
        digest.update(path.read_bytes())
    return f"{digest.hexdigest()} {Path.cwd()}\n"


def pins(group):
    """The files of pins of a group; `run` brings what builds the course itself."""
    return [PINS / f"{name}.txt" for name in (("build", "run") if group == "run" else (group,))]


# ---- the environment


def why_anew(asked):
    """Why the environment that is there is of no use; "" where it is, or where there is none."""
    if not VENV.exists():
        return ""
    if not os.access(str(PYTHON), os.X_OK):
        return "its Python is gone"
    found = re.search(r"^version(?:_info)? *= *(\d+)\.(\d+)", text_of(VENV / "pyvenv.cfg"), re.M)
    if asked and found and tuple(map(int, found.groups())) != sys.version_info[:2]:
        return f"it is of Python {'.'.join(found.groups())}, and {HERE} is asked for"
    folder = text_of(VENV / "run.stamp").strip().partition(" ")[2]
    if folder and Path(folder) != Path.cwd():
        return f"it was made for {folder}"
    return ""


def make(reason):
    """A fresh .venv with pip; nothing is left, and what was there is back, where that fails."""
    if sys.version_info < OLDEST:
        least = ".".join(map(str, OLDEST))
        raise Failed(f"Python {HERE} is too old; {least} or newer is needed: make PYTHON=python{least} demo")
    lacks = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if lacks:
        raise Failed(
            f"Python {HERE} makes no virtual environment here, since it has no {lacks[0]}; bring it: "
            f"sudo apt-get install python{HERE}-venv"
        )
    if subprocess.run([sys.executable, "-m", "tito.doctor"]).returncode:  # it says first what cannot work
        sys.exit(2)  # what is there stays in its place
    if reason:
        say(f"{VENV} is made anew: {reason}")
        os.replace(str(VENV), str(OLD))
    say(f"making {VENV} with Python {HERE}")
    try:
        step([sys.executable, "-m", "venv", str(VENV)], "making it")
    except BaseException:
        shutil.rmtree(str(VENV), ignore_errors=True)
        if OLD.exists():
            back()
        raise


def back():
    """The environment of before, in its place again."""
    shutil.rmtree(str(VENV), ignore_errors=True)
    os.replace(str(OLD), str(VENV))


# ---- the packages


def install(group):
    """The pins of a group by uv, else by pip; with `run` the course itself, in place."""
    files = [word for path in pins(group) for word in ("-r", str(path))]
    own = ["--no-deps", "--no-build-isolation", "-e", "."] if group == "run" else []
    try:
        program = uv()
        say(f"installing the pins of {', '.join(path.name for path in pins(group))} with uv")
        step([*program, *mirror(), "--compile-bytecode", *NO_DEPS, *files], "installing")
    except Failed as error:
        say(f"uv is not to be had here ({error}); pip takes its place, and minutes for its seconds")
        program = pip()
        step([*program, *NO_DEPS, *files], "installing")
    if own:
        step([*program, *own], "installing the course")


def uv():
    """uv's install, after bringing the pinned uv itself. Raises Failed."""
    program = VENV / "bin" / "uv"
    if not program.exists():
        step([*pip(), *NO_DEPS, "--only-binary", ":all:", "-r", str(PINS / "uv.txt")], "fetching uv")
    return [str(program), "pip", "install", "-q", "-p", str(PYTHON)]


def pip():
    """pip's install, in the environment."""
    return [str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check"]


def mirror():
    """uv's words for a mirror that pip is set to in place of PyPI, since uv reads no setting of pip's."""
    if any(os.environ.get(name) for name in UV_SETTINGS):
        return []
    done = subprocess.run(
        [str(PYTHON), "-m", "pip", "config", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    found = re.findall(r"^(?:global|install|:env:)\.([a-z-]+)='(.*)'$", done.stdout, re.M)
    if not {"index-url", "no-index"} & {name for name, _ in found}:
        return []  # what is beside PyPI is not needed, and uv stops at an address that pip passes over
    words = ["--index-strategy", "unsafe-best-match"]  # the hashes say which file is the right one
    for name, value in found:
        if name == "no-index" and value.lower() in ("1", "true", "yes", "on"):
            words.append("--no-index")
        elif name in MIRRORS:
            for place in value.replace("\\n", " ").split():
                words += [MIRRORS[name], place]
    return words


# ---- one step, never silent


def step(command, doing):
    """Run one program; a line every few seconds says that it still does. Raises Failed with its last line."""
    begun = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    try:
        while True:
            try:
                said, _ = process.communicate(timeout=EVERY)
                break
            except subprocess.TimeoutExpired:
                say(f"... still {doing}, {time.monotonic() - begun:.0f} s")
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
        raise Failed(f"{Path(command[0]).name}: {next(filter(FAULT.match, lines), lines[-1])}")


def say(line):
    """One line, at once."""
    print(f"make: {line}", file=sys.stderr)
    sys.stderr.flush()


def text_of(path):
    """A small file's text, "" where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    main()
