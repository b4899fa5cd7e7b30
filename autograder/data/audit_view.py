"""What a training script finds as `autograder.datasets` while it is audited: the same calls, fewer pictures.

`audit.py` writes the splits as files and puts this one beside them in the sandbox. There are the training
pictures, or texts, and the public ones; `test` is the public half alone, and the private half is not there,
so that no script can train on what it will be measured on. Needs NumPy alone.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RECORD = 1 + 3 * 32 * 32  # a label byte, then the red, green and blue planes, as in CIFAR-10's own files
TRAIN, TEST, CLASSES = "data_batch_*.bin", "test_batch.bin", "classes.json"
FOLDERS = {"cifar10": "cifar-10-batches-bin"}  # the others are called as their data set


class DataError(Exception):
    """A data set or split that an audit does not show."""


@dataclass(frozen=True)
class Split:
    """Pictures with their labels: images uint8 (N, 3, 32, 32), labels uint8 (N,)."""

    images: Any
    labels: Any
    name: str
    split: str
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dialogue:
    """Questions and answers in turn."""

    level: int
    turns: tuple[tuple[str, str], ...]
    keys: tuple[tuple[str, ...], ...] = ()
    combinations: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """`Q: ...` and `A: ...` lines in turn."""
        return "\n".join(f"Q: {question}\nA: {answer}" for question, answer in self.turns)


@dataclass(frozen=True)
class TextSplit:
    """Some dialogues; text: all of them, a blank line between two."""

    dialogues: tuple[Dialogue, ...]
    name: str
    split: str

    @property
    def text(self) -> str:
        """All dialogues, a blank line between two."""
        return "\n\n".join(dialogue.text for dialogue in self.dialogues) + "\n"

    def __len__(self) -> int:
        return len(self.dialogues)


def folder() -> Path:
    """The folder with the data of the audit."""
    return Path(os.environ["TINYTORCH_DATA"])


def usual() -> str:
    """The data set that the audit is about."""
    return os.environ["TINYTORCH_DATASET"]


def available(name: str, root: object = None) -> bool:
    """Whether it is the data set that the audit is about."""
    return name == usual()


def fetch(name: str, progress: bool = True, **more: object) -> None:
    """Nothing to fetch: the data is here, or it is not part of the audit."""
    _check(name)


def load(name: str, split: str, root: object = None) -> Split:
    """Read `train`, `public`, or `test`, which here is the public half. Raises DataError for all else."""
    home = _check(name)
    if split not in ("train", "public", "test"):
        raise DataError(f"{name} {split} is not shown in an audit: expected train or public")
    files = sorted(home.glob(TRAIN)) if split == "train" else [home / TEST]
    records = np.concatenate([np.fromfile(path, np.uint8) for path in files]).reshape(-1, RECORD)
    classes = tuple(json.loads((home / CLASSES).read_text(encoding="utf-8")))
    return Split(records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].copy(), name, split, classes)


def load_text(name: str, split: str = "train", root: object = None) -> TextSplit:
    """Read `train`, `validation`, `public`, or `test`, which here is the public half. Raises DataError."""
    path = _check(name) / f"{'public' if split == 'test' else split}.json"
    if not path.is_file():
        raise DataError(f"{name} {split} is not shown in an audit: expected train, validation or public")
    found = []
    for item in json.loads(path.read_text(encoding="utf-8")):
        turns = tuple((question, answer) for question, answer in item["turns"])
        found.append(Dialogue(item["level"], turns, tuple(map(tuple, item["keys"]))))
    return TextSplit(tuple(found), name, split)


def _check(name: str) -> Path:
    if name != usual():
        raise DataError(f"the data set {name!r} is not shown in this audit: expected {usual()!r}")
    return folder() / FOLDERS.get(name, name)
