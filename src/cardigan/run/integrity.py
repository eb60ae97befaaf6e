"""Whether the files of a run still belong together: config, source, training state and tensors.

Every checkpoint holds the checksum of the settings and of the source it was trained with, and `config.json` its own.
Checked before a run is resumed, since a changed setting would train on with other numbers and say nothing.
"""

from contextlib import suppress
from typing import Any

from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.files.sha256 import json_sha256
from cardigan.overrides import experiment_settings, from_dict
from cardigan.run.checkpoint import CheckpointMetadata, list_checkpoints, read_checkpoint_metadata
from cardigan.run.directory import RunDirectory, read_config_json, source_fingerprint


def config_sha256(config: Config) -> str:
    """Return the checksum of the settings that the weights depend on. A resume may change the others.

    Only of those that differ from the defaults: a setting that a later version adds does not change it.
    """
    defaults = experiment_settings(Config())
    return json_sha256({name: value for name, value in experiment_settings(config).items() if value != defaults[name]})


def source_sha256(run: RunDirectory) -> str:
    """Return the checksum of the run's `source.json`, or of an empty one."""
    return json_sha256(source_fingerprint(run))


def check_unchanged(run: RunDirectory) -> None:
    """Raise CardiganError if `config.json` or `source.json` is not what the training wrote."""
    content = read_config_json(run)
    sha256 = content.pop("sha256", None)
    metadata = _newest_metadata(run)
    if sha256 != json_sha256(content) or (
        metadata is not None and metadata.config_sha256 not in _possible_checksums(content["config"])
    ):
        raise CardiganError(
            f"{run.config} was changed after the training wrote it, so {run.path} cannot be resumed: restore it from a "
            f"backup, or train a new run with its settings (--config {run.config} --out NEW)."
        )
    if metadata is not None and run.source.exists() and metadata.source_sha256 != source_sha256(run):
        raise CardiganError(
            f"{run.source} was changed after the training wrote it: restore it from a backup, or remove it if the "
            "images have not changed."
        )


def _possible_checksums(values: dict[str, Any]) -> set[str]:
    """Return the checksum of a `config.json`, and the one of versions that counted all settings they knew."""
    config = from_dict(values)
    known = {f"{name}.{key}" for name, value in values.items() if isinstance(value, dict) for key in value} | {*values}
    counted = {name: value for name, value in experiment_settings(config).items() if name in known}
    return {config_sha256(config), json_sha256(counted)}


def _newest_metadata(run: RunDirectory) -> CheckpointMetadata | None:
    """Return the metadata of the newest checkpoint whose `state.json` is intact."""
    for path in reversed(list_checkpoints(run.checkpoints)):
        with suppress(CardiganError):
            return read_checkpoint_metadata(path)[0]
    return None
