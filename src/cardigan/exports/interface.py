"""What every format of one model is: settings in, something that writes a file, loads it back and tells how far it is from PyTorch.

Knows no format.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cardigan.errors import CardiganError
from cardigan.models.quantize import WeightsDtype, check_weights_dtype
from cardigan.models.snapshot import Snapshot
from cardigan.shapes import Images, Labels, Latents

GenerateFn: TypeAlias = Callable[[Latents, Labels | None, float], Images]
"""What draws pictures in [-1, 1] from latents, classes and a truncation."""
WriteFn: TypeAlias = Callable[[Path, str], float]
"""Takes where to write and the model card to put inside; returns the largest difference of the file's pictures from PyTorch's."""

MAX_SAMPLES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """How to export. The samples' settings are read by the format `samples` alone, `weights` by those that hold weights."""

    weights: WeightsDtype = "float32"
    """What the weights are stored as."""
    num_samples: int = 1_000
    """How many samples."""
    seed: int = 0
    truncation: float = 1.0
    label: int | str | None = None
    """The class of all samples; by default each has one drawn at random, where there are any."""

    def __post_init__(self) -> None:
        check_weights_dtype(self.weights)
        if not 1 <= self.num_samples <= MAX_SAMPLES:
            raise CardiganError(f"{self.num_samples} samples were asked for: expected 1..{MAX_SAMPLES}.")
        if not 0 <= self.seed < 2**63:
            raise CardiganError(f"seed is {self.seed}: expected 0 <= seed < 2^63.")


@dataclass(frozen=True)
class ExportFormat:
    """One kind of export."""

    title: str
    suffixes: tuple[str, ...]
    """Of its files; the first is the usual one, and "" a folder."""
    make_writer: Callable[[Snapshot, ExportSettings], WriteFn]
    weight_dtypes: tuple[WeightsDtype, ...]
    """What its weights can be stored as."""
    tolerance: float
    """The largest difference from PyTorch that is kept, of 2 between black and white."""
    usage: str
    """How to open it, for its card; {name} is the file's name."""
    folds_spectral_norm: bool = False
    """Whether weights are divided by their spectral norms, where they have them, before they are stored."""
    quantized_snapshot: Callable[[Snapshot, WeightsDtype], Snapshot] | None = None
    """What draws with weights as this format stores them, where that is not as `models.quantize` does."""
