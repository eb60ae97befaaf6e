"""MeanFlow (Geng et al. 2025, arXiv:2505.13447): the mean velocity between two times, so that one step is enough."""

import torch
from torch import Tensor, nn
from torch.func import jvp

from unet import UNet

FRACTION_OF_EQUAL_TIMES = 0.75
"""Section 4.3: for most images both times are the same, which is plain flow matching."""
POWER, OFFSET = 1.0, 1e-3
"""Of the adaptive weight of the loss (equation 22)."""


class MeanFlow(nn.Module):
    """`loss` for training, `sample` for images; one evaluation of the network a step. Time 1 is noise, 0 the image."""

    memory_format = torch.contiguous_format
    """Group normalization has no forward derivative for other layouts."""
    training_dtype = torch.float32
    """Forward derivatives of convolutions do not work under autocast (torch 2.13)."""
    steps = (1, 4)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.network = UNet(channels, two_times=True)

    def loss(self, images: Tensor) -> Tensor:
        """Algorithm 1: the target is the velocity minus the time span times the derivative of the mean velocity."""
        noise = torch.randn_like(images)
        end, start = (-0.4 + torch.randn(2, len(images))).sigmoid().sort(dim=0).values
        end = torch.where(torch.rand(len(images)) < FRACTION_OF_EQUAL_TIMES, start, end)
        wide = start[:, None, None, None]
        x, velocity = (1 - wide) * images + wide * noise, noise - images
        tangents = (velocity, torch.ones_like(start), torch.zeros_like(end))
        mean_velocity, derivative = jvp(self.network, (x, start, end), tangents)[:2]
        target = velocity - (start - end)[:, None, None, None] * derivative
        errors = (mean_velocity - target.detach()).square().flatten(1).sum(1)
        return (errors / (errors.detach() + OFFSET) ** POWER).mean()

    def sample(self, noise: Tensor, steps: int) -> Tensor:
        x = noise
        for step in range(steps, 0, -1):
            start, end = (torch.full((len(x),), each / steps) for each in (step, step - 1))
            x = x - self.network(x, start, end) / steps
        return x.clamp(-1, 1)
