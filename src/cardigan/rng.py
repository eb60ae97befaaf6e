"""Randomness as a pure function of (seed, purpose, step). There is no generator state to save or to share.

A `stream` draws its numbers on the CPU, so they are the same for every device. `counter_normal` computes large amounts
of numbers on the device itself, and every device computes the same ones.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def stream(seed: int, purpose: str, step: int) -> torch.Generator:
    """Return a fresh generator on the CPU that depends on nothing but its arguments.

    `seed` is that of the run, `purpose` any text, and `step` any integer. Two calls with equal arguments draw equal
    numbers; any difference gives independent ones.

    Examples:
        >>> import cardigan
        >>> import torch
        >>> torch.randint(100, (4,), generator=cardigan.stream(0, "example", 7)).tolist()
        [40, 45, 65, 29]
        >>> torch.randint(100, (4,), generator=cardigan.stream(0, "example", 9)).tolist()
        [17, 1, 19, 98]
    """
    return torch.Generator().manual_seed(_stream_seed(seed, purpose, step))


def streams(purpose: str, keys: Iterable[tuple[int, int]]) -> Iterator[torch.Generator]:
    """Yield what `stream` returns for each key (seed, step), in about three quarters of the time.

    All are one generator, seeded again for each key: draw from one before you take the next.
    """
    generator = torch.Generator()
    for seed, step in keys:
        yield generator.manual_seed(_stream_seed(seed, purpose, step))


def _stream_seed(seed: int, purpose: str, step: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{purpose}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def use_generator(generator: torch.Generator) -> Iterator[None]:
    """Use this generator for every random number that PyTorch draws on the CPU in this thread, inside the block.

    A generator that an operation is given explicitly is used as ever.
    For code that takes no generator, such as the constructors of PyTorch's layers. The global generators of the CPU and
    of GPUs are neither read nor changed.
    """
    with _GeneratorMode(generator):
        yield


class _GeneratorMode(TorchDispatchMode):
    """Passes a generator to every random operation that has none."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        new_kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags and new_kwargs.get("generator") is None:
            if all(argument.name != "generator" for argument in func._schema.arguments):
                func = func.overloadpacket.generator  # the overload of randn, rand and randint that takes one
            new_kwargs["generator"] = self._generator
        return func(*args, **new_kwargs)


def stream_keys(count: int, generator: torch.Generator) -> Int64[Tensor, " count"]:
    """Return `count` random keys for `counter_normal`."""
    return torch.randint(2**63 - 1, (count,), generator=generator)


def counter_normal(keys: Int64[Tensor, " batch"], size: int) -> Float[Tensor, "batch size"]:
    """Return standard normal numbers, one row per key, on the keys' device. The bits are the same on every device.

    A counter-based generator: word j of a row is SplitMix64 of key + j * gamma (Steele, Lea, Flood 2014, "Fast
    splittable pseudorandom number generators", figure 13). Each 16 bits of a word select one of 65,536 equally likely
    values; the largest magnitude is 4.33. Integer arithmetic and a table give the same bits on every device. A
    logarithm and a cosine do not.
    """
    counters = torch.arange(1, -(-size // 4) + 1, device=keys.device) * _GOLDEN
    words = _mixed(keys[:, None] + counters)
    places = words.view(torch.int16).to(torch.int32) + 0x8000
    return _normal_table(keys.device).index_select(0, places.flatten()).view(len(keys), -1)[:, :size]


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
"""SplitMix64's constants, as the signed numbers of the same bits."""


def _mixed(words: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """Return SplitMix64's output function of each word. Products wrap around."""
    words = (words ^ _shifted(words, 30)) * _FIRST
    words = (words ^ _shifted(words, 27)) * _SECOND
    return words ^ _shifted(words, 31)


def _shifted(words: Int64[Tensor, "*shape"], places: int) -> Int64[Tensor, "*shape"]:
    """Return the words shifted right, filled with zeros. `>>` alone copies the sign bit."""
    return (words >> places) & ((1 << (64 - places)) - 1)


@cache
def _normal_table(device: torch.device) -> Float[Tensor, " entry"]:
    """Return the quantiles of the standard normal distribution at the midpoints of 65,536 equal parts of (0, 1)."""
    middles = (torch.arange(0x10000, dtype=torch.float64) + 0.5) / 0x10000
    return torch.special.ndtri(middles).float().to(device)
