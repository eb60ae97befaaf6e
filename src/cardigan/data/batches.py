"""The order of the training images: endless, reshuffled each epoch, a pure function of (seed, images_seen).

Does not know devices or processes.
"""

from dataclasses import dataclass, field

import torch

from cardigan.config_parts import DataConfig
from cardigan.data.source import ImageSource
from cardigan.rng import stream
from cardigan.shapes import FeatureVectors, Images, Indices, Labels


@dataclass(frozen=True)
class Batch:
    """The real images of one step."""

    images: Images
    labels: Labels
    indices: Indices | None = None
    """Positions of the images in their source, where it is in memory."""
    features: FeatureVectors | None = None
    """What the discriminator's frozen layers compute of these images, where it is known and nothing augments them."""
    first: int = 0
    """Position of the first image in the whole batch, of all processes and microbatches."""


@dataclass(frozen=True)
class IndexSampler:
    """Image indices, by the number of images seen before them."""

    num_images: int
    seed: int
    _permutations: dict[int, torch.Tensor] = field(default_factory=dict, repr=False)

    def indices_at(self, images_seen: int, batch_size: int) -> Indices:
        """Return the `batch_size` indices that follow the first `images_seen`. A batch may span two epochs."""
        epochs = range(images_seen // self.num_images, (images_seen + batch_size - 1) // self.num_images + 1)
        first = images_seen - epochs.start * self.num_images
        bounds = [
            (first - number * self.num_images, first + batch_size - number * self.num_images)
            for number in range(len(epochs))
        ]
        return torch.cat(
            [
                self._permutation(epoch)[max(0, start) : stop]
                for epoch, (start, stop) in zip(epochs, bounds, strict=True)
            ]
        )

    def _permutation(self, epoch: int) -> Indices:
        """Return the epoch's permutation. The last two are cached, since computing one takes milliseconds."""
        if epoch not in self._permutations:
            for stale in [known for known in self._permutations if known < epoch - 1 or known > epoch]:
                del self._permutations[stale]
            self._permutations[epoch] = torch.randperm(self.num_images, generator=stream(self.seed, "order", epoch))
        return self._permutations[epoch]


@dataclass(frozen=True)
class Batches:
    """Batches of a source, by the number of images seen before them.

    The order is endless, reshuffled each epoch, and a function of the seed alone.

    Examples:
        >>> import cardigan
        >>> data = cardigan.config_for("mnist").data
        >>> batches = cardigan.Batches(cardigan.load_mnist("test"), data, seed=0)
        >>> batch = batches.batch_at(images_seen=128, batch_size=64)
        >>> batch.images.shape, batch.labels.shape
        (torch.Size([64, 1, 32, 32]), torch.Size([64]))
    """

    source: ImageSource
    """The images."""
    data: DataConfig
    """The training shape, and how images are fitted to it."""
    seed: int
    """Seed of the order."""
    sampler: IndexSampler = field(init=False, repr=False)
    """The order, as indices of the source."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampler", IndexSampler(len(self.source), self.seed))

    def batch_at(self, images_seen: int, batch_size: int) -> Batch:
        """Return the `batch_size` images that follow the first `images_seen`, [batch, channels, height, width]."""
        return self.batch_from_indices(self.sampler.indices_at(images_seen, batch_size).to(self.source.pixels.device))

    def batch_from_indices(self, indices: Indices) -> Batch:
        """Return the images at these positions in the source, in the training shape.

        `indices` must be on the source's device.
        """
        return Batch(self.source.images_at(indices, self.data), self.source.labels_at(indices), indices)
