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

SMALL, SMALLEST = 4, 2
"""Halvings end of themselves before a side would be shorter than the first, and have to before it would be than the second."""
EPS = 1e-5 + 1e-12
"""The tutorial's batch-normalisation epsilon."""


@dataclass(frozen=True)
class Stage:
    """One halving of the picture, seen from the discriminator: from `large` to `small`, (height, width) each."""

    large: tuple[int, int]
    small: tuple[int, int]

    @property
    def kernel(self) -> tuple[int, int]:
        """4 along an axis that is halved, 3 along one that is kept."""
        return self._per_axis(halved=4, kept=3)

    @property
    def stride(self) -> tuple[int, int]:
        return self._per_axis(halved=2, kept=1)

    @property
    def remainder(self) -> tuple[int, int]:
        """1 along an axis whose large side is odd: the row that halving loses and doubling has to add."""
        return (self.large[0] - self.small[0] * self.stride[0], self.large[1] - self.small[1] * self.stride[1])

    def _per_axis(self, halved: int, kept: int) -> tuple[int, int]:
        height, width = (halved if small != large else kept for small, large in zip(self.small, self.large, strict=True))
        return (height, width)


def stages(height: int, width: int, count: int | None = None, player: str = "generator") -> list[Stage]:
    """Return the halvings from the full picture down to sides of 4..7, or the first `count`, which may go on to sides of 2 or 3.

    An axis that has arrived waits for the other. Raises CardiganError, naming the `player` whose depth `count` is, where there are not so many.
    """

    def sizes() -> Iterator[tuple[int, int]]:
        sides = (height, width)
        yield sides
        for least in (SMALL, SMALLEST) if count else (SMALL,):
            while max(sides) >= 2 * least:
                sides = (sides[0] // 2 if sides[0] >= 2 * least else sides[0], sides[1] // 2 if sides[1] >= 2 * least else sides[1])
                yield sides

    chain = list(sizes())
    found = [Stage(large, small) for large, small in zip(chain, chain[1:], strict=False)]
    if count and count > len(found):
        raise CardiganError(
            f"{player}.depth is {count}, but pictures of {height}x{width} can be halved {len(found)} times: "
            f"set it to {len(found)} or less, or leave it out."
        )
    return found[:count]


def widths(width: int, num_sizes: int) -> list[int]:
    """Return the channels of each size, large to small: doubled each time, at most eight times the first."""
    return [width * min(2**size, 8) for size in range(num_sizes)]


def normalisation(kind: Literal["none", "batch", "batch-shift"], channels: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    norm = nn.BatchNorm2d(channels, eps=EPS)
    if kind == "batch-shift":
        norm.weight.requires_grad_(False)
    return norm


def initialise(network: nn.Module, kind: Literal["dcgan", "torch"]) -> None:
    """Draw the starting weights: `dcgan` is Normal(0, 0.02) for every convolution; `torch` leaves the network's own."""
    for module in network.modules():
        if kind == "dcgan" and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def class_rows(labels: Labels | None, classes: int) -> Float[Tensor, "batch classes"]:
    """Return 1 in each row's own class and 0 elsewhere."""
    # PyTorch's one_hot reads the labels on the host, which waits for a GPU.
    labels = told(labels)
    return (labels[:, None] == torch.arange(classes, device=labels.device)).float()


def told(labels: Labels | None) -> Labels:
    assert labels is not None, "a network built for classes was called without labels"
    return labels


class LatentWithClass(nn.Module):
    """z, and beside it what says the class, if there are classes: its one-hot row, or a learned embedding of it.

    An embedding has as many numbers as there are classes, where z is longer than that: more could say no more.
    """

    def __init__(self, latent_size: int, classes: int, learned: bool) -> None:
        super().__init__()
        self.classes = classes
        self.embedding = nn.Embedding(classes, min(classes, latent_size)) if classes and learned else None
        self.size = latent_size + (self.embedding.embedding_dim if self.embedding else classes)

    def forward(self, z: Latents, labels: Labels | None) -> Float[Tensor, "batch size"]:
        if not self.classes:
            return z
        beside = self.embedding(told(labels)) if self.embedding else class_rows(labels, self.classes)
        return torch.cat([z, beside.to(z.dtype)], dim=1)


class Projection(nn.Module):
    """How well features suit a class: their inner product with its learned embedding (arXiv:1802.05637, eq. 3, the first term)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, features)
        nn.init.uniform_(self.embedding.weight, -(features**-0.5), features**-0.5)  # as PyTorch's linear layers, which it is added to

    def forward(self, features: Features, labels: Labels | None) -> Logits:
        return (features.float() * self.embedding(told(labels))).sum(dim=1)


class Verdict(nn.Module):
    """A linear map of D's last features and, if there are classes, their projection on the class (arXiv:1802.05637, eq. 3)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.projection = Projection(features, classes) if classes else None

    def forward(self, features: Features, labels: Labels | None) -> Logits:
        logits = self.linear(features).flatten().float()
        return logits + self.projection(features, labels) if self.projection else logits


def minibatch_deviation(features: Float[Tensor, "batch channel *place"], group: int) -> Float[Tensor, " batch"]:
    """Return for each picture how much its group differs within itself: the deviation of every feature over the group, averaged.

    arXiv:1710.10196, section 3. Groups are neighbours in the batch: the largest number up to `group` that divides the batch;
    a picture alone in its group differs from nothing, which is 0.
    """
    size = max(count for count in range(1, group + 1) if len(features) % count == 0)
    if size == 1:
        return features.new_zeros(len(features), dtype=torch.float32)
    groups = features.float().unflatten(0, (-1, size)).flatten(2)
    deviation = (groups.var(dim=1, correction=0) + 1e-8).sqrt().mean(dim=1)  # the root of 0 has no derivative
    return deviation[:, None].expand(-1, size).flatten()


def with_minibatch_deviation(features: Float[Tensor, "batch channel *place"], group: int) -> Float[Tensor, "batch more *place"]:
    """Return the features with one more channel, constant over a picture: its minibatch deviation. Group 0 adds nothing."""
    if not group:
        return features
    deviation = minibatch_deviation(features, group).to(features.dtype)
    return torch.cat([features, deviation.view(-1, *[1] * (features.dim() - 1)).expand_as(features[:, :1])], dim=1)
