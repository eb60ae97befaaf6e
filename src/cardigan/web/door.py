"""Where a server listens and who is welcome there: this machine's own names, or whoever has the token.

Knows no route, and not how a token is shown.
"""

import hmac
import ipaddress
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from cardigan.errors import CardiganError


@dataclass(frozen=True)
class Door:
    """Where the server listens, and the token that opens it; none is needed on this machine."""

    host: str
    port: int
    token: str | None = None


def open_door(host: str, ports: Sequence[int], token: str | None = None) -> tuple[socket.socket, Door]:
    """Return a socket that listens on the first of the ports that is free (0 is any), and its door.

    Without a token of one's own there is a new one, unless only this machine can come in. Raises CardiganError where no port can be had.
    """
    for tried in ports:
        try:
            listening = _listening(host, tried)
        except (OSError, UnicodeError) as error:
            if tried != ports[-1]:
                continue
            why = "no host can have such a name" if isinstance(error, UnicodeError) else (error.strerror or str(error)).lower()
            raise CardiganError(f"Cannot listen on {host}, port {tried} ({why}): give another --port, or --host.") from error
        fresh = None if is_here(host) else secrets.token_urlsafe(24)
        return listening, Door(host, int(listening.getsockname()[1]), token or fresh)
    raise AssertionError("ports are never empty")


def _listening(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1_024)
    except OSError:
        listening.close()
        raise
    return listening


def address(door: Door) -> str:
    """Return what others call the server: no token, no path."""
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(door.host, door.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{door.port}"


def is_here(host: str) -> bool:
    """Return whether a name or address is this machine's own, reached from nowhere else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_welcome(host: str | None, door: Door) -> bool:
    """Return whether a Host header names this server.

    A page of somebody else's can have its own name point to this machine (DNS rebinding), and then read everything: its name gives it away.
    Addresses cannot be rebound. For this machine's own names any port is taken: behind `ssh -L 9000:localhost:8765` it is another one.
    """
    name, port = _name_and_port(host or "")
    if not name:
        return False
    if is_here(name):
        return True
    known = {door.host.lower(), socket.gethostname().lower()} if door.token else set()
    return port == door.port and (name in known or (door.token is not None and _is_address(name)))


def is_token(given: str, door: Door) -> bool:
    """Return whether this is the token, in a time that does not depend on where they differ; anything is where none is needed."""
    return door.token is None or hmac.compare_digest(given.encode(errors="replace"), door.token.encode())


def is_own(origin: str, host: str) -> bool:
    """Return whether an Origin header names the server that the Host header does; https: behind somebody's proxy."""
    return origin.lower() in {f"http://{host.lower()}", f"https://{host.lower()}"}


def _name_and_port(host: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{host}")
        plain = not (parts.path or parts.query or parts.fragment or parts.username is not None)
        return (parts.hostname or "", parts.port or 80) if plain else ("", 0)
    except ValueError:
        return "", 0


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return False
