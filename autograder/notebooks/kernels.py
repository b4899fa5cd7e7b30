"""Kernels that are started here: each is spoken to through sockets in a folder of its own.

Over TCP a kernel is given ports that are free now and taken a second later: two that start together can be
given the same one, and one of them dies.
"""

from __future__ import annotations

import os
from typing import Any

from jupyter_client.manager import AsyncKernelManager, KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

from autograder.scratch import Folder

_LONGEST = 103  # bytes of a socket's name: macOS allows no more, Linux four more


class _OverSockets:
    """For a kernel manager: sockets where they have names, and no too long ones; else, as on Windows, TCP."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._folder = Folder("kernel") if os.name == "posix" else None
        if self._folder and len(os.fsencode(self._folder.path / "k-ipc-5")) <= _LONGEST:
            self.transport, self.connection_file = "ipc", str(self._folder.path / "k.json")

    def cleanup_connection_file(self) -> None:
        """Remove the folder, too; called when the kernel has ended and is not started again."""
        super().cleanup_connection_file()  # type: ignore[misc]
        if self._folder:
            self._folder.close()


class Manager(_OverSockets, KernelManager):  # type: ignore[misc]
    """A KernelManager over sockets."""


class AsyncManager(_OverSockets, AsyncKernelManager):  # type: ignore[misc]
    """An AsyncKernelManager over sockets."""


def run(nb: NotebookNode, start: dict[str, Any], **options: Any) -> None:
    """Run every cell of a notebook in place, by nbclient, in a fresh Python kernel.

    start: how the process is started, `env` and `cwd`. options: NotebookClient's. Raises nbclient's errors.
    """
    quiet = ["--log-level=ERROR"]  # no remark about transport in the terminal
    client = NotebookClient(
        nb, kernel_name="python3", extra_arguments=quiet, kernel_manager_class=AsyncManager, **options
    )
    client.execute(**start)
