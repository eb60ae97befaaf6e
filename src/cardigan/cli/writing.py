"""Where a command may write, and the lists of seeds its words name. Imports nothing heavy."""

import re
from collections.abc import Collection
from pathlib import Path

from cardigan.errors import CardiganError

MOST_SEEDS = 1_000_000


def check_out(out: Path, endings: Collection[str], overwrite: bool) -> None:
    """Raise CardiganError unless `out` may be written: one of the endings ("" is a folder), not there yet or to be replaced, in a folder that is."""
    if out.suffix not in endings:
        files = [ending for ending in sorted(endings) if ending]
        expected = f"a name ending in {' or '.join([', '.join(files[:-1]), files[-1]] if len(files) > 1 else files)}"
        raise CardiganError(f"--out is {str(out)!r}: expected {expected}{', or a folder (no ending)' if '' in endings else ''}.")
    if out.is_dir():
        raise CardiganError(f"{out} is a folder that exists already, and folders are never replaced: choose another --out.")
    if out.exists() and not overwrite:
        raise CardiganError(f"{out} exists already: add --overwrite to replace it, or choose another --out.")
    if not out.absolute().parent.is_dir():
        raise CardiganError(f"There is no folder {out.absolute().parent} to write into: make it, or choose another --out.")


def parse_seeds(text: str, option: str = "--seeds") -> list[int]:
    """Return the numbers in a list such as `0-31,40`; raises CardiganError if it is none."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last - first >= MOST_SEEDS:
            raise CardiganError(f"{option} is {text!r}: expected numbers and rising ranges, such as 0-31,40.")
        numbers.extend(range(first, last + 1))
    return numbers


def parse_pairs(text: str, option: str) -> dict[int, float]:
    """Return what a list such as `0:1.5,3:-2` says of each number; nothing says nothing."""
    found: dict[int, float] = {}
    for part in text.split(",") if text else []:
        match = re.fullmatch(r"\s*(\d+)\s*:\s*(-?\d+(?:\.\d+)?)\s*", part)
        if match is None or int(match[1]) in found:
            raise CardiganError(f"{option} is {text!r}: expected each number once with how far to go, such as 0:1.5,3:-2.")
        found[int(match[1])] = float(match[2])
    return found


def parse_place(text: str, option: str) -> tuple[float, float]:
    """Return the two numbers of a place such as `0.3,0.7`, each 0 to 1."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*", text)
    place = (float(match[1]), float(match[2])) if match else (2.0, 2.0)
    if max(place) > 1:
        raise CardiganError(f"{option} is {text!r}: expected two numbers from 0 to 1, across and down, such as 0.3,0.7.")
    return place
