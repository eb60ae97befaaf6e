"""`cardigan serve MODEL`: serve images over HTTP to many clients."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cardigan.cli.devices import check_device
from cardigan.cli.parsing import flag_value, parse
from cardigan.cli.signing import find_signing_key
from cardigan.errors import CardiganError

TOKEN_VARIABLE = "CARDIGAN_TOKEN"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Serve a generator's images over HTTP. Requests are batched; the same seed gives every client the same image."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, checkpoint folder, generator.safetensors, hub model hf:user/name, or exported NAME.onnx."""
    host: str = "127.0.0.1"
    """Address to listen on. Addresses other than this machine require a token."""
    port: int = 8000
    """Port. 0 takes any free port."""
    token: str = ""
    """Token that clients must send. Prefer the environment variable CARDIGAN_TOKEN. Default: generated and printed."""
    origins: str = ""
    """Origins that may send requests from a browser (CORS), e.g. https://example.org,http://localhost:3000."""
    backend: Literal["auto", "pytorch", "onnx"] = "auto"
    """Inference backend. auto is onnx for NAME.onnx, else pytorch."""
    device: str = "auto"
    """PyTorch device: auto (a GPU if there is one), cpu, cuda, cuda:1, mps."""
    batch_size: int | None = None
    """Maximum images per batch. Default: that of `cardigan sample`, for bit-identical images (CPU 16, GPU 64)."""
    max_queued_images: int = 2_048
    """Maximum queued images of all clients. Further requests get 429 with Retry-After."""
    max_images: int = 256
    """Maximum images per request."""
    timeout: float = 60.0
    """Seconds after which a request gets 504."""
    mark: bool = True
    """Write into images that this model generated them, and from which seed (cardigan verify reads it)."""
    c2pa_cert: Path | None = None
    """PEM file with your certificate chain: signs the images with C2PA manifests. Needs --c2pa-key."""
    c2pa_key: Path | None = None
    """PEM file with the private key of --c2pa-cert, without a password."""
    shutdown_timeout: int = 20
    """Seconds to finish accepted requests when the server is stopped."""


def main(argv: list[str]) -> int:
    """Run the server until it is stopped; return the exit code.

    The code is 0 if all accepted requests were answered, and 143 if the shutdown timeout ended before.
    """
    options = parse(ServeOptions, argv, "cardigan serve")
    _check_options(options, argv)
    check_serve_installed()
    signing = find_signing_key(options.c2pa_cert, options.c2pa_key, options.mark)

    from cardigan.http.endpoint import base_url, open_endpoint
    from cardigan.serve.app import RequestLimits, SamplingService
    from cardigan.serve.served_model import open_served_model
    from cardigan.serve.server import run_server

    token = options.token or os.environ.get(TOKEN_VARIABLE, "")
    listening_socket, endpoint = open_endpoint(options.host, [options.port], token or None)
    with listening_socket:
        model = open_served_model(options.model, _backend(options), options.device, options.batch_size)
        limits = RequestLimits(options.max_images, options.max_queued_images, options.timeout)
        service = SamplingService(model, limits, options.mark, signing)
        speed = f"{service.batcher.images_per_second:,.0f} images/s by {model.backend} on {model.device}"
        print(f"{model.name} is served at {base_url(endpoint)}/ ({speed}).", flush=True)
        if endpoint.token and not token:
            print(f"Clients must send this token: Authorization: Bearer {endpoint.token}", flush=True)
        all_answered = run_server(
            service,
            listening_socket,
            endpoint,
            _parse_origins(options.origins),
            options.shutdown_timeout,
            lambda _: None,
        )
    print(
        "Stopped; all accepted requests were answered."
        if all_answered
        else f"Stopped; requests that took longer than {options.shutdown_timeout} s were aborted."
    )
    return 0 if all_answered else 143


def check_serve_installed() -> None:
    """Raise CardiganError if packages that only the server needs are missing."""
    missing = [name for name in ("starlette", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise CardiganError(f"The server needs {' and '.join(missing)} installed: pip install 'cardigan[serve]'.")


def _check_options(options: ServeOptions, argv: list[str]) -> None:
    """Raise CardiganError for numbers out of range and for options without effect."""
    _check_range("--port", options.port, 0, 65_535)
    if options.batch_size is not None:
        _check_range("--batch-size", options.batch_size, 1, 4_096)
    _check_range("--max-images", options.max_images, 1, 100_000)
    _check_range("--max-queued-images", options.max_queued_images, options.max_images, 10_000_000)
    _check_range("--shutdown-timeout", options.shutdown_timeout, 0, 86_400)
    if not 0 < options.timeout <= 86_400:
        raise CardiganError(f"--timeout is {options.timeout:g}: expected seconds, more than 0 and at most 86400.")
    token = options.token or os.environ.get(TOKEN_VARIABLE, "")
    if token and (len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token):
        raise CardiganError(
            "The token is too short or not valid in a header: give 16 or more letters and digits, without spaces."
        )
    if _backend(options) == "onnx" and flag_value("--device", argv) not in (None, "auto", "cpu"):
        raise CardiganError(
            f"--device is {options.device!r}, but the onnx backend runs on the cpu: "
            "leave it out, or serve the run directory."
        )
    check_device(options.device)
    _parse_origins(options.origins)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        hint = " (not less than --max-images)" if name == "--max-queued-images" else ""
        raise CardiganError(f"{name} is {value}: expected {low}..{high}{hint}.")


def _backend(options: ServeOptions) -> str:
    return options.backend if options.backend != "auto" else "onnx" if options.model.suffix == ".onnx" else "pytorch"


def _parse_origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    for origin in origins:
        scheme, _, host = origin.partition("://")
        if scheme not in {"http", "https"} or not host or "/" in host or "*" in host:
            raise CardiganError(
                f"--origins has {origin!r}: expected addresses such as https://example.org, without a path."
            )
    return origins
