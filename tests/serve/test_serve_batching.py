"""The queue and its worker: full queue, disconnects, timeouts, fairness, failures and shutdown."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from http_client import http_request, load_served_model, running_server, save_random_model, slow_down

import cardigan
from cardigan.cli import serve as command
from cardigan.cli.main import run as cardigan_command
from cardigan.serve.app import RequestLimits
from cardigan.serve.dynamic_batching import BatchHooks, DynamicBatcher, QueueFull
from cardigan.serve.sample_request import parse_sample_request


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("model") / "generator.safetensors")


@pytest.fixture(scope="module")
def model(path):
    return load_served_model(path, 64)


class RequestThread(threading.Thread):
    """A client that sends one request and waits for the response."""

    def __init__(self, port, body, accept="application/x-npz"):
        super().__init__()
        self.port, self.body, self.accept = port, body, accept
        self.start()

    def run(self):
        self.status, self.headers, self.content = http_request(self.port, self.body, self.accept)
        self.finished = time.monotonic()


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def send_request(port, body):
    """Return a connection that has sent a request and does not read."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(
        f"POST /v1/images HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    return connection


def test_full_queue_returns_429_with_retry_after(model):
    slow, _ = slow_down(model, 0.5)
    with running_server(slow, RequestLimits(max_images=64, max_queued_images=100)) as (port, service):
        clients = [RequestThread(port, {"n": 64})]
        wait_until(lambda: service.batcher.stalled_seconds() > 0)
        clients.append(RequestThread(port, {"n": 64}))
        wait_until(lambda: service.batcher.num_queued == 64)
        status, headers, content = http_request(port, {"n": 64})
        assert (status, headers["retry-after"], "try again in 1 s" in content.decode()) == (429, "1", True)
        assert json.loads(http_request(port, method="GET", path="/healthz")[2]) == {
            "status": "ready",
            "queued_images": 64,
        }
        for client in clients:
            client.join()
        assert [client.status for client in clients] == [200, 200]
        assert service.batcher.num_queued == 0
        assert http_request(port, {"n": 64})[0] == 200


def test_images_waiting_for_encoding_count_as_queued(model):
    started, may_finish = threading.Semaphore(0), threading.Event()

    def encode(pixels, labels):
        started.release()
        assert may_finish.wait(20)
        return b"encoded"

    batcher, request = (
        DynamicBatcher(model, 60, BatchHooks(lambda *_: None, lambda: None)),
        parse_sample_request(b'{"n":20}', model, 20),
    )
    try:
        jobs = [batcher.submit(request, encode) for _ in range(3)]
        # Both encoder threads are busy: the third job waits for one.
        assert started.acquire(timeout=20) and started.acquire(timeout=20)
        wait_until(lambda: jobs[2].outputs and batcher.num_queued == 60)
        with pytest.raises(QueueFull):
            batcher.submit(request, encode)
        batcher.cancel(jobs[2])
        may_finish.set()
        assert [job.future.result(20) for job in jobs[:2]] == [b"encoded"] * 2
        wait_until(lambda: batcher.num_queued == 0)
        assert batcher.submit(request, encode).future.result(20) == b"encoded"
    finally:
        may_finish.set()
        batcher.close()


def test_disconnected_client_is_not_computed(model):
    slow, sizes = slow_down(model, 0.3)
    with running_server(slow) as (port, service):
        del sizes[:]
        first = RequestThread(port, {"n": 1})
        wait_until(lambda: service.batcher.stalled_seconds() > 0)
        leaving = [send_request(port, b'{"n":200}') for _ in range(3)]
        wait_until(lambda: service.batcher.num_queued == 600)
        for connection in leaving:
            connection.close()
        wait_until(lambda: service.batcher.num_queued == 0)
        first.join()
        assert (first.status, len(sizes)) == (200, 1)
        assert "cardigan_requests_cancelled_total 3.0" in service.metrics.render().decode()
        assert 'cardigan_requests_total{path="/v1/images",status="499"} 3.0' in service.metrics.render().decode()


def test_request_timeout(model):
    slow, _ = slow_down(model, 0.6)
    with running_server(slow, RequestLimits(timeout_seconds=0.2)) as (port, service):
        status, _, content = http_request(port, {"n": 1})
        assert (status, b"within 0.2 s" in content) == (504, True)
        wait_until(lambda: service.batcher.stalled_seconds() == 0)
        assert service.batcher.num_queued == 0


def test_small_request_is_not_blocked_by_large_one(model):
    slow, _ = slow_down(model, 0.15)
    with running_server(slow, RequestLimits(max_images=640)) as (port, service):
        large = RequestThread(port, {"n": 640})
        wait_until(lambda: service.batcher.stalled_seconds() > 0)
        small = RequestThread(port, {"n": 4})
        large.join()
        small.join()
        assert large.finished - small.finished > 0.6
        assert np.array_equal(large.status, 200)


def test_failed_batch_returns_500_and_service_continues(model, capsys):
    failures = []

    def compute(z, labels):
        if failures:
            raise RuntimeError(failures.pop())
        return model.forward(z, labels)

    with running_server(replace(model, forward=compute)) as (port, service):
        failures.append("the memory is full")
        status, _, content = http_request(port, {"n": 1})
        assert (status, b"see the server's log" in content, b"memory" in content) == (500, True, False)
        assert http_request(port, {"n": 1})[0] == 200
        assert service.batcher.num_queued == 0
    assert "the memory is full" in capsys.readouterr().err


def test_batch_sizes_are_used_only_if_outputs_are_equal(model):
    from cardigan.serve.served_model import _bit_identical_batch_sizes

    assert all(size in (32, 16, 8) for size in _bit_identical_batch_sizes(model))

    def other(z, labels):
        return model.forward(z, labels) * (1 + 1e-7 * (len(z) == 16))

    assert 16 not in _bit_identical_batch_sizes(replace(model, forward=other, batch_sizes=(64,)))
    assert replace(model, batch_sizes=(64,)).padded_size(1) == 64


def start_server(path, *words, **settings):
    server = subprocess.Popen(
        [sys.executable, "-m", "cardigan", "serve", str(path), "--port", "0", "--device", "cpu", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings,
    )  # fmt: skip
    line = server.stdout.readline()
    found = re.search(r"http://[^ ]+:(\d+)/", line)
    assert found, line + server.stderr.read()
    return server, int(found[1])


@pytest.mark.skipif(os.name != "posix", reason="uses POSIX signals")
def test_shutdown_finishes_running_requests(path):
    server, port = start_server(
        path, "--max-queued-images", "20000", "--max-images", "3000", "--shutdown-timeout", "60"
    )
    client = RequestThread(port, {"n": 3_000, "seed": 4})
    while b'"queued_images":0' in http_request(port, method="GET", path="/healthz")[2]:
        time.sleep(0.01)
    server.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    with pytest.raises(OSError):
        http_request(port, {"n": 1})
    client.join()
    output, errors = server.communicate(timeout=30)
    assert (server.returncode, errors) == (0, "")
    assert "all accepted requests were answered" in output
    from io import BytesIO

    assert np.array_equal(
        np.load(BytesIO(client.content))["images"][-3:], cardigan.load(path).sample(3_000, seed=4)[-3:]
    )


@pytest.mark.skipif(os.name != "posix", reason="uses POSIX signals")
def test_shutdown_timeout_aborts_requests(path):
    server, port = start_server(
        path, "--max-queued-images", "200000", "--max-images", "100000", "--shutdown-timeout", "1"
    )
    connection = send_request(port, b'{"n":100000}')
    while b'"queued_images":0' in http_request(port, method="GET", path="/healthz")[2]:
        time.sleep(0.01)
    server.send_signal(signal.SIGTERM)
    output, _ = server.communicate(timeout=60)
    assert (server.returncode, "aborted" in output) == (143, True)
    connection.close()


@pytest.mark.parametrize(("count", "complete"), [(3_000, False), (1, True)])
def test_response_completeness_is_recorded(tmp_path, count, complete):
    """The long response does not fit into the socket buffers; after the short one the connection is idle."""
    model, stopped = load_served_model(save_random_model(tmp_path / "generator.safetensors", channels=3)), []
    body = b'{"n":%d}' % count
    with (
        socket.socket() as slow,
        running_server(
            model, RequestLimits(max_images=3_000, max_queued_images=3_000), shutdown_timeout=1, stopped=stopped
        ) as (
            port,
            _,
        ),
    ):
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.settimeout(60)
        slow.connect(("127.0.0.1", port))
        host = f"Host: 127.0.0.1:{port}\r\nAccept: application/x-npz\r\n"
        slow.sendall(f"POST /v1/images HTTP/1.1\r\n{host}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert slow.recv(9) == b"HTTP/1.1 "
    assert stopped == [complete]


def test_token_is_generated_and_printed_for_remote_hosts(path):
    server, port = start_server(path, "--host", "0.0.0.0", env={**os.environ, "CARDIGAN_TOKEN": ""})
    token = re.search(r"Bearer (\S{20,})", server.stdout.readline())[1]
    assert http_request(port, {"seed": 0})[0] == 401
    assert http_request(port, {"seed": 0}, authorization=f"Bearer {token}")[0] == 200
    server.send_signal(signal.SIGINT)
    output, errors = server.communicate(timeout=30)
    assert (server.returncode, errors, token in output) == (0, "", False)


def test_given_token_is_not_printed(path):
    token = "0123456789abcdef"
    server, port = start_server(path, env={**os.environ, "CARDIGAN_TOKEN": token})
    assert http_request(port, {"seed": 0})[0] == 401
    assert http_request(port, {"seed": 0}, authorization=f"Bearer {token}")[0] == 200
    server.terminate()
    output, _ = server.communicate(timeout=30)
    assert (server.returncode, token in output) == (0, False)


@pytest.mark.parametrize(("words", "sentence"), [
    (["nowhere"], "There is no file nowhere"),
    (["nowhere.onnx"], "nowhere.onnx does not exist"),
    (["nowhere", "--origins", "*"], "--origins has '*'"),
    (["MODEL", "--backend", "onnx"], "onnxruntime cannot load"),
    (["MODEL", "--port", "70000"], "expected 0..65535"),
    (["MODEL", "--batch-size", "0"], "expected 1.."),
    (["MODEL", "--max-queued-images", "5"], "not less than --max-images"),
    (["MODEL", "--timeout", "0"], "--timeout is 0"),
    (["MODEL", "--token", "short"], "The token is too short"),
    (["MODEL", "--device", "abacus"], "device is 'abacus'"),
    (["MODEL", "--host", "203.0.113.7"], "Cannot listen on 203.0.113.7"),
    (["MODEL", "--host", "127.0.0..1"], "invalid host name"),
    (["m.onnx", "--device", "cuda"], "the onnx backend runs on the cpu"),
])  # fmt: skip
def test_startup_error_is_one_line(path, capsys, words, sentence):
    words = [str(path) if word == "MODEL" else word for word in words]
    assert cardigan_command(["serve", *words, *([] if "--port" in words else ["--port", "0"])]) == 2
    assert sentence in capsys.readouterr().err


def test_out_of_memory_error_is_one_line(path, capsys):
    def run_out_of_memory(module, inputs):
        if inputs and len(inputs[0]) == 4_096:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = torch.nn.modules.module.register_module_forward_pre_hook(run_out_of_memory)
    try:
        assert cardigan_command(["serve", str(path), "--port", "0", "--device", "cpu", "--batch-size", "4096"]) == 2
    finally:
        hook.remove()
    assert (
        "A batch of 4096 images does not fit into the memory of cpu: give a smaller --batch-size."
        in capsys.readouterr().err
    )


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(cardigan.CardiganError, match=r"needs uvicorn installed: pip install 'cardigan\[serve\]'"):
        command.check_serve_installed()
