"""Plausible wrong solutions, a file a lesson: what the graded cells have to catch.

`tests/mutants/NN_name.py` holds `MUTANTS = [Mutant(name, cell, old, new, why), ...]`. To see how a lesson's
graded cells judge them: `python -m tests.mutants 05_autograd [mutant ...]`. The package for the modules below
comes from the repository (`tito build`), or from the folder that TITO_REFERENCE names.
"""

from __future__ import annotations

import ast
import copy
import importlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nbformat import NotebookNode

from autograder.notebooks.execute import CellResult, cell_results, package_below, run_notebook
from autograder.notebooks.rebuild import grade_id, rebuild, unsolved
from autograder.scratch import scratch_folder
from tests.mutants.quick import run_quickly
from tito.build.lessons import Lesson, find_lessons
from tito.package.exporter import public_names
from tito.package.init import package_init
from tito.package.names import MODULES

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """One wrong solution: in solution cell `cell` the text `old`, which occurs once, becomes `new`."""

    name: str
    cell: str
    old: str
    new: str
    why: str


def lessons() -> dict[str, Lesson]:
    """Every module lesson by name; tracks have no mutants."""
    return {lesson.name: lesson for lesson in find_lessons(ROOT) if lesson.module}


def mutants(lesson: str) -> list[Mutant]:
    """The mutants of a lesson; [] where it has no file yet."""
    if not (Path(__file__).parent / f"{lesson}.py").exists():
        return []
    return list(importlib.import_module(f"tests.mutants.{lesson}").MUTANTS)


def mutate(nb: NotebookNode, mutant: Mutant) -> NotebookNode:
    """Apply a mutant to a source notebook in place. Raises ValueError where it does not fit its cell."""
    cells = [cell for cell in nb.cells if grade_id(cell) == mutant.cell]
    if len(cells) != 1 or not cells[0].metadata.nbgrader.get("solution"):
        raise ValueError(f"{mutant.name}: no solution cell {mutant.cell!r}; expected the grade_id of one.")
    count = cells[0].source.count(mutant.old)
    if count != 1:
        raise ValueError(f"{mutant.name}: {mutant.old!r} occurs {count} times in {mutant.cell}, not once.")
    cells[0].source = cells[0].source.replace(mutant.old, mutant.new)
    ast.parse(cells[0].source)
    return nb


def grade(
    lesson: str, what: Mutant | str, *, quick: bool = False, until_a_loss: bool = False
) -> list[CellResult]:
    """Judge the lesson's "reference", its untouched "release", or a mutant, as a submission is judged.

    Outside of the process of the solution, at sandbox level rlimits, since these are ours; or, `quick`, in
    one fork, where `until_a_loss` ends at the first graded cell that fails.
    """
    source = _read(lesson)
    if what == "release":
        submitted = unsolved(source)
    else:
        submitted = mutate(copy.deepcopy(source), what) if isinstance(what, Mutant) else source
    nb = rebuild(source, submitted)
    with scratch_folder("mutant") as folder:
        reference = Path(os.environ.get("TITO_REFERENCE", ROOT)) / "tinytorch"
        package = package_below(reference, lesson, lessons(), folder)
        if "TITO_REFERENCE" in os.environ:  # files in the making, without the built __init__.py
            _write_init(reference, package / "tinytorch")
        if quick:
            return cell_results(run_quickly(nb, package, until_a_loss=until_a_loss))
        return cell_results(run_notebook(nb, tinytorch_dir=package, level="rlimits", cell_s=30))


@cache
def _read(lesson: str) -> NotebookNode:
    return lessons()[lesson].read()


def _write_init(reference: Path, package: Path) -> None:
    names = {}
    for file in sorted(reference.glob("*.py")):
        if file.stem in MODULES:
            names |= {name: file.stem for name in public_names(file.read_text()) if name != file.stem}
    (package / "__init__.py").write_text(package_init(MODULES, names))
