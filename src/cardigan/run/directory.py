"""The folder of one run: its paths, and the lock that lets only one process train in it.

Does not know training. Readers use the paths; the trainer also uses the functions that write.
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

from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.files import atomic
from cardigan.files.sha256 import json_sha256
from cardigan.files.special_files import reject_special_file
from cardigan.overrides import config_diff, from_dict, to_dict

CONFIG_FORMAT = 2
"""The number that config.json carries. It goes up when a setting or a journal key changes its name or meaning."""


@dataclass(frozen=True)
class RunDirectory:
    """The paths in a run's folder. Creating this object reads and writes nothing."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def source(self) -> Path:
        """The fingerprint of the images when the run started."""
        return self.path / "source.json"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def report(self) -> Path:
        """The evaluation in the run's report, as JSON."""
        return self.path / "report.json"

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
    """Return the directory for a new run: `folder/<date>-<time>-<name>`, with a number if that name is taken."""
    return RunDirectory(next(path for path in _candidate_paths(folder, name) if not path.exists()))


@contextmanager
def reserve_run(folder: Path, name: str) -> Iterator[RunDirectory]:
    """Create and yield the directory of `new_run`. Remove it afterwards if it is empty.

    Creating it at once keeps runs that start in the same second apart. Raises CardiganError if it cannot be created.
    """
    existed = folder.exists()
    run = _reserve(folder, name)
    try:
        yield run
    finally:
        with suppress(OSError):  # usually because it is not empty
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
    raise CardiganError(f"No run of {name!r} can be created in {folder}: choose another folder.")


def _candidate_paths(folder: Path, name: str) -> list[Path]:
    stem = time.strftime("%Y%m%d-%H%M%S-") + name
    return [folder / stem, *(folder / f"{stem}-{number}" for number in range(2, 1000))]


def latest_run(folder: Path, name: str) -> RunDirectory:
    """Return the newest run with this name in `folder`. Raises CardiganError if there is none."""
    exact = re.compile(rf"\d{{8}}-\d{{6}}-{re.escape(name)}(-\d+)?")
    runs = sorted(path.parent for path in folder.glob("*/config.json") if exact.fullmatch(path.parent.name))
    if not runs:
        raise CardiganError(
            f"There is no run of {name!r} in {folder}/ to resume: omit --resume to start one, or give its path with "
            "--out."
        )
    return RunDirectory(runs[-1])


def lock_for_training(
    run: RunDirectory,
    config: Config,
    provenance: dict[str, Any],
    resume: bool,
    source_metadata: dict[str, Any] | None = None,
) -> int:
    """Create the run's folder, lock it for this process and write its `config.json`. Return the lock to release later.

    `source_metadata` identifies the images, for sources that can change. An existing run requires `resume`, the same
    config and the same images. Otherwise, or if the folder is not empty and `resume` is off, raises CardiganError and
    changes nothing.
    """
    if run.config.exists() and resume:
        changes = config_diff(read_config(run), config)
        if changes:
            raise CardiganError(
                f"{run.path} was trained with other settings ({'; '.join(changes)}): use the same ones to resume it, "
                "or another --out for a new run."
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
    content = {"format": CONFIG_FORMAT, "config": to_dict(config), "provenance": provenance}
    if source_metadata and not run.source.exists():
        atomic.write_bytes(run.source, json.dumps(source_metadata, indent=1).encode())
    # the checksum tells a resume whether somebody has changed the file since (run/integrity.py)
    atomic.write_bytes(run.config, json.dumps({**content, "sha256": json_sha256(content)}, indent=1).encode())
    return lock


def release_lock(lock: int) -> None:
    """Release the lock of `lock_for_training`."""
    _OPEN_LOCKS.discard(lock)
    os.close(lock)


def _check_source(run: RunDirectory, source_metadata: dict[str, Any] | None) -> None:
    if not source_metadata or not run.source.exists():
        return
    changes = source_changes(source_fingerprint(run), source_metadata)
    if changes:
        raise CardiganError(
            f"The images in {source_metadata['source']} are not those that {run.path} was trained on ({changes}): "
            "restore them to resume it, or choose another --out for a new run."
        )


def source_fingerprint(run: RunDirectory) -> dict[str, Any]:
    """Return the run's `source.json`, or an empty dict if there is none. Raises CardiganError if it is damaged."""
    if not run.source.exists():
        return {}
    try:
        reject_special_file(run.source)
        content = json.loads(run.source.read_bytes())
        if {"fingerprint", "num_images", "names", "labels_fingerprint", "storage"} <= content.keys():
            return content
        raise ValueError
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CardiganError(
            f"{run.source} is damaged: restore it from a backup, or remove it if the images have not changed."
        ) from error


def source_changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return a description of how a source differs from a run's fingerprint of it, or "" if it does not."""
    if before["fingerprint"] == now["fingerprint"]:
        if before["labels_fingerprint"] != now["labels_fingerprint"]:
            return "the images are the same, but their labels differ"
        return (
            ""
            if before["storage"] == now["storage"]
            else f"they were {before['storage']} before and are {now['storage']} now: set data.cache to its old value"
        )
    old, new = set(before["names"] or ()), set(now["names"] or ())
    if before["num_images"] != now["num_images"]:
        summary = f"there were {before['num_images']:,}, now there are {now['num_images']:,}"
    elif old and old == new:
        summary = f"all {now['num_images']:,} names are the same, but some sizes or dates differ"
    else:
        summary = f"there are still {now['num_images']:,}, but not the same ones"
    differences = ((old - new, "are gone"), (new - old, "are new")) if old and new else ()
    listed = [f"{len(names):,} {verb}, such as {min(names)}" for names, verb in differences if names]
    return "; ".join([summary, *listed])


_OPEN_LOCKS: set[int] = set()
"""Locks of this process. Forked processes close them, so that they do not outlive this process."""


def _close_locks_in_child() -> None:
    for descriptor in _OPEN_LOCKS:
        os.close(descriptor)
    _OPEN_LOCKS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locks_in_child)


def check_unused(run: RunDirectory, resume: bool) -> None:
    """Raise CardiganError if the folder is in use and is not a run to resume."""
    if not (resume and run.config.exists()) and _is_occupied(run.path, resume):
        raise CardiganError(f"{run.path} exists already: add --resume to continue it, or choose another --out.")


def _is_occupied(path: Path, resume: bool) -> bool:
    """Return whether a folder contains anything. With `resume`, files of a run without config.json do not count."""
    if not path.exists():
        return False
    if not path.is_dir():
        return True
    own_names = {"checkpoints", "samples", "lock", "source.json"} if resume else set()
    return any(
        entry.name not in own_names and not entry.name.startswith(atomic.TEMPORARY_PREFIX) for entry in path.iterdir()
    )


def read_config(run: RunDirectory) -> Config:
    """Return the config of a run. Raises CardiganError if there is none."""
    return from_dict(read_config_json(run)["config"])


def read_provenance(run: RunDirectory) -> dict[str, Any]:
    return dict(read_config_json(run).get("provenance", {}))


def read_config_json(run: RunDirectory) -> dict[str, Any]:
    """Return the content of `config.json`. Raises CardiganError if it is damaged or of another format."""
    try:
        reject_special_file(run.config)
        content = json.loads(run.config.read_bytes())
        if not isinstance(content["config"], dict):
            raise TypeError
        if content.get("format") != CONFIG_FORMAT:
            raise CardiganError(
                f"{run.path} is of another version of Cardigan (format {content.get('format')!r}, this version "
                f"reads {CONFIG_FORMAT}): use {_trained_by(content)}, or train again."
            )
        return content
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CardiganError(
            f"{run.path} is not a run directory (it has no config.json): give a folder that `cardigan train` created."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CardiganError(
            f"{run.config} is damaged: restore it from a backup, or give the run's generator.safetensors instead."
        ) from error


def _trained_by(content: dict[str, Any]) -> str:
    """Return the version and the commit that wrote a config.json, as far as it names them."""
    provenance = content.get("provenance")
    known = provenance if isinstance(provenance, dict) else {}
    names = (("version", known.get("cardigan_version")), ("commit", known.get("commit")))
    found = ", ".join(f"{name} {value}" for name, value in names if isinstance(value, str))
    return f"{found}, which trained it" if found else "the version that trained it"


def is_locked(run: RunDirectory) -> bool:
    """Return whether a running process trains in this run.

    Takes a shared lock and releases it at once. Readers do not block each other, and a training that starts at this
    moment retries.
    """
    try:
        descriptor = os.open(run.path / "lock", os.O_RDONLY | os.O_NONBLOCK if os.name == "posix" else os.O_RDWR)
    except OSError:
        return False  # never trained, deleted, or no permission to read
    try:
        try_lock(descriptor, shared=True)
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)


LOCK_ATTEMPTS, LOCK_RETRY_SECONDS = 5, 0.02
"""Attempts before a run counts as locked by another process. A reader in `is_locked` holds it for microseconds."""


def _acquire_lock(run: RunDirectory, descriptor: int) -> None:
    """Lock the open file until this process ends, however it ends. Raises CardiganError if it is locked."""
    for attempt in range(LOCK_ATTEMPTS):
        try:
            try_lock(descriptor, shared=False)
            return
        except OSError as error:
            if attempt == LOCK_ATTEMPTS - 1:
                os.close(descriptor)
                raise CardiganError(
                    f"{run.path} is being trained by another process: wait for it, or choose another --out."
                ) from error
            time.sleep(LOCK_RETRY_SECONDS)


def try_lock(descriptor: int, shared: bool) -> None:
    """Take the lock without waiting. Raises OSError if another process holds it."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
