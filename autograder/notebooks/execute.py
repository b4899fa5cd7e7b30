"""Run one notebook in the sandbox and judge its graded cells; what comes back is data, never an exception.

The student's cells run in one sandbox, the graded cells in another (`notebooks.cells`). Outside, we keep the
notebook: only outputs return, size-capped and reduced to text, errors and PNG, and they are put into our
own cells.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder import paths, sandbox
from autograder.course import LIMITS
from autograder.notebooks.metadata import is_grade, is_solution
from autograder.notebooks.rebuild import clean_outputs, grade_id
from autograder.scratch import scratch_folder

VERSION = "2"  # part of every result's key: raise it when a judgement changes
RUN = "tito_run"  # notebook metadata: how the run went
MAX_RESULT = 48_000_000  # bytes read back from one run
CELL_OUTPUT = 1_000_000  # bytes one cell may print
# A run that ended so was ended from outside, or the judge's process died: hardly the student's doing, and it
# is tried again. Where it happens each time, the notebook does it, and the reason stands.
NOT_THEIRS = (sandbox.SUPERVISOR_KILLED, "no answer", "killed")
SIGKILLED = (-9, 128 + 9)  # exit codes, the second as bubblewrap reports it
TRIES = 3
OUR_ERRORS = ("NotRun", "TimeLimit", "Invalid")
# the judge's own process: our code, but the arrays and texts that it holds are the student's
JUDGE_MEMORY = 2_000_000_000


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
    skip_tags: Sequence[str] = ("measure",),
    cell_s: float = 60.0,
    threads: int = 1,
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
    jobs = [i for i, cell in enumerate(nb.cells) if _runs(cell, skip_tags)]
    cells = [{"i": i, "source": nb.cells[i].source, "kind": kind_of(nb.cells[i])} for i in jobs]
    job = {"cells": cells, "cell_s": cell_s, "stop_s": limits.wall_s - 5}
    for _ in range(TRIES):
        records, stopped, seconds = _run(job, Path(tinytorch_dir), level, limits, threads)
        if stopped not in NOT_THEIRS:
            break

    for i, cell in enumerate(nb.cells):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if i in records:
                cell.outputs = clean_outputs(records[i]["outputs"])
                cell.execution_count = jobs.index(i) + 1
                for output in cell.outputs:
                    if output.output_type == "execute_result":
                        output.execution_count = cell.execution_count
    stopped = _why_it_stopped(nb, jobs, records, stopped, limits)
    for i, cell in enumerate(nb.cells):
        if not (is_grade(cell) and cell.cell_type == "code"):
            continue
        if i in jobs and (i not in records or records[i]["status"] == "dead"):
            _replace(cell, "NotRun", f"This check did not run. {stopped}")
        elif i in records and records[i]["status"] == "timeout":
            _replace(
                cell,
                "TimeLimit",
                f"This check was stopped after {cell_s:g} s: look for a loop that "
                "never ends, or work that should be one NumPy call.",
            )
        else:
            score_of_check(cell)
    nb.metadata[RUN] = {
        "level": level,
        "seconds": round(seconds, 3),
        "stopped": stopped,
        "limits": asdict(limits),
        "version": VERSION,
    }
    return nb


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


def _runs(cell: NotebookNode, skip_tags: Sequence[str]) -> bool:
    tags = cell.metadata.get("tags", [])
    return cell.cell_type == "code" and bool(cell.source.strip()) and not set(tags) & set(skip_tags)


def _run(
    job: dict[str, Any], tinytorch_dir: Path, level: str, limits: sandbox.Limits, threads: int
) -> tuple[dict[int, dict[str, Any]], str, float]:
    """Records by cell number, why the run ended early ("" if it did not), and its seconds."""
    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(scratch_folder("notebook")) for _ in range(2)]
        orders, shared = folders
        tinytorch_dir, ours = tinytorch_dir.resolve(), [paths.TITO, paths.AUTOGRADER]
        (orders / "job.json").write_text(json.dumps(job), encoding="utf-8")
        env = _environment(threads) | {"TMPDIR": str(shared)}
        requests, answers = os.pipe(), os.pipe()
        program = [sys.executable, "-P", "-m"]
        try:
            student = stack.enter_context(
                sandbox.start(
                    [*program, "autograder.notebooks.cells.student"],
                    readable=[tinytorch_dir],
                    importable=ours,
                    writable=[shared],  # files that a graded cell has the student's code write, and reads
                    limits=limits,
                    level=level,
                    loopback=True,  # for event loops, which notebooks may start
                    env=env | {"TITO_TINYTORCH": str(tinytorch_dir)},
                    stdin=requests[0],
                    stdout=answers[1],
                )
            )
            judge = stack.enter_context(
                sandbox.start(
                    [*program, "autograder.notebooks.cells.grader", str(orders / "job.json")],
                    readable=[orders],
                    importable=ours,
                    writable=[shared],
                    limits=sandbox.Limits(wall_s=limits.wall_s + 10, memory_bytes=JUDGE_MEMORY),
                    level=level,
                    env=env,
                    stdin=answers[0],
                    stdout=requests[1],
                    stderr=subprocess.PIPE,
                )
            )
        finally:
            for fd in (*requests, *answers):
                os.close(fd)
        records, stopped = _collect(judge)
        ended = judge.kill() if stopped != "no answer" else judge.wait()
        if stopped == "done":
            return records, stopped, ended.seconds
        if ended.reason == sandbox.SUPERVISOR_KILLED:
            return records, ended.reason, ended.seconds
        with contextlib.suppress(TimeoutError):  # it still runs: why it was stopped is known already
            theirs = student.wait(0.0 if stopped in ("time", "late") else 5.0)
            killed = not theirs.reason and theirs.returncode in SIGKILLED
            return records, "killed" if killed else theirs.reason or stopped, ended.seconds
        return records, stopped, ended.seconds


def _environment(threads: int) -> dict[str, str]:
    env = {
        "MPLBACKEND": "Agg",
        "PYTHONWARNINGS": "ignore",
        "PYTHONHASHSEED": "0",
        "NBGRADER_EXECUTION": "autograde",
    }
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        env[name] = str(threads)
    return env


def _collect(handle: Any) -> tuple[dict[int, dict[str, Any]], str]:
    """Read result lines until the program ends; kill it when they grow beyond any honest size."""
    records: dict[int, dict[str, Any]] = {}
    stopped, size = "no answer", 0
    while line := handle.stderr.readline(MAX_RESULT):
        size += len(line)
        if size > MAX_RESULT:
            handle.kill()
            return records, "output"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue  # cut short by a kill: the cell counts as not run
        if isinstance(record.get("i"), int):
            records[record["i"]] = record
        elif record.get("done"):
            stopped = "done"
        else:
            stopped = str(record.get("stopped", ""))
    return records, stopped


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
        return f"The notebook printed more than {MAX_RESULT / 1e6:.0f} MB."
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
