"""Where runs lie below one folder, and that nothing outside of it is ever opened.

Does not read what is in a run.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cardigan.errors import CardiganError
from cardigan.run.directory import RunDirectory

MAX_DEPTH = 3
"""How many levels below the folder runs are looked for."""
MAX_RUNS = 2_000
MAX_ENTRIES = 100_000
"""How many entries of folders are looked at: a folder of pictures among the runs must not be counted through for ever."""


MODEL_SUFFIX = ".safetensors"
"""How a lone model's file ends."""
CHECKPOINT_STATE = "state.safetensors"
"""What a checkpoint keeps of both players: no lone model."""
PRETRAINED_WEIGHTS = "model.safetensors"
"""The weights in a folder made to be shared, whose config.json is none of a run's."""


class NotFound(CardiganError):
    """What was asked for does not exist, or no longer."""


@dataclass(frozen=True)
class RunsFolder:
    """The folder that the studio shows; `path` is real, without links."""

    path: Path

    def runs(self) -> list[str]:
        """Return the id of every run, sorted: its path relative to the folder, `.` for the folder itself."""
        budget = iter(range(MAX_ENTRIES))
        run_ids: list[str] = []
        for run in _find_runs(self.path, MAX_DEPTH, budget):
            run_ids.append(run.relative_to(self.path).as_posix())
            if len(run_ids) == MAX_RUNS:
                break
        return sorted(run_ids)

    def run(self, run_id: str) -> RunDirectory:
        """Return the run, or the lone model, of that id; raises NotThere where there is none, and for anything outside the folder, links resolved."""
        path = self.resolve_inside(Path(run_id)) if run_id else None
        if path is not None and path.is_file() and path.suffix == MODEL_SUFFIX:
            return RunDirectory(path)
        if path is None or not (path / "config.json").is_file():
            raise NotFound(
                f"There is no run {run_id!r} in {self.path}: it was deleted or moved, or the address is wrong."
            )
        run = RunDirectory(path)
        lock = run.path / "lock"
        for file in (
            run.journal,
            run.source,
            run.generator,
            run.path / CHECKPOINT_STATE,
            run.path / PRETRAINED_WEIGHTS,
            lock,
        ):
            if file.is_symlink() and self.resolve_inside(file.relative_to(self.path)) is None:
                raise NotFound(
                    f"The run {run_id!r} has a {file.name} that is a link to somewhere outside of {self.path}: it is not followed."
                )
            if (
                file != lock and file.exists() and not file.is_file()
            ):  # a pipe would be waited for without an end; a lock is only asked for
                raise NotFound(f"The run {run_id!r} has a {file.name} that is no file: it is not read.")
        return run

    def resolve_inside(self, path: Path) -> Path | None:
        """Return a path below the folder without its links; None if it leads outside or nowhere."""
        if path.is_absolute() or ".." in path.parts:
            return None
        try:
            resolved = (self.path / path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # nothing there, a zero byte, a circle of links
            return None
        return resolved if resolved.is_relative_to(self.path) else None

    def file(self, run: RunDirectory, path: Path, description: str) -> Path:
        """Return a run's file without its links; raises NotThere if it is not there, or outside the folder."""
        resolved = self.resolve_inside(path.relative_to(self.path))
        if resolved is None or not resolved.is_file():
            raise NotFound(f"The run {run.path.relative_to(self.path).as_posix()!r} has no {description}.")
        return resolved


def is_model_file(run: RunDirectory) -> bool:
    """Return whether this is no run, only a file of weights that was taken away from one."""
    return run.path.is_file()


def open_runs_folder(path: Path) -> RunsFolder:
    """Raises CardiganError if it is no folder."""
    if not path.is_dir():
        raise CardiganError(
            f"There is no folder {path}: give the one that your runs lie in, or make the first run (cardigan train mnist)."
        )
    return RunsFolder(path.resolve())


def _find_runs(folder: Path, max_depth: int, budget: Iterator[int]) -> Iterator[Path]:
    """Yield the runs and lone models in a folder and `max_depth` levels below it; links are not followed, so nothing outside is looked at."""
    pretrained_weights = folder / PRETRAINED_WEIGHTS
    if (folder / "config.json").is_file():
        yield (
            pretrained_weights
            if pretrained_weights.is_file()
            and not pretrained_weights.is_symlink()
            and not (folder / "journal.jsonl").exists()
            else folder
        )
        return
    if not max_depth:
        return
    try:
        with os.scandir(folder) as entries:
            children = [
                (Path(entry.path), entry.is_dir(follow_symlinks=False))
                for entry, _ in zip(entries, budget, strict=False)
                if not entry.is_symlink()
            ]
    except OSError:
        return  # deleted or closed to us in this moment
    for path, is_folder in sorted(children):
        if is_folder:
            yield from _find_runs(path, max_depth - 1, budget)
        elif path.suffix == MODEL_SUFFIX and path.name != CHECKPOINT_STATE:
            yield path
