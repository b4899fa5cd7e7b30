"""What the gradebook says of every student and assignment, late penalties taken off.

A mark that is not there yet is None, never 0: who has not handed in what is still open, and what waits for a
person, is told apart from what earned nothing.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from nbgrader.api import Gradebook

from autograder.course import Course
from autograder.gradebook import deadlines, records

GRADED = "graded"
BY_HAND = "waits for a mark by hand"
NOT_GRADED = "handed in, not graded yet"
MISSING = "not handed in"  # and due
OPEN = "not handed in yet"


@dataclass(frozen=True)
class Mark:
    """One assignment of one student. `earned` of `marked` points so far; the whole is `most`.

    late: points taken off, which `earned` lacks already. waiting: cells that a person has to mark.
    """

    state: str
    most: float
    earned: float = 0.0
    marked: float = 0.0
    late: float = 0.0
    waiting: tuple[str, ...] = ()

    @property
    def points(self) -> float | None:
        """The final points; None where there are none yet."""
        return self.earned if self.state == GRADED else None


@dataclass(frozen=True)
class Class:
    """The marks of a class: student -> assignment -> mark, and who and what there is, in order."""

    students: Mapping[str, tuple[str, str, str, str]]  # first name, last name, email, lms_user_id
    assignments: Mapping[str, float]  # points; 0 where it is not released yet
    marks: Mapping[str, Mapping[str, Mark]]


def collect(course: Course, gradebook: Gradebook, *, now: datetime.datetime | None = None) -> Class:
    """The marks of everybody in the gradebook. Raises GradingError for unreadable deadlines."""
    now = now or datetime.datetime.now(datetime.UTC)
    known = deadlines.load(course.root)
    assignments = {found.name: float(found.max_score or 0.0) for found in gradebook.assignments}
    people = {
        student.id: tuple(
            str(text or "")
            for text in (student.first_name, student.last_name, student.email, student.lms_user_id)
        )
        for student in sorted(gradebook.students, key=lambda student: student.id)
    }
    found: dict[str, dict[str, Mark]] = {student: {} for student in people}
    for name in assignments:
        for submission in gradebook.assignment_submissions(name):
            mark = _mark(course, submission, name, assignments[name])
            if mark is not None:
                found[submission.student.id][name] = mark
    for student, marks in found.items():
        for name, most in assignments.items():
            if name not in marks:
                marks[name] = Mark(_absent(course, known, student, name, now), most)
    return Class(people, assignments, found)  # type: ignore[arg-type]


def _mark(course: Course, submission: object, name: str, most: float) -> Mark | None:
    """The mark of a graded submission; None for an entry that only holds an extension."""
    books = submission.notebooks  # type: ignore[attr-defined]
    grades = [grade for book in books for grade in book.grades]
    touched = any(grade.auto_score is not None or grade.manual_score is not None for grade in grades)
    student = submission.student.id  # type: ignore[attr-defined]
    if not touched and records.load_record(course, student, name) is None:
        return None
    waiting = [grade for grade in grades if grade.manual_score is None and (
        grade.needs_manual_grade or grade.auto_score is None)]  # fmt: skip
    names = {grade.id for grade in waiting}
    marked = [grade for grade in grades if grade.id not in names]
    late = sum(book.late_submission_penalty or 0.0 for book in books)
    earned = max(0.0, sum(float(grade.score or 0.0) for grade in marked) - late)
    return Mark(
        BY_HAND if waiting else GRADED,
        most,
        earned,
        sum(float(grade.max_score) for grade in marked),
        late,
        tuple(grade.name for grade in waiting),
    )


def _absent(
    course: Course, known: deadlines.Deadlines, student: str, name: str, now: datetime.datetime
) -> str:
    if course.submitted(student, name).is_dir():
        return NOT_GRADED
    due = known.due.get(name)
    if due is None:
        return OPEN
    days = known.extension.get(student, {}).get(name, 0)
    return MISSING if now > due + datetime.timedelta(days=days) else OPEN
