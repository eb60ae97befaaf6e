"""The exponential moving average of the generator's weights."""

import torch
from torch import nn


@torch.no_grad()
def update_average(average: nn.Module, live: nn.Module, weight: float | torch.Tensor) -> None:
    """Move the average's parameters toward the live network's by `weight`; copy its buffers (batch statistics, counters)."""
    for kept, new in zip(average.parameters(), live.parameters(), strict=True):
        kept.lerp_(new, weight)
    for kept, new in zip(average.buffers(), live.buffers(), strict=True):
        kept.copy_(new)
