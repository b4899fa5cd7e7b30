"""TinyTalks: small dialogues from a seeded generator, in five levels, with held-out combinations.

Levels: 1 greetings, 2 facts, 3 arithmetic, 4 common sense, 5 several turns of which the last needs the
earlier. A combination is what a dialogue puts together: two operands, a name and a thing, a fact and a way to
ask for it. Every combination belongs to one split for good, whatever the seed; so what a held-out dialogue
puts together is never in training, though each of its words is. One question after the same turns always has
the same answer.

The stream of random.Random.random() is frozen by Python's promise, and nothing else of `random` is used, so
that every machine and version makes the same corpus. The datasheet is course/tinytalks.md.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from typing import TypeVar

from autograder.data import tinytalks_words as words
from autograder.data.tinytalks_words import Form, Relation

T = TypeVar("T")
Combination = tuple[str | int, ...]  # family, then its parts

SEED = 1
LEVELS = {1: "greetings", 2: "facts", 3: "arithmetic", 4: "common sense", 5: "multi-turn"}
SHARES = {1: 0.14, 2: 0.21, 3: 0.24, 4: 0.17, 5: 0.24}
SIZES = {"train": 10_000, "validation": 500, "public": 500, "private": 500}  # dialogues
PARTS = {"validation": 0.06, "public": 0.07, "private": 0.07}  # of the combinations; the rest is for training
MOST_BYTES = 500  # of a dialogue: with both ends it fits 512 tokens of any tokenizer that knows bytes


@dataclass(frozen=True)
class Dialogue:
    """Questions and answers in turn. keys: for each turn the phrases that make its answer right, where known.

    combinations: what of this dialogue is never put together in another split ("plus 17 4").
    """

    level: int
    turns: tuple[tuple[str, str], ...]
    keys: tuple[tuple[str, ...], ...] = ()
    combinations: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """`Q: ...` and `A: ...` lines in turn, with no newline at the end."""
        return "\n".join(f"Q: {question}\nA: {answer}" for question, answer in self.turns)


def dialogues(seed: int = SEED, split: str | None = None) -> Iterator[Dialogue]:
    """The dialogues of one split (train, validation, public, private), or of all, no two alike.

    Another seed draws other dialogues from the same combinations, for audits. Raises ValueError for a name
    that is no split.
    """
    if split is not None and split not in SIZES:
        raise ValueError(f"no split named {split!r}: expected one of {', '.join(SIZES)}")
    for name in SIZES if split is None else (split,):
        yield from _split(seed, name)


def combinations_of(split: str) -> frozenset[str]:
    """All combinations of a split, as `Dialogue.combinations` names them."""
    return frozenset(_named(c) for pools in _pools().values() for c in pools[split])


# ---- drawing


class _Draw:
    """Choices that depend on random.Random.random() alone."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def chance(self, share: float) -> bool:
        return self._random() < share

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random() * len(options))]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """Fisher-Yates: every order is as likely."""
        left = list(options)
        return [left.pop(int(self._random() * len(left))) for _ in options]


def _split(seed: int, split: str) -> Iterator[Dialogue]:
    draw = _Draw(zlib.crc32(f"tinytalks {seed} {split}".encode()))
    levels = [level for level, share in SHARES.items() for _ in range(round(share * SIZES[split]))]
    seen: set[str] = set()
    for level in draw.shuffled(levels):
        while True:
            made = _Writer(draw, split).write(level)
            size = len(made.text.encode())
            if made.text not in seen and size <= MOST_BYTES and made.combinations:
                break
        seen.add(made.text)
        yield made


# ---- combinations and the split each belongs to

_LARGEST, _SMALL, _TIMES = 40, 10, (2, 3, 5, 10)


def _named(combination: Combination) -> str:
    return " | ".join(str(part) for part in combination)


def _families() -> Iterator[tuple[str, list[Combination], list[Combination]]]:
    """Each family's name, the combinations that training must have, and those that are dealt out."""

    def split(
        name: str, parts: list[Combination], must: Callable[[Combination], bool]
    ) -> tuple[str, list[Combination], list[Combination]]:
        anchors = [(name, *part) for part in parts if must(part)]
        return name, anchors, [(name, *part) for part in parts if not must(part)]

    def free(part: Combination) -> bool:
        return False

    def first_form(part: Combination) -> bool:  # each fact is told in training, one way at least
        return part[0] == 0

    yield split("hello", list(product(range(len(words.HELLO)), words.NAMES)), free)
    yield split("feel", list(product(range(len(words.FEEL)), words.FEELINGS)), first_form)
    yield split("bye", list(product(range(len(words.BYE)), words.TIMES)), first_form)
    for relation in (*words.FACTS, *words.SENSE):
        forms = range(len(relation.forms))
        yield split(relation.name, list(product(forms, relation.pairs)), first_form)
        if relation.name not in ("parts", "when"):  # whose short question says it all again
            pairs = [(x, y) for x, y in product(relation.pairs, relation.pairs) if x != y]
            yield split(f"{relation.name}, then", list(pairs), free)
    yield split(
        "is",
        [
            (i, x, p)
            for i in range(len(words.IS_IT))
            for x, ps in words.PROPERTIES.items()
            for p in ps.split()
        ],
        first_form,
    )
    able = [(x, v) for v, sides in words.ABILITIES.items() for side in sides for x in side.split(";")]
    yield split("can", [(i, x, v) for i in range(len(words.CAN)) for x, v in able], first_form)
    for (more, _), things in sorted(_ranks().items()):
        ordered = [(i, j) for i, j in combinations(range(len(things)), 2)]
        near = {(things[i], things[j]) for i, j in ordered if j == i + 1}  # only told, never to be concluded
        pairs = [(things[i], things[j]) for i, j in ordered]
        yield split(more, list(pairs), near.__contains__)
    numbers = range(_LARGEST + 1)
    yield split("plus", [(a, b) for a in numbers for b in range(_SMALL + 1) if b <= a], free)
    yield split("minus", [(a, b) for a in numbers for b in range(_SMALL + 1) if b <= a], free)
    products = [(a, b) for a in range(13) for b in _TIMES if a * b < 100]
    yield split("times", [(a, b) for a, b in products if not (a in _TIMES and a < b)], free)
    yield split("compare", list(combinations(range(61), 2)), free)
    yield split("after", list(product(range(len(words.AFTER)), range(99))), first_form)
    yield split("before", list(product(range(len(words.BEFORE)), range(1, 100))), first_form)
    yield split("even", [(n,) for n in range(100)], free)
    yield split("count", [(a, a + d) for a in range(91) for d in (2, 3, 4, 5)], free)
    yield split("owns", list(product(words.NAMES, words.THINGS)), free)
    yield split("pet", list(product(words.PETS, words.PET_NAMES)), free)
    yield split("place", list(product(words.THINGS, words.PLACES)), free)
    yield split("number", list(product(words.NUMBERED, range(10, 100))), free)
    likes = [(kind, value) for kind, values in words.FAVORITES.items() for value in values.split()]
    yield split("likes", [(*a, *b) for a, b in combinations(likes, 2) if a[0] != b[0]], free)


@cache
def _pools() -> dict[str, dict[str, list[Combination]]]:
    """Family -> split -> its combinations. The same for every seed."""
    pools: dict[str, dict[str, list[Combination]]] = {}
    for family, anchors, rest in _families():
        dealt = _Draw(zlib.crc32(family.encode())).shuffled(rest)
        pools[family] = {}
        start = 0
        for split, share in PARTS.items():
            stop = start + max(1, round(share * len(rest)))
            pools[family][split] = dealt[start:stop]
            start = stop
        pools[family]["train"] = anchors + dealt[start:]
    return pools


@cache
def _ranks() -> dict[tuple[str, str], list[str]]:
    return {more: [" ".join(x.split()) for x in text.split(";")] for more, text in words.RANKS.items()}


@cache
def _sums(family: str, split: str) -> dict[int, list[int]]:
    """a -> every b for which (a, b) is in this split."""
    found: dict[int, list[int]] = {}
    for _, a, b in _pools()[family][split]:
        found.setdefault(int(a), []).append(int(b))
    return found


# ---- writing


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _you(text: str) -> str:
    """'I am late' as the other says it: 'you are late'."""
    text = re.sub(r"\bI am\b", "you are", text)
    return re.sub(r"\bmy\b", "your", re.sub(r"\bI\b", "you", text))


def _count(n: int, things: str) -> str:
    return f"{n} {words.COUNTED[things] if n == 1 else things}"


class _Writer:
    """One dialogue in the making: its turns, their keys, the combinations it used."""

    def __init__(self, draw: _Draw, split: str) -> None:
        self.draw, self.split = draw, split
        self.turns: list[tuple[str, str]] = []
        self.keys: list[tuple[str, ...]] = []
        self.combinations: list[str] = []

    def write(self, level: int) -> Dialogue:
        (self.greet, self.facts, self.sums, self.sense, self.recall)[level - 1]()
        return Dialogue(level, tuple(self.turns), tuple(self.keys), tuple(self.combinations))

    def take(self, family: str) -> Combination:
        """A combination of the family, without its name."""
        chosen = self.draw.pick(_pools()[family][self.split])
        self.used(chosen)
        return chosen[1:]

    def used(self, combination: Combination) -> None:
        self.combinations.append(_named(combination))

    def say(self, form: Form, key: str | tuple[str, ...] = (), **parts: object) -> None:
        """Add a turn. Without a key, what the answer adds to its question makes it right."""
        question, answer = (_capital(text.format(**parts)) for text in form)
        if any(question == asked for asked, _ in self.turns):  # nobody asks the same twice
            return
        self.turns.append((question, answer))
        keys = (key,) if isinstance(key, str) else key
        self.keys.append(tuple(k.format(**parts) for k in keys))

    # level 1

    def greet(self) -> None:
        if self.draw.chance(0.65):
            i, name = self.take("hello")
            self.say(words.HELLO[int(i)], "{n}", n=name)
        else:
            self.plain(0, 6)
        for _ in range(self.draw.pick((0, 0, 1, 1, 1, 2))):
            if self.draw.chance(0.55):
                self.feel()
            else:
                self.plain(6, 24)
        if self.draw.chance(0.4):
            i, time = self.take("bye")
            self.say(words.BYE[int(i)], "{t}", t=time)
        elif self.draw.chance(0.3):
            self.plain(24, len(words.PLAIN))
        if not self.combinations:
            self.feel()

    def plain(self, start: int, stop: int) -> None:
        self.say(self.draw.pick(words.PLAIN[start:stop]))

    def feel(self) -> None:
        i, feeling = self.take("feel")
        self.say((words.FEEL[int(i)], words.FEELINGS[str(feeling)]), f=feeling)

    # levels 2 and 4

    def facts(self) -> None:
        for _ in range(self.draw.pick((1, 1, 2, 2, 3))):
            self.fact(self.draw.pick(words.FACTS))

    def sense(self) -> None:
        for _ in range(self.draw.pick((1, 1, 2, 2, 3))):
            self.draw.pick((self.any_sense, self.any_sense, self.is_it, self.can, self.rank, self.rank))()

    def any_sense(self) -> None:
        self.fact(self.draw.pick(words.SENSE))

    def fact(self, relation: Relation) -> None:
        i, x = self.take(relation.name)
        self.say(relation.forms[int(i)], relation.key, **self.parts(relation, str(x)))

    def parts(self, relation: Relation, x: str) -> dict[str, str]:
        y = relation.pairs[x]
        return {"x": x, "y": y, "X": _capital(x), "Y": _capital(y), "x2": _you(x)}

    def is_it(self) -> None:
        i, x, p = self.take("is")
        question, yes, no = words.IS_IT[int(i)]
        really, _ = words.PROPERTIES[str(x)].split()
        right = p == really
        self.say((question, yes if right else no), ("yes" if right else "no", "is {y}"), x=x, p=p, y=really)

    def can(self) -> None:
        i, x, v = self.take("can")
        question, yes, no = words.CAN[int(i)]
        able = str(x) in words.ABILITIES[str(v)][0].split(";")
        self.say(
            (question, yes if able else no), ("yes" if able else "no", "can" if able else "cannot"), x=x, v=v
        )

    def rank(self) -> None:
        more, less = self.draw.pick(sorted(words.RANKS))
        low, high = self.take(more)
        asked, wanted = self.draw.pick(((more, high), (less, low)))
        a, b = self.draw.shuffled((low, high))
        form = self.draw.pick(words.RANK)
        self.say(form, "{w}", a=a, b=b, r=asked, w=wanted, W=_capital(str(wanted)))

    # level 3

    def sums(self) -> None:
        tasks = (
            self.plus,
            self.plus,
            self.plus,
            self.minus,
            self.minus,
            self.minus,
            self.times,
            self.compare,
        )
        more = (self.after, self.before, self.even, self.count)
        for _ in range(self.draw.pick((1, 1, 2, 2, 3))):
            self.draw.pick(tasks + more)()

    def plus(self) -> None:
        a, b = (int(n) for n in self.take("plus"))
        if min(a, b) > 0 and self.draw.chance(0.3):
            return self.story(words.PLUS_STORIES, a, b, a + b)
        a, b = self.draw.shuffled((a, b))
        self.say(self.draw.pick(words.PLUS), "is {c}", a=a, b=b, c=a + b)

    def minus(self) -> None:
        a, b = (int(n) for n in self.take("minus"))
        if b > 0 and self.draw.chance(0.3):
            return self.story(words.MINUS_STORIES, a, b, a - b)
        self.say(self.draw.pick(words.MINUS), "is {c}", a=a, b=b, c=a - b)

    def story(self, forms: Sequence[Form], a: int, b: int, c: int) -> None:
        s = self.draw.pick(sorted(words.COUNTED))
        name = self.draw.pick(words.NAMES)
        self.say(self.draw.pick(forms), "{C}", A=_count(a, s), b=b, C=_count(c, s), s=s, n=name)

    def times(self) -> None:
        a, b = self.draw.shuffled([int(n) for n in self.take("times")])
        self.say(self.draw.pick(words.TIMES_FORMS), "is {c}", a=a, b=b, c=a * b)

    def compare(self) -> None:
        low, high = self.take("compare")
        asked, wanted = self.draw.pick((("bigger", high), ("smaller", low)))
        a, b = self.draw.shuffled((low, high))
        self.say(self.draw.pick(words.BIGGER), "{w}", a=a, b=b, r=asked, w=wanted)

    def after(self) -> None:
        i, n = self.take("after")
        self.say(words.AFTER[int(i)], "comes {b}", a=n, b=int(n) + 1)

    def before(self) -> None:
        i, n = self.take("before")
        self.say(words.BEFORE[int(i)], "comes {b}", a=n, b=int(n) - 1)

    def even(self) -> None:
        (n,) = self.take("even")
        self.say(self.draw.pick(words.EVEN), "{y}", a=n, y="odd" if int(n) % 2 else "even")

    def count(self) -> None:
        a, b = (int(n) for n in self.take("count"))
        self.say(self.draw.pick(words.COUNT), "{c}", a=a, b=b, c=", ".join(str(n) for n in range(a, b + 1)))

    # level 5

    def recall(self) -> None:
        self.draw.pick(
            (self.owner, self.two_owners, self.place, self.number, self.change, self.chain, self.and_then,
             self.and_then, self.likes, self.more, self.pet)
        )()  # fmt: skip

    def aside(self) -> None:
        """Nothing, or a turn or two about something else."""
        for _ in range(self.draw.pick((0, 0, 1, 1, 2))):
            self.draw.pick((self.any_fact, self.any_fact, self.feel, self.plus, self.any_sense))()

    def any_fact(self) -> None:
        self.fact(self.draw.pick(words.FACTS))

    def owner(self) -> None:
        name, thing = self.take("owns")
        self.say(self.draw.pick(words.OWNER), "{n}", n=name, t=thing)
        self.aside()
        asks = [(form, "{n}") for form in words.ASK_NAME] + [(form, "{t}") for form in words.ASK_THING]
        for form, key in self.draw.shuffled(asks)[: self.draw.pick((1, 1, 2))]:
            self.say(form, key, n=name, t=thing)

    def two_owners(self) -> None:
        first = self.take("owns")
        second = self.unlike("owns", first)
        for name, thing in (first, second):
            self.say(self.draw.pick(words.OTHERS), n=name, t=thing)
        self.aside()
        asks = [(pair, form) for pair in (first, second) for form in words.ASK_OTHERS]
        for (name, thing), form in self.draw.shuffled(asks)[: self.draw.pick((1, 1, 2))]:
            self.say(
                form, "{n} has the {t}" if form is words.ASK_OTHERS[0] else "{n} has a {t}", n=name, t=thing
            )

    def unlike(self, family: str, first: Combination) -> Combination:
        """A second combination that shares no part with the first."""
        while True:
            chosen = self.draw.pick(_pools()[family][self.split])
            if not set(chosen[1:]) & set(first):
                self.used(chosen)
                return chosen[1:]

    def place(self) -> None:
        thing, place = self.take("place")
        self.say(self.draw.pick(words.PLACED), t=thing, p=place)
        if self.draw.chance(0.4):
            other, elsewhere = self.unlike("place", (thing, place))
            self.say(self.draw.pick(words.PLACED), t=other, p=elsewhere)
        others = [c for c in _pools()["place"][self.split] if c[1] == thing and c[2] != place]
        if others and self.draw.chance(0.3):
            moved = self.draw.pick(others)
            self.used(moved)
            place = moved[2]
            self.say(self.draw.pick(words.MOVED), t=thing, p=place)
        self.aside()
        self.say(self.draw.pick(words.ASK_PLACE), "{p}", t=thing, p=place)

    def number(self) -> None:
        item, k = self.take("number")
        told = [(item, k)]
        if self.draw.chance(0.5):
            other, second = self.unlike("number", (item, k))
            told.append((other, second))
        for i, n in told:
            self.say(self.draw.pick(words.NUMBER_TOLD), i=i, k=n)
        self.aside()
        for i, n in self.draw.shuffled(told)[: self.draw.pick((1, 1, 2))]:
            self.say(self.draw.pick(words.ASK_NUMBER), "{k}", i=i, k=n)

    def change(self) -> None:
        """A number of things told, and then some more or fewer of them, once or twice."""
        family = self.draw.pick(("plus", "minus"))
        a, b = (int(n) for n in self.take(family))
        s, name = self.draw.pick(sorted(words.COUNTED)), self.draw.pick(words.NAMES)
        self.say(self.draw.pick(words.SOME), "{A}", A=_count(a, s), s=s)
        self.aside()
        for _ in range(2):
            form = self.draw.pick(words.MORE if family == "plus" else words.FEWER)
            a = a + b if family == "plus" else a - b
            self.say(form, "{C}", b=b, s=s, n=name, C=_count(a, s))
            onward = _sums(family, self.split).get(a)
            if not onward or self.draw.chance(0.5):
                break
            b = self.draw.pick(onward)
            self.used((family, a, b))

    def chain(self) -> None:
        """A sum, and another with what came out."""
        family = self.draw.pick(("plus", "minus"))
        onward = _sums(family, self.split)
        sign = 1 if family == "plus" else -1
        starts = [(a, b) for a in sorted(onward) for b in onward[a] if a + sign * b in onward]
        a, b = self.draw.pick(starts)
        forms = words.PLUS if family == "plus" else words.MINUS
        for turn in range(3):
            self.used((family, a, b))
            c = a + sign * b
            form = self.draw.pick(forms) if turn == 0 else (f"And {family} {{b}}?", forms[0][1])
            self.say(form, "is {c}", a=a, b=b, c=c)
            if c not in onward or (turn and self.draw.chance(0.6)):
                break
            a, b = c, self.draw.pick(onward[c])

    def and_then(self) -> None:
        """A question, and a short one that only the first explains."""
        families = [family for family in _pools() if family.endswith(", then")]
        family = self.draw.pick(families)
        relation = next(r for r in (*words.FACTS, *words.SENSE) if family == f"{r.name}, then")
        first, second = (str(x) for x in self.take(family))
        self.say(relation.forms[0], relation.key, **self.parts(relation, first))
        short = (relation.short, relation.forms[1 if relation.name == "advice" else 0][1])
        self.say(short, relation.key, **self.parts(relation, second))
        onward = [c for c in _pools()[family][self.split] if c[1] == second and c[2] != first]
        if onward and self.draw.chance(0.4):
            third = self.draw.pick(onward)
            self.used(third)
            self.say(short, relation.key, **self.parts(relation, str(third[2])))

    def likes(self) -> None:
        kind, value, other, second = self.take("likes")
        told = self.draw.shuffled(((kind, value), (other, second)))
        for k, v in told:
            self.say(self.draw.pick(words.LIKES), "{v}", k=k, v=v)
        self.aside()
        for k, v in self.draw.shuffled(told)[: self.draw.pick((1, 1, 2))]:
            self.say(self.draw.pick(words.ASK_LIKES), "{v}", k=k, v=v)

    def more(self) -> None:
        """Two people have so many things each: who has more of them?"""
        low, high = (int(n) for n in self.take("compare"))
        names = self.draw.shuffled(words.NAMES)[:2]
        s = self.draw.pick(sorted(words.COUNTED))
        for name, n in self.draw.shuffled(list(zip(names, (low, high), strict=True))):
            self.say(words.HAS, n=name, A=_count(n, s))
        self.aside()
        i = self.draw.pick((0, 1))
        self.say(words.ASK_MORE[i], "{n}", n=names[1 - i], s=s)

    def pet(self) -> None:
        pet, name = self.take("pet")
        self.say(self.draw.pick(words.PET), "{n}", p=pet, n=name)
        if self.draw.chance(0.5):
            other, second = self.unlike("pet", (pet, name))
            self.say(self.draw.pick(words.PET), "{n}", p=other, n=second)
        self.aside()
        i = self.draw.pick((0, 1, 2))
        self.say(words.ASK_PET[i], "{p}" if i == 2 else "{n}", p=pet, n=name)
