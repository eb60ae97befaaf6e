"""What a request asks for, as values: numbers in their range, lists of seeds, amounts of directions.

Every wrong value becomes one sentence.
"""

import math
import re
from collections.abc import Mapping

from cardigan.errors import CardiganError

MAX_SEED = 2**63
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
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,19})(?:-(\d{1,19}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last >= MAX_SEED or len(numbers) + last - first + 1 > most:
            raise Wrong(f"{name} is {text[:80]!r}: expected up to {most} seeds, such as 0-15,40.")
        numbers.extend(range(first, last + 1))
    return numbers


def groups(text: str, name: str, most: int) -> list[list[int]]:
    """Return the groups of a text such as `1,2,3;4,5`; none of an empty one."""
    found = [seeds(part, name, most) for part in text.split(";")] if text else []
    if sum(map(len, found)) > most:
        raise Wrong(f"{name} names more than {most} seeds.")
    return found


def amounts(text: str) -> dict[int, float]:
    """Return directions with how far to go along them, from a text such as `0:1.5,3:-2`."""
    found: dict[int, float] = {}
    for part in text.split(",") if text else []:
        match = re.fullmatch(r"\s*(\d{1,3}):(-?\d{1,4}(?:\.\d{1,12})?)\s*", part, re.ASCII)
        if not match or abs(float(match[2])) > 100:
            raise Wrong(f"directions are {text[:80]!r}: expected numbers with amounts within 100 spreads, such as 0:1.5,3:-2.")
        found[int(match[1])] = float(match[2])
    return found
