"""The process between the grader and student code: starts it, watches the whole tree, kills the whole tree.

Run by sandbox.start as a script, never imported by graders. It takes its orders from a socket (one JSON
object), answers "how much memory" on the same socket while the program runs, and sends one last report. When
the grader dies the socket closes, and the tree is killed with it.
"""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

if __name__ == "__main__":
    _HERE = os.path.dirname(os.path.abspath(__file__))  # not looked in for modules
    sys.path = [os.path.dirname(os.path.dirname(_HERE)), *(path for path in sys.path if path != _HERE)]

from autograder.sandbox import cgroup, landlock
from autograder.sandbox.disk import DiskWatch

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = 0.05  # seconds between looks at the tree
_CLOCK = os.sysconf("SC_CLK_TCK")


def main(control_fd: int) -> None:
    """Read the orders, run the program, report; always leaves no process behind."""
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    orders = json.loads(_receive_line(control))
    landlock.become_subreaper()
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # Ctrl-C is the grader's to handle
        signal.signal(number, signal.SIG_IGN)
    failure_read, failure_write = os.pipe2(os.O_CLOEXEC)
    go_read, go_write = os.pipe2(os.O_CLOEXEC)
    limits = orders["limits"]
    disk = DiskWatch(orders["watched"], limits["disk_bytes"], _tree)
    pid = os.fork()
    if pid == 0:
        os.close(go_write)
        os.read(go_read, 1)  # ends when we let go of the other side: it is in its cgroup then
        _become_the_program(orders, failure_write)
    os.close(failure_write)
    _let_go_of_stdio()
    tasks = limits["processes"] + limits["threads"] + _own_processes(orders)
    group = cgroup.hold(pid, limits["memory_bytes"], tasks)
    os.close(go_write)
    failure = os.read(failure_read, 4096).decode()  # empty once the program has been executed
    try:
        report = _watch(pid, orders, control, wake_read, group, disk)
    finally:
        if group:
            group.remove()
    if failure:
        report["reason"] = f"the sandbox could not start: {failure}"
    with contextlib.suppress(OSError):  # the grader may be gone
        control.sendall(json.dumps(report).encode() + b"\n")


def _become_the_program(orders: dict[str, Any], failure: int) -> NoReturn:
    try:
        for number in range(1, signal.NSIG):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        os.setsid()
        argv = list(orders["argv"])
        if orders["bwrap"]:
            data = []
            for path, text in orders["files"]:
                fd = os.memfd_create("file", 0)
                os.write(fd, text.encode())
                os.lseek(fd, 0, os.SEEK_SET)
                data += ["--perms", "0444", "--ro-bind-data", str(fd), path]
            argv = [*orders["bwrap"], *data, "--remount-ro", "/", "--chdir", orders["cwd"], "--", *argv]
        else:
            os.chdir(orders["cwd"])
        for name, value in orders["rlimits"].items():
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (wanted, wanted))
        if not orders["bwrap"]:
            landlock.drop_capabilities()
            landlock.keep_signals_in()
        if orders["landlock"]:
            landlock.landlock(**orders["landlock"])
            landlock.keep_attributes()
        if orders["refuse_network"]:
            landlock.refuse_network()
        os.execve(argv[0], argv, orders["env"])
    except BaseException as error:  # whatever it is, it is the report's, and this copy must end here
        os.write(failure, str(error).encode()[:4096])
    os._exit(127)


def _let_go_of_stdio() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _own_processes(orders: dict[str, Any]) -> int:
    return 2 if orders["bwrap"] else 0  # bubblewrap's two processes are not the program's


def _watch(
    pid: int,
    orders: dict[str, Any],
    control: socket.socket,
    wake: int,
    group: cgroup.Group | None,
    disk: DiskWatch,
) -> dict[str, Any]:
    start = time.monotonic()
    limits = orders["limits"]
    own = _own_processes(orders)
    reason, status, peak, cpu, control_fd = "", None, 0, 0.0, control.fileno()
    while status is None and not reason:
        ready, _, _ = select.select([control_fd, wake], [], [], _TICK)
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            status = _reap(pid)
        processes, threads, memory, ran = _measure()
        if memory > limits["memory_bytes"]:
            memory = min(memory, _exact_memory())
        peak = max(peak, memory)
        if (
            limits["cpu_s"] is not None
        ):  # never less: a parent that ignores its children takes their time along
            cpu = max(cpu, ran, group.cpu_seconds() if group else 0.0)
        elapsed = time.monotonic() - start
        if status is not None:
            break
        if elapsed > limits["wall_s"]:
            reason = f"time limit: still running after {limits['wall_s']:g} s"
        elif memory > limits["memory_bytes"]:
            reason = (
                f"memory limit: {memory / 1e6:.0f} MB in use, {limits['memory_bytes'] / 1e6:.0f} MB allowed"
            )
        elif group and group.out_of_memory():
            break
        elif limits["cpu_s"] is not None and cpu > limits["cpu_s"]:
            reason = f"cpu limit: {cpu:.1f} s of processor time used, {limits['cpu_s']:g} s allowed"
        elif processes - own > limits["processes"]:
            reason = f"process limit: {processes - own} processes, {limits['processes']} allowed"
        elif threads - own > limits["threads"]:
            reason = f"thread limit: {threads - own} threads, {limits['threads']} allowed"
        elif full := disk.reason():
            reason = full
        elif control_fd in ready:  # after the limits: whoever asks learns of a broken one first
            order = control.recv(64)
            if b"m" in order:
                with contextlib.suppress(OSError):  # answered or not, the next look comes in a tick
                    control.sendall(json.dumps({"memory": memory, "peak": peak}).encode() + b"\n")
            if b"k" in order:
                reason = "stopped by the grader"
            elif not order:
                reason = "the grader went away"
    seconds = time.monotonic() - start
    if group and not reason and group.out_of_memory():
        peak = max(peak, min(group.peak_memory(), limits["memory_bytes"]))
        reason = f"memory limit: the kernel ended it at {limits['memory_bytes'] / 1e6:.0f} MB, all it may use"
    if group:
        group.kill()
    leftover = _kill_tree(pid, status)
    if status is None:
        status = leftover
    return {
        "reason": reason,
        "status": status,
        "peak": peak,
        "seconds": seconds,
        "memory_by": "cgroup" if group else "watched sum",
    }


def _reap(pid: int) -> int | None:
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


def _kill_tree(pid: int, status: int | None) -> int | None:
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
        found = _reap(pid)
        status = found if found is not None else status
        time.sleep(0.002 if attempt < 20 else 0.02)
    found = _reap(pid)
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


def _tree() -> list[int]:
    if not _has_children_files:
        return _descendants_by_scan()
    tree: list[int] = []
    queue = _children(os.getpid())
    while queue and len(tree) < 5000:
        process = queue.pop()
        tree.append(process)
        queue += _children(process)
    return tree


def _measure() -> tuple[int, int, int, float]:
    """Processes, threads, resident bytes (pages shared by forks counted once a process) and CPU seconds."""
    processes = threads = memory = ticks = 0
    for process in _tree():
        found = _stat(process)
        if found:
            ticks += found[4]
        if found and found[0] not in "ZX":
            processes, threads, memory = processes + 1, threads + found[2], memory + found[3]
    ended = os.times()  # those that we collected ourselves
    return processes, threads, memory, ticks / _CLOCK + ended.children_user + ended.children_system


def _exact_memory() -> int:
    """Proportional bytes of the tree: a page shared by two processes counts half in each."""
    total = 0
    for process in _tree():
        try:
            with open(f"/proc/{process}/smaps_rollup", "rb") as file:
                total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
        except OSError:
            found = _stat(process)
            total += found[3] if found else 0
    return total


def _receive_line(control: socket.socket) -> bytes:
    """The orders, up to their newline; what the grader sent after it stays in the socket for _watch."""
    received = b""
    while not received.endswith(b"\n"):
        ahead = control.recv(65536, socket.MSG_PEEK)
        if not ahead:
            sys.exit(0)
        received += control.recv(ahead.find(b"\n") + 1 or len(ahead))
    return received


if __name__ == "__main__":
    main(int(sys.argv[1]))
