"""A cgroup of its own for a sandboxed tree, where this machine lets us make one (cgroup v2).

The kernel then limits the memory and the tasks of the whole tree at every moment, not only when the
supervisor looks. It needs a cgroup that we may write, our own or the one around it, with the controllers
memory and pids on for what is made in it. systemd hands one to an ordinary user in a desktop's terminal,
and anywhere with `systemd-run --user --scope tito grade ...`; root finds one beside its own session.
Source: Linux Documentation/admin-guide/cgroup-v2.rst.
"""

import contextlib
import os
import time
from dataclasses import dataclass

_CONTROLLERS = {"memory", "pids"}


@dataclass(frozen=True)
class Group:
    """A cgroup that holds one tree; whoever made it must remove it."""

    path: str

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed something in it for want of memory."""
        return self._number("memory.events", "oom_kill") > 0

    def peak_memory(self) -> int:
        """Most bytes charged to it so far, files kept in memory included; 0 before Linux 5.19."""
        return self._number("memory.peak")

    def cpu_seconds(self) -> float:
        """Processor time of everything that ever ran in it."""
        return self._number("cpu.stat", "usage_usec") / 1e6

    def kill(self) -> None:
        """Kill all that is in it (before Linux 5.14: does nothing, the supervisor kills by number)."""
        with contextlib.suppress(FileNotFoundError):
            _write(self.path, "cgroup.kill", 1)

    def remove(self) -> None:
        """Remove it and what the program made in it; it must be empty, or become so within two seconds."""
        for _ in range(100):
            for folder, below, _ in os.walk(self.path, topdown=False):
                for name in below:
                    with contextlib.suppress(OSError):
                        os.rmdir(os.path.join(folder, name))
            try:
                os.rmdir(self.path)
                return
            except FileNotFoundError:
                return
            except OSError:  # the last of its processes is on its way out
                time.sleep(0.02)

    def _number(self, name: str, key: str = "") -> int:
        try:
            with open(os.path.join(self.path, name), encoding="utf-8") as file:
                words = [line.split() for line in file]
        except OSError:  # an older kernel, or the program removed its own cgroup
            return 0
        return next((int(line[-1]) for line in words if not key or line[0] == key), 0)


def hold(pid: int, memory_bytes: int, tasks: int) -> Group | None:
    """Put process `pid` into a new cgroup with these limits; None where this machine does not let us.

    Nothing is guessed: where a limit or the move is refused, what was made is removed and the answer is None.
    """
    for parent in _parents():
        group = Group(os.path.join(parent, f"olympics-{pid}"))
        try:
            os.mkdir(group.path)
        except OSError:
            continue
        try:
            _write(group.path, "memory.max", memory_bytes)
            _write(group.path, "pids.max", tasks)
            for name, value in (("memory.swap.max", 0), ("memory.oom.group", 1)):
                with contextlib.suppress(FileNotFoundError):  # no swap, or a kernel before 4.19
                    _write(group.path, name, value)
            _write(group.path, "cgroup.procs", pid)
            return group
        except OSError:
            group.remove()
    return None


def _parents() -> list[str]:
    """Cgroups that we might make one in: our own, the one around it."""
    try:
        with open("/proc/self/cgroup", "rb") as own, open("/proc/self/mountinfo", "rb") as mounts:
            place = locate(os.fsdecode(own.read()), os.fsdecode(mounts.read()))
    except OSError:
        return []
    if place is None:
        return []
    top, path = place
    found = [path] if path == top else [path, os.path.dirname(path)]
    return [folder for folder in found if _has_controllers(folder)]


def locate(own: str, mounts: str) -> tuple[str, str] | None:
    """(mount point of the cgroup v2 tree, our own folder in it); None where it is not to be seen.

    `own` is the text of /proc/self/cgroup, `mounts` of /proc/self/mountinfo.
    """
    paths = [line[3:] for line in own.splitlines() if line.startswith("0::/")]
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if not after.startswith("cgroup2 ") or not paths:
            continue
        root, top = fields[3], fields[4]
        inside = os.path.relpath(paths[0], root)  # a container's mount may show a part of the tree
        path = os.path.normpath(f"{top}/{inside}")
        if ".." not in (*paths[0].split("/"), *inside.split("/")):
            return top, path
    return None


def _has_controllers(folder: str) -> bool:
    try:
        with open(os.path.join(folder, "cgroup.subtree_control"), encoding="utf-8") as file:
            return set(file.read().split()) >= _CONTROLLERS
    except OSError:
        return False


def _write(folder: str, name: str, value: int) -> None:
    # without O_CREAT: a control file that this kernel does not have is FileNotFoundError
    fd = os.open(os.path.join(folder, name), os.O_WRONLY)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)
