"""Measurement, with a clock and cheats of our own making: each audit catches the cheat planted for it."""

import numpy as np
import pytest
from submissions import pictures

from autograder.scoring import measure, rounds

DATA = pictures()


class Clock:
    """Time that passes only when a predictor says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def honest(clock, seconds=0.01):
    """The nearest of ten class means; every picture takes the same time."""
    means = np.stack([DATA.images[DATA.labels == k].mean(axis=0) for k in range(10)]).reshape(10, -1)

    def predict(images):
        clock.now += seconds * len(images)
        x = images.reshape(len(images), -1).astype(float)
        return -((x**2).sum(1)[:, None] - 2 * x @ means.T + (means**2).sum(1)) / 1e6

    return predict


def run(predict, clock, **options):
    known = measure.accuracy(predict, DATA.images, DATA.labels, np.random.default_rng(1), 50)
    timing = rounds.Timing(clock=clock, **options)
    found = measure.throughput(predict, DATA, known, np.random.default_rng(2), 50, timing)
    return known, found


def test_honest_model_passes_the_audits():
    clock = Clock()
    known, found = run(honest(clock), clock)
    assert known.value > 0.9 and found.faults == []
    assert found.images_per_second == pytest.approx(100)
    assert found.interval == pytest.approx((100, 100))
    assert len(found.samples) == measure.ROUNDS and found.ratio_to_reference is None


def test_accuracy_is_in_the_splits_order_whatever_order_was_asked():
    asked = []

    def predict(images):
        asked.append(images)
        return np.eye(10)[images[:, 0, 0, 0] % 10]

    images = np.zeros((30, 3, 32, 32), np.uint8)
    images[:, 0, 0, 0] = np.arange(30)
    labels = (np.arange(30) % 10).astype(np.uint8)
    found = measure.accuracy(predict, images, labels, np.random.default_rng(5), 7)
    assert found.correct == found.n == 30
    order = np.concatenate(asked)[:, 0, 0, 0]
    assert sorted(order) == list(range(30)) and list(order) != list(range(30))
    assert [len(batch) for batch in asked] == [7, 7, 7, 7, 2]


def test_the_order_of_the_labels_tells_nothing():
    labels = np.repeat(np.arange(10), 12).astype(np.uint8)
    given = iter(labels)

    def predict(images):
        return np.eye(10)[[next(given) for _ in images]]

    found = measure.accuracy(predict, DATA.images, labels, np.random.default_rng(3), 50)
    assert found.value < 0.35


@pytest.mark.parametrize("seed", range(20))
def test_a_busy_machine_does_not_make_an_honest_model_a_cheat(seed):
    """Regression: the median of a few rounds was once enough to call an honest model INVALID."""
    clock, jitter = Clock(), np.random.default_rng(seed)
    model = honest(clock)

    def slowed(images):
        before, answers = clock.now, model(images)
        clock.now = before + (clock.now - before) * jitter.choice([1, 1, 3])
        return answers

    assert run(slowed, clock)[1].faults == []


def test_kept_answers_are_caught():
    clock, kept = Clock(), {}
    model = honest(clock)

    def cheat(images):
        new = [i for i, image in enumerate(images) if image.tobytes() not in kept]
        if new:
            kept.update(zip((images[i].tobytes() for i in new), model(images[new]), strict=True))
        clock.now += 1e-4
        return np.stack([kept[image.tobytes()] for image in images])

    _, found = run(cheat, clock)
    assert len(found.faults) == 1 and "asked before are answered" in found.faults[0]


def test_a_lazy_timed_run_is_caught():
    clock, asked = Clock(), [0]
    model = honest(clock)

    def cheat(images):
        asked[0] += len(images)
        if asked[0] > len(DATA):
            clock.now += 1e-4
            return np.tile(np.arange(10.0), (len(images), 1))
        return model(images)

    _, found = run(cheat, clock)
    assert any("same answer" in fault for fault in found.faults)
    assert any("new pictures are right" in fault for fault in found.faults)


def test_kept_answers_and_junk_for_the_rest_are_caught():
    clock, kept = Clock(), {}
    model = honest(clock)

    def cheat(images):
        if len(kept) < len(DATA):
            answers = model(images)
            kept.update(zip((image.tobytes() for image in images), answers, strict=True))
            return answers
        clock.now += 1e-4
        return np.stack([kept.get(image.tobytes(), np.arange(10.0)) for image in images])

    _, found = run(cheat, clock)
    assert any("new pictures are right" in fault for fault in found.faults)


def test_reference_is_timed_in_turn():
    clock = Clock()
    _, found = run(honest(clock), clock, reference=honest(clock, 0.02))
    assert found.ratio_to_reference == pytest.approx(2)
    assert len(found.reference) == len(found.samples)


def test_slow_models_get_fewer_rounds():
    clock = Clock()
    _, found = run(honest(clock, 1.0), clock, budget_s=10)
    assert len(found.samples) == rounds.LEAST_ROUNDS


def test_bad_luck_in_the_first_rounds_is_not_kept_answers():
    """Regression: on a busy machine three rounds made an honest entry INVALID; suspicion now asks for all."""
    clock, pictures_of_the_split = Clock(), {image.tobytes() for image in DATA.images}
    model, left = honest(clock, 1.0), [3 * len(DATA.images)]

    def predict(images):
        before = clock.now
        answer = model(images)
        if images[0].tobytes() in pictures_of_the_split and clock.now > 2 * len(DATA.images) and left[0] > 0:
            clock.now, left[0] = before + 0.5 * (clock.now - before), left[0] - len(images)
        return answer

    _, found = run(predict, clock, budget_s=10)
    assert found.known[0] > rounds.CACHE_RATIO * found.samples[0], "the test plants no bad luck"
    assert found.faults == [] and len(found.samples) > rounds.LEAST_ROUNDS


def test_wilson():
    assert measure.wilson(8, 10) == pytest.approx((0.4901, 0.9433), abs=1e-4)  # statsmodels: the same figures
    assert measure.wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert measure.wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    with pytest.raises(ValueError, match="wilson"):
        measure.wilson(3, 2)


def test_bootstrap_interval_holds_the_median():
    samples = list(np.random.default_rng(0).normal(100, 5, 40))
    low, high = rounds.bootstrap_median(samples, np.random.default_rng(1))
    assert low < np.median(samples) < high and high - low < 10


@pytest.mark.parametrize("times, caught", [(2, False), (20, True)])
def test_a_second_network_for_the_timed_run_is_caught(times, caught):
    """Regression: with the answers of the accuracy run kept beside, 60% of the accuracy was enough."""
    clock, asked = Clock(), [0]
    slow, fast = honest(clock, 0.01), honest(clock, 0.01 / times)

    def cheat(images):
        asked[0] += len(images)
        return (slow if asked[0] <= len(DATA) else fast)(images)

    known = measure.accuracy(cheat, DATA.images, DATA.labels, np.random.default_rng(1), 10, clock)
    assert known.rate == pytest.approx(100)
    timing = rounds.Timing(clock=clock)
    found = measure.throughput(cheat, DATA, known, np.random.default_rng(2), 10, timing)
    assert len(found.faults) == caught
    assert all("faster in the timed run" in fault for fault in found.faults)
