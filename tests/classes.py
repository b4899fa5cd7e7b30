"""A simulated class for the load tests: honest, wrong, broken and hostile submissions with known points."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder import sandbox
from autograder.course import Course
from autograder.notebooks.rebuild import grade_id, unsolved
from tests.exploits.notebooks import loose
from tests.mutants import ROOT, grade, mutants, mutate

CONFIG = """c = get_config()
c.CourseDirectory.course_id = "class"
c.CourseDirectory.root = {root!r}
c.ClearSolutions.code_stub = {{"python": "# YOUR CODE HERE\\nraise NotImplementedError()"}}
"""
# In place of the first answer of an otherwise untouched notebook: worth nothing, whatever it tries.
HOSTILE = {
    "ends the kernel": "import os\nos._exit(0)",
    "crashes it": "import ctypes\nctypes.string_at(0)",
    "never ends": "while True:\n    pass",
    "eats memory": "held = []\nwhile True:\n    held.append(bytearray(b'1' * 50_000_000))",
    "fork bomb": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
    "patched numpy": "import numpy as np\nnp.allclose = np.array_equal = np.isclose = lambda *a, **k: True\n"
    "np.testing.assert_allclose = lambda *a, **k: None",
    "hides errors": "get_ipython().set_custom_exc((BaseException,), lambda *a, **k: None)",
    "asserts removed": "import builtins\nbuiltins.AssertionError = KeyboardInterrupt",
    "writes forever": "import sys\nfor _ in range(10**6):\n    print('x' * 1000)",
    "kills its parents": "import os, signal\nfor pid in (os.getppid(), -1):\n"
    "    os.kill(pid, signal.SIGKILL)",
    "orphans": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(3600)",
}
BROKEN = {
    "no JSON": b"this is no notebook",
    "empty": b"",
    "a list": b"[1, 2, 3]",
    "cut in the middle": None,
    "no file": None,
}


@dataclass(frozen=True)
class Handed:
    """One submission of the class: what it is, and the points it must get where no person grades."""

    student: str
    assignment: str
    kind: str
    points: float


def make(
    root: Path, assignments: Sequence[str], students: int, *, hostile_every: int = 5
) -> tuple[Course, list[Handed]]:
    """A course with these lessons and a class that has handed in, every fifth time something bad.

    The others go through the reference solution and the wrong ones of tests/mutants, in turn.
    """
    root.mkdir(parents=True)
    (root / "nbgrader_config.py").write_text(CONFIG.format(root=str(root)))
    for folder in ("source", "release"):
        for name in assignments:
            shutil.copytree(ROOT / folder / name, root / folder / name)
    course = Course(root, ROOT / "tinytorch")
    handed = []
    for name in assignments:
        source = nbformat.read(course.source(name), 4)
        kinds = ["reference", *mutants(name)]
        worth = {str(kind): _points(name, kind) for kind in kinds}
        bad = [*(kind for kind in HOSTILE if not loose(HOSTILE[kind], sandbox.choose())), *BROKEN]
        for k in range(students):
            student, (turn, place) = f"s{k:05d}", divmod(k, hostile_every)
            if place == hostile_every - 1:
                kind, points = bad[turn % len(bad)], 0.0
                content = _bad(source, kind, student)
            else:
                what = kinds[(turn * (hostile_every - 1) + place) % len(kinds)]
                kind, points = what if isinstance(what, str) else what.name, worth[str(what)]
                nb = copy.deepcopy(source)
                content = _signed(nb if isinstance(what, str) else mutate(nb, what), student)
            folder = course.submitted(student, name)
            folder.mkdir(parents=True)
            (folder / "timestamp.txt").write_text("2026-11-20 10:00:00 UTC")
            if content is not None:
                (folder / f"{name}.ipynb").write_bytes(content)
            handed.append(Handed(student, name, kind, points))
    return course, handed


def _points(lesson: str, what: object) -> float:
    return sum(result.points or 0.0 for result in grade(lesson, what, quick=True))  # type: ignore[arg-type]


def _bad(source: NotebookNode, kind: str, student: str) -> bytes | None:
    nb = unsolved(source)
    if kind == "cut in the middle":
        whole = _signed(nb, student)
        return whole[: len(whole) // 2]
    if kind in BROKEN:
        return BROKEN[kind]
    _answers(nb)[0].source = HOSTILE[kind]
    return _signed(nb, student)


def _signed(nb: NotebookNode, student: str) -> bytes:
    """The notebook's bytes, with the student's name in a comment: no two submissions are the same."""
    cell = _answers(nb)[-1]
    cell.source = f"{cell.source}\n# {student}"
    return json.dumps(nb).encode()


def _answers(nb: NotebookNode) -> list[NotebookNode]:
    return [
        cell
        for cell in nb.cells
        if grade_id(cell) and cell.cell_type == "code" and cell.metadata.nbgrader.get("solution")
    ]
