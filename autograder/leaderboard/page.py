"""The page: course/leaderboard.ipynb, executed on the exported results, and a page for each entry beside it.

`render` writes leaderboard.html and a folder leaderboard/. Both are plain files: style and script are inside
them, nothing is loaded from elsewhere (a content security policy says so to the browser too), links lead
only from one to the other.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from autograder.errors import GradingError
from autograder.leaderboard import entries, tables, wording
from autograder.leaderboard.chart import GLYPHS
from autograder.leaderboard.ranking import numbered, sections
from autograder.leaderboard.results_file import load
from autograder.paths import LIBRARY, with_library
from autograder.scoring import rules

HERE = Path(__file__).resolve().parent
NOTEBOOK = LIBRARY / "course" / "leaderboard.ipynb"
MARK = ".tito-leaderboard"  # in a folder of entry pages: made by us, may be replaced


def render(exported: Path, page: Path, notebook: Path = NOTEBOOK) -> Path:
    """Execute the leaderboard notebook on an export; write its outputs as a page, and the entries' pages.

    The folder of the entries' pages has the page's name without its ending; it is replaced as a whole, so
    that who has left the board has no page any more. Raises GradingError for an export that does not fit,
    and where that folder holds something else: nothing is changed then.
    """
    found = load(exported)  # a clear error here, not a traceback in a cell
    folder = page.with_suffix("")
    if folder == page:
        raise GradingError(f"{page} has no ending: name a file such as leaderboard.html")
    if folder.exists() and not (folder / MARK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise GradingError(f"{folder} is no folder of entry pages: move it, or name another page with --to")
    results = numbered(found, folder.name)
    body = notebook_html(exported, folder.name, notebook)
    page.parent.mkdir(parents=True, exist_ok=True)
    part, text = (
        folder.with_name(f".{folder.name}.{os.getpid()}"),
        page.with_name(f".{page.name}.{os.getpid()}"),
    )
    try:
        part.mkdir()
        (part / MARK).touch()
        for name, html in entry_pages(results, page.name).items():
            (part / name).write_text(html, encoding="utf-8")
        text.write_text(board_page(results, body), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
        os.replace(text, page)
    except OSError as error:
        raise GradingError(f"{error.filename or page} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        text.unlink(missing_ok=True)
    return page


def notebook_html(exported: Path, folder: str, notebook: Path = NOTEBOOK) -> str:
    """The outputs and the text of the executed notebook, as HTML."""
    import nbformat
    from markdown_it import MarkdownIt

    from autograder.notebooks import kernels

    nb = nbformat.read(notebook, as_version=4)
    path = with_library(os.environ.get("PYTHONPATH"))
    told = {"TITO_RESULTS": str(exported.resolve()), "TITO_PAGES": folder, "PYTHONPATH": path}
    start = {"cwd": str(exported.resolve().parent), "env": {**os.environ, **told}}
    kernels.run(nb, start, timeout=120)
    markdown = MarkdownIt("commonmark")
    parts = []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            text = markdown.render(cell.source)
            parts.append(re.sub(r"<h2>(.*?)</h2>", _anchored, text))
            continue
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stdout":
                parts.append(f"<p>{Markup.escape(output.text.strip())}</p>")
            elif "text/html" in output.get("data", {}):
                parts.append(output.data["text/html"])
    return "\n".join(parts)


def board_page(results: Mapping[str, Any], body: str) -> str:
    """The board, around what the notebook put out."""
    script = _file("board.js")
    chosen = [e for e in results["entries"] if e["track"] in rules.TRACKS]
    boards = [board for track in rules.TRACKS for board in sections(results, track)]
    classes = [str(group["name"]) for group in results.get("classes", ())]
    return _template("page.html").render(
        style=Markup(_file("board.css") + tables.labels(results)), script=Markup(script), hash=_hash(script),
        body=Markup(body), title=results["course"], notes=_notes(results),
        tracks=[(wording.slug(name), rule.title) for name, rule in rules.TRACKS.items()],
        datasets=sorted({(b.dataset, wording.dataset(b.dataset)) for b in boards}),
        divisions=sorted({b.division for b in boards}),
        badges=[b for b in wording.BADGES if any(e["badge"] == b for e in chosen)],
        classes=[wording.plain(name) for name in classes] if len(classes) > 1 else [],
        legend=[(badge, GLYPHS[badge], text) for badge, text in wording.BADGES.items()],
    )  # fmt: skip


def entry_pages(results: Mapping[str, Any], board: str) -> dict[str, str]:
    """File name -> HTML of every track entry's own page."""
    template, style = _template("entry.html"), Markup(_file("board.css"))
    pages = {}
    for track in rules.TRACKS:
        for section in sections(results, track):
            ranked = sum(rank is not None for rank in section.ranks)
            for entry, rank in zip(section.entries, section.ranks, strict=True):
                place = f"{rank} of {ranked}" if rank else "out of competition"
                shown = entries.facts(entry, results, place)
                shown["report"] = Markup(shown["report"])
                for sample in shown["samples"]:
                    sample["picture"] = Markup(sample["picture"])
                pages[entry["_page"]] = template.render(style=style, board=board, course=results["course"],
                                                        **shown)  # fmt: skip
    return pages


def _notes(results: Mapping[str, Any]) -> list[str]:
    """What stands above the tables: the export's own notes, and entries that have no rules here."""
    strange = sorted({e["track"] for e in results["entries"] if e["track"]} - {*rules.TRACKS})
    notes = [wording.plain(note) for note in results.get("notes", ())]
    if strange:
        notes.append(f"Not shown are entries of tracks that have no rules here: {', '.join(strange)}.")
    return notes


def _anchored(found: re.Match[str]) -> str:
    return f'<h2 id="{wording.slug(found[1])}">{found[1]}</h2>'


def _hash(script: str) -> str:
    """What the content security policy calls this script: no other one runs."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8").strip()


@cache
def _template(name: str) -> jinja2.Template:
    loader = jinja2.FileSystemLoader(HERE)
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return made.get_template(name)
