"""Charts as inline SVG: scales with round ticks, marks of different shapes, labels that keep clear.

Every chart is drawn twice, for wide and for narrow screens, since text in a scaled picture scales with it.
Colours come from the page's style sheet; the attributes here let a picture stand in a notebook too.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import NamedTuple

GLYPHS = {"graded": "●", "audited": "◆", "reference": "■", "self-reported": "▲"}
LINE = 14.0  # height of a line of 12 px


class Box(NamedTuple):
    """A rectangle that is taken."""

    x0: float
    y0: float
    x1: float
    y1: float

    def meets(self, other: Box) -> bool:
        """Whether the two have some area in common."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


@dataclass(frozen=True)
class Scale:
    """From a figure to a place, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixels; a figure beyond the ends stands at the end."""
        value = min(max(value, self.low), self.high)
        at = math.log10 if self.log else float
        share = (at(value) - at(self.low)) / (at(self.high) - at(self.low))
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round figures from low to high, at most so many of them where that is possible."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = [s * 10.0**p for p in powers for s in steps if self.low <= s * 10.0**p <= self.high]
                if len(found) <= most:
                    break
            if len(found) >= 2:
                return found[:: math.ceil(len(found) / most)]
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def span(values: Sequence[float], *, log: bool, floor: float | None = None, ceiling: float | None = None
         ) -> tuple[float, float]:  # fmt: skip
    """The ends of a scale with some air around the values, never beyond floor and ceiling."""
    low, high = min(values), max(values)
    if log:
        air = max((high / low) ** 0.08, 1.25)
        return low / air, high * air
    air = (high - low) * 0.08 or max(abs(high) * 0.05, 0.01)
    low = low - air if floor is None else max(floor, low - air)
    high = high + air if ceiling is None else min(ceiling, high + air)
    return (low, high) if high > low else (low - 0.01, high + 0.01)


@dataclass
class Canvas:
    """A picture that grows: axes first, then marks, then labels where there is room."""

    width: int
    height: int
    left: int = 58
    right: int = 14
    top: int = 30
    bottom: int = 46
    parts: list[str] = field(default_factory=list)
    labels: list[Box] = field(default_factory=list)
    marks: list[Box] = field(default_factory=list)
    lines: list[Box] = field(default_factory=list)

    @property
    def narrow(self) -> bool:
        """Whether it is the picture for a phone."""
        return self.width < 500

    @property
    def across(self) -> tuple[float, float]:
        """Pixels of the x axis, from start to end."""
        return float(self.left), float(self.width - self.right)

    @property
    def upward(self) -> tuple[float, float]:
        """Pixels of the y axis, from bottom to top."""
        return float(self.height - self.bottom), float(self.top)

    def axes(
        self, x: Scale, y: Scale, x_title: str, y_title: str,
        x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]],
    ) -> None:  # fmt: skip
        """Grid, ticks and titles."""
        (left, right), (base, top) = self.across, self.upward
        grid = [f"M{_n(x(v))} {_n(top)}V{_n(base)}" for v, _ in x_ticks]
        grid += [f"M{_n(left)} {_n(y(v))}H{_n(right)}" for v, _ in y_ticks]
        self.parts.append(f'<path class="grid" fill="none" stroke="#ccc" d="{"".join(grid)}"/>')
        last = -1e9
        for value, text in x_ticks:
            half = text_width(text) / 2
            if x(value) - half < last or x(value) + half > self.width:
                continue
            last = x(value) + half + 6
            self.text(x(value), base + 17, text, "middle")
        for value, text in y_ticks:
            self.text(left - 6, y(value) + 4, text, "end")
        self.text((left + right) / 2, base + 37, x_title, "middle")
        self.text(4, top - 14, y_title)

    def text(self, x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> None:
        """Text as it is, without looking for room."""
        name = f' class="{kind}"' if kind else ""
        side = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.parts.append(f'<text{name}{side} x="{_n(x)}" y="{_n(y)}">{escape(text)}</text>')

    def line(self, kind: str, path: str) -> None:
        """A line by its SVG path."""
        self.parts.append(f'<path class="{kind}" fill="none" stroke="#777" d="{path}"/>')

    def corners(self, kind: str, points: Sequence[tuple[float, float]]) -> None:
        """A line through points, level or upright from one to the next, which no label covers."""
        self.line(kind, "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points))
        for (x0, y0), (x1, y1) in pairwise(points):
            self.lines.append(Box(min(x0, x1) - 2, min(y0, y1) - 2, max(x0, x1) + 2, max(y0, y1) + 2))

    def mark(
        self, x: float, y: float, badge: str, *, hollow: bool = False, number: int | None = None,
        title: str = "",
    ) -> None:  # fmt: skip
        """A mark in the shape of its badge; hollow ones are of the closed division."""
        kind = f"mark {badge}{' hollow' if hollow else ''}"
        tie = "" if number is None else f' data-e="{number}"'
        tip = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(f'<path class="{kind}"{tie} d="{_shape(badge, x, y)}">{tip}</path>')
        self.marks.append(Box(x - 5, y - 5, x + 5, y + 5))

    def star(self, x: float, y: float) -> None:
        """A published record: a cross, which no entry has."""
        a, b = _n(x - 6), _n(y - 6)
        self.parts.append(
            f'<path class="star" fill="none" stroke="#b40" d="M{a} {_n(y)}h12M{_n(x)} {b}v12"/>'
        )
        self.marks.append(Box(x - 6, y - 6, x + 6, y + 6))

    def label(self, x: float, y: float, text: str, kind: str, *, must: bool = False) -> bool:
        """Write beside a mark where nothing else is; `must` also far from it, with a line to it.

        A label that must be there covers marks, or even lines, rather than that it is left out. Returns
        whether there was room.
        """
        width = text_width(text, bold=kind == "name")
        (left, right), (base, top) = self.across, self.upward
        frame = Box(left, top - 10, right, base)
        near = [(9, 4, "start"), (-9, 4, "end"), (0, -9, "middle"), (0, 18, "middle"),
                (8, -7, "start"), (8, 15, "start"), (-8, -7, "end"), (-8, 15, "end")]  # fmt: skip
        far = [(dx, dy, a) for d in (28, 42, 56, 70) for dy in (-d, d)
               for dx, a in ((6, "start"), (-6, "end"), (0, "middle"))] if must else []  # fmt: skip
        for avoided in (self.marks + self.lines, self.lines, []):
            for dx, dy, anchor in [*near, *far]:
                box = _text_box(x + dx, y + dy, width, anchor)
                inside = (
                    box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1
                )
                if inside and not any(box.meets(other) for other in self.labels + avoided):
                    self.labels.append(box)
                    if abs(dy) > 20:
                        end = y + dy + (3 if dy < 0 else -11)
                        self.line("leader", f"M{_n(x)} {_n(y)}L{_n(x + dx)} {_n(end)}")
                    self.text(x + dx, y + dy, text, anchor, kind)
                    return True
            if not must:
                break
        return False

    def svg(self, id: str, title: str, description: str, classes: str) -> str:
        """The picture, with a title and a description for those who do not see it."""
        return (
            f'<svg class="{classes}" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-labelledby="{id}-title {id}-desc" font-size="12"><title id="{id}-title">{escape(title)}'
            f'</title><desc id="{id}-desc">{escape(description)}</desc>{"".join(self.parts)}</svg>'
        )


def both(id: str, title: str, description: str, draw: Callable[[Canvas], None]) -> str:
    """A picture for wide screens and one for narrow ones; the style sheet shows one of them."""
    pictures = []
    for canvas, kind in ((Canvas(720, 380), "wide"), (Canvas(360, 330, left=50, right=10), "slim")):
        draw(canvas)
        pictures.append(canvas.svg(f"{id}-{kind}", title, description, kind))
    return "".join(pictures)


def text_width(text: str, *, bold: bool = False) -> float:
    """Pixels that a text of 12 px takes at most in the usual fonts, of which DejaVu Sans is the widest."""
    width = 0.0
    for c in text:
        if unicodedata.east_asian_width(c) in "WF" or c in "mwMW@%":
            width += 13.2
        elif c in "iljI.,:;'|! ":
            width += 4.6
        elif c in 'frt()[]-/"':
            width += 6.2
        else:
            width += 10.2 if c.isupper() or c in "<>=+#&~^_" else 8.6
    return width if bold else 0.92 * width


def _text_box(x: float, y: float, width: float, anchor: str) -> Box:
    start = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return Box(start, y - 11, start + width, y - 11 + LINE)


def _shape(badge: str, x: float, y: float) -> str:
    a, b = _n(x), _n(y)
    if badge == "reference":
        return f"M{_n(x - 5)} {_n(y - 5)}h10v10h-10z"
    if badge == "self-reported":
        return f"M{a} {_n(y - 6)}l6 11h-12z"
    if badge == "audited":
        return f"M{a} {_n(y - 7)}l7 7l-7 7l-7-7z"
    return f"M{_n(x - 5)} {b}a5 5 0 1 0 10 0a5 5 0 1 0-10 0z"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
