"""The sizes and channels of a network's stages. Each stage halves the image. Knows no network."""

from collections.abc import Iterator
from dataclasses import dataclass

from cardigan.errors import CardiganError

MIN_FEATURE_SIDE, MIN_FEATURE_SIDE_WITH_DEPTH = 4, 2
"""Shortest side of the last feature maps: by default, and at most with an explicit depth."""


@dataclass(frozen=True)
class Stage:
    """One halving of the image, from `large_size` to `small_size`. Sizes are (height, width)."""

    large_size: tuple[int, int]
    small_size: tuple[int, int]

    @property
    def kernel(self) -> tuple[int, int]:
        """4 along a halved axis, 3 along an unchanged one."""
        return self._per_axis(strided=4, unstrided=3)

    @property
    def stride(self) -> tuple[int, int]:
        return self._per_axis(strided=2, unstrided=1)

    @property
    def output_padding(self) -> tuple[int, int]:
        """1 along an axis whose large side is odd: upsampling has to restore the row that downsampling drops."""
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
    """Return the stages from the full image down to sides of 4..7, or the first `count`, down to sides of 2 or 3.

    The shorter axis stops at its smallest side while the other is still halved. Raises CardiganError, naming
    `network`, if `count` stages are not possible.
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
            f"{network}.depth is {count}, but images of {height}x{width} can be halved {len(all_stages)} times: "
            f"set it to {len(all_stages)} or less, or leave it out."
        )
    return all_stages[:count]


def channels_per_stage(width: int, num_sizes: int) -> list[int]:
    """Return the channels of each size, from large to small: doubled each time, at most 8 * width."""
    return [width * min(2**size, 8) for size in range(num_sizes)]
