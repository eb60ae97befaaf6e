"""Classes from folders and label files, in any order and spelling of rows, and their encoding as integers."""

import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from cardigan.data.formats.detection import open_reader
from cardigan.data.formats.labels import encode_labels, folder_labels, match_rows
from cardigan.errors import CardiganError

NAMES = ["a/1.png", "a/2.png", "b/3.png", "b/4.tar.png", "top.png"]
LABELS = ["x", "y", "x", None, "z"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"")
    return tmp_path / "photos"


def read_labels(folder: Path, labels: str | Path) -> list[str | int | None]:
    return list(open_reader(str(folder), str(labels)).labels)


def error_message(folder: Path, labels: str | Path) -> str:
    with pytest.raises(CardiganError) as caught:
        open_reader(str(folder), str(labels))
    return str(caught.value)


def write_text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_labels_from_folders(folder):
    assert read_labels(folder, "folders") == ["a", "a", "b", "b", None]
    assert open_reader(str(folder)).labels is None


def test_common_parent_folders_are_not_classes():
    assert folder_labels("", ["data/a/1.png", "data/b/x/2.png"]) == ["a", "b"]
    assert folder_labels("", ["data/train/1.png", "data/train/2.png"]) == ["train", "train"]
    assert folder_labels("", ["a/1.png", "2.png"]) == ["a", None]
    with pytest.raises(CardiganError, match="put each class into a subfolder"):
        folder_labels("", ["1.png"])


FILES = {
    "a.csv": "file,label\nb/3.png,x\na/1.png,x\ntop.png,z\na/2.png,y\nelsewhere.png,w\n",
    "bare.csv": "name;other;class\n3.png;1;x\ntop;2;z\n\n2;3;y\n1;4;x\n",
    "first.csv": "weight\tFile_Name\tother\nx\ta/1\tu\nx\tb\\3\tu\nz\t./top\tu\ny\ta/2.png\tu\n",
    "headless.csv": "a/2.png,y\nb/3.png,x\ntop.png,z\na/1.png,x\nb/4.tar.png,\n",
    "quoted.csv": '\ufeff"photo","what"\n"a/1.png","x"\n"a/2.png"," y "\nb/3.png,x\nb/4.tar,\ntop.png,z\n',
    "marked.csv": "\ufeffkind,file\nx,a/1\ny,a/2\nx,b/3\nz,top\n",
    "object.json": json.dumps({"a/1.png": "x", "2.png": "y", "3": "x", "top": "z", "b/4.tar.png": None}),
    "pairs.json": json.dumps([["a/1.png", "x"], ["2.png", "y"], ["3", "x"], ["top", "z"]]),
    "rows.json": json.dumps(
        [{"label": "x", "id": 1}, {"id": 2, "label": "y"}, {"id": 3, "label": "x"}, {"id": "top", "label": "z"}]
    ),
    "dataset.json": json.dumps({"labels": [["top.png", "z"], ["b/3.png", "x"], ["a/2.png", "y"], ["a/1.png", "x"]]}),
    "rows.jsonl": (
        '{"file": "1.png", "class": "x"}\n{"file": "2.png", "class": "y"}\n\n'
        '{"file": "3", "class": "x"}\n{"file": "top", "class": "z"}'
    ),
}
COLUMNS = {"first.csv": ":weight", "marked.csv": ":kind"}


@pytest.mark.parametrize("file", FILES)
def test_label_files(folder, file):
    path = write_text(folder.parent / file, FILES[file])
    assert read_labels(folder, f"{path}{COLUMNS.get(file, '')}") == LABELS


def test_parquet_label_columns(folder):
    path = folder.parent / "p.parquet"
    columns = {"path": ["top.png", "a/1.png"], "kind": [3.0, None], "label": [b"t", b"u"]}
    parquet.write_table(pa.table(columns), path)
    assert read_labels(folder, path) == ["u", None, None, None, "t"]
    assert read_labels(folder, f"{path}:kind") == [None, None, None, None, 3]
    assert "Unknown column of" in error_message(folder, f"{path}:kin") and "did you mean 'kind'" in error_message(
        folder, f"{path}:kin"
    )
    path.write_bytes(b"broken")
    assert "cannot be read" in error_message(folder, path)


def test_unknown_column_error_lists_columns(folder):
    path = write_text(folder.parent / "a.csv", "file,weight,height\na/1.png,1,2\n")
    assert "expected one of: weight, height" in error_message(folder, f"{path}:zzz")
    assert "There is no label file" in error_message(folder, folder.parent / "b.csv")
    assert "There is no label file" in error_message(folder, f"{folder.parent / 'b.csv'}:label")


def test_rows_without_an_image(folder):
    path = write_text(folder.parent / "a.csv", "file,label\nimages/1.png,x\n")
    assert "The first row names 'images/1.png', the first image is 'a/1.png'" in error_message(folder, path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "file,label\n", "It has no rows"),
        ("a.csv", "file\na/1.png\n", "has one column, 'file'"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "3", "is not a label table"),
        ("a.json", '{"a/1.png": [1, 2]}', "has the class [1, 2]"),
        ("a.json", '[["a/1.png", 1], {"b": 2}]', "mixes kinds of rows"),
        ("a.jsonl", "nonsense", "cannot be read"),
        ("a.json", "[" * 10000, "cannot be read"),
    ],
)
def test_label_files_without_labels(folder, name, text, expected):
    assert expected in error_message(folder, write_text(folder.parent / name, text))


def test_column_requested_from_file_without_columns(folder):
    path = write_text(folder.parent / "a.json", '{"top": 1}')
    assert "has no columns, and 'kind' was requested" in error_message(folder, f"{path}:kind")


def test_ambiguous_file_names():
    titles = ["a/1.png", "b/1.png", "b/1.jpg"]
    assert match_rows("f", [("a/1", 5), ("b/1.jpg", 6)], titles) == [5, None, 6]
    for name in ("1.png", "1", "b/1"):
        with pytest.raises(CardiganError, match=r"is the name of several images, such as .* and "):
            match_rows("f", [(name, 5)], titles)
    with pytest.raises(CardiganError, match="has two classes, 5 and 6"):
        match_rows("f", [("a/1.png", 5), ("a/1", 6)], titles)
    assert match_rows("f", [("a/1.png", 5), ("a/1", 5)], titles) == [5, None, None]
    assert match_rows("f", [("1.png", 5)], ["1.png", "a/1.png"]) == [5, None]


def test_dataset_json(folder):
    table = json.dumps({"labels": [["b\\3.png", 7], ["a/1.png", 0]]})
    with zipfile.ZipFile(folder.parent / "p.zip", "w") as archive:
        for name in (*NAMES, "dataset.json"):
            archive.writestr(name, table if name == "dataset.json" else "")
    write_text(folder / "dataset.json", table)
    assert read_labels(folder, "") == read_labels(folder.parent / "p.zip", "") == [0, None, 7, None, None]
    assert read_labels(folder.parent / "p.zip", "folders") == ["a", "a", "b", "b", None]
    for nothing in ('{"labels": null}', "{}", "[1]"):
        write_text(folder / "dataset.json", nothing)
        assert open_reader(str(folder)).labels is None
    write_text(folder / "dataset.json", "{")
    assert "is damaged" in error_message(folder, "")


@pytest.mark.parametrize(
    ("labels", "indices", "names"),
    [
        ([], [], []),
        ([None, None], [None, None], []),
        ([10, 9, None, 10], [1, 0, None, 1], ["9", "10"]),
        (["10", "9", "-1", 9], [2, 1, 0, 1], ["-1", "9", "10"]),
        (["3.0", 3, "07"], [0, 0, 1], ["3", "7"]),
        (["10", "9", "x"], [0, 1, 2], ["10", "9", "x"]),
        (["b", "a", None, 2, "b"], [2, 1, None, 0, 2], ["2", "a", "b"]),
        (["²", "1"], [1, 0], ["1", "²"]),
    ],
)
def test_encode_labels(labels, indices, names):
    assert encode_labels(labels) == (indices, names)
