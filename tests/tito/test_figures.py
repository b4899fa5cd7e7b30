"""Figures with their text alternative: what JupyterLab, an exported page and nbgrader's feedback get."""

from __future__ import annotations

import html
import io
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output

from autograder.notebooks.rebuild import clean_outputs
from tito import figures

ALT = 'Loss falls from 2 to 1 & stays; "flat" after epoch <3>.'


@pytest.fixture(autouse=True)
def a_backend_without_a_screen() -> Iterator[None]:
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is displayed, and every update of it, in order."""
    seen: list[Any] = []

    class Handle:
        update = staticmethod(seen.append)

    def display(thing: Any, **_: Any) -> Any:
        seen.append(thing)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    return seen


def line(*values: float) -> Any:
    figure, axes = plt.subplots(figsize=(4, 2))
    axes.plot(values)
    return figure


def luminance(color: str) -> float:
    """Relative luminance of "#rrggbb" by WCAG 2."""
    shares = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(weight * s for weight, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_every_reader_gets_the_alternative(shown: list[Any]) -> None:
    figures.show(line(2, 1), alt=ALT)
    data, metadata = shown[0]._repr_mimebundle_()
    cell = new_code_cell(
        "", execution_count=1, outputs=[new_output("display_data", data=data, metadata=metadata)]
    )
    page, _ = HTMLExporter(template_name="lab").from_notebook_node(new_notebook(cells=[cell]))
    assert page.count('src="data:image/png') == 1 and html.unescape(page).count(ALT) == 1
    assert data["text/plain"] == ALT
    cell.outputs = clean_outputs(
        json.loads(nbformat.writes(new_notebook(cells=[cell])))["cells"][0]["outputs"]
    )
    assert "text/html" not in cell.outputs[0].data
    feedback, _ = HTMLExporter(template_name="classic").from_notebook_node(new_notebook(cells=[cell]))
    assert feedback.count('src="data:image/png') == 1 and html.unescape(feedback).count(ALT) == 1


def test_a_picture_is_sharp_white_and_shown_once(shown: list[Any]) -> None:
    figures.show(line(2, 1), alt=ALT)
    _, metadata = shown[0]._repr_mimebundle_()
    width, height = struct.unpack(">II", shown[0].png[16:24])
    assert metadata["image/png"]["width"] == width // 2 and 300 < width // 2 < 500
    assert metadata["image/png"]["height"] == height // 2
    pixels = (255 * plt.imread(io.BytesIO(shown[0].png))).round()
    assert pixels[0, 0].tolist() == [255, 255, 255, 255], "opaque white in a dark theme too"
    assert plt.get_fignums() == [], "an open figure would be shown again when the cell ends"


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_no_figure_without_an_alternative(shown: list[Any], alt: str) -> None:
    with pytest.raises(ValueError, match="alt is empty: say in a sentence what the figure shows"):
        figures.show(line(1), alt=alt)
    assert shown == []


def test_the_first_four_lines_stand_out_and_differ_without_colour() -> None:
    styles = list(mpl.rcParams["axes.prop_cycle"])
    assert len({str(style["linestyle"]) for style in styles}) == len(styles) == 7
    contrasts = [1.05 / (luminance(style["color"]) + 0.05) for style in styles]
    assert all(contrast >= 3 for contrast in contrasts[:4]), contrasts


def draw(height: float = 1.0, kind: str = "rising") -> Any:
    return line(0, height if kind == "rising" else -height), f"A {kind} line of height {height}."


def test_exploring_without_widgets_leaves_a_picture(
    shown: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    figures.explore(draw, height=(0.0, 3.0, 0.5), kind=["rising", "falling"])
    assert [picture.alt for picture in shown] == ["A rising line of height 1.0."]


def test_exploring_redraws_the_picture_in_its_place(
    shown: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    figures.explore(draw, height=(0.0, 3.0, 0.5), kind=["rising", "falling"])
    first, panel = shown
    assert first.alt == "A rising line of height 1.0."
    height, kind, _ = panel.children
    assert (height.value, height.min, height.max, height.step) == (1.0, 0.0, 3.0, 0.5)
    assert (height.description, height.continuous_update) == ("height", False)
    height.value = 2.5
    kind.value = "falling"
    assert [picture.alt for picture in shown[2:]] == [
        "A rising line of height 2.5.",
        "A falling line of height 2.5.",
    ]


def test_text_can_be_explored_too(shown: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    figures.explore(lambda word="yes": f"{word}\nand no", word="yes")
    assert shown[0]._repr_mimebundle_() == {"text/plain": "yes\nand no"}


def test_the_extension_stays_light() -> None:
    code = "import sys, tito.session; print({'matplotlib', 'ipywidgets'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
