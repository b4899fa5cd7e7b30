"""Rebuild a submission from our own notebook, so that nothing but the student's answers is graded.

nbgrader restores a graded cell's text, but neither its tags nor a cell that was deleted: a wrong
solution whose test cell carried `skip-execution` earned full marks when tried (version 0.9.6). So we
start from our notebook and take from the student's file only the text of solution cells, by grade_id.
"""

from __future__ import annotations

import base64
import binascii
import copy
import json
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder.errors import OlympicsError
from autograder.notebooks.metadata import is_solution
from autograder.scoring import rules

MAX_FILE = 32_000_000  # bytes of a submitted notebook
MAX_SOURCE = rules.ANSWER
MAX_OUTPUTS = 2_000_000  # characters of all outputs kept beside one answer
MAX_TEXT = 20_000  # characters of one text output
MAX_ALT = 2_000  # characters of a picture's text alternative
MAX_SIDE = 4_000  # pixels of a picture's side on the page
NOTES = "tito_notes"  # notebook metadata: what the rebuild left out, in words for the student


class NotANotebook(OlympicsError, ValueError):
    """The submitted file cannot be read as a notebook; the message says why, in one line."""


def read_submission(path: Path) -> dict[str, Any]:
    """Read a submitted notebook as plain JSON; nothing in it is trusted yet.

    Raises NotANotebook for a missing, linked, oversized or unreadable file.
    """
    try:
        info = path.lstat()
    except OSError:
        raise NotANotebook(f"{path.name} was not submitted.") from None
    if not stat.S_ISREG(info.st_mode):
        raise NotANotebook(f"{path.name} is not a plain file; submit the notebook itself, no link.")
    if info.st_size > MAX_FILE:
        size, limit = info.st_size / 1e6, MAX_FILE / 1e6
        raise NotANotebook(f"{path.name} has {size:.0f} MB, the limit is {limit:.0f} MB: clear its outputs.")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError):
        raise NotANotebook(f"{path.name} is not a notebook: it cannot be read as JSON.") from None
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise NotANotebook(f"{path.name} is not a notebook of format 4: it has no list of cells.")
    return content


def unsolved(source: Mapping[str, Any], release: Mapping[str, Any] | None = None) -> NotebookNode:
    """Our notebook as a student received it, but with its hidden tests: the start of every rebuild.

    Solution cells carry the text of `release` where it is given, else nbgrader's cleared text in place
    of what stands between solution markers. Outputs are dropped, and the checksums are nbgrader's, so
    that its gradebook finds the cells unchanged.
    """
    from nbgrader.preprocessors import ClearSolutions
    from nbgrader.utils import compute_checksum

    nb = nbformat.from_dict(copy.deepcopy(dict(source)))
    released = {grade_id(c): text_of(c) for c in release["cells"]} if release else {}
    clear = ClearSolutions()
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        name = grade_id(cell)
        if name is None:
            continue
        if is_solution(cell):
            if name in released:
                cell.source = released[name]
            elif "### BEGIN SOLUTION" in cell.source:
                clear.preprocess_cell(cell, {"language": "python"}, 0)
        cell.metadata.nbgrader["checksum"] = compute_checksum(cell)
    return nb


def rebuild(
    ours: Mapping[str, Any], submitted: Mapping[str, Any] | None, *, keep_outputs: bool = False
) -> NotebookNode:
    """Return our notebook with the student's answers in its solution cells.

    `ours` is the source or the released notebook, `submitted` any JSON object that claims to be a
    notebook (None: nothing readable was handed in). Cells, order, tags and metadata are ours; an answer
    that is missing, given twice or over the size limit leaves its cell as released, or takes the first,
    and the notebook's metadata[NOTES] says so. `keep_outputs` keeps text and PNG outputs of answers,
    for a grader to look at.
    """
    nb = unsolved(ours)
    nb.metadata[NOTES] = []
    if submitted is None:
        return nb
    solutions = [(str(grade_id(cell)), cell) for cell in nb.cells if is_solution(cell)]
    wanted = {name for name, _ in solutions}
    answers, twice = _answers(submitted)
    notes = [f"Cell {name} occurs more than once: the first one counts." for name in sorted(twice & wanted)]
    foreign = sorted(name for name in answers if name not in wanted and answers[name]["solution"])
    if foreign:
        notes.append(f"Not part of this assignment and left out: {', '.join(foreign[:5])}.")
    for name, cell in solutions:
        answer = answers.get(name)
        if answer is None:
            notes.append(f"Cell {name} is missing from the notebook: it counts as not answered.")
        elif len(answer["source"]) > MAX_SOURCE:
            notes.append(
                f"Cell {name} has {len(answer['source'])} characters, the limit is {MAX_SOURCE}: "
                "it counts as not answered."
            )
        else:
            _put(answer, cell, keep_outputs)
    nb.metadata[NOTES] = notes
    return nb


def _put(answer: Mapping[str, Any], cell: NotebookNode, keep_outputs: bool) -> None:
    if cell.cell_type == "markdown" and answer["source"] != cell.source:
        cell.source = inert_markdown(answer["source"])
    else:
        cell.source = answer["source"]
    if keep_outputs and cell.cell_type == "code":
        cell.outputs = clean_outputs(answer["outputs"])


def answers_as_text(path: Path) -> str:
    """The text of a notebook's answers in code, one after the other; "" where the file is no notebook."""
    try:
        cells = read_submission(path)["cells"]
    except NotANotebook:
        return ""
    named = [cell for cell in cells if grade_id(cell) and cell.get("cell_type") == "code"]
    return (
        "\n\n\n".join(text_of(cell) for cell in named if cell["metadata"]["nbgrader"].get("solution")) + "\n"
    )


def grade_id(cell: Any) -> str | None:
    """The nbgrader name of a cell, or None where it has none (or nonsense in its place)."""
    metadata = cell.get("metadata") if isinstance(cell, Mapping) else None
    info = metadata.get("nbgrader") if isinstance(metadata, Mapping) else None
    name = info.get("grade_id") if isinstance(info, Mapping) else None
    return name if isinstance(name, str) and len(name) < 200 else None


def text_of(cell: Any) -> str:
    """A cell's source as one string that can be encoded, whatever the file held."""
    return plain_text(cell.get("source", "")) if isinstance(cell, Mapping) else ""


def plain_text(value: Any) -> str:
    """Notebook text (a string or a list of lines) as one string; lone surrogates become `?`."""
    if isinstance(value, list):
        value = "".join(part for part in value if isinstance(part, str))
    if not isinstance(value, str):
        return ""
    return value.encode("utf-8", "replace").decode("utf-8")


def inert_markdown(text: str) -> str:
    """Markdown without live HTML: a grader's browser shows a tag as text and follows no script link."""
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
    return re.sub(r"(?i)(javascript|vbscript)\s*:", r"\1 ", text)


def clean_outputs(outputs: Any, budget: int = MAX_OUTPUTS) -> list[NotebookNode]:
    """Outputs reduced to what cannot act in a grader's browser: text, errors and PNG pictures.

    Everything else (HTML, SVG, JavaScript, widgets) is dropped, long text is cut, and what exceeds
    `budget` characters in total is left out.
    """
    kept: list[NotebookNode] = []
    for output in outputs if isinstance(outputs, list) else []:
        clean = _clean_output(output)
        if clean is None:
            continue
        budget -= len(json.dumps(clean))
        if budget < 0:
            break
        kept.append(clean)
    return kept


def _clean_output(output: Any) -> NotebookNode | None:
    if not isinstance(output, Mapping):
        return None
    kind = output.get("output_type")
    if kind == "stream":
        name = "stderr" if output.get("name") == "stderr" else "stdout"
        return nbformat.v4.new_output("stream", name=name, text=_cut(plain_text(output.get("text"))))
    if kind == "error":
        lines = output.get("traceback")
        traceback = [_cut(plain_text(line)) for line in (lines if isinstance(lines, list) else [])[-50:]]
        return nbformat.v4.new_output(
            "error",
            ename=plain_text(output.get("ename"))[:200],
            evalue=_cut(plain_text(output.get("evalue"))),
            traceback=traceback,
        )
    if kind in ("execute_result", "display_data"):
        data = {mime: content for mime, content in _safe_data(output.get("data"))}
        if not data:
            return None
        extra = {"execution_count": None} if kind == "execute_result" else {}
        about = _safe_about_picture(output.get("metadata")) if "image/png" in data else {}
        return nbformat.v4.new_output(kind, data=data, metadata=about, **extra)
    return None


def _safe_data(data: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(data, Mapping):
        return
    if "text/plain" in data:
        yield "text/plain", _cut(plain_text(data["text/plain"]))
    picture = plain_text(data.get("image/png"))
    if picture and len(picture) <= MAX_OUTPUTS:
        try:
            content = base64.b64decode(picture)
        except (binascii.Error, ValueError):
            return
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            yield "image/png", base64.b64encode(content).decode()


def _safe_about_picture(metadata: Any) -> dict[str, Any]:
    """A picture's text alternative and its size in pixels, for graders who hear it or have a fine screen.

    nbconvert escapes the alternative but puts no quotes around the size: so only whole numbers pass.
    """
    about = metadata.get("image/png") if isinstance(metadata, Mapping) else None
    if not isinstance(about, Mapping):
        return {}
    kept: dict[str, Any] = {
        side: about[side]
        for side in ("width", "height")
        if type(about.get(side)) is int and 0 < about[side] <= MAX_SIDE
    }
    if alt := plain_text(about.get("alt")):
        kept["alt"] = alt[:MAX_ALT]
    return {"image/png": kept} if kept else {}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "\n[cut here]"


def _answers(submitted: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """The student's named cells (text, outputs, whether it calls itself a solution), and names met twice."""
    found: dict[str, dict[str, Any]] = {}
    twice: set[str] = set()
    cells = submitted.get("cells")
    for cell in cells if isinstance(cells, list) else []:
        name = grade_id(cell)
        if name is None:
            continue
        if name in found:
            twice.add(name)
            continue
        found[name] = {
            "source": text_of(cell),
            "outputs": cell.get("outputs"),
            "solution": bool(cell["metadata"]["nbgrader"].get("solution")),
        }
    return found, twice
