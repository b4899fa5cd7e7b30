"""A plan as an iCalendar file: a release and a due date for each assignment.

Times are UTC, so that they are right on both sides of a change of the clocks. Every event keeps its UID, and
its SEQUENCE rises when it moves, so that a calendar which imports the file again updates what it has. An
event that the new plan no longer holds is cancelled.
"""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path

from autograder import files
from autograder.errors import GradingError
from autograder.needs import need
from autograder.term.schedule import Plan

need("icalendar")
from icalendar import Calendar, Event  # noqa: E402, where it is missing, need has said so

MOMENT = datetime.timedelta(minutes=15)  # what an event takes up in a calendar: it ends when work is due


def write(plan: Plan, path: Path, course_id: str, *, now: datetime.datetime | None = None) -> int:
    """Write the plan's calendar, or update the one that is there; returns how many events have changed.

    Raises GradingError where `path` holds something else than a calendar, or cannot be written.
    """
    try:
        known = _events(path) if path.exists() else {}
        now = (now or datetime.datetime.now(datetime.UTC)).replace(microsecond=0)
        calendar = Calendar()
        calendar.add("prodid", "-//Torch Olympics//course schedule//EN")
        calendar.add("version", "2.0")
        calendar.add("method", "PUBLISH")
        calendar.add("x-wr-calname", course_id)
        changed = 0
        new = _planned(plan, course_id)
        for uid in {**new, **known}:
            event, moved = _merged(new.get(uid), known.get(uid), now)
            changed += moved
            calendar.add_component(event)
        files.write_bytes(path, calendar.to_ical())
    except OSError as error:
        raise GradingError(f"{path} cannot be written ({error.strerror}): name another file") from error
    return changed


def uid(course_id: str, assignment: str, kind: str) -> str:
    """The lasting name of an event: the same for the same course, assignment and kind."""
    return hashlib.sha256(f"{course_id}\n{assignment}\n{kind}".encode()).hexdigest()[:32] + "@torch-olympics"


def _planned(plan: Plan, course_id: str) -> dict[str, Event]:
    events = {}
    for item in plan.items:
        week = plan.schedule.weeks[item.week - 1]
        about = f"{course_id}, week {item.week}: {week.title}. About {item.hours:g} hours of work."
        for kind, when in (("release", item.release), ("due", item.due)):
            event = Event()
            name = uid(course_id, item.name, kind)
            event.add("uid", name)
            event.add("summary", f"{item.name} is {'released' if kind == 'release' else 'due'}")
            begin = when if kind == "release" else when - MOMENT
            event.add("dtstart", begin.astimezone(datetime.UTC))
            event.add("dtend", (begin + MOMENT).astimezone(datetime.UTC))
            event.add("description", about)
            event.add("categories", [kind])
            event.add("transp", "TRANSPARENT")
            events[name] = event
    return events


def _merged(new: Event | None, old: Event | None, now: datetime.datetime) -> tuple[Event, bool]:
    """The event to write and whether it differs from the old one, whose sequence it goes on with."""
    if new is None:
        assert old is not None
        if str(old.get("status", "")) == "CANCELLED":
            return old, False
        new = Event()
        for field, value in old.items():
            if field not in ("DTSTAMP", "SEQUENCE"):
                new[field] = value
        new.add("status", "CANCELLED")
    elif old is not None and _content(new) == _content(old):
        return old, False
    new.add("sequence", int(old.get("sequence", 0)) + 1 if old is not None else 0)
    new.add("dtstamp", now)
    return new, True


def _content(event: Event) -> list[object]:
    texts = [str(event.get(field, "")) for field in ("summary", "description", "status")]
    return [*texts, event.decoded("dtstart"), event.decoded("dtend")]


def _events(path: Path) -> dict[str, Event]:
    try:
        calendar = Calendar.from_ical(path.read_bytes())
        found = calendar.walk("VEVENT")
        return {str(event["uid"]): event for event in found if isinstance(event, Event)}
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise GradingError(
            f"{path} is no calendar ({error}): name another file, or delete this one"
        ) from error
