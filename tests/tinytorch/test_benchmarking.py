"""Module 19: measurements on a clock moved by hand, intervals against simulation, errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.benchmarking import (
    Benchmark,
    Result,
    bootstrap_interval,
    calls_per_sample,
    compare,
    relative_spread,
    seconds_a_call,
    verdict,
)


class Clock:
    """Moves only when a job runs."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def job(self, seconds):
        """A function that takes what `seconds()` says, or that number."""

        def work():
            self.now += seconds() if callable(seconds) else seconds

        return work


def test_seconds_a_call():
    clock = Clock()
    assert seconds_a_call(clock.job(0.25), 8, clock) == 0.25


@settings(deadline=None)  # a loaded machine may take long
@given(st.floats(1e-4, 10), st.floats(1e-4, 1))
def test_calibration_is_the_first_power_of_two_that_is_long_enough(seconds, least):
    clock = Clock()
    inner = calls_per_sample(clock.job(seconds), least, clock)
    assert inner & (inner - 1) == 0
    assert inner * seconds >= least * (1 - 1e-6)
    assert inner == 1 or inner / 2 * seconds < least * (1 + 1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=30), st.floats(0.01, 100))
def test_interval_and_spread_scale_with_the_unit(samples, factor):
    low, high = bootstrap_interval(samples, resamples=200)
    assert min(samples) <= low <= high <= max(samples)
    scaled = [factor * s for s in samples]
    np.testing.assert_allclose(bootstrap_interval(scaled, resamples=200), (factor * low, factor * high))
    assert relative_spread(scaled) == pytest.approx(relative_spread(samples))


def test_interval_holds_the_true_median_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.exponential(size=40), resamples=300, seed=k) for k in range(300)]
    hits = np.mean([low <= np.log(2) <= high for low, high in intervals])
    assert 0.9 < hits < 0.99


def test_benchmark_keeps_every_sample_in_order():
    clock = Clock()
    times = iter([9, 9, 1, *range(1, 8)])
    result = Benchmark(clock.job(lambda: next(times)), warmup=2, repeats=7, least=1, clock=clock).run()
    assert result.samples == tuple(range(1, 8)) and result.median == 4
    assert result.interval == bootstrap_interval(range(1, 8))


def test_warnings():
    quiet = Result("quiet", (1.0,) * 10, 1)
    assert quiet.warnings == []
    assert repr(quiet) == "quiet: 1000 ms (1000 to 1000), 10 samples of 1"
    assert [w.split(":")[0] for w in Result("few", (1.0, 1.0), 1).warnings] == ["only 2 samples"]
    noisy = Result("noisy", (1.0, 1.2, 1.4, 1.6, 1.8), 1).warnings
    assert noisy == ["the middle half spreads over 29% of the median, more than 10%: noisy"]


@pytest.mark.parametrize(
    "factor,wanted", [(1.05, "a is faster"), (0.95, "b is faster"), (1.005, "no difference")]
)
def test_compare_in_drift_and_noise(factor, wanted):
    clock, rng = Clock(), np.random.default_rng(0)

    def noisy(seconds):  # the machine gets slower all the time
        return clock.job(lambda: seconds * (1 + clock.now / 100) * np.exp(0.005 * rng.standard_normal()))

    found = compare(noisy(1.0), noisy(factor), clock=clock)
    assert found.verdict == wanted
    assert len(found.a.samples) == len(found.b.samples) == 20
    assert found.interval[0] <= found.ratio <= found.interval[1]


def test_a_function_against_itself_is_mostly_no_difference():
    clock, rng, verdicts = Clock(), np.random.default_rng(1), []
    job = clock.job(lambda: np.exp(0.1 * rng.standard_normal()))
    for _ in range(60):
        verdicts.append(compare(job, job, clock=clock).verdict)
    assert verdicts.count("no difference") >= 50


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.5, 2), st.floats(0.5, 2)), min_size=5, max_size=20))
def test_verdict_does_not_depend_on_who_is_called_a(pairs):
    a, b = (list(side) for side in zip(*pairs, strict=True))
    ratio, (low, high), text = verdict(a, b)
    assert low <= ratio <= high
    if text != "no difference":
        assert not low <= 1 <= high and (ratio > 1) == (text == "a is faster")


def test_comparison_in_words():
    clock = Clock()
    text = repr(compare(clock.job(0.5), clock.job(0.75), ("new", "old"), clock=clock))
    assert text == "old takes 1.500 times as long as new (1.500 to 1.500): new is faster"


# ---- errors


def test_refuses():
    clock = Clock()
    for arguments in ({"repeats": 1}, {"warmup": -1}):
        with pytest.raises(ValueError, match="^Benchmark: expected 2 repeats or more and warmup 0 or more"):
            Benchmark(clock.job(1), **arguments)
    with pytest.raises(ValueError, match="^compare: expected at least 5 pairs, got 4$"):
        compare(clock.job(1), clock.job(1), pairs=4, clock=clock)


def test_a_clock_that_stands_still_gives_no_number():
    for measure in (
        lambda: Benchmark(lambda: None, clock=lambda: 0.0).run(),
        lambda: compare(lambda: None, lambda: None, clock=lambda: 0.0),
    ):
        with pytest.raises(ValueError, match="the clock cannot measure this"):
            measure()


def test_a_clock_that_stops_or_runs_backwards_gives_no_comparison():
    clock, calls = Clock(), []

    def fades():
        calls.append(0)
        clock.now += 1.0 if len(calls) < 10 else -1.0

    with pytest.raises(ValueError, match="coarse or ran backwards"):
        compare(fades, fades, clock=clock)
