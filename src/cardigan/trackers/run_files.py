"""The files of a stopped run that a tracker gets: the generator of the best checkpoint, and the report."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cardigan.run.directory import RunDirectory

MAX_FILE_BYTES = 500_000_000
"""Larger files are not sent; the tracker gets a note instead."""


@contextmanager
def run_files(run: RunDirectory) -> Iterator[list[Path]]:
    """Yield the files that the run has, for as long as the block lasts."""
    with TemporaryDirectory(prefix="cardigan-") as folder:
        files = [best_generator(run, Path(folder)), run.path / "report.html", run.report]
        yield [path for path in files if path.is_file()]


def best_generator(run: RunDirectory, folder: Path) -> Path:
    """Return the file with the generator of the best checkpoint, written into `folder` if it is not the run's own."""
    if not any(run.checkpoints.glob("[0-9]*")):
        return run.generator
    from cardigan.models.snapshot import read_snapshot, write_snapshot
    from cardigan.run.checkpoint import best_checkpoint, list_checkpoints

    best = best_checkpoint(run.checkpoints)
    if best is None or best == list_checkpoints(run.checkpoints)[-1]:
        return run.generator
    path = folder / run.generator.name
    write_snapshot(path, read_snapshot(best))
    return path
