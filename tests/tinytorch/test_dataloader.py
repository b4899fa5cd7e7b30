"""The data loader against plain loops over items and pictures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import (
    Compose,
    Cutout,
    DataLoader,
    Dataset,
    Normalize,
    RandomCrop,
    RandomFlip,
    TensorDataset,
    ToFloat,
    tensor,
)


def rng(seed=0):
    return np.random.default_rng(seed)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 40),
    size=st.integers(1, 45),
    drop=st.booleans(),
    shuffle=st.booleans(),
    seed=st.integers(0, 9),
)
def test_an_epoch_shows_every_item_at_most_once_and_none_is_lost(n, size, drop, shuffle, seed):
    loader = DataLoader(TensorDataset(np.arange(n) * 10, np.arange(n)), size, shuffle, seed, drop)
    batches = list(loader)
    assert len(batches) == len(loader)
    seen = [int(i) for _, y in batches for i in y.numpy()]
    assert len(set(seen)) == len(seen) == (n // size * size if drop else n)
    assert all((x.numpy() == 10 * y.numpy()).all() for x, y in batches)
    if not shuffle:
        assert seen == list(range(len(seen)))


def test_the_order_depends_on_seed_and_epoch_alone():
    def epochs(seed, count=3):
        loader = DataLoader(TensorDataset(np.arange(50)), 7, shuffle=True, seed=seed)
        return [np.concatenate([x.numpy() for (x,) in loader]) for _ in range(count)]

    first, second = epochs(5), epochs(5)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[0], epochs(6)[0])
    resumed = DataLoader(TensorDataset(np.arange(50)), 7, shuffle=True, seed=5)
    resumed.set_epoch(2)
    assert np.array_equal(np.concatenate([x.numpy() for (x,) in resumed]), first[2])


def test_generic_batch_equals_the_fast_one():
    arrays = rng().standard_normal((9, 2)), rng().integers(0, 5, 9)

    class OneByOne(Dataset):
        def __len__(self):
            return 9

        def __getitem__(self, i):
            return arrays[0][i], arrays[1][i]

    for a, b in zip(OneByOne().batch([3, 3, 8]), TensorDataset(*arrays).batch([3, 3, 8]), strict=True):
        assert np.array_equal(a, b)


def test_dtypes_and_tensors_as_arrays():
    x, y = next(iter(DataLoader(TensorDataset(tensor.Tensor([[1.0], [2.0]]), np.array([1, 0], np.uint8)), 2)))
    assert x.dtype == np.float32 and y.dtype == np.int64


def test_transforms_keep_channels_last_memory_and_their_input():
    stored = rng().integers(0, 256, (6, 3, 8, 8)).astype(np.uint8)
    x = ToFloat()(stored, rng())
    np.testing.assert_allclose(x, stored / 255, atol=1e-6)
    for transform in (RandomFlip(), Cutout(3), RandomCrop(2), Normalize([0.5] * 3, [0.2] * 3)):
        before = x.copy()
        out = transform(x, rng())
        assert np.array_equal(x, before), f"{type(transform).__name__} wrote into its input"
        assert out.transpose(0, 2, 3, 1).flags.c_contiguous, type(transform).__name__
        assert out.dtype == np.float32


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 6),
    h=st.integers(3, 8),
    w=st.integers(3, 8),
    p=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_random_crop_is_a_window_of_the_reflected_picture(n, h, w, p, seed):
    x = rng(seed).standard_normal((n, 2, h, w))
    out = RandomCrop(p)(x, rng(seed))
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)), "reflect")
    for picture, whole in zip(out, padded, strict=True):
        windows = [whole[:, i : i + h, j : j + w] for i in range(2 * p + 1) for j in range(2 * p + 1)]
        assert any(np.array_equal(picture, window) for window in windows)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 9), seed=st.integers(0, 99))
def test_cutout_hides_a_square_of_its_size(size, seed):
    """Regression: an odd size once hid one row and one column too few."""
    hidden = Cutout(size)(np.ones((30, 1, 12, 12)), rng(seed))[:, 0] == 0
    rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert (hidden.sum((1, 2)) == rows * columns).all()
    assert rows.max() <= size and columns.max() <= size
    inside = hidden[:, 0].any(1) | hidden[:, -1].any(1) | hidden[:, :, 0].any(1) | hidden[:, :, -1].any(1)
    assert (hidden.sum((1, 2))[~inside] == size**2).all()


def test_compose_runs_in_order():
    assert Compose(lambda x, r: x + 1, lambda x, r: x * 2)(np.array([1]), rng()) == 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DataLoader(TensorDataset(np.arange(3)), batch_size=0), "batch_size >= 1, got 0"),
        (lambda: TensorDataset(np.zeros(3), np.zeros((4, 2))), r"lengths \[3, 4\]"),
        (lambda: TensorDataset(), r"lengths \[\]"),
        (lambda: RandomFlip(1.5), r"\[0, 1\], got 1.5"),
        (lambda: RandomCrop(-1), "padding >= 0, got -1"),
        (lambda: RandomCrop(4)(np.zeros((1, 1, 4, 9)), rng()), "padding 4 .* got 4 x 9"),
        (lambda: Cutout(0), "size >= 1, got 0"),
        (lambda: Normalize([0, 0], [1, 0]), "positive deviations"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
