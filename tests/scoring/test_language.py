"""The language measures: counted by hand once, models put in order, and bad sessions refused."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ngrams import NGram, Oracle, Uniform, train_bpe

from autograder.data import datasets
from autograder.data.datasets import Dialogue
from autograder.data.tokenizer import Bpe, Char
from autograder.scoring import language
from autograder.scoring.language import Answer, LanguageError, Marks, Prompt, rubric

ROOT = Path(__file__).parents[2]
SUM = Prompt("Q: What is 7 plus 5?\nA:", "What is 7 plus 5?", "7 plus 5 is 12.", ("is 12",), 3)
TWO = (Dialogue(0, (("ab", "ba"),)), Dialogue(0, (("a", "b"), ("aa", "bb"))))
CHARS = Char(sorted(set("Q: A\nab")))


def test_uniform_bits_are_those_of_the_vocabulary_whatever_the_batch() -> None:
    tokenizer = Bpe([])
    for batch in (1, 2, 64):
        found = language.read(Uniform(257), tokenizer, TWO, batch=batch)
        n = np.array([len(d.text) for d in TWO])
        assert np.allclose(found.bits, (n + 1) * math.log2(257))
        assert found.bytes.tolist() == n.tolist() and found.tokens.tolist() == (n + 1).tolist()
    assert found.bits_per_byte == pytest.approx((n + 1).sum() / n.sum() * math.log2(257))
    assert found.perplexity == pytest.approx(257)


class Recorded:
    """Random logits, the same for each (row's past); keeps what it was shown."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size, self.shown = vocab_size, []

    def begin(self, batch: int) -> None:
        self.past: list[tuple[int, ...]] = [()] * batch

    def logits(self, past: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng(past).normal(0, 3, self.vocab_size).astype(np.float32)

    def step(self, ids: np.ndarray) -> np.ndarray:
        self.past = [(*past, int(i)) for past, i in zip(self.past, ids, strict=True)]
        self.shown.append(ids.copy())
        ids[:] = 0  # what the session writes into its question changes nothing
        return np.array([self.logits(past) for past in self.past])


def test_bits_and_accuracy_are_those_counted_by_hand() -> None:
    session = Recorded(CHARS.vocab_size)
    found = language.read(session, CHARS, TWO)
    bits, right, total = 0.0, 0, 0
    for d in TWO:
        ids = [CHARS.end, *CHARS.encode(d.text), CHARS.end]
        for t in range(1, len(ids)):
            p = np.exp(session.logits(tuple(ids[:t])).astype(np.float64))
            bits -= math.log2(p[ids[t]] / p.sum())
            right += int(p.argmax()) == ids[t]
            total += 1
    assert found.bits.sum() == pytest.approx(bits)
    assert language.bits_per_byte(session, CHARS, TWO) == pytest.approx(bits / sum(len(d.text) for d in TWO))
    assert language.next_token_accuracy(session, CHARS, TWO) == pytest.approx(right / total)
    low, high = found.interval(np.random.default_rng(0))
    assert low <= found.bits_per_byte <= high


def test_a_token_is_shown_only_after_its_distribution_was_read() -> None:
    session = Recorded(CHARS.vocab_size)
    language.read(session, CHARS, TWO[:1])
    ids = [CHARS.end, *CHARS.encode(TWO[0].text)]
    assert [int(row[0]) for row in session.shown] == ids  # the last id, the end, is never shown


class Bad(Uniform):
    def __init__(self, answer: Any) -> None:
        super().__init__(257)
        self.answer = answer

    def step(self, ids: np.ndarray) -> Any:
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        np.zeros((2, 256)), np.zeros((1, 257)), np.zeros((2, 257), np.int64), np.full((2, 257), np.nan),
        np.full((2, 257), np.inf), [["a"]], None, np.zeros((2, 257), np.complex128),
    ],
)  # fmt: skip
def test_answers_that_are_no_logits_are_refused_in_a_line(answer: Any) -> None:
    with pytest.raises(LanguageError, match=r"^a step answered [^\n]*$"):
        language.read(Bad(answer), Bpe([]), TWO)


def test_huge_logits_neither_overflow_nor_flatter() -> None:
    logits = np.zeros((2, 257))
    logits[:, 0] = 1e300
    assert language.read(Bad(logits), Bpe([]), TWO).bits_per_byte > 1e200
    assert language.read(Bad(logits), Bpe([]), TWO).perplexity < math.inf


def test_texts_that_do_not_fit_are_refused_in_a_line() -> None:
    long = Dialogue(0, (("a" * 600, "b"),))
    with pytest.raises(LanguageError, match="takes 609 tokens of this tokenizer, expected at most 512"):
        language.read(Uniform(257), Bpe([]), [long])
    with pytest.raises(LanguageError, match="prompt takes more than 512"):
        language.answers(Uniform(257), Bpe([]), language.prompts([long]), np.random.default_rng(0))
    with pytest.raises(LanguageError, match="no dialogues"):
        language.read(Uniform(257), Bpe([]), [])
    with pytest.raises(ValueError, match="no character 'Q'"):
        language.read(Uniform(2), Char(["x"]), TWO)


# ---- answers


class Script(Uniform):
    """Says a fixed text after the last `A:`, whatever was asked."""

    def __init__(self, tokenizer: Bpe, said: str, ends: bool = True) -> None:
        super().__init__(tokenizer.vocab_size)
        self.tokenizer, self.said = tokenizer, [*tokenizer.encode(said), *[tokenizer.end] * ends]

    def begin(self, batch: int) -> None:
        self.past: list[list[int]] = [[] for _ in range(batch)]

    def step(self, ids: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(ids), self.vocab_size))
        for past, i, row in zip(self.past, ids, logits, strict=True):
            past.append(int(i))
            ids_ = [i for i in past if i != self.tokenizer.end]
            said = self.tokenizer.decode(ids_).rpartition("A:")[2]
            row[self.said[len(self.tokenizer.encode(said)) % len(self.said)]] = 50.0
        return logits


def test_answers_end_at_a_line_or_the_end_token_and_prompts_of_any_length_share_a_batch() -> None:
    asked = language.prompts(datasets.load_text("tinytalks", "validation").dialogues[:9])
    rng = np.random.default_rng(1)
    for temperature in (0.0, 0.5):
        for said, ends in ((" So it is.", True), (" So it is.\nQ: Who", False)):
            script = Script(Bpe([]), said, ends)
            found = language.answers(script, Bpe([]), asked, rng, temperature=temperature, batch=4)
            assert found == [Answer("So it is.", True)] * 9
    endless = language.answers(Script(Bpe([]), "ha", False), Bpe([]), asked, rng)
    assert all(not a.ended and a.text == "ha" * (language.MOST_ANSWER // 2) for a in endless)


def test_sampling_follows_the_chances() -> None:
    rng = np.random.default_rng(5)
    logits = np.log(np.array([0.5, 0.3, 0.2]))
    share = np.bincount([language._choose(logits, rng, 1.0) for _ in range(4000)]) / 4000
    assert np.abs(share - [0.5, 0.3, 0.2]).max() < 0.03
    sharp = np.bincount([language._choose(logits, rng, 0.5) for _ in range(4000)]) / 4000
    assert np.abs(sharp - np.array([25, 9, 4]) / 38).max() < 0.03


def test_prompts_ask_the_last_question_after_the_turns_before() -> None:
    told = Dialogue(5, (("My name is Mei.", "Hi."), ("Who am I?", "You are Mei.")), ((), ("Mei",)))
    (asked,) = language.prompts([told])
    assert asked == Prompt(
        "Q: My name is Mei.\nA: Hi.\nQ: Who am I?\nA:", "Who am I?", "You are Mei.", ("Mei",), 5
    )


# ---- the rubric


def marks(answer: Answer | str, prompt: Prompt = SUM) -> tuple[float, float, float]:
    found = rubric(prompt, answer)
    return round(found.coherence, 2), round(found.relevance, 2), round(found.fluency, 2)


def documented(text: str) -> dict[str, tuple[float, float, float]]:
    """Answer -> marks, from lines such as `"It is 12."   1, 0.4, 1` or table rows of the same."""
    rows = re.findall(r'[`"]([^"`\n]+)[`"] *[ |] *([\d.]+)[,| ]+([\d.]+)[,| ]+([\d.]+)', text)
    return {said: (float(a), float(b), float(c)) for said, a, b, c in rows}


def test_the_documented_examples_have_the_marks_they_say() -> None:
    for text in (rubric.__doc__ or "", (ROOT / "course" / "language_rubric.md").read_text(encoding="utf-8")):
        rows = documented(text)
        assert len(rows) >= 6
        for said, expected in rows.items():
            answer = Answer(said, ended=not said.endswith("is 7"))
            assert marks(answer) == expected, said


def test_every_reference_answer_of_the_corpus_has_full_marks() -> None:
    for split in ("train", "test"):
        asked = language.prompts(datasets.load_text("tinytalks", split).dialogues[:2000])
        found = language.grade(asked, [Answer(p.reference) for p in asked])
        wrong = [(p, m) for p, m in zip(asked, found.marks, strict=True) if m != Marks(1, 1, 1)]
        assert wrong == []
        assert found.total == 1 and set(found.levels) == {1, 2, 3, 4, 5}


def test_the_answer_to_another_prompt_of_the_level_is_hardly_ever_right() -> None:
    asked = language.prompts(datasets.load_text("tinytalks", "test").dialogues)
    for level in range(1, 6):
        same = [p for p in asked if p.level == level]
        others = same[1:] + same[:1]
        different = [(p, o) for p, o in zip(same, others, strict=True) if p.reference != o.reference]
        found = language.grade([p for p, _ in different], [Answer(o.reference) for _, o in different])
        assert found.coherence < 0.03 and found.relevance < 0.4 and found.fluency > 0.9, level


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "says nothing"),
        ("...", "says nothing"),
        ("7 plus 5 is 13.", "says '13'"),
        ("7 plus 5.", "does not say 'is 12'"),
        ("7 plus 5 is 12. A cow eats grass.", "says 'cow'|says 'grass'"),
        ("7 plus 5 is 12. 7 plus 5 is 12. 7 plus 5 is 12.", "repeats itself"),
        ("7 plus 5 iz 12.", "'iz' is no word"),
        ("is 12 plus 7 5.", "do not stand together"),
        (Answer("7 plus 5 is 12", False), "no proper end"),
    ],
)
def test_what_takes_marks_down_is_named(answer: Answer | str, why: str) -> None:
    found = rubric(SUM, answer)
    assert found.total < 1 and re.search(why, " ".join(found.reasons)), found


def test_without_keys_the_words_that_the_reference_adds_make_an_answer_right() -> None:
    classic = [Dialogue(0, (("What color is the ocean?", "The ocean is blue."), ("Is fire hot?", "Yes.")))]
    corpus = language.Corpus.of(classic)
    prompt = Prompt("Q: What color is the ocean?\nA:", "What color is the ocean?", "The ocean is blue.")
    assert rubric(prompt, "The ocean is blue.", corpus) == Marks(1, 1, 1)
    assert rubric(prompt, "It is blue.", corpus).coherence == 1
    assert rubric(prompt, "The ocean is hot.", corpus).coherence == 0


def test_grading_needs_one_answer_a_prompt() -> None:
    with pytest.raises(LanguageError, match="1 answers to 2 prompts"):
        language.grade([SUM, SUM], [Answer("x")])


# ---- models in order


@pytest.fixture(scope="module")
def ladder() -> list[tuple[str, float, language.Grades]]:
    """(name, bits per byte, grades) of models that know more and more, on held-out dialogues."""
    train = datasets.load_text("tinytalks", "train").dialogues[:3000]
    held = datasets.load_text("tinytalks", "public").dialogues[:40]
    tokenizer = train_bpe("\n\n".join(d.text for d in train[:300]), 200)
    ngram = NGram(8, tokenizer, train)
    models = {
        "uniform": Uniform(tokenizer.vocab_size),
        "bigram": ngram.shorter(2),
        "eight-gram": ngram,
        "oracle": Oracle(ngram, tokenizer, held),
    }
    asked = language.prompts(held)
    rows = []
    for name, model in models.items():
        said = language.answers(model, tokenizer, asked, np.random.default_rng(0), temperature=0.3)
        bits = language.bits_per_byte(model, tokenizer, held)
        rows.append((name, bits, language.grade(asked, said)))
    return rows


def test_bits_per_byte_order_models_rightly(ladder: list[tuple[str, float, language.Grades]]) -> None:
    bits = [bits for _, bits, _ in ladder]
    assert all(worse > 1.1 * better for worse, better in zip(bits, bits[1:], strict=False)), bits


def test_the_rubric_orders_models_rightly(ladder: list[tuple[str, float, language.Grades]]) -> None:
    totals = [grades.total for _, _, grades in ladder]
    assert all(worse + 0.1 < better for worse, better in zip(totals, totals[1:], strict=False)), totals
    for name in ("coherence", "relevance", "fluency"):
        found = [getattr(grades, name) for _, _, grades in ladder]
        assert all(worse < better + 0.02 for worse, better in zip(found, found[1:], strict=False)), found
        assert found[0] < 0.05 and found[2] > found[0] and found[3] > 0.95
    assert totals[0] < 0.05 and totals[-1] > 0.95


def test_ten_samples_are_two_of_each_level_and_readable() -> None:
    held = datasets.load_text("tinytalks", "validation").dialogues
    script = Script(Bpe([]), " A cow eats grass.")
    found = language.ten_samples(script, Bpe([]), held, np.random.default_rng(2))
    assert [s.prompt.level for s in found] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert len({s.prompt.text for s in found}) == 10
    text = str(found[4])
    assert text.startswith(found[4].prompt.text + " A cow eats grass.   (expected: ")
