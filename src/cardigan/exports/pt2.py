"""pt2: PyTorch's own archive of a graph, which `torch.export.load` runs without Cardigan.

What is written here holds no pickle. Reading such an archive can unpickle what a stranger put into it, so Cardigan opens none but those it has
just written itself, to check them.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch

from cardigan.errors import CardiganError
from cardigan.exports.checking import largest_difference
from cardigan.exports.graph import exported_program, without_parametrizations
from cardigan.exports.interface import ExportSettings, GenerateFn, WriteFn
from cardigan.models.snapshot import Snapshot, snapshot_metadata
from cardigan.shapes import Images, Labels, Latents


def pt2_writer(snapshot: Snapshot, settings: ExportSettings) -> WriteFn:
    """Return what writes the file; its weights are always fp32."""
    assert settings.weights == "float32", settings
    plain_snapshot = replace(snapshot, generator=without_parametrizations(snapshot.generator))
    program = exported_program(plain_snapshot)

    def write(path: Path, card: str) -> float:
        metadata = json.dumps(snapshot_metadata(snapshot.config, snapshot.spec, snapshot.images_seen), sort_keys=True)
        torch.export.save(program, path, extra_files={"cardigan.json": metadata, "README.md": card})
        return largest_difference(plain_snapshot, _pt2_generate_fn(path))

    return write


def _pt2_generate_fn(path: Path) -> GenerateFn:
    """Return what the graph in a file of our own draws."""
    _check_no_pickle(path)
    module: Any = torch.export.load(path).module()

    @torch.no_grad()
    def generate(z: Latents, labels: Labels | None, truncation: float) -> Images:
        return module(z, *([] if labels is None else [labels]), torch.tensor(truncation))

    return generate


def _check_no_pickle(path: Path) -> None:
    """Raise CardiganError if this version of PyTorch has put a pickle into the archive."""
    with ZipFile(path) as archive:
        for member in archive.namelist():
            content = archive.read(member) if member.endswith((".pt", "_config.json")) else b""
            if (
                (content and member.endswith(".pt"))
                or b'"use_pickle": true' in content
                or b'"use_pickle":true' in content
            ):
                raise CardiganError(
                    f"torch {torch.__version__} stores a pickle in a pt2 archive ({Path(member).name}), so nothing was kept: export as onnx instead."
                )
