"""Timed rounds, the same of pictures and of text: new questions and known ones in turn, the reference beside.

Known questions must not be answered faster than new ones: answers are computed, not kept.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

BUDGET_S = 30.0  # timing stops after this many seconds, not before LEAST_ROUNDS nor while answers look kept
LEAST_ROUNDS = 3
# What was asked before, answered this much faster than new questions in three rounds of four, means that
# answers are kept. One round alone may be that much off on a busy machine; a table of answers is so much
# faster in every round.
CACHE_RATIO = 1.6
SAME_SHARE = 0.98  # of the answers must be the same when asked again

M = TypeVar("M")  # a model
Q = TypeVar("Q")  # what a round asks
A = TypeVar("A")  # what is answered
Job = tuple[str, Callable[[], tuple[A, float]]]  # a name of Rates, and a call that gives answer and rate


@dataclass(frozen=True)
class Timing(Generic[M]):
    """How a model is timed.

    reference: the reference entry, timed in turn. reader: the model in a process that was asked nothing yet.
    budget_s: about how many seconds.
    """

    reference: M | None = None
    reader: Callable[[], AbstractContextManager[M]] | None = None
    budget_s: float = BUDGET_S
    clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True)
class Rates:
    """Rates of the rounds, one a round: on new questions, on those asked before, and of the reference."""

    new: list[float] = field(default_factory=list)
    known: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    reference_known: list[float] = field(default_factory=list)  # what keeps the reference as warm

    @property
    def known_ratio(self) -> float:
        """How much faster what was asked before is answered, in at least three rounds of four."""
        return float(np.quantile(np.asarray(self.known) / np.asarray(self.new), 0.25))

    @property
    def ratio_to_reference(self) -> float | None:
        """The median of the rounds' ratios to the reference's of the same round; None without one."""
        ratios = [mine / theirs for mine, theirs in zip(self.new, self.reference, strict=False)]
        return float(np.median(ratios)) if ratios else None

    def kept(self, what: str) -> list[str]:
        """A fault where questions asked before are answered too fast."""
        if self.known_ratio <= CACHE_RATIO:
            return []
        return [
            f"{what} asked before are answered {self.known_ratio:.1f} times faster than new ones: answers "
            "must be computed, not kept"
        ]


def alternate(
    questions: Iterable[Q], jobs: Callable[[Q], Sequence[Job[A]]], rates: Rates, timing: Timing[M]
) -> Iterator[tuple[Q, dict[str, A]]]:
    """Ask round after round until the time is over: each question, and its answers in the order they came.

    The rates join `rates` under their jobs' names.
    """
    began = timing.clock()
    for turn, question in enumerate(questions):
        asked = jobs(question)
        answers: dict[str, A] = {}
        for name, ask in asked if turn % 2 else reversed(asked):  # nobody always goes first
            answers[name], rate = ask()
            getattr(rates, name).append(rate)
        yield question, answers
        suspect = rates.known_ratio > CACHE_RATIO  # three rounds may be bad luck
        if turn + 1 >= LEAST_ROUNDS and timing.clock() - began > timing.budget_s and not suspect:
            break


def bootstrap_median(
    samples: list[float], rng: np.random.Generator, draws: int = 2000
) -> tuple[float, float]:
    """95% percentile bootstrap interval of the median."""
    values = np.asarray(samples)
    medians = np.median(values[rng.integers(0, len(values), (draws, len(values)))], axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)
