"""A small class through the whole batch: judged, in nbgrader's gradebook, with feedback, and graded again."""

import json
import shutil
import sys

import nbformat
import pytest
from nbgrader.api import Gradebook

from autograder import sandbox
from autograder.course import Course, Settings
from autograder.errors import GradingError
from autograder.gradebook import batch, judging, records
from autograder.scoring import scorer
from tests.notebook_cells import answer, check, essay, notebook
from tito import cli
from tito.instructor import grading as instructor

LEVEL = sandbox.choose()
SETTINGS = Settings(LEVEL, "digits", cell_s=30)
SOURCE = notebook(
    answer("f", "def f(x):\n    ### BEGIN SOLUTION\n    return x + 1\n    ### END SOLUTION"),
    check("test-f", "assert f(1) == 2, f'f(1): expected 2, got {f(1)}'", 2),
    check(
        "test-hidden",
        "assert f(2) == 3, 'look at f'\n### BEGIN HIDDEN TESTS\nfor secret_number in (17, 23):\n"
        "    assert f(secret_number) == secret_number + 1, 'a larger number fails, look at f'\n"
        "### END HIDDEN TESTS",
        3,
    ),
    essay("why", "Say why.", 5),
)
TRACK = notebook(
    answer("network", "### BEGIN SOLUTION\nx = 1\n### END SOLUTION"),
    check("accuracy", "from tito.student.olympics import grade_cell\ngrade_cell('vision', 'accuracy')", 40),
    check("speed", "grade_cell('vision', 'speed')", 20),
    check("size", "grade_cell('vision', 'size')", 20),
    check("quality", "grade_cell('vision', 'quality')", 10),
    essay("innovation", "What is new?", 10),
)


def hand_in(course, student, assignment, nb):
    folder = course.submitted(student, assignment)
    folder.mkdir(parents=True)
    path = folder / f"{assignment}.ipynb"
    if isinstance(nb, bytes):
        path.write_bytes(nb)
    else:
        nbformat.write(nb, path)
    (folder / "timestamp.txt").write_text("2026-11-20 10:00:00 UTC")


def solved(text):
    nb = nbformat.from_dict(json.loads(nbformat.writes(SOURCE)))
    nb.cells[0].source = text
    nb.cells[3].source = "Because <script>alert(1)</script>."
    return nb


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Two assignments released, a class collected and graded."""
    root = tmp_path_factory.mktemp("course")
    for name, nb in (("01_tiny", SOURCE), ("vision", TRACK)):
        (root / "source" / name).mkdir(parents=True)
        nbformat.write(nb, root / "source" / name / f"{name}.ipynb")
    (root / "nbgrader_config.py").write_text(
        'c = get_config()\nc.CourseDirectory.course_id = "tiny"\n'
        'c.ClearSolutions.code_stub = {"python": "raise NotImplementedError()"}\n'
    )
    (root / "tinytorch").mkdir()
    (root / "tinytorch" / "__init__.py").write_text("")
    for name in ("01_tiny", "vision"):
        instructor.generate(root, name)
    made = Course.at(root)
    hand_in(made, "ada", "01_tiny", solved("def f(x):\n    return x + 1"))
    nosy = "def f(x):\n    print(In[-1])\n    return 2 if x < 2 else 3"
    hand_in(made, "ben", "01_tiny", solved(nosy))
    hand_in(made, "cleo", "01_tiny", solved("import os\nos._exit(1)"))
    hand_in(made, "dan", "01_tiny", b"this is no notebook")
    hand_in(made, "eve", "01_tiny", nbformat.read(root / "release" / "01_tiny" / "01_tiny.ipynb", 4))
    return made


@pytest.fixture(scope="module")
def graded(course):
    return {j.student: j for j in batch.grade(course, "01_tiny", SETTINGS)}


def scores(course, assignment):
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        return {
            s.student.id: (s.score, s.max_score, s.needs_manual_grade)
            for s in gradebook.assignment_submissions(assignment)
        }


def test_each_gets_what_is_earned(course, graded):
    assert {name: j.points for name, j in graded.items()} == {
        "ada": 5,
        "ben": 2,
        "cleo": 0,
        "dan": 0,
        "eve": 0,
    }
    assert scores(course, "01_tiny") == {
        "ada": (5, 10, True), "ben": (2, 10, True), "cleo": (0, 10, True), "dan": (0, 10, False),
        "eve": (0, 10, False),
    }  # fmt: skip


def test_every_lost_point_has_a_reason(graded):
    reasons = {name: {c.grade_id: c.reason for c in j.cells} for name, j in graded.items()}
    assert reasons["ada"] == {"test-f": "", "test-hidden": "", "why": ""}
    assert reasons["ben"]["test-hidden"] == "a larger number fails, look at f"
    assert "The kernel stopped at cell f" in reasons["cleo"]["test-f"]
    assert "cannot be read as JSON" in reasons["dan"]["test-f"]
    assert reasons["eve"]["test-f"] == "Not implemented yet."
    assert reasons["eve"]["why"] == "No answer was given."
    assert all(j.level == LEVEL for j in graded.values())


def test_formgrader_finds_its_files(course, graded):
    for student in graded:
        nb = nbformat.read(course.root / "autograded" / student / "01_tiny" / "01_tiny.ipynb", 4)
        assert [c.metadata.nbgrader["grade_id"] for c in nb.cells] == ["f", "test-f", "test-hidden", "why"]
        nbformat.validate(nb)
        assert "<script>" not in nb.cells[3].source


def test_feedback_hides_hidden_tests(course, graded):
    pages = instructor.give_feedback(course.root, "01_tiny")
    assert {page.parent.parent.name for page in pages} == set(graded)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "secret_number" not in text and "HIDDEN" not in text and "<script>alert" not in text
    ben = (course.root / "feedback" / "ben" / "01_tiny" / "01_tiny.html").read_text(encoding="utf-8")
    assert "a larger number fails, look at f" in ben
    assert "Where points were lost" in ben and "</strong>, 0 of 3 points: " in ben
    ada = (course.root / "feedback" / "ada" / "01_tiny" / "01_tiny.html").read_text(encoding="utf-8")
    assert "test-hidden</strong>" not in ada


def test_graded_once_is_graded(course, graded, monkeypatch):
    """Nothing is judged or written again while nothing changed, and a mark given by hand stays."""
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        gradebook.find_grade("why", "01_tiny", "01_tiny", "ada").manual_score = 4
        gradebook.db.commit()
    monkeypatch.setattr(judging.execute, "run_notebook", lambda *a, **k: pytest.fail("judged again"))
    monkeypatch.setattr(records, "autograde", lambda *a, **k: pytest.fail("written again"))
    again = batch.grade(course, "01_tiny", SETTINGS)
    assert {j.student: j.points for j in again} == {name: j.points for name, j in graded.items()}
    monkeypatch.undo()
    shutil.rmtree(course.root / "autograded" / "ada")  # as a killed run leaves it: judged, not written
    batch.grade(course, "01_tiny", SETTINGS)
    assert scores(course, "01_tiny")["ada"][0] == 9


def test_nbgraders_own_autograde_leaves_a_record(course, graded, monkeypatch):
    """Formgrader's button: points in the gradebook, reasons for an export, at the level that is set."""
    from nbgrader.converters import Autograde
    from nbgrader.coursedir import CourseDirectory

    kept = records.load_record(course, "ben", "01_tiny")
    records.record_path(course, "ben", "01_tiny").unlink()
    config = records.nbgrader_config(course)
    config.CourseDirectory.assignment_id, config.CourseDirectory.student_id = "01_tiny", "ben"
    config.Judged.course = str(course.root)
    monkeypatch.setenv(sandbox.SETTING, "rlimits")
    Autograde(coursedir=CourseDirectory(config=config), config=config, force=True).start()
    found = records.load_record(course, "ben", "01_tiny")
    assert found.cells == kept.cells and scores(course, "01_tiny")["ben"][0] == found.points == 2
    assert (kept.level, found.level) == (LEVEL, "rlimits")


@pytest.mark.parametrize("words", [[], ["--replay", "ben", "01_tiny"], ["--level", "rlimits"]])
def test_less_than_the_course_demands_grades_nothing(course, graded, monkeypatch, capsys, words):
    """`tito grade` knew nothing of c.Judged.level, which formgrader went by."""
    demands = sandbox.available()[0]
    if demands == "rlimits":
        pytest.skip("no level of this machine is above rlimits")
    settings = course.root / "nbgrader_config.py"
    before = settings.read_text()
    settings.write_text(f"{before}\nc.Judged.level = {demands!r}\n")
    monkeypatch.setenv(sandbox.SETTING, "" if "--level" in words else "rlimits")
    monkeypatch.setattr(sys, "argv", ["tito", "grade", "01_tiny", "--course", str(course.root), *words])
    monkeypatch.setattr(judging.execute, "run_notebook", lambda *a, **k: pytest.fail("judged"))
    try:
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    finally:
        settings.write_text(before)
    said = capsys.readouterr().err
    assert stopped.value.code and said.startswith(f"tito: this course grades at sandbox level {demands}"), (
        said
    )
    assert said.count("\n") == 1


def test_a_failing_grader_is_no_students_fault(course, graded, monkeypatch):
    """An error of ours on one submission is noted there, and the others are graded."""
    hand_in(course, "fay", "01_tiny", solved("def f(x):\n    return x + 1  # fay"))
    kept = judging.read_submission

    def fails(path):
        if "fay" in str(path):
            raise OSError("disk full")
        return kept(path)

    monkeypatch.setattr(judging, "read_submission", fails)
    found = {j.student: j for j in batch.grade(course, "01_tiny", SETTINGS)}
    shutil.rmtree(course.root / "submitted" / "fay")
    assert "disk full" in found["fay"].stopped and not found["fay"].cells
    assert found["ada"].points == 5 and "fay" not in scores(course, "01_tiny")


def test_track_cells_get_the_trusted_scores(course, monkeypatch):
    results = {
        "gil": scorer.Result("vision", "digits", "private", True, valid=True, level=LEVEL, date="2026-11-20",
                             reasons=["accuracy 91.0% is below the record of 96.0%: 29.0 of 40 points"],
                             scores={"accuracy": 0.725, "speed": 1.0, "size": 2.0, "quality": float("nan")}),
        "hal": scorer.Result("vision", "digits", "private", True, level=LEVEL, date="2026-11-20",
                             reasons=["model.safetensors is a pickle"]),
    }  # fmt: skip
    results["gil"].scores["quality"] = 0.5
    monkeypatch.setattr(judging.scorer, "score", lambda track, folder, *a, **k: results[folder.parent.name])
    for student in results:
        forged = nbformat.from_dict(json.loads(nbformat.writes(TRACK)))
        forged.cells[1].outputs = [
            nbformat.v4.new_output("execute_result", data={"text/plain": "40.0"}, execution_count=1)
        ]
        hand_in(course, student, "vision", forged)
    found = {j.student: j for j in batch.grade(course, "vision", SETTINGS)}
    assert [c.points for c in found["gil"].cells] == [29.0, 20.0, 20.0, 5.0, None]
    assert found["gil"].cells[0].reason.startswith("accuracy 91.0% is below the record")
    assert [c.points for c in found["hal"].cells[:4]] == [0, 0, 0, 0]
    assert found["hal"].cells[0].reason == "INVALID: model.safetensors is a pickle"
    assert scores(course, "vision")["gil"][:2] == (74.0, 100.0)


def test_what_cannot_be_graded_is_said(course):
    with pytest.raises(GradingError, match="is missing"):
        batch.grade(course, "99_nothing", SETTINGS)
    with pytest.raises(GradingError, match="tito collect"):
        batch.grade(course, "01_tiny", SETTINGS, students=["nobody"])


def test_a_course_says_what_its_tracks_are_scored_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path))  # no CIFAR-10 there
    settings = tmp_path / "nbgrader_config.py"
    settings.write_text("c = get_config()\n")
    assert instructor._dataset(tmp_path, ["vision"]) == "digits"
    settings.write_text("c = get_config()\nc.Judged.dataset = 'cifar10'\n")
    assert instructor._dataset(tmp_path, ["vision"]) == "cifar10"
    settings.write_text("import nothing_of_the_kind\n")
    with pytest.raises(GradingError, match="nbgrader_config.py cannot be read .*nothing_of_the_kind"):
        instructor._dataset(tmp_path, ["vision"])
