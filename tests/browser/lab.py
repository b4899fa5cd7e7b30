"""JupyterLab by mouse and keyboard: opening notebooks, typing into cells, running them, reading outputs.

JupyterLab draws only the cells in sight, so its own model says which cell is where (expose_app_in_browser);
everything that a student does is done by clicks and keys.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

# what a page may take on a busy machine; nothing waits so long when it is there earlier
PATIENCE_S = 180
_PANEL = "const panel = window.jupyterapp.shell.currentWidget; const notebook = panel.content;"


def free_port() -> int:
    """A port that nobody listens on now, for a program that does not take 0: see servers.STARTS."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def expose(home: Path) -> Path:
    """Let a person's JupyterLab say which cell is where: the page holds only those in sight."""
    folder = home / ".jupyter"
    folder.mkdir(exist_ok=True)
    (folder / "jupyter_server_config.json").write_text('{"LabApp": {"expose_app_in_browser": true}}')
    return folder


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

    def run(self, positions: Sequence[int] | int) -> None:
        """Run cells one after the other with Shift-Enter and wait for the kernel."""
        for position in [positions] if isinstance(positions, int) else positions:
            self.go(position)
            self.watch()
            self.page.keyboard.press("Shift+Enter")
            self.wait()

    def run_all(self) -> None:
        """Run > Run All Cells, by the menu."""
        self.watch()
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.wait()

    def watch(self) -> None:
        """Before keys or clicks that run cells: `wait` ends when the command that they call has ended."""
        self.page.evaluate(
            """() => {
            const commands = window.jupyterapp.commands;
            const seen = (_, called) => {
                if (!/^notebook:run-/.test(called.id)) return;
                commands.commandExecuted.disconnect(seen);
                const end = () => { window.titoRan = true; };
                Promise.resolve(called.result).then(end, end);
            };
            window.titoRan = false;
            commands.commandExecuted.connect(seen);
            }"""
        )

    def wait(self) -> None:
        """Until the cells have run that were called since `watch`, and the kernel has nothing left to do."""
        self.page.wait_for_function(
            f"""() => {{ {_PANEL}
            const kernel = panel.sessionContext.session?.kernel;
            return window.titoRan && kernel && kernel.status === "idle" &&
                notebook.model.sharedModel.cells.every(c => c.executionState !== "running"); }}""",
            timeout=1000 * 2 * PATIENCE_S,
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
        "path => window.jupyterapp?.shell?.currentWidget?.context?.path === path", arg=path
    )
    notebook = Notebook(page)
    page.wait_for_function(
        f"() => {{ {_PANEL} return panel.context.isReady && panel.sessionContext.session?.kernel?.status"
        " === 'idle'; }"
    )
    return notebook
