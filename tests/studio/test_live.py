"""Events as they happen, through a real server: nothing lost, nothing twice, and nobody can take it down for the others."""

import http.client
import json
import shutil
import socket
import time
from pathlib import Path

import pytest
from making import Viewer, client_of, line, made_run, progress, served

from cardigan.run.directory import RunDirectory
from cardigan.studio import guard, live
from cardigan.studio.journal import Lines
from cardigan.studio.live import GONE, MAX_WAITING, Broadcast, frame
from cardigan.studio.live import Viewer as Waiting


def append(run: Path, *lines: bytes) -> None:
    with (run / "journal.jsonl").open("ab") as file:
        for content in lines:
            file.write(content)


def test_viewers_see_what_happens_from_now_on(tmp_path):
    run = made_run(tmp_path / "run", [progress(64)])
    with served(tmp_path) as port:
        viewers = [Viewer(port, "run") for _ in range(3)]
        time.sleep(0.3)
        append(run, progress(128, a=1.5), line("samples", 128, file="samples/00000128.png"), line("fault", 128, name="copies", grave=False))
        for viewer in viewers:
            events = [viewer.event() for _ in range(3)]
            assert [name for name, _, _ in events] == ["progress", "samples", "fault"]
            assert events[0][2] | {"a": 1.5, "kind": "progress", "images_seen": 128, "elapsed_seconds": 1.28} == events[0][2]
            assert int(events[2][1]) == (run / "journal.jsonl").stat().st_size
            viewer.close()


def test_a_viewer_that_comes_back_misses_nothing(tmp_path):
    run = made_run(tmp_path / "run", [progress(64 * step) for step in range(5)])
    with served(tmp_path) as port:
        offsets = {}
        first = Viewer(port, "run&after=0")
        for step in range(5):
            name, offset, values = first.event()
            assert (name, values["images_seen"]) == ("progress", 64 * step)
            offsets[step] = offset
        first.close()
        second = Viewer(port, "run", **{"Last-Event-ID": offsets[2]})
        append(run, progress(1_000))
        assert [second.event()[2]["images_seen"] for _ in range(3)] == [192, 256, 1_000]
        second.close()
        third = Viewer(port, f"run&after={10**12}")  # of a journal that is no more: from its end
        time.sleep(0.3)
        append(run, progress(2_000))
        assert third.event()[2]["images_seen"] == 2_000
        third.close()


def test_a_viewer_that_joins_while_lines_are_read_gets_none_twice(tmp_path, monkeypatch):
    run = made_run(tmp_path / "run", [progress(64)])
    read = Broadcast.news

    def slowly(self):
        found = read(self)
        if found:
            time.sleep(0.5)  # read, but not told yet
        return found

    monkeypatch.setattr(Broadcast, "news", slowly)
    with served(tmp_path) as port:
        first = Viewer(port, "run&after=0")
        first.event()
        append(run, progress(128))
        time.sleep(0.3)
        second = Viewer(port, "run&after=0")
        append(run, progress(192))
        assert [second.event()[2]["images_seen"] for _ in range(3)] == [64, 128, 192]
        first.close()
        second.close()


def test_numbers_that_overflow_are_no_numbers():
    assert b"broken-line" in frame(9, b'{"kind": "progress", "images_seen": 1, "elapsed_seconds": 1.0, "a": 1e999}')
    assert b'"a": null' in frame(9, b'{"kind": "start", "images_seen": 1, "elapsed_seconds": 1.0, "a": 1e999}')


@pytest.mark.parametrize("page", ["curves", "run"])
def test_no_event_is_lost_between_what_was_read_and_the_stream(tmp_path, page):
    run = made_run(tmp_path / "run", [progress(64), progress(128)])
    with served(tmp_path) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", f"/api/{page}?run=run")
        offset = json.loads(connection.getresponse().read())["offset"]
        append(run, progress(192))
        viewer = Viewer(port, f"run&after={offset}")
        assert viewer.event()[2]["images_seen"] == 192
        viewer.close()
        connection.close()


def test_a_malformed_line_is_told_and_skipped(tmp_path):
    run = made_run(tmp_path / "run")
    with served(tmp_path) as port:
        viewer = Viewer(port, "run")
        time.sleep(0.3)
        append(run, b"{broken\n", line("a\nevent: evil", 1), progress(64)[:-10])
        assert [viewer.event()[0] for _ in range(2)] == ["broken-line"] * 2
        append(run, progress(64)[-10:])  # a torn line waits for its rest
        assert viewer.event()[0] == "progress"
        viewer.close()


@pytest.mark.parametrize(
    "content", [b'{"kind": "a",\r "images_seen": 1, "elapsed_seconds": 1, "x": "\\r\\ndata: evil"}', progress(1, x="\r\n\r\nevent: evil")[:-1]]
)
def test_a_line_is_one_event_whatever_it_holds(content):
    text = frame(7, content).decode()
    assert text.startswith("id: 7\nevent: ")
    assert text.count("\n") == 4
    assert "\r" not in text


def test_a_run_that_is_deleted_is_gone_for_all_who_look(tmp_path):
    run = made_run(tmp_path / "run", [progress(64)])
    with served(tmp_path) as port:
        viewers = [Viewer(port, "run") for _ in range(3)]
        time.sleep(0.3)
        shutil.rmtree(run)
        for viewer in viewers:
            assert viewer.event() == ("gone", "", {})
            with pytest.raises(EOFError):
                viewer.event()
            viewer.close()
        late = Viewer(port, "run")
        assert late.status == 404
        late.close()


def test_one_reader_serves_all_viewers_and_ends_with_the_last(tmp_path, monkeypatch):
    run = made_run(tmp_path / "run")
    looks: list[float] = []
    news = Broadcast.news
    monkeypatch.setattr(Broadcast, "news", lambda self: looks.append(time.monotonic()) or news(self))
    with served(tmp_path) as port:
        viewers = [Viewer(port, "run") for _ in range(20)]
        time.sleep(1)
        assert 1 <= len(looks) <= 12  # ten a second, not two hundred
        append(run, progress(64))
        for viewer in viewers:
            assert viewer.event()[0] == "progress"
            viewer.close()
        time.sleep(1)
        count = len(looks)
        time.sleep(0.5)
        assert len(looks) == count


def test_a_viewer_that_does_not_keep_up_is_cut_off(tmp_path):
    viewer, quick = Waiting(), Waiting()
    broadcast = Broadcast(RunDirectory(tmp_path), Lines(tmp_path / "journal.jsonl"), {viewer, quick})
    for step in range(MAX_WAITING + 10):
        broadcast.tell([b"event"])
        if step < MAX_WAITING:
            quick.waiting.get_nowait()
    assert viewer not in broadcast.viewers
    assert viewer.waiting.qsize() == MAX_WAITING + 1
    assert [viewer.waiting.get_nowait() for _ in range(MAX_WAITING + 1)][-1] is None
    assert quick in broadcast.viewers


def test_the_last_viewers_queue_is_ended_even_if_it_is_full(tmp_path):
    viewer = Waiting()
    broadcast = Broadcast(RunDirectory(tmp_path), Lines(tmp_path / "journal.jsonl"), {viewer})
    for _ in range(MAX_WAITING):
        viewer.tell(b"event")
    broadcast.end(GONE)
    viewer.end()
    assert viewer.waiting.qsize() <= MAX_WAITING + 1


def test_too_many_viewers_are_sent_away(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "MAX_VIEWERS", 2)
    made_run(tmp_path / "run")
    with served(tmp_path) as port:
        viewers = [Viewer(port, "run") for _ in range(3)]
        assert [viewer.status for viewer in viewers] == [200, 200, 429]
        viewers[0].close()
        time.sleep(0.5)
        viewers[0] = Viewer(port, "run")
        assert viewers[0].status == 200
        for viewer in viewers:
            viewer.close()


@pytest.mark.parametrize(
    "body", ["Content-Length: 10\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n"], ids=["none", "long"]
)
def test_who_announces_a_body_and_does_not_send_it_is_ended(tmp_path, monkeypatch, body):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(guard, "MAX_BODY", 10)
    monkeypatch.setattr(live, "MAX_VIEWERS", 1)
    made_run(tmp_path / "run")
    with served(tmp_path) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(f"GET /api/events?run=run HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{body}".encode())
            came = b""
            while not came.endswith(b"\r\n0\r\n\r\n"):  # the end of the stream
                came += connection.recv(65_536)
        viewer = Viewer(port, "run")
        assert viewer.status == 200
        viewer.close()


def test_a_file_system_that_fails_is_not_the_end_of_looking(tmp_path):
    broadcast = Broadcast(RunDirectory(tmp_path / ("x" * 300)), Lines(tmp_path / "journal.jsonl"))  # too long a name: neither there nor gone
    with pytest.raises(OSError, match="too long"):
        broadcast.run.config.exists()
    assert broadcast.news() == []


def test_a_thousand_connections_do_not_take_it_down(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2_500:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2_500), hard))
    run = made_run(tmp_path / "run", [progress(64)])
    with served(tmp_path) as port:
        request = f"GET /api/events?run=run HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        connections = []
        for number in range(1_000):
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            connection.sendall(request if number % 2 else request[:20])  # half of them say nothing more
            connections.append(connection)
        time.sleep(1)
        asking = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        asking.request("GET", "/api/runs")
        assert len(json.loads(asking.getresponse().read())["runs"]) == 1
        append(run, progress(128))
        for connection in connections[1::2]:
            received = b""
            while b"event: progress" not in received:
                received += connection.recv(65_536)
        for connection in connections:
            connection.close()
        asking.close()


def test_who_says_nothing_is_hung_up_on(tmp_path, monkeypatch):
    from cardigan.web import connections

    monkeypatch.setattr(connections, "SILENT_SECONDS", 0.5)
    run = made_run(tmp_path / "run")
    with served(tmp_path) as port:
        silent = socket.create_connection(("127.0.0.1", port), timeout=10)
        silent.sendall(b"GET / HTTP/1.1\r\nHost: 127")
        viewer = Viewer(port, "run")
        assert silent.recv(100) == b""
        time.sleep(1.5)
        append(run, progress(64))
        assert viewer.event()[0] == "progress"  # who listens is not silent
        viewer.close()
        silent.close()


def test_the_server_ends_while_pages_are_open(tmp_path):
    made_run(tmp_path / "run")
    with served(tmp_path) as port:
        viewers = [Viewer(port, "run") for _ in range(3)]
        began = time.monotonic()
    assert time.monotonic() - began < 10
    for viewer in viewers:
        viewer.close()


def test_offsets_that_make_no_sense_are_refused(tmp_path):
    made_run(tmp_path / "run")
    with client_of(tmp_path) as client:
        assert client.get("/api/events?run=run&after=-1").status_code == 400
        assert client.get("/api/events?run=run", headers={"last-event-id": "x"}).status_code == 400
