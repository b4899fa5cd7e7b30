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
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from autograder import datasets, measure, rules, sandbox, scorer, scores
from autograder.client import Worker
from tito import workspace
from tito.notebook import TitoError, home

app = typer.Typer(no_args_is_help=True, help="Measure a model file: accuracy, speed, size, memory.")

Model = Annotated[Path, typer.Option("--model", help="The model file; network.py is read from beside it.")]
Dataset = Annotated[str, typer.Option("--dataset", help="cifar10 or digits")]
Part = Annotated[str, typer.Option("--split", help="test, public, private or train")]
Package = Annotated[Path | None, typer.Option("--tinytorch", help="The folder that contains tinytorch/.")]
Level = Annotated[str | None, typer.Option("--level", help="Sandbox level; default: the best there is.")]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]


# ---- commands


@app.command()
def accuracy(
    model: Model, dataset: Dataset = "cifar10", split: Part = "test",
    tinytorch: Package = None, level: Level = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Top-1 accuracy with its 95% interval."""
    with ready(model, dataset, split, tinytorch, level) as run:
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
    model: Model, dataset: Dataset = "cifar10", split: Part = "test",
    tinytorch: Package = None, level: Level = None, as_json: Json = False,
    seconds: Annotated[float, typer.Option(help="About how long to measure.")] = measure.BUDGET_S,
) -> None:  # fmt: skip
    """Pictures per second: the median of several rounds with its 95% interval, and what the audits say."""
    with ready(model, dataset, split, tinytorch, level) as run:
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
        f"{len(found.samples)} rounds, batch {run.batch})"
        + "".join(f"\n  the grader would not accept this run: {fault}" for fault in found.faults),
    )


@app.command()
def size(model: Model, tinytorch: Package = None, as_json: Json = False) -> None:
    """Bytes that count as the model: the file, and code over 256 KB."""
    limit = rules.track("vision").limits.file_bytes
    with staged(model, tinytorch) as (folder, copy):
        counted = counted_bytes(folder, copy)
    text = f"{scores.show('bytes', counted)} ({counted:,} bytes; the limit is {limit / rules.MB:g} MB)"
    _print(as_json, {"model": str(model), "size_bytes": counted, "limit_bytes": limit}, text)


@app.command()
def memory(
    model: Model, dataset: Dataset = "cifar10", split: Part = "test",
    tinytorch: Package = None, level: Level = None, as_json: Json = False,
) -> None:  # fmt: skip
    """The most memory that the worker used while it classified the split."""
    with ready(model, dataset, split, tinytorch, level) as run:
        run.accuracy()
        peak = run.worker.peak_memory()
    _print(as_json, {**run.about, "memory_bytes": peak}, f"{peak / rules.MB:,.0f} MB at most")


def _print(as_json: bool, record: dict[str, Any], text: str) -> None:
    if not as_json:
        print(text)
        if "sandbox" in record:
            what = f"{record['n']:,} pictures of {record['dataset']} {record['split']}"
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
        self.about = {
            "model": str(model),
            "parameters": parameters,
            "dataset": data.name,
            "split": data.split,
            "n": len(data),
            "sandbox": worker.level,
            "machine": scorer.machine(),
        }

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


@contextmanager
def ready(model: Path, dataset: str, split: str, tinytorch: Path | None, level: str | None) -> Iterator[Run]:
    """A model loaded in a sandboxed worker. Raises TitoError, DataError and SubmissionError."""
    data = datasets.load(dataset, split)
    limits = rules.track("vision").limits
    bounds = sandbox.Limits(
        wall_s=limits.wall_s,
        memory_bytes=limits.memory_bytes,
        processes=limits.processes,
        threads=limits.threads,
    )
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
        network = model.with_name("network.py")
        if network.is_file():
            shutil.copyfile(network, folder / "network.py")
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
    """Bytes of the model file, and of the code beside it over rules.CODE_BYTES."""
    code = sum(path.stat().st_size for path in folder.rglob("*.py"))
    return model.stat().st_size + max(0, code - rules.CODE_BYTES)
