"""Embeddings: a learned row of numbers for each token, and for each position.

Built by tito from lesson 11_embeddings: change the lesson, not this file.
"""

import numpy as np

from tinytorch.autograd import vjp
from tinytorch.layers import Module
from tinytorch.tensor import Tensor, apply, default_rng

__all__ = [
    "embedding_forward",
    "scatter_add",
    "embedding_vjp",
    "Embedding",
    "sinusoidal_positions",
    "PositionalEmbedding",
]


def embedding_forward(weight, ids):
    """The rows `ids` (any shape, whole numbers) of weight (V, D): an array (*ids.shape, D)."""
    return weight[ids]


def scatter_add(rows, ids, V):
    """An array (V, D) whose row v is the sum of the rows (n, D) at which ids (n,) is v; n may be 0."""
    total = np.zeros((V, rows.shape[1]), rows.dtype)
    if len(ids) == 0:
        return total
    order = np.argsort(ids, kind="stable")
    found, starts = np.unique(ids[order], return_index=True)
    total[found] = np.add.reduceat(rows[order], starts, axis=0)
    return total


@vjp(embedding_forward)
def embedding_vjp(g, y, weight, ids):
    """The gradient of the table."""
    V, D = weight.shape
    return (scatter_add(g.reshape(-1, D), np.asarray(ids).reshape(-1), V),)


class Embedding(Module):
    """A learned row of `embedding_dim` numbers for each of `num_embeddings` ids; it starts standard normal.

    Shapes: ids of any shape -> (*shape, embedding_dim). Raises ValueError for sizes below 1, and for an id that
    is no whole number from 0 to num_embeddings - 1, which it names.
    """

    def __init__(self, num_embeddings, embedding_dim):
        if min(num_embeddings, embedding_dim) < 1:
            raise ValueError(f"Embedding: expected positive sizes, got {num_embeddings} and {embedding_dim}")
        start = default_rng().standard_normal((num_embeddings, embedding_dim))
        self.weight = Tensor(start, requires_grad=True)

    def forward(self, ids):
        """The rows of the ids, an array, a list or a tensor of whole numbers."""
        ids = np.asarray(ids)
        wrong = (ids < 0) | (ids >= self.weight.shape[0]) | (ids != np.floor(ids))
        if wrong.any():
            raise ValueError(
                f"Embedding: id {ids[wrong][0]} is not in the table; "
                f"expected whole numbers from 0 to {self.weight.shape[0] - 1}"
            )
        return apply(embedding_forward, self.weight, ids=ids.astype(np.int64))

    def __repr__(self):
        return f"Embedding({self.weight.shape[0]}, {self.weight.shape[1]})"


def sinusoidal_positions(T, D):
    """The (T, D) float32 array of sines (even columns) and cosines (odd columns). Raises ValueError for an odd D.

    Source: Vaswani et al., "Attention is all you need", 2017.
    """
    if D % 2 or D < 2:
        raise ValueError(f"sinusoidal_positions: expected an even D of at least 2, got {D}")
    p = np.zeros((T, D), np.float32)
    angles = np.arange(T)[:, None] / 10000 ** (np.arange(0, D, 2) / D)
    p[:, 0::2], p[:, 1::2] = np.sin(angles), np.cos(angles)
    return p


class PositionalEmbedding(Module):
    """A learned row for each of `context` positions; it starts standard normal. Raises ValueError for sizes below 1."""

    def __init__(self, context, d_model):
        if min(context, d_model) < 1:
            raise ValueError(f"PositionalEmbedding: expected positive sizes, got {context} and {d_model}")
        self.weight = Tensor(default_rng().standard_normal((context, d_model)), requires_grad=True)

    def forward(self, T, start=0):
        """The rows (T, d_model) of the positions start to start + T - 1. Raises ValueError where there are fewer."""
        if T < 1 or start < 0 or start + T > self.weight.shape[0]:
            raise ValueError(
                f"PositionalEmbedding: positions {start} to {start + T - 1} are not within 0 to "
                f"{self.weight.shape[0] - 1}"
            )
        return self.weight[start : start + T]
