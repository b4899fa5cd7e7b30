"""What surrounds the code: environments that agree, locks without addresses, a wheel without solutions."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from autograder import needs

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = [("linux", "posix", "Linux"), ("darwin", "posix", "Darwin"), ("win32", "nt", "Windows")]
# All that a student's install may hold, on any system: JupyterLab, nbgrader, matplotlib, what measures one's
# own score, and what these bring along. A new name is a decision: is it worth its size on every machine?
STUDENT = """
    alembic annotated-doc anyio appnope argon2-cffi argon2-cffi-bindings arrow asttokens async-lru attrs
    babel beautifulsoup4 bleach certifi cffi charset-normalizer click colorama comm contourpy cycler
    debugpy defusedxml executing fastjsonschema fonttools fqdn h11 httpcore httpx idna interrogate
    ipykernel ipython ipython-pygments-lexers ipywidgets isoduration jedi jinja2 json5 jsonpointer
    jsonschema jsonschema-specifications jupyter-builder jupyter-client jupyter-core jupyter-events
    jupyter-lsp jupyter-server jupyter-server-terminals jupyterlab jupyterlab-pygments jupyterlab-server
    jupyterlab-widgets jupytext kiwisolver lark mako mando markdown-it-py markupsafe matplotlib
    matplotlib-inline mdit-py-plugins mdurl mistune nbclient nbconvert nbformat nbgrader nest-asyncio2
    notebook notebook-shim numpy overrides packaging pandocfilters parso pexpect pillow platformdirs
    prometheus-client prompt-toolkit psutil ptyprocess pure-eval py pycparser pygments pyparsing
    python-dateutil python-json-logger pywinpty pyyaml pyzmq radon rapidfuzz referencing requests
    rfc3339-validator rfc3986-validator rfc3987-syntax rich rpds-py ruff safetensors send2trash setuptools
    shellingham six soupsieve sqlalchemy stack-data tabulate terminado threadpoolctl tinycss2 tornado tqdm
    traitlets typer typing-extensions tzdata uri-template urllib3 wcwidth webcolors webencodings
    websocket-client widgetsnbextension
""".split()  # noqa: SIM905, a list of 130 lines says no more
# What our code imports without asking for it by name: it comes with a package that gives it out as its own.
THROUGH = {"cycler": "matplotlib", "ipython": "ipykernel", "markupsafe": "jinja2", "sqlalchemy": "nbgrader",
           "traitlets": "ipykernel", "dask": "distributed"}  # fmt: skip


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_conda_environment_agrees_with_pyproject():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    # conda-forge's two packages of Jupyter's own keep the underscore of their modules
    conda = {d.replace("jupyter_", "jupyter-") for d in listed if isinstance(d, str)} - {"pip"}
    asked = project()
    instructor = {d.replace("[binary]", "") for d in asked["optional-dependencies"]["instructor"]}
    tests = [need for need in asked["optional-dependencies"]["dev"] if need.startswith(("pytest>", "nbval"))]
    assert len(tests) == 2
    assert conda == {*asked["dependencies"], *instructor, *tests, f"python{asked['requires-python']}"}


def test_locks_pin_every_dependency_with_hashes_and_without_addresses():
    asked = project()
    for lock, extras in [
        ("student.txt", []), ("run.txt", ["instructor"]), ("dev.txt", ["dev"]), ("book.txt", ["book"]),
        ("browser.txt", ["browser"]), ("hub.txt", ["instructor", "hub"]),
    ]:  # fmt: skip
        dependencies = asked["dependencies"] + [
            d for extra in extras for d in asked["optional-dependencies"][extra]
        ]
        text = (ROOT / "requirements" / lock).read_text()
        pins = re.findall(r"^([a-z0-9._-]+)==\S+(?: ;.*)? \\\n +--hash=sha256:", text, re.M)
        assert len(pins) == len(re.findall(r"^\S+==", text, re.M)), f"{lock}: a pin without a hash"
        names = {re.match(r"[A-Za-z0-9-]+", d).group().lower() for d in dependencies}
        assert names <= set(pins), f"{lock} lacks {names - set(pins)}"
        assert "://" not in text and "index-url" not in text


def test_locks_agree_where_they_are_installed_together():
    """make puts dev.txt, book.txt and others over run.txt; a teacher's machine gets a student's pins, too."""
    pinned: dict[str, set[str]] = {}
    for lock in (ROOT / "requirements").glob("*.txt"):
        for pin in pins_of(lock.name):
            pinned.setdefault(f"{canonicalize_name(pin.name)}; {pin.marker}", set()).add(str(pin.specifier))
    assert {name: found for name, found in pinned.items() if len(found) > 1} == {}


def pins_of(lock: str) -> list[Requirement]:
    text = (ROOT / "requirements" / lock).read_text()
    return [Requirement(pin) for pin in re.findall(r"^(\S+==[^\\\n]+?) \\$", text, re.M)]


def test_a_student_installs_what_is_listed_and_nothing_else():
    assert {canonicalize_name(pin.name) for pin in pins_of("student.txt")} == set(STUDENT)


def pinned_here(name: str, pins: list[str]) -> bool:
    """Whether a pin is for this Python on this system: what is for another one is not to be looked for."""
    own = [pin for pin in map(Requirement, pins) if canonicalize_name(pin.name) == name]
    return any(pin.marker is None or pin.marker.evaluate() for pin in own)


def test_pins_of_another_python_or_system_are_not_looked_for_here():
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    pins = [f"mine==1 ; python_full_version >= '{here}'", f"other==1 ; python_full_version < '{here}'"]
    pins += ["windows==1 ; sys_platform == 'nowhere'", "all==1"]
    names = ("mine", "other", "windows", "all")
    assert [name for name in names if pinned_here(name, pins)] == ["mine", "all"]


@pytest.mark.parametrize("lock", ["student.txt", "run.txt"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system[2])
def test_what_is_installed_is_whole_on_every_system(system, python, lock):
    """pip installs without dependencies: what a package asks for on Windows alone must be pinned, too."""
    names = dict(zip(("sys_platform", "os_name", "platform_system"), system, strict=True))
    here = names | {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    here |= {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    pins = {}
    for pin in pins_of(lock):
        if pin.marker is None or pin.marker.evaluate(here):
            pins[canonicalize_name(pin.name)] = next(iter(pin.specifier)).version
    for name in pins:
        try:
            asked = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            assert not pinned_here(name, list(map(str, pins_of(lock)))), f"{name}: pinned, and not here"
            continue
        for need in map(Requirement, asked):
            if need.marker is None or need.marker.evaluate(here):
                assert pins.get(canonicalize_name(need.name)) in need.specifier, f"{name} asks for {need}"


# ---- imports


def undeclared(source: str) -> list[str]:
    """What a file imports and nobody declares: no student's dependency, nor of an extra and after `need`."""
    tree = ast.parse(source)
    students = frozenset(canonicalize_name(Requirement(d).name) for d in project()["dependencies"])
    return [
        name for name, scope, line in imports(tree)
        if not brought(name, students)
        and not any(name in names for names in needs.EXTRAS.values() if line > needed(name, scope) > 0)
    ]  # fmt: skip


def imports(tree: ast.Module):
    """Each import of somebody else's package: its name, the function or module around it, the line."""
    scopes = [n for n in ast.walk(tree) if isinstance(n, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef)]
    around = {id(n): scope for scope in scopes for n in ast.walk(scope)}  # the innermost comes last
    for n in ast.walk(tree):
        names = [alias.name for alias in n.names] if isinstance(n, ast.Import) else []
        names += [n.module or ""] if isinstance(n, ast.ImportFrom) and not n.level else []
        for name in {name.partition(".")[0] for name in names}:
            if name not in {*sys.stdlib_module_names, "autograder", "tito", "tinytorch"}:
                yield name, around[id(n)], n.lineno


@cache
def brought(name: str, by: frozenset[str]) -> bool:
    """Whether a package is among those asked for, or comes with one of them that gives it out."""
    for distribution in map(canonicalize_name, metadata.packages_distributions().get(name, [name])):
        through = THROUGH.get(distribution, "")
        if distribution in by or (
            through in by
            and distribution in {canonicalize_name(Requirement(d).name) for d in metadata.requires(through)}
        ):
            return True
    return False


def needed(name: str, scope: ast.AST) -> int:
    """The line of the scope that calls need with this name, or 0."""
    calls = (n for n in ast.walk(scope) if isinstance(n, ast.Call) and ast.unparse(n.func).endswith("need"))
    return min((n.lineno for n in calls if name in [getattr(a, "value", "") for a in n.args]), default=0)


@pytest.mark.parametrize("folder", ["autograder", "tito"])
def test_every_import_is_a_dependency_or_of_an_extra_and_asked_for(folder):
    found = {path: undeclared(path.read_text(encoding="utf-8")) for path in (ROOT / folder).rglob("*.py")}
    assert len(found) > 30 and {str(path): names for path, names in found.items() if names} == {}


def test_an_import_that_is_not_declared_is_found():
    assert undeclared("import numpy\nfrom sqlalchemy.exc import X\nfrom . import y\nimport json.tool") == []
    assert undeclared("import scipy.linalg\ndef f():\n    from torch import nn") == ["scipy", "torch"]
    assert undeclared("def f():\n    import distributed") == ["distributed"]
    assert undeclared("def f():\n    import distributed\n    need('distributed')") == ["distributed"]
    assert undeclared("def f():\n    need('distributed')\ndef g():\n    import distributed") == [
        "distributed"
    ]
    assert undeclared("def f():\n    need('dask', 'distributed')\n    import distributed, dask") == []


def test_the_names_of_an_extra_are_those_of_pyproject():
    extras = project()["optional-dependencies"]
    for extra, names in needs.EXTRAS.items():
        asked = frozenset(canonicalize_name(Requirement(d).name) for d in extras[extra])
        assert all(brought(name, asked) for name in names) and asked <= set(names)


def test_every_page_for_instructors_names_their_extra():
    named = ("README.md", "course/grading.md", "course/hub/jupyterhub_config.py", "tito/instructor/bundle.py")
    pages = [*(ROOT / "course" / "instructor").glob("*.md"), *(ROOT / name for name in named)]
    texts = {page.name: page.read_text(encoding="utf-8") for page in pages}
    assert [name for name, text in texts.items() if "torch-olympics[instructor]" not in text] == []


def test_versions_and_changelog_agree():
    import tito

    version = project()["version"]
    assert tito.__version__ == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
