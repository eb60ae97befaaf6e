"""Access checks on a request: host name, token, origin."""

import hmac
import ipaddress
import socket
from urllib.parse import urlsplit

from cardigan.http.endpoint import Endpoint, is_loopback


def host_allowed(host: str | None, endpoint: Endpoint) -> bool:
    """Return whether a Host header names this server.

    Protects against DNS rebinding, where a foreign page points its own host name to this machine. IP addresses cannot
    be rebound. Loopback names are allowed with any port, because `ssh -L 9000:localhost:8765` changes the port.
    """
    name, port = _split_host(host or "")
    if not name:
        return False
    if is_loopback(name):
        return True
    known_hosts = {endpoint.host.lower(), socket.gethostname().lower()} if endpoint.token else set()
    return port == endpoint.port and (name in known_hosts or (endpoint.token is not None and _is_ip_address(name)))


def token_matches(token: str, endpoint: Endpoint) -> bool:
    """Return whether the token is right, compared in constant time. True if the endpoint needs no token."""
    return endpoint.token is None or hmac.compare_digest(token.encode(errors="replace"), endpoint.token.encode())


def is_same_origin(origin: str, host: str) -> bool:
    """Return whether an Origin header names the same server as the Host header, over http or https (behind a proxy)."""
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
