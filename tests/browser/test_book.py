"""The handbook in a browser: accessible in light and dark, found by its search, whole on a phone, offline."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def pages(book: Path) -> list[Path]:
    return [path for path in sorted(book.rglob("*.html")) if "_static" not in path.parts]


def themed(page, path, theme):
    """Open a page in one theme, as a reader who has chosen it."""
    page.add_init_script(f"localStorage.mode = localStorage.theme = {theme!r}")
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.dataset.theme") == theme


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page, book, theme):
    """No violation of WCAG A or AA on any page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = []
    themed(page, book / "index.html", theme)
    for path in pages(book):
        page.goto(path.as_uri())
        response = axe.run(
            page, options={"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": LEVELS}}
        ).response
        for violation in response["violations"]:
            first = violation["nodes"][0]
            found.append(
                (
                    path.relative_to(book).as_posix(),
                    violation["id"],
                    len(violation["nodes"]),
                    first["html"][:150],
                )
            )
    assert not found, "\n".join(map(str, found[:40]))


def test_axe_finds_what_is_planted(page, book):
    """The check above can fail: a picture without a text, and grey on grey."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    themed(page, book / "start.html", "light")
    page.evaluate("""document.querySelector("article").insertAdjacentHTML("afterbegin",
        '<img src="x.png"><p style="color:#999;background:#aaa">faint</p>')""")
    options = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": LEVELS}}
    found = {violation["id"] for violation in axe.run(page, options=options).response["violations"]}
    assert {"image-alt", "color-contrast"} <= found


def test_search_finds_a_page_and_leads_there(page, book, shots):
    page.goto((book / "index.html").as_uri())
    page.get_by_role("button", name="Search").first.click()
    field = page.locator("input[type=search]:visible").first
    field.fill("roofline")
    field.press("Enter")
    hit = page.locator("#search-results a", has_text="Acceleration").first
    hit.wait_for()
    shots(page, "book-search")
    hit.click()
    assert "18_acceleration.html" in page.url
    assert "Acceleration" in page.locator("h1").inner_text()


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("late days", "instructor/index.html"),
        ("conv2d slow", "lessons/09_spatial.html"),
        ("submit", "student/index.html"),
        ("seed", "api/tensor.html"),
        ("nan loss", "student/troubles.html"),
        ("restore notebook", "student/index.html"),
        ("feedback", "student/index.html"),
        ("Canvas csv", "instructor/grades.html"),
        ("memory limit", "student/troubles.html"),
        ("kv cache", "lessons/17_memoization.html"),
    ],
)
def test_what_people_type_leads_to_a_page_for_people(page, book, query, wanted):
    """The page is among the first three that the search finds."""
    page.goto((book / "search.html").as_uri() + f"?q={query.replace(' ', '+')}")
    page.get_by_text(re.compile("^Search finished, found")).wait_for()  # they are drawn one after the other
    found = page.evaluate(
        "[...document.querySelectorAll('#search-results li a')]"
        ".map(link => link.getAttribute('href').split(/[?#]/)[0])"
    )
    assert wanted in list(dict.fromkeys(found))[:3], found[:6]


@pytest.mark.parametrize("width", [960, 1140, 1141, 1280])
def test_the_navigation_is_one_row(page, book, shots, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto((book / "student" / "index.html").as_uri())
    shots(page, f"book-{width}")
    tops = page.evaluate(
        "[...document.querySelectorAll('.bd-navbar-elements, .navbar-header-items .search-button-field')]"
        ".filter(e => e.offsetWidth).map(e => e.getBoundingClientRect())"
        ".map(box => [box.top + box.height / 2, box.right])"
    )
    (menu, _), (search, right) = tops
    assert abs(menu - search) < 12 and right < width, tops
    links = page.locator(".bd-header ul.bd-navbar-elements > li").filter(visible=True)
    middles = links.evaluate_all(
        "all => all.map(e => e.getBoundingClientRect()).map(b => b.top + b.height / 2)"
    )
    assert len(middles) == 8 and max(middles) - min(middles) < 4, "More stood below the others at 960 pixels"
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_search_says_when_nothing_is_found(page, book):
    page.goto((book / "search.html").as_uri() + "?q=xylophone")
    page.get_by_text("did not match any documents").wait_for()


@pytest.mark.parametrize(
    "name", ["index", "start", "lessons/index", "scoring/calculator", "student/troubles", "attacks"]
)
def test_a_phone_shows_the_whole_width(page, book, shots, name):
    """Nothing sticks out of a screen 375 pixels wide: wide tables and code scroll inside their frames."""
    page.set_viewport_size({"width": 375, "height": 812})
    page.goto((book / f"{name}.html").as_uri())
    shots(page, f"book-phone-{name.replace('/', '-')}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_nothing_is_asked_of_the_network(page, book):
    asked, failed = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    for path in pages(book)[::8]:
        page.goto(path.as_uri())
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)
    assert not failed


def test_the_calculator_answers_what_is_typed(page, book, shots):
    page.goto((book / "scoring" / "calculator.html").as_uri())
    status = page.locator("#calculator-status")
    before = status.inner_text()
    assert "points of 100" in before
    page.get_by_label("Accuracy, %").fill("50")
    assert "The gate is not passed" in status.inner_text()
    page.get_by_label("Model file, MB").fill("60")
    assert status.inner_text().startswith("INVALID")
    page.get_by_label("Track").select_option("language")
    assert page.get_by_label("Rubric").is_visible()
    assert page.locator("#calculator-result tr").count() == 5
    page.get_by_label("Bits per byte").fill("")
    assert "needs a number" in status.inner_text()
    shots(page, "book-calculator")
