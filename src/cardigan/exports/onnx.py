"""ONNX: one file that onnxruntime and other programs run without PyTorch or Cardigan.

Needs onnx and onnxruntime (pip install 'cardigan[onnx]'). The graph comes from `graph.py`.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from cardigan.errors import CardiganError, first_line
from cardigan.exports.card import model_description
from cardigan.exports.checking import largest_difference
from cardigan.exports.graph import exported_program, input_names, unsupported_network_error, without_parametrizations
from cardigan.exports.interface import ExportSettings, GenerateFn, WriteFn
from cardigan.exports.model_manifest import sign_model
from cardigan.models.quantize import SCALE_SUFFIX, WeightsDtype, fake_quantize, output_channel_axes, quantize_state
from cardigan.models.snapshot import Snapshot, snapshot_metadata
from cardigan.shapes import Images, Labels, Latents

OPSET = 20
REQUIRED_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MAX_FILE_BYTES = 2**31 - 2**20
"""An ONNX file is one protocol buffer, which is limited to 2 GiB."""


def onnx_writer(snapshot: Snapshot, settings: ExportSettings) -> WriteFn:
    """Return the function that writes the file; raises CardiganError for a network that ONNX or onnxruntime lack."""
    weights = settings.weights
    check_onnx_installed()
    full_precision = replace(snapshot, generator=without_parametrizations(snapshot.generator))
    quantized = replace(full_precision, generator=fake_quantize(full_precision.generator, weights))
    model = _onnx_model(quantized, optimize=weights == "float32")
    if weights != "float32":
        _store_quantized(model, full_precision, weights)
    if model.ByteSize() > MAX_FILE_BYTES:
        raise CardiganError(
            "The generator's weights exceed the 2 GiB limit of an ONNX file: export as safetensors or pt2, or with "
            "fewer bits."
        )

    def write(path: Path, card: str) -> float:
        metadata = json.dumps(snapshot_metadata(snapshot.config, snapshot.spec, snapshot.images_seen), sort_keys=True)
        del model.metadata_props[:]
        for key, value in {
            "cardigan": metadata,
            "class_names": json.dumps(snapshot.spec.class_names),
            "weights": weights,
            "card": card,
        }.items():
            model.metadata_props.add(key=key, value=value)
        path.write_bytes(model.SerializeToString())
        if settings.signing is not None:
            sign_model(path, settings.signing, model_description(snapshot))
        try:
            return largest_difference(quantized, onnxruntime_generate_fn(path))
        except Exception as error:  # for example an operator that onnxruntime does not implement
            raise unsupported_network_error(snapshot, error) from error

    return write


def check_onnx_installed() -> None:
    missing = [name for name in REQUIRED_PACKAGES if find_spec(name) is None]
    if missing:
        raise CardiganError(f"ONNX needs {' and '.join(missing)} installed: pip install 'cardigan[onnx]'.")


def onnxruntime_generate_fn(path: Path) -> GenerateFn:
    """Return a function that generates with onnxruntime on the CPU."""
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, session_options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def generate(z: Latents, labels: Labels | None, truncation: float) -> Images:
        values = {"z": z, "labels": labels, "truncation": torch.tensor(truncation)}
        feed = {name: value.numpy() for name in names if (value := values[name]) is not None}
        images: Any = session.run(["images"], feed)[0]
        return torch.from_numpy(images)

    return generate


def _onnx_model(snapshot: Snapshot, optimize: bool) -> Any:
    """Return the ONNX model of a snapshot.

    The optimizer folds normalization into the weights, so it is off for quantized weights.
    """
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                exported_program(snapshot),
                input_names=input_names(snapshot),
                output_names=["images"],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                optimize=optimize,
            )
        assert program is not None
        model = program.model_proto
    except CardiganError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, ImportError):
            raise CardiganError(
                f"onnxscript {version('onnxscript')} does not fit torch {torch.__version__} ({first_line(cause)}): "
                "pip install --upgrade onnxscript."
            ) from error
        raise unsupported_network_error(snapshot, cause) from error
    _name_batch_axis(model)
    return model


def _name_batch_axis(model: Any) -> None:
    """Name the batch axis N, and remove the exporter's notes about PyTorch's graph."""
    graph_values = [*model.graph.input, *model.graph.output]
    for value in graph_values:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = "N"
    del model.graph.value_info[:]
    for proto in (model.graph, *graph_values, *model.graph.node, *model.graph.initializer):
        del proto.metadata_props[:]
    model.producer_name, model.producer_version = "cardigan", ""


def _store_quantized(model: Any, full_precision: Snapshot, weights: WeightsDtype) -> None:
    """Replace weights by quantized ones, and insert Cast or per-channel DequantizeLinear nodes before the graph."""
    from onnx import TensorProto, helper, numpy_helper

    tensors, axes = quantize_state(full_precision.generator, weights), output_channel_axes(full_precision.generator)
    dequantize_nodes: list[Any] = []
    initializers: list[Any] = []
    for initializer in model.graph.initializer:
        name = initializer.name.removeprefix("generator.")
        tensor = tensors.get(name)
        if tensor is None or tensor.dtype not in (torch.float16, torch.int8):
            initializers.append(initializer)
            continue
        stored_name = f"{initializer.name}::{weights}"
        initializers.append(numpy_helper.from_array(tensor.numpy(), stored_name))
        if tensor.dtype == torch.float16:
            dequantize_nodes.append(helper.make_node("Cast", [stored_name], [initializer.name], to=TensorProto.FLOAT))
        else:
            initializers.append(
                numpy_helper.from_array(tensors[name + SCALE_SUFFIX].flatten().numpy(), stored_name + SCALE_SUFFIX)
            )
            dequantize_nodes.append(
                helper.make_node(
                    "DequantizeLinear", [stored_name, stored_name + SCALE_SUFFIX], [initializer.name], axis=axes[name]
                )
            )
    nodes = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(initializers)
    model.graph.node.extend([*dequantize_nodes, *nodes])


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide the exporter's log messages and warnings about other packages and PyTorch internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
