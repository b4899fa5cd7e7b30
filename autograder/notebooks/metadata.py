"""What nbgrader's metadata says of a cell: look-ups, for which nbgrader itself need not be loaded."""

from __future__ import annotations

from typing import Any

from nbformat import NotebookNode


def is_grade(cell: NotebookNode) -> bool:
    """Whether the cell has points: a graded test, or an answer that a person grades."""
    return bool(_about(cell).get("grade", False))


def is_solution(cell: NotebookNode) -> bool:
    """Whether the student writes in the cell."""
    return bool(_about(cell).get("solution", False))


def _about(cell: NotebookNode) -> dict[str, Any]:
    return cell.metadata.get("nbgrader", {})
