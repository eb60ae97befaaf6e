"""What a request asks for, as values: numbers in their range, lists of seeds, amounts of directions.

Every wrong value becomes one sentence.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cardigan.errors import CardiganError
from cardigan.lists import MAX_SEED as MAX_SEED
from cardigan.lists import parse_amounts, parse_points, parse_seeds

Found = TypeVar("Found")
MAX_SEEDS, MAX_GAME, NUM_NEAREST = 256, 64, 5
"""Pictures that a view shows at most: of seeds, of the game, neighbours of one."""
MAX_FRAMES, MAX_STOPS, MAX_MIXED, MAX_ROW = 240, 32, 64, 32
"""Of a walk, its frames and stops; seeds that are summed; seeds that are shown at every checkpoint."""
MAX_IMAGES = 10**15
SPHERICAL = {"auto": None, "linear": False, "spherical": True}
"""Which way a walk goes, by its name."""


class Wrong(CardiganError):
    """A value of a request that makes no sense."""


class TooManyPixels(CardiganError):
    """A picture that was sent, whose header claims more pixels than are taken."""


@dataclass(frozen=True)
class Pad:
    """A place between four points, and how many pictures around it."""

    corners: list[int | str]
    place: tuple[float, float]
    grid: int
    span: float


@dataclass(frozen=True)
class Walk:
    """A film from point to point."""

    stops: list[int | str]
    frames: int
    fps: float
    path: str
    loop: bool
    kind: str


def pad(query: Mapping[str, str]) -> Pad:
    """Return what a pad shows."""
    corners = points(query.get("corners", "0-3"), "corners", 4)
    if len(corners) != 4:
        raise Wrong(f"corners are {len(corners)} seeds: expected four, such as 0,1,2,3.")
    place = real(query, "x", 0.5, 0, 1), real(query, "y", 0.5, 0, 1)
    return Pad(corners, place, whole(query, "grid", 1, 1, 8), real(query, "span", 0.5, 0, 1))


def walk(query: Mapping[str, str]) -> Walk:
    """Return what a walk shows."""
    stops = points(query.get("seeds", "0-2"), "seeds", MAX_STOPS)
    frames, fps = whole(query, "frames", 48, 2, MAX_FRAMES), real(query, "fps", 24, 1, 60)
    path, kind = one_of(query, "path", "auto", tuple(SPHERICAL)), one_of(query, "format", "webp", ("webp", "gif", "mp4"))
    return Walk(stops, frames, fps, path, one_of(query, "loop", "0", ("0", "1")) == "1", kind)


def shown_seeds(query: Mapping[str, str]) -> list[int | str]:
    """Return the seeds of a sheet."""
    return points(query.get("seeds", "0-15"), "seeds", MAX_SEEDS)


def mixed(query: Mapping[str, str]) -> tuple[list[list[int | str]], list[list[int | str]]]:
    """Return the groups that are added, at least one, and those that are subtracted."""
    add, subtract = (groups(query.get(name, ""), name, MAX_MIXED) for name in ("add", "subtract"))
    if not add:
        raise Wrong("Nothing is added: give seeds, such as add=1,2,3;4,5.")
    return add, subtract


def checkpoint(query: Mapping[str, str]) -> int | None:
    """Return the checkpoint that is asked for by its images_seen; None for the newest."""
    return optional(query, "checkpoint", 0, MAX_IMAGES)


def moments(query: Mapping[str, str], kept: list[int]) -> tuple[list[int | str], list[int]]:
    """Return the seeds to show and at which checkpoints: those named, or all that are kept."""
    row = points(query.get("seeds", "0-7"), "seeds", MAX_ROW)
    return row, seeds(query["checkpoints"], "checkpoints", MAX_STOPS) if query.get("checkpoints") else kept


def style(query: Mapping[str, str]) -> tuple[str, float, dict[int, float]]:
    """Return label, truncation and amounts of directions."""
    return query.get("label", "")[:200], real(query, "truncation", 1.0, 0, 1), amounts(query.get("directions", ""))


def one_seed(query: Mapping[str, str]) -> int:
    return whole(query, "seed", 0, 0, MAX_SEED - 1)


def game(query: Mapping[str, str]) -> tuple[int, int]:
    """Return how many pictures the game shows, and the seed they are drawn from."""
    return whole(query, "count", 16, 1, MAX_GAME), one_seed(query)


def whole(query: Mapping[str, str], name: str, usual: int | None, low: int, high: int) -> int:
    """Return a whole number within low..high; `usual` where none is given, and without one it is needed."""
    found = optional(query, name, low, high)
    if found is None and usual is None:
        raise Wrong(f"{name} is missing: give a whole number, {low}..{high}.")
    return found if found is not None else usual or 0


def optional(query: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    """Return a whole number within low..high, None where none is given."""
    text = query.get(name, "")
    if not text:
        return None
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII) or not low <= int(text) <= high:
        raise Wrong(f"{name} is {text[:40]!r}: expected a whole number, {low}..{high}.")
    return int(text)


def real(query: Mapping[str, str], name: str, usual: int | float, low: int | float, high: int | float) -> float:
    """Return a number within low..high."""
    found = bound(query, name)
    if found is not None and not low <= found <= high:
        raise Wrong(f"{name} is {found:g}: expected {low:g}..{high:g}.")
    return float(usual) if found is None else found


def bound(query: Mapping[str, str], name: str) -> float | None:
    """Return a finite number, None where none is given."""
    text = query.get(name, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Wrong(f"{name} is {text[:40]!r}: expected a number.")
    return value


def one_of(query: Mapping[str, str], name: str, usual: str, known: tuple[str, ...]) -> str:
    """Return a word that is among the known ones."""
    word = query.get(name, usual)
    if word not in known:
        raise Wrong(f"{name} is {word[:40]!r}: expected {', '.join(known)}.")
    return word


def seeds(text: str, name: str, most: int) -> list[int]:
    """Return the numbers of a list such as `0-15,40`."""
    return _listed(lambda: parse_seeds(text, name, most))


def points(text: str, name: str, most: int) -> list[int | str]:
    """Return the seeds and written latents of a list such as `0-3,z:AACAPw`."""
    return _listed(lambda: parse_points(text, name, most))


def groups(text: str, name: str, most: int) -> list[list[int | str]]:
    """Return the groups of a text such as `1,2,3;4,5`; none of an empty one."""
    found = [points(part, name, most) for part in text.split(";")] if text else []
    if sum(map(len, found)) > most:
        raise Wrong(f"{name} names more than {most} seeds.")
    return found


def amounts(text: str) -> dict[int, float]:
    """Return directions with how far to go along them, from a text such as `0:1.5,3:-2`."""
    return _listed(lambda: parse_amounts(text, "directions"))


def _listed(parse: Callable[[], Found]) -> Found:
    try:
        return parse()
    except CardiganError as error:
        raise Wrong(str(error)) from error
