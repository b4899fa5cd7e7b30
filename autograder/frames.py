"""Frames between the trusted side and a sandbox: a JSON header and raw arrays, nothing that could run.

A frame is two little-endian lengths (header uint32, payload uint64), the header, the arrays' bytes one after
the other. The header's key "arrays" lists each array's dtype and shape; the rest is the message. Two
conversations use it, each with a Format of its own: a scorer with a submission's worker, over pipes with
deadlines (`write`, `read`), and the judge of a notebook with the student's process (notebooks/cells/wire.py).

It imports nothing of ours: a worker loads this file by its path.
"""

import json
import math
import os
import select
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = 1 << 30  # of a size, and of the product of an empty array's other sizes
_LENGTHS = struct.Struct("<IQ")
_CHUNK = 1 << 20
_SMALL = 1 << 12


class FrameError(Exception):
    """The other side sent something that is no frame; the message says what, in one line."""


class Closed(FrameError):
    """The other side ended."""


class Late(FrameError):
    """The deadline passed before the frame was through."""


@dataclass(frozen=True)
class Format:
    """What a frame of one conversation may hold.

    header, payload: most bytes of the JSON and of all arrays. axes: most of one array. dtypes: the names of
    the only types that cross; where there are none, all types of these kinds (np.dtype.kind) do.
    """

    header: int
    payload: int
    axes: int
    dtypes: tuple[str, ...] = ()
    kinds: str = ""

    def name(self, dtype: np.dtype[Any]) -> str:
        """How a type is written in a header. Raises FrameError for one that has no place here."""
        name = dtype.name if self.dtypes else dtype.str
        if name not in self.dtypes if self.dtypes else dtype.kind not in self.kinds:
            expected = ", ".join(self.dtypes) or f"the kinds {self.kinds}"
            raise FrameError(f"arrays of {dtype.name} cannot be sent: expected {expected}")
        return name

    def dtype(self, name: str) -> np.dtype[Any]:
        """The type that a header names. Raises FrameError."""
        if self.dtypes:
            if name not in self.dtypes:
                raise FrameError(f"an array of {name[:40]!r}: expected one of {', '.join(self.dtypes)}")
            return np.dtype(name)
        try:
            dtype = np.dtype(name[:40])
        except (TypeError, ValueError, SyntaxError):
            raise FrameError(f"an array of {name[:40]!r}, which is no type") from None
        if dtype.kind not in self.kinds or not dtype.itemsize:
            raise FrameError(f"an array of {name[:40]!r}: expected one of the kinds {self.kinds}")
        return dtype


PREDICTIONS = Format(
    1 << 16, 1 << 30, axes=8, dtypes=("float16", "float32", "float64", "uint8", "int64", "bool")
)


def pack(message: dict[str, Any], arrays: Sequence[NDArray[Any]], format: Format) -> list[bytes | memoryview]:
    """The parts of a frame, one after the other; raises FrameError for an array of a type of no place."""
    described = [{"dtype": format.name(array.dtype), "shape": list(array.shape)} for array in arrays]
    header = json.dumps({**message, "arrays": described}).encode()
    payload = sum(array.nbytes for array in arrays)
    parts: list[bytes | memoryview] = [_LENGTHS.pack(len(header), payload) + header]
    return parts + [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays]


def unpack(take: Callable[[int], bytearray], format: Format) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """A frame from its bytes, of which `take` gives the next n; every length and type is checked before
    memory is spent on it.

    Raises FrameError for anything malformed, and what `take` raises.
    """
    header_bytes, payload_bytes = _LENGTHS.unpack(take(_LENGTHS.size))
    if header_bytes > format.header:
        raise FrameError(f"a header of {header_bytes} bytes: at most {format.header} expected")
    if payload_bytes > format.payload:
        raise FrameError(f"an answer of {payload_bytes} bytes: at most {format.payload} expected")
    try:
        message = json.loads(take(header_bytes))
        described = [(str(one["dtype"]), _shape(one["shape"], format)) for one in message.pop("arrays")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FrameError("a header that is not the expected JSON") from None
    typed = [(format.dtype(name), shape) for name, shape in described]
    sizes = [math.prod(shape) * dtype.itemsize for dtype, shape in typed]
    if sum(sizes) != payload_bytes:
        raise FrameError(f"arrays of {sum(sizes)} bytes announced, {payload_bytes} bytes sent")
    arrays = []
    for (dtype, shape), size in zip(typed, sizes, strict=True):
        arrays.append(np.frombuffer(take(size), dtype).reshape(shape))
    return message, arrays


def write(
    fd: int, message: dict[str, Any], arrays: Sequence[NDArray[Any]] = (), deadline: float | None = None
) -> None:
    """Send one frame. deadline: time.monotonic() seconds, for a non-blocking fd.

    Raises Closed, Late; FrameError for an array of a type that has no place here.
    """
    parts = pack(message, arrays, PREDICTIONS)
    header = len(parts[0]) - _LENGTHS.size
    if header > PREDICTIONS.header:
        raise FrameError(f"the header has {header} bytes: at most {PREDICTIONS.header} may be sent")
    if sum(map(len, parts[1:])) <= _SMALL:  # in one piece: the other side wakes up once
        parts = [b"".join(parts)]
    for part in parts:
        _write(fd, part, deadline)


def read(
    fd: int, most_payload: int = PREDICTIONS.payload, deadline: float | None = None
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Receive one frame. Raises Closed, Late, and FrameError for anything malformed."""
    return unpack(lambda size: _read(fd, size, deadline), replace(PREDICTIONS, payload=most_payload))


def refuse_unasked(fd: int) -> None:
    """Raise FrameError where bytes wait to be read although nothing was asked; Closed at the end."""
    if select.select([fd], [], [], 0)[0]:
        if os.read(fd, 1):
            raise FrameError("more than one answer to one request")
        raise Closed("the other side ended")


def _shape(value: Any, format: Format) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > format.axes:
        raise ValueError("a shape is a list of sizes, not too many")
    if any(not isinstance(n, int) or isinstance(n, bool) or not 0 <= n <= _LARGEST for n in value):
        raise ValueError("sizes are counts")
    if 0 in value and math.prod(filter(None, value)) > _LARGEST:  # empty, yet too large for NumPy
        raise ValueError("more than fits in a frame")
    return tuple(value)


def _write(fd: int, data: bytes | memoryview, deadline: float | None) -> None:
    view = memoryview(data)
    while view:
        if deadline is not None:
            _await([], [fd], deadline)
        try:
            view = view[os.write(fd, view[:_CHUNK]) :]
        except BlockingIOError:
            continue
        except BrokenPipeError:
            raise Closed("the other side ended") from None


def _read(fd: int, size: int, deadline: float | None) -> bytearray:
    data = bytearray()
    while len(data) < size:
        if deadline is not None and time.monotonic() > deadline:  # however steadily the bytes come
            raise Late("no answer in time")
        try:
            part = os.read(fd, min(size - len(data), _CHUNK))
        except BlockingIOError:  # nothing there yet
            _await([fd], [], math.inf if deadline is None else deadline)
            continue
        if not part:
            raise Closed("the other side ended")
        data += part
    return data


def _await(reading: list[int], writing: list[int], deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0 or not any(select.select(reading, writing, [], None if left == math.inf else left)):
        raise Late("no answer in time")
