"""What the supervisor is told: a program, and the fences of its level, as one JSON object."""

import contextlib
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autograder.sandbox import bubblewrap, landlock, visible
from autograder.sandbox.program import MIB, Limits, Program


def build(program: Program, seen: visible.View, place: str) -> dict[str, Any]:
    """The orders; `place` is the program's private folder, "" where it needs none."""
    inside = program.level == "bubblewrap"
    home = "/tmp" if inside else f"{place}/home"
    env = _environment(home, program.env)
    read = list(seen.readable)
    if seen.has_links:
        path = visible.links(f"{place}/path", seen.linked, only_these=seen.only_these)
        read += [*seen.linked, path]
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [path, env.get("PYTHONPATH")]))
    orders: dict[str, Any] = {
        "argv": list(program.argv),
        "cwd": os.path.abspath(program.cwd) if program.cwd else home,
        "env": env,
        "limits": asdict(program.limits),
        "rlimits": rlimits(program.limits, program.level),
        "bwrap": [],
        "files": bubblewrap.FILES,
        "watched": seen.writable,
        "landlock": None,
        "refuse_network": not inside and not program.loopback and landlock.can_refuse_network(),
    }
    if inside:
        orders["bwrap"] = bubblewrap.command(read, seen.writable, seen.hidden, program.limits)
        orders["argv"] = [*bubblewrap.process_cap(program.limits), *program.argv]
    else:
        os.mkdir(home)
        orders["watched"] = [*seen.writable, home]
    if program.level == "landlock":
        orders["landlock"] = _landlock_rules(read, [home, *seen.writable], seen.hidden)
    return orders


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
    system = [*visible.SYSTEM, *visible.python_folders()]
    shown = [part for path in system for part in visible.without(path, hidden)]
    return {
        "listable": system if hidden else [],
        "readable": [
            *shown,
            *visible.SYSTEM_LINKS,
            *visible.ETC,
            visible.CPU,
            "/proc",
            "/etc/passwd",
            "/etc/hosts",
            *visible.DEVICES,
            *read,
        ],
        "writable": [*visible.DEVICES, *write],
    }


def rlimits(limits: Limits, level: str) -> dict[str, int]:
    """What the kernel holds each process to, by the names of module resource."""
    caps = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NOFILE": 1024,
        # A backstop between two looks of the supervisor: one process gets little more than all may use.
        "RLIMIT_DATA": limits.memory_bytes + 512 * MIB,
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
