"""Parts of a trained network that further training leaves as they are.

Freezing the first layers of the discriminator keeps what it knows of images in general (Mo et al. 2020, Freeze the
Discriminator, arXiv:2002.10964). Knows of the architectures only what `interface.py` lets them declare.
"""

from cardigan.errors import CardiganError
from cardigan.nets.interface import Discriminator, Generator


def freeze_stages(network: Generator | Discriminator, count: int, name: str) -> list[str]:
    """Freeze the parameters of the first stages, in place, and return their names.

    A generator's first stages have the smallest maps; a discriminator's first stages are those nearest the image.
    `name` is what the network is called in an error. Raises CardiganError if the network has fewer stages.
    """
    stages = {key: network.stage_of(key) for key, _ in network.named_parameters()}
    num_stages = 1 + max((stage for stage in stages.values() if stage is not None), default=-1)
    if count > num_stages:
        raise CardiganError(
            f"{name}.frozen_stages is {count}, but this network has {num_stages} stages that can be frozen: set it to "
            f"0 to {num_stages}."
        )
    frozen = [key for key, stage in stages.items() if stage is not None and stage < count]
    for key in frozen:
        network.get_parameter(key).requires_grad_(False)
    return frozen
