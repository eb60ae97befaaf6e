"""Lists as commands and addresses name them: seeds such as `0-31,40`, points such as `0,z:...`, amounts such as `0:1.5,3:-2`. Knows nothing else."""

import re

from cardigan.errors import CardiganError

SEED_LIMIT = 2**63
MAX_SEEDS = 1_000_000


def parse_seeds(text: str, name: str = "--seeds", max_count: int = MAX_SEEDS) -> list[int]:
    """Return the numbers of a list such as `0-31,40`, each 0 <= seed < 2^63; raises CardiganError if it is none, or has more than `max_count`."""
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
