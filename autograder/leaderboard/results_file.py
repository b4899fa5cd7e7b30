"""A results file: written, read and checked against results.schema.json, whatever version it is of.

The schema is versioned, so that other courses can publish too: `torch-olympics/results/N`. A reader takes
every version up to its own and upgrades older ones step by step (`upgrade`); a newer one is refused in one
line. What a version added stands in the schema's description.
"""

from __future__ import annotations

import copy
import csv
import datetime
import io
import json
import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from autograder import files
from autograder.errors import GradingError
from autograder.scoring import rules

VERSION = 2
SCHEMA = f"torch-olympics/results/{VERSION}"
HERE = Path(__file__).resolve().parent
METRICS = (
    "accuracy", "accuracy_interval", "accuracy_lost", "gate_passed", "bits_per_byte",
    "bits_per_byte_interval", "next_token_accuracy", "retention", "perplexity", "rubric", "coherence",
    "relevance", "fluency", "images_per_second", "tokens_per_second", "latency_p50", "latency_p90",
    "first_token", "speed_interval", "ratio_to_reference", "size_bytes", "memory_bytes", "parameters",
    "training_seconds", "quality",
)  # fmt: skip
COLUMNS = (
    "name", "class", "assignment", "track", "badge", "division", "valid", "points", "max_points", *METRICS,
    "dataset", "split", "sandbox", "date", "reasons",
)  # fmt: skip
_NAME = re.compile(r"torch-olympics/results/(\d{1,6})$")


def document(
    course: str, entries: list[dict[str, Any]], *, names: str = "pseudonym", made: str = ""
) -> dict[str, Any]:
    """One class's results in today's version, with today's rules, ready for `write`."""
    made = made or now()
    return {
        "schema": SCHEMA, "course": course, "made": made, "names": names,
        "rules": {name: rules.fingerprint(rule) for name, rule in rules.TRACKS.items()},
        "classes": [{"name": course[:80], "made": made}], "notes": [], "entries": entries,
    }  # fmt: skip


def write(results: dict[str, Any], path: Path) -> tuple[Path, Path]:
    """Check the results and write them as .json and, beside it, .csv; `path` is the .json or a folder.

    Raises GradingError where the results do not fit the schema: nothing is written then.
    """
    path = path / "results.json" if path.suffix != ".json" else path
    validate(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(results, indent=1, allow_nan=False) + "\n")
    table = path.with_suffix(".csv")
    _replace(table, as_csv(results))
    return path, table


def load(path: Path) -> dict[str, Any]:
    """Read and check a results file, upgraded to today's version.

    Raises GradingError with one line that says what is wrong.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GradingError(f"{path} cannot be read ({error.strerror}): run `tito export` first.") from None
    except ValueError as error:
        raise GradingError(f"{path} is not JSON ({error}): run `tito export` again.") from None
    return upgrade(found)


def upgrade(found: Any) -> dict[str, Any]:
    """A results file of any known version, checked against its own schema, in today's version.

    Raises GradingError for what fits no version, and for a version that is newer than this program.
    """
    said = str(found.get("schema")) if isinstance(found, dict) else ""
    match = _NAME.match(said)
    if match and int(match[1]) > VERSION:
        raise GradingError(
            f"these results are of version {match[1]}, this program reads up to {VERSION}: "
            "install a newer torch-olympics"
        )
    if match and match[1] == "1":
        validate(found, version=1)
        found = _from_1(found)
    validate(found)
    return dict(found)


def validate(results: Any, version: int = VERSION) -> None:
    """Check against the schema. Raises GradingError that names the first place that does not fit."""
    error = jsonschema.exceptions.best_match(_validator(version).iter_errors(results))
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "the top"
        name = f"torch-olympics/results/{version}"
        raise GradingError(f"results do not fit {name} at {place}: {error.message[:200]}")


def as_csv(results: dict[str, Any]) -> str:
    """One line an entry; a cell that a spreadsheet would run as a formula gets a leading apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in results["entries"]:
        flat = {**entry["metrics"], **entry, "reasons": " | ".join(entry["reasons"])}
        writer.writerow([_csv_cell(flat.get(column)) for column in COLUMNS])
    return text.getvalue()


def rules_hash(fingerprint: Mapping[str, str] | None) -> str | None:
    """One hash of all parts of a track's rules; None where they are not on record."""
    if not fingerprint:
        return None
    return rules.short_hash(dict(fingerprint))


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _from_1(old: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew one class, and neither rules, audits, samples nor reports."""
    new = copy.deepcopy(old)
    course = new["course"] or "a course without a name"
    new.update(
        schema="torch-olympics/results/2", course=course, rules={}, notes=[],
        classes=[{"name": course[:80], "made": new["made"]}],
    )  # fmt: skip
    for entry in new["entries"]:
        entry["class"] = None if entry["badge"] == "reference" else course[:80]
        entry.setdefault("division", "open")
        entry.update(rules=None, audit=None, samples={}, report=None)
    return new


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(f"{v:g}" for v in value)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return "" if value is None else value


def _replace(path: Path, text: str) -> None:
    try:
        files.write_text(path, text)
    except OSError as error:
        raise GradingError(f"{path} cannot be written ({error.strerror}): nothing was changed") from error


@cache
def _validator(version: int) -> Any:
    name = "results.schema.json" if version == VERSION else f"results.schema.{version}.json"
    schema = json.loads((HERE / name).read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema)


def tracks_of(entries: Collection[dict[str, Any]]) -> list[str]:
    """The tracks that entries are of, sorted; modules, which have none, left out."""
    return sorted({entry["track"] for entry in entries if entry["track"]})
