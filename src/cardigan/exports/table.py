"""The formats by name: what each is called, what writes it, and how far from PyTorch it may be.

Knows no model.
"""

from cardigan.errors import CardiganError, unknown
from cardigan.exports.html import html_quantized_snapshot, html_writer
from cardigan.exports.interface import ExportFormat, ExportSettings
from cardigan.exports.onnx import onnx_writer
from cardigan.exports.pt2 import pt2_writer
from cardigan.exports.safetensors import safetensors_writer
from cardigan.exports.samples import samples_writer

FORMATS = {
    "safetensors": ExportFormat(
        "safetensors file",
        (".safetensors",),
        safetensors_writer,
        weight_dtypes=("float32", "float16", "int8"),
        tolerance=1e-5,  # the same weights, elsewhere in memory: sums may be taken in another order
        usage='Open it with `cardigan.load("{name}")`; it holds tensors and JSON, and nothing that runs.',
    ),
    "onnx": ExportFormat(
        "ONNX file",
        (".onnx",),
        onnx_writer,
        weight_dtypes=("float32", "float16", "int8"),
        tolerance=1e-4,
        folds_spectral_norm=True,
        usage='Open it with `onnxruntime.InferenceSession("{name}")`. In: `z` float32 [N, latent], `labels` int64 [N] where there are classes, '
        "`truncation` float32 of shape [] (`np.array(1, np.float32)`). Out: `images` float32 [N, channels, height, width] in [-1, 1].",
    ),
    "pt2": ExportFormat(
        "pt2 archive",
        (".pt2",),
        pt2_writer,
        weight_dtypes=("float32",),
        tolerance=1e-4,
        folds_spectral_norm=True,
        usage='Open it with `torch.export.load("{name}").module()`, called as (z, labels where there are classes, truncation as a tensor). '
        "This file holds no pickle, but that function unpickles what it finds in others: use it for files you trust.",
    ),
    "html": ExportFormat(
        "page",
        (".html",),
        html_writer,
        weight_dtypes=("float16", "float32", "int8"),
        tolerance=2e-2,
        folds_spectral_norm=True,
        quantized_snapshot=html_quantized_snapshot,
        usage="Open `{name}` in a browser; it needs no network and no server.",
    ),
    "samples": ExportFormat(
        "set of samples",
        ("", ".zip", ".npz", ".parquet"),
        samples_writer,
        weight_dtypes=("float32",),
        tolerance=0.008,  # one grey level, where a value lies between two
        usage="Train on it with `cardigan train {name}`, and `--conditional` where it has classes. None of the pictures is real.",
    ),
}


def find_format(name: str) -> ExportFormat:
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    return FORMATS[name]


def check_settings(name: str, settings: ExportSettings) -> None:
    """Raise CardiganError for weights that a format cannot hold."""
    weight_dtypes = find_format(name).weight_dtypes
    if settings.weights not in weight_dtypes:
        expectation = "samples hold no weights" if name == "samples" else f"{name} holds {' or '.join(weight_dtypes)}"
        raise CardiganError(
            f"weights are {settings.weights!r}, but {expectation}: leave them out, or export as safetensors or onnx."
        )
