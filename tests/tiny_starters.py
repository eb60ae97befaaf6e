"""A package of starters for tests: two of them, both from one tiny run."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cardigan
from cardigan.config_parts import DataConfig
from cardigan.data.datasets import example_pixels
from cardigan.experiment.nearest_starter import EXAMPLE_SIDE, feature_statistics
from cardigan.models import starters
from cardigan.models.discriminator_file import DISCRIMINATOR_FILE, write_discriminator
from cardigan.models.pretrained import write_pretrained
from cardigan.models.run_networks import load_networks
from cardigan.models.snapshot import snapshot_metadata, write_snapshot

SMALL_NETWORKS = {
    **{"batch_size": 8, "generator.width": 4, "discriminator.width": 4, "device": "cpu", "precision": "fp32"},
    **{"data.height": 32, "data.width": 32},
}


def flat_images(folder: Path, color: tuple[int, int, int], count: int = 24) -> Path:
    """Write images of one color with a little noise, which features tell from those of another one."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = (np.full((32, 32, 3), color) + random.integers(-20, 20, (32, 32, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def starters_package(tmp_path_factory) -> Path:
    """A package of two starters: one of reddish images, one of bluish ones, both of one tiny run."""
    root = tmp_path_factory.mktemp("package")
    folder = root / "cardigan_starters"
    folder.mkdir()
    (folder / "__init__.py").touch()
    images = flat_images(root / "red", (220, 40, 40))
    cardigan.train(images, recipe="images-dcgan", images=32, out=root / "run", overrides=SMALL_NETWORKS)
    networks = load_networks(root / "run")
    snapshot = networks.snapshot
    for name, color in (("red-32", (220, 40, 40)), ("blue-32", (40, 40, 220))):
        source = images if name == "red-32" else flat_images(root / "blue", color)
        features = feature_statistics(example_pixels(DataConfig(source=str(source)), 16, EXAMPLE_SIDE))
        facts = {
            **{"title": f"{name} images", "height": 32, "width": 32, "channels": 3, "class_names": []},
            **{"license": "CC0-1.0", "attribution": "drawn by a test", "images_seen": 32, "score": 1.5},
            **{"features": features.tolist(), "command": "none"},
        }
        write_pretrained(
            folder / name,
            lambda path: write_snapshot(path, snapshot, "float16"),
            lambda hashes: "---\nlicense: cc0-1.0\n---\n",
            {
                starters.FACTS_FILE: json.dumps(facts).encode(),
                starters.PREVIEW_FILE: (root / "run" / "samples").glob("*.png").__next__().read_bytes(),
            },
        )
        metadata = snapshot_metadata(snapshot.config, snapshot.spec, snapshot.images_seen)
        write_discriminator(folder / name / DISCRIMINATOR_FILE, networks.discriminator, metadata, "float16")
    return root


@pytest.fixture
def starters_installed(starters_package, monkeypatch, tmp_path):
    """The package is installed, and the working folder is empty."""
    for name in [name for name in sys.modules if name.startswith(starters.PACKAGE)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(starters_package), *sys.path])
    monkeypatch.chdir(tmp_path)
    starters.list_starters.cache_clear()
    yield starters_package
    starters.list_starters.cache_clear()
