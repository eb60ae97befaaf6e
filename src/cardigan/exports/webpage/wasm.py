"""A minimal WebAssembly assembler: turns the text of one function into a binary module.

Supports the instructions that `matmul.py` needs. Opcodes: WebAssembly 2.0 specification, sections 5.4 and 5.5.
"""

from collections.abc import Iterable, Sequence

I32, V128 = 0x7F, 0x7B
SIMD = 0xFD
"""Prefix byte of 128-bit vector instructions."""

OPCODES = {
    **{"loop": 0x03, "end": 0x0B, "br_if": 0x0D, "local.get": 0x20, "local.set": 0x21, "local.tee": 0x22},
    **{"i32.const": 0x41, "i32.ne": 0x47, "i32.add": 0x6A, "i32.mul": 0x6C},
}
EMPTY_BLOCK_TYPE = b"\x40"
"""Result type of a block without a result."""
SIMD_OPCODES = {"i32x4.splat": 17, "f32x4.add": 228, "f32x4.mul": 230}
MEMORY_OPCODES = {"v128.load": (0, 4), "v128.load32_splat": (9, 2), "v128.store": (11, 4)}
"""Opcodes, and the base-2 logarithms of their alignment hints."""


def assemble_module(
    name: str, parameters: Sequence[str], i32_locals: Sequence[str], v128_locals: Sequence[str], code: str
) -> bytes:
    """Return a module that imports the memory `host.memory` and exports one function with i32 parameters."""
    local_indices = {local: number for number, local in enumerate([*parameters, *i32_locals, *v128_locals])}
    body = (
        unsigned_leb128(2)
        + unsigned_leb128(len(i32_locals))
        + bytes([I32])
        + unsigned_leb128(len(v128_locals))
        + bytes([V128])
    )
    body += b"".join(
        encode_instruction(line.split(), local_indices) for line in code.splitlines() if line.strip()
    ) + bytes([OPCODES["end"]])
    types = encode_vector([b"\x60" + encode_vector([bytes([I32])] * len(parameters)) + encode_vector([])])
    imports = encode_vector([encode_name("host") + encode_name("memory") + b"\x02\x00" + unsigned_leb128(1)])
    exports = encode_vector([encode_name(name) + b"\x00" + unsigned_leb128(0)])
    sections = [
        (1, types),
        (2, imports),
        (3, encode_vector([unsigned_leb128(0)])),
        (7, exports),
        (10, encode_vector([unsigned_leb128(len(body)) + body])),
    ]
    return b"\x00asm\x01\x00\x00\x00" + b"".join(
        bytes([number]) + unsigned_leb128(len(content)) + content for number, content in sections
    )


def encode_instruction(tokens: list[str], locals_: dict[str, int]) -> bytes:
    """Return the bytes of one line, e.g. `local.get a`, `v128.load 16` (an offset), `br_if 0` (a block depth)."""
    name, *operands = tokens
    if name in MEMORY_OPCODES:
        number, alignment = MEMORY_OPCODES[name]
        return bytes([SIMD, number]) + unsigned_leb128(alignment) + unsigned_leb128(int(operands[0]) if operands else 0)
    if name in SIMD_OPCODES:
        return bytes([SIMD]) + unsigned_leb128(SIMD_OPCODES[name])
    return (
        bytes([OPCODES[name]])
        + b"".join(encode_operand(name, token, locals_) for token in operands)
        + (EMPTY_BLOCK_TYPE if name == "loop" else b"")
    )


def encode_operand(name: str, token: str, locals_: dict[str, int]) -> bytes:
    """Return the bytes of an operand: a local's index, a constant, or a block depth."""
    if name in {"local.get", "local.set", "local.tee"}:
        return unsigned_leb128(locals_[token])
    return signed_leb128(int(token)) if name == "i32.const" else unsigned_leb128(int(token))


def unsigned_leb128(number: int) -> bytes:
    """Return an unsigned integer in LEB128: seven bits per byte, least significant first."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low]) if not rest else bytes([low | 0x80]) + unsigned_leb128(rest)


def signed_leb128(number: int) -> bytes:
    """Return a signed integer in LEB128. Bit 6 of the last byte is the sign."""
    low, rest = number & 0x7F, number >> 7
    is_last = (rest == 0 and not low & 0x40) or (rest == -1 and low & 0x40)
    return bytes([low]) if is_last else bytes([low | 0x80]) + signed_leb128(rest)


def encode_vector(items: Iterable[bytes]) -> bytes:
    """Return the number of items, then the items."""
    encoded = list(items)
    return unsigned_leb128(len(encoded)) + b"".join(encoded)


def encode_name(name: str) -> bytes:
    return unsigned_leb128(len(name)) + name.encode()
