"""Measurements that can be believed: calibrated, repeated, with an interval, and honest when there is no
difference.

Built by tito from lesson 19_benchmarking: change the lesson, not this file.
"""

import math
import time
from dataclasses import dataclass

import numpy as np

__all__ = [
    "seconds_a_call",
    "MOST_CALLS",
    "calls_per_sample",
    "bootstrap_interval",
    "relative_spread",
    "WIDE",
    "FEW",
    "Result",
    "Benchmark",
    "paired_samples",
    "verdict",
    "Comparison",
    "compare",
]


def seconds_a_call(fn, inner=1, clock=time.perf_counter):
    """Seconds that one of `inner` calls of `fn()` takes, on average; the clock is read twice in all."""
    start = clock()
    for _ in range(inner):
        fn()
    return (clock() - start) / inner


MOST_CALLS = 2**20


def calls_per_sample(fn, least=0.005, clock=time.perf_counter):
    """The first of 1, 2, 4, ... calls of `fn()` that together take at least `least` seconds.

    Raises ValueError if even MOST_CALLS calls do not.
    """
    inner = 1
    while seconds_a_call(fn, inner, clock) * inner < least:
        inner *= 2
        if inner > MOST_CALLS:
            raise ValueError(
                f"calls_per_sample: {MOST_CALLS} calls took under {least} s; the clock cannot measure this"
            )
    return inner


def bootstrap_interval(samples, confidence=0.95, resamples=2000, seed=0):
    """(low, high): where the median of `samples` plausibly lies, the percentile bootstrap.

    The same `seed` gives the same interval. Source: B. Efron, "Bootstrap methods: another look at the
    jackknife", 1979.
    """
    samples, rng = np.asarray(samples, dtype=np.float64), np.random.default_rng(seed)
    medians = np.median(rng.choice(samples, (resamples, len(samples))), axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return float(low), float(high)


def relative_spread(samples):
    """The middle half of `samples` (quantile 0.75 minus quantile 0.25) in units of their median."""
    low, middle, high = np.quantile(samples, [0.25, 0.5, 0.75])
    return float((high - low) / middle)


WIDE = 0.1  # a spread above this gets a warning
FEW = 5  # fewer samples than this do, too


@dataclass(frozen=True)
class Result:
    """One measurement: raw `samples` in seconds a call, each the average of `inner` calls."""

    name: str
    samples: tuple
    inner: int

    @property
    def median(self):
        """The middle sample, in seconds a call."""
        return float(np.median(self.samples))

    @property
    def interval(self):
        """(low, high): the 95 % bootstrap interval of the median, in seconds."""
        return bootstrap_interval(self.samples)

    @property
    def spread(self):
        """The middle half of the samples in units of the median."""
        return relative_spread(self.samples)

    @property
    def warnings(self):
        """What speaks against believing the median, in sentences; empty if nothing does."""
        found = []
        if len(self.samples) < FEW:
            found.append(f"only {len(self.samples)} samples: an interval needs at least {FEW}")
        if self.spread > WIDE:
            found.append(
                f"the middle half spreads over {self.spread:.0%} of the median, more than {WIDE:.0%}: noisy"
            )
        return found

    def __repr__(self):
        low, high = (1e3 * end for end in self.interval)
        text = f"{self.name}: {1e3 * self.median:.4g} ms ({low:.4g} to {high:.4g})"
        text += f", {len(self.samples)} samples of {self.inner}"
        return "\n".join([text, *(f"  warning: {warning}" for warning in self.warnings)])


class Benchmark:
    """How long `fn()` takes: `run()` gives a Result with `repeats` samples of at least `least` seconds each.

    `clock()` gives seconds. Raises ValueError for fewer than two repeats, and where the clock is too coarse.
    """

    def __init__(self, fn, name=None, warmup=3, repeats=20, least=0.005, clock=time.perf_counter):
        if repeats < 2 or warmup < 0:
            raise ValueError(
                f"Benchmark: expected 2 repeats or more and warmup 0 or more, got {repeats}, {warmup}"
            )
        self.fn, self.name = fn, name or getattr(fn, "__name__", "function")
        self.warmup, self.repeats, self.least, self.clock = warmup, repeats, least, clock

    def run(self):
        """Warm up, calibrate, measure."""
        for _ in range(self.warmup):
            self.fn()
        inner = calls_per_sample(self.fn, self.least, self.clock)
        samples = [seconds_a_call(self.fn, inner, self.clock) for _ in range(self.repeats)]
        return Result(self.name, tuple(samples), inner)


def paired_samples(a, b, pairs, inner=(1, 1), clock=time.perf_counter):
    """Seconds a call of `a()` and of `b()`, two lists of `pairs` samples; a goes first, then b, in turn.

    Each sample of a is of inner[0] calls, each of b of inner[1].
    """
    samples = [], []
    for k in range(pairs):
        for which in (0, 1) if k % 2 == 0 else (1, 0):
            samples[which].append(seconds_a_call((a, b)[which], inner[which], clock))
    return samples


def verdict(a, b, least=0.01):
    """(ratio, (low, high), text): the median of b[k] / a[k], its interval, and what follows.

    `text` is "a is faster", "b is faster" or "no difference"; the last if the interval contains 1 or the
    ratio is within a factor 1 + `least` of 1.
    """
    ratios = np.asarray(b) / np.asarray(a)
    ratio, (low, high) = float(np.median(ratios)), bootstrap_interval(ratios)
    if low > 1 and ratio > 1 + least:
        return ratio, (low, high), "a is faster"
    if high < 1 and ratio < 1 / (1 + least):
        return ratio, (low, high), "b is faster"
    return ratio, (low, high), "no difference"


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: two Results with their raw samples, `ratio` = how many times as long b takes."""

    a: Result
    b: Result
    ratio: float
    interval: tuple
    verdict: str

    @property
    def warnings(self):
        """Those of both results, with their names."""
        return [f"{r.name}: {warning}" for r in (self.a, self.b) for warning in r.warnings]

    def __repr__(self):
        low, high = self.interval
        text = (
            f"{self.b.name} takes {self.ratio:.3f} times as long as {self.a.name} ({low:.3f} to {high:.3f})"
        )
        winner = {"a is faster": f"{self.a.name} is faster", "b is faster": f"{self.b.name} is faster"}
        text += f": {winner.get(self.verdict, self.verdict)}"
        return "\n".join([text, *(f"  warning: {warning}" for warning in self.warnings)])


def compare(a, b, names=("a", "b"), warmup=3, pairs=20, least=0.01, sample=0.005, clock=time.perf_counter):
    """A Comparison of `a()` and `b()`, measured in turn, `pairs` samples of at least `sample` seconds each.

    A ratio within a factor 1 + `least` of 1, or an interval around 1, is "no difference". Raises ValueError
    for fewer than FEW pairs, or where the clock is too coarse.
    """
    if pairs < FEW:
        raise ValueError(f"compare: expected at least {FEW} pairs, got {pairs}")
    for _ in range(warmup):
        a(), b()
    inner = tuple(calls_per_sample(fn, sample, clock) for fn in (a, b))
    samples = paired_samples(a, b, pairs, inner, clock)
    results = [Result(name, tuple(s), n) for name, s, n in zip(names, samples, inner, strict=True)]
    if not all(math.isfinite(s) and s > 0 for s in samples[0] + samples[1]):
        raise ValueError("compare: a sample of 0 seconds or less; the clock is too coarse or ran backwards")
    return Comparison(*results, *verdict(*samples, least))
