"""course/instructor/adding.md to the letter: a 20th lesson and a fifth track, built, released and graded."""

import copy
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from safetensors.numpy import save_file

from autograder import sandbox
from autograder.data import datasets
from tests.submissions import TINYTORCH
from tito.build import scaffold
from tito.errors import TitoError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "course" / "_ext" / "handbook"))  # not the package: that needs Sphinx
import scratch  # noqa: E402

sys.path.pop(0)
GUIDE = (ROOT / "course" / "instructor" / "adding.md").read_text(encoding="utf-8")
PIECES = re.findall(r"^```\{goes-into\} (\S+)\n:(before|behind): (\w+)\n(.*?)^```", GUIDE, re.M | re.S)
COMMANDS = [
    line
    for block in re.findall(r"^```\{console\}\n(.*?)^```", GUIDE, re.M | re.S)
    for line in block.splitlines()
    if line.startswith("tito course") or line.startswith("tito build")
]


class Repository:
    """A copy of the repository, and its own tito."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *words: str, code: int = 0, module: str = "tito") -> str:
        env = {**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=self.root,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The copy after every step of the guide."""
    home = tmp_path_factory.mktemp("adding")
    scratch.copy_repository(home)
    made = Repository(home / "repository")
    track = COMMANDS.index("tito course new-track noisy")
    assert "give it an entry in TRACKS" in made(*shlex.split(COMMANDS[track])[1:], code=1)
    for file, where, line, text in PIECES:
        scratch.insert(made.root / file, line, text, before=where == "before")
    for command in COMMANDS:
        program, *words = shlex.split(command)
        assert program == "tito"
        made(*words)
    return made


@pytest.fixture(scope="module")
def course(repository, tmp_path_factory):
    """A course with the new lesson and the new track, released."""
    root = tmp_path_factory.mktemp("taught") / "dl"
    repository("course", "init", str(root), "--weeks", "2")
    for name in ("20_smoothing", "noisy"):
        repository("release", name, "--course", str(root))
    return root


def hand_in(course, student, assignment, nb):
    folder = course / "submitted" / student / assignment
    folder.mkdir(parents=True)
    nbformat.write(nb, folder / f"{assignment}.ipynb")
    (folder / "timestamp.txt").write_text("2026-11-20 10:00:00 UTC")
    return folder


def graded(repository, course, assignment, *options):
    out = repository(
        "grade", assignment, "--course", str(course), "--json", "--level", sandbox.choose(), *options
    )
    done = next(json.loads(line) for line in out.splitlines() if '"event": "done"' in line)
    return {grade["student"]: grade for grade in done["grades"]}


def test_the_guide_has_what_the_test_follows():
    assert COMMANDS == ["tito course new-lesson 20_smoothing", "tito build 20_smoothing",
                        "tito course new-track noisy", "tito build noisy"]  # fmt: skip
    assert [piece[:3] for piece in PIECES] == [
        ("autograder/scoring/tracks.py", "before", "MEASURES"),
        ("autograder/scoring/tracks.py", "behind", "MEASURES"),
        ("autograder/scoring/rules.py", "behind", "TRACKS"),
    ]  # fmt: skip


def test_a_twentieth_lesson(repository, course):
    assert '"smoothing": "20"' in (repository.root / "tito" / "package" / "names.py").read_text()
    assert "def smoothing_means" in (repository.root / "tinytorch" / "smoothing.py").read_text()
    released = course / "release" / "20_smoothing" / "20_smoothing.ipynb"
    assert "cumsum" not in released.read_text()
    right = nbformat.read(course / "source" / "20_smoothing" / "20_smoothing.ipynb", 4)
    wrong = copy.deepcopy(right)
    (cell,) = [c for c in wrong.cells if c.metadata.get("nbgrader", {}).get("solution")]
    cell.source = cell.source.replace("/ n", "/ (n + 1)")
    hand_in(course, "ada", "20_smoothing", right)
    hand_in(course, "ben", "20_smoothing", wrong)
    hand_in(course, "cleo", "20_smoothing", nbformat.read(released, 4))
    found = graded(repository, course, "20_smoothing")
    assert {student: grade["points"] for student, grade in found.items()} == {"ada": 5, "ben": 1, "cleo": 0}
    assert "expected [2, 4, 6]" in " ".join(found["ben"]["lost"])


def test_its_wrong_solutions_are_caught(repository):
    out = repository("20_smoothing", module="tests.mutants")
    judged = re.findall(r"^(ok |BAD) (.+?): ([0-9.]+) of 5 points", out, re.M)
    assert {name: (verdict, float(points)) for verdict, name, points in judged} == {
        "reference": ("ok ", 5), "release": ("ok ", 0), "sums, not means": ("ok ", 1),
        "one window short": ("ok ", 1), "no check": ("ok ", 4),
    }  # fmt: skip


@pytest.fixture(scope="module")
def measured(repository, course):
    """What the new track gives a right entry and a wrong one."""
    nb = nbformat.read(course / "source" / "noisy" / "noisy.ipynb", 4)
    train = datasets.load("digits", "train")
    x = train.images.reshape(len(train), -1) / 255.0
    x = x - x.mean(axis=1, keepdims=True)
    y = np.eye(10)[train.labels]
    ridge = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ y)
    for student, weight in (("ada", ridge), ("ben", np.zeros_like(ridge))):
        folder = hand_in(course, student, "noisy", nb)
        (folder / "tinytorch").mkdir()
        (folder / "tinytorch" / "__init__.py").write_text(TINYTORCH)
        save_file({"weight": weight.astype(np.float32)}, folder / "model.safetensors")
        (folder / "training.json").write_text(json.dumps({"seconds": 2.0, "epochs": 1, "history": []}))
    return graded(repository, course, "noisy", "--dataset", "digits")


def test_a_fifth_track(repository, course, measured):
    assert "seen through noise" in repository("olympics", "rules", "--track", "noisy")
    assert measured["ada"]["points"] > 60 > 35 > measured["ben"]["points"]
    record = json.loads((course / "grading" / "graded" / "noisy" / "ada.json").read_text())
    assert record["track"]["valid"] and record["track"]["metrics"]["accuracy"] > 0.9, record["track"]
    out = repository("course", "grades", "ben", "--course", str(course))
    assert "noisy 2 of 2" in out and "code quality" in out


def test_the_fifth_track_stands_on_the_board(repository, course, measured):
    repository("export", "--course", str(course), "--names", "id")
    repository("leaderboard", "--course", str(course))
    page = (course / "leaderboard.html").read_text(encoding="utf-8")
    (section,) = re.findall(
        r'<section class="track" id="noisy".*?(?=<section class="track"|<h2 id="how)', page, re.S
    )
    assert "Classify pictures that are seen through noise" in section and 'href="#noisy"' in page
    rows = re.findall(
        r'<tr data-e=\d+><td>(\d)<th scope="row"><a href="(.*?)"><bdi>(.*?)</bdi></a><td data-v=([\d.]+)>',
        section,
    )
    assert [(rank, name) for rank, _, name, _ in rows] == [("1", "ada"), ("2", "ben")]
    assert [float(points) for *_, points in rows] == pytest.approx(
        [measured[n]["points"] for n in ("ada", "ben")], abs=0.05
    )
    assert "Better is up and to the left." in section
    for picture in ("plot-noisy-digits", "history-noisy-digits"):
        (figure,) = re.findall(rf'<figure id="{picture}">.*?</figure>', section, re.S)
        assert figure.count('class="mark graded"') >= 2 and ">ada<" in figure, picture
    assert "sum of 5 scores" in page and "the four scores" not in page
    entry = (course / rows[0][1]).read_text(encoding="utf-8")
    for text in ("<dd>Noisy, Digits", "Rank</dt><dd>1 of 2", "Accuracy</th>", "grade --replay ada noisy"):
        assert text in entry, text


def test_what_is_taken_is_said(repository):
    for make, name, says in (
        (scaffold.new_lesson, "20_other", "has that number or name already"),
        (scaffold.new_lesson, "21_tensor", "has that number or name already"),
        (scaffold.new_lesson, "smoothing", "expected a name like"),
        (scaffold.new_track, "vision", "is there already"),
        (scaffold.new_track, "speed", "begin with a copy of"),
        (scaffold.new_track, "../up", "expected a Python name"),
    ):
        with pytest.raises(TitoError, match=says):
            make(name, repository.root)
