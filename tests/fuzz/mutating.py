"""Small damage to valid files: bits, cuts, copies, splices of two files, and numbers that lie. Equal seeds give equal damage."""

import random
import re
import struct
from collections.abc import Callable, Sequence

LIES = [0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1, 2**64 - 4]
WORDS = [b"NaN", b"-1", b"0", b"1e999", b"-1e999", b"9" * 20, b"9" * 5000, b"1e308", b"true", b"null", b"{}", b"[" * 40, b'""', b"0.5", b"1000000000"]
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")


def mutated(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Return the content after one to four pieces of damage."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        content = chance.choice(DAMAGE)(content, chance.choice(others), chance)
    return content


def _bit(content: bytes, _: bytes, chance: random.Random) -> bytes:
    if not content:
        return content
    place = _place(content, chance)
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


def _byte(content: bytes, _: bytes, chance: random.Random) -> bytes:
    place = _place(content, chance)
    return content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :]


def _cut(content: bytes, _: bytes, chance: random.Random) -> bytes:
    return content[: _place(content, chance)]


def _gap(content: bytes, _: bytes, chance: random.Random) -> bytes:
    place = _place(content, chance)
    return content[:place] + content[place + chance.choice((1, 2, 4, 8, 100)) :]


def _again(content: bytes, _: bytes, chance: random.Random) -> bytes:
    place, size = _place(content, chance), chance.choice((1, 4, 30, 500))
    return content[: place + size] + content[place : place + size] * chance.choice((1, 1, 20)) + content[place + size :]


def _splice(content: bytes, other: bytes, chance: random.Random) -> bytes:
    return content[: _place(content, chance)] + other[_place(other, chance) :]


def _length(content: bytes, _: bytes, chance: random.Random) -> bytes:
    """Overwrite what may be a length."""
    place, layout = _place(content, chance), chance.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(layout)
    return content[:place] + struct.pack(layout, chance.choice(LIES) % 256**size) + content[place + size :]


def _written(content: bytes, _: bytes, chance: random.Random) -> bytes:
    """Overwrite a number that is written in digits."""
    numbers = list(NUMBER.finditer(content, 0, 20_000))
    if not numbers:
        return content
    found = chance.choice(numbers)
    return content[: found.start()] + chance.choice(WORDS) + content[found.end() :]


def _place(content: bytes, chance: random.Random) -> int:
    """Return a position, as often near the beginning as anywhere: headers are there."""
    most = max(1, len(content))
    return chance.randrange(chance.choice((most, min(most, 64), min(most, 1_000))))


DAMAGE: list[Callable[[bytes, bytes, random.Random], bytes]] = [_bit, _byte, _cut, _gap, _again, _splice, _length, _length, _written]
