"""Built-in MNIST: 60,000 training and 10,000 test digits, 28x28, gray (Y. LeCun, C. Cortes; CC BY-SA 3.0).

Knows the IDX format and the checksums of the four files.
"""

import gzip
import hashlib
from importlib.resources import files
from typing import Literal

import numpy as np
import torch

from cardigan.data.source import ImageSource
from cardigan.errors import CardiganError

SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Checksums of the uncompressed files."""

_FILE_PREFIXES = {"train": ("train",), "test": ("t10k",), "all": ("train", "t10k")}


def load_mnist(split: Literal["train", "test", "all"] = "train") -> ImageSource:
    """Return the digits of a split as uint8 [N, 1, 28, 28] with their classes 0..9.

    `split` is train (60,000 digits), test (10,000), or all: the training digits followed by the test digits. Raises
    CardiganError if a file is damaged.

    Examples:
        >>> import cardigan
        >>> digits = cardigan.load_mnist("test")
        >>> len(digits), digits.pixels.shape, digits.labels[:3].tolist()
        (10000, torch.Size([10000, 1, 28, 28]), [7, 2, 1])
    """
    images = [read_idx(f"{prefix}-images-idx3-ubyte") for prefix in _FILE_PREFIXES[split]]
    labels = [read_idx(f"{part}-labels-idx1-ubyte") for part in _FILE_PREFIXES[split]]
    return ImageSource("mnist", torch.cat(images)[:, None], torch.cat(labels).long(), num_classes=10)


def read_idx(name: str) -> torch.Tensor:
    """Return one of the four embedded files as a uint8 tensor of the shape its header gives."""
    content = gzip.decompress(files("cardigan.data").joinpath("mnist_idx", f"{name}.gz").read_bytes())
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise CardiganError(
            f"The built-in MNIST file {name}.gz is damaged (its SHA-256 differs from the official file's): "
            "reinstall cardigan."
        )
    num_axes = content[3]
    shape = np.frombuffer(content, ">u4", num_axes, offset=4).astype(int)
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * num_axes).reshape(shape).copy())
