"""A Jupyter server with nbgrader's extensions in a course folder, and what the mouse would ask of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import servers

ROOT = Path(__file__).resolve().parents[1]
EXTENSIONS = [
    f"nbgrader.server_extensions.{name}" for name in ("formgrader", "assignment_list", "course_list")
]
TOKEN = "a-test-token"


def environment(home: Path) -> dict[str, str]:
    """This checkout's code first, no configuration of the machine's user."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    folders = {name: str(home / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR",
                                                           "JUPYTER_DATA_DIR", "IPYTHONDIR")}  # fmt: skip
    return {**os.environ, **folders, "PATH": path, "HOME": str(home), "PYTHONPATH": str(ROOT)}


class Server:
    """Calls of one running server; answers are JSON."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, path: str, data: Any = None, method: str = "") -> Any:
        request = urllib.request.Request(
            f"{self.url}{path}",
            data=None if data is None else json.dumps(data).encode(),
            headers={"Authorization": f"token {TOKEN}", "Content-Type": "application/json"},
            method=method or ("GET" if data is None else "POST"),
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def does(self, path: str, **fields: str) -> dict[str, Any]:
        """Ask for an action of nbgrader's; fails with its log where it did not succeed."""
        done = self(path, fields)
        assert done["success"], f"{path}: {done.get('error', '')}\n{done.get('log', '')}"
        return dict(done)


@contextlib.contextmanager
def server(folder: Path, home: Path) -> Iterator[Server]:
    """A Jupyter server in `folder`, on a free port, ended afterwards."""
    home.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "jupyter_server", "--ServerApp.port=0", "--no-browser", "--allow-root",
        "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}",
        f"--ServerApp.jpserver_extensions={dict.fromkeys(EXTENSIONS, True)}",
    ]  # fmt: skip
    runtime = home / "jupyter_runtime_dir"
    with servers.jupyter(command, runtime, home / "server.log", cwd=folder, env=environment(home)) as found:
        yield Server(found.url.rstrip("/"))


def student(folder: Path, home: Path, course: Path, *words: str, name: str = "") -> None:
    """One of nbgrader's own commands, as a student types it in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    called = name or course.name
    settings = [f"--Exchange.root={course / 'exchange'}", f"--CourseDirectory.course_id={called}",
                f"--Exchange.cache={home / 'cache'}"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *words, *settings], cwd=folder, env=environment(home),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
