"""Servers for tests: each on a port that the system gives, on a leash, used once it is known to answer."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder import leash

SECONDS = 180  # a limit for a busy machine, not a wait
STARTS = 3  # Jupyter finds a free port and takes it a moment later: another program may be faster
PORT_TAKEN = "no available port could be found"


@dataclass(frozen=True)
class Server:
    """A running Jupyter server: its address, which ends in a slash, and its token."""

    url: str
    token: str

    def at(self, page: str) -> str:
        """The address of a page, with the token."""
        return f"{self.url}{page}?token={self.token}"


@contextmanager
def jupyter(words: Sequence[str | Path], runtime: Path, log: Path, **start: Any) -> Iterator[Server]:
    """Run `words`, which start one Jupyter server with the runtime folder `runtime`; ended with its kernels.

    The words should ask for port 0, or say why not. start: of subprocess.Popen.
    """
    for last in (False,) * (STARTS - 1) + (True,):
        with on_a_leash(words, log, **start) as process:
            try:
                server = until(lambda: _answering(runtime), process, log)  # noqa: B023, called here
            except AssertionError:
                if last or PORT_TAKEN not in log.read_text(encoding="utf-8", errors="replace"):
                    raise
                continue
            yield server
            return


@contextmanager
def on_a_leash(words: Sequence[str | Path], log: Path, **start: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program whose output goes to `log`; it and all it starts are ended, also when pytest is killed."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            leash.command([*map(str, words)]), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True, **start,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(4 * leash.PATIENCE_S)


def until(look: Callable[[], Any], process: subprocess.Popen[bytes], log: Path) -> Any:
    """What `look` returns once it is true; fails with the program's output where that ends, or is late."""
    give_up = time.monotonic() + SECONDS
    while not (found := look()):
        said = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        assert process.poll() is None, f"the server ended: {said}"
        assert time.monotonic() < give_up, f"the server did not start in {SECONDS} s: {said}"
        time.sleep(0.1)
    return found


def answers(url: str) -> bool:
    """Whether a GET is answered; no proxy is asked."""
    with suppress(urllib.error.URLError, OSError):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=SECONDS).close()
        return True
    return False


def _answering(runtime: Path) -> Server | None:
    """The server that says in `runtime` where it is, and answers there."""
    for file in runtime.glob("jpserver-*.json"):
        with suppress(ValueError, OSError):  # half written, or gone
            about = json.loads(file.read_text(encoding="utf-8"))
            server = Server(about["url"].rstrip("/") + "/", about["token"])
            if answers(server.at("api/status")):
                return server
    return None
