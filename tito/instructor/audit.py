"""The instructor's checks of a track's board: `tito olympics audit` and `tito olympics retime`.

An audit trains an entry again by its own script (autograder.gradebook.audit); a re-timing measures the
course's own entry again where the rules have changed. Both are entered into the course's ledger.
"""

from __future__ import annotations

import json
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from autograder import sandbox
from autograder.data import datasets
from autograder.files import write_text
from autograder.scoring import rules, scorer, staging
from autograder.scratch import scratch_folder
from tito.errors import TitoError
from tito.student.olympics import Json, TrackOption

if TYPE_CHECKING:
    from autograder.course import Course

CourseOption = Annotated[
    Path | None, typer.Option("--course", help="The course folder; default: the one here.")
]


# ---- commands


def audit(
    entry: Annotated[Path, typer.Argument(help="A submission's folder, such as submitted/ada/vision.")],
    track: TrackOption = "vision",
    dataset: Annotated[
        str | None, typer.Option(help="Default: the course's, for tracks of pictures.")
    ] = None,
    limit_s: Annotated[
        float | None, typer.Option("--limit-s", help="Seconds for the script; default: the track's limit.")
    ] = None,
    level: Annotated[str | None, typer.Option(help="Sandbox level: bubblewrap or landlock.")] = None,
    course: CourseOption = None,
    to: Annotated[
        Path | None, typer.Option(help="Folder for audit.json and train.log; default: in grading/audits.")
    ] = None,
    as_json: Json = False,
) -> None:
    """For instructors: train an entry again by its own train.py, in the sandbox, and compare the models.

    The outcome goes to the course's ledger, and with it the badge `audited`. Exit code 0: passed, else 1.
    """
    found = run_audit(entry, track, dataset, limit_s, level, course, to)
    if as_json:
        print(json.dumps(found))
    else:
        for line in audit_lines(found):
            print(line)
    if found["outcome"] != "passed":
        raise typer.Exit(1)


def retime(
    track: TrackOption = "vision",
    course: CourseOption = None,
    level: Annotated[str | None, typer.Option(help=sandbox.HELP)] = None,
    force: Annotated[bool, typer.Option(help="Also where the rules are the same.")] = False,
    as_json: Json = False,
) -> None:
    """For instructors: measure the course's own entry again where the track's rules have changed."""
    done = run_retime(track, course, level, force)
    if as_json:
        print(json.dumps(done))
        return
    for line in retime_lines(done):
        print(line)


# ---- what the commands and tests share


def run_audit(
    entry: Path,
    track: str,
    dataset: str | None,
    limit_s: float | None,
    level: str | None,
    root: Path | None,
    to: Path | None,
) -> dict[str, Any]:
    """Audit an entry, keep audit.json and train.log, and enter the outcome into the course's ledger.

    Without a course here nothing is entered, and "ledger" is None. Raises TitoError.
    """
    from autograder.gradebook import audit as audits
    from autograder.scoring import ledger

    rule, place = _rule(track), _course(root)
    if not entry.is_dir():
        raise TitoError(f"{entry} is no folder: expected a submission, as `tito olympics submit` packs it")
    entry = entry.resolve()
    name = entry.parent.name if entry.name == track else entry.name
    if to is None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        home = place.grading / "audits" if place else Path.cwd() / "audits"
        to = home / f"{name}-{track}-{stamp}"
    fault = ledger.verify(place.grading) if place else ""
    if fault:  # before hours of training
        raise TitoError(fault)
    bar = _Bar(limit_s or rule.limits.training_s)
    try:
        with bar:
            found = audits.audit(
                entry, track, rule.dataset(dataset or _course_dataset(place)), to / "train.log",
                limit_s=limit_s, level=level, secret=place.secret() if place else secrets.token_hex(16),
                progress=bar.at,
            )  # fmt: skip
        done = {**found.to_dict(), "name": name, "ledger": None}
        if place:
            done["ledger"] = ledger.append(place.grading, audits.for_ledger(found, name))["line"]
        to.mkdir(parents=True, exist_ok=True)
        write_text(to / "audit.json", json.dumps(done, indent=1) + "\n")
    except (audits.AuditError, ledger.LedgerError, ValueError) as error:
        raise TitoError(str(error)) from error
    except OSError as error:
        raise TitoError(f"cannot write to {error.filename or to}: {error.strerror or error}") from error
    return {**done, "kept": str(to)}


def audit_lines(found: dict[str, Any]) -> list[str]:
    """An audit in words."""
    lines = [f"{found['track']} entry {found['name']} on {found['dataset']}: {found['outcome']}"]
    lines += [f"  {reason}" for reason in found["reasons"]]
    for which in ("submitted", "retrained"):
        if found[which] is not None:
            size = f", {found[which + '_bytes']:,} bytes" if found[which + "_bytes"] else ""
            lines.append(f"  {which:<10} {found['metric'].replace('_', ' ')} {found[which]:.4f}{size}")
    if found["seconds"] is not None:
        lines.append(f"  training   {found['seconds']:,.1f} s, declared {found['declared_seconds']:,.1f} s")
    where = f"line {found['ledger']} of the ledger" if found["ledger"] else "no course here: in no ledger"
    return [*lines, f"  kept in {found['kept']}; {where}"]


def run_retime(track: str, root: Path | None, level: str | None, force: bool) -> dict[str, Any]:
    """Measure the course's entry anew if its line in the ledger has other rules than today's, or none.

    The board then shows the new figures in place of those of its result.json. Raises TitoError.
    """
    from autograder.leaderboard.export import reference_path, reference_result
    from autograder.scoring import ledger

    rule, place = _rule(track), _course(root)
    if place is None:
        raise TitoError("there is no course here: go to the folder with nbgrader_config.py, or name --course")
    old = reference_result(place.root, track)
    if old is None:
        raise TitoError(
            f"the course has no {track} entry with a result.json: course/entries/score.py makes one"
        )
    try:
        lines = [line for line in ledger.read(place.grading) if line.get("track") == track]
        own = [e for e in lines if e["kind"] == "retiming"]
        now, before = rules.fingerprint(rule), own[-1]["rules"] if own else {}
        changed = [part for part in now if now[part] != before.get(part)] if before else []
        stale = {e["name"] for e in lines if e["kind"] == "grading" and e["rules"] != now}
        stale -= {e["name"] for e in lines if e["kind"] == "grading" and e["rules"] == now}
        done: dict[str, Any] = {
            "track": track, "recorded": bool(before), "changed": changed, "stale": sorted(stale),
            "before": _key_figures(rule, old), "after": None, "ledger": None,
        }  # fmt: skip
        if before and not changed and not force:
            return done
        with scratch_folder("retime") as scratch:
            entry = staging.course_entry(track, scratch / track)
            conditions = scorer.Conditions(level=sandbox.choose(level), secret=place.secret())
            result = scorer.score(track, entry, old["dataset"], old["split"], conditions)
            if not result.valid:
                raise TitoError(f"the course's {track} entry is INVALID now: {'; '.join(result.reasons)}")
            new = result.to_dict()
            line = ledger.result("retiming", "course entry", ledger.digest(entry), new)
        done.update(after=_key_figures(rule, new), ledger=ledger.append(place.grading, line)["line"])
        path = reference_path(place.root, track)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(new, indent=1, sort_keys=True) + "\n")
    except (ledger.LedgerError, ValueError) as error:
        raise TitoError(str(error)) from error
    return done


def retime_lines(done: dict[str, Any]) -> list[str]:
    """A re-timing in words."""
    if not done["recorded"]:
        why = "its rules were not on record yet"
    else:
        why = (
            f"the rules changed in {', '.join(done['changed'])}"
            if done["changed"]
            else "the rules are the same"
        )
    lines = [f"{done['track']}: {why}" + ("" if done["after"] else ", nothing to measure (--force does)")]
    if done["after"]:
        lines += [f"  {name:<18} {was} -> {done['after'][name]}" for name, was in done["before"].items()]
        lines.append(f"  line {done['ledger']} of the ledger")
    if done["stale"]:
        lines.append(
            f"  graded by older rules: {', '.join(done['stale'])}: `tito grade {done['track']} --force`"
        )
    return lines


def _key_figures(rule: rules.Track, result: dict[str, Any]) -> dict[str, Any]:
    names = (rule.metric, rule.rate, "size_bytes")
    return {**{name: result["metrics"].get(name) for name in names}, "points": result.get("total")}


def _rule(track: str) -> rules.Track:
    try:
        return rules.track(track)
    except ValueError as error:
        raise TitoError(str(error)) from error


def _course(root: Path | None) -> Course | None:
    """The course in the given folder, or the one around this folder; None where there is none."""
    from autograder.course import Course
    from tito.instructor import grading

    if root is not None:
        return Course.at(grading.find(root))
    try:
        return Course.at(grading.find(None))
    except TitoError:
        return None


def _course_dataset(place: Course | None) -> str:
    """The data set that the course's nbgrader_config.py names, or what is on this machine."""
    from autograder.gradebook.records import nbgrader_config

    if place is None:
        return datasets.usual()
    return str(nbgrader_config(place).Judged.get("dataset", "") or datasets.usual())


class _Bar:
    """How much of its time a script has used, on stderr: a bar on a terminal, nothing elsewhere."""

    def __init__(self, limit_s: float) -> None:
        self._bar = tqdm(
            desc="train.py", total=round(limit_s), unit="s", file=sys.stderr, leave=False, disable=None,
            bar_format="{desc} {bar:20} {n:.0f} of {total:.0f} s at most{postfix}", dynamic_ncols=True,
            postfix="the submitted model is measured first",
        )  # fmt: skip

    def at(self, seconds: float, line: str) -> None:
        """So many seconds have passed; `line` is what the script printed last."""
        self._bar.n = min(round(seconds), self._bar.total)
        self._bar.set_postfix_str(line[:60])

    def __enter__(self) -> None:
        return None

    def __exit__(self, *reason: object) -> None:
        self._bar.close()
