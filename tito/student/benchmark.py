"""`tito benchmark accuracy|speed|size|memory`: the trusted harness on a model file of your own.

The figures are those that the grader would measure on the same split: the model runs in the sandboxed worker,
labels and clock stay outside.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from autograder import sandbox
from autograder.data import datasets, tokenizer
from autograder.errors import Missing
from autograder.scoring import language, measure, rounds, rules, scorer, scores, staging, tokens, tracks
from autograder.scoring.client import Worker
from autograder.scratch import scratch_folder
from tito import progress
from tito.errors import TitoError
from tito.student import model_file, network, project, workspace
from tito.student.places import home

NOISE = 1000  # made-up pictures: two rounds of the speed benchmark
Data = datasets.Split | datasets.TextSplit

app = typer.Typer(no_args_is_help=True, help="Measure a model file: accuracy, speed, size, memory.")

Model = Annotated[Path, typer.Option("--model", help="The model file; network.py is read from beside it.")]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset", help="cifar10, digits or tinytalks; default: what the model reads, cifar10 or tinytalks."
    ),
]
Made = Annotated[
    str | None,
    typer.Option("--dataset", help="cifar10, digits or tinytalks; default: none, the input is made up."),
]
Part = Annotated[str | None, typer.Option("--split", help="test (the default), public, private or train")]
Package = Annotated[Path | None, typer.Option("--tinytorch", help="The folder that contains tinytorch/.")]
Level = Annotated[str | None, typer.Option("--level", help=sandbox.HELP)]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]


# ---- commands


@app.command()
def accuracy(
    model: Model, dataset: Dataset = None, split: Part = None,
    tinytorch: Package = None, level: Level = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Top-1 accuracy with its 95% interval; of a language model bits per byte and next-token accuracy."""
    known = look(model, dataset)
    if known.reads == model_file.TOKENS:
        texts = _texts(dataset, split)
        with _waiting(model, as_json), ready_text(model, known, texts, tinytorch, level) as words:
            reading = words.reading()
        _print(as_json, *reading)
        return
    data = _pictures(dataset, split)
    with _waiting(model, as_json), ready(model, known, data, tinytorch, level) as run:
        found = run.accuracy()
    low, high = found.interval
    _print(
        as_json,
        {**run.about, "accuracy": found.value, "accuracy_interval": [low, high], "correct": found.correct},
        f"accuracy {100 * found.value:.2f}% (95% interval {100 * low:.1f} to {100 * high:.1f}): "
        f"{found.correct:,} of {found.n:,} right",
    )


@app.command()
def speed(
    model: Model, dataset: Made = None, split: Part = None,
    tinytorch: Package = None, level: Level = None, as_json: Json = False,
    seconds: Annotated[float, typer.Option(help="About how long to measure.")] = rounds.BUDGET_S,
    input_length: Annotated[
        int | None, typer.Option(help="Of a language model: tokens of a text, prompt and new ones together.")
    ] = None,
) -> None:  # fmt: skip
    """Pictures or tokens per second: the median of several rounds with its 95% interval, and the audits."""
    known = look(model, dataset)
    if known.reads == model_file.TOKENS:
        length = _input_length(known, input_length)
        texts = _texts(dataset, split) if dataset or split or _tokenizer(model) else None
        with _waiting(model, as_json), ready_text(model, known, texts, tinytorch, level) as words:
            reading = words.speed(seconds, length)
        _print(as_json, *reading)
        return
    if input_length is not None:
        raise TitoError(f"--input-length is for language models: {model} reads pictures")
    data = _pictures(dataset, split) if dataset or split else noise()
    with _waiting(model, as_json), ready(model, known, data, tinytorch, level) as run:
        found = run.speed(run.accuracy(), seconds)
    low, high = found.interval
    extra = {
        "images_per_second": found.images_per_second,
        "speed_interval": [low, high],
        "samples": found.samples,
    }
    _print(
        as_json,
        {**run.about, **extra, "batch": run.batch, "audit": found.faults},
        f"{found.images_per_second:,.0f} images/s (95% interval {low:,.0f} to {high:,.0f}, "
        f"{len(found.samples)} rounds, batch {run.batch})" + _faults(found.faults),
    )


@app.command()
def size(model: Model, tinytorch: Package = None, as_json: Json = False) -> None:
    """Bytes that count as the model: the file, a language model's tokenizer, and code over 400 KB."""
    track = _track_around(model)
    limits = {name: rules.TRACKS[name].limits.file_bytes for name in ([track] if track else rules.TRACKS)}
    with staged(model, model_file.facts(model), tinytorch) as (folder, copy):
        counted = counted_bytes(folder, copy)
    said = [f"{_and(names)} is {most / rules.MB:g} MB" for most, names in _by_limit(limits).items()]
    text = f"{scores.show('bytes', counted)} ({counted:,} bytes; the limit of {', of '.join(said)})"
    _print(as_json, {"model": str(model), "size_bytes": counted, "limit_bytes": limits}, text)


def _track_around(model: Path) -> str:
    """The track of the project, or of the track's folder, that a model lies in; "" where it is in none."""
    for start in (model.resolve().parent, Path.cwd().resolve()):
        if (own := project.find(start)) is not None:
            return own.track
        for folder in (start, *start.parents):
            if folder.name in rules.TRACKS and workspace.is_workspace(folder.parent):
                return folder.name
    return ""


def _by_limit(limits: Mapping[str, int]) -> dict[int, list[str]]:
    return {most: [name for name in limits if limits[name] == most] for most in limits.values()}


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


@app.command()
def memory(
    model: Model, dataset: Made = None, split: Part = None,
    tinytorch: Package = None, level: Level = None, as_json: Json = False,
) -> None:  # fmt: skip
    """The most memory that the worker used while it classified pictures, or read and wrote text."""
    known = look(model, dataset)
    if known.reads == model_file.TOKENS:
        texts = _texts(dataset, split) if dataset or split else None
        with _waiting(model, as_json), ready_text(model, known, texts, tinytorch, level) as words:
            if texts is None:
                words.writing()
            else:
                words.reading()
            most = words.worker.peak_memory()
        _print(as_json, {**words.about, "memory_bytes": most}, f"{most / rules.MB:,.0f} MB at most")
        return
    data = _pictures(dataset, split) if dataset or split else noise()
    with _waiting(model, as_json), ready(model, known, data, tinytorch, level) as run:
        run.accuracy()
        peak = run.worker.peak_memory()
    _print(as_json, {**run.about, "memory_bytes": peak}, f"{peak / rules.MB:,.0f} MB at most")


# ---- what a model reads, and what it is given


def look(model: Path, dataset: str | None = None) -> model_file.Facts:
    """What the model file says of itself; where it is silent, `dataset` says what the model reads.

    Raises TitoError for a data set of the other kind, and where nothing says what the model reads.
    """
    known = model_file.facts(model)
    named = dataset and (model_file.TOKENS if dataset in datasets.TEXT_NAMES else model_file.PICTURES)
    if dataset and dataset not in (*datasets.NAMES, *datasets.TEXT_NAMES):
        expected = ", ".join((*datasets.NAMES, *datasets.TEXT_NAMES))
        raise TitoError(f"--dataset {dataset}: no data set of that name, expected one of {expected}")
    if not (known.reads or named):
        raise TitoError(
            f"{model} and {network.FILE} beside it do not say whether it reads pictures or tokens: "
            "name a --dataset, cifar10, digits or tinytalks"
        )
    if known.reads and named and known.reads != named:
        fit = " or ".join(datasets.NAMES if known.reads == model_file.PICTURES else datasets.TEXT_NAMES)
        raise TitoError(f"{model} reads {known.reads}, and {dataset} holds {named}: try --dataset {fit}")
    return replace(known, reads=known.reads or named or "")


def noise() -> datasets.Split:
    """Pictures that nobody drew, for what does not depend on what they show; their labels say nothing."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NOISE, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, NOISE).astype(np.uint8)
    return datasets.Split(images, labels, "noise", "made up", datasets.DIGITS_CLASSES)


class RandomPrompts:
    """Prompts of any tokens, for a model whose tokenizer is not at hand: the work is the same."""

    def __init__(self, vocabulary: int, rng: np.random.Generator) -> None:
        self._vocabulary, self._rng = vocabulary, rng

    def take(self, batch: int, length: int) -> NDArray[np.int64]:
        """Prompts (batch, length)."""
        return self._rng.integers(0, self._vocabulary, (batch, length), dtype=np.int64)


def _pictures(dataset: str | None, split: str | None) -> datasets.Split:
    return datasets.load(dataset or "cifar10", split or "test")


def _texts(dataset: str | None, split: str | None) -> datasets.TextSplit:
    return datasets.load_text(dataset or "tinytalks", split or "test")


def _input_length(known: model_file.Facts, wanted: int | None) -> int:
    """How many tokens a text has in the end. Raises TitoError for what leaves no prompt or does not fit."""
    length, most = tokens.INPUT_LENGTH if wanted is None else wanted, known.context or language.CONTEXT
    if wanted is None and length > most:
        length = most
    if not tokens.NEW_TOKENS < length <= most:
        raise TitoError(
            f"--input-length {length}: expected {tokens.NEW_TOKENS + 1} to {most}, a prompt and "
            f"{tokens.NEW_TOKENS} new tokens within the model's context"
        )
    return length


def _waiting(model: Path, as_json: bool) -> AbstractContextManager[None]:
    return progress.waiting(f"measuring {model.name} in the sandbox", quiet=as_json)


def _print(as_json: bool, record: dict[str, Any], text: str) -> None:
    if not as_json:
        print(text)
        if "sandbox" in record:
            kind = "dialogues" if record["dataset"] in datasets.TEXT_NAMES else record["reads"]
            what = f"{record['n']:,} {kind} of {record['dataset']} {record['split']}"
            if record["dataset"] == "noise":
                what = f"made-up {kind}, no data set needed"
            print(f"  {what}, sandbox {record['sandbox']}")
        return
    print(json.dumps(record))


# ---- a model behind the worker


class Run:
    """A model loaded in the worker, the split that it is measured on, and what every record says of both."""

    def __init__(self, worker: Worker, data: datasets.Split, about: dict[str, Any]) -> None:
        self.worker, self.data, self.about = worker, data, about
        self.batch = rules.track("vision").batch
        self._rng = np.random.default_rng(secrets.randbits(64))

    def accuracy(self) -> measure.Accuracy:
        """Ask for every picture once."""
        data = self.data
        return measure.accuracy(self.worker.predict, data.images, data.labels, self._rng, self.batch)

    def speed(self, known: measure.Accuracy, seconds: float) -> measure.Throughput:
        """Time rounds of new and known pictures for about that long."""
        timing = rounds.Timing[measure.Predict](budget_s=seconds)
        return measure.throughput(self.worker.predict, self.data, known, self._rng, self.batch, timing)


class TextRun:
    """A language model loaded in the worker, and the dialogues and tokenizer that it is measured on.

    Without dialogues the prompts are tokens at random.
    """

    def __init__(
        self, worker: Worker, data: datasets.TextSplit | None, words: Any, about: dict[str, Any]
    ) -> None:
        self.worker, self.data, self._words, self.about = worker, data, words, about
        self._rng = np.random.default_rng(secrets.randbits(64))

    def writing(self) -> None:
        """One round of the speed benchmark: a batch of prompts read, and as many tokens written."""
        length = min(tokens.INPUT_LENGTH, self.about["context"] or language.CONTEXT)
        new = min(tokens.NEW_TOKENS, length - 1)
        self.worker.generate(self._prompts().take(tokens.BATCH, length - new), new, stream=False)

    def _prompts(self) -> tokens.Source:
        if self.data is None:
            return RandomPrompts(self.about["vocabulary"], self._rng)
        return tokens.Prompts(self._words, tracks.novel_dialogues(self.data, self._rng), self._rng)

    def reading(self) -> tuple[dict[str, Any], str]:
        """Show it every dialogue, token by token: a record, and the same in words."""
        assert self.data is not None
        found = language.read(self.worker, self._words, self.data.dialogues)
        low, high = found.interval(self._rng)
        record = {
            "bits_per_byte": found.bits_per_byte,
            "bits_per_byte_interval": [low, high],
            "next_token_accuracy": found.next_token_accuracy,
            "perplexity": found.perplexity,
        }
        text = (
            f"{found.bits_per_byte:.3f} bits/byte (95% interval {low:.3f} to {high:.3f}), "
            f"{100 * found.next_token_accuracy:.1f}% of the next tokens right"
        )
        return {**self.about, **record}, text

    def speed(self, seconds: float, input_length: int) -> tuple[dict[str, Any], str]:
        """Time it on new prompts for about that long: a record, and the same in words."""
        timing, load = rounds.Timing[tokens.Model](budget_s=seconds), tokens.Load(input_length=input_length)
        found = tokens.speed(self.worker, self._prompts(), self._rng, timing, load)
        low, high = found.interval
        record = {
            "tokens_per_second": found.tokens_per_second,
            "speed_interval": [low, high],
            "samples": found.samples,
            "latency_p50": found.latency_p50,
            "latency_p90": found.latency_p90,
            "first_token": found.first_token,
            "input_length": input_length,
            "batch": tokens.BATCH,
            "audit": found.faults,
        }
        text = (
            f"{found.tokens_per_second:,.0f} tokens/s (95% interval {low:,.0f} to {high:,.0f}, "
            f"{len(found.samples)} rounds, {tokens.BATCH} texts of {input_length} tokens, "
            f"{tokens.NEW_TOKENS} of them new)\n  one text at a time: p50 {1000 * found.latency_p50:.1f} ms, "
            f"p90 {1000 * found.latency_p90:.1f} ms a token, the first after "
            f"{1000 * found.first_token:.1f} ms"
        )
        return {**self.about, **record}, text + _faults(found.faults)


def _tokenizer(model: Path) -> Path | None:
    """The tokenizer beside a language model, where there is one."""
    beside = model.with_name(staging.TOKENIZER)
    return beside if beside.is_file() else None


def _faults(faults: list[str]) -> str:
    return "".join(f"\n  the grader would not accept this run: {fault}" for fault in faults)


def _about(
    worker: Worker, data: Data | None, model: Path, known: model_file.Facts, parameters: int
) -> dict[str, Any]:
    about = {
        "model": str(model),
        "parameters": parameters,
        "reads": known.reads,
        "dataset": data.name if data is not None else "noise",
        "split": data.split if data is not None else "made up",
        "n": len(data) if data is not None else tokens.BATCH,
        "sandbox": worker.level,
        "machine": scorer.machine(),
    }
    if known.reads == model_file.TOKENS:
        about.update(vocabulary=known.vocabulary, context=known.context)
    return about


@contextmanager
def ready_text(
    model: Path, known: model_file.Facts, data: datasets.TextSplit | None,
    tinytorch: Path | None, level: str | None,
) -> Iterator[TextRun]:  # fmt: skip
    """A language model loaded in a sandboxed worker. Raises TitoError and SubmissionError."""
    beside = _tokenizer(model)
    if beside is None and (data is not None or known.vocabulary is None):
        raise TitoError(
            f"{model} reads tokens, and its tokenizer is not there: put its {staging.TOKENIZER} beside it"
        )
    with staged(model, known, tinytorch) as (folder, copy):
        try:
            words = tokenizer.load(folder / staging.TOKENIZER) if beside else None
            size = words.vocab_size if words is not None else known.vocabulary
            known = replace(known, vocabulary=size)
            with Worker(folder, folder, _bounds("language"), level) as worker:
                count = worker.load(copy, size or 0)["parameters"]
                yield TextRun(worker, data, words, _about(worker, data, model, known, count))
        except (tokenizer.TokenizerError, language.LanguageError) as error:
            raise TitoError(f"{beside or model}: {error}") from error


def _bounds(track: str) -> sandbox.Limits:
    limits = rules.track(track).limits
    return sandbox.Limits(
        wall_s=limits.wall_s,
        memory_bytes=limits.memory_bytes,
        processes=limits.processes,
        threads=limits.threads,
    )


@contextmanager
def ready(
    model: Path, known: model_file.Facts, data: datasets.Split, tinytorch: Path | None, level: str | None
) -> Iterator[Run]:
    """A model of pictures loaded in a sandboxed worker. Raises TitoError and SubmissionError."""
    bounds = _bounds("vision")
    with staged(model, known, tinytorch) as (folder, copy), Worker(folder, folder, bounds, level) as worker:
        yield Run(worker, data, _about(worker, data, model, known, worker.load(copy)["parameters"]))


@contextmanager
def staged(
    model: Path, known: model_file.Facts, tinytorch: Path | None = None
) -> Iterator[tuple[Path, Path]]:
    """Yields a scratch folder (model file, network.py, tokenizer.json, tinytorch/) and the model file in it.

    Only what the model needs is there: its network where it has classes of its own, a tokenizer where it
    reads tokens.
    """
    package = package_for(model, tinytorch) / "tinytorch"
    with scratch_folder("benchmark") as folder:
        copy = folder / ("model.pt" if model.suffix == ".pt" else "model.safetensors")
        copy.write_bytes(model_file.checked_bytes(model))
        if known.source is not None:
            write_network(known, folder / network.FILE)
        beside = _tokenizer(model)
        if beside is not None and known.reads == model_file.TOKENS:
            shutil.copyfile(beside, folder / staging.TOKENIZER)
        copy_package(package, folder / "tinytorch")
        yield folder, copy


def write_network(known: model_file.Facts, target: Path) -> None:
    """The network.py of a model: the file of that name as it is, else the classes from where they stand."""
    assert known.source is not None
    if known.source.name == network.FILE:
        shutil.copyfile(known.source, target)
    else:
        target.write_text(network.extract(known.source, known.own), encoding="utf-8")


def package_for(model: Path, given: Path | None = None) -> Path:
    """The folder that contains the tinytorch/ a model is run with.

    In this order: the one given, TITO_TINYTORCH, a snapshot beside the model, that of the project, workspace
    or repository around the current folder or the model, the repository that this tito runs from. Raises
    TitoError, for a project whose workspace has gone too.
    """
    beside = model.resolve().parent
    if given is None and "TITO_TINYTORCH" not in os.environ:
        if (beside / "tinytorch" / "__init__.py").is_file():
            return beside
        for start in (Path.cwd(), beside):
            if (own := project.find(start)) is not None:
                return _with_package(own.home())
            try:
                found = home(start)
            except TitoError:
                continue
            if (found / "tinytorch" / "__init__.py").is_file():
                return found
        given = workspace.repository()
        if given is None:
            raise Missing(
                "no tinytorch found to run the model: go to your workspace, or name it with --tinytorch PATH"
            )
    return _with_package(given if given is not None else home())


def _with_package(found: Path) -> Path:
    """The same folder. Raises TitoError where it holds no tinytorch/ yet."""
    if not (found / "tinytorch" / "__init__.py").is_file():
        raise TitoError(
            f"no tinytorch/ in {found}: complete the modules first, or name another with --tinytorch"
        )
    return found


def copy_package(package: Path, target: Path) -> None:
    """Copy the Python files of a package: what a submission's snapshot holds."""
    for path in sorted(package.rglob("*.py")):
        if path.is_file() and not path.is_symlink():
            copy = target / path.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def counted_bytes(folder: Path, model: Path) -> int:
    """Bytes of the model file, of a tokenizer beside it, and of the code beside it over rules.CODE_BYTES."""
    code = sum(path.stat().st_size for path in folder.rglob("*.py"))
    words = folder / staging.TOKENIZER
    size = model.stat().st_size + (words.stat().st_size if words.is_file() else 0)
    return size + max(0, code - rules.CODE_BYTES)
