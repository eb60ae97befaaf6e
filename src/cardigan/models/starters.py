"""Starters: small trained models to start from, in the package `cardigan-starters`.

A starter is a model folder with its discriminator, a preview, and `starter.json`: title, licenses, scores, and mean
features of its training images, by which the nearest starter to a folder of images is found.
"""

import json
from dataclasses import dataclass, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cardigan.errors import CardiganError

PACKAGE = "cardigan_starters"
FACTS_FILE, PREVIEW_FILE = "starter.json", "preview.png"
INSTALL = "pip install ./packages/starters in a clone of the repository"


@dataclass(frozen=True)
class Starter:
    """A trained model to start from."""

    name: str
    folder: Path
    title: str
    """What its images show, in a few words."""
    height: int
    width: int
    channels: int
    class_names: tuple[str, ...]
    license: str
    """Identifier of the license of the training images, which may apply to the weights."""
    attribution: str
    """Who made the training images, as their license asks to be said."""
    images_seen: int
    score: float
    """Frechet distance over EfficientNet-Lite2 to its training images, of 2,000 samples."""
    features: tuple[float, ...]
    """Means, then standard deviations of the features of its training images (`metrics/quick.py`)."""
    command: str
    """The command that trained it."""


@cache
def list_starters() -> tuple[Starter, ...]:
    """Return the installed starters in the order of their names; none if the package is not installed."""
    spec = find_spec(PACKAGE)
    folders = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or []]
    return tuple(_read_starter(facts.parent) for folder in folders for facts in sorted(folder.glob(f"*/{FACTS_FILE}")))


def find_starter(name: str) -> Starter:
    """Return a starter by its name; raises CardiganError for an unknown one, or if none is installed."""
    starters = {starter.name: starter for starter in list_starters()}
    if name in starters:
        return starters[name]
    known = f"one of the starters ({', '.join(starters)})" if starters else f"a starter (none is installed: {INSTALL})"
    raise CardiganError(
        f"There is no model {name!r}: give a run, a checkpoint, a file of weights, hf:user/name or {known}."
    )


def starter_at(path: Path) -> Starter | None:
    """Return the starter that this path or name is, or None."""
    folder = located(path)
    return next((starter for starter in list_starters() if starter.folder == folder), None)


def located(path: Path) -> Path:
    """Return the folder of a starter if `path` is its name and no such file exists; else the path."""
    if path.name != str(path) or path.exists():
        return path
    return next((starter.folder for starter in list_starters() if starter.name == path.name), path)


def _read_starter(folder: Path) -> Starter:
    """Return a starter; raises CardiganError for a damaged one. Facts that this version does not know are left out."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS_FILE).read_bytes())
        known = {field.name for field in fields(Starter)} - {"name", "folder"}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in facts.items() if name in known
        }
        return Starter(name=folder.name, folder=folder, **values)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CardiganError(f"The starter in {folder} is damaged: install cardigan-starters again.") from error
