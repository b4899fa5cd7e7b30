"""The sandbox's self-test: it passes where the promises are kept, and says so where one is broken."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autograder import sandbox, selftest

ROOT = Path(__file__).parent.parent


def test_every_promise_is_kept(level):
    found = {finding.probe: finding for finding in selftest.run((level,))}
    assert found.keys() == {probe.name for probe in selftest.PROBES}
    broken = [finding for finding in found.values() if finding.outcome == selftest.BROKEN]
    assert not broken, broken
    assert level == "rlimits" or found["network"].outcome == selftest.HOLDS


def test_a_weakened_sandbox_is_found_out(monkeypatch):
    """bubblewrap without a network of its own, and with the host's files."""
    if "bubblewrap" not in sandbox.available():
        pytest.skip("no bubblewrap on this machine")
    kept = sandbox._bwrap_command

    def weak(*arguments):
        command = [word for word in kept(*arguments) if word != "--unshare-net"]
        return [*command, "--bind", str(Path.home()), str(Path.home())]

    monkeypatch.setattr(sandbox, "_bwrap_command", weak)
    outcomes = {finding.probe: finding.outcome for finding in selftest.run(("bubblewrap",))}
    wrong = {"network", "file reads outside", "file writes outside"}
    if not os.access(Path.home(), os.W_OK):
        wrong = {"network"}
    assert {probe for probe, outcome in outcomes.items() if outcome == selftest.BROKEN} == wrong


def test_a_limit_that_is_not_watched_is_found_out(monkeypatch):
    kept = sandbox.asdict
    monkeypatch.setattr(
        sandbox, "asdict", lambda limits: {**kept(limits), "disk_bytes": 1 << 60, "cpu_s": None}
    )
    found = {finding.probe: finding.outcome for finding in selftest.run(("rlimits",))}
    assert found["CPU time of the tree"] == found["disk"] == selftest.BROKEN
    assert found["wall time"] == selftest.HOLDS


def program(*words, start=(sys.executable,)):
    return subprocess.run([*start, "-m", "tito", "sandbox", *words], capture_output=True, text=True, cwd=ROOT)


def test_the_command():
    done = program("--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert {finding["level"] for finding in told["findings"]} == set(sandbox.LEVELS)
    assert "uid" in told["host"]["user"] and told["host"]["kernel"]
    done = program("--level", "none")
    assert done.returncode == 1 and "expected one of" in done.stderr and done.stderr.count("\n") == 1


def test_the_command_as_an_ordinary_user():
    setpriv = shutil.which("setpriv")
    if os.getuid() != 0 or not setpriv:
        pytest.skip("this run is an ordinary user's already, or cannot become one")
    drop = [setpriv, "--reuid", "65534", "--regid", "65534", "--clear-groups", "env", "HOME=/tmp"]
    packages = [path for path in sys.path if path.endswith("site-packages")]
    known = f"PYTHONPATH={os.pathsep.join(packages)}"  # a Python that everybody may read, with our packages
    starts = [[*drop, sys.executable], [*drop, known, "/usr/bin/python3"]]
    probe = ["-c", "import sys, tito.cli; assert sys.version_info >= (3, 11)"]
    works = [s for s in starts if subprocess.run([*s, *probe], cwd=ROOT, capture_output=True).returncode == 0]
    if not works:
        pytest.skip("another user may read neither this Python nor the system's with our packages")
    done = program(start=works[0])
    assert done.returncode == 0 and "uid 65534" in done.stdout, done.stdout + done.stderr
    assert selftest.BROKEN not in done.stdout
