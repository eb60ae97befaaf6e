"""Helpers: run directories made without training, and a studio that serves them."""

import http.client
import json
import threading
from contextlib import contextmanager
from pathlib import Path

import torch
from starlette.testclient import TestClient

from cardigan.config import Config
from cardigan.figures.grid import png_bytes, side_by_side
from cardigan.http.endpoint import Endpoint
from cardigan.overrides import to_dict
from cardigan.studio.app import build_app
from cardigan.studio.runs_folder import open_runs_folder
from cardigan.studio.server import open_studio_endpoint, run_studio

HERE = "127.0.0.1:8765"


def journal_line(kind, images_seen, **values):
    return (
        json.dumps({"kind": kind, "images_seen": images_seen, "elapsed_seconds": images_seen / 100, **values}).encode()
        + b"\n"
    )


def progress_line(images_seen, **values):
    return journal_line("progress", images_seen, **{"images_per_second": 100.0, "discriminator_loss": 0.5, **values})


def make_run(path: Path, lines=(), sheets=(), config=None) -> Path:
    """Write a run directory with these journal lines, and sheets of 4 generated and 4 real images at `sheets`."""
    (path / "samples").mkdir(parents=True)
    (path / "checkpoints").mkdir()
    (path / "config.json").write_text(
        json.dumps({"format": 2, "config": to_dict(config or Config()), "provenance": {}})
    )
    (path / "journal.jsonl").write_bytes(b"".join(lines))
    for images_seen in sheets:
        values = [10 * tile + images_seen % 7 for tile in range(4)]
        images = torch.stack([torch.full((1, 32, 32), value, dtype=torch.uint8) for value in values])
        (path / "samples" / f"{images_seen:08d}.png").write_bytes(png_bytes(side_by_side(images, images + 100)))
    return path


def client_for(folder: Path, endpoint: Endpoint | None = None, **settings) -> TestClient:
    return TestClient(
        build_app(open_runs_folder(folder), endpoint or Endpoint("127.0.0.1", 8765)),
        base_url=f"http://{HERE}",
        follow_redirects=False,
        **settings,
    )


@contextmanager
def running_studio(folder: Path):
    """Yield the port of a real server that runs in a thread."""
    listening_socket, endpoint = open_studio_endpoint("127.0.0.1", 0)
    servers = []
    thread = threading.Thread(
        target=run_studio, args=(open_runs_folder(folder), listening_socket, endpoint, servers.append, "cpu")
    )
    thread.start()
    try:
        yield endpoint.port
    finally:
        servers[0].should_exit = True
        thread.join(20)
        assert not thread.is_alive()


class SseClient:
    """One page's stream of events."""

    def __init__(self, port: int, run: str, **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self.connection.request("GET", f"/api/events?run={run}", headers=headers)
        self.response = self.connection.getresponse()
        self.status = self.response.status

    def event(self) -> tuple[str, str, dict]:
        """Return name, id and values of the next event. Raises EOFError at the end of the stream."""
        fields: dict[str, str] = {}
        while True:
            text = self.response.readline().decode()
            if not text:
                raise EOFError
            if text == "\n":
                if "data" in fields:
                    return fields.get("event", "message"), fields.get("id", ""), json.loads(fields["data"])
                fields = {}
            elif not text.startswith(":"):
                name, _, value = text.rstrip("\n").partition(": ")
                fields[name] = value

    def close(self) -> None:
        self.response.close()
        self.connection.close()
