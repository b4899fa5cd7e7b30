"""Module 11: rows and their gradient against one-hot products, positions, PyTorch where installed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import check_op
from tinytorch import Embedding, PositionalEmbedding, Tensor, apply, load, manual_seed, save
from tinytorch.embeddings import embedding_forward, scatter_add, scatter_add_naive, sinusoidal_positions


@pytest.mark.parametrize("shape", [(), (3,), (2, 5), (2, 1, 3), (0,)])
def test_embedding(shape):
    ids = np.random.default_rng(0).integers(0, 4, shape)
    check_op(lambda w: apply(embedding_forward, w, ids), lambda w: np.eye(4)[ids] @ w, [(4, 3)])


@given(st.lists(st.integers(0, 8), max_size=60), st.integers(1, 4))
@settings(deadline=None)
def test_scatter_add(ids, D):
    ids = np.array(ids, np.int64)
    g = np.random.default_rng(1).standard_normal((len(ids), D))
    wanted = np.eye(9)[ids].T @ g
    np.testing.assert_allclose(scatter_add(g, ids, 9), wanted, atol=1e-10)
    np.testing.assert_allclose(scatter_add_naive(g, ids, 9), wanted, atol=1e-10)


def test_refuses():
    layer = Embedding(5, 2)
    for wrong in (-1, 5):
        with pytest.raises(ValueError, match=f"^Embedding: no row for the id {wrong}; expected 0 to 4$"):
            layer([[0, wrong]])
    with pytest.raises(TypeError, match="whole numbers"):
        layer([0.5])
    with pytest.raises(ValueError, match="positive sizes"):
        Embedding(0, 2)
    with pytest.raises(ValueError, match="even D, got 3"):
        sinusoidal_positions(2, 3)
    with pytest.raises(ValueError, match="3 positions from 6 on do not fit a context of 8"):
        PositionalEmbedding(8, 2)(3, 6)


def test_positions():
    layer = PositionalEmbedding(8, 3)
    np.testing.assert_array_equal(layer(3, start=5), layer.weight.numpy()[5:])
    p = sinusoidal_positions(20, 8)
    np.testing.assert_allclose((p**2).sum(1), 4, rtol=1e-5)  # sine and cosine of four angles
    np.testing.assert_allclose(p[5] @ p[8], p[11] @ p[14], rtol=1e-5)  # the distance alone


def test_saved_and_loaded(tmp_path):
    layer = Embedding(5, 2)
    save(layer, tmp_path / "e.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "e.safetensors")([4, 0]), layer([4, 0]))


def test_starts_normal():
    manual_seed(0)
    weight = Embedding(300, 64).weight.numpy()
    assert weight.dtype == np.float32
    assert abs(weight.mean()) < 0.02 and abs(weight.std() - 1) < 0.02


def test_like_pytorch():
    torch = pytest.importorskip("torch")
    ids = np.random.default_rng(2).integers(0, 7, (4, 9))
    ours, theirs = Embedding(7, 5), torch.nn.Embedding(7, 5)
    theirs.weight.data = torch.tensor(ours.weight.numpy())
    y, z = ours(Tensor(ids)), theirs(torch.tensor(ids))
    g = np.random.default_rng(3).standard_normal(y.shape).astype(np.float32)
    y.backward(g)
    z.backward(torch.tensor(g))
    np.testing.assert_allclose(y, z.detach().numpy())
    np.testing.assert_allclose(ours.weight.grad, theirs.weight.grad.numpy(), atol=1e-5)
