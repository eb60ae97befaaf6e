"""Spectral normalization (Miyato et al. 2018, arXiv:1802.05957): divide each weight by its largest singular value.

A normalized layer keeps its unnormalized weight as `parametrizations.weight.original`. Knows no network.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.parametrize import register_parametrization

INITIAL_POWER_ITERATIONS = 10
"""Power iterations before the first forward pass. Without them the first weights and gradients are far too large."""


def apply_spectral_norm(network: nn.Module) -> None:
    """Apply spectral normalization to the weight of every convolution, linear layer and embedding."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
            outputs = 1 if isinstance(module, nn.ConvTranspose2d) else 0
            register_parametrization(module, "weight", SpectralNorm(module.weight, outputs))


class SpectralNorm(nn.Module):
    """W / sigma(W) by Algorithm 1 of the paper: one power iteration per training pass, none in evaluation mode.

    `u` is the current estimate of the left singular vector. The backward pass keeps no view of it, so the network may
    run forward several times before a backward pass.
    """

    u: Tensor

    def __init__(self, weight: Tensor, output_axis: int) -> None:
        super().__init__()
        self.output_axis = output_axis
        self.register_buffer("u", normalize(torch.randn(weight.shape[output_axis]), dim=0))
        for _ in range(0 if weight.is_meta else INITIAL_POWER_ITERATIONS):
            self._singular_vectors(self._matrix(weight.detach()))

    def forward(self, weight: Tensor) -> Tensor:
        with _autocast_disabled(weight.device):
            matrix = self._matrix(weight)
            u, v = self._singular_vectors(matrix.detach())
            return weight / torch.dot(u, matrix @ v)

    def _matrix(self, weight: Tensor) -> Float[Tensor, "output input"]:
        return weight.transpose(0, self.output_axis).flatten(1)

    @torch.no_grad()
    def _singular_vectors(
        self, matrix: Float[Tensor, "output input"]
    ) -> tuple[Float[Tensor, " output"], Float[Tensor, " input"]]:
        v = normalize(matrix.t() @ self.u, dim=0)
        if not self.training:
            return self.u.clone(), v
        u = normalize(matrix @ v, dim=0)
        self.u.copy_(u)
        return u, v


def _autocast_disabled(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast. The meta device has no autocast."""
    return torch.autocast(device.type, enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext()
