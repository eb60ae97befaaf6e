"""Points of the latent space as text, as in commands and URLs: a seed, or an encoded z.

`z:...` contains the numbers of z, `z7:...` also its class. Knows no network.
"""

import base64
import re
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.latents.sampling import sample_latents
from cardigan.latents.seeds import MAX_SEEDS, SEED_LIMIT, parse_seeds

Point: TypeAlias = int | str
Latent = Float[Tensor, "1 latent"]


def encode_latent(z: Latent, label: int | None = None) -> str:
    """Return a z as text, without loss: little-endian float32 in URL-safe base64 (RFC 4648, section 5), no padding."""
    encoded = base64.urlsafe_b64encode(z.detach().cpu().float().numpy().astype("<f4").tobytes()).decode().rstrip("=")
    return f"z{'' if label is None else label}:{encoded}"


def point_latent(config: Config, point: Point) -> Latent:
    """Return the z of a point. A seed gives the same z as in `cardigan sample --seeds`.

    Raises CardiganError for an invalid point.
    """
    if isinstance(point, int):
        if not 0 <= point < SEED_LIMIT:
            raise CardiganError(f"The seed is {point}: expected 0 <= seed < 2^63.")
        return sample_latents(config.latent.distribution, [(point, 0)], config.latent.size)
    _, encoded = _split_latent_text(point)
    decoded = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    if len(decoded) != 4 * config.latent.size:
        raise CardiganError(
            f"{point[:24]}... has {len(decoded) // 4} numbers, but this generator takes {config.latent.size}: use a "
            "point of this generator."
        )
    z = torch.frombuffer(bytearray(decoded), dtype=torch.float32)[None]
    if not bool(z.isfinite().all()):
        raise CardiganError(
            f"{point[:24]}... has numbers that are not finite: give it as `cardigan invert` printed it."
        )
    return z


def point_label(point: Point) -> int | None:
    """Return the class of an encoded z, or None if it has none or the point is a seed."""
    label = "" if isinstance(point, int) else _split_latent_text(point)[0]
    return int(label) if label else None


def _split_latent_text(point: str) -> tuple[str, str]:
    match = re.fullmatch(r"z(\d{0,9}):([A-Za-z0-9_-]*)", point, re.ASCII)
    if match is None or len(match[2]) % 4 == 1:
        raise CardiganError(f"{point[:24]!r} is not a point: expected a seed, or z:... as `cardigan invert` prints it.")
    return match[1], match[2]


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
