"""{message}: an error message in the book, checked against the source that prints it.

    ```{message} autograder/scoring/client.py
    time limit: no answer within … s
    ```

The body is the message as a person meets it, `…` or any example in place of what varies. The build fails
unless some string of the file, literal or f-string, is in it.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from .course import ROOT

LEAST = 10  # letters of a message that stand in the source; fewer would match anything


class Message(SphinxDirective):
    """Show the message of the body, from the file that the argument names."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content)
        file = self.arguments[0]
        self.env.note_dependency(str(ROOT / file))
        if not printed_by(file, text):
            raise self.error(f"no string of {file} prints this message: {text}")
        return [nodes.literal_block(text, text, language="text")]


def printed_by(file: str, text: str) -> bool:
    """Whether a string of the Python file is what `text` shows; values of an f-string match anything."""
    flat = " ".join(text.split())
    return any(re.search(pattern, flat) for pattern in _patterns(file))


@cache
def _patterns(file: str) -> list[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = []
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in ast.walk(node) if isinstance(part, ast.Constant)}
            parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            parts = [node.value]
        else:
            continue
        fixed = [" ".join(re.escape(word) for word in part.split(" ")) if part else ".+" for part in parts]
        if sum(len(part.strip()) for part in parts if part) >= LEAST:
            found.append("".join(fixed))
    return found


def setup(app: Any) -> None:
    """Register the directive."""
    app.add_directive("message", Message)
