"""What a look at the game tells beyond its losses: do the pictures differ, are they copies, does D know its pictures by heart?

Looks at copies of the players, with randomness of its own, so that nothing it does can change the training.
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
from cardigan.pixels import decode
from cardigan.rng import stream
from cardigan.shapes import Images, Labels, Pixels
from cardigan.training.state import TrainState
from cardigan.training.steps import StepConfig

NUM_PROBE_IMAGES = 64
"""Pictures of each kind; their mean distance is known to a few percent."""
NUM_REFERENCE_IMAGES = 2048
"""Training pictures among which copies are searched."""
THUMBNAIL_SIZE = 16
"""Pictures are compared as thumbnails of at most this side: noise of single pixels makes no two pictures different."""
DUPLICATE_DISTANCE = 0.05
"""Two pictures this near to each other, in units of the mean distance of real ones, are the same picture."""
SATURATION_THRESHOLD = 0.99


@dataclass
class TrainingProbe:
    """Draws a batch and has it, real pictures and held-out ones judged; costs about one step."""

    config: Config
    batches: Batches
    holdout: ImageSource | None
    """Real pictures that are not trained on, on the device; None where a source has none."""
    step_config: StepConfig
    _reference_thumbnails: torch.Tensor | None = field(default=None, repr=False)

    @torch.no_grad()
    def __call__(self, state: TrainState) -> dict[str, float]:
        """Return the named numbers of this moment."""
        generator, discriminator = (
            self.step_config.devices.process_group.local_copy(network)
            for network in (state.networks.generator, state.networks.discriminator)
        )
        config, device = self.config, self.step_config.devices.device
        count = max(1, min(NUM_PROBE_IMAGES, len(self.batches.source)) // config.pac) * config.pac
        rng = stream(
            config.seed, "looked at", state.images_seen
        )  # other pictures every time, so that three looks are three opinions
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
            **discriminator_metrics({name: each.float() for name, each in logits.items()}),
            **self._memorization_metrics(fake, holdout_batch),
        }
        return {name: value for name, value in values.items() if math.isfinite(value)}

    @torch.no_grad()
    def logits(self, state: TrainState, pixels: Pixels, labels: Labels | None) -> list[float]:
        """Return D's logit for each picture, with batch statistics of these as in a step; none where D judges several pictures together."""
        if self.config.pac > 1:
            return []
        discriminator, device = (
            self.step_config.devices.process_group.local_copy(state.networks.discriminator),
            self.step_config.devices.device,
        )
        with self.step_config.devices.autocast():
            logits = discriminator(decode(pixels.to(device)), None if labels is None else labels.to(device))
        return [round(logit, 4) for logit in logits.float().flatten().tolist()]

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
    """Return pictures as vectors: grey, at most 16x16."""
    side, grey = (
        (min(THUMBNAIL_SIZE, images.shape[2]), min(THUMBNAIL_SIZE, images.shape[3])),
        images.mean(dim=1, keepdim=True),
    )
    return adaptive_avg_pool2d(grey.cpu() if is_metal(images.device) else grey, side).flatten(1)


def diversity_metrics(fake: Images, real: Images) -> dict[str, float]:
    """Return how much generated pictures differ from each other, beside real ones, and how many of their values are at the ends of the range.

    diversity: mean distance of two generated thumbnails over that of two real ones. duplicate_rate: share of generated pictures with a twin among them.
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
    """Return D's margin between training pictures and generated ones, and how much of it held-out real pictures fall short of (0: nothing, 1: all).

    The second is left out where the margin is not four times as large as its own uncertainty: a share of nothing means nothing.
    """
    means = {name: float(each.mean()) for name, each in logits.items()}
    margin = means["real"] - means["fake"]
    margin_error = sum(float(each.var()) / len(each) for each in logits.values()) ** 0.5
    if "holdout" not in logits or margin <= 4 * margin_error:
        return {"logit_margin": margin}
    return {"logit_margin": margin, "holdout_gap": (means["real"] - means["holdout"]) / margin}
