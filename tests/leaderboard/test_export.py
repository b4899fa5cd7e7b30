"""Exported results: what leaves the house, for whom, in which form."""

import copy
import csv
import io
import json

import pytest
from nbgrader.api import Gradebook

from autograder.course import Course
from autograder.errors import GradingError
from autograder.gradebook.judging import Judgement
from autograder.gradebook.records import nbgrader_config, record_path
from autograder.leaderboard import export, results_file
from autograder.notebooks.execute import CellResult
from autograder.scoring import ledger

RESULT = {
    "track": "vision", "dataset": "digits", "split": "private", "valid": True, "level": "bubblewrap",
    "reasons": ["speed 90 images/s is below the half-way mark of 500 images/s: 3.1 of 20 points"],
    "metrics": {"accuracy": 0.97, "accuracy_interval": [0.94, 0.99], "images_per_second": 90.0,
                "speed_interval": [80.0, 100.0], "ratio_to_reference": None, "size_bytes": 41000,
                "memory_bytes": 2.1e8, "parameters": 10000, "training_seconds": 9.5, "quality": float("inf")},
    "scores": {"accuracy": 0.9, "speed": 0.155, "size": 0.9, "quality": 0.8},
    "points": {"accuracy": 36.0, "speed": 3.1, "size": 18.0, "quality": 8.0},
    "machine": {"cores": 2}, "date": "2026-11-20T10:00:00+00:00", "log": "what the student printed",
    "official": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    root = tmp_path_factory.mktemp("course")
    (root / "course" / "entries").mkdir(parents=True)
    course = Course(root, root)
    nbgrader_config(course)  # a new gradebook calls alembic, which this finds
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as book:
        for assignment, cell, track in (
            ("vision", "accuracy", RESULT),
            ("05_autograd", "test-backward", None),
        ):
            book.add_assignment(assignment)
            book.add_notebook(assignment, assignment)
            book.add_grade_cell(cell, assignment, assignment, max_score=40, cell_type="code")
            for student in ("ada", "ben"):
                book.update_or_create_student(student)
                book.add_submission(assignment, student)
                book.find_grade(cell, assignment, assignment, student).auto_score = 36
                book.db.commit()
                cells = [CellResult(cell, 36.0, 40.0, "slow")]
                judgement = Judgement(
                    student, assignment, "key", "bubblewrap", cells, date="2026-11-20", track=track
                )
                path = record_path(course, student, assignment)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({**vars(judgement), "cells": [vars(c) for c in judgement.cells]}))
    (root / "pseudonyms.csv").write_text("student,pseudonym\nada,=Lovelace\nben,\n")
    return course


def collected(course, **options):
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as book:
        return export.collect(course, book, **options)


def test_public_export_holds_those_who_chose_a_name(course, tmp_path):
    results = collected(course)
    assert [entry["name"] for entry in results["entries"]] == ["=Lovelace"]
    json_path, csv_path = export.write(results, tmp_path)
    text = json_path.read_text() + csv_path.read_text()
    assert "ada" not in text and "ben" not in text and "what the student printed" not in text
    entry = export.load(json_path)["entries"][0]
    assert (entry["badge"], entry["sandbox"], entry["points"]) == ("graded", "bubblewrap", 36)
    assert entry["metrics"]["quality"] is None and entry["cells"][0]["reason"] == "slow"


def test_course_export_holds_everybody(course):
    results = collected(course, names="id")
    export.validate(results)
    assert [(e["name"], e["track"]) for e in results["entries"]] == [
        ("ada", "vision"), ("ben", "vision"), ("ada", None), ("ben", None),
    ]  # fmt: skip
    assert all(entry["sandbox"] == "bubblewrap" for entry in results["entries"])
    assert len(collected(course, names="id", students=["ben"], assignments=["vision"])["entries"]) == 1


def test_badges_and_hashes_come_from_the_ledger(course):
    def badge(**options):
        (entry,) = collected(course, students=["ada"], assignments=["vision"], **options)["entries"]
        return entry["badge"], entry["hashes"]["submission"]

    older = dict.fromkeys(("submission", "grader", "data"))
    assert collected(course)["entries"][0]["hashes"] == older, "graded before there was a ledger"
    line = ledger.append(course.grading, ledger.result("grading", "ada", "ab" * 32, RESULT))
    try:
        assert badge() == ("graded", "ab" * 32)
        audit = {"kind": "audit", "track": "vision", "submission": "ab" * 32}
        ledger.append(course.grading, {**audit, "submission": "cd" * 32, "outcome": "passed"})
        assert badge() == ("graded", "ab" * 32), "an audit of other files"
        ledger.append(course.grading, {**audit, "outcome": "passed"})
        assert badge() == ("audited", "ab" * 32)
        results = collected(course, names="id")
        export.validate(results)
        hashes = results["entries"][0]["hashes"]
        assert hashes == {"submission": "ab" * 32, "grader": line["grader"], "data": line["data"]}
        ledger.append(course.grading, {**audit, "outcome": "failed"})
        assert badge()[0] == "graded", "the last audit counts"
        path = record_path(course, "ada", "vision")
        kept = path.read_text()
        path.write_text(kept.replace("0.97", "0.99"))
        with pytest.raises(GradingError, match="nothing was exported: the recorded vision result of ada"):
            collected(course)
        path.write_text(kept)
        text = (course.grading / ledger.LEDGER).read_text()
        (course.grading / ledger.LEDGER).write_text(text.replace("0.97", "0.99"))
        with pytest.raises(GradingError, match="nothing was exported: .* is broken at line 2") as stopped:
            collected(course, names="id")
        assert "\n" not in str(stopped.value)
    finally:
        for name in (ledger.LEDGER, ledger.HEAD):
            (course.grading / name).unlink()


def test_a_self_check_is_no_grade(course):
    path = record_path(course, "ada", "vision")
    kept = path.read_text()
    path.write_text(kept.replace('"official": true', '"official": false'))
    try:
        assert collected(course)["entries"][0]["badge"] == "self-reported"
    finally:
        path.write_text(kept)


def test_csv_runs_no_formula(course):
    rows = list(csv.DictReader(io.StringIO(export.as_csv(collected(course)))))
    assert rows[0]["name"] == "'=Lovelace" and rows[0]["accuracy_interval"] == "0.94 0.99"


def test_schema_names_the_place(course, tmp_path):
    good = collected(course)
    for change, place in (
        (lambda r: r["entries"][0].update(badge="gold"), "entries/0/badge"),
        (lambda r: r["entries"][0]["metrics"].update(accuracy=1.5), "entries/0/metrics/accuracy"),
        (lambda r: r["entries"][0].pop("sandbox"), "entries/0"),
        (lambda r: r.update(extra=1), "the top"),
    ):
        bad = copy.deepcopy(good)
        change(bad)
        with pytest.raises(GradingError, match=place):
            export.write(bad, tmp_path / "bad.json")
        assert not (tmp_path / "bad.json").exists()


def test_unusable_files_are_named(tmp_path):
    with pytest.raises(GradingError, match="run `tito export` first"):
        export.load(tmp_path / "results.json")
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(GradingError, match="is not JSON"):
        export.load(tmp_path / "results.json")
    (tmp_path / "names.csv").write_text("student,pseudonym\nada,X\nben,X\n")
    with pytest.raises(GradingError, match="to two students"):
        export.pseudonyms(tmp_path / "names.csv")
    (tmp_path / "names.csv").write_text("who,pseudonym\nada,X\n")
    with pytest.raises(GradingError, match="student,pseudonym"):
        export.pseudonyms(tmp_path / "names.csv")


def test_reference_entry_of_the_course(course, tmp_path):
    folder = tmp_path / "course" / "entries" / "vision"
    folder.mkdir(parents=True)
    result = {**RESULT, "metrics": {**RESULT["metrics"], "quality": 0.9}}
    (folder / "result.json").write_text(json.dumps(result))
    (entry,) = export.reference_entries(tmp_path)
    assert entry["badge"] == "reference" and entry["points"] == pytest.approx(65.1)
    assert entry["class"] is None and entry["report"] is None and entry["samples"] == {}
    (folder / "report.md").write_text("# How")
    assert export.reference_entries(tmp_path)[0]["report"] == "# How"
    results_file.validate(results_file.document("x", [entry]))
