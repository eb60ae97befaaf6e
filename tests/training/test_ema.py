"""The EMA generator's own batch statistics."""

import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import cardigan
from cardigan.config import Config
from cardigan.config_parts import EmaConfig, LatentConfig, NetworkConfig
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.latents.sampling import find_latent
from cardigan.nets.table import build_networks
from cardigan.rng import stream
from cardigan.run.checkpoint import list_checkpoints
from cardigan.training.ema import with_own_statistics

CONFIG = Config(
    latent=LatentConfig(size=8),
    generator=NetworkConfig(network="light", width=4, normalization="batch"),
    ema=EmaConfig(statistics_samples=64),
)
SMALL = {"batch_size": 16, "generator.width": 4, "discriminator.width": 4, "device": "cpu", "precision": "fp32"}


def test_own_statistics_are_those_of_generated_images():
    spec = ImageSpec(3, 16, 16, 0)
    generator, _ = build_networks(CONFIG, spec)
    for parameter in generator.parameters():  # weights that the statistics do not fit, as after averaging
        parameter.data.mul_(1.5).add_(0.05)
    generator.eval()
    z = find_latent("normal")((64, 8), stream(CONFIG.seed, "batch statistics", 0))
    before = copy.deepcopy(generator.state_dict())
    with torch.no_grad():
        own, copied = with_own_statistics(generator, CONFIG, spec)(z), generator(z)
        expected = copy.deepcopy(generator).train()(z)
    # Normalization divides by the biased variance in training and by the unbiased one afterwards.
    assert (own - expected).abs().max() < 0.02 and (copied - expected).abs().max() > 0.2
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


@pytest.mark.parametrize("classes", [0, 3])
def test_own_statistics_depend_on_the_seed_alone(classes):
    config = replace(CONFIG, ema=EmaConfig(statistics_samples=100))
    spec = ImageSpec(3, 16, 16, classes)
    generator, _ = build_networks(config, spec)
    generator.eval()
    first, second = (with_own_statistics(generator, config, spec).state_dict() for _ in range(2))
    other = with_own_statistics(generator, replace(config, seed=1), spec).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    changed = {name.rsplit(".", 1)[1] for name, value in first.items() if not torch.equal(value, other[name])}
    assert changed == {"running_mean", "running_var"}  # neither the weights nor the counters


@pytest.mark.parametrize("samples", [0, 32])
def test_files_have_the_statistics_that_are_asked_for(tmp_path, samples):
    overrides = {**SMALL, "ema.statistics_samples": samples, "generator_optimizer.learning_rate": 1e-2}
    run = cardigan.train("mnist", out=tmp_path / "run", images=64, overrides=overrides)
    state = load_file(list_checkpoints(run.path / "checkpoints")[-1] / "state.safetensors")
    saved = load_file(run.path / "generator.safetensors")
    means = [name for name in saved if name.endswith("running_mean")]
    assert means
    for name in means:
        assert torch.equal(saved[name], state[f"ema_generator.{name}"])
        assert torch.equal(saved[name], state[f"generator.{name}"]) == (samples == 0)


def test_too_few_samples_are_refused():
    with pytest.raises(CardiganError, match=r"statistics_samples is 1: expected 0, or at least 16"):
        EmaConfig(statistics_samples=1)
