"""Score a track submission: stage what counts, run it in the sandbox, measure, audit, and say why.

A submission is a folder: model.safetensors (or model.pt of the same format), network.py, training.json and
tinytorch/; of a language model tokenizer.json too. Whatever is in it, `score` returns a Result: a submission
that fails or breaks a rule is INVALID with reasons, never a silent zero. What it raises is the grader's own
business: an unknown track, a missing dataset, a sandbox level that is not to be had.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autograder import sandbox
from autograder.data import datasets, tokenizer
from autograder.scoring import client, language, quality, rounds, rules, scores, staging, tracks
from autograder.scratch import scratch_folder


@dataclass
class Result:
    """One graded or self-checked run. Not measured is None; `asdict` of it is plain JSON."""

    track: str
    dataset: str
    split: str
    official: bool
    division: str = "open"
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


@dataclass(frozen=True)
class Conditions:
    """Under which conditions an entry is measured.

    level: sandbox level; official scoring has to name one, and is refused where it is not to be had; a self
    check (official=False) takes the best there is. secret: seeds order and noise; keep it from students.
    reference: another submission's folder, timed in turn for ratio_to_reference; in compression its accuracy
    is the baseline, in place of the published one; in speed it always is, the course's entry where none is
    named. A self check runs that entry on the submission's tinytorch where the reference package is not here.
    budget_s: about how many seconds are timed.
    """

    level: str | None = None
    secret: int | str = 0
    official: bool = True
    reference: str | Path | None = None
    budget_s: float = rounds.BUDGET_S


USUAL = Conditions()


def score(
    track: str,
    submission_dir: str | Path,
    dataset: "str | datasets.Split | datasets.TextSplit",
    split: str = "private",
    conditions: Conditions = USUAL,
) -> Result:
    """Measure one submission on one split.

    Raises ValueError, datasets.DataError, sandbox.SandboxUnavailable; never for what is in the submission.
    """
    rule = rules.track(track)
    data = tracks.load(rule, dataset, split) if isinstance(dataset, str) else dataset
    if data.name not in rule.ramps:
        raise ValueError(
            f"{track} has no scores for {data.name!r}: expected {', '.join(rule.ramps) or 'a scorer'}"
        )
    if conditions.official and conditions.level is None:
        raise ValueError("official scoring names its sandbox level: bubblewrap, landlock or rlimits")
    result = _blank(rule, data, conditions)
    submission = Path(submission_dir)
    with scratch_folder("score") as scratch, contextlib.ExitStack() as stack:
        place = _reference_folder(submission, scratch, rule, conditions)
        other = None if place is None else _reference(place, scratch, rule, result.level, stack)
        if other is not None and rule.one_tokenizer:  # the given checkpoint is the entry's file
            rule = dataclasses.replace(rule, checkpoint=other.digest, checkpoint_parameters=other.parameters)
        try:
            staged = staging.stage(submission, scratch / "submission", rule)
            result.division = staged.division
            result.metrics.update(size_bytes=staged.size_bytes, training_seconds=staged.training_seconds)
            _check_tokenizer(rule, staged, other)
            _measure(result, rule, staged, data, other, conditions)
        except (
            staging.Invalid, client.SubmissionError, language.LanguageError, tokenizer.TokenizerError
        ) as error:  # fmt: skip
            result.reasons.append(str(error))
    return result


def _blank(rule: rules.Track, data: "datasets.Split | datasets.TextSplit", conditions: Conditions) -> Result:
    """A result in which nothing is measured yet. Raises sandbox.SandboxUnavailable."""
    level = sandbox.choose(conditions.level)
    result = Result(rule.name, data.name, data.split, conditions.official, level=level, machine=machine())
    result.date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    result.metrics = dict.fromkeys(
        ("accuracy", "accuracy_interval", rule.metric, rule.rate, "speed_interval", "ratio_to_reference",
         "size_bytes", "memory_bytes", "parameters", "training_seconds", "quality")
    )  # fmt: skip
    result.points = {name: 0.0 for name in rules.DIMENSIONS if name != "innovation"}
    result.scores = dict(result.points)
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
    staged: staging.Staged,
    data: "datasets.Split | datasets.TextSplit",
    reference: tracks.Reference | None,
    conditions: Conditions,
) -> None:
    """Fill the result in, in a worker of the entry's own."""
    rng = _rng(conditions.secret, data)
    code = quality.measure(staged.folder, level=result.level)
    result.metrics["quality"] = code.value
    vocabulary = staged.tokenizer.vocab_size if staged.tokenizer else 0

    @contextlib.contextmanager
    def fresh() -> Iterator[client.Worker]:
        with _worker(staged.folder, rule, result.level) as other:
            other.load(staged.model, vocabulary)
            yield other

    with _worker(staged.folder, rule, result.level) as worker:
        try:
            result.metrics["parameters"] = worker.load(staged.model, vocabulary)["parameters"]
            _check_parameters(rule, staged, result.metrics["parameters"])
            run = tracks.Run(
                rule, staged, worker, data, rng, reference, conditions.budget_s, result.metrics,
                result.samples, fresh=fresh,
            )  # fmt: skip
            tracks.MEASURES[rule.measure](run)
            worker.check_limits()
        finally:
            result.metrics["memory_bytes"] = worker.peak_memory() or None
            result.log = worker.log[:4000]
    _finish(result, rule, code, run.faults)


def _finish(result: Result, rule: rules.Track, code: quality.Quality, faults: list[str]) -> None:
    """Points for the figures that were measured, unless an audit found a fault."""
    if faults:
        result.reasons += faults
        return
    metrics = result.metrics
    names = {"accuracy": rule.metric, "speed": rule.rate, "size": "size_bytes"}
    figures = {name: float(metrics[key]) for name, key in names.items()}
    scored = scores.score(
        rule, result.dataset, figures, quality=code.value, quality_reasons=code.reasons,
        gates={name: float(metrics[name]) for name in rule.gates},
    )  # fmt: skip
    result.scores, result.points, result.total = scored.scores, scored.points, scored.total
    result.reasons += scored.reasons
    metrics["gate_passed"] = scored.gate_passed
    result.valid = True


def _check_parameters(rule: rules.Track, staged: staging.Staged, parameters: int) -> None:
    if staged.division == "closed" and parameters > rule.checkpoint_parameters > 0:
        raise staging.Invalid(
            f"the model has {parameters:,} parameters, the given checkpoint {rule.checkpoint_parameters:,}: "
            "in the closed division the network is derived from it"
        )


def _check_tokenizer(rule: rules.Track, staged: staging.Staged, reference: tracks.Reference | None) -> None:
    """Next-token accuracies compare for one tokenizer alone, and so do tokens a second."""
    if not rule.one_tokenizer or reference is None:
        return
    mine, theirs = (staging.read_json(one.folder / staging.TOKENIZER) for one in (staged, reference.staged))
    if mine != theirs:
        raise staging.Invalid(
            f"{staging.TOKENIZER} is not the course entry's: in this track all models have the same one"
        )


def _worker(folder: Path, rule: rules.Track, level: str) -> client.Worker:
    limits = sandbox.Limits(
        wall_s=rule.limits.wall_s,
        memory_bytes=rule.limits.memory_bytes,
        processes=rule.limits.processes,
        threads=rule.limits.threads,
    )
    return client.Worker(folder, folder, limits, level, answer_s=rule.limits.answer_s)


def _reference_folder(
    submission: Path, scratch: Path, rule: rules.Track, conditions: Conditions
) -> str | Path | None:
    """The reference entry that was named, else the course's own where the track needs one."""
    if conditions.reference is not None or not rule.one_tokenizer:
        return conditions.reference
    own = None if conditions.official else submission / "tinytorch"
    return staging.course_entry(rule.name, scratch / "entry", own)


def _reference(
    folder: str | Path, scratch: Path, rule: rules.Track, level: str, stack: contextlib.ExitStack
) -> tracks.Reference:
    """The reference entry behind a worker of its own. Raises ValueError where it does not run."""
    rule = dataclasses.replace(rule, checkpoint="")  # it may be the given file itself
    try:
        staged = staging.stage(Path(folder), scratch / "reference", rule)
        worker = stack.enter_context(_worker(staged.folder, rule, level))
        vocabulary = staged.tokenizer.vocab_size if staged.tokenizer else 0
        parameters = worker.load(staged.model, vocabulary)["parameters"]
    except (staging.Invalid, client.SubmissionError) as error:
        raise ValueError(f"the reference entry {folder} does not run: {error}") from None
    digest = hashlib.sha256(staged.model.read_bytes()).hexdigest()
    return tracks.Reference(worker, staged, parameters, digest)


def _rng(secret: int | str, data: "datasets.Split | datasets.TextSplit") -> np.random.Generator:
    digest = hashlib.sha256(f"{secret}/{data.name}/{data.split}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
