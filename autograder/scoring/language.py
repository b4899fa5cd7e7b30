"""How well a language model predicts and answers, measured from outside, one token at a time.

Functions of a `Step` session, so that the same code measures a worker, an n-gram or a cheat planted by a
test. The text is encoded here and shown token by token: each distribution is read before its token is shown.
The published rubric (course/language_rubric.md) judges answers by rule: the same answer, the same marks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autograder.data import datasets
from autograder.data import tinytalks_words as words
from autograder.data.datasets import Dialogue
from autograder.data.tokenizer import Tokenizer
from autograder.errors import OlympicsError

CONTEXT = 512  # tokens a model sees at once, the end token before the dialogue among them
BATCH = 64
MOST_ANSWER = 120  # tokens of one answer
READING_TEMPERATURE = 0.8  # of the ten samples that people read; the rubric's own answers are greedy
WEIGHTS = {"coherence": 0.5, "relevance": 0.25, "fluency": 0.25}
STOP = frozenset(
    """a an the i you he she it we they me my your its is am are was be do does did have has had to of in on
    at and or for with from by that this there what which who how where when if so not will can should than
    then as""".split()  # noqa: SIM905
)


class LanguageError(OlympicsError, ValueError):
    """A session that answers with something else than logits, or a text it cannot be asked. One line."""


class Step(Protocol):
    """A model that reads along. begin: forget all, then `batch` rows at once. step: the next id of each row
    (B,) int64; returns the logits (B, V) of the id that follows."""

    def begin(self, batch: int) -> None: ...
    def step(self, ids: NDArray[np.int64]) -> NDArray[Any]: ...


# ---- prediction


@dataclass(frozen=True)
class Reading:
    """What one pass over some dialogues found; each array has one entry a dialogue, in their order.

    bits: of all tokens and the closing end. bytes: of the UTF-8 text. tokens: predicted. right: of these, as
    the likeliest token.
    """

    bits: NDArray[np.float64] = field(repr=False)
    bytes: NDArray[np.int64] = field(repr=False)
    tokens: NDArray[np.int64] = field(repr=False)
    right: NDArray[np.int64] = field(repr=False)

    @property
    def bits_per_byte(self) -> float:
        return float(self.bits.sum() / self.bytes.sum())

    @property
    def next_token_accuracy(self) -> float:
        return float(self.right.sum() / self.tokens.sum())

    @property
    def perplexity(self) -> float:
        """2 to the bits of a token: depends on the tokenizer, as bits per byte do not."""
        return float(2.0 ** min(1000.0, float(self.bits.sum() / self.tokens.sum())))

    def interval(self, rng: np.random.Generator, draws: int = 1000) -> tuple[float, float]:
        """95% bootstrap interval of bits per byte: dialogues are drawn anew."""
        chosen = rng.integers(0, len(self.bits), (draws, len(self.bits)))
        values = self.bits[chosen].sum(axis=1) / self.bytes[chosen].sum(axis=1)
        low, high = np.percentile(values, [2.5, 97.5])
        return float(low), float(high)


def read(
    session: Step, tokenizer: Tokenizer, dialogues: Sequence[Dialogue], *, batch: int = BATCH
) -> Reading:
    """Show every dialogue between two end tokens, and count the bits of what comes next.

    Prequential coding: A. P. Dawid, Statistical Theory: The Prequential Approach (1984). Raises LanguageError
    for logits that are none, and for a dialogue of more than CONTEXT tokens; what the session raises passes.
    """
    n = len(dialogues)
    if n == 0:
        raise LanguageError("no dialogues to read")
    ids = [[tokenizer.end, *tokenizer.encode(d.text), tokenizer.end] for d in dialogues]
    longest = max(range(n), key=lambda i: len(ids[i]))
    if len(ids[longest]) - 1 > CONTEXT:
        raise LanguageError(
            f"a dialogue of {len(dialogues[longest].text.encode())} bytes takes {len(ids[longest]) - 1} "
            f"tokens of this tokenizer, expected at most {CONTEXT}"
        )
    bits, right = np.zeros(n), np.zeros(n, np.int64)
    order = sorted(range(n), key=lambda i: len(ids[i]))  # rows of a batch end at about the same time
    for start in range(0, n, batch):
        rows = np.array(order[start : start + batch])
        lengths = np.array([len(ids[i]) for i in rows])
        table = np.full((len(rows), lengths.max()), tokenizer.end, np.int64)
        for row, i in enumerate(rows):
            table[row, : lengths[row]] = ids[i]
        session.begin(len(rows))
        for t in range(table.shape[1] - 1):
            logits = _logits(session.step(table[:, t].copy()), len(rows), tokenizer.vocab_size)
            target, open_ = table[:, t + 1], t + 1 < lengths
            bits[rows] += np.where(open_, _surprise(logits, target), 0.0)
            right[rows] += open_ & (logits.argmax(axis=1) == target)
    sizes = np.array([len(d.text.encode()) for d in dialogues])
    return Reading(bits, sizes, np.array([len(row) - 1 for row in ids]), right)


def bits_per_byte(
    session: Step, tokenizer: Tokenizer, dialogues: Sequence[Dialogue], *, batch: int = BATCH
) -> float:
    """Bits of every token, the closing end among them, over the UTF-8 bytes of the texts. See `read`."""
    return read(session, tokenizer, dialogues, batch=batch).bits_per_byte


def next_token_accuracy(
    session: Step, tokenizer: Tokenizer, dialogues: Sequence[Dialogue], *, batch: int = BATCH
) -> float:
    """How often the likeliest token is the one that comes; only for one tokenizer comparable. See `read`."""
    return read(session, tokenizer, dialogues, batch=batch).next_token_accuracy


def _logits(answer: Any, batch: int, vocab: int) -> NDArray[np.float64]:
    logits = np.asarray(answer)
    if logits.shape != (batch, vocab) or logits.dtype.kind != "f":
        raise LanguageError(
            f"a step answered {logits.dtype} of shape {logits.shape}, expected floats of ({batch}, {vocab})"
        )
    if not np.isfinite(logits).all():
        raise LanguageError("a step answered logits that are not finite")
    return logits.astype(np.float64)


def _surprise(logits: NDArray[np.float64], target: NDArray[np.int64]) -> NDArray[np.float64]:
    """Bits of the target under the softmax of each row."""
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1))
    chosen = np.take_along_axis(logits - top, target[:, None], axis=1)[:, 0]
    return (total - chosen) / math.log(2)


# ---- answers


@dataclass(frozen=True)
class Prompt:
    """A question to be answered, with the turns before it.

    text: ends with `A:`. reference: the corpus' answer. key: the phrases that make an answer right, where
    the corpus has them.
    """

    text: str
    question: str
    reference: str
    key: tuple[str, ...] = ()
    level: int = 0


@dataclass(frozen=True)
class Answer:
    """What a model said. ended: it closed the answer by a new line or the end token, within the limits."""

    text: str
    ended: bool = True


def prompts(dialogues: Iterable[Dialogue]) -> list[Prompt]:
    """The last question of each dialogue, which in level 5 needs the turns before it."""
    found = []
    for d in dialogues:
        question, reference = d.turns[-1]
        told = "".join(f"Q: {q}\nA: {a}\n" for q, a in d.turns[:-1])
        key = d.keys[-1] if d.keys else ()
        found.append(Prompt(f"{told}Q: {question}\nA:", question, reference, key, d.level))
    return found


def answers(
    session: Step,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    rng: np.random.Generator,
    *,
    temperature: float = 0.0,
    batch: int = BATCH,
) -> list[Answer]:
    """Let a model answer each prompt. We choose the tokens: the likeliest at temperature 0, else by `rng`.

    A batch asks its prompts in a random order, token by token; a row whose prompt is over goes on with its
    own tokens. Raises as `read`.
    """
    found = [Answer("", False)] * len(prompts)
    order = rng.permutation(len(prompts))
    order = order[np.argsort([len(prompts[i].text) for i in order], kind="stable")]
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        said = _batch(session, tokenizer, [prompts[i] for i in rows], rng, temperature)
        for i, answer in zip(rows, said, strict=True):
            found[i] = answer
    return found


def _batch(
    session: Step, tokenizer: Tokenizer, asked: list[Prompt], rng: np.random.Generator, temperature: float
) -> list[Answer]:
    ids = [[tokenizer.end, *tokenizer.encode(prompt.text)] for prompt in asked]
    if max(len(row) for row in ids) > CONTEXT:
        raise LanguageError(f"a prompt takes more than {CONTEXT} tokens of this tokenizer")
    starts = [len(row) for row in ids]
    done: list[Answer | None] = [None] * len(asked)
    session.begin(len(asked))
    for t in range(CONTEXT):
        shown = np.array([row[t] if t < len(row) else tokenizer.end for row in ids], np.int64)
        logits = _logits(session.step(shown), len(asked), tokenizer.vocab_size)
        for i in [i for i, row in enumerate(ids) if done[i] is None and len(row) == t + 1]:
            chosen = _choose(logits[i], rng, temperature)
            if chosen != tokenizer.end:
                ids[i].append(chosen)
            text = tokenizer.decode(ids[i][starts[i] :])
            if chosen == tokenizer.end or "\n" in text:
                done[i] = Answer(text.split("\n")[0].strip())
            elif len(ids[i]) - starts[i] >= MOST_ANSWER:
                done[i] = Answer(text.strip(), False)
        if None not in done:
            break
    return [
        Answer(tokenizer.decode(row[start:]).strip(), False) if said is None else said
        for row, start, said in zip(ids, starts, done, strict=True)
    ]


def _choose(logits: NDArray[np.float64], rng: np.random.Generator, temperature: float) -> int:
    if temperature == 0:
        return int(logits.argmax())
    chances = np.exp((logits - logits.max()) / temperature)
    return min(int(np.searchsorted(chances.cumsum(), rng.random() * chances.sum(), "right")), len(logits) - 1)


# ---- the rubric


@dataclass(frozen=True)
class Marks:
    """Three marks from 0 to 1, and what of the answer took them down."""

    coherence: float
    relevance: float
    fluency: float
    reasons: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """The weighted sum by WEIGHTS."""
        return sum(weight * getattr(self, name) for name, weight in WEIGHTS.items())


@dataclass(frozen=True)
class Corpus:
    """What the rubric knows of a corpus, from its training split.

    words: all of them. pairs: neighbours in answers, numbers and names taken as one. values: the words that
    make some answer right, so that they make another wrong.
    """

    words: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    values: frozenset[str]

    @classmethod
    def of(cls, dialogues: Iterable[Dialogue]) -> Corpus:
        known: set[str] = set()
        pairs: set[tuple[str, str]] = set()
        values: set[str] = set()
        for d in dialogues:
            for question, answer in d.turns:
                known.update(_words(question), _words(answer))
                pairs.update(_pairs(answer))
            values.update(word for key in d.keys for phrase in key for word in _content(phrase))
        return cls(frozenset(known), frozenset(pairs), frozenset(values))


@cache
def tinytalks_corpus() -> Corpus:
    return Corpus.of(datasets.load_text("tinytalks", "train").dialogues)


def rubric(prompt: Prompt, answer: Answer | str, corpus: Corpus | None = None) -> Marks:
    """Mark one answer by rule. `corpus`: what counts as a word; default: TinyTalks' training split.

    coherence: the answer is right. The share of the prompt's key phrases that it says; 0 where it also says a
    value that the reference does not (another number, name, color ...). Phrases that the question holds
    already count only where all are such. Without a key, the words the reference adds to the question.
    relevance: it is about this. F1 of the answer's content words: precision against question and reference,
    recall against the reference.
    fluency: it is language. The product of four: the share of its words that the corpus knows; the share of
    its neighbouring words that are neighbours in an answer of the corpus, in the question or the reference;
    the share of different ones among its word triples; and its end (half for . ! or ?, half for stopping).

    For "What is 7 plus 5?" with the reference "7 plus 5 is 12.":
        "7 plus 5 is 12."              1, 1, 1           all right
        "It is 12."                    1, 0.4, 1         right, with less of the topic
        "7 plus 5 is 13."              0, 0.75, 1        wrong, though well said
        "A cow eats grass."            0, 0, 1           about something else
        "7 plus 5 is 12 13 14."        0, 0.8, 0.78      saying everything is no answer
        "7 plus 5 is 7 plus 5 is 7"    0, 0.86, 0        a loop that never stops
    """
    corpus = corpus or tinytalks_corpus()
    said = answer if isinstance(answer, Answer) else Answer(answer)
    found = _words(said.text)
    if not found:
        return Marks(0.0, 0.0, 0.0, ("it says nothing",))
    reasons: list[str] = []
    coherence = _coherence(prompt, found, corpus, reasons)
    relevance = _relevance(prompt, found, reasons)
    fluency = _fluency(prompt, said, found, corpus, reasons)
    return Marks(coherence, relevance, fluency, tuple(reasons))


def _coherence(prompt: Prompt, found: list[str], corpus: Corpus, reasons: list[str]) -> float:
    reference, question = set(_words(prompt.reference)), _words(prompt.question)
    key = [_words(phrase) for phrase in prompt.key]
    if not key:
        key = [[word] for word in _content(prompt.reference)]
    key = [phrase for phrase in key if not _says(question, phrase)] or key
    missing = [" ".join(phrase) for phrase in key if not _says(found, phrase)]
    rivals = [w for w in found if w not in reference and (w.isdigit() or w in corpus.values - STOP)]
    if rivals:
        reasons.append(f"it says {rivals[0]!r}, expected {prompt.reference!r}")
        return 0.0
    if missing:
        reasons.append(f"it does not say {missing[0]!r}")
    return 1 - len(missing) / len(key)


def _relevance(prompt: Prompt, found: list[str], reasons: list[str]) -> float:
    said = set(_content(" ".join(found)))
    reference = set(_content(prompt.reference))
    precision = len(said & (reference | set(_content(prompt.question)))) / len(said)
    recall = len(said & reference) / len(reference)
    if precision < 1:
        strange = sorted(said - reference - set(_content(prompt.question)))[0]
        reasons.append(f"{strange!r} is not of the topic")
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _fluency(prompt: Prompt, said: Answer, found: list[str], corpus: Corpus, reasons: list[str]) -> float:
    here = {*_words(prompt.question), *_words(prompt.reference)}
    known = [word.isdigit() or word in here or word in corpus.words for word in found]
    pairs = _pairs(said.text)
    near = {*_pairs(prompt.question), *_pairs(prompt.reference)}
    seen = [pair in near or pair in corpus.pairs for pair in pairs]
    triples = list(zip(found, found[1:], found[2:], strict=False))
    fresh = len(set(triples)) / len(triples) if triples else 1.0
    end = 0.5 * said.ended + 0.5 * said.text.rstrip().endswith((".", "!", "?"))
    if not all(known):
        reasons.append(f"{found[known.index(False)]!r} is no word of the corpus")
    elif not all(seen):
        reasons.append(f"{' '.join(pairs[seen.index(False)]).strip()!r} do not stand together in the corpus")
    if fresh < 1:
        reasons.append("it repeats itself")
    if end < 1:
        reasons.append("it has no proper end")
    return sum(known) / len(known) * (sum(seen) / len(seen)) * fresh * end


_ONE = {name.lower(): "<name>" for name in words.NAMES + words.PET_NAMES} | {
    thing: "<thing>" for thing in words.THINGS
}


def _words(text: str) -> list[str]:
    return re.findall(r"\d+|[^\W\d_]+(?:'[^\W\d_]+)?", text.lower())


def _content(text: str) -> list[str]:
    """The words that carry the meaning; all of them where none does."""
    found = _words(text)
    return [word for word in found if word not in STOP] or found


def _pairs(answer: str) -> list[tuple[str, str]]:
    """Neighbouring words, the edges and full stops among them, numbers, names and things taken as one."""
    tokens = [t.strip() for t in re.findall(r"\d+|[^\W\d_]+(?:'[^\W\d_]+)?|[^\w\s]", answer.lower())]
    tokens = ["<number>" if t.isdigit() else _ONE.get(t, t) for t in tokens]
    return list(zip(["<start>", *tokens], [*tokens, "<end>"], strict=True))


def _says(found: list[str], phrase: list[str]) -> bool:
    """Whether the words of the phrase stand in `found`, one after the other."""
    n = len(phrase)
    return any(found[i : i + n] == phrase for i in range(len(found) - n + 1))


# ---- all answers together


@dataclass(frozen=True)
class Grades:
    """The mean marks over n answers; levels: the mean total of each level that was asked."""

    coherence: float
    relevance: float
    fluency: float
    total: float
    levels: dict[int, float]
    n: int
    marks: list[Marks] = field(repr=False)


def grade(prompts: Sequence[Prompt], said: Sequence[Answer], corpus: Corpus | None = None) -> Grades:
    """Mark all answers. Raises LanguageError where there are not as many answers as prompts, or none."""
    if len(prompts) != len(said) or not prompts:
        raise LanguageError(f"{len(said)} answers to {len(prompts)} prompts: expected one each")
    marks = [rubric(prompt, answer, corpus) for prompt, answer in zip(prompts, said, strict=True)]
    by_level: dict[int, list[float]] = {}
    for prompt, mark in zip(prompts, marks, strict=True):
        by_level.setdefault(prompt.level, []).append(mark.total)
    means = {name: sum(getattr(m, name) for m in marks) / len(marks) for name in (*WEIGHTS, "total")}
    levels = {level: sum(totals) / len(totals) for level, totals in sorted(by_level.items())}
    return Grades(**means, levels=levels, n=len(marks), marks=marks)


@dataclass(frozen=True)
class Sample:
    """One answer for people to read."""

    prompt: Prompt
    answer: Answer
    marks: Marks

    def __str__(self) -> str:
        wanted = (
            "" if self.answer.text == self.prompt.reference else f"   (expected: {self.prompt.reference})"
        )
        cut = "" if self.answer.ended else " ..."
        return f"{self.prompt.text} {self.answer.text}{cut}{wanted}\n"


def ten_samples(
    session: Step,
    tokenizer: Tokenizer,
    dialogues: Sequence[Dialogue],
    rng: np.random.Generator,
    *,
    temperature: float = READING_TEMPERATURE,
) -> list[Sample]:
    """Ten answers for people to read, two of each level where there are five; print them one by one."""
    by_level: dict[int, list[Prompt]] = {}
    asked = prompts(dialogues)
    for i in rng.permutation(len(asked)):
        by_level.setdefault(asked[i].level, []).append(asked[i])
    turns = [group[k] for k in range(10) for _, group in sorted(by_level.items()) if k < len(group)]
    chosen = sorted(turns[:10], key=lambda prompt: prompt.level)
    said = answers(session, tokenizer, chosen, rng, temperature=temperature)
    return [Sample(p, a, rubric(p, a)) for p, a in zip(chosen, said, strict=True)]
