"""`cardigan serve MODEL`: pictures over HTTP, for many who ask at once."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cardigan.cli.parsing import given, parse
from cardigan.errors import CardiganError

TOKEN = "CARDIGAN_TOKEN"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Serve a generator's pictures over HTTP: requests of all who ask are drawn together, and the same seed gives the same picture to everybody."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, a model of the hub, hf:user/name, or an exported NAME.onnx."""
    host: str = "127.0.0.1"
    """Where to listen; anything but this machine itself needs a token."""
    port: int = 8000
    """Which port; 0 takes any that is free."""
    token: str = ""
    """What who asks must send; better in the environment as CARDIGAN_TOKEN, since others see options. By default a new one is made and printed."""
    origins: str = ""
    """Pages of other servers that may ask from a browser, e.g. https://example.org,http://localhost:3000."""
    backend: Literal["auto", "pytorch", "onnx"] = "auto"
    """What computes; auto is onnx for NAME.onnx, pytorch for anything else."""
    device: str = "auto"
    """Where PyTorch computes: auto, cpu, cuda, ..."""
    batch: int = 64
    """Pictures are computed so many at a time at most. 64 gives the very bits of `cardigan sample`."""
    queue: int = 2_048
    """How many pictures may wait to be drawn or encoded, of all who ask; who comes then is told when to come again (429)."""
    max_images: int = 256
    """How many pictures one request may have."""
    timeout: float = 60.0
    """Seconds within which a request is answered, or told that it is too late (504)."""
    grace: int = 20
    """Seconds in which what is begun is finished when the server is stopped."""


def main(words: list[str]) -> int:
    """Serve as the words say; return the exit code: 0 when everything begun was answered, 143 when the grace time ended before."""
    options = parse(ServeOptions, words, "cardigan serve")
    _check(options, words)
    check_installed()

    from cardigan.serve.app import Limits, Serving
    from cardigan.serve.model import open_model
    from cardigan.serve.server import serve
    from cardigan.web.door import address, open_door

    token = options.token or os.environ.get(TOKEN, "")
    listening, door = open_door(options.host, [options.port], token or None)
    with listening:
        served = open_model(options.model, _backend(options), options.device, options.batch)
        serving = Serving(served, Limits(options.max_images, options.queue, options.timeout))
        speed = f"{serving.batching.pictures_per_second:,.0f} pictures/s by {served.backend} on {served.device}"
        print(f"{served.name} is served at {address(door)}/ ({speed}).", flush=True)
        if door.token and not token:
            print(f"Who asks must send this token: Authorization: Bearer {door.token}", flush=True)
        whole = serve(serving, listening, door, _origins(options.origins), options.grace, lambda _: None)
    print("Stopped; everything begun was answered." if whole else f"Stopped; what took longer than {options.grace} s was broken off.")
    return 0 if whole else 143


def check_installed() -> None:
    """Raise CardiganError if the packages are missing that only the server needs."""
    missing = [name for name in ("starlette", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise CardiganError(f"The server needs {' and '.join(missing)} installed: pip install 'cardigan[serve]'.")


def _check(options: ServeOptions, words: list[str]) -> None:
    """Raise CardiganError for numbers out of range, and for settings that have no effect."""
    _within("--port", options.port, 0, 65_535)
    _within("--batch", options.batch, 1, 4_096)
    _within("--max-images", options.max_images, 1, 100_000)
    _within("--queue", options.queue, options.max_images, 10_000_000)
    _within("--grace", options.grace, 0, 86_400)
    if not 0 < options.timeout <= 86_400:
        raise CardiganError(f"--timeout is {options.timeout:g}: expected seconds, more than 0 and at most 86400.")
    token = options.token or os.environ.get(TOKEN, "")
    if token and (len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token):
        raise CardiganError("The token is too easily guessed, or no header can hold it: give 16 or more letters and digits, without spaces.")
    if _backend(options) == "onnx" and given("--device", words) not in (None, "auto", "cpu"):
        raise CardiganError(f"--device is {options.device!r}, and onnxruntime computes on the cpu here: leave it out, or serve the run directory.")
    _origins(options.origins)


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        hint = " (not fewer than --max-images)" if name == "--queue" else ""
        raise CardiganError(f"{name} is {value}: expected {low}..{high}{hint}.")


def _backend(options: ServeOptions) -> str:
    return options.backend if options.backend != "auto" else "onnx" if options.model.suffix == ".onnx" else "pytorch"


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    for origin in origins:
        scheme, _, host = origin.partition("://")
        if scheme not in {"http", "https"} or not host or "/" in host or "*" in host:
            raise CardiganError(f"--origins has {origin!r}: expected addresses such as https://example.org, without a path.")
    return origins
