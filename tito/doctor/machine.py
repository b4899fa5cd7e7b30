"""Look at this machine by the table of checks, and say it: whole, in two to six lines, or as data.

`python3 -m tito.doctor`, in a clone, is the short form before any package is installed: it ends with code 2
where something is lacking that grading needs, the demo's too. `tito doctor` is the whole.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autograder import streams
from tito.doctor import checks, installed
from tito.doctor.checks import ROADS, Check

PATIENCE_S = (
    15.0  # for all checks together; one that hangs (a network drive that is gone) is said, not waited for
)
_MOST_LINES = 6
ELSEWHERE = "-"  # the mark of what only a road that was not asked for lacks


@dataclass(frozen=True)
class Machine:
    """What was found. `roads`: those that have to be open, for this machine to be ready."""

    checks: tuple[Check, ...]
    roads: tuple[str, ...]
    system: str

    def closed(self, road: str) -> list[Check]:
        """What keeps a road from being walked here."""
        return [check for check in self.checks if road in check.stops]

    @property
    def necessary(self) -> list[Check]:
        """What is lacking that has to be there."""
        return [check for check in self.checks if set(check.stops) & set(self.roads)]

    @property
    def notes(self) -> list[Check]:
        """What is lacking beside that."""
        return [check for check in self.checks if check.state != "ok" and check not in self.necessary]

    def found(self, name: str) -> str:
        """What a check found; empty where it was not made."""
        return next((check.found for check in self.checks if check.name == name), "")


def look(roads: Sequence[str] = (), bare: bool = False) -> Machine:
    """Make the checks; `bare`: those that need no package. roads: as main_roads(), if none is named."""
    roads = tuple(roads) or main_roads()
    first = checks.python()
    if first.stops:  # the others need what this Python has not
        return Machine((first,), roads, checks.os_name()[0])
    todo: list[Callable[[], Check]] = list(checks.BARE[1:])
    if not bare:
        todo += installed.PROGRAMS
        todo += [installed.packages, *(_of_extra(extra) for extra in installed.extras())]
        todo += installed.COURSE
    return Machine((first, *_answers(todo)), roads, checks.os_name()[0])


def main_roads() -> tuple[str, ...]:
    """What a machine is for, as one can tell: a student's work; grading too, in a course or its clone."""
    grades = sys.platform == "linux" and (checks.is_clone() or checks.mark_above("nbgrader_config.py"))
    return ("student", "grading") if grades else ("student",)


def _of_extra(extra: str) -> Callable[[], Check]:
    def packages() -> Check:
        return installed.packages(extra)

    packages.__name__ = f"packages [{extra}]"
    return packages


def _answers(todo: Sequence[Callable[[], Check]]) -> list[Check]:
    """All checks at the same time, each in a thread that nobody waits for at the end."""
    answers: queue.SimpleQueue[tuple[int, Check]] = queue.SimpleQueue()
    for number, check in enumerate(todo):
        threading.Thread(target=lambda n=number, c=check: answers.put((n, _made(c))), daemon=True).start()
    found: dict[int, Check] = {}
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < len(todo):
        try:
            number, answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        found[number] = answer
    late = f"no answer in {PATIENCE_S:g} s"
    return [found.get(number) or _unknown(check, late) for number, check in enumerate(todo)]


def _made(check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:  # said as what it is: the other checks are worth having all the same
        return _unknown(check, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _unknown(check: Callable[[], Check], why: str) -> Check:
    name = check.__name__.replace("_", " ")
    return Check(name, "broken", why, "this could not be looked at; please report it")


# ---- how it is said


def lines(machine: Machine) -> list[str]:
    """Everything: what is there, what is not with its meaning and its mend, and which roads are open."""
    said = [f"{machine.system}, Python {checks.platform.python_version()}", ""]
    width = max(len(check.name) for check in machine.checks)
    for check in machine.checks:
        said.append(f"{_mark(check, machine):<6}  {check.name:<{width}}  {check.found}")
        if _mark(check, machine) == ELSEWHERE:  # the last lines say which road, and --for says the rest
            continue
        indent = " " * (8 + width + 2)
        if check.meaning:
            said.append(f"{indent}{check.meaning}")
        if check.mend:
            said.append(f"{indent}mend: {check.mend}")
    said.append("")
    width = max(map(len, ROADS.values()))
    for road, title in ROADS.items():
        closed = machine.closed(road)
        if closed and road not in machine.roads:
            lacking = ", ".join(check.name for check in closed)
            said.append(f"{title:<{width}}  lacks {lacking}: `tito doctor --for {road}` says how to mend it")
        elif road in machine.roads or road in checks.WORK or checks.is_clone():
            said.append(f"{title:<{width}}  {_lacking(closed) if closed else _ready(road, machine)}")
    return said


def short(machine: Machine) -> list[str]:
    """Two to six lines: the machine, what cannot work, and what is weaker or left out."""
    level = machine.found("level")
    parts = [machine.system, f"Python {checks.platform.python_version()}", *_sizes(machine)]
    said = [
        f"this machine: {', '.join(parts)}" + (f"; sandbox level {level.partition(',')[0]}" if level else "")
    ]
    necessary = machine.necessary
    room = _MOST_LINES - 2
    for check in necessary[:room]:
        said.append(f"{check.state}: {check.name}: {check.found}: {check.meaning}{_to_mend(check)}")
    weaker = next((check for check in machine.notes if check.name == "bubblewrap"), None)
    if weaker and len(necessary) < room:
        said.append(f"note: no {weaker.name} ({weaker.found}): {weaker.meaning}{_to_mend(weaker)}")
    ready = "something is lacking" if necessary else "ready"
    rest = [check.name for check in necessary[room:]]
    rest += [check.name for check in machine.notes if not check.stops and check is not weaker]
    said.append(f"{ready}; " + (f"more on {', '.join(rest)}" if rest else "more") + ": `tito doctor`")
    return said


def data(machine: Machine) -> dict[str, Any]:
    """The same as JSON holds it."""
    return {
        "ready": not machine.necessary,
        "system": machine.system,
        "roads": {road: [check.name for check in machine.closed(road)] for road in ROADS},
        "asked": list(machine.roads),
        "checks": [asdict(check) for check in machine.checks],
    }


def _sizes(machine: Machine) -> list[str]:
    cores, memory, disk = (machine.found(name) for name in ("cores", "memory", "disk"))
    said = [f"{cores} cores" if cores else "", memory and f"{memory} memory", disk.partition(" at ")[0]]
    return [part for part in said if part]


def _to_mend(check: Check) -> str:
    return f"; mend: {check.mend}" if check.mend else ""


def _mark(check: Check, machine: Machine) -> str:
    if check.state == "ok" or check in machine.necessary:
        return check.state
    return ELSEWHERE if check.stops else "note"


def _lacking(closed: Sequence[Check]) -> str:
    return "lacks " + "; ".join(
        f"{check.name}" + (f" ({check.mend})" if check.mend else "") for check in closed
    )


def _ready(road: str, machine: Machine) -> str:
    level = machine.found("level")
    return f"ready, at sandbox level {level}" if road == "grading" and level else "ready"


def main() -> int:
    """The short form, by the standard library alone; the exit code."""
    streams.ready()
    machine = look(("grading",), bare=True)
    print("\n".join(short(machine)), flush=True)
    return 2 if machine.necessary else 0
