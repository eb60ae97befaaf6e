"""The studio on a port: takes connections until it is told to stop.

Knows sockets and uvicorn; not what is answered.
"""

import logging
import socket
from collections.abc import Callable

import uvicorn

from cardigan.studio.app import build_app
from cardigan.studio.places import Folder
from cardigan.web import door
from cardigan.web.connections import Patient, allowed_connections
from cardigan.web.door import Door

PORT = 8765
NEXT_PORTS = 20
"""How many ports after the usual one are tried where that is taken."""
MAX_CONNECTIONS = 1_500


def open_door(host: str, port: int | None) -> tuple[socket.socket, Door]:
    """Return a socket that listens, and its door: with a token unless only this machine can come in.

    Without a port it is the usual one or one of the next, whichever is free; 0 is any. Raises CardiganError where none can be had.
    """
    return door.open_door(host, [port] if port is not None else [*range(PORT, PORT + NEXT_PORTS), 0])


def address(opened: Door, page: str = "") -> str:
    """Return what to open in a browser; `page` is what stands behind the `#`."""
    token = f"?token={opened.token}" if opened.token else ""
    return f"{door.address(opened)}/{token}{'#' + page if page else ''}"


def serve(folder: Folder, listening: socket.socket, opened: Door, begun: Callable[[uvicorn.Server], None], device: str) -> None:
    """Answer until SIGINT or SIGTERM, or until the server's `should_exit` is set; `begun` is called with it before it begins."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what clients do wrong is not our user's business
    config = uvicorn.Config(
        build_app(folder, opened, device),
        http=Patient,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=allowed_connections(MAX_CONNECTIONS),
        timeout_graceful_shutdown=1,
        timeout_keep_alive=10,
    )
    server = uvicorn.Server(config)
    begun(server)
    server.run(sockets=[listening])
