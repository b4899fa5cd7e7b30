"""A line under each graded cell, as it runs in JupyterLab: passed, or what was expected and where to look.
Under any cell that meets an unsolved one it says which one that is.

It speaks only to a person: where no Jupyter server names the notebook, and no front-end the cell (nbclient,
nbval, every grader), it is not there. What it says is read from the notebook's file and from the exception.
"""

from __future__ import annotations

import ast
import json
import os
import re
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tito import boxes, session

REASON = 600  # characters of an error that are shown
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Cell:
    """What is needed of a cell in the notebook's file."""

    id: str
    source: str
    about: dict[str, Any]  # nbgrader's metadata

    @property
    def graded(self) -> bool:
        return bool(self.about.get("grade")) and not self.about.get("solution")

    @property
    def solution(self) -> bool:
        return bool(self.about.get("solution")) and not self.about.get("grade")

    @property
    def name(self) -> str:
        """Its grade_id; a cell without one is called by its first line."""
        return str(self.about.get("grade_id") or self.source.partition("\n")[0][:40] or self.id)


def watch(shell: Any) -> None:
    """Show how graded cells went, from the next cell on, in this IPython shell."""
    shell.events.register("post_run_cell", after)


def notebook_file() -> Path | None:
    """The file of the notebook that this kernel was started for, or None: renamed since, or not told."""
    told = os.environ.get("JPY_SESSION_NAME", "")
    found = Path(told)
    for path in (found, Path.cwd() / found.name):
        if found.name.endswith(".ipynb") and path.is_file():
            return path
    return None


def read_cells(path: Path) -> list[Cell]:
    """The code cells of a notebook's file; an empty list where it cannot be read."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return [
            Cell(
                str(cell.get("id", "")),
                "".join(cell["source"]),
                dict(cell.get("metadata", {}).get("nbgrader", {})),
            )
            for cell in raw["cells"]
            if cell["cell_type"] == "code"
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # half-written, or no notebook: then nothing is said under the cell


def after(result: Any) -> None:
    """IPython's post_run_cell: show the box of a graded cell that has just run, or met an unsolved one."""
    cell_id = getattr(result.info, "cell_id", None)
    path = notebook_file() if cell_id else None
    if path is None:
        return
    cells = read_cells(path)
    cell = next((cell for cell in cells if cell.id == cell_id), None)
    error = result.error_before_exec or result.error_in_exec
    if cell is None or isinstance(error, KeyboardInterrupt):
        return
    shown = said(cell, cells, error, result.result) if cell.graded else unsolved(cells, error)
    if shown:
        from IPython.display import display

        display(shown, raw=True)  # type: ignore[no-untyped-call]


def unsolved(cells: list[Cell], error: BaseException | None) -> dict[str, str] | None:
    """What to show under an example that met a solution cell which is still open."""
    if not isinstance(error, NotImplementedError) or str(error):
        return None
    found = _raised_in(error, [cell for cell in cells if cell.solution])
    if found is None:
        return None
    head = "not solved yet: "
    link = f"cell {boxes.cell_link(found.id, found.name)}"
    return boxes.bundle(boxes.box("open", head, [link]), boxes.words("open", f"{head}cell {found.name}"))


def said(cell: Cell, cells: list[Cell], error: BaseException | None, value: Any = None) -> dict[str, str]:
    """What to show for one run of a graded cell, as HTML and as text."""
    points = float(cell.about.get("points", 0))
    most = f"{points:g} point{'' if points == 1 else 's'}"
    if error is None:
        return _passed(cell, cells, points, most, value)
    where = hint(cell, cells, error)
    open_cell = isinstance(error, NotImplementedError) and not str(error)
    head = f"0 of {most} · {cell.name}"
    state = "open" if open_cell else "fail"
    lines = [] if open_cell else [reason(error)]
    html = [boxes.code(line) for line in lines]
    if open_cell and where:
        text = f"not solved yet: {where.text}"
        html.append(f"not solved yet: {where.html}")
        lines.append(text)
    elif where:
        lines.append(f"look at: {where.text}")
        html.append(f"look at: {where.html}")
    return boxes.bundle(
        boxes.box(state, head, html),
        "\n".join([boxes.words(state, head), *(f"  {line}" for line in lines)]),
    )


def _passed(cell: Cell, cells: list[Cell], points: float, most: str, value: Any) -> dict[str, str]:
    """A track's cell ends in its points; a lesson's cell in nothing, and passed whole."""
    earned = min(points, max(0.0, value)) if type(value) is float else points
    state = "pass" if earned >= points else "part" if earned > 0 else "fail"
    head = f"{earned:g} of {most} · {cell.name}" if type(value) is float else f"{most} · {cell.name}"
    about = sorted(_names(cell.source) & set(_defined_in(cells)))
    lines = [f"checked: {', '.join(about)}"] if about else []
    return boxes.bundle(
        boxes.box(state, head, [f"checked: {boxes.code(', '.join(about))}"] if about else []),
        "\n".join([boxes.words(state, head), *(f"  {line}" for line in lines)]),
    )


def reason(error: BaseException) -> str:
    """An error in one line: an assertion's own words, else its kind and message."""
    text = " ".join(_ANSI.sub("", str(error)).split())[:REASON]
    if isinstance(error, AssertionError):
        return text or "an assertion without words failed"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# ---- where to look


@dataclass(frozen=True)
class Hint:
    """Which solution cell to look at, as text and as HTML with a link."""

    text: str
    html: str


def hint(cell: Cell, cells: list[Cell], error: BaseException) -> Hint | None:
    """The cell behind an error: one that has not run and binds the missing name, else a solution cell.

    Of the solution cells it is the one that raised, else the first that the failed line uses.
    """
    solutions = [found for found in cells if found.solution]
    raised = _not_run(cell, cells, error) or _raised_in(error, solutions)
    if raised is None and isinstance(error, NameError) and error.name:
        raised = next((found for found in solutions if error.name in _definitions(found.source)), None)
    if raised is None:
        used = _names(_failed_statement(cell.source, error)) or _names(cell.source)
        near = [found for found in solutions if used & set(_definitions(found.source))] or solutions
        if not near:
            return None
        raised = _nearest(cell, cells, near)
    more = ""
    if raised.id not in session.latest:
        more = ", which has not run in this kernel yet: run it, or Run > Run All Above Selected Cell"
    elif isinstance(error, NameError):
        more = ", run it again"
    return Hint(f"cell {raised.name}{more}", f"cell {boxes.cell_link(raised.id, raised.name)}{more}")


def _not_run(cell: Cell, cells: list[Cell], error: BaseException) -> Cell | None:
    """The last cell above that binds the missing name, where it has not run since the kernel started."""
    if not isinstance(error, NameError) or not error.name:
        return None
    above = cells[: next((i for i, found in enumerate(cells) if found.id == cell.id), len(cells))]
    binding = [found for found in above if error.name in _bound(found.source)]
    return binding[-1] if binding and binding[-1].id not in session.latest else None


def _nearest(cell: Cell, cells: list[Cell], near: list[Cell]) -> Cell:
    """Of several solution cells, the last one above the check: what it is about stands right before it."""
    place = {found.id: i for i, found in enumerate(cells)}
    above = [found for found in near if place[found.id] < place.get(cell.id, len(cells))]
    return above[-1] if above else near[0]


def _raised_in(error: BaseException, solutions: list[Cell]) -> Cell | None:
    """The solution cell of the deepest frame of the traceback that lies in one."""
    by_source = {session.latest[found.id]: found for found in solutions if found.id in session.latest}
    deepest = None
    for source in _frame_sources(error.__traceback__):
        deepest = by_source.get(source, deepest)
    return deepest


def _frame_sources(trace: TracebackType | None) -> Iterator[str]:
    """The source of the cell that each frame of a traceback lies in, outermost first."""
    import linecache

    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "ipykernel_" in name or name.startswith("<ipython-input"):
            yield "".join(linecache.getlines(name)).rstrip("\n")
        trace = trace.tb_next


def _failed_statement(source: str, error: BaseException) -> str:
    """The source of the statement of the graded cell that raised; empty where it cannot be told."""
    trace = error.__traceback__
    lines = [
        t.tb_lineno for t in _walk(trace) if "ipykernel_" in t.tb_frame.f_code.co_filename
        and t.tb_frame.f_code.co_name == "<module>"
    ]  # fmt: skip
    tree = _tree(source)
    if not lines or tree is None:
        return ""
    inside = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno <= lines[-1] <= (node.end_lineno or node.lineno)
    ]  # fmt: skip
    if not inside:
        return ""
    return ast.unparse(min(inside, key=lambda node: (node.end_lineno or node.lineno) - node.lineno))


def _walk(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _tree(source: str) -> ast.Module | None:
    """The syntax tree of a cell, magics left out; None where it does not parse."""
    plain = "\n".join("pass" if line.startswith(("%", "!")) else line for line in source.splitlines())
    try:
        return ast.parse(plain)
    except (SyntaxError, ValueError):
        return None


def _bound(source: str) -> set[str]:
    """Names that a cell binds for the cells below: imports, assignments, functions and classes."""
    tree = _tree(source)
    if tree is None:
        return set()
    symbols = symtable.symtable(ast.unparse(tree), "cell", "exec").get_symbols()
    return {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}


def _definitions(source: str) -> list[str]:
    """Functions, classes and methods that a cell defines; `class A(A)`, which goes on, gives its methods."""
    tree = _tree(source)
    found = []
    for node in tree.body if tree else []:
        grown = isinstance(node, ast.ClassDef) and node.name in map(ast.unparse, node.bases)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not grown:
            found.append(node.name)
        if isinstance(node, ast.ClassDef):
            found += [
                item.name for item in node.body
                if isinstance(item, ast.FunctionDef) and not item.name.startswith("__")
            ]  # fmt: skip
    return found


def _defined_in(cells: list[Cell]) -> list[str]:
    return [name for cell in cells if cell.solution for name in _definitions(cell.source)]


def _names(source: str) -> set[str]:
    """Names and attributes that code uses."""
    tree = _tree(source)
    nodes = list(ast.walk(tree)) if tree else []
    return {node.id for node in nodes if isinstance(node, ast.Name)} | {
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    }
