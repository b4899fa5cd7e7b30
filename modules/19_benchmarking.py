# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 19 Benchmarking
#
# > Measurements that can be believed: calibrated, repeated, with an interval, and honest when there is no difference.
#
# In this lesson you build `Benchmark`, which measures how long a function takes, and `compare`, which says which of two
# is faster, or that the measurement shows no difference.
#
# **Why it matters to a system.** You are about to enter a competition in which a second more or less decides. A machine
# is never quiet: clocks speed up and slow down, other programs come and go. One measurement says little, and the
# best of many says what happened once. What can be believed is a number with its uncertainty.
#
# **You need** Python functions and NumPy. Nothing of your own package is timed until the exercises.
#
# The words of this lesson: a *sample* is one measurement, in seconds a call. The *median* is the middle one of the
# sorted samples. An *interval* says between which values the median plausibly lies. A *clock* is a function that
# returns seconds.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 19

# %%
#| export
import math
import time
from dataclasses import dataclass

import numpy as np

# %% [markdown]
# ## 1. A clock for tests
#
# How do you test something that measures time on a machine whose times you do not know? With a clock that you move by hand.
# Whatever is timed below takes its clock as an argument; `time.perf_counter` is only the default.

# %% nbgrader={"grade_id": "hand-clock", "locked": true}
class HandClock:
    """A clock that moves only when a job made by `job` runs."""

    def __init__(self):
        self.now, self.calls = 0.0, 0

    def __call__(self):
        return self.now

    def job(self, *seconds):
        """A function that takes these seconds in turn: the first call the first, and so on, again and again."""
        turn = [0]

        def work():
            self.now += seconds[turn[0] % len(seconds)]
            turn[0] += 1
            self.calls += 1

        return work


# %% tags=["nbval-check-output"]
clock = HandClock()
work = clock.job(2, 5)
work(), work(), work()
clock()

# %% [markdown]
# ### Exercise: `seconds_a_call`
# A function may take less time than one look at the clock. So look twice, with `inner` calls in between, and
# divide.

# %% nbgrader={"grade_id": "seconds-a-call", "solution": true}
#| export
def seconds_a_call(fn, inner=1, clock=time.perf_counter):
    """Seconds that one of `inner` calls of `fn()` takes, on average; the clock is read twice in all."""
    ### BEGIN SOLUTION
    start = clock()
    for _ in range(inner):
        fn()
    return (clock() - start) / inner
    ### END SOLUTION


# %% tags=["nbval-check-output"]
clock = HandClock()
seconds_a_call(clock.job(2, 4), 4, clock)

# %% nbgrader={"grade_id": "test-seconds-a-call", "grade": true, "points": 2}
clock = HandClock()
got = float(seconds_a_call(clock.job(1, 2, 6), 3, clock))
assert got == 3.0, f"calls of 1, 2 and 6 seconds: expected 3.0 on average, got {got}"
assert clock.calls == 3, f"inner=3: expected 3 calls, got {clock.calls}"
### BEGIN HIDDEN TESTS
looks, clock = [], HandClock()
got = float(seconds_a_call(clock.job(4), 5, lambda: looks.append(0) or clock.now + len(looks)))
assert len(looks) == 2 and got == 4.2, (
    f"a look at the clock costs a second here: expected 2 looks and (20 + 1) / 5, got {len(looks)} and {got}"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Calibration
#
# How many calls make one sample? So many that the clock's own coarseness does not matter: at least `least` seconds
# in all. Start with one call and double until a sample is long enough.
#
# A clock that never moves would make this go on forever, and a function too short to be measured must not get a
# number. Beyond `MOST_CALLS` calls raise a ValueError that says so.
#
# ### Exercise: `calls_per_sample`

# %% nbgrader={"grade_id": "calls-per-sample", "solution": true}
#| export
MOST_CALLS = 2**20


def calls_per_sample(fn, least=0.005, clock=time.perf_counter):
    """The first of 1, 2, 4, ... calls of `fn()` that together take at least `least` seconds.

    Raises ValueError if even MOST_CALLS calls do not.
    """
    ### BEGIN SOLUTION
    inner = 1
    while seconds_a_call(fn, inner, clock) * inner < least:
        inner *= 2
        if inner > MOST_CALLS:
            raise ValueError(f"calls_per_sample: {MOST_CALLS} calls took under {least} s; the clock cannot measure this")
    return inner
    ### END SOLUTION


# %% tags=["nbval-check-output"]
clock = HandClock()
calls_per_sample(clock.job(0.25), 1.5, clock)

# %% nbgrader={"grade_id": "test-calls-per-sample", "grade": true, "points": 2}
for seconds, least, wanted in [(0.25, 1.5, 8), (0.25, 1.0, 4), (8.0, 1.0, 1), (0.125, 0.25, 2)]:
    clock = HandClock()
    got = int(calls_per_sample(clock.job(seconds), least, clock))
    assert got == wanted, f"calls of {seconds} s, at least {least} s: expected {wanted} calls, got {got}"
### BEGIN HIDDEN TESTS
hand = HandClock()


def still():
    if int(hand.calls) > 2 * MOST_CALLS:  # 1 + 2 + 4 + ... + MOST_CALLS calls are fewer than that
        raise RuntimeError("calls_per_sample went on after MOST_CALLS calls")
    return 0.0


try:
    got = f"the value {calls_per_sample(hand.job(0.0), 1.0, still)}"
except (ValueError, RuntimeError) as error:
    got = f"{type(error).__name__}: {error}"
assert got.startswith("ValueError"), f"a clock that stands still: expected a ValueError, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# ## 3. How sure are we?
#
# From twenty samples we get one median. Had we measured again, it would be a little different. How different? The
# *bootstrap* answers by pretending: draw twenty of our own samples, with repetition, and take the median of those.
# Do that two thousand times. The middle 95 % of these medians is the interval.
#
# By hand: of the samples 1, 2, 9 one draw may be 2, 2, 9, whose median is 2, another 9, 1, 9, whose median is 9. Few
# samples that differ a lot give a wide interval, and that is honest.
#
# ### Exercise: `bootstrap_interval`
# `rng.choice(samples, (resamples, n))` draws with repetition, one row for each pretended measurement. Take the
# median of each row, then `np.quantile` at `(1 - confidence) / 2` and the same from above.

# %% nbgrader={"grade_id": "bootstrap-interval", "solution": true}
#| export
def bootstrap_interval(samples, confidence=0.95, resamples=2000, seed=0):
    """(low, high): where the median of `samples` plausibly lies, the percentile bootstrap.

    The same `seed` gives the same interval. Source: B. Efron, "Bootstrap methods: another look at the
    jackknife", 1979.
    """
    samples, rng = np.asarray(samples, dtype=np.float64), np.random.default_rng(seed)
    ### BEGIN SOLUTION
    medians = np.median(rng.choice(samples, (resamples, len(samples))), axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return float(low), float(high)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(bootstrap_interval([3.0] * 10), bootstrap_interval([1.0, 2.0, 9.0]))

# %% nbgrader={"grade_id": "test-bootstrap-interval", "grade": true, "points": 3}
draw = np.random.default_rng(1)
low, high = (float(end) for end in bootstrap_interval([4.0] * 8))
assert (low, high) == (4.0, 4.0), f"eight equal samples: expected (4.0, 4.0), got {(low, high)}"
many, few = draw.standard_normal(400), draw.standard_normal(25)
widths = [float(np.diff(bootstrap_interval(samples))[0]) for samples in (many, few)]
assert 0.15 < widths[0] < 0.4 and 0.4 < widths[1] < 1.6, (
    f"normal samples, 400 and 25: expected widths near 0.25 and 1.0, got {widths[0]:.2f} and {widths[1]:.2f}; "
    "draw as many as there are, with repetition, and take medians"
)
### BEGIN HIDDEN TESTS
hits = 0
for k in range(100):
    low, high = bootstrap_interval(5 + draw.standard_normal(30), resamples=300, seed=k)
    hits += low <= 5 <= high
assert 85 <= hits <= 100, f"95 % intervals of 100 measurements: expected about 95 to hold the truth, got {hits}"
skewed = draw.exponential(size=200)
low, high = bootstrap_interval(skewed)
assert low <= np.median(skewed) <= high < skewed.mean(), f"the interval is of the median, not of the mean: {low, high}"
wide, narrow = (float(np.diff(bootstrap_interval(many, confidence=c))[0]) for c in (0.99, 0.5))
assert wide > 2 * narrow, f"expected 99 % to be far wider than 50 %, got {wide:.3f} and {narrow:.3f}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: `relative_spread`
# One number for how noisy the samples are: the width of the middle half, from the 25 % to the 75 % quantile, divided by
# the median. 0.02 means that half of all samples lie within about 1 % of the middle. Unlike the standard
# deviation it does not care how far out the one sample is during which a backup started.

# %% nbgrader={"grade_id": "relative-spread", "solution": true}
#| export
def relative_spread(samples):
    """The middle half of `samples` (quantile 0.75 minus quantile 0.25) in units of their median."""
    ### BEGIN SOLUTION
    low, middle, high = np.quantile(samples, [0.25, 0.5, 0.75])
    return float((high - low) / middle)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
relative_spread([9.0, 10.0, 10.0, 10.0, 11.0]), relative_spread([8.0, 9.0, 10.0, 11.0, 1000.0])

# %% nbgrader={"grade_id": "test-relative-spread", "grade": true, "points": 2}
got = float(relative_spread([10.0, 8.0, 1000.0, 9.0, 11.0]))
assert np.isclose(got, 0.2), f"relative_spread of 8, 9, 10, 11, 1000: expected (11 - 9) / 10 = 0.2, got {got}"
got = float(relative_spread([3.0, 3.0, 3.0]))
assert got == 0, f"relative_spread of equal samples: expected 0, got {got}"
### BEGIN HIDDEN TESTS
x = np.random.default_rng(2).uniform(1, 2, 50)
assert np.isclose(float(relative_spread(x)), float(relative_spread(1000 * x))), "milliseconds or seconds: expected the same spread"
### END HIDDEN TESTS

# %% [markdown]
# ## 4. A benchmark
#
# Given is the record. It keeps the raw samples, in the order in which they came: whoever doubts the summary can look.
# And it warns by itself.

# %%
#| export
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
            found.append(f"the middle half spreads over {self.spread:.0%} of the median, more than {WIDE:.0%}: noisy")
        return found

    def __repr__(self):
        low, high = (1e3 * end for end in self.interval)
        text = f"{self.name}: {1e3 * self.median:.4g} ms ({low:.4g} to {high:.4g})"
        text += f", {len(self.samples)} samples of {self.inner}"
        return "\n".join([text, *(f"  warning: {warning}" for warning in self.warnings)])


# %% tags=["nbval-check-output"]
print(Result("steady", (0.010, 0.011, 0.010, 0.010, 0.0105, 0.010), 4))
print(Result("noisy", (0.010, 0.020, 0.010, 0.030), 1))

# %% [markdown]
# The first calls of a function are slower: caches are cold, memory is fresh, something is imported. They are made before the
# clock counts, as *warm-up*.
#
# ### Exercise: `run`
# In this order: `warmup` calls that nobody times, `calls_per_sample` once for the number of inner calls, then `repeats`
# samples, all kept.

# %% nbgrader={"grade_id": "benchmark-run", "solution": true}
#| export
class Benchmark:
    """How long `fn()` takes: `run()` gives a Result with `repeats` samples of at least `least` seconds each.

    `clock()` gives seconds. Raises ValueError for fewer than two repeats, and where the clock is too coarse.
    """

    def __init__(self, fn, name=None, warmup=3, repeats=20, least=0.005, clock=time.perf_counter):
        if repeats < 2 or warmup < 0:
            raise ValueError(f"Benchmark: expected 2 repeats or more and warmup 0 or more, got {repeats}, {warmup}")
        self.fn, self.name = fn, name or getattr(fn, "__name__", "function")
        self.warmup, self.repeats, self.least, self.clock = warmup, repeats, least, clock

    def run(self):
        """Warm up, calibrate, measure."""
        ### BEGIN SOLUTION
        for _ in range(self.warmup):
            self.fn()
        inner = calls_per_sample(self.fn, self.least, self.clock)
        samples = [seconds_a_call(self.fn, inner, self.clock) for _ in range(self.repeats)]
        return Result(self.name, tuple(samples), inner)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
clock = HandClock()
Benchmark(clock.job(0.25), "quarter", repeats=6, least=0.5, clock=clock).run()

# %% nbgrader={"grade_id": "test-benchmark-run", "grade": true, "points": 3}
clock = HandClock()
slow_start = [8.0, 8.0, 8.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0]  # three to warm up, one to calibrate, five samples
result = Benchmark(clock.job(*slow_start), warmup=3, repeats=5, least=1.0, clock=clock).run()
got = [float(s) for s in result.samples]
assert got == [1, 2, 3, 4, 5], f"expected the samples [1, 2, 3, 4, 5] in order, got {got}; the warm-up is not timed"
assert int(result.inner) == 1 and float(result.median) == 3, f"expected inner 1 and median 3, got {result.inner}"
### BEGIN HIDDEN TESTS
clock = HandClock()
result = Benchmark(clock.job(0.25), "name", warmup=2, repeats=7, least=1.0, clock=clock).run()
got = [float(s) for s in result.samples]
assert got == [0.25] * 7 and int(result.inner) == 4, f"expected 7 samples of 4 calls, 0.25 s each, got {got}"
assert clock.calls == 2 + (1 + 2 + 4) + 28, f"expected 2 + 7 + 28 calls, got {clock.calls}"
assert result.name == "name", f"expected the benchmark's name, got {result.name!r}"
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Two functions, in turn
#
# To measure A for a minute and then B for a minute is a trap. If the machine slows down in the second minute, B loses. So
# measure in pairs: A B, B A, A B, ... A slow phase then hits both, and the *ratio* inside a pair hardly
# changes. Who goes first alternates, since going second may be an advantage.
#
# ### Exercise: `paired_samples`
# `pairs` rounds; in the even ones (0, 2, ...) `a` goes first, in the odd ones `b`. Returns two lists, samples of `a`
# and of `b`, entry k of both from round k.

# %% nbgrader={"grade_id": "paired-samples", "solution": true}
#| export
def paired_samples(a, b, pairs, inner=(1, 1), clock=time.perf_counter):
    """Seconds a call of `a()` and of `b()`, two lists of `pairs` samples; a goes first, then b, in turn.

    Each sample of a is of inner[0] calls, each of b of inner[1].
    """
    samples = [], []
    ### BEGIN SOLUTION
    for k in range(pairs):
        for which in (0, 1) if k % 2 == 0 else (1, 0):
            samples[which].append(seconds_a_call((a, b)[which], inner[which], clock))
    ### END SOLUTION
    return samples


# %% tags=["nbval-check-output"]
clock = HandClock()
paired_samples(clock.job(1, 2), clock.job(5), 3, clock=clock)

# %% nbgrader={"grade_id": "test-paired-samples", "grade": true, "points": 3}
clock, order = HandClock(), []


def noted(name, *seconds):
    job = clock.job(*seconds)
    return lambda: (order.append(name), job())


a, b = paired_samples(noted("a", 1, 2, 3, 4), noted("b", 10, 20, 30, 40), 4, clock=clock)
assert "".join(order) == "abbaabba", f"4 pairs: expected the order abbaabba, got {''.join(order)}"
got = [float(s) for s in a], [float(s) for s in b]
assert got == ([1, 2, 3, 4], [10, 20, 30, 40]), f"expected the samples of a and of b, round by round, got {got}"
### BEGIN HIDDEN TESTS
order.clear()
a, b = paired_samples(noted("a", 1, 3), noted("b", 6), 3, (2, 1), clock)
assert "".join(order) == "aabbaaaab", f"inner (2, 1): expected the order aabbaaaab, got {''.join(order)}"
got = [float(s) for s in a], [float(s) for s in b]
assert got == ([2, 2, 2], [6, 6, 6]), f"inner (2, 1): expected averages 2 and 6, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: `verdict`
# From the two lists: the ratios `b[k] / a[k]`, how many times as long b takes; their median and its interval. There
# is a difference only if two things hold:
#
# - the interval does not contain 1, else chance explains it;
# - the median is farther from 1 than `least`, since nobody should rewrite code for half a percent: `ratio` above
#   `1 + least` or below `1 / (1 + least)`.
#
# Return `(ratio, (low, high), text)`, where the text is `"a is faster"`, `"b is faster"` or `"no difference"`.

# %% nbgrader={"grade_id": "verdict", "solution": true}
#| export
def verdict(a, b, least=0.01):
    """(ratio, (low, high), text): the median of b[k] / a[k], its interval, and what follows.

    `text` is "a is faster", "b is faster" or "no difference"; the last if the interval contains 1 or the
    ratio is within a factor 1 + `least` of 1.
    """
    ### BEGIN SOLUTION
    ratios = np.asarray(b) / np.asarray(a)
    ratio, (low, high) = float(np.median(ratios)), bootstrap_interval(ratios)
    if low > 1 and ratio > 1 + least:
        return ratio, (low, high), "a is faster"
    if high < 1 and ratio < 1 / (1 + least):
        return ratio, (low, high), "b is faster"
    return ratio, (low, high), "no difference"
    ### END SOLUTION


# %% tags=["nbval-check-output"]
verdict([1.0, 2.0, 4.0, 1.0, 2.0], [2.0, 4.0, 8.0, 2.0, 4.0])

# %% nbgrader={"grade_id": "test-verdict", "grade": true, "points": 4}
draw = np.random.default_rng(3)
drift = np.exp(np.linspace(0, 2, 30))  # the machine gets seven times slower; both feel it


def noisy(seconds, noise=0.01):
    return seconds * drift * np.exp(noise * draw.standard_normal(30))


for name, a, b, wanted in [
    ("b takes 1.2 times as long", noisy(1.0), noisy(1.2), "a is faster"),
    ("a takes 1.2 times as long", noisy(1.2), noisy(1.0), "b is faster"),
    ("the same in much noise", noisy(1.0, 0.5), noisy(1.0, 0.5), "no difference"),
]:
    ratio, (low, high), text = verdict(a, b)
    assert text == wanted, f"{name}: expected {wanted!r}, got {text!r}, ratio {ratio:.3f} ({low:.3f} to {high:.3f})"
    assert low <= ratio <= high, f"{name}: expected the ratio {ratio:.3f} inside its interval {low:.3f} to {high:.3f}"
### BEGIN HIDDEN TESTS
ones = np.ones(12)
for factor, wanted in [(1.005, "no difference"), (1.02, "a is faster"), (0.995, "no difference"), (0.98, "b is faster")]:
    ratio, _, text = verdict(ones, factor * ones)
    assert text == wanted and np.isclose(ratio, factor), f"ratio {factor}, least 0.01: expected {wanted!r}, got {text!r}"
text = verdict(ones, 1.2 * ones, least=0.3)[2]
assert text == "no difference", f"ratio 1.2, least 0.3: expected no difference, got {text!r}"
wild = np.array([0.5, 0.7, 1.6, 0.4, 1.8, 1.7, 0.6, 1.9])  # the median is above 1, by chance
text = verdict(np.ones(8), wild)[2]
assert text == "no difference", f"ratios on both sides of 1: expected no difference, got {text!r}"
swapped = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
ratio = verdict(swapped, 2 * swapped)[0]
assert np.isclose(ratio, 2), f"each pair differs by 2: expected the ratio 2, got {ratio}; divide inside the pairs"
### END HIDDEN TESTS

# %% [markdown]
# `compare` is given. It warms both up, calibrates each, measures in turn and keeps everything.

# %%
#| export
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
        text = f"{self.b.name} takes {self.ratio:.3f} times as long as {self.a.name} ({low:.3f} to {high:.3f})"
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


# %% tags=["nbval-check-output"]
clock = HandClock()
print(compare(clock.job(0.5), clock.job(0.75), ("now", "before"), clock=clock))
print(compare(clock.job(0.5, 0.51), clock.job(0.51, 0.5), ("this", "that"), clock=clock))

# %% [markdown]
# ## 6. A real clock
#
# Before you run it: a sum in NumPy, once over contiguous memory, once over every second number of an array of twice
# the length. And the contiguous one against itself.

# %% tags=["measure"]
x, y = np.ones(200_000, np.float32), np.ones(400_000, np.float32)[::2]
print(compare(x.sum, y.sum, ("contiguous", "every second")))
print(compare(x.sum, x.copy().sum, ("x", "a copy of x")))

# %% [markdown]
# Then the samples themselves. A median is one number; the picture shows what it hides: two levels, a slow start, a
# single disturbance.

# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import show

results = [Benchmark(x.sum, "contiguous", repeats=60).run(), Benchmark(y.sum, "every second", repeats=60).run()]
figure, axes = plt.subplots(figsize=(8, 3.6))
told = []
for result, color, mark in zip(results, ["#0072B2", "#D55E00"], "os", strict=True):
    samples = 1e6 * np.array(result.samples)
    low, high = (1e6 * end for end in result.interval)
    axes.plot(samples, mark, color=color, markersize=5, label=result.name)
    axes.axhspan(low, high, color=color, alpha=0.3)
    told.append(f"{result.name} {samples.min():.1f} to {samples.max():.1f}, its median between {low:.1f} and {high:.1f}")
axes.set(xlabel="sample, in the order of measurement", ylabel="microseconds a call", ylim=(0, None))
axes.legend()
show(figure, alt=f"Sixty samples of each sum in the order of measurement, in microseconds: {'; '.join(told)}.")

# %% [markdown]
# Each mark is a sample; the band is the interval of the median.
#
# ## 7. What breaks
#
# **The best of many.** The minimum of more samples is smaller, whatever is measured. Who measures longer wins.

# %% tags=["nbval-check-output"]
draw = np.random.default_rng(0)
for n in (5, 50, 500):
    samples = [draw.gamma(4, 1, n) for _ in range(200)]
    print(n, "samples: median", round(np.mean([np.median(s) for s in samples]), 1), "minimum", round(np.mean([s.min() for s in samples]), 1))

# %% [markdown]
# **One after the other, on a machine that slows down.** `b` is the same function as `a`; measured later it seems to take
# 1.4 times as long. In turn, the difference is gone.

# %% tags=["nbval-check-output"]
clock = HandClock()
slower = clock.job(*np.linspace(1, 2, 40))  # a and b share this job: each call takes longer than the one before
first, second = (Benchmark(slower, warmup=0, repeats=19, least=1.0, clock=clock).run() for _ in range(2))
print(f"one after the other: {second.median / first.median:.2f}")
clock = HandClock()
slower = clock.job(*np.linspace(1, 2, 42))
print(f"in turn: {compare(slower, slower, warmup=0, pairs=20, clock=clock).ratio:.2f}")

# %% [markdown]
# **A clock that is too coarse.** No number is better than an invented one.

# %% tags=["nbval-check-output"]
try:
    Benchmark(lambda: None, clock=lambda: 0.0).run()
except ValueError as error:
    print(error)

# %% [markdown]
# ## Exercises
#
# 1. Compare a layer of yours before and after a change from lesson 18. How many pairs do you need until the interval is
#    narrower than the difference?
# 2. Start a video while `compare` runs. What happens to the samples, to the ratio, to the verdict?
# 3. Ask for 40 comparisons of a function with itself. How many say that there is a difference? How many did you expect?
# 4. Throughput is items a second. Of 21 samples, is the median of the rates one divided by the median of the times? And
#    is the mean of the rates one divided by the mean of the times?
#
# ## Elsewhere
#
# - `timeit` turns the garbage collector off and reports the best of five. `pyperf` calibrates, starts several processes and
#   warns of unstable results, as ours does.
# - `torch.utils.benchmark.Timer` adapts its number of runs to the noise and compares tables of results.
# - MLPerf fixes the rules of a whole competition: what counts as a run, how many there are, and which quality has to be
#   reached before a time counts.
#
# ## Summary
#
# - Warm up, calibrate, repeat, keep every sample.
# - The median with an interval; the spread says whether to believe it.
# - Compare in turn and by ratio, so that a drift hits both.
# - "No difference" is a result. Small differences inside the noise are not.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/benchmarking.py`;
# `tito module complete 19` in a terminal does the same.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
