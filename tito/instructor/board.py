"""From grades to a page that others read: `tito export`, `tito leaderboard` and `tito leaderboard merge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tito.errors import TitoError
from tito.instructor.grading import CourseOption, Json, find

pages = typer.Typer(help="The page of the results; `merge` puts the results of several classes together.")


def export(
    course: CourseOption = None,
    to: Annotated[
        Path | None, typer.Option(help="File or folder; default: results.json in the course.")
    ] = None,
    names: Annotated[
        str,
        typer.Option(help="pseudonym: those who chose one, for the public; id: everybody, for the course."),
    ] = "pseudonym",
    class_name: Annotated[
        str, typer.Option("--class", help="What the class is called on a board of several; default: its id.")
    ] = "",
    publish: Annotated[
        bool, typer.Option("--publish", help="Also put results.json into nbgrader's exchange for students.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the graded results as results.json, checked against its schema, and results.csv."""
    from nbgrader.api import Gradebook

    from autograder.gradebook import exchange, judging, records
    from autograder.leaderboard import export as results

    root = find(course)
    if names not in ("pseudonym", "id"):
        raise TitoError(f"--names {names}: expected pseudonym or id")
    if publish and names != "pseudonym":
        raise TitoError(
            "--publish with --names id would show everybody's points to all: publish pseudonyms, or hand "
            "results.json to those whom it is for"
        )
    if len(class_name) > 80:
        raise TitoError(f"--class has {len(class_name)} characters: expected 80 at most")
    place = judging.Course.at(root)
    with Gradebook(records.nbgrader_config(place).CourseDirectory.db_url) as gradebook:
        found = results.collect(place, gradebook, names=names, class_name=class_name)
        written, table = results.write(found, to or root / "results.json")
        shared = exchange.publish(records.exchange_config(place), written) if publish else None
    entries = len(found["entries"])
    text = f"{entries} results in {written} and {table.name}"
    text += f"\nstudents find them in {shared}" if shared else ""
    said = {"results": str(written), "csv": str(table), "entries": entries}
    _say(as_json, {**said, "published": str(shared)} if shared else said, text)


@pages.callback(invoke_without_command=True)
def leaderboard(
    context: typer.Context,
    course: CourseOption = None,
    results: Annotated[Path | None, typer.Option(help="results.json; default: the course's.")] = None,
    to: Annotated[Path | None, typer.Option(help="The page; default: leaderboard.html beside it.")] = None,
    as_json: Json = False,
) -> None:
    """Run course/leaderboard.ipynb on the exported results and make static HTML: a page, and one an entry.

    The entries' pages lie in a folder of the page's name, leaderboard/: publish both.
    """
    if context.invoked_subcommand is not None:
        return
    from autograder import leaderboard as board

    exported = results or find(course) / "results.json"
    page = board.render(exported, to or exported.with_name("leaderboard.html"))
    entries = str(page.with_suffix(""))
    _say(as_json, {"page": str(page), "entries": entries}, f"{page}, and a page for each entry in {entries}")


@pages.command()
def merge(
    files: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="A results.json of each class.")],
    to: Annotated[Path, typer.Option(help="The merged results.json.")],
    names: Annotated[
        list[str] | None, typer.Option("--name", help="What a class is called: one for each file, in order.")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the board; default: the classes.")] = "",
    unknown_rules: Annotated[
        bool, typer.Option("--unknown-rules", help="Take results that do not say by which rules.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put the results of several classes together; `tito leaderboard --results` then draws them."""
    from autograder.leaderboard import merge as merging
    from autograder.leaderboard import results_file

    read = [(str(path), results_file.load(path)) for path in files]
    merged = merging.merge(read, title=title, names=names or (), unknown_rules=unknown_rules)
    written, _ = results_file.write(merged, to)
    classes = [group["name"] for group in merged["classes"]]
    said = {"results": str(written), "classes": classes, "entries": len(merged["entries"]),
            "notes": merged["notes"]}  # fmt: skip
    lines = [f"{len(merged['entries'])} results of {len(classes)} classes in {written}", *merged["notes"]]
    _say(as_json, said, "\n".join(lines))


def _say(as_json: bool, data: dict[str, Any], text: str) -> None:
    print(json.dumps(data) if as_json else text)
