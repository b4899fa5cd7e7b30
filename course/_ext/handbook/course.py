"""What the lessons hold: title, names, exercises, points, and which lessons each one imports."""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from nbformat import NotebookNode

from autograder.scoring import rules
from tito.build.lessons import Lesson, find_lessons
from tito.package.exporter import public_names
from tito.package.names import MODULES, NAMES

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Section:
    """One section of a lesson: its heading, the exercises in it, and the points of its checkpoints."""

    title: str
    exercises: list[str] = field(default_factory=list)
    checkpoints: int = 0
    points: float = 0.0


@dataclass(frozen=True)
class Outline:
    """One lesson or track notebook as the handbook shows it. `needs`: lessons that its code imports from."""

    name: str
    number: str | None
    title: str
    summary: str
    sections: list[Section]
    names: list[str]
    needs: list[str]
    hours: float
    build: str
    why: str
    tips: str

    @property
    def points(self) -> float:
        return sum(section.points for section in self.sections)

    @property
    def checkpoints(self) -> int:
        return sum(section.checkpoints for section in self.sections)

    @property
    def exercises(self) -> int:
        return sum(len(section.exercises) for section in self.sections)


@cache
def outlines() -> dict[str, Outline]:
    """Every lesson and track by name, in order. Raises ValueError where modules.toml does not fit them."""
    notes = tomllib.loads((ROOT / "course" / "modules.toml").read_text(encoding="utf-8"))
    # the report builds nothing and is measured by nothing: its page is the rubric
    lessons = [lesson for lesson in find_lessons(ROOT) if lesson.number or lesson.name in rules.TRACKS]
    names = [lesson.name for lesson in lessons]
    for wrong in sorted(set(notes) ^ set(names)):
        todo = "add hours, build and why" if wrong in names else "there is no such lesson, take it out"
        raise ValueError(f"course/modules.toml: {wrong}: {todo}")
    return {lesson.name: _outline(lesson, notes[lesson.name]) for lesson in lessons}


def lessons() -> list[Outline]:
    """The numbered lessons, in order."""
    return [outline for outline in outlines().values() if outline.number]


def tracks() -> list[Outline]:
    """The track notebooks."""
    return [outline for outline in outlines().values() if not outline.number]


def followers(name: str) -> list[str]:
    """The lessons and tracks that import from a lesson."""
    return [outline.name for outline in outlines().values() if name in outline.needs]


def reduced(needs: dict[str, list[str]]) -> dict[str, list[str]]:
    """The same order with as few arrows as can be: what is reached by way of another is left out."""
    behind: dict[str, set[str]] = {}

    def reach(name: str) -> set[str]:
        if name not in behind:
            behind[name] = set().union(*({near} | reach(near) for near in needs[name]), set())
        return behind[name]

    return {
        name: [near for near in near_ones if not any(near in reach(other) for other in near_ones)]
        for name, near_ones in needs.items()
    }


def _outline(lesson: Lesson, note: dict[str, object]) -> Outline:
    nb = lesson.read()
    first = nb.cells[0].source
    title = re.search(r"^# (?:\d\d )?(.+)$", first, re.MULTILINE)
    summary = re.search(r"^> (.+(?:\n> .+)*)$", first, re.MULTILINE)
    if title is None or summary is None:
        raise ValueError(f"{lesson.file}: the first cell has no `# title` or no `> summary`")
    module = ROOT / "tinytorch" / f"{lesson.module}.py"
    names = public_names(module.read_text(encoding="utf-8")) if lesson.module else []
    return Outline(
        lesson.name, lesson.number, title[1], summary[1].replace("\n> ", " "), _sections(nb), list(names),
        _needs(nb, lesson.module), float(str(note["hours"])), str(note["build"]), str(note["why"]),
        str(note.get("tips", "")),
    )  # fmt: skip


def _sections(nb: NotebookNode) -> list[Section]:
    sections = [Section("Before the first section")]
    for cell in nb.cells:
        about = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown":
            sections += [Section(found) for found in re.findall(r"^## (.+)$", cell.source, re.MULTILINE)]
        if about.get("solution"):
            sections[-1].exercises.append(about["grade_id"])
        if about.get("grade"):
            sections[-1].checkpoints += 1
            sections[-1].points += about["points"]
    return [section for section in sections if section.exercises or section.checkpoints]


def _needs(nb: NotebookNode, own: str | None) -> list[str]:
    """The lessons from which a notebook's cells import, by name."""
    modules = set()
    for cell in nb.cells:
        if cell.cell_type == "code" and "tinytorch" in cell.source:
            modules |= _imports(cell.source)
    return sorted(f"{MODULES[module]}_{module}" for module in modules - {own} if module in MODULES)


def _imports(source: str) -> set[str]:
    code = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tinytorch":
            inner = (node.module or "").partition(".")[2]
            found |= {inner} if inner else {NAMES.get(alias.name, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tinytorch.")}
    return found
