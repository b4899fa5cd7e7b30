"""Frames between the trusted side and a worker: a JSON header and raw arrays, nothing that could run.

A frame is two little-endian lengths (header uint32, payload uint64), the header, the arrays' bytes one after
the other. The header's key "arrays" lists each array's dtype and shape; the rest is the message.
"""

import json
import math
import os
import select
import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = ("float16", "float32", "float64", "uint8", "int64", "bool")
MOST_HEADER = 1 << 16
MOST_PAYLOAD = 1 << 30
_LENGTHS = struct.Struct("<IQ")
_CHUNK = 1 << 20
_SMALL = 1 << 12


class ProtocolError(Exception):
    """The other side sent something that is no frame; the message says what, in one line."""


class Closed(ProtocolError):
    """The other side ended."""


class Late(ProtocolError):
    """The deadline passed before the frame was through."""


def write(
    fd: int, message: dict[str, Any], arrays: Sequence[NDArray[Any]] = (), deadline: float | None = None
) -> None:
    """Send one frame. deadline: time.monotonic() seconds, for a non-blocking fd.

    Raises Closed, Late; ProtocolError for an array of a type that has no place here.
    """
    for array in arrays:
        if array.dtype.name not in DTYPES:
            raise ProtocolError(f"arrays of {array.dtype.name} cannot be sent: expected {', '.join(DTYPES)}")
    described = [{"dtype": array.dtype.name, "shape": list(array.shape)} for array in arrays]
    header = json.dumps({**message, "arrays": described}).encode()
    if len(header) > MOST_HEADER:
        raise ProtocolError(f"the header has {len(header)} bytes: at most {MOST_HEADER} may be sent")
    payload = sum(array.nbytes for array in arrays)
    parts: list[bytes | memoryview] = [_LENGTHS.pack(len(header), payload) + header]
    parts += [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays]
    if payload <= _SMALL:  # in one piece: the other side wakes up once
        parts = [b"".join(parts)]
    for part in parts:
        _write(fd, part, deadline)


def read(
    fd: int, most_payload: int = MOST_PAYLOAD, deadline: float | None = None
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Receive one frame; every length and type is checked before memory is spent on it.

    Raises Closed, Late, and ProtocolError for anything malformed.
    """
    header_bytes, payload_bytes = _LENGTHS.unpack(_read(fd, _LENGTHS.size, deadline))
    if header_bytes > MOST_HEADER:
        raise ProtocolError(f"a header of {header_bytes} bytes: at most {MOST_HEADER} expected")
    if payload_bytes > most_payload:
        raise ProtocolError(f"an answer of {payload_bytes} bytes: at most {most_payload} expected")
    try:
        message = json.loads(_read(fd, header_bytes, deadline))
        described = [(str(item["dtype"]), _shape(item["shape"])) for item in message.pop("arrays")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ProtocolError("a header that is not the expected JSON") from None
    sizes = []
    for dtype, shape in described:
        if dtype not in DTYPES:
            raise ProtocolError(f"an array of {dtype[:40]!r}: expected one of {', '.join(DTYPES)}")
        sizes.append(math.prod(shape) * np.dtype(dtype).itemsize)
    if sum(sizes) != payload_bytes:
        raise ProtocolError(f"arrays of {sum(sizes)} bytes announced, {payload_bytes} bytes sent")
    arrays = []
    for (dtype, shape), size in zip(described, sizes, strict=True):
        arrays.append(np.frombuffer(_read(fd, size, deadline), dtype).reshape(shape))
    return message, arrays


def refuse_unasked(fd: int) -> None:
    """Raise ProtocolError where bytes wait to be read although nothing was asked; Closed at the end."""
    if select.select([fd], [], [], 0)[0]:
        if os.read(fd, 1):
            raise ProtocolError("more than one answer to one request")
        raise Closed("the other side ended")


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 8:
        raise ValueError("a shape is a list of up to eight sizes")
    if any(not isinstance(n, int) or isinstance(n, bool) or not 0 <= n <= MOST_PAYLOAD for n in value):
        raise ValueError("sizes are counts")
    if 0 in value and math.prod(filter(None, value)) > MOST_PAYLOAD:  # empty, yet too large for NumPy
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
