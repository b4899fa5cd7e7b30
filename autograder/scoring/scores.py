"""From measured figures to points: ramps, the gate, the composite, and a sentence for every lost point."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autograder.scoring.rules import MB, Ramp, Track


@dataclass(frozen=True)
class Scored:
    """Scores 0..1 and points a dimension, their sum, and why each lost point was lost."""

    scores: dict[str, float]
    points: dict[str, float]
    total: float
    reasons: list[str]
    gate_passed: bool


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


def gate_share(ramp: Ramp, figure: float) -> float:
    """How much of the way from floor to gate a figure has come, 0..1; 1 at the gate and beyond."""
    return min(1.0, max(0.0, (figure - ramp.floor) / (ramp.gate[0] - ramp.floor)))


def score(
    track: Track,
    dataset: str,
    figures: Mapping[str, float],
    *,
    quality: float,
    quality_reasons: list[str] | None = None,
    gates: Mapping[str, float] | None = None,
) -> Scored:
    """Scores and points of one entry. Innovation is a manual mark and is not in the total.

    figures: for each dimension with a ramp (accuracy, speed, size) its figure in the ramp's unit. Below the
    accuracy gate, speed and size count in the share of the gate reached: otherwise a model that knows
    nothing, and does it fast, would earn 40 points. gates: the figures of the track's further gates, by name
    of the metric; they decide with it whether the gate is passed.
    """
    ramps = track.ramps[dataset]
    share = gate_share(ramps["accuracy"], figures["accuracy"])
    passed = _passes(ramps["accuracy"], figures["accuracy"])
    gate = "accuracy"
    missed = []
    for name, least in track.gates.items():
        figure = (gates or {})[name]
        if figure < least:
            passed = False
            missed.append(f"accuracy gate: {name.replace('_', ' ')} {figure:.3g} is below {least:g}")
            if figure / least < share:
                gate, share = name.replace("_", " "), max(0.0, figure / least)
    scores = {
        name: on_ramp(ramp, figures[name]) * (1.0 if name == "accuracy" else share)
        for name, ramp in ramps.items()
    }
    scores["quality"] = min(1.0, max(0.0, quality))
    points = {name: round(value * track.points[name], 2) for name, value in scores.items()}
    reasons = missed
    for name, ramp in ramps.items():
        if points[name] < track.points[name]:
            reasons.append(
                _lost(name, float(figures[name]), ramp, points[name], track.points[name], share, gate)
            )
    if points["quality"] < track.points["quality"]:
        why = "; ".join(quality_reasons or []) or f"code quality is {quality:.2f} of 1"
        reasons.append(f"code quality: {why}: {_of(points['quality'], track.points['quality'])}")
    return Scored(scores, points, round(sum(points.values()), 2), reasons, passed)


def composite(points: Mapping[str, float], innovation: float | None) -> float:
    """The leaderboard's score of 100: measured points and the manual innovation mark (0 while unmarked)."""
    return round(sum(points.values()) + (innovation or 0.0), 2)


def show(unit: str, figure: float) -> str:
    """A figure of a ramp's unit as people read it: 71.2%, 812 images/s, 7.9 MB, 2.1 points lost."""
    if unit == "share":
        return f"{100 * figure:.1f}%"
    if unit == "points lost":
        return f"{100 * figure + 0.0:.1f} points lost"
    if unit == "kept":
        return f"{100 * figure:.1f}% kept"
    if unit == "bytes":
        return f"{figure / MB:.3g} MB"
    if unit == "bits/byte":
        return f"{figure:.3f} bits/byte"
    return f"{figure:,.0f} {unit}"


def _passes(ramp: Ramp, figure: float) -> bool:
    """At the gate or above; where less is better, less than the gate."""
    return figure >= ramp.gate[0] if ramp.reference[0] > ramp.floor else figure < ramp.gate[0]


def _lost(name: str, figure: float, ramp: Ramp, got: float, most: int, share: float, gate: str) -> str:
    better = ramp.reference[0] > ramp.floor
    steps = zip((*ramp.marks, "full marks at"), ramp.points[1:], strict=True)
    missed = [(goal, at) for goal, (at, _) in steps if (figure < at if better else figure > at)]
    if missed:
        goal, at = missed[0]
        side = "below" if better else "above"
        text = f"{name} {show(ramp.unit, figure)} is {side} {goal} {show(ramp.unit, at)}"
    else:
        text = f"{name} {show(ramp.unit, figure)} is enough for full marks"
    if name != "accuracy" and share < 1:
        text += f", and below the {gate} gate it counts {100 * share:.0f}%"
    return f"{text}: {_of(got, most)}"


def _of(got: float, most: int) -> str:
    return f"{round(got, 2):g} of {most} points"
