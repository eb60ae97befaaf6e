"""How the rivals with one network and one loss are trained, and how their samples begin."""

import copy

import torch
from torch import Tensor, nn

from cardigan.hardware.precision import multiplies_bf16
from edm import Edm
from flow import Flow
from meanflow import MeanFlow

HALF_LIFE_FRACTION = 0.1
"""Half-life of the average of weights, as a fraction of the images seen."""


class Denoiser:
    """`step` trains a network on a batch with Adam, `sample` returns images of the average of its weights."""

    def __init__(self, network: Edm | Flow | MeanFlow, rate: float, shape: tuple[int, int, int]) -> None:
        self.shape, self.steps = shape, network.steps
        self.memory_format: torch.memory_format = network.memory_format
        self.network = network.to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)
        self.has_bf16 = multiplies_bf16(torch.device("cpu"))

    def num_weights(self) -> int:
        return sum(each.numel() for each in self.network.parameters())

    def step(self, images: Tensor, seen: int) -> None:
        """Train on one batch; `seen` are the images of the batches before."""
        use_bf16 = self.has_bf16 and self.network.training_dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16, enabled=use_bf16):
            loss = self.network.loss(images)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        half_lives = len(images) / (HALF_LIFE_FRACTION * (seen + len(images)))
        with torch.no_grad():
            for ours, theirs in zip(self.average.parameters(), self.network.parameters(), strict=True):
                ours.lerp_(theirs, 1 - 0.5**half_lives)

    @torch.no_grad()
    def sample(self, count: int, steps: int, random: torch.Generator) -> Tensor:
        """Return images [count, channel, height, width] in [-1, 1]."""
        noise = torch.randn(count, *self.shape, generator=random)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.has_bf16):
            return self.average.sample(noise, steps).float()
