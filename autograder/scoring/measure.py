"""Accuracy, speed, size and memory, measured from outside, with the audits that keep them honest.

Functions of `predict`: uint8 images (N, 3, 32, 32) in, finite logits (N, 10) out, so that the same code
measures a worker, a reference entry, or a cheat planted by a test. The clock and the labels stay here.
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float64]]

ROUNDS = 12
ROUND_IMAGES = 500  # most pictures in one timed round
BUDGET_S = 30.0  # timing stops after this many seconds, not before LEAST_ROUNDS nor while answers look kept
LEAST_ROUNDS = 3
# Known pictures answered this much faster than new ones in three rounds of four mean that answers are kept.
# One round alone may be that much off on a busy machine; a table of answers is so much faster in every round.
CACHE_RATIO = 1.6
SAME_SHARE = 0.98  # of the pictures must get the same answer when asked again
# The timed run may be so many times faster than the accuracy run, whose pictures are as new: another program
# may have slowed one of them down. A second, cheaper network for the timed run is faster than that.
STEADY_RATIO, STEADY_BATCHES = 3.0, 8  # not asked of fewer batches
NOVEL_SHARE = 0.6  # of the accuracy must be left on pictures moved by one pixel


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


def bootstrap_median(
    samples: list[float], rng: np.random.Generator, draws: int = 2000
) -> tuple[float, float]:
    """95% percentile bootstrap interval of the median."""
    values = np.asarray(samples)
    medians = np.median(values[rng.integers(0, len(values), (draws, len(values)))], axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


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
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    known: Accuracy,
    rng: np.random.Generator,
    batch: int,
    *,
    reference: Predict | None = None,
    reader: Callable[[], AbstractContextManager[Predict]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    budget_s: float = BUDGET_S,
) -> Throughput:
    """Time rounds on new pictures (the split's, moved by a pixel, with a little noise), and audit them.

    Rounds on the very pictures of the accuracy run alternate with them. Audits: those must get the answers of
    the accuracy run; must not be faster than new ones; new ones must still be classified, not much faster
    than in the accuracy run, and as a second process does it for which they are the first (`reader`).
    """
    per_round = min(ROUND_IMAGES, max(batch, len(images)), len(images))
    for _ in range(2):  # warm-up, on noise
        noise = rng.integers(0, 256, (min(batch, per_round), 3, 32, 32), dtype=np.uint8)
        for one in (predict, reference):
            if one is not None:
                one(noise)
    speeds: dict[str, list[float]] = {"new": [], "known": [], "reference": []}
    fresh: list[tuple[NDArray[np.uint8], NDArray[np.float64]]] = []
    same = asked = right = 0
    began = clock()
    for turn in range(ROUNDS):
        chosen = rng.permutation(len(images))[:per_round]
        old, new = np.ascontiguousarray(images[chosen]), _moved(images[chosen], rng)
        jobs = [("new", predict, new), ("known", predict, old)]
        jobs += [] if reference is None else [("reference", reference, new)]
        answers = {}
        for name, one, pictures in jobs if turn % 2 else reversed(jobs):  # nobody always goes first
            answers[name], speed = _timed(one, pictures, batch, clock)
            speeds[name].append(speed)
        fresh.append((new, answers["new"]))
        right += int((answers["new"].argmax(axis=1) == labels[chosen]).sum())
        same += int(_close(answers["known"], known.logits[chosen]).sum())
        asked += per_round
        suspect = known_ratio(speeds["known"], speeds["new"]) > CACHE_RATIO  # three rounds may be bad luck
        if turn + 1 >= LEAST_ROUNDS and clock() - began > budget_s and not suspect:
            break
    samples = speeds["new"]
    median = float(np.median(samples))
    to_reference = [new / ref for new, ref in zip(samples, speeds["reference"], strict=False)]
    ratio = known_ratio(speeds["known"], samples)
    faults = _faults(ratio, same / asked, right / asked, known.value, median / known.rate)
    if reader is not None:
        pictures, told = (np.concatenate(parts) for parts in zip(*fresh, strict=True))
        faults += _other_process(reader, pictures, told, rng.permutation(len(told))[:ROUND_IMAGES], batch)
    return Throughput(
        images_per_second=median,
        interval=bootstrap_median(samples, rng),
        samples=samples,
        known=speeds["known"],
        reference=speeds["reference"],
        ratio_to_reference=float(np.median(to_reference)) if to_reference else None,
        novel_accuracy=right / asked,
        same_share=same / asked,
        faults=faults,
    )


def _other_process(
    reader: Callable[[], AbstractContextManager[Predict]],
    pictures: NDArray[np.uint8],
    told: NDArray[np.float64],
    chosen: NDArray[np.int64],
    batch: int,
) -> list[str]:
    """A fault where a process that has seen no picture yet answers otherwise than the timed one did."""
    with reader() as predict:
        parts = [chosen[i : i + batch] for i in range(0, len(chosen), batch)]
        again = np.concatenate([predict(np.ascontiguousarray(pictures[part])) for part in parts])
    same = float(_close(again, told[chosen]).mean())
    if same >= SAME_SHARE:
        return []
    return [
        f"only {100 * same:.1f}% of the pictures of the timed run get the same answer from the model when it "
        "has seen no others: it must do the same work at all times"
    ]


def known_ratio(known: list[float], new: list[float]) -> float:
    """How much faster what was asked before is answered, in at least three rounds of four."""
    return float(np.quantile(np.asarray(known) / np.asarray(new), 0.25))


def _faults(ratio: float, same: float, novel: float, value: float, steady: float) -> list[str]:
    faults = []
    if ratio > CACHE_RATIO:
        faults.append(
            f"pictures asked before are answered {ratio:.1f} times faster than new ones: answers must be "
            "computed, not kept"
        )
    if same < SAME_SHARE:
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
