"""Score a track submission: stage what counts, run it in the sandbox, measure, audit, and say why.

A submission is a folder: model.safetensors (or model.pt of the same format), network.py, training.json and
tinytorch/. Whatever is in it, `score` returns a Result: a submission that fails or breaks a rule is INVALID
with reasons, never a silent zero. What it raises is the grader's own business: an unknown track, a missing
dataset, a sandbox level that is not to be had.
"""

import contextlib
import datetime
import hashlib
import json
import math
import os
import platform
import stat
import struct
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autograder import client, datasets, measure, quality, rules, sandbox, scores

MODEL_NAMES = ("model.safetensors", "model.pt")
_MOST_FILES = 2000
_MOST_JSON = 10 * rules.MB
_MOST_HEADER = 10 * rules.MB


@dataclass
class Result:
    """One graded or self-checked run. Not measured is None; `asdict` of it is plain JSON."""

    track: str
    dataset: str
    split: str
    official: bool
    valid: bool = False
    reasons: list[str] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    points: dict[str, float] = field(default_factory=dict)
    total: float = 0.0  # of 90: innovation is marked by hand
    level: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)
    log: str = ""  # what the submission printed, cut

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types only."""
        return asdict(self)


class _Invalid(Exception):
    """A broken rule; the message is the reason."""


@dataclass(frozen=True)
class _Staged:
    folder: Path
    model: Path
    size_bytes: int
    training_seconds: float


def score(
    track: str,
    submission_dir: str | Path,
    dataset: "str | datasets.Split",
    split: str = "private",
    *,
    level: str | None = None,
    secret: int | str = 0,
    official: bool = True,
    reference: str | Path | None = None,
    budget_s: float = measure.BUDGET_S,
) -> Result:
    """Measure one submission on one split.

    level: sandbox level; official scoring has to name one, and is refused where it is not to be had; a self
    check (official=False) takes the best there is. secret: seeds order and noise; keep it from students.
    reference: another submission's folder, timed in turn for ratio_to_reference.
    Raises ValueError, datasets.DataError, sandbox.SandboxUnavailable; never for what is in the submission.
    """
    rule = rules.track(track)
    data = dataset if isinstance(dataset, datasets.Split) else datasets.load(dataset, split)
    if data.name not in rule.ramps:
        raise ValueError(
            f"{track} has no scores for {data.name!r}: expected {', '.join(rule.ramps) or 'a scorer'}"
        )
    if official and level is None:
        raise ValueError("official scoring names its sandbox level: bubblewrap, landlock or rlimits")
    level = sandbox.require(level or sandbox.best_level())
    result = Result(track, data.name, data.split, official, level=level, machine=machine())
    result.date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    result.metrics = dict.fromkeys(
        ("accuracy", "accuracy_interval", "images_per_second", "speed_interval", "ratio_to_reference",
         "size_bytes", "memory_bytes", "parameters", "training_seconds", "quality")
    )  # fmt: skip
    result.points = {name: 0.0 for name in rules.DIMENSIONS if name != "innovation"}
    result.scores = dict(result.points)
    with tempfile.TemporaryDirectory(prefix="olympics-") as scratch, contextlib.ExitStack() as stack:
        try:
            staged = _stage(Path(submission_dir), Path(scratch) / "submission", rule.limits)
            result.metrics.update(size_bytes=staged.size_bytes, training_seconds=staged.training_seconds)
            other = None if reference is None else _reference(reference, Path(scratch), rule, level, stack)
            _measure(result, rule, staged, data, _rng(secret, data), other, budget_s)
        except (_Invalid, client.SubmissionError) as error:
            result.reasons.append(str(error))
    return result


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _measure(
    result: Result,
    rule: rules.Track,
    staged: _Staged,
    data: "datasets.Split",
    rng: np.random.Generator,
    reference: measure.Predict | None,
    budget_s: float,
) -> None:
    code = quality.measure(staged.folder, level=result.level)
    result.metrics["quality"] = code.value
    with _worker(staged.folder, rule, result.level) as worker:
        try:
            result.metrics["parameters"] = worker.load(staged.model)["parameters"]
            found = measure.accuracy(worker.predict, data.images, data.labels, rng, rule.batch)
            result.metrics.update(accuracy=found.value, accuracy_interval=list(found.interval))
            speed = measure.throughput(
                worker.predict, data.images, data.labels, found, rng, rule.batch,
                reference=reference, budget_s=budget_s,
            )  # fmt: skip
        finally:
            result.metrics["memory_bytes"] = worker.peak_memory() or None
            result.log = worker.log[:4000]
    result.metrics.update(
        images_per_second=speed.images_per_second,
        speed_interval=list(speed.interval),
        ratio_to_reference=speed.ratio_to_reference,
    )
    result.samples = {
        "images_per_second": speed.samples,
        "known_images_per_second": speed.known,
        "reference_images_per_second": speed.reference,
    }
    if speed.faults:
        result.reasons += speed.faults
        return
    scored = scores.score(
        rule,
        data.name,
        accuracy=found.value,
        images_per_second=speed.images_per_second,
        size_bytes=staged.size_bytes,
        quality=code.value,
        quality_reasons=code.reasons,
    )
    result.scores, result.points, result.total = scored.scores, scored.points, scored.total
    result.reasons += scored.reasons
    result.valid = True


def _worker(folder: Path, rule: rules.Track, level: str) -> client.Worker:
    limits = sandbox.Limits(
        wall_s=rule.limits.wall_s,
        memory_bytes=rule.limits.memory_bytes,
        processes=rule.limits.processes,
        threads=rule.limits.threads,
    )
    return client.Worker(folder, folder, limits, level, answer_s=rule.limits.answer_s)


def _reference(
    folder: str | Path, scratch: Path, rule: rules.Track, level: str, stack: contextlib.ExitStack
) -> measure.Predict:
    """The reference entry behind a worker of its own; its faults are ours, not the submission's."""
    try:
        staged = _stage(Path(folder), scratch / "reference", rule.limits)
        worker = stack.enter_context(_worker(staged.folder, rule, level))
        worker.load(staged.model)
    except (_Invalid, client.SubmissionError) as error:
        raise ValueError(f"the reference entry {folder} does not run: {error}") from None

    def predict(images: Any) -> Any:
        try:
            return worker.predict(images)
        except client.SubmissionError as error:
            raise RuntimeError(f"the reference entry {folder} failed: {error}") from None

    return predict


def _rng(secret: int | str, data: "datasets.Split") -> np.random.Generator:
    digest = hashlib.sha256(f"{secret}/{data.name}/{data.split}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _stage(source: Path, target: Path, limits: rules.Limits) -> _Staged:
    """Copy what may run into a clean folder: the model, network.py and the Python files of tinytorch/.

    The worker sees nothing else, so that all it could use has been counted.
    """
    _refuse_links(source)
    models = [name for name in MODEL_NAMES if os.path.lexists(source / name)]
    if not models:
        raise _Invalid(f"there is no model file: expected {MODEL_NAMES[0]}, written by tinytorch.save")
    if len(models) > 1:
        raise _Invalid(f"there are two model files, {' and '.join(models)}: keep one")
    if not (source / "tinytorch").is_dir():
        raise _Invalid("the folder tinytorch/ is missing: run `tito olympics submit` to pack it")
    target.mkdir()
    model = target / models[0]
    content = _content(
        source / models[0], limits.file_bytes, f"the limit is {limits.file_bytes / rules.MB:g} MB"
    )
    _check_model(models[0], content)
    model.write_bytes(content)
    code = 0
    packed = [path for path in sorted((source / "tinytorch").rglob("*.py")) if path.is_file()]
    own = [source / "network.py"] if os.path.lexists(source / "network.py") else []
    for path in (*own, *packed):
        text = _content(path, limits.code_bytes - code, "there is too much code in the submission")
        code += len(text)
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(text)
    size = len(content) + max(0, code - rules.CODE_BYTES)
    if size > limits.file_bytes:
        raise _Invalid(
            f"model and surplus code have {size / rules.MB:.1f} MB: {limits.file_bytes / rules.MB:g} allowed"
        )
    return _Staged(target, model, size, _training_seconds(source / "training.json", limits))


def _refuse_links(source: Path) -> None:
    if source.is_symlink() or not source.is_dir():
        raise _Invalid("the submission is not a folder")
    seen = 0
    for folder, folders, files in os.walk(source):
        for name in (*folders, *files):
            seen += 1
            path = Path(folder) / name
            shown = repr(str(path.relative_to(source)))
            if path.is_symlink():
                raise _Invalid(f"{shown} is a symbolic link: a submission holds its own files only")
            if not stat.S_ISREG(path.lstat().st_mode) and not stat.S_ISDIR(path.lstat().st_mode):
                raise _Invalid(f"{shown} is not a plain file")
        if seen > _MOST_FILES:
            raise _Invalid(f"the submission holds more than {_MOST_FILES} files")


def _content(path: Path, most: int, over: str) -> bytes:
    """A plain file's bytes, at most `most`; raises _Invalid for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _Invalid(f"{path.name} cannot be read ({error.strerror})") from None
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _Invalid(f"{path.name} is not a plain file")
        size = os.fstat(fd).st_size
        if size > most:
            raise _Invalid(f"{path.name} has {size / rules.MB:.1f} MB: {over}")
        return file.read(most + 1)[:most]


def _check_model(name: str, content: bytes) -> None:
    """A safetensors file and nothing else; the format is checked here, on bytes, before anything loads it.

    Source: the format section of the safetensors README (length, JSON header, data without gaps).
    """
    if content[:2] == b"PK" or (content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05"
                                and content[8:9] != b"{"):  # fmt: skip
        raise _Invalid(f"{name} is a pickle, which could run any code: write it with tinytorch.save")
    wrong = f"{name} is not a safetensors file"
    if len(content) < 10:
        raise _Invalid(f"{wrong} (only {len(content)} bytes)")
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(_MOST_HEADER, len(content) - 8):
        raise _Invalid(f"{wrong} (its header would be longer than the file, or than 10 MB)")
    try:
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        spans = sorted(tuple(map(int, tensor["data_offsets"])) for tensor in header.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _Invalid(f"{wrong} (its header is not the expected JSON)") from None
    end = 0
    for span in spans:
        if len(span) != 2 or span[0] != end or span[1] < span[0]:
            raise _Invalid(f"{wrong} (its arrays overlap or leave gaps)")
        end = span[1]
    if end != len(content) - 8 - length:
        raise _Invalid(f"{wrong} ({len(content) - 8 - length} bytes of data, {end} described)")


def _training_seconds(path: Path, limits: rules.Limits) -> float:
    if not os.path.lexists(path):
        raise _Invalid("training.json is missing: the notebook writes it when training ends")
    try:
        seconds = json.loads(_content(path, _MOST_JSON, "a training log is smaller"))["seconds"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _Invalid('training.json is not the notebook\'s log: expected {"seconds": ..., ...}') from None
    if (
        not isinstance(seconds, int | float)
        or isinstance(seconds, bool)
        or not math.isfinite(seconds)
        or seconds < 0
    ):
        raise _Invalid(f"training.json gives {str(seconds)[:40]!r} as seconds: expected a number")
    if seconds > limits.training_s:
        raise _Invalid(f"training took {seconds / 3600:.1f} h: the limit is {limits.training_s / 3600:g} h")
    return float(seconds)
