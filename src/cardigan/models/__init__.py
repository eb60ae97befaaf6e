"""Load and save generators: snapshots, pretrained folders, the Hugging Face hub, foreign weights."""

from typing import TYPE_CHECKING

from cardigan.public_names import import_on_first_use

if TYPE_CHECKING:
    from cardigan.models.sampling import generate_pixels, sample_pixels
    from cardigan.models.snapshot import Snapshot, read_snapshot

__all__ = ["Snapshot", "generate_pixels", "read_snapshot", "sample_pixels"]

__getattr__, __dir__ = import_on_first_use(
    __name__,
    {"generate_pixels": "sampling", "sample_pixels": "sampling", "Snapshot": "snapshot", "read_snapshot": "snapshot"},
)
