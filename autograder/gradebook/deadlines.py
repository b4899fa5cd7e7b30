"""When work is due, what lateness costs, and which of several attempts counts: course/deadlines.toml.

    penalty_per_day = 0.1      # share of the points, for each day begun after the grace
    grace_minutes = 15
    most_days = 5              # later than that earns nothing
    keep = "last"              # or "best": of the attempts that were graded
    attempts = 0               # graded attempts that count; 0: no limit

    [due]                      # UTC
    01_tensor = 2026-09-14T23:59:00Z

    [extension.ada]            # days
    01_tensor = 2

nbgrader keeps due dates and extensions in the gradebook and takes penalties off by its own plug-in; this file
fills them in. Without the file nothing is due and the last attempt counts.
"""

from __future__ import annotations

import datetime
import json
import math
import tomllib
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook

from autograder.course import Course
from autograder.errors import GradingError
from autograder.gradebook.judgement import Judgement

FILE = Path("course", "deadlines.toml")
DAY_S = 86_400


@dataclass(frozen=True)
class Deadlines:
    """What deadlines.toml says; extensions in days, by student and assignment."""

    due: dict[str, datetime.datetime] = field(default_factory=dict)
    extension: dict[str, dict[str, float]] = field(default_factory=dict)
    penalty_per_day: float = 0.0
    grace_minutes: float = 0.0
    most_days: float = math.inf
    keep: str = "last"
    attempts: int = 0

    def penalty(self, score: float, seconds_late: float) -> float:
        """Points that lateness takes off a score."""
        late = seconds_late - 60 * self.grace_minutes
        if late <= 0:
            return 0.0
        if late > self.most_days * DAY_S:
            return score
        return min(score, score * self.penalty_per_day * math.ceil(late / DAY_S))


def load(root: Path) -> Deadlines:
    """The deadlines of a course; those of a course without the file are open. Raises GradingError."""
    path = root / FILE
    if not path.is_file():
        return Deadlines()
    try:
        found = Deadlines(**tomllib.loads(path.read_text(encoding="utf-8")))
        numbers = (found.penalty_per_day, found.grace_minutes, found.most_days, found.attempts)
        if not all(isinstance(number, int | float) and number >= 0 for number in numbers):
            raise ValueError("penalty_per_day, grace_minutes, most_days and attempts are numbers from 0")
        if found.keep not in ("last", "best"):
            raise ValueError(f"keep = {found.keep!r}: expected 'last' or 'best'")
        for name, when in found.due.items():
            if not isinstance(when, datetime.datetime) or when.tzinfo is None:
                raise ValueError(f"due.{name}: expected a time such as 2026-09-14T23:59:00Z")
    except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        raise GradingError(f"{path} cannot be read ({error}): mend that line.") from error
    return found


def enter(deadlines: Deadlines, gradebook: Gradebook, assignment: str, students: list[str]) -> None:
    """Put the due date of an assignment and the extensions of these students into the gradebook."""
    due = deadlines.due.get(assignment)
    gradebook.update_or_create_assignment(assignment, duedate=_utc(due).isoformat() if due else None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Object of type .* not in session")  # nbgrader's own, harmless
        for student in students:
            gradebook.update_or_create_student(student)
            gradebook.update_or_create_submission(assignment, student)
            days = deadlines.extension.get(student, {}).get(assignment, 0)
            gradebook.grant_extension(assignment, student, minutes=round(days * 24 * 60))


def attempt_counts(course: Course, deadlines: Deadlines, new: Judgement, record: Judgement | None) -> str:
    """Why a new attempt does not take the place of the recorded one; "" where it does.

    Each attempt is noted in grading/attempts/, once.
    """
    path = course.grading / "attempts" / new.assignment / f"{new.student}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    known = [json.loads(line) for line in lines]
    this = {"submitted": new.submitted, "submission": new.hashes.get("submission", "")}
    made = [{name: attempt[name] for name in this} for attempt in known]
    if this not in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**this, "points": new.points, "key": new.key}) + "\n")
        made.append(this)
    number = made.index(this) + 1
    if record is None:
        return ""
    if deadlines.attempts and number > deadlines.attempts:
        return f"attempt {number} came after the {deadlines.attempts} that count"
    same = record.hashes.get("submission") == this["submission"]
    if deadlines.keep == "best" and not same and worth(deadlines, new) < worth(deadlines, record):
        return f"attempt {number} earned {new.points:g} points, fewer than the best before it"
    return ""


def worth(deadlines: Deadlines, judgement: Judgement) -> float:
    """Points of a judgement after what its lateness costs."""
    from nbgrader.utils import parse_utc

    due = deadlines.due.get(judgement.assignment)
    if due is None or not judgement.submitted:
        return judgement.points
    days = deadlines.extension.get(judgement.student, {}).get(judgement.assignment, 0)
    late = (parse_utc(judgement.submitted) - _utc(due)).total_seconds() - days * DAY_S
    return judgement.points - deadlines.penalty(judgement.points, late)


def _utc(when: datetime.datetime) -> Any:
    """As nbgrader keeps times: UTC, without saying so."""
    return when.astimezone(datetime.UTC).replace(tzinfo=None)
