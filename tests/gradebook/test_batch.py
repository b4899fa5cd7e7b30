"""The batch: workers and one writer, killed and gone on with, locked out, late, and asked again."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from autograder import sandbox
from autograder.course import Course, Settings
from autograder.errors import GradingError, Missing
from autograder.gradebook import batch, judging, records
from autograder.notebooks.rebuild import answers_as_text
from autograder.scratch import scratch_folder
from tests import chaos, servers

LESSON = chaos.LESSON
SETTINGS = Settings(sandbox.choose())


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A course of one tiny lesson; three have handed in."""
    return chaos.make(tmp_path_factory.mktemp("fresh") / "course", 3)


@pytest.fixture
def course(fresh, tmp_path):
    return Course.at(shutil.copytree(fresh.root, tmp_path / "course"))


@pytest.fixture(scope="module")
def judged(fresh, tmp_path_factory):
    """The same course with everything judged and recorded."""
    root = shutil.copytree(fresh.root, tmp_path_factory.mktemp("judged") / "course")
    batch.grade(Course.at(root), LESSON, SETTINGS)
    return root


@pytest.fixture
def graded(judged, tmp_path):
    return Course.at(shutil.copytree(judged, tmp_path / "graded"))


def scores(course, url=None):
    with Gradebook(url or f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        return {
            s.student.id: s.score - sum(book.late_submission_penalty or 0 for book in s.notebooks)
            for s in gradebook.assignment_submissions(LESSON)
        }


def hand_in(course, student, source, when="2026-11-20 10:00:00 UTC"):
    nb = nbformat.from_dict(json.loads(nbformat.writes(chaos.SOURCE)))
    nb.cells[0].source = source
    folder = course.submitted(student, LESSON)
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, folder / f"{LESSON}.ipynb")
    (folder / "timestamp.txt").write_text(when)


def test_killed_at_random_moments():
    """Two rounds of tests/chaos.py by its own command, which exits with 1 where a gradebook differs."""
    command = [sys.executable, "-m", "tests.chaos", "--rounds", "2", "--students", "6", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=chaos.ROOT, timeout=500)
    assert done.returncode == 0 and "2 rounds, 0 with another" in done.stdout, done.stdout + done.stderr


def test_a_running_scheduler_by_its_address(course, tmp_path):
    import dask
    from distributed import LocalCluster

    events = []
    own = dask.config.set({"temporary-directory": str(tmp_path)})  # the scheduler's folder and the worker's
    with (
        own,
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
    ):
        found = batch.grade(
            course, LESSON, SETTINGS, scheduler=cluster.scheduler_address, progress=events.append
        )
    assert [judgement.points for judgement in found] == [5, 2, 0]
    assert scores(course) == {"s00": 5, "s01": 2, "s02": 0}
    assert [e["event"] for e in events].count("judged") == 3 and events[-1]["done"] == events[-1][
        "total"
    ] == 3
    assert any(event["seconds_left"] for event in events)
    assert all(json.dumps(event) for event in events)


def test_no_scheduler_there(course):
    with pytest.raises(GradingError, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        batch.grade(course, LESSON, SETTINGS, scheduler="tcp://127.0.0.1:9")


def test_a_locked_gradebook_loses_nothing(graded):
    kept = sqlite3.connect(graded.root / "gradebook.db", isolation_level=None)
    kept.execute("begin exclusive")
    hand_in(graded, "s01", "def f(x):\n    return x + 1  # mended")
    with pytest.raises(GradingError, match="another program holds the gradebook's lock") as said:
        batch.grade(graded, LESSON, SETTINGS)
    assert "\n" not in str(said.value) and not list(graded.grading.glob("stage-*"))
    kept.close()
    assert [judgement.points for judgement in batch.grade(graded, LESSON, SETTINGS)] == [5, 5, 0]
    assert scores(graded)["s01"] == 5


def test_a_full_disk_loses_nothing(graded, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    size = sum(path.stat().st_size for path in graded.root.rglob("*") if path.is_file())
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size + 150_000}", "tmpfs", small], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        course = Course.at(shutil.copytree(graded.root, small / "course"))
        before = scores(course)
        filler = small / "filler"
        with filler.open("wb") as file, pytest.raises(OSError):
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        changed = course.submitted("s01", LESSON) / f"{LESSON}.ipynb"
        changed.write_bytes(changed.read_bytes().replace(b"return 2", b"return 3"))
        with pytest.raises(GradingError) as said:
            found = batch.grade(course, LESSON, SETTINGS)
            raise GradingError(found[1].stopped)  # not judged: the judgement itself had no room
        told = str(said.value)
        assert any(word in told for word in ("disk", "space", "room")) and "\n" not in told, told
        filler.unlink()
        after = batch.grade(course, LESSON, SETTINGS)
        assert [judgement.points for judgement in after] == [5, 0, 0]
        assert scores(course) == {**before, "s01": 0}
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_two_at_once_are_one_too_many(course):
    with batch._locked(course), pytest.raises(GradingError, match=f"process {os.getpid()}"):
        batch.grade(course, LESSON, SETTINGS)


@pytest.mark.parametrize("taken", ["link", "folder", "file of another user"])
def test_a_lock_that_another_user_took_is_one_line(taken, tmp_path):
    path = tmp_path / f"tito-timed-{os.getuid()}.lock"
    if taken == "link":
        path.symlink_to(tmp_path / "made")
    elif taken == "folder":
        path.mkdir()
    elif os.getuid() == 0:
        path.touch()
        os.chown(path, 65534, 65534)
    else:
        pytest.skip("only root makes files of other users")
    with pytest.raises(Missing, match="have it removed, `sudo rm -r") as told:
        batch._host_lock(tmp_path)
    assert "\n" not in str(told.value) and not (tmp_path / "made").exists()
    (path.rmdir if taken == "folder" else path.unlink)()
    os.close(batch._host_lock(tmp_path))


def test_late_work_extensions_and_attempts(graded):
    (graded.root / "course").mkdir()
    rules = graded.root / "course" / "deadlines.toml"
    rules.write_text(
        'penalty_per_day = 0.2\ngrace_minutes = 15\nmost_days = 3\nkeep = "best"\nattempts = 3\n'
        f"[due]\n{LESSON} = 2026-11-18T10:00:00Z\n"
        f"[extension.s03]\n{LESSON} = 2\n[extension.s04]\n{LESSON} = 1\n"
    )
    for student in ("s03", "s04", "s05"):
        hand_in(graded, student, f"def f(x):\n    return x + 1  # {student}")
    hand_in(graded, "s05", "def f(x):\n    return x + 1  # s05", "2026-11-18 10:14:00 UTC")
    batch.grade(graded, LESSON, SETTINGS, force=True)
    assert scores(graded) == {"s00": 3, "s01": 1.2, "s02": 0, "s03": 5, "s04": 4, "s05": 5}
    for turn, (answer, worth) in enumerate([("return 2", 2), ("return x", 0)]):
        hand_in(graded, "s05", f"def f(x):\n    {answer}  # s05", f"2026-11-18 09:0{turn}:00 UTC")
        found = {j.student: j for j in batch.grade(graded, LESSON, SETTINGS, students=["s05"])}
        assert found["s05"].points == 5 and f"earned {worth} points" in found["s05"].notes[-1]
    hand_in(graded, "s01", "def f(x):\n    return x + 1  # s01", "2026-11-18 09:30:00 UTC")
    batch.grade(graded, LESSON, SETTINGS, students=["s01"])
    assert scores(graded)["s01"] == 5 and scores(graded)["s05"] == 5
    hand_in(graded, "s05", "def f(x):\n    return 1 + x", "2026-11-18 09:40:00 UTC")
    found = batch.grade(graded, LESSON, SETTINGS, students=["s05"])
    assert "attempt 4 came after the 3 that count" in found[0].notes
    rules.write_text('keep = "worst"\n')
    with pytest.raises(GradingError, match="expected 'last' or 'best'"):
        batch.grade(graded, LESSON, SETTINGS)


def tito(course, *words):
    command = [sys.executable, "-m", "tito", *words, "--course", str(course.root)]
    return subprocess.run(command, capture_output=True, text=True, cwd=chaos.ROOT)


def test_a_grade_is_explained_and_replayed(graded):
    done = tito(graded, "explain", "s01", LESSON)
    assert done.returncode == 0 and "test-more" in done.stdout and "look at f" in done.stdout, done.stderr
    assert "2 of 5" in done.stdout or "2 of 10" in done.stdout
    before = records.load_record(graded, "s01", LESSON)
    done = tito(graded, "grade", "--replay", "s01", LESSON)
    assert done.returncode == 0 and "the same points in every cell" in done.stdout, done.stdout + done.stderr
    hand_in(graded, "s01", "def f(x):\n    return x + 1")
    done = tito(graded, "grade", "--replay", "s01", LESSON, "--json")
    told = json.loads(done.stdout)["differences"]
    assert done.returncode == 1 and told[0].startswith("submission: another than") and len(told) == 2
    assert "0 of 3 then, 3 of 3 now" in told[1] or "3 of 3 now" in told[1]
    assert records.load_record(graded, "s01", LESSON) == before
    done = tito(graded, "explain", "nobody", LESSON)
    assert done.returncode == 1 and done.stderr.count("\n") == 1


def test_events_and_a_summary_of_what_failed(course, monkeypatch):
    def fails(*arguments, **more):
        raise OSError("a broken disk")

    monkeypatch.setattr(judging, "read_submission", fails)
    events = []
    found = batch.grade(course, LESSON, SETTINGS, students=["s00"], progress=events.append)
    assert "a broken disk" in found[0].stopped and not found[0].key
    assert [event["event"] for event in events] == ["failed"] and "a broken disk" in events[0]["reason"]
    monkeypatch.undo()
    done = tito(course, "grade", "--all", "--students", "s00,s01", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["event"] for line in lines} == {"judged", "recorded", "done"}
    assert [grade["points"] for grade in lines[-1]["grades"]] == [5, 2]


def postgres() -> Path | None:
    """The folder with initdb and postgres of this system, if it has one."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def database(data):
    """A server of PostgreSQL on a Unix socket in the new folder `data`; gives the address of a database."""
    programs = postgres()
    user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.getuid() == 0 else []
    data.mkdir(mode=0o700)
    if user:
        os.chown(data, 65534, 65534)
    env = {**os.environ, "HOME": str(data), "LC_ALL": "C"}

    def run(program, *words, check=True):
        command = [*user, str(programs / program), *map(str, words)]
        return subprocess.run(command, check=check, env=env, cwd=data, stdout=subprocess.DEVNULL).returncode

    run("initdb", "-D", data / "db", "-U", "tito", "-A", "trust", "-E", "UTF8")
    serve = [*user, programs / "postgres", "-D", data / "db", "-k", data, "-c", "listen_addresses="]
    log = data.parent / "log"
    with servers.on_a_leash(serve, log, env=env, cwd=data) as server:
        servers.until(lambda: run("pg_isready", "-q", "-h", data, check=False) == 0, server, log)
        run("createdb", "-h", data, "-U", "tito", "grades")
        yield f"postgresql://tito@/grades?host={data}"
        run("pg_ctl", "-D", data / "db", "-m", "immediate", "stop", check=False)


@pytest.mark.skipif(postgres() is None, reason="no PostgreSQL on this machine")
def test_a_gradebook_on_postgresql(course):
    """The same class with `db_url` of a real server: started here, on a Unix socket."""
    pytest.importorskip("psycopg")
    with scratch_folder("database") as place:
        place.chmod(0o711)  # root's server is another user
        with database(place / "pg") as url:
            with (course.root / "nbgrader_config.py").open("a") as file:
                file.write(f"c.CourseDirectory.db_url = {url!r}\n")
            (course.root / "gradebook.db").unlink()
            from tito.instructor import grading as instructor

            instructor.generate(course.root, LESSON)
            assert [judgement.points for judgement in batch.grade(course, LESSON, SETTINGS)] == [5, 2, 0]
            assert scores(course, url) == {"s00": 5, "s01": 2, "s02": 0}
            assert not (course.root / "gradebook.db").exists()
            assert tito(course, "explain", "s00", LESSON).returncode == 0
    hand_in(course, "s01", "def f(x):\n    return x + 1")
    with pytest.raises(GradingError, match="gradebook's server does not answer"):
        batch.grade(course, LESSON, SETTINGS)


def test_similarity_is_reported_by_compare50_where_it_is_installed(graded):
    done = tito(graded, "similarity", LESSON)
    if shutil.which("compare50"):
        assert done.returncode == 0 and (graded.grading / "similarity" / LESSON / "report").is_dir(), (
            done.stderr
        )
    else:
        assert done.returncode == 2 and done.stderr.startswith("tito: the program compare50 is not installed")
        assert done.stderr.count("\n") == 1
    text = answers_as_text(graded.submitted("s01", LESSON) / f"{LESSON}.ipynb")
    assert text == "def f(x):\n    return 2\n# 1\n"
