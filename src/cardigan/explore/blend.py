"""Blending two generators of one architecture, such as a model and what was trained from it: means of their weights.

Coarse stages decide on layout, fine ones on color and texture, so a blend may take each from another model. Writes no
file.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch

from cardigan.config_parts import NetworkConfig
from cardigan.errors import CardiganError
from cardigan.models.snapshot import BLEND, Snapshot
from cardigan.nets.interface import Generator
from cardigan.nets.table import with_all_options
from cardigan.nets.transfer import converge_singular_vectors


def num_stages(generator: Generator) -> int:
    """Return the number of stages that can be blended apart: one for each map size, or 1 where none are declared."""
    lists = (first + len(getattr(generator, name)) for name, first in generator.stage_lists.items())
    return max(lists, default=1)


def stage_of(generator: Generator, name: str) -> int:
    """Return the stage of a tensor. What reads the latent belongs to stage 0, what draws the image to the last one.

    What enlarges to a size belongs to the stage of that size.
    """
    attribute, _, rest = name.partition(".")
    index, last = rest.partition(".")[0], num_stages(generator) - 1
    if attribute in generator.stage_lists:
        first = generator.stage_lists[attribute]
        return first + int(index)
    is_last = attribute == "norm" or any(name.startswith(f"{layer}.") for layer in generator.image_layers)
    return last if is_last else 0


def blend(
    first: Snapshot,
    second: Snapshot,
    weight: float,
    stages: Sequence[float] = (),
    names: tuple[str, str] = ("one model", "another"),
) -> Snapshot:
    """Return the generator whose weights are `first` + `weight` * (`second` - `first`); with `second`'s config.

    `stages` has a factor of `weight` for each stage, coarsest first. The config says of which models, by `names`, it is
    a blend. Raises CardiganError for generators of other shapes, and for too many or too few factors.
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
        converge_singular_vectors(generator)
    generator.eval().requires_grad_(False)
    share = f"{weight:g} of the second" + (f" by stages {', '.join(f'{each:g}' for each in stages)}" if stages else "")
    config = replace(second.config, start_from=f"{BLEND}{' and '.join(names)}, {share}")
    return replace(second, generator=generator, config=config)


def check_alike(first: Snapshot, second: Snapshot) -> None:
    """Raise CardiganError unless both generators have the same networks, latents, classes and shapes."""
    facts = [
        {
            "generator": with_all_options(snapshot.config.generator, "generator"),
            "latents": snapshot.config.latent,
            "classes": (snapshot.spec.num_classes, snapshot.spec.class_names),
            "image size and channels": (snapshot.spec.height, snapshot.spec.width, snapshot.spec.channels),
        }
        for snapshot in (first, second)
    ]
    for name, value in facts[0].items():
        if value != facts[1][name]:
            raise CardiganError(
                f"The two generators cannot be blended, because their {name} differ ({_short(value)} and "
                f"{_short(facts[1][name])}): give a model and one that was trained from it with the same shape "
                "(cardigan train --from)."
            )


def _short(value: object) -> str:
    if isinstance(value, NetworkConfig):
        return f"{value.network} of width {value.width}, depth {value.depth}, normalization {value.normalization}"
    return f"{value}"
