"""What surrounds the code: environments that agree, locks without addresses, a wheel without solutions."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = [("linux", "posix", "Linux"), ("darwin", "posix", "Darwin"), ("win32", "nt", "Windows")]


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
        ("hub.txt", asked["dependencies"] + asked["optional-dependencies"]["hub"]),
    ]:
        text = (ROOT / "requirements" / lock).read_text()
        pins = re.findall(r"^([a-z0-9._-]+)==\S+(?: ;.*)? \\\n +--hash=sha256:", text, re.M)
        assert len(pins) == len(re.findall(r"^\S+==", text, re.M)), f"{lock}: a pin without a hash"
        names = {re.match(r"[A-Za-z0-9-]+", d).group().lower() for d in dependencies}
        assert names <= set(pins), f"{lock} lacks {names - set(pins)}"
        assert "://" not in text and "index-url" not in text


@pytest.mark.parametrize("python", ["3.11", "3.14"])
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system[2])
def test_what_students_install_is_whole_on_every_system(system, python):
    """pip installs without dependencies: what a package asks for on Windows alone must be pinned, too."""
    names = dict(zip(("sys_platform", "os_name", "platform_system"), system, strict=True))
    here = names | {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    here |= {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    text = (ROOT / "requirements" / "run.txt").read_text()
    pins = {}
    found = re.findall(r"^(\S+==[^\\\n]+?) \\$", text, re.M)
    for pin in map(Requirement, found):
        if pin.marker is None or pin.marker.evaluate(here):
            pins[canonicalize_name(pin.name)] = next(iter(pin.specifier)).version
    for name in pins:
        try:
            asked = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            assert name in {"appnope", "pywinpty"}, f"{name}: pinned, and not here"
            continue
        for need in map(Requirement, asked):
            if need.marker is None or need.marker.evaluate(here):
                assert pins.get(canonicalize_name(need.name)) in need.specifier, f"{name} asks for {need}"


def test_versions_and_changelog_agree():
    import tito

    version = project()["version"]
    assert tito.__version__ == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
