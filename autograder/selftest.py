"""Does the sandbox keep its promises, on this machine, for this user? Each is tried, not believed.

A probe runs a small hostile program at one level and looks, from outside where it can, at what became of it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from autograder import confine, sandbox
from autograder.sandbox import Completed, Limits

HOLDS, BROKEN, OPEN, ABSENT = "holds", "BROKEN", "not claimed", "not here"
_PATIENCE_S = 60.0
_MB = 1_000_000


@dataclass(frozen=True)
class Finding:
    """What one probe found at one level; `seen` says in a line what happened."""

    level: str
    probe: str
    outcome: str
    seen: str


@dataclass(frozen=True)
class Place:
    """What a probe is after on the host: a secret file, a folder to write in, servers, a process of ours."""

    secret: Path
    folder: Path
    port: int
    abstract: str
    process: int


@dataclass(frozen=True)
class Probe:
    """A promise: the levels that make it, a program that tries to break it, and whether it failed to."""

    name: str
    levels: tuple[str, ...]
    code: Callable[[Place], str]
    held: Callable[[Completed, Place], bool]
    limits: Limits = Limits(wall_s=_PATIENCE_S)


def _tried(done: Completed) -> list[str]:
    """What the program said it could do."""
    return [line for line in done.stdout.decode(errors="replace").splitlines() if line.startswith("could ")]


def _nothing(done: Completed, place: Place) -> bool:
    """It ran to its end, and could do none of what it tried."""
    return done.stdout.endswith(b"end\n") and not _tried(done)


def _nothing_written(done: Completed, place: Place) -> bool:
    return _nothing(done, place) and not (place.folder / "written").exists() and place.secret.exists()


def _stopped(*words: str) -> Callable[[Completed, Place], bool]:
    return lambda done, place: done.reason.startswith(words)


def _could_not(done: Completed, place: Place) -> bool:
    return not _tried(done) and done.stderr != b"" or done.reason != "" or b"No space" in done.stdout


def _runs(code: str) -> Callable[[Place], str]:
    return lambda place: code


def _attempts(*lines: str) -> str:
    """A program that makes each attempt by itself, and says which of them worked."""
    tries = [
        f"try:\n    {line}\n    print('could', {line[:60]!r}, flush=True)\nexcept OSError:\n    pass\n"
        for line in lines
    ]
    return "import os, socket\n" + "".join(tries) + "print('end', flush=True)\n"


def _network(place: Place) -> str:
    return _attempts(
        f"socket.create_connection(('127.0.0.1', {place.port}), 2)",
        "socket.create_connection(('192.0.2.1', 80), 0.3)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        f"socket.socket(socket.AF_UNIX).connect({place.abstract!r})",
    )


def _reads(place: Place) -> str:
    return _attempts(
        f"open({str(place.secret)!r}).read()",
        "open('/etc/shadow').read()",
        f"os.listdir({str(place.folder)!r})",
    )


def _writes(place: Place) -> str:
    return _attempts(
        f"open({str(place.folder / 'written')!r}, 'w')",
        "open('/usr/tito-probe', 'w')",
        "open('/etc/tito-probe', 'w')",
        f"os.unlink({str(place.secret)!r})",
    )


def _others(place: Place) -> str:
    pid = place.process
    return _attempts(
        f"open('/proc/{pid}/environ').read()",
        f"open('/proc/{pid}/mem', 'rb')",
        f"os.readlink('/proc/{pid}/fd/0')",
        f"os.kill({pid}, 0)",
    )


_FORKS = """
import os, time
for _ in range(200):
    try:
        if os.fork() == 0:
            time.sleep(100)
    except OSError:
        time.sleep(0.02)
time.sleep(100)
"""
_MEMORY = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        held = bytearray(os.urandom(1 << 20) * 60)
        time.sleep(100)
time.sleep(100)
"""
_PROCESSOR = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        end = time.process_time() + 0.9
        while time.process_time() < end:
            pass
        os._exit(0)
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(5)
        print('could use 2.7 s', flush=True)
        break
"""
_FILE = """
import tempfile
with tempfile.TemporaryFile() as file:
    file.write(bytes(3_000_000))
print('could write 3 MB')
"""
_DISK = """
import os, tempfile, time
folder = tempfile.mkdtemp()
try:
    for k in range(60):
        with open(os.path.join(folder, str(k)), 'wb') as file:
            file.write(bytes(1_000_000))
    time.sleep(5)
    print('could write 60 MB', flush=True)
except OSError as error:
    print(error)
"""
_ALL = sandbox.LEVELS
_FENCED = ("bubblewrap", "landlock")

PROBES = (
    Probe("network", _FENCED, _network, _nothing),
    Probe("file reads outside", _FENCED, _reads, _nothing),
    Probe("file writes outside", _FENCED, _writes, _nothing_written),
    Probe("/proc of others", _FENCED, _others, _nothing),
    Probe("processes", _ALL, _runs(_FORKS), _stopped("process limit", "thread limit"),
          Limits(wall_s=_PATIENCE_S, processes=10, threads=100)),
    Probe("memory of the tree", _ALL, _runs(_MEMORY), _stopped("memory limit"),
          Limits(wall_s=_PATIENCE_S, memory_bytes=150 * _MB)),
    Probe("CPU time of the tree", _ALL, _runs(_PROCESSOR), _stopped("CPU limit"),
          Limits(wall_s=_PATIENCE_S, cpu_s=1)),
    Probe("wall time", _ALL, _runs("import time\ntime.sleep(100)\n"), _stopped("time limit"),
          Limits(wall_s=0.5)),
    Probe("output", _ALL, _runs("while True:\n    print('x' * 1000)\n"), _stopped("output limit"),
          Limits(wall_s=_PATIENCE_S, output_bytes=100_000)),
    Probe("size of a file", _ALL, _runs(_FILE), _could_not, Limits(wall_s=_PATIENCE_S, file_bytes=1_000_000)),
    Probe("disk", _ALL, _runs(_DISK), _could_not,
          Limits(wall_s=_PATIENCE_S, tmp_bytes=20 * _MB, disk_bytes=20 * _MB)),
)  # fmt: skip


def run(levels: tuple[str, ...] = sandbox.LEVELS) -> list[Finding]:
    """Try every promise of these levels on this machine; takes some seconds a level."""
    here = sandbox.available()
    with _host() as place, ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(_try, level, probe, place, level in here) for level in levels for probe in PROBES
        ]
        return [one.result() for one in waiting]


def describe() -> dict[str, str]:
    """The machine and user that the findings are about."""
    bwrap = "none"
    with contextlib.suppress(OSError):
        bwrap = (
            subprocess.run(["bwrap", "--version"], capture_output=True, text=True).stdout.strip() or "none"
        )
    return {
        "user": f"uid {os.getuid()}{', root' if os.getuid() == 0 else ''}",
        "kernel": f"{platform.system()} {platform.release()}",
        "bubblewrap": bwrap.removeprefix("bubblewrap "),
        "landlock": f"ABI {confine.landlock_abi()}" if confine.landlock_abi() else "none",
        "memory limit": "the sum over the tree, watched 20 times a second",
    }


def _try(level: str, probe: Probe, place: Place, here: bool) -> Finding:
    if not here:
        return Finding(level, probe.name, ABSENT, "this level does not work on this machine for this user")
    if level not in probe.levels:
        return Finding(level, probe.name, OPEN, "files and processes of the same user are open at this level")
    code = textwrap.dedent(probe.code(place))
    done = sandbox.run([sys.executable, "-I", "-S", "-B", "-c", code], level=level, limits=probe.limits)
    held = probe.held(done, place)
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [""]
    seen = "; ".join(_tried(done)) or done.reason or last[0] or f"exit code {done.returncode}"
    return Finding(level, probe.name, HOLDS if held else BROKEN, seen)


@contextlib.contextmanager
def _host() -> Iterator[Place]:
    """Something of ours to be after: a file, a folder, two servers, a process."""
    abstract = f"\0tito-probe-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="tito-probe-", dir=_outside_tmp()))
        )
        (folder / "secret").write_text("a secret of the host")
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(abstract)
        unix.listen()
        process = subprocess.Popen(["sleep", "600"])
        stack.callback(process.wait)
        stack.callback(process.kill)
        yield Place(folder / "secret", folder, server.getsockname()[1], abstract, process.pid)


def _outside_tmp() -> str | None:
    """A folder that is no /tmp, which bubblewrap replaces by one of its own; None where there is none."""
    for folder in (Path.home(), Path("/var/tmp")):
        if os.access(folder, os.W_OK):
            return str(folder)
    return None
