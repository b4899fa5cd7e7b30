"""Judge a stored submission once more: the same submission by the same grader earns the same points."""

from __future__ import annotations

from autograder.course import Course, Settings
from autograder.errors import GradingError, command
from autograder.gradebook.judgement import Judgement
from autograder.gradebook.judging import judge_anew
from autograder.gradebook.records import load_record


def replay(course: Course, student: str, assignment: str, settings: Settings) -> tuple[Judgement, list[str]]:
    """Judge a stored submission once more, leaving all as it is; what differs from its record, in lines.

    Raises GradingError where it has no record.
    """
    record = load_record(course, student, assignment)
    if record is None:
        first = command("tito", "grade", assignment)
        raise GradingError(f"{student} has no graded {assignment}: run {first} first")
    again = judge_anew(course, student, assignment, settings)
    differences = [
        f"{name}: another than when it was graded ({record.hashes.get(name, 'none')[:8]}, now {now[:8]})"
        for name, now in again.hashes.items()
        if record.hashes.get(name) != now
    ]
    before = {cell.grade_id: cell for cell in record.cells}
    for cell in again.cells:
        was = before.get(cell.grade_id)
        if was is None or was.points != cell.points:
            then = "no such cell" if was is None else f"{was.points:g} of {was.max_points:g}"
            differences.append(f"{cell.grade_id}: {then} then, {cell.points:g} of {cell.max_points:g} now")
    return again, differences
