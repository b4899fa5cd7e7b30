"""The folders in which a page's commands run, and the steps a page may ask for between them."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from datetime import UTC, datetime
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[3]
START = {"course": "course", "repository": "repository"}  # where in the home folder the first command runs
# what `tito build`, `tito course new-…` and the wrong solutions of tests/mutants need of the repository
COPIED = (
    "autograder", "tito", "modules", "olympics_notebooks", "source", "release", "tinytorch",
    "nbgrader_config.py", "tests/mutants", "course/schedules", "course/entries/vision",
    "course/leaderboard.ipynb",
)  # fmt: skip
_CONFIG = """c = get_config()
c.CourseDirectory.course_id = "olympics"
c.CourseDirectory.root = {root!r}
c.Exchange.root = {exchange!r}
c.ClearSolutions.code_stub = {{"python": "# YOUR CODE HERE\\nraise NotImplementedError()"}}

from autograder.gradebook.pipeline import configure

configure(c)
"""


def fill(home: Path, kind: str) -> None:
    """Put what the kind says into a home folder, which may not exist yet. Raises ValueError for another kind.

    empty, nothing; course, a small course; repository, a copy of this one; wheel, the file that students get,
    with the packages that it needs within reach of pip.
    """
    kinds = {"empty": None, "course": _course, "repository": copy_repository, "wheel": _wheel}
    if kind not in kinds:
        raise ValueError(f"console: in {kind}: expected one of {', '.join(kinds)}")
    settings = home / ".jupyter" / "jupyter_server_config.json"
    settings.parent.mkdir(parents=True)
    settings.write_bytes(b'{"ServerApp": {"allow_root": true}}')  # books are built in containers, too
    if (more := kinds[kind]) is not None:
        more(home)


def variables(home: Path, kind: str) -> dict[str, str]:
    """The environment variables in which a kind differs from the others."""
    if kind == "repository":
        return {"PYTHONPATH": str(home / "repository")}
    if kind == "wheel":
        prefix = Path(sys.prefix)
        return {
            "PYTHONPATH": str(home / ".packages"),
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "JUPYTERLAB_DIR": str(prefix / "share" / "jupyter" / "lab"),
            "JUPYTER_PATH": str(prefix / "share" / "jupyter"),
            "JUPYTER_CONFIG_PATH": str(prefix / "etc" / "jupyter"),
        }
    return {}


def copy_repository(home: Path) -> None:
    """The parts of this repository that building and grading need, as home/repository."""
    for name in COPIED:
        target = home / "repository" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, target)


def insert(path: Path, line: str, text: str, *, before: bool) -> None:
    """Put text before, and two blank lines after it, or behind the one line that begins so.

    Raises ValueError where there is not one such line.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    at = [k for k, found in enumerate(lines) if found.startswith(line)]
    if len(at) != 1:
        raise ValueError(f"{path.name} has {len(at)} lines that begin with {line!r}: expected one")
    lines.insert(at[0] + (not before), text + "\n\n" * before)
    path.write_text("".join(lines), encoding="utf-8")


def _wheel(home: Path) -> None:
    """The course's wheel, and links to this environment's packages without the course itself.

    pip finds them there by PYTHONPATH, so that it has nothing to fetch.
    """
    from tito.instructor import bundle

    bundle.build_wheel(ROOT, home)
    (home / ".packages").mkdir()
    for folder in {sysconfig.get_path(name) for name in ("purelib", "platlib")}:
        for path in Path(folder).iterdir():
            ours = path.name.startswith(("torch_olympics", "__editable__", "pip", "setuptools"))
            if not ours and path.suffix != ".pth" and path.name != "__pycache__":
                os.symlink(path, home / ".packages" / path.name)


def step(home: Path, words: str) -> str:
    """Do one named step in a page's folder; returns the sentence that the page then shows."""
    name, *arguments = words.split()
    steps = {
        "solve": _solve, "only": _only, "half": _half, "entry": _entry, "hand-in": _hand_in,
        "submit": _submit, "file": _file,
    }  # fmt: skip
    if name not in steps:
        raise ValueError(f"console: after {name}: expected one of {', '.join(steps)}")
    return steps[name](home, *arguments)


def _solve(home: Path, lesson: str) -> str:
    """The reference solution in place of a student's work."""
    notebook = home / "my_olympics" / lesson / f"{lesson}.ipynb"
    shutil.copyfile(ROOT / "source" / lesson / f"{lesson}.ipynb", notebook)
    return f"For this page the course's own solution of {lesson} was put in place of a student's work."


def _only(home: Path, lesson: str, grade_id: str) -> str:
    """The released notebook with one exercise solved."""
    notebook = home / "my_olympics" / lesson / f"{lesson}.ipynb"
    nb = nbformat.read(ROOT / "release" / lesson / f"{lesson}.ipynb", 4)
    solved = nbformat.read(ROOT / "source" / lesson / f"{lesson}.ipynb", 4)
    _cell(nb, grade_id).source = _cell(solved, grade_id).source
    nbformat.write(nb, notebook)
    return f"For this page the exercise `{grade_id}` has been solved, and no other."


def _half(home: Path, lesson: str, grade_id: str) -> str:
    """The reference solution with one exercise left open."""
    _solve(home, lesson)
    notebook = home / "my_olympics" / lesson / f"{lesson}.ipynb"
    _leave_open(notebook, lesson, grade_id)
    return f"For this page everything but the exercise `{grade_id}` has been solved."


def _entry(home: Path, track: str) -> str:
    """The course's own entry of a track, with the package that it runs on."""
    workspace = home / "my_olympics"
    shutil.copytree(ROOT / "tinytorch", workspace / "tinytorch", dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    for path in (ROOT / "course" / "entries" / track).iterdir():
        if path.name in ("model.safetensors", "tokenizer.json", "training.json", "network.py"):
            shutil.copyfile(path, workspace / track / path.name)
    return f"For this page the course's own package and {track} entry were put in place of a student's."


def _submit(home: Path, course: str, lesson: str, *students: str) -> str:
    """Submissions in the exchange, as nbgrader's submit lays them out: student+assignment+time+random."""
    root = home / course
    with (root / "nbgrader_config.py").open("a", encoding="utf-8") as settings:
        settings.write("\nc.ExchangeCollect.check_owner = False\n")
    stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    for student in students:
        folder = root / "exchange" / course / "inbound" / f"{student}+{lesson}+{stamp}+handbook"
        folder.mkdir()
        (folder / "timestamp.txt").write_text(stamp, encoding="utf-8")
        shutil.copyfile(ROOT / "source" / lesson / f"{lesson}.ipynb", folder / f"{lesson}.ipynb")
    return (
        f"For this page {' and '.join(students)} have submitted the course's own solution, both from the one "
        "account of this machine: so `c.ExchangeCollect.check_owner = False` was set."
    )


def _hand_in(home: Path, lesson: str) -> str:
    """Two submissions, as nbgrader's collect leaves them."""
    for student, when in (("ada", "2026-11-20 10:00:00 UTC"), ("ben", "2026-11-22 09:30:00 UTC")):
        folder = home / "course" / "submitted" / student / lesson
        folder.mkdir(parents=True)
        (folder / "timestamp.txt").write_text(when, encoding="utf-8")
        shutil.copyfile(ROOT / "source" / lesson / f"{lesson}.ipynb", folder / f"{lesson}.ipynb")
    _leave_open(folder / f"{lesson}.ipynb", lesson, "broadcast_shape")
    return (
        "For this page ada has handed in the course's own solution, and ben one with an exercise left open."
    )


def _file(home: Path, path: str, *words: str) -> str:
    """A file of one line, such as a setting."""
    (home / path).parent.mkdir(parents=True, exist_ok=True)
    (home / path).write_text(" ".join(words) + "\n", encoding="utf-8")
    return f"For this page a file `{path}` was written."


def _leave_open(notebook: Path, lesson: str, grade_id: str) -> None:
    released = nbformat.read(ROOT / "release" / lesson / f"{lesson}.ipynb", 4)
    nb = nbformat.read(notebook, 4)
    _cell(nb, grade_id).source = _cell(released, grade_id).source
    nbformat.write(nb, notebook)


def _cell(nb: nbformat.NotebookNode, grade_id: str) -> nbformat.NotebookNode:
    (found,) = (cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id)
    return found


def _course(home: Path) -> None:
    root = home / "course"
    root.mkdir()
    config = _CONFIG.format(root=str(root), exchange=str(home / "exchange"))
    (root / "nbgrader_config.py").write_text(config, encoding="utf-8")
    (home / "exchange").mkdir()
    (home / "exchange").chmod(0o1777)
    shutil.copytree(ROOT / "source" / "01_tensor", root / "source" / "01_tensor")
    (root / "course").mkdir()
    shutil.copyfile(ROOT / "course" / "leaderboard.ipynb", root / "course" / "leaderboard.ipynb")
    shutil.copyfile(ROOT / "course" / "deadlines.toml", root / "course" / "deadlines.toml")
