"""Count what quality.py's formula needs, with public linters. Run inside the sandbox, on code of students."""

import json
import subprocess
import sys
from pathlib import Path

from interrogate.config import InterrogateConfig
from interrogate.coverage import InterrogateCoverage
from radon.complexity import cc_visit


def _count(folder: Path, rules: str) -> dict[str, object]:
    """Everything the formula needs."""
    lines, functions = 0, []
    files = sorted(folder.rglob("*.py"))
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
            blocks = cc_visit(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            place = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
            return {"unreadable": f"{file.relative_to(folder)}{place} is not Python: {type(error).__name__}"}
        lines += sum(bool(line.strip()) for line in text.splitlines())
        functions += [
            [block.complexity, block.endline - block.lineno + 1] for block in blocks if block.letter in "FM"
        ]
    if not lines:
        return {"unreadable": "", "lines": 0}
    options = ["--isolated", "--no-cache", "--ignore-noqa", "--exit-zero", "--output-format", "json"]
    options += ["--select", rules, "--line-length", "110", "--target-version", "py311"]
    options += ["--ignore", "E741"]  # "O" is this course's letter for output channels
    ruff = [sys.executable, "-I", "-m", "ruff", "check", *options, str(folder)]
    linted = subprocess.run(ruff, capture_output=True, check=True, cwd=folder)
    findings: dict[str, int] = {}
    for finding in json.loads(linted.stdout):
        code = finding["code"] or "syntax"
        findings[code] = findings.get(code, 0) + 1
    settings = InterrogateConfig(
        ignore_init_method=True, ignore_magic=True, ignore_private=True, ignore_semiprivate=True,
        ignore_nested_functions=True, ignore_nested_classes=True, ignore_property_decorators=True,
    )  # fmt: skip
    covered = InterrogateCoverage(paths=[str(file) for file in files], conf=settings).get_coverage()
    return {
        "unreadable": "",
        "lines": lines,
        "findings": findings,
        "functions": functions,
        "documented": covered.covered,
        "public": covered.total,
    }


if __name__ == "__main__":
    print(json.dumps(_count(Path(sys.argv[1]), sys.argv[2])))
