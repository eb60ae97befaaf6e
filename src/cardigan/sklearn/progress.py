"""An optional progress bar for training, in a terminal or a notebook. Reads events."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cardigan.run.journal import Event


@contextmanager
def progress_bar(minutes: float | None, images: int | None, verbose: bool) -> Iterator[Callable[[Event], None] | None]:
    """Yield a callback for `train` that updates a bar of the budget; None unless `verbose`."""
    if not verbose:
        yield None
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("starting", total=1.0 if minutes or images else None)

        def on_event(event: Event) -> None:
            fractions = [event.elapsed_seconds / (60 * minutes)] if minutes else []
            fractions += [event.images_seen / images] if images else []
            bar.update(task, description=_description(event), completed=min(1.0, max(fractions, default=0.0)))

        yield on_event


def _description(event: Event) -> str:
    if event.kind == "decoding":
        return f"{event.values['done']:,} of {event.values['total']:,} images decoded"
    return f"{event.images_seen:,} images seen"
