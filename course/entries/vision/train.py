"""Train the vision reference entry with tinytorch alone: two cores, eight epochs, under an hour.

    TINYTORCH_DATA=FOLDER python course/entries/vision/train.py [--epochs 8] [--seed 0] [--out FOLDER]

Writes model.safetensors (float16) and training.json to the folder, and checkpoint.safetensors while it runs:
start it again and it goes on. The recipe is K. Jordan's (2024): whitening stem, identity start, batch norm
without scale, Muon on the filters and Nesterov momentum on the rest, label smoothing 0.2, a learning rate
that falls to zero, crops by 2 pixels, and a flip that alternates from epoch to epoch.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[2]))  # tinytorch is not installed: the one of this checkout

from network import Network, whiten  # noqa: E402

from autograder import datasets  # noqa: E402
from tinytorch import (  # noqa: E402
    Compose,
    CrossEntropyLoss,
    DataLoader,
    Dataset,
    LinearSchedule,
    Optimizer,
    RandomCrop,
    ToFloat,
    manual_seed,
    num_threads,
    save,
    train_loop,
)

BATCH, MICRO = 2000, 125  # the optimizer steps every 2,000 pictures, computed 125 at a time
STEM_EPOCHS = 3  # the stem's bias is trained this long, then frozen


class AlternatingFlip(Dataset):
    """Pictures of which a random half is mirrored in even epochs and the other half in odd ones."""

    def __init__(self, images, labels, seed):
        self.images, self.labels, self.epoch = images, labels, 0
        self.flip = np.random.default_rng(seed).random(len(labels)) < 0.5

    def __len__(self):
        return len(self.labels)

    def batch(self, indices):
        indices = np.sort(indices)  # in the order of the file
        images = np.array(self.images[indices])
        flip = self.flip[indices] ^ bool(self.epoch % 2)
        images[flip] = images[flip, :, :, ::-1]
        return images, np.array(self.labels[indices])


class Loader(DataLoader):
    """A DataLoader that tells its dataset the epoch too."""

    def set_epoch(self, epoch):
        super().set_epoch(epoch)
        self.dataset.epoch = epoch


class Muon(Optimizer):
    """Muon (K. Jordan, 2024) on filters, Nesterov momentum on the rest; `lr` is the share of each rate.

    Muon makes the step of a weight matrix orthogonal by three Newton-Schulz iterations, and keeps every
    filter bank at a fixed norm.
    """

    FILTERS, HEAD, SHIFTS = 0.24, 1340.0, 106.0  # learning rates at full share
    DECAY = 4e-3  # weight decay times learning rate of the parameters that are not filters

    def __init__(self, parameters, stem_bias, stem_steps):
        super().__init__(parameters, lr=1.0)
        self.stem_bias, self.stem_steps, self.steps = stem_bias, stem_steps, 0

    def step(self):
        self.stem_bias.requires_grad = self.steps < self.stem_steps
        super().step()
        self.steps += 1
        self.stem_bias.requires_grad = self.steps < self.stem_steps

    def update(self, p, g, state):
        momentum = 0.6 if p.ndim == 4 else 0.85
        if p.ndim != 4:
            rate = self.HEAD if p.ndim == 2 else self.SHIFTS
            g = g + self.DECAY / rate * p
        m = state["momentum"] = momentum * state["momentum"] + g if "momentum" in state else g
        g = g + momentum * m
        if p.ndim == 4:
            kept = np.float32(np.sqrt(len(p)) / np.linalg.norm(p))
            return p - kept * p + self.FILTERS * self.lr * orthogonal(g.reshape(len(g), -1)).reshape(p.shape)
        share = self.lr
        if p is self.stem_bias.data:
            share = max(0.0, 1 - self.steps / self.stem_steps)
        return rate * share * g

    def state_dict(self):
        return super().state_dict() | {"0.steps": np.asarray(self.steps)}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.steps = int(self.state[0].pop("steps"))
        self.stem_bias.requires_grad = self.steps < self.stem_steps


def orthogonal(g):
    """Push all singular values of the matrix `g` towards 1 by three Newton-Schulz iterations."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (np.linalg.norm(g) + 1e-7)
    wide = x if x.shape[0] <= x.shape[1] else x.T
    for _ in range(3):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * (square @ square)) @ wide
    return wide if x.shape[0] <= x.shape[1] else wide.T


def fit(network, dataset, epochs, seed, checkpoint, peak=1.0, stem_epochs=STEM_EPOCHS):
    """Train `network` by the recipe on a data set's training pictures; returns train_loop's history.

    It begins at the share `peak` of the learning rates; the stem's bias is trained for `stem_epochs`.
    """
    train = datasets.load(dataset, "train")
    loader = Loader(
        AlternatingFlip(train.images, train.labels, seed),
        MICRO,
        shuffle=True,
        seed=seed,
        drop_last=True,
        transform=Compose(ToFloat(), RandomCrop(2)),
    )
    steps = len(loader) * MICRO // BATCH
    optimizer = Muon(network.parameters(), network.stem.bias, stem_epochs * steps)

    def report(entry):
        print(f"epoch {entry['epoch']}: loss {entry['loss']:.4f}, {entry['seconds']:.0f} s", flush=True)

    return train_loop(
        network,
        loader,
        optimizer,
        epochs=epochs,
        loss_fn=CrossEntropyLoss(label_smoothing=0.2),
        schedule=LinearSchedule(peak, total=epochs * steps),
        accumulate=BATCH // MICRO,
        callbacks=[report],
        checkpoint=checkpoint,
    )


def start(dataset, seed, **settings):
    """A fresh network with a stem that whitens the first 5,000 training pictures of the data set."""
    manual_seed(seed)
    network = Network(**settings)
    whiten(network, np.asarray(datasets.load(dataset, "train").images[:5000], np.float32) / 255)
    return network


def write_log(path, history, **facts):
    """training.json: the seconds of all epochs, the facts of the run, and the history."""
    record = {
        "seconds": round(sum(entry["seconds"] for entry in history), 1),
        "epochs": len(history),
        "threads": num_threads(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **facts,
        "history": history,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"trained for {record['seconds'] / 60:.1f} minutes; wrote {path}")


def parser(doc, out):
    """The options of a training script."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dataset", default=datasets.usual())
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=out)
    return options


def main():
    args = parser(__doc__, HERE).parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    network = start(args.dataset, args.seed)
    history = fit(network, args.dataset, args.epochs, args.seed, args.out / "checkpoint.safetensors")
    save(network, args.out / "model.safetensors", dtype="float16")
    write_log(args.out / "training.json", history, seed=args.seed, dataset=args.dataset)


if __name__ == "__main__":
    main()
