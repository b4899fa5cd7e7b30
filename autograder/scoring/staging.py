"""A submission's folder: checked on bytes before anything runs; what may run is copied to a clean one."""

import json
import math
import os
import shutil
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder import paths
from autograder.data import tokenizer as tokenizers
from autograder.scoring import rules

MODEL_NAMES = ("model.safetensors", "model.pt")
TOKENIZER = "tokenizer.json"
SCRIPT = "train.py"  # what an audit runs again
REPOSITORY = paths.LIBRARY
_MOST_FILES = 2000
_MOST_JSON = 10 * rules.MB
_MOST_HEADER = 10 * rules.MB
_DEEPEST = 20  # folders in folders
_MOST_NAMES = 64_000  # bytes of all names of code together
_LONGEST = 1000  # bytes of a path inside the submission


class Invalid(Exception):
    """A broken rule; the message is the reason."""


@dataclass(frozen=True)
class Staged:
    """What may run, in a clean folder, and what the folder says of itself."""

    folder: Path
    model: Path
    size_bytes: int
    training_seconds: float | None  # None: nobody kept the time, and train.py is there for an audit to time
    division: str
    tokenizer: tokenizers.Tokenizer | None = None  # of a text track


def stage(source: Path, target: Path, rule: rules.Track) -> Staged:
    """Copy what may run into a clean folder: the model, network.py and the Python files of tinytorch/.

    The worker sees nothing else, so that all it could use has been counted.
    """
    most = rule.limits.file_bytes
    _refuse_links(source)
    name = _model_name(source)
    if not (source / "tinytorch").is_dir():
        raise Invalid("the folder tinytorch/ is missing: run `tito olympics submit` to pack it")
    target.mkdir()
    content = _content(source / name, most, f"the limit is {most / rules.MB:g} MB")
    check_model(name, content)
    (target / name).write_bytes(content)
    code = _copy_code(source, target, rule.limits.code_bytes)
    size = len(content) + max(0, code - rules.CODE_BYTES)
    words = _tokenizer(source, target) if rule.text else None
    size += (target / TOKENIZER).stat().st_size if rule.text else 0
    if size >= most:  # the page's limits are strict: less than
        raise Invalid(
            f"model and surplus code have {size / rules.MB:.1f} MB: less than {most / rules.MB:g} asked"
        )
    seconds, division = _training(source / "training.json", rule)
    return Staged(target, target / name, size, seconds, division, words)


def _model_name(source: Path) -> str:
    """The name of the one model file; raises Invalid for none, and for two."""
    models = [name for name in MODEL_NAMES if os.path.lexists(source / name)]
    if not models:
        raise Invalid(f"there is no model file: expected {MODEL_NAMES[0]}, written by tinytorch.save")
    if len(models) > 1:
        raise Invalid(f"there are two model files, {' and '.join(models)}: keep one")
    return models[0]


def _copy_code(source: Path, target: Path, most: int) -> int:
    """Copy network.py and the Python files of tinytorch/, at most so many bytes; says how many there are."""
    code = names = 0
    packed = [path for path in sorted((source / "tinytorch").rglob("*.py")) if path.is_file()]
    own = [source / "network.py"] if os.path.lexists(source / "network.py") else []
    for path in (*own, *packed):
        inside = path.relative_to(source)
        if not str(inside).isprintable():
            raise Invalid(f"{str(inside)!r} is no name for a file of code: use printable characters")
        text = _content(path, most - code, "there is too much code in the submission")
        code += len(text)
        names += len(os.fsencode(inside))
        if names > _MOST_NAMES:  # names can hold weights, too
            raise Invalid(f"the names of the code's files have more than {_MOST_NAMES // 1000} KB together")
        copy = target / inside
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(text)
    return code


def entry_folder(track: str) -> Path:
    """The course's own entry of a track: in the repository, or what of it an install holds."""
    for place in (REPOSITORY / "course" / "entries", paths.ENTRIES[1]):
        if (place / track).is_dir():
            return place / track
    return REPOSITORY / "course" / "entries" / track


def course_entry(track: str, target: Path, package: Path | None = None) -> Path:
    """Put the course's own entry of a track together in `target`, as a submission is. Raises ValueError.

    It runs on the reference tinytorch; on `package` where this machine has none, as a student's has not.
    """
    entry, reference = entry_folder(track), REPOSITORY / "tinytorch"
    package = reference if reference.is_dir() or package is None else package
    needed = ("model.safetensors", "training.json")  # and network.py where the network is not tinytorch's own
    missing = [path for path in (*(entry / name for name in needed), package) if not path.exists()]
    if missing:
        raise ValueError(
            f"the {track} track is measured against the course's entry, and {missing[0]} is missing: name "
            "another entry as reference"
        )
    shutil.copytree(entry, target, ignore=shutil.ignore_patterns("*.md", "result.json"))
    shutil.copytree(package, target / "tinytorch", ignore=shutil.ignore_patterns("__pycache__"))
    return target


def read_json(path: Path) -> Any:
    """What a JSON file that was staged holds."""
    return json.loads(path.read_bytes())


def _tokenizer(source: Path, target: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a text track, read on our side; its file is copied, and counts as model."""
    if not os.path.lexists(source / TOKENIZER):
        raise Invalid(f"{TOKENIZER} is missing: your tokenizer's save writes it")
    raw = _content(source / TOKENIZER, tokenizers.MOST_BYTES, "a tokenizer is smaller")
    try:
        found = tokenizers.parse(raw, TOKENIZER)
    except tokenizers.TokenizerError as error:
        raise Invalid(str(error)) from None
    (target / TOKENIZER).write_bytes(raw)
    return found


def _refuse_links(source: Path) -> None:
    if source.is_symlink() or not source.is_dir():
        raise Invalid("the submission is not a folder")
    seen = 0
    for folder, folders, files in os.walk(source, onerror=_refuse_unreadable):
        for name in (*folders, *files):
            seen += 1
            path = Path(folder) / name
            inside = path.relative_to(source)
            shown = repr(str(inside))
            if len(inside.parts) > _DEEPEST or len(os.fsencode(inside)) > _LONGEST:
                raise Invalid(
                    f"{shown[:60]}... lies too deep: at most {_DEEPEST} folders and {_LONGEST} bytes of path"
                )
            if path.is_symlink():
                raise Invalid(f"{shown} is a symbolic link: a submission holds its own files only")
            if not stat.S_ISREG(path.lstat().st_mode) and not stat.S_ISDIR(path.lstat().st_mode):
                raise Invalid(f"{shown} is not a plain file")
        if seen > _MOST_FILES:
            raise Invalid(f"the submission holds more than {_MOST_FILES} files")


def _refuse_unreadable(error: OSError) -> None:
    raise Invalid(f"{Path(error.filename).name!r} cannot be read ({error.strerror})")


def _content(path: Path, most: int, over: str) -> bytes:
    """A plain file's bytes, at most `most`; raises Invalid for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Invalid(f"{path.name} cannot be read ({error.strerror})") from None
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):  # a folder, too, which Python does not open
        os.close(fd)
        raise Invalid(f"{path.name} is not a plain file")
    with os.fdopen(fd, "rb") as file:
        size = found.st_size
        if size > most:
            raise Invalid(f"{path.name} has {size / rules.MB:.1f} MB: {over}")
        return file.read(most + 1)[:most]


def check_model(name: str, content: bytes) -> None:
    """A safetensors file and nothing else; the format is checked here, on bytes, before anything loads it.

    Source: the format section of the safetensors README (length, JSON header, data without gaps).
    """
    pickled = content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05"
    if (pickled or content[:2] == b"PK") and content[8:9] != b"{":  # else a header of just that length
        raise Invalid(f"{name} is a pickle, which could run any code: write it with tinytorch.save")
    wrong = f"{name} is not a safetensors file"
    if len(content) < 10:
        raise Invalid(f"{wrong} (only {len(content)} bytes)")
    (length,) = struct.unpack("<Q", content[:8])
    if length > min(_MOST_HEADER, len(content) - 8):
        raise Invalid(f"{wrong} (its header would be longer than the file, or than 10 MB)")
    try:
        header = _parse(name, content[8 : 8 + length])
        header.pop("__metadata__", None)
        spans = sorted(tuple(tensor["data_offsets"]) for tensor in header.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Invalid(f"{wrong} (its header is not the expected JSON)") from None
    end = 0
    for span in spans:
        if len(span) != 2 or any(type(n) is not int for n in span) or span[0] != end or span[1] < span[0]:
            raise Invalid(f"{wrong} (its arrays overlap or leave gaps)")
        end = span[1]
    if end != len(content) - 8 - length:
        raise Invalid(f"{wrong} ({len(content) - 8 - length} bytes of data, {end} described)")


def _training(path: Path, rule: rules.Track) -> tuple[float | None, str]:
    """Seconds of training and the division, as the log declares them; raises Invalid.

    The seconds may be null where a training script is handed in, which an audit can time.
    """
    limits = rule.limits
    if not os.path.lexists(path):
        raise Invalid("training.json is missing: the notebook writes it when training ends")
    try:
        log = _parse(path.name, _content(path, _MOST_JSON, "a training log is smaller"))
        seconds, division = log["seconds"], log.get("division", "open")
        checkpoint = log.get("checkpoint")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Invalid('training.json is not the notebook\'s log: expected {"seconds": ..., ...}') from None
    if seconds is None and not os.path.lexists(path.with_name(SCRIPT)):
        raise Invalid(
            f"training.json gives no seconds: expected a number, or a {SCRIPT} that an audit can time"
        )
    _check_seconds(seconds, limits)
    if division not in rule.divisions:
        expected = " or ".join(rule.divisions)
        raise Invalid(f"training.json declares the division {_shown(division)}: expected {expected}")
    if division == "closed" and rule.checkpoint and checkpoint != rule.checkpoint:
        raise Invalid(
            f"training.json names {_shown(checkpoint)} as its checkpoint: the closed division starts "
            f"from the given file, SHA-256 {rule.checkpoint}"
        )
    return None if seconds is None else float(seconds), division


def _check_seconds(seconds: Any, limits: rules.Limits) -> None:
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise Invalid(f"training.json gives {_shown(seconds)} as seconds: expected a number")
    if seconds >= limits.training_s:
        hours = min(seconds, 10**9) / 3600
        raise Invalid(f"training took {hours:.1f} h: the limit is {limits.training_s / 3600:g} h")


def _parse(name: str, raw: bytes) -> Any:
    """JSON in which no object says a thing twice, so that all who read it read the same."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for i, key in enumerate(keys) if key in keys[:i])
            raise Invalid(f"{name} gives {twice[:40]!r} twice")
        return found

    return json.loads(raw, object_pairs_hook=once)


def _shown(value: Any) -> str:
    """A value of the submission's in a reason: short, printable, and never deep."""
    plain = isinstance(value, str | int | float) or value is None
    return repr(str(value)[:64] if plain else type(value).__name__)
