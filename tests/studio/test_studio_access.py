"""Access checks and upload limits. Each test fails if its check is removed."""

import http.client
import io
import json
import os
import socket
import struct
import time
import zlib

import numpy as np
import pytest
from fake_runs import HERE, client_for, journal_line, make_run, progress_line, running_studio
from PIL import Image

from cardigan.errors import CardiganError
from cardigan.http.access import host_allowed
from cardigan.http.endpoint import Endpoint, is_loopback
from cardigan.studio import access
from cardigan.studio.access import MAX_BODY_BYTES, cookie_name
from cardigan.studio.server import open_studio_endpoint, studio_url
from cardigan.studio.upload import decode_upload

TOKEN = "a-token"
REMOTE_HOST = Endpoint("192.168.1.5", 8765, TOKEN)


@pytest.fixture
def runs(tmp_path):
    make_run(tmp_path / "run", [progress_line(64)], sheets=(0,))
    return tmp_path


@pytest.fixture
def client(runs):
    with client_for(runs) as client:
        yield client


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example:8765",
        "",
        "127.0.0.1@evil.example",
        "192.168.1.5:8765",
    ],
)
def test_unknown_host_is_rejected(client, host):
    for path in ("/", "/api/runs", "/static/api.js"):
        answer = client.get(path, headers={"host": host})
        assert answer.status_code == 403
        assert "is not allowed" in answer.json()["error"]


@pytest.mark.parametrize("host", [HERE, "localhost:8765", "[::1]:8765", "localhost:9000"])
def test_local_hosts_are_allowed_on_any_port(client, host):
    assert client.get("/api/runs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(("host", "allowed"), [
    ("192.168.1.5:8765", True),
    ("10.0.0.1:8765", True),  # another address of this machine: IP addresses cannot be rebound
    ("192.168.1.5:80", False),
    (f"{socket.gethostname()}:8765", True),
    ("evil.example:8765", False),
])  # fmt: skip
def test_remote_host_allows_its_own_names(host, allowed):
    assert host_allowed(host, REMOTE_HOST) == allowed


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        f"http://{HERE}.evil.example",
        "http://127.0.0.1:9999",
        f"ftp://{HERE}",
        "http://[",
    ],
)
def test_cross_origin_post_is_rejected(client, origin):
    assert client.post("/api/invert?run=run", content=b"x", headers={"origin": origin}).status_code == 403


@pytest.mark.parametrize("headers", [{}, {"origin": f"http://{HERE}"}])
def test_same_origin_post_is_allowed(client, headers):
    answer = client.post("/api/invert?run=run", content=b"x", headers=headers)
    assert answer.status_code == 409  # the run has no generator yet
    assert "no generator" in answer.json()["error"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_cross_site_requests(client, site):
    assert client.get("/api/runs", headers={"sec-fetch-site": site}).status_code == 403
    assert client.get("/", headers={"sec-fetch-site": site}).status_code == 200
    assert client.get("/api/runs", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_remote_host_needs_token(runs):
    with client_for(runs, REMOTE_HOST) as client:
        for path in ("/", "/api/runs", "/static/api.js", "/?token=", "/?token=wrong", f"/api/runs?token={TOKEN}"):
            answer = client.get(path)
            assert answer.status_code == 403, path
            assert "token" in answer.json()["error"]
        client.cookies.set(cookie_name(REMOTE_HOST), "wrong")
        assert client.get("/api/runs").status_code == 403
        client.cookies.clear()
        login = client.get(f"/?token={TOKEN}")
        assert (login.status_code, login.headers["location"]) == (303, "/")
        assert {"HttpOnly", "SameSite=Strict"} <= set(login.headers["set-cookie"].split("; "))
        assert client.get("/").status_code == 200
        assert client.get("/api/runs").status_code == 200


def test_localhost_needs_no_token():
    listening_socket, endpoint = open_studio_endpoint("127.0.0.1", 0)
    listening_socket.close()
    assert endpoint.token is None
    listening_socket, endpoint = open_studio_endpoint("0.0.0.0", 0)
    listening_socket.close()
    assert len(endpoint.token) >= 32
    assert f":{endpoint.port}/?token={endpoint.token}" in studio_url(endpoint)
    assert [
        is_loopback(host) for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "example.org")
    ] == [True] * 4 + [False] * 3


def test_port_in_use():
    listening_socket, endpoint = open_studio_endpoint("127.0.0.1", 0)
    with pytest.raises(CardiganError, match="give another --port"):
        open_studio_endpoint("127.0.0.1", endpoint.port)
    listening_socket.close()


def test_security_headers(client):
    for path, headers in (
        ("/", {}),
        ("/api/runs", {}),
        ("/api/run?run=none", {}),
        ("/static/none", {}),
        ("/none", {}),
        ("/", {"host": "evil"}),
    ):
        answer = client.get(path, headers=headers)
        assert answer.headers["content-security-policy"] == (
            "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


def test_journal_symlink_outside_is_not_read(runs, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.jsonl"
    secret.write_bytes(journal_line("start", 0, password="hunter2") + progress_line(64))
    run = make_run(runs / "linked")
    (run / "journal.jsonl").unlink()
    (run / "journal.jsonl").symlink_to(secret)
    with client_for(runs) as client:
        for path in ("curves", "run", "events", "curves.csv"):
            answer = client.get(f"/api/{path}?run=linked")
            assert answer.status_code == 404 and "hunter2" not in answer.text
        listed = next(each for each in client.get("/api/runs").json()["runs"] if each["id"] == "linked")
    assert listed["state"] == "unreadable" and "outside" in listed["error"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_fifo_lock_does_not_block(runs):
    run = make_run(runs / "piped", [progress_line(64)])
    os.mkfifo(run / "lock")
    with client_for(runs) as client:
        assert client.get("/api/run?run=piped").json()["images_seen"] == 64


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(
    "name", ["journal.jsonl", "source.json", "generator.safetensors", "state.safetensors", "model.safetensors"]
)
def test_fifo_file_is_reported(runs, name):
    run = make_run(runs / "piped", [progress_line(64)])
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    end = os.open(run / name, os.O_RDWR)
    os.write(end, bytes(16))  # a reader then fails instead of hanging
    with client_for(runs) as client:
        for path in ("run", "curves", "events", "interpolation.png"):
            answer = client.get(f"/api/{path}?run=piped")
            assert answer.status_code == 404 and "is not a regular file" in answer.json()["error"]
        assert {each["id"]: each["state"] for each in client.get("/api/runs").json()["runs"]} == {
            "piped": "unreadable",
            "run": "interrupted",
        }
    os.close(end)


@pytest.mark.parametrize("name", ["source.json", "generator.safetensors", "state.safetensors", "model.safetensors"])
def test_symlink_outside_is_not_followed(runs, tmp_path_factory, name):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / name
    elsewhere.write_bytes(b"{}")
    (make_run(runs / "linked", [progress_line(64)]) / name).symlink_to(elsewhere)
    with client_for(runs) as client:
        for path in ("run", "interpolation.png"):
            answer = client.get(f"/api/{path}?run=linked")
            assert answer.status_code == 404 and "outside" in answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/..%5capp.py"],
)
def test_static_path_traversal(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]


def test_invalid_query_returns_one_line_error(client):
    for query in ("points=x", "points=0", "points=" + "9" * 5_000, "from=nan", "to=1e999", "points=٣"):
        answer = client.get(f"/api/curves?run=run&{query}")
        assert answer.status_code == 400, query
        assert set(answer.json()) == {"error"}
    for method in ("PUT", "DELETE", "PATCH"):
        assert client.request(method, "/api/runs").status_code == 405


def chunked_body(connection, size):
    """Send a chunked body until it is complete or the server closes the connection. Return the number of bytes sent."""
    sent = 0
    try:
        while sent < size:
            connection.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            sent += 65_536
    except (BrokenPipeError, ConnectionResetError):
        pass
    return sent


def test_oversized_upload_is_aborted(runs):
    head = "POST /api/invert?run=run HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{}\r\n\r\n"
    with running_studio(runs) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(head.format(port, f"Content-Length: {MAX_BODY_BYTES + 1}").encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 413")  # before any of the body was sent
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(head.format(port, "Transfer-Encoding: chunked").encode())
            sent = chunked_body(connection, 8 * MAX_BODY_BYTES)
            assert sent < 8 * MAX_BODY_BYTES  # the server closed the connection early


@pytest.mark.parametrize("chunked", [False, True])
def test_client_that_sends_too_much_reads_the_sentence(runs, chunked):
    """A client that reads only after it has sent its body still gets the response: the rest is read and discarded."""
    body = b"x" * (3 * MAX_BODY_BYTES)
    with running_studio(runs) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/api/invert?run=run", iter([body[:1], body[1:]]) if chunked else body)
        response = connection.getresponse()
        assert response.status == 413
        assert json.loads(response.read())["error"] == "The upload exceeds 8 MB: send a smaller image."
        connection.close()


def test_half_closed_client_gets_response(runs):
    with running_studio(runs) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"GET /api/runs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert (response.status, len(json.loads(response.read())["runs"])) == (200, 1)
        assert connection.recv(1) == b""


@pytest.mark.parametrize("body", [b"-1\r\nabc\r\n", b"zz\r\n"])
def test_invalid_chunk_size_prints_no_traceback(runs, capfd, body):
    with running_studio(runs) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = f"POST /api/invert?run=run HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert capfd.readouterr().err == ""


def test_responses_are_not_delayed(runs):
    """Accepted sockets send at once (TCP_NODELAY) instead of waiting 40 ms for an acknowledgment."""
    listening_socket, endpoint = open_studio_endpoint("127.0.0.1", 0)
    with listening_socket, socket.create_connection(("127.0.0.1", endpoint.port)):
        accepted, _ = listening_socket.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP  # by which asyncio decides
    times = []
    with running_studio(runs) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for _ in range(30):
            started = time.monotonic()
            connection.request("GET", "/api/runs")
            connection.getresponse().read()
            times.append(time.monotonic() - started)
        connection.close()
    assert min(times) < 0.03


def test_oversized_chunked_upload_returns_413(client):
    answer = client.post("/api/invert?run=run", content=(b"x" * 65_536 for _ in range(MAX_BODY_BYTES // 65_536 + 1)))
    assert answer.status_code == 413
    assert "8 MB" in answer.json()["error"]


def test_stalled_upload_times_out(runs, monkeypatch):
    monkeypatch.setattr(access, "BODY_SECONDS", 0.5)
    with running_studio(runs) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            f"POST /api/invert?run=run HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 100\r\n\r\nx".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def png_bomb(side):
    """Return a small PNG whose header states side x side pixels."""

    def png_chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
        + png_chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def config():
    from cardigan.config import Config

    return Config()


@pytest.mark.alone
@pytest.mark.parametrize("side", [4_001, 60_000])
def test_decompression_bomb_is_rejected(config, side):
    content, started_at = png_bomb(side), time.monotonic()
    with pytest.raises(CardiganError, match="at most 16 megapixels"):
        decode_upload(content, config.data)
    assert time.monotonic() - started_at < 1
    assert len(content) < 10_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"GIF89a" + bytes(100),
        b"\x89PNG\r\n\x1a\n",
        png_bomb(100)[:60],
        b"RIFFxxxxWEBP",
    ],
)
def test_non_image_upload_is_rejected(config, content):
    with pytest.raises(CardiganError, match=r"not a PNG, JPEG or WebP|damaged|not an image of a known format"):
        decode_upload(content, config.data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_uploads_are_resized_to_training_shape(config, kind):
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 60, 3), 128, dtype=np.uint8)).save(buffer, format=kind)
    found = decode_upload(buffer.getvalue(), config.data)
    assert found.shape == (1, 1, 32, 32)
    assert abs(int(found[0, 0, 16, 16]) - 128) <= 2
