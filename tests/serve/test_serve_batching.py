"""The queue and its worker: what is full, left, late, unfair, broken, or stopped while it works."""

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
from asked import ask, made_model, opened, served, slowed

import cardigan
from cardigan.cli import serve as command
from cardigan.cli.main import run as cardigan_command
from cardigan.serve.app import Limits
from cardigan.serve.asking import read_order
from cardigan.serve.batching import Batching, Full, Observer


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return made_model(tmp_path_factory.mktemp("model") / "generator.safetensors")


@pytest.fixture(scope="module")
def model(path):
    return opened(path)


class Asker(threading.Thread):
    """Somebody who asks and waits."""

    def __init__(self, port, body, accept="application/x-npz"):
        super().__init__()
        self.port, self.body, self.accept = port, body, accept
        self.start()

    def run(self):
        self.status, self.headers, self.content = ask(self.port, self.body, self.accept)
        self.ended = time.monotonic()


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def sent(port, body):
    """Return a connection that has asked and does not read."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(f"POST /v1/images HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def test_who_comes_when_too_many_wait_is_told_when_to_come_again(model):
    slow, _ = slowed(model, 0.5)
    with served(slow, Limits(images=64, queue=100)) as (port, serving):
        asking = [Asker(port, {"n": 64})]
        until(lambda: serving.batching.stuck_seconds() > 0)
        asking.append(Asker(port, {"n": 64}))
        until(lambda: serving.batching.waiting == 64)
        status, headers, content = ask(port, {"n": 64})
        assert (status, headers["retry-after"], "ask again in 1 s" in content.decode()) == (429, "1", True)
        assert json.loads(ask(port, method="GET", path="/healthz")[2]) == {"status": "ready", "waiting": 64}
        for asker in asking:
            asker.join()
        assert [asker.status for asker in asking] == [200, 200]
        assert serving.batching.waiting == 0
        assert ask(port, {"n": 64})[0] == 200


def test_what_is_drawn_and_not_encoded_waits_too(model):
    begun, may_end = threading.Semaphore(0), threading.Event()

    def finish(pixels, labels):
        begun.release()
        assert may_end.wait(20)
        return b"encoded"

    batching, order = Batching(model, 60, Observer(lambda *_: None, lambda: None)), read_order(b'{"n":20}', model, 20)
    try:
        jobs = [batching.submit(order, finish) for _ in range(3)]
        assert begun.acquire(timeout=20) and begun.acquire(timeout=20)  # both encoders are at work: the third job waits for one
        until(lambda: jobs[2].parts and batching.waiting == 60)
        with pytest.raises(Full):
            batching.submit(order, finish)
        batching.cancel(jobs[2])
        may_end.set()
        assert [job.future.result(20) for job in jobs[:2]] == [b"encoded"] * 2
        until(lambda: batching.waiting == 0)
        assert batching.submit(order, finish).future.result(20) == b"encoded"
    finally:
        may_end.set()
        batching.close()


def test_nothing_is_drawn_for_who_has_left(model):
    slow, sizes = slowed(model, 0.3)
    with served(slow) as (port, serving):
        del sizes[:]
        first = Asker(port, {"n": 1})
        until(lambda: serving.batching.stuck_seconds() > 0)
        leaving = [sent(port, b'{"n":200}') for _ in range(3)]
        until(lambda: serving.batching.waiting == 600)
        for connection in leaving:
            connection.close()
        until(lambda: serving.batching.waiting == 0)
        first.join()
        assert (first.status, len(sizes)) == (200, 1)
        assert "cardigan_cancelled_total 3.0" in serving.metrics.text().decode()
        assert 'cardigan_requests_total{path="/v1/images",status="499"} 3.0' in serving.metrics.text().decode()


def test_who_waits_too_long_is_told_so(model):
    slow, _ = slowed(model, 0.6)
    with served(slow, Limits(seconds=0.2)) as (port, serving):
        status, _, content = ask(port, {"n": 1})
        assert (status, b"within 0.2 s" in content) == (504, True)
        until(lambda: serving.batching.stuck_seconds() == 0)
        assert serving.batching.waiting == 0


def test_a_large_request_does_not_hold_up_a_small_one(model):
    slow, _ = slowed(model, 0.15)
    with served(slow, Limits(images=640)) as (port, serving):
        large = Asker(port, {"n": 640})
        until(lambda: serving.batching.stuck_seconds() > 0)
        small = Asker(port, {"n": 4})
        large.join()
        small.join()
        assert large.ended - small.ended > 0.6
        assert np.array_equal(large.status, 200)


def test_a_batch_that_fails_is_told_and_the_next_is_drawn(model, capsys):
    fails = []

    def compute(z, labels):
        if fails:
            raise RuntimeError(fails.pop())
        return model.compute(z, labels)

    with served(replace(model, compute=compute)) as (port, serving):
        fails.append("the memory is full")
        status, _, content = ask(port, {"n": 1})
        assert (status, b"where it was started" in content, b"memory" in content) == (500, True, False)
        assert ask(port, {"n": 1})[0] == 200
        assert serving.batching.waiting == 0
    assert "the memory is full" in capsys.readouterr().err


def test_sizes_are_only_used_where_they_give_the_same_numbers(model):
    from cardigan.serve.model import _equal_sizes

    assert all(size in (32, 16, 8) for size in _equal_sizes(model))

    def other(z, labels):
        return model.compute(z, labels) * (1 + 1e-7 * (len(z) == 16))

    assert 16 not in _equal_sizes(replace(model, compute=other, sizes=(64,)))
    assert replace(model, sizes=(64,)).size(1) == 64


def started(path, *words, **settings):
    server = subprocess.Popen(
        [sys.executable, "-m", "cardigan", "serve", str(path), "--port", "0", "--device", "cpu", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings,
    )  # fmt: skip
    line = server.stdout.readline()
    found = re.search(r"http://[^ ]+:(\d+)/", line)
    assert found, line + server.stderr.read()
    return server, int(found[1])


@pytest.mark.skipif(os.name != "posix", reason="stops as POSIX does")
def test_a_server_that_is_stopped_finishes_what_is_begun(path):
    server, port = started(path, "--queue", "20000", "--max-images", "3000", "--grace", "60")
    asker = Asker(port, {"n": 3_000, "seed": 4})
    while b'"waiting": 0' in ask(port, method="GET", path="/healthz")[2]:
        time.sleep(0.01)
    server.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    with pytest.raises(OSError):
        ask(port, {"n": 1})
    asker.join()
    said, errors = server.communicate(timeout=30)
    assert (server.returncode, errors) == (0, "")
    assert "everything begun was answered" in said
    from io import BytesIO

    assert np.array_equal(np.load(BytesIO(asker.content))["images"][-3:], cardigan.load(path).sample(3_000, seed=4)[-3:])


@pytest.mark.skipif(os.name != "posix", reason="stops as POSIX does")
def test_what_takes_longer_than_the_grace_time_is_broken_off(path):
    server, port = started(path, "--queue", "200000", "--max-images", "100000", "--grace", "1")
    connection = sent(port, b'{"n":100000}')
    while b'"waiting": 0' in ask(port, method="GET", path="/healthz")[2]:
        time.sleep(0.01)
    server.send_signal(signal.SIGTERM)
    said, _ = server.communicate(timeout=60)
    assert (server.returncode, "broken off" in said) == (143, True)
    connection.close()


@pytest.mark.parametrize(("count", "whole"), [(3_000, False), (1, True)])
def test_an_answer_is_whole_when_all_of_it_has_left(tmp_path, count, whole):
    """The longer one does not fit into what the system keeps for who reads slowly; after the short one the connection is open and asks nothing."""
    model, ended = opened(made_model(tmp_path / "generator.safetensors", channels=3)), []
    body = b'{"n":%d}' % count
    with socket.socket() as slow, served(model, Limits(images=3_000, queue=3_000), grace=1, ended=ended) as (port, _):
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.settimeout(60)
        slow.connect(("127.0.0.1", port))
        head = f"POST /v1/images HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/x-npz\r\nContent-Length: {len(body)}\r\n\r\n"
        slow.sendall(head.encode() + body)
        assert slow.recv(9) == b"HTTP/1.1 "
    assert ended == [whole]


def test_elsewhere_a_token_is_made_and_told_once(path):
    server, port = started(path, "--host", "0.0.0.0", env={**os.environ, "CARDIGAN_TOKEN": ""})
    token = re.search(r"Bearer (\S{20,})", server.stdout.readline())[1]
    assert ask(port, {"seed": 0})[0] == 401
    assert ask(port, {"seed": 0}, authorization=f"Bearer {token}")[0] == 200
    server.send_signal(signal.SIGINT)
    said, errors = server.communicate(timeout=30)
    assert (server.returncode, errors, token in said) == (0, "", False)


def test_a_token_of_ones_own_is_not_printed(path):
    token = "0123456789abcdef"
    server, port = started(path, env={**os.environ, "CARDIGAN_TOKEN": token})
    assert ask(port, {"seed": 0})[0] == 401
    assert ask(port, {"seed": 0}, authorization=f"Bearer {token}")[0] == 200
    server.terminate()
    said, _ = server.communicate(timeout=30)
    assert (server.returncode, token in said) == (0, False)


@pytest.mark.parametrize(("words", "sentence"), [
    (["nowhere"], "There is no file nowhere"),
    (["nowhere.onnx"], "There is no file nowhere.onnx"),
    (["nowhere", "--origins", "*"], "--origins has '*'"),
    (["MODEL", "--backend", "onnx"], "no ONNX model"),
    (["MODEL", "--port", "70000"], "expected 0..65535"),
    (["MODEL", "--batch", "0"], "expected 1.."),
    (["MODEL", "--queue", "5"], "not fewer than --max-images"),
    (["MODEL", "--timeout", "0"], "--timeout is 0"),
    (["MODEL", "--token", "short"], "too easily guessed"),
    (["MODEL", "--device", "abacus"], "device is 'abacus'"),
    (["MODEL", "--host", "203.0.113.7"], "Cannot listen on 203.0.113.7"),
    (["MODEL", "--host", "127.0.0..1"], "no host can have such a name"),
    (["m.onnx", "--device", "cuda"], "onnxruntime computes on the cpu"),
])  # fmt: skip
def test_a_mistake_is_told_in_one_sentence(path, capsys, words, sentence):
    words = [str(path) if word == "MODEL" else word for word in words]
    assert cardigan_command(["serve", *words, *([] if "--port" in words else ["--port", "0"])]) == 2
    assert sentence in capsys.readouterr().err


def test_a_batch_that_does_not_fit_is_told_in_one_sentence(path, capsys):
    def fill(module, given):
        if given and len(given[0]) == 4_096:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = torch.nn.modules.module.register_module_forward_pre_hook(fill)
    try:
        assert cardigan_command(["serve", str(path), "--port", "0", "--device", "cpu", "--batch", "4096"]) == 2
    finally:
        hook.remove()
    assert "4096 pictures at a time do not fit into the memory of cpu: give a smaller --batch." in capsys.readouterr().err


def test_missing_packages_say_what_to_install(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(cardigan.CardiganError, match=r"needs uvicorn installed: pip install 'cardigan\[serve\]'"):
        command.check_installed()
