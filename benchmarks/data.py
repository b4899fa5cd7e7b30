"""What the data loader costs beside a training step on the same batch.

    python benchmarks/data.py [--json] [--batch 250] [--batches 20] [--steps 3] [--threads 2]

Times every transform alone, the whole loader (shuffle, bytes to floats, reflect-pad crop, flip, cutout) and
the training step of benchmarks/vision.py, in one run. The last line with --json: images a second of each, and
`share`, the loader's time over the step's. Images are CIFAR-10's where TINYTORCH_DATA has them, else random.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from itertools import chain, repeat
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def seconds(work, repeats):
    """The median time of `work()` after one call that does not count."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def pictures():
    """Images (N, 3, 32, 32) uint8, labels, and where they are from."""
    from autograder.data import datasets

    try:
        train = datasets.load("cifar10", "train")
        return train.images, train.labels, "cifar10"
    except datasets.DataError:
        rng = np.random.default_rng(0)
        return (
            rng.integers(0, 256, (10_000, 3, 32, 32)).astype(np.uint8),
            rng.integers(0, 10, 10_000),
            "random bytes",
        )


def main():
    sys.path.insert(0, str(ROOT))
    from benchmarks.vision import tinytorch_work
    from tinytorch import (
        Compose,
        Cutout,
        DataLoader,
        Normalize,
        RandomCrop,
        RandomFlip,
        TensorDataset,
        ToFloat,
    )

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    images, labels, source = pictures()
    rng = np.random.default_rng(0)
    bytes_ = np.array(images[: args.batch])
    floats = ToFloat()(bytes_, rng)
    stages = {
        "ToFloat": ToFloat(),
        "RandomCrop(2)": RandomCrop(2),
        "RandomFlip": RandomFlip(),
        "Cutout(8)": Cutout(8),
    }
    stages["Normalize"] = Normalize([0.5] * 3, [0.25] * 3)
    times = {
        name: seconds(lambda t=t, x=bytes_ if name == "ToFloat" else floats: t(x, rng), args.batches)
        for name, t in stages.items()
    }
    loader = DataLoader(
        TensorDataset(images, labels), args.batch, shuffle=True, transform=Compose(*list(stages.values())[:4])
    )
    batches = chain.from_iterable(repeat(loader))  # epoch after epoch
    times["loader"] = seconds(lambda: next(batches), args.batches)
    times["training step"] = seconds(tinytorch_work(args.batch, args.threads)["train"], args.steps)
    share = times["loader"] / times["training step"]
    if not args.json:
        print(f"batches of {args.batch} from {source}, {args.threads} threads")
        for name, t in times.items():
            print(f"{name:>14} {1000 * t:9.2f} ms {args.batch / t:12,.0f} images/s")
        print(f"the loader takes {share:.1%} of a training step's time")
        return
    rates = {name: round(args.batch / t, 1) for name, t in times.items()}
    print(
        json.dumps(
            {"data": source, "batch": args.batch, "unit": "images/s", **rates, "share": round(share, 4)}
        )
    )


if __name__ == "__main__":
    main()
