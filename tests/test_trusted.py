"""The hash of what decides a grade: it changes with the trusted files, and with nothing else."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autograder import trusted
from tests import house

OTHERS = (
    "term/roster.py",
    "leaderboard/chart.py",
    "gradebook/exchange.py",
    "gradebook/records.py",
    "leash.py",
)


def test_what_decides_a_grade_imports_nothing_that_may_change_without_it():
    modules = house.sources("autograder", "tito")
    names = {f"autograder/{name}" for name in trusted.names()}
    for dotted, path in modules.items():
        if path.relative_to(house.ROOT).as_posix() in names:
            used = house.imports(ast.parse(path.read_text(encoding="utf-8")), modules)
            others = {modules[one].relative_to(house.ROOT).as_posix() for one in used} - names
            assert not others - {"autograder/gradebook/__init__.py"}, f"{dotted} imports {others}"


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("copied")
    for package in ("autograder", "tito"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(house.ROOT / package, place / package, ignore=skip)
    return place


def grader(place: Path) -> str:
    code = "from autograder import trusted; print(trusted.grader())"
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_comment_elsewhere_leaves_every_grade_as_it_is(copied):
    before = grader(copied)
    elsewhere = [copied / "autograder" / name for name in OTHERS]
    elsewhere += sorted((copied / "tito").rglob("*.py"))
    for path in elsewhere:
        path.write_text(path.read_text(encoding="utf-8") + "# a remark\n", encoding="utf-8")
    assert grader(copied) == before == trusted.grader()


@pytest.mark.parametrize("room", [*trusted.ROOMS, "notebooks/cells"])
def test_a_line_in_a_trusted_room_makes_every_grade_new_work(copied, room):
    before = grader(copied)
    for path in sorted((copied / "autograder" / room).glob("*.py"))[-1:]:
        path.write_text(path.read_text(encoding="utf-8") + "# a remark\n", encoding="utf-8")
    assert grader(copied) != before


def test_every_other_trusted_file_counts_too(copied):
    seen = {grader(copied)}
    for name in trusted.FILES:
        path = copied / "autograder" / name
        path.write_text(path.read_text(encoding="utf-8") + "# a remark\n", encoding="utf-8")
        seen.add(grader(copied))
    assert len(seen) == 1 + len(trusted.FILES)
