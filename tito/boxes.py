"""Short boxes under a cell, for JupyterLab: HTML in the colours of its theme, and the same as plain text.

Colours are JupyterLab's own variables, so every theme fits; a symbol and a word say what a colour says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

# state -> symbol, the first word, the theme's colour with one for elsewhere
STATES = {
    "pass": ("✓", "Passed", "var(--jp-success-color1, #2e7d32)"),
    "part": ("◐", "In part", "var(--jp-warn-color1, #b45309)"),
    "fail": ("✗", "Not yet", "var(--jp-error-color1, #c62828)"),
    "open": ("○", "Open", "var(--jp-warn-color1, #b45309)"),
    "info": ("▸", "", "var(--jp-brand-color1, #1976d2)"),
}
_BOX = (
    "border-left:4px solid {color};padding:6px 12px;margin:4px 0;max-width:60em;"
    "background:var(--jp-layout-color2,transparent);color:var(--jp-content-font-color1,inherit);"
    "font-family:var(--jp-content-font-family,sans-serif);font-size:var(--jp-content-font-size1,14px);"
    "line-height:1.45"
)
_CODE = "font-family:var(--jp-code-font-family,monospace);white-space:pre-wrap;overflow-wrap:anywhere"
_BUTTON = (
    "margin:6px 8px 2px 0;padding:5px 12px;cursor:pointer;font:inherit;border-radius:2px;"
    "border:1px solid var(--jp-border-color0,#757575);background:var(--jp-layout-color1,#fff);"
    "color:var(--jp-content-font-color1,#000)"
)


def bundle(html: str, text: str) -> dict[str, str]:
    """The two forms of one output, for `display(..., raw=True)`."""
    return {"text/html": html, "text/plain": text}


def box(state: str, head: str, parts: Iterable[str] = ()) -> str:
    """A box in HTML: `head` is text, the `parts` under it are HTML already."""
    symbol, word, color = STATES[state]
    first = f"{symbol} {word}" if word else symbol
    title = f'<div><b><span aria-hidden="true">{symbol}</span> {escape(word)}</b> {escape(head)}</div>'
    body = "".join(f'<div style="margin-top:2px">{part}</div>' for part in parts)
    return (
        f'<div class="tito-box tito-{state}" role="group" aria-label="{escape(first)}" '
        f'style="{_BOX.format(color=color)}">{title}{body}</div>'
    )


def words(state: str, head: str) -> str:
    """The first line of a box as plain text."""
    symbol, word, _ = STATES[state]
    return " ".join(filter(None, (symbol, word, head)))


def code(text: str) -> str:
    """Text as a student wrote or read it, escaped, in the code font."""
    return f'<span style="{_CODE}">{escape(text)}</span>'


def cell_link(cell_id: str, label: str) -> str:
    """A link that scrolls to a cell of the same notebook."""
    return f'<a href="#cell-id={escape(cell_id)}">{escape(label)}</a>'


def button(label: str, commands: Sequence[str], kind: str, **arguments: Any) -> str:
    """A button that runs JupyterLab's own commands, one after the other; each gets the same arguments."""
    about = json.dumps({"commands": list(commands), "args": arguments})
    return (
        f'<button type="button" class="tito-button tito-{kind}" style="{_BUTTON}" '
        f'data-commandlinker-command="apputils:run-all-enabled" '
        f'data-commandlinker-args="{escape(about)}">{escape(label)}</button>'
    )


def saver() -> str:
    """HTML that has JupyterLab save the open document when it is shown; later it does nothing."""
    fresh = int(time.time() * 1000) + 15_000
    return (
        '<button hidden class="tito-save" data-commandlinker-command="docmanager:save"></button>'
        f"<script>if (Date.now() < {fresh}) document.querySelectorAll('.tito-save').forEach(b => b.click())"
        "</script>"
    )
