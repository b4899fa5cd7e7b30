"""Notebooks run in the sandbox: what each ending leaves behind, and what nbgrader makes of it."""

import dataclasses

import pytest

from autograder import sandbox
from autograder.notebooks.execute import LIMITS, RUN, CellResult, cell_results, package_below, run_notebook
from tests.notebook_cells import answer, check, notebook, plain

LEVEL = sandbox.choose()
GOOD = answer("f", "def f(x):\n    return x + 1")


@pytest.fixture
def package(tmp_path):
    (tmp_path / "tinytorch").mkdir()
    (tmp_path / "tinytorch" / "__init__.py").write_text("value = 42\n")
    return tmp_path


def run(package, *cells, level=LEVEL, limits=LIMITS, cell_s=30.0):
    nb = run_notebook(notebook(*cells), tinytorch_dir=package, level=level, limits=limits, cell_s=cell_s)
    return nb, {result.grade_id: result for result in cell_results(nb)}


def test_every_level_runs_an_honest_notebook(package, level):
    """One notebook, many rules: errors, partial scores, warnings, skipped cells, memory."""
    nb, found = run(
        package,
        plain("%load_ext tito\n%tito lesson 05"),
        GOOD,
        plain("raise RuntimeError('graders skip this cell')", "measure"),
        check("right", "import tinytorch\nassert f(1) == 2 and tinytorch.value == 42"),
        check("wrong", "assert f(1) == 3, f'f(1): expected 3, got {f(1)}, look at f'"),
        check("warns", "import warnings, sys\nwarnings.warn('old')\nprint('noise', file=sys.stderr)"),
        check("half", "1.0 * f(0)"),
        check("too-much", "float(1000)"),
        check("not-a-number", "float('nan')"),
        check("text", "'well done'"),
        answer("g", "raise NotImplementedError()"),
        check("open", "g()"),
        answer("big", "import numpy as np\nblock = np.ones(40_000_000_000)"),
        check("after", "assert f(2) == 3"),
        level=level,
    )
    points = {name: result.points for name, result in found.items()}
    assert points == {
        "right": 2, "wrong": 0, "warns": 2, "half": 1, "too-much": 2, "not-a-number": 0, "text": 2, "open": 0,
        "after": 2,
    }  # fmt: skip
    assert found["wrong"].reason == "f(1): expected 3, got 2, look at f"
    assert "nan" in found["not-a-number"].reason
    assert found["open"].reason == "NameError: name 'g' is not defined"
    assert nb.metadata[RUN]["stopped"] == "" and nb.metadata[RUN]["level"] == level
    assert nb.cells[2].outputs == []


def test_a_dead_kernel_costs_what_came_after_it(package):
    _, found = run(
        package,
        GOOD,
        check("before", "assert f(1) == 2"),
        answer("crash", "import os\nos._exit(0)"),
        check("after", "assert f(1) == 2"),
    )
    assert found["before"].points == 2 and found["after"].points == 0
    assert "The kernel stopped at cell crash" in found["after"].reason


def test_a_loop_costs_its_own_check(package):
    _, found = run(
        package,
        answer("f", "def f(x):\n    while True:\n        pass"),
        check("hangs", "f(1)"),
        check("next", "assert 1 + 1 == 2"),
        cell_s=5.0,
    )
    assert found["hangs"] == CellResult("hangs", 0, 2.0, found["hangs"].reason)
    assert "stopped after 5 s" in found["hangs"].reason and found["next"].points == 2


def test_the_whole_notebook_has_a_limit(package):
    _, found = run(
        package,
        answer(
            "f", "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except BaseException: pass"
        ),
        check("never", "assert True"),
        limits=dataclasses.replace(LIMITS, wall_s=15),
        cell_s=60.0,
    )
    assert found["never"].points == 0 and "time limit of 15 s" in found["never"].reason


def test_memory_has_a_limit(package):
    """Many blocks, each below what one process may ask for."""
    hoard = "import numpy as np\nheld = []\nfor _ in range(200):\n    held.append(np.ones(4_000_000))"
    _, found = run(
        package,
        answer("hoard", hoard),
        check("never", "assert len(held) == 200"),
        limits=dataclasses.replace(LIMITS, memory_bytes=500_000_000),
    )
    assert found["never"].points == 0
    assert (
        "memory" in found["never"].reason
        or "MemoryError" in found["never"].reason
        or "held" in found["never"].reason
    )


def test_a_flood_of_output_is_cut(package):
    nb, found = run(
        package,
        plain("for i in range(200_000):\n    print('x' * 50)"),
        GOOD,
        check("right", "assert f(1) == 2"),
    )
    assert found["right"].points == 2
    assert len(str(nb)) < 3_000_000


def test_only_modules_below_are_there(tmp_path):
    source = tmp_path / "tinytorch"
    source.mkdir()
    for name in ("__init__", "tensor", "layers", "spatial"):
        (source / f"{name}.py").write_text("")
    lessons = ["01_tensor", "03_layers", "09_spatial"]
    folder = package_below(source, "09_spatial", lessons, tmp_path / "below")
    assert sorted(p.name for p in (folder / "tinytorch").iterdir()) == [
        "__init__.py",
        "layers.py",
        "tensor.py",
    ]


def test_a_course_with_a_part_of_the_lessons_has_the_modules_below_all_the_same(tmp_path):
    source = tmp_path / "tinytorch"
    source.mkdir()
    for name in ("tensor", "layers", "spatial"):
        (source / f"{name}.py").write_text("")
    (source / "__init__.py").write_text('_LESSONS = {"tensor": "01", "layers": "03", "spatial": "09"}\n')
    folder = package_below(source, "03_layers", ["03_layers"], tmp_path / "below")
    assert sorted(p.name for p in (folder / "tinytorch").iterdir()) == ["__init__.py", "tensor.py"]


def test_a_run_that_was_killed_from_outside_is_tried_again(package, tmp_path):
    """SIGKILL to a process of the sandbox, as the kernel gives one for want of memory: no student's fault."""
    import os
    import signal
    import threading
    import time

    from tests import chaos

    def kill_the_first() -> None:
        for _ in range(400):
            below = [p for p in chaos.descendants(os.getpid()) if "cells.student" in chaos.command_of(p)]
            theirs = [p for p in below if "supervisor" not in chaos.command_of(p)]
            if theirs:
                os.kill(theirs[0], signal.SIGKILL)
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    slow = answer("slow", "import time\ntime.sleep(0.5)")
    nb, found = run(package, GOOD, slow, check("right", "assert f(1) == 2"), cell_s=60.0)
    killer.join()
    assert found["right"].points == 2 and nb.metadata[RUN]["stopped"] == ""


def test_a_picture_of_bytes_and_an_output_that_breaks_cost_nothing(package):
    """Bytes as a PNG output stopped the judge; so did a shell that cannot say how a cell went."""
    shows = (
        "from IPython.display import display\ndisplay({'image/png': b'\\x89PNG\\r\\n\\x1a\\n...'}, raw=True)"
    )
    breaks = "import IPython.utils.capture as c\nc.capture_output = None"
    nb, found = run(
        package, GOOD, answer("shows", shows), answer("breaks", breaks), plain("1 + 1"),
        check("right", "assert f(1) == 2"),
    )  # fmt: skip
    assert found["right"].points == 2 and nb.cells[1].outputs[0].data["image/png"].startswith("iVBOR")
