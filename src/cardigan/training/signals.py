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
from cardigan.latents import training_latents
from cardigan.pixels import decode
from cardigan.rng import stream
from cardigan.shapes import Images, Labels, Pixels
from cardigan.training.state import TrainState
from cardigan.training.steps import Rules

NUM_LOOKED_AT = 64
"""Pictures of each kind; their mean distance is known to a few percent."""
NUM_REMEMBERED = 2048
"""Training pictures among which copies are searched."""
SIDE = 16
"""Pictures are compared as thumbnails of at most this side: noise of single pixels makes no two pictures different."""
TWIN = 0.05
"""Two pictures this near to each other, in units of the mean distance of real ones, are the same picture."""
SATURATED = 0.99


@dataclass
class Probe:
    """Draws a batch and has it, real pictures and held-out ones judged; costs about one step."""

    config: Config
    batches: Batches
    held_out: ImageSource | None
    """Real pictures that are not trained on, on the device; None where a source has none."""
    rules: Rules
    _remembered: torch.Tensor | None = field(default=None, repr=False)

    @torch.no_grad()
    def __call__(self, state: TrainState) -> dict[str, float]:
        """Return the named numbers of this moment."""
        generator, discriminator = (
            self.rules.devices.processes.copied_alone(player) for player in (state.players.generator, state.players.discriminator)
        )
        config, device = self.config, self.rules.devices.device
        count = max(1, min(NUM_LOOKED_AT, len(self.batches.source)) // config.packing) * config.packing
        chance = stream(config.seed, "looked at", state.images_seen)  # other pictures every time, so that three looks are three opinions
        earliest, latest = max(0, state.images_seen - len(self.batches.source)), max(0, state.images_seen - count)
        first = int(torch.randint(earliest, latest + 1, (1,), generator=chance))
        real = self.batches.at(first, count)  # seen by D within the last epoch
        labels = real.labels if self.rules.conditional else None
        z = training_latents(config.latent.distribution, count, config.latent.size, config.seed, state.images_seen).to(device)
        with self.rules.devices.autocast():
            fake = generator(z, labels).float()
            logits = {"real": discriminator(real.images, labels), "fake": discriminator(fake, labels)}
            held = self._held_out(count, chance)
            if held is not None:
                logits["held_out"] = discriminator(held[0], held[1] if self.rules.conditional else None)
        values = {**pictures(fake, real.images), **opinions({name: each.float() for name, each in logits.items()}), **self._copies(fake, held)}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    @torch.no_grad()
    def opinions(self, state: TrainState, pixels: Pixels, labels: Labels | None) -> list[float]:
        """Return D's logit for each picture, with batch statistics of these as in a step; none where D judges several pictures together."""
        if self.config.packing > 1:
            return []
        discriminator, device = self.rules.devices.processes.copied_alone(state.players.discriminator), self.rules.devices.device
        with self.rules.devices.autocast():
            logits = discriminator(decode(pixels.to(device)), None if labels is None else labels.to(device))
        return [round(logit, 4) for logit in logits.float().flatten().tolist()]

    def _held_out(self, count: int, chance: torch.Generator) -> tuple[Images, Labels] | None:
        if self.held_out is None or len(self.held_out) < count:
            return None
        indices = torch.randint(len(self.held_out), (count,), generator=chance).to(self.held_out.pixels.device)
        return self.held_out.images(indices, self.config.data), self.held_out.labels[indices]

    def _copies(self, fake: Images, held: tuple[Images, Labels] | None) -> dict[str, float]:
        if held is None:
            return {}
        if self._remembered is None:
            source = self.batches.source
            chosen = torch.randperm(len(source), generator=stream(self.config.seed, "remembered", 0))[:NUM_REMEMBERED]
            self._remembered = thumbnails(source.images(chosen.to(source.pixels.device), self.config.data))
        near, usual = (torch.cdist(thumbnails(images), self._remembered).amin(dim=1).median() for images in (fake, held[0]))
        return {"nearness": float(near / usual)} if usual > 0 else {}


def thumbnails(images: Images) -> torch.Tensor:
    """Return pictures as vectors: grey, at most 16x16."""
    side, grey = (min(SIDE, images.shape[2]), min(SIDE, images.shape[3])), images.mean(dim=1, keepdim=True)
    return adaptive_avg_pool2d(grey.cpu() if is_metal(images.device) else grey, side).flatten(1)


def pictures(fake: Images, real: Images) -> dict[str, float]:
    """Return how much generated pictures differ from each other, beside real ones, and how many of their values are at the ends of the range.

    diversity: mean distance of two generated thumbnails over that of two real ones. repeated: share of generated pictures with a twin among them.
    """
    apart = torch.cdist(thumbnails(fake), thumbnails(fake))
    usual = torch.cdist(thumbnails(real), thumbnails(real)).sum() / (len(real) * max(1, len(real) - 1))
    nearest = apart.clone().fill_diagonal_(torch.inf).amin(dim=1)
    values = {"saturation": (fake.abs() > SATURATED).float().mean(), "saturation_of_real": (real.abs() > SATURATED).float().mean()}
    if usual > 0:
        values["diversity"] = apart.sum() / (len(fake) * max(1, len(fake) - 1)) / usual
        values["repeated"] = (nearest < TWIN * usual).float().mean()
    return {name: float(value) for name, value in values.items()}


def opinions(logits: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return D's margin between training pictures and generated ones, and how much of it held-out real pictures fall short of (0: nothing, 1: all).

    The second is left out where the margin is not four times as large as its own uncertainty: a share of nothing means nothing.
    """
    means = {name: float(each.mean()) for name, each in logits.items()}
    margin = means["real"] - means["fake"]
    uncertain = sum(float(each.var()) / len(each) for each in logits.values()) ** 0.5
    if "held_out" not in logits or margin <= 4 * uncertain:
        return {"logit_margin": margin}
    return {"logit_margin": margin, "held_out_gap": (means["real"] - means["held_out"]) / margin}
