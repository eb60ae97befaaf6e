"""Small untrained generators, as files and as run directories."""

import json
from pathlib import Path

import torch

from cardigan.config import Config
from cardigan.data.source import image_spec
from cardigan.figures.grid import png_bytes, side_by_side
from cardigan.models.snapshot import Snapshot, write_snapshot
from cardigan.nets.table import build_generator
from cardigan.overrides import override, to_dict


def small_snapshot(classes: int = 0, images_seen: int = 32, **settings) -> Snapshot:
    """Return a deterministic untrained generator of distinct 32x32 grayscale images."""
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
    """Write the files of a finished run: config, journal, generator and a sample grid."""
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
