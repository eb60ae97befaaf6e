"""The original generators in plain PyTorch, and a writer of MXNet's documented `.params` format."""

import struct

import torch
from torch import nn

DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.uint8: 3, torch.int32: 4}


class DcganExample(nn.Module):
    """PyTorch's DCGAN example with random batch statistics. With another eps, the MXNet tutorial's generator."""

    def __init__(
        self,
        latent: int = 100,
        width: int = 64,
        channels: int = 3,
        doublings: int = 4,
        eps: float = 1e-5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        widths = [width * min(2**step, 8) for step in range(doublings)][::-1]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, 1, 0, bias=False)]
        for in_channels, out_channels in zip(widths, [*widths[1:], channels], strict=True):
            layers += [
                nn.BatchNorm2d(in_channels, eps=eps),
                nn.ReLU(True),
                nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=False),
            ]
        self.main = nn.Sequential(*layers, nn.Tanh())
        random = torch.Generator().manual_seed(seed)
        for name, tensor in self.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(
                    torch.rand(tensor.shape, generator=random) + 1e-6
                )  # some are small enough for eps to matter
            elif tensor.is_floating_point():
                tensor.normal_(std=0.1, generator=random).add_(
                    1.0 if tensor.dim() == 1 and name.endswith("weight") else 0.0
                )
        self.eval()

    @torch.no_grad()
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.main(z[:, :, None, None])


def mxnet_arrays(original: DcganExample) -> dict[str, torch.Tensor]:
    """Return a generator's tensors with the tutorial's names, as Module.save_params writes them."""
    state, arrays = original.state_dict(), {}
    layer = 1
    while f"main.{3 * layer - 3}.weight" in state:
        arrays[f"arg:g{layer}_weight"] = state[f"main.{3 * layer - 3}.weight"]
        for kind, mxnet_name, torch_name in (
            *(("arg", "gamma", "weight"), ("arg", "beta", "bias")),
            *(("aux", "moving_mean", "running_mean"), ("aux", "moving_var", "running_var")),
        ):
            if f"main.{3 * layer - 2}.{torch_name}" in state:
                arrays[f"{kind}:gbn{layer}_{mxnet_name}"] = state[f"main.{3 * layer - 2}.{torch_name}"]
        layer += 1
    return arrays


def params_bytes(arrays: dict[str, torch.Tensor], version: int = 2) -> bytes:
    """Return a `.params` file: 0x112, reserved bytes, arrays, names.

    Version 0 has no magic number and 4-byte dimensions.
    """
    parts = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    for tensor in arrays.values():
        if version:
            parts.append(struct.pack("<I", 0xF993FAC7 + version))
        if version >= 2:
            parts.append(struct.pack("<i", 0))  # dense
        parts.append(struct.pack(f"<I{tensor.dim()}{'q' if version else 'I'}", tensor.dim(), *tensor.shape))
        parts.append(struct.pack("<iii", 1, 0, DTYPES[tensor.dtype]))  # cpu(0)
        parts.append(tensor.contiguous().numpy().tobytes())
    parts.append(struct.pack("<Q", len(arrays)))
    parts += [struct.pack("<Q", len(name)) + name.encode() for name in arrays]
    return b"".join(parts)
