"""`tito sandbox`: what the sandbox promises at each level, tried on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from autograder import sandbox, selftest
from tito.notebook import TitoError


def sandbox_command(
    level: Annotated[str | None, typer.Option(help=f"Only this one of {', '.join(sandbox.LEVELS)}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Try every promise of the sandbox on this machine, and print what holds; fails where one is broken."""
    if level is not None and level not in sandbox.LEVELS:
        raise TitoError(f"--level {level}: expected one of {', '.join(sandbox.LEVELS)}")
    levels = sandbox.LEVELS if level is None else (level,)
    findings = selftest.run(levels)
    host = selftest.describe()
    if as_json:
        typer.echo(json.dumps({"host": host, "findings": [asdict(finding) for finding in findings]}))
    else:
        for name, value in host.items():
            typer.echo(f"{name:<14} {value}")
        typer.echo("\n" + " " * 22 + "".join(f"{name:<14}" for name in levels).rstrip())
        for probe in selftest.PROBES:
            row = [finding.outcome for finding in findings if finding.probe == probe.name]
            typer.echo(f"{probe.name:<22}" + "".join(f"{outcome:<14}" for outcome in row).rstrip())
    broken = [finding for finding in findings if finding.outcome == selftest.BROKEN]
    if broken:
        first = broken[0]
        raise TitoError(
            f"the sandbox breaks {len(broken)} of its promises here, first {first.probe} at level "
            f"{first.level} ({first.seen}): do not grade at that level on this machine"
        )
