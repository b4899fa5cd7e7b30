"""`tito lab` with a real JupyterLab: on a port that is free, and gone with its kernels when it is ended."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests import servers
from tito.student import workspace

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def tito_lab(tmp_path: Path, *options: str) -> Iterator[tuple[servers.Server, psutil.Process]]:
    """A workspace opened by `tito lab`; gives its server and the process of tito."""
    root, home = tmp_path / "my_olympics", tmp_path / "home"
    workspace.init(root, ROOT / "release")
    (home / ".jupyter").mkdir(parents=True)
    (home / ".jupyter" / "jupyter_server_config.json").write_text('{"ServerApp": {"allow_root": true}}')
    env = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER")}
    env |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "JUPYTER_RUNTIME_DIR": str(tmp_path / "run")}
    words = [sys.executable, "-m", "tito", "lab", str(root), "--no-browser", *options]
    with servers.jupyter(words, tmp_path / "run", tmp_path / "lab.log", env=env) as server:
        (tito,) = (one for one in psutil.Process().children(True) if one.cmdline()[1:4] == words[1:4])
        yield server, tito


def test_where_the_port_is_taken_the_next_one_is_named(tmp_path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with tito_lab(tmp_path, "--port", str(port)) as (server, _):
            said = (tmp_path / "lab.log").read_text()
            named = re.search(r"http://localhost:(\d+)/lab/tree/Start\.md\?token=\w+", said)
            assert named and named[1] != str(port) and f":{named[1]}/" in server.url
            assert servers.answers(named[0])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed tito leaves JupyterLab running")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_runs_on_when_it_is_ended(tmp_path, number):
    """JupyterLab and its kernels, by whatever tito is ended; two servers ran on after `make browser`."""
    with tito_lab(tmp_path, "--port", "0") as (server, tito):
        ask = urllib.request.Request(server.at("api/kernels"), data=b"{}", method="POST")
        with urllib.request.urlopen(ask, timeout=servers.SECONDS) as answer:
            assert json.load(answer)["id"]
        below = tito.children(recursive=True)
        assert len(below) >= 2, "JupyterLab, and the kernel"
        tito.send_signal(number)
        _, left = psutil.wait_procs(below, timeout=40)
        assert not left
        end = time.monotonic() + 40
        while tito.is_running() and tito.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end
            time.sleep(0.05)
