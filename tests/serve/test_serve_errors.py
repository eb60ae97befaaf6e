"""Invalid and oversized requests get a one-sentence error and do not affect other requests."""

import http.client
import json
import socket
import time
from contextlib import suppress

import pytest
from http_client import http_request, load_served_model, running_server, save_random_model, slow_down
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cardigan.serve import access
from cardigan.serve.app import RequestLimits
from cardigan.serve.sample_request import FIELDS, BadRequest, TooManyImages, parse_sample_request

TOKEN = "a-token-of-a-test"


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    return load_served_model(save_random_model(tmp_path_factory.mktemp("model") / "generator.safetensors"))


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory):
    return load_served_model(save_random_model(tmp_path_factory.mktemp("model") / "generator.safetensors", classes=0))


@pytest.fixture(scope="module")
def port(conditional):
    with running_server(conditional, RequestLimits(max_images=100)) as (port, _):
        yield port


def latent_row(size=100, value=0.0):
    return [value] * size


@pytest.mark.parametrize(("body", "status", "sentence"), [
    (b"{", 400, "not valid JSON"),
    (b"\xff\xfe{}", 400, "not valid JSON"),
    (b"[" * 100_000, 400, "not valid JSON"),
    (b'{"latents":[[NaN]]}', 400, "NaN is not a finite number"),
    (b'{"truncation":-Infinity}', 400, "-Infinity is not a finite number"),
    (b'{"seed":' + b"9" * 10_000 + b"}", 400, "not valid JSON"),
    (b'{"latents":[[1e999]]}', 400, "a row of latents is 1 numbers"),
    ([], 400, "not a JSON object"),
    ({"n": 0}, 400, "n is 0"),
    ({"n": -1}, 400, "n is -1"),
    ({"n": 101}, 413, "101 images"),
    ({"n": 10**9}, 413, "1000000000 images"),
    ({"n": 10**400}, 413, "images"),
    ({"n": True}, 400, "n is true"),
    ({"n": 1.5}, 400, "n is 1.5"),
    ({"n": None}, 400, "n is null"),
    ({"seeds": []}, 400, "seeds is empty"),
    ({"seeds": 7}, 400, "expected a list"),
    ({"seeds": [2**63]}, 400, "a seed is"),
    ({"seeds": [1, "2"]}, 400, 'a seed is "2"'),
    ({"seeds": [1] * 101}, 413, "101 images"),
    ({"seed": -1}, 400, "seed is -1"),
    ({"seed": 1, "seeds": [1]}, 400, "only one is allowed"),
    ({"seeds": [1], "latents": [[]]}, 400, "only one is allowed"),
    ({"n": 2, "seeds": [1]}, 400, "leave n out"),
    ({"labels": 10}, 400, "out of range"),
    ({"labels": -1}, 400, "out of range"),
    ({"labels": 10**30}, 400, "a label is"),
    ({"labels": "cat"}, 400, "no names"),
    ({"labels": [1, 2]}, 400, "2 labels for 1 images"),
    ({"labels": [True]}, 400, "a label is true"),
    ({"labels": {"a": 1}}, 400, "a label is"),
    ({"truncation": 2}, 400, "truncation is 2"),
    ({"truncation": "1"}, 400, "truncation is"),
    ({"latents": [[0.0] * 3], "labels": 1}, 400, "a list of"),
    ({"latents": "zzz", "labels": 1}, 400, "expected a list"),
    ({"latents": [["1"] * 100], "labels": 1}, 400, "latents"),
    ({"sede": 1}, 400, "did you mean 'seed'"),
])  # fmt: skip
def test_invalid_request_returns_one_line_error(port, body, status, sentence):
    found, headers, content = http_request(port, body)
    assert (found, headers["content-type"]) == (status, "application/json")
    error = json.loads(content)["error"]
    assert sentence in error
    assert len(error) < 300
    assert http_request(port, {"seed": 0})[0] == 200


def test_invalid_latents_return_400(port, conditional):
    size = conditional.config.latent.size
    for value in (1e7, "1", None, True):
        status, _, content = http_request(port, {"latents": [latent_row(size, value)], "labels": 1})
        assert (status, b"latents contain an invalid value" in content) == (400, True)
    status, _, content = http_request(port, {"latents": [latent_row(size)]})
    assert (status, b"give labels" in content) == (400, True)


def test_labels_for_unconditional_model_return_error(unconditional):
    with running_server(unconditional) as (port, _):
        status, _, content = http_request(port, {"labels": 1})
        assert (status, b"unconditional" in content) == (400, True)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60)
    | st.dictionaries(st.sampled_from([*FIELDS, "x"]), values, max_size=4).map(lambda body: json.dumps(body).encode())
)
@example(b'{"labels":"\\ud800"}')
@example(b'{"\\ud800":1}')
def test_any_body_parses_or_returns_error(conditional, body):
    try:
        request = parse_sample_request(body, conditional, 100)
    except (BadRequest, TooManyImages) as error:
        json.dumps({"error": str(error)}).encode()
        assert len(str(error)) < 400
    else:
        assert 1 <= request.count <= 100
        z, labels = request.latents_and_labels(0, request.count, conditional)
        assert len(z) == request.count == len(labels)


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/v1/images", 405),
    ("DELETE", "/v1/model", 405),
    ("GET", "/v2/images", 404),
    ("GET", "/%2e%2e/etc/passwd", 404),
])  # fmt: skip
def test_unknown_routes_and_methods(port, method, path, status):
    found, _, content = http_request(port, method=method, path=path)
    assert found == status
    assert "error" in json.loads(content)


def test_unsupported_accept_returns_406(port):
    status, _, content = http_request(port, {"seed": 0}, "text/html")
    assert (status, b"image/png" in content) == (406, True)


def test_body_size_limit(conditional):
    limits = RequestLimits(max_images=1)
    most = limits.max_body_bytes(conditional.config.latent.size)
    with running_server(conditional, limits) as (port, _):
        for length in (str(most + 1), "9" * 12):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(
                    f"POST /v1/images HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {length}\r\n\r\n".encode()
                )
                assert connection.recv(100).startswith(b"HTTP/1.1 413")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(
                f"POST /v1/images HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            )
            connection.sendall(f"{most + 1:x}\r\n".encode() + b" " * (most + 1))
            assert connection.recv(100).startswith(b"HTTP/1.1 413")
        assert http_request(port, b" " * most)[0] == 200


def test_invalid_chunk_size_prints_no_traceback(conditional, capfd):
    with (
        running_server(conditional) as (port, _),
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
    ):
        head = f"POST /v1/images HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + b"-1\r\nabc\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert "Traceback" not in capfd.readouterr().err


def test_half_closed_client_gets_images(conditional):
    slow, _ = slow_down(conditional, 0.5)
    with running_server(slow) as (port, _), socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = f"POST /v1/images HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 10\r\n\r\n"
        connection.sendall(head.encode() + b'{"seed":3}')
        connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 200 and response.read().startswith(b"\x89PNG")


def test_slow_body_times_out(conditional, monkeypatch):
    monkeypatch.setattr(access, "BODY_SECONDS", 0.5)
    with (
        running_server(conditional) as (port, _),
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
    ):
        connection.sendall(
            f'POST /v1/images HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 100\r\n\r\n{{"n":'.encode()
        )
        assert http_request(port, {"seed": 0})[0] == 200
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_client_that_does_not_read_is_disconnected(tmp_path, monkeypatch):
    from cardigan.http import connections

    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.3)
    model = load_served_model(save_random_model(tmp_path / "generator.safetensors", channels=3))
    with (
        running_server(model, RequestLimits(max_images=3_000, max_queued_images=3_000)) as (port, _),
        socket.socket() as connection,
    ):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", port))
        body = b'{"n":3000}'
        host = f"Host: 127.0.0.1:{port}\r\nAccept: application/x-npz\r\n"
        connection.sendall(f"POST /v1/images HTTP/1.1\r\n{host}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        connection.recv(1)
        time.sleep(2)
        num_received = 0
        with suppress(ConnectionResetError):
            while part := connection.recv(65_536):
                num_received += len(part)
        assert num_received < 3_000 * 32 * 32 * 3


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "192.168.1.5:8000", ""])
def test_host_header_check(port, host):
    status, _, content = http_request(port, {"seed": 0}, host=host)
    assert (status, b"is not allowed" in content) == (403, True)


def test_cross_origin_requests(port, conditional):
    assert http_request(port, {"seed": 0}, origin="http://evil.example")[0] == 403
    assert http_request(port, {"seed": 0}, **{"sec-fetch-site": "cross-site"})[0] == 403
    assert http_request(port, {"seed": 0}, origin=f"http://127.0.0.1:{port}")[0] == 200
    with running_server(conditional, origins=("http://localhost:3000",)) as (open_port, _):
        status, headers, _ = http_request(open_port, {"seed": 0}, origin="http://localhost:3000")
        assert (status, headers["access-control-allow-origin"]) == (200, "http://localhost:3000")
        preflight_headers = {
            "origin": "http://localhost:3000",
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type",
        }
        assert http_request(open_port, method="OPTIONS", **preflight_headers)[0] == 200
        assert http_request(open_port, {"seed": 0}, origin="http://evil.example")[0] == 403


def test_token_authentication(conditional):
    with running_server(conditional, token=TOKEN) as (port, _):
        for wrong in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Basic {TOKEN}"},
            {"authorization": f"Bearer {TOKEN}x"},
        ):
            for method, path in (
                ("POST", "/v1/images"),
                ("GET", "/v1/model"),
                ("GET", "/metrics"),
                ("GET", "/openapi.json"),
            ):
                status, headers, content = http_request(port, method=method, path=path, **wrong)
                assert (status, headers["www-authenticate"], b"Bearer TOKEN" in content) == (401, "Bearer", True)
        for path in ("/", "/healthz"):
            status, _, content = http_request(port, method="GET", path=path, host="any.example")
            assert (status, b"generator.safetensors" in content) == (200, False)
        assert http_request(port, method="GET", path="/openapi.json", authorization=f"Bearer {TOKEN}")[0] == 200
        assert http_request(port, {"seed": 0}, authorization=f"Bearer {TOKEN}", host="any.example")[0] == 200
