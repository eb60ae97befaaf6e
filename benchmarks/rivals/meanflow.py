"""MeanFlow (Geng et al. 2025, arXiv:2505.13447): the mean velocity between two times, so that one step is enough."""

import torch
from torch import Tensor, nn
from torch.func import jvp

from unet import UNet

FRACTION_OF_EQUAL_TIMES = 0.75
"""Section 4.3: for most images both times are the same, which is plain flow matching. Times are uniform (table 1d):
those near 1, where one step begins, must be seen also in a short training."""
POWER, OFFSET = 1.0, 1e-3
"""Of the adaptive weight of the loss (equation 22)."""


class MeanFlow(nn.Module):
    """`loss` for training, `sample` for images; one evaluation of the network a step. Time 1 is noise, 0 the image."""

    memory_format = torch.contiguous_format
    """Group normalization has no forward derivative for other layouts."""
    training_dtype = torch.bfloat16
    steps = (1, 4)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.network = UNet(channels, two_times=True)

    def loss(self, images: Tensor) -> Tensor:
        """Algorithm 1: the target is the velocity minus the time span times the derivative of the mean velocity."""
        noise = torch.randn_like(images)
        end, start = torch.rand(2, len(images)).sort(dim=0).values
        end = torch.where(torch.rand(len(images)) < FRACTION_OF_EQUAL_TIMES, start, end)
        wide = start[:, None, None, None]
        x, velocity = (1 - wide) * images + wide * noise, noise - images
        target = velocity - (start - end)[:, None, None, None] * self.derivative(x, velocity, start, end)
        errors = (self.network(x, start, end) - target).square().flatten(1).sum(1)
        return (errors / (errors.detach() + OFFSET) ** POWER).mean()

    @torch.no_grad()
    def derivative(self, x: Tensor, velocity: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Return the derivative of the mean velocity along the path; 0 where both times are equal: it is not used.

        In fp32: forward derivatives of convolutions do not work under autocast (torch 2.13).
        """
        derivative, needed = torch.zeros_like(x), start != end
        inputs = (x[needed], start[needed], end[needed])
        if needed.any():
            tangents = (velocity[needed], torch.ones_like(inputs[1]), torch.zeros_like(inputs[2]))
            with torch.autocast("cpu", enabled=False):
                derivative[needed] = jvp(self.network, inputs, tangents)[1]
        return derivative

    def sample(self, noise: Tensor, steps: int) -> Tensor:
        x = noise
        for step in range(steps, 0, -1):
            start, end = (torch.full((len(x),), each / steps) for each in (step, step - 1))
            x = x - self.network(x, start, end) / steps
        return x.clamp(-1, 1)
