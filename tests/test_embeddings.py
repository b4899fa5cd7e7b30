"""Module 11: look-ups against one-hot products, the scatter against np.add.at, PyTorch, bad ids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import check_op
from tinytorch import Embedding, PositionalEmbedding, Tensor, sinusoidal_positions
from tinytorch.embeddings import embedding_forward, scatter_add
from tinytorch.tensor import apply


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 0)])
def test_embedding(shape):
    ids = np.random.default_rng(0).integers(0, 5, shape)
    check_op(lambda w: apply(embedding_forward, w, ids=ids), lambda w: np.eye(5)[ids] @ w, [(5, 3)])


@given(st.lists(st.integers(0, 8), max_size=40))
def test_scatter_add(ids):
    rows, ids = np.random.default_rng(1).standard_normal((len(ids), 3)), np.array(ids, dtype=np.int64)
    wanted = np.zeros((9, 3))
    np.add.at(wanted, ids, rows)
    np.testing.assert_allclose(scatter_add(rows, ids, 9), wanted, atol=1e-12)


def test_ids_may_be_lists_arrays_or_tensors():
    layer = Embedding(7, 2)
    for ids in ([1, 6], np.array([1, 6]), Tensor([1, 6])):
        np.testing.assert_array_equal(layer(ids).numpy(), layer.weight.numpy()[[1, 6]])


def test_positions():
    layer = PositionalEmbedding(5, 2)
    np.testing.assert_array_equal(layer(2, 3).numpy(), layer.weight.numpy()[3:])
    waves = sinusoidal_positions(40, 8)
    products = waves @ waves.T  # they depend on the distance only
    np.testing.assert_allclose(products[:-7, 7:].diagonal(), products[0, 7], atol=1e-5)


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda: Embedding(3, 2)([0, 3]), "id 3"),
        (lambda: Embedding(3, 2)([-1]), "id -1"),
        (lambda: Embedding(3, 2)([0.5]), "id 0.5"),
        (lambda: Embedding(0, 2), "positive sizes"),
        (lambda: PositionalEmbedding(0, 2), "positive sizes"),
        (lambda: PositionalEmbedding(4, 2)(3, 2), "positions 2 to 4"),
        (lambda: sinusoidal_positions(3, 5), "even D"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_pytorch():
    torch = pytest.importorskip("torch")
    ours, theirs = Embedding(20, 4), torch.nn.Embedding(20, 4)
    ours.load_state_dict({"weight": theirs.weight.detach().numpy()})
    ids = np.random.default_rng(2).integers(0, 20, (3, 30))
    (ours(ids) * ours(ids)).sum().backward()
    theirs(torch.tensor(ids)).pow(2).sum().backward()
    np.testing.assert_allclose(ours.weight.grad.numpy(), theirs.weight.grad.numpy(), rtol=1e-5, atol=1e-5)
