"""Worker, protocol and scorer, with a stand-in for a student's package."""

import json
import os
import struct
import threading

import numpy as np
import pytest
from submissions import pictures, submission

from autograder import frames, sandbox
from autograder.sandbox import levels
from autograder.scoring import client, quality, rules, scorer

DATA = pictures(60)


@pytest.fixture
def no_linters(monkeypatch):
    """The linters have tests of their own."""
    whole = quality.Quality(1.0, 1.0, 1.0, 1.0, 10, 0, [])
    monkeypatch.setattr(quality, "measure", lambda folder, level: whole)


def ask(folder, images=DATA.images[:7], **options):
    with client.Worker(folder, **options) as worker:
        info = worker.load(folder / "model.safetensors")
        logits, peak = worker.predict(images), worker.peak_memory()
    return info, logits, peak, worker.log


def failure(folder, network, **options) -> str:
    with pytest.raises(client.SubmissionError) as error:
        ask(submission(folder / "s", network), **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- frames


def through(*parts: bytes):
    """What frames.read makes of these bytes."""
    reading, writing = os.pipe()

    def feed():
        for part in parts:
            os.write(writing, part)
        os.close(writing)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        return frames.read(reading, most_payload=1 << 20)
    finally:
        os.close(reading)
        thread.join()


def frame(header, payload=b"", announced=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<IQ", len(text), len(payload) if announced is None else announced) + text + payload


def test_frames_there_and_back():
    arrays = [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.float32([1.5, np.nan]),
        np.zeros((0, 10)),
        np.float64(3),
    ]
    arrays = [np.asarray(array) for array in arrays]
    reading, writing = os.pipe()
    frames.write(writing, {"op": "x"}, [arrays[0].T, *arrays])
    message, back = frames.read(reading)
    os.close(reading)
    os.close(writing)
    assert message == {"op": "x"} and len(back) == 5
    np.testing.assert_array_equal(back[0], arrays[0].T)
    for array, same in zip(arrays, back[1:], strict=True):
        np.testing.assert_array_equal(array, same)
        assert array.dtype == same.dtype


@pytest.mark.parametrize(
    ("bytes_", "message"),
    [
        (b"", "ended"),
        (b"print", "ended"),
        (struct.pack("<IQ", 2**31, 0), "header of"),
        (struct.pack("<IQ", 2, 2**50) + b"{}", "answer of"),
        (frame(b"not json"), "expected JSON"),
        (frame(b"[" * 60000), "expected JSON"),
        (frame([1, 2]), "expected JSON"),
        (frame({"no": "arrays"}), "expected JSON"),
        (frame({"arrays": [{"dtype": "object", "shape": [1]}]}, b"12345678"), "an array of 'object'"),
        (frame({"arrays": [{"dtype": "float32", "shape": [-1]}]}), "expected JSON"),
        (frame({"arrays": [{"dtype": "float32", "shape": [True]}]}, b"1234"), "expected JSON"),
        (frame({"arrays": [{"dtype": "float32", "shape": [2**30] * 8}]}), "announced"),
        (frame({"arrays": [{"dtype": "float32", "shape": [2]}]}, b"1234"), "announced"),
    ],
)
def test_malformed_frames_are_refused(bytes_, message):
    with pytest.raises(frames.FrameError, match=message):
        through(bytes_)


def test_objects_are_never_sent():
    with pytest.raises(frames.FrameError, match="arrays of object cannot be sent"):
        frames.write(1, {}, [np.array([None])])


# ---- worker and client


def test_predictions_at_every_level(tmp_path, level):
    folder = submission(tmp_path / "s", 'print("noise on stdout")\nprint(input.__name__)\n')
    info, logits, peak, log = ask(folder, level=level)
    assert info == {"parameters": 30720}
    assert logits.shape == (7, 10) and logits.dtype == np.float64
    np.testing.assert_array_equal(logits.argmax(axis=1), DATA.labels[:7])
    assert 10_000_000 < peak < 500_000_000
    assert log == "noise on stdout\ninput\n"


def test_bytes_and_floats_give_the_same(tmp_path):
    folder = submission(tmp_path / "s")
    floats = DATA.images[:5].astype(np.float32) / 255
    with client.Worker(folder) as worker:
        worker.load(folder / "model.safetensors")
        np.testing.assert_allclose(
            worker.predict(floats), worker.predict(DATA.images[:5]), rtol=1e-4, atol=1e-3
        )
        with pytest.raises(ValueError, match="expected float32 or uint8"):
            worker.predict(np.zeros((3, 32, 32)))


MODEL = """import numpy as np
import tinytorch


class Model(tinytorch.Model):
    def __call__(self, x):
        {}
"""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "return tinytorch.Tensor(np.zeros((len(x.data), 9)))",
            "shape (7, 9): expected (7, 10) for 7 pictures",
        ),
        ("return tinytorch.Tensor(np.full((7, 10), np.inf))", "NaN or infinity for 7 of 7 pictures"),
        ("return 'cat'", "returned <U3 instead of numbers"),
        ("return tinytorch.Tensor(np.zeros(10**7))", "garbage instead of an answer"),
        ("return x.no_such_name", "network.py line 7: AttributeError: 'Tensor' object has no attribute"),
        ("raise SystemExit(3)", "network.py line 7: SystemExit: 3"),
        ("import os; os._exit(3)", "ended by itself (exit code 3)"),
        ("import os; os.kill(os.getpid(), 11)", "crashed (signal 11)"),
        ("import torch", "foreign framework (torch)"),
        ("import time; time.sleep(100)", "time limit: no answer within 2 s"),
    ],
)
def test_a_failing_model_gives_one_line(tmp_path, body, reason):
    slow = 2.0 if "sleep" in body else 100.0
    assert reason in failure(tmp_path, MODEL.format(body), answer_s=slow)


def test_syntax_error_and_wall_clock(tmp_path):
    assert "SyntaxError" in failure(tmp_path / "a", "def f(:\n")
    hang = failure(tmp_path / "b", "while True:\n    pass\n", limits=sandbox.Limits(wall_s=4.0))
    assert hang.startswith("time limit")


def test_missing_tinytorch(tmp_path):
    with pytest.raises(client.SubmissionError, match="tinytorch/ is missing"), client.Worker(tmp_path):
        pass


def test_student_names_do_not_shadow_the_standard_library(tmp_path):
    folder = submission(tmp_path / "s")
    for name in ("json.py", "numpy.py", "contextlib.py"):
        (folder / name).write_text("raise ImportError('shadowed')\n")
    assert ask(folder)[1].shape == (7, 10)


# ---- scorer


def score(folder, **options):
    conditions = scorer.Conditions(level=sandbox.choose(), secret="s", budget_s=0, **options)
    return scorer.score("vision", folder, DATA, conditions=conditions)


def test_an_honest_submission(tmp_path):
    folder = submission(tmp_path / "s", '"""A network."""\n')
    result = score(folder, reference=folder)
    assert result.valid, result.reasons
    assert result.metrics["accuracy"] > 0.9
    low, high = result.metrics["accuracy_interval"]
    assert low < result.metrics["accuracy"] <= high
    assert result.metrics["size_bytes"] == (folder / "model.safetensors").stat().st_size
    assert result.metrics["training_seconds"] == 12 and result.metrics["parameters"] == 30720
    assert result.metrics["memory_bytes"] > 10_000_000 and result.metrics["quality"] > 0.5
    assert 0.1 < result.metrics["ratio_to_reference"] < 10
    assert result.total == pytest.approx(sum(result.points.values()), abs=0.01) and 40 < result.total <= 90
    assert len(result.samples["images_per_second"]) >= 3
    assert (result.level, result.official) == (sandbox.choose(), True)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["track"] == "vision"


def shape_file(content):
    return lambda folder: (folder / "model.safetensors").write_bytes(content)


def log_file(text):
    return lambda folder: (folder / "training.json").write_text(text)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "there is no model file"),
        (lambda f: (f / "model.pt").write_bytes(b"1"), "two model files"),
        (shape_file(b""), "only 0 bytes"),
        (shape_file(b"PK\x03\x04" + bytes(50)), "is a pickle"),
        (shape_file(b"\x80\x04" + bytes(50)), "is a pickle"),
        (shape_file(b"garbage" * 10), "header would be longer"),
        (shape_file(struct.pack("<Q", 2) + b"{}" + b"1" * 99), "99 bytes of data, 0 described"),
        (shape_file(struct.pack("<Q", 4) + b"nope"), "not the expected JSON"),
        (shape_file(bytes(50_000_001)), "has 50.0 MB: the limit is 50 MB"),
        (lambda f: (f / "training.json").unlink(), "training.json is missing"),
        (log_file("[]"), "not the notebook's log"),
        (log_file('{"seconds": NaN}'), "expected a number"),
        (log_file('{"seconds": true}'), "expected a number"),
        (log_file('{"seconds": 9000}'), "training took 2.5 h: the limit is 2 h"),
        (
            log_file('{"seconds": 7200}'),
            "training took 2.0 h: the limit is 2 h",
        ),  # less than: the page's word
        (lambda f: (f / "network.py").symlink_to("/etc/passwd"), "'network.py' is a symbolic link"),
        (lambda f: os.mkfifo(f / "pipe"), "'pipe' is not a plain file"),
        (lambda f: (f / "tinytorch" / "big.py").write_text("#" * 5_000_000), "too much code"),
        (lambda f: (f / "tinytorch").rename(f / "other"), "tinytorch/ is missing"),
    ],
)
def test_broken_rules_are_invalid_with_a_reason(tmp_path, change, reason):
    folder = submission(tmp_path / "s")
    change(folder)
    result = score(folder)
    assert not result.valid and result.total == 0 and set(result.points.values()) == {0.0}
    assert len(result.reasons) == 1 and reason in result.reasons[0], result.reasons


def test_surplus_code_counts_as_model(tmp_path, no_linters):
    folder = submission(tmp_path / "s", "#" * 450_000)
    code = 450_000 + (folder / "tinytorch" / "__init__.py").stat().st_size
    expected = (folder / "model.safetensors").stat().st_size + code - rules.CODE_BYTES
    assert score(folder).metrics["size_bytes"] == expected


def test_the_graders_own_faults_are_raised(tmp_path, monkeypatch):
    folder = submission(tmp_path / "s")
    with pytest.raises(ValueError, match="official scoring names its sandbox level"):
        scorer.score("vision", folder, DATA)
    with pytest.raises(ValueError, match="no track"):
        scorer.score("chess", folder, DATA)
    monkeypatch.setattr(levels, "available", lambda: ("rlimits",))
    with pytest.raises(sandbox.SandboxUnavailable):
        scorer.score("vision", folder, DATA, conditions=scorer.Conditions(level="bubblewrap"))


def test_a_self_check_takes_the_best_level_there_is(tmp_path, monkeypatch, no_linters):
    monkeypatch.setattr(levels, "available", lambda: ("rlimits",))
    conditions = scorer.Conditions(official=False, budget_s=0)
    result = scorer.score("vision", submission(tmp_path / "s"), DATA, conditions=conditions)
    assert (result.level, result.official, result.valid) == ("rlimits", False, True)
