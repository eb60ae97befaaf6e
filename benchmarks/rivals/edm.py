"""A small diffusion model: EDM (Karras et al. 2022, arXiv:2206.00364), with its preconditioning and Heun sampler."""

import torch
from torch import Tensor, nn

from unet import UNet

SIGMA_DATA = 0.5
SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0
"""Table 1."""
MEAN_LOG_SIGMA, DEVIATION_LOG_SIGMA = -1.2, 1.2


class Edm(nn.Module):
    """`loss` for training, `sample` for images; 2 * steps - 1 evaluations of the network an image."""

    memory_format = torch.channels_last
    training_dtype = torch.bfloat16
    steps = (1, 4, 18, 50)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.network = UNet(channels)

    def denoised(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Equations 7 and table 1: the denoised images for noise of these deviations [batch]."""
        wide = sigma[:, None, None, None]
        total = (wide.square() + SIGMA_DATA**2).sqrt()
        skip, out = SIGMA_DATA**2 / total.square(), wide * SIGMA_DATA / total
        return skip * noisy + out * self.network(noisy / total, sigma.log() / 4 / 10 + 0.5)

    def loss(self, images: Tensor) -> Tensor:
        """Equation 8, with the weights of table 1."""
        sigma = (MEAN_LOG_SIGMA + DEVIATION_LOG_SIGMA * torch.randn(len(images))).exp()
        weight = (sigma.square() + SIGMA_DATA**2) / (sigma * SIGMA_DATA).square()
        noisy = images + sigma[:, None, None, None] * torch.randn_like(images)
        return (weight[:, None, None, None] * (self.denoised(noisy, sigma) - images).square()).mean()

    def sample(self, noise: Tensor, steps: int) -> Tensor:
        """Algorithm 1: Heun's method without churn."""
        ramp = torch.linspace(0, 1, steps) if steps > 1 else torch.zeros(1)
        sigmas = (SIGMA_MAX ** (1 / RHO) + ramp * (SIGMA_MIN ** (1 / RHO) - SIGMA_MAX ** (1 / RHO))) ** RHO
        x = noise * sigmas[0]
        for sigma, following in zip(sigmas, [*sigmas[1:], torch.zeros(())], strict=True):
            slope = (x - self.denoised(x, sigma.expand(len(x)))) / sigma
            moved = x + (following - sigma) * slope
            if following > 0:
                second = (moved - self.denoised(moved, following.expand(len(x)))) / following
                moved = x + (following - sigma) * (slope + second) / 2
            x = moved
        return x.clamp(-1, 1)
