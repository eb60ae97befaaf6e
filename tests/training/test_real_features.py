"""Features of training images that are computed once: the same bits, and only where nothing changes an image."""

from dataclasses import replace

import pytest
import torch

from cardigan.data.batches import Batches
from cardigan.data.source import ImageSource
from cardigan.experiment.build import build_spec, build_state, build_step_config
from cardigan.overrides import override
from cardigan.recipes import config_for
from cardigan.training import real_features
from cardigan.training.ada import Augmentation
from cardigan.training.devices import open_devices
from cardigan.training.inputs import step_inputs
from cardigan.training.loop import make_step, set_augment_probability
from cardigan.training.schedule import step_kind
from cardigan.training.state import state_tensors

NUM_IMAGES = 24
TINY = {
    **{"batch_size": 8, "data.height": 16, "data.width": 16, "data.channels": 3, "generator.width": 2, "device": "cpu"},
    **{"discriminator.width": 4, "discriminator.options.head_width": 8, "discriminator.options.image_width": 8},
    **{"precision": "fp32"},
}


def source(channels: int = 3) -> ImageSource:
    pixels = torch.randint(0, 256, (NUM_IMAGES, channels, 16, 16), generator=torch.Generator().manual_seed(0))
    return ImageSource("noise", pixels.to(torch.uint8), torch.zeros(NUM_IMAGES, dtype=torch.long), 0)


def train(images: ImageSource, steps: int, **changes):
    """Return all weights after these steps, and how many images' features D's frozen layers computed for training."""
    config = override(config_for("noise", "images"), {**TINY, "data.channels": images.pixels.shape[1], **changes})
    devices = open_devices(config)
    state = build_state(config, build_spec(config, images), devices)
    batches = Batches(images, config.data, config.seed)
    step = make_step(state, batches, build_step_config(config, devices))
    computed: list[int] = []
    state.networks.discriminator.projection.register_forward_pre_hook(
        lambda _, inputs: computed.append(0 if inputs[0].requires_grad else len(inputs[0]))
    )
    for images_seen in range(0, steps * config.batch_size, config.batch_size):
        set_augment_probability(state.networks, config, images_seen)
        step(step_inputs(config, batches, images_seen, devices), step_kind(config, images_seen))
    return state_tensors(state), sum(computed)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("gradient_accumulation", [1, 2])
def test_features_are_computed_once_with_the_same_bits(precision, gradient_accumulation, monkeypatch):
    changes = {"precision": precision, "gradient_accumulation": gradient_accumulation}
    kept, num_kept = train(source(), 6, **changes)
    monkeypatch.setattr("cardigan.training.loop.find_real_features", lambda *_: None)
    again, num_again = train(source(), 6, **changes)
    # The second epoch. Microbatches are computed a second time for G, of all epochs.
    assert num_again - num_kept == {1: NUM_IMAGES, 2: 3 * NUM_IMAGES}[gradient_accumulation]
    assert all(torch.equal(kept[name], again[name]) for name in again)


def test_augmented_images_are_computed_again(monkeypatch):
    """Until augmentation starts features are kept, and from then on none of them is used."""
    changes = {"augment.operations": "color,translation", "augment.probability": 1.0, "augment.start_images": 47}
    kept, num_kept = train(source(), 9, **changes)
    monkeypatch.setattr("cardigan.training.loop.find_real_features", lambda *_: None)
    again, num_again = train(source(), 9, **changes)
    assert num_again - num_kept == 3 * 8
    assert all(torch.equal(kept[name], again[name]) for name in again)


def test_augmentation_that_has_not_started_is_not_computed(monkeypatch):
    """D learns the same from images that are not augmented as from images augmented with probability 0."""
    changes = {"augment.operations": "color,translation", "augment.probability": 1.0, "augment.start_images": 24}
    with monkeypatch.context() as patch:
        patch.setattr(Augmentation, "__call__", lambda *_: pytest.fail("augmented"))
        skipped, _ = train(source(), 1, **changes)
        train(source(), 3, **changes)
        with pytest.raises(pytest.fail.Exception, match="augmented"):
            train(source(), 5, **changes)
    monkeypatch.setattr(Augmentation, "is_off", lambda *_: False)
    computed, _ = train(source(), 1, **changes)
    names = [name for name in computed if name.startswith("discriminator.")]
    assert names and all(torch.equal(skipped[name], computed[name]) for name in names)


@pytest.mark.parametrize("reason", ["transparent", "large", "rounding", "plain"])
def test_features_are_not_kept(reason, monkeypatch):
    config = override(config_for("noise", "images"), TINY)
    images = source(4 if reason == "transparent" else 3)
    if reason == "plain":
        config = override(config, {"discriminator.network": "dcgan", "discriminator.options": {}})
    if reason == "large":
        monkeypatch.setattr(real_features, "MAX_BYTES", 10_000)
    config = override(config, {"data.channels": images.pixels.shape[1]})
    devices, batches = open_devices(config), Batches(images, config.data, config.seed)
    discriminator = build_state(config, build_spec(config, images), devices).networks.discriminator
    if reason == "rounding":
        compute = real_features.compute_features
        monkeypatch.setattr(
            real_features,
            "compute_features",
            lambda *arguments: compute(*arguments) + torch.arange(16)[:, None] * 1e-6,
        )
    assert real_features.find_real_features(discriminator, batches, devices) is None


def test_streamed_images_have_no_features():
    config = override(config_for("noise", "images"), TINY)
    images = source()
    devices, batches = open_devices(config), Batches(images, config.data, config.seed)
    discriminator = build_state(config, build_spec(config, images), devices).networks.discriminator
    kept = real_features.find_real_features(discriminator, batches, devices)
    assert kept is not None
    batch = batches.batch_at(0, 8)
    assert kept.add_to(replace(batch, indices=None), None).features is None
    assert kept.add_to(batch, None).features is not None
