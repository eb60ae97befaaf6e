"""A model as a folder in the layout of the Hugging Face hub: `config.json`, `model.safetensors` and the card, `README.md`.

Knows no network and no hub. `config.json` says what the weights' own header says, and their SHA-256, which is checked when they are read.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from cardigan.errors import CardiganError
from cardigan.run import atomic
from cardigan.run.bounds import MAX_HEADER
from cardigan.run.hub import CARD, CONFIG, WEIGHTS
from cardigan.run.tensors import read_facts

Card: TypeAlias = Callable[[Mapping[str, str]], str]
"""Given the SHA-256 of the weights, by their file's name, the text of the card."""


def write_pretrained(folder: Path, write: Callable[[Path], None], card: Card, beside: Mapping[str, bytes], overwrite: bool = False) -> None:
    """Make a folder of the weights that `write` puts into a file, what describes them, their card, and files beside them.

    A new folder appears whole; in one that is there all files are made before the first is replaced. Raises CardiganError, and changes nothing,
    for a run's folder, for one that holds another model and, without `overwrite`, for one that holds any of these files.
    """
    _check_free(folder, [WEIGHTS, CONFIG, CARD, *beside], overwrite)
    if folder.exists():
        _fill_again(folder, write, card, beside)
        return
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.unwritable(folder, error) from error
    with atomic.replacement(folder) as temporary:
        temporary.mkdir()
        _fill(temporary, write, card, beside)


def _fill_again(folder: Path, write: Callable[[Path], None], card: Card, beside: Mapping[str, bytes]) -> None:
    """Put the files into a folder that is there: all are made first, so that nothing is touched unless all of them could be made.

    They are made in a folder inside it: what is above may be closed, or on another disk.
    """
    made = folder / f"{atomic.MARK}{os.getpid()}"
    try:
        made.mkdir()
        _fill(made, write, card, beside)
        for path in sorted(made.iterdir(), key=lambda path: path.name in {WEIGHTS, CONFIG}):  # those two next to each other
            path.replace(folder / path.name)
        atomic.sync_folder(folder)
    except OSError as error:
        raise atomic.unwritable(folder, error) from error
    finally:
        atomic.remove(made)


def _check_free(folder: Path, names: list[str], overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise CardiganError(f"{folder} is a file: give the name of a folder.")
    if any((folder / name).exists() for name in ("journal.jsonl", "checkpoints", "state.safetensors")):
        raise CardiganError(f"{folder} is a run, whose own config.json would be replaced: choose another folder.")
    if (folder / "generator.safetensors").exists():
        raise CardiganError(f"{folder} holds generator.safetensors, which is another model, and a folder is read as one: choose another folder.")
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise CardiganError(f"{folder} holds {', '.join(there)} already: set overwrite to replace {'it' if len(there) == 1 else 'them'}.")


def _fill(folder: Path, write: Callable[[Path], None], card: Card, beside: Mapping[str, bytes]) -> None:
    write(folder / WEIGHTS)
    for name, content in beside.items():
        atomic.write_bytes(folder / name, content)
    hashes = {WEIGHTS: sha256_of(folder / WEIGHTS)}
    described = {"library_name": "cardigan", "cardigan": version("cardigan"), **read_facts(folder / WEIGHTS), "sha256": hashes}
    text = card(hashes)
    atomic.write_bytes(folder / CARD, text.encode())
    atomic.write_bytes(folder / CONFIG, (json.dumps(described, indent=1) + "\n").encode())


def checked_weights(folder: Path) -> Path:
    """Return the file of weights in such a folder, proven to be what its `config.json` describes, if that is there."""
    weights, config = folder / WEIGHTS, folder / CONFIG
    if not config.exists():
        return weights
    described = read_json(config)
    facts = read_facts(weights)
    if any(described.get(name) != value for name, value in facts.items()):
        raise CardiganError(f"{config} describes another model than {WEIGHTS} beside it: fetch both again, or save the model anew.")
    hashes = described.get("sha256", {})
    if isinstance(hashes, dict) and WEIGHTS in hashes:
        check_sha256(weights, hashes[WEIGHTS])
    return weights


def read_json(path: Path) -> dict[str, object]:
    """Return a file's JSON object; raises CardiganError for anything else, and for more than any honest file would hold."""
    try:
        if path.stat().st_size > MAX_HEADER:
            raise ValueError("too large")
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            return content
        raise ValueError("no object")
    except (OSError, ValueError, RecursionError) as error:
        raise CardiganError(f"{path} is damaged: fetch it again, or give another copy of it.") from error


def check_sha256(path: Path, expected: object) -> None:
    """Raise CardiganError unless a file has this SHA-256, 64 hexadecimal digits."""
    pin = expected.lower().removeprefix("sha256:") if isinstance(expected, str) else ""
    if len(pin) != 64 or set(pin) - set("0123456789abcdef"):
        raise CardiganError(f"sha256 is {str(expected)[:80]!r}: expected the 64 hexadecimal digits of a file's SHA-256.")
    found = sha256_of(path)
    if found != pin:
        raise CardiganError(f"{path} has the SHA-256 {found}, not the expected {pin}: it was changed or damaged, do not use it.")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CardiganError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}): give another copy of it.") from error
