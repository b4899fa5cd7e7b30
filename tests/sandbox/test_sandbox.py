"""The sandbox, really run: what a program cannot reach, and that nothing of it stays."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

from autograder import sandbox
from autograder.sandbox import Limits, Program, cgroup, disk, landlock, levels


def run(code: str, level: str, limits: Limits | None = None, input=b"", **options) -> sandbox.Completed:
    argv = [sys.executable, "-P", "-s", "-B", "-c", textwrap.dedent(code)]
    return sandbox.run(Program(argv, level=level, limits=limits or Limits(wall_s=120), **options), input)


def alive(marker: str) -> list[int]:
    """Processes whose command line holds the marker."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if marker.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def gone(marker: str) -> bool:
    for _ in range(100):
        if not alive(marker):
            return True
        time.sleep(0.05)
    return False


def test_output_status_and_level_come_back(level):
    done = run(
        "import sys; print('out'); print(sys.stdin.read(), file=sys.stderr); sys.exit(7)", level, input=b"in"
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"in\n", 7)
    assert (done.reason, done.level) == ("", level)


def test_environment_is_not_ours(level, monkeypatch):
    monkeypatch.setenv("TITO_SECRET", "1")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    done = run("import os; print(sorted(os.environ))", level, env={"OWN": "1"})
    assert b"TITO_SECRET" not in done.stdout and b"PYTHONPATH" not in done.stdout and b"OWN" in done.stdout


def test_reads_named_folders_only(level, tmp_path):
    shown, secret = tmp_path / "shown", tmp_path / "secret"
    for folder in (shown, secret):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    (shown / "link").symlink_to(secret / "file")
    code = f"""
    for path in {[str(shown / "file"), str(shown / "link"), str(secret / "file"), "/etc/shadow"]!r}:
        try:
            print(open(path).read(8))
        except OSError as error:
            print(type(error).__name__)
    """
    done = run(code, level, readable=[shown])
    answers = done.stdout.decode().split()
    assert answers[0] == "shown"
    if level != "rlimits":
        assert "secret" not in answers[1:] and len(answers) == 4


def test_writes_named_folders_and_a_private_tmp_only(level, tmp_path):
    given, shown = tmp_path / "given", tmp_path / "shown"
    given.mkdir()
    shown.mkdir()
    code = f"""
    import os, tempfile
    tempfile.TemporaryFile().write(b"x")
    open({str(given / "new")!r}, "w").write("mine")
    for path in {[str(shown / "new"), str(tmp_path / "new"), "/usr/new-file", "/new-file"]!r}:
        try:
            open(path, "w")
            print("wrote", path)
        except OSError:
            continue
    """
    done = run(code, level, readable=[shown], writable=[given])
    assert (given / "new").read_text() == "mine", done.stderr
    if level != "rlimits":
        wrote = done.stdout.decode().split("\n")[:-1]
        assert wrote in ([], [f"wrote {tmp_path / 'new'}"])  # bubblewrap's own /tmp, seen by nobody else
        assert not (shown / "new").exists() and not (tmp_path / "new").exists()
    for path in ("/usr/new-file", "/new-file"):  # level rlimits as root can
        if os.path.exists(path):
            os.unlink(path)


def test_modes_and_dates_of_others_stay(level, tmp_path):
    """Landlock alone lets a program open to all, or close, any file of its user's; copying must not fail."""
    if level == "rlimits":
        pytest.skip("level rlimits does not promise this")
    (tmp_path / "kept").write_text("mine")
    (tmp_path / "kept").chmod(0o640)
    before = (tmp_path / "kept").stat()
    code = f"""
    import contextlib, os, shutil, tempfile
    path = {str(tmp_path / "kept")!r}
    for attempt in (
        lambda: os.chmod(path, 0o777), lambda: os.fchmod(os.open(path, os.O_RDONLY), 0o777),
        lambda: os.chown(path, os.getuid(), os.getgid()), lambda: os.setxattr(path, "user.mine", b"x"),
        lambda: os.utime(path, (1, 1)),
    ):
        with contextlib.suppress(OSError):
            attempt()
    print(open(shutil.copy(path, tempfile.mkdtemp())).read())
    """
    for shown in ([], [tmp_path]):
        done = run(code, level, readable=shown)
        after = (tmp_path / "kept").stat()
        assert (after.st_mode, after.st_mtime, after.st_ctime) == (
            before.st_mode,
            before.st_mtime,
            before.st_ctime,
        )
    assert done.stdout == b"mine\n", done.stderr


def test_private_tmp_is_removed(level):
    done = run("import tempfile; print(tempfile.mkdtemp())", level)
    assert not os.path.exists(done.stdout.decode().strip())


def test_no_network(level):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = run(f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=5)", level)
        assert done.returncode == 1, "it reached a server of the host"
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_loopback_works_for_a_kernel(level):
    done = run(
        """
        import socket
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        client.sendall(b"hello")
        print(server.accept()[0].recv(5))
        """,
        level,
        loopback=True,
    )
    assert done.stdout == b"b'hello'\n", done.stderr


def test_wall_clock(level):
    done = run("import time; time.sleep(200)", level, Limits(wall_s=0.4))
    assert done.reason.startswith("time limit") and done.seconds < 50


def test_memory_of_the_whole_tree(level):
    code = """
    import os, time
    for _ in range(4):
        if os.fork() == 0:
            held = bytearray(os.urandom(1 << 20) * 60)
            time.sleep(200)
    time.sleep(200)
    """
    done = run(code, level, Limits(wall_s=120, memory_bytes=150 << 20))
    assert done.reason.startswith("memory limit"), done
    assert done.peak_memory >= 150 << 20


def test_pages_shared_by_forks_count_once(level):
    code = """
    import os, time
    held = bytearray(os.urandom(1 << 20) * 60)
    for _ in range(4):
        if os.fork() == 0:
            time.sleep(0.4)
            os._exit(0)
    time.sleep(0.5)
    """
    assert run(code, level, Limits(wall_s=120, memory_bytes=150 << 20)).reason == ""


def test_one_huge_request_fails_in_the_program(level):
    done = run("bytearray(10**11)", level, Limits(memory_bytes=100 << 20))
    assert b"MemoryError" in done.stderr


def test_fork_bomb(level):
    marker = f"bomb-{os.getpid()}-{level}"
    code = f"""
    import os, time
    marker = {marker!r}
    for _ in range(400):  # bounded by itself: counting the machine's processes made two bombs at once give up
        try:
            if os.fork() == 0:
                os.setsid()
                time.sleep(200)
        except OSError:
            time.sleep(0.01)
    time.sleep(200)
    """
    done = run(code, level, Limits(wall_s=120, processes=10, threads=100))
    assert done.reason.startswith(("process limit", "thread limit")), done
    assert done.seconds < 100 and gone(marker)


def test_thread_bomb(level):
    code = """
    import threading, time
    for _ in range(300):
        threading.Thread(target=time.sleep, args=(200,), daemon=True).start()
    time.sleep(200)
    """
    done = run(code, level, Limits(wall_s=120, processes=5, threads=60))
    assert done.reason.startswith("thread limit") or b"can't start new thread" in done.stderr
    assert done.seconds < 100


def test_orphans_are_killed_at_the_end(level):
    marker = f"orphan-{os.getpid()}-{level}"
    code = f"""
    import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            marker = {marker!r}
            for fd in range(3):
                os.close(fd)
            time.sleep(200)
        os._exit(0)
    os.wait()
    """
    assert run(code, level).returncode == 0
    assert gone(marker)


def test_tree_dies_with_the_grader(level):
    marker = f"survivor-{os.getpid()}-{level}"
    code = f"import time; marker = {marker!r}; time.sleep(200)"
    grader = subprocess.Popen(
        [sys.executable, "-c", f"""
import sys, time
from autograder import sandbox
p = sandbox.start(sandbox.Program([sys.executable, "-I", "-c", {code!r}], level={level!r}))
print("started", flush=True)
time.sleep(200)
"""],
        stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert grader.stdout and grader.stdout.readline() == b"started\n"
    for _ in range(100):
        if len(alive(marker)) > 1:
            break
        time.sleep(0.05)
    grader.send_signal(signal.SIGKILL)
    grader.wait()
    grader.stdout.close()
    assert gone(marker)


def test_file_size(level, tmp_path):
    code = f"open({str(tmp_path / 'big')!r}, 'wb').write(bytes(3_000_000))"
    done = run(code, level, Limits(file_bytes=1_000_000), writable=[tmp_path])
    assert b"File too large" in done.stderr and (tmp_path / "big").stat().st_size <= 1_000_000


HOARD = """
import os, time
tmp = os.environ["TMPDIR"]
for n in range(12):
    path = os.path.join({folder}, str(n))
    with open(path, "wb") as file:
        file.write(bytes(1_000_000))
        {then}
time.sleep(200)
"""


@pytest.mark.parametrize("then", ["pass", "os.unlink(path); os.dup(file.fileno())"])
def test_disk_in_all(level, tmp_path, then):
    """Also what was deleted and is held open."""
    code = HOARD.format(folder=repr(str(tmp_path)), then=then)
    (tmp_path / "ours").write_bytes(bytes(20_000_000))  # what was there before does not count
    done = run(code, level, Limits(wall_s=120, disk_bytes=5_000_000), writable=[tmp_path])
    assert done.reason.startswith("disk limit") and done.reason.endswith("MB written, 5 MB allowed"), done


def test_disk_of_the_private_tmp(level):
    limits = Limits(wall_s=120, disk_bytes=5_000_000, tmp_bytes=5_000_000)
    done = run(HOARD.format(folder="tmp", then="pass"), level, limits)
    assert b"No space left" in done.stderr or done.reason.startswith("disk limit"), done


def test_a_closed_folder_hides_nothing_from_the_count(level, tmp_path):
    if os.getuid() == 0:  # may look into everything but this
        make = "for _ in range(30): os.mkdir('x' * 200); os.chdir('x' * 200)"
    else:
        make = "os.mkdir('x', 0)"
    code = f"import os, time; os.chdir({str(tmp_path)!r})\n{make}\ntime.sleep(200)"
    done = run(code, level, Limits(wall_s=120), writable=[tmp_path])
    assert done.reason.startswith("disk limit: it made a folder that cannot be looked into"), done
    shutil.rmtree(tmp_path)


def test_a_long_count_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_STEP", 3)
    monkeypatch.setattr(disk, "_PAUSE_S", 0.0)
    watch = disk.DiskWatch([str(tmp_path)], 10_000, lambda: [])
    for n in range(12):
        (tmp_path / str(n)).write_bytes(bytes(1000))
    answers = [watch.reason() for _ in range(10)]
    assert answers[0] == "" and any(answer.startswith("disk limit") for answer in answers)


def test_processor_time_of_the_whole_tree(level):
    code = """
    import os, time
    for _ in range(3):
        if os.fork() == 0:
            while True:
                pass
    time.sleep(200)
    """
    done = run(code, level, Limits(wall_s=120, cpu_s=0.8))
    assert done.reason.startswith("cpu limit"), done


def test_processor_time_of_ended_children_counts(level):
    code = """
    import os, time
    while True:
        if os.fork() == 0:
            end = time.process_time() + 0.1
            while time.process_time() < end:
                pass
            os._exit(0)
        os.wait()
    """
    done = run(code, level, Limits(wall_s=120, cpu_s=0.8))
    assert done.reason.startswith("cpu limit"), done


def test_memory_is_held_by_a_cgroup_where_there_is_one(level):
    """Runs where the machine delegates a cgroup (`systemd-run --user --scope make test`)."""
    done = run("pass", level)
    if done.memory_by != "cgroup":
        pytest.skip("no cgroup to be had on this machine")
    code = "import os; held = [bytearray(os.urandom(1 << 20)) for _ in range(300)]; print('held it')"
    done = run(code, level, Limits(wall_s=120, memory_bytes=100 << 20))
    assert done.reason.startswith("memory limit") and b"held it" not in done.stdout
    assert not [folder for parent in cgroup._parents() for folder in Path(parent).glob("olympics-*")]


def test_our_own_cgroup_is_found():
    plain = "30 20 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n"
    part = "30 20 0:26 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    own = "1:name=systemd:/\n0::/docker/ab/x\n"
    assert cgroup.locate(own, plain) == ("/sys/fs/cgroup", "/sys/fs/cgroup/docker/ab/x")
    assert cgroup.locate(own, part) == ("/sys/fs/cgroup", "/sys/fs/cgroup/x")
    assert cgroup.locate("0::/docker/ab\n", part) == ("/sys/fs/cgroup", "/sys/fs/cgroup")
    assert cgroup.locate("0::/other\n", part) is None
    assert cgroup.locate("0::/../x\n", plain) is None
    assert cgroup.locate("4:memory:/x\n", plain) is None
    assert cgroup.locate(own, "30 20 0:26 / /sys rw - sysfs sysfs rw\n") is None


def test_output_size(level):
    done = run("while True: print('x' * 1000)", level, Limits(output_bytes=100_000, wall_s=120))
    assert done.reason.startswith("output limit") and len(done.stdout) <= 100_000


def test_packages_are_hidden(level):
    """An import of what is not shown fails alike at every level, also where its files can be read."""
    radon = importlib.util.find_spec("radon").origin
    code = f"""
    import numpy, sys
    try:
        import radon
    except ImportError as error:
        print(type(error).__name__)
    try:
        open({radon!r})
        print("read it")
    except OSError:
        pass
    """
    done = run(code, level, packages=("numpy",))
    said = b"ModuleNotFoundError\n" + (b"read it\n" if level == "rlimits" else b"")
    assert (done.returncode, done.stdout) == (0, said), done


ODD = "Kurs #1 größe 100%"  # a folder's name; the tests of every level work in one


def test_a_package_is_imported_and_nothing_beside_it(level, tmp_path):
    """Landlock did not let Python list the folder above a package: `make demo` ended there."""
    place = tmp_path / ODD
    (place / "mine").mkdir(parents=True)
    (place / "mine" / "__init__.py").write_text("from mine.part import answer")
    (place / "mine" / "part.py").write_text("answer = 42")
    (place / "alone.py").write_text("import mine")
    (place / "beside.py").write_text("secret = 1")
    (place / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    code = """
    import alone, mine, numpy
    print(mine.answer)
    try:
        import beside
    except ModuleNotFoundError as error:
        print(error)
    """
    shown = [place / "mine", place / "alone.py"]
    for packages in (None, ("numpy",)):
        done = run(code, level, importable=shown, packages=packages)
        assert done.stdout == b"42\nNo module named 'beside'\n", done.stderr


@pytest.mark.parametrize("how", ["env", "argv", "cwd"])
def test_a_path_that_it_does_not_see_is_refused_at_every_level(level, tmp_path, how):
    """So that what works here works where the sandbox is another one."""
    place = tmp_path / ODD
    (place / "shown").mkdir(parents=True)
    argv, env, cwd = [sys.executable, "-c", "pass"], {"OWN": f"relative:/no/such/folder:{place}/shown"}, None
    sandbox.run(Program(argv, level=level, readable=[place / "shown"], env=env, cwd=place / "shown"))
    if how == "env":
        env["PYTHONPATH"] = f"{place}/shown:{place}"
    elif how == "argv":
        argv.append(str(place))
    else:
        cwd = place
    with pytest.raises(ValueError, match=f"is told of {place}, which it does not see"):
        sandbox.run(Program(argv, level=level, readable=[place / "shown"], env=env, cwd=cwd))


def test_python_that_ignores_its_path_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    for option in ("-I", "-E"):
        with pytest.raises(ValueError, match="use -P -s"):
            argv = [sys.executable, "-B", option, "-c", ""]
            sandbox.run(Program(argv, level="rlimits", importable=[tmp_path / "mine"]))


def test_nothing_stays_in_the_temporary_folder(level, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run("pass", level, packages=("numpy",))
    with pytest.raises(FileNotFoundError, match="package no_such_package is not installed"):
        run("pass", level, packages=("no_such_package",))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("pass", level, packages=("numpy",))
    assert os.listdir(tmp_path) == []


def test_a_linked_environment_does_not_show_what_is_hidden(level, tmp_path, monkeypatch):
    if level == "rlimits":
        pytest.skip("level rlimits does not promise this")
    link = tmp_path / "env"
    link.symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "prefix", str(link))
    code = f"""
    import glob, sys
    sys.path[:0] = glob.glob({str(link)!r} + "/lib/python*/site-packages")
    print(len(sys.path[0]) > 0 and {str(link)!r} in sys.path[0])
    import numpy
    try:
        import radon
        print("radon")
    except (ImportError, OSError):
        pass
    """
    for shown in ([], [tmp_path]):
        done = run(code, level, packages=("numpy",), readable=shown)
        assert (done.returncode, done.stdout) == (0, b"True\n"), done


def test_no_rights_over_kernel_or_grader(level):
    if level == "rlimits":
        pytest.skip("level rlimits does not promise this")
    code = f"""
    import os
    for attempt in (
        lambda: os.open("/proc/sys/kernel/hostname", os.O_WRONLY),
        lambda: os.kill({os.getpid()}, 0),
        lambda: os.kill(os.getppid(), 0) if os.getppid() > 1 else 1 / 0,
        lambda: os.open("/proc/{os.getpid()}/environ", os.O_RDONLY),
        lambda: os.open("/proc/{os.getpid()}/mem", os.O_RDONLY),
        lambda: os.chroot("/tmp"),
    ):
        try:
            attempt()
            print("could", attempt.__code__.co_names)
        except (OSError, ZeroDivisionError):
            continue
    """
    done = run(code, level)
    assert done.returncode == 0 and done.stdout == b"", done


def test_no_signal_to_everything(level):
    """Signal 0 asks whether there is a process that a deadly one would reach; none is sent."""
    done = run(
        """
        import os
        os.kill(os.getpid(), 0)
        os.killpg(0, 0)
        try:
            os.kill(-1, 0)
        except OSError as error:
            print(type(error).__name__)
        """,
        level,
    )
    nobody = b"ProcessLookupError" if level == "bubblewrap" else b"PermissionError"
    assert (done.returncode, done.stdout.strip()) == (0, nobody), done


def test_a_kernel_that_keeps_no_signals_in_refuses_the_one_to_everything():
    code = "import os\nfrom autograder.sandbox import landlock\nlandlock.landlock_abi = lambda: 5\n"
    code += "landlock.keep_signals_in()\nos.kill(os.getppid(), 0)\ntry:\n    os.kill(-1, 0)\n"
    code += "except PermissionError:\n    print('refused')"
    if not landlock.can_refuse_network():
        pytest.skip("no filter of system calls for this processor")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout == "refused\n", done


def test_no_further_namespaces():
    if "bubblewrap" not in sandbox.available():
        pytest.skip("no bubblewrap on this machine")
    done = run("import ctypes; print(ctypes.CDLL(None).unshare(0x10000000))", "bubblewrap")
    assert done.stdout == b"-1\n"


def test_memory_can_be_asked_while_it_runs(level):
    code = "x = bytearray(b'1' * 50_000_000); import time; time.sleep(200)"
    program = Program([sys.executable, "-I", "-c", code], level=level, limits=Limits(wall_s=120))
    with sandbox.start(program) as process:
        for _ in range(100):
            now, peak = process.memory()
            if now > 50_000_000:
                break
            time.sleep(0.05)
        assert 50_000_000 < now <= peak
        with pytest.raises(TimeoutError):
            process.wait(0.05)
        assert process.kill().reason == "stopped by the grader"
        assert process.memory()[0] == 0


def test_two_threads_of_a_grader_do_not_disturb_each_other(level):
    results = {}

    def one(n):
        results[n] = run(f"import time; time.sleep(0.2); print({n})", level).stdout

    threads = [threading.Thread(target=one, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: f"{n}\n".encode() for n in range(3)}


def test_a_level_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(levels, "available", lambda: ("rlimits",))
    with pytest.raises(sandbox.SandboxUnavailable, match="bubblewrap does not work on this machine"):
        run("pass", "bubblewrap")
    with pytest.raises(ValueError, match="unknown sandbox level"):
        run("pass", "none")


def test_the_level_where_none_is_named(monkeypatch):
    monkeypatch.setattr(levels, "available", lambda: ("landlock", "rlimits"))
    monkeypatch.delenv(sandbox.SETTING, raising=False)
    assert (sandbox.choose(), sandbox.choose("rlimits"), sandbox.choose(least="rlimits")) == (
        "landlock", "rlimits", "rlimits",
    )  # fmt: skip
    monkeypatch.setenv(sandbox.SETTING, "rlimits")
    assert (sandbox.choose(), sandbox.choose("landlock")) == ("rlimits", "landlock")
    assert sandbox.choose("landlock", least="rlimits") == "landlock"  # stronger than it must be
    monkeypatch.setenv(sandbox.SETTING, "")
    assert sandbox.choose() == "landlock"


def test_a_setting_that_cannot_be_is_refused(monkeypatch):
    """Never replaced by another level, and the message names the setting."""
    monkeypatch.setattr(levels, "available", lambda: ("landlock", "rlimits"))
    monkeypatch.setenv(sandbox.SETTING, "bubblewrap")
    with pytest.raises(sandbox.SandboxUnavailable, match="^TITO_SANDBOX: sandbox level bubblewrap does not"):
        sandbox.choose()
    monkeypatch.setenv(sandbox.SETTING, "chroot")
    with pytest.raises(sandbox.UnknownLevel, match="^TITO_SANDBOX: unknown sandbox level 'chroot'"):
        sandbox.choose()
    assert sandbox.choose("rlimits") == "rlimits"


def test_less_than_a_course_demands_is_refused(monkeypatch):
    monkeypatch.setattr(levels, "available", lambda: ("landlock", "rlimits"))
    monkeypatch.setenv(sandbox.SETTING, "rlimits")
    with pytest.raises(sandbox.SandboxUnavailable, match="grades at sandbox level landlock .* TITO_SANDBOX"):
        sandbox.choose(least="landlock")
    with pytest.raises(sandbox.SandboxUnavailable, match="grades at sandbox level landlock .* --level"):
        sandbox.choose("rlimits", least="landlock")
    monkeypatch.delenv(sandbox.SETTING)
    with pytest.raises(sandbox.SandboxUnavailable, match="bubblewrap does not work on this machine"):
        sandbox.choose(least="bubblewrap")


def test_wrong_orders_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        run("pass", "rlimits", readable=[tmp_path / "missing"])
    with pytest.raises(ValueError, match="absolute"):
        sandbox.run(Program(["python"], level="rlimits"))


def test_a_program_that_is_not_there(level):
    done = sandbox.run(Program(["/usr/bin/no-such-program"], level=level))
    assert done.returncode != 0 and (done.reason or done.stderr)


def test_as_an_ordinary_user(level, ordinary_user):
    root = Path(__file__).parents[2]
    code = f"""
import sys
sys.path.insert(0, {str(root)!r})
from autograder import sandbox
if {level!r} not in sandbox.available():
    print("not for this user")
    raise SystemExit
bomb = "import os, time\\nfor _ in range(200): os.fork() or time.sleep(200)"
limits = sandbox.Limits(wall_s=120, processes=5, threads=20)
done = sandbox.run(sandbox.Program([sys.executable, "-I", "-c", bomb], level={level!r}, limits=limits))
print(done.reason.split(":")[0] or done.stderr.split()[-1].decode(), done.seconds < 100)
"""
    done = subprocess.run([*ordinary_user, "-c", code], capture_output=True, timeout=300)
    if b"not for this user" in done.stdout:
        pytest.skip(f"no {level} for an ordinary user")
    assert done.stdout in (b"unavailable True\n", b"process limit True\n"), done
