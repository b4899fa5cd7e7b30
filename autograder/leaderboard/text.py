"""The board of a track in a terminal: ranked as on the page, and nothing in it that a terminal would obey."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autograder.leaderboard import wording
from autograder.leaderboard.ranking import Section, parts, sections
from autograder.scoring import rules, scores, staging

NAME = 28  # characters of a name
_UNITS = {
    "accuracy": "share",
    "accuracy_lost": "points lost",
    "retention": "kept",
    "bits_per_byte": "bits/byte",
    "images_per_second": "images/s",
    "tokens_per_second": "tokens/s",
    "size_bytes": "bytes",
}


def plain(text: object, most: int = 200) -> str:
    """Text of others as one line that a terminal only prints: no control and no direction characters."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def rows(exported: Mapping[str, Any], track: str) -> list[dict[str, Any]]:
    """A track's entries in the order of the page: rank (None out of competition), name, badge, points, ..."""
    return [row for board in sections(exported, track) for row in _rows(board)]


def lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as text, a head above each data set and division."""
    text, before = [], ""
    for row in found:
        head = f"{wording.dataset(row['dataset'])}, {row['division']} division"
        if head != before:
            text.append(f"  {plain(head)}")
            before = head
            columns = " ".join(rules.DIMENSIONS)
            text.append(f"  {'rank':>4}  {'name':<{NAME}} {'score':>6}  {columns}")
        rank = "-" if row["rank"] is None else row["rank"]
        shown = {name: "open" if own is None else f"{own:.1f}" for name, own in row["parts"].items()}
        own = " ".join(f"{shown[name]:>{len(name)}}" for name in rules.DIMENSIONS)
        name = f"{plain(row['name'], NAME):<{NAME}}"
        text.append(f"  {rank:>4}  {name} {row['points']:6.2f}  {own}  {row['badge']:<13} {row['figures']}")
    return text


def course_rows(track: str) -> list[dict[str, Any]]:
    """The course's own entry of a track, as its author measured it; none where the course brings none."""
    path = staging.entry_folder(track) / "result.json"
    if not path.is_file():
        return []
    result = json.loads(path.read_text(encoding="utf-8"))
    entry = {"rank": None, "name": f"Course entry ({track})", "badge": "reference", "valid": True}
    told = {key: result[key] for key in ("dataset", "metrics")} | {"division": result.get("division", "open")}
    own = {name: result["points"].get(name) for name in rules.DIMENSIONS}
    return [_shown({**entry, **told, "points": sum(result["points"].values()), "parts": own})]


def record(track: str) -> str:
    """What there is to beat, by the rules."""
    rule = rules.track(track)
    return f"to beat: {rule.record}; gate: {rule.gate}"


def _rows(board: Section) -> list[dict[str, Any]]:
    return [
        _shown({"rank": rank, **{k: entry.get(k) for k in ("name", "badge", "points", "valid", "metrics")},
                "parts": parts(entry), "dataset": board.dataset, "division": board.division})
        for entry, rank in zip(board.entries, board.ranks, strict=True)
    ]  # fmt: skip


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its figures in words."""
    metrics = row.pop("metrics")
    figures = [scores.show(unit, metrics[k]) for k, unit in _UNITS.items() if metrics.get(k) is not None]
    return {
        **row,
        "points": float(row["points"]),
        "figures": ", ".join(figures) if row["valid"] else "INVALID",
    }
