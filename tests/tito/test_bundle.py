"""What a class is given: the wheel and the student bundle work on their own, and no solution is in them."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from tito.errors import TitoError
from tito.instructor import bundle
from tito.student import workspace

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the bundle of the repository as it is."""
    return bundle.make(ROOT, ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def solved() -> list[bundle.Solution]:
    return bundle.solutions(ROOT / "source")


def test_the_wheel_holds_what_a_student_needs_and_nothing_of_the_reference(made):
    wheel, archive = made
    with zipfile.ZipFile(wheel) as names:
        inside = set(names.namelist())
    released = {path.relative_to(ROOT / "release").as_posix() for path in ROOT.glob("release/*/*.ipynb")}
    assert {f"tito/release/{name}" for name in released} <= inside
    assert "autograder/entries/speed/model.safetensors" in inside
    assert {"autograder/data/digits.csv.gz", "autograder/data/digits.md"} <= inside
    schedules = {path.name for path in (ROOT / "course" / "schedules").glob("*.toml")}
    assert schedules and {f"autograder/schedules/{name}" for name in schedules} <= inside
    for folder in ("tinytorch", "source", "modules", "olympics_notebooks", "tests"):
        assert not [name for name in inside if name.split("/")[0] == folder], folder
    packages = {path.relative_to(ROOT).as_posix()
                for top in ("tito", "autograder") for path in (ROOT / top).rglob("*.py")}  # fmt: skip
    assert packages <= inside, packages - inside
    with zipfile.ZipFile(archive) as names:
        top = archive.stem
        pins = names.read(f"{top}/requirements.txt")
        assert pins == (ROOT / "requirements" / "student.txt").read_bytes()
        assert {f"{top}/{wheel.name}", f"{top}/README.md", f"{top}/requirements.txt",
                *(f"{top}/release/{name}" for name in released)} == set(names.namelist())  # fmt: skip


def test_no_solution_is_in_the_wheel_or_the_bundle(made, solved):
    cells = sum(
        bundle._BEGIN in cell.source
        for path in ROOT.glob("source/*/*.ipynb")
        for cell in nbformat.read(path, 4).cells
    )
    assert len({solution.where for solution in solved}) == cells > 200
    # every region is looked for: as a text that is long enough to mean something, or within its function
    assert all(len(s.text) >= bundle._SHORT or s.functions for s in solved)
    for archive in made:
        assert bundle.solutions_in(archive, ROOT / "source") == []


@pytest.mark.parametrize("way", ["as it is", "laid out anew", "in a notebook", "in a wheel in the bundle"])
def test_a_planted_solution_is_found(way, tmp_path):
    source = nbformat.read(ROOT / "source/09_spatial/09_spatial.ipynb", 4)
    cell = next(
        c for c in source.cells if c.metadata.get("nbgrader", {}).get("solution") and "def " in c.source
    )
    name, text = "tito/help.py", cell.source
    if way == "laid out anew":
        import ast

        text = ast.unparse(ast.parse(text))
    if way == "in a notebook":
        name = "release/09_spatial/09_spatial.ipynb"
        text = nbformat.writes(nbformat.v4.new_notebook(cells=[cell]))
    leaky = tmp_path / "leaky.zip"
    with zipfile.ZipFile(leaky, "w") as out:
        out.writestr(name, text)
    if way == "in a wheel in the bundle":
        inner, leaky = leaky.rename(tmp_path / "leaky.whl"), tmp_path / "outer.zip"
        with zipfile.ZipFile(leaky, "w") as out:
            out.write(inner, inner.name)
    found = bundle.solutions_in(leaky, ROOT / "source")
    assert found and all(cell.metadata.nbgrader.grade_id in line for line in found)


def test_a_release_with_a_solution_is_not_bundled(tmp_path):
    course = tmp_path / "course"
    for folder in ("source", "release"):
        target = course / folder / "01_tensor" / "01_tensor.ipynb"
        target.parent.mkdir(parents=True)
        target.write_bytes((ROOT / "source/01_tensor/01_tensor.ipynb").read_bytes())
    with pytest.raises(TitoError, match="nothing was written: .* solutions .* first 01_tensor"):
        bundle.make(ROOT, course, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_module_01_is_solved_and_completed_from_the_wheel_alone(made, tmp_path):
    """pip installs the wheel beside the packages that are here, out of sight of the repository."""
    wheel, archive = made
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel],
                   check=True, capture_output=True)  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(site)}

    where = subprocess.run([sys.executable, "-c", "import tito; print(tito.__file__)"], cwd=tmp_path, env=env,
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert Path(where.strip()).is_relative_to(site)
    assert "19_benchmarking, compression" in tito(tmp_path, env, "init", "my_olympics")
    ws = workspace.Workspace(tmp_path / "my_olympics")
    assert "nothing exported" in tito(ws.root, env, "module", "complete", "01", code=1)
    ws.notebook("01_tensor").write_bytes((ROOT / "source/01_tensor/01_tensor.ipynb").read_bytes())
    said = tito(ws.root, env, "module", "complete", "01")
    assert "13 of 13 checks passed" in said and (ws.package / "tensor.py").is_file()
    assert "plays in a clone" in tito(tmp_path, env, "demo", code=1)


def tito(folder: Path, env: dict[str, str], *words: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "tito", *words], cwd=folder, env=env, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_a_workspace_from_the_bundle(made, tmp_path):
    _, archive = made
    ws, added = workspace.init(tmp_path / "ws", archive)
    assert len(added) == len(list(ROOT.glob("release/*/*.ipynb")))
    assert ws.notebook("01_tensor").read_bytes() == (ROOT / "release/01_tensor/01_tensor.ipynb").read_bytes()
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(archive) as file:
        file.extractall(unpacked)
    assert len(workspace.init(tmp_path / "other", unpacked / archive.stem)[1]) == len(added)


def test_a_bundle_that_is_none_is_refused(tmp_path):
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(TitoError, match="neither a folder nor a whole zip file"):
        workspace.init(tmp_path / "ws", tmp_path / "half.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as out:
        out.writestr("../../01_tensor/evil.ipynb", "{}")
        out.writestr("pictures/cat.png", "-")
    with pytest.raises(TitoError, match="holds no notebooks"):
        workspace.init(tmp_path / "ws", tmp_path / "other.zip")
    assert not (tmp_path / "ws").exists()


def test_the_speed_track_measures_itself_without_the_reference_package(monkeypatch, tmp_path):
    """A student's install has the given model and no reference tinytorch: the student's own runs it."""
    from autograder.scoring import staging

    own = tmp_path / "own"
    own.mkdir()
    (own / "__init__.py").write_text("")
    entries = tmp_path / "site" / "autograder" / "entries" / "speed"
    entries.mkdir(parents=True)
    for name in ("model.safetensors", "training.json", "tokenizer.json"):
        (entries / name).write_bytes((ROOT / "course/entries/speed" / name).read_bytes())
    monkeypatch.setattr(staging, "REPOSITORY", tmp_path / "nowhere")
    monkeypatch.setattr("autograder.paths.ENTRIES", (tmp_path / "nowhere", entries.parent))
    entry = staging.course_entry("speed", tmp_path / "entry", own)
    assert (entry / "tinytorch" / "__init__.py").read_text() == "" and (entry / "tokenizer.json").is_file()
    with pytest.raises(ValueError, match="tinytorch is missing"):
        staging.course_entry("speed", tmp_path / "official")
