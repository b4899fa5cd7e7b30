"""The levels of the sandbox: what there is here, which is chosen, and why one is not to be had."""

import os
import sys

from autograder.errors import Missing, OlympicsError
from autograder.sandbox import bubblewrap, landlock

LEVELS = ("bubblewrap", "landlock", "rlimits")
SETTING = "TITO_SANDBOX"  # environment variable: the level wherever none is named
HELP = f"Sandbox level: {', '.join(LEVELS)}; default: what {SETTING} says, else the best one here."

_NO_LINUX = (
    "this system has no sandbox of ours, and nothing is measured without one: expected Linux, such as WSL 2, "
    "a container or the class's own machine; what you hand in is measured there"
)


class UnknownLevel(OlympicsError, ValueError):
    """A sandbox level of a name that there is none of."""


class SandboxUnavailable(Missing, RuntimeError):
    """The asked-for level cannot be had on this machine; the message is one line and says what to do."""


def available() -> tuple[str, ...]:
    """The levels that work on this machine, strongest first; each is tried, not guessed. None off Linux."""
    if sys.platform != "linux":
        return ()
    found = []
    if bubblewrap.options():
        found.append("bubblewrap")
    if landlock.landlock_abi() >= 1 and landlock.can_refuse_network():
        found.append("landlock")
    return (*found, "rlimits")


def best_level() -> str:
    """The strongest level that works on this machine. Raises SandboxUnavailable where there is no Linux."""
    if not available():
        raise SandboxUnavailable(_NO_LINUX)
    return available()[0]


def require(level: str) -> str:
    """The level itself if it works here.

    Raises UnknownLevel for an unknown name, SandboxUnavailable where the machine cannot give it.
    """
    if level not in LEVELS:
        raise UnknownLevel(f"unknown sandbox level {level!r}: expected one of {', '.join(LEVELS)}")
    if not available():
        raise SandboxUnavailable(_NO_LINUX)
    if level not in available():
        why = why_not(level)
        help = {
            "bubblewrap": "install bubblewrap and allow user namespaces, or ask for a weaker level by name",
            "landlock": "it needs Linux 5.13 with Landlock enabled; ask for another level by name",
        }
        raise SandboxUnavailable(
            f"sandbox level {level} does not work on this machine{why and f' ({why})'}: {help[level]}"
        )
    return level


def choose(named: str | None = None, least: str = "") -> str:
    """The level to run at: the one named by an option, else TITO_SANDBOX's, else `least`, else the best here.

    `least` is what a course's configuration demands of official grading: anything weaker is refused.
    Raises UnknownLevel, SandboxUnavailable.
    """
    setting = "" if named else os.environ.get(SETTING, "")
    try:
        level = require(named or setting or least or best_level())
    except (UnknownLevel, SandboxUnavailable) as error:
        raise type(error)(f"{SETTING}: {error}" if setting else str(error)) from None
    if least and LEVELS.index(level) > LEVELS.index(require(least)):
        asked = f"{SETTING} asks" if setting else "--level asks"
        raise SandboxUnavailable(
            f"this course grades at sandbox level {least} (c.Judged.level in its nbgrader_config.py), "
            f"and {asked} for {level}, which is weaker: ask for {least}, or change the configuration"
        )
    return level


def why_not(level: str) -> str:
    """What this machine lacks for a level, in one line; empty if the level works here."""
    if level == "bubblewrap":
        return bubblewrap.trial()[1]
    if level == "landlock":
        if landlock.landlock_abi() < 1:
            return "this kernel has no Landlock"
        if not landlock.can_refuse_network():
            return "no socket filter for this processor"
    return ""
