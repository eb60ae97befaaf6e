"""Small untrained models, and a server for them."""

import http.client
import json
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from cardigan.config import Config
from cardigan.data.source import ImageSpec, image_spec
from cardigan.http.endpoint import Endpoint, open_endpoint
from cardigan.models.snapshot import Snapshot, write_snapshot
from cardigan.nets.table import build_generator
from cardigan.overrides import from_dict
from cardigan.serve.app import RequestLimits, SamplingService
from cardigan.serve.served_model import ServedModel, open_served_model
from cardigan.serve.server import run_server

NAMES = ("cat", "dog", "10")


def save_random_model(path: Path, classes: int = 10, names: tuple[str, ...] = (), channels: int = 1) -> Path:
    """Write an untrained generator with distinct images per seed."""
    config = from_dict({"generator": {"width": 8}, "data": {"channels": channels}, "conditional": classes > 0})
    assert isinstance(config, Config)
    spec: ImageSpec = image_spec(config.data, classes, names)
    torch.manual_seed(0)
    generator = build_generator(config, spec).eval()
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    write_snapshot(path, Snapshot(generator, config, spec, 64))
    return path


def slow_down(served: ServedModel, seconds: float) -> tuple[ServedModel, list[int]]:
    """Return the model with a delay per batch, and a list that collects the batch sizes."""
    sizes: list[int] = []

    def compute(z, labels):
        sizes.append(len(z))
        time.sleep(seconds)
        return served.forward(z, labels)

    return replace(served, forward=compute), sizes


def load_served_model(path: Path, batch: int | None = None) -> ServedModel:
    return open_served_model(path, "pytorch", "cpu", batch)


@contextmanager
def running_server(
    model: ServedModel,
    limits: RequestLimits | None = None,
    token: str | None = None,
    shutdown_timeout: int = 5,
    origins: tuple[str, ...] = (),
    stopped: list | None = None,
):
    """Yield the port and `SamplingService` of a server in a thread. `run_server`'s result is appended to `stopped`."""
    listening_socket, local_endpoint = open_endpoint("127.0.0.1", [0])
    endpoint, servers, service = (
        Endpoint(local_endpoint.host, local_endpoint.port, token),
        [],
        SamplingService(model, limits or RequestLimits()),
    )
    stopped = [] if stopped is None else stopped
    thread = threading.Thread(
        target=lambda: stopped.append(
            run_server(service, listening_socket, endpoint, origins, shutdown_timeout, servers.append)
        )
    )
    thread.start()
    try:
        yield endpoint.port, service
    finally:
        servers[0].should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def http_request(
    port: int,
    body: object = None,
    accept: str = "application/json",
    method: str = "POST",
    path: str = "/v1/images",
    **headers: str,
):
    """Return status, headers and content of a response. The body is sent as JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path, content, {"accept": accept, **headers})
        with connection.getresponse() as response:
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
