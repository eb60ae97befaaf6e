"""Files as other programs write them: read right, or refused with the reason; classes that are not taken are named."""

import io
import json
import os
import tarfile
import unicodedata
import zipfile
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

from cardigan.data.decoding import DecodeSpec, decode_image
from cardigan.data.formats import numpy_files, watch
from cardigan.data.formats.arrays import array_reader
from cardigan.data.formats.detection import open_reader
from cardigan.data.formats.labels import folder_labels
from cardigan.data.formats.torch_dataset import torch_dataset_reader
from cardigan.data.reader import SOURCE_CHANGED, Reader, UnreadableImage, printable
from cardigan.data.workers import unreadable_error
from cardigan.errors import CardiganError, escape_control_characters

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 9, 9, 3), np.uint8)
ATTRIBUTES = np.arange(8)[:, None] >> np.arange(3) & 1
"""Three labels an image; column 0 is whether its index is odd."""


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


PNGS = [png(pixels) for pixels in PIXELS]


def open_path(path: Path, labels: str = "") -> Reader:
    return open_reader(str(path), labels)


def names(reader: Reader) -> list[str]:
    return [reader.entry_name(index) for index in range(len(reader))]


def error_message(path: Path, labels: str = "") -> str:
    with pytest.raises(CardiganError) as caught:
        open_path(path, labels)
    return str(caught.value)


def write_images(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(PNGS[0])
    return folder


def write_zip(path: Path, files: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_hdf5(path: Path, arrays: dict[str, object]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def write_parquet(path: Path, **columns: object) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def save_dataset(path: Path, rows: dict[str, object], **features: object) -> Path:
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).save_to_disk(path)
    return path


# Parts of a data set


@pytest.mark.parametrize("part", ["test", "val", "valid", "Validation"])
def test_images_in_a_test_folder_are_left_out(tmp_path, part):
    write_images(tmp_path, "train/cat/1.png", "train/dog/2.png", f"{part}/cat/3.png", "extra/4.png")
    reader = open_path(tmp_path)
    assert names(reader) == ["extra/4.png", "train/cat/1.png", "train/dog/2.png"]
    assert f"1 in {part}/ are not read" in reader.notes[0] and "--data.split all reads all" in reader.notes[0]
    assert [reader.read(index) for index in range(3)] == [PNGS[0]] * 3
    assert len(open_reader(str(tmp_path), all_parts=True)) == 4


def test_test_folders_below_classes_and_in_archives(tmp_path):
    files = dict.fromkeys(("d/cat/train/1.png", "d/cat/test/2.png", "d/dog/test/3.png"), PNGS[0])
    reader = open_path(write_zip(tmp_path / "p.zip", files))
    assert names(reader) == ["d/cat/train/1.png", "d/dog/test/3.png"]  # no train folder beside the latter
    assert open_path(write_images(tmp_path / "p", "a/1.png", "test/1.png")).notes == ()


def test_parts_are_not_classes():
    assert folder_labels("", ["d/train/cat/1.png", "d/test/dog/2.png"]) == ["cat", "dog"]
    assert folder_labels("", ["train/1.png", "bus/2.png"]) == ["train", "bus"]


def test_split_all_trains_on_the_test_folder_too(tmp_path, monkeypatch):
    from cardigan.config_parts import DataConfig
    from cardigan.data.datasets import open_datasets

    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))
    source = str(write_images(tmp_path / "p", *(f"train/{n}.png" for n in range(3)), "test/1.png"))
    found = open_datasets(DataConfig(source=source, num_workers=0))
    assert len(found.train) == 3 and "1 in test/ are not read" in found.messages[0]
    found = open_datasets(DataConfig(source=source, split="all", num_workers=0))
    assert len(found.train) == 4 and found.messages == ()


def test_only_training_files_of_tables_are_read_and_it_is_said(tmp_path):
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}-0.parquet", image=PNGS)
    assert open_path(tmp_path).notes == ("images: 1 files are not read, such as test-0.parquet",)


# Classes


def test_dataset_json_in_a_top_folder(tmp_path):
    table = json.dumps({"labels": [["0/1.png", 5], ["0/2.png", 6]]})
    files = {"top/0/1.png": PNGS[0], "top/0/2.png": PNGS[0], "top/dataset.json": table}
    assert open_path(write_zip(tmp_path / "p.zip", files)).labels == [5, 6]
    tar_files = {name: content if isinstance(content, bytes) else content.encode() for name, content in files.items()}
    assert open_path(write_tar(tmp_path / "p.tgz", tar_files, "w:gz")).labels == [5, 6]
    write_images(tmp_path / "p", "top/0/1.png", "top/0/2.png")
    (tmp_path / "p" / "top" / "dataset.json").write_text(table)
    assert open_path(tmp_path / "p").labels == [5, 6]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[0, 1, 0], [0, 0, 1]], [1, 2]),
        ([[0.5] * 25, [0.25] * 25], "dataset.json has the class [0.5, 0.5,"),
        ([[1, 1, 0], [0, 1, 1]], "dataset.json has the class [1, 1, 0]"),
        (["\ud800", "b"], "dataset.json has the class '\\ud800', which is not valid Unicode"),
    ],
)
def test_unusable_classes_of_dataset_json_do_not_refuse_the_images(tmp_path, labels, expected):
    table = {"labels": [[f"{number}.png", label] for number, label in enumerate(labels)]}
    reader = open_path(
        write_zip(tmp_path / "p.zip", {"0.png": PNGS[0], "1.png": PNGS[1], "dataset.json": json.dumps(table)})
    )
    if isinstance(expected, list):
        assert reader.labels == expected and reader.notes == ()
    else:
        assert reader.labels is None and expected in reader.notes[0]


def test_conditional_training_says_why_there_are_no_classes(tmp_path, monkeypatch):
    import cardigan

    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "p.npz", images=PIXELS, labels=ATTRIBUTES)
    settings = {
        "data.height": 8, "data.width": 8, "batch_size": 4, "generator.width": 4, "discriminator.width": 4,
        "data.num_workers": 0,
    }  # fmt: skip
    with pytest.raises(CardiganError, match=r"have no classes \(classes: labels is not used.*NAME:NUMBER"):
        cardigan.train(
            str(tmp_path / "p.npz"), out=tmp_path / "run", images=4, overrides={**settings, "conditional": True}
        )


@pytest.mark.parametrize("column", ["label", "fine_label", "coarse_label"])
def test_text_classes_of_saved_datasets(tmp_path, column):
    cells = [{"bytes": content, "path": None} for content in PNGS]
    rows = {"image": cells, column: list("abcdabcd")}
    reader = open_path(save_dataset(tmp_path / "p", rows, image=datasets.Image(), **{column: datasets.Value("string")}))
    assert reader.labels == list("abcdabcd") and reader.notes == ()


def test_several_class_columns_of_saved_datasets(tmp_path):
    cells = [{"bytes": content, "path": None} for content in PNGS]
    kind = datasets.ClassLabel(names=list("abcdefgh"))
    rows = {"image": cells, "fine": list(range(8)), "coarse": [0] * 8, "breed": list("xyxyxyxy")}
    features = {"image": datasets.Image(), "fine": kind, "coarse": kind, "breed": datasets.Value("string")}
    reader = open_path(save_dataset(tmp_path / "p", rows, **features))
    assert reader.labels == list("abcdefgh")
    assert reader.notes == ("classes: those of fine; others could be in coarse (--data.labels NAME)",)
    for column in ("fine", "coarse"):
        del rows[column], features[column]
    reader = open_path(save_dataset(tmp_path / "q", rows, **features))
    assert reader.labels is None
    assert reader.notes == ("classes: none taken, but some could be in breed (--data.labels NAME)",)
    assert open_path(tmp_path / "q", "breed").labels == list("xyxyxyxy")


def test_splits_of_saved_datasets_that_are_not_read_are_named(tmp_path):
    rows = datasets.Dataset.from_dict({"image": PNGS}, features=datasets.Features({"image": datasets.Value("binary")}))
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "p")
    assert "the split train is read, test not" in open_path(tmp_path / "p").notes[0]


def test_view_columns_of_parquet(tmp_path):
    labels = pa.array(list("abcdabcd"), pa.string_view())
    path = write_parquet(tmp_path / "p.parquet", image=pa.array(PNGS, pa.binary_view()), label=labels)
    assert open_path(path).read(3) == PNGS[3] and open_path(path).labels == list("abcdabcd")


def test_unnamed_and_unusable_class_columns_of_parquet(tmp_path):
    path = write_parquet(tmp_path / "p.parquet", image=PNGS, breed=list("abcdabcd"), caption=["x"] * 8)
    assert open_path(path).labels is None and "could be in breed, caption" in open_path(path).notes[0]
    path = write_parquet(tmp_path / "p.parquet", image=PNGS, label=ATTRIBUTES.tolist())
    assert "Column 'label' has the class [0, 0, 0]" in open_path(path).notes[0]
    assert open_path(path, "label:0").labels == [0, 1] * 4
    assert "no position 3" in error_message(path, "label:3")
    path = write_parquet(tmp_path / "p.parquet", image=PNGS, label=[1.0, None] * 4)
    assert open_path(path).labels == [1, None] * 4


@pytest.mark.parametrize("suffix", ["", ".parquet"])
def test_array_columns(tmp_path, suffix):
    features = {"image": datasets.Array3D((9, 9, 3), "uint8"), "label": datasets.Value("int64")}
    save_dataset(tmp_path / "p", {"image": PIXELS, "label": list(range(8))}, **features)
    if suffix:
        datasets.load_from_disk(tmp_path / "p").to_parquet(tmp_path / "p.parquet")
    reader = open_path(tmp_path / f"p{suffix}")
    np.testing.assert_array_equal(np.stack([reader.read(index) for index in range(8)]), PIXELS)
    assert reader.labels == list(range(8))


@pytest.mark.parametrize(
    ("images", "labels"),
    [("X", "y"), ("x", "Y"), ("X_train", "y_train"), ("train_images", "train_labels"), ("trainX", "trainY")],
)
def test_names_of_npz_arrays(tmp_path, images, labels):
    others = {"X_test": PIXELS[:3], "y_test": np.zeros(3), "val_images": PIXELS[:2], "val_labels": np.zeros(2)}
    np.savez(tmp_path / "p.npz", **others, **{images: PIXELS, labels: np.arange(8)[:, None]})
    reader = open_path(tmp_path / "p.npz")
    assert len(reader) == 8 and reader.labels == list(range(8))
    assert reader.notes == (f"images: {images}; not read: X_test, val_images",)


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_columns_of_multi_label_arrays(tmp_path, kind):
    path = tmp_path / f"p.{kind}"
    texts = np.array(["odd", "two", "four"])
    arrays = {"images": PIXELS, "labels": ATTRIBUTES, "words": texts if kind == "npz" else texts.astype("S")}
    if kind == "npz":
        np.savez(path, **arrays)
    else:
        write_hdf5(path, arrays)
    reader = open_path(path)
    assert reader.labels is None and "--data.labels NAME:NUMBER" in reader.notes[0]
    assert open_path(path, "labels:0").labels == open_path(path, "labels:odd").labels == [0, 1] * 4
    assert "has labels of shape (8, 3)" in error_message(path, "labels")
    assert "no column '3' of classes: expected a number from 0 to 2, or one of odd" in error_message(path, "labels:3")


def test_arrays_that_could_hold_classes_are_named(tmp_path):
    np.savez(tmp_path / "p.npz", images=PIXELS, attributes=ATTRIBUTES)
    assert "could be in attributes" in open_path(tmp_path / "p.npz").notes[0]
    np.savez(tmp_path / "p.npz", images=PIXELS, labels=np.array([{}] * 8, object))
    assert "labels is not used" in open_path(tmp_path / "p.npz").notes[0]
    np.savez(tmp_path / "p.npz", images=PIXELS, labels=np.arange(3))
    assert "has 8 images and 3 labels" in open_path(tmp_path / "p.npz").notes[0]


@pytest.mark.parametrize("name", ["{}/images {}/labels", "{}_x {}_y", "X_{} y_{}"])
def test_parts_of_hdf5_files(tmp_path, name):
    arrays = {}
    for part, count in (("test", 3), ("train", 8)):
        images, labels = name.format(*[part] * 2).split()
        arrays |= {images: PIXELS[:count], labels: np.arange(count)}
    reader = open_path(write_hdf5(tmp_path / "p.h5", arrays))
    assert len(reader) == 8 and reader.labels == list(range(8))
    assert "not read: " in reader.notes[0] and "test" in reader.notes[0]


def test_hdf5_with_a_dataset_for_each_image(tmp_path):
    path = write_hdf5(tmp_path / "p.h5", {"cat/1": PIXELS[0], "cat/2": PIXELS[1, :5], "dog/3": PIXELS[2, :, :, 0]})
    reader = open_path(path, "folders")
    assert names(reader) == ["cat/1", "cat/2", "dog/3"] and reader.labels == ["cat", "cat", "dog"]
    assert [reader.read(index).shape for index in range(3)] == [(9, 9, 3), (5, 9, 3), (9, 9)]
    np.testing.assert_array_equal(reader.read(1), PIXELS[1, :5])


def test_one_hot_and_text_classes_of_hdf5(tmp_path):
    assert open_path(write_hdf5(tmp_path / "p.h5", {"images": PIXELS, "labels": np.eye(8)})).labels == list(range(8))
    texts = ["café".encode("cp1252"), "caf\u00e8".encode("cp1252")] * 4
    assert open_path(write_hdf5(tmp_path / "p.h5", {"images": PIXELS, "labels": texts})).labels == ["café", "cafè"] * 4


def test_classes_of_one_shard_given_alone(tmp_path):
    files = {}
    for number in range(3):
        files |= {
            f"{number}.cls": str(number).encode(),
            f"{number}.depth.png": PNGS[7],
            f"{number}.jpg": PNGS[number],
            f"{number}.mask.png": PNGS[6],
        }
    for path, mode in ((tmp_path / "p.tar", "w"), (tmp_path / "p.tar.gz", "w:gz")):
        reader = open_path(write_tar(path, files, mode))
        assert names(reader) == ["0.jpg", "1.jpg", "2.jpg"] and reader.labels == [0, 1, 2]
        assert reader.read(2) == PNGS[2] and reader.skipped["another image of the same key"] == 6
    labels = {"a.jpg": PNGS[0], "a.json": b'{"label": 4}', "b.jpg": PNGS[1], "b.json": b"{broken"}
    assert open_path(write_tar(tmp_path / "q.tar", labels)).labels == [4, None]
    bare = {"a.jpg": PNGS[0], "a.depth.png": PNGS[1]}
    assert len(open_path(write_tar(tmp_path / "r.tar", bare))) == 2  # not known to be a shard


# Values of pixels


def test_dark_first_images_do_not_decide_the_value_range():
    pixels = np.zeros((300, 5, 5), np.float32)
    pixels[150:] = 200
    assert array_reader(pixels).read(200).max() == 200
    pixels[:] = 0
    pixels[137] = 200  # not among the images that are sampled
    with pytest.raises(UnreadableImage, match="holds values from 200 to 200, but the images that were sampled hold"):
        array_reader(pixels).read(137)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_arrays_of_zeros_and_ones_are_scaled(dtype):
    pixels = (PIXELS > 127).astype(dtype)
    reader = array_reader(pixels)
    np.testing.assert_array_equal(reader.read(0), pixels[0] * 255)
    assert reader.notes == ("pixels: only the values 0 and 1, scaled to 0 and 255",)
    if dtype == np.uint8:
        reader = torch_dataset_reader(torch.utils.data.StackDataset([torch.from_numpy(image) for image in pixels]))
        np.testing.assert_array_equal(reader.read(0), pixels[0] * 255)


def test_16_bit_pgm_of_any_brightness():
    spec = DecodeSpec(1, 3, 1, "stretch", 100)
    for values in ([0, 255, 300], [0, 100, 255]):
        content = b"P5\n3 1\n65535\n" + np.array(values, ">u2").tobytes()
        assert decode_image(content, spec).ravel().tolist() == [value >> 8 for value in values]


def test_32_bit_images_are_refused():
    content = io.BytesIO()
    Image.fromarray(np.array([[0, 2**20]], np.int32)).save(content, "TIFF")
    with pytest.raises(UnreadableImage, match="holds values up to 1,048,576"):
        decode_image(content.getvalue(), DecodeSpec(1, 2, 1, "stretch", 100))


def test_multi_resolution_lmdb(tmp_path):
    with lmdb.open(str(tmp_path), map_size=2**22) as store, store.begin(write=True) as transaction:
        for size in (8, 16, 128):
            for index in range(3):
                transaction.put(f"{size}-{index:05}".encode(), PNGS[index] + bytes([size]))
        transaction.put(b"length", b"3")
    reader = open_path(tmp_path)
    assert names(reader) == ["128-00000", "128-00001", "128-00002"] and reader.read(1)[-1] == 128
    assert reader.notes == ("images: the database holds every image in several sizes; 128 is read, 8, 16 not",)
    with lmdb.open(str(tmp_path), map_size=2**22) as store, store.begin(write=True) as transaction:
        transaction.put(b"8-00003", PNGS[3])  # other images, not other sizes
    assert len(open_path(tmp_path)) == 10


# Names and encodings


@pytest.mark.parametrize(("encoding", "notes"), [("utf-16", 0), ("utf-8-sig", 0), ("cp1252", 1)])
def test_encodings_of_label_files(tmp_path, encoding, notes):
    write_images(tmp_path / "p", "1.png", "2.png")
    (tmp_path / "l.csv").write_bytes("file,label\n1.png,café\n2.png,ü\n".encode(encoding))
    (tmp_path / "l.json").write_bytes('{"1.png": "café", "2.png": "ü"}'.encode(encoding))
    for file in ("l.csv", "l.json"):
        reader = open_path(tmp_path / "p", str(tmp_path / file))
        assert reader.labels == ["café", "ü"] and len(reader.notes) == notes
        assert not notes or reader.notes[0].endswith("is not UTF-8 and was read as cp1252")


def test_label_files_that_are_not_text(tmp_path):
    write_images(tmp_path / "p", "1.png")
    for file, content, expected in (
        ("l.csv", b"file,label\n1.png,\x81\n", "is not a text in UTF-8, UTF-16 or cp1252"),
        ("l.json", b'{"1.png": "\\ud800"}', "which is not valid Unicode: save it as UTF-8"),
    ):
        (tmp_path / file).write_bytes(content)
        assert expected in error_message(tmp_path / "p", str(tmp_path / file))


def test_dataset_json_in_cp1252(tmp_path):
    table = '{"labels": [["1.png", "café"]]}'.encode("cp1252")
    reader = open_path(write_zip(tmp_path / "p.zip", {"1.png": PNGS[0], "dataset.json": table}))
    assert reader.labels == ["café"]
    assert reader.notes == ("classes: dataset.json is not UTF-8 and was read as cp1252",)


def test_composed_and_decomposed_names_are_equal(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    write_images(tmp_path / "p", f"{decomposed}/1{decomposed}.png", f"{composed}/2{composed}.png")
    assert open_path(tmp_path / "p", "folders").labels == [composed] * 2
    (tmp_path / "l.csv").write_text(f"file,label\n1{composed}.png,a\n{composed}/2{decomposed}.png,b\n")
    reader = open_path(tmp_path / "p", str(tmp_path / "l.csv"))
    assert dict(zip(names(reader), reader.labels, strict=True)) == {
        f"{decomposed}/1{decomposed}.png": "a",
        f"{composed}/2{composed}.png": "b",
    }


def test_control_characters_are_escaped(tmp_path):
    name = "a\x1b[31m\n\x9b.png"
    assert printable(name) == "a\\x1b[31m\\n\\x9b.png"
    assert names(open_path(write_images(tmp_path / "p", name))) == ["a\\x1b[31m\\n\\x9b.png"]
    assert escape_control_characters("é\n\x1b[0m\ud800\u202e") == "é\n\\x1b[0m\\ud800\\u202e"


def test_check_prints_no_control_characters(tmp_path, capsys):
    from cardigan.cli.main import run

    write_images(tmp_path / "p", "1.png", "2\x1b[31m.png", "3.png", "4.png")
    (tmp_path / "l.csv").write_text("file,label\n1.png,\x1b]0;x\x07\n3.png,b\n4.png,b\n")
    assert run(["check", str(tmp_path / "p"), "--labels", str(tmp_path / "l.csv"), "--num-workers", "0"]) == 0
    assert run(["check", str(tmp_path / "gone\x1b[31m")]) == 2
    output = capsys.readouterr()
    assert "\x1b" not in output.out + output.err and "\\x1b]0;x\\x07" in output.out and "\\x1b[31m" in output.err


# Changes, special files and sizes


def test_one_unreadable_image_is_always_skipped():
    assert unreadable_error("p", 3, {"a": "is empty"}) is None
    assert unreadable_error("p", 200, {"a": "is empty", "b": "is empty"}) is None
    assert "2 of the 199 images of p cannot be used" in str(unreadable_error("p", 199, dict.fromkeys("ab", "is empty")))
    assert "p was changed while it was read (2 of 3" in str(
        unreadable_error("p", 3, dict.fromkeys("ab", SOURCE_CHANGED))
    )


def test_a_dead_link_among_few_images(tmp_path, monkeypatch):
    from cardigan.config_parts import DataConfig
    from cardigan.data.datasets import open_datasets
    from cardigan.data.quality.check import check_source

    monkeypatch.setenv("CARDIGAN_CACHE", str(tmp_path / "cache"))
    (write_images(tmp_path / "p", "1.png", "2.png") / "3.png").symlink_to("nowhere")
    found = open_datasets(DataConfig(source=str(tmp_path / "p"), num_workers=0))
    assert len(found.train) == 2 and "1 of 3 images were skipped" in found.messages[0]
    assert check_source(str(tmp_path / "p"), num_workers=0).trainable


def test_changed_files_of_a_folder(tmp_path):
    reader = open_path(write_images(tmp_path / "p", "1.png", "2.png"))
    (tmp_path / "p" / "1.png").write_bytes(PNGS[0] + b"longer")
    (tmp_path / "p" / "2.png").unlink()
    os.mkfifo(tmp_path / "p" / "2.png")
    for index in range(2):
        with pytest.raises(UnreadableImage, match=SOURCE_CHANGED):
            reader.read(index)


@pytest.mark.parametrize("kind", ["npy", "zip", "h5", "parquet"])
def test_changed_files(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(watch, "INTERVAL_SECONDS", 0.0)
    path = tmp_path / f"p.{kind}"
    write = {
        "npy": lambda count: np.save(path, PIXELS[:count]),
        "zip": lambda count: write_zip(path, {f"{index}.png": PNGS[index] for index in range(count)}),
        "h5": lambda count: write_hdf5(path, {"images": PIXELS[:count]}),
        "parquet": lambda count: write_parquet(path, image=PNGS[:count]),
    }[kind]
    write(4)
    reader = open_path(path)
    reader.read(0)
    path.unlink()
    write(5)
    with pytest.raises(UnreadableImage, match=SOURCE_CHANGED):
        reader.read(0)


def test_a_source_that_is_removed_while_it_streams(tmp_path):
    from cardigan.config_parts import DataConfig
    from cardigan.data.datasets import open_datasets

    folder = write_images(tmp_path / "p", *(f"{number}.png" for number in range(8)))
    found = open_datasets(DataConfig(source=str(folder), cache="none", num_workers=0))
    folder.rename(tmp_path / "q")
    with pytest.raises(CardiganError, match=r"p was changed while it was read \(\d of 8 images"):
        next(found.make_stream(0, 4, slice(None))(0))


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/tty"])
def test_devices_are_refused(path):
    with pytest.raises(CardiganError, match="is a device: expected a file"):
        open_reader(path)


def test_named_pipe_as_shard(tmp_path):
    from cardigan.data.webdataset.shards import open_shards

    os.mkfifo(tmp_path / "p-0.tar")
    with pytest.raises(CardiganError, match="is a named pipe"):
        open_shards(f"{tmp_path}/p-{{0..0}}.tar")


def test_npz_that_claims_or_holds_too_much(tmp_path, monkeypatch):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1_000_000, 1_000, 1_000)}
    )
    write_zip(tmp_path / "p.npz", {"images.npy": header.getvalue() + bytes(100)})
    assert "images claims 1,000,000,000,000 bytes and holds 228" in error_message(tmp_path / "p.npz")
    np.savez_compressed(tmp_path / "p.npz", images=np.zeros((100, 50, 50), np.uint8))
    monkeypatch.setattr(numpy_files, "physical_memory_bytes", lambda: 200_000)
    assert "unpacks to 250,128 bytes, and this computer has 200,000 of memory" in error_message(tmp_path / "p.npz")
