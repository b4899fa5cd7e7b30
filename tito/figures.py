"""Figures that everybody can read: `show` and `explore`, with text alternatives, sharp, on white paper.

A lesson draws with matplotlib as usual and ends in `show(figure, alt="…")` instead of `plt.show()`. Importing
this module sets matplotlib's style for the notebook: colours that colour-blind people tell apart (Okabe and
Ito, 2008), of at least 3:1 contrast with white as far as the fourth, a line style to each colour, and text
that can be read from the last row.

Who reads what: JupyterLab and `nbconvert --to html` take the HTML, whose <img> has the alternative, for
JupyterLab shows a bare PNG without any; grading keeps no HTML, and nbgrader's feedback and formgrader take
the PNG with the alternative in its metadata; a terminal takes the text. The paper is white in every theme:
lines chosen for white would be lost on black.
"""

from __future__ import annotations

import base64
import html
import inspect
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from cycler import cycler

from tito.live import has_widgets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, BLACK, PINK, YELLOW, SKY = COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00", "#56B4E9",
)  # fmt: skip
LINES = ("-", "--", "-.", ":", (0, (7, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)))
SHARP = 2  # pixels of the file for one of the page: sharp on a fine screen, and on a projector

mpl.rcParams.update(
    {
        "axes.prop_cycle": cycler(color=COLORS, linestyle=LINES),
        "axes.facecolor": "white",
        "axes.grid": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 12,
        "figure.constrained_layout.use": True,
        "figure.dpi": 100,
        "figure.facecolor": "white",
        "figure.figsize": (6.4, 3.4),
        "font.size": 11.5,
        "image.cmap": "cividis",
        "legend.fontsize": 11,
        "legend.edgecolor": "none",
        "legend.framealpha": 0.85,
        "legend.handlelength": 3.2,  # long enough to tell one line style from another
        "lines.linewidth": 2,
        "lines.markersize": 6,
    }
)


class Picture:
    """A matplotlib figure and its text alternative, as one object that a notebook displays."""

    def __init__(self, figure: Figure, alt: str) -> None:
        """Draw `figure` into a PNG and close it. `alt` says in one to three sentences what is to be seen.

        Raises ValueError for an empty `alt`.
        """
        self.alt = " ".join(alt.split())
        if not self.alt:
            raise ValueError("alt is empty: say in a sentence what the figure shows, for those who hear it.")
        file = io.BytesIO()
        paper: dict[str, Any] = {
            "dpi": SHARP * figure.dpi,
            "bbox_inches": "tight",
            "pad_inches": 0.12,
            "facecolor": "white",
        }
        figure.savefig(file, format="png", **paper)
        self.png = file.getvalue()
        _close(figure)

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        image = base64.b64encode(self.png).decode()
        width, height = (int.from_bytes(self.png[at : at + 4]) // SHARP for at in (16, 20))  # of the header
        alt = html.escape(self.alt)
        data = {
            "text/html": f'<img src="data:image/png;base64,{image}" alt="{alt}" width="{width}">',
            "image/png": image,
            "text/plain": self.alt,
        }
        return data, {"image/png": {"alt": self.alt, "width": width, "height": height}}


def show(figure: Figure, alt: str) -> None:
    """Display a matplotlib figure; `alt` says what it shows to those who cannot see it.

    Write what a look tells, not only what is drawn: "Loss against epoch: it falls from 2.3 to 0.4 and is flat
    after epoch 8." One to three sentences, with measured numbers put in by an f-string. Raises ValueError
    for an empty `alt`.
    """
    from IPython.display import display

    display(Picture(figure, alt))  # type: ignore[no-untyped-call]


def explore(draw: Callable[..., Any], **controls: Any) -> None:
    """Display what `draw` makes, with a control for each of its arguments named here.

    `draw(**values)` returns `(figure, alt)`, as `show` takes them, or a text. It needs defaults: they are
    drawn first, and stay where no widgets run (an exported page, grading, a terminal). In JupyterLab the
    controls stand under the picture and redraw it when they are let go. As in `ipywidgets.interact`, a
    control is (low, high, step) for a slider, a list of choices, True or False, or a text.
    """
    from IPython.display import display

    handle = display(_picture(draw()), display_id=True)  # type: ignore[no-untyped-call]
    if handle is None or not has_widgets():
        return
    import ipywidgets

    defaults = inspect.signature(draw).parameters
    widget = ipywidgets.interactive.widget_from_abbrev
    widgets = {name: widget(choice, defaults[name].default) for name, choice in controls.items()}
    for name, control in widgets.items():
        control.description = control.tooltip = name.replace("_", " ")
        control.style.description_width = "7rem"
        control.layout.width = "28rem"
        control.continuous_update = False  # draw when the slider is let go, not on its way
        if isinstance(control, ipywidgets.FloatSlider):
            control.readout_format = ".3g"  # by default 0.095 reads 0.10
    messages = ipywidgets.Output()  # where an error of `draw` is to be read

    @messages.capture(clear_output=True)  # type: ignore[untyped-decorator]
    def redraw(_: Any) -> None:
        handle.update(_picture(draw(**{name: control.value for name, control in widgets.items()})))

    for control in widgets.values():
        control.observe(redraw, "value")
    display(ipywidgets.VBox([*widgets.values(), messages]))  # type: ignore[no-untyped-call]


def _picture(made: Any) -> Any:
    if isinstance(made, str):
        return _Text(made)
    figure, alt = made
    return Picture(figure, alt)


class _Text(str):
    """A text that a notebook displays as it is, without quotes."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": str(self)}


def _close(figure: Figure) -> None:
    """Else the notebook shows it once more when the cell ends, without its alternative."""
    from matplotlib import pyplot

    pyplot.close(figure)
