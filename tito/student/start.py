"""Start.md, the page that `tito lab` opens: every notebook in order, how far it is, and what comes next.

Ours is what stands between two marks in the file; what a student writes around them stays. Where somebody has
changed our part, the file is kept in .tito/backups before it is written anew.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from autograder.files import write_text
from tito.errors import TitoError
from tito.student import backups, workspace
from tito.student.workspace import Workspace

PAGE = "Start.md"
PLACES = 3  # of a track on the page
_END = "<!-- tito: end of the generated part; what you write below stays -->"
_BEGIN = re.compile(r"<!-- tito: generated, do not edit up to the end mark; (\w+) -->\n")
_NEEDS = re.compile(r"\*\*You need:\*\* modules (.*?) completed", re.DOTALL)
SYMBOLS = {
    "completed": "✓",
    "begun": "◐",
    "not begun": "○",
    "changed": "△",
    "reset": "△",
    "trained": "◐",
    "handed in": "✓",
    "damaged": "✗",
}


TIERS = ((7, "Foundation, 01-07"), (13, "Architecture, 08-13"), (99, "Optimization, 14-19"))  # up to a lesson


@dataclass(frozen=True)
class Row:
    """One line of the page."""

    name: str
    title: str
    state: str
    checks: str

    @property
    def link(self) -> str:
        return f"[{_plain(self.title)}]({self.name}/{self.name}.ipynb)"

    @property
    def symbol(self) -> str:
        return next((mark for word, mark in SYMBOLS.items() if self.state.startswith(word)), "○")

    @property
    def done(self) -> bool:
        return self.state.startswith("completed")


def tiers(names: Iterable[str]) -> dict[str, list[str]]:
    """Lessons, by names such as 05_autograd, under the heading of their tier; none without a lesson."""
    found: dict[str, list[str]] = {}
    for name in names:
        number = int(name[:2])
        for last, tier in TIERS:
            if number <= last:
                found.setdefault(tier, []).append(name)
                break
    return found


def refresh(ws: Workspace) -> Path:
    """Write the page as things stand; returns it. What a student has written into the file stays."""
    path = ws.root / PAGE
    old = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    ours = text(ws)
    digest = hashlib.sha256(ours.encode()).hexdigest()[:16]
    before, after, changed = _split(old)
    if changed:
        ws.backup(path)
    new = f"{before}<!-- tito: generated, do not edit up to the end mark; {digest} -->\n{ours}{_END}\n{after}"
    if new != old:
        write_text(path, new)
    return path


def _split(old: str) -> tuple[str, str, bool]:
    """What stands before and after our part, and whether our part is not as we wrote it."""
    begin = _BEGIN.search(old)
    end = old.find(_END, begin.end()) if begin else -1
    if begin is None or end < 0:
        return "", f"\n{old}" if old.strip() else "", begin is not None
    changed = hashlib.sha256(old[begin.end() : end].encode()).hexdigest()[:16] != begin[1]
    return old[: begin.start()], old[end + len(_END) :].removeprefix("\n"), changed


def text(ws: Workspace) -> str:
    """The generated part, in markdown."""
    lessons, tracks = rows(ws), track_rows(ws)
    done = sum(row.done for row in lessons)
    lines = ["# Torch Olympics: start here", ""]
    lines += [f"**{done} of {len(lessons)} lessons completed.** {_next(lessons, tracks)}", ""]
    by_name = {row.name: row for row in lessons}
    for tier, names in tiers(by_name).items():
        lines += [f"## {tier}", "", "| Lesson | State | Checks passed |", "|:--|:--|:--|"]
        inside = [by_name[name] for name in names]
        lines += [f"| {row.link} | {row.symbol} {row.state} | {row.checks} |" for row in inside]
        lines.append("")
    if tracks:
        lines += ["", "## The tracks", "", "| Track | State | Needs lessons |", "|:--|:--|:--|"]
        lines += [f"| {row.link} | {row.symbol} {row.state} | {row.checks} |" for row in tracks]
    lines += _class_results(ws)
    lines += [
        "",
        "In a lesson, run the cells from the top and fill in those that say `NotImplementedError`; under "
        "each check stands whether it passed. The last cell, `%tito complete`, saves, tests the notebook in "
        "a fresh kernel and writes your `tinytorch`. Copies of your notebooks are kept: "
        "`%tito module restore 05` puts one back.",
        "",
        "This part of the page is written by `tito init`, `tito lab` and `tito module complete`. "
        "Write notes of your own below it, they stay.",
        "",
    ]
    return "\n".join(lines) + "\n"


def _class_results(ws: Workspace) -> list[str]:
    """The first places of each track, where the class's results are known, and a link to them."""
    kept = ws.setting("results")
    if not (kept or (ws.private / "results.json").is_file()):
        return []  # and nothing of results is loaded
    from tito.student import published

    seen = published.seen(ws)
    if not (kept or seen):
        return []
    place = kept or (seen[0] if seen else "")
    link = f"<{place}>" if "://" in place else _code(place)
    lines = ["", "## Your class's results", "", f"They are at {link}; `tito olympics leaderboard` shows all."]
    if seen is None or seen[0] != place:
        return lines
    from autograder.leaderboard import text as board
    from autograder.scoring import rules

    lines += ["", "| Track | Place | Name | Points | Figures |", "|:--|:--|:--|:--|:--|"]
    for name in rules.TRACKS:
        for row in [row for row in board.rows(seen[1], name) if row["rank"]][:PLACES]:
            who = _plain(board.plain(row["name"], board.NAME))
            lines.append(f"| {name} | {row['rank']} | {who} | {row['points']:.2f} | {row['figures']} |")
    return lines


def _code(path: str) -> str:
    return "`" + path.replace("`", "'") + "`"


def _next(lessons: list[Row], tracks: list[Row]) -> str:
    """The next thing to do, in a sentence."""
    row = next((row for row in lessons if not row.done), None)
    if row is not None:
        todo = {
            "not begun": "begin",
            "begun": "go on with",
            "changed": "complete again, for it has changed:",
            "reset": "solve again",
            "damaged": "mend",
        }
        verb = next((verb for word, verb in todo.items() if row.state.startswith(word)), "go on with")
        return f"Next: {verb} {row.link}."
    row = next((row for row in tracks if not row.state.startswith("handed in")), None)
    return f"Next: the track {row.link}." if row is not None else "Everything is done."


def rows(ws: Workspace) -> list[Row]:
    """The lessons, in order."""
    found = []
    for name in ws.modules():
        now = state(ws, name)
        checks = f"{now['passed'] or 0} of {now['checks'] or _graded(ws, name)}"
        found.append(Row(name, title(ws, name), now["state"], checks))
    return found


def state(ws: Workspace, name: str) -> dict[str, Any]:
    """One row of `status`: module, state, passed, checks, completed."""
    entry = ws.progress().get(name, {})
    try:
        cells = workspace.cells_digest(workspace.read_notebook(ws.notebook(name)))
    except workspace.Damaged:
        text = f"damaged: {backups.rescue(ws, name)}"
        return {"module": name, "state": text, "passed": None, "checks": None, "completed": None}
    built = (ws.package / f"{name.partition('_')[2]}.py").is_file()
    if entry.get("completed") and built:
        if entry["cells"] == cells:
            text = f"completed {entry['completed'][:10]}"
        else:
            text = f"{'reset' if untouched(ws, name, cells) else 'changed'} since completed"
    elif untouched(ws, name, cells):
        text = "not begun"
    else:
        text = "begun"
    return {
        "module": name,
        "state": text,
        "passed": entry.get("passed"),
        "checks": entry.get("checks"),
        "completed": entry.get("completed") if built else None,
    }


def untouched(ws: Workspace, name: str, cells: str) -> bool:
    """Whether a notebook's cells are those of the released one."""
    released = ws.released(name)
    return released.is_file() and workspace.cells_digest(workspace.read_notebook(released)) == cells


def track_rows(ws: Workspace) -> list[Row]:
    """The tracks, with the lessons that each needs in the last column."""
    done = {row.name[:2] for row in rows(ws) if row.done}
    found = []
    for name in ws.tracks():
        try:
            needs = _needs(backups.read(ws, name))
        except TitoError:
            found.append(Row(name, name, "damaged", ""))
            continue
        text = ", ".join(_ranges(needs))
        if needs:
            missing = [number for number in needs if number not in done]
            text += ": all completed" if not missing else f"; to do: {', '.join(_ranges(missing))}"
        found.append(Row(name, title(ws, name), track_state(ws, name), text))
    return found


def track_state(ws: Workspace, name: str) -> str:
    """How far a track is: not begun, begun, trained (there is a model), handed in."""
    told: dict[str, Any] = ws.progress().get(name, {})
    if told.get("submitted"):
        return f"handed in {told['submitted'][:10]}"
    model = ws.root / name / "model.safetensors"
    if model.is_file():
        day = datetime.fromtimestamp(model.stat().st_mtime).strftime("%Y-%m-%d")
        return f"trained {day}, {model.stat().st_size / 1e6:.2f} MB"
    released = ws.released(name)
    same = released.is_file() and workspace.cells_digest(backups.read(ws, name)) == workspace.cells_digest(
        workspace.read_notebook(released)
    )
    return "not begun" if same else "begun"


def title(ws: Workspace, name: str) -> str:
    """A notebook's own first heading, or its name."""
    try:
        cells = backups.read(ws, name).cells
    except TitoError:
        return name
    for cell in cells:
        if cell.cell_type == "markdown" and (found := re.match(r"# +(\S.*)", cell.source)):
            return found[1].strip()
    return name


def _graded(ws: Workspace, name: str) -> int:
    """How many cells of a lesson are graded by a test."""
    try:
        cells = backups.read(ws, name).cells
    except TitoError:
        return 0
    return sum(c.cell_type == "code" and bool(c.metadata.get("nbgrader", {}).get("grade")) for c in cells)


def _needs(nb: Any) -> list[str]:
    """The numbers of the lessons that a track says it needs: `01 to 03 and 05` is 01, 02, 03, 05."""
    source = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    match = _NEEDS.search(source)
    numbers: list[str] = []
    for first, _, last in re.findall(r"(\d\d)( to (\d\d))?", match[1]) if match else []:
        numbers += [f"{number:02d}" for number in range(int(first), int(last or first) + 1)]
    return numbers


def _ranges(numbers: list[str]) -> list[str]:
    """01, 02, 03, 05 as 01 to 03, 05."""
    found: list[list[str]] = []
    for number in numbers:
        if found and int(number) == int(found[-1][-1]) + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return [" to ".join(dict.fromkeys((run[0], run[-1]))) for run in found]


def _plain(title: str) -> str:
    """A heading as a link's text: no mark-up that would end it."""
    return re.sub(r"[\[\]|<>*_`]", "", title)
