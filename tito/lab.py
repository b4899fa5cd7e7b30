"""`tito lab`: JupyterLab on a student workspace."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from tito import workspace
from tito.module import kernel_environment
from tito.notebook import TitoError

# Nothing is asked of the network: no news, no version check, no list of extensions.
OFFLINE = (
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
)


def lab(
    path: Annotated[
        Path | None, typer.Argument(help="The workspace; default: the one here, or ./workspace.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
    port: Annotated[int, typer.Option(help="The first port to try.")] = 8888,
    release: Annotated[Path | None, typer.Option(help="Notebooks: a folder, or the student bundle.")] = None,
) -> None:
    """Open JupyterLab on your workspace; the first time, make the workspace."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise TitoError("JupyterLab is not installed: pip install jupyterlab")
    root = ready(path, release)
    print(f"JupyterLab on {root} (Ctrl-C twice ends it)", flush=True)
    try:
        code = subprocess.call(arguments(root, browser, port), cwd=root, env=kernel_environment())
    except KeyboardInterrupt:  # Ctrl-C reached JupyterLab too, which has said goodbye
        code = 0
    raise typer.Exit(code)


def ready(path: Path | None, release: Path | None = None) -> Path:
    """The workspace to open: the one named, the one around the current folder, or a new ./workspace."""
    if path is None:
        try:
            return workspace.find().root
        except TitoError:
            path = Path("workspace")
    if workspace.is_workspace(path):
        return path.resolve()
    made, added = workspace.init(path, release)
    print(f"{made.root} is your workspace: {', '.join(added) or 'nothing new'}")
    return made.root


def arguments(root: Path, browser: bool, port: int) -> list[str]:
    """The command line of JupyterLab."""
    words = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}", f"--ServerApp.port={port}"]
    words += OFFLINE
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # a container: loopback and token guard it
        words.append("--allow-root")
    return words if browser else [*words, "--no-browser"]
