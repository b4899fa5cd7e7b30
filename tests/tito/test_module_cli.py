"""`tito module complete` on a workspace of two tiny lessons, in real kernels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from small_course import UNSOLVED, Tito, edit, release, solve

from tito.student import module, workspace
from tito.student.workspace import Workspace


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    made, _ = workspace.init(tmp_path / "ws", release(tmp_path / "release"))
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture
def tito(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tito:
    return Tito(monkeypatch, capsys)


def use(ws: Workspace, code: str) -> str:
    """Run code with the workspace's package alone on the path."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ws.root,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout + done.stderr).strip()


def states(tito: Tito) -> list[str]:
    return [row["state"].partition(" 2")[0] for row in tito.json("module", "status")["modules"]]


def test_two_modules_from_notebook_to_package(tito: Tito, ws: Workspace) -> None:
    solve(ws.notebook("01_tensor"), "double")
    mine = ws.notebook("01_tensor").read_bytes()
    out = tito("module", "complete", "01")
    assert "pass  test-double" in out and "2 of 2 checks passed, written to" in out
    assert ws.notebook("01_tensor").read_bytes() == mine
    text = (ws.package / "tensor.py").read_text()
    assert "return x + x" in text and "assert" not in text
    assert use(ws, "from tinytorch import double; print(double(21))") == "42"
    assert "module 02" in use(ws, "from tinytorch.activations import relu")

    solve(ws.notebook("02_activations"), "relu")
    report = tito.json("module", "complete", "2")
    assert [check["passed"] for check in report["checks"]] == [True]
    assert report["exported"] == str(ws.package / "activations.py") and report["notes"] == []
    assert (
        use(ws, "from tinytorch import Tensor, relu; print(relu(Tensor(-1)).x, relu(Tensor(5)).x)") == "0 5"
    )
    assert states(tito) == ["completed", "completed"]

    edit(
        ws.notebook("01_tensor"), "double", lambda source: source + "\n\n\ndef thrice(x):\n    return 3 * x\n"
    )
    assert states(tito) == ["changed since completed", "completed"]
    assert sorted(path.name for path in ws.private.iterdir()) == [
        "backups",
        "progress.json",
        "released",
        "workspace.json",
    ]


def test_a_failed_check_exports_nothing(tito: Tito, ws: Workspace) -> None:
    solve(ws.notebook("01_tensor"), "double")
    tito("module", "complete", "01")
    good = (ws.package / "tensor.py").read_bytes()
    edit(ws.notebook("01_tensor"), "double", lambda source: source.replace("x + x", "x * x"))
    out = tito("module", "complete", "01", code=1)
    assert "pass  test-double" in out and "FAIL  test-list    TypeError: can't multiply" in out
    assert "1 of 2 checks passed, nothing exported" in out
    edit(ws.notebook("01_tensor"), "double", lambda source: source.replace("x * x", "x"))
    out = tito("module", "complete", "01", code=1)
    assert "FAIL  test-double  double(2): expected 4, got 2, see double" in out
    assert (ws.package / "tensor.py").read_bytes() == good
    assert states(tito)[0] == "changed since completed"


def test_the_untouched_release_fails_every_check(tito: Tito, ws: Workspace) -> None:
    report = tito.json("module", "complete", "01", code=1)
    assert {check["reason"] for check in report["checks"]} == {"not solved yet (NotImplementedError)"}
    assert report["notes"] == []  # other cells that wait for the same solutions are not named too
    assert report["exported"] is None and not (ws.package / "tensor.py").exists()


def test_a_later_module_says_what_it_needs(tito: Tito, ws: Workspace) -> None:
    solve(ws.notebook("02_activations"), "relu")
    report = tito.json("module", "complete", "02", code=1)
    assert not report["checks"][0]["passed"]
    assert "tito module complete 01" in report["notes"][0], report["notes"]
    said = tito("module", "complete", "02", code=1)
    assert said.splitlines()[-1].endswith("build the module that is missing, then run this again")


def test_a_dead_kernel_is_a_reason(tito: Tito, ws: Workspace) -> None:
    edit(ws.notebook("01_tensor"), "double", lambda source: "#| export\nimport os\nos._exit(3)")
    report = tito.json("module", "complete", "01", code=1)
    assert all("the kernel died" in check["reason"] for check in report["checks"])


def test_a_slow_cell_is_a_reason(tito: Tito, ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CELL_SECONDS", 2)
    edit(ws.notebook("01_tensor"), "double", lambda source: "#| export\nimport time\ntime.sleep(60)")
    report = tito.json("module", "complete", "01", code=1)
    assert all("longer than 2 s" in check["reason"] for check in report["checks"])


def test_a_deleted_and_an_emptied_check_are_noticed(tito: Tito, ws: Workspace) -> None:
    solve(ws.notebook("01_tensor"), "double")
    nb = nbformat.read(ws.notebook("01_tensor"), 4)
    nb.cells = [c for c in nb.cells if c.metadata.get("nbgrader", {}).get("grade_id") != "test-list"]
    nbformat.write(nb, ws.notebook("01_tensor"))
    edit(ws.notebook("01_tensor"), "test-double", lambda source: "")
    report = tito.json("module", "complete", "01", code=1)
    assert [(check["name"], check["passed"]) for check in report["checks"]] == [("test-double", False)]
    assert "test-list" in report["notes"][0]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "return x + x\n\n\nif __name__ != '__main__':\n    raise OSError('only in a notebook')",
            "only in a notebook",
        ),
        ("return x + x + nought(0) if isinstance(x, str) else x + x", "nought"),
    ],
    ids=["fails to import", "uses an unexported name"],
)
def test_a_package_that_cannot_work_is_refused(tito: Tito, ws: Workspace, body: str, words: str) -> None:
    solve(ws.notebook("01_tensor"), "double", body)
    message = tito.refuses("module", "complete", "01")
    assert words in message and "nothing exported" in message
    assert not (ws.package / "tensor.py").exists()
    assert not list(ws.private.glob("draft-*"))


def test_outside_variables_do_not_reach_the_tests(
    tito: Tito, ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference package in the environment is not what the student's notebook is tested with."""
    fake = tmp_path / "fake" / "tinytorch"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("")
    (fake / "tensor.py").write_text("class Tensor:\n    def __init__(self, x):\n        self.x = x\n")
    monkeypatch.setenv("TITO_TINYTORCH", str(fake.parent))
    monkeypatch.setenv("PYTHONPATH", str(fake.parent))
    solve(ws.notebook("02_activations"), "relu")
    assert UNSOLVED not in ws.notebook("02_activations").read_text()
    tito("module", "complete", "02", code=1)
