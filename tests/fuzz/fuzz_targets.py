"""Fuzz targets: every reader of untrusted bytes, with valid seed files and a way to damage the unpacked content."""

import gzip
import io
import json
import random
import struct
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cardigan.cli.train import _read_settings
from cardigan.config import Config
from cardigan.config_parts import DataConfig, EmaConfig, LatentConfig, NetworkConfig
from cardigan.data.decoding import DecodeSpec, decode_image
from cardigan.data.formats.archives import tar_reader, zip_reader
from cardigan.data.formats.idx import idx_reader
from cardigan.data.formats.label_files import read_label_rows
from cardigan.data.formats.numpy_files import npy_reader, npz_reader
from cardigan.data.reader import Reader, UnreadableImage
from cardigan.data.source import image_spec
from cardigan.data.webdataset.byte_stream import open_shard as opened_stream
from cardigan.data.webdataset.tar import read_images
from cardigan.health.diagnosis import diagnose_path
from cardigan.models.foreign.reader import read_foreign_generator
from cardigan.models.snapshot import Snapshot, read_snapshot, write_snapshot
from cardigan.nets.table import build_generator
from cardigan.overrides import from_dict, to_dict
from cardigan.run.checkpoint import CheckpointMetadata, read_checkpoint, save_checkpoint
from cardigan.run.directory import RunDirectory, read_config
from cardigan.run.journal import read_events
from cardigan.studio.run_series import RunSeries
from cardigan.studio.upload import decode_upload

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "foreign"))
from foreign_files import DcganExample, mxnet_arrays, params_bytes
from mutations import mutate

SPEC = DecodeSpec(8, 8, 3, "crop", 1_000_000)
READ_LIMIT = 3
"""Number of images that are read from a source."""


@dataclass(frozen=True)
class FuzzTarget:
    """A reader under test."""

    seed_files: Callable[[Path], Sequence[bytes]]
    """Returns valid files. May write into an empty folder."""
    read: Callable[[Path, bytes], object]
    """Reads the content; may write it into the folder. Raises CardiganError or UnreadableImage for invalid content."""
    unpack: Callable[[bytes], bytes] = bytes
    """Returns the content of a valid file that is protected by a checksum. `pack` writes it back."""
    pack: Callable[[bytes, bytes], bytes] = lambda inside, _: inside


def _config(**generator: object) -> Config:
    return Config(
        data=DataConfig(source="mnist", height=8, width=8),
        latent=LatentConfig(size=4),
        generator=NetworkConfig(width=2, **generator),  # pyright: ignore[reportArgumentType]
        discriminator=NetworkConfig(width=2),
        ema=EmaConfig(),
    )


def _snapshot(config: Config, classes: int = 0) -> Snapshot:
    spec = image_spec(config.data, classes, tuple(f"class {number}" for number in range(classes)))
    return Snapshot(build_generator(config, spec).eval(), config, spec, 64)


def _snapshots(folder: Path) -> list[bytes]:
    nets = (
        _snapshot(_config(normalization="batch")),
        _snapshot(_config(network="mlp", depth=1)),
        _snapshot(_config(network="resnet"), 3),
    )
    found = []
    for number, snapshot in enumerate(nets):
        write_snapshot(folder / f"{number}.safetensors", snapshot)
        found.append((folder / f"{number}.safetensors").read_bytes())
    return found


def _header_of(content: bytes) -> bytes:
    return content[8 : 8 + struct.unpack("<Q", content[:8])[0]]


def _with_header(header: bytes, content: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + content[8 + len(_header_of(content)) :]


def _save(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _checkpoints(folder: Path) -> list[bytes]:
    """Return `state.json` files. Their tensors stay undamaged."""
    facts = (CheckpointMetadata(64, 1.5, None), CheckpointMetadata(128, 2.5, 3.25, 0.5))
    saved = [save_checkpoint(folder, {"ema_generator.w": torch.zeros(3)}, fact, {"format": 3}) for fact in facts]
    return [(path / "state.json").read_bytes() for path in saved]


def _read_checkpoint(folder: Path, content: bytes) -> object:
    _save(folder / "00000064", "state.json", content)
    return read_checkpoint(folder / "00000064")


EVENTS = [
    {"kind": "start", "images_seen": 0, "elapsed_seconds": 0.1},
    {
        "kind": "progress",
        "images_seen": 64,
        "elapsed_seconds": 1.0,
        "discriminator_loss": 1.25,
        "generator_loss": 0.5,
        "d_real": 0.75,
    },
    {"kind": "checkpoint", "images_seen": 64, "elapsed_seconds": 1.5, "score": 12.5},
    {"kind": "rollback", "images_seen": 32, "elapsed_seconds": 1.6, "rolled_back_from": 64},
    {
        "kind": "fault",
        "images_seen": 96,
        "elapsed_seconds": 1.7,
        "name": "non-finite",
        "fatal": True,
        "evidence": {"discriminator_loss": 3.5},
    },
    {"kind": "progress", "images_seen": 128, "elapsed_seconds": 2.0, "discriminator_loss": 0.25, "generator_loss": 2.5},
]


def _journals(_: Path) -> list[bytes]:
    lines = [json.dumps(event).encode() for event in EVENTS]
    return [b"\n".join(lines) + b"\n", *lines[1:]]


def _read_journal(folder: Path, content: bytes) -> object:
    path = _save(folder, "journal.jsonl", content)
    RunSeries(path).update()
    return read_events(path)


def _diagnose(folder: Path, content: bytes) -> object:
    diagnose_path(
        _save(
            folder,
            "log.csv"
            if content[:1] not in (b"{", b"\x1f")
            else "log.csv.gz"
            if content[:1] == b"\x1f"
            else "journal.jsonl",
            content,
        )
    )
    return True


def _tables(folder: Path) -> list[bytes]:
    table = b"step,d_loss,g_loss,fid\n100,1.5,0.7,\n200,1.25,0.8,31.5\n300,0.5,2.5,28\n"
    several = b"run,step,d_loss,g_loss\na,1,1.5,0.7\na,2,1.25,0.8\nb,1,0.5,2.5\n"
    return [table, several, gzip.compress(table, mtime=0), _journals(folder)[0]]


def _configs(_: Path) -> list[bytes]:
    whole = {"format": 2, "config": to_dict(_config()), "provenance": {}}
    return [
        json.dumps(whole).encode(),
        json.dumps({"format": 2, "config": {"batch_size": 32, "generator": {"width": 8}}}).encode(),
    ]


def _read_config(folder: Path, content: bytes) -> object:
    _read_settings(_save(folder, "config.json", content))
    from_dict(read_config(RunDirectory(folder)) and {})
    return True


def _use(reader: Reader) -> int:
    """Read the first images, as training would, and return the number of readable ones."""
    used = 0
    for index in range(min(len(reader), READ_LIMIT)):
        reader.entry_name(index)
        try:
            used += decode_image(reader.read(index), SPEC).shape == (8, 8, 3)
        except UnreadableImage:
            continue
    return used


def _encoded_image(kind: str, mode: str = "RGB", side: int = 12) -> bytes:
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "P": 1, "I;16": 1}[mode]
    values = np.random.default_rng(0).integers(0, 256, (side, side, channels), np.uint8)
    image = Image.fromarray(values if channels > 1 else values[:, :, 0])
    buffer = io.BytesIO()
    (image if image.mode == mode else image.convert(mode)).save(buffer, kind)
    return buffer.getvalue()


def _encoded_images(_: Path) -> list[bytes]:
    kinds = (
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("PNG", "I;16"),
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("WEBP", "RGB"),
        ("GIF", "P"),
    )
    return [_encoded_image(*kind) for kind in (*kinds, ("BMP", "RGB"), ("TIFF", "RGB"), ("PPM", "RGB"))]


def _uploads(_: Path) -> list[bytes]:
    return [
        _encoded_image(*kind)
        for kind in (("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("WEBP", "RGBA"))
    ]


def _chunks(content: bytes, _: bytes) -> bytes:
    """Return a PNG with correct chunk checksums; other content unchanged."""
    if not content.startswith(b"\x89PNG"):
        return content
    parts, position = [content[:8]], 8
    while position + 12 <= len(content):
        size = struct.unpack_from(">I", content, position)[0]
        if position + 12 + size > len(content):
            break
        body = content[position + 4 : position + 8 + size]
        parts += [struct.pack(">I", size), body, struct.pack(">I", zlib.crc32(body))]
        position += 12 + size
    return b"".join([*parts, content[position:]])


def _numpy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _arrays(_: Path) -> list[bytes]:
    values = np.arange(2 * 9 * 10 * 3, dtype=np.uint8).reshape(2, 9, 10, 3)
    return [_numpy(values), _numpy(values[..., 0].astype(np.float32) / 255), _numpy(values.astype(np.uint16))]


def _compressed_arrays(_: Path) -> list[bytes]:
    values, buffers = np.arange(2 * 9 * 10, dtype=np.uint8).reshape(2, 9, 10), [io.BytesIO(), io.BytesIO()]
    np.savez(buffers[0], x=values, y=np.array([0, 1]))
    np.savez_compressed(buffers[1], images=values, labels=np.array(["a", "b"]))
    return [buffer.getvalue() for buffer in buffers]


def _idx_files(_: Path) -> list[bytes]:
    plain = struct.pack(">4B3I", 0, 0, 8, 3, 2, 9, 10) + bytes(range(180))
    return [plain, gzip.compress(plain, mtime=0)]


def _read_idx(folder: Path, content: bytes) -> object:
    return _use(
        idx_reader(_save(folder, "images-idx3-ubyte.gz" if content[:1] == b"\x1f" else "images-idx3-ubyte", content))
    )


def _zips(_: Path) -> list[bytes]:
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            archive.writestr("a/1.png", _encoded_image("PNG", "L"))
            archive.writestr("b/2.jpg", _encoded_image("JPEG"))
            archive.writestr("dataset.json", json.dumps({"labels": [["a/1.png", 0], ["b/2.jpg", 1]]}))
        found.append(buffer.getvalue())
    return found


def _entry(content: bytes) -> bytes:
    """Return the first entry of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(archive.infolist()[0])


def _with_entry(inside: bytes, content: bytes) -> bytes:
    """Return a zip archive with its first entry replaced and a correct checksum."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(buffer, "w") as archive:
        for number, info in enumerate(before.infolist()):
            archive.writestr(info.filename, before.read(info) if number else inside, info.compress_type)
    return buffer.getvalue()


def _tars(_: Path) -> list[bytes]:
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            long = "" if form == tarfile.USTAR_FORMAT else "n" * 120
            for name, content in (
                (f"a{long}.png", _encoded_image("PNG", "L")),
                (f"a{long}.cls", b"3"),
                ("b.jpg", _encoded_image("JPEG")),
                ("b.json", b'{"label": 1}'),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        found.append(buffer.getvalue()[:8192])
    return found


def _compressed_tars(folder: Path) -> list[bytes]:
    return [*_tars(folder), gzip.compress(_tars(folder)[0], mtime=0)]


def _read_shard(folder: Path, content: bytes) -> object:
    with opened_stream(str(_save(folder, "shard-000000.tar", content))) as stream:
        for found in islice(read_images(stream, Counter()), READ_LIMIT):
            _decode(found.content)
    return True


def _decode(stored: bytes) -> object:
    try:
        return decode_image(stored, SPEC)
    except UnreadableImage:
        return None


def _labels(_: Path) -> list[bytes]:
    return [
        b"file,label\na.png,3\nb.png,cat\n",
        b'{"labels": [["a.png", 0], ["b.png", 1]]}',
        b'{"a.png": 1, "b.png": "cat"}',
        b'[{"file": "a.png", "label": 2}]',
    ]


def _read_labels(folder: Path, content: bytes) -> object:
    return read_label_rows(_save(folder, "labels.json" if content[:1] in (b"{", b"[") else "labels.csv", content), "")


def _torch_files(archive: bool) -> Callable[[Path], list[bytes]]:
    def files(_: Path) -> list[bytes]:
        found = []
        for original in (DcganExample(2, 1, 1, 1), DcganExample(3, 2, 3, 1)):
            buffer = io.BytesIO()
            torch.save(original.state_dict(), buffer, _use_new_zipfile_serialization=archive)
            found.append(buffer.getvalue())
        return found

    return files


def _params(_: Path) -> list[bytes]:
    return [params_bytes(mxnet_arrays(DcganExample(2, 1, 1, 1)), version) for version in (0, 1, 2, 3)]


def _file_reader(name: str, reader: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    return lambda folder, content: reader(_save(folder, name, content))


FUZZ_TARGETS = {
    "safetensors snapshot": FuzzTarget(
        _snapshots, _file_reader("generator.safetensors", read_snapshot), _header_of, _with_header
    ),
    "checkpoint state": FuzzTarget(_checkpoints, _read_checkpoint),
    "journal": FuzzTarget(_journals, _read_journal),
    "diagnose log": FuzzTarget(_tables, _diagnose),
    "config.json": FuzzTarget(_configs, _read_config),
    "IDX": FuzzTarget(
        _idx_files, _read_idx, lambda content: gzip.decompress(content) if content[:1] == b"\x1f" else content
    ),
    "npy": FuzzTarget(_arrays, _file_reader("a.npy", lambda path: _use(npy_reader(path)))),
    "npz": FuzzTarget(
        _compressed_arrays, _file_reader("a.npz", lambda path: _use(npz_reader(path, ""))), _entry, _with_entry
    ),
    "image": FuzzTarget(_encoded_images, lambda _, content: decode_image(content, SPEC), bytes, _chunks),
    "zip source": FuzzTarget(_zips, _file_reader("a.zip", lambda path: _use(zip_reader(path))), _entry, _with_entry),
    "tar source": FuzzTarget(_compressed_tars, _file_reader("a.tar", lambda path: _use(tar_reader(path)))),
    "tar shard": FuzzTarget(_tars, _read_shard),
    "labels": FuzzTarget(_labels, _read_labels),
    "pth": FuzzTarget(_torch_files(True), _file_reader("netG.pth", read_foreign_generator), _entry, _with_entry),
    "pth before 1.6": FuzzTarget(_torch_files(False), _file_reader("netG.pth", read_foreign_generator)),
    "params": FuzzTarget(_params, _file_reader("g.params", read_foreign_generator)),
    "upload": FuzzTarget(
        _uploads,
        lambda _, content: decode_upload(content, DataConfig(source="folder", height=8, width=8)),
        bytes,
        _chunks,
    ),
}


def mutated_case(target: FuzzTarget, seeds: Sequence[bytes], seed: int, number: int) -> bytes:
    """Return a damaged file. With probability 0.5, the unpacked content is damaged and its checksums are correct."""
    rng = random.Random(f"{seed}/{number}")
    original = rng.choice(seeds)
    if rng.random() < 0.5:
        return mutate(original, seeds, rng)
    unpacked = [target.unpack(content) for content in (original, rng.choice(seeds))]
    return target.pack(mutate(unpacked[0], unpacked[1:], rng), original)
