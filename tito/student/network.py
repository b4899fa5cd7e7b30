"""The code of a network, read and never run: which definitions of a script the classes of a model need.

A model file names its classes. Those that are not tinytorch's stand in network.py beside it; where somebody
has written them into a training script instead, network.py is made of the definitions there, and of what
these use: the part that trains stays behind.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from tito.errors import TitoError

FILE = "network.py"


def parse(path: Path) -> ast.Module:
    """A Python file as its statements. Raises TitoError for one that cannot be read or is no Python."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TitoError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, SyntaxError, RecursionError) as error:
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        line = f" line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise TitoError(f"{path}{line} is not Python ({what}): mend it") from error


def needed(tree: ast.Module, wanted: Iterable[str]) -> list[ast.stmt]:
    """The top statements that define `wanted` and all that these use, in order; of imports what is used."""
    asked, statements = set(wanted), tree.body
    chosen: set[int] = set()
    while True:
        fresh = [i for i, s in enumerate(statements) if i not in chosen and asked & _binds(s)]
        if not fresh:
            break
        chosen.update(fresh)
        for i in fresh:
            asked |= {node.id for node in ast.walk(statements[i]) if isinstance(node, ast.Name)}
    return [_only(statements[i], asked) for i in sorted(chosen)]


def mentions(statements: Iterable[ast.stmt]) -> set[str]:
    """Every name and attribute that the statements use, and what they import."""
    found: set[str] = set()
    for node in (node for statement in statements for node in ast.walk(statement)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.name)
    return found


def classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    """The classes that a file defines at its top, by name; the last of a name counts."""
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def extract(path: Path, wanted: Iterable[str]) -> str:
    """The text of a network.py with the classes `wanted`, from the script that defines them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    parts = []
    for statement in needed(parse(path), wanted):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            parts.append(ast.unparse(statement))
            continue
        first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
        parts.append("\n".join(lines[first - 1 : statement.end_lineno]))
    return f'"""The network, from {path.name}."""\n\n' + "\n\n".join(parts) + "\n"


def _binds(statement: ast.stmt) -> set[str]:
    """The names that a statement at the top of a file gives a value."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return set()


def _only(statement: ast.stmt, asked: set[str]) -> ast.stmt:
    """An import of what is used alone: the rest may not be there where the network runs."""
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        return statement
    names = [a for a in statement.names if (a.asname or a.name).partition(".")[0] in asked]
    if isinstance(statement, ast.Import):
        return ast.Import(names=names)
    return ast.ImportFrom(module=statement.module, names=names, level=statement.level)
