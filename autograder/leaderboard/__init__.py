"""Exported results as a leaderboard: ranks, tables, plots, the history of records, a page for each entry.

`course/leaderboard.ipynb` calls what is listed here and shows what it returns; `render` executes that
notebook and makes the page. ranking: who stands where. tables, plots, history: what is shown. entries,
reports: an entry's own page. page: the files. wording, chart: what the others share.
"""

from autograder.leaderboard.page import NOTEBOOK as NOTEBOOK
from autograder.leaderboard.page import render as render
from autograder.leaderboard.plots import SEED_RECORDS as SEED_RECORDS
from autograder.leaderboard.plots import pareto as pareto
from autograder.leaderboard.plots import plot as plot
from autograder.leaderboard.ranking import MEASURED as MEASURED
from autograder.leaderboard.ranking import OWN_FIGURE as OWN_FIGURE
from autograder.leaderboard.ranking import Section as Section
from autograder.leaderboard.ranking import numbered as numbered
from autograder.leaderboard.ranking import results as results
from autograder.leaderboard.ranking import sections as sections
from autograder.leaderboard.ranking import tracks as tracks
from autograder.leaderboard.tables import overall as overall
from autograder.leaderboard.tables import show as show
from autograder.leaderboard.tables import table as table
from autograder.leaderboard.wording import BADGES as BADGES
