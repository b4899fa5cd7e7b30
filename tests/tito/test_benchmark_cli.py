"""`tito benchmark` measures a stand-in model in the sandbox, and every line of JSON stands alone."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_course import Tito
from submissions import save_model, submission
from texts import VOCABULARY, text_submission

from autograder import sandbox
from autograder.data import datasets
from autograder.errors import Missing
from autograder.scoring import rules
from tito.errors import TitoError
from tito.student import benchmark, model_file, network, workspace


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    return submission(tmp_path / "entry")


@pytest.fixture
def tito(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tito:
    monkeypatch.delenv("TITO_TINYTORCH", raising=False)
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path / "no data"))
    monkeypatch.chdir(tmp_path)
    return Tito(monkeypatch, capsys)


def test_accuracy_is_counted_outside_the_model(tito: Tito, entry: Path) -> None:
    record = tito.json("benchmark", "accuracy", "--model", entry / "model.safetensors", "--dataset", "digits")
    data = datasets.load("digits", "test")
    flat = data.images.reshape(len(data), -1).astype(np.float32) / 255
    logits = (flat - flat.mean(axis=1, keepdims=True)) @ load_file(entry / "model.safetensors")["weight"]
    right = int((logits.argmax(axis=1) == data.labels).sum())
    assert (record["correct"], record["n"], record["accuracy"]) == (right, 500, right / 500)
    low, high = record["accuracy_interval"]
    assert low < record["accuracy"] < high
    assert (record["dataset"], record["split"], record["sandbox"]) == ("digits", "test", sandbox.choose())
    assert record["parameters"] > 0 and record["machine"]["cores"] >= 1


def test_speed_and_memory(tito: Tito, entry: Path) -> None:
    shared = ("--model", entry / "model.safetensors", "--dataset", "digits", "--split", "public")
    fast = tito.json("benchmark", "speed", *shared, "--seconds", "1")
    low, high = fast["speed_interval"]
    assert 0 < low <= fast["images_per_second"] <= high and fast["n"] == 250 and len(fast["samples"]) >= 3
    out = tito("benchmark", "memory", *shared)
    assert "MB at most" in out and "250 pictures of digits public" in out


def test_size_counts_surplus_code(tito: Tito, entry: Path) -> None:
    model = entry / "model.safetensors"
    size = model.stat().st_size
    assert tito.json("benchmark", "size", "--model", model)["size_bytes"] == size
    (entry / "network.py").write_text("#" * rules.CODE_BYTES)
    code = (entry / "tinytorch" / "__init__.py").stat().st_size
    assert tito.json("benchmark", "size", "--model", model)["size_bytes"] == size + code
    mark = entry.parent / ".tito" / "workspace.json"
    mark.parent.mkdir()
    mark.write_text("{}")
    moved = entry.rename(entry.with_name("compression")) / model.name  # a workspace's folder of that track
    assert "; the limit of compression is 10 MB)" in tito("benchmark", "size", "--model", moved)
    assert tito.json("benchmark", "size", "--model", moved)["limit_bytes"].keys() == {"compression"}
    model = moved.parent.rename(entry) / model.name
    said = "the limit of vision, language and speed is 50 MB, of compression is 10 MB"
    assert f"({size + code:,} bytes; {said})" in tito("benchmark", "size", "--model", model)


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A language model, to be measured quickly."""
    whole = datasets.load_text
    monkeypatch.setattr(
        datasets, "load_text", lambda *a: dataclasses.replace(whole(*a), dialogues=whole(*a).dialogues[:20])
    )
    return text_submission(tmp_path / "text") / "model.safetensors"


def test_a_language_model_is_read_token_by_token(tito: Tito, words: Path) -> None:
    record = tito.json("benchmark", "accuracy", "--model", words, "--dataset", "tinytalks")
    low, high = record["bits_per_byte_interval"]
    assert low < record["bits_per_byte"] < high and 0 < record["next_token_accuracy"] < 1
    assert (record["n"], record["dataset"], record["parameters"]) == (20, "tinytalks", VOCABULARY**2)
    out = tito("benchmark", "accuracy", "--model", words, "--split", "public")  # the tokenizer tells which
    assert "bits/byte" in out and "20 dialogues of tinytalks public" in out
    assert "MB at most" in tito("benchmark", "memory", "--model", words)
    both = words.stat().st_size + words.with_name("tokenizer.json").stat().st_size
    assert tito.json("benchmark", "size", "--model", words)["size_bytes"] == both


def test_speed_of_a_language_model(tito: Tito, words: Path) -> None:
    shared = ("benchmark", "speed", "--model", words, "--seconds", "0")
    record = tito.json(*shared, "--input-length", "512")
    low, high = record["speed_interval"]
    assert 0 < low <= record["tokens_per_second"] <= high and record["input_length"] == 512
    assert 0 < record["latency_p50"] <= record["latency_p90"] and record["first_token"] > 0
    out = tito(*shared)
    assert "16 texts of 128 tokens, 64 of them new" in out and "ms a token" in out
    for length in ("10", "0", "-3", "513"):
        assert f"--input-length {length}: expected 65 to 512" in tito.refuses(
            *shared, "--input-length", length
        )
    words.with_name("tokenizer.json").write_text("{}")
    assert "tokenizer.json has the type" in tito.refuses(*shared)


def test_speed_and_memory_need_no_data_set_and_no_tokenizer(tito: Tito, entry: Path, words: Path) -> None:
    """What is made up is said; a tokenizer in the folder does not make a network of pictures read text."""
    shutil.copyfile(words.with_name("tokenizer.json"), entry / "tokenizer.json")
    words.with_name("tokenizer.json").unlink()
    for model, kind in ((entry / "model.safetensors", "pictures"), (words, "tokens")):
        for what, more in (("memory", ()), ("speed", ("--seconds", "0"))):
            out = tito("benchmark", what, "--model", model, *more)
            assert f"made-up {kind}, no data set needed" in out
    pictures = tito.json("benchmark", "size", "--model", entry / "model.safetensors")
    assert pictures["size_bytes"] == (entry / "model.safetensors").stat().st_size
    assert "put its tokenizer.json beside it" in tito.refuses("benchmark", "accuracy", "--model", words)


def test_a_data_set_of_the_other_kind_is_refused(tito: Tito, entry: Path, words: Path) -> None:
    for model, dataset, says in (
        (words, "cifar10", "reads tokens, and cifar10 holds pictures: try --dataset tinytalks"),
        (
            entry / "model.safetensors",
            "tinytalks",
            "reads pictures, and tinytalks holds tokens: try --dataset",
        ),
    ):
        for what in ("accuracy", "speed", "memory"):
            assert says in tito.refuses("benchmark", what, "--model", model, "--dataset", dataset)


def test_what_a_class_of_ones_own_reads_stands_in_its_code(tmp_path: Path) -> None:
    """Read and never run: network.py, or the script that defines the class, without the part that trains."""

    def saved(folder: Path, *args: int) -> Path:
        folder.mkdir()
        save_model(folder, np.zeros((1, 1), np.float32), "Net", *args)
        return folder / "model.safetensors"

    head = "raise SystemExit('this ran')\nfrom tinytorch import GPT, Conv2d, Embedding, Linear, Module\n"
    no = (None, None)  # vocabulary, context
    for number, (code, reads) in enumerate((
        ("class Net(GPT):\n    pass\n", ("tokens", 90, 64)),
        ("class Net(Module):\n    def __init__(self):\n        self.e = Embedding(9, 2)\n", ("tokens", *no)),
        ("def part():\n    return Conv2d\nclass Net(Module):\n    made = part\n", ("pictures", *no)),
        ("class Other(GPT):\n    pass\nclass Net(Module):\n    head = Linear\n", ("pictures", *no)),
        ("class Net(Module):\n    parts = Conv2d, Embedding\n", ("", *no)),
        ("class Net(Module):\n    pass\n", ("", *no)),
    )):  # fmt: skip
        model = saved(tmp_path / str(number), 90, 8, 2, 1, 64)
        (model.parent / "train.py").write_text(head + code)
        found = model_file.facts(model)
        assert ((found.reads, found.vocabulary, found.context), found.own) == (reads, ("Net",)), code
        assert found.source == model.parent / "train.py"
    (model.parent / "again.py").write_text(head + code)
    with pytest.raises(TitoError, match=r"needs Net, which again.py and train.py define: keep it in one"):
        model_file.facts(model)
    (model.parent / "network.py").write_text("class Net(GPT):\n    pass\n")
    assert model_file.facts(model).reads == "tokens"
    (model.parent / "network.py").write_text("class Net(:")
    with pytest.raises(TitoError, match=r"network.py line 1 is not Python"):
        model_file.facts(model)


def test_the_network_of_a_script_is_taken_without_its_training(tmp_path: Path) -> None:
    script = tmp_path / "your_training.py"
    script.write_text(
        "import numpy as np, os\nfrom tinytorch import Linear, Module, train_loop\n"
        "SIZE = 8  # of the middle\nRATE = 0.1\n\n\ndef double(n):\n    return 2 * n\n\n\n"
        "@staticmethod\nclass Net(Module):\n    width = double(SIZE)  # kept\n\n\n"
        "history = train_loop(Net())\n"
    )
    text = network.extract(script, ["Net"])
    assert text == (
        '"""The network, from your_training.py."""\n\nfrom tinytorch import Module\n\n'
        "SIZE = 8  # of the middle\n\ndef double(n):\n    return 2 * n\n\n@staticmethod\nclass Net(Module):\n"
        "    width = double(SIZE)  # kept\n"
    )


def test_input_length_is_of_texts(tito: Tito, entry: Path) -> None:
    shared = ("benchmark", "speed", "--model", entry / "model.safetensors", "--dataset", "digits")
    assert "is for language models" in tito.refuses(*shared, "--input-length", "512")


def test_network_beside_the_model_is_used(tito: Tito, entry: Path) -> None:
    (entry / "network.py").write_text(
        "import numpy as np\nimport tinytorch\n\n\nclass Model(tinytorch.Model):\n"
        "    def logits(self, x):\n        return np.full((len(x.data), 10), np.nan)\n"
    )
    shared = ("--model", entry / "model.safetensors", "--dataset", "digits")
    assert "NaN" in tito.refuses("benchmark", "accuracy", *shared)


def test_refusals_are_one_line(tito: Tito, entry: Path, tmp_path: Path) -> None:
    model = entry / "model.safetensors"
    assert "no model file" in tito.refuses("benchmark", "size", "--model", tmp_path / "none")
    assert "is a folder" in tito.refuses("benchmark", "memory", "--model", tmp_path)
    assert "tito data fetch cifar10" in tito.refuses("benchmark", "accuracy", "--model", model, code=2)
    assert "mnist" in tito.refuses("benchmark", "accuracy", "--model", model, "--dataset", "mnist")
    assert "no split" in tito.refuses(
        "benchmark", "accuracy", "--model", model, "--dataset", "digits", "--split", "x"
    )
    save_file({"weight": np.zeros((2, 2), np.float32)}, tmp_path / "bare.pt")
    assert "no architecture" in tito.refuses("benchmark", "memory", "--model", tmp_path / "bare.pt")
    for pickle in (b"\x80\x04garbage...", b"PK\x03\x04torch.save writes an archive"):
        (tmp_path / "your_model.pt").write_bytes(pickle)
        for what in ("accuracy", "speed", "size", "memory"):
            said = tito.refuses("benchmark", what, "--model", tmp_path / "your_model.pt")
            assert "your_model.pt is a pickle, which could run any code: write it with tinytorch.save" in said
    assert "no tinytorch/ in" in tito.refuses("benchmark", "size", "--model", model, "--tinytorch", tmp_path)


def test_which_package_a_model_runs_with(
    entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def package(root: Path) -> Path:
        (root / "tinytorch").mkdir(parents=True)
        (root / "tinytorch" / "__init__.py").write_text("")
        return root

    monkeypatch.delenv("TITO_TINYTORCH", raising=False)
    monkeypatch.chdir(tmp_path)
    beside = entry / "model.safetensors"
    ws = package(tmp_path / "ws")
    (ws / ".tito").mkdir()
    (ws / ".tito" / "workspace.json").write_text("{}")
    mine = ws / "vision" / "model.safetensors"
    other, course = package(tmp_path / "other"), package(tmp_path / "course")
    monkeypatch.setattr(workspace, "repository", lambda: course)
    assert benchmark.package_for(beside) == entry
    assert benchmark.package_for(mine) == ws
    assert benchmark.package_for(tmp_path / "model.safetensors") == course
    monkeypatch.setattr(workspace, "repository", lambda: None)
    with pytest.raises(Missing, match="--tinytorch"):
        benchmark.package_for(tmp_path / "model.safetensors")
    monkeypatch.setenv("TITO_TINYTORCH", str(other))
    assert benchmark.package_for(mine) == other
    assert benchmark.package_for(mine, course) == course
