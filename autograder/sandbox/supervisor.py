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
from dataclasses import dataclass, field
from typing import Any, NoReturn

if __name__ == "__main__":
    _HERE = os.path.dirname(os.path.abspath(__file__))  # not looked in for modules
    sys.path = [os.path.dirname(os.path.dirname(_HERE)), *(path for path in sys.path if path != _HERE)]

from autograder.sandbox import cgroup, landlock, tree
from autograder.sandbox.disk import DiskWatch

_TICK = 0.05  # seconds between looks at the tree


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
    disk = DiskWatch(orders["watched"], limits["disk_bytes"], tree.processes)
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
        report = _Watch(pid, orders, control, wake_read, group, disk).until_the_end()
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


@dataclass
class _Watch:
    """A program under watch: what it and all it started use, and why it must end."""

    pid: int
    orders: dict[str, Any]
    control: socket.socket
    wake: int  # to be read from when a child has ended
    group: cgroup.Group | None
    disk: DiskWatch
    started: float = field(default_factory=time.monotonic)
    status: int | None = None  # its exit code, once it has ended by itself
    reason: str = ""  # why we end it
    used: tree.Usage = field(default_factory=tree.Usage)  # at the last look
    peak: int = 0  # bytes
    cpu: float = 0.0  # seconds

    def until_the_end(self) -> dict[str, Any]:
        """Look at every tick until it has ended or must end; then leave nothing of it, and report."""
        asked = self.control.fileno()
        while self.status is None and not self.reason:
            ready, _, _ = select.select([asked, self.wake], [], [], _TICK)
            self._look(ended=self.wake in ready)
            if self.status is not None:
                break
            self.reason = self._too_long_or_too_large()
            if not self.reason and self.group and self.group.out_of_memory():
                break
            self.reason = self.reason or self._too_much()
            if not self.reason and asked in ready:  # whoever asks learns of a broken limit first
                self.reason = self._obey()
        return self._end(time.monotonic() - self.started)

    def _look(self, ended: bool) -> None:
        if ended:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake, 4096)
            self.status = tree.reap(self.pid)
        limits, self.used = self.orders["limits"], tree.measure()
        if self.used.memory > limits["memory_bytes"]:
            self.used.memory = min(self.used.memory, tree.exact_memory())
        self.peak = max(self.peak, self.used.memory)
        if limits["cpu_s"] is not None:
            # never less: a parent that ignores its children takes their time along
            self.cpu = max(self.cpu, self.used.cpu, self.group.cpu_seconds() if self.group else 0.0)

    def _too_long_or_too_large(self) -> str:
        limits, memory = self.orders["limits"], self.used.memory
        if time.monotonic() - self.started > limits["wall_s"]:
            return f"time limit: still running after {limits['wall_s']:g} s"
        most = limits["memory_bytes"]
        if memory > most:
            return f"memory limit: {memory / 1e6:.0f} MB in use, {most / 1e6:.0f} MB allowed"
        return ""

    def _too_much(self) -> str:
        limits, own = self.orders["limits"], _own_processes(self.orders)
        processes, threads = self.used.processes - own, self.used.threads - own
        if limits["cpu_s"] is not None and self.cpu > limits["cpu_s"]:
            return f"cpu limit: {self.cpu:.1f} s of processor time used, {limits['cpu_s']:g} s allowed"
        if processes > limits["processes"]:
            return f"process limit: {processes} processes, {limits['processes']} allowed"
        if threads > limits["threads"]:
            return f"thread limit: {threads} threads, {limits['threads']} allowed"
        return self.disk.reason()

    def _obey(self) -> str:
        """Do what the grader asks: "m" for memory, "k" for the end."""
        order = self.control.recv(64)
        if b"m" in order:
            answer = json.dumps({"memory": self.used.memory, "peak": self.peak})
            with contextlib.suppress(OSError):  # answered or not, the next look comes in a tick
                self.control.sendall(answer.encode() + b"\n")
        if b"k" in order:
            return "stopped by the grader"
        return "" if order else "the grader went away"

    def _end(self, seconds: float) -> dict[str, Any]:
        if self.group and not self.reason and self.group.out_of_memory():
            most = self.orders["limits"]["memory_bytes"]
            self.peak = max(self.peak, min(self.group.peak_memory(), most))
            self.reason = f"memory limit: the kernel ended it at {most / 1e6:.0f} MB, all it may use"
        if self.group:
            self.group.kill()
        leftover = tree.kill(self.pid, self.status)
        return {
            "reason": self.reason,
            "status": leftover if self.status is None else self.status,
            "peak": self.peak,
            "seconds": seconds,
            "memory_by": "cgroup" if self.group else "watched sum",
        }


def _receive_line(control: socket.socket) -> bytes:
    """The orders, up to their newline; what the grader sent after it stays in the socket for the watch."""
    received = b""
    while not received.endswith(b"\n"):
        ahead = control.recv(65536, socket.MSG_PEEK)
        if not ahead:
            sys.exit(0)
        received += control.recv(ahead.find(b"\n") + 1 or len(ahead))
    return received


if __name__ == "__main__":
    main(int(sys.argv[1]))
