"""A course on disk, and the settings that its submissions are judged with."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from autograder import sandbox
from autograder.paths import LIBRARY

STUDENT = re.compile(r"[\w@.-]{1,80}$")  # nbgrader joins student names into paths and patterns
LIMITS = sandbox.Limits(
    wall_s=300, memory_bytes=3_000_000_000, processes=32, file_bytes=100_000_000, cpu_s=600
)


@dataclass(frozen=True)
class Course:
    """An nbgrader course on disk: source/, release/, submitted/, autograded/, gradebook.db under `root`.

    `package` is the reference tinytorch that module notebooks import from. Ours: grading/ (judgements).
    """

    root: Path
    package: Path

    @classmethod
    def at(cls, root: Path | str) -> Course:
        """The course in a folder; its package is the folder's own tinytorch/ or the repository's."""
        root = Path(root).resolve()
        own = root / "tinytorch"
        return cls(root, own if own.is_dir() else LIBRARY / "tinytorch")

    @property
    def grading(self) -> Path:
        return self.root / "grading"

    def source(self, assignment: str) -> Path:
        return self.root / "source" / assignment / f"{assignment}.ipynb"

    def submitted(self, student: str, assignment: str) -> Path:
        return self.root / "submitted" / student / assignment

    def students(self, assignment: str) -> list[str]:
        """Everybody with a collected submission of the assignment."""
        found = (self.root / "submitted").glob(f"*/{assignment}")
        return sorted(path.parent.name for path in found if path.is_dir() and STUDENT.match(path.parent.name))

    def collected(self) -> list[str]:
        """Every assignment that somebody's submission was collected of."""
        names = {path.name for path in (self.root / "submitted").glob("*/*") if path.is_dir()}
        return sorted(name for name in names if self.source(name).is_file())

    def secret(self) -> str:
        """The seed of the scorer's order and noise; made once, readable by the grader alone."""
        path = self.grading / "secret"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_hex(16).encode())
        return path.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Settings:
    """How submissions are judged: sandbox level, data set of the tracks, time limits."""

    level: str
    dataset: str = "cifar10"
    cell_s: float = 60.0
    limits: sandbox.Limits = LIMITS
