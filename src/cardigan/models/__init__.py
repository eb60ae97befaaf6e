"""Load and save generators: snapshots, pretrained folders, the Hugging Face hub, foreign weights."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardigan.models.sampling import generate_pixels, sample_pixels
    from cardigan.models.snapshot import Snapshot, read_snapshot

__all__ = ["Snapshot", "generate_pixels", "read_snapshot", "sample_pixels"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cardigan.models import sampling, snapshot

    return {**vars(sampling), **vars(snapshot)}[name]


def __dir__() -> list[str]:
    return sorted(__all__)
