"""Interface of export formats: settings in, a function that writes a file and returns its difference from PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cardigan.errors import CardiganError
from cardigan.figures.c2pa_manifest import SigningKey
from cardigan.models.quantize import WeightsDtype, check_weights_dtype
from cardigan.models.snapshot import Snapshot
from cardigan.shapes import Images, Labels, Latents

GenerateFn: TypeAlias = Callable[[Latents, Labels | None, float], Images]
"""Returns images in [-1, 1] for latents, labels and a truncation."""
WriteFn: TypeAlias = Callable[[Path, str], float]
"""Takes the path and the model card to embed; returns the largest difference of the file's images from PyTorch's."""

MAX_SAMPLES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Export settings.

    `weights` applies to formats with weights, `title` and `direction_names` to `html`, `signing` to `samples`,
    `safetensors` and `onnx`, the other fields to `samples`.
    """

    weights: WeightsDtype = "float32"
    """Dtype of the stored weights."""
    num_samples: int = 1_000
    """Number of samples."""
    first_sample: int = 0
    """Index of the first sample of the seed, for one part of a larger set."""
    seed: int = 0
    truncation: float = 1.0
    label: int | str | None = None
    """The class of all samples. Default: a random class per sample, if there are classes."""
    device: str = "cpu"
    """Device of the samples: cpu, cuda, cuda:1, mps or auto."""
    mark: bool = True
    """Whether PNGs say that they are generated, by which model and from which seed."""
    signing: SigningKey | None = None
    """Signs PNGs, and the model files that can have a C2PA manifest. Default: nothing is signed."""
    num_devices: int = 1
    """Number of processes that sample, each on its own GPU or its share of the CPU cores."""
    title: str = ""
    """Title of a page. Default: what the network learned from."""
    direction_names: tuple[str, ...] = ()
    """Names of a page's first principal directions."""

    def __post_init__(self) -> None:
        check_weights_dtype(self.weights)
        if not 1 <= self.num_samples <= MAX_SAMPLES:
            raise CardiganError(f"num_samples is {self.num_samples}: expected 1..{MAX_SAMPLES}.")
        if not 0 <= self.first_sample < 2**62:
            raise CardiganError(f"first_sample is {self.first_sample}: expected 0 or more.")
        if not 0 <= self.seed < 2**63:
            raise CardiganError(f"seed is {self.seed}: expected 0 <= seed < 2^63.")
        if self.signing is not None and not self.mark:
            raise CardiganError("A C2PA manifest says what the mark says, but mark is off: leave one of the two out.")


@dataclass(frozen=True)
class ExportFormat:
    """One export format."""

    title: str
    suffixes: tuple[str, ...]
    """File suffixes, the default first. "" is a folder."""
    make_writer: Callable[[Snapshot, ExportSettings], WriteFn]
    weight_dtypes: tuple[WeightsDtype, ...]
    """Supported dtypes of the weights, the default first."""
    tolerance: float
    """The largest allowed difference from PyTorch, for images in [-1, 1]."""
    usage: str
    """How to open it, for the card; {name} is the file's name."""
    folds_spectral_norm: bool = False
    """Whether weights are divided by their spectral norms, if any, before they are stored."""
    quantized_snapshot: Callable[[Snapshot, WeightsDtype], Snapshot] | None = None
    """Returns a snapshot with this format's quantized weights. Default: `models.quantize`."""
