"""Wrong solutions of 17_memoization."""

from tests.mutants import Mutant

MUTANTS = [
    Mutant("positions-no-context", "positions-read", "min(prompt + i, context)", "prompt + i", "no limit"),
    Mutant("positions-no-slide", "positions-read", "prompt + i <= context", "True", "a full window costs 1"),
    Mutant("append-no-count", "append", "self.length = end", "pass", "writes over the last token"),
    Mutant("append-values-are-keys", "append", "end] = v", "end] = k", "keeps keys as values"),
    Mutant("advance-first", "advance", "[:, -1]", "[:, 0]", "first one"),
    Mutant("advance-training", "advance", "model.eval()", "pass", "leaves dropout on"),
    Mutant("difference-signed", "worst-difference", "np.abs(np.stack(got, axis=1) - wanted)",
           "(np.stack(got, axis=1) - wanted)", "forgets the absolute value"),
    Mutant("difference-last", "worst-difference", "- wanted).max()", "- wanted)[:, -1].max()", "last only"),
    Mutant("fold-forgets-bias", "fold-norm", "bias @ w + b", "b", "loses the bias of the norm"),
    Mutant("fold-wrong-axis", "fold-norm", "gain[:, None] * w", "np.mean(gain) * w", "one gain for all"),
    Mutant("attend-overflows", "attend", "scores -= scores.max(axis=-1, keepdims=True)", "pass", "overflows"),
    Mutant("attend-not-divided", "attend", " / scores.sum(axis=-1, keepdims=True)", "", "undivided"),
    Mutant("slide-keeps-oldest", "slide", "self.ids[rows, 1:]", "self.ids[rows, :-1]", "drops the newest"),
    Mutant("slide-all-tokens", "slide", "tokens[rows, None]", "tokens[: len(rows), None]", "mixes texts"),
    Mutant("stop-ignored", "generate-cached", "new[stopped] = stop", "pass", "goes on after the stop"),
]  # fmt: skip
