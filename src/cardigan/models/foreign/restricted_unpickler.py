"""An unpickler for state dicts that supports only the opcodes they need.

A pickle is a program for a stack machine. This implementation creates only dicts, lists, tuples, text, numbers and
tensor descriptions. Global names must be in `ALLOWED_GLOBALS`, and nothing is imported, instantiated or called. Any
other opcode or name raises UnsupportedFile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pickletools import opcodes
from struct import unpack_from
from typing import Any

import torch

from cardigan.models.foreign.tensor_storage import Storage, StridedTensor, UnsupportedFile

MAX_PICKLE_BYTES = 2**20
"""A state dict of a hundred layers takes 30,000."""
MAX_OPCODES = 100_000


@dataclass(frozen=True)
class AllowedGlobal:
    """A callable that a pickle may name. It is never imported; `reduce` emulates it."""

    name: str


ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER = (
    AllowedGlobal("mapping"),
    AllowedGlobal("tensor"),
    AllowedGlobal("parameter"),
)
ALLOWED_GLOBALS: dict[str, AllowedGlobal | torch.dtype] = {
    "collections.OrderedDict": ORDERED_DICT,
    "torch._utils._rebuild_tensor_v2": REBUILD_TENSOR,
    "torch._utils._rebuild_parameter": REBUILD_PARAMETER,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
}


def unpickle(content: bytes, position: int = 0) -> tuple[Any, int]:
    """Return the value of the pickle at `position`, and its end. Raises UnsupportedFile for unsupported content."""
    unpickler = RestrictedUnpickler(content[: position + MAX_PICKLE_BYTES], position)
    return unpickler.load(), unpickler.position


class RestrictedUnpickler:
    """Stack, memo and position of a pickle. No opcode recurses into values, so deep nesting is harmless."""

    def __init__(self, content: bytes, position: int) -> None:
        self.content, self.position = content, position
        self.stack: list[Any] = []
        self.mark_stack: list[list[Any]] = []
        """The stacks below the marks."""
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        for _ in range(MAX_OPCODES):
            code = self.read(1)
            if code == b".":
                return self.pop()
            if code not in DISPATCH:
                raise UnsupportedFile(
                    f"uses {_opcode_name(code)} at byte {self.position - 1:,}, which no weights file needs and is "
                    "never executed"
                )
            DISPATCH[code](self)
        raise UnsupportedFile(f"has more than {MAX_OPCODES:,} pickle opcodes, which no weights file needs")

    def read(self, count: int) -> bytes:
        view = self.content[self.position : self.position + count]
        if len(view) != count:
            raise UnsupportedFile(
                "is truncated in its tensor descriptions, or they are longer than any weights file needs"
            )
        self.position += count
        return view

    def read_number(self, struct_format: str, count: int) -> int:
        return unpack_from(struct_format, self.read(count))[0]

    def read_line(self) -> str:
        end = self.content.find(b"\n", self.position)
        if end < 0:
            raise UnsupportedFile("is truncated in a name")
        return _decode_text(self.read(end + 1 - self.position)[:-1])

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise UnsupportedFile("has incomplete tensor descriptions (a value is missing)")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise UnsupportedFile(f"has incomplete tensor descriptions (a {kind.__name__} is missing)")
        return self.stack[-1]

    def push_mark(self) -> None:
        self.mark_stack.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        if not self.mark_stack:
            raise UnsupportedFile("has incomplete tensor descriptions (a mark is missing)")
        values, self.stack = self.stack, self.mark_stack.pop()
        return values

    def put_memo(self, index: int) -> None:
        if not self.stack:
            raise UnsupportedFile("has incomplete tensor descriptions (a value is missing)")
        self.memo[index] = self.stack[-1]

    def get_memo(self, index: int) -> None:
        if index not in self.memo:
            raise UnsupportedFile("has incomplete tensor descriptions (a memo entry is missing)")
        self.push(self.memo[index])

    def push_tuple(self, count: int) -> None:
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    def load_setitems(self, items: list[Any]) -> None:
        mapping = self.top(dict)
        if len(items) % 2:
            raise UnsupportedFile("has incomplete tensor descriptions (a key has no value)")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise UnsupportedFile(f"has a key that is a {type(key).__name__}: expected text")
            mapping[key] = value

    def load_appends(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def push_global(self, module: Any, name: Any) -> None:
        qualified_name = f"{module}.{name}" if type(module) is type(name) is str else ""
        if qualified_name not in ALLOWED_GLOBALS:
            raise UnsupportedFile(
                f"names {qualified_name[:80]!r}, which no weights file needs and is never imported or called"
            )
        self.push(ALLOWED_GLOBALS[qualified_name])

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if function is ORDERED_DICT and arguments == ():
            self.push({})
        elif (
            function is REBUILD_TENSOR
            and type(arguments) is tuple
            and 6 <= len(arguments) <= 7
            and type(arguments[0]) is Storage
            and type(arguments[2]) is type(arguments[3]) is tuple
        ):
            self.push(StridedTensor(*arguments[:4]))
        elif (
            function is REBUILD_PARAMETER
            and type(arguments) is tuple
            and len(arguments) == 3
            and type(arguments[0]) is StridedTensor
        ):
            self.push(arguments[0])
        else:
            raise UnsupportedFile(
                f"calls {_value_name(function)} in a way that no weights file does; nothing is ever called"
            )

    def persistent_load(self) -> None:
        persistent_id = self.pop()
        if (
            type(persistent_id) is not tuple
            or not 5 <= len(persistent_id) <= 6
            or persistent_id[0] != "storage"
            or type(persistent_id[1]) is not torch.dtype
            or persistent_id[5:] not in ((), (None,))
        ):
            raise UnsupportedFile("refers to an external object that is not a storage")
        self.push(Storage(persistent_id[2], persistent_id[1], persistent_id[4]))

    def build(self) -> None:
        """Ignore the `_metadata` attribute of a state dict, which holds module versions."""
        state = self.pop()
        if type(state) is not dict or not state.keys() <= {"_metadata"}:
            raise UnsupportedFile("sets the state of an object, which no weights file needs and is never executed")
        self.top(dict)


def _opcode_name(code: bytes) -> str:
    known = next((opcode.name for opcode in opcodes if opcode.code == code.decode("latin-1")), "")
    return f"the pickle opcode {known}" if known else f"an unknown pickle opcode {code!r}"


def _value_name(value: Any) -> str:
    return value.name if type(value) is AllowedGlobal else f"a {type(value).__name__}"


def _decode_text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise UnsupportedFile("has text that is not UTF-8") from None


DISPATCH: dict[bytes, Callable[[RestrictedUnpickler], Any]] = {
    b"\x80": lambda unpickler: unpickler.read(1),  # PROTO
    b"\x95": lambda unpickler: unpickler.read(8),  # FRAME: its length
    b"(": RestrictedUnpickler.push_mark,
    b"N": lambda unpickler: unpickler.push(None),
    b"\x88": lambda unpickler: unpickler.push(True),
    b"\x89": lambda unpickler: unpickler.push(False),
    b"K": lambda unpickler: unpickler.push(unpickler.read_number("<B", 1)),
    b"M": lambda unpickler: unpickler.push(unpickler.read_number("<H", 2)),
    b"J": lambda unpickler: unpickler.push(unpickler.read_number("<i", 4)),
    b"\x8a": lambda unpickler: unpickler.push(
        int.from_bytes(unpickler.read(unpickler.read_number("<B", 1)), "little", signed=True)
    ),
    b"G": lambda unpickler: unpickler.push(unpack_from(">d", unpickler.read(8))[0]),
    b"X": lambda unpickler: unpickler.push(_decode_text(unpickler.read(unpickler.read_number("<I", 4)))),
    b"\x8c": lambda unpickler: unpickler.push(_decode_text(unpickler.read(unpickler.read_number("<B", 1)))),
    # SHORT_BINSTRING of Python 2.
    b"U": lambda unpickler: unpickler.push(_decode_text(unpickler.read(unpickler.read_number("<B", 1)))),
    b"}": lambda unpickler: unpickler.push({}),
    b"]": lambda unpickler: unpickler.push([]),
    b")": lambda unpickler: unpickler.push(()),
    b"\x85": lambda unpickler: unpickler.push_tuple(1),
    b"\x86": lambda unpickler: unpickler.push_tuple(2),
    b"\x87": lambda unpickler: unpickler.push_tuple(3),
    b"t": lambda unpickler: unpickler.push(tuple(unpickler.pop_mark())),
    b"s": lambda unpickler: unpickler.load_setitems([unpickler.pop(), unpickler.pop()][::-1]),
    b"u": lambda unpickler: unpickler.load_setitems(unpickler.pop_mark()),
    b"a": lambda unpickler: unpickler.load_appends([unpickler.pop()]),
    b"e": lambda unpickler: unpickler.load_appends(unpickler.pop_mark()),
    b"q": lambda unpickler: unpickler.put_memo(unpickler.read_number("<B", 1)),
    b"r": lambda unpickler: unpickler.put_memo(unpickler.read_number("<I", 4)),
    b"\x94": lambda unpickler: unpickler.put_memo(len(unpickler.memo)),
    b"h": lambda unpickler: unpickler.get_memo(unpickler.read_number("<B", 1)),
    b"j": lambda unpickler: unpickler.get_memo(unpickler.read_number("<I", 4)),
    b"c": lambda unpickler: unpickler.push_global(unpickler.read_line(), unpickler.read_line()),
    b"\x93": lambda unpickler: unpickler.push_global(*[unpickler.pop(), unpickler.pop()][::-1]),
    b"Q": RestrictedUnpickler.persistent_load,
    b"R": RestrictedUnpickler.reduce,
    b"b": RestrictedUnpickler.build,
}
"""The supported opcodes."""
