"""Kernels of our own that run a notebook to its end, each by itself."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config


def run(nb: NotebookNode, start: dict[str, Any], **options: Any) -> None:
    """Run every cell of a notebook in place, by nbclient, in a fresh Python kernel.

    start: how the process is started, `env` and `cwd`. options: NotebookClient's. Raises nbclient's errors.
    The kernel is spoken to through sockets in a folder of its own: over TCP two kernels that start together
    can be given the same port, and one of them dies. Where there are none (Windows) it is TCP all the same.
    """
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:
        config = Config()
        if os.name == "posix":
            config.ConnectionFileMixin.transport = "ipc"
            config.ConnectionFileMixin.connection_file = os.path.join(folder, "kernel.json")
        quiet = ["--log-level=ERROR"]  # no remark about transport in the terminal
        NotebookClient(nb, kernel_name="python3", extra_arguments=quiet, config=config, **options).execute(
            **start
        )
