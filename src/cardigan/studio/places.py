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


WEIGHTS = ".safetensors"
"""How a lone model's file ends."""
STATE = "state.safetensors"
"""What a checkpoint keeps of both players: no lone model."""
SHARED = "model.safetensors"
"""The weights in a folder made to be shared, whose config.json is none of a run's."""


class NotThere(CardiganError):
    """What was asked for does not exist, or no longer."""


@dataclass(frozen=True)
class Folder:
    """The folder that the studio shows; `path` is real, without links."""

    path: Path

    def runs(self) -> list[str]:
        """Return the id of every run, sorted: its path relative to the folder, `.` for the folder itself."""
        budget = iter(range(MAX_ENTRIES))
        found: list[str] = []
        for run in _runs_below(self.path, MAX_DEPTH, budget):
            found.append(run.relative_to(self.path).as_posix())
            if len(found) == MAX_RUNS:
                break
        return sorted(found)

    def run(self, identity: str) -> RunDirectory:
        """Return the run, or the lone model, of that id; raises NotThere where there is none, and for anything outside the folder, links resolved."""
        path = self.inside(Path(identity)) if identity else None
        if path is not None and path.is_file() and path.suffix == WEIGHTS:
            return RunDirectory(path)
        if path is None or not (path / "config.json").is_file():
            raise NotThere(f"There is no run {identity!r} in {self.path}: it was deleted or moved, or the address is wrong.")
        run = RunDirectory(path)
        lock = run.path / "lock"
        for file in (run.journal, run.source, run.generator, run.path / STATE, run.path / SHARED, lock):
            if file.is_symlink() and self.inside(file.relative_to(self.path)) is None:
                raise NotThere(f"The run {identity!r} has a {file.name} that is a link to somewhere outside of {self.path}: it is not followed.")
            if file != lock and file.exists() and not file.is_file():  # a pipe would be waited for without an end; a lock is only asked for
                raise NotThere(f"The run {identity!r} has a {file.name} that is no file: it is not read.")
        return run

    def inside(self, path: Path) -> Path | None:
        """Return a path below the folder without its links; None if it leads outside or nowhere."""
        if path.is_absolute() or ".." in path.parts:
            return None
        try:
            real = (self.path / path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # nothing there, a zero byte, a circle of links
            return None
        return real if real.is_relative_to(self.path) else None

    def file(self, run: RunDirectory, path: Path, what: str) -> Path:
        """Return a run's file without its links; raises NotThere if it is not there, or outside the folder."""
        real = self.inside(path.relative_to(self.path))
        if real is None or not real.is_file():
            raise NotThere(f"The run {run.path.relative_to(self.path).as_posix()!r} has no {what}.")
        return real


def is_model(run: RunDirectory) -> bool:
    """Return whether this is no run, only a file of weights that was taken away from one."""
    return run.path.is_file()


def open_folder(path: Path) -> Folder:
    """Raises CardiganError if it is no folder."""
    if not path.is_dir():
        raise CardiganError(f"There is no folder {path}: give the one that your runs lie in, or make the first run (cardigan train mnist).")
    return Folder(path.resolve())


def _runs_below(folder: Path, levels: int, budget: Iterator[int]) -> Iterator[Path]:
    """Yield the runs and lone models in a folder and `levels` levels below it; links are not followed, so nothing outside is looked at."""
    shared = folder / SHARED
    if (folder / "config.json").is_file():
        yield shared if shared.is_file() and not shared.is_symlink() and not (folder / "journal.jsonl").exists() else folder
        return
    if not levels:
        return
    try:
        with os.scandir(folder) as entries:
            found = [
                (Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry, _ in zip(entries, budget, strict=False) if not entry.is_symlink()
            ]
    except OSError:
        return  # deleted or closed to us in this moment
    for path, is_folder in sorted(found):
        if is_folder:
            yield from _runs_below(path, levels - 1, budget)
        elif path.suffix == WEIGHTS and path.name != STATE:
            yield path
