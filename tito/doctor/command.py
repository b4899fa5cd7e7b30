"""`tito doctor`: what this machine has and lacks for the course, what each lack means, and how to mend it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from autograder.errors import OlympicsError
from tito.doctor import machine
from tito.doctor.checks import ROADS


def doctor(
    roads: Annotated[
        list[str] | None,
        typer.Option(
            "--for", help=f"What has to work: {', '.join(ROADS)}; default: student, and grading in a course."
        ),
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="Two to six lines.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Say what this machine has and lacks, and what mends it; fails (2) if something necessary is lacking."""
    unknown = [road for road in roads or () if road not in ROADS]
    if unknown:
        raise OlympicsError(f"there is no road {unknown[0]!r}: expected one of {', '.join(ROADS)}")
    found = machine.look(roads or ())
    if as_json:
        print(json.dumps(machine.data(found)))
    else:
        print("\n".join(machine.short(found) if short else machine.lines(found)))
    if found.necessary:
        raise typer.Exit(2)
