"""A course of two tiny lessons and a student who solves them, for the tests of the student's tools."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tito import cli

UNSOLVED = "raise NotImplementedError()"
DOUBLE = "class Tensor:\n    def __init__(self, x):\n        self.x = x\n\n\ndef double(x):\n    "
RELU = "from tinytorch.tensor import Tensor\n\n\ndef relu(t):\n    "
SOLVED = {"double": "return x + x", "relu": "return Tensor(max(t.x, 0))"}


def cell(source: str, grade_id: str, *, tags: tuple[str, ...] = (), **flags: Any) -> NotebookNode:
    meta = {
        "grade_id": grade_id,
        "grade": False,
        "solution": False,
        "locked": False,
        "schema_version": 3,
        **flags,
    }
    made = new_code_cell(source, metadata={"nbgrader": meta})
    if tags:
        made.metadata["tags"] = list(tags)
    return made


def lesson(number: str, stub: str, tests: dict[str, str], name: str) -> NotebookNode:
    cells = [
        new_markdown_cell(f"# Lesson {number}\n\n> Tiny lesson {number}."),
        cell(f"%load_ext tito\n%tito lesson {number}", "setup", locked=True),
        cell(f"#| export\n{stub}{UNSOLVED}", name, solution=True),
        *(cell(text, key, grade=True, locked=True, points=2) for key, text in tests.items()),
        cell("raise RuntimeError('a figure that graders skip')", "figure", tags=("measure",)),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def release(folder: Path) -> Path:
    """Write release/<lesson>/<lesson>.ipynb for the two lessons."""
    lessons = {
        "01_tensor": lesson(
            "01",
            DOUBLE,
            {
                "test-double": "assert double(2) == 4, f'double(2): expected 4, got {double(2)}, see double'",
                "test-list": "assert double([1]) == [1, 1], f'expected [1, 1], got {double([1])}'",
            },
            "double",
        ),
        "02_activations": lesson(
            "02", RELU, {"test-relu": "assert float(relu(Tensor(-3)).x) == 0, 'relu(-3): expected 0'"}, "relu"
        ),
    }
    for name, nb in lessons.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        nbformat.write(nb, folder / name / f"{name}.ipynb")
    return folder


def edit(path: Path, grade_id: str, change: Callable[[str], str]) -> None:
    """Change one cell of a notebook, as a student would."""
    nb = nbformat.read(path, 4)
    for found in nb.cells:
        if found.metadata.get("nbgrader", {}).get("grade_id") == grade_id:
            found.source = change(found.source)
    nbformat.write(nb, path)


def solve(path: Path, grade_id: str, body: str | None = None) -> None:
    edit(path, grade_id, lambda source: source.replace(UNSOLVED, body or SOLVED[grade_id]))


class Tito:
    """Calls the command line in this process; remembers what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.out = self.err = ""

    def __call__(self, *words: object, code: int = 0) -> str:
        self._monkeypatch.setattr(sys, "argv", ["tito", *map(str, words)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        self.out, self.err = self._capsys.readouterr()
        assert stopped.value.code == code, f"tito {' '.join(map(str, words))}: {self.out}{self.err}"
        return self.out

    def json(self, *words: object, code: int = 0) -> Any:
        out = self(*words, "--json", code=code)
        assert out.count("\n") == 1, out
        return json.loads(out)

    def refuses(self, *words: object, code: int = 1) -> str:
        """One line on stderr, nothing on stdout, and the exit code: 2 where the machine lacks something."""
        self(*words, code=code)
        assert self.err.startswith("tito: ") and self.err.count("\n") == 1, self.err
        assert self.out == "", self.out
        return self.err
