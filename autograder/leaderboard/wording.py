"""How the board says things: figures with units, badges, data sets, names that cannot disturb a page."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from autograder.scoring import rules

BADGES = {
    "audited": "graded, and its own training script, run again in the sandbox, made a model as good",
    "graded": "measured by the trusted scorer on the private split, in a sandbox",
    "self-reported": "measured by its author on the public split; stands without a rank",
    "reference": "an entry of the course itself; stands without a rank",
}
DATASETS = {"cifar10": "CIFAR-10", "digits": "Digits (offline stand-in)", "tinytalks": "TinyTalks"}
ABOUT = {
    "digits": "1,797 handwritten digits, for a machine without the CIFAR-10 pictures: a far easier task. "
    "Scores, accuracies and speeds on it do not compare with those on CIFAR-10."
}
_UNSEEN = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C}


def percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def points(value: float) -> str:
    return f"{100 * value:.1f} points"


def two(value: float) -> str:
    return f"{value:.2f}"


def milliseconds(value: float) -> str:
    return f"{1000 * value:.2f} ms" if value < 0.001 else f"{1000 * value:.1f} ms"


def times(value: float) -> str:
    return f"{value:.2f} x"


def size(value: float) -> str:
    return f"{value / 1e6:.2f} MB" if value >= 1e5 else f"{value / 1e3:.1f} kB"


def memory(value: float) -> str:
    return f"{value / 1e6:,.0f} MB"


def count(value: float) -> str:
    return f"{value:,.0f}"


def duration(value: float) -> str:
    return f"{value:.1f} s" if value < 120 else f"{value / 60:,.1f} min"


def images(value: float) -> str:
    return f"{value:,.0f} images/s"


def tokens(value: float) -> str:
    return f"{value:,.0f} tokens/s"


# dimensions whose names are long for a head
_SHORT = {"accuracy": "Acc.", "quality": "Code", "innovation": "Innov."}


@dataclass(frozen=True)
class Figure:
    """A metric as people read it. `more`: not among the first columns. less: a smaller one is better."""

    metric: str
    head: str
    text: Callable[[float], str]
    interval: str = ""  # the metric that holds its 95% interval
    more: bool = False
    less: bool = False


ACCURACY = Figure("accuracy", "Accuracy", percent, "accuracy_interval")
BITS = Figure("bits_per_byte", "Bits/byte", two, "bits_per_byte_interval", less=True)
KEPT = Figure("retention", "Kept", percent)
IMAGES = Figure("images_per_second", "Speed", images, "speed_interval")
TOKENS = Figure("tokens_per_second", "Speed", tokens, "speed_interval")
SIZE = Figure("size_bytes", "Size", size, less=True)
_RATIO = Figure("ratio_to_reference", "To reference", times)
_REST = (
    Figure("memory_bytes", "Memory", memory, more=True, less=True),
    Figure("parameters", "Parameters", count, more=True, less=True),
    Figure("training_seconds", "Training", duration, more=True, less=True),
)
_LATENCIES = (
    Figure("latency_p50", "p50", milliseconds, less=True),
    Figure("latency_p90", "p90", milliseconds, more=True, less=True),
    Figure("first_token", "First token", milliseconds, more=True, less=True),
)
_LANGUAGE = (
    Figure("perplexity", "Perplexity", two, more=True, less=True),
    Figure("next_token_accuracy", "Next token", percent, more=True),
    Figure("coherence", "Coherence", two, more=True),
    Figure("relevance", "Relevance", two, more=True),
    Figure("fluency", "Fluency", two, more=True),
)
_FIGURES: dict[str, tuple[Figure, ...]] = {
    "vision": (ACCURACY, IMAGES, _RATIO, SIZE, *_REST),
    "language": (BITS, Figure("rubric", "Rubric", two), TOKENS, SIZE, *_LANGUAGE, *_LATENCIES, *_REST),
    "speed": (TOKENS, _RATIO, KEPT, *_LATENCIES, SIZE, _LANGUAGE[1], *_REST),
    "compression": (
        ACCURACY, Figure("accuracy_lost", "Lost", points, less=True), SIZE, IMAGES, _RATIO, *_REST,
    ),
}  # fmt: skip


def figures(track: str) -> tuple[Figure, ...]:
    """What a track's tables show; of a track that has no list here, those that its rules name."""
    if track in _FIGURES:
        return _FIGURES[track]
    rule = rules.track(track)
    known = {figure.metric: figure for listed in _FIGURES.values() for figure in listed}
    own = [known.get(name) or Figure(name, heading(name), two) for name in (rule.metric, rule.rate)]
    return (*own, _RATIO, SIZE, *_REST)


def parts(track: str) -> list[str]:
    """The heads of the columns of points, one for each dimension."""
    return [
        f"{_SHORT.get(name, name.capitalize())} /{most}" for name, most in rules.track(track).points.items()
    ]


def tick(figure: Figure, value: float) -> str:
    """A round figure on an axis."""
    if figure.metric == "size_bytes":
        return f"{value / 1e6:g} MB" if value >= 1e6 else f"{value / 1e3:g} kB"
    if figure.text is percent:
        return f"{100 * value:.4g}%"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def heading(metric: str) -> str:
    """A metric's name in words."""
    return metric.replace("_", " ").capitalize()


def dataset(name: str | None) -> str:
    return DATASETS.get(str(name), plain(str(name)))


def plain(text: str) -> str:
    """Text of a student without control characters and marks that turn the direction of what follows."""
    return "".join(
        c for c in text if ord(c) not in _UNSEEN and (c in "\n\t" or unicodedata.category(c) != "Cc")
    )


def name_html(text: str) -> str:
    """A name, escaped, and kept from turning the direction of the text around it."""
    return f"<bdi>{escape(plain(text))}</bdi>"


def slug(*parts: Any) -> str:
    """An id for HTML: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(str(part) for part in parts).lower()).strip("-") or "x"
