"""Building: export, lints, execution, release, staleness and the notebook extension, on two tiny lessons."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import nbformat
import pytest
import typer
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from tito import demo, progress, session
from tito.build.build import _choose, build, build_command, check
from tito.build.built import _harness, key_of
from tito.build.lessons import BuildError, find_lessons, lint
from tito.errors import TitoError
from tito.notebook import magic
from tito.package.exporter import ExportError, export_notebook, export_text, public_names
from tito.student import places

REPO = Path(__file__).resolve().parents[2]
COURSE = Path(__file__).parents[1] / "fixtures" / "course"
MODULES = {"tensor": "01", "layers": "02"}
NAMES = {"Tensor": "tensor", "SCALE": "layers", "double": "layers"}


def quiet(line: str) -> None:
    """Progress is of no interest here."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built course; tests only read it."""
    root = tmp_path_factory.mktemp("built") / "course"
    shutil.copytree(COURSE, root)
    build(root, report=quiet)
    return root


@pytest.fixture
def course(built: Path, tmp_path: Path) -> Path:
    """A built course of the test's own."""
    shutil.copytree(built, tmp_path / "course")
    return tmp_path / "course"


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def cells(path: Path) -> dict[str, NotebookNode]:
    return {cell.metadata.nbgrader.grade_id: cell for cell in read(path).cells if "nbgrader" in cell.metadata}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path.name}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def python(code: str, folder: Path, **env: str) -> str:
    """What a fresh Python prints; the last line of its stderr where it fails."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


# ---- export


def notebook_of(*sources: str) -> NotebookNode:
    return new_notebook(cells=[new_markdown_cell("# A\n\n> What it does."), *map(new_code_cell, sources)])


def exported(*sources: str) -> str:
    """The exported file without its docstring."""
    text = export_text(notebook_of(*(f"#| export\n{s}" for s in sources)), file="a.ipynb", lesson="01_a")
    return text.split('"""\n', 1)[1].strip()


def test_exported_module_reads_like_code_written_by_hand(built: Path) -> None:
    assert (built / "tinytorch" / "tensor.py").read_text() == (
        '"""A number that can be added.\n\n'
        'Built by tito from lesson 01_tensor: change the lesson, not this file.\n"""\n\n'
        "from __future__ import annotations\n\nimport numpy as np\n\n"
        '__all__ = ["Tensor"]\n\n\n'
        'class Tensor:\n    """A number in an array."""\n\n'
        "    def __init__(self, data):\n        self.data = np.asarray(data, dtype=np.float32)\n\n"
        "    # Arithmetic.\n\n"
        '    def __add__(self, other: Tensor) -> Tensor:\n        """The sum of two tensors."""\n'
        "        return Tensor(self.data + other.data)\n"
    )


def test_imports_are_merged_sorted_and_used() -> None:
    text = exported(
        "import os\nimport numpy as np\nfrom typing import Any\n# a remark\n\nX: Any = np.pi",
        "import numpy as np\nfrom tinytorch.tensor import Tensor\n"
        "from tinytorch.tensor import apply\nimport math",
        "def f(x):\n    import json\n    return math.pi, Tensor, apply(x), json",
    )
    sections = text.split("\n\n")[:3]
    assert sections == [
        "import math\nfrom typing import Any",
        "import numpy as np",
        "from tinytorch.tensor import Tensor, apply",
    ]
    assert "import os" not in text, "unused imports go"
    assert text.count("import numpy") == 1
    assert "# a remark" in text
    assert "    import json" in text, "an import inside a function stays there"


def test_all_lists_functions_classes_and_constants() -> None:
    text = exported("TABLE = {}\nlower = 1\n_p = 2", "def f(): pass", "class C: pass", "def _g(): pass")
    assert public_names(text) == ["TABLE", "f", "C"]


def test_markers_go_but_strings_that_mention_them_stay() -> None:
    text = exported(
        'def f():\n    ### BEGIN SOLUTION\n    s = """\n### END SOLUTION\n"""\n    # why\n    return s'
    )
    assert "BEGIN SOLUTION" not in text
    assert "### END SOLUTION\n" in text
    assert "# why" in text


def test_class_grows_over_cells_with_comments_and_decorators() -> None:
    text = exported(
        "class A:\n    x = 1",
        "# between\nclass A(A):\n    # above\n    @property\n    def n(self):\n        return 1\n",
        "class A(A):\n    @n.setter\n    def n(self, value):\n        pass\n",
        "class A(A): pass",
    )
    assert text.count("class A") == 1
    positions = [text.index(part) for part in ("x = 1", "# between", "# above", "@property", "@n.setter")]
    assert positions == sorted(positions)
    namespace: dict[str, object] = {}
    exec(text, namespace)


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        (["def f(:\n    pass"], "a.ipynb, cell 2: invalid syntax: line 2: def f(:"),
        (["%matplotlib inline"], "a.ipynb, cell 2: a notebook command cannot be exported"),
        (["class A(A): pass"], "a.ipynb, cell 2: no export cell above begins class A."),
        (
            ["class A:\n    def f(self): pass", "class A(A):\n    def f(self): pass"],
            "a.ipynb, cell 3: A.f is already written in cell 2: keep one.",
        ),
        (["class A: pass", "class A(A, int): x = 1"], "cell 3: class A(A) may have no other base"),
        (["X = 1", "def f():\n    return helper()"], "cell 3: `helper` is used but no export cell defines"),
    ],
)
def test_what_cannot_be_exported_says_file_cell_and_reason(sources: list[str], reason: str) -> None:
    with pytest.raises(ExportError, match=re.escape(reason)) as caught:
        exported(*sources)
    assert "\n" not in str(caught.value)


def test_student_notebook_exports_what_the_student_wrote(built: Path, tmp_path: Path) -> None:
    """The same code serves `tito module complete`: unsolved cells, and a name of the student's own."""
    nb = read(built / "release" / "01_tensor" / "01_tensor.ipynb")
    nb.cells.append(new_code_cell("#| export\ndef mine():\n    # YOUR CODE HERE\n    return 7"))
    nbformat.write(nb, tmp_path / "01_tensor.ipynb")
    export_notebook(tmp_path / "01_tensor.ipynb", tmp_path / "tinytorch", MODULES, NAMES)
    text = (tmp_path / "tinytorch" / "tensor.py").read_text()
    assert "        raise NotImplementedError()" in text
    assert python("from tinytorch import mine; print(mine())", tmp_path) == "7"


def test_the_package_of_a_student_equals_the_reference(built: Path, tmp_path: Path) -> None:
    for name in ("01_tensor", "02_layers"):
        export_notebook(built / "source" / name / f"{name}.ipynb", tmp_path, MODULES, NAMES)
    for file in sorted((built / "tinytorch").glob("*.py")):
        assert (tmp_path / file.name).read_text() == file.read_text(), f"{file.name} differs"


# ---- the package


@pytest.mark.parametrize(
    ("before", "code", "says"),
    [
        ("", "from tinytorch import double, Tensor; print(float(double(Tensor(2)).data))", "4.0"),
        ("", "import tinytorch; print(tinytorch.layers.SCALE)", "2"),
        ("", "import tinytorch; print(tinytorch.__all__)", "['Tensor', 'SCALE', 'double']"),
        ("02", "import tinytorch; print(tinytorch.__all__)", "['Tensor']"),
        ("02", "from tinytorch import double", "double is built in module 02 (02_layers), this notebook"),
        ("01", "from tinytorch.layers import double", "built in module 02 (02_layers), after this notebook."),
        ("", "import tinytorch; tinytorch.nothing", "has no attribute 'nothing'"),
    ],
)
def test_names_come_from_the_package_unless_hidden(built: Path, before: str, code: str, says: str) -> None:
    assert says in python(code, built, TINYTORCH_BEFORE=before)


def test_a_name_not_built_yet_says_what_to_run(course: Path) -> None:
    (course / "tinytorch" / "layers.py").unlink()
    for code in ("from tinytorch import double", "from tinytorch.layers import double"):
        said = python(code, course)
        assert "(02_layers): run its notebook, then `tito module complete 02`." in said


# ---- source and release


def test_source_has_full_metadata_and_only_compared_outputs(built: Path) -> None:
    nb = read(built / "source" / "01_tensor" / "01_tensor.ipynb")
    about = {c.metadata.nbgrader.grade_id: c.metadata.nbgrader for c in nb.cells if "nbgrader" in c.metadata}
    assert about["test-add"] == {
        "cell_type": "code", "grade": True, "grade_id": "test-add", "locked": True, "points": 2,
        "schema_version": 3, "solution": False, "task": False,
    }  # fmt: skip
    assert about["setup"].locked and not about["add"].locked
    shown = [cell for cell in nb.cells if cell.get("outputs")]
    assert [cell.metadata.get("tags") for cell in shown] == [["nbval-check-output"]]
    assert shown[0].outputs[0].text == "3.0\ndone\n"
    assert all(
        cell.execution_count is None for cell in nb.cells if cell.cell_type == "code" and cell not in shown
    )
    assert nb.metadata.kernelspec.name == "python3" and "version" not in nb.metadata.language_info
    assert len({cell.id for cell in nb.cells}) == len(nb.cells)


def test_release_has_stubs_and_no_answers(built: Path) -> None:
    path = built / "release" / "01_tensor" / "01_tensor.ipynb"
    released, text = cells(path), path.read_text()
    assert released["add"].source.endswith("        # YOUR CODE HERE\n        raise NotImplementedError()")
    assert "HIDDEN" not in text and "three + three" not in text and "SOLUTION" not in text
    assert released["why"].source == "YOUR ANSWER HERE"
    assert not any(cell.get("outputs") for cell in read(path).cells)
    assert not list(built.rglob("gradebook*")), "the gradebook is thrown away"


def test_nbval_accepts_the_source(built: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", "02_layers.ipynb"],
        cwd=built / "source" / "02_layers", capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_same_lessons_give_the_same_bytes(built: Path) -> None:
    assert check(built, report=quiet) == []


def test_build_executes_only_what_changed(course: Path) -> None:
    said: list[str] = []
    edit(course / "modules" / "02_layers.py", "Tensor(4)", "Tensor(5)")
    changed = build(course, report=said.append)
    assert changed == ["built.json", "release/02_layers/02_layers.ipynb", "source/02_layers/02_layers.ipynb"]
    assert "1 lesson is current, executed 1" in said


def test_a_fresh_clone_executes_nothing(course: Path) -> None:
    """built.json says what is current, without the cache of the machine that built it."""
    shutil.rmtree(course / "build")
    said: list[str] = []
    assert build(course, report=said.append) == []
    assert check(course, report=said.append) == []
    assert said == ["2 lessons are current, executed 0"] * 2


def test_what_build_says_adds_up(course: Path) -> None:
    (course / "built.json").write_text("{}")
    edit(course / "modules" / "02_layers.py", "Tensor(4)", "Tensor(5)")
    said: list[str] = []
    build(course, report=said.append)
    assert said[-1] == "0 lessons are current, executed 1, kept in build/ from before 1"


@pytest.mark.parametrize(
    "spoil", ["edited source", "edited release", "missing", "record", "settings", "force"]
)
def test_what_the_record_does_not_vouch_for_is_executed(course: Path, spoil: str) -> None:
    source = course / "source" / "01_tensor" / "01_tensor.ipynb"
    before = source.read_bytes()
    if spoil == "edited source":
        edit(source, "3.0\\n", "4.0\\n")
    elif spoil == "edited release":
        edit(course / "release" / "01_tensor" / "01_tensor.ipynb", "YOUR ANSWER HERE", "")
    elif spoil == "missing":
        source.unlink()
    elif spoil == "record":
        (course / "built.json").write_text("{}")
    elif spoil == "settings":
        with open(course / "nbgrader_config.py", "a", encoding="utf-8") as file:
            file.write("# another line\n")
    said: list[str] = []
    wrong = check(course, ["01"], force=spoil == "force", report=said.append)
    assert "0 lessons are current, executed 1" in said
    assert bool(wrong) == (spoil in ("edited source", "edited release", "missing"))
    behind = "built.json is behind: `tito build` brings it up to date, commit it"
    assert (behind in said) == (spoil in ("record", "settings"))
    build(course, ["01"], report=quiet)
    assert source.read_bytes() == before


def test_the_key_is_the_same_on_every_python_and_changes_with_its_inputs(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nb = find_lessons(course)[0].read()
    key = key_of(nb, [], course)
    with monkeypatch.context() as other:
        other.setattr("platform.python_version", lambda: "3.99.1")
        other.setattr("sys.platform", "plan9")
        assert key_of(nb, [], course) == key
    assert key_of(nb, ["x = 1"], course) != key, "the package below"
    for name, value in (("_pins", lambda: ["numpy==9"]), ("MACHINERY", ())):
        with monkeypatch.context() as other:
            other.setattr(f"tito.build.built.{name}", value)
            assert key_of(nb, [], course) != key, name


def test_a_lesson_depends_on_what_it_imports_in_turn_and_on_no_more_of_the_grader() -> None:
    speed = next(lesson for lesson in find_lessons(REPO) if lesson.name == "speed")
    files = {path.relative_to(REPO).as_posix() for path in _harness(speed.read())}
    assert {
        "tito/student/olympics.py",
        "autograder/scoring/tokens.py",
        "autograder/scoring/measure.py",
    } <= files
    assert not files & {
        "autograder/gradebook/batch.py",
        "autograder/gradebook/records.py",
        "tito/doctor/command.py",
    }


def test_the_demo_is_under_the_heartbeat_from_its_first_step_to_its_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever takes long in it: one place runs it all, one place begins a step, and both are tried here."""
    entered: list[progress.Heart] = []

    @contextmanager
    def beating(heart: progress.Heart) -> Iterator[progress.Heart]:
        entered.append(heart)
        yield heart
        entered.remove(heart)

    def play(*words: object) -> None:
        (heart,) = entered
        heart.tick(time.monotonic() + progress.EVERY, progress.EVERY)
        demo._step("collect and grade vision", time.perf_counter())
        heart.tick(time.monotonic() + progress.EVERY, progress.EVERY)

    monkeypatch.setattr(progress, "beating", beating)
    monkeypatch.setattr(demo, "_play", play)
    demo.demo(Path("demo"), level=None)
    said = [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert said[0] == "... still looking at this machine" and said[2] == "... still collect and grade vision"
    assert entered == [] and progress.EVERY < 10


def test_long_work_is_never_silent() -> None:
    """By a clock of the test's own: a line when nothing was said for a while, none beside the work's own."""
    said: list[str] = []
    heart = progress.Heart(said.append)
    begun = time.monotonic()
    heart.tick(begun + 99, 5)
    assert said == [], "no work, no line"
    heart.on("grading")
    heart.tick(begun + 106, 5)
    heart.tick(begun + 108, 5)
    heart.tick(begun + 112, 5)
    assert said == ["... still grading, 106 s", "... still grading, 112 s"]
    heart.say("ada: 3 of 3")
    heart.tick(time.monotonic() + 3, 5)
    assert said[2:] == ["ada: 3 of 3"]


def test_check_lists_stale_edited_missing_and_extra_files(course: Path) -> None:
    edit(course / "modules" / "02_layers.py", "SCALE = 2", "SCALE = 3")
    edit(course / "tinytorch" / "tensor.py", "A number in", "Edited by hand in")
    (course / "release" / "01_tensor" / "01_tensor.ipynb").unlink()
    (course / "source" / "03_gone").mkdir()
    (course / "source" / "03_gone" / "03_gone.ipynb").write_text("{}")
    (course / "tinytorch" / "gone.py").write_text("")
    stale = {line.split(": ")[0]: line.split(": ")[1] for line in check(course, report=quiet)}
    assert list(stale) == [
        "release/01_tensor/01_tensor.ipynb",
        "release/02_layers/02_layers.ipynb",
        "source/02_layers/02_layers.ipynb",
        "source/03_gone/03_gone.ipynb",
        "tinytorch/gone.py",
        "tinytorch/layers.py",
        "tinytorch/tensor.py",
    ]
    assert stale["release/01_tensor/01_tensor.ipynb"].startswith("missing")
    assert stale["tinytorch/gone.py"].startswith("no lesson builds it")
    build(course, report=quiet)
    assert not (course / "source" / "03_gone").exists() and not (course / "tinytorch" / "gone.py").exists()


def test_one_broken_lesson_leaves_everything_in_place(course: Path) -> None:
    before = {path: path.read_bytes() for path in course.rglob("*.ipynb") if "build" not in path.parts}
    edit(course / "modules" / "01_tensor.py", "Tensor(1) + Tensor(2)).data)", "Tensor(1) * Tensor(2)).data)")
    with pytest.raises(BuildError, match=r"modules/01_tensor.py, cell 6: TypeError: unsupported operand"):
        build(course, report=quiet)
    assert {path: path.read_bytes() for path in before} == before
    build(course, ["02"], report=quiet)  # the other one can still be built


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('print("done")', "import sys; print(1, file=sys.stderr)", "cell 6: writes to stderr"),
        ('print("done")', "object()", "cell 6: its output holds an address"),
        ("three = Tensor(1)", "7\n#", "cell 7 (test-add): NameError: name 'three' is not defined"),
        ("### END HIDDEN TESTS", "### END HIDDEN TESTS\n1.5", "cell 7 (test-add): shows 1.5, which nbgrader"),
        ("### END HIDDEN TESTS", "### END HIDDEN TESTS\nassert three != 4",
         "test-add: earns 0 of 2 where it is judged, outside the student's process: Untrusted"),
    ],
)  # fmt: skip
def test_outputs_that_graders_would_stumble_over_are_refused(
    course: Path, old: str, new: str, reason: str
) -> None:
    edit(course / "modules" / "01_tensor.py", old, new)
    with pytest.raises(BuildError, match=re.escape(f"modules/01_tensor.py, {reason}")):
        build(course, ["01"], report=quiet)


# ---- lints

GRADE = '{"grade_id": "test-double", "grade": true, "points": 1}'
SOLUTION = '{"grade_id": "double", "solution": true}'
ANSWER = "    ### BEGIN SOLUTION\n    return x + x\n    ### END SOLUTION"
IMPORT = "from tinytorch.tensor import Tensor\n"
TAG = ' tags=["nbval-check-output"]'
SETUP = "cell 2 (setup): the first code cell is the locked setup cell, grade_id setup, with"
POINTS = "cell 6 (test-double): a graded cell needs points above 0, got"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            '"test-double", "gr',
            '"double", "gr',
            "cell 6 (double): duplicate grade_id 'double', already on cell 4",
        ),
        (', "points": 1', "", f"{POINTS} None."),
        (', "points": 1', ', "points": "two"', f"{POINTS} 'two'."),
        (', "points": 1', ', "points": 0', f"{POINTS} 0."),
        (
            ', "solution": true',
            ', "locked": true',
            "cell 4 (double): solution markers outside a solution cell.",
        ),
        (ANSWER, "    return x + x", "cell 4 (double): a solution cell without ### BEGIN SOLUTION"),
        ("    ### END SOLUTION\n", "", "cell 4 (double): ### BEGIN SOLUTION and ### END SOLUTION do not"),
        (SOLUTION, '{"grade_id": "dou ble", "solution": true}', "cell 4 (dou ble): grade_id is 'dou ble'"),
        (
            SOLUTION,
            '{"grade_id": "double", "solution": true, "point": 2}',
            "cell 4 (double): unknown nbgrader",
        ),
        (SOLUTION, '{"grade_id": "double"}', "cell 4 (double): nbgrader metadata that says neither grade"),
        (
            IMPORT,
            IMPORT + "from tinytorch.spatial import Conv2d\n",
            "cell 3: imports tinytorch.spatial from module 09",
        ),
        (
            IMPORT,
            IMPORT + "from tinytorch import Conv2d\n",
            "cell 3: imports tinytorch.Conv2d from module 09",
        ),
        (
            IMPORT,
            IMPORT + "import tinytorch.layers\n",
            "cell 3: imports tinytorch.layers from its own module",
        ),
        (
            IMPORT,
            IMPORT + "from tinytorch.no import x\n",
            "cell 3: imports tinytorch.no, which no lesson builds.",
        ),
        (
            "_private = 1",
            "### BEGIN HIDDEN TESTS\n### END HIDDEN TESTS",
            "cell 3: hidden-test markers outside",
        ),
        ("# %tito lesson 02", "# %tito lesson 03", f"{SETUP} %load_ext tito and %tito lesson 02."),
        (', "locked": true', ', "locked": false', SETUP),
        ("assert float", "#| export\nassert float", "cell 6 (test-double): a graded cell cannot be exported"),
        (GRADE, GRADE + ' tags=["measure"]', "cell 6 (test-double): a graded cell tagged measure would be"),
        ("# > A layer", "# A layer", "cell 1: no line starts with `> `"),
        (TAG, "", "no cell is tagged nbval-check-output"),
        ("_private = 1", "plt.subplots()", "cell 3: draws a figure that it does not show with a text alter"),
        ("_private = 1", "plt.plot([1])\nplt.show()", "cell 3: shows a figure without a text alternative"),
        ("_private = 1", "show(figure)", "cell 3: shows a figure without a text alternative"),
        ("_private = 1", 'show(figure, alt=" ")', "cell 3: shows a figure without a text alternative"),
        ("_private = 1", "ipywidgets.interact(f, x=3)", "cell 3: a widget with no picture where none runs"),
    ],
)
def test_a_lesson_with_a_fault_is_refused_with_file_cell_and_reason(
    tmp_path: Path, old: str, new: str, fault: str
) -> None:
    shutil.copytree(COURSE, tmp_path, dirs_exist_ok=True)
    edit(tmp_path / "modules" / "02_layers.py", old, new)
    lesson = find_lessons(tmp_path)[1]
    faults = lint(lesson, lesson.read(), MODULES | {"spatial": "09"}, NAMES | {"Conv2d": "spatial"})
    assert any(re.match(r"modules/02_layers\.py[,:] " + re.escape(fault), line) for line in faults), faults


@pytest.mark.parametrize(
    "code",
    [
        'figure, axes = plt.subplots()\nshow(figure, alt="A line that rises.")',
        'figure = plt.figure()\nfigures.show(figure, f"A line up to {top}.")',
        "def draw(a=1):\n    figure = plt.figure()\n    return figure, str(a)\nexplore(draw, a=(1, 3))",
        "import matplotlib.pyplot as plt",
    ],
)
def test_figures_with_an_alternative_pass(tmp_path: Path, code: str) -> None:
    shutil.copytree(COURSE, tmp_path, dirs_exist_ok=True)
    edit(tmp_path / "modules" / "02_layers.py", "_private = 1", code)
    lesson = find_lessons(tmp_path)[1]
    assert lint(lesson, lesson.read(), MODULES, NAMES) == []


def test_the_fixture_course_has_no_fault() -> None:
    for lesson in find_lessons(COURSE):
        assert lint(lesson, lesson.read(), MODULES, NAMES) == []


def test_two_lessons_may_not_export_one_name_or_share_a_number(course: Path) -> None:
    edit(course / "modules" / "02_layers.py", "_private = 1", "class Tensor: pass")
    with pytest.raises(BuildError, match="02_layers.py: exports 'Tensor', which tensor already exports."):
        build(course, report=quiet)
    shutil.copy(course / "modules" / "02_layers.py", course / "modules" / "02_more.py")
    with pytest.raises(BuildError, match="02_more.py: number 02 is taken by modules/02_layers.py."):
        build(course, report=quiet)


def test_an_unknown_lesson_is_named(course: Path) -> None:
    with pytest.raises(BuildError, match="no lesson '07'; there are 01_tensor, 02_layers."):
        build(course, ["07"], report=quiet)


def test_the_command_fails_with_one_line(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer()
    app.command()(build_command)
    monkeypatch.chdir(course / "modules")
    edit(course / "modules" / "02_layers.py", ', "points": 1', "")
    failed = CliRunner().invoke(app, ["02", "--check"])
    assert failed.exit_code == 1
    assert failed.output.splitlines() == [
        "modules/02_layers.py, cell 6 (test-double): a graded cell needs points above 0, got None."
    ]
    monkeypatch.chdir(tmp_path)
    failed = CliRunner().invoke(app, [])
    assert failed.exit_code == 1 and "is not in the course repository" in failed.output


# ---- the notebook extension


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give back the path, the environment and the imported modules that `lesson` changes.

    The modules too: `lesson` forgets tinytorch, and a second copy of it under the same name made the tests of
    another file fail, in the same worker, on classes that were no longer the package's own.
    """
    monkeypatch.setattr(sys, "path", list(sys.path))
    for key in ("TITO_TINYTORCH", "TINYTORCH_BEFORE"):
        monkeypatch.setenv(key, "")
        monkeypatch.delenv(key)
    with mock.patch.dict(sys.modules):
        yield


@pytest.mark.usefixtures("clean")
def test_lesson_finds_the_workspace_the_repository_or_the_folder_told(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert places.home(built / "source" / "02_layers") == built
    (tmp_path / ".tito").mkdir()
    (tmp_path / ".tito" / "workspace.json").write_text("{}")
    (tmp_path / "01_tensor").mkdir()
    monkeypatch.chdir(tmp_path / "01_tensor")
    assert magic.lesson("01") == tmp_path, "lesson 01 begins without a package"
    assert sys.path[0] == str(tmp_path) and os.environ["TINYTORCH_BEFORE"] == "01"
    with pytest.raises(TitoError, match="no tinytorch in .* yet: solve lesson 01"):
        magic.lesson("02")
    monkeypatch.setenv("TITO_TINYTORCH", str(built))
    assert magic.lesson("02") == built and sys.path[0] == str(built)
    assert magic.lesson("vision") == built and "TINYTORCH_BEFORE" not in os.environ
    monkeypatch.setenv("TITO_TINYTORCH", str(tmp_path / "nowhere"))
    with pytest.raises(TitoError, match="is no folder"):
        magic.lesson("02")


@pytest.mark.usefixtures("clean")
def test_outside_of_everything_lesson_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TitoError, match="is in no workspace: make one with `tito init`"):
        places.home(tmp_path)


def test_errors_in_a_kernel_are_one_line_and_still_errors(built: Path, tmp_path: Path) -> None:
    """nbgrader looks for error outputs: a readable error must remain one."""
    sources = [
        "%load_ext tito",
        "%tito lesson 02",
        "from tinytorch import double",
        "%tito lesson",
        "%tito nonsense",
    ]
    nb = new_notebook(cells=[new_code_cell(source) for source in sources])
    env = {**os.environ, "PYTHONPATH": str(REPO), "TITO_TINYTORCH": str(built)}
    env.pop("TINYTORCH_BEFORE", None)
    resources = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(
        nb,
        kernel_name="python3",
        allow_errors=True,
        resources=resources,
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute(env=env)
    assert not nb.cells[0].outputs and not nb.cells[1].outputs
    errors = [[o for o in cell.outputs if o.output_type == "error"] for cell in nb.cells[2:]]
    assert [len(found) for found in errors] == [1, 1, 1]
    assert [found[0].ename for found in errors] == ["NotBuilt", "TitoError", "TitoError"]
    assert errors[0][0].traceback == [f"NotBuilt: {errors[0][0].evalue}"]
    assert "this notebook: use its cells" in errors[0][0].evalue
    assert "expected one lesson number" in errors[1][0].evalue


def test_nbgrader_reads_our_settings() -> None:
    code = (
        "import json; from traitlets.config import PyFileConfigLoader as L;"
        "c = L('nbgrader_config.py', path='.').load_config(); print(json.dumps(c.CourseDirectory))"
    )
    settings = json.loads(python(code, REPO))
    assert settings["course_id"] == "torch-olympics" and settings["root"] == str(REPO)


def test_cells_are_remembered_without_a_history(monkeypatch):
    """Regression: under nbval, which keeps no history, save_network found no cell."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    magic.load(shell)
    monkeypatch.setattr(session, "ran", [])
    shell.run_cell("#| export\nwidth = 3", store_history=False)
    assert session.ran == ["#| export\nwidth = 3"]


def test_a_name_means_the_assignment_before_the_module_of_that_name() -> None:
    lessons = find_lessons(Path(__file__).resolve().parents[2])
    for word, name in (("compression", "compression"), ("16", "16_compression"), ("autograd", "05_autograd")):
        assert [lesson.name for lesson in _choose(lessons, [word])] == [name]
