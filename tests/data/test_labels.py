"""Classes from folders and files, whatever the order and spelling of their rows; classes as numbers."""

import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from cardigan.data.formats.labels import classes_of, folder_labels, row_labels
from cardigan.data.formats.opening import open_reader
from cardigan.errors import CardiganError

NAMES = ["a/1.png", "a/2.png", "b/3.png", "b/4.tar.png", "top.png"]
LABELS = ["x", "y", "x", None, "z"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / name).write_bytes(b"")
    return tmp_path / "pictures"


def labels(folder: Path, given: str | Path) -> list[str | int | None]:
    return list(open_reader(str(folder), str(given)).labels)


def mistake(folder: Path, given: str | Path) -> str:
    with pytest.raises(CardiganError) as caught:
        open_reader(str(folder), str(given))
    return str(caught.value)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_folders(folder):
    assert labels(folder, "folders") == ["a", "a", "b", "b", None]
    assert open_reader(str(folder)).labels is None


def test_folders_that_all_share_are_no_class():
    assert folder_labels("", ["data/a/1.png", "data/b/x/2.png"]) == ["a", "b"]
    assert folder_labels("", ["data/train/1.png", "data/train/2.png"]) == ["train", "train"]
    assert folder_labels("", ["a/1.png", "2.png"]) == ["a", None]
    with pytest.raises(CardiganError, match="put each class into a sub-folder"):
        folder_labels("", ["1.png"])


FILES = {
    "a.csv": "file,label\nb/3.png,x\na/1.png,x\ntop.png,z\na/2.png,y\nelsewhere.png,w\n",
    "bare.csv": "name;other;class\n3.png;1;x\ntop;2;z\n\n2;3;y\n1;4;x\n",
    "first.csv": "weight\tFile_Name\tother\nx\ta/1\tu\nx\tb\\3\tu\nz\t./top\tu\ny\ta/2.png\tu\n",
    "headless.csv": "a/2.png,y\nb/3.png,x\ntop.png,z\na/1.png,x\nb/4.tar.png,\n",
    "quoted.csv": '\ufeff"picture","what"\n"a/1.png","x"\n"a/2.png"," y "\nb/3.png,x\nb/4.tar,\ntop.png,z\n',
    "marked.csv": "\ufeffkind,file\nx,a/1\ny,a/2\nx,b/3\nz,top\n",
    "object.json": json.dumps({"a/1.png": "x", "2.png": "y", "3": "x", "top": "z", "b/4.tar.png": None}),
    "pairs.json": json.dumps([["a/1.png", "x"], ["2.png", "y"], ["3", "x"], ["top", "z"]]),
    "rows.json": json.dumps([{"label": "x", "id": 1}, {"id": 2, "label": "y"}, {"id": 3, "label": "x"}, {"id": "top", "label": "z"}]),
    "dataset.json": json.dumps({"labels": [["top.png", "z"], ["b/3.png", "x"], ["a/2.png", "y"], ["a/1.png", "x"]]}),
    "rows.jsonl": '{"file": "1.png", "class": "x"}\n{"file": "2.png", "class": "y"}\n\n{"file": "3", "class": "x"}\n{"file": "top", "class": "z"}',
}
COLUMNS = {"first.csv": ":weight", "marked.csv": ":kind"}


@pytest.mark.parametrize("file", FILES)
def test_files(folder, file):
    path = written(folder.parent / file, FILES[file])
    assert labels(folder, f"{path}{COLUMNS.get(file, '')}") == LABELS


def test_a_parquet_file_and_its_columns(folder):
    path = folder.parent / "p.parquet"
    columns = {"path": ["top.png", "a/1.png"], "kind": [3.0, None], "label": [b"t", b"u"]}
    parquet.write_table(pa.table(columns), path)
    assert labels(folder, path) == ["u", None, None, None, "t"]
    assert labels(folder, f"{path}:kind") == [None, None, None, None, 3]
    assert "Unknown column of" in mistake(folder, f"{path}:kin") and "did you mean 'kind'" in mistake(folder, f"{path}:kin")
    path.write_bytes(b"broken")
    assert "cannot be read" in mistake(folder, path)


def test_unknown_columns_name_those_there_are(folder):
    path = written(folder.parent / "a.csv", "file,weight,height\na/1.png,1,2\n")
    assert "known are: weight, height" in mistake(folder, f"{path}:zzz")
    assert "There is no file of labels" in mistake(folder, folder.parent / "b.csv")
    assert "There is no file of labels" in mistake(folder, f"{folder.parent / 'b.csv'}:label")


def test_rows_of_no_picture(folder):
    path = written(folder.parent / "a.csv", "file,label\nimages/1.png,x\n")
    assert "The first row names 'images/1.png', the first picture is 'a/1.png'" in mistake(folder, path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "file,label\n", "It has no rows"),
        ("a.csv", "file\na/1.png\n", "has one column, 'file'"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "3", "is no table of labels"),
        ("a.json", '{"a/1.png": [1, 2]}', "tells [1, 2] as a class"),
        ("a.json", '[["a/1.png", 1], {"b": 2}]', "rows of several kinds"),
        ("a.jsonl", "nonsense", "cannot be read"),
        ("a.json", "[" * 10000, "cannot be read"),
    ],
)
def test_files_that_tell_nothing(folder, name, text, expected):
    assert expected in mistake(folder, written(folder.parent / name, text))


def test_a_column_of_a_file_without_columns(folder):
    path = written(folder.parent / "a.json", '{"top": 1}')
    assert "has no columns, and 'kind' was asked for" in mistake(folder, f"{path}:kind")


def test_ambiguous_names():
    titles = ["a/1.png", "b/1.png", "b/1.jpg"]
    assert row_labels("f", [("a/1", 5), ("b/1.jpg", 6)], titles) == [5, None, 6]
    for name in ("1.png", "1", "b/1"):
        with pytest.raises(CardiganError, match=r"is the name of several pictures, such as .* and "):
            row_labels("f", [(name, 5)], titles)
    with pytest.raises(CardiganError, match="is of two classes, 5 and 6"):
        row_labels("f", [("a/1.png", 5), ("a/1", 6)], titles)
    assert row_labels("f", [("a/1.png", 5), ("a/1", 5)], titles) == [5, None, None]
    assert row_labels("f", [("1.png", 5)], ["1.png", "a/1.png"]) == [5, None]


def test_the_dataset_json_of_a_source(folder):
    table = json.dumps({"labels": [["b\\3.png", 7], ["a/1.png", 0]]})
    with zipfile.ZipFile(folder.parent / "p.zip", "w") as archive:
        for name in (*NAMES, "dataset.json"):
            archive.writestr(name, table if name == "dataset.json" else "")
    written(folder / "dataset.json", table)
    assert labels(folder, "") == labels(folder.parent / "p.zip", "") == [0, None, 7, None, None]
    assert labels(folder.parent / "p.zip", "folders") == ["a", "a", "b", "b", None]
    for nothing in ('{"labels": null}', "{}", "[1]"):
        written(folder / "dataset.json", nothing)
        assert open_reader(str(folder)).labels is None
    written(folder / "dataset.json", "{")
    assert "is damaged" in mistake(folder, "")


@pytest.mark.parametrize(
    ("given", "numbers", "names"),
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
def test_classes_as_numbers(given, numbers, names):
    assert classes_of(given) == (numbers, names)
