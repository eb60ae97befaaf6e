"""The augmentation of a run: its operations, their probability, and its adaptation to D's overfitting (ADA).

Its two numbers are part of the run's state. `objective/augment.py` implements the operations.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.config_parts import AugmentConfig
from cardigan.errors import CardiganError
from cardigan.objective.augment import OPERATIONS, augment, num_draws
from cardigan.shapes import Images, Scalar
from cardigan.training.devices import Devices
from cardigan.training.distributed import ProcessGroup

SIGN_EMA_BATCHES = 4
"""Approximate number of batches over which the sign is averaged (arXiv:2006.06676, section 3)."""


@dataclass(frozen=True)
class Augmentation:
    """Augments images before D sees them.

    `probability` and `margin_sign` are on the device and updated in place, so that no step waits for them.
    """

    config: AugmentConfig
    probability: Tensor
    margin_sign: Tensor
    """Moving average of the sign of D's margin on real images: 0 if D cannot tell them apart, 1 if it overfits."""

    def __call__(self, images: Images, uniforms: Float[Tensor, "batch column"]) -> Images:
        return augment(images, self.config.operation_names, uniforms, self.probability)

    def is_off(self, devices: Devices) -> bool:
        """Return whether no image is augmented now. False on a GPU, where reading the probability would wait for it."""
        return devices.device.type == "cpu" and not devices.is_async and float(self.probability) == 0

    @torch.no_grad()
    def adapt(self, margin_sign: Scalar, num_images: int, process_group: ProcessGroup) -> None:
        """Update the probability after a step of `num_images` images per process. A fixed one does not change."""
        if self.config.target:
            self.margin_sign.lerp_(process_group.all_reduce_mean([margin_sign])[0], 1 / SIGN_EMA_BATCHES)
            total_images = num_images * process_group.world_size
            self.probability.copy_(
                next_probability(
                    self.probability, self.margin_sign, self.config.target, total_images, self.config.ramp_images
                )
            )

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the tensors to save in a checkpoint: none if the probability is fixed."""
        return (
            {"augmentation.probability": self.probability, "augmentation.margin_sign": self.margin_sign}
            if self.config.target
            else {}
        )


def build_augmentation(config: AugmentConfig, channels: int, device: torch.device) -> Augmentation | None:
    """Return the augmentation of a config, or None. Raises CardiganError for unknown or ineffective operations."""
    if not config.operation_names:
        return None
    num_draws(config.operation_names)
    ineffective = [name for name in config.operation_names if OPERATIONS[name].needs_color and channels < 3]
    if ineffective:
        raise CardiganError(
            f"augment.operations has {', '.join(ineffective)}, which have no effect on grayscale images: remove them."
        )
    initial_probability = torch.tensor(config.probability, device=device)
    return Augmentation(config, initial_probability, torch.full_like(initial_probability, config.target))


def next_probability(p: Scalar, sign_mean: Scalar, target: float, num_images: int, ramp_images: int) -> Scalar:
    """Return p changed by num_images / ramp_images: up if D overfits, down if not (arXiv:2006.06676, section 3).

    `sign_mean` is r_t = E[sign(D(x))] over training images (eq. 1), in [-1, 1]. It tends to 1 as D overfits; the
    paper's target is 0.6. For a loss whose logits have no zero, use the sign of its margin (docs/decisions/0004).
    `num_images` is the number of images since the last update, `ramp_images` the number in which p goes from 0 to 1
    (500,000 in the paper).
    """
    return (p + torch.sign(sign_mean - target) * (num_images / ramp_images)).clamp(0, 1)
