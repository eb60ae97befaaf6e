"""Runs the server on a socket until a signal, then shuts down gracefully.

Knows sockets, signals and uvicorn, not the routes.
"""

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from cardigan.hardware.memory import keep_freed_memory
from cardigan.http.connections import IdleTimeoutProtocol, max_connections
from cardigan.http.endpoint import Endpoint
from cardigan.serve.app import SamplingService, build_app

MAX_CONNECTIONS = 1_024


class Server(uvicorn.Server):
    """uvicorn's server that also records whether shutdown aborted a response.

    uvicorn waits for its tasks only. A response that a client reads slowly waits in its connection's write buffer.
    """

    aborted_responses = False

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish open requests within the shutdown timeout, then abort the connections that remain."""
        await super().shutdown(sockets)
        open_connections = [
            connection
            for connection in self.server_state.connections
            if isinstance(connection, IdleTimeoutProtocol) and connection.is_responding
        ]
        self.aborted_responses = bool(open_connections)
        for connection in open_connections:
            if connection.transport.get_write_buffer_size():
                connection.transport.abort()  # close() would wait until the client reads it


def run_server(
    service: SamplingService,
    listening_socket: socket.socket,
    endpoint: Endpoint,
    origins: tuple[str, ...],
    shutdown_timeout: int,
    on_start: Callable[[uvicorn.Server], None],
) -> bool:
    """Serve until SIGINT, SIGTERM or `server.should_exit`; return whether all open requests got their response.

    `on_start` is called with the server before it starts. `shutdown_timeout` is in seconds.
    """
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # hides warnings about clients' invalid requests
    config = uvicorn.Config(
        build_app(service, endpoint, origins),
        loop="asyncio",  # whose transports tell what is still to be written; uvloop may be installed too
        http=IdleTimeoutProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing depends on the client's address
        limit_concurrency=max_connections(MAX_CONNECTIONS),
        timeout_graceful_shutdown=shutdown_timeout,
        # `IdleTimeoutProtocol` closes connections that are idle for 15 to 30 s. Load balancers must close earlier (see
        # docs/guides/serve.md).
        timeout_keep_alive=75,
    )
    server = Server(config)
    on_start(server)
    try:
        with _ignore_second_signal(), keep_freed_memory():  # saves a third of the time per MNIST batch on a CPU
            server.run(sockets=[listening_socket])
        return not server.aborted_responses
    finally:
        service.batcher.close()


@contextmanager
def _ignore_second_signal() -> Iterator[None]:
    """Ignore the signal that uvicorn raises again after it has stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous_handlers = {
        signal_number: signal.signal(signal_number, lambda *_: None)
        for signal_number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
