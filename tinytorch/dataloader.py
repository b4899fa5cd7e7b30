"""Datasets, batches in a seeded order, and image augmentation on whole batches.

Built by tito from lesson 08_dataloader: change the lesson, not this file.
"""

import numpy as np

from tinytorch.tensor import Tensor

__all__ = [
    "Dataset",
    "TensorDataset",
    "DataLoader",
    "as_tensor",
    "ToFloat",
    "Normalize",
    "RandomFlip",
    "RandomCrop",
    "Cutout",
    "Compose",
]


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
        items = [self[i] for i in indices]
        return tuple(np.stack(part) for part in zip(*items, strict=True))


class TensorDataset(Dataset):
    """Arrays whose first dimension counts the items. Raises ValueError if they differ in length."""

    def __init__(self, *arrays):
        self.arrays = [a.data if isinstance(a, Tensor) else np.asanyarray(a) for a in arrays]
        lengths = [len(a) for a in self.arrays]
        if len(set(lengths)) != 1:
            raise ValueError(f"TensorDataset: expected arrays of one length, got lengths {lengths}")

    def __len__(self):
        return len(self.arrays[0])

    def __getitem__(self, i):
        return tuple(a[i] for a in self.arrays)

    def batch(self, indices):
        """The rows `indices` of every array, picked at once."""
        return tuple(a[indices] for a in self.arrays)


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
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def set_epoch(self, epoch):
        """Which epoch the next pass is: the same epoch gives the same batches."""
        self.epoch = epoch

    def order(self, rng):
        """The numbers of all items in the order of this pass, (n,): shuffled by `rng`, or 0, 1, 2, ..."""
        n = len(self.dataset)
        return rng.permutation(n) if self.shuffle else np.arange(n)

    def __iter__(self):
        """One epoch: tuples of tensors; the next pass is the next epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        order = self.order(rng)
        for k in range(len(self)):
            x, *rest = self.dataset.batch(order[k * self.batch_size : (k + 1) * self.batch_size])
            if self.transform is not None:
                x = self.transform(x, rng)
            yield tuple(as_tensor(part) for part in (x, *rest))


def as_tensor(array):
    """Whole numbers as an int64 tensor, everything else as float32."""
    return Tensor(array, dtype=np.int64 if array.dtype.kind in "biu" else np.float32)


class ToFloat:
    """Bytes 0..255 of shape (N, C, H, W) to float32 0..1, same shape, channels-last in memory."""

    def __call__(self, x, rng):
        N, C, H, W = x.shape
        out = np.empty((N, H, W, C), np.float32)
        np.multiply(x.transpose(0, 2, 3, 1), np.float32(1 / 255), out=out)
        return out.transpose(0, 3, 1, 2)


class Normalize:
    """(x - mean) / std for every channel of images (N, C, H, W); `mean` and `std` have C numbers each.

    Raises ValueError unless there are as many means as deviations, all of them positive.
    """

    def __init__(self, mean, std):
        self.mean, self.std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        if self.mean.shape != self.std.shape or not (self.std > 0).all():
            raise ValueError(f"Normalize: expected C means and C positive deviations, got {mean} and {std}")

    def __call__(self, x, rng):
        return (x - self.mean[:, None, None]) / self.std[:, None, None]


class RandomFlip:
    """Mirror each image left to right with probability `p`. Raises ValueError for p outside [0, 1]."""

    def __init__(self, p=0.5):
        if not 0 <= p <= 1:
            raise ValueError(f"RandomFlip: expected a probability in [0, 1], got {p}")
        self.p = p

    def __call__(self, x, rng):
        x = x.copy(order="K")  # "K" keeps the memory order
        flipped = rng.random(len(x)) < self.p
        x[flipped] = x[flipped, :, :, ::-1]
        return x


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
            out[chosen] = padded[chosen, :, i : i + H, j : j + W]
        return out


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
        rows = (row >= top) & (row < top + self.size)  # (N, H)
        columns = (column >= left) & (column < left + self.size)  # (N, W)
        hidden = rows[:, None, :, None] & columns[:, None, None, :]  # (N, 1, H, W)
        return x * (~hidden).astype(x.dtype)


class Compose:
    """Transforms, one after the other."""

    def __init__(self, *transforms):
        self.transforms = transforms

    def __call__(self, x, rng):
        for transform in self.transforms:
            x = transform(x, rng)
        return x
