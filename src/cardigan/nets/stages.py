"""What several networks share: how a picture is halved, how classes are told, what is normalised and how weights begin.

Knows no network.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cardigan.errors import CardiganError
from cardigan.shapes import Labels, Latents, Logits

Features: TypeAlias = Float[Tensor, "batch feature"]

MIN_FEATURE_SIDE, MIN_FEATURE_SIDE_WITH_DEPTH = 4, 2
"""Halvings end of themselves before a side would be shorter than the first, and have to before it would be than the second."""
BATCH_NORM_EPS = 1e-5 + 1e-12
"""The tutorial's batch-normalisation epsilon."""


@dataclass(frozen=True)
class Stage:
    """One halving of the picture, seen from the discriminator: from `large` to `small`, (height, width) each."""

    large_size: tuple[int, int]
    small_size: tuple[int, int]

    @property
    def kernel(self) -> tuple[int, int]:
        """4 along an axis that is halved, 3 along one that is kept."""
        return self._per_axis(strided=4, unstrided=3)

    @property
    def stride(self) -> tuple[int, int]:
        return self._per_axis(strided=2, unstrided=1)

    @property
    def output_padding(self) -> tuple[int, int]:
        """1 along an axis whose large side is odd: the row that halving loses and doubling has to add."""
        return (
            self.large_size[0] - self.small_size[0] * self.stride[0],
            self.large_size[1] - self.small_size[1] * self.stride[1],
        )

    def _per_axis(self, strided: int, unstrided: int) -> tuple[int, int]:
        height, width = (
            strided if small != large else unstrided
            for small, large in zip(self.small_size, self.large_size, strict=True)
        )
        return (height, width)


def stages(height: int, width: int, count: int | None = None, network: str = "generator") -> list[Stage]:
    """Return the halvings from the full picture down to sides of 4..7, or the first `count`, which may go on to sides of 2 or 3.

    An axis that has arrived waits for the other. Raises CardiganError, naming the `player` whose depth `count` is, where there are not so many.
    """

    def sizes() -> Iterator[tuple[int, int]]:
        sides = (height, width)
        yield sides
        for min_side in (MIN_FEATURE_SIDE, MIN_FEATURE_SIDE_WITH_DEPTH) if count else (MIN_FEATURE_SIDE,):
            while max(sides) >= 2 * min_side:
                sides = (
                    sides[0] // 2 if sides[0] >= 2 * min_side else sides[0],
                    sides[1] // 2 if sides[1] >= 2 * min_side else sides[1],
                )
                yield sides

    all_sizes = list(sizes())
    all_stages = [Stage(large, small) for large, small in zip(all_sizes, all_sizes[1:], strict=False)]
    if count and count > len(all_stages):
        raise CardiganError(
            f"{network}.depth is {count}, but pictures of {height}x{width} can be halved {len(all_stages)} times: "
            f"set it to {len(all_stages)} or less, or leave it out."
        )
    return all_stages[:count]


def channels_per_stage(width: int, num_sizes: int) -> list[int]:
    """Return the channels of each size, large to small: doubled each time, at most eight times the first."""
    return [width * min(2**size, 8) for size in range(num_sizes)]


def normalization(kind: Literal["none", "batch", "batch-no-scale"], channels: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    norm = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)
    if kind == "batch-no-scale":
        norm.weight.requires_grad_(False)
    return norm


def initialize_weights(network: nn.Module, kind: Literal["dcgan", "torch"]) -> None:
    """Draw the starting weights: `dcgan` is Normal(0, 0.02) for every convolution; `torch` leaves the network's own."""
    for module in network.modules():
        if kind == "dcgan" and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def one_hot_labels(labels: Labels | None, num_classes: int) -> Float[Tensor, "batch classes"]:
    """Return 1 in each row's own class and 0 elsewhere."""
    # PyTorch's one_hot reads the labels on the host, which waits for a GPU.
    labels = require_labels(labels)
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()


def require_labels(labels: Labels | None) -> Labels:
    assert labels is not None, "a network built for classes was called without labels"
    return labels


class ConditionalLatent(nn.Module):
    """z, and beside it what says the class, if there are classes: its one-hot row, or a learned embedding of it.

    An embedding has as many numbers as there are classes, where z is longer than that: more could say no more.
    """

    def __init__(self, latent_size: int, num_classes: int, learned_embedding: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embedding = (
            nn.Embedding(num_classes, min(num_classes, latent_size)) if num_classes and learned_embedding else None
        )
        self.out_features = latent_size + (self.embedding.embedding_dim if self.embedding else num_classes)

    def forward(self, z: Latents, labels: Labels | None) -> Float[Tensor, "batch size"]:
        if not self.num_classes:
            return z
        condition = (
            self.embedding(require_labels(labels)) if self.embedding else one_hot_labels(labels, self.num_classes)
        )
        return torch.cat([z, condition.to(z.dtype)], dim=1)


class Projection(nn.Module):
    """How well features suit a class: their inner product with its learned embedding (arXiv:1802.05637, eq. 3, the first term)."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, in_features)
        nn.init.uniform_(
            self.embedding.weight, -(in_features**-0.5), in_features**-0.5
        )  # as PyTorch's linear layers, which it is added to

    def forward(self, features: Features, labels: Labels | None) -> Logits:
        return (features.float() * self.embedding(require_labels(labels))).sum(dim=1)


class Head(nn.Module):
    """A linear map of D's last features and, if there are classes, their projection on the class (arXiv:1802.05637, eq. 3)."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 1)
        self.projection = Projection(in_features, num_classes) if num_classes else None

    def forward(self, features: Features, labels: Labels | None) -> Logits:
        logits = self.linear(features).flatten().float()
        return logits + self.projection(features, labels) if self.projection else logits


def minibatch_stddev(features: Float[Tensor, "batch channel *place"], group_size: int) -> Float[Tensor, " batch"]:
    """Return for each picture how much its group differs within itself: the deviation of every feature over the group, averaged.

    arXiv:1710.10196, section 3. Groups are neighbours in the batch: the largest number up to `group` that divides the batch;
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
