"""Randomness as a pure function of (seed, purpose, step): nothing to save, nothing to share, nothing to disturb.

Numbers of a `stream` are drawn on the CPU, so every device sees the same ones. Where they are too many to be sent,
`counter_normal` computes them on the device, and every device computes the same ones.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def stream(seed: int, purpose: str, step: int) -> torch.Generator:
    """Return a fresh generator that depends on nothing but its arguments.

    Two calls with equal arguments draw equal numbers; any difference gives independent ones.
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}/{step}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@contextmanager
def use_generator(generator: torch.Generator) -> Iterator[None]:
    """Inside the block, let every random number that PyTorch draws on the CPU in this thread come from this generator.

    For code that takes no generator, as the constructors of PyTorch's layers. The global generators of the CPU and of
    GPUs are neither read nor changed.
    """
    with _Draws(generator):
        yield


class _Draws(TorchDispatchMode):
    """Gives every drawing operation a generator."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags:
            if all(argument.name != "generator" for argument in func._schema.arguments):
                func = func.overloadpacket.generator  # randn, rand and randint have a form of this name that takes one
            given["generator"] = self._generator
        return func(*args, **given)


def stream_keys(count: int, generator: torch.Generator) -> Int64[Tensor, " count"]:
    """Return `count` random keys for `counter_normal`."""
    return torch.randint(2**63 - 1, (count,), generator=generator)


def counter_normal(keys: Int64[Tensor, " batch"], size: int) -> Float[Tensor, "batch size"]:
    """Return standard normal numbers, a row for each key, on the keys' device: the same bits on every device.

    A counter-based generator: word j of a row is SplitMix64 of key + j * gamma (Steele, Lea, Flood 2014, "Fast splittable
    pseudorandom number generators", figure 13). Each 16 bits of a word choose one of 65,536 equally likely numbers, at
    most 4.33 in size. Integer arithmetic and a table give the same bits on every device; a logarithm and a cosine do not.
    """
    counters = torch.arange(1, -(-size // 4) + 1, device=keys.device) * _GOLDEN
    words = _mixed(keys[:, None] + counters)
    places = words.view(torch.int16).to(torch.int32) + 0x8000
    return _normal_table(keys.device).index_select(0, places.flatten()).view(len(keys), -1)[:, :size]


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
"""SplitMix64's constants, as the signed numbers of the same bits."""


def _mixed(words: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """Return SplitMix64's output function of each word; products wrap around."""
    words = (words ^ _shifted(words, 30)) * _FIRST
    words = (words ^ _shifted(words, 27)) * _SECOND
    return words ^ _shifted(words, 31)


def _shifted(words: Int64[Tensor, "*shape"], places: int) -> Int64[Tensor, "*shape"]:
    """Return the words shifted right, zeros coming in: `>>` copies the sign."""
    return (words >> places) & ((1 << (64 - places)) - 1)


@cache
def _normal_table(device: torch.device) -> Float[Tensor, " entry"]:
    """Return the standard normal distribution's quantiles at the middles of 65,536 equal parts of (0, 1)."""
    middles = (torch.arange(0x10000, dtype=torch.float64) + 0.5) / 0x10000
    return torch.special.ndtri(middles).float().to(device)
