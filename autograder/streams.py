"""Text into and out of a process: no letter that a terminal or a locale lacks ends a command.

`ready` is for our own output, in the encoding that the terminal asks for. `run` and `CHILD` are for a program
whose output we read: both sides speak UTF-8, whatever the locale.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

# the environment of a Python program whose output we read
CHILD = {"PYTHONIOENCODING": "utf-8:backslashreplace"}


def ready() -> None:
    """Write what stdout and stderr cannot encode as an escape such as \\xfc, in place of a traceback.

    In a locale of ASCII alone that was kept so by hand (PYTHONUTF8=0) no file name beyond it can be used: the
    program starts once more in Python's UTF-8 mode, which Python itself takes there, and writes ASCII still.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else a notebook's, or a test's: they take every letter
            stream.reconfigure(
                errors="backslashreplace", line_buffering=True
            )  # each line at once, in a log too
    ascii_names = codecs.lookup(sys.getfilesystemencoding()).name == "ascii"
    if ascii_names and sys.flags.utf8_mode == 0 and sys.platform != "win32":
        os.environ["PYTHONUTF8"] = "1"
        os.environ.setdefault("PYTHONIOENCODING", "ascii:backslashreplace")
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def run(
    argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run a program to its end and read what it wrote as UTF-8; never raises for its exit code or letters.

    Raises subprocess.TimeoutExpired.
    """
    import subprocess  # not every command has a child

    return subprocess.run(
        argv, env={**(os.environ if env is None else env), **CHILD}, cwd=cwd, timeout=timeout,
        capture_output=True, encoding="utf-8", errors="backslashreplace", check=False,
    )  # fmt: skip
