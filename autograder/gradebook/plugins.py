"""What nbgrader loads from us: grading in the sandbox, feedback without hidden tests, what lateness costs.

`pipeline.configure` switches them on.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.plugins import LateSubmissionPlugin
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Bool, Unicode

from autograder import sandbox
from autograder.data import datasets
from autograder.notebooks.execute import reason_of
from autograder.notebooks.metadata import is_grade, is_solution

HIDDEN = re.compile(r"^[ \t]*#+ BEGIN HIDDEN TESTS.*?#+ END HIDDEN TESTS[^\n]*(?:\n|\Z)", re.S | re.M)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Judged(NbGraderPreprocessor):  # type: ignore[misc]
    """Replaces a submitted notebook by the judged one: rebuilt, executed in the sandbox, trusted scores."""

    course = Unicode("", help="The course folder.").tag(config=True)
    level = Unicode("", help="The least sandbox level that grades here; when empty, any.").tag(config=True)
    dataset = Unicode(
        "", help="The data set that tracks are scored on; when empty, cifar10 if it is here, else digits."
    ).tag(config=True)
    staged = Bool(False, help="The input is already judged (set by the batch, never by hand).").tag(
        config=True
    )

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Judge the submission that `resources` names, unless the batch has done so."""
        if self.staged:
            return nb, resources
        from autograder.gradebook import judging, records  # they import this module

        job = resources["nbgrader"]
        settings = judging.Settings(sandbox.choose(least=self.level), self.dataset or datasets.usual())
        course = judging.Course.at(self.course or Path.cwd())
        records.enter_deadlines(course, job["assignment"], [job["student"]])
        judgement = judging.judge(course, job["student"], job["assignment"], settings)
        assert judgement.notebook is not None
        records.record(course, judgement)
        graded = course.root / "autograded" / job["student"] / job["assignment"]
        if graded.is_dir():
            records.keep_secret(course.submitted(job["student"], job["assignment"]), graded)
        return judgement.notebook, resources


class HideTests(NbGraderPreprocessor):  # type: ignore[misc]
    """Feedback that a student may see: no hidden test in cells, tracebacks or printed text."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Strip hidden regions; every line of them is also blanked out wherever an output shows it."""
        secret: set[str] = set()
        for cell in nb.cells:
            if is_grade(cell) and cell.cell_type == "code":
                for region in HIDDEN.findall(cell.source):
                    secret |= {line.strip() for line in region.splitlines() if len(line.strip()) > 12}
                cell.source = HIDDEN.sub("", cell.source).rstrip()
        for cell in nb.cells:
            for output in cell.get("outputs", []):
                if output.output_type == "error" and is_grade(cell):
                    output.traceback = [
                        f"{output.ename}: {output.evalue}"
                    ]  # the message, not the test's code
                _redact(output, secret)
        summary = lost_points(nb)
        if summary:
            nb.cells.insert(0, nbformat.v4.new_markdown_cell(summary))
        return nb, resources


def lost_points(nb: NotebookNode) -> str:
    """A list for the top of a feedback page: each check that lost points, and what it says; "" for none.

    No table: nbconvert gives it no space between its columns.
    """
    rows = []
    for cell in nb.cells:
        about = cell.metadata.get("nbgrader", {})
        score, most = about.get("score"), about.get("points")
        if not is_grade(cell) or score is None or most is None or score >= most:
            continue
        reason = reason_of(cell) or ("A person graded this." if is_solution(cell) else "")
        text = re.sub(r"([\\`*_{}\[\]<>|$])", r"\\\1", reason.replace("\n", " "))
        rows.append(
            f"- **{about['grade_id']}**, {score:g} of {most:g} points: {text or 'no reason was given'}"
        )
    if not rows:
        return ""
    return "\n".join(["## Where points were lost", "", *rows])


def _redact(output: NotebookNode, secret: set[str]) -> None:
    def clean(text: str) -> str:
        plain = ANSI.sub("", text)
        if not any(line in plain or repr(line)[1:-1] in plain for line in secret):
            return text
        kept = [
            line
            for line in plain.splitlines()
            if not any(hidden in line or repr(hidden)[1:-1] in line for hidden in secret)
        ]
        return "\n".join([*kept, "[hidden]"])

    if output.output_type == "stream":
        output.text = clean(output.text)
    elif output.output_type == "error":
        output.evalue = clean(output.evalue)
        output.traceback = [clean("\n".join(output.traceback))]
    elif "text/plain" in output.get("data", {}):
        output.data["text/plain"] = clean(output.data["text/plain"])


class LatePenalty(LateSubmissionPlugin):  # type: ignore[misc]
    """What lateness costs, as course/deadlines.toml says."""

    course = Unicode("", help="The course folder.").tag(config=True)

    def late_submission_penalty(self, student_id: str, score: float, total_seconds_late: float) -> float:
        """Points to take off; nbgrader calls this for work that came after its due date and extension."""
        from autograder.gradebook import deadlines

        return deadlines.load(Path(self.course or Path.cwd())).penalty(score, total_seconds_late)
