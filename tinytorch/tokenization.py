"""Text to whole numbers and back: one id a character, or byte-pair encoding learned from a text.

Built by tito from lesson 10_tokenization: change the lesson, not this file.
"""

import json
import math
import operator
import re
from collections import Counter, defaultdict
from pathlib import Path

from tinytorch.layers import write_atomically

__all__ = [
    "END",
    "CharTokenizer",
    "check_ids",
    "to_bytes",
    "count_pairs",
    "best_pair",
    "merge_pair",
    "CHUNK",
    "learn_merges_naive",
    "enter_pairs",
    "learn_merges",
    "token_table",
    "BPETokenizer",
    "encode_chunk",
    "as_json",
    "save_tokenizer",
    "from_json",
    "load_tokenizer",
    "bits_per_byte",
]

END = "<|end|>"  # how the special token is shown; no text is encoded to its id


class CharTokenizer:
    """One id for each character of a list; id k is characters[k], and `end` is the last id.

    Raises ValueError for a list that holds something other than single characters, or one of them twice.
    """

    def __init__(self, characters):
        characters = list(characters)
        for k, c in enumerate(characters):
            if not isinstance(c, str) or len(c) != 1 or 0xD800 <= ord(c) < 0xE000:
                raise ValueError(f"CharTokenizer: entry {k} is {c!a:.40}, expected one character")
        self.characters = characters
        self.index = {c: k for k, c in enumerate(characters)}
        if len(self.index) < len(characters):
            twice = next(c for c, n in Counter(characters).items() if n > 1)
            raise ValueError(f"CharTokenizer: {twice!r} is there twice, expected every character once")

    @property
    def vocab_size(self):
        """How many tokens there are, `end` among them."""
        return len(self.characters) + 1

    @property
    def end(self):
        """The id of the special token between texts: the last one."""
        return len(self.characters)

    def __repr__(self):
        return f"CharTokenizer(vocab_size={self.vocab_size})"

    @classmethod
    def train(cls, text):
        """The tokenizer of all characters in `text`, sorted. Example: train("abba cab").characters is
        [" ", "a", "b", "c"]."""
        return cls(sorted(set(text)))

    def encode(self, text):
        """The ids of a text, a list of ints. Raises ValueError that names a character it does not know."""
        try:
            return [self.index[c] for c in text]
        except KeyError as error:
            raise ValueError(
                f"encode: no id for the character {error.args[0]!a}; train with a text that has it"
            ) from None

    def decode(self, ids):
        """The text of `ids`; `end` is shown as <|end|>. Raises ValueError for an id that no token has."""
        table = [*self.characters, END]
        return "".join(table[i] for i in check_ids(ids, self.vocab_size))

    def save(self, path):
        """Write the tokenizer to a JSON file; `load_tokenizer` reads it."""
        save_tokenizer(self, path)


def check_ids(ids, vocab_size):
    """`ids` as a list of ints. Raises ValueError for one that is no token, TypeError for other kinds."""
    checked = []
    for i in ids:
        try:
            checked.append(operator.index(i))
        except TypeError:
            raise TypeError(f"decode: expected whole numbers as ids, got {i!r:.40}") from None
        if not 0 <= checked[-1] < vocab_size:
            raise ValueError(f"decode: no token has the id {i}; expected 0 to {vocab_size - 1}")
    return checked


def to_bytes(text):
    """The UTF-8 bytes of a text, a list of ints from 0 to 255.

    Example: to_bytes("aé") is [97, 195, 169]. Raises ValueError for a lone surrogate: UTF-8 has none.
    """
    try:
        return list(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        bad = text[error.start]
        raise ValueError(
            f"encode: {bad!a} at {error.start} is a lone surrogate, no text; remove it"
        ) from None


def count_pairs(pieces):
    """How often each pair of neighbours occurs: a Counter from (a, b) to a number.

    `pieces` is a list of (ids, n): ids that occur n times. Overlapping pairs count.
    Example: count_pairs([([1, 1, 1], 10), ([1, 2], 3)]) is {(1, 1): 20, (1, 2): 3}.
    """
    counts = Counter()
    for ids, n in pieces:
        for pair in zip(ids, ids[1:]):
            counts[pair] += n
    return counts


def best_pair(counts):
    """The most frequent pair, the smallest of several; None where no pair occurs twice.

    Example: best_pair({(5, 6): 4, (1, 9): 4, (2, 2): 3}) is (1, 9).
    """
    most = max(counts.values(), default=0)
    if most < 2:
        return None
    return min(pair for pair, n in counts.items() if n == most)


def merge_pair(ids, pair, new):
    """A new list in which every `pair` of neighbours, from left to right, has become the id `new`.

    Example: merge_pair([1, 1, 1, 2], (1, 1), 9) is [9, 1, 2].
    """
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


CHUNK = re.compile(r"\n| ?[^\W\d_]+| ?\d| ?[^\s\w]+| ?_+|[^\S\n]+")  # every character is in one chunk


def learn_merges_naive(text, n):
    """At most `n` merges learned from `text`, a list of pairs (a, b); merge k makes the id 256 + k.

    Every merge counts everything anew: the oracle of `learn_merges`.
    """
    pieces = [(to_bytes(chunk), count) for chunk, count in Counter(CHUNK.findall(text)).items()]
    merges = []
    while len(merges) < n:
        pair = best_pair(count_pairs(pieces))
        if pair is None:
            break
        pieces = [(merge_pair(ids, pair, 256 + len(merges)), count) for ids, count in pieces]
        merges.append(pair)
    return merges


def enter_pairs(counts, where, k, ids, n):
    """Add `n` to counts[pair] for every pair of neighbours in `ids`, the piece number `k`, in place.

    A negative n takes pairs out; a count that becomes 0 is deleted. A positive n also adds k to where[pair].
    """
    for pair in zip(ids, ids[1:]):
        counts[pair] += n
        if n > 0:
            where[pair].add(k)
        if counts[pair] == 0:
            del counts[pair]


def learn_merges(text, n):
    """The same merges as `learn_merges_naive`, with pair counts that are kept up to date.

    Source: Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units", 2016.
    """
    chunks = Counter(CHUNK.findall(text))
    pieces, times = [to_bytes(chunk) for chunk in chunks], list(chunks.values())
    counts, where = Counter(), defaultdict(set)
    for k, ids in enumerate(pieces):
        enter_pairs(counts, where, k, ids, times[k])
    merges = []
    while len(merges) < n:
        pair = best_pair(counts)
        if pair is None:
            break
        for k in where.pop(pair):
            enter_pairs(counts, where, k, pieces[k], -times[k])
            pieces[k] = merge_pair(pieces[k], pair, 256 + len(merges))
            enter_pairs(counts, where, k, pieces[k], times[k])
        merges.append(pair)
    return merges


def token_table(merges):
    """The bytes of every token, a list of 256 + len(merges) bytes objects.

    Example: token_table([(97, 98), (256, 99)])[257] is b"abc".
    """
    table = [bytes([i]) for i in range(256)]
    for a, b in merges:
        table.append(table[a] + table[b])
    return table


class BPETokenizer:
    """Byte-pair encoding: ids 0-255 are bytes, id 256 + k is merge k, and `end` is the last id.

    Every text that UTF-8 can hold is encoded without loss. Raises ValueError for merges that are not pairs
    of earlier ids, or for a pair that is there twice.
    """

    def __init__(self, merges):
        self.merges, self.rank = [], {}
        for k, pair in enumerate(merges):
            if not (len(pair) == 2 and all(type(i) is int and 0 <= i < 256 + k for i in pair)):
                raise ValueError(
                    f"BPETokenizer: merge {k} is {pair!r:.40}, expected two ids from 0 to {255 + k}"
                )
            if tuple(pair) in self.rank:
                raise ValueError(
                    f"BPETokenizer: merge {k}, {list(pair)}, is there twice, expected every pair once"
                )
            self.rank[tuple(pair)] = k
            self.merges.append(tuple(pair))
        self.table = token_table(self.merges)
        self.cache = {}  # ids of chunks that were met before

    @property
    def vocab_size(self):
        """How many tokens there are, `end` among them."""
        return 257 + len(self.merges)

    @property
    def end(self):
        """The id of the special token between texts: the last one."""
        return 256 + len(self.merges)

    def __repr__(self):
        return f"BPETokenizer(vocab_size={self.vocab_size})"

    @classmethod
    def train(cls, text, vocab_size=512):
        """Learn from `text` up to `vocab_size` tokens, or fewer where no pair is left that occurs twice.

        Raises ValueError for a vocab_size below 257, the 256 bytes and `end`, and for a lone surrogate.
        """
        if vocab_size < 257:
            raise ValueError(
                f"BPETokenizer.train: vocab_size {vocab_size} is too small; expected at least 257"
            )
        return cls(learn_merges(text, vocab_size - 257))

    def encode(self, text):
        """The ids of a text, a list of ints, never `end`. Raises ValueError for a lone surrogate."""
        ids = []
        for chunk in CHUNK.findall(text):
            if chunk not in self.cache:
                if len(self.cache) >= 65536:
                    self.cache.clear()
                self.cache[chunk] = encode_chunk(to_bytes(chunk), self.rank)
            ids += self.cache[chunk]
        return ids

    def decode(self, ids):
        """The text of `ids`; `end` is shown as <|end|>, bytes that are no UTF-8 as U+FFFD.

        Raises ValueError for an id that no token has.
        """
        table = [*self.table, END.encode()]
        return b"".join(table[i] for i in check_ids(ids, self.vocab_size)).decode("utf-8", errors="replace")

    def save(self, path):
        """Write the tokenizer to a JSON file; `load_tokenizer` reads it."""
        save_tokenizer(self, path)


def encode_chunk(ids, rank):
    """Merge the bytes `ids` of a chunk by rank, lowest first; `rank` is a dict from pairs to 0, 1, 2...

    Example: encode_chunk([97, 98, 97, 98], {(97, 98): 0, (256, 256): 1}) is [257].
    """
    while len(ids) > 1:
        pair = min(zip(ids, ids[1:]), key=lambda pair: rank.get(pair, math.inf))
        if pair not in rank:
            break
        ids = merge_pair(ids, pair, 256 + rank[pair])
    return ids


def as_json(tokenizer):
    """What a tokenizer's file holds, a str. Raises TypeError for what is no tokenizer of ours."""
    if isinstance(tokenizer, BPETokenizer):
        return json.dumps({"format": 1, "type": "bpe", "merges": tokenizer.merges})
    if isinstance(tokenizer, CharTokenizer):
        return json.dumps({"format": 1, "type": "char", "characters": tokenizer.characters})
    raise TypeError(f"save: expected a CharTokenizer or BPETokenizer, got {type(tokenizer).__name__}")


def save_tokenizer(tokenizer, path):
    """Write a tokenizer to a JSON file. Raises FileNotFoundError without the folder."""
    path, content = Path(path), as_json(tokenizer)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: no folder {path.parent}; make it first")
    write_atomically(path, lambda temporary: Path(temporary).write_text(content, encoding="utf-8"))


def from_json(content):
    """The tokenizer in a file's text. Raises ValueError for anything that `as_json` does not write."""
    try:
        found = json.loads(content)
        version, kind = found["format"], found["type"]
        make, name = {"bpe": (BPETokenizer, "merges"), "char": (CharTokenizer, "characters")}[kind]
        if not isinstance(found[name], list):
            raise TypeError
        tokenizer = make(found[name])
    except (KeyError, TypeError, RecursionError, json.JSONDecodeError):
        raise ValueError("no tokenizer of tinytorch, or damaged") from None
    if version != 1:
        raise ValueError(f"format {version!r:.40}, this tinytorch reads 1; use a newer one")
    return tokenizer


def load_tokenizer(path):
    """The tokenizer that `save` wrote to `path`. Raises ValueError in one line for a file that holds none."""
    try:
        return from_json(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # no UTF-8 is a ValueError too
        reason = "no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        raise ValueError(f"load_tokenizer: {path}: {reason}") from None


def bits_per_byte(loss, tokens, n_bytes):
    """A mean loss in nats a token, over so many tokens, as bits for each UTF-8 byte of the text.

    Example: bits_per_byte(math.log(256), 10, 10) is 8.0. Raises ValueError unless n_bytes is at least 1.
    """
    if n_bytes < 1:
        raise ValueError(f"bits_per_byte: expected a text of at least one byte, got {n_bytes}")
    return loss * tokens / (math.log(2) * n_bytes)
