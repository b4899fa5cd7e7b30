"""{track-rules}, {worked-example}, {calculator}: numbers from rules and scores of autograder.scoring."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from autograder.scoring import rules, scores

from .course import ROOT

ENTRIES = ROOT / "course" / "entries"
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Measured:
    """The figures of a reference entry that its points are computed from."""

    rule: rules.Track
    dataset: str
    figures: dict[str, float]
    quality: float
    gates: dict[str, float]
    total: float


def measured(track: str) -> Measured:
    """A reference entry's result.json, ready for `scores.score`."""
    rule = rules.track(track)
    result = json.loads((ENTRIES / track / "result.json").read_text(encoding="utf-8"))
    metrics = result["metrics"]
    figures = {
        "accuracy": metrics[rule.metric],
        "speed": metrics[rule.rate],
        "size": float(metrics["size_bytes"]),
    }
    gates = {name: metrics[name] for name in rule.gates}
    return Measured(rule, result["dataset"], figures, metrics["quality"], gates, result["total"])


def example(track: str) -> str:
    """One reference entry scored step by step, as markdown."""
    entry = measured(track)
    rule = entry.rule
    scored = scores.score(rule, entry.dataset, entry.figures, quality=entry.quality, gates=entry.gates)
    if scored.total != entry.total:
        raise ValueError(
            f"course/entries/{track}/result.json says {entry.total}, the rules say {scored.total}: "
            "measure the entry again with `tito olympics retime`"
        )
    lines = ["| dimension | measured | score | points |", "|---|---|---|---|"]
    for name in scored.points:
        figure = entry.figures.get(name, entry.quality)
        ramp = rule.ramps[entry.dataset].get(name)
        shown = scores.show(ramp.unit, figure) if ramp else f"{figure:.4f}"
        points = f"{scored.points[name]:g} of {rule.points[name]}"
        lines.append(f"| {name} | {shown} | {scored.scores[name]:.4f} | {points} |")
    lines.append(f"| **sum** | | | **{scored.total:g}** |")
    steps = [_step(name, entry.figures[name], ramp) for name, ramp in rule.ramps[entry.dataset].items()]
    gate = "It passes the gate." if scored.gate_passed else "It does not pass the gate."
    return "\n".join(
        [f"Measured on {entry.dataset}. {gate}", "", *lines, "", *(f"- {step}" for step in steps)]
    )


def _step(name: str, figure: float, ramp: rules.Ramp) -> str:
    def show(value: float) -> str:
        return scores.show(ramp.unit, value)

    score = scores.on_ramp(ramp, figure)
    if score in (0.0, 1.0):
        end, side = (ramp.reference, "full marks from") if score else ((ramp.floor, 0.0), "nothing up to")
        return f"{name}: {show(figure)}, and there is {side} {show(end[0])}."
    points = ramp.points
    (x0, s0), (x1, s1) = next(
        (worse, good)
        for worse, good in zip(points, points[1:], strict=False)
        if min(worse[0], good[0]) <= figure <= max(worse[0], good[0])
    )
    along = (lambda x: math.log(x)) if ramp.logarithmic else (lambda x: x)
    way = (along(figure) - along(x0)) / (along(x1) - along(x0))
    how = "on the scale of logarithms" if ramp.logarithmic else "on a straight line"
    return (
        f"{name}: {show(figure)} lies between {show(x0)}, worth {s0:g}, and {show(x1)}, worth {s1:g}. "
        f"It has come {100 * way:.1f}% of that way {how}: {s0:g} + {way:.4f} × {s1 - s0:.2f} = {score:.4f}."
    )


def rules_page(track: str) -> str:
    """A track's rules as markdown: the facts as a list, then what each figure is worth, by data set."""
    rule = rules.track(track)
    facts = {
        "task": rule.task,
        "gate": rule.gate,
        "record to beat": rule.record,
        "limits": rule.limit_text,
        "machine": f"{rule.machine_class}, batch {rule.batch}",
        "ranking": rule.ranking,
        "divisions": ", ".join(rule.divisions),
        "points": ", ".join(f"{name} {most}" for name, most in rule.points.items()),
        "not allowed": f"{', '.join(rules.FRAMEWORKS)}: the sandbox has none, and an import is reported",
    }
    lines = [part for name, text in facts.items() for part in (f"{name}", f": {text}", "")]
    lines += ["## Worth knowing", "", *(f"- {note}" for note in rule.notes), ""]
    for dataset in rule.ramps:
        lines += [f"## What a figure is worth on {dataset}", "", *ramp_table(rule, dataset), ""]
    return "\n".join(lines)


def ramp_table(rule: rules.Track, dataset: str) -> list[str]:
    """A table of the ramps: one row a dimension, figure and share of the points at four marks."""
    lines = ["| dimension | points | nothing at | | | all at | between |", "|---|---|---|---|---|---|---|"]
    for name, ramp in rule.ramps[dataset].items():
        marks = [f"{scores.show(ramp.unit, figure)}: {share:g}" for figure, share in ramp.points]
        marks[0], marks[-1] = marks[0].rpartition(":")[0], marks[-1].rpartition(":")[0]
        how = "logarithmic" if ramp.logarithmic else "linear"
        lines.append(f"| {name} | {rule.points[name]} | {' | '.join(marks)} | {how} |")
    lines[0] = "| dimension | points | nothing at | first mark | second mark | all at | between |"
    return lines


def constants() -> dict[str, dict[str, Any]]:
    """What the calculator needs: track -> data set -> points, ramps, gates, limit, an example."""
    table: dict[str, dict[str, Any]] = {}
    for track, rule in rules.TRACKS.items():
        entry = measured(track)
        for dataset, ramps in rule.ramps.items():
            shown = (
                {**entry.figures, "quality": entry.quality, **entry.gates}
                if dataset == entry.dataset
                else {**{name: ramp.record[0] for name, ramp in ramps.items()}, "quality": entry.quality}
            )
            table.setdefault(track, {})[dataset] = {
                "points": dict(rule.points),
                "ramps": {
                    name: {
                        "unit": ramp.unit,
                        "points": [list(point) for point in ramp.points],
                        "logarithmic": ramp.logarithmic,
                    }
                    for name, ramp in ramps.items()
                },
                "gates": dict(rule.gates),
                "rate": rule.rate,
                "fileBytes": rule.limits.file_bytes,
                "example": shown,
            }
    return table


def calculator() -> str:
    """The form, its table and its script, as one piece of HTML."""
    choices = "".join(
        f'<option value="{name}">{escape(rule.title)}</option>' for name, rule in rules.TRACKS.items()
    )
    fields = "".join(_field(name, name, "0", "any") for name in ("accuracy", "speed", "size")) + _field(
        "quality", "Code quality, 0 to 1", "0", "any", "1"
    )
    fields += _field("rubric", "Rubric, 0 to 1", "0", "any", "1", "0.5")
    most = rules.POINTS["innovation"]
    fields += _field("innovation", f"Innovation, 0 to {most} points, by hand", "0", "any", str(most), "0")
    data = json.dumps(constants()).replace("</", "<\\/")
    script = (_HERE / "calculator.js").read_text(encoding="utf-8")
    return f"""<form id="calculator-form" class="calculator">
<p><label for="calc-track">Track</label> <select id="calc-track" name="track">{choices}</select></p>
<p><label for="calc-dataset">Data set</label> <select id="calc-dataset" name="dataset"></select></p>
{fields}</form>
<p id="calculator-status" class="calculator-status" role="status"></p>
<table class="table"><caption>Where the points come from</caption>
<thead><tr><th scope="col">dimension</th><th scope="col">score 0 to 1</th><th scope="col">points</th>
<th scope="col">of</th></tr></thead><tbody id="calculator-result"></tbody></table>
<noscript><p>The calculator is a script in this page. Without it, compute by hand, as in the worked
examples.</p></noscript>
<script type="application/json" id="calculator-rules">{data}</script>
<script>{script}</script>"""


def _field(name: str, label: str, least: str, step: str, most: str = "", value: str = "") -> str:
    limit = f' max="{most}"' if most else ""
    return (
        f'<p id="row-{name}"><label id="label-{name}" for="calc-{name}">{escape(label)}</label> '
        f'<input id="calc-{name}" name="{name}" type="number" min="{least}"{limit} step="{step}" required '
        f'value="{value or 0}"></p>\n'
    )


class _Markdown(SphinxDirective):
    """A directive whose argument is a track and whose content is markdown made here."""

    required_arguments = 1
    make = staticmethod(rules_page)

    def run(self) -> list[nodes.Node]:
        for file in ("autograder/scoring/rules.py", "autograder/scoring/scores.py"):
            self.env.note_dependency(str(ROOT / file))
        return self.parse_text_to_nodes(type(self).make(self.arguments[0]), allow_section_headings=True)


class Rules(_Markdown):
    make = staticmethod(rules_page)


class Example(_Markdown):
    make = staticmethod(example)


class Grade(SphinxDirective):
    """The parts of the course grade, as a table."""

    def run(self) -> list[nodes.Node]:
        lines = ["| part of the course grade | share |", "|---|---|"]
        lines += [f"| {name} | {share}% |" for name, share in rules.COURSE_GRADE.items()]
        return self.parse_text_to_nodes("\n".join(lines))


class Calculator(SphinxDirective):
    """The calculator, written into the page."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", calculator(), format="html")]


def setup(app: Any) -> None:
    """Register the directives."""
    app.add_directive("track-rules", Rules)
    app.add_directive("worked-example", Example)
    app.add_directive("course-grade", Grade)
    app.add_directive("calculator", Calculator)
