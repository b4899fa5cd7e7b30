"""{commands}: every command below the named ones, a section each, with what its --help prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import typer
from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from typer.testing import CliRunner

from tito.lazy import Later


def tree() -> dict[str, list[str]]:
    """The commands of tito by their first word, each as the words after `tito`."""
    from tito.cli import app

    root: Any = typer.main.get_command(app)
    return {name: list(_below(command, name)) for name, command in root.commands.items()}


def _below(command: Any, words: str) -> Iterator[str]:
    yield words
    command = command.load() if isinstance(command, Later) else command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _below(inner, f"{words} {name}")


def help_of(words: str) -> str:
    """What `tito <words> --help` prints. Raises ValueError where there is no such command."""
    from tito.cli import app

    done = CliRunner().invoke(
        app, [*words.split(), "--help"], prog_name="tito", terminal_width=74, max_content_width=74
    )
    if done.exit_code:
        raise ValueError(f"tito {words} --help returned {done.exit_code}: {click.unstyle(done.output)}")
    return click.unstyle(done.output).strip()


class Commands(SphinxDirective):
    """Its arguments are first words of commands."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        known, text = tree(), []
        for name in self.arguments[0].split():
            if name not in known:
                raise self.error(f"there is no command `tito {name}`")
            text += [f"### tito {words}\n\n````text\n{help_of(words)}\n````\n" for words in known[name]]
        return self.parse_text_to_nodes("\n".join(text), allow_section_headings=True)


def setup(app: Any) -> None:
    """Register the directive."""
    app.add_directive("commands", Commands)
