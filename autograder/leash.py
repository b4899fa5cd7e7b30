"""A command on a leash: what it starts ends when it ends, or when the one who asked for it is killed.

    python autograder/leash.py COMMAND...           its exit code; whatever it left running is ended
    python autograder/leash.py --clean COMMAND...   what it left is named, too, and the exit code is 3

Servers start processes with accounts, sessions and process groups of their own, which no signal reaches. So
the leash makes itself their foster parent (a subreaper): a process below that loses its parent becomes its
child. First each child is asked to end, then the rest is killed. With --clean the command has a TMPDIR of its
own, so that other programs' files are not taken for what it left. Only the standard library is used: CI calls
it before there is an environment. Elsewhere than on Linux it is the command alone that is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType

if __name__ == "__main__":
    _HERE = os.path.dirname(os.path.abspath(__file__))
    sys.path = [os.path.dirname(_HERE), *(path for path in sys.path if path != _HERE)]

from autograder.scratch import scratch_folder, sweep

PATIENCE_S = 15  # between asking and killing
SETTLE_S = 10  # --clean: a kernel looks for its parent once a second
LEFT = 3
_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36  # of prctl
# what is kept in TMPDIR on purpose: pytest's last runs, uv's locks, the home of an account that has none
_KEPT = ("pytest-of-", "uv-", "tito-home-", ".X11-unix")


def command(words: Sequence[str]) -> list[str]:
    """The command line that runs `words` on a leash."""
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), *words]


def end_with(parent: int) -> None:
    """This process is asked to end (SIGTERM) when its parent is killed. Linux; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # it is gone already
            os.kill(os.getpid(), signal.SIGTERM)


class Leash:
    """One command and all that it starts."""

    def __init__(self, words: Sequence[str], env: dict[str, str]) -> None:
        self.asked: set[int] = set()
        self.ending = False
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._end)
        signal.signal(signal.SIGINT, self._wait_for_end)  # Ctrl-C has reached the command too
        signal.signal(signal.SIGALRM, self._kill)
        self.process = subprocess.Popen(words, env=env)

    def run(self, clean: bool) -> tuple[int, list[str]]:
        """The command's exit code and, with `clean`, the processes that outlived it, now ended."""
        code, left = 0, list[str]()
        while True:
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                return code, left
            if pid == self.process.pid:
                code = self.process.returncode = os.waitstatus_to_exitcode(status)
                left = _settled() if clean and not self.ending else []
                self._end()
            elif self.ending:
                self._ask()

    def _end(self, number: int = 0, frame: FrameType | None = None) -> None:
        self.ending = True
        signal.alarm(PATIENCE_S)
        self._ask()

    def _wait_for_end(self, number: int, frame: FrameType | None) -> None:
        self.ending = True
        signal.alarm(PATIENCE_S)

    def _ask(self) -> None:
        """Ask every child that was not asked before: first the command, then who lost its parent."""
        for pid in _children(os.getpid()):
            if pid not in self.asked:
                self.asked.add(pid)
                _signal(pid, signal.SIGTERM)

    def _kill(self, number: int, frame: FrameType | None) -> None:
        for pid in list(_below(os.getpid())):
            _signal(pid, signal.SIGKILL)
        signal.alarm(1)  # those that were being born


def _settled() -> list[str]:
    """What still runs below this process after a moment, one line each."""
    give_up = time.monotonic() + SETTLE_S
    while (left := _running()) and time.monotonic() < give_up:
        time.sleep(0.1)
    return left


def _running() -> list[str]:
    return [f"process {pid}: {_line(pid)}" for pid in _below(os.getpid()) if _line(pid)]


def _children(pid: int) -> list[int]:
    """The children of a process; none where there is no /proc."""
    found = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="utf-8") as file:
                found += [int(word) for word in file.read().split()]
    return found


def _below(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _below(child)


def _line(pid: int) -> str:
    """The command line of a process; nothing for one that has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def main(words: Sequence[str]) -> int:
    """The command line."""
    clean = words[:1] == ["--clean"]
    words = words[clean:]
    if not words:
        print("leash: no command: python autograder/leash.py [--clean] COMMAND...", file=sys.stderr)
        return 2
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)
    end_with(os.getppid())
    try:
        if not clean:
            return _exit_code(Leash(words, dict(os.environ)).run(False)[0])
        with scratch_folder("clean") as place:
            place.chmod(0o1777)  # as /tmp: people with accounts of their own use it
            code, left = Leash(words, {**os.environ, "TMPDIR": str(place)}).run(True)
            swept = sweep(place)  # what a killed process of the command left, and the next one would remove
            left += [f"folder {name}, which the next run would have removed" for name in swept]
            left += [f"in TMPDIR: {name}" for name in sorted(os.listdir(place)) if not name.startswith(_KEPT)]
    except FileNotFoundError as error:
        print(f"leash: {error.filename}: there is no such program", file=sys.stderr)
        return 127
    for line in left:
        print(f"leash: left behind by `{' '.join(words)}`: {line}", file=sys.stderr)
    return _exit_code(code) or (LEFT if left else 0)


def _exit_code(code: int) -> int:
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
