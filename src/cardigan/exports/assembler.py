"""A small assembler for WebAssembly: one function over a memory that the page owns, from lines of text to the bytes of a module.

Knows the few instructions that `product.py` needs, each by its number in the WebAssembly 2.0 specification (sections 5.4 and 5.5).
"""

from collections.abc import Iterable, Sequence

I32, V128 = 0x7F, 0x7B
SIMD = 0xFD
"""Comes before the number of an instruction on 128-bit vectors."""

NUMBERS = {
    **{"loop": 0x03, "end": 0x0B, "br_if": 0x0D, "local.get": 0x20, "local.set": 0x21, "local.tee": 0x22},
    **{"i32.const": 0x41, "i32.ne": 0x47, "i32.add": 0x6A, "i32.mul": 0x6C},
}
NOTHING = b"\x40"
"""What a block leaves behind."""
VECTORS = {"i32x4.splat": 17, "f32x4.add": 228, "f32x4.mul": 230}
ACCESSES = {"v128.load": (0, 4), "v128.load32_splat": (9, 2), "v128.store": (11, 4)}
"""Their numbers, and the base-2 logarithms of the alignments they are told (hints; nothing depends on them)."""


def module(name: str, parameters: Sequence[str], words: Sequence[str], vectors: Sequence[str], code: str) -> bytes:
    """Return a module that imports the memory `page.memory` and exports one function of these 32-bit parameters, with further locals."""
    numbers = {local: number for number, local in enumerate([*parameters, *words, *vectors])}
    body = unsigned(2) + unsigned(len(words)) + bytes([I32]) + unsigned(len(vectors)) + bytes([V128])
    body += b"".join(instruction(line.split(), numbers) for line in code.splitlines() if line.strip()) + bytes([NUMBERS["end"]])
    types = vector([b"\x60" + vector([bytes([I32])] * len(parameters)) + vector([])])
    imports = vector([text("page") + text("memory") + b"\x02\x00" + unsigned(1)])
    exports = vector([text(name) + b"\x00" + unsigned(0)])
    sections = [(1, types), (2, imports), (3, vector([unsigned(0)])), (7, exports), (10, vector([unsigned(len(body)) + body]))]
    return b"\x00asm\x01\x00\x00\x00" + b"".join(bytes([number]) + unsigned(len(part)) + part for number, part in sections)


def instruction(words: list[str], locals_: dict[str, int]) -> bytes:
    """Return the bytes of one line, e.g. `local.get a`, `v128.load 16` (an offset), `br_if 0` (so many blocks out)."""
    name, *operands = words
    if name in ACCESSES:
        number, alignment = ACCESSES[name]
        return bytes([SIMD, number]) + unsigned(alignment) + unsigned(int(operands[0]) if operands else 0)
    if name in VECTORS:
        return bytes([SIMD]) + unsigned(VECTORS[name])
    return bytes([NUMBERS[name]]) + b"".join(operand(name, text_, locals_) for text_ in operands) + (NOTHING if name == "loop" else b"")


def operand(name: str, given: str, locals_: dict[str, int]) -> bytes:
    """Return what follows an instruction's number: a local's own number, a constant, or how many blocks out."""
    if name in {"local.get", "local.set", "local.tee"}:
        return unsigned(locals_[given])
    return signed(int(given)) if name == "i32.const" else unsigned(int(given))


def unsigned(number: int) -> bytes:
    """Return a number in seven bits a byte, the least first (LEB128)."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low]) if not rest else bytes([low | 0x80]) + unsigned(rest)


def signed(number: int) -> bytes:
    """Return a number that may be negative in the same way; the last byte's second bit is its sign."""
    low, rest = number & 0x7F, number >> 7
    done = (rest == 0 and not low & 0x40) or (rest == -1 and low & 0x40)
    return bytes([low]) if done else bytes([low | 0x80]) + signed(rest)


def vector(parts: Iterable[bytes]) -> bytes:
    """Return a count and the parts."""
    known = list(parts)
    return unsigned(len(known)) + b"".join(known)


def text(name: str) -> bytes:
    return unsigned(len(name)) + name.encode()
