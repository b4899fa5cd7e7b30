"""Wrong solutions of 11_embeddings."""

from tests.mutants import Mutant

MUTANTS = [
    Mutant("rows-zero", "embedding-forward", "weight[ids]", "0 * weight[ids]", "all zeros"),
    Mutant("rows-next", "embedding-forward", "weight[ids]", "weight[ids - 1]", "counts from 1"),
    Mutant(
        "scatter-last-wins",
        "scatter-add",
        "total[found] = np.add.reduceat(rows[order], starts, axis=0)",
        "total[ids] = rows",
        "repeated ids overwrite",
    ),
    Mutant("scatter-unsorted", "scatter-add", "rows[order]", "rows", "runs of the wrong rows"),
    Mutant(
        "waves-swapped",
        "sinusoidal-positions",
        "np.sin(angles), np.cos(angles)",
        "np.cos(angles), np.sin(angles)",
        "sine and cosine swapped",
    ),
    Mutant(
        "waves-one-speed",
        "sinusoidal-positions",
        "(np.arange(0, D, 2) / D)",
        "(np.arange(D // 2) / D)",
        "half the exponent",
    ),
    Mutant(
        "waves-halves",
        "sinusoidal-positions",
        "p[:, 0::2], p[:, 1::2]",
        "p[:, : D // 2], p[:, D // 2 :]",
        "all sines, then all cosines",
    ),
    Mutant(
        "positions-no-start",
        "positional-embedding",
        "self.weight[start : start + T]",
        "self.weight[:T]",
        "ignores start",
    ),
    Mutant(
        "positions-detached",
        "positional-embedding",
        "self.weight[start : start + T]",
        "Tensor(self.weight.data[start : start + T], requires_grad=True)",
        "no gradient reaches the table",
    ),
]
