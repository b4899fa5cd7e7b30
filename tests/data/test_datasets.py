"""Data sets: the digits split stays put, and a bad line or archive leaves nothing half-made."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from small_course import Tito

from autograder.data import datasets
from autograder.data.datasets import (
    BATCH_RECORDS,
    CIFAR10_ARCHIVE,
    CIFAR10_FOLDER,
    RECORD,
    TEST_FILE,
    TRAIN_FILES,
    DataError,
)

TEST_RECORDS = 30


class Server(ThreadingHTTPServer):
    """Serves one archive, well or badly: `cut_at` ends each answer early, `lie` adds to Content-Length."""

    body = b""
    cut_at: int | None = None
    lie = 0
    ranges = True
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if server.status != 200:
            return self.send_error(server.status)
        start = 0
        if wanted and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(server.body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        else:
            self.send_response(200)
        rest = server.body[start:]
        self.send_header("Content-Length", str(len(rest) + server.lie))
        self.end_headers()
        self.wfile.write(rest if server.cut_at is None else rest[: server.cut_at])

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(datasets, "_PAUSE_S", 0.0)
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def records(n: int, seed: int) -> bytes:
    """n records with random labels, black but for ten pixels, so that they pack small."""
    rng = np.random.default_rng(seed)
    table = np.zeros((n, RECORD), np.uint8)
    table[:, 0] = rng.integers(0, 10, n)
    table[:, 1:11] = rng.integers(0, 256, (n, 10))
    return table.tobytes()


def pack(files: dict[str, bytes], extra: Callable[[tarfile.TarFile], None] | None = None) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{CIFAR10_FOLDER}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        if extra:
            extra(tar)
    return gzip.compress(raw.getvalue(), 1)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    made = {name: records(BATCH_RECORDS, i) for i, name in enumerate(TRAIN_FILES)}
    return {
        **made,
        TEST_FILE: records(TEST_RECORDS, 9),
        "batches.meta.txt": b"airplane\n",
        "readme.html": b"hello",
    }


@pytest.fixture(scope="module")
def archive(files: dict[str, bytes]) -> bytes:
    return pack(files)


def fetch(server: Server, root: Path, md5: str | None = None) -> Path | None:
    md5 = md5 or hashlib.md5(server.body).hexdigest()
    return datasets.fetch("cifar10", progress=False, root=root, base_url=server.url, md5=md5)


def left_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def refused(server: Server, root: Path, *words: str, md5: str | None = None) -> None:
    with pytest.raises(DataError) as caught:
        fetch(server, root, md5)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


# ---- digits


def test_digits_split_is_fixed_and_stratified() -> None:
    train, test = datasets.load("digits", "train"), datasets.load("digits", "test")
    assert train.images.shape == (1297, 3, 32, 32) and test.images.shape == (500, 3, 32, 32)
    assert train.images.dtype == test.labels.dtype == np.uint8
    assert test.images.max() == 255 and test.images.min() == 0
    # every class has its share of the 1,797, and the split is this one, on every machine
    share = np.bincount(test.labels) / (np.bincount(test.labels) + np.bincount(train.labels))
    assert np.abs(share - 500 / 1797).max() < 0.006
    assert hashlib.sha256(test.labels.tobytes()).hexdigest()[:16] == "5fb892fda062c091"


def test_digits_pictures_are_the_originals_enlarged() -> None:
    rows = np.loadtxt(datasets.DIGITS_FILE, np.uint8, delimiter=",")  # loadtxt unpacks by itself
    assert rows.shape == (1797, 65) and rows.max() == 16
    small = {row[:-1].tobytes() for row in rows}
    for part in ("train", "test"):
        images = datasets.load("digits", part).images
        assert (images[:, 0] == images[:, 1]).all() and (images[:, 0] == images[:, 2]).all()
        back = np.rint(images[:, 0, ::4, ::4] * (16 / 255)).astype(np.uint8)
        assert (back.repeat(4, 1).repeat(4, 2) == np.rint(images[:, 0] * (16 / 255))).all()
        assert {image.tobytes() for image in back} <= small


def test_digits_file_is_the_published_one_with_its_source_and_licence() -> None:
    """The checksum is that of scikit-learn's own file, unpacked, when this one was made from it."""
    unpacked = gzip.decompress(datasets.DIGITS_FILE.read_bytes())
    assert hashlib.sha256(unpacked).hexdigest() == datasets.DIGITS_SHA256
    about = datasets.DIGITS_FILE.with_name("digits.md").read_text(encoding="utf-8")
    for word in (
        datasets.DIGITS_SHA256,
        "CC BY 4.0",
        "E. Alpaydin, C. Kaynak",
        "UCI Machine Learning Repository",
    ):
        assert word in about


def test_digits_are_those_of_scikit_learn() -> None:
    found = pytest.importorskip("sklearn.datasets").load_digits()
    rows = np.loadtxt(datasets.DIGITS_FILE, np.uint8, delimiter=",")
    assert np.array_equal(rows[:, :-1], found.data) and np.array_equal(rows[:, -1], found.target)


@pytest.mark.parametrize("content", [None, b"", b"\x1f\x8b half", gzip.compress(b"0,0\n", mtime=0)])
def test_a_digits_file_that_is_damaged_is_said_to_be(content, tmp_path, monkeypatch) -> None:
    path = tmp_path / "digits.csv.gz"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(datasets, "DIGITS_FILE", path)
    with pytest.raises(DataError, match=r"digits\.csv\.gz .*: install torch-olympics again$"):
        datasets._digits.__wrapped__()


def test_public_and_private_are_the_halves_of_test() -> None:
    test, public, private = (datasets.load("digits", part) for part in ("test", "public", "private"))
    assert (public.images == test.images[::2]).all() and (private.labels == test.labels[1::2]).all()
    assert np.abs(np.bincount(public.labels) - np.bincount(private.labels)).max() <= 2


@pytest.mark.parametrize(("name", "split"), [("mnist", "train"), ("digits", "validation")])
def test_unknown_names_are_named(name: str, split: str) -> None:
    with pytest.raises(DataError, match="expected"):
        datasets.load(name, split)


# ---- CIFAR-10 on disk


def on_disk(root: Path, files: dict[str, bytes]) -> Path:
    home = root / CIFAR10_FOLDER
    home.mkdir(parents=True)
    for name, data in files.items():
        (home / name).write_bytes(data)
    return home


def test_folder_from_the_environment(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = on_disk(tmp_path, files)
    for named in (tmp_path, home):
        monkeypatch.setenv("TINYTORCH_DATA", str(named))
        test = datasets.load("cifar10", "test")
        raw = np.frombuffer(files[TEST_FILE], np.uint8).reshape(-1, RECORD)
        assert (test.labels == raw[:, 0]).all() and (test.images.reshape(len(test), -1) == raw[:, 1:]).all()
        assert isinstance(test.images, np.memmap) and not test.images.flags.writeable
    train = datasets.load("cifar10", "train")
    assert train.images.shape == (50_000, 3, 32, 32)
    assert train.images[10_000].tobytes() == files[TRAIN_FILES[1]][1:RECORD]
    assert len(datasets.load("cifar10", "public")) + len(datasets.load("cifar10", "private")) == TEST_RECORDS


def test_damaged_files_are_named(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match="tito data fetch cifar10"):
        datasets.load("cifar10", "test", tmp_path)
    home = on_disk(tmp_path, {**files, TEST_FILE: files[TEST_FILE][:-7]})
    with pytest.raises(DataError, match=r"test_batch.bin has 92,183 bytes"):
        datasets.load("cifar10", "test", tmp_path)
    (home / TEST_FILE).write_bytes(b"\x0b" + files[TEST_FILE][1:])
    with pytest.raises(DataError, match="record 0 has label 11"):
        datasets.load("cifar10", "test", tmp_path)
    (home / TRAIN_FILES[2]).unlink()
    with pytest.raises(DataError, match=r"data_batch_3.bin is missing"):
        datasets.load("cifar10", "train", tmp_path)


# ---- CIFAR-10 over the line


def test_fetch_then_load(server: Server, archive: bytes, files: dict[str, bytes], tmp_path: Path) -> None:
    server.body = archive
    root = tmp_path / "data"
    fetch(server, root)
    assert left_in(root) == [CIFAR10_FOLDER]
    assert (root / CIFAR10_FOLDER / TEST_FILE).read_bytes() == files[TEST_FILE]
    fetch(server, root)
    assert server.asked == [None]  # the second call finds it in place


def test_a_damaged_folder_is_mended(
    server: Server, archive: bytes, files: dict[str, bytes], tmp_path: Path
) -> None:
    server.body = archive
    home = on_disk(tmp_path, {TEST_FILE: files[TEST_FILE], TRAIN_FILES[0]: b"short"})
    fetch(server, tmp_path)
    assert datasets.available("cifar10", tmp_path) and left_in(tmp_path) == [CIFAR10_FOLDER]
    assert (home / TRAIN_FILES[0]).read_bytes() == files[TRAIN_FILES[0]]


def test_a_cut_line_is_resumed(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.body, server.cut_at = archive, len(archive) // 3 + 1
    fetch(server, tmp_path)
    third = server.cut_at
    assert server.asked == [None, f"bytes={third}-", f"bytes={2 * third}-"]


def test_a_line_that_stays_cut_keeps_what_came(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.body, server.cut_at = archive, 1000
    refused(server, tmp_path, "the line was cut at 6,000 of", "run the command again")
    assert left_in(tmp_path) == [f"{CIFAR10_ARCHIVE}.part"]
    server.cut_at = None
    fetch(server, tmp_path)
    assert server.asked[-1] == "bytes=6000-" and left_in(tmp_path) == [CIFAR10_FOLDER]


def test_a_server_without_ranges_starts_over(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.body, server.ranges = archive, False
    (tmp_path / f"{CIFAR10_ARCHIVE}.part").write_bytes(archive[:5000])
    fetch(server, tmp_path)
    assert datasets.available("cifar10", tmp_path)


def test_a_part_of_something_else_is_thrown_away(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.body = archive
    (tmp_path / f"{CIFAR10_ARCHIVE}.part").write_bytes(b"x" * 5000)
    fetch(server, tmp_path)
    assert server.asked == ["bytes=5000-", None] and datasets.available("cifar10", tmp_path)


def test_a_part_longer_than_the_archive_is_thrown_away(
    server: Server, archive: bytes, tmp_path: Path
) -> None:
    server.body = archive
    (tmp_path / f"{CIFAR10_ARCHIVE}.part").write_bytes(archive + b"x")
    fetch(server, tmp_path)
    assert datasets.available("cifar10", tmp_path)


@pytest.mark.parametrize("lie", [500, -500])
def test_a_wrong_length_is_not_believed(server: Server, archive: bytes, tmp_path: Path, lie: int) -> None:
    server.body, server.lie = archive, lie
    if lie > 0:  # all bytes came, fewer than promised: asking for more ends in 416, the checksum decides
        fetch(server, tmp_path)
        assert datasets.available("cifar10", tmp_path)
    else:
        refused(server, tmp_path, "MD5", "nothing was kept")
        assert left_in(tmp_path) == []


def test_wrong_bytes_are_refused(server: Server, tmp_path: Path) -> None:
    server.body = b"<html>please log in</html>"
    refused(server, tmp_path, "MD5", datasets.CIFAR10_MD5, md5=datasets.CIFAR10_MD5)
    assert left_in(tmp_path) == [] and server.asked == [None]


@pytest.mark.parametrize("damage", ["not gzip", "cut", "flipped"])
def test_a_damaged_archive_leaves_nothing(
    server: Server, archive: bytes, tmp_path: Path, damage: str
) -> None:
    half = len(archive) // 2
    flipped = archive[:half] + bytes(b ^ 255 for b in archive[half : half + 64]) + archive[half + 64 :]
    server.body = {"not gzip": b"x" * 4000, "cut": archive[:half], "flipped": flipped}[damage]
    refused(server, tmp_path, f"{CIFAR10_ARCHIVE} is ")  # damaged, or not complete
    assert left_in(tmp_path) == []


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[[tarfile.TarFile], None]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return lambda tar: tar.addfile(info, io.BytesIO())


@pytest.mark.parametrize(
    "extra",
    [
        member("../outside.bin"),
        member("/tmp/outside.bin"),
        member(f"{CIFAR10_FOLDER}/../../outside.bin"),
        member(f"{CIFAR10_FOLDER}/more.py"),
        member(f"{CIFAR10_FOLDER}/{TEST_FILE}", tarfile.SYMTYPE, "/etc/passwd"),
        member(f"{CIFAR10_FOLDER}/{TEST_FILE}", tarfile.LNKTYPE, "/etc/passwd"),
        member(f"{CIFAR10_FOLDER}/{TEST_FILE}", tarfile.FIFOTYPE),
    ],
    ids=["parent", "absolute", "hidden parent", "unexpected", "symlink", "hard link", "fifo"],
)
def test_a_hostile_member_is_refused(
    server: Server, tmp_path: Path, extra: Callable[[tarfile.TarFile], None]
) -> None:
    server.body = pack({}, extra)
    root = tmp_path / "data"
    refused(server, root, "not so the published one")
    assert left_in(root) == [] and left_in(tmp_path) == ["data"]


def test_a_short_archive_is_refused(server: Server, files: dict[str, bytes], tmp_path: Path) -> None:
    server.body = pack({TEST_FILE: files[TEST_FILE]})
    refused(server, tmp_path, "not complete", "data_batch_1.bin is missing")
    server.body = pack({TRAIN_FILES[0]: files[TEST_FILE]})
    refused(server, tmp_path, "data_batch_1.bin has 92,190 bytes, expected 30,730,000")
    assert left_in(tmp_path) == []


def test_no_server_and_no_file(server: Server, tmp_path: Path) -> None:
    server.status = 404
    refused(server, tmp_path, "404")
    with pytest.raises(DataError, match="cannot download .*refused"):
        datasets.fetch("cifar10", progress=False, root=tmp_path, base_url="http://127.0.0.1:9/")
    with pytest.raises(DataError, match="begins with https"):
        datasets.fetch("cifar10", progress=False, root=tmp_path, base_url="file:///etc/")
    with pytest.raises(DataError, match="cannot write CIFAR-10"):
        datasets.fetch("cifar10", progress=False, root="/proc/nowhere", base_url=server.url)
    assert left_in(tmp_path) == []


def test_two_downloads_do_not_meet(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.body = archive
    with datasets._alone(tmp_path / f"{CIFAR10_ARCHIVE}.part"):
        refused(server, tmp_path, "another download")
    assert server.asked == []


# ---- tito data


@pytest.fixture
def tito(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tito:
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path))
    return Tito(monkeypatch, capsys)


def test_the_command_line_lists_and_fetches(
    tito: Tito, server: Server, files: dict[str, bytes], tmp_path: Path
) -> None:
    cifar10, digits, *_ = tito.json("data", "list")["sets"]
    assert not cifar10["available"] and "tito data fetch cifar10" in cifar10["reason"]
    assert (digits["train"], digits["test"]) == (1297, 500)
    assert "digits is ready" in tito("data", "fetch", "digits")
    server.body = b"not the archive"
    tito("data", "fetch", "--mirror", server.url, code=1)
    assert f"expected {datasets.CIFAR10_MD5}" in tito.err and left_in(tmp_path) == []
    on_disk(tmp_path, files)
    assert tito.json("data", "fetch", "cifar10")["folder"] == str(tmp_path / CIFAR10_FOLDER)
    assert f"50000 train     {TEST_RECORDS} test" in tito("data", "list")
