"""A command on a leash leaves nothing running, and says what it left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from autograder import leash

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="foster parents are Linux's")
ROOT = Path(__file__).resolve().parents[1]
STAY = "setsid sleep 1000 & echo $!; (trap '' TERM; sleep 1000) & echo $!; sleep 1000 & echo $!; "


def clean(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "autograder/leash.py", "--clean", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def gone(pids: list[str]) -> bool:
    """Whether these processes end within a moment."""
    running = [psutil.Process(int(pid)) for pid in pids if psutil.pid_exists(int(pid))]
    return not psutil.wait_procs(running, timeout=3 * leash.PATIENCE_S)[1]


def test_what_the_command_left_is_ended_and_its_exit_code_is_kept(monkeypatch):
    done = subprocess.run(leash.command(["sh", "-c", f"{STAY} exit 7"]), capture_output=True, text=True)
    assert done.returncode == 7 and len(done.stdout.split()) == 3 and gone(done.stdout.split())
    done = subprocess.run(leash.command(["sh", "-c", "kill -9 $$"]), capture_output=True)
    assert done.returncode == 128 + 9
    assert clean("no-such-program").stderr == "leash: no-such-program: there is no such program\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_all_of_it_ends_when_the_leash_is_let_go(number):
    """SIGTERM to the leash; SIGKILL to the process that asked for it, as a killed pytest."""
    words = leash.command(["sh", "-c", f"{STAY} wait"])
    asks = f"import subprocess; subprocess.run({words!r})"
    command = words if number == signal.SIGTERM else [sys.executable, "-c", asks]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [process.stdout.readline().strip() for _ in range(3)]
        process.send_signal(number)
        assert gone(pids)


def test_what_is_left_behind_is_named_and_fails():
    """A process, a file, a folder that a killed process of ours had; nothing of other programs."""
    kill = "import os; from autograder.scratch import Folder; Folder('t'); os.kill(os.getpid(), 9)"
    script = f'sleep 1000 & touch "$TMPDIR/a file"; "{sys.executable}" -c "{kill}"; exit 0'
    done = clean("sh", "-c", script)
    assert done.returncode == leash.LEFT
    said = [line.rpartition("`: ")[2] for line in done.stderr.splitlines() if line.startswith("leash: ")]
    assert said[0].startswith("process ") and said[0].endswith(": sleep 1000")
    assert said[1].startswith("folder olympics-t-") and said[2:] == ["in TMPDIR: a file"]
    done = clean("sh", "-c", 'mkdir "$TMPDIR/pytest-of-me"; echo "$TMPDIR"')
    assert (done.returncode, done.stderr) == (0, "") and not os.path.exists(done.stdout.strip())
    assert clean("sh", "-c", "sleep 1000 & exit 5").returncode == 5
