"""html: one page that draws in the browser, offline. The page itself is `page.py`'s."""

from pathlib import Path

from cardigan.exports.interface import Settings, Writer
from cardigan.run.rounding import Weights
from cardigan.run.snapshot import Snapshot


def html_stored(snapshot: Snapshot, weights: Weights) -> Snapshot:
    """Return what a page draws with, run here."""
    from cardigan.exports.page import page_snapshot

    return page_snapshot(snapshot, weights)


def html_writer(snapshot: Snapshot, settings: Settings) -> Writer:
    """Return what writes the page."""
    from cardigan.exports.page import write_page

    def write(path: Path, card: str) -> float:
        return write_page(snapshot, path, card, settings.weights)

    return write
