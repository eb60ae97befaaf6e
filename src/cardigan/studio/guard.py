"""Who may ask, and how much: host names, origins, tokens, the size of what is sent, and what browsers are told to forbid.

Stands before everything else; knows no route but the page's.
"""

from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cardigan.web.bodies import TooLarge, TooSlow, bounded, is_within, refuse
from cardigan.web.door import Door, is_own, is_token, is_welcome

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


def cookie_name(door: Door) -> str:
    """Browsers send a cookie to every port of a host, so that each server needs a name of its own."""
    return f"cardigan-studio-{door.port}"


def _is_foreign(scope: Scope, headers: Headers, host: str) -> bool:
    """Return whether a browser says that another page than ours asks: by Origin for what is sent, by Sec-Fetch-Site for all but the page itself."""
    origin = headers.get("origin")
    if scope["method"] == "POST" and origin is not None and not is_own(origin, host):
        return True
    return scope["path"] != "/" and headers.get("sec-fetch-site") in {"cross-site", "same-site"}


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
            await refuse(dressed, *refusal)
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
            await self.app(scope, bounded(receive, MAX_BODY, BODY_SECONDS), watched)
        except (TooLarge, TooSlow):
            if not started:
                await refuse(send, 413, f"More than {MAX_BODY >> 20} MB were sent, or too slowly: send a smaller picture.")

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
        if not is_within(headers.get("content-length"), MAX_BODY):
            return 413, f"More than {MAX_BODY >> 20} MB were to be sent: send a smaller picture."
        return None

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        if self.door.token is None:
            return True
        given = _asked_token(scope) if self._is_entrance(scope) else _cookie(headers, cookie_name(self.door))
        return is_token(given, self.door)

    def _is_entrance(self, scope: Scope) -> bool:
        return self.door.token is not None and scope["path"] == "/" and scope["method"] == "GET" and _asked_token(scope) != ""

    async def _let_in(self, send: Send) -> None:
        """Keep the token in a cookie and take it out of the address, which is seen and copied."""
        cookie = f"{cookie_name(self.door)}={self.door.token}; HttpOnly; SameSite=Strict; Path=/"
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
