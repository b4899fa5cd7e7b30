"""`tito module status|complete|reset|restore`: from the student's notebook to the student's package.

`complete` reads the notebook once, runs that text in a fresh kernel, and exports that same text: what is
tested is what is exported. It never writes to the notebook.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import nbformat
import typer
from nbformat import NotebookNode

from autograder import files, streams
from autograder.paths import LIBRARY
from autograder.scratch import scratch_folder
from tito import progress
from tito.errors import TitoError
from tito.package.exporter import ExportError, cell_label, export_notebook
from tito.package.names import MODULES, NAMES
from tito.student import backups, places, start, workspace
from tito.student.workspace import Workspace

CELL_SECONDS = 300
IMPORT_SECONDS = 60
SKIP = ("measure", "train")  # figures and timings: nothing that is tested depends on them
UNSOLVED = "not solved yet (NotImplementedError)"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")

app = typer.Typer(no_args_is_help=True, help="Your notebooks: what is done, build a module, start one over.")


@dataclass(frozen=True)
class Check:
    """One graded cell and what came of running it: `reason` is one line, empty where it passed."""

    name: str
    points: float
    passed: bool
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """What `complete` did: the checks, and the file that was written (None where nothing was)."""

    module: str
    checks: list[Check]
    exported: str | None
    notes: list[str]


# ---- commands


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Which modules are completed, changed since, or not begun."""
    ws = places.find()
    rows = [start.state(ws, name) for name in ws.modules()]
    if as_json:
        print(json.dumps({"workspace": str(ws.root), "modules": rows}))
        return
    print(f"{ws.root}")
    by_name = {row["module"]: row for row in rows}
    for tier, names in start.tiers(by_name).items():
        print(tier)
        for row in (by_name[name] for name in names):
            checks = f"{row['passed']} of {row['checks']} checks" if row["checks"] is not None else ""
            print(f"  {row['module']:<16} {row['state']:<24} {checks}".rstrip())


@app.command()
def complete(
    module: Annotated[str, typer.Argument(help="The module's number, such as 05.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Run your notebook's tests, then build the module into your tinytorch."""
    ws = places.find()
    report = complete_module(ws, ws.module(module), quiet=as_json)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        _show(report)
    if report.exported is None:
        raise typer.Exit(1)


@app.command()
def reset(
    module: Annotated[
        str, typer.Argument(help="The module's number, such as 05, or a track such as vision.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Put the released notebook back; yours is kept in .tito/backups."""
    ws = places.find()
    name = ws.assignment(module)
    kept = reset_module(ws, name)
    if as_json:
        print(json.dumps({"module": name, "backup": str(kept) if kept else None}))
    else:
        print(f"{name} is as it was released." + (f" Your notebook is kept in {kept}" if kept else ""))


@app.command()
def restore(
    module: Annotated[
        str, typer.Argument(help="The module's number, such as 05, or a track such as vision.")
    ],
    backup: Annotated[
        str | None, typer.Option("--from", help="The backup's file name, as --list shows it.")
    ] = None,
    only_list: Annotated[bool, typer.Option("--list", help="List the backups, change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Put a backup of your notebook back: the newest that differs; what is there now is kept as well."""
    ws = places.find()
    name = _kept_name(ws, module)
    if only_list:
        found = backups.copies(ws, name)
        if as_json:
            print(json.dumps({"module": name, "backups": [str(copy.path) for copy in found]}))
            return
        print("\n".join(f"  {copy.when}  {copy.path.name}" for copy in found) or f"{name}: no backups")
        return
    chosen, replaced = backups.restore(ws, name, backup)
    start.refresh(ws)
    if as_json:
        print(
            json.dumps(
                {"module": name, "from": str(chosen.path), "backup": str(replaced) if replaced else None}
            )
        )
    else:
        kept = f" What was there is kept in {replaced}." if replaced else ""
        print(f"{name} is again as it was on {chosen.when}.{kept} In JupyterLab: File > Reload from Disk.")


def _kept_name(ws: Workspace, wanted: str) -> str:
    """The assignment to restore, also where its notebook is gone and only backups are left."""
    try:
        return ws.assignment(wanted)
    except TitoError:
        names = {path.name.split(".")[0] for path in (ws.private / "backups").glob("*.ipynb")}
        number = wanted.partition("_")[0].zfill(2)
        for name in sorted(names):
            if wanted == name or name.startswith(f"{number}_"):
                return name
        raise


# ---- what they do


def complete_module(ws: Workspace, name: str, quiet: bool = False) -> Report:
    """Test one module's notebook and, where every graded cell passes, export it into the workspace's package.

    Raises TitoError where the notebook cannot be read, exported or imported; a failed check is in the report.
    """
    nb = backups.read(ws, name)
    backups.snapshot(ws, name)
    workspace.ready_package(ws.package)
    checks, notes = run_checks(nb, ws, name, quiet)
    notes += _missing_checks(ws, name, nb)
    passed = sum(check.passed for check in checks)
    entry = {
        "completed": None,
        "passed": passed,
        "checks": len(checks),
        "tried": datetime.now(UTC).isoformat(timespec="seconds"),
        "cells": workspace.cells_digest(nb),
    }
    before = ws.progress().get(name, {})
    if passed < len(checks):
        ws.record(name, {**entry, "completed": before.get("completed"), "cells": before.get("cells", "")})
        start.refresh(ws)
        return Report(name, checks, None, notes)
    target = _export(ws, name, nb)
    ws.record(name, {**entry, "completed": entry["tried"]})
    start.refresh(ws)
    return Report(name, checks, str(target), notes)


def reset_module(ws: Workspace, name: str) -> Path | None:
    """Put the released notebook back; returns the backup of the student's, or None where it was unchanged."""
    notebook, released = ws.notebook(name), ws.released(name)
    if not released.is_file():
        raise TitoError(
            f"no released copy of {name} in {released.parent}: run `tito init` in {ws.root} first"
        )
    kept = None
    if notebook.is_file() and notebook.read_bytes() != released.read_bytes():
        kept = ws.backup(notebook)
    files.copy(released, notebook)
    start.refresh(ws)
    return kept


def run_checks(nb: NotebookNode, ws: Workspace, name: str, quiet: bool) -> tuple[list[Check], list[str]]:
    """Run a copy of the notebook in a fresh kernel; the graded cells' results, and notes on other cells."""
    nb = copy.deepcopy(nb)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    graded = [cell for cell in nb.cells if _meta(cell).get("grade") and cell.cell_type == "code"]
    nb.cells = [
        cell
        for cell in nb.cells
        if cell in graded or not set(SKIP).intersection(cell.metadata.get("tags", []))
    ]
    stopped = execute(nb, ws.root / name, name, quiet)
    checks = []
    for cell in graded:
        reason = _error(cell) or (stopped if cell.execution_count is None else "")
        if cell.source.strip() == "":
            reason = "the test is empty: `tito module reset` puts the released notebook back"
        checks.append(Check(_meta(cell)["grade_id"], float(_meta(cell).get("points", 0)), not reason, reason))
    return checks, _notes(nb, graded, {check.reason for check in checks})


def _notes(nb: NotebookNode, graded: Sequence[NotebookNode], known: set[str]) -> list[str]:
    """A line for each reason why other cells failed, a missing module first, what is known left out."""
    where: dict[str, list[str]] = {}
    for i, cell in enumerate(nb.cells, start=1):
        reason = _error(cell) if cell.cell_type == "code" and cell not in graded else ""
        if reason and not (reason == UNSOLVED and UNSOLVED in known):
            where.setdefault(reason, []).append(cell_label(cell, i))
    more = {reason: f" and {len(cells) - 3} more" if cells[3:] else "" for reason, cells in where.items()}
    return [f"{', '.join(cells[:3])}{more[reason]}: {reason}"
            for reason, cells in sorted(where.items(), key=lambda item: not _missing(item[0]))]  # fmt: skip


def _missing(reason: str) -> bool:
    """Whether a reason is the package's word that a module before this one is not built yet."""
    return "`tito module complete" in reason


def execute(nb: NotebookNode, folder: Path, label: str, quiet: bool = False) -> str:
    """Run every cell in place, errors and all. Returns why the run ended early, or an empty string.

    The kernel starts in `folder`, so `%tito lesson` finds the workspace; `label` names a progress bar.
    """
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    from autograder.notebooks import kernels

    total = sum(cell.cell_type == "code" for cell in nb.cells)
    with progress.steps(total, label, "cell", quiet) as step:
        try:
            kernels.run(
                nb,
                {"env": kernel_environment()},
                timeout=CELL_SECONDS,
                allow_errors=True,
                resources={"metadata": {"path": str(folder)}},
                on_cell_executed=lambda **_: step(),
            )
        except CellTimeoutError:
            return f"not run: a cell before it took longer than {CELL_SECONDS} s"
        except DeadKernelError:
            return "not run: the kernel died in a cell before it (out of memory, or os._exit)"
    return ""


def kernel_environment() -> dict[str, str]:
    """The environment of a kernel in a workspace: this tito, and no package but the workspace's own."""
    env = {key: value for key, value in os.environ.items() if key not in _NOT_THEIRS}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(LIBRARY), *_absolute(env.get("PYTHONPATH", ""))]))
    return env


# a package elsewhere, a hidden module, and the marks of a notebook that somebody has open
_NOT_THEIRS = ("TITO_TINYTORCH", "TINYTORCH_BEFORE", "TITO_PROGRESS", "JPY_SESSION_NAME", "JPY_PARENT_PID")


def _absolute(paths: str) -> list[str]:
    return [str(Path(path).resolve()) for path in paths.split(os.pathsep) if path]


def _meta(cell: NotebookNode) -> dict[str, Any]:
    return dict(cell.metadata.get("nbgrader", {}))


def _error(cell: NotebookNode) -> str:
    """The last line of a cell's error, or an empty string."""
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            name, text = output.get("ename", ""), _ANSI.sub("", str(output.get("evalue", "")))
            text = " ".join(text.split())
            if name == "NotImplementedError" and not text:
                return UNSOLVED
            return text if name in ("AssertionError", "TitoError", "NotBuilt") and text else f"{name}: {text}"
    return ""


def _missing_checks(ws: Workspace, name: str, nb: NotebookNode) -> list[str]:
    """A note where the student's notebook lacks graded cells of the released one."""
    if not ws.released(name).is_file():
        return []
    here = {_meta(cell).get("grade_id") for cell in nb.cells}
    released = workspace.read_notebook(ws.released(name))
    gone = [_meta(cell)["grade_id"] for cell in released.cells if _meta(cell).get("grade")]
    gone = [grade_id for grade_id in gone if grade_id not in here]
    if not gone:
        return []
    return [f"the released notebook also checks {', '.join(gone)}, and grading will: yours has no such cell"]


def _export(ws: Workspace, name: str, nb: NotebookNode) -> Path:
    """Export to a draft of the package, import it there, and only then put both files in place."""
    module = name.partition("_")[2]
    with scratch_folder("draft", ws.private) as made:
        draft = made / "tinytorch"
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ws.package, draft, ignore=ignore)
        again = made / f"{name}.ipynb"
        nbformat.write(nb, again)
        try:
            export_notebook(again, draft, MODULES, NAMES)
        except ExportError as error:
            raise TitoError(f"nothing exported: {error}") from error
        _try_import(made, module, name)
        try:
            for file in (f"{module}.py", "__init__.py"):
                os.replace(draft / file, ws.package / file)
        except OSError as error:
            raise TitoError(f"cannot write {ws.package}: {error.strerror or error}") from error
    return ws.package / f"{module}.py"


def _try_import(parent: Path, module: str, name: str) -> None:
    env = kernel_environment()
    env["TINYTORCH_BEFORE"] = f"{int(name.partition('_')[0]) + 1:02d}"
    code = f"import sys; sys.path.insert(0, {str(parent)!r}); import tinytorch, tinytorch.{module}"
    try:
        argv = [sys.executable, "-B", "-c", code]
        done = streams.run(argv, env=env, cwd=parent, timeout=IMPORT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise TitoError(
            f"nothing exported: importing tinytorch.{module} takes longer than {IMPORT_SECONDS} s"
        ) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        last = lines[-1] if lines else f"the import ended with code {done.returncode}"
        raise TitoError(f"nothing exported: tinytorch.{module} cannot be imported: {last}")


def _show(report: Report) -> None:
    width = max((len(check.name) for check in report.checks), default=0)
    for check in report.checks:
        print(f"  {'pass' if check.passed else 'FAIL'}  {check.name:<{width}}  {check.reason}".rstrip())
    for note in report.notes:
        print(f"  note  {note}")
    passed = sum(check.passed for check in report.checks)
    if report.exported:
        print(
            f"{report.module}: {passed} of {len(report.checks)} checks passed, written to {report.exported}"
        )
    else:
        todo = "build the module that is missing" if any(map(_missing, report.notes)) else "mend what fails"
        print(
            f"{report.module}: {passed} of {len(report.checks)} checks passed, nothing exported: "
            f"{todo}, then run this again"
        )
