"""The hot loop of the page's engine: a matrix product in WebAssembly with 128-bit vectors.

It multiplies A, in blocks of 4 rows, with B, in panels of 8 columns. The inner loop reads both sequentially and keeps a
4 x 8 tile of C in registers. `engine.js` has the same function in JavaScript, for browsers without SIMD.
"""

from cardigan.exports.webpage.wasm import assemble_module

ROWS, LANES = 4, 8
TILE = [[f"c{row}{half}" for half in "lr"] for row in range(ROWS)]


def matmul_module() -> bytes:
    """Return a module with `matmul(a, b, c, depth, blocks, panels)`: byte addresses of A, B and C, then the sizes.

    A is [blocks][depth][4], B is [panels][depth][8], C is [panels][4 * blocks][8]; all float32.
    """
    parameters = ["a", "b", "c", "depth", "blocks", "panels"]
    i32_locals = ["block", "panel", "here", "column", "end", "out"]
    return assemble_module(
        "matmul",
        parameters,
        i32_locals,
        ["left", "right", "weight", *[name for row in TILE for name in row]],
        _assembly(),
    )


def _assembly() -> str:
    """For each block of rows and each panel: C's tile = sum over depth of A's 4 values times B's 8 values."""
    return "\n".join(
        [
            "loop",
            *["local.get b", "local.set column", "i32.const 0", "local.set panel"],
            *["local.get c", *_multiply("block", ROWS * LANES * 4), "i32.add", "local.set out"],
            "loop",
            *[f"i32.const 0\ni32x4.splat\nlocal.set {name}" for row in TILE for name in row],
            *["local.get a", "local.set here"],
            *["local.get column", *_multiply("depth", LANES * 4), "i32.add", "local.set end"],
            "loop",
            *[
                "local.get column",
                "v128.load 0",
                "local.set left",
                "local.get column",
                "v128.load 16",
                "local.set right",
            ],
            *[line for row in range(ROWS) for line in _row_assembly(row)],
            *["local.get here", f"i32.const {ROWS * 4}", "i32.add", "local.set here"],
            *[
                "local.get column",
                f"i32.const {LANES * 4}",
                "i32.add",
                "local.tee column",
                "local.get end",
                "i32.ne",
                "br_if 0",
            ],
            "end",
            *[
                f"local.get out\nlocal.get {name}\nv128.store {16 * position}"
                for position, name in enumerate(name for row in TILE for name in row)
            ],
            *["local.get out", *_multiply("blocks", ROWS * LANES * 4), "i32.add", "local.set out"],
            *_increment_and_branch("panel", "panels"),
            "end",
            *["local.get a", *_multiply("depth", ROWS * 4), "i32.add", "local.set a"],
            *_increment_and_branch("block", "blocks"),
            "end",
        ]
    )


def _row_assembly(row: int) -> list[str]:
    lines = ["local.get here", f"v128.load32_splat {4 * row}", "local.set weight"]
    for name, operand in zip(TILE[row], ("left", "right"), strict=True):
        lines += [
            f"local.get {name}",
            "local.get weight",
            f"local.get {operand}",
            "f32x4.mul",
            "f32x4.add",
            f"local.set {name}",
        ]
    return lines


def _multiply(local: str, factor: int) -> list[str]:
    return [f"local.get {local}", f"i32.const {factor}", "i32.mul"]


def _increment_and_branch(counter: str, count: str) -> list[str]:
    """Increment the counter and continue the loop until it reaches the count."""
    return [
        f"local.get {counter}",
        "i32.const 1",
        "i32.add",
        f"local.tee {counter}",
        f"local.get {count}",
        "i32.ne",
        "br_if 0",
    ]
