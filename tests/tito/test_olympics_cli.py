"""The student's side of a track: rules, packing and handing in, the board, and what the notebook imports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from small_course import Tito
from submissions import submission
from texts import text_submission

from autograder.errors import GradingError
from autograder.gradebook import exchange as exchanges
from autograder.leaderboard import export, results_file
from autograder.scoring import rounds, rules
from tito.errors import TitoError
from tito.student import olympics, start, workspace
from tito.student import published as published_module
from tito.student.workspace import Workspace

NETWORK = "#| export\nimport tinytorch\n\n\nclass Model(tinytorch.Model):\n    pass\n"


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose vision track is ready to hand in, with a stand-in package and model."""
    release = tmp_path / "release"
    (release / "vision").mkdir(parents=True)
    nb = new_notebook(cells=[new_code_cell("import os"), new_code_cell(NETWORK)])
    nbformat.write(nb, release / "vision" / "vision.ipynb")
    monkeypatch.delenv("TITO_TINYTORCH", raising=False)
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path / "no data"))
    made, _ = workspace.init(tmp_path / "ws", release)
    entry = submission(tmp_path / "entry")
    shutil.copytree(entry / "tinytorch", made.package, dirs_exist_ok=True)
    (made.package / "spatial.py").write_text('"""A module."""\n')
    for name in ("model.safetensors", "training.json"):
        shutil.copyfile(entry / name, made.root / "vision" / name)
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture
def tito(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tito:
    return Tito(monkeypatch, capsys)


# ---- rules, init, board


def test_rules_come_from_the_table(tito: Tito) -> None:
    out = tito("olympics", "rules", "--track", "vision")
    for words in (
        rules.TRACKS["vision"].task,
        "80%",
        "accuracy 40",
        "8 MB 0.50",
        "no PyTorch",
        "1.5 points worse",
    ):
        assert words in out
    assert tito.json("olympics", "rules")["points"]["innovation"] == 10
    for track, words in (("language", "bits/byte"), ("speed", "kept"), ("compression", "points lost")):
        out = tito("olympics", "rules", "--track", track)
        assert words in out and rules.TRACKS[track].gate in out
    assert "no track" in tito.refuses("olympics", "rules", "--track", "chess")


def test_init_never_replaces(tito: Tito, ws: Workspace, tmp_path: Path) -> None:
    ws.notebook("vision").write_text(ws.notebook("vision").read_text() + "\n")
    mine = ws.notebook("vision").read_bytes()
    assert "as you left it" in tito("olympics", "init", "--release", tmp_path / "release")
    assert ws.notebook("vision").read_bytes() == mine
    shutil.rmtree(ws.root / "vision")
    assert tito.json("olympics", "init", "--release", tmp_path / "release")["added"] == ["vision"]


def published(*entries: dict[str, Any]) -> dict[str, Any]:
    """Results of a class, as `tito export` writes them."""
    return results_file.document("Class 1", list(entries))


def entry(name: str, points: float, **more: Any) -> dict[str, Any]:
    metrics = {"accuracy": 0.871, "images_per_second": 812.4, "size_bytes": 7_900_000}
    told = {"track": "vision", "dataset": "digits", "valid": True, "reasons": [], "metrics": metrics,
            "scores": {}, "points": {"accuracy": points}, "split": "private", "level": "bubblewrap",
            "machine": None, "date": "2026-11-27"}  # fmt: skip
    return {**export.from_score(told, name, "graded"), "class": "Class 1", "points": points, **more}


def test_the_board_ranks_as_the_page_does(tito: Tito, ws: Workspace) -> None:
    found = published(entry("lazy", 0, valid=False), entry("swift", 71.5), entry("deep", 83))
    Path("results.json").write_text(json.dumps(found), encoding="utf-8")
    told = tito.json("olympics", "leaderboard", "--track", "vision")
    assert [(row["rank"], row["name"]) for row in told["entries"]] == [
        (1, "deep"),
        (2, "swift"),
        (None, "lazy"),
    ]
    out = tito("olympics", "leaderboard")
    assert "Class 1, from " in out and "87.1%, 812 images/s, 7.9 MB" in out and "INVALID" in out
    page = (ws.root / "Start.md").read_text()
    assert "| vision | 1 | deep | 83.00 |" in page and str(ws.root / "results.json") in page


def test_without_a_class_the_board_is_the_courses(tito: Tito, ws: Workspace) -> None:
    """No results are no fault; results that were named, or cannot be used, are."""
    told = tito.json("olympics", "leaderboard", "--track", "vision")
    (row,) = told["entries"]
    assert (told["results"], row["rank"], row["badge"]) == (None, None, "reference") and row["points"] > 50
    out = tito("olympics", "leaderboard")
    assert all(
        f"Course entry ({track})" in out and rule.record in out for track, rule in rules.TRACKS.items()
    )
    assert "tito init --results" in out
    assert "no such file" in tito.refuses("olympics", "leaderboard", "--results", "results.json")
    assert "begins with https://" in tito.refuses("olympics", "leaderboard", "--results", "http://x/r.json")
    assert "no track" in tito.refuses("olympics", "leaderboard", "--track", "chess")
    for wrong in ('{"entries": [{}]}', "[" * 100_000, "\0"):
        Path("results.json").write_text(wrong, encoding="utf-8")
        assert "not a results file" in tito.refuses("olympics", "leaderboard", "--results", "results.json")
        assert "Course entry" in tito("olympics", "leaderboard") and tito.err.count("\n") == 1


def test_where_a_class_publishes(
    tito: Tito, ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file or an address that `tito init` keeps, else the exchange, where all may read them."""
    from traitlets.config import Config

    exchange = tmp_path / "exchange"
    config = Config({"Exchange": {"root": str(exchange)}, "CourseDirectory": {"course_id": "dl101"}})
    (tmp_path / "made.json").write_text(json.dumps(published(entry("of the exchange", 1))))
    with pytest.raises(GradingError, match="is not there: make it"):
        exchanges.publish(config, tmp_path / "made.json")
    exchange.mkdir()
    shared = exchanges.publish(config, tmp_path / "made.json")
    assert shared == exchange / "dl101" / "results.json" and shared.stat().st_mode & 0o777 == 0o644
    (ws.root / "nbgrader_config.py").write_text(
        f"c = get_config()\nc.CourseDirectory.course_id = 'dl101'\nc.Exchange.root = {str(exchange)!r}\n"
    )
    assert "of the exchange" in tito("olympics", "leaderboard")
    shared.write_text(json.dumps(published(entry("newer", 1))))
    assert "| newer |" in start.text(ws)

    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps(published(entry("of the file", 1))))
    tito("init", ws.root, "--release", tmp_path / "release", "--results", kept)
    assert "of the file" in tito("olympics", "leaderboard")

    address = "https://course.example.org/results.json"
    tito("init", ws.root, "--release", tmp_path / "release", "--results", address)
    asked = []
    monkeypatch.setattr(published_module, "_fetch", lambda place: asked.append(place) or kept.read_bytes())
    assert f"<{address}>" in start.text(ws) and "of the file" not in start.text(ws) and not asked
    assert "of the file" in tito("olympics", "leaderboard") and asked == [address]
    assert "of the file" in start.text(ws) and asked == [address]

    def fails(place: str) -> bytes:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(published_module, "_fetch", fails)
    assert "Course entry" in tito("olympics", "leaderboard") and "no route" in tito.err
    assert "no route" in tito.refuses("olympics", "leaderboard", "--results", address)


def test_a_name_cannot_steer_the_terminal_or_the_page(tito: Tito, ws: Workspace) -> None:
    name = "\x1b[2J\x1b]0;x\x07\u202egnp.\r|<b>[a](javascript:x)`"
    Path("results.json").write_text(
        json.dumps({**published(entry(name, 9)), "course": "C\x1b[31m"}), encoding="utf-8"
    )
    out = tito("olympics", "leaderboard", "--track", "vision")
    assert all(c.isprintable() for line in out.split("\n") for c in line)
    (row,) = [line for line in (ws.root / "Start.md").read_text().split("\n") if "| vision | 1 |" in line]
    assert row.isprintable() and not set("<>[]`") & set(row) and row.count("|") == 6


# ---- submit


def test_submit_writes_a_zip_that_nbgrader_collects(tito: Tito, ws: Workspace, tmp_path: Path) -> None:
    (ws.root / "vision" / "secret.txt").write_text("not part of it")
    (ws.root / "vision" / "train.py").write_text("print('an audit runs this')")
    done = tito.json("olympics", "submit", "--track", "vision", "--student", "ada.l")
    archive = Path(done["zip"])
    names = [
        "model.safetensors",
        "network.py",
        "tinytorch/__init__.py",
        "tinytorch/spatial.py",
        "train.py",
        "training.json",
    ]
    assert sorted(zipfile.ZipFile(archive).namelist()) == [*names, "vision.ipynb"]
    assert archive.parent == ws.root / "submissions" and archive.name.startswith("ada.l_vision_")
    assert "class Model(tinytorch.Model)" in zipfile.ZipFile(archive).read("network.py").decode()

    course = tmp_path / "course"
    inbox = course / "downloaded" / "vision" / "archive"
    inbox.mkdir(parents=True)
    shutil.copytree(tmp_path / "release", course / "release")
    shutil.copy(archive, inbox)
    found = subprocess.run(
        [sys.executable, "-m", "nbgrader", "zip_collect", "vision", f"--CourseDirectory.root={course}",
         r"--FileNameCollectorPlugin.named_regexp=.*/(?P<student_id>[\w.-]+)_vision_(?P<timestamp>\w+)/(?P<file_id>.+)",
         "--FileNameCollectorPlugin.valid_ext=['.ipynb', '.py', '.json', '.safetensors']"],
        cwd=course, capture_output=True, text=True, check=False,
    )  # fmt: skip
    submitted = course / "submitted" / "ada.l" / "vision"
    assert (submitted / "tinytorch" / "spatial.py").is_file(), found.stderr
    assert (submitted / "model.safetensors").read_bytes() == (
        ws.root / "vision" / "model.safetensors"
    ).read_bytes()


def test_submit_hands_over_to_nbgrader_where_it_is_set_up(tito: Tito, ws: Workspace, tmp_path: Path) -> None:
    exchange = tmp_path / "exchange"
    inbound = exchange / "dl101" / "inbound"
    (ws.root / "nbgrader_config.py").write_text(
        f"c = get_config()\nc.CourseDirectory.course_id = 'dl101'\nc.Exchange.root = {str(exchange)!r}\n"
        f"c.Exchange.cache = {str(tmp_path / 'cache')!r}\n"
    )
    assert tito.json("olympics", "submit", "--track", "vision")["zip"], (
        "no inbound folder yet: there is nothing to hand over to"
    )
    inbound.mkdir(parents=True)
    shutil.copytree(tmp_path / "release", exchange / "dl101" / "outbound")
    for folder in (exchange, *exchange.rglob("*")):
        folder.chmod(0o777)
    done = tito.json("olympics", "submit", "--track", "vision")
    assert (done["course"], done["zip"]) == ("dl101", None)
    (handed,) = inbound.iterdir()
    assert (handed / "tinytorch" / "spatial.py").is_file() and (handed / "network.py").is_file()


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("vision/model.safetensors", None, "model.safetensors is missing"),
        ("vision/model.safetensors", 50_000_001, "is not a safetensors file"),
        ("vision/model.safetensors", b"garbage", "is not a safetensors file (only 7 bytes)"),
        ("vision/training.json", None, "training.json is missing"),
        ("vision/training.json", b"[]", "refuse this entry, nothing was handed in: training.json is not"),
        ("vision/training.json", b'{"seconds": 9000}', "took 2.5 h: the limit is 2 h"),
        ("vision/train.py", 200_001, "train.py has more than 200,000 bytes: no audit would run it"),
        ("vision/vision.ipynb", None, "vision.ipynb is missing"),
        ("tinytorch/spatial.py", None, "holds no module yet"),
    ],
)
def test_what_cannot_be_handed_in(
    tito: Tito, ws: Workspace, path: str, content: bytes | int | None, words: str
) -> None:
    target = ws.root / path
    if content is None:
        target.unlink()
    elif isinstance(content, int):
        with target.open("wb") as out:
            out.truncate(content)
    else:
        target.write_bytes(content)
    assert words in tito.refuses("olympics", "submit", "--track", "vision")
    assert not (ws.root / "submissions").exists()


def test_a_text_track_packs_its_tokenizer(tito: Tito, ws: Workspace, tmp_path: Path) -> None:
    entry = text_submission(tmp_path / "text")
    place = ws.root / "language"
    place.mkdir()
    nb = new_notebook(cells=[new_code_cell("#| export\n" + (entry / "network.py").read_text())])
    nbformat.write(nb, ws.notebook("language"))
    for name in ("model.safetensors", "training.json"):
        shutil.copyfile(entry / name, place / name)
    shutil.copyfile(entry / "tinytorch" / "__init__.py", ws.package / "__init__.py")
    hand = ("olympics", "submit", "--track", "language", "--student", "ada")
    assert "tokenizer.json is missing" in tito.refuses(*hand)
    (place / "tokenizer.json").write_text('{"format": 2}')
    assert "nothing was handed in: tokenizer.json has the type" in tito.refuses(*hand)
    shutil.copyfile(entry / "tokenizer.json", place / "tokenizer.json")
    assert "tokenizer.json" in zipfile.ZipFile(tito.json(*hand)["zip"]).namelist()


def handed(tito: Tito, *words: object) -> tuple[dict[str, bytes], dict[str, str]]:
    """Submit; the files of the package, and where each part came from."""
    done = tito.json("olympics", "submit", "--track", "vision", *words)
    with zipfile.ZipFile(done["zip"]) as packed:
        return {n: packed.read(n) for n in packed.namelist()}, {
            p["name"]: p["origin"] for p in done["packed"]
        }


def test_named_files_take_the_place_of_the_workspaces(tito: Tito, ws: Workspace, tmp_path: Path) -> None:
    """And belong together: no log, network or script of another model is packed with them."""
    mine = tmp_path / "mine"
    submission(mine)
    nb = new_notebook(cells=[new_code_cell(NETWORK), new_markdown_cell("*Your report.*")])
    nb.cells[1].metadata["nbgrader"] = {"grade": True, "solution": True, "grade_id": "innovation"}
    nbformat.write(nb, ws.notebook("vision"))
    (ws.root / "vision" / "train.py").write_text("'the other one'")
    (mine / "model.safetensors").rename(mine / "your_model.pt")
    (mine / "your_training.py").write_text("print('saves model.safetensors')\n")
    (mine / "your_analysis.md").write_text("# All that I did\n")
    model = ("--model", mine / "your_model.pt")
    code, report = ("--code", mine / "your_training.py"), ("--report", mine / "your_analysis.md")
    files, origins = handed(tito, *model, *code, *report)
    assert files["model.safetensors"] == (mine / "your_model.pt").read_bytes()
    assert (files["train.py"], files["training.json"]) == (
        (mine / "your_training.py").read_bytes(), (mine / "training.json").read_bytes(),
    )  # fmt: skip
    assert b"# All that I did" in files["vision.ipynb"] and b"Your report" not in files["vision.ipynb"]
    assert "network.py" not in files and origins["model.safetensors"] == f"from {mine / 'your_model.pt'}"
    assert b"Your report" in ws.notebook("vision").read_bytes()

    (mine / "training.json").unlink()
    files, origins = handed(tito, *model, *code)
    assert (
        json.loads(files["training.json"])["seconds"] is None and "without a time" in origins["training.json"]
    )
    assert b"Your report" in files["vision.ipynb"]
    out = tito("olympics", "submit", "--track", "vision", *model, *code)
    assert "from vision/vision.ipynb" in out and "bytes" in out and "note:" not in out
    (mine / "your_training.py").write_text("pass\n")
    assert "note: an audit runs your_training.py" in tito(
        "olympics", "submit", "--track", "vision", *model, *code
    )

    submit = ("olympics", "submit", "--track", "vision")
    assert "training.json is missing" in tito.refuses(*submit, *model)
    for option in ("--model", "--code", "--report"):
        assert f"{option} none is not there" in tito.refuses(*submit, option, "none")
        assert f"{option} {mine} is a folder" in tito.refuses(*submit, option, mine)
    for content, says in (
        (b"", "says nothing yet"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b"x" * 100_001, "100,000"),
    ):
        (mine / "your_analysis.md").write_bytes(content)
        assert says in tito.refuses(*submit, *model, *code, *report)
    for content, says in ((b"def (", "is not Python"), (b"#" * 200_001, "more than 200,000 bytes")):
        (mine / "your_training.py").write_bytes(content)
        assert says in tito.refuses(*submit, *model, *code)
    (mine / "your_model.pt").write_bytes(b"PK\x03\x04 torch.save's")
    assert "is a pickle" in tito.refuses(*submit, *model)


def test_a_student_name_cannot_leave_the_folder(tito: Tito, ws: Workspace) -> None:
    assert "--student" in tito.refuses("olympics", "submit", "--track", "vision", "--student", "../../x")


# ---- what the notebook imports


def test_grade_cells_share_one_measurement(
    ws: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    score = olympics.scorer.score
    monkeypatch.setattr(
        olympics.scorer,
        "score",
        lambda *a: calls.append(a[-1]) or score(*a[:-1], replace(a[-1], budget_s=0.5)),
    )
    monkeypatch.setattr(olympics, "_RESULTS", {})
    monkeypatch.setattr(rounds, "CACHE_RATIO", 100.0)  # three short rounds on a busy machine prove nothing
    for dimension, most in (("accuracy", 40), ("speed", 20), ("size", 20), ("quality", 10)):
        points = olympics.grade_cell("vision", dimension)
        assert type(points) is float and 0 <= points <= most
        out, err = capsys.readouterr()
        assert f"of {most} points" in out and "digits public" in out and not err
    assert len(calls) == 1 and calls[0].official is False
    (ws.root / "vision" / "model.safetensors").write_bytes(b"PK\x03\x04")
    assert olympics.grade_cell("vision", "accuracy") == 0.0
    assert "INVALID" in capsys.readouterr().out and len(calls) == 2
    (ws.root / "vision" / "model.safetensors").unlink()
    assert olympics.grade_cell("vision", "size") == 0.0
    assert "the save cell writes it" in capsys.readouterr().out


def test_what_the_course_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert sorted(path.name for path in olympics.given("speed").glob("*.safetensors")) == [
        "model.safetensors"
    ]
    monkeypatch.setattr("autograder.scoring.staging.REPOSITORY", tmp_path)
    with pytest.raises(TitoError, match="the course gives no speed model: expected .*model.safetensors"):
        olympics.given("speed")


def test_training_log(ws: Workspace) -> None:
    path = olympics.save_training("vision", [{"epoch": 1, "seconds": 1.5}, {"epoch": 2, "seconds": 2.5}])
    assert path == ws.root / "vision" / "training.json"
    log = json.loads(path.read_text())
    assert (log["seconds"], log["epochs"], len(log["history"])) == (4.0, 2, 2)
    assert "division" not in log


def test_training_log_declares_the_division(ws: Workspace) -> None:
    (ws.root / "compression").mkdir(exist_ok=True)
    history = [{"epoch": 1, "seconds": 1.5}]
    path = olympics.save_training("compression", history, division="closed", checkpoint="ab")
    log = json.loads(path.read_text())
    assert (log["division"], log["checkpoint"], log["seconds"]) == ("closed", "ab", 1.5)


def test_the_network_is_saved_as_it_ran_last(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = [
        "#| export\nimport tinytorch\n\n\ndef helper():\n    return 1\n",
        "#| export\nclass Network(tinytorch.Model):\n    size = 1\n",
        "#| export\nclass Network(tinytorch.Model):\n    size = helper()\n",
        "#| export\nclass Network(Network):\n    def wide(self):\n        return 8\n",
        "#| export\nclass Network(Network):\n    def wide(self):\n        return 16\n",
    ]
    monkeypatch.setattr(olympics, "_history", lambda: ran)
    text = olympics.save_network("vision").read_text()
    assert text.count("class Network") == 1 and "return 16" in text and "return 8" not in text
    assert "size = helper()" in text and "def helper" in text and "size = 1\n" not in text
