"""`tito benchmark accuracy|speed|size|memory`: the trusted harness on a model file of your own.

The figures are those that the grader would measure on the same split: the model runs in the sandboxed worker,
labels and clock stay outside.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from autograder import (
    datasets,
    language,
    measure,
    rules,
    sandbox,
    scorer,
    scores,
    staging,
    tokenizer,
    tokens,
    tracks,
)
from autograder.client import Worker
from tito import progress, workspace
from tito.notebook import TitoError, home

app = typer.Typer(no_args_is_help=True, help="Measure a model file: accuracy, speed, size, memory.")

Model = Annotated[Path, typer.Option("--model", help="The model file; network.py is read from beside it.")]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset", help="cifar10, digits or tinytalks; default: cifar10, with a tokenizer tinytalks."
    ),
]
Part = Annotated[str, typer.Option("--split", help="test, public, private or train")]
Package = Annotated[Path | None, typer.Option("--tinytorch", help="The folder that contains tinytorch/.")]
Level = Annotated[str | None, typer.Option("--level", help="Sandbox level; default: the best there is.")]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]


# ---- commands


@app.command()
def accuracy(
    model: Model, dataset: Dataset = None, split: Part = "test",
    tinytorch: Package = None, level: Level = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Top-1 accuracy with its 95% interval; of a language model bits per byte and next-token accuracy."""
    if is_text(model, dataset):
        with _waiting(model, as_json), ready_text(model, dataset, split, tinytorch, level) as words:
            reading = words.reading()
        _print(as_json, *reading)
        return
    with _waiting(model, as_json), ready(model, dataset or "cifar10", split, tinytorch, level) as run:
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
    model: Model, dataset: Dataset = None, split: Part = "test",
    tinytorch: Package = None, level: Level = None, as_json: Json = False,
    seconds: Annotated[float, typer.Option(help="About how long to measure.")] = measure.BUDGET_S,
    input_length: Annotated[
        int | None, typer.Option(help="Of a language model: tokens of a text, prompt and new ones together.")
    ] = None,
) -> None:  # fmt: skip
    """Pictures or tokens per second: the median of several rounds with its 95% interval, and the audits."""
    if is_text(model, dataset):
        with _waiting(model, as_json), ready_text(model, dataset, split, tinytorch, level) as words:
            reading = words.speed(seconds, input_length or tokens.INPUT_LENGTH)
        _print(as_json, *reading)
        return
    if input_length is not None:
        raise TitoError(f"--input-length is for language models: {model} has no tokenizer.json beside it")
    with _waiting(model, as_json), ready(model, dataset or "cifar10", split, tinytorch, level) as run:
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
    """Bytes that count as the model: the file, a tokenizer beside it, and code over 400 KB."""
    limit = rules.track("vision").limits.file_bytes
    with staged(model, tinytorch) as (folder, copy):
        counted = counted_bytes(folder, copy)
    text = f"{scores.show('bytes', counted)} ({counted:,} bytes; the limit is {limit / rules.MB:g} MB)"
    _print(as_json, {"model": str(model), "size_bytes": counted, "limit_bytes": limit}, text)


@app.command()
def memory(
    model: Model, dataset: Dataset = None, split: Part = "test",
    tinytorch: Package = None, level: Level = None, as_json: Json = False,
) -> None:  # fmt: skip
    """The most memory that the worker used while it classified, or read, the split."""
    if is_text(model, dataset):
        with _waiting(model, as_json), ready_text(model, dataset, split, tinytorch, level) as words:
            words.reading()
            most = words.worker.peak_memory()
        _print(as_json, {**words.about, "memory_bytes": most}, f"{most / rules.MB:,.0f} MB at most")
        return
    with _waiting(model, as_json), ready(model, dataset or "cifar10", split, tinytorch, level) as run:
        run.accuracy()
        peak = run.worker.peak_memory()
    _print(as_json, {**run.about, "memory_bytes": peak}, f"{peak / rules.MB:,.0f} MB at most")


def _waiting(model: Path, as_json: bool) -> AbstractContextManager[None]:
    return progress.waiting(f"measuring {model.name} in the sandbox", quiet=as_json)


def _print(as_json: bool, record: dict[str, Any], text: str) -> None:
    if not as_json:
        print(text)
        if "sandbox" in record:
            kind = "dialogues" if record["dataset"] in datasets.TEXT_NAMES else "pictures"
            what = f"{record['n']:,} {kind} of {record['dataset']} {record['split']}"
            print(f"  {what}, sandbox {record['sandbox']}")
        return
    print(json.dumps(record))


# ---- a model behind the worker


class Run:
    """A model loaded in the worker, the split that it is measured on, and what every record says of both."""

    def __init__(self, worker: Worker, data: datasets.Split, model: Path, parameters: int) -> None:
        self.worker, self.data = worker, data
        self.batch = rules.track("vision").batch
        self._rng = np.random.default_rng(secrets.randbits(64))
        self.about = _about(worker, data, model, parameters)

    def accuracy(self) -> measure.Accuracy:
        """Ask for every picture once."""
        data = self.data
        return measure.accuracy(self.worker.predict, data.images, data.labels, self._rng, self.batch)

    def speed(self, known: measure.Accuracy, seconds: float) -> measure.Throughput:
        """Time rounds of new and known pictures for about that long."""
        data = self.data
        return measure.throughput(
            self.worker.predict, data.images, data.labels, known, self._rng, self.batch, budget_s=seconds
        )


class TextRun:
    """A language model loaded in the worker, its tokenizer, and the dialogues that it is measured on."""

    def __init__(
        self, worker: Worker, data: datasets.TextSplit, model: Path, parameters: int, words: Any
    ) -> None:
        self.worker, self.data, self._words = worker, data, words
        self._rng = np.random.default_rng(secrets.randbits(64))
        self.about = _about(worker, data, model, parameters)

    def reading(self) -> tuple[dict[str, Any], str]:
        """Show it every dialogue, token by token: a record, and the same in words."""
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
        fresh = tracks.novel_dialogues(self.data, self._rng)
        prompts = tokens.Prompts(self._words, fresh, self._rng)
        try:
            found = tokens.speed(self.worker, prompts, self._rng, budget_s=seconds, input_length=input_length)
        except ValueError as error:
            raise TitoError(f"--input-length: {error}") from error
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


def is_text(model: Path, dataset: str | None) -> bool:
    """Whether a model is one of language: measured on a text, or with a tokenizer beside it."""
    return dataset in datasets.TEXT_NAMES or (dataset is None and _beside(model).is_file())


def _beside(model: Path) -> Path:
    return model.with_name(staging.TOKENIZER)


def _faults(faults: list[str]) -> str:
    return "".join(f"\n  the grader would not accept this run: {fault}" for fault in faults)


def _about(
    worker: Worker, data: datasets.Split | datasets.TextSplit, model: Path, parameters: int
) -> dict[str, Any]:
    return {
        "model": str(model),
        "parameters": parameters,
        "dataset": data.name,
        "split": data.split,
        "n": len(data),
        "sandbox": worker.level,
        "machine": scorer.machine(),
    }


@contextmanager
def ready_text(
    model: Path, dataset: str | None, split: str, tinytorch: Path | None, level: str | None
) -> Iterator[TextRun]:
    """A language model loaded in a sandboxed worker. Raises TitoError, DataError and SubmissionError."""
    data = datasets.load_text(dataset or "tinytalks", split)
    with staged(model, tinytorch) as (folder, copy):
        try:
            words = tokenizer.load(folder / staging.TOKENIZER)
            with Worker(folder, folder, _bounds("language"), level) as worker:
                yield TextRun(worker, data, model, worker.load(copy, words.vocab_size)["parameters"], words)
        except (tokenizer.TokenizerError, language.LanguageError) as error:
            raise TitoError(f"{_beside(model)}: {error}") from error


def _bounds(track: str) -> sandbox.Limits:
    limits = rules.track(track).limits
    return sandbox.Limits(
        wall_s=limits.wall_s,
        memory_bytes=limits.memory_bytes,
        processes=limits.processes,
        threads=limits.threads,
    )


@contextmanager
def ready(model: Path, dataset: str, split: str, tinytorch: Path | None, level: str | None) -> Iterator[Run]:
    """A model loaded in a sandboxed worker. Raises TitoError, DataError and SubmissionError."""
    data = datasets.load(dataset, split)
    bounds = _bounds("vision")
    with staged(model, tinytorch) as (folder, copy), Worker(folder, folder, bounds, level) as worker:
        yield Run(worker, data, model, worker.load(copy)["parameters"])


@contextmanager
def staged(model: Path, tinytorch: Path | None = None) -> Iterator[tuple[Path, Path]]:
    """Yields a scratch folder (model file, network.py, tinytorch/) and the model file in it."""
    if not model.is_file():
        raise TitoError(f"no model file {model}: tinytorch.save writes one")
    package = package_for(model, tinytorch) / "tinytorch"
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        folder = Path(scratch)
        copy = folder / ("model.pt" if model.suffix == ".pt" else "model.safetensors")
        shutil.copyfile(model, copy)
        for beside in (model.with_name("network.py"), _beside(model)):
            if beside.is_file():
                shutil.copyfile(beside, folder / beside.name)
        copy_package(package, folder / "tinytorch")
        yield folder, copy


def package_for(model: Path, given: Path | None = None) -> Path:
    """The folder that contains the tinytorch/ a model is run with.

    In this order: the one given, TITO_TINYTORCH, a snapshot beside the model, the workspace or repository
    around the current folder or the model, the repository that this tito runs from. Raises TitoError.
    """
    beside = model.resolve().parent
    if given is None and "TITO_TINYTORCH" not in os.environ:
        if (beside / "tinytorch" / "__init__.py").is_file():
            return beside
        for start in (Path.cwd(), beside):
            try:
                found = home(start)
            except TitoError:
                continue
            if (found / "tinytorch" / "__init__.py").is_file():
                return found
        given = workspace.repository()
        if given is None:
            raise TitoError(
                "no tinytorch found: run this in your workspace, or name its folder with --tinytorch"
            )
    found = given if given is not None else home()
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
