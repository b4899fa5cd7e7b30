"""Code quality of a submission, counted by public linters: 0..1 by a stated formula.

    quality = 0.4 lint + 0.3 simplicity + 0.3 documentation

lint           1 - findings per 100 lines of code / 5, not below 0; findings of ruff's rules E, F, W, B and C4
               at 110 columns (without E741, one-letter names); `noqa` comments do not count
simplicity     over all functions, weighted by their lines: 1 up to a cyclomatic complexity of 10 (radon), 0
               from 20, linear between
documentation  share of public modules, classes and functions with a docstring (interrogate)

The code is the student's network.py and tinytorch/. The linters read it in the sandbox; none of it is run.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from autograder import sandbox

WEIGHTS = {"lint": 0.4, "simplicity": 0.3, "documentation": 0.3}
RULES = "E,F,W,B,C4"
FINDINGS_PER_100 = 5.0  # this many findings in 100 lines leave nothing of the lint share
SIMPLE, TANGLED = 10, 20  # cyclomatic complexity: radon's grades A-B end at 10, D begins at 21
LIMITS = sandbox.Limits(wall_s=60.0, memory_bytes=1 << 30, processes=16, threads=128)


@dataclass(frozen=True)
class Quality:
    """The value 0..1, its three shares 0..1, and a line for each that is not whole."""

    value: float
    lint: float
    simplicity: float
    documentation: float
    lines: int
    findings: int
    reasons: list[str]


def measure(folder: str | Path, *, level: str) -> Quality:
    """Quality of the Python files under `folder`, read in a sandbox of this level.

    Files that cannot be parsed, or that break the linters, give 0 with the reason; nothing is raised.
    """
    script = Path(__file__).absolute().with_name("linters.py")
    linters = sandbox.Program(
        [sys.executable, "-I", "-B", str(script), str(Path(folder).absolute()), RULES],
        readable=[folder, script],
        env={"RUFF_NO_CACHE": "true", "RAYON_NUM_THREADS": "2"},
        limits=LIMITS,
        level=level,
    )
    done = sandbox.run(linters)
    if done.reason or done.returncode != 0:
        why = done.reason or (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        return _nothing(f"the linters could not read the code ({why[:200]})")
    counted = json.loads(done.stdout)
    if counted["unreadable"]:
        return _nothing(counted["unreadable"])
    if not counted["lines"]:
        return _nothing("there is no Python code in network.py or tinytorch/")
    return combine(
        counted["lines"], counted["findings"], counted["functions"], counted["documented"], counted["public"]
    )


def combine(
    lines: int, findings: dict[str, int], functions: list[list[int]], documented: int, public: int
) -> Quality:
    """The formula. findings: count a rule; functions: [complexity, lines] each; public: names to document."""
    total = sum(findings.values())
    lint = max(0.0, 1.0 - 100.0 * total / max(lines, 1) / FINDINGS_PER_100)
    weight = sum(size for _, size in functions)
    simple = sum(size * _simplicity(complexity) for complexity, size in functions)
    simplicity = simple / weight if weight else 1.0
    documentation = documented / public if public else 1.0
    value = (
        WEIGHTS["lint"] * lint + WEIGHTS["simplicity"] * simplicity + WEIGHTS["documentation"] * documentation
    )
    reasons = []
    if total:
        worst = sorted(findings.items(), key=lambda item: (-item[1], item[0]))[:3]
        listed = ", ".join(f"{count} x {rule}" for rule, count in worst)
        reasons.append(f"{total} lint findings in {lines} lines (most: {listed})")
    tangled = sum(complexity > SIMPLE for complexity, _ in functions)
    if tangled:
        verb = "has" if tangled == 1 else "have"
        reasons.append(
            f"{tangled} of {len(functions)} functions {verb} a cyclomatic complexity above {SIMPLE}"
        )
    if documented < public:
        verb = "has" if public - documented == 1 else "have"
        reasons.append(f"{public - documented} of {public} public names {verb} no docstring")
    return Quality(round(value, 4), lint, simplicity, documentation, lines, total, reasons)


def _simplicity(complexity: int) -> float:
    return min(1.0, max(0.0, (TANGLED - complexity) / (TANGLED - SIMPLE)))


def _nothing(reason: str) -> Quality:
    return Quality(0.0, 0.0, 0.0, 0.0, 0, 0, [reason])
