# %% [markdown]
# # 11 Embeddings
#
# > Embeddings: a learned row of numbers for each token, and for each position.
#
# In this lesson you build `Embedding`, its gradient, and two ways to say where in the text a token stands.
#
# **Why it matters to a system.** Multiplying one-hot vectors by a matrix would give the same result, but a look-up reads
# only the rows that occur. Its gradient is a *scatter*: many tokens may add to one row.
#
# **You need** `Module` (03) and gradient rules (05).
#
# The words of this lesson: `ids` are whole numbers of any shape, `weight` is a table (V, D), `T` counts positions.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 11

# %%
#| export
import numpy as np

from tinytorch.autograd import vjp
from tinytorch.layers import Module
from tinytorch.tensor import Tensor, apply, default_rng

# %% nbgrader={"grade_id": "imports", "locked": true}
import time

from tinytorch.tensor import manual_seed

# %% [markdown]
# ## 1. A row for each token
#
# By hand: with the table [[1, 2], [3, 4]] the ids 1, 0, 1 become [[3, 4], [1, 2], [3, 4]].

# %% nbgrader={"grade_id": "embedding-forward", "solution": true}
#| export
def embedding_forward(weight, ids):
    """The rows `ids` (any shape, whole numbers) of weight (V, D): an array (*ids.shape, D)."""
    ### BEGIN SOLUTION
    return weight[ids]
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(embedding_forward(np.array([[1, 2], [3, 4]]), np.array([1, 0, 1])))

# %% nbgrader={"grade_id": "test-embedding-forward", "grade": true, "points": 1}
table = np.random.default_rng(0).standard_normal((6, 3))
for ids in (np.array([5, 0, 5]), np.array([[1, 2], [3, 1]])):
    got = np.asarray(embedding_forward(table, ids))
    wanted = np.eye(6)[ids] @ table  # one-hot vectors times the table
    assert got.shape == wanted.shape, f"embedding_forward: expected shape {wanted.shape}, got {got.shape}"
    assert np.allclose(got, wanted), f"embedding_forward of the ids {ids.tolist()}: expected\n{wanted}\ngot\n{got}"

# %% [markdown]
# ## 2. The gradient: adding rows where they came from
#
# Row v of the gradient is the sum of the rows of g at which the id was v; rows that did not occur get zero. By hand: the ids
# 1, 0, 1 with g = [[1], [2], [4]] give [[2], [5]]. `dw[ids] += g` is wrong: it adds only once where an id repeats.
#
# `np.add.at` is right but slow. Here is a quicker way: sort the ids, so that equal ones stand together, and add up each run
# with `np.add.reduceat`. `np.unique(..., return_index=True)` on sorted ids tells where each run starts.

# %% nbgrader={"grade_id": "scatter-add", "solution": true}
#| export
def scatter_add(rows, ids, V):
    """An array (V, D) whose row v is the sum of the rows (n, D) at which ids (n,) is v; n may be 0."""
    total = np.zeros((V, rows.shape[1]), rows.dtype)
    if len(ids) == 0:
        return total
    order = np.argsort(ids, kind="stable")
    ### BEGIN SOLUTION
    found, starts = np.unique(ids[order], return_index=True)
    total[found] = np.add.reduceat(rows[order], starts, axis=0)
    ### END SOLUTION
    return total


# %%
#| export
@vjp(embedding_forward)
def embedding_vjp(g, y, weight, ids):
    """The gradient of the table."""
    V, D = weight.shape
    return (scatter_add(g.reshape(-1, D), np.asarray(ids).reshape(-1), V),)


# %% tags=["nbval-check-output"]
print(scatter_add(np.array([[1.0], [2], [4]]), np.array([1, 0, 1]), 2).ravel())

# %% nbgrader={"grade_id": "test-scatter-add", "grade": true, "points": 2}
for n, V in [(7, 3), (40, 90), (300, 5)]:
    draw = np.random.default_rng(n)
    rows, ids = draw.standard_normal((n, 4)), draw.integers(0, V, n)
    got, wanted = np.asarray(scatter_add(rows, ids, V)), np.eye(V)[ids].T @ rows
    assert np.allclose(got, wanted), (
        f"scatter_add of {n} rows into {V}: row {np.abs(got - wanted).sum(1).argmax()} is wrong; "
        "add all rows with the same id"
    )

# %% tags=["measure"]
draw = np.random.default_rng(0)
rows, ids = draw.standard_normal((4096, 128)).astype(np.float32), draw.integers(0, 256, 4096)
start = time.perf_counter()
np.add.at(np.zeros((256, 128), np.float32), ids, rows)
middle = time.perf_counter()
scatter_add(rows, ids, 256)
print(f"np.add.at {1e3 * (middle - start):.1f} ms, sorted runs {1e3 * (time.perf_counter() - middle):.1f} ms")

# %%
#| export
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


# %% tags=["nbval-check-output"]
manual_seed(0)
layer = Embedding(5, 2)
layer([[1, 1, 4]]).sum().backward()
print(layer, layer.weight.grad.numpy()[:, 0])

# %% [markdown]
# ## 3. Positions
#
# Attention (lesson 12) does not know order, so the order has to be in the numbers. One way needs no learning: position t
# has sines and cosines of t at many speeds, as the hands of a clock,
#
# $$p_{t,2i} = \sin(t / 10000^{2i/D}), \qquad p_{t,2i+1} = \cos(t / 10000^{2i/D})$$
#
# By hand: position 0 is 0, 1, 0, 1, ... Write it for an even D.

# %% nbgrader={"grade_id": "sinusoidal-positions", "solution": true}
#| export
def sinusoidal_positions(T, D):
    """The (T, D) float32 array of sines (even columns) and cosines (odd columns). Raises ValueError for an odd D.

    Source: Vaswani et al., "Attention is all you need", 2017.
    """
    if D % 2 or D < 2:
        raise ValueError(f"sinusoidal_positions: expected an even D of at least 2, got {D}")
    p = np.zeros((T, D), np.float32)
    ### BEGIN SOLUTION
    angles = np.arange(T)[:, None] / 10000 ** (np.arange(0, D, 2) / D)
    p[:, 0::2], p[:, 1::2] = np.sin(angles), np.cos(angles)
    ### END SOLUTION
    return p


# %% tags=["nbval-check-output"]
print(sinusoidal_positions(2, 4).round(2))

# %% nbgrader={"grade_id": "test-sinusoidal-positions", "grade": true, "points": 2}
import math

for T, D in [(3, 4), (50, 6)]:
    got = np.asarray(sinusoidal_positions(T, D))
    for t, j in np.ndindex(T, D):
        angle = t / 10000 ** ((j - j % 2) / D)
        wanted = math.cos(angle) if j % 2 else math.sin(angle)
        assert abs(got[t, j] - wanted) < 1e-5, (
            f"sinusoidal_positions({T}, {D})[{t}, {j}]: expected {wanted:.4f}, got {got[t, j]:.4f}"
        )

# %% tags=["measure"]
import matplotlib.pyplot as plt

plt.imshow(sinusoidal_positions(100, 64).T, aspect="auto", cmap="RdBu")
plt.xlabel("position")
plt.ylabel("column")
plt.show()

# %% [markdown]
# The other way is to learn a row for each position, as GPT-2 does. Return the T rows from `start` on, after the check.

# %% nbgrader={"grade_id": "positional-embedding", "solution": true}
#| export
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
        ### BEGIN SOLUTION
        return self.weight[start : start + T]
        ### END SOLUTION


# %% nbgrader={"grade_id": "test-positional-embedding", "grade": true, "points": 2}
positions = PositionalEmbedding(6, 3)
rows = np.asarray(positions.weight)
for T, start in [(2, 0), (3, 2), (6, 0)]:
    got, wanted = np.asarray(positions(T, start)), np.array([rows[start + t] for t in range(T)])
    assert got.shape == wanted.shape and np.allclose(got, wanted), (
        f"PositionalEmbedding(6, 3), T = {T}, start = {start}: expected the rows {start} to {start + T - 1}"
    )
positions(3, 2).sum().backward()
got = np.asarray(positions.weight.grad)[:, 0]
assert np.array_equal(got, [0, 0, 1, 1, 1, 0]), f"PositionalEmbedding: expected a gradient for rows 2 to 4, got {got}"

# %% [markdown]
# ## 4. What breaks
#
# A tokenizer with a larger vocabulary than the table:

# %% tags=["nbval-check-output"]
try:
    layer([3, 5])
except ValueError as error:
    print(error)

# %% [markdown]
# ## Exercises
#
# 1. Show that the dot product of two sinusoidal positions depends on their distance only.
# 2. Rotary positions turn each pair of columns of q and k by an angle t / 10000^(2i/D). Write it, and show that q·k then
#    depends on the distance of the two positions only.
# 3. How many bytes does a one-hot batch of 4096 tokens need for V = 50,000? And the ids?
#
# ## Elsewhere
#
# - PyTorch's `nn.Embedding` starts standard normal too; its `sparse=True` keeps the gradient as rows and ids.
# - Many models today use rotary positions (Su et al., 2021) and learn none.
#
# ## Summary
#
# - An embedding is a look-up; its gradient adds each row where it came from, as often as it came.
# - Positions must be put into the numbers, as fixed waves or as learned rows.
