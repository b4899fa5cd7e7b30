"""Run a notebook's cells in a forked child with IPython's shell: judged alike, without a kernel's start.

A kernel and its client take two seconds to start, a fork of a process that has NumPy and IPython loaded takes
none. For our own wrong solutions only: there is no sandbox here. `test_mutants.py` holds both ways against
each other on the reference solutions.
"""

from __future__ import annotations

import copy
import json
import os
import select
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import numpy as np  # noqa: F401, loaded before the fork
from IPython.core.interactiveshell import InteractiveShell
from nbformat import NotebookNode
from nbgrader import utils
from traitlets.config import Config

from autograder.notebooks.execute import score_of_check
from autograder.scratch import scratch_folder

matplotlib.use("Agg")


def run_quickly(
    nb: NotebookNode, package: Path, *, until_a_loss: bool = False, seconds: float = 60.0
) -> NotebookNode:
    """An executed copy of `nb`: errors and results of its cells; cells tagged `measure` are left out.

    until_a_loss: end at the first graded cell that fails; the cells after it get nothing.
    """
    nb = copy.deepcopy(nb)
    runs = [
        i
        for i, cell in enumerate(nb.cells)
        if cell.cell_type == "code" and cell.source.strip() and "measure" not in cell.metadata.get("tags", [])
    ]
    sources = [nb.cells[i].source for i in runs]
    ends = {k for k, i in enumerate(runs) if utils.is_grade(nb.cells[i])} if until_a_loss else set()
    with scratch_folder("quick") as place:  # what the lesson writes on the way
        records = _in_a_fork(sources, ends, package, place, seconds)
    for i, record in zip(runs, [*records, *[None] * (len(runs) - len(records))], strict=True):
        cell = nb.cells[i]
        if record is None:
            record = {"ename": "NotRun", "evalue": "the run ended before this cell"}
        if "ename" in record:
            cell.outputs = [nbformat.v4.new_output("error", **record, traceback=[])]
        elif "result" in record:
            data = {"text/plain": record["result"]}
            cell.outputs = [nbformat.v4.new_output("execute_result", data=data, execution_count=1)]
        if utils.is_grade(cell):
            score_of_check(cell)
    return nb


def _in_a_fork(
    sources: list[str], ends: set[int], package: Path, place: Path, seconds: float
) -> list[dict[str, Any]]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            _child(sources, ends, package, place, write)
        finally:
            os._exit(0)
    os.close(write)
    text, end = b"", time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([read], [], [], max(0.0, end - time.monotonic()))
        part = os.read(read, 1 << 20) if ready else b""
        if not part:
            break
        text += part
    os.close(read)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]


def _child(sources: list[str], ends: set[int], package: Path, place: Path, pipe: int) -> None:
    quiet = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(quiet, fd)
    os.environ.update(TITO_TINYTORCH=str(package.resolve()), PYTHONWARNINGS="ignore", TMPDIR=str(place))
    tempfile.tempdir = None  # to be looked for anew
    os.chdir(place)
    config = Config()
    config.HistoryManager.enabled = False
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=config)
    shell.showtraceback = lambda *arguments, **options: None
    shell.display_formatter.active_types = ["text/plain"]
    shell.displayhook.quiet = lambda: True
    for k, source in enumerate(sources):
        done = shell.run_cell(source, store_history=True)
        error = done.error_before_exec or done.error_in_exec
        record: dict[str, Any] = {}
        if error is not None:
            record = {"ename": type(error).__name__, "evalue": str(error)[:2000]}
        elif done.result is not None:
            record = {"result": repr(done.result)[:2000]}
        os.write(pipe, json.dumps(record).encode() + b"\n")
        if error is not None and k in ends:
            return
