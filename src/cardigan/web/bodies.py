"""How much may be sent and how long it may take, counted while it arrives; and a refusal in one sentence.

Knows no route.
"""

import asyncio
import json

from starlette.types import Message, Receive, Send


class TooLarge(Exception):
    """More was sent than is taken."""


class TooSlow(Exception):
    """What was announced did not come in time."""


def bounded(receive: Receive, most: int, seconds: float) -> Receive:
    """Return `receive` that counts: raises TooLarge for a body of more than `most` bytes and TooSlow for one that takes longer, as it arrives."""
    taken, whole = 0, False
    deadline = asyncio.get_running_loop().time() + seconds

    async def counted() -> Message:
        nonlocal taken, whole
        if whole:
            return await receive()  # waits for the client to leave
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            raise TooSlow from error
        taken += len(message.get("body", b""))
        whole = message["type"] != "http.request" or not message.get("more_body", False)
        if taken > most:
            raise TooLarge
        return message

    return counted


def is_within(length: str | None, most: int) -> bool:
    """Return whether a Content-Length header is a number of at most `most` bytes; none is none."""
    return length is None or (length.isdecimal() and len(length) <= 12 and int(length) <= most)


async def refuse(send: Send, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
    """Answer with {"error": sentence}; what was sent and is not read ends the connection."""
    body = json.dumps({"error": sentence}).encode()
    told = {"content-type": "application/json", "content-length": str(len(body)), "cache-control": "no-store", **(headers or {})}
    if status in {408, 413}:
        told["connection"] = "close"
    await send({"type": "http.response.start", "status": status, "headers": [(name.encode(), value.encode()) for name, value in told.items()]})
    await send({"type": "http.response.body", "body": body})
