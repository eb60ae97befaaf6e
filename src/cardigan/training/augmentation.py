"""The augmentation of a run: which operations, how likely each is now, and how that adapts to D's overfitting.

Its two numbers are part of the run's state; what the operations do is `objective/augment.py`'s.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.config import AugmentConfig
from cardigan.errors import CardiganError
from cardigan.objective.augment import augment, next_probability, numbers_needed
from cardigan.shapes import Images, Scalar
from cardigan.training.processes import Processes

OF_COLOUR = frozenset({"hue", "saturation"})
REMEMBERED = 4
"""Batches over which the sign is averaged, about (arXiv:2006.06676, section 3)."""


@dataclass(frozen=True)
class Augmentation:
    """Changes pictures before D sees them. `probability` and `sign` lie on the device and are updated in place, so that no step waits for them."""

    config: AugmentConfig
    probability: Tensor
    sign: Tensor
    """The mean sign of D's margin on real pictures, lately: 0 where D cannot tell, 1 where it knows every picture."""

    def __call__(self, images: Images, numbers: Float[Tensor, "batch column"]) -> Images:
        return augment(images, self.config.pipeline, numbers, self.probability)

    @torch.no_grad()
    def adapt(self, sign: Scalar, images: int, processes: Processes) -> None:
        """Move the probability toward where the sign is the target, after a step of this many images in each process; a fixed one stays."""
        if self.config.target:
            self.sign.lerp_(processes.average([sign])[0], 1 / REMEMBERED)
            step = images * processes.world_size
            self.probability.copy_(next_probability(self.probability, self.sign, self.config.target, step, self.config.rise_images))

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold: nothing where the probability is fixed."""
        return {"augmentation.probability": self.probability, "augmentation.sign": self.sign} if self.config.target else {}


def build_augmentation(config: AugmentConfig, channels: int, device: torch.device) -> Augmentation | None:
    """Return the augmentation a config asks for, None for none. Raises CardiganError for operations that do not exist or would change nothing."""
    if not config.pipeline:
        return None
    numbers_needed(config.pipeline)
    idle = [name for name in config.pipeline if name in OF_COLOUR and channels < 3]
    if idle:
        raise CardiganError(f"augment.operations has {', '.join(idle)}, which change nothing in pictures without colour: leave them out.")
    start = torch.tensor(config.probability, device=device)
    return Augmentation(config, start, torch.full_like(start, config.target))
