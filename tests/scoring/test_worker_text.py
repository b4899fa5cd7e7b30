"""The worker's operations for language models: begin, step, generate, each answer checked."""

import numpy as np
import pytest
from texts import BIGRAM, VOCABULARY, table, text_submission

from autograder import sandbox
from autograder.scoring import client

PROMPTS = np.random.default_rng(0).integers(0, VOCABULARY, (3, 5))


def worker(folder, network=BIGRAM, **options):
    options.setdefault("level", sandbox.choose())
    made = client.Worker(text_submission(folder / "s", network), **options)
    return made, folder / "s" / "model.safetensors"


def failure(folder, network, ask, **options):
    made, model = worker(folder, network, **options)
    with pytest.raises(client.SubmissionError) as error, made:
        made.load(model, VOCABULARY)
        ask(made)
    assert "\n" not in str(error.value)
    return str(error.value)


def stepped(made, ids):
    """Logits after each column of ids (B, T), as (T, B, V)."""
    made.begin(len(ids))
    return np.stack([made.step(np.ascontiguousarray(column)) for column in ids.T])


def greedy(weight, prompts, n):
    tokens = [prompts[:, -1]]
    for _ in range(n):
        tokens.append(weight[tokens[-1]].argmax(axis=1))
    return np.stack(tokens[1:], axis=1)


def test_steps_and_tokens_are_the_models(tmp_path):
    made, model = worker(tmp_path)
    weight = table()
    with made:
        assert made.load(model, VOCABULARY) == {"parameters": VOCABULARY**2}
        for _ in range(2):  # a second text finds nothing of the first
            np.testing.assert_array_equal(stepped(made, PROMPTS), weight[PROMPTS.T].astype(np.float64))
        stream = made.generate(PROMPTS, 7)
        np.testing.assert_array_equal(stream.tokens, greedy(weight, PROMPTS, 7))
        assert len(stream.arrivals) == 7 and list(stream.arrivals) == sorted(stream.arrivals)
        assert stream.seconds == stream.arrivals[-1] > 0
        at_once = made.generate(PROMPTS, 7, stream=False)
        np.testing.assert_array_equal(at_once.tokens, stream.tokens)
        assert len(at_once.arrivals) == 1
        assert made.peak_memory() > 10_000_000


OWN = (
    BIGRAM
    + '''
    def decoder(self, batch):
        return Decoder(self, batch)


class Decoder:
    """Counts what it is asked, and gives it as logits."""

    def __init__(self, model, batch):
        self.asked, self.batch = [], batch

    def reset(self):
        self.asked = ["reset"]

    def prefill(self, ids):
        self.asked.append(("prefill", ids.shape))
        print(self.asked)
        return np.zeros((self.batch, {V}))

    def step(self, ids):
        self.asked.append(("step", ids.shape))
        print(self.asked)
        return np.zeros((self.batch, {V}))
'''.replace("{V}", str(VOCABULARY))
)


def test_the_models_own_decoder_is_used_and_reset(tmp_path):
    made, model = worker(tmp_path, OWN)
    with made:
        made.load(model, VOCABULARY)
        stepped(made, PROMPTS[:, :2])
        made.generate(PROMPTS, 2)
        made.generate(PROMPTS[:2], 1)
    made._drainer.join(5.0)
    lines = made.log.splitlines()
    assert lines == [
        "[('prefill', (3, 1))]",
        "[('prefill', (3, 1)), ('step', (3,))]",
        "['reset', ('prefill', (3, 5))]",
        "['reset', ('prefill', (3, 5)), ('step', (3,))]",
        "[('prefill', (2, 5))]",  # another batch, another decoder
    ]


def test_tinytorchs_decoder_where_it_takes_the_model(tmp_path):
    package = '''

class Decoder:
    """A row of the table shifted by one, to be told apart from the model."""

    def __init__(self, model, batch):
        self.weight = model.table

    def prefill(self, ids):
        return self.step(ids[:, -1])

    def step(self, ids):
        return np.roll(self.weight[ids], 1, axis=1)
'''
    answers = {}
    for name, line in (("takes", "    table = property(lambda self: self.weight.data)\n"), ("not", "")):
        made, model = worker(tmp_path / name, BIGRAM + line)
        init = tmp_path / name / "s" / "tinytorch" / "__init__.py"
        init.write_text(init.read_text() + package)
        with made:
            made.load(model, VOCABULARY)
            answers[name] = made.generate(PROMPTS, 1).tokens
        made._drainer.join(5.0)
        assert ("decoding without a cache" in made.log) is (name == "not")
    np.testing.assert_array_equal((answers["not"] + 1) % VOCABULARY, answers["takes"])


def test_without_a_cache_no_more_than_the_context_is_read(tmp_path):
    network = BIGRAM.replace(
        "return tinytorch", "assert ids.shape[1] <= 6, ids.shape\n        return tinytorch"
    )
    made, model = worker(tmp_path, network + "    context = 6\n")
    with made:
        made.load(model, VOCABULARY)
        np.testing.assert_array_equal(made.generate(PROMPTS, 9).tokens, greedy(table(), PROMPTS, 9))


def answering(line):
    return BIGRAM.replace("return tinytorch.Tensor(self.weight.data[ids])", line)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (answering("return tinytorch.Tensor(np.zeros((*ids.shape, 5)))"), "shape (3, 5): expected (3, 97)"),
        (answering("return tinytorch.Tensor(np.full((*ids.shape, 97), np.nan))"), "NaN or infinity"),
        (answering("return 'hello'"), "network.py"),
        (answering("raise SystemExit(3)"), "SystemExit: 3"),
        (answering("import os; os._exit(3)"), "ended by itself (exit code 3)"),
        (answering("import time; time.sleep(100)"), "time limit: no answer within 2 s"),
    ],
)
def test_a_failing_step_gives_one_line(tmp_path, network, reason):
    slow = 2.0 if "sleep" in network else 100.0
    if "return 'hello'" in network:
        reason = "IndexError"
    assert reason in failure(tmp_path, network, lambda made: stepped(made, PROMPTS), answer_s=slow)


FORGED = '''"""Writes its own answer to `generate`, past the worker."""
import inspect
import tinytorch


class Model(tinytorch.Model):
    def __call__(self, ids):
        frame = next(f for f in inspect.stack() if f.function == "_main").frame
        write, out = frame.f_locals["frames"].write, frame.f_locals["answers"]
        import numpy as np
        write(out, {}, [ANSWER])
        import time
        time.sleep(100)
'''


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("np.zeros(2, np.int64)", "int64 (2,) as tokens: expected int64 (3,)"),
        ("np.zeros((3, 7), np.int64)", "expected int64 (3,)"),
        ("np.zeros(3, np.float32)", "float32 (3,) as tokens"),
        ("np.full(3, 97)", "token 97 to 97: expected 0 to 96"),
        ("np.full(3, -1)", "token -1"),
        ("np.zeros(10**6)", "garbage instead of an answer"),
        ("np.zeros(3, np.int64), np.zeros(3, np.int64)", "2 arrays instead of one"),
        ("np.zeros(3, np.int64)", "time limit: no answer within 3 s"),  # one frame, and no second
    ],
)
def test_forged_tokens_are_checked(tmp_path, answer, reason):
    def ask(made):
        made.generate(PROMPTS, 2)

    network = FORGED.replace("[ANSWER]", f"[{answer}]")
    assert reason in failure(tmp_path, network, ask, answer_s=3.0)


def test_our_own_mistakes_are_not_the_submissions(tmp_path):
    made, model = worker(tmp_path)
    with made:
        made.load(model)
        for wrong in (
            lambda: made.begin(2),  # no vocabulary
            lambda: made.generate(PROMPTS, 1),
            lambda: made.load(model, VOCABULARY) and made.begin(0),
            lambda: made.step(np.zeros(1, np.int64)),  # nothing begun
            lambda: made.generate(PROMPTS + VOCABULARY, 1),
            lambda: made.generate(PROMPTS, 0),
        ):
            with pytest.raises(ValueError, match="expected"):
                wrong()
