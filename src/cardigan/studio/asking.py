"""What a request asks for, as values: numbers in their range, lists of seeds, amounts of directions.

Every wrong value becomes one sentence.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from cardigan.errors import CardiganError
from cardigan.lists import MAX_SEED as MAX_SEED
from cardigan.lists import parse_amounts, parse_seeds

Found = TypeVar("Found")
MAX_SEEDS, MAX_GAME, NUM_NEAREST = 256, 64, 5
"""Pictures that a view shows at most: of seeds, of the game, neighbours of one."""


class Wrong(CardiganError):
    """A value of a request that makes no sense."""


class TooManyPixels(CardiganError):
    """A picture that was sent, whose header claims more pixels than are taken."""


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


def groups(text: str, name: str, most: int) -> list[list[int]]:
    """Return the groups of a text such as `1,2,3;4,5`; none of an empty one."""
    found = [seeds(part, name, most) for part in text.split(";")] if text else []
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
