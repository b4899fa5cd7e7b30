"""Values between the judge and a student's process: JSON and raw arrays, nothing that could run.

Frames are those of frames.py. Numbers, strings, tuples, lists, dicts and sets go by value. Both sides
keep an array that crossed, under one key, and send its new contents along with the next frame when it was
changed in place: so an array that two sides hold behaves as if it were shared, as it would be within one
process.
"""

import base64
import math
import zlib
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np

from autograder import frames

MOST_HEADER = 8_000_000  # bytes of a frame's JSON
MOST_PAYLOAD = 256_000_000  # bytes of a frame's arrays
_MOST_ITEMS = 200_000  # values of one frame
_DEEPEST = 40
_WATCHED = 4_000_000  # bytes: larger arrays are not watched for changes
_KINDS = "biufcU"
_FORMAT = frames.Format(MOST_HEADER, MOST_PAYLOAD, axes=32, kinds=_KINDS)
_NUMPY_FUNCTIONS = (
    "abs", "sum", "prod", "mean", "std", "var", "max", "min", "argmax", "argmin", "argsort", "sort",
    "reshape", "transpose", "swapaxes", "moveaxis", "concatenate", "stack", "split", "where", "clip", "take",
    "pad", "expand_dims", "squeeze", "broadcast_to", "repeat", "tile", "cumsum", "dot", "tensordot", "einsum",
    "outer", "zeros", "ones", "empty", "full", "arange", "array", "asarray", "zeros_like", "ones_like",
)  # fmt: skip

# operators and other special methods that a proxy forwards, without their underscores
BINARY = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift",
    "rshift",
)  # fmt: skip
IN_PLACE = ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul")
UNARY = (
    "neg", "pos", "abs", "invert", "float", "int", "index", "complex", "bool", "len", "iter", "next",
    "reversed",
)  # fmt: skip
OTHERS = ("contains", "getitem", "setitem", "delitem", "call", "enter", "exit", "round", "divmod")
OF_PYTHON = (  # functions of Python's own that the student's side is asked for
    "float", "int", "complex", "bool", "len", "iter", "next", "reversed", "round", "divmod", "repr", "str",
    "format", "id", "isinstance", "issubclass", "getattr", "setattr", "delattr", "dir",
)  # fmt: skip


class WireError(Exception):
    """The other side sent what is no frame, or a value that cannot cross; one line says what."""


def send(file: IO[bytes], message: dict[str, Any], payload: list[Any]) -> None:
    """Write one frame: `payload` holds the arrays that the message's values refer to by number."""
    for part in frames.pack(message, payload, _FORMAT):
        file.write(part)
    file.flush()


def receive(file: IO[bytes]) -> tuple[dict[str, Any], list[Any]]:
    """Read one frame; every length and type is checked first. Raises EOFError at the end, WireError."""

    def take(size: int) -> bytearray:
        data = file.read(size)
        if len(data) < size:
            raise EOFError
        return bytearray(data)

    try:
        return frames.unpack(take, _FORMAT)
    except frames.FrameError as error:
        raise WireError(str(error)) from None


class Coder:
    """Turns values into JSON and back; a side adds its own kinds in `encode_other` and `decode_other`."""

    def __init__(self, sign: int) -> None:
        self._sign, self._last = sign, 0  # keys that the two sides give never clash
        self._arrays: dict[int, Callable[[], Any]] = {}  # key -> the array, or None where it is gone
        self._keys: dict[int, int] = {}  # id(array) -> key
        self._sums: dict[int, int] = {}
        self._count = 0

    def encode(self, value: Any, payload: list[Any], depth: int = 0) -> Any:
        """JSON of a value; arrays go into `payload`. Raises WireError."""
        if depth == 0:
            self._count = 0
        self._count += 1
        if depth > _DEEPEST or self._count > _MOST_ITEMS:
            raise WireError("a value that is nested too deeply or has too many parts to be handed over")
        kind = type(value)
        if value is None or kind in (bool, float, str):
            return value
        if kind in (tuple, list, set, frozenset, dict, slice, range):
            return self._encode_parts(value, payload, depth + 1)
        data = _encode_plain(value)
        if data is None:
            data = self._encode_numpy(value, payload, depth + 1)
        if data is not None:
            return data
        name = _name_of(value)
        if name is not None:
            return ["known", name]
        return self.encode_other(value, payload)

    def _encode_parts(self, value: Any, payload: list[Any], depth: int) -> Any:
        """JSON of a value that is made of others."""
        kind = type(value)
        if kind is dict:
            pairs = [
                [self.encode(k, payload, depth), self.encode(v, payload, depth)] for k, v in value.items()
            ]
            return ["dict", pairs, self.lend(value)]
        if kind in (slice, range):
            value = (value.start, value.stop, value.step)
            return [kind.__name__, [self.encode(v, payload, depth) for v in value]]
        return [kind.__name__, [self.encode(v, payload, depth) for v in value], self.lend(value)]

    def _encode_numpy(self, value: Any, payload: list[Any], depth: int) -> Any:
        """JSON of an array, one of its scalars or its type; None for everything else."""
        kind = type(value)
        if kind is np.ndarray and value.dtype.kind in _KINDS:
            return self._encode_array(value, payload)
        if kind is np.ndarray and value.dtype.kind == "O" and value.size < _MOST_ITEMS:
            items = [self.encode(v, payload, depth) for v in value.ravel().tolist()]
            return ["objects", list(value.shape), items]
        if isinstance(value, np.generic) and value.dtype.kind in _KINDS and kind is value.dtype.type:
            payload.append(np.asarray(value))
            return ["scalar", len(payload) - 1]
        if isinstance(value, np.dtype) and value.kind in _KINDS:
            return ["dtype", value.str]
        return None

    def decode(self, data: Any, payload: list[Any], depth: int = 0) -> Any:
        """The value of encoded JSON. Raises WireError."""
        if data is None or isinstance(data, bool | int | float | str):
            return data
        if not isinstance(data, list) or not data or depth > _DEEPEST:
            raise WireError("a value that is not encoded as expected")
        tag, *rest = data
        try:
            return self._decode(tag, rest, payload, depth + 1)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
            raise WireError(f"a value that is not encoded as expected ({str(tag)[:20]})") from None

    def _decode(self, tag: Any, rest: list[Any], payload: list[Any], depth: int) -> Any:
        if tag == "int":
            return int(rest[0], 16)
        if tag in ("tuple", "list", "set", "frozenset"):
            items = [self.decode(v, payload, depth) for v in rest[0]]
            made = {"tuple": tuple, "list": list, "set": set, "frozenset": frozenset}[tag](items)
            return self.borrow(made, rest[1])
        if tag == "dict":
            pairs = ((self.decode(k, payload, depth), self.decode(v, payload, depth)) for k, v in rest[0])
            return self.borrow(dict(pairs), rest[1])
        if tag == "array":
            key, axes, at = rest
            return self._decode_array(key, axes, at, payload)
        if tag == "objects":
            array = np.empty(math.prod(rest[0]), object)
            array[:] = [self.decode(v, payload, depth) for v in rest[1]]
            return array.reshape(rest[0])
        if tag == "scalar":
            return payload[rest[0]].reshape(())[()]
        if tag == "complex":
            return complex(*rest)
        if tag in ("bytes", "bytearray"):
            return {"bytes": bytes, "bytearray": bytearray}[tag](base64.b64decode(rest[0]))
        if tag in ("slice", "range"):
            return {"slice": slice, "range": range}[tag](*(self.decode(v, payload, depth) for v in rest[0]))
        if tag in ("Ellipsis", "NotImplemented"):
            return {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}[tag]
        if tag == "dtype":
            return np.dtype(str(rest[0]))
        if tag == "path":
            return Path(str(rest[0]))
        if tag == "known":
            return _known(str(rest[0]))
        return self.decode_other(tag, rest, payload)

    def encode_other(self, value: Any, payload: list[Any]) -> Any:
        """JSON of a value that only this side knows."""
        raise WireError(f"a {type(value).__name__} cannot be handed over")

    def decode_other(self, tag: Any, rest: list[Any], payload: list[Any]) -> Any:
        """A value of a kind that only this side knows."""
        raise WireError(f"a value of unknown kind {str(tag)[:20]}")

    def lend(self, value: Any) -> int | None:
        """A number for a list or dict that the other side may change in place, or None."""
        return None

    def borrow(self, value: Any, number: Any) -> Any:
        """The value itself; a side that tells of its changes remembers it by the number."""
        return value

    # ---- arrays that both sides hold

    def changes(self, payload: list[Any]) -> list[Any]:
        """Keys and contents of the shared arrays that this side has changed since the last frame."""
        changed = []
        for key, find in list(self._arrays.items()):
            array = find()
            if array is None or array.nbytes > _WATCHED:
                continue
            total = _sum(array)
            if total != self._sums[key]:
                self._sums[key] = total
                payload.append(np.ascontiguousarray(array))
                changed.append([key, len(payload) - 1])
        return changed

    def apply(self, changed: Any, payload: list[Any]) -> None:
        """Write the other side's changes into our copies."""
        for key, at in changed if isinstance(changed, list) else []:
            array, new = self._arrays.get(key, _gone)(), payload[at]
            if array is not None and array.shape == new.shape and array.dtype == new.dtype:
                writable = array.flags.writeable
                if not writable and array.base is None:
                    array.flags.writeable = True
                if array.flags.writeable:
                    array[...] = new
                array.flags.writeable = writable
                self._sums[key] = _sum(array)

    def forget(self, key: int) -> None:
        """Let go of an array that the other side does not hold any more."""
        array = self._arrays.pop(key, _gone)()
        self._sums.pop(key, None)
        if array is not None:
            self._keys.pop(id(array), None)

    def hold(self, key: int, array: Any) -> None:
        """Keep an array under its key; the judge holds it weakly."""
        self._arrays[key] = lambda: array

    def _encode_array(self, array: Any, payload: list[Any]) -> Any:
        key = self._keys.get(id(array))
        if key is not None and self._arrays.get(key, _gone)() is array:
            return ["array", key, None, None]
        self._last += 1
        key = self._sign * self._last
        axes = sorted(range(array.ndim), key=lambda i: -abs(array.strides[i]) if array.shape[i] > 1 else 0)
        payload.append(np.ascontiguousarray(array.transpose(axes)) if array.ndim else array)
        self._remember(key, array)
        return ["array", key, axes, len(payload) - 1]

    def _decode_array(self, key: int, axes: list[int] | None, at: int | None, payload: list[Any]) -> Any:
        if at is None:
            array = self._arrays.get(key, _gone)()
            if array is None:
                raise KeyError(key)
            return array
        array = payload[at]
        if axes:
            array = array.transpose(np.argsort(axes))
        if isinstance(key, int):
            self._remember(key, array)
        return array

    def _remember(self, key: int, array: Any) -> None:
        self.hold(key, array)
        self._keys[id(array)] = key
        self._sums[key] = _sum(array) if array.nbytes <= _WATCHED else 0


def _encode_plain(value: Any) -> Any:
    """JSON of one of Python's own values that hold no others and JSON lacks; None for everything else."""
    kind = type(value)
    if kind is int:
        return value if abs(value) < 1 << 60 else ["int", hex(value)]
    if kind is complex:
        return ["complex", value.real, value.imag]
    if kind in (bytes, bytearray):
        return [kind.__name__, base64.b64encode(value).decode()]
    if value is Ellipsis or value is NotImplemented:
        return [str(value)]
    if isinstance(value, PurePath):
        return ["path", str(value)]
    return None


def _gone() -> None:
    return None


def _sum(array: Any) -> int:
    dense = np.ascontiguousarray(array)
    return zlib.crc32(dense.view(np.uint8).data if array.size and array.ndim else array.tobytes())


def _name_of(value: Any) -> str | None:
    """The name of something that both sides have: a type, an exception, a function of NumPy's."""
    name = getattr(value, "__name__", None) if callable(value) else None
    if not isinstance(name, str):
        return None
    for prefix in ("numpy", "builtins"):
        full = f"{prefix}:{name}"
        try:
            if _known(full) is value:
                return full
        except (KeyError, AttributeError):
            continue
    return None


def _known(full: str) -> Any:
    """A type, an exception or one of NumPy's functions by name: nothing that reads, writes or runs."""
    import builtins

    home, _, name = full.partition(":")
    found = getattr({"numpy": np, "builtins": builtins}[home], name)
    allowed = isinstance(found, type | np.ufunc) or (home == "numpy" and name in _NUMPY_FUNCTIONS)
    if not allowed or found is type or found is np.memmap:
        raise KeyError(full)
    return found
