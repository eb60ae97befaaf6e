"""Streams of tar shards: every picture once an epoch, the same order from any point on, and faults told by the shard's name."""

import contextlib
import http.server
import io
import itertools
import json
import re
import tarfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cardigan.data.pictures import called
from cardigan.data.sharded import opened as shard_streams
from cardigan.data.sharded import shards
from cardigan.data.sharded.names import expanded
from cardigan.data.sharded.shards import difference, is_shards, open_shards
from cardigan.errors import CardiganError

SIZES = [5, 0, 1, 9, 3, 3, 7]


def packed(files: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=format) as archive:
        for name, stored in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(stored)
            archive.addfile(member, io.BytesIO(stored))
    return content.getvalue()


def header(name: str, size: int = 0) -> bytes:
    """Return what stands before a file in a tar file."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def numbered(shard: int, count: int) -> dict[str, bytes]:
    """Return the files of some pictures, of different lengths, each with the number of its shard as its class."""
    files = {}
    for picture in range(count):
        files[f"{shard}-{picture}.jpg"] = f"picture {shard} {picture}".encode() * (1 + 90 * (picture % 3))
        files[f"{shard}-{picture}.cls"] = str(shard).encode()
    return files


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Shards of unequal size, of which a few make a group."""
    monkeypatch.setattr(shards, "GROUP_PICTURES", 6)
    for number, count in enumerate(SIZES):
        (tmp_path / f"train-{number:03}.tar").write_bytes(packed(numbered(number, count)))
    return f"{tmp_path}/train-{{000..{len(SIZES) - 1:03}}}.tar"


def titles(source: str, count: int, seed: int = 0, images_seen: int = 0, counts: Path | None = None) -> list[str]:
    entries = open_shards(source, counts).entries(seed, images_seen)
    return [entry.title for entry in itertools.islice(entries, count)]


def only(tmp_path: Path, content: bytes) -> str:
    """Return the source of a single shard; a list of one makes it no archive."""
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
def test_braces(pattern, names):
    assert expanded(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..999999999}.tar", "{0..9999}{0..9999}.tar", "{a{0..1},b}.tar", "{0..1.tar", "0}.tar", "{a}.tar", "{}.tar"])
def test_braces_that_mean_nothing_are_told(pattern):
    with pytest.raises(CardiganError, match=re.escape(pattern)):
        expanded(pattern)


def test_what_shards_are(tmp_path, source):
    one = tmp_path / "train-000.tar"
    assert is_shards(source) and is_shards(str(tmp_path / "*.tar")) and is_shards(str(tmp_path)) and is_shards(f"{tmp_path}/{{a.tar,b.tar}}")
    assert is_shards("https://host/a.tar?key=1") and is_shards("s3://bucket/a-{0..3}.tar")
    assert not is_shards(str(one)) and not is_shards(str(tmp_path / "none.tar")) and not is_shards("mnist") and not is_shards("https://host/a.zip")
    given = [str(tmp_path / f"train-{number:03}.tar") for number in range(len(SIZES))]
    for way in (source, str(tmp_path / "*.tar"), str(tmp_path), f"{tmp_path}/train-*[0-9].tar"):
        assert list(open_shards(way).addresses) == given
    assert list(open_shards(f"{tmp_path}/train-{{003,001}}.tar").addresses) == [given[3], given[1]]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.png", "old.tar", "older.tar", "._a.tar"):
        (pictures / name).touch()
    assert not is_shards(str(pictures))
    (pictures / "oldest.tar").touch()
    assert is_shards(str(pictures)) and len(open_shards(str(pictures)).addresses) == 3


def test_an_epoch_is_a_permutation_and_seeds_differ(source):
    size = sum(SIZES)
    every = sorted(f"train-{shard:03}.tar/{shard}-{picture}.jpg" for shard, count in enumerate(SIZES) for picture in range(count))
    seen = titles(source, 3 * size)
    epochs = [seen[start : start + size] for start in range(0, 3 * size, size)]
    assert [sorted(epoch) for epoch in epochs] == [every] * 3
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert open_shards(source).count() == size
    assert titles(source, size, seed=1) != epochs[0]
    assert titles(source, 3 * size) == seen


def test_pictures_of_a_group_are_mixed(source, monkeypatch):
    monkeypatch.setattr(shards, "GROUP_PICTURES", 8192)
    seen = [title.partition("/")[0] for title in titles(source, sum(SIZES))]
    assert len(list(itertools.groupby(seen))) > 2 * len(SIZES)
    monkeypatch.setattr(shards, "GROUP_BYTES", 1)  # full with any picture: the shards come one after the other
    seen = [title.partition("/")[0] for title in titles(source, sum(SIZES))]
    assert len(list(itertools.groupby(seen))) == sum(size > 0 for size in SIZES)


def test_a_shard_is_shuffled_anew_each_epoch(tmp_path):
    seen = titles(only(tmp_path, packed(numbered(0, 20))), 60)
    epochs = {tuple(seen[start : start + 20]) for start in (0, 20, 40)}
    assert len(epochs) == 3 and len({tuple(sorted(epoch)) for epoch in epochs}) == 1


@pytest.mark.parametrize("bytes_of_a_group", [1 << 29, 3000])
def test_resuming_anywhere_goes_on_as_if_never_stopped(source, tmp_path, monkeypatch, bytes_of_a_group):
    monkeypatch.setattr(shards, "GROUP_BYTES", bytes_of_a_group)
    size = sum(SIZES)
    seen = titles(source, 3 * size + 12)
    counts = tmp_path / "kept" / "counts.json"
    known = open_shards(source)
    for point in range(3 * size + 1):
        entries = known.entries(0, point)
        assert [entry.title for entry in itertools.islice(entries, 12)] == seen[point : point + 12]
        if point % 7 == 3:
            assert titles(source, 12, images_seen=point) == seen[point : point + 12]  # counted anew
            assert titles(source, 12, images_seen=point, counts=counts) == seen[point : point + 12]
    assert titles(source, 3, images_seen=1_000_000 * size + 5) == titles(source, 8, images_seen=1_000_000 * size)[5:]


def test_only_what_must_be_known_is_counted(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "GROUP_PICTURES", 1)
    first = titles(source, 1)[0].partition("/")[0]
    for number, count in enumerate(SIZES):
        if f"train-{number:03}.tar" != first and count:
            (tmp_path / f"train-{number:03}.tar").write_bytes(b"no tar".ljust(512))
    entries = open_shards(source).entries(0, 0)
    assert next(entries).title.startswith(first)
    with pytest.raises(CardiganError, match="is not a tar file"):
        list(itertools.islice(entries, sum(SIZES)))


def test_labels_and_contents(tmp_path):
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
    source = only(tmp_path, packed(files))
    opened = open_shards(source)
    found = {entry.title.partition("/")[2]: (entry.stored, entry.label) for entry in itertools.islice(opened.entries(0, 0), 10)}
    assert found == {
        "a/1.jpg": (b"one", 7), "a/2.JPG": (b"two", "dog"), "a/3.png": (b"three", 4), "b/3.seg.png": (b"another folder", "cat"),
        "c.jpg": (b"c", None), "d.jpg": (b"d", None), "e.jpg": (b"", 2), "f.jpg": (b"f", None), "g.1.jpg": (b"first", None), "h.jpg": (b"h", None),
    }  # fmt: skip
    assert opened.passed_over == {"not a picture": 1, "another picture of the same key": 1, "hidden": 1}
    again = open_shards(source)
    assert again.count() == 10 and again.passed_over == opened.passed_over


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_formats(tmp_path, format):
    name = "/".join(["a" * 60] * 2) + "/é.jpg" if format == tarfile.USTAR_FORMAT else "/".join(["ä" * 60] * 5) + "/é.jpg"
    source = only(tmp_path, packed({name: b"x" * 2_500_000, "b.jpg": b"y"}, format))
    found = {entry.title: entry.stored for entry in itertools.islice(open_shards(source).entries(0, 0), 2)}
    assert found == {f"only-0.tar/{name}": b"x" * 2_500_000, "only-0.tar/b.jpg": b"y"}


def test_a_size_in_a_pax_header_counts(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.jpg")
        member.pax_headers = {"size": "3"}
        archive.addfile(member)  # whose own header says 0, as for sizes that do not fit
        content.write(b"abc".ljust(512, b"\0"))
        archive.offset += 512
        archive.addfile(tarfile.TarInfo("b.jpg"))
    found = {entry.title[11:]: entry.stored for entry in itertools.islice(open_shards(only(tmp_path, content.getvalue())).entries(0, 0), 2)}
    assert found == {"a.jpg": b"abc", "b.jpg": b""}


def test_links_and_what_leaves_the_archive_are_passed_over(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, kind in (("a.jpg", tarfile.SYMTYPE), ("b.jpg", tarfile.LNKTYPE), ("c.jpg", tarfile.FIFOTYPE), ("d", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/hostname"
            archive.addfile(member)
        for name in ("/e.jpg", "x/../../f.jpg", "g.jpg"):
            archive.addfile(tarfile.TarInfo(name))
    opened = open_shards(only(tmp_path, content.getvalue()))
    assert [entry.title for entry in itertools.islice(opened.entries(0, 0), 1)] == ["only-0.tar/g.jpg"] and opened.count() == 1
    assert opened.passed_over == {"a link": 2, "a device": 1, "outside the archive": 2}


def cut(size: int) -> bytes:
    return packed(numbered(0, 4))[:size]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<html>" * 200, "is not a tar file"),
        (b"\x1f\x8b" + bytes(1000), "is gzip, not tar"),
        (cut(700), "is cut off"),
        (cut(1024), "is cut off"),
        (cut(3000), "is cut off"),
        (cut(8 * 1024), "is cut off"),
        (cut(4608) + b"?" * 6000, "is damaged at byte 4,608"),
    ],
    ids=range(8),
)
def test_broken_shards_are_told_by_name(tmp_path, content, words):
    source = only(tmp_path, content)
    for deed in (lambda opened: next(opened.entries(0, 0)), lambda opened: opened.count(), lambda opened: list(opened.entries(0, 1))):
        with pytest.raises(CardiganError, match=rf"only-0\.tar {words}"):
            deed(open_shards(source))


def test_every_cut_is_noticed(tmp_path):
    whole = packed(numbered(0, 2))
    end = 512 * (2 + 2 + 3 + 2)  # headers and contents of two pictures and two classes
    open_shards(only(tmp_path, whole[: end + 512])).count()
    for size in range(0, end + 512, 64):
        with pytest.raises(CardiganError, match=r"is cut off|is empty"):
            open_shards(only(tmp_path, whole[:size])).count()


def test_missing_shards_are_told(tmp_path, source):
    (tmp_path / "train-003.tar").unlink()
    with pytest.raises(CardiganError, match=r"train-003\.tar is not there"):
        open_shards(source)
    with pytest.raises(CardiganError, match="names no shards"):
        open_shards(str(tmp_path / "test-*.tar"))
    with pytest.raises(CardiganError, match=r"train-001\.tar twice"):
        open_shards(f"{tmp_path}/train-{{001,002,001}}.tar")


def test_a_shard_that_goes_while_it_is_needed_is_told(tmp_path, source):
    opened = open_shards(source)
    (tmp_path / "train-003.tar").unlink()
    with pytest.raises(CardiganError, match=r"Cannot read the shard .*train-003\.tar"):
        list(itertools.islice(opened.entries(0, 0), sum(SIZES)))


def test_shards_without_pictures_are_told(tmp_path):
    source = only(tmp_path, packed({"a.txt": b"text"}))
    for images_seen in (0, 1):
        with pytest.raises(CardiganError, match="holds no pictures"):
            next(open_shards(source).entries(0, images_seen))


def test_a_shard_that_changed_between_passes_is_told(tmp_path, source):
    opened = open_shards(source)
    entries = opened.entries(0, 0)
    for _ in range(sum(SIZES)):
        next(entries)
    (tmp_path / "train-004.tar").write_bytes(packed(numbered(4, 2)))
    with pytest.raises(CardiganError, match=r"train-004\.tar was changed: it holds 2 pictures .* and 3"):
        list(itertools.islice(entries, 2 * sum(SIZES)))


def test_the_fingerprint_is_of_names_and_sizes(tmp_path, source):
    before = open_shards(source).fingerprint
    assert open_shards(str(tmp_path)).fingerprint == before
    assert open_shards(f"{tmp_path}/train-{{000..005}}.tar").fingerprint != before
    (tmp_path / "train-004.tar").write_bytes(packed(numbered(4, 30)))
    assert open_shards(source).fingerprint != before


def test_counts_are_kept_and_damage_to_them_costs_only_time(tmp_path, source):
    counts = tmp_path / "counts.json"
    size = sum(SIZES)
    for content in (None, b"", b"[1]", b'{"a": 1}', b'{"a": ["", ["x", 0, {}]]}', b"\xff"):
        if content is not None:
            counts.write_bytes(content)
        assert open_shards(source, counts).count() == size
        assert len(json.loads(counts.read_bytes())) == len(SIZES)
    kept = json.loads(counts.read_bytes())
    name = str(tmp_path / "train-000.tar")
    kept[name][1][0] += 1
    counts.write_text(json.dumps(kept))
    assert open_shards(source, counts).count() == size + 1  # it was not counted again
    (tmp_path / "train-000.tar").write_bytes(packed(numbered(0, 4)))
    assert open_shards(source, counts).count() == size - 1  # another size: what was kept is of another file
    assert open_shards(source, tmp_path / "train-000.tar" / "counts.json").count() == size - 1  # where nothing can be kept
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_difference():
    before = [f"data/train-{number}.tar" for number in range(9)]
    assert difference(before, before) == ""
    assert difference(before, before[::-1]) == "the same shards stand in another order"
    assert difference(before, [*before[:4], *before[5:], "data/x.tar", "data/y.tar"]) == "train-4.tar is gone; 2 new: x.tar, y.tar"
    assert difference(before, before[:2]) == "7 are gone: train-2.tar, train-3.tar, train-4.tar and 4 more"
    assert difference(before[:1], ["elsewhere/train-0.tar"]) == "data/train-0.tar is gone; 1 new: elsewhere/train-0.tar"


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "shards"]


class Server(http.server.BaseHTTPRequestHandler):
    """Serves a folder; breaks off after some bytes as often as it is told to."""

    folder: Path
    ranges: bool
    breaks: list[int]
    asked: list[str | None]

    def do_GET(self) -> None:
        path = self.folder / self.path.strip("/").partition("?")[0]
        self.asked.append(self.headers.get("Range"))
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
def running(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def served(folder: Path, ranges: bool = True, breaks: tuple[int, ...] = ()) -> Iterator[tuple[str, list[str | None]]]:
    """Serve a folder; `breaks` are the bytes that answers end at, the last one first."""
    asked: list[str | None] = []
    with running(type("Handler", (Server,), {"folder": folder, "ranges": ranges, "breaks": list(breaks), "asked": asked})) as address:
        yield address, asked


@contextmanager
def answering(answer: Callable[[http.server.BaseHTTPRequestHandler, int], object]) -> Iterator[str]:
    """Give each request, with the number of those before it, to a function."""
    numbers = itertools.count()
    with running(type("Handler", (Server,), {"do_GET": lambda request: answer(request, next(numbers))})) as address:
        yield address


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_streams, "WAITS", (0.0, 0.0, 0.0))


@contextmanager
def closing(entries: Generator) -> Iterator[Generator]:
    try:
        yield entries
    finally:
        entries.close()
        for thread in readers():
            thread.join()


@pytest.mark.parametrize("ranges", [True, False])
def test_over_http_a_broken_connection_is_taken_up_again(tmp_path, source, ranges):
    here = open_shards(source)
    with served(tmp_path, ranges, breaks=(3000, 1500, 2500, 700, 0)) as (address, asked):
        there = open_shards(f"{address}/train-{{000..006}}.tar?key=secret")
        with closing(there.entries(3, 0)) as entries:
            found = list(itertools.islice(entries, 2 * sum(SIZES)))
        assert found == list(itertools.islice(here.entries(3, 0), 2 * sum(SIZES)))
        assert open_shards(f"{address}/train-{{000..006}}.tar").count() == sum(SIZES)
    assert "bytes=700-" in asked


def test_http_gives_up_in_words(tmp_path, source):
    with served(tmp_path) as (address, asked):
        with pytest.raises(CardiganError, match=r"none\.tar \(HTTP 404 Not Found\)") as told:
            next(open_shards(f"{address}/none.tar?key=secret").entries(0, 0))
        assert len(asked) == 1 and "secret" not in str(told.value)
    with served(tmp_path, breaks=(600,) * 9) as (address, asked):
        with pytest.raises(CardiganError, match=r"train-000\.tar \(the connection broke after 600 of"):
            open_shards(f"{address}/train-000.tar").count()
        assert asked == [None, "bytes=600-", "bytes=600-", "bytes=600-"]
    with pytest.raises(CardiganError, match=r"train-000\.tar \(Connection refused\)"):
        open_shards(f"{address}/train-000.tar").count()
    with pytest.raises(CardiganError, match="cannot be searched"):
        open_shards(f"{address}/train-*.tar")


def test_a_shard_that_changes_while_it_is_read_over_http_is_told(tmp_path, source, monkeypatch):
    whole = (tmp_path / "train-003.tar").read_bytes()
    changed = (tmp_path / "train-003.tar").write_bytes
    monkeypatch.setattr(shard_streams.time, "sleep", lambda seconds: changed(whole + bytes(512)))  # between the two requests
    with served(tmp_path, breaks=(600,)) as (address, _), pytest.raises(CardiganError, match=r"train-003\.tar was changed while it was read"):
        open_shards(f"{address}/train-003.tar").count()


def test_a_silent_server_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(shard_streams, "TIMEOUT", 0.05)
    released = threading.Event()
    with answering(lambda request, number: released.wait(20)) as address:
        try:
            with pytest.raises(CardiganError, match=r"a\.tar \(timed out\)"):
                open_shards(f"{address}/a.tar").count()
        finally:
            released.set()


@pytest.mark.parametrize("endless", ["of one picture", "of many pictures", "in one file"])
@pytest.mark.parametrize("end", ["close", "forget"])
def test_reading_ahead_ends_with_the_iterator(monkeypatch, end, endless):
    monkeypatch.setattr(shards, "GROUP_PICTURES", 1)
    in_the_middle = threading.Event()

    def answer(request: http.server.BaseHTTPRequestHandler, number: int) -> None:
        """Send a whole shard first, then one without an end."""
        request.send_response(200)
        request.end_headers()
        if number == 0:
            request.wfile.write(packed({"a.jpg": b""}))
            return
        with contextlib.suppress(OSError):
            if endless == "in one file":
                request.wfile.write(header("a.txt", 1 << 40))
            for written in itertools.count():
                name = f"{written}.jpg" if endless == "of many pictures" else "a.jpg"
                request.wfile.write((bytes(512) if endless == "in one file" else header(name)) * 100)
                if written == 200:  # more than sockets hold: the reader has taken some of it
                    in_the_middle.set()

    with answering(answer) as address:
        entries = open_shards(f"{address}/{{0,1}}.tar").entries(0, 0)
        next(entries)
        assert in_the_middle.wait(60) and readers()
        if end == "close":
            entries.close()
        else:
            del entries
        stopped = time.monotonic()
        while readers():
            assert time.monotonic() - stopped < 10, "the thread goes on"
            time.sleep(0.01)


def test_any_file_system_of_fsspec(tmp_path, source):
    memory = pytest.importorskip("fsspec").filesystem("memory")
    for path in tmp_path.glob("train-*.tar"):
        memory.pipe(f"/shards/{path.name}", path.read_bytes())
    try:
        expected = titles(source, 2 * sum(SIZES))
        for way in ("memory://shards/train-{000..006}.tar", "memory://shards/train-*.tar"):
            assert is_shards(way) and titles(way, 2 * sum(SIZES)) == expected
            assert open_shards(way).count() == sum(SIZES)
        with pytest.raises(CardiganError, match=r"none\.tar"):
            open_shards("memory://shards/none.tar").count()
    finally:
        memory.rm("/shards", recursive=True)
    with pytest.raises(CardiganError, match=r"nowhere://a\.tar"):
        open_shards("nowhere://a.tar").count()


@pytest.mark.alone
def test_the_next_group_is_read_no_faster_than_this_one_is_used(tmp_path, monkeypatch):
    """So that memory holds one group's bytes, not two by turns."""
    for number in range(6):
        (tmp_path / f"train-{number:03}.tar").write_bytes(packed({f"{number}-{picture}.jpg": bytes(1000) for picture in range(50)}))
    monkeypatch.setattr(shards, "GROUP_PICTURES", 50)
    monkeypatch.setattr(shards, "AHEAD_BYTES", 5000)
    read = []

    def counted(*given):
        for picture in plain(*given):
            read.append(picture.size)
            yield picture

    plain = shards.pictures
    monkeypatch.setattr(shards, "pictures", counted)
    entries = open_shards(f"{tmp_path}/train-{{000..005}}.tar").entries(0, 0)
    held = []
    for taken, _ in zip(range(1, 301), entries, strict=False):
        time.sleep(0.001)  # the thread has time to read all it may
        held.append(sum(read) - 1000 * taken)
    entries.close()
    assert max(held) <= 50_000 + 5000 + 1000  # the group, what may be read ahead, and the picture that waits for room
    assert min(held) >= 40_000


def test_a_run_is_not_named_after_a_password():
    assert called("https://host/train.tar?token=secret.too") == called("https://host/train.tar") == "train"
