"""Run a program nobody trusts: fenced off, watched, and killed with everything it started.

Levels, strongest first. The level a program ran under is on every result, and a level that is not to be had
is refused, never replaced by a weaker one behind the caller's back.

bubblewrap  own file tree (system read-only, private /tmp, no home, only the named folders), own process
            space, no network but a loopback of its own, no rights, no further namespaces
landlock    the kernel lets it open only the system's and the named files, and change mode, owner and date of
            none (such calls do nothing); names and sizes of others can be asked for; sockets only within the
            machine (Unix ones), or all of them where the caller asks for loopback, as a kernel must
rlimits     memory, processes, time and file size are limited; files of the same user stay readable

At the last two no signal reaches the account's other processes from Linux 6.12 on; on an older kernel only
the one to all of them (`kill -1`) is refused. Started by root, a program is root to them.

At every level a supervisor of ours watches the whole tree: wall clock, CPU time, memory, processes, threads,
bytes written to disk. Where the machine lets us make a cgroup, the kernel holds memory and tasks as well.
`autograder.sandbox.selftest` tries each of these claims on the machine at hand.
"""

import contextlib
import functools
import importlib.util
import itertools
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from autograder.errors import Missing, OlympicsError
from autograder.sandbox import landlock
from autograder.scratch import Folder

LEVELS = ("bubblewrap", "landlock", "rlimits")
SETTING = "TITO_SANDBOX"  # environment variable: the level wherever none is named
HELP = f"Sandbox level: {', '.join(LEVELS)}; default: what {SETTING} says, else the best one here."
SUPERVISOR_KILLED = "the sandbox's supervisor was killed"  # the reason in a report

_NO_LINUX = (
    "this system has no sandbox of ours, and nothing is measured without one: expected Linux, such as WSL 2, "
    "a container or the class's own machine; what you hand in is measured there"
)
_MIB = 1 << 20
_PATIENCE_S = 60.0  # for a supervisor to end its tree
_SYSTEM = ("/usr", "/nix/store")
_SYSTEM_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime",
    "/etc/fonts", "/etc/mime.types",
)  # fmt: skip
_CPU = "/sys/devices/system/cpu"  # numerical libraries count processors here
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# Beside links to the packages that a program may import: what else is installed is not found, at any level.
_ONLY_THESE = """import os, sys
sys.path[:] = [p for p in sys.path if os.path.basename(p) not in ("site-packages", "dist-packages")]
sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, "__module__", "").startswith("_frozen_importlib")]
"""
_FILES = (
    ("/etc/passwd", "student:x:1000:1000:student:/tmp:/bin/sh\n"),
    ("/etc/group", "student:x:1000:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
)


class UnknownLevel(OlympicsError, ValueError):
    """A sandbox level of a name that there is none of."""


class SandboxUnavailable(Missing, RuntimeError):
    """The asked-for level cannot be had on this machine; the message is one line and says what to do."""


@dataclass(frozen=True)
class Limits:
    """What a program and all it starts may use together; file_bytes holds for each file alone.

    Memory is what its processes hold; in a cgroup (Report.memory_by) its files in /tmp count too.
    """

    wall_s: float = 60.0
    memory_bytes: int = 2048 * _MIB
    processes: int = 32
    threads: int = 512
    file_bytes: int = 256 * _MIB
    cpu_s: float | None = None
    output_bytes: int = 16 * _MIB  # run() only: more on stdout or stderr ends the program
    tmp_bytes: int = 512 * _MIB  # private /tmp and /dev/shm, bubblewrap only: they are memory
    disk_bytes: int = 1024 * _MIB  # added to the named writable folders and, elsewhere, the private TMPDIR


@dataclass(frozen=True)
class Report:
    """How a program ended. `reason` is empty unless we ended it, and one line otherwise."""

    reason: str
    returncode: int | None  # negative: killed by that signal
    peak_memory: int  # bytes, the whole tree
    seconds: float
    level: str
    memory_by: str = field(default="watched sum", kw_only=True)  # or "cgroup": what held the memory limit


@dataclass(frozen=True)
class Completed(Report):
    """A Report with what the program wrote."""

    stdout: bytes
    stderr: bytes


def available() -> tuple[str, ...]:
    """The levels that work on this machine, strongest first; each is tried, not guessed. None off Linux."""
    if sys.platform != "linux":
        return ()
    found = []
    if _bwrap_options():
        found.append("bubblewrap")
    if landlock.landlock_abi() >= 1 and landlock.can_refuse_network():
        found.append("landlock")
    return (*found, "rlimits")


def best_level() -> str:
    """The strongest level that works on this machine. Raises SandboxUnavailable where there is no Linux."""
    if not available():
        raise SandboxUnavailable(_NO_LINUX)
    return available()[0]


def require(level: str) -> str:
    """The level itself if it works here.

    Raises UnknownLevel for an unknown name, SandboxUnavailable where the machine cannot give it.
    """
    if level not in LEVELS:
        raise UnknownLevel(f"unknown sandbox level {level!r}: expected one of {', '.join(LEVELS)}")
    if not available():
        raise SandboxUnavailable(_NO_LINUX)
    if level not in available():
        why = why_not(level)
        help = {
            "bubblewrap": "install bubblewrap and allow user namespaces, or ask for a weaker level by name",
            "landlock": "it needs Linux 5.13 with Landlock enabled; ask for another level by name",
        }
        raise SandboxUnavailable(
            f"sandbox level {level} does not work on this machine{why and f' ({why})'}: {help[level]}"
        )
    return level


def choose(named: str | None = None, least: str = "") -> str:
    """The level to run at: the one named by an option, else TITO_SANDBOX's, else `least`, else the best here.

    `least` is what a course's configuration demands of official grading: anything weaker is refused.
    Raises UnknownLevel, SandboxUnavailable.
    """
    setting = "" if named else os.environ.get(SETTING, "")
    try:
        level = require(named or setting or least or best_level())
    except (UnknownLevel, SandboxUnavailable) as error:
        raise type(error)(f"{SETTING}: {error}" if setting else str(error)) from None
    if least and LEVELS.index(level) > LEVELS.index(require(least)):
        asked = f"{SETTING} asks" if setting else "--level asks"
        raise SandboxUnavailable(
            f"this course grades at sandbox level {least} (c.Judged.level in its nbgrader_config.py), "
            f"and {asked} for {level}, which is weaker: ask for {least}, or change the configuration"
        )
    return level


def why_not(level: str) -> str:
    """What this machine lacks for a level, in one line; empty if the level works here."""
    if level == "bubblewrap":
        return _bwrap_trial()[1]
    if level == "landlock":
        if landlock.landlock_abi() < 1:
            return "this kernel has no Landlock"
        if not landlock.can_refuse_network():
            return "no socket filter for this processor"
    return ""


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

    def kill(self) -> Report:
        """End the program and all it started, if it still runs."""
        with contextlib.suppress(OSError):
            self._control.sendall(b"k")
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
    argv: Sequence[str],
    *,
    readable: Sequence[str | Path] = (),
    writable: Sequence[str | Path] = (),
    env: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    level: str,
    cwd: str | Path | None = None,
    loopback: bool = False,
    packages: Sequence[str] | None = None,
    importable: Sequence[str | Path] = (),
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
) -> Process:
    """Start `argv` (argv[0]: an absolute path) in a sandbox of exactly this level.

    Beside the system's programs and this Python, it can read `readable` and write `writable` (existing paths,
    same names inside), and a private TMPDIR, which is also its HOME. It can import the packages and modules
    that `importable` names by their paths, and nothing beside them. Its environment is `env` and a few fixed
    names; nothing of ours. `loopback` asks for sockets on 127.0.0.1 (always there in bubblewrap). Of the
    packages installed for Python it finds all, or only those in `packages` (level rlimits lets it read the
    files of the others). Every path that argv, env or cwd names must be one that it sees: what only some of
    the levels would refuse is an error at each. Raises SandboxUnavailable, FileNotFoundError, ValueError
    before anything runs.
    """
    require(level)
    limits = limits or Limits()
    if not os.path.isabs(argv[0]):
        raise ValueError(f"sandbox: program {argv[0]!r} must be an absolute path")
    linked = [os.path.abspath(path) for path in importable]
    read, write = [*map(os.path.abspath, readable), *linked], [*map(os.path.abspath, writable)]
    for path in (*read, *write):
        if not os.path.exists(path):
            raise FileNotFoundError(f"sandbox: {path} does not exist, so it cannot be made visible inside")
    _refuse_unseen([*argv, *([cwd] if cwd else [])], env or {}, [*read, *write])
    hidden = [] if packages is None else _package_folders()
    linked += [] if packages is None else [place for name in packages for place in _places(name)]
    links = bool(linked) or packages is not None
    options: list[str] = list(itertools.takewhile(lambda word: word[:1] == "-", argv[1:]))
    if links and ("-I" in options or "-E" in options):
        raise ValueError("sandbox: Python's -I and -E leave out what is importable: use -P -s")
    scratch = Folder("sandbox") if links or level != "bubblewrap" else None
    place = str(scratch.path) if scratch else ""
    try:
        home = "/tmp" if level == "bubblewrap" else f"{place}/home"
        env = _environment(home, env or {})
        if links:
            path = _links(f"{place}/path", linked, only_these=packages is not None)
            read += [*linked, path]
            env["PYTHONPATH"] = os.pathsep.join(filter(None, [path, env.get("PYTHONPATH")]))
        orders = {
            "argv": list(argv),
            "cwd": os.path.abspath(cwd) if cwd else home,
            "env": env,
            "limits": asdict(limits),
            "rlimits": _rlimits(limits, level),
            "bwrap": [],
            "files": _FILES,
            "watched": write,
            "landlock": None,
            "refuse_network": level != "bubblewrap" and not loopback and landlock.can_refuse_network(),
        }
        if level == "bubblewrap":
            orders["bwrap"] = _bwrap_command(read, write, hidden, limits)
            orders["argv"] = [*_process_cap(limits), *argv]
        else:
            os.mkdir(home)
            orders["watched"] = [*write, home]
        if level == "landlock":
            orders["landlock"] = _landlock_rules(read, [home, *write], hidden)
        return _launch(orders, level, scratch, stdin, stdout, stderr)
    except BaseException:
        if scratch:
            scratch.close()
        raise


def _environment(home: str, env: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": f"{os.path.dirname(sys.executable)}:/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "USER": "student",
        "PYTHONDONTWRITEBYTECODE": "1",
        **env,
    }


def _landlock_rules(read: list[str], write: list[str], hidden: list[str]) -> dict[str, list[str]]:
    system = [*_SYSTEM, *_python_folders()]
    shown = [part for path in system for part in _without(path, hidden)]
    return {
        "listable": system if hidden else [],
        "readable": [
            *shown,
            *_SYSTEM_LINKS,
            *_ETC,
            _CPU,
            "/proc",
            "/etc/passwd",
            "/etc/hosts",
            *_DEVICES,
            *read,
        ],
        "writable": [*_DEVICES, *write],
    }


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


def run(
    argv: Sequence[str],
    *,
    readable: Sequence[str | Path] = (),
    writable: Sequence[str | Path] = (),
    env: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    level: str,
    cwd: str | Path | None = None,
    loopback: bool = False,
    packages: Sequence[str] | None = None,
    importable: Sequence[str | Path] = (),
    input: bytes = b"",
) -> Completed:
    """Run to the end, as `start`; what it wrote comes back, and too much of it ends the program."""
    limits = limits or Limits()
    with start(
        argv, readable=readable, writable=writable, env=env, limits=limits, level=level, cwd=cwd,
        loopback=loopback, packages=packages, importable=importable,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        readers = [_Reader(pipe, limits.output_bytes, process) for pipe in (process.stdout, process.stderr)]
        writer = threading.Thread(target=_feed, args=(process.stdin, input), daemon=True)
        writer.start()
        report = process.wait()
        for thread in (writer, *readers):
            thread.join()
        reason = report.reason
        if any(reader.overflow for reader in readers):
            reason = f"output limit: more than {limits.output_bytes / 1e6:g} MB written"
        out, err = (bytes(reader.data) for reader in readers)
        return Completed(
            reason, report.returncode, report.peak_memory, report.seconds, report.level, out, err,
            memory_by=report.memory_by,
        )  # fmt: skip


class _Reader(threading.Thread):
    """Drains one pipe into memory, up to a cap; the first byte over it ends the program."""

    def __init__(self, stream: IO[bytes], cap: int, process: Process):
        super().__init__(daemon=True)
        self.data, self.overflow = bytearray(), False
        self._stream, self._cap, self._process = stream, cap, process
        self.start()

    def run(self) -> None:
        while part := os.read(self._stream.fileno(), 65536):
            self.data += part
            if len(self.data) > self._cap and not self.overflow:
                self.overflow = True
                with contextlib.suppress(OSError):
                    self._process._control.sendall(b"k")
            del self.data[self._cap :]


def _feed(stream: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(OSError):  # the program need not read its input
        stream.write(data)
        stream.close()


def _refuse_unseen(words: Sequence[str | Path], env: Mapping[str, str], shown: Sequence[str]) -> None:
    """Raises ValueError for an existing path of the host that a program is told of, but does not see."""
    seen = (*_SYSTEM, *_SYSTEM_LINKS, *_ETC, _CPU, "/proc", *_DEVICES, *_python_folders(), *shown)
    for word in [str(word) for word in words] + [part for value in env.values() for part in value.split(":")]:
        path = os.path.normpath(word)
        if not os.path.isabs(path) or not os.path.exists(path):
            continue
        if not any(path == folder or path.startswith(f"{folder}/") for folder in seen):
            raise ValueError(
                f"sandbox: the program is told of {path}, which it does not see: "
                "give it as readable, writable or importable"
            )


def _links(folder: str, paths: Sequence[str], only_these: bool) -> str:
    """Make a folder for PYTHONPATH that holds links to these packages and modules, and nothing else.

    Python lists the folders on its path: so whoever lets it import a package from beside other files would
    have to show their names, too, and Landlock refuses the listing where it is forgotten.
    """
    os.mkdir(folder)
    for path in paths:
        os.symlink(path, os.path.join(folder, os.path.basename(path)))
    if only_these:
        Path(folder, "sitecustomize.py").write_text(_ONLY_THESE, encoding="utf-8")
    return folder


def _rlimits(limits: Limits, level: str) -> dict[str, int]:
    caps = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NOFILE": 1024,
        # A backstop between two looks of the supervisor: one process gets little more than all may use.
        "RLIMIT_DATA": limits.memory_bytes + 512 * _MIB,
    }
    if limits.cpu_s is not None:
        caps["RLIMIT_CPU"] = math.ceil(limits.cpu_s) + 1  # a backstop: the supervisor adds up the tree's
    if level != "bubblewrap" and os.getuid() != 0:  # counts every task of this user, ours too
        caps["RLIMIT_NPROC"] = _tasks_of(os.getuid()) + limits.processes + limits.threads
    return caps


def _tasks_of(uid: int) -> int:
    total = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):  # processes end while we look
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                total += len(os.listdir(f"/proc/{name}/task"))
    return total


def _process_cap(limits: Limits) -> list[str]:
    """In bubblewrap's user namespace tasks are counted apart from the rest of the user's (not root's)."""
    prlimit = "/usr/bin/prlimit"
    if os.getuid() == 0 or not os.path.exists(prlimit):
        return []
    return [prlimit, f"--nproc={limits.processes + limits.threads}", "--"]


def _python_folders() -> list[str]:
    """Where this interpreter and its packages live, as named and as resolved."""
    named = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    link = sys.executable
    for _ in range(16):  # every link on the way from a virtual environment's python to the real one
        named.add(os.path.dirname(os.path.dirname(link)))
        if not os.path.islink(link):
            break
        link = os.path.normpath(os.path.join(os.path.dirname(link), os.readlink(link)))
    named |= {os.path.realpath(path) for path in named}
    roots = {"/", "/usr", os.path.expanduser("~"), "/home", "/root"}
    return sorted(path for path in named if path not in roots and not path.startswith("/usr/"))


def _package_folders() -> list[str]:
    """Every folder that this interpreter, or one it stems from, installs packages in."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefixes = {*_python_folders(), sys.prefix, sys.base_prefix, "/usr", "/usr/local"}
    found = {path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")}
    for prefix in prefixes:
        for lib in ("lib", "lib64"):
            for python in (version, "python3"):
                found |= {f"{prefix}/{lib}/{python}/{name}" for name in ("site-packages", "dist-packages")}
    return sorted({os.path.realpath(path) for path in found if os.path.isdir(path)})


@functools.cache
def _places(package: str) -> tuple[str, ...]:
    """The folder or file of an installed package, and the libraries a wheel ships beside it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"sandbox: package {package} is not installed for {sys.executable}")
    origin = os.path.realpath(spec.origin)
    if spec.submodule_search_locations is None:
        return (origin,)
    folder = os.path.dirname(origin)
    return tuple(path for path in (folder, f"{folder}.libs") if os.path.isdir(path))


def _without(folder: str, hidden: Sequence[str]) -> list[str]:
    """Paths that together are `folder` without the hidden folders in it."""
    real = os.path.realpath(folder)
    if real in hidden or not os.path.isdir(folder):
        return []
    if not any(path.startswith(real + "/") for path in hidden):
        return [folder]
    return [part for name in os.listdir(folder) for part in _part(f"{folder}/{name}", hidden)]


def _part(path: str, hidden: Sequence[str]) -> list[str]:
    if os.path.islink(path):  # its target is shown, or not, under its own name
        return []
    return _without(path, hidden) if os.path.isdir(path) else [path]


def _is_shown(path: str, folders: Iterable[str]) -> bool:
    return any(path.startswith(folder + "/") for folder in (*_SYSTEM, *folders))


def _bwrap_options() -> tuple[str, ...]:
    """bubblewrap and the options that work here; empty where it does not work at all."""
    return _bwrap_trial()[0]


@functools.cache
def _bwrap_trial() -> tuple[tuple[str, ...], str]:
    """bubblewrap and the options that work here, or nothing and why."""
    bwrap = shutil.which("bwrap")
    if not bwrap:
        return (), "there is no program bwrap"
    basic = (
        bwrap, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
        "--unshare-cgroup-try", "--uid", "1000", "--gid", "1000", "--hostname", "olympics",
        "--die-with-parent", "--new-session", "--cap-drop", "ALL",
    )  # fmt: skip
    why = ""
    for options in ((*basic, "--disable-userns"), basic):
        trial = [*options, *_bwrap_tree(16 * _MIB), "--", "/usr/bin/env", "true"]
        try:
            done = subprocess.run(trial, capture_output=True, timeout=20, env={"PATH": "/usr/bin:/bin"})
        except (OSError, subprocess.TimeoutExpired) as error:
            why = " ".join(str(error).split())
            continue
        if done.returncode == 0:
            return options, ""
        why = " ".join(done.stderr.decode(errors="replace").split()) or f"exit {done.returncode}"
    return (), why


def _bwrap_tree(tmp_bytes: int) -> list[str]:
    # Started by root, the program is root to /proc/sys whatever its namespace: so /proc is read-only.
    tree = ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    tree += ["--size", str(tmp_bytes), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    tree += ["--size", str(tmp_bytes), "--tmpfs", "/tmp"]
    for path in (*_SYSTEM, *_ETC, _CPU):
        tree += ["--ro-bind-try", path, path]
    for path in _SYSTEM_LINKS:
        if os.path.islink(path):
            tree += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            tree += ["--ro-bind", path, path]
    return tree


def _bwrap_command(readable: list[str], writable: list[str], hidden: list[str], limits: Limits) -> list[str]:
    folders = _python_folders()
    linked = {path: os.path.realpath(path) for path in folders}
    linked = {path: real for path, real in linked.items() if path != real and _is_shown(real + "/", folders)}
    mounts = {path: ["--ro-bind", path, path] for path in folders if path not in linked}
    mounts |= {path: ["--tmpfs", path] for path in hidden if _is_shown(path, mounts)}
    mounts |= {path: ["--ro-bind", path, path] for path in readable}
    mounts |= {path: ["--bind", path, path] for path in writable}
    for path, real in linked.items():  # as a link: bound under a second name it would show what is hidden
        if path not in mounts and not _is_shown(path, mounts):
            mounts[path] = ["--symlink", real, path]
    command = [*_bwrap_options(), *_bwrap_tree(limits.tmp_bytes)]
    for path in sorted(mounts, key=lambda path: path.count("/")):  # a folder before what lies in it
        command += mounts[path]
    return command  # the supervisor adds _FILES, then makes the root read-only
