"""From measured figures to points: ramps, the gate, the composite, and a sentence for every lost point."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autograder.rules import MB, Ramp, Track


@dataclass(frozen=True)
class Scored:
    """Scores 0..1 and points a dimension, their sum, and why each lost point was lost."""

    scores: dict[str, float]
    points: dict[str, float]
    total: float
    reasons: list[str]


def on_ramp(ramp: Ramp, value: float) -> float:
    """The score 0..1 of a figure: piecewise linear through the ramp's points, clamped at both ends.

    Raises ValueError for a figure that is not finite, or not positive on a logarithmic ramp.
    """
    if not math.isfinite(value):
        raise ValueError(f"a figure of {value} cannot be scored: expected a finite number")
    if ramp.logarithmic and value <= 0:
        raise ValueError(
            f"a figure of {value} cannot be scored on a logarithmic ramp: expected a positive one"
        )

    def along(figure: float) -> float:
        x = math.log(figure) if ramp.logarithmic else figure
        return x if ramp.reference[0] > ramp.floor else -x

    x, points = along(value), [(along(figure), score) for figure, score in ramp.points]
    if x <= points[0][0]:
        return 0.0
    for (x0, s0), (x1, s1) in zip(points, points[1:], strict=False):
        if x <= x1:
            return s0 + (s1 - s0) * (x - x0) / (x1 - x0)
    return points[-1][1]


def gate_share(ramp: Ramp, accuracy: float) -> float:
    """How much of the way from floor to gate an accuracy has come, 0..1; 1 at the gate and above."""
    return min(1.0, max(0.0, (accuracy - ramp.floor) / (ramp.gate[0] - ramp.floor)))


def score(
    track: Track,
    dataset: str,
    *,
    accuracy: float,
    images_per_second: float,
    size_bytes: int,
    quality: float,
    quality_reasons: list[str] | None = None,
) -> Scored:
    """Scores and points of one vision entry. Innovation is a manual mark and is not in the total.

    Below the accuracy gate, speed and size count in the share of the gate reached: otherwise a model that
    knows nothing, and does it fast, would earn 40 points.
    """
    ramps = track.ramps[dataset]
    share = gate_share(ramps["accuracy"], accuracy)
    scores = {
        "accuracy": on_ramp(ramps["accuracy"], accuracy),
        "speed": on_ramp(ramps["speed"], images_per_second) * share,
        "size": on_ramp(ramps["size"], size_bytes) * share,
        "quality": min(1.0, max(0.0, quality)),
    }
    points = {name: round(value * track.points[name], 2) for name, value in scores.items()}
    reasons = []
    figures = {"accuracy": accuracy, "speed": images_per_second, "size": float(size_bytes)}
    for name, figure in figures.items():
        if points[name] < track.points[name]:
            reasons.append(_lost(name, figure, ramps[name], points[name], track.points[name], share))
    if points["quality"] < track.points["quality"]:
        why = "; ".join(quality_reasons or []) or f"code quality is {quality:.2f} of 1"
        reasons.append(f"code quality: {why}: {_of(points['quality'], track.points['quality'])}")
    return Scored(scores, points, round(sum(points.values()), 2), reasons)


def composite(points: Mapping[str, float], innovation: float | None) -> float:
    """The leaderboard's score of 100: measured points and the manual innovation mark (0 while unmarked)."""
    return round(sum(points.values()) + (innovation or 0.0), 2)


def show(name: str, figure: float) -> str:
    """A figure as people read it: 71.2%, 812 images/s, 7.9 MB."""
    if name == "accuracy":
        return f"{100 * figure:.1f}%"
    if name == "speed":
        return f"{figure:,.0f} images/s"
    return f"{figure / MB:.3g} MB"


def _lost(name: str, figure: float, ramp: Ramp, got: float, most: int, share: float) -> str:
    marks = {"gate": ramp.gate[0], "record": ramp.record[0], "full marks": ramp.reference[0]}
    better = ramp.reference[0] > ramp.floor
    missed = next(
        (m for m, mark in marks.items() if (figure < mark if better else figure > mark)), "full marks"
    )
    side = "below" if better else "above"
    goal = {
        "gate": "the gate of" if name == "accuracy" else "the half-way mark of",
        "record": "the record of",
    }
    goal_text = goal.get(missed, "full marks at")
    text = f"{name} {show(name, figure)} is {side} {goal_text} {show(name, marks[missed])}"
    if missed == "full marks" and (figure >= marks[missed] if better else figure <= marks[missed]):
        text = f"{name} {show(name, figure)} is enough for full marks"
    if name != "accuracy" and share < 1:
        text += f", and below the accuracy gate it counts {100 * share:.0f}%"
    return f"{text}: {_of(got, most)}"


def _of(got: float, most: int) -> str:
    return f"{round(got, 2):g} of {most} points"
