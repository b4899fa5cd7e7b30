"""Grade a class: jobs on dask.distributed, one writer into the gradebook, and every step can be killed.

A job is one submission, keyed by the hash of submission, assignment and grader. Workers judge it in the
sandbox and leave the judgement as a file; this process, the only writer, brings judgements into nbgrader's
gradebook as they come. What is there already is not done again: the same command goes on after any end.

Lessons come first, as many at a time as there are workers. Tracks are timed: they follow, one at a time on a
host (the Dask resource `timed`, and a lock file of that host), when nothing else of ours runs.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder import sandbox, trusted
from autograder.course import Course, Settings
from autograder.errors import GradingError, Missing, command
from autograder.gradebook import deadlines, judging, records
from autograder.gradebook.judging import Judgement
from autograder.needs import need
from autograder.scoring import rules
from autograder.scratch import scratch_folder

CHUNK = 8  # judgements that are brought into the gradebook together, while others are judged
TIMED = "timed"  # the Dask resource of a slot where nothing else runs
Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """One submission to be judged, with the hashes of all that its judgement depends on."""

    assignment: str
    student: str
    hashes: dict[str, str]

    @property
    def key(self) -> str:
        """The name of its judgement."""
        return judging.key_of(self.student, self.assignment, self.hashes)


@dataclass
class _Run:
    """What a batch has done so far."""

    total: int
    progress: Progress
    begun: float = field(default_factory=time.monotonic)
    judged_now: int = 0
    to_judge: int = 0
    done: dict[tuple[str, str], Judgement] = field(default_factory=dict)

    def tell(self, event: str, judgement: Judgement, **more: Any) -> None:
        left = None
        if self.judged_now and self.to_judge > self.judged_now:
            rate = (time.monotonic() - self.begun) / self.judged_now
            left = round(rate * (self.to_judge - self.judged_now), 1)
        self.progress(
            {"event": event, "assignment": judgement.assignment, "student": judgement.student,
             "points": judgement.points, "max_points": judgement.max_points, "done": len(self.done),
             "total": self.total, "seconds_left": left, **more}
        )  # fmt: skip


def grade(
    course: Course,
    assignments: str | Sequence[str],
    settings: Settings,
    *,
    students: Sequence[str] | None = None,
    force: bool = False,
    workers: int = 2,
    scheduler: str | None = None,
    progress: Progress = lambda event: None,
) -> list[Judgement]:
    """Grade the collected submissions of one or more assignments into the gradebook; one Judgement each.

    What was graded before and has not changed is left alone, unless `force`. Marks given by hand stay.
    workers: processes of this machine; scheduler: the address of a running Dask cluster instead, which sees
    the course's folder under the same name. progress: gets an event, a dict of JSON types, for each step.
    Raises GradingError, Missing or a sandbox error when nothing can be graded at all, never for one
    submission.
    """
    need("distributed")  # for two submissions or more; said before the first
    names = [assignments] if isinstance(assignments, str) else list(dict.fromkeys(assignments))
    sandbox.require(settings.level)
    for assignment in names:
        if not course.source(assignment).is_file():
            raise GradingError(
                f"{course.source(assignment)} is missing: expected an assignment that was released."
            )
    if scheduler is None and any(map(_timed, names)):
        os.close(_host_lock())  # said before the first is judged
    with _locked(course):
        for left in course.grading.glob("stage-*"):  # of a run that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        jobs = [job for name in sorted(names, key=_timed) for job in _jobs(course, name, settings, students)]
        if not jobs:
            raise GradingError(
                f"No submission of {', '.join(names)} in {course.root / 'submitted'}: run "
                f"{command('tito', 'collect', names[0])} first."
            )
        run = _Run(len(jobs), progress)
        writer = _Writer(course, settings, force, run)
        todo: dict[str, list[Job]] = {}  # who hands in the same bytes shares the judgement
        for job in jobs:
            if judging.path_of(course, job.key).exists() and not force:
                writer.take(job)
            else:
                todo.setdefault(job.key, []).append(job)
        writer.flush()
        run.to_judge, run.begun = len(todo), time.monotonic()
        for timed in (False, True):
            part = [same for same in todo.values() if _timed(same[0].assignment) == timed]
            for same, failure in _judged(course, part, settings, force, workers, scheduler, timed):
                run.judged_now += 1
                for job in same:
                    writer.take(job, failure)
            writer.flush()
    return [run.done[job.assignment, job.student] for job in jobs]


class _Writer:
    """Brings judgements into the gradebook, some at a time."""

    def __init__(self, course: Course, settings: Settings, force: bool, run: _Run) -> None:
        self.course, self.settings, self.force, self.run = course, settings, force, run
        self.deadlines = deadlines.load(course.root)
        self._waiting: list[Judgement] = []

    def take(self, job: Job, failure: str = "") -> None:
        """One judged job, or one that the grader itself failed on."""
        if failure:
            note = f"The grader failed on this submission ({failure}); nothing was graded."
            lost = Judgement(job.student, job.assignment, "", self.settings.level, [], [note], stopped=note)
            self.run.done[job.assignment, job.student] = lost
            self.run.tell("failed", lost, reason=failure)
            return
        judgement = None if self.force else records.current(self.course, job.student, job.assignment, job.key)
        if judgement is not None:
            self.run.done[job.assignment, job.student] = judgement
            self.run.tell("unchanged", judgement)
            return
        judgement = judging.found(self.course, job.student, job.assignment, job.key)
        record = records.load_record(self.course, job.student, job.assignment)
        kept = deadlines.attempt_counts(self.course, self.deadlines, judgement, record)
        if record is not None and kept:
            if kept not in record.notes:
                record.notes.append(kept)
                records.record(self.course, record)
            self.run.done[job.assignment, job.student] = record
            self.run.tell("kept", record, reason=kept)
            return
        self.run.done[job.assignment, job.student] = judgement
        self.run.tell("judged", judgement)
        if self._waiting and self._waiting[0].assignment != job.assignment:
            self.flush()
        self._waiting.append(judgement)
        if len(self._waiting) >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            records.write(self.course, waiting[0].assignment, waiting)
        for judgement in waiting:
            judgement.notebook = None  # on disk by now; a class of them is large
            self.run.tell("recorded", judgement)


def _timed(assignment: str) -> bool:
    return assignment in rules.TRACKS


def _jobs(
    course: Course, assignment: str, settings: Settings, students: Sequence[str] | None
) -> Iterator[Job]:
    common = judging.assignment_hashes(course, assignment, settings)
    for student in course.students(assignment):
        if students is None or student in students:
            yield Job(assignment, student, judging.hashes_of(course, student, assignment, common))


def _judged(
    course: Course,
    groups: list[list[Job]],
    settings: Settings,
    force: bool,
    workers: int,
    scheduler: str | None,
    timed: bool,
) -> Iterator[tuple[list[Job], str]]:
    """Judge one of each group; yields groups as they are done, with the grader's failure or ""."""
    if not groups:
        return
    grader = trusted.grader()
    if scheduler is None and (len(groups) == 1 or timed):  # a cluster of one would only cost its start
        for same in groups:
            yield same, judge_job(course, same[0], settings, force, grader)
        return
    need("distributed")
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    with _client(workers, scheduler) as client:
        futures = {
            client.submit(
                judge_job, course, same[0], settings, force, grader,
                key=f"{same[0].assignment}-{same[0].key}", pure=False, retries=0,
                resources={TIMED: 1} if timed else None,
            ): same
            for same in groups
        }  # fmt: skip
        for future in as_completed(futures, loop=client.loop):
            try:
                failure = future.result()
            except KilledWorker:
                failure = "the process that judged it was killed again and again"
            yield futures.pop(future), failure


def judge_job(course: Course, job: Job, settings: Settings, force: bool, grader: str) -> str:
    """One job, in a worker: the judgement is left on disk. Returns why the grader failed, or ""."""
    if trusted.grader() != grader:
        return "this worker has another version of the grader: start it from the same checkout"
    try:
        with _host_slot() if _timed(job.assignment) else ExitStack():
            judging.judge(course, job.student, job.assignment, settings, force=force, hashes=job.hashes)
    except Exception as error:  # ours to mend; the class goes on, and the student is not at fault
        logging.getLogger(__name__).exception("judging %s of %s", job.assignment, job.student)
        return f"{type(error).__name__}: {error}"
    return ""


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    """A client of the running cluster at an address, or of one made for this batch."""
    need("dask", "distributed")
    import dask
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder("dask"))
        settings = {"distributed.worker.daemon": False, "distributed.admin.log-format": "%(message)s",
                    "temporary-directory": str(scratch)}  # fmt: skip
        stack.enter_context(dask.config.set(settings))
        if scheduler is None:
            address: Any = stack.enter_context(
                LocalCluster(
                    n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
                    memory_limit=0, silence_logs=logging.CRITICAL,
                )
            )  # fmt: skip
        else:
            address = scheduler
        try:
            client = Client(address, timeout="20s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise GradingError(
                f"no Dask scheduler answers at {scheduler} ({error}): start one with `dask scheduler`, or "
                "leave --scheduler out"
            ) from error
        yield stack.enter_context(client)


@contextmanager
def _locked(course: Course) -> Iterator[None]:
    """One batch at a time in a course; the lock ends with its process, however that ends."""
    import fcntl  # not on Windows, where nothing is graded

    course.grading.mkdir(parents=True, exist_ok=True)
    with open(course.grading / "lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise GradingError(
                f"another `tito grade` works on {course.root} (process {file.read().strip() or 'unknown'}): "
                "wait for it, or end it; nothing of it is lost"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def _host_slot() -> Iterator[None]:
    """The one slot of this machine for what is timed; waits for it."""
    import fcntl

    fd = _host_lock()
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _host_lock(folder: Path = Path("/tmp")) -> int:
    """The lock file of this user on this machine, opened: a folder that every process of the user has.

    Raises Missing where another user took its name first, by a file, a folder or a link.
    """
    path = folder / f"tito-timed-{os.getuid()}.lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        why = f"cannot be opened ({error.strerror})"
    else:
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid():
            return fd
        os.close(fd)
        why = f"is no file of this user's (uid {found.st_uid})"
    raise Missing(
        f"{path} {why}, and without that lock two timed runs could disturb each other: have it removed, "
        f"{command('sudo', 'rm', '-r', path)}"
    )
