"""Every command starts at once: it imports what it runs, and nothing of the other commands.

Modules are counted, not seconds: each command runs as the real program, and a hook in its process writes down
what was imported beyond an empty Python.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import typer
from nbgrader import utils

from autograder.notebooks import metadata
from tito import cli, lazy

ROOT = Path(__file__).resolve().parent.parent
HOOK = """
import atexit, json, os, sys

empty = set(sys.modules)


def tell():
    with open(os.path.join(os.environ["STARTUP_TOLD"], f"{os.getpid()}.json"), "w") as file:
        json.dump([sys.argv, sorted(set(sys.modules) - empty)], file)


atexit.register(tell)
"""
LATER = [
    command
    for group in (typer.main.get_group(cli.app), lazy.Later("olympics", cli.COMMANDS["olympics"]).load())
    for command in group.commands.values()
    if isinstance(command, lazy.Later)
]
# Databases, clusters, servers and what draws: no command of a student needs them in its own process.
HEAVY = {"sqlalchemy", "alembic", "dask", "distributed", "jupyter_server", "nbgrader", "nbconvert"}


class Started:
    """Runs Python in a folder; what its process imported comes back."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.told, site = folder, folder / "told", folder / "site"
        site.mkdir(parents=True)
        self.told.mkdir()
        (site / "sitecustomize.py").write_text(HOOK)
        path = os.pathsep.join([str(site), str(ROOT)])
        self.env = os.environ | {"PYTHONPATH": path, "STARTUP_TOLD": str(self.told)}
        self.env["TINYTORCH_DATA"] = str(folder / "no data")
        self.env.pop("TITO_TINYTORCH", None)

    def __call__(self, *words: object, code: int = 0) -> set[str]:
        """The modules of `python <words>`, without its children's."""
        with subprocess.Popen(
            [sys.executable, *map(str, words)], cwd=self.folder, env=self.env, text=True, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            said = process.communicate()[0]
        assert process.returncode == code, said
        return set(json.loads((self.told / f"{process.pid}.json").read_text())[1])

    def tito(self, *words: object, code: int = 0) -> set[str]:
        """The modules of `tito <words>`."""
        return self("-m", "tito", *words, code=code)


@pytest.fixture
def started(tmp_path: Path) -> Started:
    return Started(tmp_path)


def packages(modules: set[str]) -> set[str]:
    return {name.split(".")[0] for name in modules}


@pytest.mark.parametrize("command", LATER, ids=lambda command: command.name)
def test_a_command_says_in_the_help_what_it_says_when_it_is_loaded(command: lazy.Later) -> None:
    assert command.get_short_help_str(200) == command.load().get_short_help_str(200) != ""


@pytest.mark.parametrize(
    ("words", "code"), [(["--version"], 0), (["--help"], 0), ([], 2), (["modul"], 2)], ids=str
)
def test_tito_itself_loads_no_command(started: Started, words: list[str], code: int) -> None:
    modules = started.tito(*words, code=code)
    assert len(modules) < 150
    assert not packages(modules) & {"rich", "numpy", "nbformat", *HEAVY}
    rooms = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "tito").rglob("__init__.py")}
    ours = {name for name in modules if name.startswith("tito.")}
    assert ours <= {"tito.cli", "tito.lazy", "tito.__main__"} | rooms  # a room itself is an empty file


def test_a_group_loads_no_other(started: Started) -> None:
    modules = started.tito("module", "--help")
    others = {where.partition(":")[0] for where in cli.COMMANDS.values()} - {"tito.student.module"}
    assert not modules & others
    assert "nbclient" not in modules, "what runs notebooks is loaded by the command that runs one"


@pytest.mark.parametrize(
    ("module", "most", "without"),
    [
        ("autograder.errors", 20, {"typing", "json"}),
        ("autograder.term.roster", 120, {"nbformat", "numpy", *HEAVY}),
        ("autograder.sandbox", 100, {"nbformat", "numpy", *HEAVY}),
        ("autograder.gradebook.judging", 500, HEAVY),
        ("tito.session", 60, {"nbformat", "numpy", *HEAVY}),  # `%load_ext tito`
        ("tito.notebook.checkpoints", 80, {"nbformat", "numpy", *HEAVY}),  # and in JupyterLab
        ("autograder.notebooks.cells.student", 200, {"nbformat", *HEAVY}),
        ("autograder.notebooks.cells.grader", 200, {"nbformat", *HEAVY}),
    ],
)
def test_a_part_is_light(started: Started, module: str, most: int, without: set[str]) -> None:
    modules = started("-c", f"import {module}")
    assert len(modules) < most
    assert not packages(modules) & without


def test_no_command_of_a_student_loads_a_database_a_cluster_or_a_server(started: Started) -> None:
    entry = ROOT / "course" / "entries" / "speed"
    lines = {
        "init ws --release release": 0, "module status": 0, "module complete 01": 0, "module reset 01": 0,
        "module restore 01 --list": 0, "data list": 0, "olympics init --track speed": 0, "olympics rules": 0,
        "olympics leaderboard": 0, "benchmark size --model speed/model.safetensors": 0, "lab nowhere": 1,
        "olympics submit --track speed --student ada": 0,
    }  # fmt: skip
    (started.folder / "release").symlink_to(ROOT / "release")
    counts = {}
    for line, code in lines.items():
        modules = started.tito(*line.split(), code=code)
        assert not packages(modules) & HEAVY, line
        counts[line] = len(modules)
        if line.startswith("init"):
            started.folder /= "ws"
            solved("01_tensor", started.folder / "01_tensor" / "01_tensor.ipynb")
        if line.startswith("olympics init"):
            shutil.copytree(ROOT / "tinytorch", started.folder / "tinytorch", dirs_exist_ok=True)
            for name in ("model.safetensors", "tokenizer.json", "training.json"):
                shutil.copyfile(entry / name, started.folder / "speed" / name)
    assert counts["module status"] < 700


def solved(name: str, target: Path) -> None:
    """The lesson as one writes it who solves everything."""
    nb = nbformat.read(ROOT / "source" / name / f"{name}.ipynb", as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(nb, target)


def test_what_a_cell_is_agrees_with_nbgrader() -> None:
    found = set()
    for path in [*ROOT.glob("source/*/*.ipynb"), *ROOT.glob("release/*/*.ipynb")]:
        for cell in nbformat.read(path, as_version=4).cells:
            told = metadata.is_grade(cell), metadata.is_solution(cell)
            assert told == (utils.is_grade(cell), utils.is_solution(cell)), path
            found.add(told)
    assert len(found) == 4, "cells of every kind were compared"


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "import tito.student.workspace"],
        ["-c", "import autograder.notebooks.kernels"],
        ["-m", "tito.jupyter", "nbgrader", "--version"],
        ["-m", "tito.jupyter", "jupyterlab", "--version"],
    ],
    ids=lambda words: words[-2],
)
def test_nbformat_builds_no_checker_of_addresses(started: Started, words: list[str]) -> None:
    """Regression: tito.student.workspace imported nbformat before the package that keeps it quick."""
    modules = started(*words)
    assert "nbformat" in modules
    assert "lark" not in modules, "the grammar of rfc3987_syntax"


def test_programs_of_jupyter_are_started_by_way_of_ours() -> None:
    """One that is started as `-m jupyterlab` or `-m nbgrader` builds that checker."""
    direct = re.compile(r'"-m",\s+"(jupyter|jupyterlab|jupyter_server|nbgrader|nbconvert)"')
    for path in [*ROOT.glob("autograder/**/*.py"), *ROOT.glob("tito/**/*.py")]:
        assert not direct.search(path.read_text(encoding="utf-8")), f"{path}: -m tito.jupyter"
