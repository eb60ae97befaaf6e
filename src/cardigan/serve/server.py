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
from cardigan.serve.app import Serving, build_app
from cardigan.web.connections import Patient, allowed_connections
from cardigan.web.door import Door

MAX_CONNECTIONS = 1_024


class Server(uvicorn.Server):
    """uvicorn's, which remembers whether it ended before an answer had left: one that is read slowly waits in its connection, and in no task."""

    broke_off = False

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is begun, within the grace time; look for what is left, and hang up on it."""
        await super().shutdown(sockets)
        left = [connection for connection in self.server_state.connections if isinstance(connection, Patient) and connection.is_answering]
        self.broke_off = bool(left)
        for connection in left:
            if connection.transport.get_write_buffer_size():
                connection.transport.abort()  # to close would be to wait for it to be read


def serve(
    serving: Serving, listening: socket.socket, door: Door, origins: tuple[str, ...], grace: int, begun: Callable[[uvicorn.Server], None]
) -> bool:
    """Answer until SIGINT or SIGTERM, or until the server's `should_exit` is set; return whether everything begun was answered in the grace time.

    `begun` is called with the server before it begins; `grace` is in seconds.
    """
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what clients do wrong is not our user's business
    config = uvicorn.Config(
        build_app(serving, door, origins),
        http=Patient,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing depends on who asks
        limit_concurrency=allowed_connections(MAX_CONNECTIONS),
        timeout_graceful_shutdown=grace,
        timeout_keep_alive=75,  # `Patient` hangs up on who asks nothing for 15 to 30 s; load balancers have to do so earlier (the guide says how)
    )
    server = Server(config)
    begun(server)
    try:
        with _signals_kept(), keep_freed_memory():  # a third of the time of a batch of digits, on a CPU
            server.run(sockets=[listening])
        return not server.broke_off
    finally:
        serving.batching.close()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep the process alive when uvicorn, having stopped, sends itself again the signal that stopped it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
