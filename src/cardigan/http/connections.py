"""Connections of a server: how many there may be, and who is hung up on.

Knows sockets and uvicorn; not what is answered.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_OPEN_FILES = 4_096
"""How many files and connections a server asks to have open at a time."""
IDLE_SECONDS = 15.0


class IdleTimeoutProtocol(H11Protocol):
    """A connection that is hung up when for two looks in a row it has asked nothing, or taken nothing of its answer.

    uvicorn alone waits for ever for a first request, and for an answer to be read.
    """

    _last_cycle: Any = None
    _last_unsent_bytes = 0
    _idle_timer: asyncio.TimerHandle | None = None

    @property
    def is_responding(self) -> bool:
        """Whether a request was begun and its answer has not left yet."""
        return (
            self.cycle is not None and not self.cycle.response_complete
        ) or self.transport.get_write_buffer_size() > 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin to look."""
        super().connection_made(transport)
        self._last_cycle = self
        self._idle_timer = self.loop.call_later(IDLE_SECONDS, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        super().connection_lost(exc)

    def _close_if_idle(self) -> None:
        cycle, unsent_bytes = self.cycle, self.transport.get_write_buffer_size()
        if unsent_bytes and unsent_bytes == self._last_unsent_bytes:
            self.transport.abort()  # to close would be to wait for it to be read
            return
        if (
            not unsent_bytes
            and (cycle is None or cycle.response_complete)
            and (cycle is self._last_cycle or cycle is None)
        ):
            self.transport.close()
            return
        self._last_cycle, self._last_unsent_bytes = cycle, unsent_bytes
        self._idle_timer = self.loop.call_later(IDLE_SECONDS, self._close_if_idle)


def max_connections(limit: int) -> int:
    """Return how many connections a server can hold, at most `limit`: this process may be allowed fewer files."""
    return min(limit, max(64, _raise_open_file_limit() - 128))


def _raise_open_file_limit() -> int:
    """Raise how many files this process may have open, as far as it is allowed to; return how many that is."""
    try:
        import resource
    except ImportError:
        return MAX_OPEN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        return target
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft
