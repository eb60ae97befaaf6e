"""Moves a run to the folder `.trash` of the runs folder. Nothing is deleted."""

import time
from pathlib import Path

from cardigan.errors import CardiganError
from cardigan.files.atomic import fsync_folder
from cardigan.run.directory import is_locked
from cardigan.studio.runs_folder import TRASH, RunsFolder, is_model_file


def move_to_trash(folder: RunsFolder, run_id: str) -> Path:
    """Move a run to the trash and return its new path. Raises NotFound, and CardiganError if it cannot be moved."""
    run = folder.run(run_id)
    if is_model_file(run):
        raise CardiganError(f"{run_id} is a single model file, not a run: delete it in your file manager.")
    if run.path == folder.path:
        raise CardiganError(
            f"The studio shows only the run {run.path.name}: open the folder above it to move the run to its trash."
        )
    if is_locked(run):
        raise CardiganError(f"The run {run_id} is training: stop the training, then delete the run.")
    trash = folder.path / TRASH
    if trash.is_symlink():
        raise CardiganError(f"{trash} is a link, which is not followed: remove the link, then delete the run.")
    try:
        trash.mkdir(exist_ok=True)
        target = _free_path(trash, run.path.name)
        run.path.rename(target)
        fsync_folder(trash)
    except OSError as error:
        raise CardiganError(
            f"Cannot move the run {run_id} to {trash}: {(error.strerror or str(error)).lower()}. The run is unchanged."
        ) from error
    return target


def _free_path(trash: Path, name: str) -> Path:
    """Return an unused path in the trash that holds the time and the run's name."""
    stem = time.strftime("%Y%m%d-%H%M%S-") + name
    candidates = (trash / stem, *(trash / f"{stem}-{number}" for number in range(2, 1000)))
    return next(path for path in candidates if not path.exists())
