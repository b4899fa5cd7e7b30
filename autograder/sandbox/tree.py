"""The tree of processes below this one: found in /proc, measured, killed to the last.

Used by the supervisor, which inherits whatever a program leaves behind: so nothing gets out of the tree.
"""

import contextlib
import os
import signal
import time
from dataclasses import dataclass

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CLOCK = os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    """What the tree uses: bytes resident (pages shared by forks counted once a process), CPU seconds."""

    processes: int = 0
    threads: int = 0
    memory: int = 0
    cpu: float = 0.0


def reap(pid: int) -> int | None:
    """Collect every ended child; the exit code of the program if it was among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == 0:
                break
            if ended == pid:
                found = os.waitstatus_to_exitcode(status)
    return found


def kill(pid: int, status: int | None) -> int | None:
    """Stop, then kill, every descendant of this process, until none is left."""
    for attempt in range(400):
        tree = _descendants_by_scan()
        if not tree:
            break
        # The first processes first: the init of a pid namespace takes all of its children along.
        # Without one, stopping before killing keeps a fork bomb from refilling what we empty.
        for order in (signal.SIGKILL,) if attempt % 2 else (signal.SIGSTOP, signal.SIGKILL):
            for process in tree:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, order)
        found = reap(pid)
        status = found if found is not None else status
        time.sleep(0.002 if attempt < 20 else 0.02)
    found = reap(pid)
    return found if found is not None else status


def _stat(pid: int | str) -> tuple[str, int, int, int, int] | None:
    """State, parent, threads, resident bytes and clock ticks of a process (its ended children's ticks too).

    None when it is gone.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    ticks = sum(map(int, fields[11:15]))
    return fields[0].decode(), int(fields[1]), int(fields[17]), int(fields[21]) * _PAGE, ticks


def _descendants_by_scan() -> list[int]:
    """All live descendants of this process, nearest first, from one pass over /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            found = _stat(name)
            if found and found[0] not in "ZX":
                children.setdefault(found[1], []).append(int(name))
    tree: list[int] = []
    queue = [os.getpid()]
    while queue:
        below = [child for parent in queue for child in children.get(parent, ())]
        tree += below
        queue = below
    return tree


def _children(pid: int) -> list[int]:
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                found += [int(child) for child in file.read().split()]
    except OSError:
        return []
    return found


_has_children_files = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def processes() -> list[int]:
    """All of them, in no order; at most some thousands."""
    if not _has_children_files:
        return _descendants_by_scan()
    tree: list[int] = []
    queue = _children(os.getpid())
    while queue and len(tree) < 5000:
        process = queue.pop()
        tree.append(process)
        queue += _children(process)
    return tree


def measure() -> Usage:
    """What all of them use now."""
    used, ticks = Usage(), 0
    for process in processes():
        found = _stat(process)
        if found:
            ticks += found[4]
        if found and found[0] not in "ZX":
            used.processes += 1
            used.threads += found[2]
            used.memory += found[3]
    ended = os.times()  # those that we collected ourselves
    used.cpu = ticks / _CLOCK + ended.children_user + ended.children_system
    return used


def exact_memory() -> int:
    """Proportional bytes of the tree: a page shared by two processes counts half in each."""
    total = 0
    for process in processes():
        try:
            with open(f"/proc/{process}/smaps_rollup", "rb") as file:
                total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
        except OSError:
            found = _stat(process)
            total += found[3] if found else 0
    return total
