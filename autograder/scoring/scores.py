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
    gate = _gate(track, ramps["accuracy"], figures["accuracy"], gates or {})
    scores = {
        name: on_ramp(ramp, figures[name]) * (1.0 if name == "accuracy" else gate.share)
        for name, ramp in ramps.items()
    }
    scores["quality"] = min(1.0, max(0.0, quality))
    points = {name: round(value * track.points[name], 2) for name, value in scores.items()}
    reasons = list(gate.missed)
    for name, ramp in ramps.items():
        if points[name] < track.points[name]:
            lost = _lost(name, float(figures[name]), ramp, gate)
            reasons.append(f"{lost}: {_of(points[name], track.points[name])}")
    if points["quality"] < track.points["quality"]:
        why = "; ".join(quality_reasons or []) or f"code quality is {quality:.2f} of 1"
        reasons.append(f"code quality: {why}: {_of(points['quality'], track.points['quality'])}")
    return Scored(scores, points, round(sum(points.values()), 2), reasons, gate.passed)


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


@dataclass(frozen=True)
class _Gate:
    """How far an entry came at the gate that holds it back most: its name, the share 0..1 of it reached.

    passed: every gate is. missed: a line for each further gate that is not.
    """

    name: str
    share: float
    passed: bool
    missed: list[str]


def _gate(track: Track, ramp: Ramp, accuracy: float, figures: Mapping[str, float]) -> _Gate:
    """The accuracy gate, or of the track's further ones that of which a smaller share is reached."""
    name, share, missed = "accuracy", gate_share(ramp, accuracy), []
    for metric, least in track.gates.items():
        figure, shown = figures[metric], metric.replace("_", " ")
        if figure < least:
            missed.append(f"accuracy gate: {shown} {figure:.3g} is below {least:g}")
            if figure / least < share:
                name, share = shown, max(0.0, figure / least)
    return _Gate(name, share, _passes(ramp, accuracy) and not missed, missed)


def _lost(name: str, figure: float, ramp: Ramp, gate: _Gate) -> str:
    """Why a dimension has not all its points."""
    better = ramp.reference[0] > ramp.floor
    steps = zip((*ramp.marks, "full marks at"), ramp.points[1:], strict=True)
    missed = [(goal, at) for goal, (at, _) in steps if (figure < at if better else figure > at)]
    if missed:
        goal, at = missed[0]
        side = "below" if better else "above"
        text = f"{name} {show(ramp.unit, figure)} is {side} {goal} {show(ramp.unit, at)}"
    else:
        text = f"{name} {show(ramp.unit, figure)} is enough for full marks"
    if name != "accuracy" and gate.share < 1:
        text += f", and below the {gate.name} gate it counts {100 * gate.share:.0f}%"
    return text


def _of(got: float, most: int) -> str:
    return f"{round(got, 2):g} of {most} points"
