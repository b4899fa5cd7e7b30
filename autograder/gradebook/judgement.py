"""What judging one submission found, and its file in grading/judged/ and grading/graded/."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder import files
from autograder.course import Course
from autograder.notebooks.execute import CellResult


@dataclass
class Judgement:
    """What grading found out about one submission, in JSON types; `notebook` is the executed notebook."""

    student: str
    assignment: str
    key: str
    level: str
    cells: list[CellResult]
    notes: list[str] = field(default_factory=list)
    stopped: str = ""
    seconds: float = 0.0
    date: str = ""
    submitted: str = ""  # nbgrader's time of submission
    track: dict[str, Any] | None = None
    notebook: NotebookNode | None = None
    hashes: dict[str, str] = field(default_factory=dict)  # of submission, assignment, grader, ...: its key

    @property
    def points(self) -> float:
        """Points so far: cells that a person has to grade count 0."""
        return sum(cell.points or 0.0 for cell in self.cells)

    @property
    def max_points(self) -> float:
        return sum(cell.max_points for cell in self.cells)

    @property
    def lost(self) -> list[str]:
        """Why points were lost, a line a graded cell."""
        return [
            f"{c.grade_id}: {c.reason or 'a person grades this cell'}"
            for c in self.cells
            if c.points is None or c.points < c.max_points
        ]


def save_judgement(path: Path, judgement: Judgement) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, plain_judgement(judgement, notebook=True))


def load_judgement(path: Path) -> Judgement:
    data = json.loads(path.read_text(encoding="utf-8"))
    data.pop("schema", None)
    data["cells"] = [CellResult(**cell) for cell in data["cells"]]
    if data.get("notebook") is not None:
        data["notebook"] = nbformat.from_dict(data["notebook"])
    return Judgement(**data)


def plain_judgement(judgement: Judgement, *, notebook: bool) -> dict[str, Any]:
    data = {**vars(judgement), "cells": [asdict(cell) for cell in judgement.cells]}
    if not notebook:
        data.pop("notebook")
    return data


def write_json(path: Path, data: Any) -> None:
    files.write_text(path, json.dumps(data))


def submitted_at(course: Course, student: str, assignment: str) -> str:
    """nbgrader's time of submission; "" where the file is not a readable one (it would stop the batch)."""
    from nbgrader.utils import parse_utc

    path = course.submitted(student, assignment) / "timestamp.txt"
    if path.is_symlink() or not path.is_file():
        return ""
    text = path.read_bytes()[:100].decode("utf-8", "replace").strip()
    try:
        parse_utc(text)
    except (ValueError, AttributeError, TypeError, OverflowError):
        return ""
    return text
