"""A real kernel, for tests of what a person sees in JupyterLab."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager, start_new_kernel

REPO = Path(__file__).resolve().parents[1]


class Kernel:
    """A real kernel, as a Jupyter server starts it; `run` names the cell as JupyterLab does."""

    def __init__(self, folder: Path, notebook: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(REPO), "JPY_SESSION_NAME": notebook}
        env.pop("NBGRADER_EXECUTION", None)
        self.manager: KernelManager
        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(folder), env=env)

    def send(self, source: str, cell_id: str | None = "cell") -> str:
        session = self.client.session
        content = {"code": source, "silent": False, "store_history": True, "user_expressions": {},
                   "allow_stdin": False, "stop_on_error": True}  # fmt: skip
        message = session.msg("execute_request", content, metadata={"cellId": cell_id} if cell_id else {})
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def outputs(self, asked: str, stop_at: Any = None) -> list[dict[str, Any]]:
        """Every output of one request, until the kernel is idle, or until `stop_at(output)` is true."""
        found = []
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return found
            if kind in ("stream", "display_data", "update_display_data", "execute_result", "error"):
                found.append({"kind": kind, **content})
                if stop_at and stop_at(found[-1]):
                    return found

    def run(self, source: str, cell_id: str | None = "cell") -> list[dict[str, Any]]:
        return self.outputs(self.send(source, cell_id))

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@contextmanager
def kernel(folder: Path, notebook: Path | str) -> Iterator[Kernel]:
    """A kernel that works in `folder` for the notebook named."""
    made = Kernel(folder, str(notebook))
    try:
        yield made
    finally:
        made.close()
