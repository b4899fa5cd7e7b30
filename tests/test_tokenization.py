"""Module 10: lossless on any text, the fast training against the naive one, files and bad input."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.tokenization import (
    BPETokenizer,
    CharTokenizer,
    bits_per_byte,
    learn_merges,
    learn_merges_naive,
    load_tokenizer,
)

TALK = "Q: where does the rain go?\nA: the rain goes into the river.\n" * 3
TEXTS = st.text(st.characters(codec="utf-8"))
BPE = BPETokenizer.train(TALK, 290)


@given(TEXTS)
@settings(deadline=None)
def test_lossless(text):
    for tokenizer in (BPE, CharTokenizer.train(text)):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= i < tokenizer.end for i in ids)


@given(st.text("ab é1.\n", max_size=80))
@settings(deadline=None)
def test_fast_training_learns_the_same(text):
    assert learn_merges(text, 20) == learn_merges_naive(text, 20)


@given(TEXTS)
@settings(deadline=None)
def test_encoding_plays_all_merges_in_turn(text):
    from tinytorch.tokenization import CHUNK, merge_pair

    assert "".join(CHUNK.findall(text)) == text
    wanted = []
    for chunk in CHUNK.findall(text):
        ids = list(chunk.encode())
        for k, pair in enumerate(BPE.merges):
            ids = merge_pair(ids, pair, 256 + k)
        wanted += ids
    assert BPE.encode(text) == wanted


@pytest.mark.parametrize("tokenizer", [BPE, CharTokenizer.train(TALK + "é")])
def test_files(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "t.json")
    again = load_tokenizer(tmp_path / "t.json")
    assert (again.vocab_size, again.end) == (tokenizer.vocab_size, tokenizer.end)
    assert again.encode(TALK) == tokenizer.encode(TALK)
    assert json.loads((tmp_path / "t.json").read_text())["format"] == 1


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"[" * 99999, b'{"format": 1, "type": "bpe", "merges": [1]}']
)
def test_damaged_files(content, tmp_path):
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"^load_tokenizer: .*t\.json: [^\n]+$"):
        load_tokenizer(tmp_path / "t.json")


def test_refuses():
    with pytest.raises(ValueError, match="vocab_size 256 is too small; expected at least 257"):
        BPETokenizer.train(TALK, 256)
    for text in ("\ud800", "a\udfffb"):
        with pytest.raises(ValueError, match="lone surrogate"):
            BPE.encode(text)
    for wrong in (-1, BPE.vocab_size):
        with pytest.raises(ValueError, match=f"no token has the id {wrong}; expected 0 to"):
            BPE.decode([wrong])
    with pytest.raises(ValueError, match="no id for the character 'z'"):
        CharTokenizer.train("abc").encode("abz")
    with pytest.raises(TypeError, match="whole numbers"):
        BPE.decode([1.5])


def test_sizes():
    assert BPETokenizer.train(TALK, 257).encode("hé") == [104, 195, 169]
    assert BPE.end == BPE.vocab_size - 1 == 256 + len(BPE.merges)
    assert bits_per_byte(0.0, 3, 3) == 0
