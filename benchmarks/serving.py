"""Measure the cost of serving: images per second over HTTP and of the bare generator, latencies, and correctness.

    python benchmarks/serving.py MODEL [--clients 32] [--per-request 16] [--kind application/x-npz] [--images 100000]
                                 [--out FILE.json]

Every image has its own seed and is compared with the result of `cardigan.load(MODEL).sample_seeds` in this process.
Rounds of the bare generator (batches of 64 prepared latents, to pixels) alternate with rounds of the server, so that
both see the same machine and cores: run the whole command under `taskset`. The clients are one process with one
connection per client. Each client sends its next request as soon as it has an answer. On one core the clients take
CPU time from the server; on a separate machine they would not. So there are two ratios. `ratio_by_clock` compares
images per second of wall time and counts the clients' work against the server. `ratio_by_processor` compares images
per second of CPU time, which excludes other programs on the same cores, with and without the clients' time. The bare
generator keeps freed memory, as the server does (`hardware/memory.py`); its speed without that is reported too. An
npz stores raw pixels; a PNG also costs compression.
"""

import argparse
import io
import json
import os
import platform
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import cardigan
from cardigan.hardware.memory import keep_freed_memory
from cardigan.models.sampling import generate_pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--per-request", type=int, default=16)
    parser.add_argument(
        "--kind",
        default="application/x-npz",
        choices=["application/x-npz", "image/png"],
        help="image/png with --per-request 1",
    )
    parser.add_argument("--images", type=int, default=100_000, help="images requested and checked, in all rounds")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round of the bare generator")
    parser.add_argument("--serve", default="", help="additional options of `cardigan serve`")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.kind == "image/png" and options.per_request != 1:
        parser.error("a PNG of several images is a grid: use --per-request 1")
    result = {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, "
        f"torch {torch.__version__}",
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        **measure(options),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the summary and the rows of all rounds."""
    model = cardigan.load(options.model)
    expected = np.concatenate(
        [
            model.sample_seeds(range(start, min(start + 4_096, options.images)))
            for start in range(0, options.images, 4_096)
        ]
    )
    server, port = start_server(options)
    try:
        rounds, latencies, faults = [], [], []
        images_per_round = options.images // options.rounds // options.per_request * options.per_request
        request_over_http(port, options, expected[: min(len(expected), options.clients * options.per_request * 2)], 0)
        for number in range(options.rounds):
            default_bare, bare = (
                generate_directly(model, options.seconds / 2, keep_memory=False),
                generate_directly(model, options.seconds),
            )
            before = processor_seconds(server.pid)
            first = number * images_per_round
            load = request_over_http(port, options, expected[first : first + images_per_round], first)
            load |= {"server_processor_seconds": processor_seconds(server.pid) - before}
            latencies += load.pop("latencies")
            faults += load.pop("faults")
            rounds.append({"memory_not_kept": default_bare, "bare": bare, "served": load})
    finally:
        server.terminate()
        server_output, _ = server.communicate(timeout=60)
    return {
        **summary(rounds, latencies, faults, images_per_round * options.rounds),
        "exit_code": server.returncode,
        "server_output": server_output.splitlines(),
        "rounds": rounds,
    }


def summary(rounds: list[dict[str, Any]], latencies: list[float], faults: list[str], wanted: int) -> dict[str, Any]:
    """Return the ratios (medians over pairs of rounds), the latencies, and the number of correct images."""

    def median(of: Any) -> float:
        return round(statistics.median(of(pair["bare"], pair["served"]) for pair in rounds), 4)

    def by_processor(bare: dict[str, float], served: dict[str, float], clients: bool) -> float:
        spent = served["server_processor_seconds"] + (served["clients_processor_seconds"] if clients else 0)
        return served["images"] / spent / (bare["images"] / bare["processor_seconds"])

    p50, p99 = np.percentile(latencies, [50, 99])
    return {
        "bare_images_per_second": median(lambda bare, served: bare["images"] / bare["seconds"]),
        "bare_images_per_processor_second": median(lambda bare, served: bare["images"] / bare["processor_seconds"]),
        "bare_images_per_processor_second_memory_not_kept": round(
            statistics.median(_images_per_second(pair["memory_not_kept"]) for pair in rounds), 1
        ),
        "served_images_per_second": median(lambda bare, served: served["images"] / served["seconds"]),
        "ratio_by_clock": median(
            lambda bare, served: served["images"] / served["seconds"] / (bare["images"] / bare["seconds"])
        ),
        "ratio_by_processor": median(lambda bare, served: by_processor(bare, served, True)),
        "ratio_by_processor_without_clients": median(lambda bare, served: by_processor(bare, served, False)),
        "p50_seconds": round(p50, 4),
        "p99_seconds": round(p99, 4),
        "p99_over_p50": round(p99 / p50, 2),
        "requests": len(latencies),
        "images_requested": wanted,
        "images_correct": sum(pair["served"]["images"] for pair in rounds),
        "faults": len(faults),
        "first_faults": faults[:5],
    }


def _images_per_second(bare: dict[str, float]) -> float:
    return bare["images"] / bare["processor_seconds"]


def start_server(options: argparse.Namespace) -> tuple[subprocess.Popen[str], int]:
    words = [
        sys.executable,
        "-m",
        "cardigan",
        "serve",
        str(options.model),
        "--port",
        "0",
        "--device",
        "cpu",
        *options.serve.split(),
    ]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found = re.search(r":(\d+)/", server.stdout.readline())
    assert found, "the server printed no address"
    return server, int(found[1])


def generate_directly(model: cardigan.Model, seconds: float, keep_memory: bool = True) -> dict[str, float]:
    """Generate batches of prepared latents for `seconds`, with freed memory kept as in the server, or not."""
    snapshot = model.snapshot
    z = torch.randn(64, snapshot.config.latent.size)
    labels = torch.arange(64) % snapshot.spec.num_classes if snapshot.spec.num_classes else None
    generate_pixels(snapshot.generator, z, labels)
    began, spent, images = time.monotonic(), time.process_time(), 0
    with keep_freed_memory() if keep_memory else nullcontext():
        while time.monotonic() - began < seconds:
            images += len(generate_pixels(snapshot.generator, z, labels))
        return {"images": images, "seconds": time.monotonic() - began, "processor_seconds": time.process_time() - spent}


def processor_seconds(process: int) -> float:
    """Return the CPU time of another process with all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def request_over_http(port: int, options: argparse.Namespace, expected: np.ndarray, first: int) -> dict[str, Any]:
    """Request these images from a separate process; return its result."""
    context = get_context("fork")
    receiver, sender = context.Pipe()
    process = context.Process(target=_run_clients, args=(sender, port, options, expected, first))
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result


@dataclass
class Client:
    """One connection and its pending request."""

    connection: socket.socket
    start: int = 0
    began: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    def send(self, start: int, body: bytes, kind: str) -> None:
        self.start, self.began = start, time.monotonic()
        self.received.clear()
        head = f"POST /v1/images HTTP/1.1\r\nHost: localhost\r\nAccept: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.connection.sendall(head.encode() + body)

    def receive(self) -> tuple[int, bytes] | None:
        """Return status and body if the response is complete, else None."""
        head = self.received.find(b"\r\n\r\n")
        if head < 0:
            return None
        length = re.search(rb"content-length: (\d+)", self.received, re.IGNORECASE)
        assert length, bytes(self.received[:200])
        end = head + 4 + int(length[1])
        return (int(self.received[9:12]), bytes(self.received[head + 4 : end])) if len(self.received) >= end else None


def _run_clients(sender: Any, port: int, options: argparse.Namespace, expected: np.ndarray, first: int) -> None:
    spent, began = time.process_time(), time.monotonic()
    starts = iter(range(0, len(expected), options.per_request))
    selector, latencies, faults, images = selectors.DefaultSelector(), [], [], 0
    for _ in range(options.clients):
        _send_next(selector, Client(socket.create_connection(("127.0.0.1", port))), starts, options, first)
    while selector.get_map():
        for key, _ in selector.select():
            client: Client = key.data
            chunk = client.connection.recv(1 << 20)
            client.received += chunk
            answer = client.receive()
            if answer is None and chunk:
                continue
            selector.unregister(client.connection)
            if answer is None:
                faults.append(f"lost: {client.start}")
                continue
            latencies.append(time.monotonic() - client.began)
            part = expected[client.start : client.start + options.per_request]
            if answer[0] == 200 and _is_expected(options.kind, answer[1], part):
                images += len(part)
            else:
                faults.append(f"{answer[0]} at {first + client.start}: {answer[1][:100]!r}")
            _send_next(selector, client, starts, options, first)
    seconds = time.monotonic() - began
    spent = time.process_time() - spent
    sender.send(
        {
            "images": images,
            "seconds": seconds,
            "clients_processor_seconds": spent,
            "latencies": latencies,
            "faults": faults,
        }
    )


def _send_next(
    selector: selectors.BaseSelector, client: Client, starts: Any, options: argparse.Namespace, first: int
) -> None:
    start = next(starts, None)
    if start is None:
        client.connection.close()
        return
    seeds = ",".join(map(str, range(first + start, first + start + options.per_request)))
    client.send(start, f'{{"seeds":[{seeds}]}}'.encode(), options.kind)
    selector.register(client.connection, selectors.EVENT_READ, client)


def _is_expected(kind: str, body: bytes, expected: np.ndarray) -> bool:
    """Return whether a response contains exactly these pixels."""
    if kind == "image/png":
        found = np.asarray(Image.open(io.BytesIO(body)))
        return np.array_equal(found.reshape(expected.shape[1:]), expected[0])
    return body.count(expected.tobytes()) == 1 and len(body) < expected.nbytes + 64 * len(expected) + 2_048


if __name__ == "__main__":
    main()
