"""Energy at the highest frequencies of an image, where the checkerboards of strided deconvolutions lie.

Odena et al. 2016, Deconvolution and Checkerboard Artifacts, shows them. Knows no network.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.metrics.features import to_rgb
from cardigan.shapes import Pixels


def nyquist_energies(pixels: Pixels) -> Float[Tensor, " image"]:
    """Return each image's squared amplitude at the Nyquist frequency of either axis, averaged over the channels.

    In gray levels squared, per pixel. RGBA is composited on white. Sides are even, or lose their last row or column.
    """
    images = (to_rgb(pixels) if pixels.shape[1] == 4 else pixels).double()
    height, width = (side // 2 * 2 for side in images.shape[2:])
    images = images[:, :, :height, :width]
    row_signs, column_signs = (1 - 2 * (torch.arange(side) % 2).double() for side in (height, width))
    along_rows = (images * row_signs[:, None]).sum(dim=2)
    along_columns = (images * column_signs).sum(dim=3)
    corner = (along_rows * column_signs).sum(dim=2).square()  # on both axes, so both sums have it
    # The sums over the other axis's frequencies, by Parseval's theorem.
    edges = width * along_rows.square().sum(dim=2) + height * along_columns.square().sum(dim=2)
    return (edges - corner).mean(dim=1) / (height * width) ** 2
