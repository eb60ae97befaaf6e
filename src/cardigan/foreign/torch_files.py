"""Files that `torch.save` wrote: the zip archives of today and the streams from before PyTorch 1.6, of which torch's own reader would run the pickle.

Knows how named tensors lie in such a file; not what they mean.
"""

from collections.abc import Callable
from io import BytesIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch

from cardigan.foreign.described import Refused, Storage, Strided, check_size, tensor_of
from cardigan.foreign.pickled import unpickled

ZIP = b"PK\x03\x04"
STREAM = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How the older files begin: a number chosen at random, pickled."""
STREAM_VERSION = 1001
LISTED = b"PK\x01\x02"
"""How each entry of an archive's list begins."""
MOST_ENTRIES = 10_000
DAMAGE = (BadZipFile, OSError, EOFError, ValueError, KeyError, RuntimeError, NotImplementedError, OverflowError)
"""What the standard library raises for broken archives."""


def torch_tensors(content: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name. Raises Refused for what is no state_dict, is damaged, or asks for anything but tensors."""
    if content.startswith(ZIP):
        with _archive(content) as archive:
            root = _root(archive)
            made, _ = unpickled(_entry(archive, f"{root}data.pkl"))
            return _tensors(made, len(content), lambda storage: _entry(archive, f"{root}data/{storage.key}", storage))
    made, storages = _stream(content)
    return _tensors(made, len(content), lambda storage: _found(storages, storage))


def _tensors(made: object, most_bytes: int, content_of: Callable[[Storage], bytes | memoryview]) -> dict[str, torch.Tensor]:
    """Return the tensors that are described, no more of them than the file has bytes, whatever they share."""
    if type(made) is not dict:
        raise Refused(f"holds a {type(made).__name__} and no state_dict: save netG.state_dict()")
    described: dict[str, Strided] = {}
    for name, value in made.items():
        if type(name) is not str or type(value) is not Strided:
            raise Refused(f"holds a {type(value).__name__} called {str(name)[:80]!r} where a tensor was expected: save netG.state_dict() alone")
        described[name] = value
    if sum(value.num_bytes for value in described.values()) > most_bytes:
        raise Refused("describes tensors that are larger together than the file")
    storages = {value.storage.key: value.storage for value in described.values()}
    if any(storages[value.storage.key] != value.storage for value in described.values()):
        raise Refused("describes the same numbers in two ways")
    if sum(storage.num_bytes for storage in storages.values()) > most_bytes:
        raise Refused("describes more numbers than it has bytes for")
    contents = {key: bytearray(content_of(storage)) for key, storage in storages.items()}
    return {name: tensor_of(contents[value.storage.key], value) for name, value in described.items()}


def _archive(content: bytes) -> ZipFile:
    if content.count(LISTED) > MOST_ENTRIES:
        raise Refused(f"is an archive of more than {MOST_ENTRIES:,} entries")
    try:
        return ZipFile(BytesIO(content))
    except DAMAGE as error:
        raise Refused(f"is a damaged archive ({_first_line(error)})") from None


def _root(archive: ZipFile) -> str:
    """Return the folder that all entries lie in; nothing is unpacked to the disk, whatever they are called."""
    names = archive.namelist()
    root = names[0].partition("/")[0] + "/" if names else ""
    if len(set(names)) != len(names) or not all(name.startswith(root) and ".." not in name.split("/") for name in names):
        raise Refused("is an archive whose entries do not lie in one folder, each under a name of its own: torch.save writes no such file")
    if f"{root}data.pkl" not in names:
        raise Refused("is a zip archive, but none that torch.save wrote (it has no data.pkl)")
    if f"{root}byteorder" in names and _entry(archive, f"{root}byteorder") != b"little":
        raise Refused("was written on a big-endian machine: save it again on another")
    return root


def _entry(archive: ZipFile, name: str, storage: Storage | None = None) -> bytes:
    """Return an entry, which must be stored as it is: so it cannot be larger than the file.

    One of numbers is not read unless it has as many as are described: entries may lie in each other, and be many times the file together.
    """
    try:
        info = archive.getinfo(name)
        if info.compress_type != ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise Refused(f"has a compressed entry {name[:80]!r}, and torch.save compresses none")
        if storage is not None:
            check_size(storage, info.file_size)
        return archive.read(info)
    except DAMAGE as error:
        raise Refused(f"has a damaged entry {name[:80]!r} ({_first_line(error)})") from None


def _stream(content: bytes) -> tuple[object, dict[str, memoryview]]:
    """Return what an older file describes, and the numbers behind it by name."""
    version, position = unpickled(content, len(STREAM))
    system, position = unpickled(content, position)
    if version != STREAM_VERSION or type(system) is not dict or system.get("little_endian") is not True:
        raise Refused("was written by a version of PyTorch, or on a machine, that is not known: load and save it anew with torch")
    made, position = unpickled(content, position)
    keys, position = unpickled(content, position)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise Refused("has no list of its numbers' names")
    sizes = {value.storage.key: value.storage.dtype.itemsize for value in made.values() if type(value) is Strided} if type(made) is dict else {}
    storages: dict[str, memoryview] = {}
    for key in keys:
        count = int.from_bytes(content[position : position + 8], "little", signed=True)
        begin = position + 8
        position = begin + count * sizes.get(key, 0)
        if key not in sizes or count < 0 or position > len(content):
            raise Refused("is cut off, or holds numbers that it does not describe")
        storages[key] = memoryview(content)[begin:position]
    return made, storages


def _found(storages: dict[str, memoryview], storage: Storage) -> memoryview:
    if storage.key not in storages:
        raise Refused("describes numbers that it does not hold")
    return storages[storage.key]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120].rstrip(".")
