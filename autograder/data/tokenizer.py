"""A submission's tokenizer file, read and applied on our side: no student code, no trust in the file.

Two forms of JSON, one object each, the same that tinytorch writes:
    {"format": 1, "type": "bpe", "merges": [[a, b], ...]}   ids 0-255 are bytes, 256 + k is merge k
    {"format": 1, "type": "char", "characters": [...]}      id k is the k-th character
The one special token `<|end|>` is the last id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from autograder.errors import OlympicsError

MOST_BYTES = 4_000_000  # of the file
MOST_TOKENS = 65_536
LONGEST_TOKEN = 1_024  # bytes: merges that double their token grow without bound
END = "<|end|>"
# letters and symbols take the space before them along, a digit stays alone, merges never cross a chunk
CHUNK = re.compile(r"\n| ?[^\W\d_]+| ?\d| ?[^\s\w]+| ?_+|[^\S\n]+")
_SHAPES = {"bpe": "merges", "char": "characters"}


class TokenizerError(OlympicsError, ValueError):
    """A file that is no tokenizer, or a text that it cannot encode. The message is one line."""


class Tokenizer(Protocol):
    """Text to ids and back. end: the id of `<|end|>`, which no text encodes to."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def end(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...


class Bpe:
    """Byte-pair encoding of UTF-8 bytes inside chunks: the merge of lowest rank first, from left to right.

    Source: R. Sennrich, B. Haddow, A. Birch, Neural Machine Translation of Rare Words with Subword Units
    (2016).
    """

    def __init__(self, merges: list[tuple[int, int]]) -> None:
        self.merges = merges
        self.rank = {pair: k for k, pair in enumerate(merges)}
        self.bytes = [bytes([i]) for i in range(256)]
        for a, b in merges:
            self.bytes.append(self.bytes[a] + self.bytes[b])
        self._known: dict[str, list[int]] = {}

    @property
    def vocab_size(self) -> int:
        return 257 + len(self.merges)

    @property
    def end(self) -> int:
        return 256 + len(self.merges)

    def encode(self, text: str) -> list[int]:
        """Raises TokenizerError for a text that UTF-8 cannot hold."""
        ids: list[int] = []
        for chunk in CHUNK.findall(text):
            if chunk not in self._known:
                if len(self._known) > MOST_TOKENS:  # a bound on memory, for texts without end
                    self._known.clear()
                self._known[chunk] = self._merge(chunk)
            ids += self._known[chunk]
        return ids

    def _merge(self, chunk: str) -> list[int]:
        ids = list(_utf8(chunk))
        while len(ids) > 1:
            last = len(self.merges)
            k = min(self.rank.get(pair, last) for pair in zip(ids, ids[1:], strict=False))
            if k == last:
                break
            pair, i = self.merges[k], 0
            while i < len(ids) - 1:
                if (ids[i], ids[i + 1]) == pair:
                    ids[i : i + 2] = [256 + k]
                i += 1
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Bytes that are no UTF-8 become U+FFFD. Raises TokenizerError for an id outside the vocabulary."""
        table = [*self.bytes, END.encode()]
        return b"".join(table[_known_id(i, self.vocab_size)] for i in ids).decode(errors="replace")


class Char:
    """One id for each character of a list."""

    def __init__(self, characters: list[str]) -> None:
        self.characters = characters
        self.index = {c: i for i, c in enumerate(characters)}

    @property
    def vocab_size(self) -> int:
        return len(self.characters) + 1

    @property
    def end(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """Raises TokenizerError that names a character which is not in the list."""
        try:
            return [self.index[c] for c in text]
        except KeyError as error:
            raise TokenizerError(
                f"the tokenizer has no character {error.args[0]!r} among its {len(self.characters):,}"
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Raises TokenizerError for an id outside the vocabulary."""
        return "".join([*self.characters, END][_known_id(i, self.vocab_size)] for i in ids)


def load(path: str | Path) -> Tokenizer:
    """Read a tokenizer file. Raises TokenizerError, in one line, for anything but one of the two forms."""
    path = Path(path)
    try:
        if path.is_symlink() or not path.is_file():
            raise TokenizerError(f"{path.name} is not there, or is no regular file")
        with path.open("rb") as handle:
            raw = handle.read(MOST_BYTES + 1)
    except OSError as error:
        raise TokenizerError(f"cannot read {path.name}: {error.strerror or error}") from error
    return parse(raw, path.name)


def parse(raw: bytes, name: str = "tokenizer.json") -> Tokenizer:
    """The tokenizer in the bytes of a file. Raises as `load`; `name` is what the messages call the file."""
    if len(raw) > MOST_BYTES:
        raise TokenizerError(f"{name} has more than {MOST_BYTES:,} bytes")
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    except (
        ValueError,
        RecursionError,
    ) as error:  # no UTF-8, no JSON, a key twice, too deep, too long a number
        what = " ".join(str(error).split())[:120]
        raise TokenizerError(f"{name} is not JSON that a tokenizer can have: {what}") from None
    if not isinstance(found, dict):
        raise TokenizerError(f"{name} holds no JSON object, expected one with format, type and its table")
    kind = found.get("type")
    if not isinstance(kind, str) or kind not in _SHAPES:
        raise TokenizerError(f"{name} has the type {_short(kind)}, expected 'bpe' or 'char'")
    if type(found.get("format")) is not int or found["format"] != 1:
        raise TokenizerError(f"{name} has the format {_short(found.get('format'))}, expected 1")
    if set(found) != {"format", "type", _SHAPES[kind]}:
        extra = ", ".join(_short(key) for key in sorted(set(found) ^ {"format", "type", _SHAPES[kind]})[:3])
        raise TokenizerError(f"{name} has a key too many or too few ({extra}): expected {_SHAPES[kind]}")
    table = found[_SHAPES[kind]]
    if not isinstance(table, list) or len(table) > MOST_TOKENS:
        raise TokenizerError(f"{name}: expected {_SHAPES[kind]} to be a list of at most {MOST_TOKENS:,}")
    return Bpe(_merges(table, name)) if kind == "bpe" else Char(_characters(table, name))


def _merges(table: list[Any], name: str) -> list[tuple[int, int]]:
    lengths = [1] * 256
    seen: set[tuple[int, int]] = set()
    merges = []
    for k, pair in enumerate(table):
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and all(type(i) is int and 0 <= i < 256 + k for i in pair)  # bool is no int here
        ):
            raise TokenizerError(
                f"{name}: merge {k} is {_short(pair)}, expected two ids from 0 to {255 + k}, below its own"
            )
        a, b = pair
        if (a, b) in seen:
            raise TokenizerError(f"{name}: merge {k}, {_short(pair)}, is there twice")
        lengths.append(lengths[a] + lengths[b])
        if lengths[-1] > LONGEST_TOKEN:
            raise TokenizerError(f"{name}: merge {k} makes a token of more than {LONGEST_TOKEN:,} bytes")
        seen.add((a, b))
        merges.append((a, b))
    return merges


def _characters(table: list[Any], name: str) -> list[str]:
    seen: set[str] = set()
    for k, c in enumerate(table):
        if not isinstance(c, str) or len(c) != 1 or 0xD800 <= ord(c) < 0xE000:
            raise TokenizerError(f"{name}: character {k} is {_short(c)}, expected a text of one character")
        if c in seen:
            raise TokenizerError(f"{name}: character {k}, {c!r}, is there twice")
        seen.add(c)
    return table


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _short(value: object) -> str:
    try:
        text = ascii(value)
    except RecursionError:
        return "a list in too many lists"
    return text if len(text) <= 40 else text[:37] + "..."


def _known_id(i: int, n: int) -> int:
    if not 0 <= i < n:
        raise TokenizerError(f"no token has the id {i}: expected 0 to {n - 1}")
    return i


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"a text that UTF-8 cannot hold: {ascii(text[error.start])} stands alone"
        ) from None
