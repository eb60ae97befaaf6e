"""Mutations of valid files: flipped bits, cuts, copies, splices of two files, wrong numbers. Deterministic by seed."""

import random
import re
import struct
from collections.abc import Callable, Sequence

EXTREME_INTEGERS = [
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63,
    2**64 - 1,
    2**64 - 4,
]
TOKENS = [
    b"NaN",
    b"-1",
    b"0",
    b"1e999",
    b"-1e999",
    b"9" * 20,
    b"9" * 5000,
    b"1e308",
    b"true",
    b"null",
    b"{}",
    b"[" * 40,
    b'""',
    b"0.5",
    b"1000000000",
]
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")


def mutate(content: bytes, others: Sequence[bytes], random: random.Random) -> bytes:
    """Return the content after one to four mutations."""
    for _ in range(random.choice((1, 1, 2, 4))):
        content = random.choice(MUTATIONS)(content, random.choice(others), random)
    return content


def _flip_bit(content: bytes, _: bytes, random: random.Random) -> bytes:
    if not content:
        return content
    place = _random_position(content, random)
    return content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]


def _replace_byte(content: bytes, _: bytes, random: random.Random) -> bytes:
    place = _random_position(content, random)
    return content[:place] + bytes([random.randrange(256)]) + content[place + 1 :]


def _truncate(content: bytes, _: bytes, random: random.Random) -> bytes:
    return content[: _random_position(content, random)]


def _delete_range(content: bytes, _: bytes, random: random.Random) -> bytes:
    place = _random_position(content, random)
    return content[:place] + content[place + random.choice((1, 2, 4, 8, 100)) :]


def _duplicate_range(content: bytes, _: bytes, random: random.Random) -> bytes:
    place, size = _random_position(content, random), random.choice((1, 4, 30, 500))
    return content[: place + size] + content[place : place + size] * random.choice((1, 1, 20)) + content[place + size :]


def _splice_other(content: bytes, other: bytes, random: random.Random) -> bytes:
    return content[: _random_position(content, random)] + other[_random_position(other, random) :]


def _overwrite_integer(content: bytes, _: bytes, random: random.Random) -> bytes:
    """Overwrite bytes that may be a length."""
    place, layout = _random_position(content, random), random.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(layout)
    return content[:place] + struct.pack(layout, random.choice(EXTREME_INTEGERS) % 256**size) + content[place + size :]


def _insert_token(content: bytes, _: bytes, random: random.Random) -> bytes:
    """Overwrite a number in text."""
    numbers = list(NUMBER.finditer(content, 0, 20_000))
    if not numbers:
        return content
    found = random.choice(numbers)
    return content[: found.start()] + random.choice(TOKENS) + content[found.end() :]


def _random_position(content: bytes, random: random.Random) -> int:
    """Return a random position, often near the start, where headers are."""
    most = max(1, len(content))
    return random.randrange(random.choice((most, min(most, 64), min(most, 1_000))))


MUTATIONS: list[Callable[[bytes, bytes, random.Random], bytes]] = [
    _flip_bit,
    _replace_byte,
    _truncate,
    _delete_range,
    _duplicate_range,
    _splice_other,
    _overwrite_integer,
    _overwrite_integer,
    _insert_token,
]
