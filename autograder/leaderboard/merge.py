"""Results of several classes as one: `tito leaderboard merge`.

Every entry keeps the name of its class, so that equal pseudonyms of two classes stay two people. The course's
own entries stand once. Points and figures are merged only where the classes were measured by the same rules
(rules.fingerprint); where the machines differ a note says that the speeds do not compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autograder.errors import GradingError
from autograder.leaderboard.results_file import SCHEMA, now, tracks_of, upgrade, validate

SPEEDS = ("Speeds, and the points for speed, of different machines do not compare: {0}. Compare them within "
          "one machine, or by their ratio to the reference.")  # fmt: skip
Named = tuple[str, dict[str, Any]]  # how a file is called in messages, what is in it


def merge(
    files: Sequence[Named], *, title: str = "", names: Sequence[str] = (), unknown_rules: bool = False
) -> dict[str, Any]:
    """One results document of two or more; each is checked and upgraded first.

    names: what the classes are called, one for each file, where their own names are equal or say little.
    unknown_rules: take results that do not say by which rules they were measured (version 1).
    Raises GradingError for a file that does not fit, the same class or the same results twice, results for
    the public beside results that name students, and results by other rules.
    """
    if len(files) < 2:
        raise GradingError("one results file is no merge: name two or more")
    if names and len(names) != len(files):
        raise GradingError(f"{len(names)} class names for {len(files)} files: give each its --name, in order")
    read = [(path, _checked(path, found)) for path, found in files]
    _refuse_twice(read)
    if names:
        read = [(path, _renamed(path, found, name)) for (path, found), name in zip(read, names, strict=True)]
    _refuse_same_class(read)
    _refuse_mixed_names(read)
    rules, unsure = _common_rules(read, unknown_rules)
    notes = list(dict.fromkeys(note for _, found in read for note in found.get("notes", ())))
    if unsure:
        notes.append(f"By which rules these were measured is not on record: {', '.join(unsure)}.")
    references, measured = _references(read)
    entries = [e for _, found in read for e in found["entries"] if e["badge"] != "reference"] + references
    entries.sort(key=lambda e: (e["track"] is None, e["assignment"], e["name"], e["class"] or ""))
    notes += measured + _machines(entries)
    classes = [group for _, found in read for group in found["classes"]]
    merged = {
        "schema": SCHEMA, "course": title or ", ".join(group["name"] for group in classes), "made": now(),
        "names": read[0][1]["names"], "rules": rules, "classes": classes,
        "notes": list(dict.fromkeys(notes)), "entries": entries,
    }  # fmt: skip
    validate(merged)
    return merged


def _checked(path: str, found: dict[str, Any]) -> dict[str, Any]:
    try:
        return upgrade(found)
    except GradingError as error:
        raise GradingError(f"{path}: {error}") from error


def _renamed(path: str, found: dict[str, Any], name: str) -> dict[str, Any]:
    """The same results with another name for their class; a file of several classes keeps theirs."""
    name = name.strip()
    if not 0 < len(name) <= 80:
        raise GradingError(f"--name {name!r}: expected 1 to 80 characters")
    if len(found["classes"]) > 1:
        raise GradingError(f"{path} holds {len(found['classes'])} classes already: merge their own files")
    entries = [{**e, "class": None if e["class"] is None else name} for e in found["entries"]]
    return {**found, "classes": [{**found["classes"][0], "name": name}], "entries": entries}


def _refuse_twice(read: Sequence[Named]) -> None:
    seen: dict[str, str] = {}
    for path, found in read:
        for entry in found["entries"]:
            if entry["badge"] == "reference" or not entry["track"]:
                continue
            who = repr([entry[k] for k in ("name", "track", "dataset", "date", "metrics", "cells")])
            if seen.setdefault(who, path) != path:
                raise GradingError(
                    f"{path} and {seen[who]} hold the same {entry['track']} entry of {entry['name']}: "
                    "each class counts once, leave one of the files out"
                )


def _refuse_same_class(read: Sequence[Named]) -> None:
    seen: dict[str, str] = {}
    for path, found in read:
        for group in found["classes"]:
            if group["name"] in seen:
                raise GradingError(
                    f"{path} and {seen[group['name']]} are both of a class {group['name']!r}: call them "
                    "differently, with a --name for each file"
                )
            seen[group["name"]] = path
        strange = {e["class"] for e in found["entries"] if e["class"]} - {g["name"] for g in found["classes"]}
        if strange:
            raise GradingError(
                f"{path} has entries of a class {min(strange)!r}, not among its classes: export again"
            )


def _refuse_mixed_names(read: Sequence[Named]) -> None:
    kinds = {found["names"]: path for path, found in read}
    if len(kinds) > 1:
        raise GradingError(
            f"{kinds['id']} names students, {kinds['pseudonym']} holds pseudonyms for the public: export "
            "both with the same --names"
        )


def _common_rules(read: Sequence[Named], unknown_rules: bool) -> tuple[dict[str, Any], list[str]]:
    """The rules that all files were measured by, and the classes that do not say theirs."""
    rules: dict[str, dict[str, str]] = {}
    whose: dict[str, str] = {}
    unsure: list[str] = []
    for path, found in read:
        missing = [track for track in tracks_of(found["entries"]) if track not in found["rules"]]
        if missing and not unknown_rules:
            raise GradingError(
                f"{path} does not say by which rules of {', '.join(missing)} it was measured: export again, "
                "or use --unknown-rules, which says so on the page"
            )
        if missing:
            unsure += [group["name"] for group in found["classes"]]
        for track, parts in found["rules"].items():
            known = rules.setdefault(track, parts)
            other = whose.setdefault(track, path)
            differ = sorted(p for p in {*parts, *known} if parts.get(p) != known.get(p))
            if differ:
                raise GradingError(
                    f"{path} was measured by other rules of {track} than {other} ({', '.join(differ)}): "
                    f"results compare by the same rules only, `tito grade {track} --force` and export again"
                )
    return rules, unsure


def _references(read: Sequence[Named]) -> tuple[list[dict[str, Any]], list[str]]:
    """The course's own entries, each once, as measured last; and what to say where there were several."""
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    dates: dict[tuple[Any, ...], set[str]] = {}
    for _, found in read:
        for entry in found["entries"]:
            if entry["badge"] == "reference":
                key = (entry["name"], entry["track"], entry["dataset"])
                dates.setdefault(key, set()).add(entry["date"])
                if key not in newest or newest[key]["date"] < entry["date"]:
                    newest[key] = entry
    notes = [
        f"{key[0]} was measured {len(found)} times; shown is the last of them, of {max(found)[:10]}."
        for key, found in dates.items()
        if len(found) > 1
    ]
    return list(newest.values()), notes


def _machines(entries: Sequence[dict[str, Any]]) -> list[str]:
    """A note where the speeds of a track come from different machines."""
    kinds: dict[str, set[str]] = {}
    for entry in entries:
        if entry["track"] and entry["badge"] != "reference":
            kinds.setdefault(entry["track"], set()).add(machine(entry))
    differ = sorted(track for track, found in kinds.items() if len(found) > 1)
    return [SPEEDS.format(", ".join(differ))] if differ else []


def machine(entry: dict[str, Any]) -> str:
    """The machine that an entry was timed on, in words; two that read alike are taken for one kind."""
    found = entry.get("machine") or {}
    words = {"processor": "{}", "cores": "{} cores", "numpy": "NumPy {}"}
    parts = [text.format(found[key]) for key, text in words.items() if found.get(key)]
    return ", ".join(parts) or "a machine not on record"
