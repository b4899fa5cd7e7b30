"""`tito data fetch|list`: the data sets on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from autograder import datasets

app = typer.Typer(no_args_is_help=True, help="Data sets: what is here, and fetching CIFAR-10.")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="cifar10 or digits")] = "cifar10",
    mirror: Annotated[
        str, typer.Option(help="Address of a folder that serves the archive.")
    ] = datasets.CIFAR10_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Download a data set: resumed where it stopped, checked, unpacked; once is enough."""
    place = datasets.fetch(name, progress=not as_json, base_url=mirror)
    if as_json:
        print(json.dumps({"name": name, "folder": str(place) if place else None}))
    else:
        print(f"{name} is ready" + (f" in {place}" if place else ": it comes with scikit-learn"))


@app.command("list")
def list_sets(
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Which data sets are on this machine, and where."""
    rows = []
    for name in datasets.NAMES:
        row: dict[str, object] = {"name": name, "available": datasets.available(name)}
        if row["available"]:
            row["train"] = len(datasets.load(name, "train")) if name == "digits" else 50_000
            row["test"] = len(datasets.load(name, "test"))
            row["folder"] = None if name == "digits" else str(datasets.cifar10_folder(datasets.folder()))
        else:
            row["reason"] = datasets.cifar10_fault(datasets.folder())
        rows.append(row)
    if as_json:
        print(json.dumps({"folder": str(datasets.folder()), "sets": rows}))
        return
    for row in rows:
        if row["available"]:
            where = row["folder"] or "comes with scikit-learn"
            print(f"{row['name']:<8} {row['train']:>6} train {row['test']:>6} test   {where}")
        else:
            print(f"{row['name']:<8} {row['reason']}")
