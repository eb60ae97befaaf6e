"""The order pictures are seen in: endless, shuffled anew each epoch, a pure function of (seed, images_seen).

Does not know devices or processes.
"""

from dataclasses import dataclass, field

import torch

from cardigan.config import DataConfig
from cardigan.data.source import ImageSource
from cardigan.rng import stream
from cardigan.shapes import Images, Indices, Labels


@dataclass(frozen=True)
class Batch:
    """One step's real pictures."""

    images: Images
    labels: Labels


@dataclass(frozen=True)
class Order:
    """Numbers of pictures, by the number of images seen before them."""

    size: int
    seed: int
    _orders: dict[int, torch.Tensor] = field(default_factory=dict, repr=False)

    def at(self, images_seen: int, batch: int) -> Indices:
        """Return the `batch` numbers that follow the first `images_seen`; a batch may end one epoch and begin the next."""
        epochs = range(images_seen // self.size, (images_seen + batch - 1) // self.size + 1)
        first = images_seen - epochs.start * self.size
        bounds = [(first - number * self.size, first + batch - number * self.size) for number in range(len(epochs))]
        return torch.cat([self._epoch(epoch)[max(0, start) : stop] for epoch, (start, stop) in zip(epochs, bounds, strict=True)])

    def _epoch(self, epoch: int) -> Indices:
        """Return the epoch's permutation; the last two are remembered, since drawing one takes milliseconds."""
        if epoch not in self._orders:
            for old in [known for known in self._orders if known < epoch - 1 or known > epoch]:
                del self._orders[old]
            self._orders[epoch] = torch.randperm(self.size, generator=stream(self.seed, "order", epoch))
        return self._orders[epoch]


@dataclass(frozen=True)
class Batches:
    """Batches of a source, by the number of images seen before them."""

    source: ImageSource
    data: DataConfig
    seed: int
    order: Order = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", Order(len(self.source), self.seed))

    def at(self, images_seen: int, batch: int) -> Batch:
        """Return the `batch` pictures that follow the first `images_seen`."""
        return self.pictures(self.order.at(images_seen, batch).to(self.source.pixels.device))

    def pictures(self, indices: Indices) -> Batch:
        """Return the pictures at these positions in the source, in the frame that is trained on; `indices` lie where the source lies."""
        return Batch(self.source.images(indices, self.data), self.source.labels_at(indices))
