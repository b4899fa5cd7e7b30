"""built.json: for each lesson, by hash, what its built notebooks were made from and what they are.

It is committed with them, so that a fresh clone knows what is current without executing a lesson. A notebook
is current when its key is the recorded one and the files in place are, byte for byte, those that were
recorded: after an edited or missing file, another text of the lesson or of the package below it, another
machinery or pin, the lesson is executed anew. The key holds no version of Python and no system: kept
outputs are the same on all that are promised, which nbval checks.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder import moved
from autograder.paths import LIBRARY

RECORD = "built.json"
# what executes a lesson, judges it outside the student's process, and cleans its outputs
MACHINERY = (
    *(f"tito/build/{name}.py" for name in ("build", "run_lesson", "package")),
    *(f"tito/{name}.py" for name in ("notebook/session", "figures")),
    "autograder/frames.py",
    *(f"autograder/notebooks/{name}.py" for name in ("execute", "rebuild", "kernels")),
)
PINS = ("numpy", "ipykernel", "ipython", "matplotlib", "nbgrader", "nbclient")


@dataclass(frozen=True)
class Entry:
    """One lesson's line: the key of what went in, the digests of both notebooks."""

    key: str
    source: str
    release: str


def load(root: Path) -> dict[str, Entry]:
    """Lesson -> its entry; nothing of a record that is missing or cannot be read: all is then executed."""
    try:
        found = json.loads((root / RECORD).read_text(encoding="utf-8"))
        return {name: Entry(**fields) for name, fields in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def text(entries: Mapping[str, Entry]) -> str:
    """The record, a line a lesson, so that two branches that build two lessons merge."""
    lines = [f"{json.dumps(name)}: {json.dumps(asdict(entries[name]))}" for name in sorted(entries)]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def current(root: Path, name: str, key: str, entry: Entry | None) -> tuple[str, str] | None:
    """The texts of source and release where both are as they were recorded for this key, else None."""
    if entry is None or entry.key != key:
        return None
    texts = []
    for folder, wanted in (("source", entry.source), ("release", entry.release)):
        path = root / folder / name / f"{name}.ipynb"
        if not path.is_file() or digest(path.read_bytes()) != wanted:
            return None
        texts.append(path.read_text(encoding="utf-8"))
    return texts[0], texts[1]


def digest(content: bytes) -> str:
    """A file's hash in the record."""
    return hashlib.sha256(content).hexdigest()[:20]


def key_of(nb: NotebookNode, package: Sequence[str], root: Path) -> str:
    """What the notebooks depend on: cells, package so far, the course's settings, machinery, pins."""
    lesson = nbformat.writes(nb)
    parts = [lesson, *package, *_texts([root / "nbgrader_config.py"]), *_pins()]
    parts += _texts(LIBRARY / name for name in MACHINERY)
    parts += _texts(sorted((LIBRARY / "autograder" / "notebooks" / "cells").glob("*.py")))
    parts += _texts(_harness(nb))
    return digest(json.dumps(parts).encode())


def _harness(nb: NotebookNode) -> list[Path]:
    """The files of `autograder` and `tito` that a lesson imports, and all that those import in turn."""
    cells = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    plain = ["\n".join(line for line in cell.splitlines() if line[:1] not in "%!") for cell in cells]
    waiting = [name for cell in plain for name in _imported(cell)]
    found: set[Path] = set()
    while waiting:
        name = waiting.pop()
        path = LIBRARY.joinpath(*moved.NAMES.get(name, name).split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file() and file not in found:
                found.add(file)
                waiting += _imported(file.read_text(encoding="utf-8"))
    return sorted(found)


def _imported(code: str) -> Iterator[str]:
    """Dotted names of ours that code imports; `from a import b` may be a.b. Not those within functions, which
    belong to the roads of other commands."""
    waiting: list[ast.AST] = [ast.parse(code)]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name.partition(".")[0] in ("autograder", "tito"))


def _pins() -> list[str]:
    """The pinned versions, for every Python that has its own: not what happens to be installed."""
    path = LIBRARY / "requirements" / "run.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line for line in lines if re.match(rf"({'|'.join(PINS)})==", line)]


def _texts(paths: Iterable[Path]) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in paths if path.is_file()]
