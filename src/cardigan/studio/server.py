"""The studio on a port: takes connections until it is told to stop.

Knows sockets and uvicorn; not what is answered.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cardigan.errors import CardiganError
from cardigan.studio.app import build_app
from cardigan.studio.guard import Door, is_here
from cardigan.studio.places import Folder

PORT = 8765
NEXT_PORTS = 20
"""How many ports after the usual one are tried where that is taken."""
MAX_CONNECTIONS = 1_500
FILES = 4_096
"""How many files and connections this process asks to have open at a time."""
SILENT_SECONDS = 15.0


class Patient(H11Protocol):
    """A connection that is hung up when it has asked nothing for two looks in a row; uvicorn alone waits for a first request for ever."""

    _seen: Any = None
    _look: asyncio.TimerHandle | None = None

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
        cycle = self.cycle
        if (cycle is None or cycle.response_complete) and (cycle is self._seen or cycle is None):
            self.transport.close()
            return
        self._seen = cycle
        self._look = self.loop.call_later(SILENT_SECONDS, self._hang_up_if_silent)


def open_door(host: str, port: int | None) -> tuple[socket.socket, Door]:
    """Return a socket that listens, and its door: with a token unless only this machine can come in.

    Without a port it is the usual one or one of the next, whichever is free; 0 is any. Raises CardiganError where none can be had.
    """
    ports = [port] if port is not None else [*range(PORT, PORT + NEXT_PORTS), 0]
    for tried in ports:
        try:
            listening = _listening(host, tried)
        except OSError as error:
            if tried != ports[-1]:
                continue
            why = (error.strerror or str(error)).lower()
            raise CardiganError(f"Cannot listen on {host}, port {tried} ({why}): give another --port, or --host.") from error
        token = None if is_here(host) else secrets.token_urlsafe(24)
        return listening, Door(host, int(listening.getsockname()[1]), token)
    raise AssertionError("ports are never empty")


def _listening(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1_024)
    except OSError:
        listening.close()
        raise
    return listening


def address(door: Door, page: str = "") -> str:
    """Return what to open in a browser; `page` is what stands behind the `#`."""
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(door.host, door.host)
    host = f"[{host}]" if ":" in host else host
    token = f"?token={door.token}" if door.token else ""
    return f"http://{host}:{door.port}/{token}{'#' + page if page else ''}"


def serve(folder: Folder, listening: socket.socket, door: Door, begun: Callable[[uvicorn.Server], None]) -> None:
    """Answer until SIGINT or SIGTERM, or until the server's `should_exit` is set; `begun` is called with it before it begins."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what clients do wrong is not our user's business
    config = uvicorn.Config(
        build_app(folder, door),
        http=Patient,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=min(MAX_CONNECTIONS, max(64, _more_files() - 128)),
        timeout_graceful_shutdown=1,
        timeout_keep_alive=10,
    )
    server = uvicorn.Server(config)
    begun(server)
    server.run(sockets=[listening])


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
