"""Sphinx configuration of the handbook: `sphinx-build -W -E -b html course build/book`, offline."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

os.environ["PYTHONPATH"] = str(HERE.parent)  # for the kernels that run the pages' Python

from functools import partial  # noqa: E402, after the path is set

from jupyter_cache.executors import utils  # noqa: E402

from autograder.notebooks.kernels import AsyncManager  # noqa: E402
from tito import __version__  # noqa: E402

# myst-nb starts its kernels by this function, which takes no setting of ours: over sockets, not ports
utils.executenb = partial(utils.executenb, kernel_manager_class=AsyncManager)

project = "Torch Olympics"
author = "the Torch Olympics course"
copyright = "Torch Olympics; code MIT, text CC BY 4.0"
version = release = __version__
language = "en"

extensions = ["handbook", "myst_nb"]
exclude_patterns = ["_ext", "entries", "clusters", "leaderboard.ipynb", "**/.ipynb_checkpoints"]

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_execution_in_temp = True
nb_ipywidgets_js = {}  # nothing from elsewhere
nb_merge_streams = True

autodoc_typehints = "none"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = "Torch Olympics"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_search_scorer = str(HERE / "_ext" / "handbook" / "search_scorer.js")
html_show_search_summary = False  # a summary is fetched, which file:// does not allow
html_sidebars = {page: [] for page in ("index", "start", "contributing", "changelog", "search", "genindex")}
html_theme_options = {
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 7,
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "back_to_top_button": False,
}
