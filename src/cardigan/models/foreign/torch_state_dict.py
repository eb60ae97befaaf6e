"""Read state dicts from `torch.save`: zip archives, and the legacy format from before PyTorch 1.6.

No pickle is executed.
"""

from collections.abc import Callable
from io import BytesIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch

from cardigan.errors import first_line
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
"""Magic bytes of legacy files: a pickled constant."""
LEGACY_PROTOCOL = 1001
ZIP_ENTRY_MAGIC = b"PK\x01\x02"
"""Magic bytes of a central directory entry."""
MAX_ENTRIES = 10_000
ARCHIVE_ERRORS = (BadZipFile, OSError, EOFError, ValueError, KeyError, RuntimeError, NotImplementedError, OverflowError)
"""Exceptions of the standard library for broken archives."""


def read_torch_tensors(content: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name.

    Raises UnsupportedFile if the file is damaged, is not a state dict, or contains anything but tensors.
    """
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
    """Return the described tensors. In total they may not be larger than the file, even if they share storages."""
    if type(state_dict) is not dict:
        raise UnsupportedFile(f"holds a {type(state_dict).__name__}, not a state_dict: save netG.state_dict()")
    strided_tensors: dict[str, StridedTensor] = {}
    for name, value in state_dict.items():
        if type(name) is not str or type(value) is not StridedTensor:
            raise UnsupportedFile(
                f"holds a {type(value).__name__} named {str(name)[:80]!r} where a tensor was expected: "
                "save only netG.state_dict()"
            )
        strided_tensors[name] = value
    if sum(value.num_bytes for value in strided_tensors.values()) > max_bytes:
        raise UnsupportedFile("describes tensors that are larger in total than the file")
    storages = {value.storage.key: value.storage for value in strided_tensors.values()}
    if any(storages[value.storage.key] != value.storage for value in strided_tensors.values()):
        raise UnsupportedFile("describes the same storage in two ways")
    if sum(storage.num_bytes for storage in storages.values()) > max_bytes:
        raise UnsupportedFile("describes storages that are larger in total than the file")
    contents = {key: bytearray(read_storage(storage)) for key, storage in storages.items()}
    return {name: materialize_tensor(contents[value.storage.key], value) for name, value in strided_tensors.items()}


def _open_archive(content: bytes) -> ZipFile:
    if content.count(ZIP_ENTRY_MAGIC) > MAX_ENTRIES:
        raise UnsupportedFile(f"is an archive of more than {MAX_ENTRIES:,} entries")
    try:
        return ZipFile(BytesIO(content))
    except ARCHIVE_ERRORS as error:
        raise UnsupportedFile(f"is a damaged archive ({first_line(error)})") from None


def _archive_root(archive: ZipFile) -> str:
    """Return the common root folder of all entries. Nothing is extracted to disk."""
    names = archive.namelist()
    root = names[0].partition("/")[0] + "/" if names else ""
    if len(set(names)) != len(names) or not all(
        name.startswith(root) and ".." not in name.split("/") for name in names
    ):
        raise UnsupportedFile(
            "is an archive whose entries are not in one folder with unique names: torch.save does not write such files"
        )
    if f"{root}data.pkl" not in names:
        raise UnsupportedFile("is a zip archive, but not from torch.save (it has no data.pkl)")
    if f"{root}byteorder" in names and _read_entry(archive, f"{root}byteorder") != b"little":
        raise UnsupportedFile("was written on a big-endian machine: save it on a little-endian one")
    return root


def _read_entry(archive: ZipFile, name: str, storage: Storage | None = None) -> bytes:
    """Return an entry. It must be uncompressed, so it cannot be larger than the file.

    The size of a storage is checked before reading, because overlapping entries could be many times the file in total.
    """
    try:
        info = archive.getinfo(name)
        if info.compress_type != ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise UnsupportedFile(f"has a compressed entry {name[:80]!r}; torch.save does not compress")
        if storage is not None:
            check_storage_size(storage, info.file_size)
        return archive.read(info)
    except ARCHIVE_ERRORS as error:
        raise UnsupportedFile(f"has a damaged entry {name[:80]!r} ({first_line(error)})") from None


def _read_legacy(content: bytes) -> tuple[object, dict[str, memoryview]]:
    """Return the unpickled state dict of a legacy file, and its storages by key."""
    version, position = unpickle(content, len(LEGACY_MAGIC))
    system_info, position = unpickle(content, position)
    if version != LEGACY_PROTOCOL or type(system_info) is not dict or system_info.get("little_endian") is not True:
        raise UnsupportedFile(
            "is from an unknown version of PyTorch or an unknown machine: load and save it again with torch"
        )
    state_dict, position = unpickle(content, position)
    keys, position = unpickle(content, position)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise UnsupportedFile("has no list of storage keys")
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
            raise UnsupportedFile("is truncated, or holds storages that it does not describe")
        storages[key] = memoryview(content)[data_start:position]
    return state_dict, storages


def _storage_bytes(storages: dict[str, memoryview], storage: Storage) -> memoryview:
    if storage.key not in storages:
        raise UnsupportedFile("describes a storage that it does not hold")
    return storages[storage.key]
