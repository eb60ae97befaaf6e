"""One line on the standard error output that says which metric is being computed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cardigan.metrics.evaluate import OnMetric


@contextmanager
def metric_progress() -> "Iterator[OnMetric | None]":
    """Yield the function that shows the progress on one line, cleared at the end; None where there is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return

    def on_metric(name: str, number: int, total: int) -> None:
        print(f"\r\x1b[Kcomputing {name} ({number} of {total}) ...", end="", file=sys.stderr, flush=True)

    try:
        yield on_metric
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
