"""The guarantees of a Reader, for every format, on the same twelve images."""

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

from cardigan.data.decoding import DecodeSpec, decode_image
from cardigan.data.formats.arrays import array_reader
from cardigan.data.formats.detection import open_reader
from cardigan.data.formats.labels import encode_labels
from cardigan.data.formats.torch_dataset import torch_dataset_reader
from cardigan.data.reader import Reader

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later

NUM_IMAGES = 12
IMAGES = [np.random.default_rng(seed).integers(0, 256, (9, 7, 3), np.uint8) for seed in range(NUM_IMAGES)]
GRAY = [image[:, :, 0] for image in IMAGES]
CLASSES = [0] * 5 + [1] * 7
NAMES = [f"{'cat' if label == 0 else 'dog'}/{number:02d}.png" for number, label in enumerate(CLASSES)]
SPEC = DecodeSpec(height=9, width=7, channels=3, resize="stretch", max_pixels=1000)

SourceMaker: TypeAlias = Callable[[], Reader]
ImageList: TypeAlias = Sequence[np.ndarray]


def png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def image_names(images: ImageList) -> dict[str, bytes]:
    return {name: png(image) for name, image in zip(NAMES, images, strict=False)}


def folder(place: Path, images: ImageList) -> SourceMaker:
    for name, content in image_names(images).items():
        (place / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "photos" / name).write_bytes(content)
    return lambda: open_reader(str(place / "photos"), "folders")


def stylegan_folder(place: Path, images: ImageList) -> SourceMaker:
    folder(place, images)
    rows = ", ".join(f'["{name}", {label}]' for name, label in zip(NAMES, CLASSES, strict=True))
    (place / "photos" / "dataset.json").write_text(f'{{"labels": [{rows}]}}')
    return lambda: open_reader(str(place / "photos"))


def zip_maker(method: int) -> Callable[[Path, ImageList], SourceMaker]:
    def build(place: Path, images: ImageList) -> SourceMaker:
        with zipfile.ZipFile(place / "p.zip", "w", method) as archive:
            for name, content in reversed(image_names(images).items()):
                archive.writestr(name, content)
        return lambda: open_reader(str(place / "p.zip"), "folders")

    return build


def tar_maker(mode: str, suffix: str) -> Callable[[Path, ImageList], SourceMaker]:
    def build(place: Path, images: ImageList) -> SourceMaker:
        with tarfile.open(place / f"p{suffix}", mode) as archive:
            for name, content in reversed(image_names(images).items()):
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return lambda: open_reader(str(place / f"p{suffix}"), "folders")

    return build


def npy(place: Path, images: ImageList) -> SourceMaker:
    np.save(place / "p.npy", np.stack(images))
    (place / "labels.csv").write_text(
        "id,class\n" + "".join(f"{number},{label}\n" for number, label in enumerate(CLASSES))
    )
    return lambda: open_reader(str(place / "p.npy"), str(place / "labels.csv"))


def npz(place: Path, images: ImageList) -> SourceMaker:
    np.savez(place / "p.npz", images=np.stack(images).transpose(0, 3, 1, 2), labels=CLASSES[: len(images)])
    return lambda: open_reader(str(place / "p.npz"))


def idx(place: Path, images: ImageList) -> SourceMaker:
    sizes = b"".join(size.to_bytes(4, "big") for size in (len(images), 9, 7))
    (place / "t-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + np.stack(images)[..., 0].tobytes())
    labels = b"\0\0\x08\x01" + len(images).to_bytes(4, "big") + bytes(CLASSES[: len(images)])
    (place / "t-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return lambda: open_reader(str(place / "t-images-idx3-ubyte"))


def gzip_idx(place: Path, images: ImageList) -> SourceMaker:
    idx(place, images)
    (place / "t-images-idx3-ubyte.gz").write_bytes(gzip.compress((place / "t-images-idx3-ubyte").read_bytes()))
    return lambda: open_reader(str(place / "t-images-idx3-ubyte.gz"))


def parquet_file(place: Path, images: ImageList) -> SourceMaker:
    rows = pa.table({"jpg": [png(image) for image in images], "kind": CLASSES[: len(images)]})
    parquet.write_table(rows, place / "p.parquet", row_group_size=5)
    return lambda: open_reader(str(place / "p.parquet"), "kind")


def parquet_folder(place: Path, images: ImageList) -> SourceMaker:
    (place / "data").mkdir()
    rows = _huggingface_dataset(images)
    for part in range(2):
        rows.select(range(part * 6, min((part + 1) * 6, len(images)))).to_parquet(
            place / "data" / f"train-0000{part}-of-00002.parquet"
        )
    rows.to_parquet(place / "data" / "test-00000-of-00001.parquet")
    return lambda: open_reader(str(place))


def _huggingface_dataset(images: ImageList) -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    encoded = [{"bytes": png(image), "path": None} for image in images]
    return datasets.Dataset.from_dict({"image": encoded, "label": CLASSES[: len(images)]}, features=features)


def saved_dataset(place: Path, images: ImageList) -> SourceMaker:
    _huggingface_dataset(images).save_to_disk(place / "saved")
    return lambda: open_reader(str(place / "saved"))


def saved_dataset_dict(place: Path, images: ImageList) -> SourceMaker:
    splits = {"train": _huggingface_dataset(images[:1]), "test": _huggingface_dataset(images)}
    datasets.DatasetDict(splits).save_to_disk(place / "saved")
    return lambda: open_reader(f"hf:{place / 'saved'}:test")


def hdf5(place: Path, images: ImageList) -> SourceMaker:
    with h5py.File(place / "p.h5", "w") as file:
        file.create_dataset("deep/images", data=np.stack(images), chunks=(2, 9, 7, 3), compression="gzip")
        file["deep/what"] = CLASSES[: len(images)]
    return lambda: open_reader(str(place / "p.h5"), "deep/what")


def lmdb_folder(place: Path, images: ImageList) -> SourceMaker:
    with lmdb.open(str(place / "lmdb"), map_size=2**24) as store, store.begin(write=True) as transaction:
        for name, content in reversed(image_names(images).items()):
            transaction.put(name.encode(), content)
        transaction.put(b"__len__", b"12")
    return lambda: open_reader(str(place / "lmdb"), "folders")


def array(place: Path, images: ImageList) -> SourceMaker:
    return lambda: array_reader(np.stack(images), CLASSES[: len(images)])


def tensor(place: Path, images: ImageList) -> SourceMaker:
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    labels = torch.eye(2)[CLASSES[: len(images)]]
    return lambda: array_reader(pixels / 127.5 - 1, labels)


class PilDataset(torch.utils.data.Dataset):
    def __init__(self, images: ImageList) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[object, int]:
        return self.to_item(self.images[index]), CLASSES[index]

    def to_item(self, image: np.ndarray) -> object:
        return Image.fromarray(image)


class TensorDataset(PilDataset):
    def to_item(self, image: np.ndarray) -> object:
        return torch.from_numpy(image).permute(2, 0, 1) / 255


def pil_dataset(place: Path, images: ImageList) -> SourceMaker:
    return lambda: torch_dataset_reader(PilDataset(images))


def tensor_dataset(place: Path, images: ImageList) -> SourceMaker:
    return lambda: torch_dataset_reader(TensorDataset(images))


SOURCE_MAKERS = {
    "folder": folder,
    "stylegan folder": stylegan_folder,
    "zip": zip_maker(zipfile.ZIP_STORED),
    "zip deflate": zip_maker(zipfile.ZIP_DEFLATED),
    "zip bzip2": zip_maker(zipfile.ZIP_BZIP2),
    "tar": tar_maker("w", ".tar"),
    "tgz": tar_maker("w:gz", ".tgz"),
    "tar.bz2": tar_maker("w:bz2", ".tar.bz2"),
    "tar.xz": tar_maker("w:xz", ".tar.xz"),
    "npy": npy,
    "npz": npz,
    "idx": idx,
    "idx.gz": gzip_idx,
    "parquet": parquet_file,
    "folder of parquet": parquet_folder,
    "saved dataset": saved_dataset,
    "saved splits": saved_dataset_dict,
    "hdf5": hdf5,
    "lmdb": lmdb_folder,
    "array": array,
    "tensor": tensor,
    "dataset of Pillow": pil_dataset,
    "dataset of tensors": tensor_dataset,
}

every_source = pytest.mark.parametrize("source", SOURCE_MAKERS)


def expected_images(source: str) -> list[np.ndarray]:
    return [np.repeat(gray[:, :, None], 3, axis=2) for gray in GRAY] if source.startswith("idx") else IMAGES


def make_source(source: str, place: Path, images: ImageList = IMAGES) -> SourceMaker:
    shutil.rmtree(place / "source", ignore_errors=True)
    (place / "source").mkdir()
    return SOURCE_MAKERS[source](place / "source", images)


@every_source
def test_images_can_be_read_in_any_order(source, tmp_path):
    reader = make_source(source, tmp_path)()
    assert len(reader) == reader.num_images == NUM_IMAGES
    for index in (11, 0, 5, 4, 11, 6, 10, 1, 9, 2, 8, 3, 7):
        np.testing.assert_array_equal(decode_image(reader.read(index), SPEC), expected_images(source)[index])


@every_source
def test_reopening_gives_equal_reader(source, tmp_path):
    opening = make_source(source, tmp_path)
    first, second = opening(), opening()
    titles = [first.entry_name(index) for index in range(NUM_IMAGES)]
    assert titles == [second.entry_name(index) for index in range(NUM_IMAGES)]
    assert len(set(titles)) == NUM_IMAGES
    assert first.fingerprint == second.fingerprint
    assert list(first.labels) == list(second.labels)
    assert encode_labels(list(first.labels))[0] == CLASSES


@every_source
def test_fingerprint_changes_with_images(source, tmp_path):
    fingerprints = []
    for images in (IMAGES, [*IMAGES[:-1], IMAGES[0]], IMAGES[:-1]):
        fingerprints.append(make_source(source, tmp_path, images)().fingerprint)
        time.sleep(0.02)  # file systems store times in steps of some milliseconds
    assert len(set(fingerprints)) == 3


@every_source
def test_forked_process_reads_equal_images(source, tmp_path):
    reader = make_source(source, tmp_path)()
    reader.read(0)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_read_in_reverse, args=(reader, queue))
    process.start()
    before = [
        decode_image(reader.read(index), SPEC).tobytes() for index in range(NUM_IMAGES)
    ]  # while the other process also reads
    assert queue.get(timeout=60) == before
    process.join(timeout=60)
    assert process.exitcode == 0
    assert decode_image(reader.read(3), SPEC).tobytes() == before[3]


def _read_in_reverse(reader: Reader, queue: multiprocessing.Queue) -> None:
    contents = [decode_image(reader.read(index), SPEC).tobytes() for index in reversed(range(NUM_IMAGES))]
    queue.put(contents[::-1])
