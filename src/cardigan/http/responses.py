"""Responses that the servers share: JSON, errors, security headers."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Send

MAX_DISCARDED_BYTES, DISCARD_SECONDS = 48 << 20, 10.0
"""How much of a body that is too large is read and discarded, and for how long."""


def json_bytes(content: Any) -> bytes:
    """Return compact UTF-8 JSON. Raises ValueError for NaN and infinities."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(errors="replace")


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response that is not cached."""
    return Response(
        json_bytes(content), status, {"cache-control": "no-store", **(headers or {})}, media_type="application/json"
    )


async def disconnected_response(request: Request, error: Exception) -> Response:
    """Handle ClientDisconnected: an empty response that no client reads."""
    return Response(status_code=499)


async def send_error(
    receive: Receive, send: Send, status: int, message: str, headers: dict[str, str] | None = None
) -> None:
    """Send {"error": message}. Statuses 408 and 413 close the connection, since the body may be incomplete.

    The rest of the body of a 413 is read and discarded: a connection closed with unread bytes is reset, and the client
    would lose the response.
    """
    body = json.dumps({"error": message}).encode()
    response_headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        **(headers or {}),
    }
    if status in {408, 413}:
        response_headers["connection"] = "close"
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in response_headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": status == 413})
    if status == 413:
        await _discard_body(receive)
        await send({"type": "http.response.body"})


async def _discard_body(receive: Receive) -> None:
    """Read the rest of a body, at most MAX_DISCARDED_BYTES and DISCARD_SECONDS."""
    num_discarded = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while num_discarded < MAX_DISCARDED_BYTES:
                message = await receive()
                num_discarded += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def with_security_headers(send: Send, security_headers: Mapping[str, str]) -> Send:
    """Return `send` that adds the headers to every response."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(security_headers)
        await send(message)

    return send_with_headers
