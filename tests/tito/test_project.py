"""A project finds the student's package from wherever it lies; its starter trains and is handed in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from small_course import Tito

from autograder.scoring import rules, staging
from tito.errors import TitoError
from tito.student import lab, olympics, places, project, workspace
from tito.student.places import home
from tito.student.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tito(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tito:
    monkeypatch.delenv("TITO_TINYTORCH", raising=False)
    return Tito(monkeypatch, capsys)


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with the whole package, in a folder with an odd name; the current folder is beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path / "no data"))
    made, _ = workspace.init(tmp_path / "w s #1 100%")
    shutil.copytree(ROOT / "tinytorch", made.package, dirs_exist_ok=True)
    return made


def begin(tito: Tito, track: str, *more: object) -> Path:
    tito("olympics", "init", "--track", track, "--output", f"./my {track} project", *more)
    return Path(f"my {track} project").resolve()


QUICK = {
    "vision": ["--dataset", "digits", "--epochs", "1"],
    "language": ["--epochs", "1", "--dialogues", "120"],
}


@pytest.mark.parametrize("track", list(rules.TRACKS))
def test_the_starter_trains_and_is_handed_in(
    tito: Tito, ws: Workspace, track: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = begin(tito, track)
    words = [sys.executable, "train.py", *QUICK.get(track, [])]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(root)
    assert tito.json("benchmark", "size", "--model", "model.safetensors")["size_bytes"] > 1000
    (root / "report.md").write_text("# Report\n\nMine.\n")
    done = tito.json("olympics", "submit")
    assert (done["track"], Path(done["zip"]).parent) == (track, ws.root / "submissions")
    with zipfile.ZipFile(done["zip"]) as packed:
        assert {"network.py", "train.py", "training.json"} < set(packed.namelist())
        assert packed.read("network.py") == (root / "network.py").read_bytes()
        assert b"Mine." in packed.read(f"{track}.ipynb")


def test_nothing_is_written_over_and_what_is_missing_is_added(tito: Tito, ws: Workspace) -> None:
    root = begin(tito, "vision")
    (root / "train.py").write_text("mine")
    (root / "network.py").unlink()
    told = tito.json("olympics", "init", "--track", "vision", "--output", root)
    assert told["added"] == ["network.py"] and (root / "train.py").read_text() == "mine"
    begin(tito, "vision")
    assert "every file was there and is as it was" in tito.out


def test_a_project_follows_its_workspace_or_says_how(
    tito: Tito, ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = begin(tito, "vision")
    inside = root / "notes"
    inside.mkdir()
    assert home(inside) == ws.root and places.find(inside) == ws
    monkeypatch.chdir(root)
    assert olympics.folder("vision") == root and olympics.folder("speed") == ws.root / "speed"
    assert lab.ready(None) == root and lab.ready(root) == root
    monkeypatch.chdir(tmp_path)

    (tmp_path / "both").mkdir()
    root, moved = root.rename(tmp_path / "both" / "p"), ws.root.rename(tmp_path / "both" / ws.root.name)
    assert home(root) == moved  # they moved together
    root = root.rename(tmp_path / "p")
    with pytest.raises(TitoError, match="no workspace any more") as lost:
        home(root)
    command = f"tito olympics init --track vision --output {root} --workspace FOLDER"
    assert f"name yours with `{command}`" in str(lost.value)
    for words in (["benchmark", "size", "--model", "m.pt"], ["olympics", "submit"], ["lab", "--no-browser"]):
        monkeypatch.chdir(root)
        shutil.copyfile(ROOT / "course/entries/language/model.safetensors", root / "m.pt")
        assert "no workspace any more" in tito.refuses(*words)
    assert "is no workspace" in tito.refuses(
        "olympics", "init", "--track", "vision", "--output", root, "--workspace", root
    )
    tito("olympics", "init", "--track", "vision", "--output", root, "--workspace", moved)
    assert home(root) == moved
    (root / project.MARK).write_text("{")
    with pytest.raises(TitoError, match="damaged"):
        home(root)


def test_where_no_project_can_be(
    tito: Tito, ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: object) -> str:
        return tito.refuses("olympics", "init", *words)

    (tmp_path / "file").write_text("")
    assert "is a file" in refused("--output", "file")
    assert "is your workspace" in refused("--output", ws.root)
    assert "is the course repository" in refused("--output", ROOT)
    assert "no track" in refused("--track", "chess", "--output", "p")
    assert "--workspace" in refused("ws", "--output", "p")
    assert "is for a project" in refused("--workspace", "ws")
    assert "not released speed" in refused(
        "--track", "speed", "--output", "p", "--release", _release(tmp_path)
    )
    assert not (tmp_path / "p").exists()
    root = begin(tito, "vision")
    assert "is a project of vision" in refused("--track", "speed", "--output", root)


def test_a_project_without_a_workspace_says_what_is_missing(
    tito: Tito, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an empty folder of a machine without a clone: made, and one command short."""
    monkeypatch.chdir(tmp_path)
    release = ROOT / "release"
    monkeypatch.setattr(workspace, "repository", lambda: None)
    root = begin(tito, "vision", "--release", release)
    assert "name yours with" in tito.out and json.loads((root / project.MARK).read_text())["workspace"] == []
    with pytest.raises(TitoError, match="no workspace is known to it"):
        home(root)


def _release(tmp_path: Path) -> Path:
    folder = tmp_path / "release" / "vision"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "release" / "vision" / "vision.ipynb", folder)
    return folder.parent


def test_no_starter_is_without_its_files() -> None:
    for track in rules.TRACKS:
        assert set(project._starter(track)) == {"network.py", "train.py", "report.md", ".gitignore"}
        assert staging.SCRIPT in project._starter(track)
