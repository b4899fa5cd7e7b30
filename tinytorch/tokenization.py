"""Text to numbers and back: one id a character, or byte-pair encoding learned from a text.

Built by tito from lesson 10_tokenization: change the lesson, not this file.
"""

import json
import re
from collections import Counter

__all__ = [
    "END",
    "check_ids",
    "utf8",
    "CharTokenizer",
    "CHUNK",
    "LONGEST",
    "word_counts",
    "count_pairs",
    "merge",
    "train_merges",
    "encode_word",
    "BPETokenizer",
    "valid_merges",
    "load_tokenizer",
]

END = "<|end|>"


def check_ids(ids, vocab_size):
    """The ids as a list of ints. Raises ValueError that names an id outside 0 to vocab_size - 1."""
    ids = [int(i) for i in ids]
    for i in ids:
        if not 0 <= i < vocab_size:
            raise ValueError(f"decode: no token has the id {i}, expected 0 to {vocab_size - 1}")
    return ids


def utf8(text):
    """The bytes of a text. Raises ValueError for a lone surrogate, which UTF-8 cannot hold."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        lone = ascii(text[error.start])
        raise ValueError(f"text that UTF-8 cannot hold: {lone} stands alone") from None


class CharTokenizer:
    """One id for each character: its index in the list `characters`. The last id, `end`, is `<|end|>`."""

    def __init__(self, characters):
        self.characters = list(characters)
        self.index = {c: i for i, c in enumerate(self.characters)}
        self.end = len(self.characters)
        self.vocab_size = self.end + 1

    @classmethod
    def train(cls, text):
        """A tokenizer for the characters of `text`, sorted."""
        utf8(text)
        return cls(sorted(set(text)))

    def encode(self, text):
        """The ids of a text, a list. Raises ValueError that names a character without an id."""
        for c in text:
            if c not in self.index:
                raise ValueError(f"encode: no id for the character {c!r}, the training text had none")
        return [self.index[c] for c in text]

    def decode(self, ids):
        """The text of ids; `end` becomes `<|end|>`. Raises ValueError for an id out of range."""
        ids = check_ids(ids, self.vocab_size)
        return "".join((self.characters + [END])[i] for i in ids)

    def save(self, path):
        """Write a JSON file for `load_tokenizer`."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"format": 1, "type": "char", "characters": self.characters}, file)


CHUNK = re.compile(r"\n| ?[^\W\d_]+| ?\d| ?[^\s\w]+| ?_+|[^\S\n]+")
LONGEST = 1024  # bytes of a chunk that training looks at, so that no token gets longer


def word_counts(text):
    """How often each chunk of a text occurs: a dict of its bytes, a tuple of ids, to a count."""
    words = Counter()
    for chunk, n in Counter(CHUNK.findall(text)).items():
        words[tuple(utf8(chunk)[:LONGEST])] += n
    return dict(words)


def count_pairs(words):
    """How often each pair occurs in `words`, a dict of word to count: a dict of (a, b) to a count."""
    pairs = Counter()
    for word, n in words.items():
        for pair in zip(word, word[1:], strict=False):
            pairs[pair] += n
    return dict(pairs)


def merge(word, pair, new):
    """The word, a tuple, with each `pair` of neighbours replaced by the id `new`, leftmost first."""
    out, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


def train_merges(words, n):
    """The first n merges for words (a dict of word to count), a list of pairs; fewer if no pairs are left.

    Source: Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units", 2016.
    """
    merges = []
    for new in range(256, 256 + n):
        pairs = count_pairs(words)
        if not pairs:
            break
        pair = min(pairs, key=lambda p: (-pairs[p], p))
        words = {merge(word, pair, new): count for word, count in words.items()}
        merges.append(pair)
    return merges


def encode_word(word, ranks):
    """The ids of a word, a tuple of bytes, after all merges, lowest rank first. `ranks`: pair to rank."""
    while len(word) > 1:
        pair = min(zip(word, word[1:], strict=False), key=lambda p: ranks.get(p, len(ranks)))
        if pair not in ranks:
            break
        word = merge(word, pair, 256 + ranks[pair])
    return tuple(word)


class BPETokenizer:
    """Byte-pair encoding: ids 0-255 are bytes, 256 + k is merge k, the last id, `end`, is `<|end|>`."""

    def __init__(self, merges):
        self.merges = [(int(a), int(b)) for a, b in merges]
        self.ranks = {pair: k for k, pair in enumerate(self.merges)}
        self.end = 256 + len(self.merges)
        self.vocab_size = self.end + 1
        self.known = {}  # chunk -> ids
        self.tokens = [bytes([i]) for i in range(256)]
        for a, b in self.merges:
            self.tokens.append(self.tokens[a] + self.tokens[b])
        self.tokens.append(END.encode())

    @classmethod
    def train(cls, text, vocab_size=512):
        """Learn vocab_size - 257 merges from a text, fewer if it has no more pairs.

        Raises ValueError for vocab_size < 257: 256 bytes and the end.
        """
        if not 257 <= vocab_size <= 65793:
            raise ValueError(f"BPETokenizer: expected a vocab_size from 257 to 65793, got {vocab_size}")
        return cls(train_merges(word_counts(text), vocab_size - 257))

    def encode(self, text):
        """The ids of a text, a list. Raises ValueError for a text that UTF-8 cannot hold."""
        ids = []
        for chunk in CHUNK.findall(text):
            if chunk not in self.known:
                self.known[chunk] = encode_word(tuple(utf8(chunk)), self.ranks)
            ids.extend(self.known[chunk])
        return ids

    def decode(self, ids):
        """The text of ids; `end` becomes `<|end|>`. Raises ValueError for an id out of range."""
        ids = check_ids(ids, self.vocab_size)
        return b"".join(self.tokens[i] for i in ids).decode("utf-8", errors="replace")

    def save(self, path):
        """Write a JSON file for `load_tokenizer`."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"format": 1, "type": "bpe", "merges": self.merges}, file)


def valid_merges(merges):
    """Whether this is a list of different pairs of ids, where merge k uses ids from 0 to 255 + k only."""
    if not isinstance(merges, list):
        return False
    seen, lengths = set(), [1] * 256  # of the tokens, in bytes
    for k, pair in enumerate(merges):
        if not isinstance(pair, list) or len(pair) != 2:
            return False
        if not all(type(i) is int and 0 <= i < 256 + k for i in pair):
            return False
        lengths.append(sum(lengths[i] for i in pair))
        if tuple(pair) in seen or lengths[-1] > LONGEST:
            return False
        seen.add(tuple(pair))
    return True


def load_tokenizer(path):
    """Read a tokenizer file. Raises ValueError for anything but the two forms that `save` writes."""
    with open(path, "rb") as file:
        raw = file.read()
    try:
        found = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected the JSON of a tokenizer, got {' '.join(str(error).split())[:80]}"
        ) from None
    if not isinstance(found, dict) or found.get("format") != 1 or found.get("type") not in ("bpe", "char"):
        raise ValueError(f"{path}: expected a tokenizer of format 1 and type 'bpe' or 'char'")
    if found["type"] == "bpe":
        if not valid_merges(found.get("merges")):
            raise ValueError(f"{path}: expected different pairs of ids below their own as merges")
        return BPETokenizer(found["merges"])
    characters = found.get("characters")
    if not isinstance(characters, list) or not all(isinstance(c, str) and len(c) == 1 for c in characters):
        raise ValueError(f"{path}: expected a list of single characters")
    if len(set(characters)) != len(characters):
        raise ValueError(f"{path}: expected different characters, got one twice")
    utf8("".join(characters))
    return CharTokenizer(characters)
