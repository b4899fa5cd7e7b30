"""The handbook's Sphinx extension: pages and tables made from the course, and commands that really run.

pages.py       a page a lesson, a track and a module of the API, from one template each
course.py      what the lessons hold: points, checkpoints, names, and who imports whom
charts.py      the map of lessons as an accessible SVG
console.py     {console}: commands that run while the page is built; {not-run}: those that cannot
scratch.py     the folders in which they run
commands.py    {commands}: every command with its --help
messages.py    {message}: an error message, checked against the source that prints it
scoring.py     rules, worked examples and the calculator, from rules and scores of autograder.scoring
links.py       every link of the built pages, checked when the build ends
"""

from typing import Any

from . import commands, console, docstrings, links, messages, pages, scoring


def setup(app: Any) -> dict[str, bool]:
    """Register everything with Sphinx."""
    for part in (pages, console, commands, messages, scoring, docstrings, links):
        part.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
