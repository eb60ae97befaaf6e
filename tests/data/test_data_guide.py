"""Every command in the source table of docs/guides/data.md trains on small generated data."""

import io
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardigan.cli.main import run

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "data.md").read_text()
COMMANDS = re.findall(r"^\| .* \| `(cardigan train [^`]+)` \|", GUIDE, re.MULTILINE)
QUICK_OPTIONS = [
    "--size",
    "8",
    "--images",
    "8",
    "--batch-size",
    "4",
    "--generator.width",
    "4",
    "--discriminator.width",
    "4",
    "--discriminator.network",
    "dcgan",  # for 12 images
    "--device",
    "cpu",
]
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 10, 3), np.uint8)
CLASSES = np.arange(12) % 3


def random_png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[number]).save(buffer, "PNG")
    return buffer.getvalue()


def folder(path: Path) -> None:
    path.mkdir()
    for number in range(12):
        (path / f"{number}.png").write_bytes(random_png(number))


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for number in range(12):
            file.writestr(f"{number}.png", random_png(number))


def tar(path: Path, numbers=range(12)) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as file:
        for number in numbers:
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(random_png(number))
            file.addfile(info, io.BytesIO(random_png(number)))


def idx(path: Path) -> None:
    import gzip

    gray = PIXELS[:, :, :, 0]
    path.write_bytes(gzip.compress(b"\0\0\x08\x03" + np.array(gray.shape, ">u4").tobytes() + gray.tobytes()))


def parquet(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        pyarrow.table({"image": [random_png(number) for number in range(12)], "label": CLASSES.tolist()}), path
    )


def hdf5(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = PIXELS, CLASSES


def lmdb_folder(path: Path) -> None:
    import lmdb

    with lmdb.open(str(path), map_size=1 << 24) as database, database.begin(write=True) as writing:
        for number in range(12):
            writing.put(f"{number:03}".encode(), random_png(number))


def saved_dataset(path: Path) -> None:
    import datasets

    rows = {"image": [Image.fromarray(each) for each in PIXELS], "label": CLASSES.tolist()}
    datasets.Dataset.from_dict(
        rows, features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    ).save_to_disk(str(path))


SOURCE_MAKERS: dict[str, Callable[[Path], None]] = {
    "photos": folder,
    "photos.zip": archive,
    "photos.tar": tar,
    "photos.npy": lambda path: np.save(path, PIXELS),
    "photos.npz": lambda path: np.savez(path, images=PIXELS, labels=CLASSES),
    "images-idx3-ubyte.gz": idx,
    "photos.parquet": parquet,
    "photos.h5": hdf5,
    "photos.lmdb": lmdb_folder,
    "saved_dataset": saved_dataset,
    "shards/train-{000..002}.tar": lambda path: [
        tar(path.parent / f"train-00{shard}.tar", range(shard, 12, 3)) for shard in range(3)
    ],
    "mnist": lambda path: None,
}


def test_guide_lists_every_source():
    assert [command.split()[2] for command in COMMANDS] == list(SOURCE_MAKERS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("command", COMMANDS)
def test_guide_command_trains(tmp_path, monkeypatch, capsys, command):
    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))
    words = command.split()
    SOURCE_MAKERS[words[2]](tmp_path / words[2])
    monkeypatch.chdir(tmp_path)
    workers = [] if words[2] == "mnist" else ["--data.num_workers", "0"]  # built-in digits are not decoded
    assert run([*words[1:], *QUICK_OPTIONS, *workers, "--out", "run"]) == 0
    assert (tmp_path / "run" / "generator.safetensors").exists()
    assert words[2] == "mnist" or "images: 12" in capsys.readouterr().out
