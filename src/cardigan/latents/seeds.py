"""Lists as commands and addresses name them: seeds such as `0-31,40`, points such as `0,z:...`, amounts such as `0:1.5,3:-2`. Knows nothing else."""

import re

from cardigan.errors import CardiganError

SEED_LIMIT = 2**63
MAX_SEEDS = 1_000_000
MAX_DIRECTION_AMOUNT = 100


def parse_seeds(text: str, name: str = "--seeds", max_count: int = MAX_SEEDS) -> list[int]:
    """Return the numbers of a list such as `0-31,40`, each 0 <= seed < 2^63; raises CardiganError if it is none, or has more than `most`."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,19})(?:\s*-\s*(\d{1,19}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last >= SEED_LIMIT or len(numbers) + last - first + 1 > max_count:
            raise CardiganError(
                f"{name} is {text[:80]!r}: expected numbers and rising ranges, such as 0-31,40, {max_count:,} seeds at most."
            )
        numbers.extend(range(first, last + 1))
    return numbers


def parse_points(text: str, name: str = "--seeds", max_count: int = MAX_SEEDS) -> list[int | str]:
    """Return the seeds and written latents (`latents.points`) of a list such as `0-3,z:AACAPw`; raises CardiganError as `parse_seeds` does."""
    points: list[int | str] = []
    for part in text.split(","):
        word = part.strip()
        points += (
            [word]
            if re.fullmatch(r"z\d{0,9}:[A-Za-z0-9_-]{1,40000}", word, re.ASCII)
            else parse_seeds(part, name, max_count)
        )
        if len(points) > max_count:
            raise CardiganError(f"{name} is {text[:80]!r}: {max_count:,} seeds at most.")
    return points


def parse_direction_amounts(text: str, name: str = "--directions") -> dict[int, float]:
    """Return how far a list such as `0:1.5,3:-2` goes along each direction, in its spreads; an empty one goes nowhere."""
    amounts: dict[int, float] = {}
    for part in text.split(",") if text else []:
        match = re.fullmatch(r"\s*(\d{1,3})\s*:\s*(-?\d{1,4}(?:\.\d{1,12})?)\s*", part, re.ASCII)
        if match is None or int(match[1]) in amounts or abs(float(match[2])) > MAX_DIRECTION_AMOUNT:
            raise CardiganError(
                f"{name} is {text[:80]!r}: expected each direction once with an amount within {MAX_DIRECTION_AMOUNT} spreads, such as 0:1.5,3:-2."
            )
        amounts[int(match[1])] = float(match[2])
    return amounts
