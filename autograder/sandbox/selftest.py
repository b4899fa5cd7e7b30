"""Try on this machine what each sandbox level claims.

Every probe runs a real program at the level, with small limits, and the program attempts what must not
work. What came of it is looked at from outside where that can be done (did the server hear anything, has
the folder changed, does the process still live), not taken from the program's own word. A program that
did not get to make its attempt proves nothing, so its probe does not hold.
"""

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder import sandbox
from autograder.sandbox import Limits, Program, landlock
from autograder.scratch import scratch_folder

HOLDS, NOT_CLAIMED, BROKEN = "holds", "not claimed", "BROKEN"
PATIENCE_S = 30.0  # for the sandbox to end a program that breaks a limit

_MB = 1_000_000
_AT_A_TIME = 8  # most probes wait more than they work
_FENCED = ("bubblewrap", "landlock")


@dataclass(frozen=True)
class Probe:
    """One thing that is tried: `attempt` gets a level and an empty folder, gives (holds, what happened)."""

    name: str
    attempt: Callable[[str, Path], tuple[bool, str]]
    claimed_by: tuple[str, ...] = sandbox.LEVELS
    alone: bool = False  # not beside other probes, which it could disturb


@dataclass(frozen=True)
class Finding:
    """What one probe found at one level; `result` is "holds", "not claimed" or "BROKEN"."""

    level: str
    probe: str
    result: str
    happened: str


@dataclass(frozen=True)
class Host:
    """The machine and the user that the findings are about."""

    user: str
    uid: int
    kernel: str
    machine: str
    python: str
    bubblewrap: str  # its version; empty where it is not installed
    landlock_abi: int  # 0: none


@dataclass(frozen=True)
class Table:
    """The findings of all levels that are to be had here, and why the others are not."""

    host: Host
    findings: list[Finding]
    memory_by: dict[str, str] = field(default_factory=dict)  # level: "cgroup" or "watched sum"
    unavailable: dict[str, str] = field(default_factory=dict)  # level: why, in one line

    def broken(self) -> list[Finding]:
        """The claims that do not hold."""
        return [finding for finding in self.findings if finding.result == BROKEN]


def run(levels: Sequence[str] = sandbox.LEVELS, probes: Sequence[Probe] | None = None) -> Table:
    """Try every probe at every level that works here; a level that does not is named with the reason."""
    chosen = PROBES if probes is None else probes
    there = [level for level in levels if level in sandbox.available()]
    table = Table(host(), [])
    for level in levels:
        if level not in there:
            table.unavailable[level] = sandbox.why_not(level) or "it does not work here"
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        together = [(level, probe) for level in there for probe in chosen if not probe.alone]
        found = dict(zip(together, pool.map(lambda pair: _try(*pair), together), strict=True))
        table.memory_by.update(zip(there, pool.map(_memory_by, there), strict=True))
    for level in there:
        for probe in chosen:
            table.findings.append(found.get((level, probe)) or _try(level, probe))
    return table


def claims(level: str, name: str) -> bool:
    """Whether a level claims that a probe holds."""
    if level != "bubblewrap" and name == "signals to others":
        return landlock.landlock_abi() >= 6  # scopes came with Linux 6.12
    return any(probe.name == name and level in probe.claimed_by for probe in PROBES)


def host() -> Host:
    """This machine and this user."""
    bwrap = shutil.which("bwrap")
    version = ""
    if bwrap:
        done = subprocess.run([bwrap, "--version"], capture_output=True, encoding="utf-8")
        version = done.stdout.split()[-1] if done.stdout else "?"
    try:
        import pwd  # not on Windows, where nothing is tested

        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run under a number without a name
        user = "?"
    return Host(
        user, os.getuid(), platform.release(), platform.machine(), platform.python_version(), version,
        landlock.landlock_abi(),
    )  # fmt: skip


def _try(level: str, probe: Probe) -> Finding:
    with scratch_folder("selftest") as folder:
        try:
            holds, happened = probe.attempt(level, folder)
        except (OSError, ValueError, RuntimeError) as error:
            holds, happened = False, f"the probe could not be made: {error}"
    result = NOT_CLAIMED if not claims(level, probe.name) else HOLDS if holds else BROKEN
    return Finding(level, probe.name, result, " ".join(happened.split()))


def _memory_by(level: str) -> str:
    return _run("", level).memory_by


# Programs. Each ends by printing what it managed and why it did not manage the rest.
_BEGIN = """
import json, os, socket, sys, time
did, refused = [], []
def attempt(what, action):
    try:
        action()
        did.append(what)
    except OSError as error:
        refused.append(error.strerror or str(error))
"""
_END = """
print(json.dumps({"did": did, "refused": refused}))
"""


def _run(code: str, level: str, limits: Limits | None = None, **options: Any) -> sandbox.Completed:
    argv = [sys.executable, "-I", "-S", "-B", "-c", _BEGIN + code + _END, *options.pop("arguments", ())]
    return sandbox.run(Program(argv, level=level, limits=limits or Limits(wall_s=PATIENCE_S), **options))


def _answer(done: sandbox.Completed) -> tuple[list[Any], str]:
    """What the program managed, and one line on what it was refused."""
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        errors = done.stderr.decode(errors="replace").split("\n")
        why = done.reason or next((line for line in reversed(errors) if line), f"exit {done.returncode}")
        raise RuntimeError(f"the program did not get to its end: {why}") from None
    return answer["did"], ", ".join(dict.fromkeys(answer["refused"]))


def _ended(done: sandbox.Completed, *reasons: str) -> tuple[bool, str]:
    """Whether the sandbox ended the program for one of these reasons."""
    if done.reason.startswith(reasons):
        return True, done.reason
    return False, f"expected the sandbox to end it, {reasons[0]}: {done.reason or 'it ran to its end'}"


def _network(level: str, folder: Path, loopback: bool = False) -> tuple[bool, str]:
    with (
        socket.create_server(("127.0.0.1", 0)) as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", 0))
        code = f"""
udp = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt("stream", lambda: socket.create_connection({stream.getsockname()!r}, timeout=10).close())
attempt("datagram", lambda: udp().sendto(b"x", {datagrams.getsockname()!r}))
"""
        _, refused = _answer(_run(code, level, loopback=loopback))
        heard = []
        for kind, listen in (("stream", lambda: stream.accept()[0].close()),
                             ("datagram", lambda: datagrams.recv(1))):  # fmt: skip
            stream.settimeout(0.05)
            datagrams.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                listen()
                heard.append(kind)
    if heard:
        return False, f"it reached a server of this machine ({', '.join(heard)})"
    return True, f"it did not reach a server of this machine: {refused or 'nothing arrived'}"


def _notebook_network(level: str, folder: Path) -> tuple[bool, str]:
    return _network(level, folder, loopback=True)


def _reads(level: str, folder: Path) -> tuple[bool, str]:
    secret, shown = folder / "secret", folder / "shown"
    word = uuid.uuid4().hex
    secret.write_text(word, encoding="utf-8")
    shown.mkdir()
    (shown / "given").write_text("given", encoding="utf-8")
    (shown / "link").symlink_to(secret)
    paths = [secret, shown / "link", f"/proc/{os.getpid()}/root{secret}", f"/proc/self/root{secret}"]
    code = f"""
def read(path):
    with open(path) as file:
        did.append(file.read())
for path in {[str(shown / "given"), *map(str, paths)]!r}:
    attempt(path, lambda: read(path))
"""
    did, refused = _answer(_run(code, level, readable=[shown]))
    if "given" not in did:
        return False, f"it could not read what it was given: {refused}"
    if word in did:
        return False, "it read a file that it was not given"
    return True, f"it could not read a file that it was not given: {refused}"


def _writes(level: str, folder: Path) -> tuple[bool, str]:
    outside, shown, given = folder / "outside", folder / "shown", folder / "given"
    for place in (outside, shown, given):
        place.mkdir()
        (place / "kept").write_text("kept", encoding="utf-8")
        (place / "kept").chmod(0o600)
    code = f"""
def write(path, mode):
    with open(path, mode) as file:
        file.write("x")
for place in {[str(outside), str(shown), str(given)]!r}:
    attempt("new", lambda: write(place + "/new", "w"))
    attempt("changed", lambda: write(place + "/kept", "a"))
    attempt("opened to all", lambda: os.chmod(place + "/kept", 0o666))
    attempt("dated back", lambda: os.utime(place + "/kept", (1, 1)))
    attempt("renamed", lambda: os.rename(place + "/kept", place + "/other"))
    attempt("deleted", lambda: os.unlink(place + "/other"))
"""
    _, refused = _answer(_run(code, level, readable=[shown], writable=[given]))
    if os.listdir(given) != ["new"]:
        return False, f"it could not write where it may: {refused}"
    for place, what in ((outside, "a folder that it was not given"), (shown, "a folder given to read")):
        if os.listdir(place) != ["kept"] or (place / "kept").read_bytes() != b"kept":
            return False, f"it wrote in {what}"
        if (place / "kept").stat().st_mode & 0o777 != 0o600 or (place / "kept").stat().st_mtime < 2:
            return False, f"it changed who may read, or the date of, a file in {what}"
    return True, f"it could not write outside what it was given: {refused}"


@contextlib.contextmanager
def _victim(word: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process of this user, with a secret in its environment."""
    argv = [sys.executable, "-I", "-S", "-c", "print(flush=True); import time; time.sleep(600)", word[::-1]]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env={"SECRET": word}) as victim:
        try:
            assert victim.stdout
            victim.stdout.readline()  # it runs
            yield victim
        finally:
            victim.kill()


def _proc(level: str, folder: Path) -> tuple[bool, str]:
    word = uuid.uuid4().hex
    with _victim(word) as victim:
        code = f"""
secret = {word[:16]!r} + {word[16:]!r}
def look(pid):
    if secret in open(f"/proc/{{pid}}/environ").read():
        did.append("read its environment")
for pid in filter(str.isdigit, os.listdir("/proc")):
    attempt("", lambda: look(pid))
def memory(pid):
    named = open(f"/proc/{{pid}}/cmdline").read()
    os.open(f"/proc/{{pid}}/mem", os.O_RDWR)
    if secret[::-1] not in named:
        raise OSError("another process of that number")
attempt("opened its memory", lambda: memory({victim.pid}))
"""
        did, refused = _answer(_run(code, level))
    managed = [what for what in dict.fromkeys(did) if what]
    if managed:
        return False, f"it saw into another process: {', '.join(managed)}"
    return True, f"it could not see into another process: {refused}"


def _signals(level: str, folder: Path) -> tuple[bool, str]:
    with _victim("") as victim:
        code = f"""
if {victim.pid} not in (os.getpid(), os.getppid()):
    attempt("sent", lambda: os.kill({victim.pid}, {int(signal.SIGKILL)}))
"""
        did, refused = _answer(_run(code, level))
        if did:
            with contextlib.suppress(subprocess.TimeoutExpired):
                victim.wait(5)
        if victim.poll() is not None:
            return False, "it killed another process of this user"
    return True, f"it could not kill another process: {refused}"


def _processes(level: str, folder: Path) -> tuple[bool, str]:
    allowed, mark = 5, uuid.uuid4().hex
    code = f"""
for _ in range(200):
    try:
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
        did.append(1)
    except OSError as error:
        refused.append(error.strerror)
        time.sleep(0.005)
if len(did) >= {allowed}:
    time.sleep(600)
"""
    done = _run(code, level, Limits(PATIENCE_S, processes=allowed, threads=20), arguments=[mark])
    if done.reason:
        holds, happened = _ended(done, "process limit", "thread limit")
    else:
        did, refused = _answer(done)
        holds, happened = len(did) < allowed, f"{len(did)} of 200 processes made: {refused}"
    deadline = time.monotonic() + PATIENCE_S
    while left := _running(mark):
        if time.monotonic() > deadline:
            return False, f"{happened}; but {left} processes were left running"
        time.sleep(0.02)
    return holds, f"{happened}; none was left"


def _running(mark: str) -> int:
    total = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # they end while we look
            total += mark.encode() in Path("/proc", name, "cmdline").read_bytes()
    return total


def _memory(level: str, folder: Path) -> tuple[bool, str]:
    code = """
for _ in range(4):  # each alone keeps to the limit
    if os.fork() == 0:
        held = bytearray(os.urandom(1_000_000) * 30)
        time.sleep(600)
time.sleep(600)
"""
    return _ended(_run(code, level, Limits(PATIENCE_S, memory_bytes=80 * _MB)), "memory limit")


def _cpu(level: str, folder: Path) -> tuple[bool, str]:
    code = """
for _ in range(3):
    if os.fork() == 0:
        while True:
            pass
time.sleep(600)
"""
    return _ended(_run(code, level, Limits(PATIENCE_S, cpu_s=0.5)), "cpu limit")


def _wall(level: str, folder: Path) -> tuple[bool, str]:
    done = _run(f"time.sleep({PATIENCE_S})", level, Limits(wall_s=0.3))
    return _ended(done, "time limit")


def _output(level: str, folder: Path) -> tuple[bool, str]:
    cap = 100_000
    done = _run("while True: os.write(1, bytes(10_000))", level, Limits(PATIENCE_S, output_bytes=cap))
    if len(done.stdout) > cap:
        return False, f"{len(done.stdout)} bytes came out, {cap} allowed"
    return _ended(done, "output limit")


def _file_size(level: str, folder: Path) -> tuple[bool, str]:
    code = f"""
file = os.open({str(folder / "big")!r}, os.O_WRONLY | os.O_CREAT, 0o644)
for _ in range(30):
    attempt("wrote", lambda: os.write(file, bytes(100_000)))
"""
    did, refused = _answer(_run(code, level, Limits(PATIENCE_S, file_bytes=_MB), writable=[folder]))
    size = (folder / "big").stat().st_size
    if not did:
        return False, f"it could not write at all: {refused}"
    return size <= _MB, f"its file has {size / _MB:g} MB, {1:g} MB allowed: {refused}"


def _fill(place: str) -> str:
    return f"""
for n in range(30):
    def write():
        with open(os.path.join({place}, str(n)), "wb") as file:
            file.write(bytes(1_000_000))
    attempt("wrote", write)
if not refused:
    time.sleep(600)
"""


def _private_tmp(level: str, folder: Path) -> tuple[bool, str]:
    limits = Limits(PATIENCE_S, tmp_bytes=5 * _MB, disk_bytes=5 * _MB)
    done = _run(_fill("os.environ['TMPDIR']"), level, limits)
    if done.reason:
        return _ended(done, "disk limit")
    did, refused = _answer(done)
    return 0 < len(did) <= 5, f"{len(did)} MB written, 5 MB allowed: {refused}"


def _folders(level: str, folder: Path) -> tuple[bool, str]:
    limits = Limits(PATIENCE_S, disk_bytes=5 * _MB)
    return _ended(_run(_fill(repr(str(folder))), level, limits, writable=[folder]), "disk limit")


PROBES = (
    Probe("network", _network, _FENCED),
    Probe("network of notebooks", _notebook_network, ("bubblewrap",)),
    Probe("files read", _reads, _FENCED),
    Probe("files written", _writes, _FENCED),
    Probe("/proc of others", _proc, _FENCED),
    Probe("signals to others", _signals),
    Probe("processes", _processes, alone=True),
    Probe("memory", _memory),
    Probe("CPU time", _cpu),
    Probe("wall time", _wall),
    Probe("output size", _output),
    Probe("file size", _file_size),
    Probe("private tmp", _private_tmp),
    Probe("writable folders", _folders),
)
