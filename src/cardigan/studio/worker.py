"""A worker thread with a bounded queue for slow requests."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cardigan.http.errors import ClientDisconnected, TooManyRequests

MAX_QUEUED = 16
DISCONNECT_POLL_SECONDS = 0.1
"""Interval between checks whether the client is still connected."""
Result = TypeVar("Result")


class WorkerQueue:
    """One worker thread. Requests beyond MAX_QUEUED are rejected."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="studio-worker")
        self._num_queued = 0

    async def run(
        self, function: Callable[[Callable[[], bool]], Result], is_disconnected: Callable[[], Awaitable[bool]]
    ) -> Result:
        """Call the function in the worker thread and return its result. Its argument tells whether it was cancelled.

        The function is not called if the client disconnects before its turn. Raises TooManyRequests if the queue is
        full, and ClientDisconnected.
        """
        if self._num_queued >= MAX_QUEUED:
            raise TooManyRequests(f"{MAX_QUEUED} requests are queued already: try again in a moment.")
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
