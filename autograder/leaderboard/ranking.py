"""Who stands where: the boards of a track, their order and ranks, and the scores of all tracks together."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder.leaderboard.results_file import load
from autograder.leaderboard.wording import slug
from autograder.scoring import rules

MEASURED = ("graded", "audited")  # the badges of entries that compete
# A track's own figure, and whether less is better: it ends ties of the score, and its history is drawn by it.
OWN_FIGURE = {
    "language": ("bits_per_byte", True),
    "speed": ("tokens_per_second", False),
    "compression": ("size_bytes", True),
}


@dataclass(frozen=True)
class Section:
    """The entries of a track on one data set in one division, best first; `ranks` has None for those out of
    competition."""

    track: str
    dataset: str
    entries: list[dict[str, Any]]
    ranks: list[int | None]
    division: str = "open"

    @property
    def id(self) -> str:
        """A name for HTML."""
        return slug(self.track, self.dataset, self.division)


def results(path: str | Path | None = None) -> dict[str, Any]:
    """The exported results: from `path`, the file that TITO_RESULTS names, or results.json here.

    Each entry gets `_n`, its number on the page, and, where TITO_PAGES names the folder of the entries'
    pages, `_href`, the address of its own.
    """
    found = load(Path(path or os.environ.get("TITO_RESULTS") or "results.json"))
    return numbered(found, os.environ.get("TITO_PAGES", ""))


def numbered(exported: dict[str, Any], folder: str = "") -> dict[str, Any]:
    """The same results, each entry with its number and the address of its page in `folder`."""
    entries, taken = [], set()
    for number, entry in enumerate(exported["entries"]):
        who = repr([entry.get("class"), entry["name"], entry["track"], entry["dataset"]])
        name = slug(entry["track"], hashlib.sha256(who.encode()).hexdigest()[:12])
        while name in taken:  # two entries of one name: rare, and still two pages
            name += "-2"
        taken.add(name)
        more = {"_n": number, "_page": f"{name}.html"}
        entries.append({**entry, **more, **({"_href": f"{folder}/{name}.html"} if folder else {})})
    return {**exported, "entries": entries}


def tracks(exported: Mapping[str, Any]) -> list[str]:
    """The tracks of the board: all that have rules here."""
    return list(rules.TRACKS)


def sections(exported: Mapping[str, Any], track: str) -> list[Section]:
    """The boards of a track, one for each data set and division, CIFAR-10 and the closed division first.

    Graded and audited, valid entries are ranked by their score, the sum of the five dimensions; equal scores
    by the track's own figure (OWN_FIGURE) among those that pass the gate, then by accuracy. Equals share a
    rank. Self-reported and reference entries stand among them without a rank, invalid ones at the end.
    """
    entries = [entry for entry in exported["entries"] if entry["track"] == track]
    kinds = {(str(e["dataset"]), e.get("division", "open")) for e in entries}
    return [
        _section(track, name, division, entries)
        for name, division in sorted(kinds, key=lambda kind: (kind[0] != "cifar10", *kind))
    ]


def datasets(boards: Sequence[Section]) -> dict[str, list[Section]]:
    """The boards of each data set, in order."""
    found: dict[str, list[Section]] = {}
    for board in boards:
        found.setdefault(board.dataset, []).append(board)
    return found


def sums(exported: Mapping[str, Any]) -> list[tuple[str | None, str, dict[str, float]]]:
    """(class, name, score of each track) of all who compete, best sum first.

    A track on which a name has several entries counts its best one.
    """
    names: dict[tuple[str | None, str], dict[str, float]] = {}
    for entry in exported["entries"]:
        if entry["track"] in rules.TRACKS and competes(entry):
            own = names.setdefault((entry.get("class"), entry["name"]), {})
            own[entry["track"]] = max(entry["points"], own.get(entry["track"], 0.0))
    ordered = sorted(names.items(), key=lambda item: (-sum(item[1].values()), item[0][1], item[0][0] or ""))
    return [(group, name, own) for (group, name), own in ordered]


def competes(entry: Mapping[str, Any]) -> bool:
    """Whether an entry has a rank: valid, and measured by the trusted scorer."""
    return bool(entry["valid"]) and entry["badge"] in MEASURED


def parts(entry: Mapping[str, Any]) -> dict[str, float | None]:
    """The five dimensions of an entry's score, in points; None for one that nobody has marked yet."""
    found: dict[str, float | None] = dict.fromkeys(rules.DIMENSIONS)
    for cell in entry["cells"]:
        dimension = rules.dimension_of(cell["grade_id"])
        if dimension is not None and found[dimension] is None:
            found[dimension] = cell["points"]
    return found


def _section(track: str, dataset: str, division: str, entries: Sequence[dict[str, Any]]) -> Section:
    chosen = sorted(
        (e for e in entries if (str(e["dataset"]), e.get("division", "open")) == (dataset, division)),
        key=_order,
    )
    ranks: list[int | None] = []
    before, rank, seen = None, 0, 0
    for entry in chosen:
        if not competes(entry):
            ranks.append(None)
            continue
        seen += 1
        if _order(entry)[:-1] != before:
            before, rank = _order(entry)[:-1], seen
        ranks.append(rank)
    return Section(track, dataset, chosen, ranks, division)


def _order(entry: Mapping[str, Any]) -> tuple[bool, float, float, float, str]:
    """Invalid entries last, then by score, the track's own figure and accuracy; the name ends ties."""
    accuracy = entry["metrics"].get("accuracy") or 0.0
    return (not entry["valid"], -entry["points"], _own_figure(entry), -accuracy, entry["name"])


def _own_figure(entry: Mapping[str, Any]) -> float:
    metric, less = OWN_FIGURE.get(entry["track"], ("", True))
    figure = entry["metrics"].get(metric)
    if not metric:
        return 0.0
    if figure is None or not entry["metrics"].get("gate_passed"):
        return math.inf
    return float(figure if less else -figure)
