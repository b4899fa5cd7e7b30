"""What the course asks of a machine: a small function each, which looks and says what it found.

Here is what can be looked at before any package is installed (`installed` has the rest). The standard library
alone, and nothing at the top that Windows or macOS lacks: `python3 -m tito.doctor` runs it, on a Python that
is too old for the course, too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import locale
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from autograder.paths import LIBRARY

ROADS = {
    "student": "student",
    "grading": "grading",
    "handbook": "handbook",
    "browser": "browser tests",
    "tests": "all tests",
    "hub": "JupyterHub",
}
WORK = ("student", "grading")  # the main roads
OLDEST = (3, 11)  # as requires-python in pyproject.toml; a test compares them
GB = 10**9
# Free space in bytes, by `du -sm`, bytecode compiled: a student's environment is 522 MB, that of `make demo`
# 571 and uv's 37, the one with all that make brings 1,027, the demo's course 25.
# Each of a class of 100 has about 20 MB: models like the course's entries (7 MB) in exchange/ and submitted/,
# and 19 lessons in three folders.
SPACE = {"the packages": GB * 8 // 10, "work": GB // 5, "a course of 100": 2 * GB}
SUBMISSION_DISK = 2**30  # bytes a submission may write to the temporary folder (sandbox.Limits.disk_bytes)
SUBMISSION_MEMORY = 4 * GB  # bytes a track's model may use (rules.Limits.memory_bytes)
PATIENCE_S = 25.0  # for one question to another program


@dataclass(frozen=True)
class Check:
    """One look. `stops` names the roads that do not work for want of it; a lack that stops none is a note."""

    name: str
    state: str  # "ok", "lack": not there, "broken": there, and does not work
    found: str
    meaning: str = ""
    mend: str = ""
    stops: tuple[str, ...] = ()


def ok(name: str, found: str) -> Check:
    return Check(name, "ok", found)


def lack(name: str, found: str, meaning: str, mend: str = "", stops: tuple[str, ...] = ()) -> Check:
    return Check(name, "lack", found, meaning, mend, stops)


def broken(name: str, found: str, meaning: str, mend: str = "", stops: tuple[str, ...] = ()) -> Check:
    return Check(name, "broken", found, meaning, mend, stops)


# ---- how a lack is mended here


def os_name() -> tuple[str, tuple[str, ...]]:
    """The system's name, and the ids of its family, its own first: ("Ubuntu 24.04", ("ubuntu", "debian"))."""
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}", ("macos",)
    if sys.platform == "win32":
        return f"Windows {platform.release()}", ("windows",)
    try:
        release = platform.freedesktop_os_release()
    except (OSError, AttributeError):  # no os-release; or Python 3.9, which cannot read it
        return platform.system(), ()
    ids = (release["ID"], *release.get("ID_LIKE", "").split())
    return release["PRETTY_NAME"], ids


def as_root(command: str) -> str:
    """A command as this user has to type it."""
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        return command
    return f"sudo {command}" if shutil.which("sudo") else f"as root: {command}"


def install(apt: str, dnf: str = "", brew: str = "", winget: str = "", conda: str = "") -> str:
    """The command that installs a program here; each argument is its name for that installer."""
    ids = os_name()[1]
    if {"debian", "ubuntu"} & set(ids):
        return as_root(f"apt-get install {apt}")
    if {"fedora", "rhel", "centos"} & set(ids):
        return as_root(f"dnf install {dnf or apt}")
    if conda and os.environ.get("CONDA_PREFIX"):
        return f"conda install -c conda-forge {conda}"
    if "macos" in ids and brew:
        return f"brew install {brew}"
    if "windows" in ids and winget:
        return f"winget install {winget}"
    return f"install {apt.split()[0]} with this system's package manager"


def is_clone() -> bool:
    """Whether this tito runs in the course's repository."""
    return (LIBRARY / "modules").is_dir() and (LIBRARY / "Makefile").is_file()


def mark_above(*names: str) -> Path | None:
    """The nearest folder, this one or one above, that holds one of these."""
    with contextlib.suppress(OSError):  # a folder that was removed under us holds nothing
        here = Path.cwd()
        for folder in (here, *here.parents):
            if any(os.path.exists(folder / name) for name in names):
                return folder
    return None


# ---- the system


def python() -> Check:
    """Old enough, of 64 bits, and able to make a virtual environment."""
    version = platform.python_version()
    if sys.version_info[:2] < OLDEST:
        newer = [
            f"python3.{minor}" for minor in range(14, OLDEST[1] - 1, -1) if shutil.which(f"python3.{minor}")
        ]
        mend = (
            f"make PYTHON={newer[0]} demo"
            if newer
            else install("python3.11", brew="python", conda="python=3.12")
        )
        meaning = f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed: nothing of the course runs"
        return lack("Python", f"{version} in {sys.executable}", meaning, mend, tuple(ROADS))
    if sys.maxsize < 2**32:
        return broken(
            "Python", f"{version}, of 32 bits", "NumPy has no package for it: nothing can be installed",
            "install a Python of 64 bits", tuple(ROADS),
        )  # fmt: skip
    in_environment = sys.prefix != sys.base_prefix or bool(os.environ.get("CONDA_PREFIX"))
    if not in_environment and not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        meaning = "no virtual environment can be made, so nothing can be installed"
        return lack("Python", f"{version} without venv", meaning, install(package, "python3"), WORK)
    return ok("Python", f"{version} in {sys.prefix}")


def cores() -> Check:
    """Processors that this process may use, after affinity and a container's quota."""
    whole = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else whole
    quota = cpu_quota()
    found = f"{usable} of {whole}" + (f", {quota:g} of them by quota" if quota and quota < usable else "")
    if min(usable, quota or usable) < 2:
        return lack(
            "cores", found, "all works, more slowly; times compare only with those of a machine like it",
            "taskset, a cpuset or cpu.max keeps the others from us" if whole > 1 else "",
        )  # fmt: skip
    return ok("cores", found)


def cpu_quota() -> float | None:
    """Processors' worth of time that the cgroups around us allow; None where none of them says."""
    shares = [line.split() for line in _cgroup_values("cpu.max")]
    return min((int(quota) / int(period) for quota, period in shares if quota != "max"), default=None)


def _cgroup_values(name: str) -> list[str]:
    """What a file says in our cgroup (version 2) and in those around it, nearest first."""
    if sys.platform != "linux":
        return []
    from autograder.sandbox import cgroup

    values: list[str] = []
    with contextlib.suppress(OSError):  # no cgroups, or not for us to see
        own, mounts = (
            Path(f"/proc/self/{name}").read_text("utf-8", "replace") for name in ("cgroup", "mountinfo")
        )
        place = cgroup.locate(own, mounts)
        top, folder = map(Path, place) if place else (None, Path("/"))
        while top and (folder == top or top in folder.parents):
            with contextlib.suppress(OSError):  # the topmost has none
                values.append((folder / name).read_text(encoding="utf-8").strip())
            folder = folder.parent
    return values


def memory() -> Check:
    """Memory of the machine, or what a container leaves of it."""
    if not hasattr(os, "sysconf"):
        return ok("memory", "not asked of this system")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    caps = [int(value) for value in _cgroup_values("memory.max") if value != "max"]
    least = min([total, *caps])
    found = f"{least / GB:.1f} GB" + (
        f" of {total / GB:.1f} GB, by a cgroup's limit" if least < total else ""
    )
    if least < GB:
        return lack("memory", found, "less than 1 GB: JupyterLab and a notebook do not fit", "", WORK)
    if least < SUBMISSION_MEMORY:
        meaning = (
            f"a track's model may use {SUBMISSION_MEMORY / GB:g} GB when graded: one that does is killed here"
        )
        return lack(
            "memory", found, meaning, "grade tracks on a larger machine, one at a time (--workers 1)",
        )  # fmt: skip
    return ok("memory", found)


def folder() -> Check:
    """This folder: there, ours to write, with locks and programs that start."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return broken("folder", "removed", "this folder is gone, and nothing starts in it", "cd", WORK)
    fault = _unwritable(here)
    if fault:
        return broken("folder", f"{here}: {fault}", "nothing can be made here", 'cd "$HOME"', WORK)
    if _no_programs(here):
        meaning = (
            "no program or library that lies here starts (noexec): an environment made here does not work"
        )
        return broken("folder", f"{here}: noexec", meaning, 'cd "$HOME"', WORK)
    fault = _unlockable(here)
    if fault:
        meaning = "a file cannot be locked here, so two commands at once may spoil each other's files"
        return broken(
            "folder", f"{here}: {fault}", meaning, "use a folder on a disk of this machine", ("grading",),
        )  # fmt: skip
    return ok("folder", here)


def _unwritable(folder: str) -> str:
    """Why no file can be made in a folder; empty where one was."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _no_programs(folder: str) -> bool:
    return sys.platform == "linux" and bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)


def _unlockable(folder: str) -> str:
    if sys.platform == "win32":  # which locks in another way
        return ""
    import fcntl

    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.strerror or str(error)
    return ""


def disk() -> Check:
    """Free space where we stand: for the packages, if they are not there yet, and for a class."""
    try:
        place = os.getcwd()
        free = shutil.disk_usage(place).free
    except OSError as error:
        return broken("disk", error.strerror or str(error), "free space cannot be read")
    what = "work" if is_installed() else "the packages"
    found = f"{free / GB:.1f} GB free at {place}"
    if free < SPACE[what]:
        meaning = f"{what} and a demo need {SPACE[what] / GB:g} GB"
        return lack("disk", found, meaning, f"du -sh {shlex.quote(place)}/*", WORK)
    if free < SPACE["a course of 100"]:
        return lack("disk", found, f"a course of 100 needs about {SPACE['a course of 100'] / GB:g} GB")
    return ok("disk", found)


def is_installed() -> bool:
    """Whether this Python has the course's packages."""
    return importlib.util.find_spec("numpy") is not None and importlib.util.find_spec("nbformat") is not None


def temporary() -> Check:
    """The folder for temporary files: which one Python takes, whether it can, and what is free there."""
    asked = os.environ.get("TMPDIR")
    try:
        taken = tempfile.gettempdir()
    except FileNotFoundError:
        return broken(
            "temporary folder", "none that can be written", "no notebook runs, and nothing is graded",
            'mkdir -p "$HOME/tmp" && export TMPDIR="$HOME/tmp"', WORK,
        )  # fmt: skip
    fault = _unwritable(taken)  # gettempdir may fall back on the current folder
    if asked and os.path.realpath(asked) != os.path.realpath(taken):
        return broken(
            "temporary folder", f"TMPDIR={asked} cannot be written; {taken} is used",
            "programs that take TMPDIR as it stands fail", f"mkdir -p {shlex.quote(asked)}",
        )  # fmt: skip
    free = shutil.disk_usage(taken).free
    found = f"{taken}, {free / GB:.1f} GB free"
    if fault or free < SUBMISSION_DISK / 10:
        return lack(
            "temporary folder", fault or found, "too little room for a notebook's own files",
            'mkdir -p "$HOME/tmp" && export TMPDIR="$HOME/tmp"', WORK,
        )  # fmt: skip
    if free < SUBMISSION_DISK:
        meaning = f"a submission may write {SUBMISSION_DISK / GB:.1f} GB there: one that does fails here"
        return lack("temporary folder", found, meaning, 'export TMPDIR="$HOME/tmp"')
    return ok("temporary folder", found)


def home() -> Check:
    """HOME, and the folders in it that Jupyter and IPython write."""
    named = os.environ.get("HOME") or os.environ.get("USERPROFILE")
    places = {
        "JUPYTER_CONFIG_DIR": ".jupyter",
        "JUPYTER_DATA_DIR": ".local/share/jupyter",
        "JUPYTER_RUNTIME_DIR": ".local/share/jupyter/runtime",
        "IPYTHONDIR": ".ipython",
    }
    mend = 'mkdir -p "$PWD/home" && export HOME="$PWD/home"'
    base = Path(named or os.path.expanduser("~"))
    meaning = "tito takes a private temporary folder in its place: what Jupyter remembers is lost with it"
    if base.name.startswith("tito-home-"):  # as autograder.home has it, for what tito starts
        return lack("home", f"{base}, for want of one that can be written", meaning, mend)
    if not base.is_absolute() or not os.path.isdir(base) or not os.access(base, os.W_OK | os.X_OK):
        return lack("home", f"{named or 'no HOME'}: cannot be written", meaning, mend)
    for variable, usual in places.items():
        asked = os.environ.get(variable)
        place = Path(asked) if asked else base / usual
        there = next(folder for folder in (place, *place.absolute().parents) if os.path.exists(folder))
        if not os.path.isdir(there) or not os.access(there, os.W_OK):
            whose = f"{variable}={asked}" if asked else str(place)
            owner = _owner(there)
            if owner and there != base and base in there.parents:  # made by root, most often
                mend = as_root(f"chown -R $(id -u) {shlex.quote(str(there))}")
            return broken(
                "home", f"{whose} cannot be written ({there}{owner})",
                "JupyterLab and notebooks keep their running files there, and do not start", mend,
                ("student",),
            )  # fmt: skip
    if not named:
        return lack(
            "home", f"HOME is not set; {base} is taken", "some programs do not look further",
            f"export HOME={base}",
        )  # fmt: skip
    return ok("home", str(base))


def _owner(path: Path) -> str:
    if sys.platform == "win32":
        return ""
    return "" if path.stat().st_uid == os.getuid() else f", of user {path.stat().st_uid}"


def text() -> Check:
    """The encoding of what is printed, and whether the locale that is named exists."""
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
    asked = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_CTYPE", "LANG"))), "")
    found = f"{encoding}, locale {asked or 'not set'}"
    try:
        locale.setlocale(locale.LC_CTYPE, "")
    except locale.Error:
        return lack(
            "text", f"{found}: not installed here", "programs warn, and take C", "export LC_ALL=C.UTF-8",
        )  # fmt: skip
    if encoding.replace("-", "") != "utf8":
        return lack(
            "text", found, "letters that it lacks are printed as escapes; files are UTF-8 all the same",
            "set PYTHONUTF8=1" if sys.platform == "win32" else "export PYTHONUTF8=1",
        )  # fmt: skip
    return ok("text", found)


def clock() -> Check:
    """Fine enough to time a model, and not behind the day this file was written."""
    resolution = time.get_clock_info("perf_counter").resolution
    found = f"{time.strftime('%Y-%m-%d %H:%M %Z')}, steps of {resolution:g} s"
    if time.time() < Path(__file__).stat().st_mtime - 86400:
        return broken(
            "clock", found, "it is behind the day on which the course came here: due dates are judged by it",
            as_root("timedatectl set-ntp true"),
        )  # fmt: skip
    if resolution > 1e-4:
        return lack("clock", found, "too coarse to time a model: figures of speed are rough here")
    return ok("clock", found)


def loopback() -> Check:
    """A connection within the machine, as JupyterLab and its kernels make them."""
    meaning = "JupyterLab and notebooks talk to each other this way, and cannot"
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError as error:
        mend = as_root("ip link set lo up")
        return broken("loopback", f"127.0.0.1: {error}", meaning, mend, WORK)
    try:
        socket.getaddrinfo("localhost", port)
    except OSError:
        mend = f"echo '127.0.0.1 localhost' | {as_root('tee -a /etc/hosts')}"
        return broken("loopback", "the name localhost is not known", meaning, mend, ("student",))
    return ok("loopback", "127.0.0.1 answers")


# ---- the sandbox


def bubblewrap() -> Check:
    """The strongest level, and what keeps it from working."""
    fault = _trial("bubblewrap")
    if not fault:
        return ok("bubblewrap", "works")
    meaning = "submissions are graded at a weaker sandbox level, and the results say so"
    if sys.platform != "linux":
        return lack("bubblewrap", fault, "what you hand in is measured on the class's machine")
    return lack("bubblewrap", fault, meaning, mend_bubblewrap(fault))


def mend_bubblewrap(fault: str, sysctl: Path = Path("/proc/sys")) -> str:
    """The command that lets bubblewrap work, from what it said and from the kernel's settings."""
    if "no program bwrap" in fault:
        return install("bubblewrap", conda="bubblewrap")
    for name, good in (
        ("kernel.apparmor_restrict_unprivileged_userns", "0"),  # Ubuntu 23.10 and newer: 1
        ("kernel.unprivileged_userns_clone", "1"),  # Debian 10 and older: 0
        ("user.max_user_namespaces", "15000"),  # some servers: 0
    ):
        with contextlib.suppress(OSError):  # this kernel has no such setting
            value = (sysctl / name.replace(".", "/")).read_text(encoding="utf-8").strip()
            if (value == "0") != (good == "0"):
                return as_root(f"sysctl -w {name}={good}") + " (until it restarts; /etc/sysctl.d/ keeps it)"
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        return (
            "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
            "--security-opt systempaths=unconfined"
        )
    return "tito sandbox --level bubblewrap"


def landlock() -> Check:
    """The level that the kernel gives without a helper program."""
    fault = _trial("landlock")
    if fault:
        return lack("landlock", fault, "without it and bubblewrap, files of the same user stay readable")
    return ok("landlock", "works")


def rlimits() -> Check:
    """The weakest level, which works wherever there is Linux."""
    fault = _trial("rlimits")
    if fault and sys.platform == "linux":
        return broken(
            "rlimits", fault, "no program can be run under limits: nothing is graded", "", ("grading",),
        )  # fmt: skip
    return (
        lack("rlimits", fault, "what you hand in is measured on the class's machine")
        if fault
        else ok("rlimits", "works")
    )


def _trial(level: str) -> str:
    """Why a Python does not run at this sandbox level; empty where it did. Tried once, whoever asks first."""
    lock, known = _TRIALS.setdefault(level, (threading.Lock(), []))
    with lock:
        if not known:
            known.append(_fault(level))
        return known[0]


_TRIALS: dict[str, tuple[threading.Lock, list[str]]] = {}


def _fault(level: str) -> str:
    if sys.platform != "linux":
        return f"no Linux, but {platform.system()}"
    from autograder import sandbox

    why = sandbox.why_not(level)
    if why:
        return why
    argv, limits = [sys.executable, "-I", "-S", "-c", "print(6 * 7)"], sandbox.Limits(wall_s=PATIENCE_S)
    done = sandbox.run(sandbox.Program(argv, level=level, limits=limits))
    if done.stdout == b"42\n" and done.returncode == 0:
        return ""
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return done.reason or " ".join(last) or f"a Python in it ended with code {done.returncode}"


def level() -> Check:
    """The level that grading takes where no option names one."""
    if sys.platform != "linux":
        return lack(
            "level", "none", "nothing is graded or measured without Linux: WSL 2 or a container has one"
        )
    from autograder import sandbox

    asked = os.environ.get(sandbox.SETTING)
    try:
        taken = sandbox.choose()
    except (sandbox.UnknownLevel, sandbox.SandboxUnavailable) as error:
        return broken("level", "none", str(error), f"unset {sandbox.SETTING}" if asked else "", ("grading",))
    fault = _trial(taken)
    if fault:
        return broken("level", "none", f"{taken}: {fault}", "tito sandbox", ("grading",))
    return ok(
        "level", f"{taken}, by {sandbox.SETTING}" if asked else f"{taken}, the strongest that works here"
    )


def memory_limits() -> Check:
    """Whether the kernel holds a submission's memory, by a cgroup that we may make."""
    if sys.platform != "linux":
        return ok("memory limits", "not on this system")
    from autograder.sandbox import cgroup

    sleeper = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        group = cgroup.hold(sleeper.pid, 2**30, 64)
    finally:
        sleeper.communicate(b"\n")
    if group is None:
        return lack(
            "memory limits", "no cgroup v2 of our own", "a submission's memory is watched, 20 times a second",
            "systemd-run --user --scope tito grade ..." if os.path.isdir("/run/systemd/system") else "",
        )  # fmt: skip
    group.remove()
    return ok("memory limits", "held by the kernel, in a cgroup")


# What can be looked at before a package is there; the sandbox's own files need Python's library alone.
BARE = (
    python, cores, memory, folder, disk, temporary, home, text, clock, loopback,
    bubblewrap, landlock, rlimits, level, memory_limits,
)  # fmt: skip
