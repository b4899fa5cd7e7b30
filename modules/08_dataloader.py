# %% [markdown]
# # 08 Data loader
#
# > Datasets, batches in a seeded order, and image augmentation on whole batches.
#
# In this lesson you build what stands between stored images and the training loop: a `Dataset`, a `DataLoader`
# that hands out batches in a random but repeatable order, and transforms that turn bytes into numbers and show
# each image a little differently every time.
#
# **Why it matters to a system.** The loader runs once for every batch of training. If it is slow, the arithmetic
# waits. If its order cannot be repeated, neither can a bug that depends on it.
#
# **You need** tensors (01) and the training loop (07). No gradients here: everything works on plain arrays.
#
# The words of this lesson: an *item* is one example, for instance an image and its label. A *batch* is several
# items stacked along a new first dimension. An *epoch* is one pass over all items. Images are arrays `x` of
# shape (N, C, H, W): how many, channels, height, width.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 08

# %%
#| export
import numpy as np

from tinytorch.tensor import Tensor

# %% nbgrader={"grade_id": "imports", "locked": true}
import time

# %% [markdown]
# ## 1. A dataset has a length and numbered items
#
# Nothing more is asked of it: `len(dataset)` says how many items there are, `dataset[i]` gives the i-th, a tuple
# such as (image, label). A subclass may read files, memory or a network; the loader does not care.
#
# Training wants many items at once, so our `Dataset` has a third method, `batch(indices)`: the items `indices`,
# stacked part by part. By hand: if item 0 is `([1, 2], 7)` and item 2 is `([5, 6], 9)`, then `batch([0, 2])` is
# the pair of arrays `[[1, 2], [5, 6]]` and `[7, 9]`. The base class can write that once for all datasets:
# `zip(*items)` goes through the parts (all first parts, then all second ones), and `np.stack` stacks one of them.

# %% nbgrader={"grade_id": "dataset", "solution": true}
#| export
class Dataset:
    """Anything with a length and numbered items, each a tuple.

    A subclass writes `__len__` and `__getitem__`.
    """

    def __len__(self):
        raise NotImplementedError(f"{type(self).__name__}: write its __len__ method")

    def __getitem__(self, i):
        raise NotImplementedError(f"{type(self).__name__}: write its __getitem__ method")

    def batch(self, indices):
        """The items `indices`, stacked: a tuple with one array for each part of an item.

        Example: for items (image, label) it gives images (B, C, H, W) and labels (B,).
        """
        ### BEGIN SOLUTION
        items = [self[i] for i in indices]
        return tuple(np.stack(part) for part in zip(*items, strict=True))
        ### END SOLUTION


# %% nbgrader={"grade_id": "squares", "locked": true}
class Squares(Dataset):
    """Numbers in a row of two, and the square of their sum: a dataset that stores nothing."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return np.array([i, i + 1]), (2 * i + 1) ** 2


# %% tags=["nbval-check-output"]
Squares().batch([0, 3])

# %% nbgrader={"grade_id": "test-dataset", "grade": true, "points": 2}
parts = Squares().batch([4, 0, 4])
assert len(parts) == 2, f"batch gives one array for each part of an item: expected 2 arrays, got {len(parts)}"
pairs, squares = (np.asarray(part) for part in parts)
assert pairs.tolist() == [[4, 5], [0, 1], [4, 5]], (
    f"batch([4, 0, 4]): expected the rows of items 4, 0, 4, got {pairs.tolist()}; keep the order of the indices"
)
assert squares.tolist() == [81, 1, 81], f"batch([4, 0, 4]): expected labels [81, 1, 81], got {squares.tolist()}"
### BEGIN HIDDEN TESTS
pair = np.asarray(Squares().batch(np.array([9]))[0])
assert pair.tolist() == [[9, 10]], f"batch([9]), first part: expected [[9, 10]], of shape (1, 2), got {pair.tolist()}"
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Arrays as a dataset
#
# Most of the time the data already lies in arrays whose first dimension counts the items. Then stacking item by
# item is a detour: NumPy can pick all rows at once, `a[indices]`. The arrays may be memory-mapped files; only
# the picked rows are read.
#
# The arrays must agree on the number of items. An image without a label is a mistake, and the earlier it is found
# the better: raise a ValueError that names the `lengths`. The other three methods are a line each.

# %% nbgrader={"grade_id": "tensor-dataset", "solution": true}
#| export
class TensorDataset(Dataset):
    """Arrays whose first dimension counts the items. Raises ValueError if they differ in length."""

    def __init__(self, *arrays):
        self.arrays = [a.data if isinstance(a, Tensor) else np.asanyarray(a) for a in arrays]
        lengths = [len(a) for a in self.arrays]
        ### BEGIN SOLUTION
        if len(set(lengths)) != 1:
            raise ValueError(f"TensorDataset: expected arrays of one length, got lengths {lengths}")
        ### END SOLUTION

    def __len__(self):
        ### BEGIN SOLUTION
        return len(self.arrays[0])
        ### END SOLUTION

    def __getitem__(self, i):
        ### BEGIN SOLUTION
        return tuple(a[i] for a in self.arrays)
        ### END SOLUTION

    def batch(self, indices):
        """The rows `indices` of every array, picked at once."""
        ### BEGIN SOLUTION
        return tuple(a[indices] for a in self.arrays)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
table = TensorDataset(np.arange(12).reshape(4, 3), np.array([10, 11, 12, 13]))
print(len(table), table[1], table.batch([3, 0]))

# %% nbgrader={"grade_id": "test-tensor-dataset", "grade": true, "points": 2}
draw = np.random.default_rng(1)
table, marks = draw.standard_normal((7, 2, 3)), draw.integers(0, 9, 7)
data = TensorDataset(table, marks)
assert len(data) == 7, f"len: expected 7 items, got {len(data)}"
row, mark = data[5]
assert np.array_equal(np.asarray(row), table[5]), f"data[5], first array: expected\n{table[5]}\ngot\n{np.asarray(row)}"
assert int(mark) == marks[5], f"data[5], second array: expected {marks[5]}, got {mark}; take item i of each array"
rows, some = (np.asarray(part) for part in data.batch(np.array([6, 2, 2])))
wanted = np.stack([table[6], table[2], table[2]])
assert rows.shape == wanted.shape, f"batch([6, 2, 2]): expected rows of shape {wanted.shape}, got {rows.shape}"
assert np.array_equal(rows, wanted), f"batch([6, 2, 2]): expected rows 6, 2, 2, which begin with {wanted[:, 0, 0]}, got {rows[:, 0, 0]}"
wanted = [int(marks[i]) for i in (6, 2, 2)]
assert some.tolist() == wanted, f"batch([6, 2, 2]): expected the labels of those rows, {wanted}, got {some.tolist()}"
### BEGIN HIDDEN TESTS
try:
    TensorDataset(np.zeros((4, 2)), np.zeros(3))
    said = None
except ValueError as error:
    said = str(error)
assert said is not None, "arrays of 4 and 3 items: expected a ValueError, got none"
assert "4" in said and "3" in said, f"the error must name both lengths, 4 and 3; it says: {said}"
### END HIDDEN TESTS

# %% [markdown]
# ## 3. How many batches?
#
# Ten items in batches of four: two full batches and one of two. `drop_last=True` leaves out the small one, which
# matters where a batch's statistics are used, as in batch normalisation. So the count is `n / batch_size`,
# rounded up, or rounded down when the last one is dropped.

# %% nbgrader={"grade_id": "loader-len", "solution": true}
#| export
class DataLoader:
    """Batches of a dataset, in an order that depends on `seed` and the epoch alone.

    `transform(x, rng)` returns a changed first part x of a batch, an array; `rng` is a seeded generator. Each
    part becomes a Tensor: whole numbers int64, other numbers float32. Raises ValueError for batch_size < 1.
    """

    def __init__(self, dataset, batch_size=1, shuffle=False, seed=0, drop_last=False, transform=None):
        if batch_size < 1:
            raise ValueError(f"DataLoader: expected batch_size >= 1, got {batch_size}")
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.seed, self.drop_last, self.transform = seed, drop_last, transform
        self.epoch = 0

    def __len__(self):
        """How many batches one epoch has."""
        ### BEGIN SOLUTION
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
[len(DataLoader(Squares(), 4, drop_last=drop)) for drop in (False, True)]

# %% nbgrader={"grade_id": "test-loader-len", "grade": true, "points": 1}
for size, full, dropped in [(1, 10, 10), (3, 4, 3), (4, 3, 2), (5, 2, 2), (10, 1, 1), (11, 1, 0)]:
    for drop, wanted in ((False, full), (True, dropped)):
        got = len(DataLoader(Squares(), size, drop_last=drop))
        assert got == wanted, (
            f"10 items, batch_size {size}, drop_last={drop}: expected {wanted} batches, got {got}; "
            "round up, or down when the last one is dropped"
        )

# %% [markdown]
# ## 4. A random order that can be repeated
#
# Stochastic gradient descent wants a fresh order in every epoch, so that not always the same items meet in a
# batch. A person hunting a bug wants exactly the order of yesterday. Both are served if the order is drawn from a
# generator that is seeded with the pair (seed, epoch): `np.random.default_rng([seed, epoch])`. Epoch 3 of seed 0
# is then the same whatever was drawn before, and a run that resumes at epoch 3 sees what it would have seen.
#
# `order` gets that generator as `rng`; a permutation, `rng.permutation(n)`, holds each of 0 to n - 1 once.

# %% nbgrader={"grade_id": "loader-order", "solution": true}
#| export
class DataLoader(DataLoader):
    def set_epoch(self, epoch):
        """Which epoch the next pass is: the same epoch gives the same batches."""
        self.epoch = epoch

    def order(self, rng):
        """The numbers of all items in the order of this pass, (n,): shuffled by `rng`, or 0, 1, 2, ..."""
        ### BEGIN SOLUTION
        n = len(self.dataset)
        return rng.permutation(n) if self.shuffle else np.arange(n)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
for epoch in (0, 1, 0):
    print(epoch, DataLoader(Squares(), shuffle=True).order(np.random.default_rng([0, epoch])))

# %% nbgrader={"grade_id": "test-loader-order", "grade": true, "points": 2}
plain = np.asarray(DataLoader(Squares()).order(np.random.default_rng(0)))
assert plain.tolist() == list(range(10)), f"without shuffle: expected 0 to 9 in order, got {plain.tolist()}"
mixed = [np.asarray(DataLoader(Squares(), shuffle=True).order(np.random.default_rng(s))).tolist() for s in (0, 0, 1)]
assert sorted(mixed[0]) == list(range(10)), f"shuffle: every item exactly once, got {mixed[0]}"
assert mixed[0] == mixed[1], "the same generator must give the same order: draw from `rng`, not from np.random"
assert mixed[0] != mixed[2], f"another generator must give another order, but both gave {mixed[0]}"

# %% [markdown]
# ## 5. The loader itself
#
# Now the pass over the data: draw the order, cut it into pieces of `batch_size`, fetch each piece with
# `dataset.batch`, transform its first part, hand out tensors. Python's `yield` makes this a generator: a batch is
# made when it is asked for, so the memory holds one batch and not the epoch.
#
# Images come as bytes or floats, labels in many sizes of whole numbers. A tensor of the loader is one of two
# kinds, and this helper makes it:

# %%
#| export
def as_tensor(array):
    """Whole numbers as an int64 tensor, everything else as float32."""
    return Tensor(array, dtype=np.int64 if array.dtype.kind in "biu" else np.float32)


# %% [markdown]
# Writing `for x, y in loader:` a second time should be the next epoch. That is why `epoch` grows by one. You write
# the body of the loop for batch k. The last slice may be shorter than the others, which is what we want, and a
# batch to be dropped is never asked for, because k ends at `len(self)`. Use `self.transform(x, rng)` unless it is
# None; in Python, `x, *rest = parts` splits off the first of several parts.

# %% nbgrader={"grade_id": "loader-iter", "solution": true}
#| export
class DataLoader(DataLoader):
    def __iter__(self):
        """One epoch: tuples of tensors; the next pass is the next epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        order = self.order(rng)
        for k in range(len(self)):
            ### BEGIN SOLUTION
            x, *rest = self.dataset.batch(order[k * self.batch_size : (k + 1) * self.batch_size])
            if self.transform is not None:
                x = self.transform(x, rng)
            yield tuple(as_tensor(part) for part in (x, *rest))
            ### END SOLUTION


# %% tags=["nbval-check-output"]
for x, y in DataLoader(TensorDataset(np.linspace(0, 1, 5), np.arange(5)), batch_size=2):
    print(x, y)

# %% nbgrader={"grade_id": "test-loader-iter", "grade": true, "points": 4}
values, tags = np.arange(20.0).reshape(10, 2), np.arange(10)
loader = DataLoader(TensorDataset(values, tags), batch_size=4, shuffle=True, seed=3)
first, second = ([(x.numpy(), y.numpy()) for x, y in loader] for _ in range(2))
assert [len(y) for _, y in first] == [4, 4, 2], f"batch sizes: expected [4, 4, 2], got {[len(y) for _, y in first]}"
for x, y in first:
    assert np.array_equal(x[:, 0], 2.0 * y), f"labels {y.tolist()} came with the rows of {(x[:, 0] / 2).tolist()}"
    assert x.dtype == np.float32 and y.dtype == np.int64, f"expected float32 and int64, got {x.dtype} and {y.dtype}"
seen = np.concatenate([y for _, y in first])
assert sorted(seen.tolist()) == list(range(10)), f"an epoch shows each item once, got {sorted(seen.tolist())}"
assert not np.array_equal(seen, np.concatenate([y for _, y in second])), (
    f"the second pass must have a new order, both had {seen}; use self.order(rng)"
)
### BEGIN HIDDEN TESTS
loader.set_epoch(0)
again = np.concatenate([y.numpy() for _, y in loader])
assert np.array_equal(seen, again), f"set_epoch(0) must bring back the first order, {seen}, got {again}; draw from rng alone"
other = np.concatenate([y.numpy() for _, y in DataLoader(TensorDataset(values, tags), 4, True, seed=4)])
assert not np.array_equal(seen, other), "another seed must give another order"
kept = [y.numpy() for _, y in DataLoader(TensorDataset(values, tags), 4, drop_last=True)]
assert np.concatenate(kept).tolist() == list(range(8)), f"drop_last: expected items 0 to 7, got {kept}"
doubled = DataLoader(TensorDataset(values, tags), 5, transform=lambda x, rng: x * 2 + rng.integers(1))
got = np.concatenate([x.numpy() for x, _ in doubled])
assert np.array_equal(got, 2 * values), (
    f"a transform that doubles: expected {2 * values[0]} first, got {got[0]}; it changes the first part of every batch"
)
only = [len(part) for part in DataLoader(TensorDataset(values), 5)]
assert only == [1, 1], f"a dataset with one array gives tuples of one tensor, got lengths {only}"
### END HIDDEN TESTS

# %% [markdown]
# ## 6. From bytes to numbers
#
# Images are stored as bytes, 0 to 255, with the channels first. Networks want numbers around one, and our
# convolution (09) wants the channels of a pixel side by side in memory. One pass can do both. The view
# `x.transpose(0, 2, 3, 1)` has the shape (N, H, W, C); multiply it by 1/255 into `out`, a fresh float32 array of
# that shape, and hand back the view of `out` that has the shape (N, C, H, W) again. `np.multiply(a, b, out=out)`
# writes a * b into `out`; with `np.float32(1 / 255)` the numbers stay float32 on the way. By hand: bytes 0 and 51
# become 0 and 0.2.
#
# A byte takes a quarter of the memory of a float32 number, so turning bytes into floats batch by batch also keeps
# the dataset small.

# %% nbgrader={"grade_id": "to-float", "solution": true}
#| export
class ToFloat:
    """Bytes 0..255 of shape (N, C, H, W) to float32 0..1, same shape, channels-last in memory."""

    def __call__(self, x, rng):
        N, C, H, W = x.shape
        out = np.empty((N, H, W, C), np.float32)
        ### BEGIN SOLUTION
        np.multiply(x.transpose(0, 2, 3, 1), np.float32(1 / 255), out=out)
        return out.transpose(0, 3, 1, 2)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
dots = np.array([0, 51, 102, 255], np.uint8).reshape(1, 1, 2, 2)
ToFloat()(dots, None).round(2)

# %% nbgrader={"grade_id": "test-to-float", "grade": true, "points": 2}
draw = np.random.default_rng(2)
pixels = draw.integers(0, 256, (3, 3, 4, 5)).astype(np.uint8)
got = np.asarray(ToFloat()(pixels, None))
assert got.shape == pixels.shape, f"ToFloat: expected shape {pixels.shape}, got {got.shape}"
assert got.dtype == np.float32, f"ToFloat: expected float32, got {got.dtype}"
wanted = pixels / 255
assert np.allclose(got, wanted, atol=1e-6), (
    f"ToFloat: expected {wanted.ravel()[:3].round(4)}..., got {got.ravel()[:3].round(4)}...; "
    "is each byte divided by 255, and each number at its place?"
)
assert got.transpose(0, 2, 3, 1).flags.c_contiguous, f"ToFloat: expected channels-last memory, strides are {got.strides}"

# %% [markdown]
# `Normalize` moves every channel to mean 0 and deviation 1, with the mean and deviation of the training set, so
# that no channel counts for more only because its numbers are larger. The numbers belong to a channel: they need
# the shape (C, 1, 1) to line up with (N, C, H, W). By hand: 1 with mean 0.5 and deviation 0.5 becomes 1.

# %% nbgrader={"grade_id": "normalize", "solution": true}
#| export
class Normalize:
    """(x - mean) / std for every channel of images (N, C, H, W); `mean` and `std` have C numbers each.

    Raises ValueError unless there are as many means as deviations, all of them positive.
    """

    def __init__(self, mean, std):
        self.mean, self.std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        if self.mean.shape != self.std.shape or not (self.std > 0).all():
            raise ValueError(f"Normalize: expected C means and C positive deviations, got {mean} and {std}")

    def __call__(self, x, rng):
        ### BEGIN SOLUTION
        return (x - self.mean[:, None, None]) / self.std[:, None, None]
        ### END SOLUTION


# %% tags=["nbval-check-output"]
print(Normalize([0.5], [0.5])(ToFloat()(dots, None), None).ravel().round(2))

# %% nbgrader={"grade_id": "test-normalize", "grade": true, "points": 1}
draw = np.random.default_rng(3)
images = (draw.standard_normal((50, 3, 4, 4)) * [[[2]], [[3]], [[0.5]]] + [[[1]], [[5]], [[-2]]]).astype(np.float32)
mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
got = np.asarray(Normalize(mean, std)(images, None))
assert got.dtype == np.float32, f"Normalize: expected float32, got {got.dtype}"
means, deviations = got.mean((0, 2, 3)), got.std((0, 2, 3))
assert np.allclose(means, 0, atol=1e-4), f"means after: expected 0 in every channel, got {means.round(3)}; subtract each its own"
assert np.allclose(deviations, 1, atol=1e-4), f"deviations after: expected 1 in every channel, got {deviations.round(3)}"

# %% [markdown]
# ## 7. Augmentation: the same image, a little different
#
# A cat seen in a mirror is still a cat, and so is a cat two pixels further left. Showing such variants costs a
# little time and no labels. A transform gets a whole batch and one generator, and draws for each image on its
# own. The work is then a few NumPy calls, and not a Python loop over images.
#
# First the mirror. One number in [0, 1) is drawn for each image; where it is below `p`, `flipped` is True: reverse
# the columns of those images and leave the others. The input stays as it was, since it may be the dataset itself;
# `x` in your part is already a copy. By hand: a row `0 1 2 3` becomes `3 2 1 0`.

# %% nbgrader={"grade_id": "random-flip", "solution": true}
#| export
class RandomFlip:
    """Mirror each image left to right with probability `p`. Raises ValueError for p outside [0, 1]."""

    def __init__(self, p=0.5):
        if not 0 <= p <= 1:
            raise ValueError(f"RandomFlip: expected a probability in [0, 1], got {p}")
        self.p = p

    def __call__(self, x, rng):
        x = x.copy(order="K")  # "K" keeps the memory order
        flipped = rng.random(len(x)) < self.p
        ### BEGIN SOLUTION
        x[flipped] = x[flipped, :, :, ::-1]
        return x
        ### END SOLUTION


# %% tags=["nbval-check-output"]
arrow = np.arange(4).reshape(1, 1, 1, 4)
for p in (1, 0):
    print(p, RandomFlip(p)(arrow, np.random.default_rng(0)).ravel())

# %% nbgrader={"grade_id": "test-random-flip", "grade": true, "points": 2}
draw = np.random.default_rng(4)
images = draw.standard_normal((400, 2, 3, 4))
before = images.copy()
got = np.asarray(RandomFlip(0.25)(images, np.random.default_rng(0)))
assert np.array_equal(images, before), "RandomFlip changed the images it was given: change a copy"
assert got.shape == images.shape, f"RandomFlip: expected shape {images.shape}, got {got.shape}"
same = (got == images).all((1, 2, 3))
mirrored = (got == images[:, :, :, ::-1]).all((1, 2, 3))
neither = np.flatnonzero(~same & ~mirrored)
assert len(neither) == 0, f"image {neither[0]} is neither itself nor its mirror image: reverse the last dimension"
wanted = np.random.default_rng(0).random(400) < 0.25
assert np.array_equal(mirrored, wanted), (
    f"p=0.25 of 400: expected {wanted.sum()} mirrored, got {mirrored.sum()}; mirror those where `flipped` is True"
)

# %% [markdown]
# Now the shift. Pad the image on all sides by `padding`, then cut a window of the old size at a random place: with
# padding 2 there are 5 x 5 places. What to put into the border? Zeros would be black bars, which photographs do
# not have. Reflection continues the image: the row `1 2 3` with two more on each side is `3 2 1 2 3 2 1`. A window
# of 3 at place 0 of that is `3 2 1`, at place 2 it is `1 2 3` as before, at place 4 it is `3 2 1` again.
#
# Images with the same shift are cut together, so that the loop runs over the few shifts and not over the many
# images. `chosen` are the numbers of the images whose window begins at row i and column j of the padded image: cut
# their windows, H x W, out of `padded` and put them into `out`.

# %% nbgrader={"grade_id": "random-crop", "solution": true}
#| export
class RandomCrop:
    """Pad by reflection, then cut a window of the old size at a random place, one for each image.

    `padding` counts pixels on each side. Raises ValueError if it is negative or not smaller than the image.
    """

    def __init__(self, padding):
        if padding < 0:
            raise ValueError(f"RandomCrop: expected padding >= 0, got {padding}")
        self.padding = padding

    def __call__(self, x, rng):
        p, (N, _, H, W) = self.padding, x.shape
        if p >= min(H, W):
            raise ValueError(f"RandomCrop: padding {p} needs images larger than {p} pixels, got {H} x {W}")
        padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)), "reflect")
        top, left = rng.integers(0, 2 * p + 1, (2, N))  # where each image's window begins
        out = np.empty_like(x)
        for i, j in np.ndindex(2 * p + 1, 2 * p + 1):
            chosen = np.flatnonzero((top == i) & (left == j))
            ### BEGIN SOLUTION
            out[chosen] = padded[chosen, :, i : i + H, j : j + W]
            ### END SOLUTION
        return out


# %% [markdown]
# Five equal rows `1 2 3 4 5`; here is the first row after a random shift.

# %% tags=["nbval-check-output"]
ramp = np.arange(1, 6).reshape(1, 1, 1, 5).repeat(5, axis=2)
RandomCrop(2)(ramp, np.random.default_rng(0))[0, 0, 0]

# %% nbgrader={"grade_id": "test-random-crop", "grade": true, "points": 3}
draw = np.random.default_rng(5)
images = draw.standard_normal((60, 2, 5, 6)).astype(np.float32)
top, left = np.random.default_rng(7).integers(0, 5, (2, 60))  # what RandomCrop draws with padding 2
rows = np.abs(np.arange(5) + top[:, None] - 2)  # a reflected row -1 is row 1
rows = np.where(rows > 4, 8 - rows, rows)
columns = np.abs(np.arange(6) + left[:, None] - 2)
columns = np.where(columns > 5, 10 - columns, columns)
wanted = np.stack([images[n][:, rows[n]][:, :, columns[n]] for n in range(60)])
got = np.asarray(RandomCrop(2)(images, np.random.default_rng(7)))
assert got.shape == images.shape and got.dtype == np.float32, f"expected the same shape and dtype, got {got.shape}, {got.dtype}"
wrong = np.flatnonzero((got != wanted).any((1, 2, 3)))
assert len(wrong) == 0, (
    f"{len(wrong)} of 60 images are cut wrongly; image {wrong[0]} should begin at row {top[wrong[0]]}, "
    f"column {left[wrong[0]]} of the padded image and be 5 x 6"
)
### BEGIN HIDDEN TESTS
still = np.asarray(RandomCrop(0)(images, np.random.default_rng(0)))
assert np.array_equal(still, images), "padding 0 has one place only: the image itself"
### END HIDDEN TESTS

# %% [markdown]
# Last, `Cutout`: a black square at a random place, so that the network cannot rely on one detail. The centre is
# drawn over the whole image, so the square may hang over the edge. Which pixels are hidden? Those whose row is one
# of `size` rows, counted from `top`, and whose column is one of `size` columns, counted from `left`. By hand, with
# size 2 and four rows: `top` 1 hides rows 1 and 2, `top` -1 hides row 0 only.
#
# `top` and `left` have the shape (N, 1), so a comparison with `row` or `column` gives masks (N, H) and (N, W) for
# all images at once. A pixel is hidden where both are True: reshape the masks so that `&` makes one of the shape
# (N, 1, H, W). Return new images of the same dtype.

# %% nbgrader={"grade_id": "cutout", "solution": true}
#| export
class Cutout:
    """Set a random square of `size` x `size` pixels to zero in each image; it may hang over the edge.

    Raises ValueError for size < 1. Source: DeVries and Taylor, "Improved regularization of convolutional
    neural networks with cutout", 2017.
    """

    def __init__(self, size):
        if size < 1:
            raise ValueError(f"Cutout: expected size >= 1, got {size}")
        self.size = size

    def __call__(self, x, rng):
        N, _, H, W = x.shape
        top = rng.integers(0, H, N)[:, None] - self.size // 2  # (N, 1)
        left = rng.integers(0, W, N)[:, None] - self.size // 2
        row, column = np.arange(H), np.arange(W)
        ### BEGIN SOLUTION
        rows = (row >= top) & (row < top + self.size)  # (N, H)
        columns = (column >= left) & (column < left + self.size)  # (N, W)
        hidden = rows[:, None, :, None] & columns[:, None, None, :]  # (N, 1, H, W)
        return x * (~hidden).astype(x.dtype)
        ### END SOLUTION


# %% tags=["nbval-check-output"]
Cutout(2)(np.ones((1, 1, 4, 4), np.uint8), np.random.default_rng(3))[0, 0]

# %% nbgrader={"grade_id": "test-cutout", "grade": true, "points": 3}
for size in (1, 3, 4):
    images = np.ones((80, 2, 7, 9), np.float32)
    draw = np.random.default_rng(size)
    top, left = draw.integers(0, 7, 80) - size // 2, draw.integers(0, 9, 80) - size // 2
    got = np.asarray(Cutout(size)(images, np.random.default_rng(size)))
    assert got.shape == images.shape and got.dtype == np.float32, f"expected {images.shape} float32, got {got.shape} {got.dtype}"
    assert (images == 1).all(), "Cutout changed the images it was given: return new ones"
    for n in range(80):
        wanted = np.ones((2, 7, 9))
        wanted[:, max(top[n], 0) : top[n] + size, max(left[n], 0) : left[n] + size] = 0
        assert np.array_equal(got[n], wanted), (
            f"size {size}: the square begins at row {top[n]}, column {left[n]}; expected\n{wanted[0].astype(int)}\n"
            f"got\n{got[n, 0].astype(int)}"
        )

# %% [markdown]
# Transforms in a row are a transform again. This one is given.

# %%
#| export
class Compose:
    """Transforms, one after the other."""

    def __init__(self, *transforms):
        self.transforms = transforms

    def __call__(self, x, rng):
        for transform in self.transforms:
            x = transform(x, rng)
        return x


# %% tags=["nbval-check-output"]
recipe = Compose(ToFloat(), RandomFlip(p=1), Normalize([0.5], [0.5]))
print(recipe(dots, np.random.default_rng(0))[0, 0].round(2))

# %% [markdown]
# ## 8. How it looks
#
# One digit, drawn ten times by the loader's recipe.

# %% tags=["measure"]
import matplotlib.pyplot as plt

from autograder import datasets
from tito.figures import show

digit = np.array(datasets.load("digits", "train").images[7:8])
recipe = Compose(ToFloat(), RandomCrop(4), RandomFlip(), Cutout(10))
drawn = recipe(digit.repeat(10, axis=0), np.random.default_rng(0))

# %% tags=["measure"]
figure, axes = plt.subplots(2, 5, figsize=(9, 3.7))
for axis, image in zip(axes.flat, drawn, strict=True):
    axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()
show(
    figure,
    alt="Ten small pictures of the same handwritten digit, white on black: each shifted by up to four pixels, some "
    "mirrored, each with a black square cut out at a different place.",
)

# %% [markdown]
# Mirroring is a bad idea for digits, and a good one for cats: an
# augmentation says what you believe does not matter.

# %% [markdown]
# ## 9. One by one, or the whole batch?
#
# The same recipe twice: once called for each image alone, once for the batch. Look at the ratio of the two times.

# %% tags=["measure"]
images = np.random.default_rng(0).integers(0, 256, (250, 3, 32, 32)).astype(np.uint8)
recipe, rng = Compose(ToFloat(), RandomCrop(2), RandomFlip(), Cutout(8)), np.random.default_rng(0)


# %% tags=["measure"]
def best_of(work, repeats=5):
    """The shortest of a few runs in milliseconds: the one least disturbed by everything else."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


# %% tags=["measure"]
alone = best_of(lambda: [recipe(images[n : n + 1], rng) for n in range(250)], repeats=2)
together = best_of(lambda: recipe(images, rng))
print(f"250 images: one by one {alone:.0f} ms, as a batch {together:.1f} ms, {alone / together:.0f} times faster")

# %% [markdown]
# The pixels to be moved are the same. But every NumPy call, and every round of the loop in `RandomCrop`, has a
# price of its own, which the batch pays once and the single images 250 times. Frameworks that transform one image
# at a time in Python spread that price over several worker processes.

# %% [markdown]
# ## 10. What breaks
#
# Three mistakes that do not look like mistakes. The first: labels and images of different length.

# %% tags=["nbval-check-output"]
try:
    TensorDataset(np.zeros((50, 3, 32, 32)), np.zeros(49))
except ValueError as error:
    print(error)

# %% [markdown]
# The second: shuffling images and labels in two calls. Most labels then stand beside another item's image, and
# nothing raises an error. Shuffle indices, never the arrays.

# %% tags=["nbval-check-output"]
values, tags = np.arange(6), np.arange(6)
draw = np.random.default_rng(0)
print(int((draw.permutation(values) == draw.permutation(tags)).sum()), "of 6 still belong together")

# %% [markdown]
# The third: a transform that writes into its input. On a memory-mapped or shared dataset the second epoch then
# augments what the first one augmented, and little by little the images are gone.

# %% tags=["nbval-check-output"]
stored = np.ones((1, 1, 4, 4))
for _ in range(20):
    stored *= Cutout(2)(np.ones_like(stored), draw)  # what an in-place Cutout would do to the dataset
print(int(stored.sum()), "of 16 pixels left after 20 epochs")

# %% [markdown]
# ## Exercises
#
# 1. `RandomFlip` tosses a coin for each image in every epoch, so some images look the same for several epochs. Write
#    a flip that alternates: a random half in even epochs, the other half in odd ones. What must it be told?
# 2. Write a `Dataset` that reads images from a memory-mapped file, and measure how long a random batch takes
#    against one of neighbouring items.
# 3. Write `RandomShift`, which has zeros at the border. Train a network on the digits with it and with `RandomCrop`,
#    and compare their accuracy.
# 4. Prefetching: make the next batch in a thread while the current one is being computed. When does it pay?
# 5. What must a loader store to resume in the middle of an epoch?
#
# ## Elsewhere
#
# PyTorch's `DataLoader` calls `dataset[i]` for each item, in worker processes when `num_workers > 0`, and a
# `collate_fn` stacks what they return; its order comes from a sampler object and the global generator, so that
# workers need seeds of their own. torchvision's transforms work on single images or on batches. JAX has no loader
# at all: its users bring tf.data or Grain.
#
# ## Summary
#
# - A dataset is a length and numbered items; a batch is items stacked part by part.
# - An order drawn from (seed, epoch) is random for the optimizer and repeatable for you.
# - A generator holds one batch in memory, not an epoch.
# - Transforms work on whole batches with a seeded generator, keep the memory order, and never write into their
#   input.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/dataloader.py`;
# `tito module complete 08` in a terminal does the same.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
