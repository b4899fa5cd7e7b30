"""Small models that speak the Step protocol, and a byte-pair trainer, for the tests of the language track."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autograder.data.datasets import Dialogue
from autograder.data.tokenizer import CHUNK, Bpe, Tokenizer


def train_bpe(text: str, n_merges: int) -> Bpe:
    """The plainest trainer: count all neighbours, merge the commonest, the smaller ids first where equal."""
    chunks = Counter(CHUNK.findall(text))
    words = {tuple(chunk.encode()): n for chunk, n in chunks.items()}
    merges: list[tuple[int, int]] = []
    for _ in range(n_merges):
        counts: Counter[tuple[int, int]] = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:], strict=False):
                counts[pair] += n
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        again: dict[tuple[int, ...], int] = {}
        for word, n in words.items():
            again[replaced(word, best, 256 + len(merges))] = n
        words = again
        merges.append(best)
    return Bpe(merges)


def replaced(word: Sequence[int], pair: tuple[int, int], new: int) -> tuple[int, ...]:
    """The word with every such pair, from the left, as one new id."""
    done, i = [], 0
    while i < len(word):
        found = tuple(word[i : i + 2]) == pair
        done.append(new if found else word[i])
        i += 2 if found else 1
    return tuple(done)


class Uniform:
    """Knows nothing."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def begin(self, batch: int) -> None:
        self.batch = batch

    def step(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.zeros((self.batch, self.vocab_size))


class NGram:
    """Interpolated n-gram: each order is mixed with the next lower one as Witten and Bell (1991) did."""

    def __init__(self, order: int, tokenizer: Tokenizer, dialogues: Sequence[Dialogue]) -> None:
        self.order, self.vocab_size, self.end = order, tokenizer.vocab_size, tokenizer.end
        self.counts: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(order)]
        for dialogue in dialogues:
            ids = [self.end, *tokenizer.encode(dialogue.text), self.end]
            for t in range(1, len(ids)):
                for n in range(min(order, t + 1)):
                    self.counts[n][tuple(ids[t - n : t])][ids[t]] += 1

    def shorter(self, order: int) -> NGram:
        """The same counts, read with less of the past."""
        made = copy.copy(self)
        made.order = order
        return made

    def begin(self, batch: int) -> None:
        self.past: list[list[int]] = [[] for _ in range(batch)]

    def step(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        for past, i in zip(self.past, ids, strict=True):
            past.append(int(i))
        return np.log([self.chances(past) for past in self.past])

    def chances(self, past: list[int]) -> NDArray[np.float64]:
        found = np.full(self.vocab_size, 1 / self.vocab_size)
        for n in range(min(self.order, len(past) + 1)):
            counts = self.counts[n].get(tuple(past[len(past) - n :]))
            if not counts:
                break
            kinds, total = len(counts), counts.total()
            found *= kinds / (kinds + total)
            found[list(counts)] += np.array(list(counts.values())) / (kinds + total)
        return found


class Oracle(NGram):
    """An n-gram that also knows the grammar: after a question it knows the answer, almost for sure."""

    def __init__(self, guess: NGram, tokenizer: Tokenizer, known: Sequence[Dialogue]) -> None:
        self.__dict__.update(guess.__dict__)
        self.next: dict[tuple[int, ...], int] = {}
        for dialogue in known:
            text = ""
            whole = [self.end, *tokenizer.encode(dialogue.text), self.end]
            for question, answer in dialogue.turns:
                text += f"Q: {question}\nA:"
                start = len(tokenizer.encode(text)) + 1
                text += f" {answer}\n"
                for t in range(start, len(tokenizer.encode(text)) + 1):  # the line's end, or the dialogue's
                    self.next[tuple(whole[:t])] = whole[t]

    def chances(self, past: list[int]) -> NDArray[np.float64]:
        found = super().chances(past)
        sure = self.next.get(tuple(past))
        if sure is not None:
            found *= 0.01
            found[sure] += 0.99
        return found
