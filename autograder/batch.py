"""Grade what was collected: judge each submission in the sandbox, then one writer fills nbgrader's gradebook.

First phase, `judge`: the notebook is rebuilt from ours and executed in the sandbox (modules), or the
trusted scorer measures the submission (tracks). A judgement is a JSON file named by the hash of submission,
assignment and grader, so that nothing is judged twice and a killed run goes on where it stopped.

Second phase: nbgrader's own Autograde converter, once for the whole class, on a staging copy that holds only
our rebuilt notebooks. Its preprocessors (`plugins.py`) put the judged notebook in the place of an execution.
One submission's crash, hang or garbage is one student's result, never anyone else's.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader import utils

from autograder import execute, rules, sandbox, scorer
from autograder.execute import CellResult
from autograder.pipeline import configure
from autograder.rebuild import NOTES, NotANotebook, grade_id, read_submission, rebuild, unsolved

HERE = Path(__file__).resolve().parent
DIMENSIONS = (*rules.DIMENSIONS,)
STUDENT = re.compile(r"[\w@.-]{1,80}$")  # nbgrader joins student names into paths and patterns
Progress = Callable[[str], None]


class GradingError(RuntimeError):
    """The course cannot be graded as asked; the message is one line and says what to do."""


@dataclass(frozen=True)
class Course:
    """An nbgrader course on disk: source/, release/, submitted/, autograded/, gradebook.db under `root`.

    `package` is the reference tinytorch that module notebooks import from. Ours: grading/ (judgements).
    """

    root: Path
    package: Path

    @classmethod
    def at(cls, root: Path | str) -> Course:
        """The course in a folder; its package is the folder's own tinytorch/ or the repository's."""
        root = Path(root).resolve()
        own = root / "tinytorch"
        return cls(root, own if own.is_dir() else HERE.parent / "tinytorch")

    @property
    def grading(self) -> Path:
        return self.root / "grading"

    def source(self, assignment: str) -> Path:
        return self.root / "source" / assignment / f"{assignment}.ipynb"

    def submitted(self, student: str, assignment: str) -> Path:
        return self.root / "submitted" / student / assignment

    def students(self, assignment: str) -> list[str]:
        """Everybody with a collected submission of the assignment."""
        found = (self.root / "submitted").glob(f"*/{assignment}")
        return sorted(path.parent.name for path in found if path.is_dir() and STUDENT.match(path.parent.name))

    def secret(self) -> str:
        """The seed of the scorer's order and noise; made once, readable by the grader alone."""
        path = self.grading / "secret"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(16))
        return path.read_text()


@dataclass
class Judgement:
    """What grading found out about one submission, in JSON types; `notebook` is the executed notebook."""

    student: str
    assignment: str
    key: str
    level: str
    cells: list[CellResult]
    notes: list[str] = field(default_factory=list)
    stopped: str = ""
    seconds: float = 0.0
    date: str = ""
    submitted: str = ""  # nbgrader's time of submission
    track: dict[str, Any] | None = None
    notebook: NotebookNode | None = None

    @property
    def points(self) -> float:
        """Points so far: cells that a person has to grade count 0."""
        return sum(cell.points or 0.0 for cell in self.cells)

    @property
    def max_points(self) -> float:
        return sum(cell.max_points for cell in self.cells)

    @property
    def lost(self) -> list[str]:
        """Why points were lost, a line a graded cell."""
        return [
            f"{c.grade_id}: {c.reason or 'a person grades this cell'}"
            for c in self.cells
            if c.points is None or c.points < c.max_points
        ]


@dataclass(frozen=True)
class Settings:
    """How a batch is judged: sandbox level, data set of the tracks, time limits, processes at a time."""

    level: str
    dataset: str = "cifar10"
    cell_s: float = 60.0
    limits: sandbox.Limits = execute.LIMITS
    jobs: int = 2


def grade(
    course: Course,
    assignment: str,
    settings: Settings,
    *,
    students: Sequence[str] | None = None,
    force: bool = False,
    progress: Progress = lambda line: None,
) -> list[Judgement]:
    """Grade the collected submissions of an assignment into the gradebook; one Judgement a student.

    What was graded before and has not changed is left alone, unless `force`. Marks given by hand stay.
    Raises GradingError or a sandbox error when nothing can be graded at all; never for one submission.
    """
    sandbox.require(settings.level)
    if not course.source(assignment).is_file():
        raise GradingError(
            f"{course.source(assignment)} is missing: expected an assignment that was released."
        )
    names = [s for s in course.students(assignment) if students is None or s in students]
    if not names:
        raise GradingError(
            f"No submission of {assignment} in {course.root / 'submitted'}: run "
            f"`tito collect {assignment}` first."
        )

    def one(student: str) -> Judgement:
        try:
            judgement = judge(course, student, assignment, settings, force=force)
        except Exception as error:  # ours to mend; the class goes on, and the student is not at fault
            logging.getLogger(__name__).exception("judging %s of %s", assignment, student)
            note = (
                f"The grader failed on this submission ({type(error).__name__}: {error}); nothing was graded."
            )
            return Judgement(student, assignment, "", settings.level, [], [note], stopped=note)
        progress(f"{assignment} {student}: {judgement.points:g} of {judgement.max_points:g}")
        return judgement

    # A track's speed is measured: nothing of ours may run beside it.
    with ThreadPoolExecutor(1 if assignment in rules.TRACKS else settings.jobs) as pool:
        judgements = list(pool.map(one, names))
    write_gradebook(course, assignment, settings, judgements, force=force)
    return judgements


def judge(
    course: Course, student: str, assignment: str, settings: Settings, *, force: bool = False
) -> Judgement:
    """Judge one submission, or find the judgement of the same submission by the same grader."""
    key = _key(course, student, assignment, settings)
    folder = course.submitted(student, assignment)
    path = course.grading / "judged" / f"{key}.json"
    if path.exists() and not force:
        found = load_judgement(path)
        found.student = student  # who hands in the same bytes shares the judgement
        found.submitted = _timestamp(folder / "timestamp.txt")
        return found
    source, release = _ours(course, assignment)
    try:
        submitted, notes = read_submission(folder / f"{assignment}.ipynb"), []
    except NotANotebook as error:
        submitted, notes = None, [str(error)]
    nb = rebuild(unsolved(source, release), submitted, keep_outputs=assignment in rules.TRACKS)
    notes += nb.metadata[NOTES]
    track = None
    if assignment in rules.TRACKS:
        result = scorer.score(
            assignment,
            folder,
            rules.track(assignment).dataset(settings.dataset),
            "private",
            level=settings.level,
            secret=course.secret(),
        )
        track = result.to_dict()
        apply_scores(nb, track)
        stopped = "" if result.valid else "; ".join(result.reasons)
        seconds = 0.0
    else:
        nb = execute.run_notebook(
            nb,
            tinytorch_dir=_package(course, assignment),
            level=settings.level,
            limits=settings.limits,
            cell_s=settings.cell_s,
        )
        run = nb.metadata[execute.RUN]
        stopped, seconds = run["stopped"], run["seconds"]
    cells = execute.cell_results(nb)
    if submitted is None:
        cells = [CellResult(c.grade_id, 0.0, c.max_points, notes[0]) for c in cells]
    stamp = _timestamp(folder / "timestamp.txt")
    judgement = Judgement(
        student, assignment, key, settings.level, cells, notes, stopped, seconds, _now(), stamp, track, nb
    )
    save_judgement(path, judgement)
    return judgement


def apply_scores(nb: NotebookNode, result: dict[str, Any]) -> None:
    """Put the trusted scorer's figures in place of the results of a track's grade cells.

    nbgrader reads the first plain number as the score; numbers are Python floats within the cell's points.
    """
    for cell in nb.cells:
        if not utils.is_grade(cell) or utils.is_solution(cell):
            continue
        dimension = dimension_of(str(grade_id(cell)))
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


def dimension_of(name: str) -> str | None:
    """The scored dimension that a track's grade cell stands for, by its grade_id."""
    return next((dimension for dimension in DIMENSIONS if dimension in name), None)


# ---- the gradebook


def write_gradebook(
    course: Course,
    assignment: str,
    settings: Settings,
    judgements: Iterable[Judgement],
    *,
    force: bool = False,
) -> None:
    """Bring judged submissions into nbgrader's gradebook and autograded/, by nbgrader's own converter."""
    stage = course.grading / "stage"
    shutil.rmtree(stage, ignore_errors=True)
    todo = [j for j in judgements if j.key and (force or not _is_written(course, j))]
    if not todo:
        return
    for judgement in todo:
        folder = stage / judgement.student / assignment
        folder.mkdir(parents=True)
        assert judgement.notebook is not None
        nbformat.write(judgement.notebook, folder / f"{assignment}.ipynb")
        if judgement.submitted:
            (folder / "timestamp.txt").write_text(judgement.submitted)
    failed = autograde(course, assignment, stage)
    for judgement in todo:
        if judgement.student in failed:
            judgement.notes.append(f"nbgrader could not record this submission: {failed[judgement.student]}")
            judgement.stopped = judgement.stopped or judgement.notes[-1]
        else:
            record(course, judgement)
    shutil.rmtree(stage, ignore_errors=True)


def autograde(course: Course, assignment: str, stage: Path) -> dict[str, str]:
    """Run nbgrader's Autograde over the staged submissions; {student: reason} for those that it refused."""
    from nbgrader.converters import Autograde
    from nbgrader.converters.base import NbGraderException
    from nbgrader.coursedir import CourseDirectory

    config = nbgrader_config(course)
    config.CourseDirectory.submitted_directory = str(stage)
    config.CourseDirectory.assignment_id = assignment
    config.Judged.staged = True
    log, said = quiet_log()
    converter = Autograde(coursedir=CourseDirectory(config=config), config=config, log=log, force=True)
    here = os.getcwd()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Object of type .* not in session")  # nbgrader's own, harmless
            converter.start()
    except NbGraderException as error:
        reason = next((line for line in reversed(said) if line.startswith("Traceback")), str(error))
        done = {p.parent.parent.name for p in (course.root / "autograded").glob(f"*/{assignment}/*.ipynb")}
        wanted = {p.name for p in stage.iterdir()}
        return {student: reason.strip().splitlines()[-1] for student in wanted - done}
    finally:
        os.chdir(here)
    return {}


def nbgrader_config(course: Course) -> Any:
    """The course's nbgrader_config.py as nbgrader reads it, with the course's own folder and our plug-ins.

    Raises GradingError for a file that cannot be read.
    """
    from traitlets.config import Config, PyFileConfigLoader

    programs = str(Path(sys.executable).parent)  # nbgrader calls alembic by its bare name
    if programs not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join(filter(None, [programs, os.environ.get("PATH")]))
    settings = course.root / "nbgrader_config.py"
    config: Any = Config()
    if settings.exists():
        try:
            config = PyFileConfigLoader(settings.name, path=str(course.root)).load_config()
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise GradingError(f"{settings} cannot be read ({what}): mend that line.") from error
    config.CourseDirectory.root = str(course.root)
    config.CourseDirectory.db_url = f"sqlite:///{course.root / 'gradebook.db'}"
    configure(config)
    return config


def quiet_log() -> tuple[logging.Logger, list[str]]:
    """A logger for nbgrader's converters that keeps errors in a list instead of the terminal."""
    said: list[str] = []
    log = logging.Logger("tito.nbgrader", logging.ERROR)
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    return log, said


def record(course: Course, judgement: Judgement) -> None:
    """Keep what the gradebook now holds, for `export` and for the next run."""
    path = record_path(course, judgement.student, judgement.assignment)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_json(path, {"schema": "torch-olympics/grade/1", **_plain(judgement, notebook=False)})


def record_path(course: Course, student: str, assignment: str) -> Path:
    """Where the judgement that the gradebook holds is recorded, without its notebook."""
    return course.grading / "graded" / assignment / f"{student}.json"


def load_record(course: Course, student: str, assignment: str) -> Judgement | None:
    """The recorded judgement of a graded submission; None where there is none."""
    path = record_path(course, student, assignment)
    return load_judgement(path) if path.exists() else None


def save_judgement(path: Path, judgement: Judgement) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_json(path, _plain(judgement, notebook=True))


def load_judgement(path: Path) -> Judgement:
    data = json.loads(path.read_text(encoding="utf-8"))
    data.pop("schema", None)
    data["cells"] = [CellResult(**cell) for cell in data["cells"]]
    if data.get("notebook") is not None:
        data["notebook"] = nbformat.from_dict(data["notebook"])
    return Judgement(**data)


def _plain(judgement: Judgement, *, notebook: bool) -> dict[str, Any]:
    data = {**vars(judgement), "cells": [asdict(cell) for cell in judgement.cells]}
    if not notebook:
        data.pop("notebook")
    return data


def _write_json(path: Path, data: Any) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(data), encoding="utf-8")
    part.replace(path)


def _is_written(course: Course, judgement: Judgement) -> bool:
    """Does the gradebook hold exactly this judgement, with nbgrader's files in place?"""
    record = load_record(course, judgement.student, judgement.assignment)
    done = (
        course.root
        / "autograded"
        / judgement.student
        / judgement.assignment
        / f"{judgement.assignment}.ipynb"
    )
    if record is None or not done.exists():
        return False
    return (record.key, record.submitted) == (judgement.key, judgement.submitted)


def _ours(course: Course, assignment: str) -> tuple[NotebookNode, NotebookNode | None]:
    source = nbformat.read(course.source(assignment), as_version=4)
    release = course.root / "release" / assignment / f"{assignment}.ipynb"
    return source, nbformat.read(release, as_version=4) if release.is_file() else None


def _package(course: Course, assignment: str) -> Path:
    """The reference package for the modules below; a copy a version, made once."""
    lessons = sorted(path.name for path in (course.root / "source").iterdir() if path.name[:2].isdigit())
    target = course.grading / "packages" / f"{assignment}-{_digest(course.package)[:16]}"
    if not target.exists():
        part = target.with_name(f"{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
        execute.package_below(course.package, assignment, lessons, part)
        try:
            part.rename(target)
        except OSError:  # another worker was faster; its copy is the same
            shutil.rmtree(part)
    return target


def _key(course: Course, student: str, assignment: str, settings: Settings) -> str:
    parts = [
        execute.VERSION,
        assignment,
        settings.level,
        sys.version,
        _digest(course.source(assignment).parent),
        _digest(course.root / "release" / assignment),
        _digest(course.submitted(student, assignment)),
        _digest(HERE, "*.py"),
    ]
    if assignment in rules.TRACKS:
        parts += [student, settings.dataset]
    else:
        parts += [_digest(course.package), str(settings.cell_s), json.dumps(asdict(settings.limits))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


def _digest(folder: Path, pattern: str = "*") -> str:
    """Hash of the names and contents of a folder's files; links are named, never followed."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob(pattern)):
        if "__pycache__" in path.parts or path.name == "timestamp.txt":
            continue
        total.update(f"{path.relative_to(folder)}\0".encode("utf-8", "surrogateescape"))
        if path.is_symlink():
            total.update(b"link")
        elif path.is_file():
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _timestamp(path: Path) -> str:
    """nbgrader's time of submission; "" where the file is not a readable one (it would stop the batch)."""
    if path.is_symlink() or not path.is_file():
        return ""
    text = path.read_bytes()[:100].decode("utf-8", "replace").strip()
    try:
        utils.parse_utc(text)
    except (ValueError, AttributeError, TypeError, OverflowError):
        return ""
    return text


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
