"""Who may use a server: host names, tokens, same origin."""

import hmac
import ipaddress
import socket
from urllib.parse import urlsplit

from cardigan.http.endpoint import Endpoint, is_loopback


def host_allowed(host: str | None, endpoint: Endpoint) -> bool:
    """Return whether a Host header names this server.

    A page of somebody else's can have its own name point to this machine (DNS rebinding), and then read everything: its name gives it away.
    Addresses cannot be rebound. For this machine's own names any port is taken: behind `ssh -L 9000:localhost:8765` it is another one.
    """
    name, port = _split_host(host or "")
    if not name:
        return False
    if is_loopback(name):
        return True
    known_hosts = {endpoint.host.lower(), socket.gethostname().lower()} if endpoint.token else set()
    return port == endpoint.port and (name in known_hosts or (endpoint.token is not None and _is_ip_address(name)))


def token_matches(token: str, endpoint: Endpoint) -> bool:
    """Return whether this is the token, in a time that does not depend on where they differ; anything is where none is needed."""
    return endpoint.token is None or hmac.compare_digest(token.encode(errors="replace"), endpoint.token.encode())


def is_same_origin(origin: str, host: str) -> bool:
    """Return whether an Origin header names the server that the Host header does; https: behind somebody's proxy."""
    return origin.lower() in {f"http://{host.lower()}", f"https://{host.lower()}"}


def _split_host(host: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{host}")
        is_bare = not (parts.path or parts.query or parts.fragment or parts.username is not None)
        return (parts.hostname or "", parts.port or 80) if is_bare else ("", 0)
    except ValueError:
        return "", 0


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return False
