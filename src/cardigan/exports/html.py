"""html: a page that generates images in the browser, offline. The page itself is in `exports/webpage/page.py`."""

from pathlib import Path

from cardigan.exports.interface import ExportSettings, WriteFn
from cardigan.models.quantize import WeightsDtype
from cardigan.models.snapshot import Snapshot


def html_quantized_snapshot(snapshot: Snapshot, weights: WeightsDtype) -> Snapshot:
    """Return the snapshot with a page's quantized weights."""
    from cardigan.exports.webpage.page import quantized_page_snapshot

    return quantized_page_snapshot(snapshot, weights)


def html_writer(snapshot: Snapshot, settings: ExportSettings) -> WriteFn:
    """Return the function that writes the page."""
    from cardigan.exports.webpage.page import write_page

    def write(path: Path, card: str) -> float:
        return write_page(snapshot, path, card, settings.weights, settings.title, settings.direction_names)

    return write
