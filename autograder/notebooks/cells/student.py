"""The student's side, inside its sandbox: runs the cells of a notebook and serves what they define.

Started as `python -m autograder.notebooks.cells.student`; the judge's requests come on stdin, answers leave
on stdout. Both are moved away before student code runs. Nothing here is trusted: graded cells never come
here, and what this process answers is data that they check.
"""

from __future__ import annotations

import base64
import builtins
import contextlib
import importlib
import io
import operator
import os
import pickle
import signal
import sys
import threading
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from autograder.notebooks.cells import wire

PRINTED = 20_000  # characters of one call's prints that go back
SPECIAL = frozenset(  # methods that Python looks up on a type; the judge's proxies offer those that it has
    f"__{name}__"
    for name in (
        *wire.BINARY, *(f"r{name}" for name in wire.BINARY), *wire.IN_PLACE, *wire.UNARY, *wire.OTHERS,
        "lt", "le", "gt", "ge", "array",
    )
)  # fmt: skip


def _array(value: Any) -> Any:
    """What np.asarray makes of a value, as a plain array."""
    return np.array(np.asarray(value), copy=True, subok=False)


ACTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(builtins, name) for name in wire.OF_PYTHON},
    **{name: getattr(operator, f"__{name}__") for name in (*wire.BINARY, *wire.IN_PLACE)},
    **{
        name: getattr(operator, f"__{name}__")
        for name in ("neg", "pos", "abs", "invert", "lt", "le", "gt", "ge")
    },
    **{name: getattr(operator, name) for name in ("index", "contains", "getitem", "setitem", "delitem")},
    "call": lambda f, *args, **kwargs: f(*args, **kwargs),
    "enter": lambda x: type(x).__enter__(x),
    "exit": lambda x, *about: type(x).__exit__(x, *about),
    "array": _array,
    "shares_memory": np.shares_memory,
}


class Memory:
    """Stands for tracemalloc: what actions allocate, without what it takes to hand values over."""

    def __init__(self) -> None:
        self._most = 0

    def start(self) -> None:
        """Count from here."""
        self._most = 0
        tracemalloc.start()

    def stop(self) -> None:
        """Count no more."""
        tracemalloc.stop()

    def get_traced_memory(self) -> tuple[int, int]:
        """What is held now is not known apart from our own; the most that one action allocated."""
        return 0, self._most

    @contextlib.contextmanager
    def of_the_action(self) -> Iterator[None]:
        """Within: an action."""
        if tracemalloc.is_tracing():
            tracemalloc.clear_traces()
        yield
        if tracemalloc.is_tracing():
            self._most = max(self._most, tracemalloc.get_traced_memory()[1])


class OutOfTime(BaseException):
    """The time of this request is over; not an Exception, so that `except Exception` lets it pass."""


class Foreign:
    """A function of the judge's: all that student code can do with it is call it."""

    def __init__(self, side: Side, number: int, name: str) -> None:
        self._side, self._number, self.__name__ = side, number, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._side.call_back(self._number, args, kwargs)


class ForeignIterator:
    """An iterator of the judge's."""

    def __init__(self, advance: Foreign) -> None:
        self._advance = advance

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._advance()


class Side(wire.Coder):
    """The student's objects by number, and the conversation with the judge."""

    def __init__(self, requests: IO[bytes], answers: IO[bytes], shell: Any) -> None:
        super().__init__(1)
        self._requests, self._answers, self._shell = requests, answers, shell
        self._talking = threading.RLock()  # one conversation, whichever thread of the student calls back
        self._objects: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._foreign: dict[int, Any] = {}
        self._kinds: dict[int, tuple[int, type]] = {}
        self._new_kinds: list[Any] = []
        self._memory = Memory()
        self._depth = 0  # requests that wait for a callback of theirs

    def serve(self) -> None:
        """Answer requests until the judge ends."""
        while True:
            with self._talking:
                message, payload = wire.receive(self._requests)
            self._answer(message, payload)

    def _answer(self, message: dict[str, Any], payload: list[Any]) -> None:
        """Do what was asked and send one answer, whatever happens."""
        printed, answers, answer = io.StringIO(), [], {}  # type: tuple[io.StringIO, list[Any], dict[str, Any]]
        outermost = self._depth == 0
        self._returned: list[Any] = []
        try:
            if outermost:
                signal.setitimer(signal.ITIMER_REAL, max(0.01, float(message.get("seconds", 60))))
            try:
                self._take(message, payload)
                with np.errstate(**message.get("errstate", {})), contextlib.redirect_stdout(printed):
                    value = self._do(message, payload)
                answer = {"value": self.encode(value, answers)}
            finally:
                if outermost:
                    signal.setitimer(signal.ITIMER_REAL, 0)
        except OutOfTime:
            if not outermost:
                self._send({"late": True, "n": message.get("n")}, [])
                raise
            answer, answers = {"late": True}, []
        except BaseException as error:  # the student's, whatever it is: an answer like any other
            answer, answers = {"error": self._describe(error)}, []
        answer["mutated"] = [[number, self.encode(value, answers)] for number, value in self._returned]
        if text := printed.getvalue():
            answer["printed"] = text[:PRINTED]
        answer["n"] = message.get("n")
        self._send(answer, answers)

    def _send(self, message: dict[str, Any], payload: list[Any]) -> None:
        with self._talking:
            message["changed"] = self.changes(payload)
            message["kinds"], self._new_kinds = self._new_kinds, []
            wire.send(self._answers, message, payload)

    def _take(self, message: dict[str, Any], payload: list[Any]) -> None:
        """The judge's changes of arrays, and what it has let go of."""
        self.apply(message.get("changed"), payload)
        for number in message.get("dropped", ()):
            self._drop(number)

    def _do(self, message: dict[str, Any], payload: list[Any]) -> Any:
        what = message["do"]
        if what == "cell":
            return self._run_cell(message["source"])
        if what == "names":
            space = self._shell.user_ns
            return {name: self._live(space[name]) for name in message["names"] if name in space}
        if what == "import":
            if message["name"] == "tracemalloc":
                return self._memory
            return importlib.import_module(message["name"])
        if what == "resend":
            array = self._arrays[message["key"]]()
            self.forget(message["key"])
            return array
        self._borrowed: dict[int, Any] = {}
        args = [self.decode(a, payload) for a in message["args"]]
        kwargs = {name: self.decode(a, payload) for name, a in message.get("kwargs", {}).items()}
        borrowed = [(number, value, _parts(value)) for number, value in self._borrowed.items()]
        try:
            with self._memory.of_the_action():
                return ACTIONS[what](*args, **kwargs)
        finally:
            self._returned = [(number, value) for number, value, was in borrowed if _parts(value) != was]

    def borrow(self, value: Any, number: Any) -> Any:
        """Remember a list or dict of the judge's for the time of one request."""
        if isinstance(number, int) and isinstance(value, list | dict | set):
            self._borrowed[number] = value
        return value

    def call_back(self, number: int, args: Any, kwargs: Any) -> Any:
        """Call a function of the judge's and wait for its result, serving what it asks for meanwhile."""
        with self._talking:
            payload: list[Any] = []
            message: dict[str, Any] = {
                "callback": number,
                "args": [self.encode(a, payload) for a in args],
                "kwargs": {name: self.encode(a, payload) for name, a in kwargs.items()},
            }
            self._send(message, payload)
            while True:
                message, payload = wire.receive(self._requests)
                if "returned" not in message:
                    self._depth += 1
                    try:
                        self._answer(message, payload)
                    finally:
                        self._depth -= 1
                    continue
                self._take(message, payload)
                error = message.get("error")
                if error is None:
                    return self.decode(message["returned"], payload)
                raised = getattr(builtins, error["base"])(error["text"])
                raised.tito_number = error["number"]
                raise raised

    # ---- cells

    def _run_cell(self, source: str) -> dict[str, Any]:
        from IPython.utils.capture import capture_output

        with capture_output() as captured:
            done = self._shell.run_cell(source, store_history=True)
        error = done.error_before_exec or done.error_in_exec
        if isinstance(error, OutOfTime):
            raise error
        outputs: list[dict[str, Any]] = []
        for name in ("stdout", "stderr"):
            text = getattr(captured, name)
            if text:
                outputs.append({"output_type": "stream", "name": name, "text": text[:100_000]})
        for shown in captured.outputs:
            data = {kind: shown.data[kind] for kind in ("text/plain", "image/png") if kind in shown.data}
            outputs.append({"output_type": "display_data", "metadata": {},
                            "data": {kind: _as_text(value) for kind, value in data.items()}})  # fmt: skip
        if error is not None:
            text = "".join(traceback.format_exception(error, limit=-3, chain=False))[-4000:]
            name, value = type(error).__name__, str(error)[:2000]
            lines = text.splitlines()
            outputs.append({"output_type": "error", "ename": name, "evalue": value, "traceback": lines})
        return {"outputs": outputs, "status": "ok" if error is None else "error"}

    # ---- objects

    def _live(self, value: Any) -> Any:
        """A name's value; lists and dicts stay here, so that a change of them is seen."""
        return _Kept(value) if type(value) in (list, dict, set) else value

    def encode_other(self, value: Any, payload: list[Any]) -> Any:
        """A callback goes back as its number, everything else as an object that stays here."""
        if isinstance(value, Foreign):
            return ["yours", value._number]
        if isinstance(value, _Kept):
            value = value.value
        number = self._numbers.get(id(value))
        if number is None:
            self._last += 1
            number = self._last
            self._objects[number], self._numbers[id(value)] = value, number
        return ["object", number, self._kind(type(value))]

    def decode_other(self, tag: Any, rest: list[Any], payload: list[Any]) -> Any:
        """Objects of ours by number; functions, iterators and random generators of the judge's."""
        if tag == "object":
            return self._objects[rest[0]]
        if tag == "function":
            return self._foreign.setdefault(rest[0], Foreign(self, *rest))
        if tag == "iterator":
            return self._foreign.setdefault(rest[0], ForeignIterator(Foreign(self, *rest)))
        if tag == "view":  # of another array of the judge's: the same memory, as there
            key, base, kind, shape, strides, offset = rest
            buffer = self.decode(base, payload)
            view = np.ndarray(shape, np.dtype(kind), buffer, offset, strides)
            self._remember(key, view)
            return view
        if tag == "pickle":  # from the judge, never to it
            if rest[0] not in self._foreign:
                self._foreign[rest[0]] = pickle.loads(bytes.fromhex(rest[1]))
            return self._foreign[rest[0]]
        return super().decode_other(tag, rest, payload)

    def _kind(self, kind: type) -> int:
        known = self._kinds.get(id(kind))
        if known is None:
            known = self._kinds[id(kind)] = len(self._kinds) + 1, kind
            names = [name for name in SPECIAL if _has(kind, name)]
            self._new_kinds.append([known[0], kind.__name__, names])
        return known[0]

    def _drop(self, number: int) -> None:
        if number in self._objects:
            del self._numbers[id(self._objects.pop(number))]
        else:
            self.forget(number)

    def _describe(self, error: BaseException) -> dict[str, Any]:
        base = next((k for k in type(error).__mro__ if getattr(builtins, k.__name__, None) is k), Exception)
        text = ""
        with contextlib.suppress(BaseException):  # str() of an exception is student code, too
            text = str(error)[:4000]
        return {"name": type(error).__name__, "base": base.__name__, "text": text,
                "number": getattr(error, "tito_number", None)}  # fmt: skip


def _as_text(value: Any) -> str:
    """What a notebook file holds of an output: a picture's bytes in base64."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)[:2_000_000]


def _has(kind: type, name: str) -> bool:
    """Whether objects of a class have a special method; the class itself is called by its own class's."""
    return next((vars(k)[name] for k in kind.__mro__ if name in vars(k)), None) is not None


def _parts(value: Any) -> list[Any]:
    """What a list, dict or set holds, such that any change of it shows."""
    items = [part for pair in value.items() for part in pair] if isinstance(value, dict) else list(value)
    return [part if type(part) in (int, float, str, bool) else id(part) for part in items]


class _Kept:
    """Marks a list or dict that is not to be copied."""

    def __init__(self, value: Any) -> None:
        self.value = value


def main() -> None:
    """Start IPython's shell without a kernel, and serve."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    def out_of_time(*_: Any) -> None:
        raise OutOfTime

    signal.signal(signal.SIGALRM, out_of_time)
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    shell.showtraceback = lambda *arguments, **options: None  # type: ignore[method-assign]
    sys.path.insert(0, "")
    side = Side(requests, answers, shell)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the judge has ended
        side.serve()


if __name__ == "__main__":
    main()
