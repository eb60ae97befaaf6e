"""Runs an exported ONNX model in onnxruntime.

The only file of the server that uses onnxruntime.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cardigan.config import Config
from cardigan.data.source import ImageSpec, image_spec
from cardigan.errors import CardiganError
from cardigan.files.tensors import METADATA_KEY
from cardigan.overrides import from_dict
from cardigan.shapes import Images, Labels, Latents


@dataclass(frozen=True)
class OnnxModel:
    """A session, and the metadata that the exporter stored with the graph."""

    session: Any
    config: Config
    spec: ImageSpec
    images_seen: int

    def forward(self, z: Latents, labels: Labels | None) -> Images:
        """Return the images in [-1, 1]."""
        feed: dict[str, Any] = {"z": z.numpy()}
        if labels is not None:
            feed["labels"] = labels.numpy()
        if any(node.name == "truncation" for node in self.session.get_inputs()):
            feed["truncation"] = torch.tensor(1.0).numpy()  # each z is already truncated
        return torch.from_numpy(self.session.run(None, feed)[0])


def open_onnx(path: Path) -> OnnxModel:
    """Open a file written by `cardigan export --format onnx`; raises CardiganError for any other."""
    try:
        import onnxruntime
    except ImportError as error:
        raise CardiganError("--backend onnx needs onnxruntime installed: pip install 'cardigan[onnx]'.") from error
    if not path.is_file():
        raise CardiganError(
            f"{path} does not exist: give a NAME.onnx written by `cardigan export MODEL --format onnx`."
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise CardiganError(
            f"onnxruntime cannot load {path}: give a file written by `cardigan export --format onnx`."
        ) from error
    try:
        config, spec, images_seen = _parse_metadata(
            json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
        )
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CardiganError(
            f"{path} has no Cardigan metadata: export the model with `cardigan export --format onnx`."
        ) from error
    _check_signature(path, session, config, spec)
    return OnnxModel(session, config, spec, images_seen)


def _parse_metadata(metadata: dict[str, Any]) -> tuple[Config, ImageSpec, int]:
    """Return the same values as the header of the generator's weights file."""
    config = from_dict(metadata["config"])
    names = tuple(str(name) for name in metadata.get("class_names", []))
    return config, image_spec(config.data, int(metadata["num_classes"]), names), int(metadata["images_seen"])


def _check_signature(path: Path, session: Any, config: Config, spec: ImageSpec) -> None:
    input_shapes = {node.name: node.shape for node in session.get_inputs()}
    expected = {"z"} | ({"labels"} if spec.num_classes else set())
    shape = session.get_outputs()[0].shape[1:]
    inputs_match = (
        expected <= set(input_shapes) <= expected | {"truncation"}
        and len(input_shapes["z"]) == 2
        and input_shapes["z"][1] == config.latent.size
    )
    if not inputs_match or list(shape) != [spec.channels, spec.height, spec.width]:
        raise CardiganError(f"The generator in {path} does not match its metadata: export it again.")
