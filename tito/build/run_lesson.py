"""Running a lesson in a fresh kernel against the fresh package, and keeping what nbval will compare."""

from __future__ import annotations

import copy
import os
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from autograder.files import write_text
from autograder.notebooks import kernels
from autograder.notebooks.execute import cell_results, kind_of, package_below, run_notebook
from autograder.notebooks.rebuild import rebuild
from autograder.paths import with_library
from autograder.scratch import scratch_folder
from tito.build.lessons import KEEP_OUTPUT, LANGUAGE, MEASURE, Lesson
from tito.package.exporter import cell_label

CELL_SECONDS = 600
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def execute(
    lesson: Lesson, nb: NotebookNode, out: Path, *, key: str, cache: Path | None
) -> tuple[str, list[str], float]:
    """The instructor's notebook as text, its faults, and the seconds it ran (0 when the cache had it).

    Cells tagged `measure` are left out. `out` contains the tinytorch/ to run with; data sets of this machine
    are hidden, so that outputs are those of the offline data. Outputs stay only on cells tagged
    nbval-check-output. `key` says what the lesson was made from; the cache of this machine adds its versions.
    """
    here = f"{platform.python_version()}-{version('numpy')}-{version('ipykernel')}"
    kept = cache / f"{lesson.name}-{key}-{here}.ipynb" if cache else None
    if kept is not None and kept.exists():
        return kept.read_text(encoding="utf-8"), [], 0.0
    begin = time.monotonic()
    nb = copy.deepcopy(nb)
    faults = _run(lesson, nb, out)
    if not faults:
        faults = _output_faults(lesson, nb)
    if not faults and lesson.number:
        faults = _outside_faults(lesson, nb, out)
    _clean(nb)
    text = nbformat.writes(nb) + "\n"
    if cache is not None and kept is not None and not faults:
        for old in cache.glob(f"{lesson.name}-*.ipynb"):
            old.unlink()
        write_text(kept, text)
    return text, faults, time.monotonic() - begin


def _run(lesson: Lesson, nb: NotebookNode, out: Path) -> list[str]:
    """Execute in place; the fault names the cell that failed."""
    short = copy.copy(nb)
    short.cells = [cell for cell in nb.cells if MEASURE not in cell.metadata.get("tags", [])]
    with scratch_folder("run") as folder:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("TINYTORCH_", "TITO_"))}
        env |= {
            "TITO_TINYTORCH": str(out.resolve()),
            "TINYTORCH_DATA": f"{folder}/data",
            "IPYTHONDIR": f"{folder}/ipython",
            "PYTHONPATH": with_library(os.environ.get("PYTHONPATH")),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        work = folder / "work"
        (folder / "data").mkdir()
        work.mkdir()
        try:
            kernels.run(
                short,
                {"env": env},
                timeout=CELL_SECONDS,
                coalesce_streams=True,
                resources={"metadata": {"path": str(work)}},
            )
        except CellExecutionError as error:
            reason = " ".join(_ANSI.sub("", f"{error.ename}: {error.evalue}").split())
        except CellTimeoutError:
            reason = f"still running after {CELL_SECONDS} s."
        except DeadKernelError:
            reason = "the kernel died."
        else:
            return []
    return [f"{lesson.file}, {_last_started(nb)}: {reason}"]


def _last_started(nb: NotebookNode) -> str:
    """The cell that stopped the run: the last one that left a trace."""
    cells = [(i, cell) for i, cell in enumerate(nb.cells, start=1) if cell.cell_type == "code"]
    started = [
        (i, cell) for i, cell in cells if cell.execution_count or cell.outputs or "execution" in cell.metadata
    ]
    i, cell = started[-1] if started else cells[0]
    return cell_label(cell, i)


def _output_faults(lesson: Lesson, nb: NotebookNode) -> list[str]:
    """What nbgrader or nbval would stumble over in the reference's own outputs."""
    faults = []
    for i, cell in enumerate(nb.cells, start=1):
        where = f"{lesson.file}, {cell_label(cell, i)}"
        about = cell.metadata.get("nbgrader", {})
        keep = KEEP_OUTPUT in cell.metadata.get("tags", [])
        if cell.cell_type != "code" or not (keep or about.get("grade")):
            continue
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                faults.append(
                    f"{where}: writes to stderr, which nbgrader takes for a failure: {_first(output.text)}"
                )
            if output.output_type == "execute_result" and about.get("grade") and lesson.number:
                value = output.data.get("text/plain", "")
                if value != repr(float(about.points)):
                    faults.append(
                        f"{where}: shows {_first(value)}, which nbgrader reads as the score: show nothing."
                    )
            if not keep:
                continue
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            if any(kind.startswith("image/") for kind in output.get("data", {})):
                faults.append(
                    f"{where}: {KEEP_OUTPUT} keeps text, not pictures: they differ from machine to machine."
                )
            elif found := _ADDRESS.search(text):
                faults.append(
                    f"{where}: its output holds an address, {found[0]}, that changes with every run."
                )
        if keep and not cell.outputs:
            faults.append(f"{where}: tagged {KEEP_OUTPUT} but shows nothing.")
    return faults


def _outside_faults(lesson: Lesson, nb: NotebookNode, out: Path) -> list[str]:
    """Graded cells that cannot be judged outside the student's process: the reference loses points there."""
    with scratch_folder("judge") as folder:
        package = package_below(out / "tinytorch", lesson.name, [], folder)
        judged = run_notebook(rebuild(nb, nb), tinytorch_dir=package, level="rlimits")  # our own solutions
    judged.cells = [cell for cell in judged.cells if kind_of(cell) == "grade"]
    return [
        f"{lesson.file}, {result.grade_id}: earns {result.points:g} of {result.max_points:g} where it is "
        f"judged, outside the student's process: {result.reason}"
        for result in cell_results(judged)
        if result.points is None or result.points < result.max_points
    ]


def _clean(nb: NotebookNode) -> None:
    """Drop every output but those nbval compares, and every trace of the run."""
    number = 0
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        number += 1
        if KEEP_OUTPUT not in cell.metadata.get("tags", []):
            cell.outputs, cell.execution_count = [], None
            continue
        cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
            if output.output_type == "error":
                output.traceback = [f"{output.ename}: {output.evalue}"]
    nb.metadata.language_info = {k: v for k, v in nb.metadata.language_info.items() if k in LANGUAGE}


def _first(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:100]
