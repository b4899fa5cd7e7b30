"""What is run: the program, what it may see and write, and what it and all it starts may use together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a program and all it starts may use together; file_bytes holds for each file alone.

    Memory is what its processes hold; in a cgroup (Report.memory_by) its files in /tmp count too.
    """

    wall_s: float = 60.0
    memory_bytes: int = 2048 * MIB
    processes: int = 32
    threads: int = 512
    file_bytes: int = 256 * MIB
    cpu_s: float | None = None
    output_bytes: int = 16 * MIB  # run() only: more on stdout or stderr ends the program
    tmp_bytes: int = 512 * MIB  # private /tmp and /dev/shm, bubblewrap only: they are memory
    disk_bytes: int = 1024 * MIB  # added to the named writable folders and, elsewhere, the private TMPDIR


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program to start in a sandbox of exactly this level.

    Beside the system's programs and this Python, it can read `readable` and write `writable` (existing paths,
    same names inside), and a private TMPDIR, which is also its HOME. It can import the packages and modules
    that `importable` names by their paths, and nothing beside them. Its environment is `env` and a few fixed
    names; nothing of ours. `loopback` asks for sockets on 127.0.0.1 (always there in bubblewrap). Of the
    packages installed for Python it finds all, or only those in `packages` (level rlimits lets it read the
    files of the others). Every path that argv, env or cwd names must be one that it sees: what only some of
    the levels would refuse is an error at each.
    """

    argv: Sequence[str] = field(kw_only=False)  # argv[0]: an absolute path
    level: str
    limits: Limits = field(default_factory=Limits)
    readable: Sequence[str | Path] = ()
    writable: Sequence[str | Path] = ()
    importable: Sequence[str | Path] = ()
    packages: Sequence[str] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | Path | None = None
    loopback: bool = False
