"""Wrong solutions of 10_tokenization."""

from tests.mutants import Mutant

MUTANTS = [
    Mutant("char-unsorted", "char-train", "sorted(set(text))", "dict.fromkeys(text)", "order of appearance"),
    Mutant("char-unknown-is-zero", "char-encode", "self.index[c]", "self.index.get(c, 0)", "hides unknown"),
    Mutant("char-no-check", "char-decode", "check_ids(ids, self.vocab_size)", "ids", "-1 is the last id"),
    Mutant(
        "bytes-ignore", "to-bytes", 'text.encode("utf-8")', 'text.encode("utf-8", "ignore")', "loses text"
    ),
    Mutant("bytes-latin", "to-bytes", '"utf-8"', '"utf-16-le"', "another encoding"),
    Mutant("pairs-once-a-piece", "count-pairs", "+= n", "+= 1", "ignores how often a piece occurs"),
    Mutant("best-largest", "best-pair", "return min(", "return max(", "the largest of a tie"),
    Mutant("best-single", "best-pair", "most < 2", "most < 1", "learns pairs that occur once"),
    Mutant("merge-overlap", "merge-pair", "i += 2", "i += 1", "uses the second id twice"),
    Mutant("naive-wrong-id", "learn-naive", "256 + len(merges)", "257 + len(merges)", "ids one too high"),
    Mutant(
        "enter-keeps-zero", "enter-pairs", "if counts[pair] == 0:", "if counts[pair] < 0:", "never deletes"
    ),
    Mutant("enter-always-where", "enter-pairs", "if n > 0:", "if n != 0:", "notes pieces that leave"),
    Mutant("learn-not-weighted", "learn-merges", "-times[k]", "-1", "takes out one occurrence only"),
    Mutant("table-swapped", "token-table", "table[a] + table[b]", "table[b] + table[a]", "parts swapped"),
    Mutant(
        "encode-highest-first",
        "encode-chunk",
        "rank.get(pair, math.inf)",
        "-rank.get(pair, -1)",
        "wrong order",
    ),
    Mutant(
        "encode-shares-cache",
        "bpe-encode",
        "encode_chunk(to_bytes(chunk), self.rank)",
        "to_bytes(chunk)",
        "bytes",
    ),
    Mutant("decode-strict", "bpe-decode", 'errors="replace"', 'errors="strict"', "stops at half a character"),
    Mutant("json-type", "as-json", '"type": "bpe"', '"type": "char"', "wrong type"),
    Mutant("json-any-format", "from-json", "version != 1", "version is None", "reads every format"),
    Mutant(
        "json-any-list",
        "from-json",
        "not isinstance(found[name], list)",
        "found[name] is None",
        "a text as list",
    ),
    Mutant("bits-in-nats", "bits-per-byte", "math.log(2) * n_bytes", "n_bytes", "nats, not bits"),
]
