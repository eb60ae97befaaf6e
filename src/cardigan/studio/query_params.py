"""What a request asks for, as values: numbers in their range, lists of seeds, amounts of directions.

Every wrong value becomes one sentence.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cardigan.errors import CardiganError
from cardigan.latents.points import parse_direction_amounts, parse_points
from cardigan.latents.seeds import SEED_LIMIT as SEED_LIMIT
from cardigan.latents.seeds import parse_seeds

Parsed = TypeVar("Parsed")
MAX_SEEDS, MAX_DISCRIMINATOR_IMAGES, NUM_NEIGHBORS = 256, 64, 5
"""Pictures that a view shows at most: of seeds, of the game, neighbours of one."""
MAX_FRAMES, MAX_STOPS, MAX_ARITHMETIC_SEEDS, MAX_CHECKPOINT_SEEDS = 240, 32, 64, 32
"""Of a walk, its frames and stops; seeds that are summed; seeds that are shown at every checkpoint."""
MAX_IMAGES_SEEN = 10**15
SPHERICAL_BY_PATH = {"auto": None, "linear": False, "spherical": True}
"""Which way a walk goes, by its name."""


class BadRequest(CardiganError):
    """A value of a request that makes no sense."""


class ImageTooLarge(CardiganError):
    """A picture that was sent, whose header claims more pixels than are taken."""


@dataclass(frozen=True)
class InterpolationGrid:
    """A place between four points, and how many pictures around it."""

    corners: list[int | str]
    position: tuple[float, float]
    grid: int
    extent: float


@dataclass(frozen=True)
class LatentWalk:
    """A film from point to point."""

    stops: list[int | str]
    frames: int
    fps: float
    path: str
    loop: bool
    format: str


def interpolation_grid(query: Mapping[str, str]) -> InterpolationGrid:
    """Return what a pad shows."""
    corners = point_list(query.get("corners", "0-3"), "corners", 4)
    if len(corners) != 4:
        raise BadRequest(f"corners are {len(corners)} seeds: expected four, such as 0,1,2,3.")
    position = number(query, "x", 0.5, 0, 1), number(query, "y", 0.5, 0, 1)
    return InterpolationGrid(corners, position, integer(query, "grid", 1, 1, 8), number(query, "extent", 0.5, 0, 1))


def latent_walk(query: Mapping[str, str]) -> LatentWalk:
    """Return what a walk shows."""
    stops = point_list(query.get("seeds", "0-2"), "seeds", MAX_STOPS)
    frames, fps = integer(query, "frames", 48, 2, MAX_FRAMES), number(query, "fps", 24, 1, 60)
    path, format = (
        choice(query, "path", "auto", tuple(SPHERICAL_BY_PATH)),
        choice(query, "format", "webp", ("webp", "gif", "mp4")),
    )
    return LatentWalk(stops, frames, fps, path, choice(query, "loop", "0", ("0", "1")) == "1", format)


def seed_points(query: Mapping[str, str]) -> list[int | str]:
    """Return the seeds of a sheet."""
    return point_list(query.get("seeds", "0-15"), "seeds", MAX_SEEDS)


def arithmetic_groups(query: Mapping[str, str]) -> tuple[list[list[int | str]], list[list[int | str]]]:
    """Return the groups that are added, at least one, and those that are subtracted."""
    add, subtract = (point_groups(query.get(name, ""), name, MAX_ARITHMETIC_SEEDS) for name in ("add", "subtract"))
    if not add:
        raise BadRequest("Nothing is added: give seeds, such as add=1,2,3;4,5.")
    return add, subtract


def checkpoint(query: Mapping[str, str]) -> int | None:
    """Return the checkpoint that is asked for by its images_seen; None for the newest."""
    return optional_integer(query, "checkpoint", 0, MAX_IMAGES_SEEN)


def points_and_checkpoints(query: Mapping[str, str], available: list[int]) -> tuple[list[int | str], list[int]]:
    """Return the seeds to show and at which checkpoints: those named, or all that are kept."""
    seed_row = point_list(query.get("seeds", "0-7"), "seeds", MAX_CHECKPOINT_SEEDS)
    return seed_row, seed_list(query["checkpoints"], "checkpoints", MAX_STOPS) if query.get(
        "checkpoints"
    ) else available


def sampling_options(query: Mapping[str, str]) -> tuple[str, float, dict[int, float]]:
    """Return label, truncation and amounts of directions."""
    return (
        query.get("label", "")[:200],
        number(query, "truncation", 1.0, 0, 1),
        direction_amounts(query.get("directions", "")),
    )


def seed(query: Mapping[str, str]) -> int:
    return integer(query, "seed", 0, 0, SEED_LIMIT - 1)


def sample_count_and_seed(query: Mapping[str, str]) -> tuple[int, int]:
    """Return how many pictures the game shows, and the seed they are drawn from."""
    return integer(query, "count", 16, 1, MAX_DISCRIMINATOR_IMAGES), seed(query)


def integer(query: Mapping[str, str], name: str, default: int | None, low: int, high: int) -> int:
    """Return a whole number within low..high; `default` where none is given, and without one it is needed."""
    value = optional_integer(query, name, low, high)
    if value is None and default is None:
        raise BadRequest(f"{name} is missing: give a whole number, {low}..{high}.")
    return value if value is not None else default or 0


def optional_integer(query: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    """Return a whole number within low..high, None where none is given."""
    text = query.get(name, "")
    if not text:
        return None
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII) or not low <= int(text) <= high:
        raise BadRequest(f"{name} is {text[:40]!r}: expected a whole number, {low}..{high}.")
    return int(text)


def number(query: Mapping[str, str], name: str, default: int | float, low: int | float, high: int | float) -> float:
    """Return a number within low..high."""
    value = optional_number(query, name)
    if value is not None and not low <= value <= high:
        raise BadRequest(f"{name} is {value:g}: expected {low:g}..{high:g}.")
    return float(default) if value is None else value


def optional_number(query: Mapping[str, str], name: str) -> float | None:
    """Return a finite number, None where none is given."""
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
    """Return a word that is among the known ones."""
    value = query.get(name, default)
    if value not in choices:
        raise BadRequest(f"{name} is {value[:40]!r}: expected {', '.join(choices)}.")
    return value


def seed_list(text: str, name: str, max_count: int) -> list[int]:
    """Return the numbers of a list such as `0-15,40`."""
    return _parse_or_bad_request(lambda: parse_seeds(text, name, max_count))


def point_list(text: str, name: str, max_count: int) -> list[int | str]:
    """Return the seeds and written latents of a list such as `0-3,z:AACAPw`."""
    return _parse_or_bad_request(lambda: parse_points(text, name, max_count))


def point_groups(text: str, name: str, max_count: int) -> list[list[int | str]]:
    """Return the groups of a text such as `1,2,3;4,5`; none of an empty one."""
    parsed = [point_list(part, name, max_count) for part in text.split(";")] if text else []
    if sum(map(len, parsed)) > max_count:
        raise BadRequest(f"{name} names more than {max_count} seeds.")
    return parsed


def direction_amounts(text: str) -> dict[int, float]:
    """Return directions with how far to go along them, from a text such as `0:1.5,3:-2`."""
    return _parse_or_bad_request(lambda: parse_direction_amounts(text, "directions"))


def _parse_or_bad_request(parse: Callable[[], Parsed]) -> Parsed:
    try:
        return parse()
    except CardiganError as error:
        raise BadRequest(str(error)) from error
