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
from cardigan.latents.seeds import SEED_LIMIT

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
