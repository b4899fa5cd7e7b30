"""The pictures: CIFAR-10 from its official binary archive, and UCI's digits (digits.md) in the same shape.
The texts: TinyTalks, which `tinytalks.py` makes anew wherever it is wanted, and files of Q: and A: lines.

Nothing here is ever unpickled. CIFAR-10 is downloaded once (resumed, checked against its published MD5,
unpacked to a temporary folder and renamed into place); `digits` and `tinytalks` need no network at all.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autograder.data import tinytalks
from autograder.data.tinytalks import Dialogue
from autograder.errors import Missing, OlympicsError
from autograder.scratch import scratch_folder

try:
    import fcntl
except ImportError:  # Windows has no flock: two downloads at once are then caught by the checksum alone
    fcntl = None  # type: ignore[assignment]

NAMES = ("cifar10", "digits")
SPLITS = ("train", "test", "public", "private")
TEXT_NAMES = ("tinytalks", "tinytalks-classic")
TEXT_SPLITS = ("train", "validation", "test", "public", "private")
TEXT_FILES = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/"
CIFAR10_ARCHIVE = "cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CIFAR10_FOLDER = "cifar-10-batches-bin"
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILE = "test_batch.bin"
RECORD = 1 + 3 * 32 * 32  # a label byte, then the red, green and blue planes, row by row
BATCH_RECORDS = 10_000

DIGITS_CLASSES = tuple("0123456789")
DIGITS_FILE = Path(__file__).with_name(
    "digits.csv.gz"
)  # a row a picture: 8 x 8 pixels of 0..16, then the label
DIGITS_SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"  # of the unpacked text
DIGITS_TEST = 500

_ATTEMPTS = 6
_PAUSE_S = 1.0
_CHUNK = 1 << 18
_MOST_BYTES = 400_000_000  # no honest archive is larger (the published one has 170 MB)
_SEED = 1797
_MOST_TEXT = 64_000_000  # bytes of one text file


class DataError(OlympicsError):
    """A data set that is missing, damaged or out of reach. The message is one line and says what to do."""


class NotHere(DataError, Missing):
    """A data set that this machine does not have; the message names what brings it."""


@dataclass(frozen=True)
class Split:
    """Some pictures with their labels.

    images: uint8 (N, 3, 32, 32), values 0..255. labels: uint8 (N,). classes: the ten names.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    name: str
    split: str
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Split({self.name} {self.split}: {len(self):,} pictures, {len(self.classes)} classes)"


@dataclass(frozen=True)
class TextSplit:
    """Some dialogues. text: all of them, a blank line between two, as the text files have them."""

    dialogues: tuple[Dialogue, ...]
    name: str
    split: str

    @property
    def text(self) -> str:
        return "\n\n".join(dialogue.text for dialogue in self.dialogues) + "\n"

    def __len__(self) -> int:
        return len(self.dialogues)

    def __repr__(self) -> str:
        return f"TextSplit({self.name} {self.split}: {len(self):,} dialogues)"


def folder() -> Path:
    """The folder data sets live in: TINYTORCH_DATA, or `tinytorch` in the user's cache folder."""
    named = os.environ.get("TINYTORCH_DATA")
    if named:
        return Path(named).expanduser()
    cache_home = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache_home).expanduser() if cache_home else Path.home() / ".cache") / "tinytorch"


def load(name: str, split: str, root: str | Path | None = None) -> Split:
    """Read one split of `cifar10` or `digits`.

    `public` and `private` are the even and the odd pictures of `test`. CIFAR-10 is memory-mapped: `test` and
    its halves are views of the file; `train` is gathered from its five mapped files into one array (154 MB).
    `root` overrides `folder()`. Raises DataError for an unknown name, and for missing or damaged files.
    """
    _check_name(name)
    if split not in SPLITS:
        raise DataError(f"no split named {split!r} in {name}: expected one of {', '.join(SPLITS)}")
    part = "train" if split == "train" else "test"
    if name == "digits":
        images, labels = _digits()[part]
        classes = DIGITS_CLASSES
    else:
        images, labels = _cifar10(Path(root) if root is not None else folder(), part)
        classes = CIFAR10_CLASSES
    if split in ("public", "private"):
        start = 0 if split == "public" else 1
        images, labels = images[start::2], labels[start::2]
    return Split(images, labels, name, split, classes)


def load_text(name: str | Path, split: str = "train", root: str | Path | None = None) -> TextSplit:
    """Read one split of `tinytalks`, of `tinytalks-classic`, or of a file or folder of Q: and A: lines.

    `tinytalks` is made on the spot and is the same everywhere. `tinytalks-classic` is train.txt, val.txt and
    test.txt in `root` (default: `folder()`) or in `root`/tinytalks; a path names such a folder, or one file
    that is a split by itself. `public` and `private` are the even and the odd dialogues of `test`. Dialogues
    of a file have level 0 and no keys. Raises DataError for an unknown name, a missing or a malformed file.
    """
    if split not in TEXT_SPLITS:
        raise DataError(f"no split named {split!r} in {name}: expected one of {', '.join(TEXT_SPLITS)}")
    if name == "tinytalks":
        return TextSplit(_tinytalks(split), name, split)
    if name == "tinytalks-classic":
        home = Path(root) if root is not None else folder()
        home = home if (home / TEXT_FILES["train"]).is_file() else home / "tinytalks"
        if not home.is_dir():
            raise NotHere(
                f"tinytalks-classic is not in {home}: set TINYTORCH_DATA to a folder with "
                f"{', '.join(TEXT_FILES.values())}"
            )
    else:
        home = Path(name).expanduser()
        if home.is_file():
            return TextSplit(_read_dialogues(home), str(name), split)
        if not home.is_dir():
            raise DataError(
                f"no text named {str(name)!r}: expected {', '.join(TEXT_NAMES)}, or the path of a file or "
                "folder"
            )
    found = _read_dialogues(home / TEXT_FILES[split if split in TEXT_FILES else "test"])
    if split in ("public", "private"):
        found = found[0 if split == "public" else 1 :: 2]
    return TextSplit(found, str(name), split)


def write_text(name: str, home: Path) -> list[Path]:
    """Write the splits of a text to train.txt, val.txt and test.txt in a folder, for `load_text` to read.

    Raises DataError where one of the files is there already.
    """
    splits = {home / file: load_text(name, split) for split, file in TEXT_FILES.items()}
    for path in splits:
        if path.exists():
            raise DataError(f"{path} is there already: name another folder")
    try:
        home.mkdir(parents=True, exist_ok=True)
        for path, found in splits.items():
            path.write_text(found.text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(f"cannot write to {home}: {error.strerror or error}") from error
    return list(splits)


def fetch(
    name: str,
    progress: bool = True,
    *,
    root: str | Path | None = None,
    base_url: str = CIFAR10_URL,
    md5: str = CIFAR10_MD5,
) -> Path | None:
    """Make a data set ready to load; does nothing where it already is. Returns its folder, or None
    for `digits` and `tinytalks`, which need none.

    The archive is read from `base_url`, resumed where an earlier try stopped, and must have this MD5.
    Raises DataError; a failed download leaves at most a `.part` file that the next call goes on from.
    """
    if name == "tinytalks":
        return None
    if name == "tinytalks-classic":
        load_text(name, root=root)  # it has no address to fetch it from: it is here or it is not
        return Path(root) if root is not None else folder()
    _check_name(name)
    if name == "digits":
        _digits()
        return None
    home = Path(root) if root is not None else folder()
    if cifar10_fault(home) is None:
        return cifar10_folder(home)
    if not base_url.startswith(("http://", "https://")):
        raise DataError(f"cannot download from {base_url!r}: expected an address that begins with https://")
    try:
        home.mkdir(parents=True, exist_ok=True)
        part = home / f"{CIFAR10_ARCHIVE}.part"
        with _alone(part):
            _download(base_url.rstrip("/") + "/" + CIFAR10_ARCHIVE, part, md5, progress)
            try:
                _unpack(part, home)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot write CIFAR-10 to {home}: {error.strerror or error}") from error
    return cifar10_folder(home)


def available(name: str, root: str | Path | None = None) -> bool:
    """Whether `load` would find the data set."""
    _check_name(name)
    if name == "digits":
        return True
    return cifar10_fault(Path(root) if root is not None else folder()) is None


def usual() -> str:
    """The data set of a track where nobody names one: cifar10 where it is on this machine, else digits."""
    return "cifar10" if available("cifar10") else "digits"


def cifar10_folder(root: Path) -> Path:
    """Where the .bin files are under `root`, or should be: `root` itself may be that folder."""
    return root if (root / TEST_FILE).is_file() else root / CIFAR10_FOLDER


def cifar10_fault(root: Path) -> str | None:
    """What keeps the CIFAR-10 files under `root` from being read, in one line; None where they are whole."""
    home = cifar10_folder(root)
    missing = [name for name in (*TRAIN_FILES, TEST_FILE) if not (home / name).is_file()]
    if len(missing) == len(TRAIN_FILES) + 1:
        return (
            f"CIFAR-10 is not in {root}: run `tito data fetch cifar10`, "
            f"or set TINYTORCH_DATA to a folder that holds {CIFAR10_FOLDER}"
        )
    if missing:
        return f"{home / missing[0]} is missing: run `tito data fetch cifar10`"
    for name in (*TRAIN_FILES, TEST_FILE):
        wrong = _size_fault(name, (home / name).stat().st_size)
        if wrong:
            return f"{home / name} {wrong}: run `tito data fetch cifar10` to replace it"
    return None


def _check_name(name: str) -> None:
    if name in TEXT_NAMES:
        raise DataError(f"{name} is a text: read it with load_text")
    if name not in NAMES:
        raise DataError(f"no data set named {name!r}: expected {', '.join(NAMES + TEXT_NAMES)}")


def _size_fault(name: str, size: int) -> str | None:
    whole = BATCH_RECORDS * RECORD
    if name == TEST_FILE:
        if size == 0 or size % RECORD or size > whole:
            return f"has {size:,} bytes, expected 1 to {BATCH_RECORDS:,} records of {RECORD:,} bytes"
    elif size != whole:
        return f"has {size:,} bytes, expected {whole:,}"
    return None


# ---- CIFAR-10: read


def _cifar10(root: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    fault = cifar10_fault(root)
    if fault:
        raise NotHere(fault)
    home = cifar10_folder(root)
    if part == "test":
        return _records(home / TEST_FILE)
    images = np.empty((len(TRAIN_FILES) * BATCH_RECORDS, 3, 32, 32), np.uint8)
    labels = np.empty(len(images), np.uint8)
    for i, name in enumerate(TRAIN_FILES):
        rows = slice(i * BATCH_RECORDS, (i + 1) * BATCH_RECORDS)
        images[rows], labels[rows] = _records(home / name)
    return images, labels


def _records(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    try:
        records = np.memmap(path, np.uint8, mode="r").reshape(-1, RECORD)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    labels = np.array(records[:, 0])
    if labels.max() > 9:
        at = int(labels.argmax())
        raise DataError(
            f"{path} is damaged: record {at} has label {labels[at]}, expected 0 to 9; "
            "delete it and run `tito data fetch cifar10`"
        )
    return records[:, 1:].reshape(-1, 3, 32, 32), labels


# ---- CIFAR-10: download and unpack


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Hold a lock beside `part`, so that two downloads into one folder do not write over each other."""
    lock = part.with_suffix(".lock")
    with lock.open("wb") as handle:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise DataError(f"another download writes to {part.parent}: wait for its end") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _download(url: str, part: Path, md5: str, progress: bool) -> None:
    """Fill `part` until it has the checksum: goes on after a cut, begins anew once after a wrong checksum."""
    resumed = part.exists() and part.stat().st_size > 0
    for _ in range(2):
        _fill(url, part, progress)
        got = _md5(part)
        if got == md5:
            return
        part.unlink()
        if not resumed:  # these bytes came in one piece: asking again would bring the same
            break
        resumed = False
    raise DataError(f"{url} is not the published archive: its MD5 is {got}, expected {md5}; nothing was kept")


def _fill(url: str, part: Path, progress: bool) -> None:
    reason = ""
    for attempt in range(_ATTEMPTS):
        time.sleep(_PAUSE_S * min(attempt, 3))
        before = part.stat().st_size if part.exists() else 0
        try:
            total = _ask(url, part, before, progress)
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # nothing lies beyond what we have: let the checksum decide
                return
            raise DataError(
                f"{url} answered {error.code} {error.reason}: try later or another `--mirror`"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        else:
            have = part.stat().st_size
            if total is None or have >= total:
                return
            reason = f"the line was cut at {have:,} of {total:,} bytes"
    have = part.stat().st_size if part.exists() else 0
    kept = f"; {have / 1e6:.1f} MB are kept, run the command again to go on" if have else ""
    raise DataError(f"cannot download {url}: {reason}{kept}".replace("\n", " "))


def _ask(url: str, part: Path, have: int, progress: bool) -> int | None:
    """One request, from byte `have` on, appended to `part`. Returns the whole length the server promised."""
    from tqdm import tqdm

    request = urllib.request.Request(url, headers={"User-Agent": "torch-olympics"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=30) as answer:
        comes = answer.headers.get("Content-Range", "")
        goes_on = answer.status == 206 and comes.startswith(f"bytes {have}-")
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        bar = tqdm(
            desc=CIFAR10_ARCHIVE, total=total, initial=have, unit="B", unit_scale=True,
            disable=not progress, file=sys.stderr, leave=False,
        )  # fmt: skip
        with bar, part.open("ab" if goes_on else "wb") as out:
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
                if have > _MOST_BYTES:
                    raise DataError(f"{url} sends more than {_MOST_BYTES:,} bytes: not the published archive")
    return total


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(archive: Path, home: Path) -> None:
    """Write the archive's .bin files to `home`, all of them or none."""
    with scratch_folder("unpack", home) as made:
        fresh = made / CIFAR10_FOLDER
        fresh.mkdir()
        try:
            with tarfile.open(archive, "r|gz") as tar:
                for member in tar:
                    _unpack_member(tar, member, fresh)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk, not the archive
                raise
            raise DataError(
                f"{CIFAR10_ARCHIVE} is damaged: {error}; nothing was kept, fetch it again"
            ) from error
        fault = cifar10_fault(fresh.parent)
        if fault:
            what = fault.split(": run")[0].replace(f"{fresh}{os.sep}", "")
            raise DataError(f"{CIFAR10_ARCHIVE} is not complete: {what}")
        place = cifar10_folder(home)
        if place.is_dir():
            for path in fresh.iterdir():
                os.replace(path, place / path.name)
        else:
            os.replace(fresh, place)


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, fresh: Path) -> None:
    name = member.name.removeprefix("./").rstrip("/")
    inside = name.removeprefix(f"{CIFAR10_FOLDER}/")
    if member.isdir() and name == CIFAR10_FOLDER:
        return
    wanted = (*TRAIN_FILES, TEST_FILE, "batches.meta.txt", "readme.html")
    if not member.isreg() or name == inside or inside not in wanted:
        raise DataError(
            f"{CIFAR10_ARCHIVE} holds {member.name!r}, not so the published one: nothing unpacked"
        )
    if inside.endswith(".bin") and (wrong := _size_fault(inside, member.size)):
        raise DataError(f"{CIFAR10_ARCHIVE} is damaged: {inside} {wrong}; nothing unpacked")
    if member.size > BATCH_RECORDS * RECORD:
        raise DataError(f"{CIFAR10_ARCHIVE} is damaged: {inside} has {member.size:,} bytes; nothing unpacked")
    stream = tar.extractfile(member)
    assert stream is not None  # a regular file always has one
    with (fresh / inside).open("wb") as out:
        shutil.copyfileobj(stream, out, _CHUNK)


# ---- texts


@cache
def _tinytalks(split: str) -> tuple[Dialogue, ...]:
    if split != "test":
        return tuple(tinytalks.dialogues(split=split))
    halves = zip(_tinytalks("public"), _tinytalks("private"), strict=True)
    return tuple(dialogue for pair in halves for dialogue in pair)


def _read_dialogues(path: Path) -> tuple[Dialogue, ...]:
    try:
        if path.stat().st_size > _MOST_TEXT:
            raise DataError(f"{path} has {path.stat().st_size:,} bytes, expected at most {_MOST_TEXT:,}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: byte {error.start} is none") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    found: list[Dialogue] = []
    turns: list[tuple[str, str]] = []
    question: str | None = None
    for i, line in enumerate([*text.split("\n"), ""], 1):
        line = line.strip()
        if line.startswith("Q:") and question is None:
            question = line[2:].strip()
        elif line.startswith("A:") and question is not None:
            turns.append((question, line[2:].strip()))
            question = None
        elif line or question is not None:
            expected = "a line that begins with " + ("A:" if question is not None else "Q: or a blank line")
            raise DataError(f"{path}, line {i}: expected {expected}, got {line[:40]!r}")
        elif turns:
            found.append(Dialogue(0, tuple(turns)))
            turns = []
    if not found:
        raise DataError(f"{path} holds no dialogue: expected lines that begin with Q: and A:")
    return tuple(found)


# ---- digits


@cache
def _digits() -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    rows = np.loadtxt(_digits_text().splitlines(), np.uint8, delimiter=",")  # (1797, 65)
    small = np.rint(rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # 0..16 to 0..255
    grey = small.repeat(4, axis=1).repeat(4, axis=2)  # (1797, 32, 32)
    images = np.repeat(grey[:, None], 3, axis=1)  # (1797, 3, 32, 32)
    labels = rows[:, -1].copy()
    train, test = _split(labels, DIGITS_TEST)
    for array in (images, labels):
        array.flags.writeable = False
    halves = _read_only(images[test]), _read_only(labels[test])
    return {"train": (_read_only(images[train]), _read_only(labels[train])), "test": halves}


def _digits_text() -> str:
    """The text of the file that comes with the course. Raises DataError where it is not the published one."""
    try:
        content = gzip.decompress(DIGITS_FILE.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{DIGITS_FILE} cannot be read ({error}): install torch-olympics again") from error
    if hashlib.sha256(content).hexdigest() != DIGITS_SHA256:
        raise DataError(f"{DIGITS_FILE} has been changed: install torch-olympics again")
    return content.decode("ascii")


def _read_only(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    array.flags.writeable = False
    return array


def _split(labels: NDArray[np.uint8], n_test: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of train and test: classes in proportion, and again in both halves (even, odd) of test.

    RandomState's stream is frozen by NumPy's promise, so the split is the same with every version.
    """
    rng = np.random.RandomState(_SEED)
    test = _draw(labels, np.arange(len(labels)), n_test, rng)
    public = _draw(labels, test, n_test // 2, rng)
    private = rng.permutation(np.setdiff1d(test, public))
    train = rng.permutation(np.setdiff1d(np.arange(len(labels)), test))
    return train, np.stack([public, private], axis=1).ravel()


def _draw(
    labels: NDArray[np.uint8], pool: NDArray[np.intp], n: int, rng: np.random.RandomState
) -> NDArray[np.intp]:
    """n of the pool's indices, shuffled, with every class in proportion (largest remainders get the rest)."""
    counts = np.bincount(labels[pool], minlength=10)
    share = counts * n / len(pool)
    take = np.floor(share).astype(int)
    take[np.argsort(take - share, kind="stable")[: n - take.sum()]] += 1
    drawn = [rng.permutation(np.sort(pool[labels[pool] == c]))[:k] for c, k in enumerate(take)]
    return rng.permutation(np.concatenate(drawn))
