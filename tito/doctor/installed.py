"""What has to be installed beside Python: programs, packages, data, a kernel; a function each, as in checks.

Nothing of it is imported here: packages are found in their records, and what a package alone can tell is
asked of a second Python, under a time limit.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from autograder import needs
from autograder.paths import LIBRARY, with_library
from tito.doctor.checks import (
    GB,
    PATIENCE_S,
    ROADS,
    WORK,
    Check,
    as_root,
    broken,
    install,
    is_clone,
    lack,
    mark_above,
    ok,
    os_name,
)

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# an extra: the road that needs it, the command that brings it in a clone
EXTRAS = {
    "": (WORK, "make demo"),
    "instructor": (("grading",), "make demo"),
    "dev": (("tests",), "make test"),
    "book": (("handbook",), "make book"),
    "browser": (("browser",), "make browser"),
    "hub": (("hub",), "make browser"),
}


def _program(
    name: str, programs: tuple[str, ...], meaning: str, mend: str, stops: tuple[str, ...] = ()
) -> Check:
    found = next(filter(None, map(shutil.which, programs)), None)
    return ok(name, found) if found else lack(name, f"no {' or '.join(programs)}", meaning, mend, stops)


def git() -> Check:
    mend = install("git", brew="git", winget="Git.Git", conda="git")
    return _program("git", ("git",), "a clone cannot be updated with git pull", mend)


def make() -> Check:
    meaning = "the commands `make ...` of a clone do not work; a student needs none"
    return _program(
        "make", ("make", "gmake"), meaning, install("make", brew="make", conda="make"), ("handbook", "tests"),
    )  # fmt: skip


def chromium() -> Check:
    meaning = "the tests in a browser and the handbook's pictures are not made"
    mend = install("chromium fonts-dejavu-core", "chromium dejavu-sans-fonts", brew="chromium")
    return _program("chromium", _CHROMIUM, meaning, mend, ("browser",))


def fonts() -> Check:
    """A font of the system: chromium writes with one; figures bring matplotlib's own."""
    mend = install("fontconfig fonts-dejavu-core", "fontconfig dejavu-sans-fonts")
    meaning = "chromium's pictures have boxes for letters; figures have matplotlib's own font, DejaVu Sans"
    if sys.platform in ("darwin", "win32"):
        return ok("fonts", "the system's own")
    if not shutil.which("fc-list"):
        return lack("fonts", "no fc-list", meaning, mend, ("browser",))
    listed = _ask(["fc-list", ":", "family"])
    families = {line for line in listed.stdout.splitlines() if line}
    if not families:
        return lack("fonts", "fc-list lists none", meaning, mend, ("browser",))
    return ok("fonts", f"{len(families)} families of the system")


def postgresql() -> Check:
    """A server for the test of a gradebook on PostgreSQL; a gradebook is SQLite unless you say otherwise."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if places:
        return ok("PostgreSQL", str(places[-1]))
    mend = install("postgresql", "postgresql-server", brew="postgresql", conda="postgresql")
    return _program("PostgreSQL", ("initdb",), "the test of a gradebook on PostgreSQL skips", mend)


def hub_proxy() -> Check:
    name = "configurable-http-proxy"
    mend = install(f"node-{name}", conda=name) if "debian" in os_name()[1] else f"npm install -g {name}"
    return _program("hub's proxy", (name,), "JupyterHub does not start, and its test skips", mend, ("hub",))


def shared_memory() -> Check:
    """Semaphores in /dev/shm, which processes that work together share."""
    if sys.platform != "linux":
        return ok("/dev/shm", "not on this system")
    try:
        import _multiprocessing

        _multiprocessing.SemLock(1, 1, 1, f"/doctor-{os.getpid()}", True)
        free = shutil.disk_usage("/dev/shm").free
    except OSError as error:
        meaning = "several workers cannot grade at the same time"
        return broken(
            "/dev/shm", error.strerror or str(error), meaning, as_root("mount -t tmpfs tmpfs /dev/shm"),
        )  # fmt: skip
    if free < 64e6:
        return lack(
            "/dev/shm", f"{free / 1e6:.0f} MB", "chromium may end for want of it", "docker run --shm-size=1g",
        )  # fmt: skip
    return ok("/dev/shm", f"{free / GB:.1f} GB free")


# ---- packages, data, and where we stand


def packages(extra: str = "") -> Check:
    """The packages that the course asks for, of one extra; found in their records, none is imported."""
    name = f"packages [{extra}]" if extra else "packages"
    stops, mend = EXTRAS.get(extra, ((), ""))
    try:
        asked = importlib.metadata.requires("torch-olympics") or []
    except importlib.metadata.PackageNotFoundError:
        mend = mend if is_clone() else "pip install torch_olympics-*.whl"
        return lack(
            name, f"the course is not installed for {sys.executable}", "tito does not run", mend, stops,
        )  # fmt: skip
    wanted = [line for line in asked if _extra_of(line) == extra]
    missing = [package for package in map(_name_of, wanted) if not _is_there(package)]
    if missing:
        if Path(sys.prefix).resolve() != LIBRARY / ".venv":  # no environment that make keeps
            lines = [line.partition(";")[0].strip() for line in wanted if _name_of(line) in missing]
            mend = " ".join([needs.installing(lines[0]), *map(shlex.quote, lines[1:])])
        roads = ", ".join(ROADS[road] for road in stops)
        return lack(name, f"no {', '.join(missing)}", f"needed for: {roads}", mend, stops)
    return ok(name, f"{len(wanted)} of {len(wanted)}")


def _extra_of(requirement: str) -> str:
    found = re.search(r"""extra\s*==\s*["']([\w-]+)""", requirement)
    return found[1] if found else ""


def _name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return found[0] if found else requirement


def _is_there(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def extras() -> list[str]:
    """The extras of use here, as EXTRAS orders them: without a clone there is no handbook and no test."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        given = importlib.metadata.metadata("torch-olympics").get_all("Provides-Extra") or []
        given = [name for name in given if is_clone() or name == "instructor"]
        return sorted(given, key=lambda name: list(EXTRAS).index(name) if name in EXTRAS else len(EXTRAS))
    return []


def numpy() -> Check:
    """NumPy as a Python of its own imports it, and the library that multiplies its matrices."""
    told = _python(
        "import json, numpy, threadpoolctl\n"
        "pools = [p for p in threadpoolctl.threadpool_info() if p['user_api'] == 'blas']\n"
        "print(json.dumps({'numpy': numpy.__version__, 'pools': pools}))"
    )
    if isinstance(told, str):
        meaning = "no lesson runs"
        return broken(
            "NumPy", told, meaning, f"{shlex.quote(sys.executable)} -m pip install --force-reinstall numpy",
            WORK,
        )  # fmt: skip
    pools = [
        f"{pool['internal_api']} {pool['version']} "
        f"({pool.get('architecture', '?')}, {pool['num_threads']} threads)"
        for pool in told["pools"]
    ]
    found = f"{told['numpy']}, {', '.join(pools) or 'no BLAS that can be told'}"
    forced = os.environ.get("OPENBLAS_CORETYPE")
    if forced:
        meaning = "the matrix product is chosen by hand: times and last digits are another machine's"
        return lack("NumPy", f"{found}, OPENBLAS_CORETYPE={forced}", meaning, "unset OPENBLAS_CORETYPE")
    if not pools:
        return lack(
            "NumPy", found, "matrix products may be many times slower", "pip install --force-reinstall numpy",
        )  # fmt: skip
    return ok("NumPy", found)


def kernel() -> Check:
    """The notebook kernel `python3`: that it starts this Python, not one left over from another course."""
    told = _python(
        "import importlib.util, json, sys\n"
        "from pathlib import Path\n"
        "from jupyter_core.paths import jupyter_path\n"
        "files = [Path(place) / 'python3' / 'kernel.json' for place in jupyter_path('kernels')]\n"
        "spec = next((file for file in files if file.is_file()), None)\n"
        "own = importlib.util.find_spec('ipykernel') and sys.executable\n"  # Jupyter's, where no file says
        "program = json.loads(spec.read_text('utf-8'))['argv'][0] if spec else own\n"
        "print(json.dumps({'program': program, 'folder': str(spec and spec.parent)}))"
    )
    mend = f"{shlex.quote(sys.executable)} -m ipykernel install --sys-prefix --name python3"
    meaning = "notebooks do not run"
    if isinstance(told, str) or not told["program"]:
        missing = told if isinstance(told, str) else "no ipykernel"
        mend = needs.installing("ipykernel")
        return broken("kernel", missing, meaning, mend, WORK)
    program, place = told["program"], told["folder"]
    if os.path.isabs(program) and not os.path.exists(program):
        return broken("kernel", f"{place} names {program}, which is gone", meaning, mend, WORK)
    if os.path.isabs(program) and Path(program).parent != Path(sys.executable).parent:
        meaning = "notebooks run in another Python, which has neither tito nor its packages"
        remove = f"jupyter kernelspec remove python3 (it lies in {place})"
        return broken("kernel", f"python3 starts {program}", meaning, remove, WORK)
    return ok("kernel", f"python3 starts {program if os.path.isabs(program) else sys.executable}")


def cifar10() -> Check:
    """Whether CIFAR-10 is on the machine, whole, and where it is looked for."""
    told = _python(
        "import json\nfrom autograder import datasets\nhome = datasets.folder()\n"
        "print(json.dumps({'folder': str(home), 'fault': datasets.cifar10_fault(home)}))"
    )
    if isinstance(told, str):
        return broken("CIFAR-10", told, "the data sets cannot be looked for")
    if told["fault"]:
        meaning = "the course's digits stand in: enough for every lesson, not for the vision track"
        return lack("CIFAR-10", told["fault"], meaning, "tito data fetch cifar10")
    return ok(
        "CIFAR-10",
        f"in {told['folder']}" + (", by TINYTORCH_DATA" if os.environ.get("TINYTORCH_DATA") else ""),
    )


def names() -> Check:
    """No file here takes the name of a module that Python or a notebook imports."""
    try:
        own = {path.stem for path in Path.cwd().glob("*.py")}
    except OSError:
        own = set()
    known = set(getattr(sys, "stdlib_module_names", ())) | {
        "numpy",
        "matplotlib",
        "nbformat",
        "jupyterlab",
        "IPython",
    }
    taken = sorted(own & known)
    if taken:
        files = ", ".join(f"{name}.py" for name in taken)
        meaning = f"`import {taken[0]}` takes that file, so notebooks and JupyterLab fail in this folder"
        return broken(
            "names", f"{files} in this folder", meaning, f"mv {taken[0]}.py my_{taken[0]}.py", ("student",),
        )  # fmt: skip
    return ok("names", "no file here hides a module")


def here() -> Check:
    """A workspace, a course, or the course's repository."""
    workspace, course = mark_above(".tito/workspace.json"), mark_above("nbgrader_config.py")
    if workspace:
        return ok("here", f"the workspace {workspace}")
    if course:
        return ok(
            "here", f"the repository {course}" if is_clone() and course == LIBRARY else f"the course {course}"
        )
    return lack(
        "here", "no workspace and no course", "there is nothing to work on yet", "tito init my_olympics",
    )  # fmt: skip


def _python(code: str) -> dict | str:
    """What a fresh Python prints as JSON; or its last words, in one line."""
    path = with_library(os.environ.get("PYTHONPATH"))
    try:
        done = _ask([sys.executable, "-P", "-c", code], {**os.environ, "PYTHONPATH": path})
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"no answer in {PATIENCE_S:g} s") from None  # a machine that is busy lacks nothing
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
    return json.loads(done.stdout)


def _ask(command: list[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=env, capture_output=True, text=True, encoding="utf-8", errors="replace",
        stdin=subprocess.DEVNULL, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


PROGRAMS = (shared_memory, git, make, fonts, chromium, postgresql, hub_proxy)
COURSE = (numpy, kernel, cifar10, names, here)
