"""ONNX: one file that onnxruntime and many other programs run, without PyTorch and without Cardigan.

Knows onnx and onnxruntime (pip install 'cardigan[onnx]'); the graph comes from `graph.py`.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from cardigan.errors import CardiganError
from cardigan.exports.checking import largest_difference
from cardigan.exports.graph import graph, inputs, plain, unsupported
from cardigan.exports.interface import Drawing, Settings, Writer
from cardigan.run.rounding import SCALE, Weights, output_axes, rounded, stored
from cardigan.run.snapshot import Snapshot, header
from cardigan.shapes import Images, Labels, Latents

OPSET = 20
NEEDED = ("onnx", "onnxscript", "onnxruntime")
LARGEST_BYTES = 2**31 - 2**20
"""A file of ONNX's is one protocol buffer, which ends at 2 GiB."""


def onnx_writer(snapshot: Snapshot, settings: Settings) -> Writer:
    """Return what writes the file; raises CardiganError for a network that ONNX has no operators for, or onnxruntime no code."""
    weights = settings.weights
    check_installed()
    whole = replace(snapshot, generator=plain(snapshot.generator))
    exact = replace(whole, generator=rounded(whole.generator, weights))
    model = _model(exact, optimized=weights == "float32")
    if weights != "float32":
        _store_rounded(model, whole, weights)
    if model.ByteSize() > LARGEST_BYTES:
        raise CardiganError("The generator's weights exceed the 2 GiB that an ONNX file holds: export it as safetensors or pt2, or with fewer bits.")

    def write(path: Path, card: str) -> float:
        facts = json.dumps(header(snapshot.config, snapshot.spec, snapshot.images_seen), sort_keys=True)
        del model.metadata_props[:]
        for key, value in {"cardigan": facts, "class_names": json.dumps(snapshot.spec.class_names), "weights": weights, "card": card}.items():
            model.metadata_props.add(key=key, value=value)
        path.write_bytes(model.SerializeToString())
        try:
            return largest_difference(exact, drawing(path))
        except Exception as error:  # onnxruntime has its own, such as for an operator that it does not compute
            raise unsupported(snapshot, error) from error

    return write


def check_installed() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise CardiganError(f"ONNX needs {' and '.join(missing)} installed: pip install 'cardigan[onnx]'.")


def drawing(path: Path) -> Drawing:
    """Return what onnxruntime draws from a file, on the CPU."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def draw(z: Latents, labels: Labels | None, truncation: float) -> Images:
        values = {"z": z, "labels": labels, "truncation": torch.tensor(truncation)}
        feed = {name: value.numpy() for name in names if (value := values[name]) is not None}
        found: Any = session.run(["images"], feed)[0]
        return torch.from_numpy(found)

    return draw


def _model(snapshot: Snapshot, optimized: bool) -> Any:
    """Return the ONNX model of a snapshot. Optimized, normalisation is folded into the weights, which are then no longer those that are rounded."""
    try:
        with _quietly():
            program = torch.onnx.export(
                graph(snapshot),
                input_names=inputs(snapshot),
                output_names=["images"],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                optimize=optimized,
            )
        assert program is not None
        model = program.model_proto
    except CardiganError:
        raise
    except Exception as error:
        raise unsupported(snapshot, error.__cause__ or error) from error
    _name_batch(model)
    return model


def _name_batch(model: Any) -> None:
    """Call the first axis N, and leave out what the exporter notes of PyTorch's graph."""
    sizes = [*model.graph.input, *model.graph.output]
    for value in sizes:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = "N"
    del model.graph.value_info[:]
    for noted in (model.graph, *sizes, *model.graph.node, *model.graph.initializer):
        del noted.metadata_props[:]
    model.producer_name, model.producer_version = "cardigan", ""


def _store_rounded(model: Any, whole: Snapshot, weights: Weights) -> None:
    """Put the weights in fewer bits in their places, and before the graph what brings them back: Cast, or DequantizeLinear along the channels."""
    from onnx import TensorProto, helper, numpy_helper

    tensors, axes = stored(whole.generator, weights), output_axes(whole.generator)
    first: list[Any] = []
    kept: list[Any] = []
    for known in model.graph.initializer:
        name = known.name.removeprefix("generator.")
        tensor = tensors.get(name)
        if tensor is None or tensor.dtype not in (torch.float16, torch.int8):
            kept.append(known)
            continue
        small = f"{known.name}::{weights}"
        kept.append(numpy_helper.from_array(tensor.numpy(), small))
        if tensor.dtype == torch.float16:
            first.append(helper.make_node("Cast", [small], [known.name], to=TensorProto.FLOAT))
        else:
            kept.append(numpy_helper.from_array(tensors[name + SCALE].flatten().numpy(), small + SCALE))
            first.append(helper.make_node("DequantizeLinear", [small, small + SCALE], [known.name], axis=axes[name]))
    nodes = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend([*first, *nodes])


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep to ourselves what the exporter says of other packages and of PyTorch's own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
