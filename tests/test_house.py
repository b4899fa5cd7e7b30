"""What the house promises of itself: no circles, rooms of at most fourteen modules, no long function where
a grade is decided."""

from __future__ import annotations

import ast

import pytest

from autograder import moved, trusted
from tests import house

MOST_MODULES = 14
# Functions of the trusted rooms that are over 40 lines still. The set only shrinks.
KNOWN_LONG = {"autograder/data/tinytalks.py _families"}
# Those that take more than six parameters still: none.
KNOWN_MANY: set[str] = set()


@pytest.fixture(scope="module")
def measured() -> house.House:
    return house.measure()


def in_trusted_rooms(functions: list[house.Function]) -> set[str]:
    """Those that stand in files that decide a grade, as "file name": lines move, names stay."""
    files = {f"autograder/{name}" for name in trusted.names()}
    places = [(one.where.partition(":")[0], one.where.rpartition(" ")[2]) for one in functions]
    return {f"{file} {name}" for file, name in places if file in files}


def test_no_module_imports_itself_by_way_of_others(measured):
    assert measured.circles == []


def test_a_room_is_no_hall(measured):
    assert {room: n for room, n in measured.rooms.items() if n > MOST_MODULES} == {}


@pytest.mark.parametrize("kind, known", [("long", KNOWN_LONG), ("many", KNOWN_MANY)])
def test_functions_that_decide_a_grade_are_short_and_take_little(measured, kind, known):
    seen = in_trusted_rooms(getattr(measured, kind))
    assert seen - known == set(), "take them apart"
    assert known - seen == set(), "they are mended: take them off the list"


def test_the_measure_sees_a_circle_a_long_function_and_a_greedy_one(tmp_path, monkeypatch):
    monkeypatch.setattr(house, "ROOT", tmp_path)
    (tmp_path / "autograder").mkdir()
    body = "    x = 1\n" * house.LONG
    (tmp_path / "autograder" / "a.py").write_text(f"from autograder import b\n\n\ndef long():\n{body}")
    greedy = "def greedy(a, b, c, d, e, /, f, *, g): ...\n"
    (tmp_path / "autograder" / "b.py").write_text(f"{greedy}\n\ndef later():\n    import autograder.a\n")
    found = house.measure()
    assert [set(ring) for ring in found.circles] == [{"autograder.a", "autograder.b"}]
    assert [one.where for one in found.long] == ["autograder/a.py:4 long"]
    assert [one.where for one in found.many] == ["autograder/b.py:1 greedy"]
    assert found.rooms == {"autograder": 2}


def test_every_import_of_ours_leads_somewhere():
    """Everywhere: what no type checker reads, the handbook and the tests, breaks when a file moves."""
    modules = house.sources(*house.PACKAGES)
    names = {dotted: _defined(path) for dotted, path in modules.items()}
    known, lost = {*modules, *moved.NAMES}, []
    for path in [path for folder in house.HANDWRITTEN for path in (house.ROOT / folder).rglob("*.py")]:
        if "fixtures" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                wanted = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in wanted:
                home, _, last = name.rpartition(".")
                ours = name.partition(".")[0] in house.PACKAGES
                if ours and name not in known and last not in names.get(home, ()):
                    lost.append(f"{path.relative_to(house.ROOT)}:{node.lineno} {name}")
    assert lost == []


def _defined(path) -> set[str]:
    """The names that a module has at its top."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found
