"""Graded cells judge rightly: the reference gets all points, the released notebook none, mutants lose."""

import pytest

from tests.mutants import Mutant, grade, lessons, mutants

LESSONS = sorted(lessons())
ALL = [
    pytest.param(lesson, mutant, id=f"{lesson}-{mutant.name}")
    for lesson in LESSONS
    for mutant in mutants(lesson)
]


def auto(lesson: str, what: Mutant | str, **ways: bool) -> tuple[float, float, str]:
    """Points, maximum and lost points in words, over the cells that no person grades."""
    results = [r for r in grade(lesson, what, **ways) if r.points is not None]
    lost = "; ".join(f"{r.grade_id}: {r.reason}" for r in results if r.points != r.max_points)
    return sum(r.points or 0.0 for r in results), sum(r.max_points for r in results), lost


@pytest.mark.parametrize("lesson", LESSONS)
def test_reference_gets_all_points(lesson: str) -> None:
    """As a submission is judged, and in the quick way that the mutants are judged in."""
    points, most, lost = auto(lesson, "reference")
    assert most > 0 and points == most, lost
    assert auto(lesson, "reference", quick=True) == (points, most, "")


@pytest.mark.parametrize("lesson", LESSONS)
def test_release_gets_none(lesson: str) -> None:
    points, _, _ = auto(lesson, "release")
    assert points == 0, f"{points} points for a notebook without any answer"


@pytest.mark.parametrize("lesson", LESSONS)
def test_enough_mutants(lesson: str) -> None:
    names = [mutant.name for mutant in mutants(lesson)]
    assert len(set(names)) == len(names) >= 8, f"{lesson}: {len(set(names))} mutants, expected at least 8"


@pytest.mark.parametrize("lesson", LESSONS)
def test_verdict_from_outside_equals_that_of_the_same_process(lesson: str) -> None:
    """One wrong solution a lesson, cell by cell; `python -m tests.mutants.agreement` compares them all."""
    mutant = mutants(lesson)[len(lesson) % len(mutants(lesson))]
    outside, quick = grade(lesson, mutant), grade(lesson, mutant, quick=True)
    assert [(r.grade_id, r.points) for r in outside] == [(r.grade_id, r.points) for r in quick]


@pytest.mark.parametrize("lesson,mutant", ALL)
def test_mutant_loses_points(lesson: str, mutant: Mutant) -> None:
    points, most, _ = auto(lesson, mutant, quick=True, until_a_loss=True)
    assert points < most, f"{mutant.name} ({mutant.why}) kept all {most:g} points"
