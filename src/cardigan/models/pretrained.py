"""A model folder in the layout of the Hugging Face hub: `config.json`, `model.safetensors` and `README.md`, the card.

`config.json` repeats the header of the weights and adds their SHA-256, which is checked on reading.
"""

import json
import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from cardigan.errors import CardiganError
from cardigan.files import atomic
from cardigan.files.sha256 import check_sha256, file_sha256
from cardigan.files.special_files import reject_special_file
from cardigan.files.tensors import MAX_HEADER_BYTES, read_metadata
from cardigan.models.hub import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE

CardWriter: TypeAlias = Callable[[Mapping[str, str]], str]
"""Returns the text of the card, given the SHA-256 of the weights by file name."""


def write_pretrained(
    folder: Path,
    write_weights: Callable[[Path], None],
    write_card: CardWriter,
    extra_files: Mapping[str, bytes],
    overwrite: bool = False,
) -> None:
    """Write a model folder: weights, config, card and extra files.

    A new folder is created atomically. In an existing folder, all files are written before the first one is replaced.
    Raises CardiganError and changes nothing if the folder is a run, holds another model or, without `overwrite`, has
    any of these files.
    """
    _check_writable(folder, [WEIGHTS_FILE, CONFIG_FILE, CARD_FILE, *extra_files], overwrite)
    if folder.exists():
        _replace_files(folder, write_weights, write_card, extra_files)
        return
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.write_error(folder, error) from error
    with atomic.atomic_path(folder) as temporary:
        temporary.mkdir()
        _write_files(temporary, write_weights, write_card, extra_files)


def _replace_files(
    folder: Path, write_weights: Callable[[Path], None], write_card: CardWriter, extra_files: Mapping[str, bytes]
) -> None:
    """Replace the files in an existing folder after all new files have been written.

    The staging folder is inside it, because the parent may be read-only or on another disk.
    """
    staging = folder / f"{atomic.TEMPORARY_PREFIX}{os.getpid()}"
    try:
        staging.mkdir()
        _write_files(staging, write_weights, write_card, extra_files)
        # Weights and config come last, directly after each other.
        for path in sorted(staging.iterdir(), key=lambda path: path.name in {WEIGHTS_FILE, CONFIG_FILE}):
            path.replace(folder / path.name)
        atomic.fsync_folder(folder)
    except OSError as error:
        raise atomic.write_error(folder, error) from error
    finally:
        atomic.remove(staging)


def _check_writable(folder: Path, names: list[str], overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise CardiganError(f"{folder} is a file: give a folder.")
    if any((folder / name).exists() for name in ("journal.jsonl", "checkpoints", "state.safetensors")):
        raise CardiganError(f"{folder} is a run, and saving would replace its config.json: choose another folder.")
    if (folder / "generator.safetensors").exists():
        raise CardiganError(f"{folder} holds generator.safetensors, which is another model: choose another folder.")
    existing = [name for name in names if (folder / name).exists()]
    if existing and not overwrite:
        raise CardiganError(
            f"{folder} holds {', '.join(existing)} already: set overwrite to replace "
            f"{'it' if len(existing) == 1 else 'them'}."
        )


def _write_files(
    folder: Path, write_weights: Callable[[Path], None], write_card: CardWriter, extra_files: Mapping[str, bytes]
) -> None:
    write_weights(folder / WEIGHTS_FILE)
    for name, content in extra_files.items():
        atomic.write_bytes(folder / name, content)
    sha256 = {WEIGHTS_FILE: file_sha256(folder / WEIGHTS_FILE)}
    config = {
        "library_name": "cardigan",
        "cardigan": version("cardigan"),
        **read_metadata(folder / WEIGHTS_FILE),
        "sha256": sha256,
    }
    text = write_card(sha256)
    atomic.write_bytes(folder / CARD_FILE, text.encode())
    atomic.write_bytes(folder / CONFIG_FILE, (json.dumps(config, indent=1) + "\n").encode())


def verify_weights(folder: Path) -> Path:
    """Return the weights file of a model folder, after checking it against `config.json` if that exists."""
    weights, config = folder / WEIGHTS_FILE, folder / CONFIG_FILE
    if not config.exists():
        return weights
    description = read_json(config)
    metadata = read_metadata(weights)
    if any(description.get(name) != value for name, value in metadata.items()):
        raise CardiganError(
            f"{config} does not describe {WEIGHTS_FILE} in the same folder: download both again, "
            "or save the model again."
        )
    hashes = description.get("sha256", {})
    if isinstance(hashes, dict) and WEIGHTS_FILE in hashes:
        check_sha256(weights, hashes[WEIGHTS_FILE])
    return weights


def read_json(path: Path) -> dict[str, object]:
    """Return a file's JSON object. Raises CardiganError for anything else or for a file that is too large."""
    try:
        reject_special_file(path)
        if path.stat().st_size > MAX_HEADER_BYTES:
            raise ValueError("too large")
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            return content
        raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise CardiganError(f"{path} is damaged: download it again, or use another copy.") from error
