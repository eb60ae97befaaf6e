"""Upsampling by two and a 3x3 convolution in one operation, without checkerboards.

Knows no network.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.parametrize import register_parametrization

from cardigan.nets.convolution import FastConv2d, FastConvTranspose2d
from cardigan.nets.stages import Stage

SmallMaps = Float[Tensor, "batch channel height width"]
LargeMaps = Float[Tensor, "batch new_channel new_height new_width"]
Kernel3x3 = Float[Tensor, "input output 3 3"]
Kernel4x4 = Float[Tensor, "input output 4 4"]


class UpsampleConv2d(nn.Module):
    """Nearest-neighbor upsampling to a stage's large size, then a 3x3 convolution.

    Where both sides are exactly doubled, the two are one transposed 4x4 convolution of stride 2, with 4/9 of the
    multiply-adds. A pixel of the result is never written by more weights than its neighbor, so there is no
    checkerboard (Odena et al. 2016, Deconvolution and Checkerboard Artifacts).
    """

    def __init__(self, in_channels: int, out_channels: int, stage: Stage, bias: bool = False) -> None:
        super().__init__()
        self.stage = stage
        self.is_doubling = stage.stride == (2, 2) and stage.output_padding == (0, 0)
        if self.is_doubling:
            self.conv: nn.Module = FastConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=bias)
            register_parametrization(self.conv, "weight", BoxKernel())
        else:
            self.conv = FastConv2d(in_channels, out_channels, 3, padding=1, bias=bias)

    @property
    def kernel(self) -> Tensor:
        """The learned 3x3 kernel: [input, output, 3, 3] where sides are doubled, else [output, input, 3, 3]."""
        return self.conv.get_parameter("parametrizations.weight.original" if self.is_doubling else "weight")

    def forward(self, x: SmallMaps) -> LargeMaps:
        return self.conv(x if self.is_doubling else interpolate(x, size=self.stage.large_size, mode="nearest"))


class BoxKernel(nn.Module):
    """Computes a transposed 4x4 kernel of stride 2 from the 3x3 kernel that follows a nearest-neighbor upsampling.

    It is the 3x3 kernel, flipped, convolved with a 2x2 box of ones: each small pixel stands for four large ones.
    """

    def forward(self, kernel: Kernel3x3) -> Kernel4x4:
        flipped = kernel.flip(2, 3)
        rows = torch.cat([flipped[:, :, :1], flipped[:, :, 1:] + flipped[:, :, :-1], flipped[:, :, -1:]], dim=2)
        return torch.cat([rows[..., :1], rows[..., 1:] + rows[..., :-1], rows[..., -1:]], dim=3)

    def right_inverse(self, kernel: Kernel4x4) -> Kernel3x3:
        """Return a 3x3 kernel with PyTorch's initial weights of a convolution, uniform within 1/sqrt(fan-in)."""
        inputs, outputs = kernel.shape[:2]
        return torch.empty(inputs, outputs, 3, 3).uniform_(-((9 * inputs) ** -0.5), (9 * inputs) ** -0.5)
