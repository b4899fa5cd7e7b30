"""The ledger of results: grading/ledger.jsonl in the course, one line of JSON a grading, audit or re-timing.

Lines are only ever appended, each with the SHA-256 of the line before it, so that a line edited, dropped or
put elsewhere breaks the chain after it; ledger.head holds the length and the hash of the last line, so that
the end cannot be cut off either. Who can write both files can forge both: keep a copy of ledger.head where
the class cannot write, and compare.

A line says what was measured (`submission`, a hash of the folder), by what (`grader`, a hash of this
package's code; `rules`, a hash for each part of the track's rules), on what (`data`, a hash of the split) and
where (`machine`).
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autograder import trusted
from autograder.data import datasets
from autograder.errors import OlympicsError
from autograder.hashes import digest as digest
from autograder.scoring import rules, tracks

try:
    import fcntl
except ImportError:  # Windows has no flock, and no sandbox either: nothing is graded there
    fcntl = None  # type: ignore[assignment]

SCHEMA = "torch-olympics/ledger/1"
LEDGER, HEAD = "ledger.jsonl", "ledger.head"
START = "0" * 64  # what the first line names as the hash of the line before
KINDS = ("grading", "audit", "retiming")
_MEND = "keep {0} and ledger.head as evidence, find out who changed them, and restore a copy"


class LedgerError(OlympicsError):
    """The ledger cannot be trusted or not be written; the message is one line and says what to do."""


def append(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """Write one result at the end of the ledger in `folder` (the course's grading/) and return its line.

    It is on the disk when this returns. Several graders may write at once: each waits for its turn. Raises
    LedgerError where the chain is broken (nothing is built on that), where `entry` is no result, or where
    the folder cannot be written.
    """
    if entry.get("kind") not in KINDS:
        raise LedgerError(f"a ledger line of kind {entry.get('kind')!r}: expected {', '.join(KINDS)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder) as fd:
            found = _Chain(folder)
            if found.fault:
                raise LedgerError(found.fault)
            if found.torn:  # a run was killed while it wrote: that line was never confirmed
                os.ftruncate(fd, found.size)
            line = {"schema": SCHEMA, "line": len(found.lines) + 1, "before": found.last, **entry}
            raw = json.dumps(line, sort_keys=True, allow_nan=False).encode()
            _write(fd, raw + b"\n")
            _write_head(folder, line["line"], hashlib.sha256(raw).hexdigest())
    except OSError as error:
        raise LedgerError(f"{folder / LEDGER} cannot be written: {error.strerror or error}") from None
    except ValueError as error:  # NaN, or what JSON has no form for
        raise LedgerError(f"a ledger line is plain JSON of finite numbers: {error}") from None
    return line


def verify(path: Path) -> str:
    """Where the chain is broken, in one line; "" where it is whole, or where there is no ledger yet.

    path: the ledger, or the folder it lies in.
    """
    return _look(_folder(path)).fault


def read(path: Path) -> list[dict[str, Any]]:
    """All lines, oldest first; [] where there is no ledger. Raises LedgerError where the chain is broken."""
    found = _look(_folder(path))
    if found.fault:
        raise LedgerError(found.fault)
    return found.lines


def result(kind: str, name: str, submission: str, scored: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The entry of a scorer's Result (its dictionary), ready for `append`.

    name: the student, or whose entry it is. submission: `digest` of its folder. Raises DataError where the
    split that it was measured on is not on this machine.
    """
    rule = rules.track(scored["track"])
    return {
        "kind": kind, "name": name, "track": rule.name, "submission": submission, "grader": trusted.grader(),
        "rules": rules.fingerprint(rule), "dataset": scored["dataset"], "split": scored["split"],
        "data": data(rule.name, scored["dataset"], scored["split"]), "official": scored["official"],
        "valid": scored["valid"], "reasons": scored["reasons"], "figures": _finite(scored["metrics"]),
        "points": scored["points"], "level": scored["level"], "machine": scored["machine"],
        "date": scored["date"], **more,
    }  # fmt: skip


def grading(student: str, submission: str, scored: dict[str, Any]) -> dict[str, Any]:
    """The entry of a track submission that was judged: its `digest` and its Result's dictionary."""
    return result("grading", student, submission, scored)


def note(folder: Path, student: str, submission: Path, scored: dict[str, Any]) -> None:
    """Append a judged track submission, once. Raises LedgerError, DataError."""
    same = ("grading", student, scored["track"], _finite(scored["date"]), _finite(scored["metrics"]))
    for line in read(folder):
        if (line["kind"], line["name"], line["track"], line["date"], line["figures"]) == same:
            return
    append(folder, grading(student, digest(submission), scored))


def graded(lines: list[dict[str, Any]], student: str, scored: dict[str, Any]) -> dict[str, Any] | None:
    """The line of a recorded judgement; None where it was graded before there was a ledger.

    Raises LedgerError where the record does not say what the ledger says.
    """
    theirs = ("grading", student, scored["track"])
    own = [e for e in lines if (e.get("kind"), e.get("name"), e.get("track")) == theirs]
    for line in reversed(own):
        if all(line[key] == _finite(scored[name]) for key, name in _SAME.items()):
            return line
    if own:
        raise LedgerError(
            f"the recorded {scored['track']} result of {student} is in no line of {LEDGER}, the last one of "
            f"theirs is line {own[-1]['line']}: `tito grade {scored['track']} --students {student} --force`"
        )
    return None


_SAME = {
    "figures": "metrics", "points": "points", "valid": "valid", "dataset": "dataset", "split": "split",
    "date": "date", "official": "official",
}  # fmt: skip


def _finite(value: Any) -> Any:
    """Without infinity and NaN, which JSON has no form for."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def audited(lines: list[dict[str, Any]], track: str, submission: str) -> bool:
    """Whether the last audit of exactly these files was passed."""
    wanted = ("audit", track, submission)
    audits = [e for e in lines if (e.get("kind"), e.get("track"), e.get("submission")) == wanted]
    return bool(audits) and audits[-1].get("outcome") == "passed"


# ---- hashes


def data(track: str, dataset: str, split: str) -> str:
    """SHA-256 of the split a track is measured on: pictures and labels, or its text. Raises DataError."""
    found = tracks.load(rules.track(track), dataset, split)
    if isinstance(found, datasets.TextSplit):
        return hashlib.sha256(found.text.encode()).hexdigest()
    total = hashlib.sha256(repr((found.images.shape, str(found.images.dtype))).encode())
    total.update(found.images.tobytes())
    total.update(found.labels.tobytes())
    return total.hexdigest()


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


# ---- the file


class _Chain:
    """The ledger as it lies on the disk: its lines, and the first fault, in one line.

    size: bytes of the whole lines. torn: bytes behind them that a killed run left, never confirmed.
    """

    def __init__(self, folder: Path) -> None:
        self.lines: list[dict[str, Any]] = []
        self.last, self.size, self.torn, self.fault = START, 0, False, ""
        path, head = folder / LEDGER, folder / HEAD
        try:
            raw = path.read_bytes() if path.exists() else b""
            wanted, digest = 0, START
            if head.exists():
                confirmed = json.loads(head.read_bytes())
                wanted, digest = int(confirmed["lines"]), str(confirmed["hash"])
        except OSError as error:
            self.fault = f"{error.filename} cannot be read: {error.strerror}"
            return
        except (ValueError, KeyError, TypeError):
            self.fault = f"{head} is not a head of a ledger: {_MEND.format(path.name)}"
            return
        hashes = [START]
        for line in raw.split(b"\n")[:-1]:
            if self._is_broken(path, line):
                return
            self.last = hashlib.sha256(line).hexdigest()
            self.size += len(line) + 1
            hashes.append(self.last)
        self.torn = self.size < len(raw)
        # one more than confirmed: a run was killed between the line and the head
        if not wanted <= len(self.lines) <= wanted + 1 or hashes[wanted] != digest:
            self.fault = (
                f"{path} has {len(self.lines)} whole lines, {HEAD} speaks of {wanted}"
                + (" with another last line" if wanted < len(hashes) and hashes[wanted] != digest else "")
                + f": lines were dropped, added or changed; {_MEND.format(path.name)}"
            )

    def _is_broken(self, path: Path, raw: bytes) -> bool:
        number = len(self.lines) + 1
        try:
            line = json.loads(raw)
            before, written = line["before"], line["line"]
        except (ValueError, KeyError, TypeError):
            before, written, line = "", 0, {}
        if (before, written) == (self.last, number):
            self.lines.append(line)
            return False
        where = "is no result" if not line else "does not follow the line before it"
        self.fault = (
            f"{path} is broken at line {number}, which {where}: it or the line before was changed, or one "
            f"was dropped; {_MEND.format(path.name)}"
        )
        return True


def _look(folder: Path) -> _Chain:
    """The chain while nobody writes to it."""
    if fcntl is None or not (folder / LEDGER).is_file():
        return _Chain(folder)
    with (folder / LEDGER).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        return _Chain(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """The ledger, open for appending, with nobody else at it."""
    fd = os.open(folder / LEDGER, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)  # and with it the lock


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
    os.fsync(fd)


def _write_head(folder: Path, lines: int, last: str) -> None:
    part = folder / f".{HEAD}.part"  # under the ledger's lock: there is one writer
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write(fd, json.dumps({"lines": lines, "hash": last}).encode() + b"\n")
    finally:
        os.close(fd)
    os.replace(part, folder / HEAD)
    directory = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _folder(path: Path) -> Path:
    return path if path.is_dir() or path.suffix != ".jsonl" else path.parent
