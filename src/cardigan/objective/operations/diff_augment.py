"""The operations of DiffAugment (arXiv:2006.10738, section 3): each one changes the images itself."""

import torch

from cardigan.objective.operations.color import split_alpha
from cardigan.objective.operations.draws import Draws, is_applied
from cardigan.objective.operations.resampling import gather_weighted
from cardigan.shapes import Images, Scalar


def color(images: Images, draws: Draws, p: Scalar) -> Images:
    """Add [-0.5, 0.5) to brightness, then multiply saturation by [0, 2) and contrast around the mean by [0.5, 1.5)."""
    brightness_shift, saturation_change, contrast_change = (
        (is_applied(draws, p) * (draws[:, i] - 0.5))[:, None, None, None] for i in (1, 2, 3)
    )
    color_channels, alpha = split_alpha(images)
    color_channels = color_channels + brightness_shift
    color_channels = (1 + 2 * saturation_change) * color_channels - 2 * saturation_change * color_channels.mean(
        1, keepdim=True
    )
    color_channels = (1 + contrast_change) * color_channels - contrast_change * color_channels.mean(
        (1, 2, 3), keepdim=True
    )
    return torch.cat([color_channels, alpha], dim=1)


def translation(images: Images, draws: Draws, p: Scalar) -> Images:
    """Shift by whole pixels, up to 1/8 of the width and height. Empty areas are 0, which is gray, as in the paper."""
    axes = []
    for i, size in ((1, images.shape[2]), (2, images.shape[3])):
        max_shift = int(size / 8 + 0.5)
        offset = is_applied(draws, p) * (torch.floor(draws[:, i] * (2 * max_shift + 1)) - max_shift)
        axes.append(torch.arange(size, device=draws.device) - offset.long()[:, None])
    down, across = axes[0][:, :, None], axes[1][:, None, :]
    height, width = images.shape[2:]
    inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
    source = down.clamp(0, height - 1) * width + across.clamp(0, width - 1)
    return gather_weighted(images, source.flatten(1)[:, None], inside.flatten(1)[:, None].to(draws.dtype))


def cutout(images: Images, draws: Draws, p: Scalar) -> Images:
    """Set a rectangle of half the height and width to 0. Its center is inside the image, its edges may not be."""
    covered = []
    for i, size in ((1, images.shape[2]), (2, images.shape[3])):
        hole_size = int(size / 2 + 0.5)
        start = torch.floor(draws[:, i] * (size + 1 - hole_size % 2)) - hole_size // 2
        offset = torch.arange(size, device=draws.device) - start[:, None]
        covered.append((offset >= 0) & (offset < hole_size))
    mask = covered[0][:, :, None] & covered[1][:, None, :] & is_applied(draws, p)[:, None, None]
    return images.masked_fill(mask[:, None], 0.0)
