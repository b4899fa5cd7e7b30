"""Kernels that we start ourselves, and those that Sphinx and nbval start."""

import subprocess
import sys

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from autograder.notebooks import kernels
from autograder.scratch import Folder

ASK = "import json, ipykernel\nprint(json.load(open(ipykernel.get_connection_file()))['transport'])"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such sockets on Windows")
def test_no_port_is_taken(tmp_path, monkeypatch):
    """Two kernels that started together were given one TCP port: `tito build --check` failed on it."""
    made = []
    monkeypatch.setattr(kernels, "Folder", lambda purpose: made.append(Folder(purpose)) or made[-1])
    nb = new_notebook(cells=[new_code_cell(ASK), new_code_cell("import os; print(os.getcwd())")])
    kernels.run(nb, {"cwd": str(tmp_path)})
    assert [cell.outputs[0].text.strip() for cell in nb.cells] == ["ipc", str(tmp_path)]
    assert made and not any(folder.path.exists() for folder in made)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such sockets on Windows")
def test_a_folder_too_deep_for_sockets_does_without(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    nb = new_notebook(cells=[new_code_cell(ASK)])
    kernels.run(nb, {"cwd": str(tmp_path)})
    assert nb.cells[0].outputs[0].text.strip() == "tcp" and list(deep.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such sockets on Windows")
def test_notebooks_that_nbval_runs_take_no_port(tmp_path, pytestconfig):
    """As `make test` runs those of source/."""
    pytest.importorskip("nbval")
    nb = new_notebook(cells=[new_code_cell(f"{ASK.replace('print(', 'assert ')[:-1]} == 'ipc'")])
    nbformat.write(nb, tmp_path / "ask.ipynb")
    words = [sys.executable, "-m", "pytest", "-p", "tests.sockets", "--nbval-lax", tmp_path / "ask.ipynb"]
    done = subprocess.run(words, cwd=pytestconfig.rootpath, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


def test_an_error_of_a_cell_is_raised_and_kept(tmp_path):
    nb = new_notebook(cells=[new_code_cell("1 / 0")])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        kernels.run(nb, {"cwd": str(tmp_path)})
    assert nbformat.validate(nb) is None and nb.cells[0].outputs[-1].ename == "ZeroDivisionError"
