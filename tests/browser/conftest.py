"""What the browser tests share; the lead's conftest.py replaces this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Chromium, once a session."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser: object) -> Iterator[object]:
    """A new page in a context of its own."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})  # type: ignore[attr-defined]
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def shots() -> Callable[[object, str], Path]:
    """Keep a picture of a page: shots(page, "name")."""
    folder = ROOT / "build" / "shots"
    folder.mkdir(parents=True, exist_ok=True)

    def keep(page: object, name: str) -> Path:
        path = folder / f"{name}.png"
        page.screenshot(path=path)  # type: ignore[attr-defined]
        return path

    return keep


@pytest.fixture(scope="session")
def book() -> Path:
    """The built handbook; TITO_BOOK names one that is built already."""
    if built := os.environ.get("TITO_BOOK"):
        return Path(built).resolve()
    out = ROOT / "build" / "book"
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-E", "-q", "-b", "html", ROOT / "course", out], check=True
    )
    return out
