"""nbgrader's exchange, a real folder: two students with accounts of their own, and what each can see."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange import ExchangeError
from traitlets.config import Config

from autograder.course import Course
from autograder.gradebook import levels, records
from autograder.gradebook.exchange import Collect, ReleaseFeedback
from tests.notebook_cells import answer, check, notebook
from tests.people import Person, give, people, shared_folder

COURSE = "tiny"
CONFIG = """
c = get_config()
c.CourseDirectory.course_id = {course!r}
c.Exchange.root = {exchange!r}
"""
TEACHES = """
from autograder.gradebook.pipeline import configure

c.CourseDirectory.root = {root!r}
configure(c)
"""
SOURCE = notebook(
    answer("f", "def f(x):\n    ### BEGIN SOLUTION\n    return x + 1\n    ### END SOLUTION"),
    check("test-f", "assert f(1) == 2, f'f(1): expected 2, got {f(1)}'", 2),
)


@pytest.fixture(scope="module")
def class_of_two() -> Iterator[tuple[Person, Person, Person, Path]]:
    """A teacher whose course has one assignment, two students, and the exchange that they share."""
    with shared_folder() as folder:
        yield *_class_of_two(folder), folder / "exchange"


def _class_of_two(folder: Path) -> list[Person]:
    teacher, ada, berta = people(folder, "teacher", "ada", "berta")
    exchange = folder / "exchange"
    exchange.mkdir()
    exchange.chmod(0o1777)
    settings = CONFIG.format(course=COURSE, exchange=str(exchange))
    course = teacher.home / "course"
    (course / "source" / "01_tiny").mkdir(parents=True)
    nbformat.write(SOURCE, course / "source" / "01_tiny" / "01_tiny.ipynb")
    (course / "tinytorch").mkdir()
    (course / "tinytorch" / "__init__.py").write_text("")
    (course / "nbgrader_config.py").write_text(settings + TEACHES.format(root=str(course)))
    for student in (ada, berta):
        (student.home / "nbgrader_config.py").write_text(settings)
        give(student, student.home)
    give(teacher, teacher.home)
    return [teacher, ada, berta]


def write(student: Person, text: str) -> None:
    path = student.home / "01_tiny" / "01_tiny.ipynb"
    nb = nbformat.read(path, 4)
    next(cell for cell in nb.cells if cell.metadata.nbgrader.grade_id == "f").source = text
    nbformat.write(nb, path)


@pytest.fixture
def handed_in(class_of_two) -> tuple[Person, Person, Person, Path]:
    """The class after both have handed in and were collected, by the test above where that ran before."""
    teacher, ada, berta, exchange = class_of_two
    course = teacher.home / "course"
    if not (course / "submitted").is_dir():
        teacher.run("-m", "tito", "release", "01_tiny", "--publish", cwd=course)
        for student in (ada, berta):
            student.run("-m", "nbgrader", "fetch_assignment", "01_tiny")
            student.run("-m", "nbgrader", "submit", "01_tiny")
        teacher.run("-m", "tito", "collect", "01_tiny", cwd=course)
    return class_of_two


@pytest.mark.xdist_group("exchange")  # one class for both
def test_two_students_from_release_to_feedback(class_of_two):
    teacher, ada, berta, exchange = class_of_two
    course = teacher.home / "course"
    tito = ("-m", "tito")
    teacher.run(*tito, "release", "01_tiny", "--publish", cwd=course)
    for student in (ada, berta):
        assert "01_tiny" in student.run("-m", "nbgrader", "list")
        student.run("-m", "nbgrader", "fetch_assignment", "01_tiny")
        assert "NotImplementedError" in student.run("-m", "nbgrader", "validate", "01_tiny/01_tiny.ipynb")
    write(ada, "def f(x):\n    return 1 + x")
    write(berta, "def f(x):\n    return x")
    assert "Success" in ada.run("-m", "nbgrader", "validate", "01_tiny/01_tiny.ipynb")
    # what is fetched again replaces nothing that was typed
    ada.run("-m", "nbgrader", "fetch_assignment", "01_tiny", code=1)
    assert "return 1 + x" in (ada.home / "01_tiny" / "01_tiny.ipynb").read_text()
    for student in (ada, berta):
        student.run("-m", "nbgrader", "submit", "01_tiny")

    inbound = exchange / COURSE / "inbound"
    assert {path.name.split("+")[0] for path in inbound.iterdir()} == {"ada", "berta"}
    spy = f"import os; print(os.listdir({str(inbound)!r}))"
    assert "PermissionError" in ada.run("-c", spy, code=1)
    own = next(inbound.glob("berta+*/01_tiny.ipynb"))
    forge = f"open({str(own)!r}, 'w').write('mine now')"
    assert "PermissionError" in ada.run("-c", forge, code=1)

    said = json.loads(teacher.run(*tito, "collect", "01_tiny", "--json", cwd=course))
    assert said["students"] == ["ada", "berta"]
    teacher.run(*tito, "grade", "01_tiny", cwd=course)
    teacher.run(*tito, "feedback", "01_tiny", "--publish", cwd=course)
    teacher.run(*tito, "export", "--names", "id", cwd=course)
    with (course / "results.csv").open() as file:
        points = {row["name"]: float(row["points"]) for row in csv.DictReader(file) if not row["track"]}
    said = teacher.run(*tito, "explain", "ada", "01_tiny", cwd=course)
    assert points == {"ada": 2.0, "berta": 0.0}, said
    for student, words in ((ada, "return 1 + x"), (berta, "expected 2, got 1")):
        student.run("-m", "nbgrader", "fetch_feedback", "01_tiny")
        pages = list((student.home / "01_tiny" / "feedback").rglob("01_tiny.html"))
        assert len(pages) == 1
        assert words in html.unescape(re.sub("<[^>]+>", "", pages[0].read_text()))
    # feedback is read by the name of one's own submission, which nobody else knows
    given = exchange / COURSE / "feedback"
    assert "PermissionError" in ada.run("-c", f"import os; print(os.listdir({str(given)!r}))", code=1)


ATTACKS = {
    "a name of another": "(p / '01_tiny.ipynb').write_text('{}')",
    "a link to the solution": "os.symlink(solution, p / '01_tiny.ipynb')",
    "a pipe": "os.mkfifo(p / '01_tiny.ipynb')",
    "no time": "(p / '01_tiny.ipynb').write_text('{}')",
    "too large": "(p / '01_tiny.ipynb').touch(), os.truncate(p / '01_tiny.ipynb', 200_000_000)",
}


@pytest.mark.xdist_group("exchange")
def test_what_is_not_collected(handed_in):
    """What ada leaves in the exchange by hand stops nobody's collection, and is no submission."""
    teacher, ada, _, exchange = handed_in
    course, inbound = teacher.home / "course", exchange / COURSE / "inbound"
    script = f"import os, pathlib; solution = {str(course / 'source' / '01_tiny' / '01_tiny.ipynb')!r}\n"
    for attack, make in ATTACKS.items():
        who = "berta" if attack == "a name of another" else "ada"
        when = "yesterday" if attack == "no time" else "2030-01-01 00:00:00 UTC"
        folder = inbound / f"{who}+01_tiny+{when}+{attack}"
        script += f"p = pathlib.Path({str(folder)!r}); p.mkdir(); os.chmod(p, 0o777); {make}\n"
        script += "(p / 'timestamp.txt').write_text('2030-01-01 00:00:00 UTC')\n"
    ada.run("-c", script)
    places = [course / "submitted" / who / "01_tiny" / "01_tiny.ipynb" for who in ("ada", "berta")]
    before = [place.read_bytes() for place in places]
    lines = teacher.run("-m", "tito", "collect", "01_tiny", "--json", cwd=course, code=1).splitlines()
    assert lines[1] == "tito: 01_tiny: 5 submissions could not be collected, all others are"
    said = json.loads(lines[0])
    assert [place.read_bytes() for place in places] == before and said["students"] == ["ada", "berta"]
    for attack in ATTACKS:
        assert len([line for line in said["refused"] if attack in line]) == 1, (attack, said["refused"])


def test_an_exchange_may_be_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: what /etc/jupyter says of the exchange was not read; a course's own word counts more."""
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path / "etc"))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nbgrader_config.py").write_text(
        "c = get_config()\nc.Exchange.root = '/of/the/hub'\n"
    )
    settings = tmp_path / "nbgrader_config.py"
    settings.write_text("c = get_config()\nc.CourseDirectory.course_id = 'tiny'\n")
    config = records.exchange_config(Course.at(tmp_path))
    assert (config.Exchange.root, config.CourseDirectory.course_id) == ("/of/the/hub", "tiny")
    settings.write_text(settings.read_text() + "c.Exchange.root = '/of/the/course'\n")
    assert records.exchange_config(Course.at(tmp_path)).Exchange.root == "/of/the/course"


@pytest.fixture
def steps(tmp_path: Path) -> Config:
    """The settings of a course whose class is one account, with its exchange."""
    (tmp_path / "course").mkdir()
    levels.make(levels.Exchange(tmp_path / "exchange", COURSE))
    return Config({
        "CourseDirectory": {
            "root": str(tmp_path / "course"), "course_id": COURSE, "assignment_id": "01_tiny",
        },
        "Exchange": {"root": str(tmp_path / "exchange")},
        "ExchangeCollect": {"check_owner": False, "update": True},
    })  # fmt: skip


def test_an_exchange_that_was_moved_changes_no_time(steps: Config, tmp_path: Path) -> None:
    """What is copied to a new server has new times; what is collected and equal keeps its own."""
    handed = tmp_path / "exchange" / COURSE / "inbound" / "ada+01_tiny+2026-01-01 10:00:00 UTC+x"
    handed.mkdir()
    (handed / "01_tiny.ipynb").write_text("{}")
    collect = Collect(coursedir=CourseDirectory(config=steps), config=steps)
    collect.start()
    assert len(collect.notes) == 1 and "by this machine's clock" in collect.notes[0]
    place = tmp_path / "course" / "submitted" / "ada"
    first = (place / "01_tiny" / "timestamp.txt").read_text()
    for content, same in (("{}", True), ("{ }", False)):
        (handed / "01_tiny.ipynb").unlink()
        (handed / "01_tiny.ipynb").write_text(content)
        collect.start()
        assert ((place / "01_tiny" / "timestamp.txt").read_text() == first) is same
    assert (place / "01_tiny" / "01_tiny.ipynb").read_text() == "{ }"
    assert [path.name for path in place.iterdir()] == ["01_tiny"], "something was left there"


def test_the_newest_that_can_be_taken(steps: Config, tmp_path: Path) -> None:
    """A student whose last submission cannot be taken has the one before; and hears of it."""
    for name in ("first", "second"):
        handed = tmp_path / "exchange" / COURSE / "inbound" / f"ada+01_tiny+2026-01-01 10:00:00 UTC+{name}"
        handed.mkdir()
        (handed / "01_tiny.ipynb").write_text(name)
    (handed / "data").symlink_to(tmp_path)
    collect = Collect(coursedir=CourseDirectory(config=steps), config=steps)
    with pytest.raises(ExchangeError, match="1 submission could not be collected, all others are"):
        collect.start()
    assert (
        "second" in collect.refused[0] and "'data' in it is neither a file nor a folder" in collect.refused[0]
    )
    assert (tmp_path / "course" / "submitted" / "ada" / "01_tiny" / "01_tiny.ipynb").read_text() == "first"


def test_feedback_that_cannot_be_published_stops_no_others(steps: Config, tmp_path: Path) -> None:
    """A submission made by hand has no secret, under whose hash its student would find the page."""
    for name in ("ada", "berta"):
        folder = tmp_path / "course" / "feedback" / name / "01_tiny"
        folder.mkdir(parents=True)
        for file in ("01_tiny.html", "timestamp.txt", "submission_secret.txt"):
            (folder / file).write_text(name)
    (tmp_path / "course" / "feedback" / "ada" / "01_tiny" / "submission_secret.txt").unlink()
    with pytest.raises(ExchangeError, match="the feedback of 1 was not published, that of all others is"):
        ReleaseFeedback(coursedir=CourseDirectory(config=steps), config=steps).start()
    (page,) = (tmp_path / "exchange" / COURSE / "feedback").iterdir()
    assert page.read_text() == "berta"
