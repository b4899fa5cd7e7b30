"""Reading the lessons: jupytext percent to notebooks with full nbgrader metadata, and their lints.

A lesson with a fault is refused before anything is built; every fault is one line: file, cell, reason.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jupytext
from nbformat import NotebookNode

from autograder.errors import OlympicsError
from tito.package.exporter import cell_label, is_export

KEEP_OUTPUT = "nbval-check-output"
MEASURE = "measure"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}

_BEGIN, _END = "BEGIN SOLUTION", "END SOLUTION"
_HIDDEN_BEGIN, _HIDDEN_END = "BEGIN HIDDEN TESTS", "END HIDDEN TESTS"
_SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}$")
_KNOWN = {"grade_id", "grade", "solution", "locked", "points", "task", "cell_type", "schema_version"}


class BuildError(OlympicsError, RuntimeError):
    """Lessons that cannot be built; the message holds one line for each fault."""

    def __init__(self, faults: list[str]):
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class Lesson:
    """One hand-written lesson. `name` is the assignment, `module` the package file it builds, if any."""

    path: Path
    name: str
    number: str | None  # "05"; None for a track
    module: str | None
    file: str  # the path as messages show it

    def read(self) -> NotebookNode:
        """The notebook with no outputs, stable cell ids and full nbgrader metadata. Raises BuildError."""
        try:
            nb = jupytext.reads(self.path.read_text(encoding="utf-8"), fmt="py:percent")
        except (UnicodeDecodeError, ValueError, SyntaxError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BuildError([f"{self.file}: not a percent notebook: {reason}"]) from error
        nb.metadata = NotebookNode(kernelspec=dict(KERNELSPEC), language_info=dict(LANGUAGE))
        nb.nbformat, nb.nbformat_minor = 4, 5
        seen: dict[str, int] = {}
        for cell in nb.cells:
            _fill(cell)
            cell.id = _stable_id(cell, seen)
        return nb


def find_lessons(root: Path) -> list[Lesson]:
    """Every lesson of the course, modules first. Raises BuildError for a file name out of pattern."""
    lessons, faults = [], []
    for path in sorted((root / "modules").glob("*.py")):
        file = path.relative_to(root).as_posix()
        match = re.match(r"(\d\d)_([a-z][a-z0-9_]*)$", path.stem)
        if match:
            lessons.append(Lesson(path, path.stem, match[1], match[2], file))
        else:
            faults.append(f"{file}: expected a name like 05_autograd.py.")
    numbers: dict[str | None, str] = {}
    for lesson in lessons:
        if lesson.number in numbers:
            faults.append(f"{lesson.file}: number {lesson.number} is taken by {numbers[lesson.number]}.")
        numbers.setdefault(lesson.number, lesson.file)
    for path in sorted((root / "olympics_notebooks").glob("*.py")):
        lessons.append(Lesson(path, path.stem, None, None, path.relative_to(root).as_posix()))
    if faults:
        raise BuildError(faults)
    return lessons


def _fill(cell: NotebookNode) -> None:
    """nbgrader's short form to the full one; everything but tags and nbgrader leaves the metadata."""
    metadata = NotebookNode()
    if tags := cell.metadata.get("tags"):
        metadata.tags = list(tags)
    if (title := cell.metadata.get("title")) is not None:
        metadata.title = title
    short = cell.metadata.get("nbgrader")
    if isinstance(short, dict):
        grade, solution = bool(short.get("grade")), bool(short.get("solution"))
        full = {
            "cell_type": cell.cell_type,
            "grade": grade,
            "grade_id": short.get("grade_id", ""),
            "locked": bool(short.get("locked", grade and not solution)),
            "schema_version": 3,
            "solution": solution,
            "task": bool(short.get("task")),
        }
        if "points" in short:
            full["points"] = short["points"]
        full |= {key: value for key, value in short.items() if key not in _KNOWN}
        metadata.nbgrader = NotebookNode(dict(sorted(full.items())))
    cell.metadata = metadata
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None


def _stable_id(cell: NotebookNode, seen: dict[str, int]) -> str:
    """The grade_id, else a hash of the content, so that an edit moves no other cell's id."""
    grade_id = str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))
    if _SAFE_ID.match(grade_id):
        key = grade_id
    else:
        key = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
    seen[key] = seen.get(key, 0) + 1
    return key if seen[key] == 1 else f"{key[:56]}-{seen[key]}"


# ---- lints


def lint(lesson: Lesson, nb: NotebookNode, modules: Mapping[str, str], names: Mapping[str, str]) -> list[str]:
    """Every fault of one lesson, a line each. `modules`: module -> number, `names`: name -> module."""
    cells = [(cell, f"{lesson.file}, {cell_label(cell, i)}") for i, cell in enumerate(nb.cells, start=1)]
    faults = _setup_faults(lesson, cells)
    ids: dict[str, str] = {}
    for cell, where in cells:
        faults += [f"{where}: {reason}" for reason in _metadata_faults(cell, ids)]
        ids.setdefault(cell.metadata.get("nbgrader", {}).get("grade_id", ""), where.rpartition(", ")[2])
        faults += [f"{where}: {reason}" for reason in _marker_faults(cell)]
        if cell.cell_type == "code":
            faults += [f"{where}: {reason}" for reason in _figure_faults(cell)]
        if cell.cell_type == "code" and lesson.number:
            faults += [f"{where}: {reason}" for reason in _import_faults(cell, lesson.number, modules, names)]
    if lesson.module:
        if not any(KEEP_OUTPUT in cell.metadata.get("tags", []) for cell, _ in cells):
            faults.append(
                f"{lesson.file}: no cell is tagged {KEEP_OUTPUT}: mark some whose output never changes."
            )
        first = next((cell for cell, _ in cells if cell.cell_type == "markdown"), None)
        if first is None or not re.search(r"^> \S", first.source, re.MULTILINE):
            faults.append(
                f"{lesson.file}, cell 1: no line starts with `> `: it becomes the module's docstring."
            )
    return faults


def _setup_faults(lesson: Lesson, cells: list[tuple[NotebookNode, str]]) -> list[str]:
    wanted = f"%load_ext tito\n%tito lesson {lesson.number or lesson.name}"
    shown = wanted.replace("\n", " and ")
    for cell, where in cells:
        if cell.cell_type != "code":
            continue
        lines = [line.strip() for line in cell.source.splitlines() if line.strip()]
        about = cell.metadata.get("nbgrader", {})
        if lines[:2] != wanted.splitlines() or not about.get("locked") or about.get("grade_id") != "setup":
            return [f"{where}: the first code cell is the locked setup cell, grade_id setup, with {shown}."]
        return []
    return [f"{lesson.file}: no code cell; the first is the locked setup cell with {shown}."]


def _metadata_faults(cell: NotebookNode, ids: Mapping[str, str]) -> Iterator[str]:
    if "nbgrader" in str(cell.metadata.get("title", "")):
        yield f"nbgrader metadata that is not JSON: {cell.metadata.title}"
    about = cell.metadata.get("nbgrader")
    if about is None:
        return
    grade_id = about.grade_id
    if unknown := sorted(set(about) - _KNOWN):
        yield f"unknown nbgrader field {unknown[0]!r}."
    if not isinstance(grade_id, str) or not _SAFE_ID.match(grade_id):
        yield f"grade_id is {grade_id!r}: expected letters, digits, - and _, at most 64."
    elif grade_id in ids:
        yield f"duplicate grade_id {grade_id!r}, already on {ids[grade_id]}."
    if about.grade:
        points = about.get("points")
        if isinstance(points, bool) or not isinstance(points, int | float) or points <= 0:
            yield f"a graded cell needs points above 0, got {points!r}."
    elif "points" in about:
        yield "points on a cell that is not graded."
    if not (about.grade or about.solution or about.locked):
        yield "nbgrader metadata that says neither grade, solution nor locked."
    if cell.cell_type == "markdown" and about.grade != about.solution:
        yield "a manual answer is both grade and solution."
    if cell.cell_type == "code" and about.grade and about.solution:
        yield "grade and solution in one code cell: put the tests into a cell of their own."
    if about.grade and is_export(cell):
        yield "a graded cell cannot be exported to the package."
    if about.grade and MEASURE in cell.metadata.get("tags", []):
        yield f"a graded cell tagged {MEASURE} would be skipped by graders."


def _marker_faults(cell: NotebookNode) -> Iterator[str]:
    about = cell.metadata.get("nbgrader", {})
    solution, grade, source = about.get("solution"), about.get("grade"), cell.source
    if (_BEGIN in source or _END in source) and not solution:
        yield "solution markers outside a solution cell."
    if cell.cell_type == "code" and solution and _BEGIN not in source:
        yield f"a solution cell without ### {_BEGIN}: nbgrader would clear the whole cell."
    if (_HIDDEN_BEGIN in source or _HIDDEN_END in source) and not grade:
        yield "hidden-test markers outside a graded cell."
    for begin, end in ((_BEGIN, _END), (_HIDDEN_BEGIN, _HIDDEN_END)):
        order = [mark for line in source.splitlines() for mark in (begin, end) if mark in line]
        if order != [begin, end] * (len(order) // 2):
            yield f"### {begin} and ### {end} do not come in pairs."


def _import_faults(
    cell: NotebookNode, number: str, modules: Mapping[str, str], names: Mapping[str, str]
) -> Iterator[str]:
    tree = _parse(cell.source)
    if tree is None:
        yield "not valid Python."
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted = [
                (alias.name, alias.name.split(".")[1]) for alias in node.names if "tinytorch." in alias.name
            ]
        elif isinstance(node, ast.ImportFrom) and node.module == "tinytorch":
            wanted = [(f"tinytorch.{a.name}", names.get(a.name, a.name)) for a in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinytorch."):
            wanted = [(str(node.module), str(node.module).split(".")[1])]
        else:
            continue
        for shown, module in wanted:
            home = modules.get(module)
            if home is None:
                yield f"imports {shown}, which no lesson builds."
            elif home > number:
                yield f"imports {shown} from module {home}, which comes later than {number}."
            elif home == number:
                yield f"imports {shown} from its own module: use the cells of this lesson."


def _figure_faults(cell: NotebookNode) -> Iterator[str]:
    """Figures that a screen reader cannot tell. A cell that draws shows what it drew, with an alternative."""
    instead = 'end in show(figure, alt="…") of tito.figures.'
    drawn = told = False
    for node in ast.walk(_parse(cell.source) or ast.Module([], [])):
        if not isinstance(node, ast.Call):
            continue
        owner, _, name = ast.unparse(node.func).rpartition(".")
        if name == "show":
            alts = [word.value for word in node.keywords if word.arg == "alt"] or node.args[1:2]
            if not alts or (isinstance(alts[0], ast.Constant) and not str(alts[0].value).strip()):
                yield f"shows a figure without a text alternative: {instead}"
            told = True
        elif name in ("interact", "interactive"):
            yield "a widget with no picture where none runs: use explore(draw, …) of tito.figures."
        told |= name == "explore"
        drawn |= owner in ("plt", "pyplot")
    if drawn and not told:
        yield f"draws a figure that it does not show with a text alternative: {instead}"


def _parse(source: str) -> ast.Module | None:
    """The cell as Python, notebook commands turned into calls as IPython does; None if it is no Python."""
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError:
        return None
