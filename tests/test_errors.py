"""Errors that are meant for a person: one base class, one line, one exit code."""

from __future__ import annotations

import ast
import sys
import tempfile
from pathlib import Path

import pytest

from autograder import errors
from autograder.errors import Missing, OlympicsError
from autograder.sandbox import SandboxUnavailable
from tito import cli

ROOT = Path(__file__).resolve().parent.parent
# What never reaches a person: between two processes of ours, turned into a reason on a record, or raised by
# the student's own package.
INSIDE = set(
    [
        "frames.FrameError",
        "frames.Closed",
        "frames.Late",
        "wire.WireError",
        "proxies.StudentError",
        "proxies.Ended",
        "proxies.Untrusted",
        "proxies.Late",
        "student.OutOfTime",
        "audit_view.DataError",
        "staging.Invalid",
        "untrusted.Refused",
        "audit._Fault",
        "package.NotBuilt",
    ]
)


def exceptions() -> dict[str, set[str]]:
    """Every exception class that our packages define, as file.name, with its bases' names."""
    found: dict[str, set[str]] = {}
    for path in sorted([*ROOT.glob("autograder/**/*.py"), *ROOT.glob("tito/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base) for base in node.bases}
                names = {name.split(".")[-1] for name in found}
                if any(base.endswith(("Error", "Exception")) or base in names for base in bases):
                    found[f"{path.stem}.{node.name}"] = bases
    return found


def test_every_error_for_a_person_has_the_one_base() -> None:
    classes = exceptions()
    ours, before = {"OlympicsError"}, set[str]()
    while ours != before:
        before = set(ours)
        ours |= {name.split(".")[-1] for name, bases in classes.items() if bases & ours}
    others = {name for name, bases in classes.items() if not bases & ours}
    assert others - INSIDE == {"errors.OlympicsError"}, "derive them from autograder.errors.OlympicsError"
    assert {"TitoError", "GradingError", "SandboxUnavailable", "Damaged"} <= ours


@pytest.mark.parametrize(
    ("error", "code"),
    [(cls("wrong:\n  do this"), cls.exit_code) for cls in (OlympicsError, errors.GradingError, Missing)]
    + [(SandboxUnavailable("wrong:\n  do this"), 2)],
    ids=lambda value: type(value).__name__,
)
def test_the_command_line_prints_it_as_one_line(
    error: OlympicsError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert capsys.readouterr().err == "tito: wrong: do this\n"


def test_a_notebook_shows_it_as_one_line() -> None:
    assert errors.GradingError("no roster")._render_traceback_() == ["GradingError: no roster"]


def test_no_folder_for_temporary_files_is_one_line(monkeypatch, capsys, tmp_path) -> None:
    """What tempfile says where no folder that it knows can be written."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere/at/all"])
    monkeypatch.setenv("TMPDIR", "/nowhere/at/all")
    monkeypatch.setattr(sys, "argv", ["tito", "course", "init", str(tmp_path / "course"), "--weeks", "8"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1 and "TMPDIR is /nowhere/at/all" in said
