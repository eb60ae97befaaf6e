"""Who may ask, and how much: host names, origins, tokens, the size of what is sent, and what browsers are told to forbid.

Stands before everything else; knows no route but the page's.
"""

import asyncio
import hmac
import ipaddress
import json
import socket
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 8 << 20
"""Bytes of a picture that is sent."""
BODY_SECONDS = 60.0
"""How long sending it may take."""
POLICY = "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
READING = {"GET", "HEAD"}


class TooLarge(Exception):
    """More was sent than is taken."""


@dataclass(frozen=True)
class Door:
    """Where the server listens, and the token that opens it; none is needed on this machine."""

    host: str
    port: int
    token: str | None = None

    @property
    def cookie(self) -> str:
        """Browsers send a cookie to every port of a host, so that each server needs a name of its own."""
        return f"cardigan-studio-{self.port}"


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


def _name_and_port(host: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{host}")
        plain = not (parts.path or parts.query or parts.fragment or parts.username is not None)
        return (parts.hostname or "", parts.port or 80) if plain else ("", 0)
    except ValueError:
        return "", 0


def _is_foreign(scope: Scope, headers: Headers, host: str) -> bool:
    """Return whether a browser says that another page than ours asks: by Origin for what is sent, by Sec-Fetch-Site for all but the page itself."""
    origin = headers.get("origin")
    own = {f"http://{host.lower()}", f"https://{host.lower()}"}  # https: behind somebody's proxy
    if scope["method"] == "POST" and origin is not None and origin.lower() not in own:
        return True
    return scope["path"] != "/" and headers.get("sec-fetch-site") in {"cross-site", "same-site"}


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return False


class Guard:
    """Lets through what is welcome, and puts the forbidding headers on every answer."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse with one sentence."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # there are no web sockets: the server closes what is not accepted
        headers = Headers(scope=scope)
        dressed = _dressed(send)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(dressed, *refusal)
        elif self._is_entrance(scope):
            await self._let_in(dressed)
        else:
            await self._answered(scope, receive, dressed)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        started: list[bool] = []

        async def watched(message: Message) -> None:
            started.append(True)
            await send(message)

        try:
            await self.app(scope, _bounded(receive), watched)
        except TooLarge:
            if not started:
                await _refuse(send, 413, f"More than {MAX_BODY >> 20} MB were sent, or too slowly: send a smaller picture.")

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Return status and sentence for a request that is not to be answered."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not is_welcome(hosts[0], self.door):
            return 403, f"This server is not called {hosts[0] if hosts else ''!r}: open it by the address that `cardigan studio` printed."
        if scope["method"] not in {*READING, "POST"}:
            return 405, "This server is only read from."
        if _is_foreign(scope, headers, hosts[0]):
            return 403, "A page from elsewhere may not use this server."
        if not self._has_token(scope, headers):
            return 403, "The token is missing or wrong: open the whole address that `cardigan studio` printed, ?token=... included."
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 12 or int(length) > MAX_BODY:
            return 413, f"More than {MAX_BODY >> 20} MB were to be sent: send a smaller picture."
        return None

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        token = self.door.token
        if token is None:
            return True
        given = _asked_token(scope) if self._is_entrance(scope) else _cookie(headers, self.door.cookie)
        return hmac.compare_digest(given.encode(), token.encode())

    def _is_entrance(self, scope: Scope) -> bool:
        return self.door.token is not None and scope["path"] == "/" and scope["method"] == "GET" and _asked_token(scope) != ""

    async def _let_in(self, send: Send) -> None:
        """Keep the token in a cookie and take it out of the address, which is seen and copied."""
        cookie = f"{self.door.cookie}={self.door.token}; HttpOnly; SameSite=Strict; Path=/"
        headers = [(b"location", b"/"), (b"set-cookie", cookie.encode()), (b"content-length", b"0"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _asked_token(scope: Scope) -> str:
    return parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]


def _cookie(headers: Headers, name: str) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _dressed(send: Send) -> Send:
    """Return `send` with the forbidding headers on every answer."""

    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return dressed


def _bounded(receive: Receive) -> Receive:
    """Return `receive` that counts: a body that grows too large, or does not come, is broken off while it arrives."""
    taken, whole = 0, False
    deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def bounded() -> Message:
        nonlocal taken, whole
        if whole:
            return await receive()  # waits for the client to leave
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            raise TooLarge from error
        taken += len(message.get("body", b""))
        whole = message["type"] != "http.request" or not message.get("more_body", False)
        if taken > MAX_BODY:
            raise TooLarge
        return message

    return bounded


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    headers += [(b"connection", b"close")] if status == 413 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
