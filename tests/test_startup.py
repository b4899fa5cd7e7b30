"""Every command starts at once: it imports what it runs, and nothing of the other commands."""

from __future__ import annotations

import pytest
import typer

from tito import cli, lazy

LATER = [
    command
    for group in (typer.main.get_group(cli.app), lazy.Later("olympics", cli.COMMANDS["olympics"]).load())
    for command in group.commands.values()
    if isinstance(command, lazy.Later)
]


@pytest.mark.parametrize("command", LATER, ids=lambda command: command.name)
def test_a_command_says_in_the_help_what_it_says_when_it_is_loaded(command: lazy.Later) -> None:
    assert command.get_short_help_str(200) == command.load().get_short_help_str(200) != ""
