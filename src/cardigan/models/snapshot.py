"""A snapshot of a generator: EMA weights, config and number of images seen.

Reads run directories, checkpoints, model folders and weights files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from cardigan.config import Config
from cardigan.data.source import ImageSpec, image_spec
from cardigan.errors import CardiganError
from cardigan.files.sha256 import check_sha256
from cardigan.files.special_files import reject_special_file
from cardigan.files.tensors import read_metadata, read_tensors, write_tensors
from cardigan.latents.sampling import find_latent
from cardigan.models.foreign.reader import read_foreign_generator
from cardigan.models.hub import WEIGHTS_FILE, download_model, is_hub_address, parse_hub_address
from cardigan.models.limits import check_metadata, check_num_blocks
from cardigan.models.pretrained import verify_weights
from cardigan.models.quantize import WeightsDtype, dequantize_state, quantize_state
from cardigan.models.starters import located
from cardigan.nets.interface import Generator
from cardigan.nets.table import build_generator
from cardigan.overrides import experiment_settings, from_dict, to_dict
from cardigan.plugins import load_plugins, missing_plugins_message
from cardigan.run.checkpoint import list_checkpoints
from cardigan.run.directory import RunDirectory

BLEND = "blend of "
"""How `start_from` begins where weights are a blend of two models (`explore/blend.py`)."""
MAX_COUNT = 2**40
"""Images that a class may have in a header."""
FORMAT, QUANTIZED_FORMAT = 3, 4
"""File formats with fp32 weights and with quantized weights."""


@dataclass(frozen=True)
class Snapshot:
    """A generator and its config. It samples in evaluation mode, with frozen batch statistics."""

    generator: Generator
    config: Config
    spec: ImageSpec
    images_seen: int
    foreign: bool = False
    """Whether another program trained it. The config beyond the networks is then that program's default, and
    `images_seen` is unknown."""
    weights_dtype: WeightsDtype = "float32"
    """Storage dtype of the file it was read from. In memory the weights are fp32."""


def snapshot_metadata(config: Config, spec: ImageSpec, images_seen: int) -> dict[str, Any]:
    """Return the header of a weights file. It depends only on the experiment, so equal trainings give equal bytes."""
    names = {"class_names": list(spec.class_names)} if spec.class_names else {}
    counts = {"class_counts": list(spec.class_counts)} if spec.class_counts else {}
    return {
        "format": FORMAT,
        "config": _nested_identity(config),
        "num_classes": spec.num_classes,
        **names,
        **counts,
        "images_seen": images_seen,
        **({"plugins": plugins} if (plugins := load_plugins()) else {}),
    }


def _nested_identity(config: Config) -> dict[str, Any]:
    identity_fields = experiment_settings(config)
    return {
        name: {key: inner for key, inner in value.items() if f"{name}.{key}" in identity_fields}
        if isinstance(value, dict)
        else value
        for name, value in to_dict(config).items()
        if isinstance(value, dict) or name in identity_fields
    }


def write_snapshot(path: Path, snapshot: Snapshot, weights_dtype: WeightsDtype = "float32", card: str = "") -> None:
    """Write a snapshot as one safetensors file with the given dtype and an optional model card."""
    metadata = snapshot_metadata(snapshot.config, snapshot.spec, snapshot.images_seen)
    if snapshot.foreign:
        metadata |= {"foreign": True}
    if weights_dtype != "float32":
        metadata |= {"format": QUANTIZED_FORMAT, "weights_dtype": weights_dtype}
    write_tensors(path, quantize_state(snapshot.generator, weights_dtype), metadata, card)


def read_snapshot(path: Path, sha256: str | None = None) -> Snapshot:
    """Return a snapshot from a run directory (the latest), a checkpoint, a model folder, a file, a starter or the hub.

    The file may be from another program (`foreign`). With `sha256`, its hash must match. Raises CardiganError for
    anything else. Never unpickles. Allocates at most the file's size, or five times that for quantized weights.
    """
    file, prefix = _locate_weights(path)
    if file.exists():
        reject_special_file(file)
    if sha256 is not None:
        check_sha256(file, sha256)
    if (foreign := read_foreign_generator(file)) is not None:
        return _foreign_snapshot(*foreign)
    metadata = read_metadata(file)
    try:
        check_metadata(metadata)
        if metadata["format"] not in (FORMAT, QUANTIZED_FORMAT):
            raise CardiganError(
                f"its format is {metadata['format']!r}, not {FORMAT} or {QUANTIZED_FORMAT}: "
                "use the Cardigan version that wrote it."
            )
        config, images_seen = from_dict(metadata["config"]), int(metadata["images_seen"])
        spec = image_spec(config.data, int(metadata["num_classes"]), _class_names(metadata), class_counts(metadata))
        check_num_blocks(config)
        find_latent(config.latent.distribution)
        with torch.device("meta"):  # allocate nothing before the file is checked
            generator = build_generator(config, spec)
    except CardiganError as error:
        plugins = metadata.get("plugins")
        hint = (
            missing_plugins_message({str(name): str(plugins[name]) for name in plugins})
            if isinstance(plugins, dict)
            else ""
        )
        raise CardiganError(f"{file} cannot be read here: {' '.join((str(error), hint)).strip()}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise CardiganError(f"{file} has a damaged header: use another copy.") from error
    tensors = _aligned(read_tensors(file, prefix))
    try:
        tensors = dequantize_state(tensors, generator.state_dict())
    except ValueError as error:
        raise CardiganError(
            f"{file} does not hold the generator that its header describes: use another copy."
        ) from error
    generator.load_state_dict(tensors, assign=True)
    foreign, weights_dtype = metadata.get("foreign") is True, _weights_dtype(metadata)
    return Snapshot(generator.eval().requires_grad_(False), config, spec, images_seen, foreign, weights_dtype)


def _foreign_snapshot(config: Config, tensors: dict[str, torch.Tensor]) -> Snapshot:
    """Return the snapshot of a generator that another program trained. Its `images_seen` is unknown."""
    spec = image_spec(config.data, 0)
    with torch.device("meta"):
        generator = build_generator(config, spec)
    generator.load_state_dict(_aligned(tensors), assign=True)
    return Snapshot(generator.eval().requires_grad_(False), config, spec, 0, foreign=True)


def _aligned(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies at PyTorch's own alignment. A matrix product's bits may depend on where in a file a tensor was."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _weights_dtype(metadata: dict[str, Any]) -> WeightsDtype:
    return next(
        (
            kind
            for kind in get_args(WeightsDtype)
            if metadata["format"] == QUANTIZED_FORMAT and metadata.get("weights_dtype") == kind
        ),
        "float32",
    )


def _class_names(metadata: dict[str, Any]) -> tuple[str, ...]:
    names = metadata.get("class_names", [])
    if names and (len(names) != metadata["num_classes"] or not all(isinstance(name, str) for name in names)):
        raise ValueError(f"{len(names)} names of {metadata['num_classes']} classes")
    return tuple(names)


def class_counts(metadata: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the counts of the classes in a header; raises ValueError if they do not fit the classes."""
    counts = tuple(metadata.get("class_counts", []))
    if counts and not (
        len(counts) == metadata["num_classes"]
        and all(isinstance(count, int) and 0 <= count < MAX_COUNT for count in counts)
        and any(counts)
    ):
        raise ValueError(f"{len(counts)} counts of {metadata['num_classes']} classes")
    return counts


def _locate_weights(path: Path) -> tuple[Path, str]:
    """Return the file that holds the generator, and the prefix of its tensor names."""
    path = located(path)
    if is_hub_address(path):
        return verify_weights(download_model(parse_hub_address(path))), ""  # other cached files are ignored
    run = RunDirectory(path)
    if not path.is_dir():
        return path, "ema_generator." if path.name == "state.safetensors" else ""
    # In a model folder, other model files belong to other models.
    if (path / WEIGHTS_FILE).exists() and not (run.journal.exists() and run.generator.exists()):
        return verify_weights(path), ""
    if (path / "state.safetensors").exists():
        return path / "state.safetensors", "ema_generator."
    if run.generator.exists():
        return run.generator, ""
    checkpoints = list_checkpoints(run.checkpoints)
    if checkpoints:
        return checkpoints[-1] / "state.safetensors", "ema_generator."
    if run.config.exists():
        raise CardiganError(f"{path} has no generator yet: wait for its first checkpoint.")
    raise CardiganError(
        f"{path} holds no model: give a run directory, a checkpoint, a generator.safetensors or hf:user/name."
    )


def weights_file(path: Path) -> Path:
    """Return the file from which `read_snapshot` reads the generator. Raises CardiganError if there is none."""
    return _locate_weights(path)[0]
