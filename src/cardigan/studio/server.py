"""Runs the studio with uvicorn."""

import logging
import socket
from collections.abc import Callable

import uvicorn

from cardigan.http.connections import IdleTimeoutProtocol, max_connections
from cardigan.http.endpoint import Endpoint, base_url, open_endpoint
from cardigan.studio.app import build_app
from cardigan.studio.runs_folder import RunsFolder

PORT = 8765
NUM_FALLBACK_PORTS = 20
"""Number of ports to try from PORT on if no port is given."""
MAX_CONNECTIONS = 1_500


def open_studio_endpoint(host: str, port: int | None) -> tuple[socket.socket, Endpoint]:
    """Return a listening socket and its endpoint, with a token unless the host is a loopback address.

    `port` defaults to the first free port from PORT on; 0 takes any free port. Raises CardiganError if no port is free.
    """
    return open_endpoint(host, [port] if port is not None else [*range(PORT, PORT + NUM_FALLBACK_PORTS), 0])


def studio_url(endpoint: Endpoint, page: str = "") -> str:
    """Return the URL to open in a browser. `page` is the part after the `#`."""
    token = f"?token={endpoint.token}" if endpoint.token else ""
    return f"{base_url(endpoint)}/{token}{'#' + page if page else ''}"


def run_studio(
    folder: RunsFolder,
    listening_socket: socket.socket,
    endpoint: Endpoint,
    on_start: Callable[[uvicorn.Server], None],
    device: str,
) -> None:
    """Serve until SIGINT, SIGTERM or `should_exit`. `on_start` gets the uvicorn server before it starts."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # no messages about clients' errors
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
