"""`tito data fetch|list|write`: the data sets on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from autograder.data import datasets
from tito import progress

_WITHOUT_FOLDER = {"digits": "comes with the course", "tinytalks": "is made where it is used"}

app = typer.Typer(no_args_is_help=True, help="Data sets: what is here, fetching CIFAR-10, texts as files.")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="cifar10, digits or tinytalks")] = "cifar10",
    mirror: Annotated[
        str, typer.Option(help="Address of a folder that serves the archive.")
    ] = datasets.CIFAR10_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Download a data set: resumed where it stopped, checked, unpacked; once is enough."""
    place = datasets.fetch(name, progress=not as_json and progress.shown(), base_url=mirror)
    if as_json:
        print(json.dumps({"name": name, "folder": str(place) if place else None}))
    else:
        print(f"{name} is ready" + (f" in {place}" if place else f": it {_WITHOUT_FOLDER[name]}"))


@app.command("list")
def list_sets(
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Which data sets are on this machine, and where."""
    rows = [_pictures(name) for name in datasets.NAMES] + [_text(name) for name in datasets.TEXT_NAMES]
    if as_json:
        print(json.dumps({"folder": str(datasets.folder()), "sets": rows}))
        return
    for row in rows:
        if row["available"]:
            where = row["folder"] or _WITHOUT_FOLDER[str(row["name"])]
            print(f"{row['name']:<17} {row['train']:>6} train {row['test']:>6} test   {where}")
        else:
            print(f"{row['name']:<17} {row['reason']}")


@app.command()
def write(
    name: Annotated[str, typer.Argument(help="tinytalks")],
    folder: Annotated[Path, typer.Argument(help="Where train.txt, val.txt and test.txt go.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Write a text as files of Q: and A: lines, a blank line between two dialogues."""
    if name != "tinytalks":
        raise datasets.DataError(f"only tinytalks can be written as text files, got {name!r}")
    paths = datasets.write_text(name, folder)
    if as_json:
        print(json.dumps({"name": name, "files": [str(path) for path in paths]}))
    else:
        print("\n".join(f"{path.stat().st_size:>9,} bytes  {path}" for path in paths))


def _pictures(name: str) -> dict[str, object]:
    row: dict[str, object] = {"name": name, "available": datasets.available(name)}
    if row["available"]:
        row["train"] = len(datasets.load(name, "train")) if name == "digits" else 50_000
        row["test"] = len(datasets.load(name, "test"))
        row["folder"] = None if name == "digits" else str(datasets.cifar10_folder(datasets.folder()))
    else:
        row["reason"] = datasets.cifar10_fault(datasets.folder())
    return row


def _text(name: str) -> dict[str, object]:
    try:
        train, test = (len(datasets.load_text(name, split)) for split in ("train", "test"))
    except datasets.DataError as error:
        return {"name": name, "available": False, "reason": str(error)}
    place = None if name == "tinytalks" else str(datasets.folder())
    return {"name": name, "available": True, "train": train, "test": test, "folder": place}
