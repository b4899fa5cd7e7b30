"""A student's first day: from the bundle to module 01 completed, in JupyterLab, by mouse and keyboard."""

from __future__ import annotations

import subprocess
from pathlib import Path

import nbformat
import pytest

from tests.browser.lab import open_notebook

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]


def solutions(lesson: str) -> dict[str, str]:
    """The solved cells of a lesson, as a student might type them: grade_id -> source."""
    nb = nbformat.read(ROOT / "source" / lesson / f"{lesson}.ipynb", 4)
    return {
        cell.metadata.nbgrader.grade_id: cell.source
        for cell in nb.cells
        if cell.metadata.get("nbgrader", {}).get("solution") and cell.cell_type == "code"
    }


def test_module_01_from_release_to_complete(page, shots, student, tito_lab, tmp_path):
    done = subprocess.run([student, "init", "my_olympics"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ws = tmp_path / "my_olympics"
    address = tito_lab(ws)
    page.goto(address)
    page.wait_for_selector(".jp-LabShell")
    page.wait_for_timeout(3000)
    shots(page, "day-1-start")

    lesson = open_notebook(page, address, "01_tensor/01_tensor.ipynb")
    shots(page, "day-2-notebook")
    cells = lesson.cells()
    lesson.run(next(i for i, cell in enumerate(cells) if cell["type"] == "code"))
    first = next(i for i, cell in enumerate(cells) if cell["grade"])
    lesson.run(first)
    shots(page, "day-3-not-solved-yet")
    for grade_id, source in solutions("01_tensor").items():
        lesson.type(lesson.find(grade_id), source)
    lesson.run_all()
    shots(page, "day-4-all-run")
    wrong = [c["grade_id"] for c in lesson.cells()
             if c["grade"] and any(o["output_type"] == "error" for o in c["outputs"])]  # fmt: skip
    assert wrong == []
    lesson.save()
