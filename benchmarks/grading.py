"""How fast a class is graded: nbgrader's own autograde and `tito grade` on the same submissions, in one run.

    python benchmarks/grading.py --json                       the ratio, and what a notebook costs
    python benchmarks/grading.py --students 200 --assignments 01_tensor 04_losses 09_spatial
                                                              a class with one in five hostile or broken
    python benchmarks/grading.py --rates                      1, 2 and 4 workers

nbgrader runs as it comes, in its own process, without a sandbox; ours runs through the real program, with the
strongest sandbox of this machine. The last line with --json is one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import nbformat  # noqa: E402
from nbgrader.api import Gradebook  # noqa: E402

from autograder import sandbox  # noqa: E402
from autograder.gradebook import judging, records  # noqa: E402
from autograder.notebooks import execute  # noqa: E402
from autograder.scratch import scratch_folder  # noqa: E402
from tests import chaos, classes  # noqa: E402
from tito.instructor import grading as instructor  # noqa: E402

CELL_S = 10.0  # a cell of these lessons takes less than one second


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the last line is JSON")
    parser.add_argument("--module", default="03_layers", help="whose submissions are raced")
    parser.add_argument("--submissions", type=int, default=40)
    parser.add_argument("--students", type=int, help="grade a class of so many instead")
    parser.add_argument("--assignments", nargs="+", default=["01_tensor", "04_losses", "09_spatial"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rates", action="store_true", help="rates with 1, 2 and 4 workers instead")
    options = parser.parse_args()
    with scratch_folder("class") as folder:
        if options.students:
            found = a_class(folder, options.assignments, options.students, options.workers)
        elif options.rates:
            found = rates(folder, options.module, options.submissions)
        else:
            found = race(folder, options.module, options.submissions, options.workers)
    print(json.dumps(found) if options.json else "")
    return 0 if not found.get("wrong") else 1


def race(folder: Path, module: str, submissions: int, workers: int) -> dict:
    """Both graders on the same honest and wrong submissions: seconds, ratio, and what a notebook costs."""
    course, handed = classes.make(folder / "ours", [module], submissions, hostile_every=submissions + 1)
    theirs = folder / "theirs"
    shutil.copytree(course.root, theirs)
    config = theirs / "nbgrader_config.py"
    text = config.read_text(encoding="utf-8").replace(str(course.root), str(theirs))
    config.write_text(text, encoding="utf-8")
    instructor.generate(course.root, module)
    shutil.copy(course.root / "gradebook.db", theirs)
    (theirs / "tinytorch").mkdir()
    package = execute.package_below(ROOT / "tinytorch", module, [module], theirs / "below")
    env = {**os.environ, "TITO_TINYTORCH": str(package), "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    first = run([sys.executable, "-m", "nbgrader", "autograde", module], theirs, env)
    second = tito_grade(course, [module], workers)
    agree = points_in(theirs, module) == points_in(course.root, module)
    wrong = wrong_ones(course, handed)
    print(f"{submissions} submissions of {module}, {os.cpu_count()} cores, sandbox {sandbox.choose()}")
    print(f"  nbgrader autograde  {first['seconds']:6.1f} s  {submissions / first['seconds']:5.2f} a second")
    print(
        f"  tito grade          {second['seconds']:6.1f} s  {submissions / second['seconds']:5.2f} a second"
    )
    print(f"  ratio {first['seconds'] / second['seconds']:.2f}; the same points: {'yes' if agree else 'no'}")
    costs = cost_of_a_notebook(course, module)
    for name, seconds in costs.items():
        print(f"  {name:<24} {seconds * 1000:7.0f} ms")
    paper = on_paper(costs)
    print(
        f"  on paper, 10,000 students and one lesson: {paper['judging_core_h']:.1f} core hours of judging, "
        f"{paper['writing_h']:.1f} h of one writer, which {paper['workers_a_writer']:.0f} workers keep busy"
    )
    return {
        "paper": paper, "ratio": round(first["seconds"] / second["seconds"], 3), "submissions": submissions,
        "module": module,
        "nbgrader_s": first["seconds"], "tito_s": second["seconds"], "same_points": agree, "wrong": wrong,
        "level": sandbox.choose(), "workers": workers, "cost_s": costs,
    }  # fmt: skip


def cost_of_a_notebook(course: judging.Course, module: str) -> dict[str, float]:
    """Seconds of one submission, one at a time: start, imports, cells, gradebook (the median of five)."""
    level = sandbox.choose()
    package = judging.package(course, module)
    whole = nbformat.read(course.source(module), 4)
    empty = copy.deepcopy(whole)
    empty.cells = []
    common = judging.assignment_hashes(course, module, judging.Settings(level, cell_s=CELL_S))
    students = course.students(module)
    keys = [judging.key_of(s, module, judging.hashes_of(course, s, module, common)) for s in students]
    pairs = zip(course.students(module), keys, strict=True)
    known = [judging.found(course, student, module, key) for student, key in pairs]

    def median(work) -> float:
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
        return sorted(times)[2]

    nothing = sandbox.Program([sys.executable, "-I", "-S", "-c", "pass"], level=level)
    start = median(lambda: sandbox.run(nothing))
    started = median(lambda: execute.run_notebook(empty, tinytorch_dir=package, level=level))
    ran = median(lambda: execute.run_notebook(whole, tinytorch_dir=package, level=level))
    recorded = median(lambda: records.write(course, module, known[:10])) / min(10, len(known))
    return {
        "start of a sandbox": start,
        "imports (two processes)": started - start,
        "cells": ran - started,
        "into the gradebook": recorded,
    }


def on_paper(costs: dict[str, float], students: int = 10_000) -> dict[str, float]:
    """A large class from what one notebook costs: what is judged, what is written, who waits."""
    writing = costs["into the gradebook"]
    judging_s = sum(costs.values()) - writing
    return {
        "judging_core_h": round(students * judging_s / 3600, 2),
        "writing_h": round(students * writing / 3600, 2),
        "workers_a_writer": round(judging_s / writing, 1),
    }


def rates(folder: Path, module: str, submissions: int) -> dict:
    """Submissions a second with 1, 2 and 4 workers, each on a fresh course."""
    found = {}
    for workers in (1, 2, 4):
        course, _ = classes.make(folder / str(workers), [module], submissions, hostile_every=submissions + 1)
        instructor.generate(course.root, module)
        done = tito_grade(course, [module], workers)
        found[workers] = round(submissions / done["seconds"], 3)
        print(f"{workers} workers: {found[workers]:.2f} a second ({done['seconds']:.1f} s)", flush=True)
    return {"rates": found, "submissions": submissions, "module": module, "cores": os.cpu_count()}


def a_class(folder: Path, assignments: list[str], students: int, workers: int) -> dict:
    """A class with one in five hostile or broken: everything graded, nothing wrong, memory and time."""
    course, handed = classes.make(folder / "course", assignments, students)
    for name in assignments:
        instructor.generate(course.root, name)
    done = tito_grade(course, assignments, workers)
    wrong = wrong_ones(course, handed)
    again = tito_grade(course, assignments, workers)
    bad = sum(one.kind in classes.HOSTILE or one.kind in classes.BROKEN for one in handed)
    rate = len(handed) / done["seconds"]
    print(f"{len(handed)} submissions, {students} students, {bad} of them broken or hostile")
    print(f"  graded in {done['seconds']:.0f} s, {rate:.2f} a second, {workers} workers")
    print(f"  most memory of the grader and all it started: {done['peak'] / 1e6:.0f} MB")
    print(f"  wrong: {len(wrong)}; the same command again: {again['seconds']:.1f} s")
    for line in wrong[:20]:
        print(f"    {line}")
    return {
        "submissions": len(handed), "hostile": bad, "seconds": done["seconds"], "again_s": again["seconds"],
        "rate": round(rate, 3), "peak_bytes": done["peak"], "wrong": wrong,
        "level": sandbox.choose(), "workers": workers,
    }  # fmt: skip


def tito_grade(course: judging.Course, assignments: list[str], workers: int) -> dict:
    """`tito grade` as a user runs it."""
    code = (
        "import sys; from pathlib import Path; from autograder import sandbox\n"
        "from autograder.gradebook import batch, judging\n"
        f"course = judging.Course(Path({str(course.root)!r}), Path({str(course.package)!r}))\n"
        f"settings = judging.Settings(sandbox.choose(), cell_s={CELL_S})\n"
        "if __name__ == '__main__':\n"
        f"    batch.grade(course, {assignments!r}, settings, workers={workers})\n"
    )
    return run([sys.executable, "-c", code], course.root, {**os.environ, "PYTHONPATH": str(ROOT)})


def run(command: list[str], folder: Path, env: dict[str, str]) -> dict:
    """Run to the end; seconds and the most memory that it and all it started held together."""
    begin, peak = time.perf_counter(), [0]
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            peak[0] = max(peak[0], memory_below(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, said = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{command[:4]} failed: {said.decode()[-2000:]}")
    return {"seconds": round(time.perf_counter() - begin, 2), "peak": peak[0]}


def memory_below(pid: int) -> int:
    """Proportional bytes of a process and its descendants; a page that two share counts half in each."""
    total = 0
    for one in (pid, *chaos.descendants(pid)):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def points_in(root: Path, assignment: str) -> dict[str, float]:
    """What the gradebook says."""
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        return {s.student.id: round(s.score, 6) for s in gradebook.assignment_submissions(assignment)}


def wrong_ones(course: judging.Course, handed: list[classes.Handed]) -> list[str]:
    """Submissions without a grade, or with another than they are worth, one line each."""
    points = {name: points_in(course.root, name) for name in {one.assignment for one in handed}}
    return [
        f"{one.assignment} {one.student} ({one.kind}): expected {one.points:g}, got "
        f"{points[one.assignment].get(one.student)}"
        for one in handed
        if points[one.assignment].get(one.student) != one.points
    ]


if __name__ == "__main__":
    sys.exit(main())
