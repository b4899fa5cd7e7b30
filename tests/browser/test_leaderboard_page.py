"""The leaderboard in a browser: sorted, filtered, shared, accessible; on a phone, and without scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from autograder import leaderboard, results
from tests import boards

pytestmark = pytest.mark.browser
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 150 entries over all tracks, some of them hostile."""
    folder = tmp_path_factory.mktemp("board")
    exported, _ = results.write(boards.board(150), folder / "results.json")
    return leaderboard.render(exported, folder / "leaderboard.html")


def violations(page: Page) -> list[tuple[str, str]]:
    options = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": LEVELS}}
    found = Axe().run(page, options=options).response["violations"]
    return [(violation["id"], violation["nodes"][0]["html"][:160]) for violation in found]


def column(page: Page, table: str, name: str) -> list[str]:
    """The texts of one column, of the rows that are shown."""
    heads = page.locator(f"#{table} thead th").all_inner_texts()
    rows = page.locator(f"#{table} tbody tr:visible")
    return [rows.nth(i).locator("td, th").nth(heads.index(name)).inner_text() for i in range(rows.count())]


def megabytes(text: str) -> float:
    number, unit = text.split()[:2]
    return float(number) * {"MB": 1e6, "kB": 1e3}[unit]


def test_sorted_by_a_click_and_by_the_keyboard(page, board, shots):
    page.goto(board.as_uri())
    table = page.locator("table.ranking[id*=vision]").first
    name = table.get_attribute("id")
    table.locator("thead th button", has_text="Size").click()
    sizes = [megabytes(text) for text in column(page, name, "Size") if text != "-"]
    assert sizes == sorted(sizes) and len(sizes) > 5
    assert table.locator("thead th[aria-sort=ascending]").inner_text() == "Size"
    expect(page.locator("#status")).to_contain_text("sorted by Size, ascending")
    table.locator("thead th button", has_text="Size").focus()
    page.keyboard.press("Enter")
    assert [megabytes(t) for t in column(page, name, "Size") if t != "-"] == sorted(sizes, reverse=True)
    cell = table.locator("tbody td").first  # the fields' names belong to the cards of a phone
    assert cell.evaluate("cell => getComputedStyle(cell, '::before').content") in ("none", "normal")
    shots(page, "board-1-sorted")


def test_filtered_and_shared(page, board, shots, browser):
    page.goto(board.as_uri())
    page.locator("#filters [name=track]").select_option(label="Speed")
    page.locator("#filters [name=badge]").select_option("audited")
    page.get_by_label("Valid only").check()
    shown = page.locator("section.board table.ranking tbody tr:visible")
    assert 0 < shown.count() < 150
    for i in range(shown.count()):
        assert shown.nth(i).locator(".badge").inner_text() == "audited"
    expect(page.locator("section.track:visible")).to_have_count(1)
    expect(page.locator("#status")).to_have_text(f"{shown.count()} of 159 entries shown.")
    page.locator("#filters [name=q]").fill("Pseudonym 1")
    fewer, link = shown.count(), page.url
    shots(page, "board-2-filtered")
    other = browser.new_page()
    other.goto(link)
    expect(other.locator("section.board table.ranking tbody tr:visible")).to_have_count(fewer)
    assert (
        other.locator("#filters [name=badge]").input_value() == "audited"
        and other.get_by_label("Valid only").is_checked()
    )
    other.close()
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#status")).to_have_text("159 of 159 entries shown.")


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.dark)])
def test_axe_finds_nothing(page, board, shots, theme):
    page.goto(board.as_uri())
    shots(page, f"board-3-{theme}")
    assert violations(page) == []
    entry = next(p for p in board.with_suffix("").glob("*.html") if "What I did" in p.read_text())
    page.goto(entry.as_uri())
    shots(page, f"board-4-entry-{theme}")
    assert violations(page) == []


@pytest.mark.phone
def test_on_a_phone(page, board, shots):
    page.goto(board.as_uri())
    page.locator("#filters [name=track]").select_option(label="Compression")
    shots(page, "board-5-phone")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert violations(page) == []
    page.locator("section.board:visible table.ranking tbody a").first.click()
    page.wait_for_url("**/leaderboard/*.html")
    shots(page, "board-6-phone-entry")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_without_scripts_everything_is_there(browser, board):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(board.as_uri())
    assert page.locator("section.board table.ranking tbody tr").count() == 159
    expect(page.locator("#filters")).to_be_hidden()
    context.close()


def test_axe_finds_what_is_planted(page, board):
    """The checks above can fail."""
    page.goto(board.as_uri())
    page.evaluate("""document.querySelector("main").insertAdjacentHTML("afterbegin",
        '<div role="img"></div><p style="color:#999;background:#aaa">faint</p>')""")
    assert {"role-img-alt", "color-contrast"} <= {name for name, _ in violations(page)}
