"""Ways through the space of latents: between two, between four, through many.

Knows no network: latents in, latents out. Pictures of them are drawn by `models.snapshot.generate_pixels`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.latents.points import Latent, Point, point_latent
from cardigan.shapes import Latents

Times = Float[Tensor, " times"]
LatentPath = Float[Tensor, "times latent"]
MAX_FRAMES = 10_000
MIN_ANGLE = 1e-5
"""Radians from parallel below which an arc is a line, and from opposite below which it has no plane of its own."""


def point_latents(config: Config, points: Sequence[Point]) -> Latents:
    """Return one z a seed, what `cardigan sample --seeds` draws its picture from, or a z itself. Raises CardiganError for no or a wrong one."""
    if not points:
        raise CardiganError("No seeds were given: expected at least one.")
    return torch.cat([point_latent(config, point) for point in points])


def lerp(a: Latent, b: Latent, t: Times) -> LatentPath:
    """Return (1 - t) a + t b, a row for each t."""
    return torch.lerp(a, b, t[:, None].to(a))


def slerp(a: Latent, b: Latent, t: Times) -> LatentPath:
    """Return the points at t on the arc from a to b: directions by slerp (Shoemake, SIGGRAPH 1985, section 3.3), lengths linearly.

    Normal latents lie near a sphere, through whose inside a straight line would cut (arXiv:1609.04468, section 2). Where one is 0 or both point
    the same way, the arc is the line; where they are opposite, it goes through the axis that is the least of a.
    """
    first, last, times = a.double(), b.double(), t.double()[:, None]
    lengths = first.norm(), last.norm()
    if min(lengths) == 0 or a.shape[1] == 1:
        return lerp(a, b, t)
    unit_a, unit_b = first / lengths[0], last / lengths[1]
    angle = 2 * torch.atan2(
        (unit_a - unit_b).norm(), (unit_a + unit_b).norm()
    )  # exact near 0 and near pi, where arccos is not
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
    """Return the way that suits the latents' distribution: an arc for normal ones, a line for uniform ones, unless one is asked for."""
    use_slerp = config.latent.distribution == "normal" if spherical is None else spherical
    return slerp(a, b, t) if use_slerp else lerp(a, b, t)


def interpolate_corners(config: Config, corners: Float[Tensor, "4 latent"], x: float, y: float) -> Latent:
    """Return the z at (x, y), each 0..1, of a square whose corners are top-left, top-right, bottom-left, bottom-right."""
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise CardiganError(f"The place is ({x}, {y}): expected both from 0 (left, top) to 1 (right, bottom).")
    t_x, t_y = torch.tensor([x], dtype=torch.float64), torch.tensor([y], dtype=torch.float64)
    top, bottom = (
        interpolate(config, corners[0:1], corners[1:2], t_x),
        interpolate(config, corners[2:3], corners[3:4], t_x),
    )
    return interpolate(config, top, bottom, t_y)


def interpolation_grid_latents(
    config: Config, corners: Float[Tensor, "4 latent"], x: float, y: float, grid: int, extent: float = 0.5
) -> Latents:
    """Return grid x grid places of that square, row by row, spread `extent` around (x, y); those that would be outside lie on its edge."""
    if not 1 <= grid <= 16 or not 0 <= extent <= 1:
        raise CardiganError(f"The grid is {grid} and its span {extent}: expected 1..16 and 0..1.")
    offsets = [0.0] if grid == 1 else [extent * (index / (grid - 1) - 0.5) for index in range(grid)]
    positions = [
        (min(1.0, max(0.0, x + offset_x)), min(1.0, max(0.0, y + offset_y)))
        for offset_y in offsets
        for offset_x in offsets
    ]
    return torch.cat([interpolate_corners(config, corners, *position) for position in positions])


def walk_latents(
    config: Config, stops: Float[Tensor, "stops latent"], frames: int, spherical: bool | None = None, loop: bool = False
) -> Latents:
    """Return the z of each frame of a walk through all stops, each of which is a frame of its own.

    `spherical` asks for arcs or lines; None takes what suits the distribution. With `loop` it walks on from the last stop to the first, which
    is not repeated at the end. Raises CardiganError for fewer than two stops, or fewer frames than stops.
    """
    count = len(stops)
    if count < 2:
        raise CardiganError("A walk has a single stop: give at least 2 seeds to walk between.")
    if not count <= frames <= MAX_FRAMES:
        raise CardiganError(
            f"A walk through {count} stops is to have {frames} frames: expected {count}..{MAX_FRAMES:,}."
        )
    num_segments = count if loop else count - 1
    frame_positions = [
        round(segment * (frames if loop else frames - 1) / num_segments) for segment in range(num_segments + 1)
    ]
    segments = []
    for leg, (first_frame, last_frame) in enumerate(zip(frame_positions, frame_positions[1:], strict=False)):
        start, stop = stops[leg : leg + 1], stops[(leg + 1) % count : (leg + 1) % count + 1]
        segments.append(
            interpolate(
                config,
                start,
                stop,
                torch.arange(last_frame - first_frame, dtype=torch.float64) / (last_frame - first_frame),
                spherical,
            )
        )
    return torch.cat(segments if loop else [*segments, stops[-1:]])
