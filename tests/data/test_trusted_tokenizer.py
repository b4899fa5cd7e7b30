"""The scorer's own tokenizer: the plain definition in other words, tinytorch's files, and hostile ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ngrams import replaced, train_bpe

from autograder.data import datasets, tokenizer
from autograder.data.tokenizer import CHUNK, Bpe, Char, TokenizerError, load, parse

TALKS = datasets.load_text("tinytalks", "validation").text
TRAINED = train_bpe(TALKS[:20_000], 254)
LETTERS = "aábß日 _0٣²½\n\t\r\u2028\u00a0.,!'—🦊e\u0301"


def kind(c: str) -> str:
    if c == "\n":
        return "line"
    if c.isspace():
        return "space"
    if c == "_":
        return "low"
    if c.isdecimal():
        return "digit"
    return "letter" if c.isalnum() else "sign"


def chunks(text: str) -> list[str]:
    """The chunks by hand, character by character."""
    found, i = [], 0
    while i < len(text):
        start = i
        if text[i] == " " and i + 1 < len(text) and kind(text[i + 1]) not in ("line", "space"):
            i += 1
        what = kind(text[i])
        i += 1
        if what not in ("line", "digit"):
            while i < len(text) and kind(text[i]) == what:
                i += 1
        found.append(text[start:i])
    return found


def encoded(merges: list[tuple[int, int]], text: str) -> list[int]:
    """Every merge in turn over every chunk: slow, and the same, since a merge uses only those before it."""
    ids: list[int] = []
    for chunk in chunks(text):
        word = tuple(chunk.encode())
        for k, pair in enumerate(merges):
            word = replaced(word, pair, 256 + k)
        ids += word
    return ids


@given(st.text(alphabet=LETTERS, max_size=60) | st.text(max_size=30))
def test_chunks_are_those_of_the_hand_written_scanner_and_lose_nothing(text: str) -> None:
    assert CHUNK.findall(text) == chunks(text)
    assert "".join(CHUNK.findall(text)) == text


@given(st.text(alphabet=LETTERS + "etaoinshr ", max_size=80))
def test_bpe_encodes_as_the_plain_definition_and_decodes_back(text: str) -> None:
    ids = TRAINED.encode(text)
    assert ids == encoded(TRAINED.merges, text)
    assert TRAINED.decode(ids) == text


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), unique=True, max_size=6),
    st.text("ab", max_size=12),
)
def test_overlapping_merges_are_taken_by_rank_then_from_the_left(
    picked: list[tuple[int, int]], text: str
) -> None:
    symbols = [97, 98, 256]
    merges = [(symbols[a], symbols[b]) for a, b in picked]
    merges = [(97, 97), *[pair for pair in merges if pair != (97, 97)]]
    made = Bpe(merges)
    assert made.encode(text) == encoded(merges, text)


def test_the_corpus_in_512_tokens_is_short_enough_and_comes_back() -> None:
    longest = max(len(TRAINED.encode(d.text)) + 2 for s in datasets.tinytalks.SIZES
                  for d in datasets.load_text("tinytalks", s).dialogues)  # fmt: skip
    assert longest <= 512 and TRAINED.vocab_size == 511 and TRAINED.end == 510
    ids = TRAINED.encode(TALKS)
    assert TRAINED.decode(ids) == TALKS and len(TALKS) > 2 * len(ids)


def test_both_forms_are_read_from_files(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"format": 1, "type": "bpe", "merges": [[104, 105], [32, 256]]}))
    bpe = load(path)
    assert bpe.encode("hi hi\n") == [256, 257, 10] and bpe.decode([256, bpe.end]) == "hi<|end|>"
    assert (bpe.vocab_size, bpe.end) == (259, 258)
    path.write_text(json.dumps({"format": 1, "type": "char", "characters": ["\n", " ", "é"]}))
    char = load(str(path))
    assert char.encode("é \n") == [2, 1, 0] and char.decode([2, 3]) == "é<|end|>"
    assert (char.vocab_size, char.end) == (4, 3)


def test_the_end_token_cannot_be_written_in_a_text() -> None:
    assert TRAINED.end not in TRAINED.encode("<|end|>")
    with pytest.raises(TokenizerError, match="no character '<'"):
        Char(["a"]).encode("<|end|>")


def bpe(merges: object, **more: object) -> bytes:
    return json.dumps({"format": 1, "type": "bpe", "merges": merges, **more}).encode()


def char(characters: object) -> bytes:
    return json.dumps({"format": 1, "type": "char", "characters": characters}).encode()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"\x80\x04\x95", "not JSON"),  # a pickle
        (b"[" * 100_000, "not JSON"),
        (b"[" * 900 + b"]" * 900, "no JSON object"),
        (b'{"format": ' + b"1" * 5000 + b"}", "not JSON"),
        (b'{"format": 1, "format": 1, "type": "bpe", "merges": []}', "a key twice"),
        (b'{"format": NaN, "type": "bpe", "merges": []}', "format nan, expected 1"),
        (b"null", "no JSON object"),
        (b'{"format": 1, "type": "wordpiece", "merges": []}', "type 'wordpiece', expected"),
        (b'{"format": 1, "type": ["bpe"], "merges": []}', "expected 'bpe' or 'char'"),
        (b'{"format": true, "type": "bpe", "merges": []}', "format True, expected 1"),
        (b'{"format": 1, "type": "bpe", "characters": []}', "a key too many or too few"),
        (bpe([], vocab={"a": 1}), "'vocab'"),
        (bpe({}), "expected merges to be a list"),
        (bpe([[0, 1]] * 70_000), "at most 65,536"),
        (bpe([[0, 256]]), r"merge 0 is \[0, 256\], expected two ids from 0 to 255"),
        (bpe([[0, -1]]), "merge 0"),
        (bpe([[0, True]]), "merge 0"),
        (bpe([[0, 1.0]]), "merge 0"),
        (bpe([[0, 1, 2]]), "merge 0"),
        (bpe([["a", "b"]]), "merge 0"),
        (bpe([[0, 1], [0, 1]]), "merge 1, .*twice"),
        (bpe([[97, 97], *[[256 + k, 256 + k] for k in range(60)]]), "more than 1,024 bytes"),
        (char(["ab"]), "character 0 is 'ab'"),
        (char([""]), "character 0"),
        (char([3]), "character 0"),
        (char(["a", "a"]), "character 1, 'a', is there twice"),
        (char(["\ud800"]), "character 0"),
        (char("abc"), "expected characters to be a list"),
        (b" " * 4_000_001, "more than 4,000,000 bytes"),
    ],
)
def test_a_hostile_file_is_refused_in_one_line(raw: bytes, why: str) -> None:
    with pytest.raises(TokenizerError, match=why) as refused:
        parse(raw)
    text = str(refused.value)
    assert "\n" not in text and len(text) < 250 and text.startswith("tokenizer.json")


def test_only_a_regular_file_is_opened(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_bytes(bpe([]))
    (tmp_path / "link.json").symlink_to(real)
    for path in (tmp_path / "link.json", tmp_path / "none.json", tmp_path, Path("/dev/zero")):
        with pytest.raises(TokenizerError, match="is not there, or is no regular file"):
            load(path)


def test_texts_and_ids_out_of_reach_are_refused_in_a_line() -> None:
    with pytest.raises(TokenizerError, match="UTF-8 cannot hold"):
        TRAINED.encode("a\ud800")
    for made in (TRAINED, Char(["a"])):
        for i in (-1, made.vocab_size):
            with pytest.raises(TokenizerError, match=f"no token has the id {i}"):
                made.decode([i])


def test_a_bound_keeps_the_memory_of_the_encoder_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "MOST_TOKENS", 10)
    made = Bpe([])
    for i in range(100):
        made.encode("x" * i)
    assert len(made._known) <= 11


def test_tinytorch_encodes_alike(tmp_path: Path) -> None:
    tokenization = pytest.importorskip("tinytorch.tokenization")
    rng = np.random.default_rng(3)
    alphabet = list(LETTERS + "abcdefghij 0123456789 ")
    texts = ["".join(rng.choice(alphabet, rng.integers(0, 60))) for _ in range(200)] + [TALKS[:2000]]
    theirs = [
        tokenization.BPETokenizer.train(TALKS[:20_000], vocab_size=400),
        tokenization.CharTokenizer.train("".join(alphabet) + TALKS[:2000]),
    ]
    for student in theirs:
        path = tmp_path / "tokenizer.json"
        student.save(path)
        ours = load(path)
        assert (ours.vocab_size, ours.end) == (student.vocab_size, student.end)
        for text in texts:
            ids = list(student.encode(text))
            assert ours.encode(text) == ids and ours.decode(ids) == student.decode(ids) == text
