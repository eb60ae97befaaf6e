"""Writers of sample sets: a folder of PNGs, a .zip of them, a .npz or a .parquet. Chunks are streamed to disk.

Generates no images. Equal samples give equal bytes, but for signatures.
"""

import json
import tempfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from cardigan.errors import CardiganError
from cardigan.figures.c2pa_manifest import SigningKey, with_manifest
from cardigan.figures.grid import array_png_bytes
from cardigan.figures.marking import Mark

MANIFEST, LABELS, CARD = "manifest.json", "dataset.json", "README.md"


@dataclass(frozen=True)
class SampleChunk:
    """Consecutive samples."""

    start: int
    pixels: np.ndarray
    """uint8 [N, height, width, channels]."""
    labels: np.ndarray | None
    """int64 [N]."""
    mark: Callable[[int], Mark] | None = None
    """Returns the mark of an image by its place in the chunk. None: images are not marked."""
    signing: SigningKey | None = None
    """Signs the images. None: they are not signed."""


@dataclass(frozen=True)
class SampleSet:
    """A sample set that is written once. `manifest` is called after the last chunk."""

    num_samples: int
    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    class_names: tuple[str, ...]
    """Empty if there are no classes."""
    chunks: Iterator[SampleChunk]
    manifest: Callable[[], dict[str, Any]]
    card: str


def write_folder(path: Path, samples: SampleSet) -> None:
    """Write 00000000.png, ..., dataset.json with the classes (if any), manifest.json and README.md."""
    path.mkdir()
    with (path / LABELS).open("w", encoding="utf-8") as labels:
        for name, content in _named_pngs(samples, labels):
            (path / name).write_bytes(content)
    if not samples.class_names:
        (path / LABELS).unlink()
    (path / MANIFEST).write_text(_manifest_json(samples), encoding="utf-8")
    (path / CARD).write_text(samples.card, encoding="utf-8")


def write_zip(path: Path, samples: SampleSet) -> None:
    """Write the same into a zip archive. Images are stored, text is deflated."""
    with ZipFile(path, "w") as archive, tempfile.TemporaryFile("w+", encoding="utf-8") as labels:
        for name, content in _named_pngs(samples, labels):
            archive.writestr(_zip_entry(name, ZIP_STORED), content)
        if samples.class_names:
            labels.seek(0)
            with archive.open(_zip_entry(LABELS), "w", force_zip64=True) as member:
                member.writelines(line.encode() for line in labels)
        archive.writestr(_zip_entry(MANIFEST), _manifest_json(samples))
        archive.writestr(_zip_entry(CARD), samples.card)


def write_npz(path: Path, samples: SampleSet) -> None:
    """Write images (uint8 [N, height, width, channels]), labels (int64 [N]), class_names, manifest and card (text)."""
    labels = array("q")
    with ZipFile(path, "w") as archive:
        with archive.open(_zip_entry("images.npy"), "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": (samples.num_samples, *samples.image_shape)}
            np.lib.format.write_array_header_1_0(member, header)
            for chunk in samples.chunks:
                member.write(chunk.pixels.tobytes())
                labels.extend(() if chunk.labels is None else chunk.labels.tolist())
        arrays = (
            {"labels": np.array(labels, np.int64), "class_names": np.array(samples.class_names)}
            if samples.class_names
            else {}
        )
        for name, values in {
            **arrays,
            "manifest": np.array(_manifest_json(samples)),
            "card": np.array(samples.card),
        }.items():
            with archive.open(_zip_entry(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)


def write_parquet(path: Path, samples: SampleSet) -> None:
    """Write rows of image and label in the Hugging Face layout; class names, manifest and card go into the metadata."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise CardiganError("Parquet files need pyarrow: install it with pip install 'cardigan[parquet]'.") from None
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = [("image", image), *([("label", pyarrow.int64())] if samples.class_names else [])]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if samples.class_names:
        features["label"] = {"_type": "ClassLabel", "names": list(samples.class_names)}
    schema = pyarrow.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    with parquet.ParquetWriter(path, schema) as writer:
        for chunk in samples.chunks:
            cells = [{"bytes": content, "path": name} for name, content in _chunk_pngs(chunk)]
            rows = {"image": cells, **({} if chunk.labels is None else {"label": chunk.labels.tolist()})}
            writer.write_table(pyarrow.table(rows, schema=schema))
        writer.add_key_value_metadata({"cardigan": _manifest_json(samples), "card": samples.card})


SAMPLE_WRITERS: dict[str, Callable[[Path, SampleSet], None]] = {
    "": write_folder,
    ".zip": write_zip,
    ".npz": write_npz,
    ".parquet": write_parquet,
}


def _named_pngs(samples: SampleSet, labels: IO[str]) -> Iterator[tuple[str, bytes]]:
    """Yield names and PNGs, and write their classes to `labels` in the layout of StyleGAN's dataset.json."""
    labels.write('{"labels": [')
    for chunk in samples.chunks:
        for index, (name, content) in enumerate(_chunk_pngs(chunk)):
            yield name, content
            if chunk.labels is not None:
                class_name = samples.class_names[int(chunk.labels[index])]
                row = json.dumps(
                    [name, int(class_name) if class_name == str(int(chunk.labels[index])) else class_name],
                    ensure_ascii=False,
                )
                labels.write(row if chunk.start + index == 0 else f",\n{row}")
    labels.write("]}\n")
    labels.flush()


def _chunk_pngs(chunk: SampleChunk) -> Iterator[tuple[str, bytes]]:
    for index, pixels in enumerate(chunk.pixels):
        mark = chunk.mark(index) if chunk.mark else None
        content = with_manifest(array_png_bytes(pixels, mark=mark), "image/png", mark, chunk.signing)
        yield f"{chunk.start + index:08d}.png", content


def _manifest_json(samples: SampleSet) -> str:
    return json.dumps(samples.manifest(), indent=1, ensure_ascii=False) + "\n"


def _zip_entry(name: str, method: int = ZIP_DEFLATED) -> ZipInfo:
    """Return a member's header with a fixed date."""
    entry = ZipInfo(name)
    entry.compress_type, entry.external_attr = method, 0o644 << 16
    return entry
