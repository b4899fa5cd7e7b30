"""Schedules shifted to dates: order and weekdays, skipped days, clock changes, calendars, and due dates."""

import datetime
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from icalendar import Calendar
from nbgrader.api import Gradebook

from autograder.course import Course
from autograder.errors import GradingError
from autograder.gradebook import deadlines
from autograder.scoring import rules
from autograder.term import calendar, due_dates, schedule
from tests.small_course import Tito

FOLDER = Path(__file__).resolve().parents[2] / "course" / "schedules"
SCHEDULES = {path.stem: schedule.load(path) for path in sorted(FOLDER.glob("*.toml"))}
WHOLE = {name: found for name, found in SCHEDULES.items() if not name.startswith("capstone")}
MONDAY = datetime.date(2027, 1, 11)
WEEK = datetime.timedelta(days=7)
days = st.dates(datetime.date(2024, 1, 1), datetime.date(2035, 1, 1))
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Pacific/Auckland"])


def one(name="01_tensor", **fields):
    return {"name": name, "release": 0, "due": 6, "hours": 1, **fields}


def small(*weeks, **fields):
    weeks = [{"title": f"Week {k}", "assignments": list(items)} for k, items in enumerate(weeks)]
    return {"title": "Small", "week": weeks, **fields}


@pytest.mark.parametrize("name", WHOLE)
def test_every_lesson_and_track_has_its_time(name):
    items = [item for week in SCHEDULES[name].weeks for item in week.items]
    lessons = {path.parent.name for path in (FOLDER.parents[1] / "source").glob("*/*.ipynb")}
    assert {item.name for item in items} == lessons | set(rules.TRACKS) | {"report"}
    planned = schedule.plan(SCHEDULES[name], MONDAY)
    numbered = [item for item in planned.items if item.name[:2].isdigit()]
    assert [item.name for item in numbered] == sorted(item.name for item in numbered)
    assert [item.due for item in numbered] == sorted(item.due for item in numbered)
    released = {item.name: item.release for item in planned.items}
    for track, last in (
        ("vision", "08_dataloader"),
        ("language", "12_attention"),
        ("speed", "17_memoization"),
    ):
        needed = next(item for item in numbered if item.name == last)
        assert needed.release <= released[track]
    length = 8 if name.startswith("8") else 2
    assert len(planned.weeks) == length
    assert max(item.due for item in planned.items).date() < MONDAY + length * WEEK
    # work that fits: a third of a week beside other courses, a full working week in the short one
    assert max(planned.hours()) <= (14 if length == 8 else 45)
    assert sum(planned.hours()) == pytest.approx(sum(item.hours for item in items))


def test_both_schedules_agree_on_the_work():
    first, second = (
        {item.name: item.hours for week in found.weeks for item in week.items} for found in WHOLE.values()
    )
    assert first == second


@pytest.mark.parametrize(
    ("name", "weeks", "tracks", "report"), [("capstone-8-weeks", 8, 48, 55), ("capstone-2-weeks", 2, 9, 13)]
)
def test_the_capstones_schedules_have_the_phases_of_its_page(name, weeks, tracks, report):
    """Eight weeks: benchmarks end with week 7, the report with week 8. Two: with day 10, and with day 14."""
    planned = schedule.plan(SCHEDULES[name], MONDAY)
    assert len(planned.weeks) == weeks
    days = {item.name: (item.due.date() - MONDAY).days for item in planned.items}
    assert days == {**dict.fromkeys(rules.TRACKS, tracks), "report": report}
    words = " ".join(week.title.lower() for week in SCHEDULES[name].weeks)
    phases = ("baseline", "optimization", "benchmarks", "report")
    assert [words.index(phase) for phase in phases] == sorted(words.index(phase) for phase in phases)


@given(days, st.integers(-60, 60), zones, st.sampled_from(sorted(SCHEDULES)))
def test_whole_weeks_keep_weekdays_and_times(start, shift, zone, name):
    before = schedule.plan(SCHEDULES[name], start, timezone=zone)
    after = schedule.plan(SCHEDULES[name], start + shift * WEEK, timezone=zone)
    for a, b in zip(before.items, after.items, strict=True):
        assert b.due.date() - a.due.date() == shift * WEEK == b.release.date() - a.release.date()
        assert (a.due.weekday(), a.due.time()) == (b.due.weekday(), b.due.time())
        assert b.due.time() == datetime.time(23, 59)


@given(days, st.sets(st.integers(0, 80), max_size=40), zones)
def test_skipped_days_push_and_keep_the_order(start, skipped, zone):
    skip = {start + datetime.timedelta(days=k) for k in skipped}
    free = schedule.plan(SCHEDULES["8-weeks"], start, timezone=zone)
    pushed = schedule.plan(SCHEDULES["8-weeks"], start, timezone=zone, skip=skip)
    moments = [(a, b) for item in free.items for a, b in [(item.name, "release"), (item.name, "due")]]
    when = {(item.name, kind): getattr(item, kind) for item in pushed.items for kind in ("release", "due")}
    was = {(item.name, kind): getattr(item, kind) for item in free.items for kind in ("release", "due")}
    assert not {moment.date() for moment in when.values()} & skip
    assert all(when[key] >= was[key] for key in moments)
    ordered = [when[key].date() for key in sorted(moments, key=lambda key: was[key].date())]
    assert ordered == sorted(ordered)
    assert all(item.release < item.due for item in pushed.items)
    assert sum(pushed.hours()) == pytest.approx(sum(free.hours()))


def test_a_skipped_week_is_a_break():
    found = schedule.parse(small([one("01_a")], [one("02_b")], [one("03_c")]))
    planned = schedule.plan(found, MONDAY, skip=schedule.days("2027-01-18..2027-01-24"))
    assert planned.weeks == (MONDAY, MONDAY + 2 * WEEK, MONDAY + 3 * WEEK)
    assert [item.due.date() for item in planned.items] == [
        datetime.date(2027, 1, 17), datetime.date(2027, 1, 31), datetime.date(2027, 2, 7),
    ]  # fmt: skip


def test_local_midnight_stays_local_when_the_clocks_change():
    found = schedule.parse(small([one("01_a")], [one("02_b")]))
    before, after = schedule.plan(found, datetime.date(2027, 3, 15), timezone="Europe/Berlin").items
    assert before.due.isoformat() == "2027-03-21T23:59:00+01:00"
    assert after.due.isoformat() == "2027-03-28T23:59:00+02:00"  # the clocks went forward that morning
    assert (after.due.astimezone(datetime.UTC) - before.due.astimezone(datetime.UTC)) == WEEK - (
        datetime.timedelta(hours=1)
    )
    left_out = schedule.parse(small([one(due=13)], due_time=datetime.time(2, 30)))
    (item,) = schedule.plan(left_out, datetime.date(2027, 3, 15), timezone="Europe/Berlin").items
    assert item.due.isoformat() == "2027-03-28T03:30:00+02:00"  # 02:30 does not exist that day


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (small([one(due=-1)]), "due = -1, expected days"),
        (small([one(due=True)]), "due = True"),
        (small([one(release=3, due=2)]), "before its release"),
        (small([one(release=7, due=9)]), "in a later week"),
        (small([one(hours="two")]), "hours = 'two'"),
        (small([one(hours=float("nan"))]), "hours = nan"),
        (small([one(until=3)]), "'until'"),
        (small([one("../../etc")]), "expected assignments such as"),
        (small([one()], [one()]), "twice"),
        (small([]), "no week has an assignment"),
        ({"title": "x", "week": []}, r"\[\[week\]\]"),
        ({"title": "x", "week": [{"assignments": [one()]}]}, "week 1 has no title"),
        (small([one()], due_time="23:59"), "expected a time of day"),
        (small([one()], timezone="Europe/Atlantis"), "no time zone 'Europe/Atlantis'"),
        (small([one()], timezone="../../../etc/passwd"), "no time zone"),
    ],
)
def test_fields_are_checked(data, says):
    with pytest.raises(ValueError, match=says):
        schedule.parse(data)


def test_a_broken_file_is_one_line(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("title = \n")
    with pytest.raises(GradingError, match="own.toml is no schedule"):
        schedule.load(path)
    with pytest.raises(GradingError, match="cannot be read"):
        schedule.load(tmp_path / "none.toml")
    for text in ("tomorrow", "2027-02-15..", "2027-02-15..2027-02-14", "2020-01-01..2027-01-01"):
        with pytest.raises(ValueError, match=r"is no day|expected the earlier"):
            schedule.days(text)


# ---- calendars


def events(path):
    return {str(event["uid"]): event for event in Calendar.from_ical(path.read_bytes()).walk("VEVENT")}


def test_a_calendar_holds_every_moment(tmp_path):
    planned = schedule.plan(SCHEDULES["8-weeks"], datetime.date(2027, 3, 1), timezone="Europe/Berlin")
    assert calendar.write(planned, tmp_path / "c.ics", "dl-27") == 2 * len(planned.items)
    found = events(tmp_path / "c.ics")
    for item in planned.items:
        due = found[calendar.uid("dl-27", item.name, "due")]
        assert due.decoded("dtend") == item.due and str(due["summary"]) == f"{item.name} is due"
        assert due.decoded("dtend").utcoffset() == datetime.timedelta(0)
        assert found[calendar.uid("dl-27", item.name, "release")].decoded("dtstart") == item.release
    assert len({*found}) == 2 * len(planned.items)
    text = (tmp_path / "c.ics").read_bytes()
    assert b"\r\n" in text and all(len(line) <= 75 for line in text.split(b"\r\n"))


def test_importing_again_updates(tmp_path):
    """What moved has a higher sequence, what stayed is as it was, what is gone is cancelled."""
    path = tmp_path / "c.ics"
    first = schedule.parse(small([one("01_a"), one("02_b")], [one("03_c")]))
    calendar.write(schedule.plan(first, MONDAY), path, "x")
    bytes_before = path.read_bytes()
    assert calendar.write(schedule.plan(first, MONDAY), path, "x") == 0
    assert path.read_bytes() == bytes_before
    second = schedule.parse(small([one("01_a"), one("02_b", due=5)]))
    assert calendar.write(schedule.plan(second, MONDAY), path, "x") == 3
    found = events(path)

    def of(name, kind="due"):
        return found[calendar.uid("x", name, kind)]

    assert [int(of(name)["sequence"]) for name in ("01_a", "02_b", "03_c")] == [0, 1, 1]
    assert str(of("03_c")["status"]) == "CANCELLED" and "status" not in of("02_b")
    assert calendar.write(schedule.plan(first, MONDAY), path, "x") == 3
    assert int(events(path)[calendar.uid("x", "03_c", "due")]["sequence"]) == 2
    path.write_text("this is no calendar")
    with pytest.raises(GradingError, match="is no calendar"):
        calendar.write(schedule.plan(first, MONDAY), path, "x")
    assert path.read_text() == "this is no calendar"


# ---- due dates

DEADLINES = """# ours, with a remark
penalty_per_day = 0.1

[due]  # of the year before
01_a = 2026-01-18T23:59:00Z  # moved
99_kept = 2026-01-20T23:59:00Z

[extension.ada]
01_a = 2
"""


def test_only_the_dates_of_a_deadlines_file_change():
    when = datetime.datetime(2027, 1, 17, 23, 59, tzinfo=schedule.zone("Europe/Berlin"))
    made = due_dates.with_due(DEADLINES, {"01_a": when, "02_b": when})
    kept = [line for line in DEADLINES.splitlines() if not line.startswith("01_a = 2026")]
    assert [line for line in made.splitlines() if "2027" not in line] == kept
    data = tomllib.loads(made)
    assert data["due"]["01_a"] == data["due"]["02_b"] == when and data["extension"] == {"ada": {"01_a": 2}}
    assert due_dates.with_due(made, {"01_a": when, "02_b": when}) == made
    assert tomllib.loads(due_dates.with_due("", {"01_a": when})) == {"due": {"01_a": when}}
    with pytest.raises(GradingError, match="by hand"):
        due_dates.with_due("[due]\n01_a = [\n 1 ]\n", {"01_a": when})


@pytest.fixture
def course(tmp_path):
    root = tmp_path / "course"
    (root / "course").mkdir(parents=True)
    (root / "nbgrader_config.py").write_text(
        "c = get_config()\nc.CourseDirectory.course_id = 'x'\n"
        f"c.Exchange.root = {str(tmp_path / 'exchange')!r}\n"
    )
    (root / "course" / "schedule.toml").write_text(
        'title = "T"\n[[week]]\ntitle = "W"\nassignments = [\n'
        '  { name = "01_a", release = 0, due = 6, hours = 1 },\n'
        '  { name = "02_b", release = 0, due = 6, hours = 1 },\n]\n'
    )
    (root / "course" / "deadlines.toml").write_text(DEADLINES)
    for name in ("01_a", "02_b"):
        (root / "source" / name).mkdir(parents=True)
        (root / "source" / name / f"{name}.ipynb").touch()
    return root


def dates(course):
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        return {found.name: found.duedate for found in gradebook.assignments}


def test_a_schedule_is_applied(course, monkeypatch, capsys):
    tito = Tito(monkeypatch, capsys)
    apply = ("course", "schedule", "--course", course, "--apply", "--start")
    found = tito.json(*apply, "2027-01-11")
    assert found["moved"] == ["01_a", "02_b"]
    assert dates(course) == dict.fromkeys(("01_a", "02_b"), datetime.datetime(2027, 1, 17, 23, 59))
    assert deadlines.load(course).due["01_a"] == datetime.datetime(2027, 1, 17, 23, 59, tzinfo=datetime.UTC)
    assert tito.json(*apply, "2027-01-11")["moved"] == []
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        assert gradebook.find_submission("01_a", "ada").extension == datetime.timedelta(days=2)


@pytest.mark.parametrize("where", ["submitted", "exchange", "gradebook"])
def test_work_that_was_handed_in_holds_its_date(course, tmp_path, monkeypatch, capsys, where):
    tito = Tito(monkeypatch, capsys)
    apply = ("course", "schedule", "--course", course, "--apply", "--start")
    tito(*apply, "2027-01-11")
    if where == "submitted":
        Course.at(course).submitted("ben", "02_b").mkdir(parents=True)
    elif where == "exchange":
        (tmp_path / "exchange" / "x" / "inbound" / "ben+02_b+2027-01-12 10:00:00 UTC+r").mkdir(parents=True)
    else:
        with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
            gradebook.update_or_create_student("ben")
            gradebook.update_or_create_submission("02_b", "ben", timestamp=datetime.datetime(2027, 1, 12))
    before = (course / "course" / "deadlines.toml").read_text(), dates(course)
    said = tito.refuses(*apply, "2027-01-12")
    assert "02_b" in said and "1 handed in" in said and "--move-handed-in" in said and "01_a" not in said
    assert before == ((course / "course" / "deadlines.toml").read_text(), dates(course))
    tito(*apply, "2027-01-12", "--move-handed-in")
    assert dates(course)["02_b"] == datetime.datetime(2027, 1, 18, 23, 59)


def test_the_command_says_what_is_wrong(course, monkeypatch, capsys):
    tito = Tito(monkeypatch, capsys)
    assert "--start 2027-01-11" in tito.refuses("course", "schedule", "--weeks", "8")
    assert "expected a day" in tito.refuses("course", "schedule", "--weeks", "8", "--start", "11.1.2027")
    assert "expected 2 or 8" in tito.refuses("course", "schedule", "--weeks", "3", "--start", "2027-01-11")
    assert "no time zone" in tito.refuses(
        "course", "schedule", "--start", "2027-01-11", "--timezone", "Mars/Olympus"
    )
    out = tito("course", "schedule", "--weeks", "8", "--start", "2027-01-11")
    assert out.count("release ") == 24 == out.count(" due ")
