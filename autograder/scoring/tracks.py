"""What is measured of an entry, track by track: pictures (vision, compression), speed, language.

Each function takes a Run, asks its worker, and leaves figures in `metrics`, timings in `samples` and one line
for each failed audit in `faults`. What the submission does wrong is raised as SubmissionError, LanguageError
or TokenizerError; the scorer turns those into reasons.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autograder.data import datasets, tinytalks, tokenizer
from autograder.data.datasets import Dialogue, Split, TextSplit
from autograder.scoring import client, language, measure, rounds, rules, staging, tokens

NOVEL_DIALOGUES = 100  # of a second, secret seed
NOVEL_SHARE = 0.8  # of the next-token accuracy must be left on them
NOVEL_BITS = 1.25  # times the bits may be spent on them
ASKED = 100  # prompts of the rubric


class Reference:
    """The course's entry behind a worker of its own; its faults are ours, not the submission's."""

    def __init__(self, worker: client.Worker, staged: staging.Staged, parameters: int, digest: str) -> None:
        self.staged, self.parameters, self.digest = staged, parameters, digest
        self._worker = worker

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return self._ask(self._worker.predict, images)

    def begin(self, batch: int) -> None:
        self._ask(self._worker.begin, batch)

    def step(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._ask(self._worker.step, ids)

    def generate(self, prompts: NDArray[np.int64], n: int, stream: bool = True) -> client.Stream:
        return self._ask(self._worker.generate, prompts, n, stream)

    def _ask(self, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except client.SubmissionError as error:
            raise RuntimeError(f"the reference entry failed: {error}") from None


@dataclass
class Run:
    """One entry while it is measured; `rng` is seeded by the course's secret."""

    rule: rules.Track
    staged: staging.Staged
    worker: client.Worker
    data: "Split | TextSplit"
    rng: np.random.Generator
    reference: Reference | None
    budget_s: float
    metrics: dict[str, Any]
    samples: dict[str, list[float]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    fresh: Callable[[], AbstractContextManager[client.Worker]] | None = None  # the entry in another process


def pictures(run: Run) -> None:
    """Accuracy on the split, images/s, and where the track has a baseline the points lost from it."""
    data, rule, predict = run.data, run.rule, run.worker.predict
    assert isinstance(data, Split)
    reference = run.reference.predict if run.reference else None
    found = measure.accuracy(predict, data.images, data.labels, run.rng, rule.batch)
    run.metrics.update(accuracy=found.value, accuracy_interval=list(found.interval))
    timing = rounds.Timing[measure.Predict](reference, _reader(run), run.budget_s)
    speed = measure.throughput(predict, data, found, run.rng, rule.batch, timing)
    run.metrics.update(
        images_per_second=speed.images_per_second,
        speed_interval=list(speed.interval),
        ratio_to_reference=speed.ratio_to_reference,
    )
    run.samples.update(
        images_per_second=speed.samples,
        known_images_per_second=speed.known,
        reference_images_per_second=speed.reference,
    )
    run.faults += speed.faults
    if rule.baselines:
        lost = _baseline(rule, data, reference) - found.value
        run.metrics["accuracy_lost"] = round(lost, 12)  # 0.9 - 0.87 is to be 0.03


def _reader(run: Run) -> Callable[[], AbstractContextManager[measure.Predict]] | None:
    """The entry in a process that has seen no picture yet."""
    fresh = run.fresh
    if fresh is None:
        return None

    @contextmanager
    def reader() -> Iterator[measure.Predict]:
        with fresh() as worker:
            yield worker.predict

    return reader


def _baseline(rule: rules.Track, data: Split, reference: measure.Predict | None) -> float:
    """Accuracy of the given network on the split: measured where it runs beside, else as published."""
    if reference is not None:
        rng = np.random.default_rng(0)
        return measure.accuracy(reference, data.images, data.labels, rng, rule.batch).value
    published = rule.baselines[data.name]
    if data.split not in published:
        raise ValueError(f"{rule.name} has no baseline on {data.split}: expected {', '.join(published)}")
    return published[data.split]


def speed(run: Run) -> None:
    """Next-token accuracy and the share of the baseline's that is kept; tokens/s and latency."""
    data, words = run.data, run.staged.tokenizer
    assert isinstance(data, TextSplit) and words is not None and run.reference is not None
    fresh = novel_dialogues(data, run.rng)
    mine = language.read(run.worker, words, data.dialogues).next_token_accuracy
    theirs = language.read(run.reference, words, data.dialogues).next_token_accuracy
    novel = language.read(run.worker, words, fresh[:NOVEL_DIALOGUES]).next_token_accuracy
    run.metrics.update(next_token_accuracy=mine, retention=mine / theirs if theirs else 0.0)
    if novel < NOVEL_SHARE * mine:
        run.faults.append(
            f"{100 * mine:.1f}% of the next tokens are right on the split, {100 * novel:.1f}% on dialogues "
            "of another seed: the model must read, not recite"
        )
    _tokens(run, words, fresh, run.budget_s)


def text(run: Run) -> None:
    """Bits per byte, the rubric's marks for greedy answers, tokens/s and latency."""
    data, words = run.data, run.staged.tokenizer
    assert isinstance(data, TextSplit) and words is not None
    fresh = novel_dialogues(data, run.rng)
    found = language.read(run.worker, words, data.dialogues)
    novel = language.read(run.worker, words, fresh[:NOVEL_DIALOGUES]).bits_per_byte
    run.metrics.update(
        bits_per_byte=found.bits_per_byte,
        bits_per_byte_interval=list(found.interval(run.rng)),
        next_token_accuracy=found.next_token_accuracy,
        perplexity=found.perplexity,
    )
    if novel > NOVEL_BITS * found.bits_per_byte:
        run.faults.append(
            f"{found.bits_per_byte:.2f} bits a byte on the split, {novel:.2f} on dialogues of another seed: "
            "the model must read, not recite"
        )
    asked = language.prompts(fresh)[:ASKED]
    marks = language.grade(asked, language.answers(run.worker, words, asked, run.rng))
    run.metrics.update(
        rubric=marks.total, coherence=marks.coherence, relevance=marks.relevance, fluency=marks.fluency
    )
    _tokens(run, words, fresh, run.budget_s)


MEASURES: Mapping[str, Callable[[Run], None]] = {
    "pictures": pictures,
    "speed": speed,
    "text": text,
}


def novel_dialogues(data: TextSplit, rng: np.random.Generator) -> Sequence[Dialogue]:
    """As many dialogues as the split has, of the same combinations but from a seed that nobody knows."""
    split = data.split if data.split in tinytalks.SIZES else "public"
    made = tinytalks.dialogues(int(rng.integers(2**31)), split)
    known = {dialogue.text for dialogue in data.dialogues}
    return [d for d, _ in zip(made, range(len(data)), strict=False) if d.text not in known] or data.dialogues


def _tokens(run: Run, words: tokenizer.Tokenizer, fresh: Sequence[Dialogue], budget_s: float) -> None:
    prompts = tokens.Prompts(words, fresh, run.rng)
    timing = rounds.Timing[tokens.Model](run.reference, run.fresh, budget_s)
    found = tokens.speed(run.worker, prompts, run.rng, timing)
    run.metrics.update(
        tokens_per_second=found.tokens_per_second,
        speed_interval=list(found.interval),
        ratio_to_reference=found.ratio_to_reference,
        latency_p50=found.latency_p50,
        latency_p90=found.latency_p90,
        first_token=found.first_token,
    )
    run.samples.update(
        tokens_per_second=found.samples,
        known_tokens_per_second=found.known,
        reference_tokens_per_second=found.reference,
        latencies=found.latencies,
    )
    run.faults += found.faults


def load(rule: rules.Track, name: str, split: str) -> "datasets.Split | datasets.TextSplit":
    """The split a track is measured on. Raises datasets.DataError."""
    return datasets.load_text(name, split) if rule.text else datasets.load(name, split)
