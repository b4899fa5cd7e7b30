"""The text of tinytorch/__init__.py, the same for the reference package and for a student's own."""

from __future__ import annotations

from collections.abc import Mapping

_TEMPLATE = '''"""TinyTorch: a deep-learning package on NumPy, written notebook by notebook.

Every public name is served from here and imported when it is first asked for. A name whose notebook is not
completed yet raises NotBuilt, which says what to run. TINYTORCH_BEFORE=NN hides module NN and those after it,
so that a notebook uses its own cells and never the built copy of itself.

Built by tito from the lessons: change them, not this file.
"""

import os
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path

_LESSONS = {lessons}
_HOMES = {homes}


class NotBuilt(ImportError):
    """A name or module of a notebook that is not completed yet; the message says which and what to run."""

    def _render_traceback_(self):  # IPython shows this one line instead of a traceback
        return [f"NotBuilt: {{self}}"]


def _hidden(module):
    before = os.environ.get("TINYTORCH_BEFORE", "")
    return before.isdigit() and int(_LESSONS[module]) >= int(before)


def _available(module):
    return Path(__file__).with_name(f"{{module}}.py").exists() and not _hidden(module)


def _require(module, wanted):
    """Raise NotBuilt, for the name `wanted`, unless its module is built and not hidden."""
    if _available(module):
        return
    number = _LESSONS[module]
    home = f"module {{number}} ({{number}}_{{module}})"
    if not _hidden(module):
        todo = f"run its notebook, then `tito module complete {{number}}`"
        raise NotBuilt(f"{{wanted}} is built in {{home}}: {{todo}}.")
    if int(number) == int(os.environ["TINYTORCH_BEFORE"]):
        raise NotBuilt(f"{{wanted}} is built in {{home}}, this notebook: use its cells, without an import.")
    raise NotBuilt(f"{{wanted}} is built in {{home}}, after this notebook.")


class _Guard(MetaPathFinder):
    """Makes `from tinytorch.spatial import Conv2d` fail as readably as `from tinytorch import Conv2d`."""

    package = __name__

    def find_spec(self, fullname, path=None, target=None):
        parent, _, module = fullname.rpartition(".")
        if parent == self.package and module in sys.modules[parent]._LESSONS:
            sys.modules[parent]._require(module, fullname)
        return None  # the usual finders import it


def __getattr__(name):
    if name in _LESSONS:
        return import_module(f"{{__name__}}.{{name}}")
    if name not in _HOMES:
        raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")
    _require(_HOMES[name], name)
    module = import_module(f"{{__name__}}.{{_HOMES[name]}}")
    if not hasattr(module, name):
        todo = f"run `tito module complete {{_LESSONS[_HOMES[name]]}}` again"
        raise NotBuilt(f"{{name}} is not in {{module.__file__}}: {{todo}}.")
    return getattr(module, name)


def __dir__():
    return [*globals(), *__all__]


__all__ = [name for name, module in _HOMES.items() if _available(module)]
if not any(getattr(finder, "package", None) == __name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, _Guard())
'''

_EAGER = """if _available("autograd"):  # gradients are on as soon as autograd is built
    import_module(f"{__name__}.autograd")
"""


def package_init(modules: Mapping[str, str], names: Mapping[str, str]) -> str:
    """The text of `__init__.py`; `modules`: module -> lesson number, `names`: public name -> module."""
    lessons = dict(sorted(modules.items(), key=lambda item: item[1]))
    homes = dict(sorted(names.items(), key=lambda item: (modules[item[1]], item[0])))
    text = _TEMPLATE.format(lessons=repr(lessons), homes=repr(homes))
    return text + _EAGER if "autograd" in modules else text


def names_module(modules: Mapping[str, str], names: Mapping[str, str]) -> str:
    """The text of tito/package/names.py, the tables that a student's package needs from the start."""
    lessons = dict(sorted(modules.items(), key=lambda item: item[1]))
    homes = dict(sorted(names.items(), key=lambda item: (modules[item[1]], item[0])))
    return (
        '"""Which lesson builds which module and name. Built by `tito build`, not written by hand."""\n\n'
        f"MODULES: dict[str, str] = {lessons!r}\n\nNAMES: dict[str, str] = {homes!r}\n"
    )
