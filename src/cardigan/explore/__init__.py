"""Tools that inspect a trained model: latent paths, directions, inversion, saliency, feature probes. Trains nothing."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.explore.inversion import InversionResult, invert

__all__ = ["InversionResult", "invert"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cardigan.explore import inversion

    return getattr(inversion, name)


def __dir__() -> list[str]:
    return sorted(__all__)
