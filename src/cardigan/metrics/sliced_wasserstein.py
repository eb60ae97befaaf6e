"""Sliced Wasserstein distance between small neighborhoods of images, at each scale of a Laplacian pyramid.

Karras et al. 2018, arXiv:1710.10196, section 5. It needs no pretrained network.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import conv2d, pad

from cardigan.errors import CardiganError
from cardigan.metrics.features import to_rgb
from cardigan.rng import stream
from cardigan.shapes import Pixels

PATCH_SIDE, PATCHES_PER_IMAGE, NUM_PROJECTIONS, MIN_SIDE = 7, 128, 512, 16
"""As published: 7x7 neighborhoods, 128 of each image and scale, 512 directions, scales down to 16 pixels."""
MAX_IMAGES = 2_048
NUM_GROUPS = 10
"""Groups of images for the standard error (delete-a-group jackknife)."""
PROJECTIONS_AT_A_TIME = 32
"""Also the number of directions that the standard error is estimated from."""
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
Maps = Float[Tensor, "n channel height width"]
Patches = Float[Tensor, "image patch value"]
Projections = Float[np.ndarray, "direction image patch"]


def sliced_wasserstein(
    samples: Pixels, real: UInt8[Tensor, "real channel height width"], seed: int = 0
) -> dict[int, tuple[float, float]]:
    """Return the distance times 1,000 and its standard error, by the shorter side of each scale in pixels.

    Takes as many images of both sides, at most `MAX_IMAGES`; with fewer images, equal distributions are farther apart,
    so only distances of equal counts can be compared. RGBA is composited on white. Raises CardiganError for fewer than
    `NUM_GROUPS` images.
    """
    count = num_compared(samples, real)
    if count == 0:
        raise CardiganError(
            f"{min(len(samples), len(real))} images to compare: expected at least {NUM_GROUPS} samples and real images."
        )
    pyramids = zip(_pyramid(_as_maps(samples[:count])), _pyramid(_as_maps(real[:count])), strict=True)
    distances = {}
    for scale, (fakes, reals) in enumerate(pyramids):
        rng = stream(seed, "sliced-wasserstein", scale)
        sides = (_normalized(_patches(maps, rng)) for maps in (fakes, reals))
        distances[min(fakes.shape[2:])] = _distance_with_error(*sides, rng=rng)
    return distances


def num_compared(samples: Pixels, real: UInt8[Tensor, "real channel height width"]) -> int:
    """Return how many images of each side are compared: as many as there are, in groups of equal size."""
    return min(len(samples), len(real), MAX_IMAGES) // NUM_GROUPS * NUM_GROUPS


def _as_maps(pixels: Pixels) -> Float[Tensor, "n _ height width"]:
    return (to_rgb(pixels) if pixels.shape[1] == 4 else pixels).float()


def _pyramid(maps: Maps) -> Iterator[Maps]:
    """Yield the scales, finest first: what each loses when it is halved, and the coarsest as it is."""
    while min(maps.shape[2:]) >= 2 * MIN_SIDE:
        smaller = _smooth(maps)[:, :, ::2, ::2]
        yield maps - _enlarge(smaller, maps.shape[2], maps.shape[3])
        maps = smaller
    yield maps


def _smooth(maps: Maps) -> Maps:
    """Return maps filtered by a 5x5 binomial kernel, reflected at the border."""
    row = maps.new_tensor(BINOMIAL)
    channels = maps.shape[1]
    kernel = (row[:, None] * row).expand(channels, 1, 5, 5)
    return conv2d(pad(maps, (2, 2, 2, 2), "reflect"), kernel, groups=channels)


def _enlarge(maps: Maps, height: int, width: int) -> Float[Tensor, "n channel new_height new_width"]:
    spread = maps.new_zeros(*maps.shape[:2], height, width)
    spread[:, :, ::2, ::2] = maps
    return 4 * _smooth(spread)


def _patches(maps: Maps, rng: torch.Generator) -> Patches:
    """Return neighborhoods at random places, as [images, patches, channels x 49]."""
    count, _, height, width = maps.shape
    tops = torch.randint(height - PATCH_SIDE + 1, (count, PATCHES_PER_IMAGE), generator=rng)
    lefts = torch.randint(width - PATCH_SIDE + 1, (count, PATCHES_PER_IMAGE), generator=rng)
    offsets = torch.arange(PATCH_SIDE)
    rows = (tops[..., None] + offsets)[..., :, None]
    columns = (lefts[..., None] + offsets)[..., None, :]
    image_index = torch.arange(count)[:, None, None, None]
    patches = maps.permute(0, 2, 3, 1)[image_index, rows, columns]  # [image, patch, row, column, channel]
    return patches.permute(0, 1, 4, 2, 3).flatten(2)


def _normalized(patches: Patches) -> Patches:
    """Return patches with mean 0 and standard deviation 1 in each channel."""
    by_channel = patches.unflatten(2, (-1, PATCH_SIDE**2))
    mean = by_channel.mean(dim=(0, 1, 3), keepdim=True)
    deviation = by_channel.std(dim=(0, 1, 3), keepdim=True).clamp_min(1e-8)
    return ((by_channel - mean) / deviation).flatten(2)


def _distance_with_error(samples: Patches, real: Patches, rng: torch.Generator) -> tuple[float, float]:
    directions = torch.randn(samples.shape[2], NUM_PROJECTIONS, generator=rng)
    directions /= directions.norm(dim=0)
    total, error = 0.0, 0.0
    for number, some in enumerate(directions.split(PROJECTIONS_AT_A_TIME, dim=1)):
        projected = [(side @ some).permute(2, 0, 1).contiguous().numpy() for side in (samples, real)]
        total += _mean_gap(*projected) * some.shape[1]
        if number == 0:
            error = _jackknife_error(*projected)
    return 1000 * total / NUM_PROJECTIONS, 1000 * error


def _jackknife_error(samples: Projections, real: Projections) -> float:
    """Return the standard error of the mean gap by leaving out each group of images in turn."""
    groups = np.arange(samples.shape[1]) % NUM_GROUPS
    gaps = np.array([_mean_gap(samples[:, groups != group], real[:, groups != group]) for group in range(NUM_GROUPS)])
    return float(np.sqrt((NUM_GROUPS - 1) / NUM_GROUPS * np.square(gaps - gaps.mean()).sum()))


def _mean_gap(samples: Projections, real: Projections) -> float:
    """Return the mean over directions of the Wasserstein distance of two sets of as many numbers."""
    # NumPy sorts floats many times faster than PyTorch does.
    sides = [np.sort(side.reshape(len(side), -1), axis=1) for side in (samples, real)]
    return float(np.abs(sides[0] - sides[1]).mean(dtype=np.float64))
