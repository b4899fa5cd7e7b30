"""What a model file says of itself, read as data: whether it reads pictures or tokens, how many and how far.

tinytorch.save writes the architecture as JSON into the file. Layers that take tokens are known by name; of a
class of one's own the code tells, which is read and not run. Nothing is guessed from what else lies in the
folder: a tokenizer.json may be that of another model.
"""

from __future__ import annotations

import ast
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder.scoring import rules, staging
from tito.errors import TitoError
from tito.package.names import NAMES
from tito.student import network

PICTURES, TOKENS = "pictures", "tokens"
TAKES_TOKENS = {"Embedding": "num_embeddings", "GPT": "vocab_size"}  # the name of their first argument
GPT_CONTEXT = (4, 512)  # its place among GPT's arguments, and its default
_BLOCKS = ("activations", "layers", "spatial", "attention", "transformers")  # what else networks are made of
_NO_BLOCKS = frozenset({"Module"})  # the class of every network
MOST_BYTES = 2_000 * rules.MB


@dataclass(frozen=True)
class Facts:
    """What a model file and its network say. reads: PICTURES or TOKENS; empty where neither says it.

    vocabulary and context of a language model, in tokens, where the file gives them. source: the Python file
    that its own classes are read from, where it has any.
    """

    reads: str
    vocabulary: int | None = None
    context: int | None = None
    own: tuple[str, ...] = ()
    source: Path | None = None


def facts(model: Path, code: Path | None = None) -> Facts:
    """Read a model file, and the code of its own classes: `code`, or what lies beside it.

    Raises TitoError for what is no file of tinytorch.save, a pickle above all.
    """
    parts = list(_parts(_architecture(model)))
    names = {part["class"] for part in parts}
    tree, source = _code(model, {name for name in names if name not in NAMES}, code)
    defined = network.classes(tree)
    own = tuple(sorted(names & defined.keys()))
    used = names | network.mentions(network.needed(tree, own))
    layers = {name for name in used - _NO_BLOCKS if NAMES.get(name) in _BLOCKS}
    if used & TAKES_TOKENS.keys():
        seen = any(NAMES[name] == "spatial" for name in layers)  # both: a table of places beside filters, say
        return Facts("" if seen else TOKENS, *_sizes(parts, defined), own=own, source=source)
    return Facts(PICTURES if layers else "", own=own, source=source)


def checked_bytes(model: Path) -> bytes:
    """A model file whole, as grading checks it before anything loads it. Raises TitoError."""
    if not model.exists():
        raise TitoError(f"no model file {model}: tinytorch.save writes one")
    if not model.is_file():
        raise TitoError(f"{model} is a folder, expected a model file, such as model.safetensors in it")
    if model.stat().st_size > MOST_BYTES:
        size = model.stat().st_size / rules.MB
        raise TitoError(f"{model} has {size:,.0f} MB: a track takes 50, and no model here is read over 2,000")
    try:
        content = model.read_bytes()
        staging.check_model(str(model), content)
    except staging.Invalid as error:
        raise TitoError(str(error)) from error
    except OSError as error:
        raise TitoError(f"{model} cannot be read: {error.strerror or error}") from error
    return content


def _architecture(model: Path) -> Any:
    """The description in the file's header."""
    content = checked_bytes(model)
    (length,) = struct.unpack("<Q", content[:8])
    try:
        note = json.loads(content[8 : 8 + length])["__metadata__"]["tinytorch"]
        return json.loads(note)["architecture"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TitoError(
            f"{model} holds weights but no architecture: write the whole model with tinytorch.save"
        ) from error


def _parts(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Every layer of a description, outer ones first."""
    if depth > 100:
        return
    if isinstance(value, dict):
        if isinstance(value.get("class"), str):
            yield value
        for inner in value.values():
            yield from _parts(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(inner, depth + 1)


def _code(model: Path, foreign: set[str], code: Path | None) -> tuple[ast.Module, Path | None]:
    """The file that defines the classes that are not tinytorch's: network.py beside the model, else a script.

    Raises TitoError where several scripts define them.
    """
    beside = model.resolve().parent
    own = beside / network.FILE if code is None else code.with_name(network.FILE)
    if own.is_file():
        return network.parse(own), own
    nothing = ast.Module(body=[], type_ignores=[])
    if not foreign:
        return nothing, None
    scripts = [code] if code is not None else sorted(beside.glob("*.py"))
    found = [path for path in scripts if path.is_file() and foreign & _class_names(path)]
    if len(found) > 1:
        places = " and ".join(path.name for path in found)
        raise TitoError(f"{model} needs {', '.join(sorted(foreign))}, which {places} define: keep it in one")
    return (network.parse(found[0]), found[0]) if found else (nothing, None)


def _class_names(path: Path) -> set[str]:
    """The classes of a file beside the model; a file that is no Python has none."""
    try:
        return set(network.classes(network.parse(path)))
    except TitoError:
        return set()


def _sizes(parts: list[dict[str, Any]], defined: dict[str, ast.ClassDef]) -> tuple[int | None, int | None]:
    """Vocabulary and context, of the first layer that takes tokens, a class that descends from one too."""
    for part in parts:
        kind = _ancestor(part["class"], defined)
        if kind in TAKES_TOKENS:
            place, default = GPT_CONTEXT
            context = _argument(part, "context", place, default) if kind == "GPT" else None
            return _argument(part, TAKES_TOKENS[kind], 0, None), context
    return None, None


def _ancestor(name: str, defined: dict[str, ast.ClassDef]) -> str:
    """The class itself, or the base whose arguments it takes as they are."""
    seen = set()
    while name in defined and name not in seen:
        seen.add(name)
        made = defined[name]
        if not made.bases or any(isinstance(n, ast.FunctionDef) and n.name == "__init__" for n in made.body):
            return name
        name = ast.unparse(made.bases[0]).rpartition(".")[2]
    return name


def _argument(part: dict[str, Any], name: str, place: int, default: int | None) -> int | None:
    args, kwargs = part.get("args"), part.get("kwargs")
    found = kwargs.get(name) if isinstance(kwargs, dict) else None
    if found is None and isinstance(args, list) and len(args) > place:
        found = args[place]
    if found is None:
        return default
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None
