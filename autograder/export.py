"""The graded results as data: results.json, checked against results.schema.json, and results.csv.

For a public board (`names="pseudonym"`) only track entries of students who chose a name leave the house,
under that name: pseudonyms.csv in the course folder holds `student,pseudonym`. `names="id"` exports all,
for the course itself. A badge says who measured: graded (the trusted scorer), audited (and its own script
made the model again), self-reported, or reference. Nothing is exported over a ledger that was tampered with.
"""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
from nbgrader.api import Gradebook

from autograder import judging, ledger, recording, rules
from autograder.judging import Course, GradingError

SCHEMA = "torch-olympics/results/1"
HERE = Path(__file__).resolve().parent
METRICS = (
    "accuracy",
    "accuracy_interval",
    "accuracy_lost",
    "gate_passed",
    "bits_per_byte",
    "bits_per_byte_interval",
    "next_token_accuracy",
    "retention",
    "perplexity",
    "rubric",
    "coherence",
    "relevance",
    "fluency",
    "images_per_second",
    "tokens_per_second",
    "latency_p50",
    "latency_p90",
    "first_token",
    "speed_interval",
    "ratio_to_reference",
    "size_bytes",
    "memory_bytes",
    "parameters",
    "training_seconds",
    "quality",
)
COLUMNS = (
    "name",
    "assignment",
    "track",
    "badge",
    "division",
    "valid",
    "points",
    "max_points",
    *METRICS,
    "dataset",
    "split",
    "sandbox",
    "date",
    "reasons",
)


def collect(
    course: Course,
    gradebook: Gradebook,
    *,
    names: str = "pseudonym",
    students: Collection[str] = (),
    assignments: Collection[str] = (),
) -> dict[str, Any]:
    """All graded results of a course, ready to be written; empty `students` or `assignments` mean all.

    Points are the gradebook's, so marks given by hand count; figures and reasons are the judgement's.
    Raises GradingError for a pseudonym file that cannot be used, for a ledger whose chain is broken, and for
    a judgement that is not what the ledger says.
    """
    try:
        return _collect(course, gradebook, ledger.read(course.grading), names, students, assignments)
    except ledger.LedgerError as error:
        raise GradingError(f"nothing was exported: {error}") from error


def _collect(
    course: Course,
    gradebook: Gradebook,
    lines: list[dict[str, Any]],
    names: str,
    students: Collection[str],
    assignments: Collection[str],
) -> dict[str, Any]:
    board = pseudonyms(course.root / "pseudonyms.csv") if names == "pseudonym" else None
    entries = []
    for submission in _submissions(gradebook):
        student, assignment = submission.student.id, submission.assignment.name
        record = recording.load_record(course, student, assignment)
        if record is None or (students and student not in students):
            continue
        if assignments and assignment not in assignments:
            continue
        if board is not None and (record.track is None or student not in board):
            continue
        entry = _entry(submission, record, board[student] if board is not None else student)
        if record.track is not None:
            entry.update(_trust(lines, student, record.track))
        entries.append(entry)
    entries += reference_entries(course.root)
    entries.sort(key=lambda e: (e["track"] is None, e["assignment"], e["name"]))
    return {
        "schema": SCHEMA,
        "course": _course_name(course),
        "made": _now(),
        "names": names,
        "entries": entries,
    }


def write(results: dict[str, Any], path: Path) -> tuple[Path, Path]:
    """Check the results and write them as .json and, beside it, .csv; `path` is the .json or a folder.

    Raises GradingError where the results do not fit the schema: nothing is written then.
    """
    path = path / "results.json" if path.suffix != ".json" else path
    validate(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    table = path.with_suffix(".csv")
    table.write_text(as_csv(results), encoding="utf-8")
    return path, table


def load(path: Path) -> dict[str, Any]:
    """Read and check a results file. Raises GradingError with one line that says what is wrong."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GradingError(f"{path} cannot be read ({error.strerror}): run `tito export` first.") from None
    except ValueError as error:
        raise GradingError(f"{path} is not JSON ({error}): run `tito export` again.") from None
    validate(results)
    return results


def validate(results: Any) -> None:
    """Check against results.schema.json. Raises GradingError that names the first place that does not fit."""
    error = jsonschema.exceptions.best_match(_validator().iter_errors(results))
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "the top"
        raise GradingError(f"results do not fit {SCHEMA} at {place}: {error.message[:200]}")


def as_csv(results: dict[str, Any]) -> str:
    """One line an entry; a cell that a spreadsheet would run as a formula gets a leading apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in results["entries"]:
        flat = {**entry["metrics"], **entry, "reasons": " | ".join(entry["reasons"])}
        writer.writerow([_csv_cell(flat.get(column)) for column in COLUMNS])
    return text.getvalue()


def pseudonyms(path: Path) -> dict[str, str]:
    """Student: name on the public board, for those who chose one. Raises GradingError."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row.get("pseudonym") or "").strip()]
    if rows and "student" not in rows[0]:
        raise GradingError(f"{path.name} has no column `student`: expected the header student,pseudonym.")
    names = {row["student"].strip(): row["pseudonym"].strip()[:80] for row in rows}
    twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    if twice:
        raise GradingError(f"{path.name} gives {twice[0]!r} to two students: every name stands once.")
    return names


def from_score(result: dict[str, Any], name: str, badge: str) -> dict[str, Any]:
    """An entry from a scorer's Result (its dictionary) without a notebook: a reference, a self check."""
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
    found = {track: reference_result(root, track) for track in sorted(rules.TRACKS)}
    return [
        from_score(result, f"Course entry ({track})", "reference")
        for track, result in found.items()
        if result
    ]


def reference_result(root: Path, track: str) -> dict[str, Any] | None:
    """The result of the course's own entry, as measured last: by `tito olympics retime`, or by its author."""
    folder = root / "course" / "entries"
    if not folder.is_dir():
        folder = HERE.parent / "course" / "entries"
    for path in (reference_path(root, track), folder / track / "result.json"):
        if path.is_file():
            return dict(json.loads(path.read_text(encoding="utf-8")))
    return None


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
    return {"badge": badge, "hashes": hashes}


def _track_fields(result: dict[str, Any]) -> dict[str, Any]:
    metrics = {name: _finite(result["metrics"].get(name)) for name in METRICS}
    scores = {name: min(1.0, max(0.0, float(value))) for name, value in result["scores"].items()}
    return {
        "track": result["track"],
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


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(f"{v:g}" for v in value)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return "" if value is None else value


def _course_name(course: Course) -> str:
    return str(recording.nbgrader_config(course).CourseDirectory.get("course_id", "") or course.root.name)


@cache
def _validator() -> Any:
    schema = json.loads((HERE / "results.schema.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
