"""Who may ask the server, and how much may be sent, before anything else is looked at.

On this machine alone: whoever calls it by this machine's names, and no page of somebody else's. Elsewhere: whoever has the token.
"""

from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cardigan.http.access import host_allowed, is_same_origin, token_matches
from cardigan.http.endpoint import Endpoint
from cardigan.http.limits import BodyTimeout, BodyTooLarge, content_length_within, limit_body
from cardigan.http.responses import send_error

BODY_SECONDS = 10.0
"""How long sending a request may take."""
PUBLIC_PATHS = {"/", "/healthz"}
"""What anybody who reaches the server may read: it says nothing of the model."""
SECURITY_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


@dataclass(frozen=True)
class AccessPolicy:
    """The door, the pages of others that may ask in a browser, and how many bytes a request may have."""

    endpoint: Endpoint
    allowed_origins: tuple[str, ...]
    max_body_bytes: int


class AccessMiddleware:
    """Lets through what is welcome."""

    def __init__(self, app: ASGIApp, policy: AccessPolicy) -> None:
        self.app, self.policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse with one sentence."""
        if scope["type"] != "http":
            return  # there are no web sockets: the server closes what is not accepted
        rejection = self._rejection(scope, Headers(scope=scope))
        send_with_headers = _with_security_headers(send)
        if rejection is not None:
            await send_error(send_with_headers, *rejection)
            return
        max_bytes = self.policy.max_body_bytes
        try:
            await self.app(scope, limit_body(receive, max_bytes, BODY_SECONDS), send_with_headers)
        except BodyTooLarge:
            await send_error(send_with_headers, 413, _too_large_message(max_bytes))
        except BodyTimeout:
            await send_error(
                send_with_headers, 408, f"The request did not come within {BODY_SECONDS:g} seconds: send it faster."
            )

    def _rejection(self, scope: Scope, headers: Headers) -> tuple[int, str, dict[str, str]] | None:
        """Return status, sentence and headers for a request that is not to be answered."""
        endpoint = self.policy.endpoint
        if endpoint.token is None:
            hosts = headers.getlist("host")
            if len(hosts) != 1 or not host_allowed(hosts[0], endpoint):
                return (
                    403,
                    f"This server is not called {hosts[0][:80] if hosts else ''!r}: use the address that `cardigan serve` printed.",
                    {},
                )
            if self._is_cross_site(scope, headers, hosts[0]):
                return (
                    403,
                    "A page from elsewhere may not use this server: name its origin with `cardigan serve --origins`.",
                    {},
                )
        elif (
            scope["path"] not in PUBLIC_PATHS
            and scope["method"] != "OPTIONS"
            and not token_matches(_bearer_token(headers), endpoint)
        ):
            return (
                401,
                "The token is missing or wrong: send `Authorization: Bearer TOKEN`.",
                {"www-authenticate": "Bearer"},
            )
        if not content_length_within(headers.get("content-length"), self.policy.max_body_bytes):
            return 413, _too_large_message(self.policy.max_body_bytes), {}
        return None

    def _is_cross_site(self, scope: Scope, headers: Headers, host: str) -> bool:
        """Return whether a browser says that another page asks: by Origin, and by Sec-Fetch-Site for all but the page itself."""
        origin = headers.get("origin")
        if origin is not None:
            return not is_same_origin(origin, host) and origin not in self.policy.allowed_origins
        return scope["path"] != "/" and headers.get("sec-fetch-site") in {"cross-site", "same-site"}


def _too_large_message(max_bytes: int) -> str:
    return f"More than {max_bytes:,} bytes were sent: ask for fewer pictures at once."


def _bearer_token(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _with_security_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(SECURITY_HEADERS)
        await send(message)

    return send_with_headers
