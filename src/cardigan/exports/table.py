"""The export formats by name, with their writers and tolerances."""

from pathlib import Path

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
        tolerance=1e-5,  # the same weights at another memory address: sums may be in another order
        usage='Open it with `cardigan.load("{name}")`. It contains only tensors and JSON, no code.',
    ),
    "onnx": ExportFormat(
        "ONNX file",
        (".onnx",),
        onnx_writer,
        weight_dtypes=("float32", "float16", "int8"),
        tolerance=1e-4,
        folds_spectral_norm=True,
        usage='Open it with `onnxruntime.InferenceSession("{name}")`. Inputs: `z` float32 [N, latent], '
        "`labels` int64 [N] (class-conditional models only), `truncation` float32 of shape [] "
        "(`np.array(1, np.float32)`). "
        "Output: `images` float32 [N, channels, height, width] in [-1, 1].",
    ),
    "pt2": ExportFormat(
        "pt2 archive",
        (".pt2",),
        pt2_writer,
        weight_dtypes=("float32",),
        tolerance=1e-4,
        folds_spectral_norm=True,
        usage='Open it with `torch.export.load("{name}").module()`. Arguments: z, labels (class-conditional models '
        "only), truncation as a tensor. This file contains no pickle, but `torch.export.load` may unpickle other "
        "files: use it only for files you trust.",
    ),
    "html": ExportFormat(
        "page",
        (".html",),
        html_writer,
        weight_dtypes=("float16", "float32", "int8"),
        tolerance=2e-2,
        folds_spectral_norm=True,
        quantized_snapshot=html_quantized_snapshot,
        usage="Open `{name}` in a browser. It needs no network and no server.",
    ),
    "samples": ExportFormat(
        "set of samples",
        ("", ".zip", ".npz", ".parquet"),
        samples_writer,
        weight_dtypes=("float32",),
        tolerance=0.008,  # one gray level, for a value that lies between two
        usage="Train on it with `cardigan train {name}`, with `--conditional` if it has classes. None of the images is "
        "real.",
    ),
}


SIGNED_FORMATS = ("safetensors", "onnx", "samples")
"""Formats whose files can have a C2PA manifest."""


def find_format(name: str) -> ExportFormat:
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    return FORMATS[name]


def check_settings(name: str, settings: ExportSettings) -> None:
    """Raise CardiganError for weights that a format does not support."""
    weight_dtypes = find_format(name).weight_dtypes
    if settings.weights not in weight_dtypes:
        expectation = (
            "samples contain no weights" if name == "samples" else f"{name} supports {' or '.join(weight_dtypes)}"
        )
        raise CardiganError(
            f"weights is {settings.weights!r}, but {expectation}: leave it out, or export as safetensors or onnx."
        )


def check_signing(name: str, settings: ExportSettings, out: Path | None = None) -> None:
    """Raise CardiganError for a key if the format has no place for a signature."""
    if settings.signing is None or (name in SIGNED_FORMATS and (out is None or out.suffix != ".npz")):
        return
    what = "a .npz holds pixels, not image files" if name == "samples" else f"{name} files have no place for it"
    raise CardiganError(
        f"A C2PA manifest was asked for, but {what}: leave the certificate out, or export as "
        f"{', '.join(SIGNED_FORMATS[:-1])} or samples in a folder, .zip or .parquet."
    )
