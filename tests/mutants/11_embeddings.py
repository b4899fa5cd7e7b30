"""Wrong solutions of 11_embeddings."""

from tests.mutants import Mutant

MUTANTS = [
    Mutant("take-columns", "embedding-forward", "axis=0", "axis=-1", "columns, not rows"),
    Mutant("take-zeros", "embedding-forward", "np.take(weight,", "np.take(0 * weight,", "all zeros"),
    Mutant(
        "naive-keeps-last", "scatter-naive", "np.add.at(total, ids, g)", "total[ids] += g", "keeps the last"
    ),
    Mutant("scatter-unsorted", "scatter-add", "g[order]", "g", "rows in another order than ids"),
    Mutant("scatter-by-run", "scatter-add", "total[ids[starts]]", "total[: len(starts)]", "run number as id"),
    Mutant("vjp-keeps-last", "embedding-vjp", "scatter_add(g", "scatter_add(0 * g", "no gradient"),
    Mutant("vjp-gradient-of-ids", "embedding-vjp", ", None", ", g", "a gradient for ids"),
    Mutant(
        "layer-unchecked",
        "embedding-layer",
        "as_ids(ids, self.weight.shape[0])",
        "np.asarray(ids).astype(int)",
        "-1 is the last row",
    ),
    Mutant(
        "waves-one-length", "sinusoidal", "np.arange(0, D, 2) / D", "np.arange(0, D, 2) / D / 2", "too slow"
    ),
    Mutant(
        "waves-swapped",
        "sinusoidal",
        "np.sin(angle), np.cos(angle)",
        "np.cos(angle), np.sin(angle)",
        "swapped",
    ),
    Mutant("positions-from-zero", "positional", "start : start + T", ": T", "ignores start"),
]
