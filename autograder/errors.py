"""What a user is told: one line that says what is wrong, what was expected and what to do next.

Every error that is meant for a person derives from OlympicsError, where it is raised or here. The command
line prints such an error as its one line and exits with its code; any other exception is a fault of ours.
Nothing but a part of the standard library is imported here, so that the name of an error costs nothing.
"""

from __future__ import annotations

import shlex
from pathlib import PurePath


def command(*words: object) -> str:
    """A command as one pastes it into a shell, each word quoted, in the backticks of our messages."""
    texts = [
        f"./{word}" if isinstance(word, PurePath) and str(word)[0] == "-" else str(word) for word in words
    ]
    return f"`{shlex.join(texts)}`"


class OlympicsError(Exception):
    """An error for a person; the message is one line. IPython shows that line instead of a traceback."""

    exit_code = 1  # of the command that ends with it

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class Missing(OlympicsError):
    """This machine lacks a package, program, permission or data set; the message names what brings it."""

    exit_code = 2


class GradingError(OlympicsError, RuntimeError):
    """The course cannot be graded as asked; the message is one line and says what to do."""
