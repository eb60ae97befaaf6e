"""Small generators without a training, as files and as run directories."""

import json
from pathlib import Path

import torch

from cardigan.config import Config, override, to_dict
from cardigan.data.source import image_spec
from cardigan.figures.grid import png_bytes, side_by_side
from cardigan.models.snapshot import Snapshot, write_snapshot
from cardigan.nets.table import build_generator


def small_snapshot(classes: int = 0, images_seen: int = 32, **settings) -> Snapshot:
    """Return an untrained generator of 32x32 grey pictures that differ from each other, always the same."""
    names = {name.replace("__", "."): value for name, value in settings.items()}
    config = override(
        Config(), {"generator.width": 8, "generator.initialization": "torch", "conditional": classes > 0, **names}
    )
    spec = image_spec(config.data, classes)
    with torch.random.fork_rng():
        torch.manual_seed(images_seen)
        generator = build_generator(config, spec)
        for parameter in generator.parameters():
            parameter.data.mul_(3)
    return Snapshot(generator.eval().requires_grad_(False), config, spec, images_seen)


def small_run(path: Path, snapshot: Snapshot) -> Path:
    """Write what a finished run would have left: config, journal, generator and a sheet of samples."""
    (path / "samples").mkdir(parents=True)
    (path / "checkpoints").mkdir()
    (path / "config.json").write_text(json.dumps({"format": 2, "config": to_dict(snapshot.config), "provenance": {}}))
    (path / "journal.jsonl").write_text(
        json.dumps({"kind": "stop", "images_seen": 32, "elapsed_seconds": 1.0, "reason": "images"}) + "\n"
    )
    images = torch.full((4, 1, 32, 32), 100, dtype=torch.uint8)
    (path / "samples" / "00000032.png").write_bytes(png_bytes(side_by_side(images, images + 50)))
    write_snapshot(path / "generator.safetensors", snapshot)
    return path
