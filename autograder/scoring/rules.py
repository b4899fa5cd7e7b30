"""The rules of the four tracks, in one table: notebooks, handbook, command line and scorer all read it.

MB is 10^6 bytes, counted on the file. A ramp maps a measured figure to 0..1 through fixed published points,
so a newcomer never moves another's score.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

MB = 1_000_000
CODE_BYTES = 400_000  # code beyond this counts as model; the reference package of 19 modules has 267 KB
ANSWER = 100_000  # characters of one answer in a notebook, a report for instance
DIMENSIONS = ("accuracy", "speed", "size", "quality", "innovation")
POINTS = {"accuracy": 40, "speed": 20, "size": 20, "quality": 10, "innovation": 10}
COURSE_GRADE = {
    "working implementation": 40,
    "technical report": 30,
    "code quality": 20,
    "leaderboard rank": 10,
}
FRAMEWORKS = (
    "PyTorch",
    "TensorFlow",
    "JAX",
)  # not in a submission: the sandbox has none, an import is reported


@dataclass(frozen=True)
class Ramp:
    """Four published points of one dimension; linear between them, in the figure or in its logarithm.

    floor earns 0, gate, record and reference earn what stands beside them. Where a smaller figure is better
    (size) the points fall instead of rise. marks: what the middle two are called when points are lost.
    """

    unit: str
    floor: float
    gate: tuple[float, float]
    record: tuple[float, float]
    reference: tuple[float, float]
    logarithmic: bool = False
    marks: tuple[str, str] = ("the half-way mark of", "the record of")

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """(figure, score) pairs from worst to best."""
        return ((self.floor, 0.0), self.gate, self.record, self.reference)


@dataclass(frozen=True)
class Limits:
    """What a submission may use; a submission that breaks one is INVALID."""

    training_s: float = 7200.0
    file_bytes: int = 50 * MB
    code_bytes: int = 4 * MB  # more is not code; below, CODE_BYTES are free and the rest counts as model
    memory_bytes: int = 4_000 * MB  # the worker and all it starts
    processes: int = 16
    threads: int = 256
    answer_s: float = 120.0  # one batch
    wall_s: float = 900.0  # loading, all measurements and audits


@dataclass(frozen=True)
class Audit:
    """When a model that was trained again by its own script is as good as the one that was handed in.

    tolerance: how much worse the track's metric may be, in its own unit, or as a share of it where relative.
    time_factor: training.json's seconds and the measured ones may differ by so much, and by time_slack_s for
    starting and reading data. size_factor: how much larger the file may be.
    """

    tolerance: float
    relative: bool = False
    time_factor: float = 3.0
    time_slack_s: float = 60.0
    size_factor: float = 1.05


# What an audit allows.
#   pictures   at 90% accuracy on the 5,000 private pictures of CIFAR-10 a figure has a standard error of 0.42
#              points, the difference of two 0.6: 1.5 points are 2.5 of these, and less than the 2 points from
#              the gate of vision to its record. On the 250 private digits they are 3 pictures.
#   text       3% of the bits per byte: as much as the last three of 24 epochs brought the course's entry
#              (course/entries/language/train.log). Of the baseline's accuracy that is kept: 2 points of 100.
#   time       one machine, shared with others, took 169 s and 476 s for epochs of the same work
#              (course/entries/compression/training.json): a factor of 3 is the weather, more is not.
#   size       the same script writes the same arrays; pruned ones may differ in how many are left.
_AUDIT_PICTURES = Audit(0.015)
_AUDIT_TEXT = Audit(0.03, relative=True)
_AUDIT_KEPT = Audit(0.02)


@dataclass(frozen=True)
class Track:
    """One Olympic track. `gate` and `record` are texts to print; the numbers of the ramps are the rule."""

    name: str
    title: str
    task: str
    gate: str
    record: str
    limit_text: str
    datasets: tuple[str, ...]
    limits: Limits
    points: Mapping[str, int]
    ramps: Mapping[str, Mapping[str, Ramp]]  # dataset -> dimension -> ramp
    audit: Audit
    ranking: str
    measure: str = "pictures"  # what is done with an entry: a key of tracks.MEASURES
    given: str = ""  # the course entry whose model everybody starts from, course/entries/<given>
    metric: str = "accuracy"  # what the accuracy dimension is measured by, a key of Result.metrics
    rate: str = "images_per_second"  # what the speed dimension is measured by
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # dataset -> split -> accuracy
    checkpoint: str = ""  # SHA-256 of the given model file, for the closed division
    checkpoint_parameters: int = 0
    text: bool = False  # a language model, with tokenizer.json beside it
    one_tokenizer: bool = False  # the reference entry's is everybody's
    gates: Mapping[str, float] = field(default_factory=dict)  # metric -> least value, beside the ramp's gate
    divisions: tuple[str, ...] = ("open",)
    machine_class: str = "two x86-64 cores, no GPU"
    batch: int = 250
    notes: tuple[str, ...] = field(default=())

    def dataset(self, wanted: str) -> str:
        """The data set a track is scored on where `wanted` is asked for: that one, if the track knows it."""
        return wanted if wanted in self.datasets else self.datasets[0]


_GATE = ("the gate of", "the record of")

# Vision on CIFAR-10.
#   accuracy   chance is 10%. 80% is the gate and 82% the record to beat of the course's seed rules. 94% is
#              what networks of three convolution groups and 2 M parameters are known to reach when trained
#              well (K. Jordan, 94% on CIFAR-10 in 3.29 seconds, 2024); full marks need one as good as that.
#   speed      images/s of the whole worker at batch 250. That network costs 118 M multiply-adds a picture:
#              some hundred images/s are what good NumPy code gets out of two cores. Ten times less arithmetic
#              is the record, and 5,000 images/s take a network designed for speed. Below 20 images/s the
#              private half alone would take more than four minutes.
#   size       50 MB is the limit, 8 MB the anchor network in float32, 2 MB the same in 8 bits; 0.2 MB (50,000
#              float32 weights or 200,000 in 8 bits) is very small for this task.
_CIFAR10 = {
    "accuracy": Ramp("share", 0.10, (0.80, 0.70), (0.82, 0.75), (0.94, 1.0), marks=_GATE),
    "speed": Ramp("images/s", 20.0, (200.0, 0.5), (1000.0, 0.75), (5000.0, 1.0), logarithmic=True),
    "size": Ramp("bytes", 50.0 * MB, (8.0 * MB, 0.5), (2.0 * MB, 0.75), (0.2 * MB, 1.0), logarithmic=True),
}
# Vision on digits, the offline stand-in: a linear classifier reaches about 95% there, a small convolutional
# network 98-99%, in a few kilobytes; so the same shape of ramp sits higher and smaller.
_DIGITS = {
    "accuracy": Ramp("share", 0.10, (0.90, 0.70), (0.96, 0.85), (0.99, 1.0), marks=_GATE),
    "speed": Ramp("images/s", 50.0, (500.0, 0.5), (3000.0, 0.75), (15000.0, 1.0), logarithmic=True),
    "size": Ramp("bytes", 50.0 * MB, (1.0 * MB, 0.5), (0.2 * MB, 0.75), (0.02 * MB, 1.0), logarithmic=True),
}

# Compression, on the pictures of vision.
#   accuracy   points lost from the baseline: the given network, course/entries/vision, on the same split.
#              Less than 3 points pass the gate, 1 point is a good compression, none at all earns full marks.
#   size       10 MB is the limit, 8.2 MB (at 92%) the record of the course's seed rules. The published
#              frontier of CIFAR-10 begins at 0.07 MB of weights: ResNet-20 in 2 bits, 90.96% (Y. Li, X. Dong,
#              W. Wang, Additive Powers-of-Two Quantization, 2020). Half-way stands 1 MB: the given network
#              of 2 M weights in 4 bits each.
#   speed      as in vision.
# The stand-in digits keeps the shape: its baseline is set to 97%, above a linear classifier's 95%.
_LOST = Ramp("points lost", 0.13, (0.03, 0.70), (0.01, 0.90), (0.0, 1.0), marks=_GATE)
_COMPRESSION_CIFAR10 = {
    "accuracy": _LOST,
    "speed": _CIFAR10["speed"],
    "size": Ramp(
        "bytes", 10.0 * MB, (8.2 * MB, 0.2), (1.0 * MB, 0.5), (0.07 * MB, 1.0), logarithmic=True,
        marks=("the record to beat of", "the half-way mark of"),
    ),
}  # fmt: skip
_COMPRESSION_DIGITS = {
    "accuracy": _LOST,
    "speed": _DIGITS["speed"],
    "size": Ramp("bytes", 10.0 * MB, (1.0 * MB, 0.2), (0.1 * MB, 0.5), (0.005 * MB, 1.0), logarithmic=True),
}

# Speed, on TinyTalks.
#   accuracy   share of the baseline's next-token accuracy that is kept: 95% is the gate of the course's seed
#              rules, all of it earns full marks.
#   speed      tokens/s offline, 16 texts at once. 100 tokens/s are the gate and 250 the record of the seed
#              rules. 12,000 are what the course's entry reaches; 10 what a model without a cache does.
#   size       4 MB is the anchor network (0.9 M weights) in float32, 1 MB the same in 8 bits, 0.25 MB in 2.
_MORE_THAN_95 = math.nextafter(0.95, 1.0)  # exactly 95% is not more
_KEPT = Ramp("kept", 0.80, (_MORE_THAN_95, 0.70), (0.98, 0.90), (1.0, 1.0), marks=_GATE)
_TOKENS = Ramp("tokens/s", 10.0, (100.0, 0.35), (250.0, 0.55), (12000.0, 1.0), logarithmic=True, marks=_GATE)
_TEXT_SIZE = Ramp("bytes", 50.0 * MB, (4.0 * MB, 0.5), (1.0 * MB, 0.75), (0.25 * MB, 1.0), logarithmic=True)
# Language, on TinyTalks.
#   accuracy   bits per byte. A table of what follows two characters needs 2.2; mixing tables of up to six
#              characters 0.85 (`python benchmarks/ngram.py` prints both): a transformer has to beat that.
#              0.30 is what the course's entry reaches, a GPT of a million weights after 43 minutes.
#   speed, size   as in speed.
_LANGUAGE = {
    "accuracy": Ramp("bits/byte", 2.2, (0.85, 0.70), (0.60, 0.85), (0.30, 1.0), marks=_GATE),
    "speed": _TOKENS,
    "size": _TEXT_SIZE,
}
_SPEED = {"accuracy": _KEPT, "speed": _TOKENS, "size": _TEXT_SIZE}

TRACKS: Mapping[str, Track] = {
    "vision": Track(
        name="vision",
        title="Vision",
        task="Classify CIFAR-10 pictures with a network of your own Conv2d: top-1 accuracy",
        gate="accuracy of at least 80%",
        record="82% accuracy",
        limit_text="trains in under 2 h, model file under 50 MB",
        datasets=("cifar10", "digits"),
        limits=Limits(),
        points=POINTS,
        ramps={"cifar10": _CIFAR10, "digits": _DIGITS},
        audit=_AUDIT_PICTURES,
        ranking="score, then accuracy",
        notes=(
            "Pictures reach the model as float32 (N, 3, 32, 32) in 0..1; normalise them inside the model.",
            "Below the accuracy gate, speed and size count only in the share of the gate that was reached.",
            "Code beyond 400 KB counts as model.",
        ),
    ),
    "language": Track(
        name="language",
        title="Language",
        task="Generate TinyTalks dialogues with a context of 512 tokens: bits per byte on held-out dialogues",
        gate="below 0.85 bits a byte (a perplexity of 1.8), and answers marked 0.5 or more by the rubric",
        record="the course's reference entry",
        limit_text="your own attention and transformer; trains in under 2 h, model file under 50 MB",
        datasets=("tinytalks",),
        limits=Limits(wall_s=1800.0),
        points=POINTS,
        ramps={"tinytalks": _LANGUAGE},
        audit=_AUDIT_TEXT,
        ranking="score, then bits per byte",
        measure="text",
        metric="bits_per_byte",
        rate="tokens_per_second",
        gates={"rubric": 0.5},
        text=True,
        batch=16,
        notes=(
            "The scorer encodes the text with your tokenizer.json and shows one token after the other; "
            "before each it reads your model's distribution. Its bits are added, over the bytes of the text.",
            "The rubric marks greedy answers by rule: coherence 0.5, relevance 0.25, fluency 0.25.",
            "Below a gate, speed and size count only in the share of the gate that was reached.",
            "Speed is tokens/s over 16 prompts at once, as in the speed track; it pays to keep a cache.",
            "Audits: dialogues of a second, secret seed; timed tokens are the model's own greedy ones; known "
            "prompts are not faster.",
            "tokenizer.json counts as model, and so does code beyond 400 KB.",
        ),
    ),
    "speed": Track(
        name="speed",
        title="Speed",
        task="Most transformer tokens a second",
        gate="at least 100 tokens/s, and more than 95% of the baseline's accuracy",
        record="250 tokens/s",
        limit_text="CPU, any number of threads; trains in under 2 h, model file under 50 MB",
        datasets=("tinytalks",),
        limits=Limits(),
        points=POINTS,
        ramps={"tinytalks": _SPEED},
        audit=_AUDIT_KEPT,
        ranking="score, then tokens/s",
        measure="speed",
        given="speed",
        metric="retention",
        rate="tokens_per_second",
        gates={"tokens_per_second": 100.0},
        text=True,
        one_tokenizer=True,
        divisions=("closed", "open"),
        batch=16,
        notes=(
            "Offline: 16 unseen prompts of 64 tokens, 64 greedy tokens after each; this rate is ranked.",
            "Single stream: one prompt at a time; p50 and p90 of the seconds a token, timed on arrival.",
            "Accuracy is the share kept of the baseline's next-token accuracy, read token by token. The "
            "baseline is the course's entry, timed in turn with yours; its tokenizer is everybody's.",
            "Below the accuracy gate, speed and size count only in the share of the gate that was reached.",
            'training.json declares the division. Closed: {"division": "closed", "checkpoint": SHA-256 of '
            "the course's model file}; checked are that hash and that the model has no more parameters.",
            "Audits: timed tokens are the model's own greedy ones, known prompts are not faster, a second "
            "secret seed, counts of tokens.",
        ),
    ),
    "compression": Track(
        name="compression",
        title="Compression",
        task="The smallest model that still competes, on the pictures of vision",
        gate="under 10 MB, and less than 3 points of accuracy below the baseline",
        record="8.2 MB at 92%",
        limit_text="runs on a CPU, model file under 10 MB, trains in under 2 h",
        datasets=("cifar10", "digits"),
        limits=Limits(file_bytes=10 * MB - 1),
        points=POINTS,
        ramps={"cifar10": _COMPRESSION_CIFAR10, "digits": _COMPRESSION_DIGITS},
        audit=_AUDIT_PICTURES,
        ranking="score, then the size of the file",
        given="vision",
        metric="accuracy_lost",
        baselines={
            "cifar10": {"test": 0.8966, "public": 0.8948, "private": 0.8984},
            "digits": {"test": 0.97, "public": 0.97, "private": 0.97},
        },
        checkpoint="1d82ddd29c332413d713deffdc11bd6e965e356446eec74d364c668797a67e7e",
        checkpoint_parameters=1_971_352,
        divisions=("closed", "open"),
        notes=(
            "The baseline is the given network, course/entries/vision, on the same split.",
            "Below the accuracy gate, speed and size count only in the share of the gate that was reached.",
            'training.json declares the division. Closed: {"division": "closed", "checkpoint": SHA-256 of '
            "the given model file}; network and weights are derived from that file, fine-tuning allowed.",
            "Checked in closed: the declared hash is the given file's, and the model has no more parameters "
            "than it. How the weights came about is a matter of audit. Open: any network, any training.",
            "Code beyond 400 KB counts as model.",
        ),
    ),
}


def track(name: str) -> Track:
    """The rules of a track; raises ValueError for a name that is none."""
    if name not in TRACKS:
        raise ValueError(f"no track {name!r}: expected one of {', '.join(TRACKS)}")
    return TRACKS[name]


# What of a track's rules a figure or its points depend on; the rest is text, or a matter of audits.
_DECIDE = (
    "limits", "points", "ramps", "metric", "rate", "baselines", "checkpoint", "checkpoint_parameters",
    "one_tokenizer", "gates", "divisions", "batch",
)  # fmt: skip


def dimension_of(name: str) -> str | None:
    """The dimension that a track's grade cell stands for, by its grade_id."""
    return next((dimension for dimension in DIMENSIONS if dimension in name), None)


def fingerprint(rule: Track) -> dict[str, str]:
    """Part of the track's rules: hash of it; two results compare where all of them are the same."""
    table = asdict(rule)
    return {part: short_hash(table[part]) for part in _DECIDE}


def short_hash(value: object) -> str:
    """The first 16 digits of the SHA-256 of a value of plain JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
