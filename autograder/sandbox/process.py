"""A running program: started by its supervisor, asked how much it uses, killed with everything it started."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any

from autograder.sandbox import orders, visible
from autograder.sandbox.levels import require
from autograder.sandbox.program import Program
from autograder.scratch import Folder

SUPERVISOR_KILLED = "the sandbox's supervisor was killed"  # the reason in a report
_PATIENCE_S = 60.0  # for a supervisor to end its tree


@dataclass(frozen=True)
class Report:
    """How a program ended. `reason` is empty unless we ended it, and one line otherwise."""

    reason: str
    returncode: int | None  # negative: killed by that signal
    peak_memory: int  # bytes, the whole tree
    seconds: float
    level: str
    memory_by: str = field(default="watched sum", kw_only=True)  # or "cgroup": what held the memory limit


class Process:
    """A running program in its sandbox. A context manager: leaving it kills the tree."""

    def __init__(
        self, popen: "subprocess.Popen[bytes]", control: socket.socket, level: str, scratch: Folder | None
    ):
        self.level = level
        self.stdin: IO[bytes] | None = popen.stdin
        self.stdout: IO[bytes] | None = popen.stdout
        self.stderr: IO[bytes] | None = popen.stderr
        self._popen, self._control, self._scratch = popen, control, scratch
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._received = b""
        self._report: Report | None = None

    def memory(self) -> tuple[int, int]:
        """Bytes the whole tree uses now, and the most it has used (looked at 20 times a second)."""
        with self._lock:
            if self._report is None:
                with contextlib.suppress(OSError):  # it has just ended: the report below says so
                    self._control.sendall(b"m")
                answer = self._next_line(None)
                if answer is not None and "memory" in answer:
                    return answer["memory"], answer["peak"]
                self._finish(answer)
            assert self._report is not None
            return 0, self._report.peak_memory

    def wait(self, timeout: float | None = None) -> Report:
        """Wait for the end; raises TimeoutError if it does not come in `timeout` seconds."""
        with self._lock:
            deadline = None if timeout is None else time.monotonic() + timeout
            while self._report is None:
                answer = self._next_line(deadline)
                if answer is None or "memory" not in answer:
                    self._finish(answer)
            return self._report

    def stop(self) -> None:
        """Ask for the end, and do not wait for it."""
        with contextlib.suppress(OSError):  # it has ended
            self._control.sendall(b"k")

    def kill(self) -> Report:
        """End the program and all it started, if it still runs."""
        self.stop()
        try:
            return self.wait(_PATIENCE_S)
        except TimeoutError:  # the supervisor itself is stuck
            self._popen.kill()
            return self.wait()

    def close(self) -> None:
        """Kill what runs, close the pipes, remove the private folder."""
        self.kill()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # unsent bytes for a dead program
                    stream.close()
        if self._scratch:
            self._scratch.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_line(self, deadline: float | None) -> dict[str, Any] | None:
        while b"\n" not in self._received:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            self._control.settimeout(left or (None if left is None else 1e-6))
            try:
                part = self._control.recv(65536)
            except TimeoutError:
                raise TimeoutError("the sandboxed program is still running") from None
            except OSError:
                part = b""
            if not part:
                return None
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def _finish(self, last: dict[str, Any] | None) -> None:
        seconds = time.monotonic() - self._started
        if last is None:
            self._report = Report(SUPERVISOR_KILLED, None, 0, seconds, self.level)
        else:
            self._report = Report(
                last["reason"], last["status"], last["peak"], last["seconds"], self.level,
                memory_by=last["memory_by"],
            )  # fmt: skip
        self._control.close()
        self._popen.wait()


def start(
    program: Program,
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
) -> Process:
    """Start a program.

    Raises SandboxUnavailable, FileNotFoundError, ValueError before anything runs.
    """
    require(program.level)
    if not os.path.isabs(program.argv[0]):
        raise ValueError(f"sandbox: program {program.argv[0]!r} must be an absolute path")
    seen = visible.view(program)
    scratch = Folder("sandbox") if seen.has_links or program.level != "bubblewrap" else None
    try:
        told = orders.build(program, seen, str(scratch.path) if scratch else "")
        return _launch(told, program.level, scratch, stdin, stdout, stderr)
    except BaseException:
        if scratch:
            scratch.close()
        raise


def _launch(
    orders: Mapping[str, Any],
    level: str,
    scratch: Folder | None,
    stdin: int | IO[bytes],
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
) -> Process:
    """Start a supervisor and give it its orders."""
    ours, theirs = socket.socketpair()
    try:
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "supervisor.py")
        popen = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", script, str(theirs.fileno())],
            stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=(theirs.fileno(),), cwd="/",
        )  # fmt: skip
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    process = Process(popen, ours, level, scratch)
    try:
        ours.sendall(json.dumps(orders).encode() + b"\n")
    except BaseException:
        process.close()
        raise
    return process
