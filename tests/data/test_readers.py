"""The promises of a Reader, kept by each kind of source made from the same twelve pictures."""

import gzip
import io
import multiprocessing
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import datasets
import h5py
import lmdb
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from cardigan.data.decoding import Frame, decoded
from cardigan.data.formats.arrays import array_reader
from cardigan.data.formats.labels import classes_of
from cardigan.data.formats.opening import open_reader
from cardigan.data.formats.torch_dataset import dataset_reader
from cardigan.data.reader import Reader

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later

NUMBER = 12
PICTURES = [np.random.default_rng(seed).integers(0, 256, (9, 7, 3), np.uint8) for seed in range(NUMBER)]
GREY = [picture[:, :, 0] for picture in PICTURES]
CLASSES = [0] * 5 + [1] * 7
NAMES = [f"{'cat' if label == 0 else 'dog'}/{number:02d}.png" for number, label in enumerate(CLASSES)]
FRAME = Frame(height=9, width=7, channels=3, fit="stretch", max_pixels=1000)

Opening: TypeAlias = Callable[[], Reader]
Pictures: TypeAlias = Sequence[np.ndarray]


def png(picture: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


def named(pictures: Pictures) -> dict[str, bytes]:
    return {name: png(picture) for name, picture in zip(NAMES, pictures, strict=False)}


def folder(place: Path, pictures: Pictures) -> Opening:
    for name, content in named(pictures).items():
        (place / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "pictures" / name).write_bytes(content)
    return lambda: open_reader(str(place / "pictures"), "folders")


def stylegan(place: Path, pictures: Pictures) -> Opening:
    folder(place, pictures)
    rows = ", ".join(f'["{name}", {label}]' for name, label in zip(NAMES, CLASSES, strict=True))
    (place / "pictures" / "dataset.json").write_text(f'{{"labels": [{rows}]}}')
    return lambda: open_reader(str(place / "pictures"))


def zipped(method: int) -> Callable[[Path, Pictures], Opening]:
    def build(place: Path, pictures: Pictures) -> Opening:
        with zipfile.ZipFile(place / "p.zip", "w", method) as archive:
            for name, content in reversed(named(pictures).items()):
                archive.writestr(name, content)
        return lambda: open_reader(str(place / "p.zip"), "folders")

    return build


def tarred(mode: str, suffix: str) -> Callable[[Path, Pictures], Opening]:
    def build(place: Path, pictures: Pictures) -> Opening:
        with tarfile.open(place / f"p{suffix}", mode) as archive:
            for name, content in reversed(named(pictures).items()):
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return lambda: open_reader(str(place / f"p{suffix}"), "folders")

    return build


def npy(place: Path, pictures: Pictures) -> Opening:
    np.save(place / "p.npy", np.stack(pictures))
    (place / "labels.csv").write_text("id,class\n" + "".join(f"{number},{label}\n" for number, label in enumerate(CLASSES)))
    return lambda: open_reader(str(place / "p.npy"), str(place / "labels.csv"))


def npz(place: Path, pictures: Pictures) -> Opening:
    np.savez(place / "p.npz", images=np.stack(pictures).transpose(0, 3, 1, 2), labels=CLASSES[: len(pictures)])
    return lambda: open_reader(str(place / "p.npz"))


def idx(place: Path, pictures: Pictures) -> Opening:
    sizes = b"".join(size.to_bytes(4, "big") for size in (len(pictures), 9, 7))
    (place / "t-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + np.stack(pictures)[..., 0].tobytes())
    labels = b"\0\0\x08\x01" + len(pictures).to_bytes(4, "big") + bytes(CLASSES[: len(pictures)])
    (place / "t-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return lambda: open_reader(str(place / "t-images-idx3-ubyte"))


def idx_packed(place: Path, pictures: Pictures) -> Opening:
    idx(place, pictures)
    (place / "t-images-idx3-ubyte.gz").write_bytes(gzip.compress((place / "t-images-idx3-ubyte").read_bytes()))
    return lambda: open_reader(str(place / "t-images-idx3-ubyte.gz"))


def table(place: Path, pictures: Pictures) -> Opening:
    rows = pa.table({"jpg": [png(picture) for picture in pictures], "kind": CLASSES[: len(pictures)]})
    parquet.write_table(rows, place / "p.parquet", row_group_size=5)
    return lambda: open_reader(str(place / "p.parquet"), "kind")


def tables(place: Path, pictures: Pictures) -> Opening:
    (place / "data").mkdir()
    rows = _dataset(pictures)
    for part in range(2):
        rows.select(range(part * 6, min((part + 1) * 6, len(pictures)))).to_parquet(place / "data" / f"train-0000{part}-of-00002.parquet")
    rows.to_parquet(place / "data" / "test-00000-of-00001.parquet")
    return lambda: open_reader(str(place))


def _dataset(pictures: Pictures) -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [{"bytes": png(picture), "path": None} for picture in pictures]
    return datasets.Dataset.from_dict({"image": images, "label": CLASSES[: len(pictures)]}, features=features)


def saved_dataset(place: Path, pictures: Pictures) -> Opening:
    _dataset(pictures).save_to_disk(place / "saved")
    return lambda: open_reader(str(place / "saved"))


def saved_splits(place: Path, pictures: Pictures) -> Opening:
    splits = {"train": _dataset(pictures[:1]), "test": _dataset(pictures)}
    datasets.DatasetDict(splits).save_to_disk(place / "saved")
    return lambda: open_reader(f"hf:{place / 'saved'}:test")


def hdf5(place: Path, pictures: Pictures) -> Opening:
    with h5py.File(place / "p.h5", "w") as file:
        file.create_dataset("deep/images", data=np.stack(pictures), chunks=(2, 9, 7, 3), compression="gzip")
        file["deep/what"] = CLASSES[: len(pictures)]
    return lambda: open_reader(str(place / "p.h5"), "deep/what")


def database(place: Path, pictures: Pictures) -> Opening:
    with lmdb.open(str(place / "lmdb"), map_size=2**24) as store, store.begin(write=True) as transaction:
        for name, content in reversed(named(pictures).items()):
            transaction.put(name.encode(), content)
        transaction.put(b"__len__", b"12")
    return lambda: open_reader(str(place / "lmdb"), "folders")


def array(place: Path, pictures: Pictures) -> Opening:
    return lambda: array_reader(np.stack(pictures), CLASSES[: len(pictures)])


def tensor(place: Path, pictures: Pictures) -> Opening:
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    labels = torch.eye(2)[CLASSES[: len(pictures)]]
    return lambda: array_reader(pixels / 127.5 - 1, labels)


class Pillows(torch.utils.data.Dataset):
    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[object, int]:
        return self.made(self.pictures[index]), CLASSES[index]

    def made(self, picture: np.ndarray) -> object:
        return Image.fromarray(picture)


class Tensors(Pillows):
    def made(self, picture: np.ndarray) -> object:
        return torch.from_numpy(picture).permute(2, 0, 1) / 255


def pillows(place: Path, pictures: Pictures) -> Opening:
    return lambda: dataset_reader(Pillows(pictures))


def tensors(place: Path, pictures: Pictures) -> Opening:
    return lambda: dataset_reader(Tensors(pictures))


SOURCES = {
    "folder": folder,
    "stylegan folder": stylegan,
    "zip": zipped(zipfile.ZIP_STORED),
    "zip deflate": zipped(zipfile.ZIP_DEFLATED),
    "zip bzip2": zipped(zipfile.ZIP_BZIP2),
    "tar": tarred("w", ".tar"),
    "tgz": tarred("w:gz", ".tgz"),
    "tar.bz2": tarred("w:bz2", ".tar.bz2"),
    "tar.xz": tarred("w:xz", ".tar.xz"),
    "npy": npy,
    "npz": npz,
    "idx": idx,
    "idx.gz": idx_packed,
    "parquet": table,
    "folder of parquet": tables,
    "saved dataset": saved_dataset,
    "saved splits": saved_splits,
    "hdf5": hdf5,
    "lmdb": database,
    "array": array,
    "tensor": tensor,
    "dataset of Pillow": pillows,
    "dataset of tensors": tensors,
}

every_source = pytest.mark.parametrize("source", SOURCES)


def expected(source: str) -> list[np.ndarray]:
    return [np.repeat(grey[:, :, None], 3, axis=2) for grey in GREY] if source.startswith("idx") else PICTURES


def build(source: str, place: Path, pictures: Pictures = PICTURES) -> Opening:
    shutil.rmtree(place / "source", ignore_errors=True)
    (place / "source").mkdir()
    return SOURCES[source](place / "source", pictures)


@every_source
def test_the_pictures_come_back_in_any_order(source, tmp_path):
    reader = build(source, tmp_path)()
    assert len(reader) == reader.count == NUMBER
    for index in (11, 0, 5, 4, 11, 6, 10, 1, 9, 2, 8, 3, 7):
        np.testing.assert_array_equal(decoded(reader.read(index), FRAME), expected(source)[index])


@every_source
def test_opening_again_tells_the_same(source, tmp_path):
    opening = build(source, tmp_path)
    first, second = opening(), opening()
    titles = [first.title(index) for index in range(NUMBER)]
    assert titles == [second.title(index) for index in range(NUMBER)]
    assert len(set(titles)) == NUMBER
    assert first.fingerprint == second.fingerprint
    assert list(first.labels) == list(second.labels)
    assert classes_of(list(first.labels))[0] == CLASSES


@every_source
def test_the_fingerprint_changes_with_the_pictures(source, tmp_path):
    marks = []
    for pictures in (PICTURES, [*PICTURES[:-1], PICTURES[0]], PICTURES[:-1]):
        marks.append(build(source, tmp_path, pictures)().fingerprint)
        time.sleep(0.02)  # file systems count time in steps of some milliseconds
    assert len(set(marks)) == 3


@every_source
def test_a_forked_process_reads_the_same(source, tmp_path):
    reader = build(source, tmp_path)()
    reader.read(0)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=_read_backwards, args=(reader, answers))
    process.start()
    before = [decoded(reader.read(index), FRAME).tobytes() for index in range(NUMBER)]  # while the other reads too
    assert answers.get(timeout=60) == before
    process.join(timeout=60)
    assert process.exitcode == 0
    assert decoded(reader.read(3), FRAME).tobytes() == before[3]


def _read_backwards(reader: Reader, answers: multiprocessing.Queue) -> None:
    backwards = [decoded(reader.read(index), FRAME).tobytes() for index in reversed(range(NUMBER))]
    answers.put(backwards[::-1])
