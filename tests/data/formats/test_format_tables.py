"""Lines added to the tables of formats and addresses are found, as a plug-in's are."""

from dataclasses import replace

import numpy as np
import pytest

from cardigan.config_parts import DataConfig
from cardigan.data.datasets import reader_from_config
from cardigan.data.formats.arrays import array_reader
from cardigan.data.formats.detection import (
    ADDRESS_READERS,
    SOURCE_FORMATS,
    SourceFormat,
    open_reader,
    without_column,
)
from cardigan.data.source_names import absolute_source
from cardigan.errors import CardiganError

IMAGES = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)


@pytest.fixture
def example_format(monkeypatch):
    """Add a format whose suffix ends in that of zip archives."""
    added = SourceFormat(
        "example",
        (".example.zip",),
        without_column("example", lambda path: array_reader(IMAGES, name=str(path))),
        magic=b"EXAMPLE",
        folder_markers=("example.index",),
    )
    monkeypatch.setitem(SOURCE_FORMATS, "example", added)


@pytest.mark.parametrize("name", ["a.example.zip", "A.EXAMPLE.ZIP", "no-suffix", "folder"])
def test_added_format_is_recognized(tmp_path, example_format, name):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
        (path / "example.index").touch()
    else:
        path.write_bytes(b"EXAMPLE" if name == "no-suffix" else b"")
    reader = open_reader(str(path))
    assert len(reader) == 3 and np.array_equal(reader.read(1), IMAGES[1])
    with pytest.raises(CardiganError, match="has no columns"):
        open_reader(str(path), "label")


def test_added_format_is_listed(tmp_path, example_format):
    with pytest.raises(CardiganError, match=r"example \(\.example\.zip\), or hf:NAME\.$"):
        open_reader(str(tmp_path / "nothing"))


def test_added_address_is_read_and_stays_as_it_is(monkeypatch):
    sources = []

    def reader(source, column):
        sources.append((source, column))
        return array_reader(IMAGES, [0, 1, 0])

    monkeypatch.setitem(ADDRESS_READERS, "db:", reader)
    assert absolute_source("db:table/3") == "db:table/3"
    opened = reader_from_config(replace(DataConfig(), source="db:table/3", labels="class"))
    assert sources == [("db:table/3", "class")]
    assert opened.name == "db:table/3" and list(opened.labels or ()) == [0, 1, 0]
