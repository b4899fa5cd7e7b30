"""The commands of the page that this course began from, letter for letter, by the real program."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from autograder.data import datasets

ROOT = Path(__file__).resolve().parents[2]

LINES = (
    "tito benchmark accuracy --model your_model.pt --dataset cifar10",
    "tito benchmark speed --model your_transformer.pt --input-length 512",
    "tito benchmark size --model your_model.pt",
    "tito benchmark memory --model your_model.pt",
    "tito olympics init --track vision --output ./my_vision_project",
    "tito olympics init --track language --output ./my_language_project",
    "tito olympics init --track vision",
    "tito olympics rules",
    "tito olympics submit --track vision --model your_model.pt --code your_training.py --report your_analysis.md",  # noqa: E501
    "tito olympics leaderboard",
    "tito olympics leaderboard --track vision",
)
BOARD = (0, "No class has published its results to you yet")
RULES = (0, "accuracy of at least 80%")
SIZE = (0, "the limit of vision, language and speed is 50 MB, of compression is 10 MB")

SCRIPT = """
import numpy as np
from tinytorch import Tensor, Linear, Conv2d, Attention  # YOUR code
from tinytorch import Adam, CrossEntropyLoss
from tinytorch import DataLoader, train_loop
from tinytorch import GPT, Flatten, Module, TensorDataset, prune, quantize, save


class YourCustomArchitecture(Module):
    def __init__(self, width=8):
        self.filters, self.flat = Conv2d(3, width, 3, stride=4, padding=1), Flatten()
        self.head = Linear(width * 8 * 8, 10)

    def forward(self, x):
        return self.head(self.flat(self.filters(x)))


rng = np.random.default_rng(0)
pictures, labels = rng.random((40, 3, 32, 32), np.float32), rng.integers(0, 10, 40)
train_loader = DataLoader(TensorDataset(pictures, labels), 20)
model = YourCustomArchitecture()
optimizer = Adam(model.parameters(), lr=0.001)
train_loop(model, train_loader, optimizer, epochs=1, progress=False)
quantized_model = quantize(model)
pruned_model = prune(quantized_model, sparsity=0.5)
save(pruned_model, "your_model.pt")
save(prune(quantize(GPT(96, d_model=32, n_heads=2, n_layers=1)), sparsity=0.5), "your_transformer.pt")
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as CIFAR-10 is: 300 pictures of noise to test on, and nothing to train on."""
    folder = tmp_path_factory.mktemp("data") / datasets.CIFAR10_FOLDER
    folder.mkdir()
    for name in datasets.TRAIN_FILES:
        with (folder / name).open("wb") as file:
            file.truncate(datasets.BATCH_RECORDS * datasets.RECORD)
    records = np.random.default_rng(0).integers(0, 256, (300, datasets.RECORD), dtype=np.uint8)
    records[:, 0] %= 10
    records.tofile(folder / datasets.TEST_FILE)
    return folder.parent


def tito(line: str, folder: Path, data: Path, source: Path = ROOT) -> tuple[int, str, str]:
    """Run a line of LINES in a folder, by the tito of a clone."""
    words = shlex.split(line)
    assert words[0] == "tito"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TITO_", "TINYTORCH_"))}
    env = {**kept, "TINYTORCH_DATA": str(data), "PYTHONPATH": str(source), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tito", *words[1:]],
        cwd=folder, env=env, capture_output=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def run_all(folder: Path, data: Path, expected: list[tuple[int, str]], source: Path = ROOT) -> None:
    """Every line in its order: the exit code, the words that it says, and one line where it fails."""
    assert len(expected) == len(LINES)
    for line, (code, words) in zip(LINES, expected, strict=True):
        found, out, err = tito(line, folder, data, source)
        assert found == code, f"{line}: {out}{err}"
        assert words in (err if code else out), f"{line}: {out}{err}"
        if code:
            assert err.startswith("tito: ") and len(err.splitlines()) == 1 and out == "", (
                f"{line}: {out}{err}"
            )


def models(folder: Path, package: Path) -> None:
    """What the page's own snippet leaves, and the report."""
    (folder / "your_training.py").write_text(SCRIPT)
    (folder / "your_analysis.md").write_text(
        "# Report\n\nOne layer of filters, quantized, half of it pruned.\n"
    )
    env = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run(
        [sys.executable, "your_training.py"], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_in_a_fresh_workspace(tmp_path: Path, pictures: Path) -> None:
    assert tito("tito init ws", tmp_path, pictures)[0] == 0
    ws = tmp_path / "ws"
    shutil.copytree(ROOT / "tinytorch", ws / "tinytorch", dirs_exist_ok=True)
    models(ws, ws)
    submitted = "made here without a time: an audit of your_training.py will tell it"
    run_all(ws, pictures, [
        (0, "300 pictures of cifar10 test"), (0, "16 texts of 512 tokens, 64 of them new"),
        SIZE, (0, "made-up pictures, no data set needed"),
        (0, f"It uses the tinytorch of {ws}."), (0, f"It uses the tinytorch of {ws}."),
        (0, "was there already and is as you left it"), RULES, (0, submitted), BOARD, BOARD,
    ])  # fmt: skip
    (archive,) = (ws / "submissions").iterdir()
    with zipfile.ZipFile(archive) as packed:
        names = {name for name in packed.namelist() if not name.startswith("tinytorch/")}
        assert names == {"model.safetensors", "network.py", "train.py", "training.json", "vision.ipynb"}
        assert packed.read("model.safetensors") == (ws / "your_model.pt").read_bytes()
        assert b"half of it pruned" in packed.read("vision.ipynb")
        assert b"train_loop(" not in packed.read("network.py")
    code, _, err = tito(LINES[0], ws, tmp_path / "no data")
    assert code == 2 and "run `tito data fetch cifar10`" in err and len(err.splitlines()) == 1


def test_in_an_empty_folder(tmp_path: Path) -> None:
    missing = (1, "no model file your_model.pt: tinytorch.save writes one")
    run_all(tmp_path, tmp_path / "no data", [
        missing, (1, "no model file your_transformer.pt"), missing, missing,
        (0, "added vision.ipynb"), (0, "added language.ipynb"),
        (0, "workspace/vision/vision.ipynb is yours to fill"), RULES,
        (1, "--model your_model.pt is not there: no such file"), BOARD, BOARD,
    ])  # fmt: skip
    made = sorted(path.name for path in (tmp_path / "my_language_project").iterdir())
    assert made == [".gitignore", ".tito", "language.ipynb", "network.py", "report.md", "train.py"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "my_language_project", "my_vision_project", "workspace",
    ]  # fmt: skip


def test_in_a_clone(tmp_path: Path) -> None:
    """The reference package runs a model there, and git sees nothing new but what the author made."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for folder in ("tito", "autograder", "tinytorch", "release", "modules", "course/entries"):
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("nbgrader_config.py", ".gitignore"):
        shutil.copy(ROOT / name, clone / name)
    git = ["git", "-C", str(clone), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "clone"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    models(clone, clone)
    run_all(clone, tmp_path / "no data", [
        (2, "run `tito data fetch cifar10`"), (0, "16 texts of 512 tokens"), SIZE,
        (0, "MB at most"), (0, "the course's own."), (0, "the course's own."),
        (0, "clone/workspace/vision/vision.ipynb is yours to fill"), RULES,
        (1, "workspace/tinytorch holds no module yet: `tito module complete 01`"), BOARD, BOARD,
    ], source=clone)  # fmt: skip
    status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout
    made = {"your_analysis.md", "your_model.pt", "your_training.py", "your_transformer.pt"}
    assert {line.split()[1] for line in status.splitlines()} == made
