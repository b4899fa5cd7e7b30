"""A real browser on the real thing: fixtures for `make browser`.

Every step leaves a picture in tests/browser/shots/ for a person to look at, and so does a test that fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests import servers
from tests.browser.lab import PATIENCE_S, expose
from tito.instructor import bundle

ROOT = Path(__file__).resolve().parents[2]
SHOTS = Path(__file__).with_name("shots")
BOOK = ROOT / "build" / "book"
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 740}
expect.set_options(timeout=1000 * PATIENCE_S)


def patient(context: BrowserContext) -> BrowserContext:
    """The same, with time for a busy machine."""
    context.set_default_timeout(1000 * PATIENCE_S)
    return context


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's chromium. Fails where there is none: `make browser` installs it."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.fail("no chromium on this machine: apt-get install chromium, or run `make browser`")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of its own; the mark `phone` makes it 375 pixels wide, `dark` asks for dark colours."""
    phone, dark = (request.node.get_closest_marker(name) for name in ("phone", "dark"))
    context = patient(
        browser.new_context(
            viewport=PHONE if phone else WIDE,  # type: ignore[arg-type]
            color_scheme="dark" if dark else "light",
            accept_downloads=True,
        )
    )
    made = context.new_page()
    failures = request.session.testsfailed
    yield made
    if request.session.testsfailed > failures:
        _shoot(made, f"failed-{request.node.name}")
    context.close()


@pytest.fixture
def shots() -> Callable[[Page, str], Path]:
    """A function that keeps a picture of the page as shots/<name>.png."""
    return _shoot


def _shoot(page: Page, name: str) -> Path:
    SHOTS.mkdir(exist_ok=True)
    path = SHOTS / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.png"
    page.screenshot(path=path)
    return path


@pytest.fixture(scope="session")
def book() -> Path:
    """The built handbook; `make browser` builds it first."""
    if not (BOOK / "index.html").is_file():
        pytest.fail(f"{BOOK} holds no handbook: run `make book` first")
    return BOOK


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment in which the student bundle was installed as its README says; returns its tito."""
    folder = tmp_path_factory.mktemp("student")
    wheel, archive = bundle.make(ROOT, ROOT, folder / "dist")
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    unpacked = folder / archive.stem
    python = str(unpacked / "env" / "bin" / "python")
    uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", python, "--no-deps"]
    for command in (  # uv in pip's place: the same packages by the same hashes, in seconds
        [sys.executable, "-m", "venv", "env"],
        [*uv, "--require-hashes", "-r", "requirements.txt"],
        [python, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check", wheel.name],
    ):
        done = subprocess.run(command, cwd=unpacked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return unpacked / "env" / "bin" / "tito"


@pytest.fixture
def tito_lab(student: Path, tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Starts `tito lab` on a workspace, as a student with a home of their own; gives the address to open."""
    home, runtime, log = tmp_path / "home", tmp_path / "run", tmp_path / "lab.log"
    home.mkdir()
    expose(home)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "PYTHON"))}
    env |= {"HOME": str(home), "SHELL": "/bin/bash", "JUPYTER_RUNTIME_DIR": str(runtime)}
    with ExitStack() as running:

        def start(workspace: Path) -> str:
            command = [student, "lab", workspace, "--no-browser", "--port", "0"]
            server = running.enter_context(servers.jupyter(command, runtime, log, env=env))
            return server.at("lab/tree/Start.md")

        yield start
