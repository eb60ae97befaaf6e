"""A room where slow work is done: one thread and a short queue at its door; and what it keeps, the few things that were used last.

Knows neither HTTP nor what is drawn.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cardigan.studio.event_stream import TooManyRequests

MAX_QUEUED = 16
DISCONNECT_POLL_SECONDS = 0.1
"""How often it is looked whether who asked is still there."""
Result = TypeVar("Result")


class ClientDisconnected(Exception):
    """Who asked has gone."""


class WorkerQueue:
    """One worker; whoever comes when too many wait already is sent away."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="room")
        self._num_queued = 0

    async def run(
        self, function: Callable[[Callable[[], bool]], Result], is_disconnected: Callable[[], Awaitable[bool]]
    ) -> Result:
        """Return what the function returns, which is given a way to ask whether anybody still wants it.

        A function whose asker leaves before its turn is never called. Raises Busy where too many wait, and Left.
        """
        if self._num_queued >= MAX_QUEUED:
            raise TooManyRequests(f"{MAX_QUEUED} requests wait already: try again in a moment.")
        self._num_queued += 1
        cancelled = threading.Event()
        loop = asyncio.get_running_loop()
        future = self._executor.submit(lambda: function(cancelled.is_set))
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._decrement) if not loop.is_closed() else None)
        result = asyncio.wrap_future(future)
        try:
            while not (await asyncio.wait({result}, timeout=DISCONNECT_POLL_SECONDS))[0]:
                if await is_disconnected():
                    raise ClientDisconnected
            return result.result()
        finally:
            cancelled.set()
            future.cancel()

    def _decrement(self) -> None:
        self._num_queued -= 1
