"""One run's folder: where each thing lies, and the rule that it is written by one training at a time.

Does not know training; readers use the paths, the trainer also the deeds.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardigan.config import Config, config_diff, from_dict, to_dict
from cardigan.errors import CardiganError
from cardigan.files import atomic


@dataclass(frozen=True)
class RunDirectory:
    """Paths below a run's folder; nothing is touched until a deed is asked for."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def source(self) -> Path:
        """What the pictures were when the run began."""
        return self.path / "source.json"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def generator(self) -> Path:
        return self.path / "generator.safetensors"

    def sample_path(self, images_seen: int) -> Path:
        return self.samples / f"{images_seen:08d}.png"

    def latest_sample(self) -> Path | None:
        """Return the newest sample grid, or None."""
        return max(self.samples.glob("[0-9]*.png"), key=lambda path: int(path.stem), default=None)


def new_run(folder: Path, name: str) -> RunDirectory:
    """Return the directory for a new run: `folder/<date>-<time>-<name>`, with a number if that second is taken."""
    return RunDirectory(next(path for path in _candidate_paths(folder, name) if not path.exists()))


@contextmanager
def reserve_run(folder: Path, name: str) -> Iterator[RunDirectory]:
    """Yield the directory of `new_run`, made at once so that nobody who begins in the same second gets it too; what stays empty is removed.

    Raises CardiganError if none can be made there.
    """
    existed = folder.exists()
    run = _reserve(folder, name)
    try:
        yield run
    finally:
        with suppress(OSError):  # most often because something is in it
            run.path.rmdir()
            if not existed:
                folder.rmdir()


def _reserve(folder: Path, name: str) -> RunDirectory:
    for path in _candidate_paths(folder, name):
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise atomic.write_error(path, error) from error
        return RunDirectory(path)
    raise CardiganError(f"No run of {name!r} can be made in {folder}: choose another folder.")


def _candidate_paths(folder: Path, name: str) -> list[Path]:
    stem = time.strftime("%Y%m%d-%H%M%S-") + name
    return [folder / stem, *(folder / f"{stem}-{number}" for number in range(2, 1000))]


def latest_run(folder: Path, name: str) -> RunDirectory:
    """Return the newest run of that name below `folder`; raises CardiganError if there is none."""
    exact = re.compile(rf"\d{{8}}-\d{{6}}-{re.escape(name)}(-\d+)?")
    runs = sorted(path.parent for path in folder.glob("*/config.json") if exact.fullmatch(path.parent.name))
    if not runs:
        raise CardiganError(
            f"There is no run of {name!r} in {folder}/ to resume: leave --resume out to start one, or name it with --out."
        )
    return RunDirectory(runs[-1])


def lock_for_training(
    run: RunDirectory,
    config: Config,
    provenance: dict[str, Any],
    resume: bool,
    source_metadata: dict[str, Any] | None = None,
) -> int:
    """Make the run's folder, take it for this process and write its `config.json`; return the lock, to be released when training ends.

    `source_metadata` are what to remember of the pictures, for sources that can change. An existing run is only entered with `resume`, the same experiment
    and the same pictures.
    Raises CardiganError, and changes nothing, if the folder holds something and `resume` is off, or if the experiment or the pictures differ.
    """
    if run.config.exists() and resume:
        changes = config_diff(read_config(run), config)
        if changes:
            raise CardiganError(
                f"{run.path} was trained with other settings ({'; '.join(changes)}): use the same ones to resume it, or another --out for a new run."
            )
        _check_source(run, source_metadata)
    else:
        check_unused(run, resume)
    try:
        for folder in (run.path, run.checkpoints, run.samples):
            folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(run.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise atomic.write_error(run.path, error) from error
    _acquire_lock(run, lock)
    _OPEN_LOCKS.add(lock)
    atomic.remove_temporaries(run.path)
    content = {"format": 2, "config": to_dict(config), "provenance": provenance}
    if source_metadata and not run.source.exists():
        atomic.write_bytes(run.source, json.dumps(source_metadata, indent=1).encode())
    atomic.write_bytes(run.config, json.dumps(content, indent=1).encode())
    return lock


def release_lock(lock: int) -> None:
    """Let go of a run that `lock_for_training` took."""
    _OPEN_LOCKS.discard(lock)
    os.close(lock)


def _check_source(run: RunDirectory, source_metadata: dict[str, Any] | None) -> None:
    if not source_metadata or not run.source.exists():
        return
    changes = source_changes(source_fingerprint(run), source_metadata)
    if changes:
        raise CardiganError(
            f"The pictures in {source_metadata['source']} are not those that {run.path} was trained on ({changes}): bring them back to resume it, "
            "or choose another --out for a new run."
        )


def source_fingerprint(run: RunDirectory) -> dict[str, Any]:
    """Return what the run remembers of its pictures, nothing if it remembers nothing; raises CardiganError for a damaged file."""
    if not run.source.exists():
        return {}
    try:
        content = json.loads(run.source.read_bytes())
        if {"fingerprint", "num_images", "names", "labels_fingerprint", "storage"} <= content.keys():
            return content
        raise ValueError
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CardiganError(
            f"{run.source} is damaged: restore it from a backup, or remove it if the pictures are the same as ever."
        ) from error


def source_changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return in words how a source differs from what a run remembers of it; "" if it does not."""
    if before["fingerprint"] == now["fingerprint"]:
        if before["labels_fingerprint"] != now["labels_fingerprint"]:
            return "the pictures are the same, but their classes are not"
        return (
            ""
            if before["storage"] == now["storage"]
            else f"they were {before['storage']} then, and are {now['storage']} now: set data.cache as it was"
        )
    old, new = set(before["names"] or ()), set(now["names"] or ())
    if before["num_images"] != now["num_images"]:
        summary = f"there were {before['num_images']:,}, and now there are {now['num_images']:,}"
    elif old and old == new:
        summary = f"all {now['num_images']:,} are called the same, but some have another size or date"
    else:
        summary = f"there are still {now['num_images']:,}, but not the same ones"
    differences = ((old - new, "are gone"), (new - old, "are new")) if old and new else ()
    listed = [f"{len(names):,} {verb}, such as {min(names)}" for names, verb in differences if names]
    return "; ".join([summary, *listed])


_OPEN_LOCKS: set[int] = set()
"""Locks of this process; processes forked from it must not keep them when it is gone."""


def _close_locks_in_child() -> None:
    for descriptor in _OPEN_LOCKS:
        os.close(descriptor)
    _OPEN_LOCKS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locks_in_child)


def check_unused(run: RunDirectory, resume: bool) -> None:
    """Raise CardiganError if the folder holds something that is not to be resumed."""
    if not (resume and run.config.exists()) and _is_occupied(run.path, resume):
        raise CardiganError(f"{run.path} exists already: add --resume to continue it, or choose another --out.")


def _is_occupied(path: Path, resume: bool) -> bool:
    """Return whether a folder holds anything; a start killed before its config.json was written does not count when resuming."""
    if not path.exists():
        return False
    if not path.is_dir():
        return True
    own_names = {"checkpoints", "samples", "lock", "source.json"} if resume else set()
    return any(
        entry.name not in own_names and not entry.name.startswith(atomic.TEMPORARY_PREFIX) for entry in path.iterdir()
    )


def read_config(run: RunDirectory) -> Config:
    """Return the config of a run; raises CardiganError if the folder holds none."""
    return from_dict(_read_config_json(run)["config"])


def read_provenance(run: RunDirectory) -> dict[str, Any]:
    return dict(_read_config_json(run).get("provenance", {}))


def _read_config_json(run: RunDirectory) -> dict[str, Any]:
    try:
        content = json.loads(run.config.read_bytes())
        if not isinstance(content["config"], dict):
            raise TypeError
        return content
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CardiganError(
            f"{run.path} is no run directory (it has no config.json): give a folder that `cardigan train` made."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CardiganError(
            f"{run.config} is damaged: restore it from a backup, or give the run's generator.safetensors instead."
        ) from error


def is_locked(run: RunDirectory) -> bool:
    """Return whether a living process trains in the run.

    Asks for the lock, shared, and lets go of it at once: readers do not hinder each other, and a training that begins in that moment asks again.
    """
    try:
        descriptor = os.open(run.path / "lock", os.O_RDONLY | os.O_NONBLOCK if os.name == "posix" else os.O_RDWR)
    except OSError:
        return False  # never trained in, gone, or not ours to read
    try:
        _try_lock(descriptor, shared=True)
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)


LOCK_ATTEMPTS, LOCK_RETRY_SECONDS = 5, 0.02
"""How often a training asks for its run before another process has it: a reader that looks has it for microseconds."""


def _acquire_lock(run: RunDirectory, descriptor: int) -> None:
    """Hold the open lock file until this process ends, however it ends; raises CardiganError if another one trains in the run."""
    for attempt in range(LOCK_ATTEMPTS):
        try:
            _try_lock(descriptor, shared=False)
            return
        except OSError as error:
            if attempt == LOCK_ATTEMPTS - 1:
                os.close(descriptor)
                raise CardiganError(
                    f"{run.path} is being trained by another process: wait for it, or choose another --out."
                ) from error
            time.sleep(LOCK_RETRY_SECONDS)


def _try_lock(descriptor: int, shared: bool) -> None:
    """Take the lock without waiting; raises OSError if another process has it."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
