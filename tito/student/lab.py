"""`tito lab`: JupyterLab on a student workspace, opened on its start page.

Settings that we would have otherwise go into .tito/jupyter as *defaults*: JupyterLab reads them beside all
others, and what a student sets, a dark theme for example, counts before them and stays.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from autograder import folders, leash
from autograder.errors import command
from autograder.files import write_text
from autograder.needs import need
from tito.errors import TitoError
from tito.student import backups, places, project, start, workspace
from tito.student.module import kernel_environment

GRACE_S, KILL_S = 3, 15  # between an interrupt and asking JupyterLab to end; between asking and killing
# Nothing is asked of the network: no news, no version check, no list of extensions.
OFFLINE = (
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
)
DEFAULTS = {
    "@jupyterlab/docmanager-extension:plugin": {
        "autosaveInterval": 15,  # seconds; JupyterLab's own is 120
        "defaultViewers": {"markdown": "Markdown Preview"},  # the start page as a page, with links
    },
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}
# parts of nbgrader for those who teach; a student's menu has the assignment list and Validate
INSTRUCTORS = {
    f"@jupyter/nbgrader:{part}": True for part in ("create-assignment", "course-list", "formgrader")
}


def lab(
    path: Annotated[
        Path | None, typer.Argument(help="The workspace; default: the one here, or ./workspace.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
    port: Annotated[
        int | None, typer.Option(help="The first port to try; default: JupyterLab's own, 8888.")
    ] = None,
    release: Annotated[Path | None, typer.Option(help="Notebooks: a folder, or the student bundle.")] = None,
) -> None:
    """Open JupyterLab on your workspace; the first time, make the workspace."""
    need("jupyterlab")
    root = ready(path, release)
    page = start.PAGE
    if project.is_project(root):
        own = project.at(root)
        own.home()  # where its workspace has gone is said before JupyterLab opens
        page = own.notebook.name
        write_defaults(root)
    else:
        prepare(workspace.Workspace(root))
    print(f"JupyterLab on {root} (Ctrl-C twice ends it)", flush=True)
    raise typer.Exit(serve(arguments(root, browser, port, page), root))


def serve(words: list[str], root: Path) -> int:
    """Run JupyterLab until it ends; its exit code. What ends this process ends JupyterLab and its kernels.

    Ctrl-C in a terminal reaches JupyterLab too, which asks whether it is meant.
    """
    us = os.getpid()
    tie = {"preexec_fn": lambda: leash.end_with(us)} if sys.platform == "linux" else {}

    def end(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and sys.stdin and sys.stdin.isatty():
            return
        first = GRACE_S if number == signal.SIGINT else 0  # it may have got the interrupt, too
        for seconds, act in ((first, process.terminate), (first + KILL_S, process.kill)):
            timer = threading.Timer(seconds, act)
            timer.daemon = True
            timer.start()

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    process = subprocess.Popen(words, cwd=root, env=environment(root), **tie)  # type: ignore[call-overload]
    before = {name: signal.signal(getattr(signal, name), end) for name in names}
    try:
        code = int(process.wait())
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
    return 128 - code if code < 0 else code


def ready(path: Path | None, release: Path | None = None) -> Path:
    """The workspace or project to open: the one named, the one of the current folder, or a new ./workspace.

    Raises TitoError for a named folder that is no workspace: a word mistyped opened an empty one, and a
    student's work seemed lost. A new one is made there only where `release` names its notebooks.
    """
    here = project.find() if path is None else None
    if here is not None:
        return here.root
    if path is not None and project.is_project(path):
        return path.resolve()
    if path is None:
        path = places.here_or_new()
    elif not workspace.is_workspace(path) and release is None:
        above = path.resolve().parent
        others = workspace.within(above)
        known = f"; in {above} there is {workspace.names(others)}" if others else ""
        raise TitoError(f"{path} is no workspace: {command('tito', 'init', path)} makes one there{known}")
    if workspace.is_workspace(path):
        folders.check(path.resolve())
        return path.resolve()
    made, added = workspace.init(path, release)
    print(f"{made.root} is your workspace: {', '.join(added) or 'nothing new'}")
    return made.root


def prepare(ws: workspace.Workspace) -> None:
    """Before JupyterLab opens: keep a copy of each notebook that has changed, write start page and defaults.

    A damaged notebook is reported, with the backup that is there, and keeps nothing else from opening.
    """
    backups.snapshot_all(ws)
    for name in [*ws.modules(), *ws.tracks()]:
        try:
            backups.read(ws, name)
        except TitoError as error:
            print(f"tito: {error}", file=sys.stderr)
    start.refresh(ws)
    write_defaults(ws.root)


def write_defaults(root: Path) -> None:
    """Write what JupyterLab is to do where the student has set nothing else."""
    for name, content in (
        ("default_setting_overrides.json", DEFAULTS),
        ("page_config.json", {"disabledExtensions": INSTRUCTORS}),
    ):
        write_text(config_folder(root) / "labconfig" / name, json.dumps(content, indent=1) + "\n")


def config_folder(root: Path) -> Path:
    """A folder of Jupyter configuration in the workspace, which JupyterLab reads after the student's own."""
    return root / ".tito" / "jupyter"


def environment(root: Path) -> dict[str, str]:
    """JupyterLab's environment: the kernels', and one more folder of configuration."""
    env = kernel_environment()
    folders = [str(config_folder(root)), env.get("JUPYTER_CONFIG_PATH", "")]
    return {**env, "JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, folders))}


def arguments(root: Path, browser: bool, port: int | None, page: str = start.PAGE) -> list[str]:
    """JupyterLab's command line: it opens on `page`, and tries the next ports where one is taken."""
    words = [sys.executable, "-m", "tito.jupyter", "jupyterlab", f"--ServerApp.root_dir={root}"]
    words += [] if port is None else [f"--ServerApp.port={port}"]
    words.append(f"--LabApp.default_url=/lab/tree/{page}")
    words += OFFLINE
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # a container: loopback and token guard it
        words.append("--allow-root")
    return words if browser else [*words, "--no-browser"]
