"""`tito course`: make a course ready to teach, shift its schedule to dates, compute and export its grades."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from autograder import paths
from autograder.errors import command
from autograder.files import write_text
from autograder.term import schedule as plans
from tito.errors import TitoError
from tito.instructor.grading import CourseOption, Json, find
from tito.student.workspace import repository

app = typer.Typer(no_args_is_help=True, help="For instructors: a course to teach, its dates and its grades.")

Start = Annotated[str | None, typer.Option(help="The first day of the course, such as 2027-01-11.")]
Zone = Annotated[str | None, typer.Option(help="Such as Europe/Berlin; default: the schedule's.")]
Skip = Annotated[
    list[str] | None, typer.Option(help="A day, or first..last; may be repeated. A whole week is a break.")
]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where the course goes; made, or completed.")],
    name: Annotated[
        str | None, typer.Option(help="The course's name for nbgrader; default: the folder's.")
    ] = None,
    weeks: Annotated[str, typer.Option(help="8 or 2, or a schedule file.")] = "8",
    start: Start = None,
    timezone: Zone = None,
    skip: Skip = None,
    exchange: Annotated[
        Path | None, typer.Option(help="Folder that students fetch from; default: exchange/ in the course.")
    ] = None,
    students: Annotated[
        Path | None, typer.Option(help="Roster as CSV: nbgrader's, Moodle's or Canvas's.")
    ] = None,
    lessons: Annotated[
        Path | None, typer.Option(help="Repository or bundle with source/; default: this repository.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a course ready to teach, or add what it lacks; overwrites nothing."""
    from autograder.term import roster
    from tito.instructor import course_folder

    home = course_folder.lessons_folder(lessons)
    path = schedule_file(weeks, home)
    own = folder / "course" / "schedule.toml"
    planned = None
    if start is not None:
        planned = planned_from(str(path), start, timezone, skip or [], home)
    elif timezone or skip:
        raise TitoError("--timezone and --skip belong to dates: add --start 2027-01-11")
    people = roster.read(students) if students is not None else []
    wish = course_folder.Wish(
        name or folder.expanduser().resolve().name, home, exchange, people, path, planned, tuple(skip or ())
    )
    kept = start is not None and own.exists()
    added = course_folder.make(folder, wish)
    if as_json:
        print(json.dumps({"course": str(folder.expanduser().resolve()), "added": added}))
        return
    print(f"{folder}: " + (f"added {', '.join(added)}" if added else "nothing new, all is as it was"))
    if kept:
        print("It has its dates already: `tito course schedule --start DAY --apply` moves them.")
    print(f"Next: {command('cd', folder)}; README.md there holds each week's commands.")


@app.command()
def schedule(
    weeks: Annotated[
        str | None, typer.Option(help="8, 2, capstone-8, capstone-2, or a file; default: the course's.")
    ] = None,
    start: Start = None,
    timezone: Zone = None,
    skip: Skip = None,
    course: CourseOption = None,
    ics: Annotated[Path | None, typer.Option(help="Write or update a calendar file.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Into the course's deadlines and gradebook.")
    ] = False,
    move_handed_in: Annotated[
        bool, typer.Option("--move-handed-in", help="Move due dates that students have handed in for, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the weeks of a course with dates; --ics writes a calendar, --apply sets the due dates."""
    if ics is not None:
        from autograder.term import calendar
    planned = planned_from(weeks, start, timezone, skip or [], course)
    done: dict[str, Any] = {}
    if apply:
        done["moved"] = _apply(
            find(course), planned, schedule_file(weeks, course), skip or [], move_handed_in
        )
    if ics is not None:
        done["events"] = calendar.write(planned, ics, _course_id(course))
    if as_json:
        print(json.dumps({**plain(planned), **done}))
        return
    for line in plans.table(planned):
        print(line)
    if "moved" in done:
        print(f"{len(done['moved'])} due dates set in {find(course) / 'course' / 'deadlines.toml'}")
    if "events" in done:
        print(f"{done['events']} events new or changed in {ics}")


@app.command()
def grades(
    student: Annotated[
        str | None, typer.Argument(help="One student: say where each figure comes from.")
    ] = None,
    course: CourseOption = None,
    form: Annotated[str, typer.Option("--format", help="table, csv, canvas or moodle.")] = "table",
    what: Annotated[
        str | None,
        typer.Option(
            help="assignments, parts or both; default: assignments for canvas and moodle, else both."
        ),
    ] = None,
    roster: Annotated[
        Path | None, typer.Option(help="Canvas's exported gradebook, or Moodle's participants, as CSV.")
    ] = None,
    identity: Annotated[
        str, typer.Option(help="For Moodle: email, idnumber or username finds a student.")
    ] = "email",
    to: Annotated[Path | None, typer.Option(help="The file; default: to the terminal.")] = None,
    as_json: Json = False,
) -> None:
    """The course grade in its four parts, or the marks as CSV for a spreadsheet, Canvas or Moodle."""
    from autograder.term import course_grade, gradebook_csv

    _expect("--format", form, ("table", "csv", "canvas", "moodle"))
    _expect("--what", what or "both", ("assignments", "parts", "both"))
    _expect("--identity", identity, tuple(gradebook_csv.MOODLE))
    said: list[str] = []
    found, computed = class_grades(find(course))
    if not computed:
        raise TitoError(
            "nobody is in the gradebook: `tito course init . --students roster.csv` enters a class"
        )
    if student is not None:
        computed = [grade for grade in computed if grade.student == student]
        if not computed:
            raise TitoError(f"{student} is not in the gradebook: expected one of {_some(found.students)}")
    if as_json:
        print(json.dumps({"grades": [plain_grade(grade) for grade in computed]}))
        return
    if form == "table":
        lines = course_grade.table(computed) if student is None else course_grade.explained(computed[0])
        text = "\n".join(lines) + "\n"
    else:
        default = "both" if form == "csv" else "assignments"
        chosen = gradebook_csv.columns(found, computed, what or default)
        if form == "csv":
            text, said = gradebook_csv.plain(found, chosen)
        elif form == "canvas":
            text, said = gradebook_csv.canvas(found, chosen, roster)
        else:
            text, said = gradebook_csv.moodle(found, chosen, identity, roster)
    for line in said:
        print(line, file=sys.stderr)
    if to is None:
        print(text, end="")
        return
    try:
        write_text(to, text)
    except OSError as error:
        raise TitoError(f"{to} cannot be written ({error.strerror}): name another file") from error
    print(f"{to}: {len(text.splitlines())} lines")


@app.command("new-lesson")
def new_lesson(name: Annotated[str, typer.Argument(help="Such as 20_smoothing.")]) -> None:
    """Begin a lesson: a file in modules/ that builds and grades as it stands, and its wrong solutions."""
    from tito.build import scaffold

    _begun(scaffold.new_lesson(name, Path.cwd()), name)


@app.command("new-track")
def new_track(
    name: Annotated[str, typer.Argument(help="A track of the rules table, such as noisy.")],
) -> None:
    """Begin the notebook of a track that stands in the rules table: it trains, and the scorer grades it."""
    from tito.build import scaffold

    _begun(scaffold.new_track(name, Path.cwd()), name)


def _begun(files: list[Path], name: str) -> None:
    for path in files:
        print(f"wrote {path}")
    print(f"It builds as it stands: {command('tito', 'build', name)}. Make it yours, and build again.")


def class_grades(root: Path) -> tuple[Any, list[Any]]:
    """The marks and the course grades of a course's class. Raises GradingError."""
    from nbgrader.api import Gradebook

    from autograder.course import Course
    from autograder.gradebook import records
    from autograder.term import course_grade, marks

    place = Course.at(root)
    with Gradebook(records.nbgrader_config(place).CourseDirectory.db_url) as gradebook:
        found = marks.collect(place, gradebook)
        return found, course_grade.grades(place, gradebook, found)


def plain_grade(grade: Any) -> dict[str, Any]:
    """A course grade in JSON types; points that are not there yet are null."""
    parts = {name: vars(part) for name, part in grade.parts.items()}
    return {
        "student": grade.student, "parts": parts, "total": grade.total, "of": grade.of, "final": grade.final,
    }  # fmt: skip


def planned_from(
    weeks: str | None, start: str | None, timezone: str | None, skip: list[str], course: Path | None
) -> plans.Plan:
    """The plan that the options ask for. Raises TitoError."""
    path = schedule_file(weeks, course)
    found = plans.load(path)
    try:
        first = datetime.date.fromisoformat(start) if start is not None else found.start
    except ValueError:
        raise TitoError(f"--start {start}: expected a day such as 2027-01-11") from None
    if first is None:
        raise TitoError("a schedule needs its first day: --start 2027-01-11")
    try:
        days = [day for text in skip or found.skip for day in plans.days(text)]
        return plans.plan(found, first, timezone=timezone, skip=days)
    except (ValueError, OverflowError) as error:
        raise TitoError(f"no schedule from {first}: {error}") from error


def schedule_file(weeks: str | None, course: Path | None) -> Path:
    """A schedule by its number of weeks, by its file, or the course's own. Raises TitoError."""
    if weeks is None:
        try:
            own = find(course) / "course" / "schedule.toml"
        except TitoError:
            own = None
        if own is not None and own.is_file():
            return own
        weeks = "8"
    if Path(weeks).suffix == ".toml":
        return Path(weeks)
    here = _here(course)
    places = [*paths.SCHEDULES, *([here / "course" / "schedules"] if here is not None else [])]
    for place in places:
        if (place / f"{weeks}-weeks.toml").is_file():
            return place / f"{weeks}-weeks.toml"
    files = [path.name for place in places for path in place.glob("*-weeks.toml")]
    there = sorted(name.removesuffix("-weeks.toml") for name in files)
    known = " or ".join(dict.fromkeys(there)) or "a course repository"
    raise TitoError(f"no schedule of {weeks} weeks: expected {known}, or a file such as my-weeks.toml")


def plain(planned: plans.Plan) -> dict[str, Any]:
    """A plan in JSON types."""
    return {
        "title": planned.schedule.title, "start": str(planned.start), "timezone": planned.zone.key,
        "skipped": [str(day) for day in planned.skipped],
        "weeks": [
            {"week": number, "start": str(start), "title": week.title, "reading": week.reading,
             "hours": round(hours, 2)}
            for number, (week, start, hours) in enumerate(
                zip(planned.schedule.weeks, planned.weeks, planned.hours(), strict=True), start=1
            )
        ],
        "assignments": [
            {"name": item.name, "week": item.week, "release": item.release.isoformat(),
             "due": item.due.isoformat(), "hours": item.hours}
            for item in planned.items
        ],
    }  # fmt: skip


def _apply(root: Path, planned: plans.Plan, path: Path, skip: list[str], force: bool) -> list[str]:
    from nbgrader.api import Gradebook

    from autograder.course import Course
    from autograder.gradebook import records
    from autograder.term import due_dates

    place = Course.at(root)
    if root == repository():
        raise TitoError(
            f"{root} is the course repository: make a course with `tito course init`, then --course"
        )
    with Gradebook(records.nbgrader_config(place).CourseDirectory.db_url) as gradebook:
        due = {name: when for name, when in planned.due().items() if place.source(name).is_file()}
        if not due:
            raise TitoError(f"{root} has none of the schedule's assignments in source/: nothing is due")
        changes = due_dates.moves(place, gradebook, due)
        blocked = [(name, before, count) for name, before, _, count in changes if before and count]
        if blocked and not force:
            shown = ", ".join(
                f"{name} (due {before:%Y-%m-%d %H:%M %Z}, {n} handed in)" for name, before, n in blocked
            )
            raise TitoError(
                f"nothing was changed, for students have handed in: {shown}. Plan those days as they are, or "
                "add --move-handed-in"
            )
        due_dates.apply(place, gradebook, {name: then for name, _, then, _ in changes})
        text = plans.with_start(
            path.read_text(encoding="utf-8"), planned.start, planned.zone.key, skip or planned.schedule.skip
        )
        write_text(root / "course" / "schedule.toml", text)
    return [name for name, *_ in changes]


def _expect(option: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise TitoError(f"{option} {given}: expected {', '.join(known)}")


def _some(names: Any) -> str:
    known = list(names)
    return ", ".join(known[:6]) + (f" and {len(known) - 6} more" if known[6:] else "")


def _course_id(course: Path | None) -> str:
    from autograder.course import Course
    from autograder.gradebook import records

    here = _here(course)
    if here is None:
        return "torch-olympics"
    config = records.nbgrader_config(Course.at(here))
    return str(config.CourseDirectory.get("course_id", "") or here.name)


def _here(course: Path | None) -> Path | None:
    """The course folder, or None where there is none and none was named."""
    try:
        return find(course)
    except TitoError:
        if course is not None:
            raise
        return None
