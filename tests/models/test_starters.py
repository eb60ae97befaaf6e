"""Starters: model folders with a discriminator, found by name and by the nearest features."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import cardigan
from cardigan.backbones.efficientnet import is_installed
from cardigan.cli.main import run as run_command
from cardigan.config_parts import DataConfig
from cardigan.errors import CardiganError
from cardigan.experiment.nearest_starter import feature_statistics, nearest_starter
from cardigan.metrics.frechet import Gaussian, frechet_distance
from cardigan.metrics.quick import quick_features
from cardigan.models import starters
from cardigan.models.discriminator_file import DISCRIMINATOR_FILE, write_discriminator
from cardigan.models.run_networks import load_networks
from cardigan.models.snapshot import snapshot_metadata
from cardigan.run.directory import RunDirectory
from cardigan.run.journal import read_events
from tiny_starters import SMALL_NETWORKS, flat_images, starters_installed, starters_package

__all__ = ["starters_installed", "starters_package"]  # fixtures
needs_features = pytest.mark.skipif(not is_installed("efficientnet-lite2"), reason="needs the extra features")


@pytest.fixture
def none_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(starters, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    starters.list_starters.cache_clear()
    yield
    starters.list_starters.cache_clear()


def messages(run: Path) -> str:
    return "\n".join(read_events(RunDirectory(run).journal)[0].values["messages"])


def test_starters_are_listed_and_shown(starters_installed, tmp_path, capsys):
    assert [starter.name for starter in starters.list_starters()] == ["blue-32", "red-32"]
    assert run_command(["starters", "--out", str(tmp_path / "all.png")]) == 0
    text = capsys.readouterr().out
    assert "red-32 images" in text and "CC0-1.0: drawn by a test" in text and "32x32 RGB; classes: none" in text
    with (
        Image.open(starters_installed / "cardigan_starters" / "red-32" / "preview.png") as preview,
        Image.open(tmp_path / "all.png") as sheet,
    ):
        assert sheet.size == (preview.width, 2 * preview.height)
    assert run_command(["starters", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["blue-32", "red-32"]


def test_starter_has_both_networks_rounded_to_float16(starters_installed):
    trained, starter = load_networks(starters_installed / "run"), load_networks(Path("red-32"))
    for name in ("generator", "discriminator"):
        before, after = (
            (each.snapshot.generator if name == "generator" else each.discriminator).state_dict()
            for each in (trained, starter)
        )
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert after[key].dtype == value.dtype
            torch.testing.assert_close(after[key], value, rtol=1e-3, atol=1e-6)


def test_training_starts_from_a_starter_by_its_name(starters_installed, tmp_path):
    run = cardigan.train(
        flat_images(tmp_path / "set", (10, 200, 10)), start_from="red-32", images=16, out=tmp_path / "run"
    )
    text = messages(run.path)
    assert "started from red-32 (32 images seen" in text and "license of red-32: cc0-1.0" in text
    assert "tensors copied" in text.split("discriminator: ")[1]
    assert run.config.start_from.startswith("red-32@sha256:")
    assert cardigan.load("red-32").sample(2).shape == (2, 32, 32, 3)


def test_whom_to_name_is_passed_on(starters_installed, tmp_path):
    """From a starter to what was trained from it, and to what was trained from that."""
    images = flat_images(tmp_path / "set", (10, 200, 10))
    child = cardigan.train(images, start_from="red-32", images=16, out=tmp_path / "child").path
    cardigan.train(images, start_from=child / "generator.safetensors", images=16, out=tmp_path / "grandchild")
    for name in ("child", "grandchild"):
        cardigan.load(tmp_path / name).save_pretrained(tmp_path / f"{name}-model")
        card = (tmp_path / f"{name}-model" / "README.md").read_text()
        assert "It learned from: drawn by a test." in card and "license of that model, cc0-1.0" in card.lower()


def test_a_file_of_that_name_comes_first(starters_installed, tmp_path):
    run = cardigan.load(starters_installed / "run")
    run.save_pretrained(tmp_path / "red-32")
    assert cardigan.load("red-32").snapshot.weights_dtype == "float32"


def test_unknown_name_lists_the_starters(starters_installed, tmp_path, capsys):
    assert run_command(["train", str(flat_images(tmp_path / "set", (0, 0, 0))), "--from", "green-32"]) == 2
    assert "There is no model 'green-32'" in capsys.readouterr().err


def test_discriminator_of_another_generator_is_refused(starters_installed, tmp_path):
    folder = tmp_path / "mixed"
    cardigan.load("red-32").save_pretrained(folder)
    networks = load_networks(starters_installed / "run")
    snapshot = networks.snapshot
    metadata = snapshot_metadata(snapshot.config, snapshot.spec, snapshot.images_seen + 1)
    write_discriminator(folder / DISCRIMINATOR_FILE, networks.discriminator, metadata)
    with pytest.raises(CardiganError, match="belongs to another generator than the one in its folder"):
        load_networks(folder)


@needs_features
def test_feature_distance_is_the_frechet_distance_of_independent_features():
    pixels = torch.randint(0, 256, (2, 40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[1] //= 2
    features = [quick_features(each).double() for each in pixels]
    diagonal = [Gaussian(each.mean(0), each.std(0, correction=0).diag()) for each in features]
    one, other = (feature_statistics(each) for each in pixels)
    expected = frechet_distance(*diagonal)
    assert float((one - other).square().sum()) == pytest.approx(expected, rel=1e-3)
    assert feature_statistics(pixels[0, :1]).isfinite().all()  # one image has no spread


@needs_features
def test_nearest_starter_is_proposed_and_chosen(starters_installed, tmp_path):
    reds, blues = flat_images(tmp_path / "reds", (235, 20, 60)), flat_images(tmp_path / "blues", (20, 60, 235))
    for source, name in ((reds, "red-32"), (blues, "blue-32")):
        nearest = nearest_starter(DataConfig(source=str(source)))
        assert nearest is not None and nearest.starter.name == name and nearest.distance > 0
    cardigan.train(blues, start_from="auto", images=16, out=tmp_path / "auto")
    assert "started from blue-32" in messages(tmp_path / "auto")
    assert "starter: blue-32 (blue-32 images) is nearest to these images" in messages(tmp_path / "auto")
    cardigan.train(
        reds, images=16, out=tmp_path / "plain", overrides={**SMALL_NETWORKS, "discriminator.network": "dcgan"}
    )
    assert "--from red-32 starts from it" in messages(tmp_path / "plain")
    cardigan.train(blues, start_from="auto", images=32, out=tmp_path / "auto", resume=True)


def test_without_the_package_the_way_to_install_it_is_named(none_installed, tmp_path, capsys):
    assert run_command(["starters"]) == 0
    assert "No starters are installed: pip install ./packages/starters" in capsys.readouterr().out
    source = str(flat_images(tmp_path / "set", (0, 0, 0)))
    assert run_command(["train", source, "--from", "auto"]) == 2
    assert "none is installed: pip install ./packages/starters" in capsys.readouterr().err
    assert run_command(["train", source, "--from", "icons-64"]) == 2
    assert "There is no model 'icons-64': give a run" in capsys.readouterr().err
