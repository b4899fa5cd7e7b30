"""Train the language reference entry with tinytorch alone: a GPT of about a million parameters on TinyTalks.

    python course/entries/language/train.py [--epochs 24] [--seed 0] [--out FOLDER]

Writes tokenizer.json, model.safetensors (float16) and training.json to the folder, and checkpoint.safetensors
while it runs: start it again and it goes on.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[2]))  # tinytorch is not installed: the one of this checkout

from autograder import datasets  # noqa: E402
from tinytorch import (  # noqa: E402
    GPT,
    AdamW,
    BPETokenizer,
    CosineSchedule,
    CrossEntropyLoss,
    DataLoader,
    Dataset,
    manual_seed,
    num_threads,
    save,
    train_loop,
)

VOCABULARY, CONTEXT = 512, 512
ROWS = 4  # of CONTEXT tokens in one step
LR, DECAY = 2e-3, 0.1


class Packed(Dataset):
    """Rows of CONTEXT tokens and their successors, each row full of whole dialogues, packed anew every epoch.

    A row begins where a dialogue begins, as every dialogue of a test does; only its last one is cut.
    """

    def __init__(self, dialogues, end, seed):
        self.dialogues, self.end, self.seed = dialogues, end, seed
        self.pack(0)

    def pack(self, epoch):
        """Fill the rows with the dialogues in the order of this epoch."""
        rows, row = [], []
        for i in np.random.default_rng([self.seed, epoch]).permutation(len(self.dialogues)):
            row += [self.end, *self.dialogues[i]]
            if len(row) > CONTEXT:
                rows.append(row[: CONTEXT + 1])
                row = []
        self.rows = np.array(rows)  # (rows, CONTEXT + 1)

    def __len__(self):
        return len(self.rows)

    def batch(self, indices):
        """Tokens (B, CONTEXT) and, for each, the one that follows it."""
        return self.rows[indices, :-1], self.rows[indices, 1:]


class Loader(DataLoader):
    """A DataLoader that has its dataset packed anew for every epoch."""

    def set_epoch(self, epoch):
        super().set_epoch(epoch)
        self.dataset.pack(epoch)


def next_token_loss(logits, targets):
    """The cross entropy of logits (B, T, V) against the tokens that follow, (B, T)."""
    return CrossEntropyLoss()(logits.reshape(-1, logits.shape[-1]), targets.numpy().reshape(-1))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    dialogues = [dialogue.text for dialogue in datasets.load_text("tinytalks", "train").dialogues]
    tokenizer = BPETokenizer.train("\n\n".join(dialogues), vocab_size=VOCABULARY)
    tokenizer.save(args.out / "tokenizer.json")
    loader = Loader(
        Packed([tokenizer.encode(text) for text in dialogues], tokenizer.end, args.seed),
        ROWS,
        shuffle=True,
        seed=args.seed,
        drop_last=True,
    )
    manual_seed(args.seed)
    model = GPT(tokenizer.vocab_size, d_model=128, n_heads=4, n_layers=4, context=CONTEXT)
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{len(loader)} steps of {ROWS * CONTEXT:,} tokens an epoch",
        flush=True,
    )
    steps = args.epochs * len(loader)

    def report(entry):
        print(f"epoch {entry['epoch']}: loss {entry['loss']:.4f}, {entry['seconds']:.0f} s", flush=True)

    history = train_loop(
        model,
        loader,
        AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=DECAY),
        epochs=args.epochs,
        loss_fn=next_token_loss,
        schedule=CosineSchedule(LR, steps, warmup=steps // 20),
        clip_norm=1.0,
        callbacks=[report],
        checkpoint=args.out / "checkpoint.safetensors",
    )
    save(model, args.out / "model.safetensors", dtype="float16")
    record = {
        "seconds": round(sum(entry["seconds"] for entry in history), 1),
        "epochs": len(history),
        "seed": args.seed,
        "dataset": "tinytalks",
        "threads": num_threads(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "history": history,
    }
    (args.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"trained for {record['seconds'] / 60:.1f} minutes; wrote {args.out / 'model.safetensors'}")


if __name__ == "__main__":
    main()
