"""The course grade by its formula, and marks as Canvas, Moodle and a spreadsheet read them."""

import csv
import datetime
import io
import json
from dataclasses import asdict

import nbformat
import pytest
from nbgrader.api import Gradebook

from autograder.course import Course
from autograder.gradebook.judging import Judgement
from autograder.gradebook.records import nbgrader_config, record_path
from autograder.notebooks.execute import CellResult
from autograder.scoring import rules
from autograder.term import course_grade, gradebook_csv, marks
from tests.leaderboard.test_export import RESULT
from tests.small_course import Tito

CELLS = {
    "01_a": {"test-a": 6, "why": 4},
    "02_b": {"test-b": 10},
    "vision": {"accuracy": 90, "innovation": 10},
    "report": {"report-question": 10, "report-findings": 20},
    "03_c": {},  # not released yet
}
BY_HAND = ("why", "innovation", "report-question", "report-findings")
HANDED_IN = datetime.datetime(2026, 11, 1)
PEOPLE = {
    "ada": ("Ada", "Lovelace", "ada@example.org", "101"),
    "ben": ("Benjamin", '=HYPERLINK("http://evil","x")', "", ""),
    "cleo": ("Cléo", 'de "Mérode", jr', "cleo@example.org", ""),
    "dan": ("", "", "", "104"),
}


def submit(book, course, student, assignment, points, late=0.0, track=None):
    """A graded submission; points None: a cell that a person has not marked yet."""
    found = book.update_or_create_submission(assignment, student, timestamp=HANDED_IN)
    cells = []
    for name, earned in points.items():
        grade = book.find_grade(name, assignment, assignment, student)
        if name in BY_HAND:
            grade.manual_score, grade.needs_manual_grade = earned, earned is None
        else:
            grade.auto_score, grade.needs_manual_grade = earned, False
        cells.append(CellResult(name, earned, CELLS[assignment][name], ""))
    found.notebooks[0].late_submission_penalty = late
    book.db.commit()
    judgement = Judgement(student, assignment, "key", "rlimits", cells, date="2026-11-20", track=track)
    path = record_path(course, student, assignment)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**vars(judgement), "cells": [asdict(cell) for cell in cells]}))


def entry(score, quality, valid=True):
    metrics = {**RESULT["metrics"], "quality": quality}
    return {**RESULT, "metrics": metrics, "valid": valid, "reasons": [] if valid else ["a pickle"]}


@pytest.fixture
def course(tmp_path):
    """ada did everything, ben waits for marks by hand, cleo is late and INVALID, dan handed in nothing."""
    root = tmp_path / "course"
    (root / "course" / "entries").mkdir(parents=True)
    (root / "nbgrader_config.py").write_text("c = get_config()\n")
    (root / "course" / "deadlines.toml").write_text(
        "[due]\n02_b = 2026-01-01T00:00:00Z\n01_a = 2026-01-01T00:00:00Z\n[extension.dan]\n01_a = 100000\n"
    )
    made = Course(root, root)
    nbgrader_config(made)
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as book:
        for assignment, cells in CELLS.items():
            book.add_assignment(assignment)
            book.add_notebook(assignment, assignment)
            for name, most in cells.items():
                book.add_grade_cell(name, assignment, assignment, max_score=most, cell_type="code")
        for student, (first, last, email, number) in PEOPLE.items():
            book.add_student(student, first_name=first, last_name=last, email=email, lms_user_id=number)
        submit(book, made, "ada", "01_a", {"test-a": 6, "why": 3})
        submit(book, made, "ada", "02_b", {"test-b": 8})
        submit(book, made, "ada", "vision", {"accuracy": 80, "innovation": 9}, track=entry(80, 0.9))
        submit(book, made, "ada", "report", {"report-question": 8, "report-findings": 16})
        submit(book, made, "ben", "01_a", {"test-a": 3, "why": None})
        submit(book, made, "ben", "vision", {"accuracy": 40, "innovation": None}, track=entry(40, 0.5))
        submit(book, made, "ben", "report", {"report-question": 5, "report-findings": None})
        submit(book, made, "cleo", "01_a", {"test-a": 6, "why": 4}, late=2.5)
        submit(book, made, "cleo", "02_b", {"test-b": 10}, late=20)
        submit(book, made, "cleo", "vision", {"accuracy": 0, "innovation": 5}, track=entry(0, 0.8, False))
        book.update_or_create_submission("01_a", "dan")  # an extension, nothing handed in
    return made


def graded(course):
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as book:
        found = marks.collect(course, book)
        return found, {g.student: g for g in course_grade.grades(course, book, found)}


def test_the_formula(course):
    _, found = graded(course)
    names = tuple(rules.COURSE_GRADE)
    points = {s: [found[s].parts[n].points for n in names] for s in found}
    # 40 * 17/20; 30 * 24/30; 20 * 0.9; 10 * (1/2 + 1/2), first of two
    assert points["ada"] == pytest.approx([34, 24, 18, 10])
    # 02_b was due and did not come: 3 of 6 + 10, for `why` is not marked; report waits; second of two
    assert points["ben"] == [pytest.approx(40 * 3 / 16), None, pytest.approx(10), pytest.approx(5)]
    # late: 10 - 2.5, and a penalty never makes less than 0; INVALID is no rank and no quality
    assert points["cleo"] == [pytest.approx(40 * 7.5 / 20), None, 0, 0]
    # dan's extension leaves 01_a open; 02_b was due
    assert points["dan"] == [0, None, None, None]
    assert (found["ada"].total, found["ada"].of) == (pytest.approx(86), 100)
    assert (found["ben"].total, found["ben"].of) == (pytest.approx(22.5), 70)
    assert not found["ada"].final  # lesson 03_c is to come
    whys = {s: {n: found[s].parts[n].why for n in names} for s in found}
    assert "02_b" in whys["ben"][names[0]] and "01_a" in whys["ben"][names[0]]
    assert whys["ben"][names[1]] == "waits for a mark by hand: report-findings"
    assert "INVALID" in whys["cleo"][names[3]]
    assert "1 of 3 lessons" in whys["dan"][names[0]]


def test_what_is_not_there_is_not_zero(course):
    found, grades = graded(course)
    states = {
        student: {name: mark.state for name, mark in own.items()} for student, own in found.marks.items()
    }
    assert states["ben"] == {
        "01_a": marks.BY_HAND, "02_b": marks.MISSING, "vision": marks.BY_HAND, "report": marks.BY_HAND,
        "03_c": marks.OPEN,
    }  # fmt: skip
    assert states["dan"]["01_a"] == marks.OPEN and states["dan"]["report"] == marks.OPEN
    assert all(mark.points is None for own in found.marks.values() for mark in own.values()
               if mark.state != marks.GRADED)  # fmt: skip
    course.submitted("dan", "report").mkdir(parents=True)
    assert graded(course)[0].marks["dan"]["report"].state == marks.NOT_GRADED
    lines = course_grade.table(list(grades.values()))
    assert "not marked yet" in lines[2] and lines[-1].startswith("~: so far")


def test_places_are_fair_to_small_classes_and_ties():
    place = course_grade.placement
    assert place(1, [1]) == 1.0
    assert [place(rank, [1, 2]) for rank in (1, 2)] == [1.0, 0.0]
    assert [place(rank, [1, 1]) for rank in (1, 1)] == [0.5, 0.5]
    assert [place(rank, [1, 2, 2, 4]) for rank in (1, 2, 4)] == [1.0, pytest.approx(0.5), 0.0]
    for ranks in ([1, 2, 3, 4, 5], [1, 1, 1, 4, 5], [1] * 5):  # ties share what they would have had
        assert sum(place(rank, ranks) for rank in ranks) == pytest.approx(2.5)


def test_the_report_is_worth_what_the_course_says():
    source = nbformat.read("source/report/report.ipynb", 4)
    cells = [cell for cell in source.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    points = [cell.metadata.nbgrader["points"] for cell in cells]
    assert sum(points) == rules.COURSE_GRADE["technical report"]
    assert all(cell.cell_type == "markdown" and cell.metadata.nbgrader["solution"] for cell in cells)
    said = [cell.source.splitlines()[0] for cell in source.cells if cell.source.startswith("## ")]
    assert [f"({point:g} points)" in line for point, line in zip(points, said, strict=False)] == [True] * 5
    with open("course/rubric.md", encoding="utf-8") as file:
        rubric = file.read()
    assert all(f"`{cell.metadata.nbgrader['grade_id']}`" in rubric for cell in cells)


# ---- CSV


def read(text):
    return list(csv.reader(io.StringIO(text)))


CANVAS = (
    "\ufeffStudent,ID,SIS User ID,SIS Login ID,Section,01_a (4711),Quiz (12),vision (99),Final Score\r\n"
    ",,,,,,Manual Posting,,\r\n"
    "    Points Possible,,,,,10,5,100,(read only)\r\n"
    '"Lovelace, Ada",101,u-ada,ADA,"Lab 1, Monday",1,,,\r\n'
    '"Mérode, Cléo",103,cleo,cleo@example.org,Lab 2,,,,\r\n'
    '"Kant, Imma",105,u-imma,imma,Lab 2,,,,\r\n'
    '"Student, Test",999,,abcdef,Lab 1,,,,\r\n'
)


def test_canvas_keeps_what_its_export_knows(course, tmp_path):
    (tmp_path / "canvas.csv").write_text(CANVAS, encoding="utf-8", newline="")
    found, grades = graded(course)
    columns = gradebook_csv.columns(found, list(grades.values()))
    text, said = gradebook_csv.canvas(found, columns, tmp_path / "canvas.csv")
    rows = read(text)
    assert rows[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "01_a (4711)", "02_b",
                       "report", "vision (99)"]  # fmt: skip
    assert rows[1] == ["    Points Possible", "", "", "", "", "10", "10", "30", "100"]
    assert rows[2:] == [
        ["Lovelace, Ada", "101", "u-ada", "ADA", "Lab 1, Monday", "9", "8", "24", "89"],
        ["Mérode, Cléo", "103", "cleo", "cleo@example.org", "Lab 2", "7.5", "0", "", "5"],
    ]
    assert "in the gradebook, but not in the roster, and left out: ben, dan" in said


def test_canvas_without_a_roster(course):
    found, grades = graded(course)
    text, said = gradebook_csv.canvas(found, gradebook_csv.columns(found, list(grades.values()), "parts"))
    rows = read(text)
    assert rows[0][:5] == list(gradebook_csv.CANVAS) and rows[0][5:] == [*rules.COURSE_GRADE, "course total"]
    assert rows[1][5:] == ["40", "30", "20", "10", "100"]
    assert rows[2][:5] == ["Lovelace, Ada", "101", "", "ada", ""]
    assert rows[2][5:] == ["", "24", "18", "10", ""]  # a part that is not final is no mark yet
    assert rows[4][0] == 'de "Mérode", jr, Cléo' and rows[5][0] == "dan"
    assert rows[3][0].startswith("'=HYPERLINK") and any(
        "apostrophe" in line and "ben" in line for line in said
    )


def test_moodle(course, tmp_path):
    found, grades = graded(course)
    columns = gradebook_csv.columns(found, list(grades.values()))
    text, said = gradebook_csv.moodle(found, columns)
    rows = read(text)
    assert rows[0][:5] == ["Email address", "First name", "Last name", "01_a", "01_a (Feedback)"]
    assert [row[0] for row in rows[1:]] == ["ada@example.org", "cleo@example.org"]
    assert rows[2][3:5] == ["7.5", "7.5 of 10 points, after 2.5 points taken off for lateness"]
    assert rows[2][rows[0].index("report") :][:2] == ["", ""]
    assert "left out, for they have no email address: ben, dan" in said
    names = read(gradebook_csv.moodle(found, columns, "username")[0])
    assert [row[0] for row in names[1:]] == sorted(PEOPLE)
    (tmp_path / "m.csv").write_text(
        "First name;Surname;Username;Email address\nAda;L;u1;Ada@Example.org\nBen;B;ben;b@x.org\n"
    )
    text, said = gradebook_csv.moodle(found, columns, "email", tmp_path / "m.csv")
    assert [row[0] for row in read(text)[1:]] == ["Ada@Example.org", "b@x.org"]  # as Moodle spells them
    assert any(line.endswith("left out: cleo, dan") for line in said)


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "＝1"])
def test_no_cell_is_a_formula(start):
    assert gradebook_csv._cell(start) == "'" + start
    assert gradebook_csv._cell(-1.5) == "-1.5" and gradebook_csv._cell(0.0) == "0"
    assert gradebook_csv._cell(1234.56789) == "1234.5679"


def test_the_command(course, tmp_path, monkeypatch, capsys):
    tito = Tito(monkeypatch, capsys)
    here = ("course", "grades", "--course", course.root)
    assert "86.0 of 100, not final" in tito(*here)
    assert "second" not in tito(*here, "ben") and "vision 2 of 2" in tito.out
    assert tito.json(*here, "ben")["grades"][0]["parts"]["technical report"]["points"] is None
    tito(*here, "--format", "csv", "--to", tmp_path / "all.csv")
    rows = read((tmp_path / "all.csv").read_text())
    assert len(rows) == 5 and rows[0][-1] == "course total" and "left empty" in tito.err
    assert tito(*here, "--format", "canvas").count("\n") == 6
    assert "table, csv, canvas, moodle" in tito.refuses(*here, "--format", "xlsx")
    assert "expected one of ada" in tito.refuses(*here, "eve")
    (tmp_path / "no.csv").write_text("a,b\n1,2\n")
    assert "no gradebook of Canvas" in tito.refuses(
        *here, "--format", "canvas", "--roster", tmp_path / "no.csv"
    )
    assert "no column 'ID number'" in tito.refuses(
        *here, "--format", "moodle", "--identity", "idnumber", "--roster", tmp_path / "no.csv"
    )


def test_the_pages_commands_are_there(monkeypatch, capsys):
    """What the instructor's pages run exists: every `tito` word and option of their console blocks."""
    import re
    from pathlib import Path

    tito = Tito(monkeypatch, capsys)
    places = [Path("course/instructor", f"{name}.md") for name in ("setup", "schedule", "grades")]
    pages = [place.read_text(encoding="utf-8") for place in places]
    blocks = [
        block for page in pages for block in re.findall(r"^```\{console\}\n(.*?)^```", page, re.M | re.S)
    ]
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("tito ")]
    assert len(commands) > 8
    for line in commands:
        words = line.split(" | ")[0].split()[1:]
        path = words[:2] if words[0] == "course" else words[:1]
        known = tito(*path, "--help")
        assert all(word in known for word in words if word.startswith("--")), line
