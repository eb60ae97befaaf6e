"""Invalid and damaged sources: each gives a one-line error, each unreadable image a reason, and nothing hangs."""

import gzip
import io
import os
import re
import stat
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import h5py
import lmdb
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from cardigan.data.formats import archives
from cardigan.data.formats.arrays import array_reader
from cardigan.data.formats.detection import open_reader
from cardigan.data.formats.file_names import HIDDEN, NOT_AN_IMAGE
from cardigan.data.formats.folder import ALREADY_LISTED
from cardigan.data.formats.torch_dataset import torch_dataset_reader
from cardigan.data.reader import SOURCE_CHANGED, Reader, UnreadableImage
from cardigan.errors import CardiganError

IMAGE = b"an image, as far as readers know"


def error_message(source: Path | str, labels: str = "") -> str:
    """Return the error message of an invalid source."""
    with pytest.raises(CardiganError) as caught:
        open_reader(str(source), labels)
    return str(caught.value)


def unreadable_reason(reader: Reader, title: str) -> str:
    """Return why an image is unreadable."""
    with pytest.raises(UnreadableImage) as caught:
        reader.read(entry_names(reader).index(title))
    return str(caught.value)


def entry_names(reader: Reader) -> list[str]:
    return [reader.entry_name(index) for index in range(len(reader))]


def write_file(path: Path, content: bytes = IMAGE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_missing_path_suggests_closest_name(tmp_path):
    (tmp_path / "flowers").mkdir()
    assert f"did you mean {str(tmp_path / 'flowers')!r}" in error_message(tmp_path / "flower")
    assert "expected a folder, zip archive (.zip)" in error_message(tmp_path / "nothing" / "of" / "this")
    assert "There is no ''" in error_message("")
    assert "cannot be opened (File name too long)" in error_message("a" * 5000)
    assert "has no columns" in error_message(write_file(tmp_path / "a.png").parent, "b" * 5000)


def test_unknown_file_format(tmp_path):
    assert "has an unknown format: expected a folder" in error_message(write_file(tmp_path / "notes.txt"))
    assert "give its folder" in error_message(write_file(tmp_path / "one.PNG"))


def test_format_is_detected_by_content(tmp_path):
    with tarfile.open(tmp_path / "download", "w") as archive:
        archive.add(write_file(tmp_path / "a.png"), "a.png")
    assert open_reader(str(tmp_path / "download")).read(0) == IMAGE
    np.save(tmp_path / "p.npy", np.zeros((2, 5, 5), np.uint8))
    assert len(open_reader(str((tmp_path / "p.npy").rename(tmp_path / "array")))) == 2


def test_folder_without_images_lists_contents(tmp_path):
    assert "it is empty" in error_message(tmp_path)
    for name in ("a.txt", "b.txt", ".hidden/c.png", "__MACOSX/d.png", "Thumbs.db"):
        write_file(tmp_path / name)
    assert "(3 hidden, 2 not an image)" in error_message(tmp_path)


def test_folder_with_one_archive_opens_the_archive(tmp_path):
    np.save(tmp_path / "p.npy", np.zeros((3, 5, 5), np.uint8))
    write_file(tmp_path / "README.md")
    assert len(open_reader(str(tmp_path))) == 3
    np.save(tmp_path / "q.npy", np.zeros((3, 5, 5), np.uint8))
    assert "p.npy and q.npy: give one of them" in error_message(tmp_path)


def test_folder_order_is_bytewise(tmp_path):
    for name in (
        "b.JPG",
        "a/z.jpeg",
        "a.webp",
        "a/é.png",
        "B.tiff",
        "A.gif",
        "b/c/d/e.AVIF",
        "x.jpe",
        "x.bmp",
        "x.tif",
        "x.ppm",
        "x.pgm",
    ):
        write_file(tmp_path / name)
    reader = open_reader(str(tmp_path))
    assert entry_names(reader) == sorted(entry_names(reader), key=str.encode)
    assert len(reader) == 12 and entry_names(reader)[:3] == ["A.gif", "B.tiff", "a.webp"]
    assert reader.labels is None and reader.name == str(tmp_path)


def test_skipped_entries_are_counted(tmp_path):
    for name in (
        "a.png",
        ".a.png",
        ".cache/b.png",
        "__MACOSX/a.png",
        "Thumbs.db",
        "sub/.DS_Store",
        "list.txt",
        "png",
        "film.mp4",
    ):
        write_file(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.png")
    reader = open_reader(str(tmp_path))
    assert entry_names(reader) == ["a.png"]
    assert reader.skipped == {HIDDEN: 5, NOT_AN_IMAGE: 4}


def test_latin_1_file_names(tmp_path):
    place = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(place)  # noqa: PTH102 (a name in bytes)
    for name in (b"\xe9.png", b"a.png", b"\xff.png"):
        write_file(Path(os.fsdecode(place + b"/" + name)), name)
    reader = open_reader(os.fsdecode(place))
    assert [reader.read(index) for index in range(3)] == [b"a.png", b"\xe9.png", b"\xff.png"]
    assert all(text.encode() for text in (*entry_names(reader), reader.name))
    assert "caf" in error_message(os.fsdecode(place + b"e"))


def test_symlinks_are_followed_without_loops(tmp_path):
    outside = tmp_path / "outside"
    write_file(outside / "o.png", b"outside")
    source = tmp_path / "source"
    write_file(source / "real" / "r.png", b"real")
    for link, target in {
        "0real": "real",
        "up": "..",
        "self": ".",
        "round": "round",
        "real/back": "..",
        "far": "../outside",
    }.items():
        (source / link).symlink_to(target)
    (source / "l.png").symlink_to("real/r.png")
    (source / "o.png").symlink_to(outside / "o.png")
    (source / "gone.png").symlink_to("nowhere")
    (source / "loop.png").symlink_to("loop.png")
    reader = open_reader(str(source))
    assert entry_names(reader) == ["far/o.png", "gone.png", "l.png", "loop.png", "o.png", "real/r.png"]
    assert [reader.read(index) for index in (0, 2, 4, 5)] == [b"outside", b"real", b"outside", b"real"]
    assert reader.skipped[ALREADY_LISTED] == 4
    assert "cannot be read (No such file" in unreadable_reason(reader, "gone.png")
    assert "cannot be read" in unreadable_reason(reader, "loop.png")


def test_folder_without_list_permission(tmp_path, monkeypatch):
    write_file(tmp_path / "good" / "a.png")
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def deny_access(path):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny_access)
    assert "secret' cannot be listed (Permission denied): make it readable" in error_message(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_file_without_read_permission(tmp_path):
    write_file(tmp_path / "a.png").chmod(0)
    assert "Permission denied" in unreadable_reason(open_reader(str(tmp_path)), "a.png")


def test_image_deleted_after_listing(tmp_path):
    write_file(tmp_path / "b.png")
    gone = write_file(tmp_path / "a.png")
    reader = open_reader(str(tmp_path))
    gone.unlink()
    assert unreadable_reason(reader, "a.png") == SOURCE_CHANGED
    assert reader.read(1) == IMAGE


def test_unsafe_zip_entries(tmp_path):
    path = write_file(tmp_path / "deep" / "p.zip")
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        for name in (
            "good.png",
            "../out.png",
            "/root.png",
            "C:\\a.png",
            "a/../../b.png",
            "notes.txt",
            "__MACOSX/._good.png",
            link,
        ):
            archive.writestr(name, IMAGE)
        archive.mkdir("folder.png")
    reader = open_reader(str(path))
    leaving = ["../out.png", "/root.png", "C:/a.png", "a/../../b.png"]
    assert sorted(entry_names(reader)) == sorted([*leaving, "good.png", "link.png"])
    assert {unreadable_reason(reader, title) for title in leaving} == {"has a path that leaves the archive"}
    assert unreadable_reason(reader, "link.png") == "is a symbolic link"
    assert reader.skipped == {NOT_AN_IMAGE: 1, HIDDEN: 1}
    assert list(tmp_path.rglob("*")) == [tmp_path / "deep", path]


def test_encrypted_zip_entry(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("a.png", IMAGE)
    content = bytearray((tmp_path / "p.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    write_file(tmp_path / "p.zip", bytes(content))
    assert unreadable_reason(open_reader(str(tmp_path / "p.zip")), "a.png") == "is encrypted"


def test_damaged_zip(tmp_path):
    for name in ("a.png", "b.png"):
        with zipfile.ZipFile(tmp_path / "p.zip", "a") as archive:
            archive.writestr(name, IMAGE * 9, compress_type=zipfile.ZIP_DEFLATED if name == "b.png" else None)
    content = (tmp_path / "p.zip").read_bytes()
    write_file(tmp_path / "p.zip", content.replace(b"an image, as", b"an imaga, as", 1))
    reader = open_reader(str(tmp_path / "p.zip"))
    assert unreadable_reason(reader, "a.png") == "is damaged (its checksum is wrong)"
    assert reader.read(1) == IMAGE * 9
    assert "is damaged or not an archive" in error_message(write_file(tmp_path / "p.zip", content[: len(content) // 2]))
    assert "is damaged or not an archive" in error_message(write_file(tmp_path / "p.zip", b""))


def test_zip_entry_with_huge_declared_size(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_IMAGE_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(1001))
    assert "has 1,001 bytes: expected at most 1,000" in unreadable_reason(open_reader(str(tmp_path / "p.zip")), "a.png")


def test_zip_with_unsupported_compression(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", IMAGE)
    assert "method 14" in unreadable_reason(open_reader(str(tmp_path / "p.zip")), "a.png")


def test_later_zip_entry_replaces_earlier_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("a.png", b"old")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", b"new")
    reader = open_reader(str(tmp_path / "p.zip"))
    assert [reader.read(index) for index in range(len(reader))] == [b"new"]
    assert reader.skipped == {archives.REPLACED: 1}


def test_archive_without_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("a.txt", IMAGE)
    assert "holds no images (1 not an image)" in error_message(tmp_path / "p.zip")


def tar(path: Path, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name in ("a.png", "../out.png", "folder/b.png"):
            info = tarfile.TarInfo(name)
            info.size = len(IMAGE)
            archive.addfile(info, io.BytesIO(IMAGE))
        for name, kind in {
            "soft.png": tarfile.SYMTYPE,
            "hard.png": tarfile.LNKTYPE,
            "pipe.png": tarfile.FIFOTYPE,
            "d.png": tarfile.DIRTYPE,
        }.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.png"
            archive.addfile(info)
    return path


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tgz", "w:gz")])
def test_unsafe_tar_members(tmp_path, suffix, mode):
    reader = open_reader(str(tar(tmp_path / f"p{suffix}", mode)))
    assert entry_names(reader) == ["../out.png", "a.png", "folder/b.png", "hard.png", "pipe.png", "soft.png"]
    assert unreadable_reason(reader, "../out.png") == "has a path that leaves the archive"
    assert unreadable_reason(reader, "soft.png") == "is a symbolic link"
    assert unreadable_reason(reader, "hard.png") == "is a hard link"
    assert unreadable_reason(reader, "pipe.png") == "is not a file"
    assert reader.read(1) == reader.read(2) == IMAGE


def test_damaged_tar(tmp_path):
    content = tar(tmp_path / "p.tar").read_bytes()
    for broken in (b"", content[:600], content[:1100], content[:1024] + b"broken" + content[1030:]):
        assert "is damaged or not an archive" in error_message(write_file(tmp_path / "p.tar", broken))
    packed = gzip.compress(content)
    assert "is damaged or not an archive" in error_message(write_file(tmp_path / "p.tgz", packed[: len(packed) // 2]))


def test_compressed_tar_memory_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES_IN_MEMORY", len(IMAGE) * 3 - 1)
    assert "decompress it first" in error_message(tar(tmp_path / "p.tgz", "w:gz"))
    assert len(open_reader(str(tar(tmp_path / "p.tar")))) == 6


@pytest.mark.parametrize("shape", [(5, 5), (4, 5, 5, 2), (2, 3, 4, 5, 3), (0, 5, 5), (64, 64, 3), (3, 0, 5)])
def test_array_shapes_that_are_not_images(tmp_path, shape):
    np.save(tmp_path / "p.npy", np.zeros(shape, np.uint8))
    assert f"has the shape {shape}: expected" in error_message(tmp_path / "p.npy")


def test_unreadable_arrays(tmp_path):
    np.save(tmp_path / "p.npy", np.array([{}, []], object), allow_pickle=True)
    assert "without Python objects" in error_message(tmp_path / "p.npy")
    np.savez(tmp_path / "p.npz", images=np.array([{}, []], object))
    assert "without Python objects" in error_message(tmp_path / "p.npz")
    np.save(tmp_path / "q.npy", np.zeros((9, 50, 50), np.uint8))
    content = (tmp_path / "q.npy").read_bytes()
    for broken in (b"", content[:40], content[:1000], b"nonsense"):
        assert "cannot be read" in error_message(write_file(tmp_path / "p.npy", broken))
        assert "cannot be read" in error_message(write_file(tmp_path / "p.npz", broken))
    assert "call it .npy" in error_message((tmp_path / "q.npy").rename(tmp_path / "p.npz"))
    np.savez(tmp_path / "p.npz", images=np.zeros(3))
    assert "call it .npz" in error_message((tmp_path / "p.npz").rename(tmp_path / "q.npy"))
    np.savez(tmp_path / "p.npz", images=np.zeros(3))
    assert "expected one with 3 or 4 axes" in error_message(tmp_path / "p.npz")


@pytest.mark.parametrize("dtype", [np.complex64, "U3", "M8[s]"])
def test_unsupported_pixel_dtypes(dtype):
    with pytest.raises(CardiganError, match="holds values of type"):
        array_reader(np.zeros((2, 5, 5), dtype))


def test_value_range_is_inferred_from_first_images():
    ramp = np.linspace(0, 1, 50, dtype=np.float32).reshape(2, 5, 5)
    whole = (ramp * 255).round()
    for pixels in (
        ramp,
        ramp * 2 - 1,
        ramp.astype(np.float16),
        (ramp * 255),
        whole.astype(np.int64),
        whole.astype(np.uint8),
    ):
        np.testing.assert_allclose(
            array_reader(pixels).read(1).astype(int), whole[1], atol=0.51 if pixels.dtype != np.float16 else 1
        )
    assert array_reader(ramp > 0.5).read(1).dtype == bool
    np.testing.assert_array_equal(array_reader((whole * 257).astype(">u2")).read(1), whole[1] * 257)
    np.testing.assert_array_equal(array_reader(torch.from_numpy(ramp).bfloat16()).read(0)[0, 0], 0)
    for wrong in (ramp * 4 - 2, whole.astype(int) - 1, whole.astype(int) * 2):
        with pytest.raises(CardiganError, match="expected 0 to 1"):
            array_reader(wrong)


def test_non_finite_pixels():
    pixels = np.full((2, 5, 5), 0.5)
    pixels[1, 2, 2] = np.nan
    reader = array_reader(pixels)
    assert reader.read(0)[0, 0] == 128
    assert unreadable_reason(reader, "1") == "holds values that are not finite"


def test_channel_axis_detection():
    both = np.zeros((2, 3, 8, 4), np.uint8)
    assert array_reader(both).read(0).shape == (3, 8, 4)
    assert array_reader(torch.from_numpy(both)).read(0).shape == (8, 4, 3)
    assert array_reader(np.zeros((2, 1, 8, 9), np.uint8)).read(0).shape == (8, 9, 1)


def test_array_labels():
    pixels = np.zeros((3, 5, 5), np.uint8)
    expected = [2, 0, 1]
    for labels in (
        expected,
        np.array(expected)[:, None],
        np.eye(3)[expected],
        torch.tensor(expected),
        np.array(expected, float),
    ):
        assert array_reader(pixels, labels).labels == expected
    assert array_reader(pixels, np.array(["a", "b", "a"])).labels == ["a", "b", "a"]
    assert array_reader(pixels, ["a", None, np.int64(3)]).labels == ["a", None, 3]
    for wrong in ([1, 2], np.zeros((3, 2)), np.array([0.5, 1, 2]), [[1], [2], [3]]):
        with pytest.raises(CardiganError, match=r"label|class"):
            array_reader(pixels, wrong)


def test_npz_array_names(tmp_path):
    arrays = {
        "other": np.zeros((5, 6, 6), np.uint8),
        "x_train": np.zeros((4, 5, 5), np.uint8),
        "y_train": np.arange(4),
        "kind": np.arange(4) + 9,
    }
    np.savez(tmp_path / "p.npz", **arrays)
    assert open_reader(str(tmp_path / "p.npz")).labels == [0, 1, 2, 3]
    assert open_reader(str(tmp_path / "p.npz"), "kind").labels == [9, 10, 11, 12]
    assert "did you mean 'kind'" in error_message(tmp_path / "p.npz", "kinds")
    np.savez(tmp_path / "p.npz", photos=np.zeros((4, 5, 5), np.uint8))
    assert open_reader(str(tmp_path / "p.npz")).labels is None


def test_truncated_idx_files(tmp_path):
    good = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (2, 5, 5)) + bytes(50)
    assert len(open_reader(str(write_file(tmp_path / "a-images-idx3-ubyte", good)))) == 2
    for broken in (b"\0\0\x08", good[:-1], good[:9], b"\0\0\x0d" + good[3:], good + b"\0"):
        assert "not a complete IDX file" in error_message(write_file(tmp_path / "a-images-idx3-ubyte", broken))
    assert "cannot be read" in error_message(write_file(tmp_path / "a-images-idx3-ubyte.gz", good))


class FlakyDataset(torch.utils.data.Dataset):
    """A dataset one image of which fails."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Image.Image, str]:
        if index == 1:
            raise OSError("truncated")
        return Image.new("CMYK" if index else "P", (4, 3)), "word"


def test_torch_datasets_that_raise():
    reader = torch_dataset_reader(FlakyDataset())
    assert unreadable_reason(reader, "1") == "cannot be read (truncated)"
    assert reader.read(2).shape == (3, 4, 3)
    assert list(reader.labels) == ["word", None, "word"]
    assert reader.labels[::2] == ["word", "word"]
    with pytest.raises(CardiganError, match="has no length"):
        torch_dataset_reader(torch.utils.data.Dataset())
    with pytest.raises(CardiganError, match="returns str"):
        torch_dataset_reader(torch.utils.data.StackDataset(["text"]))


def test_torch_dataset_of_16_bit_images():
    deep = Image.fromarray(np.full((3, 4), 256 * 7, np.uint16))
    assert (torch_dataset_reader(torch.utils.data.StackDataset([deep])).read(0) == 7).all()


def test_parquet_without_images(tmp_path):
    parquet.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "p.parquet")
    assert "has the columns a (int64), b (string): expected encoded images" in error_message(tmp_path / "p.parquet")
    parquet.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "p.parquet")
    assert "has no rows" in error_message(tmp_path / "p.parquet")
    content = (tmp_path / "p.parquet").read_bytes()
    for broken in (b"", content[:30], content[:-9] + b"PAR1"):
        assert "cannot be read" in error_message(write_file(tmp_path / "p.parquet", broken))


def test_parquet_image_columns(tmp_path):
    columns = {"photo": [IMAGE, None], "thumb": [b"a", b"b"], "label": [1.5, 2.5], "kind": ["x", None], "n": [4, 5]}
    parquet.write_table(pa.table(columns), tmp_path / "p.parquet")
    assert "expected encoded images" in error_message(tmp_path / "p.parquet")
    parquet.write_table(pa.table(columns).drop(["thumb"]), tmp_path / "p.parquet")
    reader = open_reader(str(tmp_path / "p.parquet"))
    assert reader.labels is None and reader.read(0) == IMAGE
    assert "holds no bytes" in unreadable_reason(reader, "1")
    assert open_reader(str(tmp_path / "p.parquet"), "kind").labels == ["x", None]
    assert "did you mean 'kind'" in error_message(tmp_path / "p.parquet", "kinds")
    assert "has the class 1.5" in error_message(tmp_path / "p.parquet", "label")


def test_one_row_group_in_memory(tmp_path, monkeypatch):
    parquet.write_table(
        pa.table({"image": [b"%d" % row for row in range(10)]}), tmp_path / "p.parquet", row_group_size=4
    )
    reader = open_reader(str(tmp_path / "p.parquet"))
    opened = []
    monkeypatch.setattr(
        parquet, "ParquetFile", lambda *given, real=parquet.ParquetFile: opened.append(given) or real(*given)
    )
    assert [reader.read(row) for row in (0, 1, 3, 4, 7, 8, 9, 2)] == [b"0", b"1", b"3", b"4", b"7", b"8", b"9", b"2"]
    assert len(opened) == 4


def test_parquet_entry_names_of_several_files(tmp_path):
    for part in "ab":
        parquet.write_table(pa.table({"image": [part.encode()] * 2}), tmp_path / f"{part}.parquet")
    assert entry_names(open_reader(str(tmp_path))) == [
        "a.parquet row 0",
        "a.parquet row 1",
        "b.parquet row 0",
        "b.parquet row 1",
    ]
    parquet.write_table(pa.table({"other": [1]}), tmp_path / "c.parquet")
    assert "c.parquet has no column 'image'" in error_message(tmp_path)


def test_saved_huggingface_datasets(tmp_path):
    image = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [{"bytes": IMAGE, "path": None}] * 3, "label": [1, 0, -1]}
    dataset = datasets.Dataset.from_dict(rows, features=image)
    dataset.save_to_disk(tmp_path / "saved")
    reader = open_reader(str(tmp_path / "saved"))
    assert reader.labels == ["dog", "cat", None]
    assert "did you mean 'label'" in error_message(tmp_path / "saved", "labl")
    assert "is one split of a dataset, unnamed, and 'test' was requested" in error_message(
        f"hf:{tmp_path / 'saved'}:test"
    )
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(tmp_path / "splits")
    assert len(open_reader(str(tmp_path / "splits"))) == 3
    assert "did you mean 'test'" in error_message(f"hf:{tmp_path / 'splits'}:tests")
    next((tmp_path / "saved").glob("*.arrow")).unlink()
    assert "cannot be loaded" in error_message(tmp_path / "saved")
    dataset.remove_columns("image").save_to_disk(tmp_path / "bare")
    assert "has the columns label: expected images" in error_message(tmp_path / "bare")


def test_huggingface_cache_folder(tmp_path):
    features = datasets.Features({"image": datasets.Image()})
    dataset = datasets.Dataset.from_dict({"image": [{"bytes": IMAGE, "path": None}]}, features=features)
    dataset.save_to_disk(tmp_path)
    (tmp_path / "state.json").unlink()
    next(tmp_path.glob("*.arrow")).rename(tmp_path / "flowers-train.arrow")
    assert open_reader(str(tmp_path)).read(0) == IMAGE
    assert "has no file *-test*.arrow" in error_message(f"hf:{tmp_path}:test")


def test_huggingface_dataset_of_paths(tmp_path, monkeypatch):
    rows = {
        "image": [{"bytes": None, "path": str(write_file(tmp_path / "a.png"))}, {"bytes": None, "path": "gone"}, None]
    }
    dataset = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()}))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: dataset)
    reader = open_reader("hf:flowers")
    assert reader.read(0) == IMAGE
    assert "cannot be read (No such file" in unreadable_reason(reader, "1")
    assert "holds no bytes" in unreadable_reason(reader, "2")


def test_load_dataset_gets_name_and_split(monkeypatch):
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        raise ConnectionError("no such host")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert "'hf:someone/flowers' cannot be loaded (no such host): expected hf:NAME" in error_message(
        "hf:someone/flowers"
    )
    error_message("hf:flowers:test[:10%]")
    assert asked == [("someone/flowers", "train"), ("flowers", "test[:10%]")]


def test_hdf5_without_images(tmp_path):
    assert "cannot be read" in error_message(write_file(tmp_path / "p.h5"))
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["a"], file["b"], file["label"] = np.zeros((2, 5, 5)), np.zeros((2, 5, 5)), ["x", "y"]
    assert "expected images in one called images" in error_message(tmp_path / "p.h5")
    with h5py.File(tmp_path / "p.h5", "a") as file:
        del file["b"]
    assert open_reader(str(tmp_path / "p.h5")).labels == ["x", "y"]


def test_lmdb_without_images(tmp_path):
    with (
        lmdb.open(str(tmp_path / "p.lmdb"), map_size=2**20, subdir=False) as store,
        store.begin(write=True) as transaction,
    ):
        transaction.put(b"a", IMAGE)
    assert "(1 are not): expected encoded images" in error_message(tmp_path / "p.lmdb")
    with (
        lmdb.open(str(tmp_path / "p.lmdb"), map_size=2**20, subdir=False) as store,
        store.begin(write=True) as transaction,
    ):
        transaction.put(b"b\xff", b"\x89PNG" + IMAGE)
    reader = open_reader(str(tmp_path / "p.lmdb"))
    assert reader.read(0) == b"\x89PNG" + IMAGE and reader.skipped == {NOT_AN_IMAGE: 1}
    assert "cannot be read" in error_message(write_file(tmp_path / "q" / "data.mdb", bytes(9999)).parent)


def test_lmdb_read_from_threads(tmp_path):
    with lmdb.open(str(tmp_path), map_size=2**20) as store, store.begin(write=True) as transaction:
        transaction.put(b"a", b"\x89PNG" + IMAGE)
    reader = open_reader(str(tmp_path))
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(reader.read, [0] * 2000)) == {b"\x89PNG" + IMAGE}


@pytest.mark.parametrize(
    ("package", "source", "extra"),
    [("pyarrow", "p.parquet", "parquet"), ("h5py", "p.h5", "hdf5"), ("lmdb", "p.lmdb", "lmdb")],
)
def test_missing_optional_package(tmp_path, monkeypatch, package, source, extra):
    monkeypatch.setitem(sys.modules, package, None)
    assert f"pip install 'cardigan[{extra}]'" in error_message(write_file(tmp_path / source))


def test_missing_datasets_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'cardigan[huggingface]'" in error_message("hf:mnist")


def test_labels_setting_that_is_not_a_column(tmp_path):
    write_file(tmp_path / "a.png")
    assert re.search(
        r"The labels 'kind' are not a file, and '.*' \(folder\) has no columns: expected folders, FILE",
        error_message(tmp_path, "kind"),
    )
