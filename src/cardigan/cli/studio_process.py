"""`cardigan train ... --studio`: runs the studio in a separate process during the training.

The training only starts and stops it. The studio reads files and runs at a lower CPU priority.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from cardigan.cli.studio import StudioOptions, check_studio_installed, run_studio_command
from cardigan.plugins import load_plugins
from cardigan.run.journal import Event

STUDIO_NICENESS = 10
"""The studio's `nice` value."""
STOP_TIMEOUT_SECONDS = 5.0


@contextmanager
def studio_process(on_event: Callable[[Event], None]) -> Iterator[Callable[[Event], None]]:
    """Yield a callback that forwards events to `on_event` and starts the studio at the first; stop the studio at exit.

    Raises CardiganError before training if the studio's packages are missing.
    """
    check_studio_installed()
    studios: list[subprocess.Popen[bytes]] = []

    def forward_and_start(event: Event) -> None:
        if event.kind in {"start", "resume"} and not studios:
            port = free_port()
            studios.append(start_studio(Path(event.values["run"]), port))
            message = f"studio: http://127.0.0.1:{port}/#/run/{quote(Path(event.values['run']).name, safe='')}/live"
            event = replace(event, values={**event.values, "messages": [*event.values.get("messages", []), message]})
        on_event(event)

    try:
        yield forward_and_start
    finally:
        for studio in studios:
            stop_studio(studio)


def studio_command(run: Path) -> str:
    """Return the line with the command that opens the studio again."""
    return f"  studio      {shlex.join(['cardigan', 'studio', str(run.parent), '--run', run.name])}"


def start_studio(run: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start a studio that shows a run and its siblings, and return its process."""
    args = [str(run.absolute().parent), run.name, str(port)]
    devnull = subprocess.DEVNULL
    # A new session: Ctrl-C stops only the training, which stops the studio after it has saved.
    studio = subprocess.Popen(
        [sys.executable, "-m", "cardigan.cli.studio_process", *args],
        stdin=subprocess.PIPE,
        stdout=devnull,
        stderr=devnull,
        start_new_session=True,
    )
    if os.name == "posix":
        os.setpriority(os.PRIO_PROCESS, studio.pid, STUDIO_NICENESS)
    return studio


def stop_studio(studio: "subprocess.Popen[bytes]") -> None:
    """Close the studio's standard input, which makes it stop."""
    if studio.stdin is not None:
        studio.stdin.close()
    try:
        studio.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        studio.kill()
        studio.wait()


def free_port() -> int:
    """Return a free port, the studio's default one if possible."""
    from cardigan.studio.server import open_studio_endpoint

    listening_socket, endpoint = open_studio_endpoint("127.0.0.1", None)
    listening_socket.close()
    return endpoint.port


if __name__ == "__main__":
    load_plugins()
    run_studio_command(
        StudioOptions(runs=Path(sys.argv[1]), run=sys.argv[2], port=int(sys.argv[3]), device="cpu"),
        stop_at_end_of_input=True,
    )
