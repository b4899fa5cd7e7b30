"""Accuracy, speed, size and memory, measured from outside, with the audits that keep them honest.

Functions of `predict`: uint8 images (N, 3, 32, 32) in, finite logits (N, 10) out, so that the same code
measures a worker, a reference entry, or a cheat planted by a test. The clock and the labels stay here.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autograder.data.datasets import Split
from autograder.scoring import rounds
from autograder.scoring.rounds import Rates, Timing

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float64]]

ROUNDS = 12
ROUND_IMAGES = 500  # most pictures in one timed round
# The timed run may be so many times faster than the accuracy run, whose pictures are as new: another program
# may have slowed one of them down. A second, cheaper network for the timed run is faster than that.
STEADY_RATIO, STEADY_BATCHES = 3.0, 8  # not asked of fewer batches
NOVEL_SHARE = 0.6  # of the accuracy must be left on pictures moved by one pixel
USUAL: Timing[Predict] = Timing()


@dataclass(frozen=True)
class Accuracy:
    """Top-1: correct of n, its share, a 95% Wilson interval; logits (N, 10) in the split's own order.

    rate: images/s that three batches of four stayed below; of a few batches infinity, for the first are cold.
    """

    correct: int
    n: int
    value: float
    interval: tuple[float, float]
    logits: NDArray[np.float64] = field(repr=False)
    rate: float = math.inf


@dataclass(frozen=True)
class Throughput:
    """Images/s: the median of the rounds with a 95% bootstrap interval; every round kept.

    known: the rounds on pictures asked before. reference: the rounds of the reference entry, timed in turn.
    faults: one line for each audit that failed.
    """

    images_per_second: float
    interval: tuple[float, float]
    samples: list[float]
    known: list[float]
    reference: list[float]
    ratio_to_reference: float | None
    novel_accuracy: float
    same_share: float
    faults: list[str]


def wilson(correct: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95% score interval for a share; raises ValueError for no trials.

    Source: E. B. Wilson, Probable inference, J. Am. Stat. Assoc. 22 (1927).
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"wilson: expected 0 <= correct <= n and n >= 1, got {correct} of {n}")
    p, zz = correct / n, z * z
    centre = (p + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return (
        0.0 if correct == 0 else max(0.0, centre - half),
        1.0 if correct == n else min(1.0, centre + half),
    )


def accuracy(
    predict: Predict,
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    rng: np.random.Generator,
    batch: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Accuracy:
    """Ask for every picture once, in an order that only `rng` knows; labels are compared here."""
    order = rng.permutation(len(images))
    logits: NDArray[np.float64] = np.empty((len(images), 10))
    rates = []
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        logits[chosen], rate = _timed(predict, np.ascontiguousarray(images[chosen]), batch, clock)
        rates.append(rate)
    correct = int((logits.argmax(axis=1) == labels).sum())
    interval = wilson(correct, len(images))
    rate = float(np.quantile(rates, 0.75)) if len(rates) >= STEADY_BATCHES else math.inf
    return Accuracy(correct, len(images), correct / len(images), interval, logits, rate)


def throughput(
    predict: Predict,
    data: Split,
    known: Accuracy,
    rng: np.random.Generator,
    batch: int,
    timing: Timing[Predict] = USUAL,
) -> Throughput:
    """Time rounds on new pictures (the split's, moved by a pixel, with a little noise), and audit them.

    Rounds on the very pictures of the accuracy run alternate with them. Audits: those must get the answers of
    the accuracy run; must not be faster than new ones; new ones must still be classified, not much faster
    than in the accuracy run, and as a second process does it for which they are the first (timing.reader).
    """
    per_round = min(ROUND_IMAGES, max(batch, len(data)), len(data))
    _warm_up(predict, timing.reference, (min(batch, per_round), 3, 32, 32), rng)

    def jobs(asked: _Asked) -> list[rounds.Job[NDArray[np.float64]]]:
        ask = [("new", predict, asked.new), ("known", predict, asked.known)]
        ask += [] if timing.reference is None else [("reference", timing.reference, asked.new)]
        return [(name, partial(_timed, one, images, batch, timing.clock)) for name, one, images in ask]

    rates, seen = Rates(), _Seen(known, data.labels)
    for asked, answers in rounds.alternate(_questions(data.images, per_round, rng), jobs, rates, timing):
        seen.add(asked, answers)
    median = float(np.median(rates.new))
    faults = rates.kept("pictures") + _faults(seen, median)
    if timing.reader is not None:
        faults += _other_process(timing.reader, seen, rng, batch)
    return Throughput(
        images_per_second=median,
        interval=rounds.bootstrap_median(rates.new, rng),
        samples=rates.new,
        known=rates.known,
        reference=rates.reference,
        ratio_to_reference=rates.ratio_to_reference,
        novel_accuracy=seen.novel,
        same_share=seen.same,
        faults=faults,
    )


@dataclass(frozen=True)
class _Asked:
    """Pictures of one round, by their place in the split: as they are there, and made new."""

    chosen: NDArray[np.intp]
    known: NDArray[np.uint8]
    new: NDArray[np.uint8]


def _questions(images: NDArray[np.uint8], n: int, rng: np.random.Generator) -> Iterator[_Asked]:
    for _ in range(ROUNDS):
        chosen = rng.permutation(len(images))[:n]
        yield _Asked(chosen, np.ascontiguousarray(images[chosen]), _moved(images[chosen], rng))


def _warm_up(
    predict: Predict, reference: Predict | None, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    for _ in range(2):
        noise = rng.integers(0, 256, shape, dtype=np.uint8)
        for one in (predict, reference):
            if one is not None:
                one(noise)


class _Seen:
    """What the timed rounds answered: shares of the pictures, and the new ones with their logits."""

    def __init__(self, accuracy: Accuracy, labels: NDArray[np.uint8]) -> None:
        self.accuracy, self._labels = accuracy, labels
        self._same: list[NDArray[np.bool_]] = []
        self._right: list[NDArray[np.bool_]] = []
        self._fresh: list[tuple[NDArray[np.uint8], NDArray[np.float64]]] = []

    def add(self, asked: _Asked, answers: dict[str, NDArray[np.float64]]) -> None:
        """One round."""
        self._fresh.append((asked.new, answers["new"]))
        self._right.append(answers["new"].argmax(axis=1) == self._labels[asked.chosen])
        self._same.append(_close(answers["known"], self.accuracy.logits[asked.chosen]))

    @property
    def same(self) -> float:
        """Share of the known pictures that got the answer of the accuracy run."""
        return float(np.concatenate(self._same).mean())

    @property
    def novel(self) -> float:
        """Share of the new pictures that were classified."""
        return float(np.concatenate(self._right).mean())

    def fresh(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """All new pictures, and the logits that they got."""
        pictures, told = zip(*self._fresh, strict=True)
        return np.concatenate(pictures), np.concatenate(told)


def _other_process(
    reader: Callable[[], AbstractContextManager[Predict]], seen: _Seen, rng: np.random.Generator, batch: int
) -> list[str]:
    """A fault where a process that has seen no picture yet answers otherwise than the timed one did."""
    pictures, told = seen.fresh()
    chosen = rng.permutation(len(told))[:ROUND_IMAGES]
    with reader() as predict:
        parts = [chosen[i : i + batch] for i in range(0, len(chosen), batch)]
        again = np.concatenate([predict(np.ascontiguousarray(pictures[part])) for part in parts])
    same = float(_close(again, told[chosen]).mean())
    if same >= rounds.SAME_SHARE:
        return []
    return [
        f"only {100 * same:.1f}% of the pictures of the timed run get the same answer from the model when it "
        "has seen no others: it must do the same work at all times"
    ]


def _faults(seen: _Seen, median: float) -> list[str]:
    """A line for each audit that failed; median: images/s of the timed run."""
    same, novel, value = seen.same, seen.novel, seen.accuracy.value
    steady = median / seen.accuracy.rate
    faults = []
    if same < rounds.SAME_SHARE:
        faults.append(
            f"only {100 * same:.1f}% of the pictures get the same answer in the timed run as in the accuracy "
            "run: both must use the same model"
        )
    if value > 0.2 and novel < NOVEL_SHARE * value:  # below that there is nothing to lose
        faults.append(
            f"in the timed run {100 * novel:.1f}% of new pictures are right, {100 * value:.1f}% in the "
            "accuracy run: the model must do the same work for both"
        )
    if steady > STEADY_RATIO:
        faults.append(
            f"new pictures are answered {steady:.1f} times faster in the timed run than in the accuracy run: "
            "both must use the same model"
        )
    return faults


def _timed(
    predict: Predict, images: NDArray[np.uint8], batch: int, clock: Callable[[], float]
) -> tuple[NDArray[np.float64], float]:
    start = clock()
    logits = [predict(images[i : i + batch]) for i in range(0, len(images), batch)]
    return np.concatenate(logits), len(images) / (clock() - start)


def _moved(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The same pictures for an eye, new ones for a table: moved by one pixel, values off by up to two."""
    dy, dx = [(0, 1), (0, -1), (1, 0), (-1, 0)][int(rng.integers(4))]
    shifted = np.roll(images, (dy, dx), axis=(2, 3)).astype(np.int16)
    noise = rng.integers(-2, 3, images.shape, dtype=np.int16)
    return np.clip(shifted + noise, 0, 255).astype(np.uint8)


def _close(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows agree; float32 sums in another batch may differ in the last digits."""
    scale = np.abs(b).max(axis=1, keepdims=True)
    return (np.abs(a - b) <= 1e-4 + 1e-2 * scale).all(axis=1)
