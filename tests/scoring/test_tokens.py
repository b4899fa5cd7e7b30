"""Tokens a second, with a clock and cheats of our own making: each audit catches the cheat planted for it."""

import numpy as np
import pytest
from texts import CHARACTERS, VOCABULARY, table

from autograder.data import tokenizer
from autograder.data.datasets import load_text
from autograder.scoring import rounds, tokens
from autograder.scoring.client import Stream

DIALOGUES = load_text("tinytalks", "public").dialogues[:60]
WORDS = tokenizer.Char(CHARACTERS)
WEIGHT = table("\n\n".join(d.text for d in DIALOGUES))


class Honest:
    """A table of characters; every token takes the same time on a clock of its own."""

    def __init__(self, seconds=0.01, weight=WEIGHT):
        self.seconds, self.weight = seconds, weight
        self.asked: list[np.ndarray] = []

    def begin(self, batch):
        self.shown = []

    def step(self, ids):
        self.shown.append(ids)
        return self.weight[ids].astype(float)

    def tokens(self, prompts, n):
        out = [prompts[:, -1]]
        for _ in range(n):
            out.append(self.weight[out[-1]].argmax(axis=1))
        return np.stack(out[1:], axis=1)

    def time(self, prompts):
        return self.seconds

    def generate(self, prompts, n, stream=True):
        assert prompts.dtype == np.int64
        arrivals = self.time(prompts) * np.arange(1, n + 1)
        self.asked.append(prompts)
        return Stream(self.tokens(prompts, n), tuple(arrivals))


def run(model, load=tokens.LOAD, **options):
    prompts = tokens.Prompts(WORDS, DIALOGUES, np.random.default_rng(1))
    return tokens.speed(model, prompts, np.random.default_rng(2), rounds.Timing(**options), load)


def test_an_honest_model_passes_the_audits():
    model = Honest()
    found = run(model)
    assert found.faults == [] and found.same_share == 1.0 and found.ratio_to_reference is None
    assert found.tokens_per_second == pytest.approx(tokens.BATCH / 0.01)
    assert found.interval == pytest.approx((tokens.BATCH / 0.01,) * 2)
    assert found.latency_p50 == found.latency_p90 == found.first_token == pytest.approx(0.01)
    assert len(found.samples) == len(found.known) == tokens.ROUNDS
    assert len(found.latencies) == tokens.QUERIES
    assert {p.shape for p in model.asked} == {(16, 64), (1, 64)}


def test_prompts_are_never_asked_twice_but_where_that_is_audited():
    model = Honest()
    run(model)
    rows = [row.tobytes() for prompts in model.asked for row in prompts]
    counts = {row: rows.count(row) for row in rows}
    assert sorted(set(counts.values())) == [1, tokens.ROUNDS + 1]
    assert all(row[0] == WORDS.end for prompts in model.asked for row in prompts)


def test_the_input_length_holds_prompt_and_new_tokens():
    model = Honest()
    run(model, tokens.Load(batch=4, input_length=512, new=32))
    assert {p.shape for p in model.asked} == {(4, 480), (1, 480)}
    with pytest.raises(ValueError, match="leave no prompt"):
        run(Honest(), tokens.Load(input_length=64))


def test_the_reference_is_timed_in_turn():
    reference = Honest(0.02)
    found = run(Honest(), reference=reference)
    assert found.ratio_to_reference == pytest.approx(2)
    assert len(found.reference) == len(found.samples)


def test_slow_models_get_fewer_rounds():
    found = run(Honest(), budget_s=0)
    assert len(found.samples) == rounds.LEAST_ROUNDS and len(found.latencies) == tokens.LEAST_QUERIES


def test_very_slow_models_get_smaller_rounds():
    """Regression: a model without a cache used up its whole wall clock in rounds of full size."""
    model = Honest(1.0)
    found = run(model, budget_s=0)
    assert [p.shape for p in model.asked[:2]] == [(16, 64), (4, 64)] and found.faults == []
    assert found.tokens_per_second == pytest.approx(4)


@pytest.mark.parametrize("seed", range(20))
def test_a_busy_machine_does_not_make_an_honest_model_a_cheat(seed):
    jitter = np.random.default_rng(seed)
    model = Honest()
    model.time = lambda prompts: 0.01 * jitter.choice([1, 1, 3])
    assert run(model).faults == []


def test_frames_held_back_gain_nothing():
    class Late(Honest):
        def generate(self, prompts, n, stream=True):
            stream = super().generate(prompts, n, stream)
            return Stream(stream.tokens, (stream.seconds,) * n)

    found = run(Late())
    assert found.latency_p50 == pytest.approx(0.01) and found.first_token == pytest.approx(0.32)


def test_kept_answers_are_caught():
    class Cheat(Honest):
        def time(self, prompts):
            known = any(np.array_equal(prompts, before) for before in self.asked)
            return self.seconds / 10 if known else self.seconds

    (fault,) = run(Cheat()).faults
    assert fault.startswith("prompts asked before are answered 10.0 times faster")


def test_another_model_in_the_timed_run_is_caught():
    class Cheat(Honest):
        def tokens(self, prompts, n):
            return np.full((len(prompts), n), CHARACTERS.index("e"))

    found = run(Cheat())
    assert found.same_share < 0.5
    assert found.faults[0].startswith("only") and "reads along" in found.faults[0]


def test_ties_may_go_either_way():
    weight = WEIGHT.copy()
    best = weight.argmax(axis=1)
    twin = (best + 1) % VOCABULARY
    weight[np.arange(VOCABULARY), twin] = weight.max(axis=1) - 1e-6

    class Rounding(Honest):
        def tokens(self, prompts, n):
            out = [prompts[:, -1]]
            for _ in range(n):
                out.append(twin[out[-1]])
            return np.stack(out[1:], axis=1)

    assert run(Rounding(weight=weight)).same_share == 1.0


def test_prompts_need_dialogues():
    with pytest.raises(ValueError, match="one at least"):
        tokens.Prompts(WORDS, [], np.random.default_rng(0))
