"""Blending two generators of one architecture, such as a model and what was trained from it: means of their weights.

Coarse stages decide on layout, fine ones on color and texture, so a blend may take each from another model. Writes no
file.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch

from cardigan.errors import CardiganError
from cardigan.models.snapshot import Snapshot
from cardigan.nets.interface import Generator


def num_stages(generator: Generator) -> int:
    """Return the number of stages that can be blended apart: one for each map size, or 1 where none are declared."""
    lists = [len(getattr(generator, name)) for name in generator.stage_lists]
    return max(lists, default=0) + 1


def stage_of(generator: Generator, name: str) -> int:
    """Return the stage of a tensor. What reads the latent belongs to the first one, what draws the image to the last.

    In a list, what enlarges to a size belongs to the stage of that size.
    """
    attribute, _, rest = name.partition(".")
    index = rest.partition(".")[0]
    last = num_stages(generator) - 1
    if attribute in generator.stage_lists and index.isdigit():
        return last - len(getattr(generator, attribute)) + 1 + int(index)
    is_image = any(name.startswith(f"{layer}.") for layer in generator.image_layers)
    return min(int(index), last) if index.isdigit() and not is_image else last if is_image else 0


def blend(first: Snapshot, second: Snapshot, weight: float, stages: Sequence[float] = ()) -> Snapshot:
    """Return the generator whose weights are `first` + `weight` * (`second` - `first`); with `second`'s config.

    `stages` has a factor of `weight` for each stage, coarsest first. Raises CardiganError for generators of other
    shapes, and for factors that are too many or too few.
    """
    check_alike(first, second)
    count = num_stages(second.generator)
    if stages and len(stages) != count:
        raise CardiganError(
            f"--stages has {len(stages)} numbers: expected {count}, one for each stage, coarsest first."
        )
    factors = tuple(stages) or (1.0,) * count
    tensors = first.generator.state_dict()
    generator = copy.deepcopy(second.generator)
    with torch.no_grad():
        for name, value in generator.state_dict().items():
            if value.is_floating_point():
                share = weight * factors[stage_of(generator, name)]
                value.copy_(torch.lerp(tensors[name].float(), value.float(), share))
    return replace(second, generator=generator)


def check_alike(first: Snapshot, second: Snapshot) -> None:
    """Raise CardiganError unless the weights of both generators have the same names and shapes."""
    shapes = [
        {name: tuple(value.shape) for name, value in snapshot.generator.state_dict().items()}
        for snapshot in (first, second)
    ]
    different = [name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)]
    if different:
        sizes = " and ".join(
            f"{snapshot.config.generator.network} of width {snapshot.config.generator.width} for "
            f"{snapshot.spec.height}x{snapshot.spec.width}x{snapshot.spec.channels} with "
            f"{snapshot.spec.num_classes} classes"
            for snapshot in (first, second)
        )
        raise CardiganError(
            f"The two generators cannot be blended, since their weights differ in shape ({sizes}): give a model and "
            "one that was trained from it with the same shape (cardigan train --from)."
        )
