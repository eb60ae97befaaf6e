"""The pictures of steps to come, for sources that do not lie where the training computes.

Knows the order only as a function that begins anywhere; what waits for whom is counted here.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from cardigan.errors import CardiganError
from cardigan.shapes import Labels, Pixels

Stream = Callable[[int], Generator[tuple[Pixels, Labels], None, None]]
"""Given how many images were seen, yields this process's pictures of each step from there on."""


class PicturesLost(CardiganError):
    """No pictures come any more; the step that wanted them has not begun, and what was trained until then is whole."""


@dataclass
class Feed:
    """Gives each step its pictures; made ready while the step before is computed, if the stream works ahead."""

    stream: Stream
    batch: int
    """Pictures of a step, over all processes."""
    labelled: bool = False
    """Whether every picture must have a class."""
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
        try:
            found = next(self._parts)
        except CardiganError as error:
            raise PicturesLost(str(error)) from error
        if self.labelled and bool((found[1] < 0).any()):
            raise PicturesLost(
                "A picture came that has no class, or one beyond those known, and the training is conditional: add the missing labels, or say with "
                "data.classes how many classes there are."
            )
        self._next = images_seen + self.batch
        self.waited_seconds += time.monotonic() - began
        return found

    def close(self) -> None:
        """Let go of whatever works ahead."""
        if self._parts is not None:
            self._parts.close()
            self._parts = None
