"""Connections of a server: how many there may be, and who is hung up on.

Knows sockets and uvicorn; not what is answered.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

FILES = 4_096
"""How many files and connections a server asks to have open at a time."""
SILENT_SECONDS = 15.0


class Patient(H11Protocol):
    """A connection that is hung up when for two looks in a row it has asked nothing, or taken nothing of its answer.

    uvicorn alone waits for ever for a first request, and for an answer to be read.
    """

    _seen: Any = None
    _unread = 0
    _look: asyncio.TimerHandle | None = None

    @property
    def is_answering(self) -> bool:
        """Whether a request was begun and its answer has not left yet."""
        return (self.cycle is not None and not self.cycle.response_complete) or self.transport.get_write_buffer_size() > 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin to look."""
        super().connection_made(transport)
        self._seen = self
        self._look = self.loop.call_later(SILENT_SECONDS, self._hang_up_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _hang_up_if_silent(self) -> None:
        cycle, unread = self.cycle, self.transport.get_write_buffer_size()
        if unread and unread == self._unread:
            self.transport.abort()  # to close would be to wait for it to be read
            return
        if not unread and (cycle is None or cycle.response_complete) and (cycle is self._seen or cycle is None):
            self.transport.close()
            return
        self._seen, self._unread = cycle, unread
        self._look = self.loop.call_later(SILENT_SECONDS, self._hang_up_if_silent)


def allowed_connections(most: int) -> int:
    """Return how many connections a server can hold, at most `most`: this process may be allowed fewer files."""
    return min(most, max(64, _more_files() - 128))


def _more_files() -> int:
    """Raise how many files this process may have open, as far as it is allowed to; return how many that is."""
    try:
        import resource
    except ImportError:
        return FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return FILES if soft == resource.RLIM_INFINITY else soft
