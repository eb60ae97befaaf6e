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

from cardigan.foreign.described import Refused, Storage, Strided

MOST_BYTES = 2**20
"""A state_dict of a hundred layers takes 30,000."""
MOST_STEPS = 100_000


@dataclass(frozen=True)
class Named:
    """Something from the table: what the program means by a name."""

    name: str


MAPPING, TENSOR, PARAMETER = Named("mapping"), Named("tensor"), Named("parameter")
NAMES: dict[str, Named | torch.dtype] = {
    "collections.OrderedDict": MAPPING,
    "torch._utils._rebuild_tensor_v2": TENSOR,
    "torch._utils._rebuild_parameter": PARAMETER,
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
}


def unpickled(content: bytes, position: int = 0) -> tuple[Any, int]:
    """Return what the program that begins at `position` makes, and where it ends; raises Refused for one that says anything unknown."""
    machine = Machine(content[: position + MOST_BYTES], position)
    return machine.made(), machine.position


class Machine:
    """The stack, the memory and the place in the program. No step looks deeper than one value, so nothing can be nested too deeply."""

    def __init__(self, program: bytes, position: int) -> None:
        self.program, self.position = program, position
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """The stacks under the marks."""
        self.memory: dict[int, Any] = {}

    def made(self) -> Any:
        for _ in range(MOST_STEPS):
            code = self.taken(1)
            if code == b".":
                return self.pop()
            if code not in STEPS:
                raise Refused(f"asks for {_opcode(code)} at byte {self.position - 1:,}, which no file of weights needs and is never done")
            STEPS[code](self)
        raise Refused(f"is a program of more than {MOST_STEPS:,} steps, which no file of weights needs")

    def taken(self, count: int) -> bytes:
        taken = self.program[self.position : self.position + count]
        if len(taken) != count:
            raise Refused("is cut off in its description of the tensors, or that is longer than any file of weights needs")
        self.position += count
        return taken

    def number(self, kind: str, count: int) -> int:
        return unpack_from(kind, self.taken(count))[0]

    def line(self) -> str:
        end = self.program.find(b"\n", self.position)
        if end < 0:
            raise Refused("is cut off in a name")
        return _text(self.taken(end + 1 - self.position)[:-1])

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise Refused("is no whole description of tensors (a value is missing)")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise Refused(f"is no whole description of tensors (a {kind.__name__} is missing)")
        return self.stack[-1]

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        if not self.below:
            raise Refused("is no whole description of tensors (a mark is missing)")
        values, self.stack = self.stack, self.below.pop()
        return values

    def remember(self, place: int) -> None:
        if not self.stack:
            raise Refused("is no whole description of tensors (a value is missing)")
        self.memory[place] = self.stack[-1]

    def recall(self, place: int) -> None:
        if place not in self.memory:
            raise Refused("is no whole description of tensors (it recalls what it never remembered)")
        self.push(self.memory[place])

    def pushed_tuple(self, count: int) -> None:
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    def set_items(self, items: list[Any]) -> None:
        mapping = self.top(dict)
        if len(items) % 2:
            raise Refused("is no whole description of tensors (a key has no value)")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise Refused(f"has a key that is a {type(key).__name__}: expected text")
            mapping[key] = value

    def add_items(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def name(self, module: Any, name: Any) -> None:
        full = f"{module}.{name}" if type(module) is type(name) is str else ""
        if full not in NAMES:
            raise Refused(f"names {full[:80]!r}, which is no part of a file of weights and is never imported or called")
        self.push(NAMES[full])

    def call(self) -> None:
        given, called = self.pop(), self.pop()
        if called is MAPPING and given == ():
            self.push({})
        elif (
            called is TENSOR
            and type(given) is tuple
            and 6 <= len(given) <= 7
            and type(given[0]) is Storage
            and type(given[2]) is type(given[3]) is tuple
        ):
            self.push(Strided(*given[:4]))
        elif called is PARAMETER and type(given) is tuple and len(given) == 3 and type(given[0]) is Strided:
            self.push(given[0])
        else:
            raise Refused(f"calls {_kind(called)} in a way that no file of weights does; nothing is ever called")

    def persistent(self) -> None:
        given = self.pop()
        if (
            type(given) is not tuple
            or not 5 <= len(given) <= 6
            or given[0] != "storage"
            or type(given[1]) is not torch.dtype
            or given[5:] not in ((), (None,))
        ):
            raise Refused("refers to something outside of itself that is no row of numbers")
        self.push(Storage(given[2], given[1], given[4]))

    def set_state(self) -> None:
        """Leave out what a mapping remembers beside its items: of a state_dict, the versions of its modules."""
        state = self.pop()
        if type(state) is not dict or not state.keys() <= {"_metadata"}:
            raise Refused("sets the inner state of an object, which no file of weights needs and is never done")
        self.top(dict)


def _opcode(code: bytes) -> str:
    known = next((known.name for known in opcodes if known.code == code.decode("latin-1")), "")
    return f"the pickle step {known}" if known else f"an unknown pickle step {code!r}"


def _kind(value: Any) -> str:
    return value.name if type(value) is Named else f"a {type(value).__name__}"


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Refused("has a text that is no UTF-8") from None


STEPS: dict[bytes, Callable[[Machine], Any]] = {
    b"\x80": lambda machine: machine.taken(1),  # PROTO
    b"\x95": lambda machine: machine.taken(8),  # FRAME: how much could be read ahead
    b"(": Machine.mark,
    b"N": lambda machine: machine.push(None),
    b"\x88": lambda machine: machine.push(True),
    b"\x89": lambda machine: machine.push(False),
    b"K": lambda machine: machine.push(machine.number("<B", 1)),
    b"M": lambda machine: machine.push(machine.number("<H", 2)),
    b"J": lambda machine: machine.push(machine.number("<i", 4)),
    b"\x8a": lambda machine: machine.push(int.from_bytes(machine.taken(machine.number("<B", 1)), "little", signed=True)),
    b"G": lambda machine: machine.push(unpack_from(">d", machine.taken(8))[0]),
    b"X": lambda machine: machine.push(_text(machine.taken(machine.number("<I", 4)))),
    b"\x8c": lambda machine: machine.push(_text(machine.taken(machine.number("<B", 1)))),
    b"U": lambda machine: machine.push(_text(machine.taken(machine.number("<B", 1)))),  # text of Python 2
    b"}": lambda machine: machine.push({}),
    b"]": lambda machine: machine.push([]),
    b")": lambda machine: machine.push(()),
    b"\x85": lambda machine: machine.pushed_tuple(1),
    b"\x86": lambda machine: machine.pushed_tuple(2),
    b"\x87": lambda machine: machine.pushed_tuple(3),
    b"t": lambda machine: machine.push(tuple(machine.since_mark())),
    b"s": lambda machine: machine.set_items([machine.pop(), machine.pop()][::-1]),
    b"u": lambda machine: machine.set_items(machine.since_mark()),
    b"a": lambda machine: machine.add_items([machine.pop()]),
    b"e": lambda machine: machine.add_items(machine.since_mark()),
    b"q": lambda machine: machine.remember(machine.number("<B", 1)),
    b"r": lambda machine: machine.remember(machine.number("<I", 4)),
    b"\x94": lambda machine: machine.remember(len(machine.memory)),
    b"h": lambda machine: machine.recall(machine.number("<B", 1)),
    b"j": lambda machine: machine.recall(machine.number("<I", 4)),
    b"c": lambda machine: machine.name(machine.line(), machine.line()),
    b"\x93": lambda machine: machine.name(*[machine.pop(), machine.pop()][::-1]),
    b"Q": Machine.persistent,
    b"R": Machine.call,
    b"b": Machine.set_state,
}
"""What the machine can do, by the byte that asks for it."""
