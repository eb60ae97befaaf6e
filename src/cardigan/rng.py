"""Randomness as a pure function of (seed, purpose, step): nothing to save, nothing to share, nothing to disturb.

Does not know what is drawn. Always a CPU generator, so that every device sees the same numbers.
"""

import hashlib

import torch


def stream(seed: int, purpose: str, step: int) -> torch.Generator:
    """Return a fresh generator that depends on nothing but its arguments.

    Two calls with equal arguments draw equal numbers; any difference gives independent ones.
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}/{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
