"""The language and speed tracks from folder to points, with tables of characters as entries."""

import hashlib
import json

import numpy as np
import pytest
from texts import table, text_submission

from autograder import sandbox
from autograder.data.datasets import TextSplit, load_text
from autograder.leaderboard import export
from autograder.scoring import language, quality, rounds, rules, scorer, scores, staging, tokens

PUBLIC = load_text("tinytalks", "public").dialogues
DATA = TextSplit(PUBLIC[:40], "tinytalks", "public")
LEARNT = table("\n\n".join(d.text for d in load_text("tinytalks", "train").dialogues[:2000]))


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch):
    """Short texts and few rounds; the linters have tests of their own."""
    whole = quality.Quality(1.0, 1.0, 1.0, 1.0, 10, 0, [])
    monkeypatch.setattr(quality, "measure", lambda folder, level: whole)
    monkeypatch.setattr(language, "MOST_ANSWER", 20)
    monkeypatch.setattr(tokens, "ROUNDS", 3)
    monkeypatch.setattr(tokens, "QUERIES", 5)
    monkeypatch.setattr(rounds, "CACHE_RATIO", 100.0)  # three short rounds on a busy machine prove nothing


def score(track, folder, **options):
    conditions = scorer.Conditions(level=sandbox.choose(), secret="s", budget_s=0, **options)
    return scorer.score(track, folder, DATA, conditions=conditions)


def declare(folder, **fields):
    (folder / "training.json").write_text(json.dumps({"seconds": 3.0, **fields}))
    return folder


@pytest.fixture
def course(tmp_path):
    """The course's entry of the speed track."""
    return text_submission(tmp_path / "course", weight=LEARNT)


def test_a_language_entry(tmp_path):
    folder = text_submission(tmp_path / "s", weight=LEARNT)
    result = score("language", folder)
    assert result.valid, result.reasons
    found = result.metrics
    assert 2.5 < found["bits_per_byte"] < 3.5  # order 1 of `python benchmarks/ngram.py`
    low, high = found["bits_per_byte_interval"]
    assert low < found["bits_per_byte"] < high
    assert 0 <= found["rubric"] < 0.5 and found["gate_passed"] is False
    assert 0.2 < found["next_token_accuracy"] < 0.8 and found["tokens_per_second"] > 0
    assert found["first_token"] > 0 and 0 < found["latency_p50"] <= found["latency_p90"]
    sizes = [(folder / name).stat().st_size for name in ("model.safetensors", "tokenizer.json")]
    assert found["size_bytes"] == sum(sizes)
    assert any(reason.startswith("accuracy gate: rubric") for reason in result.reasons)
    assert any("is above the gate of 0.850 bits/byte" in reason for reason in result.reasons)
    entry = export.from_score(result.to_dict(), "x", "graded")
    results = export.document("x", [entry], names="id")
    export.validate(results)
    header, line = export.as_csv(results).splitlines()
    assert f"{found['bits_per_byte']}" in line and "latency_p90" in header


def test_bits_do_not_depend_on_the_scale_of_what_is_claimed(tmp_path):
    """A model that adds 50 to each logit claims nothing: its distribution is normalised on our side."""
    honest = score("language", text_submission(tmp_path / "a", weight=LEARNT))
    boast = score("language", text_submission(tmp_path / "b", weight=LEARNT + 50))
    assert boast.metrics["bits_per_byte"] == pytest.approx(honest.metrics["bits_per_byte"], rel=1e-4)


def test_a_speed_entry(tmp_path, course):
    folder = text_submission(tmp_path / "s", weight=LEARNT)
    result = score("speed", folder, reference=course)
    assert result.valid, result.reasons
    assert result.metrics["retention"] == 1.0 and result.scores["accuracy"] == 1.0
    assert 0.1 < result.metrics["ratio_to_reference"] < 10
    assert result.metrics["gate_passed"] is (result.metrics["tokens_per_second"] >= 100)
    assert len(result.samples["reference_tokens_per_second"]) == 3


def test_what_is_kept_of_the_baselines_accuracy(tmp_path, course):
    worse = LEARNT.copy()
    worse[::2] = worse[::2][:, ::-1]  # every second character's row is wrong
    result = score("speed", text_submission(tmp_path / "s", weight=worse), reference=course)
    assert result.valid, result.reasons
    assert result.metrics["retention"] < 0.95 and result.metrics["gate_passed"] is False
    assert result.reasons[0].endswith("of 40 points") and "below the gate of 95.0% kept" in result.reasons[0]


def test_the_closed_division_starts_from_the_courses_file(tmp_path, course):
    digest = hashlib.sha256((course / "model.safetensors").read_bytes()).hexdigest()
    folder = text_submission(tmp_path / "s", weight=LEARNT)
    result = score("speed", declare(folder, division="closed", checkpoint=digest), reference=course)
    assert result.valid and result.division == "closed"
    result = score("speed", declare(folder, division="closed", checkpoint="0" * 64), reference=course)
    assert not result.valid and digest in result.reasons[0]


def test_the_speed_track_has_one_tokenizer(tmp_path, course):
    folder = text_submission(tmp_path / "s", weight=LEARNT)
    form = json.loads((folder / "tokenizer.json").read_text())
    form["characters"][3], form["characters"][4] = form["characters"][4], form["characters"][3]
    (folder / "tokenizer.json").write_text(json.dumps(form))
    result = score("speed", folder, reference=course)
    assert not result.valid and "is not the course entry's" in result.reasons[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "tokenizer.json is missing"),
        (b"{", "is not JSON that a tokenizer can have"),
        (b"#" * 5_000_000, "has 5.0 MB: a tokenizer is smaller"),
        (b'{"format": 1, "type": "char", "characters": ["a"]}', "no character"),
    ],
)
def test_a_tokenizer_that_is_none_is_invalid(tmp_path, content, reason):
    folder = text_submission(tmp_path / "s")
    (folder / "tokenizer.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_bytes(content)
    result = score("language", folder)
    assert not result.valid and reason in result.reasons[0], result.reasons


def test_without_the_courses_entry_the_grader_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "REPOSITORY", tmp_path)
    with pytest.raises(ValueError, match="measured against the course's entry.*is missing"):
        score("speed", text_submission(tmp_path / "s"))
    broken = text_submission(tmp_path / "broken", "raise ImportError('ours')\n")
    with pytest.raises(ValueError, match="the reference entry .* does not run"):
        score("speed", text_submission(tmp_path / "t"), reference=broken)


@pytest.mark.parametrize("track", ["language", "speed", "compression"])
def test_ramps_meet_their_points_and_rise(track):
    for ramps in rules.TRACKS[track].ramps.values():
        for ramp in ramps.values():
            for figure, expected in ramp.points:
                assert scores.on_ramp(ramp, figure) == pytest.approx(expected)
            steps = np.linspace(ramp.floor, ramp.reference[0], 40)
            earned = [scores.on_ramp(ramp, figure) for figure in steps]
            assert earned == sorted(earned)


def test_further_gates_hold_back_speed_and_size():
    figures = {"accuracy": 0.30, "speed": 12000.0, "size": 250_000.0}
    rule = rules.TRACKS["language"]
    mumbling = scores.score(rule, "tinytalks", figures, quality=1.0, gates={"rubric": 0.25})
    assert mumbling.points == {"accuracy": 40, "speed": 10, "size": 10, "quality": 10}
    assert not mumbling.gate_passed and mumbling.reasons[0] == "accuracy gate: rubric 0.25 is below 0.5"
    assert "below the rubric gate it counts 50%" in mumbling.reasons[1]
    assert scores.score(rule, "tinytalks", figures, quality=1.0, gates={"rubric": 0.5}).gate_passed
