"""A room where slow work is done: one thread and a short queue at its door; and what it keeps, the few things that were used last.

Knows neither HTTP nor what is drawn.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from cardigan.studio.live import Busy

MAX_WAITING = 16
MAX_MODELS = 4
LOOK_SECONDS = 0.1
"""How often it is looked whether who asked is still there."""
Found = TypeVar("Found")


class Left(Exception):
    """Who asked has gone."""


class Room:
    """One worker; whoever comes when too many wait already is sent away."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="room")
        self._waiting = 0

    async def work(self, function: Callable[[Callable[[], bool]], Found], has_left: Callable[[], Awaitable[bool]]) -> Found:
        """Return what the function returns, which is given a way to ask whether anybody still wants it.

        A function whose asker leaves before its turn is never called. Raises Busy where too many wait, and Left.
        """
        if self._waiting >= MAX_WAITING:
            raise Busy(f"{MAX_WAITING} requests wait already: try again in a moment.")
        self._waiting += 1
        unwanted = threading.Event()
        loop = asyncio.get_running_loop()
        future = self._worker.submit(lambda: function(unwanted.is_set))
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave) if not loop.is_closed() else None)
        waiting = asyncio.wrap_future(future)
        try:
            while not (await asyncio.wait({waiting}, timeout=LOOK_SECONDS))[0]:
                if await has_left():
                    raise Left
            return waiting.result()
        finally:
            unwanted.set()
            future.cancel()

    def _leave(self) -> None:
        self._waiting -= 1


class Kept:
    """The results that were used last, a bounded number of them; for one thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Found]) -> Found:
        """Return what is kept under the key, made now if it is not."""
        if key not in self._found:
            while len(self._found) >= self._most:
                self._found.popitem(last=False)  # before the next is made, so that there are never more
            self._found[key] = make()
        self._found.move_to_end(key)
        return self._found[key]
