"""What of this machine a program sees: the system, this Python, its packages, and the paths it is given."""

import functools
import importlib.util
import itertools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.sandbox.program import Program

SYSTEM = ("/usr", "/nix/store")
SYSTEM_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime",
    "/etc/fonts", "/etc/mime.types",
)  # fmt: skip
CPU = "/sys/devices/system/cpu"  # numerical libraries count processors here
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# Beside links to the packages that a program may import: what else is installed is not found, at any level.
_ONLY_THESE = """import os, sys
sys.path[:] = [p for p in sys.path if os.path.basename(p) not in ("site-packages", "dist-packages")]
sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, "__module__", "").startswith("_frozen_importlib")]
"""


@dataclass(frozen=True)
class View:
    """The paths of a program: all absolute, all there."""

    readable: list[str]
    writable: list[str]
    hidden: list[str]  # folders of installed packages, which it finds by links alone
    linked: list[str]  # the packages and modules that it is to find by links
    only_these: bool  # what else is installed is not found

    @property
    def has_links(self) -> bool:
        """Whether it needs a folder of links on its PYTHONPATH."""
        return bool(self.linked) or self.only_these


def view(program: Program) -> View:
    """The paths that a program asks for. Raises FileNotFoundError, ValueError."""
    linked = [os.path.abspath(path) for path in program.importable]
    read = [*map(os.path.abspath, program.readable), *linked]
    write = [*map(os.path.abspath, program.writable)]
    for path in (*read, *write):
        if not os.path.exists(path):
            raise FileNotFoundError(f"sandbox: {path} does not exist, so it cannot be made visible inside")
    words = [*program.argv, *([program.cwd] if program.cwd else [])]
    _refuse_unseen(words, program.env, [*read, *write])
    only_these = program.packages is not None
    hidden = package_folders() if only_these else []
    linked += [place for name in program.packages or () for place in places(name)]
    seen = View(read, write, hidden, linked, only_these)
    options = list(itertools.takewhile(lambda word: word[:1] == "-", program.argv[1:]))
    if seen.has_links and ("-I" in options or "-E" in options):
        raise ValueError("sandbox: Python's -I and -E leave out what is importable: use -P -s")
    return seen


def links(folder: str, paths: Sequence[str], only_these: bool) -> str:
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


def python_folders() -> list[str]:
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


def package_folders() -> list[str]:
    """Every folder that this interpreter, or one it stems from, installs packages in."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefixes = {*python_folders(), sys.prefix, sys.base_prefix, "/usr", "/usr/local"}
    found = {path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")}
    for prefix in prefixes:
        for lib in ("lib", "lib64"):
            for python in (version, "python3"):
                found |= {f"{prefix}/{lib}/{python}/{name}" for name in ("site-packages", "dist-packages")}
    return sorted({os.path.realpath(path) for path in found if os.path.isdir(path)})


@functools.cache
def places(package: str) -> tuple[str, ...]:
    """The folder or file of an installed package, and the libraries a wheel ships beside it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"sandbox: package {package} is not installed for {sys.executable}")
    origin = os.path.realpath(spec.origin)
    if spec.submodule_search_locations is None:
        return (origin,)
    folder = os.path.dirname(origin)
    return tuple(path for path in (folder, f"{folder}.libs") if os.path.isdir(path))


def without(folder: str, hidden: Sequence[str]) -> list[str]:
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
    return without(path, hidden) if os.path.isdir(path) else [path]


def is_shown(path: str, folders: Iterable[str]) -> bool:
    """Whether a path lies in one of the system's or these folders."""
    return any(path.startswith(folder + "/") for folder in (*SYSTEM, *folders))


def _refuse_unseen(words: Sequence[str | Path], env: Mapping[str, str], shown: Sequence[str]) -> None:
    """Raises ValueError for an existing path of the host that a program is told of, but does not see."""
    seen = (*SYSTEM, *SYSTEM_LINKS, *ETC, CPU, "/proc", *DEVICES, *python_folders(), *shown)
    for word in [str(word) for word in words] + [part for value in env.values() for part in value.split(":")]:
        path = os.path.normpath(word)
        if not os.path.isabs(path) or not os.path.exists(path):
            continue
        if not any(path == folder or path.startswith(f"{folder}/") for folder in seen):
            raise ValueError(
                f"sandbox: the program is told of {path}, which it does not see: "
                "give it as readable, writable or importable"
            )
