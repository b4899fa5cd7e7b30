"""The error that the command line and the notebooks raise for a person; autograder.errors has the others."""

from __future__ import annotations

from autograder.errors import OlympicsError


class TitoError(OlympicsError):
    """Something a student or an instructor can mend."""
