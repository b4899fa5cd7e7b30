"""A plan's due dates into a course: course/deadlines.toml and nbgrader's gradebook, which then agree.

A due date that students have handed in for is never moved silently: `moves` finds those, and who moves
them has to say so.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from nbgrader.api import Gradebook, MissingEntry

from autograder import files
from autograder.course import Course
from autograder.errors import GradingError
from autograder.gradebook import deadlines
from autograder.gradebook.records import nbgrader_config

HEADER = re.compile(r"^\s*\[")
DUE = re.compile(r"^\s*\[\s*due\s*\]\s*(#.*)?$")
ENTRY = re.compile(r"""^\s*(?:"([^"]+)"|'([^']+)'|([\w-]+))\s*=""")


def moves(
    course: Course, gradebook: Gradebook, due: Mapping[str, datetime.datetime]
) -> list[tuple[str, datetime.datetime | None, datetime.datetime, int]]:
    """What would change: (assignment, due until now or None, due then, students who have handed in)."""
    now = deadlines.load(course.root).due
    found = []
    for name, then in due.items():
        before = now.get(name) or _in_gradebook(gradebook, name)
        if before is None or before != then:
            found.append((name, before, then, handed_in(course, gradebook, name)))
    return found


def handed_in(course: Course, gradebook: Gradebook, assignment: str) -> int:
    """How many students have handed the assignment in: collected, graded, or waiting in the exchange."""
    students = set(course.students(assignment))
    try:
        gradebook.find_assignment(assignment)
        # without a time it is an extension that was granted: an entry, and nothing handed in
        students |= {
            found.student.id
            for found in gradebook.assignment_submissions(assignment)
            if found.timestamp is not None
        }
    except MissingEntry:
        pass
    config = nbgrader_config(course)
    exchange, name = config.Exchange.get("root"), config.CourseDirectory.get("course_id")
    if isinstance(exchange, str) and isinstance(name, str):
        for folder in Path(exchange, name, "inbound").glob("*+*+*"):
            student, of = folder.name.split("+")[:2]
            if of == assignment:
                students.add(student)
    return len(students)


def apply(course: Course, gradebook: Gradebook, due: Mapping[str, datetime.datetime]) -> None:
    """Write the dates into deadlines.toml, all else in the file untouched, and into the gradebook."""
    path = course.root / deadlines.FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    files.write_text(path, with_due(text, due))
    known = deadlines.load(course.root)
    for name in due:
        students = [name_ for name_, of in known.extension.items() if name in of]
        deadlines.enter(known, gradebook, name, students)


def with_due(text: str, due: Mapping[str, datetime.datetime]) -> str:
    """The text of a deadlines.toml with these dates in its [due] table. Raises GradingError."""
    lines = text.splitlines()
    if not any(DUE.match(line) for line in lines):
        lines += [*([""] if lines and lines[-1].strip() else []), "[due]"]
    begin = next(k for k, line in enumerate(lines) if DUE.match(line)) + 1
    end = next((k for k in range(begin, len(lines)) if HEADER.match(lines[k])), len(lines))
    table, left = [], dict(due)
    for line in lines[begin:end]:
        entry = ENTRY.match(line)
        name = next(filter(None, entry.groups()), "") if entry else ""
        table.append(_line(name, left.pop(name)) if name in left else line)
    tail = []
    while table and not table[-1].strip():
        tail.append(table.pop())
    table += [_line(name, when) for name, when in left.items()]
    made = "\n".join([*lines[:begin], *table, *tail, *lines[end:]]) + "\n"
    try:
        read = tomllib.loads(made)["due"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise GradingError(f"{deadlines.FILE} cannot be changed ({error}): mend it by hand") from error
    if wrong := [name for name, when in due.items() if read.get(name) != when]:
        raise GradingError(f"{deadlines.FILE}: {wrong[0]} cannot be changed here: mend it by hand")
    return made


def _line(name: str, when: datetime.datetime) -> str:
    return f"{name} = {when.isoformat(timespec='seconds')}"


def _in_gradebook(gradebook: Gradebook, name: str) -> datetime.datetime | None:
    try:
        found = gradebook.find_assignment(name).duedate
    except MissingEntry:
        return None
    return found.replace(tzinfo=datetime.UTC) if found is not None else None
