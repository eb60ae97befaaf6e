"""Parsing of query parameters: numbers in a range, lists of seeds, direction amounts.

Invalid values raise BadRequest.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cardigan.errors import CardiganError
from cardigan.http.errors import BadRequest
from cardigan.latents.seeds import SEED_LIMIT as SEED_LIMIT
from cardigan.latents.seeds import parse_direction_amounts, parse_points, parse_seeds

Parsed = TypeVar("Parsed")
MAX_SEEDS, MAX_DISCRIMINATOR_IMAGES, NUM_NEIGHBORS = 256, 64, 5
"""Maximum number of images by seed and in the discriminator view, and the number of nearest training images."""
MAX_FRAMES, MAX_STOPS, MAX_ARITHMETIC_SEEDS, MAX_CHECKPOINT_SEEDS = 240, 32, 64, 32
"""Maximum number of frames and stops of a walk, of seeds in latent arithmetic, and of seeds shown per checkpoint."""
MAX_IMAGES_SEEN = 10**15
SPHERICAL_BY_PATH = {"auto": None, "linear": False, "spherical": True}
"""Argument `spherical` of a walk, by the query's `path`."""


class ImageTooLarge(CardiganError):
    """The header of an uploaded image states more pixels than the limit."""


@dataclass(frozen=True)
class InterpolationGrid:
    """A position between four latents, and the size of the grid of images around it."""

    corners: list[int | str]
    position: tuple[float, float]
    grid: int
    extent: float


@dataclass(frozen=True)
class LatentWalk:
    """An animation along a path through latents."""

    stops: list[int | str]
    frames: int
    fps: float
    path: str
    loop: bool
    format: str


def interpolation_grid(query: Mapping[str, str]) -> InterpolationGrid:
    """Return the parameters of the interpolation view."""
    corners = point_list(query.get("corners", "0-3"), "corners", 4)
    if len(corners) != 4:
        raise BadRequest(f"corners has {len(corners)} seeds: expected four, such as 0,1,2,3.")
    position = number(query, "x", 0.5, 0, 1), number(query, "y", 0.5, 0, 1)
    return InterpolationGrid(corners, position, integer(query, "grid", 1, 1, 8), number(query, "extent", 0.5, 0, 1))


def latent_walk(query: Mapping[str, str]) -> LatentWalk:
    """Return the parameters of a walk."""
    stops = point_list(query.get("seeds", "0-2"), "seeds", MAX_STOPS)
    frames, fps = integer(query, "frames", 48, 2, MAX_FRAMES), number(query, "fps", 24, 1, 60)
    path, format = (
        choice(query, "path", "auto", tuple(SPHERICAL_BY_PATH)),
        choice(query, "format", "webp", ("webp", "gif", "mp4")),
    )
    return LatentWalk(stops, frames, fps, path, choice(query, "loop", "0", ("0", "1")) == "1", format)


def seed_points(query: Mapping[str, str]) -> list[int | str]:
    """Return the seeds and latents of `seeds`."""
    return point_list(query.get("seeds", "0-15"), "seeds", MAX_SEEDS)


def arithmetic_groups(query: Mapping[str, str]) -> tuple[list[list[int | str]], list[list[int | str]]]:
    """Return the groups to add (at least one) and the groups to subtract."""
    add, subtract = (point_groups(query.get(name, ""), name, MAX_ARITHMETIC_SEEDS) for name in ("add", "subtract"))
    if not add:
        raise BadRequest("add is empty: give seeds, such as add=1,2,3;4,5.")
    return add, subtract


def checkpoint(query: Mapping[str, str]) -> int | None:
    """Return the images_seen of the requested checkpoint, None for the newest."""
    return optional_integer(query, "checkpoint", 0, MAX_IMAGES_SEEN)


def points_and_checkpoints(query: Mapping[str, str], available: list[int]) -> tuple[list[int | str], list[int]]:
    """Return the seeds, and the checkpoints of the query. Default: all available checkpoints."""
    seeds = point_list(query.get("seeds", "0-7"), "seeds", MAX_CHECKPOINT_SEEDS)
    text = query.get("checkpoints")
    return seeds, seed_list(text, "checkpoints", MAX_STOPS) if text else available


def sampling_options(query: Mapping[str, str]) -> tuple[str, float, dict[int, float]]:
    """Return label, truncation and direction amounts."""
    return (
        query.get("label", "")[:200],
        number(query, "truncation", 1.0, 0, 1),
        direction_amounts(query.get("directions", "")),
    )


def seed(query: Mapping[str, str]) -> int:
    return integer(query, "seed", 0, 0, SEED_LIMIT - 1)


def sample_count_and_seed(query: Mapping[str, str]) -> tuple[int, int]:
    """Return the number of images in the discriminator view, and their seed."""
    return integer(query, "count", 16, 1, MAX_DISCRIMINATOR_IMAGES), seed(query)


def integer(query: Mapping[str, str], name: str, default: int | None, low: int, high: int) -> int:
    """Return an integer within low..high. It is required if `default` is None."""
    value = optional_integer(query, name, low, high)
    if value is None and default is None:
        raise BadRequest(f"{name} is missing: give an integer, {low}..{high}.")
    return value if value is not None else default or 0


def optional_integer(query: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    """Return an integer within low..high, None if it is absent."""
    text = query.get(name, "")
    if not text:
        return None
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII) or not low <= int(text) <= high:
        raise BadRequest(f"{name} is {text[:40]!r}: expected an integer, {low}..{high}.")
    return int(text)


def number(query: Mapping[str, str], name: str, default: int | float, low: int | float, high: int | float) -> float:
    """Return a number within low..high."""
    value = optional_number(query, name)
    if value is not None and not low <= value <= high:
        raise BadRequest(f"{name} is {value:g}: expected {low:g}..{high:g}.")
    return float(default) if value is None else value


def optional_number(query: Mapping[str, str], name: str) -> float | None:
    """Return a finite number, None if it is absent."""
    text = query.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadRequest(f"{name} is {text[:40]!r}: expected a number.")
    return value


def choice(query: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    """Return one of the choices."""
    value = query.get(name, default)
    if value not in choices:
        raise BadRequest(f"{name} is {value[:40]!r}: expected {', '.join(choices)}.")
    return value


def seed_list(text: str, name: str, max_count: int) -> list[int]:
    """Return the numbers of a list such as `0-15,40`."""
    return _parse_or_bad_request(lambda: parse_seeds(text, name, max_count))


def point_list(text: str, name: str, max_count: int) -> list[int | str]:
    """Return the seeds and encoded latents of a list such as `0-3,z:AACAPw`."""
    return _parse_or_bad_request(lambda: parse_points(text, name, max_count))


def point_groups(text: str, name: str, max_count: int) -> list[list[int | str]]:
    """Return the groups of a text such as `1,2,3;4,5`. An empty text has no groups."""
    parsed = [point_list(part, name, max_count) for part in text.split(";")] if text else []
    if sum(map(len, parsed)) > max_count:
        raise BadRequest(f"{name} has more than {max_count} seeds.")
    return parsed


def direction_amounts(text: str) -> dict[int, float]:
    """Return amounts by direction, from a text such as `0:1.5,3:-2`."""
    return _parse_or_bad_request(lambda: parse_direction_amounts(text, "directions"))


def _parse_or_bad_request(parse: Callable[[], Parsed]) -> Parsed:
    try:
        return parse()
    except CardiganError as error:
        raise BadRequest(str(error)) from error
