"""safetensors: weights, settings and card in one file that Cardigan can load."""

from dataclasses import replace
from pathlib import Path

from cardigan.exports.card import model_description
from cardigan.exports.checking import largest_difference, pytorch_generate_fn
from cardigan.exports.interface import ExportSettings, WriteFn
from cardigan.exports.model_manifest import sign_model
from cardigan.models.quantize import fake_quantize
from cardigan.models.snapshot import Snapshot, read_snapshot, write_snapshot


def safetensors_writer(snapshot: Snapshot, settings: ExportSettings) -> WriteFn:
    """Return the function that writes the file."""
    weights = settings.weights
    quantized = replace(snapshot, generator=fake_quantize(snapshot.generator, weights))

    def write(path: Path, card: str) -> float:
        write_snapshot(path, snapshot, weights, card)
        if settings.signing is not None:
            sign_model(path, settings.signing, model_description(snapshot))
        return largest_difference(quantized, pytorch_generate_fn(read_snapshot(path)))

    return write
