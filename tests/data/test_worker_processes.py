"""Decoding processes: a killed one is noticed at once, even in the middle of a large chunk, and none is left behind."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardigan.data.worker_processes import WorkerDied, WorkerProcesses
from cardigan.run.checkpoint import list_checkpoints

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
LARGE = 300_000
"""Bytes of a chunk: more than the 64 KB that a pipe holds."""


def large_chunks(tasks):
    for (number,) in tasks:
        yield np.full(LARGE, number, np.uint8)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=60.0):
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds
        time.sleep(0.01)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_chunks_come_in_order(num_workers):
    processes = WorkerProcesses(large_chunks, num_workers)
    assert [chunk[0] for chunk in processes.chunks_of([number] for number in range(40))] == list(range(40))
    processes.stop()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_process_killed_in_the_middle_of_a_chunk_is_noticed_at_once(num_workers):
    before = set(children(os.getpid()))
    processes = WorkerProcesses(large_chunks, num_workers)
    chunks = processes.chunks_of([number] for number in range(40))
    next(chunks)
    time.sleep(0.3)  # every process has filled its pipe with the start of its next chunk
    victim = min(set(children(os.getpid())) - before)
    os.kill(victim, signal.SIGKILL)
    started_at = time.monotonic()
    with pytest.raises(WorkerDied, match="killed by signal 9"):
        list(chunks)
    assert time.monotonic() - started_at < 2
    processes.stop()
    assert set(children(os.getpid())) == before


def test_unexpected_exception_is_raised_with_its_traceback():
    def load(tasks):
        for _ in tasks:
            raise KeyError("no such column")
            yield

    processes = WorkerProcesses(load, 1)
    with pytest.raises(RuntimeError, match="KeyError: 'no such column'"):
        list(processes.chunks_of([[0]]))
    processes.stop()


def shards(path: Path) -> str:
    path.mkdir()
    for shard in range(2):
        with tarfile.open(path / f"train-{shard}.tar", "w") as tar:
            for number in range(40):
                noise = np.random.default_rng(100 * shard + number).integers(0, 256, (48, 48, 3), np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(noise).save(buffer, "PNG")
                info = tarfile.TarInfo(f"{shard}{number:03}.png")
                info.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(info, buffer)
    return str(path / "train-{0..1}.tar")


def image_folder(path: Path) -> str:
    path.mkdir()
    for number in range(80):
        noise = np.random.default_rng(number).integers(0, 256, (48, 48, 3), np.uint8)
        Image.fromarray(noise).save(path / f"{number}.png")
    return str(path)


@pytest.mark.parametrize(("make_source", "options"), [(shards, []), (image_folder, ["--data.cache=none"])])
def test_killed_decoder_ends_training_with_the_state_saved(tmp_path, make_source, options):
    out = tmp_path / "run"
    words = [sys.executable, "-m", "cardigan", "train", make_source(tmp_path / "images"), "--images=1000000", *options]
    words += ["--batch-size=32", "--size=32", "--generator.width=4", "--discriminator.width=4", "--precision=fp32"]
    words += ["--recipe=images-dcgan", "--quiet", "--out", str(out)]
    environment = {**ENVIRONMENT, "CARDIGAN_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as process:
        journal = out / "journal.jsonl"
        wait_until(lambda: process.poll() is not None or (journal.exists() and '"progress"' in journal.read_text()))
        decoder = children(process.pid)[0]
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)  # the decoder has filled its pipe with the start of a chunk of 98 KB
        os.kill(decoder, signal.SIGKILL)
        process.send_signal(signal.SIGCONT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert stderr.count("\n") == 1 and "died (killed by signal 9)" in stderr and "data.num_workers" in stderr
    assert int(list_checkpoints(out / "checkpoints")[-1].name) > 0


ORPHANS = """
import time
import numpy as np
from cardigan.data.worker_processes import WorkerProcesses
def load(tasks):
    for _ in tasks:
        yield np.zeros(300_000, np.uint8)
chunks = WorkerProcesses(load, 2).chunks_of([0] for _ in range(100))
next(chunks)
print("ready", flush=True)
time.sleep(100)
"""


def test_processes_die_with_their_killed_parent():
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "ready\n"
        stopped, blocked = children(parent.pid)
        os.kill(stopped, signal.SIGSTOP)  # it cannot see that its pipe ends
        parent.kill()
        parent.wait()
        wait_until(lambda: not is_running(stopped) and not is_running(blocked), 2)
