"""Speed of a language model in tokens a second, measured from outside, with the audits that keep it honest.

Functions of a model with `begin`, `step` and `generate` (a worker, the reference entry, a cheat planted by a
test). Two scenarios, named after MLPerf Inference (V. Reddi and others, 2020): offline, a batch of prompts at
once, ranks; single stream, one prompt at a time, tells how long a token takes. Prompts are made anew from a
secret seed, and the time of a token is the arrival of its frame here: of a frame for each token in the single
stream, of one for all offline.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autograder.data.datasets import Dialogue
from autograder.data.tokenizer import Tokenizer
from autograder.scoring import rounds
from autograder.scoring.client import Stream
from autograder.scoring.rounds import Rates, Timing

BATCH = 16  # prompts at once, offline
INPUT_LENGTH = 128  # tokens of a text in the end: its prompt and the new ones
NEW_TOKENS = 64
ROUNDS = 8
QUERIES = 20  # of the single stream
QUERY_TOKENS = 32
LEAST_QUERIES = 5
AUDITED = 16  # texts of the timed run that are read again
SLOW_S = 30.0  # a first round that takes longer (under 35 tokens/s) makes the others smaller
TIE = 1e-3  # of the range of the logits: nearer ones may change places in another batch


class Model(Protocol):
    """A language model that reads along (`begin`, `step`), or goes on by itself (`generate`)."""

    def begin(self, batch: int) -> None: ...
    def step(self, ids: NDArray[np.int64]) -> NDArray[Any]: ...
    def generate(self, prompts: NDArray[np.int64], n: int, stream: bool = True) -> Stream: ...


@dataclass(frozen=True)
class Speed:
    """Offline tokens/s: the median of the rounds with a 95% bootstrap interval; every round kept.

    known: the rounds on prompts asked before. reference: those of the reference entry, timed in turn.
    latency_p50, latency_p90: of the single stream's queries, seconds for each token of one, prompt included.
    first_token: their median seconds to the first frame. same_share: of the timed tokens, those that the
    model itself chooses when it reads along. faults: one line for each audit that failed.
    """

    tokens_per_second: float
    interval: tuple[float, float]
    ratio_to_reference: float | None
    latency_p50: float
    latency_p90: float
    first_token: float
    same_share: float
    samples: list[float] = field(repr=False)
    known: list[float] = field(repr=False)
    reference: list[float] = field(repr=False)
    latencies: list[float] = field(repr=False)
    faults: list[str]


class Source(Protocol):
    """Where prompts come from."""

    def take(self, batch: int, length: int) -> NDArray[np.int64]: ...


class Prompts:
    """Beginnings of texts, no two alike: dialogues in a random order, each after an end token.

    Raises ValueError without dialogues.
    """

    def __init__(self, tokenizer: Tokenizer, dialogues: Sequence[Dialogue], rng: np.random.Generator) -> None:
        if not dialogues:
            raise ValueError("prompts are made of dialogues: expected one at least")
        self._ids = [[tokenizer.end, *tokenizer.encode(d.text)] for d in dialogues]
        self._rng = rng
        self._seen: set[bytes] = set()

    def take(self, batch: int, length: int) -> NDArray[np.int64]:
        """Prompts (batch, length) that were not taken before, as far as the dialogues allow."""
        return np.stack([self._one(length) for _ in range(batch)])

    def _one(self, length: int) -> NDArray[np.int64]:
        for _ in range(100):
            ids: list[int] = []
            while len(ids) < length:
                ids += self._ids[int(self._rng.integers(len(self._ids)))]
            prompt = np.array(ids[:length], np.int64)
            if prompt.tobytes() not in self._seen:
                break
        self._seen.add(prompt.tobytes())
        return prompt


@dataclass(frozen=True)
class Load:
    """What is asked offline: how many texts at once, of how many tokens in the end, how many of them new."""

    batch: int = BATCH
    input_length: int = INPUT_LENGTH
    new: int = NEW_TOKENS

    @property
    def prompt(self) -> int:
        """Tokens of a prompt. Raises ValueError for lengths that leave none."""
        length = self.input_length - self.new
        if length < 1:
            raise ValueError(
                f"{self.input_length} tokens with {self.new} new ones leave no prompt: expected more"
            )
        return length


USUAL: Timing[Model] = Timing()
LOAD = Load()


def speed(
    model: Model,
    prompts: Source,
    rng: np.random.Generator,
    timing: Timing[Model] = USUAL,
    load: Load = LOAD,
) -> Speed:
    """Time offline rounds on new prompts, then single queries, and audit both.

    Rounds on prompts asked before alternate with them: these must not be faster. Some texts of the timed run
    are then shown to the model token by token: it must choose the same tokens. `timing.reader` gives the
    model in a process that did not write them, and cannot remember what it wrote. The time limit ends the
    rounds (not before LEAST_ROUNDS) and, at a third of it, the queries; a model that is far below the gate
    gets a quarter of the batch, so that it is measured in minutes. Raises ValueError for lengths that leave
    no prompt.
    """
    rates, texts = _offline(model, prompts, timing, load)
    queries, first = _single_stream(model, prompts, load.prompt, timing.budget_s / 3, texts)
    with timing.reader() if timing.reader else nullcontext(model) as other:
        same = _same_tokens(other, texts, load.prompt, rng)
    return Speed(
        tokens_per_second=float(np.median(rates.new)),
        interval=rounds.bootstrap_median(rates.new, rng),
        ratio_to_reference=rates.ratio_to_reference,
        latency_p50=float(np.percentile(queries, 50)),
        latency_p90=float(np.percentile(queries, 90)),
        first_token=float(np.median(first)),
        same_share=same,
        samples=rates.new,
        known=rates.known,
        reference=rates.reference,
        latencies=queries,
        faults=rates.kept("prompts") + _faults(same),
    )


def _offline(
    model: Model, prompts: Source, timing: Timing[Model], load: Load
) -> tuple[Rates, list[NDArray[np.int64]]]:
    """Tokens/s of the rounds, and the texts that the model wrote in them."""
    batch, new, reference = load.batch, load.new, timing.reference
    seen = prompts.take(batch, load.prompt)
    # the warm-up; `seen` is what later counts as asked before
    if model.generate(seen, new, stream=False).seconds > SLOW_S:
        batch = max(1, batch // 4)
        seen = seen[:batch]
    if reference is not None:
        reference.generate(seen, new, stream=False)

    def timed(one: Model, asked: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
        stream = one.generate(asked, new, stream=False)  # nobody waits for a single token: one frame
        return np.concatenate([asked, stream.tokens], axis=1), batch * new / stream.seconds

    def jobs(fresh: NDArray[np.int64]) -> list[rounds.Job[NDArray[np.int64]]]:
        asked = [("new", model, fresh), ("known", model, seen)]
        if reference is not None:  # asked the same, so that both are as often warm from a round before
            asked += [("reference", reference, fresh), ("reference_known", reference, seen)]
        return [(name, partial(timed, one, ids)) for name, one, ids in asked]

    rates, texts = Rates(), list[NDArray[np.int64]]()
    questions = (prompts.take(batch, load.prompt) for _ in range(ROUNDS))
    for _, answers in rounds.alternate(questions, jobs, rates, timing):
        for name, written in answers.items():
            if name in ("new", "known"):
                texts += list(written)
    return rates, texts


def _single_stream(
    model: Model, prompts: Source, length: int, budget_s: float, texts: list[NDArray[np.int64]]
) -> tuple[list[float], list[float]]:
    """Seconds a token of each query and seconds to its first token; the texts that came of it join `texts`.

    The whole query is divided by its tokens: frames held back and sent together gain nothing.
    """
    each, first = [], []
    began = monotonic()
    for turn in range(QUERIES):
        prompt = prompts.take(1, length)
        stream = model.generate(prompt, QUERY_TOKENS)
        each.append(stream.seconds / QUERY_TOKENS)
        first.append(stream.arrivals[0])
        texts.append(np.concatenate([prompt, stream.tokens], axis=1)[0])
        if turn + 1 >= LEAST_QUERIES and monotonic() - began > budget_s:
            break
    return each, first


def _same_tokens(
    model: Model, texts: list[NDArray[np.int64]], length: int, rng: np.random.Generator
) -> float:
    """Of the new tokens of some texts, the share that the model chooses when it is shown the text before."""
    chosen = [texts[i] for i in rng.permutation(len(texts))[:AUDITED]]
    sizes = np.array([len(text) for text in chosen])
    table = np.zeros((len(chosen), sizes.max()), np.int64)
    for row, text in enumerate(chosen):
        table[row, : len(text)] = text
    same = asked = 0
    model.begin(len(chosen))
    for t in range(table.shape[1] - 1):
        logits = np.asarray(model.step(table[:, t].copy()))
        if t + 1 < length:
            continue
        told = np.take_along_axis(logits, table[:, t + 1 : t + 2], axis=1)[:, 0]
        top, low = logits.max(axis=1), logits.min(axis=1)
        open_ = t + 1 < sizes
        same += int(((told >= top - TIE * (top - low)) & open_).sum())
        asked += int(open_.sum())
    return same / asked


def _faults(same: float) -> list[str]:
    faults = []
    if same < rounds.SAME_SHARE:
        faults.append(
            f"only {100 * same:.1f}% of the tokens of the timed run are those that the model chooses when it "
            "reads along: both must use the same model, greedily"
        )
    return faults
