"""A course to teach, in a folder of its own: notebooks, settings, dates, gradebook, roster, rubric.

What is there already is never written over; run again, it adds what is missing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell, new_notebook

from autograder import folders
from autograder.files import write_text
from autograder.gradebook import levels
from autograder.paths import TEMPLATES
from autograder.term import schedule as plans
from autograder.term.roster import Person
from tito.errors import TitoError
from tito.instructor.grading import counted
from tito.student.workspace import repository

COURSE_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,63}$")  # nbgrader makes a folder of it
DOCUMENTS = ("rubric.md", "language_rubric.md", "grading.md", "tinytalks.md")
_IGNORED = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.pyc")


@dataclass(frozen=True)
class Wish:
    """What the course shall be: its name, where its lessons come from, who takes it, and when."""

    name: str
    lessons: Path
    exchange: Path | None = None
    people: Sequence[Person] = ()
    schedule: Path | None = None
    planned: plans.Plan | None = None
    skip: Sequence[str] = ()


def lessons_folder(given: Path | None) -> Path:
    """The repository or bundle that lessons come from: source/ and tinytorch/. Raises TitoError."""
    home = given or repository()
    if home is None or not any((home / "source").glob("*/*.ipynb")) or not (home / "tinytorch").is_dir():
        raise TitoError(
            f"{home or 'this tito'} has no lessons with solutions: name the course repository or an "
            "instructor bundle, a folder with source/ and tinytorch/, as --lessons FOLDER"
        )
    return home.resolve()


def make(root: Path, wish: Wish) -> list[str]:
    """Make the course, or add what it lacks; returns what was added, in words. Raises TitoError."""
    root, home = root.expanduser().resolve(), repository()
    folders.check(root, course=True)
    exchange = _exchange(root, wish)
    folders.check(exchange, course=True)
    if not COURSE_ID.match(wish.name):
        raise TitoError(f"--name {wish.name!r}: expected letters, digits and . - _, such as dl-2027")
    if root.exists() and not root.is_dir():
        raise TitoError(f"{root} is a file: name a folder for the course")
    if home is not None and (root == home or home in root.parents):
        raise TitoError(
            f"{root} is in the course repository: a course holds students' work, put it elsewhere"
        )
    try:
        if exchange.is_dir():  # it may be open to others: that is said before anything is made
            levels.make(levels.Exchange(exchange, wish.name))
        if not root.exists():  # solutions and students' work: nothing for the machine's other accounts
            root.mkdir(mode=0o700, parents=True)
        added = _lessons(root, wish.lessons)
        added += _files(root, wish)
    except OSError as error:
        raise TitoError(f"cannot write the course {root}: {error.strerror or error}") from error
    return added + _gradebook(root, wish)


def _lessons(root: Path, home: Path) -> list[str]:
    added = []
    for path in sorted((home / "source").glob("*/*.ipynb")):
        name = path.parent.name
        if path.stem == name and not (root / "source" / name).exists():
            _copy_folder(path.parent, root / "source" / name)
            added.append(name)
    if not (root / "tinytorch").exists():
        _copy_folder(home / "tinytorch", root / "tinytorch")
    return [f"{len(added)} notebooks in source/"] if added else []


def _exchange(root: Path, wish: Wish) -> Path:
    return wish.exchange.expanduser().resolve() if wish.exchange else root / "exchange"


def _files(root: Path, wish: Wish) -> list[str]:
    exchange = _exchange(root, wish)
    levels.make(levels.Exchange(exchange, wish.name))
    place = repr(str(exchange)) if wish.exchange else 'str(ROOT / "exchange")'
    known = {"name": wish.name, "exchange": place, "weeks": _weeks(wish)}
    texts = {
        "nbgrader_config.py": _template("nbgrader_config.py.txt", known),
        "README.md": _template("README.md", known),
        "source/header.ipynb": nbformat.writes(_header(_template("header.md", known))) + "\n",
        "pseudonyms.csv": "student,pseudonym\n" + "".join(f"{person.id},\n" for person in wish.people),
        "course/deadlines.toml": _deadlines(wish),
    }
    if wish.schedule is not None:
        text = wish.schedule.read_text(encoding="utf-8")
        if wish.planned is not None:
            text = plans.with_start(text, wish.planned.start, wish.planned.zone.key, wish.skip)
        texts["course/schedule.toml"] = text
    for name in DOCUMENTS:
        if (wish.lessons / "course" / name).is_file():
            texts[f"course/{name}"] = (wish.lessons / "course" / name).read_text(encoding="utf-8")
    added = []
    for name, text in texts.items():
        if not (root / name).exists():
            write_text(root / name, text)
            added.append(name)
    return added


def _gradebook(root: Path, wish: Wish) -> list[str]:
    """Assignments with due dates, and the class; what the gradebook has already stays as it is."""
    from nbgrader.api import Gradebook

    from autograder.course import Course
    from autograder.gradebook import deadlines, records

    names = sorted(path.parent.name for path in (root / "source").glob("*/*.ipynb"))
    place = Course.at(root)
    due = deadlines.load(root)
    with Gradebook(records.nbgrader_config(place).CourseDirectory.db_url) as gradebook:
        known = {found.name: found.duedate for found in gradebook.assignments}
        new = [name for name in names if name not in known]
        for name in names:
            if known.get(name) is None:
                deadlines.enter(due, gradebook, name, [])
        there = {student.id for student in gradebook.students}
        people = [person for person in wish.people if person.id not in there]
        for person in people:
            about = {field: text for field, text in vars(person).items() if field != "id" and text}
            gradebook.update_or_create_student(person.id, **about)
    found = {"assignment": len(new), "student": len(people)}
    return [f"{counted(number, what)} in the gradebook" for what, number in found.items() if number]


def _deadlines(wish: Wish) -> str:
    from autograder.term.due_dates import with_due

    text = (TEMPLATES / "deadlines.toml").read_text(encoding="utf-8")
    here = {path.parent.name for path in (wish.lessons / "source").glob("*/*.ipynb")}
    due = wish.planned.due() if wish.planned is not None else {}
    return with_due(text, {name: when for name, when in due.items() if name in here})


def _weeks(wish: Wish) -> str:
    """The weeks as commands, for the course's README."""
    if wish.schedule is None:
        return "No schedule yet: `tito course schedule --weeks 8 --start 2027-01-11 --apply` makes dates.\n"
    schedule = plans.load(wish.schedule)
    here = {path.parent.name for path in (wish.lessons / "source").glob("*/*.ipynb")}
    blocks = []
    for number, week in enumerate(schedule.weeks, start=1):
        names = " ".join(item.name for item in week.items if item.name in here)
        start = f", from {wish.planned.weeks[number - 1]}" if wish.planned is not None else ""
        release = f"    tito release {names} --publish\n" if names else "    (nothing new this week)\n"
        blocks.append(f"**Week {number}{start}: {week.title}**\n\n{release}")
    return "\n".join(blocks)


def _header(text: str) -> Any:
    return new_notebook(cells=[new_markdown_cell(text, id="course-header")])


def _template(name: str, known: dict[str, str]) -> str:
    return Template((TEMPLATES / name).read_text(encoding="utf-8")).substitute(known)


def _copy_folder(source: Path, target: Path) -> None:
    """All of it or nothing: copied beside its place, then moved there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copytree(source, draft, ignore=_IGNORED)
    os.replace(draft, target)
