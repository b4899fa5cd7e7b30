"""Pages that are written at build time: one a lesson, one a track, one a module of the API.

They stand beside the hand-written ones, so that Sphinx finds and searches them alike; git ignores them.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from autograder.files import write_text
from tito.student import start

from . import charts
from .course import ROOT, Outline, followers, lessons, outlines, reduced, tracks
from .scoring import rules_page

COURSE = ROOT / "course"
MADE = "<!-- made by course/_ext/handbook/pages.py when the book is built -->\n"


def write_pages(app: Any, config: Any) -> None:
    """Write every made page that differs, and remove those of lessons that are gone."""
    made = {f"lessons/{outline.name}.md": lesson_page(outline) for outline in lessons()}
    made |= {f"tracks/{outline.name}.md": track_page(outline) for outline in tracks()}
    made |= api_pages()
    for folder in ("lessons", "tracks", "api"):
        for path in (COURSE / folder).glob("*.md"):
            ours = path.read_text(encoding="utf-8").startswith(MADE)
            if ours and path.relative_to(COURSE).as_posix() not in made:
                path.unlink()
    for name, text in made.items():
        path = COURSE / name
        if not path.is_file() or path.read_text(encoding="utf-8") != MADE + text:
            write_text(path, MADE + text)


def label(name: str) -> str:
    """How a page calls a lesson: 05 Autograd, or Vision for a track."""
    outline = outlines()[name]
    return f"{outline.number} {outline.title}" if outline.number else name.capitalize()


def link(name: str) -> str:
    """A markdown link from a page in lessons/ or tracks/."""
    folder = "lessons" if outlines()[name].number else "tracks"
    return f"[{label(name)}](../{folder}/{name}.md)"


def lesson_page(outline: Outline) -> str:
    """The page of a lesson."""
    module = outline.name.partition("_")[2]
    needs = ", ".join(map(link, outline.needs)) or "nothing but Python and NumPy"
    used = ", ".join(map(link, followers(outline.name))) or "nothing yet"
    parts = [
        f"# {label(outline.name)}",
        outline.summary,
        f"{outline.build}\n\n{outline.why}",
        *_facts(
            {
                "time": f"about {outline.hours:g} hours",
                "exercises": f"{outline.exercises}, with {outline.checkpoints} checkpoints worth "
                f"{outline.points:g} points",
                "you need": needs,
                "used by": used,
                "notebook": f"`{outline.name}/{outline.name}.ipynb`, which becomes `tinytorch/{module}.py`",
            }
        ),
        "```{lesson-map} " + outline.name + "\n```",
        "## Exercises and checkpoints",
        _sections(outline),
        "## Public names",
        f"After `tito module complete {outline.number}` your package has these; "
        f"[the reference](../api/{module}.md) describes each.",
        _names(module, outline.names),
        "## When you are stuck",
        f"{outline.tips} More in [when something fails](../student/troubles.md).",
    ]
    return "\n\n".join(parts) + "\n"


def track_page(outline: Outline) -> str:
    """The page of a track: the notebook, and the rules."""
    parts = [
        f"# {label(outline.name)}",
        f"{outline.build}\n\n{outline.why}",
        *_facts(
            {
                "time": f"about {outline.hours:g} hours, most of it the machine's",
                "you need": ", ".join(map(link, outline.needs)),
                "notebook": f"`{outline.name}/{outline.name}.ipynb`: `tito olympics init --track "
                f"{outline.name}` puts it into your workspace",
                "marked": f"{outline.points:g} points from {outline.checkpoints} cells, some by a person",
            }
        ),
        f"{outline.tips}",
        "## The rules",
        f"The same table that `tito olympics rules --track {outline.name}` prints and the scorer applies.",
        rules_page(outline.name),
        "## What is marked in the notebook",
        _sections(outline),
        "The reference entry's points, step by step, stand under [worked examples](../scoring/examples.md); "
        "the [calculator](../scoring/calculator.md) tells what another figure would earn.",
    ]
    return "\n\n".join(parts) + "\n"


def _facts(facts: Mapping[str, str]) -> list[str]:
    return ["\n\n".join(f"{name}\n: {text}" for name, text in facts.items())]


def _sections(outline: Outline) -> str:
    lines = ["| section | you write | checkpoints | points |", "|---|---|---|---|"]
    for section in outline.sections:
        written = ", ".join(f"`{name}`" for name in section.exercises) or "-"
        lines.append(f"| {section.title} | {written} | {section.checkpoints} | {section.points:g} |")
    lines.append(f"| **all** | {outline.exercises} exercises | {outline.checkpoints} | {outline.points:g} |")
    return "\n".join(lines)


def _names(module: str, names: list[str]) -> str:
    """Classes first, then what works on tensors, then the primitives and gradient rules under them."""
    tree = ast.parse((ROOT / "tinytorch" / f"{module}.py").read_text(encoding="utf-8"))
    kinds = {node.name: type(node) for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    groups: dict[str, list[str]] = {
        "classes": [],
        "functions": [],
        "primitives and gradient rules": [],
        "values": [],
    }
    for name in names:
        if kinds.get(name) is ast.ClassDef:
            groups["classes"].append(name)
        elif name not in kinds:
            groups["values"].append(name)
        elif name.endswith(("_forward", "_vjp")):
            groups["primitives and gradient rules"].append(name)
        else:
            groups["functions"].append(name)
    lines = []
    for kind, found in groups.items():
        if found:
            listed = ", ".join(
                f"`{name}`" if kind == "values" else f"{{py:obj}}`{name} <tinytorch.{module}.{name}>`"
                for name in found
            )
            lines.append(f"{kind}\n: {listed}")
    return "\n\n".join(lines)


def api_pages() -> dict[str, str]:
    """One page a module: tinytorch in the order of the lessons, autograder room by room."""
    pages = {}
    for outline in lessons():
        module = outline.name.partition("_")[2]
        head = f"# tinytorch.{module}\n\nBuilt in [{label(outline.name)}](../lessons/{outline.name}.md).\n\n"
        pages[f"api/{module}.md"] = head + _automodule(f"tinytorch.{module}")
    for modules in rooms().values():
        for name in modules:
            pages[f"api/{_page(name)}.md"] = f"# {name}\n\n" + _automodule(name)
    return pages


def rooms() -> dict[str, dict[str, str]]:
    """autograder's folders by name and first line, each with the names and first lines of its modules."""
    found: dict[str, dict[str, str]] = {}
    for folder in sorted(path.parent for path in (ROOT / "autograder").rglob("__init__.py")):
        dotted = ".".join(folder.relative_to(ROOT).parts)
        modules = {f"{dotted}.{path.stem}": path for path in sorted(folder.glob("[!_]*.py"))}
        title = f"{dotted}: {_first_line(folder / '__init__.py')}"
        modules[dotted] = folder / "__init__.py"
        found[title] = {name: _first_line(modules[name]) for name in sorted(modules)}
    return found


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def _page(dotted: str) -> str:
    return dotted.replace(".", "-")


def _automodule(name: str) -> str:
    options = (":members:", ":member-order: bysource")
    lines = [f".. automodule:: {name}", *(f"   {option}" for option in options)]
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```\n"


class LessonMap(SphinxDirective):
    """The map of one lesson with its neighbours, or of all of them; beside it the same in words."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        for outline in outlines().values():
            folder = "modules" if outline.number else "olympics_notebooks"
            self.env.note_dependency(str(ROOT / folder / f"{outline.name}.py"))
        if self.arguments:
            outline = outlines()[self.arguments[0]]
            before, after = outline.needs, followers(outline.name)
            title = f"{label(outline.name)} needs {_words(before)}; it is used by {_words(after)}."
            sides = [label(name) for name in before], [label(name) for name in after]
            return [_framed(charts.neighbours(label(outline.name), *sides, title, "map"))]
        whole = reduced({outline.name: outline.needs for outline in outlines().values()})
        title = (
            "All lessons and tracks; an arrow leads from a lesson to those that need it, as the table says"
        )
        return [_framed(charts.lesson_map(whole, {name: label(name) for name in whole}, title, "map"))]


def _framed(drawn: str) -> nodes.Node:
    """An SVG that scrolls in its own frame where the screen is narrow."""
    frame = '<div class="lesson-map-frame" tabindex="0" role="group" aria-label="Map">'
    return nodes.raw("", f"{frame}{drawn}</div>", format="html")


def _words(names: list[str]) -> str:
    return ", ".join(map(label, names)) or "no other lesson"


class LessonTable(SphinxDirective):
    """All lessons: what is built, time, points, what is needed."""

    def run(self) -> list[nodes.Node]:
        rows = ["| lesson | what you build | hours | points | needs |", "|---|---|---|---|---|"]
        firsts = {names[0]: tier for tier, names in start.tiers(o.name for o in lessons()).items()}
        for outline in lessons():
            if outline.name in firsts:
                rows.append(f"| **{firsts[outline.name]}** | | | | |")
            needs = ", ".join(outlines()[near].number or near for near in outline.needs) or "-"
            cells = (link(outline.name), outline.summary, f"{outline.hours:g}", f"{outline.points:g}", needs)
            rows.append(f"| {' | '.join(cells)} |")
        hours, points = (sum(getattr(outline, what) for outline in lessons()) for what in ("hours", "points"))
        rows.append(f"| **all** | | {hours:g} | {points:g} | |")
        return self.parse_text_to_nodes("\n".join(rows))


class TrackTable(SphinxDirective):
    """The four tracks: task, gate, record."""

    def run(self) -> list[nodes.Node]:
        from autograder.scoring import rules

        rows = ["| track | task | gate | record to beat |", "|---|---|---|---|"]
        rows += [
            f"| {link(name)} | {rule.task} | {rule.gate} | {rule.record} |"
            for name, rule in rules.TRACKS.items()
        ]
        return self.parse_text_to_nodes("\n".join(rows))


class ApiTable(SphinxDirective):
    """The modules of tinytorch or autograder, each with the first line of its docstring."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        if self.arguments[0] == "tinytorch":
            names = [outline.name.partition("_")[2] for outline in lessons()]
            groups = {"": {name: _first_line(ROOT / "tinytorch" / f"{name}.py") for name in names}}
        else:
            groups = rooms()
        text = []
        for title, modules in groups.items():
            text += [f"**{title}**", ""] if title else []
            text += ["| module | holds |", "|---|---|"]
            for name, line in modules.items():
                text.append(f"| [{name}]({_page(name)}.md) | {line} |".replace("<", "&lt;"))
            text.append("")
        return self.parse_text_to_nodes("\n".join(text))


def setup(app: Any) -> None:
    """Write the pages as soon as the configuration is read."""
    app.connect("config-inited", write_pages)
    app.add_directive("lesson-map", LessonMap)
    app.add_directive("lesson-table", LessonTable)
    app.add_directive("track-table", TrackTable)
    app.add_directive("api-table", ApiTable)
