"""The sandbox's self-test: every claim of every level holds here, and a sandbox with a hole is found out."""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest

from autograder import sandbox
from autograder.sandbox import bubblewrap, landlock, orders, selftest, visible
from tito import cli

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("selftest")  # the whole table is made once


@pytest.fixture(scope="module")
def table():
    return selftest.run()


def only(*names):
    probes = [probe for probe in selftest.PROBES if probe.name in names]
    assert len(probes) == len(names)
    return probes


def results(table):
    return {finding.probe: finding.result for finding in table.findings}


def test_every_claim_of_every_level_holds(table):
    assert not table.broken()
    assert len(table.findings) == len(selftest.PROBES) * len(sandbox.available())
    for finding in table.findings:
        claimed = selftest.claims(finding.level, finding.probe)
        assert finding.result == ("holds" if claimed else "not claimed"), finding
        assert finding.happened and "\n" not in finding.happened


def test_what_is_claimed(monkeypatch):
    named = {probe.name for probe in selftest.PROBES}
    assert {name for name in named if selftest.claims("bubblewrap", name)} == named
    fences = {"network", "network of notebooks", "files read", "files written", "/proc of others"}
    for abi, kept in ((5, {"signals to others"}), (6, set())):  # from Linux 6.12 on
        monkeypatch.setattr(landlock, "landlock_abi", lambda abi=abi: abi)
        assert {name for name in named if selftest.claims("rlimits", name)} == named - fences - kept
        assert ("signals to others" in kept) != selftest.claims("landlock", "signals to others")
    assert not selftest.claims("landlock", "network of notebooks")


def test_how_memory_is_limited_is_what_a_run_said(table, level):
    program = sandbox.Program([sys.executable, "-c", ""], level=level)
    assert table.memory_by[level] == sandbox.run(program).memory_by


def test_a_shared_network_is_broken(monkeypatch):
    if "bubblewrap" not in sandbox.available():
        pytest.skip("no bubblewrap on this machine")
    options = tuple(option for option in bubblewrap.options() if option != "--unshare-net")
    monkeypatch.setattr(bubblewrap, "options", lambda: options)
    table = selftest.run(["bubblewrap"], only("network", "network of notebooks"))
    assert results(table) == {"network": "BROKEN", "network of notebooks": "BROKEN"}
    assert "it reached a server of this machine (stream, datagram)" in table.findings[0].happened


def test_a_folder_too_many_is_broken(monkeypatch, level):
    if level == "rlimits":
        pytest.skip("level rlimits does not promise this")
    monkeypatch.setattr(visible, "SYSTEM", (*visible.SYSTEM, tempfile.gettempdir()))
    table = selftest.run([level], only("files read"))
    assert results(table) == {"files read": "BROKEN"}


def test_writing_where_only_reading_was_given_is_broken(monkeypatch):
    if "bubblewrap" not in sandbox.available():
        pytest.skip("no bubblewrap on this machine")
    strict = bubblewrap.command
    monkeypatch.setattr(
        bubblewrap,
        "command",
        lambda read, write, hidden, limits: strict([], [*read, *write], hidden, limits),
    )
    table = selftest.run(["bubblewrap"], only("files written"))
    assert results(table) == {"files written": "BROKEN"}
    assert "a folder given to read" in table.findings[0].happened


def test_no_fences_are_broken(monkeypatch):
    """Level rlimits keeps none of these: claimed, each is found to be broken."""
    monkeypatch.setattr(selftest, "claims", lambda level, name: True)
    names = ("network of notebooks", "files read", "files written")
    assert results(selftest.run(["rlimits"], only(*names))) == dict.fromkeys(names, "BROKEN")


def test_no_limits_are_broken(monkeypatch):
    def unlimited(limits):
        return {name: value and value * 1000 for name, value in asdict(limits).items()} | {"wall_s": 1.0}

    monkeypatch.setattr(orders, "asdict", unlimited)
    monkeypatch.setattr(orders, "rlimits", lambda limits, level: {})
    names = ("processes", "memory", "CPU time", "wall time", "file size", "private tmp", "writable folders")
    table = selftest.run(["rlimits"], only(*names))
    expected = dict.fromkeys(names, "BROKEN") | {"wall time": "holds"}  # ended by the 1 s of this test
    assert results(table) == expected, table.findings


def test_a_program_that_does_nothing_proves_nothing(monkeypatch):
    monkeypatch.setattr(selftest, "_BEGIN", "raise SystemExit('no attempt made')\n")
    monkeypatch.setattr(selftest, "claims", lambda level, name: True)
    # a slow machine can reach these two before the program ends by itself
    probes = [probe for probe in selftest.PROBES if probe.name not in ("wall time", "CPU time")]
    table = selftest.run([sandbox.choose()], probes)
    assert {finding.result for finding in table.findings} == {"BROKEN"}
    assert "no attempt made" in table.findings[0].happened


def test_as_an_ordinary_user(ordinary_user):
    code = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from autograder.sandbox import selftest
table = selftest.run()
print(json.dumps([table.host.uid, [vars(finding) for finding in table.findings], table.unavailable]))
"""
    done = subprocess.run([*ordinary_user, "-c", code], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    uid, findings, unavailable = json.loads(done.stdout)
    assert uid == 65534 and findings and set(unavailable) < set(sandbox.LEVELS)
    assert [found for found in findings if found["result"] == "BROKEN"] == []


def tito(monkeypatch, capsys, *words):
    """Exit code, stdout and stderr of the command line, in this process."""
    monkeypatch.setattr(sys, "argv", ["tito", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    written = capsys.readouterr()
    return stopped.value.code or 0, written.out, written.err


def test_the_command_gives_the_table_as_json():
    done = subprocess.run(
        [sys.executable, "-m", "tito", "sandbox", "--level", "rlimits", "--json"],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert [one["probe"] for one in found["findings"]] == [probe.name for probe in selftest.PROBES]
    assert found["memory_by"]["rlimits"] in ("cgroup", "watched sum") and found["host"]["kernel"]


def test_the_command_prints_the_table(monkeypatch, capsys, table):
    monkeypatch.setattr(selftest, "run", lambda levels: table)
    code, out, err = tito(monkeypatch, capsys, "sandbox")
    assert (code, err) == (0, "")
    for words in (*sandbox.available(), table.host.kernel, "memory limited by", "writable folders"):
        assert words in out


def test_a_broken_claim_fails_with_one_line(monkeypatch, capsys, table):
    hole = selftest.Finding("rlimits", "memory", "BROKEN", "it ran to its end")
    holed = selftest.Table(table.host, [hole], {"rlimits": "watched sum"}, {"landlock": "no such kernel"})
    monkeypatch.setattr(selftest, "run", lambda levels: holed)
    code, out, err = tito(monkeypatch, capsys, "sandbox")
    assert code == 1 and err.count("\n") == 1
    assert "rlimits, memory: it ran to its end" in err
    assert "BROKEN" in out and "landlock is not to be had here: no such kernel" in out


def test_a_level_that_is_not_there_says_why(monkeypatch, capsys):
    monkeypatch.setattr(bubblewrap, "trial", lambda: ((), "there is no program bwrap"))
    table = selftest.run(["bubblewrap"])
    assert table.findings == [] and table.unavailable == {"bubblewrap": "there is no program bwrap"}
    code, out, err = tito(monkeypatch, capsys, "sandbox", "--level", "bubblewrap")
    assert code == 2 and out == "" and err.count("\n") == 1 and "(there is no program bwrap)" in err
    code, _, err = tito(monkeypatch, capsys, "sandbox", "--level", "none")
    assert code == 1 and "expected one of bubblewrap, landlock, rlimits" in err


def test_an_unknown_level_is_one_line(monkeypatch, capsys):
    """Of every command that takes a level: `tito grade` used to print a traceback."""
    code, _, err = tito(monkeypatch, capsys, "grade", "01_tensor", "--level", "chroot", "--course", str(ROOT))
    assert code == 1 and err.count("\n") == 1 and err.startswith("tito: unknown sandbox level 'chroot'")
