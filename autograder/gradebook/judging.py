"""Judge one submission: rebuilt from ours and run in the sandbox (modules), or measured (tracks).

A judgement is a JSON file named by the hash of submission, assignment and grader, so that nothing is judged
twice and a killed run goes on where it stopped. One submission's crash, hang or garbage is one student's
result, never anyone else's.
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder import trusted
from autograder.course import Course, Settings
from autograder.gradebook.judgement import Judgement, load_judgement, save_judgement, submitted_at
from autograder.hashes import digest, text_hash
from autograder.notebooks import execute
from autograder.notebooks.execute import CellResult
from autograder.notebooks.metadata import is_grade, is_solution
from autograder.notebooks.rebuild import NOTES, NotANotebook, grade_id, read_submission, rebuild, unsolved
from autograder.scoring import rules, scorer


def judge(
    course: Course,
    student: str,
    assignment: str,
    settings: Settings,
    *,
    force: bool = False,
    hashes: dict[str, str] | None = None,
) -> Judgement:
    """Judge one submission, or find the judgement of the same submission by the same grader.

    hashes: where they are known, those of `hashes_of`. The judgement is on disk when this returns.
    """
    hashes = hashes or hashes_of(course, student, assignment, assignment_hashes(course, assignment, settings))
    key = key_of(student, assignment, hashes)
    if path_of(course, key).exists() and not force:
        return found(course, student, assignment, key)
    judgement = judge_anew(course, student, assignment, settings, hashes)
    save_judgement(path_of(course, key), judgement)
    return judgement


def judge_anew(
    course: Course, student: str, assignment: str, settings: Settings, hashes: dict[str, str] | None = None
) -> Judgement:
    """Judge one submission, whatever is known of it, and keep nothing; hashes as of `judge`."""
    hashes = hashes or hashes_of(course, student, assignment, assignment_hashes(course, assignment, settings))
    source, release = _ours(course, assignment)
    folder = course.submitted(student, assignment)
    try:
        submitted, notes = read_submission(folder / f"{assignment}.ipynb"), []
    except NotANotebook as error:
        submitted, notes = None, [str(error)]
    nb = rebuild(unsolved(source, release), submitted, keep_outputs=assignment in rules.TRACKS)
    notes += nb.metadata[NOTES]
    if assignment in rules.TRACKS:
        decided = _measured(course, assignment, folder, settings, nb)
    else:
        decided = _executed(course, assignment, settings, nb)
    cells = execute.cell_results(decided.notebook)
    if submitted is None:
        cells = [CellResult(c.grade_id, 0.0, c.max_points, notes[0]) for c in cells]
    return Judgement(
        student=student,
        assignment=assignment,
        key=key_of(student, assignment, hashes),
        level=settings.level,
        cells=cells,
        notes=notes,
        stopped=decided.stopped,
        seconds=decided.seconds,
        date=_now(),
        submitted=submitted_at(course, student, assignment),
        track=decided.track,
        notebook=decided.notebook,
        hashes=hashes,
    )


@dataclass(frozen=True)
class _Decided:
    """A notebook whose graded cells have their results; stopped, seconds, track as in a Judgement."""

    notebook: NotebookNode
    stopped: str
    seconds: float
    track: dict[str, Any] | None = None


def _measured(
    course: Course, assignment: str, folder: Path, settings: Settings, nb: NotebookNode
) -> _Decided:
    """A track: its entry measured by the trusted scorer, whose figures go into the grade cells."""
    conditions = scorer.Conditions(level=settings.level, secret=course.secret())
    dataset = rules.track(assignment).dataset(settings.dataset)
    result = scorer.score(assignment, folder, dataset, "private", conditions)
    track = result.to_dict()
    apply_scores(nb, track)
    return _Decided(nb, "" if result.valid else "; ".join(result.reasons), 0.0, track)


def _executed(course: Course, assignment: str, settings: Settings, nb: NotebookNode) -> _Decided:
    """A module: its notebook run in the sandbox."""
    nb = execute.run_notebook(
        nb,
        tinytorch_dir=package(course, assignment),
        level=settings.level,
        limits=settings.limits,
        cell_s=settings.cell_s,
    )
    run = nb.metadata[execute.RUN]
    return _Decided(nb, run["stopped"], run["seconds"])


def path_of(course: Course, key: str) -> Path:
    """Where the judgement of this key is, or will be."""
    return course.grading / "judged" / f"{key}.json"


def found(course: Course, student: str, assignment: str, key: str) -> Judgement:
    """The judgement of this key, as this student's: who hands in the same bytes shares it."""
    judgement = load_judgement(path_of(course, key))
    judgement.student = student
    judgement.submitted = submitted_at(course, student, assignment)
    return judgement


def apply_scores(nb: NotebookNode, result: dict[str, Any]) -> None:
    """Put the trusted scorer's figures in place of the results of a track's grade cells.

    nbgrader reads the first plain number as the score; numbers are Python floats within the cell's points.
    """
    for cell in nb.cells:
        if not is_grade(cell) or is_solution(cell):
            continue
        dimension = rules.dimension_of(str(grade_id(cell)))
        if cell.cell_type != "code" or dimension is None:
            continue
        if not result["valid"]:
            reason = "; ".join(result["reasons"]) or "the submission could not be measured"
            error = nbformat.v4.new_output(
                "error", ename="Invalid", evalue=f"INVALID: {reason}", traceback=[f"INVALID: {reason}"]
            )
            cell.outputs = [error]
            continue
        most = float(cell.metadata.nbgrader["points"])
        share = min(1.0, max(0.0, float(result["scores"].get(dimension, 0.0))))
        starts = "code quality" if dimension == "quality" else dimension
        lines = [line for line in result["reasons"] if line.startswith(starts)]
        cell.outputs = (
            [nbformat.v4.new_output("stream", name="stdout", text="\n".join(lines) + "\n")] if lines else []
        )
        cell.outputs.append(
            nbformat.v4.new_output(
                "execute_result", execution_count=1, data={"text/plain": repr(round(share * most, 2))}
            )
        )


def _ours(course: Course, assignment: str) -> tuple[NotebookNode, NotebookNode | None]:
    source = nbformat.read(course.source(assignment), as_version=4)
    release = course.root / "release" / assignment / f"{assignment}.ipynb"
    return source, nbformat.read(release, as_version=4) if release.is_file() else None


def package(course: Course, assignment: str) -> Path:
    """The reference package for the modules below; a copy a version, made once."""
    lessons = sorted(path.name for path in (course.root / "source").iterdir() if path.name[:2].isdigit())
    target = course.grading / "packages" / f"{assignment}-{digest(course.package)[:16]}"
    if not target.exists():
        part = target.with_name(f"{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
        execute.package_below(course.package, assignment, lessons, part)
        try:
            part.rename(target)
        except OSError:  # another worker was faster; its copy is the same
            shutil.rmtree(part)
    return target


def assignment_hashes(course: Course, assignment: str, settings: Settings) -> dict[str, str]:
    """Hashes of all that judges an assignment, whoever hands it in: grader, notebook, package, limits."""
    if assignment in rules.TRACKS:
        about, limits = "data", settings.dataset
    else:
        about, limits = "package", json.dumps([settings.cell_s, asdict(settings.limits)])
    return {
        "grader": trusted.grader(),
        "assignment": digest(course.source(assignment).parent, course.root / "release" / assignment),
        about: digest(course.package) if about == "package" else text_hash(settings.dataset),
        "settings": text_hash(execute.VERSION, settings.level, sys.version, limits),
    }


def hashes_of(course: Course, student: str, assignment: str, common: dict[str, str]) -> dict[str, str]:
    """Those of `assignment_hashes` with the submission's."""
    return {**common, "submission": digest(course.submitted(student, assignment))}


def key_of(student: str, assignment: str, hashes: dict[str, str]) -> str:
    """The name of a judgement. A track's order and noise are drawn for each student; a lesson is the same."""
    return text_hash(assignment, student if assignment in rules.TRACKS else "", *sorted(hashes.values()))[:40]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
