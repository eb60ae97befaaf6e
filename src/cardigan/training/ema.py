"""The exponential moving average of the generator's weights."""

import torch
from torch import nn


@torch.no_grad()
def update_ema(ema_model: nn.Module, model: nn.Module, weight: float | torch.Tensor) -> None:
    """Move the EMA parameters toward the model's by `weight`, and copy its buffers (batch statistics, counters)."""
    for ema_tensor, tensor in zip(ema_model.parameters(), model.parameters(), strict=True):
        ema_tensor.lerp_(tensor, weight)
    for ema_tensor, tensor in zip(ema_model.buffers(), model.buffers(), strict=True):
        ema_tensor.copy_(tensor)
