"""`%tito complete` in JupyterLab: save, test the notebook's file in a fresh kernel, export, and show a table.

What is tested and exported is the file. So JupyterLab is asked to save first; where it did not, and a cell
that ran here is not in the file as it ran, nothing is tested and the box says what to do.
"""

from __future__ import annotations

import json
import os
import queue
import shlex
import subprocess
import sys
import threading
import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tito import boxes, progress, session
from tito.errors import TitoError
from tito.notebook import checkpoints

if TYPE_CHECKING:
    from tito.student.workspace import Workspace

SAVE_SECONDS = 4.0
AGAIN = ("docmanager:save", "notebook:run-cell")


def run(words: list[str]) -> None:
    """Complete the lesson that `words` names, or that this notebook is; one display is updated throughout."""
    shown = _Display()
    shown.show("info", "looking for the workspace")
    from tito.student import places

    ws = places.find()
    name = _lesson(ws, words)
    shown.show("info", f"{name}: saving", also=boxes.saver())
    file = ws.notebook(name)
    here = checkpoints.notebook_file()
    mine = here is not None and here.resolve() == file.resolve()
    saved = mine and _saved(file)
    unsaved = [] if saved or not mine else differing(file)
    if unsaved:
        shown.show(
            "fail",
            "this notebook is not saved, nothing was tested",
            [
                f"The file has another text than what you ran in: {', '.join(unsaved)}.",
                "What is tested and exported is the file: save with Ctrl-S, then run this again.",
            ],
            also=boxes.button("Save and check again", AGAIN, "again"),
        )
        return
    shown.show("info", f"{name}: a fresh kernel starts")
    report = _report(name, shown)
    html, text = table(ws, report, time.strftime("%H:%M:%S", time.localtime(file.stat().st_mtime)))
    shown.update(html, text)


def _lesson(ws: Workspace, words: list[str]) -> str:
    if len(words) > 1:
        raise TitoError("expected at most one lesson number: %tito complete, or %tito complete 05")
    wanted = words[0] if words else session.lessons[-1] if session.lessons else ""
    if not wanted:
        raise TitoError("%tito complete: run the first cell of the lesson, or name one: %tito complete 05")
    if wanted in ws.tracks():
        raise TitoError(f"{wanted} is a track: it is handed in, %tito olympics submit --track {wanted}")
    return ws.module(wanted)


def _saved(file: Path) -> bool:
    """Whether the front-end writes the file, to its end, within a few seconds of being asked."""
    before, end = file.stat().st_mtime_ns, time.monotonic() + SAVE_SECONDS
    while time.monotonic() < end:
        time.sleep(0.05)
        if file.exists() and file.stat().st_mtime_ns != before and checkpoints.read_cells(file):
            return True  # until then it is half written, and cannot be read
    return False


def differing(file: Path) -> list[str]:
    """Cells that ran in this kernel and stand otherwise in the file, by name."""
    cells = {cell.id: cell for cell in checkpoints.read_cells(file)}
    found = [
        cells[cell_id].name if cell_id in cells else "a cell that you added"
        for cell_id, source in session.latest.items()
        if cell_id not in cells or cells[cell_id].source.rstrip() != source.rstrip()
    ]
    return list(dict.fromkeys(found)) if cells else ["the whole notebook"]


class _Display:
    """One output under the cell, updated in place."""

    def __init__(self) -> None:
        from IPython.display import display

        start = boxes.bundle(boxes.box("info", "..."), "...")
        self._handle: Any = display(start, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def update(self, html: str, text: str) -> None:
        if self._handle is not None:
            self._handle.update(boxes.bundle(html, text), raw=True)

    def show(self, state: str, head: str, lines: list[str] | None = None, also: str = "") -> None:
        """A box of text, with HTML after it."""
        parts = [escape(line) for line in lines or []]
        html = boxes.box(state, head, [*parts, *([also] if also else [])])
        self.update(html, "\n".join([boxes.words(state, head), *(f"  {line}" for line in lines or [])]))


def _report(name: str, shown: _Display) -> dict[str, Any]:
    """Run `tito module complete` beside this kernel, its progress in the box; returns its report."""
    command = [sys.executable, "-m", "tito", "module", "complete", name, "--json"]
    env = session.environment() | {"TITO_PROGRESS": "lines"}
    env.pop("TITO_TINYTORCH", None)
    words = shlex.join(["tito", *command[3:-1]])
    with subprocess.Popen(
        command, env=env, encoding="utf-8", errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            lines = _follow(process, name, shown)
            out = process.stdout.read() if process.stdout else ""
            process.wait()
        except KeyboardInterrupt:
            session.stop(process)
            shown.show("open", f"{name}: interrupted, nothing was exported")
            raise TitoError(f"{words} was interrupted, nothing was exported.") from None
    try:
        return dict(json.loads(out))
    except ValueError:
        what = (lines or [f"{words} stopped with code {process.returncode}"])[-1].removeprefix("tito: ")
        shown.show("fail", f"{name}: not completed", [what])
        raise TitoError(what) from None


def _follow(process: subprocess.Popen[str], name: str, shown: _Display) -> list[str]:
    """Show each step that the command reports on stderr, a few a second; returns its other lines."""
    lines: list[str] = []
    steps: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stderr or ():
            steps.put(line.rstrip("\n"))
        steps.put(None)

    threading.Thread(target=read, daemon=True).start()
    drawn = 0.0
    while (line := steps.get()) is not None:
        if not line.startswith(progress.MARK):
            lines.append(line)
        elif time.monotonic() - drawn > 0.25:
            drawn = time.monotonic()
            _draw_step(json.loads(line.removeprefix(progress.MARK)), name, shown)
    return [line for line in lines if line.strip()]


def _draw_step(step: dict[str, Any], name: str, shown: _Display) -> None:
    done, total = int(step["done"]), int(step["total"])
    head = f"{name}: testing in a fresh kernel, {step['unit']} {done} of {total}"
    bar = f'<progress style="width:20em" max="{total}" value="{done}" aria-label="{escape(head)}"></progress>'
    shown.show("info", head, also=bar)


# ---- the table


def table(ws: Workspace, report: dict[str, Any], saved: str) -> tuple[str, str]:
    """The report as an HTML box and as text: checks, points, reasons, what was written, what is next."""
    name, checks, notes = report["module"], report["checks"], list(report["notes"])
    passed = [check for check in checks if check["passed"]]
    earned, most = (sum(float(check["points"]) for check in some) for some in (passed, checks))
    state = "pass" if report["exported"] else "fail"
    head = f"{name}: {len(passed)} of {len(checks)} checks, {earned:g} of {most:g} points"
    after = _after(ws, report, saved)
    rows = "".join(_row(check) for check in checks)
    parts = [
        '<table class="tito-checks" style="margin:4px 0"><thead><tr>'
        + "".join(f'<th scope="col" style="text-align:left">{title}</th>' for title in _TITLES)
        + f"</tr></thead><tbody>{rows}</tbody></table>",
        *(f"note: {boxes.code(note)}" for note in notes),
        *(html for html, _ in after),
        boxes.button("Save and check again", AGAIN, "again")
        + boxes.button("Show the start page", _START, "start", path="Start.md"),
    ]
    width = max((len(check["name"]) for check in checks), default=0)
    text = [boxes.words(state, head)]
    for check in checks:
        mark = "pass" if check["passed"] else "FAIL"
        text.append(f"  {mark}  {check['name']:<{width}}  {check['points']:g}  {check['reason']}".rstrip())
    text += [f"  note  {note}" for note in notes] + [f"  {line}" for _, line in after]
    return boxes.box(state, head, parts), "\n".join(text)


_TITLES = ("Check", "Result", "Points", "Reason")
_START = ("docmanager:open", "docmanager:reload")


def _row(check: dict[str, Any]) -> str:
    symbol, word, color = boxes.STATES["pass" if check["passed"] else "fail"]
    points = float(check["points"])
    cells = (
        boxes.cell_link(check["name"], check["name"]),
        f'<b style="color:{color}" aria-hidden="true">{symbol}</b>&nbsp;{word.replace(" ", "&nbsp;")}',
        f"{points if check['passed'] else 0:g} of {points:g}",
        boxes.code(check["reason"]),
    )
    return "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>"


def _after(ws: Workspace, report: dict[str, Any], saved: str) -> list[tuple[str, str]]:
    """What was written and what is next: pairs of HTML and text."""
    if not report["exported"]:
        todo = "Nothing exported: mend what is marked, then check again."
        if any("`tito module complete" in note for note in report["notes"]):
            todo = "Nothing exported: build the module that is missing, then check again."
        return [(todo, todo)]
    path = os.path.relpath(report["exported"], ws.root)
    line = f"Written: {path}, from the notebook as saved at {saved}. Grading has further checks, not shown."
    names = ws.modules()
    later = names[names.index(report["module"]) + 1 :]
    if not later:
        there = "the tracks, on the start page" if ws.tracks() else "fetch the assignment that comes after it"
        return [(escape(line), line), (f"Next: {there}.",) * 2]
    link = f'<a href="../{later[0]}/{later[0]}.ipynb">{escape(later[0])}</a>'
    return [(escape(line), line), (f"<b>Next: {link}</b>", f"Next: {later[0]}/{later[0]}.ipynb")]
