"""Ways through the space of latents: between two, between four, through many.

Knows no network: latents in, latents out. Pictures of them are drawn by `run.snapshot.draw_pixels`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.explore.points import Latent, Point, latent_of
from cardigan.shapes import Latents

Times = Float[Tensor, " times"]
Way = Float[Tensor, "times latent"]
MOST_FRAMES = 10_000
STRAIGHT = 1e-5
"""Radians from parallel below which an arc is a line, and from opposite below which it has no plane of its own."""


def latents_of(config: Config, points: Sequence[Point]) -> Latents:
    """Return one z a seed, what `cardigan sample --seeds` draws its picture from, or a z itself. Raises CardiganError for no or a wrong one."""
    if not points:
        raise CardiganError("No seeds were given: expected at least one.")
    return torch.cat([latent_of(config, point) for point in points])


def linear(a: Latent, b: Latent, t: Times) -> Way:
    """Return (1 - t) a + t b, a row for each t."""
    return torch.lerp(a, b, t[:, None].to(a))


def spherical(a: Latent, b: Latent, t: Times) -> Way:
    """Return the points at t on the arc from a to b: directions by slerp (Shoemake, SIGGRAPH 1985, section 3.3), lengths linearly.

    Normal latents lie near a sphere, through whose inside a straight line would cut (arXiv:1609.04468, section 2). Where one is 0 or both point
    the same way, the arc is the line; where they are opposite, it goes through the axis that is the least of a.
    """
    first, last, times = a.double(), b.double(), t.double()[:, None]
    lengths = first.norm(), last.norm()
    if min(lengths) == 0 or a.shape[1] == 1:
        return linear(a, b, t)
    one, other = first / lengths[0], last / lengths[1]
    angle = 2 * torch.atan2((one - other).norm(), (one + other).norm())  # exact near 0 and near pi, where arccos is not
    if angle < STRAIGHT:
        return linear(a, b, t)
    if torch.pi - angle < STRAIGHT:
        aside = torch.zeros_like(one)
        aside[0, one[0].abs().argmin()] = 1
    else:
        aside = other
    across = torch.nn.functional.normalize(aside - (aside * one).sum() * one)
    arc = torch.cos(times * angle) * one + torch.sin(times * angle) * across
    way = (arc * torch.lerp(*lengths, times)).to(a.dtype)
    return torch.where(t[:, None] == 0, a, torch.where(t[:, None] == 1, b, way))


def between(config: Config, a: Latent, b: Latent, t: Times, on_sphere: bool | None = None) -> Way:
    """Return the way that suits the latents' distribution: an arc for normal ones, a line for uniform ones, unless one is asked for."""
    arc = config.latent.distribution == "normal" if on_sphere is None else on_sphere
    return spherical(a, b, t) if arc else linear(a, b, t)


def between_four(config: Config, corners: Float[Tensor, "4 latent"], x: float, y: float) -> Latent:
    """Return the z at (x, y), each 0..1, of a square whose corners are top-left, top-right, bottom-left, bottom-right."""
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise CardiganError(f"The place is ({x}, {y}): expected both from 0 (left, top) to 1 (right, bottom).")
    across, down = torch.tensor([x], dtype=torch.float64), torch.tensor([y], dtype=torch.float64)
    top, bottom = between(config, corners[0:1], corners[1:2], across), between(config, corners[2:3], corners[3:4], across)
    return between(config, top, bottom, down)


def around(config: Config, corners: Float[Tensor, "4 latent"], x: float, y: float, grid: int, span: float = 0.5) -> Latents:
    """Return grid x grid places of that square, row by row, spread `span` around (x, y); those that would be outside lie on its edge."""
    if not 1 <= grid <= 16 or not 0 <= span <= 1:
        raise CardiganError(f"The grid is {grid} and its span {span}: expected 1..16 and 0..1.")
    steps = [0.0] if grid == 1 else [span * (step / (grid - 1) - 0.5) for step in range(grid)]
    places = [(min(1.0, max(0.0, x + across)), min(1.0, max(0.0, y + down))) for down in steps for across in steps]
    return torch.cat([between_four(config, corners, *place) for place in places])


def walk(config: Config, stops: Float[Tensor, "stops latent"], frames: int, spherical: bool | None = None, loop: bool = False) -> Latents:
    """Return the z of each frame of a walk through all stops, each of which is a frame of its own.

    `spherical` asks for arcs or lines; None takes what suits the distribution. With `loop` it walks on from the last stop to the first, which
    is not repeated at the end. Raises CardiganError for fewer than two stops, or fewer frames than stops.
    """
    count = len(stops)
    if count < 2:
        raise CardiganError("A walk has a single stop: give at least 2 seeds to walk between.")
    if not count <= frames <= MOST_FRAMES:
        raise CardiganError(f"A walk through {count} stops is to have {frames} frames: expected {count}..{MOST_FRAMES:,}.")
    legs = count if loop else count - 1
    at = [round(leg * (frames if loop else frames - 1) / legs) for leg in range(legs + 1)]
    ways = []
    for leg, (begin, end) in enumerate(zip(at, at[1:], strict=False)):
        here, there = stops[leg : leg + 1], stops[(leg + 1) % count : (leg + 1) % count + 1]
        ways.append(between(config, here, there, torch.arange(end - begin, dtype=torch.float64) / (end - begin), spherical))
    return torch.cat(ways if loop else [*ways, stops[-1:]])
