"""Malicious files: their code is not run, allocations stay below the file size, and each raises a one-line error."""

import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from foreign_files import DcganExample, mxnet_arrays, params_bytes

import cardigan
from cardigan.errors import CardiganError
from cardigan.models.foreign.mxnet_params import read_mxnet_tensors
from cardigan.models.foreign.restricted_unpickler import unpickle
from cardigan.models.foreign.tensor_storage import UnsupportedFile
from cardigan.models.foreign.torch_state_dict import LEGACY_MAGIC, read_torch_tensors

TINY = {"latent": 2, "width": 1, "channels": 1, "doublings": 1}
MARKER = "marker-of-the-hostile-test"
OS_SYSTEM = b"cos\nsystem\n"
COMMAND = b"X" + struct.pack("<I", len(MARKER) + 6) + b"touch " + MARKER.encode()


def torch_file(program: bytes, data: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive in the format of torch.save with this pickle and these entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("archive/data.pkl", program)
        for name, content in (data or {}).items():
            archive.writestr(name, content)
    return buffer.getvalue()


def torch_save_bytes(content: object, archive: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


def text_opcode(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def int_opcode(number: int) -> bytes:
    return b"\x8a\x09" + number.to_bytes(9, "little", signed=True)


def tensor_record(
    count: int = 4, offset: int = 0, shape: tuple[int, ...] = (2, 2), strides: tuple[int, ...] = (2, 1), key: str = "0"
) -> bytes:
    """Return the pickle opcodes of one tensor."""
    storage = (
        b"("
        + text_opcode("storage")
        + b"ctorch\nFloatStorage\n"
        + text_opcode(key)
        + text_opcode("cpu")
        + int_opcode(count)
        + b"tQ"
    )
    numbers = [b"(" + b"".join(map(int_opcode, numbers)) + b"t" for numbers in (shape, strides)]
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + int_opcode(offset)
        + b"".join(numbers)
        + b"\x89"
        + b"ccollections\nOrderedDict\n)R"
        + b"tR"
    )


def one_tensor(**fields: object) -> bytes:
    return torch_file(b"\x80\x02}" + text_opcode("w") + tensor_record(**fields) + b"s.", {"archive/data/0": bytes(16)})  # pyright: ignore[reportArgumentType]


HOSTILE = {
    "reduce": OS_SYSTEM + b"(" + COMMAND + b"tR.",
    "in a dict": b"}" + text_opcode("main.0.weight") + OS_SYSTEM + b"(" + COMMAND + b"tRs.",
    "stack global": text_opcode("os") + text_opcode("system") + b"\x93(" + COMMAND + b"tR.",
    "stack global from memo": text_opcode("os") + b"\x94" + text_opcode("system") + b"\x94h\x00h\x01\x93.",
    "inst": b"(" + COMMAND + b"ios\nsystem\n.",
    "obj": b"(" + OS_SYSTEM + COMMAND + b"o.",
    "newobj": OS_SYSTEM + b"(" + COMMAND + b"t\x81.",
    "newobj ex": OS_SYSTEM + b"(" + COMMAND + b"t}\x92.",
    "ext1": b"\x82\x01.",
    "ext2": b"\x83\x01\x00.",
    "ext4": b"\x84\x01\x00\x00\x00.",
    "build": b"ccollections\nOrderedDict\n)R}" + text_opcode("__class__") + OS_SYSTEM + b"sb.",
    "build of a list": b"]" + b"}b.",
    "build a tuple's state": b"ccollections\nOrderedDict\n)R}}\x86b.",
    "eval": b"c__builtin__\neval\n(" + text_opcode("1") + b"tR.",
    "dotted name": b"ctorch\n_utils._rebuild_tensor_v2.__globals__\n.",
    "other torch function": b"ctorch.hub\nload\n.",
    "call of a storage": b"ctorch\nFloatStorage\n(K\x01tR.",
    "OrderedDict with items": b"ccollections\nOrderedDict\n(]tR.",
    "call of text": text_opcode("os.system") + b")R.",
    "call of itself": b"ctorch._utils\n_rebuild_tensor_v2\n" * 2 + b"R.",
    "persistent text": b"Pos.system\n.",
    "persistent list": b"]Q.",
    "persistent of another type": b"("
    + text_opcode("module")
    + b"ctorch\nFloatStorage\n"
    + text_opcode("0")
    + text_opcode("cpu")
    + b"K\x04tQ.",
    "long integer": b"\x8b" + struct.pack("<I", 2**31 - 1) + b"1.",
    "long text": b"X" + struct.pack("<I", 2**32 - 1) + b"a.",
    "very long text": b"\x8d" + struct.pack("<Q", 2**62) + b"a.",
    "decimal": b"I" + b"9" * 10_000 + b"\n.",
    "bytes": b"C\x01a.",
    "byte array": b"\x96" + struct.pack("<Q", 2**40) + b".",
    "key that is a list": b"}]K\x01s.",
    "key that is a tuple": b"}" + b")" * 2 + b"s.",
    "no stop": b"}",
    "nothing": b"",
    "only stop": b".",
    "pop nothing": b"0.",
    "items without a mark": b"}u.",
    "odd number of items": b"}(K\x01u.",
    "items of a list": b"](K\x01K\x02u.",
    "missing memo entry": b"h\x05.",
    "memoize nothing": b"q\x05.",
    "tuple of nothing": b"\x87.",
    "no name": b"cos\n",
    "name that is not UTF-8": b"c\xff\xfe\n\xff\n.",
    "text that is not UTF-8": b"X\x02\x00\x00\x00\xff\xff.",
    "unknown": b"\xfe.",
    "endless": b"}0" * 600 + b".",
    "many opcodes": b"K\x01" * 100_001 + b".",
    "list in itself": b"]\x94h\x00a.",
    "dict in itself": b"}\x94" + text_opcode("w") + b"h\x00s.",
}


@pytest.fixture(autouse=True)
def empty_cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(f"ran {command}"))
    yield
    assert not Path(MARKER).exists()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("archive", [True, False])
def test_hostile_pickles(name, archive):
    """Every hostile pickle in both file formats, with and without a PROTO opcode."""
    for header in (b"\x80\x02", b""):
        content = (
            torch_file(header + HOSTILE[name])
            if archive
            else LEGACY_MAGIC + b"M\xe9\x03." + b"}" + text_opcode("little_endian") + b"\x88s." + header + HOSTILE[name]
        )
        Path("netG.pth").write_bytes(content)
        with pytest.raises(CardiganError) as caught:
            cardigan.load("netG.pth")
        assert str(caught.value).startswith("netG.pth ")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


def test_forbidden_global_is_named():
    for name in ("reduce", "stack global", "stack global from memo", "obj", "newobj"):
        with pytest.raises(
            UnsupportedFile,
            match=r"names 'os\.system', which no weights file needs and is never imported or called",
        ):
            unpickle(HOSTILE[name])
    for name, opcode in (
        ("inst", "INST"),
        ("ext1", "EXT1"),
        ("bytes", "SHORT_BINBYTES"),
        ("persistent text", "PERSID"),
        ("decimal", "INT"),
    ):
        with pytest.raises(UnsupportedFile, match=rf"uses the pickle opcode {opcode} at byte \d"):
            unpickle(HOSTILE[name])


def test_nested_pickles_use_bounded_memory():
    programs = (
        b"(" * 5_000 + b".",
        b"]" * 5_000,
        b")" + b"\x85" * 5_000 + b".",
        b"K\x01r\xff\xff\xff\xff" * 2_000 + b".",
        b"}" + b"\x94h\x00" * 2_000,
    )
    tracemalloc.start()
    for program in programs:
        with pytest.raises(UnsupportedFile):
            read_torch_tensors(torch_file(program))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.parametrize(
    "fields",
    [
        {"offset": -1},
        {"offset": 1},
        {"offset": 2**63},
        {"offset": 2**39},
        {"count": -4},
        {"count": 0},
        {"count": 5},
        {"count": 3},
        {"count": 2**62},
        {"shape": (2,)},
        {"shape": (2, 3)},
        {"shape": (0, 2)},
        {"shape": (-2, -2)},
        {"shape": (2**40, 2**40)},
        {"shape": (2,) * 9, "strides": (0,) * 9},
        {"strides": (0, 0), "shape": (2**30, 2**30)},
        {"strides": (0, 0), "shape": (3, 2)},
        {"strides": (-1, 1)},
        {"strides": (4, 1)},
        {"strides": (2**62, 1)},
        {"key": "1"},
        {"key": "../../../etc/passwd"},
        {"key": ""},
    ],
    ids=str,
)
def test_tensors_beyond_their_storage(fields):
    assert read_torch_tensors(one_tensor())["w"].shape == (2, 2)
    with pytest.raises(UnsupportedFile):
        read_torch_tensors(one_tensor(**fields))


def test_overlapping_storages_use_bounded_memory():
    """Many tensors that share one storage would become many copies of it."""
    numbers = bytes(400_000)
    names = b"".join(
        text_opcode(f"w{number}") + tensor_record(count=100_000, shape=(100_000,), strides=(1,))
        for number in range(500)
    )
    content = torch_file(b"\x80\x02}(" + names + b"u.", {"archive/data/0": numbers})
    tracemalloc.start()
    with pytest.raises(UnsupportedFile, match="larger in total than the file"):
        read_torch_tensors(content)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    two = torch_file(
        b"\x80\x02}("
        + text_opcode("a")
        + tensor_record()
        + text_opcode("b")
        + tensor_record(count=3, shape=(3,), strides=(1,))
        + b"u.",
        {"archive/data/0": bytes(16)},
    )
    with pytest.raises(UnsupportedFile, match="in two ways"):
        read_torch_tensors(two)


def test_oversized_storage_entry_is_not_read():
    """Overlapping entries in a small file could fill the memory."""
    program = b"\x80\x02}" + text_opcode("w") + tensor_record(count=1, shape=(1,), strides=(1,)) + b"s."
    content = torch_file(program, {"archive/data/0": bytes(30_000_000)})
    tracemalloc.start()
    with pytest.raises(UnsupportedFile, match="30,000,000 bytes, but describes 1 numbers of 4 bytes"):
        read_torch_tensors(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_torch_zip_archives(recwarn):
    weights = DcganExample(**TINY).state_dict()
    bomb = torch_file(
        b"\x80\x02}" + text_opcode("w") + tensor_record(count=2**28, shape=(2**28,), strides=(1,)) + b"s.",
        {"archive/data/0": bytes(2**22)},
        zipfile.ZIP_DEFLATED,
    )
    program = b"\x80\x02}" + text_opcode("w") + tensor_record() + b"s."
    for content, message in (
        (bomb, "compressed"),
        (torch_file(program, {"archive/data/0": bytes(16)}, zipfile.ZIP_LZMA), "compressed"),
        (torch_file(program, {"archive/../../evil": b"", "archive/data/0": bytes(16)}), "are not in one folder"),
        (torch_file(program, {"../evil": b""}), "are not in one folder"),
        (torch_file(program, {"/evil": b""}), "are not in one folder"),
        (torch_file(program, {"archive/data.pkl": program}), "are not in one folder"),
        (torch_file(program, {"archive/byteorder": b"big"}), "big-endian"),
        (torch_file(program), "damaged entry 'archive/data/0'"),
        (torch_file(program, {"archive/data/0": bytes(15)}), "15 bytes, but describes 4 numbers of 4 bytes"),
        (torch_file(program, {f"archive/{number}": b"" for number in range(10_001)}), "more than 10,000 entries"),
        (zip_of_text(), "not from torch.save"),
    ):
        with pytest.raises(UnsupportedFile, match=message):
            read_torch_tensors(content)
    damaged = bytearray(torch_save_bytes(weights))
    damaged[damaged.index(weights["main.0.weight"].numpy().tobytes()) + 3] ^= 64
    with pytest.raises(UnsupportedFile, match="damaged entry"):
        read_torch_tensors(bytes(damaged))


def zip_of_text() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("letters/a.txt", b"a")
    return buffer.getvalue()


def test_inconsistent_legacy_files():
    system = b"}" + text_opcode("little_endian") + b"\x88s."
    tensor = b"}" + text_opcode("w") + tensor_record() + b"s."
    numbers = struct.pack("<q", 4) + bytes(16)
    good = LEGACY_MAGIC + b"M\xe9\x03." + system + tensor + b"](" + text_opcode("0") + b"e." + numbers
    assert read_torch_tensors(good)["w"].shape == (2, 2)
    for content in (
        good.replace(b"\xe9\x03", b"\xea\x03"),
        good.replace(b"\x88s.", b"\x89s."),
        good.replace(struct.pack("<q", 4) + bytes(4), struct.pack("<q", -4) + bytes(4)),
        good.replace(struct.pack("<q", 4) + bytes(4), struct.pack("<q", 2**62) + bytes(4)),
        good.replace(struct.pack("<q", 4) + bytes(4), struct.pack("<q", 3) + bytes(4)),
        LEGACY_MAGIC + b"M\xe9\x03." + system + tensor + b"].",
        LEGACY_MAGIC + b"M\xe9\x03." + system + tensor + b"](" + text_opcode("1") + b"e." + numbers,
        LEGACY_MAGIC + b"M\xe9\x03." + system + tensor + b"K\x01." + numbers,
        LEGACY_MAGIC,
    ):
        with pytest.raises(UnsupportedFile):
            read_torch_tensors(content)


@pytest.mark.parametrize("archive", [True, False])
def test_truncated_torch_files(archive):
    content = torch_save_bytes({"w": torch.ones(2, 2)}, archive)
    assert read_torch_tensors(content)["w"].shape == (2, 2)
    for length in range(len(LEGACY_MAGIC), len(content)):
        with pytest.raises(UnsupportedFile):
            read_torch_tensors(content[:length])
    whole = torch_save_bytes(DcganExample(**TINY).state_dict(), archive)
    for length in range(len(LEGACY_MAGIC), len(whole), 97):
        with pytest.raises(UnsupportedFile):
            read_torch_tensors(whole[:length])


def test_truncated_params_files():
    for version in (0, 1, 2, 3):
        content = params_bytes(mxnet_arrays(DcganExample(**TINY)), version)
        for length in range(len(content)):
            with pytest.raises(UnsupportedFile):
                read_mxnet_tensors(content[:length])


def test_inconsistent_params_files():
    one = params_bytes({"arg:g1_weight": torch.zeros(2, 2)})
    assert read_mxnet_tensors(one)["g1_weight"].shape == (2, 2)
    count, stype, axes, side, kind = 16, 28, 32, 36, 60
    for position, layout, value, message in (
        (count, "<Q", 2**62, "claims to hold"),
        (count, "<Q", 2, "axes|truncated|type"),
        (stype, "<i", 1, "sparse"),
        (axes, "<I", 0, "axes"),
        (axes, "<I", 2**31, "axes"),
        (axes, "<i", -1, "axes"),
        (side, "<q", 2**40, "larger than the file"),
        (side, "<q", -1, "larger than the file"),
        (side, "<q", 0, "empty"),
        (kind, "<i", 7, "type 7"),
        (kind, "<i", -1, "type"),
    ):
        damaged = bytearray(one)
        struct.pack_into(layout, damaged, position, value)
        with pytest.raises(UnsupportedFile, match=message):
            read_mxnet_tensors(bytes(damaged))
    for content in (
        one.replace(struct.pack("<Q", 13), struct.pack("<Q", 2**40)),
        one.replace(b"arg:g1", b"\xff\xff\xff:g1"),
    ):
        with pytest.raises(UnsupportedFile, match="name"):
            read_mxnet_tensors(content)
