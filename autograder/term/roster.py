"""Who takes the course: rosters as nbgrader, Canvas and Moodle write them, one record a person."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autograder.course import STUDENT
from autograder.errors import GradingError

# What a column may be called, lower case; the first that is there counts.
COLUMNS = {
    "id": ("id", "student", "username", "sis login id", "login"),
    "first_name": ("first_name", "first name", "firstname", "given name"),
    "last_name": ("last_name", "last name", "lastname", "surname"),
    "email": ("email", "email address", "e-mail"),
    "lms_user_id": ("lms_user_id", "id number", "sis user id"),
}
CANVAS = ("Student", "ID")
MOST_BYTES = 20_000_000


@dataclass(frozen=True)
class Person:
    """One of the class. `id` is the name in submitted/; `lms_user_id` what Canvas or Moodle calls them."""

    id: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    lms_user_id: str = ""


def read(path: Path) -> list[Person]:
    """The people of a roster. Raises GradingError that names the line to mend.

    The header of nbgrader's own import (id, first_name, last_name, email, lms_user_id), of Moodle's list of
    participants, or of Canvas's exported gradebook.
    """
    header, rows = table(path)
    canvas = all(name in header for name in CANVAS)
    people: dict[str, Person] = {}
    for line, row in rows:
        person = _of_canvas(row) if canvas else _of_columns(row)
        if person is None:
            continue
        if not STUDENT.match(person.id):
            raise GradingError(
                f"{path}, line {line}: {person.id[:40]!r} cannot be a student's name: expected letters, "
                "digits and @ . - _"
            )
        if person.id in people:
            raise GradingError(f"{path}, line {line}: {person.id} stands there twice: every name stands once")
        people[person.id] = person
    if not people:
        wanted = ", ".join(COLUMNS)
        raise GradingError(f"{path} names nobody: expected a header such as {wanted}, and a line a student")
    return list(people.values())


def table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and rows of a CSV file, the rows with their line numbers. Raises GradingError."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise GradingError(f"{path} has more than {MOST_BYTES // 1_000_000} MB: that is no roster")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise GradingError(f"{path} cannot be read ({error.strerror}): name the roster") from None
    except UnicodeDecodeError:
        raise GradingError(f"{path} is not UTF-8 text: save it as CSV in UTF-8") from None
    first = text.splitlines()[0] if text.strip() else ""
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        rows = [
            (reader.line_num, {name: cells[k] if k < len(cells) else "" for k, name in enumerate(header)})
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        raise GradingError(f"{path}, line {reader.line_num} is not CSV ({error}): mend that line") from None
    return header, rows


def canvas_person(row: Mapping[str, str]) -> bool:
    """Whether a row of Canvas's gradebook is a student, not the points possible or its test student."""
    name = row.get("Student", "").strip()
    return bool(row.get("ID", "").strip()) and name.lower() not in ("points possible", "student, test")


def _of_canvas(row: Mapping[str, str]) -> Person | None:
    if not canvas_person(row):
        return None
    last, _, first = row["Student"].partition(",")
    name = row.get("SIS Login ID", "").strip() or row.get("SIS User ID", "").strip() or row["ID"].strip()
    return Person(name, first.strip(), last.strip(), lms_user_id=row["ID"].strip())


def _of_columns(row: Mapping[str, str]) -> Person:
    known = {name.lower(): text.strip() for name, text in row.items()}
    return Person(
        **{
            field: next((known[name] for name in names if known.get(name)), "")
            for field, names in COLUMNS.items()
        }
    )
