"""The two processes of a notebook's run, each in a sandbox of its own: the student's cells, the graded cells.

They talk through two pipes; what comes back to us is the graded side's lines, one a cell, as data.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder import paths, sandbox
from autograder.scratch import scratch_folder

MAX_RESULT = 48_000_000  # bytes read back from one run
# A run that ended so was ended from outside, or the judge's process died: hardly the student's doing, and it
# is tried again. Where it happens each time, the notebook does it, and the reason stands.
NOT_THEIRS = (sandbox.SUPERVISOR_KILLED, "no answer", "killed")
SIGKILLED = (-9, 128 + 9)  # exit codes, the second as bubblewrap reports it
TRIES = 3
# the judge's own process: our code, but the arrays and texts that it holds are the student's
JUDGE_MEMORY = 2_000_000_000
_PYTHON = (sys.executable, "-P", "-m")
_IMPORTABLE = (paths.TITO, paths.AUTOGRADER)
_ENVIRONMENT = {
    "MPLBACKEND": "Agg",
    "PYTHONWARNINGS": "ignore",
    "PYTHONHASHSEED": "0",
    "NBGRADER_EXECUTION": "autograde",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Run:
    """How a run went: its records by cell number, why it ended ("done" if it did not end early), its time."""

    records: dict[int, dict[str, Any]]
    stopped: str
    seconds: float


def run(job: dict[str, Any], tinytorch_dir: Path, level: str, limits: sandbox.Limits) -> Run:
    """Run the cells of a job; a run that was ended from outside is tried again."""
    for _ in range(TRIES):
        done = _once(job, tinytorch_dir.resolve(), level, limits)
        if done.stopped not in NOT_THEIRS:
            break
    return done


def _once(job: dict[str, Any], tinytorch_dir: Path, level: str, limits: sandbox.Limits) -> Run:
    with scratch_folder("notebook") as orders, scratch_folder("notebook") as shared:
        (orders / "job.json").write_text(json.dumps(job), encoding="utf-8")
        # files that a graded cell has the student's code write, and reads
        env = _ENVIRONMENT | {"TMPDIR": str(shared)}
        student = sandbox.Program(
            [*_PYTHON, "autograder.notebooks.cells.student"],
            readable=[tinytorch_dir],
            importable=_IMPORTABLE,
            writable=[shared],
            limits=limits,
            level=level,
            loopback=True,  # for event loops, which notebooks may start
            env=env | {"TITO_TINYTORCH": str(tinytorch_dir)},
        )
        judge = sandbox.Program(
            [*_PYTHON, "autograder.notebooks.cells.grader", str(orders / "job.json")],
            readable=[orders],
            importable=_IMPORTABLE,
            writable=[shared],
            limits=sandbox.Limits(wall_s=limits.wall_s + 10, memory_bytes=JUDGE_MEMORY),
            level=level,
            env=env,
        )
        with _started(student, judge) as (asked, asking):
            return _outcome(asked, asking)


@contextlib.contextmanager
def _started(
    student: sandbox.Program, judge: sandbox.Program
) -> Iterator[tuple[sandbox.Process, sandbox.Process]]:
    """Both, with the pipes between them; what the judge says to us is on its stderr."""
    with contextlib.ExitStack() as stack:
        requests, answers = os.pipe(), os.pipe()
        try:
            asked = stack.enter_context(sandbox.start(student, stdin=requests[0], stdout=answers[1]))
            asking = stack.enter_context(
                sandbox.start(judge, stdin=answers[0], stdout=requests[1], stderr=subprocess.PIPE)
            )
        finally:
            for fd in (*requests, *answers):
                os.close(fd)
        yield asked, asking


def _outcome(student: sandbox.Process, judge: sandbox.Process) -> Run:
    records, stopped = _collect(judge)
    ended = judge.kill() if stopped != "no answer" else judge.wait()
    if stopped == "done":
        return Run(records, stopped, ended.seconds)
    if ended.reason == sandbox.SUPERVISOR_KILLED:
        return Run(records, ended.reason, ended.seconds)
    with contextlib.suppress(TimeoutError):  # it still runs: why it was stopped is known already
        theirs = student.wait(0.0 if stopped in ("time", "late") else 5.0)
        killed = not theirs.reason and theirs.returncode in SIGKILLED
        stopped = "killed" if killed else theirs.reason or stopped
    return Run(records, stopped, ended.seconds)


def _collect(judge: sandbox.Process) -> tuple[dict[int, dict[str, Any]], str]:
    """Read result lines until the program ends; kill it when they grow beyond any honest size."""
    assert judge.stderr is not None
    records: dict[int, dict[str, Any]] = {}
    stopped, size = "no answer", 0
    while line := judge.stderr.readline(MAX_RESULT):
        size += len(line)
        if size > MAX_RESULT:
            judge.kill()
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
