"""Every command of the course's pages, started as the real program, on the real lessons and entries."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from autograder.leaderboard import export
from autograder.scoring import rules

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = ROOT / "course" / "entries"
TITO = Path(sys.executable).with_name("tito")


class Program:
    """`tito` in a process of its own, in a folder."""

    def __init__(self, folder, **env):
        self.folder, self.env = folder, {**os.environ, **env}

    def __call__(self, *words, code=0):
        done = subprocess.run(
            [TITO, *map(str, words)], cwd=self.folder, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == code, f"tito {' '.join(map(str, words))}: {done.stdout}{done.stderr}"
        return done.stdout if code == 0 else done.stderr

    def json(self, *words):
        return json.loads(self(*words, "--json").splitlines()[-1])


def solved(name, target):
    """The lesson as one writes it who solves everything, over the released notebook."""
    nb = nbformat.read(ROOT / "source" / name / f"{name}.ipynb", as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(nb, target)


def test_every_import_of_the_capstone_page():
    names = (
        "Tensor, Linear, Conv2d, Attention, Adam, CrossEntropyLoss, DataLoader, train_loop, quantize, prune"
    )
    code = f"from tinytorch import {names}; print(prune(quantize(Linear(64, 8), bits=8), sparsity=0.5))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_students_commands(tmp_path):
    tito = Program(tmp_path, TINYTORCH_DATA=str(tmp_path / "no data"))
    tito.env.pop("TITO_TINYTORCH", None)
    for track, rule in rules.TRACKS.items():
        assert rule.task in tito("olympics", "rules", "--track", track)
        made = tito.json("olympics", "init", "ws", "--track", track)
        assert Path(made["notebook"]).is_file()
    tito.folder = home = tmp_path / "ws"
    assert "tinytalks" in tito("data", "list")
    assert tito("data", "fetch", "nothing", code=1).startswith("tito: ")
    tito("module", "complete", "01", code=1)  # nothing is solved yet
    solved("01_tensor", home / "01_tensor" / "01_tensor.ipynb")
    tito("module", "complete", "01")
    assert (home / "tinytorch" / "tensor.py").is_file()
    status = tito.json("module", "status")
    assert "01_tensor" in json.dumps(status)
    tito("module", "reset", "01")
    assert "YOUR CODE HERE" in (home / "01_tensor" / "01_tensor.ipynb").read_text()

    shutil.copytree(ROOT / "tinytorch", home / "tinytorch", dirs_exist_ok=True)
    for name in ("model.safetensors", "tokenizer.json", "training.json"):
        shutil.copyfile(ENTRIES / "speed" / name, home / "speed" / name)
    done = tito.json("olympics", "submit", "--track", "speed", "--student", "ada")
    assert Path(done["zip"]).is_file()

    entries = export.reference_entries(ROOT)
    results = export.document("x", entries, names="id")
    (tmp_path / "results.json").write_text(json.dumps(results))
    for track in rules.TRACKS:
        board = tito("olympics", "leaderboard", "--track", track, "--results", tmp_path / "results.json")
        assert f"Course entry ({track})" in board
    assert "usage" in tito("lab", "--help").lower()


@pytest.mark.parametrize("what", ["accuracy", "speed", "size", "memory"])
def test_benchmarks_of_a_language_model(what, tmp_path):
    tito = Program(tmp_path)
    options = {"speed": ["--seconds", "1", "--input-length", "512"], "size": []}
    model = ENTRIES / "language" / "model.safetensors"
    package = ["--tinytorch", ROOT]
    rest = options.get(what, ["--split", "public"])
    found = tito.json("benchmark", what, "--model", model, *package, *rest)
    if what == "accuracy":
        assert found["bits_per_byte"] < 0.35
    elif what == "speed":
        assert found["tokens_per_second"] > 0 and found["latency_p50"] > 0 and found["audit"] == []
    elif what == "size":
        assert found["size_bytes"] == model.stat().st_size + model.with_name("tokenizer.json").stat().st_size
    else:
        assert found["memory_bytes"] > 1e7


def test_an_instructors_commands(tmp_path):
    """One lesson and one student, from the release to the page."""
    name = "11_embeddings"
    for folder in (f"source/{name}", "release"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copyfile(ROOT / "source" / name / f"{name}.ipynb", tmp_path / "source" / name / f"{name}.ipynb")
    config = (ROOT / "nbgrader_config.py").read_text()
    (tmp_path / "nbgrader_config.py").write_text(config + "\nc.ExchangeCollect.check_owner = False\n")
    tito = Program(tmp_path)
    tito("release", name)
    assert (tmp_path / "release" / name / f"{name}.ipynb").is_file()

    stamp = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    inbound = tmp_path / "exchange" / "torch-olympics" / "inbound" / f"ada+{name}+{stamp}+x"
    inbound.mkdir(parents=True)
    solved(name, inbound / f"{name}.ipynb")
    (inbound / "timestamp.txt").write_text(stamp)
    assert tito.json("collect", name)["students"] == ["ada"]
    tito("grade", name)
    tito("feedback", name)
    assert list((tmp_path / "feedback" / "ada" / name).glob("*.html"))
    tito("export", "--names", "id")
    entries = {e["name"]: e for e in json.loads((tmp_path / "results.json").read_text())["entries"]}
    assert entries["ada"]["points"] == entries["ada"]["max_points"] > 0
    tito("leaderboard")
    assert (tmp_path / "leaderboard.html").is_file()


def test_what_an_instructor_asks_too_early(tmp_path):
    """One line each, which names the command that comes first; no bar of nothing."""
    name = "11_embeddings"
    (tmp_path / "source" / name).mkdir(parents=True)
    shutil.copyfile(ROOT / "source" / name / f"{name}.ipynb", tmp_path / "source" / name / f"{name}.ipynb")
    shutil.copyfile(ROOT / "nbgrader_config.py", tmp_path / "nbgrader_config.py")
    tito = Program(tmp_path)
    for words, says in (
        (["grade", "--all"], "nothing is collected yet, run `tito collect"),
        (["grade", name], f"run `tito collect {name}` first"),
        (["feedback", name], f"no {name} is graded yet: run `tito grade {name}` first"),
    ):
        said = tito(*words, code=1)
        assert says in said and len(said.splitlines()) == 1 and said.startswith("tito: "), said


def test_the_program_is_called_tito_however_it_is_started():
    done = subprocess.run([sys.executable, "-m", "tito", "init", "--help"], capture_output=True, text=True)
    assert done.stdout.startswith("Usage: tito init ")


def test_the_demo_and_the_build_say_what_they_do(tmp_path):
    """`make demo` runs the one, `make check` the other; both take minutes."""
    tito = Program(tmp_path)
    for command in ("demo", "build"):
        assert "--help" in tito(command, "--help")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    assert "is not empty and no demo" in tito("demo", "full", "--no-build", code=1)
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
