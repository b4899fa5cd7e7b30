"""The ranking tables: every figure of every entry, in ranked order; and the scores of all tracks together.

A cell carries the number behind its text (`data-v`) where the text alone would sort wrongly. On a narrow
screen each row becomes a card; the headings for that come from `labels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from autograder.leaderboard import history, plots, wording
from autograder.leaderboard.merge import machine
from autograder.leaderboard.ranking import Section, datasets, parts, sections, sums
from autograder.leaderboard.wording import Figure, name_html, slug
from autograder.scoring import rules

REASON_LENGTH = 200  # of an invalid entry; its page has all


def show(exported: Mapping[str, Any], track: str) -> str:
    """HTML of everything there is about a track; a sentence where there is nothing yet."""
    rule = rules.track(track)
    head = (
        f'<section class="track" id="{slug(track)}" data-track="{slug(track)}" '
        f'aria-labelledby="{slug(track)}-title"><h2 id="{slug(track)}-title">{escape(rule.title)}</h2>'
        f"<p>{escape(rule.task)}. Gate: {escape(rule.gate)}. Record to beat: {escape(rule.record)}. "
        f"Ranked by {escape(rule.ranking)}; a click on a heading orders by that figure.</p>"
    )
    boards = sections(exported, track)
    if not boards:
        return head + "<p>No entry yet.</p></section>"
    classes = _classes(exported)
    parts = [_dataset(name, found, classes) for name, found in datasets(boards).items()]
    return f"{head}{''.join(parts)}</section>"


def overall(exported: Mapping[str, Any]) -> str:
    """HTML of the scores of each graded name and their sum, best first; a sentence where there is none.

    A track on which a name has several entries counts its best one.
    """
    ranked = sums(exported)
    if not ranked:
        return "<p>No graded entry yet.</p>"
    classes = _classes(exported)
    heads = ["Rank", "Name", *(["Class"] if classes else []), "Sum"]
    heads += [rule.title for rule in rules.TRACKS.values()]
    rows, rank, before = [], 0, -1.0
    for seen, (group, name, own) in enumerate(ranked, 1):
        total = round(sum(own.values()), 4)
        rank = rank if total == before else seen
        before = total
        scores = [f"<td>{own[track]:.1f}" if track in own else "<td>-" for track in rules.TRACKS]
        where = f"<td>{name_html(group or '')}" if classes else ""
        tie = f" data-c={classes.index(group)}" if group in classes else ""
        rows.append(
            f'<tr{tie}><td>{rank}<th scope="row">{name_html(name)}{where}<td>{total:.1f}{"".join(scores)}'
        )
    caption = (
        f"All tracks: sum of {len(rules.TRACKS)} scores, each out of 100; a track without an entry counts 0"
    )
    return _wrap("overall", caption, [(head, "") for head in heads], rows)


def table(board: Section, classes: Sequence[str] = ()) -> str:
    """The ranking of one board as an HTML table."""
    rows = [_row(entry, rank, classes) for entry, rank in zip(board.entries, board.ranks, strict=True)]
    first = wording.figures(board.track)[0].head.lower()
    caption = f"{rules.track(board.track).title}, {wording.dataset(board.dataset)}"
    if len(rules.track(board.track).divisions) > 1:
        caption += f", {board.division} division"
    caption += f": score out of 100, {first} with its 95% interval"
    if len({machine(e) for e in board.entries if e["badge"] != "reference"}) > 1:
        caption += ". Measured on different machines: speeds do not compare"
    heads = [(head, "more" if more else "") for head, more in _heads(board.track, classes)]
    return _wrap(board.id, caption, heads, rows)


def labels(exported: Mapping[str, Any]) -> str:
    """Style rules that name the fields of each table's cards on a narrow screen."""
    classes = _classes(exported)
    named = {"overall": ["Rank", "Name", *(["Class"] if classes else []), "Sum",
                         *(rule.title for rule in rules.TRACKS.values())]}  # fmt: skip
    for track in rules.TRACKS:
        for board in sections(exported, track):
            named[board.id] = [head for head, _ in _heads(track, classes)]
    columns: dict[tuple[int, str], list[str]] = {}
    for name, heads in named.items():
        for number, head in enumerate(heads, 1):
            columns.setdefault((number, head), []).append(name)
    named_cells = "".join(
        ",".join(f"#t-{name} td:nth-child({number})::before" for name in names) + f'{{content:"{head}"}}'
        for (number, head), names in columns.items()
        if head != "Name"
    )
    # the width at which board.css makes cards
    return f"@media screen and (max-width: 44rem) {{ {named_cells} }}"


def _dataset(name: str, boards: Sequence[Section], classes: Sequence[str]) -> str:
    track = boards[0].track
    about = f"<p>{escape(wording.ABOUT[name])}</p>" if name in wording.ABOUT else ""
    parts = [
        f'<section class="board" data-dataset="{escape(name)}" data-division="{board.division}">'
        f"{_division(board, boards)}{table(board, classes)}</section>"
        for board in boards
    ]
    pictures = plots.plot(boards) + history.plot(boards)
    return (
        f'<section class="dataset" id="{slug(track, name)}" data-dataset="{escape(name)}">'
        f'<h3>{escape(wording.dataset(name))}</h3>{about}<div class="pictures">{pictures}</div>'
        f"{''.join(parts)}</section>"
    )


def _division(board: Section, boards: Sequence[Section]) -> str:
    if len(rules.track(board.track).divisions) < 2 and len(boards) < 2:
        return ""
    return f"<h4>{board.division.capitalize()} division</h4>"


def _classes(exported: Mapping[str, Any]) -> list[str]:
    """The classes of a merged file; [] where there is but one."""
    found = [str(group["name"]) for group in exported.get("classes", ())]
    return found if len(found) > 1 else []


def _heads(track: str, classes: Sequence[str]) -> list[tuple[str, bool]]:
    group = [("Class", False)] if classes else []
    return [
        ("Rank", False), ("Name", False), *group, ("Score", False),
        *((head, False) for head in wording.parts(track)),
        *((figure.head, figure.more) for figure in wording.figures(track)),
        ("Badge", False), ("Date", False),
    ]  # fmt: skip


def _wrap(name: str, caption: str, heads: Sequence[tuple[str, str]], rows: Sequence[str]) -> str:
    head = "".join(
        f'<th scope="col"{f" class={kind}" if kind else ""}>{escape(text)}</th>' for text, kind in heads
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption.split(":")[0])}">'
        f'<table class="ranking" id="t-{name}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(entry: dict[str, Any], rank: int | None, classes: Sequence[str]) -> str:
    badge = entry["badge"]
    shown = f'<span class="badge {badge}">{badge}</span>'
    if entry["sandbox"] not in ("bubblewrap", "none"):
        shown += f' <span class="level">sandbox: {escape(entry["sandbox"])}</span>'
    name = name_html(entry["name"])
    if entry.get("_href"):
        name = f'<a href="{escape(entry["_href"])}">{name}</a>'
    if not entry["valid"]:
        reason = wording.plain("; ".join(entry["reasons"]))[:REASON_LENGTH]
        name += f' <span class="reason">INVALID: {escape(reason)}</span>'
    place = str(rank) if rank is not None else '<span class="out">-</span>'
    group = entry.get("class")
    where = f"<td>{name_html(group or 'course')}" if classes else ""
    ties = "" if entry.get("_n") is None else f" data-e={entry['_n']}"
    ties += f" data-c={classes.index(group)}" if group in classes else ""
    ties += "" if entry["valid"] else " class=invalid"
    cells = "".join(_cell(entry, figure) for figure in wording.figures(entry["track"]))
    return (
        f'<tr{ties}><td>{place}<th scope="row">{name}{where}{_score(entry)}{cells}'
        f"<td>{shown}<td>{escape(entry['date'][:10])}"
    )


def _score(entry: dict[str, Any]) -> str:
    """The score and its five parts; while innovation is not marked, of how much it is."""
    most, own = rules.track(entry["track"]).points, parts(entry)
    marked = sum(points for name, points in most.items() if own[name] is not None)
    waits = [name for name in most if own[name] is None]
    open_ = f' <span class="interval open">of {marked}, {", ".join(waits)} open</span>' if waits else ""
    shown = "".join("<td>-" if own[name] is None else f"<td>{own[name]:.1f}" for name in most)
    return f"<td data-v={entry['points']:.6g}>{entry['points']:.1f}{open_}{shown}"


def _cell(entry: dict[str, Any], figure: Figure) -> str:
    """A figure, and under it its interval where it has one."""
    kind = " class=more" if figure.more else ""
    value = entry["metrics"].get(figure.metric)
    if value is None or not entry["valid"]:
        return f"<td{kind}>-"
    shown = escape(figure.text(value))
    bounds = entry["metrics"].get(figure.interval) if figure.interval else None
    if bounds:
        low, high = (figure.text(bound).split(" ")[0].rstrip("%") for bound in bounds)
        shown += f' <span class="interval">{low} to {high}</span>'
    return f"<td{kind} data-v={value:.6g}>{shown}"
