"""TinyTalks: the same on every machine, nothing held out in training, one answer to a question."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from small_course import Tito

from autograder.data import datasets, tinytalks
from autograder.data import tinytalks_words as words
from autograder.data.datasets import DataError, Dialogue, load_text, write_text

ROOT = Path(__file__).parents[2]
SPLITS = tuple(tinytalks.SIZES)
# the corpus that published figures are about: another digest is another corpus
DIGEST = "206e10f171c8bfac0c90355a04230917cf22aef3a3ffb6374a191d9a2de8830b"


def everything() -> list[tuple[str, Dialogue]]:
    return [(split, d) for split in SPLITS for d in load_text("tinytalks", split).dialogues]


def test_the_corpus_is_the_published_one() -> None:
    text = "\n\n".join(d.text for _, d in everything())
    assert hashlib.sha256(text.encode()).hexdigest() == DIGEST


def test_hashing_and_the_state_of_random_do_not_change_it() -> None:
    code = (
        "import random; random.seed(7)\n"
        "from autograder.data.tinytalks import dialogues\n"
        "import hashlib\n"
        "print(hashlib.sha256('\\n\\n'.join(d.text for d in dialogues()).encode()).hexdigest())"
    )
    for seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert ran.stdout.strip() == DIGEST


def test_sizes_levels_and_lengths() -> None:
    counts = Counter(split for split, _ in everything())
    assert counts == tinytalks.SIZES and counts.total() >= 10_000
    for split in SPLITS:
        levels = Counter(d.level for d in load_text("tinytalks", split).dialogues)
        for level, share in tinytalks.SHARES.items():
            assert levels[level] == round(share * counts[split]) > 0
    sizes = sorted(len(d.text.encode()) for _, d in everything())
    assert sizes[-1] <= tinytalks.MOST_BYTES and sizes[len(sizes) * 4 // 5] < 200
    assert 1_000_000 < sum(sizes) < 1_600_000
    assert all(d.text.isascii() for _, d in everything())


def test_no_dialogue_is_there_twice_and_each_has_its_combinations_and_keys() -> None:
    texts = [d.text for _, d in everything()]
    assert len(set(texts)) == len(texts)
    for _, d in everything():
        assert d.combinations and len(d.keys) == len(d.turns)
        for (_, answer), key in zip(d.turns, d.keys, strict=True):
            assert all(phrase.lower() in answer.lower() for phrase in key), (answer, key)


def test_no_combination_is_in_two_splits() -> None:
    drawn = {split: {c for s, d in everything() if s == split for c in d.combinations} for split in SPLITS}
    for a, b in combinations(SPLITS, 2):
        assert not tinytalks.combinations_of(a) & tinytalks.combinations_of(b)
        assert not drawn[a] & drawn[b]
    for split in SPLITS:
        assert drawn[split] <= tinytalks.combinations_of(split)


def pairs(d: Dialogue) -> set[tuple[object, ...]]:
    """Combinations read from the text alone: operands, names with things, things with places ..."""
    found: set[tuple[object, ...]] = set()
    told = " ".join(f"{q} {a}" for q, a in d.turns)
    for op in ("plus", "times", "minus"):
        for a, b in re.findall(rf"(\d+) {op} (\d+) is", told):
            found.add((op, *(sorted((int(a), int(b))) if op != "minus" else (int(a), int(b)))))
    count = -1
    for question, answer in d.turns:
        for name, thing in re.findall(r"([A-Z][a-z]+) (?:has|bought) an? ([a-z]+)\.", question):
            found.add(("owns", name, thing))
        for thing, name in re.findall(r"I gave a ([a-z]+) to ([A-Z][a-z]+)\.", question):
            found.add(("owns", name, thing))
        for name, thing in re.findall(r"My name is (\w+) and I have a (\w+)\.", question):
            found.add(("owns", name, thing))
        for thing, place in re.findall(
            r"(?:The|the) (\w+) is ((?:in|on|under|at|near|behind|next) [\w ]+)\.", question
        ):
            found.add(("place", thing, place))
        for item, number in re.findall(r"[Mm]y (\w+) (?:has the|is) number (\d+)", question):
            found.add(("number", item, int(number)))
        if more := re.match(r"(?:I get|\w+ gives me) (\d+)", question):
            found.add(("plus", *sorted((count, int(more[1])))))
        if fewer := re.match(r"(?:I lose|I give) (\d+)", question):
            found.add(("minus", count, int(fewer[1])))
        if had := re.match(r"(?:You have|Your bag has|Now you have) (\d+) ", answer):
            count = int(had[1])
        if less := re.match(r"(?:I have|\w+ has|I see) (\d+) .*(?:lose|gives|take) (\d+)", question):
            found.add(("minus", int(less[1]), int(less[2])))
        if more := re.match(r"(?:I have|\w+ has|I see) (\d+) .*(?:get|finds|add) (\d+)", question):
            found.add(("plus", *sorted((int(more[1]), int(more[2])))))
    return found


def test_what_the_held_out_texts_put_together_is_never_in_the_texts_of_training() -> None:
    seen = {split: set[tuple[object, ...]]() for split in SPLITS}
    for split, d in everything():
        seen[split] |= pairs(d)
    for a, b in combinations(SPLITS, 2):
        assert not seen[a] & seen[b]
    for family in ("plus", "minus", "times", "owns", "place", "number"):
        for split in SPLITS:
            assert [p for p in seen[split] if p[0] == family], (family, split)


def test_every_word_of_the_held_out_splits_is_in_training_and_each_fact_is_told() -> None:
    known = set(re.findall(r"[A-Za-z]+|\b\d+\b", load_text("tinytalks", "train").text))
    for split in ("validation", "test"):
        assert set(re.findall(r"[A-Za-z]+|\b\d+\b", load_text("tinytalks", split).text)) <= known
    told = set(tinytalks.combinations_of("train"))
    for relation in (*words.FACTS, *words.SENSE):
        assert all(f"{relation.name} | 0 | {x}" in told for x in relation.pairs)
    used = {c for d in load_text("tinytalks", "train").dialogues for c in d.combinations}
    asked = {c.split(" | ", 2)[2] for c in used if c.split(" | ")[0] == "color"}
    assert asked == set(words.FACTS[0].pairs)


def test_one_question_after_the_same_turns_has_one_answer() -> None:
    answers: dict[str, str] = {}
    for _, d in everything():
        told = ""
        for question, answer in d.turns:
            told += f"Q: {question}\nA:"
            assert answers.setdefault(told, answer) == answer, told
            told += f" {answer}\n"


def test_sums_are_right() -> None:
    checked = 0
    for _, d in everything():
        for _, answer in d.turns:
            if made := re.fullmatch(r"(\d+) (plus|minus|times) (\d+) is (\d+)\.", answer):
                a, op, b, c = int(made[1]), made[2], int(made[3]), int(made[4])
                assert c == {"plus": a + b, "minus": a - b, "times": a * b}[op]
                checked += 1
            if made := re.fullmatch(r"(\d+) is (bigger|smaller|even|odd)\.", answer):
                assert made[2] in ("bigger", "smaller") or int(made[1]) % 2 == (made[2] == "odd")
                checked += 1
    assert checked > 1500


def test_the_last_answer_of_level_5_cannot_be_known_without_the_turns_before() -> None:
    """The same last question has several answers, or it is short and follows another."""
    answers: dict[str, set[str]] = {}
    for _, d in everything():
        if d.level == 5:
            assert len(d.turns) >= 2
            answers.setdefault(d.turns[-1][0], set()).add(d.turns[-1][1])
    known = [q for q, found in answers.items() if len(found) == 1]
    for question in known:  # asked too seldom to have met with two answers; all are of these forms
        assert re.search(r"^And |my|mine|[Tt]he \w+|now\?|Who has|^What does|^Which animal", question), (
            question
        )
    assert sum(len(found) > 1 for found in answers.values()) > 50


def test_another_seed_makes_other_dialogues_of_the_same_combinations() -> None:
    ours, others = (list(tinytalks.dialogues(seed, "private")) for seed in (tinytalks.SEED, 99))
    assert len(ours) == len(others) and others == list(tinytalks.dialogues(99, "private"))
    assert len({d.text for d in ours} & {d.text for d in others}) < len(ours) / 5
    assert {c for d in others for c in d.combinations} <= tinytalks.combinations_of("private")
    with pytest.raises(ValueError, match="no split named 'dev'"):
        next(tinytalks.dialogues(1, "dev"))


def test_public_and_private_are_the_halves_of_test() -> None:
    whole = load_text("tinytalks", "test").dialogues
    assert load_text("tinytalks", "public").dialogues == whole[::2]
    assert load_text("tinytalks", "private").dialogues == whole[1::2]
    assert "500 dialogues" in repr(load_text("tinytalks", "validation"))


# ---- files


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    paths = write_text("tinytalks", tmp_path / "out")
    assert [p.name for p in paths] == ["train.txt", "val.txt", "test.txt"]
    for split in datasets.TEXT_SPLITS:
        ours, read = load_text("tinytalks", split), load_text(tmp_path / "out", split)
        assert [d.turns for d in read.dialogues] == [d.turns for d in ours.dialogues]
        assert read.text == ours.text and read.dialogues[0].level == 0
    with pytest.raises(DataError, match=r"train\.txt is there already"):
        write_text("tinytalks", tmp_path / "out")


def test_classic_files_are_found_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "tinytalks"
    home.mkdir()
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path))
    (home / "train.txt").write_text("Q: Hi!\nA: Hello.\n\n\nQ: a\r\nA: b: c\nQ: d\nA: e")
    (home / "test.txt").write_text("\n".join(f"Q: {i}\nA: {i}\n" for i in range(5)))
    train = load_text("tinytalks-classic", "train")
    assert [d.turns for d in train.dialogues] == [(("Hi!", "Hello."),), (("a", "b: c"), ("d", "e"))]
    assert [d.turns[0][0] for d in load_text("tinytalks-classic", "private").dialogues] == ["1", "3"]
    assert load_text(home / "train.txt").dialogues == train.dialogues
    with pytest.raises(DataError, match=r"val\.txt: No such file"):
        load_text("tinytalks-classic", "validation")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no dialogue"),
        ("\n\n", "holds no dialogue"),
        ("A: b\n", "line 1: expected a line that begins with Q: or a blank line, got 'A: b'"),
        ("Q: a\nQ: b\n", "line 2: expected a line that begins with A:, got 'Q: b'"),
        ("Q: a\n\nA: b\n", "line 2: expected a line that begins with A:, got ''"),
        ("Q: a\nA: b\nhello\n", "line 3: expected a line that begins with Q: or a blank line"),
        ("Q: a", "line 2: expected a line that begins with A:"),
    ],
)
def test_a_malformed_file_is_refused_in_a_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "talk.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(why)) as refused:
        load_text(path)
    assert "\n" not in str(refused.value)


def test_other_errors_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bytes.txt").write_bytes(b"Q: \xff\nA: b\n")
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path))
    for name, why in (
        ("nope", "no text named 'nope'"),
        ("tinytalks-classic", "tinytalks-classic is not in"),
        (tmp_path / "bytes.txt", "is not UTF-8 text: byte 3"),
        (tmp_path, "cannot read"),
    ):
        with pytest.raises(DataError, match=why):
            load_text(name)
    with pytest.raises(DataError, match="no split named 'dev' in tinytalks"):
        load_text("tinytalks", "dev")
    monkeypatch.setattr(datasets, "_MOST_TEXT", 3)
    with pytest.raises(DataError, match="has 10 bytes, expected at most 3"):
        load_text(tmp_path / "bytes.txt")
    with pytest.raises(DataError, match="tinytalks is a text: read it with load_text"):
        datasets.load("tinytalks", "train")


def test_the_command_line_knows_the_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path))
    tito = Tito(monkeypatch, capsys)
    talks, classic = tito.json("data", "list")["sets"][2:]
    assert talks == {"name": "tinytalks", "available": True, "train": 10_000, "test": 1000, "folder": None}
    assert not classic["available"] and "TINYTORCH_DATA" in classic["reason"]
    assert "tinytalks is ready: it is made where it is used" in tito("data", "fetch", "tinytalks")
    tito("data", "fetch", "tinytalks-classic", code=2)
    assert "tinytalks-classic is not in" in tito.err
    assert "train.txt" in tito("data", "write", "tinytalks", str(tmp_path))
    assert tito.json("data", "list")["sets"][3]["train"] == 10_000  # the files just written
    tito("data", "write", "digits", str(tmp_path), code=1)
    assert "only tinytalks can be written" in tito.err


def test_the_datasheet_says_what_the_corpus_is() -> None:
    sheet = (ROOT / "course" / "tinytalks.md").read_text(encoding="utf-8")
    for level, name in tinytalks.LEVELS.items():
        counts = [sum(d.level == level for d in load_text("tinytalks", s).dialogues) for s in SPLITS]
        row = f"| {level} {name} | " + " | ".join(f"{n:,}" for n in counts) + " |"
        assert row in sheet, row
    for split in SPLITS:
        assert f"{len(load_text('tinytalks', split).text.encode()):,}" in sheet
    assert DIGEST in sheet
    longest = max(len(d.text.encode()) for _, d in everything())
    assert f"longest has {longest} bytes" in sheet
