"""Finds runs below one folder and rejects paths that lead outside it.

Does not read the contents of a run.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cardigan.errors import CardiganError
from cardigan.run.directory import RunDirectory

MAX_DEPTH = 3
"""Levels of subfolders that are searched for runs."""
MAX_RUNS = 2_000
MAX_ENTRIES = 100_000
"""Maximum number of folder entries visited, because a folder of images may lie among the runs."""
MODEL_SUFFIX = ".safetensors"
CHECKPOINT_STATE = "state.safetensors"
"""State of both networks in a checkpoint, which is not a model file."""
PRETRAINED_WEIGHTS = "model.safetensors"
"""Weights in a folder for sharing, whose config.json is not that of a run."""
TRASH = ".trash"
"""Folder of deleted runs, directly below the runs folder. It is not searched for runs."""
RUN_FILES = ("studio.json", "report.json", "report.html")
"""Further files of a run that the studio opens."""


class NotFound(CardiganError):
    """The requested object does not exist, or no longer."""


@dataclass(frozen=True)
class RunsFolder:
    """The folder that the studio shows. `path` has all links resolved."""

    path: Path

    def runs(self) -> list[str]:
        """Return the ids of all runs, sorted. An id is the path relative to the folder, `.` for the folder itself."""
        budget = iter(range(MAX_ENTRIES))
        run_ids: list[str] = []
        for run in _find_runs(self.path, MAX_DEPTH, budget):
            run_ids.append(run.relative_to(self.path).as_posix())
            if len(run_ids) == MAX_RUNS:
                break
        return sorted(run_ids)

    def run(self, run_id: str) -> RunDirectory:
        """Return the run or model file of an id. Raises NotFound if it is missing or links lead outside the folder."""
        path = self.resolve_inside(Path(run_id)) if run_id and Path(run_id).parts[:1] != (TRASH,) else None
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
            *(run.path / name for name in RUN_FILES),
        ):
            if file.is_symlink() and self.resolve_inside(file.relative_to(self.path)) is None:
                raise NotFound(
                    f"{file.name} of the run {run_id!r} is a link to outside of {self.path}, which is not followed."
                )
            # opening a pipe would block; the lock is never read
            if file != lock and file.exists() and not file.is_file():
                raise NotFound(f"{file.name} of the run {run_id!r} is not a regular file.")
        return run

    def resolve_inside(self, path: Path) -> Path | None:
        """Return a path below the folder with links resolved. None if it leads outside or does not exist."""
        if path.is_absolute() or ".." in path.parts:
            return None
        try:
            resolved = (self.path / path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # missing, a null byte, a link cycle
            return None
        return resolved if resolved.is_relative_to(self.path) else None

    def file(self, run: RunDirectory, path: Path, description: str) -> Path:
        """Return a run's file with links resolved. Raises NotFound if it is missing or outside the folder."""
        resolved = self.resolve_inside(path.relative_to(self.path))
        if resolved is None or not resolved.is_file():
            raise NotFound(f"The run {run.path.relative_to(self.path).as_posix()!r} has no {description}.")
        return resolved


def is_model_file(run: RunDirectory) -> bool:
    """Return whether this is a single weights file instead of a run directory."""
    return run.path.is_file()


def open_runs_folder(path: Path) -> RunsFolder:
    """Return the folder. Raises CardiganError if it does not exist."""
    if not path.is_dir():
        raise CardiganError(
            f"There is no folder {path}: give the folder of your runs, or train a first model (cardigan train mnist)."
        )
    return RunsFolder(path.resolve())


def _find_runs(folder: Path, max_depth: int, budget: Iterator[int]) -> Iterator[Path]:
    """Yield the runs and model files in a folder and `max_depth` levels below. Links are not followed."""
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
                if not entry.is_symlink() and entry.name != TRASH
            ]
    except OSError:
        return  # deleted or made unreadable in the meantime
    for path, is_folder in sorted(children):
        if is_folder:
            yield from _find_runs(path, max_depth - 1, budget)
        elif path.suffix == MODEL_SUFFIX and path.name != CHECKPOINT_STATE:
            yield path
