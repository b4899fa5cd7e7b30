"""What `tito olympics submit` packs: each part from the file that was named, else from the track's folder.

The package is checked by the grader's own checks before anything is handed in, and every part says where it
came from. A model that was named is not mixed with the log or the script of another one.
"""

from __future__ import annotations

import ast
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder.files import write_text
from autograder.gradebook.audit import SCRIPT, SCRIPT_BYTES
from autograder.scoring import rules, staging
from tito.errors import TitoError
from tito.package.exporter import export_text, is_export
from tito.student import backups, benchmark, model_file, network, project, workspace
from tito.student.workspace import Workspace

MODEL, TRAINING, TOKENIZER = staging.MODEL_NAMES[0], "training.json", staging.TOKENIZER


@dataclass(frozen=True)
class Sources:
    """Where the parts of a submission come from. model, code, report: as named, or None."""

    ws: Workspace
    rule: rules.Track
    place: Path  # the folder of the track: in the workspace, or a project
    model: Path | None = None
    code: Path | None = None
    report: Path | None = None

    @property
    def track(self) -> str:
        return self.rule.name

    @property
    def notebook(self) -> Path:
        return self.place / f"{self.track}.ipynb"

    @property
    def in_project(self) -> bool:
        return project.is_project(self.place)

    @property
    def model_path(self) -> Path:
        return self.model or self.place / MODEL

    @property
    def script(self) -> Path | None:
        """The training script: the one named; else train.py, where the model is the track's own."""
        if self.code is not None:
            return self.code
        own = self.place / SCRIPT
        return own if self.own_model and own.is_file() else None

    @property
    def own_model(self) -> bool:
        """Whether the model is the one of the track's folder."""
        return self.model is None or self.model.resolve() == (self.place / MODEL).resolve()

    def beside(self, name: str) -> Path | None:
        """A file that belongs to the model: beside it, or beside the code that was named."""
        for path in (self.model_path, self.code):
            if path is not None and path.with_name(name).is_file():
                return path.with_name(name)
        return None


@dataclass(frozen=True)
class Part:
    """One part of a package: its name there, its bytes, and where it came from, in words."""

    name: str
    size: int
    origin: str


def sources(
    ws: Workspace, rule: rules.Track, model: Path | None, code: Path | None, report: Path | None
) -> Sources:
    """The files of a submission; raises TitoError for one that was named and is not there."""
    for option, path in (("--model", model), ("--code", code), ("--report", report)):
        if path is not None and not path.is_file():
            what = "is a folder, name a file" if path.is_dir() else "is not there: no such file"
            raise TitoError(f"{option} {path} {what}")
    own = project.find()
    place = own.root if own is not None and own.track == rule.name else ws.root / rule.name
    return Sources(ws, rule, place, model, code, report)


def pack(found: Sources, target: Path) -> list[Part]:
    """Put what counts into `target`: notebook, model, network.py, training.json, script, the own tinytorch.

    Raises TitoError for what is missing, and for what grading would refuse.
    """
    nb = workspace.read_notebook(found.notebook) if found.in_project else backups.read(found.ws, found.track)
    if not found.model_path.is_file():
        raise TitoError(f"{found.model_path} is missing: train in {found.track}.ipynb and run its save cell")
    content = model_file.checked_bytes(found.model_path)
    modules = [path for path in found.ws.package.glob("*.py") if path.name != "__init__.py"]
    if not modules:
        raise TitoError(f"{found.ws.package} holds no module yet: `tito module complete 01` builds the first")
    target.mkdir(parents=True)
    origins = {
        f"{found.track}.ipynb": _pack_notebook(found, nb, target),
        MODEL: _from(found.model_path),
        TRAINING: _pack_training(found, target),
        TOKENIZER: _pack_tokenizer(found, target),
        network.FILE: _pack_network(found, nb, target),
        SCRIPT: _pack_script(found, target),
        "tinytorch": _from(found.ws.package),
    }
    (target / MODEL).write_bytes(content)
    benchmark.copy_package(found.ws.package, target / "tinytorch")
    return [Part(name, _size(target / name), origin) for name, origin in origins.items() if origin]


def check(packed: Path, rule: rules.Track, scratch: Path) -> None:
    """The grader's own checks of a submission's files. Raises TitoError with the grader's reason."""
    try:
        staging.stage(packed, scratch / "staged", rule)
    except staging.Invalid as error:
        raise TitoError(f"grading would refuse this entry, nothing was handed in: {error}") from error


def remarks(found: Sources) -> list[str]:
    """What is no fault, and what one may want to know before handing in."""
    script, said = found.script, []
    if script is not None and MODEL not in script.read_text(encoding="utf-8"):
        said.append(
            f"an audit runs {script.name} again and looks for {MODEL} beside it: let the script save it so"
        )
    return said


def network_text(nb: NotebookNode, track: str) -> str:
    """network.py of a notebook: its `#| export` cells as one file."""
    return export_text(nb, file=f"{track}.ipynb", lesson=f"{track}.ipynb")


def _pack_notebook(found: Sources, nb: NotebookNode, target: Path) -> str:
    report, path = found.report, target / f"{found.track}.ipynb"
    if report is None and found.in_project:
        own = found.place / project.REPORT
        report = own if own.is_file() and not project.unwritten(own.read_text(encoding="utf-8")) else None
    if report is None:
        shutil.copyfile(found.notebook, path)
        return _from(found.notebook)
    text = _report_text(report)
    cells = [cell for cell in nb.cells if _is_report(cell)]
    if len(cells) != 1:
        raise TitoError(
            f"{found.notebook} has {len(cells)} cells for a report, expected one, as released, for "
            f"{report.name}: `tito module reset {found.track}` puts the released notebook back"
        )
    cells[0].source = text
    nbformat.write(nb, path)
    return f"{_from(found.notebook)}, its report {_from(report)}"


def _report_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise TitoError(f"{path} is no text in UTF-8: save the report as Markdown") from error
    if project.unwritten(text):
        raise TitoError(f"{path} says nothing yet: write your report there")
    if len(text) > rules.ANSWER:
        raise TitoError(f"{path} has {len(text):,} characters: a grader takes {rules.ANSWER:,} of an answer")
    return text


def _is_report(cell: NotebookNode) -> bool:
    """The answer whose mark is the entry's innovation; a notebook may ask for other texts beside it."""
    return cell.cell_type == "markdown" and cell.metadata.get("nbgrader", {}).get("grade_id") == "innovation"


def _pack_training(found: Sources, target: Path) -> str:
    path = found.beside(TRAINING)
    if path is not None:
        shutil.copyfile(path, target / TRAINING)
        return _from(path)
    if found.code is None:
        wanted = found.model_path.with_name(TRAINING)
        raise TitoError(
            f"{wanted} is missing: the notebook's save cell writes it; or name a training script with --code"
        )
    write_text(target / TRAINING, json.dumps({"seconds": None, "epochs": None, "history": []}) + "\n")
    return f"made here without a time: an audit of {found.code.name} will tell it"


def _pack_tokenizer(found: Sources, target: Path) -> str:
    if not found.rule.text:
        return ""
    path = found.beside(TOKENIZER)
    if path is None:
        wanted = found.model_path.with_name(TOKENIZER)
        raise TitoError(f"{wanted} is missing: the notebook's save cell writes it")
    shutil.copyfile(path, target / TOKENIZER)
    return _from(path)


def _pack_network(found: Sources, nb: NotebookNode, target: Path) -> str:
    """The model's own classes: the notebook's export cells, a network.py, or the script that has them."""
    path, own = target / network.FILE, found.place / network.FILE
    named = found.model is not None or found.code is not None
    if not named and not found.in_project and any(is_export(cell) for cell in nb.cells):
        write_text(path, network_text(nb, found.track))
        return f"from the export cells of {found.notebook.name}"
    if not named:
        if own.is_file():
            shutil.copyfile(own, path)
        return _from(own) if own.is_file() else ""
    known = model_file.facts(found.model_path, found.code)
    if known.source is None:
        return ""
    benchmark.write_network(known, path)
    if known.source.name == network.FILE:
        return _from(known.source)
    return f"{_from(known.source)}, its {', '.join(known.own)}"


def _pack_script(found: Sources, target: Path) -> str:
    script = found.script
    if script is None:
        return ""
    if script.stat().st_size > SCRIPT_BYTES:
        raise TitoError(f"{script} has more than {SCRIPT_BYTES:,} bytes: no audit would run it")
    try:
        ast.parse(script.read_bytes())
    except (ValueError, SyntaxError) as error:
        raise TitoError(f"{script} is not Python ({error}): no audit could run it") from error
    shutil.copyfile(script, target / SCRIPT)
    return _from(script)


def _from(path: Path) -> str:
    """Where a part came from, as seen from the current folder if it lies there."""
    path, here = path.resolve(), Path.cwd().resolve()
    return f"from {path.relative_to(here) if path.is_relative_to(here) else path}"


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*")) if path.is_dir() else path.stat().st_size
