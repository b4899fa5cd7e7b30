"""From a notebook's `#| export` cells to one readable file of the package.

The exporter reads text and writes text: it never imports or runs a lesson. `tito build` uses it for the
reference package and `tito module complete` for the student's own, so both read the same way: imports merged
and sorted on top, `class X(X):` continuations merged into the first class, no markers, formatted by ruff.
"""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import textwrap
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder import needs
from autograder.errors import OlympicsError
from autograder.files import write_text
from tito.package.init import package_init

LINE_LENGTH = 110
DIRECTIVE = re.compile(r"#\s*\|\s*export\b")
_LITTER = re.compile(r"#+\s*((BEGIN|END) (SOLUTION|HIDDEN TESTS)|YOUR CODE HERE)\s*$")
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*$")


class ExportError(OlympicsError, ValueError):
    """A cell that cannot become package code. The message is one line: file, cell, reason."""


@dataclass
class _Chunk:
    """One top-level statement with the comments above it, as text."""

    text: str
    where: str  # file and cell, for messages
    node: ast.stmt | None = None
    close: bool = False  # stood directly under the chunk before it, in the same cell
    methods: dict[str, str] = field(default_factory=dict)  # name -> where, for classes


# ---- what a caller uses


def is_export(cell: NotebookNode) -> bool:
    """Whether a cell belongs to the package: a code cell whose first line is `#| export`."""
    return cell.cell_type == "code" and bool(DIRECTIVE.match(cell.source.lstrip()))


def cell_label(cell: NotebookNode, position: int) -> str:
    """How messages name a cell: its place in the notebook, counted from 1, and its grade_id if it has one."""
    grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
    return f"cell {position} ({grade_id})" if grade_id else f"cell {position}"


def export_text(nb: NotebookNode, *, file: str, lesson: str) -> str:
    """The package file of one notebook.

    `file` names the notebook in messages, `lesson` in the docstring. Raises ExportError for a cell that does
    not parse, a class continuation without a class, and a name that the cells use but do not define.
    """
    chunks = [
        chunk
        for position, cell in enumerate(nb.cells, start=1)
        if is_export(cell)
        for chunk in _split(cell.source, f"{file}, {cell_label(cell, position)}")
    ]
    if not chunks:
        raise ExportError(
            f"{file}: no cell starts with `#| export`, so there is nothing to put in the package."
        )
    imports = [chunk for chunk in chunks if isinstance(chunk.node, ast.Import | ast.ImportFrom)]
    body = _merge_classes([chunk for chunk in chunks if chunk not in imports])
    parts = [_docstring(nb, lesson), *(chunk.text for chunk in imports)]
    if names := _public(body):
        parts.append(f"__all__ = {names!r}")
    text = "\n".join(parts) + "\n"
    for chunk in body:
        text += chunk.text + "\n" if chunk.close else "\n" + chunk.text + "\n"
    text = tidy(text)
    _refuse_undefined(text, chunks, file)
    return text


def export_notebook(
    notebook: Path, package: Path, modules: Mapping[str, str], names: Mapping[str, str]
) -> Path:
    """Write `package`/<name>.py from a notebook called NN_<name>.ipynb, and the package's `__init__.py`.

    `modules` (name -> number) and `names` (public name -> module) are the tables of tito.package.names; names
    of the student's own are added. The files are replaced in one step each. Raises ExportError.
    """
    number, _, module = notebook.stem.partition("_")
    if not (number.isdigit() and module.isidentifier()):
        raise ExportError(
            f"{notebook.name}: expected a name like 01_tensor.ipynb, to know which module it builds."
        )
    try:
        nb = nbformat.read(notebook, as_version=4)
    except (OSError, ValueError) as error:  # NotJSONError is a ValueError
        raise ExportError(
            f"{notebook}: not a readable notebook ({str(error).splitlines()[0][:120]})."
        ) from error
    text = export_text(nb, file=notebook.name, lesson=notebook.stem)
    package.mkdir(parents=True, exist_ok=True)
    target = package / f"{module}.py"
    write_text(target, text)
    modules, names = {**modules, module: number}, dict(names)
    for file in sorted(package.glob("*.py")):
        if file.stem in modules:
            own = public_names(file.read_text(encoding="utf-8"))
            names |= {name: file.stem for name in own if name not in names and name not in modules}
    write_text(package / "__init__.py", tidy(package_init(modules, names)))
    return target


def public_names(text: str) -> list[str]:
    """The names in a package file's `__all__`, read without importing it."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return list(ast.literal_eval(node.value))
    return []


def tidy(text: str) -> str:
    """Sort imports, drop unused and double ones, and format, as ruff does."""
    fixes = ["--fix", "--exit-zero", "--quiet", "--select", "I,F401"]
    text = _ruff("check", *fixes, "--config", 'lint.isort.known-first-party=["tinytorch"]', text=text)
    return _ruff("format", "--quiet", text=text)


# ---- cells to chunks


def _split(source: str, where: str) -> list[_Chunk]:
    """Cut a cell into its top-level statements, each with the comment lines above it."""
    source = "\n".join("" if DIRECTIVE.match(line) else line for line in source.splitlines())
    tree = _parse(source, where)
    litter = _litter(source)
    lines = ["" if i in litter else line for i, line in enumerate(source.splitlines())]
    spans: list[tuple[int, int, ast.stmt | None]] = []  # first line, line after the last, statement
    done = 0
    for node in tree.body:
        start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
        end = node.end_lineno or node.lineno
        if start < done:  # `a = 1; b = 2` stay one chunk
            spans[-1] = (spans[-1][0], max(done, end), None)
        elif isinstance(
            node, ast.Import | ast.ImportFrom
        ):  # comments set apart from an import stay in their place
            gap = max((i + 1 for i in range(done, start) if not lines[i].strip()), default=done)
            spans += [(done, gap, None), (gap, end, node)]
        else:
            spans.append((done, end, node))
        done = max(done, end)
    spans.append((done, len(lines), None))

    chunks: list[_Chunk] = []
    previous = -1
    for first, last, statement in spans:
        while first < last and not lines[first].strip():
            first += 1
        text = "\n".join(
            line for i, line in enumerate(lines[first:last], start=first) if i not in litter
        ).rstrip()
        if text:
            text = text if statement else textwrap.dedent(text)
            chunks.append(_Chunk(text, where, statement, close=first == previous))
        previous = -1 if isinstance(statement, ast.Import | ast.ImportFrom) else last
    return chunks


def _parse(source: str, where: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        line = (error.text or "").strip()
        if line.startswith(("%", "!")) or line.endswith("?"):
            reason = "a notebook command cannot be exported, move it to a cell without `#| export`"
        else:
            reason = error.msg
        raise ExportError(f"{where}: {reason}: line {error.lineno}: {line}") from None


def _litter(source: str) -> set[int]:
    """The lines, from 0, that hold nothing but a course marker; strings that mention one are left alone."""
    return {
        token.start[0] - 1
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
        and token.string == token.line.strip()
        and _LITTER.match(token.string)
    }


# ---- chunks to a module


def _merge_classes(chunks: Sequence[_Chunk]) -> list[_Chunk]:
    """Append the body of every `class X(X):` to the first class X."""
    merged: list[_Chunk] = []
    classes: dict[str, _Chunk] = {}
    for chunk in chunks:
        node = chunk.node
        if not isinstance(node, ast.ClassDef):
            merged.append(chunk)
            continue
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        if node.name not in bases:
            classes[node.name] = chunk
            chunk.methods = {name: chunk.where for name in _methods(node)}
            merged.append(chunk)
            continue
        first = classes.get(node.name)
        if first is None:
            raise ExportError(f"{chunk.where}: no export cell above begins class {node.name}.")
        if len(node.bases) > 1 or node.keywords or node.decorator_list:
            raise ExportError(
                f"{chunk.where}: class {node.name}({node.name}) may have no other base, keyword or decorator."
            )
        for name in _methods(node):
            if name in first.methods:
                before = first.methods[name].rpartition(", ")[2]
                raise ExportError(
                    f"{chunk.where}: {node.name}.{name} is already written in {before}: keep one."
                )
            first.methods[name] = chunk.where
        first.text = (first.text + "\n\n" + _class_body(chunk.text, node)).rstrip()
    return merged


def _methods(node: ast.ClassDef) -> list[str]:
    """Undecorated methods; a decorated one may rightly come twice (property and setter, overload)."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [item.name for item in node.body if isinstance(item, kinds) and not item.decorator_list]


def _class_body(text: str, node: ast.ClassDef) -> str:
    """The text under `class X(X):`, indented by four, its docstring turned into a comment."""
    lines = text.splitlines()
    if all(isinstance(item, ast.Pass) for item in node.body):
        return ""
    header = next(i for i, line in enumerate(lines) if line.startswith("class "))
    tree = ast.parse(text)
    inner = next(item for item in tree.body if isinstance(item, ast.ClassDef))
    head = [line for line in lines[:header] if line.strip()]
    body = inner.body
    if body[0].lineno == inner.lineno:  # class X(X): pass
        rest = [lines[header][body[0].col_offset :], *lines[header + 1 :]]
        return textwrap.indent("\n".join(head + rest), "    ")
    start = header + 1
    while not lines[start - 1].split("#")[0].rstrip().endswith(":"):
        start += 1
    notes: list[str] = []
    if (doc := ast.get_docstring(node)) is not None:
        notes = [f"# {line}".rstrip() for line in doc.splitlines()] + [""]
        start = body[0].end_lineno or start
    rest_text = textwrap.dedent("\n".join(lines[start:])).strip("\n")
    return textwrap.indent("\n".join([*head, *notes, rest_text]), "    ")


def _public(chunks: Iterable[_Chunk]) -> list[str]:
    """Functions, classes and UPPER constants without a leading underscore, in the order of the file."""
    names: dict[str, None] = {}
    for chunk in chunks:
        for node in ast.parse(chunk.text).body:
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    found = [name]
                case ast.Assign(targets=targets):
                    found = [t.id for t in targets if isinstance(t, ast.Name) and _CONSTANT.match(t.id)]
                case ast.AnnAssign(target=ast.Name(id=name)) if _CONSTANT.match(name):
                    found = [name]
                case _:
                    found = []
            names |= dict.fromkeys(name for name in found if not name.startswith("_"))
    return list(names)


def _docstring(nb: NotebookNode, lesson: str) -> str:
    """The line of the first markdown cell that starts with `> `, and where the file comes from."""
    first = next((cell.source for cell in nb.cells if cell.cell_type == "markdown"), "")
    quoted: list[str] = []
    for line in first.splitlines():
        if line.startswith(">"):
            quoted.append(line[1:].strip())
        elif quoted:
            break
    summary = " ".join(quoted) or f"What lesson {lesson} builds."
    paragraphs = [summary]
    if len(summary) > LINE_LENGTH - 6 and ". " in summary:
        head, _, tail = summary.partition(". ")
        paragraphs = [head + ".", tail]
    paragraphs.append(f"Built by tito from lesson {lesson}: change the lesson, not this file.")
    text = "\n\n".join("\n".join(textwrap.wrap(p, LINE_LENGTH - 6)) for p in paragraphs)
    text = text.replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{text}\n"""\n'


def _refuse_undefined(text: str, chunks: Sequence[_Chunk], file: str) -> None:
    """A name that only an unexported cell defines would fail for everyone who imports the package."""
    found = json.loads(
        _ruff("check", "--exit-zero", "--select", "F821", "--output-format", "json", text=text)
    )
    if not found:
        return
    name = found[0]["message"].split("`")[1]
    word = re.compile(rf"\b{re.escape(name)}\b")
    where = next((chunk.where for chunk in chunks if word.search(chunk.text)), file)
    raise ExportError(
        f"{where}: `{name}` is used but no export cell defines or imports it: "
        "add the import, or start the cell that defines it with `#| export`."
    )


def _ruff(*arguments: str, text: str) -> str:
    command, *options = arguments
    settings = ["--isolated", "--line-length", str(LINE_LENGTH), "--target-version", "py311", "--no-cache"]
    done = subprocess.run(
        [needs.program("ruff"), command, *settings, *options, "--stdin-filename", "module.py", "-"],
        input=text, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if done.returncode:
        raise ExportError(
            f"ruff {command} failed: {done.stderr.strip().splitlines()[-1] if done.stderr else ''}"
        )
    return done.stdout
