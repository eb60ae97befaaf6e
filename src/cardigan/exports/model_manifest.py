"""C2PA manifests in model files: the text `c2pa:manifest` in the metadata of a safetensors or ONNX file.

The signature covers every byte of the file but the text itself (C2PA specification 2.4, the sections on both formats).
"""

import base64
import binascii
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cardigan.errors import CardiganError
from cardigan.figures.c2pa_manifest import (
    Manifest,
    SigningKey,
    created_action,
    detailed_assertions,
    read_manifest,
    sign,
)

SOURCE_TYPE = "http://c2pa.org/digitalsourcetype/trainedAlgorithmicData"
"""C2PA's name for data, such as weights, that came out of a training."""
MEDIA_TYPE = "application/octet-stream"
UNCHECKED = frozenset({"assertion.dataHash.mismatch"})
"""c2pa-python does not know where the manifest of a model file is, so it rejects every place: this module checks it."""
KEY = b"c2pa:manifest"
SAFETENSORS_KEY = b'"' + KEY + b'":"'
MAX_HEADER_BYTES = 2**26
FIRST_LENGTH, MAX_PASSES = 5_000, 6
"""Guess of the text's length, and how often it may be corrected: the text contains its own place and length."""
METADATA_PROPS, ENTRY_KEY, ENTRY_VALUE = b"\x72", b"\x0a", b"\x12"
"""Tags of the protocol buffer: ModelProto.metadata_props, StringStringEntryProto.key and .value."""


def sign_model(path: Path, signing: SigningKey, description: str) -> None:
    """Put a signed manifest into a safetensors or ONNX file: training made it, as `description` says."""
    embed, length = EMBEDDERS[_model_format(path)], FIRST_LENGTH
    unsigned = path.with_name(f"{path.name}.unsigned")
    path.rename(unsigned)
    try:
        for _ in range(MAX_PASSES):
            start = embed(unsigned, path, b"A" * length)
            text = base64.b64encode(_signed(path, signing, description, start, length))
            if len(text) == length:
                with path.open("rb+") as file:
                    file.seek(start)
                    file.write(text)
                return
            length = len(text)
    finally:
        unsigned.unlink()
    raise CardiganError("The manifest's length does not settle: leave out --c2pa-cert, and report this.")


def read_model_manifest(path: Path, trusted_roots: str = "") -> Manifest | None:
    """Return the manifest of a safetensors or ONNX file, checked, or None without one."""
    place = FINDERS[_model_format(path)](path)
    if place is None:
        return None
    start, length = place
    with path.open("rb") as file:
        file.seek(start)
        try:
            store = base64.b64decode(file.read(length), validate=True)
        except binascii.Error:
            return Manifest("", "", "", "", False, False, ("its text is damaged",))
        file.seek(0)
        manifest = read_manifest(MEDIA_TYPE, file, trusted_roots, store, UNCHECKED)
        if manifest is None or not manifest.valid:
            return manifest
        file.seek(0)
        assertions = detailed_assertions(MEDIA_TYPE, file, store)
    problem = _hash_problem(path, assertions, start, length)
    return replace(manifest, valid=False, trusted=False, problems=(problem,)) if problem else manifest


def is_model_file(path: Path) -> bool:
    """Return whether the file's name is that of a model that can have a manifest."""
    return path.suffix in EMBEDDERS


def _model_format(path: Path) -> str:
    """Return the suffix of a file, or of the file that it becomes."""
    assert is_model_file(path)
    return path.suffix


def _signed(path: Path, signing: SigningKey, description: str, start: int, length: int) -> bytes:
    """Return the manifest of a file whose text is at `start`."""
    data_hash = {
        "exclusions": [{"start": start, "length": length}],
        "name": "c2pa:manifest",
        "alg": "sha256",
        "hash": list(_sha256_without(path, start, length)),
        "pad": [],
    }
    assertions = [created_action(SOURCE_TYPE, description), {"label": "c2pa.hash.data", "data": data_hash}]
    with path.open("rb") as file:
        return sign(signing, assertions, MEDIA_TYPE, file)


def _sha256_without(path: Path, start: int, length: int) -> bytes:
    digest, chunk = hashlib.sha256(), 2**20
    with path.open("rb") as file:
        for offset in range(0, start, chunk):
            digest.update(file.read(min(chunk, start - offset)))
        file.seek(start + length)
        while content := file.read(chunk):
            digest.update(content)
    return digest.digest()


def _hash_problem(path: Path, assertions: dict[str, Any], start: int, length: int) -> str:
    """Return why the signed hash is not that of the whole file but the manifest's text, or nothing."""
    hashes = [content for label, content in assertions.items() if label.startswith("c2pa.hash.")]
    if len(hashes) != 1 or hashes[0].get("exclusions") != [{"start": start, "length": length}]:
        return "the signed hash leaves out other parts of the file"
    if hashes[0].get("alg") != "sha256":
        return "the signed hash is not a SHA-256"
    expected = base64.b64encode(_sha256_without(path, start, length)).decode()
    return "" if hashes[0].get("hash") == expected else "the file was changed after it was signed"


def _embed_safetensors(source: Path, out: Path, text: bytes) -> int:
    """Write the file with the text in its header; return the text's place. Tensors stay aligned to 8 bytes."""
    with source.open("rb") as file, out.open("wb") as target:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        metadata = {**header.pop("__metadata__", {}), KEY.decode(): text.decode()}
        content = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":"), ensure_ascii=False).encode()
        content += b" " * (-len(content) % 8)
        target.write(len(content).to_bytes(8, "little") + content)
        shutil.copyfileobj(file, target)
    return 8 + content.index(SAFETENSORS_KEY) + len(SAFETENSORS_KEY)


def _embed_onnx(source: Path, out: Path, text: bytes) -> int:
    """Append the text as an entry of the model's metadata; return the text's place."""
    before = ENTRY_KEY + _varint(len(KEY)) + KEY + ENTRY_VALUE + _varint(len(text))
    head = METADATA_PROPS + _varint(len(before) + len(text)) + before
    shutil.copyfile(source, out)
    with out.open("ab") as target:
        target.write(head + text)
    return source.stat().st_size + len(head)


def _find_safetensors(path: Path) -> tuple[int, int] | None:
    """Return place and length of the text. Raises CardiganError for a file that is no safetensors file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size) if size <= MAX_HEADER_BYTES else b""
    if len(header) != size or not header.startswith(b"{"):
        raise CardiganError(f"{path} is not a safetensors file that can be read: use another copy.")
    # Inside a JSON string the quotes would have backslashes, so this is always a key.
    found = list(re.finditer(re.escape(SAFETENSORS_KEY) + rb'([^"]*)"', header))
    _check_one(path, len(found))
    return (8 + found[0].start(1), len(found[0][1])) if found else None


def _find_onnx(path: Path) -> tuple[int, int] | None:
    """Return place and length of the text. Raises CardiganError for a file that is no protocol buffer."""
    places, size = [], path.stat().st_size
    key = ENTRY_KEY + _varint(len(KEY)) + KEY + ENTRY_VALUE
    with path.open("rb") as file:
        while file.tell() < size:
            tag = _read_varint(path, file)
            if tag & 7 != 2:  # a number, not a field with a length
                _read_varint(path, file)
                continue
            length = _read_varint(path, file)
            end = file.tell() + length
            if end > size:
                raise _no_onnx(path)
            if tag == METADATA_PROPS[0] and file.read(len(key)) == key:
                text_length = _read_varint(path, file)
                places.append((file.tell(), text_length))
            file.seek(end)
    _check_one(path, len(places))
    return places[0] if places else None


def _check_one(path: Path, count: int) -> None:
    if count > 1:
        raise CardiganError(f"{path} has {count} C2PA manifests, but one is allowed: trust none of them.")


def _varint(number: int) -> bytes:
    content = []
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    return bytes([*content, number])


def _read_varint(path: Path, file: io.BufferedIOBase) -> int:
    number = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        number |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return number
    raise _no_onnx(path)


def _no_onnx(path: Path) -> CardiganError:
    return CardiganError(f"{path} is not an ONNX file that can be read: use another copy.")


EMBEDDERS: dict[str, Callable[[Path, Path, bytes], int]] = {".safetensors": _embed_safetensors, ".onnx": _embed_onnx}
FINDERS: dict[str, Callable[[Path], tuple[int, int] | None]] = {
    ".safetensors": _find_safetensors,
    ".onnx": _find_onnx,
}
