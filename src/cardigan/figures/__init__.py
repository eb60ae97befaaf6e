"""Charts, image grids and animations, returned as bytes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.figures.grid import make_grid, png_bytes, side_by_side

__all__ = ["make_grid", "png_bytes", "side_by_side"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cardigan.figures import grid

    return getattr(grid, name)


def __dir__() -> list[str]:
    return sorted(__all__)
