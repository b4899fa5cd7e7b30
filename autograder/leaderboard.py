"""Exported results as a leaderboard: ranks, a table and a plot for each track, and one static page.

`course/leaderboard.ipynb` calls the first half and shows what it returns; `render` executes that notebook and
makes the page: one HTML file, no script, nothing loaded from elsewhere, readable on a phone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from autograder import rules
from autograder.export import load

NOTEBOOK = Path(__file__).resolve().parent.parent / "course" / "leaderboard.ipynb"
BADGES = {
    "graded": "measured by the trusted scorer on the private split",
    "audited": "graded, and trained again by its own script",
    "self-reported": "measured by its author on the public split",
    "reference": "an entry of the course itself",
}
MEASURED = ("graded", "audited")  # the badges of entries that compete
# The records of the seed rules by track and data set: (label, accuracy, bytes or None).
SEED_RECORDS = {
    ("vision", "cifar10"): (
        ("seed record 82%", 0.82, None),
        ("seed record 8.2 MB at 92%", 0.92, 8.2e6),
    ),
    # Published by others, weights alone: Y. Li and others, Additive Powers-of-Two Quantization (2020), for
    # ResNet-20; ResNet-56 with ternary weights; C. Banbury and others, MLPerf Tiny Benchmark (2021), for
    # ResNet-8 in 8 bits.
    ("compression", "cifar10"): (
        ("record 8.2 MB at 92%", 0.92, 8.2e6),
        ("ResNet-20, 2 bits", 0.9096, 0.07e6),
        ("3 bits", 0.9249, 0.10e6),
        ("4 bits", 0.9245, 0.14e6),
        ("ResNet-56, ternary", 0.9356, 0.21e6),
        ("MLPerf Tiny ResNet-8, int8", 0.85, 0.098e6),
    ),
}
# What a track is ranked by after its gate, and whether less is better. Vision is ranked by points.
RANKED_BY = {
    "language": ("bits_per_byte", True),
    "speed": ("tokens_per_second", False),
    "compression": ("size_bytes", True),
}
ABOUT = {
    "digits": "1,797 handwritten digits, for a machine without the CIFAR-10 pictures: a far easier task. "
    "Scores, accuracies and speeds on it do not compare with those on CIFAR-10."
}


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"


def _two(value: float) -> str:
    return f"{value:.2f}"


def _ms(value: float) -> str:
    return f"{1000 * value:.1f} ms"


def _times(value: float) -> str:
    return f"{value:.2f} x"


# What a track's table shows beside score, speed and size: heading -> (metric, text).
COLUMNS: dict[str, dict[str, tuple[str, Callable[[float], str]]]] = {
    "vision": {"Accuracy": ("accuracy", _percent)},
    "language": {"Bits/byte": ("bits_per_byte", _two), "Rubric": ("rubric", _two)},
    "speed": {
        "To reference": ("ratio_to_reference", _times),
        "Kept": ("retention", _percent),
        "p50": ("latency_p50", _ms),
        "p90": ("latency_p90", _ms),
    },
    "compression": {"Accuracy": ("accuracy", _percent), "Lost": ("accuracy_lost", _points)},
}


@dataclass(frozen=True)
class Section:
    """The entries of one track on one data set, best first; `ranks` has None for those out of competition."""

    track: str
    dataset: str
    entries: list[dict[str, Any]]
    ranks: list[int | None]


def results(path: str | Path | None = None) -> dict[str, Any]:
    """The exported results: from `path`, the file that TITO_RESULTS names, or results.json here."""
    return load(Path(path or os.environ.get("TITO_RESULTS") or "results.json"))


def sections(exported: dict[str, Any], track: str) -> list[Section]:
    """The boards of a track, a data set each, CIFAR-10 first.

    Graded and audited, valid entries are ranked by points, then accuracy, in vision; elsewhere by the track's
    own figure (RANKED_BY) among those that pass the gate, the others after them by points. Equals share a
    rank.
    Self-reported and reference entries stand among them without a rank, invalid ones at the end.
    """
    entries = [entry for entry in exported["entries"] if entry["track"] == track]
    boards = []
    for dataset in sorted({e["dataset"] for e in entries}, key=lambda name: (name != "cifar10", name)):
        chosen = sorted((e for e in entries if e["dataset"] == dataset), key=_order)
        ranks: list[int | None] = []
        competing = [e for e in chosen if e["valid"] and e["badge"] in MEASURED]
        for entry in chosen:
            ahead = [other for other in competing if _order(other)[:-1] < _order(entry)[:-1]]
            ranks.append(len(ahead) + 1 if entry in competing else None)
        boards.append(Section(track, dataset, chosen, ranks))
    return boards


def show(exported: dict[str, Any], track: str) -> str:
    """HTML of everything there is about a track; a sentence where there is nothing yet."""
    rule = rules.track(track)
    head = f"<p>{escape(rule.task)}. Gate: {escape(rule.gate)}. Record to beat: {escape(rule.record)}.</p>"
    boards = sections(exported, track)
    if not boards:
        return head + "<p>No entry yet.</p>"
    return head + "".join(_section(board) for board in boards)


def overall(exported: dict[str, Any]) -> str:
    """HTML of the four scores of each graded name and their sum, best first; a sentence where there is none.

    A track on which a name has several entries counts its best one.
    """
    names: dict[str, dict[str, float]] = {}
    for entry in exported["entries"]:
        if entry["track"] in rules.TRACKS and entry["valid"] and entry["badge"] in MEASURED:
            own = names.setdefault(entry["name"], {})
            own[entry["track"]] = max(entry["points"], own.get(entry["track"], 0.0))
    if not names:
        return "<p>No graded entry yet.</p>"
    rows = []
    for name, own in sorted(names.items(), key=lambda item: (-sum(item[1].values()), item[0])):
        cells = {
            "Name": f"<strong>{escape(name)}</strong>",
            "Sum": f"{sum(own.values()):.1f}",
            **{
                rule.title: f"{own[track]:.1f}" if track in own else "-"
                for track, rule in rules.TRACKS.items()
            },
        }
        rows.append("".join(f'<td data-label="{head}">{cell}</td>' for head, cell in cells.items()))
    head = "".join(f'<th scope="col">{head}</th>' for head in cells)
    caption = (
        f"all tracks: sum of {len(rules.TRACKS)} scores, each out of 100; a track without an entry counts 0"
    )
    return (
        f'<table class="ranking overall"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table>"
    )


def _section(board: Section) -> str:
    about = f"<p>{escape(ABOUT[board.dataset])}</p>" if board.dataset in ABOUT else ""
    drawn = "" if rules.track(board.track).text else plot(board)
    return f"<section><h3>{escape(_dataset(board.dataset))}</h3>{about}{drawn}{table(board)}</section>"


def table(board: Section) -> str:
    """The ranking as an HTML table; on a narrow screen each entry becomes a card."""
    columns = COLUMNS[board.track]
    heads = ("Rank", "Name", "Score", *columns, "Speed", "Size", "Memory", "Badge", "Date")
    rows = [_row(entry, rank, heads) for entry, rank in zip(board.entries, board.ranks, strict=True)]
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    which = next(iter(columns)).lower()
    caption = f"{board.track}, {_dataset(board.dataset)}: score out of 100, {which} with its 95% interval"
    if board.track == "speed":
        caption = f"{board.track}, {_dataset(board.dataset)}: score out of 100, speed over 16 texts at once"
    return (
        f'<table class="ranking"><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def plot(board: Section) -> str:
    """Accuracy against size as inline SVG, with the Pareto front and the records of the seed rules."""
    points = [
        e for e in board.entries if e["valid"] and e["metrics"].get("size_bytes") and _accuracy(e) is not None
    ]
    if not points:
        return "<p>No valid entry to plot yet.</p>"
    records = SEED_RECORDS.get((board.track, board.dataset), ())
    sizes = [float(e["metrics"]["size_bytes"]) for e in points] + [size for _, _, size in records if size]
    low = math.floor(math.log10(min(sizes)) * 2) / 2 - 0.25
    high = math.ceil(math.log10(max(sizes)) * 2) / 2 + 0.25
    floor = min([_accuracy(e) or 0.0 for e in points] + [accuracy for _, accuracy, _ in records])
    bottom = max(0.0, math.floor(floor * 10 - 0.3) / 10)
    left, right, top, base = 66, 624, 30, 300

    def x(size: float) -> float:
        return left + (math.log10(size) - low) / (high - low) * (right - left)

    def y(accuracy: float) -> float:
        return base - (accuracy - bottom) / (1.0 - bottom) * (base - top)

    parts = [_axes(low, high, bottom, x, y, left, right, top, base)]
    for label, accuracy, size in records:
        height = y(accuracy)
        if size is None:
            parts.append(
                f'<line class="record" x1="{left}" x2="{right}" y1="{height:.1f}" y2="{height:.1f}"/>'
            )
            parts.append(f'<text class="note" x="{left + 6}" y="{height + 14:.1f}">{escape(label)}</text>')
        else:
            parts.append(f'<path class="star" d="{_diamond(x(size), height, 7)}"/>')
            beyond = x(size) + 11 + 7 * len(label)  # where the label would end on the right
            covers = [
                other
                for _, level, other in records
                if other and x(size) < x(other) < beyond and abs(y(level) - height) < 10
            ]
            anchor = "end" if covers or x(size) > (left + right) / 2 else "start"
            shift = -11 if anchor == "end" else 11
            parts.append(
                f'<text class="note" text-anchor="{anchor}" x="{x(size) + shift:.1f}" y="{height + 4:.1f}">'
                f"{escape(label)}</text>"
            )
    front = pareto(points)
    steps = " ".join(f"{x(e['metrics']['size_bytes']):.1f},{y(_accuracy(e) or 0):.1f}" for e in front)
    parts.append(f'<polyline class="front" points="{steps}"/>')
    parts += _marks(points, x, y, right)
    best = max(points, key=lambda e: _accuracy(e) or 0.0)
    alt = (
        f"Accuracy against model size, entries: {len(points)}. The most accurate, {best['name']}, reaches "
        f"{100 * (_accuracy(best) or 0):.1f}% with {_size(best['metrics']['size_bytes'])}. "
        f"Pareto front: {', '.join(e['name'] for e in front)}. "
        + " ".join(f"{label} is marked." for label, _, _ in records)
    )
    name = f"plot-{board.track}-{board.dataset}"
    return (
        f'<figure><svg viewBox="0 0 640 350" role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">Accuracy against model size, {escape(_dataset(board.dataset))}</title>'
        f'<desc id="{name}-desc">{escape(alt)}</desc>{"".join(parts)}</svg>'
        "<figcaption>Up and to the left is better. Circles: graded, audited; squares: reference; triangles: "
        "self-reported. The line joins entries that no other beats in both size and accuracy."
        "</figcaption></figure>"
    )


def pareto(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries that no other one beats in both size and accuracy, smallest first."""
    front: list[dict[str, Any]] = []
    for entry in sorted(entries, key=lambda e: (e["metrics"]["size_bytes"], -(_accuracy(e) or 0.0))):
        if not front or (_accuracy(entry) or 0.0) > (_accuracy(front[-1]) or 0.0):
            front.append(entry)
    return front


def render(exported: Path, page: Path, notebook: Path = NOTEBOOK) -> Path:
    """Execute the leaderboard notebook on an export, and write its outputs as one static HTML page."""
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    load(exported)  # a clear error here, not a traceback in a cell
    nb = nbformat.read(notebook, as_version=4)
    before = {name: os.environ.get(name) for name in ("TITO_RESULTS", "PYTHONPATH")}
    root = str(Path(__file__).resolve().parent.parent)
    try:  # the kernel inherits the environment
        os.environ["TITO_RESULTS"] = str(exported.resolve())
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, before["PYTHONPATH"]]))
        client = NotebookClient(nb, timeout=120, kernel_name="python3", extra_arguments=["--log-level=ERROR"])
        client.execute(cwd=str(exported.resolve().parent))
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    body, _ = HTMLExporter(
        template_name="basic", exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True
    ).from_notebook_node(nb)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(_PAGE.replace("{body}", body), encoding="utf-8")
    return page


# ---- parts of table and plot


def _order(entry: dict[str, Any]) -> tuple[bool, float, float, float, str]:
    """Invalid entries last, then by the track's own figure, points and accuracy; the name ends ties."""
    return (
        not entry["valid"],
        _own_figure(entry),
        -entry["points"],
        -(_accuracy(entry) or 0.0),
        entry["name"],
    )


def _own_figure(entry: dict[str, Any]) -> float:
    metric, less = RANKED_BY.get(entry["track"], ("", True))
    figure = entry["metrics"].get(metric)
    if not metric:
        return 0.0
    if figure is None or not entry["metrics"].get("gate_passed"):
        return math.inf
    return float(figure if less else -figure)


def _accuracy(entry: dict[str, Any]) -> float | None:
    return entry["metrics"].get("accuracy")


def _row(entry: dict[str, Any], rank: int | None, heads: Sequence[str]) -> str:
    metrics = entry["metrics"]
    kind = entry["badge"]
    badge = f'<span class="badge {kind}" title="{escape(BADGES[kind])}">{escape(kind)}</span>'
    if entry["sandbox"] not in ("bubblewrap", "none"):
        badge += f' <span class="level">sandbox: {escape(entry["sandbox"])}</span>'
    name = f"<strong>{escape(entry['name'])}</strong>"
    first = (
        str(rank) if rank is not None else '<span title="out of competition">-</span>',
        name,
        f"{entry['points']:.1f}",
    )
    last = (badge, escape(entry["date"][:10]))
    if not entry["valid"]:
        reason = f"INVALID: {escape('; '.join(entry['reasons'])[:300])}"
        width = len(heads) - len(first) - len(last)
        middle = f'<td class="reason" data-label="" colspan="{width}">{reason}</td>'
        return f"<tr class=invalid>{_cells(heads, first)}{middle}{_cells(heads[-2:], last)}</tr>"
    cells = (
        *first,
        *(_measured(metrics, key, text) for key, text in COLUMNS[entry["track"]].values()),
        _speed(metrics),
        _figure(metrics.get("size_bytes"), _size),
        _figure(metrics.get("memory_bytes"), lambda v: f"{v / 1e6:,.0f} MB"),
        *last,
    )
    return f"<tr>{_cells(heads, cells)}</tr>"


def _cells(heads: Sequence[str], cells: Sequence[str]) -> str:
    return "".join(f'<td data-label="{head}">{cell}</td>' for head, cell in zip(heads, cells, strict=False))


def _figure(value: float | None, text: Any) -> str:
    return "-" if value is None else text(value)


def _measured(metrics: dict[str, Any], key: str, text: Callable[[float], str]) -> str:
    """A figure, and under it its interval where it has one."""
    shown = _figure(metrics.get(key), text)
    bounds = metrics.get(f"{key}_interval")
    if bounds and metrics.get(key) is not None:
        low, high = (text(bound).rstrip("%") for bound in bounds)
        shown += f' <span class="interval">{low} to {high}</span>'
    return shown


def _speed(metrics: dict[str, Any]) -> str:
    for key, unit in (("images_per_second", "images/s"), ("tokens_per_second", "tokens/s")):
        if metrics.get(key) is not None:
            return f"{metrics[key]:,.0f} {unit}"
    return "-"


def _size(size: float) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _dataset(name: str) -> str:
    names = {"cifar10": "CIFAR-10", "digits": "Digits (offline stand-in)", "tinytalks": "TinyTalks"}
    return names.get(name, name)


def _axes(
    low: float, high: float, bottom: float, x: Any, y: Any, left: int, right: int, top: int, base: int
) -> str:
    parts = []
    steps = (1,) if high - low > 2 else (1, 2, 5)
    sizes = [n * 10.0**power for power in range(math.floor(low), math.floor(high) + 1) for n in steps]
    for size in (size for size in sizes if low <= math.log10(size) <= high):
        at = x(size)
        label = f"{size / 1e6:g} MB" if size >= 1e6 else f"{size / 1e3:g} kB"
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{base}"/>')
        parts.append(f'<text text-anchor="middle" x="{at:.1f}" y="{base + 18}">{label}</text>')
    lowest = round(100 * bottom)
    step = next(step for most, step in ((10, 2), (20, 5), (50, 10), (100, 20)) if 100 - lowest <= most)
    for percent in range(100, lowest - 1, -step):
        at = y(percent / 100)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text text-anchor="end" x="{left - 6}" y="{at + 4:.1f}">{percent}%</text>')
    middle = (left + right) / 2
    parts.append(f'<text text-anchor="middle" x="{middle:.0f}" y="{base + 40}">size of the model file</text>')
    parts.append(f'<text x="6" y="{top - 18}">accuracy</text>')
    return "".join(parts)


def _marks(entries: Sequence[dict[str, Any]], x: Any, y: Any, right: int) -> list[str]:
    parts: list[str] = []
    taken: list[tuple[float, float]] = []
    for entry in entries:
        at, height = x(entry["metrics"]["size_bytes"]), y(_accuracy(entry) or 0.0)
        interval = entry["metrics"].get("accuracy_interval")
        if interval:
            ends = f'y1="{y(min(1, interval[1])):.1f}" y2="{y(max(0, interval[0])):.1f}"'
            parts.append(f'<line class="spread" x1="{at:.1f}" x2="{at:.1f}" {ends}/>')
        parts.append(_mark(entry["badge"], at, height))
        label = height + 4
        while any(abs(label - other) < 14 and abs(at - place) < 150 for place, other in taken):
            label += 14
        taken.append((at, label))
        end = at > right - 150
        anchor, shift = ("end", -10) if end else ("start", 10)
        parts.append(
            f'<text class="name" text-anchor="{anchor}" x="{at + shift:.1f}" y="{label:.1f}">'
            f"{escape(entry['name'][:28])}</text>"
        )
    return parts


def _mark(badge: str, x: float, y: float) -> str:
    if badge == "reference":
        return f'<rect class="mark reference" x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10"/>'
    if badge == "self-reported":
        corners = f"M{x:.1f} {y - 6:.1f}L{x + 6:.1f} {y + 5:.1f}L{x - 6:.1f} {y + 5:.1f}Z"
        return f'<path class="mark self" d="{corners}"/>'
    return f'<circle class="mark graded" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'


def _diamond(x: float, y: float, r: float) -> str:
    return f"M{x:.1f} {y - r:.1f}L{x + r:.1f} {y:.1f}L{x:.1f} {y + r:.1f}L{x - r:.1f} {y:.1f}Z"


# Colours: Okabe and Ito's palette, told apart with the common kinds of colour blindness; shapes differ too.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Torch Olympics leaderboard</title>
<style>
:root { --ink: #1d2430; --soft: #5b6472; --paper: #fff; --line: #d9dee6; --blue: #0072b2; --orange: #d55e00;
  --green: #007a5a; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebf0; --soft: #a5adba; --paper: #14181f; --line: #343b47; --blue: #56b4e9;
    --orange: #e69f00;
    --green: #2fc79a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.2rem 1rem 3rem; color: var(--ink);
  background: var(--paper);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .3rem 0 .6rem; } h2 { margin: 2rem 0 .3rem;
  font-size: 1.3rem; }
h3 { margin: 1.4rem 0 .4rem; font-size: 1.05rem; } .anchor-link { display: none; }
a { color: var(--blue); } code { font-size: .92em; } pre { white-space: pre-wrap; }
figure { margin: 0 0 1rem; } figcaption, caption, .interval, .level, .reason { color: var(--soft);
  font-size: .85rem; }
svg { width: 100%; height: auto; display: block; } svg text { font-size: 12px; fill: var(--soft); }
svg text.name { fill: var(--ink); font-weight: 600; } .grid { stroke: var(--line); }
.record { stroke: var(--orange); stroke-dasharray: 6 4; stroke-width: 1.5; }
.star { fill: none; stroke: var(--orange); stroke-width: 2; }
.front { fill: none; stroke: var(--blue); stroke-width: 1.5; opacity: .6; } .spread { stroke: var(--soft); }
.mark { stroke: var(--paper); stroke-width: 1; } .mark.graded { fill: var(--blue); }
.mark.reference { fill: var(--green); } .mark.self { fill: var(--orange); }
table.ranking { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .3rem 0; }
.ranking th, .ranking td { text-align: left; vertical-align: top; padding: .45rem .5rem;
  border-bottom: 1px solid var(--line); }
.ranking th { color: var(--soft); font-weight: 600; font-size: .85rem; white-space: nowrap; }
.ranking td:not(:nth-child(2), .reason) { white-space: nowrap; }
.interval, .level { display: block; } .reason { overflow-wrap: anywhere; }
.badge { border: 1px solid currentColor; border-radius: 1rem; padding: .05rem .55rem; font-size: .8rem;
  white-space: nowrap; }
.badge.graded, .badge.audited { color: var(--blue); } .badge.audited { border-width: 2px; }
.badge.reference { color: var(--green); }
.badge.self-reported { color: var(--orange); } tr.invalid td { color: var(--soft); }
@media (max-width: 44rem) {
  .ranking thead { display: none; } .ranking, .ranking tbody, .ranking tr, .ranking td,
    caption { display: block; }
  .ranking tr { border: 1px solid var(--line); border-radius: .5rem; margin: .6rem 0; padding: .3rem .6rem;
    }
  .ranking td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .2rem 0; }
  .ranking td::before { content: attr(data-label); color: var(--soft); flex: none; }
  .ranking td[data-label=Name] { display: block; font-size: 1.1rem; }
  .ranking td[data-label=Name]::before { content: none; }
  .interval, .level { display: inline; } svg text { font-size: 19px; } svg text.note { font-size: 16px; }
}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
