"""A home folder for programs that need one, where the account has none that can be written, as in containers.

Jupyter does not start without one, and nbgrader, IPython and matplotlib keep their files there.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from autograder.errors import Missing


def ready() -> None:
    """Where there is no home that can be written, take a private folder among the temporary ones, and say so.

    What this process starts inherits it. Raises Missing where that folder is another user's.
    """
    if sys.platform == "win32":
        return
    base = os.path.expanduser("~")
    if os.path.isabs(base) and os.path.isdir(base) and os.access(base, os.W_OK | os.X_OK):
        return
    import tempfile  # not before it is needed: every command comes by here

    place = Path(tempfile.gettempdir(), f"tito-home-{os.getuid()}")
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Missing(f"there is no home folder, and {place} is not ours alone: set HOME to your own")
    given = os.environ.get("HOME", "")
    print(f"tito: no home folder can be written (HOME={given}), {place} is taken for it", file=sys.stderr)
    os.environ["HOME"] = str(place)
