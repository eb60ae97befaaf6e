"""How much may be sent and how long it may take, counted while it arrives; and a refusal in one sentence.

Knows no route.
"""

import asyncio

from starlette.types import Message, Receive


class BodyTooLarge(Exception):
    """More was sent than is taken."""


class BodyTimeout(Exception):
    """What was announced did not come in time."""


def limit_body(receive: Receive, max_bytes: int, timeout_seconds: float) -> Receive:
    """Return `receive` that counts: raises TooLarge for a body of more than `max_bytes` bytes and TooSlow for one that takes longer, as it arrives."""
    num_received, is_complete = 0, False
    deadline = asyncio.get_running_loop().time() + timeout_seconds

    async def limited_receive() -> Message:
        nonlocal num_received, is_complete
        if is_complete:
            return await receive()  # waits for the client to leave
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            raise BodyTimeout from error
        num_received += len(message.get("body", b""))
        is_complete = message["type"] != "http.request" or not message.get("more_body", False)
        if num_received > max_bytes:
            raise BodyTooLarge
        return message

    return limited_receive


def content_length_within(content_length: str | None, max_bytes: int) -> bool:
    """Return whether a Content-Length header is a number of at most `max_bytes` bytes; none is none."""
    return content_length is None or (
        content_length.isdecimal() and len(content_length) <= 12 and int(content_length) <= max_bytes
    )
