"""Train a small network on digits with the tinytorch beside it; `tito demo` runs this in the sandbox.

    python -P demo_training.py <pictures.npz> <folder for the results> <seed>

The package is the one on PYTHONPATH, a student's own: nothing here knows more of it than its public names.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np


def main() -> None:
    """Train for some seconds, then write vision/ and compression/: model.safetensors and training.json.

    The compression entry is the same network with its weights in 8 bits.
    """
    pictures, target, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    import tinytorch as tt  # type: ignore[import-not-found]

    data = np.load(pictures)
    images, labels = data["images"].astype(np.float32) / 255, data["labels"]
    rng = np.random.default_rng(seed)
    if hasattr(tt, "manual_seed"):
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
    loss_of, optimizer = tt.CrossEntropyLoss(), tt.Adam(model.parameters(), lr=2e-3)
    history, begin = [], time.perf_counter()
    for epoch in range(10):
        order, losses, start = rng.permutation(len(images)), [], time.perf_counter()
        for i in range(0, len(order), 50):
            batch = order[i : i + 50]
            loss = loss_of(model(tt.Tensor(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.numpy()))
        history.append(
            {"epoch": epoch, "loss": float(np.mean(losses)), "seconds": time.perf_counter() - start}
        )
    log = {"seconds": time.perf_counter() - begin, "epochs": len(history), "history": history}
    for track, entry in (("vision", model), ("compression", tt.quantize(model, bits=8))):
        tt.save(entry, str(target / track / "model.safetensors"))
        (target / track / "training.json").write_text(json.dumps({**log, "division": "open"}))


if __name__ == "__main__":
    main()
