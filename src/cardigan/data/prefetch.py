"""Batches for streamed sources, loaded ahead of the training step that uses them.

Measures how long training waits for data. Knows the order only as a stream that can start at any image.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from cardigan.errors import CardiganError
from cardigan.shapes import Labels, Pixels

BatchStream = Callable[[int], Generator[tuple[Pixels, Labels], None, None]]
"""Takes the number of images seen; yields this process's images and labels of each following step."""


class DataLost(CardiganError):
    """The stream failed. It is raised before the step starts, so the training state is consistent."""


@dataclass
class Prefetcher:
    """Returns the images of each step. The stream can prepare them while the previous step runs."""

    stream: BatchStream
    batch_size: int
    """Images per step, over all processes."""
    require_labels: bool = False
    """Whether an image without a class is an error."""
    wait_seconds: float = 0.0
    """Total seconds that training waited for images."""
    is_waiting: bool = False
    """Whether training waits for images now."""
    _batches: Generator[tuple[Pixels, Labels], None, None] | None = field(default=None, repr=False)
    _next_images_seen: int = -1

    def batch_at(self, images_seen: int) -> tuple[Pixels, Labels]:
        """Return the images after the first `images_seen`. The stream restarts unless they follow the last batch."""
        start = time.monotonic()
        if self._batches is None or images_seen != self._next_images_seen:
            self.close()
            self._batches = self.stream(images_seen)
        try:
            self.is_waiting = True
            batch = next(self._batches)
        except CardiganError as error:
            self.close()  # the stream has ended; a later call starts another one
            raise DataLost(str(error)) from error
        finally:
            self.is_waiting = False
        if self.require_labels and bool((batch[1] < 0).any()):
            raise DataLost(
                "An image has no class or an unknown class, and training is class-conditional: add the missing labels, "
                "or set data.num_classes to the number of classes."
            )
        self._next_images_seen = images_seen + self.batch_size
        self.wait_seconds += time.monotonic() - start
        return batch

    def close(self) -> None:
        """Close the stream and its workers."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None
