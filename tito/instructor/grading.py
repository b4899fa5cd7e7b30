"""The instructor's commands: release, collect, grade, explain, feedback (export, leaderboard: board.py).

Each works on one nbgrader course, the nearest folder upwards with an nbgrader_config.py, and calls nbgrader's
own machinery where it has one. Grading itself is `autograder.gradebook.batch`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from autograder import folders, sandbox, streams
from autograder.errors import command
from autograder.scoring import rules
from tito.errors import TitoError

CourseOption = Annotated[
    Path | None, typer.Option("--course", help="The course folder; default: the one here.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]
Assignment = Annotated[str, typer.Argument(help="Such as 05_autograd or vision.")]


def release(
    assignments: Annotated[list[str], typer.Argument(help="Such as 05_autograd vision.")],
    course: CourseOption = None,
    publish: Annotated[bool, typer.Option(help="Also put it into nbgrader's exchange for students.")] = False,
    as_json: Json = False,
) -> None:
    """Make release/ from source/ and enter it into the gradebook (nbgrader generate_assignment)."""
    root = find(course)
    for assignment in assignments:
        generate(root, assignment)
        if publish:
            publish_release(root, assignment)
    _say(as_json, {"released": assignments}, f"released {', '.join(assignments)} to {root / 'release'}")


def collect(assignment: Assignment, course: CourseOption = None, as_json: Json = False) -> None:
    """Fetch what students submitted from nbgrader's exchange into submitted/ (nbgrader collect --update).

    A submission is taken from the account that it names, with the time of this machine's clock. What cannot
    be taken is named with its reason, all others are collected, and the exit code is 1.
    """
    root = find(course)
    from autograder.course import Course

    notes, refused, stopped = collected(root, assignment)
    students = Course.at(root).students(assignment)
    text = "\n".join([f"{assignment}: {counted(len(students), 'submission')}", *notes, *refused])
    said = {"assignment": assignment, "students": students, "refused": refused, "notes": notes}
    _say(as_json, said, text)
    if stopped:
        raise TitoError(stopped)


def grade(
    assignments: Annotated[list[str] | None, typer.Argument(help="Such as 05_autograd vision.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every assignment that was collected.")] = False,
    course: CourseOption = None,
    students: Annotated[
        list[str] | None, typer.Option(help="Only these; may be repeated, or names with commas.")
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(help=sandbox.HELP),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="For tracks: cifar10 or digits.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Submissions judged at the same time.")] = 2,
    scheduler: Annotated[
        str | None, typer.Option(help="A running Dask cluster, such as tcp://10.0.0.5:8786.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Judge again what has not changed.")] = False,
    replay: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="STUDENT ASSIGNMENT", help="Judge one grade again, and say what differs."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for every step.")] = False,
) -> None:
    """Grade collected submissions in the sandbox, into nbgrader's gradebook; formgrader shows them.

    What has its grade already is left alone; a run that was ended, however, goes on with the same command.
    """
    from autograder.gradebook import batch, judging

    root = find(course)
    place = judging.Course.at(root)
    if replay:
        _replay(place, *replay, _level(root, level), dataset, as_json)
        return
    names = place.collected() if everything else list(assignments or ())
    if everything and not names:
        raise TitoError("nothing to grade: nothing is collected yet, run `tito collect 01_tensor` first")
    if not names:
        raise TitoError("nothing to grade: name assignments, such as `tito grade 05_autograd`, or use --all")
    chosen = _level(root, level)
    warn_level(chosen)
    settings = judging.Settings(chosen, dataset or _dataset(root, names))
    only = None if not students else [name for word in students for name in word.split(",") if name]
    with _progress(as_json) as progress:
        judgements = batch.grade(
            place, names, settings, students=only, force=force, workers=workers, scheduler=scheduler,
            progress=progress,
        )  # fmt: skip
    failed = [judgement for judgement in judgements if not judgement.key]
    if as_json:
        print(json.dumps({"event": "done", "level": chosen, "failed": len(failed),
                               "grades": [_plain(judgement) for judgement in judgements]}))  # fmt: skip
    else:
        for line in report(judgements):
            print(line)
        print(f"sandbox level: {chosen}")
    if failed:
        raise TitoError(
            f"{len(failed)} of {len(judgements)} submissions were not graded, first {failed[0].student}'s "
            f"{failed[0].assignment}: {failed[0].stopped} Run the same command again for them."
        )


def _replay(
    place: Any, student: str, assignment: str, level: str, dataset: str | None, as_json: bool
) -> None:
    from autograder.gradebook import judging
    from autograder.gradebook.replay import replay

    settings = judging.Settings(level, dataset or _dataset(place.root, [assignment]))
    again, differences = replay(place, student, assignment, settings)
    if as_json:
        print(json.dumps({**_plain(again), "differences": differences}))
    else:
        print(f"{assignment} of {student}, again: {again.points:g} of {again.max_points:g}")
        for line in differences or ["the same points in every cell, from the same submission and grader"]:
            print(f"    {line}")
    if differences:
        raise typer.Exit(1)


def explain(
    student: Annotated[str, typer.Argument(help="The student's name in submitted/.")],
    assignment: Assignment,
    course: CourseOption = None,
    as_json: Json = False,
) -> None:
    """Say where one grade comes from: each cell, what was expected, the sandbox, the hashes, the penalty."""
    from nbgrader.api import Gradebook, MissingEntry

    from autograder.gradebook import judging, records

    root = find(course)
    place = judging.Course.at(root)
    record = records.load_record(place, student, assignment)
    if record is None:
        first = command("tito", "grade", assignment)
        raise TitoError(f"{student} has no graded {assignment}: run {first} first")
    late: dict[str, Any] = {}
    with Gradebook(records.nbgrader_config(place).CourseDirectory.db_url) as gradebook:
        try:
            found = gradebook.find_submission(assignment, student)
            penalty = sum(book.late_submission_penalty or 0.0 for book in found.notebooks)
            late = {"score": found.score, "seconds_late": found.total_seconds_late, "penalty": penalty}
        except MissingEntry:
            late = {}
    if as_json:
        cells = [vars(cell) for cell in record.cells]
        print(json.dumps({**_plain(record), "cells": cells, "hashes": record.hashes, "gradebook": late}))
        return
    print(f"{assignment} of {student}: {record.points:g} of {record.max_points:g}, judged {record.date}")
    for cell in record.cells:
        points = "by hand" if cell.points is None else f"{cell.points:g} of {cell.max_points:g}"
        print(f"    {cell.grade_id:<28} {points:<12} {cell.reason}".rstrip())
    for note in [*record.notes, *([record.stopped] if record.stopped else [])]:
        print(f"    {note}")
    print(f"sandbox level {record.level}, handed in {record.submitted or 'at a time that is not known'}")
    if late:
        print(f"in the gradebook: {late['score']:g} points, {late['penalty']:g} taken off for lateness")
    hashes = ", ".join(f"{name} {value[:12]}" for name, value in record.hashes.items())
    print(f"from {hashes or 'a record of an older version, which kept no hashes'}")


def similarity(
    assignment: Assignment,
    course: CourseOption = None,
    as_json: Json = False,
) -> None:
    """Compare the class's answers with compare50, where it is installed; a report to read, never a score."""
    import shutil

    from autograder import needs
    from autograder.course import Course
    from autograder.files import write_text
    from autograder.notebooks.rebuild import answers_as_text

    program = needs.program("compare50")
    place = Course.at(find(course))
    students = place.students(assignment)
    if len(students) < 2:
        raise TitoError(f"{len(students)} submissions of {assignment}: two or more can be compared")
    folder = place.grading / "similarity" / assignment
    shutil.rmtree(folder, ignore_errors=True)
    files = []
    for student in students:
        path = folder / "answers" / student / f"{assignment}.py"
        path.parent.mkdir(parents=True)
        write_text(path, answers_as_text(place.submitted(student, assignment) / f"{assignment}.ipynb"))
        files.append(str(path))
    given = folder / "given.py"  # what everybody has been given is no likeness
    released = place.root / "release" / assignment / f"{assignment}.ipynb"
    write_text(given, answers_as_text(released))
    command = [program, *files, "-d", str(given), "-o", str(folder / "report")]
    places = [str(Path(program).parent), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    env = {**os.environ, "PATH": os.pathsep.join(places)}  # it starts python3
    done = streams.run(command, env=env)
    page = folder / "report" / "index.html"
    if done.returncode or not page.is_file():
        said = (done.stderr or done.stdout).strip().splitlines()
        raise TitoError(f"compare50 stopped: {said[-1] if said else 'it said nothing'}")
    _say(as_json, {"report": str(page), "compared": len(files)}, f"{len(files)} submissions compared: {page}")


@contextmanager
def _progress(as_json: bool) -> Iterator[Any]:
    """What shows the steps of a batch: lines of JSON, or a bar on stderr with the time left."""
    if as_json:
        yield lambda event: print(json.dumps(event))
        return
    from tqdm import tqdm

    with tqdm(unit="submission", dynamic_ncols=True, file=sys.stderr, smoothing=0.1, delay=0.5) as bar:

        def show(event: dict[str, Any]) -> None:
            bar.total = event["total"]
            if event["event"] == "recorded":
                return
            bar.set_description(event["assignment"], refresh=False)
            bar.set_postfix_str(
                f"{event['student']} {event['points']:g} of {event['max_points']:g}", refresh=False
            )
            bar.update(event["done"] - bar.n)

        yield show


def feedback(
    assignment: Assignment,
    course: CourseOption = None,
    publish: Annotated[bool, typer.Option(help="Also put it into nbgrader's exchange for students.")] = False,
    as_json: Json = False,
) -> None:
    """Write feedback/ as HTML for each student, without hidden tests (nbgrader generate_feedback)."""
    root = find(course)
    pages = give_feedback(root, assignment)
    if publish:
        from autograder.gradebook.exchange import ReleaseFeedback

        _exchange(ReleaseFeedback, root, assignment)
    _say(as_json, {"pages": list(map(str, pages))}, f"{counted(len(pages), 'page')} in {root / 'feedback'}")


# ---- what the commands and the demo share


def find(given: Path | None) -> Path:
    """The course folder: the given one, or the nearest one with an nbgrader_config.py. Raises TitoError."""
    if given is not None:
        if not given.is_dir():
            raise TitoError(f"{given} is no folder: expected a course, with source/ and nbgrader_config.py")
        return _usable(given.resolve())
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "nbgrader_config.py").is_file():
            return _usable(folder)
    raise TitoError(f"{here} is in no course: go to the folder with nbgrader_config.py, or use --course")


def _usable(root: Path) -> Path:
    folders.check(root, course=True)
    return root


def generate(root: Path, assignment: str) -> None:
    """nbgrader's generate_assignment, in this process, with the course's gradebook. Raises TitoError."""
    from nbgrader.converters import GenerateAssignment

    if not (root / "source" / assignment).is_dir():
        raise TitoError(f"{root / 'source' / assignment} is missing: run `tito build`, or check the name")
    _convert(GenerateAssignment, root, assignment)


def counted(number: int, word: str) -> str:
    """A number and its word: 1 submission, 2 submissions."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def give_feedback(root: Path, assignment: str) -> list[Path]:
    """nbgrader's generate_feedback, in this process; returns the pages. Raises TitoError."""
    from nbgrader.converters import GenerateFeedback

    if not any((root / "autograded").glob(f"*/{assignment}")):
        raise TitoError(f"no {assignment} is graded yet: run {command('tito', 'grade', assignment)} first")
    _convert(GenerateFeedback, root, assignment)
    return sorted((root / "feedback").glob(f"*/{assignment}/*.html"))


def publish_release(root: Path, assignment: str) -> None:
    """nbgrader's release_assignment, over an older release of the same. Raises TitoError."""
    from autograder.gradebook.exchange import ReleaseAssignment

    _exchange(ReleaseAssignment, root, assignment, force=True)


def collected(root: Path, assignment: str) -> tuple[list[str], list[str], str]:
    """Collect what was handed in; lines about what was, what was not, and the last one where some was not.

    Raises TitoError where nothing can be collected at all.
    """
    from nbgrader.exchange import ExchangeError

    from autograder.gradebook.exchange import Collect

    app = _exchange_app(Collect, root, assignment, update=True)
    try:
        app.start()
    except ExchangeError as error:
        if not app.refused:
            raise TitoError(f"nbgrader Collect: {error}") from error
        return app.notes, app.refused, str(error)
    return app.notes, app.refused, ""


def warn_level(level: str) -> None:
    """Say loudly that the sandbox is not the strongest one."""
    if level != "bubblewrap":
        print(
            f"WARNING: submissions run at sandbox level {level}, not bubblewrap: install bubblewrap from "
            "your system's packages for official grading.",
            file=sys.stderr,
        )


def report(judgements: Iterable[Any]) -> list[str]:
    """A table: student, points, and a line for every graded cell that lost some."""
    lines = []
    assignment = None
    for judgement in judgements:
        if judgement.assignment != assignment:
            assignment = judgement.assignment
            lines.append(assignment)
        lines.append(f"{judgement.student:<16} {judgement.points:6.1f} of {judgement.max_points:g}")
        lines += [f"    {note}" for note in judgement.notes]
        lines += [f"    {lost}" for lost in grouped(judgement)]
    return lines


def grouped(judgement: Any) -> list[str]:
    """Lost points, a line a reason; cells that share one reason share its line."""
    reasons: dict[str, list[Any]] = {}
    for cell in judgement.cells:
        if cell.points is None or cell.points < cell.max_points:
            reasons.setdefault(cell.reason or "A person grades this cell.", []).append(cell)
    lines = []
    for reason, cells in reasons.items():
        lost = sum(cell.max_points - (cell.points or 0.0) for cell in cells)
        names = ", ".join(cell.grade_id for cell in cells[:3]) + (
            f" and {len(cells) - 3} more" if cells[3:] else ""
        )
        lines.append(f"-{lost:g} {names}: {reason}")
    return lines


def _convert(converter: Any, root: Path, assignment: str) -> None:
    from nbgrader.converters.base import NbGraderException
    from nbgrader.coursedir import CourseDirectory

    from autograder.course import Course
    from autograder.gradebook.records import exchange_config, quiet_log

    config = exchange_config(Course.at(root))
    config.CourseDirectory.assignment_id = assignment
    log, said = quiet_log()
    try:
        converter(coursedir=CourseDirectory(config=config), config=config, log=log, force=True).start()
    except NbGraderException as error:
        trace = next((line for line in said if line.startswith("Traceback")), str(error))
        raise TitoError(f"nbgrader {converter.__name__}: {trace.strip().splitlines()[-1]}") from error


def _exchange(step: Any, root: Path, assignment: str, **settings: bool) -> None:
    """One of nbgrader's steps between the course and its exchange, in this process. Raises TitoError."""
    from nbgrader.exchange import ExchangeError

    try:
        _exchange_app(step, root, assignment, **settings).start()
    except ExchangeError as error:
        raise TitoError(f"nbgrader {step.__name__}: {error}") from error


def _exchange_app(step: Any, root: Path, assignment: str, **settings: bool) -> Any:
    from nbgrader.coursedir import CourseDirectory

    from autograder.course import Course
    from autograder.gradebook.records import exchange_config, quiet_log

    config = exchange_config(Course.at(root))
    config.CourseDirectory.assignment_id = assignment
    return step(coursedir=CourseDirectory(config=config), config=config, log=quiet_log()[0], **settings)


def _level(root: Path, named: str | None) -> str:
    """The sandbox level to grade at: as named or set, but not weaker than nbgrader_config.py demands."""
    from autograder.gradebook.judging import Course
    from autograder.gradebook.records import nbgrader_config

    least = str(nbgrader_config(Course.at(root)).Judged.get("level", ""))
    return sandbox.choose(named, least)


def _dataset(root: Path, assignments: Sequence[str]) -> str:
    """What tracks are scored on: as the course's nbgrader_config.py says, else what is on this machine."""
    from autograder.course import Course
    from autograder.data import datasets
    from autograder.gradebook.records import nbgrader_config

    tracks = [name for name in assignments if name in rules.TRACKS]
    if not tracks:
        return datasets.usual()
    config = nbgrader_config(Course.at(root))
    chosen = str(config.Judged.get("dataset", "") or datasets.usual())
    if any(rules.track(name).dataset(chosen) == "digits" for name in tracks):
        print("The track is scored on digits, the offline stand-in for CIFAR-10.", file=sys.stderr)
    return chosen


def _plain(judgement: Any) -> dict[str, Any]:
    return {
        "student": judgement.student, "assignment": judgement.assignment, "points": judgement.points,
        "max_points": judgement.max_points, "lost": judgement.lost, "notes": judgement.notes,
        "level": judgement.level,
    }  # fmt: skip


def _say(as_json: bool, data: dict[str, Any], text: str | Sequence[str]) -> None:
    print(json.dumps(data) if as_json else text)
