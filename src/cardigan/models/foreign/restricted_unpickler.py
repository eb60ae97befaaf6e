"""The few words of Python's pickle language that a file of named tensors is written in, and no other.

A pickle is a program for a small machine with a stack. This machine of our own makes mappings, lists, tuples, text, numbers and descriptions of
tensors; the names in the file choose from the table `NAMES`, and nothing is ever imported, built or called. Whatever else a program asks for ends
its reading with a sentence that says what it was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pickletools import opcodes
from struct import unpack_from
from typing import Any

import torch

from cardigan.models.foreign.tensor_storage import Storage, StridedTensor, UnsupportedFile

MAX_PICKLE_BYTES = 2**20
"""A state_dict of a hundred layers takes 30,000."""
MAX_OPCODES = 100_000


@dataclass(frozen=True)
class AllowedGlobal:
    """Something from the table: what the program means by a name."""

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
    """Return what the program that begins at `position` makes, and where it ends; raises Refused for one that says anything unknown."""
    unpickler = RestrictedUnpickler(content[: position + MAX_PICKLE_BYTES], position)
    return unpickler.load(), unpickler.position


class RestrictedUnpickler:
    """The stack, the memory and the place in the program. No step looks deeper than one value, so nothing can be nested too deeply."""

    def __init__(self, content: bytes, position: int) -> None:
        self.content, self.position = content, position
        self.stack: list[Any] = []
        self.mark_stack: list[list[Any]] = []
        """The stacks under the marks."""
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        for _ in range(MAX_OPCODES):
            code = self.read(1)
            if code == b".":
                return self.pop()
            if code not in DISPATCH:
                raise UnsupportedFile(
                    f"asks for {_opcode_name(code)} at byte {self.position - 1:,}, which no file of weights needs and is never done"
                )
            DISPATCH[code](self)
        raise UnsupportedFile(f"is a program of more than {MAX_OPCODES:,} steps, which no file of weights needs")

    def read(self, count: int) -> bytes:
        view = self.content[self.position : self.position + count]
        if len(view) != count:
            raise UnsupportedFile(
                "is cut off in its description of the tensors, or that is longer than any file of weights needs"
            )
        self.position += count
        return view

    def read_number(self, struct_format: str, count: int) -> int:
        return unpack_from(struct_format, self.read(count))[0]

    def read_line(self) -> str:
        end = self.content.find(b"\n", self.position)
        if end < 0:
            raise UnsupportedFile("is cut off in a name")
        return _decode_text(self.read(end + 1 - self.position)[:-1])

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise UnsupportedFile("is no whole description of tensors (a value is missing)")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise UnsupportedFile(f"is no whole description of tensors (a {kind.__name__} is missing)")
        return self.stack[-1]

    def push_mark(self) -> None:
        self.mark_stack.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        if not self.mark_stack:
            raise UnsupportedFile("is no whole description of tensors (a mark is missing)")
        values, self.stack = self.stack, self.mark_stack.pop()
        return values

    def put_memo(self, index: int) -> None:
        if not self.stack:
            raise UnsupportedFile("is no whole description of tensors (a value is missing)")
        self.memo[index] = self.stack[-1]

    def get_memo(self, index: int) -> None:
        if index not in self.memo:
            raise UnsupportedFile("is no whole description of tensors (it recalls what it never remembered)")
        self.push(self.memo[index])

    def push_tuple(self, count: int) -> None:
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    def load_setitems(self, items: list[Any]) -> None:
        mapping = self.top(dict)
        if len(items) % 2:
            raise UnsupportedFile("is no whole description of tensors (a key has no value)")
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
                f"names {qualified_name[:80]!r}, which is no part of a file of weights and is never imported or called"
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
                f"calls {_value_name(function)} in a way that no file of weights does; nothing is ever called"
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
            raise UnsupportedFile("refers to something outside of itself that is no row of numbers")
        self.push(Storage(persistent_id[2], persistent_id[1], persistent_id[4]))

    def build(self) -> None:
        """Leave out what a mapping remembers beside its items: of a state_dict, the versions of its modules."""
        state = self.pop()
        if type(state) is not dict or not state.keys() <= {"_metadata"}:
            raise UnsupportedFile("sets the inner state of an object, which no file of weights needs and is never done")
        self.top(dict)


def _opcode_name(code: bytes) -> str:
    known = next((known.name for known in opcodes if known.code == code.decode("latin-1")), "")
    return f"the pickle step {known}" if known else f"an unknown pickle step {code!r}"


def _value_name(value: Any) -> str:
    return value.name if type(value) is AllowedGlobal else f"a {type(value).__name__}"


def _decode_text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise UnsupportedFile("has a text that is no UTF-8") from None


DISPATCH: dict[bytes, Callable[[RestrictedUnpickler], Any]] = {
    b"\x80": lambda machine: machine.read(1),  # PROTO
    b"\x95": lambda machine: machine.read(8),  # FRAME: how much could be read ahead
    b"(": RestrictedUnpickler.push_mark,
    b"N": lambda machine: machine.push(None),
    b"\x88": lambda machine: machine.push(True),
    b"\x89": lambda machine: machine.push(False),
    b"K": lambda machine: machine.push(machine.read_number("<B", 1)),
    b"M": lambda machine: machine.push(machine.read_number("<H", 2)),
    b"J": lambda machine: machine.push(machine.read_number("<i", 4)),
    b"\x8a": lambda machine: machine.push(
        int.from_bytes(machine.read(machine.read_number("<B", 1)), "little", signed=True)
    ),
    b"G": lambda machine: machine.push(unpack_from(">d", machine.read(8))[0]),
    b"X": lambda machine: machine.push(_decode_text(machine.read(machine.read_number("<I", 4)))),
    b"\x8c": lambda machine: machine.push(_decode_text(machine.read(machine.read_number("<B", 1)))),
    b"U": lambda machine: machine.push(_decode_text(machine.read(machine.read_number("<B", 1)))),  # text of Python 2
    b"}": lambda machine: machine.push({}),
    b"]": lambda machine: machine.push([]),
    b")": lambda machine: machine.push(()),
    b"\x85": lambda machine: machine.push_tuple(1),
    b"\x86": lambda machine: machine.push_tuple(2),
    b"\x87": lambda machine: machine.push_tuple(3),
    b"t": lambda machine: machine.push(tuple(machine.pop_mark())),
    b"s": lambda machine: machine.load_setitems([machine.pop(), machine.pop()][::-1]),
    b"u": lambda machine: machine.load_setitems(machine.pop_mark()),
    b"a": lambda machine: machine.load_appends([machine.pop()]),
    b"e": lambda machine: machine.load_appends(machine.pop_mark()),
    b"q": lambda machine: machine.put_memo(machine.read_number("<B", 1)),
    b"r": lambda machine: machine.put_memo(machine.read_number("<I", 4)),
    b"\x94": lambda machine: machine.put_memo(len(machine.memo)),
    b"h": lambda machine: machine.get_memo(machine.read_number("<B", 1)),
    b"j": lambda machine: machine.get_memo(machine.read_number("<I", 4)),
    b"c": lambda machine: machine.push_global(machine.read_line(), machine.read_line()),
    b"\x93": lambda machine: machine.push_global(*[machine.pop(), machine.pop()][::-1]),
    b"Q": RestrictedUnpickler.persistent_load,
    b"R": RestrictedUnpickler.reduce,
    b"b": RestrictedUnpickler.build,
}
"""What the machine can do, by the byte that asks for it."""
