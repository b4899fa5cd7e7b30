"""Audits: an honest script makes its model again; every way to pretend so fails, with its reason."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from small_course import Tito
from submissions import submission

from autograder import sandbox
from autograder.data import audit_view, datasets
from autograder.gradebook import audit
from autograder.leaderboard import export as results
from autograder.scoring import ledger, rounds, rules, scorer, staging

ROOT = Path(__file__).resolve().parents[2]
LEVELS = [level for level in audit.LEVELS if level in sandbox.available()]
pytestmark = pytest.mark.skipif(
    sandbox.choose() not in audit.LEVELS, reason="an audit needs bubblewrap or Landlock, and refuses less"
)

# One matrix, by least squares, from every `step`-th training picture.
TRAIN = """import os
import numpy as np
import tqdm  # of the training loop
from pathlib import Path
from safetensors.numpy import save_file
from autograder import datasets

data = datasets.load(datasets.usual(), "train")
x = data.images[::{step}].reshape(-1, 3072).astype(np.{dtype}) / 255
x -= x.mean(axis=1, keepdims=True)
inner = x @ x.T + 30 * np.eye(len(x))
weight = x.T @ np.linalg.solve(inner, np.eye(10)[data.labels[::{step}]])
print("trained on", len(x), "pictures")
save_file({{"weight": weight.astype(np.{dtype})}}, "model.safetensors")
"""


def script(step: int = 1, dtype: str = "float32") -> str:
    return TRAIN.format(step=step, dtype=dtype)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An entry whose model its train.py has made: the script is run here, once, as a student would."""
    entry = submission(tmp_path_factory.mktemp("honest") / "vision")
    (entry / "train.py").write_text(script())
    env = {"PYTHONPATH": str(ROOT), "TINYTORCH_DATA": str(entry / "none")}
    subprocess.run([sys.executable, "train.py"], cwd=entry, env=env, check=True, capture_output=True)
    return entry


@pytest.fixture
def entry(honest: Path, tmp_path: Path) -> Path:
    """A copy of the honest entry, to be spoiled."""
    copy = tmp_path / "vision"
    for path in (p for p in honest.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        (copy / path.relative_to(honest)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(honest)).write_bytes(path.read_bytes())
    return copy


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "CACHE_RATIO", 100.0)  # short rounds on a busy machine prove nothing


def run(entry: Path, **options: Any) -> audit.Audit:
    log = entry.parent / "kept" / "train.log"
    return audit.audit(entry, "vision", "digits", log, **{"limit_s": 120.0, "budget_s": 0.1, **options})


# ---- honest


def test_an_honest_entry_passes(entry: Path) -> None:
    seen: list[str] = []
    found = run(entry, progress=lambda seconds, line: seen.append(line))
    assert (found.outcome, found.reasons) == ("passed", [])
    assert found.submitted == pytest.approx(found.retrained) and found.submitted > 0.85
    assert found.seconds is not None and found.seconds > 0 and found.declared_seconds == 12.0
    assert seen[-1] == Path(found.log).read_text(encoding="utf-8").strip() == "trained on 1297 pictures"
    hashes = found.hashes
    assert hashes["submission"] == ledger.digest(entry) and None not in hashes.values()
    assert hashes["data"] == ledger.data("vision", "digits", "private")
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["schema"] == "torch-olympics/audit/1" and plain["tolerance"] == "1.5 points"
    assert not (entry / "__pycache__").exists() and ledger.digest(entry) == hashes["submission"]


# ---- pretenders whose script ends well


def test_weights_better_than_the_script_fail(entry: Path) -> None:
    (entry / "train.py").write_text(script(step=20))
    found = run(entry)
    assert found.outcome == "failed" and found.retrained is not None and found.submitted is not None
    assert found.retrained < found.submitted - 0.015
    (reason,) = found.reasons
    assert reason.startswith("accuracy: the script makes a model with ")
    assert f"handed in was one with {100 * found.submitted:.2f}%: 1.5 points worse is allowed" in reason


def test_a_larger_model_and_a_log_that_lies_fail(entry: Path) -> None:
    (entry / "train.py").write_text(script(dtype="float64"))
    (entry / "training.json").write_text(json.dumps({"seconds": 4000}))
    size, time = run(entry).reasons
    assert size.startswith("size: the script makes a model of 24") and "5% more is allowed" in size
    assert time.startswith("time: training.json says 4,000 s, the script took ")
    assert time.endswith("a factor of 3 and 60 s are allowed")


# ---- pretenders whose script does not: the models need no measuring


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_score", lambda *a: 0.92)


COPY = """import glob, shutil
for pattern in ("{entry}/model.safetensors", "{entry}/../*/model.safetensors", "../**/*.safetensors"):
    for path in glob.glob(pattern, recursive=True):
        shutil.copy(path, "model.safetensors")
open("{entry}/model.safetensors", "rb")
"""
WRITE = "open('model.safetensors', 'wb')"
DATA = "from autograder import datasets\n"
SCRIPTS = {
    "overruns": ("import time\nprint('epoch 1', flush=True)\ntime.sleep(600)", "was stopped: time limit: "),
    "network": ("import socket\nsocket.create_connection(('192.0.2.1', 80), 5)", "ended with exit code 1: "),
    "resolves": ("import socket\nprint(socket.gethostbyname('example.org'))", "ended with exit code 1: "),
    "nothing": ("print('done')", "ended well but wrote no model.safetensors"),
    "link": ("import os\nos.symlink('/etc/passwd', 'model.safetensors')", "is not a plain file"),
    "pickle": (f"{WRITE}.write(b'PK' * 9)", "model.safetensors is a pickle"),
    "huge": (f"{WRITE}.truncate(60_000_000)", "60,000,000 bytes, 50,000,000 are allowed"),
    "torch": ("import torch", "No module named 'torch'"),
    "labels": (f"open({str(datasets.DIGITS_FILE)!r}, 'rb')", "Error: [Errno "),
    "private": (f"{DATA}datasets.load('digits', 'private')", "private is not shown in an audit"),
    "crash": ("import os\nos.abort()", "ended with exit code"),
    "syntax": ("def", "SyntaxError"),
}  # fmt: skip


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_does_not_train_fails(entry: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, words = SCRIPTS[name]
    (entry / "train.py").write_text(text)
    monkeypatch.setattr(audit, "_LOOK_S", 0.05)
    found = run(entry, limit_s=1.5 if name == "overruns" else 120.0)
    assert found.outcome == "failed" and len(found.reasons) == 1
    assert words in found.reasons[0] and "\n" not in found.reasons[0]
    assert found.retrained is None and found.submitted == 0.92
    if name == "overruns":
        assert Path(found.log).read_text(encoding="utf-8") == "epoch 1\n" and found.seconds is not None


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("level", LEVELS)
def test_the_submitted_model_cannot_be_copied(entry: Path, level: str) -> None:
    (entry / "train.py").write_text(COPY.format(entry=entry))
    found = run(entry, level=level)
    assert found.outcome == "failed" and found.level == level
    assert "Error: [Errno" in found.reasons[0] and f"{entry}/model.safetensors" in found.reasons[0]


@pytest.mark.usefixtures("unmeasured")
def test_what_is_refused_before_anything_runs(entry: Path, tmp_path: Path) -> None:
    (entry / "train.py").write_text("#" * 200_001)
    assert (
        "200,001 bytes, 200,000 are allowed: a script that long may hold the model" in run(entry).reasons[0]
    )
    (entry / "train.py").unlink()
    found = run(entry)
    assert found.outcome == "not reproducible (no train.py)" and found.submitted is None
    (entry / "train.py").symlink_to("/etc/passwd")
    assert "is a symbolic link" in run(entry).reasons[0]
    for options, words in (({"level": "rlimits"}, "bubblewrap or landlock"), ({"limit_s": -1.0}, "positive")):
        with pytest.raises(audit.AuditError, match=words):
            run(entry, **options)
    with pytest.raises(audit.AuditError, match="is no folder"):
        run(tmp_path / "nobody")


def test_a_log_without_a_time_is_timed_by_the_audit(entry: Path, tmp_path: Path) -> None:
    """And is refused where no script is handed in that an audit could time."""
    (entry / "training.json").write_text('{"seconds": null}')
    found = run(entry)
    assert (found.outcome, found.declared_seconds) == ("passed", None) and found.seconds, found.reasons
    (entry / "train.py").unlink()
    with pytest.raises(staging.Invalid, match=r"gives no seconds: expected a number, or a train.py"):
        staging.stage(entry, tmp_path / "staged", rules.track("vision"))


def test_an_invalid_submission_fails(entry: Path) -> None:
    save_file({"weight": np.full((3072, 10), np.nan, np.float32)}, entry / "model.safetensors")
    found = run(entry)
    assert found.outcome == "failed" and "the submitted model is INVALID: " in found.reasons[0]
    assert found.seconds is None, "nothing is trained for it"


# ---- the figures


@pytest.mark.parametrize(
    ("track", "submitted", "retrained", "passes"),
    [
        ("vision", 0.90, 0.886, True),
        ("vision", 0.90, 0.884, False),
        ("vision", 0.90, 0.99, True),
        ("language", 0.300, 0.308, True),
        ("language", 0.300, 0.310, False),
        ("language", 0.300, 0.100, True),
        ("speed", 1.00, 0.981, True),
        ("speed", 1.00, 0.979, False),
        ("compression", 0.005, 0.019, True),
        ("compression", 0.005, 0.021, False),
        ("compression", -0.005, -0.02, True),
    ],
)
def test_tolerances(track: str, submitted: float, retrained: float, passes: bool) -> None:
    rule = rules.track(track)
    found = audit.Audit(
        track, rule.datasets[0], "private", rule.metric, submitted=submitted, retrained=retrained,
        tolerance=audit._tolerance(rule), submitted_bytes=1000, retrained_bytes=1000,
        declared_seconds=100.0, seconds=100.0,
    )  # fmt: skip
    reasons = audit.compare(found, rule)
    assert (reasons == []) is passes
    assert passes or found.tolerance in reasons[0]


@pytest.mark.parametrize(
    ("declared", "measured", "division", "passes"),
    [
        (100, 350, "open", True),
        (100, 370, "open", False),
        (1200, 385, "open", True),
        (1200, 375, "open", False),
        (1200, 5, "closed", True),  # the given model's training counts
        (5, 1200, "closed", False),
        (0, 59, "open", True),
        (None, 5000, "open", True),  # the log claims nothing
    ],
)
def test_times(declared: float | None, measured: float, division: str, passes: bool) -> None:
    found = audit.Audit(
        "compression", "cifar10", "private", "accuracy_lost", submitted=0.0, retrained=0.0,
        submitted_bytes=1, retrained_bytes=1, declared_seconds=declared, seconds=measured,
    )  # fmt: skip
    assert (audit.compare(found, rules.track("compression"), division) == []) is passes


def test_a_busy_machine_is_said_to_be_one() -> None:
    found = audit.Audit(
        "vision", "digits", "private", "accuracy", submitted=0.9, retrained=0.9, submitted_bytes=1,
        retrained_bytes=1, declared_seconds=100.0, seconds=900.0, load=5.5, machine={"cores": 2},
    )  # fmt: skip
    (reason,) = audit.compare(found, rules.track("vision"))
    assert reason.endswith("a load of 5.5 on 2 cores: audit again on an idle one")


# ---- the data that a script sees


def test_a_script_sees_all_but_the_private_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audit.write_data(rules.track("vision"), "digits", tmp_path)
    audit.write_data(rules.track("language"), "tinytalks", tmp_path)
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path))
    monkeypatch.setenv("TINYTORCH_DATASET", "digits")
    for split, ours in (("train", "train"), ("public", "public"), ("test", "public")):
        shown, real = audit_view.load("digits", split), datasets.load("digits", ours)
        assert np.array_equal(shown.images, real.images) and np.array_equal(shown.labels, real.labels)
        assert shown.classes == real.classes and shown.images.dtype == np.uint8
    hidden = {image.tobytes() for image in datasets.load("digits", "private").images}
    shown = [audit_view.load("digits", split) for split in ("train", "test")]
    assert not hidden & {image.tobytes() for split in shown for image in split.images}
    with pytest.raises(audit_view.DataError, match="'cifar10' is not shown in this audit"):
        audit_view.load("cifar10", "train")
    monkeypatch.setenv("TINYTORCH_DATASET", "tinytalks")
    for split in ("train", "validation", "public"):
        assert audit_view.load_text("tinytalks", split).text == datasets.load_text("tinytalks", split).text
    with pytest.raises(audit_view.DataError, match="private is not shown"):
        audit_view.load_text("tinytalks", "private")
    assert not list(tmp_path.rglob("*private*"))


def test_cifar10_files_are_in_its_own_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = datasets.load
    monkeypatch.setattr(datasets, "BATCH_RECORDS", 500)
    monkeypatch.setattr(datasets, "load", lambda name, split: load("digits", split))
    audit.write_data(rules.track("vision"), "cifar10", tmp_path)
    home = tmp_path / "cifar-10-batches-bin"
    assert [path.stat().st_size // 3073 for path in sorted(home.glob("data_batch_*.bin"))] == [500, 500, 297]
    assert (home / "test_batch.bin").stat().st_size == 250 * 3073
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path))
    monkeypatch.setenv("TINYTORCH_DATASET", "cifar10")
    assert np.array_equal(audit_view.load("cifar10", "train").labels, load("digits", "train").labels)


# ---- the commands


@pytest.fixture
def tito(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tito:
    return Tito(monkeypatch, capsys)


@pytest.fixture
def course(tmp_path: Path) -> Path:
    root = tmp_path / "course"
    root.mkdir()
    (root / "nbgrader_config.py").write_text("c = get_config()\nc.Judged.dataset = 'digits'\n")
    return root


@pytest.mark.usefixtures("unmeasured")
def test_the_command_keeps_what_it_found(tito: Tito, course: Path, entry: Path) -> None:
    entry.rename(course / "vision")
    options = ("--track", "vision", "--course", course, "--limit-s", 100)
    (course / "vision" / "train.py").write_text(script(step=20))
    out = tito("olympics", "audit", course / "vision", *options)
    assert out.startswith("vision entry course on digits: passed\n") and "line 1 of the ledger" in out
    (course / "vision" / "train.py").write_text("print('done')")
    found = tito.json("olympics", "audit", course / "vision", *options, code=1)
    assert (found["outcome"], found["ledger"], found["limit_s"]) == ("failed", 2, 100.0)
    assert json.loads((Path(found["kept"]) / "audit.json").read_text())["reasons"] == found["reasons"]
    assert (Path(found["kept"]) / "train.log").read_text() == "done\n"
    first, second = ledger.read(course / "grading")
    assert (first["outcome"], second["outcome"]) == ("passed", "failed")
    assert second["submission"] == ledger.digest(course / "vision") != first["submission"]
    assert ledger.audited([first, second], "vision", first["submission"])
    assert not ledger.audited([first, second], "vision", second["submission"])
    (course / "grading" / ledger.HEAD).write_text("{}")
    assert "as evidence" in tito.refuses("olympics", "audit", course / "vision", *options)


def test_the_command_refuses_in_one_line(
    tito: Tito, course: Path, entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, said in (
        ((tmp_path / "nobody",), "is no folder: expected a submission"),
        ((entry, "--track", "chess"), "no track 'chess'"),
        ((entry, "--level", "rlimits"), "an audit needs sandbox level bubblewrap or landlock"),
        ((entry, "--limit-s", "-3"), "expected a positive number of seconds"),
        ((entry, "--to", "/dev/null/x"), "cannot write to /dev/null/x"),
    ):
        assert said in tito.refuses("olympics", "audit", *words, "--course", course)
    monkeypatch.chdir(tmp_path)
    assert "there is no course here" in tito.refuses("olympics", "retime")


def test_retime_measures_again_when_the_rules_change(
    tito: Tito, course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = course / "course" / "entries" / "vision"
    folder.mkdir(parents=True)
    old = {
        "track": "vision", "dataset": "digits", "split": "test", "official": True, "valid": True,
        "reasons": [], "metrics": {"accuracy": 0.9, "size_bytes": 10}, "points": {"accuracy": 30.0},
        "total": 30.0, "level": "bubblewrap", "machine": {}, "date": "2026-11-20", "scores": {},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(old))

    def again(track: str, entry: Path, dataset: str, split: str, how: scorer.Conditions) -> scorer.Result:
        assert (track, dataset, split) == ("vision", "digits", "test") and (entry / "tinytorch").is_dir()
        found = scorer.Result(track, dataset, split, True, valid=True, level=how.level, date="2026-11-21")
        found.metrics, found.total = {**old["metrics"], "accuracy": 0.91}, 31.0
        return found

    monkeypatch.setattr(scorer, "score", again)
    retime = ("olympics", "retime", "--track", "vision", "--course", course)
    out = tito(*retime)
    assert "its rules were not on record yet" in out and "0.9 -> 0.91" in out and "30.0 -> 31.0" in out
    assert results.reference_result(course, "vision")["total"] == 31.0
    assert tito(*retime) == "vision: the rules are the same, nothing to measure (--force does)\n"
    assert tito.json(*retime, "--force")["ledger"] == 2

    ledger.append(course / "grading", ledger.grading("ada", "ab" * 32, old))
    rule = rules.track("vision")
    harder = dataclasses.replace(rule, batch=1, limits=rules.Limits(file_bytes=1), title="Sight")
    monkeypatch.setattr(rules, "TRACKS", {**rules.TRACKS, "vision": harder})
    done = tito.json(*retime)
    assert (done["changed"], done["stale"], done["ledger"]) == (["limits", "batch"], ["ada"], 4)
    ledger.append(course / "grading", ledger.grading("ada", "ab" * 32, old))
    assert tito.json(*retime)["stale"] == []
    assert [line["kind"] for line in ledger.read(course / "grading")].count("retiming") == 3
