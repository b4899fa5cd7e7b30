"""The command line of bubblewrap: what works here, and the file tree that a program gets."""

import functools
import os
import shutil
import subprocess

from autograder.sandbox import visible
from autograder.sandbox.program import MIB, Limits

FILES = (
    ("/etc/passwd", "student:x:1000:1000:student:/tmp:/bin/sh\n"),
    ("/etc/group", "student:x:1000:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
)


def options() -> tuple[str, ...]:
    """bubblewrap and the options that work here; empty where it does not work at all."""
    return trial()[0]


@functools.cache
def trial() -> tuple[tuple[str, ...], str]:
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
        trial = [*options, *_tree(16 * MIB), "--", "/usr/bin/env", "true"]
        try:
            done = subprocess.run(trial, capture_output=True, timeout=20, env={"PATH": "/usr/bin:/bin"})
        except (OSError, subprocess.TimeoutExpired) as error:
            why = " ".join(str(error).split())
            continue
        if done.returncode == 0:
            return options, ""
        why = " ".join(done.stderr.decode(errors="replace").split()) or f"exit {done.returncode}"
    return (), why


def _tree(tmp_bytes: int) -> list[str]:
    # Started by root, the program is root to /proc/sys whatever its namespace: so /proc is read-only.
    tree = ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    tree += ["--size", str(tmp_bytes), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    tree += ["--size", str(tmp_bytes), "--tmpfs", "/tmp"]
    for path in (*visible.SYSTEM, *visible.ETC, visible.CPU):
        tree += ["--ro-bind-try", path, path]
    for path in visible.SYSTEM_LINKS:
        if os.path.islink(path):
            tree += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            tree += ["--ro-bind", path, path]
    return tree


def command(readable: list[str], writable: list[str], hidden: list[str], limits: Limits) -> list[str]:
    """The command line up to the program's own: a file tree of the system's and these paths alone."""
    folders = visible.python_folders()
    linked = {path: os.path.realpath(path) for path in folders}
    linked = {
        path: real for path, real in linked.items() if path != real and visible.is_shown(real + "/", folders)
    }
    mounts = {path: ["--ro-bind", path, path] for path in folders if path not in linked}
    mounts |= {path: ["--tmpfs", path] for path in hidden if visible.is_shown(path, mounts)}
    mounts |= {path: ["--ro-bind", path, path] for path in readable}
    mounts |= {path: ["--bind", path, path] for path in writable}
    for path, real in linked.items():  # as a link: bound under a second name it would show what is hidden
        if path not in mounts and not visible.is_shown(path, mounts):
            mounts[path] = ["--symlink", real, path]
    line = [*options(), *_tree(limits.tmp_bytes)]
    for path in sorted(mounts, key=lambda path: path.count("/")):  # a folder before what lies in it
        line += mounts[path]
    return line  # the supervisor adds FILES, then makes the root read-only


def process_cap(limits: Limits) -> list[str]:
    """In bubblewrap's user namespace tasks are counted apart from the rest of the user's (not root's)."""
    prlimit = "/usr/bin/prlimit"
    if os.getuid() == 0 or not os.path.exists(prlimit):
        return []
    return [prlimit, f"--nproc={limits.processes + limits.threads}", "--"]
