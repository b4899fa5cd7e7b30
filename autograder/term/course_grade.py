"""The course grade of every student: implementation 40, report 30, code quality 20, leaderboard rank 10.

implementation  points of the module lessons that count, late penalties taken off, over their points, times 40
report          the same of the assignment `report`, times 30; a person marks its cells in formgrader
quality         mean of the measured code quality (`scoring.quality`) of the student's valid track entries,
                times 20
rank            mean over the tracks of 0 for no valid entry, else 1/2 + 1/2 placement, times 10. placement
                is the share of the other ranked entries of the same board (data set and division) that
                stand behind, where one that shares the rank counts half; whoever is alone has the whole

A lesson counts when it is graded, or when it was due and nothing came (0 points). Cells that wait for a
person are left out until they are marked; a part without any mark is None, "not marked yet", and never a
silent 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbgrader.api import Gradebook

from autograder import leaderboard
from autograder.course import Course
from autograder.gradebook import records
from autograder.leaderboard import export
from autograder.scoring import rules
from autograder.term import marks
from autograder.term.marks import Class, Mark

IMPLEMENTATION, REPORT, QUALITY, RANK = rules.COURSE_GRADE
LESSON = re.compile(r"\d\d_")
REPORT_ASSIGNMENT = "report"
SHORT = {IMPLEMENTATION: "implementation", REPORT: "report", QUALITY: "quality", RANK: "rank"}
NOT_MARKED = "not marked yet"


@dataclass(frozen=True)
class Part:
    """One part of the grade: its points so far (None: not marked yet), whether they are final, and why."""

    most: float
    points: float | None
    final: bool
    why: str


@dataclass(frozen=True)
class Grade:
    """A student's course grade."""

    student: str
    parts: Mapping[str, Part]

    @property
    def total(self) -> float:
        """The points of the parts that have any."""
        return sum(part.points or 0.0 for part in self.parts.values())

    @property
    def of(self) -> float:
        """What those parts are worth: the total is out of this."""
        return sum(part.most for part in self.parts.values() if part.points is not None)

    @property
    def final(self) -> bool:
        """Whether nothing is missing."""
        return all(part.final for part in self.parts.values())


def grades(course: Course, gradebook: Gradebook, found: Class) -> list[Grade]:
    """The course grades of a class, in the order of its students.

    Raises GradingError where the ledger of track results was tampered with.
    """
    exported = export.collect(course, gradebook, names="id")
    tracks = [name for name in rules.TRACKS if name in found.assignments]
    boards = {track: placements(exported, track) for track in tracks}
    return [
        Grade(
            student,
            {
                IMPLEMENTATION: _implementation(own),
                REPORT: _report(own.get(REPORT_ASSIGNMENT)),
                QUALITY: _quality(course, student, {track: own[track] for track in tracks}),
                RANK: _rank(student, {track: own[track] for track in tracks}, boards),
            },
        )
        for student, own in found.marks.items()
    ]


def placements(exported: dict[str, Any], track: str) -> dict[str, tuple[float, int, int]]:
    """Name -> (placement 0..1, rank, ranked entries) of every graded, valid entry on the track's board."""
    found = {}
    for board in leaderboard.sections(exported, track):
        ranked = [(e["name"], rank) for e, rank in zip(board.entries, board.ranks, strict=True) if rank]
        for name, rank in ranked:
            found[name] = (placement(rank, [other for _, other in ranked]), rank, len(ranked))
    return found


def placement(rank: int, ranks: Sequence[int]) -> float:
    """The share of the other entries that stand behind this rank; those that share it count half."""
    others = len(ranks) - 1
    if others <= 0:
        return 1.0
    behind = sum(other > rank for other in ranks)
    beside = sum(other == rank for other in ranks) - 1
    return (behind + beside / 2) / others


def _implementation(own: Mapping[str, Mark]) -> Part:
    lessons = {name: mark for name, mark in own.items() if LESSON.match(name)}
    counted = {
        name: mark for name, mark in lessons.items()
        if mark.state in (marks.GRADED, marks.BY_HAND, marks.MISSING)
    }  # fmt: skip
    earned = sum(mark.earned for mark in counted.values())
    most = sum(mark.most if mark.state == marks.MISSING else mark.marked for mark in counted.values())
    missing = sorted(name for name, mark in counted.items() if mark.state == marks.MISSING)
    waiting = sorted(name for name, mark in counted.items() if mark.waiting)
    why = f"{earned:g} of {most:g} points in {len(counted)} of {len(lessons)} lessons"
    why += f"; not handed in, 0 points: {', '.join(missing)}" if missing else ""
    why += f"; cells wait for a mark by hand: {', '.join(waiting)}" if waiting else ""
    late = sum(mark.late for mark in counted.values())
    why += f"; {late:g} points taken off for lateness" if late else ""
    final = bool(lessons) and len(counted) == len(lessons) and not waiting
    return _part(IMPLEMENTATION, earned / most if most else None, final, why)


def _report(mark: Mark | None) -> Part:
    if mark is None:
        return _part(REPORT, None, False, f"the course has no assignment `{REPORT_ASSIGNMENT}`")
    if mark.state == marks.MISSING:
        return _part(REPORT, 0.0, True, marks.MISSING)
    if mark.state != marks.GRADED or not mark.most:
        waiting = f": {', '.join(mark.waiting)}" if mark.waiting else ""
        return _part(REPORT, None, False, mark.state + waiting)
    late = f", {mark.late:g} taken off for lateness" if mark.late else ""
    return _part(REPORT, mark.earned / mark.most, True, f"{mark.earned:g} of {mark.most:g} points{late}")


def _quality(course: Course, student: str, own: Mapping[str, Mark]) -> Part:
    measured = {}
    for track in own:
        record = records.load_record(course, student, track)
        about = record.track if record is not None else None
        quality = about["metrics"].get("quality") if about and about["valid"] else None
        if quality is not None and math.isfinite(quality):
            measured[track] = float(quality)
    settled = all(mark.state in (marks.GRADED, marks.BY_HAND, marks.MISSING) for mark in own.values())
    if measured:
        shown = ", ".join(f"{track} {value:.3f}" for track, value in measured.items())
        return _part(QUALITY, sum(measured.values()) / len(measured), settled, f"measured: {shown}")
    if own and settled:
        return _part(QUALITY, 0.0, True, "no valid track entry whose code was measured")
    return _part(QUALITY, None, False, "no track entry was graded yet")


def _rank(
    student: str, own: Mapping[str, Mark], boards: Mapping[str, Mapping[str, tuple[float, int, int]]]
) -> Part:
    shares, notes, open_ = [], [], []
    for track, mark in own.items():
        if student in boards[track]:
            share, rank, count = boards[track][student]
            shares.append(0.5 + 0.5 * share)
            notes.append(f"{track} {rank} of {count}")
        elif mark.state in (marks.GRADED, marks.BY_HAND):
            shares.append(0.0)
            notes.append(f"{track} INVALID")
        elif mark.state == marks.MISSING:
            shares.append(0.0)
            notes.append(f"{track} {marks.MISSING}")
        else:
            open_.append(track)
    if not shares:
        return _part(RANK, None, False, "no track entry was graded yet")
    why = ", ".join(notes) + (f"; open: {', '.join(open_)}" if open_ else "")
    return _part(RANK, sum(shares) / len(shares), not open_, why)


def _part(name: str, share: float | None, final: bool, why: str) -> Part:
    most = float(rules.COURSE_GRADE[name])
    points = None if share is None else most * min(1.0, max(0.0, share))
    return Part(most, points, final and points is not None, why)


# ---- as text


def table(found: Sequence[Grade]) -> list[str]:
    """A line a student: the four parts, and the total out of what is marked."""
    width = max([len(grade.student) for grade in found] + [7])
    names = list(rules.COURSE_GRADE)
    heads = [f"{SHORT[name]} {most}" for name, most in rules.COURSE_GRADE.items()]
    head = f"{'student':<{width}}" + "".join(f"  {text:>17}" for text in heads)
    lines = [f"{head}  total"]
    for grade in found:
        cells = "".join(f"  {_shown(grade.parts[name]):>17}" for name in names)
        lines.append(f"{grade.student:<{width}}{cells}  {total(grade)}")
    if not all(grade.final for grade in found):
        lines += [
            "",
            "~: so far, more will count. `tito course grades STUDENT` says where a figure comes from.",
        ]
    return lines


def explained(grade: Grade) -> list[str]:
    """A student's parts, each with where it comes from."""
    lines = [f"{grade.student}: {total(grade)}"]
    for name, part in grade.parts.items():
        points = NOT_MARKED if part.points is None else f"{_shown(part)} of {part.most:g}"
        lines.append(f"    {name:<24} {points:<18} {part.why}")
    return lines


def total(grade: Grade) -> str:
    """Such as `71.3 of 100`, or `41.3 of 70, not final`."""
    if not grade.of:
        return NOT_MARKED
    return f"{grade.total:.1f} of {grade.of:g}" + ("" if grade.final else ", not final")


def _shown(part: Part) -> str:
    if part.points is None:
        return NOT_MARKED
    return f"{'' if part.final else '~'}{part.points:.1f}"
