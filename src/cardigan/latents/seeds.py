"""Parse lists of seeds such as `0-31,40`, as in commands and URLs."""

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
