"""Parts of a discriminator that are never trained, such as a pretrained network or random projections.

Knows no network.
"""

import copy
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from cardigan.errors import CardiganError


class Frozen(nn.Module):
    """Wraps a network that keeps the weights it is given.

    It has no parameters and no submodules: optimizers, `.train()` and parameter counts do not see it. It stays in
    evaluation mode, follows its owner to a device, and computes in bf16 under autocast, with weights that are
    rounded once. Gradients flow through it to its input, twice where the network's layers allow it. A checkpoint has
    the SHA-256 of its weights instead of the weights, and a network with other ones refuses to load it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # Inside a list, so that PyTorch does not register the network as a submodule.
        self._networks: list[nn.Module] = [network.eval().requires_grad_(False)]
        self._rounded: list[nn.Module] = []
        self._digest = b""
        self._digest_tensor = torch.empty(0, dtype=torch.uint8)

    @property
    def network(self) -> nn.Module:
        """The network, in fp32."""
        return self._networks[0]

    def forward(self, *inputs: Tensor) -> Any:
        if inputs[0].is_meta:  # only counted, not computed
            return copy.deepcopy(self.network).to("meta")(*inputs)
        device_type = inputs[0].device.type
        dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else torch.float32
        with torch.autocast(device_type, enabled=False):
            return self._in(dtype)(*(each.to(dtype) if each.is_floating_point() else each for each in inputs))

    def digest(self) -> bytes:
        """Return the SHA-256 of the names, shapes and weights; zeros if the weights have no memory (`meta`)."""
        if any(value.is_meta for value in self.network.state_dict().values()):
            return bytes(sha256().digest_size)
        if not self._digest:
            digest = sha256()
            for name, value in sorted(self.network.state_dict().items()):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
            self._digest = digest.digest()
        return self._digest

    def get_extra_state(self) -> Tensor:
        """Return the digest as 32 bytes: what a checkpoint has in place of the weights."""
        if not len(self._digest_tensor):
            self._digest_tensor = torch.frombuffer(bytearray(self.digest()), dtype=torch.uint8)
        return self._digest_tensor

    def set_extra_state(self, state: Tensor) -> None:
        """Compare with the digest of a checkpoint; raises CardiganError if it differs."""
        if bytes(state.cpu().tolist()) != self.digest():
            raise CardiganError(
                "The frozen part of the network has other weights here than in the checkpoint, so the run would go on "
                "with another network: install the version of the pretrained weights that it was started with."
            )

    def _in(self, dtype: torch.dtype) -> nn.Module:
        if dtype == torch.float32:
            return self.network
        if not self._rounded or next(self._rounded[0].parameters()).dtype != dtype:
            self._rounded = [copy.deepcopy(self.network).to(dtype)]
        return self._rounded[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        """Follow the owner to another device. Its type and memory layout are the frozen network's own business."""
        device = fn(torch.empty(0, device=next(self.network.parameters()).device)).device
        self.network.to(device)
        self._rounded = []
        return super()._apply(fn, recurse)
