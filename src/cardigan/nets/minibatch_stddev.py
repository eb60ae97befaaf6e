"""The minibatch standard deviation of ProGAN (Karras et al. 2017, arXiv:1710.10196, section 3), which lets D see
variety."""

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

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
