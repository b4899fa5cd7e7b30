"""The names by which notebooks, scripts and courses import us, whatever room a module lies in.

A student's notebooks and a course's settings are copies: they keep the import that they were given. So what
they import has a short name for good, `autograder.datasets` for one, and it is the module itself. Nothing of
the course's own code uses these names.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

NAMES = {
    "autograder.datasets": "autograder.data.datasets",
    "autograder.pipeline": "autograder.gradebook.pipeline",
    "autograder.tokens": "autograder.scoring.tokens",
    "autograder.language": "autograder.scoring.language",
    "autograder.rules": "autograder.scoring.rules",
    "tito.olympics": "tito.student.olympics",
    "tito.lab": "tito.student.lab",
    "tito.project": "tito.student.project",
}


class Finder:
    """Finds a module of ours by its short name, after every other finder of Python has looked."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What sys.meta_path asks for."""
        return ModuleSpec(name, Finder()) if name in NAMES else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """An empty module, for the moment."""

    def exec_module(self, module: ModuleType) -> None:
        """The real one takes its place; Python hands out what stands in sys.modules afterwards."""
        sys.modules[module.__name__] = importlib.import_module(NAMES[module.__name__])


def install() -> None:
    """Called once, when `autograder` is imported."""
    sys.meta_path.append(Finder)
