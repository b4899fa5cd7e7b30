"""Hashes that name what was graded, by what and with what."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

DEEPEST = 40  # folders in one another that count as a submission


def text_hash(*texts: str) -> str:
    """SHA-256 of some texts together."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def file_hash(folder: Path, names: Iterable[str]) -> str:
    """Hash of the names and contents of these files of a folder."""
    total = hashlib.sha256()
    for name in names:
        with open(folder / name, "rb") as file:
            total.update(f"{name}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def digest(*folders: Path) -> str:
    """Hash of the names and contents of the folders' files; links are named, never followed."""
    total = hashlib.sha256()
    for folder in folders:
        for name, entry in sorted(_entries(folder), key=lambda pair: pair[0]):
            if "__pycache__" in name or entry.name == "timestamp.txt":
                continue
            total.update(f"{name}\0".encode("utf-8", "surrogateescape"))
            if entry.is_symlink():
                total.update(b"link")
            elif entry.is_file(follow_symlinks=False):
                with open(entry.path, "rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _entries(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What lies in a folder, down to a depth that no honest submission has, with its path in it."""
    waiting = [(str(folder), "", 0)] if folder.is_dir() else []
    while waiting:
        path, prefix, depth = waiting.pop()
        with os.scandir(path) as found:
            for entry in found:
                yield prefix + entry.name, entry
                if entry.is_dir(follow_symlinks=False) and depth < DEEPEST:
                    waiting.append((entry.path, f"{prefix}{entry.name}/", depth + 1))
