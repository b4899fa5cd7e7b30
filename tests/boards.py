"""Results files for tests of the board: many entries, two classes, hostile names.

`python -m tests.boards DIR` writes one and its page, to be looked at.
"""

import datetime
import random
import sys
from pathlib import Path

from autograder.leaderboard.results_file import document, rules_hash
from autograder.scoring import rules

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "\u202egnp.exe\u202c right to left",
    "{{ 7*7 }} ${7*7}",
    "</style></title><svg onload=alert(1)>",
    "a" * 80,
    "שלום עולם",
    "Ada & Böhm, 三人行",
)
REPORT = """# What I did

<script>alert(1)</script> and <b>raw</b>.
![a picture](http://elsewhere.example/p.png) and [a link](http://elsewhere.example/x "t"),
[click](javascript:alert(1)), <http://elsewhere.example/auto>.

| epochs | accuracy |
|---|---|
| 3 | 0.91 |

- `code` and *words*

| layer | inputs | outputs | kernel | stride | padding | parameters | multiplications |
|---|---|---|---|---|---|---|---|
| convolution | 3 | 32 | 3 x 3 | 1 | 1 | 896 | 884,736 |
"""
MACHINE = {"cores": 2, "numpy": "2.4.6", "processor": "AMD EPYC", "python": "3.11.7", "system": "Linux"}


def entry(name, track, dataset, metrics, *, badge="graded", division="open", valid=True, day=1, **more):
    """A schema-true entry of a track, with cells that add up to its points."""
    most = rules.track(track).points
    scores = {d: 0.8 for d in ("accuracy", "speed", "size", "quality")} if valid else {}
    cells = [
        {"grade_id": d, "points": round(most[d] * scores.get(d, 0.0), 2), "max_points": float(most[d]),
         "reason": f"{d} is below full marks"}
        for d in most
    ]  # fmt: skip
    when = datetime.datetime(2026, 9, 1, tzinfo=datetime.UTC) + datetime.timedelta(days=day, minutes=day * 7)
    made = {
        "name": name, "class": None if badge == "reference" else "A", "assignment": track, "track": track,
        "badge": badge, "valid": valid, "division": division,
        "reasons": [] if valid else ["model.safetensors is a <pickle>: " + "long reason " * 30],
        "points": round(sum(cell["points"] for cell in cells), 2), "max_points": 100.0, "cells": cells,
        "metrics": metrics if valid else {}, "scores": scores, "dataset": dataset, "split": "private",
        "sandbox": "bubblewrap", "machine": MACHINE, "date": when.isoformat(),
        "hashes": {"submission": "ab" * 32, "grader": "cd" * 32, "data": "ef" * 32},
        "rules": rules_hash(rules.fingerprint(rules.track(track))),
        "audit": {"outcome": "passed", "date": when.isoformat()} if badge == "audited" else None,
        "samples": {}, "report": None,
    }  # fmt: skip
    return {**made, **more}


def metrics(track, draw):
    """Figures of a plausible size."""
    size, rate = 10 ** draw.uniform(4.8, 6.9), 10 ** draw.uniform(2.2, 4.1)
    common = {
        "size_bytes": round(size), "memory_bytes": 2e8 * draw.uniform(0.8, 2), "parameters": round(size / 2),
        "training_seconds": draw.uniform(60, 5000), "quality": draw.uniform(0.6, 1), "gate_passed": True,
        "speed_interval": [rate * 0.95, rate * 1.04], "ratio_to_reference": draw.uniform(0.2, 1.4),
    }  # fmt: skip
    if track in ("vision", "compression"):
        accuracy = min(0.985, 0.62 + 0.05 * (draw.random() + size**0.11))
        return {**common, "accuracy": accuracy, "accuracy_interval": [accuracy - 0.009, accuracy + 0.009],
                "images_per_second": rate, "accuracy_lost": 0.9 - accuracy}  # fmt: skip
    bits = draw.uniform(0.28, 0.8)
    return {
        **common, "tokens_per_second": rate, "bits_per_byte": bits,
        "bits_per_byte_interval": [bits * 0.97, bits * 1.03], "retention": draw.uniform(0.95, 1.01),
        "perplexity": 2**bits, "next_token_accuracy": draw.uniform(0.6, 0.9), "rubric": draw.uniform(0.4, 0.9),  # noqa: E501
        "coherence": 0.5, "relevance": 0.6, "fluency": 0.9, "latency_p50": 1 / rate, "latency_p90": 1.2 / rate,  # noqa: E501
        "first_token": 0.003,
    }  # fmt: skip


def board(count=500, *, group="A", seed=1, reports=False):
    """A results document of so many entries over all tracks, data sets, divisions and badges."""
    draw = random.Random(seed)
    kinds = [(t, d, v) for t, rule in rules.TRACKS.items() for d in rule.datasets for v in rule.divisions]
    entries = []
    for number in range(count):
        track, dataset, division = kinds[number % len(kinds)]
        name = HOSTILE[number] if number < len(HOSTILE) else f"Pseudonym {number} of {group}"
        badge = ("graded", "audited", "graded", "graded", "self-reported")[draw.randrange(5)]
        found = metrics(track, draw)
        rates = [v * draw.uniform(0.95, 1.05) for v in found["speed_interval"] * 6]
        entries.append(
            entry(
                name, track, dataset, found, badge=badge, division=division, day=draw.randrange(80),
                valid=number % 11 != 10, **{"class": group}, samples={"tokens_per_second": rates},
                report=REPORT if reports or number == 0 else None,
            )
        )  # fmt: skip
    for track, dataset, division in kinds:
        entries.append(
            entry(f"Course entry ({track})", track, dataset, metrics(track, draw), badge="reference",
                  division=division, report=REPORT)
        )  # fmt: skip
    made = document(group, entries)
    return made


if __name__ == "__main__":
    from autograder import leaderboard
    from autograder.leaderboard import results_file

    place = Path(sys.argv[1])
    written, _ = results_file.write(
        board(int(sys.argv[2]) if len(sys.argv) > 2 else 500), place / "results.json"
    )
    print(leaderboard.render(written, place / "leaderboard.html"))
