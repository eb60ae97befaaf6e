"""Interpolation of latents: between two points, between four corners, through many stops.

Knows no network: latents in, latents out, and the weight of each point in them. `models.sampling.generate_pixels`
generates the images.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.latents.points import Latent, Point, point_latent
from cardigan.shapes import Latents

Times = Float[Tensor, " times"]
LatentPath = Float[Tensor, "times latent"]
PointWeights = Float[Tensor, "latents points"]
"""How much of each point is in each latent."""
MAX_FRAMES = 10_000
MIN_ANGLE = 1e-5
"""Radians. Vectors this close to parallel are interpolated linearly. Vectors this close to opposite span no plane."""


def point_latents(config: Config, points: Sequence[Point]) -> Latents:
    """Return one z per point (`point_latent`). Raises CardiganError for an empty list or an invalid point."""
    if not points:
        raise CardiganError("No seeds were given: expected at least one.")
    return torch.cat([point_latent(config, point) for point in points])


def lerp(a: Latent, b: Latent, t: Times) -> LatentPath:
    """Return (1 - t) a + t b, one row per t."""
    return torch.lerp(a, b, t[:, None].to(a))


def slerp(a: Latent, b: Latent, t: Times) -> LatentPath:
    """Return the points at t on the arc from a to b, one row per t.

    Directions are interpolated by slerp (Shoemake, SIGGRAPH 1985, section 3.3), lengths linearly. Normal latents lie
    near a sphere, and a straight line would pass through its inside (arXiv:1609.04468, section 2). If one latent is 0
    or both have the same direction, the result is linear. If they are opposite, the arc passes through the axis of a's
    smallest component.
    """
    first, last, times = a.double(), b.double(), t.double()[:, None]
    lengths = first.norm(), last.norm()
    if min(lengths) == 0 or a.shape[1] == 1:
        return lerp(a, b, t)
    unit_a, unit_b = first / lengths[0], last / lengths[1]
    # Exact near 0 and near pi, where arccos is not.
    angle = 2 * torch.atan2((unit_a - unit_b).norm(), (unit_a + unit_b).norm())
    if angle < MIN_ANGLE:
        return lerp(a, b, t)
    if torch.pi - angle < MIN_ANGLE:
        plane_vector = torch.zeros_like(unit_a)
        plane_vector[0, unit_a[0].abs().argmin()] = 1
    else:
        plane_vector = unit_b
    orthogonal = torch.nn.functional.normalize(plane_vector - (plane_vector * unit_a).sum() * unit_a)
    arc = torch.cos(times * angle) * unit_a + torch.sin(times * angle) * orthogonal
    path = (arc * torch.lerp(*lengths, times)).to(a.dtype)
    return torch.where(t[:, None] == 0, a, torch.where(t[:, None] == 1, b, path))


def interpolate(config: Config, a: Latent, b: Latent, t: Times, spherical: bool | None = None) -> LatentPath:
    """Return slerp or lerp. Default: slerp for normal latents, lerp for uniform ones."""
    use_slerp = config.latent.distribution == "normal" if spherical is None else spherical
    return slerp(a, b, t) if use_slerp else lerp(a, b, t)


def interpolate_corners(config: Config, corners: Float[Tensor, "4 latent"], x: float, y: float) -> Latent:
    """Return the z at (x, y), each in 0..1, between the corners top-left, top-right, bottom-left and bottom-right."""
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise CardiganError(f"The position is ({x}, {y}): expected both from 0 (left, top) to 1 (right, bottom).")
    t_x, t_y = torch.tensor([x], dtype=torch.float64), torch.tensor([y], dtype=torch.float64)
    top, bottom = (
        interpolate(config, corners[0:1], corners[1:2], t_x),
        interpolate(config, corners[2:3], corners[3:4], t_x),
    )
    return interpolate(config, top, bottom, t_y)


def interpolation_grid_latents(
    config: Config, corners: Float[Tensor, "4 latent"], x: float, y: float, grid: int, extent: float = 0.5
) -> Latents:
    """Return the z at the positions of `grid_positions` in that square."""
    positions = grid_positions(x, y, grid, extent)
    return torch.cat([interpolate_corners(config, corners, *position) for position in positions])


def corner_weights(positions: Sequence[tuple[float, float]]) -> PointWeights:
    """Return the bilinear weights of the four corners at each position."""
    x, y = torch.tensor(positions, dtype=torch.float64).T
    return torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], dim=1)


def grid_positions(x: float, y: float, grid: int, extent: float = 0.5) -> list[tuple[float, float]]:
    """Return grid x grid positions in a square with sides of 1, row by row, spread over `extent` around (x, y).

    Positions outside the square are clipped to its edge.
    """
    if not 1 <= grid <= 16 or not 0 <= extent <= 1:
        raise CardiganError(f"The grid is {grid} and its extent {extent}: expected 1..16 and 0..1.")
    offsets = [0.0] if grid == 1 else [extent * (index / (grid - 1) - 0.5) for index in range(grid)]
    return [
        (min(1.0, max(0.0, x + offset_x)), min(1.0, max(0.0, y + offset_y)))
        for offset_y in offsets
        for offset_x in offsets
    ]


def walk_latents(
    config: Config, stops: Float[Tensor, "stops latent"], frames: int, spherical: bool | None = None, loop: bool = False
) -> Latents:
    """Return the z of each frame of a walk through all stops. Each stop is a frame.

    `spherical` selects slerp or lerp; by default it depends on the distribution. With `loop`, the walk continues from
    the last stop to the first, which is not repeated at the end. Raises CardiganError for fewer than two stops, or
    fewer frames than stops.
    """
    count = len(stops)
    segments = [
        interpolate(config, stops[leg : leg + 1], stops[(leg + 1) % count : (leg + 1) % count + 1], times, spherical)
        for leg, times in enumerate(_segment_times(count, frames, loop))
    ]
    return torch.cat(segments if loop else [*segments, stops[-1:]])


def walk_weights(count: int, frames: int, loop: bool = False) -> PointWeights:
    """Return the weights of `count` stops in each frame of `walk_latents`, linear between two stops."""
    stops = torch.eye(count, dtype=torch.float64)
    segments = [
        lerp(stops[leg : leg + 1], stops[(leg + 1) % count : (leg + 1) % count + 1], times)
        for leg, times in enumerate(_segment_times(count, frames, loop))
    ]
    return torch.cat(segments if loop else [*segments, stops[-1:]])


def _segment_times(count: int, frames: int, loop: bool) -> list[Times]:
    """Return, for each pair of neighboring stops, the times of its frames from 0 (included) to 1 (excluded)."""
    if count < 2:
        raise CardiganError("A walk with a single stop: give at least 2 seeds.")
    if not count <= frames <= MAX_FRAMES:
        raise CardiganError(f"A walk through {count} stops has {frames} frames: expected {count}..{MAX_FRAMES:,}.")
    num_segments = count if loop else count - 1
    first_frames = [round(leg * (frames if loop else frames - 1) / num_segments) for leg in range(num_segments + 1)]
    lengths = [last - first for first, last in pairwise(first_frames)]
    return [torch.arange(length, dtype=torch.float64) / length for length in lengths]
