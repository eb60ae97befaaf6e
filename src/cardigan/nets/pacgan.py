"""PacGAN (Lin, Khetan, Fanti, Oh 2018, arXiv:1712.04086): a discriminator of any architecture that judges several pictures together.

A generator that draws few different pictures is found out at once, since real packs differ inside. Knows no architecture.
"""

from dataclasses import replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cardigan.data.source import ImageSpec
from cardigan.errors import CardiganError
from cardigan.nets.interface import Discriminator
from cardigan.shapes import Images, Labels


def pac_spec(spec: ImageSpec, pac: int) -> ImageSpec:
    """Return what the inner discriminator sees: the channels of a whole pack (section 3, figure 4)."""
    return replace(spec, channels=spec.channels * pac)


class PacDiscriminator(Discriminator):
    """Shows `inner` packs of neighbouring pictures of the batch, stacked along their channels; one logit a pack."""

    def __init__(self, inner: Discriminator, pac: int) -> None:
        super().__init__()
        self.inner = inner
        self.pac = pac

    def forward(self, images: Images, labels: Labels | None = None) -> Float[Tensor, " pack"]:
        if len(images) % self.pac:
            raise CardiganError(f"{len(images)} pictures in packs of {self.pac}: expected a multiple of {self.pac}.")
        return self.inner(images.reshape(-1, self.pac * images.shape[1], *images.shape[2:]))


Features: TypeAlias = Float[Tensor, "batch feature"]


def minibatch_stddev(features: Float[Tensor, "batch channel *place"], group_size: int) -> Float[Tensor, " batch"]:
    """Return for each picture how much its group differs within itself: the deviation of every feature over the group, averaged.

    arXiv:1710.10196, section 3. Groups are neighbours in the batch: the largest number up to `group_size` that divides the batch;
    a picture alone in its group differs from nothing, which is 0.
    """
    size = max(count for count in range(1, group_size + 1) if len(features) % count == 0)
    if size == 1:
        return features.new_zeros(len(features), dtype=torch.float32)
    groups = features.float().unflatten(0, (-1, size)).flatten(2)
    stddev = (groups.var(dim=1, correction=0) + 1e-8).sqrt().mean(dim=1)  # the root of 0 has no derivative
    return stddev[:, None].expand(-1, size).flatten()


def append_minibatch_stddev(
    features: Float[Tensor, "batch channel *place"], group_size: int
) -> Float[Tensor, "batch more *place"]:
    """Return the features with one more channel, constant over a picture: its minibatch deviation. Group 0 adds nothing."""
    if not group_size:
        return features
    stddev = minibatch_stddev(features, group_size).to(features.dtype)
    return torch.cat([features, stddev.view(-1, *[1] * (features.dim() - 1)).expand_as(features[:, :1])], dim=1)
