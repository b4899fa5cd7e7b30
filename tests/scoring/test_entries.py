"""The reference entries: each script starts as its report says; each report is about the files beside it."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.scoring import rules

ENTRIES = Path(__file__).resolve().parents[2] / "course" / "entries"
SCRIPTS = [*sorted(ENTRIES.glob("*/train.py")), ENTRIES / "speed" / "declare.py", ENTRIES / "score.py"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ENTRIES)))
def test_scripts_start_from_any_folder(script, tmp_path):
    done = subprocess.run([sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr


# a new track may do without an entry of the course; these four have one
MEASURED = sorted(
    {"vision", "language", "speed", "compression"} | {p.parent.name for p in ENTRIES.glob("*/result.json")}
)


@pytest.mark.parametrize("track", MEASURED)
def test_results_are_of_the_files_that_are_there(track):
    result = json.loads((ENTRIES / track / "result.json").read_text())
    assert result["valid"] and result["split"] == "test"
    names = ["model.safetensors"] + ["tokenizer.json"] * rules.track(track).text
    size = sum((ENTRIES / track / name).stat().st_size for name in names)
    assert result["metrics"]["size_bytes"] == size  # and no code beyond what is free
    training = json.loads((ENTRIES / track / "training.json").read_text())
    assert result["metrics"]["training_seconds"] == training["seconds"] < rules.track(track).limits.training_s
    report = (ENTRIES / track / "report.md").read_text()
    assert f"{(ENTRIES / track / 'model.safetensors').stat().st_size:,}" in report


def test_models_are_small():
    files = {path.resolve() for path in ENTRIES.glob("*/model.safetensors")}
    assert sum(path.stat().st_size for path in files) < 10_000_000


def test_the_speed_entry_runs_the_checkpoint_of_the_closed_division():
    declared = json.loads((ENTRIES / "speed" / "training.json").read_text())
    digest = hashlib.sha256((ENTRIES / "speed" / "model.safetensors").read_bytes()).hexdigest()
    assert (declared["division"], declared["checkpoint"]) == ("closed", digest)
