"""A week of a class, by mouse: formgrader releases and grades, the assignment list fetches and hands in.

The teacher and the student have accounts of their own and share nothing but nbgrader's exchange.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import FrameLocator, Locator, Page, expect

from tests.browser.lab import expose, open_notebook
from tests.people import ROOT, Person, give, people, shared_folder
from tests.servers import jupyter

pytestmark = pytest.mark.browser
LESSON, HAND = "01_tensor", "report"


@contextmanager
def server(person: Person, folder: Path) -> Iterator[str]:
    """JupyterLab of a person in a folder; gives the address with its token."""
    give(person, expose(person.home))
    runtime = person.home / "run"
    words = ["-m", "jupyterlab", "--no-browser", "--ServerApp.port=0", f"--ServerApp.root_dir={folder}",
             "--LabApp.news_url=None"]  # fmt: skip
    command = person.command(*words, JUPYTER_RUNTIME_DIR=str(runtime))
    with jupyter(command, runtime, person.house / f"{person.name}.log", cwd=folder) as found:
        yield found.at("lab")


@pytest.fixture(scope="module")
def course() -> Iterator[tuple[Person, Person, Path]]:
    """A course made by `tito course init`, with one student enrolled."""
    with shared_folder() as house:
        teacher, ada = people(house, "teacher", "ada")
        exchange = house / "exchange"
        exchange.mkdir()
        exchange.chmod(0o1777)
        root = teacher.home / "course"
        roster = teacher.home / "roster.csv"
        roster.write_text("id,first_name,last_name\nada,Ada,L\n")
        give(teacher, roster)
        teacher.run("-m", "tito", "course", "init", root, "--name", "olympics", "--exchange", exchange,
                    "--students", roster, "--lessons", ROOT)  # fmt: skip
        settings = "c = get_config()\nc.CourseDirectory.course_id = 'olympics'\n"
        settings += f"c.Exchange.root = {str(exchange)!r}\n"
        (ada.home / "nbgrader_config.py").write_text(settings)
        give(ada, ada.home)
        yield teacher, ada, root


def menu(page: Page, *names: str) -> None:
    for name in names:
        page.get_by_role("menuitem", name=name, exact=True).first.click()


def formgrader(page: Page, address: str) -> FrameLocator:
    """Nbgrader > Formgrader, and the frame that opens."""
    page.goto(address)
    page.wait_for_selector(".jp-LabShell")
    menu(page, "Nbgrader", "Formgrader")
    frame = page.frame_locator("iframe").first
    expect(frame.locator("#manage_assignments_table, #assignments-table, table").first).to_be_visible()
    return frame


def row(frame: FrameLocator, name: str) -> Locator:
    return frame.locator("tr", has=frame.get_by_text(name, exact=True)).first


def agree(frame: FrameLocator) -> None:
    """Wait for nbgrader's word that it has worked, and close it."""
    modal = frame.locator(".modal.show, .modal.in").first
    expect(modal).to_be_visible()
    expect(modal).to_contain_text("uccess")
    modal.locator("button").last.click()
    expect(modal).to_be_hidden()


def assignment(page: Page, name: str) -> Locator:
    """A line of the assignment list."""
    return page.locator(".list_item", has_text=name).first


def list_of_assignments(page: Page, address: str) -> None:
    """Nbgrader > Assignment List."""
    page.goto(address)
    page.wait_for_selector(".jp-LabShell")
    menu(page, "Nbgrader", "Assignment List")
    expect(page.locator(".list_item").first).to_be_visible()


def test_a_week_of_a_class(page, shots, course):
    teacher, ada, root = course
    with server(teacher, root) as desk, server(ada, ada.home) as hers:
        frame = formgrader(page, desk)
        shots(page, "class-1-formgrader")
        for name in (LESSON, HAND):
            row(frame, name).locator("td.assign a").click()
            agree(frame)
            row(frame, name).locator("td.release a").click()
            agree(frame)
        shots(page, "class-2-released")

        list_of_assignments(page, hers)
        shots(page, "class-3-assignment-list")
        for name in (LESSON, HAND):
            assignment(page, name).get_by_role("button", name="Fetch").click()
            expect(assignment(page, name).get_by_role("button", name="Submit")).to_be_visible()
        shots(page, "class-4-fetched")
        lesson = open_notebook(page, hers, f"{LESSON}/{LESSON}.ipynb")
        setup = lesson.find("setup")
        lesson.run(setup)
        assert "is your workspace now" in lesson.text(setup)
        lesson.save()
        report = nbformat.read(ada.home / HAND / f"{HAND}.ipynb", 4)
        lesson = open_notebook(page, hers, f"{HAND}/{HAND}.ipynb")
        wanted = [i for i, cell in enumerate(lesson.cells()) if cell["grade"] and cell["solution"]]
        assert wanted, [cell.metadata for cell in report.cells]
        for number, position in enumerate(wanted):
            lesson.type(position, f"Answer {number}: two runs, the same seed, 0.1 points apart.")
        lesson.save()
        list_of_assignments(page, hers)
        for name in (LESSON, HAND):
            assignment(page, name).get_by_role("button", name="Submit").click()
            handed_in = page.locator(".list_item", has_text=name).filter(has_text="UTC")
            expect(handed_in.first).to_be_visible()  # the time of the submission
        shots(page, "class-5-submitted")
        inbound = root.parents[1] / "exchange" / "olympics" / "inbound"
        assert {path.name.split("+")[1] for path in inbound.iterdir()} == {LESSON, HAND}

        frame = formgrader(page, desk)
        for name in (LESSON, HAND):
            row(frame, name).locator("td.collect a").click()
            agree(frame)
        shots(page, "class-6-collected")
        for name in (HAND, LESSON):
            row(frame, name).locator("td.num-submissions a").click()
            row(frame, "ada").locator("td.autograde a").click()
            agree(frame)
            shots(page, f"class-7-autograded-{name}")
            frame.get_by_role("link", name="Manage Assignments").first.click()
            expect(row(frame, name).locator("td.num-submissions a")).to_be_visible()

        frame.get_by_role("link", name="Manual Grading").first.click()
        frame.get_by_role("link", name=HAND, exact=True).first.click()
        frame.get_by_role("link", name=HAND, exact=True).first.click()
        frame.get_by_role("link", name="Submission #1").first.click()
        mark = frame.locator("input.score").first
        expect(mark).to_be_visible()
        mark.fill("4")
        with page.expect_response(
            lambda answer: "/api/grade/" in answer.url and answer.request.method == "PUT"
        ):
            mark.blur()
        shots(page, "class-8-marked-by-hand")
        said = teacher.run("-m", "tito", "explain", "ada", HAND, cwd=root)
        assert "in the gradebook: 4 points" in said, said
