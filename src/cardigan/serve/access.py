"""Access control and request size limits, applied before any other handling.

A server on localhost accepts requests with a local Host header that come from no other site. Any other server requires
the token.
"""

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from cardigan.http.access import host_allowed, is_same_origin, token_matches
from cardigan.http.endpoint import Endpoint
from cardigan.http.limits import BodyTimeout, BodyTooLarge, content_length_within, limit_body
from cardigan.http.responses import send_error, with_security_headers

BODY_SECONDS = 10.0
"""Maximum time to receive a request body."""
PUBLIC_PATHS = {"/", "/healthz"}
"""Paths that need no token. They reveal nothing about the model."""
SECURITY_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


@dataclass(frozen=True)
class AccessPolicy:
    """The server's endpoint, the other origins that browsers may send, and the maximum request size in bytes."""

    endpoint: Endpoint
    allowed_origins: tuple[str, ...]
    max_body_bytes: int


class AccessMiddleware:
    """ASGI middleware that rejects requests the policy does not allow."""

    def __init__(self, app: ASGIApp, policy: AccessPolicy) -> None:
        self.app, self.policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request, or reject it with a one-sentence JSON error."""
        if scope["type"] != "http":
            return  # no WebSocket endpoints: uvicorn closes a connection that is not accepted
        rejection = self._rejection(scope, Headers(scope=scope))
        send_with_headers = with_security_headers(send, SECURITY_HEADERS)
        if rejection is not None:
            await send_error(receive, send_with_headers, *rejection)
            return
        max_bytes = self.policy.max_body_bytes
        try:
            await self.app(scope, limit_body(receive, max_bytes, BODY_SECONDS), send_with_headers)
        except BodyTooLarge:
            await send_error(receive, send_with_headers, 413, _too_large_message(max_bytes))
        except BodyTimeout:
            await send_error(
                receive,
                send_with_headers,
                408,
                f"The request did not arrive within {BODY_SECONDS:g} seconds: send it faster.",
            )

    def _rejection(self, scope: Scope, headers: Headers) -> tuple[int, str, dict[str, str]] | None:
        """Return status, message and headers for a request to reject, or None."""
        endpoint = self.policy.endpoint
        if endpoint.token is None:
            hosts = headers.getlist("host")
            if len(hosts) != 1 or not host_allowed(hosts[0], endpoint):
                return (
                    403,
                    f"Host {hosts[0][:80] if hosts else ''!r} is not allowed: use the address that `cardigan serve` "
                    "printed.",
                    {},
                )
            if self._is_cross_site(scope, headers, hosts[0]):
                return (
                    403,
                    "Cross-origin requests are not allowed: add the page's origin with `cardigan serve --origins`.",
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
        """Return whether the browser's Origin or Sec-Fetch-Site header names another site. `/` may be linked to."""
        origin = headers.get("origin")
        if origin is not None:
            return not is_same_origin(origin, host) and origin not in self.policy.allowed_origins
        return scope["path"] != "/" and headers.get("sec-fetch-site") in {"cross-site", "same-site"}


def _too_large_message(max_bytes: int) -> str:
    return f"The request has more than {max_bytes:,} bytes: request fewer images at once."


def _bearer_token(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
