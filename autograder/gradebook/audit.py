"""Audit an entry: its own train.py is run again in the sandbox, and what comes out is measured beside the
model that was handed in.

The script is started as `python train.py` in a private folder with its network.py and tinytorch/, and has to
write model.safetensors (of a language model tokenizer.json too) beside itself within the track's training
time. It can import NumPy, safetensors, threadpoolctl and tqdm, has no network, and reads the data through
TINYTORCH_DATA or `autograder.datasets`: the training and the public split, never the private one
(audit_view.py). The submitted model is not there. Where a track gives a model (speed, compression),
TINYTORCH_GIVEN is the folder that holds it.

Passed is an entry whose retrained model is not worse than the submitted one by more than the track's
tolerance, not larger, and whose training.json tells the truth about the time (rules.Audit). What an audit
cannot see is a small model hidden in the script itself: a person should read the scripts of the winners.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from autograder import sandbox, trusted
from autograder.data import audit_view, datasets
from autograder.errors import OlympicsError
from autograder.scoring import client, ledger, rounds, rules, scorer, scores, staging
from autograder.scratch import scratch_folder

SCHEMA = "torch-olympics/audit/1"
SCRIPT = staging.SCRIPT
PASSED, FAILED, NO_SCRIPT = "passed", "failed", f"not reproducible (no {SCRIPT})"
LEVELS = ("bubblewrap", "landlock")  # below, the script could read the submitted model
SCRIPT_BYTES = 200_000  # a longer one may hold a model; the course's longest has 7,000
LOG_BYTES = 2_000_000
_FILE_BYTES, _DISK_BYTES = 512 * rules.MB, 2_000 * rules.MB  # checkpoints beside the model
_LOOK_S = 0.5
# A bar every ten seconds is enough of a log; threads of OpenBLAS wait for a short time only, as in client.py.
_ENV = {"TQDM_MININTERVAL": "10", "OPENBLAS_THREAD_TIMEOUT": "19"}
_GIVEN_FILES = ("model.safetensors", "network.py", staging.TOKENIZER)
Progress = Callable[[float, str], None]


class AuditError(OlympicsError):
    """The audit cannot be made as asked; the message is one line and says what to do."""


@dataclass
class Audit:
    """What an audit found. Not measured is None; `to_dict` of it is plain JSON.

    submitted, retrained: the track's metric of the two models on the same private split. seconds: of the
    script, measured; declared_seconds: of training.json.
    """

    track: str
    dataset: str
    split: str
    metric: str
    outcome: str = FAILED
    reasons: list[str] = field(default_factory=list)
    submitted: float | None = None
    retrained: float | None = None
    tolerance: str = ""
    submitted_bytes: int | None = None
    retrained_bytes: int | None = None
    declared_seconds: float | None = None
    seconds: float | None = None
    limit_s: float = 0.0
    peak_memory: int | None = None
    load: float | None = None  # load average at the end of the script, its own threads included
    hashes: dict[str, str | None] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    level: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    log: str = ""  # where what the script printed is kept

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types only, with the schema's name."""
        return {"schema": SCHEMA, **asdict(self)}


def audit(
    entry: Path,
    track: str,
    dataset: str,
    log: Path,
    *,
    limit_s: float | None = None,
    level: str | None = None,
    secret: int | str = 0,
    budget_s: float = rounds.BUDGET_S,
    progress: Progress = lambda seconds, line: None,
) -> Audit:
    """Train a submission again by its own script and compare; `log` is where its output is kept.

    limit_s: seconds for the script; default: the track's training limit. progress: called while it runs, with
    the seconds so far and the last line it printed. Other work on the machine makes honest scripts late:
    audit on an idle one. secret, budget_s: as of scorer.Conditions, the same for both.
    Raises AuditError, ValueError, DataError, SandboxUnavailable; never for what is in the submission.
    """
    rule = rules.track(track)
    if not entry.is_dir() or entry.is_symlink():
        raise AuditError(f"{entry} is no folder: expected a submission, as `tito olympics submit` packs it")
    level = sandbox.choose(level)
    if level not in LEVELS:
        raise AuditError(
            f"an audit needs sandbox level {' or '.join(LEVELS)}: at level {level} the script could read the "
            "model that was handed in"
        )
    if limit_s is not None and not limit_s > 0:
        raise AuditError(f"a limit of {limit_s:g} s: expected a positive number of seconds")
    found = Audit(track, dataset, "private", rule.metric, level=level, machine=scorer.machine())
    found.date, found.rules, found.tolerance = ledger.now(), rules.fingerprint(rule), _tolerance(rule)
    found.limit_s = limit_s or rule.limits.training_s
    found.hashes = dict.fromkeys(("submission", "grader", "data", "script", "model", "retrained_model"))
    found.hashes.update(
        submission=ledger.digest(entry), grader=trusted.grader(), data=ledger.data(track, dataset, "private")
    )
    if not os.path.lexists(entry / SCRIPT):
        found.outcome = NO_SCRIPT
        found.reasons.append(f"there is no {SCRIPT} in the submission: nothing says how its model was made")
        return found
    with scratch_folder("audit") as name:
        try:
            _audit(found, rule, entry, name, log, (secret, budget_s), progress)
        except (_Fault, staging.Invalid) as error:
            found.reasons.append(str(error))
    found.outcome = FAILED if found.reasons else PASSED
    return found


def for_ledger(found: Audit, name: str) -> dict[str, Any]:
    """The audit as an entry of the ledger; name: whose submission it was."""
    figures = ("submitted", "retrained", "submitted_bytes", "retrained_bytes", "declared_seconds", "seconds")
    same = ("track", "dataset", "split", "outcome", "reasons", "rules", "level", "machine", "date", "limit_s")
    return {
        "kind": "audit", "name": name, **{key: getattr(found, key) for key in same}, **found.hashes,
        "figures": {key: getattr(found, key) for key in figures},
    }  # fmt: skip


class _Fault(Exception):
    """What the entry did wrong; the message is the reason."""


def _audit(
    found: Audit,
    rule: rules.Track,
    entry: Path,
    scratch: Path,
    log: Path,
    how: tuple[int | str, float],
    progress: Progress,
) -> None:
    staged = staging.stage(entry, scratch / "submission", rule)
    found.declared_seconds, found.submitted_bytes = staged.training_seconds, staged.size_bytes
    found.hashes["model"] = _sha256(staged.model)
    _plain_file(entry / SCRIPT, SCRIPT_BYTES, "a script that long may hold the model itself")
    found.hashes["script"] = _sha256(entry / SCRIPT)
    found.submitted = _score(found, entry, "submitted", how)  # before hours of training
    work = _workplace(entry, staged, scratch / "work")
    report = _train(found, rule, work, scratch, log, progress)
    found.seconds, found.peak_memory = round(report.seconds, 2), report.peak_memory
    retrained = _retrained(rule, entry, staged, work, scratch / "retrained")
    again = staging.stage(retrained, scratch / "again", rule)
    found.retrained_bytes, found.hashes["retrained_model"] = again.size_bytes, _sha256(again.model)
    found.retrained = _score(found, retrained, "retrained", how)
    found.reasons += compare(found, rule, staged.division)


def compare(found: Audit, rule: rules.Track, division: str = "open") -> list[str]:
    """A reason for each way in which the retrained model or the log is not what was handed in.

    In the closed division training.json may count the training of the given model too.
    """
    allowed, reasons = rule.audit, []
    assert found.submitted is not None and found.retrained is not None
    ramp = rule.ramps[found.dataset]["accuracy"]
    margin = allowed.tolerance * (found.submitted if allowed.relative else 1.0)
    loss = found.submitted - found.retrained
    loss = loss if ramp.reference[0] > ramp.floor else -loss
    if loss > margin + 1e-12:
        reasons.append(
            f"{rule.metric.replace('_', ' ')}: the script makes a model with {_show(ramp, found.retrained)}, "
            f"handed in was one with {_show(ramp, found.submitted)}: {found.tolerance} worse is allowed"
        )
    assert found.submitted_bytes is not None and found.retrained_bytes is not None
    if found.retrained_bytes > allowed.size_factor * found.submitted_bytes:
        reasons.append(
            f"size: the script makes a model of {found.retrained_bytes:,} bytes, handed in was one of "
            f"{found.submitted_bytes:,}: {100 * (allowed.size_factor - 1):.0f}% more is allowed"
        )
    assert found.seconds is not None
    if found.declared_seconds is None:  # the log claims nothing, and the script has kept the limit
        return reasons
    less, more = sorted((found.seconds, found.declared_seconds))
    over = more == found.declared_seconds
    if more > allowed.time_factor * less + allowed.time_slack_s and not (over and division == "closed"):
        reasons.append(
            f"time: training.json says {found.declared_seconds:,.0f} s, the script took "
            f"{found.seconds:,.0f} s: a factor of {allowed.time_factor:g} and "
            f"{allowed.time_slack_s:g} s are allowed" + ("" if over else _busy(found))
        )
    return reasons


def _busy(found: Audit) -> str:
    """A word on a machine that had other work, for a script that was slow."""
    cores = found.machine.get("cores", 0)
    if found.load is None or not cores or found.load < cores + 1.5:
        return ""
    return f"; the machine had a load of {found.load:.1f} on {cores} cores: audit again on an idle one"


def _show(ramp: rules.Ramp, figure: float) -> str:
    return f"{100 * figure:.2f}%" if ramp.unit in ("share", "kept") else scores.show(ramp.unit, figure)


def _tolerance(rule: rules.Track) -> str:
    return f"{100 * rule.audit.tolerance:g}" + ("%" if rule.audit.relative else " points")


def _score(found: Audit, folder: Path, which: str, how: tuple[int | str, float]) -> float:
    secret, budget_s = how
    conditions = scorer.Conditions(level=found.level, secret=secret, budget_s=budget_s)
    result = scorer.score(found.track, folder, found.dataset, found.split, conditions)
    if not result.valid:
        raise _Fault(f"the {which} model is INVALID: {'; '.join(result.reasons)}")
    return float(result.metrics[found.metric])


# ---- the run


def _workplace(entry: Path, staged: staging.Staged, work: Path) -> Path:
    """A clean copy of the code and the script, without a model or a tokenizer."""
    kept = shutil.ignore_patterns(staged.model.name, staging.TOKENIZER)
    shutil.copytree(staged.folder, work, ignore=kept)
    shutil.copyfile(entry / SCRIPT, work / SCRIPT)
    return work


def _train(
    found: Audit, rule: rules.Track, work: Path, scratch: Path, log: Path, progress: Progress
) -> sandbox.Report:
    """Run the script to its end. Raises _Fault where it did not end well."""
    data, lib, given = (scratch / name for name in ("data", "lib", "given"))
    write_data(rule, found.dataset, data)
    (lib / "autograder").mkdir(parents=True)
    (lib / "autograder" / "__init__.py").touch()
    shutil.copyfile(audit_view.__file__, lib / "autograder" / "datasets.py")
    env = {
        "TINYTORCH_DATA": str(data), "TINYTORCH_DATASET": found.dataset, **_ENV,
    }  # fmt: skip
    readable = [data]
    if rule.given:
        given.mkdir()
        for path in (staging.entry_folder(rule.given) / n for n in _GIVEN_FILES):
            if path.is_file():
                shutil.copyfile(path, given / path.name)
        env["TINYTORCH_GIVEN"] = str(given)
        readable.append(given)
    limits = sandbox.Limits(
        wall_s=found.limit_s,
        memory_bytes=rule.limits.memory_bytes,
        processes=rule.limits.processes,
        threads=rule.limits.threads,
        file_bytes=_FILE_BYTES,
        disk_bytes=_DISK_BYTES,
    )
    log.parent.mkdir(parents=True, exist_ok=True)
    found.log = str(log)
    started = time.monotonic()
    program = sandbox.Program(
        [sys.executable, "-B", "-u", SCRIPT], cwd=work, readable=readable, writable=[work], env=env,
        limits=limits, level=found.level, packages=(*client.PACKAGES, "tqdm"),
        importable=[lib / "autograder"],
    )  # fmt: skip
    with (
        log.open("wb") as kept,
        sandbox.start(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):
        assert process.stdout is not None
        printed = _Log(process.stdout, kept)
        while True:
            try:
                report = process.wait(_LOOK_S)
                break
            except TimeoutError:
                progress(time.monotonic() - started, printed.last)
        printed.join()
    progress(report.seconds, printed.last)
    found.seconds, found.peak_memory = round(report.seconds, 2), report.peak_memory
    found.load = round(os.getloadavg()[1 if report.seconds > 300 else 0], 2)
    if report.reason:
        late = _busy(found) if report.reason.startswith("time limit") else ""
        raise _Fault(f"{SCRIPT} was stopped: {report.reason}{late}")
    if report.returncode != 0:
        said = printed.last or "it printed nothing"
        raise _Fault(f"{SCRIPT} ended with exit code {report.returncode}: {said}")
    return report


class _Log(threading.Thread):
    """Drains what the script prints into a file, up to LOG_BYTES, and remembers the last line."""

    def __init__(self, stream: IO[bytes], kept: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.last = ""
        self._stream, self._kept, self._rest, self._size = stream, kept, b"", 0
        self.start()

    def run(self) -> None:
        while part := os.read(self._stream.fileno(), 65536):
            self._kept.write(part[: LOG_BYTES - self._size])
            self._kept.flush()
            self._size = min(LOG_BYTES, self._size + len(part))
            *lines, self._rest = (self._rest + part).split(b"\n")
            self._rest = self._rest[-4096:]
            said = [line for line in (*lines, self._rest) if line.strip()]
            if said:
                self.last = _one_line(said[-1])


def _one_line(raw: bytes) -> str:
    """Text of the other side, made harmless for a terminal and a record."""
    text = raw.rsplit(b"\r", 1)[-1].decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text).strip()[:300]


def write_data(rule: rules.Track, dataset: str, folder: Path) -> None:
    """The splits that a script may see, as files that audit_view.py reads. Raises DataError."""
    home = folder / audit_view.FOLDERS.get(dataset, dataset)
    home.mkdir(parents=True)
    if rule.text:
        for split in ("train", "validation", "public"):
            items = [asdict(dialogue) for dialogue in datasets.load_text(dataset, split).dialogues]
            (home / f"{split}.json").write_text(json.dumps(items), encoding="utf-8")
        return
    train, public = datasets.load(dataset, "train"), datasets.load(dataset, "public")
    for number, start in enumerate(range(0, len(train), datasets.BATCH_RECORDS), 1):
        rows = slice(start, start + datasets.BATCH_RECORDS)
        _write_records(home / f"data_batch_{number}.bin", train.images[rows], train.labels[rows])
    _write_records(home / audit_view.TEST, public.images, public.labels)
    (home / audit_view.CLASSES).write_text(json.dumps(train.classes), encoding="utf-8")


def _write_records(path: Path, images: Any, labels: Any) -> None:
    np.concatenate([labels[:, None], images.reshape(len(images), -1)], axis=1).tofile(path)


# ---- what it left


def _retrained(rule: rules.Track, entry: Path, staged: staging.Staged, work: Path, target: Path) -> Path:
    """A submission of the submitted code and log, and of the model that the script wrote."""
    shutil.copytree(staged.folder, target, ignore=shutil.ignore_patterns(staged.model.name))
    for name in ("training.json", SCRIPT):
        shutil.copyfile(entry / name, target / name)
    written = [name for name in staging.MODEL_NAMES if os.path.lexists(work / name)]
    if not written:
        raise _Fault(f"{SCRIPT} ended well but wrote no {staging.MODEL_NAMES[0]} beside itself")
    names = [written[0]]
    if rule.text and (not rule.one_tokenizer or os.path.lexists(work / staging.TOKENIZER)):
        names.append(staging.TOKENIZER)
    for name in names:
        if not os.path.lexists(work / name):
            raise _Fault(f"{SCRIPT} ended well but wrote no {name} beside itself")
        _plain_file(work / name, rule.limits.file_bytes, f"{SCRIPT} wrote more than the track allows")
        shutil.copyfile(work / name, target / name)
    return target


def _plain_file(path: Path, most: int, over: str) -> None:
    """Raise _Fault unless the path is a plain file of at most so many bytes; nothing runs any more."""
    state = path.lstat()
    if not stat.S_ISREG(state.st_mode):
        raise _Fault(f"{path.name} is not a plain file")
    if state.st_size > most:
        raise _Fault(f"{path.name} has {state.st_size:,} bytes, {most:,} are allowed: {over}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
