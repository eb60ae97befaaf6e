"""A discriminator with frozen random first layers and three heads, in everything that reads a discriminator."""

import json

import pytest
import torch
from torch import nn

import cardigan
from cardigan.cli.main import run as cardigan_command
from cardigan.errors import CardiganError
from cardigan.explore.saliency import discriminator_logits, feature_rows, input_gradient
from cardigan.files.tensors import read_tensors
from cardigan.models.run_networks import load_networks
from cardigan.models.sampling import sample_keys, sample_pixels
from cardigan.nets.dcgan import DcganGenerator
from cardigan.nets.frozen import Frozen
from cardigan.nets.interface import Discriminator, FeatureDiscriminator, mean_over_heads
from cardigan.nets.table import NETS, Architecture
from cardigan.objective.losses import LOSSES, find_loss
from cardigan.objective.penalties import zero_centered_penalty
from cardigan.recipes import config_for
from cardigan.run.journal import read_events
from cardigan.training.devices import Devices
from cardigan.training.step_types import StepConfig
from cardigan.training.steps import discriminator_forward

NUM_HEADS = 3


class FrozenDiscriminator(Discriminator):
    feature_modules = "convs"

    def __init__(self, config, spec):
        super().__init__()
        first = nn.Conv2d(spec.channels, config.width, 4, 4)
        self.first = Frozen(nn.Sequential(first, nn.BatchNorm2d(config.width), nn.LeakyReLU(0.2)))
        self.convs = nn.ModuleList([nn.Conv2d(config.width, config.width, 3, 2, 1)])
        self.heads = nn.Linear(config.width, NUM_HEADS)

    def forward(self, images, labels=None):
        hidden = nn.functional.leaky_relu(self.convs[0](self.first(images)), 0.2)
        return self.heads(hidden.float().sum(dim=(2, 3)))


OVERRIDES = {
    **{"discriminator.network": "frozen-first", "conditional": False, "data.max_images": 200, "data.holdout": 0},
    **{"batch_size": 16, "generator.width": 4, "discriminator.width": 8, "precision": "fp32", "device": "cpu"},
    **{"checkpoint_every_images": 64, "sample_every_images": 64, "objective.penalty_interval": 2},
}


@pytest.fixture(autouse=True, scope="module")
def frozen_first():
    NETS["frozen-first"] = Architecture(DcganGenerator, FrozenDiscriminator)
    yield
    del NETS["frozen-first"]


def train(out, images, **more):
    overrides = {**OVERRIDES, "images": images, **more}
    return cardigan.train("mnist", overrides=overrides, out=out, resume=out.exists()).path


@pytest.fixture(scope="module")
def run(frozen_first, tmp_path_factory):
    return train(tmp_path_factory.mktemp("run") / "whole", 192)


def last_state(run):
    return read_tensors(sorted((run / "checkpoints").glob("[0-9]*"))[-1] / "state.safetensors")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_run_has_the_same_bits(tmp_path, precision):
    whole = train(tmp_path / "whole", 128, precision=precision)
    train(tmp_path / "parts", 64, precision=precision)
    parts = train(tmp_path / "parts", 128, precision=precision)
    expected, resumed = last_state(whole), last_state(parts)
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_checkpoint_has_the_hash_of_the_frozen_part_only(run):
    names = [name for name in last_state(run) if name.startswith("discriminator.first")]
    assert names == ["discriminator.first._extra_state"]
    networks = load_networks(run)
    assert bytes(last_state(run)[names[0]].tolist()) == networks.discriminator.first.digest()


def test_other_frozen_weights_are_refused(run, tmp_path, monkeypatch, capsys):
    train(tmp_path / "run", 64)
    digest = Frozen.digest
    monkeypatch.setattr(Frozen, "digest", lambda self: digest(self)[::-1])
    with pytest.raises(CardiganError, match="frozen part of the network has other weights"):
        train(tmp_path / "run", 128)


def test_health_and_journal_have_one_logit_an_image(run):
    events = list(read_events(run / "journal.jsonl"))
    samples = [event.values for event in events if event.kind == "samples"]
    assert all(len(values["fake_logits"]) == values["num_samples"] == len(values["real_logits"]) for values in samples)
    measured = {name for event in events for name in event.values}
    assert {"r1", "r2", "logit_margin", "diversity", "duplicate_rate"} <= measured


def test_studio_views_of_the_discriminator(run):
    networks = load_networks(run)
    pixels = sample_pixels(networks.snapshot, sample_keys(12, 0), None)
    logits = discriminator_logits(networks, pixels, None)
    raw = networks.discriminator(cardigan.pixels.decode(pixels)).detach()
    assert raw.shape == (12, NUM_HEADS) and torch.allclose(logits, raw.mean(dim=1), atol=1e-5)
    assert input_gradient(networks, pixels, None).shape == (12, 1, 32, 32)
    assert len(feature_rows(networks, pixels, None)) == 8


def test_probe_command(run, tmp_path, capsys):
    assert cardigan_command(["probe", str(run), "mnist", "--max-images", "100", "--out", str(tmp_path / "probe")]) == 0
    assert "error" in capsys.readouterr().out.lower()


def test_penalties_take_the_mean_over_heads():
    """For logits a * sum(x) and b * sum(x), the gradient of their mean is (a + b) / 2 in each of 9 values."""
    images = torch.randn(5, 1, 3, 3, requires_grad=True)
    logits = images.flatten(1).sum(dim=1, keepdim=True) * torch.tensor([[1.0, 4.0]])
    assert torch.allclose(zero_centered_penalty(logits, images), torch.tensor(9 * 2.5**2))
    assert torch.equal(mean_over_heads(logits), logits.mean(dim=1))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_means_over_heads(name):
    real, fake = torch.randn(2, 7, NUM_HEADS)
    loss = LOSSES[name]
    for compute in (loss.discriminator, loss.generator, loss.mean_probability):
        each = torch.stack([compute(real[:, head], fake[:, head]) for head in range(NUM_HEADS)])
        assert torch.allclose(compute(real, fake), each.mean(), atol=1e-6)


def test_summary_counts_trained_weights_only(run):
    content = json.loads((run / "config.json").read_bytes())
    assert content["config"]["discriminator"]["network"] == "frozen-first"
    trained = sum(parameter.numel() for parameter in load_networks(run).discriminator.parameters())
    assert trained == 8 * 8 * 9 + 8 + 8 * NUM_HEADS + NUM_HEADS


class TwoPixels(FeatureDiscriminator):
    """Scores the first pixels of images, with or without a hint of the other images of the batch."""

    def __init__(self, couples_images):
        super().__init__()
        self.couples_images, self.weight = couples_images, nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.batch_sizes = []

    def features(self, images, first=0):
        return images.flatten(1)[:, :2]

    def score(self, features, labels=None):
        self.batch_sizes.append(len(features))
        logits = (features * self.weight).tanh().sum(1) + (0 if labels is None else labels)
        return logits + (features.std() if self.couples_images else 0)


@pytest.mark.parametrize("couples_images", [False, True])
@pytest.mark.parametrize("apply_penalties", [False, True])
@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1, 1, 0, 1])])
def test_real_and_generated_features_pass_together_only_where_logits_are_independent(
    couples_images, apply_penalties, labels
):
    """In steps with penalties they pass apart, so that the gradient of one is not computed through the other."""
    discriminator, (real, fake) = TwoPixels(couples_images), torch.randn(2, 5, 2, dtype=torch.float64)
    config = StepConfig(find_loss("hinge"), config_for("images").objective, False, Devices(torch.device("cpu")))
    output = discriminator_forward(discriminator, config, real, fake, labels, apply_penalties)
    assert discriminator.batch_sizes == ([5, 5] if couples_images or apply_penalties else [10])
    assert torch.allclose(output.real_logits, discriminator.score(real, labels), atol=1e-12)
    assert torch.allclose(output.fake_logits, discriminator.score(fake, labels), atol=1e-12)
