"""The graded results of a course as data, for results.json (results_file writes and checks it).

For a public board (`names="pseudonym"`) only track entries of students who chose a name leave the house,
under that name: pseudonyms.csv in the course folder holds `student,pseudonym,report`. The report of an entry
leaves it only where that row's `report` says yes, whatever the names: a text shows who wrote it more readily
than a figure does. Lines of the ledger are not named either, since their order is that of the class list.
`names="id"` exports all, for the course itself. A badge says who measured: graded (the trusted scorer),
audited (and its own script made the model again), self-reported, or reference. Nothing is exported over a
ledger that was tampered with.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import nbformat
from nbgrader.api import Gradebook

from autograder.course import Course
from autograder.errors import GradingError
from autograder.gradebook import judging, records
from autograder.leaderboard.results_file import COLUMNS as COLUMNS
from autograder.leaderboard.results_file import METRICS as METRICS
from autograder.leaderboard.results_file import SCHEMA as SCHEMA
from autograder.leaderboard.results_file import as_csv as as_csv
from autograder.leaderboard.results_file import document, rules_hash
from autograder.leaderboard.results_file import load as load
from autograder.leaderboard.results_file import validate as validate
from autograder.leaderboard.results_file import write as write
from autograder.notebooks.metadata import is_grade, is_solution
from autograder.paths import ENTRIES
from autograder.scoring import ledger, rules

REPORT_LENGTH = 20_000  # characters; a report of two pages has 6,000
SAMPLES = 200  # timings of one kind


def collect(
    course: Course,
    gradebook: Gradebook,
    *,
    names: str = "pseudonym",
    students: Collection[str] = (),
    assignments: Collection[str] = (),
    class_name: str = "",
) -> dict[str, Any]:
    """All graded results of a course, ready to be written; empty `students` or `assignments` mean all.

    class_name: what the class is called on a board of several; default: the course's id. Points are the
    gradebook's, so marks given by hand count; figures and reasons are the judgement's.
    Raises GradingError for a pseudonym file that cannot be used, for a ledger whose chain is broken, and for
    a judgement that is not what the ledger says.
    """
    try:
        lines = ledger.read(course.grading)
        return _collect(course, gradebook, lines, names, students, assignments, class_name)
    except ledger.LedgerError as error:
        raise GradingError(f"nothing was exported: {error}") from error


def _collect(
    course: Course,
    gradebook: Gradebook,
    lines: list[dict[str, Any]],
    names: str,
    students: Collection[str],
    assignments: Collection[str],
    class_name: str,
) -> dict[str, Any]:
    chosen = course.root / "pseudonyms.csv"
    board = pseudonyms(chosen) if names == "pseudonym" else None
    agreed = reports(chosen)
    title = class_name or _course_name(course)
    entries = []
    for submission in _submissions(gradebook):
        student, assignment = submission.student.id, submission.assignment.name
        record = records.load_record(course, student, assignment)
        if record is None or (students and student not in students):
            continue
        if assignments and assignment not in assignments:
            continue
        if board is not None and (record.track is None or student not in board):
            continue
        entry = _entry(submission, record, board[student] if board is not None else student)
        entry["class"] = title[:80]
        if record.track is not None:
            entry.update(_trust(lines, student, record.track))
            if student in agreed:
                entry["report"] = report_of(course, student, assignment)
        entries.append(entry)
    entries += reference_entries(course.root)
    entries.sort(key=lambda e: (e["track"] is None, e["assignment"], e["name"]))
    return document(title, entries, names=names)


def pseudonyms(path: Path) -> dict[str, str]:
    """Student: name on the public board, for those who chose one. Raises GradingError."""
    rows = _chosen(path)
    names = {row["student"].strip(): row["pseudonym"].strip()[:80] for row in rows}
    twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    if twice:
        raise GradingError(f"{path.name} gives {twice[0]!r} to two students: every name stands once.")
    return names


def reports(path: Path) -> set[str]:
    """The students who agreed that their report is published: those whose row says report = yes."""
    agreed = {}
    for row in _chosen(path):
        answer = (row.get("report") or "").strip().lower()
        if answer not in ("", "yes", "no"):
            raise GradingError(f"{path.name}: report of {row['student']} is {answer!r}: expected yes or no.")
        agreed[row["student"].strip()] = answer == "yes"
    return {student for student, yes in agreed.items() if yes}


def _chosen(path: Path) -> list[dict[str, str]]:
    """The rows of pseudonyms.csv that name a pseudonym; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row.get("pseudonym") or "").strip()]
    if rows and "student" not in rows[0]:
        raise GradingError(f"{path.name} has no column `student`: expected the header student,pseudonym.")
    return rows


def report_of(course: Course, student: str, assignment: str) -> str | None:
    """The report of a track notebook, Markdown: the answers that a person reads; None without one."""
    path = course.root / "autograded" / student / assignment / f"{assignment}.ipynb"
    if not path.is_file():
        return None
    nb = nbformat.read(path, as_version=4)
    read = [c for c in nb.cells if c.cell_type == "markdown" and is_grade(c) and is_solution(c)]
    return "\n\n".join(filter(None, (cell.source.strip() for cell in read)))[:REPORT_LENGTH] or None


def from_score(result: dict[str, Any], name: str, badge: str) -> dict[str, Any]:
    """An entry from a scorer's Result (its dictionary) without a notebook: a reference, a self check.

    It is of no class; who makes it for one sets `class`.
    """
    dimensions = [d for d in rules.DIMENSIONS if d in result["points"]]
    points = rules.track(result["track"]).points
    cells: list[dict[str, Any]] = [
        {"grade_id": d, "points": float(result["points"][d]), "max_points": float(points[d]), "reason": ""}
        for d in dimensions
    ]
    return {
        "name": name, "assignment": result["track"], "badge": badge,
        "points": round(sum(cell["points"] for cell in cells), 4), "max_points": float(sum(points.values())),
        "cells": cells, **_track_fields(result),
    }  # fmt: skip


def reference_entries(root: Path) -> list[dict[str, Any]]:
    """The course's own entries, as the scorer measured them."""
    entries = []
    for track in sorted(rules.TRACKS):
        result = reference_result(root, track)
        if result:
            entry = from_score(result, f"Course entry ({track})", "reference")
            report = _entry_folder(root) / track / "report.md"
            text = report.read_text(encoding="utf-8")[:REPORT_LENGTH] if report.is_file() else None
            entries.append({**entry, "report": text})
    return entries


def reference_result(root: Path, track: str) -> dict[str, Any] | None:
    """The result of the course's own entry, as measured last: by `tito olympics retime`, or by its author."""
    for path in (reference_path(root, track), _entry_folder(root) / track / "result.json"):
        if path.is_file():
            return dict(json.loads(path.read_text(encoding="utf-8")))
    return None


def _entry_folder(root: Path) -> Path:
    folder = root / "course" / "entries"
    return folder if folder.is_dir() else ENTRIES[0]


def reference_path(root: Path, track: str) -> Path:
    """Where a course keeps the result of a re-timing of its own entry."""
    return root / "grading" / "reference" / f"{track}.json"


def _submissions(gradebook: Gradebook) -> list[Any]:
    return [s for a in gradebook.assignments for s in gradebook.assignment_submissions(a.name)]


def _entry(submission: Any, record: judging.Judgement, name: str) -> dict[str, Any]:
    reasons = {cell.grade_id: cell.reason for cell in record.cells}
    cells = []
    for notebook in submission.notebooks:
        for grade in notebook.grades:
            waiting = grade.manual_score is None and (grade.needs_manual_grade or grade.auto_score is None)
            points = None if waiting and grade.auto_score is None else float(grade.score)
            full = points is not None and points >= grade.max_score
            reason = "" if full else reasons.get(grade.name, "")
            if points is None and not reason:
                reason = "A person has not graded this cell yet."
            cells.append(
                {
                    "grade_id": grade.name,
                    "points": points,
                    "max_points": float(grade.max_score),
                    "reason": reason,
                }
            )
    late = sum(notebook.late_submission_penalty or 0.0 for notebook in submission.notebooks)
    common = {
        "name": name, "assignment": record.assignment, "badge": "graded",
        "points": round(float(submission.score) - late, 4), "max_points": float(submission.max_score),
        "cells": cells,
    }  # fmt: skip
    if record.track is not None:
        return {**common, **_track_fields(record.track)}
    notes = [
        *record.notes,
        *([record.stopped] if record.stopped and record.stopped not in record.notes else []),
    ]
    return {
        **common,
        "track": None,
        "division": "open",
        "valid": not record.stopped,
        "reasons": notes,
        "metrics": {},
        "scores": {},
        "dataset": None,
        "split": None,
        "sandbox": record.level,
        "machine": None,
        "date": record.date,
    }


def _trust(lines: list[dict[str, Any]], student: str, result: dict[str, Any]) -> dict[str, Any]:
    """Badge and hashes of a track entry, from the ledger; no hashes where it is older than the ledger."""
    line = ledger.graded(lines, student, result)
    hashes = {name: line[name] if line else None for name in ("submission", "grader", "data")}
    badge = "graded" if result.get("official", True) else "self-reported"
    if line and badge == "graded" and ledger.audited(lines, result["track"], line["submission"]):
        badge = "audited"
    audits = [
        e for e in lines
        if line and (e.get("kind"), e.get("track"), e.get("submission"))
        == ("audit", result["track"], line["submission"])
    ]  # fmt: skip
    last = audits[-1] if audits else None
    audit = last and {"outcome": str(last.get("outcome"))[:80], "date": str(last.get("date") or "")}
    return {
        "badge": badge, "hashes": hashes, "audit": audit,
        "rules": rules_hash(line["rules"]) if line else None,
    }  # fmt: skip


def _track_fields(result: dict[str, Any]) -> dict[str, Any]:
    metrics = {name: _finite(result["metrics"].get(name)) for name in METRICS}
    scores = {name: min(1.0, max(0.0, float(value))) for name, value in result["scores"].items()}
    samples = {
        name: [float(v) for v in values[:SAMPLES] if math.isfinite(v)]
        for name, values in (result.get("samples") or {}).items()
        if values
    }
    return {
        "track": result["track"],
        "class": None,
        "rules": None,
        "audit": None,
        "samples": samples,
        "report": None,
        "valid": bool(result["valid"]),
        "division": result.get("division", "open"),
        "reasons": list(result["reasons"]),
        "metrics": metrics,
        "scores": scores,
        "dataset": result["dataset"],
        "split": result["split"],
        "sandbox": result.get("level") or "none",
        "machine": result.get("machine"),
        "date": result["date"],
    }


def _finite(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [float(v) for v in value] if all(map(math.isfinite, value)) else None
    return value if value is None or math.isfinite(value) else None


def _course_name(course: Course) -> str:
    return str(records.nbgrader_config(course).CourseDirectory.get("course_id", "") or course.root.name)
