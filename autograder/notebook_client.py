"""Run the cells of one notebook in a fresh kernel, inside the sandbox; `execute.py` starts this program.

The job comes as JSON on standard input, so that the kernel never finds it in a file:
    {"cells": [{"i": 3, "source": "..."}], "cell_s": 60, "stop_s": 200, "output_bytes": 1000000}
and every cell that ran leaves one JSON line on standard output:
    {"i": 3, "outputs": [...], "status": "ok" | "error" | "timeout", "seconds": 0.1}
and {"stopped": "..."} ends the list early when the kernel is gone. Student code runs in the kernel, a
process of its own, which does not inherit these pipes.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import subprocess
import sys
import time
from typing import Any

PR_SET_DUMPABLE = 4


def main() -> int:
    """Read the job, run it, write the results; the exit status is 0 when every cell was tried."""
    # The kernel has our user id: without this it could open our pipe under /proc and write results itself.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    job = json.loads(sys.stdin.buffer.read())
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")  # dup: not inherited by children
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.environ["JUPYTER_RUNTIME_DIR"] = os.environ["TMPDIR"]  # the names of Unix sockets must be short
    return asyncio.run(_run(job, results))


async def _run(job: dict[str, Any], results: Any) -> int:
    # jsonschema loads this checker of IRIs where it is installed, and building its grammar takes 1.5 s.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from traitlets.config import Config

    class Client(NotebookClient):  # type: ignore[misc]
        """nbclient that stops collecting once a cell has printed more than its share."""

        room = 0

        def output(self, outs: Any, msg: Any, display_id: Any, cell_index: int) -> Any:
            self.room -= len(repr(msg["content"]))
            if self.room < 0 and msg["msg_type"] not in ("error", "execute_result"):
                return None
            return super().output(outs, msg, display_id, cell_index)

    def emit(**record: Any) -> None:
        results.write(json.dumps(record) + "\n")
        results.flush()

    cells = [nbformat.v4.new_code_cell(cell["source"]) for cell in job["cells"]]
    config = Config()
    config.KernelManager.transport = "ipc"  # files, so that no network is needed, not even loopback
    client = Client(
        nbformat.v4.new_notebook(cells=cells),
        timeout=job["cell_s"],
        allow_errors=True,
        interrupt_on_timeout=True,
        iopub_timeout=5,
        raise_on_iopub_timeout=True,
        startup_timeout=60,
        shutdown_kernel="immediate",
        coalesce_streams=True,
        error_on_timeout={"ename": "CellTimeoutError", "evalue": "", "traceback": []},
        kernel_manager_class=AsyncKernelManager,
        kernel_name="python3",
        config=config,
    )
    client.log.setLevel("CRITICAL")
    stop = time.monotonic() + job["stop_s"]
    async with client.async_setup_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        for job_cell, cell in zip(job["cells"], cells, strict=True):
            begin = time.monotonic()
            if begin > stop:
                emit(stopped="time")
                return 1
            client.timeout = max(1, int(min(job["cell_s"], stop - begin + 1)))
            client.room = job["output_bytes"]
            reply: dict[str, Any] = {}
            client.on_cell_executed = lambda reply=reply, **k: reply.update(k["execute_reply"]["content"])
            try:
                await client.async_execute_cell(cell, client.code_cells_executed)
            except DeadKernelError:
                emit(i=job_cell["i"], outputs=cell.outputs, status="dead", seconds=time.monotonic() - begin)
                emit(stopped="dead")
                return 1
            except CellTimeoutError:
                reply = {"status": "error", "ename": "CellTimeoutError"}
            status = "ok" if reply.get("status") == "ok" else "error"
            if reply.get("ename") == "CellTimeoutError" and time.monotonic() - begin >= client.timeout - 0.5:
                status = "timeout"
            if status == "error" and not any(o.output_type == "error" for o in cell.outputs):
                # The kernel reported an error that it did not show (a custom handler may hide it).
                cell.outputs.append(
                    nbformat.v4.new_output(
                        "error",
                        ename=str(reply.get("ename") or "Error"),
                        evalue=str(reply.get("evalue") or ""),
                        traceback=[str(line) for line in reply.get("traceback") or []],
                    )
                )
            emit(i=job_cell["i"], outputs=cell.outputs, status=status, seconds=time.monotonic() - begin)
    emit(done=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
