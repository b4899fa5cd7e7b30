"""The ledger of results: what is appended stays, and a line that was edited, dropped or moved is found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from submissions import pictures, submission

from autograder import trusted
from autograder.gradebook import judging
from autograder.scoring import ledger, rules, scorer

ROOT = Path(__file__).resolve().parents[2]
SCORED = {
    "track": "vision", "dataset": "digits", "split": "private", "official": True, "valid": True,
    "reasons": [], "metrics": {"accuracy": 0.97, "quality": float("inf"), "speed_interval": [1.0, 2.0]},
    "points": {"accuracy": 36.0}, "level": "bubblewrap",
    "machine": {"cores": 2}, "date": "2026-11-20T10:00:00+00:00",
}  # fmt: skip


def entry(n: int) -> dict:
    return {"kind": "grading", "name": f"student {n}", "figures": {"accuracy": n / 100}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "grading"
    for n in range(4):
        ledger.append(place, entry(n))
    return place


def lines_of(folder: Path) -> list[bytes]:
    return (folder / ledger.LEDGER).read_bytes().splitlines(keepends=True)


def test_a_chain_of_lines(folder: Path) -> None:
    assert ledger.verify(folder) == ledger.verify(folder / ledger.LEDGER) == ""
    lines = ledger.read(folder)
    assert [line["line"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["before"] == ledger.START and len({line["before"] for line in lines}) == 4
    assert (folder / ledger.LEDGER).stat().st_mode & 0o077 == 0
    assert ledger.verify(folder / "nothing") == "" and ledger.read(folder / "nothing") == []


def edited(lines: list[bytes], n: int) -> list[bytes]:
    return [line.replace(b"0.0", b"0.9") if i == n else line for i, line in enumerate(lines)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: edited(lines, 1), "broken at line 3"),
        (lambda lines: edited(lines, 3), "another last line"),
        (lambda lines: lines[:1] + lines[2:], "broken at line 2"),
        (lambda lines: lines[1:], "broken at line 1"),
        (lambda lines: lines[:-1], "3 whole lines, ledger.head speaks of 4"),
        (lambda lines: [], "0 whole lines"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "broken at line 1"),
        (lambda lines: [*lines[:2], b"nonsense\n", *lines[2:]], "broken at line 3, which is no result"),
        (lambda lines: [*lines, lines[-1]], "broken at line 5"),
    ],
    ids=["edited", "last edited", "dropped", "first dropped", "last dropped", "emptied", "moved", "inserted",
         "twice"],
)  # fmt: skip
def test_a_changed_ledger_is_found(folder: Path, change, words: str) -> None:
    (folder / ledger.LEDGER).write_bytes(b"".join(change(lines_of(folder))))
    fault = ledger.verify(folder)
    assert words in fault and "\n" not in fault and "as evidence" in fault
    before = lines_of(folder)
    for call in (lambda: ledger.append(folder, entry(9)), lambda: ledger.read(folder)):
        with pytest.raises(ledger.LedgerError, match="as evidence"):
            call()
    assert lines_of(folder) == before, "nothing is built on a broken chain"


def test_a_missing_or_foreign_head_is_found(folder: Path) -> None:
    head = folder / ledger.HEAD
    head.write_text("[]")
    assert "is not a head" in ledger.verify(folder)
    head.unlink()
    assert "speaks of 0" in ledger.verify(folder)


def test_a_killed_run_leaves_a_ledger_that_goes_on(folder: Path) -> None:
    head = (folder / ledger.HEAD).read_bytes()
    ledger.append(folder, entry(4))
    (folder / ledger.HEAD).write_bytes(head)  # killed between the line and the head
    assert ledger.verify(folder) == ""
    ledger.append(folder, entry(5))
    with (folder / ledger.LEDGER).open("ab") as file:
        file.write(b'{"half": ')  # killed while it wrote the line
    assert ledger.verify(folder) == ""
    assert ledger.append(folder, entry(6))["line"] == 7
    assert ledger.verify(folder) == "" and len(ledger.read(folder)) == 7


def test_several_graders_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from autograder.scoring import ledger\n"
        "for n in range(10): ledger.append(Path(sys.argv[1]), {'kind': 'audit', 'n': n, 'who': sys.argv[2]})"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen([sys.executable, "-c", code, tmp_path, str(i)], env=env) for i in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert ledger.verify(tmp_path) == ""
    assert len(ledger.read(tmp_path)) == 30


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ledger.LedgerError, match="expected grading, audit, retiming"):
        ledger.append(tmp_path, {"kind": "gossip"})
    with pytest.raises(ledger.LedgerError, match="finite numbers"):
        ledger.append(tmp_path, {"kind": "audit", "figure": float("nan")})
    assert ledger.read(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ledger.LedgerError, match="cannot be written"):
        ledger.append(tmp_path / "file", entry(0))


def test_a_line_names_what_was_measured(tmp_path: Path) -> None:
    folder = submission(tmp_path / "ada")
    line = ledger.append(tmp_path / "grading", ledger.grading("ada", ledger.digest(folder), SCORED))
    assert (
        line["data"]
        == ledger.data("vision", "digits", "private")
        != ledger.data("vision", "digits", "public")
    )
    assert line["grader"] == trusted.grader() and line["machine"] == {"cores": 2}
    assert line["rules"] == rules.fingerprint(rules.track("vision"))
    assert line["submission"] == ledger.digest(folder)
    (folder / "timestamp.txt").write_text("nbgrader's, and no part of it")
    assert ledger.digest(folder) == line["submission"]
    (folder / "tinytorch" / "more.py").write_text("")
    assert ledger.digest(folder) != line["submission"]
    course = judging.Course(tmp_path, tmp_path)
    shutil.copytree(folder, course.submitted("ada", "vision"))
    assert judging.hashes_of(course, "ada", "vision", {})["submission"] == ledger.digest(folder)
    assert len(ledger.data("language", "tinytalks", "private")) == 64


def test_a_real_result_fits(tmp_path: Path) -> None:
    folder = submission(tmp_path / "ada")
    conditions = scorer.Conditions(level="rlimits", budget_s=0.1)
    scored = scorer.score("vision", folder, pictures(60), conditions=conditions).to_dict()
    line = ledger.append(tmp_path / "grading", ledger.grading("ada", ledger.digest(folder), scored))
    assert line["machine"] == scorer.machine() and line["date"] and line["figures"]["size_bytes"] > 0


def test_a_record_that_differs_from_the_ledger_is_found(tmp_path: Path) -> None:
    folder = submission(tmp_path / "ada")
    ledger.append(tmp_path / "grading", ledger.grading("ada", ledger.digest(folder), SCORED))
    lines = ledger.read(tmp_path / "grading")
    found = ledger.graded(lines, "ada", SCORED)
    assert found is not None and found["line"] == 1
    assert ledger.graded(lines, "ben", SCORED) is None
    with pytest.raises(ledger.LedgerError, match="vision result of ada is in no line of .*line 1"):
        ledger.graded(lines, "ada", {**SCORED, "metrics": {**SCORED["metrics"], "accuracy": 0.99}})
