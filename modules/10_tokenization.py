# %% [markdown]
# # 10 Tokenization
#
# > Text to whole numbers and back: one id a character, or byte-pair encoding learned from a text.
#
# A network computes with numbers, and a text is none. A *tokenizer* cuts a text into pieces, the tokens, and gives
# each a number, its *id*. In this lesson you build two: one that takes every character as a token, and byte-pair
# encoding (BPE), which learns from a text which characters belong together. You write all of BPE yourself.
#
# **Why it matters to a system.** The tokenizer decides how long a text is. A language model does its work once per
# token, and attention compares every token with every earlier one; half as many tokens are half the steps. The
# price is a larger table of tokens at both ends of the model. And whatever the tokenizer cannot say, the model
# can neither read nor write, so ours must hold every text there is.
#
# **You need** Python's `str`, `bytes` and dicts. From earlier lessons only `write_atomically` (03).
#
# The words of this lesson: a *text* is a `str`, *ids* are a list of ints, the *vocabulary* is the set of all tokens,
# numbered from 0, and `vocab_size` says how many there are. The last id is always the one special token, `end`,
# written `<|end|>`: it stands between texts, and no text is encoded to it.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 10

# %%
#| export
import json
import math
import operator
import re
from collections import Counter, defaultdict
from pathlib import Path

from tinytorch.layers import write_atomically

# %% nbgrader={"grade_id": "imports", "locked": true}
import random
import tempfile
import time

folder = Path(tempfile.mkdtemp())  # where this notebook writes its files


def attempt(function, *args):
    """Call `function` and print the error that it raises, on one line."""
    try:
        function(*args)
        print("no error")
    except Exception as error:
        print(f"{type(error).__name__}: {error}".replace(f"{folder}/", ""))


# %% [markdown]
# A small text for the examples, in the form of the dialogues that you will train on later.

# %% nbgrader={"grade_id": "small-text", "locked": true}
TALK = """Q: where does the rain go?
A: the rain goes into the river.
Q: and where does the river go?
A: the river goes into the sea.
Q: what does the sea do with the rain?
A: the sun takes it up again, and it rains.
"""

# %% [markdown]
# ## 1. One id a character
#
# The simplest vocabulary: all characters of the training text, in sorted order. The id of a character is its place.
#
# By hand, for the text `abba cab`: sorted, the characters are a space, `a`, `b`, `c`. So `cab` is `[3, 1, 2]`, and
# `end` is 4, the fifth of five tokens.
#
# The constructor is given. `index` is the way back, from a character to its id: a dict finds it at once, where
# `list.index` would search.

# %%
#| export
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


# %% [markdown]
# `train` is a classmethod: it makes a tokenizer, so it is called on the class. `cls(...)` calls the constructor.

# %% nbgrader={"grade_id": "char-train", "solution": true}
#| export
class CharTokenizer(CharTokenizer):
    @classmethod
    def train(cls, text):
        """The tokenizer of all characters in `text`, sorted. Example: train("abba cab").characters is
        [" ", "a", "b", "c"]."""
        ### BEGIN SOLUTION
        return cls(sorted(set(text)))
        ### END SOLUTION


# %% tags=["nbval-check-output"]
print(CharTokenizer.train("abba cab").characters, CharTokenizer.train(TALK))

# %% nbgrader={"grade_id": "test-char-train", "grade": true, "points": 1}
got = [str(c) for c in CharTokenizer.train("abba cab").characters]
assert got == [" ", "a", "b", "c"], f"train('abba cab'): expected the characters [' ', 'a', 'b', 'c'], got {got}"
assert int(CharTokenizer.train("abba cab").vocab_size) == 5, "four characters and end: expected vocab_size 5"
### BEGIN HIDDEN TESTS
for text in ("", "zebra\nZebra", "naïve 日本 🙂 日"):
    got, wanted = [str(c) for c in CharTokenizer.train(text).characters], []
    for c in text:
        if c not in wanted:
            wanted.append(c)
    wanted.sort(key=ord)
    assert got == wanted, f"train({text!r}): expected the characters {wanted}, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# Encoding looks every character up. One that never occurred in training has no id, and a `KeyError` would be little
# help to whoever sees it: catch it and raise a ValueError that names the character. (`error.args[0]` is the missing
# key; `raise ... from None` hides the KeyError.)

# %% nbgrader={"grade_id": "char-encode", "solution": true}
#| export
class CharTokenizer(CharTokenizer):
    def encode(self, text):
        """The ids of a text, a list of ints. Raises ValueError that names a character it does not know."""
        ### BEGIN SOLUTION
        try:
            return [self.index[c] for c in text]
        except KeyError as error:
            raise ValueError(
                f"encode: no id for the character {error.args[0]!a}; train with a text that has it"
            ) from None
        ### END SOLUTION


# %% tags=["nbval-check-output"]
letters = CharTokenizer.train("abba cab")
print(letters.encode("cab"))
attempt(letters.encode, "cabin")

# %% nbgrader={"grade_id": "test-char-encode", "grade": true, "points": 1}
got = [int(i) for i in CharTokenizer.train("abba cab").encode("cab bc")]
assert got == [3, 1, 2, 0, 2, 3], f"encode('cab bc'): expected [3, 1, 2, 0, 2, 3], got {got}"
try:
    CharTokenizer.train("abba cab").encode("cabin")
    said = "no error"
except ValueError as error:
    said = str(error)
assert "i" in said.replace("encode: no id for the character", "") and said != "no error", (
    f"encode('cabin'), which has an unknown i: expected a ValueError that names it, got: {said}"
)
### BEGIN HIDDEN TESTS
for text, unknown in (("aba", "q"), ("日本", "🙂"), ("12", "Z")):
    known = sorted(set(text))
    got = [int(i) for i in CharTokenizer.train(text).encode(text * 2)]
    wanted = [known.index(c) for c in text * 2]
    assert got == wanted, f"encode({text * 2!r}): expected {wanted}, got {got}"
    try:
        CharTokenizer.train(text).encode(text + unknown)
        said = "no error"
    except ValueError as error:
        said = str(error)
    assert unknown in said or ascii(unknown)[1:-1] in said, (
        f"encode of a text with the unknown {unknown!r}: expected a ValueError that names it, got: {said}"
    )
### END HIDDEN TESTS

# %% [markdown]
# The way back. A model may hand you any integers, NumPy's too, so ids are checked first. Python would take -1 as
# the last entry of a list and never complain.

# %%
#| export
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


# %% [markdown]
# Write `decode`: check the ids, join the characters; `end` is shown as `END`.

# %% nbgrader={"grade_id": "char-decode", "solution": true}
#| export
class CharTokenizer(CharTokenizer):
    def decode(self, ids):
        """The text of `ids`; `end` is shown as <|end|>. Raises ValueError for an id that no token has."""
        ### BEGIN SOLUTION
        table = [*self.characters, END]
        return "".join(table[i] for i in check_ids(ids, self.vocab_size))
        ### END SOLUTION


# %% tags=["nbval-check-output"]
letters = CharTokenizer.train(TALK)
print(len(letters.encode(TALK)), letters.decode(letters.encode("the sea")), letters.decode([3, letters.end]))

# %% nbgrader={"grade_id": "test-char-decode", "grade": true, "points": 1}
letters = CharTokenizer.train("abba cab")
got = str(letters.decode([3, 1, 2, 4]))
assert got == "cab<|end|>", f"decode([3, 1, 2, 4]): expected 'cab<|end|>', got {got!r}"
for wrong in (-1, 5):
    try:
        letters.decode([0, wrong])
        raised = False
    except ValueError:
        raised = True
    assert raised, f"decode([0, {wrong}]) with 5 tokens: expected a ValueError; use check_ids"
### BEGIN HIDDEN TESTS
for text in ("naïve 日本 🙂", "a\n\tb", ""):
    letters = CharTokenizer.train(text)
    got = str(letters.decode(letters.encode(text)))
    assert got == text, f"decode(encode(text)): expected {text!r}, got {got!r}"
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Every text is bytes
#
# A character tokenizer fails at the first unknown character, and Unicode has more than 150,000. But a computer
# stores every text as bytes, and there are 256 of them. UTF-8 writes the letters of English as one byte each and
# everything else as two to four:

# %% tags=["nbval-check-output"]
for c in "aé日🙂":
    print(ascii(c), list(c.encode("utf-8")))

# %% [markdown]
# So with the bytes as ids 0 to 255 we can write every text. Nearly: a Python `str` can hold half of a *surrogate
# pair*, a code such as `"\ud800"` that means nothing alone. It comes from cutting UTF-16 text in the middle, and
# UTF-8 refuses it with a `UnicodeEncodeError`; `error.start` is where. We say it in our own words, as a ValueError.

# %% nbgrader={"grade_id": "to-bytes", "solution": true}
#| export
def to_bytes(text):
    """The UTF-8 bytes of a text, a list of ints from 0 to 255.

    Example: to_bytes("aé") is [97, 195, 169]. Raises ValueError for a lone surrogate: UTF-8 has none.
    """
    ### BEGIN SOLUTION
    try:
        return list(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        bad = text[error.start]
        raise ValueError(f"encode: {bad!a} at {error.start} is a lone surrogate, no text; remove it") from None
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(to_bytes("aé"))
attempt(to_bytes, "rain\ud83d")

# %% nbgrader={"grade_id": "test-to-bytes", "grade": true, "points": 1}
for text, wanted in (("aé", [97, 195, 169]), ("", []), ("日", [230, 151, 165])):
    got = [int(b) for b in to_bytes(text)]
    assert got == wanted, f"to_bytes({text!r}): expected {wanted}, got {got}"
try:
    to_bytes("a\ud800")
    said = "no error"
except ValueError as error:
    said = type(error).__name__
assert said == "ValueError", f"to_bytes of a lone surrogate: expected a plain ValueError, got {said}"
### BEGIN HIDDEN TESTS
for code in (0, 10, 127, 128, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF):
    got = bytes(int(b) for b in to_bytes("x" + chr(code)))
    assert got == ("x" + chr(code)).encode(), f"to_bytes: wrong for the character {code:#x}, got {list(got)}"
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Which two belong together?
#
# Bytes make long sequences: the word `river` is five. Byte-pair encoding starts there and shortens. Find the pair of
# neighbours that occurs most often, give it a new id, replace it everywhere, and repeat. Frequent words become one
# token, rare ones stay in pieces, and nothing is ever unknown.
#
# By hand, on `abababc`: the pair `ab` occurs three times, `ba` twice, `bc` once. Call `ab` X: the text is now `XXXc`.
# The next best is `XX`, twice if overlaps count. Call it Y: `YXc`.
#
# A text repeats its words, so we keep each different piece once, together with how often it occurs: a list of
# pairs `(ids, n)`. Count every pair of neighbours, `n` times each. `zip(ids, ids[1:])` goes through them.

# %% nbgrader={"grade_id": "count-pairs", "solution": true}
#| export
def count_pairs(pieces):
    """How often each pair of neighbours occurs: a Counter from (a, b) to a number.

    `pieces` is a list of (ids, n): ids that occur n times. Overlapping pairs count.
    Example: count_pairs([([1, 1, 1], 10), ([1, 2], 3)]) is {(1, 1): 20, (1, 2): 3}.
    """
    ### BEGIN SOLUTION
    counts = Counter()
    for ids, n in pieces:
        for pair in zip(ids, ids[1:]):
            counts[pair] += n
    return counts
    ### END SOLUTION


# %% tags=["nbval-check-output"]
count_pairs([(to_bytes("abababc"), 1)])

# %% nbgrader={"grade_id": "test-count-pairs", "grade": true, "points": 1}
for pieces, wanted in (
    ([([1, 1, 1], 10), ([1, 2], 3)], {(1, 1): 20, (1, 2): 3}),
    ([([7, 8, 7, 8], 1), ([8], 5), ([], 2)], {(7, 8): 2, (8, 7): 1}),
):
    got = {(int(a), int(b)): int(n) for (a, b), n in count_pairs(pieces).items()}
    assert got == wanted, f"count_pairs({pieces}): expected {wanted}, got {got}"
### BEGIN HIDDEN TESTS
draw = random.Random(1)
pieces = [([draw.randrange(3) for _ in range(draw.randrange(9))], draw.randrange(1, 5)) for _ in range(20)]
got = {(int(a), int(b)): int(n) for (a, b), n in count_pairs(pieces).items()}
for a in range(3):
    for b in range(3):
        wanted = sum(n for ids, n in pieces for i in range(1, len(ids)) if ids[i - 1] == a and ids[i] == b)
        assert got.get((a, b), 0) == wanted, f"count_pairs: {(a, b)} occurs {wanted} times, got {got.get((a, b), 0)}"
### END HIDDEN TESTS

# %% [markdown]
# Which pair wins? The most frequent. Where several are equally frequent, the smallest pair, compared as tuples: any
# rule would do, but there must be one, or two machines learn different tokenizers. A pair that occurs once is not
# worth an id, so then the answer is None: training is over.

# %% nbgrader={"grade_id": "best-pair", "solution": true}
#| export
def best_pair(counts):
    """The most frequent pair, the smallest of several; None where no pair occurs twice.

    Example: best_pair({(5, 6): 4, (1, 9): 4, (2, 2): 3}) is (1, 9).
    """
    ### BEGIN SOLUTION
    most = max(counts.values(), default=0)
    if most < 2:
        return None
    return min(pair for pair, n in counts.items() if n == most)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(best_pair({(5, 6): 4, (1, 9): 4, (2, 2): 3}), best_pair({(5, 6): 1}))

# %% nbgrader={"grade_id": "test-best-pair", "grade": true, "points": 1}
for counts, wanted in (
    ({(5, 6): 4, (1, 9): 4, (2, 2): 3}, (1, 9)),
    ({(1, 2): 2, (300, 4): 9}, (300, 4)),
    ({(5, 6): 1, (1, 1): 1}, None),
    ({}, None),
):
    got = best_pair(Counter(counts))
    got = got if got is None else tuple(int(i) for i in got)
    assert got == wanted, f"best_pair({counts}): expected {wanted}, got {got}"
### BEGIN HIDDEN TESTS
got = best_pair(Counter({(9, 1): 2, (3, 8): 2, (3, 7): 2, (1, 1): 1}))
assert got is not None and tuple(got) == (3, 7), f"three pairs occur twice: expected the smallest, (3, 7), got {got}"
### END HIDDEN TESTS

# %% [markdown]
# Replacing goes from left to right, and what was replaced is used up: `aaa` with `aa` as X is `Xa`. Walk with an
# index `i`: where the pair stands at `i`, append the new id and go two on; else copy one id and go one on.

# %% nbgrader={"grade_id": "merge-pair", "solution": true}
#| export
def merge_pair(ids, pair, new):
    """A new list in which every `pair` of neighbours, from left to right, has become the id `new`.

    Example: merge_pair([1, 1, 1, 2], (1, 1), 9) is [9, 1, 2].
    """
    ### BEGIN SOLUTION
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged
    ### END SOLUTION


# %% tags=["nbval-check-output"]
once = merge_pair(to_bytes("abababc"), (97, 98), 256)
print(once, merge_pair(once, (256, 256), 257))

# %% nbgrader={"grade_id": "test-merge-pair", "grade": true, "points": 2}
for ids, pair, wanted in (
    ([1, 1, 1, 2], (1, 1), [9, 1, 2]),
    ([1, 2, 1, 2], (1, 2), [9, 9]),
    ([2, 1, 2], (1, 2), [2, 9]),
    ([3, 2, 1], (1, 2), [3, 2, 1]),
    ([], (1, 2), []),
):
    before = list(ids)
    got = [int(i) for i in merge_pair(ids, pair, 9)]
    assert got == wanted, f"merge_pair({before}, {pair}, 9): expected {wanted}, got {got}"
    assert ids == before, f"merge_pair must return a new list and leave {before} alone, it is now {ids}"
### BEGIN HIDDEN TESTS
draw = random.Random(2)
for _ in range(100):
    text = "".join(draw.choice("abc") for _ in range(draw.randrange(12)))
    got = "".join(chr(int(i)) for i in merge_pair([ord(c) for c in text], (97, 97), 88))
    assert got == text.replace("aa", "X"), f"aa as X in {text!r}: expected {text.replace('aa', 'X')!r}, got {got!r}"
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Training
#
# One more decision. Should `the river` be able to become one token, or `rain.` with its full stop? Then the
# vocabulary fills with accidents of the training text. So a text is first cut into chunks, and merges stay inside
# a chunk: a word with the space before it, a digit, a run of symbols, a line end. Digits stay alone because a model
# that sees `17` as one token cannot see that it begins as `18` does. The regular expression is given.

# %%
#| export
CHUNK = re.compile(r"\n| ?[^\W\d_]+| ?\d| ?[^\s\w]+| ?_+|[^\S\n]+")  # every character is in one chunk


# %% tags=["nbval-check-output"]
print(CHUNK.findall("A: it's 42 km,  dear_me!\n"))

# %% [markdown]
# Now the whole training, slowly but plainly. A *merge* is a pair that became an id: the k-th merge, counted from 0,
# makes the id 256 + k. Count, choose, replace in all pieces, until there are `n` merges or no pair is left.

# %% nbgrader={"grade_id": "learn-naive", "solution": true}
#| export
def learn_merges_naive(text, n):
    """At most `n` merges learned from `text`, a list of pairs (a, b); merge k makes the id 256 + k.

    Every merge counts everything anew: the oracle of `learn_merges`.
    """
    pieces = [(to_bytes(chunk), count) for chunk, count in Counter(CHUNK.findall(text)).items()]
    merges = []
    ### BEGIN SOLUTION
    while len(merges) < n:
        pair = best_pair(count_pairs(pieces))
        if pair is None:
            break
        pieces = [(merge_pair(ids, pair, 256 + len(merges)), count) for ids, count in pieces]
        merges.append(pair)
    ### END SOLUTION
    return merges


# %% tags=["nbval-check-output"]
for a, b in learn_merges_naive(TALK, 4):
    print(a, b, "+".join(chr(i) if i < 256 else f"<{i}>" for i in (a, b)))

# %% [markdown]
# First `he`, then a space with `t`, then these two together: the word `the` with the space before it.

# %% nbgrader={"grade_id": "test-learn-naive", "grade": true, "points": 2}
got = [tuple(int(i) for i in pair) for pair in learn_merges_naive("ababab abab", 3)]
wanted = [(97, 98), (256, 256), (32, 257)]
assert got[:2] == wanted[:2], f"'ababab abab': expected the first two merges {wanted[:2]}, got {got[:2]}"
got = learn_merges_naive("abc", 5)
assert len(got) == 0, f"'abc' has no pair twice: expected no merges, got {got}"
got = len(learn_merges_naive(TALK, 7))
assert got == 7, f"learn_merges_naive(TALK, 7): expected 7 merges, got {got}"
### BEGIN HIDDEN TESTS
def by_strings(text, n):
    """BPE by another route: tokens as bytes objects, pieces as lists of them, everything recounted."""
    names, pieces, learned = {bytes([i]): i for i in range(256)}, [], []
    for chunk in CHUNK.findall(text):
        pieces.append([bytes([b]) for b in chunk.encode()])
    while len(learned) < n:
        seen = [(names[p[i]], names[p[i + 1]], p[i], p[i + 1]) for p in pieces for i in range(len(p) - 1)]
        ranked = sorted(Counter(seen).items(), key=lambda item: (-item[1], item[0][:2]))
        if not ranked or ranked[0][1] < 2:
            break
        a, b, left, right = ranked[0][0]
        names.setdefault(left + right, 256 + len(learned))
        learned.append((a, b))
        for p in pieces:
            i = 0
            while i < len(p) - 1:
                if p[i] == left and p[i + 1] == right:
                    p[i : i + 2] = [left + right]
                i += 1
    return learned


for text in (TALK, "wait, wait... 11 12 11 12\n\n__ __", "日本 日本人 日本"):
    got = [tuple(int(i) for i in pair) for pair in learn_merges_naive(text, 12)]
    wanted = by_strings(text, 12)
    assert got == wanted, f"12 merges of {text[:20]!r}...: expected {wanted}, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# ### Faster: count once, then keep the books
#
# Every merge goes through all pieces again, though most of them do not hold the pair at all. Instead keep two books:
# `counts`, how often each pair occurs, and `where`, the numbers of the pieces in which it stood. A merge then
# visits the pieces in `where[pair]` only. In each it takes the old pairs out of the books, merges, and enters the
# new ones. For `n` occurrences of a piece each pair counts `n` times, as before.
#
# You write one line of bookkeeping in words: for every pair of neighbours in `ids`, add `n` to its count; a count
# that comes to 0 is deleted, or the book would grow with every pair there ever was; and note the piece in `where`
# where pairs are entered. Taking out is the same with `-n`. A piece that stays in `where` although its pair is gone
# does no harm: merging finds nothing there.

# %% nbgrader={"grade_id": "enter-pairs", "solution": true}
#| export
def enter_pairs(counts, where, k, ids, n):
    """Add `n` to counts[pair] for every pair of neighbours in `ids`, the piece number `k`, in place.

    A negative n takes pairs out; a count that becomes 0 is deleted. A positive n also adds k to where[pair].
    """
    ### BEGIN SOLUTION
    for pair in zip(ids, ids[1:]):
        counts[pair] += n
        if n > 0:
            where[pair].add(k)
        if counts[pair] == 0:
            del counts[pair]
    ### END SOLUTION


# %% tags=["nbval-check-output"]
counts, where = Counter(), defaultdict(set)
enter_pairs(counts, where, 0, [1, 1, 1], 10)
enter_pairs(counts, where, 1, [1, 2], 3)
print(dict(counts), dict(where))
enter_pairs(counts, where, 0, [1, 1, 1], -10)
print(dict(counts))

# %% nbgrader={"grade_id": "test-enter-pairs", "grade": true, "points": 2}
counts, where, pieces = Counter(), defaultdict(set), [([1, 1, 1], 10), ([1, 2], 3), ([2, 1, 1], 2)]
for k, (ids, n) in enumerate(pieces):
    enter_pairs(counts, where, k, ids, n)
got = {tuple(pair): int(n) for pair, n in counts.items()}
assert got == {(1, 1): 22, (1, 2): 3, (2, 1): 2}, f"expected {{(1, 1): 22, (1, 2): 3, (2, 1): 2}}, got {got}"
got = {pair: sorted(int(k) for k in where[pair]) for pair in counts}
assert got == {(1, 1): [0, 2], (1, 2): [1], (2, 1): [2]}, f"where: expected pieces 0 and 2 for (1, 1), got {got}"
enter_pairs(counts, where, 0, [1, 1, 1], -10)
enter_pairs(counts, where, 1, [1, 2], -3)
got = {tuple(pair): int(n) for pair, n in counts.items()}
assert got == {(1, 1): 2, (2, 1): 2}, f"pieces 0 and 1 taken out: expected {{(1, 1): 2, (2, 1): 2}}, got {got}"
### BEGIN HIDDEN TESTS
enter_pairs(counts, where, 2, [2, 1, 1], -2)
assert len(counts) == 0, f"all taken out: expected an empty book, got {dict(counts)}; delete a count that is 0"
enter_pairs(counts, where, 7, [5, 6], 1)
enter_pairs(counts, where, 8, [5, 6], -1)
assert sorted(where[5, 6]) == [7], f"taking out must not note the piece: expected where [7], got {sorted(where[5, 6])}"
### END HIDDEN TESTS

# %% [markdown]
# Now `learn_merges`. The books are opened for you. In each round: choose, visit the pieces of `where.pop(pair)`, and
# in each take its pairs out, merge (`pieces[k]` gets the new list), and enter the new pairs. `pieces` holds the ids
# and `times` how often each occurs.

# %% nbgrader={"grade_id": "learn-merges", "solution": true}
#| export
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
        ### BEGIN SOLUTION
        for k in where.pop(pair):
            enter_pairs(counts, where, k, pieces[k], -times[k])
            pieces[k] = merge_pair(pieces[k], pair, 256 + len(merges))
            enter_pairs(counts, where, k, pieces[k], times[k])
        ### END SOLUTION
        merges.append(pair)
    return merges


# %% tags=["nbval-check-output"]
print(learn_merges(TALK, 40) == learn_merges_naive(TALK, 40), len(learn_merges(TALK, 1000)))

# %% nbgrader={"grade_id": "test-learn-merges", "grade": true, "points": 3}
draw = random.Random(3)
noise = " ".join("".join(draw.choice("abcé") for _ in range(draw.randrange(1, 9))) for _ in range(400))
for text in ("ababab abab", TALK, noise, "aaaa aaa aaaaaaaa aa"):
    got = [tuple(int(i) for i in pair) for pair in learn_merges(text, 60)]
    wanted = [tuple(int(i) for i in pair) for pair in learn_merges_naive(text, 60)]
    first = next((k for k, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
    assert got == wanted, (
        f"learn_merges({text[:16]!r}..., 60) has {len(got)} merges, the naive one {len(wanted)}; "
        f"they part at merge {first}: expected {wanted[first : first + 1]}, got {got[first : first + 1]}"
    )
### BEGIN HIDDEN TESTS
start = time.process_time()
got = len(learn_merges(" ".join("x" * (k % 7) + format(k, "b").translate({48: 97, 49: 98}) for k in range(20000)), 300))
seconds = time.process_time() - start
assert seconds < 60, f"300 merges of 20,000 different words took {seconds:.0f} s; visit only the pieces in where[pair]"
### END HIDDEN TESTS

# %% [markdown]
# What the books are worth. The text is made of random words, in which a few are frequent and many are rare, as in
# a language.

# %% tags=["measure"]
def long_text(words, different, seed=0):
    """A text of so many random words."""
    draw = random.Random(seed)
    known = ["".join(draw.choices("aeiourstlnmdhg", k=draw.randint(2, 8))) for _ in range(different)]
    return " ".join(draw.choices(known, weights=[1 / (k + 1) for k in range(different)], k=words))


# %% tags=["measure"]
text = long_text(words=150_000, different=1000)
for learn in (learn_merges_naive, learn_merges):
    start = time.perf_counter()
    learn(text, 60)
    print(f"{learn.__name__:18} {len(text) / 1e6:.2f} MB, 60 merges: {time.perf_counter() - start:.2f} s")

# %% [markdown]
# ## 5. The tokenizer
#
# A trained tokenizer is its list of merges and nothing else. From them follow the bytes of every token: the first
# 256 are single bytes, and merge k joins two tokens that exist already.

# %% nbgrader={"grade_id": "token-table", "solution": true}
#| export
def token_table(merges):
    """The bytes of every token, a list of 256 + len(merges) bytes objects.

    Example: token_table([(97, 98), (256, 99)])[257] is b"abc".
    """
    ### BEGIN SOLUTION
    table = [bytes([i]) for i in range(256)]
    for a, b in merges:
        table.append(table[a] + table[b])
    return table
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(token_table(learn_merges(TALK, 12))[256:])

# %% nbgrader={"grade_id": "test-token-table", "grade": true, "points": 1}
got = [bytes(token) for token in token_table([(97, 98), (256, 99), (257, 257)])]
assert got[:256] == [bytes((i,)) for i in range(256)], "the first 256 tokens are the single bytes, in order"
assert got[256:] == [b"ab", b"abc", b"abcabc"], f"expected [b'ab', b'abc', b'abcabc'], got {got[256:]}"

# %% [markdown]
# The class is given up to the interesting parts. Its constructor refuses merges that could not have been learned, as
# they may come from a damaged file: each is two ids that exist when it is made, and no pair comes twice.

# %%
#| export
class BPETokenizer:
    """Byte-pair encoding: ids 0-255 are bytes, id 256 + k is merge k, and `end` is the last id.

    Every text that UTF-8 can hold is encoded without loss. Raises ValueError for merges that are not pairs
    of earlier ids, or for a pair that is there twice.
    """

    def __init__(self, merges):
        self.merges, self.rank = [], {}
        for k, pair in enumerate(merges):
            if not (len(pair) == 2 and all(type(i) is int and 0 <= i < 256 + k for i in pair)):
                raise ValueError(f"BPETokenizer: merge {k} is {pair!r:.40}, expected two ids from 0 to {255 + k}")
            if tuple(pair) in self.rank:
                raise ValueError(f"BPETokenizer: merge {k}, {list(pair)}, is there twice, expected every pair once")
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


# %%
#| export
class BPETokenizer(BPETokenizer):
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


# %% [markdown]
# ### Encoding
#
# Encoding repeats what training did, in the same order. In a chunk, look at all pairs of neighbours, take the one
# that was learned **first**, that is of the lowest rank, merge it everywhere in the chunk, and look again, until no
# pair has a rank.
#
# Why not simply the longest token that fits? Say the merges are `bc` (rank 0) and `ab` (rank 1). Training would have
# turned `abc` into `a` + `bc`, so a model has never seen `ab` + `c`. By rank we get what it has seen.
#
# By hand: `abab` with the ranks `{(97, 98): 0, (256, 256): 1}` is first `[256, 256]`, then `[257]`.

# %% nbgrader={"grade_id": "encode-chunk", "solution": true}
#| export
def encode_chunk(ids, rank):
    """Merge the bytes `ids` of a chunk by rank, lowest first; `rank` is a dict from pairs to 0, 1, 2...

    Example: encode_chunk([97, 98, 97, 98], {(97, 98): 0, (256, 256): 1}) is [257].
    """
    ### BEGIN SOLUTION
    while len(ids) > 1:
        pair = min(zip(ids, ids[1:]), key=lambda pair: rank.get(pair, math.inf))
        if pair not in rank:
            break
        ids = merge_pair(ids, pair, 256 + rank[pair])
    return ids
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(encode_chunk(to_bytes("abab"), {(97, 98): 0, (256, 256): 1}))
print(encode_chunk(to_bytes("abc"), {(98, 99): 0, (97, 98): 1}))

# %% nbgrader={"grade_id": "test-encode-chunk", "grade": true, "points": 2}
for text, merges, wanted in (
    ("abab", [(97, 98), (256, 256)], [257]),
    ("abc", [(98, 99), (97, 98)], [97, 256]),
    ("abcab", [(97, 98), (98, 99)], [256, 99, 256]),
    ("aaa", [(97, 97)], [256, 97]),
    ("xyz", [(97, 97)], [120, 121, 122]),
    ("", [(97, 97)], []),
):
    got = [int(i) for i in encode_chunk(list(text.encode()), {pair: k for k, pair in enumerate(merges)})]
    assert got == wanted, f"encode_chunk of {text!r} with the merges {merges}: expected {wanted}, got {got}"
### BEGIN HIDDEN TESTS
draw = random.Random(4)
noise = [" " + "".join(draw.choice("abc") for _ in range(draw.randrange(1, 12))) for _ in range(200)]
merges = [tuple(pair) for pair in learn_merges("".join(noise), 40)]
rank = {pair: k for k, pair in enumerate(merges)}
for chunk in noise:
    wanted = list(chunk.encode())
    for k, pair in enumerate(merges):  # another route: play all merges in turn, as training did
        i = 0
        while i < len(wanted) - 1:
            if (wanted[i], wanted[i + 1]) == pair:
                wanted[i : i + 2] = [256 + k]
            i += 1
    got = [int(i) for i in encode_chunk(list(chunk.encode()), rank)]
    assert got == wanted, f"encode_chunk of {chunk!r}: the merges in turn give {wanted}, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# A text repeats its words, so `encode` remembers the ids of each chunk in `self.cache` and computes only what is
# new. Write it: for every chunk of `CHUNK.findall(text)`, look into the cache, fill it where the chunk is missing,
# and append the chunk's ids to the result. So that texts without end cannot fill the memory, clear the cache when
# it has 65,536 entries.

# %% nbgrader={"grade_id": "bpe-encode", "solution": true}
#| export
class BPETokenizer(BPETokenizer):
    def encode(self, text):
        """The ids of a text, a list of ints, never `end`. Raises ValueError for a lone surrogate."""
        ids = []
        ### BEGIN SOLUTION
        for chunk in CHUNK.findall(text):
            if chunk not in self.cache:
                if len(self.cache) >= 65536:
                    self.cache.clear()
                self.cache[chunk] = encode_chunk(to_bytes(chunk), self.rank)
            ids += self.cache[chunk]
        ### END SOLUTION
        return ids


# %% tags=["nbval-check-output"]
talk = BPETokenizer.train(TALK, vocab_size=300)
ids = talk.encode("A: the rain goes")
print(ids, [talk.table[i] for i in ids])

# %% nbgrader={"grade_id": "test-bpe-encode", "grade": true, "points": 2}
talk = BPETokenizer.train(TALK, vocab_size=300)
for text in (TALK, "the river, the river", "", "a 1+1=2 né\n\n"):
    wanted = []
    for chunk in CHUNK.findall(text):
        wanted += encode_chunk(to_bytes(chunk), {tuple(pair): k for k, pair in enumerate(talk.merges)})
    for time_of_asking in ("first", "second"):  # the second time from the cache
        got = [int(i) for i in talk.encode(text)]
        assert got == wanted, f"encode({text[:20]!r}), asked a {time_of_asking} time: expected {wanted[:9]}..., got {got[:9]}..."
got = [int(i) for i in talk.encode("<|end|>")]
assert talk.end not in got and len(got) > 1, f"the text '<|end|>' is seven characters, not the special token; got {got}"
### BEGIN HIDDEN TESTS
first = talk.encode(" river")
first.append(0)
got = [int(i) for i in talk.encode(" river")]
assert 0 not in got, "encode: a caller's change of the result came back; append to a list of your own"
### END HIDDEN TESTS

# %% [markdown]
# ### Decoding
#
# Join the bytes of all tokens, then read them as UTF-8. In this order: a character of several bytes may be spread
# over several tokens, and half of it is no text. A model can stop in the middle of a character all the same; with
# `errors="replace"` the rest becomes U+FFFD, the replacement character, and no error stops the reply.

# %% nbgrader={"grade_id": "bpe-decode", "solution": true}
#| export
class BPETokenizer(BPETokenizer):
    def decode(self, ids):
        """The text of `ids`; `end` is shown as <|end|>, bytes that are no UTF-8 as U+FFFD.

        Raises ValueError for an id that no token has.
        """
        ### BEGIN SOLUTION
        table = [*self.table, END.encode()]
        return b"".join(table[i] for i in check_ids(ids, self.vocab_size)).decode("utf-8", errors="replace")
        ### END SOLUTION


# %% tags=["nbval-check-output"]
talk = BPETokenizer.train(TALK, vocab_size=300)  # of the class that has decode
print(talk.decode(talk.encode("the rain goes up")), talk.decode([104, 105, talk.end]))
print(ascii(talk.decode(to_bytes("日")[:2])))

# %% nbgrader={"grade_id": "test-bpe-decode", "grade": true, "points": 2}
talk = BPETokenizer.train(TALK, vocab_size=300)
for text in (TALK, "naïve 日本 🙂🙂", " \t \r\n  _a_b__ 1,000.5", ""):
    got = str(talk.decode(talk.encode(text)))
    assert got == text, f"decode(encode(text)): expected {text!r}, got {got!r}"
got = str(talk.decode([104, 105, talk.end]))
assert got == "hi<|end|>", f"decode([104, 105, end]): expected 'hi<|end|>', got {got!r}"
for wrong in (-1, talk.vocab_size):
    try:
        talk.decode([wrong])
        raised = False
    except ValueError:
        raised = True
    assert raised, f"decode([{wrong}]) with {talk.vocab_size} tokens: expected a ValueError"
### BEGIN HIDDEN TESTS
draw = random.Random(5)
for _ in range(200):
    codes = (draw.randrange(0xD800) if draw.random() < 0.5 else draw.randrange(0xE000, 0x110000) for _ in range(9))
    text = "".join(map(chr, codes))
    got = str(talk.decode(talk.encode(text)))
    assert got == text, f"decode(encode(text)): expected {text!r}, got {got!r}"
got = str(talk.decode([0xF0, 0x9F, 65]))
assert got.endswith("A") and "\ufffd" in got, f"half a character and an A: expected U+FFFD and A, got {got!r}"
### END HIDDEN TESTS

# %% [markdown]
# ## 6. In a file
#
# A tokenizer belongs to the model that was trained with it: with other ids the model's words mean something else. So
# it is saved beside it, as plain JSON that any program can read:
#
# - `{"format": 1, "type": "bpe", "merges": [[a, b], ...]}`
# - `{"format": 1, "type": "char", "characters": ["\n", " ", ...]}`
#
# Write `as_json` for both: the dict, as a string. `save` is given; it writes under another name and renames, so that
# no half a file is ever left.

# %% nbgrader={"grade_id": "as-json", "solution": true}
#| export
def as_json(tokenizer):
    """What a tokenizer's file holds, a str. Raises TypeError for what is no tokenizer of ours."""
    ### BEGIN SOLUTION
    if isinstance(tokenizer, BPETokenizer):
        return json.dumps({"format": 1, "type": "bpe", "merges": tokenizer.merges})
    if isinstance(tokenizer, CharTokenizer):
        return json.dumps({"format": 1, "type": "char", "characters": tokenizer.characters})
    raise TypeError(f"save: expected a CharTokenizer or BPETokenizer, got {type(tokenizer).__name__}")
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(as_json(CharTokenizer.train("abba")), as_json(BPETokenizer([(97, 98), (256, 256)])))

# %% nbgrader={"grade_id": "test-as-json", "grade": true, "points": 1}
for tokenizer, wanted in (
    (CharTokenizer.train("né\n"), {"format": 1, "type": "char", "characters": ["\n", "n", "é"]}),
    (BPETokenizer([(97, 98), (256, 256)]), {"format": 1, "type": "bpe", "merges": [[97, 98], [256, 256]]}),
    (BPETokenizer([]), {"format": 1, "type": "bpe", "merges": []}),
):
    got = json.loads(str(as_json(tokenizer)))
    assert got == wanted, f"as_json: expected {wanted}, got {got}"
### BEGIN HIDDEN TESTS
try:
    as_json("abc")
    said = "no error"
except TypeError:
    said = "TypeError"
assert said == "TypeError", f"as_json('abc'): expected a TypeError, got {said}"
### END HIDDEN TESTS


# %%
#| export
def save_tokenizer(tokenizer, path):
    """Write a tokenizer to a JSON file. Raises FileNotFoundError without the folder."""
    path, content = Path(path), as_json(tokenizer)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: no folder {path.parent}; make it first")
    write_atomically(path, lambda temporary: Path(temporary).write_text(content, encoding="utf-8"))


# %%
#| export
class CharTokenizer(CharTokenizer):
    def save(self, path):
        """Write the tokenizer to a JSON file; `load_tokenizer` reads it."""
        save_tokenizer(self, path)


# %%
#| export
class BPETokenizer(BPETokenizer):
    def save(self, path):
        """Write the tokenizer to a JSON file; `load_tokenizer` reads it."""
        save_tokenizer(self, path)


# %% [markdown]
# Reading trusts nothing. A file may be cut off, be of a newer program, or be something else under this name.
# `from_json` gets the file's text and makes the tokenizer. Raise a ValueError that says what is wrong where the text
# is no JSON (`json.loads` raises a ValueError, or RecursionError for brackets in brackets without end), where it is
# not a dict with the three keys, where `format` is not 1, where `type` is neither of the two, or where the list is no
# list. The constructors check the entries; a merge that is no list has no length, so a TypeError counts as damage too.

# %% nbgrader={"grade_id": "from-json", "solution": true}
#| export
def from_json(content):
    """The tokenizer in a file's text. Raises ValueError for anything that `as_json` does not write."""
    ### BEGIN SOLUTION
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
    ### END SOLUTION


# %%
#| export
def load_tokenizer(path):
    """The tokenizer that `save` wrote to `path`. Raises ValueError in one line for a file that holds none."""
    try:
        return from_json(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # no UTF-8 is a ValueError too
        reason = "no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        raise ValueError(f"load_tokenizer: {path}: {reason}") from None


# %% tags=["nbval-check-output"]
talk = BPETokenizer.train(TALK, vocab_size=300)
talk.save(folder / "talk.json")
again = load_tokenizer(folder / "talk.json")
print(again, again.encode(TALK) == talk.encode(TALK))

# %% nbgrader={"grade_id": "test-from-json", "grade": true, "points": 2}
def refused(content):
    """Whether from_json refuses this text with a ValueError of one line."""
    try:
        from_json(content)
        return False
    except ValueError as error:
        return "\n" not in str(error)


for tokenizer in (CharTokenizer.train(TALK + "é"), BPETokenizer.train(TALK, 290)):
    again = from_json(as_json(tokenizer))
    assert int(again.vocab_size) == int(tokenizer.vocab_size), f"{tokenizer} came back as {again}"
    assert list(again.encode("the rain")) == list(tokenizer.encode("the rain")), f"{tokenizer}: other ids after a reload"
whole = as_json(BPETokenizer.train(TALK, 290))
for damage, content in {
    "cut off": whole[:-20],
    "empty": "",
    "a list": "[1, 2]",
    "format 2": whole.replace('"format": 1', '"format": 2'),
    "an unknown type": whole.replace("bpe", "words"),
    "no merges": '{"format": 1, "type": "bpe"}',
    "merges that are no list": '{"format": 1, "type": "bpe", "merges": "ab"}',
    "an id from the future": '{"format": 1, "type": "bpe", "merges": [[97, 400]]}',
}.items():
    assert refused(content), f"a file that is damaged ({damage}): expected a ValueError of one line"
### BEGIN HIDDEN TESTS
for content in (
    "[" * 100_000, "null", '{"format": 1, "type": ["bpe"], "merges": []}', '{"format": 1, "type": "bpe", "merges": [5]}',
    '{"format": 1, "type": "char", "characters": ["ab"]}', '{"format": 1, "type": "char", "characters": "ab"}',
    '{"format": 1, "type": "char", "characters": ["a", "a"]}', '{"type": "char", "characters": ["a"]}',
    '{"format": 1, "type": "bpe", "merges": [[97, 98], [97, 98]]}', '{"format": 1, "type": "bpe", "merges": {}}',
):
    assert refused(content), f"{content[:60]}: expected a ValueError of one line"
### END HIDDEN TESTS

# %% [markdown]
# ## 7. Bits per byte
#
# A language model's loss is a mean over tokens, in nats. Compare two models with different tokenizers, and the one with
# the longer tokens has fewer and harder guesses: its loss per token is higher although it may be the better model.
# So divide by something that no tokenizer can change, the bytes of the text:
#
# $$\text{bits per byte} = \frac{\text{loss per token} \cdot \text{tokens}}{\ln 2 \cdot \text{bytes}}$$
#
# By hand: guessing among 256 bytes costs ln 256 = 5.545 nats a token. With 10 tokens for 10 bytes that is 8 bits per
# byte, as it must be. A model with 512 tokens that knows nothing has ln 512 = 6.238, but with 4 tokens for 10 bytes
# that makes only 3.6.

# %% nbgrader={"grade_id": "bits-per-byte", "solution": true}
#| export
def bits_per_byte(loss, tokens, n_bytes):
    """A mean loss in nats a token, over so many tokens, as bits for each UTF-8 byte of the text.

    Example: bits_per_byte(math.log(256), 10, 10) is 8.0. Raises ValueError unless n_bytes is at least 1.
    """
    if n_bytes < 1:
        raise ValueError(f"bits_per_byte: expected a text of at least one byte, got {n_bytes}")
    ### BEGIN SOLUTION
    return loss * tokens / (math.log(2) * n_bytes)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
print(round(bits_per_byte(math.log(256), 10, 10), 6), round(bits_per_byte(math.log(512), 4, 10), 6))

# %% nbgrader={"grade_id": "test-bits-per-byte", "grade": true, "points": 1}
for loss, tokens, n_bytes in ((math.log(256), 10, 10), (1.5, 40, 130), (0.0, 5, 5), (3.0, 7, 2)):
    got, wanted = float(bits_per_byte(loss, tokens, n_bytes)), math.log2(math.exp(loss)) * tokens / n_bytes
    assert abs(got - wanted) < 1e-9, f"bits_per_byte({loss:.3f}, {tokens}, {n_bytes}): expected {wanted:.6f}, got {got:.6f}"

# %% [markdown]
# ## 8. How long is a text?
#
# The more merges, the fewer tokens; and each further merge brings less, because the frequent pairs come first. What
# it costs is a row of the embedding and a column of the output layer for each token.

# %% tags=["measure"]
import matplotlib.pyplot as plt

text = long_text(words=60_000, different=2000)
sizes = [257, 288, 320, 384, 512, 768, 1024]
learned = BPETokenizer.train(text, sizes[-1]).merges
tokens = [len(BPETokenizer(learned[: size - 257]).encode(text)) for size in sizes]
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.plot(sizes, [len(text.encode()) / n for n in tokens], "o-", color="#0072B2")
axes.set(xlabel="vocab_size", ylabel="bytes per token", ylim=(0, None))
plt.show()

# %% [markdown]
# *The figure: bytes per token against the size of the vocabulary, steep at first, then flatter.* The first merges
# of a longer list are the list of a smaller tokenizer: that is why one training was enough here.

# %% tags=["measure"]
start = time.perf_counter()
big = BPETokenizer.train(text, 512)
trained = time.perf_counter()
big.encode(text)
print(f"{len(text) / 1e6:.2f} MB: trained in {trained - start:.2f} s, encoded in {time.perf_counter() - trained:.2f} s")

# %% [markdown]
# ## 9. What breaks
#
# A vocabulary that has no room for the bytes:

# %% tags=["nbval-check-output"]
attempt(BPETokenizer.train, TALK, 200)

# %% [markdown]
# A file that was cut off while it was copied:

# %% tags=["nbval-check-output"]
(folder / "cut.json").write_text(as_json(talk)[:100])
attempt(load_tokenizer, folder / "cut.json")

# %% [markdown]
# The ids of one tokenizer in the hands of another. If they are in range, nothing raises:

# %% tags=["nbval-check-output"]
other = BPETokenizer.train("quite another text, with other pairs in it, and quite other words", 300)
print(repr(other.decode(i for i in talk.encode("the rain goes") if i < other.vocab_size)))

# %% [markdown]
# A space at the end of a prompt. The space belongs to the word after it, so `A: ` and what follows is not cut as
# it was in training, and a model begins its answer at a place that it has never seen. End a prompt with `A:`.

# %% tags=["nbval-check-output"]
print([talk.table[i] for i in talk.encode("A: the")], [talk.table[i] for i in talk.encode("A: ") + talk.encode("the")])

# %% [markdown]
# ## Exercises
#
# 1. Encode the same sentence in English and in another language that you know with the tokenizer of `TALK`. How
#    many bytes and tokens does each have, and who pays for that?
# 2. Change `CHUNK` so that numbers stay whole. What are the first merges of a text of sums such as `17+25=42`?
# 3. `encode_chunk` looks at all pairs after each merge. For one chunk of 10,000 letters that is slow. Where does the
#    time go, and how would a heap of pairs help?
# 4. Train on the first half of a text and measure bytes per token on both halves. Why do they differ?
# 5. Write a function that counts which tokens a text never uses. How many of a vocabulary's 256 bytes are idle in
#    English, and why do we keep them?
#
# ## Elsewhere
#
# - GPT-2's tokenizer is byte-level BPE with about 50,000 merges and a similar rule for chunks; later models use a
#   hundred thousand and more. `tiktoken` and Hugging Face's `tokenizers` are written in Rust, and do what yours does.
# - SentencePiece needs no rule for chunks: it takes the space as one more character. Its unigram model starts with
#   too many tokens and takes away.
# - Special tokens are a door: a tokenizer that turned the text `<|end|>` into the special id would let a user
#   end the conversation on the other's behalf. Ours never does.
#
# ## Summary
#
# - Bytes can write every text; merges make frequent ones short. Nothing is unknown, nothing is lost.
# - Training counts pairs, and a good one counts only what has changed. Ties need a rule.
# - Encoding merges by rank, lowest first, inside chunks, as training did; the cache does the rest.
# - Decode after joining the bytes. Never trust ids or files.
# - Compare models by bits per byte: no tokenizer can change the number of bytes.
