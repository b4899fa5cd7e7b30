"""`python -m tests.chaos [--rounds 20]`: `tito grade` is killed at random moments, and nothing is lost.

Each round grades the same small class in a fresh course. A victim (the coordinator, a worker, a process of a
sandbox, or the whole tree) gets SIGKILL after a random time, up to three times; then the same command runs
to its end. The gradebook, and the files beside it, must equal those of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook

from autograder.course import Course
from autograder.gradebook.records import load_record
from autograder.scratch import scratch_folder
from tests.mutants import ROOT
from tests.notebook_cells import answer, check, essay, notebook
from tito.instructor import grading as instructor

LESSON = "01_tiny"
SOURCE = notebook(
    answer("f", "def f(x):\n    ### BEGIN SOLUTION\n    return x + 1\n    ### END SOLUTION"),
    check("test-f", "assert f(1) == 2, f'f(1): expected 2, got {f(1)}'", 2),
    check("test-more", "assert f(7) == 8, 'look at f'", 3),
    essay("why", "Say why.", 5),
)
ANSWERS = (
    "def f(x):\n    return x + 1",
    "def f(x):\n    return 2",
    "def f(x):\n    return x",
    "import os\nos._exit(1)",
    "import time\ntime.sleep(0.5)\ndef f(x):\n    return x + 1",
)
VICTIMS = ("coordinator", "worker", "sandbox", "tree")


def make(root: Path, students: int) -> Course:
    """A course of one tiny lesson, and a class that has handed it in."""
    (root / "source" / LESSON).mkdir(parents=True)
    nbformat.write(SOURCE, root / "source" / LESSON / f"{LESSON}.ipynb")
    (root / "nbgrader_config.py").write_text(
        'c = get_config()\nc.CourseDirectory.course_id = "tiny"\n'
        'c.ClearSolutions.code_stub = {"python": "raise NotImplementedError()"}\n'
    )
    (root / "tinytorch").mkdir()
    (root / "tinytorch" / "__init__.py").write_text("")
    instructor.generate(root, LESSON)
    course = Course.at(root)
    for k in range(students):
        nb = nbformat.from_dict({**SOURCE})
        cells = [cell.copy() for cell in SOURCE.cells]
        cells[0]["source"] = f"{ANSWERS[k % len(ANSWERS)]}\n# {k}"
        nb.cells = cells
        folder = course.submitted(f"s{k:02d}", LESSON)
        folder.mkdir(parents=True)
        nbformat.write(nb, folder / f"{LESSON}.ipynb")
        (folder / "timestamp.txt").write_text("2026-11-20 10:00:00 UTC")
    return course


def grade(course: Course) -> subprocess.Popen[bytes]:
    """Start `tito grade` as a user does, as the head of a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "tito",
        "grade",
        LESSON,
        "--course",
        str(course.root),
        "--workers",
        "2",
        "--json",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def state(course: Course) -> dict[str, object]:
    """What a run leaves: every grade in the gradebook, the records, and which files lie in autograded/."""
    found: dict[str, object] = {}
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        for submission in gradebook.assignment_submissions(LESSON):
            for book in submission.notebooks:
                for one in book.grades:
                    key = f"{submission.student.id}/{one.name}"
                    if key in found:
                        raise AssertionError(f"{key} is in the gradebook twice")
                    found[key] = (one.auto_score, one.manual_score, one.max_score, one.needs_manual_grade)
    for student in course.students(LESSON):
        record = load_record(course, student, LESSON)
        found[f"{student}/record"] = record and [(c.grade_id, c.points, c.reason) for c in record.cells]
    files = (course.root / "autograded").rglob("*")
    found["files"] = sorted(str(path.relative_to(course.root)) for path in files if path.is_file())
    found["left over"] = sorted(path.name for path in course.grading.glob("stage-*"))
    return found


def kill(process: subprocess.Popen[bytes], victim: str, rng: random.Random) -> None:
    """SIGKILL to one kind of process of a running `tito grade`."""
    below = descendants(process.pid)
    chosen = {
        "coordinator": [process.pid],
        "tree": [process.pid, *below],
        "worker": [pid for pid in below if "multiprocessing" in command_of(pid)],
        "sandbox": [pid for pid in below if "supervisor.py" in command_of(pid) or "bwrap" in command_of(pid)],
    }[victim]
    if victim in ("worker", "sandbox") and chosen:
        chosen = [rng.choice(chosen)]
    for pid in chosen:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def one_round(course: Course, rng: random.Random, seconds: float) -> list[str]:
    """Disturb up to three runs, then let one end; says what was done."""
    told = []
    for _ in range(rng.randint(1, 3)):
        victim, moment = rng.choice(VICTIMS), rng.uniform(0.2, 1.1) * seconds
        process = grade(course)
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            kill(process, victim, rng)
            told.append(f"{victim} at {moment:.1f} s")
        process.communicate()
        if not told:  # it has ended before: nothing was disturbed
            return []
    last = grade(course)
    _, said = last.communicate()
    if last.returncode:
        raise AssertionError(f"after {', '.join(told)}: exit {last.returncode}: {said.decode()[-500:]}")
    return told


def descendants(pid: int) -> list[int]:
    """Every live process below one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, stack = [], [pid]
    while stack:
        below = children.get(stack.pop(), [])
        found += below
        stack += below
    return found


def command_of(pid: int) -> str:
    """A process's command line, "" where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def main() -> int:
    """Run the rounds and say what happened in each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--students", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with scratch_folder("chaos") as folder:
        course = make(folder / "undisturbed", options.students)
        fresh = folder / "fresh"
        shutil.copytree(course.root, fresh)
        begin = time.monotonic()
        process = grade(course)
        if process.communicate()[1] and process.returncode:
            return 1
        seconds, wanted = time.monotonic() - begin, state(course)
        print(f"undisturbed: {seconds:.1f} s, {len(wanted)} facts", flush=True)
        failed = 0
        for number in range(1, options.rounds + 1):
            root, told = folder / f"round-{number}", []
            while not told:  # the machine may be quicker than it was
                shutil.rmtree(root, ignore_errors=True)
                shutil.copytree(fresh, root)
                told = one_round(Course.at(root), rng, seconds)
                seconds *= 1.0 if told else 0.8
            found = state(Course.at(root))
            equal = found == wanted
            failed += not equal
            for key in sorted(found.keys() | wanted.keys()):
                if found.get(key) != wanted.get(key):
                    print(f"    {key}: {found.get(key)} instead of {wanted.get(key)}")
            print(f"round {number}: killed {'; '.join(told)}: "
                  f"{'equal' if equal else 'DIFFERENT'}", flush=True)  # fmt: skip
            shutil.rmtree(root)
    print(f"{options.rounds} rounds, {failed} with another gradebook")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
