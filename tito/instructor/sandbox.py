"""`tito sandbox`: what each sandbox level claims, tried on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from autograder import sandbox
from autograder.sandbox import selftest
from tito.errors import TitoError


def sandbox_command(
    level: Annotated[
        str | None,
        typer.Option(help=f"Only this one, with what happened: {', '.join(sandbox.LEVELS)}."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Try on this machine what each sandbox level claims; fails if a claim is broken.

    Where no level is named, programs run at the strongest level of this machine, or at the one that the
    environment variable TITO_SANDBOX names (bubblewrap, landlock or rlimits).
    """
    table = selftest.run(sandbox.LEVELS if level is None else [sandbox.require(level)])
    used, error = _used()
    if as_json:
        print(json.dumps({**asdict(table), "used": used}))
    else:
        by = sandbox.SETTING if os.environ.get(sandbox.SETTING) else "the strongest here"
        for line in _lines(table, detailed=level is not None):
            print(line)
        if used:
            print(f"used where none is named: {used} ({by})")
    if error and level is None:
        raise error
    if broken := table.broken():
        what = "; ".join(f"{finding.level}, {finding.probe}: {finding.happened}" for finding in broken)
        raise TitoError(f"the sandbox does not hold what it claims ({what}): do not grade at that level here")


def _used() -> tuple[str, Exception | None]:
    """The level where none is named, or "" and why there is none."""
    try:
        return sandbox.choose(), None
    except (sandbox.UnknownLevel, sandbox.SandboxUnavailable) as error:
        return "", error


def _lines(table: selftest.Table, detailed: bool) -> list[str]:
    host = table.host
    lines = [
        f"{host.user} (uid {host.uid}), Linux {host.kernel} {host.machine}, Python {host.python}, "
        + (f"bubblewrap {host.bubblewrap}, " if host.bubblewrap else "no bubblewrap, ")
        + (f"Landlock ABI {host.landlock_abi}" if host.landlock_abi else "no Landlock"),
        "",
    ]
    if detailed:
        lines += _columns([(found.probe, found.result, found.happened) for found in table.findings])
        lines += [f"memory limited by a {by}" for by in table.memory_by.values()]
    elif table.findings:
        levels = list(dict.fromkeys(found.level for found in table.findings))
        results = {(found.probe, found.level): found.result for found in table.findings}
        rows = [("", *levels)]
        rows += [
            (probe, *(results[probe, level] for level in levels))
            for probe in dict.fromkeys(found.probe for found in table.findings)
        ]
        rows.append(("memory limited by", *(table.memory_by[level] for level in levels)))
        lines += _columns(rows)
    lines += [f"{level} is not to be had here: {why}" for level, why in table.unavailable.items()]
    return lines


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
