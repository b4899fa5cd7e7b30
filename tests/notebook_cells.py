"""Small notebooks with nbgrader metadata, for the tests of grading."""

from __future__ import annotations

from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


def answer(name: str, source: str) -> NotebookNode:
    """A solution cell."""
    return _cell(source, name, solution=True)


def check(name: str, source: str, points: float = 2, **more: Any) -> NotebookNode:
    """A graded test cell."""
    return _cell(source, name, grade=True, locked=True, points=points, **more)


def essay(name: str, source: str, points: float = 1) -> NotebookNode:
    """A markdown answer that a person grades."""
    return _cell(source, name, markdown=True, grade=True, solution=True, points=points)


def plain(source: str, *tags: str) -> NotebookNode:
    """A cell without nbgrader metadata."""
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


def notebook(*cells: NotebookNode) -> NotebookNode:
    """A Python 3 notebook of these cells."""
    return new_notebook(
        cells=list(cells),
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )


def _cell(
    source: str, name: str, *, markdown: bool = False, tags: tuple[str, ...] = (), **flags: Any
) -> NotebookNode:
    kind = "markdown" if markdown else "code"
    meta = {"grade_id": name, "grade": False, "solution": False, "locked": False, "task": False,
            "schema_version": 3, "cell_type": kind, **flags}  # fmt: skip
    make = new_markdown_cell if markdown else new_code_cell
    return make(source, metadata={"nbgrader": meta, **({"tags": list(tags)} if tags else {})})
