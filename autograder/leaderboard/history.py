"""The history of a track's record: the best figure so far of the entries that compete, day by day."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, NamedTuple

from autograder.leaderboard import wording
from autograder.leaderboard.chart import Canvas, Scale, both, span
from autograder.leaderboard.plots import NAME_LENGTH, data_table
from autograder.leaderboard.ranking import OWN_FIGURE, Section, competes
from autograder.leaderboard.wording import Figure, name_html, plain, slug

# What the record of a track is in: its ranking's figure, in vision the one that the seed rules name.
_RECORD_IN: dict[str, Figure] = {
    "vision": wording.ACCURACY,
    "language": wording.BITS,
    "speed": wording.TOKENS,
    "compression": wording.SIZE,
}
_LOG = ("tokens_per_second", "size_bytes")
# Where the records to beat stand, in the figure above.
_TO_BEAT = {
    ("vision", "cifar10"): ("record to beat 82%", 0.82),
    ("speed", "tinytalks"): ("record to beat 250 tokens/s", 250.0),
    ("compression", "cifar10"): ("record to beat 8.2 MB", 8.2e6),
}


class Step(NamedTuple):
    """A new record: when, whose, what."""

    when: datetime.datetime
    entry: dict[str, Any]
    value: float


def steps(entries: Sequence[dict[str, Any]], figure: Figure, *, gate: bool) -> list[Step]:
    """Every new record, oldest first, of the valid entries that compete; gate: only those that pass it."""
    dated = []
    for entry in entries:
        when, value = moment(entry["date"]), entry["metrics"].get(figure.metric)
        if not competes(entry) or when is None or value is None:
            continue
        if gate and not entry["metrics"].get("gate_passed"):
            continue
        dated.append(Step(when, entry, float(value)))
    found: list[Step] = []
    for step in sorted(dated, key=lambda s: (s.when, s.value if figure.less else -s.value)):
        if not found or (step.value < found[-1].value) is figure.less and step.value != found[-1].value:
            found.append(step)
    return found


def moment(text: str) -> datetime.datetime | None:
    """An ISO date and time in UTC; None for text that is none."""
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return when.astimezone(datetime.UTC) if when.tzinfo else when.replace(tzinfo=datetime.UTC)


def plot(boards: Sequence[Section]) -> str:
    """A track's record on one data set over time, a line for each division; "" where there was none yet."""
    track, dataset = boards[0].track, boards[0].dataset
    figure = _RECORD_IN.get(track) or wording.figures(track)[0]
    lines = {b.division: steps(b.entries, figure, gate=track in OWN_FIGURE) for b in boards}
    lines = {division: found for division, found in lines.items() if found}
    if not lines:
        return ""
    name = slug("history", track, dataset)
    title = f"The record over time, {figure.head.lower()}, {wording.dataset(dataset)}"
    goal = _TO_BEAT.get((track, dataset))

    def draw(canvas: Canvas) -> None:
        _draw(canvas, figure, lines, goal)

    better = "less" if figure.less else "more"
    beat = f" The dashed line: {goal[0]}." if goal else ""
    beat += " Dotted, with hollow marks: the closed division." if "closed" in lines else ""
    return (
        f'<figure id="{name}">{both(name, title, _describe(figure, lines, goal), draw)}'
        f"<figcaption>The best {figure.head.lower()} of valid graded and audited entries by the day they "
        f"were measured; {better} is better.{beat}</figcaption>{_table(figure, lines, title)}</figure>"
    )


def _draw(
    canvas: Canvas, figure: Figure, lines: dict[str, list[Step]], goal: tuple[str, float] | None
) -> None:
    every = [step for found in lines.values() for step in found]
    values = [step.value for step in every] + ([goal[1]] if goal else [])
    times = [step.when.timestamp() for step in every]
    low, high = min(times), max(times)
    air = (high - low) * 0.06 or 43_200.0
    log = figure.metric in _LOG
    ceiling = 1.0 if figure is wording.ACCURACY else None
    x = Scale(low - air, high + air, *canvas.across)
    y = Scale(*span(values, log=log, floor=0.0, ceiling=ceiling), *canvas.upward, log=log)
    canvas.axes(
        x, y, "day (UTC)", figure.head.lower() + (", less is better" if figure.less else ""),
        days(low - air, high + air, 4 if canvas.narrow else 7),
        [(v, wording.tick(figure, v)) for v in y.ticks(6)],
    )  # fmt: skip
    right = canvas.across[1]
    if goal:
        canvas.corners("record", [(canvas.left, y(goal[1])), (right, y(goal[1]))])
    marks = []
    for division, found in lines.items():
        own = [(x(s.when.timestamp()), y(s.value), division, s) for s in found]
        corners = [own[0][:2]]
        for at, height, *_ in own[1:]:
            corners += [(at, corners[-1][1]), (at, height)]
        canvas.corners(f"steps {division}", [*corners, (right, corners[-1][1])])
        marks += own
    for at, height, division, step in marks:
        tip = f"{plain(step.entry['name'])}: {figure.text(step.value)}, {step.when:%Y-%m-%d}"
        canvas.mark(at, height, step.entry["badge"], hollow=division == "closed",
                    number=step.entry.get("_n"), title="" if canvas.narrow else tip)  # fmt: skip
    if goal:
        canvas.label(canvas.left, y(goal[1]), goal[0], "note", must=True)
    standing = [found[-1] for found in lines.values()]
    for at, height, _, step in sorted(reversed(marks), key=lambda mark: mark[3] not in standing):
        name = plain(step.entry["name"])[:NAME_LENGTH]
        canvas.label(at, height, name, "name", must=step in standing)


def days(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Round times on the axis: hours of a day, days, weeks or months, at most so many."""
    hour, day = 3600.0, 86_400.0
    steps_s = (hour, 3 * hour, 6 * hour, 12 * hour, day, 2 * day, 7 * day, 14 * day, 28 * day, 91 * day)
    step = next((s for s in steps_s if (high - low) / s <= most), (high - low) / most)
    form = "%H:%M" if step < day and high - low < day else "%d %b %H:%M" if step < day else "%d %b"
    if high - low > 300 * day:
        form = "%b %Y"
    first = -(-low // step) * step
    ticks = [first + n * step for n in range(int((high - first) // step) + 1)]
    return [(t, datetime.datetime.fromtimestamp(t, datetime.UTC).strftime(form)) for t in ticks]


def _describe(figure: Figure, lines: dict[str, list[Step]], goal: tuple[str, float] | None) -> str:
    text = f"The record in {figure.head.lower()} as steps over time."
    for division, found in lines.items():
        first, last = found[0], found[-1]
        where = f" In the {division} division" if len(lines) > 1 else ""
        text += (
            f"{where} It began with {figure.text(first.value)} by {plain(first.entry['name'])} on "
            f"{first.when:%Y-%m-%d}; it stands at {figure.text(last.value)} by {plain(last.entry['name'])} "
            f"since {last.when:%Y-%m-%d}; records set: {len(found)}."
        ).replace(" division It", " division it")
    return text + (f" Marked: {goal[0]}." if goal else "") + " The table below holds every step."


def _table(figure: Figure, lines: dict[str, list[Step]], title: str) -> str:
    rows = [
        f'<tr><th scope="row">{step.when:%Y-%m-%d %H:%M}</th><td>{name_html(step.entry["name"])}</td>'
        f"<td>{figure.text(step.value)}</td><td>{division}</td></tr>"
        for division, found in lines.items()
        for step in found
    ]
    heads = ("Measured, UTC", "Entry", figure.head, "Division")
    return data_table("The history as a table", title, heads, rows)
