"""`tito demo`: the whole main job, offline, on a class of six: from the lessons to a leaderboard.

The class is generated at run time: a full solution, a wrong gradient in Conv2d, one who stops at module 05,
the untouched release, a notebook that crashes its kernel, and one that tries to forge its score.
"""

from __future__ import annotations

import ast
import json
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import nbformat
import numpy as np
import typer
from nbformat import NotebookNode

from autograder import leaderboard, sandbox
from autograder.data import datasets, tokenizer
from autograder.files import write_text
from autograder.gradebook import batch, judging, records
from autograder.notebooks.rebuild import grade_id
from autograder.scratch import scratch_folder
from tito import progress
from tito.doctor import machine
from tito.errors import TitoError
from tito.instructor import grading as instructor
from tito.package.exporter import export_notebook, export_text, is_export
from tito.package.names import MODULES, NAMES
from tito.student import olympics, workspace

_HEART = progress.Heart(lambda line: print(line, file=sys.stderr))  # no step is silent for long
REPOSITORY = Path(__file__).resolve().parents[1]
MODULES_GRADED = ("05_autograd", "09_spatial")
TRACKS = ("vision", "language", "speed", "compression")
TRAINED = ("vision", "language", "compression")  # in speed the class runs the course's model, closed division
SHORT_CLASS = ("ada", "vic")  # one who does all, one who forges
LATE = "emmy"  # hands in her tracks when the others have their grades already
DIALOGUES, ROW = 1500, 64  # of TinyTalks, for the small GPT of the class; tokens of a row
CRASH = "import os\n\nos._exit(1)\n"
FORGERY = """
import sys
import numpy as np

np.allclose = lambda *arguments, **options: True
np.testing.assert_allclose = lambda *arguments, **options: None
sys.displayhook = lambda value: None
get_ipython().set_custom_exc((Exception,), lambda *arguments, **options: None)
"""


@dataclass(frozen=True)
class Student:
    """One of the class. `solves` decides which lessons are solved, `change` spoils what was solved."""

    name: str
    board: str  # the pseudonym on the leaderboard
    what: str
    solves: Callable[[str], bool]
    change: Callable[[str, NotebookNode], None] = lambda lesson, nb: None
    trains: bool = False
    forges: bool = False


def demo(
    folder: Annotated[Path, typer.Argument(help="Where the course of the demo goes; made anew.")] = Path(
        "demo"
    ),
    everything: Annotated[bool, typer.Option("--all", help="Grade all modules, not only 05 and 09.")] = False,
    build: Annotated[bool, typer.Option(help="Build the lessons first.")] = True,
    short: Annotated[
        bool, typer.Option(help="One lesson, one track, a class of two: a minute, to try a machine.")
    ] = False,
    level: Annotated[str | None, typer.Option(help=sandbox.HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON at the end.")] = False,
) -> None:
    """Run the main job on a generated class of six: release, collect, grade, export, leaderboard."""
    _HEART.on("looking at this machine")
    with progress.beating(_HEART):
        _play(folder, everything, build, short, level, as_json)


def _play(folder: Path, everything: bool, build: bool, short: bool, level: str | None, as_json: bool) -> None:
    begin = time.perf_counter()
    if workspace.repository() is None:
        raise TitoError("the demo plays in a clone of the course, and this tito runs without one")
    if not as_json:
        print("\n".join(machine.short(machine.look(["grading"]))))
    chosen = sandbox.choose(level)
    instructor.warn_level(chosen)
    if build:
        _step("build", begin)
        _build()
    root = _clear(folder.resolve())
    _step("release", begin)
    lessons = sorted(path.name for path in (root / "source").iterdir())
    modules = [name for name in lessons if name[:2].isdigit()]
    students = [student for student in CLASS if student.name in SHORT_CLASS or not short]
    graded = [name for name in modules if everything or name in MODULES_GRADED[: 1 if short else None]]
    graded += [track for track in TRACKS[: 1 if short else None] if track in lessons]
    for assignment in graded:
        instructor.generate(root, assignment)
    _step(f"a class of {len(students)}", begin)
    with scratch_folder("class") as scratch:
        for student in students:
            work = hand_in(student, root, graded, modules, scratch, chosen)
            _submit(work, student.name, graded, root)
    (root / "pseudonyms.csv").write_text(
        "student,pseudonym\n" + "".join(f"{student.name},{student.board}\n" for student in students),
        encoding="utf-8",
    )
    place = judging.Course(root, REPOSITORY / "tinytorch")
    _enrol(place, students)
    settings = judging.Settings(chosen, "digits", cell_s=30)
    late = students[-1].name if short else LATE
    early = [student.name for student in students if student.name != late]
    for assignment in graded:
        _step(f"collect and grade {assignment}", begin)
        _, refused, stopped = instructor.collected(root, assignment)
        if stopped:
            raise TitoError(f"{stopped}: {refused[0]}")
        batch.grade(place, assignment, settings, students=early)
    before = scores_of(publish(place)[0])
    _step(f"a late entry: {late}", begin)
    found: list[Any] = []
    for assignment in graded:  # what has its grade already is not measured again
        found += batch.grade(place, assignment, settings)
    _step("export and leaderboard", begin)
    results, page = publish(place)
    after = scores_of(results)
    moved = [entry for entry, points in before.items() if after.get(entry) != points]
    if moved:
        raise TitoError(f"tito demo: a new entry moved the scores of {', '.join(map(' in '.join, moved))}")
    seconds = time.perf_counter() - begin
    if as_json:
        rows = [instructor._plain(judgement) for judgement in found]
        print(json.dumps({"grades": rows, "results": str(results), "page": str(page), "level": chosen,
                               "unmoved": len(before), "seconds": round(seconds, 1)}))  # fmt: skip
        return
    for line in [*table(found, graded, students), *newcomer(before, after)]:
        print(line)
    print(f"\nresults        {results}")
    print(f"leaderboard    {page}")
    print(f"sandbox level  {chosen}")
    print(f"{seconds:.0f} s")


def publish(place: judging.Course) -> tuple[Path, Path]:
    """Export the course's results and make its leaderboard page."""
    from nbgrader.api import Gradebook

    from autograder.leaderboard import export

    with Gradebook(records.nbgrader_config(place).CourseDirectory.db_url) as gradebook:
        results, _ = export.write(export.collect(place, gradebook), place.root / "results.json")
        export.write(export.collect(place, gradebook, names="id"), place.root / "grades.json")
    return results, leaderboard.render(results, place.root / "leaderboard.html")


def scores_of(results: Path) -> dict[tuple[str, str], float]:
    """(name, track) -> score of 100, of every entry that an export holds."""
    entries = json.loads(results.read_text(encoding="utf-8"))["entries"]
    return {(entry["name"], entry["track"]): entry["points"] for entry in entries if entry["track"]}


def newcomer(before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> list[str]:
    """What the late entries changed on the board: themselves, and no score of another."""
    new = [f"{name} {track} {after[name, track]:g}" for name, track in after if (name, track) not in before]
    kept = [f"{name} {track} {points:g}" for (name, track), points in before.items() if points]
    lines = [f"New on the board after the others: {', '.join(new) or 'nothing that may stand there'}."]
    lines.append(
        f"Scores of the {len(before)} entries before them, unmoved: {', '.join(kept)}; 0 the others."
    )
    return ["", *(part for line in lines for part in textwrap.wrap(line, 108, subsequent_indent="  "))]


def _enrol(place: judging.Course, students: Sequence[Student]) -> None:
    """The class into the gradebook, so that formgrader shows names."""
    from nbgrader.api import Gradebook

    with Gradebook(records.nbgrader_config(place).CourseDirectory.db_url) as gradebook:
        for student in students:
            gradebook.update_or_create_student(student.name, first_name=student.board, last_name="Demo")


def table(judgements: Sequence[Any], graded: Sequence[str], students: Sequence[Student]) -> list[str]:
    """The class as text: what each student did, points an assignment, and why points were lost."""
    lines = ["", f"{'student':<8}" + "".join(f"{name:>18}" for name in graded)]
    for student in students:
        own = {j.assignment: j for j in judgements if j.student == student.name}
        cells = [
            f"{own[name].points:g} of {own[name].max_points:g}" if name in own else "-" for name in graded
        ]
        lines.append(f"{student.name:<8}" + "".join(f"{cell:>18}" for cell in cells))
    for student in students:
        lines += ["", f"{student.name}: {student.what}"]
        for judgement in judgements:
            if judgement.student == student.name:
                lost = [*judgement.notes, *instructor.grouped(judgement)]
                for line in lost:
                    lines += textwrap.wrap(f"{judgement.assignment}  {line}", 108, initial_indent="  ",
                                           subsequent_indent=" " * 8)  # fmt: skip
    return lines


# ---- the class


def _solve_all(lesson: str) -> bool:
    return True


def _up_to_05(lesson: str) -> bool:
    return lesson[:2].isdigit() and lesson[:2] <= "05"


def _none(lesson: str) -> bool:
    return False


def _wrong_gradient(lesson: str, nb: NotebookNode) -> None:
    if lesson == "09_spatial":
        for cell in nb.cells:
            if grade_id(cell) == "conv2d-input-gradient":
                cell.source = _turn_kernel(cell.source)


def _turn_kernel(source: str) -> str:
    """The solved cell, with the kernel that its last call takes turned by half a circle: a usual mistake.

    The solution is not quoted here, since students install this file.
    """
    calls = [node.value for node in ast.walk(ast.parse(source))
             if isinstance(node, ast.Return) and isinstance(node.value, ast.Call)]  # fmt: skip
    if not calls or len(calls[-1].args) < 2:
        raise TitoError("tito demo: the solution of conv2d-input-gradient has changed; see demo._turn_kernel")
    kernel = calls[-1].args[1]
    before = source.splitlines(keepends=True)[: (kernel.end_lineno or 1) - 1]
    end = len("".join(before)) + (kernel.end_col_offset or 0)
    return source[:end] + "[:, :, ::-1, ::-1]" + source[end:]


def _crash(lesson: str, nb: NotebookNode) -> None:
    answers = [cell for cell in nb.cells if _is_answer(cell)]
    if answers:
        answers[len(answers) // 2].source += "\n\n" + CRASH


def _forge(lesson: str, nb: NotebookNode) -> None:
    answers = [cell for cell in nb.cells if _is_answer(cell)]
    for cell in answers:
        cell.source = _stub(cell.source)
    if answers:
        answers[0].source = FORGERY + "\n" + answers[0].source
    for cell in nb.cells:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            cell.metadata.tags = ["skip-execution", "measure"]
    nb.cells = [cell for i, cell in enumerate(nb.cells) if not (_is_test(cell) and i % 2)]


CLASS = (
    Student("ada", "Ada", "the full solution", _solve_all, trains=True),
    Student("emmy", "Emmy", "a wrong gradient of Conv2d's input", _solve_all, _wrong_gradient, trains=True),
    Student("kurt", "Kurt", "stops at module 05", _up_to_05),
    Student("max", "Max", "hands in the untouched release", _none),
    Student("mary", "Mary", "a cell ends the kernel", _solve_all, _crash),
    Student("vic", "Vic", "forges: hooks, patched NumPy, skipped and deleted tests, a pickle as model",
            _solve_all, _forge, forges=True),
)  # fmt: skip


def hand_in(
    student: Student, root: Path, graded: Sequence[str], modules: Sequence[str], scratch: Path, level: str
) -> Path:
    """Make what a student hands in: a folder for each graded assignment; returns the folder above."""
    work = scratch / student.name
    notebooks = {}
    for lesson in dict.fromkeys([*modules, *graded]):
        kind = "source" if student.solves(lesson) else "release"
        path = root / kind / lesson / f"{lesson}.ipynb"
        if not path.exists():
            continue
        nb = nbformat.read(path, as_version=4)
        if kind == "source":
            _as_student(nb)
            student.change(lesson, nb)
        target = work / lesson / path.name
        target.parent.mkdir(parents=True)
        nbformat.write(nb, target)
        notebooks[lesson] = target
    tracks = [track for track in TRACKS if track in graded]
    if not tracks or not (student.trains or student.forges):
        return work
    if student.trains:
        package = work / "package" / "tinytorch"
        for lesson in modules:
            export_notebook(notebooks[lesson], package, MODULES, NAMES)
        trained = train(package, level, [track for track in TRAINED if track in tracks])
    for track in tracks:
        folder = work / track
        nb = nbformat.read(notebooks[track], as_version=4)
        if any(is_export(cell) for cell in nb.cells):
            write_text(folder / "network.py", export_text(nb, file=f"{track}.ipynb", lesson=track))
        if student.trains:
            shutil.copytree(package, folder / "tinytorch")
            for path in (trained / track).iterdir():
                shutil.copyfile(path, folder / path.name)
        else:
            _fake(folder)
    return work


def train(package: Path, level: str, tracks: Sequence[str] = TRAINED) -> Path:
    """Train on digits and dialogues with a student's own tinytorch, in the sandbox; a folder a track."""
    script = Path(__file__).with_name("demo_training.py")
    place = package.parent
    data, results, given = place / "data.npz", place / "trained", olympics.given("speed")
    split = datasets.load("digits", "train")
    words = tokenizer.load((given / olympics.TOKENIZER).resolve())  # a link to the language entry
    ids: list[int] = []
    for dialogue in datasets.load_text("tinytalks", "train").dialogues[:DIALOGUES]:
        ids += [words.end, *words.encode(dialogue.text)]
    rows = np.array(ids[: len(ids) // (ROW + 1) * (ROW + 1)]).reshape(-1, ROW + 1)
    np.savez(data, images=split.images, labels=split.labels, rows=rows, vocabulary=words.vocab_size)
    for track in tracks:
        (results / track).mkdir(parents=True)
    training = sandbox.Program(
        [sys.executable, "-P", str(script), str(data), str(results), "7", *tracks],
        readable=[script, data], writable=[results], importable=[package], level=level,
        env={"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
        limits=sandbox.Limits(wall_s=900, memory_bytes=2_000_000_000),
    )  # fmt: skip
    done = sandbox.run(training)
    if done.returncode or done.reason:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise TitoError(f"tito demo: training failed: {done.reason or (said[-1] if said else 'no output')}")
    if "language" in tracks:
        shutil.copyfile(given / olympics.TOKENIZER, results / "language" / olympics.TOKENIZER)
    (results / "speed").mkdir()  # the course's own entry, which declares the closed division
    for name in (olympics.MODEL, olympics.TOKENIZER, "training.json"):
        shutil.copyfile(given / name, results / "speed" / name)
    return results


def _fake(folder: Path) -> None:
    """A pickle that calls itself a model: unpickling it would run code."""
    (folder / "tinytorch").mkdir()
    (folder / "tinytorch" / "__init__.py").write_text("accuracy = 1.0\n", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(
        b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system"
    )
    (folder / "training.json").write_text('{"seconds": 1, "epochs": 1, "history": []}', encoding="utf-8")


def _as_student(nb: NotebookNode) -> None:
    """Solutions as a student writes them: without the markers and without our outputs."""
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if cell.metadata.get("nbgrader", {}).get("solution"):
            lines = [line for line in cell.source.splitlines() if "# BEGIN SOLUTION" not in line
                     and "# END SOLUTION" not in line]  # fmt: skip
            cell.source = "\n".join(lines)


def _is_answer(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.metadata.get("nbgrader", {}).get("solution"))


def _is_test(cell: NotebookNode) -> bool:
    meta = cell.metadata.get("nbgrader", {})
    return bool(meta.get("grade")) and not meta.get("solution")


def _stub(source: str) -> str:
    """The answer of one who has none: each function gives back what it was given."""
    import ast

    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            given = [argument.arg for argument in node.args.args if argument.arg != "self"]
            node.body = [ast.Return(ast.Name(given[0] if given else "None", ast.Load()))]
    return ast.unparse(ast.fix_missing_locations(tree))


# ---- the course on disk


def _build() -> None:
    from tito.build.build import build

    build(REPOSITORY, report=lambda line: _HEART.say(f"  {line}"))


def _clear(root: Path) -> Path:
    """A fresh course folder with the source notebooks; refuses to delete a folder that is no demo."""
    if root.exists() and any(root.iterdir()) and not (root / ".tito-demo").exists():
        raise TitoError(f"{root} is not empty and no demo of before: name another folder")
    if root.exists():
        for path in root.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(root)
    root.mkdir(parents=True)
    (root / ".tito-demo").touch()
    for path in sorted((REPOSITORY / "source").glob("*/*.ipynb")):
        (root / "source" / path.parent.name).mkdir(parents=True)
        shutil.copyfile(path, root / "source" / path.parent.name / path.name)
    if not (root / "source").is_dir():
        raise TitoError("there is no source/ yet: run `tito build` first")
    text = (REPOSITORY / "nbgrader_config.py").read_text(encoding="utf-8")
    text += f"\nc.Exchange.root = {str(root / 'exchange')!r}\n"
    text += 'c.Judged.dataset = "digits"  # offline\n'
    text += "c.ExchangeCollect.check_owner = False  # one user plays the class\n"
    (root / "nbgrader_config.py").write_text(text, encoding="utf-8")
    (root / "release").mkdir()
    for path in sorted((REPOSITORY / "release").glob("*/*.ipynb")):
        shutil.copytree(path.parent, root / "release" / path.parent.name, dirs_exist_ok=True)
    return root


def _submit(work: Path, student: str, graded: Sequence[str], root: Path) -> None:
    """Into the exchange, as nbgrader's submit lays it out: <student>+<assignment>+<time>+<random>."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    inbound = root / "exchange" / "torch-olympics" / "inbound"
    inbound.mkdir(parents=True, exist_ok=True)
    for assignment in graded:
        target = inbound / f"{student}+{assignment}+{stamp}+demo"
        shutil.copytree(work / assignment, target)
        (target / "timestamp.txt").write_text(stamp, encoding="utf-8")


def _step(text: str, begin: float) -> None:
    _HEART.on(text)
    _HEART.say(f"[{time.perf_counter() - begin:5.1f} s] {text}")
