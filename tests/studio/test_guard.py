"""Who is let in and how much may be sent: every test fails when its part of the guard is taken away."""

import io
import os
import socket
import struct
import time
import zlib

import numpy as np
import pytest
from making import HERE, client_of, line, made_run, progress, served
from PIL import Image

from cardigan.errors import CardiganError
from cardigan.studio import guard
from cardigan.studio.guard import MAX_BODY, cookie_name
from cardigan.studio.server import address, open_door
from cardigan.studio.upload import picture
from cardigan.web.door import Door, is_here, is_welcome

TOKEN = "a-token"
ELSEWHERE = Door("192.168.1.5", 8765, TOKEN)


@pytest.fixture
def runs(tmp_path):
    made_run(tmp_path / "run", [progress(64)], sheets=(0,))
    return tmp_path


@pytest.fixture
def client(runs):
    with client_of(runs) as client:
        yield client


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example:8765", "", "127.0.0.1@evil.example", "192.168.1.5:8765"]
)
def test_a_host_of_another_name_is_refused(client, host):
    for path in ("/", "/api/runs", "/static/api.js"):
        answer = client.get(path, headers={"host": host})
        assert answer.status_code == 403
        assert "is not called" in answer.json()["error"]


@pytest.mark.parametrize("host", [HERE, "localhost:8765", "[::1]:8765", "localhost:9000"])
def test_names_of_this_machine_are_welcome_through_a_tunnel_too(client, host):
    assert client.get("/api/runs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(("host", "welcome"), [
    ("192.168.1.5:8765", True),
    ("10.0.0.1:8765", True),  # another address of the same machine: addresses cannot be rebound
    ("192.168.1.5:80", False),
    (f"{socket.gethostname()}:8765", True),
    ("evil.example:8765", False),
])  # fmt: skip
def test_another_host_answers_to_its_own_names(host, welcome):
    assert is_welcome(host, ELSEWHERE) == welcome


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", f"http://{HERE}.evil.example", "http://127.0.0.1:9999", f"ftp://{HERE}", "http://["]
)
def test_a_page_of_another_origin_cannot_send(client, origin):
    assert client.post("/api/invert?run=run", content=b"x", headers={"origin": origin}).status_code == 403


@pytest.mark.parametrize("headers", [{}, {"origin": f"http://{HERE}"}])
def test_our_own_page_can(client, headers):
    answer = client.post("/api/invert?run=run", content=b"x", headers=headers)
    assert answer.status_code == 409  # the run has no generator
    assert "no generator" in answer.json()["error"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_cannot_ask_but_can_link(client, site):
    assert client.get("/api/runs", headers={"sec-fetch-site": site}).status_code == 403
    assert client.get("/", headers={"sec-fetch-site": site}).status_code == 200
    assert client.get("/api/runs", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_another_host_needs_the_token(runs):
    with client_of(runs, ELSEWHERE) as client:
        for path in ("/", "/api/runs", "/static/api.js", "/?token=", "/?token=wrong", f"/api/runs?token={TOKEN}"):
            answer = client.get(path)
            assert answer.status_code == 403, path
            assert "token" in answer.json()["error"]
        client.cookies.set(cookie_name(ELSEWHERE), "wrong")
        assert client.get("/api/runs").status_code == 403
        client.cookies.clear()
        entered = client.get(f"/?token={TOKEN}")
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        assert {"HttpOnly", "SameSite=Strict"} <= set(entered.headers["set-cookie"].split("; "))
        assert client.get("/").status_code == 200
        assert client.get("/api/runs").status_code == 200


def test_only_this_machine_comes_in_without_a_token():
    listening, door = open_door("127.0.0.1", 0)
    listening.close()
    assert door.token is None
    listening, door = open_door("0.0.0.0", 0)
    listening.close()
    assert len(door.token) >= 32
    assert f":{door.port}/?token={door.token}" in address(door)
    assert [is_here(host) for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "example.org")] == [True] * 4 + [False] * 3


def test_a_taken_port_is_a_mistake_or_the_next_one():
    listening, door = open_door("127.0.0.1", 0)
    with pytest.raises(CardiganError, match="give another --port"):
        open_door("127.0.0.1", door.port)
    listening.close()


def test_every_answer_forbids_what_is_not_needed(client):
    for path, headers in (("/", {}), ("/api/runs", {}), ("/api/run?run=none", {}), ("/static/none", {}), ("/none", {}), ("/", {"host": "evil"})):
        answer = client.get(path, headers=headers)
        assert answer.headers["content-security-policy"] == (
            "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


def test_a_journal_that_leads_out_is_not_read(runs, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.jsonl"
    secret.write_bytes(line("start", 0, password="hunter2") + progress(64))
    run = made_run(runs / "linked")
    (run / "journal.jsonl").unlink()
    (run / "journal.jsonl").symlink_to(secret)
    with client_of(runs) as client:
        for path in ("curves", "run", "events", "curves.csv"):
            answer = client.get(f"/api/{path}?run=linked")
            assert answer.status_code == 404 and "hunter2" not in answer.text
        listed = next(each for each in client.get("/api/runs").json()["runs"] if each["id"] == "linked")
    assert listed["state"] == "unreadable" and "outside" in listed["error"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes that have names")
def test_a_lock_that_is_a_pipe_does_not_stop_it(runs):
    run = made_run(runs / "piped", [progress(64)])
    os.mkfifo(run / "lock")
    with client_of(runs) as client:
        assert client.get("/api/run?run=piped").json()["images_seen"] == 64


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes that have names")
@pytest.mark.parametrize("name", ["journal.jsonl", "source.json", "generator.safetensors", "state.safetensors", "model.safetensors"])
def test_a_pipe_in_place_of_a_file_is_told_and_not_waited_for(runs, name):
    run = made_run(runs / "piped", [progress(64)])
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    end = os.open(run / name, os.O_RDWR)
    os.write(end, bytes(16))  # whoever reads it all the same shall fail, not hang
    with client_of(runs) as client:
        for path in ("run", "curves", "events", "pad.png"):
            answer = client.get(f"/api/{path}?run=piped")
            assert answer.status_code == 404 and "is no file" in answer.json()["error"]
        assert {each["id"]: each["state"] for each in client.get("/api/runs").json()["runs"]} == {"piped": "unreadable", "run": "broken"}
    os.close(end)


@pytest.mark.parametrize("name", ["source.json", "generator.safetensors", "state.safetensors", "model.safetensors"])
def test_a_link_that_leads_out_is_not_followed(runs, tmp_path_factory, name):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / name
    elsewhere.write_bytes(b"{}")
    (made_run(runs / "linked", [progress(64)]) / name).symlink_to(elsewhere)
    with client_of(runs) as client:
        for path in ("run", "pad.png"):
            answer = client.get(f"/api/{path}?run=linked")
            assert answer.status_code == 404 and "outside" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/..%5capp.py"])
def test_static_files_are_no_way_out(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]


def test_what_is_asked_with_nonsense_is_told_in_one_sentence(client):
    for query in ("points=x", "points=0", "points=" + "9" * 5_000, "from=nan", "to=1e999", "points=٣"):
        answer = client.get(f"/api/curves?run=run&{query}")
        assert answer.status_code == 400, query
        assert set(answer.json()) == {"error"}
    for method in ("PUT", "DELETE", "PATCH"):
        assert client.request(method, "/api/runs").status_code == 405


def chunks(connection, size):
    """Send a body of unknown length in pieces, until it is done or nobody listens; return how many bytes went."""
    sent = 0
    try:
        while sent < size:
            connection.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            sent += 65_536
    except (BrokenPipeError, ConnectionResetError):
        pass
    return sent


def test_an_oversized_upload_is_broken_off_while_it_arrives(runs):
    head = "POST /api/invert?run=run HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{}\r\n\r\n"
    with served(runs) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(head.format(port, f"Content-Length: {MAX_BODY + 1}").encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 413")  # before any of it was sent
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(head.format(port, "Transfer-Encoding: chunked").encode())
            sent = chunks(connection, 8 * MAX_BODY)
            assert sent < 8 * MAX_BODY  # it did not listen to the end


def test_a_chunked_upload_that_is_too_large_is_told_so(client):
    answer = client.post("/api/invert?run=run", content=(b"x" * 65_536 for _ in range(MAX_BODY // 65_536 + 1)))
    assert answer.status_code == 413
    assert "8 MB" in answer.json()["error"]


def test_an_upload_that_does_not_come_is_broken_off(runs, monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.5)
    with served(runs) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"POST /api/invert?run=run HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 100\r\n\r\nx".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def bomb(side):
    """Return a small PNG whose header claims side x side pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1_000_000))) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def config():
    from cardigan.config import Config

    return Config()


@pytest.mark.alone
@pytest.mark.parametrize("side", [4_001, 60_000])
def test_a_picture_that_claims_too_many_pixels_is_not_decoded(config, side):
    content, began = bomb(side), time.monotonic()
    with pytest.raises(CardiganError, match="at most 16 megapixels"):
        picture(content, config.data)
    assert time.monotonic() - began < 1
    assert len(content) < 10_000


@pytest.mark.parametrize(
    "content", [b"", b"x", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a" + bytes(100), b"\x89PNG\r\n\x1a\n", bomb(100)[:60], b"RIFFxxxxWEBP"]
)
def test_what_is_no_picture_is_refused(config, content):
    with pytest.raises(CardiganError, match=r"no PNG, JPEG or WebP|damaged|no picture"):
        picture(content, config.data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_come_into_the_frame(config, kind):
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 60, 3), 128, dtype=np.uint8)).save(buffer, format=kind)
    found = picture(buffer.getvalue(), config.data)
    assert found.shape == (1, 1, 32, 32)
    assert abs(int(found[0, 0, 16, 16]) - 128) <= 2
