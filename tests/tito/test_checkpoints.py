"""What a student sees under a cell in JupyterLab, in real kernels; and that graders see nothing of it."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from kernels import REPO, Kernel, kernel
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from small_course import edit, release, solve

from tito import boxes
from tito import session as notebook
from tito.notebook import checkpoints, complete
from tito.student import places, workspace
from tito.student.workspace import Workspace


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """Two lessons; in each, cell ids are the grade ids, and `%tito complete` is the last cell."""
    made, _ = workspace.init(tmp_path / "ws", release(tmp_path / "release"))
    for name in made.modules():
        nb = nbformat.read(made.notebook(name), 4)
        nb.cells.append(new_code_cell("%tito complete", metadata={"tags": ["measure"]}))
        nb.cells[-1].metadata["nbgrader"] = {"grade_id": "complete", "locked": True}
        for cell in nb.cells:
            cell.id = cell.metadata.get("nbgrader", {}).get("grade_id", cell.id)
        nbformat.write(nb, made.notebook(name))
    return made


def run(at: Kernel, ws: Workspace, *names: str, lesson: str = "01_tensor") -> list[dict[str, Any]]:
    """Run cells of the notebook's file, as JupyterLab does; the outputs of the last."""
    cells = {cell.id: cell.source for cell in nbformat.read(ws.notebook(lesson), 4).cells}
    found: list[dict[str, Any]] = []
    for name in names:
        found = at.run(cells[name], name)
    return found


def said(outputs: list[dict[str, Any]]) -> str:
    return str(outputs[-1]["data"]["text/plain"])


def test_a_fetched_notebook_makes_its_folder_a_workspace(tmp_path: Path, ws: Workspace) -> None:
    """nbgrader's assignment list puts a notebook into a home that `tito init` has never seen."""
    place = tmp_path / "home" / "01_tensor" / "01_tensor.ipynb"
    place.parent.mkdir(parents=True)
    place.write_bytes(ws.notebook("01_tensor").read_bytes())
    with kernel(place.parent, place) as at:
        (output,) = at.run("%load_ext tito\n%tito lesson 01", "setup")
    assert f"{tmp_path / 'home'} is your workspace now" in output["text"]
    made = places.find(place.parent)
    assert made.root == tmp_path / "home" and made.modules() == ["01_tensor"]
    # a grader, or a notebook that lies anywhere, makes none
    other = tmp_path / "other" / "notes"
    other.mkdir(parents=True)
    nb = nbformat.v4.new_notebook(cells=[new_code_cell("%load_ext tito\n%tito lesson 01")])
    NotebookClient(nb, allow_errors=True, resources={"metadata": {"path": str(other)}}).execute()
    assert nb.cells[0].outputs[0].ename == "TitoError" and not (tmp_path / "other" / ".tito").exists()


def test_under_each_check_stands_how_it_went(ws: Workspace) -> None:
    place = ws.notebook("01_tensor")
    with kernel(place.parent, place) as at:
        found = run(at, ws, "setup", "test-double")
        assert said(found) == (
            "✗ Not yet 0 of 2 points · test-double\n"
            "  NameError: name 'double' is not defined\n"
            "  look at: cell double, which has not run in this kernel yet: "
            "run it, or Run > Run All Above Selected Cell"
        )
        found = run(at, ws, "double", "test-double")
        assert said(found) == "○ Open 0 of 2 points · test-double\n  not solved yet: cell double"
        assert [output["kind"] for output in found] == ["error", "display_data"]
        assert '<a href="#cell-id=double">double</a>' in found[-1]["data"]["text/html"]

        solve(place, "double", "return x * 3")
        assert said(run(at, ws, "double", "test-double")).splitlines()[1:] == [
            "  double(2): expected 4, got 6, see double",
            "  look at: cell double",
        ]
        edit(place, "double", lambda source: source.replace("x * 3", "x + x"))
        found = run(at, ws, "double", "test-double")
        assert said(found) == "✓ Passed 2 points · test-double\n  checked: double"
        assert [output["kind"] for output in found] == ["display_data"]
        assert not at.run("1", "an-id-that-no-file-has")[1:], "an unsaved cell gets no box"


def test_an_example_names_the_unsolved_cell(ws: Workspace) -> None:
    place = ws.notebook("01_tensor")
    with kernel(place.parent, place) as at:
        run(at, ws, "setup", "double")
        found = at.run("double(1)", "figure")  # a cell of the file that is not graded
        assert said(found) == "○ Open not solved yet: cell double"
        place.write_text("{half-writ")
        assert [output["kind"] for output in at.run("double(1)", "figure")] == ["error"]


@pytest.mark.parametrize("session", [True, False], ids=["inside a session", "outside"])
def test_a_grader_sees_no_difference(ws: Workspace, session: bool) -> None:
    """nbclient, even started from a notebook's kernel: the same outputs as without any of this."""
    place = ws.notebook("01_tensor")
    solve(place, "double", "return x * 3 if isinstance(x, int) else x + x")
    nb = nbformat.read(place, 4)
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    env.pop("JPY_SESSION_NAME", None)
    if session:
        env["JPY_SESSION_NAME"] = str(place)
    client = NotebookClient(
        nb, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(place.parent)}},
        extra_arguments=["--log-level=ERROR"],
    )  # fmt: skip
    client.execute(env=env)
    outputs = {cell.id: [o.output_type for o in cell.outputs] for cell in nb.cells if "outputs" in cell}
    figure = next(cell.id for cell in nb.cells if cell.source.startswith("raise RuntimeError"))
    silent = {"setup": [], "double": [], "test-list": [], "complete": []}
    assert outputs == {**silent, "test-double": ["error"], figure: ["error"]}


def test_complete_shows_a_table_and_exports(ws: Workspace) -> None:
    place = ws.notebook("01_tensor")
    solve(place, "double", "return x * 3 if isinstance(x, int) else x + x")
    with kernel(place.parent, place) as at:
        run(at, ws, "setup", "double")
        found = run(at, ws, "complete")
        assert found[0]["kind"] == "display_data", found
        assert {output["kind"] for output in found[1:]} == {"update_display_data"}, "one output, updated"
        assert any("fresh kernel, cell" in str(output["data"]) for output in found), "no progress was shown"
        text, html = said(found), found[-1]["data"]["text/html"]
        assert text.startswith(
            "✗ Not yet 01_tensor: 1 of 2 checks, 2 of 4 points\n  FAIL  test-double  2  double(2)"
        )
        assert '<th scope="col"' in html and 'href="#cell-id=test-double"' in html
        assert "<script" not in html, "what stays in the file saves nothing when it is opened again"
        assert not (ws.package / "tensor.py").exists()

        edit(place, "double", lambda source: source.replace(" * 3 if isinstance(x, int) else x + x", " + x"))
        run(at, ws, "double")
        text = said(run(at, ws, "complete"))
        assert "✓ Passed 01_tensor: 2 of 2 checks, 4 of 4 points" in text
        assert "Written: tinytorch/tensor.py" in text and "Next: 02_activations" in text
        assert (ws.package / "tensor.py").is_file()
        page = (ws.root / "Start.md").read_text()
        assert "**1 of 2 lessons completed.** Next: go on with [Lesson 02](02_activations/" in page


def test_what_comes_next(ws: Workspace) -> None:
    """After the only lesson that was fetched came the tracks, which were not there either."""

    def after(lesson: str) -> str:
        report = {"exported": str(ws.package / "x.py"), "module": lesson, "notes": []}
        return complete._after(ws, report, "12:00:00")[-1][1]

    assert after("01_tensor") == "Next: 02_activations/02_activations.ipynb"
    assert after("02_activations") == "Next: fetch the assignment that comes after it."
    (ws.root / "vision").mkdir()
    ws.notebook("vision").write_bytes(ws.notebook("01_tensor").read_bytes())
    assert after("02_activations") == "Next: the tracks, on the start page."


def test_a_notebook_that_is_being_written_is_waited_for(ws: Workspace) -> None:
    """The file was looked at while JupyterLab wrote it, and every cell was said not to be in it."""
    file = ws.notebook("01_tensor")
    text = file.read_bytes()

    def slowly() -> None:
        time.sleep(0.2)
        file.write_bytes(text[: len(text) // 2])
        time.sleep(0.4)
        file.write_bytes(text)

    writer = threading.Thread(target=slowly)
    writer.start()
    assert complete._saved(file) and file.read_bytes() == text
    writer.join()


def test_a_file_that_cannot_be_read_is_said_once(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "latest", {"double": "x", "other": "y", "third": "z"})
    file = ws.notebook("01_tensor")
    assert complete.differing(file) == ["double", "a cell that you added"]
    file.write_text("{ half")
    assert complete.differing(file) == ["the whole notebook"]


def test_what_is_not_saved_is_not_tested(ws: Workspace) -> None:
    place = ws.notebook("01_tensor")
    solve(place, "double")
    with kernel(place.parent, place) as at:
        run(at, ws, "setup")
        at.run("#| export\nan = 'edit that is in the browser only'", "double")
        found = run(at, ws, "complete")
    assert said(found).startswith("✗ Not yet this notebook is not saved, nothing was tested\n")
    assert "in: double" in said(found) and "Ctrl-S" in said(found)
    assert "docmanager:save" in found[-1]["data"]["text/html"]
    assert "completed" not in str(ws.progress()) and not (ws.package / "tensor.py").exists()


def test_an_interrupt_ends_the_subprocess(ws: Workspace) -> None:
    place = ws.notebook("01_tensor")
    edit(place, "double", lambda source: "import time\ntime.sleep(60)")
    with kernel(place.parent, place) as at:
        run(at, ws, "setup")
        asked = at.send("%tito complete", "complete")
        at.outputs(asked, lambda output: "fresh kernel, cell" in str(output.get("data", "")))
        own = psutil.Process(at.manager.provisioner.pid)  # type: ignore[attr-defined]
        children = own.children(recursive=True)
        assert len(children) >= 2, "tito and its kernel"
        at.manager.interrupt_kernel()
        rest = at.outputs(asked)
        assert "interrupted, nothing was exported" in rest[-1]["evalue"]
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive, "a process was left behind"
    assert "completed" not in str(ws.progress()) and not list(ws.private.glob("draft-*"))
    assert not (ws.package / "tensor.py").exists()


def test_a_bar_is_one_line_in_a_notebook(ws: Workspace) -> None:
    """A carriage return comes through, so that the front-end redraws the line and does not add one."""
    place = ws.notebook("01_tensor")
    solve(place, "double")
    with kernel(place.parent, place) as at:
        run(at, ws, "setup")
        found = at.run("%tito module complete 01", "somewhere")
    text = "".join(output["text"] for output in found if output["kind"] == "stream")
    assert text.count("\r") >= 2 and "cell" in text, text
    shown = [re.sub(r".*\r", "", line) for line in text.splitlines()]
    assert len(text.replace("\r", "").split("\n")) < 8 and shown[-1].startswith(
        "01_tensor: 2 of 2 checks passed"
    )


def test_hostile_text_is_escaped() -> None:
    cell = checkpoints.Cell("c", "assert f()", {"grade": True, "grade_id": "c<b>", "points": 1})
    shown = checkpoints.said(cell, [cell], AssertionError("<script>alert(1)</script>"))
    assert "<script" not in shown["text/html"] and "<b>" not in shown["text/html"].split("</b>", 1)[1]
    row = complete._row({"name": '"><i>', "passed": False, "points": 1, "reason": "<script>"})
    assert "<script" not in row and "<i>" not in row
    assert "'><" not in boxes.button("<a>", ["b'><"], "x") and "<a>" not in boxes.button("<a>", [], "x")


def test_points_of_a_track_cell() -> None:
    cell = checkpoints.Cell("speed", "grade_cell()", {"grade": True, "grade_id": "speed", "points": 20})
    words = [checkpoints.said(cell, [cell], None, value)["text/plain"] for value in (20.0, 7.5, 0.0)]
    assert words == [
        "✓ Passed 20 of 20 points · speed",
        "◐ In part 7.5 of 20 points · speed",
        "✗ Not yet 0 of 20 points · speed",
    ]


def test_a_name_that_is_missing_is_looked_for_in_every_cell_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart `np` was said to be in the solution cell that the check uses; it is in the imports."""
    cells = [
        checkpoints.Cell("a", "#| export\nimport numpy as np", {"grade_id": "imports"}),
        checkpoints.Cell("b", "def one(x):\n    return x", {"solution": True, "grade_id": "one"}),
        checkpoints.Cell("c", "x = one(3)\nprint(x)", {}),
        checkpoints.Cell(
            "d", "assert one(np.ones(x)) == 3", {"grade": True, "grade_id": "test", "points": 1}
        ),
    ]
    again = ", which has not run in this kernel yet: run it, or Run > Run All Above Selected Cell"
    monkeypatch.setattr(notebook, "latest", {"b": cells[1].source})
    for name, where in (("np", "imports"), ("x", "x = one(3)")):
        found = checkpoints.hint(cells[3], cells, NameError(f"name {name!r} is not defined", name=name))
        assert found and found.text == f"cell {where}{again}"
    monkeypatch.setattr(notebook, "latest", {cell.id: cell.source for cell in cells})
    found = checkpoints.hint(cells[3], cells, NameError("name 'np' is not defined", name="np"))
    assert found and found.text == "cell one, run it again"


def test_the_hint_is_where_the_error_was_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several answers the one that a check's failed line uses, else the one right above it."""
    cells = [
        checkpoints.Cell("one", "def one(x):\n    return x", {"solution": True, "grade_id": "one"}),
        checkpoints.Cell("two", "def two(x):\n    return one(x) + 1", {"solution": True, "grade_id": "two"}),
        checkpoints.Cell(
            "test", "assert two(1) == 3, 'no'", {"grade": True, "grade_id": "test", "points": 1}
        ),
        checkpoints.Cell("late", "def late():\n    pass", {"solution": True, "grade_id": "late"}),
    ]
    monkeypatch.setattr(notebook, "latest", {cell.id: cell.source for cell in cells})
    found = checkpoints.hint(cells[2], cells, AssertionError("no"))
    assert found and found.text == "cell two"
    plain = checkpoints.Cell("t", "assert [1] == [2]", {"grade": True, "grade_id": "t", "points": 1})
    found = checkpoints.hint(plain, [*cells[:2], plain, cells[3]], AssertionError("no"))
    assert found and found.text == "cell two", "names tell nothing: the answer right above"
