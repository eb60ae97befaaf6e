"""Removes local paths and credentials from the metadata of exported files."""

import re
from dataclasses import replace
from pathlib import Path

from cardigan.backbones.taps import WEIGHTS_SUFFIX
from cardigan.config import BUILTIN_SOURCES, Config
from cardigan.models.snapshot import Snapshot

URL_QUERY = re.compile(r"(https?://[^?#]*).*", re.IGNORECASE | re.DOTALL)
"""Groups an HTTP address without its query, which may contain a token."""
URL_USER = re.compile(r"://[^/]*@")
"""User name and password of an address."""
LOCAL_SCHEME = re.compile(r"\b(file|local)://", re.IGNORECASE)
"""Schemes of addresses that are paths of this machine."""


def anonymized(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with names instead of local paths and private addresses."""
    return replace(snapshot, config=without_local_paths(snapshot.config))


def without_local_paths(config: Config) -> Config:
    """Return the config with the names of its source, its file of classes and its backbone's weights."""
    data, options = config.data, config.discriminator.options
    labels = Path(data.labels).name if data.labels else data.labels
    if str(options.get("backbone", "")).endswith(WEIGHTS_SUFFIX):
        options = {**options, "backbone": Path(str(options["backbone"])).name}
    return replace(
        config,
        data=replace(data, source=public_source(config), labels=labels),
        discriminator=replace(config.discriminator, options=options),
    )


def public_source(config: Config) -> str:
    """Return the data source's name, without local folders and without credentials in an address."""
    source = config.data.source
    if "://" in source:
        return _public_address(source)
    if source.startswith("hf:"):
        name = source.removeprefix("hf:").partition(":")[0]
        return _base_name(name) if _is_local_folder(name) else source
    return source if source in BUILTIN_SOURCES else _base_name(source)


def _public_address(source: str) -> str:
    """Return an address, or a chain such as `tar://...::https://...`, without queries, users and local folders."""
    without_secrets = URL_USER.sub("://", URL_QUERY.sub(r"\1", source))
    return "::".join(
        link if "://" in link and not LOCAL_SCHEME.search(link) else _base_name(link)
        for link in without_secrets.split("::")
    )


def _is_local_folder(name: str) -> bool:
    """Return whether the text after `hf:` can only be a folder. A hub name is NAME or USER/NAME."""
    return name.startswith((".", "~")) or Path(name).is_absolute() or name.count("/") > 1


def _base_name(path: str) -> str:
    return Path(path).name or path
