"""What a graded cell holds in place of a student's object: a name for it, and what it answers as data.

A proxy forwards calls, attributes and operators to the student's process. Plain values come back as copies.
It never decides a comparison: `proxy == 4` is refused, since the student's class would say whatever it
likes. A graded cell turns what it got into numbers, arrays or text first, and those are compared here.
"""

from __future__ import annotations

import builtins
import pickle
import weakref
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from autograder.notebooks.cells import wire

_FORWARDED = (*wire.BINARY, *wire.IN_PLACE, *wire.UNARY, *wire.OTHERS)
_READABLE = ("__name__", "__qualname__", "__dict__", "__wrapped__", "__self__", "__func__", "__init__")
_DEFAULT_ERRSTATE = np.geterr()
_UNTRUSTED = "a graded cell compares an object of the student's: turn it into an array or a number first"
_MOST_BASE = 1_000_000  # bytes
_shares_memory = np.shares_memory


class StudentError(Exception):
    """An exception of the student's whose class is no builtin one."""


class Ended(Exception):
    """The student's process is gone."""


class Late(BaseException):
    """The student's process took longer than the cell may."""


class Untrusted(TypeError):
    """A graded cell would let the student's code decide."""


class Proxy:
    """An object in the student's process."""

    __slots__ = ("__weakref__", "_link", "_number")
    __array_ufunc__ = None  # array * proxy is the student's __rmul__, as it is for a Tensor
    __hash__ = object.__hash__

    def __init__(self, link: Link, number: int) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _READABLE:  # NumPy would take an address from some of these
            raise AttributeError(name)
        return self._link.do("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._link.do("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._link.do("delattr", self, name)

    def __repr__(self) -> str:
        return str(self._link.do("repr", self))

    def __str__(self) -> str:
        return str(self._link.do("str", self))

    def __format__(self, spec: str) -> str:
        return str(self._link.do("format", self, spec))

    def __dir__(self) -> list[str]:
        return [str(name) for name in self._link.do("dir", self)]

    def __instancecheck__(self, value: Any) -> bool:
        return bool(self._link.do("isinstance", value, self) is True)

    def __subclasscheck__(self, value: Any) -> bool:
        return bool(self._link.do("issubclass", value, self) is True)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Proxy) or other is None:
            return self is other
        raise Untrusted(_UNTRUSTED)

    def __ne__(self, other: object) -> bool:
        return not self == other


def _forward(name: str) -> Callable[..., Any]:
    def method(self: Proxy, *args: Any, **kwargs: Any) -> Any:
        return self._link.do(name, self, *args, **kwargs)

    return method


def _reflected(name: str) -> Callable[..., Any]:
    def method(self: Proxy, other: Any) -> Any:
        return self._link.do(name, other, self)

    return method


class Claim:
    """What the student's code says of a comparison: it can be handed back to it (`x[x > 0]`), no more."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __bool__(self) -> bool:
        raise Untrusted(_UNTRUSTED)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise Untrusted(_UNTRUSTED)


def _compared(name: str) -> Callable[..., Any]:
    def method(self: Proxy, other: Any) -> Claim:
        return Claim(self._link.do(name, self, other))

    return method


def _to_array(self: Proxy, dtype: Any = None, copy: Any = None) -> Any:
    array = self._link.do("array", self)
    if not isinstance(array, np.ndarray):
        raise TypeError(f"expected an array, got {type(array).__name__}")
    return np.array(array, dtype=dtype)


def _exit(self: Proxy, kind: Any, error: Any, trace: Any) -> Any:
    """The student's __exit__ is told that there was an error; it may not swallow one of the judge's."""
    if error is None:
        return self._link.do("exit", self, None, None, None)
    self._link.do("exit", self, kind if kind.__module__ == "builtins" else Exception, None, None)
    return False


_METHODS: dict[str, Callable[..., Any]] = {
    **{f"__{name}__": _forward(name) for name in _FORWARDED},
    **{f"__r{name}__": _reflected(name) for name in wire.BINARY},
    **{f"__{name}__": _compared(name) for name in ("lt", "le", "gt", "ge")},
    "__array__": _to_array,
    "__exit__": _exit,
}


class Link(wire.Coder):
    """The judge's end of the conversation with a student's process."""

    def __init__(self, requests: IO[bytes], answers: IO[bytes], seconds: Callable[[], float]) -> None:
        super().__init__(-1)
        self._requests, self._answers, self._seconds = requests, answers, seconds
        self._proxies: weakref.WeakValueDictionary[int, Proxy] = weakref.WeakValueDictionary()
        self._dropped: list[int] = []
        self._kinds: dict[int, type] = {}
        self._functions: dict[int, Any] = {}
        self._function_numbers: dict[int, int] = {}
        self._raised: list[BaseException] = []
        self._asked = 0
        self._lent: list[Any] | None = None  # while the arguments of a call are encoded
        self.ended = False

    def do(self, action: str, *args: Any, **kwargs: Any) -> Any:
        """Have the student's process do one thing; its result, or its exception."""
        payload: list[Any] = []
        self._lent = []
        message: dict[str, Any] = {"do": action, "args": [self.encode(a, payload) for a in args]}
        if kwargs:
            message["kwargs"] = {name: self.encode(a, payload) for name, a in kwargs.items()}
        lent, self._lent = self._lent, None
        return self._ask(message, payload, lent)

    def lend(self, value: Any) -> int | None:
        """Lists, dicts and sets that are arguments of a call come back changed where it changed them."""
        if self._lent is None or not isinstance(value, list | dict | set):
            return None
        self._lent.append(value)
        return len(self._lent) - 1

    def run_cell(self, source: str) -> dict[str, Any]:
        """Run a cell of the notebook there: {"outputs", "status"}."""
        found = self._ask({"do": "cell", "source": source}, [])
        outputs = found.get("outputs") if isinstance(found, dict) else None
        status = "ok" if isinstance(found, dict) and found.get("status") == "ok" else "error"
        return {"outputs": outputs if isinstance(outputs, list) else [], "status": status}

    def names(self, names: list[str]) -> dict[str, Any]:
        """The values of global names, of those that are there."""
        found = self._ask({"do": "names", "names": names}, [])
        return {name: found[name] for name in names if name in found} if isinstance(found, dict) else {}

    def module(self, name: str) -> Any:
        """A module as it is imported there."""
        return self._ask({"do": "import", "name": name}, [])

    def _ask(self, message: dict[str, Any], payload: list[Any], lent: list[Any] | None = None) -> Any:
        if self.ended:
            raise Ended("the student's process has ended")
        self._asked += 1
        asked = message["n"] = self._asked
        message["seconds"] = self._seconds()
        if (state := np.geterr()) != _DEFAULT_ERRSTATE:
            message["errstate"] = state
        self._send(message, payload)
        late = False
        while True:
            answer, arrays = self._receive()
            if "callback" not in answer:
                break
            try:
                self._run_callback(answer, arrays)
            except Late as over:
                if over.args:  # our own alarm
                    raise
                late = True  # told within the callback; the answer to the call itself follows
        if answer.get("n") != asked:
            self.ended = True
            raise Ended("the student's process answers what was not asked")
        if late:
            raise Late
        for number, new in answer.get("mutated", ()) if lent else ():
            assert lent
            value, changed = lent[number], self.decode(new, arrays)
            if type(value) is type(changed):
                value.clear()
                value.extend(changed) if isinstance(value, list) else value.update(changed)
        if printed := answer.get("printed"):
            print(str(printed), end="")
        if answer.get("late"):
            raise Late
        if (error := answer.get("error")) is not None:
            raise self._exception(error)
        return self.decode(answer.get("value"), arrays)

    def _send(self, message: dict[str, Any], payload: list[Any]) -> None:
        message["changed"] = self.changes(payload)
        message["dropped"], self._dropped = self._dropped, []
        try:
            wire.send(self._requests, message, payload)
        except OSError:
            self.ended = True
            raise Ended("the student's process has ended") from None

    def _receive(self) -> tuple[dict[str, Any], list[Any]]:
        try:
            answer, arrays = wire.receive(self._answers)
        except (EOFError, OSError):
            self.ended = True
            raise Ended("the student's process has ended") from None
        except wire.WireError:
            self.ended = True
            raise
        for number, name, special in answer.get("kinds", ()):
            methods = {m: _METHODS[m] for m in special if m in _METHODS}
            self._kinds[number] = type(str(name)[:100], (Proxy,), {"__slots__": (), **methods})
        self.apply(answer.get("changed"), arrays)
        return answer, arrays

    def _run_callback(self, message: dict[str, Any], payload: list[Any]) -> None:
        answer: dict[str, Any] = {"returned": None}
        answers: list[Any] = []
        try:
            args = [self.decode(a, payload) for a in message["args"]]
            kwargs = {str(k): self.decode(a, payload) for k, a in message["kwargs"].items()}
            value = self._functions[message["callback"]](*args, **kwargs)
            answer["returned"] = self.encode(value, answers)
        except Exception as error:  # of a graded cell's own function: it travels through the student's code
            self._raised.append(error)
            base = next(k for k in type(error).__mro__ if k.__module__ == "builtins")
            base = Exception if base.__name__.startswith("Unicode") else base  # these ask for five arguments
            answer["error"] = {
                "base": base.__name__,
                "text": str(error)[:4000],
                "number": len(self._raised) - 1,
            }
        self._send(answer, answers)

    def _exception(self, error: dict[str, Any]) -> BaseException:
        number = error.get("number")
        if isinstance(number, int) and 0 <= number < len(self._raised):
            return self._raised[number]
        base = getattr(builtins, str(error.get("base")), StudentError)
        if not (isinstance(base, type) and issubclass(base, Exception)):  # SystemExit, say
            base = StudentError
        text = str(error.get("text"))
        kind = type(
            str(error.get("name"))[:100], (base,), {"__str__": lambda self: text, "__module__": "student"}
        )
        return _made(kind, text)

    # ---- kinds of values that only the judge has

    def encode(self, value: Any, payload: list[Any], depth: int = 0) -> Any:
        if isinstance(value, Proxy):
            return ["object", value._number]
        if isinstance(value, Claim):
            return self.encode(value.value, payload, depth)
        return super().encode(value, payload, depth)

    def encode_other(self, value: Any, payload: list[Any]) -> Any:
        """Functions and iterators stay here and are called back; a random generator goes as a copy."""
        if isinstance(value, np.random.Generator | np.random.RandomState | np.random.BitGenerator):
            return ["pickle", self._number_of(value), pickle.dumps(value).hex()]
        if hasattr(value, "__next__"):
            return ["iterator", self._number_of(value, value.__next__), type(value).__name__]
        if callable(value):
            return ["function", self._number_of(value, value), str(getattr(value, "__name__", "function"))]
        if isinstance(value, type({}.keys()) | type({}.values()) | type({}.items())):
            return self.encode(list(value), payload)
        raise wire.WireError(
            f"a graded cell hands a {type(value).__name__} to the student's code: only plain values, arrays "
            "and functions can cross"
        )

    def _number_of(self, value: Any, function: Any = None) -> int:
        number = self._function_numbers.get(id(value))
        if number is None:
            self._last += 1
            number = self._function_numbers[id(value)] = self._last
            self._functions[number] = function if function is not None else value
            self._functions[-number] = value  # kept alive: its id is its name
        return number

    def decode_other(self, tag: Any, rest: list[Any], payload: list[Any]) -> Any:
        """An object of the student's, or a function of ours that comes back."""
        if tag == "yours":
            return self._functions[-rest[0]]
        if tag != "object":
            return super().decode_other(tag, rest, payload)
        number, kind = rest
        proxy = self._proxies.get(number)
        if proxy is None:
            if number in self._dropped:  # let go of, but the student's side has not heard of it yet
                self._dropped.remove(number)
            proxy = self._proxies[number] = self._kinds[kind](self, number)
            weakref.finalize(proxy, self._gone, number).atexit = False
        return proxy

    def _gone(self, number: int) -> None:
        self._dropped.append(number)

    def _encode_array(self, array: Any, payload: list[Any]) -> Any:
        """A view goes as one, with the array that it is a view of: so the two share memory there, too."""
        base = array.base
        while isinstance(base, np.ndarray) and base.base is not None:
            base = base.base
        known = self._arrays.get(self._keys.get(id(array), 0), lambda: None)() is array
        if (
            known
            or type(base) is not np.ndarray
            or not 0 < base.nbytes <= _MOST_BASE
            or base.dtype.kind == "O"
        ):
            return super()._encode_array(array, payload)
        if not (base.flags.c_contiguous and array.size):
            return super()._encode_array(array, payload)
        offset = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        whole = super()._encode_array(base, payload)
        self._last += 1
        self._remember(-self._last, array)
        return ["view", -self._last, whole, array.dtype.str, list(array.shape), list(array.strides), offset]

    def shares_memory(self, a: Any, b: Any) -> bool:
        """np.shares_memory of arrays that came from the student's process: only that process knows."""
        theirs = any(self._keys.get(id(x), 0) > 0 for x in (a, b))
        return self.do("shares_memory", a, b) is True if theirs else _shares_memory(a, b)

    def _decode_array(self, key: int, axes: Any, at: int | None, payload: list[Any]) -> Any:
        if at is None and self._arrays.get(key, lambda: None)() is None:  # we have just let go of it
            self._dropped = [number for number in self._dropped if number != key]
            return self._ask({"do": "resend", "key": key}, [])
        return super()._decode_array(key, axes, at, payload)

    def hold(self, key: int, array: Any) -> None:
        """Weakly: when a graded cell lets go of an array, the student's side may, too."""
        self._arrays[key] = weakref.ref(array)
        weakref.finalize(array, self._array_gone, key, id(array)).atexit = False

    def _array_gone(self, key: int, number: int) -> None:
        self._arrays.pop(key, None)
        self._sums.pop(key, None)
        if self._keys.get(number) == key:
            del self._keys[number]
        self._dropped.append(key)


def _made(kind: type, text: str) -> BaseException:
    """An exception of a class that may ask for other arguments than a text (UnicodeDecodeError, say)."""
    try:
        made: BaseException = kind(text)
    except TypeError:
        made = type(kind.__name__, (StudentError,), {})(text)
    return made
