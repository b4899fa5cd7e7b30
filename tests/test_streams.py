"""Letters that a terminal, a locale or an encoding lacks: no command ends for one."""

import ast
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from autograder import home
from autograder.errors import Missing
from tito import cli, lazy
from tito.errors import TitoError
from tito.student import olympics, workspace

ROOT = Path(__file__).resolve().parents[1]
OURS = [
    path
    for folder in ("autograder", "tito", "course", "tinytorch", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "entries" not in path.parts  # what stands there was measured, byte by byte
]


def without_encoding(tree):
    """Lines of calls that read or write text in the locale's encoding."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        words = {word.arg: word.value for word in node.keywords}
        mode = words.get("mode")
        if name == "open":  # open(path, mode), path.open(mode); os.open, tarfile.open and the like have none
            owner = getattr(node.func, "value", None)
            if isinstance(owner, ast.Name) and owner.id in ("os", "tarfile", "Image", "webbrowser"):
                continue
            place = 1 if owner is None or isinstance(owner, ast.Name) and owner.id == "io" else 0
            mode = node.args[place] if len(node.args) > place else mode
            text = "b" not in ast.literal_eval(mode) if isinstance(mode, ast.Constant) else mode is None
        elif name in ("fdopen", "NamedTemporaryFile", "TemporaryFile"):
            default = "r" if name == "fdopen" else "b"
            mode = node.args[1] if name == "fdopen" and len(node.args) > 1 else mode
            text = "b" not in (ast.literal_eval(mode) if isinstance(mode, ast.Constant) else default)
        elif name == "write_text":  # ours, of two, writes UTF-8
            text = isinstance(node.func, ast.Attribute) and len(node.args) == 1
        else:
            text = (name == "read_text" and not node.args) or bool(
                {"text", "universal_newlines"} & set(words)
                and "errors" not in words
                and name in ("run", "Popen", "check_output")
            )
        if text and "encoding" not in words:
            yield node.lineno


def test_every_text_names_its_encoding():
    found = []
    for path in OURS:
        text = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(ROOT)}:{line}" for line in without_encoding(ast.parse(text))]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "open(x)", "open(x, 'w')", "x.open()", "x.open('a')", "x.read_text()", "x.write_text('a')",
        "subprocess.run(x, text=True)", "os.fdopen(3, 'w')", "NamedTemporaryFile(mode='w')",
    ],
)  # fmt: skip
def test_a_text_without_encoding_is_found(line):
    assert list(without_encoding(ast.parse(line))) == [1]
    named = line[:-1] + (", " if line[-2] != "(" else "") + "encoding='utf-8')"
    assert list(without_encoding(ast.parse(named))) == []


LOCALES = {
    "cp1252": {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
    "C without UTF-8 mode": {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
locales = pytest.mark.parametrize("locale", LOCALES.values(), ids=LOCALES)
NAME = "ws ü #1 100% größe 李"


def in_locale(locale, *argv, cwd=None):
    """A program in a process of its own, in a locale; what it wrote, as bytes."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PYTHON"))}
    return subprocess.run(list(map(str, argv)), env={**env, **locale}, cwd=cwd, capture_output=True)


@locales
def test_every_letter_is_written_and_read(locale, tmp_path):
    """Also those of a file name that is no UTF-8, and a child's as it said them."""
    child, program = tmp_path / "ü.py", tmp_path / "program.py"
    child.write_text("import os; print('größe 李 🦊', os.path.basename(__file__))", encoding="utf-8")
    program.write_text(
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from autograder import streams; streams.ready()\n"
        "print('größe 李 🦊 \\udcff', flush=True)\n"
        "done = streams.run([sys.executable, os.path.join(os.path.dirname(__file__), 'ü.py')])\n"
        "sys.stdout.buffer.write(done.stdout.encode()); sys.exit(done.returncode)",
        encoding="utf-8",
    )
    done = in_locale(locale, sys.executable, program)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    ours, theirs = done.stdout.splitlines()
    assert ours.startswith(b"gr") and ours.endswith(b"\\udcff")
    assert theirs.decode() == "größe 李 🦊 ü.py"


@pytest.mark.parametrize("given", ["/dev/null", "/proc/none"])
def test_without_a_home_there_is_one(given, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", given)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    home.ready()
    made = Path(os.environ["HOME"])
    assert made.parent == tmp_path and made.stat().st_mode & 0o777 == 0o700
    assert len(capsys.readouterr().err.splitlines()) == 1
    home.ready()
    assert capsys.readouterr().err == "" and os.environ["HOME"] == str(made)
    monkeypatch.setenv("HOME", given)
    made.chmod(0o777)
    with pytest.raises(Missing, match="set HOME"):
        home.ready()


def test_an_account_without_a_name_is_asked_for_one(monkeypatch):
    def nobody():
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", nobody)
    with pytest.raises(TitoError, match="add --student"):
        olympics._login()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_one_line(number, monkeypatch, capsys):
    def full(**_):
        raise OSError(number, os.strerror(number), "/tmp/x")

    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith("tito: /tmp/x cannot be written (")
    assert len(said.splitlines()) == 1


def test_our_own_lines_go_where_ready_looks():
    """click's echo wraps a stream of ASCII anew and writes UTF-8 into it."""
    assert [str(path) for path in OURS if "typer.echo" in path.read_text(encoding="utf-8")] == []


READ_ONLY = [
    ["--version"], ["module", "status"], ["olympics", "rules", "--track", "language"],
    ["olympics", "leaderboard"], ["data", "list"], ["doctor", "--short"],
    ["course", "schedule", "--weeks", "2", "--start", "2027-01-11"], ["course", "grades", "größe"],
    ["benchmark", "size", "--model", "größe 李.pt"], ["explain", "größe", "05_李"],
    ["grade", "05", "--course", "größe"], ["build", "--check", "größe"], ["export", "--course", "größe 李"],
]  # fmt: skip


@locales
def test_every_command_that_only_reads_says_it_in_the_locales_letters(locale, tmp_path):
    """And the help of each: in one process, as `tito` runs them, in a workspace with an odd name."""
    ws = workspace.init(tmp_path / NAME)[0].root
    helps = [[*words, "--help"] for words in commands()]
    program = tmp_path / "all.py"
    program.write_text(
        "import json, sys\nfrom tito import cli\n"
        f"for words in json.loads({json.dumps(READ_ONLY + helps)!r}):\n"
        "    sys.argv = ['tito', *words]\n"
        "    try:\n        cli.main()\n    except SystemExit:\n        pass\n    print('-- ended')\n",
        encoding="utf-8",
    )
    done = in_locale({**locale, "PYTHONPATH": str(ROOT)}, sys.executable, program, cwd=ws)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode("utf-8", "replace")
    assert done.stdout.count(b"-- ended") == len(READ_ONLY) + len(helps) > 30
    plain = "utf-8" if locale == LOCALES["C"] else "ascii"  # Python itself takes UTF-8 there
    letters = locale.get("PYTHONIOENCODING", plain)
    assert done.stdout.decode(letters) and done.stderr.decode(letters)


def commands(group=None, before=()):
    """The words of every command of the command line."""
    group = group or typer.main.get_command(cli.app)
    for name in group.list_commands(None):
        one = group.get_command(None, name)
        one = one.load() if isinstance(one, lazy.Later) else one
        yield [*before, name]
        if hasattr(one, "list_commands"):
            yield from commands(one, [*before, name])


@pytest.mark.parametrize("name", ["cp1252", "C without UTF-8 mode"])
def test_a_students_commands_where_letters_are_lacking(name, tmp_path):
    """The real program in a folder of such letters: done as ever, and what fails is one line."""
    tito = Path(sys.executable).with_name("tito")
    for words, code in ((["init", NAME], 0), (["module", "status"], 0), (["module", "reset", "größe"], 1)):
        done = in_locale(LOCALES[name], tito, *words, cwd=tmp_path)
        said = done.stderr.decode("utf-8", "replace")
        assert done.returncode == code, (words, said)
        assert "Traceback" not in said and len(said.splitlines()) == code, said
    assert os.path.isfile(tmp_path / NAME / "01_tensor" / "01_tensor.ipynb")
