"""The pictures of steps to come, for sources that do not lie where the training computes.

Knows the order only as a function that begins anywhere; what waits for whom is counted here.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from cardigan.shapes import Labels, Pixels

Stream = Callable[[int], Generator[tuple[Pixels, Labels], None, None]]
"""Given how many images were seen, yields this process's pictures of each step from there on."""


@dataclass
class Feed:
    """Gives each step its pictures; made ready while the step before is computed, if the stream works ahead."""

    stream: Stream
    batch: int
    """Pictures of a step, over all processes."""
    waited_seconds: float = 0.0
    """How long training has stood still for pictures."""
    _parts: Generator[tuple[Pixels, Labels], None, None] | None = field(default=None, repr=False)
    _next: int = -1

    def at(self, images_seen: int) -> tuple[Pixels, Labels]:
        """Return the pictures that follow the first `images_seen`; anywhere but after the last call's, the stream begins anew."""
        began = time.monotonic()
        if self._parts is None or images_seen != self._next:
            self.close()
            self._parts = self.stream(images_seen)
        found = next(self._parts)
        self._next = images_seen + self.batch
        self.waited_seconds += time.monotonic() - began
        return found

    def close(self) -> None:
        """Let go of whatever works ahead."""
        if self._parts is not None:
            self._parts.close()
            self._parts = None
