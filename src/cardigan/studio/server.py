"""The studio on a port: takes connections until it is told to stop.

Knows sockets and uvicorn; not what is answered.
"""

import logging
import socket
from collections.abc import Callable

import uvicorn

from cardigan.http import endpoint as door
from cardigan.http.connections import IdleTimeoutProtocol, max_connections
from cardigan.http.endpoint import Endpoint
from cardigan.studio.app import build_app
from cardigan.studio.runs_folder import RunsFolder

PORT = 8765
NUM_FALLBACK_PORTS = 20
"""How many ports after the usual one are tried where that is taken."""
MAX_CONNECTIONS = 1_500


def open_studio_endpoint(host: str, port: int | None) -> tuple[socket.socket, Endpoint]:
    """Return a socket that listens, and its door: with a token unless only this machine can come in.

    Without a port it is the usual one or one of the next, whichever is free; 0 is any. Raises CardiganError where none can be had.
    """
    return door.open_endpoint(host, [port] if port is not None else [*range(PORT, PORT + NUM_FALLBACK_PORTS), 0])


def studio_url(endpoint: Endpoint, page: str = "") -> str:
    """Return what to open in a browser; `page` is what stands behind the `#`."""
    token = f"?token={endpoint.token}" if endpoint.token else ""
    return f"{door.base_url(endpoint)}/{token}{'#' + page if page else ''}"


def run_studio(
    folder: RunsFolder,
    listening_socket: socket.socket,
    endpoint: Endpoint,
    on_start: Callable[[uvicorn.Server], None],
    device: str,
) -> None:
    """Answer until SIGINT or SIGTERM, or until the server's `should_exit` is set; `on_start` is called with it before it begins."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what clients do wrong is not our user's business
    config = uvicorn.Config(
        build_app(folder, endpoint, device),
        http=IdleTimeoutProtocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=max_connections(MAX_CONNECTIONS),
        timeout_graceful_shutdown=1,
        timeout_keep_alive=10,
    )
    server = uvicorn.Server(config)
    on_start(server)
    server.run(sockets=[listening_socket])
