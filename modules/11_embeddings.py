# %% [markdown]
# # 11 Embeddings
#
# > Draft: rows of numbers for whole numbers, and for positions.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 11

# %%
#| export
import numpy as np

from tinytorch.autograd import vjp
from tinytorch.layers import Module
from tinytorch.tensor import Tensor, apply, default_rng


# %%
#| export
def embedding_forward(weight, ids):
    """The rows `ids` of weight (V, D): (*shape, D)."""
    return weight[ids]


# %%
#| export
@vjp(embedding_forward)
def embedding_vjp(g, y, weight, ids):
    """Add each row of g to the row of the weight it came from."""
    flat, rows = ids.reshape(-1), g.reshape(-1, weight.shape[1])
    order = np.argsort(flat, kind="stable")
    dw = np.zeros_like(weight)
    if len(flat):
        values, starts = np.unique(flat[order], return_index=True)
        dw[values] = np.add.reduceat(rows[order], starts, axis=0)
    return (dw,)


# %%
#| export
class Embedding(Module):
    """A row of `embedding_dim` numbers for each id."""

    def __init__(self, num_embeddings, embedding_dim):
        self.weight = Tensor(default_rng().standard_normal((num_embeddings, embedding_dim)), requires_grad=True)

    def forward(self, ids):
        """ids of any shape -> (*shape, D)."""
        ids = np.asarray(ids).astype(np.int64)
        wrong = (ids < 0) | (ids >= self.weight.shape[0])
        if wrong.any():
            raise ValueError(f"Embedding: id {ids[wrong][0]} is not in 0 to {self.weight.shape[0] - 1}")
        return apply(embedding_forward, self.weight, ids=ids)


# %%
#| export
class PositionalEmbedding(Module):
    """A learned row for each position."""

    def __init__(self, context, d_model):
        self.weight = Tensor(default_rng().standard_normal((context, d_model)), requires_grad=True)

    def forward(self, T, start=0):
        """(T, D) for the positions start to start + T - 1."""
        if start + T > self.weight.shape[0]:
            raise ValueError(f"PositionalEmbedding: positions up to {start + T - 1} do not fit {self.weight.shape[0]}")
        return self.weight[start : start + T]


# %% tags=["nbval-check-output"]
print(1)
