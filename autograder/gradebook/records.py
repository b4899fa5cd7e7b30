"""The gradebook: judged submissions go into it by nbgrader's own converter, so that formgrader, feedback and
the stock exporters find what they expect.

A staging copy holds only our rebuilt and judged notebooks; nbgrader's preprocessors (`plugins.py`) put them
in the place of an execution. What the gradebook holds is recorded in grading/graded/.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from nbgrader.api import Gradebook
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from autograder.course import Course
from autograder.errors import GradingError
from autograder.gradebook import deadlines
from autograder.gradebook.judgement import (
    Judgement,
    load_judgement,
    plain_judgement,
    submitted_at,
    write_json,
)
from autograder.gradebook.pipeline import configure
from autograder.needs import need
from autograder.scoring import ledger

SECRET = "submission_secret.txt"


def write(course: Course, assignment: str, judgements: Iterable[Judgement]) -> None:
    """Bring judged submissions into nbgrader's gradebook and autograded/, by nbgrader's own converter.

    A submission that nbgrader refuses gets a note, the others go on. Raises GradingError where the gradebook
    is locked or the disk is full: what was judged is kept.
    """
    todo = [judgement for judgement in judgements if judgement.key]
    if not todo:
        return
    stage = course.grading / f"stage-{os.getpid()}"
    try:
        for judgement in todo:
            folder = stage / judgement.student / assignment
            folder.mkdir(parents=True)
            assert judgement.notebook is not None
            nbformat.write(judgement.notebook, folder / f"{assignment}.ipynb")
            if judgement.submitted:
                (folder / "timestamp.txt").write_text(judgement.submitted, encoding="utf-8")
            keep_secret(course.submitted(judgement.student, assignment), folder)
        enter_deadlines(course, assignment, [judgement.student for judgement in todo])
        failed = autograde(course, assignment, stage)
        for judgement in todo:
            if judgement.student in failed:
                judgement.notes.append(
                    f"nbgrader could not record this submission: {failed[judgement.student]}"
                )
                judgement.stopped = judgement.stopped or judgement.notes[-1]
            else:
                record(course, judgement)
    except OSError as error:
        raise GradingError(
            f"{error.filename or course.root} cannot be written ({error.strerror}): what was judged is kept; "
            "make room and run the same command again"
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def keep_secret(submitted: Path, folder: Path) -> None:
    """Put submission_secret.txt into `folder`, by which nbgrader names the feedback that a student fetches.

    Where a submission has no usable one, a new one takes its place: its feedback stays in the house, and
    nbgrader's release_feedback, which needs the file of every student, goes on to the others.
    """
    path = submitted / SECRET  # the student's own file: anything may be in it
    usable = path.is_file() and not path.is_symlink() and path.stat().st_size <= 1000
    secret = path.read_bytes() if usable else secrets.token_hex(64).encode()
    try:
        secret.decode()
    except UnicodeDecodeError:
        secret = secrets.token_hex(64).encode()
    (folder / SECRET).unlink(missing_ok=True)
    (folder / SECRET).write_bytes(secret)


def enter_deadlines(course: Course, assignment: str, students: list[str]) -> None:
    """Due date and extensions into the gradebook, where the course has any."""
    known = deadlines.load(course.root)
    if assignment not in known.due:
        return
    try:
        with Gradebook(nbgrader_config(course).CourseDirectory.db_url) as gradebook:
            deadlines.enter(known, gradebook, assignment, students)
    except SQLAlchemyError as error:
        _refuse_trouble(course, str(error))
        raise


def autograde(course: Course, assignment: str, stage: Path) -> dict[str, str]:
    """Run nbgrader's Autograde over the staged submissions; {student: reason} for those that it refused."""
    from nbgrader.converters import Autograde
    from nbgrader.converters.base import NbGraderException
    from nbgrader.coursedir import CourseDirectory

    config = nbgrader_config(course)
    # not the whole path, which nbgrader would read as a regular expression
    config.CourseDirectory.submitted_directory = stage.relative_to(course.root).as_posix()
    config.CourseDirectory.assignment_id = assignment
    config.Judged.staged = True
    # what is staged has our cells and kernelspec already: to restore them would be work for nothing
    config.Autograde.sanitize_preprocessors = ["autograder.gradebook.plugins.Judged"]
    log, said = quiet_log()
    converter = Autograde(coursedir=CourseDirectory(config=config), config=config, log=log, force=True)
    here = os.getcwd()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Object of type .* not in session")  # nbgrader's own, harmless
            converter.start()
    except (NbGraderException, SQLAlchemyError) as error:
        reason = next((line for line in reversed(said) if line.startswith("Traceback")), str(error))
        _refuse_trouble(course, "\n".join([*said, str(error)]))
        done = {p.parent.parent.name for p in (course.root / "autograded").glob(f"*/{assignment}/*.ipynb")}
        wanted = {p.name for p in stage.iterdir()}
        return {student: reason.strip().splitlines()[-1] for student in wanted - done}
    finally:
        os.chdir(here)
    return {}


def _refuse_trouble(course: Course, said: str) -> None:
    """Raise GradingError for what is wrong with the machine, not with a submission."""
    troubles = {
        "database is locked": "another program holds the gradebook's lock: end it",
        "No space left on device": "the disk is full: make room",
        "disk is full": "the disk is full: make room",
        "disk I/O error": "the disk fails or is full: make room",
        "attempt to write a readonly database": "the gradebook cannot be written: see its owner",
        "connection is bad": "the gradebook's server does not answer: start it",
        "unable to open database file": "the gradebook cannot be opened: see its folder",
        "connection failed": "the gradebook's server does not answer: start it",
        "Connection refused": "the gradebook's server does not answer: start it",
    }
    for sign, what in troubles.items():
        if sign in said:
            raise GradingError(
                f"{course.root}: {what}, and run the same command again; what was judged is kept ({sign})"
            )


def exchange_config(course: Course) -> Any:
    """The course's settings over those of this machine and account, as nbgrader's own steps read them.

    An exchange is a machine's: a hub says once for all courses where it is, in /etc/jupyter.
    """
    from jupyter_core.paths import jupyter_config_path
    from traitlets.config import Config, JSONFileConfigLoader, PyFileConfigLoader
    from traitlets.config.loader import ConfigFileNotFound

    config: Any = Config()
    for folder in reversed(jupyter_config_path()):  # the nearest last
        for loader, kind in ((PyFileConfigLoader, "py"), (JSONFileConfigLoader, "json")):
            with contextlib.suppress(ConfigFileNotFound):
                config.merge(loader(f"nbgrader_config.{kind}", folder).load_config())
    config.merge(nbgrader_config(course))
    return config


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
            config = PyFileConfigLoader(str(settings), path=str(course.root)).load_config()
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise GradingError(f"{settings} cannot be read ({what}): mend that line.") from error
    config.CourseDirectory.root = str(course.root)
    configure(config)
    _need_driver(settings, config.CourseDirectory.db_url)
    return config


def _need_driver(settings: Path, db_url: str) -> None:
    """Raise Missing where PostgreSQL's package is not installed, GradingError for another server's."""
    try:
        make_url(db_url).get_dialect().import_dbapi()
    except (ArgumentError, ModuleNotFoundError) as error:
        if db_url.startswith(("postgresql://", "postgresql+psycopg://")):
            need("psycopg")
        raise GradingError(
            f"{settings}, c.CourseDirectory.db_url: {error}; expected sqlite:///FILE or postgresql://..."
        ) from error


def quiet_log() -> tuple[logging.Logger, list[str]]:
    """A logger for nbgrader's converters that keeps errors in a list instead of the terminal."""
    said: list[str] = []
    log = logging.Logger("tito.nbgrader", logging.ERROR)
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    return log, said


def record(course: Course, judgement: Judgement) -> None:
    """Keep what the gradebook now holds, for export and the next run; a track's result in the ledger."""
    if judgement.track is not None:
        folder = course.submitted(judgement.student, judgement.assignment)
        try:
            ledger.note(course.grading, judgement.student, folder, judgement.track)
        except ledger.LedgerError as error:
            raise GradingError(f"nothing was recorded: {error}") from error
    path = record_path(course, judgement.student, judgement.assignment)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema": "torch-olympics/grade/1", **plain_judgement(judgement, notebook=False)})


def record_path(course: Course, student: str, assignment: str) -> Path:
    """Where the judgement that the gradebook holds is recorded, without its notebook."""
    return course.grading / "graded" / assignment / f"{student}.json"


def load_record(course: Course, student: str, assignment: str) -> Judgement | None:
    """The recorded judgement of a graded submission; None where there is none."""
    path = record_path(course, student, assignment)
    return load_judgement(path) if path.exists() else None


def current(course: Course, student: str, assignment: str, key: str) -> Judgement | None:
    """The recorded judgement, where the gradebook holds exactly this one, with nbgrader's files in place."""
    done = course.root / "autograded" / student / assignment / f"{assignment}.ipynb"
    record = load_record(course, student, assignment)
    if record is None or not done.exists():
        return None
    same = (record.key, record.submitted) == (key, submitted_at(course, student, assignment))
    return record if same else None
