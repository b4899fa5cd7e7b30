"""The handbook's parts without a browser: nothing typed that could be run, the calculator, maps, links."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("myst_nb", reason="the handbook's packages are not installed: make book")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "course" / "_ext"))

from handbook import (  # noqa: E402
    build,
    charts,
    commands,
    console,
    course,
    docstrings,
    links,
    messages,
    pages,
    scoring,
    scratch,
)
from markdown_it import MarkdownIt  # noqa: E402

from autograder.scoring import rules, scores  # noqa: E402

WRITTEN = [path for path in sorted((ROOT / "course").rglob("*.md")) if "entries" not in path.parts]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: path.relative_to(ROOT / "course").as_posix())
def test_every_block_of_code_is_run_or_says_why_not(page):
    """A plain fence or an indented block could be wrong for years; a directive fails the build."""
    tokens = MarkdownIt().parse(
        re.sub(r"\A---\n.*?\n---\n", "", page.read_text(encoding="utf-8"), flags=re.S)
    )
    plain = [token for token in tokens if token.type == "code_block"]
    plain += [token for token in tokens if token.type == "fence" and not token.info.startswith("{")]
    assert not plain, f"use {{console}}, {{code-cell}}, {{message}} or {{not-run}}: {plain[0].content}"


def test_few_commands_are_not_run_and_each_says_why():
    found = [line for page in WRITTEN for line in page.read_text().splitlines() if "{not-run}" in line]
    reasons = [line.partition("{not-run}")[2].strip() for line in found if line.startswith("```")]
    assert 0 < len(reasons) <= 5 and all(len(reason) > 8 for reason in reasons)


# ---- lessons


def test_every_lesson_has_its_outline_in_order():
    lessons = course.lessons()
    assert [outline.number for outline in lessons] == [f"{n:02d}" for n in range(1, len(lessons) + 1)]
    for outline in course.outlines().values():
        assert outline.hours > 0 and outline.points > 0 and outline.build and outline.why and outline.tips
        assert not outline.number or all(near < outline.name for near in outline.needs)


def test_needs_are_what_the_notebook_imports():
    assert course.outlines()["05_autograd"].needs == ["01_tensor", "02_activations", "04_losses"]
    assert "15_quantization" in course.outlines()["compression"].needs  # by `from tinytorch import quantize`
    assert course.outlines()["10_tokenization"].needs == []


def test_arrows_that_follow_from_others_are_left_out():
    assert course.reduced({"a": [], "b": ["a"], "c": ["a", "b"]}) == {"a": [], "b": ["a"], "c": ["b"]}


def test_the_map_has_every_box_below_what_it_needs_and_escapes_labels():
    needs = {"a": [], "b": ["a"], "c": ["b", "a"]}
    paths, rows = charts.routes(needs)
    assert ["a" in rows[0], "b" in rows[1], "c" in rows[2]] == [True] * 3
    assert max(paths, key=len)[0::2] == ["a", "c"] and len(max(paths, key=len)) == 3  # past b, not through it
    drawn = charts.lesson_map(needs, {"a": "<a>", "b": "b", "c": "c"}, "what & why", "k")
    assert drawn.count("<rect") == 3 and "&lt;a&gt;" in drawn and "what &amp; why" in drawn


# ---- scores


def test_the_calculator_agrees_with_the_scorer(tmp_path):
    """Random entries of every track and data set: scores, points, total and gate, here and in the page."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: it runs the calculator's script")
    draw, table, cases, expected = random.Random(5), scoring.constants(), [], []
    for track, rule in rules.TRACKS.items():
        for dataset, ramps in rule.ramps.items():
            for _ in range(400):
                figures = {name: _figure(ramp, draw) for name, ramp in ramps.items()}
                gates = {
                    name: figures["speed"] if name == rule.rate else draw.choice([0.5, draw.random()])
                    for name in rule.gates
                }
                quality, innovation = draw.choice([0.0, 1.0, draw.uniform(-0.2, 1.2)]), draw.randint(0, 10)
                cases.append([table[track][dataset], figures, quality, innovation, gates])
                scored = scores.score(rule, dataset, figures, quality=quality, gates=gates)
                composite = scores.composite(scored.points, innovation)
                expected.append((scored, composite))
    script = ROOT / "course" / "_ext" / "handbook" / "calculator.js"
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    code = (
        f"const {{olympicScore}} = require({json.dumps(str(script))});"
        "const cases = JSON.parse(require('fs').readFileSync('cases.json'));"
        "console.log(JSON.stringify(cases.map((c) => olympicScore(...c))));"
    )
    done = subprocess.run([node, "-e", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    for got, (scored, composite) in zip(json.loads(done.stdout), expected, strict=True):
        assert got["points"] == scored.points and got["total"] == scored.total, (got, scored)
        assert got["composite"] == composite and got["passed"] == scored.gate_passed
        assert got["scores"] == pytest.approx(scored.scores, abs=1e-12)


def _figure(ramp: rules.Ramp, draw: random.Random) -> float:
    """A figure on, between or outside of the marks."""
    marks = [figure for figure, _ in ramp.points]
    low, high = min(marks), max(marks)
    if draw.random() < 0.2:
        return draw.choice([*marks, low / 3 + 1e-9, high * 1.5])
    return low * (high / low) ** draw.random() if ramp.logarithmic else draw.uniform(low, high)


@pytest.mark.parametrize("track", rules.TRACKS)
def test_worked_examples_give_the_entrys_own_total(track):
    entry = scoring.measured(track)
    assert f"**{entry.total:g}**" in scoring.example(track)


def test_an_entry_that_the_rules_score_otherwise_stops_the_build(monkeypatch):
    entry = scoring.measured("vision")
    changed = scoring.Measured(**{**vars(entry), "total": entry.total + 1})
    monkeypatch.setattr(scoring, "measured", lambda track: changed)
    with pytest.raises(ValueError, match="measure the entry again"):
        scoring.example("vision")


# ---- messages, commands, links


def test_every_message_in_the_book_is_printed_by_the_file_that_it_names():
    """What the build refuses, seen before it: a message that moved to another file."""
    block = re.compile(r"^```\{message\} (\S+)\n(.*?)\n```", re.M | re.S)
    shown = [found for page in (ROOT / "course").rglob("*.md") for found in block.findall(page.read_text())]
    assert len(shown) >= 15
    assert [(file, text) for file, text in shown if not messages.printed_by(file, text)] == []


def test_a_message_is_found_in_the_source_that_prints_it():
    assert messages.printed_by("autograder/scoring/client.py", "time limit: no answer within 120 s")
    assert messages.printed_by(
        "tito/student/module.py", "nothing exported: tinytorch.x cannot be imported: NameError"
    )
    assert not messages.printed_by("autograder/scoring/client.py", "time limit: no answer within an hour")
    assert not messages.printed_by("tito/student/module.py", "time limit: no answer within 120 s")


def test_commands_run_in_a_home_of_their_own(tmp_path):
    place = console.Place("empty", tmp_path)
    assert place.run("echo $HOME; pwd") == (0, "~\n~")
    assert place.run("mkdir a && cd a && false")[0] == 1
    assert place.run("pwd") == (0, "~/a")
    assert place.run("export SAID=hello; NOT=exported")[0] == 0
    assert place.run("echo $SAID $NOT") == (0, "hello")  # so `. olympics/bin/activate` holds
    assert place.run("printf 'one\\rtwo\\n\\033[1mbold\\033[0m'") == (0, "two\nbold")


SERVER = """
import http.server, sys
class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/lab?token=abc1" else 404)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", 0), Pages)
print("hello\\n[I log] http://127.0.0.1:%d/lab?token=abc1" % server.server_port, flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    open("ended", "w").close()
"""


def test_a_server_answers_and_is_ended(tmp_path):
    place = console.Place("empty", tmp_path)
    (place.home / "serve.py").write_text(SERVER)
    said, address = place.serve("python serve.py", ["lab"])
    assert said == "hello" and re.fullmatch(r"http://127\.0\.0\.1:\d+/lab", address)
    assert (place.home / "ended").is_file()  # as Ctrl-C ends it
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{address}?token=abc1", timeout=5)
    with pytest.raises(console.ExtensionError, match="/formgrader does not answer: .* 404"):
        place.serve("python serve.py", ["lab", "formgrader"])
    with pytest.raises(console.ExtensionError, match="ended and gave no address"):
        place.serve("echo no server", ["lab"])


LATE = """
import os, sys, time
from pathlib import Path
if not Path("tried").exists():  # another program was faster
    Path("tried").touch()
    sys.exit("[C log] no available port could be found.")
os.environ["PORT"] = sys.argv[1]
print("[I log] http://127.0.0.1:%s/lab?token=abc1" % sys.argv[1], flush=True)
time.sleep(1)
exec(open("serve.py").read().replace('("127.0.0.1", 0)', f'("127.0.0.1", {sys.argv[1]})'))
"""


def test_a_server_that_lost_its_port_or_listens_late_is_waited_for(tmp_path):
    """Jupyter says an address first and listens there later: pages built together found it refused."""
    place = console.Place("empty", tmp_path)
    (place.home / "serve.py").write_text(SERVER)
    (place.home / "late.py").write_text(LATE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert place.serve(f"python late.py {port}", ["lab"])[1] == f"http://127.0.0.1:{port}/lab"
    assert (place.home / "tried").is_file()


def test_the_books_servers_take_a_free_port(tmp_path):
    assert console.environment(tmp_path)["JUPYTER_PORT"] == "0"


def test_nothing_that_a_page_starts_outlives_it(tmp_path):
    """Sessions of their own and what was put into the background; after a server, too."""
    place = console.Place("empty", tmp_path)
    start = "from subprocess import Popen; print(Popen(['sleep', '1000'], start_new_session=True).pid)"
    code, said = place.run(f'python -c "{start}"; sleep 1000 & echo $!')
    assert code == 0 and not any(Path("/proc", pid).exists() for pid in said.split())


def test_the_wheel_is_installed_as_the_page_says_and_runs_alone(tmp_path):
    """start.md: pip takes the packages that are here, and the tito that runs is the wheel's."""
    place = console.Place("wheel", tmp_path)
    for line in (
        "python3 -m venv olympics",
        ". olympics/bin/activate",
        "pip install torch_olympics-*.whl",
    ):
        code, said = place.run(line)
        assert code == 0, said
    assert "Successfully installed torch-olympics" in said
    assert place.run("command -v tito") == (0, "~/olympics/bin/tito")
    code, where = place.run("python -c 'import tito; print(tito.__file__)'")
    assert code == 0 and where.startswith("~/olympics/lib/")
    code, said = place.run("tito doctor --for student")
    assert code == 0 and "\nstudent        ready" in said, said
    assert place.run("tito init my")[0] == 0
    assert "JupyterLab on ~/my" in place.serve("tito lab my", ["lab/tree/Start.md"])[0]


def test_a_piece_goes_where_the_page_says(tmp_path):
    path = tmp_path / "rules.py"
    path.write_text("A = 1\nTRACKS = {\n}\n")
    scratch.insert(path, "TRACKS", '    "noisy": 2,\n', before=False)
    scratch.insert(path, "TRACKS", "B = 2\n", before=True)
    assert path.read_text() == 'A = 1\nB = 2\n\n\nTRACKS = {\n    "noisy": 2,\n}\n'
    with pytest.raises(ValueError, match="has 0 lines that begin with 'MEASURES'"):
        scratch.insert(path, "MEASURES", "x", before=True)


def test_the_reference_has_every_command_with_its_options():
    page = (ROOT / "course" / "api" / "commands.md").read_text(encoding="utf-8")
    named = " ".join(re.findall(r"^```\{commands\} (.*)$", page, re.M)).split()
    assert sorted(named) == sorted(commands.tree())
    assert {"course init", "leaderboard merge", "module restore"} <= {
        w for ws in commands.tree().values() for w in ws
    }
    assert "--start" in commands.help_of("course init") and "tito course init" in commands.help_of(
        "course init"
    )
    with pytest.raises(ValueError, match="returned 2"):
        commands.help_of("course no-such")


def test_docstrings_become_text_whatever_is_in_them():
    assert docstrings.as_rst(["A *b* of `x_` and y_."]) == ["A \\*b\\* of ``x_``\\  and y\\_."]
    assert docstrings.as_rst(["Say:", "", "    x = 1"]) == ["Say\\:", "", "", "::", "", "       x = 1", ""]


def test_broken_links_and_what_comes_from_outside_are_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.html").write_text('<h1 id="top">b</h1>')
    (tmp_path / "a.html").write_text(
        '<a href="sub/b.html#top">x</a><a href="sub/b.html#no">x</a><a href="c.html">x</a>'
        '<a href="sub/">x</a>'
        '<a href="https://example.org/">x</a><script src="https://example.org/x.js"></script>'
    )
    faults, outside = links.check(tmp_path)
    assert outside == ["https://example.org/", "https://example.org/x.js"]
    assert [fault.partition(": ")[2][:22] for fault in faults] == [
        "loads https://example.",
        "sub/b.html#no: there i",
        "c.html: there is no su",
        "sub/: a folder, which ",
    ]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_front_pages_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    local = [url for url in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in url]
    named = [name for name in re.findall(r"`([\w./-]+\.(?:md|toml|py|ipynb|yml))`", text) if "NN" not in name]
    here = [ROOT / folder for folder in (".", "course", "benchmarks", "tests")]
    missing = [name for name in [*local, *named] if not any((folder / name).exists() for folder in here)]
    assert not missing


# ---- the build


def test_the_book_is_current_until_something_that_it_is_made_of_changes(tmp_path, monkeypatch):
    """By contents, not dates; a page that was changed by hand or lost is made again."""
    for name, text in {"README.md": "a", "tito/cli.py": "b", "course/index.md": "c"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    out = tmp_path / "build" / "book"
    out.mkdir(parents=True)
    (out / "index.html").write_text("c")

    def stamp():
        made = {"inputs": build.inputs(tmp_path), "pages": build.pages(out)}
        (out / build.STAMP).write_text(json.dumps(made))

    def is_current():
        return build.current(out, build.inputs(tmp_path))

    assert not is_current()
    stamp()
    assert is_current()
    os.utime(tmp_path / "README.md", (1, 1))
    (tmp_path / "course" / "made.md").write_text(pages.MADE)  # the build writes it
    (tmp_path / "tito" / "__pycache__").mkdir()
    (tmp_path / "tito" / "__pycache__" / "cli.pyc").write_text("x")
    assert is_current()
    for path in (tmp_path / "tito" / "cli.py", tmp_path / "course" / "more.md", out / "index.html"):
        path.write_text("changed")
        assert not is_current(), path
        stamp()
    monkeypatch.setenv("TINYTORCH_DATA", "/elsewhere")
    assert not is_current()
    stamp()
    (out / "index.html").unlink()
    assert not is_current()


def test_a_build_that_fails_leaves_the_old_book(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()  # Sphinx writes there what went wrong, for a person to read
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "conf.py").write_text("raise SystemExit(3)")
    out = tmp_path / "build" / "book"
    out.mkdir(parents=True)
    (out / "index.html").write_text("old")
    assert build.build(tmp_path, out, "digest") != 0
    assert [path.name for path in out.parent.iterdir()] == ["book"] and (
        out / "index.html"
    ).read_text() == "old"
    (tmp_path / "course" / "conf.py").write_text("")
    (tmp_path / "course" / "index.rst").write_text("New\n===\n")
    assert build.build(tmp_path, out, "digest") == 0
    assert [path.name for path in out.parent.iterdir()] == ["book"] and "New" in (
        out / "index.html"
    ).read_text()
    assert build.current(out, "digest")
