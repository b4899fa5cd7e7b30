"""Pareto plots: what an entry gains against what it costs, with the entries that no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from autograder.leaderboard import wording
from autograder.leaderboard.chart import GLYPHS, Canvas, Scale, both, span
from autograder.leaderboard.ranking import Section, competes
from autograder.leaderboard.wording import Figure, name_html, plain, slug
from autograder.scoring import rules

# Records by track and data set: (label, figure of the y axis, figure of the x axis); a record that names one
# of the two is a line.
SEED_RECORDS: dict[tuple[str, str], tuple[tuple[str, float | None, float | None], ...]] = {
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
    ("speed", "tinytalks"): (("seed record 250 tokens/s", None, 250.0),),
}
NAMED = 25  # entries on a plot of which all are named; of more, those that stand out
NAME_LENGTH = 24


@dataclass(frozen=True)
class Pair:
    """The two axes of a track's plot; y has a share where it cannot leave 0..1."""

    x: Figure
    y: Figure
    x_title: str
    y_title: str
    what: str
    best: str  # where the better entries stand
    share: bool = True


_SIZE = Pair(wording.SIZE, wording.ACCURACY, "size of the model file", "accuracy",
             "Accuracy against model size", "up and to the left")  # fmt: skip
PAIRS = {
    "vision": _SIZE,
    "compression": _SIZE,
    "language": Pair(
        wording.TOKENS, wording.BITS, "tokens a second, 16 texts at once", "bits per byte (less is better)",
        "Bits per byte against tokens a second", "down and to the right", share=False,
    ),
    "speed": Pair(
        wording.TOKENS, wording.KEPT, "tokens a second, 16 texts at once", "kept of the baseline's accuracy",
        "Share of accuracy kept against tokens a second", "up and to the right", share=False,
    ),
}  # fmt: skip


def pair(track: str) -> Pair | None:
    """The axes of a track's plot; of one that has none here, its own metric against size."""
    if track in PAIRS:
        return PAIRS[track]
    metric = next((f for f in wording.figures(track) if f.metric == rules.track(track).metric), None)
    if metric is None or metric.metric == "size_bytes":
        return None
    name = metric.head.lower()
    return Pair(wording.SIZE, metric, "size of the model file", name, f"{metric.head} against model size",
                f"{'down' if metric.less else 'up'} and to the left",
                share=metric is wording.ACCURACY)  # fmt: skip


def plot(boards: Section | Sequence[Section]) -> str:
    """A track's plot on one data set, of all its divisions: SVG, what it shows in words, and as a table."""
    boards = [boards] if isinstance(boards, Section) else list(boards)
    track, dataset = boards[0].track, boards[0].dataset
    axes = pair(track)
    if axes is None:
        return ""
    shown = [e for board in boards for e in board.entries if e["valid"] and _at(e, axes)]
    if not shown:
        return "<p>No valid entry to plot yet.</p>"
    front = pareto(shown, axes)
    records = SEED_RECORDS.get((track, dataset), ())
    name = slug("plot", track, dataset)
    title = f"{axes.what}, {wording.dataset(dataset)}"

    def draw(canvas: Canvas) -> None:
        _draw(canvas, axes, shown, front, records)

    return (
        f'<figure id="{name}">{both(name, title, _describe(axes, shown, front, records), draw)}'
        f"<figcaption>Better is {axes.best}. {_key(shown, bool(records))} Bars are 95% intervals. The line "
        "joins the entries that no other beats in both.</figcaption>"
        f"{_table(axes, shown, front, records, title)}</figure>"
    )


def pareto(entries: Sequence[dict[str, Any]], axes: Pair = _SIZE) -> list[dict[str, Any]]:
    """Entries that no other one beats in both figures, the best on the x axis first."""
    front: list[dict[str, Any]] = []
    for entry in sorted(entries, key=lambda e: (_cost(e, axes.x), _cost(e, axes.y))):
        if not front or _cost(entry, axes.y) < _cost(front[-1], axes.y):
            front.append(entry)
    return front


def _cost(entry: dict[str, Any], figure: Figure) -> float:
    """The figure, turned so that less is better."""
    value = float(entry["metrics"][figure.metric])
    return value if figure.less else -value


def _at(entry: dict[str, Any], axes: Pair) -> bool:
    x, y = (entry["metrics"].get(figure.metric) for figure in (axes.x, axes.y))
    return y is not None and x is not None and x > 0


def _bounds(entry: dict[str, Any], figure: Figure) -> tuple[float, float] | None:
    found = entry["metrics"].get(figure.interval) if figure.interval else None
    return (float(found[0]), float(found[1])) if found else None


def _draw(
    canvas: Canvas, axes: Pair, shown: Sequence[dict[str, Any]], front: Sequence[dict[str, Any]],
    records: Sequence[tuple[str, float | None, float | None]],
) -> None:  # fmt: skip
    def ends(figure: Figure, known: Sequence[float | None]) -> list[float]:
        own = [float(e["metrics"][figure.metric]) for e in shown]
        return (
            own + [v for e in shown for v in _bounds(e, figure) or ()] + [v for v in known if v is not None]
        )

    x_ends = span([v for v in ends(axes.x, [r[2] for r in records]) if v > 0], log=True)
    top = 1.0 if axes.share else None
    y_ends = span(ends(axes.y, [r[1] for r in records]), log=False, floor=0.0, ceiling=top)
    x, y = Scale(*x_ends, *canvas.across, log=True), Scale(*y_ends, *canvas.upward)
    canvas.axes(
        x, y, axes.x_title, axes.y_title,
        [(v, wording.tick(axes.x, v)) for v in x.ticks(4 if canvas.narrow else 8)],
        [(v, wording.tick(axes.y, v)) for v in y.ticks(6)],
    )  # fmt: skip
    (left, right), (base, upper) = canvas.across, canvas.upward
    lines = []
    for label, y_value, x_value in records:
        if x_value is None and y_value is not None:
            canvas.corners("record", [(left, y(y_value)), (right, y(y_value))])
            lines.append((left, y(y_value), label))
        elif y_value is None and x_value is not None:
            canvas.corners("record", [(x(x_value), base), (x(x_value), upper)])
            lines.append((x(x_value), base - 12, label))
        elif x_value is not None and y_value is not None:
            canvas.star(x(x_value), y(y_value))
    spread = []
    for entry in shown:
        at, height = x(entry["metrics"][axes.x.metric]), y(entry["metrics"][axes.y.metric])
        if found := _bounds(entry, axes.y):
            spread.append(f"M{at:.1f} {y(found[0]):.1f}V{y(found[1]):.1f}")
        if found := _bounds(entry, axes.x):
            spread.append(f"M{x(found[0]):.1f} {height:.1f}H{x(found[1]):.1f}")
    if spread:
        canvas.line("spread", "".join(spread))
    joined = "L".join(
        f"{x(e['metrics'][axes.x.metric]):.1f} {y(e['metrics'][axes.y.metric]):.1f}" for e in front
    )
    canvas.line("front", f"M{joined}")
    places = []
    for entry in shown:
        at, height = x(entry["metrics"][axes.x.metric]), y(entry["metrics"][axes.y.metric])
        tip = "" if canvas.narrow else f"{plain(entry['name'])}: {_both(entry, axes)}"
        canvas.mark(at, height, entry["badge"], hollow=entry.get("division") == "closed",
                    number=entry.get("_n"), title=tip)  # fmt: skip
        places.append((entry, at, height))
    for label, y_value, x_value in records:
        if x_value is not None and y_value is not None:
            canvas.label(x(x_value), y(y_value), label, "note", must=True)
    for at, height, label in lines:
        canvas.label(at, height, label, "note", must=True)
    first = [p for p in places if p[0] in front] + [p for p in places if p[0]["badge"] == "reference"]
    rest = [p for p in places if p not in first] if len(places) <= NAMED else []
    for done, (entry, at, height) in enumerate(first):
        if first.index((entry, at, height)) == done:
            canvas.label(at, height, plain(entry["name"])[:NAME_LENGTH], "name")
    for entry, at, height in rest:
        canvas.label(at, height, plain(entry["name"])[:NAME_LENGTH], "name")


def _both(entry: dict[str, Any], axes: Pair) -> str:
    return ", ".join(figure.text(entry["metrics"][figure.metric]) for figure in (axes.y, axes.x))


def _describe(
    axes: Pair, shown: Sequence[dict[str, Any]], front: Sequence[dict[str, Any]],
    records: Sequence[tuple[str, float | None, float | None]],
) -> str:  # fmt: skip
    best = min(shown, key=lambda e: _cost(e, axes.y))
    names = [plain(e["name"]) for e in front[:12]] + (["others"] if len(front) > 12 else [])
    text = (
        f"{axes.what}, entries: {len(shown)}. Better is {axes.best}. The best by {axes.y_title}, "
        f"{plain(best['name'])}: {_both(best, axes)}. Pareto front: {', '.join(names)}."
    )
    if records:
        text += f" Marked records: {'; '.join(label for label, _, _ in records)}."
    return text + " The table below holds the figures."


def _key(shown: Sequence[dict[str, Any]], records: bool) -> str:
    """What the shapes mean, of those that are there."""
    kinds = [b for b in GLYPHS if any(e["badge"] == b for e in shown)]
    words = [f'<span class="badge-text {b}" aria-hidden="true">{GLYPHS[b]}</span> {b}' for b in kinds]
    if records:
        words.append('<span class="badge-text record-text" aria-hidden="true">+</span> published record')
    if any(e.get("division") == "closed" for e in shown):
        words.append("hollow: closed division")
    return f"{', '.join(words).capitalize() if not kinds else ', '.join(words)}."


def _table(
    axes: Pair, shown: Sequence[dict[str, Any]], front: Sequence[dict[str, Any]],
    records: Sequence[tuple[str, float | None, float | None]], title: str,
) -> str:  # fmt: skip
    rows = []
    for entry in sorted(shown, key=lambda e: (_cost(e, axes.x), _cost(e, axes.y))):
        cells = [_cell(entry, figure) for figure in (axes.y, axes.x)]
        note = entry["badge"] if not competes(entry) else "yes" if entry in front else ""
        note = f"{entry['badge']}, yes" if entry in front and not competes(entry) else note
        rows.append(
            f'<tr><th scope="row">{name_html(entry["name"])}</th><td>{cells[0]}</td><td>{cells[1]}</td>'
            f"<td>{note}</td></tr>"
        )
    for label, y_value, x_value in records:
        y, x = ("-" if v is None else f.text(v) for f, v in ((axes.y, y_value), (axes.x, x_value)))
        rows.append(
            f'<tr><th scope="row">{escape(label)}</th><td>{y}</td><td>{x}</td><td>published record</td></tr>'
        )
    return data_table(
        "The plot as a table", title, ("Entry", axes.y_title.capitalize(), axes.x_title.capitalize(),
                                       "On the front"), rows,
    )  # fmt: skip


def data_table(summary: str, caption: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    """The figures of a picture, folded away until somebody wants them."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    return (
        f'<details class="data"><summary>{summary}</summary><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(caption)}, as a table"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _cell(entry: dict[str, Any], figure: Figure) -> str:
    text = figure.text(entry["metrics"][figure.metric])
    found = _bounds(entry, figure)
    return text + (f" ({figure.text(found[0])} to {figure.text(found[1])})" if found else "")
