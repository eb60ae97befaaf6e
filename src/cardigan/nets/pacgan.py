"""PacGAN (Lin, Khetan, Fanti, Oh 2018, arXiv:1712.04086), which gives D packs of images, and minibatch stddev.

D sees how much images of a pack differ, so it detects a generator that produces few different images. Knows no
architecture.
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
    """Return the image spec of the inner discriminator: the channels of a whole pack (section 3, figure 4)."""
    return replace(spec, channels=spec.channels * pac)


class PacDiscriminator(Discriminator):
    """Stacks consecutive images of the batch along their channels and returns one logit per pack."""

    def __init__(self, inner: Discriminator, pac: int) -> None:
        super().__init__()
        self.inner = inner
        self.pac = pac

    def forward(self, images: Images, labels: Labels | None = None) -> Float[Tensor, " pack"]:
        if len(images) % self.pac:
            raise CardiganError(f"{len(images)} images in packs of {self.pac}: expected a multiple of {self.pac}.")
        return self.inner(images.reshape(-1, self.pac * images.shape[1], *images.shape[2:]))


Features: TypeAlias = Float[Tensor, "batch feature"]


def minibatch_stddev(features: Float[Tensor, "batch channel *place"], group_size: int) -> Float[Tensor, " batch"]:
    """Return, for each image, the standard deviation of each feature over the image's group, averaged over features.

    arXiv:1710.10196, section 3. A group is a run of consecutive images. Its size is the largest number up to
    `group_size` that divides the batch. For groups of one image the result is 0.
    """
    size = max(count for count in range(1, group_size + 1) if len(features) % count == 0)
    if size == 1:
        return features.new_zeros(len(features), dtype=torch.float32)
    groups = features.float().unflatten(0, (-1, size)).flatten(2)
    stddev = (groups.var(dim=1, correction=0) + 1e-8).sqrt().mean(dim=1)  # sqrt has no derivative at 0
    return stddev[:, None].expand(-1, size).flatten()


def append_minibatch_stddev(
    features: Float[Tensor, "batch channel *place"], group_size: int
) -> Float[Tensor, "batch more *place"]:
    """Return the features with one more channel, the minibatch stddev. A `group_size` of 0 adds no channel."""
    if not group_size:
        return features
    stddev = minibatch_stddev(features, group_size).to(features.dtype)
    return torch.cat([features, stddev.view(-1, *[1] * (features.dim() - 1)).expand_as(features[:, :1])], dim=1)
