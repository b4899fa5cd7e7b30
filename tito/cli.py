"""The command line: where each command lies, and a known error as one line. A command is imported when it is
called (`tito.lazy`).
"""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from autograder import home, streams
from autograder.errors import OlympicsError
from tito import __version__, lazy

COMMANDS = {
    "lab": "tito.student.lab:lab",
    "module": "tito.student.module:app",
    "data": "tito.student.data:app",
    "olympics": "tito.student.olympics:app",
    "benchmark": "tito.student.benchmark:app",
    "doctor": "tito.doctor.command:doctor",
    "sandbox": "tito.instructor.sandbox:sandbox_command",
    "course": "tito.instructor.course:app",
    "release": "tito.instructor.grading:release",
    "collect": "tito.instructor.grading:collect",
    "grade": "tito.instructor.grading:grade",
    "explain": "tito.instructor.grading:explain",
    "similarity": "tito.instructor.grading:similarity",
    "feedback": "tito.instructor.grading:feedback",
    "export": "tito.instructor.board:export",
    "leaderboard": "tito.instructor.board:pages",
    "build": "tito.build.build:build_command",
    "bundle": "tito.instructor.bundle:bundle",
    "demo": "tito.demo:demo",
}

app = typer.Typer(
    cls=lazy.group(COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Torch Olympics: build your own deep-learning package, then compete with it.",
)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Torch Olympics: build your own deep-learning package, then compete with it."""
    if version:
        print(f"tito {__version__}")
        raise typer.Exit()


@app.command()
def init(
    path: Annotated[
        Path | None, typer.Argument(help="Folder; default: the workspace here, or ./workspace.")
    ] = None,
    release: Annotated[Path | None, typer.Option(help="Notebooks: a folder, or the student bundle.")] = None,
    results: Annotated[
        str | None, typer.Option(help="Where your class's results are: a file, or an https address.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Make a workspace with the released notebooks, or add the new ones to yours; replaces none."""
    from tito.student import places, start, workspace

    place = None
    if results is not None:
        from tito.student import published

        place = published.checked(results)
    made, added = workspace.init(path or places.here_or_new(), release)
    if place is not None:
        made.keep("results", place)
    start.refresh(made)
    if as_json:
        print(json.dumps({"workspace": str(made.root), "added": added}))
        return
    print(
        f"{made.root}: "
        + (f"added {', '.join(added)}" if added else "nothing new, your notebooks are as they were")
    )
    print("Next: `tito lab` opens it, `tito module status` shows where you are.")


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def main() -> None:
    """Run the command line; an error for a person is one line on stderr, and its exit code."""
    streams.ready()
    try:
        if sys.argv[1:2] != ["doctor"]:  # which says what is wrong with it
            home.ready()
        app(prog_name="tito")  # by `python -m tito`, too
    except OlympicsError as error:
        print(f"tito: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno == errno.ENOENT and str(error.strerror).startswith("No usable temporary directory"):
            where = f"TMPDIR is {os.environ['TMPDIR']}" if "TMPDIR" in os.environ else "TMPDIR is not set"
            print(
                f"tito: there is no folder for temporary files ({where}): set TMPDIR to one that can be "
                "written, `tito doctor` says more",
                file=sys.stderr,
            )
            sys.exit(2)
        if error.errno not in _NO_ROOM:
            raise
        where = error.filename or "a file"
        print(f"tito: {where} cannot be written ({error.strerror}): `tito doctor` says more", file=sys.stderr)
        sys.exit(2)
