"""What the version before left behind opens as ever: a course with its gradebook, and a student's workspace.

tests/fixtures/v0.1 was made by version 0.1: two lessons and a track released, three submissions graded and
exported; a workspace with a completed lesson and a track begun. The gradebook lies there as SQL text.
"""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from nbgrader.api import Gradebook

from autograder.course import Course
from autograder.gradebook import records
from autograder.leaderboard import results_file
from autograder.scoring import ledger
from tests.small_course import Tito

BEFORE = Path(__file__).parent / "fixtures" / "v0.1"


@pytest.fixture
def tito(monkeypatch, capsys):
    return Tito(monkeypatch, capsys)


@pytest.fixture
def course(tmp_path):
    """The course of version 0.1, its gradebook a database again."""
    root = tmp_path / "course"
    shutil.copytree(BEFORE / "course", root)
    text = (root / "gradebook.sql").read_text(encoding="utf-8")
    with sqlite3.connect(root / "gradebook.db") as database:
        database.executescript(text)
    return Course.at(root)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    root = tmp_path / "workspace"
    shutil.copytree(BEFORE / "workspace", root)
    monkeypatch.chdir(root)
    return root


def test_its_gradebook_and_records_agree(course):
    with Gradebook(records.nbgrader_config(course).CourseDirectory.db_url) as gradebook:
        points = {
            (found.student.id, name): found.score
            for name in ("01_tiny", "vision")
            for found in gradebook.assignment_submissions(name)
        }
    assert points == {("ada", "01_tiny"): 5.0, ("ben", "01_tiny"): 2.0, ("ada", "vision"): 10.0}
    for student, assignment in points:
        record = records.load_record(course, student, assignment)
        assert record is not None and record.points == points[student, assignment]


def test_its_ledger_is_whole(course):
    assert ledger.verify(course.grading) == ""
    assert [line["kind"] for line in ledger.read(course.grading)] == ["grading"]


def test_its_results_are_read_and_exported_again(course, tito, monkeypatch):
    monkeypatch.chdir(course.root)
    before = results_file.load(course.root / "results.json")
    tito("export")
    after = results_file.load(course.root / "results.json")
    assert [(e["name"], e["track"], e["points"]) for e in after["entries"]] == [
        (e["name"], e["track"], e["points"]) for e in before["entries"]
    ]
    assert "below the gate" in tito("explain", "ada", "vision")


def test_its_workspace_is_as_it_was(workspace, tito):
    kept = {path: path.read_bytes() for path in workspace.rglob("*.ipynb")}
    status = tito("module", "status")
    assert "01_tensor" in status and "completed" in status and "2 of 2 checks" in status
    tito("module", "complete", "01")
    assert {path: path.read_bytes() for path in kept} == kept
    assert json.loads((workspace / ".tito" / "progress.json").read_text(encoding="utf-8"))["schema"] == 1
    assert "def double" in (workspace / "tinytorch" / "tensor.py").read_text(encoding="utf-8")
    assert "vision" in tito("olympics", "init", "--track", "vision"), "what was begun is kept"
