"""Wrong solutions of 10_tokenization."""

from tests.mutants import Mutant

MUTANTS = [
    Mutant("char-skips-unknown", "char-tokenizer", "return [self.index[c] for c in text]", "pass", "no ids"),
    Mutant("char-no-name", "char-tokenizer", "{c!r}, the", "?, the", "the error names no character"),
    Mutant("char-no-end", "char-tokenizer", "(self.characters + [END])[i]", "self.characters[i]", "no end"),
    Mutant("pairs-not-weighted", "count-pairs", "+= n", "+= 1", "a word's count is not used"),
    Mutant(
        "pairs-once-a-word",
        "count-pairs",
        "zip(word, word[1:], strict=False)",
        "set(zip(word, word[1:]))",
        "",
    ),
    Mutant("pairs-overwritten", "count-pairs", "+= n", "= n", "the last word wins"),
    Mutant("merge-overlaps", "merge", "i += 2", "i += 1", "an id is used twice"),
    Mutant(
        "merge-first-only", "merge", "out.append(new)", "return word[:i] + (new,) + word[i + 2 :]", "once"
    ),
    Mutant("merge-first-id", "merge", "== pair", "[:1] == pair[:1]", "looks at one id"),
    Mutant(
        "train-ties-large", "train-merges", "(-pairs[p], p)", "(-pairs[p], -p[0], -p[1])", "the larger pair"
    ),
    Mutant("train-ties-first-seen", "train-merges", "(-pairs[p], p)", "-pairs[p]", "ties by luck"),
    Mutant("train-rarest", "train-merges", "(-pairs[p], p)", "(pairs[p], p)", "the rarest pair"),
    Mutant(
        "encode-leftmost", "encode-word", "ranks.get(p, len(ranks))", "p not in ranks", "leftmost, not lowest"
    ),
    Mutant("encode-highest", "encode-word", "ranks.get(p, len(ranks))", "-ranks.get(p, -1)", "highest rank"),
    Mutant(
        "encode-once", "encode-word", "256 + ranks[pair])", "256 + ranks[pair])\n        break", "one merge"
    ),
    Mutant(
        "tokens-swapped",
        "bpe-tokenizer",
        "self.tokens[a] + self.tokens[b]",
        "self.tokens[b] + self.tokens[a]",
        "",
    ),
    Mutant(
        "decode-each",
        "bpe-tokenizer",
        'b"".join(self.tokens[i] for i in ids).decode("utf-8", errors="replace")',
        '"".join(self.tokens[i].decode("utf-8", errors="replace") for i in ids)',
        "characters are cut",
    ),
    Mutant("decode-strict", "bpe-tokenizer", ', errors="replace"', "", "half a character raises"),
    Mutant(
        "encode-first-time-only",
        "bpe-tokenizer",
        "ids.extend(self.known[chunk])",
        "    ids.extend(self.known[chunk])",
        "",
    ),
    Mutant("valid-own-id", "valid-merges", "i < 256 + k", "i <= 256 + k", "a merge may use itself"),
    Mutant("valid-bytes-only", "valid-merges", "i < 256 + k", "i < 256", "merges of merges are refused"),
    Mutant("valid-negative", "valid-merges", "0 <= i", "-9 <= i", "negative ids"),
    Mutant("valid-true", "valid-merges", "type(i) is int", "isinstance(i, int)", "true is an id"),
]
