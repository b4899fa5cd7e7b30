"""A stand-in for a student's language entry: a table of which character follows which, and its tokenizer."""

import json
from pathlib import Path

import numpy as np
from submissions import save_model, submission

CHARACTERS = ["\n", *map(chr, range(32, 127))]
VOCABULARY = len(CHARACTERS) + 1  # and the end token, the last id
END = len(CHARACTERS)

BIGRAM = '''"""A network of the simplest kind."""
import numpy as np
import tinytorch


class Model(tinytorch.Model):
    """Logits of what follows each character: one row of a table."""

    def __call__(self, ids):
        """(B, T) ids -> (B, T, V) logits."""
        return tinytorch.Tensor(self.weight.data[ids])
'''

TEXT = "\n\n".join(
    f"Q: What comes after {a}?\nA: After {a} comes {a + 1}." for a in range(20)
)  # what the table is counted from


def table(text: str = TEXT) -> np.ndarray:
    """Logarithms of smoothed counts: what follows each character (V, V), with no two alike."""
    counts = np.random.default_rng(5).uniform(0.01, 0.02, (VOCABULARY, VOCABULARY))
    for dialogue in text.split("\n\n"):
        ids = [END, *(CHARACTERS.index(c) for c in dialogue), END]
        np.add.at(counts, (ids[:-1], ids[1:]), 1)
    return np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)


def text_submission(folder: Path, network: str = BIGRAM, weight: np.ndarray | None = None) -> Path:
    """A valid entry of a text track in `folder`; network: the source of its network.py."""
    submission(folder, network)
    weight = table() if weight is None else weight
    save_model(folder, weight, "Embedding", *weight.shape)
    form = {"format": 1, "type": "char", "characters": CHARACTERS}
    (folder / "tokenizer.json").write_text(json.dumps(form))
    return folder
