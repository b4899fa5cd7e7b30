"""Which steps nbgrader takes: ours in place of those that would run a submission as the instructor.

nbgrader_config.py calls `configure(c)`, so that formgrader and nbgrader's own commands grade, give feedback
and export in the same way as `tito`.
"""

import functools
import os
from pathlib import Path
from typing import Any

from autograder import folders


def configure(c: Any) -> None:
    """Set nbgrader's converters to our preprocessors (`c`: the object of nbgrader_config.py)."""
    _mend_paths()
    ours = "autograder.gradebook.plugins."
    theirs = "nbgrader.preprocessors."
    # No CheckCellMetadata: the notebook is ours, rebuilt, and checking it twice took a third of the time.
    c.Autograde.sanitize_preprocessors = [
        ours + "Judged",
        theirs + "OverwriteKernelspec",
        theirs + "OverwriteCells",
    ]
    # No Execute here: a notebook runs in the sandbox, in Judged, or it does not run.
    c.Autograde.autograde_preprocessors = [
        theirs + "LimitOutput",
        theirs + "SaveAutoGrades",
        theirs + "AssignLatePenalties",
    ]
    c.GenerateFeedback.preprocessors = [
        theirs + "GetGrades",
        ours + "HideTests",
        "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
    ]
    exchange = "autograder.gradebook.exchange."
    c.ExchangeFactory.collect = exchange + "Collect"
    c.ExchangeFactory.release_assignment = exchange + "ReleaseAssignment"
    c.ExchangeFactory.release_feedback = exchange + "ReleaseFeedback"
    c.ExportApp.plugin_class = "autograder.leaderboard.plugin.ResultsExport"
    c.AssignLatePenalties.plugin_class = ours + "LatePenalty"
    root = c.CourseDirectory.get("root")
    if isinstance(root, str):
        file = Path(os.path.abspath(root), "gradebook.db")
        address = c.CourseDirectory.get("db_url")
        # the plain address, nbgrader's own and older courses', is read wrong where a % is in it
        if not isinstance(address, str) or address == f"sqlite:///{file}":
            c.CourseDirectory.db_url = folders.database_url(file)
        c.Judged.course = root
        c.LatePenalty.course = root
        c.ResultsExport.course = root


@functools.cache
def _mend_paths() -> None:
    """nbgrader writes paths into a file in which % begins an expression: there it has to be doubled."""
    from nbgrader import dbutil  # in whatever reads this configuration it is loaded already

    write = dbutil.write_alembic_ini

    def write_alembic_ini(alembic_ini: str, db_url: str) -> None:
        write(alembic_ini, db_url.replace("%", "%%"))

    dbutil.ALEMBIC_DIR = dbutil.ALEMBIC_DIR.replace("%", "%%")
    dbutil.write_alembic_ini = write_alembic_ini
