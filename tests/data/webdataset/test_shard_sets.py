"""Shards of training and test sets, checks of sets, retries, and copies that the processes of a node share."""

import http.server
import io
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cardigan.cli.main import run
from cardigan.config_parts import DataConfig
from cardigan.data.datasets import open_datasets
from cardigan.data.webdataset import byte_stream, node_copies
from cardigan.data.webdataset.shards import open_shards
from cardigan.errors import CardiganError
from cardigan.run.journal import read_events


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_shard(path: Path, num_images: int = 8, first: int = 0, mode: str = "w") -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for number in range(first, first + num_images):
            image = io.BytesIO()
            pixels = np.random.default_rng(number).integers(0, 256, (16, 16), np.uint8)
            Image.fromarray(pixels).save(image, "PNG")
            for name, content in ((f"{number}.png", image.getvalue()), (f"{number}.cls", b"%d" % (number % 2))):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def shard_names(source: object, **settings: bool) -> list[str]:
    return [Path(address).name for address in open_shards(str(source), **settings).addresses]


# Training and test sets


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train-0.tar", "test-0.tar"),
        ("cc3m-train-0001.tar", "cc3m-validation-0001.tar"),
        ("train.tar.gz", "val.tar.gz"),
        ("Training_0.tar", "dev_0.tar"),
    ],
)
def test_shards_of_a_test_set_are_left_out_and_it_is_said(tmp_path, train, test):
    for name in (train, test):
        write_shard(tmp_path / "p" / name, mode="w:gz" if name.endswith("gz") else "w")
    pattern = f"{tmp_path}/p/*{''.join(Path(train).suffixes)}"
    for source in (tmp_path / "p", pattern):
        assert shard_names(source) == [train]
        assert shard_names(source, all_parts=True) == sorted([train, test])
        (note,) = open_shards(str(source)).notes
        assert note.startswith(f"images: 1 shards such as {test} are not read") and "--data.split all" in note
    assert shard_names(f"{tmp_path}/p/{{{train},{test}}}") == [train, test]


def test_test_shards_alone_are_trained_on(tmp_path):
    for name in ("test-0.tar", "test-1.tar", "contest-2.tar"):
        write_shard(tmp_path / "p" / name)
    assert len(shard_names(tmp_path / "p")) == 3
    write_shard(tmp_path / "p" / "train-0.tar")
    assert shard_names(tmp_path / "p") == ["contest-2.tar", "train-0.tar"]


def test_split_of_shards(tmp_path):
    write_shard(tmp_path / "p" / "train-0.tar")
    write_shard(tmp_path / "p" / "test-0.tar", first=100)
    found = open_datasets(DataConfig(source=str(tmp_path / "p"), num_workers=0))
    assert len(found.train) == 8 and "are not read" in found.messages[0]
    found = open_datasets(DataConfig(source=str(tmp_path / "p"), num_workers=0, split="all"))
    assert len(found.train) == 16 and not found.messages
    with pytest.raises(CardiganError, match="name the test shards"):
        open_datasets(DataConfig(source=str(tmp_path / "p"), num_workers=0, split="test"))


# Checks


@pytest.mark.parametrize("compressed", [False, True])
def test_check_reads_a_set_of_shards(tmp_path, capsys, compressed):
    suffix, mode = (".tar.gz", "w:gz") if compressed else (".tar", "w")
    for number in range(3):
        write_shard(tmp_path / "p" / f"train-{number}{suffix}", 5, first=4 * number, mode=mode)  # two duplicates
    write_shard(tmp_path / "p" / f"test-0{suffix}", 7, mode=mode)
    words = ["check", str(tmp_path / "p"), "--json", "--write-clean", str(tmp_path / "clean.zip")]
    assert run([*words, "--contact-sheet", str(tmp_path / "sheet.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_images"] == 15 and found["class_balance"]["counts"] == {"0": 9, "1": 6}
    pairs = [[member["name"] for member in group["members"]] for group in found["duplicates"]]
    expected = [
        [f"train-{each}{suffix}/{name}", f"train-{each + 1}{suffix}/{name}"]
        for each, name in enumerate(("4.png", "8.png"))
    ]
    assert sorted(map(sorted, pairs)) == expected
    assert found["written"]["num_clean_images"] == 13 and (tmp_path / "sheet.png").exists()
    assert found["notes"] == ["images: 1 shards of a test set are not read"]


# Servers


class Server:
    """Serves a folder over HTTP and counts the requests. While `is_down`, it answers 503."""

    def __init__(self, folder: Path) -> None:
        self.requests, self.is_down, self.delay_seconds = Counter[str](), False, 0.0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests[self.path.strip("/")] += 1
                time.sleep(server.delay_seconds)
                content = (folder / self.path.strip("/")).read_bytes()
                self.send_response(503 if server.is_down else 200)
                self.send_header("Content-Length", str(0 if server.is_down else len(content)))
                self.end_headers()
                self.wfile.write(b"" if server.is_down else content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.source = f"http://127.0.0.1:{self.http.server_port}/train-{{0..3}}.tar"


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    for number in range(4):
        write_shard(tmp_path / "p" / f"train-{number}.tar", first=8 * number)
    server = Server(tmp_path / "p")
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def test_training_waits_for_a_server_as_long_as_is_set(server, monkeypatch):
    monkeypatch.setattr(byte_stream, "FIRST_DELAY_SECONDS", 0.1)
    monkeypatch.setattr(byte_stream, "START_RETRY_SECONDS", 0.0)
    for seconds in (20.0, 0.3):
        data = DataConfig(source=server.source, num_workers=0, retry_seconds=seconds)
        stream = open_datasets(data).make_stream(0, 8, slice(0, 8))(0)
        server.is_down = True
        timer = threading.Timer(1.5, setattr, (server, "is_down", False))
        timer.start()
        if seconds > 1.5:
            assert len(next(stream)[0]) == 8
        else:
            with pytest.raises(CardiganError, match="HTTP 503"):
                next(stream)
        timer.join()
        stream.close()


@pytest.mark.parametrize("value", ["-1", "100000"])
def test_invalid_retry_seconds(capsys, value):
    assert run(["train", "https://host/{0..1}.tar", f"--data.retry-seconds={value}"]) == 2
    assert f"data.retry_seconds is {float(value)}: expected 0 to 86,400" in capsys.readouterr().err


def test_signal_ends_the_wait_for_a_server_and_saves(server, tmp_path):
    words = ["train", server.source, "--images", "1000000", "--out", str(tmp_path / "run"), "--quiet", "--size", "16"]
    words += ["--batch-size", "16", "--generator.width", "4", "--discriminator.width", "4", "--device", "cpu"]
    words += ["--recipe", "images-dcgan"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "cardigan", *words], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        wait_until(lambda: any(event.images_seen for event in read_events(tmp_path / "run" / "journal.jsonl")), process)
        server.is_down = True
        before = server.requests.total()
        wait_until(lambda: server.requests.total() > before + 2, process)  # it retries
        time.sleep(1)  # it has used what was read
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in errors, errors
    stop = read_events(tmp_path / "run" / "journal.jsonl")[-1]
    assert (stop.kind, stop.values["reason"]) == ("stop", "SIGTERM")
    assert (tmp_path / "run" / "checkpoints" / f"{stop.images_seen:08}" / "state.json").exists()


def wait_until(condition, process: subprocess.Popen, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr and process.stderr.read()
        time.sleep(0.05)


def close_and_wait(entries: Generator) -> None:
    """Close the stream and wait until the shard that is read ahead, which is asked to stop, has ended."""
    entries.close()
    for thread in threading.enumerate():
        if thread.name == "shards":
            thread.join(timeout=60)
            assert not thread.is_alive()


# Copies that the processes of a node share

READING = """
import itertools, sys
from cardigan.data.webdataset.shards import open_shards
entries = open_shards(sys.argv[1]).entries(0, 0)
for entry in itertools.islice(entries, int(sys.argv[2])):
    print(entry.name, flush=True)
entries.close()
"""


def start_reading(source: str, count: int, **settings: str) -> subprocess.Popen:
    environment = {**os.environ, "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "job", **settings}
    words = [sys.executable, "-c", READING, source, str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)


def test_processes_of_a_node_fetch_each_shard_once(server):
    server.delay_seconds = 0.2
    processes = [start_reading(server.source, 64) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert outputs[0] == outputs[1] and len(outputs[0].split()) == 64
    assert server.requests == {f"train-{number}.tar": 1 for number in range(4)}
    other, alone = (
        start_reading(server.source, 32, TORCHELASTIC_RUN_ID="other"),
        start_reading(server.source, 32, LOCAL_WORLD_SIZE="1"),
    )
    assert other.communicate(timeout=120)[0] == alone.communicate(timeout=120)[0]
    assert server.requests["train-0.tar"] >= 3  # another run, and a process without others, read for themselves


def test_thread_that_reads_ahead_does_not_enter_torch(server, monkeypatch):
    """A thread inside torch while Python ends would abort the process."""
    threads, randperm = [], torch.randperm

    def noted_randperm(*arguments, **settings):
        threads.append(threading.current_thread())
        return randperm(*arguments, **settings)

    monkeypatch.setattr(torch, "randperm", noted_randperm)
    entries = open_shards(server.source).entries(0, 0)
    assert len([next(entries) for _ in range(70)]) == 70  # into the second epoch
    entries.close()
    assert set(threads) == {threading.main_thread()}


def test_killed_process_leaves_its_shard_to_the_others(server, cache):
    server.delay_seconds = 3
    killed = start_reading(server.source, 32)
    wait_until(server.requests.total, killed)
    waiting = start_reading(server.source, 32)
    killed.kill()
    killed.communicate()
    server.delay_seconds = 0
    output, _ = waiting.communicate(timeout=120)
    assert len(output.split()) == 32 and waiting.returncode == 0
    assert not list(cache.rglob(".tmp-*"))


def test_copies_are_bounded(server, cache, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(node_copies, "MAX_BYTES", 25_000)
    entries = open_shards(server.source).entries(0, 0)
    assert len(list(itertools.islice(entries, 64))) == 64
    close_and_wait(entries)
    copies = [path for path in (cache / "shards" / "copies").rglob("*") if path.is_file() and path.name != "lock"]
    assert 1 <= len(copies) < 4 and sum(path.stat().st_size for path in copies) <= 25_000


def test_full_disk_reads_from_the_server(monkeypatch, server, cache):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # writing more fails, as on a full disk
    try:
        entries = open_shards(server.source).entries(0, 0)
        assert len(list(itertools.islice(entries, 32))) == 32
        close_and_wait(entries)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["lock"]


def test_copies_of_abandoned_runs_are_removed(server, cache, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    old, recent = cache / "shards" / "copies" / "old", cache / "shards" / "copies" / "recent"
    for folder in (old, recent):
        folder.mkdir(parents=True)
        (folder / "copy").write_bytes(b"1")
    os.utime(old, (1.0, 1.0))
    entries = open_shards(server.source).entries(0, 0)
    next(entries)
    close_and_wait(entries)
    assert recent.exists() and not old.exists()
