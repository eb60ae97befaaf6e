"""Who may ask, and how much: host names, origins, tokens, the size of what is sent, and what browsers are told to forbid.

Stands before everything else; knows no route but the page's.
"""

from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cardigan.http.access import host_allowed, is_same_origin, token_matches
from cardigan.http.endpoint import Endpoint
from cardigan.http.limits import BodyTimeout, BodyTooLarge, content_length_within, limit_body
from cardigan.http.responses import send_error

MAX_BODY_BYTES = 8 << 20
"""Bytes of a picture that is sent."""
BODY_SECONDS = 60.0
"""How long sending it may take."""
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
SAFE_METHODS = {"GET", "HEAD"}


def cookie_name(endpoint: Endpoint) -> str:
    """Browsers send a cookie to every port of a host, so that each server needs a name of its own."""
    return f"cardigan-studio-{endpoint.port}"


def _is_cross_site(scope: Scope, headers: Headers, host: str) -> bool:
    """Return whether a browser says that another page than ours asks: by Origin for what is sent, by Sec-Fetch-Site for all but the page itself."""
    origin = headers.get("origin")
    if scope["method"] == "POST" and origin is not None and not is_same_origin(origin, host):
        return True
    return scope["path"] != "/" and headers.get("sec-fetch-site") in {"cross-site", "same-site"}


class CookieAccessMiddleware:
    """Lets through what is welcome, and puts the forbidding headers on every answer."""

    def __init__(self, app: ASGIApp, endpoint: Endpoint) -> None:
        self.app, self.endpoint = app, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse with one sentence."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # there are no web sockets: the server closes what is not accepted
        headers = Headers(scope=scope)
        send_with_headers = _with_security_headers(send)
        rejection = self._rejection(scope, headers)
        if rejection is not None:
            await send_error(send_with_headers, *rejection)
        elif self._is_login(scope):
            await self._log_in(send_with_headers)
        else:
            await self._forward(scope, receive, send_with_headers)

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        started: list[bool] = []

        async def tracking_send(message: Message) -> None:
            started.append(True)
            await send(message)

        try:
            await self.app(scope, limit_body(receive, MAX_BODY_BYTES, BODY_SECONDS), tracking_send)
        except (BodyTooLarge, BodyTimeout):
            if not started:
                await send_error(
                    send, 413, f"More than {MAX_BODY_BYTES >> 20} MB were sent, or too slowly: send a smaller picture."
                )

    def _rejection(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Return status and sentence for a request that is not to be answered."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not host_allowed(hosts[0], self.endpoint):
            return (
                403,
                f"This server is not called {hosts[0] if hosts else ''!r}: open it by the address that `cardigan studio` printed.",
            )
        if scope["method"] not in {*SAFE_METHODS, "POST"}:
            return 405, "This server is only read from."
        if _is_cross_site(scope, headers, hosts[0]):
            return 403, "A page from elsewhere may not use this server."
        if not self._has_token(scope, headers):
            return (
                403,
                "The token is missing or wrong: open the whole address that `cardigan studio` printed, ?token=... included.",
            )
        if not content_length_within(headers.get("content-length"), MAX_BODY_BYTES):
            return 413, f"More than {MAX_BODY_BYTES >> 20} MB were to be sent: send a smaller picture."
        return None

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        if self.endpoint.token is None:
            return True
        token = _query_token(scope) if self._is_login(scope) else _cookie_value(headers, cookie_name(self.endpoint))
        return token_matches(token, self.endpoint)

    def _is_login(self, scope: Scope) -> bool:
        return (
            self.endpoint.token is not None
            and scope["path"] == "/"
            and scope["method"] == "GET"
            and _query_token(scope) != ""
        )

    async def _log_in(self, send: Send) -> None:
        """Keep the token in a cookie and take it out of the address, which is seen and copied."""
        cookie = f"{cookie_name(self.endpoint)}={self.endpoint.token}; HttpOnly; SameSite=Strict; Path=/"
        headers = [
            (b"location", b"/"),
            (b"set-cookie", cookie.encode()),
            (b"content-length", b"0"),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _query_token(scope: Scope) -> str:
    return parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]


def _cookie_value(headers: Headers, name: str) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _with_security_headers(send: Send) -> Send:
    """Return `send` with the forbidding headers on every answer."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
        await send(message)

    return send_with_headers
