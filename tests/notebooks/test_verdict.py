"""The judge and the student's process: what crosses between them, and what does not."""

import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from autograder.notebooks.cells import wire
from autograder.notebooks.cells.grader import Clock, Judge
from autograder.notebooks.cells.proxies import Claim, Ended, Late, Link, Untrusted

ROOT = Path(__file__).parents[2]
DEFINED = """
import contextlib, threading, time
import numpy as np

class Box:
    kind = "box"
    def __init__(self, value):
        self.value, self.table, self.items = np.array(value, float), {"a": 1}, []
    def __add__(self, other):
        return Box(self.value + getattr(other, "value", other))
    __radd__ = __add__
    def __lt__(self, other):
        return self.value < getattr(other, "value", other)
    def __eq__(self, other):
        return True
    __hash__ = object.__hash__
    def __array__(self, dtype=None, copy=None):
        return self.value
    def __getitem__(self, key):
        return self.value[key]
    def __setitem__(self, key, value):
        self.value[key] = value
    def __len__(self):
        return len(self.value)
    def __float__(self):
        return float(self.value)
    def __enter__(self):
        self.inside = True
        return self
    def __exit__(self, *about):
        self.inside = False
        self.about = about[0].__name__ if about[0] else None
    def view(self):
        return self.value[1:]

def same(x): return x
def call(f, *args): return f(*args)
def change(x): x[0] = 99
def fail(): raise MyError("what was wrong")
def stay(): time.sleep(30)
def say(): print("said")
class MyError(ValueError): pass
table = {"start": 1}
kept = Box([1, 2, 3])
"""


class Open:
    """A judge with a student's process that runs without a sandbox."""

    def __init__(self):
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "autograder.notebooks.cells.student"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self.seconds = 20.0
        self.link = Link(self.process.stdin, self.process.stdout, lambda: self.seconds)
        assert self.link.run_cell(DEFINED)["status"] == "ok"

    def __getattr__(self, name):
        found = self.link.names([name])
        if name not in found:
            raise AttributeError(name)
        return found[name]

    def close(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                continue


@pytest.fixture(scope="module")
def far():
    made = Open()
    yield made
    made.close()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=12,
)
ARRAYS = of_numpy.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
    of_numpy.array_shapes(min_dims=0, max_dims=4),
)


@settings(max_examples=60, deadline=None)
@given(PLAIN)
def test_plain_values_come_back_equal(far, value):
    got = far.same(value)
    assert got == value and type(got) is type(value)


@settings(max_examples=60, deadline=None)
@given(ARRAYS, st.data())
def test_arrays_come_back_with_type_shape_and_layout(far, array, data):
    axes = data.draw(st.permutations(range(array.ndim)))
    given_ = array.transpose(axes).copy(order="K")
    got = far.same(given_)
    assert got is given_, "an array that was handed over comes back as itself"
    made = far.call(far.same, np.array(given_, order="K"))
    assert made.dtype == given_.dtype and made.shape == given_.shape
    np.testing.assert_array_equal(made, given_)


def test_special_values(far):
    for value in (float("inf"), 1 << 200, -(1 << 70), 2 + 1j, slice(1, None, 2), range(3), Ellipsis, {1, 2},
                  frozenset("a"), np.float32(1.5), np.dtype("int8"), np.add, np.float64,
                  ValueError, Path("/a/b")):  # fmt: skip
        got = far.same(value)
        assert got == value and type(got) is type(value), value
    assert far.same(np.float32(1.5)).dtype == np.float32
    assert np.isnan(far.same(float("nan")))


def test_objects_are_proxies_with_identity_and_the_name_of_their_class(far):
    box = far.Box([1.0, 2.0])
    assert type(box).__name__ == "Box" and far.same(box) is box and far.kept is far.kept
    assert isinstance(box, far.Box) and not isinstance(3, far.Box) and not isinstance(box, far.MyError)
    assert box.kind == "box" and len(box) == 2 and float(box.value.sum()) == 3 and hasattr(box, "table")
    assert not hasattr(box, "nothing") and callable(far.same) and not callable(box)
    assert np.asarray(box + 1).tolist() == np.asarray(1 + box).tolist() == [2, 3]
    assert np.asarray(np.array([10.0, 20.0]) + box).tolist() == [11, 22]


def test_arrays_are_shared_as_in_one_process(far):
    box = far.Box([1.0, 2.0, 3.0])
    value, tail = box.value, box.view()
    value[1] = 7
    assert box[1] == 7 and tail.tolist() == [7, 3]
    box[2] = 5
    assert value.tolist() == [1, 7, 5] and tail.tolist() == [7, 5]
    mine = np.zeros(3)
    far.change(mine)
    assert mine.tolist() == [99, 0, 0]
    rows = np.zeros((2, 3))
    far.change(rows[1])
    assert rows.tolist() == [[0, 0, 0], [99, 0, 0]]
    assert far.link.shares_memory(value, tail) and not far.link.shares_memory(value, far.Box([1.0]).value)


def test_lists_and_dicts_of_an_argument_come_back_changed(far):
    numbers, table = [1, 2], {"a": [3]}
    far.change(numbers)
    far.call(lambda d: d["a"].append(4), table)
    far.link.do("setitem", table, "b", 5)
    assert numbers == [99, 2] and table["b"] == 5
    far.table["more"] = 2
    assert far.table["more"] == 2 and "more" in far.table


def test_functions_of_ours_are_called_back_within_their_calls(far):
    seen = []

    def ours(x, box):
        seen.append(float(box + x))
        return np.array([x, 2 * x])

    assert far.call(ours, 3, far.Box(1.0)).tolist() == [3, 6] and seen == [4.0]
    assert far.call(far.call, far.call, lambda: far.same(5)) == 5
    assert far.same(ours) is ours
    assert list(far.call(far.link.names(["same"])["same"], iter([1, 2]))) == [1, 2]


def test_errors_keep_class_and_text_in_both_directions(far):
    with pytest.raises(ValueError, match="^what was wrong$") as said:
        far.fail()
    assert type(said.value).__name__ == "MyError"
    with pytest.raises(KeyError, match="planned") as said:
        far.call(lambda: {}["planned"])
    assert type(said.value) is KeyError
    box = far.Box([1.0])
    with pytest.raises(KeyError), box:
        assert box.inside is True
        raise KeyError("planned")
    assert box.inside is False and box.about == "KeyError"
    with pytest.raises(StopIteration):
        next(iter(far.same(far.Box([])).items.__iter__()))


def test_a_comparison_is_never_the_students_to_decide(far):
    box = far.Box([1.0, 3.0])
    for compare in (lambda: box == 4, lambda: box != 4, lambda: box == 4, lambda: box == [1, 3]):
        with pytest.raises(Untrusted, match="turn it into an array"):
            compare()
    claim = box < 2
    assert type(claim) is Claim
    for use in (bool, np.asarray, lambda c: np.all(c)):
        with pytest.raises(Untrusted):
            use(claim)
    assert box[claim].tolist() == [1.0], "it may be handed back"
    assert box == box and box != far.Box([1.0]) and box is not None


def test_what_is_printed_there_is_printed_here(far, capsys):
    far.say()
    assert capsys.readouterr().out == "said\n"


def test_time_is_over_there_first_and_the_next_call_works(far):
    far.seconds = 0.3
    with pytest.raises(Late):
        far.stay()
    with pytest.raises(Late):
        far.call(lambda: far.stay())
    far.seconds = 20.0
    assert far.same(1) == 1


def test_only_plain_things_can_be_handed_over(far):
    with pytest.raises(wire.WireError, match="hands a object to the student's code"):
        far.same(object())
    nested = []
    for _ in range(100):
        nested = [nested]
    with pytest.raises(wire.WireError, match="nested too deeply"):
        far.same(nested)


def test_the_end_of_the_process_is_an_error():
    made = Open()
    made.link.run_cell("import os\ndef end(): os._exit(0)")
    with pytest.raises(Ended):
        made.end()
    with pytest.raises(Ended):
        made.link.names(["same"])
    made.close()


def frame(header, payload=b"", lengths=None):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<IQ", *(lengths or (len(text), len(payload)))) + text + payload


@pytest.mark.parametrize(
    "data",
    [
        frame({}, lengths=(1 << 31, 0)),
        frame({}, lengths=(2, 1 << 60)),
        frame(b"not json"),
        frame({"value": 1}),
        frame({"arrays": [{"dtype": "|O", "shape": [1]}]}, bytes(8)),
        frame({"arrays": [{"dtype": "<f8", "shape": [-1]}]}),
        frame({"arrays": [{"dtype": "<f8", "shape": [2]}]}, bytes(8)),
        frame({"arrays": [{"dtype": "<f8", "shape": [True]}]}, bytes(8)),
        frame({"arrays": [{"dtype": "<f8", "shape": [0] + 40 * [1]}]}),
        frame({"arrays": [{"dtype": "<f8", "shape": [0] + 6 * [1 << 30]}]}),
        frame({"arrays": [{"dtype": "<U0", "shape": [2]}]}),
        frame({"arrays": [{"dtype": "no type", "shape": [2]}]}, bytes(8)),
        frame({"arrays": [{"dtype": "f4," * 99, "shape": [2]}]}, bytes(8)),
        frame({"arrays": 7}),
        frame(b"[" * 100_000),
    ],
)
def test_frames_that_are_none_are_refused(data):
    with pytest.raises(wire.WireError):
        wire.receive(io.BytesIO(data))


@pytest.mark.parametrize(
    "value",
    [
        ["known", "numpy:save"], ["known", "numpy:memmap"], ["known", "builtins:eval"],
        ["known", "os:system"], ["known", "builtins:type"], ["pickle", 1, "80049500"], ["object", 1, 99],
        ["yours", 5],
        ["view", 1], ["array"], ["scalar", 4], ["no such tag"], [], {"a": 1}, [["list"], []],
        ["dict", [[["list", [], None], 1]], None], ["range", [["list", [], None], 1, 1]],
        ["bytes", 5], ["int", "z"], ["objects", [1 << 60], []],
    ],
)  # fmt: skip
def test_values_that_are_none_are_refused(value):
    """A hostile process may write what it likes; the judge's decoder gives an error, and nothing else."""
    link = Link(io.BytesIO(), io.BytesIO(), lambda: 1.0)
    with pytest.raises((wire.WireError, Ended)):
        link.decode(value, [])


def test_a_name_is_found_where_it_was_bound_last():
    """Ours here, the student's there; a graded cell's own from then on, also where it failed halfway."""
    made = Open()
    clock = Clock(20.0, 100.0)
    clock.end = clock.stop
    judge = Judge(made.link, clock)

    def run(source, kind):
        record = judge.run(source, kind)
        return [o.get("evalue") or o["data"]["text/plain"] for o in record["outputs"]]

    run("import math\nlimit = 3\ndef helper(x):\n    return math.floor(x) + limit", "ours")
    run("helper_was = helper\nhelper = lambda x: 99\nlimit = 99\nanswer = 5", "student")
    assert run("float(answer)", "grade") == ["5.0"]
    assert run("float(limit)", "grade") == ["99.0"], "the student bound it last"
    run("limit = 4\ndef helper(x):\n    return math.floor(x) + limit", "ours")
    made.link.run_cell("limit = 1000\nhelper = None")
    assert run("float(helper(2.5))", "grade") == ["6.0"], "from our cell, whatever the student did to it"
    assert run("half = 8\nassert answer == 6, 'no'", "grade") == ["no"]
    assert run("float(half)", "grade") == ["8.0"]
    run("half = 1", "student")
    assert run("float(half)", "grade") == ["1.0"]
    assert run("nowhere", "grade") == ["name 'nowhere' is not defined"]
    made.close()
