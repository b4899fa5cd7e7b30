"""Folders for the moment: gone when done with, gone after a kill, and nobody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from autograder import scratch
from autograder.scratch import scratch_folder

ROOT = Path(__file__).resolve().parents[1]
HOLD = """
import sys
from autograder.scratch import Folder
print(Folder('t').path, flush=True)
sys.stdin.read()
"""


def holder(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a folder in `place`."""
    env = {**os.environ, "TMPDIR": str(place)}
    process = subprocess.Popen([sys.executable, "-c", HOLD], cwd=ROOT, env=env, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked on Windows")
def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path):
    process, left = holder(tmp_path)
    with process:
        (left / "work").mkdir()
        assert scratch.sweep(tmp_path) == [] and left.is_dir(), "it is in use"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert left.is_dir()
    other, _ = holder(tmp_path)  # its first folder sweeps
    with other:
        assert not left.exists()
        other.communicate()
    scratch.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_goes_with_its_context_even_when_a_folder_in_it_is_closed(tmp_path):
    with pytest.raises(ZeroDivisionError), scratch_folder("t", tmp_path) as place:
        (place / "a" / "b").mkdir(parents=True)
        (place / "a").chmod(0)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_others_is_removed(tmp_path):
    """Names that only look alike, links to folders of that name, files."""
    mine = scratch.Folder("t", tmp_path)
    name = mine.path.name
    mine.close()
    house = tmp_path / "house"
    house.mkdir()
    (house / "photo").write_text("of the games")
    (tmp_path / name).symlink_to(house)
    (tmp_path / name.replace("-t-", "-file-")).write_text("")
    for other in ("olympics-2028", "olympics-t-abcdefgh", name.replace("-t-", "-A-"), f"{name}.bak"):
        (tmp_path / other).mkdir()
    before = sorted(tmp_path.iterdir())
    assert scratch.sweep(tmp_path) == []
    assert sorted(tmp_path.iterdir()) == before and (house / "photo").is_file()


def test_nobody_else_makes_temporary_folders():
    """The kind: a folder by tempfile alone stays when its process is killed."""
    made = ("mkdtemp(", "TemporaryDirectory(")
    allowed = {
        "autograder/scratch.py",
        "tests/test_scratch.py",
        "tests/sandbox/test_sandbox.py",
    }  # the last: inside
    found = [
        f"{name}:{number}"
        for folder in ("autograder", "tito", "benchmarks", "course", "tests")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (name := path.relative_to(ROOT).as_posix()) not in allowed
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if any(word in line for word in made)
    ]
    assert not found, f"use autograder.scratch.scratch_folder: {found}"
