"""Connect fifty viewers to one run while it trains; measure the latency of events and the slowdown of the training.

    python benchmarks/studio_viewers.py [--viewers 50] [--rounds 4] [--seconds 20] [--threads 1] [--out FILE.json]

One training of digits runs all the time. Rounds with a studio (as `cardigan train --studio` starts it) and its
viewers alternate with rounds without, so that both see the same machine. The speed of a round comes from the journal;
the slowdown compares the medians. The first seconds of a round, in which processes start, are not counted. The
viewers are one process on the same machine, so their CPU time counts against the studio. The latency of an event runs
from its line in the journal (polled every 2 ms in both kinds of rounds) until a viewer has received all of it.
`curves` is the time to read and answer a journal of 100,000 lines, and the size of the answer.
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
"""Seconds at the start of a round that are not counted."""
POLL_SECONDS = 0.002
LINES = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=4, help="rounds with and without a studio, each")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured seconds per round")
    parser.add_argument("--threads", type=int, default=1, help="threads of the training")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "command": " ".join(["python", *sys.argv]),
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
            f"Python {platform.python_version()}",
            **measure_viewers(Path(folder) / "run", options.viewers, options.rounds, options.seconds, options.threads),
            "curves": time_curves(Path(folder)),
        }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


def measure_viewers(run: Path, viewers: int, rounds: int, seconds: float, threads: int) -> dict[str, Any]:
    """Return the speed of the training with and without viewers, and the latencies of events."""
    words = ["train", "mnist", "--minutes", "600", "--out", str(run), "--quiet", "--device", "cpu"]
    training = subprocess.Popen(
        [sys.executable, "-m", "cardigan", *words], env={**os.environ, "OMP_NUM_THREADS": str(threads)}
    )
    watcher = JournalWatcher(run / "journal.jsonl")
    try:
        while not (run / "journal.jsonl").exists() or b"progress" not in (run / "journal.jsonl").read_bytes():
            time.sleep(0.5)
        time.sleep(5)
        watcher.start()
        alone: list[float] = []
        watched: list[float] = []
        delays: list[float] = []
        used: list[float] = []
        for _ in range(rounds):
            time.sleep(WARM_UP)
            alone.append(images_per_second(run, seconds))
            with Studio(run) as studio:
                viewer_thread = ViewerThread(run, studio.port, viewers, watcher.arrived)
                viewer_thread.start()
                time.sleep(WARM_UP)
                viewer_thread.delays.clear()
                before = studio.processor_seconds()
                watched.append(images_per_second(run, seconds))
                used.append((studio.processor_seconds() - before) / seconds)
                viewer_thread.stop()
            delays += viewer_thread.delays
    finally:
        watcher.stop()
        training.terminate()
        training.wait()
    alone_median, watched_median = statistics.median(alone), statistics.median(watched)
    return {
        "viewers": viewers,
        "events": len(delays),
        "event_ms": {f"p{percent}": round(1000 * percentile(delays, percent), 1) for percent in (50, 95, 99, 100)},
        "images_per_second": {
            "alone": [round(value, 1) for value in alone],
            "watched": [round(value, 1) for value in watched],
        },
        "studio_of_a_core_percent": round(100 * statistics.median(used), 2),
        "training_slower_percent": round(100 * (1 - watched_median / alone_median), 2),
    }


def percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def images_per_second(run: Path, seconds: float) -> float:
    """Return images per second by the journal's clock, between the first and the last line of the next `seconds`."""
    before = len(read_events(run / "journal.jsonl"))
    time.sleep(seconds)
    lines = [event for event in read_events(run / "journal.jsonl")[before:] if event.kind == "progress"]
    return (lines[-1].images_seen - lines[0].images_seen) / (lines[-1].elapsed_seconds - lines[0].elapsed_seconds)


class Studio:
    """A studio in a separate process, as a training starts it. The context starts when it answers."""

    def __init__(self, run: Path) -> None:
        self.run, self.port = run, free_port()

    def processor_seconds(self) -> float:
        """Return its CPU time so far."""
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
    """A thread that records when each line appeared in the journal."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.arrived: dict[int, float] = {}
        """`time.monotonic` of each line, by the journal's size after it."""
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
    """The viewers, in one thread with asyncio."""

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


def time_curves(folder: Path) -> dict[str, Any]:
    """Return the seconds of first and later answers about 100,000 lines of 22 numbers, and the answer's bytes."""
    path = folder / "long.jsonl"
    names = [f"number_{index}" for index in range(22)]
    with path.open("w") as file:
        for row in range(LINES):
            values = {name: round(0.5 + 1e-5 * (row * (index + 3) % 7919), 6) for index, name in enumerate(names)}
            file.write(
                json.dumps({"kind": "progress", "images_seen": 64 * row, "elapsed_seconds": row / 10, **values}) + "\n"
            )
    series, times, answer = RunSeries(path), [], b""
    for _ in range(6):
        began = time.monotonic()
        series.update()
        answer = json.dumps(curves(series, 1_200)).encode()
        times.append(time.monotonic() - began)
    return {
        "lines": LINES,
        "first_seconds": round(times[0], 2),
        "later_seconds": round(statistics.median(times[1:]), 3),
        "bytes": len(answer),
    }


if __name__ == "__main__":
    main()
