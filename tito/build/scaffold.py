"""A new lesson or a new track to start from: it builds and grades as it stands, and asks to be replaced."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from autograder.files import write_text
from autograder.paths import TEMPLATES
from autograder.scoring import rules
from tito.build.build import course_root
from tito.build.lessons import BuildError, find_lessons
from tito.errors import TitoError

LESSON = re.compile(r"(\d\d)_([a-z][a-z0-9_]{0,40})$")
TRACK = re.compile(r"[a-z][a-z0-9_]{0,40}$")


def new_lesson(name: str, start: Path) -> list[Path]:
    """Write modules/<name>.py and its wrong solutions; returns the files. Raises TitoError."""
    match = LESSON.match(name)
    if match is None:
        raise TitoError(f"{name}: expected a name like 20_smoothing: two digits, then a Python name")
    root = _root(start)
    for lesson in find_lessons(root):
        if match[1] == lesson.number or match[2] == lesson.module:
            raise TitoError(f"{name}: {lesson.file} has that number or name already, choose another")
    known = {"lesson": name, "number": match[1], "name": match[2], "title": _title(match[2])}
    return _write(root, known, {f"modules/{name}.py": "lesson", f"tests/mutants/{name}.py": "mutants"})


def new_track(name: str, start: Path) -> list[Path]:
    """Write olympics_notebooks/<name>.py for a track of the rules table. Raises TitoError."""
    if TRACK.match(name) is None:
        raise TitoError(f"{name}: expected a Python name in small letters, such as noisy")
    if name not in rules.TRACKS:
        raise TitoError(
            f"{name} has no rules yet: give it an entry in TRACKS of autograder/scoring/rules.py first, as "
            "course/instructor/adding.md shows"
        )
    rule = rules.track(name)
    if rule.text:
        raise TitoError(f"{name} reads text: begin with a copy of olympics_notebooks/language.py")
    return _write(
        _root(start), {"name": name, "title": rule.title}, {f"olympics_notebooks/{name}.py": "track"}
    )


def _root(start: Path) -> Path:
    try:
        return course_root(start)
    except BuildError as error:
        raise TitoError(f"{error}: go to the course repository") from error


def _write(root: Path, known: dict[str, str], files: dict[str, str]) -> list[Path]:
    if there := [name for name in files if (root / name).exists()]:
        raise TitoError(f"{there[0]} is there already: choose another name, or edit it")
    for name, template in files.items():
        text = (TEMPLATES / f"{template}.py.txt").read_text(encoding="utf-8")
        write_text(root / name, Template(text).substitute(known))
    return [root / name for name in files]


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
