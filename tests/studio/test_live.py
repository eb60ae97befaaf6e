"""Live events through a real server: none is lost or sent twice, and no client can disturb the others."""

import http.client
import json
import shutil
import socket
import time
from pathlib import Path

import pytest
from fake_runs import SseClient, client_for, journal_line, make_run, progress_line, running_studio

from cardigan.run.directory import RunDirectory
from cardigan.studio import access, event_stream
from cardigan.studio.event_stream import (
    MAX_QUEUED_MESSAGES,
    RUN_DELETED_MESSAGE,
    JournalBroadcast,
    Subscriber,
    sse_message,
)
from cardigan.studio.journal_tail import TailReader


def append_line(run: Path, *lines: bytes) -> None:
    with (run / "journal.jsonl").open("ab") as file:
        for content in lines:
            file.write(content)


def test_new_client_gets_new_events(tmp_path):
    run = make_run(tmp_path / "run", [progress_line(64)])
    with running_studio(tmp_path) as port:
        clients = [SseClient(port, "run") for _ in range(3)]
        time.sleep(0.3)
        append_line(
            run,
            progress_line(128, a=1.5),
            journal_line("samples", 128, file="samples/00000128.png"),
            journal_line("fault", 128, name="copies", fatal=False),
        )
        for client in clients:
            events = [client.event() for _ in range(3)]
            assert [name for name, _, _ in events] == ["progress", "samples", "fault"]
            assert (
                events[0][2] | {"a": 1.5, "kind": "progress", "images_seen": 128, "elapsed_seconds": 1.28}
                == events[0][2]
            )
            assert int(events[2][1]) == (run / "journal.jsonl").stat().st_size
            client.close()


def test_reconnected_client_misses_nothing(tmp_path):
    run = make_run(tmp_path / "run", [progress_line(64 * step) for step in range(5)])
    with running_studio(tmp_path) as port:
        offsets = {}
        first = SseClient(port, "run&after=0")
        for step in range(5):
            name, offset, values = first.event()
            assert (name, values["images_seen"]) == ("progress", 64 * step)
            offsets[step] = offset
        first.close()
        second = SseClient(port, "run", **{"Last-Event-ID": offsets[2]})
        append_line(run, progress_line(1_000))
        assert [second.event()[2]["images_seen"] for _ in range(3)] == [192, 256, 1_000]
        second.close()
        third = SseClient(port, f"run&after={10**12}")  # an offset beyond the end: only new events
        time.sleep(0.3)
        append_line(run, progress_line(2_000))
        assert third.event()[2]["images_seen"] == 2_000
        third.close()


def test_joining_client_gets_no_duplicates(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", [progress_line(64)])
    read = JournalBroadcast.new_messages

    def slow_read(self):
        found = read(self)
        if found:
            time.sleep(0.5)  # read, but not yet published
        return found

    monkeypatch.setattr(JournalBroadcast, "new_messages", slow_read)
    with running_studio(tmp_path) as port:
        first = SseClient(port, "run&after=0")
        first.event()
        append_line(run, progress_line(128))
        time.sleep(0.3)
        second = SseClient(port, "run&after=0")
        append_line(run, progress_line(192))
        assert [second.event()[2]["images_seen"] for _ in range(3)] == [64, 128, 192]
        first.close()
        second.close()


def test_overflowing_numbers_are_dropped():
    assert b"malformed-line" in sse_message(
        9, b'{"kind": "progress", "images_seen": 1, "elapsed_seconds": 1.0, "a": 1e999}'
    )
    assert b'"a": null' in sse_message(9, b'{"kind": "start", "images_seen": 1, "elapsed_seconds": 1.0, "a": 1e999}')


@pytest.mark.parametrize("page", ["curves", "run"])
def test_no_event_is_lost_between_snapshot_and_stream(tmp_path, page):
    run = make_run(tmp_path / "run", [progress_line(64), progress_line(128)])
    with running_studio(tmp_path) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", f"/api/{page}?run=run")
        offset = json.loads(connection.getresponse().read())["offset"]
        append_line(run, progress_line(192))
        client = SseClient(port, f"run&after={offset}")
        assert client.event()[2]["images_seen"] == 192
        client.close()
        connection.close()


def test_malformed_line_is_reported_and_skipped(tmp_path):
    run = make_run(tmp_path / "run")
    with running_studio(tmp_path) as port:
        client = SseClient(port, "run")
        time.sleep(0.3)
        append_line(run, b"{broken\n", journal_line("a\nevent: evil", 1), progress_line(64)[:-10])
        assert [client.event()[0] for _ in range(2)] == ["malformed-line"] * 2
        append_line(run, progress_line(64)[-10:])  # an incomplete line is not read
        assert client.event()[0] == "progress"
        client.close()


@pytest.mark.parametrize(
    "content",
    [
        b'{"kind": "a",\r "images_seen": 1, "elapsed_seconds": 1, "x": "\\r\\ndata: evil"}',
        progress_line(1, x="\r\n\r\nevent: evil")[:-1],
    ],
)
def test_each_line_is_one_event(content):
    text = sse_message(7, content).decode()
    assert text.startswith("id: 7\nevent: ")
    assert text.count("\n") == 4
    assert "\r" not in text


def test_deleted_run_ends_all_streams(tmp_path):
    run = make_run(tmp_path / "run", [progress_line(64)])
    with running_studio(tmp_path) as port:
        clients = [SseClient(port, "run") for _ in range(3)]
        time.sleep(0.3)
        shutil.rmtree(run)
        for client in clients:
            assert client.event() == ("deleted", "", {})
            with pytest.raises(EOFError):
                client.event()
            client.close()
        late = SseClient(port, "run")
        assert late.status == 404
        late.close()


def test_shared_reader_stops_with_last_client(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    polls: list[float] = []
    new_messages = JournalBroadcast.new_messages
    monkeypatch.setattr(
        JournalBroadcast, "new_messages", lambda self: polls.append(time.monotonic()) or new_messages(self)
    )
    with running_studio(tmp_path) as port:
        clients = [SseClient(port, "run") for _ in range(20)]
        time.sleep(1)
        assert 1 <= len(polls) <= 12  # 10 per second in total, not per client
        append_line(run, progress_line(64))
        for client in clients:
            assert client.event()[0] == "progress"
            client.close()
        time.sleep(1)
        count = len(polls)
        time.sleep(0.5)
        assert len(polls) == count


def test_slow_client_is_disconnected(tmp_path):
    client, fast = Subscriber(), Subscriber()
    broadcast = JournalBroadcast(RunDirectory(tmp_path), TailReader(tmp_path / "journal.jsonl"), {client, fast})
    for step in range(MAX_QUEUED_MESSAGES + 10):
        broadcast.publish([b"event"])
        if step < MAX_QUEUED_MESSAGES:
            fast.queue.get_nowait()
    assert client not in broadcast.subscribers
    assert client.queue.qsize() == MAX_QUEUED_MESSAGES + 1
    assert [client.queue.get_nowait() for _ in range(MAX_QUEUED_MESSAGES + 1)][-1] is None
    assert fast in broadcast.subscribers


def test_full_queue_of_last_client_is_closed(tmp_path):
    client = Subscriber()
    broadcast = JournalBroadcast(RunDirectory(tmp_path), TailReader(tmp_path / "journal.jsonl"), {client})
    for _ in range(MAX_QUEUED_MESSAGES):
        client.put(b"event")
    broadcast.close(RUN_DELETED_MESSAGE)
    client.close()
    assert client.queue.qsize() <= MAX_QUEUED_MESSAGES + 1


def test_subscriber_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(event_stream, "MAX_SUBSCRIBERS", 2)
    make_run(tmp_path / "run")
    with running_studio(tmp_path) as port:
        clients = [SseClient(port, "run") for _ in range(3)]
        assert [client.status for client in clients] == [200, 200, 429]
        clients[0].close()
        time.sleep(0.5)
        clients[0] = SseClient(port, "run")
        assert clients[0].status == 200
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    "body",
    ["Content-Length: 10\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n"],
    ids=["none", "long"],
)
def test_event_request_with_body_is_closed(tmp_path, monkeypatch, body):
    monkeypatch.setattr(access, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(access, "MAX_BODY_BYTES", 10)
    monkeypatch.setattr(event_stream, "MAX_SUBSCRIBERS", 1)
    make_run(tmp_path / "run")
    with running_studio(tmp_path) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(f"GET /api/events?run=run HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{body}".encode())
            received = b""
            while not received.endswith(b"\r\n0\r\n\r\n"):  # the end of the stream
                received += connection.recv(65_536)
        client = SseClient(port, "run")
        assert client.status == 200
        client.close()


def test_reader_survives_file_system_errors(tmp_path):
    broadcast = JournalBroadcast(
        RunDirectory(tmp_path / ("x" * 300)), TailReader(tmp_path / "journal.jsonl")
    )  # the name is too long: `exists` raises
    with pytest.raises(OSError, match="too long"):
        broadcast.run.config.exists()
    assert broadcast.new_messages() == []


def test_thousand_connections(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2_500:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2_500), hard))
    run = make_run(tmp_path / "run", [progress_line(64)])
    with running_studio(tmp_path) as port:
        request = f"GET /api/events?run=run HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        connections = []
        for number in range(1_000):
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            connection.sendall(request if number % 2 else request[:20])  # half of them never complete the request
            connections.append(connection)
        time.sleep(1)
        requesting = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        requesting.request("GET", "/api/runs")
        assert len(json.loads(requesting.getresponse().read())["runs"]) == 1
        append_line(run, progress_line(128))
        for connection in connections[1::2]:
            received = b""
            while b"event: progress" not in received:
                received += connection.recv(65_536)
        for connection in connections:
            connection.close()
        requesting.close()


def test_idle_connection_is_closed(tmp_path, monkeypatch):
    from cardigan.http import connections

    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.5)
    run = make_run(tmp_path / "run")
    with running_studio(tmp_path) as port:
        silent = socket.create_connection(("127.0.0.1", port), timeout=10)
        silent.sendall(b"GET / HTTP/1.1\r\nHost: 127")
        client = SseClient(port, "run")
        assert silent.recv(100) == b""
        time.sleep(1.5)
        append_line(run, progress_line(64))
        assert client.event()[0] == "progress"  # a connection with an open stream is not idle
        client.close()
        silent.close()


def test_server_stops_with_open_streams(tmp_path):
    make_run(tmp_path / "run")
    with running_studio(tmp_path) as port:
        clients = [SseClient(port, "run") for _ in range(3)]
        started_at = time.monotonic()
    assert time.monotonic() - started_at < 10
    for client in clients:
        client.close()


def test_invalid_offset_returns_400(tmp_path):
    make_run(tmp_path / "run")
    with client_for(tmp_path) as client:
        assert client.get("/api/events?run=run&after=-1").status_code == 400
        assert client.get("/api/events?run=run", headers={"last-event-id": "x"}).status_code == 400
