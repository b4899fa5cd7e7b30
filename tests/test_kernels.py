"""Kernels that we start ourselves."""

import sys

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from autograder import kernels

ASK = "import json, ipykernel\nprint(json.load(open(ipykernel.get_connection_file()))['transport'])"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such sockets on Windows")
def test_no_port_is_taken(tmp_path):
    """Two kernels that started together were given one TCP port: `tito build --check` failed on it."""
    nb = new_notebook(cells=[new_code_cell(ASK), new_code_cell("import os; print(os.getcwd())")])
    kernels.run(nb, {"cwd": str(tmp_path)})
    assert [cell.outputs[0].text.strip() for cell in nb.cells] == ["ipc", str(tmp_path)]


def test_an_error_of_a_cell_is_raised_and_kept(tmp_path):
    nb = new_notebook(cells=[new_code_cell("1 / 0")])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        kernels.run(nb, {"cwd": str(tmp_path)})
    assert nbformat.validate(nb) is None and nb.cells[0].outputs[-1].ename == "ZeroDivisionError"
