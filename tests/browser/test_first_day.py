"""A student's first day: from the bundle to module 01 completed, in JupyterLab, by mouse and keyboard."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

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
    start = page.locator(".jp-MarkdownViewer, .jp-RenderedMarkdown").first
    expect(start).to_contain_text("not begun")
    shots(page, "day-1-start")
    page.get_by_role("menuitem", name="Nbgrader", exact=True).click()  # what is for teachers is not in it
    entries = page.locator(".lm-Menu-content .lm-Menu-item").filter(visible=True)
    expect(entries).to_have_text(["Assignment List"])
    page.keyboard.press("Escape")

    lesson = open_notebook(page, address, "01_tensor/01_tensor.ipynb")
    shots(page, "day-2-notebook")
    cells = lesson.cells()
    lesson.run(next(i for i, cell in enumerate(cells) if cell["type"] == "code"))
    first = next(i for i, cell in enumerate(cells) if cell["grade"])
    lesson.run(first)
    assert "tito-box" in lesson.text(first)  # what is open, beside the cell
    shots(page, "day-3-not-solved-yet")
    for grade_id, source in solutions("01_tensor").items():
        lesson.type(lesson.find(grade_id), source)
    lesson.run_all()
    shots(page, "day-4-all-run")
    wrong = [c["grade_id"] for c in lesson.cells()
             if c["grade"] and any(o["output_type"] == "error" for o in c["outputs"])]  # fmt: skip
    assert wrong == []
    passed = lesson.find(cells[first]["grade_id"])
    lesson.go(passed)
    assert "tito-pass" in lesson.text(passed)
    shots(page, "day-5-passed")
    lesson.save()
    lesson.run(lesson.find("complete"))  # tests in a fresh kernel, and exports
    assert "13 of 13 checks" in lesson.text(lesson.find("complete"))
    lesson.go(lesson.find("complete"))
    shots(page, "day-6-completed")
    assert (ws / "tinytorch" / "tensor.py").is_file()
    page.get_by_role("button", name="Show the start page").last.click()
    expect(page.locator(".jp-MarkdownViewer").first).to_contain_text("1 of 19 lessons completed")
    shots(page, "day-7-progress")


def test_training_is_drawn_interrupted_and_resumed(page, shots, student, tito_lab, tmp_path):
    """The vision track on digits, with a package of one's own: the reference stands for it."""
    ws = tmp_path / "my_olympics"
    done = subprocess.run([student, "init", ws], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.copytree(ROOT / "tinytorch", ws / "tinytorch", dirs_exist_ok=True)
    shutil.copyfile(ROOT / "source" / "vision" / "vision.ipynb", ws / "vision" / "vision.ipynb")
    track = open_notebook(page, tito_lab(ws), "vision/vision.ipynb")
    cells = track.cells()
    train = next(i for i, cell in enumerate(cells) if "LivePlot(" in cell["source"])
    code = [i for i, cell in enumerate(cells[:train]) if cell["type"] == "code" and not cell["grade"]]
    track.run(code)
    track.go(train)
    track.watch()
    page.keyboard.press("Control+Enter")
    live = page.locator("figure.tito-live")
    expect(live.locator("img")).to_have_attribute("alt", re.compile("[1-9]"))
    expect(live).to_contain_text(re.compile(r"epoch [2-9]"))
    shots(page, "training-1-live")
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Interrupt Kernel")).click()
    track.wait()
    shots(page, "training-2-interrupted")
    assert list((ws / "vision").glob("checkpoint-*"))
    track.run(train)
    track.go(train)
    shots(page, "training-3-resumed")
    assert not any(output["output_type"] == "error" for output in track.cells()[train]["outputs"])
