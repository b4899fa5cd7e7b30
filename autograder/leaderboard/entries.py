"""An entry's own page: its figures, what its score adds up from, the timings behind it, where it comes from,
its report, and the command that measures it again.

They are files of their own, in a folder beside the board, and not parts of it: the reports and timings of 500
entries have several megabytes, and a link to one entry should bring that one.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autograder.leaderboard import reports, wording
from autograder.leaderboard.chart import Canvas, Scale, both, span
from autograder.leaderboard.merge import machine
from autograder.leaderboard.results_file import rules_hash
from autograder.leaderboard.wording import plain, slug
from autograder.scoring import rules

DIMENSIONS = {
    "accuracy": "Accuracy", "speed": "Speed", "size": "Size", "quality": "Code quality",
    "innovation": "Innovation, marked by a person",
}  # fmt: skip
_EVERY = {
    figure.metric: figure
    for track in ("vision", "language", "speed", "compression")
    for figure in wording.figures(track)
}
_SECONDS = ("latencies",)


@dataclass(frozen=True)
class Command:
    """What to type, and what it does."""

    line: str
    does: str


def facts(entry: Mapping[str, Any], exported: Mapping[str, Any], rank: str) -> dict[str, Any]:
    """All that an entry's page shows, as text and safe HTML, for the template."""
    several = len(exported.get("classes", ())) > 1
    return {
        "name": plain(entry["name"]), "track": rules.track(entry["track"]).title,
        "track_id": slug(entry["track"]), "dataset": wording.dataset(entry["dataset"]),
        "about": wording.ABOUT.get(entry["dataset"], ""), "division": entry.get("division", "open"),
        "divided": len(rules.track(entry["track"]).divisions) > 1,
        "group": plain(entry.get("class") or "") if several else "", "badge": entry["badge"],
        "promise": wording.BADGES[entry["badge"]], "valid": entry["valid"], "rank": rank,
        "reasons": [plain(reason) for reason in entry["reasons"]], "figures": figures(entry),
        "scores": scores(entry), "total": f"{entry['points']:g}", "most": f"{entry['max_points']:g}",
        "taken": taken(entry), "samples": samples(entry), "trail": trail(entry, exported),
        "report": reports.html(entry["report"]) if entry.get("report") else "",
        "commands": commands(entry, exported["names"]), "pseudonym": exported["names"] == "pseudonym",
    }  # fmt: skip


def figures(entry: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, figure, its 95% interval) of every metric that was measured, the track's own first."""
    metrics = entry["metrics"]
    own = {figure.metric: figure for figure in wording.figures(entry["track"])}
    found = []
    for metric in [*own, *(name for name in metrics if name not in own)]:
        value = metrics.get(metric)
        if value is None or metric.endswith("_interval"):
            continue
        if isinstance(value, bool):
            found.append((wording.heading(metric), "yes" if value else "no", ""))
            continue
        figure = own.get(metric) or _EVERY.get(metric)
        if figure is None or not isinstance(value, int | float):
            continue
        bounds = metrics.get(figure.interval) if figure.interval else None
        interval = f"{figure.text(bounds[0])} to {figure.text(bounds[1])}" if bounds else ""
        found.append((_long(figure), figure.text(value), interval))
    return found


def scores(entry: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """(dimension, measured score 0 to 1, points, of, why points were lost) for every graded cell."""
    rows = []
    for cell in entry["cells"]:
        name = cell["grade_id"]
        share = entry["scores"].get(name)
        rows.append(
            (
                DIMENSIONS.get(name, plain(name)),
                "" if share is None else f"{share:.3f}",
                "not yet" if cell["points"] is None else f"{cell['points']:g}",
                f"{cell['max_points']:g}",
                plain(cell["reason"]),
            )
        )
    return rows


def taken(entry: Mapping[str, Any]) -> str:
    """Points between the sum of the cells and the score, which lateness cost; "" where they agree."""
    lost = sum(cell["points"] or 0.0 for cell in entry["cells"]) - entry["points"]
    return f"{lost:.4g}" if entry["cells"] and lost > 0.005 else ""


def samples(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The single timings behind the figures: what they are, a picture of them, and the values."""
    shown = []
    for name, values in sorted((entry.get("samples") or {}).items()):
        values = [value for value in values if value > 0]
        if len(values) < 2:
            continue
        text = wording.milliseconds if name in _SECONDS else wording.count
        unit = "milliseconds a token" if name in _SECONDS else "a second"
        ordered = sorted(values)
        words = (
            f"{len(values)} timings, from {text(ordered[0])} to {text(ordered[-1])}, median "
            f"{text(ordered[len(ordered) // 2])}"
        )
        shown.append(
            {
                "title": wording.heading(name), "words": words, "unit": unit,
                "picture": _strip(slug("samples", name), wording.heading(name), words, values, name),
                "each": [text(value) for value in values],
            }
        )  # fmt: skip
    return shown


def trail(entry: Mapping[str, Any], exported: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, value) of where an entry's figures come from."""
    audit, hashes = entry.get("audit"), entry.get("hashes") or {}
    now = rules_hash(exported.get("rules", {}).get(entry["track"]))
    if entry.get("rules") is None or now is None:
        by = "not on record"
    else:
        by = f"{entry['rules']}" + ("" if entry["rules"] == now else f", the course's are now {now}")
    found = [
        ("Measured", f"{plain(entry['date'])}, on the {plain(str(entry['split']))} split"),
        ("Sandbox", plain(entry["sandbox"])),
        ("Machine", plain(machine(dict(entry)))),
    ]
    system = (entry.get("machine") or {}).get("system")
    if system:
        found.append(("System", plain(str(system))))
    if entry["badge"] != "reference":
        text = f"{plain(audit['outcome'])}, {plain(audit['date'])}" if audit else "not yet"
        found.append(("Trained again by its own script", text))
    found.append(("Rules", by))
    for key, what in (("submission", "Submission"), ("grader", "Grader's code"), ("data", "Data")):
        if hashes.get(key):
            found.append((f"{what}, SHA-256", hashes[key]))
    if entry["badge"] != "reference" and not any(hashes.values()):
        found.append(("Ledger", "no line: it was graded before the course kept one"))
    return found


def commands(entry: Mapping[str, Any], names: str) -> list[Command]:
    """What measures this entry again: in the course's folder, by who has the submissions.

    On a public board the student is STUDENT: who is behind a pseudonym only the course knows.
    """
    track, dataset = str(entry["track"]), str(entry["dataset"])
    data = f" --dataset {shlex.quote(dataset)}" if len(rules.track(track).datasets) > 1 else ""
    if entry["badge"] == "reference":
        return [Command(f"tito olympics retime --track {track} --force", "measures the course's entry again")]
    if entry["badge"] == "self-reported":
        return [
            Command(f"tito benchmark accuracy --model {track}/model.safetensors{data}",
                    "measures the model's accuracy on the public split, as its author did"),
        ]  # fmt: skip
    who = shlex.quote(entry["name"]) if names == "id" else "STUDENT"
    return [
        Command(f"tito grade --replay {who} {track}{data}",
                "measures the stored submission again and says what differs"),
        Command(f"tito olympics audit submitted/{who}/{track} --track {track}{data}",
                "trains the model again by its own script and compares the two"),
    ]  # fmt: skip


def _long(figure: wording.Figure) -> str:
    """A figure's name where there is room for it."""
    names = {
        "latency_p50": "Seconds a token, median", "latency_p90": "Seconds a token, 90th percentile",
        "ratio_to_reference": "Speed, to the reference entry", "retention": "Kept of the baseline's accuracy",
        "accuracy_lost": "Lost from the baseline's accuracy", "next_token_accuracy": "Next token right",
        "training_seconds": "Training time, as declared", "quality": "Code quality, of 1",
        "memory_bytes": "Peak memory", "size_bytes": "Size of the file", "bits_per_byte": "Bits per byte",
        "first_token": "Time to the first token", "rubric": "Rubric, of 1",
    }  # fmt: skip
    return names.get(figure.metric, figure.head)


def _strip(id: str, title: str, words: str, values: Sequence[float], name: str) -> str:
    """The timings in the order in which they were taken."""

    def draw(canvas: Canvas) -> None:
        canvas.height = 170
        x = Scale(0.0, len(values) + 1.0, *canvas.across)
        y = Scale(*span(values, log=False, floor=0.0), *canvas.upward)
        label = wording.milliseconds if name in _SECONDS else wording.count
        whole = [(t, f"{t:g}") for t in x.ticks(10) if t == int(t) and 0 < t <= len(values)]
        canvas.axes(x, y, "repeat", "", whole, [(t, label(t)) for t in y.ticks(3)])
        for number, value in enumerate(values, 1):
            canvas.mark(x(float(number)), y(value), "graded")

    return both(id, f"{title}, one by one", words, draw)
