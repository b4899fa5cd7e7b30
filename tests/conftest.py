"""Fixtures that several test files share."""

import os

import pytest
from hypothesis import settings

from autograder import sandbox

# In CI the same examples every time: a red run then means a change, and new examples are tried at the desk.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(params=sandbox.LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    """Every sandbox level in turn; those that this machine cannot give are skipped."""
    if request.param not in sandbox.available():
        pytest.skip(f"no {request.param} on this machine")
    return request.param
