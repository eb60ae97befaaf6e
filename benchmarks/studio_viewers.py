"""Let fifty pages look at one run while it trains: how long an event takes to reach them, and what the training loses by it.

    python benchmarks/studio_viewers.py [--viewers 50] [--rounds 4] [--seconds 20] [--threads 1] [--out FILE.json]

One training of digits runs all the time. Rounds with a studio (as `cardigan train --studio` starts it) and its viewers alternate with rounds
without, so that both see the same machine; the pace of each round is what the journal says, and the loss is of the medians. A round's first
seconds, in which processes start, count for neither. The viewers are one process, which on a machine of its own would not be there: what it
takes from the processor counts against the studio. An event's time runs from when its line is in the journal (looked at every 2 ms, in rounds of
both kinds: the measuring is no work of the studio's) until the viewer has all of it. `curves` is how long a journal of 100,000 lines takes to be
read and answered, and how large the answer is.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cardigan.cli.studio_process import free_port, start_studio, stop_studio
from cardigan.run.journal import read_events
from cardigan.studio.curves import curves
from cardigan.studio.run_series import RunSeries

WARM_UP = 4.0
"""Seconds of a round that do not count."""
POLL_SECONDS = 0.002
LINES = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=4, help="with and without a studio, each so often")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a round, that count")
    parser.add_argument("--threads", type=int, default=1, help="of the training")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "command": " ".join(["python", *sys.argv]),
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}",
            **measure_viewers(Path(folder) / "run", options.viewers, options.rounds, options.seconds, options.threads),
            "curves": write_long_journal(Path(folder)),
        }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


def measure_viewers(run: Path, viewers: int, rounds: int, seconds: float, threads: int) -> dict[str, Any]:
    """Return the training's pace with and without viewers, and how long events took."""
    words = ["train", "mnist", "--minutes", "600", "--out", str(run), "--quiet", "--device", "cpu"]
    training = subprocess.Popen(
        [sys.executable, "-m", "cardigan", *words], env={**os.environ, "OMP_NUM_THREADS": str(threads)}
    )
    watch = JournalWatcher(run / "journal.jsonl")
    try:
        while not (run / "journal.jsonl").exists() or b"progress" not in (run / "journal.jsonl").read_bytes():
            time.sleep(0.5)
        time.sleep(5)
        watch.start()
        alone: list[float] = []
        watched: list[float] = []
        delays: list[float] = []
        used: list[float] = []
        for _ in range(rounds):
            time.sleep(WARM_UP)
            alone.append(images_per_second(run, seconds))
            with Studio(run) as studio:
                looking = ViewerThread(run, studio.port, viewers, watch.arrived)
                looking.start()
                time.sleep(WARM_UP)
                looking.delays.clear()
                before = studio.processor_seconds()
                watched.append(images_per_second(run, seconds))
                used.append((studio.processor_seconds() - before) / seconds)
                looking.stop()
            delays += looking.delays
    finally:
        watch.stop()
        training.terminate()
        training.wait()
    least, most = statistics.median(alone), statistics.median(watched)
    return {
        "viewers": viewers,
        "events": len(delays),
        "event_ms": {f"p{share}": round(1000 * percentile(delays, share), 1) for share in (50, 95, 99, 100)},
        "images_per_second": {
            "alone": [round(value, 1) for value in alone],
            "watched": [round(value, 1) for value in watched],
        },
        "studio_of_a_core_percent": round(100 * statistics.median(used), 2),
        "training_slower_percent": round(100 * (1 - most / least), 2),
    }


def percentile(values: list[float], share: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]


def images_per_second(run: Path, seconds: float) -> float:
    """Return images a second, by the journal's own clock, between the first and the last line of so many seconds."""
    before = len(read_events(run / "journal.jsonl"))
    time.sleep(seconds)
    lines = [event for event in read_events(run / "journal.jsonl")[before:] if event.kind == "progress"]
    return (lines[-1].images_seen - lines[0].images_seen) / (lines[-1].elapsed_seconds - lines[0].elapsed_seconds)


class Studio:
    """A studio in a process of its own, as a training starts it; to be used when it answers."""

    def __init__(self, run: Path) -> None:
        self.run, self.port = run, free_port()

    def processor_seconds(self) -> float:
        """Return how long it has computed so far."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> "Studio":
        self.process = start_studio(self.run, self.port)
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/runs", timeout=10):
                    return self
            except urllib.error.URLError:
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        stop_studio(self.process)


class JournalWatcher:
    """A thread that notes when each line was in the journal."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.arrived: dict[int, float] = {}
        """By the journal's size after the line, in the seconds of `time.monotonic`."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _poll(self) -> None:
        size = self.journal.stat().st_size
        while not self._ended.is_set():
            now = self.journal.stat().st_size
            if now != size:
                size = now
                self.arrived[size] = time.monotonic()
            time.sleep(POLL_SECONDS)


class ViewerThread:
    """The viewers, in one thread of asyncio."""

    def __init__(self, run: Path, port: int, viewers: int, arrived: dict[int, float]) -> None:
        self.run, self.port, self.viewers = run, port, viewers
        self.delays: list[float] = []
        self._arrived = arrived
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    async def _run(self) -> None:
        tasks = [asyncio.create_task(self._read_events()) for _ in range(self.viewers)]
        while not self._ended.is_set():
            await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_events(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET /api/events?run={self.run.name} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())
        offset = 0
        while line := await reader.readline():
            if line.startswith(b"id: "):
                offset = int(line[4:])
            elif line == b"\n" and offset in self._arrived:
                self.delays.append(time.monotonic() - self._arrived[offset])
                offset = 0


def write_long_journal(folder: Path) -> dict[str, Any]:
    """Return seconds to read 100,000 lines of 22 numbers for the first time, and to answer then and later; bytes of the answer."""
    path = folder / "long.jsonl"
    names = [f"number_{place}" for place in range(22)]
    with path.open("w") as file:
        for row in range(LINES):
            values = {name: round(0.5 + 1e-5 * (row * (place + 3) % 7919), 6) for place, name in enumerate(names)}
            file.write(
                json.dumps({"kind": "progress", "images_seen": 64 * row, "elapsed_seconds": row / 10, **values}) + "\n"
            )
    track, times, answer = RunSeries(path), [], b""
    for _ in range(6):
        began = time.monotonic()
        track.update()
        answer = json.dumps(curves(track, 1_200)).encode()
        times.append(time.monotonic() - began)
    return {
        "lines": LINES,
        "first_seconds": round(times[0], 2),
        "later_seconds": round(statistics.median(times[1:]), 3),
        "bytes": len(answer),
    }


if __name__ == "__main__":
    main()
