"""The commands of docs/guides/start-from.md run as written, with short trainings."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

import cardigan
from cardigan.cli.main import run as run_command
from tiny_starters import SMALL_NETWORKS, flat_images, starters_installed, starters_package

__all__ = ["starters_installed", "starters_package"]  # fixtures
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "start-from.md"
SHORT = ["--images", "16", "--batch-size", "8", "--device", "cpu", "--discriminator.width", "4", "--quiet"]


def commands() -> list[list[str]]:
    """Return the words of every command, but for those that read the hub."""
    blocks = GUIDE.read_text().split("```")[1::2]
    lines = [line.split("#")[0].split() for block in blocks for line in block.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["cardigan"] and not any("hf:" in word for word in words)]


def test_guide_has_the_commands_that_it_promises():
    words = [" ".join(each) for each in commands()]
    assert any("--size 128" in each for each in words) and any("--from auto" in each for each in words)
    assert any(each.startswith("mix") and each.endswith(".safetensors") for each in words)


def test_commands_of_the_guide_run(starters_installed, tmp_path):
    icons = flat_images(Path("icons"), (200, 200, 40))
    settings = {**SMALL_NETWORKS, "generator.network": "light", "data.height": 64, "data.width": 64}
    cardigan.train(icons, recipe="images-dcgan", images=16, out="runs/icons", overrides=settings, verbose=False)
    flat_images(Path("photos"), (40, 40, 200))
    cardigan.train("photos", start_from="runs/icons", images=16, out="runs/photos", verbose=False)
    for words in commands():
        more = SHORT if words[0] == "train" else []
        shutil.rmtree("runs/branch", ignore_errors=True)
        assert run_command([*words, *more]) == 0, words
    with Image.open("blend.png") as sheet, Image.open("blend.webp") as film:
        assert np.asarray(sheet).std() > 0 and film.n_frames > 1
    assert cardigan.load("blend.safetensors").sample(2).shape == (2, 64, 64, 3)
