"""{console}: commands that run while the page is built, shown with what they print. {not-run}: the others.

    ```{console}
    :in: course            where: `empty` (a fresh home folder, the default) or a folder that scratch.py makes
    :exit: 1               what the last command must return; all others return 0
    :lines: 8              show so many lines of each output, and say how many more there are
    :columns: 90           cut lines that are longer
    tito module complete 01
    ```

The commands of one page run in one folder, one after the other, each as a line of bash. An unexpected exit
code ends the build. The home folder is shown as ~; nothing else of the output is changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from . import scratch

SECONDS = 240
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_log = logging.getLogger(__name__)


class Place:
    """The scratch folder of one page, and where in it the next command runs."""

    def __init__(self, kind: str):
        self.home = scratch.new(kind)
        self.cwd = self.home / scratch.START.get(kind, "")

    def run(self, command: str) -> tuple[int, str]:
        """Run a line of bash; the exit code, and what it printed with the folder's name replaced by ~."""
        left = self.home / ".cwd"
        script = f"{command}\ncode=$?; pwd > {left}; exit $code"
        try:
            done = subprocess.run(
                ["bash", "-c", script], cwd=self.cwd, env=environment(self.home), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ExtensionError(
                f"console: `{command}` took more than {SECONDS} s: use {{not-run}}"
            ) from error
        if left.is_file():
            self.cwd = Path(left.read_text().strip())
            left.unlink()
        return done.returncode, shown(done.stdout.decode(errors="replace"), self.home)


def shown(text: str, home: Path) -> str:
    """Output as a terminal leaves it: bars redrawn in place, colours off, the home folder as ~."""
    text = _ANSI.sub("", text).replace(str(home.resolve()), "~").replace(str(home), "~")
    text = text.replace(str(scratch.ROOT), "<course>")
    lines = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return "\n".join(lines).strip("\n")


def environment(home: Path) -> dict[str, str]:
    """What the commands see: this repository's tito, a home of their own, and nothing of this process's."""
    bin_folder = home / ".bin"
    if not bin_folder.is_dir():
        bin_folder.mkdir()
        tito = bin_folder / "tito"
        tito.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tito "$@"\n')
        python = bin_folder / "python"  # no link: a virtual environment is known by where its python lies
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        tito.chmod(0o755)
    kept = {key: os.environ[key] for key in ("LANG", "TMPDIR", "TINYTORCH_DATA") if key in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "USER": "ada",
        "LOGNAME": "ada",
        "PATH": f"{bin_folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(scratch.ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "100",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "OPENBLAS_NUM_THREADS": "2",
    }


_places: dict[str, Place] = {}


class Console(SphinxDirective):
    """Run the commands in the body and show both."""

    has_content = True
    option_spec = {
        "in": directives.unchanged,
        "exit": directives.nonnegative_int,
        "lines": directives.positive_int,
        "columns": directives.positive_int,
        "after": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        page = self.env.docname
        if page not in _places or "in" in self.options:
            _forget(page)
            _places[page] = Place(self.options.get("in", "empty"))
        place = _places[page]
        notes = []
        for step in filter(None, map(str.strip, self.options.get("after", "").split(";"))):
            notes.append(scratch.step(place.home, step))
        commands = "\n".join(self.content).replace("\\\n", "").splitlines()
        commands = [line for line in commands if line.strip()]
        block = nodes.literal_block(
            "console", "", classes=["console"]
        )  # raw source that differs: not highlighted
        for i, command in enumerate(commands):
            _log.info("console: %s", command)
            code, text = place.run(command)
            wanted = self.options.get("exit", 0) if i == len(commands) - 1 else 0
            if code != wanted:
                raise self.error(f"`{command}` returned {code}, not {wanted}:\n{text}")
            block += nodes.strong("", f"$ {command}")
            block += nodes.Text("\n" + (self._cut(text) + "\n" if text else ""))
        said = []
        for note in notes:
            said += self.parse_text_to_nodes(f"*{note}*")
            said[-1]["classes"].append("book-note")
        return [*said, block]

    def _cut(self, text: str) -> str:
        columns = self.options.get("columns", 0)
        lines = text.splitlines()
        if columns:
            lines = [line if len(line) <= columns else line[: columns - 1] + "…" for line in lines]
        most = self.options.get("lines", len(lines))
        if len(lines) > most:
            lines = [*lines[:most], f"… and {len(lines) - most} more lines"]
        return "\n".join(lines)


class NotRun(SphinxDirective):
    """A block that is not executed; the argument says why, and the page says so too."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"language": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content)
        block = nodes.literal_block(text, text, language=self.options.get("language", "text"))
        why = self.arguments[0].rstrip(".")
        note = nodes.paragraph("", classes=["book-note"])
        note += nodes.emphasis("", f"Not run when this page was built: {why}.")
        return [block, note]


def _forget(page: str) -> None:
    if page in _places:
        shutil.rmtree(_places.pop(page).home, ignore_errors=True)


def _clean(app: Any, exception: Exception | None) -> None:
    for page in list(_places):
        _forget(page)


def setup(app: Any) -> None:
    """Register the two directives."""
    app.add_directive("console", Console)
    app.add_directive("not-run", NotRun)
    app.connect("build-finished", _clean)
