"""Parse lists of seeds, points and direction amounts, as in commands and URLs. Does not import torch."""

import re

from cardigan.errors import CardiganError

SEED_LIMIT = 2**63
MAX_SEEDS = 1_000_000


def parse_seeds(text: str, name: str = "--seeds", max_count: int = MAX_SEEDS) -> list[int]:
    """Return the seeds of a list such as `0-31,40`, each 0 <= seed < 2^63.

    Raises CardiganError if the list is invalid or has more than `max_count` seeds.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,19})(?:\s*-\s*(\d{1,19}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last >= SEED_LIMIT or len(numbers) + last - first + 1 > max_count:
            raise CardiganError(
                f"{name} is {text[:80]!r}: expected numbers and ascending ranges, such as 0-31,40, at most "
                f"{max_count:,} seeds."
            )
        numbers.extend(range(first, last + 1))
    return numbers


MAX_DIRECTION_AMOUNT = 100


def parse_points(text: str, name: str = "--seeds", max_count: int = MAX_SEEDS) -> list[int | str]:
    """Return the seeds and encoded latents of a list such as `0-3,z:AACAPw`. Raises errors like `parse_seeds`."""
    points: list[int | str] = []
    for part in text.split(","):
        word = part.strip()
        points += (
            [word]
            if re.fullmatch(r"z\d{0,9}:[A-Za-z0-9_-]{1,40000}", word, re.ASCII)
            else parse_seeds(part, name, max_count)
        )
        if len(points) > max_count:
            raise CardiganError(f"{name} is {text[:80]!r}: expected at most {max_count:,} seeds.")
    return points


def parse_direction_amounts(text: str, name: str = "--directions") -> dict[int, float]:
    """Return the amount per direction of a list such as `0:1.5,3:-2`, in standard deviations. "" gives no amounts."""
    amounts: dict[int, float] = {}
    for part in text.split(",") if text else []:
        match = re.fullmatch(r"\s*(\d{1,3})\s*:\s*(-?\d{1,4}(?:\.\d{1,12})?)\s*", part, re.ASCII)
        if match is None or int(match[1]) in amounts or abs(float(match[2])) > MAX_DIRECTION_AMOUNT:
            raise CardiganError(
                f"{name} is {text[:80]!r}: expected each direction once with an amount of at most "
                f"+-{MAX_DIRECTION_AMOUNT} standard deviations, such as 0:1.5,3:-2."
            )
        amounts[int(match[1])] = float(match[2])
    return amounts
