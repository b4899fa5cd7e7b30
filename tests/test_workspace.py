"""A workspace keeps what the student wrote, whatever happens around it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from small_course import Tito, edit, release, solve

from tito import lab, workspace
from tito.notebook import TitoError


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return release(tmp_path / "release")


@pytest.fixture
def tito(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tito:
    monkeypatch.chdir(tmp_path)
    return Tito(monkeypatch, capsys)


def test_init_makes_a_workspace(tito: Tito, course: Path, tmp_path: Path) -> None:
    made = tito.json("init", "ws", "--release", course)
    assert made == {"workspace": str(tmp_path / "ws"), "added": ["01_tensor", "02_activations"]}
    ws = workspace.Workspace(tmp_path / "ws")
    assert ws.notebook("01_tensor").read_bytes() == (course / "01_tensor" / "01_tensor.ipynb").read_bytes()
    assert ws.modules() == ["01_tensor", "02_activations"]
    assert (ws.package / "__init__.py").is_file() and not (ws.package / "tensor.py").exists()


def test_a_newer_release_replaces_no_notebook(tito: Tito, course: Path, tmp_path: Path) -> None:
    tito("init", "ws", "--release", course)
    ws = workspace.Workspace(tmp_path / "ws")
    solve(ws.notebook("01_tensor"), "double")
    mine = ws.notebook("01_tensor").read_bytes()
    edit(course / "01_tensor" / "01_tensor.ipynb", "test-list", lambda source: source + "  # sharper")
    (course / "03_layers").mkdir()
    (course / "03_layers" / "03_layers.ipynb").write_bytes(
        (course / "01_tensor" / "01_tensor.ipynb").read_bytes()
    )
    (course / "01_tensor" / "picture.png").write_bytes(b"png")
    assert tito.json("init", "ws", "--release", course)["added"] == ["03_layers"]
    assert ws.notebook("01_tensor").read_bytes() == mine
    assert (ws.root / "01_tensor" / "picture.png").read_bytes() == b"png"
    assert ws.released("01_tensor").read_bytes() == (course / "01_tensor" / "01_tensor.ipynb").read_bytes()


def test_reset_keeps_a_backup(
    tito: Tito, course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tito("init", "ws", "--release", course)
    ws = workspace.Workspace(tmp_path / "ws")
    monkeypatch.chdir(ws.root)
    released = ws.notebook("01_tensor").read_bytes()
    assert tito.json("module", "reset", "1") == {"module": "01_tensor", "backup": None}
    for body in ("return 1", "return 2"):  # twice in one second: two backups
        solve(ws.notebook("01_tensor"), "double", body)
        mine = ws.notebook("01_tensor").read_bytes()
        kept = tito.json("module", "reset", "01")["backup"]
        assert Path(kept).read_bytes() == mine and Path(kept).is_relative_to(ws.private / "backups")
        assert ws.notebook("01_tensor").read_bytes() == released
    assert len(list((ws.private / "backups").iterdir())) == 2


def test_status_without_running_anything(tito: Tito, course: Path, tmp_path: Path) -> None:
    tito("init", "--release", course)  # the default, ./workspace, is found from beside it
    ws = workspace.Workspace(tmp_path / "workspace")
    solve(ws.notebook("02_activations"), "relu")
    rows = tito.json("module", "status")["modules"]
    assert [(row["module"], row["state"]) for row in rows] == [
        ("01_tensor", "not begun"),
        ("02_activations", "begun"),
    ]
    assert "02_activations   begun" in tito("module", "status")


def test_refusals_are_one_line(
    tito: Tito, course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no workspace" in tito.refuses("module", "status")
    assert "no released notebooks" in tito.refuses("init", "ws", "--release", tmp_path / "nowhere").replace(
        "holds no released", "no released"
    )
    (tmp_path / "file").write_text("x")
    assert "is a file" in tito.refuses("init", "file", "--release", course)
    tito("init", "ws", "--release", course)
    ws = workspace.Workspace(tmp_path / "ws")
    monkeypatch.chdir(ws.root)
    assert "expected one of 01, 02" in tito.refuses("module", "complete", "07")
    assert "expected one of 01, 02" in tito.refuses("module", "reset", "../ws")
    ws.notebook("01_tensor").write_text("{not json")
    assert "not a readable notebook" in tito.refuses("module", "complete", "01")
    (ws.private / "progress.json").write_text("[]")
    assert "progress.json is damaged" in tito.refuses("module", "status")
    (ws.private / "released" / "02_activations.ipynb").unlink()
    assert "no released copy" in tito.refuses("module", "reset", "02")


def test_init_refuses_the_repository(monkeypatch: pytest.MonkeyPatch, course: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(workspace, "repository", lambda: tmp_path)
    with pytest.raises(TitoError, match="course repository"):
        workspace.init(tmp_path, course)
    monkeypatch.setattr(workspace, "repository", lambda: None)
    with pytest.raises(TitoError, match="tito build"):
        workspace.init(tmp_path / "ws")


def test_lab_makes_the_workspace_it_opens(
    tito: Tito, course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[list[str], dict[str, str]]] = []

    def call(words: list[str], cwd: Path, env: dict[str, str]) -> int:
        called.append((words, env))
        return 0

    monkeypatch.setattr("subprocess.call", call)
    monkeypatch.setenv("PYTHONPATH", ".")
    monkeypatch.setenv("TITO_TINYTORCH", str(tmp_path))
    tito("lab", "--no-browser", "--port", "9999", "--release", course)
    root = tmp_path / "workspace"
    assert workspace.is_workspace(root)
    words, env = called[0]
    assert words[:3] == [sys.executable, "-m", "jupyterlab"]
    assert set(lab.OFFLINE) <= set(words)
    assert f"--ServerApp.root_dir={root}" in words and "--no-browser" in words
    # relative paths are made absolute, and the student's package is found by the workspace alone
    assert str(tmp_path) in env["PYTHONPATH"].split(":") and "TITO_TINYTORCH" not in env
    monkeypatch.chdir(root / "01_tensor")
    assert lab.ready(None) == root


def test_the_mark_is_readable(tito: Tito, course: Path, tmp_path: Path) -> None:
    tito("init", "ws", "--release", course)
    mark = json.loads((tmp_path / "ws" / ".tito" / "workspace.json").read_text())
    assert mark["schema"] == 1
