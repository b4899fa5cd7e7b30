"""Commands that are imported when they are called.

`typer.Typer(cls=group({"lab": "tito.student.lab:lab", ...}))` names where each command lies: a function,
or the typer.Typer of a group. Its line in the help is read from the source, so that a
help imports nothing it lists.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


def group(commands: Mapping[str, str]) -> type[TyperGroup]:
    """The class of a group that holds these commands, each as "module:name", beside those of its own."""

    class Group(TyperGroup):
        def __init__(self, **attrs: Any) -> None:
            super().__init__(**attrs)
            for name, where in commands.items():
                self.add_command(Later(name, where), name)

    return Group


class Later(TyperCommand):
    """A command, or a group of them, that is imported by `load`."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__(name)
        self.module, _, self.attribute = where.partition(":")

    def load(self) -> Any:
        """The command itself, as Typer makes it."""
        found = getattr(importlib.import_module(self.module), self.attribute)
        holder = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=self.name)
        else:
            holder.command(self.name)(found)
        return typer.main.get_group(holder).commands[str(self.name)]

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """The context of the command itself, so that it is what runs."""
        return self.load().make_context(*args, **kwargs)

    def get_short_help_str(self, limit: int = 45) -> str:
        """The line that its group's help says."""
        self.help = self.help or _help(self.module, self.attribute)
        return super().get_short_help_str(limit)


def _help(module: str, name: str) -> str:
    """A function's docstring, or what a typer.Typer is given as its help; read, not imported."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            assert isinstance(node.value, ast.Call)
            given = {keyword.arg: keyword.value for keyword in node.value.keywords}
            return str(ast.literal_eval(given["help"]))
    raise LookupError(f"{module} defines no {name}")
