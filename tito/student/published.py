"""Where the results are that a course has published, as a student finds them: by address, file or exchange.

An address or a file is kept in the workspace by `tito init --results`; otherwise a results.json in or above
the current folder counts, then the one that `tito export --publish` puts into nbgrader's exchange. What is
read is checked against the schema of results, wherever it comes from.
"""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from autograder import files, streams
from autograder.errors import GradingError
from autograder.leaderboard import results_file
from autograder.scoring import rules
from tito.errors import TitoError
from tito.student.workspace import Workspace

FILE = "results.json"
MOST_BYTES = 20 * rules.MB
WAIT_S = 15.0

# run beside the workspace, so that nbgrader reads its own configuration in its own process
_PROBE = """
import autograder  # first: nbformat is quick then
import json
from nbgrader.apps import SubmitApp
from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange.default import Exchange

app = SubmitApp()
app.initialize([])
print(json.dumps({"course": CourseDirectory(parent=app).course_id, "root": Exchange(parent=app).root}))
"""


def checked(place: str) -> str:
    """An address or the full path of a file, as `--results` takes it. Raises TitoError for anything else."""
    if "://" in place:
        parts = urllib.parse.urlsplit(place)
        if parts.scheme != "https" or not parts.hostname:
            raise TitoError(f"--results {place}: expected an address that begins with https://, or a file")
        return place
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise TitoError(
            f"--results {place}: no such file; expected {FILE} of the course, or its https address"
        )
    return str(path)


def find(ws: Workspace | None) -> str | None:
    """Where the class's results are: an address or a path; None where none are known."""
    if ws is not None and (kept := ws.setting("results")):
        return kept
    for folder in (Path.cwd(), *Path.cwd().parents):
        for place in (FILE, f"course/{FILE}", f"exports/{FILE}"):
            if (folder / place).is_file():
                return str(folder / place)
    if ws is not None and (course := exchange(ws)) and (course / FILE).is_file():
        return str(course / FILE)
    return None


def load(place: str) -> dict[str, Any]:
    """The results at an address or in a file, checked. Raises TitoError, one line."""
    try:
        content = _fetch(place) if "://" in place else _read(Path(place))
        return results_file.upgrade(json.loads(content))
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise TitoError(f"the results at {place} cannot be read: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise TitoError(f"{place} is not a results file of `tito export`: it is no JSON ({error})") from error
    except GradingError as error:
        raise TitoError(f"{place} is not a results file of `tito export`: {error}") from error


def remember(ws: Workspace, place: str, found: dict[str, Any]) -> None:
    """Keep a copy of what was read, for the start page."""
    text = json.dumps({"place": place, "results": found}) + "\n"
    files.write_text(ws.private / FILE, text)


def seen(ws: Workspace) -> tuple[str, dict[str, Any]] | None:
    """The place of the class's results and what was last read there, without the network, or None."""
    path = ws.private / FILE
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        place, found = str(kept["place"]), results_file.upgrade(kept["results"])
    except (ValueError, KeyError, TypeError, GradingError):
        path.unlink()  # a copy, no more: the next look at the board makes another
        return None
    if "://" not in place and Path(place).is_file():
        with contextlib.suppress(TitoError):  # what is there now cannot be read: then what was there last
            found = load(place)
    return place, found


def exchange(ws: Workspace) -> Path | None:
    """The course's folder in nbgrader's exchange; None where none is set up. Raises TitoError."""
    from jupyter_core.paths import jupyter_config_path

    folders = [ws.root, *map(Path, jupyter_config_path())]
    if not any(
        (folder / f"nbgrader_config.{kind}").is_file() for folder in folders for kind in ("py", "json")
    ):
        return None  # no course has a name then, and starting nbgrader to hear so takes seconds
    done = streams.run([sys.executable, "-c", _PROBE], cwd=ws.root)
    if done.returncode:
        raise TitoError(f"nbgrader's configuration cannot be read: {last_line(done.stderr)}")
    found = json.loads(last_line(done.stdout))
    return Path(found["root"]) / found["course"] if found["course"] else None


def last_line(text: str) -> str:
    """The last line of what a program printed."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def _read(path: Path) -> bytes:
    if path.stat().st_size > MOST_BYTES:
        raise TitoError(f"{path} has more than {MOST_BYTES // rules.MB} MB: it is no results file")
    return path.read_bytes()


def _fetch(address: str) -> bytes:
    with _OPENER.open(address, timeout=WAIT_S) as answer:
        content: bytes = answer.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise TitoError(f"{address} has more than {MOST_BYTES // rules.MB} MB: it is no results file")
    return content


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to https alone."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"it leads to {newurl[:80]}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_OnlyHttps)
