"""safetensors: the weights, the settings and the card in one file, which Cardigan loads again."""

from dataclasses import replace
from pathlib import Path

from cardigan.exports.checking import drawing_of, largest_difference
from cardigan.exports.interface import Settings, Writer
from cardigan.run.rounding import rounded
from cardigan.run.snapshot import Snapshot, read_snapshot, write_snapshot


def safetensors_writer(snapshot: Snapshot, settings: Settings) -> Writer:
    """Return what writes the file."""
    weights = settings.weights
    exact = replace(snapshot, generator=rounded(snapshot.generator, weights))

    def write(path: Path, card: str) -> float:
        write_snapshot(path, snapshot, weights, card)
        return largest_difference(exact, drawing_of(read_snapshot(path)))

    return write
