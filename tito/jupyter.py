"""`python -m tito.jupyter jupyterlab ...`: a program of Jupyter's, as `python -m jupyterlab ...` runs it.

Ours starts sooner: the package `autograder`, which is imported first, keeps nbformat from building a checker
of addresses that nothing here needs, which takes seconds.
"""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
