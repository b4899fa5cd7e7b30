"""{console}: commands that run while the page is built, shown with what they print. {not-run}: the others.

    ```{console}
    :in: course            where: `empty` (a fresh home folder, the default) or a folder that scratch.py makes
    :exit: 1               what the last command must return; all others return 0
    :lines: 8              show so many lines of each output, and say how many more there are
    :last: 1               with `lines`: show so many lines of the end, too
    :columns: 90           cut lines that are longer
    :after: solve 01_tensor    a step of scratch.py that is done before, and said above the block
    :opens: lab formgrader     the last command is a server: these pages must answer, then it is ended
    tito module complete 01
    ```

The commands of one page run in one folder, one after the other, each as a line of bash that inherits the
exported variables of the line before. An unexpected exit code ends the build. The home folder is shown as ~;
nothing else of the output is changed.

{goes-into} is a piece of a file: it is put there, before or behind the line that starts so.

    ```{goes-into} autograder/scoring/rules.py
    :behind: TRACKS
    "noisy": ...
    ```
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from autograder import leash
from autograder.scratch import Folder
from tito import session

from . import scratch

SECONDS = 240
SERVER_SECONDS = 180
STARTS = 3  # of a server: another program may take the free port before it does
_ADDRESS = re.compile(
    r"(?P<root>http://(?:localhost|127\.0\.0\.1):\d+)(?P<path>/\S*)\?token=(?P<token>\w+)\s"
)
_PORT_TAKEN = "no available port could be found"  # as Jupyter's server says it
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_log = logging.getLogger(__name__)


class Place:
    """The home folder of one page, and where in it, with which variables, the next command runs."""

    def __init__(self, kind: str, home: Path):
        self.kind, self.home = kind, home
        scratch.fill(home, kind)
        self.cwd = home / scratch.START.get(kind, "")

    def run(self, command: str) -> tuple[int, str]:
        """Run a line of bash; the exit code, and what it printed with the folder's name replaced by ~."""
        left, kept = self.home / ".cwd", self.home / ".exported"
        put = [shlex.quote(str(path)) for path in (left, kept)]
        script = f"{command}\ncode=$?; pwd > {put[0]}; export -p > {put[1]}; exit $code"
        with self._start(script, subprocess.PIPE) as process:
            try:
                said, _ = process.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired as error:
                process.terminate()
                raise ExtensionError(
                    f"console: `{command}` took more than {SECONDS} s: use {{not-run}}"
                ) from error
        if left.is_file():
            self.cwd = Path(left.read_text(encoding="utf-8").strip())
            left.unlink()
        return process.returncode, shown(said.decode(errors="replace"), self.home)

    def _start(self, script: str, out: int | IO[bytes]) -> subprocess.Popen[bytes]:
        """Lines of bash on a leash, in a process group of its own, after what the page's lines exported."""
        kept = self.home / ".exported"
        script = f". {shlex.quote(str(kept))}\n{script}" if kept.is_file() else script
        return subprocess.Popen(
            leash.command(["bash", "-c", script]), cwd=self.cwd, env=environment(self.home, self.kind),
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def serve(self, command: str, pages: Sequence[str]) -> tuple[str, str]:
        """Start a Jupyter server until each of its pages answers, then end it as Ctrl-C does.

        Returns what it printed before its log began, and its address without the token. Raises
        ExtensionError where it gives no address in time, or a page of it does not answer.
        """
        log = self.home / ".server.log"
        for last in (False,) * (STARTS - 1) + (True,):
            with log.open("wb") as out:
                process = self._start(command, out)
            try:
                found = self._address(process, command, log)
                for page in pages:
                    _answers(process, f"{found['root']}/{page}?token={found['token']}", command)
                break
            except ExtensionError:
                if last or _PORT_TAKEN not in log.read_text(encoding="utf-8", errors="replace"):
                    raise
            finally:
                session.stop(process, 2 * leash.PATIENCE_S)
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
        before = next((i for i, line in enumerate(said) if line.startswith("[")), len(said))
        return shown("\n".join(said[:before]), self.home), f"{found['root']}{found['path']}"

    def _address(self, process: subprocess.Popen[bytes], command: str, log: Path) -> dict[str, str]:
        give_up = time.monotonic() + SERVER_SECONDS
        while time.monotonic() < give_up and process.poll() is None:
            if found := _ADDRESS.search(log.read_text(encoding="utf-8", errors="replace")):
                return found.groupdict()
            time.sleep(0.1)
        said = shown(log.read_text(encoding="utf-8", errors="replace"), self.home)
        how = "ended" if process.poll() is not None else f"ran for {SERVER_SECONDS} s"
        raise ExtensionError(f"console: `{command}` {how} and gave no address:\n{said}")


def _answers(process: subprocess.Popen[bytes], address: str, command: str) -> None:
    """Raises ExtensionError unless the page answers with 200; no proxy is asked.

    A Jupyter server says its address before it listens there: a refused connection is tried again.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    give_up = time.monotonic() + SERVER_SECONDS
    while True:
        try:
            with direct.open(address, timeout=SERVER_SECONDS) as answer:
                answer.read()
            return
        except (urllib.error.URLError, OSError) as error:
            refused = isinstance(getattr(error, "reason", None), ConnectionRefusedError)
            if not refused or process.poll() is not None or time.monotonic() > give_up:
                page = address.partition("?")[0]
                raise ExtensionError(f"console: `{command}`: {page} does not answer: {error}") from error
        time.sleep(0.1)


def shown(text: str, home: Path) -> str:
    """Output as a terminal leaves it: bars redrawn in place, colours off, the home folder as ~."""
    text = _ANSI.sub("", text).replace(str(home.resolve()), "~").replace(str(home), "~")
    text = text.replace(str(scratch.ROOT), "<course>")
    lines = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return "\n".join(lines).strip("\n")


def environment(home: Path, kind: str = "empty") -> dict[str, str]:
    """What the commands see: a tito, a home of their own, and nothing of this process's.

    tito is this repository's, or that of a copy in the home folder; `wheel` has none until it is installed,
    only the program of a package that pip finds here already.
    """
    bin_folder = home / ".bin"
    if not bin_folder.is_dir():
        bin_folder.mkdir()
        python, folder = f'"{sys.executable}"', Path(sys.executable).parent
        programs = {"python": python, "python3": python}
        programs |= {"ruff": f'"{folder / "ruff"}"'} if kind == "wheel" else {"tito": f"{python} -m tito"}
        for name, words in programs.items():  # no links: a virtual environment is known by where python lies
            (bin_folder / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
            (bin_folder / name).chmod(0o755)
    here = str(Path(sys.executable).parent)
    ours = [] if kind == "wheel" else [here]  # jupyter and nbgrader; tito is there, too
    others = [path for path in os.environ["PATH"].split(os.pathsep) if path != here]
    kept = {key: os.environ[key] for key in ("LANG", "TMPDIR", "TINYTORCH_DATA") if key in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "USER": "ada",
        "LOGNAME": "ada",
        "PATH": os.pathsep.join([str(bin_folder), *ours, *others]),
        "PYTHONPATH": str(scratch.ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "74",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "OPENBLAS_NUM_THREADS": "2",
        "BROWSER": "true",  # JupyterLab starts this program in place of a browser
        "JUPYTER_PORT": "0",  # a free one
        **scratch.variables(home, kind),
    }


_places: dict[str, Place] = {}
_room: Folder | None = None  # of all places: pages may be read by several processes, one clears up
_number = itertools.count(1)


class Console(SphinxDirective):
    """Run the commands in the body and show both."""

    has_content = True
    option_spec = {
        "in": directives.unchanged,
        "exit": directives.nonnegative_int,
        "lines": directives.positive_int,
        "last": directives.positive_int,
        "columns": directives.positive_int,
        "after": directives.unchanged,
        "opens": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        place = _place(self.env.docname, self.options.get("in"))
        notes, afterwards = [], []
        for step in filter(None, map(str.strip, self.options.get("after", "").split(";"))):
            notes.append(scratch.step(place.home, step))
        commands = "\n".join(self.content).replace("\\\n", "").splitlines()
        commands = [line for line in commands if line.strip()]
        block = nodes.literal_block(
            "console", "", classes=["console"]
        )  # raw source that differs: not highlighted
        for i, command in enumerate(commands):
            _log.info("console: %s", command)
            last = i == len(commands) - 1
            if last and "opens" in self.options:
                pages = self.options["opens"].split()
                text, address = place.serve(command, pages)
                text = f"{text}\n{re.sub(r':[0-9]+/', ':8888/', address, count=1)}".strip()
                afterwards.append(
                    "When this page was built, a program that does nothing stood in for the browser, and a "
                    f"free port for 8888; {' and '.join(f'`{page}`' for page in pages)} answered, and the "
                    "server was ended."
                )
            else:
                code, text = place.run(command)
                wanted = self.options.get("exit", 0) if last else 0
                if code != wanted:
                    raise self.error(f"`{command}` returned {code}, not {wanted}:\n{text}")
            block += nodes.strong("", f"$ {command}")
            block += nodes.Text("\n" + (self._cut(text) + "\n" if text else ""))
        return [*self._said(notes), block, *self._said(afterwards)]

    def _said(self, notes: Sequence[str]) -> list[nodes.Node]:
        said: list[nodes.Node] = []
        for note in notes:
            said += self.parse_text_to_nodes(f"*{note}*")
            said[-1]["classes"].append("book-note")
        return said

    def _cut(self, text: str) -> str:
        columns = self.options.get("columns", 0)
        lines = text.splitlines()
        if columns:
            lines = [line if len(line) <= columns else line[: columns - 1] + "…" for line in lines]
        first, last = self.options.get("lines", len(lines)), self.options.get("last", 0)
        if (hidden := len(lines) - first - last) > 0:
            more = f"… and {hidden} more line{'s' * (hidden > 1)}"
            lines = [*lines[:first], more, *lines[len(lines) - last :]]
        return "\n".join(lines)


class GoesInto(SphinxDirective):
    """A piece of a file: put there in the page's folder, and shown with its place."""

    has_content = True
    required_arguments = 1
    option_spec = {"before": directives.unchanged, "behind": directives.unchanged, "in": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        place = _place(self.env.docname, self.options.get("in"))
        file, text = self.arguments[0], "\n".join(self.content)
        before = "before" in self.options
        line = self.options["before" if before else "behind"]
        try:
            scratch.insert(place.cwd / file, line, text + "\n", before=before)
        except ValueError as error:
            raise self.error(str(error)) from error
        where = f"*In `{file}`, {'above' if before else 'under'} the line that begins with `{line}`:*"
        said = self.parse_text_to_nodes(where)
        said[-1]["classes"].append("book-note")
        return [*said, nodes.literal_block(text, text, language="python")]


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


def _place(page: str, kind: str | None) -> Place:
    """The folder of a page: the one it has, or a new one where it asks for a kind or has none."""
    if page not in _places or kind is not None:
        _forget(page)
        assert _room is not None
        _places[page] = Place(kind or "empty", _room.path / f"{os.getpid()}-{next(_number)}")
    return _places[page]


def _forget(page: str) -> None:
    if page in _places:
        shutil.rmtree(_places.pop(page).home, ignore_errors=True)


def _open(app: Any) -> None:
    global _room
    _room = Folder("book")


def _clean(app: Any, exception: Exception | None) -> None:
    _places.clear()
    if _room is not None:
        _room.close()


def setup(app: Any) -> None:
    """Register the directives."""
    app.add_directive("console", Console)
    app.add_directive("goes-into", GoesInto)
    app.add_directive("not-run", NotRun)
    app.connect("builder-inited", _open)
    app.connect("build-finished", _clean)
