"""What is not installed: one line that names the command that brings it, exit code 2, nothing begun."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from autograder import needs
from autograder.errors import Missing
from tests import chaos
from tito import cli
from tito.instructor import bundle

ROOT = Path(__file__).resolve().parent.parent
EXTRA = "torch-olympics[instructor]"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment beside a clone, or without one."""
    monkeypatch.setattr(needs, "LIBRARY", Path("/nowhere"))


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course of one lesson, handed in by two."""
    return chaos.make(tmp_path / "course", 2).root


def lack(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    for name in packages:
        monkeypatch.setitem(sys.modules, name, None)  # what import and find_spec take for "not there"


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line on stderr of a command that ends with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["tito", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == 2 and not said.out and said.err.count("\n") == 1, said
    return said.err


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- the line


def test_what_is_there_is_not_missed() -> None:
    needs.need("numpy", "json")
    assert Path(needs.program("ruff")).is_file()


@pytest.mark.usefixtures("elsewhere")
def test_the_command_is_one_for_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/my env/bin/python")
    lack(monkeypatch, "distributed", "dask_jobqueue", "pip")
    with pytest.raises(Missing, match="^the Python package distributed is not installed") as error:
        needs.need("numpy", "distributed")
    uv = ["uv", "pip", "install", "--python", "/opt/my env/bin/python"]
    assert shlex.split(str(error.value).partition("this brings it: ")[2]) == [*uv, EXTRA]
    assert shlex.split(needs.installing("x")) == [*uv, "x"]
    monkeypatch.setitem(sys.modules, "pip", sys)
    with pytest.raises(Missing) as error:
        needs.need("dask_jobqueue")
    pip = ["/opt/my env/bin/python", "-m", "pip", "install"]
    assert shlex.split(str(error.value).partition("this brings it: ")[2]) == [*pip, "dask-jobqueue"]
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Missing, match="^the program compare50 is not installed here; .* install compare50$"):
        needs.program("compare50")


def test_in_a_clone_make_brings_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its environment is made of pins, which a pip install would go round."""
    clone = tmp_path / "Kurs #1"
    monkeypatch.setattr(needs, "LIBRARY", clone)
    monkeypatch.setattr(sys, "prefix", str(clone / ".venv"))
    assert shlex.split(needs.installing(EXTRA)) == ["make", "-C", str(clone), "demo"]


# ---- the commands


@pytest.mark.usefixtures("elsewhere")
def test_grading_without_dask(monkeypatch, capsys, course) -> None:
    lack(monkeypatch, "distributed")
    before = files(course)
    said = refused(monkeypatch, capsys, "grade", chaos.LESSON, "--course", course)
    assert "package distributed" in said and EXTRA in said and files(course) == before


@pytest.mark.usefixtures("elsewhere")
def test_a_gradebook_on_postgresql_without_psycopg(monkeypatch, capsys, course) -> None:
    lack(monkeypatch, "psycopg")
    settings = course / "nbgrader_config.py"
    text = settings.read_text()
    settings.write_text(f"{text}\nc.CourseDirectory.db_url = 'postgresql://grader@/grades'\n")
    said = refused(monkeypatch, capsys, "export", "--course", course)
    assert "package psycopg" in said and EXTRA in said
    for url in ("mysql://grader@/grades", "my grades"):
        settings.write_text(f"{text}\nc.CourseDirectory.db_url = {url!r}\n")
        monkeypatch.setattr(sys, "argv", ["tito", "export", "--course", str(course)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr().err
        assert ended.value.code == 1 and said.count("\n") == 1
        assert "expected sqlite:///FILE or postgresql" in said


@pytest.mark.usefixtures("elsewhere")
def test_a_calendar_without_icalendar(monkeypatch, capsys, course, tmp_path) -> None:
    lack(monkeypatch, "icalendar")
    monkeypatch.delitem(sys.modules, "autograder.term.calendar", raising=False)
    monkeypatch.delattr("autograder.term.calendar", raising=False)  # another test may have imported it
    before = files(course)
    words = ("--weeks", "2", "--start", "2037-01-12", "--apply", "--course", course)
    said = refused(monkeypatch, capsys, "course", "schedule", *words, "--ics", tmp_path / "c.ics")
    assert "package icalendar" in said and EXTRA in said
    assert files(course) == before and not (tmp_path / "c.ics").exists()


@pytest.mark.usefixtures("elsewhere")
def test_similarity_without_compare50(monkeypatch, capsys, course) -> None:
    monkeypatch.setattr(needs.shutil, "which", lambda name, path=None: None)
    before = files(course)
    said = refused(monkeypatch, capsys, "similarity", chaos.LESSON, "--course", course)
    assert "program compare50" in said and " install compare50" in said and files(course) == before


@pytest.mark.usefixtures("elsewhere")
def test_a_bundle_without_setuptools(monkeypatch, tmp_path) -> None:
    lack(monkeypatch, "setuptools")
    with pytest.raises(Missing, match="package setuptools is not installed here; .* install setuptools$"):
        bundle.make(ROOT, ROOT, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_slurm_without_dask_jobqueue() -> None:
    code = "import runpy, sys; sys.modules['dask_jobqueue'] = None; sys.argv = ['slurm.py']\n"
    code += f"runpy.run_path({str(ROOT / 'course/clusters/slurm.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("slurm.py: the Python package dask_jobqueue is not installed here")
    assert done.stderr.count("\n") == 1
