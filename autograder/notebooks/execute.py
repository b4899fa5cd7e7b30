"""Run one notebook in the sandbox and judge its graded cells; what comes back is data, never an exception.

The student's cells run in one sandbox, the graded cells in another (`notebooks.cells`). Outside, we keep the
notebook: only outputs return, size-capped and reduced to text, errors and PNG, and they are put into our
own cells.
"""

from __future__ import annotations

import ast
import copy
import math
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder import sandbox
from autograder.course import LIMITS
from autograder.notebooks import processes
from autograder.notebooks.metadata import is_grade, is_solution
from autograder.notebooks.rebuild import clean_outputs, grade_id

VERSION = "2"  # part of every result's key: raise it when a judgement changes
RUN = "tito_run"  # notebook metadata: how the run went
NOT_RUN = "measure"  # the tag of a cell that only measures
OUR_ERRORS = ("NotRun", "TimeLimit", "Invalid")


@dataclass(frozen=True)
class CellResult:
    """The judgement of one graded cell; `points` is None where a person has to grade it."""

    grade_id: str
    points: float | None
    max_points: float
    reason: str = ""


def run_notebook(
    nb: NotebookNode,
    *,
    tinytorch_dir: Path | str,
    level: str,
    limits: sandbox.Limits | None = None,
    cell_s: float = 60.0,
) -> NotebookNode:
    """Execute `nb` (one of ours, rebuilt) in a fresh kernel in the sandbox; return an executed copy.

    `tinytorch_dir` holds the package `tinytorch/` that the notebook imports; `cell_s` bounds one cell,
    `limits.wall_s` the whole notebook. As with nbgrader, a cell that fails does not keep the next from
    running. A crash, a hang or too much memory leaves an error with a one-line reason in every graded
    cell that did not run. metadata[RUN] of the result holds level, seconds and, if it was cut short, why.
    Raises sandbox errors only for a level that this machine does not have.
    """
    limits = limits or LIMITS
    nb = copy.deepcopy(nb)
    jobs = [i for i, cell in enumerate(nb.cells) if _runs(cell)]
    cells = [{"i": i, "source": nb.cells[i].source, "kind": kind_of(nb.cells[i])} for i in jobs]
    job = {"cells": cells, "cell_s": cell_s, "stop_s": limits.wall_s - 5}
    done = processes.run(job, Path(tinytorch_dir), level, limits)
    _put_outputs(nb, jobs, done.records)
    stopped = _why_it_stopped(nb, jobs, done.records, done.stopped, limits)
    for i, cell in enumerate(nb.cells):
        if is_grade(cell) and cell.cell_type == "code":
            status = done.records[i]["status"] if i in done.records else "dead" if i in jobs else ""
            _settle(cell, status, stopped, cell_s)
    nb.metadata[RUN] = {
        "level": level,
        "seconds": round(done.seconds, 3),
        "stopped": stopped,
        "limits": asdict(limits),
        "version": VERSION,
    }
    return nb


def _put_outputs(nb: NotebookNode, jobs: list[int], records: dict[int, dict[str, Any]]) -> None:
    """Give each code cell what it printed and showed in this run, and nothing from before."""
    for i, cell in enumerate(nb.cells):
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        if i in records:
            cell.outputs = clean_outputs(records[i]["outputs"])
            cell.execution_count = jobs.index(i) + 1
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = cell.execution_count


def _settle(cell: NotebookNode, status: str, stopped: str, cell_s: float) -> None:
    """Leave in a graded cell what nbgrader gives its points by; status: "" for a cell that is not run."""
    if status == "dead":
        _replace(cell, "NotRun", f"This check did not run. {stopped}")
    elif status == "timeout":
        _replace(
            cell,
            "TimeLimit",
            f"This check was stopped after {cell_s:g} s: look for a loop that "
            "never ends, or work that should be one NumPy call.",
        )
    else:
        score_of_check(cell)


def kind_of(cell: NotebookNode) -> str:
    """How a cell of a rebuilt notebook is treated: "grade", "student", or ours, of the package or not."""
    if is_grade(cell) and not is_solution(cell):
        return "grade"
    if is_solution(cell):
        return "student"
    return "export" if cell.source.lstrip().startswith("#| export") else "ours"


def package_below(package: Path, lesson: str, lessons: Iterable[str], folder: Path) -> Path:
    """Copy the modules of `package` that come before `lesson` into folder/tinytorch; return `folder`.

    A solution must not find in a file what it was asked to write. `lessons` names the module lessons of the
    course (01_tensor, ...); a built package knows those that the course leaves out. A lesson without a number
    gets the whole package.
    """
    target = folder / "tinytorch"
    target.mkdir(parents=True)
    numbers = _built_lessons(package) | {name.partition("_")[2]: name[:2] for name in lessons}
    before = lesson[:2] if lesson[:2].isdigit() else "99"
    for file in sorted(package.glob("*.py")):
        if file.stem == "__init__" or numbers.get(file.stem, "99") < before:
            shutil.copyfile(file, target / file.name)
    return folder


def _built_lessons(package: Path) -> dict[str, str]:
    """Module -> lesson number, as `tito build` has written it into the package's __init__.py, else {}."""
    init = package / "__init__.py"
    if not init.is_file():
        return {}
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_LESSONS":
            return dict(ast.literal_eval(node.value))
    return {}


def cell_results(nb: NotebookNode) -> list[CellResult]:
    """Points of every graded cell of an executed notebook, by nbgrader's own rule, with reasons."""
    from nbgrader.utils import determine_grade

    results = []
    for cell in nb.cells:
        if not is_grade(cell):
            continue
        points, most = determine_grade(cell)
        reason = ""
        if points is not None and points < most:
            reason = reason_of(cell) or ("No answer was given." if is_solution(cell) else "")
        results.append(CellResult(str(grade_id(cell)), points, most, reason))
    return results


def reason_of(cell: NotebookNode) -> str:
    """Why a graded cell lost points, in one line: the message of its error, or what the scorer printed."""
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            message = " ".join(output.evalue.split())
            if output.ename == "NotImplementedError" and not message:
                return "Not implemented yet."
            if message and output.ename in ("AssertionError", *OUR_ERRORS):
                return message[:400]
            return f"{output.ename}: {message}"[:400] if message else output.ename
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            return "; ".join(" ".join(line.split()) for line in output.text.splitlines() if line.strip())[
                :400
            ]
    return ""


def _runs(cell: NotebookNode) -> bool:
    return (
        cell.cell_type == "code"
        and bool(cell.source.strip())
        and NOT_RUN not in cell.metadata.get("tags", [])
    )


def _why_it_stopped(
    nb: NotebookNode,
    jobs: list[int],
    records: dict[int, dict[str, Any]],
    stopped: str,
    limits: sandbox.Limits,
) -> str:
    """One line for the student: where the run ended early and why; "" where every cell ran."""
    if stopped == "done":
        return ""
    last = next((i for i in jobs if i not in records or records[i]["status"] == "dead"), None)
    if last is None:
        return ""
    where = _name(nb, last)
    if stopped in ("dead", "killed"):
        return (
            f"The kernel stopped at {where}: the code ended the process (os._exit, exit) or crashed it, "
            "and nothing after it could run."
        )
    if stopped == "time" or stopped.startswith("time limit"):
        return (
            f"The notebook reached its time limit of {limits.wall_s:g} s at {where}: look for a loop "
            "that never ends."
        )
    if stopped.startswith("memory limit"):
        return (
            f"The notebook used more memory than the {limits.memory_bytes / 1e9:.1f} GB allowed, at {where}."
        )
    if stopped.startswith("cpu limit"):
        return f"The notebook used more than {limits.cpu_s:g} s of processor time, at {where}."
    if stopped.startswith("disk limit"):
        return f"The notebook wrote more than {limits.disk_bytes / 1e6:.0f} MB to disk, at {where}."
    if stopped == "output":
        return f"The notebook printed more than {processes.MAX_RESULT / 1e6:.0f} MB."
    detail = f" ({stopped})" if stopped else ""
    return f"The run ended at {where}{detail}."


def _name(nb: NotebookNode, index: int) -> str:
    name = grade_id(nb.cells[index])
    if name:
        return f"cell {name}"
    before = next((n for n in map(grade_id, reversed(nb.cells[:index])) if n), None)
    return f"the cell after {before}" if before else "the first cell"


def score_of_check(cell: NotebookNode) -> None:
    """Bring a graded cell's outputs to what nbgrader reads rightly: an error, one plain score, or nothing."""
    if any(output.output_type == "error" for output in cell.outputs):
        return
    # nbgrader gives nothing for any line on stderr; a warning is no mistake, and no error came: drop it.
    cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
    results = [o for o in cell.outputs if o.output_type == "execute_result"]
    if not results:
        return
    score = _number(results[0].data.get("text/plain", ""))
    if score is None:  # nbgrader would give full points for any text; the cell passed, so keep it as display
        results[0].output_type = "display_data"
        results[0].pop("execution_count", None)
        return
    if not math.isfinite(score):
        _replace(cell, "Invalid", f"The score of this check is {score}: expected 0 up to its points.")
        return
    points = float(cell.metadata.nbgrader["points"])
    results[0].data = NotebookNode({"text/plain": repr(min(max(score, 0.0), points))})


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _replace(cell: NotebookNode, ename: str, reason: str) -> None:
    """Leave an error in a graded cell in place of whatever stood there."""
    error = nbformat.v4.new_output("error", ename=ename, evalue=reason, traceback=[f"{ename}: {reason}"])
    cell.outputs = [error]
