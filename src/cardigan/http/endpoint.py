"""The address a server listens on, and the token that protects it."""

import ipaddress
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from cardigan.errors import CardiganError


@dataclass(frozen=True)
class Endpoint:
    """Host and port a server listens on, and its access token. `token` is None if no token is needed."""

    host: str
    port: int
    token: str | None = None


def open_endpoint(host: str, ports: Sequence[int], token: str | None = None) -> tuple[socket.socket, Endpoint]:
    """Return a socket that listens on the first free port of `ports` (0: any free port), and its endpoint.

    Without `token`, a new random token is made unless the host is a loopback address. Raises CardiganError if no port
    is free.
    """
    for port in ports:
        try:
            listening_socket = _listening_socket(host, port)
        except (OSError, UnicodeError) as error:
            if port != ports[-1]:
                continue
            reason = "invalid host name" if isinstance(error, UnicodeError) else (error.strerror or str(error)).lower()
            raise CardiganError(
                f"Cannot listen on {host}, port {port} ({reason}): give another --port, or --host."
            ) from error
        new_token = None if is_loopback(host) else secrets.token_urlsafe(24)
        return listening_socket, Endpoint(host, int(listening_socket.getsockname()[1]), token or new_token)
    raise AssertionError("ports are never empty")


def _listening_socket(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    # asyncio sets TCP_NODELAY only on sockets whose protocol is known. Without it, every second response on a
    # connection waits 40 ms for the client's acknowledgment.
    listening_socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listening_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening_socket.bind(address)
        listening_socket.listen(1_024)
    except OSError:
        listening_socket.close()
        raise
    return listening_socket


def base_url(endpoint: Endpoint) -> str:
    """Return the server's URL for other machines, without token and path."""
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(endpoint.host, endpoint.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{endpoint.port}"


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is a loopback one, which other machines cannot reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
