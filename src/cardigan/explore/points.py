"""Points of the latent space as commands and addresses name them: a seed, or a z that was found, written out.

`z:...` holds the numbers, `z7:...` also the class they were found with. Knows no network.
"""

import base64
import re
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.latents import sample_latents
from cardigan.lists import MAX_SEED

Point: TypeAlias = int | str
Latent = Float[Tensor, "1 latent"]


def point_text(z: Latent, label: int | None = None) -> str:
    """Return a z as a word, every bit of it: little-endian float32 in URL-safe base64 (RFC 4648, section 5), without padding."""
    written = base64.urlsafe_b64encode(z.detach().cpu().float().numpy().astype("<f4").tobytes()).decode().rstrip("=")
    return f"z{'' if label is None else label}:{written}"


def latent_of(config: Config, point: Point) -> Latent:
    """Return the z of a point; of a seed, what `cardigan sample --seeds` draws its picture from. Raises CardiganError for what is neither."""
    if isinstance(point, int):
        if not 0 <= point < MAX_SEED:
            raise CardiganError(f"The seed is {point}: expected 0 <= seed < 2^63.")
        return sample_latents(config.latent.distribution, [(point, 0)], config.latent.size)
    _, written = _parts(point)
    held = base64.urlsafe_b64decode(written + "=" * (-len(written) % 4))
    if len(held) != 4 * config.latent.size:
        raise CardiganError(f"{point[:24]}... holds {len(held) // 4} numbers: this generator takes {config.latent.size}; find it with this one.")
    z = torch.frombuffer(bytearray(held), dtype=torch.float32)[None]
    if not bool(z.isfinite().all()):
        raise CardiganError(f"{point[:24]}... holds numbers that are not finite: give it as `cardigan invert` printed it.")
    return z


def label_of(point: Point) -> int | None:
    """Return the class that a written z was found with; None for a seed, or where there is none."""
    label = "" if isinstance(point, int) else _parts(point)[0]
    return int(label) if label else None


def _parts(point: str) -> tuple[str, str]:
    match = re.fullmatch(r"z(\d{0,9}):([A-Za-z0-9_-]*)", point, re.ASCII)
    if match is None or len(match[2]) % 4 == 1:
        raise CardiganError(f"{point[:24]!r} is no point: expected a seed, or z:... as `cardigan invert` prints it.")
    return match[1], match[2]
