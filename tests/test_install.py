"""requirements/install.py on a small project, in a folder with an odd name, without any network."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BACKEND = """
import zipfile

def build_editable(folder, settings=None, metadata=None):
    name = "small-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as file:
        file.writestr("small-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: small\\nVersion: 1\\n")
        tag = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        file.writestr("small-1.dist-info/WHEEL", tag)
        file.writestr("small-1.dist-info/RECORD", "")
    return name
"""


def wheel(folder: Path, name: str) -> str:
    """A package of one line; returns its hash."""
    path = folder / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", "HERE = True\n")
        file.writestr(f"{name}-1.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        file.writestr(
            f"{name}-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        record = f"{name}.py,,\n{name}-1.dist-info/METADATA,,\n{name}-1.dist-info/WHEEL,,\n"
        file.writestr(f"{name}-1.dist-info/RECORD", record + f"{name}-1.dist-info/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose packages lie in wheels/, and no uv among them."""
    root = tmp_path_factory.mktemp("install") / "Kurs #1 größe 100%"
    (root / "requirements").mkdir(parents=True)
    (root / "wheels").mkdir()
    (root / "tito").mkdir()
    (root / "tito" / "__init__.py").touch()
    (root / "tito" / "doctor.py").touch()
    shutil.copy(ROOT / "requirements" / "install.py", root / "requirements")
    shutil.copy(ROOT / "Makefile", root)
    (root / "backend.py").write_text(BACKEND)
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    pin(root, "run", "one", wheel(root / "wheels", "one"))
    pin(root, "dev", "two", wheel(root / "wheels", "two"))
    pin(root, "uv", "uv", "0" * 64)
    (root / "requirements" / "build.txt").write_text("")
    return root


def pin(root: Path, group: str, name: str, digest: str) -> None:
    (root / "requirements" / f"{group}.txt").write_text(f"{name}==1 \\\n    --hash=sha256:{digest}\n")


def make(root: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`make .venv/run.stamp`, and what else is asked for, with this Python and no network."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "MAKE"))
    }
    clean |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "wheels"} | env
    return subprocess.run(
        ["make", "-s", *words], cwd=root, env=clean, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def installed(project: Path) -> subprocess.CompletedProcess[str]:
    """The first run."""
    return make(project, f"PYTHON={sys.executable}", ".venv/run.stamp")


def test_without_uv_pip_installs_and_one_line_says_so(
    project: Path, installed: subprocess.CompletedProcess[str]
) -> None:
    assert installed.returncode == 0, installed.stderr
    assert sum("pip takes its place" in line for line in installed.stderr.splitlines()) == 1
    python = project / ".venv" / "bin" / "python"
    assert subprocess.run([python, "-c", "import one"], check=False).returncode == 0
    assert (project / ".venv" / "run.stamp").is_file()


def test_what_is_installed_is_left_alone(project: Path, installed: subprocess.CompletedProcess[str]) -> None:
    done = make(project, ".venv/run.stamp", PIP_FIND_LINKS="/nowhere")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_failed_install_is_not_stamped(project: Path, installed: subprocess.CompletedProcess[str]) -> None:
    kept = (project / "requirements" / "dev.txt").read_text()
    pin(project, "dev", "two", "0" * 64)
    done = make(project, ".venv/dev.stamp")
    assert done.returncode == 2 and not (project / ".venv" / "dev.stamp").exists()
    assert "make: python: ERROR" in done.stderr and "Traceback" not in done.stderr
    (project / "requirements" / "dev.txt").write_text(kept)
    assert make(project, ".venv/dev.stamp").returncode == 0
    assert (project / ".venv" / "dev.stamp").is_file()


def test_another_python_that_was_asked_for_is_noticed_and_the_old_one_survives_a_failure(
    project: Path, installed: subprocess.CompletedProcess[str]
) -> None:
    settings = project / ".venv" / "pyvenv.cfg"
    kept = settings.read_text()
    settings.write_text("home = elsewhere\nversion = 3.2.1\n")
    try:
        assert make(project, ".venv/run.stamp").stderr == "", "none was asked for"
        done = make(project, f"PYTHON={sys.executable}", ".venv/run.stamp", PIP_FIND_LINKS="nowhere")
        assert ".venv is made anew: it is of Python 3.2, and" in done.stderr
        assert done.returncode == 2
        assert settings.read_text().startswith("home = elsewhere") and not (project / ".venv.old").exists()
        (project / "tito" / "doctor.py").write_text("raise SystemExit('nothing works here')\n")
        done = make(project, f"PYTHON={sys.executable}", ".venv/run.stamp")
        assert done.returncode == 2 and "made anew" not in done.stderr, "looked at first, then moved"
        assert settings.read_text().startswith("home = elsewhere") and not (project / ".venv.old").exists()
    finally:
        (project / "tito" / "doctor.py").write_text("")
        settings.write_text(kept)


def test_a_python_without_ensurepip_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "requirements" / "install.py"
    spec = importlib.util.spec_from_file_location("install", path)
    install = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(install)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["install.py", "run"])
    monkeypatch.setattr(
        install.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else True
    )
    with pytest.raises(SystemExit) as ended:
        install.main()
    said = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(said) == 1
    assert said[0].endswith(f"sudo apt-get install python{install.HERE}-venv")
    assert list(tmp_path.iterdir()) == []
