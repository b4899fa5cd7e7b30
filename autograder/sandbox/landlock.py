"""Kernel fences a process puts around itself without being root: Landlock (files), seccomp (sockets, modes).

Plain system calls through ctypes, so that a machine without bubblewrap needs no extra package.
Sources: Linux Documentation/userspace-api/landlock.rst and seccomp_filter.rst.
"""

import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable
from typing import Any

# elsewhere this file is imported and nothing in it is called; Windows raises for a library of no name
_libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if _libc:
    _libc.syscall.restype = ctypes.c_long

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_SECCOMP_MODE_FILTER = 2

# landlock_create_ruleset, landlock_add_rule, landlock_restrict_self: the same numbers on every architecture.
_CREATE, _ADD, _RESTRICT = 444, 445, 446

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
_FS_RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many low bits of the access mask exist
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2


def landlock_abi() -> int:
    """The Landlock version of this kernel; 0 where there is none."""
    return max(0, _libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def become_subreaper() -> None:
    """Orphans of our tree become our children, not init's, so that none can slip out of sight."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(subreaper)")


def no_new_privileges() -> None:
    """From here on no set-uid program can raise this process's rights (both fences ask for it)."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(no_new_privs)")


def drop_capabilities() -> None:
    """Give up every right of root but the ownership of root's files; does nothing for an ordinary user."""
    for capability in range(64):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails for numbers that this kernel does not have
    no_new_privileges()
    version_3 = struct.pack("<Ii", 0x20080522, 0)
    _check(_libc.capset(version_3, bytes(24)), "capset")


def landlock(listable: Iterable[str], readable: Iterable[str], writable: Iterable[str]) -> None:
    """Let this process and its children open only what lies under the named paths.

    `listable` folders give the names in them and no more. Paths that do not exist are left out.
    Raises OSError where the kernel has no Landlock.
    """
    abi = landlock_abi()
    if abi < 1:
        raise OSError(errno.ENOSYS, "this kernel has no Landlock")
    everything = (1 << _FS_RIGHTS_OF_ABI.get(abi, 16)) - 1
    attributes = struct.pack("<Q", everything)
    if abi >= 6:  # handled_access_net stays 0: sockets are seccomp's business here
        attributes += struct.pack("<QQ", 0, _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS)
    ruleset = _ruleset(attributes)
    try:
        for rights, paths in ((_READ_DIR, listable), (_READ, readable), (everything, writable)):
            for path in paths:
                _allow(ruleset, path, rights & everything)
        _enforce(ruleset)
    finally:
        os.close(ruleset)


def _enforce(ruleset: int) -> None:
    no_new_privileges()
    _check(_libc.syscall(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0)), "landlock_restrict_self")


def _ruleset(attributes: bytes) -> int:
    ruleset = _libc.syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    _check(ruleset, "landlock_create_ruleset")
    return ruleset


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _ON_FILES
        rule = struct.pack("<Qi", rights, fd)
        result = _libc.syscall(_ADD, ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint32(0))
        _check(result, f"landlock_add_rule for {path}")
    finally:
        os.close(fd)


# architecture: (audit number, socket, io_uring_setup); io_uring could open a socket behind a filter's back
_SECCOMP_NUMBERS = {"x86_64": (0xC000003E, 41, 425), "aarch64": (0xC00000B7, 198, 425)}


def can_refuse_network() -> bool:
    """Whether refuse_network knows this processor's system call numbers."""
    return platform.machine() in _SECCOMP_NUMBERS


def refuse_network() -> None:
    """Every socket but a Unix one fails with EACCES, for this process and its children.

    Raises OSError on a processor whose system call numbers are not listed here.
    """
    if not can_refuse_network():
        raise OSError(errno.ENOSYS, f"no socket filter for {platform.machine()}")
    audit, socket_call, io_uring = _SECCOMP_NUMBERS[platform.machine()]
    load, equal, above, give = 0x20, 0x15, 0x35, 0x06
    allow, kill, refuse = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EACCES
    program = [  # (operation, jump if true, jump if false, operand)
        (load, 0, 0, 4),  # the architecture
        (equal, 0, 7, audit),
        (load, 0, 0, 0),  # the system call
        (above, 5, 0, 0x40000000),  # x32 calls on x86-64
        (equal, 5, 0, io_uring),
        (equal, 0, 2, socket_call),
        (load, 0, 0, 16),  # first argument: the address family
        (equal, 0, 2, 1),  # AF_UNIX
        (give, 0, 0, allow),
        (give, 0, 0, kill),
        (give, 0, 0, refuse),
    ]
    _install(program)


_KILL = {"x86_64": 62, "aarch64": 129}


def keep_signals_in() -> None:
    """No signal to all processes at once (`kill -1`); from Linux 6.12 on, none out of this tree: EPERM.

    Started by root, a program at level landlock or rlimits is root to the kernel: that one call would end the
    machine's services and the grader. On a processor whose system call numbers are not listed here, only the
    second holds.
    """
    if can_refuse_network():
        audit, _, _ = _SECCOMP_NUMBERS[platform.machine()]
        load, equal, above, give = 0x20, 0x15, 0x35, 0x06
        allow, kill, refuse = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
        program = [
            (load, 0, 0, 4),  # the architecture
            (equal, 1, 0, audit),
            (give, 0, 0, kill),
            (load, 0, 0, 0),  # the system call
            (above, 4, 0, 0x40000000),  # x32 calls on x86-64
            (equal, 0, 2, _KILL[platform.machine()]),
            (load, 0, 0, 16),  # first argument: a process, or a group, or -1
            (equal, 1, 0, 0xFFFFFFFF),
            (give, 0, 0, allow),
            (give, 0, 0, refuse),
        ]
        _install(program)
    if landlock_abi() >= 6:
        ruleset = _ruleset(struct.pack("<QQQ", 0, 0, _SCOPE_SIGNALS))
        try:
            _enforce(ruleset)
        finally:
            os.close(ruleset)


# Calls that change who may open a file, or its dates: chmod, chown, utime, setxattr and their relatives.
_ATTRIBUTES = {
    "x86_64": (90, 91, 92, 93, 94, 132, 188, 189, 190, 197, 198, 199, 235, 260, 261, 268, 280, 452, 463, 466),
    "aarch64": (5, 6, 7, 14, 15, 16, 52, 53, 54, 55, 88, 452, 463, 466),
}


def keep_attributes() -> None:
    """Modes, owners, dates and extended attributes of files stay as they are, here and in children.

    Landlock has no say in them: what a program may not open, it could still close to its owner, or open to
    everybody. The calls say that they succeeded, as copying a file must not fail. Raises OSError as
    refuse_network.
    """
    if not can_refuse_network():
        raise OSError(errno.ENOSYS, f"no filter of system calls for {platform.machine()}")
    audit, _, io_uring = _SECCOMP_NUMBERS[platform.machine()]
    calls = _ATTRIBUTES[platform.machine()]
    load, equal, above, give = 0x20, 0x15, 0x35, 0x06
    allow, kill, refuse, nothing = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EACCES, 0x00050000
    program = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, audit),
        (give, 0, 0, kill),
        (load, 0, 0, 0),  # the system call
        (above, len(calls) + 2, 0, 0x40000000),  # x32 calls on x86-64
        (equal, len(calls) + 1, 0, io_uring),
        *((equal, len(calls) + 1 - i, 0, number) for i, number in enumerate(calls)),
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
        (give, 0, 0, nothing),
    ]
    _install(program)


def _install(program: list[tuple[int, int, int, int]]) -> None:
    code = b"".join(struct.pack("<HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    no_new_privileges()
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head, 0, 0), "prctl(seccomp)")


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
