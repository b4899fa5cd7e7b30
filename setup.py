"""The wheel that students install: tito, autograder, the released notebooks, the given models, the schedules.

Everything else stands in pyproject.toml. No solution is among it: tests/tito/test_bundle.py looks.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
# Of the course's entries what a track gives to everybody: the speed checkpoint, and compression's network.
GIVEN = {
    "speed": ("model.safetensors", "tokenizer.json", "training.json", "result.json"),
    "vision": ("model.safetensors", "network.py", "training.json", "result.json"),
    # their figures alone, for the board
    "language": ("result.json",),
    "compression": ("result.json",),
}


class BuildStudentWheel(build_py):
    """Copy release/ and what the tracks give beside the code; an editable install finds them in the clone."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib)
        shutil.rmtree(package / "tito" / "release", ignore_errors=True)
        for notebook in sorted((HERE / "release").glob("*/*.ipynb")):
            self._copy(notebook, package / "tito" / "release" / notebook.parent.name / notebook.name)
        for track, names in GIVEN.items():
            for name in names:
                self._copy(HERE / "course" / "entries" / track / name,
                           package / "autograder" / "entries" / track / name)  # fmt: skip

        for schedule in sorted((HERE / "course" / "schedules").glob("*.toml")):
            self._copy(schedule, package / "autograder" / "schedules" / schedule.name)

    def _copy(self, source, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


setup(cmdclass={"build_py": BuildStudentWheel})
