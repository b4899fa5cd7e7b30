"""Maps of lessons as SVG: a box a lesson, an arrow from what is needed to what needs it.

Each stands beside a list or table that says the same in words; its title is what a screen reader reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, GAP_X, GAP_Y, PASS = 118, 34, 22, 40, 6  # PASS: the room of an arrow that goes by
Point = tuple[float, float]


def lesson_map(needs: Mapping[str, Sequence[str]], labels: Mapping[str, str], title: str, key: str) -> str:
    """A graph without circles, as rows. needs: name -> the names above it. key: unique on a page."""
    paths, rows = routes(needs)
    widths = [sum(_wide(name, needs) + GAP_X for name in row) - GAP_X for row in rows]
    left: dict[str, float] = {}
    for row, width in zip(rows, widths, strict=True):
        x = (max(widths) - width) / 2 + 2
        for name in row:
            left[name] = x
            x += _wide(name, needs) + GAP_X
    row_of = {name: depth for depth, row in enumerate(rows) for name in row}

    def at(name: str) -> Point:
        return left[name] + _wide(name, needs) / 2, 2 + row_of[name] * (HEIGHT + GAP_Y)

    drawn = []
    for path in paths:
        stops = [at(name) for name in path]
        for i, (above, below) in enumerate(zip(stops, stops[1:], strict=False)):
            passes = i > 0
            start = (above[0], above[1] + HEIGHT)
            if passes:
                drawn.append(f'<path class="needs" d="M{above[0]:g} {above[1]:g} V{start[1]:g}"/>')
            drawn.append(_down(start, below, key, tip=i == len(stops) - 2))
    boxes = [_box(left[name], 2 + row_of[name] * (HEIGHT + GAP_Y), labels[name]) for name in needs]
    return _svg(max(widths) + 4, len(rows) * (HEIGHT + GAP_Y) - GAP_Y + 4, [*drawn, *boxes], title, key)


def neighbours(name: str, before: Sequence[str], after: Sequence[str], title: str, key: str) -> str:
    """A lesson between what it needs, on the left, and what needs it, on the right."""
    step, across = HEIGHT + 8, WIDTH + 70
    height = max(len(before), len(after), 1) * step - 4
    middle = (across + 2, height / 2 - HEIGHT / 2)
    drawn, boxes = [], [_box(*middle, name)]
    for side, names in ((0, before), (2, after)):
        for i, other in enumerate(names):
            x, y = side * across + 2, (height - len(names) * step + 8) / 2 + i * step
            boxes.append(_box(x, y, other))
            ends = ((x + WIDTH, y), middle) if side == 0 else ((middle[0] + WIDTH, middle[1]), (x, y))
            (x0, y0), (x1, y1) = ends
            y0, y1, half = y0 + HEIGHT / 2, y1 + HEIGHT / 2, (x0 + x1) / 2
            drawn.append(
                f'<path class="needs" marker-end="url(#{key}-tip)" '
                f'd="M{x0:g} {y0:g} C{half:g} {y0:g} {half:g} {y1:g} {x1:g} {y1:g}"/>'
            )
    return _svg(2 * across + WIDTH + 4, height, [*drawn, *boxes], title, key)


def routes(needs: Mapping[str, Sequence[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """(arrows, rows): each arrow is the places that it goes through, so that none crosses a box.

    A name stands a row below all that it needs; an arrow over more than one row has a place in each between.
    """
    depth: dict[str, int] = {}
    for name in needs:  # lessons come after what they need
        depth[name] = 1 + max((depth[near] for near in needs[name]), default=-1)
    rows: list[list[str]] = [[] for _ in range(1 + max(depth.values()))]
    above: dict[str, list[str]] = {name: [] for name in needs}
    for name, level in depth.items():
        rows[level].append(name)
    paths = []
    for name in needs:
        for near in needs[name]:
            places = [f"{near}>{name}@{level}" for level in range(depth[near] + 1, depth[name])]
            path = [near, *places, name]
            for upper, lower in zip(path, path[1:], strict=False):
                above.setdefault(lower, []).append(upper)
            for level, place in enumerate(places, start=depth[near] + 1):
                rows[level].append(place)
            paths.append(path)
    at: dict[str, float] = {}
    for row in rows:
        row.sort(key=lambda name: (sum(at[near] for near in above[name]) / max(len(above[name]), 1), name))
        at |= {name: (i + 0.5) / len(row) for i, name in enumerate(row)}
    return paths, rows


def _wide(name: str, needs: Mapping[str, Sequence[str]]) -> float:
    return WIDTH if name in needs else PASS


def _svg(width: float, height: float, parts: Sequence[str], title: str, key: str) -> str:
    tip = (
        f'<marker id="{key}-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker>'
    )
    return (
        f'<svg class="lesson-map" role="img" aria-labelledby="{key}-title" width="{width:g}" '
        f'viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg">'
        f'<title id="{key}-title">{escape(title)}</title><defs>{tip}</defs>{"".join(parts)}</svg>'
    )


def _box(x: float, y: float, label: str) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>'
        f'<text x="{x + WIDTH / 2:g}" y="{y + HEIGHT / 2 + 5:g}" text-anchor="middle">{escape(label)}</text>'
    )


def _down(above: Point, below: Point, key: str, tip: bool) -> str:
    (x0, y0), (x1, y1) = above, below
    half = (y0 + y1) / 2
    end = f' marker-end="url(#{key}-tip)"' if tip else ""
    return f'<path class="needs"{end} d="M{x0:g} {y0:g} C{x0:g} {half:g} {x1:g} {half:g} {x1:g} {y1:g}"/>'
