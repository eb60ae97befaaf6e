"""`cardigan studio RUNS`: a page in the browser that shows runs, live or afterwards, and what their generators have learned."""

import os
import sys
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import tyro

from cardigan.cli.parsing import parse
from cardigan.errors import CardiganError


@dataclass(frozen=True, kw_only=True)
class StudioOptions:
    """Show runs in the browser: curves and samples live, the game of the two players, and the pictures between the pictures."""

    runs: Annotated[Path, tyro.conf.Positional] = Path("runs")
    """The folder that the runs lie in, up to three levels deep, or one run, or a lone model's file (NAME.safetensors)."""
    host: str = "127.0.0.1"
    """Where to listen; anything but this machine itself needs the token that is printed."""
    port: int | None = None
    """Which port; by default 8765 or the next that is free."""
    open: bool = True
    """Open the page in a browser, where there is a screen."""
    run: str = ""
    """Begin with this run, named by its path below RUNS."""
    device: str = "auto"
    """What pictures are drawn with: auto (a GPU where there is one), cpu, or cuda, cuda:1 and the like."""


def main(argv: list[str]) -> int:
    """Serve as the words say; return the exit code."""
    options = parse(StudioOptions, argv, "cardigan studio")
    if options.port is not None and not 0 <= options.port < 65_536:
        raise CardiganError(f"--port is {options.port}: expected 0..65535, where 0 takes any that is free.")
    check_studio_installed()
    check_device(options.device)
    try:
        run_studio_command(options, stop_at_end_of_input=False)
    except KeyboardInterrupt:
        print()
    return 0


def run_studio_command(options: StudioOptions, stop_at_end_of_input: bool) -> None:
    """Serve until Ctrl-C or, beside a training and without a word, until the standard input ends, as it does when the training is gone."""
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
        print(f"The studio is at {url}\n(Ctrl-C ends it.)", flush=True)

    def on_start(server: object) -> None:
        if options.open and _has_display():
            threading.Thread(target=_open_browser, args=(url,), daemon=True).start()
        if stop_at_end_of_input:
            threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()

    run_studio(folder, listening_socket, endpoint, on_start, options.device)


def check_studio_installed() -> None:
    """Raise CardiganError if the packages are missing that only the studio needs."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise CardiganError(f"The studio needs {' and '.join(missing)} installed: pip install 'cardigan[studio]'.")


def check_device(device: str) -> None:
    """Raise CardiganError for a device that is not here; torch is asked only where it matters."""
    if device in {"auto", "cpu"}:
        return
    import torch

    num_gpus = torch.cuda.device_count()
    if device not in {"cuda", *(f"cuda:{number}" for number in range(num_gpus))} or not num_gpus:
        available = f"cuda:0..cuda:{num_gpus - 1}" if num_gpus else "no GPU is here"
        raise CardiganError(f"--device is {device!r}: expected auto, cpu, or a GPU ({available}).")


def _has_display() -> bool:
    """Return whether a browser would have a window; without one it would take over the terminal."""
    return sys.platform in {"darwin", "win32"} or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _open_browser(url: str) -> None:
    import webbrowser

    webbrowser.open(url)


def _stop_at_end_of_input(server: object) -> None:
    """Wait until the training that started this process is gone, however it went, then stop."""
    sys.stdin.buffer.read()
    setattr(server, "should_exit", True)  # noqa: B010 - uvicorn's own switch
