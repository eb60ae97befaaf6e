"""The discriminator in a model folder: what `--from` and the probe need besides the generator.

Frozen parts are not in the file: they are made again, from the seed or from the file of pretrained weights.
"""

from pathlib import Path
from typing import Any

import torch

from cardigan.config import Config
from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.files.tensors import read_metadata, read_tensors, write_tensors
from cardigan.models.quantize import WeightsDtype, dequantize_state, quantize_state
from cardigan.nets.frozen import Frozen
from cardigan.nets.interface import Discriminator
from cardigan.nets.table import build_discriminator, build_networks

DISCRIMINATOR_FILE = "discriminator.safetensors"


def write_discriminator(
    path: Path, discriminator: Discriminator, metadata: dict[str, Any], weights_dtype: WeightsDtype = "float32"
) -> None:
    """Write the weights as one safetensors file. `metadata` says which generator they belong to."""
    write_tensors(path, quantize_state(discriminator, weights_dtype), metadata)


def read_discriminator(path: Path, config: Config, spec: ImageSpec, metadata: dict[str, Any]) -> Discriminator:
    """Return the discriminator of the file, in evaluation mode and without gradients.

    Raises CardiganError if the file is damaged, has other metadata, or holds another network than config and spec say.
    """
    if read_metadata(path) != metadata:
        raise CardiganError(
            f"{path} belongs to another generator than the one in its folder: download both again, or remove it."
        )
    with torch.device("meta"):  # allocate nothing before the file is checked
        discriminator = build_discriminator(config, spec)
    try:
        tensors = dequantize_state(read_tensors(path), discriminator.state_dict())
    except ValueError as error:
        raise CardiganError(
            f"{path} does not hold the discriminator that its folder describes: use another copy."
        ) from error
    return load_discriminator(tensors, config, spec, discriminator)


def load_discriminator(
    tensors: dict[str, torch.Tensor], config: Config, spec: ImageSpec, discriminator: Discriminator
) -> Discriminator:
    """Return the discriminator with these weights. `discriminator` was built without memory."""
    if any(isinstance(module, Frozen) for module in discriminator.modules()):
        _, discriminator = build_networks(config, spec)
    discriminator.load_state_dict(tensors, assign=True)
    return discriminator.eval().requires_grad_(False)
