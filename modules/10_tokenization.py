# %% [markdown]
# # 10 Tokenization
#
# > Text to numbers and back: one id a character, or byte-pair encoding learned from a text.
#
# In this lesson you build two tokenizers. `CharTokenizer` gives each character a number. `BPETokenizer` starts from
# bytes and learns which neighbours to join: the algorithm, byte-pair encoding, that most language models use.
#
# **Why it matters to a system.** A model does its work once for each token. Text in fewer tokens is less work, and
# more text fits into the same context; but every entry of the vocabulary is a row of two weight matrices.
#
# **You need** Python's dictionaries. Nothing of the earlier lessons is used.
#
# The words of this lesson: an *id* is a whole number that stands for a piece of text, its *token*. A *word* is a
# tuple of ids. A *merge* is a pair of ids that becomes one new id, and its *rank* says how early it was learned.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 10

# %%
#| export
import json
import re
from collections import Counter

# %% nbgrader={"grade_id": "imports", "locked": true}
import random
import tempfile
import time
from pathlib import Path

RHYME = "the cat sat on the mat.\nthe other cat sat on the hat.\nthat is that: 2 cats, 2 hats and 12 mats.\n"

# %% [markdown]
# ## 1. What both tokenizers share
#
# One id is no text at all: `<|end|>`, which says that a text is over. It is always the last id, and no text encodes
# to it, not even the seven characters `<|end|>`. Two more things are given here: a check of ids, and text as UTF-8
# bytes. Python strings may hold half of a surrogate pair, which is no character; UTF-8 cannot hold it.

# %%
#| export
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


# %% [markdown]
# ## 2. One id a character
#
# The simplest tokenizer sorts the characters of a text and numbers them. By hand: `"banana"` has the characters
# a, b, n, so a is 0, b is 1, n is 2, the end is 3, and `"nab"` becomes 2 0 1.
#
# Write both directions. A character that was not in the training text has no id: raise a ValueError that shows it
# (`{c!r}` in an f-string). In `decode`, the last id stands for the text `END`.

# %% nbgrader={"grade_id": "char-tokenizer", "solution": true}
#| export
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
        ### BEGIN SOLUTION
        for c in text:
            if c not in self.index:
                raise ValueError(f"encode: no id for the character {c!r}, the training text had none")
        return [self.index[c] for c in text]
        ### END SOLUTION

    def decode(self, ids):
        """The text of ids; `end` becomes `<|end|>`. Raises ValueError for an id out of range."""
        ids = check_ids(ids, self.vocab_size)
        ### BEGIN SOLUTION
        return "".join((self.characters + [END])[i] for i in ids)
        ### END SOLUTION

    def save(self, path):
        """Write a JSON file for `load_tokenizer`."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"format": 1, "type": "char", "characters": self.characters}, file)


# %% tags=["nbval-check-output"]
fruit = CharTokenizer.train("banana")
print(fruit.characters, fruit.encode("nab"), fruit.decode([2, 0, 1, 3]))

# %% nbgrader={"grade_id": "test-char-tokenizer", "grade": true, "points": 2}
tokenizer = CharTokenizer.train(RHYME)
letters = sorted(set(RHYME))
got = [int(i) for i in tokenizer.encode(RHYME)]
assert got == [letters.index(c) for c in RHYME], f"encode: expected the places in the sorted list, got {got[:9]}..."
got = str(tokenizer.decode(got))
assert got == RHYME, f"decode must give the text back, got {got[:40]!r}..."
### BEGIN HIDDEN TESTS
got = str(tokenizer.decode([0, len(letters), 1]))
assert got == letters[0] + "<|end|>" + letters[1], f"decode with the end in the middle: got {got!r}"
try:
    said = f"none, but {tokenizer.encode('a cat: é')}"
except ValueError as error:
    said = str(error)
assert "'é'" in said, f"an unknown character: expected a ValueError that shows 'é', got {said}"
### END HIDDEN TESTS

# %% [markdown]
# It is small and it fails on the first new character. Bytes never fail: every text is a row of bytes in UTF-8, and
# there are only 256 of them. But a row of bytes is long. So we join what is often together.
#
# ## 3. Chunks
#
# Nothing is joined across the borders of *chunks*: a run of letters with the space before it, a single digit, a run
# of signs, a line break, spaces. Otherwise `cat.` and `cat,` would become tokens of their own. The pattern below
# leaves out no character: its chunks, put together, are the text.

# %%
#| export
CHUNK = re.compile(r"\n| ?[^\W\d_]+| ?\d| ?[^\s\w]+| ?_+|[^\S\n]+")
LONGEST = 1024  # bytes of a chunk that training looks at, so that no token gets longer


def word_counts(text):
    """How often each chunk of a text occurs: a dict of its bytes, a tuple of ids, to a count."""
    words = Counter()
    for chunk, n in Counter(CHUNK.findall(text)).items():
        words[tuple(utf8(chunk)[:LONGEST])] += n
    return dict(words)


# %% tags=["nbval-check-output"]
print(CHUNK.findall("the cat sat, 12 times.\n"))

# %% [markdown]
# The rhyme has few different chunks, and a book has few for its length too. Training looks at each different one
# once and multiplies by its count.
#
# ## 4. Count pairs
#
# Take the words `(1, 2, 1, 2)`, seen 3 times, and `(2, 1)`, seen 5 times. The pair (1, 2) occurs twice in the first,
# so 6 times; (2, 1) occurs once in each, so 3 + 5 = 8 times. `zip(word, word[1:])` goes through neighbours.

# %% nbgrader={"grade_id": "count-pairs", "solution": true}
#| export
def count_pairs(words):
    """How often each pair occurs in `words`, a dict of word to count: a dict of (a, b) to a count."""
    pairs = Counter()
    ### BEGIN SOLUTION
    for word, n in words.items():
        for pair in zip(word, word[1:], strict=False):
            pairs[pair] += n
    ### END SOLUTION
    return dict(pairs)


# %% tags=["nbval-check-output"]
count_pairs({(1, 2, 1, 2): 3, (2, 1): 5})

# %% nbgrader={"grade_id": "test-count-pairs", "grade": true, "points": 2}
draw = random.Random(1)
words = {tuple(draw.choices(range(3), k=k)): draw.randint(1, 9) for k in (1, 2, 3, 5, 8, 8)}
got = {(int(a), int(b)): int(n) for (a, b), n in count_pairs(words).items()}
wanted = {}
for a in range(3):
    for b in range(3):
        n = sum(n * [w[i : i + 2] for i in range(len(w))].count((a, b)) for w, n in words.items())
        if n:
            wanted[a, b] = n
assert got == wanted, f"{words}: expected {wanted}, got {got}; each occurrence in a word counts as often as the word"

# %% [markdown]
# ## 5. One merge
#
# Replace a pair by its new id, from left to right. By hand, the pair (1, 1) becomes 9 in `1 1 1 2 1 1`: the first
# two are joined, the third is left alone, then 2, then 9 again: `9 1 2 9`. An id that was just used up cannot be
# used again.

# %% nbgrader={"grade_id": "merge", "solution": true}
#| export
def merge(word, pair, new):
    """The word, a tuple, with each `pair` of neighbours replaced by the id `new`, leftmost first."""
    out, i = [], 0
    while i < len(word):
        ### BEGIN SOLUTION
        if tuple(word[i : i + 2]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(word[i])
            i += 1
        ### END SOLUTION
    return tuple(out)


# %% tags=["nbval-check-output"]
merge((1, 1, 1, 2, 1, 1), (1, 1), 9)

# %% nbgrader={"grade_id": "test-merge", "grade": true, "points": 2}
for text, pair in [("aabaaab", "ab"), ("aaaaa", "aa"), ("b", "ab"), ("abab", "ba"), ("ccab", "ab"), ("", "aa")]:
    got = tuple(int(i) for i in merge(tuple(text.encode()), tuple(pair.encode()), 90))
    wanted = tuple(text.replace(pair, "Z").encode())
    assert got == wanted, f"{text!r} with {pair!r} as Z: expected {bytes(wanted)}, got {got}"

# %% [markdown]
# ## 6. Train
#
# Count, join the most frequent pair everywhere, count again. Merge k makes the id 256 + k. Where two pairs are
# equally frequent, the smaller pair of ids wins, so that everyone gets the same tokenizer from the same text. In
# Python `min` with a key that is a tuple compares its first entries, and the second ones where those are equal.
#
# You write the choice of the pair and the new dictionary of words. Different words stay different after a merge.
# A short text may run out of pairs; the tokenizer is then smaller than asked for.

# %% nbgrader={"grade_id": "train-merges", "solution": true}
#| export
def train_merges(words, n):
    """The first n merges for words (a dict of word to count), a list of pairs; fewer if no pairs are left.

    Source: Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units", 2016.
    """
    merges = []
    for new in range(256, 256 + n):
        pairs = count_pairs(words)
        if not pairs:
            break
        ### BEGIN SOLUTION
        pair = min(pairs, key=lambda p: (-pairs[p], p))
        words = {merge(word, pair, new): count for word, count in words.items()}
        ### END SOLUTION
        merges.append(pair)
    return merges


# %% tags=["nbval-check-output"]
train_merges(word_counts(RHYME), 5)

# %% [markdown]
# The most frequent neighbours are `a` and `t` (97 and 116): the rhyme is about cats and mats.

# %% nbgrader={"grade_id": "test-train-merges", "grade": true, "points": 3}
merges = [(int(a), int(b)) for a, b in train_merges(word_counts(RHYME), 20)]
assert len(merges) == 20, f"expected 20 merges, got {len(merges)}"
rows = [[chr(i) for i in chunk.encode()] for chunk in CHUNK.findall(RHYME)]  # each chunk, repeated ones too
for k, (a, b) in enumerate(merges):
    counts = {}
    for row in rows:
        for i in range(len(row) - 1):
            key = (ord(row[i]), ord(row[i + 1]))
            counts[key] = counts.get(key, 0) + 1
    best = min(p for p in counts if counts[p] == max(counts.values()))
    assert (a, b) == best, f"merge {k}: expected {best}, seen {counts[best]} times, got {(a, b)}, seen {counts.get((a, b), 0)} times"
    rows = [list("".join(row).replace(chr(a) + chr(b), chr(256 + k))) for row in rows]
### BEGIN HIDDEN TESTS
few = [tuple(map(int, p)) for p in train_merges({(5, 4): 2, (3, 9): 2, (1, 2): 1}, 7)]
assert few == [(3, 9), (5, 4), (1, 2)], f"{few}: ties go to the smaller pair, and without pairs it stops"
### END HIDDEN TESTS

# %% [markdown]
# ## 7. Encode by rank
#
# To encode a chunk, do what training did, in the same order: of all pairs in the word, join the one of the lowest
# rank, again and again until no pair has a rank. With the merges `a t`, then `c at`, the word `c a t` has the pairs
# (c, a), without a rank, and (a, t), rank 0: it becomes `c at`, then `cat`.
#
# `ranks` is a dictionary of pair to rank. You write one round of the loop; `break` when no pair has a rank.

# %% nbgrader={"grade_id": "encode-word", "solution": true}
#| export
def encode_word(word, ranks):
    """The ids of a word, a tuple of bytes, after all merges, lowest rank first. `ranks`: pair to rank."""
    while len(word) > 1:
        ### BEGIN SOLUTION
        pair = min(zip(word, word[1:], strict=False), key=lambda p: ranks.get(p, len(ranks)))
        if pair not in ranks:
            break
        word = merge(word, pair, 256 + ranks[pair])
        ### END SOLUTION
    return tuple(word)


# %% tags=["nbval-check-output"]
encode_word(tuple(b"cat"), {(97, 116): 0, (99, 256): 1})

# %% nbgrader={"grade_id": "test-encode-word", "grade": true, "points": 3}
merges = [(98, 99), (97, 98), (97, 97), (256, 258), (258, 97), (257, 256)]
ranks = {pair: k for k, pair in enumerate(merges)}
draw = random.Random(2)
for text in ["abc", "aab", "d", "bcaa"] + ["".join(draw.choices("abcd", k=9)) for _ in range(40)]:
    wanted = text  # every merge in turn, as a replacement in a text
    for k, (a, b) in enumerate(merges):
        wanted = wanted.replace(chr(a) + chr(b), chr(256 + k))
    got = [int(i) for i in encode_word(tuple(text.encode()), ranks)]
    assert got == [ord(c) for c in wanted], f"{text!r}: expected {[ord(c) for c in wanted]}, got {got}; lowest rank first"

# %% [markdown]
# ## 8. The tokenizer
#
# What is left is to put it together. `encode` looks at each chunk; a chunk seen before is in the dictionary
# `self.known`, so that a frequent word is encoded once. `self.tokens[i]` are the bytes of id i: the bytes of a merge
# are those of its two halves, one after the other.
#
# `decode` joins the bytes first and makes a text of them at the end, since a token may hold half a character. Bytes
# that are no UTF-8 become the sign U+FFFD: `errors="replace"`.

# %% nbgrader={"grade_id": "bpe-tokenizer", "solution": true}
#| export
class BPETokenizer:
    """Byte-pair encoding: ids 0-255 are bytes, 256 + k is merge k, the last id, `end`, is `<|end|>`."""

    def __init__(self, merges):
        self.merges = [(int(a), int(b)) for a, b in merges]
        self.ranks = {pair: k for k, pair in enumerate(self.merges)}
        self.end = 256 + len(self.merges)
        self.vocab_size = self.end + 1
        self.known = {}  # chunk -> ids
        self.tokens = [bytes([i]) for i in range(256)]
        ### BEGIN SOLUTION
        for a, b in self.merges:
            self.tokens.append(self.tokens[a] + self.tokens[b])
        ### END SOLUTION
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
            ### BEGIN SOLUTION
            if chunk not in self.known:
                self.known[chunk] = encode_word(tuple(utf8(chunk)), self.ranks)
            ids.extend(self.known[chunk])
            ### END SOLUTION
        return ids

    def decode(self, ids):
        """The text of ids; `end` becomes `<|end|>`. Raises ValueError for an id out of range."""
        ids = check_ids(ids, self.vocab_size)
        ### BEGIN SOLUTION
        return b"".join(self.tokens[i] for i in ids).decode("utf-8", errors="replace")
        ### END SOLUTION

    def save(self, path):
        """Write a JSON file for `load_tokenizer`."""
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"format": 1, "type": "bpe", "merges": self.merges}, file)


# %% tags=["nbval-check-output"]
bpe = BPETokenizer.train(RHYME, 280)
print([bpe.decode([i]) for i in bpe.encode("the cat has 2 mats")])

# %% nbgrader={"grade_id": "test-bpe-tokenizer", "grade": true, "points": 4}
bpe = BPETokenizer.train(RHYME, 280)
for text in [RHYME, "", "the hat", "mañana 日本 🦊\t_x__ \r\n  12٣", "<|end|>"]:
    ids = [int(i) for i in bpe.encode(text)]
    back = str(bpe.decode(ids))
    assert back == text, f"expected {text!r} back, got {back!r}"
    assert all(i < 279 for i in ids), f"{text!r}: no text encodes to the end, 279, got {ids}"
assert len(bpe.encode(RHYME)) < 0.6 * len(RHYME), f"{len(RHYME)} characters became {len(bpe.encode(RHYME))} tokens"
### BEGIN HIDDEN TESTS
assert str(bpe.decode([104, 279, 105])) == "h<|end|>i", f"decode([104, 279, 105]): got {bpe.decode([104, 279, 105])!r}"
assert str(bpe.decode([0xF0, 0x9F])) == "\ufffd", f"half a character: expected U+FFFD, got {bpe.decode([0xF0, 0x9F])!r}"
one = [int(i) for i in BPETokenizer([(97, 98), (256, 256)]).encode("abab ab")]
assert one == [257, 32, 256], f"merges ab, abab, text 'abab ab': expected [257, 32, 256], got {one}"
### END HIDDEN TESTS

# %% [markdown]
# ## 9. Files
#
# A tokenizer belongs to the model that was trained with it. Its file is plain JSON: anyone can read it, in any
# language, and reading it runs no code. Whatever comes from a file is checked: a merge may only use ids below its
# own, or building its bytes would fail later, far from the cause. `type(i) is int` also turns away true and false. What
# the given lines check: no pair twice, and no token that doubles and doubles until the memory is full.

# %% nbgrader={"grade_id": "valid-merges", "solution": true}
#| export
def valid_merges(merges):
    """Whether this is a list of different pairs of ids, where merge k uses ids from 0 to 255 + k only."""
    if not isinstance(merges, list):
        return False
    seen, lengths = set(), [1] * 256  # of the tokens, in bytes
    for k, pair in enumerate(merges):
        if not isinstance(pair, list) or len(pair) != 2:
            return False
        ### BEGIN SOLUTION
        if not all(type(i) is int and 0 <= i < 256 + k for i in pair):
            return False
        ### END SOLUTION
        lengths.append(sum(lengths[i] for i in pair))
        if tuple(pair) in seen or lengths[-1] > LONGEST:
            return False
        seen.add(tuple(pair))
    return True


# %% tags=["nbval-check-output"]
print(valid_merges([[97, 98], [256, 97]]), valid_merges([[97, 256]]))

# %% nbgrader={"grade_id": "test-valid-merges", "grade": true, "points": 2}
for merges in [[], [[0, 255]], [[97, 98], [256, 256], [257, 0]]]:
    assert bool(valid_merges(merges)), f"{merges} is fine: expected True"
for merges in [[[97, 256]], [[256, 0]], [[97, -1]], [[97, 1.0]], [[97, 98], [0, 257]], [[97, "b"]], [[True, 97]]]:
    try:
        got = bool(valid_merges(merges))
    except (TypeError, IndexError) as error:
        got = f"{type(error).__name__}: {error}"
    assert got is False, f"{merges}: expected False, got {got}; merge k may use ids from 0 to 255 + k"

# %%
#| export
def load_tokenizer(path):
    """Read a tokenizer file. Raises ValueError for anything but the two forms that `save` writes."""
    with open(path, "rb") as file:
        raw = file.read()
    try:
        found = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected the JSON of a tokenizer, got {' '.join(str(error).split())[:80]}") from None
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


# %% tags=["nbval-check-output"]
with tempfile.TemporaryDirectory() as folder:
    bpe.save(Path(folder) / "tokenizer.json")
    print(load_tokenizer(Path(folder) / "tokenizer.json").encode("the cat") == bpe.encode("the cat"))

# %% [markdown]
# ## 10. Fewer tokens, and what they cost
#
# A larger text: the course's little dialogues. Look at how fast the number of tokens falls, and how slowly later.

# %% tags=["measure"]
from autograder import datasets

talks = datasets.load_text("tinytalks", "validation").text
start = time.perf_counter()
large = BPETokenizer.train(talks, 512)
print(f"{len(talks):,} characters: trained in {time.perf_counter() - start:.1f} s")
sizes = [257, 288, 320, 384, 448, 512]
lengths = [len(BPETokenizer(large.merges[: n - 257]).encode(talks)) for n in sizes]
print(lengths)

# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import show

shares = [length / len(utf8(talks)) for length in lengths]
figure, axes = plt.subplots()
axes.plot(sizes, shares, "o-")
axes.set(xlabel="vocab_size", ylabel="tokens per byte", ylim=(0, 1.05))
show(
    figure,
    alt=f"Tokens per byte against the size of the vocabulary: {shares[0]:.2f} at {sizes[0]}, where each byte is a token, "
    f"falling steeply to {shares[2]:.2f} at {sizes[2]}, and ever more slowly to {shares[-1]:.2f} at {sizes[-1]}.",
)

# %% [markdown]
# The first merges are the frequent ones. Each later one still costs a row of weights in the embedding and in the head.

# %% [markdown]
# ## 11. What breaks
#
# Two tokenizers that both work, and a model that was trained with the other one. No error is raised:

# %% tags=["nbval-check-output"]
other = BPETokenizer.train(RHYME[::-1], 280)
print(repr(other.decode(bpe.encode("the hat"))))

# %% [markdown]
# Decoding token by token, as a chat does while a model writes. A fox is four bytes, none of which is a character:

# %% tags=["nbval-check-output"]
print(ascii([bpe.decode([i]) for i in bpe.encode("🦊")]))

# %% [markdown]
# And half a surrogate pair, which a careless cut of a text in another language's strings leaves behind:

# %% tags=["nbval-check-output"]
try:
    bpe.encode("a \ud83e b")
except ValueError as error:
    print(error)

# %% [markdown]
# ## Exercises
#
# 1. Train on English and encode another language. How many tokens per character are there? Who pays for that?
# 2. `train_merges` counts all words again for every merge. Which counts change after one? Keep the rest, and measure.
# 3. Take the pattern away, so that the whole text is one chunk. Which tokens appear, and why is it slow?
# 4. Write a decoder for chats: it takes one id at a time and returns text only when its characters are complete.
# 5. Digits stay single. Allow runs of digits and look at how `123 + 456` is cut. What would a model have to learn?
#
# ## Elsewhere
#
# GPT-2 introduced BPE on bytes with a pattern of this kind; OpenAI's `tiktoken` and Hugging Face's `tokenizers` do it
# in Rust. SentencePiece works on characters, with the space as a sign of its own, and can also learn a vocabulary by
# taking pieces away from a large one (the unigram model).
#
# ## Summary
#
# - Characters are simple and fail on new ones; bytes never fail and are many.
# - BPE joins the most frequent pair again and again; encoding repeats the merges in the order of their ranks.
# - Different chunks are few: count each once in training, encode each once with a cache.
# - A tokenizer file is data to check, and it belongs to its model.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/tokenization.py`;
# `tito module complete 10` in a terminal does the same.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
