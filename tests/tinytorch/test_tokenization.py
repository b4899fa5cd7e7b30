"""Lesson 10: lossless on any text, and the same ids as the scorer's own reader of the same file."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ngrams import train_bpe

from autograder.data import datasets, tokenizer
from tinytorch.tokenization import CHUNK, BPETokenizer, CharTokenizer, load_tokenizer

TALKS = datasets.load_text("tinytalks", "validation").text[:20_000]
BPE = BPETokenizer.train(TALKS + "日本日本 ñandú ñu 🦊🦊 \t\t", 400)
UTF8 = st.text(st.characters(exclude_categories=["Cs"]))
NEAR = st.text("aehtñ日🦊 01٣²_.,!\n\r\t\u2028\u00a0\u0301", max_size=60)
TRUSTED = tokenizer.Bpe(BPE.merges)


@given(UTF8 | NEAR)
def test_bpe_is_lossless_and_agrees_with_the_scorer(text):
    ids = BPE.encode(text)
    assert BPE.decode(ids) == text
    assert ids == TRUSTED.encode(text)
    assert "".join(CHUNK.findall(text)) == text
    assert all(0 <= i < BPE.end for i in ids)


@given(st.lists(st.integers(0, BPE.end)))
def test_any_ids_decode_as_the_scorer_decodes_them(ids):
    assert BPE.decode(ids) == TRUSTED.decode(ids)


@given(UTF8.filter(len), st.data())
def test_characters(text, data):
    char = CharTokenizer.train(text)
    some = data.draw(st.text(st.sampled_from(text)))
    assert char.decode(char.encode(some)) == some
    assert char.encode(some) == tokenizer.Char(char.characters).encode(some)
    assert char.vocab_size == len(set(text)) + 1 and char.end == char.vocab_size - 1


@given(NEAR)
def test_training_on_any_text_makes_a_file_that_the_scorer_takes(text):
    trained = BPETokenizer.train(text, 270)
    raw = json.dumps({"format": 1, "type": "bpe", "merges": trained.merges}).encode()
    assert tokenizer.parse(raw).encode(text) == trained.encode(text)


def test_merges_are_those_of_an_independent_trainer():
    assert BPETokenizer.train(TALKS, 330).merges == train_bpe(TALKS, 73).merges


def test_a_run_of_one_letter_makes_no_token_that_the_scorer_refuses():
    trained = BPETokenizer.train("a" * 50_000, 300)
    assert max(map(len, trained.tokens)) <= tokenizer.LONGEST_TOKEN
    assert trained.decode(trained.encode("a" * 3000)) == "a" * 3000


@pytest.mark.parametrize("made", [BPE, CharTokenizer.train(TALKS)], ids=["bpe", "char"])
def test_files(made, tmp_path):
    made.save(tmp_path / "t.json")
    for other in (load_tokenizer(tmp_path / "t.json"), tokenizer.load(tmp_path / "t.json")):
        assert (other.vocab_size, other.end) == (made.vocab_size, made.end)
        assert other.encode(TALKS) == made.encode(TALKS)
        assert other.decode([0, made.end]) == made.decode([0, made.end])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b'{"format": 2, "type": "bpe", "merges": []}',
        b'{"format": 1, "type": ["bpe"], "merges": []}',
        b'{"format": 1, "type": "bpe"}',
        b'{"format": 1, "type": "bpe", "merges": [[97, 256]]}',
        b'{"format": 1, "type": "bpe", "merges": [[97, 98], [97, 98]]}',
        b'{"format": 1, "type": "bpe", "merges": [[97, [98]]]}',
        json.dumps(
            {"format": 1, "type": "bpe", "merges": [[97, 97]] + [[i, i] for i in range(256, 300)]}
        ).encode(),
        b'{"format": 1, "type": "char", "characters": "abc"}',
        b'{"format": 1, "type": "char", "characters": ["a", "bc"]}',
        b'{"format": 1, "type": "char", "characters": ["a", "a"]}',
        b'{"format": 1, "type": "char", "characters": ["\\ud800"]}',
    ],
)
def test_damaged_files_are_refused_in_one_line(raw, tmp_path):
    path = tmp_path / "t.json"
    path.write_bytes(raw)
    with pytest.raises(ValueError) as error:
        load_tokenizer(path)
    assert type(error.value) is ValueError and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: BPETokenizer.train("text", 256), "vocab_size from 257 to 65793, got 256"),
        (lambda: BPE.decode([BPE.vocab_size]), f"no token has the id {BPE.vocab_size}"),
        (lambda: BPE.decode([-1]), "no token has the id -1"),
        (lambda: CharTokenizer.train("ab").decode([3]), "no token has the id 3, expected 0 to 2"),
        (lambda: CharTokenizer.train("ab").encode("a\n"), r"character '\n'"),
        (lambda: BPE.encode("a \ud83e b"), r"'\ud83e' stands alone"),
        (lambda: BPETokenizer.train("a\udc00", 300), r"'\udc00' stands alone"),
        (lambda: CharTokenizer.train("a\udc00"), r"'\udc00' stands alone"),
    ],
)
def test_bad_input(call, said):
    with pytest.raises(ValueError) as error:
        call()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_training_text_takes_seconds():
    text = datasets.load_text("tinytalks", "train").text
    start = time.process_time()
    trained = BPETokenizer.train(text, 512)
    learned = time.process_time()
    ids = trained.encode(text)
    encoded = time.process_time()
    times = f"train {learned - start:.1f} s, encode {encoded - learned:.1f} s"
    print(f"{len(text):,} characters, {len(ids):,} tokens: {times}")
    assert trained.vocab_size == 512 and trained.decode(ids) == text
    assert learned - start < 20 and encoded - learned < 10
