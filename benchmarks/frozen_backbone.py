"""Time a frozen EfficientNet-Lite0 with the gradient of its input: PyTorch's way and ours, in turn, on this machine.

    python benchmarks/frozen_backbone.py [--side 64] [--images 64] [--rounds 7]

PyTorch's way has batch normalization in evaluation mode and PyTorch's own backward; ours (`backbones/folded.py`) has it
folded into the convolutions, and depthwise input gradients as convolutions. Prints the medians and their ratio, in fp32
and under bf16 autocast.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import relu6

from cardigan.backbones.efficientnet import EfficientNetLite, FoldedTaps, efficientnet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    network = efficientnet("efficientnet-lite0")
    folded = FoldedTaps(network)
    images = torch.rand(options.images, 3, options.side, options.side).to(memory_format=torch.channels_last)
    for arithmetic in ("fp32", "bf16"):
        seconds: dict[str, list[float]] = {"PyTorch": [], "folded": []}
        with torch.autocast("cpu", torch.bfloat16, enabled=arithmetic == "bf16"):
            for _ in range(options.rounds):
                seconds["PyTorch"].append(timed(lambda x: taps(network, x), images))
                seconds["folded"].append(timed(folded, images))
        medians = {name: 1e3 * statistics.median(each) for name, each in seconds.items()}
        ratio = statistics.median(a / b for a, b in zip(seconds["PyTorch"], seconds["folded"], strict=True))
        print(arithmetic, ", ".join(f"{name} {value:.0f} ms" for name, value in medians.items()), f"ratio {ratio:.2f}")


def taps(network: EfficientNetLite, images: Tensor) -> list[Tensor]:
    hidden, found = relu6(network._bn0(network._conv_stem(images))), []
    for number, block in enumerate(network._blocks):
        hidden = block(hidden)
        found += [hidden] if number in network.tap_blocks else []
    return found


def timed(forward: Callable[[Tensor], list[Tensor]], images: Tensor) -> float:
    """Return the seconds of a forward pass and the gradient of the images."""
    images = images.clone().requires_grad_(True)
    start = time.perf_counter()
    torch.autograd.grad(torch.stack([tap.float().mean() for tap in forward(images)]).sum(), images)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
