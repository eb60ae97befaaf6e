"""The server on a port: answers until it is told to stop, then finishes what is begun.

Knows sockets, signals and uvicorn; not what is answered.
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
    """uvicorn's, which remembers whether it ended before an answer had left: one that is read slowly waits in its connection, and in no task."""

    aborted_responses = False

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is begun, within the grace time; look for what is left, and hang up on it."""
        await super().shutdown(sockets)
        open_connections = [
            connection
            for connection in self.server_state.connections
            if isinstance(connection, IdleTimeoutProtocol) and connection.is_responding
        ]
        self.aborted_responses = bool(open_connections)
        for connection in open_connections:
            if connection.transport.get_write_buffer_size():
                connection.transport.abort()  # to close would be to wait for it to be read


def run_server(
    service: SamplingService,
    listening_socket: socket.socket,
    endpoint: Endpoint,
    origins: tuple[str, ...],
    shutdown_timeout: int,
    on_start: Callable[[uvicorn.Server], None],
) -> bool:
    """Answer until SIGINT or SIGTERM, or until the server's `should_exit` is set; return whether everything begun was answered in the grace time.

    `on_start` is called with the server before it begins; `shutdown_timeout` is in seconds.
    """
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what clients do wrong is not our user's business
    config = uvicorn.Config(
        build_app(service, endpoint, origins),
        http=IdleTimeoutProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing depends on who asks
        limit_concurrency=max_connections(MAX_CONNECTIONS),
        timeout_graceful_shutdown=shutdown_timeout,
        timeout_keep_alive=75,  # `IdleTimeoutProtocol` hangs up on who asks nothing for 15 to 30 s; load balancers have to do so earlier (the guide says how)
    )
    server = Server(config)
    on_start(server)
    try:
        with _ignore_second_signal(), keep_freed_memory():  # a third of the time of a batch of digits, on a CPU
            server.run(sockets=[listening_socket])
        return not server.aborted_responses
    finally:
        service.batcher.close()


@contextmanager
def _ignore_second_signal() -> Iterator[None]:
    """Keep the process alive when uvicorn, having stopped, sends itself again the signal that stopped it."""
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
