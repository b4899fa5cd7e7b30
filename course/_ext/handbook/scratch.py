"""The folders in which a page's commands run, and the steps a page may ask for between them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[3]
START = {"course": "course"}  # where in the home folder the first command runs
_CONFIG = """c = get_config()
c.CourseDirectory.course_id = "olympics"
c.CourseDirectory.root = {root!r}
c.Exchange.root = {exchange!r}
c.ClearSolutions.code_stub = {{"python": "# YOUR CODE HERE\\nraise NotImplementedError()"}}

from autograder.pipeline import configure

configure(c)
"""


def new(kind: str) -> Path:
    """A fresh home folder; `course` has a small course in it. Raises ValueError for another kind."""
    home = Path(tempfile.mkdtemp(prefix="handbook-"))
    if kind == "course":
        _course(home)
    elif kind != "empty":
        raise ValueError(f"console: in {kind}: expected empty or course")
    return home


def step(home: Path, words: str) -> str:
    """Do one named step in a page's folder; returns the sentence that the page then shows."""
    name, *arguments = words.split()
    steps = {"solve": _solve, "only": _only, "half": _half, "hand-in": _hand_in, "file": _file}
    if name not in steps:
        raise ValueError(f"console: after {name}: expected one of {', '.join(steps)}")
    return steps[name](home, *arguments)


def _solve(home: Path, lesson: str) -> str:
    """The reference solution in place of a student's work."""
    notebook = home / "my_olympics" / lesson / f"{lesson}.ipynb"
    shutil.copyfile(ROOT / "source" / lesson / f"{lesson}.ipynb", notebook)
    return f"For this page the course's own solution of {lesson} was put in place of a student's work."


def _only(home: Path, lesson: str, grade_id: str) -> str:
    """The released notebook with one exercise solved."""
    notebook = home / "my_olympics" / lesson / f"{lesson}.ipynb"
    nb = nbformat.read(ROOT / "release" / lesson / f"{lesson}.ipynb", 4)
    solved = nbformat.read(ROOT / "source" / lesson / f"{lesson}.ipynb", 4)
    _cell(nb, grade_id).source = _cell(solved, grade_id).source
    nbformat.write(nb, notebook)
    return f"For this page the exercise `{grade_id}` has been solved, and no other."


def _half(home: Path, lesson: str, grade_id: str) -> str:
    """The reference solution with one exercise left open."""
    _solve(home, lesson)
    notebook = home / "my_olympics" / lesson / f"{lesson}.ipynb"
    _leave_open(notebook, lesson, grade_id)
    return f"For this page everything but the exercise `{grade_id}` has been solved."


def _hand_in(home: Path, lesson: str) -> str:
    """Two submissions, as nbgrader's collect leaves them."""
    for student, when in (("ada", "2026-11-20 10:00:00 UTC"), ("ben", "2026-11-22 09:30:00 UTC")):
        folder = home / "course" / "submitted" / student / lesson
        folder.mkdir(parents=True)
        (folder / "timestamp.txt").write_text(when)
        shutil.copyfile(ROOT / "source" / lesson / f"{lesson}.ipynb", folder / f"{lesson}.ipynb")
    _leave_open(folder / f"{lesson}.ipynb", lesson, "broadcast_shape")
    return (
        "For this page ada has handed in the course's own solution, and ben one with an exercise left open."
    )


def _file(home: Path, path: str, *words: str) -> str:
    """A file of one line, such as a setting."""
    (home / path).parent.mkdir(parents=True, exist_ok=True)
    (home / path).write_text(" ".join(words) + "\n")
    return f"For this page a file `{path}` was written."


def _leave_open(notebook: Path, lesson: str, grade_id: str) -> None:
    released = nbformat.read(ROOT / "release" / lesson / f"{lesson}.ipynb", 4)
    nb = nbformat.read(notebook, 4)
    _cell(nb, grade_id).source = _cell(released, grade_id).source
    nbformat.write(nb, notebook)


def _cell(nb: nbformat.NotebookNode, grade_id: str) -> nbformat.NotebookNode:
    (found,) = (cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id)
    return found


def _course(home: Path) -> None:
    root = home / "course"
    root.mkdir()
    config = _CONFIG.format(root=str(root), exchange=str(home / "exchange"))
    (root / "nbgrader_config.py").write_text(config)
    (home / "exchange").mkdir(mode=0o777)
    (home / "exchange").chmod(0o777)
    shutil.copytree(ROOT / "source" / "01_tensor", root / "source" / "01_tensor")
    (root / "course").mkdir()
    shutil.copyfile(ROOT / "course" / "leaderboard.ipynb", root / "course" / "leaderboard.ipynb")
    shutil.copyfile(ROOT / "course" / "deadlines.toml", root / "course" / "deadlines.toml")
