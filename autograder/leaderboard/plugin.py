"""The results export as nbgrader's own `nbgrader export` calls it; `gradebook.pipeline` names it."""

from __future__ import annotations

from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.plugins import ExportPlugin
from traitlets import Unicode

from autograder.course import Course
from autograder.leaderboard import export


class ResultsExport(ExportPlugin):  # type: ignore[misc]
    """`nbgrader export` and `tito export`: results.json (checked against its schema) and results.csv."""

    course = Unicode("", help="The course folder.").tag(config=True)
    names = Unicode("pseudonym", help="pseudonym (for a public board) or id (for the course).").tag(
        config=True
    )

    def export(self, gradebook: Gradebook) -> None:
        """Write results.json and .csv to `to`, a folder or a .json file name."""
        course = Course.at(self.course or Path.cwd())
        export.write(
            export.collect(
                course, gradebook, names=self.names, students=self.student, assignments=self.assignment
            ),
            Path(self.to or course.root / "results.json"),
        )
