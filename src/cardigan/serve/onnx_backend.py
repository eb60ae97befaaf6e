"""Runs an exported ONNX model in onnxruntime.

The only file of the server that uses onnxruntime.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from cardigan.config import Config
from cardigan.data.source import ImageSpec, image_spec
from cardigan.errors import CardiganError, first_line
from cardigan.files.special_files import reject_special_file
from cardigan.files.tensors import METADATA_KEY
from cardigan.models.snapshot import class_counts
from cardigan.overrides import from_dict
from cardigan.shapes import Images, Labels, Latents

MAX_BYTES = 4 << 30
"""Most memory that an untrusted graph gets for one image. A large generator needs a tenth."""


@dataclass(frozen=True)
class OnnxModel:
    """A session, and the metadata that the exporter stored with the graph."""

    session: Any
    config: Config
    spec: ImageSpec
    images_seen: int

    def forward(self, z: Latents, labels: Labels | None, run_options: Any = None) -> Images:
        """Return the images in [-1, 1]."""
        feed: dict[str, Any] = {"z": z.numpy()}
        if labels is not None:
            feed["labels"] = labels.numpy()
        if any(node.name == "truncation" for node in self.session.get_inputs()):
            feed["truncation"] = torch.tensor(1.0).numpy()  # each z is already truncated
        return torch.from_numpy(self.session.run(None, feed, run_options)[0])


def open_onnx(path: Path) -> OnnxModel:
    """Open a file written by `cardigan export --format onnx`; raises CardiganError for any other."""
    if find_spec("onnxruntime") is None:
        raise CardiganError("--backend onnx needs onnxruntime installed: pip install 'cardigan[onnx]'.")
    if path.exists():
        reject_special_file(path)
    if not path.is_file():
        raise CardiganError(
            f"{path} does not exist: give a NAME.onnx written by `cardigan export MODEL --format onnx`."
        )
    trial = _open_session(path, bounded=True)
    try:
        config, spec, images_seen = _parse_metadata(json.loads(trial.get_modelmeta().custom_metadata_map[METADATA_KEY]))
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CardiganError(
            f"{path} has no Cardigan metadata: export the model with `cardigan export --format onnx`."
        ) from error
    _check_signature(path, trial, config, spec)
    _check_memory(path, OnnxModel(trial, config, spec, images_seen))
    return OnnxModel(_open_session(path), config, spec, images_seen)


def _open_session(path: Path, bounded: bool = False) -> Any:
    """Return a session. A bounded one computes nothing while it loads, and not with more than `MAX_BYTES` later."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    if bounded:
        _register_bounded_allocator()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise CardiganError(
            f"onnxruntime cannot load {path}: give a file written by `cardigan export --format onnx`."
        ) from error


@cache
def _register_bounded_allocator() -> None:
    """Give onnxruntime an allocator with a limit. It has one for the whole process."""
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({"max_mem": MAX_BYTES}))


def _check_memory(path: Path, trial: OnnxModel) -> None:
    """Generate one image in bounded memory: a small file can hold a graph that asks for any amount."""
    import onnxruntime

    run_options = onnxruntime.RunOptions()
    run_options.log_severity_level = 4
    run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    labels = torch.zeros(1, dtype=torch.long) if trial.spec.num_classes else None
    try:
        trial.forward(torch.zeros(1, trial.config.latent.size), labels, run_options)
    except Exception as error:
        raise CardiganError(
            f"onnxruntime cannot generate an image with {path} in {MAX_BYTES >> 30} GiB ({first_line(error)}): give a "
            "file written by `cardigan export --format onnx`."
        ) from error


def _parse_metadata(metadata: dict[str, Any]) -> tuple[Config, ImageSpec, int]:
    """Return the same values as the header of the generator's weights file."""
    config = from_dict(metadata["config"])
    names = tuple(str(name) for name in metadata.get("class_names", []))
    spec = image_spec(config.data, int(metadata["num_classes"]), names, class_counts(metadata))
    return config, spec, int(metadata["images_seen"])


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
