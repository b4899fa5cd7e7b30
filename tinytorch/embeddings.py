"""Ids to vectors: a table of learned rows, a fast gradient for it, and positions.

Built by tito from lesson 11_embeddings: change the lesson, not this file.
"""

import numpy as np

from tinytorch.autograd import vjp
from tinytorch.layers import Module
from tinytorch.tensor import Tensor, apply, default_rng

__all__ = [
    "embedding_forward",
    "scatter_add_naive",
    "scatter_add",
    "embedding_vjp",
    "as_ids",
    "Embedding",
    "sinusoidal_positions",
    "PositionalEmbedding",
]


def embedding_forward(weight, ids):
    """The rows of `weight` (V, D) that the integer array `ids` names, shape (*ids.shape, D).

    Example: with weight [[0, 1], [2, 3], [4, 5]] the ids [2, 0] give [[4, 5], [0, 1]].
    """
    return np.take(weight, ids, axis=0)


def scatter_add_naive(g, ids, V):
    """The sums (V, D) of the rows of g (N, D) by their ids (N,): the oracle of `scatter_add`."""
    total = np.zeros((V, g.shape[1]), g.dtype)
    np.add.at(total, ids, g)
    return total


def scatter_add(g, ids, V):
    """The same sums as `scatter_add_naive`, by sorting."""
    total = np.zeros((V, g.shape[1]), g.dtype)
    if len(ids) == 0:
        return total
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    total[ids[starts]] = np.add.reduceat(g[order], starts, axis=0)
    return total


@vjp(embedding_forward)
def embedding_vjp(g, y, weight, ids):
    """The gradient of the table, zero in the rows that nobody read; None for the ids."""
    return scatter_add(g.reshape(-1, weight.shape[1]), ids.reshape(-1), len(weight)), None


def as_ids(ids, V):
    """`ids` (numbers, lists, an array or a Tensor) as an array of ints.

    Raises ValueError that names an id outside 0 to V - 1, TypeError for numbers that are not whole.
    """
    given = np.asarray(ids)
    if given.dtype.kind not in "iuf" or (given.dtype.kind == "f" and not (given == np.floor(given)).all()):
        raise TypeError(f"Embedding: expected whole numbers as ids, got dtype {given.dtype}")
    wrong = given[(given < 0) | (given >= V)]
    if wrong.size:
        raise ValueError(f"Embedding: no row for the id {wrong.flat[0]:.0f}; expected 0 to {V - 1}")
    return given.astype(np.int64)


class Embedding(Module):
    """A table of learned rows. Shapes: ids (...) -> (..., D), weight (num_embeddings, D), D = embedding_dim.

    Starts from the standard normal distribution. Raises ValueError for sizes below 1 and as `as_ids` does.
    """

    def __init__(self, num_embeddings, embedding_dim):
        if num_embeddings < 1 or embedding_dim < 1:
            raise ValueError(f"Embedding: expected positive sizes, got {num_embeddings} and {embedding_dim}")
        self.weight = Tensor(
            default_rng().standard_normal((num_embeddings, embedding_dim)), requires_grad=True
        )

    def __repr__(self):
        return "Embedding({}, {})".format(*self.weight.shape)

    def forward(self, ids):
        """The rows of `ids`."""
        return apply(embedding_forward, self.weight, as_ids(ids, self.weight.shape[0]))


def sinusoidal_positions(T, D):
    """Waves for T positions, a float32 array (T, D): sines in the even columns, cosines in the odd ones.

    Raises ValueError for an odd D. Source: Vaswani and others, "Attention is all you need", 2017.
    """
    if D % 2:
        raise ValueError(f"sinusoidal_positions: expected an even D, got {D}")
    p = np.zeros((T, D), np.float32)
    angle = np.arange(T)[:, None] / 10000 ** (np.arange(0, D, 2) / D)
    p[:, 0::2], p[:, 1::2] = np.sin(angle), np.cos(angle)
    return p


class PositionalEmbedding(Module):
    """Learned rows for positions 0 to context - 1; `forward(T, start)` gives those of T tokens from `start`.

    Shape of the result: (T, d_model). Raises ValueError for positions beyond the context.
    """

    def __init__(self, context, d_model):
        if context < 1 or d_model < 1:
            raise ValueError(f"PositionalEmbedding: expected positive sizes, got {context} and {d_model}")
        self.weight = Tensor(default_rng().standard_normal((context, d_model)), requires_grad=True)

    def __repr__(self):
        return "PositionalEmbedding({}, {})".format(*self.weight.shape)

    def forward(self, T, start=0):
        """The rows start to start + T - 1."""
        context = self.weight.shape[0]
        if T < 0 or start < 0 or start + T > context:
            raise ValueError(
                f"PositionalEmbedding: {T} positions from {start} on do not fit a context of {context}"
            )
        return self.weight[start : start + T]
