"""Writing a file whole or not at all: a draft beside it takes its place in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file, so that a reader never sees half of it; an equal file is left untouched.

    Raises OSError where it cannot be written: then the file is as it was.
    """
    if path.is_file() and path.read_bytes() == content:
        return
    with draft(path) as part:
        part.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """The same for text, in UTF-8."""
    write_bytes(path, text.encode())


def copy(source: Path, target: Path) -> None:
    """Replace `target` by a copy of `source`. Raises OSError."""
    with draft(target) as part:
        shutil.copyfile(source, part)


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when all went well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
