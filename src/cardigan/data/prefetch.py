"""The pictures of steps to come, for sources that do not lie where the training computes.

Knows the order only as a function that begins anywhere; what waits for whom is counted here.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from cardigan.errors import CardiganError
from cardigan.shapes import Labels, Pixels

BatchStream = Callable[[int], Generator[tuple[Pixels, Labels], None, None]]
"""Given how many images were seen, yields this process's pictures of each step from there on."""


class DataLost(CardiganError):
    """No pictures come any more; the step that wanted them has not begun, and what was trained until then is whole."""


@dataclass
class Prefetcher:
    """Gives each step its pictures; made ready while the step before is computed, if the stream works ahead."""

    stream: BatchStream
    batch_size: int
    """Pictures of a step, over all processes."""
    require_labels: bool = False
    """Whether every picture must have a class."""
    wait_seconds: float = 0.0
    """How long training has stood still for pictures."""
    _batches: Generator[tuple[Pixels, Labels], None, None] | None = field(default=None, repr=False)
    _next_images_seen: int = -1

    def batch_at(self, images_seen: int) -> tuple[Pixels, Labels]:
        """Return the pictures that follow the first `images_seen`; anywhere but after the last call's, the stream begins anew."""
        start = time.monotonic()
        if self._batches is None or images_seen != self._next_images_seen:
            self.close()
            self._batches = self.stream(images_seen)
        try:
            batch = next(self._batches)
        except CardiganError as error:
            raise DataLost(str(error)) from error
        if self.require_labels and bool((batch[1] < 0).any()):
            raise DataLost(
                "A picture came that has no class, or one beyond those known, and the training is conditional: add the missing labels, or say with "
                "data.num_classes how many classes there are."
            )
        self._next_images_seen = images_seen + self.batch_size
        self.wait_seconds += time.monotonic() - start
        return batch

    def close(self) -> None:
        """Let go of whatever works ahead."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None
