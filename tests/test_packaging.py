"""What surrounds the code: environments that agree, locks without addresses, a wheel without solutions."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_conda_environment_agrees_with_pyproject():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {d for d in listed if isinstance(d, str)} - {"pip"}
    asked = project()
    assert conda == {*asked["dependencies"], f"python{asked['requires-python']}"}


def test_locks_pin_every_dependency_with_hashes_and_without_addresses():
    asked = project()
    for lock, dependencies in [
        ("run.txt", asked["dependencies"]),
        ("dev.txt", asked["dependencies"] + asked["optional-dependencies"]["dev"]),
        ("book.txt", asked["dependencies"] + asked["optional-dependencies"]["book"]),
        ("browser.txt", asked["dependencies"] + asked["optional-dependencies"]["browser"]),
    ]:
        text = (ROOT / "requirements" / lock).read_text()
        pins = re.findall(r"^([a-z0-9._-]+)==\S+ \\\n +--hash=sha256:", text, re.M)
        assert len(pins) == len(re.findall(r"^\S+==", text, re.M)), f"{lock}: a pin without a hash"
        names = {re.match(r"[A-Za-z0-9-]+", d).group().lower() for d in dependencies}
        assert names <= set(pins), f"{lock} lacks {names - set(pins)}"
        assert "://" not in text and "index-url" not in text


def test_versions_and_changelog_agree():
    import tito

    version = project()["version"]
    assert tito.__version__ == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
