"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957): every weight matrix is divided by its largest singular value.

Knows no network. A normalised layer keeps its own weight as `parametrizations.weight.original`.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.parametrize import register_parametrization

INITIAL_POWER_ITERATIONS = 10
"""Steps of power iteration before the first pass, so that the first gradients are not those of a network many times too steep."""


def apply_spectral_norm(network: nn.Module) -> None:
    """Divide the weight of every convolution, linear layer and embedding by its largest singular value, whenever it is used from now on."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
            outputs = 1 if isinstance(module, nn.ConvTranspose2d) else 0
            register_parametrization(module, "weight", SpectralNorm(module.weight, outputs))


class SpectralNorm(nn.Module):
    """W / sigma(W) by Algorithm 1 of the paper: one step of power iteration in a training pass, none in evaluation.

    `u` is the left singular vector so far; what a pass needs of it for its backward is no view of it, so a network may be passed again before.
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
    """Return a context without autocast; the meta device has none."""
    return torch.autocast(device.type, enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext()
