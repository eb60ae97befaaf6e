"""Diagnostics beyond the losses: diversity of the images, copies of training images, overfitting of D.

The probe uses copies of the networks and its own random numbers, so it cannot change the training.
"""

import math
from dataclasses import dataclass, field

import torch
from torch.nn.functional import adaptive_avg_pool2d

from cardigan.config import Config
from cardigan.data.batches import Batches
from cardigan.data.source import ImageSource
from cardigan.hardware.metal import is_metal
from cardigan.latents.sampling import training_latents
from cardigan.nets.interface import mean_over_heads
from cardigan.pixels import decode
from cardigan.rng import stream
from cardigan.shapes import Images, Labels, Pixels
from cardigan.training.state import TrainState
from cardigan.training.step_types import StepConfig
from cardigan.training.sync_batch_norm import local_copy

NUM_PROBE_IMAGES = 64
"""Images of each kind, enough to estimate their mean distance to a few percent."""
NUM_REFERENCE_IMAGES = 2048
"""Training images that generated images are compared with."""
THUMBNAIL_SIZE = 16
"""Images are compared as thumbnails of at most this side, so that noise of single pixels has no effect."""
DUPLICATE_DISTANCE = 0.05
"""Two images at most this far apart, in units of the mean distance of real images, are duplicates."""
SATURATION_THRESHOLD = 0.99


@dataclass
class TrainingProbe:
    """Evaluates D on generated, training and holdout images. Costs about as much as one step."""

    config: Config
    batches: Batches
    holdout: ImageSource | None
    """Real images that are not trained on, on the device. None if the source has none."""
    step_config: StepConfig
    _reference_thumbnails: torch.Tensor | None = field(default=None, repr=False)

    @torch.no_grad()
    def __call__(self, state: TrainState) -> dict[str, float]:
        """Return the metrics of the current state."""
        generator, discriminator = (
            local_copy(network) for network in (state.networks.generator, state.networks.discriminator)
        )
        config, device = self.config, self.step_config.devices.device
        count = max(1, min(NUM_PROBE_IMAGES, len(self.batches.source)) // config.pac) * config.pac
        # Other images every time, so that consecutive readings are independent.
        rng = stream(config.seed, "looked at", state.images_seen)
        earliest, latest = max(0, state.images_seen - len(self.batches.source)), max(0, state.images_seen - count)
        first = int(torch.randint(earliest, latest + 1, (1,), generator=rng))
        real = self.batches.batch_at(first, count)  # seen by D within the last epoch
        labels = real.labels if self.step_config.conditional else None
        z = training_latents(config.latent.distribution, count, config.latent.size, config.seed, state.images_seen).to(
            device
        )
        with self.step_config.devices.autocast():
            fake = generator(z, labels).float()
            logits = {"real": discriminator(real.images, labels), "fake": discriminator(fake, labels)}
            holdout_batch = self._holdout_batch(count, rng)
            if holdout_batch is not None:
                logits["holdout"] = discriminator(
                    holdout_batch[0], holdout_batch[1] if self.step_config.conditional else None
                )
        values = {
            **diversity_metrics(fake, real.images),
            **discriminator_metrics(
                {name: mean_over_heads(kind_logits).float() for name, kind_logits in logits.items()}
            ),
            **self._memorization_metrics(fake, holdout_batch),
        }
        return {name: value for name, value in values.items() if math.isfinite(value)}

    @torch.no_grad()
    def logits(self, state: TrainState, pixels: Pixels, labels: Labels | None) -> list[float]:
        """Return D's logit for each image (the mean over its heads), with batch statistics of these images.

        The list is empty for packs.
        """
        if self.config.pac > 1:
            return []
        discriminator, device = (
            local_copy(state.networks.discriminator),
            self.step_config.devices.device,
        )
        with self.step_config.devices.autocast():
            logits = discriminator(decode(pixels.to(device)), None if labels is None else labels.to(device))
        return [round(logit, 4) for logit in mean_over_heads(logits).float().tolist()]

    def _holdout_batch(self, count: int, rng: torch.Generator) -> tuple[Images, Labels] | None:
        if self.holdout is None or len(self.holdout) < count:
            return None
        indices = torch.randint(len(self.holdout), (count,), generator=rng).to(self.holdout.pixels.device)
        return self.holdout.images_at(indices, self.config.data), self.holdout.labels[indices]

    def _memorization_metrics(self, fake: Images, holdout_batch: tuple[Images, Labels] | None) -> dict[str, float]:
        if holdout_batch is None:
            return {}
        if self._reference_thumbnails is None:
            source = self.batches.source
            indices = torch.randperm(len(source), generator=stream(self.config.seed, "remembered", 0))[
                :NUM_REFERENCE_IMAGES
            ]
            self._reference_thumbnails = thumbnails(
                source.images_at(indices.to(source.pixels.device), self.config.data)
            )
        fake_distance, holdout_distance = (
            torch.cdist(thumbnails(images), self._reference_thumbnails).amin(dim=1).median()
            for images in (fake, holdout_batch[0])
        )
        return {"nearest_distance_ratio": float(fake_distance / holdout_distance)} if holdout_distance > 0 else {}


def thumbnails(images: Images) -> torch.Tensor:
    """Return images as vectors: grayscale, at most 16x16."""
    side, gray = (
        (min(THUMBNAIL_SIZE, images.shape[2]), min(THUMBNAIL_SIZE, images.shape[3])),
        images.mean(dim=1, keepdim=True),
    )
    return adaptive_avg_pool2d(gray.cpu() if is_metal(images.device) else gray, side).flatten(1)


def diversity_metrics(fake: Images, real: Images) -> dict[str, float]:
    """Return diversity, duplicate rate and the fraction of saturated values.

    diversity: the mean distance of two generated thumbnails divided by that of two real ones. duplicate_rate: the
    fraction of generated images that have a duplicate among them. saturated_fraction: the fraction of values near -1 or
    1.
    """
    distances = torch.cdist(thumbnails(fake), thumbnails(fake))
    real_mean_distance = torch.cdist(thumbnails(real), thumbnails(real)).sum() / (len(real) * max(1, len(real) - 1))
    nearest = distances.clone().fill_diagonal_(torch.inf).amin(dim=1)
    values = {
        "saturated_fraction": (fake.abs() > SATURATION_THRESHOLD).float().mean(),
        "saturated_fraction_real": (real.abs() > SATURATION_THRESHOLD).float().mean(),
    }
    if real_mean_distance > 0:
        values["diversity"] = distances.sum() / (len(fake) * max(1, len(fake) - 1)) / real_mean_distance
        values["duplicate_rate"] = (nearest < DUPLICATE_DISTANCE * real_mean_distance).float().mean()
    return {name: float(value) for name, value in values.items()}


def discriminator_metrics(logits: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return D's logit margin between training and generated images, and the holdout gap.

    holdout_gap: the fraction of that margin by which holdout images are below training images (0: none, 1: all). It is
    omitted unless the margin is over four times its standard error.
    """
    means = {name: float(kind_logits.mean()) for name, kind_logits in logits.items()}
    margin = means["real"] - means["fake"]
    margin_error = sum(float(kind_logits.var()) / len(kind_logits) for kind_logits in logits.values()) ** 0.5
    if "holdout" not in logits or margin <= 4 * margin_error:
        return {"logit_margin": margin}
    return {"logit_margin": margin, "holdout_gap": (means["real"] - means["holdout"]) / margin}
