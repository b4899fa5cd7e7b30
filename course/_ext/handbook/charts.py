"""The map of lessons as SVG: a box a lesson, an arrow from what is needed to what needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, GAP_X, GAP_Y = 118, 34, 22, 40
# beside each box of the map stands its text; the list under the map says the same in words
_ARROW = (
    '<marker id="{key}-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker>'
)


def lesson_map(needs: Mapping[str, Sequence[str]], labels: Mapping[str, str], title: str, key: str) -> str:
    """An inline SVG of a graph without circles.

    needs: name -> the names drawn above it. key: unique on a page.
    """
    rows = layers(needs)
    wide = max(map(len, rows))
    width = wide * (WIDTH + GAP_X) - GAP_X + 4
    height = len(rows) * (HEIGHT + GAP_Y) - GAP_Y + 4
    place = {}
    for depth, row in enumerate(rows):
        indent = (width - (len(row) * (WIDTH + GAP_X) - GAP_X)) / 2
        for i, name in enumerate(row):
            place[name] = (indent + i * (WIDTH + GAP_X), 2 + depth * (HEIGHT + GAP_Y))
    lines = [_line(place[near], place[name], key) for name in needs for near in needs[name]]
    boxes = [_box(*place[name], labels[name]) for name in needs]
    return (
        f'<svg class="lesson-map" role="img" aria-labelledby="{key}-title" width="{width:g}" '
        f'viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg">'
        f'<title id="{key}-title">{escape(title)}</title><defs>{_ARROW.format(key=key)}</defs>'
        f"{''.join(lines)}{''.join(boxes)}</svg>"
    )


def layers(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The names in rows, each one below all that it needs, near what it needs."""
    depth: dict[str, int] = {}
    for name in needs:  # lessons come after what they need
        depth[name] = 1 + max((depth[near] for near in needs[name]), default=-1)
    rows: list[list[str]] = [[] for _ in range(1 + max(depth.values()))]
    for name, level in depth.items():
        rows[level].append(name)
    at: dict[str, float] = {}
    for row in rows:
        row.sort(key=lambda name: (sum(at[near] for near in needs[name]) / max(len(needs[name]), 1), name))
        at |= {name: (i + 0.5) / len(row) for i, name in enumerate(row)}
    return rows


def _box(x: float, y: float, label: str) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>'
        f'<text x="{x + WIDTH / 2:g}" y="{y + HEIGHT / 2 + 5:g}" text-anchor="middle">{escape(label)}</text>'
    )


def _line(above: tuple[float, float], below: tuple[float, float], key: str) -> str:
    x0, y0 = above[0] + WIDTH / 2, above[1] + HEIGHT
    x1, y1 = below[0] + WIDTH / 2, below[1]
    bend = min(60.0, (y1 - y0) / 2)
    return (
        f'<path class="needs" marker-end="url(#{key}-tip)" '
        f'd="M{x0:g} {y0:g} C{x0:g} {y0 + bend:g} {x1:g} {y1 - bend:g} {x1:g} {y1:g}"/>'
    )
