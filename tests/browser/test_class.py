"""A week of a class, by mouse: released and graded in formgrader, fetched and handed in by the assignment list.

The teacher and two students have accounts of their own and share nothing but nbgrader's exchange.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import FrameLocator, Locator, Page, expect

from tests.browser.lab import Notebook, free_port, open_notebook
from tests.people import ROOT, Person, give, people, shared_folder

pytestmark = pytest.mark.browser
LESSON, HAND = "01_tensor", "report"


@contextmanager
def server(person: Person, folder: Path) -> Iterator[str]:
    """JupyterLab of a person in a folder; gives the address with its token."""
    config = person.home / ".jupyter"
    config.mkdir(exist_ok=True)
    (config / "jupyter_server_config.json").write_text('{"LabApp": {"expose_app_in_browser": true}}')
    give(person, config)
    port, log = free_port(), person.home / "lab.log"
    words = ["-m", "jupyterlab", "--no-browser", f"--ServerApp.port={port}", "--IdentityProvider.token=secret",
             f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None"]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(person.command(*words), cwd=folder, stdout=out, stderr=subprocess.STDOUT,
                                   start_new_session=True)  # fmt: skip
    try:
        for _ in range(600):
            if "is running at" in log.read_text():
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/lab?token=secret"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


@pytest.fixture(scope="module")
def course() -> Iterator[tuple[Person, Person, Person, Path]]:
    """A course of one lesson and the report, made by `tito course init`; two students enrolled."""
    with shared_folder() as house:
        teacher, ada, berta = people(house, "teacher", "ada", "berta")
        exchange = house / "exchange"
        exchange.mkdir()
        exchange.chmod(0o777)
        root = teacher.home / "course"
        roster = teacher.home / "roster.csv"
        roster.write_text("id,first_name,last_name\nada,Ada,L\nberta,Berta,B\n")
        give(teacher, roster)
        teacher.run("-m", "tito", "course", "init", root, "--name", "olympics", "--exchange", exchange,
                    "--students", roster, "--lessons", ROOT)  # fmt: skip
        settings = f"c = get_config()\nc.CourseDirectory.course_id = 'olympics'\nc.Exchange.root = {str(exchange)!r}\n"
        for student in (ada, berta):
            (student.home / "nbgrader_config.py").write_text(settings)
            give(student, student.home)
        yield teacher, ada, berta, root


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


def agree(page: Page, frame: FrameLocator, seconds: float = 120) -> None:
    """Wait for nbgrader's word that it has worked, and close it."""
    modal = frame.locator(".modal.show, .modal.in").first
    expect(modal).to_be_visible(timeout=1000 * seconds)
    expect(modal).to_contain_text("uccess")
    modal.locator("button").last.click()
    expect(modal).to_be_hidden()


def test_a_week_of_a_class(page, shots, browser, course):
    teacher, ada, berta, root = course
    with server(teacher, root) as desk, server(ada, ada.home) as hers:
        frame = formgrader(page, desk)
        shots(page, "class-1-formgrader")
        for name in (LESSON, HAND):
            row(frame, name).locator("td.assign a").click()
            agree(page, frame)
            row(frame, name).locator("td.release a").click()
            agree(page, frame)
        shots(page, "class-2-released")
