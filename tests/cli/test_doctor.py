"""`cardigan doctor --nodes` says which interface, host and port were tried, and what is wrong with them."""

import socket

import pytest

from cardigan.cli.main import run
from cardigan.hardware import network


@pytest.fixture(autouse=True)
def plain_host(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("socket.gethostname", lambda: "localhost")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", socket.if_nameindex()[0][1])


def test_listening_port_is_reached(capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(server.getsockname()[1]))
        assert run(["doctor", "--nodes"]) == 0
        port = server.getsockname()[1]
    output = capsys.readouterr().out
    assert f"127.0.0.1:{port} answers (connected from 127.0.0.1)" in output and "FAIL" not in output
    assert run(["doctor", "--nodes", "--endpoint", f"127.0.0.1:{port}"]) == 1
    assert f"127.0.0.1 can be reached, but nothing listens on port {port}" in capsys.readouterr().out


def test_wrong_names_are_found(capsys, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth77")
    assert run(["doctor", "--nodes", "--endpoint", "no-such-host.invalid:29500"]) == 1
    output = capsys.readouterr().out
    assert "GLOO_SOCKET_IFNAME is eth77, which this host does not have: use one of " in output
    assert "no-such-host.invalid is unknown here" in output


def test_loopback_address_of_a_host_name_is_found(capsys, monkeypatch):
    monkeypatch.setattr("cardigan.cli.doctor.addresses", lambda _: ["127.0.1.1"])
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    assert run(["doctor", "--nodes", "--endpoint", "127.0.0.1:1"]) == 1
    assert "localhost, is 127.0.1.1 here, which other hosts cannot reach" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--nodes"], ["--nodes", "--endpoint", "node0"], ["--nodes", "--endpoint", "a:0"]])
def test_endpoint_must_be_host_and_port(capsys, words):
    assert run(["doctor", *words]) == 2
    assert "expected HOST:PORT, as in node0:29500" in capsys.readouterr().err


def test_loopback_interface_is_listed():
    assert "127.0.0.1" in network.interfaces().values()
