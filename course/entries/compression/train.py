"""Train the compression reference entry with tinytorch alone: a narrower vision entry, in 4 bits.

    TINYTORCH_DATA=FOLDER python course/entries/compression/train.py [--epochs 8] [--seed 0] [--out FOLDER]

First the recipe of the vision entry, in float; then two more epochs in which every forward pass sees weights
rounded to 4 bits, at a tenth of the learning rates. Writes model.safetensors and training.json to the folder,
and two checkpoints while it runs: start it again and it goes on.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[2]))  # tinytorch is not installed: the one of this checkout
sys.path.insert(0, str(HERE.parent / "vision"))

from train import fit, parser, start, write_log  # noqa: E402 (the vision entry's recipe)

from tinytorch import prepare_qat, quantize, save  # noqa: E402

WIDTHS = (64, 168, 168)  # 0.91 M weights: 0.46 MB in 4 bits
BITS, QAT_EPOCHS, QAT_PEAK = 4, 2, 0.1
FLOAT = ("stem",)  # 288 whitening filters, frozen: they stay in float16


def main():
    args = parser(__doc__, HERE).parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    network = start(args.dataset, args.seed, widths=WIDTHS)
    history = fit(network, args.dataset, args.epochs, args.seed, args.out / "checkpoint.safetensors")
    rounded = prepare_qat(network, BITS, keep=FLOAT)
    history += fit(
        rounded,
        args.dataset,
        QAT_EPOCHS,
        args.seed + 1,
        args.out / "checkpoint-qat.safetensors",
        peak=QAT_PEAK,
        stem_epochs=0,
    )
    save(quantize(rounded, BITS), args.out / "model.safetensors", dtype="float16")
    write_log(args.out / "training.json", history, seed=args.seed, dataset=args.dataset, division="open")


if __name__ == "__main__":
    main()
