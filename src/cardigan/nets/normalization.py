"""Normalization layers and weight initialization, by the names in `NetworkConfig`."""

from typing import Literal

from torch import nn

BATCH_NORM_EPS = 1e-5 + 1e-12
"""The batch-normalization epsilon of the MXNet tutorial."""


def normalization(kind: Literal["none", "batch", "batch-no-scale"], channels: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    norm = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)
    if kind == "batch-no-scale":
        norm.weight.requires_grad_(False)
    return norm


def initialize_weights(network: nn.Module, kind: Literal["dcgan", "torch"]) -> None:
    """Initialize the weights: `dcgan` is Normal(0, 0.02^2) for every convolution; `torch` keeps the network's own
    initial weights."""
    for module in network.modules():
        if kind == "dcgan" and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            for parameter in module.parameters():  # of a weight that is computed, what it is computed from
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.02)
                else:
                    nn.init.zeros_(parameter)
