"""Files that `torch.save` wrote: the zip archives of today and the streams from before PyTorch 1.6, of which torch's own reader would run the pickle.

Knows how named tensors lie in such a file; not what they mean.
"""

from collections.abc import Callable
from io import BytesIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch

from cardigan.models.foreign.restricted_unpickler import unpickle
from cardigan.models.foreign.tensor_storage import (
    Storage,
    StridedTensor,
    UnsupportedFile,
    check_storage_size,
    materialize_tensor,
)

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How the older files begin: a number chosen at random, pickled."""
LEGACY_PROTOCOL = 1001
ZIP_ENTRY_MAGIC = b"PK\x01\x02"
"""How each entry of an archive's list begins."""
MAX_ENTRIES = 10_000
ARCHIVE_ERRORS = (BadZipFile, OSError, EOFError, ValueError, KeyError, RuntimeError, NotImplementedError, OverflowError)
"""What the standard library raises for broken archives."""


def read_torch_tensors(content: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name. Raises Refused for what is no state_dict, is damaged, or asks for anything but tensors."""
    if content.startswith(ZIP_MAGIC):
        with _open_archive(content) as archive:
            root = _archive_root(archive)
            state_dict, _ = unpickle(_read_entry(archive, f"{root}data.pkl"))
            return _materialize_state_dict(
                state_dict, len(content), lambda storage: _read_entry(archive, f"{root}data/{storage.key}", storage)
            )
    state_dict, storages = _read_legacy(content)
    return _materialize_state_dict(state_dict, len(content), lambda storage: _storage_bytes(storages, storage))


def _materialize_state_dict(
    state_dict: object, max_bytes: int, read_storage: Callable[[Storage], bytes | memoryview]
) -> dict[str, torch.Tensor]:
    """Return the tensors that are described, no more of them than the file has bytes, whatever they share."""
    if type(state_dict) is not dict:
        raise UnsupportedFile(f"holds a {type(state_dict).__name__} and no state_dict: save netG.state_dict()")
    strided_tensors: dict[str, StridedTensor] = {}
    for name, value in state_dict.items():
        if type(name) is not str or type(value) is not StridedTensor:
            raise UnsupportedFile(
                f"holds a {type(value).__name__} called {str(name)[:80]!r} where a tensor was expected: save netG.state_dict() alone"
            )
        strided_tensors[name] = value
    if sum(value.num_bytes for value in strided_tensors.values()) > max_bytes:
        raise UnsupportedFile("describes tensors that are larger together than the file")
    storages = {value.storage.key: value.storage for value in strided_tensors.values()}
    if any(storages[value.storage.key] != value.storage for value in strided_tensors.values()):
        raise UnsupportedFile("describes the same numbers in two ways")
    if sum(storage.num_bytes for storage in storages.values()) > max_bytes:
        raise UnsupportedFile("describes more numbers than it has bytes for")
    contents = {key: bytearray(read_storage(storage)) for key, storage in storages.items()}
    return {name: materialize_tensor(contents[value.storage.key], value) for name, value in strided_tensors.items()}


def _open_archive(content: bytes) -> ZipFile:
    if content.count(ZIP_ENTRY_MAGIC) > MAX_ENTRIES:
        raise UnsupportedFile(f"is an archive of more than {MAX_ENTRIES:,} entries")
    try:
        return ZipFile(BytesIO(content))
    except ARCHIVE_ERRORS as error:
        raise UnsupportedFile(f"is a damaged archive ({_first_line(error)})") from None


def _archive_root(archive: ZipFile) -> str:
    """Return the folder that all entries lie in; nothing is unpacked to the disk, whatever they are called."""
    names = archive.namelist()
    root = names[0].partition("/")[0] + "/" if names else ""
    if len(set(names)) != len(names) or not all(
        name.startswith(root) and ".." not in name.split("/") for name in names
    ):
        raise UnsupportedFile(
            "is an archive whose entries do not lie in one folder, each under a name of its own: torch.save writes no such file"
        )
    if f"{root}data.pkl" not in names:
        raise UnsupportedFile("is a zip archive, but none that torch.save wrote (it has no data.pkl)")
    if f"{root}byteorder" in names and _read_entry(archive, f"{root}byteorder") != b"little":
        raise UnsupportedFile("was written on a big-endian machine: save it again on another")
    return root


def _read_entry(archive: ZipFile, name: str, storage: Storage | None = None) -> bytes:
    """Return an entry, which must be stored as it is: so it cannot be larger than the file.

    One of numbers is not read unless it has as many as are described: entries may lie in each other, and be many times the file together.
    """
    try:
        info = archive.getinfo(name)
        if info.compress_type != ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise UnsupportedFile(f"has a compressed entry {name[:80]!r}, and torch.save compresses none")
        if storage is not None:
            check_storage_size(storage, info.file_size)
        return archive.read(info)
    except ARCHIVE_ERRORS as error:
        raise UnsupportedFile(f"has a damaged entry {name[:80]!r} ({_first_line(error)})") from None


def _read_legacy(content: bytes) -> tuple[object, dict[str, memoryview]]:
    """Return what an older file describes, and the numbers behind it by name."""
    version, position = unpickle(content, len(LEGACY_MAGIC))
    system_info, position = unpickle(content, position)
    if version != LEGACY_PROTOCOL or type(system_info) is not dict or system_info.get("little_endian") is not True:
        raise UnsupportedFile(
            "was written by a version of PyTorch, or on a machine, that is not known: load and save it anew with torch"
        )
    state_dict, position = unpickle(content, position)
    keys, position = unpickle(content, position)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise UnsupportedFile("has no list of its numbers' names")
    sizes = (
        {
            value.storage.key: value.storage.dtype.itemsize
            for value in state_dict.values()
            if type(value) is StridedTensor
        }
        if type(state_dict) is dict
        else {}
    )
    storages: dict[str, memoryview] = {}
    for key in keys:
        count = int.from_bytes(content[position : position + 8], "little", signed=True)
        data_start = position + 8
        position = data_start + count * sizes.get(key, 0)
        if key not in sizes or count < 0 or position > len(content):
            raise UnsupportedFile("is cut off, or holds numbers that it does not describe")
        storages[key] = memoryview(content)[data_start:position]
    return state_dict, storages


def _storage_bytes(storages: dict[str, memoryview], storage: Storage) -> memoryview:
    if storage.key not in storages:
        raise UnsupportedFile("describes numbers that it does not hold")
    return storages[storage.key]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120].rstrip(".")
