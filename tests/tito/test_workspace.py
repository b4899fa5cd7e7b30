"""A workspace keeps what the student wrote, whatever happens around it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nbformat
import pytest
from small_course import Tito, edit, release, solve

from tito.errors import TitoError
from tito.package.names import MODULES
from tito.student import backups, lab, start, workspace


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

    def serve(words: list[str], root: Path) -> int:
        called.append((words, lab.environment(root)))
        return 0

    monkeypatch.setattr(lab, "serve", serve)
    monkeypatch.setenv("PYTHONPATH", ".")
    monkeypatch.setenv("TITO_TINYTORCH", str(tmp_path))
    tito("lab", "--no-browser", "--port", "9999", "--release", course)
    root = tmp_path / "workspace"
    assert workspace.is_workspace(root)
    words, env = called[0]
    assert words[:4] == [sys.executable, "-m", "tito.jupyter", "jupyterlab"]
    assert set(lab.OFFLINE) <= set(words)
    assert f"--ServerApp.root_dir={root}" in words and "--no-browser" in words
    assert "--ServerApp.port=9999" in words
    free = lab.arguments(root, True, None)
    assert not [word for word in free if "port" in word], "a student's own setting counts"
    assert "--LabApp.default_url=/lab/tree/Start.md" in words and (root / "Start.md").is_file()
    config = Path(env["JUPYTER_CONFIG_PATH"].split(":")[0])
    defaults = json.loads((config / "labconfig" / "default_setting_overrides.json").read_text())
    assert defaults["@jupyterlab/docmanager-extension:plugin"]["autosaveInterval"] == 15
    hidden = json.loads((config / "labconfig" / "page_config.json").read_text())["disabledExtensions"]
    assert hidden["@jupyter/nbgrader:create-assignment"] and "@jupyter/nbgrader:assignment-list" not in hidden
    # relative paths are made absolute, and the student's package is found by the workspace alone
    assert str(tmp_path) in env["PYTHONPATH"].split(":") and "TITO_TINYTORCH" not in env
    monkeypatch.chdir(root / "01_tensor")
    assert lab.ready(None) == root


def test_lab_opens_no_second_workspace_by_mistake(tito: Tito, course: Path, tmp_path: Path) -> None:
    """`tito lab my_olympic` made an empty workspace; `tito lab` beside one, too."""
    tito("init", "my_olympics", "--release", course)
    assert "`tito init my_olympic` makes one there; in" in (said := tito.refuses("lab", "my_olympic"))
    assert said.rstrip().endswith("there is my_olympics") and not (tmp_path / "my_olympic").exists()
    assert lab.ready(None) == tmp_path / "my_olympics"
    tito("init", "--release", course)  # beside the only one: it is meant
    assert [path.name for path in workspace.within(tmp_path)] == ["my_olympics"]
    tito("init", "second", "--release", course)
    assert "holds 2 workspaces, my_olympics, second: go to the one" in tito.refuses("module", "status")
    with pytest.raises(TitoError, match="holds 2 workspaces"):
        lab.ready(None)


def test_a_lesson_is_found_by_its_word(tito: Tito, course: Path, tmp_path: Path) -> None:
    ws, _ = workspace.init(tmp_path / "ws", course)
    assert {ws.module(word) for word in ("1", "01", "tensor", "01_tensor")} == {"01_tensor"}


def test_submit_asks_for_the_track(
    tito: Tito, course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --track it was vision: someone in speed/ was told that the vision model is missing."""
    tito("init", "ws", "--release", course)
    assert "which track? Say --track vision|language|speed|compression" in tito.refuses("olympics", "submit")
    (tmp_path / "ws" / "speed" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "ws" / "speed" / "deep")
    assert "speed" in tito.refuses("olympics", "submit")


def test_the_mark_is_readable(tito: Tito, course: Path, tmp_path: Path) -> None:
    tito("init", "ws", "--release", course)
    mark = json.loads((tmp_path / "ws" / ".tito" / "workspace.json").read_text())
    assert mark["schema"] == 1


def test_the_start_page_keeps_what_a_student_types(tito: Tito, course: Path, tmp_path: Path) -> None:
    tito("init", "ws", "--release", course)
    ws = workspace.Workspace(tmp_path / "ws")
    page = ws.root / start.PAGE
    fresh = page.read_text()
    assert "| [Lesson 01](01_tensor/01_tensor.ipynb) | ○ not begun | 0 of 2 |" in fresh
    page.write_text("Before it.\n" + fresh + "\nMy notes: ask about **strides**.\n")
    solve(ws.notebook("01_tensor"), "double")
    start.refresh(ws)
    text = page.read_text()
    assert text.startswith("Before it.\n") and text.endswith("\nMy notes: ask about **strides**.\n")
    assert "◐ begun" in text and text.count("# Torch Olympics: start here") == 1
    assert not (ws.private / "backups").exists()
    page.write_text(text.replace("start here", "my page"))  # in our part: kept as a backup, then ours again
    start.refresh(ws)
    assert page.read_text() == text
    assert ["my page" in path.read_text() for path in (ws.private / "backups").iterdir()] == [True]
    page.write_text("A file of my own.\n")
    start.refresh(ws)
    assert page.read_text().endswith("\nA file of my own.\n") and "start here" in page.read_text()


def test_the_start_page_leads_on(
    tito: Tito, course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (course / "vision").mkdir()
    nb = nbformat.read(course / "01_tensor" / "01_tensor.ipynb", 4)
    nb.cells[0].source = "# Vision | <b>\n\n**You need:** modules 01 and 02 completed."
    nbformat.write(nb, course / "vision" / "vision.ipynb")
    tito("init", "ws", "--release", course)
    ws = workspace.Workspace(tmp_path / "ws")
    assert "| [Vision  b](vision/vision.ipynb) | ○ not begun | 01 to 02; to do: 01 to 02 |" in start.text(ws)
    monkeypatch.chdir(ws.root)
    assert "It needs lessons 01 to 02; to do: 01 to 02." in tito("olympics", "init", "--release", course)
    assert "## Foundation, 01-07\n" in start.text(ws) and "Architecture" not in start.text(ws)
    assert tito("module", "status").splitlines()[1] == "Foundation, 01-07"
    ws.notebook("02_activations").write_text("{cut")
    assert "✗ damaged" in start.text(ws)
    ws.record("vision", {"submitted": "2026-01-02T03:04:05+00:00"})
    assert "✓ handed in 2026-01-02" in start.text(ws)


def test_restore_brings_back_what_was_there(
    tito: Tito, course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tito("init", "ws", "--release", course)
    ws = workspace.Workspace(tmp_path / "ws")
    monkeypatch.chdir(ws.root)
    assert "no backup" in tito.refuses("module", "restore", "01")
    solve(ws.notebook("01_tensor"), "double")
    mine = ws.notebook("01_tensor").read_bytes()
    assert [path.read_bytes() for path in backups.snapshot_all(ws)] == [mine]
    assert backups.snapshot_all(ws) == [], "nothing has changed since"
    ws.notebook("01_tensor").write_text("{half-writ")  # a full disk, a power cut
    message = tito.refuses("module", "complete", "01")
    assert "not a readable notebook" in message and "tito module restore 01" in message
    assert str(backups.copies(ws, "01_tensor")[0].path) in message
    done = tito.json("module", "restore", "1")
    assert ws.notebook("01_tensor").read_bytes() == mine
    assert Path(done["backup"]).read_text(encoding="utf-8") == "{half-writ", "what was replaced is kept too"
    tito("module", "reset", "01")
    tito("module", "restore", "01")
    assert ws.notebook("01_tensor").read_bytes() == mine
    listed = tito("module", "restore", "01", "--list").splitlines()
    assert len(listed) == len(backups.copies(ws, "01_tensor")) >= 3
    assert "no backup nowhere" in tito.refuses("module", "restore", "01", "--from", "nowhere")
    ws.notebook("01_tensor").unlink()
    tito("module", "restore", "01", "--from", Path(done["from"]).name)
    assert ws.notebook("01_tensor").read_bytes() == mine


def test_backups_are_thinned_out_slowly(course: Path, tmp_path: Path) -> None:
    ws, _ = workspace.init(tmp_path / "ws", course)
    folder = ws.private / "backups"
    folder.mkdir()
    for day in range(1, 29):  # long ago
        (folder / f"01_tensor.202001{day:02d}T120000.ipynb").write_text(str(day))
    other = folder / "01_tensor_notes.20200101T120000.ipynb"
    other.write_text("another notebook's")
    solve(ws.notebook("01_tensor"), "double")
    backups.snapshot(ws, "01_tensor")
    kept = backups.copies(ws, "01_tensor")
    assert len(kept) == backups.KEEP and kept[-1].path.read_text() == "10" and other.exists()
    for body in range(30):  # today's stay, all of them
        edit(ws.notebook("01_tensor"), "double", lambda source, n=body: f"{source}\n# {n}")
        backups.snapshot(ws, "01_tensor")
    kept = backups.copies(ws, "01_tensor")
    assert len(kept) == 31 and not any(copy.made.year == 2020 for copy in kept)


def test_every_lesson_has_its_tier() -> None:
    names = [f"{number}_{name}" for name, number in MODULES.items()]
    found = start.tiers(sorted(names))
    assert [len(lessons) for lessons in found.values()] == [7, 6, 6]
    assert [lessons[0][:2] for lessons in found.values()] == ["01", "08", "14"]
