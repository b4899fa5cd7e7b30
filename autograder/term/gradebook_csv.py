"""Marks as CSV: for a spreadsheet, for Canvas's gradebook import and for Moodle's grade import.

Canvas reads Student, ID, SIS User ID, SIS Login ID, Section, then a column an assignment, `name (id)` for
one that it knows, and in the second line the points possible. Moodle matches a user by email address, ID
number or username, and takes a grade and a feedback column an assignment, which its import page maps.

A mark that is not there is an empty cell. Text that a spreadsheet would run as a formula gets an apostrophe.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder.errors import GradingError
from autograder.term import marks, roster
from autograder.term.course_grade import Grade
from autograder.term.marks import Class, Mark

CANVAS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
MOODLE = {"email": "Email address", "idnumber": "ID number", "username": "Username"}
NAMES = ("First name", "Last name")
KNOWN_ID = re.compile(r"(.+?)\s*\((\d+)\)\s*$")  # Canvas: assignment (its number)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@dataclass(frozen=True)
class Column:
    """A column of marks: its heading, the points possible, and each student's points and remark."""

    name: str
    most: float
    points: Mapping[str, float | None]
    remarks: Mapping[str, str]


def columns(found: Class, grades: Sequence[Grade], what: str = "assignments") -> list[Column]:
    """The columns to export: assignments that are released, the four parts and the total, or both."""
    made = []
    if what in ("assignments", "both"):
        for name, most in sorted(found.assignments.items()):
            if most:
                own = {student: marks_[name] for student, marks_ in found.marks.items()}
                made.append(
                    Column(
                        name, most,
                        {student: mark.points for student, mark in own.items()},
                        {student: remark(mark) for student, mark in own.items()},
                    )
                )  # fmt: skip
    if what in ("parts", "both"):
        for part, most in ((name, part.most) for name, part in (grades[0].parts.items() if grades else ())):
            made.append(
                Column(
                    part, most,
                    {g.student: g.parts[part].points if g.parts[part].final else None for g in grades},
                    {g.student: g.parts[part].why for g in grades},
                )
            )  # fmt: skip
        whole = sum(column.most for column in made[-4:])
        final = {g.student: g.total if g.final else None for g in grades}
        made.append(Column("course total", whole, final, {}))
    return made


def remark(mark: Mark) -> str:
    """A mark in words, for a feedback column."""
    if mark.state == marks.GRADED:
        late = f", after {mark.late:g} points taken off for lateness" if mark.late else ""
        return f"{mark.earned:g} of {mark.most:g} points{late}"
    return mark.state


def plain(found: Class, what: Sequence[Column]) -> tuple[str, list[str]]:
    """A line a student, for a spreadsheet; and what to tell the reader."""
    rows = [
        [student, *found.students[student][:3], *(column.points.get(student) for column in what)]
        for student in found.students
    ]
    head = ["student", "first name", "last name", "email", *(column.name for column in what)]
    return _text([head, *rows]), _waiting(what, found.students)


def canvas(found: Class, what: Sequence[Column], path: Path | None = None) -> tuple[str, list[str]]:
    """For Canvas's import: with the columns of a gradebook exported from there (`path`), or of our own.

    Raises GradingError for a file that is no such export.
    """
    said = _waiting(what, found.students)
    if path is None:
        rows: list[tuple[str, list[str]]] = []
        for student, (first, last, _, number) in found.students.items():
            shown = ", ".join(filter(None, (last, first))) or student
            rows.append((student, [shown, number, "", student, ""]))
        head, titles = list(CANVAS), {column.name: column.name for column in what}
        said.append(
            "no --roster: Canvas finds students by SIS Login ID; export its gradebook and name it, to be sure"
        )
    else:
        header, lines = roster.table(path)
        if not all(name in header for name in ("Student", "ID")):
            raise GradingError(f"{path} is no gradebook of Canvas: expected the columns {', '.join(CANVAS)}")
        known = [KNOWN_ID.match(name) for name in header]
        ends = header.index("Section") + 1 if "Section" in header else header.index("ID") + 1
        head = header[:ends]
        titles = {match[1]: match[0] for match in known if match}
        keys = ("SIS Login ID", "SIS User ID", "ID")
        people = [row for _, row in lines if roster.canvas_person(row)]
        pairs, lost = _matched(found, people, keys)
        said += lost
        rows = [(student, [row[name] for name in head]) for student, row in pairs]
    table: list[list[Any]] = [[*head, *(titles.get(column.name, column.name) for column in what)]]
    possible = ["    Points Possible", *[""] * (len(head) - 1)]
    table.append([*possible, *(column.most for column in what)])
    for student, cells in rows:
        table.append([*cells, *(column.points.get(student) for column in what)])
    return _text(table), said + _strange(rows)


def moodle(
    found: Class, what: Sequence[Column], identity: str = "email", path: Path | None = None
) -> tuple[str, list[str]]:
    """For Moodle's import: students by `identity` (email, idnumber, username), as `path` spells them, or we.

    Raises GradingError for a roster without that column.
    """
    said, key = _waiting(what, found.students), MOODLE[identity]
    rows: list[tuple[str, list[str]]] = []
    if path is None:
        for student, (first, last, email, number) in found.students.items():
            who = {"email": email, "idnumber": number, "username": student}[identity]
            rows.append((student, [who, first, last]))
    else:
        header, lines = roster.table(path)
        spelled = next((name for name in header if name.lower() == key.lower()), None)
        if spelled is None:
            raise GradingError(f"{path} has no column {key!r}: export the participants or grades with it")
        keys = [name for name in header if name.lower() in ("username", "email address", "id number")]
        pairs, lost = _matched(found, [row for _, row in lines], keys)
        said += lost
        for student, row in pairs:
            rows.append((student, [row[spelled], *(row.get(name, "") for name in NAMES)]))
    if without := [student for student, cells in rows if not cells[0].strip()]:
        said.append(f"left out, for they have no {key.lower()}: {', '.join(without)}")
    rows = [(student, cells) for student, cells in rows if cells[0].strip()]
    head = [key, *NAMES]
    for column in what:
        head += [column.name, f"{column.name} (Feedback)"]
    table: list[list[Any]] = [head]
    for student, cells in rows:
        line: list[Any] = list(cells)
        for column in what:
            points = column.points.get(student)
            # Moodle's import takes grade and feedback together: no feedback without a grade
            line += [points, column.remarks.get(student, "") if points is not None else ""]
        table.append(line)
    return _text(table), said + _strange(rows)


def _matched(
    found: Class, people: Iterable[Mapping[str, str]], keys: Sequence[str]
) -> tuple[list[tuple[str, Mapping[str, str]]], list[str]]:
    """Students with their rows of the roster, in its order; and who has none."""
    rows = list(people)
    places: dict[str, set[int]] = {}
    for k, row in enumerate(rows):
        for name in {row.get(key, "").strip().casefold() for key in keys} - {""}:
            places.setdefault(name, set()).add(k)
    taken: dict[int, str] = {}
    lost = []
    for student, (_, _, email, number) in found.students.items():
        names = [name.casefold() for name in (number, student, email) if name]
        hits = next((places[name] for name in names if name in places), set())
        if len(hits) == 1 and next(iter(hits)) not in taken:
            taken[next(iter(hits))] = student
        else:
            lost.append(student)
    said = [f"in the gradebook, but not in the roster, and left out: {', '.join(lost)}"] if lost else []
    return [(taken[k], rows[k]) for k in sorted(taken)], said


def _waiting(what: Sequence[Column], students: Iterable[str]) -> list[str]:
    students = list(students)
    empty = {column.name: sum(column.points.get(s) is None for s in students) for column in what}
    shown = ", ".join(f"{name} {count}" for name, count in empty.items() if count)
    return [f"marks that are not there yet, left empty: {shown}"] if shown else []


def _strange(rows: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    names = [student for student, cells in rows if any(str(cell).startswith(FORMULA) for cell in cells)]
    if not names:
        return []
    return [f"an apostrophe stands before a cell that a spreadsheet would run, of {', '.join(names)}"]


def _text(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_cell(value) for value in row] for row in rows])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    clean = str(value).replace("\x00", "")
    return "'" + clean if clean.startswith(FORMULA) else clean
