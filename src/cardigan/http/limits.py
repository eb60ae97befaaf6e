"""Limits on the size and duration of a request's body, checked while it arrives."""

import asyncio

from starlette.types import Message, Receive


class BodyTooLarge(Exception):
    """The body exceeds the size limit."""


class BodyTimeout(Exception):
    """The body did not arrive in time."""


def limit_body(receive: Receive, max_bytes: int, timeout_seconds: float) -> Receive:
    """Return `receive` with limits, checked as the body arrives.

    It raises BodyTooLarge after more than `max_bytes` bytes, and BodyTimeout after `timeout_seconds`.
    """
    num_received, is_complete = 0, False
    deadline = asyncio.get_running_loop().time() + timeout_seconds

    async def limited_receive() -> Message:
        nonlocal num_received, is_complete
        if is_complete:
            return await receive()  # waits until the client disconnects
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
    """Return whether a Content-Length header is valid and at most `max_bytes`. True if it is absent."""
    return content_length is None or (
        content_length.isdecimal() and len(content_length) <= 12 and int(content_length) <= max_bytes
    )
