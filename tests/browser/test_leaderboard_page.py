"""The leaderboard in a browser: sorted, filtered, shared, accessible; on a phone, and without scripts."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from pypdf import PdfReader

from autograder import leaderboard
from autograder.leaderboard import results_file
from autograder.leaderboard.ranking import numbered
from autograder.scoring import rules
from tests import boards

pytestmark = pytest.mark.browser
LANDSCAPE, PORTRAIT = 964, 702  # pixels of Letter and of A4 without margins, the narrower ones
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 150 entries over all tracks, some of them hostile."""
    folder = tmp_path_factory.mktemp("board")
    exported, _ = results_file.write(boards.board(150), folder / "results.json")
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
    table.get_by_role("button", name="Size", exact=True).click()
    sizes = [megabytes(text) for text in column(page, name, "Size") if text != "-"]
    assert sizes == sorted(sizes) and len(sizes) > 5
    assert table.locator("thead th[aria-sort=ascending]").inner_text() == "Size"
    expect(page.locator("#status")).to_contain_text("sorted by Size, ascending")
    table.get_by_role("button", name="Size", exact=True).focus()
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


def printed(page: Page, path: Path, paper: str) -> list[str]:
    """The text of each printed page."""
    page.pdf(path=path, format=paper)
    return [unicodedata.normalize("NFKC", sheet.extract_text()) for sheet in PdfReader(path).pages]


def beyond_the_paper(page: Page, width: int) -> list[str]:
    """Tables and pictures that are wider than a paper without its margins."""
    page.set_viewport_size({"width": width, "height": 720})
    page.emulate_media(media="print")
    return page.evaluate("""() => [...document.querySelectorAll("table, svg")]
        .filter((part) => part.getBoundingClientRect().right > innerWidth + 0.5)
        .map((part) => part.id || part.outerHTML.slice(0, 80))""")


@pytest.mark.dark
def test_it_prints(page, board, tmp_path):
    page.goto(board.as_uri())
    names = page.locator("table.ranking tbody th a").all_inner_texts()
    headings = page.locator("h2, h3, h4, caption").all_inner_texts()
    sheets = printed(page, tmp_path / "board.pdf", "A4")
    everything = "".join("".join(sheets).split())
    latin = [name for name in names if name.isascii()]
    assert len(latin) > 150 and not [name for name in latin if "".join(name.split()) not in everything]
    for sheet in sheets:
        first, *_, last = sheet.strip().splitlines()
        assert last.strip() not in headings and not last.startswith("Rank "), last  # no heading alone
        assert not re.match(r"(\d+|-) ", first) or "entries shown" in first, first  # rows have their head
    for control in ("Valid only", "Copy link", "Show all", "Badge all", "file:", "leaderboard/"):
        assert control not in "".join(sheets), control
    assert beyond_the_paper(page, LANDSCAPE) == [] and violations(page) == []


def test_a_part_is_printed_as_it_is_shown(page, board, tmp_path):
    page.goto(board.as_uri() + "#track=language&valid=1&all=1")
    page.locator("#plot-language-tinytalks summary").click()
    sheets = printed(page, tmp_path / "language.pdf", "Letter")
    everything = " ".join("".join(sheets).split())
    assert (
        "entries shown. Track: Language. Valid only. All figures." in everything
        and "CIFAR-10 pictures with" not in everything
    )
    assert "First token" in everything and "On the front" in everything and len(sheets) < 10
    assert beyond_the_paper(page, LANDSCAPE) == []


@pytest.mark.parametrize("height", [195, 200])
def test_no_head_of_a_table_stands_alone_on_a_sheet(page, board, tmp_path, height):
    page.goto(board.as_uri() + "#track=compression")
    page.add_style_tag(content=f"@page {{ size: 297mm {height}mm; }}")
    page.pdf(path=tmp_path / "sheets.pdf", prefer_css_page_size=True)
    sheets = [sheet.extract_text().strip() for sheet in PdfReader(tmp_path / "sheets.pdf").pages]
    below = [re.split(r"Rank\s↑", sheet)[-1].splitlines() for sheet in sheets if "Rank" in sheet]
    assert (
        len(below) > 6 and [lines for lines in below if len(lines) < 4] == []
    )  # the head, and a row's three


def test_an_entry_prints(page, board, tmp_path):
    entry = next(
        p
        for p in board.with_suffix("").glob("*.html")
        if "What I did" in (t := p.read_text()) and "The values" in t
    )
    page.goto(entry.as_uri())
    sheets = printed(page, tmp_path / "entry.pdf", "A4")
    size = PdfReader(tmp_path / "entry.pdf").pages[0].mediabox
    assert size.width < size.height and len(sheets) <= 3
    values = page.locator("details p").first.text_content()
    assert "".join(values.split()) in "".join("".join(sheets).split())
    assert beyond_the_paper(page, PORTRAIT) == []
    assert "A: " in sheets[0] and "The leaderboard" not in "".join(sheets)


# Pictures' lines and names, and what lies on what; two pixels of a text's height are air.
COVERED = """() => {
    const found = new Set();
    let lines = 0, names = 0;
    const box = (text) => {
        const { x, y, width, height } = text.getBBox();
        return { x0: x, x1: x + width, y0: y + 2, y1: y + height - 2, text: text.textContent };
    };
    const meet = (a, b) => a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1;
    for (const svg of document.querySelectorAll("figure[id^=history] svg")) {
        if (!svg.getBoundingClientRect().width) continue;
        const boxes = [...svg.querySelectorAll(".name, .note")].map(box);
        names += boxes.length;
        for (const line of svg.querySelectorAll(".steps, .record")) {
            lines += 1;
            for (let at = 0; at <= line.getTotalLength(); at += 2) {
                const { x, y } = line.getPointAtLength(at);
                boxes.filter((one) => meet(one, { x0: x, x1: x, y0: y, y1: y }))
                    .forEach((one) => found.add(`${one.text}: on a line`));
            }
        }
        boxes.forEach((one, n) => {
            if (one.x0 < 0 || one.x1 > svg.viewBox.baseVal.width) found.add(`${one.text}: cut`);
            boxes.slice(n + 1).filter((other) => meet(one, other))
                .forEach((other) => found.add(`${one.text}: on ${other.text}`));
        });
    }
    return [lines, names, [...found]];
}"""


@pytest.mark.parametrize("width", [1280, 375])
def test_names_in_the_history_lie_on_no_line_and_on_no_other_name(page, shots, width):
    made = [numbered(boards.board(count, seed=seed)) for count, seed in ((16, 3), (60, 5), (500, 2))]
    shown = "".join(leaderboard.show(board, track) for board in made for track in rules.TRACKS)
    style = Path(leaderboard.__file__).with_name("board.css").read_text(encoding="utf-8")
    page.set_viewport_size({"width": width, "height": 900})
    page.set_content(f"<!DOCTYPE html><style>{style}</style><main>{shown}</main>")
    lines, names, covered = page.evaluate(COVERED)
    assert covered == [] and lines > 3 * 6 and names > lines
    page.locator("figure[id^=history-speed]").last.scroll_into_view_if_needed()
    shots(page, f"board-7-history-{width}")


def test_by_keyboard_alone(page, board, shots):
    page.goto(board.as_uri())
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the results")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("Tab")  # the first table, which scrolls; then its headings
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#t-overall [aria-sort]")).to_have_text("Name")
    expect(page.locator("#status")).to_have_text("All tracks: sorted by Name, ascending.")
    expect(page.locator("#t-overall thead button", has_text="Name")).to_be_focused()
    page.locator("#filters [name=q]").focus()
    page.keyboard.type("pseudonym 12")
    expect(page.locator("#status")).to_contain_text("of 159 entries shown.")
    page.keyboard.press("Tab")
    page.keyboard.type("Spe")  # in a list, letters choose
    expect(page.locator("section.track:visible")).to_have_count(1)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Escape")
    expect(page.locator("#filters [name=q]")).to_have_value("")
    assert "q=" not in page.url and "track=speed" in page.url
    expect(page.locator("#filters [name=q]")).to_be_focused()
    page.locator("nav.top a", has_text="Vision").focus()
    page.keyboard.press("Enter")  # to what the filter hides
    expect(page.locator("#vision-title")).to_be_in_viewport()
    expect(page.locator("#filters [name=track]")).to_have_value("")


FOCUS = """() => {
    const part = document.activeElement, box = part.getBoundingClientRect(), style = getComputedStyle(part);
    const bar = document.querySelector(".top");
    const free = bar.contains(part) || part.matches(".skip");
    const covered = !free && box.y < bar.getBoundingClientRect().bottom;
    const seen = style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2;
    const name = `${part.tagName} ${part.name || part.textContent.trim().slice(0, 40)}`;
    return [name, seen && !covered && box.bottom > 0 && (box.y < innerHeight)];
}"""


@pytest.mark.phone
def test_the_focus_is_always_seen(page, board):
    """On a phone's width, where the bar on top covers most; there and back again."""
    page.emulate_media(reduced_motion="reduce")
    page.goto(board.as_uri())
    for key in ("Tab", "Shift+Tab"):
        walked = []
        for _ in range(60):
            page.keyboard.press(key)
            walked.append(page.evaluate(FOCUS))
        assert [name for name, seen in walked if not seen] == []
        page.locator("section.board table.ranking tbody a").nth(40).focus()


@pytest.mark.dark
def test_forced_colours_and_reduced_motion(page, board, shots):
    page.emulate_media(forced_colors="active", reduced_motion="reduce")
    page.goto(board.as_uri() + "#track=speed&badge=audited")
    page.locator("#plot-speed-tinytalks").scroll_into_view_if_needed()
    shots(page, "board-8-forced-colours")
    found = page.evaluate("""() => {
        const probe = document.body.appendChild(document.createElement("i"));
        const system = new Set(["none", ...["Canvas", "CanvasText", "GrayText"].map((name) => {
            probe.style.color = name;
            return getComputedStyle(probe).color;
        })]);
        const drawn = [...document.querySelectorAll("svg path, svg text")];
        return [drawn.length, drawn.filter((part) => {
            const style = getComputedStyle(part);
            return !system.has(style.fill) || !system.has(style.stroke);
        }).map((part) => part.className.baseVal)];
    }""")
    assert found[0] > 500 and found[1] == []
    lines = page.locator("#history-speed-tinytalks svg.wide .steps")
    assert (
        lines.evaluate_all("all => new Set(all.map((one) => getComputedStyle(one).strokeDasharray)).size")
        == 2
    )
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_four_times_as_large_without_scrolling_sideways(page, board, shots):
    """WCAG 1.4.10: 1280 pixels at 400 %, with everything open."""
    page.set_viewport_size({"width": 320, "height": 256})
    entries = list(board.with_suffix("").glob("*.html"))
    long, report = (next(p for p in entries if text in p.read_text()) for text in ("a" * 80, "What I did"))
    for number, address in enumerate((board.as_uri() + "#all=1", long.as_uri(), report.as_uri())):
        page.goto(address)
        page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        wide = page.evaluate("""() => [...document.querySelectorAll("body *")]
            .filter((part) => part.getBoundingClientRect().right > 320.5 && !part.closest(".scroll, .top"))
            .map((part) => part.outerHTML.slice(0, 80))""")
        assert [part for part in wide if not part.startswith('<a class="skip"')] == []
        shots(page, f"board-9-large-{number}")


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
