"""Flow matching (Lipman et al. 2022, arXiv:2210.02747): straight paths between noise and images, and Euler steps."""

import torch
from torch import Tensor, nn

from unet import UNet


class Flow(nn.Module):
    """`loss` for training, `sample` for images; one evaluation of the network a step."""

    memory_format = torch.channels_last
    training_dtype = torch.bfloat16
    steps = (1, 4, 18, 50)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.network = UNet(channels)

    def loss(self, images: Tensor) -> Tensor:
        """Equation 23 with sigma_min 0: the velocity from noise (time 0) to the image (time 1) at a random time.

        Times are the sigmoid of normal numbers, which favors the middle (arXiv:2403.03206, section 3.1).
        """
        noise, time = torch.randn_like(images), torch.randn(len(images)).sigmoid()
        wide = time[:, None, None, None]
        return (self.network((1 - wide) * noise + wide * images, time) - (images - noise)).square().mean()

    def sample(self, noise: Tensor, steps: int) -> Tensor:
        x = noise
        for step in range(steps):
            x = x + self.network(x, torch.full((len(x),), step / steps)) / steps
        return x.clamp(-1, 1)
