"""Limits on a server's connections: their number, and a timeout for idle ones."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_OPEN_FILES = 4_096
"""Limit of open files and sockets that a server asks the operating system for."""
IDLE_SECONDS = 15.0
PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""An interim response, which clients skip (RFC 9110, section 15.2). Writing to a client that has left fails."""
PROBE_SECONDS = 0.05
"""Time from the first probe to the second. It doubles with every probe."""


class IdleTimeoutProtocol(H11Protocol):
    """Closes a connection that stays idle for two consecutive checks: no request, or no byte of the response read.

    uvicorn has no timeout for a first request, nor for a client that does not read the response.
    """

    _last_cycle: Any = None
    _last_unsent_bytes = 0
    _idle_timer: asyncio.TimerHandle | None = None
    _probe_timer: asyncio.TimerHandle | None = None

    @property
    def is_responding(self) -> bool:
        """Whether a request has started and its response is not yet sent in full."""
        return (
            self.cycle is not None and not self.cycle.response_complete
        ) or self.transport.get_write_buffer_size() > 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start the idle checks."""
        super().connection_made(transport)
        self._last_cycle = self
        self._idle_timer = self.loop.call_later(IDLE_SECONDS, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the idle checks."""
        for timer in (self._idle_timer, self._probe_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Keep the connection of a client that has sent its request and closed only its sending side.

        A client that has left sends the same. The probes tell the two apart.
        """
        if not self._awaits_response or self.scope["http_version"] != "1.1":
            return False
        self._probe(PROBE_SECONDS)
        return True

    @property
    def _awaits_response(self) -> bool:
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_started

    def _probe(self, next_seconds: float) -> None:
        if self._awaits_response and not self.transport.is_closing():
            self.transport.write(PROBE)
            self._probe_timer = self.loop.call_later(next_seconds, self._probe, 2 * next_seconds)

    def on_response_complete(self) -> None:
        """Close a half-closed connection: it can bring no other request."""
        super().on_response_complete()
        if self._probe_timer is not None:
            self.transport.close()

    def _close_if_idle(self) -> None:
        cycle, unsent_bytes = self.cycle, self.transport.get_write_buffer_size()
        if unsent_bytes and unsent_bytes == self._last_unsent_bytes:
            self.transport.abort()  # close() would wait until the client reads the rest
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
    """Return how many connections a server can hold: `limit`, or fewer if the process may open fewer files."""
    return min(limit, max(64, _raise_open_file_limit() - 128))


def _raise_open_file_limit() -> int:
    """Raise the limit of open files of this process as far as allowed, and return it."""
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
