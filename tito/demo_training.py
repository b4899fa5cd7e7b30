"""Train a small network on digits and a small GPT on dialogues with the tinytorch beside it, in the sandbox.

    python -P demo_training.py <data.npz> <folder for the results> <seed> <track> ...

The package is the one on PYTHONPATH, a student's own: nothing here knows more of it than its public names.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def fit(optimizer: Any, loss_of: Callable[[Any], Any], n: int, batch: int, epochs: int, rng: Any) -> Any:
    """Steps on `loss_of(indices)` in random order of n items; returns the log, a dict an epoch."""
    history = []
    for epoch in range(epochs):
        order, losses, start = rng.permutation(n), [], time.perf_counter()
        for i in range(0, n, batch):
            loss = loss_of(order[i : i + batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.numpy()))
        history.append(
            {"epoch": epoch + 1, "loss": float(np.mean(losses)), "seconds": time.perf_counter() - start}
        )
    return history


def main() -> None:
    """Train for some seconds, then write model and training.json of each named track (see `demo.TRAINED`).

    The compression entry is the network of vision with its weights in 8 bits.
    """
    data, target, seed = np.load(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    import tinytorch as tt  # type: ignore[import-not-found]

    images, labels = data["images"].astype(np.float32) / 255, data["labels"]
    rows, rng = data["rows"], np.random.default_rng(seed)
    tt.manual_seed(seed)
    model = tt.Sequential(
        tt.AvgPool2d(2),
        tt.Conv2d(3, 16, 3, padding=1),
        tt.ReLU(),
        tt.MaxPool2d(2),
        tt.Conv2d(16, 24, 3, padding=1),
        tt.ReLU(),
        tt.MaxPool2d(2),
        tt.Conv2d(24, 32, 3, padding=1),
        tt.ReLU(),
        tt.Flatten(),
        tt.Linear(32 * 16, 10),
    )
    cross_entropy = tt.CrossEntropyLoss()

    def classify(batch: Any) -> Any:
        return cross_entropy(model(tt.Tensor(images[batch])), labels[batch])

    seen = fit(tt.Adam(model.parameters(), lr=2e-3), classify, len(images), 50, 10, rng)
    entries = {"vision": (model, seen)}
    if "compression" in sys.argv:
        entries["compression"] = (tt.quantize(model, bits=8), seen)
    if "language" in sys.argv:
        gpt = tt.GPT(int(data["vocabulary"]), d_model=32, n_heads=4, n_layers=2, context=512)
        optimizer = tt.Adam(gpt.parameters(), lr=5e-3)
        entries["language"] = (
            gpt, fit(optimizer, lambda batch: tt.language_loss(gpt, rows[batch]), len(rows), 16, 1, rng),
        )  # fmt: skip
    for track, (entry, history) in entries.items():
        tt.save(entry, str(target / track / "model.safetensors"))
        log = {"seconds": sum(e["seconds"] for e in history), "epochs": len(history), "history": history}
        text = json.dumps({**log, "division": "open"})
        (target / track / "training.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
