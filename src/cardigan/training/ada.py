"""The augmentation of a run: which operations, how likely each is now, and how that adapts to D's overfitting.

Its two numbers are part of the run's state; what the operations do is `objective/augment.py`'s.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.config import AugmentConfig
from cardigan.errors import CardiganError
from cardigan.objective.augment import augment, num_draws
from cardigan.shapes import Images, Scalar
from cardigan.training.distributed import ProcessGroup

NEEDS_COLOR = frozenset({"hue", "saturation"})
SIGN_EMA_BATCHES = 4
"""Batches over which the sign is averaged, about (arXiv:2006.06676, section 3)."""


@dataclass(frozen=True)
class Augmentation:
    """Changes pictures before D sees them. `probability` and `margin_sign` lie on the device and are updated in place, so that no step waits for them."""

    config: AugmentConfig
    probability: Tensor
    margin_sign: Tensor
    """The mean sign of D's margin on real pictures, lately: 0 where D cannot tell, 1 where it knows every picture."""

    def __call__(self, images: Images, uniforms: Float[Tensor, "batch column"]) -> Images:
        return augment(images, self.config.operation_names, uniforms, self.probability)

    @torch.no_grad()
    def adapt(self, margin_sign: Scalar, num_images: int, process_group: ProcessGroup) -> None:
        """Move the probability toward where the sign is the target, after a step of this many images in each process; a fixed one stays."""
        if self.config.target:
            self.margin_sign.lerp_(process_group.all_reduce_mean([margin_sign])[0], 1 / SIGN_EMA_BATCHES)
            total_images = num_images * process_group.world_size
            self.probability.copy_(
                next_probability(
                    self.probability, self.margin_sign, self.config.target, total_images, self.config.ramp_images
                )
            )

    def state_tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold: nothing where the probability is fixed."""
        return (
            {"augmentation.probability": self.probability, "augmentation.margin_sign": self.margin_sign}
            if self.config.target
            else {}
        )


def build_augmentation(config: AugmentConfig, channels: int, device: torch.device) -> Augmentation | None:
    """Return the augmentation a config asks for, None for none. Raises CardiganError for operations that do not exist or would change nothing."""
    if not config.operation_names:
        return None
    num_draws(config.operation_names)
    ineffective = [name for name in config.operation_names if name in NEEDS_COLOR and channels < 3]
    if ineffective:
        raise CardiganError(
            f"augment.operations has {', '.join(ineffective)}, which change nothing in pictures without colour: leave them out."
        )
    initial_probability = torch.tensor(config.probability, device=device)
    return Augmentation(config, initial_probability, torch.full_like(initial_probability, config.target))


def next_probability(p: Scalar, sign_mean: Scalar, target: float, num_images: int, ramp_images: int) -> Scalar:
    """Return p moved by num_images / ramp_images, up if D knows its pictures too well, down if not (arXiv:2006.06676, section 3).

    `sign_mean` is r_t = E[sign(D(x))] over training pictures (eq. 1), in [-1, 1]: towards 1 as D overfits; the paper's target is 0.6. Of a loss
    whose logits have no zero, take the sign of its margin (docs/decisions/0004). `num_images` is how many were shown since p was last moved,
    `ramp_images` how many take it from 0 to 1 (500,000 in the paper).
    """
    return (p + torch.sign(sign_mean - target) * (num_images / ramp_images)).clamp(0, 1)
