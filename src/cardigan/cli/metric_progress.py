"""One line on the standard error output that says which metric is being computed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cardigan.metrics.evaluate import OnMetric


@contextmanager
def metric_progress() -> "Iterator[OnMetric]":
    """Yield the function that shows the progress. In a terminal one line is overwritten and cleared at the end."""
    is_terminal = sys.stderr.isatty()

    def on_metric(name: str, number: int, total: int) -> None:
        text = f"computing {name} ({number} of {total})"
        print(f"\r\x1b[K{text} ..." if is_terminal else text, end="" if is_terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    try:
        yield on_metric
    finally:
        if is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
