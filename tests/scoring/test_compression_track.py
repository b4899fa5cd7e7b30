"""The compression track: points lost from a published baseline, gates, divisions, and its board."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file
from submissions import pictures, submission

from autograder import leaderboard, sandbox
from autograder.scoring import quality, rules, scorer, scores

RULE = rules.TRACKS["compression"]
ENTRY = Path(__file__).resolve().parents[2] / "course" / "entries" / "vision"
DATA = pictures(60)


@pytest.fixture(autouse=True)
def no_linters(monkeypatch):
    """The linters have tests of their own."""
    whole = quality.Quality(1.0, 1.0, 1.0, 1.0, 10, 0, [])
    monkeypatch.setattr(quality, "measure", lambda folder, level: whole)


def score(folder, **options):
    conditions = scorer.Conditions(level=sandbox.choose(), secret="s", budget_s=0, **options)
    return scorer.score("compression", folder, DATA, conditions=conditions)


def declare(folder, **fields):
    log = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps({**log, **fields}))


def test_the_baseline_is_the_given_entry():
    """The table's figures are those of the file that students get: nobody changes one without the other."""
    measured = json.loads((ENTRY / "result.json").read_text())
    assert measured["split"] == "test" and measured["track"] == "vision"
    assert RULE.baselines["cifar10"]["test"] == measured["metrics"]["accuracy"]
    assert RULE.checkpoint == hashlib.sha256((ENTRY / "model.safetensors").read_bytes()).hexdigest()
    assert RULE.checkpoint_parameters == measured["metrics"]["parameters"]
    halves = RULE.baselines["cifar10"]
    assert (halves["public"] + halves["private"]) / 2 == pytest.approx(halves["test"], abs=1e-9)


def test_accuracy_counts_as_points_lost(tmp_path):
    result = score(submission(tmp_path / "s"))
    assert result.valid, result.reasons
    lost = RULE.baselines["digits"]["private"] - result.metrics["accuracy"]
    assert result.metrics["accuracy_lost"] == pytest.approx(lost)
    assert result.metrics["gate_passed"] is (lost < 0.03)
    ramp = RULE.ramps["digits"]["accuracy"]
    assert result.scores["accuracy"] == pytest.approx(scores.on_ramp(ramp, lost))
    assert result.division == "open"


@pytest.mark.parametrize(
    ("lost", "earned", "passed"),
    [(-0.02, 1.0, True), (0.0, 1.0, True), (0.01, 0.9, True), (0.0299, 0.70, True), (0.03, 0.7, False),
     (0.08, 0.35, False), (0.5, 0.0, False)],
)  # fmt: skip
def test_less_than_three_points_pass_the_gate(lost, earned, passed):
    found = scores.score(RULE, "cifar10", {"accuracy": lost, "speed": 5000.0, "size": 70_000.0}, quality=1.0)
    assert found.scores["accuracy"] == pytest.approx(earned, abs=2e-3) and found.gate_passed is passed
    share = min(1.0, max(0.0, (0.13 - lost) / 0.10))
    assert found.scores["size"] == pytest.approx(share) and found.scores["speed"] == pytest.approx(share)


def test_reasons_say_how_many_points_were_lost():
    found = scores.score(RULE, "cifar10", {"accuracy": 0.05, "speed": 5000.0, "size": 9e6}, quality=1.0)
    accuracy, speed, size = found.reasons
    assert accuracy == "accuracy 5.0 points lost is above the gate of 3.0 points lost: 22.4 of 40 points"
    assert "size 9 MB is above the record to beat of 8.2 MB" in size and "it counts 80%" in size


def test_ten_megabytes_are_invalid(tmp_path):
    folder = submission(tmp_path / "s")
    weights = load_file(folder / "model.safetensors")
    weights["rest"] = weights["weight"][:1].repeat(250_000, axis=0)
    save_file(weights, folder / "model.safetensors")
    result = score(folder)
    assert not result.valid and "the limit is 10 MB" in result.reasons[0]


# ---- divisions


def test_a_closed_entry_names_the_given_file(tmp_path):
    folder = submission(tmp_path / "s")
    declare(folder, division="closed", checkpoint=RULE.checkpoint)
    result = score(folder)
    assert result.valid and result.division == "closed"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"division": "closed"}, "names 'None' as its checkpoint"),
        ({"division": "closed", "checkpoint": "0" * 64}, "starts from the given file"),
        ({"division": "amateur"}, "'amateur': expected closed or open"),
        ({"division": ["closed"]}, "expected closed or open"),
    ],
)
def test_a_division_that_is_not_declared_rightly_is_invalid(tmp_path, fields, reason):
    folder = submission(tmp_path / "s")
    declare(folder, **fields)
    result = score(folder)
    assert not result.valid and reason in result.reasons[0]


def test_closed_adds_no_parameters(tmp_path, monkeypatch):
    small = dataclasses.replace(RULE, checkpoint_parameters=30_719)
    monkeypatch.setattr(rules, "TRACKS", {"compression": small})
    folder = submission(tmp_path / "s")
    assert score(folder).valid
    declare(folder, division="closed", checkpoint=RULE.checkpoint)
    result = score(folder)
    assert not result.valid and "30,720 parameters, the given checkpoint 30,719" in result.reasons[0]


# ---- the board


def entry(name, size, points, passed, accuracy=0.89):
    return {
        "name": name, "assignment": "compression", "track": "compression", "badge": "graded", "valid": True,
        "reasons": [], "points": points, "max_points": 100.0, "cells": [], "scores": {},
        "metrics": {"accuracy": accuracy, "size_bytes": size, "gate_passed": passed},
        "dataset": "cifar10", "split": "private", "sandbox": "bubblewrap", "machine": None,
        "date": "2026-11-24",
    }  # fmt: skip


def test_of_equal_scores_the_smallest_that_passes_the_gate_leads():
    entries = [
        entry("large", 2e6, 80.0, True),
        entry("tiny", 5e4, 80.0, False),
        entry("small", 2e5, 80.0, True),
    ]
    (board,) = leaderboard.sections({"entries": entries}, "compression")
    assert [(rank, e["name"]) for rank, e in zip(board.ranks, board.entries, strict=True)] == [
        (1, "small"), (2, "large"), (3, "tiny"),
    ]  # fmt: skip
    plot = leaderboard.plot(board)
    for mark in ("ResNet-20, 2 bits", "ResNet-56, ternary", "MLPerf Tiny ResNet-8", "8.2 MB at 92%"):
        assert mark in plot


def test_a_reference_that_runs_beside_is_the_baseline(tmp_path):
    blind = submission(
        tmp_path / "blind",
        "import tinytorch\n\n\nclass Model(tinytorch.Model):\n    def logits(self, x):\n"
        "        return super().logits(x) * 0\n",
    )
    folder = submission(tmp_path / "s")
    result = score(folder, reference=blind)
    chance = float((DATA.labels == 0).mean())  # equal logits: the first class
    assert result.metrics["accuracy_lost"] == pytest.approx(chance - result.metrics["accuracy"])
