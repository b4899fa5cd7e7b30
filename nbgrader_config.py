"""The course as nbgrader sees it: one folder for each step, all beside this file."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent

c = get_config()  # noqa: F821, given by traitlets
c.CourseDirectory.root = str(ROOT)
c.CourseDirectory.course_id = "torch-olympics"
c.CourseDirectory.source_directory = "source"
c.CourseDirectory.release_directory = "release"
c.CourseDirectory.submitted_directory = "submitted"
c.CourseDirectory.autograded_directory = "autograded"
c.CourseDirectory.feedback_directory = "feedback"
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", ".tito", ".DS_Store"]

# Where students fetch from and submit to: a folder that all of them can reach.
c.Exchange.root = os.environ.get("TITO_EXCHANGE", str(ROOT / "exchange"))
c.ExchangeFetchAssignment.replace_missing_files = True  # what a student wrote is never overwritten

c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError()"}
c.ClearSolutions.text_stub = "YOUR ANSWER HERE"

# Submissions are untrusted: cells that are missing come back, and a cell cannot run for ever.
c.OverwriteCells.add_missing_cells = True
c.ExecutePreprocessor.timeout = 600
c.ExecutePreprocessor.interrupt_on_timeout = True

# Grading in the sandbox, feedback without hidden tests, results as JSON: for formgrader and nbgrader too.
from autograder.pipeline import configure  # noqa: E402, after the course's root is known

configure(c)
