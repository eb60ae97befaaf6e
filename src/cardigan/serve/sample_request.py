"""Parses and validates the JSON of a sample request. Independent of HTTP."""

import json
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cardigan.errors import CardiganError, unknown
from cardigan.http.errors import BadRequest
from cardigan.latents.sampling import truncate
from cardigan.latents.seeds import SEED_LIMIT
from cardigan.models.sampling import class_index, validate_labels
from cardigan.serve.served_model import ServedModel
from cardigan.shapes import Labels, Latents

FIELDS = ("n", "seed", "seeds", "labels", "truncation", "latents")
MAX_LATENT = 1e6
MAX_RANDOM_SEED = 2**32
"""Exclusive upper bound of random seeds, so that every JSON parser represents them exactly."""


class TooManyImages(CardiganError):
    """A request for more images than one request may have."""


@dataclass(frozen=True)
class SampleRequest:
    """A request for `count` images, each from a key (seed, number) or from a row of z."""

    count: int
    keys: list[tuple[int, int]] | None
    latents: Latents | None
    labels: Labels | None
    truncation: float
    seed: int | None
    """The common seed of all images, if given."""

    @property
    def seeds(self) -> list[int] | None:
        """One seed per image, or None if they share a seed or come from latents."""
        return [seed for seed, _ in self.keys] if self.keys is not None and self.seed is None else None

    def latents_and_labels(self, start: int, stop: int, model: ServedModel) -> tuple[Latents, Labels | None]:
        """Return z and classes of the images from `start` to `stop`."""
        if self.keys is None:
            assert self.latents is not None
            return truncate(self.latents[start:stop], self.truncation), None if self.labels is None else self.labels[
                start:stop
            ]
        keys = self.keys[start:stop]
        return model.sample_latents(keys, self.truncation), model.sample_labels(
            keys
        ) if self.labels is None else self.labels[start:stop]


def parse_sample_request(body: bytes, model: ServedModel, max_images: int) -> SampleRequest:
    """Parse a JSON body; an empty one requests one image. Raises BadRequest or TooManyImages."""
    fields = _parse_object(body)
    for name in fields:
        if name not in FIELDS:
            raise BadRequest(str(unknown("field", name[:80], FIELDS)))
    count = _parse_count(fields, max_images)
    keys, seed = _parse_keys(fields, count)
    latents = _parse_latents(fields["latents"], model.config.latent.size) if "latents" in fields else None
    try:
        labels = _parse_labels(fields["labels"], count, model) if fields.get("labels") is not None else None
    except BadRequest:
        raise
    except CardiganError as error:
        raise BadRequest(str(error)) from error
    if latents is not None and labels is None and model.spec.num_classes:
        raise BadRequest("This generator is class-conditional: give labels together with latents.")
    return SampleRequest(count, keys, latents, labels, _parse_truncation(fields.get("truncation", 1.0)), seed)


def _parse_object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        fields = json.loads(body, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(
            f'The body is not valid JSON ({str(error)[:80]}): send an object such as {{"n": 4, "seed": 0}}.'
        ) from error
    if not isinstance(fields, dict):
        raise BadRequest('The body is not a JSON object: send one such as {"n": 4, "seed": 0}.')
    return fields


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _parse_count(fields: dict[str, Any], max_images: int) -> int:
    """Return the number of images. Fields that imply it must agree."""
    lists = [name for name in ("seeds", "latents") if name in fields]
    if len(lists) == 2 or ("seed" in fields and lists):
        raise BadRequest(
            f"{' and '.join(name for name in ('seed', *lists) if name in fields)} were given: only one is allowed, "
            "leave the others out."
        )
    for name in lists:
        if not isinstance(fields[name], list):
            raise BadRequest(f"{name} is {_json_excerpt(fields[name])}: expected a list.")
    count = len(fields[lists[0]]) if lists else _parse_integer(fields.get("n", 1), "n", 1, None)
    if lists and "n" in fields and fields["n"] != count:
        raise BadRequest(
            f"n is {_json_excerpt(fields['n'])}, but {lists[0]} has length {count}: leave n out, or make them equal."
        )
    if count > max_images:
        raise TooManyImages(
            f"{count if count < 10**18 else 'Too many'} images requested: this server allows {max_images:,} "
            "per request. Send several requests."
        )
    if not count:
        raise BadRequest(f"{lists[0]} is empty: expected 1..{max_images:,} items.")
    return count


def _parse_keys(fields: dict[str, Any], count: int) -> tuple[list[tuple[int, int]] | None, int | None]:
    if "latents" in fields:
        return None, None
    if "seeds" in fields:
        return [(_parse_integer(seed, "a seed", 0, SEED_LIMIT - 1), 0) for seed in fields["seeds"]], None
    if "seed" in fields:
        seed = _parse_integer(fields["seed"], "seed", 0, SEED_LIMIT - 1)
        return [(seed, number) for number in range(count)], seed
    return [(secrets.randbelow(MAX_RANDOM_SEED), 0) for _ in range(count)], None


def _parse_integer(value: Any, name: str, low: int, high: int | None) -> int:
    if type(value) is not int or value < low or (high is not None and value > high):
        maximum = "2^63 - 1" if high == SEED_LIMIT - 1 else f"{high:,}" if high else ""
        expected = f"from {low} to {maximum}" if maximum else f"of at least {low}"
        raise BadRequest(f"{name} is {_json_excerpt(value)}: expected an integer {expected}.")
    return value


def _parse_truncation(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise BadRequest(
            f"truncation is {_json_excerpt(value)}: expected a number from 0 (the average image) to 1 (as trained)."
        )
    return float(value)


def _parse_labels(value: Any, count: int, model: ServedModel) -> Labels:
    values = value if isinstance(value, list) else [value] * count
    for label in values:
        if type(label) not in (int, str) or (type(label) is int and abs(label) >= 2**31):
            raise BadRequest(f"a label is {_json_excerpt(label)}: expected the number or the name of a class.")
        if type(label) is str and len(label) > 1_000:
            raise BadRequest("a label has more than 1,000 characters: expected the number or the name of a class.")
    if not model.spec.num_classes:
        raise BadRequest("This generator is unconditional: leave labels out.")
    if len(values) != count:
        raise BadRequest(
            f"{len(values)} labels for {count} images: give one label per image, or a single one (no list) for all."
        )
    labels = torch.tensor([class_index(label, model.spec) for label in values], dtype=torch.long)
    validate_labels(labels, count, model.spec.num_classes)
    return labels


def _parse_latents(rows: list[Any], size: int) -> Latents:
    for row in rows:
        if not isinstance(row, list) or len(row) != size:
            received = f"{len(row)} numbers" if isinstance(row, list) else _json_excerpt(row)
            raise BadRequest(f"a row of latents is {received}: expected a list of {size} numbers.")
        if any(type(value) not in (int, float) or not -MAX_LATENT <= value <= MAX_LATENT for value in row):
            raise BadRequest(f"latents contain an invalid value: expected numbers within {MAX_LATENT:,.0f} of 0.")
    return torch.from_numpy(np.array(rows, dtype=np.float64).astype(np.float32))


def _json_excerpt(value: Any) -> str:
    """Return a value as JSON, truncated if long."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**18:
        return "a very large number" if value > 0 else "a very negative number"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
