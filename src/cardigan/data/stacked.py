"""Stacked MNIST: three random digits as red, green and blue, with 1,000 modes (arXiv:1611.02163, section 3.3.1).

The setting of VEEGAN (arXiv:1705.07761, section 4.2): 128,000 fixed training images and 26,000 test images.
"""

from typing import Literal

import torch

from cardigan.config import STACKED_MNIST
from cardigan.data.mnist import load_mnist
from cardigan.data.source import ImageSource
from cardigan.rng import stream

NUM_IMAGES = {"train": 128_000, "test": 26_000}


def load_stacked_mnist(split: Literal["train", "test", "all"] = "train") -> ImageSource:
    """Return stacks as uint8 [N, 3, 28, 28] with their modes 0..999: the digits of red, green and blue as one number.

    Training stacks use training digits, test stacks use test digits. `all` is `train` followed by `test`.
    `train` takes 301 MB.
    """
    parts = [_stacked_digits(part) for part in (("train", "test") if split == "all" else (split,))]
    pixels, labels = (
        parts[0]
        if len(parts) == 1
        else (torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]))
    )
    return ImageSource(STACKED_MNIST, pixels, labels, num_classes=1000)


def _stacked_digits(split: Literal["train", "test"]) -> tuple[torch.Tensor, torch.Tensor]:
    digits = load_mnist(split)
    digit_indices = torch.randint(len(digits), (NUM_IMAGES[split], 3), generator=stream(0, f"stacked {split}", 0))
    modes = digits.labels[digit_indices] @ torch.tensor([100, 10, 1])
    return digits.pixels[digit_indices.flatten(), 0].reshape(-1, 3, 28, 28), modes
