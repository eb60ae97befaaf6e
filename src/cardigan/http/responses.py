"""Responses that both servers send."""

import json

from starlette.types import Send


async def send_error(send: Send, status: int, message: str, headers: dict[str, str] | None = None) -> None:
    """Answer with {"error": sentence}; what was sent and is not read ends the connection."""
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
    await send({"type": "http.response.body", "body": body})
