"""Damaged files for every reader of untrusted bytes: each is accepted or gives a one-line error.

`benchmarks/fuzz.py` runs 100,000 cases per target.
"""

import gzip
import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzz_targets import FUZZ_TARGETS, FuzzTarget, _read_shard, mutated_case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cardigan
from cardigan.cli.main import run as cardigan_command
from cardigan.data.decoding import DecodeSpec, decode_image
from cardigan.data.formats import idx
from cardigan.data.formats.archives import zip_reader
from cardigan.data.formats.idx import idx_reader
from cardigan.data.formats.numpy_files import npy_reader, npz_reader
from cardigan.data.reader import UnreadableImage
from cardigan.errors import CardiganError
from cardigan.files.sha256 import json_sha256
from cardigan.health.diagnosis import diagnose_path
from cardigan.run.checkpoint import read_checkpoint_metadata
from cardigan.run.directory import RunDirectory, read_config, source_fingerprint
from cardigan.run.journal import read_events

MEMORY_LIMITED = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
DEEP_NESTING = b"[" * 100_000


def read_or_error(fuzz_target: FuzzTarget, folder: Path, content: bytes) -> None:
    try:
        fuzz_target.read(folder, content)
    except (CardiganError, UnreadableImage) as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module", params=FUZZ_TARGETS)
def fuzz_target(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    found = FUZZ_TARGETS[request.param]
    return found, folder, list(found.seed_files(folder))


def test_valid_files_are_read(fuzz_target):
    found, folder, seeds = fuzz_target
    for content in seeds:
        found.read(folder, content)
        found.read(folder, found.pack(found.unpack(content), content))


@MEMORY_LIMITED
@given(number=st.integers(0, 2**32))
def test_mutated_files(fuzz_target, number):
    found, folder, seeds = fuzz_target
    read_or_error(found, folder, mutated_case(found, seeds, 0, number))


@MEMORY_LIMITED
@given(which=st.integers(0, 100), keep=st.integers(0, 64), content=st.binary(max_size=300))
def test_valid_prefix_with_random_tail(fuzz_target, which, keep, content):
    found, folder, seeds = fuzz_target
    read_or_error(found, folder, seeds[which % len(seeds)][:keep] + content)


def test_deeply_nested_json(tmp_path, capsys):
    """Python's JSON parser raises RecursionError."""
    (tmp_path / "config.json").write_bytes(DEEP_NESTING)
    (tmp_path / "source.json").write_bytes(DEEP_NESTING)
    (tmp_path / "state.json").write_bytes(DEEP_NESTING)
    (tmp_path / "journal.jsonl").write_bytes(DEEP_NESTING + b"\n")
    for read in (read_config, source_fingerprint):
        with pytest.raises(CardiganError, match="damaged"):
            read(RunDirectory(tmp_path))
    with pytest.raises(CardiganError, match="damaged"):
        read_checkpoint_metadata(tmp_path)
    assert read_events(tmp_path / "journal.jsonl") == []
    assert (
        cardigan_command(["train", "mnist", "--config", str(tmp_path / "config.json"), "--out", str(tmp_path / "run")])
        == 2
    )
    assert "is not valid JSON" in capsys.readouterr().err


def test_deeply_nested_header(tmp_path):
    header = json.dumps({"__metadata__": {"cardigan": DEEP_NESTING.decode()}}).encode()
    (tmp_path / "g.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CardiganError, match="was not written by cardigan"):
        cardigan.load(tmp_path / "g.safetensors")


@pytest.mark.parametrize(("network", "depth"), [("mlp", 10**9), ("resnet", 10**9), ("r3gan", 10**12)])
def test_header_of_huge_network(tmp_path, network, depth):
    facts = {
        "format": 3,
        "num_classes": 0,
        "images_seen": 1,
        "config": {"generator": {"network": network, "depth": depth}},
    }
    header = json.dumps({"__metadata__": {"cardigan": json.dumps(facts)}}).encode()
    (tmp_path / "g.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CardiganError, match="damaged header"):
        cardigan.load(tmp_path / "g.safetensors")


def test_journal_number_overflow(tmp_path):
    path = tmp_path / "journal.jsonl"
    huge = "1" + "0" * 400
    lines = [
        '{"kind": "progress", "images_seen": 1e999, "elapsed_seconds": 1}',
        f'{{"kind": "progress", "images_seen": 64, "elapsed_seconds": {huge}}}',
        f'{{"kind": "progress", "images_seen": 64, "elapsed_seconds": 1, "generator_loss": {huge}}}',
    ]
    path.write_text("\n".join(lines) + "\n")
    assert len(read_events(path)) == 1
    assert diagnose_path(path)[""].diagnosis == "non-finite"
    for evidence in ("3", '["a"]', '{"a": "b"}'):
        path.write_text(
            lines[2].replace(huge, "1")
            + '\n{"kind": "fault", "name": "non-finite", "images_seen": 64, "elapsed_seconds": 1, "evidence": '
            + f"{evidence}}}\n"
        )
        assert diagnose_path(path)[""].diagnosis == "warning"  # the fault that the journal has


def test_damaged_gzip_log(tmp_path):
    whole = gzip.compress(
        b"step,d_loss,g_loss\n" + b"".join(b"%d,0.%d,1\n" % (step, step) for step in range(1, 300)), mtime=0
    )
    for place in range(10, len(whole), 7):
        (tmp_path / "log.csv.gz").write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        with pytest.raises(CardiganError):
            diagnose_path(tmp_path / "log.csv.gz")


@pytest.mark.parametrize(
    "facts", [{"score": "best"}, {"images_seen": "64"}, {"images_seen": None}, {"elapsed_seconds": []}, {"score": {}}]
)
def test_non_numeric_checkpoint_metadata(tmp_path, facts):
    whole = {"images_seen": 64, "elapsed_seconds": 1.0, "score": None, "tensors_sha256": "", **facts}
    (tmp_path / "state.json").write_text(json.dumps({**whole, "sha256": json_sha256(whole)}))
    with pytest.raises(CardiganError, match="damaged"):
        read_checkpoint_metadata(tmp_path)


def test_unparsable_npy_headers(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 9, 9), " + b" " * 20 + b"(\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(162)
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(CardiganError, match="cannot be read"):
        npy_reader(tmp_path / "a.npy")
    for members in ({"x.npy": content}, {"x.npy": b"not an array", "y.npy": b"nor this"}, {"x": b"bytes"}):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            for name, member in members.items():
                archive.writestr(name, member)
        with pytest.raises(CardiganError):
            npz_reader(tmp_path / "a.npz", "")


def test_idx_gzip_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "MAX_BYTES_IN_MEMORY", 2**22)
    bomb = struct.pack(">4B3I", 0, 0, 8, 3, 2**26, 1, 1) + bytes(2**26)
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(gzip.compress(bomb))
    with pytest.raises(CardiganError, match="unpacks to more than"):
        idx_reader(tmp_path / "images-idx3-ubyte.gz")


def test_archive_entry_without_name(tmp_path):
    whole = FUZZ_TARGETS["zip source"].seed_files(tmp_path)[0]
    place = whole.rindex(b"PK\x01\x02")  # the entry of dataset.json, which becomes a comment
    nameless = whole[: place + 28] + struct.pack("<HHH", 0, 0, 12) + whole[place + 34 :]
    (tmp_path / "a.zip").write_bytes(nameless)
    assert len(zip_reader(tmp_path / "a.zip")) == 2


def test_shard_with_empty_pax_record(tmp_path):
    """Such a record once caused an endless loop."""
    for record in (b"0 path=a\n", b"x path=a\n", b"1 path=a\n", b"99999999 path=a\n"):
        header = bytearray(512)
        header[:5], header[100:108], header[124:136], header[156:157], header[257:263] = (
            b"notes",
            b"0000644\0",
            b"%011o\0" % len(record),
            b"x",
            b"ustar\0",
        )
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        with pytest.raises(CardiganError, match="damaged"):
            _read_shard(tmp_path, bytes(header) + record.ljust(512, b"\0") + bytes(1024))


def test_image_formats_that_start_programs_are_rejected():
    """Pillow passes PostScript to Ghostscript, whatever the name of the file."""
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n9 9 moveto\n%%EOF\n"
    with pytest.raises(UnreadableImage, match="not an image of a known format"):
        decode_image(postscript, DecodeSpec(8, 8, 3, "crop", 1_000_000))
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 2)))
    with pytest.raises(UnreadableImage):
        decode_image(buffer.getvalue(), DecodeSpec(8, 8, 3, "crop", 1_000_000))
