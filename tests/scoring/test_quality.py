"""Code quality: the formula by hand, and the linters on small folders."""

import pytest

from autograder import sandbox
from autograder.scoring import quality

TIDY = '''"""A tidy module."""


def double(x):
    """Twice x."""
    return 2 * x
'''


def test_formula():
    found = quality.combine(200, {"E501": 3, "F401": 2}, [[5, 30], [15, 10]], 3, 4)
    assert found.lint == pytest.approx(0.5)  # 2.5 findings in 100 lines, 5 leave nothing
    assert found.simplicity == pytest.approx((30 + 10 * 0.5) / 40)
    assert found.documentation == 0.75
    assert found.value == pytest.approx(0.4 * 0.5 + 0.3 * 0.875 + 0.3 * 0.75, abs=1e-4)
    assert found.reasons == [
        "5 lint findings in 200 lines (most: 3 x E501, 2 x F401)",
        "1 of 2 functions has a cyclomatic complexity above 10",
        "1 of 4 public names has no docstring",
    ]


def test_linters_on_tidy_and_untidy_code(tmp_path):
    level = sandbox.choose()
    (tmp_path / "network.py").write_text(TIDY)
    found = quality.measure(tmp_path, level=level)
    assert (found.value, found.reasons, found.lines) == (1.0, [], 4)
    assert quality.measure(tmp_path, level=level) == found
    (tmp_path / "network.py").write_text("import os  # noqa\n" + "def f(l):\n  if l == None: return 1;\n" * 3)
    (tmp_path / "ruff.toml").write_text("lint.select = []\n")
    worse = quality.measure(tmp_path, level=level)
    assert worse.lint == 0 and worse.documentation == 0 and worse.value < 0.5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def f(:\n", "network.py line 1 is not Python: SyntaxError"),
        ("x = " + "(" * 5000 + ")" * 5000, "network.py"),
        ("", "there is no Python code"),
    ],
)
def test_code_that_cannot_be_read(tmp_path, text, reason):
    (tmp_path / "network.py").write_text(text)
    found = quality.measure(tmp_path, level=sandbox.choose())
    assert found.value == 0 and reason in found.reasons[0]
