"""`tito bundle`: what a class is given, in one zip file: wheel, pinned packages, released notebooks.

Before it is written it is searched for solutions, cell by cell; one that is found stops it.
"""

from __future__ import annotations

import ast
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nbformat
import typer

from autograder import files, streams
from autograder.needs import need
from autograder.scratch import scratch_folder
from tito import __version__
from tito.errors import TitoError
from tito.instructor import grading
from tito.student import workspace

_BEGIN, _END = "BEGIN SOLUTION", "END SOLUTION"
_SHORT = 40  # characters without blanks: a shorter solution is looked for with the function around it
_BUILT_FROM = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "LICENSE-lessons",
               "tito", "autograder", "release", "course/entries", "course/schedules")  # fmt: skip
_BUILD = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
START = """# Torch Olympics: start here

You need Python 3.11 or newer. In this folder:

    python3 -m venv env
    env/bin/python -m pip install --no-deps --require-hashes -r requirements.txt
    env/bin/python -m pip install --no-deps {wheel}
    env/bin/tito init my_olympics --release release
    env/bin/tito lab my_olympics

JupyterLab opens on a page that lists the lessons; begin with 01 Tensor. The next day `env/bin/tito lab` in
this folder is enough.

On Windows write `python` for `python3`, and `env\\Scripts\\` for `env/bin/`. The lessons work on Linux, macOS
and Windows. A track's entry is measured on Linux only, WSL 2 and containers included: elsewhere you train it
and hand it in, and the course measures it.

Those who grade, and they alone, need a few packages more:

    env/bin/python -m pip install 'torch-olympics[instructor]'
"""


def bundle(
    course_folder: Annotated[
        Path | None, typer.Option("--course", help="The course folder; default: the one here.")
    ] = None,
    to: Annotated[Path, typer.Option(help="Folder for the wheel and the zip file.")] = Path("dist"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Make the zip file that a class is given: the wheel, its pinned packages and the released notebooks."""
    repository = workspace.repository()
    if repository is None:
        raise TitoError("the wheel is built from a clone of the course, and this tito runs without one")
    root = grading.find(course_folder)
    wheel, archive = make(repository, root, to.resolve())
    if as_json:
        print(json.dumps({"wheel": str(wheel), "bundle": str(archive)}))
        return
    for path in (wheel, archive):
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    print("No solution of source/ is in them.")


def make(repository: Path, root: Path, to: Path) -> tuple[Path, Path]:
    """Build the wheel and the student bundle of a course into `to`; returns both. Raises TitoError."""
    notebooks = sorted((root / "release").glob("*/*.ipynb"))
    if not notebooks:
        raise TitoError(f"{root / 'release'} holds no notebook: `tito release 01_tensor` puts it there")
    archive = to / f"torch-olympics-student-{__version__}.zip"
    with scratch_folder("bundle") as scratch:
        built = build_wheel(repository, scratch)
        draft = scratch / archive.name
        top = archive.stem
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr(f"{top}/README.md", START.format(wheel=built.name))
            out.write(repository / "requirements" / "student.txt", f"{top}/requirements.txt")
            out.write(built, f"{top}/{built.name}")
            for path in notebooks:
                out.write(path, f"{top}/{path.relative_to(root).as_posix()}")
        found = {fault for source in {root, repository} for fault in solutions_in(draft, source / "source")}
        if found:
            raise TitoError(
                f"nothing was written: {len(found)} solutions are in the bundle, first {min(found)}"
            )
        to.mkdir(parents=True, exist_ok=True)
        wheel = to / built.name
        for made, target in ((built, wheel), (draft, archive)):
            files.copy(made, target)
    return wheel, archive


def build_wheel(repository: Path, to: Path) -> Path:
    """The wheel of the course's code, without the network. Raises TitoError, or Missing without setuptools.

    It is built from a copy: setuptools would take stale files along from an earlier build/. The build's one
    step is called as pip and uv call it (PEP 517), so that neither has to be there.
    """
    need("setuptools")
    with scratch_folder("wheel") as scratch:
        for name in _BUILT_FROM:
            path, copy = repository / name, scratch / name
            if path.is_dir():
                shutil.copytree(
                    path, copy, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
                )
            else:
                shutil.copyfile(path, copy)
        done = streams.run([sys.executable, "-c", _BUILD, str(to.resolve())], cwd=scratch)
    wheels = sorted(to.glob("torch_olympics-*.whl"))
    if done.returncode or not wheels:
        said = done.stderr.strip().splitlines()
        raise TitoError(f"the wheel was not built: {said[-1] if said else 'setuptools said nothing'}")
    return wheels[-1]


# ---- the search for solutions


@dataclass(frozen=True)
class Solution:
    """One solved region of a source notebook: its text without blanks, and the functions it belongs to."""

    where: str
    text: str
    functions: frozenset[str]


def solutions(source: Path) -> list[Solution]:
    """Every solved region of the notebooks below source/."""
    found = []
    for path in sorted(source.glob("*/*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            about = cell.metadata.get("nbgrader", {})
            if about.get("solution") and _BEGIN in cell.source:
                for first, last in _regions(cell.source):
                    text = "\n".join(cell.source.splitlines()[first:last])
                    around = _functions(cell.source, first + 1, last)
                    where = f"{path.stem}, {about.get('grade_id')}"
                    found.append(Solution(where, _squeeze(text), frozenset(around)))
    return found


def solutions_in(archive: Path, source: Path) -> list[str]:
    """The solved regions of `source` that a zip file or wheel holds, a line each, however they are laid out.

    A region is found as text, whatever the blanks, and as a function with the same statements, whatever the
    comments and the docstring; in notebooks, in Python files, and in archives within the archive.
    """
    texts: list[tuple[str, str]] = []
    functions: dict[str, str] = {}
    for name, text in _texts(archive.name, archive.read_bytes()):
        texts.append((name, _squeeze(text)))
        functions |= dict.fromkeys(_functions(text), name)
    found = []
    for solution in solutions(source):
        holders = [functions[body] for body in solution.functions if body in functions]
        if len(solution.text) >= _SHORT:
            holders += [name for name, text in texts if solution.text in text]
        found += [f"{solution.where} is in {name}" for name in sorted(set(holders))]
    return found


def _regions(source: str) -> list[tuple[int, int]]:
    """The lines between the markers, from 0, the last one exclusive."""
    lines = source.splitlines()
    begins = [i + 1 for i, line in enumerate(lines) if _BEGIN in line]
    ends = [i for i, line in enumerate(lines) if _END in line]
    return list(zip(begins, ends, strict=True))


def _functions(text: str, first: int = 0, last: int | None = None) -> list[str]:
    """The functions of a text without comments and docstrings; only those that touch lines first..last."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if last is not None and (node.lineno > last or (node.end_lineno or 0) < first):
            continue
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        if node.body:
            found.append(ast.unparse(node))
    return found


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _texts(name: str, content: bytes) -> Iterator[tuple[str, str]]:
    """The texts within a file: of an archive its members', of a notebook its cells', otherwise its own."""
    if name.endswith((".zip", ".whl")):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from _texts(f"{name}/{member}", archive.read(member))
    elif name.endswith(".ipynb"):
        for cell in nbformat.reads(content.decode(), as_version=4).cells:
            yield name, cell.source
            yield name, json.dumps(cell.get("outputs", []))
    else:
        yield name, content.decode("utf-8", errors="replace")
