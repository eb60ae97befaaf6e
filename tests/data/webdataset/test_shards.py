"""Streams of tar shards: each image once per epoch, the same order from any start, and errors that name the shard."""

import contextlib
import gzip
import http.server
import io
import itertools
import json
import os
import re
import tarfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cardigan.data.source_names import default_run_name
from cardigan.data.webdataset import byte_stream as shard_streams
from cardigan.data.webdataset import shards
from cardigan.data.webdataset.addresses import expand_braces
from cardigan.data.webdataset.shards import is_shards, open_shards, shard_changes
from cardigan.errors import CardiganError

SIZES = [5, 0, 1, 9, 3, 3, 7]


def make_tar(files: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=format) as archive:
        for name, stored in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(stored)
            archive.addfile(member, io.BytesIO(stored))
    return content.getvalue()


def tar_header(name: str, size: int = 0) -> bytes:
    """Return the header of a file in a tar file."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def numbered_files(shard: int, count: int) -> dict[str, bytes]:
    """Return image files of different lengths, each with the index of its shard as its class."""
    files = {}
    for image in range(count):
        files[f"{shard}-{image}.jpg"] = f"image {shard} {image}".encode() * (1 + 90 * (image % 3))
        files[f"{shard}-{image}.cls"] = str(shard).encode()
    return files


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Shards of different sizes; a few of them form a group."""
    monkeypatch.setattr(shards, "GROUP_IMAGES", 6)
    for number, count in enumerate(SIZES):
        (tmp_path / f"train-{number:03}.tar").write_bytes(make_tar(numbered_files(number, count)))
    return f"{tmp_path}/train-{{000..{len(SIZES) - 1:03}}}.tar"


def entry_names(source: str, count: int, seed: int = 0, images_seen: int = 0, counts: Path | None = None) -> list[str]:
    entries = open_shards(source, counts).entries(seed, images_seen)
    return [entry.name for entry in itertools.islice(entries, count)]


def single_shard(tmp_path: Path, content: bytes) -> str:
    """Return a source with a single shard. Braces keep it from being read as an archive."""
    (tmp_path / "only-0.tar").write_bytes(content)
    return f"{tmp_path}/only-{{0..0}}.tar"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{000..002}.tar", ["a-000.tar", "a-001.tar", "a-002.tar"]),
        ("a-{8..11}", ["a-8", "a-9", "a-10", "a-11"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{x,y}/{0..1}.tar", ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]),
        ("a{,-b}.tar", ["a.tar", "a-b.tar"]),
    ],
)
def test_brace_expansion(pattern, names):
    assert expand_braces(pattern) == names


@pytest.mark.parametrize(
    "pattern",
    ["{0..999999999}.tar", "{0..9999}{0..9999}.tar", "{a{0..1},b}.tar", "{0..1.tar", "0}.tar", "{a}.tar", "{}.tar"],
)
def test_invalid_braces_raise(pattern):
    with pytest.raises(CardiganError, match=re.escape(pattern)):
        expand_braces(pattern)


def test_is_shards(tmp_path, source):
    one = tmp_path / "train-000.tar"
    assert (
        is_shards(source)
        and is_shards(str(tmp_path / "*.tar"))
        and is_shards(str(tmp_path))
        and is_shards(f"{tmp_path}/{{a.tar,b.tar}}")
    )
    assert is_shards("https://host/a.tar?key=1") and is_shards("s3://bucket/a-{0..3}.tar")
    assert (
        not is_shards(str(one))
        and not is_shards(str(tmp_path / "none.tar"))
        and not is_shards("mnist")
        and not is_shards("https://host/a.zip")
    )
    expected = [str(tmp_path / f"train-{number:03}.tar") for number in range(len(SIZES))]
    for pattern in (source, str(tmp_path / "*.tar"), str(tmp_path), f"{tmp_path}/train-*[0-9].tar"):
        assert list(open_shards(pattern).addresses) == expected
    assert list(open_shards(f"{tmp_path}/train-{{003,001}}.tar").addresses) == [expected[3], expected[1]]
    images = tmp_path / "photos"
    images.mkdir()
    for name in ("a.png", "b.png", "old.tar", "older.tar", "._a.tar"):
        (images / name).touch()
    assert not is_shards(str(images))
    (images / "oldest.tar").touch()
    assert is_shards(str(images)) and len(open_shards(str(images)).addresses) == 3


def test_epoch_is_a_seeded_permutation(source):
    size = sum(SIZES)
    every = sorted(
        f"train-{shard:03}.tar/{shard}-{image}.jpg" for shard, count in enumerate(SIZES) for image in range(count)
    )
    seen = entry_names(source, 3 * size)
    epochs = [seen[start : start + size] for start in range(0, 3 * size, size)]
    assert [sorted(epoch) for epoch in epochs] == [every] * 3
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert open_shards(source).count_images() == size
    assert entry_names(source, size, seed=1) != epochs[0]
    assert entry_names(source, 3 * size) == seen


def test_images_of_a_group_are_shuffled(source, monkeypatch):
    monkeypatch.setattr(shards, "GROUP_IMAGES", 8192)
    seen = [title.partition("/")[0] for title in entry_names(source, sum(SIZES))]
    assert len(list(itertools.groupby(seen))) > 2 * len(SIZES)
    monkeypatch.setattr(shards, "GROUP_BYTES", 1)  # any image fills a group, so shards are read one after another
    seen = [title.partition("/")[0] for title in entry_names(source, sum(SIZES))]
    assert len(list(itertools.groupby(seen))) == sum(size > 0 for size in SIZES)


def test_each_epoch_is_reshuffled(tmp_path):
    seen = entry_names(single_shard(tmp_path, make_tar(numbered_files(0, 20))), 60)
    epochs = {tuple(seen[start : start + 20]) for start in (0, 20, 40)}
    assert len(epochs) == 3 and len({tuple(sorted(epoch)) for epoch in epochs}) == 1


@pytest.mark.parametrize("group_bytes", [1 << 29, 3000])
def test_resume_position_gives_equal_stream(source, tmp_path, monkeypatch, group_bytes):
    monkeypatch.setattr(shards, "GROUP_BYTES", group_bytes)
    size = sum(SIZES)
    seen = entry_names(source, 3 * size + 12)
    counts = tmp_path / "cache" / "counts.json"
    known = open_shards(source)
    for point in range(3 * size + 1):
        entries = known.entries(0, point)
        assert [entry.name for entry in itertools.islice(entries, 12)] == seen[point : point + 12]
        if point % 7 == 3:
            assert entry_names(source, 12, images_seen=point) == seen[point : point + 12]  # counted again
            assert entry_names(source, 12, images_seen=point, counts=counts) == seen[point : point + 12]
    assert (
        entry_names(source, 3, images_seen=1_000_000 * size + 5)
        == entry_names(source, 8, images_seen=1_000_000 * size)[5:]
    )


def test_only_needed_shards_are_counted(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "GROUP_IMAGES", 1)
    first = entry_names(source, 1)[0].partition("/")[0]
    for number, count in enumerate(SIZES):
        if f"train-{number:03}.tar" != first and count:
            (tmp_path / f"train-{number:03}.tar").write_bytes(b"no tar".ljust(512))
    entries = open_shards(source).entries(0, 0)
    assert next(entries).name.startswith(first)
    with pytest.raises(CardiganError, match="is not a tar file"):
        list(itertools.islice(entries, sum(SIZES)))


@pytest.mark.parametrize("order", [1, -1])
def test_image_among_depth_maps_and_masks(tmp_path, order):
    names = ["a.depth.png", "a.jpg", "a.mask.png", "b.depth.png", "b.rgb.png", "b.seg.png", "c.left.png", "c.right.png"]
    groups = [list(group) for _, group in itertools.groupby(names, key=lambda name: name[0])]
    files = {name: name.encode() for group in groups for name in group[::order]}
    opened = open_shards(single_shard(tmp_path, make_tar(files)))
    found = {entry.stored_image.decode() for entry in itertools.islice(opened.entries(0, 0), 3)}
    assert found == {"a.jpg", "b.rgb.png", "c.left.png" if order == 1 else "c.right.png"}
    assert opened.count_images() == 3 and opened.skipped == {"another image of the same key": 5}


def test_gzipped_shards(tmp_path, source):
    packed = tmp_path / "packed"
    packed.mkdir()
    for shard in tmp_path.glob("*.tar"):
        content = shard.read_bytes()  # two members of gzip, and bytes that do not compress
        (packed / f"{shard.name}.gz").write_bytes(gzip.compress(content[:700]) + gzip.compress(content[700:], 0))
    plain, size = open_shards(source), sum(SIZES)
    for pattern in (str(packed), f"{packed}/*.tar.gz", f"{packed}/train-{{000..006}}.tar.gz"):
        assert is_shards(pattern)
        zipped = open_shards(pattern)
        assert zipped.count_images() == size
        for ours, theirs in zip(itertools.islice(zipped.entries(0, 3), 2 * size), plain.entries(0, 3), strict=False):
            assert ours.stored_image == theirs.stored_image and ours.label == theirs.label
    assert is_shards("https://host/a-{0..3}.tar.gz") and is_shards("s3://bucket/a.tgz")


@pytest.mark.parametrize(("content", "words"), [(b"\x1f\x8b" + bytes(1000), "damaged"), (None, "truncated")])
def test_damaged_gzipped_shards(tmp_path, content, words):
    packed = gzip.compress(make_tar(numbered_files(0, 4)))
    (tmp_path / "p-0.tar.gz").write_bytes(content or packed[: len(packed) // 2])
    with pytest.raises(CardiganError, match=rf"p-0\.tar\.gz \(its gzip data is {words}"):
        open_shards(f"{tmp_path}/p-{{0..0}}.tar.gz").count_images()


def test_shard_replaced_by_one_of_equal_size_raises(tmp_path, source):
    opened = open_shards(source)
    opened.count_images()
    path = tmp_path / "train-003.tar"
    path.write_bytes(path.read_bytes().replace(b"image 3", b"image 9"))
    os.utime(path, ns=(0, 0))
    with pytest.raises(CardiganError, match=r"train-003\.tar was changed or removed after the source was opened"):
        list(itertools.islice(opened.entries(0, 0), sum(SIZES)))


def test_sample_labels_and_bytes(tmp_path):
    files = {
        "a/1.jpg": b"one", "a/1.cls": b" 7\n",
        "a/2.cls": b"dog", "a/2.txt": b"a dog", "a/2.JPG": b"two",
        "a/3.png": b"three", "a/3.json": json.dumps({"class": "cat", "label": 4}).encode(),
        "b/3.seg.png": b"another folder", "b/3.json": b'{"class": "cat", "label": null}',
        "c.jpg": b"c", "c.json": b'{"label": true}',
        "d.jpg": b"d", "d.json": b"{broken",
        "e.jpg": b"", "e.json": b'{"label": 1}', "e.cls": b"2",
        "f.jpg": b"f", "f.cls": b"",
        "only.json": b"{}",
        "g.1.jpg": b"first", "g.2.jpg": b"second",
        "._h.jpg": b"hidden", "h.jpg": b"h",
    }  # fmt: skip
    source = single_shard(tmp_path, make_tar(files))
    opened = open_shards(source)
    found = {
        entry.name.partition("/")[2]: (entry.stored_image, entry.label)
        for entry in itertools.islice(opened.entries(0, 0), 10)
    }
    assert found == {
        "a/1.jpg": (b"one", 7), "a/2.JPG": (b"two", "dog"), "a/3.png": (b"three", 4),
        "b/3.seg.png": (b"another folder", "cat"), "c.jpg": (b"c", None), "d.jpg": (b"d", None), "e.jpg": (b"", 2),
        "f.jpg": (b"f", None), "g.1.jpg": (b"first", None), "h.jpg": (b"h", None),
    }  # fmt: skip
    assert opened.skipped == {"not an image": 1, "another image of the same key": 1, "hidden": 1}
    again = open_shards(source)
    assert again.count_images() == 10 and again.skipped == opened.skipped


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_formats(tmp_path, format):
    name = (
        "/".join(["a" * 60] * 2) + "/é.jpg" if format == tarfile.USTAR_FORMAT else "/".join(["ä" * 60] * 5) + "/é.jpg"
    )
    source = single_shard(tmp_path, make_tar({name: b"x" * 2_500_000, "b.jpg": b"y"}, format))
    found = {entry.name: entry.stored_image for entry in itertools.islice(open_shards(source).entries(0, 0), 2)}
    assert found == {f"only-0.tar/{name}": b"x" * 2_500_000, "only-0.tar/b.jpg": b"y"}


def test_pax_header_size(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.jpg")
        member.pax_headers = {"size": "3"}
        archive.addfile(member)  # the ustar header says 0, as for sizes that do not fit
        content.write(b"abc".ljust(512, b"\0"))
        archive.offset += 512
        archive.addfile(tarfile.TarInfo("b.jpg"))
    found = {
        entry.name[11:]: entry.stored_image
        for entry in itertools.islice(open_shards(single_shard(tmp_path, content.getvalue())).entries(0, 0), 2)
    }
    assert found == {"a.jpg": b"abc", "b.jpg": b""}


def test_links_and_outside_paths_are_skipped(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, kind in (
            ("a.jpg", tarfile.SYMTYPE),
            ("b.jpg", tarfile.LNKTYPE),
            ("c.jpg", tarfile.FIFOTYPE),
            ("d", tarfile.DIRTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/hostname"
            archive.addfile(member)
        for name in ("/e.jpg", "x/../../f.jpg", "g.jpg"):
            archive.addfile(tarfile.TarInfo(name))
    opened = open_shards(single_shard(tmp_path, content.getvalue()))
    assert [entry.name for entry in itertools.islice(opened.entries(0, 0), 1)] == [
        "only-0.tar/g.jpg"
    ] and opened.count_images() == 1
    assert opened.skipped == {"a link": 2, "a device": 1, "outside the archive": 2}


def truncated_tar(size: int) -> bytes:
    return make_tar(numbered_files(0, 4))[:size]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<html>" * 200, "is not a tar file"),
        (b"\x1f\x8b" + bytes(1000), "is gzip, not tar"),
        (truncated_tar(700), "is truncated"),
        (truncated_tar(1024), "is truncated"),
        (truncated_tar(3000), "is truncated"),
        (truncated_tar(8 * 1024), "is truncated"),
        (truncated_tar(4608) + b"?" * 6000, "is damaged at byte 4,608"),
    ],
    ids=range(8),
)
def test_damaged_shard_error_names_the_shard(tmp_path, content, words):
    source = single_shard(tmp_path, content)
    for read in (
        lambda opened: next(opened.entries(0, 0)),
        lambda opened: opened.count_images(),
        lambda opened: list(opened.entries(0, 1)),
    ):
        with pytest.raises(CardiganError, match=rf"only-0\.tar {words}"):
            read(open_shards(source))


def test_truncation_anywhere_is_detected(tmp_path):
    whole = make_tar(numbered_files(0, 2))
    end = 512 * (2 + 2 + 3 + 2)  # headers and contents of two images and two classes
    open_shards(single_shard(tmp_path, whole[: end + 512])).count_images()
    for size in range(0, end + 512, 64):
        with pytest.raises(CardiganError, match=r"is truncated|is empty"):
            open_shards(single_shard(tmp_path, whole[:size])).count_images()


def test_missing_shards_raise(tmp_path, source):
    (tmp_path / "train-003.tar").unlink()
    with pytest.raises(CardiganError, match=r"train-003\.tar is missing"):
        open_shards(source)
    with pytest.raises(CardiganError, match="names no shards"):
        open_shards(str(tmp_path / "test-*.tar"))
    with pytest.raises(CardiganError, match=r"train-001\.tar twice"):
        open_shards(f"{tmp_path}/train-{{001,002,001}}.tar")


def test_shard_deleted_during_reading_raises(tmp_path, source):
    opened = open_shards(source)
    (tmp_path / "train-003.tar").unlink()
    with pytest.raises(CardiganError, match=r"Cannot read the shard .*train-003\.tar"):
        list(itertools.islice(opened.entries(0, 0), sum(SIZES)))


def test_shards_without_images_raise(tmp_path):
    source = single_shard(tmp_path, make_tar({"a.txt": b"text"}))
    for images_seen in (0, 1):
        with pytest.raises(CardiganError, match="holds no images"):
            next(open_shards(source).entries(0, images_seen))


def test_changed_shard_raises(tmp_path, source):
    opened = open_shards(source)
    entries = opened.entries(0, 0)
    for _ in range(sum(SIZES)):
        next(entries)
    (tmp_path / "train-004.tar").write_bytes(make_tar(numbered_files(4, 2)))
    with pytest.raises(CardiganError, match=r"train-004\.tar was changed: it holds 2 images .* and it held 3"):
        list(itertools.islice(entries, 2 * sum(SIZES)))


def test_fingerprint_covers_names_and_sizes(tmp_path, source):
    before = open_shards(source).fingerprint
    assert open_shards(str(tmp_path)).fingerprint == before
    assert open_shards(f"{tmp_path}/train-{{000..005}}.tar").fingerprint != before
    (tmp_path / "train-004.tar").write_bytes(make_tar(numbered_files(4, 30)))
    assert open_shards(source).fingerprint != before


def test_shard_counts_cache_survives_damage(tmp_path, source):
    counts = tmp_path / "counts.json"
    size = sum(SIZES)
    invalid_entry = b'{"a": {"signature": "", "num_images": "x", "num_bytes": 0, "skipped": {}}}'
    for content in (None, b"", b"[1]", b'{"a": 1}', b'{"a": {}}', invalid_entry, b"\xff"):
        if content is not None:
            counts.write_bytes(content)
        assert open_shards(source, counts).count_images() == size
        assert len(json.loads(counts.read_bytes())) == len(SIZES)
    stored = json.loads(counts.read_bytes())
    old_format = {address: [entry["signature"], [99, entry["num_bytes"], {}]] for address, entry in stored.items()}
    counts.write_text(json.dumps(old_format))
    assert open_shards(source, counts).count_images() == size
    assert json.loads(counts.read_bytes()) == stored
    stored[str(tmp_path / "train-000.tar")]["num_images"] += 1
    counts.write_text(json.dumps(stored))
    assert open_shards(source, counts).count_images() == size + 1  # not counted again
    (tmp_path / "train-000.tar").write_bytes(make_tar(numbered_files(0, 4)))
    assert open_shards(source, counts).count_images() == size - 1  # another size, so it is counted again
    unwritable = tmp_path / "train-000.tar" / "counts.json"
    assert open_shards(source, unwritable).count_images() == size - 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_shard_changes():
    before = [f"data/train-{number}.tar" for number in range(9)]
    assert shard_changes(before, before) == ""
    assert shard_changes(before, before[::-1]) == "the same shards are in another order"
    assert (
        shard_changes(before, [*before[:4], *before[5:], "data/x.tar", "data/y.tar"])
        == "train-4.tar is gone; 2 new: x.tar, y.tar"
    )
    assert shard_changes(before, before[:2]) == "7 are gone: train-2.tar, train-3.tar, train-4.tar and 4 more"
    assert (
        shard_changes(before[:1], ["elsewhere/train-0.tar"]) == "data/train-0.tar is gone; 1 new: elsewhere/train-0.tar"
    )


def background_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "shards"]


class ShardHandler(http.server.BaseHTTPRequestHandler):
    """Serves a folder. Each number in `breaks` ends a response after that many bytes."""

    folder: Path
    ranges: bool
    breaks: list[int]
    requests: list[str | None]

    def do_GET(self) -> None:
        path = self.folder / self.path.strip("/").partition("?")[0]
        self.requests.append(self.headers.get("Range"))
        if not path.is_file():
            self.send_error(404)
            return
        content, start = path.read_bytes(), 0
        if self.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = self.breaks.pop() if self.breaks else len(content)
        self.wfile.write(content[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def run_server(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serve_folder(
    folder: Path, ranges: bool = True, breaks: tuple[int, ...] = ()
) -> Iterator[tuple[str, list[str | None]]]:
    """Serve a folder. `breaks` are the sizes of truncated responses, the last one first."""
    requests: list[str | None] = []
    with run_server(
        type(
            "Handler",
            (ShardHandler,),
            {"folder": folder, "ranges": ranges, "breaks": list(breaks), "requests": requests},
        )
    ) as address:
        yield address, requests


@contextmanager
def handler_returning(respond: Callable[[http.server.BaseHTTPRequestHandler, int], object]) -> Iterator[str]:
    """Pass each request and its index to `respond`."""
    numbers = itertools.count()
    with run_server(
        type("Handler", (ShardHandler,), {"do_GET": lambda request: respond(request, next(numbers))})
    ) as address:
        yield address


@pytest.fixture(autouse=True)
def short_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_streams, "START_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(shard_streams, "FIRST_DELAY_SECONDS", 0.01)


@contextmanager
def closing(entries: Generator) -> Iterator[Generator]:
    try:
        yield entries
    finally:
        entries.close()
        for thread in background_threads():
            thread.join()


@pytest.mark.parametrize("ranges", [True, False])
def test_http_read_resumes_after_disconnect(tmp_path, source, ranges):
    local = open_shards(source)
    with serve_folder(tmp_path, ranges, breaks=(3000, 1500, 2500, 700, 0)) as (address, requests):
        remote = open_shards(f"{address}/train-{{000..006}}.tar?key=secret")
        with closing(remote.entries(3, 0)) as entries:
            found = list(itertools.islice(entries, 2 * sum(SIZES)))
        assert found == list(itertools.islice(local.entries(3, 0), 2 * sum(SIZES)))
        assert open_shards(f"{address}/train-{{000..006}}.tar").count_images() == sum(SIZES)
    assert "bytes=700-" in requests


def test_http_error_messages(tmp_path, source):
    with serve_folder(tmp_path) as (address, requests):
        with pytest.raises(CardiganError, match=r"none\.tar \(HTTP 404 Not Found\)") as caught:
            next(open_shards(f"{address}/none.tar?key=secret").entries(0, 0))
        assert len(requests) == 1 and "secret" not in str(caught.value)
    with serve_folder(tmp_path, breaks=(600,) * 9) as (address, requests):
        with pytest.raises(CardiganError, match=r"train-000\.tar \(the connection broke after 600 of"):
            open_shards(f"{address}/train-000.tar").count_images()
        assert len(requests) > 1 and requests == [None, *["bytes=600-"] * (len(requests) - 1)]
    with pytest.raises(CardiganError, match=r"train-000\.tar \(Connection refused\)"):
        open_shards(f"{address}/train-000.tar").count_images()
    with pytest.raises(CardiganError, match="cannot list files"):
        open_shards(f"{address}/train-*.tar")


def test_shard_changed_during_http_read_raises(tmp_path, source, monkeypatch):
    whole = (tmp_path / "train-003.tar").read_bytes()
    write = (tmp_path / "train-003.tar").write_bytes
    # The file changes between the two requests.
    monkeypatch.setattr(shard_streams.time, "sleep", lambda seconds: write(whole + bytes(512)))
    with (
        serve_folder(tmp_path, breaks=(600,)) as (address, _),
        pytest.raises(CardiganError, match=r"train-003\.tar was changed while it was read"),
    ):
        open_shards(f"{address}/train-003.tar").count_images()


def test_http_timeout(monkeypatch):
    monkeypatch.setattr(shard_streams, "TIMEOUT_SECONDS", 0.05)
    released = threading.Event()
    with handler_returning(lambda request, number: released.wait(20)) as address:
        try:
            with pytest.raises(CardiganError, match=r"a\.tar \(timed out\)"):
                open_shards(f"{address}/a.tar").count_images()
        finally:
            released.set()


@pytest.mark.parametrize("endless", ["of one image", "of many images", "in one file"])
@pytest.mark.parametrize("end", ["close", "forget"])
def test_background_reader_stops_with_iterator(monkeypatch, end, endless):
    monkeypatch.setattr(shards, "GROUP_IMAGES", 1)
    second_started = threading.Event()

    def respond(request: http.server.BaseHTTPRequestHandler, number: int) -> None:
        """Send a complete shard first, then an endless one."""
        request.send_response(200)
        request.end_headers()
        if number == 0:
            request.wfile.write(make_tar({"a.jpg": b""}))
            return
        with contextlib.suppress(OSError):
            if endless == "in one file":
                request.wfile.write(tar_header("a.txt", 1 << 40))
            for written in itertools.count():
                name = f"{written}.jpg" if endless == "of many images" else "a.jpg"
                request.wfile.write((bytes(512) if endless == "in one file" else tar_header(name)) * 100)
                if written == 200:  # more than socket buffers hold, so the reader has read some of it
                    second_started.set()

    with handler_returning(respond) as address:
        entries = open_shards(f"{address}/{{0,1}}.tar").entries(0, 0)
        next(entries)
        assert second_started.wait(60) and background_threads()
        if end == "close":
            entries.close()
        else:
            del entries
        stopped = time.monotonic()
        while background_threads():
            assert time.monotonic() - stopped < 10, "the thread did not stop"
            time.sleep(0.01)


def test_fsspec_file_systems(tmp_path, source):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    for path in tmp_path.glob("train-*.tar"):
        memory.pipe(f"/shards/{path.name}", path.read_bytes())
    try:
        expected = entry_names(source, 2 * sum(SIZES))
        for pattern in ("memory://shards/train-{000..006}.tar", "memory://shards/train-*.tar"):
            assert is_shards(pattern) and entry_names(pattern, 2 * sum(SIZES)) == expected
            assert open_shards(pattern).count_images() == sum(SIZES)
        with pytest.raises(CardiganError, match=r"none\.tar"):
            open_shards("memory://shards/none.tar").count_images()
    finally:
        memory.rm("/shards", recursive=True)
    with pytest.raises(CardiganError, match=r"nowhere://a\.tar"):
        open_shards("nowhere://a.tar").count_images()


@pytest.mark.alone
def test_read_ahead_is_paced(tmp_path, monkeypatch):
    """Memory holds the bytes of about one group, not of two."""
    for number in range(6):
        (tmp_path / f"train-{number:03}.tar").write_bytes(
            make_tar({f"{number}-{image}.jpg": bytes(1000) for image in range(50)})
        )
    monkeypatch.setattr(shards, "GROUP_IMAGES", 50)
    monkeypatch.setattr(shards, "READ_AHEAD_BYTES", 5000)
    read = []

    def counting_read_images(*args):
        for image in read_images(*args):
            read.append(image.size)
            yield image

    read_images = shards.read_images
    monkeypatch.setattr(shards, "read_images", counting_read_images)
    entries = open_shards(f"{tmp_path}/train-{{000..005}}.tar").entries(0, 0)
    held = []
    for taken, _ in zip(range(1, 301), entries, strict=False):
        time.sleep(0.001)  # lets the thread read all that is allowed
        held.append(sum(read) - 1000 * taken)
    entries.close()
    assert max(held) <= 50_000 + 5000 + 1000  # the group, the read-ahead, and the image that waits for room
    assert min(held) >= 40_000


def test_run_name_omits_url_query():
    assert (
        default_run_name("https://host/train.tar?token=secret.too")
        == default_run_name("https://host/train.tar")
        == "train"
    )
