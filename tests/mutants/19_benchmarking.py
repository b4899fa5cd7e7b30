"""Wrong solutions of 19_benchmarking."""

from tests.mutants import Mutant

MUTANTS = [
    Mutant(
        "not-divided", "seconds-a-call", "(clock() - start) / inner", "clock() - start", "time of all calls"
    ),
    Mutant("one-call", "seconds-a-call", "range(inner)", "range(1)", "calls once whatever inner is"),
    Mutant(
        "looks-each-time",
        "seconds-a-call",
        "        fn()",
        "        fn(), clock()",
        "reads the clock inside the loop",
    ),
    Mutant(
        "calibrates-average",
        "calls-per-sample",
        " * inner < least",
        " < least",
        "compares one call, not the sample",
    ),
    Mutant("quadruples", "calls-per-sample", "inner *= 2", "inner *= 4", "grows faster than by doubling"),
    Mutant(
        "one-too-few", "calls-per-sample", "< least", "<= least", "goes on though the sample is long enough"
    ),
    Mutant(
        "never-gives-up",
        "calls-per-sample",
        "inner > MOST_CALLS",
        "inner > 64 * MOST_CALLS",
        "invents a measurement",
    ),
    Mutant(
        "gives-up-silently",
        "calls-per-sample",
        'raise ValueError(f"calls_per_sample: {MOST_CALLS} calls took under '
        '{least} s; the clock cannot measure this")',
        "return MOST_CALLS",
        "a clock that stands still gets a number",
    ),
    Mutant("mean", "bootstrap-interval", "np.median(rng", "np.mean(rng", "the interval of the mean"),
    Mutant(
        "without-repetition",
        "bootstrap-interval",
        "rng.choice(samples, (resamples, len(samples)))",
        "rng.permuted(np.tile(samples, (resamples, 1)), axis=1)",
        "every draw is the same set",
    ),
    Mutant("fixed-confidence", "bootstrap-interval", "(1 - confidence) / 2", "0.025", "ignores confidence"),
    Mutant(
        "quantiles-of-samples",
        "bootstrap-interval",
        "np.quantile(medians, ",
        "np.quantile(samples, ",
        "the spread of samples, not of the median",
    ),
    Mutant(
        "half-sample",
        "bootstrap-interval",
        "(resamples, len(samples))",
        "(resamples, 5)",
        "draws five always",
    ),
    Mutant(
        "not-relative", "relative-spread", "(high - low) / middle", "high - low", "in seconds, not relative"
    ),
    Mutant("full-range", "relative-spread", "[0.25, 0.5, 0.75]", "[0.0, 0.5, 1.0]", "an outlier decides"),
    Mutant("no-warmup", "benchmark-run", "range(self.warmup)", "range(0)", "times cold caches"),
    Mutant(
        "no-calibration",
        "benchmark-run",
        "calls_per_sample(self.fn, self.least, self.clock)",
        "1",
        "always one call",
    ),
    Mutant(
        "sorted-samples", "benchmark-run", "tuple(samples)", "tuple(sorted(samples)[::-1])", "order is lost"
    ),
    Mutant(
        "best-only",
        "benchmark-run",
        "tuple(samples)",
        "(min(samples),) * len(samples)",
        "keeps only the best",
    ),
    Mutant(
        "one-after-another",
        "paired-samples",
        "if k % 2 == 0 else (1, 0)",
        "if True else (1, 0)",
        "a always first",
    ),
    Mutant("b-first", "paired-samples", "k % 2 == 0", "k % 2 == 1", "b goes first"),
    Mutant("swapped-inner", "paired-samples", "inner[which]", "inner[1 - which]", "the other's count"),
    Mutant(
        "ratio-of-medians",
        "verdict",
        "ratios = np.asarray(b) / np.asarray(a)",
        "ratios = np.asarray(b) / np.median(a)",
        "divides by the median, not inside the pair",
    ),
    Mutant(
        "upside-down", "verdict", "np.asarray(b) / np.asarray(a)", "np.asarray(a) / np.asarray(b)", "inverse"
    ),
    Mutant("chance-ignored", "verdict", "low > 1 and ratio", "ratio", "ignores the interval"),
    Mutant("least-ignored", "verdict", "ratio > 1 + least", "ratio > 1", "half a percent is a win"),
    Mutant(
        "least-ignored-below", "verdict", "ratio < 1 / (1 + least)", "ratio < 1", "half a percent is a loss"
    ),
    Mutant(
        "always-a-winner", "verdict", '(low, high), "no', '(low, high), "a is faster" or "no', "never a tie"
    ),
]
