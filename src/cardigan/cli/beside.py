"""`cardigan train ... --studio`: the studio as a process of its own beside the training, from its first event to its end.

The training only starts it and hangs up on it; the studio reads files, and gives way to the training when both want the processor.
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

from cardigan.cli.studio import StudioOptions, check_installed, show
from cardigan.run.journal import Event

LEAST_URGENT = 10
"""How much the studio gives way, as of `nice`."""
LEAVING_SECONDS = 5.0


@contextmanager
def studio_beside(report: Callable[[Event], None]) -> Iterator[Callable[[Event], None]]:
    """Yield what to report to instead: it passes everything on, and starts the studio when the run has begun; in the end the studio ends.

    Raises CardiganError if the studio's packages are missing, before anything is trained.
    """
    check_installed()
    studios: list[subprocess.Popen[bytes]] = []

    def told(event: Event) -> None:
        if event.kind in {"start", "resume"} and not studios:
            port = free_port()
            studios.append(started(Path(event.values["run"]), port))
            page = f"studio: http://127.0.0.1:{port}/#/run/{quote(Path(event.values['run']).name, safe='')}/live"
            event = replace(event, values={**event.values, "messages": [*event.values.get("messages", []), page]})
        report(event)

    try:
        yield told
    finally:
        for studio in studios:
            end(studio)


def again(run: Path) -> str:
    """Return the line that tells how to open the studio once more."""
    return f"  studio      {shlex.join(['cardigan', 'studio', str(run.parent), '--run', run.name])}"


def started(run: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start a studio that shows a run and its neighbours, and return its process."""
    words = [str(run.absolute().parent), run.name, str(port)]
    nowhere = subprocess.DEVNULL
    studio = subprocess.Popen(  # a session of its own: Ctrl-C is for the training, which ends the studio when it has saved
        [sys.executable, "-m", "cardigan.cli.beside", *words], stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, start_new_session=True
    )
    if os.name == "posix":
        os.setpriority(os.PRIO_PROCESS, studio.pid, LEAST_URGENT)
    return studio


def end(studio: "subprocess.Popen[bytes]") -> None:
    """Hang up, which is what the studio waits for."""
    if studio.stdin is not None:
        studio.stdin.close()
    try:
        studio.wait(LEAVING_SECONDS)
    except subprocess.TimeoutExpired:
        studio.kill()
        studio.wait()


def free_port() -> int:
    """Return a port that nobody listens on, the studio's usual one if it can be."""
    from cardigan.studio.server import open_door

    listening, door = open_door("127.0.0.1", None)
    listening.close()
    return door.port


if __name__ == "__main__":
    show(StudioOptions(runs=Path(sys.argv[1]), run=sys.argv[2], port=int(sys.argv[3]), device="cpu"), until_input_ends=True)
