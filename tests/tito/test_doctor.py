"""What `tito doctor` says of a machine: each check where all is there, and where something lacks."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from autograder import sandbox
from autograder.data.datasets import CIFAR10_FOLDER, TEST_FILE, TRAIN_FILES
from autograder.scoring import rules
from tito.doctor import checks, installed, machine
from tito.doctor.checks import Check

ROOT = Path(__file__).resolve().parents[2]
OURS = [*checks.BARE, *installed.PROGRAMS, installed.packages, *installed.COURSE]
HEAVY = {
    "numpy",
    "nbformat",
    "nbgrader",
    "sqlalchemy",
    "jupyter_client",
    "matplotlib",
    "typer",
    "distributed",
}


def doctor(*words: str, folder: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """`tito doctor` as the real program."""
    return subprocess.run(
        [sys.executable, "-m", "tito", "doctor", *words], cwd=folder, capture_output=True, text=True,
        encoding="utf-8", env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )  # fmt: skip


def bare(*before: str, folder: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """`python3 -m tito.doctor`, as the Makefile starts it: no package is in reach."""
    return subprocess.run(
        [*before, sys.executable, "-S", "-m", "tito.doctor"],
        cwd=folder, capture_output=True, text=True, encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )  # fmt: skip


def by_a_user(check: Callable[[], Check]) -> Check:
    """The check as an ordinary user makes it: in a child that gives up root."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            if os.geteuid() == 0:
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            made = check()
            os.write(writing, json.dumps([*vars(made).values()]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(child, 0)
    return Check(*answer[:-1], tuple(answer[-1]))


def needs(command: list[str]) -> None:
    """Skip where this machine does not let us make the state that is tested."""
    try:
        done = subprocess.run([*command, "true"], capture_output=True)
    except FileNotFoundError:
        pytest.skip(f"no {command[0]} here")
    if done.returncode:
        pytest.skip(f"{' '.join(command)} does not work here: {done.stderr.decode().strip()}")


# ---- the whole


@pytest.fixture(scope="module")
def whole() -> dict:
    return json.loads(doctor("--json").stdout)


def test_every_check_was_made_on_this_machine(whole: dict) -> None:
    assert len(whole["checks"]) >= len(OURS)
    assert [check for check in whole["checks"] if "could not be looked at" in check["meaning"]] == []
    assert {check["state"] for check in whole["checks"]} <= {"ok", "lack", "broken"}
    for check in whole["checks"]:
        assert check["found"] and (check["state"] == "ok") == (check["meaning"] == ""), check
        assert set(check["stops"]) <= set(whole["roads"])
    assert whole["ready"] == (not any(whole["roads"][road] for road in whole["asked"]))


def test_this_machine_can_grade(whole: dict) -> None:
    assert whole["asked"] == ["student", "grading"]  # in the repository
    assert whole["roads"]["grading"] == []


def test_it_is_said_whole_and_in_short() -> None:
    done = doctor()
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("Python", "sandbox level", "\nstudent", "\ngrading", "\nbrowser tests"):
        assert words in done.stdout
    done = doctor("--short")
    assert 2 <= len(done.stdout.splitlines()) <= 6
    assert done.stdout.startswith("this machine: ") and "tito doctor" in done.stdout


def test_a_road_that_there_is_none_of() -> None:
    done = doctor("--for", "mars")
    assert (done.returncode, done.stdout) == (1, "")
    assert "expected one of student, grading" in done.stderr and len(done.stderr.splitlines()) == 1


def test_nothing_but_the_standard_library_is_imported() -> None:
    code = "from tito.doctor import machine; import sys; machine.look(); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "tito" in loaded and loaded & HEAVY == set()


def test_before_any_package_is_installed() -> None:
    done = bare()
    assert done.returncode == 0, done.stdout + done.stderr
    assert 2 <= len(done.stdout.splitlines()) <= 6


def test_what_lacks_ends_with_2_and_says_the_command() -> None:
    done = bare(TITO_SANDBOX="steel")
    assert done.returncode == 2
    assert (
        "TITO_SANDBOX: unknown sandbox level 'steel'" in done.stdout
        and "mend: unset TITO_SANDBOX" in done.stdout
    )
    done = doctor("--for", "grading", TITO_SANDBOX="steel")
    assert done.returncode == 2 and "grading        lacks level (unset TITO_SANDBOX)" in done.stdout
    done = doctor("--for", "student", TITO_SANDBOX="steel")
    assert done.returncode == 0 and "\n-       level" in done.stdout
    assert "grading        lacks level: `tito doctor --for grading`" in done.stdout


@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_a_terminal_without_letters(env: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "Kurs #1 größe 100%"
    folder.mkdir()
    for done in (
        doctor(folder=folder, **env),
        doctor("--short", folder=folder, **env),
        bare(folder=folder, **env),
    ):
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.isascii() and "Traceback" not in done.stderr
    assert "gr\\xf6\\xdfe" in doctor(folder=folder, **env).stdout


def test_a_check_that_fails_or_hangs_keeps_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Check:
        raise RuntimeError("of its own")

    def hangs() -> Check:
        time.sleep(600)
        raise AssertionError

    monkeypatch.setattr(machine, "PATIENCE_S", 0.5)
    failed, late, fine = machine._answers([fails, hangs, lambda: checks.ok("fine", "here")])
    assert (failed.state, failed.found) == ("broken", "RuntimeError: of its own")
    assert (late.state, late.found) == ("broken", "no answer in 0.5 s")
    assert fine.state == "ok"


def test_many_lacks_are_six_lines() -> None:
    lacking = tuple(checks.lack(f"n{i}", "none", "nothing works", "mend it", ("grading",)) for i in range(9))
    said = machine.short(machine.Machine(lacking, ("grading",), "a system"))
    assert len(said) == 6 and said[-1] == "something is lacking; more on n4, n5, n6, n7, n8: `tito doctor`"


# ---- the numbers that stand elsewhere


def test_numbers_are_those_of_the_course() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert settings["requires-python"] == f">={checks.OLDEST[0]}.{checks.OLDEST[1]}"
    assert set(settings["optional-dependencies"]) <= set(installed.EXTRAS)
    assert sandbox.Limits().disk_bytes == checks.SUBMISSION_DISK
    assert rules.Limits().memory_bytes == checks.SUBMISSION_MEMORY


# ---- Python and the system


@pytest.mark.parametrize("name", ["checks", "installed", "machine", "__init__"])
def test_a_python_that_is_too_old_can_read_it(name: str) -> None:
    ast.parse((ROOT / "tito" / "doctor" / f"{name}.py").read_text(encoding="utf-8"), feature_version=(3, 8))


def test_a_python_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    found = machine.look(bare=True)
    assert [check.name for check in found.checks] == ["Python"] == [check.name for check in found.necessary]
    assert "3.11 or newer is needed" in machine.short(found)[1]


def test_a_python_without_venv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else 1)
    found = checks.python()
    assert found.state == "lack" and set(found.stops) == {"student", "grading"} and "venv" in found.mend


def test_one_core() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from tito.doctor import checks; found = checks.cores(); print(found.state, found.found, found.stops)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == f"lack 1 of {os.cpu_count()} ()\n", done.stderr


def test_a_containers_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"cpu.max": ["50000 100000", "max 100000"], "memory.max": ["max", "2000000000"]}
    monkeypatch.setattr(checks, "_cgroup_values", values.__getitem__)
    assert checks.cpu_quota() == 0.5
    assert (checks.cores().state, checks.cores().stops) == ("lack", ())
    assert checks.memory().state == "lack" and checks.memory().found.startswith("2.0 GB of ")
    values["memory.max"] = ["500000000"]
    assert checks.memory().stops == ("student", "grading")


FEDORA = 'NAME="Fedora Linux"\nID=fedora\nPRETTY_NAME="Fedora Linux 42"\n'
MINT = 'NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\nPRETTY_NAME="Linux Mint 22"\n'
OTHER = 'NAME="Alpine Linux"\nID=alpine\nPRETTY_NAME="Alpine 3"\n'


@pytest.mark.parametrize(
    ("release", "command"),
    [(FEDORA, "dnf install bubblewrap"), (MINT, "apt-get install bubblewrap"), (OTHER, "with this system's")],
)
def test_the_command_is_this_systems(release: str, command: str, tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text(release, encoding="utf-8")
    real = os.path.realpath("/etc/os-release")
    view = ["bwrap", "--dev-bind", "/", "/", "--ro-bind", str(tmp_path / "os-release"), real, "--"]
    needs(view)
    (tmp_path / "bin").mkdir()
    done = bare(*[shutil.which("bwrap"), *view[1:]], PATH=str(tmp_path / "bin"))
    assert "no bubblewrap (there is no program bwrap)" in done.stdout
    assert command in done.stdout and release.splitlines()[-1].split('"')[1] in done.stdout


@pytest.mark.parametrize(
    ("name", "value", "mend"),
    [
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_restrict_unprivileged_userns=0"),
        ("kernel/unprivileged_userns_clone", "0", "unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "max_user_namespaces=15000"),
    ],
)  # fmt: skip
def test_user_namespaces_that_are_closed(name: str, value: str, mend: str, tmp_path: Path) -> None:
    good = {"kernel/apparmor_restrict_unprivileged_userns": "0", "kernel/unprivileged_userns_clone": "1",
            "user/max_user_namespaces": "62000"}  # fmt: skip
    for setting, content in {**good, name: value}.items():
        (tmp_path / setting).parent.mkdir(exist_ok=True)
        (tmp_path / setting).write_text(f"{content}\n", encoding="ascii")
    assert mend in checks.mend_bubblewrap("No permissions to create a new namespace", tmp_path)
    (tmp_path / name).write_text(good[name], encoding="ascii")
    assert "sysctl" not in checks.mend_bubblewrap("No permissions to create a new namespace", tmp_path)


# ---- folders


def test_a_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checks.folder().state == "ok"
    tmp_path.chmod(0o500)  # nor may the owner write
    found = by_a_user(checks.folder)
    assert (found.state, found.mend) == ("broken", 'cd "$HOME"') and "Permission denied" in found.found


def test_a_folder_that_was_removed(tmp_path: Path) -> None:
    def removed() -> Check:
        os.mkdir(tmp_path / "gone")
        os.chdir(tmp_path / "gone")
        os.rmdir(tmp_path / "gone")
        assert checks.disk().state == "broken" and installed.here().state == "lack"
        return checks.folder()

    here = os.getcwd()
    try:
        assert (removed().state, removed().found) == ("broken", "removed")
    finally:
        os.chdir(here)


def test_programs_cannot_start_from_a_disk(tmp_path: Path) -> None:
    needs(["unshare", "-m"])
    disk = 'mount -t tmpfs -o noexec,size=50m none . && cd . && exec "$@"'
    done = bare("unshare", "-m", "sh", "-c", f'cd "{tmp_path}" && {disk}', "sh", folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "noexec" in done.stdout and "disk: 0.1 GB free" in done.stdout


def test_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.temporary().state == "ok"
    done = bare(TMPDIR=str(tmp_path / "none here"))
    assert done.returncode == 0 and "temporary folder" in done.stdout
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none here"))
    monkeypatch.setattr("tempfile.tempdir", None)
    found = checks.temporary()
    assert found.state == "broken" and found.mend == f"mkdir -p '{tmp_path}/none here'" and found.stops == ()


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checks.home().state == "ok"
    (tmp_path / ".jupyter").write_text("a file")
    assert checks.home().stops == ("student",)
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "settings"))
    assert checks.home().state == "ok"
    monkeypatch.setenv("HOME", "/nowhere")
    assert (checks.home().state, checks.home().stops) == ("lack", ())
    (tmp_path / "tito-home-1000").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "tito-home-1000"))  # in a terminal of tito lab
    assert "for want of one that can be written" in checks.home().found
    monkeypatch.delenv("HOME")
    assert (checks.home().state, checks.home().stops) == ("lack", ())


def test_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "tlh_QO.UTF-8")
    assert (
        checks.text().found.endswith("not installed here") and checks.text().mend == "export LC_ALL=C.UTF-8"
    )
    monkeypatch.delenv("LC_ALL")
    done = doctor("--json", PYTHONIOENCODING="cp1252")
    (text,) = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "text"]
    assert (text["state"], text["stops"]) == ("lack", []) and "cp1252" in text["found"]


def test_a_clock_that_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.clock().state == "ok"
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert checks.clock().state == "broken"


def test_no_way_within_the_machine() -> None:
    needs(["unshare", "-n"])
    done = bare("unshare", "-n")
    assert done.returncode == 2 and "broken: loopback: 127.0.0.1" in done.stdout


# ---- what is installed


def test_no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {check().name for check in installed.PROGRAMS if check().state == "ok"}
    assert "git" in there or not shutil.which("git")
    (tmp_path / "fc-list").write_text("#!/bin/sh\n")  # a machine with fontconfig, and no font
    monkeypatch.setenv("PATH", str(tmp_path))
    for check in (installed.git, installed.make, installed.chromium, installed.fonts, installed.hub_proxy):
        found = check()
        assert found.state == "lack" and found.mend and not set(found.stops) & {"student", "grading"}, found
    (tmp_path / "fc-list").chmod(0o755)
    assert installed.fonts().found == "fc-list lists none"


def test_packages_that_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed.packages().state == "ok"
    record = tmp_path / "torch_olympics-9.dist-info"
    record.mkdir()
    asked = "Requires-Dist: numpy>=2\nRequires-Dist: no-such-thing>=1\n"
    asked += 'Requires-Dist: nor-this[all]>=2; extra == "book"\nProvides-Extra: book\n'
    (record / "METADATA").write_text(f"Metadata-Version: 2.4\nName: torch-olympics\nVersion: 9\n{asked}")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = installed.packages()
    assert (found.state, found.found, found.stops) == ("lack", "no no-such-thing", ("student", "grading"))
    assert (
        installed.packages("book").found == "no nor-this" and installed.packages("book").mend == "make book"
    )
    monkeypatch.setattr(installed, "LIBRARY", tmp_path)
    assert installed.packages().mend.endswith(" install 'no-such-thing>=1'")
    assert installed.extras() == ["book"]


def test_a_numpy_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed.numpy().state == "ok"
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert installed.numpy().mend == "unset OPENBLAS_CORETYPE"
    (tmp_path / "numpy.py").write_text("raise ImportError('libfoo.so is not there')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = installed.numpy()
    assert (found.state, found.found) == ("broken", "ImportError: libfoo.so is not there")


@pytest.mark.parametrize(
    ("program", "words"), [("/gone/python", "which is gone"), ("/bin/sh", "starts /bin/sh")]
)
def test_a_kernel_of_another_python(
    program: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed.kernel().state == "ok"
    place = tmp_path / "kernels" / "python3"
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(
        json.dumps({"argv": [program], "display_name": "x", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    found = installed.kernel()
    assert found.state == "broken" and words in found.found and found.mend


def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path))
    found = installed.cifar10()
    assert (found.state, found.stops, found.mend) == ("lack", (), "tito data fetch cifar10")
    (tmp_path / CIFAR10_FOLDER).mkdir()
    for name in (*TRAIN_FILES, TEST_FILE):
        with open(tmp_path / CIFAR10_FOLDER / name, "wb") as file:
            file.truncate(3073 * 10_000)  # a hole: it takes no room
    assert installed.cifar10() == checks.ok("CIFAR-10", f"in {tmp_path}, by TINYTORCH_DATA")


def test_a_file_with_the_name_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert installed.names().state == "ok"
    (tmp_path / "random.py").touch()
    found = installed.names()
    assert (found.state, found.stops, found.mend) == ("broken", ("student",), "mv random.py my_random.py")


def test_where_we_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert installed.here().state == "lack" and installed.here().mend == "tito init my_olympics"
    (tmp_path / ".tito").mkdir()
    (tmp_path / ".tito" / "workspace.json").touch()
    assert installed.here().found == f"the workspace {tmp_path}"
    shutil.rmtree(tmp_path / ".tito")
    (tmp_path / "nbgrader_config.py").touch()
    assert installed.here().found == f"the course {tmp_path}"
    monkeypatch.setattr(checks, "LIBRARY", tmp_path)
    assert machine.main_roads() == ("student", "grading")


# ---- the sandbox


def test_the_level_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in sandbox.available():
        monkeypatch.setenv("TITO_SANDBOX", name)
        assert checks.level() == checks.ok("level", f"{name}, by TITO_SANDBOX")
    monkeypatch.delenv("TITO_SANDBOX")
    assert checks.level().found == f"{sandbox.best_level()}, the strongest that works here"


def test_a_level_that_is_not_to_be_had(tmp_path: Path) -> None:
    done = bare(PATH=str(tmp_path))
    assert done.returncode == 0 and "note: no bubblewrap" in done.stdout
    assert "sandbox level bubblewrap" not in done.stdout
    done = bare(PATH=str(tmp_path), TITO_SANDBOX="bubblewrap")
    assert (
        done.returncode == 2
        and "broken: level: none: TITO_SANDBOX: sandbox level bubblewrap does not work" in done.stdout
    )


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_a_students_own_system(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(checks, "_TRIALS", {})
    found = machine.look(bare=True)
    assert found.roads == ("student",) and found.necessary == [], found.necessary
    assert [check.name for check in found.checks if "could not be looked at" in check.meaning] == []
    assert found.found("level") == "none"
