"""`cardigan studio RUNS`: a page in the browser that shows runs, live or finished, and explores their models."""

import os
import sys
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import tyro

from cardigan.cli.devices import check_device
from cardigan.cli.parsing import parse
from cardigan.errors import CardiganError


@dataclass(frozen=True, kw_only=True)
class StudioOptions:
    """Show runs in the browser: curves and samples live, the training of G and D, and the latent space."""

    runs: Annotated[Path, tyro.conf.Positional] = Path("runs")
    """The folder of the runs, up to three levels deep, or one run, or a single model file (NAME.safetensors)."""
    host: str = "127.0.0.1"
    """Address to listen on. Addresses other than this machine require the printed token."""
    port: int | None = None
    """Port. Default: 8765 or the next free one."""
    open: bool = True
    """Open the page in a browser if there is a display."""
    run: str = ""
    """Show this run first, given by its path below RUNS."""
    device: str = "auto"
    """Device for generating images: auto (a GPU if there is one), cpu, cuda, cuda:1, mps"""


def main(argv: list[str]) -> int:
    """Run the studio until Ctrl-C; return the exit code."""
    options = parse(StudioOptions, argv, "cardigan studio")
    if options.port is not None and not 0 <= options.port < 65_536:
        raise CardiganError(f"--port is {options.port}: expected 0..65535, where 0 takes any free port.")
    check_studio_installed()
    check_device(options.device)
    try:
        run_studio_command(options, stop_at_end_of_input=False)
    except KeyboardInterrupt:
        print()
    return 0


def run_studio_command(options: StudioOptions, stop_at_end_of_input: bool) -> None:
    """Run the studio until Ctrl-C.

    With `stop_at_end_of_input` it prints nothing and runs until standard input ends, as it does when the training that
    started it ends.
    """
    from cardigan.studio.runs_folder import open_runs_folder
    from cardigan.studio.server import open_studio_endpoint, run_studio, studio_url

    is_model_file = options.runs.is_file() and options.runs.suffix == ".safetensors"
    folder, first_run = (
        open_runs_folder(options.runs.parent if is_model_file else options.runs),
        options.runs.name if is_model_file else options.run,
    )
    listening_socket, endpoint = open_studio_endpoint(options.host, options.port)
    url = studio_url(
        endpoint, f"/run/{quote(first_run, safe='')}/{'latent' if is_model_file else 'live'}" if first_run else ""
    )
    if not stop_at_end_of_input:
        print(f"The studio is at {url}\n(Press Ctrl-C to stop it.)", flush=True)

    def on_start(server: object) -> None:
        if options.open and _has_display():
            threading.Thread(target=_open_browser, args=(url,), daemon=True).start()
        if stop_at_end_of_input:
            threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()

    run_studio(folder, listening_socket, endpoint, on_start, options.device)


def check_studio_installed() -> None:
    """Raise CardiganError if packages that only the studio needs are missing."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise CardiganError(f"The studio needs {' and '.join(missing)} installed: pip install 'cardigan[studio]'.")


def _has_display() -> bool:
    """Return whether there is a display; without one, a text browser would take over the terminal."""
    return sys.platform in {"darwin", "win32"} or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _open_browser(url: str) -> None:
    import webbrowser

    webbrowser.open(url)


def _stop_at_end_of_input(server: object) -> None:
    """Stop the server when the training that started this process has ended, in whatever way."""
    sys.stdin.buffer.read()
    setattr(server, "should_exit", True)  # noqa: B010 - uvicorn's stop flag
