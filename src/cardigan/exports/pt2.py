"""pt2: PyTorch's archive of a graph, which `torch.export.load` runs without Cardigan.

The written archive contains no pickle. `torch.export.load` may unpickle the contents of an untrusted archive, so
Cardigan only opens archives that it has just written, to verify them.
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
    """Return the function that writes the file; its weights are always fp32."""
    assert settings.weights == "float32", settings
    plain_snapshot = replace(snapshot, generator=without_parametrizations(snapshot.generator))
    program = exported_program(plain_snapshot)

    def write(path: Path, card: str) -> float:
        metadata = json.dumps(snapshot_metadata(snapshot.config, snapshot.spec, snapshot.images_seen), sort_keys=True)
        torch.export.save(program, path, extra_files={"cardigan.json": metadata, "README.md": card})
        return largest_difference(plain_snapshot, _pt2_generate_fn(path))

    return write


def _pt2_generate_fn(path: Path) -> GenerateFn:
    """Return a function that generates with the graph in a file that Cardigan wrote."""
    _check_no_pickle(path)
    module: Any = torch.export.load(path).module()

    @torch.no_grad()
    def generate(z: Latents, labels: Labels | None, truncation: float) -> Images:
        return module(z, *([] if labels is None else [labels]), torch.tensor(truncation))

    return generate


def _check_no_pickle(path: Path) -> None:
    """Raise CardiganError if this version of PyTorch stored a pickle in the archive."""
    with ZipFile(path) as archive:
        for member in archive.namelist():
            content = archive.read(member) if member.endswith((".pt", "_config.json")) else b""
            if (
                (content and member.endswith(".pt"))
                or b'"use_pickle": true' in content
                or b'"use_pickle":true' in content
            ):
                raise CardiganError(
                    f"torch {torch.__version__} stores a pickle in a pt2 archive ({Path(member).name}), so nothing was "
                    "written: export as onnx instead."
                )
