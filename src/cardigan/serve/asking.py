"""What a request asks for, as values within limits; every wrong one becomes one sentence.

Knows JSON and the model's classes and latents; not HTTP.
"""

import json
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cardigan.errors import CardiganError, unknown
from cardigan.latents import truncated
from cardigan.lists import MAX_SEED
from cardigan.run.snapshot import check_labels, class_number
from cardigan.serve.model import Served
from cardigan.shapes import Labels, Latents

FIELDS = ("n", "seed", "seeds", "labels", "truncation", "latents")
MAX_LATENT = 1e6
FRESH_SEEDS = 2**32
"""Seeds that nobody chose are below this, so that every program's numbers hold them."""


class Wrong(CardiganError):
    """A request that makes no sense."""


class TooMany(CardiganError):
    """A request for more pictures than are drawn at once."""


@dataclass(frozen=True)
class Order:
    """What is to be drawn: `count` pictures, each from its key or from its row of z."""

    count: int
    keys: list[tuple[int, int]] | None
    latents: Latents | None
    labels: Labels | None
    truncation: float
    seed: int | None
    """The one seed of all pictures, where one was given."""

    @property
    def seeds(self) -> list[int] | None:
        """One seed for each picture, where they have their own."""
        return [seed for seed, _ in self.keys] if self.keys is not None and self.seed is None else None

    def rows(self, start: int, stop: int, served: Served) -> tuple[Latents, Labels | None]:
        """Return z and classes of some of the pictures."""
        if self.keys is None:
            assert self.latents is not None
            return truncated(self.latents[start:stop], self.truncation), None if self.labels is None else self.labels[start:stop]
        keys = self.keys[start:stop]
        return served.latents(keys, self.truncation), served.classes(keys) if self.labels is None else self.labels[start:stop]


def read_order(body: bytes, served: Served, most: int) -> Order:
    """Return what a JSON body asks for; an empty one is for one picture. Raises Wrong or TooMany."""
    asked = _object(body)
    for name in asked:
        if name not in FIELDS:
            raise Wrong(str(unknown("field", name[:80], FIELDS)))
    count = _count(asked, most)
    keys, seed = _keys(asked, count)
    latents = _latents(asked["latents"], served.config.latent.size) if "latents" in asked else None
    try:
        labels = _labels(asked["labels"], count, served) if asked.get("labels") is not None else None
    except Wrong:
        raise
    except CardiganError as error:
        raise Wrong(str(error)) from error
    if latents is not None and labels is None and served.spec.classes:
        raise Wrong("latents do not say which class to draw: give labels beside them.")
    return Order(count, keys, latents, labels, _truncation(asked.get("truncation", 1.0)), seed)


def _object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        asked = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Wrong(f'The body is no JSON ({str(error)[:80]}): send an object such as {{"n": 4, "seed": 0}}.') from error
    if not isinstance(asked, dict):
        raise Wrong('The body is no JSON object: send one such as {"n": 4, "seed": 0}.')
    return asked


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _count(asked: dict[str, Any], most: int) -> int:
    """Return how many pictures, however that is said; all that say it must agree."""
    lists = [name for name in ("seeds", "latents") if name in asked]
    if len(lists) == 2 or ("seed" in asked and lists):
        raise Wrong(f"{' and '.join(name for name in ('seed', *lists) if name in asked)} were given, and only one says what to draw: leave one out.")
    for name in lists:
        if not isinstance(asked[name], list):
            raise Wrong(f"{name} is {_shown(asked[name])}: expected a list.")
    count = len(asked[lists[0]]) if lists else _whole(asked.get("n", 1), "n", 1, None)
    if lists and "n" in asked and asked["n"] != count:
        raise Wrong(f"n is {_shown(asked['n'])} and {lists[0]} has {count}: leave n out, it is the length of {lists[0]}.")
    if count > most:
        raise TooMany(
            f"{count if count < 10**18 else 'So many'} pictures were asked for: this server draws {most:,} at once at most, so ask several times."
        )
    if not count:
        raise Wrong(f"{lists[0]} is empty: expected 1..{most:,} of them.")
    return count


def _keys(asked: dict[str, Any], count: int) -> tuple[list[tuple[int, int]] | None, int | None]:
    if "latents" in asked:
        return None, None
    if "seeds" in asked:
        return [(_whole(seed, "a seed", 0, MAX_SEED - 1), 0) for seed in asked["seeds"]], None
    if "seed" in asked:
        seed = _whole(asked["seed"], "seed", 0, MAX_SEED - 1)
        return [(seed, number) for number in range(count)], seed
    return [(secrets.randbelow(FRESH_SEEDS), 0) for _ in range(count)], None


def _whole(value: Any, name: str, low: int, high: int | None) -> int:
    if type(value) is not int or value < low or (high is not None and value > high):
        top = "2^63 - 1" if high == MAX_SEED - 1 else f"{high:,}" if high else ""
        expected = f"from {low} to {top}" if top else f"of at least {low}"
        raise Wrong(f"{name} is {_shown(value)}: expected a whole number {expected}.")
    return value


def _truncation(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise Wrong(f"truncation is {_shown(value)}: expected a number from 0 (the average picture) to 1 (as trained).")
    return float(value)


def _labels(value: Any, count: int, served: Served) -> Labels:
    given = value if isinstance(value, list) else [value] * count
    for label in given:
        if type(label) not in (int, str) or (type(label) is int and abs(label) >= 2**31):
            raise Wrong(f"a label is {_shown(label)}: expected the number or the name of a class.")
        if type(label) is str and len(label) > 1_000:
            raise Wrong("a label is no name of a class: it is longer than 1,000 letters.")
    if not served.spec.classes:
        raise Wrong("This generator was trained without classes: leave labels out.")
    if len(given) != count:
        raise Wrong(f"{len(given)} labels for {count} pictures: give one label per picture, or a single one (no list) for all.")
    labels = torch.tensor([class_number(label, served.spec) for label in given], dtype=torch.long)
    check_labels(labels, count, served.spec.classes)
    return labels


def _latents(rows: list[Any], size: int) -> Latents:
    for row in rows:
        if not isinstance(row, list) or len(row) != size:
            got = f"{len(row)} numbers" if isinstance(row, list) else _shown(row)
            raise Wrong(f"a row of latents is {got}: expected a list of {size} numbers.")
        if any(type(value) not in (int, float) or not -MAX_LATENT <= value <= MAX_LATENT for value in row):
            raise Wrong(f"latents hold something else than numbers within {MAX_LATENT:,.0f} of 0.")
    return torch.from_numpy(np.array(rows, dtype=np.float64).astype(np.float32))


def _shown(value: Any) -> str:
    """Return a value as it was written in JSON, cut where it is long."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a very large number" if value > 0 else "a very negative number"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
