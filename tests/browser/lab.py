"""JupyterLab by mouse and keyboard: opening notebooks, typing into cells, running them, reading outputs.

JupyterLab draws only the cells in sight, so its own model says which cell is where (expose_app_in_browser);
everything that a student does is done by clicks and keys.
"""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

_PANEL = "const panel = window.jupyterapp.shell.currentWidget; const notebook = panel.content;"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def expose(home: Path) -> Path:
    """Let a person's JupyterLab say which cell is where: the page holds only those in sight."""
    folder = home / ".jupyter"
    folder.mkdir(exist_ok=True)
    (folder / "jupyter_server_config.json").write_text('{"LabApp": {"expose_app_in_browser": true}}')
    return folder


def started(process: subprocess.Popen[bytes], log: Path, pattern: str, seconds: float = 60) -> str:
    """Wait until a server's log shows a pattern; gives what matched. Fails where it ends, or is late."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if found := re.search(pattern, log.read_text(encoding="utf-8")):
            return found.group()
        assert process.poll() is None, f"the server ended: {log.read_text(encoding='utf-8')}"
        time.sleep(0.1)
    raise AssertionError(f"the server did not start in {seconds:g} s: {log.read_text(encoding='utf-8')}")


class Notebook:
    """The notebook in front."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def cells(self) -> list[dict[str, Any]]:
        """Every cell: source, grade_id, whether it is a solution or graded, and its outputs' data as text."""
        found: list[dict[str, Any]] = self.page.evaluate(
            f"""() => {{ {_PANEL}
            return notebook.model.sharedModel.cells.map(cell => {{
                const data = cell.toJSON(), about = (data.metadata.nbgrader || {{}});
                return {{source: cell.getSource(), type: data.cell_type, grade_id: about.grade_id || "",
                    grade: !!about.grade, solution: !!about.solution, tags: data.metadata.tags || [],
                    count: data.execution_count, outputs: data.outputs || []}};
            }}); }}"""
        )
        return found

    def find(self, grade_id: str) -> int:
        """The position of the cell with this grade_id."""
        return next(i for i, cell in enumerate(self.cells()) if cell["grade_id"] == grade_id)

    def go(self, position: int) -> None:
        """Make a cell the active one and scroll to it, in command mode."""
        self.page.evaluate(
            f"""async (position) => {{ {_PANEL}
            notebook.activeCellIndex = position; notebook.deselectAll(); notebook.mode = "command";
            await notebook.scrollToItem(position, "center"); notebook.activate(); }}""",
            position,
        )
        expect(self.page.locator(".jp-Notebook .jp-Cell.jp-mod-active").last).to_be_visible()

    def type(self, position: int, source: str) -> None:
        """Replace what is in a cell by keys, as someone who pastes does."""
        self.go(position)
        self.page.keyboard.press("Enter")
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Escape")
        now = self.cells()[position]["source"]
        assert now == source, f"cell {position} holds other text than was typed: {now[:200]}"

    def run(self, positions: Sequence[int] | int, seconds: float = 60) -> None:
        """Run cells one after the other with Shift-Enter and wait for the kernel."""
        for position in [positions] if isinstance(positions, int) else positions:
            self.go(position)
            self.page.keyboard.press("Shift+Enter")
            self.wait(seconds)

    def run_all(self, seconds: float = 300) -> None:
        """Run > Run All Cells, by the menu."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.wait(seconds)

    def wait(self, seconds: float = 60) -> None:
        """Until the kernel has nothing left to do."""
        self.page.wait_for_timeout(150)
        self.page.wait_for_function(
            f"""() => {{ {_PANEL}
            const kernel = panel.sessionContext.session?.kernel;
            return kernel && kernel.status === "idle" && !document.querySelector(".jp-mod-running-cell") &&
                notebook.model.sharedModel.cells.every(c => c.executionState !== "running"); }}""",
            timeout=1000 * seconds,
        )

    def save(self) -> None:
        self.page.keyboard.press("Control+S")
        self.page.wait_for_function(f"() => {{ {_PANEL} return !panel.context.model.dirty; }}")

    def text(self, position: int) -> str:
        """What stands under a cell: streams, errors, and the HTML or text of displays."""
        parts = []
        for output in self.cells()[position]["outputs"]:
            data = output.get("data", {})
            parts += [output.get("text", ""), output.get("ename", ""), output.get("evalue", "")]
            parts += [data.get("text/html", ""), data.get("text/plain", "")]
        return "\n".join("".join(part) for part in parts if part)


def open_notebook(page: Page, address: str, path: str) -> Notebook:
    """Open a notebook of the server at `address` (which carries the token) and wait for its kernel."""
    base, _, query = address.partition("?")
    root = base.split("/lab")[0].rstrip("/")
    page.goto(f"{root}/lab/tree/{path}?{query}")
    page.wait_for_function(  # JupyterLab may first show what was open before
        "path => window.jupyterapp?.shell?.currentWidget?.context?.path === path", arg=path, timeout=60_000
    )
    notebook = Notebook(page)
    page.wait_for_function(
        f"() => {{ {_PANEL} return panel.context.isReady && panel.sessionContext.session?.kernel?.status"
        " === 'idle'; }",
        timeout=60_000,
    )
    return notebook
