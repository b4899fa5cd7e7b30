"""Ramps, gate and reasons: figures worked by hand."""

import math

import pytest

from autograder.scoring import rules, scores

VISION = rules.TRACKS["vision"]


def entry(**changed):
    figures = {"accuracy": 0.95, "speed": 6000.0, "size": 100_000.0, "quality": 1.0}
    figures |= changed
    quality = figures.pop("quality")
    return scores.score(VISION, "cifar10", figures, quality=quality)


@pytest.mark.parametrize("dataset", ["cifar10", "digits"])
@pytest.mark.parametrize("dimension", ["accuracy", "speed", "size"])
def test_ramps_meet_their_points_and_rise(dataset, dimension):
    ramp = VISION.ramps[dataset][dimension]
    for figure, expected in ramp.points:
        assert scores.on_ramp(ramp, figure) == pytest.approx(expected)
    worst, best = ramp.floor, ramp.reference[0]
    steps = [scores.on_ramp(ramp, worst * (best / worst) ** (i / 50)) for i in range(51)]
    assert steps == sorted(steps) and steps[0] == pytest.approx(0) and steps[-1] == pytest.approx(1)
    beyond = [best * 2 if best > worst else best / 2, worst / 2 if best > worst else worst * 2]
    assert [scores.on_ramp(ramp, figure) for figure in beyond] == [1.0, 0.0]


def test_accuracy_is_linear_speed_and_size_logarithmic():
    ramps = VISION.ramps["cifar10"]
    assert scores.on_ramp(ramps["accuracy"], 0.45) == pytest.approx(0.35)  # half-way from chance to the gate
    assert scores.on_ramp(ramps["speed"], math.sqrt(20 * 200)) == pytest.approx(0.25)
    assert scores.on_ramp(ramps["size"], math.sqrt(50e6 * 8e6)) == pytest.approx(0.25)


@pytest.mark.parametrize("figure", [math.nan, math.inf, -1.0, 0.0])
def test_a_figure_that_is_none_is_refused(figure):
    with pytest.raises(ValueError, match="cannot be scored"):
        scores.on_ramp(VISION.ramps["cifar10"]["speed"], figure)


def test_the_best_gets_all_and_no_reason():
    found = entry()
    assert found.points == {"accuracy": 40, "speed": 20, "size": 20, "quality": 10}
    assert (found.total, found.reasons) == (90, [])


def test_points_are_40_20_20_10_10():
    assert VISION.points == {"accuracy": 40, "speed": 20, "size": 20, "quality": 10, "innovation": 10}
    assert sum(rules.COURSE_GRADE.values()) == 100


def test_below_the_gate():
    found = entry(accuracy=0.712)
    assert found.points["accuracy"] == pytest.approx(40 * 0.7 * 0.612 / 0.7, abs=0.01)
    assert found.reasons[0] == "accuracy 71.2% is below the gate of 80.0%: 24.48 of 40 points"
    assert found.points["speed"] == pytest.approx(20 * 0.612 / 0.7, abs=0.01)
    assert "below the accuracy gate it counts 87%" in found.reasons[1]


def test_a_fast_small_model_that_knows_nothing_earns_nothing_for_it():
    found = entry(accuracy=0.1, quality=0.0)
    assert found.total == 0 and len(found.reasons) == 4


def test_every_lost_point_has_a_reason():
    found = entry(accuracy=0.85, speed=300, size=9_000_000, quality=0.5)
    assert [reason.split()[0] for reason in found.reasons] == ["accuracy", "speed", "size", "code"]
    assert "speed 300 images/s is below the record of 1,000 images/s" in found.reasons[1]
    assert "size 9 MB is above the half-way mark of 8 MB" in found.reasons[2]


def test_composite_adds_the_manual_mark():
    assert scores.composite({"accuracy": 40, "speed": 12.5}, 8) == 60.5
    assert scores.composite({"accuracy": 40}, None) == 40


def test_unknown_track():
    with pytest.raises(ValueError, match="no track 'visoin': expected one of vision, language"):
        rules.track("visoin")


def test_more_than_95_percent_is_not_95_and_at_least_80_is_80():
    """The words of the capstone page, at the thresholds themselves."""

    def passes(track, accuracy, **gates):
        figures = {"accuracy": accuracy, "speed": 500.0, "size": 1e6}
        (dataset, *_) = rules.track(track).ramps
        return scores.score(rules.track(track), dataset, figures, quality=1.0, gates=gates).gate_passed

    assert [passes("speed", kept, tokens_per_second=500.0) for kept in (0.95, 0.9501)] == [False, True]
    assert [passes("speed", 1.0, tokens_per_second=rate) for rate in (99.9, 100.0)] == [False, True]
    assert [passes("vision", share) for share in (0.7999, 0.80)] == [False, True]
    assert [passes("compression", lost) for lost in (0.03, 0.0299)] == [False, True]
    kept = rules.track("speed").ramps["tinytalks"]["accuracy"]
    assert scores.show(kept.unit, kept.gate[0]) == "95.0% kept"
