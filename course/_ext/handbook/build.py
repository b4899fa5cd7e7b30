"""`make book`: the handbook into build/book, unless the one that is there is current.

    python course/_ext/handbook/build.py [--force]

Its pages show what commands print when they run, so any file of the course may change any page, and Sphinx's
own look at the dates of the pages knows nothing of that. The book is current when the contents of all those
files are the same as when it was built, the packages, Python and the settings that the commands see are, too,
and no page has been changed since. It is built beside the old one and takes its place when all went well.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from autograder.files import write_text
from autograder.scratch import scratch_folder

ROOT = Path(__file__).resolve().parents[3]
BOOK = ROOT / "build" / "book"
STAMP = ".current.json"
# everything of the course but what tests alone read; scratch.py copies tests/mutants
FOLDERS = ("autograder", "benchmarks", "course", "modules", "olympics_notebooks", "release", "requirements",
           "source", "tests/mutants", "tinytorch", "tito")  # fmt: skip
_PASSED_BY = {"__pycache__", ".ipynb_checkpoints"}
_SETTINGS = ("LANG", "LC_ALL", "TINYTORCH_", "TITO_")  # names of variables, or how they begin
MADE = b"<!-- made by course/_ext/handbook/pages.py"


def inputs(root: Path) -> str:
    """A digest of all that the book is made of."""
    digest = hashlib.sha256()
    for path in _files(root):
        content = path.read_bytes()
        if not content.startswith(MADE):  # pages that the build writes
            _add(digest, path.relative_to(root).as_posix(), content)
    packages = {f"{one.name} {one.version}" for one in importlib.metadata.distributions()}
    around = [sys.version, platform.platform(), str(shutil.which("bwrap")), *sorted(packages)]
    around += sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_SETTINGS))
    _add(digest, "around", "\n".join(around).encode())
    return digest.hexdigest()


def pages(book: Path) -> str:
    """A digest of a built book."""
    digest = hashlib.sha256()
    for path in sorted(path for path in book.rglob("*") if path.is_file() and path.name != STAMP):
        _add(digest, path.relative_to(book).as_posix(), path.read_bytes())
    return digest.hexdigest()


def current(book: Path, wanted: str) -> bool:
    """Whether this book was made of inputs with this digest, and is as it was made."""
    try:
        stamp = json.loads((book / STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return bool(stamp == {"inputs": wanted, "pages": pages(book)})


def build(root: Path, book: Path, wanted: str) -> int:
    """Build into a folder beside the book, then put it there; the exit code of Sphinx."""
    with scratch_folder("book", book.parent) as place:
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "-E", "-j", "2", "-b", "html"]
        command += ["-d", str(place / "doctrees"), str(root / "course"), str(place / "html")]
        code = subprocess.call(command, cwd=root)
        if code == 0:
            stamp = {"inputs": wanted, "pages": pages(place / "html")}
            write_text(place / "html" / STAMP, json.dumps(stamp) + "\n")
            if book.exists():
                book.rename(place / "old")
            (place / "html").rename(book)
    return code


def _files(root: Path) -> Iterator[Path]:
    yield from sorted(path for path in root.iterdir() if path.is_file() and not path.name.startswith("."))
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and not _PASSED_BY & set(path.relative_to(root).parts):
                yield path


def _add(digest: hashlib._Hash, name: str, content: bytes) -> None:
    digest.update(f"{name}\0{len(content)}\0".encode() + content)


def main() -> int:
    """The command line."""
    ask = argparse.ArgumentParser(description="Build the handbook, unless it is current.")
    ask.add_argument("--force", action="store_true", help="build it anew")
    options = ask.parse_args()
    BOOK.parent.mkdir(exist_ok=True)
    with (BOOK.parent / ".book.lock").open("w", encoding="utf-8") as lock:  # two builds write the same pages
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = inputs(ROOT)
        if current(BOOK, wanted) and not options.force:
            print("the handbook is current: build/book/index.html (anew: make book BOOK=--force)")
            return 0
        print("building the handbook: some minutes, every command in it is executed", flush=True)
        code = build(ROOT, BOOK, wanted)
    if code == 0:
        print("the handbook: build/book/index.html")
    return code


if __name__ == "__main__":
    sys.exit(main())
