"""What tables of characters reach on TinyTalks, in bits per byte: floor and gate of the language track.

    python benchmarks/ngram.py

Each order mixes the tables of all shorter ones, from uniform up, by the rule of I. Witten and T. Bell (1991).
"""

import math
from collections import Counter, defaultdict

from autograder.data.datasets import load_text

CHARACTERS = 128  # of ASCII; TinyTalks has no other


def main() -> None:
    train, held_out = load_text("tinytalks", "train").dialogues, load_text("tinytalks", "private").dialogues
    for order in (1, 2, 4, 6, 9):
        print(f"order {order}: {bits_per_byte(order, train, held_out[:150]):.3f} bits/byte", flush=True)


def bits_per_byte(order, train, held_out):
    """Bits of each character after the `order` before it, the ends of a dialogue among them, over bytes."""
    tables = [defaultdict(Counter) for _ in range(order + 1)]
    for text in ends(train):
        for i in range(1, len(text)):
            for k in range(min(order, i) + 1):
                tables[k][text[i - k : i]][text[i]] += 1
    bits = 0.0
    for text in ends(held_out):
        for i in range(1, len(text)):
            chance = 1 / CHARACTERS
            for k in range(min(order, i) + 1):
                counts = tables[k].get(text[i - k : i])
                if counts is None:
                    break
                total, kinds = sum(counts.values()), len(counts)
                chance = (counts[text[i]] + kinds * chance) / (total + kinds)
            bits -= math.log2(chance)
    return bits / sum(len(dialogue.text.encode()) for dialogue in held_out)


def ends(dialogues):
    """Each text between two end characters."""
    return ["\0" + dialogue.text + "\0" for dialogue in dialogues]


if __name__ == "__main__":
    main()
