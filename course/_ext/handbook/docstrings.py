"""The course's docstrings are plain text with `code` in them; autodoc wants reStructuredText."""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"`+([^`]+)`+")


def as_rst(lines: list[str]) -> list[str]:
    """Paragraphs escaped, `code` as literals, indented parts as literal blocks."""
    out: list[str] = []
    block: list[str] = []

    def close() -> None:
        if block:
            while block and not block[-1].strip():
                block.pop()
            out.extend(["", "::", "", *("   " + line for line in block), ""])
            block.clear()

    for line in lines:
        if line.startswith("  ") or (block and not line.strip()):
            block.append(line)
            continue
        close()
        out.append(_inline(line))
    close()
    return out


def _inline(line: str) -> str:
    parts = _CODE.split(line)
    return "".join(_literal(part) if i % 2 else _escape(part) for i, part in enumerate(parts)).strip()


def _literal(text: str) -> str:
    return rf"``{text.strip()}``\ " if text.strip() else ""


def _escape(text: str) -> str:
    return re.sub(r"([*_|\\:<>\[\]=+#^~\"'-])", lambda found: "\\" + found[1], text) if text else ""


def _process(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = as_rst(lines)


def setup(app: Any) -> None:
    """Listen to autodoc."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _process)
