"""A course made by `tito course init`: complete, never overwritten, and the same by mouse as by command."""

import datetime
import os
import pwd
import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from autograder import folders, sandbox
from autograder.course import Course
from autograder.gradebook import records as recording
from tests.formgrader import server, student
from tests.notebook_cells import answer, check, essay, notebook
from tests.small_course import Tito, edit

ME = pwd.getpwuid(os.getuid()).pw_name
BODY = "def {name}(x):\n    ### BEGIN SOLUTION\n    return {does}\n    ### END SOLUTION"
SCHEDULE = """title = "Tiny"
[[week]]
title = "All of it"
assignments = [
    { name = "01_one", release = 0, due = 6, hours = 1 },
    { name = "02_two", release = 0, due = 6, hours = 1 },
    { name = "report", release = 0, due = 6, hours = 1 },
]
"""


def lesson(name, does):
    return notebook(
        answer(name, BODY.format(name=name, does=does)),
        check("test-value", f"assert {name}(2) == {eval(does, {'x': 2})}, 'look at {name}'", 2),
        check("test-hidden", f"### BEGIN HIDDEN TESTS\nfor secret_number in (7, 9):\n"
              f"    expected = {does.replace('x', 'secret_number')}\n"
              f"    assert {name}(secret_number) == expected, 'another number fails'\n"
              "### END HIDDEN TESTS", 3),
        essay("why", "Say why.", 5),
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """What an instructor has beside an installed tito: lessons with solutions, and the package."""
    root = tmp_path_factory.mktemp("bundle")
    for name, does in (("01_one", "x + x"), ("02_two", "x * x")):
        (root / "source" / name).mkdir(parents=True)
        nbformat.write(lesson(name[3:], does), root / "source" / name / f"{name}.ipynb")
    (root / "tinytorch").mkdir()
    (root / "tinytorch" / "__init__.py").write_text("")
    (root / "tiny.toml").write_text(SCHEDULE)
    (root / "roster.csv").write_text(f"id,first_name,last_name,email\n{ME},Ada,Lovelace,ada@example.org\n")
    return root


def init(tito, bundle, folder, *options):
    words = ("--lessons", bundle, "--weeks", bundle / "tiny.toml", "--start", "2037-01-05")
    return tito.json("course", "init", folder, *words, "--students", bundle / "roster.csv", *options)


@pytest.fixture
def tito(monkeypatch, capsys):
    monkeypatch.setattr("tito.instructor.course_folder.repository", lambda: None)
    return Tito(monkeypatch, capsys)


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_course_is_complete(tito, bundle, tmp_path):
    added = init(tito, bundle, tmp_path / "dl-37", "--timezone", "Europe/Berlin")["added"]
    root = tmp_path / "dl-37"
    assert "2 notebooks in source/" in added and "1 student in the gradebook" in added
    config = recording.nbgrader_config(Course.at(root))
    assert config.CourseDirectory.course_id == "dl-37"
    assert config.Exchange.root == str(root / "exchange")
    modes = {
        "": 0o1777,
        "dl-37": 0o755,
        "dl-37/outbound": 0o755,
        "dl-37/inbound": 0o3733,
        "dl-37/feedback": 0o711,
    }
    assert {name: (root / "exchange" / name).stat().st_mode & 0o7777 for name in modes} == modes
    due = tomllib.loads((root / "course" / "deadlines.toml").read_text())["due"]
    assert due == dict.fromkeys(
        ("01_one", "02_two"), datetime.datetime.fromisoformat("2037-01-11T23:59:00+01:00")
    )
    with Gradebook(config.CourseDirectory.db_url) as gradebook:
        assert {a.name: a.duedate for a in gradebook.assignments} == dict.fromkeys(
            due, datetime.datetime(2037, 1, 11, 22, 59)
        )
        (ada,) = gradebook.students
        assert (ada.id, ada.first_name, ada.last_name, ada.email) == (
            ME,
            "Ada",
            "Lovelace",
            "ada@example.org",
        )
    assert (root / "pseudonyms.csv").read_text() == f"student,pseudonym\n{ME},\n"
    assert "tito release 01_one 02_two --publish" in (root / "README.md").read_text()
    weeks = tito.json("course", "schedule", "--course", root)  # its own schedule knows its start
    assert (weeks["start"], weeks["timezone"]) == ("2037-01-05", "Europe/Berlin")


def test_other_accounts_of_the_machine_see_nothing_of_a_course(tito, bundle, tmp_path):
    """Homes that useradd makes are open to all, and a course holds solutions and students' work."""
    init(tito, bundle, tmp_path / "homes" / "dl")
    assert (tmp_path / "homes" / "dl").stat().st_mode & 0o777 == 0o700
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o770)  # by somebody who teaches with others
    init(tito, bundle, tmp_path / "shared")
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o770


def test_again_it_adds_what_is_missing_and_overwrites_nothing(tito, bundle, tmp_path):
    root = tmp_path / "dl"
    init(tito, bundle, root)
    (root / "README.md").write_text("my own words")
    (root / "course" / "deadlines.toml").write_text("[due]\n01_one = 2037-02-01T12:00:00Z\n")
    (root / "source" / "01_one" / "01_one.ipynb").write_text("{}")
    before = snapshot(root)
    assert init(tito, bundle, root)["added"] == []
    assert snapshot(root) == before
    (root / "pseudonyms.csv").unlink()
    more = bundle / "more.csv"
    more.write_text(f"id,first_name\n{ME},Somebody else\nkurt,Kurt\n")
    found = tito.json("course", "init", root, "--lessons", bundle, "--weeks", bundle / "tiny.toml",
                      "--students", more)  # fmt: skip
    assert found["added"] == ["pseudonyms.csv", "1 student in the gradebook"]
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        assert {s.id: s.first_name for s in gradebook.students} == {ME: "Ada", "kurt": "Kurt"}
    left = snapshot(root)
    assert {path for path in left if left[path] != before.get(path)} <= {
        root / "pseudonyms.csv", root / "gradebook.db"
    }  # fmt: skip


def test_what_cannot_be_made_is_said(tito, bundle, tmp_path, monkeypatch):
    new = tmp_path / "new"
    assert "instructor bundle" in tito.refuses("course", "init", new, "--lessons", tmp_path)
    words = ("course", "init", new, "--lessons", bundle, "--weeks", bundle / "tiny.toml")
    assert "such as dl-2027" in tito.refuses(*words, "--name", "../up")
    assert "add --start" in tito.refuses(*words, "--skip", "2027-01-01")
    for text, says in (("id\n../ada\n", "line 2: '../ada' cannot"), ("id\nada\nada\n", "line 3: ada stands"),
                       ("name\nada\n", "cannot be a student's name"), ("id\n", "names nobody")):  # fmt: skip
        (tmp_path / "bad.csv").write_text(text)
        assert says in tito.refuses(*words, "--students", tmp_path / "bad.csv")
    monkeypatch.setattr("tito.instructor.course_folder.repository", lambda: tmp_path)
    assert "is in the course repository" in tito.refuses(*words)
    assert not new.exists()


# ---- the same by mouse and by command


def solve(notebook_path: Path, body: str) -> None:
    edit(notebook_path, "one" if "01_one" in str(notebook_path) else "two",
         lambda source: source.replace("raise NotImplementedError()", body))  # fmt: skip
    edit(notebook_path, "why", lambda source: "Because it says so.")


def hand_in(assignment, root, tmp_path, body):
    """A student's own road: nbgrader's fetch, the answer, nbgrader's submit."""
    desk, home = tmp_path / "desk", tmp_path / "student"
    student(desk, home, root, "fetch_assignment", assignment)
    released = desk / assignment / f"{assignment}.ipynb"
    text = released.read_text()
    assert "secret_number" not in text and f"Course {root.name}" in text
    solve(released, body)
    student(desk, home, root, "submit", assignment)


def fetched(assignment, root, tmp_path):
    """The feedback as the student gets it."""
    desk, home = tmp_path / "desk", tmp_path / "student"
    student(desk, home, root, "fetch_feedback", assignment)
    (page,) = (desk / assignment / "feedback").glob("*/*.html")
    return page


def gradebook_of(root, assignment):
    """All that the gradebook says of an assignment, without the assignment's own names."""
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        (found,) = gradebook.assignment_submissions(assignment)
        (book,) = found.notebooks
        cells = {
            grade.name: (grade.auto_score, grade.manual_score, grade.max_score, grade.needs_manual_grade)
            for grade in book.grades
        }
        return {
            "student": found.student.id, "score": found.score, "max": found.max_score, "cells": cells,
            "needs a person": found.needs_manual_grade, "late": found.total_seconds_late,
            "penalty": book.late_submission_penalty, "due": found.duedate, "failed": book.failed_tests,
        }  # fmt: skip


def files_of(root, assignment):
    folders = ("release", "submitted", "autograded", "feedback", "grading/graded", "exchange")
    found = {path.relative_to(root).as_posix() for name in folders for path in (root / name).rglob("*")}
    kept = {path for path in found if assignment in path and "+" not in path and "timestamp" not in path}
    return {path.replace(assignment, "ASSIGNMENT") for path in kept}


def test_formgrader_and_command_line_agree(tito, bundle, tmp_path):
    """One assignment goes through formgrader's API, another through `tito`: gradebook and files are alike."""
    root = tmp_path / "tiny-course"
    init(tito, bundle, root)
    config = root / "nbgrader_config.py"
    config.write_text(config.read_text() + f"\nc.Judged.level = {sandbox.choose()!r}\n")
    wrong = "return {2: 4}.get(x, 0)"  # right once, by luck: the hidden test sees it
    with server(root, tmp_path / "instructor") as formgrader:
        api = "/formgrader/api"
        assert {a["name"]: a["duedate"] for a in formgrader(f"{api}/assignments")} == dict.fromkeys(
            ("01_one", "02_two"), "2037-01-11T23:59:00"
        )
        formgrader.does(f"{api}/assignment/01_one/assign")
        formgrader.does(f"{api}/assignment/01_one/release")
        hand_in("01_one", root, tmp_path, wrong)
        formgrader.does(f"{api}/assignment/01_one/collect")
        formgrader.does(f"{api}/submission/01_one/{ME}/autograde")
        # a mark by hand, as its page saves it
        (book,) = formgrader(f"{api}/submitted_notebooks/01_one/01_one")
        (why,) = (g for g in formgrader(f"{api}/grades?submission_id={book['id']}") if g["name"] == "why")
        formgrader(f"{api}/grade/{why['id']}", {"manual_score": 4, "extra_credit": 0}, "PUT")
        formgrader.does(f"{api}/assignment/01_one/generate_feedback")
        formgrader.does(f"{api}/assignment/01_one/release_feedback")
        # the assignment list, which students have beside it, speaks of the same exchange
        listed = formgrader("/assignments?course_id=tiny-course")
        assert listed["success"] and {row["assignment_id"] for row in listed["value"]} == {"01_one"}

    tito("release", "02_two", "--publish", "--course", root)
    hand_in("02_two", root, tmp_path, wrong)
    tito("collect", "02_two", "--course", root)
    tito("grade", "02_two", "--course", root)
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        why = gradebook.find_grade("why", "02_two", "02_two", ME)
        why.manual_score, why.needs_manual_grade = 4, False
        gradebook.db.commit()
    tito("feedback", "02_two", "--publish", "--course", root)

    mouse, typed = gradebook_of(root, "01_one"), gradebook_of(root, "02_two")
    assert mouse == typed
    assert mouse["cells"]["test-value"][0] == 2 and mouse["cells"]["test-hidden"][0] == 0
    assert (mouse["score"], mouse["max"], mouse["needs a person"]) == (6, 10, False)
    assert files_of(root, "01_one") == files_of(root, "02_two")
    for name in ("01_one", "02_two"):
        (page,) = (root / "feedback" / ME / name).glob("*.html")
        assert fetched(name, root, tmp_path).read_text() == page.read_text()
        text = page.read_text()
        assert "another number fails" in text and "secret_number" not in text
    records = [recording.load_record(Course.at(root), ME, name) for name in ("01_one", "02_two")]
    assert [(c.grade_id, c.points, c.reason) for c in records[0].cells] == [
        (c.grade_id, c.points, c.reason.replace("two", "one")) for c in records[1].cells
    ]


@pytest.mark.parametrize("handed", [None, b"\xff\xfe", b"x" * 5000, "link"])
def test_who_hands_in_no_secret_stops_nobodys_feedback(tmp_path, handed):
    """nbgrader reads the file of every student: one without it would end the release for the class."""
    submitted, graded = tmp_path / "submitted", tmp_path / "graded"
    submitted.mkdir()
    graded.mkdir()
    file = submitted / recording.SECRET
    if handed == "link":
        file.symlink_to("/etc/hostname")
    elif handed is not None:
        file.write_bytes(handed)
    recording.keep_secret(submitted, graded)
    found = (graded / recording.SECRET).read_text()
    assert len(found) == 128 and set(found) <= set("0123456789abcdef")
    file.unlink(missing_ok=True)
    file.write_text("mine")
    recording.keep_secret(submitted, graded)
    assert (graded / recording.SECRET).read_text() == "mine"


# ---- folders with odd names

ODD = "Kurs (1) C++ #100%20 größe {x} $NO_SUCH & 'q' \"d\" ; 李|<b>\\n^~ "


def test_a_course_in_a_folder_with_an_odd_name(tito, bundle, tmp_path):
    """From the first command to the page: what is no pattern, variable or list of folders is a name."""
    root = tmp_path / ODD
    (tmp_path / "plain").mkdir()
    init(tito, bundle, root, "--name", "odd")
    assert recording.nbgrader_config(Course.at(root)).CourseDirectory.course_id == "odd"
    tito("release", "01_one", "--publish", "--course", root)
    desk, home = tmp_path / "desk", tmp_path / "student"
    student(desk, home, root, "fetch_assignment", "01_one", name="odd")
    solve(desk / "01_one" / "01_one.ipynb", "return x + x")
    student(desk, home, root, "submit", "01_one", name="odd")
    assert tito.json("collect", "01_one", "--course", root)["students"] == [ME]
    assert "5.0 of 10" in tito("grade", "01_one", "--course", root)
    tito("feedback", "01_one", "--publish", "--course", root)
    student(desk, home, root, "fetch_feedback", "01_one", name="odd")
    assert len(list((desk / "01_one" / "feedback").glob("*/*.html"))) == 1
    tito("export", "--names", "id", "--course", root)
    tito("leaderboard", "--course", root)
    assert (root / "leaderboard.html").is_file() and (root / "gradebook.db").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {root.name, "plain", "desk", "student"}


@pytest.mark.parametrize("name", ["100%", "%20%3F", "a#b", "C++", "a@b", "ü 李", "-x", "a;b", "~"])
def test_the_gradebook_lies_in_its_course(name, tmp_path):
    place = tmp_path / name / "gradebook.db"
    place.parent.mkdir()
    with Gradebook(folders.database_url(place)) as gradebook:
        gradebook.add_student("ada")
    assert place.is_file() and list(tmp_path.iterdir()) == [place.parent]


def test_a_course_made_before_its_address_was_quoted(tito, bundle, tmp_path):
    root = tmp_path / "100%20"
    init(tito, bundle, root, "--name", "old")
    config = root / "nbgrader_config.py"
    line = "c.CourseDirectory.db_url = f\"sqlite:///{ROOT / 'gradebook.db'}\"\n"
    config.write_text(config.read_text().replace("c.Exchange.root", line + "c.Exchange.root", 1))
    assert init(tito, bundle, root, "--name", "old")["added"] == []
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize("name", ["a*b", "a?b", "a[1]", "a:b", "x$HOME", "a\nb", "a\x1bb", "a\udcff"])
def test_a_folder_that_nbgrader_cannot_use_is_refused(tito, bundle, tmp_path, name, monkeypatch):
    """At the first step, with nothing made; and where somebody has renamed the folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ("course", "init", "--lessons", bundle, "--weeks", bundle / "tiny.toml", "--name", "odd")
    for folder in ([tmp_path / name], [tmp_path / "new", "--exchange", tmp_path / name]):
        assert "choose another name" in tito.refuses(*words, *folder)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / name).mkdir()
    (tmp_path / name / "nbgrader_config.py").touch()
    monkeypatch.chdir(tmp_path / name)
    assert "choose another name" in tito.refuses("grade", "--all")


def test_the_next_command_can_be_pasted(tito, bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("course", "init", "--lessons", bundle, "--weeks", bundle / "tiny.toml", "--name", "odd")
    said = tito(*words, "--", "-a 'b' $c")
    (command,) = re.findall(r"Next: `(.*)`;", said)
    done = subprocess.run(["sh", "-c", f"{command} && pwd"], capture_output=True, text=True)
    assert done.stdout == f"{tmp_path}/-a 'b' $c\n", done.stderr
