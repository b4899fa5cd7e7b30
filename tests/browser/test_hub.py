"""A class on JupyterHub with the handbook's own settings: log-ins, a JupyterLab for each, one exchange."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect

from tests import servers
from tests.browser.conftest import WIDE, patient
from tests.browser.lab import Notebook, expose, free_port, open_notebook
from tests.browser.test_class import agree, assignment, list_of_assignments, row
from tests.browser.test_first_day import solutions
from tests.people import ROOT, Person, give, passwords, people, root_command, shared_folder

pytestmark = pytest.mark.browser
CONFIG = ROOT / "course" / "hub" / "jupyterhub_config.py"
COURSE, LESSON, PASSWORD = "olympics", "01_tensor", "tensors all the way"
EXCHANGE = "/srv/nbgrader/exchange"


@pytest.fixture(scope="module")
def hub() -> Iterator[tuple[str, dict[str, Person]]]:
    """A running JupyterHub, its address, and who has an account; all but eve are in the course's group."""
    pytest.importorskip("jupyterhub", reason="JupyterHub is not installed: make .venv/hub.stamp")
    if not shutil.which("configurable-http-proxy"):
        pytest.skip("no configurable-http-proxy: apt-get install node-configurable-http-proxy")
    if not shutil.which("openssl"):
        pytest.skip("no openssl, which hashes the passwords")
    if ROOT.is_relative_to("/srv"):
        pytest.skip("/srv is put out of sight here, and the course lies in it")
    with shared_folder() as house:
        teacher, ada, berta, eve = people(house, "teacher", "ada", "berta", "eve")
        passwords(house, PASSWORD, COURSE, [teacher, ada, berta], [eve])
        for person in (teacher, ada, berta):
            person.home.chmod(0o755)  # as Debian's useradd leaves it
            give(person, expose(person.home))
        with running(house) as address:
            yield address, {person.name: person for person in (teacher, ada, berta, eve)}


@contextmanager
def running(house: Path) -> Iterator[str]:
    """JupyterHub with the handbook's settings, but for ports that are free; gives its address."""
    place, log = house / "hub", house / "hub.log"
    place.mkdir(mode=0o700)
    for last in (False,) * (servers.STARTS - 1) + (True,):
        address = f"http://127.0.0.1:{free_port()}"
        words = ["-m", "jupyterhub", "-f", CONFIG, f"--JupyterHub.bind_url={address}",
                 f"--JupyterHub.hub_port={free_port()}",
                 f"--ConfigurableHTTPProxy.api_url=http://127.0.0.1:{free_port()}"]  # fmt: skip
        with servers.on_a_leash(root_command(house, *words), log, cwd=place) as hub:
            try:
                servers.until(partial(servers.answers, f"{address}/hub/login"), hub, log)
            except AssertionError:  # another program took a port before it did
                if last or "EADDRINUSE" not in log.read_text() and "in use" not in log.read_text():
                    raise
                continue
            yield address
            return


def log_in(page: Page, address: str, name: str) -> None:
    page.goto(address)
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


@contextmanager
def desk(browser: Browser, address: str, name: str) -> Iterator[Page]:
    """The browser of a person who has logged in and whose JupyterLab is starting."""
    context = patient(browser.new_context(viewport=WIDE))  # type: ignore[arg-type]
    page = context.new_page()
    log_in(page, address, name)
    yield page
    context.close()


def ready(page: Page, address: str, name: str) -> str:
    """Wait for a person's JupyterLab; gives its address."""
    page.wait_for_url(f"{address}/user/{name}/lab*")
    page.wait_for_selector(".jp-LabShell")
    return f"{address}/user/{name}/lab"


def solve(page: Page, lab: str, answers: dict[str, str]) -> Notebook:
    """Open the fetched notebook, type answers, save."""
    lesson = open_notebook(page, lab, f"{LESSON}/{LESSON}.ipynb")
    for grade_id, source in answers.items():
        lesson.type(lesson.find(grade_id), source)
    lesson.save()
    return lesson


def fetch(page: Page, lab: str) -> None:
    """Fetch the lesson by the assignment list."""
    list_of_assignments(page, lab)
    assignment(page, LESSON).get_by_role("button", name="Fetch").click()
    expect(assignment(page, LESSON).get_by_role("button", name="Submit")).to_be_visible()


def submit(page: Page, lab: str) -> None:
    """Hand the lesson in by the assignment list."""
    list_of_assignments(page, lab)
    assignment(page, LESSON).get_by_role("button", name="Submit").click()
    expect(page.locator(".list_item", has_text="UTC").first).to_be_visible()  # the time of the submission


def feedback(page: Page, lab: str) -> FrameLocator:
    """Fetch the feedback by the assignment list, follow its link, and open the page that is there."""
    list_of_assignments(page, lab)
    page.get_by_role("button", name="Fetch Feedback").click()
    page.get_by_text("(view feedback)").click()
    page.locator(".jp-DirListing-item", has_text=f"{LESSON}.html").dblclick()
    return page.frame_locator(".jp-HTMLViewer iframe")


def test_a_class_from_log_in_to_feedback(browser, shots, hub):
    address, accounts = hub
    teacher = accounts["teacher"]
    roster, course = teacher.home / "roster.csv", teacher.home / COURSE
    roster.write_text("id,first_name,last_name\nada,Ada,L\nberta,Berta,B\n")
    give(teacher, roster)
    answers = solutions(LESSON)
    first = next(iter(answers))
    with desk(browser, address, "ada") as page, desk(browser, address, "berta") as hers:
        teacher.run("-m", "tito", "course", "init", course, "--name", COURSE, "--exchange", EXCHANGE,
                    "--students", roster, "--lessons", ROOT)  # fmt: skip
        teacher.run("-m", "tito", "release", LESSON, "--publish", cwd=course)
        lab, other = ready(page, address, "ada"), ready(hers, address, "berta")
        fetch(page, lab)
        shots(page, "hub-1-fetched")
        lesson = solve(page, lab, answers)
        lesson.run([lesson.find("setup"), lesson.find("complete")])
        assert "13 of 13 checks" in lesson.text(lesson.find("complete"))
        lesson.save()
        shots(page, "hub-2-completed")
        list_of_assignments(page, lab)
        assignment(page, LESSON).locator("a").first.click()
        page.get_by_role("button", name="Validate").first.click()
        expect(page.locator(".jp-Dialog")).to_contain_text("Success")
        shots(page, "hub-3-validated")
        submit(page, lab)
        shots(page, "hub-4-submitted")
        fetch(hers, other)
        solve(hers, other, {first: answers[first]})
        submit(hers, other)

        with desk(browser, address, "teacher") as front:
            front.goto(ready(front, address, "teacher").removesuffix("lab") + "formgrader/manage_assignments")
            row(front, LESSON).locator("td.collect a").click()
            agree(front)
            row(front, LESSON).locator("td.num-submissions a").click()
            for name in ("ada", "berta"):
                row(front, name).locator("td.autograde a").click()
                agree(front)
            shots(front, "hub-5-autograded")
        said = teacher.run("-m", "tito", "explain", "ada", LESSON, cwd=course)
        assert "in the gradebook: 28 points" in said and "sandbox" in said, said
        teacher.run("-m", "tito", "feedback", LESSON, "--publish", cwd=course)

        for sheet, place, score in ((page, lab, "28.0 / 28.0"), (hers, other, "3.0 / 28.0")):
            expect(feedback(sheet, place).locator("body")).to_contain_text(f"(Score: {score})")
            shots(sheet, f"hub-6-feedback-{place.split('/')[-2]}")

        # what an instructor has is not in a student's menus, and tito's settings are
        page.get_by_role("menuitem", name="Nbgrader", exact=True).click()
        names = page.locator(".lm-Menu-content .lm-Menu-itemLabel:visible").all_inner_texts()
        shots(page, "hub-7-menu")
        assert names == ["Assignment List"], names
        page.keyboard.press("Escape")
        interval = page.evaluate(
            """() => window.jupyterapp.serviceManager.settings
            .fetch("@jupyterlab/docmanager-extension:plugin")
            .then(found => found.schema.properties.autosaveInterval)"""
        )
        assert interval["default"] == 15, interval

        said = page.request.get(other)
        assert said.status == 403, f"ada at berta's JupyterLab: {said.status}"
    apart(accounts, course)


def apart(accounts: dict[str, Person], course: Path) -> None:
    """What ada's account reads of others' work: nothing, be their homes as useradd makes them."""
    ada, berta = accounts["ada"], accounts["berta"]
    inbound = Path(EXCHANGE) / COURSE / "inbound"
    for look in (
        f"os.listdir({str(inbound)!r})",
        f"os.listdir({EXCHANGE + '/' + COURSE + '/feedback'!r})",
        f"open({str(berta.home / LESSON / LESSON)!r} + '.ipynb')",
        f"os.listdir({str(berta.home / LESSON / 'feedback')!r})",
        f"open({str(course / 'source' / LESSON / LESSON)!r} + '.ipynb')",
        f"open({str(course / 'gradebook.db')!r})",
        f"os.listdir({str(course / 'submitted')!r})",
        "open('/srv/nbgrader/hub/jupyterhub.sqlite')",
        "open('/srv/nbgrader/hub/cookie_secret')",
        "open('/srv/nbgrader/settings/all/nbgrader_config.py', 'a')",
    ):
        assert "PermissionError" in ada.run("-c", f"import os; {look}", code=1), look


def test_an_account_outside_the_course_is_refused(page, hub):
    address, accounts = hub
    log_in(page, address, "eve")
    expect(page.locator("body")).to_contain_text("Invalid username or password")
    log = accounts["eve"].house / "hub.log"
    assert "User 'eve' not allowed" in log.read_text()  # and the password was right
