"""A student's laptop runs Windows or macOS: the lessons work there, and what needs Linux says so in a line.

There is no such machine here. What is tried: the command line with the modules that only Unix has taken away,
and what is said where there is no sandbox. `make check` types tito for both systems.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_course import release, solve

from autograder import sandbox
from autograder.scoring import rules
from tito.student import olympics, workspace

WITHOUT_UNIX = """
import builtins, os

found = builtins.__import__


def without(name, globals=None, *rest, **more):
    asking = os.path.basename(os.path.dirname((globals or {}).get("__file__") or ""))
    if asking in ("tito", "autograder") and name in ("fcntl", "grp", "pwd", "resource", "termios"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return found(name, globals, *rest, **more)


builtins.__import__ = without
"""


def test_a_lesson_is_solved_without_unix_modules(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_UNIX)
    course = release(tmp_path / "release")

    def tito(*words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tito", *map(str, words)], cwd=tmp_path, text=True, capture_output=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *sys.path])},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    tito("init", "ws", "--release", course)
    solve(workspace.Workspace(tmp_path / "ws").notebook("01_tensor"), "double")
    assert "2 of 2 checks passed, written to" in tito("module", "complete", "01")
    assert "completed" in tito("module", "status")
    assert "vision" in tito("olympics", "rules")


def test_windows_has_no_library_without_a_name() -> None:
    code = (
        "import ctypes, sys\n"
        "def refuse(name, **options): '/' in name\n"  # as CDLL itself does there: TypeError for None
        "ctypes.CDLL, sys.platform = refuse, 'win32'\n"
        "import autograder.sandbox.landlock, autograder.sandbox; print(autograder.sandbox.available())"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert done.stdout == "()\n", done.stderr


def test_where_there_is_no_linux_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert sandbox.available() == ()
    for ask in (sandbox.best_level, lambda: sandbox.require("rlimits")):
        with pytest.raises(sandbox.SandboxUnavailable, match="expected Linux, such as WSL 2"):
            ask()
    olympics._try_model(tmp_path, rules.track("vision"))  # handed in all the same
    assert "without trying whether it loads" in capsys.readouterr().err

    def measured(rule: rules.Track) -> None:
        raise sandbox.SandboxUnavailable("no sandbox here")

    monkeypatch.setattr(olympics, "_measured", measured)
    assert olympics.grade_cell("vision", "accuracy") == 0.0
    assert "accuracy: no sandbox here: 0 of" in capsys.readouterr().out
