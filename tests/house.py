"""The house in figures: rooms, circles, long functions, lines, and what one import loads.

    python -m tests.house [--json]

What stands here is measured from the code as it is: imports and definitions by `ast`, code lines by
`tokenize` (no docstrings, comments or blank lines).
"""

from __future__ import annotations

import argparse
import ast
import graphlib
import io
import json
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("autograder", "tito")
ROSTER = "autograder.term.roster"
LONG, MANY = 40, 6  # lines of a function, parameters
HANDWRITTEN = ("autograder", "tito", "tests", "benchmarks", "course")
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Function:
    """A function by name, with its lines from `def` to its last, and its parameters without self."""

    where: str
    lines: int
    parameters: int


def sources(*folders: str) -> dict[str, Path]:
    """Dotted module name -> file, of every module under these folders of the repository."""
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.Module, modules: dict[str, Path]) -> set[str]:
    """The modules of ours that a module imports, at its top or inside its functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules else node.module)
    return found & set(modules)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Rings of modules that import each other, found one after the other, each without the links before."""
    left, rings = {name: set(others) for name, others in graph.items()}, []
    while True:
        try:
            graphlib.TopologicalSorter(left).prepare()
        except graphlib.CycleError as error:
            ring = error.args[1]
            rings.append(ring)
            for before, name in zip(ring, ring[1:], strict=False):
                left[name].discard(before)
        else:
            return rings


def functions(path: Path, tree: ast.Module) -> Iterator[Function]:
    """Every function and method of a file; a function inside another counts for both."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            own = [name for name in names if name not in ("self", "cls")]
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield Function(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", lines, len(own))


def code_lines(text: str) -> int:
    """Lines that hold code: no blank line, no comment, no docstring."""
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            held |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                held -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(held)


def loaded(module: str) -> int:
    """Modules that importing one in a fresh Python loads, beyond those of an empty one."""
    script = f"import sys; before = set(sys.modules); import {module}; print(len(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return int(done.stdout)


@dataclass(frozen=True)
class House:
    """All figures: modules a folder, circles, functions that are too long or take too much, lines of code."""

    rooms: dict[str, int]
    circles: list[list[str]]
    long: list[Function]
    many: list[Function]
    code: dict[str, int]


def measure() -> House:
    """Look at the tree as it stands."""
    modules = sources(*PACKAGES)
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules.items()}
    graph = {name: imports(tree, modules) - {name} for name, tree in trees.items()}
    all_functions = [one for name, tree in trees.items() for one in functions(modules[name], tree)]
    rooms: dict[str, int] = {}
    for path in modules.values():
        if path.name != "__init__.py":
            folder = str(path.relative_to(ROOT).parent)
            rooms[folder] = rooms.get(folder, 0) + 1
    code = {
        folder: sum(code_lines(path.read_text(encoding="utf-8")) for path in sources(folder).values())
        for folder in HANDWRITTEN
    }
    return House(
        rooms,
        circles(graph),
        [one for one in all_functions if one.lines > LONG],
        [one for one in all_functions if one.parameters > MANY],
        code,
    )


def main() -> None:
    """Print the figures, or one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    house = measure()
    if parser.parse_args().json:
        print(json.dumps(asdict(house)))
        return
    for folder, count in sorted(house.rooms.items()):
        print(f"{count:4} modules  {folder}")
    print(f"{len(house.circles):4} circles  {'; '.join(' <-> '.join(ring) for ring in house.circles)}")
    print(f"{len(house.long):4} functions over {LONG} lines")
    for one in sorted(house.long, key=lambda one: -one.lines):
        print(f"{one.lines:8} lines   {one.where}")
    print(f"{len(house.many):4} functions with more than {MANY} parameters")
    for one in sorted(house.many, key=lambda one: -one.parameters):
        print(f"{one.parameters:8}         {one.where}")
    print(f"{loaded(ROSTER):4} modules loaded by `import {ROSTER}`")
    for folder, lines in house.code.items():
        print(f"{lines:6} lines of code  {folder}")
    print(f"{sum(house.code.values()):6} lines of code  in all")


if __name__ == "__main__":
    main()
