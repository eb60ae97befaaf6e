"""Access checks of the studio: host name, origin, token cookie, body size, security headers."""

from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cardigan.http.access import host_allowed, is_same_origin, token_matches
from cardigan.http.endpoint import Endpoint
from cardigan.http.limits import BodyTimeout, BodyTooLarge, content_length_within, limit_body
from cardigan.http.responses import send_error, with_security_headers

MAX_BODY_BYTES = 8 << 20
"""Maximum size of an uploaded image."""
TOO_LARGE = f"The upload exceeds {MAX_BODY_BYTES >> 20} MB: send a smaller image."
BODY_SECONDS = 60.0
"""Maximum duration of an upload."""
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
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; frame-ancestors 'none'; sandbox"
)
"""Policy of a run's report, which somebody else may have written: no scripts, nothing loaded."""
SAFE_METHODS = {"GET", "HEAD"}


def cookie_name(endpoint: Endpoint) -> str:
    """Return the cookie's name. It contains the port, because browsers send a cookie to every port of a host."""
    return f"cardigan-studio-{endpoint.port}"


def _is_cross_site(scope: Scope, headers: Headers, host: str) -> bool:
    """Return whether a page of another site sent the request: by Origin (POST) or Sec-Fetch-Site (except for `/`)."""
    origin = headers.get("origin")
    if scope["method"] == "POST" and origin is not None and not is_same_origin(origin, host):
        return True
    return scope["path"] != "/" and headers.get("sec-fetch-site") in {"cross-site", "same-site"}


class CookieAccessMiddleware:
    """Rejects requests without access and adds the security headers to every response.

    The token is accepted once in the page's address (`/?token=...`) and then kept in a cookie.
    """

    def __init__(self, app: ASGIApp, endpoint: Endpoint) -> None:
        self.app, self.endpoint = app, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or reject it with an error message."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # no web sockets: the server closes connections that are not accepted
        headers = Headers(scope=scope)
        is_report = scope["path"] == "/api/report"
        send_with_headers = with_security_headers(
            send, {**SECURITY_HEADERS, "content-security-policy": REPORT_POLICY} if is_report else SECURITY_HEADERS
        )
        rejection = self._rejection(scope, headers)
        if rejection is not None:
            await send_error(receive, send_with_headers, *rejection)
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
        except BodyTooLarge:
            if not started:
                await send_error(receive, send, 413, TOO_LARGE)
        except BodyTimeout:
            if not started:
                await send_error(
                    receive, send, 408, f"The upload took more than {BODY_SECONDS:g} seconds: send a smaller image."
                )

    def _rejection(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Return status and message of a request that is rejected, None if it is accepted."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not host_allowed(hosts[0], self.endpoint):
            return (
                403,
                f"The host name {hosts[0] if hosts else ''!r} is not allowed: "
                "open the address that `cardigan studio` printed.",
            )
        if scope["method"] not in {*SAFE_METHODS, "POST"}:
            return 405, f"The method {scope['method'][:20]} is not allowed."
        if _is_cross_site(scope, headers, hosts[0]):
            return 403, "Requests from pages of other sites are not allowed."
        if not self._has_token(scope, headers):
            return (
                403,
                "The token is missing or wrong: open the address that `cardigan studio` printed, with its ?token=...",
            )
        if not content_length_within(headers.get("content-length"), MAX_BODY_BYTES):
            return 413, TOO_LARGE
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
        """Set the token cookie and redirect to an address without the token, which is safe to copy."""
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
