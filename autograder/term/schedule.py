"""A course's weeks as data: what is released and due when, and how much work it is, shifted to a start day.

A schedule file (course/schedules/*.toml) counts in days after the first day of each week, so that it serves
every year. `plan` turns it into dates: a week that is skipped as a whole moves everything after it by a week,
and what falls on a single skipped day moves to the next day that is not skipped.
"""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from autograder.errors import GradingError

DAY = datetime.timedelta(days=1)
WEEK = 7 * DAY
NAME = re.compile(r"[A-Za-z0-9][\w-]{0,63}$")
MOST_WEEKS, MOST_SKIPPED = 60, 366


@dataclass(frozen=True)
class Item:
    """An assignment of a week; release and due in days after the week's first day, hours of work."""

    name: str
    release: int
    due: int
    hours: float


@dataclass(frozen=True)
class Week:
    """What a week is about, what fits to read, and the assignments that are released in it."""

    title: str
    items: tuple[Item, ...]
    reading: str = ""


@dataclass(frozen=True)
class Schedule:
    """The weeks of a course; the times of day are local to `timezone`. A course's own file has its start."""

    title: str
    weeks: tuple[Week, ...]
    timezone: str = "UTC"
    release_time: datetime.time = datetime.time(9)
    due_time: datetime.time = datetime.time(23, 59)
    start: datetime.date | None = None
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """An assignment with its dates; `week` counts from 1."""

    name: str
    week: int
    release: datetime.datetime
    due: datetime.datetime
    hours: float


@dataclass(frozen=True)
class Plan:
    """A schedule shifted to a start day: the first day of every week, and the assignments by release."""

    schedule: Schedule
    start: datetime.date
    zone: ZoneInfo
    skipped: tuple[datetime.date, ...]
    weeks: tuple[datetime.date, ...]
    items: tuple[Planned, ...]

    def hours(self) -> list[float]:
        """Hours of work in each week: an assignment's are spread evenly over the days it is open."""
        found = [0.0] * len(self.weeks)
        for item in self.items:
            first, last = item.release.date(), item.due.date()
            days = [first + DAY * k for k in range((last - first).days + 1)]
            days = [day for day in days if day not in self.skipped] or [last]
            for day in days:
                week = max((k for k, start in enumerate(self.weeks) if start <= day), default=0)
                found[week] += item.hours / len(days)
        return found

    def due(self) -> dict[str, datetime.datetime]:
        """When each assignment is due, by name."""
        return {item.name: item.due for item in self.items}


def load(path: Path) -> Schedule:
    """Read and check a schedule file. Raises GradingError with one line that says what to mend."""
    try:
        return parse(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise GradingError(f"{path} cannot be read ({error.strerror}): name a schedule file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise GradingError(f"{path} is no schedule ({error}): mend that line.") from error


def parse(data: Mapping[str, Any]) -> Schedule:
    """A schedule from the tables of its file. Raises ValueError that names the field."""
    fields = {"title", "timezone", "release_time", "due_time", "start", "skip", "week"}
    _known(data, fields, "the file")
    weeks = data.get("week")
    if not isinstance(weeks, list) or not 1 <= len(weeks) <= MOST_WEEKS:
        raise ValueError(f"expected [[week]] tables, 1 to {MOST_WEEKS} of them")
    made = tuple(_week(week, f"week {number}") for number, week in enumerate(weeks, start=1))
    names = [item.name for week in made for item in week.items]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{twice[0]} stands in the schedule twice: an assignment is released once")
    if not names:
        raise ValueError("no week has an assignment")
    times = {}
    for field in ("release_time", "due_time"):
        if field in data:
            times[field] = data[field]
            if not isinstance(data[field], datetime.time):
                raise ValueError(f"{field} = {data[field]!r}: expected a time of day such as 23:59:00")
    name = str(data.get("timezone", "UTC"))
    zone(name)
    start, skip = data.get("start"), data.get("skip", [])
    if start is not None and (not isinstance(start, datetime.date) or isinstance(start, datetime.datetime)):
        raise ValueError(f"start = {start!r}: expected a day such as 2027-01-11")
    if not isinstance(skip, list) or not all(isinstance(text, str) and days(text) for text in skip):
        raise ValueError(f"skip = {skip!r}: expected a list such as ['2027-02-15', '2027-03-29..2027-04-04']")
    return Schedule(_text(data, "title", "the file"), made, name, **times, start=start, skip=tuple(skip))


def plan(
    schedule: Schedule,
    start: datetime.date,
    *,
    timezone: str | None = None,
    skip: Collection[datetime.date] = (),
) -> Plan:
    """Shift a schedule to a start day, around the days to skip. Raises ValueError for an unknown time zone.

    Order is kept: what was released or due before another is never after it.
    """
    here, skipped = zone(timezone or schedule.timezone), frozenset(skip)
    last = max(week * 7 + item.due for week, has in enumerate(schedule.weeks) for item in has.items) // 7
    starts = _week_starts(start, max(len(schedule.weeks), last + 1), skipped)

    def on(day: int, time: datetime.time) -> datetime.datetime:
        date = starts[day // 7] + DAY * (day % 7)
        while date in skipped:
            date += DAY
        local = datetime.datetime.combine(date, time.replace(tzinfo=None), tzinfo=here)
        # through UTC and back: a time that the clocks leave out becomes one that exists
        return local.astimezone(datetime.UTC).astimezone(here)

    items = [
        Planned(
            item.name,
            number + 1,
            on(7 * number + item.release, schedule.release_time),
            on(7 * number + item.due, schedule.due_time),
            item.hours,
        )
        for number, week in enumerate(schedule.weeks)
        for item in week.items
    ]
    return Plan(
        schedule, start, here, tuple(sorted(skipped)), tuple(starts[: len(schedule.weeks)]), tuple(items)
    )


def with_start(text: str, start: datetime.date, timezone: str, skip: Iterable[str]) -> str:
    """The text of a schedule file with these in front of its weeks, all else untouched."""
    lines = text.splitlines()
    end = next((k for k, line in enumerate(lines) if line.lstrip().startswith("[")), len(lines))
    top = [line for line in lines[:end] if not re.match(r"\s*(start|timezone|skip)\s*=", line)]
    while top and not top[-1].strip():
        top.pop()
    top += [f"start = {start}", f'timezone = "{timezone}"', f"skip = {json.dumps(list(skip))}", ""]
    made = "\n".join([*top, *lines[end:]]) + "\n"
    parse(tomllib.loads(made))
    return made


def zone(name: str) -> ZoneInfo:
    """A time zone of the IANA database by name. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"no time zone {name!r}: expected a name such as Europe/Berlin or UTC") from None


def days(text: str) -> list[datetime.date]:
    """The days of `2027-02-15` or `2027-02-15..2027-02-19`, both ends included. Raises ValueError."""
    first, dots, last = text.partition("..")
    try:
        begin = datetime.date.fromisoformat(first.strip())
        end = datetime.date.fromisoformat(last.strip()) if dots else begin
    except ValueError:
        raise ValueError(f"{text!r} is no day: expected 2027-02-15 or 2027-02-15..2027-02-19") from None
    count = (end - begin).days + 1
    if not 1 <= count <= MOST_SKIPPED:
        raise ValueError(f"{text!r}: expected the earlier day first, at most {MOST_SKIPPED} days")
    return [begin + DAY * k for k in range(count)]


def _week_starts(start: datetime.date, count: int, skipped: Collection[datetime.date]) -> list[datetime.date]:
    starts: list[datetime.date] = []
    week = start
    while len(starts) < count:
        if not all(week + DAY * k in skipped for k in range(7)):
            starts.append(week)
        week += WEEK
    return starts


def _week(data: Any, where: str) -> Week:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is no table")
    _known(data, {"title", "reading", "assignments"}, where)
    given = data.get("assignments", [])
    if not isinstance(given, list):
        raise ValueError(f"{where}: assignments is no list")
    items = tuple(_item(item, where) for item in given)
    return Week(_text(data, "title", where), items, str(data.get("reading", "")))


def _item(data: Any, where: str) -> Item:
    if not isinstance(data, dict) or not isinstance(data.get("name"), str) or not NAME.match(data["name"]):
        raise ValueError(f"{where}: expected assignments such as {{ name = '01_tensor', ... }}, got {data!r}")
    where = f"{where}, {data['name']}"
    _known(data, {"name", "release", "due", "hours"}, where)
    release, due, hours = _day_of(data, "release", where), _day_of(data, "due", where), data.get("hours")
    if isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 <= hours <= 200:
        raise ValueError(f"{where}: hours = {hours!r}, expected 0 to 200")
    if release > 6:
        raise ValueError(f"{where}: release = {release}, which is in a later week: put it there")
    if due < release:
        raise ValueError(f"{where}: due on day {due}, before its release on day {release}")
    return Item(data["name"], release, due, float(hours))


def _day_of(data: Mapping[str, Any], field: str, where: str) -> int:
    day = data.get(field)
    if isinstance(day, bool) or not isinstance(day, int) or not 0 <= day < 7 * MOST_WEEKS:
        raise ValueError(f"{where}: {field} = {day!r}, expected days after the week's first day, from 0")
    return day


def _known(data: Mapping[str, Any], known: Collection[str], where: str) -> None:
    if strange := sorted(set(data) - set(known)):
        raise ValueError(f"{where} has {strange[0]!r}: expected {', '.join(sorted(known))}")


def _text(data: Mapping[str, Any], field: str, where: str) -> str:
    text = data.get(field)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where} has no {field}")
    return text


def table(planned: Plan) -> list[str]:
    """A plan as lines to print: a block a week, its assignments with release, due date and hours."""
    lines = [f"{planned.schedule.title}: from {_day(planned.start)}, times in {planned.zone.key}"]
    hours = planned.hours()
    for number, (week, start) in enumerate(zip(planned.schedule.weeks, planned.weeks, strict=True), start=1):
        lines += ["", f"week {number}  {_day(start)}  {week.title}  ({hours[number - 1]:.1f} h)"]
        if week.reading:
            lines.append(f"    read      {week.reading}")
        events = [
            (item.release, f"release   {item.name:<18} {item.hours:4g} h")
            for item in planned.items
            if item.week == number
        ] + [
            (item.due, f"due       {item.name}")
            for item in planned.items
            if _in_week(planned, number, item.due.date())
        ]
        for when, what in sorted(events, key=lambda event: event[0]):
            lines.append(f"    {_moment(when)}  {what}")
    skipped = ", ".join(_ranges(planned.skipped))
    lines += ["", f"{sum(hours):.1f} h of work, {max(hours):.1f} h in the fullest week"]
    return [*lines, f"skipped: {skipped}"] if skipped else lines


def _in_week(planned: Plan, number: int, day: datetime.date) -> bool:
    last = number == len(planned.weeks)
    return planned.weeks[number - 1] <= day and (last or day < planned.weeks[number])


def _ranges(days: Iterable[datetime.date]) -> list[str]:
    runs: list[list[datetime.date]] = []
    for day in days:
        if runs and day - runs[-1][-1] == DAY:
            runs[-1].append(day)
        else:
            runs.append([day])
    return [f"{run[0]}..{run[-1]}" if run[1:] else str(run[0]) for run in runs]


def _day(day: datetime.date) -> str:
    return f"{day:%a} {day}"


def _moment(when: datetime.datetime) -> str:
    return f"{when:%a} {when:%Y-%m-%d %H:%M}"
