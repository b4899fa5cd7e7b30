"""The trusted side of Torch Olympics: rules, sandbox, measurement, scores and grading.

Nothing here imports student code, `tinytorch` or `tito`.
"""

import sys

from autograder import moved

# jsonschema, which nbformat imports, loads this checker of IRIs where it is installed; building its grammar
# takes more than a second in every process, and nothing here checks an IRI.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
moved.install()
