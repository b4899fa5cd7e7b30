"""A student's report as HTML that can do nothing: no raw HTML, no picture, no link that leads elsewhere.

markdown-it-py renders it with HTML switched off; a picture becomes its alternative text, a link its text and
its address in letters, headings stand below the page's own. bleach then lets only plain elements without any
attribute through, whatever the first step made. A table gets a frame in which it scrolls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from itertools import count
from typing import Any

import bleach
from markdown_it import MarkdownIt
from markdown_it.token import Token

from autograder.leaderboard.wording import plain

ELEMENTS = frozenset({
    "p", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "s", "hr",
    "br", "table", "thead", "tbody", "tr", "th", "td",
})  # fmt: skip

FRAME = '<div class="scroll" role="region" tabindex="0" aria-label="Table {} of the report"><table>'


def html(markdown: str) -> str:
    """The report as HTML of plain elements without attributes, each table in a frame that scrolls."""
    rendered = str(_renderer().render(plain(markdown)))
    clean = bleach.clean(rendered, tags=ELEMENTS, attributes={}, protocols=(), strip=False)
    number = count(1)
    framed = re.sub(r"<table>", lambda _: FRAME.format(next(number)), clean)
    return framed.replace("</table>", "</table></div>")


@cache
def _renderer() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])
    made.add_render_rule("image", _image)
    made.add_render_rule("link_open", _link_open)
    made.add_render_rule("link_close", _link_close)
    made.add_render_rule("heading_open", _heading_open)
    made.add_render_rule("heading_close", _heading_close)
    return made


def _image(self: Any, tokens: Sequence[Token], number: int, options: Any, env: Any) -> str:
    return f"[picture: {escape(tokens[number].content or 'without a description')}]"


def _link_open(self: Any, tokens: Sequence[Token], number: int, options: Any, env: Any) -> str:
    env.setdefault("links", []).append((number, str(tokens[number].attrGet("href") or "")))
    return ""


def _link_close(self: Any, tokens: Sequence[Token], number: int, options: Any, env: Any) -> str:
    opened, address = env["links"].pop()
    text = "".join(token.content for token in tokens[opened:number])
    return "" if text == address else f" (<code>{escape(address)}</code>)"


def _heading_open(self: Any, tokens: Sequence[Token], number: int, options: Any, env: Any) -> str:
    return f"<h{_level(tokens[number].tag)}>"


def _heading_close(self: Any, tokens: Sequence[Token], number: int, options: Any, env: Any) -> str:
    return f"</h{_level(tokens[number].tag)}>\n"


def _level(tag: str) -> int:
    return min(6, int(tag[1]) + 2)
