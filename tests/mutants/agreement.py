"""`python -m tests.mutants.agreement [LESSON ...]`: nbgrader's own verdict beside the one from outside.

For the reference, the untouched release and every wrong solution: the rebuilt notebook is executed in a
kernel by nbgrader's Execute preprocessor, without a sandbox, and judged by its rule; then by
`autograder.notebooks.execute`. They must give the same points, cell by cell. Exit status 1 where they do not.
"""

from __future__ import annotations

import copy
import os
import sys

from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.preprocessors import Execute

from autograder.notebooks.execute import CellResult, cell_results, package_below, score_of_check
from autograder.notebooks.rebuild import rebuild, unsolved
from autograder.scratch import scratch_folder
from tests.mutants import ROOT, Mutant, grade, lessons, mutants, mutate


def by_nbgrader(lesson: str, what: Mutant | str) -> list[CellResult]:
    """The points of a lesson's graded cells after nbgrader's own execution."""
    source = lessons()[lesson].read()
    if isinstance(what, Mutant):
        submitted = mutate(copy.deepcopy(source), what)
    else:
        submitted = source if what == "reference" else unsolved(source)
    nb = rebuild(source, submitted)
    nb.cells = [cell for cell in nb.cells if "measure" not in cell.metadata.get("tags", [])]
    with scratch_folder("agree") as folder:
        package = package_below(ROOT / "tinytorch", lesson, lessons(), folder)
        os.environ.update(
            TITO_TINYTORCH=str(package), PYTHONPATH=str(ROOT), MPLBACKEND="Agg", PYTHONWARNINGS="ignore",
            OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1",
        )  # fmt: skip
        run = Execute(timeout=60, kernel_name="python3", extra_arguments=["--log-level=ERROR"])
        nb, _ = run.preprocess(nb, {"metadata": {"path": folder}})
    return results(nb)


def results(nb: NotebookNode) -> list[CellResult]:
    """By nbgrader's rule, with what a cell shows brought to a plain score, as it is in grading."""
    for cell in nb.cells:
        if utils.is_grade(cell) and cell.cell_type == "code":
            score_of_check(cell)
    return cell_results(nb)


def main(wanted: list[str]) -> int:
    """Compare, and say where they differ."""
    judged = differences = 0
    for lesson in wanted or sorted(lessons()):
        for what in ("reference", "release", *mutants(lesson)):
            theirs = {r.grade_id: r for r in by_nbgrader(lesson, what) if r.points is not None}
            ours = {r.grade_id: r for r in grade(lesson, what) if r.points is not None}
            judged += 1
            for name in theirs:
                if theirs[name].points != ours[name].points:
                    differences += 1
                    told = what if isinstance(what, str) else what.name
                    line = f"{lesson} {told} {name}: nbgrader {theirs[name].points} {theirs[name].reason}"
                    print(f"{line} | outside {ours[name].points} {ours[name].reason}", flush=True)
        print(f"{lesson}: {judged} judged so far, {differences} differ", flush=True)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
